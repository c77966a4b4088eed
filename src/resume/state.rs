//! The state file: a row of records, each with its checksum, to which is only added. What a kill
//! left half written at its end is cut off.
//!
//! ```text
//! magic · *( length of body: u32 · kind: u8 · body · CRC-64 of kind and body )
//! ```
//! Numbers are little-endian. The file is the importing machine's own and never travels.

use std::collections::BTreeSet;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::rows::{MAX_BODY, mark_bytes, mark_of, put, put_all, take};
use super::witness::{Noted, Witness};
use crate::errors_file::ErrorsPlace;
use crate::exit::usage;
use crate::host;
use crate::own_writes::{Fingerprint, OwnWrites};
use crate::place::store::{Held, Positioned, files};
use crate::record::Mark;
use crate::sink::server::held::HeldConflict;

const MAGIC: &[u8; 8] = b"RMSTATE1";

/// JSON of [`Begin`].
const BEGIN: u8 = 1;
/// A mark: what is before it may have been sent.
const SENDING: u8 = 2;
/// A mark and the number of failed keys so far: what is before it was answered.
const SETTLED: u8 = 3;
/// Fingerprints of keys that were written.
const OWN: u8 = 4;
/// JSON of the processes (`run_id`, null for one that does not say) that the import spoke to so far.
const PROCESSES: u8 = 5;
/// [`Witness`]es, one after the other.
const WITNESSES: u8 = 6;
/// [`HeldConflict`]s, one after the other.
const HELD: u8 = 7;
/// A process that had acknowledged something was started anew, or replaced.
const FORGOTTEN: u8 = 8;
/// JSON of [`ErrorsPlace`]: which keys that failed are named before it in the --errors-to file.
const ERRORS: u8 = 9;

/// Of what a state holds, and of what makes an import the same. Another one is refused.
pub const VERSION: u32 = 3;

/// How often the disk is told to keep it. A kill loses nothing in between, a power cut may.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// One archive of an import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its id, hex.
    pub id: String,
    /// The digest in its END, hex; unknown of a pipe.
    pub sha256: Option<String>,
}

/// Which import it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Of the state.
    #[serde(default)]
    pub version: u32,
    /// The archives, in their order.
    pub parts: Vec<Part>,
    /// Where to: host, port and database, nothing secret.
    pub destination: String,
    /// Digest of every argument that decides what is written, hex.
    pub arguments: String,
    /// The moment from which `--ttl rebase` counts, destination's clock, Unix ms.
    pub base_now_ms: u64,
    /// Of the fingerprints.
    pub hash_keys: (u64, u64),
}

impl Begin {
    /// For a file name.
    pub fn destination_digest(&self) -> [u8; 32] {
        Sha256::digest(self.destination.as_bytes()).into()
    }

    /// In what it is another import than `now`.
    pub fn differs_from(&self, now: &Begin) -> Option<&'static str> {
        let same_part = |(one, other): (&Part, &Part)| {
            one.id == other.id
                && (one.sha256.is_none() || other.sha256.is_none() || one.sha256 == other.sha256)
        };
        if self.parts.len() != now.parts.len() || !self.parts.iter().zip(&now.parts).all(same_part)
        {
            return Some("its archives are different");
        }
        if self.destination != now.destination {
            return Some("its destination is different");
        }
        (self.arguments != now.arguments)
            .then_some("its arguments (selection, conflicts, names, expiry, …) were different")
    }
}

/// What is new since the last time something was settled.
#[derive(Debug, Default)]
pub struct News {
    /// Keys that failed so far, held ones aside.
    pub failed: u64,
    /// Key and tombstone records before the mark.
    pub records: u64,
    /// Keys that were written.
    pub own: Vec<Fingerprint>,
    /// Keys that were acknowledged.
    pub witnesses: Vec<Witness>,
    /// Conflicts that are judged at the end.
    pub held: Vec<HeldConflict>,
    /// Where in the `--errors-to` file those that failed are named, if there is one.
    pub errors: Option<ErrorsPlace>,
}

