//! EDGE: one look at everything that a report says.
//!
//! Owns the instances of the box and what is remembered of them between two looks: configuration, clocks, counts of done
//! messages. Refuses to know who asks. It blocks: a disk may be slow. Fails figure by figure; only instances without
//! any configuration fail as a whole, when it is made.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::clock::Clock;
use crate::conf::{Conf, instances};
use crate::done::Done;
use crate::queue::{self, Ask};
use crate::report::json::{Document, Instance};
use crate::report::{MAX_MILLISECONDS, QueueReport};
use crate::timeline::Timeline;
use crate::vip;
use crate::vitals::{self, Sockets};

/// After this time the configuration is read again, in milliseconds.
const CONF_AGE: i64 = 60_000;
/// A reload of Postfix starts another `qmgr`. One that is missing is looked for again after this time.
const QMGR_PAUSE: Duration = Duration::from_millis(500);

/// What is looked at.
#[derive(Clone, Debug)]
pub struct What {
    /// Configuration directories of the instances.
    pub directories: Directories,
    /// Where the queue figures come from.
    pub ask: Ask,
    /// The smtpd of `master.cf` that is watched, by its first column; the first one without it.
    pub smtpd: Option<String>,
    /// The addresses that the director sends to.
    pub vips: Vec<SocketAddr>,
}

/// Which instances.
#[derive(Clone, Debug)]
pub enum Directories {
    /// These.
    These(Vec<PathBuf>),
    /// All that `postmulti -l` shows and that are enabled.
    Multi,
}

/// Looks, again and again.
#[derive(Debug)]
pub struct Looker {
    what: What,
    clock: Clock,
    timeline: Timeline,
    watched: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    conf: Conf,
    read: i64,
    done: Done,
}

impl Looker {
    /// Finds the instances.
    ///
    /// # Errors
    /// What is wrong with one of them, for people.
    pub fn new(what: What) -> Result<Self, String> {
        let directories = match &what.directories {
            Directories::These(directories) => directories.clone(),
            Directories::Multi => instances()?,
        };
        let clock = Clock::start();
        let watch = |directory: &PathBuf| {
            let conf = Conf::load(directory, what.smtpd.as_deref())?;
            Ok(Watched { conf, read: clock.steady(), done: Done::default() })
        };
        let watched = directories.iter().map(watch).collect::<Result<_, String>>()?;
        let mut looker = Self { what, clock, timeline: Timeline::default(), watched };
        looker.observe();
        Ok(looker)
    }

    /// Counts the messages that are done from now on, for as long as this lives.
    pub fn count(&self) {
        for one in &self.watched {
            one.done.count(one.conf.queue_directory.clone(), self.clock);
        }
    }

    /// Takes notice of the time. To be called every second while nobody asks.
    pub fn observe(&mut self) {
        self.timeline.observe(self.clock.now());
    }

    /// Looks.
    pub fn look(&mut self) -> Document {
        self.observe();
        let sockets = Sockets::read();
        let mut common = QueueReport { instances: Some(1), load: vitals::load(), ..QueueReport::default() };
        vip::look(&self.what.vips, sockets.as_ref(), &mut common);
        let mut found = Vec::with_capacity(self.watched.len());
        for one in &mut self.watched {
            let start = self.clock.steady();
            if start - one.read > CONF_AGE {
                one.read = start;
                // The spool that is counted stays; another one needs a restart of the agent, as it does of Postfix.
                if let Ok(conf) = Conf::load(&one.conf.config_directory, self.what.smtpd.as_deref()) {
                    one.conf = Conf { queue_directory: one.conf.queue_directory.clone(), ..conf };
                }
            }
            let mut report = QueueReport { postfix: one.conf.version.clone(), ..common.clone() };
            queue::look(&one.conf, self.what.ask, &self.timeline, &mut report);
            vitals::look(&one.conf, sockets.as_ref(), &mut report);
            if report.master == Some(true) && report.qmgr == Some(false) {
                std::thread::sleep(QMGR_PAUSE);
                vitals::look(&one.conf, sockets.as_ref(), &mut report);
            }
            let end = self.clock.steady();
            one.done.fill(end, &mut report);
            report.cost = u64::try_from(end - start).ok().map(|cost| cost.min(MAX_MILLISECONDS));
            report.age = Some(0);
            found.push(Instance { name: one.conf.name.clone(), report });
        }
        Document::new(found)
    }
}
