//! Filters of names: a sample, the same on both sides; and those that are to be read again.

use std::collections::BTreeSet;
use std::sync::Mutex;

use super::hashing::Print;

/// How large a sample is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SampleSize {
    /// So many names.
    Names(u64),
    /// This part of all names, from 0 to 1.
    Part(f64),
}

/// Most names of a sample: they are held in memory.
const MAX_NAMES: u64 = 1_000_000;

impl std::str::FromStr for SampleSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not a sample; write a number of keys (10000) or a \
             percentage (1%)"
            )
        };
        match text.trim().strip_suffix('%') {
            Some(percent) => match percent.trim().parse::<f64>() {
                Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(Self::Part(percent / 100.0)),
                _ => Err(wrong()),
            },
            None => match text.trim().replace(['_', ','], "").parse() {
                Ok(0) => Err(wrong()),
                Ok(names) if names <= MAX_NAMES => Ok(Self::Names(names)),
                Ok(_) => Err(format!(
                    "a sample has at most {MAX_NAMES} keys; write a percentage instead"
                )),
                Err(_) => Err(wrong()),
            },
        }
    }
}

/// A sample of names by their keyed hashes, so that both sides choose the same. Of a number of
/// names it is those with the lowest hashes on either side; which, is known at the end.
#[derive(Debug)]
pub(crate) struct Sample {
    size: SampleSize,
    lowest: Mutex<BTreeSet<Print>>,
}

impl Sample {
    /// A new sample.
    pub(crate) fn new(size: SampleSize) -> Self {
        Self {
            size,
            lowest: Mutex::default(),
        }
    }

    /// Whether a name may belong to the sample.
    pub(crate) fn admits(&self, name: Print) -> bool {
        let wanted = match self.size {
            SampleSize::Part(_) => return name <= self.highest(),
            SampleSize::Names(wanted) => wanted as usize,
        };
        let mut lowest = self
            .lowest
            .lock()
            .unwrap_or_else(|error| error.into_inner());
        if lowest.len() >= wanted {
            if lowest.last().is_some_and(|&last| name > last) {
                return false;
            }
            if lowest.insert(name) {
                lowest.pop_last();
            }
        } else {
            lowest.insert(name);
        }
        true
    }

    /// The highest hash of the sample, when everything was seen.
    pub(crate) fn highest(&self) -> Print {
        match self.size {
            // Sixty-four bits are more than enough for a share.
            SampleSize::Part(part) if part < 1.0 => {
                u128::from((part * u64::MAX as f64) as u64) << 64
            }
            SampleSize::Part(_) => Print::MAX,
            SampleSize::Names(wanted) => {
                let lowest = self
                    .lowest
                    .lock()
                    .unwrap_or_else(|error| error.into_inner());
                match lowest.last() {
                    Some(&last) if lowest.len() as u64 >= wanted => last,
                    _ => Print::MAX,
                }
            }
        }
    }
}

/// Most bits of a sieve: 64 MiB.
const MAX_BITS: u64 = 1 << 29;

/// Names that are to be read, as a Bloom filter: it lets some others through, about one in a
/// thousand up to thirty million names, which costs a little reading and nothing else.
#[derive(Debug)]
pub(crate) struct Sieve {
    words: Vec<u64>,
}

impl Sieve {
    /// A sieve for so many names.
    pub(crate) fn for_names(names: u64) -> Self {
        let bits = names
            .saturating_mul(16)
            .clamp(1 << 10, MAX_BITS)
            .next_power_of_two();
        Self {
            words: vec![0; (bits / 64) as usize],
        }
    }

    fn places(&self, name: Print) -> [usize; 4] {
        let mask = self.words.len() * 64 - 1;
        [0, 32, 64, 96].map(|shift| (name >> shift) as usize & mask)
    }

    /// Lets a name through from now on.
    pub(crate) fn insert(&mut self, name: Print) {
        for place in self.places(name) {
            self.words[place / 64] |= 1 << (place % 64);
        }
    }

    /// Whether a name is let through.
    pub(crate) fn contains(&self, name: Print) -> bool {
        self.places(name)
            .into_iter()
            .all(|place| self.words[place / 64] & (1 << (place % 64)) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Prints;

    #[test]
    fn both_sides_sample_the_same_names() {
        let prints = Prints::default();
        let sample = Sample::new(SampleSize::Names(100));
        let name = |n: u32| prints.name(&n.to_be_bytes());
        let admitted: Vec<u32> = (0..10_000).filter(|&n| sample.admits(name(n))).collect();
        assert!((100..2_000).contains(&admitted.len()), "{}", admitted.len());
        let kept = |n: &u32| name(*n) <= sample.highest();
        assert_eq!(admitted.iter().filter(|n| kept(n)).count(), 100);
        // The other side, in another order, with more names.
        let other: Vec<u32> = (0..10_000)
            .rev()
            .filter(|&n| sample.admits(name(n)))
            .collect();
        let mut left: Vec<u32> = admitted.into_iter().filter(kept).collect();
        let mut right: Vec<u32> = other.into_iter().filter(kept).collect();
        left.sort_unstable();
        right.sort_unstable();
        assert_eq!(left, right);
    }

    #[test]
    fn a_percentage_is_about_that_much() {
        let prints = Prints::default();
        let sample = Sample::new("10%".parse().unwrap());
        let admitted = (0..20_000u32)
            .filter(|n| sample.admits(prints.name(&n.to_be_bytes())))
            .count();
        assert!((1_500..2_500).contains(&admitted), "{admitted}");
        assert!(Sample::new("100%".parse().unwrap()).admits(Print::MAX));
        for wrong in ["0", "", "-1", "0%", "101%", "x", "10000000000"] {
            assert!(wrong.parse::<SampleSize>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_sieve_lets_what_is_in_it_through_and_little_else() {
        let prints = Prints::default();
        let name = |n: u32| prints.name(&n.to_be_bytes());
        let mut sieve = Sieve::for_names(10_000);
        (0..10_000).for_each(|n| sieve.insert(name(n)));
        assert!((0..10_000).all(|n| sieve.contains(name(n))));
        let others = (10_000..110_000)
            .filter(|&n| sieve.contains(name(n)))
            .count();
        assert!(others < 1_000, "{others}");
    }
}
