//! Checks of directories, databases, names, calls and logins against real servers: private instances on loopback, with
//! all that they write in one folder; and against servers that no honest program is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "also in the functions that the tests share"
)]

mod dns;
mod hostile;
mod ldap;
mod mysql;
mod pgsql;
mod radius;
mod sip;

use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use checks::tls::{TlsMode, TlsSpec, Verify};
use checks::{CheckSpec, Kind, Outcome, Reason, Stage};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::scratch::Folder;

const LIMIT: Duration = Duration::from_secs(30);

/// A running server, which ends and leaves nothing behind when it is dropped.
pub(crate) struct Server {
    pub(crate) folder: Folder,
    pub(crate) address: SocketAddr,
    child: Option<Child>,
}

impl Server {
    /// A folder and an address for one that is not started yet.
    pub(crate) fn prepare(name: &str) -> Self {
        let folder = Folder::new(name);
        // Nobody else uses this address, so the ports stay free until the server has them.
        let address = loop {
            let address = TcpListener::bind("127.0.0.90:0").unwrap().local_addr().unwrap();
            if UdpSocket::bind(address).is_ok() {
                break address;
            }
        };
        Self { folder, address, child: None }
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A file that only root reads.
    pub(crate) fn secret(&self, name: &str, text: &str) -> PathBuf {
        let path = self.write(name, text);
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path.into()
    }

    /// Starts `command`, which stays in the foreground, in a process group of its own.
    pub(crate) fn start(&mut self, command: &mut Command) {
        let log = || fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(log()).stderr(log()).process_group(0).spawn();
        self.child = Some(child.unwrap_or_else(|error| panic!("{command:?}: {error}")));
    }

    /// To the server and those of its children that share its group.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().unwrap().id();
        kill_process_group(Pid::from_raw(id.try_into().unwrap()).unwrap(), signal).unwrap();
    }

    /// Whether no thread of the server runs: a signal is there before all have seen it.
    fn is_stopped(&self) -> bool {
        let group = self.child.as_ref().unwrap().id().to_string();
        let entries =
            |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        let threads = entries("/proc".into()).flat_map(|process| entries(process.join("task")));
        // After the name: the state, the parent and the group.
        threads.filter_map(|thread| fs::read_to_string(thread.join("stat")).ok()).all(|stat| {
            let fields: Vec<&str> =
                stat.rsplit(')').next().unwrap_or_default().split_whitespace().take(3).collect();
            fields.get(2) != Some(&group.as_str()) || fields.first() == Some(&"T")
        })
    }

    pub(crate) fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let group = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        let _ = kill_process_group(group, Signal::CONT);
        let _ = kill_process_group(group, Signal::TERM);
        for _ in 0..100 {
            if child.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = child.wait();
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub(crate) fn spec(&self, kind: Kind) -> CheckSpec {
        CheckSpec { target: self.address, kind, deadline: LIMIT, connect_timeout: LIMIT, via: None }
    }

    pub(crate) async fn check(&self, kind: &Kind) -> Outcome {
        checks::run(&self.spec(kind.clone())).await
    }

    /// Until the server is well: it takes its time to start.
    pub(crate) async fn until_well(&self, kind: &Kind) -> Outcome {
        let short = CheckSpec { deadline: Duration::from_secs(5), ..self.spec(kind.clone()) };
        let well = async {
            loop {
                let outcome = checks::run(&short).await;
                if outcome.verdict.is_ok() {
                    return outcome;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        match tokio::time::timeout(LIMIT * 2, well).await {
            Ok(outcome) => outcome,
            Err(_) => panic!("{:?}\n{}", checks::run(&short).await.verdict, self.log()),
        }
    }

    /// How a check fails: the stage, the reason and the code.
    pub(crate) async fn failure(&self, kind: &Kind) -> (Stage, Reason, Option<u16>) {
        let failure = self.check(kind).await.verdict.expect_err("not well");
        (failure.stage, failure.reason, failure.code)
    }

    /// How a check of a server fails that is there and does nothing.
    pub(crate) async fn silence(&self, kind: &Kind) -> (Stage, Reason) {
        self.signal(Signal::STOP);
        let stopped = async {
            while !self.is_stopped() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LIMIT, stopped).await.expect("the server stops");
        let spec = CheckSpec { deadline: Duration::from_secs(1), ..self.spec(kind.clone()) };
        let outcome = checks::run(&spec).await;
        self.signal(Signal::CONT);
        assert!(outcome.took < Duration::from_millis(1500), "{:?}", outcome.took);
        let failure = outcome.verdict.expect_err("not well");
        (failure.stage, failure.reason)
    }

    /// A certificate for the server's address and its key, in files; the certificate is its own issuer.
    pub(crate) fn certificate(&self) -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec![self.address.ip().to_string()]).unwrap();
        let certificate = self.write("certificate.pem", &made.cert.pem());
        (certificate, self.write("key.pem", &made.signing_key.serialize_pem()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs a command to its end.
fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said));
}

pub(crate) fn stages(outcome: &Outcome) -> Vec<Stage> {
    outcome.stages.iter().map(|report| report.stage).collect()
}

fn tls(mode: TlsMode, ca_file: &str) -> TlsSpec {
    TlsSpec { mode, verify: Verify::Name, ca_file: ca_file.into(), ..TlsSpec::default() }
}

pub(crate) fn pattern(text: &str) -> Option<checks::smtp::Pattern> {
    Some(checks::smtp::Pattern::new(text).unwrap())
}
