//! Several virtuals that share their servers, with fallbacks.

use super::compare;

const FILE: &str = "
quiescent=no
fallback=127.0.0.1
fallback6=[::1]

virtual=10.99.0.100:80
    real=10.99.0.11:80 gate 3
    real=10.99.0.12:80 gate
    fallback=10.99.0.9:80 gate
    scheduler=rr
    persistent=60
    netmask=255.255.255.0
    checktype=connect
    quiescent=yes

virtual=7
    real=10.99.0.11:80 gate
    real=10.99.0.12:80 ipip
    fallback=10.99.0.9:80 gate
    scheduler=wlc
    persistent=300
    checktype=connect

virtual6=[fd00:99::64]:80
    real6=[fd00:99::b]:80 gate
    real6=[fd00:99::c]:80 gate 2
    checktype=connect
    persistent=90
    netmask=64

virtual=10.99.0.100:53
    real=10.99.0.11:53 gate
    real=10.99.0.12:53 masq 4
    protocol=udp
    scheduler=rr
    ops=yes
    checktype=external
    checkcommand=@DIR@/check
";

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn virtuals_share_their_servers() {
    compare(|turn| {
        turn.script("check", "[ ! -e @DIR@/down-$3 ]");
        turn.serve(&[11, 12], 80);
        turn.start(FILE);
        turn.point(
            "all serve",
            "FWM 7 wlc persistent 300 11=1 12=1
             TCP 10.99.0.100:80 rr persistent 60 mask 255.255.255.0 11=3 12=1
             TCP [fd00:99::64]:80 wrr persistent 90 mask 64 11=1 12=2
             UDP 10.99.0.100:53 rr ops 11=1 12=4",
        );
        turn.kill(&[12], 80);
        turn.touch("down-10.99.0.12");
        turn.point(
            "one host is dead",
            "FWM 7 wlc persistent 300 11=1
             TCP 10.99.0.100:80 rr persistent 60 mask 255.255.255.0 11=3 12=0
             TCP [fd00:99::64]:80 wrr persistent 90 mask 64 11=1
             UDP 10.99.0.100:53 rr ops 11=1",
        );
        turn.kill(&[11], 80);
        turn.touch("down-10.99.0.11");
        turn.point(
            "the fallbacks serve",
            "FWM 7 wlc persistent 300 9=1
             TCP 10.99.0.100:80 rr persistent 60 mask 255.255.255.0 9=1 11=0 12=0
             TCP [fd00:99::64]:80 wrr persistent 90 mask 64 ::1=1
             UDP 10.99.0.100:53 rr ops 127.0.0.1=1",
        );
        turn.serve(&[12], 80);
        turn.remove("down-10.99.0.12");
        turn.point(
            "the fallbacks are not needed any more",
            "FWM 7 wlc persistent 300 12=1
             TCP 10.99.0.100:80 rr persistent 60 mask 255.255.255.0 11=0 12=1
             TCP [fd00:99::64]:80 wrr persistent 90 mask 64 12=2
             UDP 10.99.0.100:53 rr ops 12=4",
        );
        turn.stop();
        turn.point("nothing is left", "");
    });
}
