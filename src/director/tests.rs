//! The director on a table in memory of which a test can break a part.

use std::sync::Mutex;

use super::*;
use crate::config::{
    Alert, DataplaneChoice, LogFormat, LogLevel, LogTarget, OnExit, ProxyOptions, RealConfig, VirtualConfig,
};
use crate::dataplane::Error;
use crate::dataplane::memory::Memory;
use crate::model::{
    Forward, Op, Protocol, RealId, RealSettings, Scheduler, VirtualId, VirtualSettings, Weight,
};

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
    let settings = RealSettings::new(Forward::Gate, Weight(u32::from(n)));
    VirtualConfig {
        name: format!("v{n}"),
        id: id(n),
        settings: VirtualSettings::new(Scheduler::Wlc),
        quiescent: true,
        drain: SOON,
        floor: Some(50),
        law: None,
        on_exit: OnExit::Keep,
        fallback: None,
        fallback_command: None,
        monitor_file: None,
        alert: Alert::default(),
        proxy: ProxyOptions { protocol: None, idle: SOON },
        reals: vec![RealConfig {
            id: RealId(([10, 0, 1, n], 25).into()),
            settings,
            checks: vec![],
            agent: None,
            off: false,
        }],
    }
}

fn farm(virtuals: &[u8]) -> Config {
    Config {
        dataplane: DataplaneChoice::Auto,
        http: None,
        log: LogLevel::Info,
        log_format: LogFormat::Text,
        autoreload: false,
        log_to: LogTarget::Stderr,
        supervised: false,
        callback: None,
        execute: vec![],
        maintenance_dir: None,
        readd_quiescent: true,
        on_exit: OnExit::Keep,
        vip: crate::vip::Vip::default(),
        arp_watch: None,
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
    stage.until(|picture, kernel| !picture.last_reload_ok && kernel.weights(&id(1)) == Some(vec![1])).await;
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
        config.virtuals.iter_mut().for_each(|one| one.on_exit = on_exit);
        let mut stage = start(config, kernel);
        stage.until(|picture, kernel| picture.in_sync && kernel.weights(&id(1)) == Some(vec![1])).await;
        let kernel = stage.stop().await;
        assert_eq!(kernel.weights(&id(1)), ours, "{on_exit:?}");
        assert_eq!(kernel.weights(&id(9)), Some(vec![]), "{on_exit:?}");
    }
}
