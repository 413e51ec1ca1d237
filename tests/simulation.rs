//! The weight law in farms that go wrong: what holds whatever the seed.
//!
//! `SIMULATION_SEEDS=200` tries so many of each instead of a few. The model is in `simulation/farm.rs`; `tests/bench/law`
//! prints the law beside others.

#[path = "simulation/farm.rs"]
mod farm;
#[path = "simulation/laws.rs"]
mod laws;

use std::time::Duration;

use fastrand::Rng;
use smtp_director::model::Weight;
use smtp_director::weight::curve::{Band, COARSE, Percent};
use smtp_director::weight::law::{Input, Law, LawConfig, Steps};
use smtp_director::weight::parts::Check;
use smtp_director::weight::signal::Queue;

use farm::{Course, FROM, Report, Scenario, Seen, Spread, TO, Weigher, in_fault, run, spread_of};
use laws::{OnOff, Ours, Ramp, Static, Zhang, config, real};

/// The default of `queue = {}`.
fn default() -> LawConfig {
    config(10.0, 60.0, 10.0)
}

fn seeds(usual: u64) -> std::ops::Range<u64> {
    let asked = std::env::var("SIMULATION_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    0..asked.unwrap_or(usual)
}

fn course(scenario: &Scenario, seed: u64) -> Course {
    run(scenario, &mut Ours::new(default()), seed)
}

/// All but the first `faulty` servers had at least this weight, always.
fn others_kept(course: &Course, faulty: usize, weight: u32) -> bool {
    course.weights.iter().skip(faulty).flatten().all(|has| *has >= weight)
}

#[test]
fn a_slow_server_has_a_short_queue_and_a_steady_weight() {
    for seed in seeds(40) {
        let mut rng = Rng::with_seed(seed);
        let servers = [2, 3, 4, 8, 16][rng.usize(..5)];
        let speed = 0.2 + rng.f64() * 0.4;
        let spread = if rng.bool() { Spread::Wrr } else { Spread::Wlc };
        let scenario =
            Scenario { load: 0.4 + rng.f64() * 0.2, spread, ..Scenario::of(servers).first_at(speed) };
        let told = format!(
            "seed {seed}: {servers} servers, one at {speed:.2}, load {:.2}, {spread:?}",
            scenario.load
        );
        let course = course(&scenario, seed);
        // A minute of what it delivers, and what comes in the two intervals that a change takes to be seen.
        let bound = 60.0 * 50.0 * speed + 2.0 * 10.0 * 50.0 * scenario.load;
        assert!(course.deepest(0) < bound, "{told}: {:.0} messages, bound {bound:.0}", course.deepest(0));
        let (writes, turns) = course.writes(0);
        assert!(writes <= 45 && turns <= 22, "{told}: {writes} writes, {turns} turns");
        let (mean, spread) = spread_of(&course.weights_in(0, FROM + 600, TO));
        assert!(spread < mean * 0.4, "{told}: weight {mean:.0}, spread {spread:.1}");
        assert!(others_kept(&course, 1, 100), "{told}: a healthy server lost weight");
        let back = course.has_for_good(0, 100, TO);
        assert!(back.is_some_and(|seconds| seconds <= 900), "{told}: back after {back:?} s");
    }
}

#[test]
fn a_server_that_delivers_nothing_is_left_with_the_least_within_a_minute() {
    for seed in seeds(20) {
        let scenario = Scenario { load: 0.6, seconds: 2_400, ..Scenario::of(4).first_at(0.0) };
        let mut law = Ours::new(default());
        let course = run(&scenario, &mut law, seed);
        let after = course.weights_in(0, FROM + 60, 2_400);
        assert!(after.iter().all(|weight| *weight <= 2.0), "seed {seed}: {after:?}");
        assert!(others_kept(&course, 1, 100), "seed {seed}");
        // A static share is 30 a second for half an hour, 54,000.
        assert!(course.deepest(0) < 54_000.0 / 30.0, "seed {seed}: {:.0} stranded", course.deepest(0));
        let why = law.said[0].why((Weight(100), Weight(1)), "");
        assert!(why.starts_with("1 of 100: queue 1% (") && why.contains("nothing leaves since"), "{why}");
    }
}

#[test]
fn one_that_puts_off_what_others_deliver_gets_little() {
    for seed in seeds(10) {
        let defers = |server: usize, second: u64| if server == 0 && in_fault(second) { 1.0 } else { 0.05 };
        let scenario = Scenario { load: 0.5, defers: Box::new(defers), ..Scenario::of(4) };
        let mut law = Ours::new(default());
        let course = run(&scenario, &mut law, seed);
        let after = course.weights_in(0, FROM + 180, TO);
        assert!(after.iter().all(|weight| *weight <= 20.0), "seed {seed}: {after:?}");
        assert!(others_kept(&course, 1, 100), "seed {seed}");
        assert!(course.has_for_good(0, 100, TO).is_some_and(|seconds| seconds <= 900), "seed {seed}");

        let all = Scenario {
            load: 0.5,
            defers: Box::new(|_, second| if in_fault(second) { 1.0 } else { 0.05 }),
            ..Scenario::of(4)
        };
        let (writes, _) = self::course(&all, seed).all_writes();
        assert!(writes <= 4, "seed {seed}: {writes} writes, and what all defer is nobody's fault");
    }
}

#[test]
fn what_all_suffer_from_changes_no_weight() {
    let slow = |_: usize, second: u64| if in_fault(second) { 0.35 } else { 1.0 };
    for seed in seeds(10) {
        for (what, most, scenario) in [
            ("all well", 0, Scenario { load: 0.8, ..Scenario::of(4) }),
            ("all slow", 8, Scenario { speed: Box::new(slow), ..Scenario::of(4) }),
            ("overloaded", 8, Scenario { load: 1.1, ..Scenario::of(3) }),
            (
                "hardly used",
                10,
                Scenario { capacity: vec![2.0; 4], load: 0.3, delivery: 10, ..Scenario::of(4) },
            ),
            ("alone", 0, Scenario { load: 1.2, ..Scenario::of(1) }),
        ] {
            let (writes, _) = course(&scenario, seed).all_writes();
            // In 90 minutes some messages gather by chance.
            assert!(writes <= most, "seed {seed}, {what}: {writes} writes");
        }
    }
}

#[test]
fn unequal_hardware_finds_its_weights() {
    for seed in seeds(10) {
        let capacity = vec![25.0, 50.0, 75.0, 100.0];
        let course = course(&Scenario { capacity, ..Scenario::of(4) }, seed);
        let (mean, spread) = spread_of(&course.weights_in(0, 1_800, 5_400));
        // The two that are never full get 56 a second each, and it can deliver 25.
        assert!((35.0..55.0).contains(&mean) && spread < 12.0, "seed {seed}: {mean:.0}, {spread:.1}");
        let (writes, turns) = course.all_writes();
        assert!(writes <= 90 && turns <= 60, "seed {seed}: {writes} writes, {turns} turns");
        assert!(course.deepest(0) < 60.0 * 25.0, "seed {seed}: {:.0}", course.deepest(0));
    }
}

#[test]
fn a_flapping_server_is_trusted_less_each_time() {
    for seed in seeds(10) {
        let flaps = |server: usize, second: u64| {
            if server == 0 && in_fault(second) && (second / 60).is_multiple_of(2) { 0.1 } else { 1.0 }
        };
        let scenario = Scenario { load: 0.6, speed: Box::new(flaps), ..Scenario::of(4) };
        let course = course(&scenario, seed);
        let (early, late) = (course.weights_in(0, FROM, FROM + 600), course.weights_in(0, FROM + 600, TO));
        assert!(spread_of(&late).0 < spread_of(&early).0, "seed {seed}");
        // Fifty changes of the server in that time.
        let (writes, turns) = course.writes(0);
        assert!(writes <= 150 && turns <= 49, "seed {seed}: {writes} writes, {turns} turns");
        assert!(course.deepest(0) < 700.0, "seed {seed}: {:.0}", course.deepest(0));
        assert!(others_kept(&course, 1, 100), "seed {seed}");
    }
}

#[test]
fn a_silent_agent_is_held_for_three_intervals_and_then_neutral() {
    const LOST: u64 = TO + 30;
    for seed in seeds(10) {
        let lose = |server: usize, second: u64, report| (server != 0 || second < LOST).then_some(report);
        let scenario = Scenario { load: 0.5, report: Box::new(lose), ..Scenario::of(4).first_at(0.2) };
        let course = course(&scenario, seed);
        let before = *course.weights_in(0, FROM, LOST).last().unwrap();
        assert!(before < 90.0, "seed {seed}: {before}, it is on its way back");
        // Two more come before it is held: it is no news that a report is an interval old.
        let held = course.weights_in(0, LOST + 10, LOST + 30);
        assert!(held.windows(2).all(|pair| pair[0] == pair[1]), "seed {seed}: {held:?}");
        let later = course.weights_in(0, LOST + 30, 5_400);
        assert!(later.windows(2).all(|pair| pair[0] <= pair[1]), "seed {seed}: {later:?}");
        assert_eq!(later.last(), Some(&100.0), "seed {seed}");
        assert!(others_kept(&course, 1, 100), "seed {seed}: no report is no empty queue");
    }
}

#[test]
fn a_blind_director_changes_nothing_at_first_and_ends_with_the_file() {
    const BLIND: u64 = TO + 30;
    for seed in seeds(10) {
        let lose = |_: usize, second: u64, report| (second < BLIND).then_some(report);
        let scenario = Scenario { load: 0.5, report: Box::new(lose), ..Scenario::of(4).first_at(0.2) };
        let course = course(&scenario, seed);
        let held = course.weights_in(0, BLIND + 10, BLIND + 30);
        assert!(held.windows(2).all(|pair| pair[0] == pair[1]), "seed {seed}: {held:?}");
        assert!(course.weights.iter().all(|weights| weights.last() == Some(&100)), "seed {seed}");
        assert!(others_kept(&course, 1, 100), "seed {seed}");
    }
}

#[test]
fn clocks_that_step_change_no_weight() {
    let hour = 3_600;
    for seed in seeds(10) {
        // The ages are all that a box reads off a clock of its own. It leaps forward, and is put back later.
        let step = move |server: usize, second: u64, report: Report| {
            let waiting =
                if server == 0 && in_fault(second) { report.waiting + hour } else { report.waiting };
            Some(Report { waiting, ..report })
        };
        let scenario = Scenario { load: 0.6, report: Box::new(step), ..Scenario::of(4) };
        assert_eq!(course(&scenario, seed).all_writes(), (0, 0), "seed {seed}");
    }
}

#[test]
fn an_absurd_report_is_no_report() {
    let mut law = Ours::new(default());
    let later = Duration::from_secs(3_600);
    for (what, absurd) in [
        ("from the future", Queue { taken: law.at(90) + later, ..absurd(&law) }),
        ("overflow", Queue { work: u64::MAX, ..absurd(&law) }),
        ("deferred overflow", Queue { work: 0, deferred: Some(u64::MAX), ..absurd(&law) }),
        ("not a rate", Queue { done: None, rate: Some(f64::NAN), ..absurd(&law) }),
        ("a negative rate", Queue { done: None, rate: Some(-1.0), ..absurd(&law) }),
        ("a rate without end", Queue { done: None, rate: Some(f64::INFINITY), ..absurd(&law) }),
        ("an age without end", Queue { done: None, waiting: Some(Duration::MAX), ..absurd(&law) }),
    ] {
        law = Ours::new(default());
        let mut one = Law::new(default());
        for tick in 0..60 {
            let now = law.at(tick * 10);
            let good = Queue {
                taken: now,
                work: 3,
                deferred: Some(0),
                done: Some(tick * 100),
                rate: None,
                waiting: None,
            };
            let taken = if absurd.taken > law.at(90) { now + later } else { now };
            let input = |index: usize, queue: Queue| Input {
                id: real(index),
                base: Weight(100),
                check: Check::Part(Percent::ALL),
                agent: None,
                queue: Some(queue),
                banner: None,
            };
            let parts = one.tick(now, &[input(0, Queue { taken, ..absurd }), input(1, good), input(2, good)]);
            let factors: Vec<u8> = parts.iter().map(|parts| parts.factor.get()).collect();
            assert_eq!(factors, [100; 3], "{what}, tick {tick}");
        }
    }
}

/// A report that would cost its server all weight, were it true.
fn absurd(law: &Ours) -> Queue {
    Queue { taken: law.at(0), work: 900_000, deferred: None, done: Some(7), rate: None, waiting: None }
}

#[test]
fn a_server_that_comes_back_starts_slowly_and_those_that_stayed_do_not() {
    for seed in seeds(5) {
        let serves = |server: usize, second: u64| server != 0 || !(600..900).contains(&second);
        let course = course(
            &Scenario { load: 0.5, seconds: 1_800, serves: Box::new(serves), ..Scenario::of(4) },
            seed,
        );
        assert_eq!(course.weights_in(0, 0, 600).first(), Some(&100.0), "there from the start");
        assert_eq!(course.weights_in(0, 900, 910), [10.0], "seed {seed}");
        let rising = course.weights_in(0, 900, 1_020);
        assert!(
            rising.windows(2).all(|pair| pair[0] <= pair[1]) && rising.iter().all(|weight| *weight < 100.0)
        );
        assert_eq!(
            course.weights_in(0, 1_020, 1_800).iter().copied().fold(100.0, f64::min),
            100.0,
            "seed {seed}"
        );
        assert!(others_kept(&course, 1, 100), "seed {seed}");
    }
}

#[test]
fn a_hashing_scheduler_gets_three_steps_and_few_changes() {
    let coarse = LawConfig { steps: Steps::Coarse, ..default() };
    for seed in seeds(10) {
        let scenario = Scenario { load: 0.6, ..Scenario::of(4).first_at(0.35) };
        let course = run(&scenario, &mut Ours::new(coarse.clone()), seed);
        let steps = COARSE.map(|step| u32::from(step.get()));
        assert!(course.weights.iter().flatten().all(|weight| steps.contains(weight)), "seed {seed}");
        assert!(course.writes(0).0 <= 30, "seed {seed}: {:?}", course.writes(0));
        assert!(course.deepest(0) < 1_500.0, "seed {seed}: {:.0}", course.deepest(0));
        assert!(others_kept(&course, 1, 100), "seed {seed}");
    }
}

#[test]
fn a_late_banner_costs_weight_and_a_farm_of_late_banners_none() {
    let band = Band { full_at: Duration::from_millis(500), floor_at: Duration::from_secs(5) };
    let only_latency = LawConfig { queue: None, latency: Some(band), ..default() };
    for (banners, expected) in [
        ([50, 60, 70], [100, 100, 100]),
        ([3_000, 60, 70], [46, 100, 100]),
        ([30_000, 60, 70], [1, 100, 100]),
        ([3_000, 3_000, 3_000], [100, 100, 100]),
    ] {
        let clock = Ours::new(default());
        let mut law = Law::new(only_latency.clone());
        let input = |(index, banner): (usize, &u64)| Input {
            id: real(index),
            base: Weight(100),
            check: Check::Part(Percent::ALL),
            agent: None,
            queue: None,
            banner: Some(Duration::from_millis(*banner)),
        };
        let inputs: Vec<Input> = banners.iter().enumerate().map(input).collect();
        let last = (0..60).map(|tick| law.tick(clock.at(tick * 10), &inputs)).last().unwrap();
        let factors: Vec<u8> = last.iter().map(|parts| parts.factor.get()).collect();
        assert_eq!(factors, expected, "{banners:?}");
    }
}

#[test]
fn weights_by_the_banner_are_steady_and_few_clients_are_turned_away() {
    let band = Band { full_at: Duration::from_millis(500), floor_at: Duration::from_secs(5) };
    let law = LawConfig { queue: None, latency: Some(band), slow_start: Duration::ZERO, ..default() };
    for seed in seeds(20) {
        let mut rng = Rng::with_seed(seed);
        let servers = [2, 4, 8][rng.usize(..3)];
        // Slower, and it would not greet within the eight seconds that a check waits.
        let speed = 0.35 + rng.f64() * 0.3;
        let spread = if rng.bool() { Spread::Wrr } else { Spread::Wlc };
        let load = 0.4 + rng.f64() * 0.2;
        let scenario = || Scenario { load, spread, backlog: 100.0, ..Scenario::of(servers).first_at(speed) };
        let told = format!("seed {seed}: {servers} servers, one at {speed:.2}, load {load:.2}, {spread:?}");
        let course = run(&scenario(), &mut Ours::new(law.clone()), seed);
        let (writes, turns) = course.writes(0);
        let (mean, wide) = spread_of(&course.weights_in(0, FROM + 600, TO));
        assert!(writes <= 45 && turns <= 27, "{told}: {writes} writes, {turns} turns");
        assert!(wide < 10.0, "{told}: weight {mean:.0}, spread {wide:.1}");
        assert!(others_kept(&course, 1, 100), "{told}: a healthy server lost weight");
        let fixed = run(&scenario(), &mut Static, seed).refused;
        assert!(
            course.refused <= fixed * 0.2 + 250.0,
            "{told}: {:.0} and {fixed:.0} refused",
            course.refused
        );
        let back = course.has_for_good(0, 100, TO);
        assert!(back.is_some_and(|seconds| seconds <= 600), "{told}: back after {back:?} s");
    }
}

#[test]
fn a_queue_that_is_not_known_is_not_an_empty_one() {
    for seed in seeds(5) {
        // All are late, and one says nothing any more: beside an empty queue all others would be slow.
        let lose = |server: usize, second: u64, report| (server != 0 || second < FROM).then_some(report);
        let scenario = Scenario { load: 1.1, report: Box::new(lose), ..Scenario::of(4) };
        let (writes, _) = course(&scenario, seed).all_writes();
        assert!(writes <= 2, "seed {seed}: {writes} writes");
    }
}

/// Farms of every size, in which everything goes wrong at once.
#[test]
fn the_floor_is_kept_whatever_happens() {
    for seed in seeds(60) {
        let mut rng = Rng::with_seed(seed);
        let servers = 2 + rng.usize(..20);
        let floor = [0, 20, 50, 75, 100][rng.usize(..5)];
        let steps = if rng.bool() { Steps::Fine } else { Steps::Coarse };
        let mut law = Law::new(LawConfig { floor, steps, ..default() });
        let clock = Ours::new(default());
        let bases: Vec<u32> = (0..servers).map(|_| rng.u32(0..=100)).collect();
        let mut done = vec![0; servers];
        for tick in 0..200 {
            let now = clock.at(tick * 10);
            let mut input = |index: usize| {
                done[index] += rng.u64(..1_000);
                Input {
                    id: real(index),
                    base: Weight(bases[index]),
                    check: match rng.u8(..20) {
                        0 => Check::Out,
                        1 => Check::Unknown,
                        _ => Check::Part(Percent::nearest(1.0 - rng.f64() * rng.f64())),
                    },
                    agent: (rng.u8(..10) == 0).then(|| Percent::nearest(rng.f64())),
                    queue: (rng.u8(..5) > 0).then(|| Queue {
                        taken: now,
                        work: 1 << rng.u32(..24),
                        deferred: rng.bool().then(|| rng.u64(..10_000)),
                        done: Some(done[index]),
                        rate: None,
                        waiting: None,
                    }),
                    banner: None,
                }
            };
            let inputs: Vec<Input> = (0..servers).map(&mut input).collect();
            let parts = law.tick(now, &inputs);
            let base = |input: &Input| f64::from(input.base.0);
            let share = |input: &Input| base(input) * input.check.ratio();
            let left: f64 = inputs.iter().zip(&parts).map(|(i, p)| share(i) * p.factor.ratio()).sum();
            let allowed = inputs.iter().map(base).sum::<f64>() * f64::from(floor) / 100.0;
            let most: f64 = inputs.iter().map(share).sum();
            assert!(left >= allowed.min(most) - 1e-6, "seed {seed}, tick {tick}: {left:.1} of {allowed:.1}");
        }
    }
}

#[test]
fn a_thousand_servers_are_weighed_as_four_are() {
    for seed in seeds(1).take(10) {
        let slow = |server: usize, second: u64| if server < 20 && second >= FROM { 0.3 } else { 1.0 };
        let scenario = Scenario { load: 0.6, seconds: 1_200, speed: Box::new(slow), ..Scenario::of(1_000) };
        let course = course(&scenario, seed);
        let worst = (0..20).map(|server| course.deepest(server)).fold(0.0, f64::max);
        assert!(worst < 60.0 * 15.0 + 600.0, "seed {seed}: {worst:.0}");
        assert!(others_kept(&course, 20, 100), "seed {seed}");
    }
}

/// Where the bound in the configuration comes from: three intervals from `full_at` to `floor_at`, and reports may then
/// even come an interval late.
#[test]
fn a_band_of_three_intervals_is_steady_and_one_of_a_single_interval_swings() {
    let mean = |width: f64| {
        let (mut spread, mut writes) = (0.0, 0);
        for seed in 0..6 {
            let mut law = Ours::new(config(width / 5.0, width * 1.2, 10.0));
            let course = run(&Scenario { late: 10, ..Scenario::of(4).first_at(0.35) }, &mut law, seed);
            let (mean, deviation) = spread_of(&course.weights_in(0, FROM + 600, TO));
            spread += deviation / mean / 6.0;
            writes += course.writes(0).0;
        }
        (spread, writes / 6)
    };
    let (steady, few) = mean(30.0);
    let (swinging, many) = mean(10.0);
    assert!(steady < 0.28 && few < 75, "{steady:.2}, {few} writes");
    assert!(swinging > 0.33 && many > 110, "{swinging:.2}, {many} writes");
}

/// Asks the law each second, of reports that come every ten.
struct EachSecond(Ours, Vec<Seen>);

impl Weigher for EachSecond {
    fn tick(&mut self, second: u64, seen: &[Seen]) -> Vec<u32> {
        let Self(law, before) = self;
        if !before.is_empty() {
            for early in (1..10).rev() {
                law.tick(second - early, before);
            }
        }
        *before = seen.to_vec();
        law.tick(second, seen)
    }
}

#[test]
fn how_often_the_law_is_asked_matters_little() {
    for seed in seeds(5) {
        let course =
            run(&Scenario::of(4).first_at(0.35), &mut EachSecond(Ours::new(default()), Vec::new()), seed);
        assert!(course.deepest(0) < 1_000.0, "seed {seed}: {:.0}", course.deepest(0));
        assert!(course.writes(0).0 <= 60, "seed {seed}: {:?}", course.writes(0));
        assert!(others_kept(&course, 1, 100), "seed {seed}");
    }
}

#[test]
fn the_law_leaves_less_waiting_with_fewer_changes_than_those_before_it() {
    let scenario = Scenario::of(4).first_at(0.35);
    let told = |law: &mut dyn Weigher| {
        let course = run(&scenario, law, 1);
        (course.deepest_of_all(), course.slowest(), course.all_writes())
    };
    let (deepest, slowest, (writes, turns)) = told(&mut Ours::new(default()));
    let others: [(&str, &mut dyn Weigher); 4] = [
        ("on/off", &mut OnOff::new(4, 60.0)),
        ("feedback", &mut Zhang::new(4)),
        ("one ramp to 60 s", &mut Ramp::new(4, 60.0)),
        ("one ramp to 120 s", &mut Ramp::new(4, 120.0)),
    ];
    for (name, law) in others {
        let (their_deepest, their_slowest, (their_writes, their_turns)) = told(law);
        assert!(deepest < their_deepest * 0.85, "{name}: {deepest:.0}, {their_deepest:.0} messages");
        assert!(slowest < their_slowest, "{name}: {slowest:.0}, {their_slowest:.0} s");
        assert!(writes * 10 < their_writes * 7, "{name}: {writes}, {their_writes} writes");
        assert!(turns < their_turns, "{name}: {turns}, {their_turns} turns");
    }
    let (static_deepest, ..) = told(&mut Static);
    assert!(static_deepest > deepest * 50.0, "{static_deepest}: without a law it grows as long as it lasts");
}
