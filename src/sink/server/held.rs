//! Conflicts that are not judged before the end.
//!
//! An archive may hold several records of a key. When an interrupted import is run again, the key
//! may stand as a later record left it, so an earlier record differs from what stands, and that is
//! no conflict: it is this import's own work. So a key that stands and equals *any* record of the
//! archive counts as own from that record on, and a record that differs is held until the end. What
//! is own by then is withdrawn; the rest is named (`fail`) or counted (`skip`). Where several keys of
//! the source may come under one name, only what came from the same key is withdrawn, and the others
//! are named.
//!
//! What is held lies in a temporary file, so memory does not grow with the number of conflicts.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};

use anyhow::{Context as _, Result};

use super::{Action, Counted, Sent, ServerSink};
use crate::observer::{FailureKind, KeyFailure};
use crate::own_writes::{Fingerprint, OwnWrites};
use crate::policy::OnConflict;
use crate::units::plural;

/// Whether a key may come with several records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Repeats {
    /// Each key comes once: what stands and differs is a conflict at once.
    #[default]
    No,
    /// Keys come as a live source changes: what stands and differs is told at once, and what stands
    /// and is equal is followed from there on.
    Live,
    /// Keys come from archives: what stands and differs is held until the end.
    Archive,
}

/// A conflict that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldConflict {
    /// Of the key.
    pub print: Fingerprint,
    /// Its database.
    pub db: u32,
    /// Its name; empty where nobody will be told it.
    pub key: Vec<u8>,
    /// In what it differs; empty with the name.
    pub reason: String,
    /// It was held by an earlier run, which counted the record.
    pub earlier: bool,
    /// Of the name together with the key of the source, where several may come under one name.
    pub origin: Option<Fingerprint>,
}

/// Bits of the byte behind the database.
const IS_EARLIER: u8 = 1;
const HAS_ORIGIN: u8 = 2;

/// Longer reasons are not written by this tool.
const MAX_REASON: usize = 1 << 16;

impl HeldConflict {
    /// Appends it as bytes: fingerprint, database, whether it is an earlier run's and whether its
    /// origin follows (one byte), then name and reason, each with its length (little-endian).
    pub fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.print.to_le_bytes());
        out.extend_from_slice(&self.db.to_le_bytes());
        let earlier = if self.earlier { IS_EARLIER } else { 0 };
        let origin = if self.origin.is_some() { HAS_ORIGIN } else { 0 };
        out.push(earlier | origin);
        if let Some(origin) = self.origin {
            out.extend_from_slice(&origin.to_le_bytes());
        }
        let reason = &self.reason.as_bytes()[..self.reason.len().min(MAX_REASON)];
        for bytes in [&self.key[..], reason] {
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
        }
    }

    /// Reads the next one; `None` at the end.
    ///
    /// # Errors
    /// The reader's, and an end in the middle.
    pub fn take(reader: &mut impl Read) -> io::Result<Option<Self>> {
        let mut print = [0; 16];
        match reader.read_exact(&mut print) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let (mut db, mut bits) = ([0; 4], [0]);
        reader.read_exact(&mut db)?;
        reader.read_exact(&mut bits)?;
        let mut origin = None;
        if bits[0] & HAS_ORIGIN != 0 {
            let mut bytes = [0; 16];
            reader.read_exact(&mut bytes)?;
            origin = Some(Fingerprint::from_le_bytes(bytes));
        }
        let mut text = || -> io::Result<Vec<u8>> {
            let mut len = [0; 4];
            reader.read_exact(&mut len)?;
            let len = u64::from(u32::from_le_bytes(len));
            let mut bytes = Vec::new();
            let read = reader.by_ref().take(len).read_to_end(&mut bytes)?;
            match read as u64 == len {
                true => Ok(bytes),
                false => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        };
        let (key, reason) = (text()?, text()?);
        Ok(Some(Self {
            print: Fingerprint::from_le_bytes(print),
            db: u32::from_le_bytes(db),
            key,
            reason: String::from_utf8_lossy(&reason).into_owned(),
            earlier: bits[0] & IS_EARLIER != 0,
            origin,
        }))
    }
}

/// What is held so far.
#[derive(Default)]
pub(super) struct Held {
    file: Option<BufWriter<File>>,
    /// Since the last [`ServerSink::take_unsaved_held`]; `None` if nobody asks.
    unsaved: Option<Vec<HeldConflict>>,
    buffer: Vec<u8>,
    /// Keys that were told at once: that they differ, and that they were deleted at the source. Each is
    /// told once, however often it changes.
    told: [OwnWrites; 2],
    /// Keys of the source that were named because another one has their name at the destination. A
    /// source may give a key again.
    pub(super) collided: OwnWrites,
}

