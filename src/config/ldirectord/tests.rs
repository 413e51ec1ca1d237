//! Whole reports, and what a file becomes, by a resolver that knows nobody.

use std::net::IpAddr;
use std::time::Duration;

use super::Names;
use crate::config::diagnostic::render;
use crate::model::{Family, Protocol};

struct Nobody;

impl Names for Nobody {
    fn host(&self, _: &str, _: Family) -> Vec<IpAddr> {
        Vec::new()
    }

    fn port(&self, _: &str, _: Option<Protocol>) -> Option<u16> {
        None
    }
}

fn report(text: &str) -> String {
    let problems = super::lower(text, &[], "director.test", &Nobody).unwrap_err();
    render("mail.cf", text, &problems)
}

#[test]
fn all_that_is_wrong_is_one_report() {
    let text = "chekinterval=3\nlogfile=/var/log/x\nvirtual=192.0.2.25\n    real=10.0.0.11:25 gat 5\n\
                virtual=192.0.2.26:25\n    real=192.168.6.2::5060 gate\n  quiescent=yes\n    scheduler=best\n";
    let want = "\
mail.cf:1:1: error: \"chekinterval\" is no directive of ldirectord.cf; did you mean \"checkinterval\"?
  chekinterval=3
  ^^^^^^^^^^^^
mail.cf:2:9: error: logfile: needs its quotes; write logfile=\"/var/log/x\"
  logfile=/var/log/x
          ^^^^^^^^^^
mail.cf:3:9: error: virtual: \"192.0.2.25\" has no port; ldirectord takes the number that it begins with for a firewall mark
  virtual=192.0.2.25
          ^^^^^^^^^^
mail.cf:4:23: error: real: \"gat\" is no way to forward; gate, masq or ipip
      real=10.0.0.11:25 gat 5
                        ^^^
mail.cf:6:10: error: real: \"192.168.6.2::5060\" has colons that separate no port; ldirectord programs something else of it. One colon between address and port, and IPv6 in brackets
      real=192.168.6.2::5060 gate
           ^^^^^^^^^^^^^^^^^
mail.cf:7:3: error: quiescent: is indented by 2; a directive of a virtual begins with four blanks or a tab, any other at the first column
    quiescent=yes
    ^^^^^^^^^
mail.cf:8:15: error: scheduler: best is unknown; \"rr\", \"wrr\", \"lc\", \"wlc\", \"lblc\", \"lblcr\", \"dh\", \"sh\", \"sed\", \"nq\", \"fo\", \"ovf\", \"mh\" or \"twos\"
      scheduler=best
                ^^^^
";
    assert_eq!(report(text), want);
}

#[test]
fn numbers_with_other_things_in_them_are_one_report() {
    let text = "checkinterval=5m\nvirtual=7\n    real=10.0.0.11:25 gate\n    checktype=external\n    checkport=70000\n";
    let want = "\
mail.cf:1:15: error: checkinterval: \"5m\" is not whole seconds from 1; ldirectord takes the first digits of it and skips the rest
  checkinterval=5m
                ^^
mail.cf:5:15: error: checkport: \"70000\" is no port; a number up to 65535
      checkport=70000
                ^^^^^
";
    assert_eq!(report(text), want);
}

#[test]
fn a_ping_lasts_for_all_its_attempts() {
    let text = |count: &str| {
        format!(
            "checktimeout=2\n{count}virtual=192.0.2.1:25\n    real=10.0.0.1:25 gate\n    checktype=ping\n"
        )
    };
    for (count, seconds) in [("", 2), ("checkcount=3\n", 6), ("checkcount=1\n", 2)] {
        let config = super::lower(&text(count), &[], "director.test", &Nobody).unwrap();
        let spec = &config.virtuals[0].reals[0].checks[0].spec;
        assert_eq!(spec.connect_timeout, Duration::from_secs(seconds), "{count}");
    }
    let below = text("") + "    checkcount=4\n";
    let config = super::lower(&below, &[], "director.test", &Nobody).unwrap();
    assert_eq!(config.virtuals[0].reals[0].checks[0].spec.connect_timeout, Duration::from_secs(8));
}
