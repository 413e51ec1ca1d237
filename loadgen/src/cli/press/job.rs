//! EDGE: from flags to a job.
//!
//! Owns what each value means, and what contradicts what. Reads the files that flags name. Fails with a text that names the
//! flag and the way out.
#![expect(clippy::disallowed_methods, reason = "EDGE: a run's id is made of the time")]

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Arguments, Default, list};
use crate::cli::one_of;
use crate::cli::target::{self, Reading};
use crate::http::{Compare, HttpPlan, Statuses, Version};
use crate::identify::Identify;
use crate::job::{Choose, Job, Pace, is_harmless_recipient};
use crate::mail::{Content, Law, MailPlan};
use crate::plan::{Arrivals, Profile, Share, Stop, rate, time};
use crate::smtp::opening::{Login, Mechanism};
use crate::smtp::{Chunking, End, Hello, Pipeline, Rset, Security, SmtpPlan};
use crate::tls::{self, Resume};
use crate::wire::{Ending, WirePlan};
use crate::words::Phase;

/// How long a run is that nobody bounds.
const DEFAULT_DURATION: Duration = Duration::from_secs(60);

const PHASES: [(&str, Phase); 9] = [
    ("connect", Phase::Connect),
    ("tls", Phase::Tls),
    ("banner", Phase::Banner),
    ("ehlo", Phase::Ehlo),
    ("starttls", Phase::Starttls),
    ("auth", Phase::Auth),
    ("mail", Phase::Mail),
    ("rcpt", Phase::Rcpt),
    ("data", Phase::Data),
];

