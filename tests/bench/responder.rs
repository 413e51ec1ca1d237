//! The least SMTP server, in a process of its own, so that what asks it is all that is measured.
//!
//! Says what Postfix says to EHLO, HELO and QUIT, and closes. [`Responder`] is its parent's end: a line is a
//! question, the end of standard input its end.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::net::{SocketFlags, accept_with};
use rustix::thread::{CpuSet, sched_setaffinity};
use socket2::{Domain, Socket, Type};

const BANNER: &[u8] = b"220 mail.example.com ESMTP Postfix\r\n";
const EHLO: &[u8] =
    b"250-mail.example.com\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-VRFY\r\n250-ETRN\r\n\
250-STARTTLS\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n250-SMTPUTF8\r\n250 CHUNKING\r\n";
const HELO: &[u8] = b"250 mail.example.com\r\n";
const QUIT: &[u8] = b"221 2.0.0 Bye\r\n";

const LISTENER: u64 = u64::MAX;
const PARENT: u64 = u64::MAX - 1;

/// Serves on any local address until standard input ends. Then prints, if `record`, when each connection came:
/// microseconds since the first, and to whom.
pub(crate) fn serve(record: bool) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket.bind(&SocketAddr::from(([0, 0, 0, 0], 0)).into()).expect("bind");
    socket.listen(4096).expect("listen");
    socket.set_nonblocking(true).expect("nonblocking");
    println!("{}", socket.local_addr().expect("address").as_socket().expect("IPv4").port());

    let poll = epoll::create(CreateFlags::CLOEXEC).expect("epoll");
    let input = std::io::stdin();
    epoll::add(&poll, &socket, EventData::new_u64(LISTENER), EventFlags::IN).expect("listener");
    epoll::add(&poll, input.as_fd(), EventData::new_u64(PARENT), EventFlags::IN).expect("parent");
    let mut sessions: HashMap<u64, TcpStream> = HashMap::new();
    let mut finished = 0_u64;
    let mut starts: Vec<(Instant, SocketAddr)> = Vec::new();
    let mut events = [MaybeUninit::<Event>::uninit(); 256];
    loop {
        let ready = match epoll::wait(&poll, &mut events, None) {
            Ok((ready, _)) => ready,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => panic!("epoll: {error}"),
        };
        for event in ready {
            match event.data.u64() {
                LISTENER => {
                    while let Ok(fd) = accept_with(&socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                        let mut stream = TcpStream::from(fd);
                        if record {
                            starts.push((Instant::now(), stream.local_addr().expect("address")));
                        }
                        let _ = stream.write_all(BANNER);
                        let id = u64::try_from(stream.as_raw_fd()).expect("descriptor");
                        epoll::add(&poll, &stream, EventData::new_u64(id), EventFlags::IN).expect("session");
                        sessions.insert(id, stream);
                    }
                }
                PARENT => {
                    let mut question = [0];
                    if std::io::stdin().lock().read(&mut question).expect("parent") == 0 {
                        tell(&starts);
                        return;
                    }
                    println!("{finished}");
                }
                id => {
                    let Some(stream) = sessions.get_mut(&id) else { continue };
                    let mut command = [0; 512];
                    let reply = match stream.read(&mut command) {
                        Ok(length) if length > 0 => match command[0] {
                            b'E' => EHLO,
                            b'H' => HELO,
                            _ => QUIT,
                        },
                        _ => b"",
                    };
                    let _ = stream.write_all(reply);
                    if reply == QUIT || reply.is_empty() {
                        finished += u64::from(!reply.is_empty());
                        sessions.remove(&id);
                    }
                }
            }
        }
    }
}

fn tell(starts: &[(Instant, SocketAddr)]) {
    let mut out = std::io::stdout().lock();
    let Some((first, _)) = starts.first() else { return };
    for (start, address) in starts {
        let IpAddr::V4(ip) = address.ip() else { panic!("IPv4 only") };
        writeln!(out, "{} {}", start.duration_since(*first).as_micros(), ip.to_bits()).expect("parent");
    }
}

/// Keeps this process, and those that it starts, on one core; on a machine with a single one it changes nothing.
pub(crate) fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu % std::thread::available_parallelism().expect("cores"));
    sched_setaffinity(None, &set).expect("affinity");
}

/// A responder that runs.
pub(crate) struct Responder {
    child: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// The port on every local address.
    pub(crate) port: u16,
}

impl Responder {
    /// Starts this program again, as `responder MODE`.
    pub(crate) fn start(mode: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("ourselves"))
            .args(["responder", mode])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("responder");
        let questions = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut responder = Self { child, questions, answers, port: 0 };
        responder.port = responder.line().parse().expect("a port");
        responder
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("responder");
        line.trim_end().to_owned()
    }

    /// How many dialogues came to QUIT.
    pub(crate) fn finished(&mut self) -> u64 {
        self.questions.as_ref().expect("it runs").write_all(b"\n").expect("responder");
        self.line().parse().expect("a count")
    }

    /// Ends it. When each connection came, in microseconds since the first, and to which address.
    pub(crate) fn end(mut self) -> Vec<(u64, u32)> {
        drop(self.questions.take());
        let mut starts = Vec::new();
        for line in self.answers.by_ref().lines() {
            let line = line.expect("responder");
            let (micros, ip) = line.split_once(' ').expect("two numbers");
            starts.push((micros.parse().expect("micros"), ip.parse().expect("address")));
        }
        starts
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        drop(self.questions.take());
        self.child.wait().expect("responder");
    }
}
