//! DNS

use crate::Transport;
use crate::smtp::Pattern;

/// A name and its records (RFC 1035). Well is a NOERROR with an answer that matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DnsSpec {
    /// The name, as text, with or without its last dot. An address stands for its name below `in-addr.arpa` or
    /// `ip6.arpa` where `query` is PTR.
    pub name: String,
    /// What is asked of the name.
    pub query: Query,
    /// UDP goes to TCP by itself when an answer is truncated.
    pub transport: Transport,
    /// Matches one of the answers as text: `192.0.2.1`, `10 mail.example.com`, names without their last dot.
    pub receive: Option<Pattern>,
}

/// The types of records that can be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Query {
    /// An IPv4 address.
    #[default]
    A,
    /// An IPv6 address.
    Aaaa,
    /// Where mail goes.
    Mx,
    /// The name of an address.
    Ptr,
    /// The start of a zone.
    Soa,
    /// Text.
    Txt,
}

impl Query {
    /// The types by their words in configuration, in lower case.
    pub const ALL: [(&'static str, Self); 6] = [
        ("a", Self::A),
        ("aaaa", Self::Aaaa),
        ("mx", Self::Mx),
        ("ptr", Self::Ptr),
        ("soa", Self::Soa),
        ("txt", Self::Txt),
    ];
}