/// The job, and its rate or profile in words.
pub(super) fn job(
    arguments: &Arguments,
    default: Default,
    identify: Identify,
) -> Result<(Job, Option<String>), String> {
    let scheme = if default == Default::Smtp { "smtp" } else { "http" };
    let version = if arguments.close_each { Version::Close } else { Version::Keep };
    let reading = Reading {
        scheme,
        agent: concat!("smtp-loadgen/", env!("CARGO_PKG_VERSION")),
        headers: &arguments.header,
        version,
        owned: &arguments.i_own,
        tls_name: arguments.tls_name.as_deref(),
    };
    let mut urls = arguments.targets.clone();
    if let Some(file) = &arguments.urls {
        urls.extend(list(file)?);
    }
    let mut targets = urls.iter().map(|url| reading.read(url)).collect::<Result<Vec<_>, _>>()?;
    if targets.is_empty() {
        return Err("there is no target".to_owned());
    }
    target::number(&mut targets);
    super::conflicts::look(arguments, &targets)?;
    let lmtp = urls.iter().any(|url| url.starts_with("lmtp:"));
    if lmtp && !urls.iter().all(|url| url.starts_with("lmtp:") || url.starts_with("http")) {
        return Err("lmtp:// and smtp:// do not mix in one run".to_owned());
    }
    let (pace, sessions, rate, length) = pace(arguments)?;
    let (index, of) = arguments.worker.split_once('/').unwrap_or_default();
    let share = match (index.parse::<u64>(), of.parse::<u64>()) {
        (Ok(index), Ok(of)) if (1..=of).contains(&index) && of <= 10_000 => Share { index: index - 1, of },
        _ => return Err(format!("--worker {}: it is I/N with I from 1 to N", arguments.worker)),
    };
    let mut stop = Stop {
        count: arguments.messages,
        time: arguments
            .duration
            .as_deref()
            .map(|text| named_time("--duration", text))
            .transpose()?
            .or(length),
    };
    if stop.time == Some(Duration::ZERO) {
        return Err("--duration 0s is no load".to_owned());
    }
    if stop == Stop::default() {
        stop.time = Some(DEFAULT_DURATION);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = arguments.threads.unwrap_or(cores).clamp(1, sessions.max(1)).min(256);
    let run_id = format!(
        "{:08x}",
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros()
            & 0xffff_ffff
    );
    // Without a word for it, HTTP keeps its connections and SMTP does what mail servers do with theirs.
    let per_connection = match (&arguments.messages_per_conn, default) {
        (Some(law), _) => Law::parse(law).map_err(|error| format!("--messages-per-conn: {error}"))?,
        (None, Default::Smtp) => Law::Fixed(1),
        (None, Default::Http) => Law::Fixed(0),
    };
    let compare = match (arguments.checksum, arguments.byte_count) {
        (true, _) => Compare::Checksum,
        (_, true) => Compare::Bytes,
        _ => Compare::Nothing,
    };
    let resume = if arguments.tls_resume { Resume::Always } else { Resume::Never };
    let job = Job {
        pace,
        stop,
        share,
        seed: arguments.seed,
        targets,
        choose: if arguments.random { Choose::Random } else { Choose::InTurn },
        threads,
        sessions,
        per_connection,
        smtp: smtp(arguments, lmtp)?,
        mail: mail(arguments, run_id)?,
        http: HttpPlan { version, compare, statuses: Statuses::Judge, throttle: None },
        wire: wire(arguments)?,
        tls: tls::client(arguments.tls_ca.as_deref(), resume)?,
        connect_timeout: named_time("--connect-timeout", &arguments.connect_timeout)?,
        timeout: named_time("--timeout", &arguments.timeout)?,
        idle: named_time("--idle", &arguments.idle)?,
        drain: named_time("--drain", &arguments.drain)?,
        tick: tick(&arguments.tick)?,
        identify,
        tell: None,
    };
    Ok((job, rate))
}

fn tick(text: &str) -> Result<Duration, String> {
    let tick = time(text)?;
    let range = Duration::from_micros(10)..=Duration::from_millis(5);
    if range.contains(&tick) { Ok(tick) } else { Err(format!("--tick {text}: it is 10us to 5ms")) }
}

type PaceOf = (Pace, usize, Option<String>, Option<Duration>);

fn pace(arguments: &Arguments) -> Result<PaceOf, String> {
    let arrivals = one_of(
        &arguments.arrivals,
        &[("uniform", Arrivals::Uniform), ("poisson", Arrivals::Poisson), ("jitter", Arrivals::Jitter)],
    )
    .map_err(|error| format!("--arrivals {}: {error}", arguments.arrivals))?;
    let profile = match (&arguments.rate, &arguments.profile) {
        (Some(text), _) => {
            let rate = rate(text).map_err(|error| format!("--rate: {error}"))?;
            if rate == 0.0 {
                return Err("--rate 0 is no load".to_owned());
            }
            Some((Profile::constant(rate), text.clone()))
        }
        (None, Some(text)) => {
            Some((Profile::parse(text).map_err(|error| format!("--profile: {error}"))?, text.clone()))
        }
        (None, None) => None,
    };
    let Some((profile, text)) = profile else {
        let sessions = arguments.sessions.ok_or("say --rate R or --sessions N: which load shall it be?")?;
        if sessions == 0 || sessions > 1_000_000 {
            return Err(format!("--sessions {sessions}: it is 1 to 1000000"));
        }
        let think = match arguments.think.split_once("..") {
            None => Law::Fixed(millis(&arguments.think)?),
            Some((low, high)) => {
                let (low, high) = (millis(low)?, millis(high)?);
                if low > high {
                    return Err(format!("--think {}: the first is the smaller", arguments.think));
                }
                Law::Uniform(low, high)
            }
        };
        return Ok((Pace::Closed { think }, sessions, None, None));
    };
    if arguments.max_sessions == 0 || arguments.max_sessions > 1_000_000 {
        return Err(format!("--max-sessions {}: it is 1 to 1000000", arguments.max_sessions));
    }
    let length = profile.length();
    Ok((Pace::Open { profile, arrivals }, arguments.max_sessions, Some(text), length))
}

fn named_time(flag: &str, text: &str) -> Result<Duration, String> {
    time(text).map_err(|error| format!("{flag}: {error}"))
}

fn millis(text: &str) -> Result<u64, String> {
    named_time("--think", text).map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn smtp(arguments: &Arguments, lmtp: bool) -> Result<SmtpPlan, String> {
    let named = |flag: &str, text: &str| {
        let (flag, text) = (flag.to_owned(), text.to_owned());
        move |error: String| format!("{flag} {text}: {error}")
    };
    let hello = match (&arguments.hello, lmtp) {
        (None, true) => Hello::Lhlo,
        (None, false) => Hello::Ehlo,
        (Some(text), _) => {
            one_of(text, &[("ehlo", Hello::Ehlo), ("helo", Hello::Helo), ("lhlo", Hello::Lhlo)])
                .map_err(named("--hello", text))?
        }
    };
    let security = one_of(
        &arguments.starttls,
        &[
            ("off", Security::Off),
            ("opportunistic", Security::Opportunistic),
            ("required", Security::Required),
        ],
    )
    .map_err(named("--starttls", &arguments.starttls))?;
    if hello == Hello::Helo && security == Security::Required {
        return Err("--hello helo has no STARTTLS, yet --starttls required asks for it".to_owned());
    }
    let pipeline = one_of(
        &arguments.pipeline,
        &[("off", Pipeline::Off), ("auto", Pipeline::Auto), ("force", Pipeline::Force)],
    )
    .map_err(named("--pipeline", &arguments.pipeline))?;
    let (how, chunk) = arguments.bdat.split_once(':').unwrap_or((&arguments.bdat, "0"));
    let chunking =
        one_of(how, &[("off", Chunking::Off), ("auto", Chunking::Auto), ("required", Chunking::Required)])
            .map_err(named("--bdat", &arguments.bdat))?;
    let Ok(Law::Fixed(chunk)) = Law::parse(chunk) else {
        return Err(format!("--bdat {}: the chunk is a number of bytes", arguments.bdat));
    };
    let end = match (&arguments.drop_after, &arguments.quit_after) {
        _ if arguments.connect_only => End::Drop(Phase::Connect),
        (Some(text), _) => one_of(text, &PHASES).map(End::Drop).map_err(named("--drop-after", text))?,
        (_, Some(text)) => one_of(text, &PHASES).map(End::Quit).map_err(named("--quit-after", text))?,
        (None, None) => End::Message,
    };
    if matches!(end, End::Quit(Phase::Connect | Phase::Data | Phase::Starttls)) {
        return Err("QUIT cannot be said after connect, starttls or data; say --drop-after".to_owned());
    }
    if end.phase() == Some(Phase::Data) && chunking != Chunking::Off {
        return Err("--bdat has no phase data to end after".to_owned());
    }
    if !arguments.name.bytes().all(|byte| byte.is_ascii_graphic()) || arguments.name.is_empty() {
        return Err(format!("--name \"{}\" cannot be said", arguments.name.escape_debug()));
    }
    Ok(SmtpPlan {
        hello,
        name: arguments.name.clone(),
        security,
        pipeline,
        chunking,
        chunk: usize::try_from(chunk).unwrap_or_default(),
        rset: if arguments.rset { Rset::Always } else { Rset::WhenNeeded },
        logins: logins(arguments)?,
        auth_in_clear: arguments.auth_without_tls,
        announce_size: !arguments.no_size,
        eight_bit: arguments.eight_bit,
        utf8: arguments.smtputf8,
        end,
    })
}

fn logins(arguments: &Arguments) -> Result<Vec<Login>, String> {
    use std::os::unix::fs::MetadataExt as _;
    let mechanism = arguments
        .auth
        .as_deref()
        .map(|text| {
            let words =
                [("plain", Mechanism::Plain), ("login", Mechanism::Login), ("xoauth2", Mechanism::Xoauth2)];
            one_of(text, &words).map_err(|error| format!("--auth {text}: {error}"))
        })
        .transpose()?;
    let Some(path) = &arguments.auth_file else {
        return if mechanism.is_some() { Err("--auth needs --auth-file".to_owned()) } else { Ok(Vec::new()) };
    };
    let mode = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?.mode();
    if mode & 0o007 != 0 {
        return Err(format!("{}: others have rights on it; chmod o= it", path.display()));
    }
    let lines = list(path)?;
    let logins: Option<Vec<Login>> = lines
        .iter()
        .map(|line| {
            let (user, password) = line.split_once(':')?;
            let good = !user.is_empty() && !password.is_empty();
            good.then(|| Login { mechanism, user: user.to_owned(), password: password.to_owned() })
        })
        .collect();
    let logins = logins.ok_or_else(|| format!("{}: a line is not user:password", path.display()))?;
    if logins.is_empty() { Err(format!("{}: is empty", path.display())) } else { Ok(logins) }
}

fn mail(arguments: &Arguments, run: String) -> Result<MailPlan, String> {
    let from = people(&arguments.from)?;
    let to = people(&arguments.to)?;
    if to.iter().any(String::is_empty) {
        return Err("a recipient cannot be empty".to_owned());
    }
    let owned = |address: &str| {
        address.rsplit_once('@').is_some_and(|(_, domain)| {
            arguments.i_own_domain.iter().any(|owned| owned.eq_ignore_ascii_case(domain))
        })
    };
    if let Some(stranger) = to.iter().find(|to| !is_harmless_recipient(to) && !owned(to)) {
        let domain = stranger.rsplit_once('@').map_or("", |(_, domain)| domain);
        return Err(format!(
            "<{stranger}> may be somebody's; if the domain is yours, say --i-own-domain {domain}"
        ));
    }
    let recipients = Law::parse(&arguments.recipients).map_err(|error| format!("--recipients: {error}"))?;
    if matches!(recipients, Law::Fixed(0) | Law::Uniform(0, _))
        || matches!(recipients, Law::Fixed(n) | Law::Uniform(_, n) if n > 100_000)
    {
        return Err("--recipients: at least 1, at most 100000".to_owned());
    }
    let size = Law::parse(&arguments.size).map_err(|error| format!("--size: {error}"))?;
    let content = match (&arguments.corpus, size) {
        (Some(source), _) => Content::Corpus(std::sync::Arc::new(crate::corpus::read(source)?)),
        (None, Law::Fixed(size)) if arguments.same_body => Content::Same(size),
        (None, _) if arguments.same_body => return Err("--same-body needs one --size".to_owned()),
        (None, size) => Content::Made(size),
    };
    Ok(MailPlan { from, to, recipients, content, run })
}

/// Addresses, with the content of files in their place.
fn people(given: &[String]) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    for word in given {
        match word.strip_prefix('@') {
            Some(file) => all.extend(list(Path::new(file))?),
            None => all.push(word.clone()),
        }
    }
    for address in &mut all {
        let bare = address.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
        if let Some(bare) = bare {
            *address = bare.to_owned();
        }
        if address.chars().any(|c| c.is_control() || c.is_whitespace() || matches!(c, '<' | '>'))
            || address.len() > 512
        {
            return Err(format!("\"{}\" is no address", address.escape_debug()));
        }
    }
    Ok(all)
}

fn wire(arguments: &Arguments) -> Result<WirePlan, String> {
    let addresses = |given: &Option<String>| match given.as_deref().map(|text| (text, text.strip_prefix('@')))
    {
        None => Ok(Vec::new()),
        Some((_, Some(file))) => target::addresses(&list(Path::new(file))?.join(",")),
        Some((text, None)) => target::addresses(text),
    };
    let proxy = arguments
        .proxy
        .as_deref()
        .map(|text| {
            use checks::proxy_header::Version;
            one_of(text, &[("v1", Version::V1), ("v2", Version::V2)])
                .map_err(|error| format!("--proxy {text}: {error}"))
        })
        .transpose()?;
    Ok(WirePlan {
        sources: addresses(&arguments.source)?,
        proxy,
        proxy_clients: addresses(&arguments.proxy_clients)?,
        ending: one_of(&arguments.close, &[("fin", Ending::Fin), ("rst", Ending::Rst)])
            .map_err(|error| format!("--close {}: {error}", arguments.close))?,
    })
}
