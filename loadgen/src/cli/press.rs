//! EDGE: `smtp` and `http`: from arguments to a job, and from its report to an exit code.
//!
//! Owns the flags. Refuses to know how the work is done. Fails with [`Exit`]; what contradicts itself is named before
//! anything is started.
#![expect(clippy::disallowed_methods, reason = "EDGE: a run's id is made of the time")]

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::target::{self, Reading};
use super::{Exit, one_of};
use crate::http::{Compare, HttpPlan, Statuses, Version};
use crate::identify::Identify;
use crate::job::{Choose, Job, Pace, is_harmless_recipient};
use crate::mail::{Content, Law, MailPlan};
use crate::plan::{Arrivals, Profile, Share, Stop, rate, time};
use crate::report::Report;
use crate::report::text;
use crate::run::{Setting, Watch, run};
use crate::smtp::opening::{Login, Mechanism};
use crate::smtp::{Chunking, End, Hello, Pipeline, Rset, Security, SmtpPlan};
use crate::tls::{self, Resume};
use crate::wire::{Ending, WirePlan};
use crate::words::Phase;

/// Most bytes of a list: URLs, addresses, users.
const MAX_LIST: u64 = 64 * 1024 * 1024;
/// How long a run is that nobody bounds.
const DEFAULT_DURATION: Duration = Duration::from_secs(60);

