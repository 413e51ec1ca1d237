//! From a part of a weight to the number that the kernel gets.
//!
//! Owns the scale of a virtual's weights. Refuses to know how a part comes about. Cannot fail.
//!
//! A base weight of 1 has no half. So a virtual whose weights follow load has all of them multiplied by the same power of
//! ten, which changes no server's share. One without such a law has its weights as they are in the file: tables are
//! compared by eye, and with those of other programs.

use super::Weight;
use super::curve::Percent;
use super::law::{LawConfig, Steps};

/// By what all base weights of a virtual are multiplied: 1, 10 or 100; 1 without a law.
///
/// The smallest that gives every server a weight for each percent, or for each coarse step, unless that would be
/// more than a weight can be.
#[must_use]
pub fn scale(law: Option<&LawConfig>, bases: &[Weight]) -> u32 {
    let Some(law) = law else { return 1 };
    let enough = match law.steps {
        Steps::Fine => 100,
        Steps::Coarse => 10,
    };
    let weights = || bases.iter().map(|base| base.0).filter(|base| *base > 0);
    let (Some(least), Some(most)) = (weights().min(), weights().max()) else { return 1 };
    let fits = |scale: &u32| most.saturating_mul(*scale) <= Weight::MAX_CONFIGURED;
    let gives_enough = |scale: &u32| least.saturating_mul(*scale) >= enough;
    let fitting = || [1, 10, 100].into_iter().filter(fits);
    fitting().find(gives_enough).or(fitting().next_back()).unwrap_or(1)
}

/// The weight of a server: its base, scaled, and of that the parts that checks and load leave; 0 only of 0.
#[must_use]
pub fn weight(base: Weight, scale: u32, parts: [Percent; 2]) -> Weight {
    let whole = u64::from(base.0) * u64::from(scale);
    let parts: u64 = parts.iter().map(|part| u64::from(part.get())).product();
    let part = (whole * parts + 5_000) / 10_000;
    Weight(u32::try_from(part.max(whole.min(1))).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn law(steps: Steps) -> LawConfig {
        LawConfig { steps, slow_start: Duration::from_secs(120), ..LawConfig::default() }
    }

    #[test]
    fn weights_have_resolution_where_they_need_it_and_are_those_of_the_file_elsewhere() {
        let bases = |bases: &[u32]| bases.iter().map(|base| Weight(*base)).collect::<Vec<_>>();
        for (steps, reals, expected) in [
            (None, &[1, 1, 2][..], 1),
            (Some(Steps::Fine), &[100, 100][..], 1),
            (Some(Steps::Fine), &[1, 2, 0][..], 100),
            (Some(Steps::Fine), &[10, 200][..], 10),
            (Some(Steps::Fine), &[1, 5_000][..], 10),
            (Some(Steps::Fine), &[1, 65_535][..], 1),
            (Some(Steps::Fine), &[0][..], 1),
            (Some(Steps::Fine), &[][..], 1),
            (Some(Steps::Coarse), &[1, 1][..], 10),
            (Some(Steps::Coarse), &[100, 50][..], 1),
        ] {
            let law = steps.map(law);
            assert_eq!(scale(law.as_ref(), &bases(reals)), expected, "{steps:?} {reals:?}");
        }
    }

    #[test]
    fn a_part_of_a_weight_is_rounded_and_never_nothing() {
        let part = |percent: f64| Percent::nearest(percent / 100.0);
        for (base, scale, check, load, expected) in [
            (100, 1, 100.0, 100.0, 100),
            (100, 1, 50.0, 31.0, 16),
            (1, 100, 100.0, 37.0, 37),
            (1, 1, 50.0, 1.0, 1),
            (0, 100, 100.0, 100.0, 0),
        ] {
            assert_eq!(weight(Weight(base), scale, [part(check), part(load)]).0, expected);
        }
    }

    proptest! {
        #[test]
        fn a_scale_changes_no_share(bases in proptest::collection::vec(0u32..=65_535, 0..20), coarse: bool) {
            let bases: Vec<_> = bases.into_iter().map(Weight).collect();
            let scale = scale(Some(&law(if coarse { Steps::Coarse } else { Steps::Fine })), &bases);
            for base in bases {
                prop_assert_eq!(weight(base, scale, [Percent::ALL; 2]).0, base.0 * scale);
                prop_assert!(base.0 * scale <= Weight::MAX_CONFIGURED);
            }
        }
    }
}
