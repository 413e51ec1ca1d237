//! What a run came to, in the form that all output is made from.
//!
//! Owns [`Report`], which is the JSON schema `smtp-loadgen/1`: fields are added, never changed or taken away within a
//! version. Refuses to know how it is shown and where it goes. Cannot fail.

pub mod compare;
pub mod csv;
pub mod hlog;
pub mod html;
pub mod http_load;
pub mod metrics;
pub mod svg;
pub mod text;
pub mod verdict;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

use crate::plan::Nanos;
use crate::spread;
use crate::tally::{Counts, Latency, Tally};
use crate::words::{Class, Phase};

/// The name and version of the JSON.
pub const SCHEMA: &str = "smtp-loadgen/1";
/// Rows of the series over time; a longer run has rows of more seconds.
pub const MAX_POINTS: usize = 1200;

/// What a run came to. Times of day are RFC 3339, durations seconds, latencies milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// Of this program.
    pub version: String,
    /// What tells its messages.
    pub run: String,
    /// When it began.
    pub started: String,
    /// From its begin to the last answer.
    pub elapsed: f64,
    /// What was asked for.
    pub plan: PlanRow,
    /// What became of the arrivals.
    pub counts: CountRow,
    /// Done well in a second, on the whole.
    pub rate: f64,
    /// From the scheduled time to the end: the headline of an open run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<LatencyRow>,
    /// From the start to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<LatencyRow>,
    /// From the scheduled time to the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_lag: Option<LatencyRow>,
    /// The same, of those that found a session free: the generator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_start_lag: Option<LatencyRow>,
    /// Those that were gone through.
    pub phases: Vec<PhaseRow>,
    /// What went wrong.
    pub errors: Vec<ErrorRow>,
    /// What servers answered.
    pub replies: Vec<ReplyRow>,
    /// Replies of more kinds than are told apart.
    pub other_replies: u64,
    /// Most connections that were open at one time; over several threads at most that.
    pub most_open: u64,
    /// TLS sessions.
    pub tls_sessions: u64,
    /// And how many of them were resumed.
    pub tls_resumed: u64,
    /// Who answered.
    pub servers: Vec<ServerRow>,
    /// The spread over them, where one was expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<SpreadRow>,
    /// What a failover looked like from here.
    pub failover: FailoverRow,
    /// What became of the messages behind the servers, where they were traced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceRow>,
    /// This program itself.
    pub generator: GeneratorRow,
    /// Over time.
    pub series: Vec<Point>,
    /// What was asked of the run by `--fail-if`.
    pub thresholds: Vec<verdict::Judged>,
    /// Interrupted: part of a run.
    pub interrupted: bool,
}

/// What was asked for, in words.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct PlanRow {
    /// `open` or `closed`.
    pub model: String,
    /// Where to.
    pub targets: Vec<String>,
    /// Rate or profile of an open run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    /// At most so many at one time.
    pub sessions: usize,
    /// Threads.
    pub threads: usize,
    /// All else, as it was given.
    pub arguments: Vec<String>,
    /// Arrivals a second that an open run asked for on the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<f64>,
    /// `i/n`.
    pub worker: String,
}

/// What became of the arrivals: `arrivals = ok + failed + unsent + cut`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of `Counts`, which says what they are")]
pub struct CountRow {
    pub arrivals: u64,
    pub ok: u64,
    pub failed: u64,
    pub unsent: u64,
    pub cut: u64,
    pub connections: u64,
    pub broken: u64,
    pub recipients: u64,
    pub refused_recipients: u64,
    pub bytes: u64,
}

impl From<Counts> for CountRow {
    fn from(counts: Counts) -> Self {
        let Counts {
            arrivals,
            ok,
            failed,
            unsent,
            cut,
            connections,
            broken,
            recipients,
            refused_recipients,
            bytes,
        } = counts;
        Self { arrivals, ok, failed, unsent, cut, connections, broken, recipients, refused_recipients, bytes }
    }
}

/// A distribution, in milliseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[expect(missing_docs, reason = "percentiles are named by themselves")]
pub struct LatencyRow {
    pub count: u64,
    pub min: f64,
    pub mean: f64,
    pub stdev: f64,
    pub p50: f64,
    pub p75: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub p999: f64,
    pub p9999: f64,
    pub max: f64,
    /// All of it: `HdrHistogram` V2, compressed, base64, in microseconds.
    pub histogram: String,
}

