//! What this run knows of keys at the destination: which of them are its own, which stood already,
//! and which conflicts are not judged before the end.
//!
//! All of it is memory, though it moves to unlinked temporary files as it grows; these are its only
//! errors.

use std::fs::File;
use std::io::BufReader;

use anyhow::{Context as _, Result};

use super::held::Held;
use super::item::{Item, Task};
use super::ledger::Ledger;
use super::stood::Stood;
use crate::ledger::SinkReport;
use crate::observer::{FailureKind, KeyFailure};
use crate::own_writes::{Fingerprint, OwnWrites};
use crate::policy::OnConflict;
use crate::record::Origin;
use crate::sink::server::held::{HeldConflict, Repeats};
use crate::units::plural;

const WHAT: &str = "cannot remember a key in a temporary file";
const CONFLICT: &str = "cannot remember a conflict in a temporary file";
const JUDGE: &str = "cannot read conflicts from a temporary file";

/// What a key that stands with something else means.
pub(in crate::sink::server) enum LeftAlone {
    /// A conflict, named now. `is_first`: the first record of this key that meets one.
    Conflict { failure: KeyFailure, is_first: bool },
    /// A conflict of a key that was named before.
    Again,
    /// It is skipped as asked.
    Skipped,
    /// Held until the end.
    Held,
}

/// The memory of one run.
pub(in crate::sink::server) struct Memory {
    on_conflict: OnConflict,
    repeats: Repeats,
    own: OwnWrites,
    /// Of those, what stood there before this run wrote anything.
    stood: Stood,
    /// Where what this run wrote came from, if different keys may come under one name.
    origins: Option<OwnWrites>,
    held: Held,
}

impl Memory {
    /// Nothing is known. `may_collide`: different keys may come under one name.
    pub fn new(on_conflict: OnConflict, repeats: Repeats, may_collide: bool) -> Self {
        Self {
            on_conflict,
            repeats,
            own: OwnWrites::default(),
            stood: Stood::default(),
            origins: may_collide.then(OwnWrites::default),
            held: Held::default(),
        }
    }

    /// The fingerprint of a key.
    pub fn fingerprint(&self, db: u32, key: &[u8]) -> Fingerprint {
        self.own.fingerprint(db, key)
    }

    /// Takes over what an earlier run has written.
    pub fn set_own(&mut self, own: OwnWrites) {
        self.own = own;
    }

    /// Fingerprints of own keys since the last time.
    pub fn take_unsaved(&mut self) -> Vec<Fingerprint> {
        self.own.take_unsaved()
    }

    /// This key was written by this import.
    ///
    /// # Errors
    /// The temporary file's.
    pub fn remember(&mut self, print: Fingerprint) -> Result<()> {
        self.own.insert(print).context(WHAT)
    }

    /// Whether the key is this run's own.
    ///
    /// # Errors
    /// The temporary file's.
    pub fn is_own(&mut self, print: Fingerprint) -> Result<bool> {
        Ok(self.own.contains(print)?)
    }

    /// From now on the key counts as this run's own.
    ///
    /// # Errors
    /// The temporary file's.
    pub fn own(&mut self, item: &Item) -> Result<()> {
        // Under `replace` nobody will ever ask.
        if self.on_conflict == OnConflict::Replace {
            return Ok(());
        }
        self.own_anyway(item)
    }

    /// The same, under `replace` too: a dry run looks for it.
    ///
    /// # Errors
    /// The temporary file's.
    pub fn own_anyway(&mut self, item: &Item) -> Result<()> {
        self.own.insert(item.print).context(WHAT)?;
        let print = self.origin_of(item);
        if let (Some(origins), Some(print)) = (&mut self.origins, print) {
            origins.insert(print).context(WHAT)?;
        }
        Ok(())
    }

    /// The key stands as its record says, and this run did not write it.
    ///
    /// # Errors
    /// The temporary file's.
    pub fn note_stood(&mut self, item: &Item) -> Result<()> {
        self.own(item)?;
        self.stood.note(item.print)
    }

    /// This run writes or removes the key; whether it stood before and this is the first time.
    ///
    /// # Errors
    /// The temporary file's.
    pub fn touch(&mut self, print: Fingerprint) -> Result<bool> {
        self.stood.touch(print)
    }

    /// Whether the key stood before this run and was not written or removed since.
    ///
    /// # Errors
    /// The temporary file's.
    pub fn stood_untouched(&mut self, print: Fingerprint) -> Result<bool> {
        self.stood.is_untouched(print)
    }

