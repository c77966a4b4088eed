//! What was given so far, where changes are followed: which keys, so that one that goes away gets a
//! tombstone; and which streams, because what consumer groups do is told to nobody.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};

use anyhow::{Context as _, Result};

use super::SlotSet;
use crate::memory::OwnWrites;
use crate::payload::{self, Kind, Reader, StreamForm, StreamId, kind_of};
use crate::record::Family;

/// Bytes of stream names that are kept in mind; beyond, exactness cannot be promised.
const MAX_STREAM_BYTES: usize = 8 * 1024 * 1024;

/// What a stream costs beside its name.
const STREAM_OVERHEAD_BYTES: usize = 128;

/// What XINFO STREAM must say of a stream for it to be still what was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StreamFacts {
    /// Groups change unheard: such a stream has to be read again in the last round.
    pub has_groups: bool,
    /// Of the payload.
    pub bytes: usize,
    pub length: u64,
    pub last_id: StreamId,
    /// Entries added and highest deleted id, from Redis 7.0 on.
    pub added: Option<(u64, StreamId)>,
}

/// Values below this are not remembered by size.
const LARGE_BYTES: usize = 16 * 1024;

/// Bytes of names of large values that are kept in mind.
const MAX_LARGE_NAME_BYTES: usize = 4 * 1024 * 1024;

/// The memory of what was given.
pub(super) struct Given {
    keys: OwnWrites,
    log: Option<BufWriter<File>>,
    /// Keys met since the scan began anew, while it does.
    seen: Option<OwnWrites>,
    pub streams: HashMap<(u32, Vec<u8>), StreamFacts>,
    stream_bytes: usize,
    /// Large values, by database and name; what the last round would read is guessed from it.
    large: HashMap<u32, HashMap<Vec<u8>, usize>>,
    large_name_bytes: usize,
    /// More streams than can be kept in mind.
    pub too_many_streams: bool,
    /// Names that the server refused to give.
    pub unreadable: HashSet<Vec<u8>>,
    /// Changes are followed, perhaps for weeks: no name goes into the log twice.
    pub following: bool,
    /// Of some names another keeps the log.
    has_inherited: bool,
}

impl Given {
    /// With a log of all names if a scan may have to begin anew.
    pub fn new(with_log: bool) -> Result<Self> {
        let log = match with_log {
            true => Some(BufWriter::new(
                tempfile::tempfile().context("create a temporary file")?,
            )),
            false => None,
        };
        Ok(Self {
            keys: OwnWrites::default(),
            log,
            seen: None,
            streams: HashMap::new(),
            stream_bytes: 0,
            large: HashMap::new(),
            large_name_bytes: 0,
            too_many_streams: false,
            unreadable: HashSet::new(),
            following: false,
            has_inherited: false,
        })
    }

    /// A key was given.
    pub fn note(&mut self, family: Family, db: u32, key: &[u8], dump: &[u8]) -> Result<()> {
        const WHAT: &str = "remember a key in a temporary file";
        let print = self.keys.fingerprint(db, key);
        let is_logged = self.following && !self.has_inherited && self.knows(db, key)?;
        self.keys.insert(print).context(WHAT)?;
        if let Some(seen) = &mut self.seen {
            let print = seen.fingerprint(db, key);
            seen.insert(print).context(WHAT)?;
        }
        if let Some(log) = &mut self.log
            && !is_logged
        {
            let len = u32::try_from(key.len()).context("a key of over 4 GiB")?;
            log.write_all(&db.to_le_bytes()).context(WHAT)?;
            log.write_all(&len.to_le_bytes()).context(WHAT)?;
            log.write_all(key).context(WHAT)?;
        }
        self.note_size(db, key, dump.len());
        let is_stream = dump
            .first()
            .is_some_and(|&byte| kind_of(family, byte) == Kind::Stream);
        if is_stream {
            self.note_stream(family, db, key, dump);
        } else if !self.streams.is_empty() {
            self.forget_stream(db, key);
        }
        Ok(())
    }

    fn note_size(&mut self, db: u32, key: &[u8], bytes: usize) {
        let row = self.large.entry(db).or_default();
        if bytes < LARGE_BYTES {
            if row.remove(key).is_some() {
                self.large_name_bytes -= key.len() + STREAM_OVERHEAD_BYTES;
            }
        } else if let Some(known) = row.get_mut(key) {
            *known = bytes;
        } else if self.large_name_bytes < MAX_LARGE_NAME_BYTES {
            row.insert(key.to_vec(), bytes);
            self.large_name_bytes += key.len() + STREAM_OVERHEAD_BYTES;
        }
    }

    /// How large a value is likely to be; `otherwise` is what values are on the average.
    pub fn bytes_of(&self, db: u32, key: &[u8], otherwise: usize) -> usize {
        let known = self.large.get(&db).and_then(|row| row.get(key));
        match known {
            Some(bytes) => *bytes,
            None if self.large_name_bytes < MAX_LARGE_NAME_BYTES => otherwise.min(LARGE_BYTES),
            None => otherwise,
        }
    }

    /// A key is there no more.
    pub fn forget_stream(&mut self, db: u32, key: &[u8]) {
        if self.streams.remove(&(db, key.to_vec())).is_some() {
            self.stream_bytes -= key.len() + STREAM_OVERHEAD_BYTES;
        }
    }

    /// Whether the key was given.
    pub fn knows(&mut self, db: u32, key: &[u8]) -> Result<bool> {
        let print = self.keys.fingerprint(db, key);
        self.keys
            .contains(print)
            .context("look up a key in a temporary file")
    }

