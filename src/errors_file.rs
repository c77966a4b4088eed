//! The file of `--errors-to`: a line for each key that failed.
//!
//! A run that goes on with an earlier one adds to the lines that this one wrote up to the place it
//! goes on from. So a file is not emptied before it is known whether the run goes on.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::exit::Usage;

/// How long a file was when all keys were named that had failed so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorsPlace {
    device: u64,
    inode: u64,
    bytes: u64,
}

/// The file.
#[derive(Debug)]
pub struct ErrorsFile {
    file: File,
    name: PathBuf,
    /// Whether what it held before this run is gone, as far as it is to go.
    is_begun: bool,
}

impl ErrorsFile {
    /// Opens or creates it, readable by its owner only. What it holds stays until
    /// [`ErrorsFile::begin_anew`], or until the first line is written.
    ///
    /// # Errors
    /// [`Usage`] where it cannot be written.
    pub fn open(name: &Path) -> Result<Self, Usage> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(name)
            .map_err(|error| {
                Usage(format!(
                    "cannot create the --errors-to file {name:?}: {error}"
                ))
            })?;
        // A pipe or a device holds nothing.
        let is_begun = !file.metadata().is_ok_and(|metadata| metadata.is_file());
        Ok(Self {
            file,
            name: name.to_owned(),
            is_begun,
        })
    }

    /// Its name.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// Empties it: this run names every key that fails.
    ///
    /// # Errors
    /// The system's.
    pub fn begin_anew(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.is_begun, true) {
            self.file.set_len(0)?;
            self.file.rewind()?;
        }
        Ok(())
    }

    /// Goes on at a place that an earlier run noted; false if this is not the file that it wrote to,
    /// or holds less. Then nothing was changed.
    ///
    /// # Errors
    /// The system's.
    pub fn go_on(&mut self, place: &ErrorsPlace) -> io::Result<bool> {
        let metadata = self.file.metadata()?;
        let is_same = (metadata.dev(), metadata.ino()) == (place.device, place.inode);
        if self.is_begun || !is_same || metadata.len() < place.bytes {
            return Ok(false);
        }
        self.file.set_len(place.bytes)?;
        self.file.seek(SeekFrom::Start(place.bytes))?;
        self.is_begun = true;
        Ok(true)
    }

    /// Where it is now; `None` for a pipe or a device.
    ///
    /// # Errors
    /// The system's.
    pub fn place(&mut self) -> io::Result<Option<ErrorsPlace>> {
        let metadata = self.file.metadata()?;
        if !metadata.is_file() {
            return Ok(None);
        }
        self.begin_anew()?;
        Ok(Some(ErrorsPlace {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: self.file.stream_position()?,
        }))
    }

    /// Writes a line, all of it at once.
    ///
    /// # Errors
    /// The system's.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        self.begin_anew()?;
        self.file.write_all(format!("{text}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(name: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(name).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_run_that_goes_on_adds_to_the_lines_up_to_its_place_and_any_other_begins_anew() {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().join("errors.jsonl");
        let mut file = ErrorsFile::open(&name).unwrap();
        file.line("one").unwrap();
        let place = file.place().unwrap().unwrap();
        // Behind the place; the run that goes on meets this key again.
        file.line("two").unwrap();
        drop(file);
        // Ended before it was known whether it goes on.
        drop(ErrorsFile::open(&name).unwrap());
        assert_eq!(lines(&name), ["one", "two"]);
        let mut file = ErrorsFile::open(&name).unwrap();
        assert!(file.go_on(&place).unwrap());
        assert_eq!(lines(&name), ["one"]);
        file.line("two again").unwrap();
        assert_eq!(lines(&name), ["one", "two again"]);
        // Another file of the same name, or one that was emptied.
        let other = directory.path().join("other");
        std::fs::write(&other, "long enough for the place\n").unwrap();
        assert!(!ErrorsFile::open(&other).unwrap().go_on(&place).unwrap());
        std::fs::write(&name, "").unwrap();
        assert!(!ErrorsFile::open(&name).unwrap().go_on(&place).unwrap());
        let mut file = ErrorsFile::open(&other).unwrap();
        file.begin_anew().unwrap();
        assert_eq!(lines(&other), [""; 0]);
        file.line("first").unwrap();
        assert_eq!(lines(&other), ["first"]);
        let mut null = ErrorsFile::open(Path::new("/dev/null")).unwrap();
        null.line("gone").unwrap();
        assert!(null.place().unwrap().is_none());
    }
}
