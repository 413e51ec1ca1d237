//! EDGE: the task of one receiver: sends a canary through each server at its pace, and hears which are back.
//!
//! Owns the order of things, and the health of each server as far as its canaries go. Refuses to know the protocol and what
//! a finding means for a table. A receiver that cannot listen is tried again; until then nothing is sent, and nothing
//! said of a server. What is being sent when it is no longer wanted is not cut off.
#![expect(clippy::disallowed_methods, reason = "EDGE: this is where canaries meet the clock")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use checks::smtp::{DataSpec, Dialect, SmtpSpec};
use checks::{CheckSpec, Failure, Kind, Outcome, Reason, Stage, StageReport};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, error, info};

use super::ledger::{Ledger, Limits, Word};
use super::letter::{Arrival, Key, Mark};
use super::receiver;
use crate::config::CheckPlan;
use crate::health::State;
use crate::metrics as name;
use crate::prober::{Memory, Report, after, stagger};

/// Arrivals that may wait; who brings more waits too.
const ARRIVALS: usize = 64;
/// Until a receiver that could not listen is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// All that is due within this time is looked at in one go: a look costs more where there are more servers.
const TICK: Duration = Duration::from_millis(50);
/// Longer than the desk ever sleeps.
const NEVER: Duration = Duration::from_secs(3600);

/// What is received where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    pub(crate) listen: SocketAddr,
    pub(crate) dialect: Dialect,
    pub(crate) to: String,
}

impl Route {
    /// Where the canary of a check comes back; `None` for any other check.
    pub(crate) fn of(plan: &CheckPlan) -> Option<Self> {
        let canary = plan.canary.as_ref()?;
        let Kind::Smtp(SmtpSpec { data: Some(data), .. }) = &plan.spec.kind else { return None };
        Some(Self { listen: canary.listen, dialect: canary.dialect, to: data.to.clone() })
    }
}

/// One server and its canaries.
struct Seat {
    memory: Memory,
    next: Instant,
    sending: bool,
    /// Whether the next one is due soon while a change is confirmed: not while mail is stuck, it would only add to it.
    brisk: bool,
}

struct Desk {
    route: Route,
    key: Arc<Key>,
    reports: mpsc::Sender<Report>,
    seats: BTreeMap<Arc<CheckPlan>, Seat>,
    ledger: Ledger<Arc<CheckPlan>>,
    sends: JoinSet<(Arc<CheckPlan>, u64, Instant, Outcome)>,
    arrive: mpsc::Sender<(Instant, Arrival)>,
    arrivals: mpsc::Receiver<(Instant, Arrival)>,
    receiver: JoinSet<()>,
    /// Why it does not listen, and when that is tried next.
    deaf: Option<(String, Instant)>,
    suspected: bool,
    next_look: Instant,
}

/// Runs until the sender of `plans` is dropped.
pub(crate) async fn run(
    route: Route,
    key: Arc<Key>,
    mut plans: watch::Receiver<Vec<Arc<CheckPlan>>>,
    reports: mpsc::Sender<Report>,
) {
    let (arrive, arrivals) = mpsc::channel(ARRIVALS);
    let mut desk = Desk {
        route,
        key,
        reports,
        seats: BTreeMap::new(),
        ledger: Ledger::default(),
        sends: JoinSet::new(),
        arrive,
        arrivals,
        receiver: JoinSet::new(),
        deaf: None,
        suspected: false,
        next_look: Instant::now(),
    };
    desk.sync(&plans.borrow_and_update());
    loop {
        desk.listen().await;
        let next_look = desk.next_look;
        let (goes_on, looked) = tokio::select! {
            // What is back already is not overdue.
            biased;
            Some(arrival) = desk.arrivals.recv() => (desk.back(arrival).await, false),
            Some(sent) = desk.sends.join_next() => match sent {
                Ok(sent) => (desk.sent(sent).await, false),
                Err(_) => (true, false),
            },
            changed = plans.changed() => {
                desk.sync(&plans.borrow_and_update());
                (changed.is_ok(), false)
            }
            () = tokio::time::sleep_until(next_look.into()) => (desk.look().await, true),
        };
        if !goes_on {
            break;
        }
        let soon = Instant::now() + TICK;
        desk.next_look = if looked { desk.due().max(soon) } else { next_look.min(soon) };
    }
    desk.sends.detach_all();
}

