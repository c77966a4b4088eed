//! What a run reads and what it writes are not the same file.

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use redis_migrate_format::version::MAGIC;

use super::Location;
use super::store::{Access, Opened, Positioned, Target};
use crate::encryption::{SNIFF_BYTES, Sealed};
use crate::exit::Usage;
use crate::rdb::Magic;
use crate::stop::Stop;

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
    /// A file or an object, and what it is for, as messages call it.
    Stored {
        /// Such as "the output".
        what: &'static str,
        /// Where it is; no standard stream.
        location: Location,
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

impl Reading {
    fn target(&self) -> Option<Target> {
        match self {
            Reading::Stored(location) => location.target(Access::Read),
            Reading::Secret(name) => Location::File(name.clone()).target(Access::Read),
        }
    }

    fn shown(&self) -> String {
        match self {
            Reading::Stored(location) if location.is_stream() => {
                "what standard input is read from".to_owned()
            }
            Reading::Stored(location) => format!("{}, which is to be read", location.input_name()),
            Reading::Secret(name) => {
                format!("{}, which holds a secret or a certificate", name.display())
            }
        }
    }
}

impl Writing {
    fn target(&self) -> Option<Target> {
        match self {
            Writing::Stored { location, .. } => location.target(Access::Write),
            Writing::Stdout => Location::Stream.target(Access::Write),
        }
    }

    fn shown(&self) -> String {
        match self {
            Writing::Stored { what, location, .. } => {
                format!("{what} ({})", location.output_name())
            }
            Writing::Stdout => Location::Stream.output_name(),
        }
    }
}

/// What of `reads` would be written over.
pub fn overwritten<'a>(write: &Writing, reads: &'a [Reading]) -> Option<&'a Reading> {
    let target = write.target()?;
    reads
        .iter()
        .find(|read| read.target().as_ref() == Some(&target))
}

/// Refuses a run that would write over what it reads, over the other file that it writes, or over an
/// archive or an RDB file with something of another kind. Files are compared by device and inode, so that hard and
/// symbolic links and redirections are seen through. To be called before any file is opened.
///
/// # Errors
/// [`Usage`], with the names.
pub fn keep_apart(reads: &[Reading], writes: &[Writing]) -> Result<(), Usage> {
    for (at, write) in writes.iter().enumerate() {
        let Some(target) = write.target() else {
            continue;
        };
        let is_same = |other: &Option<Target>| other.as_ref() == Some(&target);
        if let Some(read) = overwritten(write, reads) {
            let (output, input) = (write.shown(), read.shown());
            return Err(Usage(format!(
                "{output} is the same file as {input}; name another file to write to"
            )));
        }
        if let Some(other) = writes[..at].iter().find(|other| is_same(&other.target())) {
            let (one, other) = (other.shown(), write.shown());
            return Err(Usage(format!("{one} and {other} are the same file")));
        }
        if let Writing::Stored {
            what,
            location,
            holds,
        } = write
            && let Some(there) = backup_at(location)
            && holds.must_spare(there)
        {
            let advice = match *what {
                "the output" => "name another file, or say --overwrite",
                _ => "name another file",
            };
            return Err(Usage(format!(
                "{} is {}, and {what} would overwrite it; {advice}",
                location.output_name(),
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

/// What it is by its first bytes. A pipe is not opened: it has no target.
fn backup_at(location: &Location) -> Option<Backup> {
    let Opened::Ranged(bytes) = location.open(&Stop::new()).ok()? else {
        return None;
    };
    let mut head = Vec::new();
    let most = SNIFF_BYTES.max(MAGIC.len()) as u64;
    let mut bytes = Positioned::new(Arc::clone(&bytes), 0).take(most);
    bytes.read_to_end(&mut head).ok()?;
    if head.starts_with(&MAGIC) || Sealed::of(&head).is_some() {
        return Some(Backup::Archive);
    }
    let is_rdb = head.first_chunk().and_then(Magic::parse).is_some();
    is_rdb.then_some(Backup::Rdb)
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryStore;
    use super::super::store::use_in_place_of_files;
    use super::*;

    #[test]
    fn objects_that_are_known_by_their_name_are_kept_apart_too() {
        let store = MemoryStore::new();
        store.put("bucket/snap.rmz", MAGIC);
        let _in_place = use_in_place_of_files(Arc::new(store.clone()));
        let at = |name: &str| Location::File(name.into());
        let write = |name, holds| Writing::Stored {
            what: "the output",
            location: at(name),
            holds,
        };
        let read = [Reading::Stored(at("bucket/snap.rmz"))];
        let refused = |reads: &[Reading], writes: &[Writing]| {
            keep_apart(reads, writes).expect_err("refused").to_string()
        };
        let same = [write("bucket/snap.rmz", Holds::Archive)];
        assert!(refused(&read, &same).contains("is the same file as"));
        let other = write("bucket/other.rmz", Holds::Archive);
        assert!(keep_apart(&read, std::slice::from_ref(&other)).is_ok());
        assert!(refused(&[], &[other.clone(), other]).contains("are the same file"));
        let page = [write("bucket/snap.rmz", Holds::Other)];
        assert!(refused(&[], &page).contains("is an archive, and the output would overwrite it"));
        let page = [write("bucket/snap.rmz", Holds::Overwriting)];
        assert!(keep_apart(&[], &page).is_ok());
    }

    #[test]
    fn a_store_that_holds_nothing_says_so() {
        let stream = Location::Stream.store();
        let name = Location::Stream.word().as_ref();
        let error = stream.hold(name, true, "busy").err().expect("refused");
        assert!(error.is::<Usage>(), "{error}");
        assert!(stream.hold_new(name, b"", true, "busy").is_err());
        assert_eq!(stream.identity(name), None);
    }
}
