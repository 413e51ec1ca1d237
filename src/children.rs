//! EDGE: daemons of other configurations, which start, reload and end with this one (`execute`).
//!
//! Owns their start and end by the command `ldirectord`. Refuses to know what they do. A configuration that would start
//! itself, directly or through others, is refused and said; a child that fails costs nobody else anything.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;
use tracing::{error, info, warn};

/// Who has started whom, outermost first.
const CHAIN: &str = "LDIRECTORD_EXECUTED_BY";
/// A stop may take as long as sessions of the proxy dataplane.
const LIMIT: Duration = Duration::from_secs(90);
/// What is for this process alone.
const OURS: [&str; 4] = ["LDIRECTORD_DAEMON", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"];

/// The children of one daemon.
#[derive(Debug)]
pub struct Children {
    chain: OsString,
    running: Vec<PathBuf>,
}

impl Children {
    /// None yet; `file` is the configuration of this daemon.
    #[must_use]
    pub fn of(file: &Path) -> Self {
        let mut chain = std::env::var_os(CHAIN).unwrap_or_default();
        if !chain.is_empty() {
            chain.push(":");
        }
        chain.push(canonical(file));
        Self { chain, running: Vec::new() }
    }

    /// Starts who is new, reloads who was there, stops who is gone.
    pub async fn become_those(&mut self, wanted: &[PathBuf]) {
        for gone in self.running.iter().filter(|file| !wanted.contains(file)) {
            self.tell(gone, "stop").await;
        }
        let mut running = Vec::new();
        for file in wanted {
            if std::env::split_paths(&self.chain).any(|one| one == canonical(file)) {
                error!("execute: {} would start itself; it is left out", file.display());
                continue;
            }
            if running.contains(file) {
                continue;
            }
            let action = if self.running.contains(file) { "reload" } else { "start" };
            self.tell(file, action).await;
            running.push(file.clone());
        }
        self.running = running;
    }

    async fn tell(&self, file: &Path, action: &str) {
        let Ok(program) = std::env::current_exe() else {
            error!("execute: cannot find myself");
            return;
        };
        let mut command = Command::new(program);
        command.arg0("ldirectord").arg(file).arg(action).env(CHAIN, &self.chain);
        for name in OURS {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let shown = file.display();
        match timeout(LIMIT, command.status()).await {
            Ok(Ok(status)) if status.success() => info!("{action} of {shown}"),
            Ok(Ok(status)) => {
                warn!("{action} of {shown} failed: {status}; ldirectord {shown} {action} says why");
            }
            Ok(Err(trouble)) => warn!("{action} of {shown} failed: {trouble}"),
            Err(_) => warn!("{action} of {shown} has not ended within {} s", LIMIT.as_secs()),
        }
    }
}

fn canonical(file: &Path) -> PathBuf {
    std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned())
}
