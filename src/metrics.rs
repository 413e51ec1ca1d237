//! EDGE: the metrics: one table of names, and how they are set.
//!
//! Owns every metric name, its type, its help text and its labels; `/metrics` shows nothing that is not here.
//! Refuses to know HTTP. Values that belong to the table (weights, connections) are set from a [`Snapshot`] when
//! they are asked for, so that a removed server's series end; counters are counted where things happen.
//! Without a recorder (no `http` address) every call does nothing.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ahash::AHashMap;
use checks::Outcome;
use metrics::{
    Counter, Histogram, Label, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;

use crate::config::{AgentPlan, CheckPlan};
use crate::snapshot::{RealSnapshot, Snapshot};

const IN_SYNC: &str = "smtp_director_in_sync";
const TABLE_OPS: &str = "smtp_director_table_ops_total";
const INFO: &str = "smtp_director_info";
const LAST_SYNC: &str = "smtp_director_last_sync_timestamp_seconds";
const RESYNCS: &str = "smtp_director_resyncs_total";
const RELOADS: &str = "smtp_director_reloads_total";
const LAST_RELOAD_OK: &str = "smtp_director_last_reload_successful";
const CHECKS: &str = "smtp_director_checks_total";
const CHECK_SECONDS: &str = "smtp_director_check_duration_seconds";
const REAL_UP: &str = "smtp_director_real_up";
const REAL_HELD: &str = "smtp_director_real_held";
const REAL_FACTOR: &str = "smtp_director_real_factor";
const REAL_BANNER: &str = "smtp_director_real_banner_seconds";
const REAL_NOT_AFTER: &str = "smtp_director_real_certificate_not_after_timestamp_seconds";
const CANARIES: &str = "smtp_director_canaries_total";
const CANARY_SECONDS: &str = "smtp_director_canary_delay_seconds";
const CANARY_STRANGERS: &str = "smtp_director_canary_strangers_total";
const CANARIES_SILENT: &str = "smtp_director_canaries_silent";
const REAL_CANARY: &str = "smtp_director_real_canary_delay_seconds";
const REAL_OVERDUE: &str = "smtp_director_real_canary_overdue_seconds";
const CUT_OFF: &str = "smtp_director_cut_off";
const VIP_STRANGERS: &str = "smtp_director_vip_strangers";
const VIP_DOUBTED: &str = "smtp_director_vip_doubted";
const REAL_WEIGHT: &str = "smtp_director_real_weight";
const REAL_CONFIGURED: &str = "smtp_director_real_configured_weight";
const REAL_ACTIVE: &str = "smtp_director_real_active_connections";
const REAL_INACTIVE: &str = "smtp_director_real_inactive_connections";
const QUEUE_MESSAGES: &str = "smtp_director_real_queue_messages";
const QUEUE_OLDEST: &str = "smtp_director_real_queue_oldest_seconds";
const QUEUE_WAIT: &str = "smtp_director_real_queue_wait_seconds";
const QUEUE_RATE: &str = "smtp_director_real_queue_messages_per_second";
const QUEUE_FREE: &str = "smtp_director_real_queue_free_bytes";
const QUEUE_AGE: &str = "smtp_director_real_queue_report_age_seconds";
const QUEUE_KNOWN: &str = "smtp_director_real_queue_known";
const QUEUE_REPORTS: &str = "smtp_director_queue_reports_total";
const REAL_CONNECTIONS: &str = "smtp_director_real_connections_total";

/// Name, labels and help of every gauge.
const GAUGES: [(&str, &str); 26] = [
    (INFO, "Always 1; labels: version, dataplane"),
    (IN_SYNC, "1 while the table is as it should be"),
    (LAST_SYNC, "When the table was last found or made as it should be"),
    (LAST_RELOAD_OK, "1 while the last reload of the configuration was accepted"),
    (CUT_OFF, "1 while no real server answers at all, so that nothing follows from it for any"),
    (VIP_STRANGERS, "Hosts that answer for the VIP beside this one: clients reach them past it; labels: vip"),
    (
        VIP_DOUBTED,
        "1 while no real server answers through the VIP although all are well, so that nothing follows from it; labels: \
         virtual",
    ),
    (
        REAL_UP,
        "1 while the server is up or degraded, 0 while it is down; absent while unknown; labels: virtual, real",
    ),
    (
        REAL_HELD,
        "1 while the server is down and keeps its weight, because too little would be left; labels: virtual, real",
    ),
    (
        REAL_FACTOR,
        "The part of its weight that something leaves the server, 0 to 1; labels: virtual, real, cause (check, canary, agent, queue, latency, slow_start)",
    ),
    (
        QUEUE_MESSAGES,
        "Messages; labels: virtual, real, queue (incoming, active, deferred, hold, maildrop, corrupt)",
    ),
    (QUEUE_OLDEST, "Since the oldest message came; labels: virtual, real, queue (work, deferred)"),
    (
        QUEUE_WAIT,
        "How long a message that comes now would wait, as its weight goes by; labels: virtual, real",
    ),
    (QUEUE_RATE, "Messages that leave for good each second; labels: virtual, real"),
    (QUEUE_FREE, "Free space of the spool; labels: virtual, real"),
    (QUEUE_AGE, "How old the last report of the queue is; labels: virtual, real"),
    (QUEUE_KNOWN, "1 while the last answer of its agent was data, 0 while not; labels: virtual, real"),
    (REAL_BANNER, "How long the server takes to greet, smoothed; labels: virtual, real"),
    (REAL_NOT_AFTER, "When the certificate of the server ends; labels: virtual, real"),
    (CANARIES_SILENT, "1 while no canary of any server comes back, so that nothing follows from it for any"),
    (REAL_CANARY, "How long the last canary that came back took; labels: virtual, real"),
    (REAL_OVERDUE, "For how long a canary is under way that should be back, else 0; labels: virtual, real"),
    (REAL_WEIGHT, "Weight in the table; labels: virtual, real"),
    (REAL_CONFIGURED, "Weight in the configuration; labels: virtual, real"),
    (REAL_ACTIVE, "Established connections; labels: virtual, real"),
    (REAL_INACTIVE, "Connections in other states that the dataplane remembers; labels: virtual, real"),
];

/// Name and help of every counter.
const COUNTERS: [(&str, &str); 8] = [
    (TABLE_OPS, "Changes of the table; labels: op, result (ok, error)"),
    (RESYNCS, "Comparisons of the table with what is wanted; labels: result (ok, error)"),
    (RELOADS, "Reloads of the configuration; labels: result (ok, error)"),
    (
        CHECKS,
        "Checks; labels: target, check, tier (base, mail, tls, data, vip, canary), stage (how far it got), reason (ok, or why it failed)",
    ),
    (
        CANARIES,
        "Canaries; labels: target, result (sent, not_taken, back, late, lost); one that is lost can come late",
    ),
    (
        CANARY_STRANGERS,
        "What came to the receiver of canaries and was none that is waited for; labels: reason (no_canary, forged, earlier_start, doubled)",
    ),
    (
        QUEUE_REPORTS,
        "Answers of agents; labels: server, agent, result (ok, or why it was no data: local, refused, unreachable, timeout, reset, tls, failed, cut, too_long, garbage, absurd, version, stale, permission, no_spool, no_answer, slow, system)",
    ),
    (REAL_CONNECTIONS, "Connections scheduled; labels: virtual, real"),
];

/// Upper bounds in seconds: a healthy probe takes milliseconds, a first contact with postscreen 6 s.
const BUCKETS: [f64; 10] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 7.0, 15.0];
/// Upper bounds in seconds of the way of a canary.
const WAY_BUCKETS: [f64; 10] = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0];
/// Gauges that a scrape does not set end after this time: those of a server that was removed. Every gauge is
/// set at every scrape, so that none ends before its time.
const IDLE: Duration = Duration::from_secs(60);

