//! The laws under trial: ours, and those that it has to beat.
//!
//! Owns what each peer does with a report. Refuses to know farms.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use smtp_director::model::{RealId, Weight};
use smtp_director::weight::curve::{Band, Percent};
use smtp_director::weight::law::{Input, Law, LawConfig, QueueLaw, Steps};
use smtp_director::weight::parts::{Check, Parts};
use smtp_director::weight::signal::Queue;

use super::farm::{Report, Seen, Weigher};

/// Ours.
pub(crate) struct Ours {
    law: Law,
    start: Instant,
    pub(crate) said: Vec<Parts>,
}

impl Ours {
    pub(crate) fn new(config: LawConfig) -> Self {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start")]
        let start = Instant::now();
        Self { law: Law::new(config), start, said: Vec::new() }
    }

    pub(crate) fn at(&self, second: u64) -> Instant {
        self.start + Duration::from_secs(second)
    }
}

/// What a file with `queue = { full_at, floor_at, interval }` has, in seconds.
pub(crate) fn config(full_at: f64, floor_at: f64, interval: f64) -> LawConfig {
    let seconds = Duration::from_secs_f64;
    LawConfig {
        queue: Some(QueueLaw {
            band: Band { full_at: seconds(full_at), floor_at: seconds(floor_at) },
            interval: seconds(interval),
        }),
        latency: None,
        slow_start: Duration::from_secs(120),
        steps: Steps::Fine,
        floor: 50,
    }
}

pub(crate) fn real(index: usize) -> RealId {
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    RealId(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + index)), 25))
}

impl Weigher for Ours {
    fn tick(&mut self, second: u64, seen: &[Seen]) -> Vec<u32> {
        let queue = |report: Report| Queue {
            taken: self.at(report.taken),
            work: report.work,
            deferred: Some(report.deferred),
            done: Some(report.done),
            rate: None,
            waiting: Some(Duration::from_secs(report.waiting)),
        };
        let input = |(index, seen): (usize, &Seen)| Input {
            id: real(index),
            base: Weight(100),
            check: if seen.serves { Check::Part(Percent::ALL) } else { Check::Out },
            agent: None,
            queue: seen.report.map(queue),
            banner: Some(Duration::from_secs_f64(seen.banner)),
        };
        let inputs: Vec<Input> = seen.iter().enumerate().map(input).collect();
        self.said = self.law.tick(self.at(second), &inputs);
        let weight =
            |(parts, seen): (&Parts, &Seen)| if seen.serves { u32::from(parts.factor.get()) } else { 0 };
        self.said.iter().zip(seen).map(weight).collect()
    }
}

/// Weights as they are in the file.
pub(crate) struct Static;

impl Weigher for Static {
    fn tick(&mut self, _second: u64, seen: &[Seen]) -> Vec<u32> {
        vec![100; seen.len()]
    }
}

/// What leaves a queue, smoothed over a minute, and the seconds to empty it.
#[derive(Clone, Default)]
struct Drain {
    rate: Option<f64>,
    last: Option<Report>,
}

impl Drain {
    #[expect(clippy::cast_precision_loss, reason = "counts of messages")]
    fn seconds(&mut self, report: Option<Report>) -> (f64, f64) {
        let Some(report) = report else { return (0.0, 0.0) };
        if let Some(last) = self.last.filter(|last| last.taken < report.taken) {
            let passed = (report.taken - last.taken) as f64;
            let rate = (report.done - last.done) as f64 / passed;
            let known = self.rate.unwrap_or(rate);
            self.rate = Some(known + (rate - known) * (1.0 - (-passed / 60.0).exp()));
        }
        self.last = Some(report);
        (report.work as f64 / self.rate.unwrap_or(1.0).max(1.0), report.waiting as f64)
    }
}

/// Out beyond this many seconds of backlog, in below.
pub(crate) struct OnOff(pub(crate) f64, Vec<Drain>);

impl OnOff {
    pub(crate) fn new(servers: usize, limit: f64) -> Self {
        Self(limit, vec![Drain::default(); servers])
    }
}

impl Weigher for OnOff {
    fn tick(&mut self, _second: u64, seen: &[Seen]) -> Vec<u32> {
        let Self(limit, drains) = self;
        let weigh = |(seen, drain): (&Seen, &mut Drain)| {
            if drain.seconds(seen.report).0 > *limit { 1 } else { 100 }
        };
        seen.iter().zip(drains).map(weigh).collect()
    }
}

/// The dynamic feedback of LVS (Wensong Zhang): `w += 5 cbrt(0.95 - load)`, where a minute of backlog is a load of 1.
pub(crate) struct Zhang(Vec<(Drain, f64, u32)>);

impl Zhang {
    pub(crate) fn new(servers: usize) -> Self {
        Self(vec![(Drain::default(), 100.0, 100); servers])
    }
}

impl Weigher for Zhang {
    fn tick(&mut self, _second: u64, seen: &[Seen]) -> Vec<u32> {
        let weigh = |(seen, (drain, weight, written)): (&Seen, &mut (Drain, f64, u32))| {
            let load = (drain.seconds(seen.report).0 / 60.0).min(2.0);
            *weight = (*weight + 5.0 * (0.95 - load).cbrt()).clamp(1.0, 100.0);
            let next = whole(*weight);
            if next.abs_diff(*written) >= 2 {
                *written = next;
            }
            *written
        };
        seen.iter().zip(&mut self.0).map(weigh).collect()
    }
}

/// One ramp from 10 s to `1`, by the larger of age and backlog over the median; quick down, slow up, limited steps.
pub(crate) struct Ramp(pub(crate) f64, Vec<(Drain, f64, u32)>, u64);

impl Ramp {
    pub(crate) fn new(servers: usize, to: f64) -> Self {
        Self(to, vec![(Drain::default(), 1.0, 100); servers], 0)
    }
}

impl Weigher for Ramp {
    #[expect(clippy::cast_precision_loss, reason = "seconds of a simulation")]
    fn tick(&mut self, second: u64, seen: &[Seen]) -> Vec<u32> {
        let Self(to, servers, before) = self;
        let passed = (second - *before) as f64;
        *before = second;
        let read = |(seen, (drain, ..)): (&Seen, &mut (Drain, f64, u32))| {
            let (backlog, age) = drain.seconds(seen.report);
            backlog.max(age)
        };
        let waits: Vec<f64> = seen.iter().zip(servers.iter_mut()).map(read).collect();
        let mut sorted = waits.clone();
        sorted.sort_by(f64::total_cmp);
        let median = f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        let weigh = |(wait, (_, factor, written)): (f64, &mut (Drain, f64, u32))| {
            let aim = 1.0 - 0.95 * (((wait - median) - 10.0) / (*to - 10.0)).clamp(0.0, 1.0);
            let time = if aim < *factor { 10.0 } else { 60.0 };
            *factor += ((aim - *factor) * (1.0 - (-passed / time).exp())).clamp(-0.25, 0.10);
            let next = whole(*factor * 100.0).max(1);
            let worth = (*written / 10).max(2);
            if next.abs_diff(*written) >= worth || next == 100 {
                *written = next;
            }
            *written
        };
        waits.into_iter().zip(servers).map(weigh).collect()
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 100")]
fn whole(weight: f64) -> u32 {
    weight.round() as u32
}
