//! The report: how deep the queue of a Postfix is, whether mail leaves it, and what else decides how much it can take.
//!
//! Owns [`QueueReport`], the table of its figures (`FIELDS`: names, limits, how several instances add up) and the
//! formats below. Refuses to know where the figures come from and what weight follows from them. A figure that is not
//! known is `None` and left out of every format: never 0.

pub mod agent;
pub mod json;
mod text;
mod words;

use serde::{Deserialize, Serialize};

pub use text::render as render_text;
pub(crate) use words::digits;
pub use words::{Hundredths, MAX_VERSION, Source, Trouble, Version};

/// The version of both machine formats. A reader refuses others; a new figure is no new version.
pub const VERSION: u64 = 1;

/// Most messages of a count that is believed.
pub const MAX_COUNT: u64 = 1_000_000_000;
/// Longest age that is believed, in seconds: ten years.
pub const MAX_AGE: u64 = 10 * 366 * 86_400;
/// Most milliseconds that are believed of a report's age and cost: a day.
pub const MAX_MILLISECONDS: u64 = 86_400_000;
/// Largest number of any kind: what a JSON reader with doubles still holds exactly.
pub const MAX_NUMBER: u64 = (1 << 53) - 1;
/// What one Postfix instance, or the sum of several, looks like now.
///
/// Ages are whole seconds. Figures of the box (load, VIP) are the same in each instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueReport {
    /// How many instances this is the sum of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instances: Option<u64>,
    /// Where the queue figures come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Why there are no queue figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
    /// Messages that `qmgr` has not taken up yet, those that are still being received among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incoming: Option<u64>,
    /// Messages in delivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<u64>,
    /// Messages that wait for another attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deferred: Option<u64>,
    /// Messages that wait for the administrator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<u64>,
    /// Messages of local programs that `pickup` has not taken yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maildrop: Option<u64>,
    /// Messages that Postfix cannot read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrupt: Option<u64>,
    /// Names in the queues that are no queue ids, symbolic links among them. A few are normal while mail comes in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<u64>,
    /// Since the oldest message of incoming and active came to this box. One that is tried again brings its old age.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest: Option<u64>,
    /// The longest time that a message has been in incoming or active without being touched: an attempt to deliver
    /// old mail again does not count. What a message that comes now would have to wait, or less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u64>,
    /// Since the oldest message of deferred came to this box.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_deferred: Option<u64>,
    /// Every message was asked for its age; otherwise the ages are those of some, and the truth may be more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ages_exact: Option<bool>,
    /// Messages that left the queue for good since counting began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done: Option<u64>,
    /// Since counting began, in milliseconds. It goes back to 0 where the count may have missed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counted: Option<u64>,
    /// Messages that left for good, each second, over the last ten seconds at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Hundredths>,
    /// `master` runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master: Option<bool>,
    /// `qmgr` runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qmgr: Option<bool>,
    /// smtpd processes with a client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smtpd: Option<u64>,
    /// Most smtpd processes that `master` starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smtpd_limit: Option<u64>,
    /// Clients that are connected and that no process has taken yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smtpd_waiting: Option<u64>,
    /// Free space of the spool, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free: Option<u64>,
    /// Free inodes of the spool; not known where the file system has no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inodes: Option<u64>,
    /// Load average of the last minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<Hundredths>,
    /// The VIP, each one where there are several, is an address of this box.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vip_local: Option<bool>,
    /// This box neither answers ARP (or neighbour solicitations) for the VIP nor asks with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vip_hidden: Option<bool>,
    /// Something listens on the VIP and its port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vip_listens: Option<bool>,
    /// The version of Postfix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postfix: Option<Version>,
    /// How old the report was when it was said, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<u64>,
    /// How long it took to make, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<u64>,
}

