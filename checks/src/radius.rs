//! RADIUS

use std::path::PathBuf;

/// Access-Request (RFC 2865) for a user, or Status-Server (RFC 5997) without one. Well is an Access-Accept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RadiusSpec {
    /// The file of the credential of a user.
    pub login: Option<PathBuf>,
    /// The file of the secret that we share with the server: one line, the secret itself; see
    /// [`crate::credential`] for its rights.
    pub secret: PathBuf,
}
