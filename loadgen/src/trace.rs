//! Which numbers were seen, in a bit each, and how often one came twice.
//!
//! Owns [`Numbers`] and what follows from two of them: lost and doubled. Refuses to know messages. Memory grows with the
//! largest number, an eighth of a byte each, up to a limit; numbers beyond it are not traced, and counted.

/// Most numbers: 128 MiB of bits.
const MOST: u64 = 1 << 30;

/// A set of numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    bits: Vec<u64>,
    /// Different numbers.
    pub different: u64,
    /// Times that a number came again.
    pub again: u64,
    /// Numbers too large to be kept.
    pub beyond: u64,
}

impl Numbers {
    /// Adds one.
    pub fn insert(&mut self, number: u64) {
        if number >= MOST {
            self.beyond += 1;
            return;
        }
        let word = usize::try_from(number / 64).unwrap_or_default();
        if self.bits.len() <= word {
            self.bits.resize(word + 1, 0);
        }
        if let Some(bits) = self.bits.get_mut(word) {
            let bit = 1 << (number % 64);
            if *bits & bit == 0 {
                self.different += 1;
                *bits |= bit;
            } else {
                self.again += 1;
            }
        }
    }

    /// How many of these are not in `other`.
    #[must_use]
    pub fn missing_in(&self, other: &Self) -> u64 {
        let theirs = other.bits.iter().chain(std::iter::repeat(&0));
        self.bits.iter().zip(theirs).map(|(mine, theirs)| u64::from((mine & !theirs).count_ones())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_counts_like_a_set(sent in prop::collection::vec(0u64..300, 0..99), came in prop::collection::vec(0u64..300, 0..99)) {
            let collect = |all: &[u64]| all.iter().fold(Numbers::default(), |mut n, &x| { n.insert(x); n });
            let (a, b) = (collect(&sent), collect(&came));
            let (x, y): (BTreeSet<_>, BTreeSet<_>) = (sent.iter().collect(), came.iter().collect());
            prop_assert_eq!(a.missing_in(&b), x.difference(&y).count() as u64);
            prop_assert_eq!((b.different, b.again), (y.len() as u64, (came.len() - y.len()) as u64));
        }
    }

    #[test]
    fn a_huge_number_costs_no_memory() {
        let mut numbers = Numbers::default();
        numbers.insert(u64::MAX);
        assert_eq!((numbers.beyond, numbers.bits.len()), (1, 0));
    }
}
