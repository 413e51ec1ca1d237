//! One virtual, whose servers die and come back.

use super::compare;

/// Servers of different weights and thresholds.
fn file(globals: &str) -> String {
    format!(
        "{globals}\nvirtual=10.99.0.100:80\n    real=10.99.0.11:80 gate\n    real=10.99.0.12:80 gate 2 l:300 u:900\n    \
         real=10.99.0.13:80 gate 30\n    scheduler=wlc\n    checktype=connect\n"
    )
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn who_is_dead_is_deleted() {
    const ALL: &str = "TCP 10.99.0.100:80 wlc 11=1 12=2 13=30";
    compare(|turn| {
        turn.serve(&[11, 12, 13], 80);
        turn.start(&file("quiescent=no"));
        turn.point("all serve", ALL);
        turn.kill(&[12, 13], 80);
        turn.point("two are dead", "TCP 10.99.0.100:80 wlc 11=1");
        turn.serve(&[12, 13], 80);
        turn.point("they are back", ALL);
        turn.kill(&[11, 12, 13], 80);
        turn.point("all are dead", "TCP 10.99.0.100:80 wlc");
        turn.serve(&[12], 80);
        turn.point("one of them is back", "TCP 10.99.0.100:80 wlc 12=2");
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn who_is_dead_has_no_weight() {
    const ALL: &str = "TCP 10.99.0.100:80 wlc 11=1 12=2 13=30";
    const DEAD: &str = "TCP 10.99.0.100:80 wlc 11=1 12=2 13=0";
    const NONE: &str = "TCP 10.99.0.100:80 wlc 11=0 12=0 13=0";
    compare(|turn| {
        turn.serve(&[11, 12], 80);
        turn.start(&file("quiescent=yes"));
        turn.point("one is dead from the start", DEAD);
        turn.serve(&[13], 80);
        turn.point("all serve", ALL);
        turn.kill(&[13], 80);
        turn.point("one is dead", DEAD);
        turn.serve(&[13], 80);
        turn.point("it is back", ALL);
        turn.kill(&[13], 80);
        turn.point("it is dead again", DEAD);
        // However often it has died.
        let words = "Restored real server: 10.99.0.13:80 (10.99.0.100:80) (Weight set to 30)";
        let before = turn.said(words);
        turn.serve_once(13, 80);
        turn.says(words, before + 1);
        turn.point("one success was enough, and one failure", DEAD);
        turn.kill(&[11, 12], 80);
        turn.difference("thresholds of a server that is down", (NONE, NONE));
        turn.serve(&[12], 80);
        turn.point("one of them is back", "TCP 10.99.0.100:80 wlc 11=0 12=2 13=0");
    });
}