impl Desk {
    /// `wanted` is sorted.
    fn sync(&mut self, wanted: &[Arc<CheckPlan>]) {
        let gone: Vec<_> =
            self.seats.keys().filter(|plan| wanted.binary_search(plan).is_err()).cloned().collect();
        for plan in gone {
            self.seats.remove(&plan);
            self.ledger.dismiss(&plan);
        }
        let new: Vec<_> = wanted.iter().filter(|plan| !self.seats.contains_key(*plan)).collect();
        let now = Instant::now();
        let delays = stagger(new.iter().map(|plan| plan.interval));
        for (plan, delay) in new.iter().zip(delays) {
            let Some(canary) = &plan.canary else { continue };
            self.ledger.enroll(Arc::clone(plan), Limits { slow: canary.slow, lost: canary.lost });
            let memory = Memory::new(Arc::clone(plan));
            self.seats
                .insert(Arc::clone(plan), Seat { memory, next: now + delay, sending: false, brisk: false });
        }
    }

    /// Begins to receive where it does not.
    async fn listen(&mut self) {
        let now = Instant::now();
        if !self.receiver.is_empty() || self.deaf.as_ref().is_some_and(|(_, next)| *next > now) {
            return;
        }
        let listen = self.route.listen;
        match TcpListener::bind(listen).await {
            Ok(listener) => {
                if self.deaf.take().is_some() {
                    info!("canaries are received at {listen} now");
                }
                let desk = receiver::Desk {
                    name: format!("[{}]", listen.ip()),
                    dialect: self.route.dialect,
                    recipient: self.route.to.clone(),
                    key: Arc::clone(&self.key),
                    arrivals: self.arrive.clone(),
                    told: Mutex::new(None),
                };
                self.receiver.spawn(receiver::serve(listener, Arc::new(desk)));
            }
            Err(error) => {
                let text = format!("cannot receive canaries at {listen}: {error}");
                if self.deaf.is_none() {
                    error!("{text}; none is sent, and nothing follows for any server");
                }
                self.deaf = Some((text, now + AGAIN));
            }
        }
    }

    fn due(&self) -> Instant {
        let now = Instant::now();
        let sends = self.seats.values().filter(|seat| !seat.sending).map(|seat| seat.next);
        let deaf = self.deaf.as_ref().map(|(_, next)| *next);
        sends.chain(deaf).chain(self.ledger.due(now)).min().unwrap_or(now + NEVER)
    }

    /// Sends what is due, and says what is to be said. False when nobody listens.
    async fn look(&mut self) -> bool {
        let now = Instant::now();
        let due = self.seats.iter().filter(|(_, seat)| !seat.sending && seat.next <= now);
        let due: Vec<_> = due.map(|(plan, _)| Arc::clone(plan)).collect();
        let mut news = Vec::new();
        for plan in due {
            let said = self.ledger.said(&plan);
            match &self.deaf {
                Some((text, _)) => {
                    news.push((Arc::clone(&plan), local(text.clone())));
                    self.postpone(&plan, now);
                }
                None => self.send(now, &plan),
            }
            // Once an interval, for rows of the table that want to see it more than once.
            news.extend(said.and_then(|word| Some((Arc::clone(&plan), self.overdue(now, &plan, word)?))));
        }
        for (plan, word) in self.ledger.judge(now) {
            news.extend(self.overdue(now, &plan, word).map(|outcome| (plan, outcome)));
        }
        for plan in self.ledger.count_lost(now) {
            name::count_canary(&plan, "lost");
        }
        for (plan, outcome) in news {
            if !self.report(now, &plan, outcome).await {
                return false;
            }
        }
        true
    }

    fn postpone(&mut self, plan: &Arc<CheckPlan>, now: Instant) {
        if let Some(seat) = self.seats.get_mut(plan) {
            let pause = if seat.brisk && seat.memory.is_confirming() { plan.retry } else { plan.interval };
            seat.next = after(now, pause);
        }
    }

    fn send(&mut self, now: Instant, plan: &Arc<CheckPlan>) {
        let Kind::Smtp(smtp) = &plan.spec.kind else { return };
        let Some(data) = &smtp.data else { return };
        let (number, forgotten) = self.ledger.send(now, plan);
        if forgotten {
            name::count_canary(plan, "lost");
        }
        let mark = Mark { number, server: plan.spec.target, sent: receiver::since_epoch() };
        let text = self.key.letter(&mark, (&data.from, &data.to), &smtp.ehlo_name);
        let data = DataSpec { text: Some(text.into()), ..(**data).clone() };
        let smtp = SmtpSpec { data: Some(Box::new(data)), ..smtp.clone() };
        let spec = CheckSpec { kind: Kind::Smtp(smtp), ..plan.spec.clone() };
        let plan = Arc::clone(plan);
        if let Some(seat) = self.seats.get_mut(&plan) {
            seat.sending = true;
        }
        self.sends.spawn(async move {
            let outcome = checks::run(&spec).await;
            (plan, number, now, outcome)
        });
    }

