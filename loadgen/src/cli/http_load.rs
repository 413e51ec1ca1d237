//! EDGE: `http_load`: the command line of 12mar2006, and its output.
//!
//! Owns its options, each of which may be cut short: the first one in its order that begins so is meant. Refuses to know
//! how fetches are made. What differs, on purpose: the rate is exact and may be above 1000, and the exit code tells when
//! nothing could be fetched. Fails with [`Exit`].
#![expect(clippy::disallowed_methods, reason = "EDGE: the die is seeded by the time")]

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Exit;
use super::press::list;
use super::target::{self, Reading};
use crate::http::{Compare, HttpPlan, Statuses, Version};
use crate::identify::Identify;
use crate::job::{Choose, Job, Pace, Speech, TICK, Target};
use crate::mail::{Content, Law, MailPlan};
use crate::plan::{Arrivals, Profile, Share, Stop};
use crate::report::http_load::{Compared, render};
use crate::run::{Second, Setting, Watch, run};
use crate::smtp::SmtpPlan;
use crate::tls::{self, Resume};
use crate::wire::WirePlan;
use crate::words::{Class, Trouble};

const USAGE: &str = "usage:  http_load [-checksum] [-throttle] [-verbose] [-timeout secs] [-sip sip_file] [-cipher str] [-proxy host:port]
            -parallel N | -rate N [-jitter]
            -fetches N | -seconds N
            url_file
One start specifier, either -parallel or -rate, is required.
One end specifier, either -fetches or -seconds, is required.";

/// Bytes a second of `-throttle`: a modem of 33.6 kbit/s.
const MODEM: u64 = 3360;

/// In the order in which they are compared.
const OPTIONS: [&str; 13] = [
    "-checksum",
    "-throttle",
    "-Throttle",
    "-verbose",
    "-timeout",
    "-jitter",
    "-parallel",
    "-rate",
    "-fetches",
    "-seconds",
    "-sip",
    "-cipher",
    "-proxy",
];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Asked {
    checksum: bool,
    /// Bytes a second.
    throttle: Option<u64>,
    verbose: bool,
    jitter: bool,
    timeout: Option<u64>,
    parallel: Option<u64>,
    rate: Option<u64>,
    fetches: Option<u64>,
    seconds: Option<u64>,
    sip: Option<String>,
    cipher: Option<String>,
    proxy: Option<String>,
    file: String,
}

/// Reads the arguments. Of two start or end specifiers the last one counts.
fn parse(arguments: &[String]) -> Result<Asked, String> {
    let mut asked = Asked::default();
    let mut words = arguments.iter().peekable();
    while let Some(word) = words.next_if(|word| word.starts_with('-') && word.len() > 1) {
        let option = OPTIONS.into_iter().find(|option| option.starts_with(word.as_str()));
        let option = option.ok_or_else(|| format!("unknown option {}", word.escape_debug()))?;
        match option {
            "-checksum" => asked.checksum = true,
            "-verbose" => asked.verbose = true,
            "-jitter" => asked.jitter = true,
            "-throttle" => asked.throttle = Some(MODEM),
            _ => {
                let value = words.next().ok_or_else(|| format!("{option} needs a value"))?;
                let number = || {
                    let number = value.parse::<u64>().ok().filter(|number| *number > 0);
                    number.ok_or_else(|| format!("{option} needs a number of at least 1"))
                };
                match option {
                    // Bits a second, ten for a byte, as on a serial line.
                    "-Throttle" => asked.throttle = Some((number()? / 10).max(1)),
                    "-timeout" => asked.timeout = Some(number()?),
                    "-parallel" => (asked.parallel, asked.rate) = (Some(number()?), None),
                    "-rate" => (asked.rate, asked.parallel) = (Some(number()?), None),
                    "-fetches" => (asked.fetches, asked.seconds) = (Some(number()?), None),
                    "-seconds" => (asked.seconds, asked.fetches) = (Some(number()?), None),
                    "-sip" => asked.sip = Some(value.clone()),
                    "-cipher" => asked.cipher = Some(value.clone()),
                    _ => asked.proxy = Some(value.clone()),
                }
            }
        }
    }
    asked.file = words.next().cloned().ok_or("there is no url_file")?;
    if words.next().is_some() {
        return Err("only one url_file".to_owned());
    }
    match (&asked.parallel, &asked.rate, &asked.fetches, &asked.seconds) {
        (None, None, ..) => Err("there is no start specifier".to_owned()),
        (.., None, None) => Err("there is no end specifier".to_owned()),
        (Some(_), ..) if asked.jitter => Err("-jitter goes with -rate only".to_owned()),
        _ => Ok(asked),
    }
}