/// What a URL without a scheme is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Default {
    Smtp,
    Http,
}

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where to: smtp://HOST:PORT, smtps://, lmtp://, http://HOST:PORT/PATH, https://.
    #[arg(value_name = "URL", required_unless_present = "urls")]
    targets: Vec<String>,
    /// More of them, a line each.
    #[arg(long, value_name = "FILE")]
    urls: Option<PathBuf>,
    /// Choose among several at random, not in turn.
    #[arg(long)]
    random: bool,

    /// Open load: start so many a second whatever comes of them, such as 300/s or 18000/m.
    #[arg(long, value_name = "R", help_heading = "Load", conflicts_with_all = ["sessions", "profile"])]
    rate: Option<String>,
    /// Open load that changes: const:R/s,TIME ramp:A..B/s,TIME step:A..B/s,N,TIME spike:BASE/s,PEAK/s,FOR,TIME, joined by ;
    #[arg(long, value_name = "P", help_heading = "Load", conflicts_with = "sessions")]
    profile: Option<String>,
    /// Closed load: so many sessions, each starts when it is done with what it did.
    #[arg(long, value_name = "N", help_heading = "Load")]
    sessions: Option<usize>,
    /// How open arrivals lie: uniform, poisson or jitter.
    #[arg(long, value_name = "LAW", default_value = "uniform", help_heading = "Load")]
    arrivals: String,
    /// Sessions of an open load at one time.
    #[arg(long, value_name = "N", default_value_t = 1000, help_heading = "Load")]
    max_sessions: usize,
    /// End after so many messages or requests.
    #[arg(long, value_name = "N", alias = "requests", help_heading = "Load")]
    messages: Option<u64>,
    /// End after this time. Without any end: 60s.
    #[arg(long, value_name = "TIME", help_heading = "Load")]
    duration: Option<String>,
    /// How long to wait in the end for what is under way.
    #[arg(long, value_name = "TIME", default_value = "30s", help_heading = "Load")]
    drain: String,
    /// Messages or requests on one connection: N, A..B; 0 is without end.
    #[arg(long, value_name = "LAW", alias = "requests-per-conn", help_heading = "Load")]
    messages_per_conn: Option<String>,
    /// Time between two of a session in a closed load: 100ms or 100ms..500ms.
    #[arg(long, value_name = "TIME", default_value = "0s", help_heading = "Load")]
    think: String,
    /// Threads; without it one for each core, but no more than sessions.
    #[arg(long, value_name = "N", help_heading = "Load")]
    threads: Option<usize>,
    /// This process's part of the plan: i/n, such as 1/3.
    #[arg(long, value_name = "I/N", default_value = "1/1", help_heading = "Load")]
    worker: String,
    /// When to begin: RFC 3339, or seconds since 1970.
    #[arg(long, value_name = "WHEN", help_heading = "Load")]
    start_at: Option<String>,
    /// Of all that is random; workers of one plan need the same.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Load")]
    seed: u64,

    /// ehlo, helo or lhlo.
    #[arg(long, value_name = "HOW", help_heading = "SMTP")]
    hello: Option<String>,
    /// The name in EHLO.
    #[arg(long, value_name = "NAME", default_value = "smtp-loadgen.invalid", help_heading = "SMTP")]
    name: String,
    /// off, opportunistic or required.
    #[arg(long, value_name = "HOW", default_value = "off", help_heading = "SMTP")]
    starttls: String,
    /// off, auto (where it is offered) or force.
    #[arg(long, value_name = "HOW", default_value = "auto", help_heading = "SMTP")]
    pipeline: String,
    /// BDAT instead of DATA: off, auto (where it is offered) or required; with :BYTES in chunks of that.
    #[arg(long, value_name = "HOW", default_value = "off", help_heading = "SMTP")]
    bdat: String,
    /// RSET before each message but the first, not only after a failure.
    #[arg(long, help_heading = "SMTP")]
    rset: bool,
    /// Log in: a file with lines user:password, which others cannot read.
    #[arg(long, value_name = "FILE", help_heading = "SMTP")]
    auth_file: Option<PathBuf>,
    /// plain, login or xoauth2; without it what the server offers.
    #[arg(long, value_name = "HOW", help_heading = "SMTP")]
    auth: Option<String>,
    /// Log in without TLS too.
    #[arg(long, help_heading = "SMTP")]
    auth_without_tls: bool,
    /// Do not say SIZE= where it is offered.
    #[arg(long, help_heading = "SMTP")]
    no_size: bool,
    /// Say BODY=8BITMIME where it is offered.
    #[arg(long = "8bitmime", help_heading = "SMTP")]
    eight_bit: bool,
    /// Say SMTPUTF8; a server that does not offer it fails.
    #[arg(long, help_heading = "SMTP")]
    smtputf8: bool,
    /// Only connect; the same as --drop-after connect.
    #[arg(long, help_heading = "SMTP", conflicts_with_all = ["drop_after", "quit_after"])]
    connect_only: bool,
    /// Close the connection without a word after this phase: connect, banner, ehlo, tls, auth, mail, rcpt, data.
    #[arg(long, value_name = "PHASE", help_heading = "SMTP", conflicts_with = "quit_after")]
    drop_after: Option<String>,
    /// QUIT after this phase.
    #[arg(long, value_name = "PHASE", help_heading = "SMTP")]
    quit_after: Option<String>,

    /// Bytes of body: N, A..B, lognormal:MEDIAN,SIGMA, table:N=WEIGHT,…; k and m are understood.
    #[arg(long, value_name = "LAW", default_value = "5k", help_heading = "Messages")]
    size: String,
    /// The same body each time; --size must be one number.
    #[arg(long, help_heading = "Messages")]
    same_body: bool,
    /// Send these in turn: eml:FILE or folder, mbox:FILE, maildir:FOLDER.
    #[arg(long, value_name = "SOURCE", help_heading = "Messages", conflicts_with_all = ["same_body"])]
    corpus: Option<String>,
    /// Sender; several are taken in turn, @FILE has one a line, <> is the null sender.
    #[arg(long, value_name = "ADDRESS", default_value = "sender@example.com", help_heading = "Messages")]
    from: Vec<String>,
    /// Recipient; several are taken in turn, @FILE has one a line.
    #[arg(long, value_name = "ADDRESS", default_value = "recipient@example.com", help_heading = "Messages")]
    to: Vec<String>,
    /// Recipients of a message: N or A..B.
    #[arg(long, value_name = "LAW", default_value = "1", help_heading = "Messages")]
    recipients: String,

    /// HTTP/1.0 and a connection for each request.
    #[arg(long, help_heading = "HTTP")]
    close_each: bool,
    /// A header of requests, such as "X-A: b".
    #[arg(long, value_name = "HEADER", help_heading = "HTTP")]
    header: Vec<String>,
    /// The body of a URL must have the same checksum each time.
    #[arg(long, help_heading = "HTTP")]
    checksum: bool,
    /// The body of a URL must have the same length each time.
    #[arg(long, help_heading = "HTTP", conflicts_with = "checksum")]
    byte_count: bool,

    /// Source addresses in turn: A,B-C,D/N or @FILE.
    #[arg(long, value_name = "LIST", help_heading = "Connections")]
    source: Option<String>,
    /// End connections by fin or rst.
    #[arg(long, value_name = "HOW", default_value = "fin", help_heading = "Connections")]
    close: String,
    /// Say a PROXY header: v1 or v2.
    #[arg(long, value_name = "VERSION", help_heading = "Connections")]
    proxy: Option<String>,
    /// Client addresses for the PROXY header, in turn; without it our own.
    #[arg(long, value_name = "LIST", help_heading = "Connections", requires = "proxy")]
    proxy_clients: Option<String>,
    /// How long the TCP handshake may take.
    #[arg(long, value_name = "TIME", default_value = "30s", help_heading = "Connections")]
    connect_timeout: String,
    /// How long each answer may take.
    #[arg(long, value_name = "TIME", default_value = "60s", help_heading = "Connections")]
    timeout: String,
    /// How long an open load keeps a connection that it does not use.
    #[arg(long, value_name = "TIME", default_value = "5s", help_heading = "Connections")]
    idle: String,
    /// Verify certificates by this CA file; without it any will do.
    #[arg(long, value_name = "FILE", help_heading = "Connections")]
    tls_ca: Option<PathBuf>,
    /// The name to ask for and to verify; without it the host of the URL.
    #[arg(long, value_name = "NAME", help_heading = "Connections")]
    tls_name: Option<String>,
    /// Resume TLS sessions, as one client would.
    #[arg(long, help_heading = "Connections")]
    tls_resume: bool,

    /// Which real server answered: banner, ehlo, cert, banner:REGEX, reply:REGEX, header:NAME or none.
    #[arg(long, value_name = "WHERE", help_heading = "Servers")]
    server_from: Option<String>,
    /// Expected weights: a=3,b=1.
    #[arg(long, value_name = "WEIGHTS", help_heading = "Servers")]
    expect: Option<String>,

    #[command(flatten)]
    output: super::output::Arguments,

    /// Press on this host though it is neither loopback nor private.
    #[arg(long, value_name = "HOST", help_heading = "Safety")]
    i_own: Vec<String>,
    /// Send to recipients of this domain though it is not reserved for tests.
    #[arg(long, value_name = "DOMAIN", help_heading = "Safety")]
    i_own_domain: Vec<String>,
}

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

