//! EDGE: asks every server at its pace.
//!
//! Owns one task for each [`CheckPlan`], and one for each receiver of canaries: stagger, interval, jitter. Refuses to know what an answer means for a
//! table. A check that hangs delays nobody: it has its own task and ends by its own deadline. A check that is
//! no longer wanted is not cut off in the middle, so that no server sees a lost connection.
#![expect(clippy::disallowed_methods, reason = "EDGE: this is where checks meet the clock")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use checks::{CheckSpec, Failure, Kind, Outcome, Reason, Stage};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::error;

use crate::cadence::{Cadence, Depth};
use crate::canary::desk::{self, Route};
use crate::canary::letter::Key;
use crate::config::CheckPlan;
use crate::health::{Health, Rules, State, Transition};
use crate::metrics::Meter;
use crate::state::Finding;
use crate::vip;

/// Checks that begin together begin this far apart, or closer when the interval has no room for all.
const STAGGER: Duration = Duration::from_millis(10);
/// A pause is shortened by up to this share, so that checks do not march in step.
const JITTER: f64 = 0.05;

/// One outcome and what it came to.
#[derive(Debug)]
pub struct Report {
    /// Whose outcome.
    pub plan: Arc<CheckPlan>,
    /// What came back.
    pub outcome: Outcome,
    /// What is known now.
    pub finding: Finding,
    /// How long after its time the check began.
    pub late: Duration,
    /// Whether this outcome changed the state.
    pub transition: Option<Transition>,
}

/// The running checks.
#[derive(Debug)]
pub struct Prober {
    reports: mpsc::Sender<Report>,
    /// Dropping the sender tells the task to end after the check that it may be in.
    tasks: BTreeMap<Arc<CheckPlan>, oneshot::Sender<()>>,
    /// Likewise the tasks of the receivers.
    desks: BTreeMap<Route, watch::Sender<Vec<Arc<CheckPlan>>>>,
    key: Option<Arc<Key>>,
}

impl Prober {
    /// No checks yet; their reports will go to `reports`.
    #[must_use]
    pub fn new(reports: mpsc::Sender<Report>) -> Self {
        Self { reports, tasks: BTreeMap::new(), desks: BTreeMap::new(), key: None }
    }

    /// Starts what is wanted and does not run, ends what runs and is not wanted, leaves the rest alone. `wanted` is
    /// sorted and has no doubles.
    pub fn sync(&mut self, wanted: Vec<CheckPlan>) {
        self.tasks.retain(|plan, _| wanted.binary_search(plan).is_ok());
        let mut canaries: BTreeMap<Route, Vec<Arc<CheckPlan>>> = BTreeMap::new();
        let mut new = Vec::new();
        for plan in wanted {
            match Route::of(&plan) {
                Some(route) => canaries.entry(route).or_default().push(Arc::new(plan)),
                None if self.tasks.contains_key(&plan) => {}
                None => new.push(Arc::new(plan)),
            }
        }
        self.sync_canaries(canaries);
        let delays: Vec<_> = stagger(new.iter().map(|plan| plan.interval)).collect();
        let now = Instant::now();
        for (plan, delay) in new.into_iter().zip(delays) {
            let first = now + delay;
            let (stop, stopped) = oneshot::channel();
            tokio::spawn(probe(Arc::clone(&plan), first, self.reports.clone(), stopped));
            self.tasks.insert(plan, stop);
        }
    }
}

impl Prober {
    fn sync_canaries(&mut self, wanted: BTreeMap<Route, Vec<Arc<CheckPlan>>>) {
        self.desks.retain(|route, _| wanted.contains_key(route));
        for (route, plans) in wanted {
            let key = match &self.key {
                Some(key) => Arc::clone(key),
                None => match new_key() {
                    Some(key) => Arc::clone(self.key.insert(Arc::new(key))),
                    None => {
                        error!("no random numbers for a key: no canaries are sent");
                        return;
                    }
                },
            };
            if let Some(desk) = self.desks.get(&route) {
                desk.send_replace(plans);
                continue;
            }
            let (desk, seen) = watch::channel(plans);
            tokio::spawn(desk::run(route.clone(), key, seen, self.reports.clone()));
            self.desks.insert(route, desk);
        }
    }
}

