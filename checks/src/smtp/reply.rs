//! Bytes of an SMTP server in, replies out (RFC 5321 section 4.2).
//!
//! Owns the syntax of a reply, the caps on its size, and how a server's text is made safe to keep and print.
//! Refuses to know sockets, time, and what a code means. Fails with [`ReplyError`] at the first byte that no reply
//! can have; after that the splitter is of no more use.
//!
//! smtp-proto's own reply parser is not used for this: in 0.2.5 it takes endless continuation lines, and does not
//! compare the codes of a reply's lines.

use super::MAX_TEXT;

/// Most bytes of one line, its end included; RFC 5321 section 4.5.3.1.5 allows 512.
pub const MAX_LINE: usize = 2048;
/// Most bytes of one reply, all lines and their ends.
pub const MAX_REPLY: usize = 16 * 1024;
/// Most bytes of all replies of a session.
pub const MAX_SESSION: usize = 64 * 1024;
/// Most lines whose text is kept in [`Reply::lines`]; the others are checked and still in [`Reply::bytes`].
pub const MAX_LINES: usize = 24;

/// One complete reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 599, the same on every line.
    pub code: u16,
    /// The enhanced status code (RFC 3463) of the first line, where it agrees with the code.
    pub enhanced: Option<[u16; 3]>,
    /// The first [`MAX_LINES`] lines with their codes, each as [`printable`] makes it.
    pub lines: Vec<String>,
    /// All lines as they came, but with ` ` where a line ended right after its code, and CRLF after each.
    pub bytes: Vec<u8>,
}

/// Why bytes are no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// Not the syntax of a reply, a code outside 200 to 599, or two codes in one reply.
    Protocol,
    /// More than [`MAX_LINE`], [`MAX_REPLY`] or [`MAX_SESSION`].
    TooLong,
}

/// Splits what a server says into replies, however it is cut into pieces. One for each session.
#[derive(Debug, Default)]
pub struct Splitter {
    /// The lines of the present reply that are complete, then the one that is not.
    bytes: Vec<u8>,
    /// Where the line that is not complete begins in `bytes`.
    line: usize,
    /// Bytes that were taken in the whole session.
    session: usize,
}

impl Splitter {
    /// Takes bytes up to the end of the present reply. Says how many it took, and the reply if that is the end of it;
    /// without a reply it took them all.
    ///
    /// # Errors
    /// [`ReplyError`] at the first byte that is wrong or too much.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(usize, Option<Reply>), ReplyError> {
        let mut index = 0;
        while let Some(&byte) = bytes.get(index) {
            // Before the push: at the cap the buffer must not double once more.
            if self.bytes.len() - self.line >= MAX_LINE
                || self.bytes.len() >= MAX_REPLY
                || self.session >= MAX_SESSION
            {
                return Err(ReplyError::TooLong);
            }
            self.session += 1;
            self.bytes.push(byte);
            if !self.fits(byte) {
                // For people only: they want to see the line, not the byte.
                let line = bytes.iter().skip(index + 1).take_while(|&&byte| byte != b'\n').take(MAX_TEXT);
                self.bytes.extend(line);
                return Err(ReplyError::Protocol);
            }
            index += 1;
            if byte == b'\n' && self.end_line() {
                return Ok((index, Some(self.take())));
            }
            index += self.take_text(bytes.get(index..).unwrap_or_default());
        }
        Ok((bytes.len(), None))
    }

    /// The line that is not complete or no reply: what to show when no more comes. Printable.
    #[must_use]
    pub fn rest(&self) -> String {
        printable(self.bytes.get(self.line..).unwrap_or_default().trim_ascii_end())
    }

    /// Takes what may be anything: the rest of a line that began well, without its end, up to the caps. Says how much.
    fn take_text(&mut self, bytes: &[u8]) -> usize {
        let begun = self.bytes.len() - self.line;
        if begun < 5 || self.bytes.get(self.line + 3) == Some(&b'\r') {
            return 0;
        }
        let room = (MAX_LINE - begun).min(MAX_REPLY - self.bytes.len()).min(MAX_SESSION - self.session);
        let bytes = bytes.get(..room).unwrap_or(bytes);
        let length = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
        self.bytes.extend_from_slice(bytes.get(..length).unwrap_or_default());
        self.session += length;
        length
    }

    /// Whether `byte`, the newest of `bytes`, may stand where it does.
    fn fits(&self, byte: u8) -> bool {
        let place = self.bytes.len() - self.line - 1;
        match place {
            0..=2 if self.line > 0 => self.bytes.get(place) == Some(&byte),
            0 => (b'2'..=b'5').contains(&byte),
            1 | 2 => byte.is_ascii_digit(),
            3 => matches!(byte, b' ' | b'-' | b'\r' | b'\n'),
            4 => byte == b'\n' || self.bytes.get(self.line + 3) != Some(&b'\r'),
            _ => true,
        }
    }

    /// Makes the end of the newest line CRLF and says whether it was the last of its reply.
    fn end_line(&mut self) -> bool {
        while self.bytes.len() > self.line + 3 && matches!(self.bytes.last(), Some(b'\r' | b'\n')) {
            self.bytes.pop();
        }
        if self.bytes.len() == self.line + 3 {
            self.bytes.push(b' ');
        }
        let last = self.bytes.get(self.line + 3) == Some(&b' ');
        self.bytes.extend_from_slice(b"\r\n");
        self.line = self.bytes.len();
        last
    }

    fn take(&mut self) -> Reply {
        self.line = 0;
        let bytes = std::mem::take(&mut self.bytes);
        let code = bytes.iter().take(3).fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
        let lines = || bytes.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end);
        let enhanced = lines().next().and_then(enhanced);
        let lines = lines().take(MAX_LINES).map(printable).collect();
        Reply { code, enhanced, lines, bytes }
    }
}

