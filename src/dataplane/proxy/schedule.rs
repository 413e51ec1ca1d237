//! Which real server takes the next connection, by the kernel's schedulers.
//!
//! Owns the formulas of `rr`, `wrr`, `lc`, `wlc`, `sed`, `nq` and `sh`, the connection thresholds and the cursor
//! of one virtual. Refuses to know sockets and tasks: counts come in, a position in the list goes out. Fails
//! by `None`: nobody may take the connection.
//!
//! Where the kernel takes the first of several equal servers, this goes round among them by weight. The kernel
//! gets that effect from closed connections, which it counts for two minutes more; here a session that has
//! ended is gone, and without it an idle farm would send everything to its first server, whatever the weights.

use std::net::{IpAddr, SocketAddr};

use crate::model::{RealId, RealSettings, Scheduler, SchedulerFlags};

/// An active connection weighs as much as this many inactive ones (`ip_vs_dest_conn_overhead` in `net/ip_vs.h`).
const ACTIVE_WEIGHS: u64 = 256;

/// Fixed keys: the same clients come to the same servers after a restart, and through another director of the
/// same build.
const HASH: ahash::RandomState =
    ahash::RandomState::with_seeds(0x736d_7470, 0x6469_7265, 0x6374_6f72, 0x7368);

/// A real server as the scheduler sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Who it is.
    pub(super) id: RealId,
    settings: RealSettings,
    active: u32,
    inactive: u32,
    /// Above its upper threshold, and not yet below its lower one.
    overloaded: bool,
    /// Its latest weight that was not 0: with this `sh` goes on to hash while the server is quiescent, so that
    /// its clients are nobody else's and everybody else's clients stay where they are. As `mh` of the kernel.
    claim: u32,
}

impl Candidate {
    /// A server with these settings; `before` is what was known of it until now.
    pub(super) fn new(id: RealId, settings: RealSettings, before: Option<&Self>) -> Self {
        let claim = match settings.weight.0 {
            0 => before.map_or(0, |b| b.claim),
            weight => weight,
        };
        let (upper, lifted) = (settings.upper_threshold, before.map_or(0, |b| b.settings.upper_threshold));
        Self {
            id,
            settings,
            active: 0,
            inactive: 0,
            overloaded: before.is_some_and(|b| b.overloaded) && upper <= lifted,
            claim,
        }
    }

    /// Takes over the counts of this moment. To be called before and after each connection is given away:
    /// between two of those calls the counts only fall, so no crossing of a threshold is missed.
    pub(super) fn observe(&mut self, active: u32, inactive: u32) {
        (self.active, self.inactive) = (active, inactive);
        let connections = u64::from(active) + u64::from(inactive);
        let upper = u64::from(self.settings.upper_threshold);
        let stays = match u64::from(self.settings.lower_threshold) {
            0 => connections * 4 >= upper * 3,
            lower => connections >= lower,
        };
        self.overloaded = upper > 0 && (connections >= upper || (self.overloaded && stays));
    }

    fn weight(&self) -> u32 {
        self.settings.weight.0
    }

    fn is_open(&self, tried: &[RealId]) -> bool {
        self.settings.weight.takes_connections() && !self.overloaded && !tried.contains(&self.id)
    }
}

/// A number to be compared with others: numerator and denominator, the latter never 0.
#[derive(Clone, Copy)]
struct Ratio(u64, u32);

impl Ratio {
    fn is_less(self, other: Self) -> bool {
        u128::from(self.0) * u128::from(other.1) < u128::from(other.0) * u128::from(self.1)
    }

    fn is_equal(self, other: Self) -> bool {
        !self.is_less(other) && !other.is_less(self)
    }
}

/// A connection that wants a server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    /// Where it comes from.
    pub(super) client: SocketAddr,
    /// Who could not be connected to for it.
    pub(super) tried: &'a [RealId],
}

