//! What is in flight on one connection, and what waits until its database is proved.

use std::collections::VecDeque;

use super::item::{InFlight, Item};
use crate::sink::server::commands::Ticket;

/// SELECT is in flight, behind all that goes to the database before.
pub(super) struct Move {
    /// Where to.
    db: u32,
    /// What goes there, and waits for the OK. Not a byte of it is on its way.
    held: VecDeque<Box<Item>>,
    /// Bytes of values.
    held_bytes: usize,
}

/// What is in flight on one connection, in the order of the replies.
#[derive(Default)]
pub(super) struct Flight {
    sent: VecDeque<InFlight>,
    /// Bytes of values.
    bytes: usize,
    /// Values that native commands write: their later turns go out when their replies come.
    values: usize,
    moving: Option<Move>,
}

impl Flight {
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    pub fn first(&self) -> Option<&InFlight> {
        self.sent.front()
    }

    pub fn first_mut(&mut self) -> Option<&mut Item> {
        match self.sent.front_mut()? {
            InFlight::Record(item) | InFlight::Value(item, _) => Some(item),
            InFlight::Asking | InFlight::Cleared | InFlight::Select | InFlight::Wait => None,
        }
    }

    /// What was sent last.
    pub fn last(&self) -> Option<&Item> {
        self.sent.back().and_then(InFlight::item)
    }

    /// Puts something behind what is in flight.
    pub fn push(&mut self, sent: InFlight) {
        self.bytes += sent.item().map_or(0, |item| item.bytes);
        self.values += usize::from(matches!(sent, InFlight::Value(..)));
        self.sent.push_back(sent);
    }

    /// Takes what is due first.
    pub fn pop(&mut self) -> Option<InFlight> {
        let sent = self.sent.pop_front()?;
        self.bytes -= sent.item().map_or(0, |item| item.bytes);
        self.values -= usize::from(matches!(sent, InFlight::Value(..)));
        Some(sent)
    }

    /// Takes the value that is due first, with what tells its replies.
    pub fn pop_value(&mut self) -> Option<(Box<Item>, Box<Ticket>)> {
        #[cfg(test)]
        self.sent.front().into_iter().for_each(super::tests::mark);
        match self.sent.front() {
            Some(InFlight::Value(..)) => match self.pop() {
                Some(InFlight::Value(item, ticket)) => Some((item, ticket)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Takes all: what was in flight, and what was not on its way yet.
    pub fn take(&mut self) -> (VecDeque<InFlight>, VecDeque<Box<Item>>) {
        let all = std::mem::take(self);
        let held = all.moving.map(|moving| moving.held).unwrap_or_default();
        (all.sent, held)
    }

    /// SELECT is sent now.
    pub fn start_move(&mut self, db: u32) {
        self.push(InFlight::Select);
        self.moving = Some(Move {
            db,
            held: VecDeque::new(),
            held_bytes: 0,
        });
    }

    /// The database that SELECT is in flight for.
    pub fn moving_to(&self) -> Option<u32> {
        self.moving.as_ref().map(|moving| moving.db)
    }

    /// Makes a record wait for the database; how many do by now. Where nothing is under way the
    /// record comes back.
    pub fn hold(&mut self, item: Box<Item>) -> Result<usize, Box<Item>> {
        let Some(moving) = &mut self.moving else {
            return Err(item);
        };
        moving.held_bytes += item.bytes;
        moving.held.push_back(item);
        Ok(moving.held.len())
    }

    /// SELECT was answered: where it goes to, and what waited for it.
    pub fn end_move(&mut self) -> Option<(u32, VecDeque<Box<Item>>)> {
        self.moving.take().map(|moving| (moving.db, moving.held))
    }

    /// Whether a value that is in flight will have more commands to send.
    pub fn has_turns_left(&self) -> bool {
        self.values > 0
    }

    /// The records in flight.
    pub fn sent(&self) -> impl Iterator<Item = &Item> {
        self.sent.iter().filter_map(InFlight::item)
    }

    /// The records in flight, and those that wait for a database.
    pub fn unanswered(&self) -> impl Iterator<Item = &Item> {
        let held = self
            .moving
            .iter()
            .flat_map(|moving| moving.held.iter().map(AsRef::as_ref));
        self.sent.iter().filter_map(InFlight::item).chain(held)
    }

    /// The records in flight, with the temporary key that each may leave.
    pub fn temps(&self) -> impl Iterator<Item = (&Item, &[u8])> {
        self.sent.iter().filter_map(|sent| match sent {
            InFlight::Value(item, ticket) => Some((item.as_ref(), ticket.temp()?)),
            _ => None,
        })
    }

    /// How many are unanswered.
    pub fn unanswered_count(&self) -> usize {
        self.sent.len() + self.moving.as_ref().map_or(0, |moving| moving.held.len())
    }

    /// Bytes of their values.
    pub fn unanswered_bytes(&self) -> usize {
        self.bytes + self.moving.as_ref().map_or(0, |moving| moving.held_bytes)
    }
}