impl LatencyRow {
    /// Of a histogram in microseconds; `None` of an empty one.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "an hour in microseconds is far below 2^52")]
    pub fn of(latency: &Latency) -> Option<Self> {
        let histogram = &latency.0;
        if histogram.is_empty() {
            return None;
        }
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Some(Self {
            count: histogram.len(),
            min: histogram.min() as f64 / 1000.0,
            mean: histogram.mean() / 1000.0,
            stdev: histogram.stdev() / 1000.0,
            p50: at(0.5),
            p75: at(0.75),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: histogram.max() as f64 / 1000.0,
            histogram: encode(histogram),
        })
    }

    /// The histogram again.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(&self) -> Result<Histogram<u64>, String> {
        let bytes = STANDARD.decode(&self.histogram).map_err(|error| error.to_string())?;
        let mut decoder = hdrhistogram::serialization::Deserializer::new();
        decoder.deserialize(&mut bytes.as_slice()).map_err(|error| error.to_string())
    }
}

fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    // Writing to memory does not fail.
    let _ = V2DeflateSerializer::new().serialize(histogram, &mut bytes);
    STANDARD.encode(bytes)
}

/// A phase.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct PhaseRow {
    /// Its word.
    pub phase: String,
    /// How long it took.
    #[serde(flatten)]
    pub latency: LatencyRow,
}

/// What went wrong, and where.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct ErrorRow {
    /// Where.
    pub phase: String,
    /// What.
    pub class: String,
    /// How often.
    pub count: u64,
}

/// A kind of reply.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct ReplyRow {
    /// Where.
    pub phase: String,
    /// The code.
    pub code: u16,
    /// `5.7.1`, or nothing.
    pub enhanced: String,
    /// How often.
    pub count: u64,
    /// The text of the first, of refusals.
    pub text: String,
}

/// A real server.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ServerRow {
    /// By what it called itself.
    pub name: String,
    /// Connections.
    pub connections: u64,
    /// Arrivals that it did.
    pub ok: u64,
    /// And that failed on it.
    pub failed: u64,
    /// Connections that it lost in the middle.
    pub broken: u64,
    /// Percent of all connections whose server is known.
    pub connection_share: f64,
    /// Percent of all that was done.
    pub share: f64,
    /// Percent of connections that was expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<f64>,
    /// Its service latency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<LatencyRow>,
}

/// The chi-square test over connections.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq)]
pub struct SpreadRow {
    /// The statistic.
    pub chi_square: f64,
    /// Degrees of freedom.
    pub degrees: u32,
    /// How likely this is by chance.
    pub p_value: f64,
    /// The largest distance from an expected share, in percent of it.
    pub skew: f64,
}

/// What a failover looked like from here. Times are seconds since the begin.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct FailoverRow {
    /// The longest time without success.
    pub longest_gap: f64,
    /// Where it began.
    pub gap_from: f64,
    /// The first failure of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_failure: Option<f64>,
    /// The first success after that gap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub good_again: Option<f64>,
    /// Connections that were lost in the middle.
    pub broken: u64,
}

/// What became of messages behind the servers.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct TraceRow {
    /// Accepted by a server.
    pub accepted: u64,
    /// Different ones that arrived.
    pub arrived: u64,
    /// Accepted and not arrived.
    pub lost: u64,
    /// Times that one arrived again.
    pub doubled: u64,
    /// From when it was made to when it arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<LatencyRow>,
}

/// This program itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct GeneratorRow {
    /// Of its threads' time, in percent.
    pub cpu_share: f64,
    /// User and system time of its threads, in seconds.
    pub cpu_seconds: f64,
    /// Why its figures are its own limit's and not the servers'.
    pub saturated: Vec<String>,
}

/// A row of the series.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Point {
    /// Seconds since the begin.
    pub second: u64,
    /// How many it covers.
    pub seconds: u64,
    /// In it.
    pub arrivals: u64,
    /// In it.
    pub ok: u64,
    /// In it.
    pub failed: u64,
    /// Open connections at its end.
    pub open: u64,
    /// Of the headline latency; in a row of more seconds the worst of them.
    pub p50: f64,
    /// As `p50`.
    pub p90: f64,
    /// As `p50`.
    pub p99: f64,
    /// As `p50`.
    pub max: f64,
    /// Done and failed, by server, as in `servers`.
    pub servers: Vec<(u64, u64)>,
}

