//! The words of `type`, and which keys of a `check` table each has a use for.
//!
//! Owns [`CheckType`]. Refuses to know what a key says. Cannot fail.

use super::fields::Fields;

/// Words of `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckType {
    Smtp,
    /// SMTP, by the name that ldirectord has for port 587.
    Submission,
    /// SMTP inside TLS.
    Smtps,
    Lmtp,
    Http,
    Https,
    HttpProxy,
    Pop,
    Pops,
    Imap,
    Imaps,
    Nntp,
    Ftp,
    Ldap,
    Ldaps,
    Dns,
    Mysql,
    Pgsql,
    Sip,
    Radius,
    SimpleTcp,
    /// A TCP connection: the server does not speak first, and what it would take to make it speak is not asked.
    Oracle,
    Connect,
    Ping,
    External,
    /// Not checked: always up.
    On,
    /// Not checked: always down.
    Off,
}

use CheckType::{
    Connect, Dns, External, Ftp, Http, HttpProxy, Https, Imap, Imaps, Ldap, Ldaps, Lmtp, Mysql, Nntp, Off,
    On, Oracle, Pgsql, Ping, Pop, Pops, Radius, SimpleTcp, Sip, Smtp, Smtps, Submission,
};

pub(super) const TYPES: [(&str, CheckType); 27] = [
    ("smtp", Smtp),
    ("submission", Submission),
    ("smtps", Smtps),
    ("lmtp", Lmtp),
    ("http", Http),
    ("https", Https),
    ("http_proxy", HttpProxy),
    ("pop", Pop),
    ("pops", Pops),
    ("imap", Imap),
    ("imaps", Imaps),
    ("nntp", Nntp),
    ("ftp", Ftp),
    ("ldap", Ldap),
    ("ldaps", Ldaps),
    ("dns", Dns),
    ("mysql", Mysql),
    ("pgsql", Pgsql),
    ("sip", Sip),
    ("radius", Radius),
    ("simpletcp", SimpleTcp),
    ("oracle", Oracle),
    ("connect", Connect),
    ("ping", Ping),
    ("external", External),
    ("on", On),
    ("off", Off),
];

/// When a check of some type speaks TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secured {
    /// As `tls.mode` says.
    AsTold,
    /// When the server was asked for it and agreed, in the protocol's own way; never with the first byte.
    OnRequest,
    /// With the first byte, always.
    Always,
    /// Never.
    Never,
}

impl CheckType {
    /// The word for it.
    pub(super) fn word(self) -> &'static str {
        TYPES.iter().find(|(_, known)| *known == self).map_or("", |(word, _)| word)
    }

    pub(super) fn speaks_smtp(self) -> bool {
        matches!(self, Smtp | Submission | Smtps | Lmtp)
    }

    pub(super) fn secured(self) -> Secured {
        match self {
            Smtp | Submission | Lmtp => Secured::AsTold,
            Mysql | Pgsql => Secured::OnRequest,
            Smtps | Https | Pops | Imaps | Ldaps => Secured::Always,
            _ => Secured::Never,
        }
    }

    /// The type that is this one inside TLS.
    pub(super) fn secured_twin(self) -> Option<&'static str> {
        match self {
            Pop => Some("pops"),
            Imap => Some("imaps"),
            Ldap => Some("ldaps"),
            _ => None,
        }
    }

    /// Whether a password would be said to all the network.
    pub(super) fn says_passwords_openly(self) -> bool {
        matches!(self, Pop | Imap | Ldap | Ftp)
    }

    /// Whether there is a conversation, and not only a connection or none.
    pub(super) fn talks(self) -> bool {
        self.has_port() && !matches!(self, Oracle | Connect)
    }

    /// Whether something is asked of a port.
    pub(super) fn has_port(self) -> bool {
        !matches!(self, Ping | External | On | Off)
    }

    /// Whether a check of this type has a use for a key.
    fn uses(self, key: &str) -> bool {
        match key {
            "type" => true,
            _ if matches!(self, On | Off) => false,
            "ehlo_name" | "banner_timeout" | "ehlo_timeout" | "quit_timeout" | "banner" | "banner_name"
            | "require" | "proxy_header" | "mail" | "data" => self.speaks_smtp(),
            "tls" => self.secured() != Secured::Never,
            "auth" => {
                self.speaks_smtp()
                    || matches!(self, Pop | Pops | Imap | Imaps | Ftp | Ldap | Ldaps | Mysql | Pgsql | Radius)
            }
            "request" => matches!(
                self,
                Http | Https | HttpProxy | Ftp | Ldap | Ldaps | Dns | Mysql | Pgsql | Sip | SimpleTcp
            ),
            "receive" => matches!(self, Http | Https | HttpProxy | Ftp | Ldap | Ldaps | Dns | SimpleTcp),
            "host" | "method" => matches!(self, Http | Https | HttpProxy),
            "database" => matches!(self, Mysql | Pgsql),
            "secret_file" | "secret" => self == Radius,
            "command" => self == External,
            // What begins with a TCP connection and does not end there.
            "connects_between" => !matches!(self, Oracle | Connect | Ping | External | Dns | Sip | Radius),
            "port" => self != Ping,
            "address" => self != External,
            "connect_timeout" => !matches!(self, External | Radius),
            _ => true,
        }
    }

    /// Reports each key of a table that a check of this type has no use for.
    pub(super) fn refuse_useless(self, fields: &Fields<'_>) {
        for key in fields.keys().iter().filter(|key| !self.uses(key)) {
            if matches!(self, On | Off) {
                let word = self.word();
                fields.refuse(&[key], &format!("has no use here: type \"{word}\" is never checked"));
                continue;
            }
            let users: Vec<_> = TYPES
                .iter()
                .filter(|(_, kind)| kind.uses(key))
                .map(|(word, _)| format!("\"{word}\""))
                .collect();
            // What most have a use for is told from the other side.
            let reason = match users.split_last() {
                Some((last, [])) => format!("is for checks of type {last} only"),
                Some((last, rest)) if users.len() * 2 < TYPES.len() => {
                    format!("is for checks of type {} and {last} only", rest.join(", "))
                }
                _ => format!("has no use in checks of type \"{}\"", self.word()),
            };
            fields.refuse(&[key], &reason);
        }
    }
}
