//! The director by a file of ldirectord, on a table that remembers all that was ever done to it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use loadgen::sink::{Fault, Sink};
use smtp_director::config::load::load;
use smtp_director::dataplane::memory::Memory;
use smtp_director::dataplane::{Dataplane, Error};
use smtp_director::director::{Director, Event, Inbox};
use smtp_director::model::{Dump, Op, RealId, Table, VirtualId};
use smtp_director::prober::Prober;
use smtp_director::snapshot::Snapshot;
use tokio::sync::{mpsc, watch};

use super::servers::{Counts, hung, well};
use super::{LIMIT, Place};

/// A table in memory, and all that was done to it.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<(Memory, Vec<Op>)>>);

impl Recorder {
    fn table(&self) -> Table {
        self.0.lock().unwrap().0.table.clone()
    }

    fn ops(&self) -> Vec<Op> {
        self.0.lock().unwrap().1.clone()
    }

    /// Every weight that a server ever had.
    fn weights(&self, server: SocketAddr) -> Vec<u32> {
        let of = |op: &Op| match op {
            Op::AddReal(_, RealId(real), settings) | Op::SetReal(_, RealId(real), settings)
                if *real == server =>
            {
                Some(settings.weight.0)
            }
            _ => None,
        };
        self.ops().iter().filter_map(of).collect()
    }
}

impl Dataplane for Recorder {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn dump(&mut self) -> Result<Dump, Error> {
        Ok(Dump { table: self.table(), ..Dump::default() })
    }

    async fn apply(&mut self, op: &Op) -> Result<(), Error> {
        let mut both = self.0.lock().unwrap();
        both.0.table.apply(op)?;
        both.1.push(op.clone());
        Ok(())
    }
}

/// A director that runs by the file of a place.
struct Stage {
    events: mpsc::Sender<Event>,
    pictures: watch::Receiver<Arc<Snapshot>>,
    director: tokio::task::JoinHandle<()>,
}

impl Stage {
    fn start(place: &Place, table: &Recorder) -> Self {
        let variables = [("SMTP_DIRECTOR__RESYNC".into(), "1s".into())];
        let config = load(&place.path("mail.cf"), variables).unwrap();
        let (report, reports) = mpsc::channel(8);
        let (events, inbox) = mpsc::channel(8);
        let (publish, pictures) = watch::channel(Arc::default());
        let director = Director::new(config, table.clone(), Prober::new(report), publish);
        let director = tokio::spawn(director.run(Inbox { reports, events: inbox }));
        Self { events, pictures, director }
    }

    async fn reload(&self, place: &Place) {
        let config = load(&place.path("mail.cf"), []).unwrap();
        self.events.send(Event::Reload(Ok(Box::new(config)))).await.unwrap();
    }

    async fn until(&mut self, what: impl Fn(&Snapshot) -> bool) {
        let wait = self.pictures.wait_for(|picture| what(picture));
        tokio::time::timeout(LIMIT, wait).await.expect("it never came").unwrap();
    }

    /// Waits until the table has been looked at once more.
    async fn look(&mut self) {
        self.pictures.mark_unchanged();
        tokio::time::timeout(LIMIT, self.pictures.changed()).await.expect("it never came").unwrap();
    }

