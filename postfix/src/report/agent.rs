//! One line for a load balancer: HAProxy's words first, then our figures (HAProxy 2.6 configuration manual, agent-check).
//!
//! ```text
//! up 75% # v1 source=scan instances=1 incoming=3 active=120 … cost=4
//! ```
//!
//! HAProxy reads to the first CR or LF. It takes words between blanks, tabs and commas: `up down fail stopped ready drain
//! maint`, `N%` of the initial weight, `maxconn:N`; an unknown word is shown as an error and else ignored; `#` begins a
//! description that it shows with the state and never reads. So figures are a description to HAProxy, and whatever it
//! understands is understood here too. What it is not told it leaves as it is: that is why `up` is always said
//! when nothing is known to be down.
//!
//! Owns the line, what HAProxy is told, and the parser. Refuses to know sockets, and what weight a director gives.
//! Fails with a [`LineError`]: a line with anything wrong is no data at all, since what was cut or mixed up cannot be
//! told from what was meant.

use std::fmt::Write as _;

use super::{FIELDS, Hundredths, QueueReport, Slot, Source, Trouble, VERSION, Version, digits};

/// Longest line that is read, its end included.
pub const MAX_LINE: usize = 1024;
/// Largest percentage and number of connections that are believed.
const MAX_WORD: u64 = 1_000_000;

/// So few messages in incoming and active are no queue: one that waits for a slow destination says nothing of the box.
const FEW: u64 = 20;
/// A queue that moves this fast, in seconds, leaves the weight alone.
const FULL_AT: u64 = 10;
/// One that takes this long has the smallest weight.
const FLOOR_AT: u64 = 120;
/// The smallest weight, in percent. Never 0: weight 0 is for what is down.
const FLOOR: u64 = 10;

/// What a line says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Whether the server may serve: `up`, or `down`, `fail`, `stopped`.
    pub health: Option<Health>,
    /// What the administrator wants: `ready`, `drain`, `maint`.
    pub admin: Option<Admin>,
    /// Percent of the initial weight.
    pub percent: Option<u64>,
    /// `maxconn:N`.
    pub max_connections: Option<u64>,
    /// Our figures; `None` where the agent is somebody else's.
    pub report: Option<QueueReport>,
}

/// The words of health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// `up`.
    Up,
    /// `down`.
    Down,
    /// `fail`.
    Fail,
    /// `stopped`.
    Stopped,
}

/// The words of administration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admin {
    /// `ready`.
    Ready,
    /// `drain`.
    Drain,
    /// `maint`.
    Maint,
}

/// Why a line is no data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// The end of the line is missing.
    #[error("the line has no end")]
    Cut,
    /// More than [`MAX_LINE`] bytes.
    #[error("the line is too long")]
    TooLong,
    /// Not the words of an agent.
    #[error("not a line of an agent")]
    Garbage,
    /// A number is negative, too large, or none.
    #[error("a number is absurd")]
    Absurd,
    /// The same figure twice.
    #[error("a figure is there twice")]
    Twice,
    /// Figures of a version that this reader does not know.
    #[error("figures of an unknown version")]
    Version,
}

/// The line of a report, its LF included; always less than [`MAX_LINE`].
#[must_use]
pub fn render(report: &QueueReport) -> String {
    let mut report = report.clone();
    let mut line = words(&report);
    let _ = write!(line, " # v{VERSION}");
    if let Some(source) = report.source {
        let _ = write!(line, " source={}", source.word());
    }
    if let Some(trouble) = report.trouble {
        let _ = write!(line, " trouble={}", trouble.word());
    }
    for field in &FIELDS {
        let key = field.key;
        // Writing to a String cannot fail.
        let _ = match (field.slot)(&mut report) {
            Slot::Count(Some(number)) => write!(line, " {key}={}", (*number).min(field.most)),
            Slot::Flag(Some(flag)) => write!(line, " {key}={}", u8::from(*flag)),
            Slot::Hundredths(Some(parts)) => write!(line, " {key}={}", Hundredths(parts.0.min(field.most))),
            Slot::Count(None) | Slot::Flag(None) | Slot::Hundredths(None) => Ok(()),
        };
    }
    if let Some(version) = &report.postfix {
        let _ = write!(line, " postfix={version}");
    }
    line.push('\n');
    line
}

/// What HAProxy is told: `down` where `master` or `qmgr` is known not to run, else `up` and the weight, if there is one.
pub(super) fn words(report: &QueueReport) -> String {
    if report.master == Some(false) || report.qmgr == Some(false) {
        return "down".to_owned();
    }
    percent(report).map_or("up".to_owned(), |percent| format!("up {percent}%"))
}

