//! The original in the foreground, with the recording `ipvsadm` of `tests/ldirectord` in its working directory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

pub(super) const PROGRAM: &str = "/usr/sbin/ldirectord";

/// The recording one.
pub(super) fn write_ipvsadm(folder: &Path) {
    fs::copy(crate::ldirectord::recorder(), folder.join("ipvsadm")).unwrap();
}

/// One that runs.
pub(super) struct Original {
    folder: PathBuf,
    child: Child,
}

impl Original {
    /// Starts it on a file, in a folder that no other one has.
    pub(super) fn start(folder: PathBuf, file: &Path) -> Self {
        fs::create_dir_all(&folder).unwrap();
        write_ipvsadm(&folder);
        let mut command = Command::new(PROGRAM);
        command.arg("-d").arg(file).arg("start").current_dir(&folder);
        let log = File::create(folder.join("said")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self { folder, child }
    }

    pub(super) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).unwrap_or_default()
    }

    /// What it has said so far.
    pub(super) fn said(&self) -> String {
        self.read("said")
    }

    /// What it has asked its ipvsadm to change, each with the exit status before it.
    pub(super) fn operations(&self) -> String {
        self.read("operations")
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn wait(&mut self) {
        self.child.wait().unwrap();
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
