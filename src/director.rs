//! EDGE: the one loop. An event is absorbed, the table compared, the difference applied, the picture published.
//!
//! Owns the order of things and the [`State`]; nobody else changes either. Refuses to know how a dataplane or
//! a check works. A failed op is logged once, counted, and left to the next comparison while the other virtuals
//! go on; a dataplane that cannot be read leaves the table as it is and is asked again.
#![expect(clippy::disallowed_methods, reason = "EDGE: this is where decisions meet the clock")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use checks::Reason;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, error, info, warn};

use crate::config::{CheckPlan, Config, OnExit};
use crate::dataplane::Dataplane;
use crate::health;
use crate::metrics as name;
use crate::model::{Dump, Op, RealId, Table, Virtual, VirtualId};
use crate::prober::{Prober, Report};
use crate::reconcile::{diff, takes_last_weight};
use crate::snapshot::{Snapshot, picture};
use crate::state::State;

/// How soon the table is compared again while something drains or after an error.
const SOON: Duration = Duration::from_secs(1);
/// A picture younger than this is fresh enough for whoever asks.
const FRESH: Duration = Duration::from_secs(1);
/// How long sessions in this process may go on after a request to end.
const CLOSE_LIMIT: Duration = Duration::from_secs(30);

/// What can happen to a director, beside the reports of its checks.
#[derive(Debug)]
pub enum Event {
    /// A new configuration, or the report on a file that is none.
    Reload(Result<Box<Config>, String>),
    /// Somebody wants a fresh picture and is told when it is published.
    Look(oneshot::Sender<()>),
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
    pictures: watch::Sender<Arc<Snapshot>>,
    /// What the dataplane had when it was last read, with the ops that succeeded since.
    actual: Dump,
    trouble: Option<String>,
    /// Ops that failed last time, so that each is logged once.
    failing: BTreeSet<String>,
    /// When the table was last right, in seconds since 1970.
    last_sync: Option<u64>,
    last_reload_ok: bool,
    /// Who is held in each virtual, so that a change is an alarm, once.
    held: BTreeMap<VirtualId, BTreeSet<RealId>>,
    /// Whether the same changes failed twice in a row: then they are asked for at the pace of the resync.
    stubborn: bool,
    looked: Option<Instant>,
    lookers: Vec<oneshot::Sender<()>>,
    stopping: bool,
}

impl<D: Dataplane> Director<D> {
    /// A director that has not looked at anything yet; `prober` reports to the inbox given to [`Self::run`].
    pub fn new(config: Config, dataplane: D, prober: Prober, pictures: watch::Sender<Arc<Snapshot>>) -> Self {
        Self {
            state: State::new(config),
            dataplane,
            prober,
            pictures,
            actual: Dump::default(),
            trouble: None,
            failing: BTreeSet::new(),
            held: BTreeMap::new(),
            stubborn: false,
            last_sync: None,
            last_reload_ok: true,
            looked: None,
            lookers: Vec::new(),
            stopping: false,
        }
    }

    /// Directs until it is told to stop, or until nobody can tell it anything any more.
    pub async fn run(mut self, mut inbox: Inbox) {
        self.set_up();
        self.reconcile().await;
        while !self.stopping {
            let next_look = self.next_look();
            let mut due = tokio::select! {
                report = inbox.reports.recv() => report.is_some_and(|report| self.learn(report)),
                event = inbox.events.recv() => self.take(event.unwrap_or(Event::Stop)),
                () = tokio::time::sleep_until(next_look.into()) => true,
            };
            // What waits already is one comparison, not many.
            while let Ok(report) = inbox.reports.try_recv() {
                due |= self.learn(report);
            }
            while let Ok(event) = inbox.events.try_recv() {
                due |= self.take(event);
            }
            if due {
                self.reconcile().await;
            }
            if self.looked.is_some_and(|looked| looked.elapsed() < FRESH) {
                for looker in self.lookers.drain(..) {
                    let _ = looker.send(());
                }
            }
        }
        self.leave(inbox).await;
    }

    fn next_look(&self) -> Instant {
        let resync = self.state.config().resync;
        let soon = self.state.is_draining() || (self.trouble.is_some() && !self.stubborn);
        let pause = if soon { SOON.min(resync) } else { resync };
        self.looked.map_or_else(Instant::now, |looked| looked + pause)
    }

    fn set_up(&mut self) {
        let virtuals = &self.state.config().virtuals;
        self.dataplane.set_proxy_options(virtuals.iter().map(|v| (v.id, v.proxy)).collect());
        let checks: Vec<CheckPlan> = self.state.checks().cloned().collect();
        self.prober.sync(checks);
    }

