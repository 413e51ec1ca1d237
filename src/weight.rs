//! The weight law: from what is known of the servers of a virtual to their shares of new connections.
//!
//! Owns [`weigh`]; `weight/` owns the soft factor that load decides. Refuses to know tables, checks and clocks; time is an argument. Cannot fail.
//!
//! A server that cannot be connected to gets nothing: a client that is sent there is lost to it. One that can be
//! connected to but does not serve as it should (it is slow, it refuses) may suffer from what all suffer from, a
//! directory that is down or a policy that is wrong, and taking all of them out would turn trouble into an outage.
//! So such **soft** reasons have a floor: together they never leave less than a set share of the base weight in
//! service, never nothing, and take out one server at a time. Who stays in by this is **held**, and so is who is down
//! only because the director reaches nobody.

pub mod curve;
pub mod law;
pub mod parts;
pub mod resolution;
pub mod signal;

use std::time::{Duration, Instant};

use self::curve::Percent;
use self::parts::Check;
use crate::model::Weight;
use crate::verdict::Factor;

/// Soft reasons take out the next server only this long after the one before.
const PAUSE: Duration = Duration::from_secs(30);

/// One real server, as far as its weight goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The weight that the configuration gives it.
    pub base: Weight,
    /// What is known of it.
    pub standing: Standing,
}

/// What is known of a server, as far as its weight goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not enough.
    Unknown,
    /// It is well.
    Up,
    /// It serves, and should have this part of its weight.
    Degraded(Factor),
    /// It is down for a soft reason, since then.
    Sick(Instant),
    /// Its administrator wants no new session there.
    Drained,
    /// It cannot be connected to.
    Gone,
    /// It cannot be connected to, and neither can any other server: it was well before.
    Cut,
}

impl Standing {
    /// Whether it is known to serve: who is not known may not be in the table at all.
    fn serves(self) -> bool {
        matches!(self, Self::Up | Self::Degraded(_))
    }
}

/// What a server should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Whatever the table has.
    Keep,
    /// This weight.
    Weight(Weight),
    /// This weight, although it is down, or drained.
    Held(Weight),
}

impl Share {
    /// What this leaves of a weight that is not 0 by itself, given where it comes from.
    #[must_use]
    pub fn check(self, standing: Standing) -> Check {
        match (self, standing) {
            (Self::Keep, _) => Check::Unknown,
            (Self::Held(_), _) | (Self::Weight(_), Standing::Up) => Check::Part(Percent::ALL),
            (Self::Weight(_), Standing::Degraded(factor)) => Check::Part(Percent::nearest(factor.ratio())),
            (Self::Weight(_), _) => Check::Out,
        }
    }
}

/// The shares of the servers of one virtual, in their order. `floor` is the percentage of the base weight that soft
/// reasons leave in service.
#[must_use]
pub fn weigh(now: Instant, floor: u8, members: &[Member]) -> Vec<Share> {
    let out = taken_out(now, floor, members);
    let anybody_well = anybody_well(members);
    let share = |(index, member): (usize, &Member)| match member.standing {
        Standing::Unknown => Share::Keep,
        Standing::Up => Share::Weight(member.base),
        Standing::Degraded(factor) => Share::Weight(Weight(factor.of(member.base.0))),
        Standing::Sick(_) if !out.contains(&index) => Share::Held(member.base),
        Standing::Cut => Share::Held(member.base),
        // What is wanted is done, but for a farm in which it would leave nobody.
        Standing::Drained if !anybody_well => Share::Held(member.base),
        Standing::Sick(_) | Standing::Drained | Standing::Gone => Share::Weight(Weight::ZERO),
    };
    members.iter().enumerate().map(share).collect()
}

fn anybody_well(members: &[Member]) -> bool {
    members.iter().any(|m| m.standing.serves() && m.base.takes_connections())
}

