//! EDGE: `sink`: an SMTP server to press on.
//!
//! Owns its flags and what it prints. Refuses to know sessions. Fails with [`Exit`].
#![expect(clippy::disallowed_methods, reason = "EDGE: it may end after some time")]

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use super::{Exit, one_of};
use crate::sink::fault::Rule;
use crate::sink::serve::{Served, SinkReport};
use crate::sink::{Proxied, Remember, Secret, SinkConfig};
use crate::tls;

/// Bytes of a message in which its id is looked for.
const HEADER: usize = 16 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where to listen; port 0 is any, and is printed.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:2525")]
    listen: SocketAddr,
    /// The name in banner and EHLO.
    #[arg(long, value_name = "NAME", default_value = "sink.invalid")]
    hostname: String,
    /// Threads; without it one for each core.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Sessions at one time.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    max_sessions: usize,
    /// off, made (with a certificate made now), or CERT.pem,KEY.pem.
    #[arg(long, value_name = "HOW", default_value = "off")]
    starttls: String,
    /// A PROXY header (v1 or v2) comes before the client's first byte; a session without one is ended.
    #[arg(long)]
    proxy: bool,
    /// Speak LMTP.
    #[arg(long)]
    lmtp: bool,
    /// Do not offer this: pipelining, chunking, auth, smtputf8.
    #[arg(long, value_name = "WHAT")]
    without: Vec<String>,
    /// Largest message, in bytes.
    #[arg(long, value_name = "N", default_value_t = crate::sink::session::MAX_MESSAGE)]
    max_message: usize,
    /// Make answers ill: STAGE:ACT[:PERCENT%], such as rcpt:reject=550 5.1.1 No such user:10%, data:delay=50ms,
    /// body:drop:1%, banner:421, mail:half, ehlo:dribble=10ms.
    #[arg(long, value_name = "RULE")]
    fault: Vec<String>,
    /// End after so many messages.
    #[arg(long, value_name = "N")]
    messages: Option<u64>,
    /// End after this time.
    #[arg(long, value_name = "TIME")]
    duration: Option<String>,
    /// What was counted, as JSON, in the end; - is standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn sink(arguments: &Arguments) -> Result<(), Exit> {
    let config = config(arguments).map_err(Exit::usage)?;
    let limit = arguments.duration.as_deref().map(crate::plan::time).transpose();
    let limit = limit.map_err(|error| Exit::usage(format!("--duration: {error}")))?;
    super::limit::raise(arguments.max_sessions + 64);
    let threads =
        arguments.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let served = Served::start(arguments.listen, config, threads.clamp(1, 256))
        .map_err(|error| Exit::system(format!("cannot listen on {}: {error}", arguments.listen)))?;
    // Scripts wait for this line.
    let mut out = std::io::stdout();
    let _ = writeln!(out, "listening on {}", served.address).and_then(|()| out.flush());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Exit::system)?;
    let end = limit.map(|limit| Instant::now() + limit);
    runtime.block_on(async {
        let (mut interrupt, mut terminate) = (
            signal(SignalKind::interrupt()).map_err(Exit::system)?,
            signal(SignalKind::terminate()).map_err(Exit::system)?,
        );
        loop {
            tokio::select! {
                _ = interrupt.recv() => return Ok(()),
                _ = terminate.recv() => return Ok(()),
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
            let full = arguments.messages.is_some_and(|messages| served.messages() >= messages);
            if full || end.is_some_and(|end| Instant::now() >= end) {
                return Ok::<_, Exit>(());
            }
        }
    })?;
    let report = served.report();
    super::output::print(&render(&report)).map_err(Exit::system)?;
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&report).unwrap_or_default() + "\n";
        super::output::write_all(path, text.as_bytes()).map_err(Exit::system)?;
    }
    Ok(())
}

fn config(arguments: &Arguments) -> Result<SinkConfig, String> {
    let mut config = SinkConfig::new(arguments.hostname.clone());
    if !arguments.hostname.bytes().all(|byte| byte.is_ascii_graphic()) || arguments.hostname.is_empty() {
        return Err(format!("--hostname \"{}\" cannot be said", arguments.hostname.escape_debug()));
    }
    config.max_sessions = arguments.max_sessions.max(1);
    config.remember = Remember::Runs;
    config.proxied = if arguments.proxy { Proxied::Required } else { Proxied::No };
    config.rules = arguments.fault.iter().map(|text| Rule::parse(text)).collect::<Result<_, _>>()?;
    config.tls = match arguments.starttls.as_str() {
        "off" => None,
        "made" => Some(Secret(tls::made_server(&arguments.hostname)?)),
        files => {
            let (certificate, key) =
                files.split_once(',').ok_or("--starttls: it is off, made or CERT.pem,KEY.pem")?;
            Some(Secret(tls::server_of(certificate.as_ref(), key.as_ref())?))
        }
    };
    let abilities = &mut config.abilities;
    abilities.lmtp = arguments.lmtp;
    abilities.starttls = config.tls.is_some();
    (abilities.auth, abilities.chunking, abilities.utf8) = (true, true, true);
    abilities.max_message = arguments.max_message;
    abilities.keep = HEADER;
    for what in &arguments.without {
        let words = [("pipelining", 0), ("chunking", 1), ("auth", 2), ("smtputf8", 3)];
        match one_of(what, &words).map_err(|error| format!("--without {what}: {error}"))? {
            0 => abilities.pipelining = false,
            1 => abilities.chunking = false,
            2 => abilities.auth = false,
            _ => abilities.utf8 = false,
        }
    }
    Ok(config)
}

fn render(report: &SinkReport) -> String {
    let mut text = format!(
        "{} sessions ({} with TLS), {} messages, {} recipients, {} bytes, {} faults\n",
        report.sessions, report.secured, report.messages, report.recipients, report.bytes, report.faults
    );
    if report.proxied + report.unproxied > 0 {
        text.push_str(&format!(
            "{} sessions with a PROXY header, of {} clients; {} without\n",
            report.proxied, report.clients, report.unproxied
        ));
    }
    for run in &report.runs {
        text.push_str(&format!("run {}: {} arrived, {} doubled", run.run, run.arrived, run.doubled));
        if let Some(delay) = &run.delay {
            text.push_str(&format!(
                "; delay p50 {:.3} ms, p99 {:.3} ms, max {:.3} ms",
                delay.p50, delay.p99, delay.max
            ));
        }
        text.push('\n');
    }
    text
}
