//! EDGE: the one loop. An event is absorbed, the table compared, the difference applied, the picture published.
//!
//! Owns the order of things and the [`State`]; nobody else changes either. Refuses to know how a dataplane or
//! a check works. A failed op is logged once, counted, and left to the next comparison while the other virtuals
//! go on; a dataplane that cannot be read leaves the table as it is and is asked again.
#![expect(clippy::disallowed_methods, reason = "EDGE: this is where decisions meet the clock")]

mod ending;
mod notices;
mod table;
mod telling;
mod words;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use self::notices::Notices;
use self::telling::Teller;
use crate::arp::watch::Watch;
use crate::arp::{Look, Targets};
use crate::config::{
    AgentPlan, CheckPlan, Config, LogFormat, LogLevel, LogTarget, RealConfig, VirtualConfig,
};
use crate::dataplane::Dataplane;
use crate::health;
use crate::metrics as name;
use crate::model::{Dump, Table};
use crate::news::Desk;
use crate::poller::{Hearing, Poller};
use crate::prober::{Prober, Report};
use crate::snapshot::{Snapshot, picture, vips};
use crate::state::{Condition, Maintained, State};
use crate::vip::without_probes;
use crate::weight::law::LawConfig;

/// How soon the table is compared again while something drains or after an error.
const SOON: Duration = Duration::from_secs(1);
/// A picture younger than this is fresh enough for whoever asks.
const FRESH: Duration = Duration::from_secs(1);
/// Reports of queues that come within this time are weighed together.
const GATHER: Duration = Duration::from_millis(250);
/// Hearings that may wait; who says more waits too.
const HEARINGS: usize = 256;

/// What can happen to a director, beside the reports of its checks.
#[derive(Debug)]
pub enum Event {
    /// A new configuration, or the report on a file that is none.
    Reload(Result<Box<Config>, String>),
    /// Somebody wants a fresh picture and is told when it is published.
    Look(oneshot::Sender<()>),
    /// These servers, and no others, are in maintenance.
    Maintenance(BTreeSet<Maintained>),
    /// Who else answers for the VIPs.
    Answered(Look),
    /// End.
    Stop,
}

/// Where the director gets its events from.
#[derive(Debug)]
pub struct Inbox {
    /// Reports of the checks.
    pub reports: mpsc::Receiver<Report>,
    /// Everything else.
    pub events: mpsc::Receiver<Event>,
}

/// The director of one farm.
#[derive(Debug)]
pub struct Director<D> {
    state: State,
    dataplane: D,
    prober: Prober,
    poller: Poller,
    hearings: mpsc::Receiver<Hearing>,
    /// When what was heard is weighed.
    weigh_at: Option<Instant>,
    pictures: watch::Sender<Arc<Snapshot>>,
    /// What the dataplane had when it was last read, with the ops that succeeded since.
    actual: Dump,
    trouble: Option<String>,
    /// Ops that failed last time, so that each is logged once.
    failing: BTreeSet<String>,
    /// When the table was last right, in seconds since 1970.
    last_sync: Option<u64>,
    last_reload_ok: bool,
    /// What only a start can change.
    started_with: Fixed,
    /// What was wanted when the table was last right: it can only differ by somebody else's hand.
    settled: Option<Table>,
    notices: Notices,
    teller: Teller,
    /// Whether the same changes failed twice in a row: then they are asked for at the pace of the resync.
    stubborn: bool,
    /// Looks who else answers for the VIPs, and what it saw.
    watch: Option<Watch>,
    answered: Look,
    /// Whether the checks of a new configuration wait for its table.
    reloaded: bool,
    looked: Option<Instant>,
    lookers: Vec<oneshot::Sender<()>>,
    stopping: bool,
}

type Fixed = (Option<SocketAddr>, LogLevel, LogFormat, LogTarget);

fn fixed(config: &Config) -> Fixed {
    (config.http, config.log, config.log_format, config.log_to.clone())
}

impl<D: Dataplane> Director<D> {
    /// A director that has not looked at anything yet; `prober` reports to the inbox given to [`Self::run`].
    pub fn new(config: Config, dataplane: D, prober: Prober, pictures: watch::Sender<Arc<Snapshot>>) -> Self {
        let config = if dataplane.name() == "proxy" { without_probes(config) } else { config };
        let (hearing, hearings) = mpsc::channel(HEARINGS);
        Self {
            poller: Poller::new(hearing),
            hearings,
            weigh_at: None,
            started_with: fixed(&config),
            settled: None,
            notices: Notices::default(),
            teller: Teller::new(&config),
            state: State::new(config),
            dataplane,
            prober,
            pictures,
            actual: Dump::default(),
            trouble: None,
            failing: BTreeSet::new(),
            stubborn: false,
            watch: None,
            answered: Look::new(),
            reloaded: false,
            last_sync: None,
            last_reload_ok: true,
            looked: None,
            lookers: Vec::new(),
            stopping: false,
        }
    }

