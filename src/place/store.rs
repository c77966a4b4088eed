//! Stores of bytes behind one trait. What is written appears under its name complete or not at all;
//! what is read can be read at any place, unless it comes by a pipe.
//!
//! All archives, RDB files, JSON Lines, pages, states and journals go through a [`Store`]. To add one,
//! implement the trait in a file of its own, and have [`Location::store`](super::Location::store) give
//! it; [`decorate`](super::decorate) puts retries and limits around it.
//!
//! A store of objects implements [`Store::open`] and [`Store::create`]. It may leave out the others:
//! only the states and journals of `--resume` are held, those are files, and an object is known by its
//! name. Settings come from the environment when `Location::store` makes the store; a name that the
//! user wrote must hold no secret, because messages show it.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::file::FileStore;
use crate::exit::Usage;
use crate::stop::Stop;

/// Keeps bytes under names.
pub trait Store: Send + Sync {
    /// Opens what is there. A wish to stop ends the waiting for somebody who writes into a pipe.
    ///
    /// # Errors
    /// [`Usage`] for what cannot be meant; the store's own.
    fn open(&self, name: &Path, stop: &Stop) -> Result<Opened>;

    /// Begins something that takes the name when it is published, in place of what has it then.
    ///
    /// # Errors
    /// As [`Store::open`].
    fn create(&self, name: &Path) -> Result<Box<dyn Draft>>;

    /// Opens what only one run at a time may write to, and keeps others out of it. Where there is
    /// nothing it is made, or (without `create`) the answer is `None`.
    ///
    /// # Errors
    /// [`Usage`] with the words `busy` where another run has it, and from a store that can keep nobody
    /// out; the store's own.
    fn hold(&self, name: &Path, _create: bool, _busy: &str) -> Result<Option<Arc<dyn Held>>> {
        Err(cannot_hold(name).into())
    }

    /// Puts something of that kind there that begins with `bytes` and appears complete, in place of
    /// what is there if it `replaces` that.
    ///
    /// # Errors
    /// As [`Store::hold`], and where something is there that it does not replace.
    fn hold_new(
        &self,
        name: &Path,
        _bytes: &[u8],
        _replaces: bool,
        _busy: &str,
    ) -> Result<Arc<dyn Held>> {
        Err(cannot_hold(name).into())
    }

    /// Which object has the name now, to be compared with [`Held::identity`]; `None` where nothing has,
    /// or nothing can be held.
    fn identity(&self, _name: &Path) -> Option<Identity> {
        None
    }

    /// What a name leads to, before anything is opened: where reading and writing lead to the same, a
    /// run would destroy what it reads. `None` for what loses nothing when it is written to.
    fn target(&self, name: &Path, _access: Access) -> Option<Target> {
        Some(Target::Named(name.into()))
    }
}

fn cannot_hold(name: &Path) -> Usage {
    let name = name.display();
    Usage(format!(
        "{name} cannot be locked against other runs, which a state or a journal needs; name a file"
    ))
}

/// What is to be done with what has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It is read.
    Read,
    /// It is written.
    Write,
}

/// What a name leads to. Two names that lead to the same are equal here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An existing file: device and inode.
    File(u64, u64),
    /// A file that is to be made: its directory's device and inode, and its name.
    New(u64, u64, OsString),
    /// What has this name and no other.
    Named(OsString),
}

/// What was opened to be read.
pub enum Opened {
    /// It can be read at any place, as often as one likes.
    Ranged(Arc<dyn Ranged>),
    /// It comes once: a pipe.
    Stream(Box<dyn Read + Send>),
}

/// Bytes that can be read at any place, by several readers at once.
pub trait Ranged: Send + Sync {
    /// Reads some of the bytes at a place; 0 at their end.
    ///
    /// # Errors
    /// The store's.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;

    /// How many bytes there are.
    ///
    /// # Errors
    /// The store's.
    fn size(&self) -> io::Result<u64>;