/// How far an import has come, and its file.
pub struct State {
    file: Arc<dyn Held>,
    place: PathBuf,
    synced: Instant,
    /// Which import.
    pub begin: Begin,
    /// Everything before this was answered.
    pub settled: Mark,
    /// Nothing from here on was sent.
    pub sending: Mark,
    /// Keys that failed, as counted when `settled` was written.
    pub failed: u64,
    /// Key and tombstone records before `settled`.
    pub records: u64,
    /// Keys that were written, where that matters.
    pub own: OwnWrites,
    /// The processes that it spoke to; `None` before it spoke to any.
    pub processes: Option<BTreeSet<Option<String>>>,
    /// Keys that were acknowledged.
    pub witnesses: Noted,
    /// One of the processes lost its memory while the import ran.
    pub is_forgotten: bool,
    /// Where in an `--errors-to` file the keys are named that failed.
    pub errors: Option<ErrorsPlace>,
    /// Where in the file conflicts are that were held: offset and length.
    held: Vec<(u64, u64)>,
    buffer: Vec<u8>,
}

impl State {
    /// Begins a new state where there is none: the file appears complete, readable by its owner only.
    ///
    /// # Errors
    /// [`Usage`](crate::exit::Usage) where another import has begun one meanwhile; the system's.
    pub fn create(place: &Path, begin: Begin) -> Result<Self> {
        Self::begin(place, begin, false)
    }

    /// Begins a new state in place of this one, which stays locked until the new one is.
    ///
    /// # Errors
    /// The system's.
    pub fn begin_anew(self, begin: Begin) -> Result<Self> {
        Self::begin(&self.place, begin, true)
    }

    fn begin(place: &Path, begin: Begin, replaces: bool) -> Result<Self> {
        let mut bytes = MAGIC.to_vec();
        put(&mut bytes, BEGIN, &serde_json::to_vec(&begin)?);
        let file = files().hold_new(place, &bytes, replaces, &busy(place))?;
        let own = OwnWrites::with_hash_keys(begin.hash_keys);
        Ok(Self::new(file, place, begin, own))
    }

    fn new(file: Arc<dyn Held>, place: &Path, begin: Begin, own: OwnWrites) -> Self {
        Self {
            file,
            place: place.to_owned(),
            synced: host::now(),
            begin,
            settled: Mark::default(),
            sending: Mark::default(),
            failed: 0,
            records: 0,
            own,
            processes: None,
            witnesses: Noted::default(),
            is_forgotten: false,
            errors: None,
            held: Vec::new(),
            buffer: Vec::new(),
        }
    }

    /// Reads a state; `None` if there is none. One that was not begun completely is removed.
    ///
    /// # Errors
    /// [`Usage`](crate::exit::Usage) for a file of another kind; the system's errors.
    pub fn load(place: &Path) -> Result<Option<Self>> {
        refuse_special(place)?;
        let Some(file) = files().hold(place, false, &busy(place))? else {
            return Ok(None);
        };
        let mut reader = BufReader::new(Positioned::new(&*file, 0));
        let mut magic = [0; MAGIC.len()];
        let is_ours = reader.read_exact(&mut magic).is_ok() && &magic == MAGIC;
        if !is_ours {
            let text = format!("{} is not the state of an import", place.display());
            return Err(usage(text));
        }
        let mut good = MAGIC.len() as u64;
        let mut state: Option<Self> = None;
        let mut body = Vec::new();
        while let Some((kind, len)) = take(&mut reader, &mut body)? {
            match (&mut state, kind) {
                (None, BEGIN) => {
                    let begin: Begin = serde_json::from_slice(&body)?;
                    let own = OwnWrites::with_hash_keys(begin.hash_keys);
                    state = Some(Self::new(Arc::clone(&file), place, begin, own));
                }
                (Some(state), HELD) => {
                    // Behind length and kind, before the checksum.
                    state.held.push((good + 5, body.len() as u64));
                }
                (Some(state), _) => state.apply(kind, &body)?,
                (None, _) => break,
            }
            good += len;
        }
        let Some(state) = state else {
            file.remove()?;
            return Ok(None);
        };
        file.cut(good)?;
        Ok(Some(state))
    }

