//! What goes out again, or next, and which keys have a record on its way.
//!
//! Between two connections nobody knows whether a write was carried out. Under `--on-conflict
//! replace` it is simply done again. Else it is done again in the hope that it was not, and where
//! the key then stands it is compared with what was sent: equal is ours.
//!
//! A key that has a record on its way is never sent again before that one is answered, so records of
//! one key take effect in their order.

use std::collections::VecDeque;

use super::fleet::Fleet;
use super::item::Item;
use crate::own_writes::{Fingerprint, FingerprintSet};

/// What is not in flight and not done.
#[derive(Default)]
pub(super) struct Backlog {
    /// Goes out once what is in flight is answered.
    put_off: VecDeque<Box<Item>>,
    /// Goes out at once, where its connection takes it.
    next: VecDeque<Box<Item>>,
    /// Every key that has a record on its way.
    prints: FingerprintSet,
    /// Whether some of these records were acknowledged by a primary that is gone: no later record of
    /// such a key goes out before it.
    recalls: bool,
    /// Records that are still sent in this round.
    round: usize,
    /// The destination is waited for before the next round.
    pause: bool,
    /// Records that were sent since the last flush, of those that had waited for a database.
    released: usize,
}

/// So many of the records that waited for a database go out before the others are put together: the
/// server has nothing else to do.
const FIRST_HELD: usize = 64;

impl Backlog {
    /// Whether a record of this key is on its way.
    pub fn is_open(&self, print: Fingerprint) -> bool {
        self.prints.contains(&print)
    }

    /// A record goes out, or waits.
    pub fn note_open(&mut self, print: Fingerprint) {
        self.prints.insert(print);
    }

    /// A record was answered.
    pub fn note_answered(&mut self, print: Fingerprint) {
        self.prints.remove(&print);
    }

    /// Puts a record off.
    pub fn put_off(&mut self, item: Box<Item>) {
        self.prints.insert(item.print);
        self.put_off.push_back(item);
    }

    /// Puts a record off that was acknowledged by a primary that is gone, before all others.
    pub fn recall(&mut self, mut item: Box<Item>) {
        item.past.is_recalled = true;
        self.recalls = true;
        self.prints.insert(item.print);
        self.put_off.push_front(item);
    }

    /// A record goes out next.
    pub fn push_next(&mut self, item: Box<Item>) {
        self.prints.insert(item.print);
        self.next.push_back(item);
    }

    /// Records whose database is proved now go out next.
    pub fn release(&mut self, held: VecDeque<Box<Item>>) {
        self.next.extend(held);
        self.released = 1;
    }

    /// Whether what was released so far is to be flushed now. To be asked before each of them.
    pub fn must_flush_released(&mut self) -> bool {
        if self.released == 0 {
            return false;
        }
        self.released += 1;
        match self.next.is_empty() {
            true => {
                self.released = 0;
                true
            }
            false => self.released == FIRST_HELD + 2,
        }
    }

    /// The record that goes out next.
    pub fn pop_next(&mut self) -> Option<Box<Item>> {
        let item = self.next.pop_front()?;
        self.prints.remove(&item.print);
        Some(item)
    }

    pub fn has_put_off(&self) -> bool {
        !self.put_off.is_empty()
    }

    /// Begins a round: all that is put off now. What comes back waits for the next one.
    pub fn begin_round(&mut self) {
        self.round = self.put_off.len();
    }

    /// The next record of the round.
    pub fn pop_round(&mut self) -> Option<Box<Item>> {
        self.round = self.round.checked_sub(1)?;
        let item = self.put_off.pop_front()?;
        self.prints.remove(&item.print);
        Some(item)
    }

    /// Nothing is on its way.
    pub fn rest_is_done(&mut self) {
        self.recalls = false;
    }

    /// The destination is waited for before the next round.
    pub fn pause(&mut self) {
        self.pause = true;
    }

    pub fn is_paused(&self) -> bool {
        self.pause
    }

    /// Whether the destination was to be waited for, which it is now.
    pub fn end_pause(&mut self) -> bool {
        std::mem::take(&mut self.pause)
    }

    /// Whether an earlier record of the same key is to go first: the primary that acknowledged it is
    /// gone, and its successor perhaps lacks it. To be asked just before the record goes out, because
    /// all that comes before may have opened the connection to the successor.
    pub fn follows_recalled(&self, item: &Item, fleet: &Fleet) -> bool {
        if !self.recalls || item.past.is_recalled {
            return false;
        }
        let lanes = fleet.lanes().iter();
        let in_flight = lanes.flat_map(|lane| lane.flight.unanswered());
        let mut open = self.waiting().chain(in_flight);
        open.any(|other| other.past.is_recalled && other.print == item.print)
    }

    /// What is put off.
    pub fn put_off_items(&self) -> impl Iterator<Item = &Item> {
        self.put_off.iter().map(AsRef::as_ref)
    }

    /// All that waits here.
    pub fn waiting(&self) -> impl Iterator<Item = &Item> {
        self.put_off_items()
            .chain(self.next.iter().map(AsRef::as_ref))
    }
}