/// What signs the canaries of this start.
fn new_key() -> Option<Key> {
    let (mut start, mut secret) = ([0; 4], [0; 32]);
    let random = ring::rand::SystemRandom::new();
    ring::rand::SecureRandom::fill(&random, &mut start).ok()?;
    ring::rand::SecureRandom::fill(&random, &mut secret).ok()?;
    Some(Key::new(u32::from_be_bytes(start), &secret))
}

/// How long each of some checks that begin together waits, by their intervals.
pub(crate) fn stagger(intervals: impl ExactSizeIterator<Item = Duration>) -> impl Iterator<Item = Duration> {
    let count = u32::try_from(intervals.len()).unwrap_or(u32::MAX).max(1);
    intervals.scan(Duration::ZERO, move |delay, interval| {
        let own = *delay;
        *delay += STAGGER.min(interval / count);
        Some(own)
    })
}

/// When the next check begins, this pause after one that began at `start`.
pub(crate) fn after(start: Instant, pause: Duration) -> Instant {
    start + pause.mul_f64(1.0 - JITTER * fastrand::f64())
}

/// What is remembered of one check from one outcome to the next.
#[derive(Debug)]
pub(crate) struct Memory {
    plan: Arc<CheckPlan>,
    health: Health,
    pub(crate) finding: Finding,
    meter: Meter,
}

impl Memory {
    /// Nothing is known.
    pub(crate) fn new(plan: Arc<CheckPlan>) -> Self {
        let meter = Meter::new(&plan);
        Self { plan, health: Health::default(), finding: Finding::default(), meter }
    }

    /// What is known.
    pub(crate) fn state(&self) -> State {
        self.health.state()
    }

    /// Whether the last outcomes speak against what is known.
    pub(crate) fn is_confirming(&self) -> bool {
        self.health.is_confirming()
    }

    /// Takes an outcome in.
    pub(crate) fn observe(&mut self, now: Instant, outcome: Outcome, late: Duration) -> Report {
        let Self { plan, health, finding, meter } = self;
        meter.count(&outcome);
        let rules =
            Rules { fall: plan.fall, rise: plan.rise, damping: plan.damping, verdicts: &plan.verdicts };
        let transition = health.observe(now, &outcome, rules);
        finding.learn(now, &outcome);
        finding.failure = health.last_failure().cloned();
        finding.gone = health.is_gone();
        if let Some(Transition { from, to, .. }) = transition {
            (finding.was, finding.state, finding.since) = (from, to, Some(now));
        }
        Report { plan: Arc::clone(plan), outcome, finding: finding.clone(), late, transition }
    }
}

/// A failure through the VIP is the director's where it is by a setting of its own, and else is said in words that help.
fn own_up(plan: &CheckPlan, failure: Failure) -> Failure {
    let Some(via) = plan.spec.via else { return failure };
    if let (Stage::Connect, Some(need)) = (failure.stage, vip::settings::missing(plan)) {
        return Failure { reason: Reason::Local, text: need.to_string(), ..failure };
    }
    vip::explain(failure, plan.spec.target.ip(), via.server)
}

async fn probe(
    plan: Arc<CheckPlan>,
    first: Instant,
    reports: mpsc::Sender<Report>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut memory = Memory::new(Arc::clone(&plan));
    let mut cadence = Cadence::new(plan.connects_between);
    let mut next = first;
    loop {
        tokio::select! {
            _ = &mut stopped => return,
            () = tokio::time::sleep_until(next.into()) => {}
        }
        let start = Instant::now();
        // Boxed: the buffers of a check should not be kept through the pause.
        let mut outcome = match cadence.next() {
            Depth::Whole => Box::pin(checks::run(&plan.spec)).await,
            Depth::Connect => {
                Box::pin(checks::run(&CheckSpec { kind: Kind::Connect, ..plan.spec.clone() })).await
            }
        };
        if let Err(failure) = outcome.verdict {
            outcome.verdict = Err(own_up(&plan, failure));
        }
        let now = start + outcome.took;
        let report = memory.observe(now, outcome, start.saturating_duration_since(next));
        let is_well = report.outcome.verdict.is_ok() && memory.state() == State::Up;
        cadence.made(is_well && !memory.is_confirming());
        if reports.send(report).await.is_err() {
            return;
        }
        let pause = if memory.is_confirming() { plan.retry } else { plan.interval };
        next = after(start, pause);
    }
}
