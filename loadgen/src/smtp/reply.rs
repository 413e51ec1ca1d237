//! Where a reply of a server ends, and what it says, in place (RFC 5321 section 4.2).
//!
//! Owns the syntax and its caps. Refuses to know sockets, and to allocate: this is once for each command of each
//! message. Fails with a [`Class`] at what no reply can be. The checks' splitter is not used: it keeps the lines and
//! has a cap for the whole session, which here lasts as long as the run.

use crate::words::Class;

/// Most bytes of one line, its end included.
const MAX_LINE: usize = 2048;
/// Most bytes of one reply, and so of the buffer that it is read into.
pub const MAX_REPLY: usize = 16 * 1024;

/// A complete reply at the start of what was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'b> {
    /// 200 to 599, the same on every line.
    pub code: u16,
    /// All its lines, with their ends.
    pub bytes: &'b [u8],
}

impl<'b> Reply<'b> {
    /// What stands after the code, line by line.
    pub fn lines(self) -> impl Iterator<Item = &'b [u8]> {
        let lines = self.bytes.split_inclusive(|&byte| byte == b'\n');
        lines.map(|line| line.get(4..).unwrap_or_default().trim_ascii_end())
    }

    /// The first line after its code.
    #[must_use]
    pub fn text(self) -> &'b [u8] {
        self.lines().next().unwrap_or_default()
    }

    /// Its first bytes: all that its codes are read from, and zeros behind a shorter one.
    #[must_use]
    pub fn begin(self) -> [u8; 16] {
        let mut begin = [0; 16];
        for (to, from) in begin.iter_mut().zip(self.bytes) {
            *to = *from;
        }
        begin
    }

    /// The enhanced code (RFC 2034), where it agrees with the code.
    #[must_use]
    pub fn enhanced(self) -> Option<[u16; 3]> {
        let text = self.text();
        let word = text.get(..text.len().min(11))?;
        let (mut parts, mut part, mut digits) = ([0; 3], 0, 0);
        for &byte in word.iter().chain(b" ") {
            match byte {
                b'0'..=b'9' if digits < 3 => {
                    let slot = parts.get_mut(part)?;
                    *slot = *slot * 10 + u16::from(byte - b'0');
                    digits += 1;
                }
                b'.' if digits > 0 && part < 2 => (part, digits) = (part + 1, 0),
                b' ' if digits > 0 && part == 2 => {
                    return (self.code / 100 == parts[0]).then_some(parts);
                }
                _ => return None,
            }
        }
        None
    }
}

/// The first reply in `bytes`; `None`: not complete.
///
/// # Errors
/// [`Class::Protocol`] or [`Class::TooLong`].
pub fn first(bytes: &[u8]) -> Result<Option<Reply<'_>>, Class> {
    let mut start = 0;
    let mut code = None;
    loop {
        let rest = bytes.get(start..).unwrap_or_default();
        // What is wrong is wrong before its line ends: a server that says no more must not wait for its deadline.
        let digits = rest.get(..rest.len().min(3)).unwrap_or_default();
        let good = digits.iter().all(u8::is_ascii_digit)
            && digits.first().is_none_or(|first| (b'2'..=b'5').contains(first))
            && matches!(rest.get(3), None | Some(b' ' | b'-' | b'\r' | b'\n'));
        if !good {
            return Err(Class::Protocol);
        }
        let Some(end) = memchr::memchr(b'\n', rest) else {
            let long = rest.len() >= MAX_LINE || bytes.len() >= MAX_REPLY;
            return if long { Err(Class::TooLong) } else { Ok(None) };
        };
        let line = rest.get(..=end).unwrap_or_default();
        if line.len() > MAX_LINE || start + line.len() > MAX_REPLY {
            return Err(Class::TooLong);
        }
        let &[a, b, c, separator, ..] = line else { return Err(Class::Protocol) };
        if digits.len() < 3 {
            return Err(Class::Protocol);
        }
        let this = [a, b, c].iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
        if code.is_some_and(|code| code != this) {
            return Err(Class::Protocol);
        }
        code = Some(this);
        start += end + 1;
        if separator != b'-' {
            let bytes = bytes.get(..start).unwrap_or_default();
            return Ok(Some(Reply { code: this, bytes }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn replies_end_where_they_end() {
        for (bytes, code, rest) in [
            (&b"250 ok\r\n"[..], 250, 0),
            (b"250-a\r\n250 b\r\n354 go\r\n", 250, 8),
            (b"220\r\n", 220, 0),
            (b"221\n250 x\n", 221, 6),
        ] {
            let reply = first(bytes).unwrap().unwrap();
            assert_eq!(
                (reply.code, bytes.len() - reply.bytes.len()),
                (code, rest),
                "{}",
                bytes.escape_ascii()
            );
        }
        for bytes in [&b""[..], b"2", b"250", b"250-a\r\n", b"250-a\r\n250"] {
            assert_eq!(first(bytes), Ok(None), "{}", bytes.escape_ascii());
        }
        for bytes in
            [&b"HTTP/1.1"[..], b"25\r\n", b"250x\r\n", b"600 x", b"250-a\r\n251 b\r\n", b"\r\n", b"2\n"]
        {
            assert_eq!(first(bytes), Err(Class::Protocol), "{}", bytes.escape_ascii());
        }
        assert_eq!(first(&[b'2', b'5', b'0', b' '].repeat(1000)), Err(Class::TooLong));
        assert_eq!(first(&b"250-x\r\n".repeat(3000)), Err(Class::TooLong));
    }

    #[test]
    fn an_enhanced_code_must_agree() {
        for (line, expected) in [
            ("250 2.1.5 Ok\r\n", Some([2, 1, 5])),
            ("550 5.7.26\r\n", Some([5, 7, 26])),
            ("450 5.1.1 x\r\n", None),
            ("250 2.1 x\r\n", None),
            ("250 2.1.5x\r\n", None),
            ("250 2.1.1234 x\r\n", None),
            ("250 ok\r\n", None),
            ("250\r\n", None),
        ] {
            assert_eq!(first(line.as_bytes()).unwrap().unwrap().enhanced(), expected, "{line}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_nothing_panics_and_more_bytes_change_no_reply(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..60),
                "(25[01][- ][a-z.0-9]{0,8}\r?\n){0,4}".prop_map(String::into_bytes),
            ],
            more in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            if let Ok(Some(reply)) = first(&bytes) {
                prop_assert!((200..600).contains(&reply.code) && reply.bytes.ends_with(b"\n"));
                let (_, _) = (reply.enhanced(), reply.lines().count());
                let length = reply.bytes.len();
                prop_assert_eq!(first(&[&bytes[..], &more].concat()).unwrap().unwrap().bytes.len(), length);
            }
        }
    }
}
