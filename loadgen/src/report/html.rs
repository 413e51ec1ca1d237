//! A run as one page that needs nothing else: no script, no network, charts as SVG.
//!
//! Owns the page. Refuses to know where it goes. Cannot fail. All text from outside is escaped.

use std::fmt::Write as _;

use super::svg::{Chart, Line, scale};
use super::{LatencyRow, Report};

const STYLE: &str = "
:root{--ink:#1c2733;--soft:#5b6b7b;--rule:#dde3ea;--card:#fff;--page:#f4f6f9;--good:#1f8a54;--bad:#c8372d;--a:#2563c9;--b:#e08a1e;--c:#b3308f;--d:#1f8a54}
@media(prefers-color-scheme:dark){:root{--ink:#e6ebf1;--soft:#98a6b5;--rule:#2c3744;--card:#18212b;--page:#10171f;--good:#4cc38a;--bad:#ff7a6e;--a:#6ea3ff;--b:#f3b35f;--c:#e57fc8;--d:#4cc38a}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:28px 20px 60px}h1{font-size:24px;margin:0 0 2px}h2{font-size:16px;margin:0 0 10px}
p{margin:4px 0;color:var(--soft)}section{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:18px 20px;margin-top:18px;overflow-x:auto}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin-top:18px}
.tile{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:12px 16px}.tile b{display:block;font-size:22px;font-variant-numeric:tabular-nums}.tile span{color:var(--soft);font-size:13px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:14px}th,td{text-align:right;padding:4px 10px;border-bottom:1px solid var(--rule);white-space:nowrap}
th{color:var(--soft);font-weight:500}th:first-child,td:first-child,td.text{text-align:left}td.text{white-space:normal}
.bad{color:var(--bad)}.good{color:var(--good)}.void{border:2px solid var(--bad)}svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font:12px system-ui,sans-serif}
.key{font-size:13px;color:var(--soft)}.key i{display:inline-block;width:14px;height:3px;vertical-align:middle;margin:0 6px 0 14px}code{font-size:13px;word-break:break-all}
";

/// The whole page.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing to memory does not fail.
    let _ = page(report, &mut out);
    out
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

fn page(report: &Report, out: &mut String) -> std::fmt::Result {
    let targets = escape(&report.plan.targets.join(", "));
    writeln!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>smtp-loadgen {targets}</title><style>{STYLE}</style></head><body><main>"
    )?;
    let pace = match &report.plan.rate {
        Some(rate) => format!("open load, {}", escape(rate)),
        None => format!("closed load, {} sessions", report.plan.sessions),
    };
    writeln!(
        out,
        "<h1>{targets}</h1><p>{pace} &middot; {} &middot; {:.1} s &middot; run {}</p>",
        escape(&report.started),
        report.elapsed,
        escape(&report.run)
    )?;
    if report.interrupted {
        writeln!(out, "<p class=\"bad\">Interrupted: this is part of a run.</p>")?;
    }
    tiles(report, out)?;
    for why in &report.generator.saturated {
        writeln!(
            out,
            "<section class=\"void\"><h2 class=\"bad\">Generator saturated: the verdict is void</h2><p>{}</p></section>",
            escape(why)
        )?;
    }
    verdict(report, out)?;
    charts(report, out)?;
    latencies(report, out)?;
    servers(report, out)?;
    errors(report, out)?;
    writeln!(
        out,
        "<section><h2>How it was made</h2><p><code>smtp-loadgen {}</code></p><p>smtp-loadgen {}, {} threads, worker {}, {:.1} % of its threads' time.</p>\
         <p>Response is counted from the time that the schedule gave, so a server that stalls cannot hide its stall; service from the actual start.</p></section></main></body></html>",
        escape(&report.plan.arguments.join(" ")),
        escape(&report.version),
        report.plan.threads,
        escape(&report.plan.worker),
        report.generator.cpu_share
    )
}

