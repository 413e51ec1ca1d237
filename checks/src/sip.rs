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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::talk::tests::tell;

    fn options(transport: Transport) -> Options {
        let spec = SipSpec { transport, ..SipSpec::default() };
        let (us, server) = ("[2001:db8::1]:5070".parse().unwrap(), "192.0.2.5:5060".parse().unwrap());
        Options::new(&spec, (us, server), [0xab; 8]).unwrap()
    }

    /// A response with these lines after the status.
    fn response(status: &str, extra: &str) -> Vec<u8> {
        format!(
            "SIP/2.0 {status}\r\nv: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKabababababababab;received=192.0.2.9\r\n\
             i : abababababababab\r\nCSeq:  1  OPTIONS\r\n{extra}\r\n"
        )
        .into_bytes()
    }

    #[test]
    fn a_response_means_what_its_status_says_if_it_is_to_us() {
        let ask = options(Transport::Udp);
        for (status, expected) in [
            ("200 OK", Ok(())),
            ("202 Accepted", Ok(())),
            ("302 Moved Temporarily", Err((Reason::Unexpected, Some(302)))),
            ("404 Not Found", Err((Reason::Permfail, Some(404)))),
            ("408 Request Timeout", Err((Reason::Tempfail, Some(408)))),
            ("503 Service Unavailable", Err((Reason::Tempfail, Some(503)))),
            ("603 Decline", Err((Reason::Permfail, Some(603)))),
        ] {
            let Heard::Answer(answer) = Ask::hear(&ask, &response(status, "")) else { panic!("{status}") };
            assert_eq!(answer.map(drop).map_err(|t| (t.reason, t.code)), expected, "{status}");
        }
        assert_eq!(Ask::hear(&ask, &response("180 Ringing", "")), Heard::Wait);
        let whole = String::from_utf8(response("200 OK", "")).unwrap();
        for (ours, theirs) in [
            ("abababababababab;", "abababababababac;"),
            ("i : ab", "i : ac"),
            ("1  OPTIONS", "2  OPTIONS"),
            ("1  OPTIONS", "1  INVITE"),
            ("SIP/2.0 200", "SIP/2.0 2000"),
            ("SIP/2.0 200", "SIP/2.0 +20"),
            ("SIP/2.0 200", "HTTP/1.1 200"),
        ] {
            let other = whole.replacen(ours, theirs, 1);
            assert_ne!(other, whole);
            assert!(matches!(Ask::hear(&ask, other.as_bytes()), Heard::Foreign(_)), "{other}");
        }
    }

    #[test]
    fn over_tcp_a_message_ends_with_its_body() {
        let provisional = response("100 Trying", "l: 3\r\n");
        let last = response("200 OK", "Content-Length: 0\r\n");
        let told = tell(&mut options(Transport::Tcp), &[&provisional[..], b"abc", &last].concat());
        assert_eq!(told.verdict, Some(Ok(())));
        for (says, reason) in [
            (response("200 OK", "l: 99999\r\n"), Reason::TooLong),
            (response("200 OK", "l: -1\r\n"), Reason::Protocol),
            (b"220 mail.example.com\r\n".to_vec(), Reason::Protocol),
            ([b"SIP/2.0 ", vec![b'a'; MAX_PART].as_slice()].concat(), Reason::TooLong),
        ] {
            let told = tell(&mut options(Transport::Tcp), &says);
            assert_eq!(told.verdict.unwrap().unwrap_err().reason, reason);
        }
    }

    #[test]
    fn a_user_is_nothing_else_in_the_request() {
        for user in ["", "a b", "a@b", "a\r\nVia: x", "a>", "a:b", "ä"] {
            assert!(!is_user(user), "{user}");
            let spec = SipSpec { user: user.to_owned(), ..SipSpec::default() };
            let address = "192.0.2.5:5060".parse().unwrap();
            let refused = Options::new(&spec, (address, address), [0; 8]).err().unwrap();
            assert_eq!(refused.reason, Reason::Local);
        }
        let said = String::from_utf8(options(Transport::Udp).packet).unwrap();
        assert!(said.starts_with("OPTIONS sip:smtp-director@192.0.2.5:5060 SIP/2.0\r\nVia: SIP/2.0/UDP [2001:db8::1]:5070;branch=z9hG4bKabab"), "{said}");
        assert!(said.ends_with("\r\n\r\n"));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes: Vec<u8>, text in "(SIP/2.0 )?[0-9A-Za-z: \r\n-]*") {
            for bytes in [&bytes, text.as_bytes()] {
                let _ = Ask::hear(&options(Transport::Udp), bytes);
                tell(&mut options(Transport::Tcp), bytes);
            }
        }
    }
}
