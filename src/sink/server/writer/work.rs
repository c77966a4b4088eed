//! What is under way in a writer.

use std::time::Duration;

use super::io::Litter;
use super::item::Item;
use crate::endpoint::ConnectOptions;
use crate::sink::server::commands::Ticket;

/// What is to be done next. As an [`super::io::Action`], which borrows what it needs.
pub(super) enum Do {
    /// Others are told the next thing.
    Say,
    /// The record that was put in flight last on this lane.
    Send(usize),
    SendSelect(usize, u32),
    SendWait(usize, u64),
    /// The record of the exchange.
    Queue(usize),
    WriteAlone(usize),
    Flush,
    Read(usize),
    Peek(usize),
    /// The value of the exchange.
    ReadValue(usize, Box<Ticket>),
    Connect(usize, Duration),
    Drop(usize),
    Select(usize, u32),
    Ask(usize, Query),
    AskSentinels(usize),
    AskTopology(Vec<ConnectOptions>),
    AskNodes(Vec<usize>),
    Wait(Duration),
    TellSource(u64),
    CountEvictions(usize),
    CountUpheavals(usize),
    Sweep(Vec<Litter>),
}

/// What is asked with nothing in flight, about the record in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Query {
    Limits,
    Target,
    Classes,
    Features,
    Graph,
    Offer,
    Rights,
    Native,
    Library,
}

/// What is done between two records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drain {
    /// Nothing: the next one may come.
    Off,
    /// What was queued goes out.
    Flush,
    /// What is in flight is read.
    Read,
    /// What was put off goes out.
    Round,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Records come.
    Writing,
    /// It failed: this lane is read, only to count what was applied. `flushed`: all was written.
    Counting { at: usize, flushed: bool },
    /// Temporary keys are removed.
    Sweeping,
    /// It failed, and is closed.
    Failed,
}

/// A record whose commands and replies are exchanged: it is neither in flight nor waiting.
pub(super) struct Exchange {
    pub item: Box<Item>,
    /// The temporary key that a value may leave.
    pub temp: Option<Vec<u8>>,
}

/// What came of a step.
pub(super) enum Stepped {
    /// This is to be done first; then the record is looked at again.
    Wait(Box<Item>, Do),
    /// All that is in flight or put off goes first.
    Drain(Box<Item>),
    /// The shell exchanges the commands of the record now.
    Exchange(Box<Item>, Do),
    /// It is in flight, waits somewhere, or is done; and what is to be done now, if anything.
    Over(Option<Do>),
}

/// What a stage comes to.
pub(super) enum Staged {
    /// The next stage.
    Go,
    /// This is to be done first.
    Wait(Do),
    Drain,
    PutOff,
    /// Nothing more is to be done with it.
    Over,
    Refused(String, Option<String>),
    /// Its database is not to be had.
    NoDatabase(String),
    /// It goes out on this lane.
    Send(usize),
    /// It waits until SELECT is answered on this lane; and what is to be done for that.
    Hold(usize, Option<Do>),
    Exchange(Do),
    /// What is known already says what the answer would be.
    Answered(usize, Result<(), String>),
}

#[cfg(test)]
super::tests::named!(Do: Say, Send, SendSelect, SendWait, Queue, WriteAlone, Flush, Read, Peek, ReadValue, Connect, Drop, Select, Ask, AskSentinels, AskTopology, AskNodes, Wait, TellSource, CountEvictions, CountUpheavals, Sweep);

#[cfg(test)]
super::tests::named!(Query: Limits, Target, Classes, Features, Graph, Offer, Rights, Native, Library);

#[cfg(test)]
super::tests::named!(Drain: Off, Flush, Read, Round);

#[cfg(test)]
super::tests::named!(Phase: Writing, Counting, Sweeping, Failed);

#[cfg(test)]
super::tests::named!(Staged: Go, Wait, Drain, PutOff, Over, Refused, NoDatabase, Send, Hold, Exchange, Answered);
