//! EDGE: the command `ldirectord`, as init scripts, cluster managers and people call it.
//!
//! Owns its arguments, its look for the file, its exit codes and its words. Refuses to know what the file means.
//! Where the original reads the whole file for every command, and takes the pid file of a running daemon away when the
//! file is wrong, only what needs the file reads it here: `status` and `stop` know the daemon by its pid file.

mod daemon;
mod pidfile;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Signal, kill_process};

use self::pidfile::{PidFile, Running};
use super::{Exit, read};
use crate::log;

/// What the program is called when it is this one.
pub(super) const NAME: &str = "ldirectord";
/// Where files are looked for, in this order, before the argument is taken as a path.
const PLACES: [&str; 2] = ["/etc/ha.d", "/etc/ha.d/conf"];
/// Which file, without an argument.
const DEFAULT_FILE: &str = "ldirectord.cf";
/// How long an orderly end may take: sessions of the proxy dataplane go on for half a minute.
const END: Duration = Duration::from_secs(60);

/// Exit codes of the original, which init scripts and agents know.
const FAILED: u8 = 1;
const WRONG_FILE: u8 = 2;
const STALE: u8 = 1;
const STOPPED: u8 = 3;
const USAGE: u8 = 255;

const HELP: &str = "\
Usage: ldirectord [-d|--debug] [--] [FILE] start|stop|restart|try-restart|reload|force-reload|status
       ldirectord [-h|-?|--help|-v|--version]

FILE is looked for in /etc/ha.d, in /etc/ha.d/conf, and then taken as a path; ldirectord.cf unless told. It may be
a file of ldirectord or one of smtp-director.

  start         starts the daemon, and returns when the table is right; nothing if it runs
  stop          ends it, and returns when it has ended; nothing if it does not run
  restart       both; a wrong FILE leaves the running daemon alone
  try-restart   the same if it runs, else nothing
  reload        makes it read FILE again, unless that is wrong; force-reload is the same
  status        says whether it runs: exit code 0, or 3, or 1 if it died

  -d, --debug   stays in the foreground and logs everything to standard error
";

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Start,
    Stop,
    Restart,
    TryRestart,
    Reload,
    Status,
}

const ACTIONS: [(&str, Action); 7] = [
    ("start", Action::Start),
    ("stop", Action::Stop),
    ("restart", Action::Restart),
    ("try-restart", Action::TryRestart),
    ("reload", Action::Reload),
    ("force-reload", Action::Reload),
    ("status", Action::Status),
];

/// The whole command line.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Help,
    Version,
    Do { action: Action, file: Option<OsString>, debug: bool },
}

/// The arguments after the name of the command; `Err` says what is wrong with them.
fn parse(arguments: &[OsString]) -> Result<Asked, String> {
    let mut debug = false;
    let mut rest = arguments;
    while let Some((first, others)) = rest.split_first() {
        let text = first.to_string_lossy();
        if !text.starts_with('-') || text == "-" {
            break;
        }
        rest = others;
        match &*text {
            "--" => break,
            "--debug" => debug = true,
            "--help" => return Ok(Asked::Help),
            "--version" => return Ok(Asked::Version),
            long if long.starts_with("--") => {
                return Err(format!("Unknown option: {}", long.trim_start_matches('-')));
            }
            letters => {
                for letter in letters.chars().skip(1) {
                    match letter {
                        'd' => debug = true,
                        'h' | '?' => return Ok(Asked::Help),
                        'v' => return Ok(Asked::Version),
                        _ => return Err(format!("Unknown option: {letter}")),
                    }
                }
            }
        }
    }
    let (file, word) = match rest {
        [word] => (None, word),
        [file, word] => (Some(file.clone()), word),
        [] => return Err("what to do is missing".to_owned()),
        _ => return Err("too many arguments".to_owned()),
    };
    let known = ACTIONS.iter().find(|(name, _)| OsStr::new(name) == word);
    let Some((_, action)) = known else { return Err(format!("unknown command {}", word.to_string_lossy())) };
    Ok(Asked::Do { action: *action, file, debug })
}

/// A daemon, by its file.
struct Instance {
    /// The file, where it was found.
    file: PathBuf,
    /// As the argument names it; the words of `status` have it.
    shown: String,
    pid_file: PidFile,
    name: String,
    debug: bool,
}

impl Instance {
    fn find(file: Option<&OsStr>, debug: bool) -> Self {
        let argument = Path::new(file.unwrap_or(OsStr::new(DEFAULT_FILE)));
        // `join` would take an absolute path alone; the original puts one after the other.
        let below = |place: &&str| {
            let mut path = OsString::from(place);
            path.push("/");
            path.push(argument);
            PathBuf::from(path)
        };
        let places: Vec<PathBuf> = PLACES.iter().map(below).collect();
        let found = places.iter().find(|path| path.is_file()).map_or(argument, PathBuf::as_path);
        // A daemon has no working directory of its own.
        let found = std::path::absolute(found).unwrap_or_else(|_| found.to_owned());
        let name = match file {
            Some(_) => log::instance(argument),
            None => NAME.to_owned(),
        };
        let shown = found.display().to_string();
        Self { pid_file: PidFile::of(&name), file: found, shown, name, debug }
    }

