//! What a mail box says of itself, and what of that counts.
//!
//! Owns [`Heard`], the memory of one agent: its last line, how old that may be, and when its word that the server does
//! not serve is believed. Refuses to know sockets, other servers and weights; time is an argument. Cannot fail: what is
//! no data has a word ([`NoData`]) and changes nothing but that.
//!
//! The words are HAProxy's, and mean what they mean there: `down`, `fail` and `stopped` take the server out, `drain`, `maint`
//! and `0%` let no new session in, `up` and `ready` end that. What is not said is left as it is; what was said longer
//! than [`HELD`] intervals ago is not known any more.

use std::time::{Duration, Instant};

use postfix::report::agent::{Admin, Health, Line, LineError};
use postfix::report::{QueueReport, Trouble};

use crate::weight::curve::Percent;
use crate::weight::signal::Queue;

/// Intervals for which a line counts that no other follows.
pub const HELD: u32 = 3;
/// So often in a row an agent has to say that its server does not serve: a restart of Postfix takes a second or two.
const DOWNS: u32 = 2;
/// By so much the clock of a count and ours may differ, and by a part of the time that has passed.
const DRIFT: Duration = Duration::from_secs(2);
/// Fewer messages than this are no queue where only the age of the oldest is known.
const FEW: u64 = 20;

/// Why an answer is no data. The words are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoData {
    /// The director itself could not ask.
    Local,
    /// Nothing listens.
    Refused,
    /// The host does not answer.
    Unreachable,
    /// Nothing came in time.
    Timeout,
    /// The connection was reset.
    Reset,
    /// The handshake failed, or the certificate is not the one that is asked for.
    Tls,
    /// The command said no, by its exit status.
    Failed,
    /// The end of the line is missing, or all of it.
    Cut,
    /// More than a line may have.
    TooLong,
    /// Not the words of an agent.
    Garbage,
    /// A number is negative, too large, or none.
    Absurd,
    /// Figures of a version that this program does not know.
    Version,
    /// The figures are older than they may be.
    Stale,
    /// The agent has no figures of the queue, and says why.
    Trouble(Trouble),
}

impl NoData {
    /// The word in log, JSON and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Tls => "tls",
            Self::Failed => "failed",
            Self::Cut => "cut",
            Self::TooLong => "too_long",
            Self::Garbage => "garbage",
            Self::Absurd => "absurd",
            Self::Version => "version",
            Self::Stale => "stale",
            Self::Trouble(trouble) => trouble.word(),
        }
    }
}

impl From<LineError> for NoData {
    fn from(error: LineError) -> Self {
        match error {
            LineError::Cut => Self::Cut,
            LineError::TooLong => Self::TooLong,
            LineError::Garbage | LineError::Twice => Self::Garbage,
            LineError::Absurd => Self::Absurd,
            LineError::Version => Self::Version,
        }
    }
}

/// What an agent says of its server, apart from figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Word {
    /// Nothing against it.
    #[default]
    Serves,
    /// It does not serve, since then.
    Down(Instant),
    /// The administrator wants no new session there; the word that said so.
    Drained(&'static str),
}

/// The memory of one agent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heard {
    /// The last line that was one, and when it came.
    last: Option<(Instant, Line)>,
    /// Why the last answer was no data.
    trouble: Option<NoData>,
    /// When the last answer came, data or not.
    asked: Option<Instant>,
    /// Lines in a row that say that the server does not serve.
    downs: u32,
    down: Option<Instant>,
    admin: Option<Admin>,
    percent: Option<u64>,
    /// The last queue, and when its count began by the agent's word.
    queue: Option<(Queue, Option<Duration>)>,
}

impl Heard {
    /// Takes an answer over. `interval` is the time between two of them.
    pub fn take(&mut self, now: Instant, interval: Duration, answer: Result<Line, NoData>) {
        self.asked = Some(now);
        let answer =
            answer.and_then(|line| if is_stale(&line, interval) { Err(NoData::Stale) } else { Ok(line) });
        let line = match answer {
            Ok(line) => line,
            Err(trouble) => return self.trouble = Some(trouble),
        };
        let figures = line.report.as_ref();
        self.trouble = figures.and_then(|report| report.trouble).map(NoData::Trouble);
        match line.health {
            Some(Health::Down | Health::Fail | Health::Stopped) => {
                self.downs = self.downs.saturating_add(1);
                if self.downs >= DOWNS {
                    self.down = self.down.or(Some(now));
                }
            }
            Some(Health::Up) => (self.downs, self.down) = (0, None),
            None => {}
        }
        self.admin = line.admin.or(self.admin);
        // Beside figures the percentage is what their sender makes of them; we make our own of them.
        self.percent = if figures.is_some() { None } else { line.percent.or(self.percent) };
        let queue = figures.and_then(|report| queue_of(now, report));
        if let Some(mut queue) = queue {
            let counted = figures.and_then(|report| report.counted).map(Duration::from_millis);
            if self.begins_anew(&queue, counted) {
                queue.done = None;
            }
            self.queue = Some((queue, counted));
        }
        self.last = Some((now, line));
    }

