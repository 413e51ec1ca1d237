//! What an operator must be told of the farm as a whole, once, when it begins and when it is over.
//!
//! Owns the memory of what was told. Refuses to decide anything: it reads the state and the table. Cannot fail.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use tracing::{error, info, warn};

use crate::config::VirtualConfig;
use crate::model::{RealId, Table, VirtualId};
use crate::state::State;

/// Who takes the connections of a virtual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Serving {
    Reals,
    Fallback,
    Nobody,
}

impl Serving {
    /// `None` where the virtual is not in the table.
    fn of(config: &VirtualConfig, table: &Table) -> Option<Self> {
        let have = table.virtuals.get(&config.id)?;
        let takes = |id: &RealId| have.reals.get(id).is_some_and(|s| s.weight.takes_connections());
        Some(if config.reals.iter().any(|real| takes(&real.id)) {
            Self::Reals
        } else if config.fallback.is_some_and(|(id, _)| takes(&id)) {
            Self::Fallback
        } else {
            Self::Nobody
        })
    }
}

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Notices {
    serving: BTreeMap<VirtualId, Serving>,
    held: BTreeMap<VirtualId, BTreeSet<RealId>>,
}

impl Notices {
    /// Says when a virtual has nobody left to serve it, or its fallback, and when that is over.
    pub(super) fn tell_serving(&mut self, state: &State, table: &Table) {
        for config in &state.config().virtuals {
            let Some(now) = Serving::of(config, table) else { continue };
            let before = self.serving.insert(config.id, now);
            match now {
                _ if before == Some(now) => {}
                Serving::Reals if before.is_some() => {
                    info!("{} is served by its real servers again", config.name);
                }
                Serving::Reals => {}
                Serving::Fallback => warn!("{} is served by its fallback: no real server can", config.name),
                // At a start nobody has been asked yet.
                Serving::Nobody if !state.knows_all() => drop(self.serving.remove(&config.id)),
                Serving::Nobody => {
                    error!("{} is served by NOBODY: no real server can take a connection", config.name);
                }
            }
        }
    }

    /// Says when servers that are down are held, and when that is over.
    pub(super) fn tell_held(&mut self, now: Instant, state: &State) {
        for config in &state.config().virtuals {
            let held = state.held(now, config);
            if self.held.get(&config.id).is_some_and(|before| *before == held) {
                continue;
            }
            if held.is_empty() {
                if self.held.remove(&config.id).is_some() {
                    info!("no real server of {} is held any more", config.name);
                }
                continue;
            }
            let servers = held.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            error!(
                "{} of {} real servers of {} are down and keep their weight, or too little would be left: {servers}; \
                 look for what they share",
                held.len(),
                config.reals.len(),
                config.name
            );
            self.held.insert(config.id, held);
        }
    }
}

/// Names the virtuals of the table that are not in the configuration: they are left alone, and one of them may be
/// ours from before.
pub(super) fn tell_foreign(state: &State, table: &Table) {
    let owned = state.owned();
    for id in table.virtuals.keys().filter(|id| !owned.contains(id)) {
        warn!("{id} is in the table and not in the configuration; it is left alone, and nobody checks it");
    }
}
