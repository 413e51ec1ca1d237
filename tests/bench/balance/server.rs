//! One real server of the comparison: Postfix, the sink behind it, and the agent beside it.
//!
//! Owns how fast it delivers. The sink is where Postfix sends all that it took; it answers each message late, and Postfix
//! sends it only so many at one time, so that mail waits in Postfix's own queue as it does before a slow destination.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use loadgen::sink::serve::Served;
use loadgen::sink::{Arrival, Fault, Remember, SinkConfig};

use crate::Place;
use crate::farm::host::wait_until;
use crate::farm::postfix::{MASTER_CF, Postfix};
use crate::farm::{Ip, REALS};

/// Where `smtp-realserver serve` answers.
pub(crate) const AGENT: u16 = 9626;
const SINK: u16 = 2525;

/// What is added to a Postfix of the farm.
pub(crate) struct Server {
    sink: Served,
    agent: Child,
    spool: PathBuf,
    each: Duration,
}

impl Server {
    /// Makes Postfix deliver to a sink, and starts the agent.
    pub(crate) fn start(postfix: &mut Postfix, last: u8, folder: &Path, place: Place) -> Self {
        let (at_once, each) = place.capacity();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, SINK));
        let mut config = SinkConfig::new("sink.lab.test");
        config.remember = Remember::Arrivals;
        config.abilities.keep = 16 * 1024;
        let sink = postfix.host.inside(|| Served::start(address, config, 1)).expect("sink");
        let lines = format!(
            "virtual_transport = smtp:[127.0.0.1]:{SINK}\n\
             smtp_destination_concurrency_limit = {at_once}\n\
             initial_destination_concurrency = {at_once}\n\
             smtp_connection_cache_on_demand = no\n\
             enable_long_queue_ids = yes\n\
             minimal_backoff_time = 10s\n\
             maximal_backoff_time = 20s\n\
             queue_run_delay = 5s\n\
             default_process_limit = 50\n"
        );
        let master = format!("{MASTER_CF}smtp unix - - n - {at_once} smtp\n");
        postfix.configure(&lines, &master);
        postfix.kill();
        postfix.start();
        let agent = postfix.host.inside(|| {
            let log = fs::File::create(folder.join("agent.log")).expect("log");
            Command::new(program())
                .args(["serve", "--listen", &SocketAddr::new(Ip::V4.address(last), AGENT).to_string()])
                .args(["--allow", &Ip::V4.address(2).to_string(), "-c"])
                .arg(folder.join("etc"))
                .stdin(Stdio::null())
                .stderr(log)
                .spawn()
                .expect("smtp-realserver")
        });
        wait_until(Duration::from_secs(10), "the agent listens", || {
            fs::read_to_string(folder.join("agent.log")).unwrap_or_default().contains("listens on")
        });
        Self { sink, agent, spool: folder.join("spool"), each }
    }

    /// From now on it delivers at this part of a healthy one's speed.
    pub(crate) fn deliver_at(&self, speed: f64) {
        let fault = if speed > 0.0 { Fault::SlowBody(self.each.div_f64(speed)) } else { Fault::SilentBanner };
        self.sink.set_fault(Some(fault));
    }

    /// All that has arrived behind it.
    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.sink.arrivals()
    }

    /// How many have.
    pub(crate) fn delivered(&self) -> u64 {
        self.sink.messages()
    }

    /// Messages that Postfix has now.
    pub(crate) fn queue(&self) -> usize {
        ["incoming", "active", "deferred"].iter().map(|queue| files(&self.spool.join(queue))).sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

/// Files below a folder; those that come and go meanwhile are not the point.
fn files(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let count = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => files(&entry.path()),
        _ => 1,
    };
    entries.flatten().map(count).sum()
}

/// The program, which `cargo build --release -p postfix` puts beside the folder of ours.
fn program() -> PathBuf {
    let here = std::env::current_exe().expect("our own path");
    let program = here.ancestors().nth(2).expect("a folder").join("smtp-realserver");
    assert!(program.exists(), "{} is missing: cargo build --release -p postfix", program.display());
    program
}

/// The three of a farm.
pub(crate) fn start_all(farm: &mut crate::farm::Farm, place: Place) -> Vec<Server> {
    let root = farm.folder.clone();
    let reals = farm.reals.iter_mut().zip(REALS);
    reals
        .map(|(postfix, last)| {
            let folder = root.join(postfix.name());
            Server::start(postfix, last, &folder, place)
        })
        .collect()
}
