//! EDGE: a command of the administrator is asked.
//!
//! Owns [`ExternalSpec`], the process group of the command and its end. Refuses to know what the command does. Fails at
//! the stage `command`; a command that cannot be started is a failure of the director.
//!
//! The arguments are those of ldirectord's `checkcommand`: address and port of the virtual (a firewall mark and 0
//! below a mark), address and port of the real server, with brackets around addresses of IPv6.
#![expect(clippy::disallowed_methods, reason = "EDGE: a command has a deadline and is measured")]

use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout, timeout_at};

use crate::smtp::reply::printable;
use crate::{Failure, Outcome, Reason, Stage, StageReport};

/// Most bytes of output that are kept; the rest is read and forgotten, so that the command does not wait for us.
pub const MAX_OUTPUT: usize = 4096;
/// How long a command that was told to end may take before it is killed.
const GRACE: Duration = Duration::from_secs(2);
/// How long what a command left in its pipes may take to arrive: somebody it left behind may hold them open.
const LINGER: Duration = Duration::from_millis(50);
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command to ask.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExternalSpec {
    /// An absolute path.
    pub command: PathBuf,
    /// What it is told before the four arguments.
    pub arguments: Vec<String>,
    /// The address of the virtual, or its firewall mark.
    pub service: String,
    /// The port of the virtual; `None` for a firewall mark.
    pub service_port: Option<u16>,
}

/// An address as ldirectord writes it.
#[must_use]
pub fn bracketed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// Runs the command once, at the latest until `deadline`. One that is still running then is told to end (TERM), and
/// killed a little later, behind our back.
pub(crate) async fn ask(
    (spec, server): (&ExternalSpec, SocketAddr),
    deadline: Instant,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let start = Instant::now();
    let mut arguments = spec.arguments.clone();
    arguments.extend([
        spec.service.clone(),
        spec.service_port.unwrap_or(0).to_string(),
        bracketed(server.ip()),
        server.port().to_string(),
    ]);
    let mut running = Running::start(&spec.command, &arguments).map_err(|error| {
        let text = format!("{}: {error}", spec.command.display());
        failed(Reason::Local, None, printable(text.as_bytes()))
    })?;
    let mut output = Vec::new();
    let status = match timeout_at(deadline, running.end(&mut output)).await {
        Ok(status) => status.map_err(|error| failed(Reason::Local, None, error.to_string()))?,
        Err(_) => {
            running.abandon();
            return Err(failed(Reason::Timeout, None, first_line(&output)));
        }
    };
    let said = first_line(&output);
    let code = match (status.code(), status.signal()) {
        (Some(0), _) => {
            let took = start.elapsed();
            let sent = printable(spec.command.as_os_str().as_encoded_bytes());
            let received = vec![said];
            outcome.stages.push(StageReport { stage: Stage::Command, took, code: Some(0), sent, received });
            return Ok(());
        }
        (Some(code), _) => code,
        // As a shell says it.
        (None, signal) => 128 + signal.unwrap_or(0),
    };
    let said = if said.is_empty() { status.to_string() } else { said };
    Err(failed(Reason::Failed, u16::try_from(code).ok(), said))
}

/// How a command for its output ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// With exit status 0; what it wrote to standard output.
    This(Vec<u8>),
    /// With another one; the first line of what it wrote to standard error.
    No(String),
    /// It was still running at the deadline.
    Nothing,
    /// It could not be started, for this reason.
    NotStarted(String),
}

/// Runs a command for what it says, at the latest until `deadline`, as a check is run: in a process group of its own and with
/// nothing of our environment and capabilities. The beginning of more than [`MAX_OUTPUT`] bytes is kept.
pub async fn say(command: &Path, arguments: &[String], deadline: Instant) -> Said {
    let mut running = match Running::start(command, arguments) {
        Ok(running) => running,
        Err(error) => {
            return Said::NotStarted(printable(format!("{}: {error}", command.display()).as_bytes()));
        }
    };
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    match timeout_at(deadline, running.end_apart(&mut output, &mut errors)).await {
        Ok(Ok(status)) if status.success() => Said::This(output),
        Ok(Ok(status)) => {
            let line = first_line(&errors);
            Said::No(if line.is_empty() { status.to_string() } else { line })
        }
        Ok(Err(error)) => Said::NotStarted(error.to_string()),
        Err(_) => {
            running.abandon();
            Said::Nothing
        }
    }
}

/// A command and all that it started. Dropped, it is killed.
struct Running {
    child: Child,
    /// `None` once the command has ended: its number may be somebody else's by then.
    group: Option<Pid>,
}

impl Running {
    fn start(command: &Path, arguments: &[String]) -> std::io::Result<Self> {
        // Otherwise the command would inherit CAP_NET_ADMIN from a service that has it as an ambient capability. Only the
        // exec of a child looks at this set; what we may do ourselves does not change.
        let _ = rustix::thread::clear_ambient_capability_set();
        let child = Command::new(command)
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Self { child, group })
    }

    /// Waits for the end, and keeps the beginning of what is said until then.
    async fn end(&mut self, output: &mut Vec<u8>) -> std::io::Result<ExitStatus> {
        let mut errors = Vec::new();
        let ended = self.end_apart(output, &mut errors).await;
        output.extend_from_slice(&errors);
        ended
    }

    /// The same, what it says and what it complains of apart.
    async fn end_apart(&mut self, output: &mut Vec<u8>, errors: &mut Vec<u8>) -> std::io::Result<ExitStatus> {
        let (mut out, mut err) = (self.child.stdout.take(), self.child.stderr.take());
        let ended = {
            let both = async {
                tokio::join!(keep(out.as_mut(), output), keep(err.as_mut(), errors));
            };
            let mut both = std::pin::pin!(both);
            tokio::select! {
                // Nobody holds the pipes: the end is near.
                () = &mut both => self.child.wait().await,
                ended = self.child.wait() => {
                    let _ = timeout(LINGER, both).await;
                    ended
                }
            }
        };
        self.group = None;
        ended
    }

    /// Tells the group to end, and makes sure of it later.
    fn abandon(self) {
        self.signal(Signal::TERM);
        // Not until it has ended: once it is waited for, the number of its group may be somebody else's.
        tokio::spawn(async move {
            tokio::time::sleep(GRACE).await;
            drop(self);
        });
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Reads to the end and keeps the beginning.
async fn keep(pipe: Option<&mut (impl AsyncRead + Unpin)>, output: &mut Vec<u8>) {
    let Some(pipe) = pipe else { return };
    let mut buffer = vec![0; MAX_OUTPUT];
    while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
        let room = MAX_OUTPUT.saturating_sub(output.len()).min(length);
        output.extend_from_slice(buffer.get(..room).unwrap_or_default());
    }
}

fn first_line(output: &[u8]) -> String {
    let mut lines = output.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    printable(lines.find(|line| !line.is_empty()).unwrap_or_default())
}

fn failed(reason: Reason, code: Option<u16>, text: String) -> Failure {
    Failure { stage: Stage::Command, reason, code, text }
}
