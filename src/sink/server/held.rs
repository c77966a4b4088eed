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

use std::io::{self, Read};

use crate::own_writes::Fingerprint;

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
