//! What is said for all: the log, the daemon, mails.
//!
//! Owns the directives at the first column, and those of mails at either place. Refuses to know virtuals.

use super::parse::Statement;
use super::said::Said;
use super::tree::{Node, Table};

/// Where ldirectord logs unless told otherwise.
const LOG_FILE: &str = "/var/log/ldirectord.log";
/// Where the names of other configurations are looked up.
const FOLDER: &str = "/etc/ha.d/";

pub(super) fn lower_globals(said: &Said<'_>, root: &mut Table) {
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

pub(super) fn on_exit(clean: bool) -> Node {
    Node::text(if clean { "remove" } else { "keep" })
}

/// Writes what one level says of mails.
pub(super) fn put_alert<'a>(
    said: &Said<'a>,
    alert: &mut Table,
    at: fn(&Said<'a>, &str) -> Option<&'a Statement>,
) {
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
