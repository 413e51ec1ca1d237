//! A farm of queues as a flow of messages, second by second: what a weight law is judged by.
//!
//! Owns [`Scenario`] and what comes of it. Refuses to know any law. A flow is not Postfix: it has no retries, and a
//! server's capacity is a number. What it has is what makes laws swing: queues that integrate, reports that come late and
//! by chance, and a `wlc` that remembers connections.

use std::collections::VecDeque;

use fastrand::Rng;

/// What a mail box says of its queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Report {
    /// Second of the simulation.
    pub(crate) taken: u64,
    pub(crate) work: u64,
    pub(crate) deferred: u64,
    pub(crate) done: u64,
    /// Seconds that the oldest has waited.
    pub(crate) waiting: u64,
}

/// What the director sees of a server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) serves: bool,
    pub(crate) report: Option<Report>,
    /// Seconds to its banner where what waits is sessions, smoothed as the director smooths it.
    pub(crate) banner: f64,
}

/// A law under trial.
pub(crate) trait Weigher {
    /// Weights of 0 to 100, in the order of the servers.
    fn tick(&mut self, second: u64, seen: &[Seen]) -> Vec<u32>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spread {
    /// By weight alone.
    Wrr,
    /// By `(256 active + inactive) / weight`, with sessions of a second and 120 s of FIN_WAIT after each.
    Wlc,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chance {
    /// Every second like the other.
    None,
    /// Arrivals and deliveries as chance has them.
    Some,
}

type At<T> = Box<dyn Fn(usize, u64) -> T>;

pub(crate) struct Scenario {
    /// Messages that each server can deliver in a second.
    pub(crate) capacity: Vec<f64>,
    /// What arrives, as a part of all capacity.
    pub(crate) load: f64,
    /// Seconds that a delivery takes.
    pub(crate) delivery: usize,
    /// What may wait at a server; what comes beyond that is turned away. Of sessions that is the backlog of the port.
    pub(crate) backlog: f64,
    pub(crate) seconds: u64,
    pub(crate) interval: u64,
    /// Seconds that a report is under way.
    pub(crate) late: u64,
    pub(crate) spread: Spread,
    pub(crate) chance: Chance,
    /// The part of its capacity that a server has, by server and second.
    pub(crate) speed: At<f64>,
    /// The part of what leaves that is deferred.
    pub(crate) defers: At<f64>,
    /// Whether the checks let it serve.
    pub(crate) serves: At<bool>,
    /// What becomes of a report on its way, by server and second.
    pub(crate) report: Box<dyn Fn(usize, u64, Report) -> Option<Report>>,
}

impl Scenario {
    /// Equal servers of 50 messages a second at three quarters of their capacity, for 90 minutes.
    pub(crate) fn of(servers: usize) -> Self {
        Self {
            capacity: vec![50.0; servers],
            load: 0.75,
            delivery: 2,
            backlog: f64::INFINITY,
            seconds: 5_400,
            interval: 10,
            late: 0,
            spread: Spread::Wrr,
            chance: Chance::Some,
            speed: Box::new(|_, _| 1.0),
            defers: Box::new(|_, _| 0.0),
            serves: Box::new(|_, _| true),
            report: Box::new(|_, _, report| Some(report)),
        }
    }

    /// From [`FROM`] to [`TO`] the first server has this part of its capacity.
    pub(crate) fn first_at(mut self, speed: f64) -> Self {
        self.speed =
            Box::new(move |server, second| if server == 0 && in_fault(second) { speed } else { 1.0 });
        self
    }
}

/// When faults begin and end.
pub(crate) const FROM: u64 = 600;
pub(crate) const TO: u64 = 3_600;

pub(crate) fn in_fault(second: u64) -> bool {
    (FROM..TO).contains(&second)
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Course {
    /// Weights and messages in the queue after each tick, by server.
    pub(crate) weights: Vec<Vec<u32>>,
    pub(crate) queues: Vec<Vec<f64>>,
    /// Seconds of the ticks.
    pub(crate) seconds: Vec<u64>,
    /// What was turned away.
    pub(crate) refused: f64,
    /// Seconds that the messages of each second would wait, and how many those were.
    waits: Vec<(f64, f64)>,
}

#[derive(Default)]
struct Server {
    queue: f64,
    done: f64,
    deferred: f64,
    arrived: f64,
    /// What had arrived by each second, of those whose messages wait.
    history: VecDeque<(u64, f64)>,
    /// Connections of the last 120 s, and their sum.
    closed: VecDeque<f64>,
    inactive: f64,
    /// What is being delivered, by the second in which that began; and what left in this second.
    delivering: VecDeque<f64>,
    left: f64,
    banner: f64,
}

pub(crate) fn run(scenario: &Scenario, law: &mut dyn Weigher, seed: u64) -> Course {
    let mut rng = Rng::with_seed(seed);
    let count = scenario.capacity.len();
    let mut servers: Vec<Server> = (0..count).map(|_| Server::default()).collect();
    let mut weights = vec![100; count];
    let mut last: Vec<Option<Report>> = vec![None; count];
    let mut under_way: VecDeque<(u64, usize, Report)> = VecDeque::new();
    let mut course =
        Course { weights: vec![Vec::new(); count], queues: vec![Vec::new(); count], ..Course::default() };
    let arrivals = scenario.capacity.iter().sum::<f64>() * scenario.load;
    let is_tick = |second: u64| second > 0 && second.is_multiple_of(scenario.interval);
    for second in 0..scenario.seconds {
        let arriving = by_chance(arrivals, scenario.chance, &mut rng);
        let shares = spread(scenario.spread, arriving, &weights, &servers);
        for (index, server) in servers.iter_mut().enumerate() {
            let capacity = scenario.capacity[index] * (scenario.speed)(index, second);
            let able = by_chance(capacity, scenario.chance, &mut rng);
            let share = if scenario.spread == Spread::Wrr && scenario.chance == Chance::Some {
                by_chance(shares[index], Chance::Some, &mut rng)
            } else {
                shares[index]
            };
            let taken = share.min(scenario.backlog - server.queue);
            course.refused += share - taken;
            server.second(second, taken, able);
            server.deliver(scenario.delivery);
            let deferred = (scenario.defers)(index, second) * server.left;
            server.done += server.left - deferred;
            server.deferred += deferred;
            let wait = if capacity > 0.0 { (server.queue / capacity).min(3_600.0) } else { 3_600.0 };
            course.waits.push((wait, share));
            if is_tick(second) {
                server.banner = (server.banner * 7.0 + wait) / 8.0;
                let report = server.report(second);
                under_way.extend(
                    (scenario.report)(index, second, report).map(|r| (second + scenario.late, index, r)),
                );
            }
        }
        while let Some((_, index, report)) = under_way.pop_front_if(|(due, ..)| *due <= second) {
            last[index] = Some(report);
        }
        if is_tick(second) {
            let see = |(index, report): (usize, &Option<Report>)| Seen {
                serves: (scenario.serves)(index, second),
                report: *report,
                banner: servers[index].banner,
            };
            let seen: Vec<Seen> = last.iter().enumerate().map(see).collect();
            weights = law.tick(second, &seen);
            course.seconds.push(second);
            for (index, server) in servers.iter().enumerate() {
                course.weights[index].push(weights[index]);
                course.queues[index].push(server.queue);
            }
        }
    }
    course
}

impl Server {
    fn second(&mut self, second: u64, share: f64, able: f64) {
        self.closed.push_back(share);
        self.inactive += share;
        if self.closed.len() > 120 {
            self.inactive -= self.closed.pop_front().unwrap_or(0.0);
        }
        self.queue += share;
        self.arrived += share;
        let begun = self.queue.min(able);
        self.queue -= begun;
        self.delivering.push_back(begun);
        self.history.push_back((second, self.arrived));
        let gone = self.arrived - self.queue;
        while self.history.pop_front_if(|(_, arrived)| *arrived <= gone).is_some() {}
    }

    fn deliver(&mut self, delivery: usize) {
        self.left =
            if self.delivering.len() > delivery { self.delivering.pop_front().unwrap_or(0.0) } else { 0.0 };
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of messages")]
    fn report(&self, second: u64) -> Report {
        Report {
            taken: second,
            work: (self.queue + self.delivering.iter().sum::<f64>()).round() as u64,
            deferred: self.deferred as u64,
            done: self.done as u64,
            waiting: self.history.front().map_or(0, |(arrived, _)| second - arrived),
        }
    }
}

fn spread(how: Spread, arriving: f64, weights: &[u32], servers: &[Server]) -> Vec<f64> {
    const ACTIVE: f64 = 256.0;
    let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    if how == Spread::Wrr {
        return weights.iter().map(|weight| arriving * f64::from(*weight) / total.max(1.0)).collect();
    }
    // New connections go where the least are for the weight, until all that got some are level.
    let level_of = |index: usize| servers[index].inactive / f64::from(weights[index]);
    let mut order: Vec<usize> = (0..weights.len()).filter(|index| weights[*index] > 0).collect();
    order.sort_by(|a, b| level_of(*a).total_cmp(&level_of(*b)));
    let (mut inactive, mut weight, mut level) = (0.0, 0.0, f64::INFINITY);
    for index in order {
        if level_of(index) >= level {
            break;
        }
        inactive += servers[index].inactive;
        weight += f64::from(weights[index]);
        level = (ACTIVE * arriving + inactive) / weight;
    }
    let part =
        |index: usize| ((level * f64::from(weights[index]) - servers[index].inactive) / ACTIVE).max(0.0);
    (0..weights.len()).map(|index| if weights[index] > 0 { part(index) } else { 0.0 }).collect()
}

/// A number that chance makes of this many: Poisson's distribution, or a normal one that is near it.
fn by_chance(mean: f64, chance: Chance, rng: &mut Rng) -> f64 {
    if chance == Chance::None || mean <= 0.0 {
        return mean;
    }
    if mean > 20.0 {
        let normal = (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0;
        return (mean + mean.sqrt() * normal).round().max(0.0);
    }
    let limit = (-mean).exp();
    let (mut product, mut count) = (rng.f64(), 0.0);
    while product > limit {
        product *= rng.f64();
        count += 1.0;
    }
    count
}

impl Course {
    /// Changes of a server's weight, and how many of them went against the one before.
    pub(crate) fn writes(&self, server: usize) -> (usize, usize) {
        let (mut writes, mut flips, mut was, mut rose) = (0, 0, 100, None);
        for weight in &self.weights[server] {
            if *weight != was {
                writes += 1;
                let up = *weight > was;
                flips += usize::from(rose.is_some_and(|rose| rose != up));
                (was, rose) = (*weight, Some(up));
            }
        }
        (writes, flips)
    }

    /// Of all servers.
    pub(crate) fn all_writes(&self) -> (usize, usize) {
        (0..self.weights.len())
            .map(|s| self.writes(s))
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// The deepest queue of a server.
    pub(crate) fn deepest(&self, server: usize) -> f64 {
        self.queues[server].iter().copied().fold(0.0, f64::max)
    }

    pub(crate) fn deepest_of_all(&self) -> f64 {
        (0..self.queues.len()).map(|server| self.deepest(server)).fold(0.0, f64::max)
    }

    /// Weights of a server from one second to another.
    pub(crate) fn weights_in(&self, server: usize, from: u64, to: u64) -> Vec<f64> {
        let pairs = self.seconds.iter().zip(&self.weights[server]);
        pairs
            .filter(|(second, _)| (from..to).contains(*second))
            .map(|(_, weight)| f64::from(*weight))
            .collect()
    }

    /// Seconds after `from` at which the server had this weight and kept it.
    pub(crate) fn has_for_good(&self, server: usize, weight: u32, from: u64) -> Option<u64> {
        let pairs = self.seconds.iter().zip(&self.weights[server]);
        let before = pairs.filter(|(_, has)| **has < weight).map(|(second, _)| *second).max().unwrap_or(0);
        let after = self.seconds.iter().find(|second| **second > before)?;
        Some(after.saturating_sub(from))
    }

    /// Seconds that the 99th of 100 messages waits.
    pub(crate) fn slowest(&self) -> f64 {
        let mut waits = self.waits.clone();
        waits.sort_by(|a, b| a.0.total_cmp(&b.0));
        let all: f64 = waits.iter().map(|(_, messages)| messages).sum();
        let mut so_far = 0.0;
        let late = waits.iter().find(|(_, messages)| {
            so_far += messages;
            so_far >= all * 0.99
        });
        late.map_or(0.0, |(wait, _)| *wait)
    }
}

/// Mean and standard deviation.
pub(crate) fn spread_of(values: &[f64]) -> (f64, f64) {
    #[expect(clippy::cast_precision_loss, reason = "some thousand ticks")]
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    (mean, (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt())
}