/// The memory of one virtual's scheduler. It outlives changes of weights and of the scheduler itself.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// Who got the last connection.
    last: Option<RealId>,
    /// Only servers of at least this weight have their turn in the current round.
    level: u32,
}

/// Whether [`Schedule::pick`] knows this scheduler.
pub(super) fn supports(scheduler: &Scheduler) -> bool {
    use Scheduler as S;
    matches!(scheduler, S::Rr | S::Wrr | S::Lc | S::Wlc | S::Sed | S::Nq | S::Sh)
}

impl Schedule {
    /// The position of the server that takes the connection. `candidates` are sorted by their id.
    ///
    /// With `sh` and without its fallback flag a client has one server or none: it is refused while that one
    /// is quiescent, overloaded or cannot be connected to.
    pub(super) fn pick(
        &mut self,
        (scheduler, flags): (&Scheduler, SchedulerFlags),
        candidates: &[Candidate],
        request: Request<'_>,
    ) -> Option<usize> {
        if *scheduler == Scheduler::Sh {
            return hashed(flags, candidates, request);
        }
        let open = |c: &Candidate| c.is_open(request.tried);
        let least = candidates
            .iter()
            .filter(|c| open(c))
            .map(|c| delay(scheduler, c))
            .reduce(|least, next| if next.is_less(least) { next } else { least })?;
        let turns: fn(&Candidate) -> u32 =
            if matches!(scheduler, Scheduler::Rr | Scheduler::Lc) { |_| 1 } else { Candidate::weight };
        self.round(candidates, |c| if open(c) && delay(scheduler, c).is_equal(least) { turns(c) } else { 0 })
    }

    /// Interleaved weighted round robin: in each round those have a turn that weigh at least `level`, which sinks
    /// by the greatest common divisor of all weights from round to round. Weights of 4, 3 and 2 give AABABCABC.
    fn round(&mut self, candidates: &[Candidate], turns: impl Fn(&Candidate) -> u32) -> Option<usize> {
        let top = candidates.iter().map(&turns).max().filter(|top| *top > 0)?;
        let step = candidates.iter().map(&turns).fold(0, gcd);
        let next = self.last.map_or(0, |last| candidates.partition_point(|c| c.id <= last));
        let turn_at = |from: usize, level: u32| {
            candidates.iter().enumerate().skip(from).find(|(_, c)| turns(c) >= level)
        };
        if self.level == 0 || self.level > top {
            self.level = top;
        }
        let found = turn_at(next, self.level).or_else(|| {
            self.level = match self.level.saturating_sub(step) {
                0 => top,
                level => level,
            };
            turn_at(0, self.level)
        });
        let (position, candidate) = found?;
        self.last = Some(candidate.id);
        Some(position)
    }
}

/// What a new connection would cost at this server, which is open and so has a weight; the least gets it.
fn delay(scheduler: &Scheduler, candidate: &Candidate) -> Ratio {
    let active = u64::from(candidate.active);
    let overhead = active * ACTIVE_WEIGHS + u64::from(candidate.inactive);
    match scheduler {
        Scheduler::Lc => Ratio(overhead, 1),
        Scheduler::Wlc => Ratio(overhead, candidate.weight()),
        Scheduler::Nq if candidate.active == 0 => Ratio(0, 1),
        Scheduler::Sed | Scheduler::Nq => Ratio(active + 1, candidate.weight()),
        _ => Ratio(0, 1),
    }
}

/// Weighted rendezvous hashing: each server draws a number for this client, the highest wins. A server that
/// comes, goes or changes its weight takes or leaves only its own clients, which a table of slots does not give.
fn hashed(flags: SchedulerFlags, candidates: &[Candidate], request: Request<'_>) -> Option<usize> {
    let port = if flags.has(SchedulerFlags::PORT) { request.client.port() } else { 0 };
    let falls_back = flags.has(SchedulerFlags::FALLBACK);
    candidates
        .iter()
        .enumerate()
        .filter(|(_, c)| if falls_back { c.is_open(request.tried) } else { c.claim > 0 })
        .map(|(position, c)| (position, c, draw(request.client.ip(), port, c)))
        .max_by(|(_, _, a), (_, _, b)| a.total_cmp(b))
        .filter(|(_, c, _)| c.is_open(request.tried))
        .map(|(position, ..)| position)
}

