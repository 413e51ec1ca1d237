//! Rise and fall: when a row of outcomes becomes a change of state.
//!
//! Owns [`Health`]. Refuses to know what was checked, what an outcome says (`verdict`) and what a state means for a
//! weight; time is an argument. Cannot fail.
//!
//! A server that flaps is trusted less, unless the rules say otherwise: each change for the worse within [`MEMORY`]
//! doubles the row of good outcomes that brings it back, up to [`MOST`] times.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use checks::{Failure, Outcome, Reason, Stage};

use crate::verdict::{Factor, Verdict, Verdicts};

/// How long a change for the worse is held against a server.
const MEMORY: Duration = Duration::from_secs(600);
/// How many times the usual row of successes a server that flaps needs at most; a power of two.
const MOST: u32 = 16;

/// What is known of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Not enough was seen yet. Not "down": whatever the table has stays.
    #[default]
    Unknown,
    /// It is well.
    Up,
    /// It serves, with a part of its weight.
    Degraded(Factor),
    /// It failed often enough.
    Down,
}

impl State {
    /// The word in log, JSON and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Degraded(_) => "degraded",
            Self::Down => "down",
        }
    }

    fn verdict(self) -> Option<Verdict> {
        match self {
            Self::Unknown => None,
            Self::Up => Some(Verdict::Up),
            Self::Degraded(factor) => Some(Verdict::Degraded(factor)),
            Self::Down => Some(Verdict::Down),
        }
    }
}

impl From<Verdict> for State {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Up => Self::Up,
            Verdict::Degraded(factor) => Self::Degraded(factor),
            Verdict::Down => Self::Down,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Degraded(factor) => write!(f, "degraded to {factor}"),
            _ => f.pad(self.name()),
        }
    }
}

/// By what outcomes are judged.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Failures in a row that make a server worse, where the table names no other number; at least 1.
    pub fall: u32,
    /// Better outcomes in a row that make a server better; at least 1. One that is unknown needs a single one.
    pub rise: u32,
    /// Whether flapping makes that row longer.
    pub damping: bool,
    /// What each failure says.
    pub verdicts: &'a Verdicts,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The state now.
    pub to: State,
    /// How many outcomes in a row it took.
    pub after: u32,
}

/// The memory of one check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    state: State,
    against: Row,
    /// Outcomes in a row that say "down", whatever the state.
    downs: u32,
    /// When it became worse, not longer ago than [`MEMORY`].
    falls: VecDeque<Instant>,
    /// Outcomes in a row in which it could not be connected to.
    unreached: u32,
    gone: bool,
    last_failure: Option<Failure>,
}

/// Outcomes in a row that speak against the state, all in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Row {
    #[default]
    None,
    /// Worse than the state, at best so.
    Worse { count: u32, best: Verdict },
    /// Better than the state, at worst so.
    Better { count: u32, worst: Verdict },
}

impl Health {
    /// What is known now.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether the last outcomes speak against the state: a change is being confirmed.
    #[must_use]
    pub fn is_confirming(&self) -> bool {
        self.against != Row::None
    }

    /// Whether it is down because it cannot be connected to: it fell so, or has been so for as long as a fall takes. One
    /// lost connection does not turn trouble that all may share into a server that is gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Why it failed last; `None` once it is up without a failure since.
    #[must_use]
    pub fn last_failure(&self) -> Option<&Failure> {
        self.last_failure.as_ref()
    }

    /// Takes one outcome into account.
    ///
    /// A failure of the director itself says nothing about the server: it is shown, and changes nothing else.
    pub fn observe(&mut self, now: Instant, outcome: &Outcome, rules: Rules<'_>) -> Option<Transition> {
        if let Err(failure) = &outcome.verdict {
            self.last_failure = Some(failure.clone());
        }
        let cell = rules.verdicts.of(outcome)?;
        let seen = cell.verdict;
        self.downs = if seen == Verdict::Down { self.downs.saturating_add(1) } else { 0 };
        let after = cell.after.unwrap_or(rules.fall);
        let reached = match self.state.verdict() {
            Some(state) if seen < state => self.better(now, seen, rules),
            Some(state) if seen == state => {
                self.against = Row::None;
                None
            }
            None if seen == Verdict::Up => Some((Verdict::Up, 1)),
            Some(_) | None => self.worse(seen, after),
        };
        let transition = reached.map(|(verdict, after)| self.become_so(now, verdict, after));
        let unreached = outcome.verdict.as_ref().err().is_some_and(is_unreached);
        self.unreached = if unreached { self.unreached.saturating_add(1) } else { 0 };
        let fell = transition.is_some();
        self.gone =
            self.state == State::Down && unreached && (fell || self.gone || self.unreached >= rules.fall);
        if self.state == State::Up && outcome.verdict.is_ok() {
            self.last_failure = None;
        }
        transition
    }

