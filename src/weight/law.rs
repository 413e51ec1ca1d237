//! The law of the soft factor: which part of its weight each server of a virtual has by its load.
//!
//! Owns [`Law`] and its memory. Refuses to know checks, kernels, sockets and clocks; time is an argument. Cannot fail:
//! who is not known has its full weight.
//!
//! A queue integrates what flows into it, so a weight that follows a backlog is a control loop, and can swing. What
//! keeps this one from it, each tried in `tests/simulation`:
//! - It looks at what is worse than in the rest of the farm: trouble of all moves nothing.
//! - It looks ahead by half the width of the band, at the pace at which the backlog grows: it acts before the backlog
//!   is there, and lets go before it has gone.
//! - Between two curves of the backlog a weight stays as it is. One line would be crossed by every gust.
//! - Down at once, up slowly, and slower the more often a server fell.
//! - What is filtered, foreseen and awaited is measured in the width of the band, the law's only scale of time.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::Weight;
use super::curve::{Band, Percent, coarse, progress, settle, slow_start};
use super::parts::{Check, Parts};
use super::signal::{Queue, Reading, Track};
use crate::model::RealId;

/// The queue signal of a virtual, and what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueueLaw {
    /// Seconds of backlog more than the farm has.
    pub band: Band,
    /// How often a report comes.
    pub interval: Duration,
}

/// How load decides weights.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LawConfig {
    /// By the queue.
    pub queue: Option<QueueLaw>,
    /// By the time to the banner: seconds more than the farm has.
    pub latency: Option<Band>,
    /// How long a server that is new or comes back takes to its full weight; zero is at once.
    pub slow_start: Duration,
    /// Whether weights take coarse steps, for schedulers that hash.
    pub steps: Steps,
    /// Percent of all base weight that this law leaves in service; 0 to 100.
    pub floor: u8,
}

/// Which weights there are between all and nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Steps {
    /// Each percent.
    #[default]
    Fine,
    /// All, a half, a tenth.
    Coarse,
}

/// One real server at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Input {
    /// Who it is.
    pub id: RealId,
    /// Its base weight.
    pub base: Weight,
    /// What its checks leave of it.
    pub check: Check,
    /// What an agent leaves of it that knows no more than that.
    pub agent: Option<Percent>,
    /// The last report of its queue, new or not.
    pub queue: Option<Queue>,
    /// How long its banner takes, smoothed.
    pub banner: Option<Duration>,
}

/// The law and its memory of one virtual.
#[derive(Clone, Debug)]
pub struct Law {
    config: LawConfig,
    servers: BTreeMap<RealId, Server>,
    before: Option<Instant>,
    /// When the first step was.
    began: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Server {
    track: Track,
    /// By load, before slow start and floor.
    factor: f64,
    /// Since when it serves; `None` while it does not. `Some(None)` is since ever.
    serves: Option<Option<Instant>>,
    /// What was said last.
    said: Percent,
    /// Whether the last change of `said` was up.
    rose: bool,
    /// When what was said turned down, not longer ago than [`MEMORY`].
    falls: VecDeque<Instant>,
    /// The part of its weight that it had before this law began, its checks' part in it; until those are known.
    adopted: Option<f64>,
}

/// What is known of a server's load in this tick, against that of the farm.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    queue: Option<Reading>,
    /// The queue was known, and nothing new was heard since.
    held: bool,
    latency: Option<f64>,
}

/// The two ends between which a factor stays as it is.
#[derive(Clone, Copy, Debug)]
struct Corridor {
    least: f64,
    most: f64,
}

impl Corridor {
    const FREE: Self = Self { least: 1.0, most: 1.0 };

    fn of(band: &Band, excess: f64) -> Self {
        Self { least: band.least(excess), most: band.most(excess) }
    }

    fn and(self, other: Self) -> Self {
        Self { least: self.least.min(other.least), most: self.most.min(other.most) }
    }

    fn admit(self, factor: f64) -> f64 {
        factor.max(self.least).min(self.most)
    }
}

