//! Whatever the source, the same queue.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::SystemTime;

use postfix::report::json::Document;
use postfix::report::{QueueReport, Source, Trouble};
use serde_json::Value;

use super::instance::{DISCARD, Instance, LATER};
use super::{NOBODY, look, program, report, wait_until};

/// Ages by `postqueue -j`, of the messages in these queues.
fn oldest(instance: &Instance, queues: &[&str]) -> u64 {
    let list = instance.run("postqueue", &["-j"]);
    let messages = list.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let times = messages.filter(|message| queues.contains(&message["queue_name"].as_str().unwrap()));
    let first = times.map(|message| message["arrival_time"].as_u64().unwrap()).min().unwrap();
    #[expect(clippy::disallowed_methods, reason = "the test compares wall clocks")]
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    now.as_secs() - first
}

fn all_sources_agree(name: &str, ids: &str) {
    let instance = Instance::start(name, &format!("{LATER}enable_long_queue_ids = {ids}\n"), "");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(instance.send(5));
    instance.await_queue("deferred", 5);
    // Ages must differ from 0 and from each other to mean something.
    wait_until(super::LIMIT, "five seconds", || oldest(&instance, &["deferred"]) >= 5);
    runtime.block_on(instance.send(2));
    instance.await_queue("deferred", 7);
    // Another attempt touches every file, which makes none younger.
    instance.run("postqueue", &["-f"]);
    wait_until(super::LIMIT, "another attempt", || instance.log().matches("status=deferred").count() >= 14);
    instance.await_queue("deferred", 7);
    let newest = instance.run("postqueue", &["-j"]);
    let newest: Value = serde_json::from_str(newest.lines().last().unwrap()).unwrap();
    instance.run("postsuper", &["-h", newest["queue_id"].as_str().unwrap()]);
    for (source, word) in [(Source::Scan, "scan"), (Source::Postqueue, "postqueue"), (Source::Showq, "showq")]
    {
        let found = look(&instance.config(), &["--source", word]);
        let expected = oldest(&instance, &["deferred"]);
        assert_eq!((found.source, found.trouble), (Some(source), None));
        assert_eq!(
            (found.incoming, found.active, found.deferred, found.hold, found.maildrop),
            (Some(0), Some(0), Some(6), Some(1), Some(0)),
            "{word}"
        );
        let age = found.oldest_deferred.unwrap();
        // An id is as old as its file, which a slow machine makes a second after the mail was announced; both are cut to
        // whole seconds, and one is asked after the other.
        assert!(age.abs_diff(expected) <= 2, "{word}: {age}, postqueue says {expected}");
        assert_eq!((found.oldest, found.waiting, found.ages_exact), (Some(0), Some(0), Some(true)), "{word}");
    }
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn counts_and_ages_are_those_of_postqueue_with_long_ids() {
    all_sources_agree("long", "yes");
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn counts_and_ages_are_those_of_postqueue_with_short_ids() {
    all_sources_agree("short", "no");
}

/// What a user sees who may not read the spool.
fn as_nobody(instance: &Instance, group: u32, arguments: &[&str]) -> (Option<i32>, QueueReport) {
    let here = instance.folder().join("smtp-realserver");
    std::fs::copy(program(), &here).unwrap(); // nobody may not look everywhere
    let output = Command::new(&here)
        .args(["report", "--format", "json", "-c"])
        .arg(instance.config())
        .args(arguments)
        .current_dir("/")
        .uid(NOBODY)
        .gid(group)
        .output()
        .unwrap();
    let found = Document::parse(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code(), found.sum)
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn a_user_without_rights_sees_no_queue_instead_of_an_empty_one() {
    let instance = Instance::start("nobody", DISCARD, "");
    // Postfix takes other configuration directories from root only, so postqueue fails as well.
    let (code, found) = as_nobody(&instance, NOBODY, &[]);
    assert_eq!((code, found.trouble, found.incoming), (Some(77), Some(Trouble::Permission), None));
    assert_eq!((found.master, found.qmgr), (Some(true), Some(true)), "processes can be seen by all");
    assert!(found.free.is_some() && found.postfix.is_some());
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn the_group_postdrop_may_ask_showq() {
    let instance = Instance::start("group", LATER, "");
    tokio::runtime::Runtime::new().unwrap().block_on(instance.send(3));
    instance.await_queue("deferred", 3);
    let groups = std::fs::read_to_string("/etc/group").unwrap();
    let line = groups.lines().find(|line| line.starts_with("postdrop:")).unwrap();
    let group = line.split(':').nth(2).unwrap().parse().unwrap();
    let (code, found) = as_nobody(&instance, group, &[]);
    assert_eq!((code, found.source, found.deferred), (Some(0), Some(Source::Showq), Some(3)));
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn two_instances_are_two_reports_and_a_sum() {
    let one = Instance::start("one", &format!("{LATER}multi_instance_name = postfix-one\n"), "");
    let two = Instance::start("two", &format!("{LATER}multi_instance_name = postfix-two\n"), "");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(one.send(1));
    runtime.block_on(two.send(2));
    one.await_queue("deferred", 1);
    two.await_queue("deferred", 2);
    let second = two.config();
    let output = report(&one.config(), &["-c", second.to_str().unwrap(), "--format", "json"]);
    let found = Document::parse(&output.stdout).unwrap();
    let each: Vec<_> = found.instances.iter().map(|one| (one.name.as_str(), one.report.deferred)).collect();
    assert_eq!(each, [("postfix-one", Some(1)), ("postfix-two", Some(2))]);
    assert_eq!((found.sum.instances, found.sum.deferred, found.sum.qmgr), (Some(2), Some(3), Some(true)));
    two.command("abort");
    let output = report(&one.config(), &["-c", second.to_str().unwrap(), "--format", "agent"]);
    assert!(output.stdout.starts_with(b"down # v1 "), "one of them does not run: {output:?}");
}
