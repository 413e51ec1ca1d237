//! The embedded TCP forwarder between real sockets on loopback.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed; the lint's own exception ends at functions without #[test]"
)]

mod choice;
mod session;
mod table;

use std::collections::BTreeMap;
use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use smtp_director::config::{ProxyOptions, ProxyProtocol};
use smtp_director::dataplane::proxy::Proxy;
use smtp_director::dataplane::{Dataplane as _, Error};
use smtp_director::model::{
    Family, Forward, Granularity, Op, Persistence, Protocol, RealCounters, RealId, RealSettings, Scheduler,
    TableError, VirtualId, VirtualSettings, Weight,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::contract::{Abilities, suite};

/// Long enough for the slowest machine, short enough for whoever waits for a failure.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), what).await.expect("it takes too long")
}

fn tcp(address: SocketAddr) -> VirtualId {
    VirtualId::Address { protocol: Protocol::Tcp, address }
}

/// An address that no other test and no other process of this test uses, on a port that nobody is given by chance.
fn vip() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., a, b] = std::process::id().to_be_bytes();
    SocketAddr::from(([127, a | 64, b, NEXT.fetch_add(1, Ordering::Relaxed)], 2525))
}

fn weighing(weight: u32) -> RealSettings {
    RealSettings::new(Forward::Masq, Weight(weight))
}

async fn server() -> (TcpListener, RealId) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let id = RealId(listener.local_addr().unwrap());
    (listener, id)
}

/// A server that nobody listens for.
async fn refusing_server() -> RealId {
    // Bound and not listening: the port stays taken, and connections to it are refused.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let id = RealId(socket.local_addr().unwrap().as_socket().unwrap());
    std::mem::forget(socket);
    id
}

/// An IPv6 port for the proxy, as long as the socket lives: it is bound, does not listen, and `SO_REUSEADDR` on
/// both sides lets the proxy have the port that nobody else is given.
fn v6_port() -> (TcpSocket, u16) {
    let placeholder = TcpSocket::new_v6().unwrap();
    placeholder.set_reuseaddr(true).unwrap();
    placeholder.bind("[::]:0".parse().unwrap()).unwrap();
    let port = placeholder.local_addr().unwrap().port();
    (placeholder, port)
}

/// A proxy with one virtual.
struct Farm {
    proxy: Proxy,
    vip: SocketAddr,
}

impl Farm {
    async fn new(scheduler: Scheduler, reals: &[(RealId, u32)]) -> Self {
        let mut farm = Self { proxy: Proxy::new(), vip: vip() };
        farm.apply(Op::AddVirtual(tcp(farm.vip), VirtualSettings::new(scheduler))).await;
        for (real, weight) in reals {
            farm.apply(Op::AddReal(tcp(farm.vip), *real, weighing(*weight))).await;
        }
        farm
    }

    async fn apply(&mut self, op: Op) {
        self.proxy.apply(&op).await.unwrap();
    }

    async fn weigh(&mut self, real: RealId, weight: u32) {
        self.apply(Op::SetReal(tcp(self.vip), real, weighing(weight))).await;
    }

    fn set_options(&mut self, options: ProxyOptions) {
        self.proxy.set_proxy_options(BTreeMap::from([(tcp(self.vip), options)]));
    }

    async fn client(&self) -> TcpStream {
        soon(TcpStream::connect(self.vip)).await.unwrap()
    }

    /// Both ends of a new session.
    async fn session(&self, server: &TcpListener) -> (TcpStream, TcpStream) {
        let client = self.client().await;
        let (server, _) = soon(server.accept()).await.unwrap();
        (client, server)
    }

    async fn counters(&mut self, real: RealId) -> RealCounters {
        self.proxy.dump().await.unwrap().counters.reals[&(tcp(self.vip), real)]
    }

    async fn wait_for(&mut self, real: RealId, active: u32, inactive: u32) {
        soon(async {
            loop {
                let now = self.counters(real).await;
                if (now.active, now.inactive) == (active, inactive) {
                    return;
                }
                sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }
}

async fn send(stream: &mut TcpStream, bytes: &[u8]) {
    soon(stream.write_all(bytes)).await.unwrap();
}

async fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut seen = vec![0; bytes.len()];
    soon(stream.read_exact(&mut seen)).await.unwrap();
    assert_eq!(seen, bytes, "{:?}", String::from_utf8_lossy(&seen));
}

async fn expect_eof(stream: &mut TcpStream) {
    assert_eq!(soon(stream.read(&mut [0])).await.unwrap(), 0);
}

async fn expect_reset(stream: &mut TcpStream) {
    let end = soon(stream.read(&mut [0])).await;
    assert_eq!(end.map_err(|e| e.kind()), Err(ErrorKind::ConnectionReset));
}

fn reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
    drop(stream);
}
