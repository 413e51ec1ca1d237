//! EDGE: asks the agent of every mail box at its pace.
//!
//! Owns one task for each [`AgentPlan`]: stagger, interval, jitter, and the memory of its agent. Refuses to know what a
//! line means for a weight. An agent that hangs delays nobody and ends by its own deadline; whatever it says, the
//! worst is no data, which is counted.
#![expect(clippy::disallowed_methods, reason = "EDGE: this is where agents meet the clock")]

mod fetch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::config::AgentPlan;
use crate::heard::Heard;
use crate::metrics::count_report;

/// Agents that are first asked together are asked this far apart, or closer when the interval has no room for all.
const STAGGER: Duration = Duration::from_millis(10);
/// A pause is shortened by up to this share, so that directors do not march in step.
const JITTER: f64 = 0.05;
/// How soon an agent is asked again whose word would take its server out.
const RETRY: Duration = Duration::from_secs(2);

/// What is known after one answer.
#[derive(Debug)]
pub struct Hearing {
    /// Whose answer.
    pub plan: Arc<AgentPlan>,
    /// What is known by it and those before it.
    pub heard: Heard,
    /// Why it was no data, for people; empty where it was.
    pub text: String,
}

/// The running tasks.
#[derive(Debug)]
pub struct Poller {
    hearings: mpsc::Sender<Hearing>,
    /// Dropping the sender tells the task to end.
    tasks: BTreeMap<Arc<AgentPlan>, oneshot::Sender<()>>,
}

impl Poller {
    /// Asks nobody yet; what is heard will go to `hearings`.
    #[must_use]
    pub fn new(hearings: mpsc::Sender<Hearing>) -> Self {
        Self { hearings, tasks: BTreeMap::new() }
    }

    /// Starts what is wanted and does not run, ends what runs and is not wanted, leaves the rest alone. `wanted` is
    /// sorted and has no doubles.
    pub fn sync(&mut self, wanted: Vec<AgentPlan>) {
        self.tasks.retain(|plan, _| wanted.binary_search(plan).is_ok());
        let new: Vec<_> = wanted.into_iter().filter(|plan| !self.tasks.contains_key(plan)).collect();
        let count = u32::try_from(new.len()).unwrap_or(u32::MAX);
        let mut delay = Duration::ZERO;
        for plan in new {
            let first = Instant::now() + delay;
            delay += STAGGER.min(plan.interval / count);
            let plan = Arc::new(plan);
            let (stop, stopped) = oneshot::channel();
            tokio::spawn(poll(Arc::clone(&plan), first, self.hearings.clone(), stopped));
            self.tasks.insert(plan, stop);
        }
    }
}

async fn poll(
    plan: Arc<AgentPlan>,
    first: Instant,
    hearings: mpsc::Sender<Hearing>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut heard = Heard::default();
    let mut next = first;
    loop {
        tokio::select! {
            _ = &mut stopped => return,
            () = tokio::time::sleep_until(next.into()) => {}
        }
        let start = Instant::now();
        // Boxed: its buffers should not be kept through the pause.
        let (answer, text) = match Box::pin(fetch::fetch(&plan)).await {
            Ok(line) => (Ok(line), String::new()),
            Err((trouble, text)) => (Err(trouble), text),
        };
        let now = Instant::now();
        heard.take(now, plan.interval, answer);
        count_report(&plan, heard.trouble(now).map_or("ok", |(trouble, _)| trouble.name()));
        let hearing = Hearing { plan: Arc::clone(&plan), heard: heard.clone(), text };
        if hearings.send(hearing).await.is_err() {
            return;
        }
        let pause = if heard.is_confirming() { RETRY.min(plan.interval) } else { plan.interval };
        next = start + pause.mul_f64(1.0 - JITTER * fastrand::f64());
    }
}
