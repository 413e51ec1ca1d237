//! Checks by a command.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use checks::external::ExternalSpec;

use super::*;
use crate::scratch::Folder;

/// A shell script that can be run. Another process writes it: a fork of a test beside this one would hold our own file
/// open for a moment, and what is open for writing is not run (ETXTBSY).
fn script(folder: &Folder, text: &str) -> PathBuf {
    let path = folder.path().join("check");
    let mut install = Command::new("install");
    let install = install.args(["-m", "755", "/dev/stdin"]).arg(&path).stdin(Stdio::piped());
    let mut child = install.spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("#!/bin/sh\n{text}\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    path
}

fn ask(command: &Path, deadline: Duration) -> CheckSpec {
    let kind = Kind::External(Box::new(ExternalSpec {
        arguments: Vec::new(),
        command: command.to_owned(),
        service: "192.0.2.25".to_owned(),
        service_port: Some(25),
    }));
    CheckSpec {
        target: "10.0.0.11:2525".parse().unwrap(),
        kind,
        deadline,
        connect_timeout: deadline,
        via: None,
    }
}

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_command_hears_what_ldirectord_would_tell_it_and_nothing_else() {
    let folder = Folder::new("command");
    let command =
        script(&folder, "echo \"$# $1 $2 $3 $4 $(/usr/bin/env | /usr/bin/sort | /usr/bin/tr '\\n' ' ')\"");
    let outcome = checks::run(&ask(&command, LONG)).await;
    assert_eq!((&outcome.verdict, stages(&outcome)), (&Ok(()), vec![Stage::Command]));
    let said = &outcome.stages[0].received[0];
    assert!(said.starts_with("4 192.0.2.25 25 10.0.0.11 2525 LC_ALL=C PATH=/"), "{said}");
    assert!(!said.contains("HOME=") && !said.contains("CARGO"), "{said}");
    let mut marked = ask(&command, LONG);
    if let Kind::External(spec) = &mut marked.kind {
        (spec.service, spec.service_port) = ("7".to_owned(), None);
    }
    let outcome = checks::run(&marked).await;
    assert!(outcome.stages[0].received[0].starts_with("4 7 0 10.0.0.11 2525 "));
}

#[tokio::test]
async fn the_exit_status_and_the_first_line_say_why() {
    let folder = Folder::new("command-failed");
    for (text, code, said) in [
        ("exit 3", 3, "exit status: 3"),
        ("echo; echo the queue is full >&2; echo more >&2; exit 1", 1, "the queue is full"),
        ("printf 'a\\033[2Jb\\0c'; exit 255", 255, "a\\u{1b}[2Jb\\0c"),
        ("kill -SEGV $$", 139, "signal: 11 (SIGSEGV) (core dumped)"),
        ("/usr/bin/head -c 3000000 /dev/zero; exit 2", 2, ""),
    ] {
        let outcome = checks::run(&ask(&script(&folder, text), LONG)).await;
        let failure = outcome.verdict.unwrap_err();
        assert_eq!(
            (failure.stage, failure.reason, failure.code),
            (Stage::Command, Reason::Failed, Some(code))
        );
        let core = said.strip_suffix(" (core dumped)").unwrap_or(said);
        assert!(failure.text.starts_with(core) && failure.text.len() <= checks::smtp::MAX_TEXT, "{failure}");
    }
}

#[tokio::test]
async fn a_command_that_cannot_be_started_says_nothing_of_the_server() {
    let folder = Folder::new("command-local");
    let plain = folder.path().join("plain");
    fs::write(&plain, "x").unwrap();
    for command in [Path::new("/nonexistent/check"), &plain, folder.path()] {
        let failure = checks::run(&ask(command, LONG)).await.verdict.unwrap_err();
        assert_eq!((failure.stage, failure.reason), (Stage::Command, Reason::Local));
        assert!(failure.text.starts_with(&command.display().to_string()), "{failure}");
    }
}

/// Whether a process lives; one that has ended and was not waited for does not.
fn lives(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[tokio::test]
async fn a_command_that_hangs_is_killed_with_all_that_it_started() {
    let folder = Folder::new("command-hangs");
    // Neither it nor its child listens to TERM.
    let text = "trap '' TERM\n/bin/sleep 600 &\necho $! >\"$0.child\"\necho $$ >\"$0.pid\"\necho busy\n\
        while :; do wait; done";
    let command = script(&folder, text);
    let deadline = Duration::from_secs(2);
    let outcome = checks::run(&ask(&command, deadline)).await;
    assert!(outcome.took < deadline + Duration::from_secs(1), "{:?}", outcome.took);
    let failure = outcome.verdict.unwrap_err();
    assert_eq!((failure.stage, failure.reason), (Stage::Command, Reason::Timeout));
    assert_eq!(failure.text, "busy");
    let pid = |what: &str| fs::read_to_string(format!("{}.{what}", command.display())).unwrap();
    let (child, parent) = (pid("child"), pid("pid"));
    assert!(lives(&child) && lives(&parent), "they were told, not killed yet");
    let gone = async {
        while lives(&child) || lives(&parent) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("both are gone");
}

#[tokio::test]
async fn a_check_that_is_given_up_leaves_no_command_behind() {
    let folder = Folder::new("command-dropped");
    let command = script(&folder, "echo $$ >\"$0.pid\"\nexec /bin/sleep 600");
    let spec = ask(&command, LONG);
    let file = format!("{}.pid", command.display());
    let begun = async {
        while !fs::read_to_string(&file).is_ok_and(|text| text.ends_with('\n')) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        outcome = checks::run(&spec) => panic!("{outcome:?}"),
        () = begun => {}
    }
    let pid = fs::read_to_string(&file).unwrap();
    let gone = async {
        while lives(&pid) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone).await.expect("it is gone");
}

#[tokio::test]
async fn a_command_that_leaves_somebody_behind_is_not_waited_for_longer() {
    let folder = Folder::new("command-daemon");
    let command = script(&folder, "/bin/sleep 10 &\necho done");
    let outcome = checks::run(&ask(&command, LONG)).await;
    assert_eq!(outcome.verdict, Ok(()));
    assert!(outcome.took < Duration::from_secs(5), "{:?}", outcome.took);
    assert_eq!(outcome.stages[0].received, ["done"]);
}
