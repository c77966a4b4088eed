//! The nodes that are read, and which slot is read from which of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::SlotSet;
use super::part::{Part, Reader, is_lost};
use super::plan::{Holder, unsteady};
use super::stages::Shards;
use super::view::View;
use crate::host;
use crate::observer::Observer;
use crate::source::server::ConvergingSource;
use crate::source::server::delivered::GivenLog;

/// A shard with more names than this waiting is read again before the last round.
const FEW_NAMES: usize = 50;

/// A node may be lost so often in a row. One that lets itself be read and always hangs up would be
/// read from its beginning for ever.
const MOST_LOSSES: u32 = 16;

/// In a row is what comes within this time of the loss before.
const IN_A_ROW: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Default)]
pub(super) struct Parts {
    list: Vec<Part>,
    /// By the id of the primary: how often in a row it was lost, and when it was the last time.
    losses: BTreeMap<String, (u32, Instant)>,
    /// The part that each slot is read from.
    holders: BTreeMap<u16, usize>,
}

impl Parts {
    pub fn iter(&self) -> impl Iterator<Item = &Part> {
        self.list.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Part> {
        self.list.iter_mut()
    }

    pub fn get(&self, at: usize) -> Option<&Part> {
        self.list.get(at)
    }

    pub fn get_mut(&mut self, at: usize) -> Option<&mut Part> {
        self.list.get_mut(at)
    }

    /// Adds a part that no slot is read from yet.
    pub fn push(&mut self, part: Part) -> usize {
        self.list.push(part);
        self.list.len() - 1
    }

    /// From now on these slots are read from this part.
    pub fn hold(&mut self, slots: &SlotSet, at: usize) {
        self.holders.extend(slots.iter().map(|slot| (slot, at)));
    }

    /// How a slot is read.
    pub fn holder(&self, slot: u16) -> Option<Holder<'_>> {
        let part = self.list.get(*self.holders.get(&slot)?)?;
        Some(Holder {
            primary: part.is_live().then_some(part.primary.as_str()),
            is_scan: matches!(part.reader, Reader::Scan(_)),
        })
    }

    /// The parts that these slots are read from, but this one.
    pub fn holders_but(&self, slots: &SlotSet, target: usize) -> Vec<&Part> {
        let holders: BTreeSet<usize> = slots
            .iter()
            .filter_map(|slot| self.holders.get(&slot).copied())
            .filter(|&at| at != target)
            .collect();
        holders.iter().filter_map(|&at| self.list.get(at)).collect()
    }

    /// The part that reads slots of this primary.
    pub fn of_primary(&self, primary: &str) -> Option<usize> {
        let is_it = |part: &Part| part.is_owner() && part.primary == primary;
        self.list.iter().position(is_it)
    }

    /// Whether slots are still read from a part. If not, they are read elsewhere by now, and what it
    /// says does not count.
    pub fn counts(&self, part: &Part) -> bool {
        let held = |at: &usize| {
            let held = self.list.get(*at);
            held.is_some_and(|held| held.number == part.number)
        };
        part.is_live() && self.holders.values().any(held)
    }

    /// Those that listen to changes and can be read.
    pub fn converging(&mut self) -> impl Iterator<Item = &mut ConvergingSource> {
        self.list.iter_mut().filter_map(Part::converging)
    }

    /// The same, with the place of each.
    pub fn converging_at(&mut self) -> (Vec<usize>, Vec<&mut ConvergingSource>) {
        let parts = self.list.iter_mut().enumerate();
        parts
            .filter_map(|(at, part)| Some((at, part.converging()?)))
            .unzip()
    }

    /// Those that are asked for slots on their way to them.
    pub fn asking(&mut self) -> impl Iterator<Item = &mut Part> {
        self.list.iter_mut().filter(|part| part.asking)
    }

    /// Whether this is so of a shard that listens to changes and can be read.
    pub fn any(&mut self, is: impl Fn(&ConvergingSource) -> bool) -> bool {
        self.converging().any(|source| is(source))
    }