impl Held {
    fn push(&mut self, conflict: &HeldConflict) -> Result<()> {
        const WHAT: &str = "remember a conflict in a temporary file";
        let file = match &mut self.file {
            Some(file) => file,
            // Unlinked from the start: it goes away with us, however we end.
            None => self
                .file
                .insert(BufWriter::new(tempfile::tempfile().context(WHAT)?)),
        };
        self.buffer.clear();
        conflict.put(&mut self.buffer);
        file.write_all(&self.buffer).context(WHAT)
    }

    fn into_reader(self) -> io::Result<Option<BufReader<File>>> {
        let Some(file) = self.file else {
            return Ok(None);
        };
        let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok(Some(BufReader::new(file)))
    }
}

impl ServerSink {
    /// Expiries are counted from this moment (Unix ms), so those of an earlier run of the same
    /// import are earlier.
    pub fn expect_rebased(&mut self, from_ms: u64) {
        self.rebased_from_ms = Some(from_ms);
    }

    /// By how much an earlier run's expiries may be earlier: it began after the values were read.
    pub(super) fn rebased_by(&self, context: &crate::record::Context) -> u64 {
        self.rebased_from_ms
            .map_or(0, |from_ms| from_ms.saturating_sub(context.source_time_ms))
    }

    /// The key stands as this record says: nothing is to be done, and what comes for it later
    /// applies.
    pub(super) fn stands_as_sent(&mut self, at: usize, mut sent: Sent) -> Result<()> {
        self.uncount(&sent);
        self.witness(at, &sent);
        self.report.unchanged += 1;
        let is_poorer = !sent.classes_left_out.is_empty();
        self.report.changes.key_metadata_lost += u64::from(is_poorer);
        self.own_it(&sent)?;
        self.stood.note(sent.print)?;
        let landed = self.landed(at, &mut sent);
        if let (Some(accepted), Some(origin), Some(value)) =
            (&mut self.accepted, sent.origin, sent.original)
        {
            let record = crate::record::KeyRecord {
                value: *value,
                ..sent.record
            };
            accepted.stands(*origin, record, landed)?;
        }
        Ok(())
    }

    /// The key stands with something else and is left alone.
    pub(super) fn left_alone(&mut self, sent: Sent, reason: String) -> Result<()> {
        self.uncount(&sent);
        let named = self.options.on_conflict == OnConflict::Fail;
        if named && self.options.repeats != Repeats::Archive {
            self.report.conflicts += 1;
            if self.options.repeats == Repeats::Live {
                const WHAT: &str = "remember a conflict in a temporary file";
                // That it was deleted is told of a key that differed before, too.
                let is_deletion = matches!(sent.action, Action::Ask | Action::Delete { .. });
                let told = &mut self.held.told;
                let [differs, deleted] = told.each_mut().map(|told| told.contains(sent.print));
                let (differs, deleted) = (differs.context(WHAT)?, deleted.context(WHAT)?);
                self.report.left_standing += u64::from(!differs && !deleted);
                if (is_deletion && deleted) || (!is_deletion && differs) {
                    return Ok(());
                }
                told[usize::from(is_deletion)]
                    .insert(sent.print)
                    .context(WHAT)?;
            } else {
                self.report.left_standing += 1;
            }
            return self
                .observer
                .key_failed(&conflict(sent.record.db, sent.record.key, &reason));
        }
        if self.options.repeats == Repeats::No {
            self.report.skipped += 1;
            return Ok(());
        }
        let origin = self.origin_of(&sent);
        let is_told = named || origin.is_some();
        let held = HeldConflict {
            print: sent.print,
            db: sent.record.db,
            key: if is_told { sent.record.key } else { Vec::new() },
            reason: if named { reason } else { String::new() },
            earlier: false,
            origin,
        };
        self.held.push(&held)?;
        if let Some(unsaved) = &mut self.held.unsaved {
            unsaved.push(held);
        }
        Ok(())
    }

    /// A tombstone for a key that this run does not know as its own: does it stand?
    pub(super) fn asked(&mut self, sent: Sent, stands: bool) -> Result<()> {
        if !stands {
            self.report.already_gone += 1;
            return Ok(());
        }
        // Only in a dry run: else it would have been deleted.
        if self.options.on_conflict == OnConflict::Replace {
            self.report.deleted += 1;
            return Ok(());
        }
        let reason = "was deleted at the source, and its value is not one that came from there";
        self.left_alone(sent, reason.to_owned())
    }

