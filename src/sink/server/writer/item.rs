//! A record on its way to the destination, and what is in flight on a connection.

use std::collections::VecDeque;

use crate::ledger::Changes;
use crate::own_writes::Fingerprint;
use crate::record::{Context, KeyRecord, Origin, Value};
use crate::sink::Seen;
use crate::sink::server::commands::Ticket;
use crate::sink::server::foresee::Way;
use crate::sink::server::prepare::Ready;

/// What the command of a record is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sink::server) enum Task {
    /// Writes the value. `own`: in place of what this run wrote earlier.
    Restore { replace: bool, own: bool },
    /// Reads back a key that stood already.
    Compare,
    /// Dry run: could it be written?
    Try(Way),
    /// Dry run: is it there?
    Look,
    /// A tombstone of a key that this run did not write: does it stand?
    Ask,
    /// Removes a key because its record is past its time, or a tombstone.
    Delete { expired: bool },
    /// Removes a temporary key by this command, which may be left over.
    CleanUp(&'static str),
}

impl Task {
    /// Whether the destination holds something else behind it.
    pub fn writes(self) -> bool {
        matches!(self, Self::Restore { .. } | Self::Delete { .. })
    }

    /// Whether it is about a key that somebody gave.
    pub fn concerns_key(self) -> bool {
        !matches!(self, Self::CleanUp(_))
    }

    /// The command that is sent for it.
    pub fn command(self) -> &'static str {
        match self {
            Self::CleanUp(word) => word,
            Self::Restore { .. } => "RESTORE",
            Self::Try(way) => way.command(),
            Self::Compare => "DUMP",
            Self::Look | Self::Ask => "EXISTS",
            Self::Delete { .. } => "DEL",
        }
    }
}

/// How a value goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sink::server) enum Form {
    /// By RESTORE.
    Payload(Ready),
    /// By RESTORE, and what stands in its place is deleted before it, not replaced.
    Graph(Ready),
    /// By native commands.
    Commands,
}

/// As what a record was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sink::server) enum Counted {
    Restored,
    ReplacedOwn,
    Deleted,
    AlreadyGone,
    Expired,
}

/// When the destination did the write that it has acknowledged. WAIT speaks of what was written on
/// its own connection: it says nothing of what was found to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sink::server) enum Wrote {
    /// With this very command.
    Now,
    /// Before, perhaps on another connection.
    Before,
}

/// What a record needs before it can go out. The stages come in this order; a record takes part in
/// those that its form needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::sink::server) enum Stage {
    /// Earlier records of its key take effect first.
    Settle,
    /// The connection that it goes to is there.
    Route,
    /// It is looked at: it may be past its time, too large, or refused at once.
    Judge,
    /// A large value: how much the destination takes in one piece is known.
    Size,
    /// What the destination accepts is known.
    Learn,
    /// What the destination does with its key metadata is known.
    Classes,
    /// It is made ready for RESTORE.
    Prepare,
    /// Written anew it may have become larger: as [`Stage::Size`].
    NewSize,
    /// A graph: no other graph of its name stands there.
    Graph,
    /// It is ready for RESTORE, and nothing speaks against it so far.
    Ready,
    /// Dry run: a value that cannot be read here is offered.
    Offer,
    /// Its footer and key metadata are taken off, so that native commands can write it.
    Strip,
    /// What the destination's native commands can do is known.
    Features,
    /// Dry run: native commands may be used.
    Native,
    /// The value is one that native commands can write.
    Check,
    /// Dry run: the user may write this key.
    Rights(Way),
    /// It goes to another lane than the one that it was made ready for: as [`Stage::Learn`] and
    /// [`Stage::Classes`], there.
    Refit,
    /// It is made ready for that lane.
    PrepareAnew,
    /// It is queued on its connection.
    Place,
    /// It is written with nothing else in flight on its connection.
    Alone,
}

