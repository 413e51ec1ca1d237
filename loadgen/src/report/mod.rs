//! What a run came to, in the form that all output is made from.
//!
//! Owns [`Report`], which is the JSON schema `smtp-loadgen/1`: fields are added, never changed or taken away within a
//! version. Refuses to know how it is shown and where it goes. Cannot fail.

pub mod build;
pub mod compare;
pub mod csv;
pub mod hlog;
pub mod html;
pub mod http_load;
pub mod live;
pub mod metrics;
pub mod svg;
pub mod text;
pub mod verdict;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

use crate::tally::{Counts, Latency};

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
    /// The longest time in which it did nothing though others did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet: Option<QuietRow>,
}

/// A time in which a server did nothing, to the second.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct QuietRow {
    /// Its first second.
    pub from: u64,
    /// How many.
    pub seconds: u64,
}

impl QuietRow {
    /// Whether a server that did `done` in `rows` seconds would hardly be quiet for so long by chance.
    #[must_use]
    pub fn is_long(self, done: u64, rows: usize) -> bool {
        let rows = u64::try_from(rows).unwrap_or(u64::MAX).max(1);
        self.seconds >= 2 && self.seconds.saturating_mul(done) / rows >= 10
    }
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
    /// The first success after the first failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_good: Option<f64>,
    /// The first success after that gap, where it began with a failure or had one in it.
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

impl Report {
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
