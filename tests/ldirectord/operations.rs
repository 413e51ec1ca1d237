//! What the two do to the table, and not only what comes of it.
//!
//! Ours is the director itself with its checks, on a table in memory that writes down each change as the recording ipvsadm does.
//! The original adds every server and takes those that fail away again, and says each time all that it wants; ours is the
//! difference, said once. So this is what holds of every stretch between two moments of rest, at which both have the same table:
//!
//! - No change of ours is refused, and none is without effect.
//! - Whatever ours writes, the original writes in the same stretch: the same virtual or server, with the same content, or gone.
//!   One exception, which drains connections: a server that is going to be deleted gets weight 0 before.
//! - A row is written once, but for that exception.
//! - A server comes after its virtual and goes before it. None of ours flashes: who has no weight at the end gets none on the way.
//! - A virtual that has weight before and after has weight on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use smtp_director::config::Config;
use smtp_director::dataplane::memory::Memory;
use smtp_director::dataplane::{Dataplane, Error};
use smtp_director::director::{Director, Event, Inbox};
use smtp_director::model::{Dump, Op};
use smtp_director::prober::Prober;
use smtp_director::snapshot::Snapshot;
use tokio::sync::{mpsc, watch};

use super::native::{show, show_op};

/// Longer than any stretch lasts: a failure, a drain, a few rounds.
const PATIENCE: Duration = Duration::from_secs(20);

/// What has been done so far: each change, with whether it was taken, and the table.
#[derive(Default)]
struct Done {
    log: String,
    table: String,
}

/// A table in memory that writes down what is done to it.
struct Recorder {
    memory: Memory,
    done: Arc<Mutex<Done>>,
}

impl Dataplane for Recorder {
    fn name(&self) -> &'static str {
        self.memory.name()
    }

    async fn dump(&mut self) -> Result<Dump, Error> {
        self.memory.dump().await
    }

    async fn apply(&mut self, op: &Op) -> Result<(), Error> {
        let result = self.memory.apply(op).await;
        let mut done = self.done.lock().unwrap();
        let _ = writeln!(done.log, "{}\t{}", u8::from(result.is_err()), show_op(op));
        done.table = show(&self.memory.table);
        result
    }
}

/// The director of a configuration, in a thread of its own.
pub(super) struct Ours {
    done: Arc<Mutex<Done>>,
    events: mpsc::Sender<Event>,
    thread: JoinHandle<()>,
}

impl Ours {
    pub(super) fn start(config: Config) -> Self {
        let done = Arc::new(Mutex::new(Done::default()));
        let recorder = Recorder { memory: Memory::default(), done: Arc::clone(&done) };
        let (events, inbox) = mpsc::channel(16);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (report, reports) = mpsc::channel(64);
                let (pictures, _looks) = watch::channel(Arc::new(Snapshot::default()));
                let (directory, watched) = watch::channel(config.maintenance_dir.clone());
                let director = Director::new(config, recorder, Prober::new(report), pictures);
                let (told, of_maintenance) = mpsc::channel(16);
                let maintenance = tokio::spawn(smtp_director::maintenance::watch(watched, told));
                let events = merge(inbox, of_maintenance);
                director.run(Inbox { reports, events }).await;
                maintenance.abort();
                drop(directory);
            });
        });
        Self { done, events, thread }
    }

    pub(super) fn log(&self) -> String {
        self.done.lock().unwrap().log.clone()
    }

    /// Waits until the table is that one. What it is if it never is.
    pub(super) fn reaches(&self, table: &str) -> Result<(), String> {
        #[expect(clippy::disallowed_methods, reason = "nobody waits for ever")]
        let start = Instant::now();
        loop {
            let now = self.done.lock().unwrap().table.clone();
            if now == table {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                return Err(now);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it. All that it did, and the table that it leaves.
    pub(super) fn stop(self) -> (String, String) {
        let _ = self.events.blocking_send(Event::Stop);
        self.thread.join().unwrap();
        let done = self.done.lock().unwrap();
        (done.log.clone(), done.table.clone())
    }
}

/// Two sources of events as one.
fn merge(mut one: mpsc::Receiver<Event>, mut other: mpsc::Receiver<Event>) -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                Some(event) = one.recv() => event,
                Some(event) = other.recv() => event,
                else => return,
            };
            if sender.send(event).await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// One line of a log: what was written where, or that it is gone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Change {
    good: bool,
    sign: String,
    key: String,
    /// `None` is the virtual itself.
    real: Option<String>,
    content: Option<String>,
}

impl Change {
    fn read(line: &str) -> Option<Self> {
        let mut parts = line.split('\t').map(str::to_owned);
        let (status, sign, key) = (parts.next()?, parts.next()?, parts.next()?);
        let real = if sign.ends_with('R') { Some(parts.next()?) } else { None };
        Some(Self { good: status == "0", sign, key, real, content: parts.next() })
    }

    fn place(&self) -> (String, Option<String>) {
        (self.key.clone(), self.real.clone())
    }

    fn has_weight(&self) -> bool {
        self.content
            .as_deref()
            .and_then(|content| content.split(' ').nth(1))
            .is_some_and(|weight| weight != "0")
    }
}

/// What is in a table.
type Rows = BTreeMap<(String, Option<String>), String>;