    /// Brings news of the farm to `desk`; until then to nobody.
    #[must_use]
    pub fn telling(mut self, desk: Desk) -> Self {
        self.teller.desk = desk;
        self
    }

    /// Has this watch look who else answers for the VIPs.
    #[must_use]
    pub fn watching(self, watch: Watch) -> Self {
        Self { watch: Some(watch), ..self }
    }

    /// Directs until it is told to stop, or until nobody can tell it anything any more.
    pub async fn run(mut self, mut inbox: Inbox) {
        self.set_options();
        self.reconcile().await;
        // Only now are the ways there that some of them need.
        self.start_checks();
        while !self.stopping {
            let next_look = self.next_look();
            let next_word = self.teller.next();
            let weigh_at = self.weigh_at.unwrap_or(next_look).min(next_look);
            let mut due = tokio::select! {
                hearing = self.hearings.recv() => hearing.is_some_and(|hearing| self.hear(&hearing)),
                report = inbox.reports.recv() => report.is_some_and(|report| self.learn(report)),
                event = inbox.events.recv() => self.take(event.unwrap_or(Event::Stop)),
                () = tokio::time::sleep_until(weigh_at.into()) => self.weigh(next_look),
                () = sleep_until(next_word) => {
                    self.teller.repeat(Instant::now(), &self.state);
                    false
                }
            };
            // What waits already is one comparison, not many.
            while let Ok(report) = inbox.reports.try_recv() {
                due |= self.learn(report);
            }
            while let Ok(hearing) = self.hearings.try_recv() {
                due |= self.hear(&hearing);
            }
            while let Ok(event) = inbox.events.try_recv() {
                due |= self.take(event);
            }
            if due {
                self.reconcile().await;
            }
            if std::mem::take(&mut self.reloaded) {
                self.start_checks();
            }
            if !self.lookers.is_empty() && self.looked.is_some_and(|looked| looked.elapsed() < FRESH) {
                for looker in self.lookers.drain(..) {
                    let _ = looker.send(());
                }
            }
        }
        self.leave(inbox).await;
    }

    /// Weighs what was heard; true when that changes a weight, or when the table is due for a look anyway.
    fn weigh(&mut self, next_look: Instant) -> bool {
        let now = Instant::now();
        self.weigh_at = None;
        let changed = self.state.weigh(now, &self.actual);
        // A law goes on while nothing is heard: it gives back, and forgets.
        let pace =
            self.state.config().virtuals.iter().filter_map(|v| v.law.as_ref()).map(LawConfig::pace).min();
        self.weigh_at = pace.map(|pace| now + pace);
        changed || next_look <= now
    }

    /// Takes in what was heard of a queue; true when the table may have to change at once.
    fn hear(&mut self, hearing: &Hearing) -> bool {
        let plan = Arc::clone(&hearing.plan);
        let now = Instant::now();
        let Some(known) = self.state.heard(&plan).cloned() else { return false };
        let uses = |v: &VirtualConfig| v.reals.iter().any(|real| real.agent.as_ref() == Some(&*plan));
        let of = names(&self.state, uses);
        let its = |real: &RealConfig| real.agent.as_ref() == Some(&*plan);
        let before = conditions(now, &self.state, its);
        self.state.hear(&plan, hearing.heard.clone());
        let after = conditions(now, &self.state, its);
        notices::tell_agent(&of, (&known, hearing), &before, &after);
        let soon = now + GATHER;
        self.weigh_at = Some(self.weigh_at.map_or(soon, |at| at.min(soon)));
        before.iter().zip(&after).any(|((_, before), (_, after))| before.standing != after.standing)
    }

    fn next_look(&self) -> Instant {
        let resync = self.state.config().resync;
        let soon = self.state.is_draining() || (self.trouble.is_some() && !self.stubborn);
        let pause = if soon { SOON.min(resync) } else { resync };
        self.looked.map_or_else(Instant::now, |looked| looked + pause)
    }

    fn set_options(&mut self) {
        let virtuals = &self.state.config().virtuals;
        self.dataplane.set_proxy_options(virtuals.iter().map(|v| (v.id, v.proxy)).collect());
    }

    fn start_checks(&mut self) {
        if let Some(watch) = &self.watch {
            let targets = Targets::of(self.state.config());
            self.answered.retain(|vip, _| targets.every.is_some() && targets.vips.contains(vip));
            watch.sync(targets);
        }
        let checks: Vec<CheckPlan> = self.state.checks().cloned().collect();
        self.prober.sync(checks);
        let agents: Vec<AgentPlan> = self.state.agents().cloned().collect();
        self.poller.sync(agents);
        self.weigh_at = Some(Instant::now());
    }

