//! EDGE: the least that a client of SMTP or HTTP can do: what `tests/bench/load` holds smtp-loadgen and its peers against.
//!
//! Owns one thread that writes, waits and reads, of SMTP on kept connections, of HTTP on one for each request, and nothing else: no clock, no deadline, no look at what a
//! reply says, no fresh message. Two system calls for each turn and a wait for all that are ready; what this costs is the
//! kernel's. Refuses to be useful. Ends with a panic when anything goes wrong.
//!
//!     cargo run --release -p loadgen --example floor 127.0.0.1:25 lockstep|pipelined|http COUNT
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "it ends with a panic")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use rustix::buffer::spare_capacity;
use rustix::event::epoll;

const SESSIONS: usize = 20;
const REQUEST: &[u8] = b"GET /file HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n";

struct Session {
    stream: TcpStream,
    /// What was written last.
    step: usize,
    /// Lines that are to come.
    lines: usize,
}

/// Bytes of an answer, at least: its content, and some of its header.
const ANSWER: usize = 1024 + 100;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let left: u64 = arguments[3].parse().unwrap();
    match arguments[2].as_str() {
        "http" => requests(&arguments[1], left),
        way => messages(&arguments[1], way, left),
    }
}

/// A connection, a request and its answer, so many times.
fn requests(to: &str, count: u64) {
    let address: SocketAddr = to.parse().unwrap();
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let begin = |place: usize| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(REQUEST).unwrap();
        let data = epoll::EventData::new_u64(u64::try_from(place).unwrap());
        epoll::add(&poll, &stream, data, epoll::EventFlags::IN).unwrap();
        (stream, 0)
    };
    let mut buffer = [0; 4096];
    let mut left = count;
    let mut busy = 0;
    let mut sessions: Vec<Option<(TcpStream, usize)>> = (0..SESSIONS)
        .map(|place| {
            left -= 1;
            busy += 1;
            Some(begin(place))
        })
        .collect();
    let mut events = Vec::with_capacity(SESSIONS);
    while busy > 0 {
        events.clear();
        epoll::wait(&poll, spare_capacity(&mut events), None).unwrap();
        for event in &events {
            let place = usize::try_from(event.data.u64()).unwrap();
            let (stream, so_far) = sessions[place].as_mut().unwrap();
            let length = stream.read(&mut buffer).unwrap();
            assert!(length > 0 && (*so_far > 0 || buffer.starts_with(b"HTTP/1.1 200")));
            *so_far += length;
            if *so_far < ANSWER {
                continue;
            }
            sessions[place] = None;
            if left == 0 {
                busy -= 1;
            } else {
                left -= 1;
                sessions[place] = Some(begin(place));
            }
        }
    }
}

fn messages(to: &str, way: &str, count: u64) {
    let mut left = count;
    let mut body = b"Subject: x\r\n\r\n".to_vec();
    while body.len() < 5120 + 200 {
        body.extend_from_slice(&[b'x'; 78]);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b".\r\n");
    let (mail, rcpt) = ("MAIL FROM:<a@example.com>\r\n", "RCPT TO:<b@example.com>\r\n");
    let together = [mail, rcpt, "DATA\r\n"].concat();
    // What is written in turn, and how many lines come back.
    let steps: Vec<(&[u8], usize)> = match way {
        "lockstep" => vec![(mail.as_bytes(), 1), (rcpt.as_bytes(), 1), (b"DATA\r\n", 1), (&body, 1)],
        "pipelined" => vec![(together.as_bytes(), 3), (&body, 1)],
        other => panic!("{other}: none of lockstep, pipelined, http"),
    };
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let mut buffer = [0; 4096];
    let mut sessions: Vec<Session> = (0..SESSIONS)
        .map(|place| {
            let mut stream = TcpStream::connect(to).unwrap();
            stream.set_nodelay(true).unwrap();
            let _ = stream.read(&mut buffer).unwrap();
            stream.write_all(b"HELO floor.example.com\r\n").unwrap();
            let _ = stream.read(&mut buffer).unwrap();
            let data = epoll::EventData::new_u64(u64::try_from(place).unwrap());
            epoll::add(&poll, &stream, data, epoll::EventFlags::IN).unwrap();
            stream.set_nonblocking(true).unwrap();
            Session { stream, step: 0, lines: 0 }
        })
        .collect();
    let mut busy = 0;
    for session in &mut sessions {
        session.stream.write_all(steps[0].0).unwrap();
        session.lines = steps[0].1;
        busy += 1;
        left = left.saturating_sub(1);
    }
    let mut events = Vec::with_capacity(SESSIONS);
    while busy > 0 {
        events.clear();
        epoll::wait(&poll, spare_capacity(&mut events), None).unwrap();
        for event in &events {
            let session = &mut sessions[usize::try_from(event.data.u64()).unwrap()];
            let length = session.stream.read(&mut buffer).unwrap();
            let read = &buffer[..length];
            assert!(length > 0 && matches!(read[0], b'2' | b'3'), "{}", read.escape_ascii());
            session.lines -= read.iter().filter(|&&byte| byte == b'\n').count();
            if session.lines > 0 {
                continue;
            }
            session.step = (session.step + 1) % steps.len();
            if session.step == 0 {
                if left == 0 {
                    busy -= 1;
                    continue;
                }
                left -= 1;
            }
            let (bytes, lines) = steps[session.step];
            session.stream.write_all(bytes).unwrap();
            session.lines = lines;
        }
    }
}
