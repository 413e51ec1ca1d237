//! Every directive of `ldirectord.cf`: one row each.
//!
//! Owns names, scopes, shapes of values, defaults and what becomes of each; the parser reads by it, the table in the
//! documentation is printed from it. Refuses to know what a value means to a table. Cannot fail.

use std::fmt::Write as _;

/// Where a directive stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// At the first column, for all.
    Global,
    /// Below a virtual.
    Virtual,
    /// Either; the nearer one wins.
    Both,
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `yes` or `no`.
    YesNo,
    /// A whole number of at least this.
    Number(u32),
    /// A time in whole seconds, at least one.
    Seconds,
    /// In double quotes.
    Quoted,
    /// With or without double quotes.
    Either,
    /// One word.
    Word,
    /// The rest of the line.
    Line,
    /// A server and what follows it, a quoted pair perhaps.
    Server,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It does here what it does there.
    Used,
    /// It is accepted and changes nothing.
    NoEffect,
    /// It is an error here as it is there.
    Refused,
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directive {
    /// As it is written before the `=`.
    pub name: &'static str,
    /// Where it stands.
    pub scope: Scope,
    /// How its value is written.
    pub shape: Shape,
    /// What holds without it.
    pub default: &'static str,
    /// What it says.
    pub rule: &'static str,
    /// What becomes of it.
    pub fate: Fate,
}

const fn row(
    name: &'static str,
    (scope, shape): (Scope, Shape),
    default: &'static str,
    rule: &'static str,
    fate: Fate,
) -> Directive {
    Directive { name, scope, shape, default, rule, fate }
}

use Fate::{NoEffect, Refused, Used};
use Scope::{Both, Global, Virtual};
use Shape::{Either, Line, Number, Quoted, Seconds, Server, Word, YesNo};

