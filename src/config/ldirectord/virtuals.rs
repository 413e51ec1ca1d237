//! A virtual: what it is, how it balances, who stands in for its servers.
//!
//! Owns the directives below `virtual` but those of servers and checks. Refuses to know what stands above.

use std::net::SocketAddr;

use super::address::{host, port, split_port, written};
use super::globals::{on_exit, put_alert};
use super::parse::{Section, Statement};
use super::reals::lower_reals;
use super::said::{Said, last_of};
use super::server::{self, Fallback};
use super::service::{Of, Service};
use super::tree::{Node, Table};
use crate::config::diagnostic::printable;
use crate::model::{Family, Protocol};

/// What a virtual is.
struct Identity {
    family: Family,
    address: Option<SocketAddr>,
    mark: u64,
    protocol: Protocol,
    note: Option<String>,
}

/// Reads what stands behind `virtual=`. `None` where it is wrong, which was reported.
fn identify(said: &Said<'_>, head: &Statement) -> Option<Identity> {
    let family = if head.directive.name == "virtual" { Family::V4 } else { Family::V6 };
    let text = said.value(head);
    let wrong =
        |message: String| said.problem(head.value.clone(), format!("{}: {message}", head.directive.name));
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        if let Some(statement) = said.below("protocol").filter(|statement| said.value(statement) != "fwm") {
            said.wrong(statement, "is not for a firewall mark; it takes what is marked: fwm");
        }
        let mark = text.parse().ok().filter(|mark| *mark > 0);
        if mark.is_none() {
            wrong(format!("\"{text}\" is no firewall mark; a number from 1"));
        }
        return Some(Identity { family, address: None, mark: mark?, protocol: Protocol::Tcp, note: None });
    }
    let (host_text, port_text) = split_port(text).map_err(wrong).ok()?;
    let Some(port_text) = port_text else {
        let shown = printable(text);
        wrong(format!(
            "\"{shown}\" has no port; ldirectord takes the number that it begins with for a firewall mark"
        ));
        return None;
    };
    let protocol = match said.below("protocol").map(|statement| (statement, said.value(statement))) {
        None if matches!(port_text, "53" | "domain") => Protocol::Udp,
        None | Some((_, "tcp")) => Protocol::Tcp,
        Some((_, "udp")) => Protocol::Udp,
        Some((statement, _)) => {
            said.wrong(statement, "is not tcp or udp");
            Protocol::Tcp
        }
    };
    let found = host(host_text, family, said.names).map_err(wrong);
    let port = port(port_text, Some(protocol), said.names).map_err(wrong);
    let (found, port) = (found.ok()?, port.ok()?);
    Some(Identity {
        family,
        address: Some(SocketAddr::new(found.ip, port)),
        mark: 0,
        protocol,
        note: found.note,
    })
}

pub(super) fn lower_virtual(
    above: &Said<'_>,
    section: &Section,
    fallbacks: &[Option<Fallback>; 2],
) -> Option<Table> {
    let head = &section.head;
    let is_mark = above.value(head).bytes().all(|byte| byte.is_ascii_digit());
    let said = Said { head: Some(head), body: last_of(&section.body), is_address: !is_mark, ..*above };
    said.look_at(&section.body);
    let identity = identify(&said, head);
    let mut table = said.table(head.value.clone());
    if let Some(identity) = &identity {
        put_identity(head, identity, &mut table);
    }
    let family = if head.directive.name == "virtual" { Family::V4 } else { Family::V6 };
    let (protocol, vport) = match &identity {
        Some(identity) => (identity.protocol, identity.address.map(|address| address.port())),
        None => (Protocol::Tcp, None),
    };
    put_balance(&said, family, protocol, &mut table);
    let (quiescent, from) = said.near_flag("quiescent", false);
    table.put_found(from, "quiescent", Node::Flag(quiescent));
    table.put_default("floor", Node::text("off"));
    if let Some(statement) = said.below("cleanstop") {
        table.put(statement, "on_exit", on_exit(said.flag(statement)));
    }
    put_fallback(&said, (family, protocol, vport), fallbacks, &mut table);
    if let Some(statement) = said.nearest("fallbackcommand") {
        table.put(statement, "fallback_command", command(said.value(statement)));
    }
    if let Some(statement) = said.below("monitorfile") {
        table.put(statement, "monitor_file", Node::text(said.value(statement)));
    }
    let mut alert = said.table(head.value.clone());
    put_alert(&said, &mut alert, Said::below);
    if !alert.entries.is_empty() {
        table.put_default("alert", Node::Table(alert));
    }
    let of = Of { family, port: vport, protocol };
    let service = Service::read(&said, of, said.table(head.value.clone()));
    let reals = lower_reals(&said, section, (&service, vport, family));
    table.put_default("check", Node::Table(service.table));
    if reals.is_empty() && !section.body.iter().any(|one| one.directive.name.starts_with("real")) {
        said.wrong_of_virtual("this virtual has no real server; write real=10.0.0.11:25 gate below it");
    }
    for statement in &section.body {
        let name = statement.directive.name;
        let of_other_family = match family {
            Family::V4 => matches!(name, "real6" | "fallback6"),
            Family::V6 => matches!(name, "real" | "fallback"),
        };
        if of_other_family {
            let word = name.trim_end_matches('6');
            let (want, head) = if family == Family::V4 {
                (word.to_owned(), "virtual")
            } else {
                (format!("{word}6"), "virtual6")
            };
            said.problem(statement.key.clone(), format!("{name}: not below {head}; write {want}"));
        }
    }
    table.put_default("real", Node::Tables(reals));
    let is_real = |statement: &&Statement| !statement.directive.name.starts_with("real");
    table.keep_comments(std::iter::once(head).chain(section.body.iter().filter(is_real)));
    identity.map(|_| table)
}

