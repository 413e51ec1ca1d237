//! How the servers of a virtual are checked, in native words.
//!
//! Owns the ports of services, the chain of timeouts, and what each service makes of `request`, `receive` and a login. Refuses
//! to know files and tables. Problems go to the [`Said`] that was asked.

use super::address::{host, port, split_port};
use super::parse::Statement;
use super::said::Said;
use super::server::Real;
use super::texts::{escaped, pattern};
use super::tree::{Node, Table};
use crate::model::{Family, Protocol};

/// What a negotiating check can speak, and the port of each.
const SERVICES: [(&str, Option<u16>); 21] = [
    ("dns", Some(53)),
    ("ftp", Some(21)),
    ("http", Some(80)),
    ("https", Some(443)),
    ("http_proxy", Some(3128)),
    ("imap", Some(143)),
    ("imaps", Some(993)),
    ("ldap", Some(389)),
    ("ldaps", Some(636)),
    ("mysql", Some(3306)),
    ("nntp", Some(119)),
    ("none", None),
    ("oracle", Some(1521)),
    ("pop", Some(110)),
    ("pops", Some(995)),
    ("pgsql", Some(5432)),
    ("radius", Some(1812)),
    ("simpletcp", None),
    ("sip", Some(5060)),
    ("smtp", Some(25)),
    ("submission", Some(587)),
];

/// What is done to find out how a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    On,
    Off,
    Connect,
    Ping,
    External,
    ExternalPerl,
    Negotiate,
}

/// The checks of one virtual.
pub(super) struct Service {
    way: Way,
    word: &'static str,
    /// The port of the service by its name.
    own_port: Option<u16>,
    has_checkport: bool,
    family: Family,
    protocol: Protocol,
    virtualhost: Option<String>,
    /// The table that holds for all servers.
    pub(super) table: Table,
}

/// A virtual as far as its checks go.
#[derive(Clone, Copy)]
pub(super) struct Of {
    pub(super) family: Family,
    /// Its port; `None` below a firewall mark.
    pub(super) port: Option<u16>,
    pub(super) protocol: Protocol,
}

impl Service {
    /// Reads all that a virtual says of its checks.
    pub(super) fn read(said: &Said<'_>, of: Of, mut table: Table) -> Self {
        let by_port = of.port.and_then(|port| SERVICES.iter().find(|(_, own)| *own == Some(port)));
        let (mut word, mut own_port) = by_port.map_or(("none", None), |(word, port)| (*word, *port));
        if let Some(statement) = said.below("service") {
            match SERVICES.iter().find(|(known, _)| *known == said.value(statement)) {
                Some((known, port)) => (word, own_port) = (known, *port),
                None => said.wrong(
                    statement,
                    "is no service; dns, ftp, http, https, http_proxy, imap, imaps, ldap, ldaps, mysql, \
                    nntp, none, oracle, pop, pops, pgsql, radius, simpletcp, sip, smtp or submission",
                ),
            }
        }
        let (way, between) = way(said, of.protocol, word);
        let mut service = Self {
            way,
            word,
            own_port,
            has_checkport: false,
            family: of.family,
            protocol: of.protocol,
            virtualhost: said.below("virtualhost").map(|statement| said.value(statement).to_owned()),
            table: Table::default(),
        };
        service.put_type(said, &mut table);
        if !matches!(way, Way::On | Way::Off) {
            service.put_pace(said, &mut table);
        }
        if let Some((statement, between)) = between.filter(|(_, between)| *between > 0) {
            // What is no connection at all is asked whole each time.
            if matches!(word, "dns" | "radius" | "sip" | "oracle") {
                table.note(format!(
                    "checktype={between}: no connection comes before this service, each check is a whole one"
                ));
            } else {
                table.put(statement, "connects_between", Node::Whole(between));
            }
        }
        let goes_to_a_port = way == Way::Connect || way == Way::Negotiate && word != "none";
        if let Some(statement) = said.below("checkport").filter(|_| goes_to_a_port)
            && let Some(number) = said.number(statement)
        {
            table.put(statement, "port", Node::Whole(number));
            service.has_checkport = true;
        }
        if way == Way::Negotiate {
            service.put_questions(said, &mut table);
        }
        service.table = table;
        service
    }

