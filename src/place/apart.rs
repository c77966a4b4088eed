//! What a run reads and what it writes are not the same file.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use redis_migrate_format::version::MAGIC;

use super::Location;
use super::file::{directory_of, place_of};
use crate::encryption::{SNIFF_BYTES, Sealed};
use crate::exit::Usage;
use crate::rdb::Magic;

/// What a run reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// An archive or an RDB file.
    Stored(Location),
    /// A file with a password, a key or a certificate.
    Secret(PathBuf),
}

/// What a run writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writing {
    /// A file, and what it is for, as messages call it.
    File {
        /// Such as "the output".
        what: &'static str,
        /// Its name.
        name: PathBuf,
        /// What will be in it.
        holds: Holds,
    },
    /// Standard output.
    Stdout,
}

/// What is written to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// An archive, which may replace an older one.
    Archive,
    /// An RDB file, which may replace an older one, and no archive.
    Rdb,
    /// Anything else, which must replace neither.
    Other,
    /// Anything, and the user said what it may replace.
    Overwriting,
}

impl Holds {
    /// What is neither archive nor RDB file; with `overwrite` it may replace them.
    pub fn other(overwrite: bool) -> Self {
        Self::Other.unless(overwrite)
    }

    /// The same, or anything if the user said `overwrite`.
    #[must_use]
    pub fn unless(self, overwrite: bool) -> Self {
        match overwrite {
            true => Self::Overwriting,
            false => self,
        }
    }

    /// Whether it may not take this one's place.
    fn must_spare(self, there: Backup) -> bool {
        match self {
            Self::Archive | Self::Overwriting => false,
            Self::Rdb => there == Backup::Archive,
            Self::Other => true,
        }
    }
}

/// Which file it is, whatever it is called. Devices, pipes and terminals are none: writing to them
/// destroys nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Identity {
    /// An existing file: device and inode.
    File(u64, u64),
    /// A file that is to be made: its directory's identity and its name.
    New(u64, u64, OsString),
}

impl Identity {
    fn of_open(file: impl AsFd) -> Option<Self> {
        let file = File::from(file.as_fd().try_clone_to_owned().ok()?);
        Self::of_metadata(&file.metadata().ok()?)
    }

    fn of_metadata(metadata: &Metadata) -> Option<Self> {
        metadata
            .is_file()
            .then(|| Self::File(metadata.dev(), metadata.ino()))
    }

    fn of_name(name: &Path) -> Option<Self> {
        let place = place_of(name).ok()?;
        if let Ok(metadata) = place.metadata() {
            return Self::of_metadata(&metadata);
        }
        let directory = directory_of(&place).metadata().ok()?;
        let name = place.file_name()?.to_owned();
        Some(Self::New(directory.dev(), directory.ino(), name))
    }
}

impl Reading {
    fn identity(&self) -> Option<Identity> {
        match self {
            Reading::Stored(Location::File(name)) | Reading::Secret(name) => {
                Identity::of_name(name)
            }
            Reading::Stored(Location::Stream) => Identity::of_open(io::stdin()),
        }
    }

    fn shown(&self) -> String {
        match self {
            Reading::Stored(Location::Stream) => "what standard input is read from".to_owned(),
            Reading::Stored(location) => format!("{}, which is to be read", location.input_name()),
            Reading::Secret(name) => {
                format!("{}, which holds a secret or a certificate", name.display())
            }
        }
    }
}

impl Writing {
    fn identity(&self) -> Option<Identity> {
        match self {
            Writing::File { name, .. } => Identity::of_name(name),
            Writing::Stdout => Identity::of_open(io::stdout()),
        }
    }

    fn shown(&self) -> String {
        match self {
            Writing::File { what, name, .. } => format!("{what} ({})", name.display()),
            Writing::Stdout => "standard output".to_owned(),
        }
    }
}

/// What of `reads` would be written over.
pub fn overwritten<'a>(write: &Writing, reads: &'a [Reading]) -> Option<&'a Reading> {
    let identity = write.identity()?;
    reads
        .iter()
        .find(|read| read.identity().as_ref() == Some(&identity))
}

/// Refuses a run that would write over what it reads, over the other file that it writes, or over an
/// archive or an RDB file with something of another kind. Files are compared by device and inode, so that hard and
/// symbolic links and redirections are seen through. To be called before any file is opened.
///
/// # Errors
/// [`Usage`], with the names.
pub fn keep_apart(reads: &[Reading], writes: &[Writing]) -> Result<(), Usage> {
    for (at, write) in writes.iter().enumerate() {
        let Some(identity) = write.identity() else {
            continue;
        };
        let is_same = |other: &Option<Identity>| other.as_ref() == Some(&identity);
        if let Some(read) = overwritten(write, reads) {
            let (output, input) = (write.shown(), read.shown());
            return Err(Usage(format!(
                "{output} is the same file as {input}; name another file to write to"
            )));
        }
        if let Some(other) = writes[..at].iter().find(|other| is_same(&other.identity())) {
            let (one, other) = (other.shown(), write.shown());
            return Err(Usage(format!("{one} and {other} are the same file")));
        }
        if let Writing::File { what, name, holds } = write
            && let Some(there) = backup_at(name)
            && holds.must_spare(there)
        {
            let advice = match *what {
                "the output" => "name another file, or say --overwrite",
                _ => "name another file",
            };
            return Err(Usage(format!(
                "{} is {}, and {what} is none; {advice}",
                name.display(),
                there.shown()
            )));
        }
    }
    Ok(())
}

/// What somebody may want to restore one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backup {
    /// An archive, encrypted or not.
    Archive,
    /// An RDB file.
    Rdb,
}

impl Backup {
    fn shown(self) -> &'static str {
        match self {
            Self::Archive => "an archive",
            Self::Rdb => "an RDB file",
        }
    }
}

/// What a file begins like.
fn backup_at(name: &Path) -> Option<Backup> {
    let mut head = Vec::new();
    let most = SNIFF_BYTES.max(MAGIC.len()) as u64;
    let read = File::open(name).and_then(|file| file.take(most).read_to_end(&mut head));
    read.ok()?;
    if head.starts_with(&MAGIC) || Sealed::of(&head).is_some() {
        return Some(Backup::Archive);
    }
    let is_rdb = head.first_chunk().and_then(Magic::parse).is_some();
    is_rdb.then_some(Backup::Rdb)
}
