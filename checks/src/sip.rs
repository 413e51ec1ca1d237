//! The SIP check: OPTIONS, and what a server answers (RFC 3261).
//!
//! Owns what is asked ([`SipSpec`]), the request, and the few lines of a response that matter. Refuses to know
//! sockets, calls and everything else of SIP. Fails with the status code where there is one.

use std::net::SocketAddr;

use crate::datagram::{Ask, Heard};
use crate::smtp::reply::printable;
use crate::talk::{Passed, Step, Talk, Trouble, Turn};
use crate::{Reason, Stage, Transport};

/// Most bytes of the header of a response, and of its body.
const MAX_PART: usize = 16 * 1024;

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

/// One request, ready to be sent.
pub struct Options {
    transport: Transport,
    /// Of the Via and the Call-ID, which an answer repeats.
    token: String,
    packet: Vec<u8>,
    uri: String,
}

impl Options {
    /// From us to the server, with a `token` that nobody can guess.
    ///
    /// # Errors
    /// The user cannot stand in a URI.
    pub fn new(
        spec: &SipSpec,
        (us, server): (SocketAddr, SocketAddr),
        token: [u8; 8],
    ) -> Result<Self, Trouble> {
        let user = &spec.user;
        if !is_user(user) {
            return Err(Trouble::new(Reason::Local, format!("\"{user}\" is not a user that SIP has")));
        }
        let token = format!("{:016x}", u64::from_be_bytes(token));
        let uri = format!("sip:{user}@{server}");
        // rport: answers come back to where we are, whatever is in between (RFC 3581).
        let (transport, via) = match spec.transport {
            Transport::Udp => ("UDP", ";rport"),
            Transport::Tcp => ("TCP", ""),
        };
        let packet = format!(
            "OPTIONS {uri} SIP/2.0\r\n\
             Via: SIP/2.0/{transport} {us};branch=z9hG4bK{token}{via}\r\n\
             Max-Forwards: 70\r\n\
             From: <sip:{user}@{us}>;tag={token}\r\n\
             To: <{uri}>\r\n\
             Call-ID: {token}\r\n\
             CSeq: 1 OPTIONS\r\n\
             Contact: <sip:{user}@{us}>\r\n\
             Accept: application/sdp\r\n\
             Content-Length: 0\r\n\r\n"
        );
        Ok(Self { transport: spec.transport, token, packet: packet.into_bytes(), uri })
    }

    /// What one message means, without its body.
    fn answer(&self, message: &[u8]) -> Heard {
        let message = printable_lines(message);
        let Some((status, header)) = message.split_first() else { return Heard::Foreign("nothing") };
        let Some(code) = status_code(status) else { return Heard::Foreign("not a response of SIP") };
        let field = |long: &str, short: &str| {
            header.iter().filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
                let name = name.trim_end();
                (name.eq_ignore_ascii_case(long) || name.eq_ignore_ascii_case(short)).then(|| value.trim())
            })
        };
        let branch = format!("branch=z9hG4bK{}", self.token);
        let ours = field("Via", "v").is_some_and(|via| via.contains(&branch))
            && field("Call-ID", "i") == Some(&self.token)
            && field("CSeq", "CSeq").is_some_and(|cseq| cseq.split_whitespace().eq(["1", "OPTIONS"]));
        if !ours {
            return Heard::Foreign("an answer to another request");
        }
        let text = printable(status.as_bytes());
        let reason = match code {
            100..=199 => return Heard::Wait,
            200..=299 => {
                let sent = format!("OPTIONS {}", self.uri);
                return Heard::Answer(Ok(Passed {
                    stage: Stage::Request,
                    code: Some(code),
                    sent,
                    received: vec![text],
                }));
            }
            300..=399 => Reason::Unexpected,
            // Request Timeout, Temporarily Unavailable, Busy Here; the server's own trouble.
            408 | 480 | 486 | 500..=599 => Reason::Tempfail,
            _ => Reason::Permfail,
        };
        Heard::Answer(Err(Trouble::new(reason, text).coded(code)))
    }
}

impl Ask for Options {
    fn packet(&self) -> &[u8] {
        &self.packet
    }

    fn hear(&self, datagram: &[u8]) -> Heard {
        self.answer(datagram)
    }
}

/// The request over TCP: messages end after as many bytes as Content-Length says (RFC 3261 section 18.3).
impl Talk for Options {
    fn stage(&self) -> Stage {
        Stage::Request
    }

    fn open(&mut self) -> Step {
        debug_assert_eq!(self.transport, Transport::Tcp);
        Step::Say(self.packet.clone())
    }

    fn length(&self, bytes: &[u8]) -> Result<Option<usize>, Trouble> {
        let too_long = || Trouble::new(Reason::TooLong, "");
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            // Before the end of a line that is no response: waiting for more would tell nothing.
            if !b"SIP/2.0 ".starts_with(bytes.get(..bytes.len().min(8)).unwrap_or_default()) {
                return Err(Trouble::new(Reason::Protocol, bytes));
            }
            return if bytes.len() > MAX_PART { Err(too_long()) } else { Ok(None) };
        };
        let header = bytes.get(..end).unwrap_or_default();
        let mut lengths = header.split(|&byte| byte == b'\n').filter_map(|line| {
            let (name, value) = line.split_at_checked(line.iter().position(|&byte| byte == b':')?)?;
            let name = name.trim_ascii();
            let known = name.eq_ignore_ascii_case(b"Content-Length") || name.eq_ignore_ascii_case(b"l");
            known.then(|| str::from_utf8(value.get(1..)?.trim_ascii()).ok()?.parse::<usize>().ok())
        });
        match lengths.next() {
            None => Ok(Some(end + 4)),
            Some(Some(body)) if body <= MAX_PART => Ok(Some(end + 4 + body)),
            Some(Some(_)) => Err(too_long()),
            Some(None) => Err(Trouble::protocol("a Content-Length that is no number")),
        }
    }

    fn hear(&mut self, message: &[u8]) -> Result<Turn, Trouble> {
        match self.answer(message) {
            Heard::Answer(answer) => answer.map(|passed| Turn { step: Step::Leave, passed: Some(passed) }),
            Heard::Foreign(what) => Err(Trouble::protocol(what)),
            Heard::Wait | Heard::Truncated => Ok(Turn::just(Step::Listen)),
        }
    }
}

/// The lines of the header, without their ends; at most 128.
fn printable_lines(message: &[u8]) -> Vec<String> {
    let lines = message.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end);
    lines
        .take_while(|line| !line.is_empty())
        .take(128)
        .map(|line| String::from_utf8_lossy(line).into())
        .collect()
}

/// The code of `SIP/2.0 200 OK`.
fn status_code(line: &str) -> Option<u16> {
    let code = line.strip_prefix("SIP/2.0 ")?.split(' ').next()?;
    let digits = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit());
    code.parse().ok().filter(|code| digits && (100..700).contains(code))
}
