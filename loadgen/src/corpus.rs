//! EDGE: messages from files: eml, mbox, maildir.
//!
//! Owns the reading, the caps, and how a file becomes what can be sent: lines ended by CRLF, without the fields that are
//! made fresh, and a second form with doubled dots where there are any. Refuses to know how it is sent. Fails with a text
//! that names the file and the way out; a file that is no message is an error, an empty one is passed over.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use mail_parser::MessageParser;

use crate::mail::Stored;
use crate::message::ID;

/// Largest message, in bytes.
const MAX_MESSAGE: u64 = 64 * 1024 * 1024;
/// Most bytes of all.
const MAX_CORPUS: usize = 1024 * 1024 * 1024;
/// Most files.
const MAX_FILES: usize = 1_000_000;
/// Longest line, in bytes (RFC 5321 section 4.5.3.1.6); a longer one is broken by servers.
const MAX_LINE: usize = 998;
/// What is made fresh, in lower case.
const FRESH: [&str; 2] = ["message-id", "date"];

/// Reads `eml:FILE` or `eml:FOLDER`, `mbox:FILE`, `maildir:FOLDER`.
///
/// # Errors
/// What is wrong, and with which file.
pub fn read(source: &str) -> Result<Vec<Stored>, String> {
    let wrong = || format!("\"{source}\" is none of eml:FILE, eml:FOLDER, mbox:FILE, maildir:FOLDER");
    let (kind, path) = source.split_once(':').ok_or_else(wrong)?;
    let path = Path::new(path);
    let mut corpus = Corpus::default();
    match kind {
        "eml" => {
            for file in files(path)? {
                corpus.add(&load(&file, MAX_MESSAGE)?, &file)?;
            }
        }
        "maildir" => {
            for folder in ["new", "cur"] {
                for file in files(&path.join(folder))? {
                    corpus.add(&load(&file, MAX_MESSAGE)?, &file)?;
                }
            }
        }
        "mbox" => {
            let bytes = load(path, u64::try_from(MAX_CORPUS).unwrap_or(u64::MAX))?;
            corpus.messages = from_bytes(Kind::Mbox, &bytes, path)?;
        }
        _ => return Err(wrong()),
    }
    if corpus.messages.is_empty() {
        return Err(format!("{}: there is no message", path.display()));
    }
    Ok(corpus.messages)
}

/// What bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One message.
    Message,
    /// An mbox.
    Mbox,
}

/// The messages in the bytes of one file, which `path` names in errors.
///
/// # Errors
/// What is wrong with them.
pub fn from_bytes(kind: Kind, bytes: &[u8], path: &Path) -> Result<Vec<Stored>, String> {
    let mut corpus = Corpus::default();
    match kind {
        Kind::Message => corpus.add(bytes, path)?,
        Kind::Mbox => {
            for message in mbox(bytes) {
                corpus.add(&message, path)?;
            }
        }
    }
    Ok(corpus.messages)
}

/// The files of a folder by name, or the one file.
fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    let trouble = |error: std::io::Error| format!("{}: {error}", path.display());
    if !fs::metadata(path).map_err(trouble)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(trouble)? {
        let entry = entry.map_err(trouble)?.path();
        let hidden = entry.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if entry.is_file() && !hidden {
            files.push(entry);
        }
        if files.len() > MAX_FILES {
            return Err(format!("{}: more than {MAX_FILES} files; take a part of them", path.display()));
        }
    }
    files.sort();
    Ok(files)
}

fn load(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let trouble = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    let file = File::open(path).map_err(|error| trouble(&error))?;
    let size = file.metadata().map_err(|error| trouble(&error))?;
    if !size.is_file() {
        return Err(trouble(&"is no regular file"));
    }
    if size.len() > most {
        return Err(trouble(&format!("has {} bytes, more than {most}; leave it out", size.len())));
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).map_err(|error| trouble(&error))?;
    Ok(bytes)
}

/// The messages of an mbox of any kind: a line `From ` begins one, and of lines that begin with `>From ` one `>` goes.
fn mbox(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut messages: Vec<Vec<u8>> = Vec::new();
    let mut after_empty = true;
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        if after_empty && line.starts_with(b"From ") {
            messages.push(Vec::new());
        } else if let Some(message) = messages.last_mut() {
            let stem = line.iter().position(|&byte| byte != b'>').unwrap_or(0);
            let quoted = stem > 0 && line.get(stem..).is_some_and(|rest| rest.starts_with(b"From "));
            message.extend_from_slice(if quoted { line.get(1..).unwrap_or_default() } else { line });
        }
        after_empty = line.trim_ascii().is_empty();
    }
    messages
}

#[derive(Default)]
struct Corpus {
    messages: Vec<Stored>,
    bytes: usize,
}

