//! EDGE: something is said to a TCP server, and a line of its answer matches.
//!
//! Owns [`SimpleTcpSpec`] and its escapes. Refuses to know any protocol. Fails at the stage `request`; an answer is read
//! line by line, up to a cap.
#![expect(clippy::disallowed_methods, reason = "EDGE: measures the request")]

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};

use crate::smtp::Pattern;
use crate::smtp::reply::printable;
use crate::stream::Stream;
use crate::tls::handshake::broken;
use crate::{Failure, Outcome, Reason, Stage, StageReport};

/// Most bytes of an answer.
const MAX_ANSWER: usize = 1024 * 1024;
/// Most bytes of one line.
const MAX_LINE: usize = 16 * 1024;
const READ: usize = 4096;

/// What to say, and what to wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SimpleTcpSpec {
    /// Said as it is; then our side of the connection is closed.
    pub request: Vec<u8>,
    /// Matches a line, without its end; without it any line will do.
    pub receive: Option<Pattern>,
}

/// The bytes of a text in which `\n`, `\r`, `\t` and `\\` are escapes; `None` where another escape is.
#[must_use]
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'\\' => b'\\',
                _ => return None,
            },
            byte => byte,
        });
    }
    Some(bytes)
}

/// Asks once, at the latest until `deadline`.
pub(crate) async fn ask(
    mut stream: Stream,
    spec: &SimpleTcpSpec,
    deadline: Instant,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let start = Instant::now();
    let found = match timeout_at(deadline, talk(&mut stream, spec)).await {
        Ok(found) => found,
        Err(_) => Err((Reason::Timeout, String::new())),
    };
    let line = found.map_err(|(reason, text)| Failure { stage: Stage::Request, reason, code: None, text })?;
    outcome.stages.push(StageReport {
        stage: Stage::Request,
        took: start.elapsed(),
        code: None,
        sent: printable(&spec.request),
        received: vec![line],
    });
    Ok(())
}

/// The line that matched.
async fn talk(stream: &mut Stream, spec: &SimpleTcpSpec) -> Result<String, (Reason, String)> {
    let said = async {
        stream.write_all(&spec.request).await?;
        stream.shutdown().await
    };
    said.await.map_err(|error| broken(&error))?;
    let (mut line, mut first, mut total, mut buffer) = (Vec::new(), None, 0, vec![0; READ]);
    loop {
        let length = stream.read(&mut buffer).await.map_err(|error| broken(&error))?;
        total += length;
        for &byte in buffer.get(..length).unwrap_or_default() {
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            if let Some(found) = matching(spec, &line) {
                return Ok(found);
            }
            first.get_or_insert_with(|| printable(line.trim_ascii_end()));
            line.clear();
        }
        if length == 0 {
            // The last line may have no end.
            return match matching(spec, &line) {
                Some(found) if !line.is_empty() => Ok(found),
                _ if total == 0 => Err((Reason::Closed, String::new())),
                _ => Err((Reason::Mismatch, first.unwrap_or_else(|| printable(&line)))),
            };
        }
        if line.len() > MAX_LINE || total > MAX_ANSWER {
            return Err((Reason::TooLong, first.unwrap_or_else(|| printable(&line))));
        }
    }
}

fn matching(spec: &SimpleTcpSpec, line: &[u8]) -> Option<String> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let matches = spec.receive.as_ref().is_none_or(|pattern| pattern.matches(&String::from_utf8_lossy(line)));
    matches.then(|| printable(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_those_that_a_line_protocol_needs() {
        assert_eq!(unescape("a\\r\\n\\t\\\\n\n"), Some(b"a\r\n\t\\n\n".to_vec()));
        for bad in ["\\", "\\x", "a\\0"] {
            assert_eq!(unescape(bad), None, "{bad}");
        }
    }
}
