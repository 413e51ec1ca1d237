//! EDGE: the queue as Postfix's own programs list it, for users who may not read the spool.
//!
//! `showq` writes pairs of name and value, each ended by NUL; a message ends with an empty name, the list with one more.
//! `postqueue -j` (Postfix 3.1) prints one JSON object a message. Both open every queue file and say addresses, which are
//! skipped here and kept nowhere. Both have a deadline and a size. Neither says when a message was last touched.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use super::depth::{Age, Depth, Queue};
use crate::bounded::{Bounded, Run};
use crate::report::Trouble;
use crate::timeline::Timeline;

/// Postfix lists some 15,000 messages a second.
const LIMIT: Duration = Duration::from_secs(60);
/// Most bytes of a list: more than a million messages with a recipient each.
const MOST: u64 = 512 << 20;
/// Longest name or value of `showq` that is kept to be looked at; of longer ones only the end is awaited.
const MAX_TEXT: usize = 64;

/// What is needed of a message; everything else is skipped as it is read.
#[derive(Deserialize)]
struct Entry {
    queue_name: String,
    /// Seconds since 1970.
    arrival_time: i64,
}

pub(super) fn postqueue(config: &Path, timeline: &Timeline) -> Result<Depth, Trouble> {
    let mut command = Command::new("postqueue");
    let mut run = Run::start(command.arg("-c").arg(config).arg("-j"), LIMIT, MOST)?;
    let depth = read_postqueue(BufReader::with_capacity(64 << 10, &mut run.output), timeline);
    match run.output.trouble() {
        Some(trouble) => Err(trouble),
        // One that failed says so on standard error and its exit status.
        None => run.end().and(depth),
    }
}

pub(super) fn showq(spool: &Path, timeline: &Timeline) -> Result<Depth, Trouble> {
    let socket = UnixStream::connect(spool.join("public/showq")).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => Trouble::Permission,
        _ => Trouble::NoAnswer,
    })?;
    let mut list = Bounded::new(socket, LIMIT, MOST);
    let depth = read_showq(BufReader::with_capacity(64 << 10, &mut list), timeline);
    list.trouble().map_or(depth, Err)
}

fn read_postqueue(input: impl Read, timeline: &Timeline) -> Result<Depth, Trouble> {
    let mut depth = Depth::default();
    for entry in serde_json::Deserializer::from_reader(input).into_iter::<Entry>() {
        let entry = entry.map_err(|_| Trouble::Garbage)?;
        message(&mut depth, timeline, (entry.queue_name.as_bytes(), entry.arrival_time));
    }
    Ok(depth)
}

fn read_showq(mut input: impl BufRead, timeline: &Timeline) -> Result<Depth, Trouble> {
    let mut depth = Depth::default();
    let mut greeted = false;
    loop {
        let (mut queue, mut time) = (None, None);
        let mut members = 0_u64;
        loop {
            let name = text(&mut input)?;
            if name.is_empty() {
                break;
            }
            let value = text(&mut input)?;
            members += 1;
            match name.as_slice() {
                b"queue_name" => queue = Some(value),
                b"time" => time = std::str::from_utf8(&value).ok().and_then(|time| time.parse().ok()),
                b"protocol" => greeted = true,
                _ => {}
            }
        }
        match (queue, time) {
            (Some(queue), Some(time)) => message(&mut depth, timeline, (&queue, time)),
            // The end, or what Postfix 3.7 greets with.
            (None, None) if members == 0 => return Ok(depth),
            (None, None) if greeted && members == 1 => {}
            _ => return Err(Trouble::Garbage),
        }
    }
}

/// Up to the next NUL, of which no more than [`MAX_TEXT`] bytes are kept. The end of the input is no end of a list.
fn text(input: &mut impl BufRead) -> Result<Vec<u8>, Trouble> {
    let mut text = Vec::new();
    loop {
        let bytes = input.fill_buf().map_err(|_| Trouble::System)?;
        if bytes.is_empty() {
            return Err(Trouble::Garbage);
        }
        let end = bytes.iter().position(|byte| *byte == 0);
        let piece = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
        text.extend(piece.iter().take(MAX_TEXT - text.len()));
        let used = end.map_or(bytes.len(), |end| end + 1);
        input.consume(used);
        if end.is_some() {
            return Ok(text);
        }
    }
}

