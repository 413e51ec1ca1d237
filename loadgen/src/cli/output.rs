//! EDGE: where a run's figures go.
//!
//! Owns the flags for it, the files, and the line of progress. Refuses to know what the figures mean. A file is opened
//! before the run, so that a wrong name costs nothing; a disk that fills up is told in the end.

use std::fs::File;
use std::io::{BufWriter, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Exit, one_of};
use crate::report::live::Shown;
use crate::report::verdict::Threshold;
use crate::report::{Report, csv, hlog};
use crate::run::{Arrived, Second, Watch};

#[derive(Clone, Copy)]
enum How {
    Auto,
    Live,
    Plain,
    None,
}

#[derive(Debug, clap::Args)]
#[group(id = "output")]
pub(super) struct Arguments {
    /// The report as JSON (schema smtp-loadgen/1); - is standard output.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    json: Option<PathBuf>,
    /// The report as a page that needs nothing else.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    html: Option<PathBuf>,
    /// A line each second.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    csv: Option<PathBuf>,
    /// An HdrHistogram log, for `merge` and other tools.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    hdr_log: Option<PathBuf>,
    /// Metrics for Prometheus at http://HOST:PORT/metrics while it runs.
    #[arg(long, value_name = "HOST:PORT", help_heading = "Output")]
    prometheus: Option<std::net::SocketAddr>,
    /// auto (live on a terminal), live (a picture that is drawn over), plain (a line each second) or none.
    #[arg(long, value_name = "HOW", default_value = "auto", help_heading = "Output")]
    progress: String,
    /// Receive traced messages here, from behind the servers: lost, doubled, delay from end to end.
    #[arg(long, value_name = "HOST:PORT", help_heading = "Output")]
    trace_listen: Option<std::net::SocketAddr>,
    /// How long to wait in the end for traced messages.
    #[arg(long, value_name = "TIME", default_value = "30s", help_heading = "Output")]
    trace_wait: String,
    /// Exit 99 if this holds: p99>250ms, errors>0.1%, rate<99%, unsent>0, skew>10%, gap>3s, lost>0.
    #[arg(long, value_name = "CONDITION", help_heading = "Output")]
    fail_if: Vec<String>,
}

impl Arguments {
    pub(super) fn thresholds(&self) -> Result<Vec<Threshold>, String> {
        self.fail_if.iter().map(|text| Threshold::parse(text)).collect()
    }

    /// All who watch.
    pub(super) fn watchers(&self, run: &str, shown: Shown) -> Result<Vec<Box<dyn Watch>>, Exit> {
        let progress = one_of(
            &self.progress,
            &[("auto", How::Auto), ("live", How::Live), ("plain", How::Plain), ("none", How::None)],
        );
        let progress = progress.map_err(|e| Exit::usage(format!("--progress {}: {e}", self.progress)))?;
        let mut watchers = self.files(run).map_err(Exit::system)?;
        // Where nothing can be drawn over, lines come one below the other.
        let drawn =
            std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        match progress {
            How::None => {}
            How::Auto if !drawn => watchers.push(Box::new(Plain { every: 10 })),
            How::Auto | How::Live => watchers.push(Box::new(super::live::Picture::new(shown))),
            How::Plain => watchers.push(Box::new(Plain { every: 1 })),
        }
        Ok(watchers)
    }

    /// Whether messages are traced.
    pub(super) fn traces(&self) -> bool {
        self.trace_listen.is_some()
    }

    fn files(&self, run: &str) -> Result<Vec<Box<dyn Watch>>, String> {
        let mut watchers: Vec<Box<dyn Watch>> = Vec::new();
        if let Some(path) = &self.csv {
            watchers.push(Box::new(Csv { file: Output::create(path)?, names: 0 }));
        }
        if let Some(path) = &self.hdr_log {
            watchers.push(Box::new(Log { file: Output::create(path)?, run: run.to_owned(), begun: false }));
        }
        for path in [&self.json, &self.html].into_iter().flatten() {
            // Its content comes in the end; that it can be written is known now.
            if path.as_os_str() != "-" {
                File::options()
                    .append(true)
                    .create(true)
                    .open(path)
                    .map_err(|error| format!("{}: {error}", path.display()))?;
            }
        }
        if let Some(address) = self.prometheus {
            watchers.push(Box::new(super::exporter::Exporter::start(address, run)?));
        }
        Ok(watchers)
    }

