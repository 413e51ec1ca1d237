//! Rise and fall: when a row of outcomes becomes a change of state.
//!
//! Owns [`Health`]. Refuses to know what was checked and what a state means for a weight. Cannot fail.

use std::fmt;

use checks::{Failure, Outcome, Reason};

/// What is known of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Not enough was seen yet. Not "down": whatever the table has stays.
    #[default]
    Unknown,
    /// It is well.
    Up,
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
            Self::Down => "down",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How many outcomes in a row change a state; both at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Failures that make a server down.
    pub fall: u32,
    /// Successes that make a server up that was down. One that is unknown needs a single one.
    pub rise: u32,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The state now.
    pub to: State,
}

/// The memory of one check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    state: State,
    /// Outcomes in a row that speak against `state`.
    against: u32,
    last_failure: Option<Failure>,
}

impl Health {
    /// What is known now.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Outcomes in a row that speak against the state: a change is being confirmed when it is not 0.
    #[must_use]
    pub fn against(&self) -> u32 {
        self.against
    }

    /// Why it failed last; `None` once it is up without a failure since.
    #[must_use]
    pub fn last_failure(&self) -> Option<&Failure> {
        self.last_failure.as_ref()
    }

    /// Takes one outcome into account.
    ///
    /// A failure of the director itself ([`Reason::Local`]) says nothing about the server: it is shown, and changes
    /// nothing else.
    pub fn observe(&mut self, outcome: &Outcome, thresholds: Thresholds) -> Option<Transition> {
        match &outcome.verdict {
            Err(failure) if failure.reason == Reason::Local => {
                self.last_failure = Some(failure.clone());
                None
            }
            Err(failure) => {
                self.last_failure = Some(failure.clone());
                if self.state == State::Down {
                    self.against = 0;
                    return None;
                }
                self.count(State::Down, thresholds.fall)
            }
            Ok(()) => {
                if self.state == State::Up {
                    self.against = 0;
                    self.last_failure = None;
                    return None;
                }
                let needed = if self.state == State::Unknown { 1 } else { thresholds.rise };
                let transition = self.count(State::Up, needed);
                if transition.is_some() {
                    self.last_failure = None;
                }
                transition
            }
        }
    }

    fn count(&mut self, to: State, needed: u32) -> Option<Transition> {
        self.against = self.against.saturating_add(1);
        if self.against < needed {
            return None;
        }
        self.against = 0;
        let from = std::mem::replace(&mut self.state, to);
        Some(Transition { from, to })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use checks::Stage;

    use super::*;

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

    /// `+` success, `-` failure, `?` the director could not ask; the answer has a letter a step.
    fn states(outcomes: &str) -> String {
        let mut health = Health::default();
        let step = |c| {
            let verdict = match c {
                '+' => Ok(()),
                '-' => Err(Reason::Refused),
                _ => Err(Reason::Local),
            };
            let transition = health.observe(&outcome(verdict), Thresholds { fall: 3, rise: 2 });
            assert_eq!(transition.map(|t| t.to), transition.map(|_| health.state()));
            match health.state() {
                State::Unknown => '.',
                State::Up => 'U',
                State::Down => 'D',
            }
        };
        outcomes.chars().map(step).collect()
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
        ] {
            assert_eq!(states(outcomes), expected, "{outcomes}");
        }
    }

    #[test]
    fn the_reason_is_kept_until_the_server_is_well_again() {
        let thresholds = Thresholds { fall: 1, rise: 2 };
        let mut health = Health::default();
        health.observe(&outcome(Err(Reason::Refused)), thresholds);
        health.observe(&outcome(Ok(())), thresholds);
        assert_eq!(health.last_failure().map(|f| f.reason), Some(Reason::Refused));
        health.observe(&outcome(Ok(())), thresholds);
        assert_eq!(health.last_failure(), None);
    }
}