fn put_identity(head: &Statement, identity: &Identity, table: &mut Table) {
    match identity.address {
        Some(address) => {
            table.put(head, "address", Node::text(address.to_string()));
            if let Some(note) = &identity.note {
                table.note(note);
            }
            if identity.protocol == Protocol::Udp {
                table.put(head, "protocol", Node::text("udp"));
            }
        }
        None => {
            table.put(head, "fwmark", Node::Whole(identity.mark));
            if identity.family == Family::V6 {
                table.put(head, "family", Node::text("ipv6"));
            }
        }
    }
}

fn put_balance(said: &Said<'_>, family: Family, protocol: Protocol, table: &mut Table) {
    let scheduler = said.below("scheduler");
    let word = scheduler.map_or("wrr", |statement| said.value(statement));
    table.put_found(scheduler, "scheduler", Node::text(word));
    let hashes = matches!(word, "sh" | "mh");
    match said.below("schedflags") {
        Some(statement) => {
            let mut flags = Vec::new();
            for flag in said.value(statement).split(',') {
                match flag.strip_prefix(word).unwrap_or(flag) {
                    "-fallback" | "flag-1" => flags.push(Node::text("fallback")),
                    "-port" | "flag-2" => flags.push(Node::text("port")),
                    "flag-3" => {}
                    _ => {
                        let known = "sh-fallback, sh-port, mh-fallback, mh-port, or flag-1 to flag-3";
                        said.wrong(statement, &format!("are no flags of this scheduler; {known}"));
                        break; // once: the value may be long, and all of it wrong
                    }
                }
            }
            if hashes {
                table.put(statement, "scheduler_flags", Node::List(flags));
            } else {
                table.note(format!("schedflags: {word} looks at none"));
            }
        }
        // There, no flag is set unless told.
        None if hashes => table.put_default("scheduler_flags", Node::List(Vec::new())),
        None => {}
    }
    if let Some(statement) = said.below("ops")
        && said.flag(statement)
    {
        if protocol == Protocol::Udp && said.is_address {
            table.put(statement, "one_packet", Node::Flag(true));
        } else {
            table.note("ops=yes: for udp only");
        }
    }
    let persistent = said.below("persistent").and_then(|one| said.number(one).map(|seconds| (one, seconds)));
    if let Some((statement, seconds)) = persistent {
        table.put(statement, "persistence", Node::seconds(seconds));
    }
    if let Some(statement) = said.below("netmask") {
        let text = said.value(statement);
        let node = match family {
            Family::V4 if text.parse::<std::net::Ipv4Addr>().is_ok() => Some(Node::text(text)),
            Family::V6 => text.parse().ok().filter(|prefix| (1..=128).contains(prefix)).map(Node::Whole),
            Family::V4 => None,
        };
        match node {
            None => said.wrong(
                statement,
                "is no mask such as 255.255.255.0, or for IPv6 a prefix length from 1 to 128",
            ),
            Some(node) if persistent.is_some() => table.put(statement, "netmask", node),
            Some(_) => table.note(format!("netmask={text}: for a virtual that is persistent only")),
        }
    }
}

pub(super) fn read_fallback(
    said: &Said<'_>,
    statement: &Statement,
    wanted: (Family, Option<Protocol>),
) -> Option<Fallback> {
    let fallback = server::fallback(said.value(statement), wanted, said.names);
    fallback.map_err(|wrong| said.wrong_inside(statement, wrong)).ok()
}

fn put_fallback(
    said: &Said<'_>,
    (family, protocol, vport): (Family, Protocol, Option<u16>),
    fallbacks: &[Option<Fallback>; 2],
    table: &mut Table,
) {
    let (name, global) = match family {
        Family::V4 => ("fallback", &fallbacks[0]),
        Family::V6 => ("fallback6", &fallbacks[1]),
    };
    let own = said.below(name);
    let fallback = match own {
        Some(statement) => read_fallback(said, statement, (family, Some(protocol))),
        None => global.clone(),
    };
    let (Some(fallback), Some(source)) = (fallback, said.nearest(name)) else { return };
    let forced = vport.filter(|_| fallback.forward != "masq");
    let port = forced.or(fallback.port.filter(|port| *port > 0));
    let mut inner = said.table(source.value.clone());
    inner.put(source, "address", Node::Text(written(fallback.ip, port)));
    inner.put(source, "forward", Node::text(fallback.forward));
    table.put(source, "fallback", Node::Table(inner));
    if let Some(note) = fallback.note {
        table.note(note);
    }
    if forced.is_some() && fallback.port.is_some_and(|port| forced != Some(port)) {
        table.note(format!("{} cannot change the port: it is that of the virtual", fallback.forward));
    }
}

/// A command line as a list of words; by a shell where it is more than words.
fn command(text: &str) -> Node {
    let plain = |c: char| c.is_ascii_alphanumeric() || " \t/._-+=:,@%".contains(c);
    let words: Vec<&str> = match text.chars().all(plain) {
        true => text.split([' ', '\t']).filter(|word| !word.is_empty()).collect(),
        // The arguments that are added at each call follow the name of the script.
        false => {
            let script = format!("{text} \"$@\"");
            return Node::List(["/bin/sh", "-c", &script, "sh"].map(Node::text).to_vec());
        }
    };
    match words.as_slice() {
        [word] => Node::text(*word),
        words => Node::List(words.iter().map(|word| Node::text(*word)).collect()),
    }
}
