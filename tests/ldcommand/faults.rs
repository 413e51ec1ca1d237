//! What is wrong with the original, each fault as a promise of ours: the same file, the same fault, another end.
//!
//! Those that are ignored run the original beside it, and fail when it has been mended: then the documentation says too much.
//! How long something takes is never measured: a test waits for what must come first.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use loadgen::sink::Fault;
use rustix::process::Signal;

use super::original::{self, Original};
use super::servers::{Counts, answering, dribbling, hung, well};
use super::{Place, until};

/// A virtual with these servers.
fn farm(place: &Place, globals: &str, servers: &[SocketAddr]) -> String {
    let mut text =
        format!("checkinterval=1\n{globals}virtual={}\n    service=smtp\n    protocol=tcp\n", place.vip);
    for server in servers {
        text.push_str(&format!("    real={server} masq 7\n"));
    }
    text
}

/// What the table was changed to.
fn changes(place: &Place) -> Vec<String> {
    place
        .read("log")
        .lines()
        .filter_map(|line| line.split_once("] table: "))
        .map(|(_, op)| op.to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_reload_stops_no_check_and_changes_nothing_and_the_log_says_why() {
    for autoreload in ["no", "yes"] {
        let (one, mut two) = (well(), well());
        let place = Place::new(&format!("ld-failed-reload-{autoreload}"));
        let text = farm(&place, &format!("autoreload={autoreload}\n"), &[one.address(), two.address()]);
        place.write_cf(&text);
        assert_eq!(place.code("start"), Some(0));
        place.until_said("Added real server", 2);
        let before = changes(&place);
        // Somebody edits, and is called away in the middle of it.
        place.write_cf(&text.replace("checkinterval=1", "checkinterval=7").replace(" 7\n", " 3\n    no\n"));
        if autoreload == "no" {
            place.signal(Signal::HUP);
        }
        place.until_said("reload refused", 1);
        let (log, file) = (place.read("log"), place.path("mail.cf"));
        assert!(log.contains(&format!("{}:8:5: error: ", file.display())), "{log}");
        assert_eq!(changes(&place), before, "the table is what it was");
        two.stop().await;
        place.until_said(&format!("Deleted real server: {} ({})", two.address(), place.vip), 1);
        two.restart().unwrap();
        place.until_said(&format!("{} ({}) (Weight set to 7)", two.address(), place.vip), 2);
        place.write_cf(&text.replace("masq 7", "masq 5"));
        if autoreload == "no" {
            assert_eq!(place.code("reload"), Some(0));
        }
        place.until_said("(Weight set to 5)", 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the original, from the package ldirectord: tests/run"]
async fn after_a_failed_reload_the_original_leaves_a_dead_server_its_weight() {
    let (asked, mut two, place) = (Arc::default(), well(), Place::new("ld-failed-reload-there"));
    let text = farm(&place, "", &[answering(&asked), two.address()]);
    place.write_cf(&text);
    let there = Original::start(place.path("there"), &place.path("mail.cf"));
    let at = two.address().to_string();
    // It was added, deleted, asked and added.
    let changed = || there.operations().lines().filter(|line| line.contains(&at)).count();
    until("it is in", || (changed() == 3).then_some(()));
    place.write_cf(&text.replace(" 7\n", " 3\n    no\n"));
    there.signal(Signal::HUP);
    until("it is refused", || there.said().contains("Unknown command").then_some(()));
    two.stop().await;
    // It asks one after the other.
    let before = asked.begun();
    until("the other is asked again and again", || (asked.begun() > before + 3).then_some(()));
    assert_eq!(changed(), 3, "it has its weight still: {}", there.operations());
}

#[test]
#[ignore = "the original, from the package ldirectord: tests/run"]
fn the_original_forgets_its_daemon_when_it_is_asked_for_status_with_a_wrong_file() {
    let place = Place::new("ld-forgets");
    let file = place.path("forgets.cf");
    let text = farm(&place, "", &["127.0.0.1:1".parse().unwrap()]);
    fs::write(&file, &text).unwrap();
    let there = Original::start(place.path("there"), &file);
    until("it runs", || there.operations().contains("-A ").then_some(()));
    // In the foreground it has no pid file, so it is given the one that it would have.
    let pid_file = std::path::Path::new("/var/run/ldirectord.forgets.cf.pid");
    fs::write(pid_file, format!("{}\n", there.pid())).unwrap();
    let status = || Command::new(original::PROGRAM).arg(&file).arg("status").output().unwrap().status.code();
    assert_eq!(status(), Some(0));
    fs::write(&file, format!("{text}junk\n")).unwrap();
    assert_eq!(status(), Some(2));
    assert!(!pid_file.exists());
    fs::write(&file, &text).unwrap();
    assert_eq!(status(), Some(3), "it runs all the while");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dribbles_its_banner_delays_no_check_of_another() {
    let (counts, well, place) = (Arc::default(), Arc::default(), Place::new("ld-dribble"));
    let servers = [dribbling(&counts), answering(&well)];
    place.write_cf(&farm(&place, "negotiatetimeout=20\n", &servers));
    assert_eq!(place.code("start"), Some(0));
    place.until_said("Added real server", 1);
    until("the other is asked again and again", || (well.begun() > 5).then_some(()));
    assert_eq!((counts.begun(), counts.ended()), (1, 0), "the first conversation goes on all the while");
    assert!(!place.read("log").contains("down"), "and its server is not down before its time is over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dribbles_for_ever_is_down_when_its_time_is_over() {
    let (counts, sink, place) = (Arc::default(), well(), Place::new("ld-dribble-ends"));
    let dribbler = dribbling(&counts);
    place.write_cf(&farm(&place, "negotiatetimeout=3\n", &[dribbler, sink.address()]));
    assert_eq!(place.code("start"), Some(0));
    place.until_said(&format!("real server {dribbler} of {} is down: timeout at banner", place.vip), 1);
    until("it is left, and asked again", || (counts.ended() > 0 && counts.begun() > 1).then_some(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the original, from the package ldirectord: tests/run"]
async fn the_original_asks_nobody_else_while_a_server_dribbles() {
    let (counts, well, place) = (Arc::default(), Arc::default(), Place::new("ld-dribble-there"));
    let servers = [dribbling(&counts), answering(&well)];
    place.write_cf(&farm(&place, "negotiatetimeout=2\n", &servers));
    let _there = Original::start(place.path("there"), &place.path("mail.cf"));
    until("it asks", || (counts.begun() > 0).then_some(()));
    std::thread::sleep(Duration::from_secs(10)); // five times what it may take
    assert_eq!((counts.begun(), counts.ended(), well.begun()), (1, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_hung_servers_do_not_add_up() {
    let (counts, well, place) = (Arc::default(), Arc::default(), Place::new("ld-hung"));
    let mut servers: Vec<SocketAddr> = (0..10).map(|_| hung(&counts)).collect();
    servers.push(answering(&well));
    place.write_cf(&farm(&place, "negotiatetimeout=20\n", &servers));
    assert_eq!(place.code("start"), Some(0));
    place.until_said("Added real server", 1);
    until("all ten are asked at once", || (counts.most() == 10).then_some(()));
    until("the one that is well is asked again and again", || (well.begun() > 5).then_some(()));
    assert_eq!(counts.ended(), 0, "while all ten are waited for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the original, from the package ldirectord: tests/run"]
async fn the_original_waits_for_ten_hung_servers_one_after_the_other() {
    let (counts, well, place) = (Arc::default(), Arc::default(), Place::new("ld-hung-there"));
    let mut servers: Vec<SocketAddr> = (0..10).map(|_| hung(&counts)).collect();
    servers.push(answering(&well));
    place.write_cf(&farm(&place, "negotiatetimeout=1\n", &servers));
    let _there = Original::start(place.path("there"), &place.path("mail.cf"));
    until("the one that is well is asked", || (well.begun() > 0).then_some(()));
    assert!(counts.most() < 3, "one goes while the next one comes: {counts:?}");
    assert!(counts.ended() > 8, "{counts:?}");
}

/// Who greets those who come to the virtual, until it is dropped.
struct Clients(Option<std::sync::mpsc::Sender<()>>, Option<std::thread::JoinHandle<Vec<String>>>);

impl Clients {
    fn come_to(vip: SocketAddr) -> Self {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let clients = std::thread::spawn(move || {
            let mut greetings = Vec::new();
            while let Err(std::sync::mpsc::TryRecvError::Empty) = stopped.try_recv() {
                let Ok(stream) = TcpStream::connect(vip) else { continue };
                stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
                let mut line = String::new();
                if BufReader::new(&stream).read_line(&mut line).is_ok_and(|length| length > 0) {
                    greetings.push(line);
                }
                let _ = (&stream).write_all(b"QUIT\r\n");
                std::thread::sleep(Duration::from_millis(2));
            }
            greetings
        });
        Self(Some(stop), Some(clients))
    }

    fn greetings(mut self) -> Vec<String> {
        self.0 = None;
        self.1.take().unwrap().join().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_ever_meets_a_server_that_is_not_well_at_a_start_a_reload_or_a_restart() {
    for quiescent in ["yes", "no"] {
        let (sink, sick, counts) = (well(), well(), Arc::new(Counts::default()));
        sick.set_fault(Some(Fault::RejectBanner421));
        let place = Place::new(&format!("ld-flash-{quiescent}"));
        let dead = [sick.address(), hung(&counts), "127.0.0.1:1".parse().unwrap()];
        let servers = [dead[0], dead[1], dead[2], sink.address()];
        let globals = format!("negotiatetimeout=2\nquiescent={quiescent}\n");
        place.write_cf(&farm(&place, &globals, &servers));
        let clients = Clients::come_to(place.vip);
        for start in 1..=2 {
            assert_eq!(place.code("restart"), Some(0));
            place.until_said("Added real server", start);
            place.until_said("timeout at banner", start);
            for (reload, more) in ["", "# a remark\n", "failurecount=2\n"].into_iter().enumerate() {
                place.write_cf(&farm(&place, &format!("{globals}{more}"), &servers));
                assert_eq!(place.code("reload"), Some(0));
                let already = (start - 1) * 3 + reload + 1;
                place.until_said("configuration reloaded", already);
            }
            // The last reload has changed how they are asked.
            let asked = counts.begun();
            until("they are asked again", || (counts.begun() > asked).then_some(()));
        }
        assert_eq!(place.code("stop"), Some(0));
        let greetings = clients.greetings();
        assert!(!greetings.is_empty());
        assert!(greetings.iter().all(|line| line.starts_with("220-well.example")), "{greetings:?}");
        for change in changes(&place) {
            let of_dead = dead.iter().any(|one| change.contains(&format!(" {one} ")));
            assert!(!of_dead || change.ends_with("weight 0") || change.starts_with("delete"), "{change}");
        }
    }
}

#[test]
#[ignore = "the original, from the package ldirectord: tests/run"]
fn the_original_gives_a_dead_server_its_full_weight_at_each_start_and_reload() {
    let place = Place::new("ld-flash-there");
    place.write_cf(&farm(&place, "quiescent=yes\n", &["127.0.0.1:1".parse().unwrap()]));
    let there = Original::start(place.path("there"), &place.path("mail.cf"));
    let weights = || -> Vec<String> {
        let log = there.operations();
        log.lines().filter_map(|line| line.split_once(" -w ")).map(|(_, weight)| weight.to_owned()).collect()
    };
    until("it is found dead", || (weights().last().map(String::as_str) == Some("0")).then_some(()));
    assert!(weights().contains(&"7".to_owned()), "{}", there.operations());
    let before = weights().len();
    there.signal(Signal::HUP);
    until("it is found dead again", || {
        let later = weights().split_off(before);
        (later.len() > 1 && later.last().map(String::as_str) == Some("0")).then_some(())
    });
    assert!(weights().split_off(before).contains(&"7".to_owned()), "{}", there.operations());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_are_switched_off_do_not_switch_the_fallback_on() {
    let (server, fallback, place) = (Arc::default(), well(), Place::new("ld-off"));
    let off = answering(&server);
    let command = place.path("command");
    super::behaviour::script(&command, &format!("echo \"$*\" >>{}", place.path("out").display()));
    let beside = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let section = |vip: SocketAddr, what: &str| {
        format!(
            "virtual={vip}\n    real={} masq\n    fallback={} masq\n    fallbackcommand={}\n    {what}\n",
            off,
            fallback.address(),
            command.display()
        )
    };
    let dead = "service=smtp\n    checktype=connect\n    checkport=1";
    place.write_cf(&format!(
        "checkinterval=1\n{}\n{}",
        section(place.vip, "checktype=off"),
        section(beside, dead)
    ));
    assert_eq!(place.code("start"), Some(0));
    // The virtual beside it shows that everything that could happen has.
    let added = |vip| format!("Added fallback server: {} ({vip})", fallback.address());
    place.until_said(&added(beside), 1);
    until("the command is run", || place.read("out").contains(&format!("start {beside} tcp")).then_some(()));
    assert_eq!(place.code("reload"), Some(0));
    place.until_said("configuration reloaded", 1);
    let log = place.read("log");
    assert!(!log.contains(&added(place.vip)) && !place.read("out").contains(&place.vip.to_string()), "{log}");
    let of_it = |op: &String| {
        op.contains(&place.vip.to_string()) && op.contains("weight") && !op.ends_with("weight 0")
    };
    assert!(!changes(&place).iter().any(of_it), "{:?}", changes(&place));
    assert_eq!(server.begun(), 0, "nobody asks it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_taken_out_of_the_file_keeps_its_sessions_until_they_end() {
    for quiescent in ["yes", "no"] {
        let (old, new, place) = (well(), well(), Place::new(&format!("ld-drain-{quiescent}")));
        let globals = format!("autoreload=yes\nquiescent={quiescent}\n");
        place.write_cf(&farm(&place, &globals, &[old.address()]));
        assert_eq!(place.code("start"), Some(0));
        place.until_said("Added real server", 1);
        let session = TcpStream::connect(place.vip).unwrap();
        session.set_read_timeout(Some(super::LIMIT)).unwrap();
        let mut lines = BufReader::new(session.try_clone().unwrap()).lines().map(Result::unwrap);
        assert!(lines.by_ref().any(|line| line.starts_with("220 ")), "it is greeted");
        place.write_cf(&farm(&place, &globals, &[new.address()]));
        place.until_said("Added real server", 2);
        let (at, vip) = (old.address(), place.vip);
        place.until_said(&format!("Purged real server (start): {at} ({vip})"), 1);
        place.until_said(&format!("table: set {at} of TCP {vip} to Masq weight 0"), 1);
        // Longer than a server without connections stays.
        std::thread::sleep(Duration::from_secs(5));
        assert!(!place.read("log").contains("table: delete"), "{}", place.read("log"));
        (&session).write_all(b"NOOP\r\n").unwrap();
        assert!(lines.next().unwrap().starts_with("250 "), "its session goes on");
        (&session).write_all(b"QUIT\r\n").unwrap();
        assert!(lines.next().unwrap().starts_with("221 "));
        assert!(lines.next().is_none());
        place.until_said(&format!("table: delete {at} from TCP {vip}"), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the original, from the package ldirectord: tests/run"]
async fn the_original_deletes_a_server_that_is_taken_out_of_the_file_at_once() {
    let (old, new, place) = (well(), well(), Place::new("ld-drain-there"));
    place.write_cf(&farm(&place, "quiescent=yes\n", &[old.address()]));
    let there = Original::start(place.path("there"), &place.path("mail.cf"));
    let at = old.address().to_string();
    // It has been given its weight, lost it, and been found well.
    let changed = || there.operations().lines().filter(|line| line.contains(&at)).count();
    until("it is in", || (changed() == 3).then_some(()));
    let before = there.operations().len();
    place.write_cf(&farm(&place, "quiescent=yes\n", &[new.address()]));
    there.signal(Signal::HUP);
    let first = until("something is done to it", || {
        let log = there.operations();
        log[before..].lines().find(|line| line.contains(&at)).map(str::to_owned)
    });
    assert!(first.contains(" -d "), "{first}");
}