    /// Where traced messages arrive.
    pub(super) fn trace(&self) -> Result<Option<Box<dyn Arrived>>, String> {
        let Some(listen) = self.trace_listen else { return Ok(None) };
        let wait = crate::plan::time(&self.trace_wait)?;
        Ok(Some(Box::new(crate::sink::serve::Receiver::start(listen, wait)?)))
    }

    /// Stores a report; says what could not be.
    pub(super) fn store(&self, report: &Report) -> Vec<String> {
        let mut complaints = Vec::new();
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(report).unwrap_or_default() + "\n";
            complaints.extend(write_all(path, text.as_bytes()).err());
        }
        if let Some(path) = &self.html {
            complaints.extend(write_all(path, crate::report::html::render(report).as_bytes()).err());
        }
        complaints
    }
}

/// Prints to standard output. Whoever has stopped reading misses it, and that is no trouble: the exit code tells the end.
pub(super) fn print(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(format!("standard output: {error}"))
        }
        _ => Ok(()),
    }
}

/// Replaces a file, or writes to standard output.
pub(super) fn write_all(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let result = if path.as_os_str() == "-" {
        std::io::stdout().write_all(bytes)
    } else {
        File::create(path).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
    };
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| format!("{}: {error}", path.display())),
    }
}

struct Output {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Output {
    fn create(path: &Path) -> Result<Self, String> {
        let file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file) })
    }

    fn put(&mut self, text: &str) -> Result<(), String> {
        let put = self.file.write_all(text.as_bytes()).and_then(|()| self.file.flush());
        put.map_err(|error| format!("{}: {error}", self.path.display()))
    }
}

struct Csv {
    file: Output,
    names: usize,
}

impl Watch for Csv {
    fn second(&mut self, second: &Second) -> Result<(), String> {
        if second.point.second == 0 {
            self.file.put(&format!("{}\n", csv::HEADER))?;
        }
        if second.names.len() != self.names {
            self.names = second.names.len();
            self.file.put(&csv::servers(&second.names))?;
        }
        self.file.put(&csv::line(&second.point, &second.names))
    }
}

struct Log {
    file: Output,
    run: String,
    begun: bool,
}

impl Watch for Log {
    #[expect(clippy::disallowed_methods, reason = "a log says when it was")]
    #[expect(clippy::cast_precision_loss, reason = "seconds of a run")]
    fn second(&mut self, second: &Second) -> Result<(), String> {
        if !self.begun {
            let now =
                SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            self.file.put(&hlog::head(&self.run, now - 1.0))?;
            self.begun = true;
        }
        if second.slice.latency.0.is_empty() {
            return Ok(());
        }
        self.file.put(&hlog::line("headline", (second.point.second as f64, 1.0), &second.slice.latency))
    }

    fn done(&mut self, report: &Report) -> Result<(), String> {
        self.file.put(&hlog::tail(report))
    }
}

fn progress(second: &Second) -> String {
    let (now, total) = (&second.point, &second.total);
    format!(
        "{:>5} s  {:>8} ok/s {:>6} failed/s  p50 {:>8.2} ms  p99 {:>8.2} ms  {:>6} open  {:>10} ok {:>7} failed",
        now.second + 1,
        now.ok,
        now.failed,
        now.p50,
        now.p99,
        now.open,
        total.ok,
        total.failed
    )
}

/// A line now and then.
struct Plain {
    every: u64,
}

impl Watch for Plain {
    fn second(&mut self, second: &Second) -> Result<(), String> {
        if (second.point.second + 1).is_multiple_of(self.every) {
            let _ = writeln!(std::io::stderr(), "{}", progress(second));
        }
        Ok(())
    }
}
