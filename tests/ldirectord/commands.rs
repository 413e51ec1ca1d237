//! The command line of both: exit codes, and what becomes of a daemon and its pid file.
//!
//! Each call of the original has `/run` and `ipvsadm` of its own, in a mount namespace that ends with it: nothing is left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::original::{self, recorder};
use super::side_by_side;
use crate::scratch::Folder;

const OURS: &str = env!("CARGO_BIN_EXE_smtp-director");
const PATIENCE: Duration = Duration::from_secs(30);

/// How things are before the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Stopped,
    Running,
    /// A pid file whose daemon died.
    Stale,
    /// A pid file with the number of somebody else.
    Strange,
    /// No daemon, and a file that is wrong.
    Wrong,
    /// No daemon, and no file.
    Missing,
    RunningWrong,
    RunningMissing,
}

use Before::{Missing, Running, RunningMissing, RunningWrong, Stale, Stopped, Strange, Wrong};

/// The command, the exit code and what is left there, the same here, and why they differ. Left is a daemon (`runs`), another one
/// (`new`), nothing, a pid file without a daemon (`stale`), or a daemon without a pid file (`lost`).
type Row = (Before, &'static str, &'static str, &'static str, &'static str);

const NOT_READ: &str = "`stop` and `status` do not read FILE";
const LEFT_ALONE: &str = "No command touches the pid file of a daemon that runs";
const MORE: &str = "Words behind the command are wrong arguments";
/// There, it is the manual, where Perl has its own.
const MANUAL: &str = "`-h` says what there is";

