//! Directives that no table shows, by files of ldirectord and the program as it is.

use std::fs::{self, File};

use rustix::process::{Pid, Signal, kill_process};

use super::behaviour::script;
use super::servers::well;
use super::{Place, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn supervised_stays_in_the_foreground_and_logs_to_standard_output_with_or_without_a_value() {
    let sink = well();
    for word in ["supervised=yes", "supervised"] {
        let place = Place::new(&format!("ld-cf-{}", word.replace('=', "-")));
        let virtual_ = format!("virtual={}\n    service=smtp\n    real={} masq\n", place.vip, sink.address());
        place.write_cf(&format!("checkinterval=1\n{word}\n{virtual_}"));
        let file = place.path("mail.cf");
        let out = File::create(place.path("out")).unwrap();
        let mut daemon = place.command(&[file.to_str().unwrap(), "start"]).stdout(out).spawn().unwrap();
        let added = format!("] Added real server: {} ({}) (Weight set to 1)", sink.address(), place.vip);
        let said = || place.read("out").lines().find(|line| line.ends_with(&added)).map(str::to_owned);
        let line = until(&added, said);
        // As the original: the time, and neither a name nor a process.
        let time = line.trim_start_matches('[').split(']').next().unwrap();
        assert!(chrono::NaiveDateTime::parse_from_str(time, "%a %b %e %H:%M:%S %Y").is_ok(), "{line}");
        assert_eq!((place.pid(), place.read("log").as_str()), (None, ""), "no pid file, no log file");
        kill_process(Pid::from_child(&daemon), Signal::TERM).unwrap();
        assert_eq!(daemon.wait().unwrap().code(), Some(0));
        assert!(place.read("out").ends_with("Linux Director Daemon terminated on signal: TERM\n"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_is_told_the_file_with_autoreload_and_without() {
    let sink = well();
    for autoreload in ["no", "yes"] {
        let place = Place::new(&format!("ld-cf-callback-{autoreload}"));
        let (command, out, file) = (place.path("command"), place.path("out"), place.path("mail.cf"));
        script(&command, &format!("echo \"$# $*\" >>{}", out.display()));
        let write = |weight: u8| {
            place.write_cf(&format!(
                "checkinterval=1\nautoreload={autoreload}\ncallback=\"{}\"\nvirtual={}\n    service=smtp\n    real={} masq {weight}\n",
                command.display(),
                place.vip,
                sink.address()
            ));
        };
        write(3);
        assert_eq!(place.code("start"), Some(0));
        place.until_said("(Weight set to 3)", 1);
        write(4);
        until("it is called", || (place.read("out") == format!("1 {}\n", file.display())).then_some(()));
        place.until_said(&format!("Configuration file '{}' has changed on disk", file.display()), 1);
        if autoreload == "yes" {
            place.until_said("(Weight set to 4)", 1);
        } else {
            place.until_said(" - ignore new configuration", 1);
            assert_eq!(place.code("reload"), Some(0), "by hand it is read");
            place.until_said("(Weight set to 4)", 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn execute_starts_reloads_and_ends_another_file_and_never_itself() {
    let (sink, place, other) = (well(), Place::new("ld-cf-execute"), Place::new("ld-cf-executed"));
    let (file, its) = (place.path("mail.cf"), other.path("other.cf"));
    let section = |vip, weight: u8| {
        format!("virtual={vip}\n    service=smtp\n    real={} masq {weight}\n", sink.address())
    };
    // Each starts the other, and itself: twice by its own name and once by another.
    let again = place.path("again.cf");
    std::os::unix::fs::symlink(&file, &again).unwrap();
    let executes =
        format!("execute={}\nexecute={}\nexecute={}\n", its.display(), file.display(), again.display());
    place.write_cf(&format!("checkinterval=1\n{executes}{}", section(place.vip, 1)));
    let write_other = |weight| {
        other.write_cf(&format!("checkinterval=1\n{executes}{}", section(other.vip, weight)));
        fs::rename(other.path("mail.cf"), &its).unwrap();
    };
    write_other(1);
    assert_eq!(place.code("start"), Some(0));
    other.until_said(&format!("Added real server: {} ({}) (Weight set to 1)", sink.address(), other.vip), 1);
    place.until_said("would start itself; it is left out", 2);
    other.until_said("would start itself; it is left out", 3);
    write_other(2);
    assert_eq!(place.code("reload"), Some(0));
    other.until_said("(Weight set to 2)", 1);
    assert_eq!(place.code("stop"), Some(0));
    let status = place.command(&[its.to_str().unwrap(), "status"]).output().unwrap();
    assert_eq!(status.status.code(), Some(3), "it has ended with the one that started it");
    // One daemon of each, and no more.
    for log in [place.read("log"), other.read("log")] {
        assert_eq!(log.matches("Starting Linux Director").count(), 1, "{log}");
    }
}
