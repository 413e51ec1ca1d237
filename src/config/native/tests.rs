//! Each rule of the schema with its message and place.

use proptest::prelude::*;

use super::vocabulary::{FALLBACK, LATENCY, QUEUE, QUEUE_TLS, REAL, TUNNEL};
use super::*;
use crate::config::ProxyProtocol;
use crate::config::diagnostic::Lines;
use crate::model::{
    Family, Forward, Granularity, Protocol, Scheduler, SchedulerFlags, Tunnel, TunnelChecksum, VirtualId,
};

const HOST: &str = "director.example.com";

fn farm(text: &str) -> Config {
    lower(text, &[], HOST).unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"))
}

/// `line:column message` of each problem.
fn problems(text: &str) -> Vec<String> {
    let lines = Lines::new(text);
    let Err(problems) = lower(text, &[], HOST) else { return Vec::new() };
    let shown = problems.into_iter().map(|problem| match problem.place {
        Some(Place::Text(span)) => {
            let (line, column) = lines.position(span.start);
            format!("{line}:{column} {}", problem.message)
        }
        Some(Place::Environment(name)) => format!("{name} {}", problem.message),
        None => problem.message,
    });
    shown.collect()
}

/// A farm with these lines on top, in the virtual (from line `top` + 2) and in its one real server.
fn text(top: &str, virtual_lines: &str, real_lines: &str) -> String {
    format!("{top}\n[[virtual]]\n{virtual_lines}\n[[virtual.real]]\n{real_lines}\n")
}

/// A good virtual with more lines from line 4 on.
fn virtual_with(lines: &str) -> String {
    text("", &format!("address = \"192.0.2.25:25\"\n{lines}"), "address = \"10.0.0.11\"")
}

/// A good virtual whose one real server has these lines from line 5 on.
fn real_with(lines: &str) -> String {
    text("", "address = \"192.0.2.25:25\"", lines)
}

/// Each text has exactly this problem.
fn each_has(cases: &[(String, &str)]) {
    for (text, want) in cases {
        assert_eq!(problems(text), [*want], "\n{text}");
    }
}

#[test]
fn four_lines_are_a_farm_with_every_default() {
    let config =
        farm("[[virtual]]\naddress = \"192.0.2.25:25\"\n[[virtual.real]]\naddress = \"10.0.0.11\"\n");
    assert_eq!(config.dataplane, DataplaneChoice::Auto);
    assert_eq!(config.http, Some("127.0.0.1:9625".parse().unwrap()));
    assert_eq!((config.log, config.log_format), (LogLevel::Info, LogFormat::Text));
    assert_eq!((config.autoreload, config.on_exit), (false, OnExit::Keep));
    assert_eq!(config.resync, Duration::from_secs(30));
    let [one] = &config.virtuals[..] else { panic!() };
    assert_eq!(one.name, "192.0.2.25:25");
    assert_eq!(one.id.to_string(), "TCP 192.0.2.25:25");
    assert_eq!(one.settings.scheduler, Scheduler::Wlc);
    assert_eq!(one.settings.flags, SchedulerFlags::NONE);
    assert_eq!(one.settings.persistence, None);
    assert!(one.quiescent && one.fallback.is_none() && one.proxy.protocol.is_none());
    assert_eq!((one.drain, one.proxy.idle), (Duration::from_secs(600), Duration::from_secs(900)));
    let [real] = &one.reals[..] else { panic!() };
    assert_eq!(real.id.to_string(), "10.0.0.11:25");
    assert_eq!((real.settings.forward, real.settings.weight.0), (Forward::Gate, 100));
    let plan = real.checks[0].clone();
    assert_eq!((plan.interval, plan.retry), (Duration::from_secs(10), Duration::from_secs(2)));
    assert_eq!((plan.fall, plan.rise, plan.damping), (3, 2, true));
    assert_eq!(plan.spec.target, real.id.0);
    assert_eq!(
        (plan.spec.deadline, plan.spec.connect_timeout),
        (Duration::from_secs(15), Duration::from_secs(3))
    );
    let checks::Kind::Smtp(smtp) = plan.spec.kind else { panic!() };
    assert_eq!(smtp.ehlo_name, HOST);
    assert_eq!(
        [smtp.banner_timeout, smtp.ehlo_timeout, smtp.quit_timeout].map(|time| time.as_secs()),
        [8, 5, 2]
    );
}

