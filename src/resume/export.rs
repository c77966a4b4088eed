//! Going on with an export that was stopped: its partial file, and the journal beside it.
//!
//! The journal is written as the state of an import is: records with checksums, to which is only
//! added. Each says how long the partial file was when it held all that SCAN had given up to a
//! cursor. What stands behind the last such place is cut off by the run that goes on.

use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::rows::{put, take};
use crate::exit::usage;
use crate::place::place_of;
use crate::place::store::{Appending, Held, Identity, Positioned, files};
use crate::sink::journal::{Journal, Noted};

const MAGIC: &[u8; 8] = b"RMEXPRT1";

/// JSON of [`ExportBegin`].
const BEGIN: u8 = 1;
/// JSON of [`Noted`].
const NOTED: u8 = 2;
/// JSON of [`Identity`]: the partial file is complete, and is about to take its place.
const FINISHED: u8 = 3;

/// Of what makes an export the same.
pub const EXPORT_VERSION: u32 = 1;

/// Which export it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportBegin {
    /// [`EXPORT_VERSION`]; 0 for journals of before there was one.
    #[serde(default)]
    pub identity: u32,
    /// Of the tool.
    pub version: String,
    /// Digest of which keys, hex.
    pub selection: String,
    /// Digest of what is asked of the server, hex.
    pub reading: String,
    /// Digest of how the archive is written, hex.
    pub writing: String,
}

impl ExportBegin {
    fn differs_from(&self, now: &Self) -> Option<&'static str> {
        if self.identity != now.identity {
            return Some("another version of redis-migrate wrote it");
        }
        let pairs = [
            (
                &self.version,
                &now.version,
                "another version of redis-migrate wrote it",
            ),
            (
                &self.selection,
                &now.selection,
                "its selection was different",
            ),
            (
                &self.reading,
                &now.reading,
                "it was read in a different way",
            ),
            (
                &self.writing,
                &now.writing,
                "its --level, --verbatim, --no-check, --max-value or --label was different",
            ),
        ];
        let other = pairs.into_iter().find(|(then, now, _)| then != now);
        other.map(|(_, _, what)| what)
    }
}

/// What is known of an earlier run.
#[derive(Debug)]
pub enum Earlier {
    /// There was none.
    None,
    /// It came as far as this.
    Noted(Box<Noted>),
    /// It completed the archive, and was ended before it had removed its journal.
    Finished,
    /// It cannot be gone on with, and why.
    Useless(String),
}

/// The journal.
pub struct ExportJournal {
    file: Arc<dyn Held>,
    place: PathBuf,
    buffer: Vec<u8>,
}

impl Journal for ExportJournal {
    fn note(&mut self, noted: &Noted) -> Result<()> {
        self.buffer.clear();
        put(&mut self.buffer, NOTED, &serde_json::to_vec(noted)?);
        let written = self.file.append(&self.buffer);
        written.with_context(|| format!("cannot write {}", self.place.display()))
    }
}

/// The partial file, which nobody else writes to meanwhile.
pub struct Partial {
    file: Arc<dyn Held>,
    part: PathBuf,
    journal: PathBuf,
    place: PathBuf,
    /// The journal while it is ours: whoever is about to remove it keeps others from writing to it.
    locked: Option<Arc<dyn Held>>,
    /// How much of the journal is whole.
    journal_bytes: u64,
}

