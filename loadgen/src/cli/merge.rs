//! EDGE: `merge` and `compare`: from files of earlier runs to a sum or a comparison.
//!
//! Owns their flags. Refuses to know how logs and reports are made. Fails with [`Exit`], which names the file.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::Exit;
use crate::report::compare::{Change, render, rows};
use crate::report::hlog::{MAX_LOG, Merged};
use crate::report::{LatencyRow, Report, SCHEMA};

#[derive(Debug, clap::Args)]
pub(super) struct Merge {
    /// HdrHistogram logs, as --hdr-log writes them.
    #[arg(required = true, value_name = "LOG")]
    logs: Vec<PathBuf>,
    /// The sum as a log, one interval a tag; - is standard output.
    #[arg(long, value_name = "FILE")]
    hdr_log: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Compare {
    /// The report of the old run, as --json writes it.
    old: PathBuf,
    /// And of the new one.
    new: PathBuf,
    /// Exit 99 if this holds: p99>+10%, rate<-5%, rcpt.p99>+20%.
    #[arg(long, value_name = "CHANGE")]
    fail_if: Vec<String>,
}

fn read(path: &Path) -> Result<Vec<u8>, Exit> {
    let trouble = |error: &dyn std::fmt::Display| Exit::system(format!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| trouble(&error))?;
    file.take(MAX_LOG + 1).read_to_end(&mut bytes).map_err(|error| trouble(&error))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_LOG) {
        return Err(trouble(&format!("is larger than {MAX_LOG} bytes")));
    }
    Ok(bytes)
}

pub(super) fn merge(arguments: &Merge) -> Result<(), Exit> {
    let mut merged = Merged::default();
    for path in &arguments.logs {
        merged.add(&read(path)?).map_err(|error| Exit::usage(format!("{} {error}", path.display())))?;
    }
    if let Some(path) = &arguments.hdr_log {
        super::output::write_all(path, merged.render().as_bytes()).map_err(Exit::system)?;
    }
    let mut out = format!(
        "{:<20} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}\n",
        "ms", "count", "min", "mean", "p50", "p90", "p95", "p99", "p99.9", "max"
    );
    for (tag, latency) in &merged.tags {
        let Some(row) = LatencyRow::of(latency) else { continue };
        let tag = if tag.is_empty() { "-".to_owned() } else { tag.escape_debug().to_string() };
        out.push_str(&format!("{tag:<20} {:>10}", row.count));
        for value in [row.min, row.mean, row.p50, row.p90, row.p95, row.p99, row.p999, row.max] {
            out.push_str(&format!(" {value:>9.3}"));
        }
        out.push('\n');
    }
    let _ = std::io::stdout().write_all(out.as_bytes());
    Ok(())
}

pub(super) fn compare(arguments: &Compare) -> Result<(), Exit> {
    let changes = arguments.fail_if.iter().map(|text| Change::parse(text)).collect::<Result<Vec<_>, _>>();
    let changes = changes.map_err(Exit::usage)?;
    let report = |path: &Path| {
        let bytes = read(path)?;
        let report: Report = serde_json::from_slice(&bytes)
            .map_err(|error| Exit::usage(format!("{} is no report: {error}", path.display())))?;
        if report.schema == SCHEMA {
            return Ok(report);
        }
        Err(Exit::usage(format!("{} is \"{}\", not {SCHEMA}", path.display(), report.schema.escape_debug())))
    };
    let (old, new) = (report(&arguments.old)?, report(&arguments.new)?);
    let rows = rows(&old, &new);
    let mut out = render(&rows);
    let mut failed = false;
    for change in &changes {
        let (threshold, value, passed) = change.judge(&rows);
        failed |= !passed;
        out.push_str(&format!("{}  {threshold:<24} {value}\n", if passed { "pass" } else { "FAIL" }));
    }
    let _ = std::io::stdout().write_all(out.as_bytes());
    if !old.generator.saturated.is_empty() || !new.generator.saturated.is_empty() {
        return Err(Exit::new(
            Exit::SATURATED,
            "a generator was saturated in one of the runs: the comparison is void",
        ));
    }
    if failed { Err(Exit::new(Exit::FAILED, "")) } else { Ok(()) }
}
