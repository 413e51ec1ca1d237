//! A run as one page that needs nothing else: no script, no network, charts as SVG.
//!
//! Owns the page. Refuses to know where it goes. Cannot fail. All text from outside is escaped.

mod charts;
mod tables;

use std::fmt::Write as _;

use self::charts::charts;
use self::tables::{errors, latencies, servers};
use super::Report;

const STYLE: &str = "
:root{--ink:#1c2733;--soft:#5b6b7b;--rule:#dde3ea;--card:#fff;--page:#f4f6f9;--good:#1f8a54;--bad:#c8372d;--a:#2563c9;--b:#e08a1e;--c:#b3308f;--d:#1f8a54}
@media(prefers-color-scheme:dark){:root{--ink:#e6ebf1;--soft:#98a6b5;--rule:#2c3744;--card:#18212b;--page:#10171f;--good:#4cc38a;--bad:#ff7a6e;--a:#6ea3ff;--b:#f3b35f;--c:#e57fc8;--d:#4cc38a}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:28px 20px 60px}h1{font-size:24px;margin:0 0 2px}h2{font-size:16px;margin:0 0 10px}
p{margin:4px 0;color:var(--soft)}section{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:18px 20px;margin-top:18px;overflow-x:auto}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(220px,1fr));gap:12px;margin-top:18px}
.tile{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:12px 16px}.tile b{display:block;font-size:22px;font-variant-numeric:tabular-nums}.tile span{color:var(--soft);font-size:13px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:14px}th,td{text-align:right;padding:4px 10px;border-bottom:1px solid var(--rule);white-space:nowrap}
th{color:var(--soft);font-weight:500}th:first-child,td:first-child,td.text{text-align:left}td.text{white-space:normal}
.bad{color:var(--bad)}.good{color:var(--good)}.void{border:2px solid var(--bad)}svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font:12px system-ui,sans-serif}
.key{font-size:13px;color:var(--soft)}.key i{display:inline-block;width:14px;height:3px;vertical-align:middle;margin:0 6px 0 14px}code{font-size:13px;word-break:break-all}
th.text{text-align:left}th.wide,td.wide{width:40%}td.wide i{display:block;height:10px;border-radius:3px;background:var(--bad);min-width:2px}
.shares{display:flex;height:14px;border-radius:4px;overflow:hidden;margin:0 0 10px;background:var(--rule)}.shares i{display:block;height:100%}
.key i.band{height:10px;background:var(--bad);opacity:.18}.verdict{border-left:6px solid var(--good);font-weight:600}.verdict.no{border-color:var(--bad)}.verdict p{font-weight:400}
summary{cursor:pointer;color:var(--soft)}@media print{section{break-inside:avoid}}
";

/// Colours of servers, in turn.
const COLORS: [&str; 6] = ["--a", "--b", "--c", "--d", "--bad", "--soft"];

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
    headline(report, out)?;
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

/// What the run says, in a line.
fn headline(report: &Report, out: &mut String) -> std::fmt::Result {
    let crossed = report.thresholds.iter().filter(|row| !row.passed).count();
    let all = report.thresholds.len();
    let (class, text) = if !report.generator.saturated.is_empty() {
        ("no", "Void: the generator was the limit".to_owned())
    } else if report.interrupted {
        ("no", "Interrupted: this is part of a run".to_owned())
    } else if crossed > 0 {
        ("no", format!("Failed: {crossed} of {all} thresholds crossed"))
    } else if all > 0 {
        ("", format!("Passed: {all} thresholds held"))
    } else {
        return Ok(());
    };
    writeln!(out, "<section class=\"verdict {class}\">{text}</section>")
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