    /// Whether the count of this queue is another than that of the last one.
    fn begins_anew(&self, queue: &Queue, counted: Option<Duration>) -> bool {
        let Some((last, Some(before))) = self.queue else { return false };
        let Some(counted) = counted else { return true };
        let passed = queue.taken.saturating_duration_since(last.taken);
        let by_the_agent = counted.checked_sub(before);
        by_the_agent.is_none_or(|theirs| theirs.abs_diff(passed) > DRIFT + passed / 4)
    }

    /// Whether an answer is due soon that decides if the server serves.
    #[must_use]
    pub fn is_confirming(&self) -> bool {
        self.down.is_none() && self.downs > 0
    }

    /// What counts of its words.
    #[must_use]
    pub fn word(&self, now: Instant, interval: Duration) -> Word {
        if !self.counts(now, interval) {
            return Word::Serves;
        }
        match (self.admin, self.percent, self.down) {
            (Some(Admin::Maint), ..) => Word::Drained("maint"),
            (Some(Admin::Drain), ..) => Word::Drained("drain"),
            (_, Some(0), None) => Word::Drained("0%"),
            (_, _, Some(since)) => Word::Down(since),
            (_, _, None) => Word::Serves,
        }
    }

    /// The part of its weight that an agent without figures leaves the server.
    #[must_use]
    pub fn percent(&self, now: Instant, interval: Duration) -> Option<Percent> {
        let percent = self.percent.filter(|_| self.counts(now, interval))?;
        let percent = u8::try_from(percent.clamp(1, 100)).unwrap_or(100);
        Some(Percent::nearest(f64::from(percent) / 100.0))
    }

    /// The last queue that was known.
    #[must_use]
    pub fn queue(&self) -> Option<Queue> {
        self.queue.map(|(queue, _)| queue)
    }

    /// The last figures, and how old they are now.
    #[must_use]
    pub fn report(&self, now: Instant) -> Option<(&QueueReport, Duration)> {
        let (at, line) = self.last.as_ref()?;
        let report = line.report.as_ref()?;
        let age = Duration::from_millis(report.age.unwrap_or(0));
        Some((report, now.saturating_duration_since(*at) + age))
    }

    /// Why the last answer was no data, and for how long there has been none; `None` while there is.
    #[must_use]
    pub fn trouble(&self, now: Instant) -> Option<(NoData, Option<Duration>)> {
        let at = self.last.as_ref().map(|(at, _)| now.saturating_duration_since(*at));
        self.trouble.map(|trouble| (trouble, at))
    }

    /// Why the last answer was no data.
    #[must_use]
    pub fn trouble_word(&self) -> Option<NoData> {
        self.trouble
    }

    /// Whether it was asked at all.
    #[must_use]
    pub fn was_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// What is wrong by its figures, for people.
    #[must_use]
    pub fn complaint(&self) -> &'static str {
        let report = self.last.as_ref().and_then(|(_, line)| line.report.as_ref());
        match report.map(|report| (report.master, report.qmgr)) {
            Some((Some(false), _)) => "Postfix's master does not run",
            Some((_, Some(false))) => "qmgr does not run: mail is taken and not delivered",
            _ => "the agent says that it does not serve",
        }
    }

    fn counts(&self, now: Instant, interval: Duration) -> bool {
        let limit = interval * HELD + interval / 2;
        self.last.as_ref().is_some_and(|(at, _)| now.saturating_duration_since(*at) <= limit)
    }
}

fn is_stale(line: &Line, interval: Duration) -> bool {
    let age = line.report.as_ref().and_then(|report| report.age).unwrap_or(0);
    Duration::from_millis(age) > interval * HELD
}

/// The figures that weights follow; `None` where the queue is not known.
fn queue_of(now: Instant, report: &QueueReport) -> Option<Queue> {
    let work = report.incoming?.saturating_add(report.active?);
    // Old mail that is tried again brings its age along: of a few messages that says nothing.
    let oldest = report.oldest.map(|oldest| if work < FEW { 0 } else { oldest });
    Some(Queue {
        taken: now.checked_sub(Duration::from_millis(report.age.unwrap_or(0)))?,
        work,
        deferred: report.deferred,
        done: report.done,
        rate: report.rate.map(|rate| hundredths(rate.0)),
        waiting: report.waiting.or(oldest).map(Duration::from_secs),
    })
}

#[expect(clippy::cast_precision_loss, reason = "below 10^11 by the limits of the format")]
fn hundredths(parts: u64) -> f64 {
    parts as f64 / 100.0
}

