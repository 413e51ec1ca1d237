//! A report for people.

use std::fmt::{self, Write as _};

use super::QueueReport;
use super::agent::words;

/// A few lines below the name of the instance. What is not known is not there.
#[must_use]
pub fn render(name: &str, report: &QueueReport) -> String {
    let mut text = name.to_owned();
    if let Some(version) = &report.postfix {
        let _ = write!(text, ", Postfix {version}");
    }
    text += "\n";
    let messages = [
        ("incoming", report.incoming),
        ("active", report.active),
        ("deferred", report.deferred),
        ("hold", report.hold),
        ("maildrop", report.maildrop),
        ("corrupt", report.corrupt),
        ("other names", report.other.filter(|count| *count > 0)),
    ];
    line(&mut text, "messages", messages.map(|(what, count)| count.map(|count| format!("{what} {count}"))));
    if let Some(trouble) = report.trouble {
        line(&mut text, "messages", [Some(format!("not known ({})", trouble.word()))]);
    }
    let at_least = if report.ages_exact == Some(false) { "at least " } else { "" };
    let age = |what, seconds: Option<u64>| seconds.map(|age| format!("{what} {at_least}{}", Span(age)));
    line(
        &mut text,
        "oldest",
        [
            age("incoming or active", report.oldest),
            age("waiting", report.waiting),
            age("deferred", report.oldest_deferred),
        ],
    );
    let done = report.done.zip(report.counted);
    line(
        &mut text,
        "done",
        [
            done.map(|(done, counted)| format!("{done} in {}", Span(counted / 1000))),
            report.rate.map(|rate| format!("{rate} each second")),
        ],
    );
    let process = |name, alive: Option<bool>| {
        alive.map(|alive| format!("{name} {}", if alive { "runs" } else { "DOES NOT RUN" }))
    };
    let smtpd = report.smtpd.map(|used| match report.smtpd_limit {
        Some(limit) => format!("smtpd {used} of {limit} busy"),
        None => format!("smtpd {used} busy"),
    });
    let waiting = report.smtpd_waiting.map(|waiting| format!("{waiting} clients wait for one"));
    line(
        &mut text,
        "processes",
        [process("master", report.master), process("qmgr", report.qmgr), smtpd, waiting],
    );
    line(
        &mut text,
        "box",
        [
            report.free.map(|free| format!("{} MiB free", free >> 20)),
            report.inodes.map(|inodes| format!("{inodes} inodes free")),
            report.load.map(|load| format!("load {load}")),
        ],
    );
    let vip =
        |flag: Option<bool>, yes: &str, no: &str| flag.map(|flag| if flag { yes } else { no }.to_owned());
    line(
        &mut text,
        "VIP",
        [
            vip(report.vip_local, "on this box", "NOT ON THIS BOX"),
            vip(report.vip_hidden, "hidden from ARP", "ANSWERS ARP"),
            vip(report.vip_listens, "listening", "NOBODY LISTENS"),
        ],
    );
    let made = report.cost.map(|cost| format!("made in {cost} ms"));
    let source = report.source.map(|source| format!("by {}", source.word()));
    line(&mut text, "report", [source, made, Some(format!("HAProxy is told {}", words(report)))]);
    text
}

fn line<const N: usize>(text: &mut String, title: &str, parts: [Option<String>; N]) {
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    if !parts.is_empty() {
        let _ = writeln!(text, "  {title:10} {}", parts.join(", "));
    }
}

/// Seconds as people say them: `42s`, `3m10s`, `5h2m`, `3d4h`.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0;
        match seconds {
            0..60 => write!(f, "{seconds}s"),
            60..3600 => write!(f, "{}m{}s", seconds / 60, seconds % 60),
            3600..86_400 => write!(f, "{}h{}m", seconds / 3600, seconds / 60 % 60),
            _ => write!(f, "{}d{}h", seconds / 86_400, seconds / 3600 % 24),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Source, Trouble, Version};

    #[test]
    fn people_read_what_is_known_and_nothing_else() {
        let report = QueueReport {
            source: Some(Source::Scan),
            incoming: Some(1),
            active: Some(2),
            oldest: Some(3700),
            ages_exact: Some(false),
            done: Some(5),
            counted: Some(61_000),
            master: Some(true),
            qmgr: Some(false),
            smtpd: Some(3),
            smtpd_limit: Some(100),
            vip_hidden: Some(false),
            postfix: Version::parse("3.7.11"),
            cost: Some(4),
            ..QueueReport::default()
        };
        assert_eq!(
            render("postfix", &report),
            "postfix, Postfix 3.7.11\n\
             \x20 messages   incoming 1, active 2\n\
             \x20 oldest     incoming or active at least 1h1m\n\
             \x20 done       5 in 1m1s\n\
             \x20 processes  master runs, qmgr DOES NOT RUN, smtpd 3 of 100 busy\n\
             \x20 VIP        ANSWERS ARP\n\
             \x20 report     by scan, made in 4 ms, HAProxy is told down\n"
        );
        let nothing = QueueReport { trouble: Some(Trouble::Permission), ..QueueReport::default() };
        assert_eq!(
            render("x", &nothing),
            "x\n  messages   not known (permission)\n  report     HAProxy is told up\n"
        );
    }
}
