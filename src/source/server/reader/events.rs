//! What the reader wants done, and what it is told.

use std::time::Instant;

use super::{Dumped, Expiry, Fate, Job};
use crate::record::Eviction;

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::source::server) enum Action<'a> {
    /// Wait a moment, for the server asked for patience in these words; then [`Event::Waited`].
    Wait(&'a str),
    /// Prepare this job, and give back what of it is to be read: [`Event::Begun`].
    Begin(Job),
    /// Make sure that the connection is in this database: [`Event::Entered`], or
    /// [`super::Reader::shut`] where it cannot be entered.
    Enter(u32),
    /// Send a SCAN.
    AskPage {
        /// From here on.
        cursor: Vec<u8>,
        /// With this COUNT.
        count: u32,
        /// Send it at once: everything waits for its answer.
        at_once: bool,
    },
    /// Send the commands for these keys.
    AskGroup(&'a [Vec<u8>]),
    /// Send what was asked and is not sent yet.
    Flush,
    /// Read the answer to a SCAN: [`Event::Page`] or [`Event::PageRefused`].
    ReadPage,
    /// Read the head of the answer for a group of so many keys: [`Event::Group`] or
    /// [`Event::GroupRefused`].
    ReadGroup(usize),
    /// Read what is answered for one key of it: [`Event::Value`].
    ReadValue,
    /// This becomes of a key of the present database.
    Settle(Vec<u8>, Fate),
    /// Every name that SCAN gave was read, and nothing is under way: a later run can go on here
    /// ([`super::Reader::drained`]).
    Drained,
    /// The server loads another dataset, as it says: the connection is as good as lost.
    Loading(String),
    /// All was read.
    End,
    /// Nothing more is read.
    Fail(Fault),
}

/// What cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::source::server) enum Fault {
    /// Of the server.
    Server(&'static str),
    /// Of this program.
    Bug(&'static str),
}

/// What came of it.
#[derive(Debug)]
pub(in crate::source::server) enum Event {
    /// A job is to be read, or what is left of it.
    Begun(Job),
    /// The connection is in the present database.
    Entered,
    /// The moment is over.
    Waited,
    /// A page of names came at this moment; those that are to be read, and where the next one begins.
    Page {
        next: Vec<u8>,
        names: Vec<Vec<u8>>,
        at: Instant,
    },
    /// SCAN was refused for now, in these words.
    PageRefused(String),
    /// The head of a group came.
    Group(Vec<KeyFacts>),
    /// A group was refused as a whole, in these words.
    GroupRefused(String),
    /// The answers for the next key of the open group came.
    Value {
        dumped: Dumped,
        /// The expiry, asked for once more after the value.
        after: Option<Expiry>,
    },
}

/// What the head of a group says of a key.
#[derive(Debug)]
pub(in crate::source::server) struct KeyFacts {
    pub expiry: Expiry,
    pub eviction: Option<Eviction>,
}

/// What a lost connection means for what is asked next.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::source::server) enum AfterLoss {
    /// The same is asked again.
    Same,
    /// It is asked again in another way.
    Less,
    /// This key is not asked for again: the connection ends whenever it is.
    WithoutKey(Vec<u8>),
    /// The connection ends at one key after the other.
    Hopeless,
}

/// Where a later run can go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::source::server) struct Position {
    pub db: u32,
    /// `None` where the database was scanned through, or was not begun.
    pub cursor: Option<Vec<u8>>,
    /// The databases that come after it.
    pub waiting: Vec<u32>,
}