#[cfg(test)]
mod tests {
    use postfix::report::agent::parse;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start")]
        Instant::now()
    }

    /// Lines, one each interval; `!` is an answer that never came.
    fn after(start: Instant, lines: &[&str]) -> (Heard, Instant) {
        let (mut heard, mut now) = (Heard::default(), start);
        for line in lines {
            now += INTERVAL;
            let answer = match *line {
                "!" => Err(NoData::Timeout),
                line => parse(format!("{line}\n").as_bytes()).map_err(NoData::from),
            };
            heard.take(now, INTERVAL, answer);
        }
        (heard, now)
    }

    #[test]
    fn words_mean_what_they_mean_to_haproxy() {
        for (lines, expected) in [
            (&["up"][..], "serves"),
            (&["down"], "serves"), // once may be a restart
            (&["down", "down"], "down"),
            (&["fail", "stopped"], "down"),
            (&["down", "up", "down"], "serves"),
            (&["down", "down", "up"], "serves"),
            (&["down", "50%", "down"], "down"), // what is not said stays as it is
            (&["drain"], "drain"),
            (&["drain", "up"], "drain"),
            (&["drain", "ready"], "serves"),
            (&["maint", "50%"], "maint"),
            (&["0%"], "0%"),
            (&["0%", "50%"], "serves"),
            (&["down", "down", "!"], "down"),
            (&["down", "down", "!", "!", "!"], "down"),
            (&["down", "down", "!", "!", "!", "!"], "serves"), // not known any more
            (&["drain", "!", "!", "!", "!"], "serves"),
            (&["down # v1 qmgr=0", "down # v1 qmgr=0"], "down"),
            (&["down # v1 qmgr=0 age=31000", "down # v1 qmgr=0 age=31000"], "serves"),
        ] {
            let (heard, now) = after(start(), lines);
            let word = match heard.word(now, INTERVAL) {
                Word::Serves => "serves",
                Word::Down(_) => "down",
                Word::Drained(word) => word,
            };
            assert_eq!(word, expected, "{lines:?}");
        }
    }

    #[test]
    fn a_percentage_counts_where_there_are_no_figures() {
        for (lines, expected) in [
            (&["up 40%"][..], Some(40)),
            (&["40%", "up"], Some(40)),
            (&["250%"], Some(100)),
            (&["40%", "!", "!", "!"], Some(40)),
            (&["40%", "!", "!", "!", "!"], None),
            (&["up 40% # v1 incoming=0 active=900"], None),
        ] {
            let (heard, now) = after(start(), lines);
            assert_eq!(heard.percent(now, INTERVAL).map(Percent::get), expected, "{lines:?}");
        }
    }

    #[test]
    fn what_is_no_data_has_a_word_and_is_no_queue() {
        let overflow = "up # v1 incoming=99999999999999999999999";
        for (line, expected) in [
            ("!", "timeout"),
            ("SSH-2.0-OpenSSH_9.2", "garbage"),
            ("up # v1 incoming=-1", "absurd"),
            (overflow, "absurd"),
            ("up # v2 incoming=1", "version"),
            ("up # v1 incoming=1 incoming=1", "garbage"),
            ("up # v1 incoming=1 active=1 age=30001", "stale"),
            ("up # v1 trouble=permission", "permission"),
        ] {
            let (heard, now) = after(start(), &["up # v1 incoming=1 active=2 done=3 counted=9000", line]);
            assert_eq!(heard.trouble(now).map(|(trouble, _)| trouble.name()), Some(expected), "{line}");
            assert_eq!(heard.queue().map(|queue| queue.work), Some(3), "the last one that was known: {line}");
        }
        let (heard, _) = after(start(), &["up # v1 incoming=1"]);
        assert_eq!(heard.queue(), None, "half a queue is none");
    }

    #[test]
    fn a_count_that_began_anew_is_no_rate() {
        let done = |lines: &[&str]| after(start(), lines).0.queue().and_then(|queue| queue.done);
        let before = "up # v1 incoming=0 active=0 done=5 counted=60000";
        for (line, expected) in [
            ("up # v1 incoming=0 active=0 done=700 counted=70000", Some(700)),
            ("up # v1 incoming=0 active=0 done=700 counted=74000", Some(700)),
            ("up # v1 incoming=0 active=0 done=700 counted=9000", None),
            ("up # v1 incoming=0 active=0 done=700 counted=99000", None),
            ("up # v1 incoming=0 active=0 done=700", None),
        ] {
            assert_eq!(done(&[before, line]), expected, "{line}");
        }
    }

    #[test]
    fn the_time_of_a_queue_is_ours_less_its_age() {
        let start = start();
        let (heard, now) =
            after(start, &["up # v1 incoming=3 active=4 age=2500 waiting=7 oldest=90 rate=1.50"]);
        let queue = heard.queue().unwrap();
        assert_eq!(now - queue.taken, Duration::from_millis(2_500));
        assert_eq!((queue.work, queue.rate, queue.waiting), (7, Some(1.5), Some(Duration::from_secs(7))));
        assert_eq!(heard.report(now).map(|(_, age)| age), Some(Duration::from_millis(2_500)));
    }
}
