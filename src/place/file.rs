//! Files.
//!
//! A file appears under its name only when it is complete: it is written beside its place, readable by
//! its owner only, synced, and then renamed. A name that is a symbolic link means the file that it
//! points to, whether that file exists or not: the link stays a link. Devices and pipes that are named
//! are written in place.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tempfile::NamedTempFile;

use super::store::{Access, Draft, Held, Identity, Opened, Ranged, Store, Target};
use crate::endpoint::is_host_and_port;
use crate::exit::{Interrupted, Usage, usage};
use crate::stop::Stop;

/// The file system.
#[derive(Debug, Clone, Copy)]
pub struct FileStore;

impl Store for FileStore {
    fn open(&self, name: &Path, stop: &Stop) -> Result<Opened> {
        let shown = name.display().to_string();
        let file = File::open(name).map_err(|error| cannot_open(&shown, &error))?;
        let modified = file.metadata().and_then(|metadata| metadata.modified());
        let since = modified
            .ok()
            .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let modified_ms = since.and_then(|since| u64::try_from(since.as_millis()).ok());
        opened(file, &shown, modified_ms, stop)
    }

    fn create(&self, name: &Path) -> Result<Box<dyn Draft>> {
        let shown = name.display().to_string();
        let place = place_of(name).with_context(|| format!("cannot create {shown}"))?;
        match place.metadata() {
            Ok(metadata) if metadata.is_dir() => {
                return Err(usage(format!("{shown} is a directory")));
            }
            Ok(metadata) if !metadata.is_file() => {
                let file = File::options().write(true).open(&place);
                return Ok(Box::new(InPlace {
                    file: file.with_context(|| format!("cannot open {shown}"))?,
                    name: shown,
                }));
            }
            _ => {}
        }
        let directory = directory_of(&place);
        if !directory.is_dir() {
            let directory = directory.display();
            return Err(usage(format!(
                "cannot create {shown}: there is no directory {directory}"
            )));
        }
        let file = tempfile::Builder::new()
            .prefix(".redis-migrate-")
            .suffix(".part")
            .tempfile_in(directory)
            .map_err(without_path)
            .with_context(|| format!("cannot create {shown} (a temporary file beside it)"))?;
        Ok(Box::new(Beside {
            file,
            place,
            name: shown,
        }))
    }

    fn hold(&self, name: &Path, create: bool, busy: &str) -> Result<Option<Arc<dyn Held>>> {
        let Some(file) = open_alone(name, create, busy, || {})? else {
            return Ok(None);
        };
        // What holds something was made so by the run that wrote it.
        if create && file.size().unwrap_or(0) == 0 {
            file.set_permissions(Permissions::from_mode(0o600))
                .with_context(|| format!("cannot protect {}", name.display()))?;
        }
        Ok(Some(HeldFile::shared(file, name)))
    }

    fn hold_new(
        &self,
        name: &Path,
        bytes: &[u8],
        replaces: bool,
        busy: &str,
    ) -> Result<Arc<dyn Held>> {
        let shown = name.display();
        let mut file = NamedTempFile::new_in(directory_of(name))
            .with_context(|| format!("cannot create {shown}"))?;
        file.write_all(bytes)
            .and_then(|()| file.as_file().sync_all())
            .with_context(|| format!("cannot write {shown}"))?;
        lock(file.as_file(), busy)?;
        let file = match replaces {
            true => file.persist(name),
            false => file.persist_noclobber(name),
        };
        let file = file
            .map_err(|error| error.error)
            .with_context(|| format!("cannot create {shown}"))?;
        Ok(HeldFile::shared(file, name))
    }

    fn identity(&self, name: &Path) -> Option<Identity> {
        name.metadata().ok().map(|metadata| identity(&metadata))
    }

    fn target(&self, name: &Path, _access: Access) -> Option<Target> {
        let place = place_of(name).ok()?;
        if let Ok(metadata) = place.metadata() {
            return target_of(&metadata);
        }
        let directory = directory_of(&place).metadata().ok()?;
        let name = place.file_name()?.to_owned();
        Some(Target::New(directory.dev(), directory.ino(), name))
    }
}

/// What is there; `None` for devices, pipes and terminals, which lose nothing when they are written to.
pub(super) fn target_of(metadata: &Metadata) -> Option<Target> {
    metadata
        .is_file()
        .then(|| Target::File(metadata.dev(), metadata.ino()))
}

fn identity(metadata: &Metadata) -> Identity {
    Identity {
        device: metadata.dev(),
        inode: metadata.ino(),
        bytes: metadata.len(),
    }
}

/// It may have been meant as a URL, also with a password in it.
fn cannot_open(shown: &str, error: &io::Error) -> Usage {
    let is_absent = error.kind() == io::ErrorKind::NotFound;
    let hint = match is_absent && !shown.contains(['/', '@']) {
        true if is_host_and_port(shown) => {
            format!("; did you mean redis://{shown}? (rediss:// for TLS)")
        }
        true if !shown.contains('.') => {
            "; write a server as a URL, such as redis://host:port".to_owned()
        }
        _ => String::new(),
    };
    let shown = if shown.contains('@') { "it" } else { shown };
    Usage(format!("cannot open {shown} to read it: {error}{hint}"))
}