#[test]
fn every_key_is_taken() {
    let config = farm(
        r#"
dataplane = "auto"
http = "off"
log = "debug"
log_format = "json"
autoreload = true
on_exit = "remove"
resync = "1m"
[check]
interval = "5s"
fall = 5
ehlo_name = "[192.0.2.1]"

[[virtual]]
name = "mx"
address = "[2001:db8::25]:25"
protocol = "tcp"
scheduler = "mh"
scheduler_flags = ["port"]
one_packet = false
forward = "ipip"
tunnel = { type = "gue", port = 6080, checksum = "csum" }
persistence = "5m"
netmask = 64
quiescent = false
drain = "0s"
fallback = { address = "[::1]:25", forward = "masq" }
proxy_protocol = "v2"
idle = "1h30m"
weight = 10
[virtual.check]
fall = 4
[[virtual.real]]
address = "2001:db8::11-2001:db8::13"
upper_threshold = 100
lower_threshold = 50
[virtual.real.check]
type = "connect"
port = 2525
[[virtual.real]]
address = "10.0.0.1"
port = 25
weight = 0
tunnel = { type = "gre" }

[[virtual]]
fwmark = 7
family = "ipv6"
[[virtual.real]]
address = "2001:db8::11"
check = { type = "on" }
"#,
    );
    assert_eq!((config.http, config.autoreload), (None, true));
    let [mx, mark] = &config.virtuals[..] else { panic!() };
    assert_eq!((mx.name.as_str(), mx.quiescent, mx.drain), ("mx", false, Duration::ZERO));
    assert_eq!(mx.settings.flags, SchedulerFlags::PORT);
    let persistence = mx.settings.persistence.clone().unwrap();
    assert_eq!((persistence.timeout, persistence.granularity), (300, Granularity::V6(64)));
    let (fallback, settings) = mx.fallback.unwrap();
    assert_eq!((fallback.to_string(), settings.forward), ("[::1]:25".into(), Forward::Masq));
    assert_eq!((mx.proxy.protocol, mx.proxy.idle), (Some(ProxyProtocol::V2), Duration::from_secs(5400)));
    let ids: Vec<_> = mx.reals.iter().map(|real| real.id.to_string()).collect();
    assert_eq!(ids, ["[2001:db8::11]:25", "[2001:db8::12]:25", "[2001:db8::13]:25", "10.0.0.1:25"]);
    let gue = Tunnel::Gue { port: 6080, checksum: TunnelChecksum::Csum };
    assert_eq!(mx.reals[0].settings.forward, Forward::Ipip(gue));
    assert_eq!((mx.reals[2].settings.weight.0, mx.reals[2].settings.lower_threshold), (10, 50));
    let plan = mx.reals[1].checks[0].clone();
    assert_eq!(plan.spec.target.to_string(), "[2001:db8::12]:2525");
    assert_eq!((plan.spec.kind.name(), plan.fall, plan.interval.as_secs()), ("connect", 4, 5));
    let gre = Tunnel::Gre { checksum: TunnelChecksum::None };
    assert_eq!(mx.reals[3].settings.forward, Forward::Ipip(gre));
    assert_eq!(mx.reals[3].settings.weight.0, 0);
    assert_eq!(mark.id, VirtualId::Fwmark { mark: 7, family: Family::V6 });
    assert_eq!((mark.name.as_str(), mark.reals[0].id.0.port()), ("fwmark-7-ipv6", 0));
    assert_eq!(mark.reals[0].checks, []);
}

/// What the `config` crate's own doors would take: each of these is a number, a boolean or a string to them.
#[test]
fn nothing_is_coerced() {
    let number = "a whole number from 0 to 65535";
    for (value, kind) in [
        ("\"5\"", "a string"),
        ("true", "a boolean"),
        ("5.9", "a fraction"),
        ("nan", "a fraction"),
        ("\"yes\"", "a string"),
        ("1979-05-27", "a date"),
    ] {
        let want = format!("5:10 weight: {value} is {kind}; {number}");
        let text = real_with(&format!("weight = {value}\naddress = \"10.0.0.11\""));
        assert_eq!(problems(&text), [want], "{text}");
    }
    each_has(&[
        (virtual_with("quiescent = 1"), "4:13 quiescent: 1 is a number; true or false"),
        (
            virtual_with("quiescent = \"yes\""),
            "4:13 quiescent: \"yes\" is a string; true or false, without quotes",
        ),
        (
            virtual_with("quiescent = \"true\""),
            "4:13 quiescent: \"true\" is a string; true or false, without quotes",
        ),
        (virtual_with("name = 10"), "4:8 name: 10 is a number; 1 to 64 letters, digits and . - _ : [ ]"),
        (
            virtual_with("scheduler_flags = \"port\""),
            "4:19 scheduler_flags: \"port\" is a string; a list such as [\"fallback\"]",
        ),
        (
            virtual_with("check = 5"),
            "4:9 check: 5 is a number; a table of \"type\", \"address\", \"port\", \"ehlo_name\", \"interval\", \"retry\", \"fall\", \"rise\", \"damping\", \"deadline\", \"connect_timeout\", \"banner_timeout\", \"ehlo_timeout\", \"quit_timeout\", \"banner\", \"banner_name\", \"require\", \"proxy_header\", \"tls\", \"auth\", \"mail\", \"data\", \"verdict\", \"connects_between\", \"request\", \"receive\", \"host\", \"method\", \"database\", \"secret_file\", \"secret\", \"command\"",
        ),
        (virtual_with("check.fall = [1]"), "4:14 fall: this is a list; a whole number from 1 to 100"),
        (virtual_with("protocol = {}"), "4:12 protocol: this is a table; \"tcp\" or \"udp\""),
        ("virtual = 1".into(), "1:11 virtual: 1 is a number; write [[virtual]]"),
        ("virtual = [1]".into(), "1:12 virtual: 1 is a number; write [[virtual]]"),
    ]);
}

#[test]
fn numbers_have_limits() {
    for value in
        ["70000", "65536", "-1", "99999999999999999999", "0xFFFFF", "170141183460469231731687303715884105728"]
    {
        let text = real_with(&format!("address = \"10.0.0.11\"\nweight = {value}"));
        assert_eq!(
            problems(&text),
            [format!("6:10 weight: {value} is out of range; a whole number from 0 to 65535")]
        );
    }
    for (value, weight) in [("0", 0), ("65535", 65_535), ("0x1F", 31), ("1_000", 1000), ("+5", 5)] {
        let config = farm(&real_with(&format!("address = \"10.0.0.11\"\nweight = {value}")));
        assert_eq!(config.virtuals[0].reals[0].settings.weight.0, weight);
    }
    let thresholds = |lines: &str| real_with(&format!("address = \"10.0.0.11\"\n{lines}"));
    each_has(&[
        (
            thresholds("upper_threshold = 4\nlower_threshold = 5"),
            "7:19 lower_threshold: 5 is above the upper_threshold, which is 4",
        ),
        (
            thresholds("lower_threshold = 5"),
            "6:19 lower_threshold: 5 is above the upper_threshold, which is 0",
        ),
        (virtual_with("check.rise = 0"), "4:14 rise: 0 is out of range; a whole number from 1 to 100"),
        (virtual_with("check.port = 0"), "4:14 port: 0 is out of range; a whole number from 1 to 65535"),
    ]);
}

