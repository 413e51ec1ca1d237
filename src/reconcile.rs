//! From the table that is there to the table that is wanted, in an order that no client notices.
//!
//! Owns [`diff`] and [`takes_last_weight`]. Refuses to know why a table is wanted, and who carries it. Cannot fail.
//!
//! The laws, each a property test below: applying the ops reaches the desired table; equal tables give none;
//! a virtual that is not owned is never touched; a virtual that has weight before and after has weight after
//! every prefix of the ops; within a virtual, what adds weight comes before what takes it away.

use std::collections::BTreeSet;

use crate::model::{Op, RealId, RealSettings, Table, Virtual, VirtualId};

/// The ops that turn the `owned` virtuals of `actual` into those of `desired`.
///
/// An owned virtual that is not desired is deleted; one that is desired but not owned is left alone.
#[must_use]
pub fn diff(actual: &Table, desired: &Table, owned: &BTreeSet<VirtualId>) -> Vec<Op> {
    let mut ops = Vec::new();
    for id in owned {
        match (actual.virtuals.get(id), desired.virtuals.get(id)) {
            (None, None) => {}
            (Some(_), None) => ops.push(Op::DeleteVirtual(*id)),
            (None, Some(want)) => {
                ops.push(Op::AddVirtual(*id, want.settings.clone()));
                diff_reals(id, &Virtual::new(want.settings.clone()), want, &mut ops);
            }
            (Some(have), Some(want)) => {
                if have.settings != want.settings {
                    ops.push(Op::SetVirtual(*id, want.settings.clone()));
                }
                diff_reals(id, have, want, &mut ops);
            }
        }
    }
    ops
}

/// Whether `op` would take the last weight of its virtual. By the laws above `diff` asks for that only where nothing
/// with weight is desired; when an op before it has failed, it has to be asked again.
#[must_use]
pub fn takes_last_weight(op: &Op, actual: &Table) -> bool {
    let Some(have) = actual.virtuals.get(op.virtual_id()) else { return false };
    let lowered = match op {
        Op::SetReal(_, real, settings) if !settings.weight.takes_connections() => real,
        Op::DeleteReal(_, real) => real,
        _ => return false,
    };
    let mut serving = have.reals.iter().filter(|(_, settings)| settings.weight.takes_connections());
    matches!((serving.next(), serving.next()), (Some((last, _)), None) if last == lowered)
}

fn diff_reals(id: &VirtualId, have: &Virtual, want: &Virtual, ops: &mut Vec<Op>) {
    let changed = || want.reals.iter().filter(|(real, settings)| have.reals.get(real) != Some(settings));
    let raises = |real: &RealId, settings: &RealSettings| {
        have.reals.get(real).is_none_or(|now| settings.weight >= now.weight)
    };
    for (real, settings) in changed().filter(|(real, settings)| raises(real, settings)) {
        ops.push(match have.reals.contains_key(real) {
            true => Op::SetReal(*id, *real, *settings),
            false => Op::AddReal(*id, *real, *settings),
        });
    }
    for (real, settings) in changed().filter(|(real, settings)| !raises(real, settings)) {
        ops.push(Op::SetReal(*id, *real, *settings));
    }
    for real in have.reals.keys().filter(|real| !want.reals.contains_key(real)) {
        ops.push(Op::DeleteReal(*id, *real));
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, btree_set};
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Forward, Protocol, Scheduler, VirtualSettings, Weight};

    fn virtual_id() -> impl Strategy<Value = VirtualId> {
        (0u8..4)
            .prop_map(|n| VirtualId::Address { protocol: Protocol::Tcp, address: ([10, 0, 0, n], 25).into() })
    }

    fn real() -> impl Strategy<Value = (RealId, RealSettings)> {
        let forward = prop_oneof![Just(Forward::Gate), Just(Forward::Masq)];
        (0u8..5, 0u32..4, forward, 0u32..2).prop_map(|(n, weight, forward, upper)| {
            let settings =
                RealSettings { forward, weight: Weight(weight), upper_threshold: upper, lower_threshold: 0 };
            (RealId(([10, 0, 1, n], 25).into()), settings)
        })
    }

    fn a_virtual() -> impl Strategy<Value = Virtual> {
        let scheduler = prop_oneof![Just(Scheduler::Wlc), Just(Scheduler::Rr)];
        (scheduler, proptest::collection::vec(real(), 0..5)).prop_map(|(scheduler, reals)| Virtual {
            settings: VirtualSettings::new(scheduler),
            reals: reals.into_iter().collect(),
        })
    }

    fn table() -> impl Strategy<Value = Table> {
        btree_map(virtual_id(), a_virtual(), 0..4).prop_map(|virtuals| Table { virtuals })
    }

    fn has_weight(table: &Table, id: &VirtualId) -> bool {
        table.virtuals.get(id).is_some_and(Virtual::takes_connections)
    }

    proptest! {
        #[test]
        fn applying_the_ops_reaches_the_desired_table_and_leaves_the_others(
            actual in table(), desired in table(), owned in btree_set(virtual_id(), 0..4),
        ) {
            let mut table = actual.clone();
            for op in diff(&actual, &desired, &owned) {
                prop_assert!(owned.contains(op.virtual_id()), "{op} touches a foreign virtual");
                prop_assert_eq!(table.apply(&op), Ok(()), "{}", op);
            }
            for id in actual.virtuals.keys().chain(desired.virtuals.keys()) {
                let expected = if owned.contains(id) { &desired } else { &actual };
                prop_assert_eq!(table.virtuals.get(id), expected.virtuals.get(id));
            }
        }

        #[test]
        fn equal_tables_need_nothing(table in table(), owned in btree_set(virtual_id(), 0..4)) {
            let mut desired = table.clone();
            desired.virtuals.retain(|id, _| owned.contains(id));
            prop_assert_eq!(diff(&table, &desired, &owned), vec![]);
        }

        #[test]
        fn a_virtual_with_weight_before_and_after_has_weight_on_the_way(
            actual in table(), desired in table(),
        ) {
            let owned: BTreeSet<_> = actual.virtuals.keys().chain(desired.virtuals.keys()).copied().collect();
            let keeps: Vec<_> =
                owned.iter().filter(|id| has_weight(&actual, id) && has_weight(&desired, id)).collect();
            let mut table = actual.clone();
            for op in diff(&actual, &desired, &owned) {
                table.apply(&op).unwrap();
                for id in &keeps {
                    prop_assert!(has_weight(&table, id), "no weight left in {id} after {op}");
                }
            }
        }
    }
}
