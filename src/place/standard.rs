//! Standard input and output. What is written there cannot be taken back; an archive's trailer says
//! that it is complete.

use std::fs::File;
use std::io::{self, IsTerminal, Seek};
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, major, minor};

use super::file::{InPlace, opened, target_of};
use super::store::{Access, Draft, Opened, Store, Target, in_place};
use crate::exit::{Usage, usage};
use crate::stop::Stop;

/// Standard input and output, under any name.
pub(super) struct StandardStreams;

impl Store for StandardStreams {
    fn open(&self, _name: &Path, stop: &Stop) -> Result<Opened> {
        open_stdin(stop)
    }

    fn create(&self, _name: &Path) -> Result<Box<dyn Draft>> {
        refuse_closed_stdout()?;
        Ok(Box::new(InPlace {
            file: stdout()?,
            name: "standard output".to_owned(),
        }))
    }

    fn target(&self, _name: &Path, access: Access) -> Option<Target> {
        let stream = match access {
            Access::Read => io::stdin().as_fd().try_clone_to_owned(),
            Access::Write => io::stdout().as_fd().try_clone_to_owned(),
        };
        target_of(&File::from(stream.ok()?).metadata().ok()?)
    }
}

/// Opens standard input, which must be no terminal.
fn open_stdin(stop: &Stop) -> Result<Opened> {
    let stdin = io::stdin();
    if is_closed(&stdin) {
        return Err(usage(
            "an archive is read from standard input, and that is closed (or is /dev/null, opened \
             for writing too); redirect it (< snap.rmz) or name the file",
        ));
    }
    if stdin.is_terminal() {
        return Err(usage(
            "an archive is read from standard input, and that is a terminal; redirect it \
             (< snap.rmz) or name the file",
        ));
    }
    let own = stdin.as_fd().try_clone_to_owned();
    let file = File::from(own.context("cannot open standard input")?);
    opened(file, "standard input", None, stop)
}

/// Standard output. The standard library's own handle looks for line ends in everything.
fn stdout() -> Result<File> {
    let own = io::stdout().as_fd().try_clone_to_owned();
    Ok(File::from(own.context("cannot open standard output")?))
}

/// Refuses a standard output that the user did not name and cannot mean: a terminal, or a file that
/// holds something already.
///
/// # Errors
/// [`Usage`]; the system's.
pub(super) fn refuse_unmeant_stdout() -> Result<()> {
    if in_place().is_some() {
        return Ok(());
    }
    refuse_closed_stdout()?;
    if io::stdout().is_terminal() {
        return Err(usage(
            "an archive is binary and standard output is a terminal; redirect it (> snap.rmz), or \
             name a file with -o (-o - writes to the terminal all the same)",
        ));
    }
    let mut file = stdout()?;
    if let Ok(metadata) = file.metadata()
        && metadata.is_file()
    {
        let at = file.stream_position().unwrap_or(0).max(metadata.len());
        if at > 0 {
            return Err(usage(format!(
                "standard output is a file that holds {at} bytes already; an archive must be alone \
                 in its file (redirect with >, not >>)"
            )));
        }
    }
    Ok(())
}

/// Whether a standard stream was closed when the program was started. Rust opens /dev/null in the
/// place of such a stream before `main`, for reading and writing; shells open it for one of them.
/// So a program that gives us /dev/null opened for both is mistaken for one that gives us nothing.
fn is_closed(stream: impl AsFd) -> bool {
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
