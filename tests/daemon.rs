//! The daemon as a process, on loopback, without privileges: start, reload, what it shows, how it ends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "also in the functions that the tests share"
)]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use loadgen::sink::{Fault, Sink, SinkConfig};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::scratch::Folder;

const PROGRAM: &str = env!("CARGO_BIN_EXE_smtp-director");
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what} never came");
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The same port on another address of loopback: a real server that direct routing could reach.
fn neighbour(address: SocketAddr) -> SocketAddr {
    ([127, 0, 0, 2], address.port()).into()
}

fn program(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn answer(http: SocketAddr, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&http, LIMIT).ok()?;
    stream.set_read_timeout(Some(LIMIT)).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// A daemon in front of one SMTP server in this process.
struct Daemon {
    folder: Folder,
    child: Child,
    http: SocketAddr,
    vip: SocketAddr,
}

impl Daemon {
    fn file(http: SocketAddr, vip: SocketAddr, real: SocketAddr) -> String {
        format!(
            "dataplane = \"proxy\"\nhttp = \"{http}\"\nresync = \"1s\"\n\
             [check]\ninterval = \"200ms\"\nretry = \"50ms\"\n\
             [[virtual]]\nname = \"mail\"\naddress = \"{vip}\"\n\
             [[virtual.real]]\naddress = \"{real}\"\n"
        )
    }

    fn start(test: &str, real: SocketAddr, extra: &str) -> Self {
        let folder = Folder::new(test);
        let log = File::create(folder.path().join("log")).unwrap();
        Self::start_with(folder, real, extra, log)
    }

    fn start_with(folder: Folder, real: SocketAddr, extra: &str, log: File) -> Self {
        let (http, vip) = (free_port(), free_port());
        let file = folder.file(extra.to_owned() + &Self::file(http, vip, real));
        let child = Command::new(PROGRAM)
            .args(["run", "--config"])
            .arg(file)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let daemon = Self { folder, child, http, vip };
        until("an answer over HTTP", || daemon.get("/status"));
        daemon
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("smtp-director.toml")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn get(&self, path: &str) -> Option<String> {
        answer(self.http, &format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n"))
    }

    fn status(&self) -> Value {
        let answer = self.get("/status").unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    fn real(&self) -> Value {
        self.status()["virtuals"][0]["reals"][0].clone()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        until("the end of the daemon", || self.child.try_wait().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_fails_loses_its_weight_and_gets_it_back() {
    let mut sink = Sink::start("127.0.0.1:0".parse().unwrap(), SinkConfig::new("real1.example")).unwrap();
    let daemon = Daemon::start("weight", sink.address(), "");
    until("full weight", || (daemon.real()["weight"] == 100).then_some(()));
    assert_eq!(daemon.real()["state"], "up");
    sink.stop().await;
    until("weight 0", || (daemon.real()["weight"] == 0).then_some(()));
    let real = daemon.real();
    assert_eq!(
        (&real["state"], &real["reason"], &real["stage"]),
        (&"down".into(), &"refused".into(), &"connect".into())
    );
    assert!(daemon.log().contains("is down: refused at connect"), "{}", daemon.log());
    sink.restart().unwrap();
    until("full weight again", || (daemon.real()["weight"] == 100).then_some(()));
    assert_eq!(daemon.real()["reason"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_all_servers_refuse_takes_none_out_and_is_an_alarm() {
    let sink = Sink::start("127.0.0.1:0".parse().unwrap(), SinkConfig::new("real1.example")).unwrap();
    let daemon = Daemon::start("held", sink.address(), "");
    until("full weight", || (daemon.real()["weight"] == 100).then_some(()));
    sink.set_fault(Some(Fault::RejectBanner421));
    until("down", || (daemon.real()["state"] == "down").then_some(()));
    let real = daemon.real();
    assert_eq!((&real["weight"], &real["held"], &real["code"]), (&100.into(), &true.into(), &421.into()));
    assert!(
        daemon.log().contains("1 of 1 real servers of mail are down and keep their weight"),
        "{}",
        daemon.log()
    );
    let held = format!("smtp_director_real_held{{virtual=\"mail\",real=\"{}\"}} 1", sink.address());
    assert!(daemon.get("/metrics").unwrap().contains(&held));
    sink.set_fault(None);
    until("up", || (daemon.real()["state"] == "up").then_some(()));
    assert_eq!(daemon.real()["held"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_degraded_server_gets_the_part_of_its_weight_that_the_table_of_verdicts_says() {
    let sink = Sink::start("127.0.0.1:0".parse().unwrap(), SinkConfig::new("real1.example")).unwrap();
    let daemon = Daemon::start("degraded", sink.address(), "");
    let more = "[check]\nverdict.\"tempfail at mail\" = \"degraded 25%\"\n\
                mail = { accept = \"a@d.example\", interval = \"200ms\" }\n";
    let text = fs::read_to_string(daemon.config()).unwrap().replace("[check]\n", more);
    fs::write(daemon.config(), text).unwrap();
    daemon.signal(Signal::HUP);
    until("full weight", || (daemon.real()["weight"] == 100).then_some(()));
    sink.set_fault(Some(Fault::RejectMail("451 4.7.1 Service unavailable".to_owned())));
    until("a quarter", || (daemon.real()["weight"] == 25).then_some(()));
    let real = daemon.real();
    assert_eq!(
        (&real["state"], &real["held"], &real["code"]),
        (&"degraded".into(), &false.into(), &451.into())
    );
    let line =
        "of mail is degraded to 25%: tempfail at mail: 451 4.7.1 Service unavailable (3 checks in a row)";
    assert!(daemon.log().contains(line), "{}", daemon.log());
    let metrics = daemon.get("/metrics").unwrap();
    let real = format!("virtual=\"mail\",real=\"{}\"", sink.address());
    for line in [
        format!("smtp_director_real_factor{{{real},cause=\"check\"}} 0.25\n"),
        format!("smtp_director_real_up{{{real}}} 1\n"),
    ] {
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
    let probe = program(&["probe", "--config", daemon.config().to_str().unwrap(), "--virtual", "mail"]);
    let said = String::from_utf8(probe.stdout).unwrap();
    assert!(probe.status.code() == Some(2) && said.contains("is degraded 25%, after"), "{said}");
    sink.set_fault(None);
    until("full weight again", || (daemon.real()["weight"] == 100).then_some(()));
}

#[test]
fn a_postscreen_that_does_not_know_the_director_is_explained_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            std::thread::spawn(move || -> std::io::Result<()> {
                let mut client = client?;
                client.write_all(b"220-wait a moment\r\n")?;
                std::thread::sleep(Duration::from_secs(2)); // postscreen_greet_wait under stress
                client.write_all(b"220 real1.example\r\n")?;
                for reply in ["250 real1.example\r\n", "221 bye\r\n"] {
                    client.read_exact(&mut [0; 4])?;
                    while client.read(&mut [0; 64])? == 64 {}
                    client.write_all(reply.as_bytes())?;
                }
                Ok(())
            });
        }
    });
    let daemon = Daemon::start("postscreen", address, "");
    until("full weight", || (daemon.real()["weight"] == 100).then_some(()));
    let passed = "check=\"smtp\",tier=\"base\",stage=\"quit\",reason=\"ok\"} 2";
    until("a second check", || daemon.get("/metrics")?.contains(passed).then_some(()));
    let log = daemon.log();
    assert_eq!(log.matches("Allow-list it there with postscreen_access_list").count(), 1, "{log}");
    assert!(log.contains("holds back the end of its banner for 2.0 s"), "{log}");
}

/// An SMTP server inside TLS, whose certificate ends then.
async fn secure_server(not_after: SystemTime) -> SocketAddr {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["mail.example".to_owned()]).unwrap();
    params.not_after = not_after.into();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut client = acceptor.accept(client).await?;
                for reply in ["220 mail.example\r\n", "250 mail.example\r\n", "221 bye\r\n"] {
                    client.write_all(reply.as_bytes()).await?;
                    let _ = client.read(&mut [0; 100]).await?;
                }
                std::io::Result::Ok(())
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_ends_soon_is_told_of_and_one_that_has_ended_degrades() {
    let days = |days: u64| Duration::from_secs(days * 86_400 + 3_600);
    let soon = SystemTime::now() + days(5);
    let past = SystemTime::now() - days(5);
    for (ends, state, weight, line) in [
        (soon, "up", 100, "expires in 5 days"),
        (past, "degraded", 50, "degraded to 50%: certificate_expired at tls"),
    ] {
        let server = secure_server(ends).await;
        let daemon = Daemon::start("certificate", server, "");
        // Nobody vouches for it; the end of a certificate is looked at first.
        let more = "[check]\ntls = { mode = \"implicit\" }\nverdict.certificate_untrusted = \"up\"\n";
        let text = fs::read_to_string(daemon.config()).unwrap().replace("[check]\n", more);
        fs::write(daemon.config(), text).unwrap();
        daemon.signal(Signal::HUP);
        until(state, || (daemon.real()["state"] == state && daemon.real()["weight"] == weight).then_some(()));
        assert!(daemon.log().contains(line), "{}", daemon.log());
        let seconds = ends.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let metric = format!(
            "certificate_not_after_timestamp_seconds{{virtual=\"mail\",real=\"{server}\"}} {seconds}\n"
        );
        assert!(daemon.get("/metrics").unwrap().contains(&metric), "{}", daemon.get("/metrics").unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_comes_with_the_first_answers_and_an_unknown_server_is_not_in_the_table() {
    // Accepts and says nothing: the check is under way for as long as this test needs.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let daemon = Daemon::start("ready", silent.local_addr().unwrap(), "");
    let answer = daemon.get("/ready").unwrap();
    assert!(answer.starts_with("HTTP/1.0 503") && answer.contains("no answer yet"), "{answer}");
    assert_eq!((&daemon.real()["state"], &daemon.real()["weight"]), (&"unknown".into(), &Value::Null));
    drop(silent);
    until("ready", || daemon.get("/ready")?.starts_with("HTTP/1.0 200").then_some(()));
    assert_eq!(daemon.real()["state"], "down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_file_changes_nothing_and_is_named_in_the_log_and_the_metrics() {
    let sink = Sink::start("127.0.0.1:0".parse().unwrap(), SinkConfig::new("real1.example")).unwrap();
    let daemon = Daemon::start("broken", sink.address(), "");
    until("full weight", || (daemon.real()["weight"] == 100).then_some(()));
    let good = fs::read_to_string(daemon.config()).unwrap();
    fs::write(daemon.config(), good.clone() + "weight = -3\n").unwrap();
    daemon.signal(Signal::HUP);
    until("the refusal", || (daemon.status()["last_reload_ok"] == false).then_some(()));
    let place = format!("{}:12:10: error: weight: -3", daemon.config().display());
    assert!(daemon.log().contains(&place), "{}", daemon.log());
    assert_eq!(daemon.real()["weight"], 100);
    assert!(daemon.get("/metrics").unwrap().contains("smtp_director_reloads_total{result=\"error\"} 1"));
    fs::write(daemon.config(), good + "weight = 3\n").unwrap();
    daemon.signal(Signal::HUP);
    until("weight 3", || (daemon.real()["weight"] == 3).then_some(()));
    assert_eq!(daemon.status()["last_reload_ok"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_written_costs_its_lines_and_nothing_else() {
    let mut sink = Sink::start("127.0.0.1:0".parse().unwrap(), SinkConfig::new("real1.example")).unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let daemon = Daemon::start_with(Folder::new("log"), sink.address(), "", full);
    until("full weight", || (daemon.real()["weight"] == 100).then_some(()));
    sink.stop().await;
    until("weight 0", || (daemon.real()["weight"] == 0).then_some(()));
}

#[test]
fn an_output_that_cannot_be_written_is_an_exit_code_and_no_panic() {
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let code = |arguments: &[&str]| {
        let mut child = Command::new(PROGRAM);
        child.args(arguments).stdin(Stdio::null()).stdout(full()).stderr(full()).status().unwrap().code()
    };
    assert_eq!(code(&["validate", "/nowhere/x.toml"]), Some(78));
    assert_eq!(code(&["probe", "127.0.0.1:1"]), Some(74));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_autoreload_a_change_of_the_file_is_enough() {
    let sink = Sink::start("127.0.0.1:0".parse().unwrap(), SinkConfig::new("real1.example")).unwrap();
    let daemon = Daemon::start("autoreload", sink.address(), "autoreload = true\n");
    until("full weight", || (daemon.real()["weight"] == 100).then_some(()));
    let text = fs::read_to_string(daemon.config()).unwrap();
    fs::write(daemon.config(), text + "weight = 3\n").unwrap();
    until("weight 3", || (daemon.real()["weight"] == 3).then_some(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_outlives_the_request_to_end() {
    let sink = Sink::start("127.0.0.1:0".parse().unwrap(), SinkConfig::new("real1.example")).unwrap();
    let mut daemon = Daemon::start("end", sink.address(), "");
    until("full weight", || (daemon.real()["weight"] == 100).then_some(()));
    let mut session = TcpStream::connect(daemon.vip).unwrap();
    session.set_read_timeout(Some(LIMIT)).unwrap();
    let mut byte = [0];
    session.read_exact(&mut byte).unwrap();
    daemon.signal(Signal::TERM);
    until("no listener", || TcpStream::connect(daemon.vip).err());
    daemon.signal(Signal::HUP); // neither this nor a scrape is a second request to end
    assert!(daemon.get("/metrics").is_some());
    session.write_all(b"QUIT\r\n").unwrap();
    let mut rest = String::new();
    session.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("\r\n221 "), "{rest}");
    drop(session);
    assert!(daemon.wait().success(), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_request_to_end_is_obeyed_at_once() {
    let sink = Sink::start("127.0.0.1:0".parse().unwrap(), SinkConfig::new("real1.example")).unwrap();
    let mut daemon = Daemon::start("end-now", sink.address(), "");
    until("full weight", || (daemon.real()["weight"] == 100).then_some(()));
    let mut session = TcpStream::connect(daemon.vip).unwrap();
    session.read_exact(&mut [0]).unwrap();
    daemon.signal(Signal::TERM);
    until("no listener", || TcpStream::connect(daemon.vip).err());
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success(), "{}", daemon.log());
}

#[test]
fn what_cannot_start_says_why_and_exits_by_sysexits() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (taken, free) = (taken.local_addr().unwrap(), free_port());
    let folder = Folder::new("start");
    let file = folder.file(Daemon::file(taken, free, neighbour(free)));
    let file = file.to_str().unwrap();
    for (arguments, code, text) in [
        (vec!["run", "--config", file], 71, "is another smtp-director running?"),
        (vec!["run", "--config", "/nowhere/x.toml"], 78, "/nowhere/x.toml: cannot read"),
        (vec!["status", "--http", &free.to_string()], 69, "is smtp-director running?"),
        (vec!["probe", "a:b:c"], 64, "HOST:PORT"),
        (vec!["probe", "nosuch.invalid"], 68, "cannot find the address of \"nosuch.invalid\""),
        (vec!["probe", "127.0.0.1", "--ehlo-name", "a b"], 64, "director.example.com"),
        (vec!["probe", "127.0.0.1", "--deadline", "99999999999999999999s"], 64, "5s or 500ms"),
        (vec!["walk"], 64, "unrecognized subcommand"),
    ] {
        let output = program(&arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(text), "{arguments:?}: {said}");
        assert_eq!(output.stdout, b"", "{arguments:?}");
    }
}

#[test]
fn without_ipvs_in_the_kernel_it_says_so_and_auto_takes_the_proxy() {
    let (http, free) = (free_port(), free_port());
    let folder = Folder::new("no-ipvs");
    let text = Daemon::file(http, free, neighbour(free));
    let file = folder.file(text.replace("proxy", "ipvs"));
    // `plan` only reads: on a machine that has IPVS this test has nothing to see, and does no harm.
    let output = program(&["plan", "--config", file.to_str().unwrap()]);
    let said = String::from_utf8(output.stderr).unwrap();
    match output.status.code() {
        Some(69) => assert!(said.contains("modprobe ip_vs"), "{said}"),
        Some(77) => return assert!(said.contains("CAP_NET_ADMIN"), "{said}"),
        Some(0) => return println!("this kernel has IPVS"),
        code => panic!("{code:?}: {said}"),
    }
    let file = folder.file(text.replace("proxy", "auto"));
    let output = program(&["plan", "--config", file.to_str().unwrap()]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("no IPVS") && said.contains(&format!("+ TCP {free} wlc")), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_answers_what_it_has_and_refuses_the_rest() {
    let sink = Sink::start("127.0.0.1:0".parse().unwrap(), SinkConfig::new("real1.example")).unwrap();
    let daemon = Daemon::start("http", sink.address(), "");
    for (request, expected) in [
        ("POST /status HTTP/1.0\r\n\r\n", "HTTP/1.0 405"),
        ("GET /nothing HTTP/1.0\r\n\r\n", "HTTP/1.0 404"),
        ("HEAD /status HTTP/1.0\r\n\r\n", "HTTP/1.0 200"),
        ("EHLO me\r\n\r\n", "HTTP/1.1 400"),
    ] {
        let answer = answer(daemon.http, request).unwrap();
        assert!(answer.starts_with(expected), "{request:?}: {answer}");
    }
    let endless = format!("GET /status HTTP/1.0\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    // It may close before all of it is written: then there is no answer to read.
    let answer = answer(daemon.http, &endless).unwrap_or_default();
    assert!(!answer.contains(" 200 "), "{answer}");
    assert!(daemon.get("/status").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_plan_and_probe_say_what_is() {
    let sink = Sink::start("127.0.0.1:0".parse().unwrap(), SinkConfig::new("real1.example")).unwrap();
    let daemon = Daemon::start("commands", sink.address(), "");
    until("full weight", || (daemon.real()["weight"] == 100).then_some(()));
    let config = daemon.config();
    let config = config.to_str().unwrap();
    let said = |arguments: &[&str]| {
        let output = program(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let status = said(&["status", "--config", config]);
    let line = status.lines().find(|line| line.contains(&sink.address().to_string())).unwrap();
    let words: Vec<_> = line.split_whitespace().take(7).collect();
    assert_eq!(words, ["->", &sink.address().to_string(), "Proxy", "100", "0", "0", "up"], "{status}");
    let json: Value = serde_json::from_str(&said(&["status", "--config", config, "--json"])).unwrap();
    assert_eq!(json["dataplane"], "proxy");
    let plan = said(&["plan", "--config", config]);
    assert!(
        plan.ends_with(&format!("+ TCP {} -> {} Route weight 100\n", daemon.vip, sink.address())),
        "{plan}"
    );
    assert_eq!(said(&["validate", config]), "");
    let probe = said(&["probe", &sink.address().to_string(), "--ehlo-name", "me.example"]);
    assert!(probe.contains("> EHLO me.example") && probe.contains("< 221 "), "{probe}");
    let json: Value = serde_json::from_str(&said(&["probe", &sink.address().to_string(), "--json"])).unwrap();
    assert_eq!((&json["verdict"], &json["stages"][1]["code"]), (&"up".into(), &220.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs promtool of Debian's package prometheus: tests/run"]
async fn the_metrics_pass_promtool() {
    let sink = Sink::start("127.0.0.1:0".parse().unwrap(), SinkConfig::new("real1.example")).unwrap();
    let daemon = Daemon::start("promtool", sink.address(), "");
    until("full weight", || (daemon.real()["weight"] == 100).then_some(()));
    let answer = daemon.get("/metrics").unwrap();
    let metrics = answer.split_once("\r\n\r\n").unwrap().1;
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = promtool.expect("promtool");
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && complaints.is_empty(), "{complaints}\n{metrics}");
    let real = format!("{{virtual=\"mail\",real=\"{}\"}}", sink.address());
    for line in [
        format!("smtp_director_real_up{real} 1"),
        format!("smtp_director_real_weight{real} 100"),
        "smtp_director_in_sync 1".to_owned(),
        format!(
            "smtp_director_checks_total{{target=\"{}\",check=\"smtp\",tier=\"base\",stage=\"quit\",reason=\"ok\"}}",
            sink.address()
        ),
    ] {
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
}