fn tiles(report: &Report, out: &mut String) -> std::fmt::Result {
    let counts = &report.counts;
    out.push_str("<div class=\"tiles\">");
    let mut tile = |value: String, name: &str, class: &str| {
        write!(out, "<div class=\"tile\"><b class=\"{class}\">{value}</b><span>{name}</span></div>")
    };
    tile(format!("{:.1}/s", report.rate), "done", "")?;
    tile(counts.ok.to_string(), "ok", "good")?;
    tile(counts.failed.to_string(), "failed", if counts.failed > 0 { "bad" } else { "" })?;
    tile(
        (counts.unsent + counts.cut).to_string(),
        "unsent or cut off",
        if counts.unsent + counts.cut > 0 { "bad" } else { "" },
    )?;
    if let Some((name, row)) = report.headline() {
        tile(format!("{:.1} ms", row.p50), &format!("p50 {name}"), "")?;
        tile(format!("{:.1} ms", row.p99), &format!("p99 {name}"), "")?;
    }
    tile(format!("{:.3} s", report.failover.longest_gap), "longest gap without success", "")?;
    if let Some(trace) = &report.trace {
        tile(
            format!("{} / {}", trace.lost, trace.doubled),
            "lost / doubled",
            if trace.lost > 0 { "bad" } else { "good" },
        )?;
    }
    out.push_str("</div>");
    Ok(())
}

fn verdict(report: &Report, out: &mut String) -> std::fmt::Result {
    if report.thresholds.is_empty() {
        return Ok(());
    }
    out.push_str("<section><h2>Thresholds</h2><table><tr><th>fails if</th><th>value</th><th></th></tr>");
    for row in &report.thresholds {
        let (class, word) = if row.passed { ("good", "pass") } else { ("bad", "FAIL") };
        write!(
            out,
            "<tr><td>{}</td><td>{}</td><td class=\"{class}\">{word}</td></tr>",
            escape(&row.threshold),
            escape(&row.value)
        )?;
    }
    out.push_str("</table></section>");
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "counts")]
fn charts(report: &Report, out: &mut String) -> std::fmt::Result {
    let points = &report.series;
    // The last row is a part of its second, so its rate is not one.
    let whole =
        points.split_last().map_or(&points[..], |(_, rest)| if rest.is_empty() { points } else { rest });
    let per_second = |count: u64, seconds: u64| count as f64 / seconds.max(1) as f64;
    let line = |color: &'static str, name: &str, value: &dyn Fn(&super::Point) -> f64| Line {
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
    section(out, "Throughput", &Chart { lines, x: "seconds", y: "a second", log: scale(false, false) })?;
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
        &Chart { lines, x: "seconds", y: "ms", log: scale(false, true) },
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
        &Chart { lines, x: "percentile", y: "ms", log: scale(true, true) },
    )?;
    if report.servers.len() > 1 {
        let colors = ["--a", "--b", "--c", "--d", "--bad", "--soft"];
        let lines = report
            .servers
            .iter()
            .zip(colors.into_iter().cycle())
            .take(12)
            .enumerate()
            .map(|(place, (server, color))| {
                let ok =
                    |p: &super::Point| per_second(p.servers.get(place).map_or(0, |row| row.0), p.seconds);
                line(color, &server.name, &ok)
            })
            .collect();
        section(
            out,
            "Done by server",
            &Chart { lines, x: "seconds", y: "ok a second", log: scale(false, false) },
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
    write!(out, "</div>{}</section>", chart.render())
}

fn row(out: &mut String, name: &str, row: &LatencyRow) -> std::fmt::Result {
    write!(out, "<tr><td>{}</td><td>{}</td>", escape(name), row.count)?;
    for value in [row.min, row.mean, row.p50, row.p90, row.p95, row.p99, row.p999, row.max] {
        write!(out, "<td>{value:.3}</td>")?;
    }
    out.push_str("</tr>");
    Ok(())
}

fn latencies(report: &Report, out: &mut String) -> std::fmt::Result {
    out.push_str("<section><h2>Latency, ms</h2><table><tr><th></th><th>count</th><th>min</th><th>mean</th><th>p50</th><th>p90</th><th>p95</th><th>p99</th><th>p99.9</th><th>max</th></tr>");
    for (name, latency) in
        [("response", &report.response), ("service", &report.service), ("start lag", &report.start_lag)]
    {
        if let Some(latency) = latency {
            row(out, name, latency)?;
        }
    }
    for phase in &report.phases {
        row(out, &phase.phase, &phase.latency)?;
    }
    if let Some(delay) = report.trace.as_ref().and_then(|trace| trace.delay.as_ref()) {
        row(out, "end to end", delay)?;
    }
    out.push_str("</table></section>");
    Ok(())
}

fn servers(report: &Report, out: &mut String) -> std::fmt::Result {
    if report.servers.is_empty() {
        return Ok(());
    }
    out.push_str("<section><h2>Which server answered</h2><table><tr><th>server</th><th>connections</th><th>share</th><th>expected</th><th>ok</th><th>share</th><th>failed</th><th>broken</th><th>p50 ms</th><th>p99 ms</th></tr>");
    for server in &report.servers {
        let expected = server.expected.map_or("&ndash;".to_owned(), |share| format!("{share:.1} %"));
        let at = |value: Option<f64>| value.map_or("&ndash;".to_owned(), |value| format!("{value:.3}"));
        write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{:.1} %</td><td>{expected}</td><td>{}</td><td>{:.1} %</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&server.name),
            server.connections,
            server.connection_share,
            server.ok,
            server.share,
            server.failed,
            server.broken,
            at(server.service.as_ref().map(|row| row.p50)),
            at(server.service.as_ref().map(|row| row.p99)),
        )?;
    }
    out.push_str("</table>");
    if let Some(spread) = &report.spread {
        write!(
            out,
            "<p>Spread of connections: chi-square {:.2}, {} degrees of freedom, p = {:.4}; largest distance from a share {:.1} %.</p>",
            spread.chi_square, spread.degrees, spread.p_value, spread.skew
        )?;
    }
    out.push_str("</section>");
    Ok(())
}

