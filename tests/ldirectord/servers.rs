//! Servers on loopback that answer both.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// Ports at which something answers, on every address of loopback.
pub(super) struct Servers {
    pub(super) http: u16,
    pub(super) smtp: u16,
    pub(super) tcp: u16,
    pub(super) echo: u16,
}

impl Servers {
    /// Ports that stand in a file only.
    pub(super) fn ports_only() -> Self {
        Self { http: 8080, smtp: 2525, tcp: 9, echo: 7 }
    }

    /// They answer until the process ends.
    pub(super) fn start() -> Self {
        Self { http: serve(page), smtp: serve(greet), tcp: serve(|_| {}), echo: serve(echo) }
    }
}

fn serve(answer: fn(TcpStream)) -> u16 {
    // Of both families.
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
    port
}

fn page(mut stream: TcpStream) {
    let mut head = BufReader::new(stream.try_clone().unwrap()).lines();
    let first = head.next().and_then(Result::ok).unwrap_or_default();
    for line in head.map_while(Result::ok) {
        if line.is_empty() {
            break;
        }
    }
    let body = "It Works!\n";
    let shown = if first.starts_with("HEAD ") { "" } else { body };
    let length = body.len();
    let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{shown}");
}

fn greet(mut stream: TcpStream) {
    let _ = stream.write_all(b"220 mail.example.com ESMTP\r\n");
    for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
        if line.to_ascii_uppercase().starts_with("QUIT") {
            let _ = stream.write_all(b"221 bye\r\n");
            return;
        }
        let _ = stream.write_all(b"250 mail.example.com\r\n");
    }
}

fn echo(mut stream: TcpStream) {
    let mut said = Vec::new();
    let _ = (&stream).take(1000).read_to_end(&mut said);
    let _ = stream.write_all(&said);
}
