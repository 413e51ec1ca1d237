//! EDGE: brings what happens to those who want to know: the log of ldirectord, mails, commands, monitor files.
//!
//! Owns the phase of the daemon, the counts of failures that are not enough, and when a mail is repeated. Refuses to decide
//! anything of the farm. Cannot fail: what cannot be brought is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tracing::{info, warn};

use super::words::{self, Going, Mail};
use crate::config::{CheckPlan, Config, LogFormat, Phase, RealConfig, VirtualConfig};
use crate::health;
use crate::log;
use crate::model::{Op, RealId, Table, VirtualId};
use crate::news::Desk;
use crate::news::errand::Errand;
use crate::news::mail::Letter;
use crate::prober::Report;
use crate::state::State;

/// What has to be remembered to tell it once, or again.
#[derive(Debug)]
pub(super) struct Teller {
    pub(super) desk: Desk,
    /// Whether the log is in the words of ldirectord, too.
    speaks: bool,
    phase: Phase,
    /// Failures in a row.
    failures: BTreeMap<Arc<CheckPlan>, u32>,
    /// When the next mail about a server that is down is due.
    due: BTreeMap<(VirtualId, RealId), Instant>,
    /// Virtuals whose fallback command was told to start.
    started: BTreeSet<VirtualId>,
    /// Servers of no configuration that were told of: they are still in the table.
    purged: BTreeSet<(VirtualId, RealId)>,
    /// Monitor files that cannot be written, so that each is told of once.
    lost: BTreeSet<PathBuf>,
}

