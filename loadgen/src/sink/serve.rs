//! EDGE: a sink of many threads, and the place where traced messages arrive.
//!
//! Owns the threads, each with its own listener on the same port (`SO_REUSEPORT`) and its own runtime, and what is known of
//! the messages of load runs. Refuses to know sessions. Fails to start as `bind` does.
#![expect(clippy::disallowed_methods, reason = "EDGE: a delay is measured, and waits end")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use ahash::AHashMap;
use serde::Serialize;
use socket2::{Domain, Socket, Type};
use tokio::sync::watch;

use super::{Arrival, BACKLOG, Fault, Remember, Shared, SinkConfig, accept};
use crate::mail::read_id;
use crate::report::{LatencyRow, TraceRow};
use crate::run::Arrived;
use crate::tally::Latency;
use crate::trace::Numbers;

/// Most runs that are told apart.
const MAX_RUNS: usize = 64;

/// What is known of the messages of load runs.
#[derive(Default)]
pub(super) struct Runs {
    runs: AHashMap<String, (Numbers, Latency)>,
}

impl Runs {
    /// A message with this id arrived.
    pub(super) fn take(&mut self, id: &str) {
        let Some((run, number, sent)) = read_id(id) else { return };
        if !self.runs.contains_key(run) {
            if self.runs.len() >= MAX_RUNS {
                return;
            }
            self.runs.insert(run.to_owned(), Default::default());
        }
        if let Some((numbers, delay)) = self.runs.get_mut(run) {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let now = u64::try_from(now.as_micros()).unwrap_or_default();
            numbers.insert(number);
            delay.record(now.saturating_sub(sent).saturating_mul(1000));
        }
    }
}

/// What a sink counted.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SinkReport {
    /// `smtp-loadgen-sink/1`.
    pub schema: &'static str,
    /// Connections that were accepted.
    pub sessions: u64,
    /// Those with TLS.
    pub secured: u64,
    /// Messages that were accepted.
    pub messages: u64,
    /// And their recipients.
    pub recipients: u64,
    /// And their bytes.
    pub bytes: u64,
    /// Answers that were made ill.
    pub faults: u64,
    /// Sessions with a PROXY header, those ended because they had none, and how many clients the headers named.
    pub proxied: u64,
    /// As above.
    pub unproxied: u64,
    /// As above; at most 65536 are told apart.
    pub clients: usize,
    /// By load run.
    pub runs: Vec<RunRow>,
}

/// The messages of a load run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RunRow {
    /// Which.
    pub run: String,
    /// Different ones that arrived.
    pub arrived: u64,
    /// Times that one arrived again.
    pub doubled: u64,
    /// From when it was made to here; good as far as the clocks agree.
    pub delay: Option<LatencyRow>,
}

/// A running sink of many threads. It ends when it is dropped.
pub struct Served {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<watch::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Served {
    /// Listens on `listen` (port 0: any) with so many threads, at least one.
    ///
    /// # Errors
    /// Those of `bind` and `listen`, and of threads.
    pub fn start(listen: SocketAddr, config: SinkConfig, threads: usize) -> io::Result<Self> {
        let threads = threads.max(1);
        let config = SinkConfig { max_sessions: config.max_sessions.div_ceil(threads), ..config };
        let shared = Arc::new(Shared::new(config));
        let (stop, stopped) = watch::channel(());
        let mut address = listen;
        if threads > 1 {
            // Our listeners share their port, but not with somebody else's: this one asks whether it is free.
            let probe = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            probe.set_reuse_address(true)?;
            probe.bind(&address.into())?;
        }
        let mut listeners = Vec::new();
        for _ in 0..threads {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(threads > 1)?;
            socket.bind(&address.into())?;
            socket.listen(i32::try_from(BACKLOG).unwrap_or(128))?;
            let listener = std::net::TcpListener::from(socket);
            address = listener.local_addr()?;
            listeners.push(listener);
        }
        let mut served = Self { address, shared, stop: Some(stop), threads: Vec::new() };
        for (number, listener) in listeners.into_iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (shared, stopped) = (Arc::clone(&served.shared), stopped.clone());
            let serve = move || {
                runtime.block_on(async move {
                    if let Ok(listener) = tokio::net::TcpListener::from_std(listener) {
                        accept(listener, shared, stopped).await;
                    }
                });
            };
            served.threads.push(std::thread::Builder::new().name(format!("sink-{number}")).spawn(serve)?);
        }
        Ok(served)
    }

    /// What was counted so far.
    #[must_use]
    pub fn report(&self) -> SinkReport {
        let counts = &self.shared.counts;
        let taken = self.shared.taken();
        let mut runs: Vec<RunRow> = taken
            .runs
            .runs
            .iter()
            .map(|(run, (numbers, delay))| RunRow {
                run: run.clone(),
                arrived: numbers.different,
                doubled: numbers.again,
                delay: LatencyRow::of(delay),
            })
            .collect();
        runs.sort_by(|a, b| a.run.cmp(&b.run));
        SinkReport {
            schema: "smtp-loadgen-sink/1",
            sessions: counts.sessions.load(Ordering::Relaxed),
            secured: counts.secured.load(Ordering::Relaxed),
            messages: counts.messages.load(Ordering::Relaxed),
            recipients: counts.recipients.load(Ordering::Relaxed),
            bytes: counts.bytes.load(Ordering::Relaxed),
            faults: counts.ill.load(Ordering::Relaxed),
            proxied: counts.proxied.load(Ordering::Relaxed),
            unproxied: counts.unproxied.load(Ordering::Relaxed),
            clients: taken.clients.len(),
            runs,
        }
    }

    /// Makes it ill, or well again.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.shared.fault.send_replace(fault);
    }

    /// What has arrived so far, of a sink that remembers [`Remember::Arrivals`].
    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.shared.taken().arrivals.clone()
    }

    /// How many messages were accepted.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.shared.counts.messages.load(Ordering::Relaxed)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Where traced messages arrive.
pub struct Receiver {
    sink: Served,
    wait: Duration,
}

impl Receiver {
    /// Listens; in the end messages are waited for so long.
    ///
    /// # Errors
    /// In words.
    pub fn start(listen: SocketAddr, wait: Duration) -> Result<Self, String> {
        let mut config = SinkConfig::new("smtp-loadgen.invalid");
        config.remember = Remember::Runs;
        config.abilities.keep = 16 * 1024;
        let sink =
            Served::start(listen, config, 1).map_err(|error| format!("--trace-listen {listen}: {error}"))?;
        Ok(Self { sink, wait })
    }
}

impl Arrived for Receiver {
    fn settle(&mut self, run: &str, accepted: &Numbers) -> TraceRow {
        let end = Instant::now() + self.wait;
        loop {
            {
                let taken = self.sink.shared.taken();
                let none = (Numbers::default(), Latency::new());
                let (numbers, delay) = taken.runs.runs.get(run).unwrap_or(&none);
                let lost = accepted.missing_in(numbers);
                if lost == 0 || Instant::now() >= end {
                    return TraceRow {
                        accepted: accepted.different,
                        arrived: numbers.different,
                        lost,
                        doubled: numbers.again,
                        delay: LatencyRow::of(delay),
                    };
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
