//! What a `check` table says to services that are not SMTP, and the check that comes of it.
//!
//! Owns `request`, `receive`, `host`, `method`, `database`, `secret_file`, `secret` and `command`: their merge, what each type
//! makes of them, and what it cannot do without. Refuses to know the pace of a check. Files are named here and read by
//! the check. Fails with complaints, each with its place.

use checks::credential::Secret;
use checks::dns::{DnsSpec, Query, is_name};
use checks::external::{ExternalSpec, bracketed};
use checks::http::{HttpSpec, Method, is_host, is_target};
use checks::ldap::LdapSpec;
use checks::line::{FetchSpec, LineSpec, LoginSpec, Protocol};
use checks::radius::RadiusSpec;
use checks::simple_tcp::{SimpleTcpSpec, unescape};
use checks::sip::{SipSpec, is_user};
use checks::smtp::Pattern;
use checks::sql::SqlSpec;
use checks::tls::TlsSpec;
use checks::{Kind, Transport};

use super::fields::{Fields, Raw, Setting};
use super::steps::{StepsLayer, file, pattern};
use super::types::CheckType;
use super::values::{text, word};
use crate::config::diagnostic::Place;
use crate::model::{Protocol as Carrier, VirtualId};

const METHODS: [(&str, Method); 2] = [("GET", Method::Get), ("HEAD", Method::Head)];
/// What comes of a setting that was reported already: no configuration is made of it.
const UNUSED: Kind = Kind::Connect;
/// Longest secret.
const MAX_SECRET: usize = 128;
/// Longest request.
const MAX_REQUEST: usize = 2048;

/// What is said of a service, one level laid over the other.
#[derive(Clone, Debug, Default)]
pub(super) struct ServiceLayer {
    request: Setting<String>,
    receive: Setting<Pattern>,
    host: Setting<String>,
    method: Setting<Method>,
    database: Setting<String>,
    secret: Setting<Secret>,
    command: Setting<Vec<String>>,
}

/// Why there is no check: what to say, and where; `None` is the place of `type`.
pub(super) type Complaint = (Option<Place>, String);

impl ServiceLayer {
    /// Reads what one level says and lays it over `base`.
    pub(super) fn read(fields: &Fields<'_>, base: &Self) -> Self {
        Self {
            request: fields.read("request", request).over(&base.request),
            receive: fields.read("receive", pattern).over(&base.receive),
            host: fields.read("host", host).over(&base.host),
            method: fields.read("method", |raw| word(raw, &METHODS)).over(&base.method),
            database: fields.read("database", database).over(&base.database),
            secret: read_secret(fields).over(&base.secret),
            command: read_command(fields).over(&base.command),
        }
    }

    /// What a check of this type asks of a server of `service`; `None` where the type is none of these.
    pub(super) fn kind(
        &self,
        wanted: CheckType,
        steps: &StepsLayer,
        service: Option<VirtualId>,
    ) -> Result<Option<Kind>, Complaint> {
        use CheckType as T;
        let implicit = steps.implicit_tls();
        let kind = match wanted {
            T::Http => self.http(None)?,
            T::Https => self.http(Some(implicit))?,
            T::HttpProxy => self.http_proxy()?,
            T::Pop => self.line(Protocol::Pop, None, steps)?,
            T::Pops => self.line(Protocol::Pop, Some(implicit), steps)?,
            T::Imap => self.line(Protocol::Imap, None, steps)?,
            T::Imaps => self.line(Protocol::Imap, Some(implicit), steps)?,
            T::Nntp => self.line(Protocol::Nntp, None, steps)?,
            T::Ftp => self.line(Protocol::Ftp, None, steps)?,
            T::Ldap => self.ldap(None, steps)?,
            T::Ldaps => self.ldap(Some(implicit), steps)?,
            T::Dns => self.dns(service)?,
            T::Mysql => Kind::Mysql(Box::new(self.sql(steps)?)),
            T::Pgsql => Kind::Pgsql(Box::new(self.sql(steps)?)),
            T::Sip => self.sip(service)?,
            T::Radius => self.radius(steps)?,
            T::SimpleTcp => self.simple_tcp()?,
            T::Ping => Kind::Ping,
            T::External => self.external(service)?,
            T::Oracle | T::Connect => Kind::Connect,
            T::Smtp | T::Submission | T::Smtps | T::Lmtp | T::On | T::Off => return Ok(None),
        };
        Ok(Some(kind))
    }