/// The recorder and what it needs to render.
#[derive(Debug)]
pub struct Exporter {
    handle: PrometheusHandle,
    /// The kernel's counters as last seen: they start again when a table is cleared, ours do not.
    seen: Mutex<AHashMap<(String, String), u64>>,
}

impl Exporter {
    /// Makes this process record metrics.
    ///
    /// # Errors
    /// When a recorder is installed already.
    pub fn install() -> Result<Self, BuildError> {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(CHECK_SECONDS.to_owned()), &BUCKETS)?
            .set_buckets_for_metric(Matcher::Full(CANARY_SECONDS.to_owned()), &WAY_BUCKETS)?
            .idle_timeout(MetricKindMask::GAUGE, Some(IDLE))
            .install_recorder()?;
        for (name, help) in GAUGES {
            describe_gauge!(name, help);
        }
        for (name, help) in COUNTERS {
            describe_counter!(name, help);
        }
        describe_histogram!(
            CANARY_SECONDS,
            Unit::Seconds,
            "From sending a canary until it was back; labels: target"
        );
        describe_histogram!(
            CHECK_SECONDS,
            Unit::Seconds,
            "Duration of a whole check; labels: target, check, tier"
        );
        Ok(Self { handle, seen: Mutex::new(AHashMap::new()) })
    }

    /// Folds the samples that wait into their histograms; without it they would pile up between scrapes.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// The Prometheus text format (version 0.0.4).
    pub fn render(&self, snapshot: &Snapshot) -> String {
        gauge!(INFO, "version" => snapshot.version.clone(), "dataplane" => snapshot.dataplane.clone())
            .set(1.0);
        gauge!(IN_SYNC).set(f64::from(u8::from(snapshot.in_sync)));
        gauge!(LAST_RELOAD_OK).set(f64::from(u8::from(snapshot.last_reload_ok)));
        gauge!(CUT_OFF).set(f64::from(u8::from(snapshot.cut_off)));
        gauge!(CANARIES_SILENT).set(f64::from(u8::from(snapshot.canaries_silent)));
        if let Some(seconds) = snapshot.last_sync {
            gauge!(LAST_SYNC).set(whole(i64::try_from(seconds).unwrap_or(i64::MAX)));
        }
        for vip in &snapshot.vips {
            let count = u32::try_from(vip.strangers.len()).unwrap_or(u32::MAX);
            gauge!(VIP_STRANGERS, "vip" => vip.address.clone()).set(f64::from(count));
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = AHashMap::with_capacity(seen.len());
        for shown in &snapshot.virtuals {
            let name = if shown.name.is_empty() { &shown.id } else { &shown.name };
            gauge!(VIP_DOUBTED, "virtual" => name.clone()).set(f64::from(u8::from(shown.vip_doubted)));
            for real in &shown.reals {
                let labels = [("virtual", name.clone()), ("real", real.address.clone())];
                match real.state.as_str() {
                    "up" | "degraded" => gauge!(REAL_UP, &labels).set(1.0),
                    "down" => gauge!(REAL_UP, &labels).set(0.0),
                    _ => {}
                }
                load(&labels, real);
                if let Some(factor) = real.canary_factor {
                    let [of, at] = labels.clone();
                    gauge!(REAL_FACTOR, &[of, at, ("cause", "canary".to_owned())]).set(factor);
                    let overdue = real.canary_overdue_seconds.unwrap_or(0);
                    gauge!(REAL_OVERDUE, &labels).set(whole(i64::try_from(overdue).unwrap_or(i64::MAX)));
                }
                if let Some(milliseconds) = real.canary_ms {
                    gauge!(REAL_CANARY, &labels).set(milliseconds / 1e3);
                }
                if let Some(milliseconds) = real.banner_ms {
                    gauge!(REAL_BANNER, &labels).set(milliseconds / 1e3);
                }
                if let Some(seconds) = real.certificate_not_after {
                    gauge!(REAL_NOT_AFTER, &labels).set(whole(seconds));
                }
                gauge!(REAL_HELD, &labels).set(f64::from(u8::from(real.held)));
                gauge!(REAL_WEIGHT, &labels).set(f64::from(real.weight.unwrap_or(0)));
                gauge!(REAL_CONFIGURED, &labels).set(f64::from(real.configured_weight));
                gauge!(REAL_ACTIVE, &labels).set(f64::from(real.active));
                gauge!(REAL_INACTIVE, &labels).set(f64::from(real.inactive));
                let key = (name.clone(), real.address.clone());
                let before = seen.get(&key).copied().unwrap_or(0);
                let new = real.connections.checked_sub(before).unwrap_or(real.connections);
                counter!(REAL_CONNECTIONS, &labels).increment(new);
                now.insert(key, real.connections);
            }
        }
        *seen = now;
        drop(seen);
        self.handle.render()
    }
}

