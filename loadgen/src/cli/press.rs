//! EDGE: `smtp` and `http`: from arguments to a job, and from its report to an exit code.
//!
//! Owns the order of a run and its exit code. Refuses to know how the work is done. Fails with [`Exit`]; what contradicts itself is named before
//! anything is started.

mod conflicts;
mod flags;
mod job;

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

pub(super) use self::flags::Arguments;
use self::job::job;
use super::Exit;
use crate::identify::Identify;
use crate::report::{Report, text};
use crate::run::{Setting, Watch, run};

/// Most bytes of a list: URLs, addresses, users.
const MAX_LIST: u64 = 64 * 1024 * 1024;

/// What a URL without a scheme is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Default {
    Smtp,
    Http,
}

/// Presses, shows and stores what came of it.
pub(super) fn press(arguments: &Arguments, default: Default, given: Vec<String>) -> Result<(), Exit> {
    let (report, mut complaints) = perform(arguments, default, given)?;
    complaints.extend(super::output::print(&text::render(&report)).err());
    complaints.extend(arguments.output.store(&report));
    verdict(&report, &complaints)
}

/// Presses. Gives a judged report, and what could not be written meanwhile.
pub(super) fn perform(
    arguments: &Arguments,
    default: Default,
    given: Vec<String>,
) -> Result<(Report, Vec<String>), Exit> {
    let thresholds = arguments.output.thresholds().map_err(Exit::usage)?;
    let identify = identify(arguments, default).map_err(Exit::usage)?;
    let expected = expected(arguments.expect.as_deref()).map_err(Exit::usage)?;
    let start_at = arguments.start_at.as_deref().map(instant).transpose();
    let start_at = start_at.map_err(|error| Exit::usage(format!("--start-at: {error}")))?;
    let (job, rate) = job(arguments, default, identify).map_err(Exit::usage)?;
    let open = super::limit::raise(job.sessions + 64 + job.threads * 8);
    if let Some(warning) = super::limit::warning(open, job.sessions) {
        let _ = writeln!(std::io::stderr(), "smtp-loadgen: {warning}");
    }
    let shown = crate::report::live::Shown::new(&job, rate.as_deref());
    let watchers: Vec<Box<dyn Watch>> = arguments.output.watchers(&job.mail.run, shown)?;
    let arrivals = arguments.output.trace().map_err(Exit::system)?;
    let setting = Setting { arguments: given, expected, start_at, watchers, arrivals };
    let ran = run(job, setting).map_err(Exit::system)?;
    let mut report = ran.report;
    report.plan.rate = rate;
    report.thresholds = thresholds.iter().map(|threshold| threshold.judge(&report)).collect();
    Ok((report, ran.complaints))
}

/// The exit code of a report.
pub(super) fn verdict(report: &Report, complaints: &[String]) -> Result<(), Exit> {
    if !complaints.is_empty() {
        return Err(Exit::system(complaints.join("\n")));
    }
    if report.interrupted {
        return Err(Exit::new(Exit::INTERRUPTED, "interrupted: this is part of a run"));
    }
    if !report.generator.saturated.is_empty() {
        return Err(Exit::new(
            Exit::SATURATED,
            "the generator was the limit: more sessions do not help, more machines do",
        ));
    }
    if report.thresholds.iter().any(|row| !row.passed) {
        return Err(Exit::new(Exit::FAILED, ""));
    }
    if report.counts.ok == 0 && report.counts.arrivals > 0 {
        return Err(Exit::system("nothing succeeded"));
    }
    Ok(())
}

fn identify(arguments: &Arguments, default: Default) -> Result<Identify, String> {
    match (&arguments.server_from, default) {
        (Some(text), _) => Identify::parse(text).map_err(|error| format!("--server-from: {error}")),
        (None, Default::Smtp) => Ok(Identify::Banner),
        (None, Default::Http) => Ok(Identify::Never),
    }
}

fn expected(text: Option<&str>) -> Result<Vec<(String, f64)>, String> {
    let rows = text.unwrap_or_default().split(',').map(str::trim).filter(|row| !row.is_empty());
    rows.map(|row| {
        let (name, weight) =
            row.rsplit_once('=').ok_or_else(|| format!("--expect: \"{row}\" is not NAME=WEIGHT"))?;
        let weight = weight.parse::<f64>().ok().filter(|weight| weight.is_finite() && *weight >= 0.0);
        Ok((name.to_owned(), weight.ok_or_else(|| format!("--expect: \"{row}\" is not NAME=WEIGHT"))?))
    })
    .collect()
}

fn instant(text: &str) -> Result<SystemTime, String> {
    let at = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok().map(|since| SystemTime::UNIX_EPOCH + since),
        Err(_) => humantime::parse_rfc3339_weak(text).ok(),
    };
    at.ok_or_else(|| format!("\"{text}\" is no time of day: 2026-11-23T10:00:00Z or seconds since 1970"))
}

/// The lines of a file, without empty ones and comments.
pub(super) fn list(path: &Path) -> Result<Vec<String>, String> {
    let trouble = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    let file = std::fs::File::open(path).map_err(|error| trouble(&error))?;
    let mut text = String::new();
    file.take(MAX_LIST + 1).read_to_string(&mut text).map_err(|error| trouble(&error))?;
    if u64::try_from(text.len()).is_ok_and(|length| length > MAX_LIST) {
        return Err(trouble(&format!("is larger than {MAX_LIST} bytes")));
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}
