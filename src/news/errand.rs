//! EDGE: a command is run for its effect.
//!
//! Owns its process group and its end. Refuses to know why it is run. Fails with a sentence; a command that does not end is told to
//! (TERM) and then killed, with all that it has started.

use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long a command that was told to end may take before it is killed.
const GRACE: Duration = Duration::from_secs(2);
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command with all its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errand {
    /// An absolute path.
    pub program: PathBuf,
    /// The arguments.
    pub arguments: Vec<String>,
}

impl fmt::Display for Errand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.program.display())?;
        self.arguments.iter().try_for_each(|argument| write!(f, " {argument}"))
    }
}

/// Runs it with `input`, for at most `limit`.
///
/// # Errors
/// Why it could not be run, or how it ended.
pub async fn run(errand: &Errand, input: &[u8], limit: Duration) -> Result<(), String> {
    let mut child = Command::new(&errand.program)
        .args(&errand.arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| error.to_string())?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    match timeout(limit, feed(&mut child, input)).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("ended with {status}")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => {
            let tell = |signal| group.map(|group| kill_process_group(group, signal));
            let _ = tell(Signal::TERM);
            // It is not waited for before: the number of its group could be somebody else's then.
            tokio::time::sleep(GRACE).await;
            let _ = tell(Signal::KILL);
            let _ = child.wait().await;
            Err(format!("has not ended within {} s and was killed", limit.as_secs()))
        }
    }
}

async fn feed(child: &mut Child, input: &[u8]) -> std::io::Result<std::process::ExitStatus> {
    if let Some(mut pipe) = child.stdin.take() {
        // One that does not read its input says so by its exit status, or not at all.
        let _ = pipe.write_all(input).await;
    }
    child.wait().await
}