#[test]
fn a_time_has_a_unit_and_limits() {
    let want = |value: &str, rest: &str| {
        (virtual_with(&format!("drain = {value}")), format!("4:9 drain: {value} {rest}"))
    };
    let form = "is not a time; write it like \"10s\", \"500ms\" or \"1h30m\", from 0s to 1d";
    for (text, want) in [
        want("10", "has no unit; write \"10s\" for seconds, from 0s to 1d"),
        want("\"10\"", "has no unit; write \"10s\" for seconds, from 0s to 1d"),
        want("\"10 parsecs\"", form),
        want("\"\"", form),
        want("\"-1s\"", form),
        want("\"2d\"", "is out of range; a time from 0s to 1d"),
        // Sums to exactly 2^64 s, at which the parser behind would panic.
        want("\"18446744073709551615s1000ms\"", form),
        want("5.5", "is a fraction; a time such as \"10s\" or \"500ms\", from 0s to 1d"),
    ] {
        assert_eq!(problems(&text), [want.replace("write \"\"10\"s\"", "write \"10s\"")]);
    }
    each_has(&[
        (
            virtual_with("persistence = \"1500ms\""),
            "4:15 persistence: \"1500ms\" is not in whole seconds, in which the kernel counts",
        ),
        (
            virtual_with("persistence = \"32d\""),
            "4:15 persistence: \"32d\" is out of range; a time from 1s to 31d",
        ),
        (
            virtual_with("check.interval = \"9ms\""),
            "4:18 interval: \"9ms\" is out of range; a time from 10ms to 1h",
        ),
        (
            text("resync = \"90m\"", "address = \"192.0.2.25:25\"", "address = \"10.0.0.11\""),
            "1:10 resync: \"90m\" is out of range; a time from 1s to 1h",
        ),
    ]);
    assert_eq!(farm(&virtual_with("drain = \"1h 30m\"")).virtuals[0].drain.as_secs(), 5400);
}

#[test]
fn a_word_is_one_of_a_list() {
    each_has(&[
        (
            virtual_with("protocol = \"tpc\""),
            "4:12 protocol: \"tpc\" is unknown; \"tcp\" or \"udp\"; did you mean \"tcp\"?",
        ),
        (
            virtual_with("scheduler = \"WLC\""),
            "4:13 scheduler: \"WLC\" is unknown; \"rr\", \"wrr\", \"lc\", \"wlc\", \"lblc\", \"lblcr\", \"dh\", \"sh\", \"sed\", \"nq\", \"fo\", \"ovf\", \"mh\" or \"twos\"; did you mean \"wlc\"?",
        ),
        (
            virtual_with("forward = \"nat\""),
            "4:11 forward: \"nat\" is unknown; \"gate\", \"masq\" or \"ipip\"",
        ),
        (
            virtual_with("proxy_protocol = \"v3\""),
            "4:18 proxy_protocol: \"v3\" is unknown; \"v1\" or \"v2\"; did you mean \"v1\"?",
        ),
        (
            virtual_with("check.type = \"htttp\""),
            "4:14 type: \"htttp\" is unknown; \"smtp\", \"submission\", \"smtps\", \"lmtp\", \"http\", \"https\", \"http_proxy\", \"pop\", \"pops\", \"imap\", \"imaps\", \"nntp\", \"ftp\", \"ldap\", \"ldaps\", \"dns\", \"mysql\", \"pgsql\", \"sip\", \"radius\", \"simpletcp\", \"oracle\", \"connect\", \"ping\", \"external\", \"on\" or \"off\"; did you mean \"http\"?",
        ),
        (
            virtual_with("scheduler = \"sh\"\nscheduler_flags = [\"fallback\", \"ports\"]"),
            "5:32 scheduler_flags: \"ports\" is unknown; \"fallback\" or \"port\"; did you mean \"port\"?",
        ),
        (
            virtual_with("name = \"a b\""),
            "4:8 name: \"a b\" is no good name; 1 to 64 letters, digits and . - _ : [ ]",
        ),
        (
            virtual_with("name = \"\""),
            "4:8 name: \"\" is no good name; 1 to 64 letters, digits and . - _ : [ ]",
        ),
    ]);
    for name in ["a b", "-a.example", "a..b", "[10.0.0]", "x\\r\\nMAIL", "m\u{fc}ller"] {
        let text = virtual_with(&format!("check.ehlo_name = \"{name}\""));
        assert_eq!(
            problems(&text),
            [format!(
                "4:19 ehlo_name: \"{name}\" is not a host name; a host name such as \"director.example.com\", or an address such as \"[192.0.2.1]\""
            )]
        );
    }
}

#[test]
fn an_unknown_key_is_answered_with_the_known_one() {
    each_has(&[
        (real_with("address = \"10.0.0.11\"\nwieght = 1"), "6:1 wieght: unknown key in [[virtual.real]]; did you mean \"weight\"?"),
        (real_with("address = \"10.0.0.11\"\nscheduler = 1"), "6:1 scheduler: unknown key in [[virtual.real]]; it belongs to [[virtual]]"),
        (text("wieght = 1", "address = \"192.0.2.25:25\"", "address = \"10.0.0.11\""), "1:1 wieght: unknown key in the top level; did you mean \"weight\" of [[virtual]] or [[virtual.real]]?"),
        (virtual_with("\"x.y\" = 1"), "4:1 x.y: unknown key in [[virtual]]; known are name, address, fwmark, family, protocol, scheduler, scheduler_flags, one_packet, forward, tunnel, persistence, netmask, quiescent, drain, floor, queue, latency, slow_start, on_exit, fallback, fallback_command, monitor_file, proxy_protocol, idle, vip_check, weight, canary, alert, check, real"),
        (text("\"a[0].b\" = 1", "address = \"192.0.2.25:25\"", "address = \"10.0.0.11\""), "1:1 a[0].b: unknown key in the top level; known are dataplane, http, log, log_format, log_to, supervised, autoreload, callback, execute, maintenance_dir, readd_quiescent, on_exit, resync, vip_marks, arp_watch, alert, check, virtual"),
        ("[virtal]\naddress = \"192.0.2.25:25\"\n[[virtual]]\naddress = \"192.0.2.25:25\"\nreal = [{ address = \"10.0.0.11\" }]".into(), "1:2 virtal: unknown key in the top level; did you mean \"virtual\"?"),
        (virtual_with("check.intervall = \"5s\""), "4:7 intervall: unknown key in check; did you mean \"interval\"?"),
        (virtual_with("forward = \"ipip\"\ntunnel = { type = \"gre\", prot = 1 }"), "5:26 prot: unknown key in tunnel; did you mean \"port\"?"),
    ]);
}

