//! What the two ends of a session see of each other.

use super::*;

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
