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
use crate::config::{CheckPlan, Config, LogFormat, Phase, VirtualConfig};
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
    /// Failures in a row of servers that are not down for them.
    soft: BTreeMap<Arc<CheckPlan>, u32>,
    /// When the next mail about a server that is down is due.
    due: BTreeMap<(VirtualId, RealId), Instant>,
    /// Virtuals whose fallback command was told to start.
    started: BTreeSet<VirtualId>,
    /// Monitor files that cannot be written, so that each is told of once.
    lost: BTreeSet<PathBuf>,
}

impl Teller {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            desk: Desk::default(),
            speaks: config.log_format == LogFormat::Ldirectord,
            phase: Phase::Starting,
            soft: BTreeMap::new(),
            due: BTreeMap::new(),
            started: BTreeSet::new(),
            lost: BTreeSet::new(),
        }
    }

    /// A new configuration is in force.
    pub(super) fn reconfigure(&mut self, config: &Config) {
        self.phase = Phase::Reloading;
        let kept: BTreeSet<VirtualId> = config.virtuals.iter().map(|v| v.id).collect();
        self.started.retain(|id| kept.contains(id));
        self.soft.clear();
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
    pub(super) fn tell_op(&self, state: &State, op: &Op, before: &Table, going: Going) {
        let config = state.config().virtuals.iter().find(|v| v.id == *op.virtual_id());
        for words in words::of_op(op, before, config, going) {
            self.log(&words.text);
            if let Some(config) = config.filter(|_| words.mail == Mail::Yes) {
                self.mail(config, words.text);
            }
        }
    }

    /// An outcome, before it is taken in.
    pub(super) fn tell_check(&mut self, state: &State, report: &Report) {
        let failed = report.finding.failed && report.finding.state != health::State::Down;
        let count = match (failed, self.soft.remove(&report.plan)) {
            (true, before) => before.unwrap_or(0).saturating_add(1),
            (false, Some(_)) if !report.finding.failed => 0,
            (false, _) => u32::MAX,
        };
        if failed {
            self.soft.insert(Arc::clone(&report.plan), count);
        }
        for (config, real) in servers(state, &report.plan) {
            if let Some(file) = &config.monitor_file {
                let name = file.names.get(&real).map(String::as_str);
                self.monitor(&file.path, &words::monitor_line(&report.plan, &report.outcome, name));
            }
            match count {
                u32::MAX => {}
                0 => self.log(&words::no_failure(real.0, &config.id)),
                _ => self.log(&words::soft_failure(real.0, &config.id, (count, report.plan.fall))),
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
            let text = words::inaccessible(&real, &id);
            self.log(&text);
            self.mail(config, text);
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