/// A key that is listed and never read would be accepted and do nothing.
#[test]
fn every_listed_key_is_read() {
    for (scope, base, prefix) in [
        (&TOP, "", ""),
        (&CHECK, "", "check."),
        (&VIRTUAL, "[[virtual]]\n", ""),
        (&CHECK, "[[virtual]]\n", "check."),
        (&FALLBACK, "[[virtual]]\n", "fallback."),
        (&TUNNEL, "[[virtual]]\n", "tunnel."),
        (&QUEUE, "[[virtual]]\n", "queue."),
        (&QUEUE_TLS, "[[virtual]]\n", "queue.tls."),
        (&LATENCY, "[[virtual]]\n", "latency."),
        (&REAL, "[[virtual]]\n[[virtual.real]]\n", ""),
        (&TUNNEL, "[[virtual]]\n[[virtual.real]]\n", "tunnel."),
    ] {
        for key in scope.keys {
            let family = if *key == "netmask" { "address = \"192.0.2.25:25\"\n" } else { "" };
            let found = problems(&format!("{base}{family}{prefix}{key} = 1979-05-27\n"));
            let said = format!(" {key}: 1979-05-27 is a date; ");
            assert!(found.iter().any(|problem| problem.contains(&said)), "{prefix}{key}: {found:#?}");
        }
    }
}

#[test]
fn a_virtual_is_an_address_or_a_mark() {
    let with = |lines: &str| text("", lines, "address = \"10.0.0.11\"");
    each_has(&[
        (with(""), "2:1 address is missing; write address = \"192.0.2.25:25\", or fwmark = 1"),
        (
            with("address = \"192.0.2.25\""),
            "3:11 address: \"192.0.2.25\" has no port; write \"192.0.2.25:25\"",
        ),
        (
            with("address = \"2001:db8::25\""),
            "3:11 address: \"2001:db8::25\" has no port; write \"[2001:db8::25]:25\"",
        ),
        (
            with("address = \"192.0.2.25:0\""),
            "3:11 address: \"192.0.2.25:0\" has port 0; a port from 1 to 65535",
        ),
        (
            with("address = \"mx.example.com:25\""),
            "3:11 address: \"mx.example.com:25\" is not an address and port such as \"192.0.2.25:25\" or \"[2001:db8::25]:25\"; host names are not resolved",
        ),
        (
            with("address = \"[fe80::1%2]:25\""),
            "3:11 address: \"[fe80::1%2]:25\" has a zone; none is needed for a global address",
        ),
        (
            with("address = \"[::ffff:192.0.2.25]:25\""),
            "3:11 address: \"[::ffff:192.0.2.25]:25\" is IPv4 written as IPv6; write the IPv4 address",
        ),
        (
            with("address = \"224.0.0.1:25\""),
            "3:11 address: \"224.0.0.1:25\" is multicast, broadcast or link-local; the address that clients connect to",
        ),
        (
            with("address = \"0.0.0.0:25\""),
            "3:11 address: \"0.0.0.0:25\" matches no packet in IPVS; one address, or dataplane = \"proxy\"",
        ),
        (
            with("address = \"192.0.2.25:25\"\nfwmark = 1"),
            "4:1 fwmark: a virtual has an address or a fwmark, not both",
        ),
        (
            with("address = \"192.0.2.25:25\"\nfamily = \"ipv6\""),
            "4:1 family: is for a fwmark only; an address has its own",
        ),
        (
            with("fwmark = 1\ncheck.port = 25\nprotocol = \"tcp\""),
            "5:1 protocol: is for an address only; a fwmark takes what is marked",
        ),
        (with("fwmark = 0"), "3:10 fwmark: 0 is out of range; a whole number from 1 to 4294967295"),
        (
            with("fwmark = 1"),
            "5:11 check: below a fwmark the server has no port of its own; write check = { port = 25 }",
        ),
    ]);
}

#[test]
fn virtuals_and_names_are_unique() {
    let two = |first: &str, second: &str| {
        let one = |lines: &str| format!("[[virtual]]\n{lines}\n[[virtual.real]]\naddress = \"10.0.0.11\"\n");
        one(first) + &one(second)
    };
    let (a, b) = ("address = \"192.0.2.25:25\"", "address = \"192.0.2.26:25\"");
    each_has(&[
        (two(a, a), "6:11 virtual: TCP 192.0.2.25:25 is in line 2 already; each virtual once"),
        (
            two(a, &format!("{b}\nname = \"192.0.2.25:25\"")),
            "7:8 name: 192.0.2.25:25 is in line 2 already; each name once",
        ),
    ]);
    let udp = format!("{a}\nprotocol = \"udp\"\ncheck.type = \"on\"");
    let config = farm(&two(a, &udp));
    assert_eq!(config.virtuals[1].name, "192.0.2.25:25-udp");
}