#[rustfmt::skip]
const ROWS: [Row; 72] = [
    (Stopped, "FILE start", "0 runs", "0 runs", ""),
    (Stopped, "FILE stop", "0 nothing", "0 nothing", ""),
    (Stopped, "FILE status", "3 nothing", "3 nothing", ""),
    (Stopped, "FILE reload", "1 nothing", "1 nothing", ""),
    (Stopped, "FILE force-reload", "1 nothing", "1 nothing", ""),
    (Stopped, "FILE restart", "0 runs", "0 runs", ""),
    (Stopped, "FILE try-restart", "0 nothing", "0 nothing", ""),
    (Running, "FILE start", "0 runs", "0 runs", ""),
    (Running, "FILE stop", "0 nothing", "0 nothing", ""),
    (Running, "FILE status", "0 runs", "0 runs", ""),
    (Running, "FILE reload", "0 runs", "0 runs", ""),
    (Running, "FILE force-reload", "0 runs", "0 runs", ""),
    (Running, "FILE restart", "0 new", "0 new", ""),
    (Running, "FILE try-restart", "0 new", "0 new", ""),
    (Stale, "FILE start", "0 runs", "0 runs", ""),
    (Stale, "FILE stop", "0 stale", "0 stale", ""),
    (Stale, "FILE status", "1 stale", "1 stale", ""),
    (Stale, "FILE reload", "1 stale", "1 stale", ""),
    (Stale, "FILE force-reload", "1 stale", "1 stale", ""),
    (Stale, "FILE restart", "0 runs", "0 runs", ""),
    (Stale, "FILE try-restart", "0 stale", "0 stale", ""),
    (Strange, "FILE start", "0 runs", "0 runs", ""),
    (Strange, "FILE stop", "0 stale", "0 stale", ""),
    (Strange, "FILE status", "1 stale", "1 stale", ""),
    (Strange, "FILE reload", "1 stale", "1 stale", ""),
    (Strange, "FILE force-reload", "1 stale", "1 stale", ""),
    (Strange, "FILE restart", "0 runs", "0 runs", ""),
    (Strange, "FILE try-restart", "0 stale", "0 stale", ""),
    (Wrong, "FILE start", "2 nothing", "2 nothing", ""),
    (Wrong, "FILE stop", "2 nothing", "0 nothing", NOT_READ),
    (Wrong, "FILE status", "2 nothing", "3 nothing", NOT_READ),
    (Wrong, "FILE reload", "2 nothing", "1 nothing", NOT_READ),
    (Wrong, "FILE force-reload", "2 nothing", "1 nothing", NOT_READ),
    (Wrong, "FILE restart", "2 nothing", "2 nothing", ""),
    (Wrong, "FILE try-restart", "2 nothing", "0 nothing", NOT_READ),
    (Missing, "FILE start", "1 nothing", "1 nothing", ""),
    (Missing, "FILE stop", "1 nothing", "0 nothing", NOT_READ),
    (Missing, "FILE status", "1 nothing", "3 nothing", NOT_READ),
    (Missing, "FILE reload", "1 nothing", "1 nothing", ""),
    (Missing, "FILE force-reload", "1 nothing", "1 nothing", ""),
    (Missing, "FILE restart", "1 nothing", "1 nothing", ""),
    (Missing, "FILE try-restart", "1 nothing", "0 nothing", NOT_READ),
    (RunningWrong, "FILE start", "2 lost", "0 runs", NOT_READ),
    (RunningWrong, "FILE stop", "2 lost", "0 nothing", NOT_READ),
    (RunningWrong, "FILE status", "2 lost", "0 runs", NOT_READ),
    (RunningWrong, "FILE reload", "2 lost", "2 runs", LEFT_ALONE),
    (RunningWrong, "FILE force-reload", "2 lost", "2 runs", LEFT_ALONE),
    (RunningWrong, "FILE restart", "2 lost", "2 runs", LEFT_ALONE),
    (RunningWrong, "FILE try-restart", "2 lost", "2 runs", LEFT_ALONE),
    (RunningMissing, "FILE start", "1 runs", "0 runs", NOT_READ),
    (RunningMissing, "FILE stop", "1 runs", "0 nothing", NOT_READ),
    (RunningMissing, "FILE status", "1 runs", "0 runs", NOT_READ),
    (RunningMissing, "FILE reload", "1 runs", "1 runs", ""),
    (RunningMissing, "FILE force-reload", "1 runs", "1 runs", ""),
    (RunningMissing, "FILE restart", "1 runs", "1 runs", ""),
    (RunningMissing, "FILE try-restart", "1 runs", "1 runs", ""),
    (Stopped, "", "255 nothing", "255 nothing", ""),
    (Stopped, "FILE", "255 nothing", "255 nothing", ""),
    (Stopped, "status", "3 nothing", "3 nothing", ""),
    (Stopped, "FILE condrestart", "255 nothing", "255 nothing", ""),
    (Stopped, "-x FILE start", "255 nothing", "255 nothing", ""),
    (Stopped, "--quiet FILE status", "255 nothing", "255 nothing", ""),
    (Stopped, "--vers", "255 nothing", "255 nothing", ""),
    (Stopped, "-v", "0 nothing", "0 nothing", ""),
    (Stopped, "--version", "0 nothing", "0 nothing", ""),
    (Stopped, "-dv", "0 nothing", "0 nothing", ""),
    (Stopped, "-h", "?", "0 nothing", MANUAL),
    (Stopped, "--help", "?", "0 nothing", MANUAL),
    (Stopped, "-?", "?", "0 nothing", MANUAL),
    (Stopped, "-- FILE status", "3 nothing", "3 nothing", ""),
    (Stopped, "FILE status more", "3 nothing", "255 nothing", MORE),
    (Stopped, "FILE start -d", "0 runs", "255 nothing", MORE),
];

/// One of the two, in a folder of its own.
struct Side {
    folder: Folder,
    is_ours: bool,
    stranger: Option<Child>,
    first: Option<i32>,
}

