//! Bytes of a server in, replies out, by the rules of its protocol.
//!
//! Owns the syntax of replies and the caps on their size. Refuses to know sockets, time, and what was asked. Fails with
//! [`ReplyError`] at the first line that no reply can have; after that the collector is of no more use.

use super::Protocol;
use crate::smtp::reply::{MAX_LINE, MAX_LINES, MAX_SESSION, ReplyError, printable};

/// One complete reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What kind of answer.
    pub kind: ReplyKind,
    /// The code, where the protocol has codes.
    pub code: Option<u16>,
    /// The number of the command that it answers, where the protocol has tags and the server gave ours.
    pub tag: Option<u32>,
    /// The line that says it all, printable.
    pub text: String,
    /// The first [`MAX_LINES`] lines, each printable.
    pub lines: Vec<String>,
}

/// The kinds of answers that all of these protocols have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    /// Work has begun, another reply follows: 1xx.
    Begun,
    /// Yes: 2xx, `+OK`, `OK`.
    Done,
    /// Go on: 3xx, `+`.
    More,
    /// Not now: 4xx, and what RFC 3206 and RFC 5530 say is temporary.
    Temporary,
    /// No: 5xx, `-ERR`, `NO`, `BAD`.
    Permanent,
}

/// Collects replies, however they are cut into pieces. One for each session.
#[derive(Debug)]
pub struct Collector {
    protocol: Protocol,
    /// The line that is not complete.
    line: Vec<u8>,
    /// The lines before it that belong to the same reply.
    lines: Vec<String>,
    /// The code of a reply of several lines.
    open: Option<u16>,
    /// The greeting of IMAP has no tag; all after it has.
    greeted: bool,
    /// Bytes that were taken in the whole session.
    session: usize,
}

impl Collector {
    /// Nothing was said yet.
    #[must_use]
    pub fn new(protocol: Protocol) -> Self {
        Self { protocol, line: Vec::new(), lines: Vec::new(), open: None, greeted: false, session: 0 }
    }

    /// Takes bytes up to the end of the present reply. Says how many it took, and the reply if that is the end of it;
    /// without a reply it took them all.
    ///
    /// # Errors
    /// [`ReplyError`] at the first line that is wrong, or byte that is too much.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(usize, Option<Reply>), ReplyError> {
        for (index, &byte) in bytes.iter().enumerate() {
            if self.line.len() >= MAX_LINE || self.session >= MAX_SESSION {
                return Err(ReplyError::TooLong);
            }
            self.session += 1;
            self.line.push(byte);
            if byte == b'\n'
                && let Some(reply) = self.end_line()?
            {
                return Ok((index + 1, Some(reply)));
            }
        }
        Ok((bytes.len(), None))
    }

    /// What to show when no more comes: the line that is not complete or no reply, or else the last one. Printable.
    #[must_use]
    pub fn rest(&self) -> String {
        match (self.line.trim_ascii_end(), self.lines.last()) {
            ([], Some(last)) => last.clone(),
            (line, _) => printable(line),
        }
    }

    fn end_line(&mut self) -> Result<Option<Reply>, ReplyError> {
        let line = self.line.trim_ascii_end();
        let read = match self.protocol {
            Protocol::Pop => pop(line).map(|kind| (kind, None, None)),
            Protocol::Imap => imap(line, self.greeted).map(|(kind, tag)| (kind, None, tag)),
            Protocol::Nntp => numbered(line)
                .filter(|(_, _, more)| !more)
                .map(|(kind, code, _)| (Some(kind), Some(code), None)),
            Protocol::Ftp => match (self.open, numbered(line)) {
                // RFC 959 section 4.2: what stands between the first line and the last is free.
                (Some(open), Some((kind, code, false))) if open == code => {
                    Some((Some(kind), Some(code), None))
                }
                (Some(_), _) => Some((None, None, None)),
                (None, Some((_, code, true))) => {
                    self.open = Some(code);
                    Some((None, None, None))
                }
                (None, Some((kind, code, false))) => Some((Some(kind), Some(code), None)),
                (None, None) => None,
            },
        };
        let (kind, code, tag) = read.ok_or(ReplyError::Protocol)?;
        let text = printable(line);
        self.line.clear();
        if self.lines.len() < MAX_LINES {
            self.lines.push(text.clone());
        }
        let Some(kind) = kind else { return Ok(None) };
        self.greeted = true;
        let lines = std::mem::take(&mut self.lines);
        // The first line of a long refusal says most; IMAP's last one is the answer.
        let text = match self.open.take() {
            Some(_) => lines.first().cloned().unwrap_or(text),
            None => text,
        };
        Ok(Some(Reply { kind, code, tag, text, lines }))
    }
}

