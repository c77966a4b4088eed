//! Whether an archive that is read twice was the same both times. What the first reading learned
//! (which records stand, how exact they are) is true of those bytes only.

use std::io::Read;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Result, anyhow};
use redis_migrate_format::Reader;
use redis_migrate_format::header::End;
use redis_migrate_format::record::{Context, Record};

use crate::exit;
use crate::observer::Observer;
use crate::stop::Stop;

/// What a reading of an archive found: that of the very same bytes finds the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    archive_id: u64,
    /// END's digest of every byte before it, which the reader has checked; `None` where the archive
    /// is damaged.
    sha256: Option<[u8; 32]>,
}

impl Reading {
    /// That of the archive `archive_id`, whose end was reached or not.
    pub fn of(archive_id: u64, end: Option<&End>) -> Self {
        Self {
            archive_id,
            sha256: end.map(|end| end.sha256),
        }
    }

    /// Whether a later reading that came to the archive's end read the same.
    ///
    /// # Errors
    /// One that says that the archive changed.
    pub fn must_equal(self, later: Self) -> Result<()> {
        if self == later {
            return Ok(());
        }
        Err(anyhow!(
            "the archive changed while it was read: it is read twice, and the second time its bytes \
             were not the same; run this again when nobody writes to it"
        ))
    }
}

/// Shows every record of an archive, with its context and the bytes of its value, until its end, which
/// is checked. `observer` hears how far that came.
///
/// # Errors
/// Those of the format's reader and of `each`; [`exit::Interrupted`].
pub(crate) fn walk<R: Read>(
    reader: &mut Reader<R>,
    observer: Option<&Observer>,
    stop: &Stop,
    mut each: impl FnMut(&Context, &Record, u64) -> Result<()>,
) -> Result<()> {
    loop {
        exit::unless_stopped(stop)?;
        let (mut records, mut seen) = (0, Ok(()));
        let frame = reader.visit_frame(|context, record, value_bytes| {
            records += 1;
            if seen.is_ok() {
                seen = each(context, record, value_bytes);
            }
        });
        let Some(frame) = frame? else {
            return seen;
        };
        seen?;
        if let Some(observer) = observer {
            observer.count(records, frame.raw_len);
            let at = reader.offset();
            observer.progress.archive_bytes.store(at, Relaxed);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use redis_migrate_format::header::{ConsistencyReached, EndFacts, Header};
    use redis_migrate_format::record::{KeyRecord, Value};
    use redis_migrate_format::{Limits, Writer, WriterOptions};

    use super::*;
    use crate::observer::Recording;
    use crate::record::Batch;
    use crate::select::Selection;
    use crate::source::Source as _;
    use crate::source::archive::ArchiveSource;

    /// An archive of this key, with an id of its own.
    pub(crate) fn archive(key: &str, duplicates_possible: bool) -> Vec<u8> {
        let mut writer =
            Writer::new(Vec::new(), &Header::default(), WriterOptions::default()).expect("begun");
        writer.set_context(Context::default()).expect("context");
        let record = Record::Key(KeyRecord {
            db: 0,
            key: key.as_bytes().to_vec(),
            value: Value::Compact(b"\x00\x01v".to_vec()),
            expire_at_ms: None,
            eviction: None,
        });
        writer.write(&record).expect("written");
        let facts = EndFacts {
            duplicates_possible,
            ..EndFacts::new(ConsistencyReached::Exact(vec![(0, 1)]))
        };
        writer.finish(facts).expect("finished").inner
    }

    fn source(bytes: &[u8]) -> ArchiveSource<&[u8]> {
        let observer = Observer::new(Box::new(Recording::default()), None, None);
        ArchiveSource::open(
            bytes,
            Limits::default(),
            Selection::default(),
            true,
            None,
            Arc::new(observer),
        )
        .expect("opened")
    }

    fn read_to_the_end(mut source: ArchiveSource<&[u8]>) -> Result<Reading> {
        while source.read(&mut Batch::default())? {}
        Ok(source.reading())
    }

    #[test]
    fn a_second_reading_of_another_archive_ends_with_an_error() {
        // As many records, and each archive is sound.
        let (one, other) = (archive("one", true), archive("two", true));
        let first = read_to_the_end(source(&one)).expect("read");
        let same = read_to_the_end(source(&one).again(first)).expect("the same");
        assert_eq!(same, first);
        let error = read_to_the_end(source(&other).again(first)).expect_err("another");
        assert!(error.to_string().contains("the archive changed"), "{error}");
        // What was damaged when it was read first was another archive, too.
        let cut = source(&one[..one.len() - 60]);
        let damaged = cut.reading();
        assert!(read_to_the_end(cut).is_err());
        let error = read_to_the_end(source(&one).again(damaged)).expect_err("mended");
        assert!(error.to_string().contains("the archive changed"), "{error}");
    }
}
