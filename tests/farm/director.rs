//! The director as a process on its host: configuration, start, signals, log, HTTP.
//!
//! Owns the process. Refuses to know the table. It is killed on drop.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::host::{Host, wait_until};
use super::{FALLBACK, Farm, Ip, Wiring};

/// The program under test.
pub(crate) const DIRECTOR: &str = env!("CARGO_BIN_EXE_smtp-director");

const HTTP_PORT: u16 = 9625;

/// One virtual on the VIP, as a configuration file.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) wiring: Wiring,
    pub(crate) ip: Ip,
    /// Last numbers of the real servers' addresses.
    pub(crate) reals: Vec<u8>,
    pub(crate) fallback: bool,
}

impl Config {
    pub(crate) fn text(&self) -> String {
        let Self { wiring, ip, reals, fallback } = self;
        let dataplane = if *wiring == Wiring::Proxy { "proxy" } else { "ipvs" };
        let mut text = format!(
            "dataplane = \"{dataplane}\"\n\
             http = \"127.0.0.1:{HTTP_PORT}\"\n\
             resync = \"1s\"\n\n\
             [check]\n\
             interval = \"1s\"\n\
             retry = \"300ms\"\n\
             fall = 3\n\
             rise = 2\n\n\
             [[virtual]]\n\
             name = \"mail\"\n\
             address = \"{vip}\"\n\
             scheduler = \"wlc\"\n\
             forward = \"{forward}\"\n\
             quiescent = true\n\
             weight = 1\n\
             drain = \"10m\"\n",
            vip = ip.vip(),
            forward = wiring.forward(),
        );
        if *fallback {
            let (address, forward) = (ip.address(FALLBACK), wiring.forward());
            writeln!(text, "fallback = {{ address = \"{address}\", forward = \"{forward}\" }}")
                .expect("String");
        }
        for last in reals {
            write!(text, "\n[[virtual.real]]\naddress = \"{}\"\n", ip.address(*last)).expect("String");
        }
        text
    }
}

/// `smtp-director` with this subcommand and its options and the farm's file, run by another program if one is given.
fn command(wrapper: &[&str], farm: &Farm, subcommand: &str) -> Command {
    let mut words =
        wrapper.iter().copied().chain([DIRECTOR]).chain(subcommand.split_whitespace()).chain(["--config"]);
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words).arg(farm.folder.join("director.toml"));
    command
}

/// Runs a subcommand on the director's host to its end, with this file; a daemon that stays gets 30 s.
pub(crate) fn run_to_end(wrapper: &[&str], farm: &Farm, subcommand: &str, text: &str) -> Output {
    fs::write(farm.folder.join("director.toml"), text).expect("director.toml");
    let wrapper = [&["timeout", "30"], wrapper].concat();
    farm.director.inside(|| command(&wrapper, farm, subcommand).output().expect("timeout"))
}

/// A running director.
pub(crate) struct Director {
    child: Child,
    host: Host,
    folder: PathBuf,
}

impl Director {
    /// Writes the file, starts the program, waits until it says that it is ready.
    pub(crate) fn start(farm: &Farm, config: &Config) -> Self {
        Self::start_below(&[], farm, &config.text())
    }

    /// The same, run by another program such as `setpriv`, with this file.
    pub(crate) fn start_below(wrapper: &[&str], farm: &Farm, text: &str) -> Self {
        fs::write(farm.folder.join("director.toml"), text).expect("director.toml");
        let log =
            File::options().create(true).append(true).open(farm.folder.join("director.log")).expect("log");
        let child = farm.director.inside(|| {
            command(wrapper, farm, "run")
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("dup"))
                .stderr(log)
                .spawn()
                .expect("spawn")
        });
        let mut director = Self { child, host: farm.director.again(), folder: farm.folder.clone() };
        wait_until(Duration::from_secs(30), "the director is ready", || {
            if let Ok(Some(status)) = director.child.try_wait() {
                panic!("the director ended with {status}:\n{}", director.log());
            }
            director.get("/ready").is_some_and(|(code, _)| code == 200)
        });
        director
    }

    /// Replaces the configuration file; the director is not told.
    pub(crate) fn write(&self, text: &str) {
        fs::write(self.config(), text).expect("director.toml");
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.join("director.toml")
    }

    /// SIGHUP: reload.
    pub(crate) fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// SIGTERM, and its end.
    pub(crate) fn terminate(mut self) {
        self.signal(Signal::TERM);
        assert!(self.child.wait().expect("wait").success(), "{}", self.log());
    }

    /// SIGKILL, as a crash does it.
    pub(crate) fn kill(mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("wait");
    }

    /// All that it wrote to standard output and error since the farm began, earlier directors included.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("director.log")).unwrap_or_default()
    }

    /// The weights by `/status`; empty as long as it does not answer.
    pub(crate) fn weights(&self) -> BTreeMap<SocketAddr, u32> {
        let mut weights = BTreeMap::new();
        if let Some((200, body)) = self.get("/status") {
            collect_weights(&serde_json::from_str(&body).expect("JSON"), &mut weights);
        }
        weights
    }

    /// Status code and body of `GET path`; `None` while nobody answers.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, HTTP_PORT));
        let answer = self.host.inside(|| {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
            stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            Some(answer)
        })?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("pid");
        kill_process(pid, signal).expect("the director runs");
    }
}

impl Drop for Director {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("--- director.log\n{}", self.log());
        }
    }
}

/// Every object of `/status` that has an `address` and a `weight` is a real server in the table.
fn collect_weights(value: &Value, weights: &mut BTreeMap<SocketAddr, u32>) {
    if let (Some(address), Some(weight)) = (value["address"].as_str(), value["weight"].as_u64())
        && let (Ok(address), Ok(weight)) = (address.parse(), u32::try_from(weight))
    {
        weights.insert(address, weight);
    }
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect_weights(item, weights)),
        Value::Object(fields) => fields.values().for_each(|field| collect_weights(field, weights)),
        _ => {}
    }
}
