//! EDGE: a run from its first thread to its report.
//!
//! Owns the threads, the signals, and what is told while it runs. Refuses to know what the work is. Fails with
//! [`RunError`]; a watcher that cannot write is given up, and said so once.
#![expect(clippy::disallowed_methods, reason = "EDGE: a run begins at some time")]

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::job::{Job, Pace};
use crate::plan::Nanos;
use crate::report::build::Frame;
use crate::report::{PlanRow, Point, Report, Series, TraceRow};
use crate::tally::{Slice, Tally};
use crate::trace::Numbers;
use crate::worker::{News, Order, Shared, Thread, work};

/// What is to be known of a run beside the job.
pub struct Setting {
    /// As it was given, for the report.
    pub arguments: Vec<String>,
    /// Expected weights by server.
    pub expected: Vec<(String, f64)>,
    /// When it begins; `None`: now.
    pub start_at: Option<SystemTime>,
    /// Who watches.
    pub watchers: Vec<Box<dyn Watch>>,
    /// Where traced messages arrive.
    pub arrivals: Option<Box<dyn Arrived>>,
}

/// Where traced messages arrive.
pub trait Arrived {
    /// Waits until all of `accepted` have arrived, with a limit, and says what came of them.
    fn settle(&mut self, run: &str, accepted: &Numbers) -> TraceRow;
}

/// A second of the whole run.
pub struct Second {
    /// In figures.
    pub point: Point,
    /// All that was measured in it.
    pub slice: Slice,
    /// Servers, in the order of the point's.
    pub names: Vec<String>,
    /// Since the begin.
    pub total: Point,
}

/// Somebody who is told each second.
pub trait Watch {
    /// One is over.
    ///
    /// # Errors
    /// In words; it is not told again.
    fn second(&mut self, second: &Second) -> Result<(), String>;
    /// The run is over.
    ///
    /// # Errors
    /// In words.
    fn done(&mut self, _: &Report) -> Result<(), String> {
        Ok(())
    }
}

/// Why there was no run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The system did not let us.
    #[error("{0}")]
    System(String),
}

/// What came of a run.
pub struct Ran {
    /// All figures.
    pub report: Report,
    /// What watchers could not do.
    pub complaints: Vec<String>,
}

/// Does a run.
///
/// # Errors
/// [`RunError`] when it cannot begin.
pub fn run(job: Job, mut setting: Setting) -> Result<Ran, RunError> {
    let system = |error: std::io::Error| RunError::System(format!("cannot start: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system)?;
    let job = Arc::new(job);
    let wait = setting.start_at.and_then(|at| at.duration_since(SystemTime::now()).ok()).unwrap_or_default();
    // Threads need some time to come up; all begin together.
    let wait = wait.max(Duration::from_millis(10));
    let (begin, wall) = (Instant::now() + wait, SystemTime::now() + wait);
    let traced = setting.arrivals.as_ref().map(|_| Numbers::default());
    let shared = Arc::new(Shared::new(&job, begin, traced));
    let (news, mut inbox) = mpsc::unbounded_channel();
    let (order, orders) = watch::channel(Order::Run);
    let mut threads = Vec::new();
    for index in 0..job.threads {
        let thread = Thread { index, of: job.threads, news: news.clone(), order: orders.clone() };
        let (job, shared) = (Arc::clone(&job), Arc::clone(&shared));
        let builder = std::thread::Builder::new().name(format!("press-{index}"));
        threads.push(builder.spawn(move || work(&job, &shared, thread)).map_err(system)?);
    }
    drop((news, orders));
    let mut gather = Gather::new(job.threads);
    let watchers = std::mem::take(&mut setting.watchers);
    let mut audience = Audience { watchers, complaints: Vec::new() };
    let interrupted = runtime.block_on(follow(&mut inbox, &order, &mut gather, &mut audience));
    let elapsed = Nanos::try_from(begin.elapsed().as_nanos()).unwrap_or(Nanos::MAX);
    for thread in threads {
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(text)) => return Err(RunError::System(text)),
            Err(_) => return Err(RunError::System("a thread died".to_owned())),
        }
    }
    let seconds = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let gap = shared.longest_gap(elapsed);
    let trace = match (&mut setting.arrivals, &shared.accepted) {
        (Some(arrivals), Some(accepted)) => {
            Some(arrivals.settle(&job.mail.run, &accepted.lock().unwrap_or_else(PoisonError::into_inner)))
        }
        _ => None,
    };
    let tally = gather.tally;
    let plan = plan_row(&job, setting.arguments, tally.counts.arrivals, shared.started_for());
    let frame = Frame {
        run: job.mail.run.clone(),
        started: checks::calendar::rfc3339(i64::try_from(seconds).unwrap_or_default()),
        plan,
        elapsed,
        gap: (gap.from, gap.to),
        first_failure: shared.first_failure(),
        first_good: shared.first_good(),
        series: gather.series.into_points(),
        expected: setting.expected,
        trace,
        interrupted,
    };
    Ok(Ran { report: Report::new(&tally, frame), complaints: Vec::new() }.told(audience))
}