/// What was opened, from where it stands: standard input may have been read before.
pub(super) fn opened(
    mut file: File,
    shown: &str,
    modified_ms: Option<u64>,
    stop: &Stop,
) -> Result<Opened> {
    let metadata = file
        .metadata()
        .with_context(|| format!("cannot open {shown}"))?;
    if metadata.is_dir() {
        return Err(usage(format!("{shown} is a directory")));
    }
    if !metadata.is_file() {
        let stop = stop.clone();
        return Ok(Opened::Stream(Box::new(Pipe { file, stop })));
    }
    Ok(Opened::Ranged(Arc::new(FileBytes {
        start: file.stream_position().unwrap_or(0),
        modified_ms,
        file,
    })))
}

/// A file from `start` on.
struct FileBytes {
    file: File,
    start: u64,
    modified_ms: Option<u64>,
}

impl Ranged for FileBytes {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        FileExt::read_at(&self.file, buffer, self.start + at)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.file.size()?.saturating_sub(self.start))
    }

    fn modified_ms(&self) -> Option<u64> {
        self.modified_ms
    }
}

impl Ranged for File {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, at)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

/// Bytes that come once. A wish to stop ends the waiting for them.
struct Pipe {
    file: File,
    stop: Stop,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        const LISTEN_EVERY: Timespec = Timespec {
            tv_sec: 0,
            tv_nsec: 250_000_000,
        };
        loop {
            let mut files = [PollFd::new(&self.file, PollFlags::IN)];
            match poll(&mut files, Some(&LISTEN_EVERY)) {
                Ok(0) | Err(Errno::INTR) if self.stop.is_set() => {
                    return Err(io::Error::other(Interrupted));
                }
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return self.file.read(buffer),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A regular file, written beside its place.
struct Beside {
    file: NamedTempFile,
    place: PathBuf,
    name: String,
}

impl Draft for Beside {
    fn publish(self: Box<Self>) -> Result<()> {
        let Self { file, place, name } = *self;
        file.as_file()
            .sync_all()
            .with_context(|| format!("cannot sync {name}"))?;
        file.persist(&place)
            .map_err(|error| error.error)
            .with_context(|| format!("cannot rename the finished file to {name}"))?;
        sync_directory_of(&place).with_context(|| format!("cannot sync the directory of {name}"))
    }
}

impl Write for Beside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A standard stream, a device or a pipe: no renaming there.
pub(super) struct InPlace {
    pub file: File,
    pub name: String,
}

impl Draft for InPlace {
    fn publish(mut self: Box<Self>) -> Result<()> {
        let name = &self.name;
        self.file
            .flush()
            .with_context(|| format!("cannot write {name}"))?;
        // Pipes, sockets and terminals cannot be synced; a file can, and reports a full disk now if
        // it did not before.
        if self
            .file
            .metadata()
            .is_ok_and(|metadata| metadata.is_file())
        {
            let synced = self.file.sync_all();
            synced.with_context(|| format!("cannot sync {name}"))?;
        }
        Ok(())
    }
}

impl Write for InPlace {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A file with a lock.
struct HeldFile {
    file: File,
    name: Mutex<PathBuf>,
}

impl HeldFile {
    fn shared(file: File, name: &Path) -> Arc<dyn Held> {
        let name = Mutex::new(name.to_owned());
        Arc::new(Self { file, name })
    }

    fn name(&self) -> PathBuf {
        self.name
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Ranged for HeldFile {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        Ranged::read_at(&self.file, buffer, at)
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
}

impl Held for HeldFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.file).write_all(bytes)
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)?;
        (&self.file).seek(SeekFrom::Start(bytes)).map(drop)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn identity(&self) -> io::Result<Identity> {
        Ok(identity(&self.file.metadata()?))
    }

    fn rename(&self, name: &Path) -> Result<()> {
        let shown = name.display();
        let old = self.name();
        std::fs::rename(old, name)
            .with_context(|| format!("cannot rename the finished file to {shown}"))?;
        name.clone_into(&mut self.name.lock().unwrap_or_else(PoisonError::into_inner));
        sync_directory_of(name).with_context(|| format!("cannot sync the directory of {shown}"))
    }

    fn remove(&self) -> io::Result<()> {
        std::fs::remove_file(self.name())
    }
}

/// Opens the file at `place` to read and write, and locks it: what is given is the file that has that
/// name now. A lock is worth something only while the file still has its name, and the run that had it
/// before may rename or remove it between our opening and our locking. `opened` is called each time
/// between the two.
fn open_alone(
    place: &Path,
    create: bool,
    busy: &str,
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
            file => file.with_context(|| format!("cannot open {}", place.display()))?,
        };
        opened();
        lock(&file, busy)?;
        let has_name = |now: Metadata| {
            let ours = file.metadata();
            ours.is_ok_and(|ours| (ours.dev(), ours.ino()) == (now.dev(), now.ino()))
        };
        if place.metadata().is_ok_and(has_name) {
            return Ok(Some(file));
        }
    }
}

/// Two runs would undo each other's work.
fn lock(file: &File, busy: &str) -> Result<(), Usage> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Err(Usage(busy.to_owned())),
        // Where the file system knows no locks.
        _ => Ok(()),
    }
}

