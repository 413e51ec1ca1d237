//! From the reports of one queue to the seconds that mail waits there.
//!
//! Owns [`Queue`], what it believes of it and what is smoothed over several ([`Track`]). Refuses to know other servers and
//! weights; the times are the director's own, so that no clock of a mail box matters. Cannot fail: what no queue can be
//! is dropped, and what is missing is not known. It is never taken for an empty queue.

use std::time::{Duration, Instant};

use super::curve::progress;

/// Most messages that are believed of one queue.
const MOST_MESSAGES: u64 = 1_000_000_000;
/// Most messages that are believed to leave in a second.
const MOST_RATE: f64 = 1e6;
/// Longest wait that is believed.
const MOST_WAIT: Duration = Duration::from_secs(10 * 366 * 86_400);
/// A count that is not greater than the spread of its chance by this factor is no backlog.
const CHANCE: f64 = 2.5;
/// Fewer messages than this say nothing of how many are deferred.
const FEW: f64 = 10.0;

/// What a report says of a queue, as far as weights go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Queue {
    /// When it was like this, by the director's clock: when it was received, less the report's own age.
    pub taken: Instant,
    /// Messages in incoming and active.
    pub work: u64,
    /// Messages in deferred.
    pub deferred: Option<u64>,
    /// Messages that have left for good, counted from some start. One that goes back is a new start.
    pub done: Option<u64>,
    /// Messages that leave for good each second, where the report knows; used until `done` came twice.
    pub rate: Option<f64>,
    /// How long the oldest of `work` has waited. Used only where nothing says what leaves.
    pub waiting: Option<Duration>,
}

impl Queue {
    /// Whether a queue can be like this at `now`.
    fn is_credible(&self, now: Instant) -> bool {
        let count = |count: Option<u64>| count.is_none_or(|count| count <= MOST_MESSAGES);
        self.taken <= now && count(Some(self.work)) && count(self.deferred)
    }
}

/// What is known of a queue now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// Seconds that a message which comes now would wait.
    pub wait: f64,
    /// By how much that changes each second.
    pub growth: f64,
    /// The part of what leaves that is delivered and not put off; not known of few.
    pub delivered: Option<f64>,
}

/// The memory of one queue.
#[derive(Clone, Debug, Default)]
pub struct Track {
    last: Option<Queue>,
    heard: Option<Instant>,
    /// Messages a second: what leaves active, what leaves for good, what is deferred, by how much work grows.
    left: Option<f64>,
    done: f64,
    put_off: f64,
    grows: f64,
    /// Since when nothing left though there was work.
    stalled: Option<Instant>,
    /// The wait of the oldest, growing no faster than time.
    waiting: Option<f64>,
}

impl Track {
    /// How long no new report has come, and how long ago the last one was taken.
    #[must_use]
    pub fn silence(&self, now: Instant) -> Option<(Duration, Duration)> {
        let since = |then: Instant| now.saturating_duration_since(then);
        self.heard.map(since).zip(self.last.map(|last| since(last.taken)))
    }

    /// Since when nothing left though there was work.
    #[must_use]
    pub fn stalled_since(&self) -> Option<Instant> {
        self.stalled
    }

    /// Messages in incoming and active, when last seen.
    #[must_use]
    pub fn work(&self) -> Option<u64> {
        self.last.map(|last| last.work)
    }

    /// Takes a report over and smooths it over `time` seconds. One that was seen already or cannot be is dropped.
    pub fn absorb(&mut self, now: Instant, queue: &Queue, time: f64) {
        if !queue.is_credible(now) || self.last.is_some_and(|last| last.taken >= queue.taken) {
            return;
        }
        self.heard = Some(now);
        let Some(last) = self.last.replace(*queue) else {
            self.left = queue.rate.filter(|rate| (0.0..=MOST_RATE).contains(rate));
            self.waiting = queue.waiting.filter(|wait| *wait <= MOST_WAIT).map(|_| 0.0);
            return;
        };
        let passed = queue.taken.duration_since(last.taken).as_secs_f64().max(1e-3);
        let news = progress(passed, time);
        self.grows += news * ((count(queue.work) - count(last.work)) / passed - self.grows);
        let since_last = |now: Option<u64>, then: Option<u64>| now?.checked_sub(then?).map(count);
        let put_off = since_last(queue.deferred, last.deferred).unwrap_or(0.0) / passed;
        let done = since_last(queue.done, last.done).map(|done| done / passed).or(queue.rate);
        if let Some(done) = done.filter(|rate| (0.0..=MOST_RATE).contains(rate)) {
            let left = done + put_off;
            self.done += news * (done - self.done);
            self.put_off += news * (put_off - self.put_off);
            self.left = Some(self.left.map_or(left, |known| known + news * (left - known)));
            let moves = queue.work == 0 || left > 0.0;
            self.stalled = if moves { None } else { self.stalled.or(Some(last.taken)) };
        }
        let known = self.waiting.unwrap_or(0.0);
        let wait = queue.waiting.filter(|wait| *wait <= MOST_WAIT);
        self.waiting = wait.map(|wait| wait.as_secs_f64().min(known + passed));
    }

