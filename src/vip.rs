//! The probe through the VIP: does a client reach this one server, the way that a client goes?
//!
//! Owns the private services of the kernel that lead a marked connection to one server ([`Vip`]), which of the checks use
//! them ([`add_probes`]), and what a failure there means in words. Refuses to know sockets; `settings` looks at the
//! director's own. Cannot fail, but for marks that are used up, which leaves servers without a probe.
//!
//! A private service is a firewall mark with one server behind it: it serves nobody, so it needs no weight law, no drain
//! and no place in what is shown of the farm. It is told from everybody else's by its mark, which is in a reserved
//! range, and by a flag of its scheduler that no scheduler knows (`flag-3` in `ipvsadm -Ln`).

pub mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use checks::{CheckSpec, Failure, Kind, Reason, Stage, Via};

use crate::config::{CheckPlan, Config, RealConfig, Tier, VirtualConfig};
use crate::model::{
    Family, Forward, Protocol, RealId, RealSettings, Scheduler, SchedulerFlags, Table, Virtual, VirtualId,
    VirtualSettings, Weight,
};

/// The first reserved mark unless the configuration says otherwise: the letters `LV`.
pub const FIRST_MARK: u32 = 0x4c56_0000;
/// How many marks are reserved: four for each real server that a file can have, so that few want the same.
pub const MARKS: u32 = 65_536;

/// What the probes through the VIP need of the kernel's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    /// The first of [`MARKS`] reserved marks.
    pub first_mark: u32,
    /// The private services.
    pub services: BTreeMap<VirtualId, Virtual>,
}

impl Default for Vip {
    fn default() -> Self {
        Self { first_mark: FIRST_MARK, services: BTreeMap::new() }
    }
}

impl Vip {
    fn reserves(&self, id: &VirtualId) -> bool {
        matches!(id, VirtualId::Fwmark { mark, .. } if mark.checked_sub(self.first_mark).is_some_and(|n| n < MARKS))
    }

    /// The services of `table` that are ours by mark and flag, wanted or left by an earlier run.
    pub fn ours<'a>(&'a self, table: &'a Table) -> impl Iterator<Item = VirtualId> + 'a {
        let ours = |(id, have): &(&VirtualId, &Virtual)| self.reserves(id) && have.settings == settings();
        table.virtuals.iter().filter(ours).map(|(id, _)| *id)
    }

    /// The services of `table` that somebody else has under a mark that is needed.
    #[must_use]
    pub fn taken(&self, table: &Table) -> BTreeSet<VirtualId> {
        let foreign =
            |id: &&VirtualId| table.virtuals.get(id).is_some_and(|have| have.settings != settings());
        self.services.keys().filter(foreign).copied().collect()
    }

    /// Why these marks cannot be used; `None` where they can.
    #[must_use]
    pub fn refusal(&self, table: &Table) -> Option<String> {
        let taken: Vec<_> = self.taken(table).iter().map(ToString::to_string).collect();
        (!taken.is_empty()).then(|| {
            format!(
                "vip_check needs marks that somebody else has a service for: {}; choose another vip_marks",
                taken.join(", ")
            )
        })
    }

    /// Whether the service of a probe is in the table: without it its connection goes to any server.
    #[must_use]
    pub fn is_laid(&self, plan: &CheckPlan, table: &Table) -> bool {
        let Some(via) = plan.spec.via else { return true };
        let id = VirtualId::Fwmark { mark: via.mark, family: Family::of(plan.spec.target.ip()) };
        let wanted = self.services.get(&id);
        wanted.is_some() && wanted == table.virtuals.get(&id)
    }
}

/// What all private services are set to.
fn settings() -> VirtualSettings {
    VirtualSettings { flags: SchedulerFlags::THIRD, ..VirtualSettings::new(Scheduler::Rr) }
}