    async fn stop(self) {
        self.events.send(Event::Stop).await.unwrap();
        self.director.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_server_never_has_a_weight_whatever_is_configured() {
    for (quiescent, readd, clean) in
        [("yes", "no", "no"), ("yes", "yes", "yes"), ("no", "no", "no"), ("no", "yes", "yes")]
    {
        let (sink, sick, counts) = (well(), well(), Arc::new(Counts::default()));
        sick.set_fault(Some(Fault::RejectBanner421));
        let dead = [sick.address(), hung(&counts), "127.0.0.1:1".parse().unwrap()];
        let place = Place::new(&format!("ld-weights-{quiescent}-{readd}"));
        let file = |weight: u32| {
            let mut text = format!(
                "quiescent={quiescent}\nreaddquiescent={readd}\ncleanstop={clean}\nnegotiatetimeout=1\ncheckinterval=1\n\
                 virtual=192.0.2.1:25\n    service=smtp\n"
            );
            for server in dead.iter().chain([&sink.address()]) {
                text.push_str(&format!("    real={server} masq {weight}\n"));
            }
            place.write_cf(&text);
        };
        let table = Recorder::default();
        for (start, weight) in [(1, 7), (2, 9)] {
            file(weight);
            let mut stage = Stage::start(&place, &table);
            stage.until(|picture| picture.all_known && picture.in_sync).await;
            stage.reload(&place).await;
            file(weight + 1);
            stage.reload(&place).await;
            let has = |picture: &Snapshot| {
                picture.virtuals[0].reals.iter().any(|real| real.weight == Some(weight + 1))
            };
            stage.until(|picture| has(picture) && picture.all_known && picture.in_sync).await;
            stage.stop().await;
            assert_eq!(table.table().virtuals.is_empty(), clean == "yes", "start {start}");
        }
        for server in dead {
            assert!(table.weights(server).iter().all(|weight| *weight == 0), "{server}: {:?}", table.ops());
        }
        assert!(table.weights(sink.address()).contains(&10));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fallback_for_all_is_one_for_firewall_marks_too() {
    for (fallback, port) in [("127.0.0.9:8025", 8025), ("127.0.0.9", 0)] {
        let place = Place::new(&format!("ld-mark-{port}"));
        place.write_cf(&format!(
            "fallback={fallback}\ncheckinterval=1\nvirtual=7\n    real=127.0.0.1:1 gate\n    checktype=connect\n"
        ));
        let table = Recorder::default();
        let mut stage = Stage::start(&place, &table);
        let seen = table.clone();
        let is_in = move || seen.ops().iter().any(|op| matches!(op, Op::AddReal(..)));
        stage.until(|picture| picture.all_known && picture.in_sync && is_in()).await;
        stage.stop().await;
        let ops = table.ops();
        let added = ops.iter().find_map(|op| match op {
            Op::AddReal(VirtualId::Fwmark { mark: 7, .. }, RealId(real), _) => Some(*real),
            _ => None,
        });
        assert_eq!(added, Some(SocketAddr::new([127, 0, 0, 9].into(), port)), "{ops:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_server_that_was_deleted_by_hand_comes_back_with_weight_0_or_not_at_all() {
    for (readd, back) in [("yes", true), ("no", false)] {
        let (mut dead, well_one) = (well(), well());
        dead.stop().await;
        let place = Place::new(&format!("ld-readd-{readd}"));
        let server = |sink: &Sink| format!("    real={} masq 7\n", sink.address());
        place.write_cf(&format!(
            "quiescent=yes\nreaddquiescent={readd}\ncheckinterval=1\nvirtual=192.0.2.1:25\n    service=smtp\n{}{}",
            server(&dead),
            server(&well_one)
        ));
        let table = Recorder::default();
        let mut stage = Stage::start(&place, &table);
        let has = |server| {
            table.table().virtuals.values().next().is_some_and(|v| v.reals.contains_key(&RealId(server)))
        };
        stage.until(|picture| picture.all_known && picture.in_sync && has(dead.address())).await;
        // What somebody has deleted it has seen there before.
        stage.look().await;
        let id = *table.table().virtuals.keys().next().unwrap();
        for server in [dead.address(), well_one.address()] {
            table.0.lock().unwrap().0.table.apply(&Op::DeleteReal(id, RealId(server))).unwrap();
        }
        // The one that is well tells that the table was compared.
        stage.until(|picture| picture.in_sync && has(well_one.address())).await;
        assert_eq!(has(dead.address()), back, "{readd}");
        dead.restart().unwrap();
        stage.until(|_| table.weights(dead.address()).last() == Some(&7)).await;
        stage.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_on_the_same_virtual_that_ends_takes_nothing_away_for_long() {
    let (sink, place) = (well(), Place::new("ld-two"));
    place.write_cf(&format!(
        "cleanstop=yes\ncheckinterval=1\nvirtual=192.0.2.1:25\n    service=smtp\n    real={} masq 7\n",
        sink.address()
    ));
    let table = Recorder::default();
    let has = || table.table().virtuals.values().any(|v| v.reals.values().any(|real| real.weight.0 == 7));
    let mut one = Stage::start(&place, &table);
    one.until(|picture| picture.in_sync && has()).await;
    let mut two = Stage::start(&place, &table);
    two.until(|picture| picture.all_known && picture.in_sync).await;
    two.stop().await;
    assert!(!has(), "it has taken its virtual with it");
    one.until(|_| has()).await;
    one.stop().await;
}
