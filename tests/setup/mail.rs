//! What `--postfix` does to real instances of Postfix.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::{Box, assert_same, snapshot};
use crate::farm::mail::Session;
use crate::farm::postfix::{MASTER_CF, Postfix};
use crate::scratch::Folder;

fn copied(config: &std::path::Path) -> (Vec<u8>, Vec<u8>, u32, u32) {
    let main = config.join("main.cf");
    let there = fs::metadata(&main).unwrap();
    (fs::read(&main).unwrap(), fs::read(config.join("master.cf")).unwrap(), there.mode(), there.uid())
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn postfix_listens_on_the_vip_and_knows_the_director_and_its_files_come_back() {
    let (real, folder) = (Box::new(), Folder::new("setup-mail"));
    let postfix = Postfix::new(real.host.again(), folder.path());
    let config = folder.path().join("real1/etc");
    let screen = MASTER_CF.replace(
        "smtp inet n - n - - smtpd\n",
        "smtp inet n - n - 1 postscreen\nsmtpd pass - - n - - smtpd\ntlsproxy unix - - n - 0 tlsproxy\n\
         dnsblog unix - - n - 0 dnsblog\n",
    );
    postfix.configure(
        "inet_interfaces = 127.0.0.1, 10.99.0.11\npostscreen_access_list = permit_mynetworks\n\
         # a comment, \t and odd   blanks\npostscreen_greet_wait = 6s\n",
        &screen,
    );
    fs::set_permissions(config.join("main.cf"), fs::Permissions::from_mode(0o640)).unwrap();
    let directory = config.display();
    let start = |verb: &str| {
        real.host.run("/usr/sbin/postfix", &["-c", config.to_str().unwrap(), verb]);
    };
    start("start");
    let (before, files) = (snapshot(&real.host, &[]), copied(&config));
    let wish = format!("--forward gate --vip 10.99.0.100 --director 10.99.0.2 -c {directory}");
    let said = real.expect(1, &format!("status {wish}"));
    for words in [
        "does not listen on 10.99.0.100",
        "postscreen does not know the director",
        "anvil counts",
        "queue ids",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let noted = real.expect(0, &format!("up {wish}"));
    assert!(noted.contains("Postfix lacks, and --postfix does: postconf -c"), "{noted}");
    assert!(copied(&config) == files, "only said");

    let said = real.expect(0, &format!("up {wish} --postfix"));
    assert!(said.contains("inet_interfaces=127.0.0.1, 10.99.0.11, 10.99.0.100"), "{said}");
    assert_eq!(real.expect(0, &format!("status {wish}")), "right\n");
    // A stranger would wait for postscreen's six seconds, and be logged as one.
    real.other.ip("addr add 10.99.0.2/24 dev eth0\nroute add 10.99.0.100 via 10.99.0.11\n");
    let mut session = Session::open(&real.other, "10.99.0.100:25".parse().unwrap()).unwrap();
    session.mail().unwrap();
    session.quit().unwrap();
    assert!(postfix.log().contains("LISTED [10.99.0.2]"), "{}", postfix.log());
    let twice = real.expect(0, &format!("up {wish} --postfix"));
    assert!(twice.contains("was so already"), "{twice}");

    real.expect(0, "down");
    assert!(copied(&config) == files, "to the byte, with owner and rights");
    assert_same(&before, &snapshot(&real.host, &[]));
    assert!(real.expect(1, &format!("status {wish}")).contains("does not listen on 10.99.0.100"));

    // A file that somebody changes in between is his.
    real.expect(0, &format!("up {wish} --postfix"));
    let mut changed = fs::read_to_string(config.join("main.cf")).unwrap();
    changed += "message_size_limit = 20000000\n";
    fs::write(config.join("main.cf"), &changed).unwrap();
    let said = real.expect(0, "down");
    assert!(said.contains("was changed by somebody since: only what is ours in it goes"), "{said}");
    let left = fs::read_to_string(config.join("main.cf")).unwrap();
    assert!(left.contains("message_size_limit = 20000000\n"), "{left}");
    assert!(
        left.contains("\ninet_interfaces = 127.0.0.1, 10.99.0.11\n") && !left.contains("10.99.0.100"),
        "{left}"
    );
    assert!(!left.contains("enable_long_queue_ids"), "{left}");
    assert_same(&before, &snapshot(&real.host, &[]));
    start("stop");
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn a_broken_main_cf_stops_it_before_anything_is_done() {
    let (real, folder) = (Box::new(), Folder::new("setup-broken"));
    let postfix = Postfix::new(real.host.again(), folder.path());
    postfix.configure("  = nothing\nthis is no line\n", MASTER_CF);
    let before = snapshot(&real.host, &[]);
    let wish = format!("--forward gate --vip 10.99.0.100 -c {}/real1/etc", folder.path().display());
    let said = real.expect(69, &format!("up {wish} --postfix"));
    assert!(said.contains("nothing is done"), "{said}");
    assert_same(&before, &snapshot(&real.host, &[]));
    assert!(real.expect(1, &format!("status {wish}")).contains("Postfix cannot be asked"));
    assert!(!real.state.exists());
}
