//! EDGE: asks every server at its pace.
//!
//! Owns one task for each [`CheckPlan`]: stagger, interval, jitter. Refuses to know what an answer means for a
//! table. A check that hangs delays nobody: it has its own task and ends by its own deadline. A check that is
//! no longer wanted is not cut off in the middle, so that no server sees a lost connection.
#![expect(clippy::disallowed_methods, reason = "EDGE: this is where checks meet the clock")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use checks::{CheckSpec, Failure, Kind, Outcome, Reason, Stage};
use tokio::sync::{mpsc, oneshot};

use crate::cadence::{Cadence, Depth};
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
}

impl Prober {
    /// No checks yet; their reports will go to `reports`.
    #[must_use]
    pub fn new(reports: mpsc::Sender<Report>) -> Self {
        Self { reports, tasks: BTreeMap::new() }
    }

    /// Starts what is wanted and does not run, ends what runs and is not wanted, leaves the rest alone. `wanted` is
    /// sorted and has no doubles.
    pub fn sync(&mut self, wanted: Vec<CheckPlan>) {
        self.tasks.retain(|plan, _| wanted.binary_search(plan).is_ok());
        let new: Vec<_> = wanted.into_iter().filter(|plan| !self.tasks.contains_key(plan)).collect();
        let count = u32::try_from(new.len()).unwrap_or(u32::MAX);
        let mut delay = Duration::ZERO;
        for plan in new {
            let first = Instant::now() + delay;
            delay += STAGGER.min(plan.interval / count);
            let plan = Arc::new(plan);
            let (stop, stopped) = oneshot::channel();
            tokio::spawn(probe(Arc::clone(&plan), first, self.reports.clone(), stopped));
            self.tasks.insert(plan, stop);
        }
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
    let mut health = Health::default();
    let mut finding = Finding::default();
    let mut cadence = Cadence::new(plan.connects_between);
    let mut meter = Meter::new(&plan);
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
        meter.count(&outcome);
        let rules = Rules { fall: plan.fall, rise: plan.rise, verdicts: &plan.verdicts };
        let transition = health.observe(now, &outcome, rules);
        cadence.made(outcome.verdict.is_ok() && health.state() == State::Up && !health.is_confirming());
        finding.learn(now, &outcome);
        finding.failure = health.last_failure().cloned();
        finding.gone = health.is_gone();
        if let Some(Transition { from, to, .. }) = transition {
            (finding.was, finding.state, finding.since) = (from, to, Some(now));
        }
        let late = start.saturating_duration_since(next);
        let report = Report { plan: Arc::clone(&plan), outcome, finding: finding.clone(), late, transition };
        if reports.send(report).await.is_err() {
            return;
        }
        let pause = if health.is_confirming() { plan.retry } else { plan.interval };
        next = start + pause.mul_f64(1.0 - JITTER * fastrand::f64());
    }
}
