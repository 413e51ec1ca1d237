//! A host of the farm: a network namespace without a name, held by a descriptor.
//!
//! Owns the namespace and the way into it. Refuses to know what runs there. Fails by panicking in the test that
//! asked. A namespace goes with its last descriptor and process, so not even SIGKILL leaves one behind.
#![expect(clippy::disallowed_methods, reason = "EDGE: the lab waits for real processes")]

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// A network namespace.
pub(crate) struct Host {
    pub(crate) name: String,
    namespace: File,
}

impl Host {
    /// A new namespace, with nothing in it but a `lo` that is down.
    pub(crate) fn new(name: &str) -> Self {
        let namespace = thread::spawn(|| {
            #[expect(deprecated, reason = "unsafe only for the flag FILES, which this is not")]
            rustix::thread::unshare(UnshareFlags::NEWNET).expect("a network namespace needs root");
            File::open("/proc/thread-self/ns/net").expect("the new namespace")
        });
        Self { name: name.to_owned(), namespace: namespace.join().expect("unshare") }
    }

    /// Where other processes find the namespace while this one holds it; `ip` takes it for a name.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd())
    }

    /// Does something on a thread of this host: its sockets, its `/proc/sys/net` and its children are the host's.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let there = || {
            self.enter();
            work()
        };
        thread::scope(|scope| scope.spawn(there).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Moves the calling thread to this host, for good.
    pub(crate) fn enter(&self) {
        rustix::thread::move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("setns");
    }

    /// A second hold on the same namespace.
    pub(crate) fn again(&self) -> Self {
        let namespace = self.namespace.try_clone().expect("dup");
        Self { name: self.name.clone(), namespace }
    }

    /// Runs a command to its end and returns its standard output; panics with its standard error if it fails.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> String {
        self.feed(program, arguments, "")
    }

    /// Gives `ip` these lines, one command each.
    pub(crate) fn ip(&self, commands: &str) {
        self.feed("ip", &["-batch", "-"], commands);
    }

    fn feed(&self, program: &str, arguments: &[&str], input: &str) -> String {
        let output = self.inside(|| {
            let mut child = Command::new(program)
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap_or_else(|error| panic!("{program}: {error}"));
            // A program that does not read its input may be gone already; its exit status tells.
            let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
            child.wait_with_output().expect("wait")
        });
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?} on {}: {said}\n{input}", self.name);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Sets `net.…` values of this host; one that the kernel does not have is left alone.
    pub(crate) fn sysctl(&self, settings: &[(&str, &str)]) {
        self.inside(|| {
            for (name, value) in settings {
                let path = format!("/proc/sys/net/{name}");
                if fs::exists(&path).unwrap_or(false) {
                    fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
                }
            }
        });
    }
}

/// Polls until the condition holds; panics with `what` when the limit is over.
pub(crate) fn wait_until(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
