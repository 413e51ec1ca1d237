//! Statements to a native tree.
//!
//! Owns which native key says what a directive says, and the defaults in which the two differ. Refuses to know how a file is
//! written; how a check is made is `service`. Fails with problems at their places; the ranges of values are left to
//! the native schema.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;

use super::Names;
use super::address::{host, port, split_port, written};
use super::directive::Shape;
use super::parse::{File, Section, Statement};
use super::server::{self, Fallback, Real};
use super::service::{Of, Service};
use super::tree::{Node, Table};
use crate::config::diagnostic::{Diagnostic, Place, printable};
use crate::model::{Family, Protocol};

/// Where ldirectord logs unless told otherwise.
const LOG_FILE: &str = "/var/log/ldirectord.log";
/// Where the names of other configurations are looked up.
const FOLDER: &str = "/etc/ha.d/";

/// What is said for one virtual, and for all.
pub(super) struct Said<'a> {
    file: &'a File<'a>,
    globals: &'a BTreeMap<&'static str, &'a Statement>,
    head: Option<&'a Statement>,
    body: BTreeMap<&'static str, &'a Statement>,
    is_address: bool,
    pub(super) names: &'a dyn Names,
    problems: &'a RefCell<Vec<Diagnostic>>,
}

impl<'a> Said<'a> {
    /// A directive of this virtual; the last of its name.
    pub(super) fn below(&self, name: &str) -> Option<&'a Statement> {
        self.body.get(name).copied()
    }

    /// A directive for all.
    pub(super) fn above(&self, name: &str) -> Option<&'a Statement> {
        self.globals.get(name).copied()
    }

    fn nearest(&self, name: &str) -> Option<&'a Statement> {
        self.below(name).or(self.above(name))
    }

    /// The nearest number of that name, or the default.
    pub(super) fn near(&self, name: &str, default: u64) -> (u64, Option<&'a Statement>) {
        let from = self.nearest(name);
        (from.and_then(|statement| self.number(statement)).unwrap_or(default), from)
    }

    pub(super) fn value(&self, statement: &Statement) -> &'a str {
        self.file.text.get(statement.value.clone()).unwrap_or("")
    }

    /// Whether the virtual is an address, and no firewall mark.
    pub(super) fn is_address(&self) -> bool {
        self.is_address
    }

    fn problem(&self, at: Range<usize>, message: String) {
        let problem = Diagnostic { place: Some(Place::Text(at)), message };
        self.problems.borrow_mut().push(problem);
    }

    /// `checktype: "x" {message}`.
    pub(super) fn wrong(&self, statement: &Statement, message: &str) {
        let shown = printable(self.value(statement));
        self.problem(statement.value.clone(), format!("{}: \"{shown}\" {message}", statement.directive.name));
    }

    /// A problem of the virtual as a whole.
    pub(super) fn wrong_of_virtual(&self, message: &str) {
        if let Some(head) = self.head {
            self.problem(head.value.clone(), format!("virtual: {message}"));
        }
    }

    fn wrong_inside(&self, statement: &Statement, (at, message): server::Wrong) {
        let start = statement.value.start;
        let name = statement.directive.name;
        self.problem(start + at.start..start + at.end, format!("{name}: {message}"));
    }

    /// A whole number, of seconds perhaps, and nothing else: ldirectord takes the first digits of anything.
    pub(super) fn number(&self, statement: &Statement) -> Option<u64> {
        let text = self.value(statement);
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let (least, seconds) = match statement.directive.shape {
            Shape::Seconds => (1, true),
            Shape::Number(least) => (u64::from(least), false),
            _ => (0, false),
        };
        let has_unit = matches!(unit.trim(), "s" | "sec" | "secs" | "second" | "seconds");
        let fits = unit.is_empty() || has_unit && (seconds || statement.directive.name == "emailalertfreq");
        let number = digits.parse::<u64>().ok().filter(|number| fits && *number >= least);
        if number.is_none() {
            let want = if seconds { "whole seconds" } else { "a whole number" };
            self.wrong(
                statement,
                &format!(
                    "is not {want} from {least}; ldirectord takes the first digits of it and skips the rest"
                ),
            );
        }
        number
    }

    /// Says what is wrong with values that nothing may ask for.
    fn look_at(&self, statements: &[Statement]) {
        for statement in statements {
            match statement.directive.shape {
                Shape::Number(_) | Shape::Seconds => {
                    let number = self.number(statement);
                    if statement.directive.name == "checkport" && number.is_some_and(|port| port > 65_535) {
                        self.wrong(statement, "is no port; a number up to 65535");
                    }
                }
                // A bare word may stand for yes.
                Shape::YesNo if !self.value(statement).is_empty() => {
                    self.flag(statement);
                }
                _ => {}
            }
        }
    }

    fn flag(&self, statement: &Statement) -> bool {
        match self.value(statement) {
            "yes" => true,
            "no" => false,
            _ => {
                self.wrong(statement, "is neither yes nor no");
                false
            }
        }
    }

    fn near_flag(&self, name: &str, default: bool) -> (bool, Option<&'a Statement>) {
        let from = self.nearest(name);
        (from.map_or(default, |statement| self.flag(statement)), from)
    }

    fn table(&self, at: Range<usize>) -> Table {
        Table::under(at, self.globals.values().copied())
    }

    /// A table of one key that nobody wrote.
    pub(super) fn table_of(&self, key: &'static str, node: Node) -> Table {
        let mut table = self.table(self.head.map_or(0..0, |head| head.value.clone()));
        table.put_default(key, node);
        table
    }
}

