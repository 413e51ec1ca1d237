//! Servers that are ill in ways of which a test must know when they begin and end.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
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

/// Who gets a mail, and its text.
pub(super) type Mail = (BTreeSet<String>, String);

/// A mail server that takes each mail of each connection and keeps it, with its envelope.
pub(super) struct MailServer {
    address: SocketAddr,
    mails: Arc<Mutex<Vec<Mail>>>,
    stopped: Arc<AtomicBool>,
}

impl MailServer {
    pub(super) fn start() -> Self {
        Self::start_on("127.0.0.1:0")
    }

    pub(super) fn start_on(address: &str) -> Self {
        Self::greeting(address, "220-mx.test\r\n220 ESMTP\r\n")
    }

    /// One that takes no mail from anybody.
    pub(super) fn refusing() -> Self {
        Self::greeting("127.0.0.1:0", "554 5.3.2 go away\r\n")
    }

    fn greeting(address: &str, greeting: &'static str) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (mails, stopped): (Arc<Mutex<Vec<_>>>, Arc<AtomicBool>) = (Arc::default(), Arc::default());
        let (kept, end) = (Arc::clone(&mails), Arc::clone(&stopped));
        std::thread::spawn(move || {
            for stream in listener.incoming().take_while(|_| !end.load(Ordering::SeqCst)) {
                let _ = take_mails(stream.unwrap(), greeting, &kept);
            }
        });
        Self { address, mails, stopped }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn mails(&self) -> Vec<Mail> {
        self.mails.lock().unwrap().clone()
    }

    pub(super) fn subjects(&self) -> Vec<String> {
        let subject =
            |text: &str| text.lines().find_map(|line| line.strip_prefix("Subject: ").map(str::to_owned));
        self.mails().iter().filter_map(|(_, text)| subject(text)).collect()
    }

    /// Nobody listens there any more when it returns.
    pub(super) fn stop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        while TcpStream::connect(self.address).is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn take_mails(mut stream: TcpStream, greeting: &str, kept: &Mutex<Vec<Mail>>) -> std::io::Result<()> {
    stream.write_all(greeting.as_bytes())?;
    let mut to = BTreeSet::new();
    let mut lines = BufReader::new(stream.try_clone()?).lines().map_while(Result::ok);
    while let Some(line) = lines.next() {
        let answer = match line.get(..4).unwrap_or_default() {
            "RCPT" if line.contains("refused@") => "550 5.1.1 no such user",
            "RCPT" => {
                to.insert(line.trim_start_matches("RCPT TO:").to_owned());
                "250 ok"
            }
            "DATA" => {
                stream.write_all(b"354 go\r\n")?;
                let text: Vec<String> = lines.by_ref().take_while(|line| line != ".").collect();
                kept.lock().unwrap().push((to.clone(), text.join("\n")));
                "250 ok"
            }
            "QUIT" => "221 bye",
            _ => "250 ok",
        };
        stream.write_all(format!("{answer}\r\n").as_bytes())?;
    }
    Ok(())
}
