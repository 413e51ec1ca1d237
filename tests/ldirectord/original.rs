//! The original, with a table that is a file.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A folder in which `ldirectord -d` finds an `ipvsadm`.
pub(super) struct Original {
    folder: PathBuf,
}

/// What came of a start.
pub(super) enum Start {
    /// It runs, and has asked every server once.
    Runs(Running),
    /// It has refused the file.
    Refused,
    /// It has ended otherwise: a Perl module that is not there.
    Ended,
}

pub(super) const PROGRAM: &str = "/usr/sbin/ldirectord";
/// Longer than any round of a case takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of the virtual that tells when a round is over. What is done to it is not looked at.
const LAST: &str = "198.51.100.99";

/// The recording `ipvsadm`, which `cargo build --examples` and `cargo test` make.
pub(crate) fn recorder() -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let program = here.ancestors().nth(2).unwrap().join("examples/ipvsadm");
    let of = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
    let is_fresh = of(&program) >= of(&super::folder().join("ipvsadm.rs"));
    assert!(is_fresh, "{} is missing or old: cargo build --example ipvsadm", program.display());
    program
}

impl Original {
    pub(super) fn new(folder: &Path) -> Self {
        symlink(recorder(), folder.join("ipvsadm")).unwrap();
        Self { folder: folder.to_owned() }
    }

    fn command(&self, file: &Path, word: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("-d").arg(file).arg(word).current_dir(&self.folder);
        // It would start itself again to say so.
        command.env("PERLIO", "perlio");
        let said = fs::File::create(self.folder.join("said")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        command
    }

    /// Whether it takes the file: `status` of what does not run is 3, a wrong file is 2.
    pub(super) fn accepts(&self, file: &Path) -> bool {
        let code = self.command(file, "status").status().unwrap().code();
        match code {
            Some(3) => true,
            Some(2) => false,
            other => panic!("{}: {other:?}", file.display()),
        }
    }

    /// Starts it on a file, and waits until it has asked every server once. A last virtual tells when that is: its check is a
    /// command that leaves a line between the operations.
    pub(super) fn start(&self, file: &Path) -> Start {
        let script = self.folder.join("last");
        fs::write(&script, format!("#!/bin/sh\necho round >>{}/changes\n", self.folder.display())).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let mut bytes = fs::read(file).unwrap();
        let end = format!(
            "\n\nvirtual={LAST}:9\n    real=127.0.0.99:9 gate\n    checktype=external\n    checkcommand={}\n    \
             checktimeout=60\n    fallback=127.0.0.98:9\n    emailalertstatus=none\n",
            script.display()
        );
        bytes.extend_from_slice(end.as_bytes());
        let whole = self.folder.join("whole.cf");
        fs::write(&whole, bytes).unwrap();
        let child = self.command(&whole, "start").spawn().unwrap();
        let mut running = Running { child, folder: self.folder.clone() };
        match running.wait(1) {
            None => Start::Runs(running),
            // Perl may end with any number.
            Some(Some(2)) if running.said().contains(&format!(" reading file {}", whole.display())) => {
                Start::Refused
            }
            Some(_) => Start::Ended,
        }
    }
}

/// It runs until this is dropped.
pub(super) struct Running {
    child: Child,
    folder: PathBuf,
}

impl Running {
    /// Waits until it has asked every server so many times more.
    pub(super) fn ask(&mut self, times: usize) {
        let end = self.wait(self.rounds() + times);
        assert!(end.is_none(), "{} has ended: {}", self.folder.display(), self.said());
    }

    /// Asks it to end, and waits for that.
    pub(super) fn stop(&mut self) {
        signal(&self.child, Signal::TERM);
        let end = self.wait(usize::MAX);
        assert_eq!(end, Some(Some(0)), "{}", self.said());
    }

    /// Waits until that many rounds are over. Its exit code where it has ended before that.
    fn wait(&mut self, rounds: usize) -> Option<Option<i32>> {
        #[expect(clippy::disallowed_methods, reason = "nobody waits for ever")]
        let start = Instant::now();
        while self.rounds() < rounds {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status.code());
            }
            assert!(start.elapsed() < PATIENCE, "{}: not done", self.folder.display());
            // A child that has ended, as it thinks, ends its sleep between two rounds.
            if self.rounds() > 0 {
                signal(&self.child, Signal::CHILD);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.join("said")).unwrap_or_default()).into_owned()
    }

    fn rounds(&self) -> usize {
        self.log().lines().filter(|line| *line == "round").count()
    }

    /// All that it did to the table, and the ends of its rounds.
    pub(super) fn log(&self) -> String {
        let log = fs::read_to_string(self.folder.join("changes")).unwrap_or_default();
        log.lines().filter(|line| !line.contains(LAST)).fold(String::new(), |log, line| log + line + "\n")
    }

    pub(super) fn table(&self) -> String {
        let table = fs::read_to_string(self.folder.join("table")).unwrap_or_default();
        let rows = table.lines().filter(|row| !row.contains(LAST));
        rows.map(|row| format!("{row}\n")).collect()
    }
}

fn signal(child: &Child, signal: Signal) {
    let _ = kill_process(Pid::from_child(child), signal);
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
