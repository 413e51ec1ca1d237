//! Kinds of checks, how many failures it takes, and maintenance.

use super::compare;
use crate::farm::Cable;

const FILE: &str = "
quiescent=no
maintenancedir=@DIR@/maintenance

virtual=10.99.0.100:80
    real=10.99.0.11:80 gate
    real=10.99.0.12:80 gate 2
    checktype=external
    checkcommand=@DIR@/check
    failurecount=2
    quiescent=yes

virtual=10.99.0.100:81
    real=10.99.0.11:81 gate
    checktype=on

virtual=10.99.0.100:82
    real=10.99.0.11:82 gate
    checktype=off

virtual=10.99.0.100:83
    real=10.99.0.12:83 gate
    real=10.99.0.13:83 gate
    checktype=ping
";

/// A line for each virtual: the changing ones are given.
fn table([first, last]: [&str; 2]) -> String {
    format!(
        "TCP 10.99.0.100:80 wrr {first}\nTCP 10.99.0.100:81 wrr 11=1\nTCP 10.99.0.100:82 wrr\nTCP 10.99.0.100:83 wrr {last}"
    )
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn each_kind_of_check_and_maintenance() {
    const ALL: [&str; 2] = ["11=1 12=2", "12=1 13=1"];
    compare(|turn| {
        // One that fails once does so by a file that is gone after it.
        turn.script(
            "check",
            "[ ! -e @DIR@/down-$3 ] || exit 1; [ ! -e @DIR@/once-$3 ] || { rm @DIR@/once-$3; exit 1; }",
        );
        turn.folder_of("maintenance");
        turn.start(FILE);
        turn.point("all serve", &table(ALL));

        let soft = "Soft failure real server: 10.99.0.12:80 (tcp:10.99.0.100:80) failure 1/2";
        let before = turn.said(soft);
        turn.touch("once-10.99.0.12");
        turn.says(soft, before + 1);
        turn.point("one failure is not two", &table(ALL));
        turn.touch("down-10.99.0.12");
        turn.cable("real3", Cable::Out);
        turn.point("two are", &table(["11=1 12=0", "12=1"]));
        turn.remove("down-10.99.0.12");
        turn.cable("real3", Cable::In);
        turn.point("both are back", &table(ALL));

        turn.touch("maintenance/10.99.0.12:80");
        turn.touch("maintenance/10.99.0.13");
        turn.point("two are in maintenance", &table(["11=1 12=0", "12=1"]));
        turn.remove("maintenance/10.99.0.12:80");
        turn.remove("maintenance/10.99.0.13");
        turn.point("they are done", &table(ALL));
    });
}
