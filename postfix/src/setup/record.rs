//! What was changed here, what was there before, and which VIPs need it.
//!
//! Owns [`Record`] and its rules: what is written down before a change is made, and what is to be undone when a VIP
//! goes. Refuses to touch a file. A change that is in the record may or may not have been made: undoing one that was
//! not is nothing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::change::Change;
use super::plan::Step;
use super::wish::{Forward, Wish};

/// The version of the file. A reader refuses others: it would undo what it does not understand.
const VERSION: u64 = 1;
/// Most changes that are believed.
const MOST: usize = 65536;

/// The whole record of a box.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    version: u64,
    vips: BTreeMap<IpAddr, Way>,
    entries: Vec<Entry>,
}

/// How a VIP was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Way {
    pub(crate) forward: Forward,
    pub(crate) dummy: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    change: Change,
    needs: BTreeSet<IpAddr>,
}

impl Record {
    /// Reads what [`Record::render`] wrote.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let record: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        match record.version {
            VERSION if record.entries.len() <= MOST => Ok(record),
            VERSION => Err("too many changes".to_owned()),
            other => Err(format!("version {other} is of another smtp-realserver")),
        }
    }

    pub(crate) fn render(&self) -> Result<String, String> {
        let record = Self { version: VERSION, ..self.clone() };
        serde_json::to_string_pretty(&record).map(|text| text + "\n").map_err(|error| error.to_string())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.vips.is_empty() && self.entries.is_empty()
    }

    /// What was asked for: wishes that differ in more than their VIPs.
    pub(crate) fn wishes(&self) -> Vec<Wish> {
        let mut wishes: Vec<Wish> = Vec::new();
        for (vip, way) in &self.vips {
            match wishes.iter_mut().find(|wish| wish.forward == way.forward && wish.dummy == way.dummy) {
                Some(wish) => wish.vips.push(*vip),
                None => wishes.push(Wish {
                    forward: way.forward,
                    vips: vec![*vip],
                    dummy: way.dummy.clone(),
                    directors: Vec::new(),
                }),
            }
        }
        wishes
    }

    pub(crate) fn vips(&self) -> Vec<IpAddr> {
        self.vips.keys().copied().collect()
    }

    /// A VIP of the wish that was set up in another way.
    pub(crate) fn contradicts(&self, wish: &Wish) -> Option<(IpAddr, &Way)> {
        let other = |way: &Way| way.forward != wish.forward || way.dummy != wish.dummy;
        wish.vips.iter().find_map(|vip| Some((*vip, self.vips.get(vip).filter(|way| other(way))?)))
    }

    /// Writes down a wish and its steps. What was there before our first change stays written.
    pub(crate) fn begin(&mut self, wish: &Wish, steps: &[Step]) {
        for vip in &wish.vips {
            self.vips.insert(*vip, Way { forward: wish.forward, dummy: wish.dummy.clone() });
        }
        for step in steps {
            let target = step.change.target();
            match self.entries.iter_mut().find(|entry| entry.change.target() == target) {
                Some(entry) => {
                    entry.needs.extend(&step.needs);
                    if !step.so {
                        entry.change = later(&entry.change, &step.change);
                    }
                }
                // What was so by others is not ours to undo.
                None if step.so => {}
                None => self.entries.push(Entry { change: step.change.clone(), needs: step.needs.clone() }),
            }
        }
    }

    /// Takes VIPs out. Returns what nobody needs any more, in the order in which it is undone; it stays in the record
    /// until [`Record::forget`].
    pub(crate) fn release(&mut self, vips: &[IpAddr]) -> Vec<Change> {
        for vip in vips {
            self.vips.remove(vip);
        }
        for entry in &mut self.entries {
            entry.needs.retain(|vip| !vips.contains(vip));
        }
        let unneeded = self.entries.iter().filter(|entry| entry.needs.is_empty());
        let mut changes: Vec<_> = unneeded.map(|entry| entry.change.clone()).collect();
        changes.reverse();
        changes.sort_by_key(|change| Reverse(change.rank()));
        changes
    }

    /// A change is undone.
    pub(crate) fn forget(&mut self, change: &Change) {
        self.entries.retain(|entry| entry.change != *change);
    }
}