    fn receive(&self) -> Option<Pattern> {
        self.receive.given().map(|(pattern, _)| pattern.clone())
    }

    /// ldirectord's `request` may come without its "/".
    fn path(&self) -> String {
        let path = self.request.or("/".to_owned());
        if path.starts_with('/') { path } else { format!("/{path}") }
    }

    fn http(&self, tls: Option<TlsSpec>) -> Result<Kind, Complaint> {
        if self.request.or(String::new()).contains("://") {
            let message = "request: a path such as \"/index.html\"; the server is the one that is checked";
            return Err((self.request.place().cloned(), message.to_owned()));
        }
        let host = self.host.given().map(|(host, _)| host.clone());
        let tls = tls.map(|tls| match &tls.name {
            // The certificate that browsers see is that of the virtual host.
            None => TlsSpec { name: host.as_deref().and_then(server_name), ..tls },
            Some(_) => tls,
        });
        self.page(HttpSpec {
            tls,
            method: self.method.or(Method::Get),
            target: self.path(),
            host,
            receive: None,
        })
    }

    fn http_proxy(&self) -> Result<Kind, Complaint> {
        let target = match (self.request.or(String::new()), self.host.given()) {
            (url, _) if url.contains("://") => url,
            (_, Some((host, _))) => format!("http://{host}{}", self.path()),
            (_, None) if !self.host.is_absent() || matches!(self.request, Setting::Wrong) => {
                return Ok(UNUSED);
            }
            (_, None) => {
                let message = "host is missing; a proxy is asked for host = \"www.example.com\", or for a whole \
                    request = \"http://www.example.com/\"";
                return Err((None, format!("check: {message}")));
            }
        };
        self.page(HttpSpec {
            tls: None,
            method: self.method.or(Method::Get),
            target,
            host: None,
            receive: None,
        })
    }

    fn page(&self, spec: HttpSpec) -> Result<Kind, Complaint> {
        if !is_target(&spec.target) {
            let message = format!("request: {:?} is not a path such as \"/index.html\"", spec.target);
            return Err((self.request.place().cloned(), message));
        }
        let receive = self.receive();
        if receive.is_some() && spec.method == Method::Head {
            let message = "receive: the answer to HEAD has no body; it needs method = \"GET\"";
            return Err((self.receive.place().cloned(), message.to_owned()));
        }
        Ok(Kind::Http(Box::new(HttpSpec { receive, ..spec })))
    }

    fn line(&self, protocol: Protocol, tls: Option<TlsSpec>, steps: &StepsLayer) -> Result<Kind, Complaint> {
        let login = steps.auth().filter(|_| protocol != Protocol::Nntp);
        let login = login.map(|auth| LoginSpec { from: auth.from, over: auth.over });
        let fetch = if protocol == Protocol::Ftp { self.fetch()? } else { None };
        Ok(Kind::Line(Box::new(LineSpec { protocol, tls, login, fetch })))
    }

    fn fetch(&self) -> Result<Option<FetchSpec>, Complaint> {
        match (self.line_of_text("a file such as \"pub/state.txt\"")?, self.receive()) {
            (Some(path), receive) => Ok(Some(FetchSpec { path, receive })),
            (None, Some(_)) if self.request.is_absent() => {
                let message = "receive: needs the file that it looks at: request = \"pub/state.txt\"";
                Err((self.receive.place().cloned(), message.to_owned()))
            }
            (None, _) => Ok(None),
        }
    }

    fn ldap(&self, tls: Option<TlsSpec>, steps: &StepsLayer) -> Result<Kind, Complaint> {
        let base = self.line_of_text("a DN such as \"dc=example,dc=com\"")?.unwrap_or_default();
        let login = steps.auth().map(|auth| auth.from);
        Ok(Kind::Ldap(Box::new(LdapSpec { tls, login, base, receive: self.receive() })))
    }

