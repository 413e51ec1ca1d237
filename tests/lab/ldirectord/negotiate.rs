//! Real servers that are asked for what they are there for: Apache and Postfix.

use super::compare_on;
use crate::farm::apache::{Apache, SITE};
use crate::farm::{Farm, Wiring};

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn apache_and_postfix_are_asked() {
    const ALL: &str = "TCP 10.99.0.100:25 rr 11=1 12=2\nTCP 10.99.0.100:80 wrr 11=1 12=2";
    let file = format!(
        "virtual=10.99.0.100:80\n    real=10.99.0.11:80 gate\n    real=10.99.0.12:80 gate 2\n    service=http\n    \
         request=\"index.html\"\n    receive=\"It Works!\"\n    virtualhost={SITE}\n    quiescent=yes\n\n\
         virtual=10.99.0.100:25\n    real=10.99.0.11:25 gate\n    real=10.99.0.12:25 gate 2\n    service=smtp\n    \
         scheduler=rr\n"
    );
    compare_on(Farm::new(Wiring::Gate), |turn| {
        let start = |host| Apache::start(host, turn.folder(), "It Works!\n");
        let mut apaches: Vec<Apache> = turn.farm.reals[..2].iter().map(|real| start(&real.host)).collect();
        turn.start(&file);
        turn.point("all serve", ALL);
        apaches[0].write("out of order\n");
        turn.farm.reals[1].kill();
        turn.point(
            "another page, and no Postfix",
            "TCP 10.99.0.100:25 rr 11=1\nTCP 10.99.0.100:80 wrr 11=0 12=2",
        );
        apaches[0].write("It Works!\n");
        apaches[1].kill();
        turn.farm.reals[1].start();
        turn.point("another Apache", "TCP 10.99.0.100:25 rr 11=1 12=2\nTCP 10.99.0.100:80 wrr 11=1 12=0");
        apaches[1].launch();
        turn.point("all serve again", ALL);
    });
}