impl Side {
    fn new(row: usize, is_ours: bool) -> Self {
        let folder = Folder::new(&format!("ld-command-{row}-{is_ours}"));
        fs::create_dir(folder.path().join("run")).unwrap();
        let side = Self { folder, is_ours, stranger: None, first: None };
        // An address of its own: a daemon may listen there.
        let text = format!(
            "logfile=\"{}\"\ncheckinterval=1\nvirtual=127.9.9.{}:2525\n    real=127.0.0.2:25 masq\n    checktype=on\n",
            side.path("log").display(),
            row + 1
        );
        fs::write(side.path("mail.cf"), text).unwrap();
        side
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, words: &str) -> Command {
        let file = self.path("mail.cf").display().to_string();
        let words =
            words.split_whitespace().map(|word| if word == "FILE" { file.clone() } else { word.to_owned() });
        let run = self.path("run");
        let mut command = if self.is_ours {
            let mut command = Command::new(OURS);
            command.arg("ldirectord").env("LDIRECTORD_RUN_DIR", run);
            for (name, value) in [("DATAPLANE", "proxy"), ("HTTP", "off")] {
                command.env(format!("SMTP_DIRECTOR__{name}"), value);
            }
            command
        } else {
            let mut command = Command::new("unshare");
            let inside =
                "mount --bind \"$1\" /run && mount --bind \"$2\" /usr/sbin/ipvsadm && shift 2 && exec \"$@\"";
            command
                .args(["--mount", "sh", "-c", inside, "sh"])
                .arg(run)
                .arg(recorder())
                .arg(original::PROGRAM);
            command.env("RECORDER", self.folder.path()).env("PERLIO", "perlio");
            command
        };
        command.args(words).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    fn pid_file(&self) -> PathBuf {
        self.path("run").join("ldirectord.mail.cf.pid")
    }

    fn pid(&self) -> Option<i32> {
        fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()
    }

    fn prepare(&mut self, before: Before) {
        match before {
            Running | RunningWrong | RunningMissing => {
                let started = self.command("FILE start").status().unwrap();
                assert!(started.success(), "{:?}", self.command("FILE start").output());
                until(|| self.pid().is_some_and(lives));
                self.first = self.pid();
            }
            Stale => fs::write(self.pid_file(), "999999\n").unwrap(),
            Strange => {
                let stranger = Command::new("sleep").arg("60").spawn().unwrap();
                fs::write(self.pid_file(), format!("{}\n", stranger.id())).unwrap();
                self.stranger = Some(stranger);
            }
            Stopped | Wrong | Missing => {}
        }
        match before {
            Wrong | RunningWrong => fs::write(self.path("mail.cf"), "virtual=nonsense\n").unwrap(),
            Missing | RunningMissing => fs::remove_file(self.path("mail.cf")).unwrap(),
            Stopped | Running | Stale | Strange => {}
        }
    }

    /// The exit code, and what is left when all has come to rest.
    fn outcome(&self, words: &str) -> String {
        let output = self.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
        let code = output.status.code().unwrap();
        // There, a daemon begins and ends behind the back of the command.
        let ends = code == 0 && words.ends_with("stop");
        if ends && let Some(first) = self.first {
            until(|| !lives(first));
        }
        if code == 0 && words.ends_with("start") && !self.pid_file().exists() {
            std::thread::sleep(Duration::from_millis(50));
        }
        if self.pid_file().exists() && !ends {
            until(|| self.pid().is_some());
        }
        let left = match (self.pid(), self.first) {
            (Some(pid), first) if lives(pid) => {
                if first.is_none_or(|first| first == pid) {
                    "runs"
                } else {
                    "new"
                }
            }
            (Some(_), _) => "stale",
            (None, Some(first)) if lives(first) => "lost",
            (None, _) => "nothing",
        };
        format!("{code} {left}")
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if let Some(stranger) = &mut self.stranger {
            let _ = stranger.kill();
            let _ = stranger.wait();
        }
        for pid in [self.first, self.pid()].into_iter().flatten().filter(|pid| lives(*pid)) {
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
    }
}

/// Whether that is a director, and not the remains of one.
fn lives(pid: i32) -> bool {
    let line = fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).contains("director")
}

fn until(mut is_so: impl FnMut() -> bool) {
    #[expect(clippy::disallowed_methods, reason = "nobody waits for ever")]
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "never");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
#[ignore = "the original, from the package ldirectord: tests/run"]
fn each_command_has_the_exit_code_of_the_original_and_leaves_the_same_behind() {
    let rows: Vec<(usize, Row)> = ROWS.into_iter().enumerate().collect();
    let outcomes = side_by_side(4, &rows, |(at, (before, words, ..))| {
        [false, true].map(|is_ours| {
            let mut side = Side::new(*at, is_ours);
            side.prepare(*before);
            side.outcome(words)
        })
    });
    let mut wrong = Vec::new();
    for ((before, words, there, here, why), outcome) in ROWS.into_iter().zip(outcomes) {
        let is_right = [there, here] == outcome || there == "?" && here == outcome[1];
        if !is_right || (there == here) != why.is_empty() {
            wrong.push(format!(
                "({before:?}, \"{words}\", \"{}\", \"{}\", \"{why}\"),",
                outcome[0], outcome[1]
            ));
        }
    }
    println!("{} commands", ROWS.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_the_command_does_on_purpose_is_documented() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dist/README.md")).unwrap();
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
    for (_, words, there, here, why) in ROWS {
        assert!(page.contains(why), "{words}: {why}");
        assert!(there != here || why.is_empty(), "{words}");
    }
}
