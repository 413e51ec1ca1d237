//! The command `ldirectord` as a process: what it says, its exit codes, its pid file, and how daemons begin and end.
//! Without privileges: the proxy dataplane on loopback.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "also in the functions that the tests share"
)]

mod alerts;
mod badinput;
mod behaviour;
mod directives;
mod faults;
mod managers;
mod original;
mod recorded;
mod servers;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use loadgen::sink::{Sink, SinkConfig};
use rustix::process::{Pid, Signal, kill_process};

pub(crate) use crate::daemon::{LIMIT, until};
use crate::scratch::Folder;

const PROGRAM: &str = env!("CARGO_BIN_EXE_smtp-director");

/// A folder with a file, pid files and a log, whose daemons end with it.
pub(crate) struct Place {
    folder: Folder,
    pub(crate) vip: SocketAddr,
}

impl Place {
    pub(crate) fn new(test: &str) -> Self {
        let vip = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self { folder: Folder::new(test), vip }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub(crate) fn write(&self, top: &str, rest: &str) {
        let log = self.path("log");
        let text = format!(
            "dataplane = \"proxy\"\nhttp = \"off\"\nresync = \"1s\"\nlog_format = \"ldirectord\"\nlog_to = {log:?}\n{top}\n\
             [check]\ninterval = \"100ms\"\nretry = \"50ms\"\nfall = 2\nrise = 1\n\
             [[virtual]]\nname = \"mail\"\naddress = \"{}\"\n{rest}\n",
            self.vip
        );
        fs::write(self.path("mail.cf"), text).unwrap();
    }

    /// A file of ldirectord, as it is; where it logs is said above it.
    pub(crate) fn write_cf(&self, text: &str) {
        fs::write(self.path("mail.cf"), format!("logfile=\"{}\"\n{text}", self.path("log").display()))
            .unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg0("/usr/sbin/ldirectord").args(arguments).env("LDIRECTORD_RUN_DIR", self.folder.path());
        // What a file of ldirectord has no word for.
        command.env("SMTP_DIRECTOR__DATAPLANE", "proxy").env("SMTP_DIRECTOR__HTTP", "off");
        command.env("SMTP_DIRECTOR__RESYNC", "1s");
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn ldirectord(&self, action: &str) -> Output {
        let file = self.path("mail.cf");
        self.command(&[file.to_str().unwrap(), action]).output().unwrap()
    }

    /// The exit code of an action.
    pub(crate) fn code(&self, action: &str) -> Option<i32> {
        let output = self.ldirectord(action);
        println!("{action}: {output:?}");
        output.status.code()
    }

    fn pid_file(&self) -> PathBuf {
        self.path("ldirectord.mail.cf.pid")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits until the log has it so many times.
    pub(crate) fn until_said(&self, text: &str, times: usize) {
        until(text, || (self.read("log").matches(text).count() >= times).then_some(()));
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.ldirectord("stop");
    }
}

/// Somebody who is no director.
struct Stranger(Child);

impl Stranger {
    fn start() -> Self {
        Self(Command::new("sleep").arg("60").spawn().unwrap())
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const SERVER: &str = "real = [{ address = \"127.0.0.1:1\" }]";

#[test]
fn actions_have_the_exit_codes_that_scripts_know() {
    let place = Place::new("ld-codes");
    place.write("", SERVER);
    for (action, code) in [("status", 3), ("stop", 0), ("reload", 1), ("force-reload", 1), ("try-restart", 0)]
    {
        assert_eq!(place.code(action), Some(code), "{action} of one that does not run");
    }
    assert_eq!(place.code("start"), Some(0));
    let first = place.pid().unwrap();
    for (action, code) in [("start", 0), ("status", 0), ("reload", 0), ("force-reload", 0)] {
        assert_eq!(place.code(action), Some(code), "{action} of one that runs");
        assert_eq!(place.pid(), Some(first));
    }
    for action in ["restart", "try-restart"] {
        let before = place.pid();
        assert_eq!(place.code(action), Some(0));
        assert_ne!(place.pid(), before, "{action}");
        assert_eq!(place.code("status"), Some(0));
    }
    let last = place.pid().unwrap();
    assert_eq!(place.code("stop"), Some(0));
    assert!(!PathBuf::from(format!("/proc/{last}/exe")).exists(), "stop has waited for the end");
    assert!(!place.pid_file().exists());
    assert_eq!(place.code("status"), Some(3));
    assert_eq!(place.code("stop"), Some(0));
    for arguments in [&["start", "mail.cf"][..], &[], &["x.cf", "condrestart"], &["-x", "start"]] {
        assert_eq!(place.command(arguments).output().unwrap().status.code(), Some(255), "{arguments:?}");
    }
    for arguments in [["-v"], ["-h"], ["--help"]] {
        assert_eq!(place.command(&arguments).output().unwrap().status.code(), Some(0), "{arguments:?}");
    }
    let ours = Command::new(PROGRAM).args(["ldirectord", "nowhere.cf", "status"]).output().unwrap();
    assert_eq!(ours.status.code(), Some(3), "the other way to call it");
}

#[test]
fn status_says_who_runs() {
    let place = Place::new("ld-words");
    place.write("", SERVER);
    let said = |place: &Place| {
        let output = place.ldirectord("status");
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let file = place.path("mail.cf");
    assert_eq!(said(&place), format!("ldirectord is stopped for {}\n", file.display()));
    assert_eq!(place.code("start"), Some(0));
    let pid = place.pid().unwrap();
    assert_eq!(said(&place), format!("ldirectord for {} is running with pid: {pid}\n", file.display()));
    assert_eq!(place.code("stop"), Some(0));
    fs::write(place.pid_file(), "999999\n").unwrap();
    let stale = format!("ldirectord stale pid file {} for {}\n", place.pid_file().display(), file.display());
    assert_eq!(said(&place), stale);
    assert_eq!(place.code("status"), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn start_returns_when_the_virtual_takes_connections() {
    let sink = Sink::start("127.0.0.1:0".parse().unwrap(), SinkConfig::new("real1.example")).unwrap();
    let place = Place::new("ld-ready");
    place.write("", &format!("real = [{{ address = \"{}\" }}]", sink.address()));
    assert_eq!(place.code("start"), Some(0));
    std::net::TcpStream::connect(place.vip).expect("it listens when start returns");
    until("the server is in", || place.read("log").contains("Added real server").then_some(()));
}

#[test]
fn no_command_with_a_broken_file_touches_the_running_daemon() {
    let place = Place::new("ld-broken");
    place.write("", SERVER);
    assert_eq!(place.code("start"), Some(0));
    let pid = place.pid();
    for (content, code) in [(Some("virtual = [\n"), 2), (None, 1)] {
        match content {
            Some(text) => fs::write(place.path("mail.cf"), text).unwrap(),
            None => fs::remove_file(place.path("mail.cf")).unwrap(),
        }
        for action in ["reload", "restart", "try-restart", "force-reload"] {
            assert_eq!(place.code(action), Some(code), "{action}");
        }
        for action in ["status", "start"] {
            assert_eq!(place.code(action), Some(0), "it runs: {action}");
        }
        assert_eq!(place.pid(), pid, "the pid file is what it was");
        assert!(PathBuf::from(format!("/proc/{}", pid.unwrap())).exists());
    }
    assert_eq!(place.code("stop"), Some(0), "and it can be stopped without a file");
    assert_eq!(place.code("status"), Some(3));
    assert_eq!(place.code("start"), Some(1), "nothing to start");
    fs::write(place.path("mail.cf"), "junk").unwrap();
    let output = place.ldirectord("start");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("mail.cf:1:"), "{output:?}");
    assert!(!place.pid_file().exists());
}

#[test]
fn a_pid_file_of_somebody_else_is_stale_and_nobody_is_killed_for_it() {
    let place = Place::new("ld-stale");
    place.write("", SERVER);
    let mut stranger = Stranger::start();
    for content in [
        format!("{}\n", stranger.0.id()),
        "1\n".into(),
        "-1\n".into(),
        "0\n".into(),
        "x".repeat(100_000),
        String::new(),
    ] {
        fs::write(place.pid_file(), &content).unwrap();
        assert_eq!(place.code("status"), Some(1), "{:?}", content.get(..8));
        assert_eq!(place.code("stop"), Some(0));
        assert_eq!(place.code("reload"), Some(1));
        assert_eq!(place.code("try-restart"), Some(0));
        assert_eq!(stranger.0.try_wait().unwrap(), None, "it lives");
    }
    fs::write(place.pid_file(), format!("{}\n", stranger.0.id())).unwrap();
    assert_eq!(place.code("start"), Some(0));
    assert_ne!(place.pid(), Some(stranger.0.id()));
    assert_eq!(place.code("status"), Some(0));
    assert_eq!(stranger.0.try_wait().unwrap(), None, "it lives");
}

#[test]
fn two_starts_at_once_are_one_daemon() {
    let place = Place::new("ld-twice");
    place.write("", SERVER);
    let file = place.path("mail.cf");
    let start = || place.command(&[file.to_str().unwrap(), "start"]).spawn().unwrap();
    let mut starts: Vec<_> = (0..4).map(|_| start()).collect();
    for child in &mut starts {
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
    let begun = place.read("log").matches("smtp-director 0").count();
    assert_eq!(begun, 1, "{}", place.read("log"));
    assert_eq!(place.code("status"), Some(0));
}

#[test]
fn a_supervised_daemon_stays_in_the_foreground_and_logs_to_standard_output() {
    let place = Place::new("ld-supervised");
    place.write("supervised = true", SERVER);
    let file = place.path("mail.cf");
    let log = fs::File::create(place.path("out")).unwrap();
    let mut daemon = place.command(&[file.to_str().unwrap(), "start"]).stdout(log).spawn().unwrap();
    let line = until("a line", || place.read("out").lines().next().map(str::to_owned));
    assert!(line.starts_with('[') && line.contains("] smtp-director"), "{line}");
    assert!(!place.pid_file().exists());
    assert_eq!(place.code("status"), Some(3), "it has no pid file");
    let pid = Pid::from_child(&daemon);
    kill_process(pid, Signal::QUIT).unwrap();
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
}

#[test]
fn a_log_that_cannot_be_written_costs_its_lines_and_nothing_else() {
    let place = Place::new("ld-log");
    place.write("", SERVER);
    let text = place.read("mail.cf");
    for target in ["/nonexistent/log", "/dev/full", "/"] {
        let log = format!("{:?}", place.path("log"));
        fs::write(place.path("mail.cf"), text.replace(&log, &format!("{target:?}"))).unwrap();
        assert_eq!(place.code("start"), Some(0), "{target}");
        assert_eq!(place.code("status"), Some(0));
        assert_eq!(place.code("stop"), Some(0));
    }
}
