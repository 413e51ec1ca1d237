//! Counts and ages, gathered message by message.
//!
//! Owns what is added up from any source. Refuses to know where a message was seen. Memory does not grow with the queue.

use crate::report::QueueReport;

/// The queues of Postfix that hold messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queue {
    Incoming,
    Active,
    Deferred,
    Hold,
    Maildrop,
    Corrupt,
}

impl Queue {
    /// In the order in which mail goes through them, so that one that moves during a scan is rather seen twice than never.
    pub(crate) const ALL: [Self; 6] =
        [Self::Maildrop, Self::Incoming, Self::Active, Self::Deferred, Self::Hold, Self::Corrupt];

    /// The name of its folder, and of the queue in `postqueue -j` and `showq`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Incoming => "incoming",
            Self::Active => "active",
            Self::Deferred => "deferred",
            Self::Hold => "hold",
            Self::Maildrop => "maildrop",
            Self::Corrupt => "corrupt",
        }
    }
}

/// The age of a message, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    /// Since it came to this box, and since it was last touched where that is known.
    Known { arrived: u64, untouched: Option<u64> },
    /// It is still being received.
    Unfinished,
    /// Its date makes no sense, or it was not asked.
    Unknown,
}

/// What was seen of a spool so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Depth {
    counts: [u64; 6],
    other: u64,
    oldest: Oldest,
    waiting: Oldest,
    deferred: Oldest,
    undated: bool,
}

impl Depth {
    /// One message more.
    pub(crate) fn message(&mut self, queue: Queue, age: Age) {
        if let Some(count) = self.counts.get_mut(queue as usize) {
            *count += 1;
        }
        let (mut oldest, mut waiting) = (&mut self.oldest, Some(&mut self.waiting));
        match queue {
            Queue::Incoming | Queue::Active => {}
            Queue::Deferred => (oldest, waiting) = (&mut self.deferred, None),
            Queue::Hold | Queue::Maildrop | Queue::Corrupt => return,
        }
        match age {
            Age::Known { arrived, untouched } => {
                oldest.absorb(Some(arrived));
                if let Some(waiting) = waiting {
                    waiting.absorb(untouched.map(|untouched| untouched.min(arrived)));
                }
            }
            Age::Unfinished => {
                oldest.absorb(Some(0));
                if let Some(waiting) = waiting {
                    waiting.absorb(Some(0));
                }
            }
            Age::Unknown => {
                oldest.absorb(None);
                if let Some(waiting) = waiting {
                    waiting.absorb(None);
                }
                self.undated = true;
            }
        }
    }

    /// A name that is no message.
    pub(crate) fn other(&mut self) {
        self.other += 1;
    }

    /// Messages of a queue so far.
    pub(crate) fn count(&self, queue: Queue) -> u64 {
        self.counts.get(queue as usize).copied().unwrap_or_default()
    }

    /// Writes what all queues have. What a source does not show is for the caller to take out again.
    pub(crate) fn fill(&self, report: &mut QueueReport) {
        report.incoming = Some(self.count(Queue::Incoming));
        report.active = Some(self.count(Queue::Active));
        report.deferred = Some(self.count(Queue::Deferred));
        report.hold = Some(self.count(Queue::Hold));
        report.maildrop = Some(self.count(Queue::Maildrop));
        report.corrupt = Some(self.count(Queue::Corrupt));
        report.other = Some(self.other);
        report.oldest = self.oldest.result();
        report.waiting = self.waiting.result();
        report.oldest_deferred = self.deferred.result();
        report.ages_exact = Some(!self.undated);
    }
}

/// The largest of some ages: 0 where there was none to ask, nothing where nobody knew.
#[derive(Clone, Copy, Debug, Default)]
struct Oldest {
    asked: bool,
    age: Option<u64>,
}

impl Oldest {
    fn absorb(&mut self, age: Option<u64>) {
        self.asked = true;
        self.age = self.age.max(age);
    }

    fn result(self) -> Option<u64> {
        if self.asked { self.age } else { Some(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_mail_that_is_tried_again_does_not_wait() {
        let mut depth = Depth::default();
        depth.message(Queue::Active, Age::Known { arrived: 300_000, untouched: Some(2) });
        depth.message(Queue::Incoming, Age::Known { arrived: 7, untouched: Some(9) });
        depth.message(Queue::Incoming, Age::Unfinished);
        depth.message(Queue::Hold, Age::Known { arrived: 900_000, untouched: Some(900_000) });
        depth.other();
        let mut report = QueueReport::default();
        depth.fill(&mut report);
        assert_eq!((report.incoming, report.active, report.hold), (Some(2), Some(1), Some(1)));
        assert_eq!(
            (report.oldest, report.waiting, report.oldest_deferred),
            (Some(300_000), Some(7), Some(0))
        );
        assert_eq!((report.ages_exact, report.other), (Some(true), Some(1)));
    }

    #[test]
    fn messages_without_a_date_are_counted_and_have_no_age() {
        let mut depth = Depth::default();
        depth.message(Queue::Deferred, Age::Unknown);
        let mut report = QueueReport::default();
        depth.fill(&mut report);
        assert_eq!((report.deferred, report.oldest_deferred), (Some(1), None));
        assert_eq!((report.ages_exact, report.oldest), (Some(false), Some(0)));
    }
}
