//! LDAP

use std::path::PathBuf;

use crate::smtp::Pattern;
use crate::tls::TlsSpec;

/// Bind, search one entry, unbind (RFC 4511). The default asks for the root DSE (RFC 4512 section 5.1), anonymously.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LdapSpec {
    /// TLS with the first byte (ldaps), whatever its mode says.
    pub tls: Option<TlsSpec>,
    /// The file of the credential, whose user is a DN; without it the bind is anonymous.
    pub login: Option<PathBuf>,
    /// The DN of the entry that must be there, as text (RFC 4514).
    pub base: String,
    /// Matches the DN of the entry, or one of its attributes as `name: value`.
    pub receive: Option<Pattern>,
}
