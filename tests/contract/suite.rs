//! The contract that every dataplane keeps.
//!
//! Owns [`suite`]: what `Dataplane` promises, checked step by step against [`Table::apply`], the strictest reading of
//! the kernel. Each step compares the answer and then the whole dump, so a refused change that changed something, or a
//! `Set` that left something behind, fails at once. A dataplane that cannot do everything says so in [`Abilities`].

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smtp_director::dataplane::{Dataplane, Error};
use smtp_director::model::{
    Family, Forward, Granularity, Op, Persistence, Protocol, RealId, RealSettings, Scheduler, SchedulerFlags,
    Table, TableError, Tunnel, TunnelChecksum, VirtualId, VirtualSettings, Weight,
};

/// What a dataplane can do, and where its virtuals may be. It must be empty when it is handed to [`suite`].
#[derive(Clone, Debug)]
pub(crate) struct Abilities {
    /// TCP virtuals; at least two. They may be of both families.
    pub(crate) virtuals: Vec<SocketAddr>,
    /// A UDP virtual on each of `virtuals`.
    pub(crate) udp: bool,
    /// Virtuals made of firewall marks.
    pub(crate) fwmark: bool,
    /// At least one.
    pub(crate) schedulers: Vec<Scheduler>,
    /// At least one.
    pub(crate) forwards: Vec<Forward>,
    /// Clients that come back to their server, with every granularity.
    pub(crate) persistence: bool,
    /// Bits for the scheduler, and UDP packets scheduled one by one.
    pub(crate) flags: bool,
    /// Limits on connections.
    pub(crate) thresholds: bool,
    /// The largest weight.
    pub(crate) max_weight: u32,
}

impl Abilities {
    /// All that the model can say.
    pub(crate) fn all() -> Self {
        let checksums = [TunnelChecksum::None, TunnelChecksum::Csum, TunnelChecksum::Remcsum];
        let gue = checksums.map(|checksum| Forward::Ipip(Tunnel::Gue { port: 6080, checksum }));
        let gre = [TunnelChecksum::None, TunnelChecksum::Csum]
            .map(|checksum| Forward::Ipip(Tunnel::Gre { checksum }));
        let mut forwards = vec![Forward::Gate, Forward::Masq, Forward::Ipip(Tunnel::Ipip)];
        forwards.extend(gue);
        forwards.extend(gre);
        Self {
            virtuals: ["192.0.2.25:25", "192.0.2.25:587", "[2001:db8::25]:25"]
                .map(|address| address.parse().unwrap())
                .to_vec(),
            udp: true,
            fwmark: true,
            schedulers: Scheduler::KNOWN.to_vec(),
            forwards,
            persistence: true,
            flags: true,
            thresholds: true,
            max_weight: 2_147_483_647,
        }
    }

    fn ids(&self) -> Vec<VirtualId> {
        let on = |protocol| move |address: &SocketAddr| VirtualId::Address { protocol, address: *address };
        let mut ids: Vec<_> = self.virtuals.iter().map(on(Protocol::Tcp)).collect();
        if self.udp {
            ids.extend(self.virtuals.iter().map(on(Protocol::Udp)));
        }
        if self.fwmark {
            ids.extend([1, 7, u32::MAX].map(|mark| VirtualId::Fwmark { mark, family: Family::V4 }));
            ids.push(VirtualId::Fwmark { mark: 7, family: Family::V6 });
        }
        ids
    }

