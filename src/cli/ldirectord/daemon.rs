//! EDGE: from a command in a terminal to a daemon that nobody has to wait for.
//!
//! Owns the second process. The command starts itself again in a session of its own, and returns when that one says that its
//! table is right, or with what it says on standard error and its exit code. Refuses to fork: the runtime's threads
//! would not survive it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::setsid;
use rustix::stdio::{dup2_stderr, dup2_stdout};

use super::pidfile::{Claim, ClaimError, PidFile};
use super::{Exit, FAILED, Instance, NAME, exit, read_file};
use crate::cli::run::{Manner, PortInUse, Preparation};
use crate::config::{Config, Facility, LogLevel, LogTarget};
use crate::log::Plan;

/// Says to a process that it is the daemon of a file; nobody types it. It follows what makes a command line a director's.
const MARK: &str = "LDIRECTORD_DAEMON";
/// The word of the daemon for "the table is right".
const READY: &[u8] = b"ready\n";

/// Starts a daemon, or becomes one where the file or the command line wants it in the foreground.
pub(super) fn start(instance: &Instance) -> Result<(), Exit> {
    let config = instance.read()?;
    let plan = Plan::of(&config);
    if instance.debug {
        let plan = Plan { level: LogLevel::Debug, target: LogTarget::Stderr, ..plan };
        return foreground(instance, (config, plan));
    }
    if config.supervised {
        return foreground(instance, (config, Plan { target: LogTarget::Stdout, ..plan }));
    }
    let program =
        std::env::current_exe().map_err(|error| exit(FAILED, format!("cannot find myself: {error}")))?;
    let mut daemon = Command::new(program);
    daemon.arg0(NAME);
    if instance.name != NAME {
        daemon.arg(&instance.file);
    }
    let mut child = daemon
        .arg("start")
        .env(MARK, &instance.file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| exit(FAILED, format!("cannot start: {error}")))?;
    let mut said = Vec::new();
    if let Some(mut pipe) = child.stdout.take() {
        let _ = pipe.by_ref().take(64).read_to_end(&mut said);
    }
    if said == READY {
        return Ok(());
    }
    // It has said why.
    let code = child.wait().ok().and_then(|status| status.code());
    let code = code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED);
    if code == 0 { Ok(()) } else { Err(exit(code, "")) }
}

fn foreground(instance: &Instance, (config, log): (Config, Plan)) -> Result<(), Exit> {
    let preparation = Preparation::new(&instance.file)?;
    let manner =
        Manner { instance: instance.name.clone(), log, port: PortInUse::Tolerated, ready: Box::new(|| ()) };
    serve(preparation, config, manner)
}

/// The codes of `sysexits.h` mean other things to those who know ldirectord.
fn serve(preparation: Preparation, config: Config, manner: Manner) -> Result<(), Exit> {
    preparation.serve(config, manner).map_err(|why| exit(FAILED, why.message))
}

/// Whether this process is the daemon that another one has started; then what became of it.
pub(super) fn is_asked_for(arguments: &[OsString]) -> Option<Result<(), Exit>> {
    let file = std::env::var_os(MARK)?;
    let name = match arguments {
        [argument, action] if argument == &file && action == "start" => {
            crate::log::instance(Path::new(&file))
        }
        [action] if action == "start" => NAME.to_owned(),
        _ => return None,
    };
    Some(become_daemon(&file, name))
}

fn become_daemon(file: &OsStr, name: String) -> Result<(), Exit> {
    let file = Path::new(file);
    setsid().map_err(|error| exit(FAILED, format!("cannot leave the terminal: {error}")))?;
    std::env::set_current_dir("/").map_err(|error| exit(FAILED, format!("/: {error}")))?;
    let preparation = Preparation::new(file)?;
    let config = read_file(file)?;
    let _claim: Claim = match PidFile::of(&name).claim() {
        Ok(claim) => claim,
        // Somebody was quicker: what was asked for is so.
        Err(ClaimError::Taken) => return Ok(()),
        Err(ClaimError::Failed(why)) => return Err(exit(FAILED, why)),
    };
    let mut log = Plan::of(&config);
    if matches!(log.target, LogTarget::Stderr | LogTarget::Stdout) {
        // Nobody would read it.
        log.target = Facility::from_name("daemon").map_or(log.target, LogTarget::Syslog);
    }
    serve(
        preparation,
        config,
        Manner { instance: name, log, port: PortInUse::Tolerated, ready: Box::new(let_go) },
    )
}

/// Tells who waits that all is well, and holds nothing of the terminal any more.
fn let_go() {
    let _ = std::io::stdout().write_all(READY).and_then(|()| std::io::stdout().flush());
    if let Ok(nowhere) = File::options().read(true).write(true).open("/dev/null") {
        let _ = (dup2_stdout(&nowhere), dup2_stderr(&nowhere));
    }
}
