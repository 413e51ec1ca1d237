//! When nobody answers it is the director that is cut off.
//!
//! Owns the law of silence: when it holds, who fell silent by it, and until when that is no news of a server. Refuses to
//! know weights. Cannot fail.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use checks::Kind;

use super::{Finding, State};
use crate::config::{CheckPlan, Tier};
use crate::health;

/// A silence of all.
#[derive(Clone, Copy, Debug)]
pub(super) struct CutOff {
    /// When the last fell silent.
    since: Instant,
    /// Who fell silent not longer than this before did so for the same reason: it takes an interval to find out, that of
    /// the host that is asked least.
    together: Duration,
}

/// Servers that fall silent within an interval and so long of each other do so for the same reason.
pub(super) const TOGETHER: Duration = Duration::from_secs(30);

impl State {
    /// Since when no server at all answers: two or more are asked, and the last word of each is silence. It is the
    /// director that is cut off, and what it finds says nothing of the servers.
    #[must_use]
    pub fn cut_off_since(&self) -> Option<Instant> {
        self.cut_off().map(|cut_off| cut_off.since)
    }

    pub(super) fn cut_off(&self) -> Option<CutOff> {
        let mut hosts: BTreeMap<IpAddr, (&Finding, Duration)> = BTreeMap::new();
        // What a command says is no word from the network, and a server that is new does not end a silence.
        let counts = |(plan, finding): &(&CheckPlan, &Finding)| {
            let was_asked = finding.asked.is_some() || self.answered.is_some();
            // What comes through the VIP, or back, is silent for reasons of its own.
            let apart = plan.tier == Tier::Canary || plan.spec.via.is_some();
            was_asked && !apart && !matches!(plan.spec.kind, Kind::External(_))
        };
        for (plan, finding) in self.findings.iter().filter(counts) {
            let (latest, pace) = hosts.entry(plan.spec.target.ip()).or_insert((finding, plan.interval));
            if finding.asked > latest.asked {
                *latest = finding;
            }
            *pace = plan.interval.min(*pace);
        }
        let silent =
            hosts.values().map(|(finding, _)| finding.unanswered_since).collect::<Option<Vec<_>>>()?;
        let since = silent.into_iter().max().filter(|_| hosts.len() > 1)?;
        let slowest = hosts.values().map(|(_, pace)| *pace).max().unwrap_or_default();
        Some(CutOff { since, together: slowest + TOGETHER })
    }

    /// Whether what this check finds next decides if its server is out, after a silence of all.
    #[must_use]
    pub fn awaits(&self, plan: &CheckPlan) -> bool {
        self.answered.is_some() && self.excused.contains(plan)
    }

    /// Notes who falls silent with all others, and who has been asked since.
    pub(super) fn excuse(&mut self, now: Instant) {
        let cut_off = self.cut_off();
        if cut_off.is_some() {
            self.answered = None;
            let silent = self.findings.iter().filter(|(plan, finding)| {
                finding.unanswered_since.is_some()
                    && !self.excused.contains(plan)
                    && (finding.state != health::State::Down || self.is_cut(plan, finding, cut_off))
            });
            let silent: Vec<_> = silent.map(|(plan, _)| plan.clone()).collect();
            self.excused.extend(silent);
            return;
        }
        let answered = *self.answered.get_or_insert(now);
        let findings = &self.findings;
        self.excused.retain(|plan| {
            findings.get(plan).is_some_and(|finding| {
                let began = finding.asked.and_then(|asked| asked.checked_sub(finding.took));
                let rises = finding.state == health::State::Down && !finding.failed;
                began < Some(answered) || rises
            })
        });
    }

    /// Whether a check fell silent together with all others.
    pub(super) fn is_cut(&self, plan: &CheckPlan, finding: &Finding, cut_off: Option<CutOff>) -> bool {
        let with_the_others = |silent: Instant| {
            finding.since >= Some(silent)
                && cut_off.is_some_and(|cut_off| cut_off.since <= silent + cut_off.together)
        };
        self.excused.contains(plan) || finding.unanswered_since.is_some_and(with_the_others)
    }
}
