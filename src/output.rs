//! Where an archive is written to.
//!
//! A file appears under its name only when it is complete: it is written beside its place,
//! readable by its owner only, synced, and then renamed. Dropped before
//! [`ArchiveOutput::commit`], it leaves nothing. Standard output cannot be taken back; there the
//! archive's trailer says that it is complete.
//!
//! A name that is a symbolic link means the file that it points to, whether that file exists or
//! not: the link stays a link.

mod apart;

use std::fs::File;
use std::io::{self, IsTerminal, Seek, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, major, minor};
use tempfile::NamedTempFile;

pub use self::apart::{Holds, Reading, Writing, keep_apart, overwritten};
use crate::exit::Usage;

/// Receives an archive.
#[derive(Debug)]
pub struct ArchiveOutput {
    out: Out,
    name: String,
}

#[derive(Debug)]
enum Out {
    /// A regular file, beside its place.
    Temporary { file: NamedTempFile, place: PathBuf },
    /// Standard output, or a device or pipe that was named: no renaming there.
    Direct(File),
}

impl ArchiveOutput {
    /// Opens what `-o` names. Without a name it is standard output, which must be no terminal and
    /// no file that holds something already; with `-` it is standard output whatever it is.
    ///
    /// # Errors
    /// [`Usage`] for an output that cannot be meant; the system's errors.
    pub fn open(name: Option<&Path>) -> Result<Self> {
        match name {
            None => Self::stdout(false),
            Some(name) if name.as_os_str() == "-" => Self::stdout(true),
            Some(name) => Self::file(name),
        }
    }

    fn stdout(forced: bool) -> Result<Self> {
        let stdout = io::stdout();
        refuse_closed_stdout()?;
        if !forced && stdout.is_terminal() {
            return Err(Usage(
                "an archive is binary and standard output is a terminal; redirect it \
                 (> snap.rmz), or name a file with -o (-o - writes to the terminal all the same)"
                    .to_owned(),
            )
            .into());
        }
        // The standard library's own handle looks for line ends in everything.
        let mut file = File::from(
            stdout
                .as_fd()
                .try_clone_to_owned()
                .context("open standard output")?,
        );
        if !forced
            && let Ok(metadata) = file.metadata()
            && metadata.is_file()
        {
            let at = file.stream_position().unwrap_or(0).max(metadata.len());
            if at > 0 {
                return Err(Usage(format!(
                    "standard output is a file that holds {at} bytes already; an archive stands \
                     alone in its file (redirect with >, not >>)"
                ))
                .into());
            }
        }
        Ok(Self {
            out: Out::Direct(file),
            name: "standard output".to_owned(),
        })
    }

    fn file(name: &Path) -> Result<Self> {
        let shown = format!("{}", name.display());
        let place = place_of(name).with_context(|| format!("create {shown}"))?;
        match place.metadata() {
            Ok(metadata) if metadata.is_dir() => {
                return Err(Usage(format!("{shown} is a directory")).into());
            }
            Ok(metadata) if !metadata.is_file() => {
                let file = File::options()
                    .write(true)
                    .open(&place)
                    .with_context(|| format!("open {shown}"))?;
                return Ok(Self {
                    out: Out::Direct(file),
                    name: shown,
                });
            }
            _ => {}
        }
        let directory = directory_of(&place);
        if !directory.is_dir() {
            let directory = directory.display();
            return Err(Usage(format!(
                "cannot create {shown}: there is no directory {directory}"
            ))
            .into());
        }
        let file = tempfile::Builder::new()
            .prefix(".redis-migrate-")
            .suffix(".part")
            .tempfile_in(directory)
            .map_err(without_path)
            .with_context(|| format!("create {shown} (a temporary file beside it)"))?;
        Ok(Self {
            out: Out::Temporary { file, place },
            name: shown,
        })
    }

    /// The output's name, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the archive goes to standard output or to a device, where data meant for it must
    /// not be mixed with anything else.
    pub fn is_stream(&self) -> bool {
        matches!(self.out, Out::Direct(_))
    }

