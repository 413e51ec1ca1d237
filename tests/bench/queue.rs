//! Measurements of `smtp-realserver`. Prints figures; asserts nothing. As root, with Postfix:
//!
//!     cargo bench -p postfix --bench queue                    100,000 deferred messages, beside `postqueue -j`
//!     cargo bench -p postfix --bench queue -- COUNT           so many
//!     cargo bench -p postfix --bench queue -- names COUNT     so many names without content, ours alone
#![allow(
    dead_code,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a program that measures, with the tests' Postfix; it ends at the first surprise"
)]

#[path = "../queue/instance.rs"]
mod instance;

use std::fs::{self, File};
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use instance::{Instance, LATER};
use postfix::report::QueueReport;
use postfix::report::agent::parse;

const LIMIT: Duration = Duration::from_secs(60);
const PROGRAM: &str = env!("CARGO_BIN_EXE_smtp-realserver");
const DIGITS: &[u8; 52] = b"0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz";
const ROUNDS: usize = 5;

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let count = |text: &str| text.parse().expect("COUNT");
    match arguments[..] {
        [] => compare(100_000),
        ["names", number] => names(count(number)),
        [number] => compare(count(number)),
        _ => println!("usage: queue [COUNT | names COUNT]"),
    }
}

/// A message that Postfix deferred, copied under other ids, each in its hash folder.
fn compare(count: u64) {
    let instance = Instance::start("bench", &format!("{LATER}enable_long_queue_ids = yes\n"), "");
    tokio::runtime::Runtime::new().expect("runtime").block_on(instance.send(1));
    instance.await_queue("deferred", 1);
    let deferred = instance.spool().join("deferred");
    let folder = fs::read_dir(&deferred).expect("deferred").flatten().next().expect("a hash folder").path();
    let template = fs::read_dir(folder).expect("folder").flatten().next().expect("a message").path();
    let owner = fs::read_to_string("/etc/passwd").expect("passwd");
    let owner = owner.lines().find(|line| line.starts_with("postfix:")).expect("postfix");
    let owner: u32 = owner.split(':').nth(2).expect("uid").parse().expect("uid");
    fill(&deferred, count, |path| {
        fs::copy(&template, path).expect("copy");
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).expect("mode");
        chown(path, Some(owner), None).expect("chown");
        // In deferred this is when it is tried again.
        let tomorrow = SystemTime::now() + Duration::from_secs(86_400);
        File::open(path).expect("open").set_modified(tomorrow).expect("mtime");
    });
    let mut theirs: Vec<Duration> = Vec::new();
    let mut bytes = 0;
    let mut ours: Vec<Duration> = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let list =
            Command::new("postqueue").arg("-c").arg(instance.config()).arg("-j").output().expect("postqueue");
        theirs.push(start.elapsed());
        bytes = list.stdout.len();
        let listed = list.stdout.split(|byte| *byte == b'\n').count() - 1;
        assert_eq!(listed as u64, count + 1, "postqueue lists them all");
        let start = Instant::now();
        let out = Command::new(PROGRAM)
            .args(["report", "--format", "agent", "--source", "scan", "-c"])
            .arg(instance.config())
            .output()
            .expect("report");
        ours.push(start.elapsed());
        assert_eq!(parse(&out.stdout).expect("line").report.expect("report").deferred, Some(count + 1));
    }
    let (theirs, ours) = (median(theirs), median(ours));
    println!("postqueue -j: {theirs:.1?}, {:.1} MB of text", bytes as f64 / 1e6);
    println!("smtp-realserver report, the whole process: {ours:.1?}");
    let served = serve(&instance.config(), count + 1);
    println!("smtp-realserver serve: {served}");
    println!("ratio, postqueue -j to report: {:.0}", theirs.as_secs_f64() / ours.as_secs_f64());
}

