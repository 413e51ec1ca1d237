//! Pass or fail: what `--fail-if` says, and what comes of it.
//!
//! Owns the grammar `METRIC OP VALUE` and the value of each metric in a [`Report`]. Refuses to know exit codes. What was
//! not measured does not pass.

use serde::{Deserialize, Serialize};

use super::{LatencyRow, Report};

/// The metrics, for people.
pub const METRICS: &str = "p50 p75 p90 p95 p99 p99.9 p99.99 max mean (of the headline latency, or after response., \
service., start_lag. or a phase: rcpt.p99), errors, unsent, cut, broken, rate, skew, p_value, gap, lost, doubled";

/// A condition under which a run fails.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    text: String,
    of: Option<String>,
    metric: String,
    above: Bound,
    value: f64,
    unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    Above,
    AtLeast,
    Below,
    AtMost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// A count, a p-value, or a rate in a second.
    Plain,
    Percent,
    /// In milliseconds.
    Time,
}

/// What came of a threshold.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Judged {
    /// As it was given.
    pub threshold: String,
    /// The value, with its unit; "not measured" where there is none.
    pub value: String,
    /// Whether the run passed.
    pub passed: bool,
}

const LATENCIES: [&str; 9] = ["p50", "p75", "p90", "p95", "p99", "p99.9", "p99.99", "max", "mean"];

impl Threshold {
    /// Reads `p99>250ms`, `errors>0.1%`, `rate<99%`, `rcpt.p99>=1s`, `lost>0`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("\"{text}\": {why}; it is METRIC > VALUE with one of {METRICS}");
        let at = text.find(['<', '>']).ok_or_else(|| wrong("there is no < or >"))?;
        let (name, rest) = text.split_at(at);
        let (above, value) = match (rest.strip_prefix(">="), rest.strip_prefix("<="), rest.split_at(1)) {
            (Some(value), ..) => (Bound::AtLeast, value),
            (_, Some(value), _) => (Bound::AtMost, value),
            (.., (">", value)) => (Bound::Above, value),
            (.., (_, value)) => (Bound::Below, value),
        };
        let (name, value) = (name.trim(), value.trim());
        let (of, metric) = LATENCIES
            .iter()
            .find_map(|metric| Some((name.strip_suffix(metric)?.strip_suffix('.')?, *metric)))
            .map_or((None, name), |(of, metric)| (Some(of.to_owned()), metric));
        let latency = LATENCIES.contains(&metric);
        let known =
            ["errors", "unsent", "cut", "broken", "rate", "skew", "p_value", "gap", "lost", "doubled"];
        if !latency && !known.contains(&metric) {
            return Err(wrong("unknown metric"));
        }
        let number = |text: &str| {
            let number = text.trim().parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0);
            number.ok_or_else(|| wrong("there is no number"))
        };
        let (value, unit) = match metric {
            _ if latency || metric == "gap" => {
                let time = if value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
                    return Err(wrong("a time needs a unit, such as 250ms or 3s"));
                } else {
                    crate::plan::time(value).map_err(|error| wrong(&error))?
                };
                (time.as_secs_f64() * 1000.0, Unit::Time)
            }
            _ if value.ends_with('%') => (number(value.trim_end_matches('%'))?, Unit::Percent),
            "rate" => (crate::plan::rate(value).map_err(|error| wrong(&error))?, Unit::Plain),
            "skew" => return Err(wrong("skew needs %")),
            _ => (number(value)?, Unit::Plain),
        };
        Ok(Self { text: text.to_owned(), of, metric: metric.to_owned(), above, value, unit })
    }

    /// What comes of it.
    #[must_use]
    pub fn judge(&self, report: &Report) -> Judged {
        let value = self.measure(report);
        let fails = value.is_none_or(|value| match self.above {
            Bound::Above => value > self.value,
            Bound::AtLeast => value >= self.value,
            Bound::Below => value < self.value,
            Bound::AtMost => value <= self.value,
        });
        let value = match (value, self.unit) {
            (None, _) => "not measured".to_owned(),
            (Some(value), Unit::Time) => format!("{value:.3} ms"),
            (Some(value), Unit::Percent) => format!("{value:.3} %"),
            (Some(value), Unit::Plain) => format!("{value}"),
        };
        Judged { threshold: self.text.clone(), value, passed: !fails }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts")]
    fn measure(&self, report: &Report) -> Option<f64> {
        let counts = &report.counts;
        let share = |part: u64| match self.unit {
            Unit::Percent if counts.arrivals == 0 => None,
            Unit::Percent => Some(part as f64 * 100.0 / counts.arrivals as f64),
            Unit::Plain | Unit::Time => Some(part as f64),
        };
        match self.metric.as_str() {
            "errors" => share(counts.failed),
            "unsent" => share(counts.unsent),
            "cut" => share(counts.cut),
            "broken" => share(counts.broken),
            "rate" if self.unit == Unit::Percent => {
                // Of what was due, not of the time: a drain in the end is no lower rate.
                let open = report.plan.asked.is_some() && counts.arrivals > 0;
                open.then(|| counts.ok as f64 * 100.0 / counts.arrivals as f64)
            }
            "rate" => Some(report.rate),
            "skew" => report.spread.map(|spread| spread.skew),
            "p_value" => report.spread.map(|spread| spread.p_value),
            "gap" => Some(report.failover.longest_gap * 1000.0),
            "lost" => report.trace.as_ref().map(|trace| trace.lost as f64),
            "doubled" => report.trace.as_ref().map(|trace| trace.doubled as f64),
            metric => {
                let row = match self.of.as_deref() {
                    None => report.headline().map(|(_, row)| row),
                    Some("response") => report.response.as_ref(),
                    Some("service") => report.service.as_ref(),
                    Some("start_lag") => report.start_lag.as_ref(),
                    Some(phase) => {
                        report.phases.iter().find(|row| row.phase == phase).map(|row| &row.latency)
                    }
                };
                row.map(|row| percentile(row, metric))
            }
        }
    }
}

