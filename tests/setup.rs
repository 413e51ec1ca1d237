//! Real servers that are set up by `smtp-realserver up`, on namespaces of their own, and undone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "also in the functions that the tests share"
)]

mod arp;
mod failing;
mod farm;
mod mail;
mod persist;
mod wrong;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::farm::host::Host;
use crate::queue::program;

/// A host with a network card, `10.99.0.11/24` and a neighbour that is only there to carry the link.
struct Box {
    host: Host,
    state: PathBuf,
    other: Host,
}

impl Box {
    fn new() -> Self {
        let (host, other) = (Host::new("real1"), Host::new("other"));
        host.ip(&format!("link set lo up\nlink add eth0 type veth peer name eth0 netns {}\n", other.path()));
        other.ip("link set eth0 up\n");
        host.ip("link set eth0 up\naddr add 10.99.0.11/24 dev eth0\nroute add default via 10.99.0.1\n");
        host.ip("addr add fd00:99::11/64 dev eth0 nodad\nroute add default via fd00:99::1\n");
        let boxed = Self { host, state: state_folder(), other };
        settle(&boxed.host);
        boxed
    }

    /// Runs the program on it.
    fn run(&self, arguments: &str) -> Output {
        self.run_below(&[], arguments)
    }

    /// The same, run by another program.
    fn run_below(&self, wrapper: &[&str], arguments: &str) -> Output {
        on(&self.host, wrapper, &self.state, arguments)
    }

    /// Runs it and returns what it said; it has to end with this code.
    fn expect(&self, code: i32, arguments: &str) -> String {
        expected(&self.run(arguments), code, arguments)
    }
}

/// What it said on both its outputs, after it ended with this code.
fn expected(output: &Output, code: i32, arguments: &str) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments}: {said}");
    said
}

fn state_folder() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("setup-{}-{number}", std::process::id()))
}

/// Runs `smtp-realserver` on a host, with a folder for its record.
fn on(host: &Host, wrapper: &[&str], state: &Path, arguments: &str) -> Output {
    let program = program();
    let mut words: Vec<_> = wrapper.iter().map(|word| (*word).to_owned()).collect();
    words.push(program.to_str().unwrap().to_owned());
    words.extend(arguments.split_whitespace().map(str::to_owned));
    let of_postfix =
        arguments.split_whitespace().any(|word| matches!(word, "-c" | "--postfix" | "--no-postfix"));
    if !of_postfix && !arguments.starts_with("persist") {
        words.push("--no-postfix".to_owned()); // the machine's own is none of ours
    }
    words.extend(["--state".to_owned(), state.to_str().unwrap().to_owned()]);
    host.inside(|| Command::new(&words[0]).args(&words[1..]).output().unwrap())
}

/// Waits until the kernel has given all IPv6 addresses that it gives by itself.
fn settle(host: &Host) {
    crate::farm::host::wait_until(std::time::Duration::from_secs(30), "addresses settle", || {
        !host.run("ip", &["-6", "address"]).contains("tentative")
    });
}

/// All that the kernel says of the network of a host, and the files of some folders.
fn snapshot(host: &Host, folders: &[&Path]) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for arguments in [
        "-details address show",
        "-4 route show table all",
        "-6 route show table all",
        "-4 rule show",
        "-6 rule show",
    ] {
        let text = host.run("ip", &arguments.split(' ').collect::<Vec<_>>());
        // An interface that was up once keeps the word for how little it queues.
        all.insert(format!("ip {arguments}"), text.replace(" qdisc noop ", " qdisc noqueue "));
    }
    host.inside(|| files(Path::new("/proc/sys/net"), &mut all));
    assert!(all.len() > 300, "only {} settings", all.len());
    for folder in folders {
        files(folder, &mut all);
    }
    all
}

