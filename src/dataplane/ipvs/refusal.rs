//! What an errno means: the kernel's number and the change that it refuses, in words that help a person.
//!
//! Owns the meaning (`errno` and op to [`Error`]); IPVS fills in no extended ACK text, so the number is all there
//! is. Never fails: a number that it does not know stays a number.

use std::io;

use super::wire::Errno;
use crate::dataplane::Error;
use crate::model::{Family, Forward, Op, RealId, RealSettings, Scheduler, TableError, Tunnel, VirtualId};
use crate::model::{VirtualSettings, Weight};

/// Why `op` was refused.
pub(super) fn of_op(op: &Op, errno: Errno) -> Error {
    match (errno.0, op) {
        (libc::EEXIST, _) => TableError::Exists.into(),
        (libc::ESRCH, _) => TableError::NoVirtual.into(),
        (libc::ENOENT, Op::AddVirtual(_, settings) | Op::SetVirtual(_, settings)) => no_module(settings),
        (libc::ENOENT, _) => TableError::NoReal.into(),
        (libc::EINVAL | libc::ERANGE | libc::EAFNOSUPPORT, _) => {
            Error::Invalid(format!("\"{op}\": {}", reason(op, errno)))
        }
        _ => of_query(errno),
    }
}

/// Why a question, or a change of something other than the table, was refused.
pub(super) fn of_query(errno: Errno) -> Error {
    match errno.0 {
        libc::EPERM | libc::EACCES => Error::Permission,
        // The controller knows no such family, or the module was unloaded and its number with it.
        libc::ENOENT => Error::NotAvailable,
        number => Error::Io(io::Error::from_raw_os_error(number)),
    }
}

/// The kernel looks for the scheduler first and does not say which of the two it missed. An engine is rare and
/// almost every kernel has the old schedulers, so the engine is the likelier one.
fn no_module(settings: &VirtualSettings) -> Error {
    let engine = settings.persistence.as_ref().and_then(|persistence| persistence.engine.as_deref());
    match (engine, &settings.scheduler) {
        (None, scheduler) | (Some(_), scheduler @ (Scheduler::Twos | Scheduler::Other(_))) => {
            Error::NoModule { kind: "scheduler", name: scheduler.name().to_owned() }
        }
        (Some(engine), _) => Error::NoModule { kind: "persistence engine", name: format!("pe_{engine}") },
    }
}

fn reason(op: &Op, errno: Errno) -> String {
    if errno.0 == libc::EAFNOSUPPORT {
        return "this kernel's IPVS has no IPv6".to_owned();
    }
    let found = match op {
        Op::AddReal(id, real, settings) | Op::SetReal(id, real, settings) => real_fault(id, *real, settings),
        Op::AddVirtual(_, settings) | Op::SetVirtual(_, settings) => virtual_fault(settings),
        Op::DeleteVirtual(_) | Op::DeleteReal(..) => None,
    };
    found.unwrap_or_else(|| match errno.0 {
        libc::ERANGE => "a number is out of range".to_owned(),
        _ => "a value is invalid".to_owned(),
    })
}

const INT_MAX: u32 = i32::MAX as u32;

fn real_fault(id: &VirtualId, real: RealId, settings: &RealSettings) -> Option<String> {
    let RealSettings { forward, weight: Weight(weight), upper_threshold: upper, lower_threshold: lower } =
        *settings;
    let family = Family::of(real.0.ip());
    if weight > INT_MAX {
        Some(format!("the weight is above {INT_MAX}"))
    } else if lower > upper {
        Some(format!("the lower threshold {lower} is above the upper threshold {upper}"))
    } else if upper > INT_MAX {
        Some(format!("the upper threshold is above {INT_MAX}"))
    } else if family != id.family() && !matches!(forward, Forward::Ipip(_)) {
        Some("a real server of the other address family needs a tunnel".to_owned())
    } else if matches!(forward, Forward::Ipip(Tunnel::Gue { port: 0, .. })) {
        Some("a gue tunnel needs a port".to_owned())
    } else {
        Some(format!("{} is not the address of one host, or cannot be reached that way", real.0.ip()))
    }
}

fn virtual_fault(settings: &VirtualSettings) -> Option<String> {
    let persistence = settings.persistence.as_ref()?;
    Some(format!(
        "persistence of {} s with granularity {:?}, or scheduler {} for this kind of virtual, is invalid",
        persistence.timeout, persistence.granularity, settings.scheduler
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Granularity, Persistence, SchedulerFlags};

    fn virtual_id() -> VirtualId {
        VirtualId::Fwmark { mark: 7, family: Family::V4 }
    }

    fn with_engine(scheduler: Scheduler, engine: Option<&str>) -> Op {
        let granularity = Granularity::host(Family::V4);
        let persistence = Some(Persistence { timeout: 60, granularity, engine: engine.map(Into::into) });
        let settings =
            VirtualSettings { scheduler, flags: SchedulerFlags::NONE, one_packet: false, persistence };
        Op::SetVirtual(virtual_id(), settings)
    }

    fn add(address: &str, settings: RealSettings) -> Op {
        Op::AddReal(virtual_id(), RealId(address.parse().unwrap()), settings)
    }

    fn gate() -> RealSettings {
        RealSettings::new(Forward::Gate, Weight(1))
    }

    #[test]
    fn every_number_says_what_a_person_can_do() {
        let real = || add("10.0.0.11:25", gate());
        let limits = RealSettings { upper_threshold: 1, lower_threshold: 2, ..gate() };
        let rows = [
            (real(), libc::EEXIST, "it exists already"),
            (real(), libc::ESRCH, "there is no such virtual"),
            (real(), libc::ENOENT, "the virtual has no such real server"),
            (
                with_engine(Scheduler::Wlc, None),
                libc::ENOENT,
                "no scheduler \"wlc\"; load it with `modprobe ip_vs_wlc`",
            ),
            (
                with_engine(Scheduler::Wlc, Some("sip")),
                libc::ENOENT,
                "engine \"pe_sip\"; load it with `modprobe ip_vs_pe_sip`",
            ),
            (with_engine(Scheduler::Twos, Some("sip")), libc::ENOENT, "no scheduler \"twos\""),
            (real(), libc::EPERM, "CAP_NET_ADMIN"),
            (add("10.0.0.11:25", limits), libc::ERANGE, "lower threshold 2 is above the upper threshold 1"),
            (add("[2001:db8::11]:25", gate()), libc::EINVAL, "needs a tunnel"),
            (add("[2001:db8::11]:25", gate()), libc::EAFNOSUPPORT, "this kernel's IPVS has no IPv6"),
            (Op::DeleteVirtual(virtual_id()), libc::EINVAL, "\"delete virtual FWM 7\": a value is invalid"),
            (real(), libc::ENOMEM, "netlink: "),
        ];
        for (op, errno, words) in rows {
            let said = of_op(&op, Errno(errno)).to_string();
            assert!(said.contains(words), "{op}: {said}");
        }
    }

    #[test]
    fn a_question_that_finds_nothing_means_that_there_is_no_ipvs() {
        assert!(matches!(of_query(Errno(libc::ENOENT)), Error::NotAvailable));
        assert!(matches!(of_query(Errno(libc::EPERM)), Error::Permission));
    }
}
