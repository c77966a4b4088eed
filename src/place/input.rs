//! What a verb reads: an archive or an RDB file, encrypted or not, from a file or standard input. What
//! comes out are its plain bytes. What they are, their beginning says, and never the name.

use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, anyhow};
use sha2::{Digest, Sha256};

use super::store::{Opened, Positioned, Ranged};
use super::{Location, Place};
use crate::encryption::{Damage, Keys, SNIFF_BYTES, Sealed, Unsealed, unseal};
use crate::stop::Stop;
use crate::units::hex;

/// So many bytes tell what it is.
const HEAD_BYTES: u64 = 16;

/// Shared readers of the bytes as they are stored.
pub type SharedBytes = Positioned<Arc<dyn Ranged>>;

/// Gives plain bytes, also where they are stored encrypted.
pub struct Input {
    bytes: Bytes,
    /// First plain bytes that were looked at.
    head: Cursor<Vec<u8>>,
    name: String,
    file: Option<PathBuf>,
    /// How many bytes are stored; `None` for what comes once.
    len: Option<u64>,
    modified_ms: Option<u64>,
    /// What of an encrypted input went by; `None` for others.
    seen: Option<Arc<Mutex<Seen>>>,
}

/// Digest and length of what is stored, until somebody jumps in it.
type Seen = Option<(Sha256, u64)>;

enum Bytes {
    Plain(Stored),
    Encrypted(Box<Unsealed<Stored>>),
}

/// The bytes as they are stored.
struct Stored {
    from: From,
    /// Shared with [`Input`], because the crate's readers keep what they read from.
    seen: Option<Arc<Mutex<Seen>>>,
}

enum From {
    Ranged(SharedBytes),
    /// First the bytes that were looked at and cannot be put back.
    Stream(io::Chain<Cursor<Vec<u8>>, Box<dyn Read + Send>>),
}

impl Input {
    /// Opens what was named, or standard input where nothing was; no terminal. Whether it is
    /// encrypted, its first bytes say. A wish to stop ends the waiting for somebody who writes into
    /// a pipe.
    ///
    /// # Errors
    /// [`Usage`](crate::exit::Usage) for an input that cannot be meant;
    /// [`EncryptionError`](crate::encryption::EncryptionError); the store's errors.
    pub fn open(place: Option<&Place>, keys: &Keys, stop: &Stop) -> Result<Self> {
        let location = place.map_or(Ok(&Location::Stream), Place::stored)?;
        Self::open_at(location, keys, stop)
    }

    /// The same, for what is known to be no server.
    ///
    /// # Errors
    /// As [`Input::open`].
    pub fn open_at(location: &Location, keys: &Keys, stop: &Stop) -> Result<Self> {
        Self::new(location.open(stop)?, location, keys)
    }

    fn new(opened: Opened, location: &Location, keys: &Keys) -> Result<Self> {
        let name = location.input_name();
        let (stored, form) = Stored::new(opened).with_context(|| format!("cannot read {name}"))?;
        let (len, modified_ms) = match &stored.from {
            From::Ranged(bytes) => (
                Some(
                    bytes
                        .of()
                        .size()
                        .with_context(|| format!("cannot open {name}"))?,
                ),
                bytes.of().modified_ms(),
            ),
            From::Stream(_) => (None, None),
        };
        let seen = stored.seen.clone();
        let bytes = match form {
            None => Bytes::Plain(stored),
            Some(form) => Bytes::Encrypted(Box::new(unseal(stored, form, keys, &name)?)),
        };
        Ok(Self {
            bytes,
            head: Cursor::default(),
            name,
            file: location.file().map(Path::to_owned),
            len,
            modified_ms,
            seen,
        })
    }

    /// Opens what may be damaged: of an encrypted input zeros stand for what cannot be decrypted, and
    /// what that is is told. A pipe is saved to a temporary file as it comes, encrypted or not, because
    /// what is to be rescued is read more than once.
    ///
    /// # Errors
    /// As [`Input::open`].
    pub fn open_damaged(
        place: Option<&Place>,
        keys: &Keys,
        stop: &Stop,
    ) -> Result<(Self, Option<Damage>)> {
        let kept = Kept::open(place, keys, stop)?;
        let mut input = kept.reader()?;
        let Bytes::Encrypted(unsealed) = &mut input.bytes else {
            return Ok((input, None));
        };
        let again = || match kept.reader()?.bytes {
            Bytes::Encrypted(unsealed) => Ok(*unsealed),
            Bytes::Plain(_) => Err(anyhow!("{} was changed while it was read", kept.name())),
        };
        let damage = unsealed.mend(again, stop)?;
        // It counted what the first reader read.
        input.seen = input.seen.filter(|_| damage.is_none());
        Ok((input, damage))
    }