    /// A server took a canary, or did not.
    async fn sent(
        &mut self,
        (plan, number, start, outcome): (Arc<CheckPlan>, u64, Instant, Outcome),
    ) -> bool {
        let taken = outcome.verdict.is_ok();
        if taken {
            self.ledger.taken(number);
        } else {
            self.ledger.not_taken(number);
        }
        name::count_canary(&plan, if taken { "sent" } else { "not_taken" });
        if let Some(seat) = self.seats.get_mut(&plan) {
            seat.sending = false;
            seat.brisk = !taken;
        }
        // That it was taken is no news: whether it comes back is.
        let goes_on = taken || self.report(start + outcome.took, &plan, outcome).await;
        self.postpone(&plan, start);
        goes_on
    }

    async fn back(&mut self, (now, arrival): (Instant, Arrival)) -> bool {
        let Arrival { mark, longest } = arrival;
        let Some(back) = self.ledger.back(now, mark.number) else {
            debug!(
                "canary {} through {} came again, or is not waited for any more",
                mark.number, mark.server
            );
            name::count_canary_stranger("doubled");
            return true;
        };
        if std::mem::take(&mut self.suspected) {
            info!("canaries come back to {} again", self.route.listen);
        }
        let plan = back.server;
        let slow = plan.canary.as_ref().is_some_and(|canary| back.delay >= canary.slow);
        name::count_canary(&plan, if slow { "late" } else { "back" });
        name::time_canary(&plan, back.delay);
        let Some(seat) = self.seats.get_mut(&plan) else { return true };
        seat.memory.finding.delay = Some(back.delay);
        if !back.news {
            return true;
        }
        let outcome = if slow { came_late(back.delay, longest) } else { came(back.delay) };
        seat.brisk = !slow;
        let goes_on = self.report(now, &plan, outcome).await;
        if let Some(seat) = self.seats.get_mut(&plan)
            && seat.brisk
            && seat.memory.is_confirming()
        {
            seat.next = seat.next.min(after(now, plan.retry));
        }
        goes_on
    }

    /// What is said of a server whose canary is overdue; nothing where a server is new that may only be slow.
    fn overdue(&mut self, now: Instant, plan: &Arc<CheckPlan>, word: Word) -> Option<Outcome> {
        let seat = self.seats.get(plan)?;
        let since = self.ledger.overdue_since(now, plan)?;
        let age = Duration::from_secs(now.saturating_duration_since(since).as_secs());
        let age = humantime::format_duration(age);
        match word {
            // What the table has was decided by somebody who knew more.
            Word::Late if seat.memory.state() == State::Unknown => None,
            Word::Late => Some(failed(Reason::Late, format!("sent {age} ago and not back"))),
            Word::Lost => {
                Some(failed(Reason::Lost, format!("nothing is back that was sent since {age} ago")))
            }
            Word::Suspect => {
                let listen = self.route.listen;
                if !std::mem::replace(&mut self.suspected, true) {
                    error!(
                        "no canary of any server comes back to {listen}: the way back is the suspect, nobody is taken out. \
                         Look at the route of {} and at what lies between",
                        self.route.to
                    );
                }
                Some(local(format!("no canary of any server comes back to {listen}")))
            }
        }
    }

    /// False when nobody listens.
    async fn report(&mut self, now: Instant, plan: &Arc<CheckPlan>, outcome: Outcome) -> bool {
        let overdue = self.ledger.overdue_since(now, plan);
        let Some(seat) = self.seats.get_mut(plan) else { return true };
        seat.memory.finding.overdue_since = overdue;
        let report = seat.memory.observe(now, outcome, Duration::ZERO);
        self.reports.send(report).await.is_ok()
    }
}

fn outcome(verdict: Result<(), Failure>, took: Duration, stages: Vec<StageReport>) -> Outcome {
    Outcome { verdict, took, stages, capabilities: Vec::new(), tls: None }
}

fn failed(reason: Reason, text: String) -> Outcome {
    outcome(Err(Failure { stage: Stage::Delivery, reason, code: None, text }), Duration::ZERO, Vec::new())
}

fn local(text: String) -> Outcome {
    failed(Reason::Local, text)
}

fn came(took: Duration) -> Outcome {
    let report =
        StageReport { stage: Stage::Delivery, took, code: None, sent: String::new(), received: Vec::new() };
    outcome(Ok(()), took, vec![report])
}

fn came_late(took: Duration, longest: Option<(String, i64)>) -> Outcome {
    let whole = humantime::format_duration(Duration::from_secs(took.as_secs()));
    let text = match longest {
        Some((by, seconds)) => format!("came after {whole}, of which {seconds}s at {by}"),
        None => format!("came after {whole}"),
    };
    Outcome { took, ..failed(Reason::Late, text) }
}