/// What is wrong with what ours did in a stretch, beside what the original did; `before` is the table at its start.
pub(super) fn compare(before: &str, theirs: &str, ours: &str) -> Vec<String> {
    let parse = |log: &str| log.lines().filter_map(Change::read).collect::<Vec<_>>();
    let (theirs, ours) = (parse(theirs), parse(ours));
    let written: BTreeSet<_> = theirs
        .iter()
        .filter(|change| change.good)
        .map(|change| (change.place(), change.content.clone()))
        .collect();
    // Who goes with its virtual is gone, too.
    let gone: BTreeSet<&str> =
        theirs.iter().filter(|c| c.good && c.sign == "-V").map(|change| change.key.as_str()).collect();
    let mut wrong = Vec::new();
    let mut rows = rows_of(before);
    let start = rows.clone();
    let mut end = start.clone();
    for change in &ours {
        apply(&mut end, change);
    }
    let mut seen: BTreeMap<_, usize> = BTreeMap::new();
    for (at, change) in ours.iter().enumerate() {
        let mut say = |what: &str| wrong.push(format!("{what}: {change:?}"));
        if !change.good {
            say("refused");
        }
        let drains = change.sign == "~R"
            && !change.has_weight()
            && ours.iter().skip(at).any(|later| later.sign == "-R" && later.place() == change.place());
        let with_its_virtual = change.sign == "-R" && gone.contains(change.key.as_str());
        if !drains && !with_its_virtual && !written.contains(&(change.place(), change.content.clone())) {
            say("not done by the original");
        }
        let times = seen.entry(change.place()).or_default();
        *times += usize::from(!drains);
        if *times > 1 {
            say("a second time");
        }
        if change.real.is_some() && !rows.contains_key(&(change.key.clone(), None)) {
            say("without its virtual");
        }
        let ends_without = end.get(&change.place()).is_none_or(|content| !weighs(content));
        if change.has_weight() && ends_without {
            say("flashes");
        }
        if !apply(&mut rows, change) {
            say("without effect");
        }
        if serves(&start, &change.key) && serves(&end, &change.key) && !serves(&rows, &change.key) {
            say("nobody serves");
        }
    }
    wrong
}

/// Whether anything is another after it.
fn apply(rows: &mut Rows, change: &Change) -> bool {
    match &change.content {
        Some(content) => rows.insert(change.place(), content.clone()).as_ref() != Some(content),
        None if change.real.is_some() => rows.remove(&change.place()).is_some(),
        None => {
            let count = rows.len();
            rows.retain(|(key, _), _| *key != change.key);
            rows.len() != count
        }
    }
}

fn weighs(content: &str) -> bool {
    content.split(' ').nth(1).is_some_and(|weight| weight != "0")
}

fn serves(rows: &Rows, key: &str) -> bool {
    rows.iter().any(|((of, real), content)| of == key && real.is_some() && weighs(content))
}

fn rows_of(table: &str) -> Rows {
    let row = |line: &str| {
        let mut parts = line.split('\t').map(str::to_owned);
        let (kind, key) = (parts.next()?, parts.next()?);
        let real = if kind == "R" { Some(parts.next()?) } else { None };
        Some(((key, real), parts.next()?))
    };
    table.lines().filter_map(row).collect()
}

#[test]
fn what_ours_must_not_do_is_seen() {
    let before = "V\tvip\trr 0 - - -\nR\tvip\tone\t-g 1 0 0\n";
    for (theirs, ours, expected) in [
        ("0 -R vip one", "0 -R vip one", None),
        ("0 -R vip one", "1 -R vip one", Some("refused")),
        ("0 ~V vip wrr", "0 ~V vip lc", Some("not done by the original")),
        ("1 ~V vip lc", "0 ~V vip lc", Some("not done by the original")),
        ("0 ~R vip one 1", "0 ~R vip one 1", Some("without effect")),
        ("0 +R other two 1", "0 +R other two 1", Some("without its virtual")),
        ("0 +R vip two 3\n0 ~R vip two 3", "0 +R vip two 3\n0 ~R vip two 3", Some("a second time")),
        // A drain, and half of one.
        ("0 -R vip one", "0 ~R vip one 0\n0 -R vip one", None),
        ("0 -R vip one", "0 ~R vip one 0", Some("not done by the original")),
        ("0 +R vip two 1\n0 -R vip two", "0 +R vip two 1\n0 -R vip two", Some("flashes")),
        ("0 -R vip one\n0 +R vip two 1", "0 -R vip one\n0 +R vip two 1", Some("nobody serves")),
        ("0 -R vip one\n0 +R vip two 1", "0 +R vip two 1\n0 -R vip one", None),
        ("0 -V vip", "0 -R vip one\n0 -V vip", None),
    ] {
        // A weight, or the settings of a virtual.
        let written = |text: &str| {
            let line = |line: &str| {
                let words: Vec<&str> = line.split(' ').collect();
                match words.as_slice() {
                    [first @ .., last] if words.len() == 5 => format!("{}\t-g {last} 0 0", first.join("\t")),
                    _ => words.join("\t"),
                }
            };
            text.lines().map(line).collect::<Vec<_>>().join("\n")
        };
        let wrong = compare(before, &written(theirs), &written(ours));
        match expected {
            None => assert_eq!(wrong, Vec::<String>::new(), "{ours}"),
            Some(expected) => assert!(wrong.iter().any(|one| one.starts_with(expected)), "{ours}: {wrong:?}"),
        }
    }
}