/// What happened to a record so far.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::sink::server) struct Past {
    /// It may have been written already: nobody heard.
    pub is_doubtful: bool,
    /// It was acknowledged and counted, and is only checked again.
    pub counted: Option<Counted>,
    /// It was acknowledged by a primary that is gone, and is given to its successor.
    pub is_recalled: bool,
    /// How often it was sent to another node.
    pub turns: u8,
    /// How often the connection was lost while it was written alone.
    pub strikes: u8,
    /// How often its answer was not one that there can be.
    odd_answers: u8,
    /// No field of it goes by before this moment, Unix ms; 0 before it was looked at.
    pub fields_stand_until_ms: u64,
}

impl Past {
    /// Notes an answer that is none; whether that was once too often.
    pub fn note_odd_answer(&mut self) -> bool {
        const MAX_ODD_ANSWERS: u8 = 3;
        self.odd_answers = self.odd_answers.saturating_add(1);
        self.odd_answers >= MAX_ODD_ANSWERS
    }
}

/// Where a record goes.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::sink::server) struct Place {
    /// The lane that it was made ready for.
    pub at: usize,
    /// The lane that it goes to this once, after ASKING.
    pub ask_to: Option<usize>,
}

/// What few records have.
#[derive(Default)]
pub(in crate::sink::server) struct Extra {
    /// How it stood at the source.
    pub origin: Option<Origin>,
    /// Its value as it came, where somebody will compare it with the source.
    pub original: Option<Value>,
    /// What stands there in its place, where that may differ from it.
    pub seen: Option<Seen>,
    /// Classes of key metadata that were left out of it.
    pub classes_left_out: Vec<u32>,
    /// Nobody knows whether the destination keeps each class of its key metadata.
    pub has_doubtful_classes: bool,
}

/// A record on its way. Each is moved many times, from one part of the writer to the next: it goes in a
/// box from the door on.
pub(in crate::sink::server) struct Item {
    pub task: Task,
    pub stage: Stage,
    pub record: KeyRecord,
    pub context: Context,
    pub print: Fingerprint,
    pub form: Form,
    pub bytes: usize,
    /// Number of the batch it came with, from 1; 0 for what came with none.
    pub batch: u64,
    pub place: Place,
    pub past: Past,
    /// What was changed in its value, if anything was.
    pub changes: Option<Box<Changes>>,
    pub extra: Option<Box<Extra>>,
}

impl Item {
    /// A record of a key, which nothing was done with yet. `spare`: the box of one that is done.
    pub fn given(
        spare: Option<Box<Self>>,
        record: KeyRecord,
        origin: Option<Origin>,
        context: Context,
    ) -> Box<Self> {
        let item = Self::new(Task::Look, record, context);
        let mut item = match spare {
            Some(mut spare) => {
                *spare = item;
                spare
            }
            None => Box::new(item),
        };
        if origin.is_some() {
            item.extra_mut().origin = origin;
        }
        item
    }

    /// A tombstone, which nothing was done with yet.
    pub fn tombstone(db: u32, key: Vec<u8>, context: Context) -> Box<Self> {
        Box::new(Self::new(Task::Ask, bare_record(db, key), context))
    }

    fn new(task: Task, record: KeyRecord, context: Context) -> Self {
        Self {
            task,
            stage: Stage::Settle,
            record,
            context,
            print: Fingerprint::default(),
            form: Form::Payload(Ready::AsIs),
            bytes: 0,
            batch: 0,
            place: Place::default(),
            past: Past::default(),
            changes: None,
            extra: None,
        }
    }

    /// A temporary key that is to be removed.
    pub fn clean_up(db: u32, temp: Vec<u8>, print: Fingerprint) -> Box<Self> {
        let record = bare_record(db, temp);
        let mut item = Box::new(Self::new(
            Task::CleanUp("UNLINK"),
            record,
            Context::default(),
        ));
        (item.stage, item.print) = (Stage::Place, print);
        item
    }

    /// Whether it goes by native commands.
    pub fn is_by_commands(&self) -> bool {
        self.form == Form::Commands
    }

