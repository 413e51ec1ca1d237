//! Two runs side by side.
//!
//! Owns the rows of the table and the relative thresholds `p99>+10%`. Refuses to know files. Fails with a text at a
//! threshold that cannot be read.

use std::fmt::Write as _;

use super::verdict::percentile;
use super::{LatencyRow, Report};

/// One figure of both runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Such as `p99` or `rcpt.p99`.
    pub name: String,
    /// In the first run.
    pub old: f64,
    /// In the second.
    pub new: f64,
}

impl Row {
    /// The change in percent; infinite from nothing to something.
    #[must_use]
    pub fn change(&self) -> f64 {
        if self.old == self.new {
            0.0
        } else if self.old == 0.0 {
            f64::INFINITY
        } else {
            (self.new / self.old - 1.0) * 100.0
        }
    }
}

/// All figures that both runs have.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts")]
pub fn rows(old: &Report, new: &Report) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |name: &str, old: f64, new: f64| rows.push(Row { name: name.to_owned(), old, new });
    let errors = |report: &Report| report.counts.failed as f64 * 100.0 / report.counts.arrivals.max(1) as f64;
    row("rate", old.rate, new.rate);
    row("errors", errors(old), errors(new));
    row("unsent", old.counts.unsent as f64, new.counts.unsent as f64);
    row("gap", old.failover.longest_gap * 1000.0, new.failover.longest_gap * 1000.0);
    let mut latency = |name: &str, old: Option<&LatencyRow>, new: Option<&LatencyRow>| {
        if let (Some(old), Some(new)) = (old, new) {
            for metric in ["mean", "p50", "p90", "p95", "p99", "p99.9", "max"] {
                let name = if name.is_empty() { metric.to_owned() } else { format!("{name}.{metric}") };
                row(&name, percentile(old, metric), percentile(new, metric));
            }
        }
    };
    latency("", old.headline().map(|(_, row)| row), new.headline().map(|(_, row)| row));
    latency("service", old.service.as_ref(), new.service.as_ref());
    for phase in &old.phases {
        let other = new.phases.iter().find(|row| row.phase == phase.phase);
        latency(&phase.phase, Some(&phase.latency), other.map(|row| &row.latency));
    }
    rows
}

/// The table.
#[must_use]
pub fn render(rows: &[Row]) -> String {
    let mut out = format!("{:<22} {:>14} {:>14} {:>10}\n", "", "old", "new", "change");
    for row in rows {
        let change = row.change();
        let change = if change.is_finite() { format!("{change:+.1} %") } else { "new".to_owned() };
        // A name may be from a stranger's file.
        let name = row.name.escape_debug().to_string();
        let _ = writeln!(out, "{name:<22} {:>14.3} {:>14.3} {change:>10}", row.old, row.new);
    }
    out
}

/// A change that fails: `p99>+10%`, `rate<-5%`.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    text: String,
    name: String,
    percent: f64,
}

impl Change {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not METRIC>+N% or METRIC<-N%, such as p99>+10% or rate<-5%");
        let (name, value) = text.split_once(">+").or_else(|| text.split_once("<-")).ok_or_else(wrong)?;
        let value = value.strip_suffix('%').and_then(|value| value.trim().parse::<f64>().ok());
        let value = value.filter(|value| value.is_finite() && *value >= 0.0).ok_or_else(wrong)?;
        let percent = if text.contains(">+") { value } else { -value };
        Ok(Self { text: text.to_owned(), name: name.trim().to_owned(), percent })
    }

    /// What comes of it: the threshold, the change, and whether it passes. What is in one run only does not pass.
    #[must_use]
    pub fn judge(&self, rows: &[Row]) -> (String, String, bool) {
        let Some(row) = rows.iter().find(|row| row.name == self.name) else {
            return (self.text.clone(), "not in both runs".to_owned(), false);
        };
        let change = row.change();
        let fails = if self.text.contains(">+") { change > self.percent } else { change < self.percent };
        (self.text.clone(), format!("{change:+.1} %"), !fails)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_for_the_worse_is_told_from_one_for_the_better() {
        let row = |name: &str, old, new| Row { name: name.to_owned(), old, new };
        let rows = [
            row("p99", 100.0, 115.0),
            row("rate", 100.0, 90.0),
            row("errors", 0.0, 1.0),
            row("gap", 0.0, 0.0),
        ];
        for (text, passed) in [
            ("p99>+10%", false),
            ("p99>+20%", true),
            ("rate<-5%", false),
            ("rate<-15%", true),
            ("errors>+1%", false),
            ("gap>+0%", true),
            ("p50>+1%", false),
        ] {
            assert_eq!(Change::parse(text).unwrap().judge(&rows).2, passed, "{text}");
        }
        for text in ["", "p99>10%", "p99>+10", "p99>+x%"] {
            assert!(Change::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_from_a_file_does_nothing_to_the_terminal() {
        let table = render(&[Row { name: "\u{1b}[2J\n.p99".to_owned(), old: 1.0, new: 1.0 }]);
        assert!(table.ends_with('\n') && table.lines().count() == 2, "{table:?}");
        assert!(!table.contains('\u{1b}'), "{table:?}");
    }
}
