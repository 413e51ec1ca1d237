//! One message that can be told from every other, and its form on the wire.
//!
//! Owns the header [`ID`], by which a message is known wherever it turns up, and dot-stuffing. Refuses to know
//! sockets. Fails only in [`Message::wire`], for what would say more than one command or header.

/// The header that tells a message from every other.
pub const ID: &str = "X-Loadgen-Id";

/// Longest id that [`id`] reads and [`Message::wire`] takes, in bytes.
pub const MAX_ID: usize = 128;

/// A message and its envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What tells it from every other: 1 to [`MAX_ID`] bytes.
    pub id: String,
    /// The sender's address, without angle brackets; empty is the null sender.
    pub from: String,
    /// The recipient's address, without angle brackets.
    pub to: String,
    /// What follows the header: lines that end with CRLF. A bare LF is no line end (RFC 5321 section 2.3.8) and is sent
    /// as it is.
    pub body: Vec<u8>,
}

impl Message {
    /// What a server that takes the message has then: header, empty line, body, and CRLF at the end.
    #[must_use]
    pub fn content(&self) -> Vec<u8> {
        let Self { id, from, to, body } = self;
        let header = format!("From: <{from}>\r\nTo: <{to}>\r\nSubject: load\r\n{ID}: {id}\r\n\r\n");
        let end: &[u8] = if body.is_empty() || body.ends_with(b"\r\n") { b"" } else { b"\r\n" };
        [header.as_bytes(), body, end].concat()
    }

    /// What is said after DATA: the content with its dots doubled, and the final dot (RFC 5321 section 4.5.2).
    ///
    /// `None` if an id or address has a byte in it that is not printable ASCII, or a space or angle bracket.
    #[must_use]
    pub fn wire(&self) -> Option<Vec<u8>> {
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'<' | b'>'));
        let good = plain(&self.id) && plain(&self.from) && plain(&self.to);
        if !good || self.to.is_empty() || self.id.is_empty() || self.id.len() > MAX_ID {
            return None;
        }
        let content = self.content();
        let mut wire = Vec::with_capacity(content.len() + 64);
        let mut line_start = true;
        for &byte in &content {
            if line_start && byte == b'.' {
                wire.push(b'.');
            }
            line_start = byte == b'\n' && wire.last() == Some(&b'\r');
            wire.push(byte);
        }
        wire.extend_from_slice(b".\r\n");
        Some(wire)
    }
}

/// The id in the header of what a server took.
#[must_use]
pub fn id(content: &[u8]) -> Option<&str> {
    let lines = content.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    for line in lines.take_while(|line| !line.is_empty()) {
        if let Some((name, value)) = line.split_at_checked(ID.len())
            && name.eq_ignore_ascii_case(ID.as_bytes())
            && let Some(value) = value.strip_prefix(b":")
        {
            let id = std::str::from_utf8(value.trim_ascii()).ok();
            return id.filter(|id| (1..=MAX_ID).contains(&id.len()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str, body: &[u8]) -> Message {
        Message { id: id.into(), from: "a@example.com".into(), to: "b@example.com".into(), body: body.into() }
    }

    #[test]
    fn dots_are_doubled_at_the_start_of_a_line_only() {
        for (body, end) in [
            (&b""[..], &b"\r\n\r\n.\r\n"[..]),
            (b"x", b"\r\n\r\nx\r\n.\r\n"),
            (b".\r\n", b"\r\n\r\n..\r\n.\r\n"),
            (b".a\r\n..b\r\nc.\r\n", b"\r\n\r\n..a\r\n...b\r\nc.\r\n.\r\n"),
            (b"a\n.b\r.c\r\n", b"\r\n\r\na\n.b\r.c\r\n.\r\n"),
        ] {
            let wire = message("7", body).wire().unwrap();
            assert!(wire.ends_with(end), "{}", wire.escape_ascii());
        }
    }

    #[test]
    fn a_second_command_does_not_get_through() {
        for id in ["", "a\r\nRSET", "a b", "<", &"x".repeat(MAX_ID + 1)] {
            assert_eq!(message(id, b"").wire(), None);
        }
        assert_eq!(Message { to: "b>\r\nRSET".into(), ..message("1", b"") }.wire(), None);
        assert_eq!(Message { to: String::new(), ..message("1", b"") }.wire(), None);
        assert!(Message { from: String::new(), ..message("1", b"") }.wire().is_some());
    }

    #[test]
    fn the_id_is_read_from_the_header_only() {
        assert_eq!(id(&message("17-a", b"x").content()), Some("17-a"));
        for (content, expected) in [
            (&b"x-LOADGEN-id:  7 \n\n"[..], Some("7")),
            (b"A: b\r\nX-Loadgen-Id: 7", Some("7")),
            (b"A: b\r\n\r\nX-Loadgen-Id: 7\r\n", None),
            (b"X-Loadgen-Id2: 7\r\n\r\n", None),
            (b"X-Loadgen-Id: \r\n\r\n", None),
            (b"X-Loadgen-Id: \xff\r\n\r\n", None),
            (b"", None),
        ] {
            assert_eq!(id(content), expected, "{}", content.escape_ascii());
        }
    }
}
