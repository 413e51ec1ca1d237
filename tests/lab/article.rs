//! The farm of an article of 2008 on Postfix in high availability: its file for ldirectord, line for line (but for what a page
//! on the web has lost: the indentation, and a quotation mark), its addresses, and its verification by `ipvsadm -L -n` and the access logs of three
//! Apaches. Then the same for mail, with three Postfix.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::farm::apache::{Apache, get};
use crate::farm::director::DIRECTOR;
use crate::farm::host::wait_until;
use crate::farm::ipvs::{ipvsadm, weights};
use crate::farm::mail::Session;
use crate::farm::{Farm, Wiring};

const LIMIT: Duration = Duration::from_secs(30);
const REALS: [&str; 3] = ["192.168.0.50", "192.168.0.51", "192.168.0.52"];
const CLIENT: &str = "192.168.0.10";
const WORKS: &str = "<html><body><h1>It Works!</h1></body></html>\n";

const GLOBALS: &str = "\
checktimeout=3
checkinterval=1
fallback=127.0.0.1:80
autoreload=yes
logfile=\"/var/log/ldirectord.log\"
#logfile=\"local0\"
quiescent=yes

";
const HTTP: &str = "\
virtual=192.168.0.100:80
    real=192.168.0.50:80 gate
    real=192.168.0.51:80 gate
    real=192.168.0.52:80 gate
    fallback=127.0.0.1:80 gate
    service=http
    request=\"index.html\"
    receive=\"It Works!\"
    virtualhost=www.esempio.com
    scheduler=rr
    protocol=tcp
";
const SMTP: &str = "\
virtual=192.168.0.100:25
    real=192.168.0.50:25 gate
    real=192.168.0.51:25 gate
    real=192.168.0.52:25 gate
    service=smtp
    scheduler=rr
    protocol=tcp
";

/// The article's network, beside that of the farm, and a daemon that is called by the name of the original.
struct Article {
    farm: Farm,
    vip: SocketAddr,
}

impl Article {
    /// Numbers the hosts, and starts the daemon with this file.
    fn new(farm: Farm, port: u16, text: &str) -> Self {
        farm.director.ip("addr add 192.168.0.2/24 dev eth0\naddr add 192.168.0.100/32 dev eth0\n");
        farm.client.ip(&format!("addr add {CLIENT}/24 dev eth0\n"));
        for (real, address) in farm.reals.iter().zip(REALS) {
            real.host.sysctl(&[("ipv4/conf/eth0/arp_ignore", "1"), ("ipv4/conf/eth0/arp_announce", "2")]);
            real.host.ip(&format!(
                "addr add {address}/24 dev eth0\naddr add 192.168.0.100/32 dev lo label lo:0\n"
            ));
        }
        std::os::unix::fs::symlink(DIRECTOR, farm.folder.join("ldirectord")).expect("a link");
        let article = Self { farm, vip: SocketAddr::from(([192, 168, 0, 100], port)) };
        article.write(text);
        assert_eq!(article.ldirectord("start"), Some(0));
        assert_eq!(article.ldirectord("status"), Some(0));
        article
    }

    fn file(&self) -> PathBuf {
        self.farm.folder.join("ldirectord.cf")
    }

    fn write(&self, text: &str) {
        fs::write(self.file(), text).expect("the file");
    }

    /// The exit code of `ldirectord FILE action`.
    fn ldirectord(&self, action: &str) -> Option<i32> {
        let mut command = Command::new(self.farm.folder.join("ldirectord"));
        command.arg(self.file()).arg(action);
        self.farm.director.inside(|| command.status().expect("ldirectord")).code()
    }

    /// Waits until the three servers have these weights, and there is nobody else.
    fn await_weights(&self, what: &str, wanted: [u32; 3]) {
        self.await_table(
            what,
            &REALS.iter().zip(wanted).map(|(ip, weight)| (*ip, weight)).collect::<Vec<_>>(),
        );
    }

    fn await_table(&self, what: &str, wanted: &[(&str, u32)]) {
        let address = |ip: &str| SocketAddr::new(ip.parse().expect(ip), self.vip.port());
        let wanted = wanted.iter().map(|(ip, weight)| (address(ip), *weight)).collect();
        wait_until(LIMIT, &format!("{what}: {wanted:?}"), || {
            weights(&self.farm.director, self.vip) == wanted
        });
    }

    /// The table as the article shows it: its lines of words, without connection counts.
    fn table(&self) -> Vec<String> {
        let text = ipvsadm(&self.farm.director, "-L -n");
        let words = |line: &str| {
            let words: Vec<&str> =
                line.split_whitespace().take(if line.contains("->") { 4 } else { 9 }).collect();
            words.join(" ")
        };
        text.lines().map(words).collect()
    }

    /// Connections to each server that the table counts, active or not.
    fn connections(&self) -> Vec<usize> {
        let text = ipvsadm(&self.farm.director, "-L -n");
        let rows =
            text.lines().map(str::split_whitespace).filter(|words| words.clone().nth(2) == Some("Route"));
        rows.map(|words| words.skip(4).filter_map(|word| word.parse::<usize>().ok()).sum()).collect()
    }

