//! Comparing, and looking again at what differs.

use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::collect::Side;
use super::join::{Difference, Join, SideRows, Totals};
use super::judge::Judge;
use super::names::Sample;
use super::prints::Prints;
use crate::exit::Interrupted;
use crate::memory::FingerprintSet;
use crate::pipe::Stop;

/// Differences that are looked at again. When there are more, writes are not the reason.
const MAX_AGAIN: usize = 250_000;

/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_secs(1);

/// A side that was read again; `None` for one that does not change.
pub type Again = (Option<Side>, Option<Side>);

/// Two sides that were read.
pub struct Comparison<'a> {
    /// The left side.
    pub left: SideRows,
    /// The right side.
    pub right: SideRows,
    /// What counts.
    pub judge: Judge,
    /// The key of the hashes.
    pub prints: &'a Prints,
    /// Whether keys only on the right are passed over.
    pub ignore_extra: bool,
    /// The sample, if it is one.
    pub sample: Option<&'a Sample>,
    /// Keys that were read again.
    asked: FingerprintSet,
    /// Keys that differed and then did not.
    settled: FingerprintSet,
}

impl<'a> Comparison<'a> {
    /// Nothing is compared yet. `judge` gets the sides' own moments.
    pub fn new(left: Side, right: Side, judge: Judge, prints: &'a Prints) -> Self {
        let rows = |store| SideRows {
            first: store,
            again: None,
        };
        Self {
            judge: Judge {
                moments_ms: (left.moment_ms, right.moment_ms),
                ..judge
            },
            left: rows(left.store),
            right: rows(right.store),
            prints,
            ignore_extra: false,
            sample: None,
            asked: empty(),
            settled: empty(),
        }
    }

    /// Tells `each` of every difference.
    ///
    /// # Errors
    /// The temporary files, and those of `each`.
    pub fn differences(&self, each: impl FnMut(Difference) -> Result<()>) -> Result<Totals> {
        Join {
            left: &self.left,
            right: &self.right,
            asked: &self.asked,
            settled: &self.settled,
            judge: self.judge,
            ignore_extra: self.ignore_extra,
            sample: self.sample.map(|sample| (self.prints, sample.highest())),
        }
        .run(each)
    }

    /// Compares, and up to `rounds` times has the keys that differ read again: `again` gets the
    /// hashes of their names.
    ///
    /// # Errors
    /// The temporary files, those of `again`, and [`Interrupted`].
    pub fn settle(
        &mut self,
        rounds: u32,
        stop: &Stop,
        mut again: impl FnMut(Arc<FingerprintSet>) -> Result<Again>,
    ) -> Result<Totals> {
        let (mut totals, mut differing, mut names) = self.differing()?;
        for _ in 0..rounds {
            if differing.is_empty() || totals.all.different() > MAX_AGAIN as u64 {
                break;
            }
            wait(stop)?;
            let (left, right) = again(Arc::new(names))?;
            let (left_ms, right_ms) = &mut self.judge.moments_ms;
            for (side, rows, moment_ms) in [
                (left, &mut self.left, left_ms),
                (right, &mut self.right, right_ms),
            ] {
                if let Some(side) = side {
                    rows.again = Some(side.store);
                    *moment_ms = side.moment_ms.max(*moment_ms);
                }
            }
            self.asked = differing;
            (totals, differing, names) = self.differing()?;
            let right_now = self.asked.difference(&differing);
            self.settled.extend(right_now.copied().collect::<Vec<_>>());
        }
        Ok(totals)
    }

    /// How many keys differed at first and not any more.
    pub fn settled(&self) -> u64 {
        self.settled.len() as u64
    }

    /// Compares; what differs, and the names of it.
    fn differing(&self) -> Result<(Totals, FingerprintSet, FingerprintSet)> {
        let (mut keys, mut names) = (empty(), empty());
        let totals = self.differences(|difference| {
            if let Some(row) = difference.either()
                && keys.len() <= MAX_AGAIN
            {
                keys.insert(row.print);
                names.insert(self.prints.name(&row.key));
            }
            Ok(())
        })?;
        Ok((totals, keys, names))
    }
}

fn empty() -> FingerprintSet {
    FingerprintSet::with_hasher(BuildHasherDefault::default())
}

fn wait(stop: &Stop) -> Result<()> {
    let until = Instant::now() + PAUSE;
    while Instant::now() < until {
        if stop.is_set() {
            return Err(Interrupted.into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