/// Does what `http_load` would.
pub(super) fn http_load(arguments: Vec<String>) -> Result<(), Exit> {
    let asked = parse(&arguments).map_err(|why| Exit::usage(format!("{why}\n{USAGE}")))?;
    if let Some(cipher) = &asked.cipher {
        let _ = writeln!(
            std::io::stderr(),
            "smtp-loadgen: -cipher {}: such ciphers are gone; those of TLS 1.2 and 1.3 are offered",
            cipher.escape_debug()
        );
    }
    let job = job(&asked).map_err(Exit::usage)?;
    super::limit::raise(job.sessions + 64);
    let compared = if asked.checksum { Compared::Checksums } else { Compared::Bytes };
    let watchers: Vec<Box<dyn Watch>> = if asked.verbose { vec![Box::new(Verbose)] } else { Vec::new() };
    let setting = Setting { arguments, expected: Vec::new(), start_at: None, watchers, arrivals: None };
    let report = run(job, setting).map_err(Exit::system)?.report;
    super::output::print(&render(&report, report.most_open, compared)).map_err(Exit::system)?;
    if report.interrupted {
        return Err(Exit::new(Exit::INTERRUPTED, "interrupted"));
    }
    if report.counts.ok == 0 { Err(Exit::system("nothing could be fetched")) } else { Ok(()) }
}