/// Adds a probe to each real server of `config` that can have one, and its service to `vip`. A mark depends on the server
/// and hardly on its neighbours, so that it is the same after a reload or a restart.
pub fn add_probes(config: &mut VirtualConfig, vip: &mut Vip) {
    let VirtualId::Address { protocol: Protocol::Tcp, address } = config.id else { return };
    for real in &mut config.reals {
        let RealConfig { id, settings: RealSettings { forward, .. }, checks, .. } = real;
        let ip = id.0.ip();
        let alike = Family::of(ip) == Family::of(address.ip());
        if !matches!(forward, Forward::Gate | Forward::Ipip(_)) || !alike {
            continue;
        }
        let Some(base) = checks.iter().find(|plan| plan.tier == Tier::Base) else { continue };
        let Some(mark) = vip.lead_to(ip, *forward) else { continue };
        let kind = if connects(&base.spec.kind) { base.spec.kind.clone() } else { Kind::Connect };
        let spec =
            CheckSpec { target: address, kind, via: Some(Via { mark, server: ip }), ..base.spec.clone() };
        let probe = CheckPlan { spec, tier: Tier::Vip, connects_between: 0, ..base.clone() };
        checks.push(probe);
    }
}

/// Whether this kind of check is a TCP connection to the port of the service.
fn connects(kind: &Kind) -> bool {
    match kind {
        Kind::Connect | Kind::Smtp(_) | Kind::Http(_) | Kind::Line(_) | Kind::SimpleTcp(_) => true,
        Kind::Ldap(_) | Kind::Mysql(_) | Kind::Pgsql(_) => true,
        Kind::Ping | Kind::External(_) | Kind::Dns(_) | Kind::Radius(_) | Kind::Sip(_) => false,
    }
}

impl Vip {
    /// The mark that leads to this server by this way; `None` when all are used up.
    fn lead_to(&mut self, ip: IpAddr, forward: Forward) -> Option<u32> {
        let family = Family::of(ip);
        let service = Virtual {
            settings: settings(),
            reals: [(RealId(SocketAddr::new(ip, 0)), RealSettings::new(forward, Weight(1)))].into(),
        };
        let start = hash(&format!("{ip} {forward:?}")) % MARKS;
        let marks = (0..MARKS).map(|step| self.first_mark + (start + step) % MARKS);
        for mark in marks {
            let id = VirtualId::Fwmark { mark, family };
            match self.services.get(&id) {
                Some(other) if *other != service => {}
                Some(_) => return Some(mark),
                None => {
                    self.services.insert(id, service);
                    return Some(mark);
                }
            }
        }
        None
    }
}

/// FNV-1a, 32 bits: the same in every version of this program.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// The configuration without its probes through the VIP, for who has no IPVS to lead them.
#[must_use]
pub fn without_probes(mut config: Config) -> Config {
    config.vip.services.clear();
    for real in config.virtuals.iter_mut().flat_map(|v| &mut v.reals) {
        real.checks.retain(|plan| plan.tier != Tier::Vip);
    }
    config
}

