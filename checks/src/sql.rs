//! What MySQL and PostgreSQL are asked alike.
//!
//! Owns [`SqlSpec`]. Refuses to know either protocol.

use crate::credential::Login;
use crate::tls::TlsSpec;

/// A login, and a statement that has a row. Without a login the server is well when it takes connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SqlSpec {
    /// TLS after the server's own question for it (MySQL's and PostgreSQL's SSLRequest), or none. With
    /// [`crate::tls::TlsMode::Opportunistic`] a server without TLS will do; with the other modes not.
    pub tls: Option<TlsSpec>,
    /// Who to log in as. The password itself is said inside TLS only.
    pub login: Option<Login>,
    /// The database to log in to, where not the user's own.
    pub database: Option<String>,
    /// A statement that must give at least one row, asked for one row; only with a login.
    pub request: Option<String>,
}