fn job(asked: &Asked) -> Result<Job, String> {
    let urls = list(Path::new(&asked.file))?;
    let owned: Vec<String> = Vec::new();
    let reading = Reading {
        scheme: "http",
        agent: concat!("smtp-loadgen/", env!("CARGO_PKG_VERSION")),
        headers: &[],
        version: Version::Close,
        owned: &owned,
        tls_name: None,
    };
    let mut targets = Vec::new();
    let proxy = asked.proxy.as_deref().map(|proxy| {
        let proxy = if proxy.contains(':') { proxy.to_owned() } else { format!("{proxy}:80") };
        reading.read(&format!("http://{proxy}"))
    });
    let proxy = proxy.transpose()?;
    for url in &urls {
        let mut target = reading.read(url)?;
        target.label.clone_from(url);
        if let (Some(proxy), Speech::Http(request)) = (&proxy, &mut target.speech) {
            if url.starts_with("https:") {
                return Err("-proxy is for http: only".to_owned());
            }
            // RFC 9112 section 3.2.2: a proxy is asked for the whole URL.
            let host = url.strip_prefix("http://").unwrap_or(url).split('/').next().unwrap_or_default();
            let rest = request.bytes.strip_prefix(b"GET ").unwrap_or_default();
            request.bytes = [b"GET http://", host.as_bytes(), rest].concat();
            target.addresses.clone_from(&proxy.addresses);
        }
        targets.push(target);
    }
    if targets.is_empty() {
        return Err(format!("{}: no URL in it", asked.file));
    }
    target::number(&mut targets);
    let sources = asked.sip.as_deref().map(|file| target::addresses(&list(Path::new(file))?.join(",")));
    let (pace, sessions) = match (asked.parallel, asked.rate) {
        (Some(parallel), _) => {
            (Pace::Closed { think: Law::Fixed(0) }, usize::try_from(parallel).unwrap_or(usize::MAX))
        }
        (None, rate) => {
            let arrivals = if asked.jitter { Arrivals::Jitter } else { Arrivals::Uniform };
            #[expect(clippy::cast_precision_loss, reason = "a rate")]
            let profile = Profile::constant(rate.unwrap_or(1) as f64);
            (Pace::Open { profile, arrivals }, 20_000)
        }
    };
    if sessions > 1_000_000 {
        return Err(format!("-parallel {sessions} is too much"));
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    Ok(Job {
        pace,
        stop: Stop { count: asked.fetches, time: asked.seconds.map(Duration::from_secs) },
        share: Share { index: 0, of: 1 },
        seed,
        targets,
        choose: Choose::Random,
        threads: cores.min(sessions),
        sessions,
        per_connection: Law::Fixed(1),
        smtp: SmtpPlan::default(),
        mail: MailPlan {
            from: Vec::new(),
            to: Vec::new(),
            recipients: Law::Fixed(1),
            content: Content::Same(0),
            run: "http".to_owned(),
        },
        http: HttpPlan {
            version: Version::Close,
            compare: if asked.checksum { Compare::Checksum } else { Compare::Bytes },
            statuses: Statuses::Count,
            throttle: asked.throttle,
        },
        wire: WirePlan { sources: sources.transpose()?.unwrap_or_default(), ..WirePlan::default() },
        tls: tls::client(None, Resume::Never)?,
        connect_timeout: Duration::from_secs(asked.timeout.unwrap_or(60)),
        timeout: Duration::from_secs(asked.timeout.unwrap_or(60)),
        idle: Duration::ZERO,
        drain: Duration::ZERO,
        tick: TICK,
        identify: Identify::Never,
        tell: Some(if asked.checksum { tell_checksum } else { tell_bytes }),
    })
}

fn tell_checksum(target: &Target, trouble: Trouble) {
    tell(target, trouble, "checksum wrong");
}

fn tell_bytes(target: &Target, trouble: Trouble) {
    tell(target, trouble, "byte count wrong");
}

/// A line for each fetch that failed, in the words of the original and of strerror.
fn tell(target: &Target, trouble: Trouble, mismatch: &str) {
    let what = match trouble.class {
        Class::Timeout => "timed out",
        Class::Mismatch => mismatch,
        Class::Refused => "Connection refused",
        Class::Unreachable => "No route to host",
        Class::Reset => "Connection reset by peer",
        Class::Closed => "Connection closed in the middle",
        Class::TlsFailed => "TLS handshake failed",
        Class::NoDescriptors => "Too many open files",
        Class::NoPorts => "Cannot assign requested address",
        Class::TooLong => "Answer too long",
        Class::Protocol => "Not HTTP",
        Class::Tempfail | Class::Permfail | Class::Unexpected | Class::MissingCapability | Class::Local => {
            trouble.class.name()
        }
    };
    let _ = writeln!(std::io::stderr(), "{}: {what}", target.label);
}

/// `--- %g secs, %d fetches started, %d completed, %d current`, each minute.
struct Verbose;

impl Watch for Verbose {
    fn second(&mut self, second: &Second) -> Result<(), String> {
        let (seconds, total) = (second.point.second + 1, &second.total);
        if seconds.is_multiple_of(60) {
            let done = total.ok + total.failed;
            let _ = writeln!(
                std::io::stderr(),
                "--- {seconds} secs, {} fetches started, {done} completed, {} current",
                total.arrivals,
                total.arrivals.saturating_sub(done)
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Asked, String> {
        parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_may_be_cut_short_as_there() {
        let asked = read("-p 20 -f 300 urls").unwrap();
        assert_eq!((asked.parallel, asked.fetches, asked.file.as_str()), (Some(20), Some(300), "urls"));
        assert_eq!(read("-t -p 1 -f 1 u").unwrap().throttle, Some(3360));
        assert_eq!(read("-T 1000 -p 1 -f 1 u").unwrap().throttle, Some(100));
        let asked = read("-r 600 -j -s 30 -c -v -ti 5 -si sips -ci x -pr p:8 urls").unwrap();
        assert_eq!(
            (asked.rate, asked.jitter, asked.seconds, asked.timeout),
            (Some(600), true, Some(30), Some(5))
        );
        assert!(asked.checksum && asked.verbose);
        assert_eq!(
            (asked.sip.as_deref(), asked.cipher.as_deref(), asked.proxy.as_deref()),
            (Some("sips"), Some("x"), Some("p:8"))
        );
        // The last one given wins.
        let asked = read("-parallel 2 -rate 3 -fetches 4 -seconds 5 u").unwrap();
        assert_eq!(
            (asked.parallel, asked.rate, asked.fetches, asked.seconds),
            (None, Some(3), None, Some(5))
        );
    }

    #[test]
    fn what_it_would_refuse_is_refused() {
        for line in [
            "urls",
            "-p 5 urls",
            "-f 5 urls",
            "-p 0 -f 1 urls",
            "-p 5 -f 5",
            "-p 5 -j -s 1 urls",
            "-x -p 5 -f 5 urls",
            "-p x -f 1 urls",
            "-T -p 5 -f 5 urls",
            "-p 5 -f 5 a b",
            "-parallelx 5 -f 5 urls",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
