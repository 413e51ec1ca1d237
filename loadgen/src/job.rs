//! A whole run, as it was asked for.
//!
//! Owns [`Job`] and its parts, and the rules of what may be pressed on. Refuses to know how it is asked for and how it is
//! done.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::http::HttpPlan;
use crate::identify::Identify;
use crate::mail::{Law, MailPlan};
use crate::plan::{Arrivals, Profile, Share, Stop};
use crate::smtp::SmtpPlan;
use crate::wire::WirePlan;
use crate::words::Trouble;

/// The usual [`Job::tick`]: a timer for each arrival would cost more than the request.
pub const TICK: Duration = Duration::from_micros(250);

/// When work is started.
#[derive(Clone, Debug)]
pub enum Pace {
    /// On a schedule, whatever becomes of what was started.
    Open {
        /// How many a second.
        profile: Profile,
        /// Evenly or not.
        arrivals: Arrivals,
    },
    /// By so many sessions, each when it is done with what it did.
    Closed {
        /// Milliseconds between two.
        think: Law,
    },
}

/// Whether a target speaks SMTP or HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Speech {
    /// As the run's [`SmtpPlan`] says.
    Smtp,
    /// This request.
    Http(crate::http::Request),
}

/// Where to connect to, and what to say.
#[derive(Clone, Debug)]
pub struct Target {
    /// As it was named.
    pub label: String,
    /// Its addresses, in turn by connection.
    pub addresses: Vec<SocketAddr>,
    /// For TLS.
    pub name: ServerName<'static>,
    /// TLS from the first byte.
    pub security: Secure,
    /// What to say.
    pub speech: Speech,
    /// Targets with the same number share connections.
    pub origin: usize,
}

/// Whether a target is TLS by its URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secure {
    /// `smtp:`, `http:`.
    No,
    /// `smtps:`, `https:`.
    Yes,
}

/// Which target is next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choose {
    /// One after the other.
    #[default]
    InTurn,
    /// Any.
    Random,
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Job {
    /// When work is started.
    pub pace: Pace,
    /// When no more is started.
    pub stop: Stop,
    /// Which part of it is this process's.
    pub share: Share,
    /// Of all that is random.
    pub seed: u64,
    /// At least one.
    pub targets: Vec<Target>,
    /// Which one is next.
    pub choose: Choose,
    /// At least 1.
    pub threads: usize,
    /// Sessions at one time, over all threads.
    pub sessions: usize,
    /// Arrivals on one connection; 0: without end.
    pub per_connection: Law,
    /// SMTP.
    pub smtp: SmtpPlan,
    /// Its messages.
    pub mail: MailPlan,
    /// HTTP.
    pub http: HttpPlan,
    /// All connections.
    pub wire: WirePlan,
    /// TLS.
    pub tls: Arc<ClientConfig>,
    /// The TCP handshake.
    pub connect_timeout: Duration,
    /// Each answer.
    pub timeout: Duration,
    /// How long an open run keeps a connection that nobody uses.
    pub idle: Duration,
    /// After the end, for what is under way.
    pub drain: Duration,
    /// Arrivals of an open run that are due within this time are started together.
    pub tick: Duration,
    /// Which server answered.
    pub identify: Identify,
    /// Who is told of each failure, in the thread that met it.
    pub tell: Option<fn(&Target, Trouble)>,
}

/// Whether an address may be pressed on without being named: loopback, private (RFC 1918, RFC 4193), link-local, and
/// those of documentation and benchmarks (RFC 5737, RFC 3849, RFC 2544).
#[must_use]
pub fn is_harmless_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_documentation()
                || (a == 198 && b & 254 == 18)
        }
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_harmless_address(v4.into()),
            None => {
                v6.is_loopback()
                    || v6.is_unique_local()
                    || v6.is_unicast_link_local()
                    || v6.segments().starts_with(&[0x2001, 0xdb8])
            }
        },
    }
}

/// Whether nobody's mail can be meant: domains reserved by RFC 2606 and RFC 6761, and address literals.
#[must_use]
pub fn is_harmless_recipient(address: &str) -> bool {
    let Some((_, domain)) = address.rsplit_once('@') else { return true };
    let domain = domain.trim_end_matches('.').to_ascii_lowercase();
    if domain.starts_with('[') {
        return true;
    }
    let last = |suffix: &str| {
        domain == suffix || domain.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'))
    };
    ["example", "test", "invalid", "localhost", "localdomain", "example.com", "example.net", "example.org"]
        .into_iter()
        .any(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_nobodys_is_harmless() {
        for (address, harmless) in [
            ("127.0.0.1", true),
            ("10.1.2.3", true),
            ("192.168.0.1", true),
            ("172.16.0.1", true),
            ("172.32.0.1", false),
            ("192.0.2.1", true),
            ("198.18.0.1", true),
            ("8.8.8.8", false),
            ("::1", true),
            ("fd00::1", true),
            ("2001:db8::1", true),
            ("2a00::1", false),
            ("::ffff:8.8.8.8", false),
            ("::ffff:10.0.0.1", true),
        ] {
            assert_eq!(is_harmless_address(address.parse().unwrap()), harmless, "{address}");
        }
        for (address, harmless) in [
            ("a@example.com", true),
            ("a@mx.Example.ORG.", true),
            ("a@notexample.com", false),
            ("a@x.test", true),
            ("a@gmail.com", false),
            ("a@[127.0.0.1]", true),
            ("postmaster", true),
            ("a@example.com@evil.com", false),
        ] {
            assert_eq!(is_harmless_recipient(address), harmless, "{address}");
        }
    }
}
