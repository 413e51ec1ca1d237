//! When work is started: the two load models, and when it ends.
//!
//! Owns the absolute schedule of the open model: constant, ramp, steps, spike, evenly or Poisson, and which of its
//! arrivals are this worker's. Refuses to know clocks, sockets and what an arrival is. Cannot fail; what cannot be
//! parsed is named.
//!
//! The time of an arrival depends on the plan and its seed alone, never on what became of the one before: that is what
//! keeps a stalled server from hiding its stall (coordinated omission).

use std::time::Duration;

/// Nanoseconds since the start of the run.
pub type Nanos = u64;

const SECOND: f64 = 1e9;
/// No schedule is faster than this, in arrivals a second.
pub const MAX_RATE: f64 = 10_000_000.0;

/// How arrivals lie between the times that the profile gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrivals {
    /// At even distances.
    #[default]
    Uniform,
    /// As from many clients who do not know of each other.
    Poisson,
    /// At distances that are up to a tenth shorter or longer.
    Jitter,
}

/// A time with a rate that stands or moves evenly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Segment {
    /// Arrivals a second at its start.
    pub from: f64,
    /// And at its end.
    pub to: f64,
    /// Seconds; may be infinite in the last one.
    pub seconds: f64,
}

impl Segment {
    fn arrivals(self) -> f64 {
        let mean = f64::midpoint(self.from, self.to);
        if mean == 0.0 { 0.0 } else { mean * self.seconds }
    }

    /// Seconds after which `count` have arrived, which is at most [`Segment::arrivals`].
    fn when(self, count: f64) -> f64 {
        let slope = (self.to - self.from) / self.seconds;
        if slope == 0.0 {
            return count / self.from;
        }
        // Of the two forms of the quadratic's root the one that does not cancel.
        2.0 * count / (self.from + (self.from * self.from + 2.0 * slope * count).max(0.0).sqrt())
    }
}

/// Rates over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile(Vec<Segment>);

impl Profile {
    /// The same rate without end.
    #[must_use]
    pub fn constant(rate: f64) -> Self {
        Self(vec![Segment { from: rate, to: rate, seconds: f64::INFINITY }])
    }

    /// Reads `const:200/s,60s`, `ramp:0..500/s,2m`, `step:100..500/s,5,1m` (five steps, a minute each) and
    /// `spike:100/s,1000/s,10s,60s` (base, peak, how long, in the middle of), joined by `;`.
    ///
    /// # Errors
    /// Which part is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut segments = Vec::new();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = || {
                format!(
                    "\"{part}\" is none of const:R/s,TIME  ramp:A..B/s,TIME  step:A..B/s,N,TIME  spike:BASE/s,PEAK/s,FOR,TIME"
                )
            };
            let (kind, rest) = part.split_once(':').ok_or_else(wrong)?;
            let words: Vec<&str> = rest.split(',').map(str::trim).collect();
            match (kind.trim(), words.as_slice()) {
                ("const", [r, time]) => segments.push(flat(rate(r)?, seconds(time)?)),
                ("ramp", [ends, time]) => {
                    let (from, to) = span(ends).ok_or_else(wrong)??;
                    segments.push(Segment { from, to, seconds: seconds(time)? });
                }
                ("step", [ends, steps, time]) => {
                    let (from, to) = span(ends).ok_or_else(wrong)??;
                    let steps: u32 =
                        steps.parse().ok().filter(|n| (2..=1000).contains(n)).ok_or_else(wrong)?;
                    let time = seconds(time)?;
                    let height = (to - from) / f64::from(steps - 1);
                    segments.extend((0..steps).map(|n| flat(f64::from(n).mul_add(height, from), time)));
                }
                ("spike", [base, peak, lasts, time]) => {
                    let (base, peak, lasts, time) =
                        (rate(base)?, rate(peak)?, seconds(lasts)?, seconds(time)?);
                    if lasts > time {
                        return Err(wrong());
                    }
                    let around = (time - lasts) / 2.0;
                    segments.extend([flat(base, around), flat(peak, lasts), flat(base, around)]);
                }
                _ => return Err(wrong()),
            }
        }
        segments.retain(|segment| segment.seconds > 0.0);
        let some = segments.iter().any(|segment| segment.arrivals() > 0.0);
        if some { Ok(Self(segments)) } else { Err("the profile has no arrivals in it".to_owned()) }
    }

    /// How long it lasts; `None`: without end.
    #[must_use]
    pub fn length(&self) -> Option<Duration> {
        let seconds: f64 = self.0.iter().map(|segment| segment.seconds).sum();
        Duration::try_from_secs_f64(seconds).ok()
    }
}

