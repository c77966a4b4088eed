//! What became of every record, in numbers and in words.

use std::collections::{BTreeSet, VecDeque};

use super::item::{Counted, Item, Task};
use super::listed::Listed;
use crate::census::Census;
use crate::ledger::{Changes, RecordCounts, SinkReport};
use crate::observer::{FailureKind, KeyFailure};
use crate::own_writes::Fingerprint;
use crate::record::{KeyRecord, Origin};
use crate::sink::{Landed, Miscounted};

/// Classes of key metadata that are told of; an archive may name any number.
const MAX_CLASSES: usize = 1024;

/// Something that others are told.
pub(in crate::sink::server) enum Say {
    Notice(String),
    Warn(String),
    /// A key failed, by name.
    Failed(KeyFailure),
    /// The destination accepted this record.
    Accepted(Origin, KeyRecord, Landed),
    /// The key stands as this record says, and was left as it is.
    Stands(Origin, KeyRecord, Landed),
    /// The key was deleted.
    Deleted(u32, Vec<u8>),
    /// A function library was accepted: its name and code.
    Library(String, Vec<u8>),
    /// What was acknowledged may be gone, and why; what to do about it, where nothing was deleted at
    /// the source.
    Lost(String, Option<&'static str>),
}

/// What is told only once.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Once {
    /// A primary became a replica.
    Demoted,
    /// The destination cuts long expiries.
    CutShort,
    /// A class of key metadata is left out, or may be.
    Class(u32),
    /// A connection was lost.
    Loss,
    /// What stands cannot be read.
    Unread,
}

/// Counts, and collects what others are told.
#[derive(Default)]
pub(in crate::sink::server) struct Ledger {
    report: SinkReport,
    /// Which keys stand there because of this run.
    census: Census,
    told: BTreeSet<Once>,
    /// Temporary keys that could not be removed.
    left_behind: Listed,
    /// Keys that stand without their expiry, because PEXPIREAT is not allowed.
    lasting: Listed,
    says: VecDeque<Box<Say>>,
}

impl Ledger {
    /// The counts, to read and to add to.
    pub fn report(&mut self) -> &mut SinkReport {
        &mut self.report
    }

    /// What became of the records, to read and to add to.
    pub fn records(&mut self) -> &mut RecordCounts {
        &mut self.report.records
    }

    /// Whether there is something that others are told.
    pub fn has_more_to_say(&self) -> bool {
        !self.says.is_empty()
    }

    /// The next thing that others are told.
    pub fn next_say(&mut self) -> Option<Box<Say>> {
        self.says.pop_front()
    }

    pub fn say(&mut self, say: Say) {
        self.says.push_back(Box::new(say));
    }

    pub fn notice(&mut self, text: impl Into<String>) {
        self.say(Say::Notice(text.into()));
    }

    pub fn warn(&mut self, text: impl Into<String>) {
        self.say(Say::Warn(text.into()));
    }

    pub fn problem(&mut self, text: String) {
        self.report.problems.push(text);
    }

    /// Warns that a primary became a replica, once.
    pub fn warn_demoted(&mut self, text: impl FnOnce() -> String) {
        self.warn_once(Once::Demoted, text);
    }

    /// Warns that the destination cuts long expiries, once.
    pub fn warn_cut_short(&mut self, text: impl FnOnce() -> String) {
        self.warn_once(Once::CutShort, text);
    }

    /// Warns that what stands cannot be compared, once.
    pub fn warn_unread(&mut self, text: impl FnOnce() -> String) {
        self.warn_once(Once::Unread, text);
    }

    /// Warns of a class of key metadata, once.
    pub fn warn_class(&mut self, class: u32, text: impl FnOnce() -> String) {
        if self.told.len() < MAX_CLASSES {
            self.warn_once(Once::Class(class), text);
        }
    }

    /// Tells of a lost connection, once.
    pub fn notice_loss(&mut self, text: impl FnOnce() -> String) {
        if self.told.insert(Once::Loss) {
            self.notice(text());
        }
    }

    /// Whether a lost connection was told of.
    pub fn has_told_loss(&self) -> bool {
        self.told.contains(&Once::Loss)
    }

    fn warn_once(&mut self, what: Once, text: impl FnOnce() -> String) {
        if self.told.insert(what) {
            self.warn(text());
        }
    }

