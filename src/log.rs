//! EDGE: where the lines of the log go, and what they look like.
//!
//! Owns the subscriber, its formats and its writers. Refuses to know what is logged. Never fails: a line that cannot be
//! written is lost, the daemon is not.
//!
//! A file is opened anew for each line, as ldirectord does: whoever rotates it needs to tell nobody. Neither a pipe
//! without a reader nor a syslog that does not read can hold up the daemon.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::config::{Config, Facility, LogFormat, LogLevel, LogTarget};

/// Where syslog listens.
const SYSLOG: &str = "/dev/log";
/// How long it is waited for, and whether it did not read in that time.
const PATIENCE: Duration = Duration::from_millis(100);
static STUCK: AtomicBool = AtomicBool::new(false);
/// As ldirectord calls itself there.
const IDENT: &str = "ldirectord";
/// As `localtime` of Perl and `ctime` of C say it.
const TIME: &str = "%a %b %e %H:%M:%S %Y";

/// What is logged, how, and where to.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How much.
    pub level: LogLevel,
    /// How.
    pub format: LogFormat,
    /// Where to.
    pub target: LogTarget,
}

impl Plan {
    /// What the configuration says.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self { level: config.log, format: config.log_format, target: config.log_to.clone() }
    }
}

/// Sends all that is logged from now on to where the plan says. `instance` is what the lines of ldirectord call the
/// daemon.
pub fn start(plan: &Plan, instance: &str) {
    let level = match plan.level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    };
    let lines = Lines { target: Arc::new(plan.target.clone()), ident: IDENT };
    // With internal errors on, the subscriber would panic for want of a place to report them.
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_ansi(false)
        .log_internal_errors(false);
    match (plan.format, &plan.target) {
        (LogFormat::Json, _) => log.with_writer(lines).json().init(),
        // Syslog has a date and a level of its own.
        (LogFormat::Text, LogTarget::Syslog(_)) => {
            log.with_writer(lines).without_time().with_level(false).init();
        }
        (LogFormat::Text, _) => log.with_writer(lines).init(),
        (LogFormat::Ldirectord, target) => {
            let head = Head::of(target, instance);
            log.with_writer(lines).event_format(head).init();
        }
    }
}

/// The time as ldirectord writes it.
#[must_use]
pub fn now() -> String {
    chrono::Local::now().format(TIME).to_string()
}

/// The name by which ldirectord would call the daemon of a configuration file.
#[must_use]
pub fn instance(file: &Path) -> String {
    file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// What a line of ldirectord begins with.
#[derive(Debug)]
enum Head {
    /// Nothing.
    None,
    /// `[Tue Nov 24 16:33:54 2026] `.
    Time,
    /// `[Tue Nov 24 16:33:54 2026|mail.cf|4711] `.
    TimeAndName(String),
}

impl Head {
    fn of(target: &LogTarget, instance: &str) -> Self {
        match target {
            LogTarget::Syslog(_) => Self::None,
            LogTarget::Stdout => Self::Time,
            LogTarget::Stderr | LogTarget::File(_) => Self::TimeAndName(instance.to_owned()),
        }
    }
}

impl<S, N> FormatEvent<S, N> for Head
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let time = chrono::Local::now().format(TIME);
        match self {
            Self::None => {}
            Self::Time => write!(writer, "[{time}] ")?,
            Self::TimeAndName(name) => write!(writer, "[{time}|{name}|{}] ", std::process::id())?,
        }
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// A writer for each line.
struct Lines {
    target: Arc<LogTarget>,
    ident: &'static str,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { target: Arc::clone(&self.target), ident: self.ident, severity: severity(Level::INFO) }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line {
        Line { severity: severity(*metadata.level()), ..self.make_writer() }
    }
}

/// RFC 5424 section 6.2.1.
fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

/// Where one line goes.
struct Line {
    target: Arc<LogTarget>,
    ident: &'static str,
    severity: u8,
}

impl io::Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &*self.target {
            LogTarget::Stderr => io::stderr().write(line),
            LogTarget::Stdout => io::stdout().lock().write_all(line).map(|()| line.len()),
            LogTarget::File(path) => append(path, line).map(|()| line.len()),
            LogTarget::Syslog(facility) => {
                tell_syslog(*facility, self.severity, (self.ident, line)).map(|()| line.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &*self.target {
            LogTarget::Stdout => io::stdout().flush(),
            _ => Ok(()),
        }
    }
}

/// Appends to a file, which is made where there is none.
///
/// # Errors
/// Of the system; a pipe without a reader is one.
pub fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = File::options();
    options.append(true).create(true).mode(0o640).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options.open(path)?.write_all(bytes)
}

/// One datagram for each line of `text` (RFC 3164, as `syslog` of the C library says it).
fn tell_syslog(facility: Facility, severity: u8, (ident, text): (&str, &[u8])) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    // It has room for ten lines only, and is waited for; but not again and again when it does not read.
    if STUCK.load(Ordering::Relaxed) {
        socket.set_nonblocking(true)?;
    } else {
        socket.set_write_timeout(Some(PATIENCE))?;
    }
    let told = send_to_syslog(&socket, facility, severity, (ident, text));
    STUCK.store(told.is_err(), Ordering::Relaxed);
    told
}

fn send_to_syslog(
    socket: &UnixDatagram,
    facility: Facility,
    severity: u8,
    (ident, text): (&str, &[u8]),
) -> io::Result<()> {
    socket.connect(SYSLOG)?;
    let time = chrono::Local::now().format("%b %e %H:%M:%S");
    let priority = u16::from(facility.code) * 8 + u16::from(severity);
    let head = format!("<{priority}>{time} {ident}[{}]: ", std::process::id());
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        socket.send(&[head.as_bytes(), line].concat())?;
    }
    Ok(())
}
