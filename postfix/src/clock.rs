//! EDGE: both clocks of the box.
#![expect(
    clippy::disallowed_methods,
    reason = "EDGE: the one place of this program that reads the wall clock"
)]

use std::time::{Instant, SystemTime};

use crate::timeline::Now;

/// Reads them; steady time begins with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Now {
        let milliseconds =
            |duration: std::time::Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let wall = match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => milliseconds(since),
            Err(before) => -milliseconds(before.duration()),
        };
        Now { wall, steady: self.steady() }
    }

    /// Milliseconds since it began.
    pub(crate) fn steady(self) -> i64 {
        i64::try_from(self.0.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}
