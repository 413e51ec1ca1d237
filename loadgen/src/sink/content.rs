//! The content of a message as it comes in.
//!
//! Owns the final dot and the dots that were doubled (RFC 5321 section 4.5.2), and how much is kept. Refuses to know
//! commands. Cannot fail. What is not kept is searched, not looked at byte by byte: that is most of a sink's work.

/// Where the last byte stands in the search for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// At the start of a line.
    Start,
    Middle,
    /// After CR.
    Cr,
    /// After a dot at the start of a line.
    Dot,
    /// After that and CR.
    DotCr,
}

/// Content.
#[derive(Clone, Debug)]
pub struct Content {
    place: Place,
    keep: usize,
    /// The first bytes.
    pub kept: Vec<u8>,
    /// Bytes of all.
    pub size: usize,
}

impl Content {
    /// Nothing yet; of what comes, at most `keep` bytes are kept.
    #[must_use]
    pub fn new(keep: usize) -> Self {
        Self { place: Place::Start, keep, kept: Vec::new(), size: 0 }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.size += bytes.len();
        // What is too big is refused in the end: none of it needs to be kept.
        let most = self.keep.min(super::session::MAX_MESSAGE + 1);
        let room = most.saturating_sub(self.kept.len()).min(bytes.len());
        self.kept.extend_from_slice(bytes.get(..room).unwrap_or_default());
    }

    /// Takes at most `most` bytes as they are; says how many.
    pub fn take(&mut self, input: &mut &[u8], most: usize) -> usize {
        let (piece, rest) = input.split_at(most.min(input.len()));
        *input = rest;
        self.put(piece);
        piece.len()
    }

    /// Takes input up to the final dot, and says whether that was there.
    pub fn take_dotted(&mut self, input: &mut &[u8]) -> bool {
        while let Some((&byte, rest)) = input.split_first() {
            match (self.place, byte) {
                (Place::Start, b'.') => {
                    self.place = Place::Dot;
                    *input = rest;
                }
                (Place::Start | Place::Middle, _) => self.search(input),
                (Place::Cr, b'\n') => {
                    self.put(b"\n");
                    self.place = Place::Start;
                    *input = rest;
                }
                // CR and something else: in the middle again, where that is looked at.
                (Place::Cr, _) => self.place = Place::Middle,
                (Place::Dot, b'\r') => {
                    self.place = Place::DotCr;
                    *input = rest;
                }
                (Place::Dot, _) => self.place = Place::Middle,
                (Place::DotCr, b'\n') => {
                    *input = rest;
                    return true;
                }
                (Place::DotCr, _) => {
                    self.put(b"\r");
                    self.place = Place::Middle;
                }
            }
        }
        false
    }

    /// Takes all up to the next dot at the start of a line, with it.
    fn search(&mut self, input: &mut &[u8]) {
        match memchr::memmem::find(input, b"\r\n.") {
            Some(at) => {
                let (piece, rest) = input.split_at(at + 2);
                self.put(piece);
                self.place = Place::Dot;
                *input = rest.get(1..).unwrap_or_default();
            }
            None => {
                self.place = match *input {
                    [.., b'\r', b'\n'] => Place::Start,
                    [.., b'\r'] => Place::Cr,
                    _ => Place::Middle,
                };
                self.put(input);
                *input = &[];
            }
        }
    }
}
