//! What each server of a virtual should have, once a comparison.
//!
//! Owns the order in which the parts of a weight are put together: what the checks leave, then what load leaves of that,
//! then the number; and the memory of the law of each virtual, through reloads. Refuses to know the law. Cannot fail.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::{Condition, State};
use crate::config::{RealConfig, VirtualConfig};
use crate::health;
use crate::model::{Dump, RealId, VirtualId, Weight};
use crate::weight::law::{Input, Law};
use crate::weight::parts::{Check, Parts};
use crate::weight::resolution::{scale, weight};
use crate::weight::{Member, Share, Standing, weigh};

/// What is known of one server of a virtual, and what follows.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// What it should have.
    pub share: Share,
    /// What is known of it.
    pub condition: Condition,
    /// How that came about.
    pub parts: Parts,
    /// Its base weight as the table counts.
    pub base: Weight,
}

/// The law of one virtual, and what it said last.
#[derive(Debug, Default)]
pub(super) struct Scales {
    law: Option<Law>,
    known: Vec<Known>,
}

impl Scales {
    pub(super) fn known(&self) -> &[Known] {
        &self.known
    }
}

impl State {
    /// What is known of each real server of a virtual and what it should have, in their order; of the last comparison.
    #[must_use]
    pub fn known(&self, id: &VirtualId) -> &[Known] {
        self.scales.get(id).map_or(&[], Scales::known)
    }

    /// The real servers of a virtual that are down and keep their weight by the floor.
    #[must_use]
    pub fn held(&self, config: &VirtualConfig) -> BTreeSet<RealId> {
        let by_floor = |known: &Known| {
            matches!(known.share, Share::Held(_)) && matches!(known.condition.standing, Standing::Sick(_))
        };
        let held = config.reals.iter().zip(self.known(&config.id)).filter(|(_, known)| by_floor(known));
        held.map(|(real, _)| real.id).collect()
    }

    /// Weighs every server anew; true when one should have something else than before. The table that is there counts
    /// where a virtual is weighed for the first time: what it has is taken over.
    pub fn weigh(&mut self, now: Instant, actual: &Dump) -> bool {
        self.excuse(now);
        let mut before = std::mem::take(&mut self.scales);
        let mut changed = false;
        let mut scales = BTreeMap::new();
        for config in &self.config.virtuals {
            let had = before.remove(&config.id).unwrap_or_default();
            let now = self.weigh_virtual(now, config, (had.law, actual));
            changed |= had.known.len() != now.known.len()
                || had.known.iter().zip(&now.known).any(|(had, has)| had.share != has.share);
            scales.insert(config.id, now);
        }
        self.scales = scales;
        changed
    }

    fn weigh_virtual(
        &self,
        now: Instant,
        config: &VirtualConfig,
        (law, actual): (Option<Law>, &Dump),
    ) -> Scales {
        let trust = (self.cut_off(), self.doubt(config));
        let condition = |real: &RealConfig| {
            let condition = self.condition_in(now, real, trust);
            match self.is_maintained(&real.id) {
                true => Condition { state: health::State::Down, failure: None, ..condition },
                false => condition,
            }
        };
        let conditions: Vec<_> = config.reals.iter().map(condition).collect();
        let member = |(real, condition): (&RealConfig, &Condition)| {
            let standing = match condition.standing {
                // Whatever its checks say, and no soft reason.
                _ if self.is_maintained(&real.id) => Standing::Gone,
                // No floor: every reason is a hard one.
                Standing::Sick(_) if config.floor.is_none() => Standing::Gone,
                standing => standing,
            };
            Member { base: real.settings.weight, standing }
        };
        let members: Vec<_> = config.reals.iter().zip(&conditions).map(member).collect();
        let shares = weigh(now, config.floor.unwrap_or(0), &members);
        let checks: Vec<Check> =
            shares.iter().zip(&members).map(|(share, member)| share.check(member.standing)).collect();

        let mut law = config.law.as_ref().map(|rules| match law {
            Some(mut law) => {
                law.reconfigure(rules.clone());
                law
            }
            None => adopting(Law::new(rules.clone()), config, actual),
        });
        let inputs = || config.reals.iter().zip(&conditions).zip(&checks);
        let inputs: Vec<Input> = inputs().map(|((r, c), check)| self.input(now, r, (c, *check))).collect();
        let parts: Vec<Parts> = match &mut law {
            Some(law) => law.tick(now, &inputs),
            None => checks.iter().map(|check| Parts::by_checks(*check)).collect(),
        };
        let bases: Vec<Weight> = members.iter().map(|member| member.base).collect();
        let scale = scale(config.law.as_ref(), &bases);
        let known = shares.into_iter().zip(conditions).zip(parts).zip(&bases);
        let known = known.map(|(((share, condition), parts), base)| {
            let all = weight(*base, scale, [parts.check.part(), parts.factor]);
            let share = match share {
                Share::Keep => Share::Keep,
                Share::Weight(_) if parts.check == Check::Out => Share::Weight(Weight::ZERO),
                Share::Weight(_) => Share::Weight(all),
                Share::Held(_) => Share::Held(all),
            };
            Known { share, condition, parts, base: Weight(base.0 * scale) }
        });
        Scales { known: known.collect(), law }
    }

    fn input(&self, now: Instant, real: &RealConfig, (condition, check): (&Condition, Check)) -> Input {
        let heard = real.agent.as_ref().and_then(|plan| Some((self.heard(plan)?, plan.interval)));
        Input {
            id: real.id,
            base: real.settings.weight,
            check,
            agent: heard.and_then(|(heard, interval)| heard.percent(now, interval)),
            queue: heard.and_then(|(heard, _)| heard.queue()),
            banner: condition.banner,
        }
    }
}

/// A law that begins with what the table has, in parts of the best that a server has there: what the weights are multiplied by
/// is not known. Who is not in a table that others are in is new.
fn adopting(mut law: Law, config: &VirtualConfig, actual: &Dump) -> Law {
    let Some(have) = actual.table.virtuals.get(&config.id) else { return law };
    let part = |real: &RealConfig| {
        let has = have.reals.get(&real.id).map_or(0, |settings| settings.weight.0);
        f64::from(has) / f64::from(real.settings.weight.0.max(1))
    };
    let parts: Vec<f64> = config.reals.iter().map(part).collect();
    let most = parts.iter().copied().fold(0.0, f64::max);
    for (real, part) in config.reals.iter().zip(parts) {
        if most > 0.0 && real.settings.weight.takes_connections() {
            law.adopt(real.id, Some(part / most).filter(|part| *part > 0.0));
        }
    }
    law
}