    fn apply(&mut self, kind: u8, body: &[u8]) -> Result<()> {
        match (kind, mark_of(body)) {
            (SENDING, Some((mark, _))) => self.sending = self.sending.max(mark),
            (SETTLED, Some((mark, rest))) => {
                self.settled = self.settled.max(mark);
                let mut numbers = rest.as_chunks::<8>().0.iter();
                let mut number = || numbers.next().map_or(0, |bytes| u64::from_le_bytes(*bytes));
                (self.failed, self.records) = (number(), number());
            }
            (OWN, _) => {
                let (prints, _) = body.as_chunks::<{ size_of::<Fingerprint>() }>();
                for print in prints {
                    self.own.insert(Fingerprint::from_le_bytes(*print))?;
                }
            }
            (PROCESSES, _) => self.processes = Some(serde_json::from_slice(body)?),
            (WITNESSES, _) => {
                let mut rest = body;
                let each = std::iter::from_fn(|| Witness::take(&mut rest));
                each.for_each(|witness| self.witnesses.add(witness));
            }
            (FORGOTTEN, _) => self.is_forgotten = true,
            (ERRORS, _) => self.errors = serde_json::from_slice(body)?,
            _ => {}
        }
        Ok(())
    }

    /// Conflicts that were held so far, one after the other.
    ///
    /// # Errors
    /// The system's, and those of `each`.
    pub fn each_held(&self, mut each: impl FnMut(HeldConflict) -> Result<()>) -> Result<()> {
        for (offset, len) in &self.held {
            let mut body = Vec::new();
            let read = Positioned::new(&*self.file, *offset)
                .take(*len)
                .read_to_end(&mut body);
            read.with_context(|| format!("cannot read {}", self.place.display()))?;
            let mut rest = &body[..];
            while let Some(conflict) = HeldConflict::take(&mut rest)? {
                each(conflict)?;
            }
        }
        Ok(())
    }

    /// The import speaks to these processes, too.
    ///
    /// # Errors
    /// The system's.
    pub fn speaks_to(&mut self, processes: BTreeSet<Option<String>>) -> Result<()> {
        let body = serde_json::to_vec(&processes)?;
        self.processes = Some(processes);
        self.buffer.clear();
        put(&mut self.buffer, PROCESSES, &body);
        self.write()
    }

    /// A process that had acknowledged something lost its memory: what is settled may be gone.
    ///
    /// # Errors
    /// The system's.
    pub fn is_gone(&mut self) -> Result<()> {
        self.is_forgotten = true;
        self.buffer.clear();
        put(&mut self.buffer, FORGOTTEN, &[]);
        self.write()
    }

    /// Records before `mark` are about to be sent, and what these keys hold is not known until that
    /// is settled.
    ///
    /// # Errors
    /// The system's.
    pub fn is_sending(&mut self, mark: Mark, changing: &[Witness]) -> Result<()> {
        self.sending = mark;
        self.buffer.clear();
        put_all(&mut self.buffer, WITNESSES, changing, Witness::put);
        put(&mut self.buffer, SENDING, &mark_bytes(mark));
        self.write()
    }