/// Presses, shows and stores what came of it.
pub(super) fn press(arguments: &Arguments, default: Default, given: Vec<String>) -> Result<(), Exit> {
    let (report, mut complaints) = perform(arguments, default, given)?;
    // Whoever has stopped reading misses it; the exit code tells the end.
    let _ = std::io::stdout().write_all(text::render(&report).as_bytes());
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
    let start_at = arguments.start_at.as_deref().map(instant).transpose().map_err(Exit::usage)?;
    let (job, rate) = job(arguments, default, identify).map_err(Exit::usage)?;
    super::limit::raise(job.sessions + 64 + job.threads * 8);
    let watchers: Vec<Box<dyn Watch>> = arguments.output.watchers(&job.mail.run).map_err(Exit::system)?;
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
        (Some(text), _) => Identify::parse(text),
        (None, Default::Smtp) => Ok(Identify::Banner),
        (None, Default::Http) => Ok(Identify::Never),
    }
}

fn expected(text: Option<&str>) -> Result<Vec<(String, f64)>, String> {
    let rows = text.unwrap_or_default().split(',').map(str::trim).filter(|row| !row.is_empty());
    rows.map(|row| {
        let (name, weight) = row.rsplit_once('=').ok_or_else(|| format!("\"{row}\" is not NAME=WEIGHT"))?;
        let weight = weight.parse::<f64>().ok().filter(|weight| weight.is_finite() && *weight >= 0.0);
        Ok((name.to_owned(), weight.ok_or_else(|| format!("\"{row}\" is not NAME=WEIGHT"))?))
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

fn job(arguments: &Arguments, default: Default, identify: Identify) -> Result<(Job, Option<String>), String> {
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
        time: arguments.duration.as_deref().map(time).transpose()?.or(length),
    };
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
        (Some(law), _) => Law::parse(law)?,
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
        http: HttpPlan { version, compare, statuses: Statuses::Judge },
        wire: wire(arguments)?,
        tls: tls::client(arguments.tls_ca.as_deref(), resume)?,
        connect_timeout: time(&arguments.connect_timeout)?,
        timeout: time(&arguments.timeout)?,
        idle: time(&arguments.idle)?,
        drain: time(&arguments.drain)?,
        identify,
    };
    Ok((job, rate))
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
            let rate = rate(text)?;
            if rate == 0.0 {
                return Err("--rate 0 is no load".to_owned());
            }
            Some((Profile::constant(rate), text.clone()))
        }
        (None, Some(text)) => Some((Profile::parse(text)?, text.clone())),
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

fn millis(text: &str) -> Result<u64, String> {
    time(text).map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
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
    let recipients = Law::parse(&arguments.recipients)?;
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
