//! What can be set, what is refused, and the life of a listener.

use super::*;

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
    farm.apply(Op::AddVirtual(tcp(farm.vip), VirtualSettings::new(Scheduler::Rr))).await;
    farm.apply(Op::AddReal(tcp(farm.vip), real, weighing(1))).await;
    farm.session(&listener).await;
}

#[tokio::test]
async fn ipv6_is_served_and_leaves_ipv4_alone() {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let real = RealId(listener.local_addr().unwrap());
    let (_placeholder, port) = v6_port();
    let wildcard: SocketAddr = format!("[::]:{port}").parse().unwrap();
    let mut proxy = Proxy::new();
    proxy.apply(&Op::AddVirtual(tcp(wildcard), VirtualSettings::new(Scheduler::Wlc))).await.unwrap();
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
        let error = proxy
            .apply(&Op::AddVirtual(tcp(address), VirtualSettings::new(Scheduler::Rr)))
            .await
            .unwrap_err();
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
    let plain = VirtualSettings::new(Scheduler::Wlc);
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
        (Op::AddVirtual(tcp(address), VirtualSettings::new(Scheduler::Mh)), "wlc"),
        (Op::SetVirtual(id, sticky.clone()), "sh"),
        (Op::SetVirtual(id, VirtualSettings::new(Scheduler::Other("x".into()))), "wlc"),
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
