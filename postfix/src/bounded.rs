//! EDGE: reading what may be endless, or may never come.
//!
//! Owns a reader with a size and a deadline, and commands that are run with both. Fails with a [`Trouble`].
#![expect(clippy::disallowed_methods, reason = "EDGE: keeps deadlines")]

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::report::Trouble;

/// Where Postfix's commands are: spawn(8), cron and ssh give a PATH without these, or none.
const SYSTEM_PATH: &str = ":/usr/local/sbin:/usr/sbin:/sbin";

/// Ends with an error at its deadline, or when more comes than it takes.
pub(crate) struct Bounded<R> {
    inner: R,
    deadline: Instant,
    left: u64,
    trouble: Option<Trouble>,
}

impl<R: Read + AsFd> Bounded<R> {
    pub(crate) fn new(inner: R, limit: Duration, most: u64) -> Self {
        Self { inner, deadline: Instant::now() + limit, left: most, trouble: None }
    }

    /// Why it ended, where that was not the end of what is read.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.trouble
    }

    fn fail(&mut self, trouble: Trouble) -> io::Error {
        self.trouble = Some(trouble);
        io::Error::other(trouble.word())
    }
}

impl<R: Read + AsFd> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
            let ready = poll(&mut [PollFd::new(&self.inner, PollFlags::IN)], Some(&timeout));
            match ready {
                Ok(0) => return Err(self.fail(Trouble::Slow)),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Err(self.fail(Trouble::System)),
                Ok(_) => break,
            }
        }
        let Ok(count) = self.inner.read(buffer) else { return Err(self.fail(Trouble::System)) };
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => return Err(self.fail(Trouble::TooLong)),
        }
        Ok(count)
    }
}

/// Lets a command be found where the system has its own.
pub(crate) fn with_system_path(command: &mut Command) {
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
    command.env("PATH", path + SYSTEM_PATH);
}

/// A command whose output is read; it does not outlive this.
pub(crate) struct Run {
    child: Child,
    pub(crate) output: Bounded<ChildStdout>,
}

impl Run {
    pub(crate) fn start(command: &mut Command, limit: Duration, most: u64) -> Result<Self, Trouble> {
        with_system_path(command);
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = spawned.map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => Trouble::Permission,
            io::ErrorKind::NotFound => Trouble::NoAnswer,
            _ => Trouble::System,
        })?;
        let output = child.stdout.take().ok_or(Trouble::System)?;
        Ok(Self { child, output: Bounded::new(output, limit, most) })
    }

    /// All that it says, if it ends well.
    pub(crate) fn text(mut self) -> Result<String, Trouble> {
        let mut text = String::new();
        let read = self.output.read_to_string(&mut text);
        match (read, self.output.trouble()) {
            (_, Some(trouble)) => Err(trouble),
            (Err(_), None) => Err(Trouble::Garbage),
            (Ok(_), None) => self.end().map(|()| text),
        }
    }

    /// Its exit status, after all was read. One that has closed its output and stays is killed.
    pub(crate) fn end(mut self) -> Result<(), Trouble> {
        let mut nap = Duration::from_millis(1);
        while Instant::now() < self.output.deadline {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                // EX_NOPERM
                Ok(Some(status)) if status.code() == Some(77) => return Err(Trouble::Permission),
                Ok(Some(_)) | Err(_) => return Err(Trouble::NoAnswer),
                Ok(None) => std::thread::sleep(nap),
            }
            nap = (nap * 2).min(Duration::from_millis(50));
        }
        Err(Trouble::Slow)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Nothing happens to one that has ended; one that was killed is reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