    /// Records before `mark` are answered.
    ///
    /// # Errors
    /// The system's.
    pub fn is_settled(&mut self, mark: Mark, news: &News) -> Result<()> {
        self.settled = mark;
        self.buffer.clear();
        put_all(&mut self.buffer, HELD, &news.held, HeldConflict::put);
        put_all(&mut self.buffer, WITNESSES, &news.witnesses, Witness::put);
        for some in news.own.chunks(MAX_BODY / size_of::<Fingerprint>()) {
            let body: Vec<u8> = some.iter().flat_map(|print| print.to_le_bytes()).collect();
            put(&mut self.buffer, OWN, &body);
        }
        if news.errors != self.errors {
            self.errors = news.errors;
            put(&mut self.buffer, ERRORS, &serde_json::to_vec(&self.errors)?);
        }
        let mut body = mark_bytes(mark).to_vec();
        body.extend_from_slice(&news.failed.to_le_bytes());
        body.extend_from_slice(&news.records.to_le_bytes());
        put(&mut self.buffer, SETTLED, &body);
        self.write()?;
        if host::elapsed(self.synced) >= SYNC_EVERY {
            self.synced = host::now();
            let synced = self.file.sync();
            synced.with_context(|| format!("cannot sync {}", self.place.display()))?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        let written = self.file.append(&self.buffer);
        written.with_context(|| format!("cannot write {}", self.place.display()))
    }

    /// The import is finished: there is nothing to go on with.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(self) -> Result<()> {
        if files().identity(&self.place) != self.file.identity().ok() {
            // Somebody removed it; what has its name now is another import's.
            return Ok(());
        }
        let removed = self.file.remove();
        removed.with_context(|| format!("cannot remove {}", self.place.display()))
    }
}

/// What is said where another run has the state.
fn busy(place: &Path) -> String {
    let place = place.display();
    format!("another import is using the state in {place}")
}