    /// Takes a report in; true when the table may have to change.
    fn learn(&mut self, report: Report) -> bool {
        let plan = Arc::clone(&report.plan);
        let Some(known) = self.state.finding(&plan) else {
            return false; // its server was removed while it was asked
        };
        if !self.state.config().vip.is_laid(&plan, &self.actual.table) {
            return false; // its connection went to any server
        }
        notices::tell_check(|| names(&self.state, |v| checked(v, &plan)), known, &report);
        self.teller.tell_check(&self.state, &report);
        let Report { finding, transition, .. } = report;
        let matters = transition.is_some()
            || finding.state == health::State::Unknown
            || finding.unanswered_since.is_some() != known.unanswered_since.is_some()
            || self.state.awaits(&plan);
        let now = Instant::now();
        let its = |real: &RealConfig| real.checks.contains(&plan);
        let before = transition.map(|_| conditions(now, &self.state, its));
        self.state.absorb(&plan, finding);
        if let (Some(before), Some(transition)) = (before, transition) {
            notices::tell_transition(&plan, transition, &before, &conditions(now, &self.state, its));
        }
        matters
    }

    /// Takes an event in; true when the table may have to change.
    fn take(&mut self, event: Event) -> bool {
        match event {
            Event::Reload(Ok(config)) if config.dataplane != self.state.config().dataplane => {
                self.refuse(
                    "dataplane changes only at a start: restart smtp-director, or put the old one back",
                );
                true
            }
            Event::Reload(Ok(config)) => {
                match config.vip.refusal(&self.actual.table) {
                    Some(why) => self.refuse(&why),
                    None => self.reconfigure(*config),
                }
                true
            }
            Event::Reload(Err(report)) => {
                self.refuse(&report);
                true
            }
            Event::Look(looker) => {
                self.lookers.push(looker);
                self.looked.is_none_or(|looked| looked.elapsed() >= FRESH)
            }
            Event::Maintenance(maintained) => {
                self.state.maintain(maintained);
                true
            }
            Event::Answered(look) => {
                notices::tell_strangers(&self.answered, &look);
                self.answered = look;
                false
            }
            Event::Stop => {
                self.stopping = true;
                false
            }
        }
    }

    fn refuse(&mut self, report: &str) {
        name::count_reload("error");
        self.last_reload_ok = false;
        error!("reload refused, the old configuration stays in force:\n{}", report.trim_end());
    }

    fn reconfigure(&mut self, config: Config) {
        let config = if self.dataplane.name() == "proxy" { without_probes(config) } else { config };
        name::count_reload("ok");
        self.last_reload_ok = true;
        if config == *self.state.config() {
            info!("configuration reloaded, nothing changed");
            return;
        }
        if fixed(&config) != self.started_with {
            warn!(
                "http, log, log_format and log_to change only at a start; until then those of the last start hold"
            );
        }
        info!("configuration reloaded: {}", config.extent());
        self.teller.reconfigure(&self.state, &config, &self.actual.table);
        self.state.reconfigure(config);
        self.set_options();
        self.reloaded = true;
    }

    fn publish(&mut self, now: Instant) {
        self.looked = Some(Instant::now());
        let mut virtuals = picture(now, &self.state, &self.actual);
        if self.dataplane.name() == "proxy" {
            // It connects to all of them by itself, whatever a kernel would do.
            let reals = virtuals.iter_mut().flat_map(|v| &mut v.reals);
            reals.for_each(|real| "Proxy".clone_into(&mut real.forward));
        }
        self.pictures.send_replace(Arc::new(Snapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            dataplane: self.dataplane.name().to_owned(),
            in_sync: self.trouble.is_none(),
            trouble: self.trouble.clone(),
            last_sync: self.last_sync,
            last_reload_ok: self.last_reload_ok,
            all_known: self.state.knows_all(),
            cut_off: self.state.cut_off_since().is_some(),
            vips: vips(&self.answered),
            canaries_silent: self.state.canaries_silent(),
            virtuals,
        }));
    }
}

/// Waits until then, or for ever.
async fn sleep_until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when.into()).await,
        None => std::future::pending().await,
    }
}

/// The names of the virtuals of which this holds.
fn names(state: &State, holds: impl Fn(&VirtualConfig) -> bool) -> String {
    let names = state.config().virtuals.iter().filter(|v| holds(v)).map(|v| v.name.as_str());
    names.collect::<Vec<_>>().join(", ")
}

fn checked(config: &VirtualConfig, plan: &CheckPlan) -> bool {
    config.reals.iter().any(|real| real.checks.contains(plan))
}

/// What is known of the servers of which this holds, in each virtual that they are in.
fn conditions(now: Instant, state: &State, holds: impl Fn(&RealConfig) -> bool) -> Vec<(String, Condition)> {
    let virtuals = state.config().virtuals.iter();
    let reals = virtuals.flat_map(|v| v.reals.iter().map(move |real| (v, real)));
    let its = reals.filter(|(_, real)| holds(real));
    its.map(|(v, real)| (v.name.clone(), state.condition(now, v, real))).collect()
}

#[cfg(test)]
mod tests;