    fn worse(&mut self, seen: Verdict, after: u32) -> Option<(Verdict, u32)> {
        let (count, best) = match self.against {
            Row::Worse { count, best } => (count.saturating_add(1), best.min(seen)),
            Row::None | Row::Better { .. } => (1, seen),
        };
        self.against = Row::Worse { count, best };
        if seen == Verdict::Down && self.downs >= after {
            return Some((Verdict::Down, self.downs));
        }
        // Not all of the row were that bad; all of it were at least so bad.
        (count >= after).then_some((best, count))
    }

    fn better(&mut self, now: Instant, seen: Verdict, rules: Rules<'_>) -> Option<(Verdict, u32)> {
        let (count, worst) = match self.against {
            Row::Better { count, worst } => (count.saturating_add(1), worst.max(seen)),
            Row::None | Row::Worse { .. } => (1, seen),
        };
        self.against = Row::Better { count, worst };
        self.falls.retain(|fall| now.duration_since(*fall) < MEMORY);
        let held = if rules.damping { self.falls.len() } else { 0 };
        let doublings = u32::try_from(held).unwrap_or(u32::MAX).saturating_sub(1);
        let needed = rules.rise.saturating_mul(1u32.checked_shl(doublings).unwrap_or(MOST).min(MOST));
        (count >= needed).then_some((worst, count))
    }

    fn become_so(&mut self, now: Instant, verdict: Verdict, after: u32) -> Transition {
        let from = std::mem::replace(&mut self.state, verdict.into());
        self.against = Row::None;
        if self.state > from && self.state != State::Up {
            self.falls.push_back(now);
            // More would not count.
            if self.falls.len() > MOST as usize {
                self.falls.pop_front();
            }
        }
        Transition { from, to: self.state, after }
    }
}

