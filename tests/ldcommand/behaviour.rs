//! What the daemon does beside the table: mails, commands, files, other daemons.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use loadgen::sink::{Sink, SinkConfig};

use super::servers::MailServer;
use super::{Place, until};

fn sink() -> Sink {
    Sink::start("127.0.0.1:0".parse().unwrap(), SinkConfig::new("real1.example")).unwrap()
}

pub(super) fn script(path: &Path, text: &str) {
    executable(path, &format!("#!/bin/sh\n{text}\n"));
}

pub(super) fn executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn real(address: SocketAddr) -> String {
    format!("real = [{{ address = \"{address}\" }}]")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_recipient_gets_each_mail_and_a_refused_one_costs_the_others_nothing() {
    let (server, mut sink, place) = (MailServer::start(), sink(), Place::new("ld-mail"));
    let alert = format!(
        "[alert]\nto = [\"a@x.test\", \"refused@x.test\", \"b@x.test\"]\nfrom = \"Director <d@x.test>\"\n\
         smtp = \"{}\"\nevery = \"200ms\"\nservice = \"mx\"\ncomment = \"call Ann\"",
        server.address()
    );
    place.write(&alert, &real(sink.address()));
    assert_eq!(place.code("start"), Some(0));
    let has = |text: &str| server.subjects().iter().any(|subject| subject == text).then_some(());
    let (vip, at) = (place.vip, sink.address());
    until("it is in", || has(&format!("[mx] Added real server: {at} ({vip}) (Weight set to 100)")));
    sink.stop().await;
    until("it is out", || has(&format!("[mx] Quiescent real server: {at} ({vip}) (Weight set to 0)")));
    let still = format!("[mx] Inaccessible real server: {at} ({vip})");
    until("it is told again, and again", || {
        (server.subjects().iter().filter(|subject| **subject == still).count() > 1).then_some(())
    });
    assert_eq!(place.code("stop"), Some(0));
    let mails = server.mails();
    for (to, text) in &mails {
        assert_eq!(to.iter().map(String::as_str).collect::<Vec<_>>(), ["<a@x.test>", "<b@x.test>"], "{text}");
        for line in ["From: Director <d@x.test>", "Service name: mx", "Comment: call Ann"] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
    let phases: BTreeSet<&str> = mails
        .iter()
        .filter_map(|(_, text)| text.lines().find_map(|l| l.strip_prefix("Daemon-Status: ")))
        .collect();
    assert!(phases.contains("running"), "{phases:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_server_that_hangs_delays_no_check_and_no_end() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap(); // takes connections and never says a word
    let (mut sink, place) = (sink(), Place::new("ld-mail-hangs"));
    let alert =
        format!("[alert]\nto = \"a@x.test\"\nsmtp = \"{}\"\nevery = \"1ms\"", silent.local_addr().unwrap());
    place.write(&alert, &real(sink.address()));
    assert_eq!(place.code("start"), Some(0));
    until("it is in", || place.read("log").contains("Added real server").then_some(()));
    sink.stop().await;
    until("it is out", || place.read("log").contains("Quiescent real server").then_some(()));
    // One is sent, 256 wait: the rest is lost and said to be.
    until("the queue is full", || place.read("log").contains("mails wait to be sent").then_some(()));
    assert_eq!(place.code("stop"), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_phases_that_are_asked_for_are_mailed() {
    let (server, sink, place) = (MailServer::start(), sink(), Place::new("ld-phases"));
    let top = format!(
        "on_exit = \"remove\"\n[alert]\nto = \"a@x.test\"\nwhen = [\"stopping\"]\nsmtp = \"{}\"",
        server.address()
    );
    place.write(&top, &real(sink.address()));
    assert_eq!(place.code("start"), Some(0));
    until("it is in", || place.read("log").contains("Added real server").then_some(()));
    assert_eq!(place.code("stop"), Some(0));
    let purged = format!("Purged real server (stop): {} ({})", sink.address(), place.vip);
    assert_eq!(server.subjects(), [purged]);
    assert!(place.read("log").contains(&format!("Purged virtual server (stop): {}", place.vip)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fallback_command_is_told_when_nobody_can_serve_and_when_somebody_can_again() {
    let (mut server, place) = (sink(), Place::new("ld-fallback"));
    let (command, out) = (place.path("command"), place.path("out"));
    script(&command, &format!("echo \"$*\" >>{}", out.display()));
    let at = server.address();
    place.write("", &format!("fallback_command = [{command:?}, \"web\"]\n{}", real(at)));
    assert_eq!(place.code("start"), Some(0));
    until("it is in", || place.read("log").contains("Added real server").then_some(()));
    server.stop().await;
    let vip = place.vip;
    until("it starts", || (place.read("out") == format!("web start {vip} tcp\n")).then_some(()));
    let _again = Sink::start(at, SinkConfig::new("real1.example")).unwrap();
    until("it stops", || {
        (place.read("out") == format!("web start {vip} tcp\nweb stop {vip} tcp\n")).then_some(())
    });
    let monitored = place.read("log").contains("Restored real server");
    assert!(monitored, "{}", place.read("log"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_monitor_file_has_a_line_for_each_check_and_may_be_unwritable() {
    let (sink, place) = (sink(), Place::new("ld-monitor"));
    let monitor = place.path("monitor");
    place.write("", &format!("monitor_file = {monitor:?}\n{}", real(sink.address())));
    assert_eq!(place.code("start"), Some(0));
    let line = until("a line", || place.read("monitor").lines().nth(1).map(str::to_owned));
    let at = sink.address();
    assert!(line.starts_with('[') && line.ends_with(&format!("{} {} [up] -", at.ip(), at.port())), "{line}");
    fs::remove_file(&monitor).unwrap();
    fs::create_dir(&monitor).unwrap();
    until("it is said", || place.read("log").contains("Is a directory").then_some(()));
    assert_eq!(place.code("status"), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_in_the_maintenance_directory_takes_a_server_out_and_a_lost_directory_nobody() {
    let (sink, place) = (sink(), Place::new("ld-maintenance"));
    let directory = place.path("maintenance");
    fs::create_dir(&directory).unwrap();
    place.write(&format!("maintenance_dir = {directory:?}"), &real(sink.address()));
    assert_eq!(place.code("start"), Some(0));
    let count = |text: &str| place.read("log").matches(text).count();
    until("it is in", || (count("Added real server") == 1).then_some(()));
    // By address and port, by address, and by name.
    for (done, name) in
        [sink.address().to_string(), sink.address().ip().to_string(), "localhost".into()].iter().enumerate()
    {
        fs::write(directory.join(name), "").unwrap();
        until(&format!("{name} is out"), || (count("Quiescent real server") == done + 1).then_some(()));
        fs::remove_file(directory.join(name)).unwrap();
        until(&format!("{name} is back"), || (count("Restored real server") == done + 1).then_some(()));
    }
    fs::write(directory.join("127.0.0.1"), "").unwrap();
    until("it is out", || (count("Quiescent real server") == 4).then_some(()));
    fs::remove_dir_all(&directory).unwrap();
    until("it is said", || (count("who was out stays out") == 1).then_some(()));
    fs::create_dir(&directory).unwrap();
    until("it is back with the directory", || (count("Restored real server") == 4).then_some(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_is_run_for_each_new_content_even_without_autoreload() {
    for autoreload in [false, true] {
        let (sink, place) = (sink(), Place::new(if autoreload { "ld-callback-auto" } else { "ld-callback" }));
        let (command, out) = (place.path("command"), place.path("out"));
        script(&command, &format!("echo \"$*\" >>{}", out.display()));
        let top = format!("autoreload = {autoreload}\ncallback = {command:?}");
        place.write(&top, &real(sink.address()));
        assert_eq!(place.code("start"), Some(0));
        until("it is in", || place.read("log").contains("Added real server").then_some(()));
        place.write(&top, &format!("weight = 7\n{}", real(sink.address())));
        let file = place.path("mail.cf");
        until("it is called", || (place.read("out") == format!("{}\n", file.display())).then_some(()));
        if autoreload {
            until("it is read", || place.read("log").contains("(Weight set to 7)").then_some(()));
        } else {
            assert!(place.read("log").contains("ignore new configuration"));
        }
    }
}

#[test]
fn a_callback_that_does_not_end_delays_no_reload() {
    let place = Place::new("ld-callback-hangs");
    let command = place.path("command");
    script(&command, "exec sleep 300");
    let top = format!("autoreload = true\ncallback = {command:?}");
    place.write(&top, super::SERVER);
    assert_eq!(place.code("start"), Some(0));
    for name in ["a", "b", "c"] {
        place.write(&top, &format!("{}\n# {name}", super::SERVER));
        let count = place.read("log").matches("configuration reloaded").count();
        until("it is read", || {
            (place.read("log").matches("configuration reloaded").count() > count).then_some(())
        });
    }
    assert_eq!(place.code("stop"), Some(0));
}

#[test]
fn other_configurations_start_reload_and_end_with_this_one_and_circles_are_refused() {
    let (place, other) = (Place::new("ld-execute"), Place::new("ld-executed"));
    let (ours, its) = (place.path("mail.cf"), place.path("other.cf"));
    // The other one would start this one, and itself.
    other.write(&format!("execute = [{ours:?}, {its:?}]"), super::SERVER);
    fs::rename(other.path("mail.cf"), &its).unwrap();
    place.write(&format!("execute = [{its:?}]"), super::SERVER);
    let code = |action: &str| {
        let output = place.command(&[its.to_str().unwrap(), action]).output().unwrap();
        output.status.code()
    };
    assert_eq!(place.code("start"), Some(0));
    until("the other runs", || (code("status") == Some(0)).then_some(()));
    until("it refuses both", || (other.read("log").matches("would start itself").count() == 2).then_some(()));
    assert_eq!(place.code("reload"), Some(0));
    until("it reloads", || other.read("log").contains("configuration reloaded").then_some(()));
    assert_eq!(place.code("stop"), Some(0));
    assert_eq!(code("status"), Some(3), "it has ended before this one has");
}