    /// Of the name together with the key of the source, where several may come under one name.
    fn origin_of(&self, item: &Item) -> Option<Fingerprint> {
        let (origins, origin) = (self.origins.as_ref()?, item.origin()?);
        Some(origin_print(origins, item.print, origin))
    }

    /// Whether this run wrote another key of the source under the same name.
    ///
    /// # Errors
    /// The temporary file's.
    pub fn collides(&mut self, item: &Item) -> Result<bool> {
        let Some(print) = self.origin_of(item) else {
            return Ok(false);
        };
        Ok(self.own.contains(item.print)? && !self.is_own_origin(print)?)
    }

    /// Whether this run wrote that very key of the source under its name.
    fn is_own_origin(&mut self, print: Fingerprint) -> Result<bool> {
        let origins = self.origins.as_mut();
        origins.map_or(Ok(true), |origins| Ok(origins.contains(print)?))
    }

    /// Another key of the source was written under this name: the failure, the first time.
    ///
    /// # Errors
    /// The temporary file's.
    pub fn collided(&mut self, item: Box<Item>) -> Result<Option<KeyFailure>> {
        if let Some(print) = self.origin_of(&item)
            && !self.held.note_collided(print).context(CONFLICT)?
        {
            return Ok(None);
        }
        Ok(Some(collision(item.record.db, item.record.key)))
    }

    /// The key stands with something else and is left alone.
    ///
    /// # Errors
    /// The temporary file's.
    pub fn leave_alone(&mut self, item: Box<Item>, reason: String) -> Result<LeftAlone> {
        let is_named = self.on_conflict == OnConflict::Fail;
        if is_named && self.repeats != Repeats::Archive {
            let mut is_first = true;
            if self.repeats == Repeats::Live {
                // That it was deleted is told of a key that differed before, too.
                let is_deletion = matches!(item.task, Task::Ask | Task::Delete { .. });
                let told = self.held.tell(item.print, is_deletion).context(CONFLICT)?;
                if !told.is_new {
                    return Ok(LeftAlone::Again);
                }
                is_first = told.is_first;
            }
            let failure = conflict(item.record.db, item.record.key, &reason);
            return Ok(LeftAlone::Conflict { failure, is_first });
        }
        if self.repeats == Repeats::No {
            return Ok(LeftAlone::Skipped);
        }
        let origin = self.origin_of(&item);
        let is_told = is_named || origin.is_some();
        self.held.push(HeldConflict {
            print: item.print,
            db: item.record.db,
            key: if is_told { item.record.key } else { Vec::new() },
            reason: if is_named { reason } else { String::new() },
            earlier: false,
            origin,
        })?;
        Ok(LeftAlone::Held)
    }

    /// From now on, keeps what is held for [`Self::take_unsaved_held`].
    pub fn keep_unsaved_held(&mut self) {
        self.held.keep_unsaved();
    }

    /// What was held since the last time.
    pub fn take_unsaved_held(&mut self) -> Vec<HeldConflict> {
        self.held.take_unsaved()
    }

    /// Takes over what an earlier run held.
    ///
    /// # Errors
    /// The temporary file's.
    pub fn hold_earlier(&mut self, conflict: HeldConflict) -> Result<()> {
        self.held.push_earlier(conflict)
    }

    /// Begins to judge what is held: all records came.
    ///
    /// # Errors
    /// The temporary file's.
    pub fn begin_judging(&mut self) -> Result<Judging> {
        // Who was named when its record came is not named again.
        let (seen, reader) = std::mem::take(&mut self.held).close().context(JUDGE)?;
        Ok(Judging {
            seen,
            reader,
            earlier: 0,
            unnamed: None,
        })
    }

    /// Judges the next conflict that is held; `None` after the last one.
    ///
    /// # Errors
    /// The temporary file's.
    pub fn judge(&mut self, judging: &mut Judging) -> Result<Option<Judgement>> {
        let Judging { seen, reader, .. } = judging;
        let Some(reader) = reader else {
            return Ok(None);
        };
        let Some(one) = HeldConflict::take(reader).context(JUDGE)? else {
            return Ok(None);
        };
        let is_new = !one.earlier;
        if self.own.contains(one.print).context(JUDGE)? {
            let foreign = match one.origin {
                Some(origin) if !self.is_own_origin(origin)? => origin,
                _ => return Ok(Some(Judgement::Own { is_new })),
            };
            let is_first = first_of(seen, foreign).context(JUDGE)?;
            let failure = is_first.then(|| collision(one.db, one.key));
            return Ok(Some(Judgement::Collision { is_new, failure }));
        }
        let is_first = first_of(seen, one.print).context(JUDGE)?;
        Ok(Some(match self.on_conflict {
            OnConflict::Fail => Judgement::Conflict {
                is_new,
                failure: is_first.then(|| conflict(one.db, one.key, &one.reason)),
            },
            OnConflict::Skip | OnConflict::Replace => Judgement::Skipped { is_new, is_first },
        }))
    }
}