    /// Takes a report in; true when the table may have to change.
    fn learn(&mut self, report: Report) -> bool {
        let Report { plan, outcome, finding, transition } = report;
        name::count_check(&plan, &outcome);
        let target = plan.spec.target;
        let Some(known) = self.state.finding(&plan) else {
            return false; // its server was removed while it was asked
        };
        match &outcome.verdict {
            Ok(()) => debug!(%target, took = ?outcome.took, "check passed"),
            Err(failure) if failure.reason == Reason::Local && known.failure.as_ref() != Some(failure) => {
                warn!("real server {target} cannot be asked, its state stays {}: {failure}", known.state);
            }
            Err(failure) => debug!(%target, took = ?outcome.took, "check failed: {failure}"),
        }
        if let Some(transition) = transition {
            let of = self.names_of(&plan);
            match (transition.to, &finding.failure) {
                (health::State::Down, Some(failure)) => {
                    warn!("real server {target} of {of} is down: {failure} ({} checks failed)", plan.fall);
                }
                (to, _) => info!("real server {target} of {of} is {to}, was {}", transition.from),
            }
        }
        let matters = transition.is_some() || finding.state == health::State::Unknown;
        self.state.absorb(&plan, finding);
        matters
    }

    fn names_of(&self, plan: &CheckPlan) -> String {
        let uses = |v: &&crate::config::VirtualConfig| v.reals.iter().any(|r| r.check.as_ref() == Some(plan));
        let names = self.state.config().virtuals.iter().filter(uses).map(|v| v.name.as_str());
        names.collect::<Vec<_>>().join(", ")
    }

    /// Takes an event in; true when the table may have to change.
    fn take(&mut self, event: Event) -> bool {
        match event {
            Event::Reload(Ok(config)) if config.dataplane != self.state.config().dataplane => {
                self.refuse(
                    "another dataplane needs a new start; what it can do decides what a file may say",
                );
                true
            }
            Event::Reload(Ok(config)) => {
                self.reconfigure(*config);
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
            Event::Stop => {
                self.stopping = true;
                false
            }
        }
    }

    fn refuse(&mut self, report: &str) {
        name::count_reload("error");
        self.last_reload_ok = false;
        error!("reload refused, the old configuration stays in force:\n{report}");
    }

    fn reconfigure(&mut self, config: Config) {
        name::count_reload("ok");
        self.last_reload_ok = true;
        let old = self.state.config();
        if config == *old {
            info!("configuration reloaded, nothing changed");
            return;
        }
        let fixed = |c: &Config| (c.http, c.log, c.log_format);
        if fixed(&config) != fixed(old) {
            warn!("http, log and log_format change only at the next start");
        }
        info!("configuration reloaded: {}", config.extent());
        self.state.reconfigure(config);
        self.set_up();
    }

    /// Dump, diff, apply, publish.
    async fn reconcile(&mut self) {
        let now = Instant::now();
        match self.dataplane.dump().await {
            Ok(dump) => self.actual = dump,
            Err(error) => {
                let text = format!("cannot read the table: {error}");
                if self.trouble.as_ref() != Some(&text) {
                    error!("{text}; it stays as it is and is read again every {} s", SOON.as_secs());
                }
                name::count_resync("error");
                self.trouble = Some(text);
                self.publish(now);
                return;
            }
        }
        self.tell_held(now);
        let desired = self.state.desired(now, &self.actual);
        let ops = diff(&self.actual.table, &desired, &self.state.owned());
        let failed = self.apply(ops, &desired).await;
        name::count_resync(if failed.is_empty() { "ok" } else { "error" });
        if failed.is_empty() {
            if self.trouble.take().is_some() {
                info!("the table is as it should be again");
            }
            let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.last_sync = Some(since_epoch.as_secs());
        } else {
            let first = failed.values().next().cloned().unwrap_or_default();
            self.trouble = Some(format!("{} of the changes failed, the first: {first}", failed.len()));
        }
        let failing = failed.into_keys().collect();
        self.stubborn = failing == self.failing;
        self.failing = failing;
        self.publish(now);
    }

    /// Says once when servers that are down are held, and when that is over.
    fn tell_held(&mut self, now: Instant) {
        for config in &self.state.config().virtuals {
            let held = self.state.held(now, config);
            if self.held.get(&config.id).is_some_and(|before| *before == held) {
                continue;
            }
            if !held.is_empty() {
                let servers = held.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                error!(
                    "{} of {} real servers of {} are down and keep their weight, or too little would be left: {servers}; \
                     look for what they share",
                    held.len(),
                    config.reals.len(),
                    config.name
                );
            } else if self.held.contains_key(&config.id) {
                info!("no real server of {} is held any more", config.name);
            }
            match held.is_empty() {
                true => self.held.remove(&config.id),
                false => self.held.insert(config.id, held),
            };
        }
    }

    /// Applies the ops. One that fails holds up no other, but what cannot be without it: the reals of a virtual
    /// that could not be added, and the last weight of one whose new weights could not. Gives what failed and why.
    async fn apply(&mut self, ops: Vec<Op>, desired: &Table) -> BTreeMap<String, String> {
        let mut failed = BTreeMap::new();
        let mut broken: BTreeSet<VirtualId> = BTreeSet::new();
        for op in ops {
            let id = op.virtual_id();
            if broken.contains(id) {
                let missing = !self.actual.table.virtuals.contains_key(id);
                let served = desired.virtuals.get(id).is_some_and(Virtual::takes_connections);
                if missing || (served && takes_last_weight(&op, &self.actual.table)) {
                    continue;
                }
            }
            let result = self.dataplane.apply(&op).await;
            name::count_op(op.kind(), result.is_ok());
            let text = op.to_string();
            match result {
                Ok(()) => {
                    info!("table: {text}");
                    // The dataplane took it, so the copy does; a difference shows at the next dump.
                    let _ = self.actual.table.apply(&op);
                }
                Err(error) => {
                    if !self.failing.contains(&text) {
                        error!("table: cannot {text}: {error}");
                    }
                    broken.insert(*id);
                    failed.insert(text.clone(), format!("cannot {text}: {error}"));
                }
            }
        }
        failed
    }

    fn publish(&mut self, now: Instant) {
        self.looked = Some(Instant::now());
        self.pictures.send_replace(Arc::new(Snapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            dataplane: self.dataplane.name().to_owned(),
            in_sync: self.trouble.is_none(),
            trouble: self.trouble.clone(),
            last_sync: self.last_sync,
            last_reload_ok: self.last_reload_ok,
            all_known: self.state.knows_all(),
            virtuals: picture(now, &self.state, &self.actual),
        }));
    }