/// Exponentially distributed with the rate 1 / claim: the winner of a draw has its share of all clients.
fn draw(client: IpAddr, port: u16, candidate: &Candidate) -> f64 {
    let hash = HASH.hash_one((client, port, candidate.id.0.ip(), candidate.id.0.port()));
    // 53 bits fill a float; the half keeps the number away from 0 and 1, whose logarithms are of no use.
    let uniform = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    f64::from(candidate.claim) / -uniform.ln()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Forward, Weight};

    fn settings(weight: u32) -> RealSettings {
        RealSettings::new(Forward::Masq, Weight(weight))
    }

    fn id(n: usize) -> RealId {
        RealId(SocketAddr::from(([10, 0, 0, u8::try_from(n).unwrap()], 25)))
    }

    /// Weight, active and inactive sessions.
    type Server = (u32, u32, u32);

    fn farm(servers: &[Server]) -> Vec<Candidate> {
        let server = |(n, (weight, active, inactive)): (usize, &Server)| {
            let mut c = Candidate::new(id(n), settings(*weight), None);
            c.observe(*active, *inactive);
            c
        };
        servers.iter().enumerate().map(server).collect()
    }

    fn client(n: u32) -> SocketAddr {
        SocketAddr::from((n.to_be_bytes(), 40_000))
    }

    fn from(client: SocketAddr) -> Request<'static> {
        Request { client, tried: &[] }
    }

    /// Who gets a number of connections, as letters; counts do not change.
    fn sequence(scheduler: &Scheduler, servers: &[Server], connections: usize) -> String {
        let (mut schedule, farm) = (Schedule::default(), farm(servers));
        (0..connections)
            .map(|_| match schedule.pick((scheduler, SchedulerFlags::NONE), &farm, from(client(1))) {
                Some(n) => char::from(b'A' + u8::try_from(n).unwrap()),
                None => '-',
            })
            .collect()
    }

    #[test]
    fn each_scheduler_follows_its_formula() {
        use Scheduler as S;
        let cases: &[(S, &[Server], &str)] = &[
            (S::Rr, &[(1, 0, 0), (5, 9, 9), (2, 0, 0)], "ABCABC"),
            (S::Rr, &[(1, 0, 0), (0, 0, 0), (2, 0, 0)], "ACACAC"),
            (S::Wrr, &[(4, 0, 0), (3, 0, 0), (2, 0, 0)], "AABABCABC"),
            (S::Wrr, &[(40, 0, 0), (30, 0, 0), (20, 0, 0)], "AABABCABC"),
            (S::Wrr, &[(0, 0, 0), (2, 0, 0)], "BBB"),
            (S::Lc, &[(1, 3, 0), (1, 2, 255), (1, 2, 256)], "BBB"),
            (S::Lc, &[(9, 1, 0), (1, 0, 255)], "BB"),
            (S::Lc, &[(9, 1, 0), (1, 0, 256)], "ABAB"),
            (S::Wlc, &[(10, 5, 0), (20, 9, 0)], "BBB"),
            (S::Wlc, &[(10, 4, 0), (20, 9, 0)], "AAA"),
            (S::Wlc, &[(3, 0, 0), (1, 0, 0)], "AAABAAAB"),
            (S::Sed, &[(10, 0, 0), (30, 1, 0)], "BBB"),
            (S::Sed, &[(10, 0, 0), (30, 3, 0)], "AAA"),
            (S::Nq, &[(10, 0, 0), (30, 1, 0)], "AAA"),
            (S::Nq, &[(10, 1, 0), (30, 1, 0)], "BBB"),
            (S::Wlc, &[(0, 0, 0), (0, 0, 0)], "--"),
            (S::Sh, &[(0, 0, 0)], "-"),
            (S::Rr, &[], "-"),
        ];
        for (scheduler, servers, expected) in cases {
            assert_eq!(sequence(scheduler, servers, expected.len()), *expected, "{scheduler} {servers:?}");
        }
    }

    #[test]
    fn the_cursor_survives_a_new_weight() {
        let mut schedule = Schedule::default();
        let mut picks = Vec::new();
        for weight in [7, 8, 9, 10] {
            let farm = farm(&[(weight, 0, 0), (weight, 0, 0)]);
            picks.push(schedule.pick((&Scheduler::Wrr, SchedulerFlags::NONE), &farm, from(client(1))));
        }
        assert_eq!(picks, [Some(0), Some(1), Some(0), Some(1)]);
    }

    #[test]
    fn a_threshold_has_hysteresis() {
        // upper, lower, connections one after the other, whether the server is open then
        let cases: &[(u32, u32, &[u32], &[bool])] = &[
            (0, 0, &[1_000_000], &[true]),
            (10, 0, &[9, 10, 8, 7], &[true, false, false, true]),
            (10, 3, &[9, 10, 7, 3, 2], &[true, false, false, false, true]),
        ];
        for (upper, lower, connections, open) in cases {
            let thresholds = RealSettings { upper_threshold: *upper, lower_threshold: *lower, ..settings(1) };
            let mut c = Candidate::new(id(1), thresholds, None);
            let seen: Vec<bool> = connections
                .iter()
                .map(|n| {
                    c.observe(n / 2, n - n / 2);
                    c.is_open(&[])
                })
                .collect();
            assert_eq!(seen, *open, "upper {upper} lower {lower}");
        }
    }

    #[test]
    fn a_raised_threshold_opens_the_server_and_a_new_weight_does_not() {
        let limited = RealSettings { upper_threshold: 10, lower_threshold: 2, ..settings(1) };
        let mut full = Candidate::new(id(1), limited, None);
        full.observe(10, 0);
        for (settings, open) in [
            (RealSettings { upper_threshold: 20, ..limited }, true),
            (RealSettings { weight: Weight(9), ..limited }, false),
        ] {
            let mut changed = Candidate::new(id(1), settings, Some(&full));
            changed.observe(9, 0);
            assert_eq!(changed.is_open(&[]), open, "{settings:?}");
        }
    }

    /// Who serves each of a thousand clients.
    fn hashed_clients(flags: SchedulerFlags, farm: &[Candidate]) -> Vec<Option<RealId>> {
        let mut schedule = Schedule::default();
        (0..1000)
            .map(|n| schedule.pick((&Scheduler::Sh, flags), farm, from(client(n))).map(|n| farm[n].id))
            .collect()
    }

    #[test]
    fn sh_moves_only_the_clients_of_a_quiescent_server() {
        let before = farm(&[(10, 0, 0), (10, 0, 0), (20, 0, 0)]);
        let mut after = before.clone();
        after[1] = Candidate::new(id(1), settings(0), Some(&before[1]));
        let was = hashed_clients(SchedulerFlags::FALLBACK, &before);
        let fallback = hashed_clients(SchedulerFlags::FALLBACK, &after);
        let strict = hashed_clients(SchedulerFlags::NONE, &after);
        for ((was, fallback), strict) in was.iter().zip(&fallback).zip(&strict) {
            if *was == Some(id(1)) {
                assert!(fallback.is_some() && *fallback != Some(id(1)));
                assert_eq!(*strict, None);
            } else {
                assert_eq!(fallback, was);
                assert_eq!(strict, was);
            }
        }
        let share = |real| was.iter().filter(|w| **w == Some(real)).count();
        assert!((400..600).contains(&share(id(2))), "half of the weight has {}", share(id(2)));
    }

    #[test]
    fn sh_hashes_the_port_only_when_told() {
        let farm = farm(&[(1, 0, 0), (1, 0, 0), (1, 0, 0)]);
        let servers = |flags| {
            let pick = |port| {
                let client = SocketAddr::from(([192, 0, 2, 1], port));
                Schedule::default().pick((&Scheduler::Sh, flags), &farm, from(client))
            };
            (1000..1100).map(pick).collect::<std::collections::BTreeSet<_>>().len()
        };
        assert_eq!(servers(SchedulerFlags::NONE), 1);
        assert_eq!(servers(SchedulerFlags::PORT), 3);
    }

    fn any_scheduler() -> impl Strategy<Value = Scheduler> {
        use Scheduler as S;
        prop::sample::select(vec![S::Rr, S::Wrr, S::Lc, S::Wlc, S::Sed, S::Nq, S::Sh])
    }

    fn any_farm() -> impl Strategy<Value = Vec<Server>> {
        prop::collection::vec(
            (prop_oneof![Just(0), 1..200_u32, Just(i32::MAX as u32)], 0..50_u32, any::<u32>()),
            0..6,
        )
    }

    proptest! {
        #[test]
        fn a_cycle_of_wrr_gives_each_its_weight(weights in prop::collection::vec(0..40_u32, 1..6)) {
            prop_assume!(weights.iter().any(|w| *w > 0));
            let farm = farm(&weights.iter().map(|w| (*w, 0, 0)).collect::<Vec<_>>());
            let divisor = weights.iter().copied().fold(0, gcd);
            let mut schedule = Schedule::default();
            let mut shares = vec![0; weights.len()];
            for _ in 0..weights.iter().sum::<u32>() / divisor {
                let n = schedule.pick((&Scheduler::Wrr, SchedulerFlags::NONE), &farm, from(client(1))).unwrap();
                shares[n] += divisor;
            }
            prop_assert_eq!(shares, weights);
        }

        #[test]
        fn only_an_open_server_is_chosen_and_one_always_is(
            scheduler in any_scheduler(),
            servers in any_farm(),
            tried in prop::collection::vec(0..6_usize, 0..4),
            clients in prop::collection::vec(any::<u32>(), 1..20),
        ) {
            let farm = farm(&servers);
            let tried: Vec<RealId> = tried.into_iter().map(id).collect();
            let mut schedule = Schedule::default();
            for n in clients {
                let request = Request { client: client(n), tried: &tried };
                let picked = schedule.pick((&scheduler, SchedulerFlags::FALLBACK), &farm, request);
                prop_assert_eq!(picked.is_some(), farm.iter().any(|c| c.is_open(&tried)));
                if let Some(picked) = picked {
                    prop_assert!(servers[picked].0 > 0);
                    prop_assert!(!tried.contains(&farm[picked].id));
                }
            }
        }

        #[test]
        fn nobody_costs_less_than_the_chosen_one(
            scheduler in any_scheduler(),
            servers in any_farm(),
        ) {
            let farm = farm(&servers);
            let picked = Schedule::default().pick((&scheduler, SchedulerFlags::FALLBACK), &farm, from(client(1)));
            if let Some(picked) = picked {
                let chosen = delay(&scheduler, &farm[picked]);
                prop_assert!(!farm.iter().any(|c| c.is_open(&[]) && delay(&scheduler, c).is_less(chosen)));
            }
        }

        #[test]
        fn sh_depends_on_nothing_but_the_address(n in any::<u32>(), servers in any_farm(), port in any::<u16>()) {
            let farm = farm(&servers);
            let pick = |client, warm: u32| {
                let mut schedule = Schedule::default();
                for other in 0..warm {
                    schedule.pick((&Scheduler::Sh, SchedulerFlags::NONE), &farm, from(self::client(other)));
                }
                schedule.pick((&Scheduler::Sh, SchedulerFlags::NONE), &farm, from(client))
            };
            let elsewhere = SocketAddr::new(client(n).ip(), port);
            prop_assert_eq!(pick(client(n), 0), pick(elsewhere, 3));
        }
    }
}
