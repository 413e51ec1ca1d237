//! What happens, in the words of ldirectord: people watch logs and sort mails by them.
//!
//! Owns the sentences and who is written to. Refuses to know when something happens and where a sentence goes. Cannot
//! fail.
//!
//! A server that leaves is told of when it gets no new connections any more, not when the last one has ended.

use std::net::SocketAddr;

use checks::{Kind, Outcome};

use crate::config::{CheckPlan, VirtualConfig};
use crate::model::{Op, RealId, RealSettings, Table, VirtualId};

/// A sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Words {
    /// The sentence itself.
    pub(super) text: String,
    /// Whether it is worth a mail.
    pub(super) mail: Mail,
}

/// Whether a sentence is worth a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mail {
    Yes,
    No,
}

/// Whether the daemon goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Going {
    On,
    Down,
}

impl Going {
    fn word(self) -> &'static str {
        match self {
            Self::On => "start",
            Self::Down => "stop",
        }
    }
}

/// What ldirectord calls a virtual in a sentence.
pub(super) fn place(id: &VirtualId) -> String {
    match id {
        VirtualId::Address { address, .. } => address.to_string(),
        VirtualId::Fwmark { mark, .. } => mark.to_string(),
    }
}

/// What it calls one where the protocol matters.
fn full_place(id: &VirtualId) -> String {
    match id {
        VirtualId::Address { protocol, address } => {
            format!("{}:{address}", protocol.to_string().to_ascii_lowercase())
        }
        VirtualId::Fwmark { mark, .. } => format!("fwm:{mark}"),
    }
}

/// The sentences about a change that is made in `before`. `config` is that of its virtual, where it has one still.
pub(super) fn of_op(op: &Op, before: &Table, config: Option<&VirtualConfig>, going: Going) -> Vec<Words> {
    let id = op.virtual_id();
    let vip = place(id);
    let quiet = |text: String| vec![Words { text, mail: Mail::No }];
    match op {
        Op::AddVirtual(..) => quiet(format!("Added virtual server: {vip}")),
        Op::SetVirtual(..) => quiet(format!("Changed virtual server: {vip}")),
        Op::DeleteVirtual(_) => {
            // Who has no weight was told of when it lost it, and a fallback is not spoken of.
            let have = before.virtuals.get(id);
            let served = have.iter().flat_map(|have| &have.reals).filter(|(real, settings)| {
                settings.weight.takes_connections() && Who::of(real, config) != Who::Fallback
            });
            let purged = |(real, _)| Words { text: purged(real, id, going), mail: Mail::Yes };
            let mut all: Vec<Words> = served.map(purged).collect();
            all.extend(quiet(format!("Purged virtual server ({}): {vip}", going.word())));
            all
        }
        Op::AddReal(_, real, settings) | Op::SetReal(_, real, settings) => {
            let had = before.virtuals.get(id).and_then(|have| have.reals.get(real));
            let text = match verb(had, settings, Who::of(real, config)) {
                Verb::With(verb) => {
                    let kind = Who::of(real, config).kind();
                    format!("{verb} {kind}: {real} ({vip}) (Weight set to {})", settings.weight)
                }
                Verb::Without(verb) => format!("{verb}: {real} ({vip})"),
                Verb::None => return Vec::new(),
            };
            vec![Words { text, mail: Mail::Yes }]
        }
        Op::DeleteReal(_, real) => {
            let had = before.virtuals.get(id).and_then(|have| have.reals.get(real));
            let served = had.is_some_and(|had| had.weight.takes_connections());
            let text = match Who::of(real, config) {
                Who::Stranger => purged(real, id, going),
                who if served => format!("Deleted {}: {real} ({vip})", who.kind()),
                _ => return Vec::new(), // told when its weight went
            };
            vec![Words { text, mail: Mail::Yes }]
        }
    }
}

/// Whether no configuration has it any more.
pub(super) fn is_stranger(real: &RealId, config: Option<&VirtualConfig>) -> bool {
    Who::of(real, config) == Who::Stranger
}

