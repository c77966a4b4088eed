//! Where an archive is read from: a file or standard input, encrypted or not. What comes out are the
//! archive's own bytes.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Cursor, IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::encryption::{Damage, Keys, SNIFF_BYTES, Sealed, Unsealed, unseal};
use crate::exit::{Interrupted, Usage};
use crate::output::is_closed;
use crate::stop::Stop;
use crate::units::hex;

/// Gives an archive: its plain bytes, also where the file is encrypted.
pub struct ArchiveInput {
    bytes: Bytes,
    name: String,
    len: Option<u64>,
    /// What of an encrypted file went by; `None` for others.
    seen: Option<Arc<Mutex<Seen>>>,
}

/// Digest and length of a file as it is stored, until somebody jumps in it.
type Seen = Option<(Sha256, u64)>;

enum Bytes {
    Plain(Stored),
    Encrypted(Box<Unsealed<Stored>>),
}

/// The file as it is stored.
struct Stored {
    file: File,
    /// Where the archive begins: standard input may have been read before.
    start: u64,
    /// First bytes that were looked at already and cannot be put back.
    head: Cursor<Vec<u8>>,
    /// Shared with [`ArchiveInput`], because the crate's readers keep what they read from.
    seen: Option<Arc<Mutex<Seen>>>,
    /// Ends the waiting for somebody who writes into a pipe.
    stop: Option<Stop>,
}

impl ArchiveInput {
    /// Opens a file, or standard input where there is no name, or `-`; no terminal. An encrypted
    /// one cannot be read without keys.
    ///
    /// # Errors
    /// As [`ArchiveInput::open_with`].
    pub fn open(name: Option<&OsStr>) -> Result<Self> {
        Self::open_with(name, Keys::NONE, None)
    }

    /// The same, with keys for a file that is encrypted. Whether it is, its first bytes say. A wish
    /// to stop ends the waiting for somebody who writes into a pipe.
    ///
    /// # Errors
    /// [`Usage`] for an input that cannot be meant;
    /// [`EncryptionError`](crate::encryption::EncryptionError); the system's errors.
    pub fn open_with(name: Option<&OsStr>, keys: &Keys, stop: Option<&Stop>) -> Result<Self> {
        let (file, name) = Self::open_file(name)?;
        Self::of_file(file, name, keys, stop)
    }

    fn of_file(file: File, name: String, keys: &Keys, stop: Option<&Stop>) -> Result<Self> {
        let metadata = file.metadata().with_context(|| format!("open {name}"))?;
        if metadata.is_dir() {
            return Err(Usage(format!("{name} is a directory")).into());
        }
        let stop = stop.filter(|_| !metadata.is_file()).cloned();
        let (stored, form) = Stored::new(file, stop).with_context(|| format!("read {name}"))?;
        let len = metadata
            .is_file()
            .then(|| metadata.len().saturating_sub(stored.start));
        let seen = stored.seen.clone();
        let bytes = match form {
            None => Bytes::Plain(stored),
            Some(form) => Bytes::Encrypted(Box::new(unseal(stored, form, keys, &name)?)),
        };
        Ok(Self {
            bytes,
            name,
            len,
            seen,
        })
    }

    /// The same, of an archive that may be damaged: of an encrypted one zeros stand for what cannot
    /// be decrypted, and what that is is told. A pipe is saved to a temporary file as it comes,
    /// encrypted or not, because what is to be rescued is read more than once.
    ///
    /// # Errors
    /// As [`ArchiveInput::open_with`].
    pub fn open_damaged(
        name: Option<&OsStr>,
        keys: &Keys,
        stop: &Stop,
    ) -> Result<(Self, Option<Damage>)> {
        let stored = Kept::open(name, keys, stop)?;
        let name = &stored.name;
        let open = || stored.reader();
        let mut input = open()?;
        let Bytes::Encrypted(unsealed) = &mut input.bytes else {
            return Ok((input, None));
        };
        let again = || match open()?.bytes {
            Bytes::Encrypted(unsealed) => Ok(*unsealed),
            Bytes::Plain(_) => Err(anyhow::anyhow!("{name} was changed while it was read")),
        };
        let damage = unsealed.mend(again, stop)?;
        // It counted what the first reader read.
        input.seen = input.seen.filter(|_| damage.is_none());
        Ok((input, damage))
    }