/// How far it looks ahead, in widths of the band.
const AHEAD: f64 = 0.5;
/// Over which time it smooths.
const SMOOTH: f64 = 0.4;
/// In which time it gives back.
const UP: f64 = 1.2;
/// The least that one interval leaves of a factor: a single report is not the whole truth.
const DOWN: f64 = 0.3;
/// The server of the farm that others are compared with: this part of all are better. Not the middle one: of a farm
/// in which more than half is slow, the other half is to be used.
const RANK: f64 = 0.25;
/// Messages within `full_at` that are no backlog.
const NONE_WAITS: f64 = 2.0;
/// Reports that may be missing before a queue is unknown.
const MISSING: u32 = 3;
/// How often the law is asked, at least.
const PACE: Duration = Duration::from_secs(5);
/// How long a fall is held against a server, and how much slower it can make its rise, in doublings.
const MEMORY: Duration = Duration::from_secs(600);
const MOST_DOUBLINGS: usize = 3;

impl Law {
    /// Nothing is known: the servers of the first tick have served since ever.
    #[must_use]
    pub fn new(config: LawConfig) -> Self {
        Self { config, servers: BTreeMap::new(), before: None, began: None }
    }

    /// Goes on by other rules; what is known stays.
    pub fn reconfigure(&mut self, config: LawConfig) {
        self.config = config;
    }

    /// Takes over what a server has before the first step: a part of its weight, or nothing where it does not serve.
    pub fn adopt(&mut self, id: RealId, part: Option<f64>) {
        if self.before.is_none() {
            let server = Server { adopted: part, ..Server::new(part.is_some()) };
            self.servers.insert(id, server);
        }
    }

    /// One step: how the servers are now, and in their order which part of its weight each has, and why.
    ///
    /// It may be called as often as one likes; what it says depends little on that.
    pub fn tick(&mut self, now: Instant, inputs: &[Input]) -> Vec<Parts> {
        let passed = self.before.map_or(0.0, |before| now.saturating_duration_since(before).as_secs_f64());
        let is_first = self.before.is_none();
        self.before = Some(now);
        self.began = self.began.or(Some(now));
        let mut known = std::mem::take(&mut self.servers);
        let mut servers: Vec<Server> = inputs
            .iter()
            .map(|input| known.remove(&input.id).unwrap_or_else(|| Server::new(is_first)))
            .collect();
        for (server, input) in servers.iter_mut().zip(inputs) {
            server.hear(now, input, &self.config);
        }
        let loads: Vec<Load> = servers.iter().zip(inputs).map(|(s, i)| self.load(now, s, i)).collect();
        let farm = Farm::of(&loads);
        let mut parts = Vec::with_capacity(inputs.len());
        for ((server, input), load) in servers.iter_mut().zip(inputs).zip(&loads) {
            parts.push(self.step(server, &Moment { now, passed, input, load, farm: &farm }));
        }
        self.keep_floor(inputs, &mut servers, &mut parts);
        self.servers = inputs.iter().map(|input| input.id).zip(servers).collect();
        parts
    }

    /// What is heard of a server's load; nothing of one that does not serve.
    fn load(&self, now: Instant, server: &Server, input: &Input) -> Load {
        if input.check == Check::Out {
            return Load::default();
        }
        let mut load = Load::default();
        if let Some((law, (silent, age))) = self.config.queue.as_ref().zip(server.track.silence(now)) {
            load.held = silent > law.interval * 3 / 2;
            if age.max(silent) <= law.interval * MISSING + law.interval / 2 {
                let least_rate = NONE_WAITS / law.band.full_at.as_secs_f64().max(1e-3);
                load.queue = server.track.reading(SMOOTH * law.band.width(), least_rate);
            }
        }
        load.latency = self.config.latency.and(input.banner).map(|banner| banner.as_secs_f64());
        load
    }

