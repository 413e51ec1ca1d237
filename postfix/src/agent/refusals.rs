//! Askers that are not allowed: counted all, told once a minute.

use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Between two lines in the log.
const PAUSE: Duration = Duration::from_secs(60);

/// How many there were.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    total: u64,
    untold: u64,
    told: Option<Instant>,
}

impl Refusals {
    /// One more, and the line if it is time for one.
    pub(super) fn note(&mut self, now: Instant, from: IpAddr) -> Option<String> {
        self.total += 1;
        self.untold += 1;
        if self.told.is_some_and(|told| now.saturating_duration_since(told) < PAUSE) {
            return None;
        }
        self.told = Some(now);
        let untold = std::mem::take(&mut self.untold);
        Some(format!(
            "refused {untold} connections, the last from {from}, which --allow does not name; {} so far",
            self.total
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an Instant can be had from a clock only")]
    fn a_port_scan_is_one_line_a_minute() {
        let start = Instant::now();
        let mut refusals = Refusals::default();
        let mut note = |seconds| refusals.note(start + Duration::from_secs(seconds), [192, 0, 2, 1].into());
        assert!(note(0).unwrap().starts_with("refused 1 connections, the last from 192.0.2.1,"));
        for _ in 0..1000 {
            assert_eq!(note(59), None);
        }
        assert!(note(60).unwrap().starts_with("refused 1001 connections"));
    }
}
