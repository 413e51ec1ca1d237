//! One virtual, whose servers die and come back.

use super::{Turn, compare};

/// Servers of different weights and thresholds.
fn file(globals: &str) -> String {
    format!(
        "{globals}\nvirtual=10.99.0.100:80\n    real=10.99.0.11:80 gate\n    real=10.99.0.12:80 gate 2 l:300 u:900\n    \
         real=10.99.0.13:80 gate 30\n    scheduler=wlc\n    checktype=connect\n"
    )
}

/// `all`, without 13, without any, and with 12 only.
fn die_and_come_back(turn: &mut Turn<'_>, [all, two]: [&str; 2], comes: &str) {
    turn.point("all serve", all);
    turn.kill(&[13], 80);
    turn.point("one is dead", two);
    turn.serve(&[13], 80);
    turn.point("it is back", all);
    turn.kill(&[13], 80);
    turn.point("it is dead again", two);
    // However often it has died.
    let words = format!("{comes} real server: 10.99.0.13:80 (10.99.0.100:80) (Weight set to 30)");
    let before = turn.said(&words);
    turn.serve_once(13, 80);
    turn.says(&words, before + 1);
    turn.point("one success was enough, and one failure", two);
    turn.kill(&[11, 12], 80);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn who_is_dead_is_deleted() {
    compare(|turn| {
        turn.serve(&[11, 12, 13], 80);
        turn.start(&file("quiescent=no"));
        let tables = ["TCP 10.99.0.100:80 wlc 11=1 12=2 13=30", "TCP 10.99.0.100:80 wlc 11=1 12=2"];
        die_and_come_back(turn, tables, "Added");
        turn.point("all are dead", "TCP 10.99.0.100:80 wlc");
        turn.serve(&[12], 80);
        turn.point("one of them is back", "TCP 10.99.0.100:80 wlc 12=2");
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn who_is_dead_has_no_weight() {
    compare(|turn| {
        turn.serve(&[11, 12], 80);
        turn.start(&file("quiescent=yes"));
        turn.point("one is dead from the start", "TCP 10.99.0.100:80 wlc 11=1 12=2 13=0");
        turn.serve(&[13], 80);
        let tables = ["TCP 10.99.0.100:80 wlc 11=1 12=2 13=30", "TCP 10.99.0.100:80 wlc 11=1 12=2 13=0"];
        die_and_come_back(turn, tables, "Restored");
        let none = "TCP 10.99.0.100:80 wlc 11=0 12=0 13=0";
        turn.difference("thresholds of a server that is down", (none, none));
        turn.serve(&[12], 80);
        turn.point("one of them is back", "TCP 10.99.0.100:80 wlc 11=0 12=2 13=0");
    });
}