    fn dns(&self, service: Option<VirtualId>) -> Result<Kind, Complaint> {
        let want = "a name such as \"www.example.com\", with a type of record or not: \"example.com MX\"";
        let Some(request) = self.line_of_text(want)? else {
            if !self.request.is_absent() {
                return Ok(UNUSED);
            }
            return Err((None, format!("check: request is missing; {want}")));
        };
        let (name, query) = match request.split_once(' ') {
            None if request.parse::<std::net::IpAddr>().is_ok() => (request.as_str(), Some(Query::Ptr)),
            None => (request.as_str(), Some(Query::A)),
            Some((name, word)) => {
                let word = word.trim().to_ascii_lowercase();
                (name, Query::ALL.iter().find(|(known, _)| *known == word).map(|(_, query)| *query))
            }
        };
        let Some(query) = query.filter(|_| is_name(name)) else {
            return Err((self.request.place().cloned(), format!("request: {request:?} is not {want}")));
        };
        let (name, transport) = (name.to_owned(), transport(service));
        Ok(Kind::Dns(Box::new(DnsSpec { name, query, transport, receive: self.receive() })))
    }

    fn sql(&self, steps: &StepsLayer) -> Result<SqlSpec, Complaint> {
        let login = steps.auth().map(|auth| auth.from);
        let request = self.line_of_text("a statement such as \"SELECT 1\"")?;
        if login.is_none() && request.is_some() {
            let message = "request: is asked after a login; it needs auth = { file = \"…\" }";
            return Err((self.request.place().cloned(), message.to_owned()));
        }
        let database = self.database.given().map(|(name, _)| name.clone());
        Ok(SqlSpec { tls: steps.negotiated_tls(), login, database, request })
    }

    fn sip(&self, service: Option<VirtualId>) -> Result<Kind, Complaint> {
        let transport = transport(service);
        let user = match self.request.given() {
            None => SipSpec::default().user,
            Some((user, _)) if is_user(user) => user.clone(),
            Some((user, place)) => {
                let message = format!("request: {user:?} is not a user such as \"postmaster\"");
                return Err((Some(place.clone()), message));
            }
        };
        Ok(Kind::Sip(Box::new(SipSpec { transport, user })))
    }

    fn radius(&self, steps: &StepsLayer) -> Result<Kind, Complaint> {
        let Some((secret, _)) = self.secret.given() else {
            if !self.secret.is_absent() {
                return Ok(UNUSED);
            }
            let message =
                "secret_file is missing; it holds the secret that we share with the server; or write secret";
            return Err((None, format!("check: {message}")));
        };
        let login = steps.auth().map(|auth| auth.from);
        Ok(Kind::Radius(Box::new(RadiusSpec { login, secret: secret.clone() })))
    }

    fn simple_tcp(&self) -> Result<Kind, Complaint> {
        let request = match self.request.given() {
            None => Vec::new(),
            Some((request, place)) => unescape(request).ok_or_else(|| {
                let message = "has an escape that is unknown; \\n, \\r, \\t and \\\\ are known";
                (Some(place.clone()), format!("request: {request:?} {message}"))
            })?,
        };
        Ok(Kind::SimpleTcp(Box::new(SimpleTcpSpec { request, receive: self.receive() })))
    }

    fn external(&self, service: Option<VirtualId>) -> Result<Kind, Complaint> {
        let Some((command, _)) = self.command.given() else {
            if !self.command.is_absent() {
                return Ok(UNUSED);
            }
            return Err((
                None,
                "check: command is missing; command = \"/etc/smtp-director/check\"".to_owned(),
            ));
        };
        let (service, service_port) = match service {
            Some(VirtualId::Address { address, .. }) => (bracketed(address.ip()), Some(address.port())),
            Some(VirtualId::Fwmark { mark, .. }) => (mark.to_string(), None),
            None => (String::new(), None),
        };
        let (command, arguments) = match command.split_first() {
            Some((command, arguments)) => (command.into(), arguments.to_vec()),
            None => return Ok(UNUSED),
        };
        Ok(Kind::External(Box::new(ExternalSpec { command, arguments, service, service_port })))
    }

