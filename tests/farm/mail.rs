//! Clients: one session held by hand, or a load of many in the background.
//!
//! Owns a minimal SMTP client that says exactly which server answered, what was accepted and what failed. Refuses
//! to retry: a failure that a real client would hide must be seen here.
#![expect(clippy::disallowed_methods, reason = "EDGE: failures carry the time they began")]

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::host::Host;

/// The header line that carries a message's id.
pub(crate) const ID_HEADER: &str = "X-Lab-Id:";

const PATIENCE: Duration = Duration::from_secs(20);
/// Between two sessions of one worker: the guest has one CPU, and the director must get its share.
const PACE: Duration = Duration::from_millis(100);

/// One SMTP session, after EHLO.
pub(crate) struct Session {
    stream: BufReader<TcpStream>,
    /// The first label of the banner's host name: `real2`.
    pub(crate) server: String,
}

impl Session {
    /// Connects from `client` and waits for banner and EHLO.
    pub(crate) fn open(client: &Host, target: SocketAddr) -> io::Result<Self> {
        client.inside(|| Self::open_here(target))
    }

    fn open_here(target: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&target, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut session = Self { stream: BufReader::new(stream), server: String::new() };
        let banner = session.expect("220")?;
        session.server = banner.trim_start_matches("220 ").split(['.', ' ']).next().unwrap_or("").to_owned();
        session.say("EHLO client.lab.test", "250")?;
        Ok(session)
    }

    /// Sends one message; returns its id once the server has taken responsibility for it (250 after the dot).
    pub(crate) fn mail(&mut self) -> io::Result<String> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let id = format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        self.say("MAIL FROM:<sender@client.lab.test>", "250")?;
        self.say("RCPT TO:<inbox@lab.test>", "250")?;
        self.say("DATA", "354")?;
        self.say(&format!("{ID_HEADER} {id}\r\nSubject: lab\r\n\r\nbody\r\n."), "250")?;
        Ok(id)
    }

    /// Says goodbye.
    pub(crate) fn quit(mut self) -> io::Result<()> {
        self.say("QUIT", "221").map(drop)
    }

    fn say(&mut self, line: &str, code: &str) -> io::Result<String> {
        self.stream.get_mut().write_all(format!("{line}\r\n").as_bytes())?;
        self.expect(code)
    }

    fn expect(&mut self, code: &str) -> io::Result<String> {
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line.as_bytes().get(3) == Some(&b'-') {
                continue;
            }
            if !line.starts_with(code) {
                return Err(io::Error::other(format!("wanted {code}, got {}", line.trim_end())));
            }
            return Ok(line);
        }
    }
}

/// A session that went wrong.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// When it was opened.
    pub(crate) began: Instant,
    /// Who had answered, if anybody.
    pub(crate) server: Option<String>,
    /// What the client saw; shown when a test fails.
    #[expect(dead_code, reason = "read by Debug only")]
    pub(crate) error: String,
}

/// What a load has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Ids of the messages that a server answered 250 for.
    pub(crate) accepted: Vec<String>,
    /// Complete sessions by server.
    pub(crate) sessions: BTreeMap<String, usize>,
    /// In the order in which they ended.
    pub(crate) failures: Vec<Failure>,
}

/// Clients that open a session, send two messages, quit, and begin again, until stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    workers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Three such clients on the host `client`.
    pub(crate) fn start(client: &Host, target: SocketAddr) -> Self {
        let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Tally::default())));
        let workers = (0..3)
            .map(|_| {
                let (client, stop, tally) = (client.again(), Arc::clone(&stop), Arc::clone(&tally));
                thread::spawn(move || {
                    client.enter();
                    while !stop.load(Ordering::Relaxed) {
                        one_session(target, &tally);
                        thread::sleep(PACE);
                    }
                })
            })
            .collect();
        Self { stop, tally, workers }
    }

    /// What has been seen until now.
    pub(crate) fn tally(&self) -> Tally {
        self.tally.lock().expect("no worker panics").clone()
    }

    /// Ends the clients, each after its session, and returns what they saw.
    pub(crate) fn stop(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            worker.join().expect("no worker panics");
        }
        self.tally()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn one_session(target: SocketAddr, tally: &Mutex<Tally>) {
    let began = Instant::now();
    let mut server = None;
    let mut attempt = || -> io::Result<()> {
        let mut session = Session::open_here(target)?;
        server = Some(session.server.clone());
        for _ in 0..2 {
            let id = session.mail()?;
            tally.lock().expect("no worker panics").accepted.push(id);
        }
        session.quit()
    };
    let result = attempt();
    let mut tally = tally.lock().expect("no worker panics");
    match (result, server) {
        (Ok(()), Some(server)) => *tally.sessions.entry(server).or_default() += 1,
        (Ok(()), None) => {}
        (Err(error), server) => tally.failures.push(Failure { began, server, error: error.to_string() }),
    }
}