#[test]
fn a_server_is_one_address_or_a_range() {
    let at = |address: &str| real_with(&format!("address = \"{address}\""));
    let form = "is not an address such as \"10.0.0.11\", \"10.0.0.11:25\", \"[2001:db8::11]:25\" or \"10.0.0.11-10.0.0.14\"; host names are not resolved";
    for bad in [
        "mx-1.example.com",
        "",
        "10.0.0.11-",
        "10.0.0",
        "10.0.0.11:99999",
        "[10.0.0.11]:25",
        "10.0.0.1-10.0.0.2-10.0.0.3",
        "010.0.0.1",
    ] {
        assert_eq!(problems(&at(bad)), [format!("5:11 address: \"{bad}\" {form}")]);
    }
    each_has(&[
        (real_with("weight = 1"), "4:1 address is missing; write address = \"10.0.0.11\""),
        (
            at("10.0.0.14-10.0.0.11"),
            "5:11 address: \"10.0.0.14-10.0.0.11\" runs backwards; the lower address first",
        ),
        (
            at("10.0.0.0-10.0.1.0"),
            "5:11 address: \"10.0.0.0-10.0.1.0\" is too long; at most 256 servers in one range",
        ),
        (
            at("10.0.0.11-2001:db8::1"),
            "5:11 address: \"10.0.0.11-2001:db8::1\" mixes IPv4 and IPv6; both ends of one family",
        ),
        (
            at("10.0.0.11:25-10.0.0.12:25"),
            "5:11 address: \"10.0.0.11:25-10.0.0.12:25\" has a port in the middle; write it once, at the end",
        ),
        (at("224.0.0.9"), "5:11 address: 224.0.0.9 is a multicast address; the address of one server"),
        (at("0.0.0.0"), "5:11 address: 0.0.0.0 is no address at all; the address of one server"),
        (
            at("255.255.255.255"),
            "5:11 address: 255.255.255.255 is the broadcast address; the address of one server",
        ),
        (at("fe80::1"), "5:11 address: fe80::1 is a link-local address; the address of one server"),
        (at("10.0.0.11:0"), "5:11 address: 10.0.0.11:0 has port 0; a port from 1 to 65535"),
        (
            at("192.0.2.25"),
            "5:11 address: 192.0.2.25:25 is the virtual itself; its connections would go round in a circle",
        ),
        (real_with("address = \"10.0.0.11:25\"\nport = 25"), "6:1 port: is in the address already"),
        (
            format!("{}[[virtual.real]]\naddress = \"10.0.0.13:25\"\n", at("10.0.0.11-10.0.0.14")),
            "7:11 address: 10.0.0.13:25 is in line 5 already; each server once",
        ),
        (
            "[[virtual]]\naddress = \"192.0.2.25:25\"\n".into(),
            "1:1 this virtual has no real server; write [[virtual.real]] and address = \"10.0.0.11\"",
        ),
        (
            "[[virtual]]\naddress = \"192.0.2.25:25\"\n[virtual.real]\naddress = \"10.0.0.11\"\n".into(),
            "3:1 real: there can be many; write [[virtual.real]] with double brackets",
        ),
    ]);
    for (address, count) in
        [("127.0.0.1", 1), ("10.0.0.11:25", 1), ("10.0.0.0-10.0.0.255", 256), ("10.0.0.11-10.0.0.12:25", 2)]
    {
        assert_eq!(farm(&at(address)).virtuals[0].reals.len(), count, "{address}");
    }
    let v6 = |address: &str| text("", "address = \"[2001:db8::25]:25\"", &format!("address = \"{address}\""));
    for (address, count) in [
        ("2001:db8::11", 1),
        ("[2001:db8::11]:25", 1),
        ("[2001:db8::11]-[2001:db8::12]:25", 2),
        ("2001:db8::ff-2001:db8::100", 2),
    ] {
        assert_eq!(farm(&v6(address)).virtuals[0].reals.len(), count, "{address}");
    }
}

#[test]
fn a_text_of_a_thousand_unknown_keys_gets_no_advice() {
    let keys: String = (0..1001).map(|n| format!("lo{n:04} = 1\n")).collect();
    let found = problems(&format!("{keys}{}", virtual_with("")));
    assert_eq!(found.len(), 1001);
    assert!(found[999].starts_with("1000:1 lo0999: unknown key in the top level; "), "{}", found[999]);
    assert_eq!(found[1000], "1001:1 lo1000: unknown key in the top level");
}

#[test]
fn a_farm_has_an_end() {
    let ranges: String =
        (0..=64).map(|n| format!("[[virtual.real]]\naddress = \"10.1.{n}.0-10.1.{n}.255\"\n")).collect();
    let text = format!("[[virtual]]\naddress = \"192.0.2.25:25\"\n{ranges}");
    assert_eq!(problems(&text), ["132:11 address: more than 16384 real servers in one file"]);
}

#[test]
fn a_route_must_lead_to_the_server() {
    let proxy = |lines: &str| text("dataplane = \"proxy\"", "address = \"192.0.2.25:25\"", lines);
    each_has(&[
        (
            real_with("address = \"10.0.0.11:2525\""),
            "5:11 address: port 2525 is not the service port 25, and forward = \"gate\" cannot change it; use forward = \"masq\" or dataplane = \"proxy\"",
        ),
        (
            real_with("address = \"10.0.0.11:2525\"\nforward = \"ipip\""),
            "5:11 address: port 2525 is not the service port 25, and forward = \"ipip\" cannot change it; use forward = \"masq\" or dataplane = \"proxy\"",
        ),
        (
            real_with("address = \"2001:db8::11\""),
            "5:11 address: 2001:db8::11 is of another family than the virtual; use forward = \"ipip\" or dataplane = \"proxy\"",
        ),
        (virtual_with("tunnel = { type = \"gre\" }"), "4:1 tunnel: is for forward = \"ipip\" only"),
        (
            virtual_with("forward = \"ipip\"\ntunnel = { type = \"gue\" }"),
            "5:10 tunnel: port is missing; type \"gue\" needs the UDP port of the real server",
        ),
        (
            virtual_with("forward = \"ipip\"\ntunnel = { port = 5 }"),
            "5:10 tunnel: type is missing; \"ipip\", \"gue\" or \"gre\"",
        ),
        (
            virtual_with("forward = \"ipip\"\ntunnel = { type = \"gre\", port = 5 }"),
            "5:26 port: is for tunnels of type \"gue\" only",
        ),
        (
            virtual_with("forward = \"ipip\"\ntunnel = { type = \"ipip\", checksum = \"csum\" }"),
            "5:27 checksum: is for tunnels of type \"gue\" and \"gre\" only",
        ),
        (
            text("dataplane = \"proxy\"", "address = \"0.0.0.0:25\"", "address = \"127.0.0.1\""),
            "5:11 address: 127.0.0.1:25 is the virtual itself; its connections would go round in a circle",
        ),
    ]);
    farm(&real_with("address = \"10.0.0.11:2525\"\nforward = \"masq\""));
    farm(&real_with("address = \"2001:db8::11\"\nforward = \"ipip\""));
    farm(&proxy("address = \"10.0.0.11:2525\""));
    farm(&proxy("address = \"[2001:db8::11]:2525\""));
}

