//! Measurements of the director. Prints figures; asserts nothing. `tests/bench/run` runs all of it.
//!
//!     director kills COUNT                        in the lab's guest: from kill -9 of a Postfix to weight 0 in the kernel
//!     director size DATAPLANE REALS SECONDS       memory and CPU of a director with that many real servers
#![allow(
    dead_code,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a program that measures, with the tests' farm; it ends at the first surprise"
)]

#[path = "../farm/mod.rs"]
mod farm;

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use farm::director::{Config, DIRECTOR, Director};
use farm::host::wait_until;
use farm::{Farm, Ip, REALS, Wiring, ipvs};
use loadgen::sink::{Sink, SinkConfig};

const LIMIT: Duration = Duration::from_secs(60);

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["kills", count] => kills(count.parse().expect("COUNT")),
        ["size", dataplane, reals, seconds] => {
            size(dataplane, reals.parse().expect("REALS"), seconds.parse().expect("SECONDS"));
        }
        _ => println!("usage: director kills COUNT | size DATAPLANE REALS SECONDS"),
    }
}

/// Interval 1 s, retry 300 ms, fall 3, as in the farm's configuration.
fn kills(count: usize) {
    let mut farm = Farm::new(Wiring::Gate);
    let config = Config { wiring: Wiring::Gate, ip: Ip::V4, reals: REALS.to_vec(), fallback: false };
    let _director = Director::start(&farm, &config);
    let vip = Ip::V4.vip();
    let mut times: Vec<u128> = (0..count)
        .map(|kill| {
            let real = &mut farm.reals[kill % 3];
            let address = Ip::V4.smtp(REALS[kill % 3]);
            wait_until(LIMIT, "all are in", || {
                let weights = ipvs::weights(&farm.director, vip);
                weights.len() == 3 && weights.values().all(|weight| *weight == 1)
            });
            // Kills fall anywhere between two checks.
            std::thread::sleep(Duration::from_millis(u64::try_from(kill * 617 % 1000).expect("small")));
            let line = proc_line(address);
            let start = Instant::now();
            real.kill();
            let took = farm.director.inside(|| {
                while !fs::read_to_string("/proc/thread-self/net/ip_vs").expect("IPVS").contains(&line) {
                    assert!(start.elapsed() < LIMIT, "the weight never became 0");
                    std::thread::sleep(Duration::from_millis(2));
                }
                start.elapsed().as_millis()
            });
            real.start();
            took
        })
        .collect();
    times.sort_unstable();
    let late = times.iter().filter(|time| **time > 2000).count();
    println!("kill -9 to weight 0, {count} kills, ms: {times:?}");
    println!(
        "median {}, worst {}, above interval + fall x retry + 100 ms = 2000: {late}",
        times[count / 2],
        times[count - 1]
    );
}

/// How `/proc/net/ip_vs` writes a real server in direct routing with weight 0.
fn proc_line(address: SocketAddr) -> String {
    let std::net::IpAddr::V4(ip) = address.ip() else { panic!("IPv4 only") };
    format!("{:08X}:{:04X}      Route   0 ", ip.to_bits(), address.port())
}

/// Default intervals; real servers on as many addresses of loopback, served by a sink in this process.
fn size(dataplane: &str, reals: usize, seconds: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let sink = runtime.block_on(async {
        Sink::start("0.0.0.0:0".parse().expect("address"), SinkConfig::new("sink.example")).expect("sink")
    });
    let port = sink.address().port();
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));

    let free =
        || std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("port");
    let http = free();
    // Direct routing cannot change the port; the proxy could not listen where the sink does.
    let service = if dataplane == "proxy" { free().port() } else { port };
    let file = std::env::temp_dir().join(format!("smtp-director-bench-{}.toml", std::process::id()));
    let mut text = format!(
        "dataplane = \"{dataplane}\"\nhttp = \"{http}\"\nlog = \"warn\"\n[[virtual]]\naddress = \"127.200.0.1:{service}\"\n"
    );
    for first in (0..reals).step_by(250) {
        let last = (reals - first).min(250);
        let subnet = first / 250;
        text +=
            &format!("[[virtual.real]]\naddress = \"127.201.{subnet}.1-127.201.{subnet}.{last}:{port}\"\n");
    }
    fs::write(&file, text).expect("configuration");
    let mut director = Command::new(DIRECTOR)
        .args(["run", "--config"])
        .arg(&file)
        .stdin(Stdio::null())
        .spawn()
        .expect("director");
    let pid = director.id();
    let ready = || {
        let status =
            Command::new(DIRECTOR).args(["status", "--http", &http.to_string()]).output().expect("status");
        String::from_utf8_lossy(&status.stdout).lines().filter(|line| line.contains(" up ")).count() == reals
    };
    wait_until(LIMIT, "all are up", ready);

    let before = cpu(pid);
    std::thread::sleep(Duration::from_secs(seconds));
    let used = cpu(pid) - before;
    let memory = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let resident = memory.lines().find(|line| line.starts_with("VmRSS")).expect("VmRSS");
    let per_mille = used.as_secs_f64() / (seconds as f64) * 100.0;
    println!(
        "{dataplane}, {reals} real servers, default intervals, {seconds} s: {used:?} of CPU ({per_mille:.2} % of a core), {resident}"
    );
    director.kill().expect("kill");
    director.wait().expect("wait");
    fs::remove_file(file).expect("remove");
}

/// User and system time so far; `/proc` counts in hundredths of a second.
fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let after_name = stat.rsplit_once(')').expect("name").1;
    let ticks = |index: usize| -> u64 {
        after_name.split_whitespace().nth(index).expect("field").parse().expect("ticks")
    };
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}
