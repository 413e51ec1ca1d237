//! The rules of what follows load.

use std::time::Duration;

use crate::config::native::lower;
use crate::config::{AgentSource, Config};
use crate::weight::law::Steps;

fn text(lines: &str, real: &str) -> String {
    format!(
        "[[virtual]]\naddress = \"192.0.2.25:25\"\n{lines}\n[[virtual.real]]\naddress = \"10.0.0.11\"\n{real}\n"
    )
}

fn farm(lines: &str, real: &str) -> Config {
    let text = text(lines, real);
    lower(&text, &[], "director.example.com").unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"))
}

fn agent(lines: &str, real: &str) -> Option<AgentSource> {
    farm(lines, real).virtuals[0].reals[0].agent.clone().map(|plan| plan.source)
}

#[test]
fn two_braces_are_a_queue_with_every_default() {
    let farm = farm("queue = {}", "");
    let law = farm.virtuals[0].law.clone().unwrap();
    let queue = law.queue.unwrap();
    assert_eq!((queue.band.full_at.as_secs(), queue.band.floor_at.as_secs()), (10, 60));
    assert_eq!((queue.interval.as_secs(), law.slow_start.as_secs(), law.floor), (10, 120, 50));
    assert_eq!((law.steps, law.latency), (Steps::Fine, None));
    let plan = farm.virtuals[0].reals[0].agent.clone().unwrap();
    assert_eq!(plan.source, AgentSource::Tcp { address: ([10, 0, 0, 11], 9626).into(), tls: None });
    assert_eq!(plan.deadline, Duration::from_secs(5));
}

#[test]
fn without_a_word_of_load_there_is_no_law() {
    assert_eq!(farm("", "").virtuals[0].law, None);
    let slow = farm("slow_start = \"30s\"", "").virtuals[0].law.clone().unwrap();
    assert_eq!((slow.queue, slow.slow_start.as_secs()), (None, 30));
    let late = farm("latency = {}\nscheduler = \"mh\"", "").virtuals[0].law.clone().unwrap();
    assert_eq!((late.latency.unwrap().floor_at.as_secs(), late.steps), (5, Steps::Coarse));
    assert!(late.slow_start.is_zero());
}

#[test]
fn each_server_can_have_an_agent_of_its_own() {
    let tcp = |address: &str| Some(AgentSource::Tcp { address: address.parse().unwrap(), tls: None });
    for (lines, real, expected) in [
        ("queue = { agent = 99 }", "", tcp("10.0.0.11:99")),
        ("queue = {}", "queue = { agent = 98 }", tcp("10.0.0.11:98")),
        ("queue = {}", "queue = { agent = \"192.168.0.1:97\" }", tcp("192.168.0.1:97")),
        ("queue = {}", "queue = \"off\"", None),
        (
            "queue = { command = [\"/usr/bin/ssh\", \"{address}\"] }",
            "",
            Some(AgentSource::Command {
                program: "/usr/bin/ssh".into(),
                arguments: vec!["10.0.0.11".to_owned()],
            }),
        ),
    ] {
        assert_eq!(agent(lines, real), expected, "{lines} {real}");
    }
    let tls = "queue.tls = { ca_file = \"/a\", certificate = \"/b\", key = \"/c\", name = \"mx\" }";
    let Some(AgentSource::Tcp { tls: Some(tls), .. }) = agent(tls, "") else { panic!() };
    assert_eq!((tls.key.to_str(), tls.name.as_deref()), (Some("/c"), Some("mx")));
}

#[test]
fn what_would_swing_or_cannot_be_is_refused_with_the_reason() {
    let full = "queue = { full_at = \"10s\", floor_at = \"30s\" }";
    for (lines, real, expected) in [
        (full, "", "swing"),
        ("queue = { interval = \"20s\" }", "", "write floor_at = \"1m10s\" or more"),
        ("queue = { full_at = \"60s\" }", "", "leaves nothing between full_at (1m) and floor_at (1m)"),
        ("queue = { agent = \"10.0.0.9:1\" }", "", "each server has an agent of its own"),
        ("queue = { agent = 1, command = [\"/a\"] }", "", "one of both"),
        ("queue = { command = [\"ssh\"] }", "", "an absolute path"),
        ("queue = { command = [] }", "", "is empty"),
        ("queue = { tls = { ca_file = \"/a\", key = \"/b\" } }", "", "certificate is missing"),
        ("", "queue = {}", "its virtual has no queue"),
        ("queue = {}", "queue = { interval = \"1s\" }", "is of the virtual"),
        ("latency = { full_at = \"9s\" }", "", "leaves nothing between"),
        ("queue = { interval = 5 }", "", "has no unit"),
        ("queue = { floor = 5 }", "", "unknown key in queue"),
        ("queue = {}\nscheduler = \"sh\"\nweight = 300", "", "has 256 slots"),
    ] {
        let text = text(lines, real);
        let problems = lower(&text, &[], "director.example.com").expect_err(&text);
        assert!(problems.iter().any(|one| one.message.contains(expected)), "{lines} {real}: {problems:#?}");
    }
    assert!(lower(&text("queue = {}\nscheduler = \"sh\"\nweight = 20", ""), &[], "d").is_ok());
}
