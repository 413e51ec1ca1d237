//! Packets of MySQL, as bytes.
//!
//! Owns the greeting, the login, its two kinds of signed password, and errors. Refuses to know their order. Fails
//! with nothing where bytes are cut off.

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

use crate::Reason;
use crate::talk::Trouble;

/// Capabilities (`mysql_com.h`).
const LONG_PASSWORD: u32 = 1;
const CONNECT_WITH_DB: u32 = 1 << 3;
const PROTOCOL_41: u32 = 1 << 9;
const SSL: u32 = 1 << 11;
const TRANSACTIONS: u32 = 1 << 13;
const SECURE_CONNECTION: u32 = 1 << 15;
const PLUGIN_AUTH: u32 = 1 << 19;

/// utf8mb4, for both.
const CHARSET: u8 = 45;
/// Largest packet that we say we take; the session's cap is smaller still.
const MAX_PACKET: u32 = 1 << 24;

const NATIVE: &[u8] = b"mysql_native_password";
const CACHING: &[u8] = b"caching_sha2_password";

/// What the server says first.
pub(super) struct Greeting {
    pub(super) version: Vec<u8>,
    capabilities: u32,
    plugin: Vec<u8>,
    /// What a password is signed with, 20 bytes.
    nonce: Vec<u8>,
}

impl Greeting {
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let (version, rest) = match payload {
            [10, rest @ ..] if rest.contains(&0) => split(rest),
            _ => return None,
        };
        // Thread, first half of the nonce, a zero, capabilities, character set, status, capabilities, length of the
        // nonce, zeros; then the second half and its zero, and the plugin.
        let (first, low, high) = (rest.get(4..12)?, rest.get(13..15)?, rest.get(18..20)?);
        let capabilities = u32::from_le_bytes([low, high].concat().try_into().ok()?);
        let length = usize::from(*rest.get(20)?).max(21) - 8;
        let second = rest.get(31..)?.get(..length)?;
        let (plugin, _) = split(rest.get(31 + length..).unwrap_or_default());
        let nonce = [first, second.get(..12)?].concat();
        Some(Self { version: version.to_vec(), capabilities, plugin: plugin.to_vec(), nonce })
    }

    pub(super) fn offers_tls(&self) -> bool {
        self.capabilities & SSL != 0
    }
}

/// Who logs in, and how.
pub(super) struct Login<'a> {
    pub(super) user: &'a str,
    pub(super) password: &'a str,
    pub(super) database: Option<&'a str>,
    pub(super) tls: bool,
}

impl Login<'_> {
    /// SSLRequest: the head of a login alone.
    pub(super) fn ssl_request(&self) -> Vec<u8> {
        let database = if self.database.is_some() { CONNECT_WITH_DB } else { 0 };
        let tls = if self.tls { SSL } else { 0 };
        let ours =
            LONG_PASSWORD | PROTOCOL_41 | TRANSACTIONS | SECURE_CONNECTION | PLUGIN_AUTH | database | tls;
        let mut bytes = [ours.to_le_bytes(), MAX_PACKET.to_le_bytes()].concat();
        bytes.push(CHARSET);
        bytes.extend([0; 23]);
        bytes
    }

    /// HandshakeResponse41.
    pub(super) fn response(&self, greeting: &Greeting) -> Vec<u8> {
        // A plugin that we do not know is switched from by the server, if the user can do otherwise.
        let known = scramble(&greeting.plugin, self.password, &greeting.nonce);
        let (plugin, signed) = match known {
            Some(signed) => (greeting.plugin.as_slice(), signed),
            None => (NATIVE, scramble(NATIVE, self.password, &greeting.nonce).unwrap_or_default()),
        };
        let mut bytes = self.ssl_request();
        bytes.extend(self.user.as_bytes());
        bytes.push(0);
        bytes.push(u8::try_from(signed.len()).unwrap_or_default());
        bytes.extend(signed);
        if let Some(database) = self.database {
            bytes.extend(database.as_bytes());
            bytes.push(0);
        }
        bytes.extend(plugin);
        bytes.push(0);
        bytes
    }
}

/// A payload with its length and number.
pub(super) fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let [a, b, c, _] = u32::try_from(payload.len()).unwrap_or_default().to_le_bytes();
    [&[a, b, c, sequence], payload].concat()
}

/// What comes before the first zero, and what after.
pub(super) fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    (bytes.get(..end).unwrap_or_default(), bytes.get(end + 1..).unwrap_or_default())
}

/// A password as it is said inside TLS.
pub(super) fn clear(password: &str) -> Vec<u8> {
    [password.as_bytes(), &[0]].concat()
}

/// A password signed with `nonce` as `plugin` wants it; `None` for a plugin that is not known here.
///
/// mysql_native_password: SHA1(p) ^ SHA1(nonce + SHA1(SHA1(p))). caching_sha2_password: SHA256(p) ^
/// SHA256(SHA256(SHA256(p)) + nonce). No password is no bytes.
pub(super) fn scramble(plugin: &[u8], password: &str, nonce: &[u8]) -> Option<Vec<u8>> {
    let algorithm = match plugin {
        NATIVE => &SHA1_FOR_LEGACY_USE_ONLY,
        CACHING => &SHA256,
        _ => return None,
    };
    if password.is_empty() {
        return Some(Vec::new());
    }
    let hash = |parts: [&[u8]; 2]| {
        let mut context = Context::new(algorithm);
        parts.iter().for_each(|part| context.update(part));
        context.finish()
    };
    let once = hash([password.as_bytes(), &[]]);
    let twice = hash([once.as_ref(), &[]]);
    let mask = if plugin == NATIVE { hash([nonce, twice.as_ref()]) } else { hash([twice.as_ref(), nonce]) };
    Some(once.as_ref().iter().zip(mask.as_ref()).map(|(a, b)| a ^ b).collect())
}

/// What an ERR packet says, without its first byte.
pub(super) fn error(said: &[u8]) -> Trouble {
    let Some((&code, text)) = said.split_first_chunk() else { return Trouble::protocol("half an error") };
    let code = u16::from_le_bytes(code);
    // The SQLSTATE, which the greeting's errors do not have.
    let text = if text.first() == Some(&b'#') { text.get(6..).unwrap_or_default() } else { text };
    let reason = match code {
        // Disk full; out of memory, sockets or threads; too many connections, of this user too; shutdown; lock
        // timeout and deadlock; a limit of the account; a statement that was ended, or took too long.
        1021 | 1037 | 1038 | 1040 | 1041 | 1053 | 1135 | 1203 | 1205 | 1213 | 1226 | 1317 | 1969 | 3024 => {
            Reason::Tempfail
        }
        _ => Reason::Permfail,
    };
    Trouble::new(reason, text).coded(code)
}