/// Where a figure lives in a report.
pub(crate) enum Slot<'a> {
    Count(&'a mut Option<u64>),
    Flag(&'a mut Option<bool>),
    Hundredths(&'a mut Option<Hundredths>),
}

/// How the figure of a sum follows from those of the instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merge {
    /// All together; unknown if one is.
    Add,
    /// The largest; unknown if one is.
    Most,
    /// The smallest; unknown if one is.
    Least,
    /// Whether it holds for all. One that says no decides, even where another is unknown.
    All,
}

pub(crate) struct Field {
    pub(crate) key: &'static str,
    /// Largest number that is believed; of hundredths, in hundredths.
    pub(crate) most: u64,
    merge: Merge,
    pub(crate) slot: fn(&mut QueueReport) -> Slot<'_>,
}

const fn count(key: &'static str, merge: Merge, most: u64, slot: fn(&mut QueueReport) -> Slot<'_>) -> Field {
    Field { key, most, merge, slot }
}

const fn flag(key: &'static str, slot: fn(&mut QueueReport) -> Slot<'_>) -> Field {
    Field { key, most: 1, merge: Merge::All, slot }
}

/// Every figure, by the name that it has in all formats, in the order of the agent's line.
pub(crate) const FIELDS: [Field; 28] = {
    use Merge::{Add, Least, Most};
    use Slot::{Count, Flag, Hundredths};
    [
        count("instances", Add, 1000, |r| Count(&mut r.instances)),
        // HAProxy shows the first 128 bytes of what follows its words: why it is down belongs there.
        flag("master", |r| Flag(&mut r.master)),
        flag("qmgr", |r| Flag(&mut r.qmgr)),
        count("incoming", Add, MAX_COUNT, |r| Count(&mut r.incoming)),
        count("active", Add, MAX_COUNT, |r| Count(&mut r.active)),
        count("deferred", Add, MAX_COUNT, |r| Count(&mut r.deferred)),
        count("hold", Add, MAX_COUNT, |r| Count(&mut r.hold)),
        count("maildrop", Add, MAX_COUNT, |r| Count(&mut r.maildrop)),
        count("corrupt", Add, MAX_COUNT, |r| Count(&mut r.corrupt)),
        count("other", Add, MAX_COUNT, |r| Count(&mut r.other)),
        count("oldest", Most, MAX_AGE, |r| Count(&mut r.oldest)),
        count("waiting", Most, MAX_AGE, |r| Count(&mut r.waiting)),
        count("oldest_deferred", Most, MAX_AGE, |r| Count(&mut r.oldest_deferred)),
        flag("ages_exact", |r| Flag(&mut r.ages_exact)),
        count("done", Add, MAX_NUMBER, |r| Count(&mut r.done)),
        count("counted", Least, MAX_NUMBER, |r| Count(&mut r.counted)),
        count("rate", Add, 100 * MAX_COUNT, |r| Hundredths(&mut r.rate)),
        count("smtpd", Add, MAX_COUNT, |r| Count(&mut r.smtpd)),
        count("smtpd_limit", Add, MAX_COUNT, |r| Count(&mut r.smtpd_limit)),
        count("smtpd_waiting", Add, MAX_COUNT, |r| Count(&mut r.smtpd_waiting)),
        count("free", Least, MAX_NUMBER, |r| Count(&mut r.free)),
        count("inodes", Least, MAX_NUMBER, |r| Count(&mut r.inodes)),
        count("load", Most, 100 * 1_000_000, |r| Hundredths(&mut r.load)),
        flag("vip_local", |r| Flag(&mut r.vip_local)),
        flag("vip_hidden", |r| Flag(&mut r.vip_hidden)),
        flag("vip_listens", |r| Flag(&mut r.vip_listens)),
        count("age", Most, MAX_MILLISECONDS, |r| Count(&mut r.age)),
        count("cost", Add, MAX_MILLISECONDS, |r| Count(&mut r.cost)),
    ]
};

impl QueueReport {
    /// The sum of several instances; of one, that one.
    #[must_use]
    pub fn sum(reports: &[Self]) -> Self {
        let Some((first, others)) = reports.split_first() else { return Self::default() };
        let mut sum = first.clone();
        for other in others {
            let mut other = other.clone();
            for field in &FIELDS {
                merge(field, (field.slot)(&mut sum), (field.slot)(&mut other));
            }
            if sum.source != other.source {
                sum.source = Some(Source::Mixed);
            }
            sum.trouble = sum.trouble.or(other.trouble);
            sum.postfix = sum.postfix.filter(|version| other.postfix.as_ref() == Some(version));
        }
        sum
    }

    /// This report, said so much later than it was made.
    #[must_use]
    pub fn aged(&self, milliseconds: u64) -> Self {
        Self { age: Some(milliseconds.min(MAX_MILLISECONDS)), ..self.clone() }
    }
}

fn merge(field: &Field, sum: Slot<'_>, other: Slot<'_>) {
    let number = |a: u64, b: u64| match field.merge {
        Merge::Add => a.saturating_add(b).min(field.most),
        Merge::Most | Merge::All => a.max(b),
        Merge::Least => a.min(b),
    };
    match (sum, other) {
        (Slot::Count(sum), Slot::Count(other)) => *sum = sum.zip(*other).map(|(a, b)| number(a, b)),
        (Slot::Hundredths(sum), Slot::Hundredths(other)) => {
            *sum = sum.zip(*other).map(|(a, b)| Hundredths(number(a.0, b.0)));
        }
        (Slot::Flag(sum), Slot::Flag(other)) => {
            *sum = match (*sum, *other) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            };
        }
        _ => {} // the slots are of one field
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_adds_messages_and_keeps_the_worst_of_the_rest() {
        let one = QueueReport {
            instances: Some(1),
            active: Some(3),
            oldest: Some(10),
            free: Some(500),
            load: Some(Hundredths(120)),
            rate: Some(Hundredths(150)),
            master: Some(true),
            qmgr: Some(true),
            vip_local: Some(true),
            hold: Some(1),
            source: Some(Source::Scan),
            postfix: Version::parse("3.7.11"),
            ..QueueReport::default()
        };
        let two = QueueReport {
            active: Some(4),
            oldest: Some(7),
            free: Some(400),
            load: Some(Hundredths(119)),
            qmgr: Some(false),
            vip_local: None,
            hold: None,
            source: Some(Source::Showq),
            ..one.clone()
        };
        let sum = QueueReport::sum(&[one.clone(), two]);
        assert_eq!((sum.instances, sum.active, sum.oldest), (Some(2), Some(7), Some(10)));
        assert_eq!((sum.free, sum.load, sum.rate), (Some(400), Some(Hundredths(120)), Some(Hundredths(300))));
        assert_eq!((sum.master, sum.qmgr, sum.vip_local), (Some(true), Some(false), None));
        assert_eq!((sum.hold, sum.source), (None, Some(Source::Mixed)));
        assert_eq!(sum.postfix, one.postfix);
        assert_eq!(QueueReport::sum(std::slice::from_ref(&one)), one);
    }

    #[test]
    fn every_figure_has_the_same_name_in_all_formats() {
        let mut full = QueueReport::default();
        for field in &FIELDS {
            match (field.slot)(&mut full) {
                Slot::Count(slot) => *slot = Some(0),
                Slot::Flag(slot) => *slot = Some(false),
                Slot::Hundredths(slot) => *slot = Some(Hundredths(0)),
            }
        }
        let json = serde_json::to_value(&full).unwrap();
        let mut names: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let mut keys: Vec<_> = FIELDS.iter().map(|field| field.key).collect();
        names.sort_unstable();
        keys.sort_unstable();
        assert_eq!(names, keys);
    }
}