/// The factors of a server and what its agent says.
fn load(labels: &[(&'static str, String); 2], real: &RealSnapshot) {
    let with = |key: &'static str, value: &str| {
        let [of, at] = labels.clone();
        [of, at, (key, value.to_owned())]
    };
    let factors = &real.factors;
    for (cause, factor) in [
        ("check", factors.check),
        ("agent", factors.agent),
        ("queue", factors.queue),
        ("latency", factors.latency),
        ("slow_start", factors.slow_start),
    ] {
        if let Some(factor) = factor {
            gauge!(REAL_FACTOR, &with("cause", cause)).set(factor);
        }
    }
    let Some(queue) = &real.queue else { return };
    let count = |count: u64| whole(i64::try_from(count).unwrap_or(i64::MAX));
    for (name, messages) in [
        ("incoming", queue.incoming),
        ("active", queue.active),
        ("deferred", queue.deferred),
        ("hold", queue.hold),
        ("maildrop", queue.maildrop),
        ("corrupt", queue.corrupt),
    ] {
        if let Some(messages) = messages {
            gauge!(QUEUE_MESSAGES, &with("queue", name)).set(count(messages));
        }
    }
    for (name, seconds) in [("work", queue.oldest_seconds), ("deferred", queue.oldest_deferred_seconds)] {
        if let Some(seconds) = seconds {
            gauge!(QUEUE_OLDEST, &with("queue", name)).set(count(seconds));
        }
    }
    for (name, value) in [
        (QUEUE_WAIT, queue.wait_seconds),
        (QUEUE_RATE, queue.rate),
        (QUEUE_FREE, queue.free_bytes.map(count)),
        (QUEUE_AGE, queue.age_seconds),
        (QUEUE_KNOWN, Some(if queue.no_data.is_none() { 1.0 } else { 0.0 })),
    ] {
        if let Some(value) = value {
            gauge!(name, labels).set(value);
        }
    }
}

/// Seconds since 1970 as Prometheus wants them: exact until the year 285 million.
#[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^53")]
fn whole(seconds: i64) -> f64 {
    seconds as f64
}

/// The counters of one check. To find a series by its labels costs more than to read a reply: they are found once.
#[derive(Debug)]
pub struct Meter {
    labels: Vec<Label>,
    seconds: Histogram,
    /// The series of the last outcome; the next one is most often the same.
    last: Option<([&'static str; 2], Counter)>,
}

impl Meter {
    /// Nothing is counted yet.
    #[must_use]
    pub fn new(plan: &CheckPlan) -> Self {
        let labels = vec![
            Label::new("target", plan.spec.server().to_string()),
            Label::from_static_parts("check", plan.spec.kind.name()),
            Label::from_static_parts("tier", plan.tier.name()),
        ];
        Self { seconds: histogram!(CHECK_SECONDS, labels.clone()), labels, last: None }
    }

    /// Counts one check.
    pub fn count(&mut self, outcome: &Outcome) {
        let ended = match &outcome.verdict {
            Ok(()) => [outcome.stages.last().map_or("", |report| report.stage.name()), "ok"],
            Err(failure) => [failure.stage.name(), failure.reason.name()],
        };
        let (_, counter) = match self.last.take() {
            Some(last) if last.0 == ended => self.last.insert(last),
            _ => {
                let [stage, reason] = ended;
                let mut labels = self.labels.clone();
                labels.push(Label::from_static_parts("stage", stage));
                labels.push(Label::from_static_parts("reason", reason));
                self.last.insert((ended, counter!(CHECKS, labels)))
            }
        };
        counter.increment(1);
        self.seconds.record(outcome.took.as_secs_f64());
    }
}

/// Counts what became of a canary.
pub fn count_canary(plan: &CheckPlan, result: &'static str) {
    counter!(CANARIES, "target" => plan.spec.target.to_string(), "result" => result).increment(1);
}

/// Records how long a canary took.
pub fn time_canary(plan: &CheckPlan, delay: Duration) {
    histogram!(CANARY_SECONDS, "target" => plan.spec.target.to_string()).record(delay.as_secs_f64());
}

/// Counts what came to the receiver of canaries and was none that is waited for.
pub fn count_canary_stranger(reason: &'static str) {
    counter!(CANARY_STRANGERS, "reason" => reason).increment(1);
}

/// Counts one change of the table, by its kind.
pub fn count_op(kind: &'static str, succeeded: bool) {
    let result = if succeeded { "ok" } else { "error" };
    counter!(TABLE_OPS, "op" => kind, "result" => result).increment(1);
}

/// Counts one answer of an agent; `result` is `ok`, or why it was no data.
pub fn count_report(plan: &AgentPlan, result: &'static str) {
    let (server, agent) = (plan.server.to_string(), plan.source.to_string());
    counter!(QUEUE_REPORTS, "server" => server, "agent" => agent, "result" => result).increment(1);
}

/// Counts one reload; `result` is `ok` or `error`.
pub fn count_reload(result: &'static str) {
    counter!(RELOADS, "result" => result).increment(1);
}

/// Counts one comparison; `result` is `ok` or `error`.
pub fn count_resync(result: &'static str) {
    counter!(RESYNCS, "result" => result).increment(1);
}