    fn virtual_settings(&self, id: &VirtualId) -> Vec<VirtualSettings> {
        let mut all: Vec<_> = self.schedulers.iter().cloned().map(VirtualSettings::new).collect();
        let base = all[0].clone();
        if self.flags {
            let flags = [SchedulerFlags::FALLBACK, SchedulerFlags::PORT, SchedulerFlags::THIRD];
            all.extend(flags.map(|flags| VirtualSettings { flags, ..base.clone() }));
            let both = SchedulerFlags::FALLBACK.with(SchedulerFlags::PORT);
            for scheduler in self.schedulers.iter().filter(|s| ["sh", "mh"].contains(&s.name())) {
                all.push(VirtualSettings { flags: both, ..VirtualSettings::new(scheduler.clone()) });
            }
            if matches!(id, VirtualId::Address { protocol: Protocol::Udp, .. }) {
                all.push(VirtualSettings { one_packet: true, ..base.clone() });
            }
        }
        if self.persistence {
            let granularities = match id.family() {
                Family::V4 => [[255, 255, 255, 255], [255, 255, 255, 0], [255, 0, 0, 0]]
                    .map(|mask| Granularity::V4(Ipv4Addr::from(mask))),
                Family::V6 => [128, 64, 1].map(Granularity::V6),
            };
            for (granularity, timeout) in granularities.into_iter().zip([1, 600, 86_400]) {
                let persistence = Some(Persistence { timeout, granularity, engine: None });
                all.push(VirtualSettings { persistence, ..base.clone() });
            }
        }
        all
    }

    fn real_settings(&self, id: &VirtualId, real: RealId) -> Vec<RealSettings> {
        let mixed = id.family() != Family::of(real.0.ip());
        let forwards: Vec<_> =
            self.forwards.iter().filter(|f| !mixed || matches!(f, Forward::Ipip(_))).copied().collect();
        let Some(&forward) = forwards.first() else { return Vec::new() };
        let base = RealSettings::new(forward, Weight(1));
        let mut all: Vec<_> = forwards.into_iter().map(|forward| RealSettings { forward, ..base }).collect();
        all.extend([0, 100, self.max_weight].map(|weight| RealSettings { weight: Weight(weight), ..base }));
        if self.thresholds {
            for (upper_threshold, lower_threshold) in [(300, 200), (1, 0), (7, 7)] {
                all.push(RealSettings { upper_threshold, lower_threshold, ..base });
            }
        }
        all
    }

    /// Real servers of a virtual: on its port, so that direct routing is possible.
    fn reals(&self, id: &VirtualId) -> Vec<RealId> {
        let v4 = [11, 12, 13].map(|host| IpAddr::from(Ipv4Addr::new(10, 0, 0, host)));
        let v6 = [0x11, 0x12].map(|host| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 1, host)));
        let addresses = v4.into_iter().chain(v6);
        let reals = addresses.map(|ip| RealId(SocketAddr::new(ip, id.port().unwrap_or(0))));
        reals.filter(|real| !self.real_settings(id, *real).is_empty()).collect()
    }
}

/// Checks everything that the contract says; panics with the op and the difference.
pub(crate) async fn suite<D: Dataplane>(dataplane: D, can: Abilities) {
    let mut trial = Trial { dataplane, expected: Table::default() };
    trial.compare("at the start").await;
    for id in can.ids() {
        what_is_missing_cannot_be_changed(&mut trial, &can, id).await;
        every_setting_of_a_virtual_is_kept(&mut trial, &can, id).await;
        every_setting_of_a_real_is_kept(&mut trial, &can, id).await;
        a_virtual_takes_its_reals_with_it(&mut trial, &can, id).await;
    }
    virtuals_do_not_mix(&mut trial, &can).await;
    any_order_of_changes_is_answered_like_the_table(&mut trial, &can).await;
}

/// A dataplane and what it must hold.
struct Trial<D> {
    dataplane: D,
    expected: Table,
}

impl<D: Dataplane> Trial<D> {
    /// A change that succeeds. The caller says so itself: `Table::apply` is on trial too when it is the dataplane.
    async fn step(&mut self, op: Op) {
        assert_eq!(self.attempt(&op).await, Ok(()), "{op}");
        let found = self.expected.virtuals.get(op.virtual_id());
        match &op {
            Op::AddVirtual(_, settings) | Op::SetVirtual(_, settings) => {
                assert_eq!(&found.unwrap().settings, settings, "{op}");
            }
            Op::AddReal(_, real, settings) | Op::SetReal(_, real, settings) => {
                assert_eq!(&found.unwrap().reals[real], settings, "{op}");
            }
            Op::DeleteVirtual(_) => assert_eq!(found, None, "{op}"),
            Op::DeleteReal(_, real) => assert!(!found.unwrap().reals.contains_key(real), "{op}"),
        }
    }

