//! EDGE: the pid file of a daemon, and whether the process in it is one.
//!
//! Owns its path, its lock and its removal. Refuses to trust a number: a pid file may be years old, and its number somebody
//! else's. A process is a director when its command line says so, the original's too, so that a machine can be
//! switched over with either command. Fails with sentences.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::NAME;

/// Where pid files are, unless the variable says otherwise.
const DIRECTORY: &str = "/var/run";
const VARIABLE: &str = "LDIRECTORD_RUN_DIR";
/// More is no number.
const MOST: u64 = 32;

/// The pid file of one instance.
#[derive(Clone, Debug)]
pub(super) struct PidFile {
    path: PathBuf,
    instance: String,
}

/// Whether a daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Running {
    Yes(Pid),
    /// There is a pid file, and no director of that number.
    Stale,
    No,
}

impl PidFile {
    pub(super) fn of(instance: &str) -> Self {
        let directory = std::env::var_os(VARIABLE).map_or(PathBuf::from(DIRECTORY), PathBuf::from);
        Self { path: directory.join(format!("{NAME}.{instance}.pid")), instance: instance.to_owned() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it and looks at the process.
    pub(super) fn look(&self) -> Running {
        match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Running::No,
            _ => {}
        }
        match self.pid() {
            Some(pid) if is_director(pid, &self.instance) => Running::Yes(pid),
            _ => Running::Stale,
        }
    }

    fn pid(&self) -> Option<Pid> {
        let mut text = String::new();
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&self.path).ok()?;
        file.take(MOST).read_to_string(&mut text).ok()?;
        Pid::from_raw(text.trim().parse().ok().filter(|pid| *pid > 1)?)
    }

    /// Writes our own number into it and keeps it locked.
    pub(super) fn claim(&self) -> Result<Claim, ClaimError> {
        let trouble = |error: io::Error| ClaimError::Failed(format!("{}: {error}", self.path.display()));
        loop {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false).mode(0o644);
            // A link that somebody has put there is not followed.
            let mut file = options
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(&self.path)
                .map_err(trouble)?;
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                return Err(ClaimError::Taken);
            }
            // Who held it before us may have removed it meanwhile: then ours is a file that nobody finds.
            let named = fs::symlink_metadata(&self.path).map(|found| (found.dev(), found.ino()));
            let ours = file.metadata().map_err(trouble)?;
            if !named.is_ok_and(|named| named == (ours.dev(), ours.ino())) {
                continue;
            }
            // The original locks nothing.
            if let Running::Yes(pid) = self.look()
                && pid != rustix::process::getpid()
            {
                return Err(ClaimError::Taken);
            }
            file.set_len(0).map_err(trouble)?;
            file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(trouble)?;
            return Ok(Claim { path: self.path.clone(), _file: file });
        }
    }

    /// Asks the director to end, and waits until it has.
    pub(super) fn end(&self, pid: Pid, limit: Duration) -> Result<(), String> {
        // A handle first, then another look: whatever happens to the number after this, the handle is the director's.
        let handle = pidfd_open(pid, PidfdFlags::empty());
        if !is_director(pid, &self.instance) {
            return Ok(());
        }
        let number = pid.as_raw_nonzero();
        kill_process(pid, Signal::TERM).map_err(|error| format!("cannot end process {number}: {error}"))?;
        let ended = match handle {
            Ok(handle) => {
                let limit =
                    Timespec { tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
                poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&limit)).is_ok_and(|ready| ready > 0)
            }
            // A kernel without handles: its command line is gone when it is.
            Err(_) => (0..limit.as_millis() / 50).any(|_| {
                std::thread::sleep(Duration::from_millis(50));
                !is_director(pid, &self.instance)
            }),
        };
        if !ended {
            return Err(format!("process {number} has not ended within {} s", limit.as_secs()));
        }
        // One that was killed leaves it.
        if self.pid() == Some(pid) {
            let _ = fs::remove_file(&self.path);
        }
        Ok(())
    }
}

/// Why a pid file is not ours.
#[derive(Debug)]
pub(super) enum ClaimError {
    /// A daemon of this name runs.
    Taken,
    Failed(String),
}

/// A pid file with our number, which ends with us.
#[derive(Debug)]
pub(super) struct Claim {
    path: PathBuf,
    /// Its lock says that we live.
    _file: File,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether a process is the director of `instance`, by its command line.
fn is_director(pid: Pid, instance: &str) -> bool {
    let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
    fs::read(path).is_ok_and(|line| is_director_line(&line, instance))
}

/// `ldirectord FILE start`, whoever runs it: `perl -w /usr/sbin/ldirectord FILE start`, too.
fn is_director_line(line: &[u8], instance: &str) -> bool {
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).filter(|word| !word.is_empty()).collect();
    let base =
        |word: &[u8]| Path::new(OsStr::from_bytes(word)).file_name().map(|name| name.as_bytes().to_vec());
    let Some(program) = words.iter().take(4).position(|word| base(word).as_deref() == Some(NAME.as_bytes()))
    else {
        return false;
    };
    let rest = words.get(program + 1..).unwrap_or_default();
    let mut operands = rest.iter().filter(|word| !word.starts_with(b"-"));
    match (operands.next(), operands.next()) {
        (Some(file), Some(action)) => starts(action) && base(file).as_deref() == Some(instance.as_bytes()),
        (Some(action), None) => starts(action) && instance == NAME,
        _ => false,
    }
}

fn starts(word: &[u8]) -> bool {
    matches!(word, b"start" | b"restart" | b"try-restart")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_director_is_known_by_its_command_line_and_nobody_else_is_one() {
        for (line, instance, is_one) in [
            ("ldirectord /etc/ha.d/mail.cf start", "mail.cf", true),
            ("ldirectord start", "ldirectord", true),
            ("/usr/sbin/ldirectord mail.cf restart", "mail.cf", true),
            ("/usr/bin/perl -w /usr/sbin/ldirectord /etc/ha.d/mail.cf start", "mail.cf", true),
            ("smtp-director ldirectord mail.cf start", "mail.cf", true),
            ("ldirectord web.cf start", "mail.cf", false),
            ("ldirectord start", "mail.cf", false),
            ("ldirectord mail.cf start", "ldirectord", false),
            ("ldirectord mail.cf status", "mail.cf", false),
            ("vim /etc/ha.d/ldirectord.cf start", "ldirectord", false),
            ("less /usr/sbin/ldirectord", "ldirectord", false),
            ("sleep 100", "mail.cf", false),
            ("", "mail.cf", false),
        ] {
            let bytes = line.replace(' ', "\0");
            assert_eq!(is_director_line(bytes.as_bytes(), instance), is_one, "{line} for {instance}");
        }
    }
}