    fn put_type(&self, said: &Said<'_>, table: &mut Table) {
        let source = said.below("checktype").or(said.below("service"));
        let word = match self.way {
            Way::On => "on",
            Way::Off => "off",
            Way::Connect => "connect",
            Way::Ping => "ping",
            Way::External | Way::ExternalPerl => "external",
            // There is nothing to negotiate: every server is well.
            Way::Negotiate if self.word == "none" => "on",
            Way::Negotiate => self.word,
        };
        match source {
            Some(source) => table.put(source, "type", Node::text(word)),
            None => table.put_default("type", Node::text(word)),
        }
        if self.way == Way::Negotiate && self.word == "none" {
            table.note("service=none: every server is taken for well");
        }
        if self.word == "oracle" && self.way == Way::Negotiate {
            table.note("a listener of Oracle is asked for a connection, not for a statement");
        }
        let command = said.below("checkcommand");
        let path = command.map_or("/bin/true", |command| said.value(command));
        let node = match self.way {
            Way::External => Node::text(path),
            Way::ExternalPerl => Node::List(vec![Node::text("/usr/bin/perl"), Node::text(path)]),
            _ => return,
        };
        match command {
            Some(command) => table.put(command, "command", node),
            None => table.put_default("command", node),
        }
        if self.way == Way::ExternalPerl {
            table.note("external-perl: perl is started for each check");
        }
    }

    /// Interval, counts and timeouts. Each timeout is the default of the other.
    fn put_pace(&self, said: &Said<'_>, table: &mut Table) {
        if self.way == Way::Negotiate && self.word == "none" {
            return;
        }
        let (interval, from) = said.near("checkinterval", 10);
        table.put_found(from, "interval", Node::seconds(interval));
        table.put_found(from, "retry", Node::seconds(interval));
        let (fall, from) = said.near("failurecount", 1);
        table.put_found(from, "fall", Node::Whole(fall));
        table.put_default("rise", Node::Whole(1));
        table.put_default("damping", Node::Flag(false));
        let chain = |names: [(&str, bool); 4], default| {
            let one = |(name, below): (&str, bool)| if below { said.below(name) } else { said.above(name) };
            let from = names.into_iter().find_map(one);
            (from.and_then(|statement| said.number(statement)).unwrap_or(default), from)
        };
        let check = chain(
            [
                ("checktimeout", true),
                ("negotiatetimeout", true),
                ("checktimeout", false),
                ("negotiatetimeout", false),
            ],
            5,
        );
        let negotiate = chain(
            [
                ("negotiatetimeout", true),
                ("checktimeout", true),
                ("negotiatetimeout", false),
                ("checktimeout", false),
            ],
            30,
        );
        let (limit, from) = match self.way {
            Way::Negotiate if !matches!(self.word, "ldap" | "ldaps" | "radius" | "oracle") => negotiate,
            _ => check,
        };
        match self.way {
            Way::Ping => {
                let (count, _) = said.near("checkcount", 1);
                let limit = limit.saturating_mul(count);
                table.put_found(from, "connect_timeout", Node::seconds(limit));
                table.put_found(from, "deadline", Node::seconds(limit.saturating_add(1)));
            }
            Way::External | Way::ExternalPerl => table.put_found(from, "deadline", Node::seconds(limit)),
            _ => {
                table.put_found(from, "deadline", Node::seconds(limit));
                if !(self.way == Way::Negotiate && self.word == "radius") {
                    table.put_found(from, "connect_timeout", Node::seconds(limit));
                }
                if self.way == Way::Negotiate && matches!(self.word, "smtp" | "submission") {
                    table.put_found(from, "banner_timeout", Node::seconds(limit));
                    table.put_found(from, "ehlo_timeout", Node::seconds(limit));
                }
            }
        }
    }

