//! The weight law beside others in a simulated farm. Prints the tables of `README.md` beside it; asserts nothing.
//!
//!     law [SEEDS]
#![allow(
    dead_code,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a program that measures, with the model of the tests"
)]

#[path = "../simulation/farm.rs"]
mod farm;
#[path = "../simulation/laws.rs"]
mod laws;

use farm::{Chance, FROM, Scenario, Spread, TO, Weigher, run, spread_of};
use laws::{OnOff, Ours, Ramp, Static, Zhang, config};

type Make = fn(usize) -> Box<dyn Weigher>;

const LAWS: [(&str, Make); 8] = [
    ("static weights", |_| Box::new(Static)),
    ("on/off at 60 s", |servers| Box::new(OnOff::new(servers, 60.0))),
    ("Zhang's feedback, A = 5", |servers| Box::new(Zhang::new(servers))),
    ("one ramp, 10 s to 60 s", |servers| Box::new(Ramp::new(servers, 60.0))),
    ("one ramp, 10 s to 120 s", |servers| Box::new(Ramp::new(servers, 120.0))),
    ("one ramp, 10 s to 300 s", |servers| Box::new(Ramp::new(servers, 300.0))),
    ("ours, 10 s to 60 s", |_| Box::new(Ours::new(config(10.0, 60.0, 10.0)))),
    ("ours, 10 s to 120 s", |_| Box::new(Ours::new(config(10.0, 120.0, 10.0)))),
];

fn scenarios() -> Vec<(&'static str, Scenario)> {
    let flapping = |server: usize, second: u64| {
        let slow = server == 0 && farm::in_fault(second) && (second / 60).is_multiple_of(2);
        if slow { 0.1 } else { 1.0 }
    };
    vec![
        (
            "4 servers, 75 % load, one at 35 % for 50 min; no chance",
            Scenario { chance: Chance::None, delivery: 0, ..Scenario::of(4).first_at(0.35) },
        ),
        ("the same with chance", Scenario::of(4).first_at(0.35)),
        ("the same under wlc", Scenario { spread: Spread::Wlc, ..Scenario::of(4).first_at(0.35) }),
        ("16 servers, one at 35 %", Scenario::of(16).first_at(0.35)),
        ("2 servers, 60 % load, one at 25 %", Scenario { load: 0.6, ..Scenario::of(2).first_at(0.25) }),
        (
            "4 servers, 60 % load, one delivers nothing",
            Scenario { load: 0.6, ..Scenario::of(4).first_at(0.0) },
        ),
        (
            "4 servers, 60 % load, one at 10 % every other minute",
            Scenario { load: 0.6, speed: Box::new(flapping), ..Scenario::of(4) },
        ),
        (
            "4 servers of 25, 50, 75 and 100 a second from the start",
            Scenario { capacity: vec![25.0, 50.0, 75.0, 100.0], ..Scenario::of(4) },
        ),
        ("the farm overloaded as a whole, 110 %", Scenario { load: 1.1, ..Scenario::of(4) }),
        ("all well, 80 % load", Scenario { load: 0.8, ..Scenario::of(4) }),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let seeds: u64 = arguments.first().map_or(10, |seeds| seeds.parse().expect("SEEDS"));
    for (title, scenario) in scenarios() {
        println!("\n{title}\n");
        println!("| law | deepest queue | p99 wait | writes | turns | spread in the fault |");
        println!("|---|---|---|---|---|---|");
        for (name, make) in LAWS {
            let seeds = if scenario.chance == Chance::None { 1 } else { seeds };
            let mut sum = [0.0; 5];
            for seed in 0..seeds {
                let course = run(&scenario, &mut *make(scenario.capacity.len()), seed);
                let (writes, turns) = course.all_writes();
                let spread = spread_of(&course.weights_in(0, FROM + 600, TO)).1;
                let row = [course.deepest_of_all(), course.slowest(), writes as f64, turns as f64, spread];
                for (sum, value) in sum.iter_mut().zip(row) {
                    *sum += value / seeds as f64;
                }
            }
            let [deepest, slowest, writes, turns, spread] = sum;
            println!("| {name} | {deepest:.0} | {slowest:.0} s | {writes:.0} | {turns:.0} | {spread:.1} |");
        }
    }
}