impl Ran {
    fn told(mut self, mut audience: Audience) -> Self {
        for watcher in &mut audience.watchers {
            if let Err(text) = watcher.done(&self.report) {
                audience.complaints.push(text);
            }
        }
        self.complaints = audience.complaints;
        self
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts and nanoseconds of a run")]
fn plan_row(job: &Job, arguments: Vec<String>, arrivals: u64, started: Nanos) -> PlanRow {
    let open = matches!(job.pace, Pace::Open { .. });
    let mut targets: Vec<String> = job.targets.iter().map(|target| target.label.clone()).collect();
    targets.truncate(20);
    let lasted = started as f64 / 1e9;
    PlanRow {
        model: if open { "open" } else { "closed" }.to_owned(),
        targets,
        rate: None,
        sessions: job.sessions,
        threads: job.threads,
        arguments,
        // So many distances lie between them.
        asked: (open && lasted > 0.0).then(|| (arrivals.max(2) - 1) as f64 / lasted),
        worker: format!("{}/{}", job.share.index + 1, job.share.of),
    }
}

struct Audience {
    watchers: Vec<Box<dyn Watch>>,
    complaints: Vec<String>,
}

impl Audience {
    fn tell(&mut self, second: &Second) {
        let complaints = &mut self.complaints;
        self.watchers.retain_mut(|watcher| match watcher.second(second) {
            Ok(()) => true,
            Err(text) => {
                complaints.push(text);
                false
            }
        });
    }
}

/// Listens to the threads and to the terminal until all threads are done. Says whether it was interrupted.
async fn follow(
    inbox: &mut mpsc::UnboundedReceiver<News>,
    order: &watch::Sender<Order>,
    gather: &mut Gather,
    audience: &mut Audience,
) -> bool {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let mut interrupted = false;
    loop {
        let asked = async {
            match (&mut interrupt, &mut terminate) {
                (Ok(interrupt), Ok(terminate)) => {
                    tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
                }
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = asked => {
                // The first one finishes what is under way, the second does not.
                order.send_modify(|order| *order = if interrupted { Order::Leave } else { Order::Finish });
                interrupted = true;
            }
            news = inbox.recv() => match news {
                None => return interrupted,
                Some(News::Second(thread, slice, names)) => {
                    gather.add(thread, &slice, &names);
                    gather.complete().iter().for_each(|second| audience.tell(second));
                }
                Some(News::Done(thread, tally)) => {
                    gather.done(thread, &tally);
                    gather.complete().iter().for_each(|second| audience.tell(second));
                }
            },
        }
    }
}

/// Puts the seconds of the threads together.
struct Gather {
    /// What is not complete, by second.
    waiting: BTreeMap<u64, (usize, Slice)>,
    /// The last second that each thread told, and whether it is done.
    threads: Vec<(u64, bool)>,
    names: Vec<String>,
    series: Series,
    total: Point,
    tally: Tally,
}

impl Gather {
    fn new(threads: usize) -> Self {
        Self {
            waiting: BTreeMap::new(),
            threads: vec![(0, false); threads],
            names: Vec::new(),
            series: Series::default(),
            total: Point::default(),
            tally: Tally::default(),
        }
    }

    fn add(&mut self, thread: usize, slice: &Slice, names: &[String]) {
        let number = slice.second;
        if let Some((last, _)) = self.threads.get_mut(thread) {
            *last = number;
        }
        let servers: Vec<usize> = names
            .iter()
            .map(|name| {
                self.names.iter().position(|known| known == name).unwrap_or_else(|| {
                    self.names.push(name.clone());
                    self.names.len() - 1
                })
            })
            .collect();
        let (count, sum) =
            self.waiting.entry(number).or_insert_with(|| (0, Slice { second: number, ..Slice::default() }));
        *count += 1;
        sum.counts = sum.counts.plus(slice.counts);
        sum.latency.absorb(&slice.latency);
        sum.open += slice.open;
        for (mine, theirs) in sum.errors.iter_mut().flatten().zip(slice.errors.iter().flatten()) {
            *mine += theirs;
        }
        for (&place, &(ok, failed)) in servers.iter().zip(&slice.servers) {
            if sum.servers.len() <= place {
                sum.servers.resize(place + 1, (0, 0));
            }
            if let Some(mine) = sum.servers.get_mut(place) {
                *mine = (mine.0 + ok, mine.1 + failed);
            }
        }
    }

    /// The seconds that all threads which lived to see them have told.
    fn complete(&mut self) -> Vec<Second> {
        let mut complete = Vec::new();
        while let Some((&number, (count, _))) = self.waiting.first_key_value() {
            let lived = self.threads.iter().filter(|(last, done)| !done || *last >= number).count();
            if *count < lived {
                break;
            }
            if let Some((_, (_, slice))) = self.waiting.pop_first() {
                complete.push(self.close(slice));
            }
        }
        complete
    }

    #[expect(clippy::cast_precision_loss, reason = "an hour in microseconds is far below 2^52")]
    fn close(&mut self, slice: Slice) -> Second {
        let at = |quantile| slice.latency.0.value_at_quantile(quantile) as f64 / 1000.0;
        let point = Point {
            second: slice.second,
            seconds: 1,
            arrivals: slice.counts.arrivals,
            ok: slice.counts.ok,
            failed: slice.counts.failed,
            open: slice.open,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: slice.latency.0.max() as f64 / 1000.0,
            servers: slice.servers.clone(),
        };
        self.series.push(point.clone());
        self.total.second = point.second;
        self.total.arrivals += point.arrivals;
        self.total.ok += point.ok;
        self.total.failed += point.failed;
        self.total.open = point.open;
        Second { point, slice, names: self.names.clone(), total: self.total.clone() }
    }

    fn done(&mut self, thread: usize, tally: &Tally) {
        self.tally.absorb(tally);
        if let Some((_, done)) = self.threads.get_mut(thread) {
            *done = true;
        }
    }
}