fn starts(line: &[u8], word: &[u8]) -> bool {
    let whole = line.get(word.len()).is_none_or(|&byte| byte == b' ');
    whole && line.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

/// `+OK` and `-ERR` with the extended codes of RFC 2449 section 8 and RFC 3206; `+` where the server wants more.
fn pop(line: &[u8]) -> Option<Option<ReplyKind>> {
    const TEMPORARY: [&[u8]; 3] = [b"[IN-USE]", b"[SYS/TEMP]", b"[LOGIN-DELAY]"];
    let kind = if starts(line, b"+OK") {
        ReplyKind::Done
    } else if starts(line, b"-ERR") {
        let code = line.get(5..).unwrap_or_default();
        let temporary = TEMPORARY.iter().any(|known| starts(code, known));
        if temporary { ReplyKind::Temporary } else { ReplyKind::Permanent }
    } else if starts(line, b"+") {
        ReplyKind::More
    } else {
        return None;
    };
    Some(Some(kind))
}

/// RFC 3501 section 7: untagged lines belong to the reply of the tagged one after them. Only the greeting is untagged
/// itself.
fn imap(line: &[u8], greeted: bool) -> Option<(Option<ReplyKind>, Option<u32>)> {
    let (first, rest) = line.split_at(line.iter().position(|&byte| byte == b' ').unwrap_or(line.len()));
    let rest = rest.trim_ascii_start();
    match (first, greeted) {
        (b"*", false) if starts(rest, b"OK") || starts(rest, b"PREAUTH") => {
            Some((Some(ReplyKind::Done), None))
        }
        (b"*", false) if starts(rest, b"BYE") => Some((Some(ReplyKind::Temporary), None)),
        (b"*", true) => Some((None, None)),
        (b"+", true) => Some((Some(ReplyKind::More), None)),
        ([b'a', number @ ..], true) => {
            let tag = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
            let kind = if starts(rest, b"OK") {
                ReplyKind::Done
            } else if starts(rest, b"NO [UNAVAILABLE]") || starts(rest, b"NO [INUSE]") {
                ReplyKind::Temporary
            } else if starts(rest, b"NO") || starts(rest, b"BAD") {
                ReplyKind::Permanent
            } else {
                return None;
            };
            Some((Some(kind), tag))
        }
        _ => None,
    }
}

/// A code of three digits, and whether more lines follow (`-`).
fn numbered(line: &[u8]) -> Option<(ReplyKind, u16, bool)> {
    let (digits, rest) = line.split_at_checked(3)?;
    let more = match rest.first() {
        None | Some(b' ') => false,
        Some(b'-') => true,
        Some(_) => return None,
    };
    let kind = match digits.first()? {
        b'1' => ReplyKind::Begun,
        b'2' => ReplyKind::Done,
        b'3' => ReplyKind::More,
        b'4' => ReplyKind::Temporary,
        b'5' => ReplyKind::Permanent,
        _ => return None,
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    Some((kind, code, more))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All replies of `bytes`, cut into pieces of `size`, and how it ended.
    fn split(protocol: Protocol, bytes: &[u8], size: usize) -> (Vec<Reply>, Result<String, ReplyError>) {
        let (mut collector, mut replies) = (Collector::new(protocol), Vec::new());
        for mut piece in bytes.chunks(size) {
            while !piece.is_empty() {
                match collector.feed(piece) {
                    Ok((used, reply)) => {
                        assert!(used > 0 && (reply.is_some() || used == piece.len()));
                        replies.extend(reply);
                        piece = &piece[used..];
                    }
                    Err(error) => return (replies, Err(error)),
                }
            }
        }
        (replies, Ok(collector.rest()))
    }

    const ALL: [Protocol; 4] = [Protocol::Pop, Protocol::Imap, Protocol::Nntp, Protocol::Ftp];

    #[test]
    fn replies_are_read_by_the_rules_of_their_protocol() {
        use Protocol::{Ftp, Imap, Nntp, Pop};
        use ReplyKind::{Begun, Done, More, Permanent, Temporary};
        type Case<'a> = (Protocol, &'a [u8], &'a [(ReplyKind, Option<u16>, Option<u32>, &'a str)]);
        let cases: [Case<'_>; 13] = [
            (Pop, b"+OK ready\r\n", &[(Done, None, None, "+OK ready")]),
            (Pop, b"+OK\n-ERR\r\n", &[(Done, None, None, "+OK"), (Permanent, None, None, "-ERR")]),
            (Pop, b"-ERR [SYS/TEMP] later\r\n", &[(Temporary, None, None, "-ERR [SYS/TEMP] later")]),
            (
                Pop,
                b"-ERR [AUTH] no\r\n+ \r\n",
                &[(Permanent, None, None, "-ERR [AUTH] no"), (More, None, None, "+")],
            ),
            (Imap, b"* OK ready\r\n", &[(Done, None, None, "* OK ready")]),
            (Imap, b"* PREAUTH x\r\n", &[(Done, None, None, "* PREAUTH x")]),
            (Imap, b"* BYE full\r\n", &[(Temporary, None, None, "* BYE full")]),
            (
                Imap,
                b"* ok x\r\n+ go\r\n* CAPABILITY X\r\na1 OK in\r\n* BYE\r\na2 OK out\r\n",
                &[
                    (Done, None, None, "* ok x"),
                    (More, None, None, "+ go"),
                    (Done, None, Some(1), "a1 OK in"),
                    (Done, None, Some(2), "a2 OK out"),
                ],
            ),
            (
                Imap,
                b"* OK x\r\na1 NO [UNAVAILABLE] x\r\na2 NO [AUTHENTICATIONFAILED] x\r\na3 BAD x\r\n",
                &[
                    (Done, None, None, "* OK x"),
                    (Temporary, None, Some(1), "a1 NO [UNAVAILABLE] x"),
                    (Permanent, None, Some(2), "a2 NO [AUTHENTICATIONFAILED] x"),
                    (Permanent, None, Some(3), "a3 BAD x"),
                ],
            ),
            (Nntp, b"200 x\r\n205\r\n", &[(Done, Some(200), None, "200 x"), (Done, Some(205), None, "205")]),
            (
                Nntp,
                b"400 full\r\n502 no\r\n",
                &[(Temporary, Some(400), None, "400 full"), (Permanent, Some(502), None, "502 no")],
            ),
            (
                Ftp,
                b"120 wait\r\n220-a\r\n anything\r\n421 x\r\n220-b\r\n220 c\r\n331 d\r\n",
                &[
                    (Begun, Some(120), None, "120 wait"),
                    (Done, Some(220), None, "220-a"),
                    (More, Some(331), None, "331 d"),
                ],
            ),
            (
                Ftp,
                b"421 x\r\n530\r\n",
                &[(Temporary, Some(421), None, "421 x"), (Permanent, Some(530), None, "530")],
            ),
        ];
        for (protocol, bytes, expected) in cases {
            let (replies, end) = split(protocol, bytes, usize::MAX);
            assert_eq!(end, Ok(String::new()));
            let short: Vec<_> = replies.iter().map(|r| (r.kind, r.code, r.tag, r.text.as_str())).collect();
            assert_eq!(short, expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for (protocol, bytes) in [
            (Protocol::Pop, &b"HTTP/1.1 400 Bad Request\r\n"[..]),
            (Protocol::Pop, b"+OKAY\r\n"),
            (Protocol::Pop, b"\r\n"),
            (Protocol::Imap, b"+OK\r\n"),
            (Protocol::Imap, b"* NO\r\n"),
            (Protocol::Imap, b"a1 OK\r\n"),
            (Protocol::Imap, b"* OK\r\nb1 OK\r\n"),
            (Protocol::Imap, b"* OK\r\na1 MAYBE\r\n"),
            (Protocol::Nntp, b"SSH-2.0-x\r\n"),
            (Protocol::Nntp, b"200-a\r\n"),
            (Protocol::Nntp, b"000 a\r\n"),
            (Protocol::Ftp, b"22\r\n"),
            (Protocol::Ftp, b"2200 x\r\n"),
            (Protocol::Ftp, b"2x0 x\r\n"),
            (Protocol::Ftp, b"\xff\xfb\x01\r\n"),
        ] {
            assert_eq!(
                split(protocol, bytes, usize::MAX).1,
                Err(ReplyError::Protocol),
                "{}",
                bytes.escape_ascii()
            );
        }
    }

    #[test]
    fn endless_lines_and_endless_replies_are_cut_off() {
        for protocol in ALL {
            assert_eq!(split(protocol, &[b'2'; 10_000], 7).1, Err(ReplyError::TooLong));
        }
        let (replies, end) =
            split(Protocol::Ftp, &[b"220-\r\n".to_vec(), b"x\r\n".repeat(100_000)].concat(), 1000);
        assert_eq!((replies.len(), end), (0, Err(ReplyError::TooLong)));
        let (replies, end) =
            split(Protocol::Imap, &[b"* OK\r\n".to_vec(), b"* x\r\n".repeat(100_000)].concat(), 1000);
        assert_eq!((replies.len(), end), (1, Err(ReplyError::TooLong)));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_the_cut_into_pieces_does_not_matter(
            pieces in prop::collection::vec(
                prop_oneof![
                    prop::sample::select(vec!["+OK", "-ERR ", "* OK", "* ", "a1 OK", "+ ", "220 ", "220-", "226 ", "\r\n", "\n"])
                        .prop_map(|text| text.as_bytes().to_vec()),
                    prop::collection::vec(any::<u8>(), 0..4),
                ],
                0..40,
            ),
            size in 1usize..40,
        ) {
            let bytes = pieces.concat();
            for protocol in ALL {
                let (replies, end) = split(protocol, &bytes, size);
                for text in replies.iter().flat_map(|reply| reply.lines.iter().chain([&reply.text])) {
                    prop_assert!(!text.contains(char::is_control));
                }
                prop_assert_eq!((replies, end), split(protocol, &bytes, usize::MAX));
            }
        }
    }
}
