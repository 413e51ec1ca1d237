//! EDGE: `plan`: what would change in the table now, like a diff.
//!
//! Asks every server once and takes the answer as final, so that it says what the daemon would come to. Reads the
//! kernel's table where it can; elsewhere it says so and plans from an empty one. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::time::Instant;

use tokio::task::JoinSet;

use super::{Exit, Threads, runtime};
use crate::config::{CheckPlan, Config, DataplaneChoice, Tier};
use crate::dataplane::ipvs::Ipvs;
use crate::dataplane::{Dataplane as _, Error};
use crate::model::{Dump, Op, Table};
use crate::reconcile::diff;
use crate::state::{Finding, State};

/// Checks that run at the same time.
const AT_ONCE: usize = 64;

pub(super) fn plan(config: &Config) -> Result<(), Exit> {
    let mut out = std::io::stdout().lock();
    let (actual, note) = runtime(Threads::One)?.block_on(read_table(config.dataplane))?;
    if let Some(note) = note {
        writeln!(out, "# {note}")?;
    }
    let mut askable = config.clone();
    for real in askable.virtuals.iter_mut().flat_map(|v| &mut v.reals) {
        // Without its service a probe would go to any server.
        real.checks.retain(|plan| config.vip.is_laid(plan, &actual.table));
        // A canary comes back to a running daemon.
        real.checks.retain(|plan| plan.tier != Tier::Canary);
    }
    let mut state = State::new(askable);
    let plans: Vec<CheckPlan> = state.checks().cloned().collect();
    for (plan, finding) in runtime(Threads::One)?.block_on(ask_all(plans)) {
        if let Some(failure) = &finding.failure {
            let (target, tier) = (plan.spec.server(), plan.tier.name());
            writeln!(out, "# {target} is {} ({tier} check): {failure}", finding.state)?;
        }
        state.absorb(&plan, finding);
    }
    #[expect(clippy::disallowed_methods, reason = "EDGE: nothing has begun to drain before now")]
    let now = Instant::now();
    let desired = state.desired(now, &actual);
    let owned = state.owned();
    for id in actual.table.virtuals.keys().filter(|id| !owned.contains(id)) {
        writeln!(
            out,
            "# {id} is not in the configuration: left alone, unless a running daemon had it in its own"
        )?;
    }
    let ops = diff(&actual.table, &desired, &owned);
    let private: BTreeSet<_> = state.private().collect();
    let (hidden, shown): (Vec<&Op>, Vec<&Op>) = ops.iter().partition(|op| private.contains(op.virtual_id()));
    for op in shown {
        writeln!(out, "{}", line(op, &actual.table))?;
    }
    let services: BTreeSet<_> = hidden.into_iter().map(Op::virtual_id).collect();
    if !services.is_empty() {
        writeln!(
            out,
            "# and {} of the private services by which vip_check asks each server",
            services.len()
        )?;
    }
    if ops.is_empty() {
        writeln!(out, "# nothing would change")?;
    }
    Ok(())
}

async fn read_table(choice: DataplaneChoice) -> Result<(Dump, Option<String>), Exit> {
    let why = match choice {
        DataplaneChoice::Proxy => "the proxy starts with an empty table".to_owned(),
        DataplaneChoice::Auto | DataplaneChoice::Ipvs => match Ipvs::open().await {
            Ok(mut ipvs) => return Ok((ipvs.dump().await?, None)),
            // Where the daemon would take the proxy, it would find no table; without permission there may be one.
            Err(error @ Error::NotAvailable) if choice == DataplaneChoice::Auto => error.to_string(),
            Err(error) => return Err(error.into()),
        },
    };
    Ok((Dump::default(), Some(format!("planned from an empty table: {why}"))))
}

async fn ask_all(plans: Vec<CheckPlan>) -> BTreeMap<CheckPlan, Finding> {
    let mut waiting = plans.into_iter();
    let mut running = JoinSet::new();
    let mut found = BTreeMap::new();
    loop {
        while running.len() < AT_ONCE
            && let Some(plan) = waiting.next()
        {
            running.spawn(async move { (checks::run(&plan.spec).await, plan) });
        }
        let Some(done) = running.join_next().await else { return found };
        if let Ok((outcome, plan)) = done {
            #[expect(clippy::disallowed_methods, reason = "EDGE: when the answer came")]
            let now = Instant::now();
            let finding = Finding::of_one(now, &plan.verdicts, outcome);
            found.insert(plan, finding);
        }
    }
}

/// One line of the diff: `+` is added, `-` is deleted, `~` is changed (from => to).
fn line(op: &Op, actual: &Table) -> String {
    match op {
        Op::AddVirtual(id, settings) => format!("+ {id} {}", settings.scheduler),
        Op::SetVirtual(id, settings) => match actual.virtuals.get(id) {
            Some(have) if have.settings.scheduler != settings.scheduler => {
                format!("~ {id} {} => {}", have.settings.scheduler, settings.scheduler)
            }
            _ => format!("~ {id} {} with other options", settings.scheduler),
        },
        Op::DeleteVirtual(id) => format!("- {id}"),
        Op::AddReal(id, real, settings) => {
            format!("+ {id} -> {real} {} weight {}", settings.forward, settings.weight)
        }
        Op::DeleteReal(id, real) => format!("- {id} -> {real}"),
        Op::SetReal(id, real, settings) => {
            let have = actual.virtuals.get(id).and_then(|have| have.reals.get(real));
            match have {
                Some(have) if have.weight != settings.weight => {
                    format!("~ {id} -> {real} weight {} => {}", have.weight, settings.weight)
                }
                Some(have) if have.forward != settings.forward => {
                    format!("~ {id} -> {real} {} => {}", have.forward, settings.forward)
                }
                _ => format!("~ {id} -> {real} with other thresholds or tunnel"),
            }
        }
    }
}