    fn open_file(name: Option<&OsStr>) -> Result<(File, String)> {
        Ok(match name.filter(|name| *name != "-") {
            None => {
                let stdin = io::stdin();
                if is_closed(&stdin) {
                    return Err(Usage(
                        "an archive is to be read from standard input, and that is closed (or is \
                         /dev/null, opened for writing too); redirect it (< snap.rmz) or name the \
                         file"
                            .to_owned(),
                    )
                    .into());
                }
                if stdin.is_terminal() {
                    return Err(Usage(
                        "an archive is read from standard input, and that is a terminal; redirect \
                         it (< snap.rmz) or name the file"
                            .to_owned(),
                    )
                    .into());
                }
                let own = stdin.as_fd().try_clone_to_owned();
                (
                    File::from(own.context("open standard input")?),
                    "standard input".to_owned(),
                )
            }
            Some(name) => {
                let shown = format!("{}", Path::new(name).display());
                if let Some((scheme, _)) = shown.split_once("://") {
                    return Err(Usage(format!(
                        "an archive is a file, and {scheme}:// is no file; write ./ in front of a \
                         file that is really called that"
                    ))
                    .into());
                }
                let file = File::open(name).map_err(|error| {
                    // It may have been meant as a URL, with a password in it.
                    let shown = if shown.contains('@') { "it" } else { &shown };
                    Usage(format!(
                        "an archive was to be read, but cannot open {shown}: {error}"
                    ))
                })?;
                (file, shown)
            }
        })
    }

    /// The input's name, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it can be read twice.
    pub fn is_regular_file(&self) -> bool {
        self.len.is_some()
    }

    /// Whether a jump in it costs little: neither a pipe, nor armor.
    pub fn is_sought_quickly(&self) -> bool {
        let is_armored = match &self.bytes {
            Bytes::Plain(_) => false,
            Bytes::Encrypted(unsealed) => unsealed.is_armored(),
        };
        self.is_regular_file() && !is_armored
    }

    /// Whether it is encrypted.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.bytes, Bytes::Encrypted(_))
    }

    /// Length and SHA-256, hex, of an encrypted file, once it was read from start to end; they are
    /// those that the export printed.
    pub fn stored(&self) -> Option<(u64, String)> {
        let seen = self.seen.as_ref()?.lock().ok()?;
        let (digest, bytes) = seen.as_ref()?;
        Some((*bytes, hex(&digest.clone().finalize())))
    }

    /// Length of the file as it is stored, for a regular file.
    pub fn len_bytes(&self) -> Option<u64> {
        self.len
    }

    /// The same bytes, to be read elsewhere at the same time. `None` for a pipe, and for what is
    /// encrypted.
    ///
    /// # Errors
    /// The system's.
    pub fn another(&self) -> Result<Option<SharedFile>> {
        let (Bytes::Plain(stored), true) = (&self.bytes, self.is_regular_file()) else {
            return Ok(None);
        };
        let file = stored.file.try_clone();
        Ok(Some(SharedFile {
            file: file.with_context(|| format!("open {}", self.name))?,
            start: stored.start,
            at: 0,
        }))
    }

    /// Back to the start.
    ///
    /// # Errors
    /// The system's; always for a pipe.
    pub fn rewind(&mut self) -> Result<()> {
        self.seek(SeekFrom::Start(0))
            .with_context(|| format!("go back to the start of {}", self.name))?;
        Ok(())
    }
}

/// An archive that is read more than once: a file, or what came by a pipe, saved to a temporary file
/// as it came.
pub struct Kept<'a> {
    file: File,
    start: u64,
    name: String,
    keys: &'a Keys,
}

impl<'a> Kept<'a> {
    /// Opens a file, or saves a pipe.
    ///
    /// # Errors
    /// As [`ArchiveInput::open_with`].
    pub fn open(name: Option<&OsStr>, keys: &'a Keys, stop: &Stop) -> Result<Self> {
        let (mut file, name) = ArchiveInput::open_file(name)?;
        let metadata = file.metadata();
        if !metadata.is_ok_and(|metadata| metadata.is_file() || metadata.is_dir()) {
            file = saved(&mut file, stop)
                .with_context(|| format!("save {name} to a temporary file"))?;
        }
        let start = file.stream_position().unwrap_or(0);
        Ok(Self {
            file,
            start,
            name,
            keys,
        })
    }

    /// The input's name, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A reader at the start. Only the newest one may be used.
    ///
    /// # Errors
    /// As [`ArchiveInput::open_with`].
    pub fn reader(&self) -> Result<ArchiveInput> {
        let name = &self.name;
        let file = self.file.try_clone();
        let mut file = file.with_context(|| format!("open {name}"))?;
        if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            file.seek(SeekFrom::Start(self.start))
                .with_context(|| format!("go to the start of {name}"))?;
        }
        ArchiveInput::of_file(file, name.clone(), self.keys, None)
    }
}

