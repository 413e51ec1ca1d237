//! How a weight came about: the parts of it, and a line for people.
//!
//! Owns [`Parts`] and its text. Refuses to know how they are computed. Cannot fail.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::Weight;
use super::curve::Percent;
use super::signal::Track;

/// What the checks of a server leave of its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Not known: it keeps what it has.
    Unknown,
    /// Nothing.
    Out,
    /// This part.
    Part(Percent),
}

impl Check {
    /// 0 to 1; what is not known leaves all.
    #[must_use]
    pub fn ratio(self) -> f64 {
        match self {
            Self::Unknown => 1.0,
            Self::Out => 0.0,
            Self::Part(part) => part.ratio(),
        }
    }

    /// The part that counts while the server has any.
    #[must_use]
    pub fn part(self) -> Percent {
        match self {
            Self::Unknown | Self::Out => Percent::ALL,
            Self::Part(part) => part,
        }
    }
}

/// What each cause leaves of a server's weight. `None` is a cause that says nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Parts {
    /// Its checks.
    pub check: Check,
    /// An agent that says a percentage and no more.
    pub agent: Option<Percent>,
    /// Its queue, 0.01 to 1.
    pub queue: Option<f64>,
    /// Its banner, 0.01 to 1.
    pub latency: Option<f64>,
    /// That it came back not long ago, 0.1 to 1. `None` for one that was there at the start.
    pub slow_start: Option<f64>,
    /// Load and slow start together, as raised for the floor: what the factor goes after.
    pub wanted: f64,
    /// The factor in force, without that of the checks.
    pub factor: Percent,
    /// It has more than its load says: the floor is reached.
    pub lifted: bool,
    /// Nothing new is heard of its queue: the last counts for now.
    pub held: bool,
    /// Seconds that mail waits there, and in the better part of the farm.
    pub wait: Option<(f64, f64)>,
    /// Seconds to its banner, and in the better part of the farm.
    pub banner: Option<(f64, f64)>,
    /// The part of what leaves that is delivered, where others deliver more.
    pub delivered: Option<f64>,
    /// For how long nothing has left though there is work.
    pub stalled: Option<Duration>,
    /// Messages in incoming and active.
    pub work: Option<u64>,
}

impl Parts {
    /// Where load decides nothing.
    #[must_use]
    pub fn by_checks(check: Check) -> Self {
        Self {
            check,
            agent: None,
            queue: None,
            latency: None,
            slow_start: None,
            wanted: 1.0,
            factor: Percent::ALL,
            lifted: false,
            held: false,
            wait: None,
            banner: None,
            delivered: None,
            stalled: None,
            work: None,
        }
    }

    /// Nothing is known but what the queue remembers.
    pub(super) fn of(track: &Track, now: Instant) -> Self {
        Self {
            stalled: track.stalled_since().map(|since| now.saturating_duration_since(since)),
            work: track.work(),
            ..Self::by_checks(Check::Unknown)
        }
    }

    /// Why a server with this base weight has this weight, in a line: `31 of 100: queue 31% (412 messages, 46 s; the
    /// farm 2 s)`. `of_checks` is what its checks or its agent say against it, empty where that is nothing.
    #[must_use]
    pub fn why(&self, (base, weight): (Weight, Weight), of_checks: &str) -> String {
        let mut line = format!("{weight} of {base}");
        let mut causes: Vec<String> = Vec::new();
        match (self.check, of_checks) {
            (Check::Unknown, "") => causes.push("not known yet, keeps what the table has".to_owned()),
            (Check::Unknown, said) => {
                causes.push(format!("not known yet, keeps what the table has ({said})"));
            }
            (Check::Out, said) => causes.push(said.to_owned()),
            (Check::Part(Percent::ALL), "") => {}
            (Check::Part(Percent::ALL), said) => causes.push(format!("held although {said}")),
            (Check::Part(part), "") => causes.push(format!("check {part}")),
            (Check::Part(part), said) => causes.push(format!("check {part} ({said})")),
        }
        if let Some(agent) = self.agent.filter(|agent| *agent < Percent::ALL) {
            causes.push(format!("agent {agent}"));
        }
        let limits = |part: &f64| Percent::nearest(*part) < Percent::ALL;
        if let Some(queue) = self.queue.filter(limits) {
            causes.push(format!("queue {}{}", Percent::nearest(queue), self.backlog()));
        }
        if let Some(delivered) = self.delivered {
            causes.push(format!("defers {} of its mail, others do not", Percent::nearest(1.0 - delivered)));
        }
        if let Some((latency, (own, farm))) = self.latency.filter(limits).zip(self.banner) {
            let part = Percent::nearest(latency);
            causes.push(format!("latency {part} (banner {own:.1} s; the farm {farm:.1} s)"));
        }
        if let Some(slow_start) = self.slow_start.filter(limits) {
            causes.push(format!("slow start {}", Percent::nearest(slow_start)));
        }
        if causes.is_empty() && self.factor < Percent::ALL {
            causes.push("comes back".to_owned());
        }
        if self.held {
            causes.push("no report of its queue, the last one counts".to_owned());
        }
        if self.lifted {
            causes.push("more than that, for the floor".to_owned());
        }
        if !causes.is_empty() {
            // Writing to a string cannot fail.
            let _ = write!(line, ": {}", causes.join(", "));
        }
        line
    }