    /// Request, answer, host, login: what the service has a use for.
    fn put_questions(&self, said: &Said<'_>, table: &mut Table) {
        let request = said.below("request");
        let receive = said.below("receive");
        if let Some(statement) = request {
            self.put_request(table, statement, said.value(statement));
        }
        if let Some(statement) = receive {
            self.put_receive(table, statement, said.value(statement));
        }
        if matches!(self.word, "http" | "https" | "http_proxy") {
            if let Some(statement) = said.below("virtualhost") {
                table.put(statement, "host", Node::text(said.value(statement)));
            }
            if let Some(statement) = said.below("httpmethod") {
                let method = said.value(statement).to_ascii_uppercase();
                if matches!(method.as_str(), "GET" | "HEAD") {
                    table.put(statement, "method", Node::text(method));
                } else {
                    said.wrong(statement, "is no method; GET or HEAD");
                }
            }
        }
        if matches!(self.word, "https" | "pops" | "imaps" | "ldaps") {
            table.put_default("tls", Node::Table(said.table_of("verify", Node::text("none"))));
            table.note("ldirectord does not verify certificates; \"chain\" or \"name\" would");
        }
        if matches!(self.word, "mysql" | "pgsql") {
            if let Some(statement) = said.below("database") {
                table.put(statement, "database", Node::text(said.value(statement)));
            }
            if request.is_none() || said.below("login").is_none() {
                said.wrong_of_virtual(&format!(
                    "service {} needs login and request: ldirectord takes every server for down without them",
                    self.word
                ));
            }
        }
        if self.word == "radius" {
            match said.below("secret") {
                Some(statement) => table.put(statement, "secret", Node::text(said.value(statement))),
                None => said.wrong_of_virtual(
                    "service radius needs the secret that the server shares with us: secret=\"…\"",
                ),
            }
        }
        self.put_login(said, table);
    }

    fn put_request(&self, table: &mut Table, source: &Statement, text: &str) {
        let bare = text.strip_prefix('/').unwrap_or(text);
        let request = match self.word {
            "http" | "https" => format!("/{}", escaped(bare)),
            "ftp" => format!("/{bare}"),
            "http_proxy" if bare.contains("://") => escaped(bare),
            "http_proxy" => format!("/{}", escaped(bare)),
            "ldap" | "ldaps" | "dns" | "mysql" | "pgsql" => bare.to_owned(),
            // There, `\n` is the only escape.
            "simpletcp" => bare.replace('\\', "\\\\").replace("\\\\n", "\\n"),
            _ => return,
        };
        table.put(source, "request", Node::Text(request));
    }

    fn put_receive(&self, table: &mut Table, source: &Statement, text: &str) {
        if matches!(
            self.word,
            "http" | "https" | "http_proxy" | "ftp" | "ldap" | "ldaps" | "dns" | "simpletcp"
        ) {
            table.put(source, "receive", Node::Text(pattern(text)));
        }
    }

    fn put_login(&self, said: &Said<'_>, table: &mut Table) {
        let Some(login) = said.below("login") else { return };
        let passwd = said.below("passwd");
        let user = said.value(login);
        if self.word == "sip" {
            table.put(login, "request", Node::text(user.split('@').next().unwrap_or(user)));
            return;
        }
        let logs_in = matches!(
            self.word,
            "pop" | "pops" | "imap" | "imaps" | "ftp" | "ldap" | "ldaps" | "mysql" | "pgsql" | "radius"
        );
        // An LDAP server is bound to anonymously unless there is both.
        let anonymous =
            self.word.starts_with("ldap") && passwd.is_none() || self.word == "ftp" && user == "anonymous";
        if !logs_in || anonymous {
            return;
        }
        let mut auth = said.table_of("user", Node::text(user));
        let password = passwd.map_or("", |passwd| said.value(passwd));
        match passwd {
            Some(passwd) => auth.put(passwd, "password", Node::text(password)),
            None => auth.put_default("password", Node::text("")),
        }
        if matches!(self.word, "pop" | "imap" | "ftp" | "ldap") {
            auth.put_default("without_tls", Node::Flag(true));
        }
        table.put(login, "auth", Node::Table(auth));
    }

