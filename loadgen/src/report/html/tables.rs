//! The tables of the page.
//!
//! Owns their columns. Refuses to know where they stand. Cannot fail.

use std::fmt::Write as _;

use super::escape;
use crate::report::{LatencyRow, Report, ServerRow};

/// Rows of replies that are shown at once; more are folded.
const MOST_REPLIES: usize = 6;

fn row(out: &mut String, name: &str, row: &LatencyRow) -> std::fmt::Result {
    write!(out, "<tr><td>{}</td><td>{}</td>", escape(name), row.count)?;
    for value in [row.min, row.mean, row.p50, row.p90, row.p95, row.p99, row.p999, row.max] {
        write!(out, "<td>{value:.3}</td>")?;
    }
    out.push_str("</tr>");
    Ok(())
}

pub(super) fn latencies(report: &Report, out: &mut String) -> std::fmt::Result {
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

pub(super) fn servers(report: &Report, out: &mut String) -> std::fmt::Result {
    if report.servers.is_empty() {
        return Ok(());
    }
    out.push_str("<section><h2>Which server answered</h2>");
    if report.servers.len() > 1 {
        shares(report, out)?;
    }
    out.push_str("<table><tr><th>server</th><th>connections</th><th>share</th><th>expected</th><th>ok</th><th>share</th><th>failed</th><th>broken</th><th>p50 ms</th><th>p99 ms</th></tr>");
    for server in &report.servers {
        server_row(out, server)?;
    }
    out.push_str("</table>");
    for server in &report.servers {
        if let Some(quiet) = server.quiet {
            write!(
                out,
                "<p><b class=\"bad\">{}</b> did nothing for {} s from {} s on, while others did.</p>",
                escape(&server.name),
                quiet.seconds,
                quiet.from
            )?;
        }
    }
    if let Some(spread) = &report.spread {
        let meaning = match spread.p_value {
            p if p < 0.001 => "this is not chance",
            p if p < 0.05 => "hardly chance",
            _ => "as expected",
        };
        if spread.chi_square == f64::MAX {
            out.push_str("<p>A server answered that was not expected.</p>");
        } else {
            write!(
                out,
                "<p>Spread of connections: {meaning} (chi-square {:.2}, {} degrees of freedom, p = {:.4}); largest distance from a share {:.1} %.</p>",
                spread.chi_square, spread.degrees, spread.p_value, spread.skew
            )?;
        }
    }
    failover(report, out)?;
    out.push_str("</section>");
    Ok(())
}

/// A bar of all that was done, by server.
fn shares(report: &Report, out: &mut String) -> std::fmt::Result {
    let colors = super::COLORS.into_iter().cycle();
    out.push_str("<div class=\"shares\">");
    for (server, color) in report.servers.iter().zip(colors).take(12) {
        write!(
            out,
            "<i style=\"width:{:.2}%;background:var({color})\" title=\"{} {:.1} %\"></i>",
            server.share,
            escape(&server.name),
            server.share
        )?;
    }
    out.push_str("</div>");
    Ok(())
}

fn server_row(out: &mut String, server: &ServerRow) -> std::fmt::Result {
    let expected = server.expected.map_or("&ndash;".to_owned(), |share| format!("{share:.1} %"));
    let at = |value: Option<f64>| value.map_or("&ndash;".to_owned(), |value| format!("{value:.3}"));
    let bad = |count: u64| if count > 0 { "bad" } else { "" };
    write!(
        out,
        "<tr><td>{}</td><td>{}</td><td>{:.1} %</td><td>{expected}</td><td>{}</td><td>{:.1} %</td><td class=\"{}\">{}</td><td class=\"{}\">{}</td><td>{}</td><td>{}</td></tr>",
        escape(&server.name),
        server.connections,
        server.connection_share,
        server.ok,
        server.share,
        bad(server.failed),
        server.failed,
        bad(server.broken),
        server.broken,
        at(server.service.as_ref().map(|row| row.p50)),
        at(server.service.as_ref().map(|row| row.p99)),
    )
}

fn failover(report: &Report, out: &mut String) -> std::fmt::Result {
    let failover = &report.failover;
    let Some(first) = failover.first_failure else { return Ok(()) };
    write!(out, "<p>First failure at {first:.3} s, ")?;
    match failover.first_good {
        Some(good) => write!(out, "first success after it at {good:.3} s")?,
        None => out.push_str("no success after it"),
    }
    write!(
        out,
        "; longest gap without any success {:.3} s, from {:.3} s on; {} connections were lost in the middle.</p>",
        failover.longest_gap, failover.gap_from, failover.broken
    )
}

#[expect(clippy::cast_precision_loss, reason = "counts")]
pub(super) fn errors(report: &Report, out: &mut String) -> std::fmt::Result {
    if !report.errors.is_empty() {
        let most = report.errors.iter().map(|row| row.count).max().unwrap_or(1).max(1);
        out.push_str("<section><h2>Errors</h2><table><tr><th>phase</th><th class=\"text\">class</th><th>count</th><th class=\"wide\"></th></tr>");
        for row in &report.errors {
            write!(
                out,
                "<tr><td>{}</td><td class=\"text\">{}</td><td>{}</td><td class=\"wide\"><i style=\"width:{:.1}%\"></i></td></tr>",
                escape(&row.phase),
                escape(&row.class),
                row.count,
                row.count as f64 * 100.0 / most as f64
            )?;
        }
        out.push_str("</table></section>");
    }
    if report.replies.is_empty() {
        return Ok(());
    }
    let folded = report.replies.len() > MOST_REPLIES;
    out.push_str("<section><h2>Replies</h2>");
    if folded {
        write!(out, "<details><summary>{} kinds</summary>", report.replies.len())?;
    }
    out.push_str("<table><tr><th>phase</th><th>code</th><th class=\"text\">enhanced</th><th>count</th><th class=\"text\">text of the first refusal</th></tr>");
    for row in &report.replies {
        write!(
            out,
            "<tr><td>{}</td><td class=\"{}\">{}</td><td class=\"text\">{}</td><td>{}</td><td class=\"text\">{}</td></tr>",
            escape(&row.phase),
            if row.code >= 400 { "bad" } else { "" },
            row.code,
            escape(&row.enhanced),
            row.count,
            escape(&row.text)
        )?;
    }
    out.push_str(if folded { "</table></details></section>" } else { "</table></section>" });
    Ok(())
}
