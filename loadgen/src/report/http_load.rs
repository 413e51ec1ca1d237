//! A run as `http_load` of 12mar2006 prints it.
//!
//! Owns its lines and C's `%g`. Refuses to know how the run was asked for. Cannot fail.

use std::fmt::Write as _;

use super::Report;
use crate::words::{Class, Phase};

/// What the lines need beside the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// `bad byte counts`.
    Bytes,
    /// `bad checksums`.
    Checksums,
}

/// The summary. A request that got any answer counts as a fetch, and so does one that got none, as there.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts")]
pub fn render(report: &Report, most_parallel: u64, compared: Compared) -> String {
    let counts = &report.counts;
    let fetches = counts.ok + counts.failed;
    let (bytes, elapsed) = (counts.bytes as f64, report.elapsed);
    let mut out = format!(
        "{fetches} fetches, {most_parallel} max parallel, {} bytes, in {} seconds\n",
        general(bytes),
        general(elapsed)
    );
    let errors = |class: Class| -> u64 {
        report.errors.iter().filter(|row| row.class == class.name()).map(|row| row.count).sum()
    };
    if fetches > 0 {
        let _ = writeln!(out, "{} mean bytes/connection", general(bytes / fetches as f64));
    }
    if elapsed > 0.01 {
        let _ = writeln!(
            out,
            "{} fetches/sec, {} bytes/sec",
            general(fetches as f64 / elapsed),
            general(bytes / elapsed)
        );
    }
    for (phase, name) in [(Phase::Connect, "connect"), (Phase::FirstByte, "first-response")] {
        if let Some(row) = report.phases.iter().find(|row| row.phase == phase.name()) {
            let row = &row.latency;
            let _ = writeln!(
                out,
                "msecs/{name}: {} mean, {} max, {} min",
                general(row.mean),
                general(row.max),
                general(row.min)
            );
        }
    }
    let timeouts = errors(Class::Timeout);
    if timeouts > 0 {
        let _ = writeln!(out, "{timeouts} timeouts");
    }
    let bad = errors(Class::Mismatch);
    if bad > 0 {
        let what = if compared == Compared::Checksums { "bad checksums" } else { "bad byte counts" };
        let _ = writeln!(out, "{bad} {what}");
    }
    out.push_str("HTTP response codes:\n");
    for row in &report.replies {
        let _ = writeln!(out, "  code {:03} -- {}", row.code, row.count);
    }
    out
}

/// C's `%g`: six significant digits, no zeros behind.
#[must_use]
pub fn general(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}").to_lowercase();
    }
    // The exponent after rounding to six digits decides the form.
    let text = format!("{value:.5e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let trim = |text: &str| {
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text.to_owned()
        }
    };
    if !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trim(mantissa), exponent.abs());
    }
    let digits = usize::try_from(5 - exponent).unwrap_or_default();
    trim(&format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::build::Frame;
    use crate::report::{LatencyRow, PhaseRow, ReplyRow};
    use crate::tally::Tally;

    #[test]
    fn the_summary_is_that_of_a_run_of_the_original() {
        let row = |phase: &str, mean, max, min| PhaseRow {
            phase: phase.to_owned(),
            latency: LatencyRow { mean, max, min, ..LatencyRow::default() },
        };
        let mut report = Report::new(&Tally::default(), Frame::default());
        (report.counts.ok, report.counts.bytes, report.elapsed) = (30_000, 30_720_000, 2.42066);
        report.phases =
            vec![row("connect", 0.183_961, 10.353, 0.018), row("first_byte", 0.871_129, 10.353, 0.218)];
        let (phase, enhanced, text) = ("first_byte".to_owned(), String::new(), String::new());
        report.replies = vec![ReplyRow { phase, code: 200, enhanced, count: 30_000, text }];
        let expected = "30000 fetches, 20 max parallel, 3.072e+07 bytes, in 2.42066 seconds\n\
                        1024 mean bytes/connection\n\
                        12393.3 fetches/sec, 1.26908e+07 bytes/sec\n\
                        msecs/connect: 0.183961 mean, 10.353 max, 0.018 min\n\
                        msecs/first-response: 0.871129 mean, 10.353 max, 0.218 min\n\
                        HTTP response codes:\n  code 200 -- 30000\n";
        assert_eq!(render(&report, 20, Compared::Bytes), expected);
    }

    #[test]
    fn numbers_look_as_in_c() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (1024.0, "1024"),
            (3.072e7, "3.072e+07"),
            (2.42066, "2.42066"),
            (12393.3, "12393.3"),
            (1.26908e7, "1.26908e+07"),
            (0.183_961, "0.183961"),
            (10.353, "10.353"),
            (0.018, "0.018"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (999_999.5, "1e+06"),
            (123_456.0, "123456"),
            (1_234_567.0, "1.23457e+06"),
            (0.1 + 0.2, "0.3"),
            (1e100, "1e+100"),
            (100_000.0, "100000"),
        ] {
            assert_eq!(general(value), text);
        }
    }
}
