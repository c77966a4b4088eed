//! Where conflicts are kept that are not judged before the end ([`HeldConflict`]), and who was named.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek as _, Write as _};

use anyhow::{Context as _, Result};

use crate::own_writes::{Fingerprint, OwnWrites};
use crate::sink::server::held::HeldConflict;

/// What is held so far.
#[derive(Default)]
pub(super) struct Held {
    file: Option<BufWriter<File>>,
    /// Since the last [`Held::take_unsaved`]; `None` if nobody asks.
    unsaved: Option<Vec<HeldConflict>>,
    buffer: Vec<u8>,
    /// Keys that were told at once: that they differ, and that they were deleted at the source. Each is
    /// told once, however often it changes.
    told: [OwnWrites; 2],
    /// Keys of the source that were named because another one has their name at the destination. A
    /// source may give a key again.
    collided: OwnWrites,
}

/// Whether a key is told of now.
pub(super) struct Told {
    /// Nothing was told of it before.
    pub is_first: bool,
    /// This was not told of it before.
    pub is_new: bool,
}

impl Held {
    /// Holds a conflict.
    pub fn push(&mut self, conflict: HeldConflict) -> Result<()> {
        self.write(&conflict)?;
        if let Some(unsaved) = &mut self.unsaved {
            unsaved.push(conflict);
        }
        Ok(())
    }

    /// Holds a conflict that an earlier run held.
    pub fn push_earlier(&mut self, conflict: HeldConflict) -> Result<()> {
        self.write(&HeldConflict {
            earlier: true,
            ..conflict
        })
    }

    fn write(&mut self, conflict: &HeldConflict) -> Result<()> {
        const WHAT: &str = "cannot remember a conflict in a temporary file";
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

    /// From now on, keeps what is held for [`Self::take_unsaved`].
    pub fn keep_unsaved(&mut self) {
        self.unsaved = Some(Vec::new());
    }

    /// What was held since the last time.
    pub fn take_unsaved(&mut self) -> Vec<HeldConflict> {
        let unsaved = self.unsaved.as_mut();
        unsaved.map(std::mem::take).unwrap_or_default()
    }

    /// Notes that a key was told of: that it differs, or that it was deleted at the source.
    pub fn tell(&mut self, print: Fingerprint, is_deletion: bool) -> io::Result<Told> {
        let [differs, deleted] = self.told.each_mut().map(|told| told.contains(print));
        let (differs, deleted) = (differs?, deleted?);
        let is_new = !(if is_deletion { deleted } else { differs });
        if is_new {
            self.told[usize::from(is_deletion)].insert(print)?;
        }
        Ok(Told {
            is_first: !differs && !deleted,
            is_new,
        })
    }

    /// Notes a key of the source whose name another one has; whether it is the first time.
    pub fn note_collided(&mut self, print: Fingerprint) -> io::Result<bool> {
        let is_first = !self.collided.contains(print)?;
        if is_first {
            self.collided.insert(print)?;
        }
        Ok(is_first)
    }

    /// No more comes: the keys that were named, and what was held, from the first.
    pub fn close(self) -> io::Result<(OwnWrites, Option<BufReader<File>>)> {
        let Some(file) = self.file else {
            return Ok((self.collided, None));
        };
        let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok((self.collided, Some(BufReader::new(file))))
    }
}