    /// The request of a protocol in which a line end would be a second one; `None` where there is none.
    fn line_of_text(&self, want: &str) -> Result<Option<String>, Complaint> {
        match self.request.given() {
            None => Ok(None),
            Some((text, place)) if text.is_empty() || text.contains(char::is_control) => {
                Err((Some(place.clone()), format!("request: {text:?} is not {want}")))
            }
            Some((text, _)) => Ok(Some(text.clone())),
        }
    }
}

/// What carries a protocol that runs over either: what carries it to the virtual.
fn transport(service: Option<VirtualId>) -> Transport {
    match service {
        Some(VirtualId::Address { protocol: Carrier::Tcp, .. }) => Transport::Tcp,
        _ => Transport::Udp,
    }
}

/// The name in a `Host` field, where it is one that TLS can ask for.
fn server_name(host: &str) -> Option<String> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let is_address = name.parse::<std::net::IpAddr>().is_ok();
    (!is_address && super::values::is_host_name(name)).then(|| name.to_owned())
}

fn request(raw: &Raw<'_>) -> Result<String, String> {
    let text = text(raw, "what to ask for, such as \"/index.html\"")?;
    if text.len() <= MAX_REQUEST && !text.contains('\0') {
        Ok(text.to_owned())
    } else {
        Err(format!("{} is too long; at most {MAX_REQUEST} bytes", raw.shown()))
    }
}

fn host(raw: &Raw<'_>) -> Result<String, String> {
    let want = "a host such as \"www.example.com\" or \"www.example.com:8080\"";
    let text = text(raw, want)?;
    if is_host(text) { Ok(text.to_owned()) } else { Err(format!("{} is not {want}", raw.shown())) }
}

fn database(raw: &Raw<'_>) -> Result<String, String> {
    let want = "the name of a database, 1 to 64 bytes";
    let text = text(raw, want)?;
    if (1..=64).contains(&text.len()) && !text.contains(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err(format!("{} is not {want}", raw.shown()))
    }
}

/// A secret is in a file, or here.
fn read_secret(fields: &Fields<'_>) -> Setting<Secret> {
    let written = fields.read("secret", |raw| {
        let want = "the secret that we share with the server, one line";
        let text = text(raw, want)?;
        let good = (1..=MAX_SECRET).contains(&text.len()) && !text.contains(char::is_control);
        good.then(|| Secret::Written(text.to_owned())).ok_or_else(|| format!("this is not {want}"))
    });
    if fields.has("secret_file") {
        fields.refuse(&["secret"], "is in the secret_file already");
    }
    fields.read("secret_file", |raw| file(raw).map(Secret::File)).over(&written)
}

/// A program, or a list: a program and what it is told before the addresses.
fn read_command(fields: &Fields<'_>) -> Setting<Vec<String>> {
    let word = |raw: &Raw<'_>| {
        let text = text(raw, "a program, or an argument of it")?;
        if text.contains('\0') {
            Err(format!("{} holds a zero byte", raw.shown()))
        } else {
            Ok(text.to_owned())
        }
    };
    let program = |raw: &Raw<'_>| file(raw).map(|file| file.to_string_lossy().into_owned());
    match fields.raw("command").map(|raw| raw.kind) {
        Some(config::ValueKind::Array(_)) => {
            let words = fields.list("command", word);
            let is_program =
                |(words, _): (&Vec<String>, _)| words.first().is_some_and(|first| first.starts_with('/'));
            if words.given().is_none_or(is_program) {
                return words;
            }
            fields.refuse_value(
                "command",
                "does not begin with an absolute path such as \"/etc/smtp-director/check\"",
            );
            Setting::Wrong
        }
        _ => fields.read("command", |raw| program(raw).map(|program| vec![program])),
    }
}

#[cfg(test)]
mod tests;
