//! From what was counted to the report.
//!
//! Owns the shares, the sums, and the judgement whether the generator itself was the limit. Refuses to know clocks. Cannot
//! fail.

use super::{
    ErrorRow, FailoverRow, GeneratorRow, LatencyRow, PhaseRow, PlanRow, Point, QuietRow, ReplyRow, Report,
    SCHEMA, ServerRow, SpreadRow, TraceRow,
};
use crate::plan::Nanos;
use crate::spread;
use crate::tally::Tally;
use crate::words::{Class, Phase};

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
    /// The first success after it.
    pub first_good: Option<Nanos>,
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
        let (servers, spread) = servers(tally, &frame.expected, &frame.series);
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
                first_good: frame.first_good.map(seconds),
                good_again: (frame.first_failure.is_some_and(|first| first < gap_to)
                    && gap_to < frame.elapsed)
                    .then(|| seconds(gap_to)),
                broken: counts.broken,
            },
            trace: frame.trace,
            generator,
            series: frame.series,
            thresholds: Vec::new(),
            interrupted: frame.interrupted,
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

fn servers(
    tally: &Tally,
    expected: &[(String, f64)],
    series: &[Point],
) -> (Vec<ServerRow>, Option<SpreadRow>) {
    let connections: u64 = tally.servers.iter().map(|server| server.connections).sum();
    let done: u64 = tally.servers.iter().map(|server| server.ok).sum();
    let weights: f64 = expected.iter().map(|(_, weight)| weight).sum();
    let mut rows: Vec<ServerRow> = tally
        .servers
        .iter()
        .enumerate()
        .map(|(place, server)| ServerRow {
            quiet: quiet(series, place).filter(|quiet| quiet.is_long(server.ok, series.len())),
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
                quiet: None,
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

/// The longest time in which a server did nothing though others did, of the whole rows of the series.
fn quiet(series: &[Point], place: usize) -> Option<QuietRow> {
    let (mut longest, mut now): (Option<QuietRow>, Option<QuietRow>) = (None, None);
    let (_, whole) = series.split_last()?; // The last row is a part of its second.
    for point in whole {
        let mine = point.servers.get(place).map_or(0, |(ok, _)| *ok);
        if mine > 0 || point.ok == 0 {
            now = None;
            continue;
        }
        let begun = now.unwrap_or(QuietRow { from: point.second, seconds: 0 });
        let grown = QuietRow { seconds: begun.seconds + point.seconds, ..begun };
        now = Some(grown);
        if longest.is_none_or(|longest| longest.seconds < grown.seconds) {
            longest = now;
        }
    }
    longest
}

fn expected_of(name: &str, expected: &[(String, f64)]) -> Option<f64> {
    expected.iter().find(|(wanted, _)| is_called(name, wanted)).map(|(_, weight)| *weight)
}

/// `mx1` stands for `mx1.example.com` too.
fn is_called(name: &str, wanted: &str) -> bool {
    name == wanted || name.split('.').next() == Some(wanted)
}

/// From here on the generator's own lag may spoil what it measures, in milliseconds; it does if it is also a tenth of
/// that.
const OWN_LAG: f64 = 10.0;
/// Fewer late starts are the machine's chance, unless they are most of a run.
const FEW_LATE: u64 = 5;
/// From here on an open run's threads have no time left, in percent.
const BUSY: f64 = 97.0;

/// 1 % of the starts, but of a short run not the one or two that a busy machine lets wait.
fn are_too_many(late: u64, all: u64) -> bool {
    late > all / 100 && late >= FEW_LATE.min(all / 2 + 1)
}

fn generator(tally: &Tally, frame: &Frame) -> GeneratorRow {
    let (used, lived) = tally.cpu;
    let cpu_share = percent(used, lived);
    let mut saturated = Vec::new();
    let limit = OWN_LAG.max(LatencyRow::of(tally.headline()).map_or(0.0, |row| row.p99 / 10.0));
    let (late, all) = (tally.own_lag.above(limit), tally.own_lag.0.len());
    if are_too_many(late, all) {
        saturated.push(format!(
            "{late} of {all} were started more than {limit:.1} ms late though sessions were free"
        ));
    }
    if frame.plan.model == "open" && cpu_share > BUSY {
        saturated.push(format!("its threads were busy {cpu_share:.0} % of the time"));
    }
    for (class, what) in [
        (Class::Local, "this machine could not (memory, routes, permission)"),
        (Class::NoDescriptors, "no descriptor was left: raise the limit (ulimit -n, LimitNOFILE=)"),
        (
            Class::NoPorts,
            "no local port was left, or a source address is not ours: --messages-per-conn, --source, --close rst",
        ),
    ] {
        let count: u64 = tally.errors.iter().filter_map(|row| row.get(class as usize)).sum();
        if count > 0 {
            saturated.push(format!("{count} times {what}"));
        }
    }
    GeneratorRow { cpu_share, cpu_seconds: seconds(used), saturated }
}

#[cfg(test)]
mod tests {
    use super::are_too_many;

    #[test]
    fn a_short_run_is_not_void_for_one_late_start() {
        for (late, all, void) in [
            (0, 0, false),
            (1, 20, false),
            (4, 100, false),
            (5, 100, true),
            (5, 500, false),
            (6, 500, true),
            (100, 10_000, false),
            (101, 10_000, true),
            // Nearly all of very few.
            (1, 1, true),
            (1, 2, false),
            (2, 3, true),
        ] {
            assert_eq!(are_too_many(late, all), void, "{late} of {all}");
        }
    }
}
