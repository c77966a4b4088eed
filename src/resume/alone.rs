//! Files that one run at a time may write to: they are locked, and a lock is worth something only
//! while the file still has its name. The run that had it before may rename or remove it between
//! our opening and our locking.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::exit::Usage;

/// Who writes to such a file; for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// `export --resume`.
    Export,
    /// `import --resume`.
    Import,
}

impl Use {
    fn at_work(self, place: &Path) -> Usage {
        let place = place.display();
        Usage(match self {
            Use::Export => format!("another export is writing {place}"),
            Use::Import => format!("another import is at work with the state in {place}"),
        })
    }
}

/// Opens the file at `place` to read and write, and locks it: what is given is the file that has that
/// name now. Where there is none, it is made, readable by its owner only, or (without `create`) the
/// answer is `None`.
///
/// # Errors
/// [`Usage`] where another run has it; the system's.
pub(super) fn open_alone(place: &Path, create: bool, user: Use) -> Result<Option<File>> {
    open_alone_after(place, create, user, || {})
}

/// The same; `opened` is called each time between opening and locking.
fn open_alone_after(
    place: &Path,
    create: bool,
    user: Use,
    mut opened: impl FnMut(),
) -> Result<Option<File>> {
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(create)
            .truncate(false)
            .mode(0o600)
            .open(place);
        let file = match file {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !create => return Ok(None),
            file => file.with_context(|| format!("open {}", place.display()))?,
        };
        opened();
        lock(&file, place, user)?;
        if stands_at(&file, place) {
            return Ok(Some(file));
        }
    }
}

/// Two runs would undo each other's work.
///
/// # Errors
/// [`Usage`] where another run has it.
pub(super) fn lock(file: &File, place: &Path, user: Use) -> Result<(), Usage> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Err(user.at_work(place)),
        // Where the file system knows no locks.
        _ => Ok(()),
    }
}

/// Whether the file at `place` is this one.
pub(super) fn stands_at(file: &File, place: &Path) -> bool {
    let (Ok(ours), Ok(there)) = (file.metadata(), place.metadata()) else {
        return false;
    };
    (ours.dev(), ours.ino()) == (there.dev(), there.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_renamed_or_removed_before_it_was_locked_is_not_taken_for_the_one_of_that_name()
     {
        let directory = tempfile::tempdir().unwrap();
        let (part, done) = (directory.path().join("part"), directory.path().join("done"));
        std::fs::write(&part, "whole").unwrap();
        let mut once = Some(());
        let file = open_alone_after(&part, true, Use::Export, || {
            if once.take().is_some() {
                std::fs::rename(&part, &done).unwrap();
            }
        });
        let file = file.unwrap().unwrap();
        file.set_len(0).unwrap();
        assert!(stands_at(&file, &part) && !stands_at(&file, &done));
        assert_eq!(std::fs::read(&done).unwrap(), b"whole");
        let error = open_alone(&part, true, Use::Export).unwrap_err();
        assert!(error.is::<Usage>(), "{error}");
        drop(file);
        let removed = open_alone_after(&part, false, Use::Import, || {
            std::fs::remove_file(&part).unwrap();
        });
        assert!(removed.unwrap().is_none() && !part.exists());
    }
}
