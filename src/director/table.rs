//! EDGE: one comparison of the table: read it, apply the difference, note what failed.
//!
//! Owns what is logged and counted of that. Refuses to know why a table is wanted. Fails as said of the director: a failed op is left to
//! the next comparison.
#![expect(clippy::disallowed_methods, reason = "EDGE: what is compared is compared now")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tracing::{debug, error, info, warn};

use super::notices::{self, Serving};
use super::words::Going;
use super::{Director, SOON};
use crate::dataplane::Dataplane;
use crate::metrics as name;
use crate::model::{Op, Table, Virtual, VirtualId};
use crate::reconcile::{diff, takes_last_weight};

impl<D: Dataplane> Director<D> {
    /// Dump, diff, apply, publish.
    pub(super) async fn reconcile(&mut self) {
        let now = Instant::now();
        match self.dataplane.dump().await {
            Ok(dump) => self.actual = dump,
            Err(error) => {
                let text = format!("cannot read the table: {error}");
                if self.trouble.as_ref() != Some(&text) {
                    error!("{text}; it stays as it is and is read again every {} s", SOON.as_secs());
                }
                name::count_resync("error");
                self.trouble = Some(text);
                self.state.weigh(now, &self.actual);
                self.publish(now);
                return;
            }
        }
        let desired = self.state.desired(now, &self.actual);
        self.notices.tell_cut_off(&self.state);
        self.notices.tell_held(&self.state);
        self.notices.tell_doubted(&self.state);
        if self.looked.is_none() {
            notices::tell_foreign(&self.state, &self.actual.table);
        }
        let ops = diff(&self.actual.table, &desired, &self.state.owned());
        if !ops.is_empty() && self.settled.as_ref() == Some(&desired) {
            warn!("somebody else has changed the table; it is put right");
        }
        let failed = self.apply(ops, &desired, Going::On).await;
        name::count_resync(if failed.is_empty() { "ok" } else { "error" });
        if failed.is_empty() {
            if self.trouble.take().is_some() {
                info!("the table is as it should be again");
            }
            self.settled = Some(desired);
            let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.last_sync = Some(since_epoch.as_secs());
        } else {
            self.settled = None;
            let first = failed.values().next().cloned().unwrap_or_default();
            self.trouble = Some(format!("{} of the changes failed, the first: {first}", failed.len()));
        }
        let failing = failed.into_keys().collect();
        self.stubborn = failing == self.failing;
        self.failing = failing;
        for (id, serving) in self.notices.tell_serving(&self.state, &self.actual.table) {
            self.teller.tell_serving(&self.state, id, serving == Serving::Reals);
        }
        self.teller.settle(&self.state);
        self.teller.watch(now, &self.state);
        self.publish(now);
    }

    /// Applies the ops. One that fails holds up no other, but what cannot be without it: the reals of a virtual
    /// that could not be added, and the last weight of one whose new weights could not. Gives what failed and why.
    pub(super) async fn apply(
        &mut self,
        ops: Vec<Op>,
        desired: &Table,
        going: Going,
    ) -> BTreeMap<String, String> {
        let mut failed = BTreeMap::new();
        let mut broken: BTreeSet<VirtualId> = BTreeSet::new();
        let private: BTreeSet<VirtualId> = self.state.private().collect();
        for op in ops {
            let id = op.virtual_id();
            if broken.contains(id) {
                let missing = !self.actual.table.virtuals.contains_key(id);
                let served = desired.virtuals.get(id).is_some_and(Virtual::takes_connections);
                if missing || (served && takes_last_weight(&op, &self.actual.table)) {
                    continue;
                }
            }
            let result = self.dataplane.apply(&op).await;
            let text = op.to_string();
            // What serves nobody is no change of the farm.
            let of_the_farm = !private.contains(id);
            if of_the_farm {
                name::count_op(op.kind(), result.is_ok());
            }
            match result {
                Ok(()) => {
                    match of_the_farm {
                        true => {
                            info!("table: {text}");
                            self.teller.tell_op(&self.state, &op, &self.actual.table, going);
                        }
                        false => debug!("table: {text}"),
                    }
                    // The dataplane took it, so the copy does; a difference shows at the next dump.
                    let _ = self.actual.table.apply(&op);
                }
                Err(error) => {
                    if !self.failing.contains(&text) {
                        error!("table: cannot {text}: {error}");
                    }
                    broken.insert(*id);
                    failed.insert(text.clone(), format!("cannot {text}: {error}"));
                }
            }
        }
        failed
    }
}