    /// Completes the output: everything is on the disk, under its name.
    ///
    /// # Errors
    /// The system's; then the file is not there.
    pub fn commit(self) -> Result<()> {
        let name = self.name;
        match self.out {
            Out::Direct(mut file) => {
                file.flush().with_context(|| format!("write {name}"))?;
                // Pipes, sockets and terminals cannot be synced; a file can, and reports a full
                // disk now if it did not before.
                if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
                    file.sync_all().with_context(|| format!("sync {name}"))?;
                }
            }
            Out::Temporary { mut file, place } => {
                file.flush().with_context(|| format!("write {name}"))?;
                file.as_file()
                    .sync_all()
                    .with_context(|| format!("sync {name}"))?;
                file.persist(&place)
                    .map_err(|error| error.error)
                    .with_context(|| format!("rename the finished archive to {name}"))?;
                let directory = directory_of(&place);
                File::open(directory)
                    .and_then(|directory| directory.sync_all())
                    .with_context(|| format!("sync the directory of {name}"))?;
            }
        }
        Ok(())
    }
}

/// Whether a standard stream was closed when the program was started. Rust opens /dev/null in the
/// place of such a stream before `main`, for reading and writing; shells open it for one of them.
/// So a program that gives us /dev/null opened for both is mistaken for one that gives us nothing.
pub fn is_closed(stream: impl AsFd) -> bool {
    let (Ok(stat), Ok(flags)) = (fstat(&stream), fcntl_getfl(&stream)) else {
        return true;
    };
    let device = (major(stat.st_rdev), minor(stat.st_rdev));
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && device == (1, 3)
        && flags.contains(OFlags::RDWR)
}

/// Refuses a standard output that nobody gets, where an archive or other data is to go there. What is
/// only printed is not worth a refusal: a program that throws our output away opens /dev/null for
/// reading and writing, too, and that looks the same.
///
/// # Errors
/// [`Usage`].
pub fn refuse_closed_stdout() -> Result<(), Usage> {
    if is_closed(io::stdout()) {
        return Err(Usage(
            "standard output is closed (or is /dev/null, opened for reading too), and what is \
             written there would be lost; redirect it with > (to /dev/null to throw it away), or \
             name a file with -o where the verb takes one"
                .to_owned(),
        ));
    }
    Ok(())
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

fn directory_of(place: &Path) -> &Path {
    match place.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

impl Write for ArchiveOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.out {
            Out::Temporary { file, .. } => file.write(bytes),
            Out::Direct(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.out {
            Out::Temporary { file, .. } => file.flush(),
            Out::Direct(file) => file.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

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
        let mut output = ArchiveOutput::open(Some(&place)).expect("opens");
        output.write_all(b"half").expect("writes");
        assert!(!place.exists());
        drop(output);
        assert_eq!(names(directory.path()), [""; 0]);
        let mut output = ArchiveOutput::open(Some(&place)).expect("opens");
        output.write_all(b"whole").expect("writes");
        output.commit().expect("commits");
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
        drop(ArchiveOutput::open(Some(&link)).expect("opens"));
        assert_eq!(std::fs::read(&place).expect("readable"), b"old");
        let mut output = ArchiveOutput::open(Some(&link)).expect("opens");
        output.write_all(b"new").expect("writes");
        output.commit().expect("commits");
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&place).expect("readable"), b"new");
    }

    #[test]
    fn devices_are_written_in_place() {
        let mut output = ArchiveOutput::open(Some(Path::new("/dev/null"))).expect("opens");
        output.write_all(b"gone").expect("writes");
        output.commit().expect("commits");
        assert!(
            !Path::new("/dev/null")
                .metadata()
                .expect("metadata")
                .is_file()
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let directory = tempfile::tempdir().expect("tempdir");
        assert!(ArchiveOutput::open(Some(directory.path())).is_err());
        assert!(ArchiveOutput::open(Some(&directory.path().join("no/file"))).is_err());
    }
}
