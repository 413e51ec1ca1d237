//! EDGE: `probe`: one check of one server, step by step.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use checks::smtp::SmtpSpec;
use checks::{CheckSpec, Kind, Outcome};
use serde_json::json;

use super::{Exit, Threads, runtime};
use crate::config::load::host_name;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The server: HOST, HOST:PORT, ADDRESS or [ADDRESS]:PORT; port 25 where none is given.
    #[arg(value_name = "HOST")]
    target: String,
    /// The name to give in EHLO; this machine's name where none is given.
    #[arg(long, value_name = "NAME")]
    ehlo_name: Option<String>,
    /// Everything together ends within this time.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = humantime::parse_duration)]
    deadline: Duration,
    /// Print one JSON object instead of the conversation.
    #[arg(long)]
    json: bool,
}

pub(super) fn probe(arguments: &Arguments) -> Result<(), Exit> {
    let target = resolve(&arguments.target)?;
    let spec = CheckSpec {
        target,
        kind: Kind::Smtp(SmtpSpec {
            ehlo_name: arguments.ehlo_name.clone().unwrap_or_else(host_name),
            banner_timeout: arguments.deadline,
            ehlo_timeout: arguments.deadline,
            quit_timeout: arguments.deadline,
            ..SmtpSpec::default()
        }),
        deadline: arguments.deadline,
        connect_timeout: arguments.deadline,
    };
    let outcome = runtime(Threads::One)?.block_on(checks::run(&spec));
    let mut out = std::io::stdout().lock();
    match arguments.json {
        true => writeln!(out, "{}", as_json(target, &outcome))?,
        false => write_conversation(&mut out, target, &outcome)?,
    }
    match outcome.verdict {
        Ok(()) => Ok(()),
        Err(_) => Err(Exit::new(Exit::DOWN, "")),
    }
}

fn resolve(text: &str) -> Result<SocketAddr, Exit> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, 25));
    }
    let with_port = if text.contains(':') { text.to_owned() } else { format!("{text}:25") };
    let found = with_port.to_socket_addrs().map(|mut found| found.next());
    match found {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err(Exit::new(Exit::USAGE, format!("\"{text}\" has no address"))),
        Err(error) => Err(Exit::new(
            Exit::USAGE,
            format!("\"{text}\" is no server: {error}; write HOST, HOST:PORT or [ADDRESS]:PORT"),
        )),
    }
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn write_conversation(out: &mut impl Write, target: SocketAddr, outcome: &Outcome) -> std::io::Result<()> {
    for report in &outcome.stages {
        let took = milliseconds(report.took);
        if !report.sent.is_empty() {
            writeln!(out, "{:>10}    > {}", "", report.sent)?;
        }
        if report.received.is_empty() {
            writeln!(out, "{took:>7.1} ms  {}", report.stage)?;
        }
        for (n, line) in report.received.iter().enumerate() {
            match n {
                0 => writeln!(out, "{took:>7.1} ms  < {line}")?,
                _ => writeln!(out, "{:>10}  < {line}", "")?,
            }
        }
    }
    let took = milliseconds(outcome.took);
    match &outcome.verdict {
        Ok(()) => writeln!(out, "{target} is up, in {took:.1} ms"),
        Err(failure) => writeln!(out, "{target} is down, after {took:.1} ms: {failure}"),
    }
}

fn as_json(target: SocketAddr, outcome: &Outcome) -> serde_json::Value {
    let failure = outcome.verdict.as_ref().err();
    let stages: Vec<_> = outcome
        .stages
        .iter()
        .map(|report| {
            json!({"stage": report.stage.name(), "took_ms": milliseconds(report.took), "code": report.code})
        })
        .collect();
    json!({
        "target": target.to_string(),
        "verdict": if failure.is_none() { "up" } else { "down" },
        "reason": failure.map(|failure| failure.reason.name()),
        "stage": failure.map(|failure| failure.stage.name()),
        "code": failure.and_then(|failure| failure.code),
        "text": failure.map(|failure| failure.text.as_str()),
        "took_ms": milliseconds(outcome.took),
        "stages": stages,
        "capabilities": outcome.capabilities,
    })
}