    /// When they were changed last, Unix ms, where that is known and says something.
    fn modified_ms(&self) -> Option<u64> {
        None
    }
}

/// Something that is written. Dropped unpublished, it leaves nothing, where the store can take back
/// what was written.
pub trait Draft: Write + Send {
    /// Completes it: everything is kept safely, under its name.
    ///
    /// # Errors
    /// The store's; then it is not there.
    fn publish(self: Box<Self>) -> Result<()>;
}

/// Which object it is, whatever it is called: a renamed one is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// What keeps it, such as a file system.
    pub device: u64,
    /// Its number there, which another may get when it is gone.
    pub inode: u64,
    /// How many bytes it has.
    pub bytes: u64,
}

/// A state or a journal that this run has to itself until it is dropped, and adds to.
pub trait Held: Ranged {
    /// Adds to its end.
    ///
    /// # Errors
    /// The store's.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;

    /// Cuts off what is behind so many bytes; the next ones are added there.
    ///
    /// # Errors
    /// The store's.
    fn cut(&self, bytes: u64) -> io::Result<()>;

    /// Has it kept safely as it is now.
    ///
    /// # Errors
    /// The store's.
    fn sync(&self) -> io::Result<()>;

    /// Which object it is.
    ///
    /// # Errors
    /// The store's.
    fn identity(&self) -> io::Result<Identity>;

    /// Gives it another name, in place of what has that.
    ///
    /// # Errors
    /// The store's.
    fn rename(&self, name: &Path) -> Result<()>;

    /// Removes it.
    ///
    /// # Errors
    /// The store's.
    fn remove(&self) -> io::Result<()>;
}

thread_local! {
    static IN_PLACE_OF_FILES: RefCell<Option<Arc<dyn Store>>> = const { RefCell::new(None) };
}

/// The store of files, or what this thread has in its place.
pub fn files() -> Arc<dyn Store> {
    in_place().unwrap_or_else(|| Arc::new(FileStore))
}

/// What this thread uses in place of files, standard streams and all other stores, if it does.
pub(super) fn in_place() -> Option<Arc<dyn Store>> {
    IN_PLACE_OF_FILES.with_borrow(Clone::clone)
}

/// Has this thread use another store in place of files, standard streams included, until the answer
/// is dropped.
#[must_use]
pub fn use_in_place_of_files(store: Arc<dyn Store>) -> InPlaceOfFiles {
    IN_PLACE_OF_FILES.set(Some(store));
    InPlaceOfFiles(())
}

/// See [`use_in_place_of_files`].
pub struct InPlaceOfFiles(());

impl Drop for InPlaceOfFiles {
    fn drop(&mut self) {
        IN_PLACE_OF_FILES.set(None);
    }
}

impl<R: Ranged + ?Sized> Ranged for &R {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        (**self).read_at(buffer, at)
    }

    fn size(&self) -> io::Result<u64> {
        (**self).size()
    }
}

impl<R: Ranged + ?Sized> Ranged for Arc<R> {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        (**self).read_at(buffer, at)
    }

    fn size(&self) -> io::Result<u64> {
        (**self).size()
    }

    fn modified_ms(&self) -> Option<u64> {
        (**self).modified_ms()
    }
}

/// Reads from a place of its own, so that others can read or write meanwhile.
#[derive(Debug, Clone)]
pub struct Positioned<R> {
    of: R,
    at: u64,
}

impl<R: Ranged> Positioned<R> {
    /// A reader that begins at `at`.
    pub fn new(of: R, at: u64) -> Self {
        Self { of, at }
    }

    /// What is read.
    pub fn of(&self) -> &R {
        &self.of
    }
}

impl<R: Ranged> Read for Positioned<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.of.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl<R: Ranged> Seek for Positioned<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.of.size()?.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// Writes to the end of what is held.
pub struct Appending(pub Arc<dyn Held>);

impl Write for Appending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.append(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
