//! A run in words and tables, for a terminal.
//!
//! Owns the layout. Refuses to know where it is printed. Cannot fail. What a server said is printable already.

use std::fmt::Write as _;

use super::{LatencyRow, Report};

/// The whole summary. Lines end with a line feed.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing to memory does not fail.
    let _ = write(report, &mut out);
    out
}

#[expect(clippy::cast_precision_loss, reason = "counts")]
fn write(report: &Report, out: &mut String) -> std::fmt::Result {
    let (plan, counts) = (&report.plan, &report.counts);
    let pace = match &plan.rate {
        Some(rate) => format!("open, {rate}, at most {} sessions", plan.sessions),
        None => format!("closed, {} sessions", plan.sessions),
    };
    let more = plan.targets.len().saturating_sub(1);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let target = plan.targets.first().map_or("", String::as_str);
    writeln!(out, "{pace}, {} threads: {target}{more}\n", plan.threads)?;
    writeln!(
        out,
        "{} arrivals: {} ok, {} failed, {} unsent, {} cut off, in {:.3} s{}",
        counts.arrivals,
        counts.ok,
        counts.failed,
        counts.unsent,
        counts.cut,
        report.elapsed,
        if report.interrupted { " (interrupted)" } else { "" }
    )?;
    let asked = plan.asked.map(|asked| format!(" of {asked:.1}/s asked")).unwrap_or_default();
    writeln!(
        out,
        "{:.1} ok/s{asked}, {:.3} MB/s, {} connections, {} broken in the middle",
        report.rate,
        counts.bytes as f64 / 1e6 / report.elapsed.max(1e-9),
        counts.connections,
        counts.broken
    )?;
    if counts.recipients > 0 || counts.refused_recipients > 0 {
        writeln!(out, "{} recipients accepted, {} refused", counts.recipients, counts.refused_recipients)?;
    }
    if report.tls_sessions > 0 {
        writeln!(out, "{} TLS sessions, {} of them resumed", report.tls_sessions, report.tls_resumed)?;
    }
    writeln!(
        out,
        "\n{:<12} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "latency, ms", "count", "min", "mean", "p50", "p90", "p95", "p99", "p99.9", "max"
    )?;
    for (name, row) in
        [("response", &report.response), ("service", &report.service), ("start lag", &report.start_lag)]
    {
        if let Some(row) = row {
            latency(out, name, row)?;
        }
    }
    out.push('\n');
    for row in &report.phases {
        latency(out, &row.phase, &row.latency)?;
    }
    troubles(report, out)?;
    servers(report, out)?;
    endings(report, out)
}

fn latency(out: &mut String, name: &str, row: &LatencyRow) -> std::fmt::Result {
    write!(out, "{name:<12} {:>9}", row.count)?;
    for value in [row.min, row.mean, row.p50, row.p90, row.p95, row.p99, row.p999, row.max] {
        write!(out, " {value:>9.3}")?;
    }
    out.push('\n');
    Ok(())
}

fn troubles(report: &Report, out: &mut String) -> std::fmt::Result {
    if !report.errors.is_empty() {
        writeln!(out, "\nerrors")?;
        for row in &report.errors {
            writeln!(out, "  {:<12} {:<19} {:>9}", row.phase, row.class, row.count)?;
        }
    }
    let refusals = report.replies.iter().filter(|row| row.code >= 400);
    for (n, row) in refusals.enumerate() {
        if n == 0 {
            writeln!(out, "\nrefusals")?;
        }
        writeln!(out, "  {:<12} {} {:<8} {:>9}  {}", row.phase, row.code, row.enhanced, row.count, row.text)?;
    }
    Ok(())
}

fn servers(report: &Report, out: &mut String) -> std::fmt::Result {
    if report.servers.len() < 2 && report.spread.is_none() {
        return Ok(());
    }
    writeln!(
        out,
        "\n{:<28} {:>9} {:>7} {:>8} {:>9} {:>7} {:>7} {:>7} {:>9} {:>9}",
        "server", "conns", "share", "expected", "ok", "share", "failed", "broken", "p50 ms", "p99 ms"
    )?;
    for row in &report.servers {
        let expected = row.expected.map_or("-".to_owned(), |share| format!("{share:.1}%"));
        let at = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
        writeln!(
            out,
            "{:<28} {:>9} {:>6.1}% {:>8} {:>9} {:>6.1}% {:>7} {:>7} {:>9} {:>9}",
            row.name,
            row.connections,
            row.connection_share,
            expected,
            row.ok,
            row.share,
            row.failed,
            row.broken,
            at(row.service.as_ref().map(|row| row.p50)),
            at(row.service.as_ref().map(|row| row.p99)),
        )?;
    }
    for row in &report.servers {
        if let Some(quiet) = row.quiet {
            writeln!(out, "{}: nothing done for {} s from {} s on", row.name, quiet.seconds, quiet.from)?;
        }
    }
    if let Some(spread) = &report.spread {
        if spread.chi_square == f64::MAX {
            return writeln!(out, "spread: a server answered that was not expected");
        }
        let meaning = match spread.p_value {
            p if p < 0.001 => "this is not chance",
            p if p < 0.05 => "hardly chance",
            _ => "as expected",
        };
        writeln!(
            out,
            "spread of connections: chi-square {:.2} with {} degrees of freedom, p = {:.4}: {meaning}; skew {:.1} %",
            spread.chi_square, spread.degrees, spread.p_value, spread.skew
        )?;
    }
    Ok(())
}

fn endings(report: &Report, out: &mut String) -> std::fmt::Result {
    let failover = &report.failover;
    out.push('\n');
    if let Some(trace) = &report.trace {
        write!(
            out,
            "traced: {} accepted, {} arrived, {} lost, {} doubled",
            trace.accepted, trace.arrived, trace.lost, trace.doubled
        )?;
        match &trace.delay {
            Some(delay) => writeln!(
                out,
                "; from end to end p50 {:.3} ms, p99 {:.3} ms, max {:.3} ms",
                delay.p50, delay.p99, delay.max
            )?,
            None => out.push('\n'),
        }
    }
    if report.counts.ok > 0 {
        write!(
            out,
            "longest gap without success: {:.3} s from {:.3} s on",
            failover.longest_gap, failover.gap_from
        )?;
        if let Some(first) = failover.first_failure {
            write!(out, "; first failure at {first:.3} s")?;
            match failover.first_good {
                Some(good) => write!(out, ", first success after it at {good:.3} s")?,
                None => out.push_str(", no success after it"),
            }
        }
        if let Some(good) = failover.good_again {
            write!(out, "; after the gap good again at {good:.3} s")?;
        }
        out.push('\n');
    }
    writeln!(
        out,
        "generator: {:.1} % of its threads' time, {:.3} s of CPU",
        report.generator.cpu_share, report.generator.cpu_seconds
    )?;
    for why in &report.generator.saturated {
        writeln!(out, "GENERATOR SATURATED, the verdict is void: {why}")?;
    }
    for row in &report.thresholds {
        let word = if row.passed { "pass" } else { "FAIL" };
        writeln!(out, "{word}  {:<24} {}", row.threshold, row.value)?;
    }
    Ok(())
}