fn errors(report: &Report, out: &mut String) -> std::fmt::Result {
    if !report.errors.is_empty() {
        out.push_str("<section><h2>Errors</h2><table><tr><th>phase</th><th>class</th><th>count</th></tr>");
        for row in &report.errors {
            write!(out, "<tr><td>{}</td><td>{}</td><td>{}</td></tr>", row.phase, row.class, row.count)?;
        }
        out.push_str("</table></section>");
    }
    if !report.replies.is_empty() {
        out.push_str("<section><h2>Replies</h2><table><tr><th>phase</th><th>code</th><th>enhanced</th><th>count</th><th>text of the first</th></tr>");
        for row in &report.replies {
            write!(
                out,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"text\">{}</td></tr>",
                row.phase,
                row.code,
                row.enhanced,
                row.count,
                escape(&row.text)
            )?;
        }
        out.push_str("</table></section>");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::ServerRow;
    use crate::report::build::Frame;
    use crate::tally::Tally;

    #[test]
    fn a_server_writes_no_html() {
        let mut report = Report::new(&Tally::default(), Frame::default());
        report.plan.targets.push("<script>alert(1)</script>".into());
        report.servers.push(ServerRow {
            name: "\"><img src=x>".into(),
            connections: 1,
            ok: 1,
            failed: 0,
            broken: 0,
            connection_share: 0.0,
            share: 0.0,
            expected: None,
            service: None,
            quiet: None,
        });
        let page = render(&report);
        assert!(!page.contains("<script") && !page.contains("<img"));
        assert!(!page.contains("http://") && !page.contains("https://"), "it needs nothing else");
    }
}
