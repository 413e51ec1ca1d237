//! The text of a canary, and what is read in one that came.
//!
//! Owns the mark in its header and the signature (HMAC-SHA256) over start, number, server and time, and the hops of its
//! way. Refuses to know who is waited for. Bytes that are no canary, or one that we did not sign, are a [`Stranger`].

use std::fmt::Write as _;
use std::net::SocketAddr;

use checks::calendar::rfc5322;
use mail_parser::{HeaderName, HeaderValue, Host, MessageParser};
use ring::hmac;

/// The field of the mark.
const FIELD: &str = "X-SMTP-Director-Canary";
/// Received fields that are looked at; RFC 5321 section 6.3 asks for a limit of at least 100.
const MOST_HOPS: usize = 100;

/// What signs the canaries of one start of the director.
#[derive(Debug)]
pub struct Key {
    start: u32,
    key: hmac::Key,
}

/// What a canary says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Unique within a start.
    pub number: u64,
    /// The server that it goes through.
    pub server: SocketAddr,
    /// Seconds since 1970, for people: nothing follows from it.
    pub sent: i64,
}

/// A canary that came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// What it says.
    pub mark: Mark,
    /// Who had it longest by the stamps of its way, and for how many seconds; `None` where no two stamps tell. Their
    /// clocks are not ours: this is for people.
    pub longest: Option<(String, i64)>,
}

/// Why a message is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// It has no mark, or one that cannot be read.
    NoCanary,
    /// Its mark is not signed by us.
    Forged,
    /// By what it says, an earlier start of a director sent it.
    EarlierStart,
}

impl Key {
    /// From random bytes.
    #[must_use]
    pub fn new(start: u32, secret: &[u8; 32]) -> Self {
        Self { start, key: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }

    /// The number of this start.
    #[must_use]
    pub fn start(&self) -> u32 {
        self.start
    }

    fn claim(start: u32, mark: &Mark) -> String {
        let Mark { number, server, sent } = mark;
        format!("1 start={start:08x} number={number} server={server} sent={sent}")
    }

    /// The message for `checks::smtp::DataSpec::text`.
    #[must_use]
    pub fn letter(&self, mark: &Mark, (from, to): (&str, &str), ehlo_name: &str) -> String {
        let claim = Self::claim(self.start, mark);
        let mut signature = String::with_capacity(64);
        for byte in hmac::sign(&self.key, claim.as_bytes()).as_ref() {
            // Writing to a String cannot fail.
            let _ = write!(signature, "{byte:02x}");
        }
        let host = ehlo_name.trim_matches(['[', ']']);
        let from = if from.is_empty() { format!("postmaster@{host}") } else { from.to_owned() };
        format!(
            "Date: {date}\r\n\
             From: <{from}>\r\n\
             To: <{to}>\r\n\
             Subject: smtp-director canary\r\n\
             Message-ID: <{start:08x}.{number}.canary@{host}>\r\n\
             Auto-Submitted: auto-generated\r\n\
             X-SMTP-Director: canary\r\n\
             {FIELD}: {claim}\r\n mac={signature}\r\n\
             \r\n\
             This message shows that mail leaves a server. It should come back to the director that sent it.\r\n",
            date = rfc5322(mark.sent),
            start = self.start,
            number = mark.number,
        )
    }

    /// Reads a message that came, at `now` by the wall clock, in seconds since 1970: the last stamp of its way.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn read(&self, message: &[u8], now: i64) -> Result<Arrival, Stranger> {
        let parser = MessageParser::new().header_received(HeaderName::Received);
        let message = parser.parse_headers(message).ok_or(Stranger::NoCanary)?;
        let headers = message.parts.first().map(|part| part.headers.as_slice()).unwrap_or_default();
        let is_mark = |name: &str| name.eq_ignore_ascii_case(FIELD);
        let field = headers.iter().find(|header| is_mark(header.name.as_str()));
        let text = field.and_then(|field| field.value.as_text()).ok_or(Stranger::NoCanary)?;
        let mark = self.verify(text)?;
        let stamps = headers.iter().filter_map(|header| match &header.value {
            HeaderValue::Received(received) => {
                let by = match received.by.as_ref()? {
                    Host::Name(name) => checks::smtp::reply::printable(name.as_bytes()),
                    Host::IpAddr(ip) => ip.to_string(),
                };
                Some((by, received.date.as_ref()?.to_timestamp()))
            }
            _ => None,
        });
        let stamps: Vec<_> = std::iter::once((String::new(), now)).chain(stamps.take(MOST_HOPS)).collect();
        Ok(Arrival { mark, longest: longest(&stamps) })
    }