impl Corpus {
    fn add(&mut self, bytes: &[u8], path: &Path) -> Result<(), String> {
        if bytes.trim_ascii().is_empty() {
            return Ok(());
        }
        let trouble = |what: &str| format!("{}: {what}", path.display());
        if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_MESSAGE) {
            return Err(trouble(&format!(
                "has a message of {} bytes, more than {MAX_MESSAGE}; leave it out",
                bytes.len()
            )));
        }
        let stored = stored(bytes).ok_or_else(|| trouble("is no message: it has no header"))?;
        self.bytes += stored.header.len() + stored.body.len();
        if self.bytes > MAX_CORPUS {
            return Err(trouble("with it the corpus is larger than 1 GiB; take a part of it"));
        }
        self.messages.push(stored);
        Ok(())
    }
}

/// A message as it can be sent.
fn stored(bytes: &[u8]) -> Option<Stored> {
    let parsed = MessageParser::new().with_minimal_headers().parse_headers(bytes)?;
    let headers = parsed.root_part().headers();
    headers.first()?;
    let mut header = Vec::new();
    for field in headers {
        let name = field.name().to_ascii_lowercase();
        if FRESH.contains(&name.as_str()) || name.eq_ignore_ascii_case(ID) {
            continue;
        }
        let start = usize::try_from(field.offset_field()).ok()?;
        let end = usize::try_from(field.offset_end()).ok()?;
        let field = bytes.get(start..end)?;
        memchr::memchr(b':', field)?;
        lines(field, &mut header);
    }
    let end = headers.iter().map(mail_parser::Header::offset_end).max()?;
    let (before, rest) = bytes.split_at_checked(usize::try_from(end).ok()?)?;
    let rest = if before.ends_with(b"\n") { rest } else { next_line(rest) };
    let mut body = Vec::new();
    lines(next_line(rest), &mut body);
    let dotted = |bytes: &[u8]| bytes.starts_with(b".") || memchr::memmem::find(bytes, b"\r\n.").is_some();
    let stuffed = (dotted(&header) || dotted(&body)).then(|| (stuff(&header), stuff(&body)));
    Some(Stored { header, body, stuffed })
}

/// What comes after a line end, if that is what comes.
fn next_line(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\r\n").or_else(|| bytes.strip_prefix(b"\n")).unwrap_or(bytes)
}

/// Lines with CRLF at their ends, none too long; a CR elsewhere and NUL are left out, as no server takes them.
fn lines(bytes: &[u8], out: &mut Vec<u8>) {
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut length = 0;
        for &byte in line.iter().filter(|byte| !matches!(byte, b'\r' | b'\0')) {
            if length == MAX_LINE {
                out.extend_from_slice(b"\r\n");
                length = 0;
            }
            out.push(byte);
            length += 1;
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn stuff(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 16);
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_keeps_all_but_what_is_made_fresh() {
        let text = b"From: a@example.com\nMessage-ID: <old@x>\nDate: today\nSubject: two\n  lines\nX-Loadgen-Id: 1\n\n.dot\nx\r\nlast";
        let stored = stored(text).unwrap();
        assert_eq!(
            stored.header,
            b"From: a@example.com\r\nSubject: two\r\n  lines\r\n",
            "{}",
            stored.header.escape_ascii()
        );
        assert_eq!(stored.body, b".dot\r\nx\r\nlast\r\n", "{}", stored.body.escape_ascii());
        assert_eq!(stored.stuffed.unwrap().1, b"..dot\r\nx\r\nlast\r\n");
        assert_eq!(super::stored(b"no header at all"), None);
    }

    #[test]
    fn an_mbox_is_cut_at_its_from_lines() {
        let text = b"From a Mon\nA: 1\n\nx\n>From y\n>>From z\n\nFrom b Tue\nB: 2\n\nFrom here is text? no\nFrom c\nok\n";
        let messages: Vec<String> = mbox(text).into_iter().map(|m| String::from_utf8(m).unwrap()).collect();
        assert_eq!(messages[0], "A: 1\n\nx\nFrom y\n>From z\n\n");
        assert_eq!(messages.len(), 3);
    }

    proptest! {
        #[test]
        fn whatever_is_read_can_be_sent(bytes in prop::collection::vec(any::<u8>(), 0..300), text in "([A-Z][a-z]{0,5}: [ -~]{0,20}\r?\n){1,4}\r?\n([.\r\na-z]{0,9}\n){0,9}") {
            for bytes in [&bytes[..], text.as_bytes()] {
                let Some(Stored { header, body, stuffed }) = stored(bytes) else { continue };
                for part in [&header, &body] {
                    for line in part.split_inclusive(|&b| b == b'\n') {
                        prop_assert!(line.ends_with(b"\r\n") && line.len() <= MAX_LINE + 2);
                        prop_assert!(!line[..line.len() - 2].contains(&b'\r'));
                    }
                    // An empty line would end the header.
                }
                let (stuffed_header, stuffed_body) = stuffed.unwrap_or((header, body));
                prop_assert!(!stuffed_body.starts_with(b".\r\n") && !stuffed_header.starts_with(b".\r\n"));
                prop_assert!(memchr::memmem::find(&stuffed_body, b"\r\n.\r\n").is_none());
            }
        }
    }
}