/// Everything that comes, in a temporary file at its start.
fn saved(file: &mut File, stop: &Stop) -> io::Result<File> {
    let mut saved = tempfile::tempfile()?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        wait_for_input(file, stop)?;
        match file.read(&mut buffer)? {
            0 => break,
            len => saved.write_all(&buffer[..len])?,
        }
    }
    saved.rewind()?;
    Ok(saved)
}

/// A file that several read at once, each at a place of its own.
#[derive(Debug)]
pub struct SharedFile {
    file: File,
    start: u64,
    at: u64,
}

impl SharedFile {
    /// One more of them, at the start.
    ///
    /// # Errors
    /// The system's.
    pub fn another(&self) -> Result<Self> {
        let file = self
            .file
            .try_clone()
            .context("open the archive once more")?;
        Ok(Self {
            file,
            start: self.start,
            at: 0,
        })
    }
}

impl Read for SharedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.start + self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for SharedFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let end = || Ok::<_, io::Error>(self.file.metadata()?.len().saturating_sub(self.start));
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => end()?.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

impl Read for ArchiveInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.bytes {
            Bytes::Plain(stored) => stored.read(buffer),
            Bytes::Encrypted(unsealed) => unsealed.read(buffer),
        }
    }
}

impl Seek for ArchiveInput {
    /// Within the archive's plain bytes: 0 is its first one.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match &mut self.bytes {
            Bytes::Plain(stored) => stored.seek(to),
            Bytes::Encrypted(unsealed) => unsealed.seek(to),
        }
    }
}

impl Stored {
    /// Looks at the first bytes, and puts them back.
    fn new(mut file: File, stop: Option<Stop>) -> io::Result<(Self, Option<Sealed>)> {
        let start = file.stream_position().unwrap_or(0);
        let mut stored = Self {
            file,
            start,
            head: Cursor::default(),
            seen: None,
            stop,
        };
        let mut head = Vec::with_capacity(SNIFF_BYTES);
        (&mut stored)
            .take(SNIFF_BYTES as u64)
            .read_to_end(&mut head)?;
        let form = Sealed::of(&head);
        stored.seen = form.map(|_| Arc::new(Mutex::new(Some((Sha256::new(), 0)))));
        if stored.file.seek(SeekFrom::Start(start)).is_err() {
            stored.head = Cursor::new(head);
        }
        Ok((stored, form))
    }
}

impl Read for Stored {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = match self.head.read(buffer)? {
            0 => {
                if let Some(stop) = &self.stop {
                    wait_for_input(&self.file, stop)?;
                }
                self.file.read(buffer)?
            }
            len => len,
        };
        if let Some(seen) = &self.seen
            && let Ok(mut seen) = seen.lock()
            && let Some((digest, bytes)) = &mut *seen
        {
            digest.update(&buffer[..len]);
            *bytes += len as u64;
        }
        Ok(len)
    }
}

impl Seek for Stored {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => SeekFrom::Start(self.start + at),
            to => to,
        };
        let before = self.file.stream_position()?;
        let after = self.file.seek(to)?;
        if after != before
            && let Some(seen) = &self.seen
            && let Ok(mut seen) = seen.lock()
        {
            *seen = None;
        }
        Ok(after.saturating_sub(self.start))
    }
}

/// Waits until something can be read, or the end was reached, or the user wishes to stop.
fn wait_for_input(file: &File, stop: &Stop) -> io::Result<()> {
    const LISTEN_EVERY: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 250_000_000,
    };
    loop {
        let mut files = [PollFd::new(file, PollFlags::IN)];
        match poll(&mut files, Some(&LISTEN_EVERY)) {
            Ok(0) | Err(Errno::INTR) if stop.is_set() => {
                return Err(io::Error::other(Interrupted));
            }
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
#[cfg(test)]
mod tests {
    use tempfile::NamedTempFile;

    use super::*;

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let directory = tempfile::tempdir().expect("tempdir");
        assert!(ArchiveInput::open(Some(directory.path().as_os_str())).is_err());
        assert!(ArchiveInput::open(Some(OsStr::new("redis://u:p@h"))).is_err());
        assert!(ArchiveInput::open(Some(OsStr::new("/no/such/file"))).is_err());
    }

    #[test]
    fn a_file_can_be_read_twice() {
        let mut file = NamedTempFile::new().expect("temp file");
        file.write_all(b"abc").expect("writes");
        let mut input = ArchiveInput::open(Some(file.path().as_os_str())).expect("opens");
        assert_eq!(input.len_bytes(), Some(3));
        for _ in 0..2 {
            let mut text = String::new();
            input.read_to_string(&mut text).expect("reads");
            assert_eq!(text, "abc");
            input.rewind().expect("rewinds");
        }
    }
}