    /// A change that is refused for this reason.
    async fn refused(&mut self, op: Op, reason: TableError) {
        assert_eq!(self.attempt(&op).await, Err(reason), "{op}");
    }

    /// Makes a change on both sides and compares the answers, then the tables.
    async fn attempt(&mut self, op: &Op) -> Result<(), TableError> {
        let expected = self.expected.apply(op);
        match (self.dataplane.apply(op).await, expected) {
            (Ok(()), Ok(())) => {}
            (Err(Error::Table(got)), Err(want)) => assert_eq!(got, want, "{op}"),
            (got, want) => panic!("{op}: {got:?} where the contract says {want:?}"),
        }
        self.compare(&op.to_string()).await;
        expected
    }

    async fn compare(&mut self, after: &str) {
        let dump = self.dataplane.dump().await.unwrap();
        assert_eq!(dump.table, self.expected, "after {after}");
        let virtuals: BTreeSet<_> = dump.table.virtuals.keys().collect();
        assert!(
            dump.counters.virtuals.keys().all(|id| virtuals.contains(id)),
            "counters without virtual after {after}"
        );
        for (id, real) in dump.counters.reals.keys() {
            let counted = dump.table.virtuals.get(id).is_some_and(|v| v.reals.contains_key(real));
            assert!(counted, "counters of {real} without the real server after {after}");
        }
    }

    async fn clear(&mut self) {
        for id in self.expected.virtuals.keys().copied().collect::<Vec<_>>() {
            self.step(Op::DeleteVirtual(id)).await;
        }
    }
}

async fn what_is_missing_cannot_be_changed<D: Dataplane>(
    trial: &mut Trial<D>,
    can: &Abilities,
    id: VirtualId,
) {
    let settings = can.virtual_settings(&id)[0].clone();
    let real = can.reals(&id)[0];
    let real_settings = can.real_settings(&id, real)[0];
    trial.refused(Op::SetVirtual(id, settings.clone()), TableError::NoVirtual).await;
    trial.refused(Op::DeleteVirtual(id), TableError::NoVirtual).await;
    trial.refused(Op::AddReal(id, real, real_settings), TableError::NoVirtual).await;
    trial.refused(Op::SetReal(id, real, real_settings), TableError::NoVirtual).await;
    trial.refused(Op::DeleteReal(id, real), TableError::NoVirtual).await;

    trial.step(Op::AddVirtual(id, settings.clone())).await;
    trial.refused(Op::AddVirtual(id, settings), TableError::Exists).await;
    trial.refused(Op::SetReal(id, real, real_settings), TableError::NoReal).await;
    trial.refused(Op::DeleteReal(id, real), TableError::NoReal).await;
    trial.step(Op::AddReal(id, real, real_settings)).await;
    // Twice is refused with other settings too: identity is not settings.
    for other in can.real_settings(&id, real) {
        trial.refused(Op::AddReal(id, real, other), TableError::Exists).await;
    }
    trial.step(Op::DeleteReal(id, real)).await;
    trial.refused(Op::DeleteReal(id, real), TableError::NoReal).await;
    trial.clear().await;
}

async fn every_setting_of_a_virtual_is_kept<D: Dataplane>(
    trial: &mut Trial<D>,
    can: &Abilities,
    id: VirtualId,
) {
    let all = can.virtual_settings(&id);
    for settings in &all {
        trial.step(Op::AddVirtual(id, settings.clone())).await;
        trial.step(Op::DeleteVirtual(id)).await;
    }
    // From each to the next and back: nothing of the old one may shine through, its real servers stay.
    trial.step(Op::AddVirtual(id, all[0].clone())).await;
    let real = can.reals(&id)[0];
    trial.step(Op::AddReal(id, real, can.real_settings(&id, real)[0])).await;
    for settings in all.iter().chain(all.iter().rev()) {
        trial.step(Op::SetVirtual(id, settings.clone())).await;
    }
    trial.clear().await;
}