    /// The names of the streams that may have changed unheard.
    pub fn with_groups(&self) -> impl Iterator<Item = Vec<u8>> {
        let streams = self.streams.iter().filter(|(_, facts)| facts.has_groups);
        streams.map(|((_, name), _)| name.clone())
    }

    fn note_stream(&mut self, family: Family, db: u32, key: &[u8], dump: &[u8]) {
        let body = payload::split(dump)
            .map(|(body, _)| body)
            .unwrap_or_default();
        let facts = match payload::read(family, body) {
            Ok(Reader::Stream(stream)) => StreamFacts {
                has_groups: !stream.groups.is_empty(),
                bytes: dump.len(),
                length: stream.counter,
                last_id: stream.last_id,
                added: (stream.form != StreamForm::V1)
                    .then_some((stream.entries_added, stream.max_deleted_id)),
            },
            // Not to be read here: to be on the safe side, as if it had groups.
            _ => StreamFacts {
                has_groups: true,
                bytes: dump.len(),
                length: 0,
                last_id: StreamId::default(),
                added: None,
            },
        };
        if self.streams.insert((db, key.to_vec()), facts).is_none() {
            self.stream_bytes += key.len() + STREAM_OVERHEAD_BYTES;
            if self.stream_bytes > MAX_STREAM_BYTES {
                self.too_many_streams = true;
                self.streams = HashMap::new();
                self.stream_bytes = 0;
            }
        }
    }

    /// The scan begins anew.
    pub fn begin_again(&mut self) {
        self.seen = Some(OwnWrites::default());
    }

    /// The new scan is through: what was given before, as these logs tell, and not met again, to be
    /// looked at; in these slots only.
    pub fn not_met_of(
        &mut self,
        logs: Vec<GivenLog>,
        slots: Option<SlotSet>,
    ) -> Result<NotMetAgain> {
        Ok(NotMetAgain {
            logs,
            slots,
            seen: self.seen.take().unwrap_or_default(),
        })
    }

    /// All names that were given so far.
    pub fn log(&mut self) -> Result<GivenLog> {
        let log = self.log.as_mut().context("no log of names is kept")?;
        log.flush().context("write a temporary file")?;
        let mut file = log.get_ref().try_clone().context("read a temporary file")?;
        let end = file.stream_position().context("read a temporary file")?;
        Ok(GivenLog { file, at: 0, end })
    }

    /// These were given by another: if they are gone, that has to be told.
    pub fn inherit(&mut self, db: u32, names: &[Vec<u8>]) -> Result<()> {
        self.has_inherited = true;
        for name in names {
            let print = self.keys.fingerprint(db, name);
            self.keys
                .insert(print)
                .context("remember a key in a temporary file")?;
        }
        Ok(())
    }

    /// Streams of slots that are read elsewhere now are none of ours.
    pub fn keep_streams_of(&mut self, slots: &SlotSet) {
        let bytes = &mut self.stream_bytes;
        self.streams.retain(|(_, name), _| {
            let keep = slots.has_key(name);
            if !keep {
                *bytes -= name.len() + STREAM_OVERHEAD_BYTES;
            }
            keep
        });
    }
}

/// Names that were given, in a file.
pub(in crate::source) struct GivenLog {
    file: File,
    at: u64,
    end: u64,
}

impl GivenLog {
    /// To be read once more.
    pub fn again(&self) -> Result<Self> {
        Ok(Self {
            file: self.file.try_clone().context("read a temporary file")?,
            at: 0,
            end: self.end,
        })
    }
}

/// Goes through logs of given names.
pub(super) struct NotMetAgain {
    logs: Vec<GivenLog>,
    slots: Option<SlotSet>,
    seen: OwnWrites,
}

impl NotMetAgain {
    /// The next names by database, at most about `count`; none at the end.
    pub fn next(&mut self, count: usize) -> Result<HashMap<u32, Vec<Vec<u8>>>> {
        let mut found: HashMap<u32, Vec<Vec<u8>>> = HashMap::new();
        let mut taken = 0;
        while taken < count
            && let Some(log) = self.logs.last_mut()
        {
            let reader = Positioned {
                file: &log.file,
                at: log.at,
            };
            let mut reader = BufReader::new(reader);
            while log.at < log.end && taken < count {
                let mut head = [0u8; 8];
                reader
                    .read_exact(&mut head)
                    .context("read a temporary file")?;
                let db = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
                let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
                let mut key = vec![0; len];
                reader
                    .read_exact(&mut key)
                    .context("read a temporary file")?;
                log.at += 8 + len as u64;
                if self
                    .slots
                    .as_ref()
                    .is_some_and(|slots| !slots.has_key(&key))
                {
                    continue;
                }
                let print = self.seen.fingerprint(db, &key);
                if !self
                    .seen
                    .contains(print)
                    .context("look up a key in a temporary file")?
                {
                    // Once is enough, however often it was given.
                    self.seen
                        .insert(print)
                        .context("remember a key in a temporary file")?;
                    found.entry(db).or_default().push(key);
                    taken += 1;
                }
            }
            if log.at >= log.end {
                self.logs.pop();
            }
        }
        Ok(found)
    }
}

/// Reads a file from a place of its own, so that the log can go on being written.
struct Positioned<'a> {
    file: &'a File,
    at: u64,
}

impl Read for Positioned<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let read = self.file.read_at(out, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