/// A queue that is not known is counted with the names that are no messages.
fn message(depth: &mut Depth, timeline: &Timeline, (queue, seconds): (&[u8], i64)) {
    let age = timeline.age(seconds.saturating_mul(1000));
    let age = age.map_or(Age::Unknown, |arrived| Age::Known { arrived, untouched: None });
    match Queue::ALL.into_iter().find(|known| known.name().as_bytes() == queue) {
        Some(queue) => depth.message(queue, age),
        None => depth.other(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::QueueReport;
    use crate::timeline::Now;

    const NOW: i64 = 1_800_000_000;

    fn timeline() -> Timeline {
        let mut timeline = Timeline::default();
        timeline.observe(Now { wall: NOW * 1000, steady: 0 });
        timeline
    }

    fn report(depth: &Depth) -> QueueReport {
        let mut report = QueueReport::default();
        depth.fill(&mut report);
        report
    }

    #[test]
    fn both_lists_give_counts_and_ages_and_no_address() {
        let json = format!(
            "{{\"queue_name\":\"deferred\",\"queue_id\":\"A\",\"arrival_time\":{},\"message_size\":1,\"sender\":\"a@b\",\"recipients\":[{{\"address\":\"c@d\"}}]}}\n\
             {{\"arrival_time\":{},\"queue_name\":\"active\",\"new\":null}}\n{{\"queue_name\":\"hold\",\"arrival_time\":{}}}\n",
            NOW - 500,
            NOW - 5,
            NOW + 9999
        );
        let showq = format!(
            "protocol\0mail_queue_list_protocol\0\0\
             queue_name\0deferred\0queue_id\0A\0time\0{}\0size\01\0sender\0a@b\0recipient\0c@d\0reason\0{}\0\0\
             queue_name\0active\0time\0{}\0\0queue_name\0hold\0time\0{}\0\0\0",
            NOW - 500,
            "x".repeat(200_000),
            NOW - 5,
            NOW + 9999
        );
        let lists = [
            read_postqueue(json.as_bytes(), &timeline()),
            read_showq(BufReader::with_capacity(7, showq.as_bytes()), &timeline()),
        ];
        for list in lists {
            let report = report(&list.unwrap());
            assert_eq!((report.deferred, report.active, report.hold), (Some(1), Some(1), Some(1)));
            assert_eq!((report.oldest_deferred, report.oldest), (Some(500), Some(5)));
        }
    }

    #[test]
    fn a_list_without_its_end_is_no_data() {
        let whole = "queue_name\0active\0time\x001800000000\0\0\0";
        assert_eq!(report(&read_showq(whole.as_bytes(), &timeline()).unwrap()).active, Some(1));
        for end in 0..whole.len() {
            assert_eq!(
                read_showq(&whole.as_bytes()[..end], &timeline()).err(),
                Some(Trouble::Garbage),
                "{end}"
            );
        }
        assert_eq!(report(&read_showq(&b"\0"[..], &timeline()).unwrap()).active, Some(0));
        for garbage in
            ["{\"queue_name\":\"active\"", "Mail queue is empty", "{\"queue_name\":5}", "[]", "\u{0}"]
        {
            assert_eq!(
                read_postqueue(garbage.as_bytes(), &timeline()).err(),
                Some(Trouble::Garbage),
                "{garbage}"
            );
        }
        assert_eq!(report(&read_postqueue(&b""[..], &timeline()).unwrap()).active, Some(0));
        for garbage in ["220 mail\r\n", "time\x005\0\0\0", "queue_name\0active\0time\0-\0\0\0"] {
            assert_eq!(
                read_showq(garbage.as_bytes(), &timeline()).err(),
                Some(Trouble::Garbage),
                "{garbage}"
            );
        }
    }
}
