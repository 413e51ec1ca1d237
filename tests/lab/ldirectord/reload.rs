//! A file that changes, and an end.

use std::net::TcpStream;

use super::compare;
use crate::farm::Cable;

fn virtual_80(reals: &[&str]) -> String {
    let reals: String = reals.iter().map(|real| format!("    real=10.99.0.{real}\n")).collect();
    format!("virtual=10.99.0.100:80\n{reals}    scheduler=rr\n    checktype=connect\n")
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn a_file_that_changes_changes_the_table() {
    const OTHER: &str =
        "virtual=10.99.0.100:81\n    real=10.99.0.13:80 masq 7\n    checktype=connect\n    cleanstop=no\n";
    compare(|turn| {
        turn.serve(&[11, 12], 80);
        let both = ["11:80 gate", "12:80 gate 2"];
        let quiet = |rest: &str| format!("quiescent=yes\n{rest}");
        turn.start(&quiet(&virtual_80(&both)));
        turn.point("two serve", "TCP 10.99.0.100:80 rr 11=1 12=2");

        let three = [both[0], "12:80 gate 5", "13:80 gate"];
        turn.reload(&quiet(&virtual_80(&three)));
        turn.point("one has more, one is new and dead", "TCP 10.99.0.100:80 rr 11=1 12=5 13=0");
        let writes = turn.writes(|turn| {
            turn.reload_again();
        });
        turn.other_difference("a reload without a change", format!("{writes:?}"));
        turn.point("nothing has changed", "TCP 10.99.0.100:80 rr 11=1 12=5 13=0");

        turn.serve(&[13], 80);
        turn.reload(&quiet(&format!("autoreload=yes\n{}\n{OTHER}", virtual_80(&three))));
        turn.point(
            "another virtual",
            "TCP 10.99.0.100:80 rr 11=1 12=5 13=1\nTCP 10.99.0.100:81 wrr 10.99.0.13:80=7",
        );

        // 12 has a session.
        let sessions: Vec<TcpStream> = (0..3).map(|_| turn.connect()).collect();
        turn.write(&quiet(&format!("autoreload=yes\n{}\n{OTHER}", virtual_80(&[both[0], "13:80 gate 3"]))));
        turn.difference(
            "a server that leaves",
            (
                "TCP 10.99.0.100:80 rr 11=1 13=3\nTCP 10.99.0.100:81 wrr 10.99.0.13:80=7",
                "TCP 10.99.0.100:80 rr 11=1 12=0 13=3\nTCP 10.99.0.100:81 wrr 10.99.0.13:80=7",
            ),
        );
        drop(sessions);
        turn.point("it has left", "TCP 10.99.0.100:80 rr 11=1 13=3\nTCP 10.99.0.100:81 wrr 10.99.0.13:80=7");
        turn.stop();
        turn.point("what stays stays", "TCP 10.99.0.100:81 wrr 10.99.0.13:80=7");

        turn.start(&format!("cleanstop=no\n{}", virtual_80(&both)));
        let both_and_other = "TCP 10.99.0.100:80 rr 11=1 12=2\nTCP 10.99.0.100:81 wrr 10.99.0.13:80=7";
        turn.point("what is not in the file is left alone", both_and_other);
        turn.ipvsadm("-e -t 10.99.0.100:80 -r 10.99.0.11:80 -g -w 9");
        turn.difference(
            "a weight set by hand",
            ("TCP 10.99.0.100:80 rr 11=9 12=2\nTCP 10.99.0.100:81 wrr 10.99.0.13:80=7", both_and_other),
        );
        turn.ipvsadm("-e -t 10.99.0.100:80 -r 10.99.0.11:80 -g -w 1");
        turn.stop();
        turn.point("all stays", both_and_other);

        turn.kill(&[13], 80);
        turn.start(&quiet(&virtual_80(&["12:80 gate 3", "13:80 gate"])));
        turn.point(
            "the table is taken over",
            "TCP 10.99.0.100:80 rr 12=3 13=0\nTCP 10.99.0.100:81 wrr 10.99.0.13:80=7",
        );
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn all_servers_fall_silent() {
    compare(|turn| {
        turn.serve(&[11, 12], 80);
        turn.start(&format!("{}    fallback=10.99.0.9:80\n", virtual_80(&["11:80 gate", "12:80 gate 2"])));
        turn.point("two serve", "TCP 10.99.0.100:80 rr 11=1 12=2");
        turn.cable("director", Cable::Out);
        turn.difference("all fall silent", ("TCP 10.99.0.100:80 rr 9=1", "TCP 10.99.0.100:80 rr 11=1 12=2"));
        turn.cable("director", Cable::In);
        turn.point("they answer", "TCP 10.99.0.100:80 rr 11=1 12=2");
    });
}
