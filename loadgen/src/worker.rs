//! EDGE: threads, each with its own runtime, seats and share of the plan. The one loop for every pace and stop.
//!
//! Owns when work is started, who does it, and the end. Refuses to know what the work is ([`crate::seat`]) and what
//! becomes of the figures. Fails to start with a text; later nothing fails, all is counted.
//!
//! A thread shares nothing on its way but two atomics: no channel, no lock and no message of its own for an arrival. What
//! is due and was not started is not kept anywhere: it is the next in the schedule.
#![expect(clippy::disallowed_methods, reason = "EDGE: this is where time is")]

mod clock;
mod shared;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::UnboundedSender as Sender;
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::sleep;

use self::clock::Timer;
pub use self::shared::{Gap, Shared};
use crate::job::{Job, Pace};
use crate::plan::{Arrival, Nanos, Schedule, Share};
use crate::seat::Seat;
use crate::tally::{Slice, Span, Tally, Waited};

const SECOND: Nanos = 1_000_000_000;

/// What the run shall do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Go on.
    #[default]
    Run,
    /// Start nothing more; finish what is under way.
    Finish,
    /// Leave everything.
    Leave,
}

/// What a thread tells while it runs.
#[derive(Debug)]
pub enum News {
    /// Of one thread, by its number: a second of it.
    Second(usize, Box<Slice>, Vec<String>),
    /// It is done.
    Done(usize, Box<Tally>),
}

/// What the seats of a thread share.
pub struct Room {
    pub(crate) job: Arc<Job>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) tally: RefCell<Tally>,
    /// Connections that are open.
    pub(crate) open: Cell<u64>,
    pub(crate) index: u64,
    pub(crate) threads: u64,
    schedule: RefCell<Option<Schedule>>,
    idle: RefCell<Vec<Rc<Bell>>>,
    /// Who deals, while all seats are busy.
    dealer: RefCell<Option<Waker>>,
    seats: Cell<usize>,
    most: usize,
    ended: Cell<bool>,
    gone: tokio::sync::Notify,
    begun: Cell<u64>,
    done: Cell<u64>,
    date: RefCell<(u64, Rc<str>)>,
    order: watch::Receiver<Order>,
}

/// Where an idle seat is called.
#[derive(Default)]
struct Bell {
    given: Cell<Option<Given>>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy)]
enum Given {
    Arrival(Arrival),
    End,
}

