//! The age of something that is dated by a clock which people and NTP set.
//!
//! Owns the eras between two steps of the wall clock, learned by looking at it beside one that never steps. Refuses to
//! read either. An age is never negative and never longer than [`MAX_AGE`]: a date that no era explains has none.

use std::collections::VecDeque;

/// Larger differences between the two clocks are steps, in milliseconds. Slewing is slower than this between two looks.
const STEP: i64 = 2_000;
/// A date may be this much ahead: clocks are read one after the other, in milliseconds.
const SLACK: i64 = 2_000;
/// Steps that are remembered. Before the oldest of them, its clock is taken for right.
const MOST_ERAS: usize = 8;
/// Mail that is older was dated by a clock that was not set: Postfix gives up after days, in milliseconds.
const MAX_AGE: i64 = 366 * 86_400_000;

/// One look at both clocks, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Now {
    /// Since 1970, as the box believes.
    pub(crate) wall: i64,
    /// Since whenever; never steps.
    pub(crate) steady: i64,
}

/// A time in which the wall clock ran evenly.
#[derive(Clone, Copy, Debug)]
struct Era {
    /// Wall minus steady.
    offset: i64,
    /// When it began, on the steady clock; `None` for the first that was seen.
    since: Option<i64>,
}

/// What is known of the wall clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline {
    /// The newest first.
    eras: VecDeque<Era>,
    now: i64,
}

impl Timeline {
    /// Takes notice of the time. To be called every few seconds at least, or a step is dated late.
    pub(crate) fn observe(&mut self, now: Now) {
        let offset = now.wall.saturating_sub(now.steady);
        self.now = now.steady;
        match self.eras.front_mut() {
            Some(era) if offset.saturating_sub(era.offset).saturating_abs() < STEP => era.offset = offset,
            Some(_) => self.eras.push_front(Era { offset, since: Some(now.steady) }),
            None => self.eras.push_front(Era { offset, since: None }),
        }
        if self.eras.len() > MOST_ERAS {
            self.eras.pop_back();
            if let Some(oldest) = self.eras.back_mut() {
                oldest.since = None;
            }
        }
    }

    /// Whole seconds since a date on the wall clock, in milliseconds; `None` for one from the future or from long ago.
    /// Where a clock was set back and two eras explain a date, the younger one is believed.
    pub(crate) fn age(&self, date: i64) -> Option<u64> {
        let mut end = self.now;
        for era in &self.eras {
            let at = date.saturating_sub(era.offset);
            let since = era.since.map_or(i64::MIN, |since| since.saturating_sub(SLACK));
            if (since..=end.saturating_add(SLACK)).contains(&at) {
                let age = self.now.saturating_sub(at).max(0);
                return u64::try_from(age / 1000).ok().filter(|_| age <= MAX_AGE);
            }
            end = era.since.unwrap_or(end);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: i64 = 1_800_000_000_000;

    fn at(seconds: i64, ahead: i64) -> Now {
        Now { wall: START + (seconds + ahead) * 1000, steady: seconds * 1000 }
    }

    #[test]
    fn a_step_of_the_clock_changes_no_age() {
        for step in [3600, -3600, 86_400 * 365, -86_400 * 365] {
            let mut timeline = Timeline::default();
            timeline.observe(at(100, 0));
            timeline.observe(at(101, step));
            timeline.observe(at(110, step));
            let before = START + 90_000; // 10 s before the first look
            let after = START + (105 + step) * 1000;
            assert_eq!((timeline.age(before), timeline.age(after)), (Some(20), Some(5)), "{step}");
        }
    }

    #[test]
    fn what_no_clock_of_this_box_explains_has_no_age() {
        let mut timeline = Timeline::default();
        assert_eq!(timeline.age(START), None);
        timeline.observe(at(100, 0));
        assert_eq!(timeline.age(START + 101_000), Some(0)); // within the slack
        assert_eq!(timeline.age(START + 200_000), None); // from the future
        assert_eq!(timeline.age(0), None); // written before the clock was set
        assert_eq!((timeline.age(i64::MIN), timeline.age(i64::MAX)), (None, None));
    }

    proptest! {
        #[test]
        fn no_age_is_absurd_whatever_the_clock_does(
            looks in prop::collection::vec((0..100_000_i64, any::<i64>()), 1..40),
            date in any::<i64>(),
        ) {
            let mut timeline = Timeline::default();
            let mut steady = 0;
            for (passed, wall) in looks {
                steady += passed;
                timeline.observe(Now { wall, steady });
                prop_assert!(timeline.eras.len() <= MOST_ERAS);
                for date in [date, wall, wall.saturating_sub(1000)] {
                    prop_assert!(timeline.age(date).is_none_or(|age| age <= 366 * 86_400));
                }
                prop_assert_eq!(timeline.age(wall), Some(0));
            }
        }
    }
}