    /// Whether its commands write a value in several turns.
    pub fn writes_by_commands(&self) -> bool {
        self.is_by_commands() && matches!(self.task, Task::Restore { .. })
    }

    /// Whether RESTORE is to write it.
    pub fn is_restored(&self) -> bool {
        !self.is_by_commands() && matches!(self.task, Task::Restore { .. })
    }

    /// What few records have.
    pub fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// How it stood at the source, where that is kept.
    pub fn origin(&self) -> Option<&Origin> {
        self.extra.as_ref()?.origin.as_ref()
    }

    /// Classes of key metadata that were left out of it.
    pub fn classes_left_out(&self) -> &[u32] {
        let extra = self.extra.as_ref();
        extra.map_or(&[], |extra| extra.classes_left_out.as_slice())
    }

    /// Whether nobody knows if the destination keeps each class of its key metadata.
    pub fn has_doubtful_classes(&self) -> bool {
        let extra = self.extra.as_ref();
        extra.is_some_and(|extra| extra.has_doubtful_classes)
    }

    /// Adds to what was changed in its value.
    pub fn note_changes(&mut self, more: Changes) {
        if more == Changes::default() {
            return;
        }
        match &mut self.changes {
            Some(changes) => **changes = changes.and_then(more),
            None => self.changes = Some(Box::new(more)),
        }
    }

    /// The same record with another task, ready to go out.
    #[must_use]
    pub fn with(mut self: Box<Self>, task: Task) -> Box<Self> {
        (self.task, self.stage) = (task, Stage::Place);
        self
    }
}

/// So many boxes are kept: more records than that are seldom in flight.
const MAX_SPARES: usize = 4096;

/// Boxes of records that are done, for those that come. Else each record would cost the allocator a box
/// that it has given up a moment ago.
#[derive(Default)]
pub(super) struct Spares(VecDeque<Box<Item>>);

impl Spares {
    /// A box, if there is one.
    pub fn take(&mut self) -> Option<Box<Item>> {
        // The one that was given back last is the likeliest to be in a cache.
        self.0.pop_back()
    }

    /// This record is done.
    pub fn put(&mut self, mut item: Box<Item>) {
        if self.0.len() < MAX_SPARES {
            item.record = bare_record(0, Vec::new());
            (item.changes, item.extra) = (None, None);
            self.0.push_back(item);
        }
    }
}

/// A key without a value.
pub(in crate::sink::server) fn bare_record(db: u32, key: Vec<u8>) -> KeyRecord {
    KeyRecord {
        db,
        key,
        value: Value::Compact(Vec::new()),
        expire_at_ms: None,
        eviction: None,
    }
}

/// What is in flight: what the next reply on a connection belongs to.
pub(in crate::sink::server) enum InFlight {
    /// ASKING. The answer to the command behind it says what came of it.
    Asking,
    /// DEL before the RESTORE of a graph.
    Cleared,
    /// SELECT, behind all that goes to the database before.
    Select,
    /// Has a replica what was acknowledged?
    Wait,
    /// One reply, or those of a comparison, says what becomes of the record.
    Record(Box<Item>),
    /// The replies that are due for a value that native commands write.
    Value(Box<Item>, Box<Ticket>),
}

impl InFlight {
    /// The record that it is about.
    pub fn item(&self) -> Option<&Item> {
        match self {
            Self::Record(item) | Self::Value(item, _) => Some(item),
            Self::Asking | Self::Cleared | Self::Select | Self::Wait => None,
        }
    }
}

#[cfg(test)]
super::tests::named!(Task: Restore, Compare, Try, Look, Ask, Delete, CleanUp);

#[cfg(test)]
super::tests::named!(Stage: Settle, Route, Judge, Size, Learn, Classes, Prepare, NewSize, Graph, Ready, Offer, Strip, Features, Native, Check, Rights, Refit, PrepareAnew, Place, Alone);

#[cfg(test)]
super::tests::named!(InFlight: Asking, Cleared, Select, Wait, Record, Value);