    /// The end: the table stays, or our part of it is removed, as configured.
    async fn leave(mut self, mut inbox: Inbox) {
        self.prober.sync(Vec::new());
        match self.state.config().on_exit {
            OnExit::Keep => {
                info!("ending; the table stays as it is");
                for id in self.state.retired() {
                    warn!("{id} is no longer in the configuration and still drains; nobody will delete it");
                }
            }
            OnExit::Remove => {
                info!("ending; removing our virtuals");
                if let Ok(dump) = self.dataplane.dump().await {
                    self.actual = dump;
                }
                let nothing = Table::default();
                let gone = diff(&self.actual.table, &nothing, &self.state.owned());
                self.apply(gone, &nothing).await;
            }
        }
        // Asked a second time, it ends at once.
        let again = async {
            loop {
                match inbox.events.recv().await {
                    Some(Event::Stop) => return,
                    Some(Event::Look(looker)) => drop(looker.send(())),
                    Some(Event::Reload(_)) => {}
                    None => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            () = self.dataplane.close(CLOSE_LIMIT) => {}
            () = again => warn!("ending at once"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::config::{DataplaneChoice, LogFormat, LogLevel, ProxyOptions, RealConfig, VirtualConfig};
    use crate::dataplane::Error;
    use crate::dataplane::memory::Memory;
    use crate::model::{Forward, Protocol, RealSettings, Scheduler, SchedulerFlags, VirtualSettings, Weight};

    /// A kernel of which a test can break a part.
    #[derive(Debug, Default)]
    struct Kernel {
        memory: Memory,
        blind: bool,
        /// Refuses the ops whose text contains this.
        refuses: Option<String>,
    }

    #[derive(Debug, Clone, Default)]
    struct Shared(Arc<Mutex<Kernel>>);

    impl Shared {
        fn with<T>(&self, look: impl FnOnce(&mut Kernel) -> T) -> T {
            look(&mut self.0.lock().unwrap())
        }

        fn weights(&self, id: &VirtualId) -> Option<Vec<u32>> {
            self.with(|kernel| {
                let have = kernel.memory.table.virtuals.get(id)?;
                Some(have.reals.values().map(|settings| settings.weight.0).collect())
            })
        }
    }

    impl Dataplane for Shared {
        fn name(&self) -> &'static str {
            "memory"
        }

        async fn dump(&mut self) -> Result<Dump, Error> {
            self.with(|kernel| match kernel.blind {
                true => Err(Error::Timeout(SOON)),
                false => Ok(Dump { table: kernel.memory.table.clone(), ..Dump::default() }),
            })
        }

        async fn apply(&mut self, op: &Op) -> Result<(), Error> {
            self.with(|kernel| match &kernel.refuses {
                Some(text) if op.to_string().contains(text) => Err(Error::Permission),
                _ => Ok(kernel.memory.table.apply(op)?),
            })
        }
    }

    fn id(n: u8) -> VirtualId {
        VirtualId::Address { protocol: Protocol::Tcp, address: ([10, 0, 0, n], 25).into() }
    }

    fn a_virtual(n: u8) -> VirtualConfig {
        let settings = RealSettings {
            forward: Forward::Gate,
            weight: Weight(u32::from(n)),
            upper_threshold: 0,
            lower_threshold: 0,
        };
        VirtualConfig {
            name: format!("v{n}"),
            id: id(n),
            settings: VirtualSettings {
                scheduler: Scheduler::Wlc,
                flags: SchedulerFlags::NONE,
                one_packet: false,
                persistence: None,
            },
            quiescent: true,
            drain: SOON,
            fallback: None,
            proxy: ProxyOptions { protocol: None, idle: SOON },
            reals: vec![RealConfig { id: RealId(([10, 0, 1, n], 25).into()), settings, check: None }],
        }
    }

    fn farm(virtuals: &[u8]) -> Config {
        Config {
            dataplane: DataplaneChoice::Auto,
            http: None,
            log: LogLevel::Info,
            log_format: LogFormat::Text,
            autoreload: false,
            on_exit: OnExit::Keep,
            resync: Duration::from_millis(20),
            virtuals: virtuals.iter().map(|n| a_virtual(*n)).collect(),
        }
    }

    /// A running director, and all its strings.
    struct Stage {
        kernel: Shared,
        events: mpsc::Sender<Event>,
        pictures: watch::Receiver<Arc<Snapshot>>,
        director: tokio::task::JoinHandle<()>,
    }

    fn start(config: Config, kernel: Shared) -> Stage {
        let (report, reports) = mpsc::channel(8);
        let (event, events) = mpsc::channel(8);
        let (publish, pictures) = watch::channel(Arc::default());
        let director = Director::new(config, kernel.clone(), Prober::new(report), publish);
        let director = tokio::spawn(director.run(Inbox { reports, events }));
        Stage { kernel, events: event, pictures, director }
    }

    impl Stage {
        async fn until(&mut self, what: impl Fn(&Snapshot, &Shared) -> bool) {
            let kernel = self.kernel.clone();
            let wait = self.pictures.wait_for(|picture| what(picture, &kernel));
            tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it never came").unwrap();
        }

        async fn stop(self) -> Shared {
            self.events.send(Event::Stop).await.unwrap();
            self.director.await.unwrap();
            self.kernel
        }
    }

    #[tokio::test]
    async fn a_virtual_that_the_kernel_refuses_does_not_hold_up_the_others() {
        let kernel = Shared::default();
        kernel.with(|kernel| kernel.refuses = Some("TCP 10.0.0.1:25".to_owned()));
        let mut stage = start(farm(&[1, 2]), kernel);
        stage.until(|picture, kernel| kernel.weights(&id(2)) == Some(vec![2]) && !picture.in_sync).await;
        let trouble = stage.pictures.borrow().trouble.clone().unwrap();
        assert!(
            trouble.contains("add virtual TCP 10.0.0.1:25") && trouble.contains("CAP_NET_ADMIN"),
            "{trouble}"
        );
        assert_eq!(stage.kernel.weights(&id(1)), None);
        stage.kernel.with(|kernel| kernel.refuses = None);
        stage.until(|picture, kernel| picture.in_sync && kernel.weights(&id(1)) == Some(vec![1])).await;
    }

    #[tokio::test]
    async fn a_refused_change_holds_up_no_other_of_its_virtual() {
        let mut stage = start(farm(&[1]), Shared::default());
        stage.until(|picture, kernel| picture.in_sync && kernel.weights(&id(1)) == Some(vec![1])).await;
        // The scheduler and a new server are refused; the weight of the server that is there changes all the same.
        let mut config = farm(&[1]);
        config.virtuals[0].settings.scheduler = Scheduler::Twos;
        config.virtuals[0].reals[0].settings.weight = Weight(0);
        let mut new = config.virtuals[0].reals[0].clone();
        new.id = RealId(([10, 0, 1, 77], 25).into());
        config.virtuals[0].reals.push(new);
        stage.kernel.with(|kernel| kernel.refuses = Some("twos".to_owned()));
        stage.events.send(Event::Reload(Ok(Box::new(config)))).await.unwrap();
        stage.until(|picture, kernel| !picture.in_sync && kernel.weights(&id(1)) == Some(vec![0, 0])).await;
    }

    #[tokio::test]
    async fn the_last_weight_stays_while_its_successor_is_refused() {
        let mut stage = start(farm(&[1]), Shared::default());
        stage.until(|picture, kernel| picture.in_sync && kernel.weights(&id(1)) == Some(vec![1])).await;
        let mut config = farm(&[1]);
        config.virtuals[0].reals[0].id = RealId(([10, 0, 1, 77], 25).into());
        stage.kernel.with(|kernel| kernel.refuses = Some("add 10.0.1.77:25".to_owned()));
        stage.events.send(Event::Reload(Ok(Box::new(config)))).await.unwrap();
        stage.until(|picture, kernel| !picture.in_sync && kernel.weights(&id(1)) == Some(vec![1])).await;
        stage.kernel.with(|kernel| kernel.refuses = None);
        stage.until(|picture, kernel| picture.in_sync && kernel.weights(&id(1)) == Some(vec![0, 1])).await;
    }

    #[tokio::test]
    async fn a_reload_cannot_change_the_dataplane() {
        let mut stage = start(farm(&[1]), Shared::default());
        stage.until(|picture, _| picture.in_sync).await;
        let mut config = farm(&[2]);
        config.dataplane = DataplaneChoice::Ipvs;
        stage.events.send(Event::Reload(Ok(Box::new(config)))).await.unwrap();
        stage.until(|picture, kernel| !picture.last_reload_ok && kernel.weights(&id(2)).is_none()).await;
    }

    #[tokio::test]
    async fn a_kernel_that_cannot_be_read_is_left_alone_and_asked_again() {
        let mut stage = start(farm(&[1]), Shared::default());
        stage.until(|picture, kernel| picture.in_sync && kernel.weights(&id(1)) == Some(vec![1])).await;
        stage.kernel.with(|kernel| kernel.blind = true);
        stage.until(|picture, _| !picture.in_sync).await;
        assert_eq!(stage.kernel.weights(&id(1)), Some(vec![1]));
        stage.kernel.with(|kernel| {
            kernel.memory.table = Table::default();
            kernel.blind = false;
        });
        stage.until(|picture, kernel| picture.in_sync && kernel.weights(&id(1)) == Some(vec![1])).await;
    }

    #[tokio::test]
    async fn a_refused_reload_changes_nothing_and_a_good_one_changes_what_it_says() {
        let mut stage = start(farm(&[1]), Shared::default());
        stage.until(|picture, _| picture.in_sync && picture.last_reload_ok).await;
        stage.events.send(Event::Reload(Err("line 7: no".to_owned()))).await.unwrap();
        stage
            .until(|picture, kernel| !picture.last_reload_ok && kernel.weights(&id(1)) == Some(vec![1]))
            .await;
        stage.events.send(Event::Reload(Ok(Box::new(farm(&[2]))))).await.unwrap();
        stage
            .until(|picture, kernel| {
                picture.last_reload_ok
                    && kernel.weights(&id(1)).is_none()
                    && kernel.weights(&id(2)) == Some(vec![2])
            })
            .await;
    }

    #[tokio::test]
    async fn at_the_end_the_table_stays_or_loses_only_what_is_ours() {
        for (on_exit, ours) in [(OnExit::Keep, Some(vec![1])), (OnExit::Remove, None)] {
            let kernel = Shared::default();
            let foreign = Op::AddVirtual(id(9), a_virtual(9).settings);
            kernel.with(|kernel| kernel.memory.table.apply(&foreign)).unwrap();
            let mut config = farm(&[1]);
            config.on_exit = on_exit;
            let mut stage = start(config, kernel);
            stage.until(|picture, kernel| picture.in_sync && kernel.weights(&id(1)) == Some(vec![1])).await;
            let kernel = stage.stop().await;
            assert_eq!(kernel.weights(&id(1)), ours, "{on_exit:?}");
            assert_eq!(kernel.weights(&id(9)), Some(vec![]), "{on_exit:?}");
        }
    }
}