impl Bell {
    fn ring(&self, given: Given) {
        self.given.set(Some(given));
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    async fn wait(&self) -> Given {
        poll_fn(|context| match self.given.take() {
            Some(given) => Poll::Ready(given),
            None => {
                *self.waker.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}

/// What a seat is to do.
struct Task {
    number: u64,
    /// In an open run.
    scheduled: Option<Nanos>,
    waited: Waited,
}

impl Room {
    /// Nanoseconds since the start of the run; 0 before it.
    pub(crate) fn now(&self) -> Nanos {
        Nanos::try_from(Instant::now().saturating_duration_since(self.shared.begin).as_nanos())
            .unwrap_or(Nanos::MAX)
    }

    /// Microseconds since 1970, and that for Date.
    pub(crate) fn wall(&self) -> (u64, Rc<str>) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let micros = u64::try_from(since.as_micros()).unwrap_or_default();
        let mut date = self.date.borrow_mut();
        if date.0 != since.as_secs() {
            let seconds = i64::try_from(since.as_secs()).unwrap_or_default();
            *date = (since.as_secs(), checks::calendar::rfc5322(seconds).into());
        }
        (micros, Rc::clone(&date.1))
    }

    /// The next one of a schedule, if it is due.
    fn take_due(&self, now: Nanos) -> Option<Arrival> {
        let mut schedule = self.schedule.borrow_mut();
        let schedule = schedule.as_mut()?;
        schedule.peek().filter(|arrival| arrival.at <= now)?;
        schedule.next()
    }

    /// What a seat does next; `None`: it may go.
    async fn next(&self, seat: &mut Seat) -> Option<Task> {
        match &self.job.pace {
            Pace::Closed { think } => {
                if seat.live.is_some() || self.begun.get() > 0 {
                    let millis = think.draw(&mut seat.random);
                    if millis > 0 {
                        let mut order = self.order.clone();
                        tokio::select! {
                            () = sleep(Duration::from_millis(millis)) => {}
                            _ = order.wait_for(|order| *order != Order::Run) => {}
                        }
                    }
                }
                if self.is_over() {
                    return None;
                }
                let share = self.job.share;
                let place = self.shared.next.fetch_add(1, Ordering::Relaxed);
                if self.job.stop.count.is_some_and(|count| place >= share.part(count)) {
                    return None;
                }
                Some(Task { number: place * share.of + share.index, scheduled: None, waited: Waited::No })
            }
            Pace::Open { .. } => {
                if self.ended.get() {
                    return None;
                }
                if let Some(Arrival { number, at }) = self.take_due(self.now()) {
                    let waited = if self.seats.get() >= self.most { Waited::Yes } else { Waited::No };
                    return Some(Task { number, scheduled: Some(at), waited });
                }
                let bell = Rc::new(Bell::default());
                self.idle.borrow_mut().push(Rc::clone(&bell));
                if let Some(dealer) = self.dealer.borrow_mut().take() {
                    dealer.wake();
                }
                let given = match seat.idles() {
                    None => bell.wait().await,
                    Some(limit) => {
                        let given = seat.patience.limit(limit, bell.wait()).await;
                        if let Ok(given) = given {
                            given
                        } else {
                            seat.leave().await;
                            bell.wait().await
                        }
                    }
                };
                match given {
                    Given::Arrival(Arrival { number, at }) => {
                        Some(Task { number, scheduled: Some(at), waited: Waited::No })
                    }
                    Given::End => None,
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        let late = || self.job.stop.time.is_some_and(|time| u128::from(self.now()) >= time.as_nanos());
        self.ended.get() || *self.order.borrow() != Order::Run || late()
    }

    /// Deals the arrivals of a schedule to idle seats, and to new ones. Ends with the schedule.
    async fn deal(self: &Rc<Self>) {
        let Ok(mut timer) = Timer::new() else { return };
        loop {
            let due = loop {
                let Some(arrival) = self.schedule.borrow().as_ref().and_then(Schedule::peek) else { return };
                if arrival.at > self.now() {
                    break Some(arrival.at);
                }
                let bell = self.idle.borrow_mut().pop();
                if let Some(bell) = bell {
                    self.deal_next(|arrival| bell.ring(Given::Arrival(arrival)));
                } else if self.seats.get() < self.most {
                    self.deal_next(|Arrival { number, at }| {
                        self.seat(Some(Task { number, scheduled: Some(at), waited: Waited::No }));
                    });
                } else {
                    break None;
                }
            };
            match due {
                Some(at) => {
                    let wait = Duration::from_nanos(at.saturating_sub(self.now())).max(self.job.tick);
                    timer.wait(wait).await;
                }
                // A seat that finds nothing due comes back here; meanwhile they help themselves.
                None => {
                    let end = self.job.stop.time.unwrap_or(Duration::MAX);
                    let left = end.saturating_sub(Duration::from_nanos(self.now()));
                    if left.is_zero() {
                        return;
                    }
                    let free = poll_fn(|context| {
                        if self.idle.borrow().is_empty() {
                            *self.dealer.borrow_mut() = Some(context.waker().clone());
                            return Poll::Pending;
                        }
                        Poll::Ready(())
                    });
                    let _ = tokio::time::timeout(left, free).await;
                }
            }
        }
    }

    fn deal_next(&self, to: impl FnOnce(Arrival)) {
        let next = self.schedule.borrow_mut().as_mut().and_then(Iterator::next);
        if let Some(arrival) = next {
            to(arrival);
        }
    }

    /// Opens a seat.
    fn seat(self: &Rc<Self>, first: Option<Task>) {
        let number = self.seats.get();
        self.seats.set(number + 1);
        let room = Rc::clone(self);
        let number = u64::try_from(number).unwrap_or_default() * self.threads + self.index;
        spawn_local(async move {
            let mut seat = Seat::new(Rc::clone(&room), number);
            let mut next = first;
            loop {
                let task = match next.take() {
                    Some(task) => task,
                    None => match room.next(&mut seat).await {
                        Some(task) => task,
                        None => break,
                    },
                };
                room.perform(&mut seat, task).await;
            }
            seat.leave().await;
            room.seats.set(room.seats.get() - 1);
            if room.seats.get() == 0 {
                room.gone.notify_one();
            }
        });
    }

    async fn perform(&self, seat: &mut Seat, task: Task) {
        let Task { number, scheduled, waited } = task;
        let started = self.now();
        self.begun.set(self.begun.get() + 1);
        self.tally.borrow_mut().start(scheduled, started, waited);
        let deed = seat.perform(number, started).await;
        let ended = self.now();
        self.done.set(self.done.get() + 1);
        {
            let mut tally = self.tally.borrow_mut();
            match deed.result {
                Ok(bytes) => {
                    tally.ok(Span { scheduled, started, ended }, deed.server, bytes);
                    self.shared.good(ended);
                    if let Some(accepted) = &self.shared.accepted {
                        accepted.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
                    }
                }
                Err(trouble) => {
                    tally.failed(ended, deed.server, trouble);
                    self.shared.first_failure.fetch_min(ended, Ordering::Relaxed);
                }
            }
        }
        let failed = deed.result.is_err();
        seat.settle(deed.result, ended).await;
        if failed && matches!(self.job.pace, Pace::Closed { .. }) {
            // A server that refuses at once would have a closed run spin.
            tokio::task::yield_now().await;
        }
    }

    /// What was due until `end` and never started.
    fn count_unsent(&self, end: Nanos) {
        let mut unsent = 0;
        while self.take_due(end).is_some() {
            unsent += 1;
        }
        let mut tally = self.tally.borrow_mut();
        tally.counts.unsent += unsent;
        tally.counts.arrivals += unsent;
    }

    /// Tells every second what was.
    async fn tick(&self, news: &Sender<News>) {
        for second in 1.. {
            let due = second * SECOND;
            sleep(Duration::from_nanos(due.saturating_sub(self.now()))).await;
            self.tell(news);
        }
    }

    fn tell(&self, news: &Sender<News>) {
        let mut tally = self.tally.borrow_mut();
        let slice = tally.cut_slice(self.open.get());
        let names = tally.servers.iter().map(|server| server.name.clone()).collect();
        // Whoever has stopped listening has seen enough.
        let _ =
            news.send(News::Second(usize::try_from(self.index).unwrap_or_default(), Box::new(slice), names));
    }
}

/// Which thread this is, and what it is given.
pub struct Thread {
    /// 0 to `of - 1`.
    pub index: usize,
    /// How many there are.
    pub of: usize,
    /// What it tells.
    pub news: Sender<News>,
    /// What it is told.
    pub order: watch::Receiver<Order>,
}

/// Does a thread's share of a run, and returns when it is over.
///
/// # Errors
/// When there is no runtime to be had.
pub fn work(job: &Arc<Job>, shared: &Arc<Shared>, thread: Thread) -> Result<(), String> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    let runtime = runtime.map_err(|error| format!("cannot start a thread's runtime: {error}"))?;
    runtime.block_on(run(job, shared, thread));
    Ok(())
}

async fn run(job: &Arc<Job>, shared: &Arc<Shared>, thread: Thread) {
    let Thread { index, of, news, mut order } = thread;
    let (number, threads) = (u64::try_from(index).unwrap_or_default(), u64::try_from(of).unwrap_or(1));
    let part = |whole: usize| (whole / of + usize::from(whole % of > index)).max(1);
    let schedule = match &job.pace {
        Pace::Closed { .. } => None,
        Pace::Open { profile, arrivals } => {
            let share = Share { index: job.share.index + job.share.of * number, of: job.share.of * threads };
            Some(Schedule::new(profile, *arrivals, job.seed, (job.stop, share)))
        }
    };
    let room = Rc::new(Room {
        job: Arc::clone(job),
        shared: Arc::clone(shared),
        tally: RefCell::default(),
        open: Cell::new(0),
        index: number,
        threads,
        schedule: RefCell::new(schedule),
        idle: RefCell::default(),
        dealer: RefCell::default(),
        seats: Cell::new(0),
        most: part(job.sessions),
        ended: Cell::new(false),
        gone: tokio::sync::Notify::new(),
        begun: Cell::new(0),
        done: Cell::new(0),
        date: RefCell::new((0, "".into())),
        order: order.clone(),
    });
    sleep(shared.begin.saturating_duration_since(Instant::now())).await;
    let cpu = clock::cpu();
    let press = async {
        tokio::select! {
            () = room.go() => {}
            _ = order.wait_for(|order| *order != Order::Run) => {}
        }
        room.ended.set(true);
        shared.ended.fetch_max(room.now(), Ordering::Relaxed);
        let stop =
            job.stop.time.map_or(Nanos::MAX, |time| Nanos::try_from(time.as_nanos()).unwrap_or(Nanos::MAX));
        room.count_unsent(room.now().min(stop));
        for bell in room.idle.borrow_mut().drain(..) {
            bell.ring(Given::End);
        }
        tokio::select! {
            () = room.empty() => {}
            () = sleep(job.drain) => {}
            _ = order.wait_for(|order| *order == Order::Leave) => {}
        }
    };
    tokio::select! {
        () = press => {}
        () = room.tick(&news) => {}
    }
    room.tell(&news);
    let mut tally = room.tally.take();
    tally.counts.cut = room.begun.get() - room.done.get();
    tally.cpu = (clock::cpu().saturating_sub(cpu), room.now());
    let _ = news.send(News::Done(index, Box::new(tally)));
}

impl Room {
    /// Until nothing more is to be started.
    async fn go(self: &Rc<Self>) {
        match self.job.pace {
            Pace::Open { .. } => self.deal().await,
            Pace::Closed { .. } => {
                for _ in 0..self.most {
                    self.seat(None);
                }
                match self.job.stop.time {
                    None => self.empty().await,
                    Some(time) => {
                        let left = time.saturating_sub(Duration::from_nanos(self.now()));
                        let _ = tokio::time::timeout(left, self.empty()).await;
                    }
                }
            }
        }
    }

    /// Until all seats are gone.
    async fn empty(&self) {
        while self.seats.get() > 0 {
            self.gone.notified().await;
        }
    }
}
