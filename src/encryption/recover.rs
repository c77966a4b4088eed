//! What of a damaged file can be read all the same: age's chunks are decrypted each by itself, so
//! that those behind a damaged one are as good as those before it.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use anyhow::Result;

use super::EncryptionError;
use super::decrypt::{CHUNK_BYTES, Form, Unsealed};
use crate::exit;
use crate::stop::Stop;

/// So many damaged chunks in a row are no damage to chunks any more: bytes are missing or came in
/// between, and everything behind them has shifted. To try each costs a new look at the header.
const MAX_IN_A_ROW: u32 = 1_000;

/// What cannot be read of an encrypted file.
#[derive(Debug)]
pub struct Damage {
    /// Plain bytes that can be read.
    pub readable_bytes: u64,
    /// Plain bytes between them that cannot, by their places: zeros stand there instead.
    pub holes: Vec<Range<u64>>,
    /// Where the plain bytes end.
    pub end: u64,
    /// Whether that is the file's own end, and nothing was behind it.
    pub has_end: bool,
    /// What was found first.
    pub what: io::Error,
}

/// How far one got without an error.
enum ReadOn {
    ToTheEnd,
    /// The chunk that fails, and why.
    To(u64, io::Error),
}

impl<R: Read + Seek> Unsealed<R> {
    /// Looks through the whole file. Where it is damaged, what can be decrypted is given from now
    /// on, and zeros in between; of armored files only what stands before the damage, because
    /// everything behind it may have shifted. `again` opens the file once more: the crate's reader
    /// is of no use after an error.
    ///
    /// # Errors
    /// The system's, [`exit::Interrupted`], and those of `again`.
    pub(crate) fn mend(
        &mut self,
        mut again: impl FnMut() -> Result<Self>,
        stop: &Stop,
    ) -> Result<Option<Damage>> {
        let (mut chunk, what) = match self.read_on(stop)? {
            ReadOn::ToTheEnd => {
                self.rewind()?;
                return Ok(None);
            }
            ReadOn::To(chunk, what) => (chunk, what),
        };
        let mut holes: Vec<Range<u64>> = Vec::new();
        let mut end = chunk * CHUNK_BYTES;
        let mut has_end = false;
        let mut is_over = is_cut(&what) || matches!(self.form, Form::Armored(_));
        let mut in_a_row = 0;
        while !is_over {
            exit::unless_stopped(stop)?;
            let at = chunk * CHUNK_BYTES;
            match holes.last_mut() {
                Some(last) if last.end == at => last.end += CHUNK_BYTES,
                _ => holes.push(at..at + CHUNK_BYTES),
            }
            *self = again()?;
            chunk += 1;
            let begun = match self.go_to_chunk(chunk) {
                Ok(()) => self.read_on(stop)?,
                Err(error) => ReadOn::To(chunk, own(error)?),
            };
            match begun {
                ReadOn::ToTheEnd => {
                    (end, has_end, is_over) = (self.at, true, true);
                }
                ReadOn::To(failed, error) => {
                    in_a_row = if failed == chunk { in_a_row + 1 } else { 0 };
                    chunk = failed;
                    end = chunk * CHUNK_BYTES;
                    is_over = is_cut(&error) || in_a_row >= MAX_IN_A_ROW;
                }
            }
        }
        // Nobody knows how long a chunk is that is the last, and cannot be read.
        if let Some(last) = holes.pop_if(|last| last.end == end) {
            end = last.start;
        }
        *self = again()?;
        let lost: u64 = holes.iter().map(|hole| hole.end - hole.start).sum();
        self.holes.clone_from(&holes);
        self.end = Some(end);
        Ok(Some(Damage {
            readable_bytes: end - lost,
            holes,
            end,
            has_end,
            what,
        }))
    }

    fn read_on(&mut self, stop: &Stop) -> Result<ReadOn> {
        let mut buffer = vec![0; CHUNK_BYTES as usize];
        loop {
            exit::unless_stopped(stop)?;
            match self.read(&mut buffer) {
                Ok(0) => return Ok(ReadOn::ToTheEnd),
                Ok(_) => {}
                Err(error) => return Ok(ReadOn::To(self.at / CHUNK_BYTES, own(error)?)),
            }
        }
    }
}

/// What is wrong with the file, and not with the system.
fn own(error: io::Error) -> Result<io::Error> {
    match EncryptionError::of(&error) {
        Some(_) => Ok(error),
        None => Err(error.into()),
    }
}

fn is_cut(error: &io::Error) -> bool {
    matches!(EncryptionError::of(error), Some(EncryptionError::Cut))
}

impl<R: Read + Seek> Unsealed<R> {
    /// To the first byte of a chunk. The crate's reader looks for the file's end on such a step,
    /// which may be what is damaged; so it goes one byte further and back.
    pub(super) fn go_to_chunk(&mut self, chunk: u64) -> io::Result<()> {
        let at = chunk * CHUNK_BYTES;
        self.seek_form(SeekFrom::Start(at + 1))?;
        self.at = self.seek_form(SeekFrom::Start(at))?;
        Ok(())
    }
}