impl Point {
    fn merge(&mut self, next: &Self) {
        self.seconds += next.seconds;
        self.arrivals += next.arrivals;
        self.ok += next.ok;
        self.failed += next.failed;
        self.open = next.open;
        self.p50 = self.p50.max(next.p50);
        self.p90 = self.p90.max(next.p90);
        self.p99 = self.p99.max(next.p99);
        self.max = self.max.max(next.max);
        if self.servers.len() < next.servers.len() {
            self.servers.resize(next.servers.len(), (0, 0));
        }
        for (mine, theirs) in self.servers.iter_mut().zip(&next.servers) {
            *mine = (mine.0 + theirs.0, mine.1 + theirs.1);
        }
    }
}

/// Points over time, never more than [`MAX_POINTS`].
#[derive(Clone, Debug)]
pub struct Series {
    points: Vec<Point>,
    each: u64,
}

impl Default for Series {
    fn default() -> Self {
        Self { points: Vec::new(), each: 1 }
    }
}

impl Series {
    /// Adds the next second.
    pub fn push(&mut self, point: Point) {
        if let Some(last) = self.points.last_mut()
            && last.seconds < self.each
        {
            last.merge(&point);
            return;
        }
        self.points.push(point);
        if self.points.len() > MAX_POINTS {
            self.each *= 2;
            let old = std::mem::take(&mut self.points);
            for pair in old.chunks(2) {
                let Some((first, rest)) = pair.split_first() else { continue };
                let mut first = first.clone();
                for next in rest {
                    first.merge(next);
                }
                self.points.push(first);
            }
        }
    }

    /// All of them.
    #[must_use]
    pub fn into_points(self) -> Vec<Point> {
        self.points
    }
}

/// What is known beside the tally.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// What tells its messages.
    pub run: String,
    /// When it began, RFC 3339.
    pub started: String,
    /// What was asked for.
    pub plan: PlanRow,
    /// From the begin to the end.
    pub elapsed: Nanos,
    /// The longest gap, from and to, and the first failure.
    pub gap: (Nanos, Nanos),
    /// The first failure.
    pub first_failure: Option<Nanos>,
    /// Over time.
    pub series: Vec<Point>,
    /// Expected weights by server.
    pub expected: Vec<(String, f64)>,
    /// What became of messages.
    pub trace: Option<TraceRow>,
    /// It did not end by itself.
    pub interrupted: bool,
}

#[expect(clippy::cast_precision_loss, reason = "counts and nanoseconds of a run")]
fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / 1e9
}

#[expect(clippy::cast_precision_loss, reason = "counts")]
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

impl Report {
    /// Of a run that is over.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts")]
    pub fn new(tally: &Tally, frame: Frame) -> Self {
        let counts = tally.counts;
        let elapsed = seconds(frame.elapsed);
        let (gap_from, gap_to) = frame.gap;
        let failed = tally.counts.failed + tally.counts.broken > 0;
        let (servers, spread) = servers(tally, &frame.expected);
        let generator = generator(tally, &frame);
        Self {
            schema: SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            run: frame.run,
            started: frame.started,
            elapsed,
            plan: frame.plan,
            counts: counts.into(),
            rate: if elapsed > 0.0 { counts.ok as f64 / elapsed } else { 0.0 },
            response: LatencyRow::of(&tally.response),
            service: LatencyRow::of(&tally.service),
            start_lag: LatencyRow::of(&tally.lag),
            own_start_lag: LatencyRow::of(&tally.own_lag),
            phases: Phase::ALL
                .into_iter()
                .zip(&tally.phases)
                .filter_map(|(phase, latency)| {
                    let latency = LatencyRow::of(latency.as_deref()?)?;
                    Some(PhaseRow { phase: phase.name().to_owned(), latency })
                })
                .collect(),
            errors: Phase::ALL
                .into_iter()
                .zip(&tally.errors)
                .flat_map(|(phase, row)| {
                    Class::ALL.into_iter().zip(row).map(move |(class, count)| (phase, class, *count))
                })
                .filter(|(.., count)| *count > 0)
                .map(|(phase, class, count)| ErrorRow {
                    phase: phase.name().to_owned(),
                    class: class.name().to_owned(),
                    count,
                })
                .collect(),
            replies: replies(tally),
            other_replies: tally.other_replies,
            most_open: tally.most_open,
            tls_sessions: tally.tls.0,
            tls_resumed: tally.tls.1,
            servers,
            spread,
            failover: FailoverRow {
                longest_gap: seconds(gap_to.saturating_sub(gap_from)),
                gap_from: seconds(gap_from),
                first_failure: frame.first_failure.map(seconds),
                good_again: (failed && gap_to < frame.elapsed).then(|| seconds(gap_to)),
                broken: counts.broken,
            },
            trace: frame.trace,
            generator,
            series: frame.series,
            thresholds: Vec::new(),
            interrupted: frame.interrupted,
        }
    }