    /// Ends the daemon: the table is empty, the second stop is none.
    fn stop(self) {
        assert_eq!(self.ldirectord("stop"), Some(0));
        assert_eq!(self.table().len(), 3, "{:?}", self.table());
        assert_eq!(self.ldirectord("status"), Some(3));
        assert_eq!(self.ldirectord("stop"), Some(0));
    }
}

impl Drop for Article {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", fs::read_to_string("/var/log/ldirectord.log").unwrap_or_default());
        }
        self.ldirectord("stop");
    }
}

/// What each Apache has more after some work.
fn growth(apaches: &[Apache], work: impl FnOnce()) -> Vec<usize> {
    let count = || apaches.iter().map(|apache| apache.requests_of(CLIENT)).collect::<Vec<_>>();
    let before = count();
    work();
    count().iter().zip(before).map(|(after, before)| after - before).collect()
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn three_apaches_share_what_is_asked_for() {
    let farm = Farm::silent(Wiring::Gate);
    let start = |host| Apache::start(host, &farm.folder, WORKS);
    let mut apaches: Vec<Apache> = farm.reals.iter().map(|real| start(&real.host)).collect();
    let sorry = Apache::start(&farm.director, &farm.folder, "nobody is there\n");
    let article = Article::new(farm, 80, &format!("{GLOBALS}{HTTP}"));
    let ask = |times: usize, words: &str| {
        for _ in 0..times {
            let answer = get(&article.farm.client, article.vip, "/").expect("an answer");
            assert!(answer.contains(words), "{answer}");
        }
    };

    article.await_weights("all serve", [1, 1, 1]);
    let shown = [
        "TCP 192.168.0.100:80 rr",
        "-> 192.168.0.50:80 Route 1",
        "-> 192.168.0.51:80 Route 1",
        "-> 192.168.0.52:80 Route 1",
    ];
    assert_eq!(article.table()[3..], shown);
    assert_eq!(growth(&apaches, || ask(30, "It Works!")), [10, 10, 10]);
    let counts = article.connections();
    assert!(counts.len() == 3 && counts.iter().all(|count| *count > 0), "{counts:?}");
    // What the director asks is in the same logs, from its own address.
    assert!(apaches.iter().all(|apache| apache.requests_of("192.168.0.2") > 0));

    apaches[1].kill();
    article.await_weights("a dead one is out", [1, 0, 1]);
    assert_eq!(growth(&apaches, || ask(20, "It Works!")), [10, 0, 10]);
    apaches[1].launch();
    article.await_weights("it is back", [1, 1, 1]);

    apaches[0].write("<h1>Out of order</h1>\n");
    article.await_weights("one with another page is out", [0, 1, 1]);
    assert_eq!(growth(&apaches, || ask(20, "It Works!")), [0, 10, 10]);
    apaches[0].write(WORKS);
    article.await_weights("its page is back", [1, 1, 1]);

    apaches.iter_mut().for_each(Apache::kill);
    let none = [(REALS[0], 0), (REALS[1], 0), (REALS[2], 0)];
    article.await_table("the fallback serves", &[&none[..], &[("127.0.0.1", 1)]].concat());
    ask(3, "nobody is there");
    apaches[2].launch();
    article.await_weights("one is enough", [0, 0, 1]);
    ask(3, "It Works!");

    // It is read again by itself.
    article.write(&format!("{GLOBALS}{}", HTTP.replace("    real=192.168.0.50:80 gate\n", "")));
    article.await_table("the file has two", &[(REALS[1], 0), (REALS[2], 1)]);
    let log = fs::read_to_string("/var/log/ldirectord.log").expect("the log of the file");
    assert!(log.contains("has changed on disk"), "{log}");
    article.stop();
    drop(sorry);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn three_postfix_share_the_mail() {
    let globals = GLOBALS.replace("fallback=127.0.0.1:80\n", "");
    let mut article = Article::new(Farm::new(Wiring::Gate), 25, &format!("{globals}{SMTP}"));
    let deliver = |article: &Article, times: usize| -> Vec<usize> {
        let before = article.farm.delivered();
        for _ in 0..times {
            let mut session = Session::open(&article.farm.client, article.vip).expect("a session");
            session.mail().expect("250");
            session.quit().expect("221");
        }
        let total = |counts: [usize; 3]| counts.iter().sum::<usize>();
        wait_until(LIMIT, "all are delivered", || total(article.farm.delivered()) == total(before) + times);
        article.farm.delivered().iter().zip(before).map(|(after, before)| after - before).collect()
    };

    article.await_weights("all serve", [1, 1, 1]);
    let shown = [
        "TCP 192.168.0.100:25 rr",
        "-> 192.168.0.50:25 Route 1",
        "-> 192.168.0.51:25 Route 1",
        "-> 192.168.0.52:25 Route 1",
    ];
    assert_eq!(article.table()[3..], shown);
    assert_eq!(deliver(&article, 15), [5, 5, 5]);
    article.farm.reals[2].kill();
    article.await_weights("a dead one is out", [1, 1, 0]);
    assert_eq!(deliver(&article, 10), [5, 5, 0]);
    article.farm.reals[2].start();
    article.await_weights("it is back", [1, 1, 1]);
    assert_eq!(deliver(&article, 15), [5, 5, 5]);
    article.stop();
}