async fn every_setting_of_a_real_is_kept<D: Dataplane>(trial: &mut Trial<D>, can: &Abilities, id: VirtualId) {
    trial.step(Op::AddVirtual(id, can.virtual_settings(&id)[0].clone())).await;
    for real in can.reals(&id) {
        let all = can.real_settings(&id, real);
        for settings in &all {
            trial.step(Op::AddReal(id, real, *settings)).await;
            trial.step(Op::DeleteReal(id, real)).await;
        }
        trial.step(Op::AddReal(id, real, all[0])).await;
        for settings in all.iter().chain(all.iter().rev()) {
            trial.step(Op::SetReal(id, real, *settings)).await;
        }
    }
    trial.clear().await;
}

async fn a_virtual_takes_its_reals_with_it<D: Dataplane>(
    trial: &mut Trial<D>,
    can: &Abilities,
    id: VirtualId,
) {
    let settings = can.virtual_settings(&id)[0].clone();
    trial.step(Op::AddVirtual(id, settings.clone())).await;
    for real in can.reals(&id) {
        trial.step(Op::AddReal(id, real, can.real_settings(&id, real)[0])).await;
    }
    trial.step(Op::DeleteVirtual(id)).await;
    trial.step(Op::AddVirtual(id, settings)).await;
    assert!(trial.expected.virtuals[&id].reals.is_empty());
    trial.clear().await;
}

/// All at once, each with settings of its own, then each changed and removed in turn.
async fn virtuals_do_not_mix<D: Dataplane>(trial: &mut Trial<D>, can: &Abilities) {
    let ids = can.ids();
    for (n, id) in ids.iter().enumerate() {
        let all = can.virtual_settings(id);
        trial.step(Op::AddVirtual(*id, all[n % all.len()].clone())).await;
        for real in can.reals(id) {
            let settings =
                RealSettings { weight: Weight(u32::try_from(n).unwrap()), ..can.real_settings(id, real)[0] };
            trial.step(Op::AddReal(*id, real, settings)).await;
        }
    }
    for id in ids {
        let real = can.reals(&id)[0];
        trial.step(Op::SetReal(id, real, can.real_settings(&id, real)[0])).await;
        trial.step(Op::DeleteReal(id, real)).await;
        trial.step(Op::DeleteVirtual(id)).await;
    }
}

async fn any_order_of_changes_is_answered_like_the_table<D: Dataplane>(
    trial: &mut Trial<D>,
    can: &Abilities,
) {
    // Few names, so that most changes meet something; a fixed seed, so that a failure comes back.
    let mut random = fastrand::Rng::with_seed(25);
    let ids: Vec<_> = can.ids().into_iter().take(3).collect();
    for _ in 0..400 {
        let id = ids[random.usize(..ids.len())];
        let reals = can.reals(&id);
        let real = reals[random.usize(..reals.len().min(2))];
        let virtuals = can.virtual_settings(&id);
        let virtual_settings = virtuals[random.usize(..virtuals.len())].clone();
        let settings = can.real_settings(&id, real);
        let real_settings = settings[random.usize(..settings.len())];
        let op = match random.u8(..12) {
            0..2 => Op::AddVirtual(id, virtual_settings),
            2..4 => Op::SetVirtual(id, virtual_settings),
            4 => Op::DeleteVirtual(id),
            5..8 => Op::AddReal(id, real, real_settings),
            8..10 => Op::SetReal(id, real, real_settings),
            _ => Op::DeleteReal(id, real),
        };
        // The table says whether it may be refused.
        let _ = trial.attempt(&op).await;
    }
    trial.clear().await;
}
