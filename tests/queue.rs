//! What `smtp-realserver` says of real Postfix instances, and to whom.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "also in the functions that the tests share"
)]

mod instance;
mod outside;
pub(crate) mod serve;
mod sources;
pub(crate) mod spool;
mod vital;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use postfix::report::QueueReport;
use postfix::report::json::Document;

use crate::farm::host::wait_until;

const LIMIT: Duration = Duration::from_secs(30);
/// `nobody`, who may not read a spool.
const NOBODY: u32 = 65534;

/// The program, which `cargo build` puts beside the folder of the tests' own.
pub(crate) fn program() -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let program = here.ancestors().nth(2).unwrap().join("smtp-realserver");
    assert!(program.exists(), "{} is missing: cargo build -p postfix", program.display());
    program
}

/// `report` on an instance, with more arguments.
fn report(config: &Path, arguments: &[&str]) -> Output {
    Command::new(program()).args(["report", "-c"]).arg(config).args(arguments).output().unwrap()
}

/// What `report` says of an instance.
fn look(config: &Path, arguments: &[&str]) -> QueueReport {
    let output = report(config, &[arguments, &["--format", "json"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    Document::parse(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?} {said}")).sum
}

/// An address that nobody listens on, of an address of loopback that no other test uses.
fn free_port(last: u8) -> SocketAddr {
    TcpListener::bind((std::net::Ipv4Addr::new(127, 0, 9, last), 0)).unwrap().local_addr().unwrap()
}

/// A process that ends with the test.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