    /// Its first plain bytes, 16 or all there are, by which its content is known. They are read again
    /// by whoever reads next. To be asked before anything is read.
    ///
    /// # Errors
    /// The input's.
    pub fn head(&mut self) -> Result<&[u8]> {
        let mut head = Vec::new();
        let read = self.by_ref().take(HEAD_BYTES).read_to_end(&mut head);
        read.with_context(|| format!("cannot read {}", self.name))?;
        self.head = Cursor::new(head);
        Ok(self.head.get_ref())
    }

    /// Its name, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file, where it is one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// When the file was changed last, Unix ms.
    pub fn modified_ms(&self) -> Option<u64> {
        self.modified_ms
    }

    /// Whether it can be read twice.
    pub fn is_rereadable(&self) -> bool {
        self.len.is_some()
    }

    /// Whether a jump in it costs little: neither a pipe, nor armor.
    pub fn is_sought_quickly(&self) -> bool {
        let is_armored = match &self.bytes {
            Bytes::Plain(_) => false,
            Bytes::Encrypted(unsealed) => unsealed.is_armored(),
        };
        self.is_rereadable() && !is_armored
    }

    /// Whether it is encrypted.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.bytes, Bytes::Encrypted(_))
    }

    /// Length and SHA-256, hex, of an encrypted input, once it was read from start to end; they are
    /// those that the export printed.
    pub fn stored(&self) -> Option<(u64, String)> {
        let seen = self.seen.as_ref()?.lock().ok()?;
        let (digest, bytes) = seen.as_ref()?;
        Some((*bytes, hex(&digest.clone().finalize())))
    }

    /// How many bytes are stored, where that is known.
    pub fn len_bytes(&self) -> Option<u64> {
        self.len
    }

    /// The same bytes from their start, to be read elsewhere at the same time. `None` for a pipe, and
    /// for what is encrypted.
    pub fn another(&self) -> Option<SharedBytes> {
        match &self.bytes {
            Bytes::Plain(Stored {
                from: From::Ranged(bytes),
                ..
            }) => Some(Positioned::new(Arc::clone(bytes.of()), 0)),
            _ => None,
        }
    }

    /// Back to the start.
    ///
    /// # Errors
    /// The input's; always for a pipe.
    pub fn rewind(&mut self) -> Result<()> {
        self.seek(SeekFrom::Start(0))
            .with_context(|| format!("cannot go back to the start of {}", self.name))?;
        Ok(())
    }
}

/// What is read more than once: a file, or what came by a pipe, saved to a temporary file as it came.
pub struct Kept<'a> {
    bytes: Arc<dyn Ranged>,
    location: Location,
    keys: &'a Keys,
}

impl<'a> Kept<'a> {
    /// Opens a file, or saves a pipe.
    ///
    /// # Errors
    /// As [`Input::open`].
    pub fn open(place: Option<&Place>, keys: &'a Keys, stop: &Stop) -> Result<Self> {
        let location = place.map_or(Ok(&Location::Stream), Place::stored)?;
        let bytes = match location.open(stop)? {
            Opened::Ranged(bytes) => bytes,
            Opened::Stream(mut stream) => Arc::new(saved(&mut stream).with_context(|| {
                format!("cannot save {} to a temporary file", location.input_name())
            })?),
        };
        let location = location.clone();
        Ok(Self {
            bytes,
            location,
            keys,
        })
    }

    /// Its name, for people.
    pub fn name(&self) -> String {
        self.location.input_name()
    }

    /// A reader at the start.
    ///
    /// # Errors
    /// As [`Input::open`].
    pub fn reader(&self) -> Result<Input> {
        let bytes = Opened::Ranged(Arc::clone(&self.bytes));
        Input::new(bytes, &self.location, self.keys)
    }
}

/// Everything that comes, in a temporary file.
fn saved(stream: &mut dyn Read) -> io::Result<std::fs::File> {
    let mut saved = tempfile::tempfile()?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(saved),
            len => saved.write_all(&buffer[..len])?,
        }
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.head.read(buffer)? {
            0 => self.bytes.read(buffer),
            len => Ok(len),
        }
    }
}

impl Seek for Input {
    /// Within the plain bytes: 0 is the first one.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let ahead = std::mem::take(&mut self.head);
        let ahead = ahead.get_ref().len() as u64 - ahead.position();
        match to {
            SeekFrom::Current(by) if ahead > 0 => {
                let here = self.bytes.stream_position()? - ahead;
                let to = here.checked_add_signed(by);
                self.bytes
                    .seek(SeekFrom::Start(to.ok_or(io::ErrorKind::InvalidInput)?))
            }
            to => self.bytes.seek(to),
        }
    }
}