fn names(count: u64) {
    let folder = std::env::temp_dir().join(format!("queue-names-{}", std::process::id()));
    for queue in ["incoming", "active", "deferred"] {
        fs::create_dir_all(folder.join("queue").join(queue)).expect("folder");
    }
    fs::create_dir(folder.join("etc")).expect("folder");
    let main = format!("compatibility_level = 3.6\nqueue_directory = {}/queue\n", folder.display());
    fs::write(folder.join("etc/main.cf"), main).expect("main.cf");
    fs::write(folder.join("etc/master.cf"), "").expect("master.cf");
    fill(&folder.join("queue/deferred"), count, |path| drop(File::create(path).expect("file")));
    println!("{count} names: {}", serve(&folder.join("etc"), count));
    fs::remove_dir_all(folder).expect("remove");
}

fn fill(deferred: &Path, count: u64, mut make: impl FnMut(&Path)) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("time").as_secs();
    for digit in "0123456789ABCDEF".chars() {
        fs::create_dir_all(deferred.join(digit.to_string())).expect("hash folder");
        let owner = fs::metadata(deferred).expect("deferred");
        chown(deferred.join(digit.to_string()), Some(owner.uid()), None).expect("chown");
    }
    for number in 0..count {
        let micros = number * 7919 % 1_000_000;
        let hash = format!("{micros:05X}");
        let id = format!(
            "{}{}z{}",
            base(now - number % 400_000, 52, 6),
            base(micros, 52, 4),
            base(number + 1, 51, 1)
        );
        make(&deferred.join(&hash[..1]).join(id));
    }
}

fn base(mut number: u64, base: u64, width: usize) -> String {
    let mut text = Vec::new();
    while number > 0 || text.len() < width {
        text.push(DIGITS[usize::try_from(number % base).expect("digit")]);
        number /= base;
    }
    text.reverse();
    String::from_utf8(text).expect("ASCII")
}

/// Cost of a look and the most memory of an agent that was asked some times.
fn serve(config: &Path, deferred: u64) -> String {
    let address = free_port(2);
    let mut agent = Command::new(PROGRAM)
        .args(["serve", "--listen", &address.to_string(), "-c"])
        .arg(config)
        .stderr(Stdio::null())
        .spawn()
        .expect("agent");
    wait_until(LIMIT, "the agent listens", || TcpStream::connect(address).is_ok());
    let mut costs = Vec::new();
    let cpu = || {
        // Nanoseconds on a processor, of all threads: what other load on the machine does not change.
        let tasks = fs::read_dir(format!("/proc/{}/task", agent.id())).expect("tasks").flatten();
        let stat = |path: std::path::PathBuf| fs::read_to_string(path.join("schedstat")).expect("schedstat");
        let nanos =
            |text: String| text.split_whitespace().next().expect("time").parse::<u64>().expect("time");
        Duration::from_nanos(tasks.map(|task| nanos(stat(task.path()))).sum())
    };
    let before = cpu();
    wait_until(LIMIT, "looks", || {
        let mut line = Vec::new();
        TcpStream::connect(address).expect("connect").read_to_end(&mut line).expect("line");
        let report: QueueReport = parse(&line).expect("line").report.expect("report");
        assert_eq!(report.deferred, Some(deferred));
        // Another look each time: wait until the last one is not fresh any more.
        std::thread::sleep(Duration::from_millis(1100));
        costs.push(Duration::from_millis(report.cost.expect("cost")));
        costs.len() == ROUNDS
    });
    let cpu = (cpu() - before) / u32::try_from(costs.len()).expect("small");
    let memory = fs::read_to_string(format!("/proc/{}/status", agent.id())).expect("status");
    let peak = memory.lines().find(|line| line.starts_with("VmHWM")).expect("VmHWM").to_owned();
    agent.kill().expect("kill");
    agent.wait().expect("wait");
    format!("a look {:.0?} (median of {ROUNDS}), {cpu:.0?} of CPU, most memory {peak}", median(costs))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn free_port(last: u8) -> SocketAddr {
    TcpListener::bind((std::net::Ipv4Addr::new(127, 0, 9, last), 0))
        .expect("bind")
        .local_addr()
        .expect("address")
}

fn wait_until(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
