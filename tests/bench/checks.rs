//! Measurements of the checks. Prints figures; asserts nothing. `tests/bench/run` runs all of it.
//!
//!     checks rate SECONDS CONCURRENCY             cheap SMTP checks a second on one core
//!     checks pace REALS INTERVAL SECONDS          start times of the checks, and how late they are
//!     checks false_alarms SECONDS                 a healthy farm on cores that are all busy
//!     checks keepalived REALS SECONDS ROUNDS      in the lab's guest: the director and keepalived in turn, 5 s
//!     checks floor SECONDS CONCURRENCY            the same dialogue with nothing but system calls
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a program that measures; it ends at the first surprise"
)]

#[path = "checks/against.rs"]
mod against;
#[path = "checks/alarms.rs"]
mod alarms;
#[path = "checks/pace.rs"]
mod pace;
mod process;
#[path = "checks/rate.rs"]
mod rate;
mod responder;

use std::time::Duration;

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["responder", mode] => responder::serve(mode == "record"),
        ["rate", time, concurrency] => rate::rate(seconds(time), concurrency.parse().expect("CONCURRENCY")),
        ["floor", time, concurrency] => rate::floor(seconds(time), concurrency.parse().expect("CONCURRENCY")),
        ["keepalived", reals, time, rounds] => {
            against::keepalived(
                reals.parse().expect("REALS"),
                seconds(time),
                rounds.parse().expect("ROUNDS"),
            );
        }
        ["pace", reals, interval, time] => {
            pace::pace(reals.parse().expect("REALS"), seconds(interval), seconds(time));
        }
        ["false_alarms", time] => alarms::false_alarms(seconds(time)),
        _ => println!("usage: see the first lines of tests/bench/checks.rs"),
    }
}

fn seconds(text: &str) -> Duration {
    Duration::from_secs(text.parse().expect("SECONDS"))
}