/// Says what a failure through the VIP means: the server itself may well be well.
#[must_use]
pub fn explain(failure: Failure, vip: IpAddr, server: IpAddr) -> Failure {
    let text = match (failure.reason, failure.stage) {
        (Reason::Timeout | Reason::Unreachable, Stage::Connect) => {
            format!("through the VIP {vip}: it is missing on lo of {server}, or a firewall there drops it")
        }
        (Reason::Refused, _) => {
            format!(
                "through the VIP {vip}: nothing listens on it on {server}, or a firewall there refuses it"
            )
        }
        (Reason::Local, _) => failure.text,
        _ if failure.text.is_empty() => format!("through the VIP {vip} on {server}"),
        _ => format!("through the VIP {vip} on {server}: {}", failure.text),
    };
    Failure { text, ..failure }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::native::lower;

    fn farm(options: &str, reals: &str) -> Config {
        let reals = reals.replace(';', "\n");
        let text = format!("[[virtual]]\naddress = \"192.0.2.25:25\"\nvip_check = true\n{options}\n{reals}");
        lower(&text, &[], "director.example").unwrap_or_else(|problems| panic!("{problems:?}\n{text}"))
    }

    const TWO: &str = "[[virtual.real]];address = \"10.0.0.11\";[[virtual.real]];address = \"10.0.0.12\";";

    #[test]
    fn each_server_has_a_probe_and_a_service_of_its_own() {
        let config = farm("", TWO);
        assert_eq!(config.vip.services.len(), 2);
        for real in &config.virtuals[0].reals {
            let [base, probe] = &real.checks[..] else { panic!("{:?}", real.checks) };
            assert_eq!((base.tier, probe.tier), (Tier::Base, Tier::Vip));
            assert_eq!(probe.spec.target, "192.0.2.25:25".parse().unwrap());
            assert_eq!(probe.spec.kind, base.spec.kind);
            let via = probe.spec.via.unwrap();
            assert_eq!(probe.spec.server(), real.id.0);
            let service = &config.vip.services[&VirtualId::Fwmark { mark: via.mark, family: Family::V4 }];
            let to = RealId(SocketAddr::new(real.id.0.ip(), 0));
            assert_eq!(service.reals[&to], RealSettings::new(Forward::Gate, Weight(1)));
        }
    }

    #[test]
    fn a_mark_outlives_a_change_of_the_neighbours() {
        let marks = |config: &Config| -> BTreeMap<IpAddr, u32> {
            let plans = config.virtuals.iter().flat_map(|v| &v.reals).flat_map(|real| &real.checks);
            plans.filter_map(|plan| plan.spec.via).map(|via| (via.server, via.mark)).collect()
        };
        let (two, one) = (marks(&farm("", TWO)), marks(&farm("", &TWO.replace("10.0.0.11", "10.0.0.10"))));
        let second: IpAddr = [10, 0, 0, 12].into();
        assert_eq!(two[&second], one[&second]);
        assert!(two.values().all(|mark| (FIRST_MARK..FIRST_MARK + MARKS).contains(mark)));
        let moved = marks(&farm("", TWO).virtuals_of("vip_marks = 256\n"));
        assert!(moved.values().all(|mark| (256..256 + MARKS).contains(mark)));
    }

    impl Config {
        /// The same farm with a line at the top.
        fn virtuals_of(&self, top: &str) -> Self {
            let reals: String = self.virtuals[0]
                .reals
                .iter()
                .map(|real| format!("[[virtual.real]]\naddress = \"{}\"\n", real.id.0.ip()))
                .collect();
            let text = format!("{top}[[virtual]]\naddress = \"192.0.2.25:25\"\nvip_check = true\n{reals}");
            lower(&text, &[], "director.example").unwrap()
        }
    }

    #[test]
    fn only_what_goes_by_gate_or_tunnel_has_a_probe() {
        let mixed = "[[virtual.real]];address = \"10.0.0.11\";forward = \"masq\";\
                     [[virtual.real]];address = \"10.0.0.12\";forward = \"ipip\";";
        let config = farm("", mixed);
        let probed: Vec<_> = config.virtuals[0].reals.iter().map(|real| real.checks.len()).collect();
        assert_eq!(probed, [1, 2]);
        assert_eq!(without_probes(config).virtuals[0].reals[1].checks.len(), 1);
    }

    #[test]
    fn ours_are_told_from_others_by_mark_and_flag() {
        let vip = farm("", TWO).vip;
        let mut table = Table { virtuals: vip.services.clone() };
        let foreign = Virtual::new(VirtualSettings::new(Scheduler::Rr));
        let fwmark = |mark| VirtualId::Fwmark { mark, family: Family::V4 };
        table.virtuals.insert(fwmark(FIRST_MARK), foreign.clone());
        table.virtuals.insert(fwmark(7), Virtual::new(settings()));
        assert!(vip.ours(&table).eq(vip.services.keys().copied()));
        assert_eq!(vip.refusal(&table), None, "a mark that is not needed may be anybody's");
        let id = *vip.services.keys().next().unwrap();
        table.virtuals.insert(id, foreign);
        assert!(vip.refusal(&table).unwrap().contains(&id.to_string()));
    }

    #[test]
    fn a_failure_names_the_server_and_what_to_look_at() {
        let (vip, server) = ([192, 0, 2, 25].into(), [10, 0, 0, 12].into());
        for (reason, stage, words) in [
            (Reason::Timeout, Stage::Connect, "missing on lo of 10.0.0.12"),
            (Reason::Refused, Stage::Connect, "nothing listens on it on 10.0.0.12"),
            (Reason::Tempfail, Stage::Banner, "through the VIP 192.0.2.25 on 10.0.0.12: 421 no"),
            (Reason::Local, Stage::Connect, "421 no"),
        ] {
            let failure = Failure { stage, reason, code: None, text: "421 no".to_owned() };
            let said = explain(failure, vip, server).text;
            assert!(said.contains(words) && said.len() <= 200, "{said}");
        }
    }
}
