//! EDGE: how many messages leave the queue for good.
//!
//! The kernel tells (inotify) of each file that is deleted in `active`: that is where Postfix deletes a message when its
//! last recipient has been delivered or returned; one that must be tried again is moved to `deferred` instead. So the
//! count is exact, whatever comes and goes between two reports, and needs no memory of ids: two scans would miss every
//! message that was there at neither. Owns the watch and the count. Where something may have been missed (more events
//! than the kernel keeps, a folder that came or went) counting begins again, which the report shows. Fails by having no
//! figure: without the right to read `active`, or without a spool.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};
use rustix::io::Errno;

use crate::clock::Clock;
use crate::report::{Hundredths, MAX_NUMBER, QueueReport};

/// The rate is that of so many milliseconds at most.
const WINDOW: i64 = 10_000;
/// Between two samples of the count, at most.
const SAMPLE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Before a watch that failed is tried again.
const AGAIN: Duration = Duration::from_secs(10);
/// Most folders of a hashed `active`.
const MOST_FOLDERS: usize = 4096;

/// The count of one instance; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Done(Arc<Mutex<Tally>>);

impl Done {
    /// Counts on a thread of its own, for as long as somebody may ask.
    pub(crate) fn count(&self, spool: PathBuf, clock: Clock) {
        let tally = Arc::downgrade(&self.0);
        std::thread::spawn(move || {
            while tally.strong_count() > 0 {
                match watch(&spool.join("active")) {
                    Ok(inotify) => follow(&inotify, &tally, clock),
                    Err(_) => std::thread::sleep(AGAIN),
                }
            }
        });
    }

    pub(crate) fn fill(&self, now: i64, report: &mut QueueReport) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill(now, report);
    }
}

/// Counts until something may have been missed, or until nobody can ask any more.
fn follow(inotify: &OwnedFd, tally: &Weak<Mutex<Tally>>, clock: Clock) {
    let with = |act: &dyn Fn(&mut Tally)| match tally.upgrade() {
        Some(tally) => {
            act(&mut tally.lock().unwrap_or_else(PoisonError::into_inner));
            true
        }
        None => false,
    };
    let mut going = with(&|tally| tally.begin(clock.steady()));
    while going {
        let deleted = match poll(&mut [PollFd::new(inotify, PollFlags::IN)], Some(&SAMPLE)) {
            Ok(0) | Err(Errno::INTR) => Some(0),
            Ok(_) => read(inotify),
            Err(_) => None,
        };
        going = with(&|tally| match deleted {
            Some(deleted) => tally.add(deleted, clock.steady()),
            None => *tally = Tally::default(),
        }) && deleted.is_some();
    }
}

const WATCHED: WatchFlags = WatchFlags::DELETE
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::DONT_FOLLOW);

/// Watches a queue folder and, where it is hashed, those below it.
fn watch(active: &Path) -> Result<OwnedFd, std::io::Error> {
    let inotify = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let mut folders = vec![active.to_owned()];
    let mut watched = 0;
    while let Some(folder) = folders.pop() {
        watched += 1;
        if watched > MOST_FOLDERS {
            return Err(std::io::Error::other("too many folders"));
        }
        add_watch(&inotify, &folder, WATCHED)?;
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_name().len() == 1 && entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(inotify)
}

/// Reads all events that are there and counts the files that were deleted. `None` if that is not all that were.
fn read(inotify: &OwnedFd) -> Option<u64> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = Reader::new(inotify, &mut buffer);
    let mut deleted = 0;
    loop {
        match events.next() {
            Ok(event) => {
                let what = event.events();
                let lost = ReadFlags::QUEUE_OVERFLOW
                    | ReadFlags::IGNORED
                    | ReadFlags::UNMOUNT
                    | ReadFlags::DELETE_SELF
                    | ReadFlags::MOVE_SELF;
                // Messages are moved to active; what is created there is a folder of a hashed queue.
                if what.intersects(lost) || what.contains(ReadFlags::CREATE | ReadFlags::ISDIR) {
                    return None;
                }
                if what.contains(ReadFlags::DELETE) && !what.contains(ReadFlags::ISDIR) {
                    deleted += 1;
                }
            }
            Err(Errno::AGAIN) => return Some(deleted),
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// A count and its recent past; times in milliseconds of the steady clock.
#[derive(Debug, Default)]
struct Tally {
    since: Option<i64>,
    total: u64,
    samples: VecDeque<(i64, u64)>,
}

impl Tally {
    fn begin(&mut self, now: i64) {
        *self = Self { since: Some(now), total: 0, samples: VecDeque::from([(now, 0)]) };
    }

    fn add(&mut self, deleted: u64, now: i64) {
        self.total = self.total.saturating_add(deleted).min(MAX_NUMBER);
        if self.samples.back().is_some_and(|(time, _)| now - time < 1000) {
            return;
        }
        self.samples.push_back((now, self.total));
        // One that is older than the window stays, so that there is always a window.
        while self.samples.get(1).is_some_and(|(time, _)| now - time >= WINDOW) {
            self.samples.pop_front();
        }
    }

    fn fill(&self, now: i64, report: &mut QueueReport) {
        let Some(since) = self.since else { return };
        report.done = Some(self.total);
        report.counted = u64::try_from(now - since).ok();
        let Some((start, before)) = self.samples.front() else { return };
        // Less than a second is too short to be a rate.
        let Some(passed) = u64::try_from(now - start).ok().filter(|passed| *passed >= 1000) else { return };
        report.rate =
            self.total.saturating_sub(*before).saturating_mul(100_000).checked_div(passed).map(Hundredths);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_ten_seconds() {
        let mut tally = Tally::default();
        let mut report = QueueReport::default();
        tally.fill(0, &mut report);
        assert_eq!((report.done, report.rate), (None, None));
        tally.begin(1000);
        tally.add(50, 1400);
        tally.fill(1500, &mut report);
        assert_eq!((report.done, report.counted, report.rate), (Some(50), Some(500), None));
        for half in 4..118 {
            tally.add(0, half * 500);
        }
        assert_eq!(tally.samples.len(), 11);
        tally.add(20, 58_900);
        tally.fill(59_000, &mut report);
        assert_eq!(
            (report.done, report.counted, report.rate),
            (Some(70), Some(58_000), Some(Hundredths(181)))
        );
    }
}
