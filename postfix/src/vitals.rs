//! EDGE: whether the processes of a Postfix run, how many of its smtpd are busy, and what room the box has.
//!
//! Owns what is read of `/proc` and of the file system. Refuses to touch a process: no signal, no trigger. Fails figure
//! by figure: what this user may not see is not known, and not known is never dead.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use rustix::fs::{major, minor, stat, statvfs};
use rustix::io::Errno;

use crate::conf::Conf;
use crate::proc::{Row, State, locker, process, tcp_row};
use crate::report::{Hundredths, MAX_NUMBER, QueueReport};

/// Most bytes of a file in `/proc`: some 200,000 connections.
const MOST: u64 = 32 << 20;
/// Most processes that are looked at.
const MOST_PROCESSES: usize = 100_000;
/// How a queue manager may be called.
const QMGR: [&str; 3] = ["qmgr", "nqmgr", "oqmgr"];

/// The TCP sockets of the box: listeners, and connections that stand.
pub(crate) struct Sockets(Vec<Row>);

impl Sockets {
    /// `None` where they cannot be read, or are more than a sane box has.
    pub(crate) fn read() -> Option<Self> {
        let mut rows = Vec::new();
        for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
            match text(Path::new(file)) {
                Ok(text) => {
                    rows.extend(text.lines().filter_map(tcp_row).filter(|row| row.state != State::Other));
                }
                // A kernel without IPv6.
                Err(Errno::NOENT) if file.ends_with('6') => {}
                Err(_) => return None,
            }
        }
        Some(Self(rows))
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.0
    }
}

/// Writes what is known of an instance's processes and its spool.
pub(crate) fn look(conf: &Conf, sockets: Option<&Sockets>, report: &mut QueueReport) {
    let mut smtpd = None;
    match master(&conf.pid_directory) {
        Master::Unknown => {}
        Master::Dead => (report.master, report.qmgr) = (Some(false), Some(false)),
        Master::Alive(pid) => {
            report.master = Some(true);
            let children = children(pid);
            report.qmgr = children.as_ref().map(|children| children.iter().any(|name| is_qmgr(name)));
            smtpd = children.map(|children| children.iter().filter(|name| *name == "smtpd").count() as u64);
        }
    }
    if let Some(service) = &conf.smtpd {
        report.smtpd_limit = service.limit;
        match (service.port, sockets) {
            (Some(port), Some(sockets)) => {
                let here = || sockets.rows().iter().filter(|row| row.local.port() == port);
                let open = |row: &&Row| row.state == State::Open && row.owned;
                report.smtpd = Some(here().filter(open).count() as u64);
                let queues = here().filter(|row| row.state == State::Listen).map(|row| row.receive_queue);
                report.smtpd_waiting = Some(queues.sum());
            }
            // Behind a postscreen, whose connections are not those of smtpd. An idle smtpd stays for 100 s.
            (None, _) => report.smtpd = smtpd,
            (Some(_), None) => {}
        }
    }
    if let Ok(space) = statvfs(&conf.queue_directory) {
        report.free = Some(space.f_bavail.saturating_mul(space.f_frsize).min(MAX_NUMBER));
        report.inodes = Some(space.f_favail.min(MAX_NUMBER)).filter(|_| space.f_files > 0);
    }
}

/// The load average of the last minute.
pub(crate) fn load() -> Option<Hundredths> {
    Hundredths::parse(text(Path::new("/proc/loadavg")).ok()?.split_ascii_whitespace().next()?)
}

fn is_qmgr(name: &str) -> bool {
    QMGR.contains(&name)
}

enum Master {
    Alive(u32),
    Dead,
    Unknown,
}

/// `master` holds a lock on its pid file for as long as it lives, and `/proc/locks` shows it to everybody. Some file
/// systems (overlay, btrfs) have other numbers there than stat has: then the number in the file counts.
fn master(folder: &Path) -> Master {
    let file = folder.join("master.pid");
    let facts = match stat(&file) {
        Ok(facts) => facts,
        // Never started, or a spool that is none.
        Err(Errno::NOENT) if folder.is_dir() => return Master::Dead,
        Err(_) => return Master::Unknown,
    };
    let device = (major(facts.st_dev), minor(facts.st_dev));
    let is_master = |pid: &u32| name(*pid).is_some_and(|name| name == "master");
    let locks = text(Path::new("/proc/locks")).unwrap_or_default();
    let holder = locks.lines().find_map(|line| locker(line, device, facts.st_ino));
    if let Some(pid) = holder.filter(is_master) {
        return Master::Alive(pid);
    }
    match text(&file).map(|text| text.trim().parse()) {
        Ok(Ok(pid)) if is_master(&pid) => Master::Alive(pid),
        Ok(Ok(_)) => Master::Dead,
        Ok(Err(_)) | Err(_) => Master::Unknown,
    }
}

/// The names of a process's children, zombies left out.
fn children(parent: u32) -> Option<Vec<String>> {
    let list = text(Path::new(&format!("/proc/{parent}/task/{parent}/children")));
    let names = |list: &str| -> Vec<String> {
        let pids = list.split_ascii_whitespace().take(MOST_PROCESSES).filter_map(|pid| pid.parse().ok());
        pids.filter_map(name).collect()
    };
    // The list may lack one while others end, and not every kernel has it.
    let quick = list.map(|list| names(&list)).unwrap_or_default();
    if quick.iter().any(|name| is_qmgr(name)) { Some(quick) } else { walk(parent) }
}

fn walk(parent: u32) -> Option<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").ok()?.take(MOST_PROCESSES) {
        let pid = entry.ok()?.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        let Some(pid) = pid else { continue };
        let stat = text(Path::new(&format!("/proc/{pid}/stat")));
        match stat.as_deref().ok().and_then(process) {
            Some((name, of)) if of == parent => found.push(name.to_owned()),
            _ => {}
        }
    }
    Some(found)
}

fn name(pid: u32) -> Option<String> {
    let stat = text(Path::new(&format!("/proc/{pid}/stat"))).ok()?;
    process(&stat).map(|(name, _)| name.to_owned())
}

/// A small file as text; what is not UTF-8 in it does not matter here.
fn text(path: &Path) -> Result<String, Errno> {
    let error = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let mut bytes = Vec::new();
    let read = File::open(path).map_err(error)?.take(MOST).read_to_end(&mut bytes).map_err(error)?;
    if read as u64 >= MOST { Err(Errno::TOOBIG) } else { Ok(String::from_utf8_lossy(&bytes).into_owned()) }
}
