//! When all fail through the VIP and all are well without it, it is the director that is suspected.
//!
//! Owns that law, and when a probe through the VIP says nothing of its server. Refuses to know weights. Cannot fail.

use checks::Reason;

use super::{Finding, State};
use crate::config::{CheckPlan, RealConfig, Tier, VirtualConfig};
use crate::health;

/// What is to be thought of the probes through one VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// They are believed.
    None,
    /// They are not: a setting, a firewall or a network of the director is more likely than the same fault everywhere.
    All,
}

impl Doubt {
    /// Whether this finding says nothing of its server.
    pub(super) fn covers(self, plan: &CheckPlan, finding: &Finding) -> bool {
        plan.tier == Tier::Vip && (self == Self::All || is_mute(plan, finding))
    }
}

/// Whether this probe has never been possible: the server is known by its other checks.
pub(super) fn is_mute(plan: &CheckPlan, finding: &Finding) -> bool {
    let local = || finding.failure.as_ref().is_some_and(|failure| failure.reason == Reason::Local);
    plan.tier == Tier::Vip && finding.state == health::State::Unknown && local()
}

impl State {
    /// Whether no server of this virtual answers through the VIP although they are well, and none has for a whole fall.
    #[must_use]
    pub fn is_doubted(&self, config: &VirtualConfig) -> bool {
        let down = |finding: &Finding| finding.state == health::State::Down;
        self.doubt(config) == Doubt::All && self.well_directly(config).all(down)
    }

    /// From the first outcome on, so that nobody is taken out before the last has failed.
    pub(super) fn doubt(&self, config: &VirtualConfig) -> Doubt {
        let probed = config.reals.iter().filter(|real| probe(real).is_some()).count();
        let mut well = self.well_directly(config).peekable();
        if probed > 1 && well.peek().is_some() && well.all(|finding| finding.failed) {
            Doubt::All
        } else {
            Doubt::None
        }
    }

    /// What the probes found of the servers that are well by their other checks.
    fn well_directly<'a>(&'a self, config: &'a VirtualConfig) -> impl Iterator<Item = &'a Finding> + 'a {
        let is_well = |plan: &CheckPlan| {
            let state = self.findings.get(plan).map(|finding| finding.state);
            plan.tier == Tier::Vip || matches!(state, Some(health::State::Up | health::State::Degraded(_)))
        };
        let well = config.reals.iter().filter(move |real| real.checks.iter().all(is_well));
        well.filter_map(|real| self.findings.get(probe(real)?))
    }
}

fn probe(real: &RealConfig) -> Option<&CheckPlan> {
    real.checks.iter().find(|plan| plan.tier == Tier::Vip)
}