impl Partial {
    /// Opens or creates what stands beside `name` until the export is complete.
    ///
    /// # Errors
    /// [`Usage`](crate::exit::Usage) for a name that cannot be meant, a file that is not ours, or another run at work;
    /// the system's errors.
    pub fn open(name: &Path) -> Result<Self> {
        let place = place_of(name).with_context(|| format!("cannot create {}", name.display()))?;
        if place.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            return Err(usage(format!(
                "--resume needs a regular file, and {} is not one",
                name.display()
            )));
        }
        let [part, journal] = beside(&place);
        for path in [&part, &journal] {
            if let Ok(metadata) = path.symlink_metadata()
                && !metadata.is_file()
            {
                return Err(usage(format!("{} is not a regular file", path.display())));
            }
        }
        let file = files()
            .hold(&part, true, &busy(&part))?
            .with_context(|| format!("cannot create {}", part.display()))?;
        if file.size().unwrap_or(0) > 0 && files().identity(&journal).is_none() {
            return Err(not_ours(&part));
        }
        Ok(Self {
            file,
            part,
            journal,
            place,
            locked: None,
            journal_bytes: 0,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.part
    }

    /// How far an earlier run came with this very export.
    ///
    /// # Errors
    /// [`Usage`](crate::exit::Usage) for a journal that is none; the system's errors.
    pub fn earlier(&mut self, now: &ExportBegin) -> Result<Earlier> {
        let shown = self.journal.display().to_string();
        let Some(file) = files().hold(&self.journal, false, &busy(&self.journal))? else {
            return Ok(Earlier::None);
        };
        let file = self.locked.insert(file);
        let mut reader = BufReader::new(Positioned::new(&**file, 0));
        let mut magic = [0; MAGIC.len()];
        if reader.read_exact(&mut magic).is_err() || &magic != MAGIC {
            return Err(not_ours(&self.journal));
        }
        let (mut begin, mut noted) = (None::<ExportBegin>, None::<Noted>);
        let mut finished = None::<Identity>;
        let mut good = MAGIC.len() as u64;
        let mut body = Vec::new();
        while let Some((kind, len)) =
            take(&mut reader, &mut body).with_context(|| format!("cannot read {shown}"))?
        {
            match kind {
                BEGIN => begin = serde_json::from_slice(&body).ok(),
                NOTED => noted = serde_json::from_slice(&body).ok(),
                FINISHED => finished = serde_json::from_slice(&body).ok(),
                _ => {}
            }
            good += len;
        }
        self.journal_bytes = good;
        let written = self.file.identity();
        let written = written.with_context(|| format!("look at {}", self.part.display()))?;
        // It was renamed, and what stands under its name now is new.
        if let Some(finished) = finished
            && written != finished
        {
            return Ok(match files().identity(&self.place) == Some(finished) {
                true => Earlier::Finished,
                false => Earlier::Useless("it was finished, and moved away since".to_owned()),
            });
        }
        let Some(begin) = begin else {
            return Ok(Earlier::Useless("its journal is damaged".to_owned()));
        };
        if let Some(difference) = begin.differs_from(now) {
            return Ok(Earlier::Useless(difference.to_owned()));
        }
        Ok(match noted {
            Some(noted) if written.bytes < noted.bytes => {
                Earlier::Useless("it is not the file that its journal describes".to_owned())
            }
            Some(noted) => Earlier::Noted(Box::new(noted)),
            None => Earlier::Useless(
                "it was stopped before there was a place to continue from".to_owned(),
            ),
        })
    }

    /// The file from its beginning, to be checked.
    pub fn reader(&self) -> impl Read + use<> {
        BufReader::with_capacity(1 << 20, Positioned::new(Arc::clone(&self.file), 0))
    }

    /// The file to write to.
    pub fn writer(&self) -> Appending {
        Appending(Arc::clone(&self.file))
    }

    /// Cuts off what stands behind `noted`, and goes on there.
    ///
    /// # Errors
    /// The system's.
    pub fn go_on(&mut self, noted: &Noted) -> Result<ExportJournal> {
        self.cut(noted.bytes)?;
        let file = self.locked.clone();
        let file = file.ok_or_else(|| anyhow!("the journal was not read; this is a bug"))?;
        file.cut(self.journal_bytes)
            .with_context(|| format!("cannot write {}", self.journal.display()))?;
        Ok(self.journal_of(file))
    }

    /// Empties the file and begins a new journal, which is there before anything else is.
    ///
    /// # Errors
    /// The system's.
    pub fn begin(&mut self, begin: &ExportBegin) -> Result<ExportJournal> {
        let mut bytes = MAGIC.to_vec();
        put(&mut bytes, BEGIN, &serde_json::to_vec(begin)?);
        let file = files().hold_new(&self.journal, &bytes, true, &busy(&self.journal))?;
        self.locked = Some(Arc::clone(&file));
        self.cut(0)?;
        Ok(self.journal_of(file))
    }

    fn journal_of(&self, file: Arc<dyn Held>) -> ExportJournal {
        ExportJournal {
            file,
            place: self.journal.clone(),
            buffer: Vec::new(),
        }
    }

    fn cut(&self, bytes: u64) -> Result<()> {
        let cut = self.file.cut(bytes);
        cut.with_context(|| format!("cannot write {}", self.part.display()))
    }

    /// The archive is complete: it takes its place, and there is nothing to go on with.
    ///
    /// # Errors
    /// The system's.
    pub fn commit(&self) -> Result<()> {
        self.take_place()?;
        let removed = self
            .locked
            .as_ref()
            .map_or(Ok(()), |journal| journal.remove());
        removed.with_context(|| format!("cannot remove {}", self.journal.display()))
    }

    /// Renames the archive, and the journal says so beforehand: it may be left behind.
    fn take_place(&self) -> Result<()> {
        let shown = self.place.display();
        if files().identity(&self.part) != self.file.identity().ok() {
            return Err(anyhow!(
                "{} was removed or replaced while this export wrote to it, so the archive cannot \
                 get its name, {shown}; run the export again",
                self.part.display()
            ));
        }
        self.file
            .sync()
            .with_context(|| format!("cannot sync {}", self.part.display()))?;
        let note = || -> Result<()> {
            let mut bytes = Vec::new();
            let finished = serde_json::to_vec(&self.file.identity()?)?;
            put(&mut bytes, FINISHED, &finished);
            let journal = self.locked.as_ref();
            let journal = journal.ok_or_else(|| anyhow!("it was not begun; this is a bug"))?;
            journal.append(&bytes)?;
            Ok(journal.sync()?)
        };
        note().with_context(|| format!("cannot write {}", self.journal.display()))?;
        self.file.rename(&self.place)
    }
}

/// What is said where another run has the file.
fn busy(place: &Path) -> String {
    format!("another export is writing {}", place.display())
}

fn not_ours(place: &Path) -> anyhow::Error {
    let place = place.display();
    usage(format!(
        "{place} was not left by export --resume; move it away"
    ))
}

/// What stands beside an archive until it is complete: the partial file, and its journal.
///
/// # Errors
/// Those of following the links that `name` may be.
pub fn files_beside(name: &Path) -> io::Result<[PathBuf; 2]> {
    Ok(beside(&place_of(name)?))
}

fn beside(place: &Path) -> [PathBuf; 2] {
    [".part", ".part.state"].map(|ending| {
        let mut name = place.to_owned().into_os_string();
        name.push(ending);
        PathBuf::from(name)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::record::Checkpoint;
    use crate::sink::journal::Taken;

    fn begin() -> ExportBegin {
        ExportBegin {
            identity: EXPORT_VERSION,
            version: "1".to_owned(),
            selection: String::new(),
            reading: String::new(),
            writing: String::new(),
        }
    }

    fn noted(bytes: u64) -> Noted {
        Noted {
            bytes,
            archive_id: 1,
            checkpoint: Checkpoint::default(),
            taken: Taken::default(),
            errors: None,
        }
    }

    /// Writes a whole archive, and is killed once it has its place.
    fn killed_at_the_end(name: &Path) {
        let mut partial = Partial::open(name).unwrap();
        let mut journal = partial.begin(&begin()).unwrap();
        partial.writer().write_all(b"archive").unwrap();
        journal.note(&noted(4)).unwrap();
        partial.take_place().unwrap();
    }

    #[test]
    fn a_finished_archive_is_known_by_the_journal_that_was_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().join("x.rmz");
        let files = || std::fs::read_dir(directory.path()).unwrap().count();
        killed_at_the_end(&name);
        assert_eq!(
            (std::fs::read(&name).unwrap(), files()),
            (b"archive".to_vec(), 2)
        );
        let mut partial = Partial::open(&name).unwrap();
        let earlier = partial.earlier(&begin()).unwrap();
        assert!(matches!(earlier, Earlier::Finished), "{earlier:?}");
        // The next export leaves nothing behind.
        partial.begin(&begin()).unwrap();
        partial.writer().write_all(b"newer").unwrap();
        partial.commit().unwrap();
        assert_eq!(
            (std::fs::read(&name).unwrap(), files()),
            (b"newer".to_vec(), 1)
        );
        // Moved away, and another file of the same name.
        killed_at_the_end(&name);
        std::fs::remove_file(&name).unwrap();
        std::fs::write(&name, "another file").unwrap();
        let earlier = Partial::open(&name).unwrap().earlier(&begin()).unwrap();
        assert!(
            matches!(&earlier, Earlier::Useless(why) if why.contains("moved")),
            "{earlier:?}"
        );
    }

    #[test]
    fn a_journal_whose_partial_file_is_gone_is_not_gone_on_with() {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().join("x.rmz");
        let mut partial = Partial::open(&name).unwrap();
        let mut journal = partial.begin(&begin()).unwrap();
        journal.note(&noted(4)).unwrap();
        std::fs::remove_file(partial.path()).unwrap();
        drop((partial, journal));
        let earlier = Partial::open(&name).unwrap().earlier(&begin()).unwrap();
        assert!(matches!(earlier, Earlier::Useless(_)), "{earlier:?}");
        // Finished, and killed before it got its name.
        let mut partial = Partial::open(&name).unwrap();
        let mut journal = partial.begin(&begin()).unwrap();
        partial.writer().write_all(b"archive").unwrap();
        journal.note(&noted(4)).unwrap();
        let finished = partial.file.identity().unwrap();
        let mut bytes = Vec::new();
        put(
            &mut bytes,
            FINISHED,
            &serde_json::to_vec(&finished).unwrap(),
        );
        journal.file.append(&bytes).unwrap();
        drop((partial, journal));
        let earlier = Partial::open(&name).unwrap().earlier(&begin()).unwrap();
        assert!(matches!(earlier, Earlier::Noted(_)), "{earlier:?}");
    }

    #[test]
    fn only_the_file_that_was_written_gets_the_name() {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().join("x.rmz");
        let mut first = Partial::open(&name).unwrap();
        let journal = first.begin(&begin()).unwrap();
        first.writer().write_all(b"whole").unwrap();
        let error = Partial::open(&name).err().unwrap();
        assert!(error.to_string().contains("another export"), "{error}");
        // Removed by hand while it is written to: the journal is still the first run's.
        std::fs::remove_file(first.path()).unwrap();
        let mut second = Partial::open(&name).unwrap();
        let error = second.earlier(&begin()).unwrap_err();
        assert!(error.to_string().contains("another export"), "{error}");
        std::fs::write(first.path(), "half").unwrap();
        let error = first.commit().unwrap_err();
        assert!(error.to_string().contains("removed or replaced"), "{error}");
        assert!(!name.exists());
        assert_eq!(std::fs::read(first.path()).unwrap(), b"half");
        drop((first, journal, second));
        Partial::open(&name).unwrap().earlier(&begin()).unwrap();
    }
}