impl Read for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Bytes::Plain(stored) => stored.read(buffer),
            Bytes::Encrypted(unsealed) => unsealed.read(buffer),
        }
    }
}

impl Seek for Bytes {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Bytes::Plain(stored) => stored.seek(to),
            Bytes::Encrypted(unsealed) => unsealed.seek(to),
        }
    }
}

impl Stored {
    /// Looks at the first bytes, and puts them back.
    fn new(opened: Opened) -> io::Result<(Self, Option<Sealed>)> {
        let mut head = Vec::with_capacity(SNIFF_BYTES);
        let from = match opened {
            Opened::Ranged(bytes) => {
                let first = Positioned::new(Arc::clone(&bytes), 0);
                first.take(SNIFF_BYTES as u64).read_to_end(&mut head)?;
                From::Ranged(Positioned::new(bytes, 0))
            }
            Opened::Stream(mut stream) => {
                let first = stream.by_ref().take(SNIFF_BYTES as u64);
                { first }.read_to_end(&mut head)?;
                From::Stream(Cursor::new(head.clone()).chain(stream))
            }
        };
        let form = Sealed::of(&head);
        let seen = form.map(|_| Arc::new(Mutex::new(Some((Sha256::new(), 0)))));
        Ok((Self { from, seen }, form))
    }

    fn see(&self, change: impl FnOnce(&mut Seen)) {
        if let Some(seen) = &self.seen
            && let Ok(mut seen) = seen.lock()
        {
            change(&mut seen);
        }
    }
}

impl Read for Stored {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = match &mut self.from {
            From::Ranged(bytes) => bytes.read(buffer)?,
            From::Stream(stream) => stream.read(buffer)?,
        };
        self.see(|seen| {
            if let Some((digest, bytes)) = seen {
                digest.update(&buffer[..len]);
                *bytes += len as u64;
            }
        });
        Ok(len)
    }
}

impl Seek for Stored {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let From::Ranged(bytes) = &mut self.from else {
            // As of a pipe.
            return Err(io::Error::from_raw_os_error(
                rustix::io::Errno::SPIPE.raw_os_error(),
            ));
        };
        let before = bytes.stream_position()?;
        let after = bytes.seek(to)?;
        if after != before {
            self.see(|seen| *seen = None);
        }
        Ok(after)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::super::memory::MemoryStore;
    use super::super::store::use_in_place_of_files;
    use super::*;

    fn open(name: &str) -> Result<Input> {
        Input::open(Some(&Place::of(OsStr::new(name))), Keys::NONE, &Stop::new())
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let directory = tempfile::tempdir().expect("tempdir");
        for name in [
            directory.path().to_str().expect("text"),
            "redis://u:hunter2@h",
            "/no/such/file",
        ] {
            let error = open(name).map(drop).expect_err(name);
            assert!(error.is::<crate::exit::Usage>(), "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_first_bytes_are_looked_at_and_read_all_the_same() {
        let store = MemoryStore::new();
        let _in_place = use_in_place_of_files(Arc::new(store.clone()));
        for bytes in [&b"REDIS0011 and so on and on"[..], b"VCS\x01", b""] {
            store.put("dump.rdb", bytes);
            let mut input = open("dump.rdb").expect("opens");
            let head = &bytes[..bytes.len().min(16)];
            assert_eq!(input.head().expect("read"), head);
            assert_eq!(input.stream_position().expect("known"), 0);
            assert_eq!(input.head().expect("read"), head, "again");
            let mut all = Vec::new();
            input.read_to_end(&mut all).expect("read");
            assert_eq!(all, bytes);
            input.rewind().expect("rewinds");
            all.clear();
            input.read_to_end(&mut all).expect("read");
            assert_eq!(all, bytes);
        }
    }

    #[test]
    fn a_jump_from_where_one_is_counts_what_was_only_looked_at() {
        let store = MemoryStore::new();
        let _in_place = use_in_place_of_files(Arc::new(store.clone()));
        store.put("x", (0..100).collect::<Vec<u8>>());
        let mut input = open("x").expect("opens");
        input.head().expect("read");
        let mut byte = [0; 3];
        input.read_exact(&mut byte).expect("read");
        assert_eq!(input.seek(SeekFrom::Current(10)).expect("seeks"), 13);
        input.read_exact(&mut byte).expect("read");
        assert_eq!(byte, [13, 14, 15]);
        assert_eq!(input.seek(SeekFrom::End(-1)).expect("seeks"), 99);
        let mut shared = input.another().expect("a file");
        shared.read_exact(&mut byte).expect("read");
        assert_eq!((byte, input.len_bytes()), ([0, 1, 2], Some(100)));
    }
}
