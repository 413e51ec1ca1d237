//! EDGE: what all threads of a run share.
//!
//! Owns the numbers of a closed run, the longest gap without success, and the first failure: a few atomics, and a lock that
//! is taken only when a gap is one. Refuses to know seats.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::job::Job;
use crate::mail::Store;
use crate::plan::Nanos;
use crate::trace::Numbers;

/// What all threads share.
pub struct Shared {
    /// Numbers of a closed run.
    pub(super) next: AtomicU64,
    /// When something was last done well, in nanoseconds since the start.
    last_ok: AtomicU64,
    /// The longest time without that.
    gap: Mutex<Gap>,
    /// The first failure.
    pub(super) first_failure: AtomicU64,
    /// The first success after that.
    first_good: AtomicU64,
    /// Numbers of messages that a server accepted, where they are traced.
    pub accepted: Option<Mutex<Numbers>>,
    pub(crate) first_answers: Vec<AtomicU64>,
    pub(crate) store: Store,
    pub(super) begin: Instant,
    /// When the last thread stopped to start anything.
    pub(super) ended: AtomicU64,
}

/// A time without success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// Its start and end, in nanoseconds since the start of the run.
    pub from: Nanos,
    /// The first success after it.
    pub to: Nanos,
}

impl Gap {
    /// How long it was.
    #[must_use]
    pub fn length(self) -> Duration {
        Duration::from_nanos(self.to.saturating_sub(self.from))
    }
}

impl Shared {
    /// For one run, which starts at `begin`.
    #[must_use]
    pub fn new(job: &Job, begin: Instant, accepted: Option<Numbers>) -> Self {
        Self {
            next: AtomicU64::new(0),
            last_ok: AtomicU64::new(0),
            gap: Mutex::default(),
            first_failure: AtomicU64::new(u64::MAX),
            first_good: AtomicU64::new(u64::MAX),
            accepted: accepted.map(Mutex::new),
            first_answers: job.targets.iter().map(|_| AtomicU64::new(0)).collect(),
            store: Store::new(job.seed),
            begin,
            ended: AtomicU64::new(0),
        }
    }

    /// The longest time without success: between two, or from the last to `end`.
    #[must_use]
    pub fn longest_gap(&self, end: Nanos) -> Gap {
        let last = Gap { from: self.last_ok.load(Ordering::Relaxed), to: end };
        let known = *self.gap.lock().unwrap_or_else(PoisonError::into_inner);
        if last.length() > known.length() { last } else { known }
    }

    /// How long work was started, in nanoseconds.
    #[must_use]
    pub fn started_for(&self) -> Nanos {
        self.ended.load(Ordering::Relaxed)
    }

    /// When something first failed.
    #[must_use]
    pub fn first_failure(&self) -> Option<Nanos> {
        Some(self.first_failure.load(Ordering::Relaxed)).filter(|first| *first != u64::MAX)
    }

    /// The first success after the first failure.
    #[must_use]
    pub fn first_good(&self) -> Option<Nanos> {
        Some(self.first_good.load(Ordering::Relaxed)).filter(|first| *first != u64::MAX)
    }

    pub(super) fn good(&self, now: Nanos) {
        if self.first_failure.load(Ordering::Relaxed) <= now && self.first_good.load(Ordering::Relaxed) > now
        {
            self.first_good.fetch_min(now, Ordering::Relaxed);
        }
        let before = self.last_ok.fetch_max(now, Ordering::Relaxed);
        // Most are far below a millisecond, and no lock is taken for those.
        if now.saturating_sub(before) > 1_000_000 {
            let mut gap = self.gap.lock().unwrap_or_else(PoisonError::into_inner);
            if now - before > gap.to - gap.from {
                *gap = Gap { from: before, to: now };
            }
        }
    }
}
