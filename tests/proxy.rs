//! The embedded TCP forwarder between real sockets on loopback.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed; the lint's own exception ends at functions without #[test]"
)]

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
    SchedulerFlags, TableError, VirtualId, VirtualSettings, Weight,
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

fn balanced_by(scheduler: Scheduler) -> VirtualSettings {
    VirtualSettings { scheduler, flags: SchedulerFlags::NONE, one_packet: false, persistence: None }
}

fn weighing(weight: u32) -> RealSettings {
    RealSettings { forward: Forward::Masq, weight: Weight(weight), upper_threshold: 0, lower_threshold: 0 }
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
        farm.apply(Op::AddVirtual(tcp(farm.vip), balanced_by(scheduler))).await;
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

#[tokio::test]
async fn the_proxy_keeps_the_contract() {
    use Scheduler as S;
    let (_placeholder, port) = v6_port();
    let can = Abilities {
        virtuals: vec![vip(), vip(), format!("[::1]:{port}").parse().unwrap()],
        udp: false,
        fwmark: false,
        schedulers: vec![S::Rr, S::Wrr, S::Lc, S::Wlc, S::Sed, S::Nq, S::Sh],
        persistence: false,
        ..Abilities::all()
    };
    suite(Proxy::new(), can).await;
}

#[tokio::test]
async fn a_session_is_relayed_and_counted() {
    let (listener, real) = server().await;
    let mut farm = Farm::new(Scheduler::Wlc, &[(real, 1)]).await;
    let (mut client, mut server) = farm.session(&listener).await;
    send(&mut server, b"220 mail.example ESMTP\r\n").await;
    expect(&mut client, b"220 mail.example ESMTP\r\n").await;
    send(&mut client, b"QUIT\r\n").await;
    expect(&mut server, b"QUIT\r\n").await;
    farm.wait_for(real, 1, 0).await;
    let stats = farm.counters(real).await.stats;
    assert_eq!((stats.connections, stats.in_bytes, stats.out_bytes), (1, 6, 24));
    assert_eq!(farm.proxy.dump().await.unwrap().counters.virtuals[&tcp(farm.vip)], stats);
    drop(server);
    expect_eof(&mut client).await;
    drop(client);
    farm.wait_for(real, 0, 0).await;
}

#[tokio::test]
async fn a_side_that_has_ended_still_hears_the_other() {
    let (listener, real) = server().await;
    let mut farm = Farm::new(Scheduler::Rr, &[(real, 1)]).await;
    for client_ends_first in [true, false] {
        let (client, server) = farm.session(&listener).await;
        let (mut first, mut second) = if client_ends_first { (client, server) } else { (server, client) };
        send(&mut first, b"last words").await;
        soon(first.shutdown()).await.unwrap();
        expect(&mut second, b"last words").await;
        expect_eof(&mut second).await;
        farm.wait_for(real, 0, 1).await;
        send(&mut second, b"answer").await;
        drop(second);
        expect(&mut first, b"answer").await;
        expect_eof(&mut first).await;
        farm.wait_for(real, 0, 0).await;
    }
}

#[tokio::test]
async fn a_reset_is_a_reset_on_the_other_side() {
    let (listener, real) = server().await;
    let mut farm = Farm::new(Scheduler::Rr, &[(real, 1)]).await;

    let (client, mut server) = farm.session(&listener).await;
    reset(client);
    expect_reset(&mut server).await;

    let (mut client, mut server) = farm.session(&listener).await;
    // Reset before the proxy has seen the handshake end, it would count as a server that refuses.
    send(&mut client, b"EHLO").await;
    expect(&mut server, b"EHLO").await;
    send(&mut server, b"421 4.3.2 closing\r\n").await;
    reset(server);
    expect(&mut client, b"421 4.3.2 closing\r\n").await;
    expect_reset(&mut client).await;

    // Half-closed before: the reset must not look like the regular end of the other half.
    let (mut client, mut server) = farm.session(&listener).await;
    soon(client.shutdown()).await.unwrap();
    expect_eof(&mut server).await;
    reset(server);
    expect_reset(&mut client).await;
    farm.wait_for(real, 0, 0).await;
}

#[tokio::test]
async fn a_server_of_weight_0_keeps_its_sessions_and_gets_no_new_ones() {
    let ((first, one), (second, two)) = (server().await, server().await);
    let mut farm = Farm::new(Scheduler::Wlc, &[(one, 1), (two, 0)]).await;
    let (mut client, mut server) = farm.session(&first).await;
    farm.weigh(two, 1).await;
    farm.weigh(one, 0).await;
    for _ in 0..3 {
        let (mut client, mut server) = farm.session(&second).await;
        send(&mut server, b"220").await;
        expect(&mut client, b"220").await;
    }
    send(&mut client, b"NOOP").await;
    expect(&mut server, b"NOOP").await;
    farm.wait_for(one, 1, 0).await;
    assert_eq!(farm.counters(one).await.stats.connections, 1);
}

#[tokio::test]
async fn a_client_of_a_refusing_server_gets_the_next_one() {
    let (listener, alive) = server().await;
    let dead = refusing_server().await;
    for scheduler in [Scheduler::Rr, Scheduler::Wrr, Scheduler::Wlc, Scheduler::Nq] {
        let mut farm = Farm::new(scheduler, &[(dead, 1), (alive, 1)]).await;
        for _ in 0..4 {
            let (mut client, mut server) = farm.session(&listener).await;
            send(&mut client, b"EHLO").await;
            expect(&mut server, b"EHLO").await;
        }
        farm.wait_for(dead, 0, 0).await;
        let dump = farm.proxy.dump().await.unwrap();
        assert_eq!(dump.counters.virtuals[&tcp(farm.vip)].connections, 4);
    }
}

#[tokio::test]
async fn a_client_of_a_silent_server_gets_the_next_one() {
    let (listener, alive) = server().await;
    // A full accept queue: the kernel answers no further handshake.
    let silent = TcpSocket::new_v4().unwrap();
    silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let silent = silent.listen(0).unwrap();
    let address = silent.local_addr().unwrap();
    let _queued = soon(TcpStream::connect(address)).await.unwrap();
    let farm = Farm::new(Scheduler::Wrr, &[(RealId(address), 10), (alive, 1)]).await;
    let (mut client, mut server) = farm.session(&listener).await;
    send(&mut server, b"220").await;
    expect(&mut client, b"220").await;
}

#[tokio::test]
async fn a_client_that_nobody_takes_is_reset() {
    let (_listener, quiescent) = server().await;
    let dead = refusing_server().await;
    for reals in [&[][..], &[(quiescent, 0)], &[(dead, 1)], &[(dead, 1), (quiescent, 0)]] {
        let mut farm = Farm::new(Scheduler::Wlc, reals).await;
        expect_reset(&mut farm.client().await).await;
        for (real, weight) in reals {
            let tries = farm.counters(*real).await.stats.connections;
            assert_eq!(tries, u64::from(*weight), "each server that may be tried is tried once");
        }
    }
}

#[tokio::test]
async fn a_full_server_takes_no_more() {
    let (listener, real) = server().await;
    let mut farm = Farm::new(Scheduler::Wlc, &[]).await;
    let settings = RealSettings { upper_threshold: 2, lower_threshold: 1, ..weighing(1) };
    farm.apply(Op::AddReal(tcp(farm.vip), real, settings)).await;
    let one = farm.session(&listener).await;
    let two = farm.session(&listener).await;
    expect_reset(&mut farm.client().await).await;
    drop(one);
    farm.wait_for(real, 1, 0).await;
    expect_reset(&mut farm.client().await).await;
    drop(two);
    farm.wait_for(real, 0, 0).await;
    farm.session(&listener).await;
}

#[tokio::test]
async fn a_server_learns_who_the_client_is() {
    let (listener, real) = server().await;
    let mut farm = Farm::new(Scheduler::Rr, &[(real, 1)]).await;
    let idle = Duration::from_secs(60);

    farm.set_options(ProxyOptions { protocol: Some(ProxyProtocol::V1), idle });
    let (client, mut server) = farm.session(&listener).await;
    let peer = client.local_addr().unwrap();
    let line = format!("PROXY TCP4 {} {} {} 2525\r\n", peer.ip(), farm.vip.ip(), peer.port());
    expect(&mut server, line.as_bytes()).await;

    farm.set_options(ProxyOptions { protocol: Some(ProxyProtocol::V2), idle });
    let (mut client, mut server) = farm.session(&listener).await;
    send(&mut client, b"EHLO").await;
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01".to_vec();
    let SocketAddr::V4(vip) = farm.vip else { panic!("not IPv4") };
    header.extend(vip.ip().octets());
    header.extend(client.local_addr().unwrap().port().to_be_bytes());
    header.extend(vip.port().to_be_bytes());
    header.extend(b"EHLO");
    expect(&mut server, &header).await;
}

#[tokio::test]
async fn a_session_in_which_nothing_moves_is_reset() {
    let (listener, real) = server().await;
    let mut farm = Farm::new(Scheduler::Rr, &[(real, 1)]).await;
    farm.set_options(ProxyOptions { protocol: None, idle: Duration::from_secs(1) });
    let (mut quiet, mut server) = farm.session(&listener).await;
    let (mut busy, mut busy_server) = farm.session(&listener).await;
    for _ in 0..10 {
        sleep(Duration::from_millis(150)).await;
        send(&mut busy, b"NOOP").await;
        expect(&mut busy_server, b"NOOP").await;
    }
    expect_reset(&mut quiet).await;
    expect_reset(&mut server).await;
    send(&mut busy_server, b"250").await;
    expect(&mut busy, b"250").await;
    expect_reset(&mut busy).await;
    farm.wait_for(real, 0, 0).await;
}

#[tokio::test]
async fn a_deleted_virtual_is_closed_at_once_and_its_sessions_go_on() {
    let (listener, real) = server().await;
    let mut farm = Farm::new(Scheduler::Wlc, &[(real, 1)]).await;
    let (mut client, mut server) = farm.session(&listener).await;
    farm.apply(Op::DeleteVirtual(tcp(farm.vip))).await;
    let refused = soon(TcpStream::connect(farm.vip)).await.map_err(|e| e.kind());
    assert_eq!(refused.map(|_| ()), Err(ErrorKind::ConnectionRefused));
    send(&mut client, b"NOOP").await;
    expect(&mut server, b"NOOP").await;
    // The same address again, with a session of the time before still open.
    farm.apply(Op::AddVirtual(tcp(farm.vip), balanced_by(Scheduler::Rr))).await;
    farm.apply(Op::AddReal(tcp(farm.vip), real, weighing(1))).await;
    farm.session(&listener).await;
}

#[tokio::test]
async fn a_server_that_comes_back_has_its_sessions_still() {
    let (listener, real) = server().await;
    let mut farm = Farm::new(Scheduler::Wlc, &[(real, 1)]).await;
    let (mut client, mut server) = farm.session(&listener).await;
    farm.apply(Op::DeleteReal(tcp(farm.vip), real)).await;
    expect_reset(&mut farm.client().await).await;
    send(&mut client, b"NOOP").await;
    expect(&mut server, b"NOOP").await;
    farm.apply(Op::AddReal(tcp(farm.vip), real, weighing(1))).await;
    let (_client, _server) = farm.session(&listener).await;
    farm.wait_for(real, 2, 0).await;
    drop((client, server));
    farm.wait_for(real, 1, 0).await;
    // Without sessions it begins anew.
    drop((_client, _server));
    farm.wait_for(real, 0, 0).await;
    farm.apply(Op::DeleteReal(tcp(farm.vip), real)).await;
    farm.apply(Op::AddReal(tcp(farm.vip), real, weighing(1))).await;
    assert_eq!(farm.counters(real).await, RealCounters::default());
}

#[tokio::test]
async fn another_scheduler_takes_over_from_the_next_client_on() {
    let ((first, one), (second, two)) = (server().await, server().await);
    let mut farm = Farm::new(Scheduler::Sh, &[(one, 1), (two, 1)]).await;
    let mut all = Vec::new();
    for n in 0..8 {
        if n == 4 {
            farm.apply(Op::SetVirtual(tcp(farm.vip), balanced_by(Scheduler::Rr))).await;
        }
        all.push(farm.client().await);
        let server = soon(async {
            tokio::select! {
                server = first.accept() => server,
                server = second.accept() => server,
            }
        })
        .await;
        all.push(server.unwrap().0);
    }
    let shares = [farm.counters(one).await.stats.connections, farm.counters(two).await.stats.connections];
    assert!(shares == [6, 2] || shares == [2, 6], "{shares:?}");
}

#[tokio::test]
async fn ipv6_is_served_and_leaves_ipv4_alone() {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let real = RealId(listener.local_addr().unwrap());
    let (_placeholder, port) = v6_port();
    let wildcard: SocketAddr = format!("[::]:{port}").parse().unwrap();
    let mut proxy = Proxy::new();
    proxy.apply(&Op::AddVirtual(tcp(wildcard), balanced_by(Scheduler::Wlc))).await.unwrap();
    proxy.apply(&Op::AddReal(tcp(wildcard), real, weighing(1))).await.unwrap();
    proxy.set_proxy_options(BTreeMap::from([(
        tcp(wildcard),
        ProxyOptions { protocol: Some(ProxyProtocol::V1), idle: Duration::from_secs(60) },
    )]));
    let client = soon(TcpStream::connect(("::1", port))).await.unwrap();
    let (mut server, _) = soon(listener.accept()).await.unwrap();
    let peer = client.local_addr().unwrap().port();
    expect(&mut server, format!("PROXY TCP6 ::1 ::1 {peer} {port}\r\n").as_bytes()).await;
    let v4 = soon(TcpStream::connect(("127.0.0.1", port))).await.map_err(|e| e.kind());
    assert_eq!(v4.map(|_| ()), Err(ErrorKind::ConnectionRefused));
}

#[tokio::test]
async fn what_cannot_be_listened_on_says_why_and_changes_nothing() {
    let (_listener, taken) = server().await;
    let foreign: SocketAddr = "192.0.2.25:2525".parse().unwrap();
    let mut proxy = Proxy::new();
    for (address, advice) in [(taken.0, "another program"), (foreign, "no interface")] {
        let error = proxy.apply(&Op::AddVirtual(tcp(address), balanced_by(Scheduler::Rr))).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Listen { .. }), "{text}");
        assert!(text.contains(advice) && text.contains(&address.to_string()), "{text}");
    }
    assert!(proxy.dump().await.unwrap().table.virtuals.is_empty());
}

