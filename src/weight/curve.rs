//! The curves of the weight law: from a measured time to a part of a weight.
//!
//! Owns [`Percent`], [`Band`] and what is computed from them. Refuses to know servers, signals and time of day. Cannot
//! fail: what is no number counts as nothing measured, and no part is ever 0.

use std::fmt;
use std::time::Duration;

/// A part of a weight in whole percent, 1 to 100. A factor never takes a server out: only a state does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Percent(u8);

impl Percent {
    /// All of it.
    pub const ALL: Self = Self(100);
    /// The least that a factor leaves.
    pub const LEAST: Self = Self(1);

    /// The nearest part that there is.
    #[must_use]
    pub fn nearest(part: f64) -> Self {
        Self::of_hundred((part * 100.0).round())
    }

    /// The smallest part that is at least `part`.
    #[must_use]
    pub fn at_least(part: f64) -> Self {
        // Without the allowance 0.07 * 100 would be 8.
        Self::of_hundred((part * 100.0 - 1e-6).ceil())
    }

    fn of_hundred(hundredths: f64) -> Self {
        let whole = if hundredths.is_nan() { 100.0 } else { hundredths.clamp(1.0, 100.0) };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 100")]
        Self(whole as u8)
    }

    /// 0.01 to 1.
    #[must_use]
    pub fn ratio(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    /// 1 to 100.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// From which excess over the farm a server loses weight, and at which it has lost all that a factor can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Band {
    /// Up to here it has its full weight.
    pub full_at: Duration,
    /// From here on it has the least; greater than `full_at`.
    pub floor_at: Duration,
}

impl Band {
    /// From where weight begins to go to where all of it has gone, in seconds.
    #[must_use]
    pub fn width(&self) -> f64 {
        self.floor_at.saturating_sub(self.full_at).as_secs_f64().max(1e-3)
    }

    /// The most weight that an excess of so many seconds may have.
    #[must_use]
    pub fn most(&self, excess: f64) -> f64 {
        falling(excess, self.full_at.as_secs_f64(), self.width())
    }