    fn verify(&self, text: &str) -> Result<Mark, Stranger> {
        let words: Vec<&str> = text.split_ascii_whitespace().take(7).collect();
        let &["1", start, number, server, sent, mac] = words.as_slice() else {
            return Err(Stranger::NoCanary);
        };
        let read = || {
            let start = u32::from_str_radix(start.strip_prefix("start=")?, 16).ok()?;
            let mark = Mark {
                number: number.strip_prefix("number=")?.parse().ok()?,
                server: server.strip_prefix("server=")?.parse().ok()?,
                sent: sent.strip_prefix("sent=")?.parse().ok()?,
            };
            Some((start, mark, unhex(mac.strip_prefix("mac=")?)?))
        };
        let (start, mark, mac) = read().ok_or(Stranger::NoCanary)?;
        if start != self.start {
            return Err(Stranger::EarlierStart);
        }
        let claim = Self::claim(start, &mark);
        hmac::verify(&self.key, claim.as_bytes(), &mac).map_err(|_| Stranger::Forged)?;
        Ok(mark)
    }
}

/// The 32 bytes of a signature.
fn unhex(text: &str) -> Option<[u8; 32]> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? * 16 + digit(*low)?));
    bytes.collect::<Option<Vec<u8>>>()?.try_into().ok()
}

/// Between which two stamps, the newest first, the longest time passed: where the message was then.
fn longest(stamps: &[(String, i64)]) -> Option<(String, i64)> {
    let spans = stamps.windows(2).filter_map(|pair| match pair {
        [(_, left), (by, came)] => Some((by.clone(), left.saturating_sub(*came))),
        _ => None,
    });
    spans.filter(|(_, seconds)| *seconds > 0).max_by_key(|(_, seconds)| *seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::new(0x00c0_ffee, &[7; 32])
    }

    fn mark() -> Mark {
        Mark { number: 17, server: "[2001:db8::11]:25".parse().unwrap(), sent: 1_700_000_000 }
    }

    fn letter() -> String {
        key().letter(&mark(), ("", "canary@example.com"), "[192.0.2.2]")
    }

    #[test]
    fn a_letter_is_believed_and_tells_who_had_it_longest() {
        let text = letter();
        assert!(text.lines().all(|line| line.len() <= 998 && !line.starts_with('.')), "{text}");
        assert!(text.contains("From: <postmaster@192.0.2.2>\r\n") && text.contains("canary@192.0.2.2>\r\n"));
        assert_eq!(key().read(text.as_bytes(), 0), Ok(Arrival { mark: mark(), longest: None }));
        let way = "Received: from b.example (b.example [192.0.2.3]) by c.example with ESMTP id 1;\r\n\
                   \tTue, 14 Nov 2023 22:14:02 +0000\r\n\
                   Received: from a.example by b.example with ESMTP id 2; Tue, 14 Nov 2023 22:14:00 +0000\r\n\
                   Received: from director by a.example with ESMTP id 3; Tue, 14 Nov 2023 23:13:20 +0100\r\n";
        let read = |now| key().read(format!("{way}{text}").as_bytes(), now).unwrap().longest.unwrap();
        let seconds = |seconds| mark().sent + seconds;
        assert_eq!(read(seconds(43)), ("a.example".to_owned(), 40));
        assert_eq!(read(seconds(92)), ("c.example".to_owned(), 50), "it lay where it was last");
    }

    #[test]
    fn what_was_changed_is_not_believed() {
        for (from, to, stranger) in [
            ("number=17", "number=18", Stranger::Forged),
            ("2001:db8::11", "2001:db8::12", Stranger::Forged),
            ("sent=1700000000", "sent=1700000001", Stranger::Forged),
            ("start=00c0ffee", "start=00c0ffef", Stranger::EarlierStart),
            (": 1 start", ": 2 start", Stranger::NoCanary),
            (" mac=", " mac=0", Stranger::NoCanary),
            ("number=17", "number=17 number=18", Stranger::NoCanary),
            ("number=17", "number=-1", Stranger::NoCanary),
            (FIELD, "X-Canary", Stranger::NoCanary),
        ] {
            let text = letter().replacen(from, to, 1);
            assert_eq!(key().read(text.as_bytes(), 0), Err(stranger), "{from} {to}");
        }
        let other = Key::new(0x00c0_ffee, &[8; 32]);
        assert_eq!(other.read(letter().as_bytes(), 0), Err(Stranger::Forged));
        for bytes in [&b""[..], b"\r\n", b"Received: ;;;\r\n\r\n", b"\xff\x00: x"] {
            assert_eq!(key().read(bytes, 0), Err(Stranger::NoCanary));
        }
    }

    #[test]
    fn stamps_of_clocks_that_are_wrong_are_no_time() {
        let stamp = |by: &str, at| (by.to_owned(), at);
        assert_eq!(longest(&[]), None);
        assert_eq!(longest(&[stamp("b", 10), stamp("a", 20)]), None);
        let wild = longest(&[stamp("b", i64::MAX), stamp("a", i64::MIN)]);
        assert_eq!(wild, Some(("a".to_owned(), i64::MAX)));
    }
}
