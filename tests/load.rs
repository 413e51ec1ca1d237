//! The load generator against its sink, against servers that misbehave, and against real Postfix, nginx and Apache.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "also in the functions that the tests share; waits end"
)]

mod program;
mod servers;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use loadgen::cli::rehearse;
use loadgen::report::{Report, hlog};
use loadgen::sink::fault::Rule;
use loadgen::sink::serve::Served;
use loadgen::sink::{Remember, Secret, SinkConfig};

use crate::scratch::Folder;

fn sink(configure: impl FnOnce(&mut SinkConfig)) -> Served {
    let mut config = SinkConfig::new("mx1.example.com");
    config.remember = Remember::Runs;
    let abilities = &mut config.abilities;
    (abilities.auth, abilities.chunking, abilities.utf8) = (true, true, true);
    configure(&mut config);
    Served::start("127.0.0.1:0".parse().unwrap(), config, 2).unwrap()
}

/// Runs it, and checks what holds for every run.
pub(crate) fn press(words: &str) -> (Report, u8) {
    let words: Vec<&str> = words.split_whitespace().chain(["--progress", "none"]).collect();
    let (report, code) = rehearse(&words).unwrap_or_else(|exit| panic!("{}: {}", exit.code, exit.message));
    let counts = report.counts;
    assert_eq!(counts.arrivals, counts.ok + counts.failed + counts.unsent + counts.cut, "{counts:?}");
    let errors: u64 = report.errors.iter().filter(|row| row.phase != "quit").map(|row| row.count).sum();
    assert_eq!(errors, counts.failed, "{:?}", report.errors);
    assert_eq!(report.service.as_ref().map_or(0, |row| row.count), counts.ok);
    (report, code)
}

fn errors(report: &Report) -> Vec<(&str, &str, u64)> {
    report.errors.iter().map(|row| (row.phase.as_str(), row.class.as_str(), row.count)).collect()
}

