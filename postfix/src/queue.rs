//! EDGE: what is in the queue of a Postfix.
//!
//! Owns the three sources and which of them is asked, and the scan of the spool's names. Refuses to open a queue file:
//! names and, for some, what the file system says of them are enough. Never mtime: in `deferred` it is the time of the next
//! attempt. Fails with a [`Trouble`]; a queue that was read in part is no data, since it would look short.

mod depth;
mod id;
mod listing;

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, StatxFlags, openat, statx};
use rustix::io::Errno;

use self::depth::{Age, Depth, Queue};
use self::id::QueueId;
use crate::conf::Conf;
use crate::report::{QueueReport, Source, Trouble};
use crate::timeline::Timeline;

/// A scan that takes longer is given up.
const SCAN: Duration = Duration::from_secs(10);
/// Files of incoming and active, and as many of deferred, that are asked for more than their name in one scan.
const STATS: u64 = 1000;
/// Mail that came less long ago is not asked whether it was touched meanwhile, in seconds.
const FRESH: u64 = 30;
/// `hash_queue_depth` that is followed; Postfix allows 3.
const DEPTH: u32 = 3;
/// Between two looks at the clock, in names.
const PACE: u64 = 1024;
/// Bytes of directory entries in one system call.
const BUFFER: usize = 32 * 1024;

/// Which source is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The first that this user may: scan, showq, postqueue.
    Auto,
    /// This one.
    Only(Source),
}

/// Writes what is in the queue, or why that is not known.
pub(crate) fn look(conf: &Conf, ask: Ask, timeline: &Timeline, report: &mut QueueReport) {
    let sources: &[Source] = match ask {
        Ask::Auto => &[Source::Scan, Source::Showq, Source::Postqueue],
        Ask::Only(Source::Showq) => &[Source::Showq],
        Ask::Only(Source::Postqueue) => &[Source::Postqueue],
        Ask::Only(Source::Scan | Source::Mixed) => &[Source::Scan],
    };
    for source in sources {
        let depth = match source {
            Source::Scan | Source::Mixed => scan(&conf.queue_directory, timeline),
            Source::Showq => listing::showq(&conf.queue_directory, timeline),
            Source::Postqueue => listing::postqueue(&conf.config_directory, timeline),
        };
        match depth {
            Ok(depth) => {
                depth.fill(report);
                report.source = Some(*source);
                report.trouble = None;
                if *source != Source::Scan {
                    // Neither shows these, nor when a message was touched.
                    (report.corrupt, report.other) = (None, None);
                    report.waiting = report.waiting.filter(|_| report.oldest == Some(0));
                }
                return;
            }
            // The first says why the best source does not work.
            Err(trouble) => report.trouble = report.trouble.or(Some(trouble)),
        }
        if !matches!(report.trouble, Some(Trouble::Permission)) {
            return;
        }
    }
}

/// Counts the names of a spool.
fn scan(spool: &Path, timeline: &Timeline) -> Result<Depth, Trouble> {
    let open = |parent: &OwnedFd, name: &str| openat(parent, name, FOLDER, Mode::empty());
    let top = openat(CWD, spool, FOLDER & !OFlags::NOFOLLOW, Mode::empty()).map_err(trouble)?;
    let mut scan =
        Scan { depth: Depth::default(), timeline, fresh: STATS, deferred: STATS, names: 0, start: now() };
    for queue in Queue::ALL {
        let folder = match open(&top, queue.name()) {
            Ok(folder) => folder,
            // The optional ones are made when they are needed.
            Err(Errno::NOENT) if matches!(queue, Queue::Hold | Queue::Corrupt | Queue::Maildrop) => continue,
            Err(error) => return Err(trouble(error)),
        };
        scan.folder(&folder, queue, 0)?;
    }
    Ok(scan.depth)
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

struct Scan<'a> {
    depth: Depth,
    timeline: &'a Timeline,
    /// Stats that are left for incoming and active.
    fresh: u64,
    /// Stats that are left for deferred.
    deferred: u64,
    names: u64,
    start: Instant,
}