/// The weight that HAProxy is told, in percent: full up to 10 seconds of queue, falling evenly to a tenth at
/// 120 seconds. The queue in seconds is how long the longest waits, or how long what is there takes at the present rate,
/// whichever is less. `None` where the queue is not known.
#[must_use]
pub fn percent(report: &QueueReport) -> Option<u64> {
    let backlog = report.incoming?.saturating_add(report.active?);
    if backlog < FEW {
        return Some(100);
    }
    let waiting = report.waiting.or(report.oldest)?;
    let empty_in = report.rate.and_then(|rate| backlog.saturating_mul(100).checked_div(rate.0));
    let delay = waiting.min(empty_in.unwrap_or(u64::MAX)).clamp(FULL_AT, FLOOR_AT);
    Some(100 - (100 - FLOOR) * (delay - FULL_AT) / (FLOOR_AT - FULL_AT))
}

/// Reads one line, which is all that came until the end of the connection.
///
/// # Errors
/// [`LineError`] for anything that neither HAProxy nor [`render`] says.
pub fn parse(bytes: &[u8]) -> Result<Line, LineError> {
    if bytes.len() > MAX_LINE {
        return Err(LineError::TooLong);
    }
    let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
        return Err(LineError::Cut);
    };
    let (line, rest) = bytes.split_at_checked(end).ok_or(LineError::Cut)?;
    if !matches!(rest, b"\n" | b"\r" | b"\r\n") {
        return Err(LineError::Garbage); // an agent says one line
    }
    let printable = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~');
    let text = std::str::from_utf8(line).ok().filter(|text| text.as_bytes().iter().all(printable));
    let text = text.ok_or(LineError::Garbage)?;
    let (words, description) = match text.split_once('#') {
        Some((words, description)) => (words, description),
        None => (text, ""),
    };
    let mut line = Line::default();
    let mut any = false;
    for word in words.split([' ', '\t', ',']).filter(|word| !word.is_empty()) {
        take_word(&mut line, word)?;
        any = true;
    }
    line.report = figures(description)?;
    if any || line.report.is_some() { Ok(line) } else { Err(LineError::Garbage) }
}

/// The last word of a kind wins, as in HAProxy.
fn take_word(line: &mut Line, word: &str) -> Result<(), LineError> {
    let limited = |text: &str| digits(text).filter(|number| *number <= MAX_WORD).ok_or(LineError::Absurd);
    match word.to_ascii_lowercase().as_str() {
        "up" => line.health = Some(Health::Up),
        "down" => line.health = Some(Health::Down),
        "fail" => line.health = Some(Health::Fail),
        "stopped" => line.health = Some(Health::Stopped),
        "ready" => line.admin = Some(Admin::Ready),
        "drain" => line.admin = Some(Admin::Drain),
        "maint" => line.admin = Some(Admin::Maint),
        other => {
            if let Some(number) = other.strip_suffix('%') {
                line.percent = Some(limited(number)?);
            } else if let Some(number) = other.strip_prefix("maxconn:") {
                line.max_connections = Some(limited(number)?);
            } else {
                return Err(LineError::Garbage);
            }
        }
    }
    Ok(())
}

/// Figures begin with their version; any other description is for people.
fn figures(description: &str) -> Result<Option<QueueReport>, LineError> {
    let mut words = description.split([' ', '\t']).filter(|word| !word.is_empty());
    match words.next().and_then(|word| word.strip_prefix('v')).and_then(digits) {
        None => return Ok(None),
        Some(VERSION) => {}
        Some(_) => return Err(LineError::Version),
    }
    let mut report = QueueReport::default();
    let mut seen: Vec<&str> = Vec::with_capacity(FIELDS.len() + 3);
    for word in words {
        let (key, value) = word.split_once('=').ok_or(LineError::Garbage)?;
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
            return Err(LineError::Garbage);
        }
        if seen.contains(&key) {
            return Err(LineError::Twice);
        }
        seen.push(key);
        take_figure(&mut report, key, value)?;
    }
    Ok(Some(report))
}

/// A key that is not known is one of a later program: its value is not looked at.
fn take_figure(report: &mut QueueReport, key: &str, value: &str) -> Result<(), LineError> {
    match key {
        "source" => report.source = Some(Source::of(value).ok_or(LineError::Garbage)?),
        "trouble" => report.trouble = Some(Trouble::of(value).ok_or(LineError::Garbage)?),
        "postfix" => report.postfix = Some(Version::parse(value).ok_or(LineError::Garbage)?),
        _ => {
            let Some(field) = FIELDS.iter().find(|field| field.key == key) else { return Ok(()) };
            let believed = |number: Option<u64>| {
                number.filter(|number| *number <= field.most).ok_or(LineError::Absurd).map(Some)
            };
            match (field.slot)(report) {
                Slot::Count(slot) => *slot = believed(digits(value))?,
                Slot::Flag(slot) => *slot = believed(digits(value))?.map(|number| number == 1),
                Slot::Hundredths(slot) => {
                    *slot = believed(Hundredths::parse(value).map(|parts| parts.0))?.map(Hundredths);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
