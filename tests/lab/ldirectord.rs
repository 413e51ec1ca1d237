//! The original and ours on the table of one kernel, one after the other: the same file, the same servers that die and come
//! back at the same points.
//!
//! A scenario is a function that is run twice, with a [`Turn`] of each program. At each of its points the table must be what is
//! written there, and stay so; then `ipvsadm -Ln`, `-Ln --thresholds` and `-Sn` of the two are compared as text,
//! without their connection counts. What the two do not do alike is a point of its own with a name, which stands in the
//! documentation; it fails when the difference is gone.

#![expect(clippy::disallowed_methods, reason = "EDGE: a table must stay for a while")]

mod kinds;
mod many;
mod negotiate;
mod one;
mod reload;
mod server;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use self::server::Server;
use crate::farm::director::DIRECTOR;
use crate::farm::host::{Host, wait_until};
use crate::farm::ipvs::{self, Tap, Write, ipvsadm};
use crate::farm::{Cable, Farm, Ip, REALS, Wiring};

const ORIGINAL: &str = "/usr/sbin/ldirectord";
/// Far more than any of it takes.
const LIMIT: Duration = Duration::from_secs(40);
/// Looks at the table, a tenth of a second apart, until one that is not right is wrong: time alone would count when the whole
/// machine stands still.
const LOOKS: u32 = 400;
/// A table that is right stays so for longer than from one check to the next.
const STAYS: Duration = Duration::from_millis(1_100);

/// What every file begins with; `@DIR@` is a folder of the turn.
const HEAD: &str = "checkinterval=1\nchecktimeout=2\nnegotiatetimeout=3\nlogfile=\"@DIR@/log\"\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Original,
    Ours,
}

/// A farm on which both have their turns.
struct Lab {
    farm: Farm,
}

/// What was seen at a point.
#[derive(Debug)]
struct Point {
    what: String,
    difference: bool,
    picture: String,
}

/// One program, from its start to its end.
pub(super) struct Turn<'a> {
    program: Program,
    farm: &'a mut Farm,
    servers: BTreeMap<(u8, u16), Server>,
    folder: PathBuf,
    daemon: Option<Child>,
    points: Vec<Point>,
}