    /// What is known. `least_rate`, in messages a second, is what a queue that nothing leaves is taken to do, so that
    /// one message is no backlog.
    #[must_use]
    pub fn reading(&self, time: f64, least_rate: f64) -> Option<Reading> {
        let last = self.last?;
        let Some(left) = self.left else {
            return self.waiting.map(|wait| Reading { wait, growth: 0.0, delivered: None });
        };
        let (work, rate) = (count(last.work), left.max(least_rate));
        let chance = CHANCE * work.sqrt();
        let stalled = self.stalled.map_or(0.0, |since| last.taken.duration_since(since).as_secs_f64());
        let grows = self.grows.signum() * (self.grows.abs() - chance / time).max(0.0);
        let seen = (self.done + self.put_off) * time;
        let delivered =
            (last.deferred.is_some() && seen >= FEW).then(|| self.done / (self.done + self.put_off));
        Some(Reading {
            wait: ((work - chance).max(0.0) / rate).max(stalled),
            growth: grows / rate,
            delivered,
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "below 10^9 but for a counter, whose differences are")]
fn count(messages: u64) -> f64 {
    messages as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIME: f64 = 20.0;
    const LEAST_RATE: f64 = 0.2;

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start")]
        Instant::now()
    }

    /// A report every ten seconds of this work and this many done since the start.
    fn after(reports: &[(u64, u64)]) -> Track {
        let (mut track, start) = (Track::default(), start());
        for (tick, (work, done)) in reports.iter().enumerate() {
            let taken = start + Duration::from_secs(10) * u32::try_from(tick).unwrap();
            let queue =
                Queue { taken, work: *work, deferred: None, done: Some(*done), rate: None, waiting: None };
            track.absorb(taken, &queue, TIME);
        }
        track
    }

    fn wait(track: &Track) -> f64 {
        track.reading(TIME, LEAST_RATE).unwrap().wait
    }

    #[test]
    fn a_backlog_is_the_time_to_empty_it() {
        let steady: Vec<_> = (0..20).map(|tick| (400, tick * 100)).collect();
        // Of 400 some may be chance.
        assert!((30.0..40.0).contains(&wait(&after(&steady))), "{}", wait(&after(&steady)));
        assert_eq!(after(&steady).stalled_since(), None);
        assert!(wait(&after(&[(0, 0), (0, 0), (0, 0)])) < 1e-9, "nothing comes, nothing waits");
        assert!(wait(&after(&[(1, 0), (1, 1), (1, 2)])) < 1e-9, "one message is no backlog");
    }

    #[test]
    fn a_queue_that_nothing_leaves_waits_as_long_as_that_lasts() {
        let stuck: Vec<_> = (0..20).map(|_| (3, 700)).collect();
        assert!((wait(&after(&stuck)) - 190.0).abs() < 1e-6, "{}", wait(&after(&stuck)));
        let mut moves = stuck.clone();
        moves.push((3, 701));
        assert!(wait(&after(&moves)) < 1e-9, "one has left");
        let mut emptied = stuck;
        emptied.push((0, 700));
        assert!(wait(&after(&emptied)) < 1e-9, "by whatever way, none is left");
    }

    #[test]
    fn a_counter_that_begins_anew_is_no_rate() {
        let mut reports: Vec<_> = (0..20).map(|tick| (400, tick * 100)).collect();
        let before = wait(&after(&reports));
        reports.push((400, 5));
        assert!((wait(&after(&reports)) - before).abs() < 1e-6);
        reports.push((400, 105));
        assert!((wait(&after(&reports)) - before).abs() < before / 10.0);
    }

    #[test]
    fn without_a_rate_the_age_counts_and_grows_no_faster_than_time() {
        let (mut track, start) = (Track::default(), start());
        for (tick, (age, expected)) in [(5, 0.0), (15, 10.0), (9_000, 20.0), (4, 4.0)].into_iter().enumerate()
        {
            let taken = start + Duration::from_secs(10) * u32::try_from(tick).unwrap();
            let waiting = Some(Duration::from_secs(age));
            let queue = Queue { taken, work: 9, deferred: None, done: None, rate: None, waiting };
            track.absorb(taken, &queue, TIME);
            assert!((wait(&track) - expected).abs() < 1e-6, "{age}: {}", wait(&track));
        }
        let blank = Queue { waiting: None, ..track.last.unwrap() };
        let mut unknown = Track::default();
        unknown.absorb(start + TIME_OF_ALL, &blank, TIME);
        assert_eq!(unknown.reading(TIME, LEAST_RATE), None, "not known, and not empty");
    }

    const TIME_OF_ALL: Duration = Duration::from_secs(3_600);

    prop_compose! {
        fn queues()(
            at in 0u64..10_000, work: u64, deferred: Option<u64>, done: Option<u64>, rate: Option<f64>,
            waiting: Option<u64>, small: bool,
        ) -> (u64, Queue) {
            let cut = |count: u64| if small { count % 1_000 } else { count };
            (at, Queue {
                taken: start(),
                work: cut(work),
                deferred: deferred.map(cut),
                done: done.map(cut),
                rate,
                waiting: waiting.map(Duration::from_secs),
            })
        }
    }

    proptest! {
        #[test]
        fn whatever_is_reported_what_is_read_is_a_number(
            reports in proptest::collection::vec(queues(), 0..20), time in 0.01..1e6f64,
        ) {
            let (mut track, start) = (Track::default(), start());
            for (at, queue) in reports {
                let taken = start + Duration::from_millis(at);
                track.absorb(start + Duration::from_secs(5), &Queue { taken, ..queue }, time);
                if let Some(Reading { wait, growth, delivered }) = track.reading(time, LEAST_RATE) {
                    prop_assert!(wait.is_finite() && wait >= 0.0, "{wait}");
                    prop_assert!(growth.is_finite(), "{growth}");
                    prop_assert!(delivered.is_none_or(|part| (0.0..=1.0).contains(&part)), "{delivered:?}");
                }
            }
        }
    }
}
