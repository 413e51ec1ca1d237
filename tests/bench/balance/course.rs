//! One run of one program through one case, and what came of it.
//!
//! Owns the order of events and the figures. Nothing is taken from what a program says of itself but the number of its
//! writes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use crate::balancer::Balancer;
use crate::farm::{Farm, Ip};
use crate::server::{self, Server};
use crate::{Case, Place, SICK, WARM};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// How long to wait for what is under way in the end.
const PATIENCE: Duration = Duration::from_secs(300);

/// What came of a run.
pub(crate) struct Course {
    /// From the making of each message to its arrival, in order.
    delays: Vec<Duration>,
    /// Messages in one server's queue, at the most.
    deepest: usize,
    /// Messages in the sick server when no more mail came.
    stranded: usize,
    /// From the first message to the last arrival.
    whole: Duration,
    /// Changes of a weight after the start.
    writes: Option<u64>,
    /// Messages that a server took responsibility for.
    accepted: u64,
    /// Of them, never seen behind one.
    lost: u64,
    /// Seen more than once.
    doubled: u64,
    /// Not accepted.
    refused: u64,
}

impl Course {
    /// The head of the table.
    pub(crate) const TITLE: &'static str = "| | median | p95 | p99 | worst | deepest queue | in the sick one when no more came | all \
        delivered after | weight writes | accepted | refused | lost | doubled |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|";

    pub(crate) fn row(&self, title: &str) -> String {
        let at = |part: f64| self.delay(part).as_secs_f64();
        let writes = self.writes.map_or("none".to_owned(), |writes| writes.to_string());
        format!(
            "| {title} | {:.2} s | {:.1} s | {:.1} s | {:.1} s | {} | {} | {:.0} s | {writes} | {} | {} | {} | {} |",
            at(0.5),
            at(0.95),
            at(0.99),
            at(1.0),
            self.deepest,
            self.stranded,
            self.whole.as_secs_f64(),
            self.accepted,
            self.refused,
            self.lost,
            self.doubled
        )
    }

    /// The delay that this part of all messages does not exceed.
    fn delay(&self, part: f64) -> Duration {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index of the list")]
        let index = (self.delays.len() as f64 * part).ceil() as usize;
        self.delays.get(index.saturating_sub(1)).copied().unwrap_or_default()
    }
}

/// Plays a case.
pub(crate) fn play(place: Place, case: &Case, balancer: Balancer, mail: Duration) -> Course {
    let mut farm = Farm::new(Balancer::wiring(place));
    let servers = server::start_all(&mut farm, place);
    let set =
        |speeds: [f64; 3]| servers.iter().zip(speeds).for_each(|(server, speed)| server.deliver_at(speed));
    set(case.before);
    let running = balancer.start(&farm, place);
    let before = running.writes();
    let (target, rate) = (format!("smtp://{}", Ip::V4.vip()), format!("{}/s", place.rate()));
    let duration = format!("{}s", mail.as_secs());
    let words = [
        "smtp",
        &target,
        "--rate",
        &rate,
        "--duration",
        &duration,
        "--size",
        "2048",
        "--threads",
        "1",
        "--progress",
        "none",
        "--from",
        "sender@client.lab.test",
        "--to",
        "inbox@lab.test",
        "--seed",
        "1",
    ];
    let begin = Instant::now();
    let (mut deepest, mut seen, mut last) = (0, 0, BTreeMap::new());
    let report = std::thread::scope(|scope| {
        let load = scope
            .spawn(|| farm.client.inside(|| loadgen::cli::rehearse(&words).map_err(|exit| exit.message)));
        let mut well = true;
        while !load.is_finished() {
            if well && begin.elapsed() >= Duration::from_secs(WARM) {
                set(case.fault);
                well = false;
            }
            deepest = servers.iter().map(Server::queue).max().unwrap_or_default().max(deepest);
            let weights = running.weights(&farm, place);
            if !last.is_empty() && weights != last {
                seen += 1;
            }
            last = weights;
            std::thread::sleep(LOOK);
        }
        load.join().expect("the load").unwrap_or_else(|error| panic!("no load: {error}")).0
    });
    let stranded = servers[SICK].queue();
    let writes = running.writes().zip(before).map(|(after, before)| after - before);
    set([1.0; 3]);
    let accepted = report.counts.ok;
    let end = Instant::now();
    let delivered = || servers.iter().map(Server::delivered).sum::<u64>();
    while delivered() < accepted && end.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(50));
    }
    let whole = begin.elapsed();
    let mut times: BTreeMap<String, Vec<SystemTime>> = BTreeMap::new();
    for (id, at) in servers.iter().flat_map(Server::arrivals) {
        times.entry(id).or_default().push(at);
    }
    let mut delays: Vec<_> = times.iter().filter_map(|(id, at)| delay(id, *at.iter().min()?)).collect();
    delays.sort_unstable();
    Course {
        deepest,
        stranded,
        whole,
        writes: writes.or((place == Place::Lab).then_some(seen)),
        accepted,
        lost: accepted.saturating_sub(times.len() as u64),
        doubled: times.values().filter(|at| at.len() > 1).count() as u64,
        refused: report.counts.arrivals - accepted,
        delays,
    }
}

/// An id is `RUN.NUMBER.MICROSECONDS` since 1970, when the message was made.
fn delay(id: &str, arrival: SystemTime) -> Option<Duration> {
    let made = id.rsplit('.').next()?.parse().ok().map(Duration::from_micros)?;
    arrival.duration_since(SystemTime::UNIX_EPOCH + made).ok()
}