/// Plays a scenario with both programs on a farm without servers of its own, and compares.
fn compare(scenario: impl Fn(&mut Turn<'_>)) {
    compare_on(Farm::silent(Wiring::Gate), scenario);
}

fn compare_on(farm: Farm, scenario: impl Fn(&mut Turn<'_>)) {
    let mut lab = Lab { farm };
    let theirs = lab.turn(Program::Original, &scenario);
    let ours = lab.turn(Program::Ours, &scenario);
    assert_eq!(theirs.len(), ours.len());
    for (there, here) in theirs.iter().zip(&ours) {
        assert_eq!(there.what, here.what);
        if there.difference {
            assert_ne!(there.picture, here.picture, "no difference any more: {}", there.what);
        } else {
            let (theirs, ours) = (&there.picture, &here.picture);
            assert!(theirs == ours, "{}: the original's:\n{theirs}--- ours:\n{ours}", there.what);
        }
    }
    println!("{} points", ours.len());
}

impl Lab {
    fn turn(&mut self, program: Program, scenario: &impl Fn(&mut Turn<'_>)) -> Vec<Point> {
        println!("--- {program:?}");
        let began = Instant::now();
        ipvsadm(&self.farm.director, "-C");
        let folder = self.farm.folder.join(format!("{program:?}"));
        fs::create_dir(&folder).expect("a folder");
        let mut turn = Turn {
            program,
            farm: &mut self.farm,
            servers: BTreeMap::new(),
            folder,
            daemon: None,
            points: Vec::new(),
        };
        scenario(&mut turn);
        println!("{:.0} s", began.elapsed().as_secs_f32());
        std::mem::take(&mut turn.points)
    }
}

impl Turn<'_> {
    /// Where the files of this turn are.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn file(&self) -> PathBuf {
        self.folder.join("farm.cf")
    }

    fn director(&self) -> &Host {
        &self.farm.director
    }

    /// Something listens on this port of these hosts.
    pub(super) fn serve(&mut self, hosts: &[u8], port: u16) {
        for last in hosts {
            let server = Server::start(self.host(*last), port);
            self.servers.insert((*last, port), server);
        }
    }

    /// Something listens there until one connection has come.
    pub(super) fn serve_once(&self, last: u8, port: u16) {
        Server::once(self.host(last), port);
    }

    /// Nothing listens there any more; connections that are open stay.
    pub(super) fn kill(&mut self, hosts: &[u8], port: u16) {
        for last in hosts {
            self.servers.remove(&(*last, port)).expect("it runs");
        }
    }

    fn host(&self, last: u8) -> &Host {
        let position = REALS.iter().position(|real| *real == last);
        position.map_or(&self.farm.fallback.host, |position| &self.farm.reals[position].host)
    }

    /// Writes the file; nobody is told.
    pub(super) fn write(&self, text: &str) {
        let text = format!("{HEAD}{text}").replace("@DIR@", &self.folder.display().to_string());
        fs::write(self.file(), text).expect("the file");
    }

    /// Starts the program with this file.
    pub(super) fn start(&mut self, text: &str) {
        self.write(text);
        let log = File::create(self.folder.join("output")).expect("output");
        let mut command = match self.program {
            Program::Original => Command::new(ORIGINAL),
            Program::Ours => Command::new(DIRECTOR),
        };
        if self.program == Program::Ours {
            // Every half minute is too rarely for a test.
            command.arg("ldirectord").env("SMTP_DIRECTOR__RESYNC", "1s");
        }
        // The original takes an ipvsadm of the directory that it is in before that of the system.
        command.arg("-d").arg(self.file()).arg("start").current_dir(&self.folder);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("dup")).stderr(log);
        let child = self.director().inside(|| command.spawn().expect("spawn"));
        self.daemon = Some(child);
    }

    fn signal(&self, signal: Signal) {
        let child = self.daemon.as_ref().expect("it runs");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("pid");
        kill_process(pid, signal).expect("it runs");
    }

    /// Another file, and word of it.
    pub(super) fn reload(&mut self, text: &str) {
        self.write(text);
        self.signal(Signal::HUP);
    }

    /// Word of a file that is the same as before, while 13 is dead; it is done when this returns.
    pub(super) fn reload_again(&mut self) {
        let words = match self.program {
            Program::Original => "Quiescent real server: 10.99.0.13:80 ",
            Program::Ours => "configuration reloaded, nothing changed",
        };
        let before = self.said(words);
        self.signal(Signal::HUP);
        self.says(words, before + 1);
    }

    /// Ends it in order.
    pub(super) fn stop(&mut self) {
        self.signal(Signal::TERM);
        let mut child = self.daemon.take().expect("it runs");
        let status = child.wait().expect("wait");
        assert!(status.success(), "{:?}: {status}", self.program);
    }

    /// Writes a script of the shell, `@DIR@` is the folder.
    pub(super) fn script(&self, name: &str, text: &str) {
        let path = self.folder.join(name);
        let text = text.replace("@DIR@", &self.folder.display().to_string());
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode");
    }

    pub(super) fn folder_of(&self, name: &str) {
        fs::create_dir(self.folder.join(name)).expect("a folder");
    }

    pub(super) fn touch(&self, name: &str) {
        fs::write(self.folder.join(name), "").expect("a file");
    }

    pub(super) fn remove(&self, name: &str) {
        fs::remove_file(self.folder.join(name)).expect("a file");
    }

    /// Pulls the cable of a host, or plugs it in.
    pub(super) fn cable(&self, host: &str, cable: Cable) {
        self.farm.cable(host, cable);
    }

    /// A session of a client with port 80 of the VIP.
    pub(super) fn connect(&self) -> TcpStream {
        let vip = SocketAddr::new(Ip::V4.vip().ip(), 80);
        self.farm.client.inside(|| TcpStream::connect_timeout(&vip, LIMIT).expect("a session"))
    }

    /// Changes the table by hand.
    pub(super) fn ipvsadm(&self, arguments: &str) {
        ipvsadm(self.director(), arguments);
    }

    /// What is asked of the kernel meanwhile.
    pub(super) fn writes(&mut self, work: impl FnOnce(&mut Self)) -> Vec<Write> {
        let tap = Tap::start(self.farm);
        work(self);
        let writes = tap.all_writes(self.director());
        drop(tap);
        self.director().ip("link del nlmon0\n");
        writes
    }

    /// How often the program has said this.
    pub(super) fn said(&self, words: &str) -> usize {
        let output = fs::read_to_string(self.folder.join("output")).unwrap_or_default();
        output.lines().filter(|line| !line.starts_with("DEBUG") && line.contains(words)).count()
    }

    /// Waits until the program has said this so often.
    pub(super) fn says(&self, words: &str, times: usize) {
        wait_until(LIMIT, &format!("{:?} says: {words}", self.program), || self.said(words) >= times);
        assert_eq!(self.said(words), times, "{words}");
    }

    /// Waits for this table, and that it stays: a line for each virtual, with the last numbers of its servers and their weights. It
    /// is the same with both, to the letter.
    pub(super) fn point(&mut self, what: &str, wanted: &str) {
        let picture = self.wait_for(what, wanted);
        self.points.push(Point { what: what.to_owned(), difference: false, picture });
    }

    /// Waits for the table that each of the two has; the difference is documented by this name.
    pub(super) fn difference(&mut self, name: &str, (there, here): (&str, &str)) {
        is_documented(name);
        let wanted = if self.program == Program::Original { there } else { here };
        let picture = self.wait_for(name, wanted);
        self.points.push(Point { what: name.to_owned(), difference: true, picture });
    }

    /// Likewise of something else that was seen.
    pub(super) fn other_difference(&mut self, name: &str, seen: String) {
        is_documented(name);
        self.points.push(Point { what: name.to_owned(), difference: true, picture: seen });
    }

    fn wait_for(&mut self, what: &str, wanted: &str) -> String {
        let wanted: Vec<&str> = wanted.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let wanted = wanted.join("\n");
        let began = Instant::now();
        let mut since: Option<Instant> = None;
        let mut looks = 0;
        let (mut glimpsed, mut seen) = (None, String::new());
        loop {
            let now = glimpse(self.director());
            if glimpsed.as_ref() != Some(&now) {
                glimpsed = Some(now);
                seen = short(self.director());
                println!("{what}: {:.1} s: {}", began.elapsed().as_secs_f32(), seen.replace('\n', " | "));
            }
            let ended = self.daemon.as_mut().and_then(|child| child.try_wait().expect("wait"));
            if let Some(status) = ended {
                panic!("{:?} has ended: {status}: {what}", self.program);
            }
            if seen == wanted {
                if since.get_or_insert_with(Instant::now).elapsed() >= STAYS {
                    return picture(self.director());
                }
            } else {
                assert!(
                    since.is_none() || self.program == Program::Original,
                    "{what}: it did not stay: {seen}"
                );
                since = None;
            }
            looks += 1;
            assert!(looks < LOOKS, "{:?}: {what}: {seen}\nwanted: {wanted}", self.program);
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            let output = fs::read_to_string(self.folder.join("output")).unwrap_or_default();
            let lines: Vec<&str> = output.lines().filter(|line| !line.starts_with("DEBUG")).collect();
            println!("--- {:?}\n{}", self.program, lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}

fn is_documented(name: &str) {
    let page = include_str!("../../src/config/ldirectord/README.md");
    assert!(page.contains(&format!("| *{name}* |")), "not in the table of the documentation: {name}");
}

/// What the kernel shows of the table to who reads a file, without connection counts: quicker than a program, which would take
/// the only processor from those that are watched.
fn glimpse(director: &Host) -> String {
    let text = director.inside(|| fs::read_to_string("/proc/thread-self/net/ip_vs").expect("IPVS"));
    uncounted(&text)
}

/// `TCP 10.99.0.100:80 rr 11=1 12=1`, a line for each virtual.
fn short(director: &Host) -> String {
    let mut text = String::new();
    for (name, service) in ipvs::table(director) {
        let port = name.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
        write!(text, "{name} {}", service.scheduler).expect("String");
        for (address, real) in service.reals {
            let shown = if port.is_none_or(|port| port == address.port()) {
                last(address)
            } else {
                address.to_string()
            };
            write!(text, " {shown}={}", real.weight).expect("String");
        }
        text.push('\n');
    }
    text.pop();
    text
}

/// The last number of an address of the farm.
fn last(address: SocketAddr) -> String {
    let number = match address.ip() {
        IpAddr::V4(ip) => u16::from(ip.octets()[3]),
        IpAddr::V6(ip) => ip.segments()[7],
    };
    let own = |ip: Ip| u8::try_from(number).is_ok_and(|last| ip.address(last) == address.ip());
    if own(Ip::V4) || own(Ip::V6) { number.to_string() } else { address.ip().to_string() }
}

/// All that `ipvsadm` shows of the table but connection counts.
fn picture(director: &Host) -> String {
    let table = uncounted(&ipvsadm(director, "-Ln"));
    let thresholds = uncounted(&ipvsadm(director, "-Ln --thresholds"));
    format!("{table}{thresholds}{}", ipvsadm(director, "-Sn"))
}

/// The lines of a table without the last two words of each server, which are its connection counts.
fn uncounted(text: &str) -> String {
    let without_last =
        |line: &str| line.trim_end().trim_end_matches(|c: char| c != ' ').trim_end().to_owned();
    let line = |line: &str| match line.trim_start().starts_with("->") {
        true => without_last(&without_last(line)),
        false => line.trim_end().to_owned(),
    };
    text.lines().map(|text| line(text) + "\n").collect()
}
