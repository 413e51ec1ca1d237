//! EDGE: `probe`: one check of one server, step by step.

mod steps;

use std::io::Write;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use checks::calendar::rfc3339;
use checks::{CheckSpec, Kind, Outcome, Reason};
use serde_json::json;

use self::steps::Steps;
use super::{Exit, Threads, read, runtime};
use crate::config::Tier;
use crate::config::load::DEFAULT_PATH;
use crate::config::native::parse_duration;
use crate::health;
use crate::verdict::{Verdict, Verdicts};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The server: HOST, HOST:PORT, ADDRESS or [ADDRESS]:PORT; port 25 where none is given.
    #[arg(value_name = "TARGET", required_unless_present = "virtual_name")]
    target: Option<String>,
    /// Everything together, and each step if need be, may take this time; 15s and the daemon's default for each step
    /// where none is given.
    #[arg(long, value_name = "TIME", value_parser = time)]
    deadline: Option<Duration>,
    /// Print one JSON object a server instead of the conversation.
    #[arg(long)]
    json: bool,
    /// The configuration file, for --virtual.
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_PATH, requires = "virtual_name")]
    config: PathBuf,
    /// Run the checks of this virtual as the daemon would: all, or that of TARGET.
    #[arg(long = "virtual", value_name = "NAME", conflicts_with = "deadline")]
    virtual_name: Option<String>,
    #[command(flatten)]
    steps: Steps,
}

pub(super) fn probe(arguments: &Arguments) -> Result<(), Exit> {
    let target = arguments.target.as_deref().map(resolve).transpose()?;
    let asked = match (&arguments.virtual_name, target) {
        (Some(name), target) => configured(arguments, name, target)?,
        (None, Some(target)) => vec![Asked {
            spec: CheckSpec {
                target,
                kind: Kind::Smtp(arguments.steps.spec(arguments.deadline)?),
                deadline: arguments.deadline.unwrap_or(Duration::from_secs(15)),
                connect_timeout: arguments.deadline.unwrap_or(Duration::from_secs(3)),
                via: None,
            },
            verdicts: Arc::default(),
            tier: None,
        }],
        (None, None) => Vec::new(),
    };
    let runtime = runtime(Threads::One)?;
    let mut out = std::io::stdout().lock();
    let mut worst = Verdict::Up;
    for asked in asked {
        let outcome = runtime.block_on(checks::run(&asked.spec));
        // Who cannot ask does not know that the server is up.
        let verdict = asked.verdicts.of(&outcome).map_or(Verdict::Down, |cell| cell.verdict);
        match arguments.json {
            true => writeln!(out, "{}", as_json(&asked, verdict, &outcome))?,
            false => write_conversation(&mut out, &asked, verdict, &outcome)?,
        }
        worst = worst.max(verdict);
    }
    match worst {
        Verdict::Up => Ok(()),
        Verdict::Degraded(_) => Err(Exit::new(Exit::DEGRADED, "")),
        Verdict::Down => Err(Exit::new(Exit::DOWN, "")),
    }
}

/// One check, and by what it is judged.
struct Asked {
    spec: CheckSpec,
    verdicts: Arc<Verdicts>,
    /// Which of the checks of a configured server it is.
    tier: Option<Tier>,
}