/// A percentile by its name.
#[must_use]
pub fn percentile(row: &LatencyRow, metric: &str) -> f64 {
    match metric {
        "p50" => row.p50,
        "p75" => row.p75,
        "p90" => row.p90,
        "p95" => row.p95,
        "p99" => row.p99,
        "p99.9" => row.p999,
        "p99.99" => row.p9999,
        "mean" => row.mean,
        _ => row.max,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::PlanRow;
    use crate::report::build::Frame;
    use crate::tally::{Span, Tally, Waited};
    use crate::words::{Class, Phase, Trouble};

    fn report() -> Report {
        let mut tally = Tally::default();
        for n in 1..=1000_u64 {
            tally.start(None, 0, Waited::No);
            tally.ok(Span { scheduled: None, started: 0, ended: n * 1_000_000 }, None, 0);
        }
        tally.start(None, 0, Waited::No);
        tally.failed(1, None, Trouble::lost(Phase::Rcpt, Class::Permfail));
        tally.phase(Phase::Rcpt, 5_000_000);
        let plan = PlanRow { asked: Some(110.0), ..PlanRow::default() };
        Report::new(
            &tally,
            Frame { elapsed: 10_000_000_000, plan, gap: (0, 2_000_000_000), ..Frame::default() },
        )
    }

    #[test]
    fn a_threshold_says_when_a_run_fails() {
        let report = report();
        for (text, passed) in [
            ("p99>995ms", true),
            ("p99>980ms", false),
            ("p99 >= 2s", true),
            ("max>1.01s", true),
            ("service.p50<400ms", true),
            ("rcpt.p99>6ms", true),
            ("rcpt.p99>4ms", false),
            ("mail.p99>1h", false),
            ("response.p99>1h", false),
            ("errors>0.1%", true),
            ("errors>0.05%", false),
            ("errors>0", false),
            ("errors>1", true),
            ("unsent>0", true),
            ("rate<99.95%", false),
            ("rate<90%", true),
            ("rate<100/s", true),
            ("rate<101/s", false),
            ("gap>3s", true),
            ("gap>1s", false),
            ("skew>10%", false),
            ("lost>0", false),
        ] {
            let judged = Threshold::parse(text).unwrap().judge(&report);
            assert_eq!(judged.passed, passed, "{judged:?}");
        }
    }

    #[test]
    fn what_cannot_be_judged_is_named() {
        for text in
            ["", "p99", "p99>5", "p98>5ms", "errors>x", "foo>1", "skew>10", "rate<5/y", "errors>-1", "gap>1"]
        {
            assert!(Threshold::parse(text).is_err(), "{text}");
        }
    }
}