#[tokio::test]
async fn what_tcp_cannot_forward_is_refused_after_what_the_table_refuses() {
    let address = vip();
    let mut farm = Farm::new(Scheduler::Wlc, &[]).await;
    let before = farm.proxy.dump().await.unwrap();
    let id = tcp(farm.vip);
    let plain = balanced_by(Scheduler::Wlc);
    let persistence =
        Some(Persistence { timeout: 300, granularity: Granularity::host(Family::V4), engine: None });
    let sticky = VirtualSettings { persistence, ..plain.clone() };
    let udp = VirtualId::Address { protocol: Protocol::Udp, address };
    let mark = VirtualId::Fwmark { mark: 7, family: Family::V4 };
    let all_ports = tcp(SocketAddr::new(address.ip(), 0));
    let portless = RealId(SocketAddr::new(address.ip(), 0));
    for (op, advice) in [
        (Op::AddVirtual(udp, plain.clone()), "TCP"),
        (Op::AddVirtual(mark, plain.clone()), "TCP"),
        (Op::AddVirtual(all_ports, plain.clone()), "port"),
        (Op::AddVirtual(tcp(address), sticky.clone()), "sh"),
        (Op::AddVirtual(tcp(address), balanced_by(Scheduler::Mh)), "wlc"),
        (Op::SetVirtual(id, sticky.clone()), "sh"),
        (Op::SetVirtual(id, balanced_by(Scheduler::Other("x".into()))), "wlc"),
        (Op::AddReal(id, portless, weighing(1)), "port"),
    ] {
        let error = farm.proxy.apply(&op).await.unwrap_err();
        assert!(matches!(&error, Error::Unsupported(text) if text.contains(advice)), "{op}: {error}");
    }
    for (op, refusal) in [
        (Op::AddVirtual(id, sticky.clone()), TableError::Exists),
        (Op::SetVirtual(udp, sticky), TableError::NoVirtual),
        (Op::AddReal(mark, portless, weighing(1)), TableError::NoVirtual),
        (Op::SetReal(id, portless, weighing(1)), TableError::NoReal),
        (Op::DeleteReal(id, portless), TableError::NoReal),
    ] {
        let error = farm.proxy.apply(&op).await.unwrap_err();
        assert!(matches!(&error, Error::Table(e) if *e == refusal), "{op}: {error}");
    }
    assert_eq!(farm.proxy.dump().await.unwrap(), before);
}