    /// The factor of one server, without regard to the others' but for what the farm has.
    fn step(&self, server: &mut Server, moment: &Moment<'_>) -> Parts {
        let Moment { now, passed, input, load, farm } = *moment;
        let mut parts = Parts { check: input.check, agent: input.agent, ..Parts::of(&server.track, now) };
        let Some(since) = server.serves else {
            server.factor = 1.0;
            return parts;
        };
        let mut corridor = Corridor::FREE;
        let mut width = 0.0;
        if let Some((law, reading)) = self.config.queue.as_ref().zip(load.queue) {
            width = law.band.width();
            let excess = farm.excess(&reading, law);
            let queue = Corridor::of(&law.band, excess.ahead);
            let delivered = farm.delivered(&reading);
            parts.wait = Some((reading.wait, farm.wait));
            parts.queue = Some(queue.admit(server.factor));
            parts.delivered = reading.delivered.filter(|_| delivered < 1.0);
            corridor = queue.and(Corridor { least: delivered, most: delivered });
        }
        if let Some((band, latency)) = self.config.latency.as_ref().zip(load.latency) {
            width = band.width().max(width);
            let slow = Corridor::of(band, latency - farm.latency);
            parts.banner = Some((latency, farm.latency));
            parts.latency = Some(slow.admit(server.factor));
            corridor = corridor.and(slow);
        }
        parts.held = load.held && load.queue.is_some();
        if !parts.held && !self.awaits(server, now) {
            let aim = corridor.admit(server.factor);
            server.approach(aim, passed, &Pace { now, width, interval: self.config.interval() });
        }
        parts.slow_start =
            since.map(|since| slow_start(now.saturating_duration_since(since), self.config.slow_start));
        let agent = input.agent.map_or(1.0, Percent::ratio);
        parts.wanted = server.factor * agent * parts.slow_start.unwrap_or(1.0);
        parts
    }

    /// Whether what was adopted stays because no report can have come yet.
    fn awaits(&self, server: &Server, now: Instant) -> bool {
        let limit = self.config.queue.map(|law| law.interval * MISSING + law.interval / 2);
        let began =
            self.began.zip(limit).is_some_and(|(began, limit)| now.saturating_duration_since(began) <= limit);
        began && server.track.work().is_none()
    }

    /// Raises what is wanted until the floor is kept, and says it.
    fn keep_floor(&self, inputs: &[Input], servers: &mut [Server], parts: &mut [Parts]) {
        let base = |input: &Input| f64::from(input.base.0);
        let share = |input: &Input| base(input) * input.check.ratio();
        let floor = inputs.iter().map(base).sum::<f64>() * f64::from(self.config.floor.min(100)) / 100.0;
        let whole: f64 = inputs.iter().map(share).sum();
        let taken: f64 = inputs.iter().zip(&*parts).map(|(i, p)| share(i) * (1.0 - p.wanted)).sum();
        let allowed = (whole - floor).max(0.0);
        let keep = if taken > allowed { allowed / taken } else { 1.0 };
        for (server, part) in servers.iter_mut().zip(parts.iter_mut()) {
            part.lifted = keep < 1.0 && part.wanted < 1.0;
            part.wanted = 1.0 - (1.0 - part.wanted) * keep;
            part.factor = match self.config.steps {
                _ if server.serves.is_none() => Percent::ALL,
                Steps::Coarse => coarse(server.said, part.wanted),
                Steps::Fine => settle(server.said, part.wanted),
            };
        }
        // What is said lags behind what is wanted, and the floor holds for what is said.
        let mut left: f64 = inputs.iter().zip(&*parts).map(|(i, p)| share(i) * p.factor.ratio()).sum();
        let mut order: Vec<usize> = (0..parts.len()).collect();
        order.sort_by(|a, b| wanted(parts, *b).total_cmp(&wanted(parts, *a)));
        for index in order {
            let (Some(part), Some(input)) = (parts.get_mut(index), inputs.get(index)) else { continue };
            if left >= floor.min(whole) - 1e-9 {
                break;
            }
            let raised = match self.config.steps {
                Steps::Fine => Percent::at_least(part.wanted).max(part.factor),
                Steps::Coarse => Percent::ALL,
            };
            left += share(input) * (raised.ratio() - part.factor.ratio());
            part.factor = raised;
        }
        for (server, part) in servers.iter_mut().zip(parts) {
            server.say(part.factor, self.before);
        }
    }
}

fn wanted(parts: &[Parts], index: usize) -> f64 {
    parts.get(index).map_or(1.0, |part| part.wanted)
}

impl LawConfig {
    /// How often it wants to be asked while nothing is heard.
    #[must_use]
    pub fn pace(&self) -> Duration {
        self.queue.map_or(PACE, |queue| queue.interval.min(PACE))
    }

    fn interval(&self) -> f64 {
        self.queue.map_or(10.0, |queue| queue.interval.as_secs_f64())
    }
}

struct Moment<'a> {
    now: Instant,
    passed: f64,
    input: &'a Input,
    load: &'a Load,
    farm: &'a Farm,
}

