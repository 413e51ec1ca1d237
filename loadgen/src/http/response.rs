//! Where the answer to a GET ends, and what it says (RFC 9112).
//!
//! Owns the head, the three ways in which a body ends, and http_load's checksum. Refuses to know sockets. Fails with a
//! [`Class`]. The body is counted, never kept.

use crate::words::Class;

/// Most bytes of a head, and of one chunk's line.
pub const MAX_HEAD: usize = 64 * 1024;
const MAX_HEADERS: usize = 128;
const MAX_CHUNK_LINE: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// So many bytes are to come.
    Body(u64),
    /// Until the connection ends.
    Rest,
    ChunkSize,
    Chunk(u64),
    /// The line end after a chunk, and those of the trailer.
    ChunkEnd,
    Trailer,
    Done,
}

/// Whether the connection can be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It can.
    Keep,
    /// It cannot.
    Close,
}

/// An answer as it comes.
#[derive(Clone, Debug)]
pub struct Response {
    state: State,
    /// The status, once there is one.
    pub status: u16,
    /// What becomes of the connection.
    pub after: After,
    /// Bytes of the body.
    pub bytes: u64,
    /// The rotating 16-bit sum of BSD over the body, as http_load has it.
    pub sum: u16,
    /// What the header that was asked for says.
    pub server: Option<String>,
    summed: bool,
}

impl Response {
    /// Nothing yet. `summed` asks for the checksum.
    #[must_use]
    pub fn new(compare: super::Compare) -> Self {
        let summed = compare == super::Compare::Checksum;
        Self { state: State::Head, status: 0, after: After::Keep, bytes: 0, sum: 0, server: None, summed }
    }

    /// Takes what it can of `input`; says how much that was, and whether it is the end. `header` is one whose value
    /// is kept.
    ///
    /// # Errors
    /// [`Class::Protocol`] or [`Class::TooLong`].
    pub fn feed(&mut self, input: &[u8], header: Option<&str>) -> Result<(usize, bool), Class> {
        let mut used = 0;
        loop {
            let rest = input.get(used..).unwrap_or_default();
            let taken = match self.state {
                State::Done => return Ok((used, true)),
                State::Head => self.head(rest, header)?,
                State::Body(left) => {
                    let length = self.take(rest, left);
                    let left = left - u64::try_from(length).unwrap_or(left);
                    self.state = if left == 0 { State::Done } else { State::Body(left) };
                    if left > 0 {
                        return Ok((used + length, false));
                    }
                    Some(length)
                }
                State::Rest => {
                    let length = self.take(rest, u64::MAX);
                    return Ok((used + length, false));
                }
                State::Chunk(left) => {
                    let length = self.take(rest, left);
                    let left = left - u64::try_from(length).unwrap_or(left);
                    self.state = if left == 0 { State::ChunkEnd } else { State::Chunk(left) };
                    if left > 0 {
                        return Ok((used + length, false));
                    }
                    Some(length)
                }
                State::ChunkSize | State::ChunkEnd | State::Trailer => self.line(rest)?,
            };
            match taken {
                Some(taken) => used += taken,
                None => return Ok((used, false)),
            }
        }
    }

    /// The connection ended; whether that is the end of the answer.
    #[must_use]
    pub fn ends_with_connection(&self) -> bool {
        self.state == State::Rest
    }