impl Scan<'_> {
    fn folder(&mut self, folder: &OwnedFd, queue: Queue, depth: u32) -> Result<(), Trouble> {
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
        let mut entries = RawDir::new(folder, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(trouble)?;
            self.names += 1;
            if self.names.is_multiple_of(PACE) && self.start.elapsed() > SCAN {
                return Err(Trouble::Slow);
            }
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let hashed = name.to_bytes().len() == 1 && depth < DEPTH;
            match (entry.file_type(), QueueId::parse(name.to_bytes())) {
                (FileType::Directory | FileType::Unknown, _) if hashed => {
                    match openat(folder, name, FOLDER, Mode::empty()) {
                        Ok(below) => self.folder(&below, queue, depth + 1)?,
                        // Removed meanwhile, or no folder.
                        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => self.depth.other(),
                        Err(error) => return Err(trouble(error)),
                    }
                }
                (FileType::RegularFile | FileType::Unknown, Some(id)) => {
                    let age = self.age(folder, name, (queue, id));
                    self.depth.message(queue, age);
                }
                _ => self.depth.other(),
            }
        }
        Ok(())
    }

    fn age(&mut self, folder: &OwnedFd, name: &CStr, (queue, id): (Queue, QueueId)) -> Age {
        let arrived = match id {
            QueueId::Long(date) => self.timeline.age(date),
            QueueId::Short => None,
        };
        let left = match queue {
            Queue::Incoming | Queue::Active => &mut self.fresh,
            Queue::Deferred => &mut self.deferred,
            Queue::Hold | Queue::Maildrop | Queue::Corrupt => return Age::Unknown,
        };
        match arrived {
            Some(arrived) if queue == Queue::Deferred => return Age::Known { arrived, untouched: None },
            Some(arrived) if arrived <= FRESH => {
                return Age::Known { arrived, untouched: Some(arrived) };
            }
            // A long id from the future: what the file says is no better.
            None if matches!(id, QueueId::Long(_)) => return Age::Unknown,
            _ => {}
        }
        if *left == 0 {
            return match arrived {
                // More old mail in incoming than can be asked is overload, whatever it is.
                Some(arrived) => {
                    Age::Known { arrived, untouched: (queue == Queue::Incoming).then_some(arrived) }
                }
                None => Age::Unknown,
            };
        }
        *left -= 1;
        let Some(file) = File::ask(folder, name) else {
            // It left while we looked.
            return arrived.map_or(Age::Unfinished, |arrived| Age::Known { arrived, untouched: Some(0) });
        };
        if queue == Queue::Incoming && !file.complete {
            return Age::Unfinished;
        }
        let touched = self.timeline.age(file.touched);
        let arrived = arrived.or_else(|| file.created.and_then(|date| self.timeline.age(date))).or(touched);
        arrived.map_or(Age::Unknown, |arrived| Age::Known { arrived, untouched: touched.or(Some(arrived)) })
    }
}

/// What the file system says of a queue file; dates in milliseconds since 1970.
struct File {
    /// Its birth, where the file system keeps it: the message came then, whatever queue it has been in.
    created: Option<i64>,
    /// The last change of content, name or mode.
    touched: i64,
    /// Postfix sets the owner's execute bit when a message has been received.
    complete: bool,
}

impl File {
    fn ask(folder: &OwnedFd, name: &CStr) -> Option<Self> {
        let wanted = StatxFlags::MODE | StatxFlags::CTIME | StatxFlags::BTIME;
        let stat = statx(folder.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW, wanted).ok()?;
        let date = |seconds: i64, nanos: u32| {
            seconds.saturating_mul(1000).saturating_add(i64::from(nanos / 1_000_000))
        };
        let born = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
        Some(Self {
            created: born.then(|| date(stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec)),
            touched: date(stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
            complete: stat.stx_mode & 0o100 != 0,
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "EDGE: keeps the deadline of the scan")]
fn now() -> Instant {
    Instant::now()
}

fn trouble(error: Errno) -> Trouble {
    match error {
        Errno::ACCESS | Errno::PERM => Trouble::Permission,
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Trouble::NoSpool,
        _ => Trouble::System,
    }
}