    /// The key stands because of this run, or stands no more.
    pub fn note_standing(&mut self, print: Fingerprint, is_gone: bool) {
        self.census.add_print(print, is_gone);
    }

    /// Counts a write; `is_own`: in place of what this run wrote earlier.
    pub fn count_write(&mut self, item: &Item, is_own: bool) -> Counted {
        if let Some(changes) = &item.changes {
            self.report.changes.add(**changes);
        }
        match is_own {
            true => {
                self.report.records.replaced_own += 1;
                Counted::ReplacedOwn
            }
            false => {
                self.report.records.restored += 1;
                Counted::Restored
            }
        }
    }

    /// Counts a removal.
    pub fn count_removal(&mut self, counted: Counted) {
        match counted {
            Counted::Expired => self.report.records.expired += 1,
            Counted::AlreadyGone => self.report.records.already_gone += 1,
            Counted::Deleted | Counted::Restored | Counted::ReplacedOwn => {
                self.report.records.deleted += 1
            }
        }
    }

    /// A record that is carried out already: the key stands, or was deleted.
    pub fn count_as_done(&mut self, print: Fingerprint, stands: bool) {
        self.report.records.taken += 1;
        match stands {
            true => self.report.records.restored += 1,
            false => self.report.records.deleted += 1,
        }
        self.note_standing(print, !stands);
    }

    /// It was counted as accepted, and is not any more.
    pub fn uncount(&mut self, item: &Item) {
        let Some(counted) = item.past.counted else {
            return;
        };
        if matches!(counted, Counted::Restored | Counted::ReplacedOwn) {
            self.census.add_print(item.print, true);
            if let Some(changes) = &item.changes {
                self.report.changes.take_back(**changes);
            }
        }
        match counted {
            Counted::Restored => self.report.records.restored -= 1,
            Counted::ReplacedOwn => self.report.records.replaced_own -= 1,
            Counted::Deleted => self.report.records.deleted -= 1,
            Counted::AlreadyGone => self.report.records.already_gone -= 1,
            Counted::Expired => self.report.records.expired -= 1,
        }
    }

    /// The key is refused, by name.
    pub fn refuse(&mut self, item: Box<Item>, mut reason: String, hint: Option<String>) {
        let is_replacing = matches!(item.task, Task::Restore { replace: true, .. });
        if matches!(item.form, super::item::Form::Graph(_)) && is_replacing {
            reason.push_str(" (DEL of what was there was sent before it)");
        }
        self.uncount(&item);
        self.report.records.refused += 1;
        self.say(Say::Failed(KeyFailure {
            db: item.record.db,
            key: item.record.key,
            kind: FailureKind::Refused,
            reason,
            hint,
        }));
    }

    /// A temporary key is given up; `why`: the server's words, or what happened.
    pub fn leave_behind(&mut self, db: u32, temp: &[u8], why: &str) {
        self.left_behind.add(db, temp, why);
    }

    /// A key stands without its expiry.
    pub fn note_lasting(&mut self, db: u32, key: &[u8], why: &str) {
        self.lasting.add(db, key, why);
    }

    /// Counts what is changed in values on their way.
    pub fn changes(&mut self) -> &mut Changes {
        &mut self.report.changes
    }

    /// Counts a stream that does not hold as many entries as it says.
    pub fn note_miscounted(&mut self, miscounted: Miscounted, db: u32, key: &[u8]) {
        if let Some(text) = miscounted.count(&mut self.report.changes, db, key) {
            self.notice(text);
        }
    }

    /// Counts a stream that lost what it remembered of producers, if it did.
    pub fn count_idempotency_lost(&mut self, lost: bool) {
        let count = &mut self.report.changes.idempotency_lost;
        *count += u64::from(lost);
        if lost && *count == 1 {
            self.notice(
                "native commands cannot write all that streams remember of producers (XADD … IDMP) \
                 where the destination does not have XCFGSET and XIDMPRECORD, does not let this \
                 user run them, or takes no such id (the summary says how many streams)",
            );
        }
    }

    /// The whole report.
    pub fn close(mut self) -> SinkReport {
        self.report.keys = self.census.keys();
        let told = [
            self.left_behind.told_as_left(),
            self.lasting.told_as_lasting(),
        ];
        self.report.problems.extend(told.into_iter().flatten());
        self.report
    }
}