/// The error alone: the name of a temporary file would only mislead.
fn without_path(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => error.kind().into(),
    }
}

/// The file that `name` means: where a symbolic link points, followed to its end, also when nothing
/// is there yet.
///
/// # Errors
/// The system's; a circle of links.
pub fn place_of(name: &Path) -> io::Result<PathBuf> {
    /// As many as Linux follows.
    const MOST_LINKS: usize = 40;
    let mut place = name.to_owned();
    for _ in 0..MOST_LINKS {
        match place.symlink_metadata() {
            Ok(metadata) if metadata.is_symlink() => {
                let target = std::fs::read_link(&place)?;
                place = directory_of(&place).join(target);
            }
            _ => return Ok(place),
        }
    }
    Err(io::Error::other("too many symbolic links in a row"))
}

/// The directory that a file is in.
pub fn directory_of(place: &Path) -> &Path {
    match place.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn sync_directory_of(place: &Path) -> io::Result<()> {
    File::open(directory_of(place))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(directory)
            .expect("readable")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_only_when_it_is_complete() {
        let directory = tempfile::tempdir().expect("tempdir");
        let place = directory.path().join("snap.rmz");
        let mut output = FileStore.create(&place).expect("opens");
        output.write_all(b"half").expect("writes");
        assert!(!place.exists());
        drop(output);
        assert_eq!(names(directory.path()), [""; 0]);
        let mut output = FileStore.create(&place).expect("opens");
        output.write_all(b"whole").expect("writes");
        output.publish().expect("publishes");
        assert_eq!(names(directory.path()), ["snap.rmz"]);
        assert_eq!(std::fs::read(&place).expect("readable"), b"whole");
        let mode = place.metadata().expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn an_abandoned_run_leaves_the_old_file_and_a_link_stays_a_link() {
        let directory = tempfile::tempdir().expect("tempdir");
        let (place, link) = (directory.path().join("real"), directory.path().join("link"));
        std::fs::write(&place, "old").expect("written");
        std::os::unix::fs::symlink("real", &link).expect("linked");
        drop(FileStore.create(&link).expect("opens"));
        assert_eq!(std::fs::read(&place).expect("readable"), b"old");
        let mut output = FileStore.create(&link).expect("opens");
        output.write_all(b"new").expect("writes");
        output.publish().expect("publishes");
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&place).expect("readable"), b"new");
    }

    #[test]
    fn devices_are_written_in_place() {
        let null = Path::new("/dev/null");
        let mut output = FileStore.create(null).expect("opens");
        output.write_all(b"gone").expect("writes");
        output.publish().expect("publishes");
        assert!(!null.metadata().expect("metadata").is_file());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let directory = tempfile::tempdir().expect("tempdir");
        assert!(FileStore.create(directory.path()).is_err());
        assert!(FileStore.create(&directory.path().join("no/file")).is_err());
        let open = |name: &Path| FileStore.open(name, &Stop::new()).err().expect("refused");
        assert!(open(directory.path()).is::<Usage>());
        assert!(open(Path::new("/no/such/file")).is::<Usage>());
        let secret = open(Path::new("u:hunter2@h")).to_string();
        assert!(!secret.contains("hunter2"), "{secret}");
        for server in ["localhost:6379", "localhost"] {
            let error = open(Path::new(server)).to_string();
            assert!(error.contains("redis://"), "{error}");
        }
    }

    #[test]
    fn a_file_that_was_renamed_or_removed_before_it_was_locked_is_not_taken_for_the_one_of_that_name()
     {
        let directory = tempfile::tempdir().unwrap();
        let (part, done) = (directory.path().join("part"), directory.path().join("done"));
        std::fs::write(&part, "whole").unwrap();
        let mut once = Some(());
        let file = open_alone(&part, true, "busy", || {
            if once.take().is_some() {
                std::fs::rename(&part, &done).unwrap();
            }
        });
        let file = file.unwrap().unwrap();
        file.set_len(0).unwrap();
        assert_eq!(std::fs::read(&part).unwrap(), b"");
        assert_eq!(std::fs::read(&done).unwrap(), b"whole");
        let error = FileStore.hold(&part, true, "busy").err().unwrap();
        assert!(
            error.is::<Usage>() && error.to_string() == "busy",
            "{error}"
        );
        drop(file);
        let removed = open_alone(&part, false, "busy", || {
            std::fs::remove_file(&part).unwrap();
        });
        assert!(removed.unwrap().is_none() && !part.exists());
    }
}
