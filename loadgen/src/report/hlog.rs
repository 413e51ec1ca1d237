//! `HdrHistogram` interval logs, which other tools read too, and their sum.
//!
//! Owns the lines: one a second for the headline latency, and in the end one for each latency and phase, by tag. Refuses to
//! know files. Fails with a text at what is no such log.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use super::Report;
use crate::tally::Latency;

/// Most bytes of a log that is read.
pub const MAX_LOG: u64 = 256 * 1024 * 1024;
/// Most different tags in a log.
const MAX_TAGS: usize = 64;

/// The first lines. `start` is seconds since 1970.
#[must_use]
pub fn head(run: &str, start: f64) -> String {
    format!(
        "#[smtp-loadgen {}, run {run}; Interval_Max in milliseconds, histograms in microseconds]\n\
         #[Histogram log format version 1.3]\n#[StartTime: {start:.3} (seconds since epoch)]\n\
         #[BaseTime: {start:.3} (seconds since epoch)]\n\
         \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// A line of one interval.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "an hour in microseconds is far below 2^52")]
pub fn line(tag: &str, (start, length): (f64, f64), latency: &Latency) -> String {
    let max = latency.0.max() as f64 / 1000.0;
    format!("Tag={tag},{start:.3},{length:.3},{max:.3},{}\n", super::encode(&latency.0))
}

/// The last lines: each latency and phase over the whole run, with tags that begin with `all-`.
#[must_use]
pub fn tail(report: &Report) -> String {
    let latencies =
        [("response", &report.response), ("service", &report.service), ("start_lag", &report.start_lag)];
    let mut out = String::new();
    let named = latencies.iter().filter_map(|(name, row)| Some((*name, row.as_ref()?)));
    for (name, row) in named.chain(report.phases.iter().map(|row| (row.phase.as_str(), &row.latency))) {
        out.push_str(&format!(
            "Tag=all-{name},0.000,{:.3},{:.3},{}\n",
            report.elapsed, row.max, row.histogram
        ));
    }
    out
}

/// The sum of logs, by tag.
#[derive(Clone, Debug, Default)]
pub struct Merged {
    /// By tag; intervals of one tag are one.
    pub tags: BTreeMap<String, Latency>,
    /// Intervals.
    pub intervals: u64,
}

impl Merged {
    /// Adds a log.
    ///
    /// # Errors
    /// What is wrong with it, and in which entry.
    pub fn add(&mut self, log: &[u8]) -> Result<(), String> {
        let mut decoder = Deserializer::new();
        let before = self.intervals;
        for entry in IntervalLogIterator::new(log) {
            let entry = entry.map_err(|_| {
                format!("is no HdrHistogram log after its {}. interval", self.intervals - before)
            })?;
            let LogEntry::Interval(interval) = entry else { continue };
            let bytes = STANDARD.decode(interval.encoded_histogram()).map_err(|error| error.to_string())?;
            let histogram: Histogram<u64> =
                decoder.deserialize(&mut bytes.as_slice()).map_err(|error| error.to_string())?;
            let tag = interval.tag().map_or("", |tag| tag.as_str());
            if !self.tags.contains_key(tag) && self.tags.len() >= MAX_TAGS {
                return Err(format!("has more than {MAX_TAGS} tags"));
            }
            let sum = self.tags.entry(tag.to_owned()).or_default();
            sum.0.add(&histogram).map_err(|error| error.to_string())?;
            self.intervals += 1;
        }
        if self.intervals == before { Err("has no interval in it".to_owned()) } else { Ok(()) }
    }

    /// As a log of one interval a tag.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = head("merged", 0.0);
        for (tag, latency) in &self.tags {
            out.push_str(&line(if tag.is_empty() { "untagged" } else { tag }, (0.0, 0.0), latency));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn latency(values: &[u64]) -> Latency {
        let mut latency = Latency::new();
        values.iter().for_each(|&value| latency.record(value * 1000));
        latency
    }

    proptest! {
        #[test]
        fn the_sum_of_logs_is_the_log_of_the_sum(
            parts in prop::collection::vec(prop::collection::vec(1u64..3_600_000_000, 1..40), 1..6),
            cut in 0usize..6,
        ) {
            let logs = |parts: &[Vec<u64>]| {
                let lines = parts.iter().map(|part| line("response", (0.0, 1.0), &latency(part)));
                head("r", 1.0) + &lines.collect::<String>()
            };
            let cut = cut.min(parts.len());
            let (mut one, mut many) = (Merged::default(), Merged::default());
            one.add(logs(&parts).as_bytes()).unwrap();
            for part in [&parts[..cut], &parts[cut..]] {
                if !part.is_empty() {
                    many.add(logs(part).as_bytes()).unwrap();
                }
            }
            let whole = latency(&parts.concat());
            prop_assert_eq!(&one.tags["response"].0, &whole.0);
            prop_assert_eq!(&many.tags["response"].0, &whole.0);
            let mut again = Merged::default();
            again.add(one.render().as_bytes()).unwrap();
            prop_assert_eq!(&again.tags["response"].0, &whole.0);
        }

        #[test]
        fn no_log_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "Tag=a,0.0,1.0,1.0,HIST[A-Za-z0-9+/=]{0,60}\n") {
            let _ = Merged::default().add(&bytes);
            let _ = Merged::default().add(text.as_bytes());
        }
    }
}