    /// DEL was answered: as what it counts.
    pub(super) fn counted_as(&mut self, sent: &Sent, was_there: bool) -> Result<Counted> {
        Ok(match sent.action {
            Action::Delete { expired: true } => Counted::Expired,
            _ if was_there => Counted::Deleted,
            // The answer to an earlier DEL was lost with its connection.
            _ if sent.is_doubtful && self.own.contains(sent.print)? => Counted::Deleted,
            _ => Counted::AlreadyGone,
        })
    }

    /// Judges what is held: all records came.
    ///
    /// # Errors
    /// The temporary file's, and the journal's; everything is counted all the same.
    pub(super) fn judge_held(&mut self) -> Result<()> {
        const WHAT: &str = "read conflicts from a temporary file";
        let mut held = std::mem::take(&mut self.held);
        // Who was named when its record came is not named again.
        let (mut seen, mut told) = (std::mem::take(&mut held.collided), Ok(()));
        let Some(mut reader) = held.into_reader().context(WHAT)? else {
            return Ok(());
        };
        let (mut earlier, mut unnamed) = (0_u64, 0_u64);
        while let Some(one) = HeldConflict::take(&mut reader).context(WHAT)? {
            let counts = u64::from(!one.earlier);
            if self.own.contains(one.print).context(WHAT)? {
                let foreign = match one.origin {
                    Some(origin) if !self.is_own_origin(origin)? => origin,
                    _ => {
                        self.report.unchanged += counts;
                        continue;
                    }
                };
                self.report.conflicts += counts;
                if !seen.contains(foreign).context(WHAT)? {
                    seen.insert(foreign).context(WHAT)?;
                    unnamed += u64::from(told.is_err());
                    told = told.and_then(|()| {
                        let failure = collision(one.db, one.key);
                        self.observer.key_failed(&failure)
                    });
                }
                continue;
            }
            let is_first = !seen.contains(one.print).context(WHAT)?;
            if is_first {
                seen.insert(one.print).context(WHAT)?;
                self.report.left_standing += 1;
            }
            if self.options.on_conflict != OnConflict::Fail {
                self.report.skipped += counts;
                continue;
            }
            self.report.conflicts += counts;
            earlier += u64::from(is_first && one.earlier);
            unnamed += u64::from(is_first && told.is_err());
            if is_first && told.is_ok() {
                let failure = conflict(one.db, one.key, &one.reason);
                told = self.observer.key_failed(&failure);
            }
        }
        if unnamed > 0 {
            self.report.problems.push(format!(
                "{} more stand at the destination already and were left alone; they are not named, \
                 because the run was stopped before",
                plural(unnamed, "key")
            ));
        }
        if earlier > 0 {
            self.report.problems.push(format!(
                "{} of the conflicts were met by the run that was resumed",
                plural(earlier, "key")
            ));
        }
        told
    }

    /// From now on, keeps what is held for [`Self::take_unsaved_held`].
    pub fn keep_unsaved_held(&mut self) {
        self.held.unsaved = Some(Vec::new());
    }

    /// What was held since the last time.
    pub fn take_unsaved_held(&mut self) -> Vec<HeldConflict> {
        let unsaved = self.held.unsaved.as_mut();
        unsaved.map(std::mem::take).unwrap_or_default()
    }

    /// Takes over what an earlier run held.
    ///
    /// # Errors
    /// The temporary file's.
    pub fn hold_earlier(&mut self, conflict: HeldConflict) -> Result<()> {
        self.held.push(&HeldConflict {
            earlier: true,
            ..conflict
        })
    }
}

/// Two keys of the source came under one name.
pub(super) fn collision(db: u32, key: Vec<u8>) -> KeyFailure {
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
        reason: format!("stands at the destination already ({reason}) and was left alone"),
        hint: Some("--on-conflict replace overwrites it, --on-conflict skip keeps it".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_read_as_it_was_put_and_a_cut_is_an_error() {
        let held = [
            HeldConflict {
                print: 7,
                db: 3,
                key: b"k\xff".to_vec(),
                reason: "with another value".to_owned(),
                earlier: false,
                origin: Some(9),
            },
            HeldConflict {
                print: u128::MAX,
                db: u32::MAX,
                key: Vec::new(),
                reason: String::new(),
                earlier: true,
                origin: None,
            },
        ];
        let mut bytes = Vec::new();
        held.iter().for_each(|one| one.put(&mut bytes));
        let mut reader = &bytes[..];
        for one in &held {
            assert_eq!(HeldConflict::take(&mut reader).unwrap().as_ref(), Some(one));
        }
        assert_eq!(HeldConflict::take(&mut reader).unwrap(), None);
        let mut cut = &bytes[..30];
        assert!(HeldConflict::take(&mut cut).is_err());
    }
}