/// All of them, in the order in which a manual would have them.
pub static DIRECTIVES: [Directive; 51] = [
    row(
        "virtual",
        (Global, Word),
        "",
        "`address:port`, `host:service`, or a firewall mark; opens a section",
        Used,
    ),
    row("virtual6", (Global, Word), "", "the same for IPv6: `[2001:db8::25]:25`", Used),
    row(
        "real",
        (Virtual, Server),
        "",
        "`address[->address][:port] gate\\|masq\\|ipip [weight] [\"request\", \"receive\"] [l:n] [u:n]`; the weight is 1 unless told; many",
        Used,
    ),
    row("real6", (Virtual, Server), "", "the same below `virtual6`; no range", Used),
    row(
        "fallback",
        (Both, Server),
        "none",
        "`address[:port] [gate\\|masq\\|ipip]`: who serves while no server can; the port is that of the virtual unless told",
        Used,
    ),
    row("fallback6", (Both, Server), "none", "the same for `virtual6`", Used),
    row(
        "fallbackcommand",
        (Both, Either),
        "none",
        "run with `start` or `stop`, address and port of the virtual, and protocol",
        Used,
    ),
    row(
        "service",
        (Virtual, Word),
        "by the port",
        "`dns`, `ftp`, `http`, `https`, `http_proxy`, `imap`, `imaps`, `ldap`, `ldaps`, `mysql`, `nntp`, `none`, `oracle`, `pop`, `pops`, `pgsql`, `radius`, `simpletcp`, `sip`, `smtp`, `submission`: what a negotiating check speaks",
        Used,
    ),
    row(
        "checktype",
        (Virtual, Word),
        "`negotiate`",
        "`negotiate`, `connect`, `ping`, `external`, `external-perl`, `on`, `off`, or how many connections lie between two negotiations",
        Used,
    ),
    row("checkcommand", (Virtual, Either), "`/bin/true`", "the program of an external check", Used),
    row(
        "checkport",
        (Virtual, Number(1)),
        "the real's",
        "where a check connects to; without it and without a port of the real server that of the service",
        Used,
    ),
    row(
        "checktimeout",
        (Both, Seconds),
        "5",
        "of connect, ping, external, ldap, radius; else that of `negotiatetimeout`",
        Used,
    ),
    row(
        "negotiatetimeout",
        (Both, Seconds),
        "30",
        "of the other checks, all of it; else that of `checktimeout`",
        Used,
    ),
    row(
        "checkinterval",
        (Both, Seconds),
        "10",
        "from start to start of a check; below a virtual without `fork` too",
        Used,
    ),
    row(
        "checkcount",
        (Both, Number(1)),
        "1",
        "how many times a ping lasts for `checktimeout`; superseded by `failurecount`",
        Used,
    ),
    row("failurecount", (Both, Number(1)), "1", "failures in a row that make a server down", Used),
    row("request", (Virtual, Quoted), "`/`", "what is asked for", Used),
    row("receive", (Virtual, Quoted), "none", "a regular expression that the answer matches", Used),
    row("httpmethod", (Virtual, Word), "`GET`", "`GET` or `HEAD`", Used),
    row("virtualhost", (Virtual, Either), "the server", "the host that is asked for by HTTP", Used),
    row("login", (Virtual, Quoted), "none", "who to log in as", Used),
    row("passwd", (Virtual, Quoted), "none", "the password", Used),
    row("database", (Virtual, Quoted), "the user's", "of MySQL and PostgreSQL", Used),
    row("secret", (Virtual, Quoted), "none", "that a RADIUS server shares with us", Used),
    row("load", (Virtual, Quoted), "none", "nothing", NoEffect),
    row("scheduler", (Virtual, Word), "`wrr`", "one that the kernel has", Used),
    row(
        "schedflags",
        (Virtual, Word),
        "none",
        "`sh-fallback`, `sh-port`, `mh-fallback`, `mh-port`, `flag-1` to `flag-3`, with commas between",
        Used,
    ),
    row("persistent", (Virtual, Seconds), "none", "a client keeps its server for so long", Used),
    row(
        "netmask",
        (Virtual, Word),
        "one address",
        "clients that count as one, with `persistent`: `255.255.255.0`, for IPv6 a prefix length",
        Used,
    ),
    row("protocol", (Virtual, Word), "`tcp`; `udp` for port 53", "`tcp`, `udp`, or `fwm` below a mark", Used),
    row("ops", (Virtual, YesNo), "no", "each datagram by itself, with `udp`", Used),
    row("quiescent", (Both, YesNo), "no", "whether a server that is down stays with weight 0", Used),
    row(
        "readdquiescent",
        (Global, YesNo),
        "no",
        "whether a server that is down and was deleted by hand comes back with weight 0",
        Used,
    ),
    row("cleanstop", (Both, YesNo), "yes", "whether the virtual leaves the table when the daemon ends", Used),
    row("autoreload", (Global, YesNo), "no", "whether a change of the file is a reload", Used),
    row("callback", (Global, Quoted), "none", "a program that is run when the file has changed", Used),
    row("logfile", (Global, Quoted), "`/var/log/ldirectord.log`", "a file, or a facility of syslog", Used),
    row("emailalert", (Both, Either), "none", "recipients of mails, with commas between", Used),
    row("emailalertfrom", (Global, Line), "root", "the sender of mails", Used),
    row(
        "emailalertfreq",
        (Both, Number(0)),
        "0",
        "seconds until a mail about a server that stays down is repeated; 0 is never",
        Used,
    ),
    row(
        "emailalertstatus",
        (Both, Line),
        "`all`",
        "`all`, `none`, or some of `starting`, `running`, `stopping`, `reloading`",
        Used,
    ),
    row("smtp", (Both, Word), "the local sendmail", "the server that takes the mails", Used),
    row("servicename", (Virtual, Line), "none", "stands in the mails", Used),
    row("comment", (Virtual, Line), "none", "stands in the mails", Used),
    row(
        "monitorfile",
        (Virtual, Either),
        "none",
        "a file that gets a line for each check, with the server as ldirectord calls it",
        Used,
    ),
    row(
        "maintenancedir",
        (Global, Line),
        "none",
        "a directory of files whose names are those of servers in maintenance",
        Used,
    ),
    row("execute", (Global, Line), "none", "another configuration that is started with this one; many", Used),
    row("supervised", (Global, YesNo), "no", "stay in the foreground, log to standard output", Used),
    row("fork", (Global, YesNo), "no", "nothing: each check is a task of its own, always", NoEffect),
    row("connecttimeout", (Both, Line), "", "an error: `negotiatetimeout` took its place", Refused),
    row(
        "timeout",
        (Global, Line),
        "",
        "an error: `checktimeout` and `negotiatetimeout` took its place",
        Refused,
    ),
];

/// The row of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Directive> {
    DIRECTIVES.iter().find(|directive| directive.name == name)
}

/// The table of the documentation, in Markdown.
#[must_use]
pub fn table() -> String {
    let mut table = String::from("| Directive | Scope | Default | Rule | Here |\n|---|---|---|---|---|\n");
    for Directive { name, scope, default, rule, fate, .. } in &DIRECTIVES {
        let scope = match scope {
            Global => "global",
            Virtual => "virtual",
            Both => "global, virtual",
        };
        let fate = match fate {
            Used => "used",
            NoEffect => "accepted, without effect",
            Refused => "refused",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(table, "| `{name}` | {scope} | {default} | {rule} | {fate} |");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_directive_is_found_by_its_name_and_no_other_is() {
        for directive in &DIRECTIVES {
            assert_eq!(find(directive.name).map(|found| found.name), Some(directive.name));
            assert_eq!(DIRECTIVES.iter().filter(|one| one.name == directive.name).count(), 1);
        }
        for name in ["", "Virtual", "virtual ", "reals"] {
            assert!(find(name).is_none(), "{name}");
        }
    }

    #[test]
    fn the_table_has_a_row_of_five_cells_for_each() {
        let table = table();
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(rows.len(), DIRECTIVES.len());
        for row in rows {
            let bars = row.replace("\\|", "").matches('|').count();
            assert_eq!(bars, 6, "{row}");
        }
    }
}