/// What a destination is to its virtual.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Real { quiescent: bool },
    Fallback,
    Stranger,
}

impl Who {
    fn of(real: &RealId, config: Option<&VirtualConfig>) -> Self {
        match config {
            Some(config) if config.fallback.is_some_and(|(fallback, _)| fallback == *real) => Self::Fallback,
            Some(config) if config.reals.iter().any(|known| known.id == *real) => {
                Self::Real { quiescent: config.quiescent }
            }
            _ => Self::Stranger,
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Fallback => "fallback server",
            Self::Real { .. } | Self::Stranger => "real server",
        }
    }
}

enum Verb {
    /// And the weight after it.
    With(&'static str),
    Without(&'static str),
    None,
}

fn verb(had: Option<&RealSettings>, has: &RealSettings, who: Who) -> Verb {
    let had = had.map(|settings| settings.weight);
    if has.weight.takes_connections() {
        return match had {
            None => Verb::With("Added"),
            Some(weight) if weight == has.weight => Verb::None,
            Some(_) => Verb::With("Restored"),
        };
    }
    match (who, had) {
        (_, Some(weight)) if !weight.takes_connections() => Verb::None,
        (Who::Real { quiescent: true }, _) => Verb::With("Quiescent"),
        (Who::Real { quiescent: false }, _) => Verb::Without("Deleted real server"),
        (Who::Fallback, _) => Verb::Without("Deleted fallback server"),
        (Who::Stranger, _) => Verb::Without("Purged real server (start)"),
    }
}

/// A server that was well has failed, and not often enough.
pub(super) fn soft_failure(server: SocketAddr, id: &VirtualId, (count, of): (u32, u32)) -> String {
    format!("Soft failure real server: {server} ({}) failure {count}/{of}", full_place(id))
}

/// And is well again.
pub(super) fn no_failure(server: SocketAddr, id: &VirtualId) -> String {
    format!("Resetting soft failure count: {server} ({})", full_place(id))
}

/// A server is not the daemon's any more.
pub(super) fn purged(real: &RealId, id: &VirtualId, going: Going) -> String {
    format!("Purged real server ({}): {real} ({})", going.word(), place(id))
}

/// A mail is written.
pub(super) fn alert(text: &str) -> String {
    format!("emailalert: {text}")
}

/// A server is down still.
pub(super) fn inaccessible(real: &RealId, id: &VirtualId) -> String {
    format!("Inaccessible real server: {real} ({})", place(id))
}

/// What a fallback command is told after its own arguments.
pub(super) fn fallback_arguments(action: &str, id: &VirtualId) -> [String; 3] {
    let protocol = match id {
        VirtualId::Address { protocol, .. } => protocol.to_string().to_ascii_lowercase(),
        VirtualId::Fwmark { .. } => "fwm".to_owned(),
    };
    [action.to_owned(), place(id), protocol]
}

/// What a monitor file has of an outcome, after time and process: who was asked, by the name that was given to it if any, `[up]` or
/// `[down]`, and why.
pub(super) fn monitor_line(plan: &CheckPlan, outcome: &Outcome, name: Option<&str>) -> String {
    let target = plan.spec.target;
    let word = match plan.spec.kind {
        Kind::Connect => "connect",
        Kind::Ping => "ping",
        Kind::External(_) => "external",
        _ => "negotiate",
    };
    let tier = plan.tier.name();
    let (state, why) = match &outcome.verdict {
        Ok(()) => ("up", "-".to_owned()),
        // One line, and no column of its own.
        Err(failure) => ("down", failure.to_string().replace('|', "%7c").replace('\n', "%0a")),
    };
    match name {
        Some(name) => format!("{name} [{state}] {why}"),
        None => format!("{word} {tier} {} {} [{state}] {why}", target.ip(), target.port()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Forward, Protocol, Scheduler, Virtual, VirtualSettings, Weight};

    fn id() -> VirtualId {
        VirtualId::Address { protocol: Protocol::Tcp, address: ([10, 0, 0, 9], 25).into() }
    }

    fn real(n: u8) -> RealId {
        RealId(([10, 0, 0, n], 25).into())
    }

    fn config(quiescent: bool) -> VirtualConfig {
        let text = format!(
            "[[virtual]]\naddress = \"10.0.0.9:25\"\nquiescent = {quiescent}\nfallback = \"10.0.0.8\"\n\
             real = [{{ address = \"10.0.0.1\" }}]\n"
        );
        crate::config::native::lower(&text, &[], "director.test").unwrap().virtuals.remove(0)
    }

    fn with(weight: Option<u32>, n: u8) -> Table {
        let mut one = Virtual::new(VirtualSettings::new(Scheduler::Wlc));
        one.reals.extend(weight.map(|weight| (real(n), settings(weight))));
        Table { virtuals: [(id(), one)].into() }
    }

    fn settings(weight: u32) -> RealSettings {
        RealSettings::new(Forward::Gate, Weight(weight))
    }

    #[test]
    fn changes_of_the_table_have_the_sentences_that_people_know() {
        for (quiescent, n, before, after, want) in [
            (true, 1, None, Some(5), "Added real server: 10.0.0.1:25 (10.0.0.9:25) (Weight set to 5)"),
            (true, 1, Some(0), Some(5), "Restored real server: 10.0.0.1:25 (10.0.0.9:25) (Weight set to 5)"),
            (true, 1, Some(5), Some(0), "Quiescent real server: 10.0.0.1:25 (10.0.0.9:25) (Weight set to 0)"),
            (true, 1, None, Some(0), "Quiescent real server: 10.0.0.1:25 (10.0.0.9:25) (Weight set to 0)"),
            (false, 1, Some(5), Some(0), "Deleted real server: 10.0.0.1:25 (10.0.0.9:25)"),
            (false, 1, Some(0), None, ""),
            (true, 8, None, Some(1), "Added fallback server: 10.0.0.8:25 (10.0.0.9:25) (Weight set to 1)"),
            (true, 8, Some(1), Some(0), "Deleted fallback server: 10.0.0.8:25 (10.0.0.9:25)"),
            (true, 8, Some(0), None, ""),
            (true, 7, Some(5), Some(0), "Purged real server (start): 10.0.0.7:25 (10.0.0.9:25)"),
            (true, 7, Some(0), None, "Purged real server (start): 10.0.0.7:25 (10.0.0.9:25)"),
            (true, 1, Some(5), Some(5), ""),
        ] {
            let op = match (before, after) {
                (None, Some(weight)) => Op::AddReal(id(), real(n), settings(weight)),
                (Some(_), Some(weight)) => Op::SetReal(id(), real(n), settings(weight)),
                _ => Op::DeleteReal(id(), real(n)),
            };
            let said = of_op(&op, &with(before, n), Some(&config(quiescent)), Going::On);
            let said: Vec<_> = said.into_iter().map(|words| words.text).collect();
            assert_eq!(said.join("\n"), want, "{op}");
        }
    }

    #[test]
    fn the_end_does_not_speak_of_who_has_no_weight_and_of_the_fallback() {
        for (n, weight) in [(1, 0), (8, 1)] {
            let said =
                of_op(&Op::DeleteVirtual(id()), &with(Some(weight), n), Some(&config(true)), Going::Down);
            assert_eq!(said.len(), 1, "{said:?}");
        }
    }

    #[test]
    fn the_end_purges_reals_and_virtual() {
        let said = of_op(&Op::DeleteVirtual(id()), &with(Some(5), 1), Some(&config(true)), Going::Down);
        let texts: Vec<_> = said.iter().map(|words| (words.text.as_str(), words.mail)).collect();
        assert_eq!(
            texts,
            [
                ("Purged real server (stop): 10.0.0.1:25 (10.0.0.9:25)", Mail::Yes),
                ("Purged virtual server (stop): 10.0.0.9:25", Mail::No),
            ]
        );
    }
}