/// Who is taken out for a soft reason, by position: first down, first out, as far as the floor allows.
fn taken_out(now: Instant, floor: u8, members: &[Member]) -> Vec<usize> {
    let base = |member: &Member| u64::from(member.base.0);
    let total: u64 = members.iter().map(base).sum();
    let stays = |member: &&Member| !matches!(member.standing, Standing::Gone | Standing::Drained);
    let mut serving: u64 = members.iter().filter(stays).map(base).sum();
    let anybody_well = anybody_well(members);
    let sick = |(index, member): (usize, &Member)| match member.standing {
        Standing::Sick(since) => Some((since, index, base(member))),
        _ => None,
    };
    let mut soft: Vec<_> = members.iter().enumerate().filter_map(sick).collect();
    soft.sort_unstable();
    let mut out = Vec::new();
    let mut free_at = None;
    for (since, index, base) in soft {
        let due = free_at.map_or(since, |free_at| since.max(free_at));
        if anybody_well && due <= now && (serving - base) * 100 >= total * u64::from(floor) {
            serving -= base;
            free_at = Some(due + PAUSE);
            out.push(index);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Letters: `U` up, `d` degraded to a half, `?` unknown, `D` cannot be connected to, `c` likewise because nobody can,
    /// `m` drained, `s` down for a soft reason since its position in the text times the pause. The answer: the weight, `k` for keep,
    /// `h` for held.
    fn shares(states: &str, bases: &[u32], at: u32) -> String {
        shares_above(50, states, bases, at)
    }

    fn shares_above(floor: u8, states: &str, bases: &[u32], at: u32) -> String {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start")]
        let start = Instant::now();
        let mut softs = 0;
        let members: Vec<_> = states
            .chars()
            .zip(bases)
            .map(|(letter, base)| {
                let standing = match letter {
                    'U' => Standing::Up,
                    'd' => Standing::Degraded(Factor::HALF),
                    '?' => Standing::Unknown,
                    's' => Standing::Sick(start + PAUSE * softs),
                    'c' => Standing::Cut,
                    'm' => Standing::Drained,
                    _ => Standing::Gone,
                };
                softs += u32::from(letter == 's');
                Member { base: Weight(*base), standing }
            })
            .collect();
        let shown = weigh(start + PAUSE * at, floor, &members).into_iter().map(|share| match share {
            Share::Keep => "k".to_owned(),
            Share::Weight(weight) => weight.to_string(),
            Share::Held(_) => "h".to_owned(),
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn soft_reasons_have_a_floor_and_hard_ones_have_none() {
        let ones = [1; 8];
        for (states, at, expected) in [
            ("U", 0, "1"),
            ("?", 0, "k"),
            ("D", 0, "0"),
            ("DDD", 0, "0 0 0"),       // nobody can be connected to: nothing else is true
            ("ccD", 0, "h h 0"),       // unless it is the director that is cut off
            ("sUU", 0, "0 1 1"),       //
            ("sU", 0, "0 1"),          // half is enough
            ("ssU", 9, "0 h 1"),       // a third is not
            ("sss", 9, "h h h"),       // what all have is nobody's fault
            ("s", 9, "h"),             //
            ("s?", 9, "h k"),          // who nobody knows may be in no table
            ("sD", 9, "h 0"),          // the last that can be connected to stays
            ("sDU", 9, "h 0 1"),       // what is gone counts against the floor
            ("sUUU?", 0, "0 1 1 1 k"), // unknown is not down
            ("sd", 0, "0 1"),          // degraded serves
            ("mU", 0, "0 1"),          // the administrator's will
            ("mmU", 0, "0 0 1"),       // whatever the floor
            ("mm", 0, "h h"),          // but never nobody
            ("msU", 0, "0 h 1"),       // who is drained counts against the floor
            ("ssUUUUUU", 0, "0 h 1 1 1 1 1 1"), // one at a time
            ("ssUUUUUU", 1, "0 0 1 1 1 1 1 1"),
        ] {
            assert_eq!(shares(states, &ones, at), expected, "{states} at {at}");
        }
        assert_eq!(shares("sUU", &[8, 1, 1], 9), "h 1 1", "the floor is of weight, not of heads");
        assert_eq!(shares("sU", &[1, 0], 9), "h 0", "who has no weight serves nobody");
        assert_eq!(shares("dU", &[100, 100], 0), "50 100");
    }

    #[test]
    fn the_floor_is_where_it_was_set() {
        for (floor, expected) in [(100, "h h h 1"), (75, "0 h h 1"), (50, "0 0 h 1"), (0, "0 0 0 1")] {
            assert_eq!(shares_above(floor, "sssU", &[1; 4], 9), expected, "{floor}");
        }
        assert_eq!(shares_above(0, "sss", &[1; 3], 9), "h h h", "never nothing");
    }

    proptest! {
        #[test]
        fn soft_reasons_never_take_the_farm_below_the_floor(
            servers in proptest::collection::vec(("[Ud?Dscm]", 0u32..5), 1..8), floor in 0u8..=100, at in 0u32..20,
        ) {
            let states: String = servers.iter().map(|(state, _)| state.as_str()).collect();
            let bases: Vec<_> = servers.iter().map(|(_, base)| *base).collect();
            let shown = shares_above(floor, &states, &bases, at);
            let zip = || servers.iter().zip(shown.split(' '));
            let out: u32 = zip().filter(|((state, _), w)| state == "s" && *w == "0").map(|((_, base), _)| base).sum();
            let served: u32 = zip().filter(|((state, _), w)| state != "D" && *w != "0").map(|((_, base), _)| base).sum();
            let least = bases.iter().sum::<u32>() * u32::from(floor);
            prop_assert!(out == 0 || served * 100 >= least, "{states} {bases:?} {floor}: {shown}");
            let can_serve = servers.iter().any(|(state, base)| state != "D" && *base > 0);
            prop_assert!(!can_serve || served > 0, "{states} {bases:?} {floor}: {shown}");
        }
    }
}