    fn act(&self, action: Action) -> Result<(), Exit> {
        match (action, self.pid_file.look()) {
            (Action::Status, Running::Yes(pid)) => {
                say(&format!("ldirectord for {} is running with pid: {}", self.shown, pid.as_raw_nonzero()))
            }
            (Action::Status, Running::Stale) => {
                let pid_file = self.pid_file.path().display();
                Err(exit(STALE, format!("ldirectord stale pid file {pid_file} for {}", self.shown)))
            }
            (Action::Status, Running::No) => {
                say(&format!("ldirectord is stopped for {}", self.shown))?;
                Err(exit(STOPPED, ""))
            }
            (Action::Start, Running::Yes(_)) | (Action::TryRestart, Running::No | Running::Stale) => Ok(()),
            (Action::Stop, _) => self.stop(),
            (Action::Start, _) => daemon::start(self),
            (Action::Restart | Action::TryRestart, _) => {
                // First: what is wrong with the file must not cost a daemon that runs.
                self.read()?;
                self.stop()?;
                daemon::start(self)
            }
            (Action::Reload, Running::Yes(pid)) => {
                self.read()?;
                kill_process(pid, Signal::HUP)
                    .map_err(|error| exit(FAILED, format!("cannot signal {pid:?}: {error}")))
            }
            (Action::Reload, Running::No | Running::Stale) => {
                Err(exit(FAILED, format!("ldirectord is not running for {}", self.shown)))
            }
        }
    }

    fn read(&self) -> Result<crate::config::Config, Exit> {
        read_file(&self.file)
    }

    fn stop(&self) -> Result<(), Exit> {
        let Running::Yes(pid) = self.pid_file.look() else { return Ok(()) };
        self.pid_file.end(pid, END).map_err(|why| exit(FAILED, why))
    }
}

fn exit(code: u8, message: impl std::fmt::Display) -> Exit {
    Exit::new(code, message)
}

/// A file that is not there is another matter than one that is wrong.
fn read_file(file: &Path) -> Result<crate::config::Config, Exit> {
    let missing = fs::metadata(file).is_err();
    read(file).map_err(|why| match missing {
        true => exit(FAILED, format!("Config file {} not found", file.display())),
        false => exit(WRONG_FILE, why.message),
    })
}

fn say(text: &str) -> Result<(), Exit> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// Does what the arguments after `ldirectord` ask for.
pub(super) fn ldirectord(arguments: &[OsString]) -> Result<(), Exit> {
    if let Some(result) = daemon::is_asked_for(arguments) {
        return result;
    }
    match parse(arguments) {
        Ok(Asked::Help) => say(HELP.trim_end()),
        Ok(Asked::Version) => say(&format!(
            "Linux Director of smtp-director {}, in place of ldirectord 1.186-ha",
            env!("CARGO_PKG_VERSION")
        )),
        Ok(Asked::Do { action, file, debug }) => Instance::find(file.as_deref(), debug).act(action),
        Err(why) => Err(exit(USAGE, format!("{why}\n{HELP}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Result<Asked, String> {
        parse(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn options_come_before_the_file_and_the_file_before_the_command() {
        let done =
            |action, file: Option<&str>, debug| Ok(Asked::Do { action, file: file.map(Into::into), debug });
        for (line, want) in [
            ("start", done(Action::Start, None, false)),
            ("x.cf stop", done(Action::Stop, Some("x.cf"), false)),
            ("-d x.cf start", done(Action::Start, Some("x.cf"), true)),
            ("--debug -- -x.cf status", done(Action::Status, Some("-x.cf"), true)),
            ("-dd force-reload", done(Action::Reload, None, true)),
            ("-dv", Ok(Asked::Version)),
            ("-?", Ok(Asked::Help)),
        ] {
            assert_eq!(asked(line), want, "{line}");
        }
        for line in ["", "x.cf", "start -d", "a b start", "-x start", "--quiet start", "condrestart"] {
            assert!(asked(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_daemon_is_called_by_the_last_part_of_its_file() {
        let named = |file: Option<&str>| Instance::find(file.map(OsStr::new), false).name;
        assert_eq!(named(None), "ldirectord");
        assert_eq!(named(Some("/tmp/none/mail.cf")), "mail.cf");
        assert_eq!(named(Some("none.toml")), "none.toml");
    }
}