/// Whatever would make a reader wait, or is no place for a state.
fn refuse_special(place: &Path) -> Result<()> {
    match place.metadata() {
        Ok(metadata) if !metadata.is_file() => Err(usage(format!(
            "--resume needs a regular file for its state, and {} is not one",
            place.display()
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn begin() -> Begin {
        Begin {
            version: VERSION,
            parts: vec![Part {
                id: "00ff".to_owned(),
                sha256: None,
            }],
            destination: "redis://h:1".to_owned(),
            arguments: String::new(),
            base_now_ms: 7,
            hash_keys: (1, 2),
        }
    }

    fn mark(archive: u32, frame: u64) -> Mark {
        Mark { archive, frame }
    }

    #[test]
    fn what_was_written_is_read_wherever_it_was_cut() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("state");
        assert!(State::load(&place).unwrap().is_none());
        let mut state = State::create(&place, begin()).unwrap();
        let begun = place.metadata().unwrap().len();
        assert_eq!(
            place.metadata().unwrap().permissions().mode() & 0o777,
            0o600
        );
        let prints: Vec<Fingerprint> = (1..200_000).collect();
        state.is_sending(mark(0, 5), &[]).unwrap();
        let news = News {
            failed: 1,
            records: 77,
            own: prints,
            ..News::default()
        };
        state.is_settled(mark(0, 3), &news).unwrap();
        let before_last = place.metadata().unwrap().len();
        state.is_sending(mark(1, 2), &[]).unwrap();
        drop(state);
        let mut state = State::load(&place).unwrap().unwrap();
        assert_eq!((state.settled, state.sending), (mark(0, 3), mark(1, 2)));
        assert_eq!((state.failed, state.records), (1, 77));
        assert_eq!(&state.begin, &begin());
        assert!(state.own.contains(199_999).unwrap() && !state.own.contains(200_000).unwrap());
        // Added to, after a cut in the middle of the last record.
        drop(state);
        let file = OpenOptions::new().write(true).open(&place).unwrap();
        file.set_len(before_last + 9).unwrap();
        let mut state = State::load(&place).unwrap().unwrap();
        assert_eq!(state.sending, mark(0, 5));
        let news = News {
            failed: 2,
            ..News::default()
        };
        state.is_settled(mark(0, 5), &news).unwrap();
        drop(state);
        let state = State::load(&place).unwrap().unwrap();
        assert_eq!((state.settled, state.failed), (mark(0, 5), 2));
        assert!(State::load(&place).is_err(), "in use");
        state.remove().unwrap();
        assert!(!place.exists());
        // Not even begun.
        State::create(&place, begin()).unwrap();
        file_cut(&place, begun - 1);
        assert!(State::load(&place).unwrap().is_none());
        std::fs::write(&place, "something else").unwrap();
        assert!(State::load(&place).is_err());
    }

    #[test]
    fn of_two_imports_that_begin_one_has_the_state() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("state");
        assert!(State::load(&place).unwrap().is_none());
        let first = State::create(&place, begin()).unwrap();
        assert!(State::create(&place, begin()).is_err(), "both saw none");
        let anew = first.begin_anew(begin()).unwrap();
        assert!(State::load(&place).is_err(), "in use");
        // Removed by hand, and begun by another import: that one's stays.
        std::fs::remove_file(&place).unwrap();
        let other = State::create(&place, begin()).unwrap();
        anew.remove().unwrap();
        assert!(place.exists());
        other.remove().unwrap();
        assert!(!place.exists());
    }

    #[test]
    fn what_is_known_of_the_destination_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("state");
        let mut state = State::create(&place, begin()).unwrap();
        assert!(state.processes.is_none() && !state.is_forgotten);
        let processes: BTreeSet<_> = [Some("abc".to_owned()), None].into();
        state.speaks_to(processes.clone()).unwrap();
        let held = |n: u32| HeldConflict {
            print: u128::from(n),
            db: n,
            key: vec![b'k'; 1_000],
            reason: "with another value".to_owned(),
            earlier: false,
            origin: None,
        };
        let witness = Witness {
            print: 7,
            db: 2,
            key: b"w".to_vec(),
            expire_at_ms: None,
            meaning: super::super::witness::Meaning::Value(9),
        };
        // More than one record of the file.
        for from in [0, 3_000] {
            let news = News {
                held: (from..from + 3_000).map(held).collect(),
                witnesses: vec![witness.clone()],
                ..News::default()
            };
            state.is_settled(mark(0, 3), &news).unwrap();
        }
        drop(state);
        let mut state = State::load(&place).unwrap().unwrap();
        assert_eq!(state.processes, Some(processes));
        assert_eq!(state.witnesses.chosen(), [&witness]);
        let mut next = 0;
        let mut each = |conflict| {
            assert_eq!(conflict, held(next));
            next += 1;
            Ok(())
        };
        state.each_held(&mut each).unwrap();
        assert_eq!(next, 6_000);
        state.is_gone().unwrap();
        drop(state);
        assert!(State::load(&place).unwrap().unwrap().is_forgotten);
    }

    /// Also one that says no version, as the first ones did.
    #[test]
    fn a_state_of_another_version_is_refused_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("state");
        for (version, words) in [
            (None, "older version"),
            (Some(VERSION - 1), "older version"),
            (Some(VERSION + 1), "newer version"),
        ] {
            let mut text = serde_json::to_value(begin()).unwrap();
            match version {
                Some(version) => text["version"] = version.into(),
                None => drop(text.as_object_mut().unwrap().remove("version")),
            }
            let mut bytes = MAGIC.to_vec();
            put(&mut bytes, BEGIN, &serde_json::to_vec(&text).unwrap());
            std::fs::write(&place, &bytes).unwrap();
            let error = super::super::load(&place, &begin()).map(drop).unwrap_err();
            assert!(error.is::<crate::exit::Usage>(), "{error}");
            let error = error.to_string();
            assert!(error.contains(words) && error.contains("finish"), "{error}");
            assert_eq!(std::fs::read(&place).unwrap(), bytes);
        }
    }

    #[test]
    fn nothing_but_a_regular_file_is_a_state() {
        let directory = tempfile::tempdir().unwrap();
        let error = State::load(directory.path()).map(drop).unwrap_err();
        assert!(error.to_string().contains("regular file"), "{error}");
        let error = State::load(Path::new("/dev/null")).map(drop).unwrap_err();
        assert!(error.is::<crate::exit::Usage>(), "{error}");
    }

    fn file_cut(place: &Path, len: u64) {
        let file = OpenOptions::new().write(true).open(place).unwrap();
        file.set_len(len).unwrap();
    }
}