/// The judging of what is held, while it is under way.
pub(in crate::sink::server) struct Judging {
    seen: OwnWrites,
    reader: Option<BufReader<File>>,
    /// Conflicts that the run that was resumed met.
    earlier: u64,
    /// Keys that are not named any more, once naming them has failed.
    unnamed: Option<u64>,
}

impl Judging {
    /// From now on no key is named.
    pub fn name_no_more(&mut self) {
        self.unnamed.get_or_insert(0);
    }

    /// Counts what a conflict turned out to be; the key that is to be named, if one is.
    pub fn count(&mut self, judgement: Judgement, report: &mut SinkReport) -> Option<KeyFailure> {
        let failure = match judgement {
            Judgement::Own { is_new } => {
                report.records.unchanged += u64::from(is_new);
                None
            }
            Judgement::Collision { is_new, failure } => {
                report.records.conflicts += u64::from(is_new);
                failure
            }
            Judgement::Conflict { is_new, failure } => {
                report.records.conflicts += u64::from(is_new);
                report.doubts.left_standing += u64::from(failure.is_some());
                self.earlier += u64::from(failure.is_some() && !is_new);
                failure
            }
            Judgement::Skipped { is_new, is_first } => {
                report.records.skipped += u64::from(is_new);
                report.doubts.left_standing += u64::from(is_first);
                None
            }
        };
        match &mut self.unnamed {
            Some(unnamed) => {
                *unnamed += u64::from(failure.is_some());
                None
            }
            None => failure,
        }
    }

    /// What is told at the end.
    pub fn tell(&self, ledger: &mut Ledger) {
        if let Some(unnamed @ 1..) = self.unnamed {
            ledger.problem(format!(
                "{} more already existed at the destination and were left as is; their names are \
                 not listed, because the run was stopped before",
                plural(unnamed, "key")
            ));
        }
        if self.earlier > 0 {
            ledger.problem(format!(
                "of the conflicts, {} came from the run that was resumed",
                plural(self.earlier, "key")
            ));
        }
    }
}

/// What a conflict that was held turned out to be. `is_new`: the record that met it came in this run.
pub(in crate::sink::server) enum Judgement {
    /// What stands is this import's own work.
    Own { is_new: bool },
    /// Another key of the source was written under this name; named the first time.
    Collision {
        is_new: bool,
        failure: Option<KeyFailure>,
    },
    /// It stands with something else; named the first time.
    Conflict {
        is_new: bool,
        failure: Option<KeyFailure>,
    },
    /// The same, and it is skipped as asked.
    Skipped { is_new: bool, is_first: bool },
}

fn first_of(seen: &mut OwnWrites, print: Fingerprint) -> std::io::Result<bool> {
    let is_first = !seen.contains(print)?;
    if is_first {
        seen.insert(print)?;
    }
    Ok(is_first)
}

/// A name at the destination together with the key of the source that was written there.
fn origin_print(origins: &OwnWrites, print: Fingerprint, origin: &Origin) -> Fingerprint {
    let name = [&print.to_be_bytes()[..], &origin.key].concat();
    origins.fingerprint(origin.db, &name)
}

/// Two keys of the source came under one name.
fn collision(db: u32, key: Vec<u8>) -> KeyFailure {
    KeyFailure {
        db,
        key,
        kind: FailureKind::Conflict,
        reason: "another key of the source was written under this name in this run".to_owned(),
        hint: Some("choose --map-db and prefixes so that names stay different".to_owned()),
    }
}

fn conflict(db: u32, key: Vec<u8>, reason: &str) -> KeyFailure {
    KeyFailure {
        db,
        key,
        kind: FailureKind::Conflict,
        reason: format!("already exists at the destination ({reason}) and was left as is"),
        hint: Some("--on-conflict replace overwrites it, --on-conflict skip keeps it".to_owned()),
    }
}

#[cfg(test)]
super::tests::named!(LeftAlone: Conflict, Again, Skipped, Held);

#[cfg(test)]
super::tests::named!(Judgement: Own, Collision, Conflict, Skipped);