#[test]
fn a_check_begins_as_the_sessions_of_the_proxy_do() {
    use checks::Kind;
    use checks::proxy_header::Version;
    use checks::smtp::ProxyHeader;
    let header = |text: &str| {
        let virtuals = farm(text).virtuals;
        match &virtuals[0].reals[0].checks[0].spec.kind {
            Kind::Smtp(spec) => spec.proxy,
            other => panic!("smtp is the default: {other:?}"),
        }
    };
    assert_eq!(header(&virtual_with("")), None);
    assert_eq!(header(&virtual_with("proxy_protocol = \"v1\"")), Some(ProxyHeader::Proxy(Version::V1)));
    assert_eq!(header(&virtual_with("proxy_protocol = \"v2\"")), Some(ProxyHeader::Local));
    assert_eq!(header(&virtual_with("proxy_protocol = \"v2\"\ncheck = { port = 2525 }")), None);
    let own = virtual_with("proxy_protocol = \"v2\"\ncheck = { proxy_header = \"v2\" }");
    assert_eq!(header(&own), Some(ProxyHeader::Proxy(Version::V2)));
}

#[test]
fn a_fallback_is_another_server() {
    each_has(&[
        (
            virtual_with("fallback = \"10.0.0.11\""),
            "4:12 fallback: 10.0.0.11:25 is a real server in line 6 already; another server",
        ),
        (
            virtual_with("fallback = \"127.0.0.1:2525\""),
            "4:12 fallback: port 2525 is not the service port 25, and forward = \"gate\" cannot change it; use forward = \"masq\" or dataplane = \"proxy\"",
        ),
        (
            virtual_with("fallback = { forward = \"gate\" }"),
            "4:12 fallback: address is missing; write fallback = \"127.0.0.1:25\"",
        ),
        (
            virtual_with("fallback = \"10.0.0.12-10.0.0.13\""),
            "4:12 fallback: \"10.0.0.12-10.0.0.13\" is a range; one server",
        ),
    ]);
    let masq = virtual_with("forward = \"masq\"\nfallback = \"10.0.0.77:2525\"");
    assert_eq!(farm(&masq).virtuals[0].fallback.unwrap().1.forward, Forward::Masq, "it has no VIP either");
    let (id, settings) = farm(&virtual_with("fallback = \"127.0.0.1\"")).virtuals[0].fallback.unwrap();
    assert_eq!(
        (id.to_string(), settings.forward, settings.weight.0),
        ("127.0.0.1:25".into(), Forward::Gate, 1)
    );
}

#[test]
fn options_go_with_what_they_are_options_of() {
    each_has(&[
        (
            virtual_with("scheduler_flags = [\"port\"]"),
            "4:1 scheduler_flags: is for the schedulers \"sh\" and \"mh\" only",
        ),
        (virtual_with("one_packet = true"), "4:1 one_packet: is for protocol = \"udp\" only"),
        (virtual_with("netmask = \"255.255.255.0\""), "4:1 netmask: is for a virtual with persistence only"),
        (
            virtual_with("persistence = \"5m\"\nnetmask = \"0.0.0.0\""),
            "5:11 netmask: \"0.0.0.0\" makes all clients one; a mask such as \"255.255.255.0\"",
        ),
        (
            virtual_with("persistence = \"5m\"\nnetmask = 24"),
            "5:11 netmask: 24 is a number; a mask such as \"255.255.255.0\"",
        ),
        (
            text(
                "",
                "fwmark = 1\nfamily = \"ipv6\"\npersistence = \"5m\"\nnetmask = 129\ncheck.port = 25",
                "address = \"2001:db8::1\"",
            ),
            "6:11 netmask: 129 is out of range; a whole number from 1 to 128",
        ),
    ]);
    let masked =
        farm(&virtual_with("persistence = \"5m\"\nnetmask = \"255.0.255.0\"")).virtuals[0].settings.clone();
    assert_eq!(masked.persistence.unwrap().granularity, Granularity::V4("255.0.255.0".parse().unwrap()));
    let flags = |lines: &str| farm(&virtual_with(lines)).virtuals[0].settings.flags;
    assert_eq!(flags("scheduler = \"mh\""), SchedulerFlags::FALLBACK);
    assert_eq!(flags("scheduler = \"sh\"\nscheduler_flags = []"), SchedulerFlags::NONE);
    farm(&virtual_with("weight = 0"));
}