/// `x.y.z` after the code and before a space or the end (RFC 2034 section 4, RFC 3463 section 2).
pub(crate) fn enhanced(line: &[u8]) -> Option<[u16; 3]> {
    let text = line.get(4..)?.split(|&byte| byte == b' ').next()?;
    let mut parts = text.split(|&byte| byte == b'.').map(|part| {
        let digits = (1..=3).contains(&part.len()) && part.iter().all(u8::is_ascii_digit);
        digits.then(|| part.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0')))
    });
    let code = [parts.next()??, parts.next()??, parts.next()??];
    let agrees = line.first().is_some_and(|&digit| code.first() == Some(&u16::from(digit - b'0')));
    (parts.next().is_none() && agrees).then_some(code)
}

/// What a server said, safe in a log line, a terminal and a metric: whatever does not print becomes an escape
/// (`\xff` for a byte that is not UTF-8), and the text ends after at most [`MAX_TEXT`] bytes.
#[must_use]
pub fn printable(bytes: &[u8]) -> String {
    // What nearly all servers say.
    if bytes.len() <= MAX_TEXT && bytes.iter().all(|&byte| matches!(byte, b' '..=b'~') && byte != b'\\') {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let mut text = String::with_capacity(bytes.len().min(MAX_TEXT));
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            let quote = matches!(char, '"' | '\'');
            let escape = char.escape_debug();
            let length = if quote { 1 } else { escape.clone().map(char::len_utf8).sum() };
            if text.len() + length > MAX_TEXT {
                return text;
            }
            if quote { text.push(char) } else { text.extend(escape) }
        }
        for byte in chunk.invalid() {
            if text.len() + 4 > MAX_TEXT {
                return text;
            }
            text.push_str("\\x");
            text.extend([byte >> 4, byte & 15].into_iter().filter_map(|n| char::from_digit(n.into(), 16)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All replies of `bytes`, cut into pieces of `size`, and how it ended.
    fn split(bytes: &[u8], size: usize) -> (Vec<Reply>, Result<String, ReplyError>) {
        let (mut splitter, mut replies) = (Splitter::default(), Vec::new());
        for mut piece in bytes.chunks(size) {
            while !piece.is_empty() {
                match splitter.feed(piece) {
                    Ok((used, reply)) => {
                        assert!(used > 0 && (reply.is_some() || used == piece.len()));
                        replies.extend(reply);
                        piece = &piece[used..];
                    }
                    Err(error) => return (replies, Err(error)),
                }
            }
        }
        (replies, Ok(splitter.rest()))
    }

    fn only(bytes: &[u8]) -> Reply {
        match split(bytes, usize::MAX) {
            (mut replies, Ok(rest)) if replies.len() == 1 && rest.is_empty() => replies.remove(0),
            other => panic!("{}: {other:?}", bytes.escape_ascii()),
        }
    }

    #[test]
    fn honest_replies_are_read() {
        for (bytes, code, lines) in [
            (&b"220 mail.example.com ESMTP\r\n"[..], 220, &["220 mail.example.com ESMTP"][..]),
            (b"220 x\n", 220, &["220 x"]),
            (b"220\r\n", 220, &["220"]),
            (b"221\n", 221, &["221"]),
            (b"220-a\r\n220 b\r\n", 220, &["220-a", "220 b"]),
            (b"220-a\n220\n", 220, &["220-a", "220"]),
            (b"250-\r\n250 \r\n", 250, &["250-", "250"]),
            (b"599 \r x\r\r\n", 599, &["599 \\r x"]),
        ] {
            let reply = only(bytes);
            assert_eq!(
                (reply.code, &reply.lines[..]),
                (code, &lines.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>()[..])
            );
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for bytes in [
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            b"SSH-2.0-x\r\n",
            b"\r\n",
            b"\n",
            b" 220 x\r\n",
            b"22\r\n",
            b"2200 x\r\n",
            b"220_x\r\n",
            b"220\rx\r\n",
            b"000 x\r\n",
            b"199 x\r\n",
            b"600 x\r\n",
            b"999 x\r\n",
            b"220-a\r\n421 b\r\n",
            b"220-a\r\n22",
            b"\x16\x03\x01\x00",
            b"\xff\xfb\x01",
            b"2\x0020 x\r\n",
        ] {
            // A piece of a reply is no error yet.
            let expected =
                if bytes.ends_with(b"\n22") { Ok("22".to_owned()) } else { Err(ReplyError::Protocol) };
            assert_eq!(split(bytes, usize::MAX).1, expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_wrong_line_can_be_shown() {
        let mut splitter = Splitter::default();
        assert_eq!(splitter.feed(b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n"), Err(ReplyError::Protocol));
        assert_eq!(splitter.rest(), "HTTP/1.1 400 Bad Request");
    }

    #[test]
    fn a_line_may_have_max_line_bytes_and_no_more() {
        let mut line = [b"220 ".to_vec(), vec![b'x'; MAX_LINE - 6], b"\r\n".to_vec()].concat();
        assert_eq!(only(&line).bytes.len(), MAX_LINE);
        line.insert(4, b'x');
        assert_eq!(split(&line, 100).1, Err(ReplyError::TooLong));
        assert_eq!(split(&[b"220".to_vec(), vec![b'\r'; 5000]].concat(), 9).1, Err(ReplyError::Protocol));
        assert_eq!(split(&[b"220 ".to_vec(), vec![b'\r'; 5000]].concat(), 9).1, Err(ReplyError::TooLong));
    }

    #[test]
    fn an_endless_reply_is_cut_off() {
        for line in ["220-\r\n", "220-\n", "220-1.1\r\n", "220-mail.example.com ESMTP\r\n"] {
            assert_eq!(split(line.repeat(10_000).as_bytes(), 1000), (Vec::new(), Err(ReplyError::TooLong)));
        }
    }

    #[test]
    fn a_long_reply_keeps_few_lines_and_all_bytes() {
        let reply = only(["250-SIZE\r\n".repeat(1000).as_bytes(), b"250 DSN\r\n"].concat().as_slice());
        assert_eq!((reply.lines.len(), reply.bytes.len()), (MAX_LINES, 10_009));
    }

    #[test]
    fn many_short_replies_are_too_much_in_the_end() {
        let (replies, end) = split("220 x\r\n".repeat(20_000).as_bytes(), 1000);
        assert_eq!((replies.len(), end), (MAX_SESSION / 7, Err(ReplyError::TooLong)));
    }

    #[test]
    fn enhanced_codes_are_read_where_they_agree() {
        for (line, expected) in [
            ("250 2.1.0 Ok\r\n", Some([2, 1, 0])),
            ("451 4.7.100\r\n", Some([4, 7, 100])),
            ("421-4.3.2 a\r\n421 5.5.5 b\r\n", Some([4, 3, 2])),
            ("451 5.7.1 x\r\n", None),
            ("250 2.1.0.4 x\r\n", None),
            ("250 2.1 x\r\n", None),
            ("250 2..0 x\r\n", None),
            ("250 2.1.0000 x\r\n", None),
            ("250 22.1.0 x\r\n", None),
            ("250\r\n", None),
        ] {
            assert_eq!(only(line.as_bytes()).enhanced, expected, "{line}");
        }
    }

    #[test]
    fn text_is_printable_and_short() {
        for (bytes, text) in [
            (&b"it's \"ok\""[..], "it's \"ok\""),
            (b"\x1b[2J\0\x07", "\\u{1b}[2J\\0\\u{7}"),
            (b"\xff\x0a\xc3\x28", "\\xff\\n\\xc3("),
            ("größe \u{202e}x\u{2028}".as_bytes(), "größe \\u{202e}x\\u{2028}"),
        ] {
            assert_eq!(printable(bytes), text);
        }
        assert_eq!(printable(&[0xff; 500]).len(), MAX_TEXT);
        assert_eq!(printable("x\u{e9}".repeat(100).as_bytes()).len(), 199);
    }

    /// Bytes that get past the first check more often than noise does.
    fn likely() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(
            prop_oneof![
                prop::sample::select(vec![
                    "220 ", "220-", "250 ", "250-", "421 ", "\r\n", "\n", "\r", "2", "."
                ])
                .prop_map(|s| s.as_bytes().to_vec()),
                prop::collection::vec(any::<u8>(), 0..4),
            ],
            0..60,
        )
        .prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn the_cut_into_pieces_does_not_matter(bytes in likely(), size in 1usize..40) {
            prop_assert_eq!(split(&bytes, size), split(&bytes, usize::MAX));
        }

        #[test]
        fn no_bytes_panic_and_all_that_is_kept_is_bounded(bytes in prop_oneof![likely(), prop::collection::vec(any::<u8>(), 0..3000)]) {
            for reply in split(&bytes, 7).0 {
                prop_assert!((200..=599).contains(&reply.code));
                prop_assert!(!reply.lines.is_empty() && reply.lines.len() <= MAX_LINES);
                for line in &reply.lines {
                    prop_assert!(line.len() <= MAX_TEXT && !line.chars().any(char::is_control));
                }
            }
        }
    }
}
