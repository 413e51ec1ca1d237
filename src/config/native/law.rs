//! `queue`, `latency` and `slow_start` of a virtual: how load decides weights.
//!
//! Owns these keys and which of their combinations would swing. Refuses to know where reports come from.

use std::time::Duration;

use super::fields::{Fields, Setting};
use super::values::{duration, show};
use super::vocabulary::{LATENCY, QUEUE};
use crate::model::Scheduler;
use crate::weight::curve::Band;
use crate::weight::law::{LawConfig, QueueLaw, Steps};

const DAY: Duration = Duration::from_secs(86_400);
const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// A band of fewer intervals than this swings: `tests/simulation.rs` tries it.
const LEAST_INTERVALS: u32 = 3;

/// What a virtual says of load; `None` where it says nothing. `floor` is its own.
pub(super) fn read(fields: &Fields<'_>, scheduler: &Scheduler, floor: u8) -> Option<LawConfig> {
    let queue = fields.table("queue", &QUEUE).map(|queue| read_queue(&queue));
    let latency = fields.table("latency", &LATENCY).map(|latency| {
        let default = Band { full_at: Duration::from_millis(500), floor_at: Duration::from_secs(5) };
        read_band(&latency, default, MILLISECOND)
    });
    let slow_start = fields.read("slow_start", |raw| duration(raw, Duration::ZERO..=DAY));
    let follows_load = queue.is_some() || latency.is_some();
    if let Some(reason) = useless(scheduler) {
        fields.refuse(&["queue", "latency", "slow_start"], &reason);
    }
    let law = LawConfig {
        queue,
        latency,
        slow_start: slow_start.or(if follows_load { Duration::from_secs(120) } else { Duration::ZERO }),
        steps: if *scheduler == Scheduler::Mh { Steps::Coarse } else { Steps::Fine },
        floor,
    };
    (follows_load || !law.slow_start.is_zero()).then_some(law)
}

fn read_queue(fields: &Fields<'_>) -> QueueLaw {
    let default = Band { full_at: Duration::from_secs(10), floor_at: Duration::from_secs(60) };
    let interval = fields.read("interval", |raw| duration(raw, SECOND..=Duration::from_secs(600)));
    let band = read_band(fields, default, SECOND);
    let law = QueueLaw { band, interval: interval.or(Duration::from_secs(10)) };
    let width = band.floor_at.saturating_sub(band.full_at);
    let enough = law.interval * LEAST_INTERVALS;
    // Where a value is wrong, or the band is none, that is what there is to say.
    if !width.is_zero() && width < enough {
        fields.rule(format!(
            "queue: weights would swing: from full_at to floor_at are {}, and a change shows only after an interval \
             of {}; at least {LEAST_INTERVALS} intervals, so floor_at = \"{}\" or a shorter interval",
            show(width),
            show(law.interval),
            show(band.full_at + enough),
        ));
    }
    law
}

/// `full_at` and `floor_at`.
fn read_band(fields: &Fields<'_>, default: Band, least: Duration) -> Band {
    let full_at = fields.read("full_at", |raw| duration(raw, least..=DAY));
    let floor_at = fields.read("floor_at", |raw| duration(raw, least..=DAY));
    let band = Band { full_at: full_at.or(default.full_at), floor_at: floor_at.or(default.floor_at) };
    let is_wrong = |setting: &Setting<Duration>| matches!(setting, Setting::Wrong);
    if band.floor_at <= band.full_at && !is_wrong(&full_at) && !is_wrong(&floor_at) {
        let key = if floor_at.is_absent() { "full_at" } else { "floor_at" };
        fields.refuse(
            &[key],
            &format!(
                "full_at, here {}, is where weight begins to go; floor_at, here {}, has to be more",
                show(band.full_at),
                show(band.floor_at)
            ),
        );
        return default;
    }
    band
}

/// Why weights that follow load are of no use to a scheduler, or do harm.
fn useless(scheduler: &Scheduler) -> Option<String> {
    let name = scheduler.name();
    let reason = match scheduler {
        Scheduler::Wrr | Scheduler::Wlc | Scheduler::Sed | Scheduler::Mh | Scheduler::Twos => return None,
        Scheduler::Rr | Scheduler::Lc | Scheduler::Dh => "looks at no weight",
        Scheduler::Nq => "sends to whoever is idle, whatever the weight",
        Scheduler::Sh => "has 256 slots, too few for weights of 100; use \"mh\"",
        Scheduler::Fo => "sends all to the highest weight, so that a small change would move all mail",
        Scheduler::Ovf | Scheduler::Lblc | Scheduler::Lblcr => "takes a weight for a number of connections",
        Scheduler::Other(_) => "is not known to share by weight",
    };
    Some(format!(
        "scheduler \"{name}\" {reason}; \"wlc\", \"wrr\", \"sed\", \"twos\" and \"mh\" share by weight"
    ))
}