    fn backlog(&self) -> String {
        let mut facts = Vec::new();
        if let Some(work) = self.work {
            facts.push(format!("{work} messages"));
        }
        if let Some(stalled) = self.stalled {
            facts.push(format!("nothing leaves since {} s", stalled.as_secs()));
        } else if let Some((own, _)) = self.wait {
            facts.push(format!("{own:.0} s"));
        }
        let farm = self.wait.map(|(_, farm)| format!("; the farm {farm:.0} s")).unwrap_or_default();
        format!(" ({}{farm})", facts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_told_in_one_line() {
        let part = |percent: f64| Percent::nearest(percent / 100.0);
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let well = Parts {
            check: Check::Part(Percent::ALL),
            work: Some(412),
            ..Parts::of(&Track::default(), Instant::now())
        };
        let slow = Parts { queue: Some(0.31), wait: Some((46.4, 1.6)), factor: part(31.0), ..well.clone() };
        for (parts, weight, expected) in [
            (well.clone(), 100, "100 of 100"),
            (Parts { check: Check::Part(part(50.0)), ..well.clone() }, 50, "50 of 100: check 50%"),
            (Parts { agent: Some(part(40.0)), ..well.clone() }, 40, "40 of 100: agent 40%"),
            (slow.clone(), 31, "31 of 100: queue 31% (412 messages, 46 s; the farm 2 s)"),
            (
                Parts { stalled: Some(Duration::from_secs(90)), ..slow.clone() },
                31,
                "31 of 100: queue 31% (412 messages, nothing leaves since 90 s; the farm 2 s)",
            ),
            (
                Parts { latency: Some(0.4), banner: Some((3.21, 0.04)), factor: part(40.0), ..well.clone() },
                40,
                "40 of 100: latency 40% (banner 3.2 s; the farm 0.0 s)",
            ),
            (
                Parts { slow_start: Some(0.25), factor: part(25.0), ..well.clone() },
                25,
                "25 of 100: slow start 25%",
            ),
            (
                Parts { delivered: Some(0.02), factor: part(10.0), ..well.clone() },
                10,
                "10 of 100: defers 98% of its mail, others do not",
            ),
            (Parts { factor: part(60.0), ..well.clone() }, 60, "60 of 100: comes back"),
            (
                Parts { held: true, lifted: true, ..slow },
                31,
                "31 of 100: queue 31% (412 messages, 46 s; the farm 2 s), no report of its queue, the last one \
                 counts, more than that, for the floor",
            ),
        ] {
            assert_eq!(parts.why((Weight(100), Weight(weight)), ""), expected);
        }
        let said = "down: refused at connect";
        for (check, weight, expected) in [
            (Check::Out, 0, "0 of 100: down: refused at connect"),
            (Check::Part(Percent::ALL), 100, "100 of 100: held although down: refused at connect"),
            (Check::Part(part(50.0)), 50, "50 of 100: check 50% (down: refused at connect)"),
            (
                Check::Unknown,
                7,
                "7 of 100: not known yet, keeps what the table has (down: refused at connect)",
            ),
        ] {
            let parts = Parts { check, ..well.clone() };
            assert_eq!(parts.why((Weight(100), Weight(weight)), said), expected);
        }
    }
}