fn flat(rate: f64, seconds: f64) -> Segment {
    Segment { from: rate, to: rate, seconds }
}

fn span(text: &str) -> Option<Result<(f64, f64), String>> {
    let (from, to) = text.split_once("..")?;
    let unit = to.find('/').map_or("", |at| to.get(at..).unwrap_or_default());
    let from = if from.contains('/') { rate(from) } else { rate(&format!("{from}{unit}")) };
    Some(from.and_then(|from| Ok((from, rate(to)?))))
}

/// Reads `300/s`, `18000/m`, `100/h` or `300`, as arrivals a second.
///
/// # Errors
/// What is wrong with it.
pub fn rate(text: &str) -> Result<f64, String> {
    let (number, unit) = text.trim().split_once('/').unwrap_or((text.trim(), "s"));
    let per = match unit.trim() {
        "s" | "sec" | "second" => 1.0,
        "m" | "min" | "minute" => 60.0,
        "h" | "hour" => 3600.0,
        _ => return Err(format!("\"{text}\" is no rate: N/s, N/m or N/h")),
    };
    let rate = number.trim().parse::<f64>().ok().map(|number| number / per);
    rate.filter(|rate| (0.0..=MAX_RATE).contains(rate))
        .ok_or_else(|| format!("\"{text}\" is no rate between 0 and {MAX_RATE} a second"))
}

fn seconds(text: &str) -> Result<f64, String> {
    time(text).map(|time| time.as_secs_f64())
}

/// Reads `60s`, `5m`, `250ms`, or seconds as a bare number.
///
/// # Errors
/// What is wrong with it.
pub fn time(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(number).map_err(|_| format!("\"{text}\" is no time"));
    }
    humantime::parse_duration(text).map_err(|error| format!("\"{text}\" is no time: {error}"))
}

/// When the run starts nothing more; whichever comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stop {
    /// After so many arrivals of all workers.
    pub count: Option<u64>,
    /// After so long.
    pub time: Option<Duration>,
}

/// Which arrivals are ours: those whose number leaves `index` when divided by `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// 0 to `of - 1`.
    pub index: u64,
    /// At least 1.
    pub of: u64,
}

impl Share {
    /// The part of `whole` that is this share's; the parts of all shares are the whole.
    #[must_use]
    pub fn part(self, whole: u64) -> u64 {
        whole / self.of + u64::from(whole % self.of > self.index)
    }
}

/// One unit of work that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its number in the whole plan, over all workers.
    pub number: u64,
    /// When it is due.
    pub at: Nanos,
}

/// The arrivals of one share, in order.
#[derive(Clone, Debug)]
pub struct Schedule {
    segments: std::vec::IntoIter<Segment>,
    segment: Segment,
    /// Arrivals and nanoseconds before the present segment.
    before: f64,
    start: f64,
    arrivals: Arrivals,
    random: fastrand::Rng,
    /// The number of the next arrival, and its place in the integral of the rate.
    number: u64,
    place: f64,
    stop: Stop,
    share: Share,
    next: Option<Arrival>,
}

impl Schedule {
    /// The part of `share`. All shares of one plan must be given the same `seed`.
    #[must_use]
    pub fn new(profile: &Profile, arrivals: Arrivals, seed: u64, (stop, share): (Stop, Share)) -> Self {
        let mut segments = profile.0.clone().into_iter();
        let segment = segments.next().unwrap_or(flat(0.0, 0.0));
        let mut random = fastrand::Rng::with_seed(seed);
        let place = if arrivals == Arrivals::Poisson { gap(&mut random) } else { 0.0 };
        let mut schedule = Self {
            segments,
            segment,
            before: 0.0,
            start: 0.0,
            arrivals,
            random,
            number: 0,
            place,
            stop,
            share,
            next: None,
        };
        schedule.next = schedule.advance();
        schedule
    }

    /// The next arrival, which stays.
    #[must_use]
    pub fn peek(&self) -> Option<Arrival> {
        self.next
    }

    fn advance(&mut self) -> Option<Arrival> {
        loop {
            let Arrival { number, at } = self.any()?;
            if number % self.share.of == self.share.index {
                return Some(Arrival { number, at });
            }
        }
    }