/// Says a file in native words. `problems` are those that are known already, to which more may come.
pub(super) fn lower(
    file: &File<'_>,
    names: &dyn Names,
    problems: Vec<Diagnostic>,
) -> (Table, Vec<Diagnostic>) {
    let problems = RefCell::new(problems);
    let globals = last_of(&file.globals);
    let said = Said {
        file,
        globals: &globals,
        head: None,
        body: BTreeMap::new(),
        is_address: true,
        names,
        problems: &problems,
    };
    let mut root = Table::at(0..0);
    said.look_at(&file.globals);
    lower_globals(&said, &mut root);
    let fallbacks = [Family::V4, Family::V6].map(|family| {
        let name = if family == Family::V4 { "fallback" } else { "fallback6" };
        said.above(name).and_then(|statement| read_fallback(&said, statement, (family, None)))
    });
    let virtuals: Vec<Table> =
        file.sections.iter().filter_map(|section| lower_virtual(&said, section, &fallbacks)).collect();
    root.keep_comments(file.globals.iter());
    if !virtuals.is_empty() {
        root.put_default("virtual", Node::Tables(virtuals));
    } else if problems.borrow().is_empty() {
        let message = "there is no virtual; it begins with virtual=192.0.2.25:25".to_owned();
        problems.borrow_mut().push(Diagnostic { place: None, message });
    }
    (root, problems.into_inner())
}

/// The last statement of each name: it is the one that counts.
fn last_of(statements: &[Statement]) -> BTreeMap<&'static str, &Statement> {
    statements.iter().map(|statement| (statement.directive.name, statement)).collect()
}

fn lower_globals(said: &Said<'_>, root: &mut Table) {
    let supervised = match said.above("supervised") {
        // A bare word.
        Some(statement) if said.value(statement).is_empty() => true,
        Some(statement) => said.flag(statement),
        None => false,
    };
    root.put_default("log_format", Node::text("ldirectord"));
    let log = match said.above("logfile") {
        Some(statement) if said.value(statement).starts_with('/') => said.value(statement).to_owned(),
        Some(statement) => format!("syslog:{}", said.value(statement)),
        None => LOG_FILE.to_owned(),
    };
    let log = if supervised { "stdout".to_owned() } else { log };
    root.put_found(said.above("logfile").filter(|_| !supervised), "log_to", Node::Text(log));
    if let Some(statement) = said.above("supervised") {
        root.put(statement, "supervised", Node::Flag(supervised));
    }
    if let Some(statement) = said.above("autoreload") {
        root.put(statement, "autoreload", Node::Flag(said.flag(statement)));
    }
    for (name, key) in [("callback", "callback"), ("maintenancedir", "maintenance_dir")] {
        if let Some(statement) = said.above(name) {
            root.put(statement, key, Node::text(said.value(statement)));
        }
    }
    let executes = || said.file.globals.iter().filter(|statement| statement.directive.name == "execute");
    if let Some(first) = executes().next() {
        let path = |statement| match said.value(statement) {
            path if path.starts_with('/') => path.to_owned(),
            name => format!("{FOLDER}{name}"),
        };
        root.put(first, "execute", Node::List(executes().map(|one| Node::Text(path(one))).collect()));
    }
    let (readd, from) = said.near_flag("readdquiescent", false);
    root.put_found(from, "readd_quiescent", Node::Flag(readd));
    let (clean, from) = said.near_flag("cleanstop", true);
    root.put_found(from, "on_exit", on_exit(clean));
    let mut alert = Table::at(0..0);
    put_alert(said, &mut alert, Said::above);
    if !alert.entries.is_empty() {
        root.put_default("alert", Node::Table(alert));
    }
}

fn on_exit(clean: bool) -> Node {
    Node::text(if clean { "remove" } else { "keep" })
}

/// Writes what one level says of mails.
fn put_alert<'a>(said: &Said<'a>, alert: &mut Table, at: fn(&Said<'a>, &str) -> Option<&'a Statement>) {
    let list = |statement| {
        let words = said.value(statement).split(',').map(str::trim).filter(|word| !word.is_empty());
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    let nodes = |words: Vec<String>| Node::List(words.into_iter().map(Node::Text).collect());
    if let Some(statement) = at(said, "emailalert") {
        alert.put(statement, "to", nodes(list(statement)));
    }
    for (name, key) in
        [("emailalertfrom", "from"), ("smtp", "smtp"), ("servicename", "service"), ("comment", "comment")]
    {
        if let Some(statement) = at(said, name) {
            alert.put(statement, key, Node::text(said.value(statement)));
        }
    }
    if let Some(statement) = at(said, "emailalertfreq")
        && let Some(every) = said.number(statement)
    {
        alert.put(statement, "every", Node::seconds(every));
    }
    if let Some(statement) = at(said, "emailalertstatus") {
        let words = list(statement);
        let has = |word: &str| words.iter().any(|one| one == word);
        let phases = ["starting", "running", "stopping", "reloading"];
        let known = |word: &String| phases.contains(&word.as_str()) || word == "all" || word == "none";
        let node = match words.len() {
            _ if !words.iter().all(known) || has("none") && words.iter().any(|word| word != "none") => {
                said.wrong(
                    statement,
                    "is not all, none alone, or some of starting, running, stopping and reloading",
                );
                return;
            }
            0 => Node::text("none"),
            _ if has("all") => Node::text("all"),
            _ if has("none") => Node::text("none"),
            _ => nodes(words),
        };
        alert.put(statement, "when", node);
    }
}

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

fn lower_virtual(above: &Said<'_>, section: &Section, fallbacks: &[Option<Fallback>; 2]) -> Option<Table> {
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
                    _ => said.wrong(statement, "are no flags of this scheduler; sh-fallback, sh-port, mh-fallback, mh-port, or flag-1 to flag-3"),
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
        if protocol == Protocol::Udp && said.is_address() {
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

fn read_fallback(
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

fn lower_reals(
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