    fn head(&mut self, input: &[u8], header: Option<&str>) -> Result<Option<usize>, Class> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Response::new(&mut headers);
        let length = match parsed.parse(input) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if input.len() < MAX_HEAD => return Ok(None),
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                return Err(Class::TooLong);
            }
            Err(_) => return Err(Class::Protocol),
        };
        self.status = parsed.code.ok_or(Class::Protocol)?;
        if (100..200).contains(&self.status) {
            return Ok(Some(length));
        }
        let (mut chunked, mut size) = (false, None);
        if parsed.version == Some(0) {
            self.after = After::Close;
        }
        for field in parsed.headers.iter() {
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            if is("content-length") {
                let text = std::str::from_utf8(field.value).map_err(|_| Class::Protocol)?;
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                let this: u64 = digits.then(|| text.parse().ok()).flatten().ok_or(Class::Protocol)?;
                if size.is_some_and(|size| size != this) {
                    return Err(Class::Protocol);
                }
                size = Some(this);
            } else if is("transfer-encoding") {
                chunked = field.value.to_ascii_lowercase().ends_with(b"chunked");
            } else if is("connection") {
                let value = field.value.to_ascii_lowercase();
                if memchr::memmem::find(&value, b"close").is_some() {
                    self.after = After::Close;
                } else if memchr::memmem::find(&value, b"keep-alive").is_some() {
                    self.after = After::Keep;
                }
            }
            if header.is_some_and(is) {
                self.server = crate::identify::name(field.value);
            }
        }
        self.state = match (self.status, chunked, size) {
            (204 | 304, ..) | (_, false, Some(0)) => State::Done,
            (_, true, _) => State::ChunkSize,
            (_, false, Some(size)) => State::Body(size),
            (_, false, None) => {
                self.after = After::Close;
                State::Rest
            }
        };
        Ok(Some(length))
    }

    /// One line of the chunked form.
    fn line(&mut self, input: &[u8]) -> Result<Option<usize>, Class> {
        let Some(end) = memchr::memchr(b'\n', input) else {
            return if input.len() > MAX_CHUNK_LINE { Err(Class::TooLong) } else { Ok(None) };
        };
        let line = input.get(..end).unwrap_or_default().trim_ascii_end();
        self.state = match self.state {
            State::ChunkSize => {
                let digits = line.split(|byte| matches!(byte, b';' | b' ')).next().unwrap_or_default();
                let digits = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'));
                match digits.and_then(|text| u64::from_str_radix(text, 16).ok()) {
                    Some(0) => State::Trailer,
                    Some(size) => State::Chunk(size),
                    None => return Err(Class::Protocol),
                }
            }
            State::ChunkEnd if line.is_empty() => State::ChunkSize,
            State::Trailer if line.is_empty() => State::Done,
            State::Trailer => State::Trailer,
            _ => return Err(Class::Protocol),
        };
        Ok(Some(end + 1))
    }

    fn take(&mut self, input: &[u8], most: u64) -> usize {
        let length = usize::try_from(most).unwrap_or(usize::MAX).min(input.len());
        if self.summed {
            for &byte in input.get(..length).unwrap_or_default() {
                self.sum = self.sum.rotate_right(1).wrapping_add(byte.into());
            }
        }
        self.bytes += u64::try_from(length).unwrap_or_default();
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Compare;
    use proptest::prelude::*;

    /// Status, bytes, sum, and how much was left, with the answer in pieces.
    fn read(bytes: &[u8], piece: usize) -> Result<(u16, u64, u16, usize, bool), Class> {
        let mut response = Response::new(Compare::Checksum);
        let (mut buffer, mut given) = (Vec::new(), 0);
        loop {
            let (used, done) = response.feed(&buffer, None)?;
            buffer.drain(..used);
            if done || given == bytes.len() {
                let left = buffer.len() + bytes.len() - given;
                return Ok((
                    response.status,
                    response.bytes,
                    response.sum,
                    left,
                    done || response.ends_with_connection(),
                ));
            }
            let next = bytes.len().min(given + piece);
            buffer.extend_from_slice(&bytes[given..next]);
            given = next;
        }
    }

    #[test]
    fn answers_end_where_they_end() {
        for (text, status, bytes, left, done) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP", 200, 3, 4, true),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\nA: b\r\n\r\nX",
                200,
                3,
                1,
                true,
            ),
            ("HTTP/1.0 404 no\r\n\r\nabc", 404, 3, 0, true),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 x\r\n\r\n", 204, 0, 0, true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", 200, 3, 0, false),
        ] {
            for piece in [1, 7, 1000] {
                let (s, b, _, l, d) = read(text.as_bytes(), piece).unwrap();
                assert_eq!((s, b, d), (status, bytes, done), "{text}");
                assert!(piece > 1000 || l >= left.min(l), "{text}");
            }
            assert_eq!(read(text.as_bytes(), 1000).unwrap().3, left, "{text}");
        }
        for text in [
            "SSH-2.0\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        ] {
            assert_eq!(read(text.as_bytes(), 1000).unwrap_err(), Class::Protocol, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_pieces_do_not_matter(
            text in "(HTTP/1\\.[01] [2-5]0[0-4] x\r\n)?((Content-Length: [0-9]{1,2}|Transfer-Encoding: chunked|Connection: close)\r\n){0,2}\r\n([0-9a-f]\r\n[a-z]{0,9}\r\n){0,3}[ -~]{0,9}",
            piece in 1usize..9,
        ) {
            let whole = read(text.as_bytes(), usize::MAX / 2).map(|(s, b, sum, _, done)| (s, b, sum, done));
            let pieces = read(text.as_bytes(), piece).map(|(s, b, sum, _, done)| (s, b, sum, done));
            prop_assert_eq!(whole, pieces);
        }
    }
}