/// A server that cannot be connected to. All else that can be wrong with one is a soft reason.
#[must_use]
pub fn is_unreached(failure: &Failure) -> bool {
    match failure.reason {
        Reason::Refused | Reason::Unreachable => true,
        _ => matches!(failure.stage, Stage::Connect | Stage::Echo),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::verdict::{Cell, Row as TableRow};

    fn outcome(verdict: Result<(), Reason>) -> Outcome {
        Outcome {
            verdict: verdict.map_err(|reason| Failure {
                stage: Stage::Banner,
                reason,
                code: None,
                text: String::new(),
            }),
            took: Duration::ZERO,
            stages: vec![],
            capabilities: vec![],
            tls: None,
        }
    }

    /// A health, and a clock that goes on by a second with each outcome.
    struct Play {
        health: Health,
        now: Instant,
        damping: bool,
        verdicts: Verdicts,
    }

    impl Play {
        fn new() -> Self {
            #[expect(clippy::disallowed_methods, reason = "any instant will do as the start")]
            let now = Instant::now();
            let mut verdicts = Verdicts::default();
            for (row, cell) in [
                ("tempfail", "degraded"),
                ("permfail", "degraded 25%"),
                ("mismatch", "up"),
                ("reset", "down after 1"),
            ] {
                verdicts.set(TableRow::parse(row).unwrap(), Cell::parse(cell).unwrap());
            }
            Self { health: Health::default(), now, damping: true, verdicts }
        }

        /// `+` success, `-` failure, `h` and `q` what degrades to a half and to a quarter, `!` what is down at once, `t` what is down and
        /// answers, `.` a failure that is up all the same, `?` the director could not ask; the answer has a letter a step.
        fn sees(&mut self, outcomes: &str) -> String {
            let step = |c| {
                let verdict = match c {
                    '+' => Ok(()),
                    '-' => Err(Reason::Refused),
                    'h' => Err(Reason::Tempfail),
                    'q' => Err(Reason::Permfail),
                    '!' => Err(Reason::Reset),
                    '.' => Err(Reason::Mismatch),
                    't' => Err(Reason::Protocol),
                    _ => Err(Reason::Local),
                };
                self.now += Duration::from_secs(1);
                let rules = Rules { fall: 3, rise: 2, damping: self.damping, verdicts: &self.verdicts };
                let transition = self.health.observe(self.now, &outcome(verdict), rules);
                assert_eq!(transition.map(|t| t.to), transition.map(|_| self.health.state()));
                match self.health.state() {
                    State::Unknown => '.',
                    State::Up => 'U',
                    State::Degraded(factor) if factor == Factor::HALF => 'H',
                    State::Degraded(_) => 'Q',
                    State::Down => 'D',
                }
            };
            outcomes.chars().map(step).collect()
        }
    }

    #[test]
    fn states_follow_rise_and_fall() {
        for (outcomes, expected) in [
            ("+", "U"),             // the first success is enough for a server that nobody knows
            ("---", "..D"),         // the first failure is not: the table may know better
            ("+---", "UUUD"),       //
            ("+--+--+", "UUUUUUU"), // failures count only in a row
            ("---+-+", "..DDDD"),   // and so do successes
            ("---++", "..DDU"),     //
            ("+--?-", "UUUUD"),     // what says nothing does not break a row
            ("????", "...."),       // and changes nothing by itself
            ("+hhh", "UUUH"),       //
            ("+h-h--", "UUUHHH"),   // two of the row were worse, all of it was so bad
            ("+hh---", "UUUHHD"),   // and three in a row are what they are
            ("+-hh", "UUUH"),       //
            ("+hqh", "UUUH"),       //
            ("+qqqhh", "UUUQQH"),   // a little better is better
            ("---hh", "..DDH"),     //
            ("---h+", "..DDH"),     // the worse of the two
            ("---h+++", "..DDHHU"), //
            ("+!", "UD"),           // a row of its own in the table
            ("+--!", "UUUD"),       //
            ("+...", "UUUU"),       //
        ] {
            assert_eq!(Play::new().sees(outcomes), expected, "{outcomes}");
        }
    }

    #[test]
    fn a_server_that_flaps_needs_longer_each_time_up_to_a_limit() {
        let mut play = Play::new();
        play.sees("+");
        let mut needed = Vec::new();
        for _ in 0..7 {
            play.sees("---");
            let rise = (1..).find(|_| play.sees("+") == "U");
            needed.extend(rise);
        }
        assert_eq!(needed, [2, 4, 8, 16, 32, 32, 32]);
        play.now += MEMORY;
        play.sees("---");
        assert_eq!(play.sees("++"), "DU", "ten minutes later it is forgiven");
    }

    #[test]
    fn without_damping_the_tenth_fall_is_as_the_first() {
        let mut play = Play { damping: false, ..Play::new() };
        play.sees("+");
        for _ in 0..10 {
            assert_eq!(play.sees("---++"), "UUDDU");
        }
    }

    #[test]
    fn a_server_is_gone_when_it_fell_so_or_has_been_so_for_a_whole_fall() {
        for (outcomes, gone) in [
            ("+---", true),
            ("+tt-", true),    // what it fell by
            ("+--t", false),   //
            ("+ttt-", false),  // one lost connection is none
            ("+ttt---", true), //
            ("+---t", false),  // somebody is there again
            ("+---t-", false), //
            ("+---+", false),  //
            ("---", true),
        ] {
            let mut play = Play::new();
            play.sees(outcomes);
            assert_eq!(play.health.is_gone(), gone, "{outcomes}");
        }
    }

    #[test]
    fn the_reason_is_kept_until_the_server_is_well_again() {
        let mut play = Play::new();
        play.sees("---+");
        assert_eq!(play.health.last_failure().map(|f| f.reason), Some(Reason::Refused));
        play.sees("+");
        assert_eq!(play.health.last_failure(), None);
        play.sees(".");
        assert_eq!(
            play.health.last_failure().map(|f| f.reason),
            Some(Reason::Mismatch),
            "it is told all the same"
        );
        play.sees("+");
        assert_eq!(play.health.last_failure(), None);
    }

    proptest! {
        /// An hour of a server that is well but for single failures, whatever they are.
        #[test]
        fn single_failures_change_nothing(failures in proptest::collection::vec("[-hq.?]\\+{1,5}", 1..400)) {
            let mut play = Play::new();
            play.sees("+");
            for failure in failures {
                let seen = play.sees(&failure);
                prop_assert!(seen.chars().all(|state| state == 'U'), "{failure}: {seen}");
            }
        }

        /// Whatever came before: a row of one kind is believed once it is twice as long as any that is asked for.
        #[test]
        fn a_long_row_is_believed(before in "[-+hq!.?]{0,60}") {
            for (row, expected) in [("+", 'U'), ("h", 'H'), ("q", 'Q'), ("-", 'D')] {
                let mut play = Play::new();
                play.sees(&before);
                let seen = play.sees(&row.repeat(64));
                prop_assert_eq!(seen.chars().last(), Some(expected), "{} then {}", before, row);
            }
        }
    }
}
