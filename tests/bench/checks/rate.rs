//! Cheap SMTP checks, one after the other and many at once, on one core; the server has another.

use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use checks::smtp::SmtpSpec;
use checks::{CheckSpec, Kind};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, recv, send, socket_with};
use rustix::net::{RecvFlags, SendFlags};

use crate::process::user_and_system;
use crate::responder::{Responder, pin};

/// Addresses of loopback that are asked in turn: on one alone the local ports would run out (TIME_WAIT).
const TARGETS: u64 = 16_384;

/// The `index`th of them.
pub(crate) fn target(index: u64, port: u16) -> SocketAddr {
    let [_, _, high, low] = u32::try_from(index % TARGETS).expect("small").to_be_bytes();
    ([127, 201, high, low], port).into()
}

pub(crate) fn spec(target: SocketAddr) -> CheckSpec {
    CheckSpec {
        target,
        kind: Kind::Smtp(SmtpSpec::default()),
        deadline: Duration::from_secs(15),
        connect_timeout: Duration::from_secs(3),
        via: None,
    }
}

pub(crate) fn rate(time: Duration, concurrency: u64) {
    let (responder, [done, failed]) = (start(), [const { AtomicU64::new(0) }; 2].map(Arc::new));
    let port = responder.port;
    // As the daemon's.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    let watch = Watch::start();
    let tasks: Vec<_> = (0..concurrency)
        .map(|task| {
            let (done, failed) = (Arc::clone(&done), Arc::clone(&failed));
            runtime.spawn(async move {
                let mut index = task;
                while watch.start.elapsed() < time {
                    let outcome = Box::pin(checks::run(&spec(target(index, port)))).await;
                    let count = if outcome.verdict.is_ok() { &done } else { &failed };
                    count.fetch_add(1, Ordering::Relaxed);
                    index += concurrency;
                }
            })
        })
        .collect();
    runtime.block_on(async {
        for task in tasks {
            task.await.expect("check");
        }
    });
    watch.tell("checks", done.load(Ordering::Relaxed), failed.load(Ordering::Relaxed));
}

/// Socket, connect, banner, EHLO, QUIT, close, with one epoll for all; no deadlines, no parser, no allocation.
pub(crate) fn floor(time: Duration, concurrency: u64) {
    let responder = start();
    let poll = epoll::create(CreateFlags::CLOEXEC).expect("epoll");
    let mut index = 0;
    let mut begin = |id: u64| {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).expect("socket");
        let _ = connect(&socket, &target(index, responder.port));
        index += 1;
        epoll::add(&poll, &socket, EventData::new_u64(id), EventFlags::IN).expect("session");
        socket
    };
    let watch = Watch::start();
    let (mut done, mut replies) = (0, vec![0; usize::try_from(concurrency).expect("small")]);
    let mut sockets: Vec<_> = (0..concurrency).map(&mut begin).collect();
    let mut events = [MaybeUninit::<Event>::uninit(); 256];
    while watch.start.elapsed() < time {
        for event in epoll::wait(&poll, &mut events, None).expect("epoll").0 {
            let id = event.data.u64();
            let place = usize::try_from(id).expect("small");
            let socket = &sockets[place];
            let mut buffer = [0; 1024];
            assert!(recv(socket, &mut buffer, RecvFlags::empty()).expect("recv").0 > 0, "a reply");
            replies[place] += 1;
            match replies[place] {
                1 => drop(send(socket, b"EHLO localhost\r\n", SendFlags::NOSIGNAL)),
                2 => drop(send(socket, b"QUIT\r\n", SendFlags::NOSIGNAL)),
                _ => {
                    done += 1;
                    replies[place] = 0;
                    sockets[place] = begin(id);
                }
            }
        }
    }
    watch.tell("dialogues without a check", done, 0);
}

fn start() -> Responder {
    pin(1);
    let responder = Responder::start("count");
    pin(0);
    responder
}

#[derive(Clone, Copy)]
struct Watch {
    start: Instant,
    cpu: [Duration; 2],
}

impl Watch {
    fn start() -> Self {
        Self { start: Instant::now(), cpu: user_and_system(std::process::id()) }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of a short run")]
    fn tell(self, what: &str, done: u64, failed: u64) {
        let (took, cpu) = (self.start.elapsed(), user_and_system(std::process::id()));
        let each = |index: usize| (cpu[index] - self.cpu[index]).as_secs_f64() / done as f64 * 1e6;
        println!(
            "{what}: {:.0} a second, {failed} failed, {:.1} us of CPU each (user {:.1}, system {:.1})",
            done as f64 / took.as_secs_f64(),
            each(0) + each(1),
            each(0),
            each(1),
        );
    }
}