    /// The next arrival of whatever share.
    fn any(&mut self) -> Option<Arrival> {
        if self.stop.count.is_some_and(|count| self.number >= count) {
            return None;
        }
        while self.place - self.before >= self.segment.arrivals() {
            self.before += self.segment.arrivals();
            self.start += self.segment.seconds * SECOND;
            self.segment = self.segments.next()?;
        }
        let at = self.segment.when(self.place - self.before).mul_add(SECOND, self.start);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "584 years fit; never negative"
        )]
        let at = at as Nanos;
        if self.stop.time.is_some_and(|time| u128::from(at) >= time.as_nanos()) {
            return None;
        }
        let arrival = Arrival { number: self.number, at };
        self.number += 1;
        self.place += match self.arrivals {
            Arrivals::Uniform => 1.0,
            Arrivals::Poisson => gap(&mut self.random),
            Arrivals::Jitter => self.random.f64().mul_add(0.2, 0.9),
        };
        Some(arrival)
    }
}

impl Iterator for Schedule {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        let next = self.next?;
        self.next = self.advance();
        Some(next)
    }
}

/// An exponential distance with mean 1.
fn gap(random: &mut fastrand::Rng) -> f64 {
    -(1.0 - random.f64()).ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: Share = Share { index: 0, of: 1 };

    fn times(profile: &str, seconds: u64) -> Vec<Nanos> {
        let stop = Stop { count: None, time: Some(Duration::from_secs(seconds)) };
        let profile = Profile::parse(profile).unwrap();
        Schedule::new(&profile, Arrivals::Uniform, 1, (stop, ALL)).map(|arrival| arrival.at).collect()
    }

    #[test]
    fn a_rate_is_met_exactly_at_any_speed() {
        for rate in [1.0, 150.0, 300.0, 400.0, 600.0, 900.0, 1000.0, 5000.0, 20_000.0] {
            let stop = Stop { count: None, time: Some(Duration::from_secs(10)) };
            let count = Schedule::new(&Profile::constant(rate), Arrivals::Uniform, 1, (stop, ALL)).count();
            assert!((count as f64 - rate * 10.0).abs() <= 1.0, "{rate}: {count}");
        }
    }

    #[test]
    fn profiles_have_the_arrivals_of_their_area() {
        for (profile, count) in [
            ("const:200/s,60s", 12_000),
            ("ramp:0..500/s,120s", 30_000),
            ("ramp:500..0/s,2m", 30_000),
            ("step:100..500/s,5,10s", 15_000),
            ("spike:100/s,1000/s,10s,60s", 15_000),
            ("const:60/m,10s; ramp:1/s..3/s,10s", 30),
        ] {
            let times = times(profile, 1000);
            assert!(times.len().abs_diff(count) <= 1, "{profile}: {}", times.len());
            assert!(times.is_sorted());
        }
        // Half of a ramp's area lies in its last 29 %.
        let ramp = times("ramp:0..100/s,100s", 1000);
        assert!(ramp[ramp.len() / 2].abs_diff(70_710_678_118) < 100_000_000, "{}", ramp[ramp.len() / 2]);
    }

    #[test]
    fn what_is_no_profile_is_named() {
        for text in [
            "",
            "const:0/s,5s",
            "const:1/s",
            "ramp:5,1s",
            "step:1..2/s,1,5s",
            "spike:1/s,2/s,9s,5s",
            "x:1",
            "const:1/d,5s",
        ] {
            assert!(Profile::parse(text).is_err(), "{text}");
        }
        assert!(rate("-1").is_err() && rate("NaN").is_err() && rate("inf").is_err());
    }

    proptest! {
        #[test]
        fn the_shares_of_a_plan_are_the_plan(of in 1u64..7, seed: u64, poisson: bool, count in 0u64..500) {
            let arrivals = if poisson { Arrivals::Poisson } else { Arrivals::Uniform };
            let stop = Stop { count: Some(count), time: None };
            let profile = Profile::parse("ramp:0..50/s,3s;const:100/s,1h").unwrap();
            let plan = |share| Schedule::new(&profile, arrivals, seed, (stop, share));
            let mut parts: Vec<_> = (0..of).flat_map(|index| plan(Share { index, of })).collect();
            parts.sort_by_key(|arrival| arrival.number);
            prop_assert_eq!(parts, plan(ALL).collect::<Vec<_>>());
            prop_assert_eq!((0..of).map(|index| Share { index, of }.part(count)).sum::<u64>(), count);
        }

        #[test]
        fn poisson_meets_its_rate_in_the_mean(seed: u64) {
            let stop = Stop { count: None, time: Some(Duration::from_secs(20)) };
            let count = Schedule::new(&Profile::constant(1000.0), Arrivals::Poisson, seed, (stop, ALL)).count();
            // Six standard deviations.
            prop_assert!(count.abs_diff(20_000) < 850, "{}", count);
        }
    }
}