/// The checks of a virtual, each once, in the order of the file.
fn configured(arguments: &Arguments, name: &str, target: Option<SocketAddr>) -> Result<Vec<Asked>, Exit> {
    let config = read(&arguments.config)?;
    let Some(found) = config.virtuals.iter().find(|found| found.name == name) else {
        let names: Vec<_> = config.virtuals.iter().map(|found| found.name.as_str()).collect();
        let text = format!("there is no virtual \"{name}\"; there are {}", names.join(", "));
        return Err(Exit::new(Exit::USAGE, text));
    };
    let reals = found.reals.iter().flat_map(|real| real.checks.iter().map(move |plan| (real.id.0, plan)));
    // The way through the VIP is the daemon's: without it a connection with its mark goes to any server.
    let wanted = reals
        .filter(|(_, plan)| plan.tier != Tier::Vip)
        .filter(|(real, plan)| target.is_none_or(|target| target == *real || target == plan.spec.target));
    let asked: Vec<_> = wanted
        // A canary comes back to a running daemon.
        .filter(|(_, plan)| plan.tier != Tier::Canary)
        .map(|(_, plan)| Asked {
            spec: plan.spec.clone(),
            verdicts: Arc::clone(&plan.verdicts),
            tier: Some(plan.tier),
        })
        .collect();
    if asked.is_empty() {
        let whom = target.map_or("no server".to_owned(), |target| format!("no {target}"));
        return Err(Exit::new(Exit::USAGE, format!("there is {whom} to check in \"{name}\"")));
    }
    Ok(asked)
}

fn resolve(text: &str) -> Result<SocketAddr, Exit> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, 25));
    }
    let with_port = if text.contains(':') { text.to_owned() } else { format!("{text}:25") };
    let usage = "write HOST, HOST:PORT or [ADDRESS]:PORT";
    if with_port.split_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err()) {
        return Err(Exit::new(Exit::USAGE, format!("\"{text}\" is no server; {usage}")));
    }
    match with_port.to_socket_addrs().map(|mut found| found.next()) {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err(Exit::new(Exit::NO_HOST, format!("\"{text}\" has no address"))),
        Err(error) => {
            Err(Exit::new(Exit::NO_HOST, format!("cannot find the address of \"{text}\": {error}")))
        }
    }
}

fn time(text: &str) -> Result<Duration, String> {
    parse_duration(text).filter(|time| !time.is_zero()).ok_or_else(|| "a time such as 5s or 500ms".to_owned())
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn write_conversation(
    out: &mut impl Write,
    asked: &Asked,
    verdict: Verdict,
    outcome: &Outcome,
) -> std::io::Result<()> {
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
    let target = asked.spec.target;
    let took = milliseconds(outcome.took);
    let tier = asked.tier.map(|tier| format!(" ({} check)", tier.name())).unwrap_or_default();
    match &outcome.verdict {
        Ok(()) => writeln!(out, "{target} is up, in {took:.1} ms{tier}"),
        Err(failure) if failure.reason == Reason::Local => {
            writeln!(out, "{target} cannot be asked, after {took:.1} ms{tier}: {failure}")
        }
        Err(failure) => writeln!(out, "{target} is {verdict}, after {took:.1} ms{tier}: {failure}"),
    }
}

fn as_json(asked: &Asked, verdict: Verdict, outcome: &Outcome) -> serde_json::Value {
    let failure = outcome.verdict.as_ref().err();
    let stages: Vec<_> = outcome
        .stages
        .iter()
        .map(|report| {
            json!({"stage": report.stage.name(), "took_ms": milliseconds(report.took), "code": report.code})
        })
        .collect();
    let mut shown = json!({
        "target": asked.spec.target.to_string(),
        "verdict": health::State::from(verdict).name(),
        "reason": failure.map(|failure| failure.reason.name()),
        "stage": failure.map(|failure| failure.stage.name()),
        "code": failure.and_then(|failure| failure.code),
        "enhanced": failure.and_then(checks::Failure::enhanced).map(|[a, b, c]| format!("{a}.{b}.{c}")),
        "text": failure.map(|failure| failure.text.as_str()),
        "took_ms": milliseconds(outcome.took),
        "stages": stages,
        "tls": outcome.tls.as_ref().map(|tls| json!({
            "version": tls.version,
            "cipher": tls.cipher,
            "not_after": tls.not_after.map(rfc3339),
            "days_left": tls.days_left,
            "verified": tls.verified,
        })),
        "capabilities": outcome.capabilities,
    });
    if let (Some(tier), Some(fields)) = (asked.tier, shown.as_object_mut()) {
        fields.insert("tier".to_owned(), json!(tier.name()));
    }
    shown
}
