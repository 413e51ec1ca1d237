//! Dates of the civil calendar and seconds since 1970, in UTC.
//!
//! Owns the arithmetic and the two ways in which we write a date. Refuses to know what time it is. Total: every
//! number of seconds has a date, every date of the years 1 to 9999 has seconds.

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar.
///
/// `month` is 1 to 12. The year is counted from March, so that the leap day is its last.
#[must_use]
pub fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a number of days since 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(719_468);
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// `2026-11-23T03:38:11Z` (RFC 3339).
#[must_use]
pub fn rfc3339(seconds: i64) -> String {
    let ((year, month, day), clock) = (civil(seconds.div_euclid(86_400)), clock(seconds));
    format!("{year:04}-{month:02}-{day:02}T{clock}Z")
}

/// `Mon, 23 Nov 2026 03:38:11 +0000` (RFC 5322 section 3.3).
#[must_use]
pub fn rfc5322(seconds: i64) -> String {
    const WEEK: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const YEAR: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let days = seconds.div_euclid(86_400);
    let (year, month, day) = civil(days);
    let name = |names: &[&'static str], index: i64| {
        usize::try_from(index).ok().and_then(|index| names.get(index).copied()).unwrap_or_default()
    };
    let (weekday, month) = (name(&WEEK, days.rem_euclid(7)), name(&YEAR, month - 1));
    format!("{weekday}, {day} {month} {year:04} {} +0000", clock(seconds))
}

fn clock(seconds: i64) -> String {
    let seconds = seconds.rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates_are_written_as_others_write_them() {
        // From `date -u -d @N`.
        for (seconds, short, long) in [
            (0, "1970-01-01T00:00:00Z", "Thu, 1 Jan 1970 00:00:00 +0000"),
            (951_782_400, "2000-02-29T00:00:00Z", "Tue, 29 Feb 2000 00:00:00 +0000"),
            (1_795_404_323, "2026-11-23T03:25:23Z", "Mon, 23 Nov 2026 03:25:23 +0000"),
            (4_102_444_799, "2099-12-31T23:59:59Z", "Thu, 31 Dec 2099 23:59:59 +0000"),
            (-1, "1969-12-31T23:59:59Z", "Wed, 31 Dec 1969 23:59:59 +0000"),
        ] {
            assert_eq!((rfc3339(seconds), rfc5322(seconds)), (short.to_owned(), long.to_owned()));
        }
    }

    proptest! {
        #[test]
        fn a_date_is_the_days_that_it_is_made_of(number in -700_000i64..3_000_000) {
            let (year, month, day) = civil(number);
            prop_assert!((1..=12).contains(&month) && (1..=31).contains(&day));
            prop_assert_eq!(days(year, month, day), number);
            prop_assert!(civil(number + 1) > (year, month, day));
        }

        #[test]
        fn every_second_has_a_date(seconds: i64) {
            prop_assert!(rfc3339(seconds).ends_with('Z') && rfc5322(seconds).ends_with("+0000"));
        }
    }
}