    /// The port that a check of a server goes to, where that is not the server's own in the table, which is `own`.
    pub(super) fn port_of(&self, real: &Real, own: u16) -> Result<Option<u16>, String> {
        let asks_port = match self.way {
            Way::Connect | Way::External | Way::ExternalPerl => true,
            Way::Negotiate => self.word != "none",
            Way::On | Way::Off | Way::Ping => false,
        };
        let written = real.port.filter(|port| *port > 0);
        if !asks_port || self.has_checkport {
            return Ok(None);
        }
        let wanted = match self.way {
            Way::External | Way::ExternalPerl => written,
            _ => written.or(self.own_port),
        };
        let has_port = !matches!(self.way, Way::External | Way::ExternalPerl);
        match wanted {
            None if own == 0 && has_port => {
                Err("no port to check: neither the server nor its service has one; write checkport"
                    .to_owned())
            }
            Some(port) if port != own => Ok(Some(port)),
            _ => Ok(None),
        }
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// What a monitor file calls these checks.
    pub(super) fn monitored(&self, said: &Said<'_>) -> String {
        let way = said.below("checktype").map_or("negotiate", |statement| said.value(statement));
        let command = said.below("checkcommand").map_or("/bin/true", |statement| said.value(statement));
        match way {
            "negotiate" => format!("negotiate:{}", self.word),
            "external" | "external-perl" => format!("{way}:{command}"),
            way if way.starts_with(|c: char| c.is_ascii_digit()) => format!("combined:{}", self.word),
            way => way.to_owned(),
        }
    }

    /// What a server with a pair of its own is asked.
    pub(super) fn put_pair(
        &self,
        (said, source): (&Said<'_>, &Statement),
        (request, receive): &(String, String),
        table: &mut Table,
    ) {
        if self.way != Way::Negotiate {
            return;
        }
        let scheme = format!("{}://", self.word);
        let whole = request.strip_prefix('/').unwrap_or(request).strip_prefix(&scheme);
        match whole.filter(|_| matches!(self.word, "http" | "https")) {
            Some(rest) => {
                let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
                let found = split_port(authority).and_then(|(name, port_text)| {
                    let ip = host(name, self.family, said.names)?.ip;
                    let port = port_text.map(|text| port(text, None, said.names)).transpose()?;
                    Ok((ip, port))
                });
                match found {
                    Ok((ip, port)) => {
                        table.put(source, "address", Node::text(ip.to_string()));
                        table.note(format!("{request}: the check goes there"));
                        let port = port.or(self.own_port).unwrap_or(80);
                        table.put(source, "port", Node::Whole(port.into()));
                        table.put(source, "request", Node::Text(format!("/{path}")));
                    }
                    Err(message) => said.wrong(source, &message),
                }
            }
            None => self.put_request(table, source, request),
        }
        self.put_receive(table, source, receive);
    }

    /// The host that a server is asked for where it is asked at another address than its own.
    pub(super) fn host_of(&self, real: &Real) -> Option<String> {
        self.virtualhost.is_none().then(|| match real.from {
            std::net::IpAddr::V4(ip) => ip.to_string(),
            std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        })
    }
}

/// What `checktype` says, and how many connections lie between two negotiations.
fn way<'a>(said: &Said<'a>, protocol: Protocol, service: &str) -> (Way, Option<(&'a Statement, u64)>) {
    let Some(statement) = said.below("checktype") else { return (Way::Negotiate, None) };
    let way = match said.value(statement) {
        "negotiate" => Way::Negotiate,
        // A datagram shows nothing.
        "connect" if protocol == Protocol::Udp && said.is_address => Way::Ping,
        "connect" => Way::Connect,
        "ping" => Way::Ping,
        "external" => Way::External,
        "external-perl" => Way::ExternalPerl,
        "on" => Way::On,
        "off" => Way::Off,
        text if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            let between = said.number(statement).map(|between| (statement, between));
            // Nothing is negotiated: what remains is the connections.
            return if service == "none" { (Way::Connect, None) } else { (Way::Negotiate, between) };
        }
        _ => {
            said.wrong(
                statement,
                "is no type of check; negotiate, connect, ping, external, external-perl, on, off, or a number of connections \
                 between two negotiations",
            );
            Way::Negotiate
        }
    };
    (way, None)
}
