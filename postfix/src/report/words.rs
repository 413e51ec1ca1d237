//! The values of a report that are no plain numbers, and how all of them are read: strictly.
//!
//! Owns their words, which are the same in every format. Refuses to know which figure has which.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest version of Postfix, in bytes.
pub const MAX_VERSION: usize = 32;

/// Where queue figures come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The names of the spool.
    Scan,
    /// `postqueue -j`.
    Postqueue,
    /// The socket of `showq`.
    Showq,
    /// Instances with different ones.
    Mixed,
}

/// Why there are no queue figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// This user may not read the queue.
    Permission,
    /// The folder is no spool of Postfix.
    NoSpool,
    /// The source did not answer: `showq` is not there, `postqueue` failed.
    NoAnswer,
    /// It took longer than the deadline.
    Slow,
    /// More than the source may say.
    TooLong,
    /// The source said what it never says.
    Garbage,
    /// The system refused something ordinary.
    System,
}

/// A number with two decimals, kept exactly: 120 is 1.20.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hundredths(pub u64);

/// A version of Postfix: letters, digits, dots and hyphens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(String);

impl Version {
    /// `None` for what is no version.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
        let good = (1..=MAX_VERSION).contains(&text.len()) && text.bytes().all(fits);
        good.then(|| Self(text.to_owned()))
    }
}

impl TryFrom<String> for Version {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("not a version of Postfix")
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Source {
    const ALL: [Self; 4] = [Self::Scan, Self::Postqueue, Self::Showq, Self::Mixed];

    /// The word of all formats.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Scan => "scan",
            Self::Postqueue => "postqueue",
            Self::Showq => "showq",
            Self::Mixed => "mixed",
        }
    }

    pub(crate) fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.word() == word)
    }
}

impl Trouble {
    const ALL: [Self; 7] = [
        Self::Permission,
        Self::NoSpool,
        Self::NoAnswer,
        Self::Slow,
        Self::TooLong,
        Self::Garbage,
        Self::System,
    ];

    /// The word of all formats.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Permission => "permission",
            Self::NoSpool => "no_spool",
            Self::NoAnswer => "no_answer",
            Self::Slow => "slow",
            Self::TooLong => "too_long",
            Self::Garbage => "garbage",
            Self::System => "system",
        }
    }

    pub(crate) fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|trouble| trouble.word() == word)
    }
}

impl fmt::Display for Hundredths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

impl Hundredths {
    /// Digits, then nothing or a dot and one or two digits. Nothing else, and no sign.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let part = match part.len() {
            1 => digits(part)?.checked_mul(10)?,
            2 => digits(part)?,
            _ => return None,
        };
        digits(whole)?.checked_mul(100)?.checked_add(part).map(Self)
    }
}

/// A number of at least one digit and nothing else: no sign, no space.
pub(crate) fn digits(text: &str) -> Option<u64> {
    let good = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if good { text.parse().ok() } else { None }
}

/// As a JSON number, `1.2`.
impl Serialize for Hundredths {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[expect(clippy::cast_precision_loss, reason = "below 2^53 by the limits of the table")]
        serializer.serialize_f64(self.0 as f64 / 100.0)
    }
}

impl<'de> Deserialize<'de> for Hundredths {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        if !(0.0..=1e12).contains(&number) {
            return Err(serde::de::Error::custom("not a number of this kind"));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range, seen above")]
        Ok(Self((number * 100.0).round() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_digits_and_nothing_else() {
        for (text, number) in [("0", Some(0)), ("18446744073709551615", Some(u64::MAX))] {
            assert_eq!(digits(text), number);
        }
        for text in ["", "-1", "+1", " 1", "1 ", "1e3", "0x1", "18446744073709551616", "\u{661}"] {
            assert_eq!(digits(text), None, "{text}");
        }
        for (text, number) in [("1.2", Some(120)), ("1.02", Some(102)), ("7", Some(700)), ("0.00", Some(0))] {
            assert_eq!(Hundredths::parse(text).map(|parts| parts.0), number, "{text}");
        }
        for text in ["", ".", "1.", ".5", "1.234", "-1.0", "1.-1", "1.2.3", "inf", "184467440737095517"] {
            assert_eq!(Hundredths::parse(text), None, "{text}");
        }
    }
}