#[tokio::test]
async fn a_dropped_proxy_listens_no_more() {
    let (listener, real) = server().await;
    let farm = Farm::new(Scheduler::Rr, &[(real, 1)]).await;
    let (mut client, mut server) = farm.session(&listener).await;
    let vip = farm.vip;
    drop(farm);
    soon(async {
        while TcpListener::bind(vip).await.is_err() {
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    send(&mut client, b"NOOP").await;
    expect(&mut server, b"NOOP").await;
}

#[tokio::test]
async fn a_closing_proxy_waits_for_its_sessions_and_no_longer_than_told() {
    let (listener, real) = server().await;
    let mut farm = Farm::new(Scheduler::Rr, &[(real, 1)]).await;
    let (mut client, mut server) = farm.session(&listener).await;
    let vip = farm.vip;
    soon(farm.proxy.close(Duration::from_millis(10))).await;
    let closing = tokio::spawn(async move { farm.proxy.close(Duration::from_secs(3600)).await });
    soon(async {
        while TcpListener::bind(vip).await.is_err() {
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    send(&mut client, b"QUIT").await;
    expect(&mut server, b"QUIT").await;
    assert!(!closing.is_finished(), "a session is still open");
    drop(server);
    expect_eof(&mut client).await;
    drop(client);
    soon(closing).await.unwrap();
}

#[test]
fn sessions_that_lose_their_process_are_reset() {
    let inner = tokio::runtime::Runtime::new().unwrap();
    let outer = tokio::runtime::Runtime::new().unwrap();
    outer.block_on(async {
        let (listener, real) = server().await;
        let farm = inner.spawn(async move { Farm::new(Scheduler::Rr, &[(real, 1)]).await }).await.unwrap();
        let (mut client, mut server) = farm.session(&listener).await;
        send(&mut client, b"NOOP").await;
        expect(&mut server, b"NOOP").await;
        inner.shutdown_background();
        expect_reset(&mut client).await;
        expect_reset(&mut server).await;
    });
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_its_server() {
    const LENGTH: usize = 64 << 20;
    let (listener, real) = server().await;
    let farm = Farm::new(Scheduler::Rr, &[(real, 1)]).await;
    let (mut client, mut server) = farm.session(&listener).await;
    let chunk = [b'x'; 64 * 1024];
    let mut sent = 0;
    // A write that waits this long waits for the client; on a slow machine it may give up early, never late.
    while let Ok(n) = timeout(Duration::from_millis(500), server.write(&chunk)).await {
        sent += n.unwrap();
        assert!(sent < LENGTH, "the proxy keeps more than any socket buffer holds");
    }
    soon(server.shutdown()).await.unwrap();
    let mut seen = Vec::new();
    soon(client.read_to_end(&mut seen)).await.unwrap();
    assert_eq!(seen.len(), sent);
}

/// Sends bytes that are different in each session and at each place, and wants the same back.
async fn exchange(vip: SocketAddr, seed: u32) {
    const LENGTH: u32 = 1 << 20;
    let bytes: Vec<u8> = (0..LENGTH).map(|n| (n.wrapping_mul(seed * 2 + 1) >> 7).to_le_bytes()[0]).collect();
    let stream = soon(TcpStream::connect(vip)).await.unwrap();
    let (mut from, mut to) = stream.into_split();
    let expected = bytes.clone();
    let reader = tokio::spawn(async move {
        let mut seen = Vec::new();
        from.read_to_end(&mut seen).await.unwrap();
        assert!(seen == expected, "session {seed}: {} bytes, not the same", seen.len());
    });
    to.write_all(&bytes).await.unwrap();
    to.shutdown().await.unwrap();
    reader.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_sessions_at_once_are_byte_exact() {
    let ((first, one), (second, two)) = (server().await, server().await);
    for listener in [first, second] {
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await.unwrap();
                    to.shutdown().await.unwrap();
                });
            }
        });
    }
    let mut farm = Farm::new(Scheduler::Wlc, &[(one, 1), (two, 1)]).await;
    let clients: Vec<_> = (0..200).map(|seed| tokio::spawn(exchange(farm.vip, seed))).collect();
    timeout(Duration::from_secs(120), async {
        for client in clients {
            client.await.unwrap();
        }
    })
    .await
    .unwrap();
    for real in [one, two] {
        farm.wait_for(real, 0, 0).await;
    }
    let stats = farm.proxy.dump().await.unwrap().counters.virtuals[&tcp(farm.vip)];
    assert_eq!((stats.connections, stats.in_bytes, stats.out_bytes), (200, 200 << 20, 200 << 20));
}