/// At which pace a factor changes.
struct Pace {
    now: Instant,
    width: f64,
    interval: f64,
}

impl Server {
    fn new(is_first: bool) -> Self {
        Self {
            track: Track::default(),
            factor: 1.0,
            serves: is_first.then_some(None),
            said: Percent::ALL,
            rose: true,
            falls: VecDeque::new(),
            adopted: None,
        }
    }

    fn hear(&mut self, now: Instant, input: &Input, config: &LawConfig) {
        self.serves = match (input.check, self.serves) {
            (Check::Out, _) => None,
            (Check::Part(_), None) => Some(Some(now)),
            (Check::Part(_) | Check::Unknown, known) => known,
        };
        if let Check::Part(part) = input.check
            && let Some(adopted) = self.adopted.take()
        {
            self.factor = (adopted / part.ratio()).clamp(Percent::LEAST.ratio(), 1.0);
            self.said = Percent::nearest(self.factor);
        }
        if let Some((law, queue)) = config.queue.as_ref().zip(input.queue.as_ref()) {
            self.track.absorb(now, queue, SMOOTH * law.band.width());
        }
    }

    fn approach(&mut self, aim: f64, passed: f64, pace: &Pace) {
        if aim < self.factor {
            self.factor = aim.max(self.factor * DOWN.powf(passed / pace.interval.max(1e-3)));
        } else {
            self.falls.retain(|fall| pace.now.saturating_duration_since(*fall) < MEMORY);
            let doublings = self.falls.len().saturating_sub(1).min(MOST_DOUBLINGS);
            let time = UP * pace.width.max(pace.interval) * f64::from(1u32 << doublings);
            self.factor += (aim - self.factor) * progress(passed, time);
            // An exponential never arrives.
            if aim - self.factor < 0.005 {
                self.factor = aim;
            }
        }
    }

    fn say(&mut self, factor: Percent, now: Option<Instant>) {
        if factor < self.said && self.rose {
            self.falls.extend(now);
            if self.falls.len() > MOST_DOUBLINGS + 1 {
                self.falls.pop_front();
            }
        }
        if factor != self.said {
            self.rose = factor > self.said;
        }
        self.said = factor;
    }
}

/// What the better part of the farm has: what a server is measured by.
#[derive(Clone, Copy, Debug, Default)]
struct Farm {
    wait: f64,
    growth: f64,
    latency: f64,
    delivered: f64,
}

struct Excess {
    /// In seconds, half a width from now.
    ahead: f64,
}

impl Farm {
    fn of(loads: &[Load]) -> Self {
        let fresh = || loads.iter().filter(|load| !load.held).filter_map(|load| load.queue);
        Self {
            wait: rank(fresh().map(|reading| reading.wait), RANK),
            growth: rank(fresh().map(|reading| reading.growth), RANK).max(0.0),
            latency: rank(loads.iter().filter_map(|load| load.latency), RANK),
            delivered: rank(fresh().filter_map(|reading| reading.delivered), 1.0 - RANK),
        }
    }

    /// Where the whole farm is late, a difference means less.
    fn excess(&self, reading: &Reading, law: &QueueLaw) -> Excess {
        let scale = 1.0 + self.wait / law.band.floor_at.as_secs_f64().max(1e-3);
        let now = (reading.wait - self.wait) / scale;
        let growth = (reading.growth - self.growth) / scale;
        // A queue that only begins to be one grows by chance.
        let counts = now > law.band.full_at.as_secs_f64() / 2.0;
        Excess { ahead: if counts { now + growth * AHEAD * law.band.width() } else { now } }
    }

    /// The factor for putting mail off that others deliver.
    fn delivered(&self, reading: &Reading) -> f64 {
        let Some(delivered) = reading.delivered else { return 1.0 };
        if self.delivered <= 0.0 { 1.0 } else { (delivered / self.delivered * 2.0).clamp(0.1, 1.0) }
    }
}

/// The value that this part of all lies below; 0 of none.
fn rank(values: impl Iterator<Item = f64>, part: f64) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, reason = "some thousand servers at most")]
    let index = values.len().saturating_sub(1) as f64 * part;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index of the list")]
    let index = if part > 0.5 { index.ceil() } else { index } as usize;
    values.get(index).copied().unwrap_or(0.0)
}