fn files(folder: &Path, all: &mut BTreeMap<String, String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, all);
        } else if let Ok(bytes) = fs::read(&path) {
            all.insert(path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}

/// Fails with what differs.
fn assert_same(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) {
    let keys: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let differ: Vec<_> = keys.into_iter().filter(|key| before.get(*key) != after.get(*key)).collect();
    let shown =
        differ.iter().map(|key| format!("{key}\n- {:?}\n+ {:?}\n", before.get(*key), after.get(*key)));
    assert!(differ.is_empty(), "{}", shown.collect::<String>());
}

#[test]
#[ignore = "needs root: tests/run"]
fn what_was_done_twice_is_undone_to_the_last_setting() {
    let real = Box::new();
    let before = snapshot(&real.host, &[]);
    let both = "up --forward gate --vip 10.99.0.100 --vip 10.99.0.101 --vip fd00:99::100";
    let printed = real.expect(0, &format!("{both} --dry-run"));
    assert_same(&before, &snapshot(&real.host, &[]));
    assert_eq!(
        printed,
        "sysctl -w net.ipv4.conf.all.arp_ignore=1\n\
         sysctl -w net.ipv4.conf.all.arp_announce=2\n\
         ip address replace 10.99.0.100/32 dev lo label lo:0\n\
         ip address replace 10.99.0.101/32 dev lo label lo:1\n\
         ip address replace fd00:99::100/128 dev lo nodad\n"
    );
    assert!(
        real.expect(1, "status --forward gate --vip 10.99.0.100")
            .contains("WRONG  10.99.0.100/32 is not on lo")
    );
    let said = real.expect(0, both);
    assert!(said.starts_with(&printed), "what is done is what was printed: {said}");
    let route = || real.host.run("ip", &["-6", "route", "show", "table", "local"]);
    crate::farm::host::wait_until(std::time::Duration::from_secs(30), "the kernel has routed it", || {
        route().contains("local fd00:99::100 ")
    });
    let up = snapshot(&real.host, &[&real.state]);
    assert!(real.expect(0, both).contains("was so already"));
    assert_same(&up, &snapshot(&real.host, &[&real.state]));
    assert_eq!(real.expect(0, "status"), "right\n");
    let json: serde_json::Value = serde_json::from_str(&real.expect(0, "status --json")).unwrap();
    assert_eq!((json["right"].as_bool(), json["findings"].as_array().unwrap().len()), (Some(true), 0));

    // One goes: what the other needs stays.
    real.expect(0, "down --vip 10.99.0.101");
    assert_eq!(real.expect(0, "status"), "right\n");
    assert!(real.expect(0, "down --vip 10.99.0.101").contains("was not set up here"));
    real.expect(0, "down");
    assert_same(&before, &snapshot(&real.host, &[]));
    assert!(!real.state.exists(), "nothing is left of the record");
    assert!(real.expect(0, "down").contains("nothing is set up here"));
}

#[test]
#[ignore = "needs root: tests/run"]
fn what_the_box_had_by_itself_stays() {
    let real = Box::new();
    real.host.sysctl(&[("ipv4/conf/all/arp_ignore", "2"), ("ipv4/conf/eth0/arp_announce", "1")]);
    real.host.ip("addr add 10.99.0.100/32 dev lo\n");
    let before = snapshot(&real.host, &[]);
    let said = real.expect(0, "up --forward gate --vip 10.99.0.100");
    assert!(said.starts_with("sysctl -w net.ipv4.conf.all.arp_announce=2\n10.99.0.100: is set up"), "{said}");
    real.expect(0, "down");
    assert_same(&before, &snapshot(&real.host, &[]));
}

#[test]
#[ignore = "needs root: tests/run"]
fn the_same_is_asked_for_by_a_file() {
    let (real, folder) = (Box::new(), crate::scratch::Folder::new("setup-file"));
    let file = folder.file("forward = \"gate\"\nvip = [\"10.99.0.100\"]\ndirector = [\"10.99.0.2\"]\n");
    let file = format!("--file {}", file.display());
    assert!(real.expect(0, &format!("up {file}")).contains("10.99.0.100: is set up, forward gate"));
    assert_eq!(real.expect(0, &format!("status {file}")), "right\n");
    real.expect(0, &format!("down {file}"));
    for bad in ["vips = []\n", "forward = \"nat\"\nvip = [\"10.99.0.100\"]\n", "vip = [\"x\"]\n", "\u{0}"] {
        folder.file(bad);
        real.expect(78, &format!("up {file}"));
    }
    folder.file("forward = \"gate\"\nvip = [\"127.0.0.1\"]\n");
    assert!(real.expect(64, &format!("up {file}")).contains("loopback"));
}