    /// The least weight that an excess of so many seconds need have. Between it and [`Band::most`] a weight stays as
    /// it is.
    #[must_use]
    pub fn least(&self, excess: f64) -> f64 {
        let full_at = self.full_at.as_secs_f64();
        falling(excess, full_at / 2.0, full_at / 2.0 + self.width() * STEEP)
    }
}

/// How much of the band the lower curve has.
const STEEP: f64 = 0.3;

/// 1 up to `from`, then down in a line to the least over `width`.
fn falling(value: f64, from: f64, width: f64) -> f64 {
    if value.is_nan() {
        return 1.0;
    }
    1.0 - (1.0 - Percent::LEAST.ratio()) * ((value - from) / width).clamp(0.0, 1.0)
}

/// What a server that came back `since` ago has of its weight while it warms up for `whole`: a tenth at first, all at last.
#[must_use]
pub fn slow_start(since: Duration, whole: Duration) -> f64 {
    if since >= whole { 1.0 } else { (since.as_secs_f64() / whole.as_secs_f64()).max(0.1) }
}

/// How far something that takes `time` to change has come after `passed`, both in seconds: 0 to 1.
#[must_use]
pub fn progress(passed: f64, time: f64) -> f64 {
    let left = if time > 0.0 { (-passed.max(0.0) / time).exp() } else { 0.0 };
    if left.is_nan() { 1.0 } else { (1.0 - left).clamp(0.0, 1.0) }
}

/// The next part to write, given the one that was written and the one that is wanted.
///
/// Small differences are not worth a write. Leaving the full weight takes a fifth, for it is the step that noise would
/// take first, and so does each step back up, but for the last to all of it; on the way down a tenth of what is left.
#[must_use]
pub fn settle(written: Percent, wanted: f64) -> Percent {
    let next = Percent::nearest(wanted);
    let (from, to) = (written.ratio(), next.ratio());
    let enough = if written == Percent::ALL {
        to <= 0.8
    } else if next == Percent::ALL {
        true
    } else if to < from {
        to <= from * 0.9
    } else {
        to >= from * 1.2
    };
    if enough { next } else { written }
}

/// The steps of [`coarse`]: with a hashing scheduler each change moves clients.
pub const COARSE: [Percent; 3] = [Percent(100), Percent(50), Percent(10)];

/// Like [`settle`], for schedulers that hash: all, a half or a tenth. Up needs more than down left.
#[must_use]
pub fn coarse(written: Percent, wanted: f64) -> Percent {
    let [all, half, tenth] = COARSE;
    if wanted.is_nan() || wanted >= 0.95 {
        return all;
    }
    if wanted < 0.2 {
        return tenth;
    }
    if written == all && wanted >= 0.6 {
        return all;
    }
    if written < half && wanted < 0.4 { tenth } else { half }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_number() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<f64>(),
            -1e4..1e4,
            Just(f64::NAN),
            Just(f64::INFINITY),
            Just(f64::NEG_INFINITY),
            Just(f64::MIN_POSITIVE)
        ]
    }

    prop_compose! {
        fn bands()(full_at in 0u64..4_000_000, more in 0u64..4_000_000) -> Band {
            Band { full_at: Duration::from_millis(full_at), floor_at: Duration::from_millis(full_at + more) }
        }
    }

    #[test]
    fn a_band_goes_from_all_to_the_least() {
        let band = Band { full_at: Duration::from_secs(10), floor_at: Duration::from_secs(60) };
        for (excess, most, least) in [
            (-5.0, 1.0, 1.0),
            (5.0, 1.0, 1.0),
            (10.0, 1.0, 0.75),
            (25.0, 0.70, 0.01),
            (35.0, 0.51, 0.01),
            (60.0, 0.01, 0.01),
            (1e9, 0.01, 0.01),
        ] {
            let near = |a: f64, b: f64| (a - b).abs() < 0.006;
            assert!(near(band.most(excess), most), "{excess}: {}", band.most(excess));
            assert!(near(band.least(excess), least), "{excess}: {}", band.least(excess));
        }
    }

    #[test]
    fn a_write_is_worth_its_while() {
        let part = |percent: u8| Percent::nearest(f64::from(percent) / 100.0);
        for (written, wanted, next) in [
            (100, 81, 100),
            (100, 80, 80),
            (50, 46, 50),
            (50, 45, 45),
            (50, 59, 50),
            (50, 60, 60),
            (90, 99, 90),
            (90, 100, 100),
            (1, 2, 2),
            (2, 1, 1),
        ] {
            assert_eq!(settle(part(written), part(wanted).ratio()), part(next), "{written} to {wanted}");
        }
        for (written, wanted, next) in [
            (100, 60, 100),
            (100, 59, 50),
            (100, 19, 10),
            (50, 94, 50),
            (50, 95, 100),
            (50, 20, 50),
            (50, 19, 10),
            (10, 39, 10),
            (10, 40, 50),
            (10, 95, 100),
        ] {
            assert_eq!(coarse(part(written), part(wanted).ratio()), part(next), "{written} to {wanted}");
        }
    }

    proptest! {
        #[test]
        fn every_part_is_finite_and_never_nothing(
            band in bands(), x in any_number(), y in any_number(), since in any::<u64>(), whole in any::<u64>(),
        ) {
            let written = Percent::nearest(y);
            let slow = slow_start(Duration::from_millis(since), Duration::from_millis(whole));
            for part in [band.most(x), band.least(x), slow, settle(written, x).ratio(), coarse(written, x).ratio(),
                Percent::at_least(x).ratio(), written.ratio()] {
                prop_assert!((0.01..=1.0).contains(&part), "{part}");
            }
            prop_assert!((0.0..=1.0).contains(&progress(x.abs(), y)), "{}", progress(x.abs(), y));
        }

        #[test]
        fn more_backlog_is_never_more_weight(band in bands(), x in -1e6..1e6f64, more in 0.0..1e6f64) {
            prop_assert!(band.most(x + more) <= band.most(x));
            prop_assert!(band.least(x + more) <= band.least(x));
            prop_assert!(band.least(x) <= band.most(x) + 1e-12, "{} {}", band.least(x), band.most(x));
        }

        #[test]
        fn a_later_server_has_no_less_of_its_slow_start(since in 0u64..1_000_000, more in 0u64..1_000_000, whole in 1u64..1_000_000) {
            let at = |since| slow_start(Duration::from_millis(since), Duration::from_millis(whole));
            prop_assert!(at(since) <= at(since + more));
        }

        /// A wanted part that stands still is written once.
        #[test]
        fn what_is_settled_stays(written in any_number(), wanted in any_number()) {
            let once = settle(Percent::nearest(written), wanted);
            prop_assert_eq!(settle(once, wanted), once);
            let once = coarse(Percent::nearest(written), wanted);
            prop_assert_eq!(coarse(once, wanted), once);
        }
    }
}