    /// The headline latency.
    #[must_use]
    pub fn headline(&self) -> Option<(&'static str, &LatencyRow)> {
        match (&self.response, &self.service) {
            (Some(response), _) => Some(("response", response)),
            (None, Some(service)) => Some(("service", service)),
            (None, None) => None,
        }
    }
}

fn replies(tally: &Tally) -> Vec<ReplyRow> {
    let mut rows: Vec<_> = tally.replies.iter().collect();
    rows.sort_by_key(|reply| (reply.phase, reply.code, reply.enhanced));
    rows.into_iter()
        .map(|reply| ReplyRow {
            phase: reply.phase.name().to_owned(),
            code: reply.code,
            enhanced: reply.enhanced.map(|[a, b, c]| format!("{a}.{b}.{c}")).unwrap_or_default(),
            count: reply.count,
            text: reply.text.clone(),
        })
        .collect()
}

fn servers(tally: &Tally, expected: &[(String, f64)]) -> (Vec<ServerRow>, Option<SpreadRow>) {
    let connections: u64 = tally.servers.iter().map(|server| server.connections).sum();
    let done: u64 = tally.servers.iter().map(|server| server.ok).sum();
    let weights: f64 = expected.iter().map(|(_, weight)| weight).sum();
    let mut rows: Vec<ServerRow> = tally
        .servers
        .iter()
        .map(|server| ServerRow {
            name: server.name.clone(),
            connections: server.connections,
            ok: server.ok,
            failed: server.failed,
            broken: server.broken,
            connection_share: percent(server.connections, connections),
            share: percent(server.ok, done),
            expected: expected_of(&server.name, expected).map(|weight| weight * 100.0 / weights),
            service: LatencyRow::of(&server.service),
        })
        .collect();
    // Who was expected and never answered stands in the table too.
    for (name, weight) in expected {
        if !rows.iter().any(|row| is_called(&row.name, name)) {
            let expected = Some(weight * 100.0 / weights);
            rows.push(ServerRow {
                name: name.clone(),
                connections: 0,
                ok: 0,
                failed: 0,
                broken: 0,
                connection_share: 0.0,
                share: 0.0,
                expected,
                service: None,
            });
        }
    }
    if expected.is_empty() {
        return (rows, None);
    }
    let pairs: Vec<_> = rows.iter().map(|row| (row.connections, row.expected.unwrap_or(0.0))).collect();
    let spread = spread::fit(&pairs).map(|fit| SpreadRow {
        chi_square: fit.chi_square,
        degrees: fit.degrees,
        p_value: fit.p_value,
        skew: fit.skew,
    });
    (rows, spread)
}

fn expected_of(name: &str, expected: &[(String, f64)]) -> Option<f64> {
    expected.iter().find(|(wanted, _)| is_called(name, wanted)).map(|(_, weight)| *weight)
}

/// `mx1` stands for `mx1.example.com` too.
fn is_called(name: &str, wanted: &str) -> bool {
    name == wanted || name.split('.').next() == Some(wanted)
}

/// From here on the generator's own lag spoils what it measures, in milliseconds.
const OWN_LAG: f64 = 10.0;
/// From here on an open run's threads have no time left, in percent.
const BUSY: f64 = 97.0;

fn generator(tally: &Tally, frame: &Frame) -> GeneratorRow {
    let (used, lived) = tally.cpu;
    let cpu_share = percent(used, lived);
    let mut saturated = Vec::new();
    if let Some(lag) = LatencyRow::of(&tally.own_lag)
        && lag.p99 > OWN_LAG
    {
        saturated.push(format!(
            "1 % of the work was started {:.1} ms late or more though sessions were free",
            lag.p99
        ));
    }
    if frame.plan.model == "open" && cpu_share > BUSY {
        saturated.push(format!("its threads were busy {cpu_share:.0} % of the time"));
    }
    let local: u64 = tally.errors.iter().filter_map(|row| row.get(Class::Local as usize)).sum();
    if local > 0 {
        saturated
            .push(format!("{local} times this machine could not (descriptors, ports, routes, permission)"));
    }
    GeneratorRow { cpu_share, cpu_seconds: seconds(used), saturated }
}
