//! Servers that are ill in ways of which a test must know when they begin and end.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use loadgen::sink::{Sink, SinkConfig};

/// One that is well.
pub(super) fn well() -> Sink {
    Sink::start("127.0.0.1:0".parse().unwrap(), SinkConfig::new("well.example")).unwrap()
}

/// How many conversations are under way, have been at most, and are over.
#[derive(Debug, Default)]
pub(super) struct Counts {
    open: AtomicUsize,
    most: AtomicUsize,
    ended: AtomicUsize,
}

impl Counts {
    pub(super) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    pub(super) fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }

    pub(super) fn begun(&self) -> usize {
        self.open.load(Ordering::SeqCst) + self.ended()
    }
}

/// One that is well and is counted how often it is asked.
pub(super) fn answering(counts: &Arc<Counts>) -> SocketAddr {
    serve(counts, |mut stream| {
        let _ = stream.write_all(b"220 answering.example ESMTP\r\n");
        for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
            let answer: &[u8] = if line.starts_with("QUIT") { b"221 bye\r\n" } else { b"250 ok\r\n" };
            if stream.write_all(answer).is_err() || answer.starts_with(b"221") {
                return;
            }
        }
    })
}

/// One that takes a connection and says nothing.
pub(super) fn hung(counts: &Arc<Counts>) -> SocketAddr {
    serve(counts, |mut stream| while stream.read(&mut [0; 64]).is_ok_and(|length| length > 0) {})
}

/// One that says its banner byte by byte, one a second, and the banner has no end.
pub(super) fn dribbling(counts: &Arc<Counts>) -> SocketAddr {
    serve(counts, |mut stream| {
        for byte in b"220-wait a moment\r\n".iter().cycle() {
            // Where the other side has gone, the second byte finds that out.
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    })
}

fn serve(counts: &Arc<Counts>, talk: fn(TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let counts = Arc::clone(counts);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let open = counts.open.fetch_add(1, Ordering::SeqCst) + 1;
            counts.most.fetch_max(open, Ordering::SeqCst);
            let counts = Arc::clone(&counts);
            std::thread::spawn(move || {
                talk(stream);
                counts.ended.fetch_add(1, Ordering::SeqCst);
                counts.open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    address
}