impl Teller {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            desk: Desk::default(),
            speaks: config.log_format == LogFormat::Ldirectord,
            phase: Phase::Starting,
            failures: BTreeMap::new(),
            due: BTreeMap::new(),
            started: BTreeSet::new(),
            purged: BTreeSet::new(),
            lost: BTreeSet::new(),
        }
    }

    /// A new configuration takes the place of that in `state`.
    pub(super) fn reconfigure(&mut self, state: &State, config: &Config, table: &Table) {
        self.phase = Phase::Reloading;
        for old in &state.config().virtuals {
            let new = config.virtuals.iter().find(|v| v.id == old.id);
            let Some(have) = table.virtuals.get(&old.id) else { continue };
            let removed =
                |real: &&RealConfig| words::is_stranger(&real.id, new) && have.reals.contains_key(&real.id);
            for real in old.reals.iter().filter(removed) {
                let text = words::purged(&real.id, &old.id, Going::On);
                self.log(&text);
                self.mail(old, text);
                self.purged.insert((old.id, real.id));
            }
        }
        let kept: BTreeSet<VirtualId> = config.virtuals.iter().map(|v| v.id).collect();
        self.started.retain(|id| kept.contains(id));
        self.failures.clear();
        self.lost.clear();
    }

    /// Every server has been asked: from now on it is an ordinary day.
    pub(super) fn settle(&mut self, state: &State) {
        if self.phase != Phase::Stopping && state.knows_all() {
            self.phase = Phase::Running;
        }
    }

    /// The end has begun.
    pub(super) fn stop(&mut self) {
        self.phase = Phase::Stopping;
    }

    /// A change of the table that was made in `before`.
    pub(super) fn tell_op(&mut self, state: &State, op: &Op, before: &Table, going: Going) {
        let config = state.config().virtuals.iter().find(|v| v.id == *op.virtual_id());
        let told = match op {
            Op::SetReal(id, real, _) if words::is_stranger(real, config) => !self.purged.insert((*id, *real)),
            Op::DeleteReal(id, real) => self.purged.remove(&(*id, *real)),
            Op::AddReal(id, real, _) | Op::SetReal(id, real, _) => {
                self.purged.remove(&(*id, *real));
                false
            }
            Op::DeleteVirtual(id) => {
                self.purged.retain(|(of, _)| of != id);
                false
            }
            Op::AddVirtual(..) | Op::SetVirtual(..) => false,
        };
        if told {
            return;
        }
        for words in words::of_op(op, before, config, going) {
            self.log(&words.text);
            if let Some(config) = config.filter(|_| words.mail == Mail::Yes) {
                self.mail(config, words.text);
            }
        }
    }

    /// An outcome, before it is taken in.
    pub(super) fn tell_check(&mut self, state: &State, report: &Report) {
        let count = if report.finding.failed {
            let failures = self.failures.entry(Arc::clone(&report.plan)).or_default();
            *failures = failures.saturating_add(1);
            Some(*failures)
        } else if report.outcome.verdict.is_ok() {
            self.failures.remove(&report.plan).map(|_| 0)
        } else {
            None // nothing follows from it
        };
        for (config, real) in servers(state, &report.plan) {
            if let Some(file) = &config.monitor_file {
                let name = file.names.get(&real).map(String::as_str);
                self.monitor(&file.path, &words::monitor_line(&report.plan, &report.outcome, name));
            }
            match count {
                Some(0) => self.log(&words::no_failure(real.0, &config.id)),
                Some(count) if report.finding.state != health::State::Down => {
                    self.log(&words::soft_failure(real.0, &config.id, (count, report.plan.fall)));
                }
                _ => {}
            }
        }
    }

    fn monitor(&mut self, path: &PathBuf, line: &str) {
        let time = log::now();
        match log::append(path, format!("[{time}] [{}] {line}\n", std::process::id()).as_bytes()) {
            Ok(()) => drop(self.lost.remove(path)),
            Err(error) if self.lost.insert(path.clone()) => warn!("{}: {error}", path.display()),
            Err(_) => {}
        }
    }

    /// Who serves a virtual has changed.
    pub(super) fn tell_serving(&mut self, state: &State, id: VirtualId, reals: bool) {
        let Some(config) = state.config().virtuals.iter().find(|v| v.id == id) else { return };
        let Some(command) = &config.fallback_command else { return };
        let wanted = !reals && !config.all_off();
        let action = match (wanted, self.started.contains(&id)) {
            (true, false) => "start",
            (false, true) => "stop",
            _ => return,
        };
        if wanted {
            self.started.insert(id)
        } else {
            self.started.remove(&id)
        };
        let mut arguments = command.arguments.clone();
        arguments.extend(words::fallback_arguments(action, &id));
        let errand = Errand { program: command.program.clone(), arguments };
        info!("Running system({errand})");
        self.desk.order(errand);
    }

    /// Notes who is down, and since when somebody is to be told again.
    pub(super) fn watch(&mut self, now: Instant, state: &State) {
        let mut down = BTreeSet::new();
        for config in state.config().virtuals.iter().filter(|v| !v.alert.to.is_empty()) {
            let Some(every) = config.alert.every else { continue };
            for real in &config.reals {
                if state.condition(now, config, real).state == health::State::Down {
                    down.insert((config.id, real.id));
                    self.due.entry((config.id, real.id)).or_insert(now + every);
                }
            }
        }
        self.due.retain(|key, _| down.contains(key));
    }

    /// When something is to be told again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }

    /// Tells again what is due.
    pub(super) fn repeat(&mut self, now: Instant, state: &State) {
        let due: Vec<_> = self.due.iter().filter(|(_, when)| **when <= now).map(|(key, _)| *key).collect();
        for key @ (id, real) in due {
            let config = state.config().virtuals.iter().find(|v| v.id == id);
            let Some((config, every)) = config.and_then(|config| Some((config, config.alert.every?))) else {
                self.due.remove(&key);
                continue;
            };
            self.due.insert(key, now + every);
            self.mail(config, words::inaccessible(&real, &id));
        }
    }

    fn log(&self, text: &str) {
        if self.speaks {
            info!("{text}");
        }
    }

    fn mail(&self, config: &VirtualConfig, text: String) {
        let alert = &config.alert;
        if !alert.to.is_empty() && alert.when.has(self.phase) {
            self.log(&words::alert(&text));
            self.desk.write(Letter { alert: alert.clone(), phase: self.phase, text });
        }
    }
}

/// The real servers that a check is for.
fn servers<'s>(
    state: &'s State,
    plan: &CheckPlan,
) -> impl Iterator<Item = (&'s VirtualConfig, RealId)> + use<'s> {
    let virtuals = state.config().virtuals.iter();
    let plan = plan.clone();
    virtuals.flat_map(move |v| {
        let plan = plan.clone();
        v.reals.iter().filter(move |real| real.checks.contains(&plan)).map(move |real| (v, real.id))
    })
}
