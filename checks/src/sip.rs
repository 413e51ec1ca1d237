//! SIP

use crate::Transport;

/// OPTIONS (RFC 3261 section 11). Well is any 2xx.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SipSpec {
    /// UDP or TCP.
    pub transport: Transport,
    /// Who is asked about, `USER@server`; see [`is_user`].
    pub user: String,
}

impl Default for SipSpec {
    fn default() -> Self {
        Self { transport: Transport::default(), user: "smtp-director".to_owned() }
    }
}

/// Whether `text` can stand before the `@` of a SIP URI without escapes (RFC 3261 section 25.1), in 1 to 64 bytes.
#[must_use]
pub fn is_user(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&byte))
}