#[test]
fn what_the_generator_says_was_accepted_is_what_the_sink_took() {
    let tls = Secret(loadgen::tls::made_server("mx1.example.com").unwrap());
    let folder = Folder::new("load-auth");
    let users = folder.file("anna:secret\nbert:secret\n");
    std::fs::set_permissions(&users, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let auth = format!("--auth-file {}", users.display());
    for (flags, lmtp) in [
        ("--pipeline off".to_owned(), false),
        ("--pipeline force --messages-per-conn 1..7 --rset".to_owned(), false),
        ("--hello helo --messages-per-conn 0".to_owned(), false),
        ("--bdat required --recipients 1..5".to_owned(), false),
        ("--bdat required:700 --pipeline off --messages-per-conn 3".to_owned(), false),
        (format!("--starttls required {auth} --auth login --messages-per-conn 5"), false),
        (format!("--starttls opportunistic {auth} --tls-resume --bdat auto --smtputf8 --8bitmime"), false),
        ("--recipients 3 --messages-per-conn 2".to_owned(), true),
        ("--recipients 3 --bdat required:900".to_owned(), true),
        ("--close rst --size lognormal:4k,1 --think 1ms..2ms".to_owned(), false),
    ] {
        let sink = sink(|config| {
            config.abilities.lmtp = lmtp;
            config.abilities.starttls = !lmtp;
            config.tls = Some(tls.clone());
        });
        let scheme = if lmtp { "lmtp" } else { "smtp" };
        let (report, code) =
            press(&format!("smtp {scheme}://{} --sessions 4 --messages 40 {flags}", sink.address));
        assert_eq!((code, report.counts.ok), (0, 40), "{flags}: {:?} {:?}", report.errors, report.replies);
        let took = sink.report();
        assert_eq!((took.messages, took.recipients), (40, report.counts.recipients), "{flags}");
        assert_eq!(took.bytes, report.counts.bytes, "{flags}");
        assert_eq!((took.runs[0].arrived, took.runs[0].doubled), (40, 0), "{flags}");
        assert_eq!(report.servers[0].name, "mx1.example.com");
        assert_eq!(report.servers[0].connections, report.counts.connections, "{flags}");
        assert_eq!(
            report.tls_sessions,
            if flags.contains("starttls") { report.counts.connections } else { 0 }
        );
        assert_eq!(report.tls_resumed > 0, flags.contains("tls-resume"), "{flags}");
    }
}

#[test]
fn every_fault_shows_under_its_phase_and_class() {
    let tls = Secret(loadgen::tls::made_server("mx1.example.com").unwrap());
    for (rule, flags, phase, class) in [
        ("banner:421", "", "banner", "tempfail"),
        ("banner:reject=554 5.7.1 Go away", "", "banner", "permfail"),
        ("banner:drop", "", "banner", "closed"),
        ("ehlo:reset", "", "ehlo", "reset"),
        ("banner:half", "", "banner", "closed"),
        ("banner:garbage", "", "banner", "protocol"),
        ("banner:silence", "", "banner", "timeout"),
        ("banner:dribble=50ms", "", "banner", "timeout"),
        ("ehlo:reject=450 4.7.1 Later", "", "ehlo", "tempfail"),
        ("ehlo:half", "", "ehlo", "closed"),
        ("auth:drop", "AUTH", "auth", "closed"),
        ("auth:reject=535 5.7.8 No", "AUTH", "auth", "permfail"),
        ("mail:reject=451 4.7.1 Later", "", "mail", "tempfail"),
        ("mail:delay=2s", "--pipeline off", "mail", "timeout"),
        ("rcpt:reject=550 5.1.1 No", "", "rcpt", "permfail"),
        ("rcpt:reject=550 5.1.1 No", "--pipeline off --messages-per-conn 0", "rcpt", "permfail"),
        ("rcpt:reject=550 5.1.1 No", "--bdat required --messages-per-conn 0", "rcpt", "permfail"),
        ("rcpt:421", "", "rcpt", "tempfail"),
        ("rcpt:garbage", "--pipeline off", "rcpt", "protocol"),
        ("data:reset", "--pipeline off", "data", "reset"),
        ("data:reject=452 4.3.1 Full", "", "data", "tempfail"),
        ("body:reject=554 5.7.1 Spam", "", "body", "permfail"),
        ("body:drop", "", "body", "closed"),
        ("body:half", "--bdat required", "body", "closed"),
        ("body:silence", "", "body", "timeout"),
        ("body:dribble=50ms", "", "body", "timeout"),
        ("body:garbage", "", "body", "protocol"),
        ("starttls:reject=454 4.7.0 Not now", "--starttls required", "starttls", "tempfail"),
        ("starttls:drop", "--starttls required", "starttls", "closed"),
        ("starttls:garbage", "--starttls required", "starttls", "protocol"),
        ("starttls:silence", "--starttls required", "starttls", "timeout"),
        ("mail:reset", "--starttls required", "mail", "reset"),
        ("auth:421", "AUTH", "auth", "tempfail"),
        ("auth:half", "AUTH", "auth", "closed"),
        ("ehlo:silence", "", "ehlo", "timeout"),
        ("ehlo:garbage", "", "ehlo", "protocol"),
        ("mail:half", "", "mail", "closed"),
        ("rcpt:silence", "", "rcpt", "timeout"),
        ("data:half", "--pipeline off", "data", "closed"),
        ("data:silence", "--pipeline off", "data", "timeout"),
    ] {
        let sink = sink(|config| {
            config.rules = vec![Rule::parse(rule).unwrap()];
            config.abilities.starttls = true;
            config.tls = Some(tls.clone());
        });
        let folder = Folder::new(&format!("load-fault-{}", rule.replace([':', '=', ' '], "-")));
        let users = folder.file("anna:secret\n");
        std::fs::set_permissions(&users, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let flags = flags.replace("AUTH", &format!("--auth-without-tls --auth-file {}", users.display()));
        let (report, code) =
            press(&format!("smtp smtp://{} --sessions 2 --messages 6 --timeout 400ms {flags}", sink.address));
        let errors: Vec<_> = errors(&report).into_iter().filter(|(phase, ..)| *phase != "quit").collect();
        assert_eq!((errors, code), (vec![(phase, class, 6)], 2), "{rule} {flags}");
        assert_eq!(sink.report().messages, 0, "{rule} {flags}");
    }
    // What comes late at the end costs no message.
    let sink = sink(|config| config.rules = vec![Rule::parse("quit:drop").unwrap()]);
    let (report, code) = press(&format!("smtp smtp://{} --sessions 2 --messages 6", sink.address));
    assert_eq!((errors(&report), report.counts.ok, code), (vec![("quit", "closed", 6)], 6, 0));
}

#[test]
fn a_closed_port_is_refused_and_nothing_succeeds() {
    let free = TcpListener::bind("127.0.0.79:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let (report, code) = press(&format!("smtp smtp://{address} --sessions 2 --messages 10"));
    assert_eq!((errors(&report), code), (vec![("connect", "refused", 10)], 2));
}

#[test]
fn counters_add_up_whatever_goes_wrong() {
    let rules = [
        "mail:reject=451 x:20%",
        "rcpt:drop:10%",
        "data:421:10%",
        "body:half:10%",
        "banner:reset:10%",
        "body:silence:5%",
    ];
    let sink = sink(|config| config.rules = rules.iter().map(|rule| Rule::parse(rule).unwrap()).collect());
    for flags in [
        "--sessions 8 --messages 300 --messages-per-conn 1..9",
        "--rate 400/s --duration 1s --max-sessions 3 --drain 100ms --pipeline off",
        "--rate 400/s --arrivals poisson --duration 1s --max-sessions 200 --messages-per-conn 0 --bdat auto",
        "--profile ramp:0..600/s,1s --max-sessions 2 --timeout 5s --drain 50ms",
    ] {
        let (report, _) = press(
            &format!("smtp smtp://{} --timeout 100ms {flags}", sink.address)
                .replace("--timeout 100ms --profile", "--profile"),
        );
        assert!(report.counts.arrivals >= 299, "{flags}: {:?}", report.counts);
        assert!(report.counts.failed > 0 && report.counts.ok > 0, "{flags}: {:?}", report.counts);
    }
}

/// A server of HTTP whose one thread stands still from `from` for a second.
fn freezing(from: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let begin = tokio::sync::OnceCell::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                if begin.set(()).is_ok() {
                    tokio::spawn(async move {
                        tokio::time::sleep(from).await;
                        std::thread::sleep(Duration::from_secs(1));
                    });
                }
                tokio::spawn(async move {
                    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                    let mut buffer = [0; 1024];
                    while stream.read(&mut buffer).await.is_ok_and(|length| length > 0) {
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                        if stream.write_all(answer).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
    });
    address
}

#[test]
fn a_server_that_freezes_cannot_hide_it() {
    let address = freezing(Duration::from_secs(2));
    let (report, _) = press(&format!("http http://{address}/ --rate 500/s --duration 5s --max-sessions 20"));
    let response = report.response.unwrap();
    // Of a freeze of one second: 0.90 to 1.00 s. How long it was in truth, a busy machine says, and the same run measured.
    let share = response.p99 / (report.failover.longest_gap * 1000.0);
    assert!((0.90..=1.00).contains(&share), "{share}: {response:?} {:?}", report.failover);
    assert!((350.0..650.0).contains(&response.p90), "{response:?}");
    // What another tool would have said: few were slow.
    assert!(report.service.unwrap().p95 < 100.0);
    assert!(report.failover.longest_gap > 0.9, "{:?}", report.failover);
    assert_eq!(report.counts.arrivals, 2500);
}

#[test]
fn a_rate_is_met_to_half_a_percent() {
    let sink = sink(|_| {});
    for rate in [1.0, 150.0, 300.0, 600.0, 900.0] {
        let seconds = if rate < 10.0 { 3.0 } else { 1.0 };
        let (report, _) = press(&format!(
            "smtp smtp://{} --rate {rate}/s --duration {seconds}s --messages-per-conn 0 --size 200",
            sink.address
        ));
        assert_eq!(report.counts.arrivals as f64, rate * seconds);
        assert_eq!(report.counts.ok + report.counts.cut + report.counts.unsent, report.counts.arrivals);
    }
}

#[test]
fn what_is_due_within_a_tick_is_started_together_and_late() {
    let sink = sink(|_| {});
    let (report, _) = press(&format!(
        "smtp smtp://{} --rate 1000/s --duration 1s --messages-per-conn 0 --size 200 --tick 4ms",
        sink.address
    ));
    assert_eq!(report.counts.arrivals, 1000);
    assert!(report.start_lag.unwrap().p50 >= 1.0);
    assert!(rehearse(&["smtp", "smtp://127.0.0.1:1", "--rate", "1/s", "--tick", "1s"]).is_err());
}

#[test]
fn a_wrong_spread_is_told_from_chance() {
    let first = sink(|config| config.hostname = "real1.example".into());
    let second = sink(|config| config.hostname = "real2.example".into());
    let urls = format!(
        "smtp smtp://{} smtp://{} --sessions 2 --messages 400 --size 100",
        first.address, second.address
    );
    let (report, code) =
        press(&format!("{urls} --expect real1=1,real2=1 --fail-if skew>10% --fail-if p_value<0.01"));
    assert_eq!(code, 0, "{:?}", report.spread);
    let (report, code) =
        press(&format!("{urls} --expect real1=3,real2=1 --fail-if skew>10% --fail-if p_value<0.01"));
    assert_eq!(code, 99);
    assert!(report.spread.unwrap().p_value < 1e-6);
    assert_eq!(report.servers.iter().map(|server| server.ok).sum::<u64>(), 400);
    let (report, code) = press(&format!("{urls} --expect real1=1,real2=1,real3=1 --fail-if skew>10%"));
    assert_eq!((code, report.servers.len()), (99, 3), "one that never answered is in the table");
}

#[test]
fn sessions_end_where_they_are_told_to() {
    for (flags, phases) in [
        ("--connect-only", "connect session"),
        ("--drop-after ehlo", "connect banner ehlo session"),
        ("--quit-after rcpt", "connect banner ehlo mail rcpt quit transaction session"),
        ("--drop-after data --close rst", "connect banner ehlo mail rcpt data transaction session"),
    ] {
        let sink = sink(|_| {});
        let (report, code) =
            press(&format!("smtp smtp://{} --sessions 2 --messages 8 {flags}", sink.address));
        let names: Vec<&str> = report.phases.iter().map(|row| row.phase.as_str()).collect();
        assert_eq!(
            (names.join(" ").as_str(), code, report.counts.ok),
            (phases, 0, 8),
            "{flags} {:?}",
            report.errors
        );
        assert_eq!(report.counts.connections, 8);
        assert_eq!(sink.report().messages, 0);
    }
}

#[test]
fn traced_messages_are_followed_to_their_end() {
    // The sink in the process is both the server and the place of arrival: nothing is lost.
    let free = TcpListener::bind("127.0.0.78:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let (report, code) = press(&format!(
        "smtp smtp://{address} --trace-listen {address} --sessions 3 --messages 50 --fail-if lost>0 --fail-if doubled>0"
    ));
    let trace = report.trace.unwrap();
    assert_eq!((trace.accepted, trace.arrived, trace.lost, trace.doubled, code), (50, 50, 0, 0, 0));
    assert!(trace.delay.unwrap().max < 10_000.0);
    // A server that takes all and passes nothing on.
    let sink = sink(|_| {});
    let (report, code) = press(&format!(
        "smtp smtp://{} --trace-listen {address} --trace-wait 100ms --sessions 3 --messages 50 --fail-if lost>0",
        sink.address
    ));
    assert_eq!((report.trace.unwrap().lost, code), (50, 99));
}

#[test]
fn logs_of_workers_merge_to_the_log_of_the_whole() {
    let (sink, folder) = (sink(|_| {}), Folder::new("load-merge"));
    let mut merged = hlog::Merged::default();
    let mut done = 0;
    for worker in 1..=3 {
        let log = folder.path().join(format!("{worker}.hlog"));
        let (report, _) = press(&format!(
            "smtp smtp://{} --rate 200/s --messages 200 --worker {worker}/3 --hdr-log {} --csv {}",
            sink.address,
            log.display(),
            folder.path().join("csv").display()
        ));
        done += report.counts.ok;
        merged.add(&std::fs::read(log).unwrap()).unwrap();
    }
    assert_eq!(done, 200, "the workers' parts are the plan");
    assert_eq!(merged.tags["headline"].0.len(), 200);
    assert_eq!(merged.tags["all-response"].0, merged.tags["headline"].0);
    assert_eq!(merged.tags["all-body"].0.len(), 200);
    let csv = std::fs::read_to_string(folder.path().join("csv")).unwrap();
    assert!(csv.starts_with("second,arrivals,ok,failed") && csv.lines().count() >= 3, "{csv}");
}

#[test]
fn a_report_survives_json() {
    let sink =
        sink(|config| config.rules = vec![Rule::parse("rcpt:reject=550 5.1.1 <b>\"no\"</b>:30%").unwrap()]);
    let (report, _) =
        press(&format!("smtp smtp://{} --sessions 3 --messages 60 --expect mx1=1", sink.address));
    let text = serde_json::to_string(&report).unwrap();
    let again: Report = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (again.counts, &again.errors, &again.replies),
        (report.counts, &report.errors, &report.replies)
    );
    let histogram = again.service.unwrap().decode().unwrap();
    assert_eq!(histogram, report.service.as_ref().unwrap().decode().unwrap());
    assert_eq!(histogram.len(), report.counts.ok);
    assert_eq!(report.schema, "smtp-loadgen/1");
    let page = loadgen::report::html::render(&report);
    assert!(page.contains("&lt;b&gt;") && !page.contains("<b>\""), "a server writes no HTML");
}

#[test]
fn a_corpus_is_sent_whole_from_each_kind_of_source() {
    let folder = Folder::new("load-corpus");
    let path = folder.path();
    let message =
        |n: usize| format!("From: a@example.com\nSubject: {n}\n\n.dot\n{}", "0123456789\n".repeat(n));
    for sub in ["eml", "box/new", "box/cur"] {
        std::fs::create_dir_all(path.join(sub)).unwrap();
    }
    std::fs::write(path.join("eml/1.eml"), message(100)).unwrap();
    std::fs::write(path.join("eml/2.eml"), message(100)).unwrap();
    std::fs::write(path.join("box/new/1"), message(100)).unwrap();
    std::fs::write(path.join("box/cur/2:2,S"), message(100)).unwrap();
    std::fs::write(path.join("mbox"), format!("From x\n{}\nFrom y\n{}", message(100), message(100))).unwrap();
    for source in ["eml:PATH/eml", "maildir:PATH/box", "mbox:PATH/mbox"] {
        let source = source.replace("PATH", &path.display().to_string());
        for how in ["--bdat off", "--bdat required"] {
            let sink = sink(|_| {});
            let (report, code) = press(&format!(
                "smtp smtp://{} --sessions 2 --messages 6 {how} --corpus {source}",
                sink.address
            ));
            assert_eq!((report.counts.ok, code), (6, 0), "{source} {how}: {:?}", report.replies);
            let took = sink.report();
            assert_eq!(took.bytes, report.counts.bytes, "{source} {how}: the dots came through");
            assert!(took.bytes > 6 * 1200, "{source}: {took:?}");
            assert_eq!(took.runs[0].arrived, 6);
        }
    }
}

#[test]
fn source_addresses_are_taken_in_turn() {
    let seen = Arc::new(AtomicU64::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let peer = stream.unwrap().peer_addr().unwrap();
            if let std::net::IpAddr::V4(ip) = peer.ip() {
                count.fetch_or(1 << ip.octets()[3], Ordering::Relaxed);
            }
        }
    });
    press(&format!(
        "smtp smtp://{address} --source 127.0.1.3-127.0.1.7 --connect-only --sessions 1 --messages 20"
    ));
    let end = Instant::now() + Duration::from_secs(10);
    while seen.load(Ordering::Relaxed) != 0b1111_1000 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(seen.load(Ordering::Relaxed), 0b1111_1000);
}

