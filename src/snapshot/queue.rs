//! What the picture shows of load: factors, queues, and the line that says why.
//!
//! Owns the names in JSON of what the law and the agents say. Refuses to know how weights come about: it words it. Cannot
//! fail.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Known, RealSnapshot};
use crate::health;
use crate::heard::{HELD, Heard, Word};
use crate::model::Weight;
use crate::weight::curve::Percent;
use crate::weight::parts::Check;

/// What each cause leaves of a weight, 0 to 1; `None` is a cause that says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Factors {
    /// Its checks; 0 where they take it out.
    pub check: Option<f64>,
    /// An agent: a percentage that it says without figures, 0 where it takes the server out.
    pub agent: Option<f64>,
    /// Its queue.
    pub queue: Option<f64>,
    /// Its banner.
    pub latency: Option<f64>,
    /// That it came back not long ago.
    pub slow_start: Option<f64>,
    /// All but its checks together, as the weight has it.
    pub load: f64,
    /// Its administrator wants no new session there.
    pub drained: bool,
}

/// A queue, as its agent last told of it. What is not known is `None`, never 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueSnapshot {
    /// Messages that `qmgr` has not taken up yet.
    pub incoming: Option<u64>,
    /// Messages in delivery.
    pub active: Option<u64>,
    /// Messages that wait for another attempt.
    pub deferred: Option<u64>,
    /// Messages that wait for the administrator.
    pub hold: Option<u64>,
    /// Messages that `pickup` has not taken yet.
    pub maildrop: Option<u64>,
    /// Messages that Postfix cannot read.
    pub corrupt: Option<u64>,
    /// Seconds since the oldest of incoming and active came.
    pub oldest_seconds: Option<u64>,
    /// Seconds since the oldest of deferred came.
    pub oldest_deferred_seconds: Option<u64>,
    /// Messages that leave each second.
    pub rate: Option<f64>,
    /// Seconds that a message which comes now would wait, as the law reckons.
    pub wait_seconds: Option<f64>,
    /// Free space of the spool, in bytes.
    pub free_bytes: Option<u64>,
    /// Whether `qmgr` runs.
    pub qmgr: Option<bool>,
    /// How old all this is; `None` where there was never a report.
    pub age_seconds: Option<f64>,
    /// Why the last answer was no data: a word of a fixed vocabulary.
    pub no_data: Option<String>,
}

/// Adds what is known of the load of a server.
pub(super) fn describe(shown: &mut RealSnapshot, now: Instant, (known, heard): (&Known, Option<&Heard>)) {
    let Known { condition, parts, base, .. } = known;
    shown.factors = Factors {
        check: shown.check_factor,
        agent: match condition.agent {
            Word::Serves => parts.agent.map(Percent::ratio),
            Word::Down(_) | Word::Drained(_) => Some(0.0),
        },
        queue: parts.queue,
        latency: parts.latency,
        slow_start: parts.slow_start,
        load: parts.factor.ratio(),
        drained: matches!(condition.agent, Word::Drained(_)),
    };
    let weight = Weight(shown.weight.unwrap_or(0));
    shown.why = parts.why((*base, weight), &against(known, shown));
    if let Some(heard) = heard {
        shown.queue = Some(queue(now, heard, known));
        if parts.check != Check::Out {
            shown.why.push_str(&silence(now, heard));
        }
    }
}

/// What checks and agent say against a server.
fn against(known: &Known, shown: &RealSnapshot) -> String {
    let condition = &known.condition;
    let mut text = match (condition.agent, condition.state) {
        (Word::Drained(word), _) => return format!("drained by its agent ({word})"),
        (_, health::State::Up) => return String::new(),
        (_, health::State::Unknown) => String::new(),
        (_, health::State::Down) => "down".to_owned(),
        (_, health::State::Degraded(_)) => "degraded".to_owned(),
    };
    if let Some(seconds) = shown.since_seconds.filter(|_| !text.is_empty()) {
        let _ = write!(text, " {seconds} s");
    }
    if let Some(failure) = &condition.failure {
        let colon = if text.is_empty() { "" } else { ": " };
        let _ = write!(text, "{colon}{failure}");
    }
    text
}

/// What is said where the queue is not known.
fn silence(now: Instant, heard: &Heard) -> String {
    match heard.trouble(now) {
        None if heard.was_asked() => String::new(),
        None => "; its agent has not been asked yet".to_owned(),
        Some((reason, None)) => format!("; no data from its agent: {}, and none before", reason.name()),
        Some((reason, Some(since))) => {
            let (reason, seconds) = (reason.name(), since.as_secs());
            format!(
                "; no data from its agent for {seconds} s: {reason} (the last counts for {HELD} intervals)"
            )
        }
    }
}

fn queue(now: Instant, heard: &Heard, known: &Known) -> QueueSnapshot {
    let no_data = heard.trouble_word().map(|trouble| trouble.name().to_owned());
    let wait_seconds = known.parts.wait.map(|(own, _)| own);
    let Some((report, age)) = heard.report(now) else {
        return QueueSnapshot { no_data, wait_seconds, ..QueueSnapshot::default() };
    };
    QueueSnapshot {
        incoming: report.incoming,
        active: report.active,
        deferred: report.deferred,
        hold: report.hold,
        maildrop: report.maildrop,
        corrupt: report.corrupt,
        oldest_seconds: report.oldest,
        oldest_deferred_seconds: report.oldest_deferred,
        rate: report.rate.map(|rate| Duration::from_millis(rate.0.saturating_mul(10)).as_secs_f64()),
        wait_seconds,
        free_bytes: report.free,
        qmgr: report.qmgr,
        age_seconds: Some(age.as_secs_f64()),
        no_data,
    }
}
