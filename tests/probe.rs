//! `probe` as a command: its flags, its JSON, its exit codes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "also in the functions that the tests share")]

use std::process::{Command, Output};

use loadgen::sink::{Fault, Sink, SinkConfig};
use serde_json::{Value, json};

use crate::scratch::Folder;

fn probe(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_smtp-director")).arg("probe").args(arguments).output().unwrap()
}

fn sink() -> Sink {
    Sink::start("127.0.0.1:0".parse().unwrap(), SinkConfig::new("real1.example")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_has_every_field_and_says_where_and_why() {
    let sink = sink();
    let target = sink.address().to_string();
    let asked =
        [&target, "--json", "--ehlo-name", "d.example", "--from", "a@d.example", "--rcpt", "b@d.example"];
    let up = probe(&asked);
    let found: Value = serde_json::from_slice(&up.stdout).unwrap();
    assert_eq!(
        (up.status.code(), &found["verdict"], &found["reason"]),
        (Some(0), &json!("up"), &Value::Null)
    );
    let stages: Vec<_> =
        found["stages"].as_array().unwrap().iter().map(|stage| stage["stage"].clone()).collect();
    assert_eq!(stages, ["connect", "banner", "ehlo", "mail", "rcpt", "rset", "quit"]);
    assert_eq!(found["capabilities"][1], "SIZE 10240000");

    sink.set_fault(Some(Fault::RejectMail("451 4.7.1 Service unavailable".to_owned())));
    let down = probe(&asked);
    let mut found: Value = serde_json::from_slice(&down.stdout).unwrap();
    assert_eq!(down.status.code(), Some(1));
    for (key, value) in [
        ("target", json!(target)),
        ("verdict", json!("down")),
        ("reason", json!("tempfail")),
        ("stage", json!("mail")),
        ("code", json!(451)),
        ("enhanced", json!("4.7.1")),
        ("text", json!("451 4.7.1 Service unavailable")),
        ("tls", Value::Null),
    ] {
        assert_eq!(found[key].take(), value, "{key}");
    }
    let keys: Vec<_> = found.as_object().unwrap().keys().map(String::as_str).collect();
    let all = [
        "capabilities",
        "code",
        "enhanced",
        "reason",
        "stage",
        "stages",
        "target",
        "text",
        "tls",
        "took_ms",
        "verdict",
    ];
    assert_eq!(keys, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_relay_has_a_name_of_its_own() {
    let sink = sink();
    let output = probe(&[&sink.address().to_string(), "--refuse-rcpt", "x@elsewhere.example"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("open_relay at relay: 250"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_checks_of_a_virtual_are_run_as_they_are_configured() {
    let (one, two) = (sink(), sink());
    two.set_fault(Some(Fault::RejectMail("452 4.3.1 Insufficient system storage".to_owned())));
    let folder = Folder::new("probe-virtual");
    let file = folder.file(format!(
        "dataplane = \"proxy\"\n[[virtual]]\nname = \"mx\"\naddress = \"127.0.0.1:2525\"\n\
         check.mail = {{ accept = \"postmaster@d.example\" }}\n\
         [[virtual.real]]\naddress = \"{}\"\n[[virtual.real]]\naddress = \"{}\"\n",
        one.address(),
        two.address()
    ));
    let file = file.to_str().unwrap();
    let lines = |output: &Output| -> Vec<Value> {
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let both = probe(&["--config", file, "--virtual", "mx", "--json"]);
    let found: Vec<_> =
        lines(&both).iter().map(|one| json!([one["tier"], one["verdict"], one["stage"]])).collect();
    let well = |tier: &str| json!([tier, "up", Value::Null]);
    assert_eq!(found, [well("base"), well("mail"), well("base"), json!(["mail", "down", "mail"])]);
    assert_eq!(both.status.code(), Some(1));
    let first = probe(&[&one.address().to_string(), "--config", file, "--virtual", "mx", "--json"]);
    assert_eq!((first.status.code(), lines(&first).len()), (Some(0), 2));
    for arguments in
        [&["--config", file, "--virtual", "my"][..], &["192.0.2.1:25", "--config", file, "--virtual", "mx"]]
    {
        assert_eq!(probe(arguments).status.code(), Some(64), "{arguments:?}");
    }
}

#[test]
fn flags_that_make_no_sense_are_refused_before_anybody_is_asked() {
    for arguments in [
        &[][..],
        &["127.0.0.1:1", "--starttls", "always"],
        &["127.0.0.1:1", "--starttls", "required", "--implicit-tls"],
        &["127.0.0.1:1", "--starttls", "required", "--verify", "pinned"],
        &["127.0.0.1:1", "--pin", "abc"],
        &["127.0.0.1:1", "--proxy", "v3"],
        &["127.0.0.1:1", "--banner", "("],
        &["127.0.0.1:1", "--require", "SIZE x"],
        &["127.0.0.1:1", "--auth-file", "/a"],
        &["127.0.0.1:1", "--auth-without-tls"],
        &["127.0.0.1:1", "--from", "a@b"],
        &["127.0.0.1:1", "--rcpt", "a b@c"],
        &["127.0.0.1:1", "--config", "/nowhere"],
        &["--virtual", "mx", "--rcpt", "a@b"],
    ] {
        let output = probe(arguments);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(64), 0), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
    let nobody =
        probe(&["127.0.0.1:1", "--lmtp", "--proxy", "v2", "--verify", "none", "--starttls", "opportunistic"]);
    assert_eq!(nobody.status.code(), Some(1));
}