    /// Lets these shards read again what changed.
    pub fn read_on(&mut self, shards: Shards) {
        for source in self.converging() {
            let reads = match shards {
                Shards::All => true,
                Shards::Busy => is_busy(source),
                Shards::AtLast => source.is_at_last(),
            };
            if reads {
                source.more_rounds();
            }
        }
    }

    pub fn give_up(&mut self, reason: &str) {
        for source in self.converging() {
            source.give_up(reason);
        }
    }

    /// Marks a part as lost, if that is what the error means: another node has its slots, or will.
    ///
    /// # Errors
    /// Any other error.
    pub fn lose(&mut self, at: usize, error: anyhow::Error) -> Result<()> {
        if !is_lost(&error) {
            return Err(error);
        }
        if let Some(part) = self.list.get_mut(at) {
            part.lost = Some(format!("{error:#}"));
        }
        Ok(())
    }

    /// Stops reading from those that were lost.
    ///
    /// # Errors
    /// That a node was lost too often, and errors of the file of names that were given.
    pub fn retire_lost(&mut self, observer: &Observer) -> Result<()> {
        for at in 0..self.list.len() {
            let part = &self.list[at];
            let is_gone = matches!(part.reader, Reader::Gone(_));
            let Some(reason) = part.lost.clone().filter(|_| !is_gone) else {
                continue;
            };
            let times = self.note_loss(part.primary.clone(), host::now());
            if times > MOST_LOSSES {
                anyhow::bail!(
                    "{reason}; a node of the cluster was lost {times} times in a row, each time \
                     within {} s of the time before",
                    IN_A_ROW.as_secs()
                );
            }
            observer.notice(&format!(
                "{reason}; the slots of that node are read again, from whoever has them"
            ));
            self.list[at].retire()?;
        }
        Ok(())
    }

    /// How often in a row it is by now.
    fn note_loss(&mut self, primary: String, now: Instant) -> u32 {
        let (times, last) = self.losses.entry(primary).or_insert((0, now));
        if now.saturating_duration_since(*last) > IN_A_ROW {
            *times = 0;
        }
        *times += 1;
        *last = now;
        *times
    }

    /// Slots of plain scans that may have moved away and come back unnoticed.
    pub fn unsteady(&self, before: &View, now: &View, wanted: &SlotSet) -> SlotSet {
        let scans = self
            .list
            .iter()
            .filter(|part| part.is_owner() && matches!(part.reader, Reader::Scan(_)));
        let slots = scans.map(|part| unsteady(before, now, wanted, &part.primary));
        SlotSet::of(slots.flat_map(|slots| slots.iter().collect::<Vec<_>>()))
    }

    /// The names of all keys that the other parts gave.
    ///
    /// # Errors
    /// Errors of the file of names that were given.
    pub fn logs_but(&mut self, target: usize) -> Result<Vec<GivenLog>> {
        let mut logs = Vec::new();
        for (at, part) in self.list.iter_mut().enumerate() {
            if at != target {
                logs.extend(part.log()?);
            }
        }
        Ok(logs)
    }

    /// From now on these slots are read from one part, and from no other.
    pub fn release_but(&mut self, target: usize, slots: &SlotSet) {
        for (at, part) in self.list.iter_mut().enumerate() {
            if at != target {
                part.release(slots);
            }
        }
        self.hold(slots, target);
    }
}

/// Whether in a shard much has changed that was not read again.
pub(super) fn is_busy(source: &ConvergingSource) -> bool {
    source.names_waiting() > FEW_NAMES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_in_a_row_while_they_come_one_shortly_after_the_other() {
        let mut parts = Parts::default();
        let began = host::now();
        let mut note = |primary: &str, s: u64| {
            parts.note_loss(primary.to_owned(), began + Duration::from_secs(s))
        };
        assert_eq!((note("a", 0), note("a", 50), note("b", 60)), (1, 2, 1));
        assert_eq!((note("a", 110), note("a", 171), note("b", 110)), (3, 1, 2));
    }
}