/// The last value of the later change, and what was there before the first.
fn later(first: &Change, last: &Change) -> Change {
    match (first, last) {
        (Change::Setting { before, .. }, Change::Setting { key, after, .. }) => {
            Change::Setting { key: key.clone(), before: before.clone(), after: after.clone() }
        }
        (Change::Route { before, .. }, Change::Route { v6, after, .. }) => {
            Change::Route { v6: *v6, before: before.clone(), after: after.clone() }
        }
        (Change::Conf { before: first, .. }, Change::Conf { .. }) => {
            let mut last = last.clone();
            if let Change::Conf { before, .. } = &mut last {
                before.clone_from(first);
            }
            last
        }
        _ => last.clone(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn wish(last: u8) -> Wish {
        Wish { forward: Forward::Gate, vips: vec![vip(last)], dummy: None, directors: Vec::new() }
    }

    fn step(change: Change, last: u8, so: bool) -> Step {
        Step { change, needs: [vip(last)].into(), so, wrong: String::new(), effect: String::new() }
    }

    fn setting(before: &str, after: &str) -> Change {
        let key = "net/ipv4/conf/all/arp_ignore".to_owned();
        Change::Setting { key, before: before.to_owned(), after: after.to_owned() }
    }

    fn address(last: u8) -> Change {
        Change::Address { ip: vip(last), link: "lo".to_owned(), label: None }
    }

    #[test]
    fn what_another_vip_needs_stays() {
        let mut record = Record::default();
        record.begin(&wish(1), &[step(setting("0", "1"), 1, false), step(address(1), 1, false)]);
        record.begin(&wish(2), &[step(setting("1", "1"), 2, true), step(address(2), 2, false)]);
        let read = Record::parse(&record.render().unwrap()).unwrap();
        assert_eq!(read.entries, record.entries);
        assert_eq!(record.release(&[vip(1)]), [address(1)]);
        record.forget(&address(1));
        // The address goes before what hides it, and the setting gets the value that it had at first.
        assert_eq!(record.release(&[vip(2)]), [address(2), setting("0", "1")]);
        record.forget(&address(2));
        record.forget(&setting("0", "1"));
        assert!(record.is_empty());
    }

    #[test]
    fn what_others_set_is_not_ours_to_undo() {
        let mut record = Record::default();
        record.begin(&wish(1), &[step(setting("1", "1"), 1, true), step(address(1), 1, false)]);
        assert_eq!(record.release(&[vip(1)]), [address(1)]);
    }

    #[test]
    fn the_first_value_is_given_back_after_a_second_change() {
        let mut record = Record::default();
        record.begin(&wish(1), &[step(setting("0", "1"), 1, false)]);
        record.begin(&wish(1), &[step(setting("3", "1"), 1, false)]);
        assert_eq!(record.release(&[vip(1)]), [setting("0", "1")]);
    }

    #[test]
    fn a_vip_that_is_set_up_in_another_way_is_seen() {
        let mut record = Record::default();
        record.begin(&wish(1), &[]);
        assert_eq!(record.contradicts(&wish(1)), None);
        let other = Wish { dummy: Some("mail0".to_owned()), ..wish(1) };
        assert_eq!(record.contradicts(&other).map(|(vip, _)| vip), Some(vip(1)));
        assert_eq!(record.wishes(), [wish(1)]);
    }

    #[test]
    fn a_record_of_another_version_is_refused() {
        for bad in [
            "",
            "{}",
            r#"{"version":2,"vips":{},"entries":[]}"#,
            r#"{"version":1,"vips":{},"entries":[],"x":1}"#,
        ] {
            assert!(Record::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_record_or_none(text in ".{0,200}") {
            let _ = Record::parse(&text);
        }
    }
}
