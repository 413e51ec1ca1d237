//! From an outcome to a verdict: the table that a mail administrator reads and changes.
//!
//! Owns the default verdict of every reason at every stage ([`Verdicts::of`]), and the words in which a configuration
//! changes it. Refuses to know how often something has to be seen, and what a verdict does to a weight. A text that is
//! no row is an error that says what would be one.

use std::collections::BTreeMap;
use std::fmt;

use checks::{Outcome, Reason, Stage};

/// What one outcome says of a server, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// It serves as it should.
    Up,
    /// It serves, but not as it should: it gets this part of its weight.
    Degraded(Factor),
    /// It should get no mail.
    Down,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up => f.write_str("up"),
            Self::Degraded(factor) => write!(f, "degraded {factor}"),
            Self::Down => f.write_str("down"),
        }
    }
}

/// A part of a weight, 1 to 99 percent. The larger part is the smaller value: it is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Factor(std::cmp::Reverse<u8>);

impl Factor {
    /// What a degraded server has unless told otherwise.
    pub const HALF: Self = Self(std::cmp::Reverse(50));

    /// `None` unless 1 to 99.
    #[must_use]
    pub fn percent(percent: u8) -> Option<Self> {
        (1..=99).contains(&percent).then_some(Self(std::cmp::Reverse(percent)))
    }

    /// This part of `weight`, rounded, and at least 1 where there is any.
    #[must_use]
    pub fn of(self, weight: u32) -> u32 {
        let part = (u64::from(weight) * u64::from(self.0.0) + 50) / 100;
        u32::try_from(part).unwrap_or(u32::MAX).max(weight.min(1))
    }

    /// As a number from 0 to 1.
    #[must_use]
    pub fn ratio(self) -> f64 {
        f64::from(self.0.0) / 100.0
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0.0)
    }
}

/// A cell of the table: a verdict, and how often in a row it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cell {
    /// What it says.
    pub verdict: Verdict,
    /// Outcomes in a row; `None` is the `fall` of the check.
    pub after: Option<u32>,
}

/// What a row is about: a reason at one stage, or wherever it comes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row {
    reason: Reason,
    stage: Option<Stage>,
}

impl Row {
    /// Reads `tempfail at mail`, as the log writes it, or `tempfail` for every stage.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (reason, stage) = match text.split_once(" at ") {
            Some((reason, stage)) => (reason.trim(), Some(stage.trim())),
            None => (text, None),
        };
        let known = |names: Vec<&str>| names.join(", ");
        let find = || Reason::ALL.iter().copied().find(|known| known.name() == reason);
        let reason = find().ok_or_else(|| {
            let names = Reason::ALL.iter().filter(|reason| **reason != Reason::Local);
            format!("\"{reason}\" is no reason; known are {}", known(names.map(|r| r.name()).collect()))
        })?;
        if reason == Reason::Local {
            return Err("local says nothing of a server: the director itself could not ask".to_owned());
        }
        let stage = match stage {
            None => None,
            Some(stage) => {
                Some(Stage::ALL.iter().copied().find(|known| known.name() == stage).ok_or_else(|| {
                    let names = Stage::ALL.iter().map(|stage| stage.name()).collect();
                    format!("\"{stage}\" is no stage; known are {}", known(names))
                })?)
            }
        };
        Ok(Self { reason, stage })
    }
}

impl Cell {
    /// Reads `up`, `degraded`, `degraded 25%`, `down`, and each with `after 5` behind it.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let want = "\"up\", \"degraded\", \"degraded 25%\", \"down\" or \"down after 5\"";
        let bad = || format!("\"{text}\" is no verdict; {want}");
        let mut words = text.split_ascii_whitespace().peekable();
        let verdict = match words.next() {
            Some("up") => Verdict::Up,
            Some("down") => Verdict::Down,
            Some("degraded") => Verdict::Degraded(match words.next_if(|word| word.ends_with('%')) {
                None => Factor::HALF,
                Some(word) => {
                    let percent = word.strip_suffix('%').and_then(|digits| digits.parse().ok());
                    percent.and_then(Factor::percent).ok_or_else(bad)?
                }
            }),
            _ => return Err(bad()),
        };
        let after = match (words.next(), words.next(), words.next()) {
            (None, ..) => None,
            (Some("after"), Some(count), None) if verdict != Verdict::Up => {
                Some(count.parse().ok().filter(|count| (1..=100).contains(count)).ok_or_else(bad)?)
            }
            _ => return Err(bad()),
        };
        Ok(Self { verdict, after })
    }
}

/// The rows that a configuration changes; all others have their default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Verdicts(BTreeMap<Row, Cell>);

impl Verdicts {
    /// Changes a row.
    pub fn set(&mut self, row: Row, cell: Cell) {
        self.0.insert(row, cell);
    }

    /// These rows over those of `base`.
    #[must_use]
    pub fn over(mut self, base: &Self) -> Self {
        for (row, cell) in &base.0 {
            self.0.entry(*row).or_insert(*cell);
        }
        self
    }

