//! The original, with a table that is a file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A folder in which `ldirectord -d` finds an `ipvsadm`.
pub(super) struct Original {
    folder: PathBuf,
}

const PROGRAM: &str = "/usr/sbin/ldirectord";
/// Longer than any start of a case takes.
const PATIENCE: Duration = Duration::from_secs(60);

impl Original {
    pub(super) fn new(folder: &Path) -> Self {
        fs::copy(super::folder().join("ipvsadm"), folder.join("ipvsadm")).unwrap();
        Self { folder: folder.to_owned() }
    }

    fn command(&self, file: &Path, word: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("-d").arg(file).arg(word).current_dir(&self.folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
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

    /// The table that it comes to when every server has been asked once. A last virtual tells us when that is: its check is a
    /// command that leaves a file. `None` where it has ended before that.
    pub(super) fn table(&self, file: &Path) -> Option<String> {
        let done = self.folder.join("done");
        let script = self.folder.join("last");
        fs::write(&script, format!("#!/bin/sh\n: >{}\n", done.display())).unwrap();
        Command::new("chmod").arg("755").arg(&script).status().unwrap();
        let mut bytes = fs::read(file).unwrap();
        let end = format!(
            "\n\nvirtual=198.51.100.99:9\n    real=127.0.0.99:9 gate\n    checktype=external\n    checkcommand={}\n    \
             fallback=127.0.0.98:9\n",
            script.display()
        );
        bytes.extend_from_slice(end.as_bytes());
        let whole = self.folder.join("whole.cf");
        fs::write(&whole, bytes).unwrap();
        let mut running = Running(self.command(&whole, "start").spawn().unwrap());
        #[expect(clippy::disallowed_methods, reason = "nobody waits for ever")]
        let start = Instant::now();
        while !done.exists() {
            // A Perl module that is not installed ends it.
            if running.0.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(start.elapsed() < PATIENCE, "{}: not done", file.display());
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(running);
        let table = fs::read_to_string(self.folder.join("table")).unwrap();
        let rows = table.lines().filter(|row| !row.contains("198.51.100.99"));
        Some(rows.map(|row| format!("{row}\n")).collect())
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
