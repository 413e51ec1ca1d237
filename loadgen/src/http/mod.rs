//! HTTP/1 under load.
//!
//! Owns [`HttpPlan`] and the request of a URL. Below, [`response`] decides purely where an answer ends, and [`drive`]
//! performs the exchange.

pub mod drive;
pub mod response;

use std::fmt::Write as _;

/// How requests are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpPlan {
    /// Which HTTP.
    pub version: Version,
    /// What is compared with the first answer of the same URL.
    pub compare: Compare,
    /// Whether a status of 400 or more is a failure.
    pub statuses: Statuses,
    /// Bytes of an answer that are read in a second, at most.
    pub throttle: Option<u64>,
}

/// Which HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// A request a connection, ended by its close (HTTP/1.0), as http_load does.
    Close,
    /// Kept connections (HTTP/1.1).
    #[default]
    Keep,
}

/// What must be the same in all answers of a URL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compare {
    /// Nothing.
    #[default]
    Nothing,
    /// The number of bytes.
    Bytes,
    /// The bytes, by their checksum.
    Checksum,
}

/// What a status of 400 or more is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Statuses {
    /// A failure.
    #[default]
    Judge,
    /// An answer like any other, as for http_load.
    Count,
}

/// The request of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// As it goes out.
    pub bytes: Vec<u8>,
    /// Where the answer to compare with is kept.
    pub index: usize,
}

impl Request {
    /// GET `path` from `host` (with its port, where that is not the usual one). `agent` is the User-Agent.
    ///
    /// # Errors
    /// Where something cannot be said.
    pub fn get(
        (host, path): (&str, &str),
        agent: &str,
        headers: &[String],
        version: Version,
    ) -> Result<Self, String> {
        let mut text = String::new();
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if !plain(host) || !plain(path) || !path.starts_with('/') {
            return Err(format!("\"{}\" cannot be asked for", path.escape_debug()));
        }
        let version = if version == Version::Close { "1.0" } else { "1.1" };
        let _ = write!(text, "GET {path} HTTP/{version}\r\nHost: {host}\r\nUser-Agent: {agent}\r\n");
        for header in headers {
            if header.contains(['\r', '\n', '\0']) || !header.contains(':') {
                return Err(format!("\"{}\" is no header", header.escape_debug()));
            }
            let _ = write!(text, "{header}\r\n");
        }
        text.push_str("\r\n");
        Ok(Self { bytes: text.into_bytes(), index: 0 })
    }
}
