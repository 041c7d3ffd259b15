//! Which addresses of a block are in use: one bit each, so that a document needs only a few characters for a block.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// How many addresses a set can note: those of the largest block.
const CAPACITY: u64 = 1 << crate::size::MOST_BLOCK_BITS;

/// A set of addresses of one block, by their distance from the block's first address. Written in hexadecimal: digit `k` from
/// the left has the numbers `4k` to `4k+3`, the lowest number in its lowest bit. Zeros at the end are left out, so the empty
/// set is `""`.
///
/// Only numbers below 4096, the addresses of the largest block, can be noted. All others always count as in use, because an
/// address that cannot be noted must not be given out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Used(
    /// 64 numbers a word; the last word is never 0, so that equal sets compare equal.
    Vec<u64>,
);

impl Used {
    /// Whether address `n` of the block is in use; always so from 4096 on.
    pub fn contains(&self, n: u64) -> bool {
        let (word, bit) = place(n);
        n >= CAPACITY || self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Notes that address `n` of the block is in use.
    pub fn insert(&mut self, n: u64) {
        let (word, bit) = place(n);
        if n >= CAPACITY {
            return;
        }
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= bit;
    }

    /// Notes that address `n` of the block is in use no longer.
    pub fn remove(&mut self, n: u64) {
        let (word, bit) = place(n);
        if let Some(word) = self.0.get_mut(word) {
            *word &= !bit;
        }
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    /// How many addresses are in use.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether no address is in use.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The lowest number from `from` on that is not in use; a full block is passed 64 numbers a step.
    pub(crate) fn next_free(&self, from: u64) -> u64 {
        let mut n = from;
        while let Some(word) = self.0.get(place(n).0) {
            let ones = u64::from((word >> (n % 64)).trailing_ones());
            let left = 64 - n % 64;
            if ones < left {
                return n + ones;
            }
            n += left;
        }
        n
    }
}

/// Word and bit of a number. The word of a number that is too large is one that no set has.
fn place(n: u64) -> (usize, u64) {
    (usize::try_from(n / 64).unwrap_or(usize::MAX), 1 << (n % 64))
}

impl fmt::Display for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A word's lowest digit comes first, so a word is written backwards.
        let digits = self
            .0
            .iter()
            .flat_map(|word| (0..16).map(move |k| word >> (4 * k) & 15));
        let used = self
            .0
            .last()
            .map_or(0, |last| 16 - last.leading_zeros() as usize / 4);
        let words = self.0.len().saturating_sub(1);
        for digit in digits.take(16 * words + used) {
            write!(f, "{digit:x}")?;
        }
        Ok(())
    }
}

/// The text is not a set of addresses.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not a set of addresses in use: {why}")]
pub struct BadUsed {
    text: String,
    why: &'static str,
}

impl FromStr for Used {
    type Err = BadUsed;

    fn from_str(text: &str) -> Result<Self, BadUsed> {
        let bad = |why| BadUsed {
            text: text.chars().take(40).collect(),
            why,
        };
        let mut used = Self::default();
        for (k, digit) in (0u64..).zip(text.chars()) {
            let digit = digit
                .to_digit(16)
                .ok_or_else(|| bad("want hexadecimal digits only"))?;
            for n in (0..4).filter(|n| digit >> n & 1 == 1).map(|n| 4 * k + n) {
                if n >= CAPACITY {
                    return Err(bad("a block has at most 4096 addresses"));
                }
                used.insert(n);
            }
        }
        Ok(used)
    }
}

impl TryFrom<String> for Used {
    type Error = BadUsed;
    fn try_from(text: String) -> Result<Self, BadUsed> {
        text.parse()
    }
}

impl From<Used> for String {
    fn from(used: Used) -> Self {
        used.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    fn of(numbers: impl IntoIterator<Item = u64>) -> Used {
        let mut used = Used::default();
        numbers.into_iter().for_each(|n| used.insert(n));
        used
    }

    #[test]
    fn the_spelling_is_short_and_has_the_lowest_number_first() {
        for (numbers, text) in [
            (vec![], ""),
            (vec![0], "1"),
            (vec![3, 4], "81"),
            ((0..8).collect(), "ff"),
            (vec![64], "00000000000000001"),
        ] {
            assert_eq!(of(numbers).to_string(), text);
        }
        assert_eq!(of(0..4096).to_string(), "f".repeat(1024));
        assert_eq!("FF00".parse::<Used>().unwrap(), of(0..8));
    }

    #[test]
    fn garbage_is_refused_with_its_reason() {
        let large = "0".repeat(1024) + "1";
        for (text, why) in [
            ("xyz", "hexadecimal"),
            ("1 ", "hexadecimal"),
            ("-1", "hexadecimal"),
            ("é", "hexadecimal"),
            (&large, "4096"),
        ] {
            let message = serde_json::from_value::<Used>(text.into()).unwrap_err();
            let message = message.to_string();
            assert!(
                message.contains("is not a set of addresses in use") && message.contains(why),
                "{message}"
            );
        }
    }

    #[test]
    fn what_cannot_be_noted_is_never_free() {
        let mut used = Used::default();
        for n in [4096, u64::MAX] {
            used.insert(n);
            used.remove(n);
            assert!(used.contains(n) && used.is_empty());
        }
        assert!(!used.contains(4095));
    }

    proptest! {
        #[test]
        fn it_is_a_set_of_numbers(
            // Few numbers, at the ends of words, so that what was put in is often taken out again.
            steps in proptest::collection::vec((any::<bool>(), prop_oneof![0u64..3, 62u64..66, 254u64..258]), 0..100),
            probe in 0u64..4096,
        ) {
            let (mut used, mut set) = (Used::default(), BTreeSet::new());
            for (insert, n) in steps {
                if insert {
                    used.insert(n);
                    set.insert(n);
                } else {
                    used.remove(n);
                    set.remove(&n);
                }
                prop_assert_eq!((used.len(), used.is_empty()), (set.len(), set.is_empty()));
            }
            prop_assert_eq!(used.contains(probe), set.contains(&probe));
            prop_assert!((0..300).all(|n| used.contains(n) == set.contains(&n)));
            prop_assert_eq!(&used, &of(set.iter().copied()));
        }

        #[test]
        fn the_next_free_number_is_the_lowest(numbers in proptest::collection::btree_set(0u64..140, 0..140), from in 0u64..200) {
            let lowest = (from..=200).find(|n| !numbers.contains(n)).unwrap();
            prop_assert_eq!(of(numbers).next_free(from), lowest);
        }
    }
}