#[test]
fn a_dataplane_is_not_asked_for_what_it_cannot_do() {
    let with = |dataplane: &str, lines: &str| {
        text(
            &format!("dataplane = \"{dataplane}\""),
            &format!("address = \"192.0.2.25:25\"\n{lines}"),
            "address = \"10.0.0.11\"",
        )
    };
    each_has(&[
        (
            with("proxy", "persistence = \"5m\""),
            "4:1 persistence: the proxy cannot; it needs dataplane = \"ipvs\"",
        ),
        (
            with("proxy", "scheduler = \"mh\""),
            "4:13 scheduler: \"mh\" is not in the proxy; it has rr, wrr, lc, wlc, sed, nq, sh",
        ),
        (
            with("proxy", "protocol = \"udp\"\ncheck.type = \"on\""),
            "4:12 protocol: \"udp\" is nothing that the proxy can carry; it needs dataplane = \"ipvs\"",
        ),
        (
            text("dataplane = \"proxy\"", "fwmark = 1\ncheck.port = 25", "address = \"10.0.0.11\""),
            "3:1 fwmark: the proxy cannot; it needs dataplane = \"ipvs\"",
        ),
        (
            with("ipvs", "idle = \"5m\""),
            "4:1 idle: the kernel cannot; it needs dataplane = \"proxy\" or \"auto\"",
        ),
        (
            with("ipvs", "proxy_protocol = \"v1\""),
            "4:1 proxy_protocol: the kernel cannot; it needs dataplane = \"proxy\" or \"auto\"",
        ),
        (
            with("proxi", "idle = \"5m\""),
            "1:13 dataplane: \"proxi\" is unknown; \"auto\", \"ipvs\" or \"proxy\"; did you mean \"proxy\"?",
        ),
    ]);
}

