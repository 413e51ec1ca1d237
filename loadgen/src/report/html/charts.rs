//! The charts of the page.
//!
//! Owns which lines they have. Refuses to know how they are drawn. Cannot fail.

use std::fmt::Write as _;

use super::escape;
use crate::report::svg::{Chart, Line, scale};
use crate::report::{LatencyRow, Report};

/// Times that are marked: a server did nothing though others did, or none did for a second or more.
#[expect(clippy::cast_precision_loss, reason = "seconds of a run")]
fn bands(report: &Report) -> Vec<(f64, f64)> {
    let quiet = report.servers.iter().filter_map(|server| server.quiet);
    let mut bands: Vec<_> =
        quiet.map(|quiet| (quiet.from as f64, (quiet.from + quiet.seconds) as f64)).collect();
    let failover = &report.failover;
    if failover.longest_gap >= 1.0 {
        bands.push((failover.gap_from, failover.gap_from + failover.longest_gap));
    }
    bands
}

#[expect(clippy::cast_precision_loss, reason = "counts")]
pub(super) fn charts(report: &Report, out: &mut String) -> std::fmt::Result {
    let points = &report.series;
    let bands = bands(report);
    // The last row is a part of its second, so its rate is not one.
    let whole =
        points.split_last().map_or(&points[..], |(_, rest)| if rest.is_empty() { points } else { rest });
    let per_second = |count: u64, seconds: u64| count as f64 / seconds.max(1) as f64;
    let line = |color: &'static str, name: &str, value: &dyn Fn(&crate::report::Point) -> f64| Line {
        color,
        name: name.to_owned(),
        points: whole.iter().map(|point| (point.second as f64, value(point))).collect(),
    };
    let mut lines = vec![
        line("--a", "arrivals/s", &|p| per_second(p.arrivals, p.seconds)),
        line("--d", "ok/s", &|p| per_second(p.ok, p.seconds)),
    ];
    if report.counts.failed > 0 {
        lines.push(line("--bad", "failed/s", &|p| per_second(p.failed, p.seconds)));
    }
    section(
        out,
        "Throughput",
        &Chart { lines, x: "seconds", y: "a second", log: scale(false, false), bands: bands.clone() },
    )?;
    let name = report.headline().map_or("service", |(name, _)| name);
    let lines = vec![
        line("--d", "p50", &|p| p.p50),
        line("--a", "p90", &|p| p.p90),
        line("--b", "p99", &|p| p.p99),
        line("--c", "max", &|p| p.max),
    ];
    section(
        out,
        &format!("Latency over time ({name})"),
        &Chart { lines, x: "seconds", y: "ms", log: scale(false, true), bands: bands.clone() },
    )?;
    let curves = [
        ("--a", "response", &report.response),
        ("--d", "service", &report.service),
        ("--b", "start lag", &report.start_lag),
    ];
    let lines = curves
        .into_iter()
        .filter_map(|(color, name, row)| {
            Some(Line { color, name: name.to_owned(), points: curve(row.as_ref()?) })
        })
        .collect();
    section(
        out,
        "Latency by percentile",
        &Chart { lines, x: "percentile", y: "ms", log: scale(true, true), bands: Vec::new() },
    )?;
    if report.servers.len() > 1 {
        let lines = report
            .servers
            .iter()
            .zip(super::COLORS.into_iter().cycle())
            .take(12)
            .enumerate()
            .map(|(place, (server, color))| {
                let ok = |p: &crate::report::Point| {
                    per_second(p.servers.get(place).map_or(0, |row| row.0), p.seconds)
                };
                line(color, &server.name, &ok)
            })
            .collect();
        section(
            out,
            "Done by server",
            &Chart { lines, x: "seconds", y: "ok a second", log: scale(false, false), bands: bands.clone() },
        )?;
    }
    Ok(())
}

/// Percentiles as 1 / (1 - q), so that each nine is as wide as the one before.
fn curve(row: &LatencyRow) -> Vec<(f64, f64)> {
    let Ok(histogram) = row.decode() else { return Vec::new() };
    let mut points = Vec::new();
    let mut rest = 1.0;
    let least = 1.0 / f64::from(u32::try_from(row.count).unwrap_or(u32::MAX)).max(1.0);
    while rest > least {
        #[expect(clippy::cast_precision_loss, reason = "an hour in microseconds is far below 2^52")]
        points.push((1.0 / rest, histogram.value_at_quantile(1.0 - rest) as f64 / 1000.0));
        rest *= 0.9;
    }
    points.push((1.0 / least, row.max));
    points
}

fn section(out: &mut String, title: &str, chart: &Chart<'_>) -> std::fmt::Result {
    if chart.lines.iter().all(|line| line.points.is_empty()) {
        return Ok(());
    }
    write!(out, "<section><h2>{}</h2><div class=\"key\">", escape(title))?;
    for line in &chart.lines {
        write!(out, "<i style=\"background:var({})\"></i>{}", line.color, escape(&line.name))?;
    }
    if !chart.bands.is_empty() {
        out.push_str("<i class=\"band\"></i>a server did nothing, or none did");
    }
    write!(out, "</div>{}</section>", chart.render())
}
