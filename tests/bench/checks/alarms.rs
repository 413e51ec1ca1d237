//! A healthy farm on a machine without a core to spare: who is taken out?
//!
//! The director, the servers, the mail and the idle work all share the cores.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use loadgen::message::Message;
use loadgen::session::send;
use loadgen::sink::{Sink, SinkConfig};

const DIRECTOR: &str = env!("CARGO_BIN_EXE_smtp-director");
/// Real servers.
const FARM: u8 = 20;
/// Messages under way at any time.
const SENDERS: u64 = 16;
const PATIENCE: Duration = Duration::from_secs(60);

/// The cheap check at its defaults (10 s, retry 2 s, fall 3) behind the proxy dataplane.
pub(crate) fn false_alarms(time: Duration) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    let sink = runtime.block_on(async {
        Sink::start("0.0.0.0:0".parse().expect("address"), SinkConfig::new("sink.example")).expect("sink")
    });
    let (vip, http) = (free(), free());
    let file = std::env::temp_dir().join(format!("smtp-director-alarms-{}.toml", std::process::id()));
    let log = file.with_extension("log");
    let port = sink.address().port();
    let text = format!(
        "dataplane = \"proxy\"\nhttp = \"{http}\"\n[[virtual]]\naddress = \"{vip}\"\n[[virtual.real]]\naddress = \"127.201.0.1-127.201.0.{FARM}:{port}\"\n"
    );
    fs::write(&file, text).expect("configuration");
    let mut director = Command::new(DIRECTOR)
        .args(["run", "--config"])
        .arg(&file)
        .stdin(Stdio::null())
        .stderr(fs::File::create(&log).expect("log"))
        .spawn()
        .expect("director");
    wait_until_ready(http);

    let (over, spun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let cores = std::thread::available_parallelism().expect("cores").get();
    let spinners: Vec<_> = (0..cores * 2)
        .map(|_| {
            let (over, spun) = (Arc::clone(&over), Arc::clone(&spun));
            std::thread::spawn(move || {
                let mut hash = 0_u64;
                while !over.load(Ordering::Relaxed) {
                    (0..1_000_000_u64).for_each(|n| hash = std::hint::black_box(hash.rotate_left(5) ^ n));
                    spun.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let end = Instant::now() + time;
    let (sent, lost) = runtime.block_on(press(vip, end));
    over.store(true, Ordering::Relaxed);
    spinners.into_iter().for_each(|spinner| spinner.join().expect("spinner"));

    let metrics = get(http, "/metrics");
    let checks: u64 = counts(&metrics, "").sum();
    let passed: u64 = counts(&metrics, "reason=\"ok\"").sum();
    director.kill().expect("kill");
    director.wait().expect("wait");
    let log_text = fs::read_to_string(&log).expect("log");
    let changes = log_text.lines().filter(|line| line.contains(" is down: ")).count();
    println!(
        "{FARM} healthy servers, {} spinners on {cores} cores, {sent} messages sent and {lost} not, {} s: {checks} checks, {} failed, {changes} servers taken out",
        cores * 2,
        time.as_secs(),
        checks - passed,
    );
    fs::remove_file(file).expect("remove");
    fs::remove_file(log).expect("remove");
}

/// Mail without a pause. Messages that were accepted, and that were not.
async fn press(vip: SocketAddr, end: Instant) -> (u64, u64) {
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            tokio::spawn(async move {
                let (mut sent, mut lost) = (0_u64, 0_u64);
                while Instant::now() < end {
                    let message = Message {
                        id: format!("bench-{sender}-{sent}-{lost}"),
                        from: "bench@example.com".to_owned(),
                        to: "discard@example.com".to_owned(),
                        body: vec![b'x'; 4096],
                    };
                    match send(vip, &message, PATIENCE).await {
                        Ok(_) => sent += 1,
                        Err(_) => lost += 1,
                    }
                }
                (sent, lost)
            })
        })
        .collect();
    let mut sum = (0, 0);
    for sender in senders {
        let (sent, lost) = sender.await.expect("sender");
        sum = (sum.0 + sent, sum.1 + lost);
    }
    sum
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port")
}

fn wait_until_ready(http: SocketAddr) {
    let start = Instant::now();
    while !std::net::TcpStream::connect(http).is_ok_and(|_| get(http, "/ready").starts_with("HTTP/1.1 200")) {
        assert!(start.elapsed() < PATIENCE, "the director is not ready");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn get(http: SocketAddr, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(http).expect("http");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").expect("request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answer");
    answer
}

/// The values of `smtp_director_checks_total` whose labels contain `label`.
fn counts(metrics: &str, label: &str) -> impl Iterator<Item = u64> {
    let lines = metrics
        .lines()
        .filter(move |line| line.starts_with("smtp_director_checks_total{") && line.contains(label));
    lines.map(|line| line.rsplit(' ').next().expect("a value").parse().expect("a count"))
}