#[test]
fn a_proxy_header_comes_first() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let mut stream: TcpStream = listener.accept().unwrap().0;
        stream.write_all(b"421 x\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    press(&format!("smtp smtp://{address} --proxy v1 --proxy-clients 192.0.2.7 --sessions 1 --messages 1"));
    let heard = server.join().unwrap();
    assert!(heard.starts_with("PROXY TCP4 192.0.2.7 127.0.0.1 "), "{heard}");
}

#[test]
fn what_contradicts_itself_is_named_before_anything_is_started() {
    for (words, part) in [
        ("smtp smtp://127.0.0.1", "--rate R or --sessions N"),
        ("smtp smtp://8.8.8.8 --sessions 1", "--i-own 8.8.8.8"),
        ("smtp smtp://127.0.0.1 --sessions 1 --to a@gmail.com", "--i-own-domain gmail.com"),
        ("smtp smtp://127.0.0.1 --sessions 1 --rate 1/s", "cannot be used with"),
        ("smtp smtp://127.0.0.1 --sessions 0", "1 to 1000000"),
        ("smtp smtp://127.0.0.1 --sessions 1 --hello helo --starttls required", "no STARTTLS"),
        ("smtp smtp://127.0.0.1 --sessions 1 --quit-after data", "--drop-after"),
        ("smtp smtp://127.0.0.1 --sessions 1 --corpus eml:/nowhere", "/nowhere"),
        ("smtp smtp://127.0.0.1 --sessions 1 --json /nowhere/x", "/nowhere/x"),
        ("smtp smtp://127.0.0.1 --sessions 1 --fail-if p99>5", "needs a unit"),
        ("smtp smtp://127.0.0.1 lmtp://127.0.0.1 --sessions 1", "do not mix"),
        ("smtp smtp://127.0.0.1 --sessions 1 --worker 4/3", "--worker 4/3"),
        ("smtp smtp://127.0.0.1 --sessions 1 --auth-without-tls --auth-file /etc/passwd", "chmod o="),
        ("smtp smtp://127.0.0.1 --sessions 1 --trace-listen 192.0.2.1:1", "--trace-listen"),
        ("smtp smtp://127.0.0.1 --rate 1/s --think 1s", "cannot be used with"),
        ("smtp smtp://127.0.0.1 --sessions 1 --max-sessions 5", "cannot be used with"),
        ("smtp smtp://127.0.0.1 --sessions 1 --size 5k --corpus eml:/etc", "cannot be used with"),
        ("http http://127.0.0.1 --sessions 1 --bdat auto", "--bdat is of SMTP"),
        ("smtp smtp://127.0.0.1 --sessions 1 --checksum", "--checksum is of HTTP"),
        ("smtp smtp://127.0.0.1 --sessions 1 --hello helo --smtputf8", "needs EHLO"),
        ("smtp smtps://127.0.0.1 --sessions 1 --starttls required", "TLS from the first byte"),
        ("smtp smtp://127.0.0.1 --sessions 1 --tls-resume", "needs TLS"),
        ("smtp smtp://127.0.0.1 --sessions 1 --drop-after auth", "needs --auth-file"),
        ("smtp smtp://127.0.0.1 --sessions 1 --connect-only --trace-listen 127.0.0.1:0", "none are sent"),
        ("http http://127.0.0.1 --sessions 1 --expect a=1", "--server-from header:NAME"),
        ("smtp smtp://127.0.0.1 --sessions 1 --duration 0s", "no load"),
        ("smtp smtp://127.0.0.1 --sessions 1 --messages 0", "no load"),
        ("smtp smtp://127.0.0.1 --sessions 1 --recipients x", "--recipients"),
        ("smtp smtp://127.0.0.1 --sessions 1 --idle x", "--idle"),
        ("smtp smtp://127.0.0.1 --sessions 1 --progress x", "--progress x"),
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        let exit = rehearse(&words).unwrap_err();
        assert!(exit.message.contains(part) && (1..=2).contains(&exit.code), "{words:?}: {exit:?}");
    }
}