    /// What an outcome says; `None` where it says nothing of the server.
    ///
    /// The row of the reason at its stage comes before the row of the reason, and the configuration before the
    /// default.
    #[must_use]
    pub fn of(&self, outcome: &Outcome) -> Option<Cell> {
        let Err(failure) = &outcome.verdict else {
            return Some(Cell { verdict: Verdict::Up, after: Some(1) });
        };
        let (reason, stage) = (failure.reason, failure.stage);
        let changed =
            self.0.get(&Row { reason, stage: Some(stage) }).or(self.0.get(&Row { reason, stage: None }));
        if reason == Reason::Local {
            return None;
        }
        // Their limits are times: one that is over is no accident.
        let after = matches!(reason, Reason::Late | Reason::Lost).then_some(1);
        Some(changed.copied().unwrap_or(Cell { verdict: default(reason), after }))
    }
}

/// What holds unless the configuration says otherwise.
fn default(reason: Reason) -> Verdict {
    match reason {
        // Nobody can be sent there, or nothing that is sent there is taken.
        Reason::Refused
        | Reason::Unreachable
        | Reason::Timeout
        | Reason::Reset
        | Reason::Closed
        | Reason::Tempfail
        | Reason::Permfail
        | Reason::Failed
        // What answers is not the server that was meant, or is broken.
        | Reason::Unexpected
        | Reason::Protocol
        | Reason::TooLong
        | Reason::Mismatch
        | Reason::Injected
        | Reason::TlsFailed
        | Reason::TlsVersion
        | Reason::CertificatePin
        // A message that needs it is returned to its sender.
        | Reason::MissingCapability
        // It takes mail, and spreads that of everybody.
        | Reason::OpenRelay
        // It takes mail, and keeps it.
        | Reason::Lost => Verdict::Down,
        Reason::Late => Verdict::Degraded(Factor::HALF),
        // Most senders do not look.
        Reason::CertificateExpired | Reason::CertificateName | Reason::CertificateUntrusted => {
            Verdict::Degraded(Factor::HALF)
        }
        // Never asked for.
        Reason::Local => Verdict::Up,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use checks::Failure;

    use super::*;

    fn failed(reason: Reason, stage: Stage) -> Outcome {
        let failure = Failure { stage, reason, code: None, text: String::new() };
        Outcome {
            verdict: Err(failure),
            took: Duration::ZERO,
            stages: vec![],
            capabilities: vec![],
            tls: None,
        }
    }

    fn table(rows: &[(&str, &str)]) -> Verdicts {
        let mut verdicts = Verdicts::default();
        for (row, cell) in rows {
            verdicts.set(Row::parse(row).unwrap(), Cell::parse(cell).unwrap());
        }
        verdicts
    }

    #[test]
    fn the_nearest_row_holds() {
        let base = table(&[("timeout", "degraded 25% after 5"), ("tempfail", "up")]);
        let verdicts = table(&[("timeout at banner", "degraded"), ("tempfail", "down after 2")]).over(&base);
        for (reason, stage, expected) in [
            (Reason::Timeout, Stage::Banner, "degraded 50% None"),
            (Reason::Timeout, Stage::Mail, "degraded 25% Some(5)"),
            (Reason::Tempfail, Stage::Rcpt, "down Some(2)"),
            (Reason::Permfail, Stage::Rcpt, "down None"),
            (Reason::CertificateExpired, Stage::Tls, "degraded 50% None"),
        ] {
            let cell = verdicts.of(&failed(reason, stage)).unwrap();
            assert_eq!(format!("{} {:?}", cell.verdict, cell.after), expected, "{reason} at {stage}");
        }
        assert_eq!(verdicts.of(&failed(Reason::Local, Stage::Connect)), None);
    }

    #[test]
    fn a_row_that_is_none_is_refused() {
        for (row, why) in [
            ("tempfial", "\"tempfial\" is no reason"),
            ("tempfail at male", "\"male\" is no stage"),
            ("local", "local says nothing of a server"),
            ("", "\"\" is no reason"),
        ] {
            let error = Row::parse(row).unwrap_err();
            assert!(error.starts_with(why), "{row}: {error}");
        }
        for cell in [
            "",
            "UP",
            "degraded 0%",
            "degraded 100%",
            "degraded 5",
            "down 50%",
            "up after 2",
            "down after 0",
            "down after",
            "down after 3 4",
        ] {
            let error = Cell::parse(cell).unwrap_err();
            assert!(error.contains("is no verdict; \"up\""), "{cell}: {error}");
        }
    }

    #[test]
    fn worse_is_greater_and_a_part_of_something_is_never_nothing() {
        let part = |percent| Factor::percent(percent).unwrap();
        assert!(Verdict::Up < Verdict::Degraded(part(99)));
        assert!(Verdict::Degraded(part(99)) < Verdict::Degraded(part(1)));
        assert!(Verdict::Degraded(part(1)) < Verdict::Down);
        let of = |percent, weight| part(percent).of(weight);
        assert_eq!((of(50, 100), of(50, 5), of(1, 1), of(50, 0)), (50, 3, 1, 0));
    }
}
