//! The servers of a virtual.
//!
//! Owns what `real` becomes: address, port in the table and port of the check. Refuses to know how a check is made.

use super::address::written;
use super::parse::{Section, Statement};
use super::said::Said;
use super::server::{self, Real};
use super::service::Service;
use super::texts::parted;
use super::tree::{Node, Table};
use crate::model::{Family, Protocol};

pub(super) fn lower_reals(
    said: &Said<'_>,
    section: &Section,
    (service, vport, family): (&Service, Option<u16>, Family),
) -> Vec<Table> {
    let name = if family == Family::V4 { "real" } else { "real6" };
    let mut tables = Vec::new();
    for statement in section.body.iter().filter(|statement| statement.directive.name == name) {
        match server::real(said.value(statement), family, said.names) {
            Ok(real) => tables.push(lower_real(said, statement, (&real, service, vport))),
            Err(wrong) => said.wrong_inside(statement, wrong),
        }
    }
    tables
}

fn lower_real(
    said: &Said<'_>,
    statement: &Statement,
    (real, service, vport): (&Real, &Service, Option<u16>),
) -> Table {
    let mut table = said.table(statement.value.clone());
    let port = match vport {
        // Only masq can change the port; the kernel gets that of the virtual whatever is written.
        Some(_) if real.forward != "masq" => None,
        _ => real.port.filter(|port| *port > 0),
    };
    let address = match (real.to, real.from) {
        (Some(to), from) => {
            let port = port.map_or(String::new(), |port| format!(":{port}"));
            format!("{from}-{to}{port}")
        }
        (None, from) => written(from, port),
    };
    table.put(statement, "address", Node::Text(address));
    for note in &real.notes {
        table.note(note);
    }
    let own = port.or(vport).unwrap_or(0);
    if real.forward != "masq"
        && vport.is_some_and(|vport| real.port.is_some_and(|port| port > 0 && port != vport))
    {
        table.note(format!("{} cannot change the port: only the check goes to another", real.forward));
    }
    table.put(statement, "forward", Node::text(real.forward));
    table.put(statement, "weight", Node::Whole(real.weight));
    if let Some(upper) = real.upper {
        table.put(statement, "upper_threshold", Node::Whole(upper));
    }
    if let Some(lower) = real.lower {
        table.put(statement, "lower_threshold", Node::Whole(lower));
    }
    if said.below("monitorfile").is_some() {
        let [before, after] = monitored(said, real, service).map(Node::Text);
        table.put_default("monitor_as", Node::List(vec![before, after]));
    }
    let mut check = said.table(statement.value.clone());
    if let Some(pair) = &real.pair {
        service.put_pair((said, statement), pair, &mut check);
    }
    let elsewhere = check.entries.iter().any(|entry| entry.key == "address");
    if elsewhere {
        if let Some(host) = service.host_of(real) {
            check.put_default("host", Node::Text(host));
        }
    } else {
        match service.port_of(real, own) {
            Ok(Some(port)) => {
                check.put(statement, "port", Node::Whole(port.into()));
                check.note(format!("ldirectord checks port {port}"));
            }
            Ok(None) => {}
            Err(message) => said.wrong_inside(statement, (0..statement.value.len(), message)),
        }
    }
    if !check.entries.is_empty() {
        table.put_default("check", Node::Table(check));
    }
    table
}

/// What a monitor file calls a server: what stands before its address, and behind it. There it is the name by which two
/// servers are known to be one, with blanks between its parts.
fn monitored(said: &Said<'_>, real: &Real, service: &Service) -> [String; 2] {
    let value = |name: &str| said.below(name).map_or("", |statement| said.value(statement));
    let protocol = match (said.is_address, service.protocol()) {
        (false, _) => "fwm",
        (true, Protocol::Tcp) => "tcp",
        (true, Protocol::Udp) => "udp",
    };
    let rooted = |text: &str| match text.starts_with('/') {
        true => text.to_owned(),
        false => format!("/{text}"),
    };
    let (request, receive) = match &real.pair {
        Some((request, receive)) => (rooted(request), receive.as_str()),
        None => (rooted(value("request")), value("receive")),
    };
    let before = format!("{}:{protocol}", service.monitored(said));
    let after = format!(
        "{}:{}:{}:{}:{}:{request}:{receive}",
        real.port.unwrap_or(0),
        value("virtualhost"),
        value("checkport"),
        real.weight,
        real.forward,
    );
    [parted(&before), parted(&after)]
}