#[test]
fn a_check_uses_only_what_its_type_knows() {
    let udp = |lines: &str| virtual_with(&format!("protocol = \"udp\"\n{lines}"));
    each_has(&[
        (
            virtual_with("check = { type = \"connect\", ehlo_name = \"a\" }"),
            "4:29 ehlo_name: is for checks of type \"smtp\", \"submission\", \"smtps\" and \"lmtp\" only",
        ),
        (
            virtual_with("check = { type = \"on\", fall = 2 }"),
            "4:24 fall: has no use here: type \"on\" is never checked",
        ),
        (
            udp(""),
            "2:1 check: a udp virtual needs a type of check: \"dns\", \"radius\", \"sip\", \"ping\", \"external\", \"connect\" (a TCP connection) or \"on\" (not checked)",
        ),
        (
            udp("check.type = \"smtp\""),
            "5:14 type: mail cannot be checked on the udp virtual of line 2; \"connect\" or \"on\"",
        ),
    ]);
    // What is inherited is no mistake where the type changes.
    farm(&text(
        "check.ehlo_name = \"a\"\ncheck.fall = 2",
        "address = \"192.0.2.25:25\"\ncheck.type = \"on\"",
        "address = \"10.0.0.11\"",
    ));
    // A deadline longer than the interval delays the next check.
    farm(&virtual_with("check = { interval = \"1s\", deadline = \"1m\" }"));
    let config = farm(&udp("check.type = \"connect\""));
    assert_eq!(config.virtuals[0].reals[0].checks[0].spec.kind.name(), "connect");
    assert!(matches!(config.virtuals[0].id, VirtualId::Address { protocol: Protocol::Udp, .. }));
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_file() {
    let text = "log = 1\nhttp = true\n[[virtual]]\naddress = \"x\"\nscheduler = \"x\"\n[[virtual.real]]\naddress = \"y\"\nweight = -1\n\
                [[virtual]]\naddress = \"192.0.2.25:25\"\nidle = 1\n[[virtual.real]]\nfoo = 1\n";
    let places: Vec<_> = problems(text).iter().map(|p| p.split(' ').next().unwrap().to_string()).collect();
    assert_eq!(places, ["1:7", "2:8", "4:11", "5:13", "7:11", "8:10", "11:8", "12:1", "13:1"]);
}

#[test]
fn syntax_errors_do_not_hide_the_rest_of_the_file() {
    let text = "[[virtual]]\naddress \"192.0.2.25:25\"\nscheduler = \"x\"\none_packet = true\n[[virtual.real]\nweight = -1\n\
                [[virtual.real]]\nweight = -2\nweight = -3\nforward = gate\n";
    assert_eq!(
        problems(text).iter().map(|p| p.split(';').next().unwrap()).collect::<Vec<_>>(),
        [
            "2:9 not TOML: key with no value, expected `=`",
            "3:13 scheduler: \"x\" is unknown",
            "5:16 not TOML: unclosed array table, expected `]`",
            "8:10 weight: -2 is out of range",
            "9:1 weight: is set twice",
            "10:11 not TOML: string values must be quoted, expected literal string",
        ]
    );
}

#[test]
fn a_file_without_a_virtual_is_shown_one_that_works() {
    for text in ["", "# nothing\n", "log = \"info\"\n"] {
        let [message] = &problems(text)[..] else { panic!() };
        let example = message.strip_prefix("there is no virtual; the smallest file is:\n").unwrap();
        assert_eq!(farm(example).virtuals[0].reals.len(), 2);
    }
}

fn with_variables(variables: &[(&str, &str)], text: &str) -> Result<Config, Vec<Diagnostic>> {
    let variables: Vec<_> = variables.iter().map(|(n, v)| ((*n).to_string(), (*v).to_string())).collect();
    lower(text, &variables, HOST)
}

#[test]
fn the_environment_overrides_a_fixed_list() {
    let file = text("log = 5\nresync = \"5s\"", "address = \"192.0.2.25:25\"", "address = \"10.0.0.11\"");
    let variables = [
        ("SMTP_DIRECTOR__DATAPLANE", "proxy"),
        ("SMTP_DIRECTOR__HTTP", "off"),
        ("SMTP_DIRECTOR__LOG", "trace"),
        ("SMTP_DIRECTOR__LOG_FORMAT", "json"),
        ("SMTP_DIRECTOR__AUTORELOAD", "true"),
        ("SMTP_DIRECTOR__ON_EXIT", "remove"),
        ("SMTP_DIRECTOR__RESYNC", "7s"),
        ("PATH", "/bin"),
        ("SMTP_DIRECTORY", "x"),
    ];
    let config = with_variables(&variables, &file).unwrap();
    assert_eq!((config.dataplane, config.http), (DataplaneChoice::Proxy, None));
    assert_eq!((config.log, config.log_format), (LogLevel::Trace, LogFormat::Json));
    assert_eq!((config.autoreload, config.on_exit), (true, OnExit::Remove));
    assert_eq!(config.resync.as_secs(), 7);
}

#[test]
fn a_variable_that_means_nothing_is_an_error() {
    let file = real_with("address = \"10.0.0.11\"");
    for (name, value, want) in [
        (
            "SMTP_DIRECTOR__VIRTUAL",
            "x",
            "unknown variable; the environment can set SMTP_DIRECTOR__DATAPLANE, SMTP_DIRECTOR__HTTP, ",
        ),
        ("SMTP_DIRECTOR__VIRTUAL__0__NAME", "x", "unknown variable; "),
        ("smtp_director__log", "info", "unknown variable; "),
        ("SMTP_DIRECTOR__", "x", "unknown variable; "),
        ("SMTP_DIRECTOR__AUTORELOAD", "yes", "autoreload: \"yes\" is unknown; true or false"),
        ("SMTP_DIRECTOR__LOG", "", "log: \"\" is unknown; \"error\""),
        ("SMTP_DIRECTOR__RESYNC", "5", "resync: \"5\" has no unit; write \"5s\" for seconds, from 1s to 1h"),
    ] {
        let problems = with_variables(&[(name, value)], &file).unwrap_err();
        let [Diagnostic { place: Some(Place::Environment(place)), message }] = &problems[..] else {
            panic!("{problems:?}")
        };
        assert_eq!(place, name);
        assert!(message.starts_with(want), "{message}");
    }
}

proptest! {
    #[test]
    fn any_text_is_a_farm_or_has_problems(text in "\\PC{0,200}") {
        if let Err(problems) = lower(&text, &[], HOST) {
            prop_assert!(!problems.is_empty());
        }
    }

    /// Lines that are nearly right reach further than noise.
    #[test]
    fn any_mix_of_lines_is_a_farm_or_has_problems_in_order(
        lines in proptest::collection::vec(prop_oneof![
            Just("[[virtual]]".to_string()),
            Just("[[virtual.real]]".to_string()),
            Just("[virtual.check]".to_string()),
            ("address|fwmark|weight|check|tunnel|fallback|persistence|netmask|scheduler|protocol|dataplane|drain",
             "[0-9]{1,12}|\"[0-9.:-]{0,20}\"|\"(gate|udp|sh|proxy|5m|10\\.0\\.0\\.1-10\\.0\\.0\\.9)\"|\\{ (type|port|address) = (1|\"gue\") \\}|\\[|\"|true")
                .prop_map(|(key, value)| format!("{key} = {value}")),
        ], 0..30)
    ) {
        let text = lines.join("\n");
        let first = lower(&text, &[], HOST);
        if let Err(problems) = &first {
            prop_assert!(!problems.is_empty());
            let starts: Vec<_> = problems.iter().filter_map(|p| match &p.place {
                Some(Place::Text(span)) => Some(span.start),
                _ => None,
            }).collect();
            prop_assert!(starts.is_sorted());
            let report = crate::config::diagnostic::render("f", &text, problems);
            prop_assert!(report.contains("error: "));
        }
        prop_assert_eq!(lower(&text, &[], HOST), first, "the same text, the same answer");
    }

    #[test]
    fn any_time_is_read_without_a_panic(time in "([0-9]{0,21} ?(ns|us|ms|s|m|h|d|w|M|y|\\.)?){0,6}") {
        let _ = problems(&virtual_with(&format!("drain = \"{time}\"")));
    }
}

#[test]
fn the_usual_weights_fit_the_slots_of_sh() {
    for (scheduler, expected) in [("wlc", 100), ("sh", 1), ("mh", 100)] {
        let config = farm(&virtual_with(&format!("scheduler = \"{scheduler}\"")));
        assert_eq!(config.virtuals[0].reals[0].settings.weight.0, expected, "{scheduler}");
    }
}

#[test]
fn a_probe_through_the_vip_needs_a_vip_that_is_on_the_server() {
    let with = |top: &str, lines: &str, real: &str| text(top, &format!("{lines}\nvip_check = true"), real);
    let (address, real) = ("address = \"192.0.2.25:25\"", "address = \"10.0.0.11\"");
    let none = "4:13 vip_check: no real server here can be asked through the VIP: that is for those with a check and forward = \
                \"gate\" or \"ipip\", of the family of the virtual";
    each_has(&[
        (
            with("dataplane = \"proxy\"", address, real),
            "4:1 vip_check: no VIP is on the real servers of a proxy; it needs dataplane = \"ipvs\"",
        ),
        (
            with("", "fwmark = 7", &format!("{real}\ncheck = {{ port = 25 }}")),
            "4:1 vip_check: a fwmark does not say which address a client connects to",
        ),
        (with("", address, &format!("{real}\nforward = \"masq\"")), none),
        (with("", address, &format!("{real}\ncheck = {{ type = \"on\" }}")), none),
        (with("", address, "address = \"2001:db8::11\"\nforward = \"ipip\""), none),
        (
            with("vip_marks = 0", address, real),
            "1:13 vip_marks: 0 is out of range; a whole number from 1 to 4294901760",
        ),
    ]);
    let config = farm(&with("", address, real));
    let mark = config.virtuals[0].reals[0].checks[1].spec.via.unwrap().mark;
    let taken = format!(
        "{}[[virtual]]\nfwmark = {mark}\n[[virtual.real]]\n{real}\ncheck = {{ port = 25 }}\n",
        with("", address, real)
    );
    let said = problems(&taken);
    assert_eq!(
        said,
        [format!("8:10 fwmark: FWM {mark} is needed for vip_check; another one, or another vip_marks")]
    );
}
