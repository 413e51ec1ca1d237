//! A server that takes connections and says nothing, on a host of the farm.

use std::io::Read as _;
use std::net::{Ipv6Addr, TcpListener};
use std::os::fd::AsFd as _;
use std::thread::{self, JoinHandle};

use rustix::net::{Shutdown, shutdown};

use crate::farm::host::Host;

/// It listens until it is dropped.
pub(super) struct Server {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Takes all connections.
    pub(super) fn start(host: &Host, port: u16) -> Self {
        let listener = listen(host, port);
        let own = listener.try_clone().expect("dup");
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                // The listener is shut.
                let Ok(mut stream) = stream else { return };
                thread::spawn(move || stream.read_to_end(&mut Vec::new()));
            }
        });
        Self { listener: own, thread: Some(thread) }
    }

    /// Takes one connection, and is gone.
    pub(super) fn once(host: &Host, port: u16) {
        let listener = listen(host, port);
        let (mut stream, _) = listener.accept().expect("a connection");
        drop(listener);
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

/// Both families.
fn listen(host: &Host, port: u16) -> TcpListener {
    host.inside(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).expect("a free port"))
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = shutdown(self.listener.as_fd(), Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
