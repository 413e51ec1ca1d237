//! What it is worth that weights follow the queue: `tests/bench/run balance`.
//!
//!     balance native|lab SECONDS [WORD...]     so long comes mail; only the cases whose name has one of these words
//!
//! Three real Postfix servers, each with a sink of its own to which it delivers, and mail at a steady rate that takes no
//! notice of answers. Each message carries the time at which it was made; its sink stamps its arrival. Every program
//! under comparison gets a farm of its own and the same mail, one after the other. Prints a table and asserts nothing but
//! that it can measure.
#![allow(
    dead_code,
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a program that measures, with the tests' farm; it ends at the first surprise"
)]

mod balancer;
mod course;
#[path = "../../farm/mod.rs"]
mod farm;
mod server;

use std::time::Duration;

use balancer::Balancer;
use course::Course;

/// Seconds of mail before a fault.
const WARM: u64 = 15;
/// The server that gets the fault.
const SICK: usize = 1;

/// Where it runs, and what its Postfix servers can do there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On namespaces of this kernel; connections go through a process.
    Native,
    /// In the guest: IPVS, on one slow processor.
    Lab,
}

impl Place {
    /// Messages that one healthy server delivers in a second: so many deliveries at one time, each so long.
    fn capacity(self) -> (u32, Duration) {
        match self {
            Self::Native => (4, Duration::from_millis(200)),
            Self::Lab => (2, Duration::from_millis(400)),
        }
    }

    /// Messages that are sent in a second: three fifths of what three healthy servers deliver.
    fn rate(self) -> u32 {
        match self {
            Self::Native => 36,
            Self::Lab => 9,
        }
    }
}

/// How fast each server delivers, as a part of what a healthy one does; 0 is not at all.
type Speeds = [f64; 3];

/// One play.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    name: &'static str,
    /// From the start on.
    before: Speeds,
    /// From [`WARM`] seconds on, until no more mail comes.
    fault: Speeds,
}

const CASES: [Case; 4] = [
    Case { name: "one server delivers at a quarter", before: [1.0; 3], fault: [1.0, 0.25, 1.0] },
    Case { name: "one server takes mail and delivers none", before: [1.0; 3], fault: [1.0, 0.0, 1.0] },
    Case { name: "all healthy", before: [1.0; 3], fault: [1.0; 3] },
    Case { name: "unequal from the start, told nobody", before: [1.2, 0.9, 0.3], fault: [1.2, 0.9, 0.3] },
];

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let place = match arguments.first().map(String::as_str) {
        Some("native") => Place::Native,
        Some("lab") => Place::Lab,
        _ => {
            println!("usage: balance native|lab SECONDS [WORD...]");
            return;
        }
    };
    let seconds: u64 = arguments.get(1).and_then(|text| text.parse().ok()).expect("SECONDS");
    let words = arguments.get(2..).unwrap_or_default();
    let (at_once, each) = place.capacity();
    println!(
        "{} messages/s for {seconds} s, the fault from {WARM} s on until no more comes; a healthy server delivers {at_once} at \
         once, each in {each:?}",
        place.rate()
    );
    for case in CASES
        .iter()
        .filter(|case| words.is_empty() || words.iter().any(|word| case.name.contains(word.as_str())))
    {
        println!("\n{}\n\n{}", case.name, Course::TITLE);
        for balancer in Balancer::all(place) {
            let course = course::play(place, case, *balancer, Duration::from_secs(seconds));
            println!("{}", course.row(balancer.title()));
        }
    }
}
