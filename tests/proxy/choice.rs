//! Who gets a client, and who none.

use super::*;

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
            farm.apply(Op::SetVirtual(tcp(farm.vip), VirtualSettings::new(Scheduler::Rr))).await;
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
