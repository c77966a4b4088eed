//! Which records of an archive stand in the end, for verbs that show keys and not records: that is
//! known only at its end, so such an archive is read twice.

use std::io::Read;

use anyhow::{Context as _, Result};
use redis_migrate_format::seek::Table;
use redis_migrate_format::{End, Error, Limits, Reader, Record};

use super::reading::{Reading, walk};
use crate::census::{Census, Standing};
use crate::place::{Input, Kept};
use crate::stop::Stop;

const TEMPORARY: &str = "cannot use a temporary file";

/// Tells of each record, in order, whether it stands.
pub struct Stands {
    by: By,
    /// What the first reading found.
    first: Reading,
    number: u64,
}

enum By {
    /// It was found out in a first reading.
    Reading(Box<Standing>, Option<Error>),
    /// The archive says that no key comes twice; whether that is so is seen on the way.
    Claim(Box<Census>),
}

impl Stands {
    /// Reads the archive unless its end says that no key comes twice. What is wrong with it is found
    /// again, and told, by whoever reads it then.
    ///
    /// # Errors
    /// Those of the input and of temporary files; [`crate::exit::Interrupted`].
    pub fn find(kept: &Kept<'_>, limits: Limits, stop: &Stop) -> Result<Self> {
        let input = kept.reader()?;
        let (by, first) = match claim(input) {
            Some(first) => (By::Claim(Box::default()), first),
            None => {
                let (standing, damage, first) = read(kept.reader()?, limits, stop)?;
                (By::Reading(Box::new(standing), damage), first)
            }
        };
        Ok(Self {
            by,
            first,
            number: 0,
        })
    }

    /// Whether the next record stands. Function libraries always do.
    ///
    /// # Errors
    /// Those of a temporary file.
    pub fn next(&mut self, record: &Record) -> Result<bool> {
        if matches!(record, Record::Functions(_)) {
            return Ok(true);
        }
        let number = self.number;
        self.number += 1;
        Ok(match &mut self.by {
            By::Reading(standing, _) => !standing.is_superseded(number).context(TEMPORARY)?,
            By::Claim(census) => {
                census.add(record);
                true
            }
        })
    }

    /// What the first reading found wrong with the archive, where there was one, for who does not
    /// read so far.
    pub fn damage(self) -> Option<Error> {
        match self.by {
            By::Reading(_, damage) => damage,
            By::Claim(_) => None,
        }
    }

    /// Whether the archive is still what it was when that was found out, now that it was read to its
    /// end.
    ///
    /// # Errors
    /// One that says that it changed.
    pub fn still_true(&self, archive_id: u64, end: Option<&End>) -> Result<()> {
        self.first.must_equal(Reading::of(archive_id, end))
    }

    /// Keys that stand, and what is wrong with what the archive says of them.
    ///
    /// # Errors
    /// Those of a temporary file.
    pub fn conclude(self) -> Result<(u64, Option<String>)> {
        let census = match self.by {
            By::Reading(standing, _) => return Ok((standing.keys, None)),
            By::Claim(census) => census,
        };
        let standing = census.finish().context(TEMPORARY)?;
        let problem = broken_claim(standing.keys, standing.records)
            .map(|claim| format!("{claim}: some are shown with values that later ones replace"));
        Ok((standing.keys, problem))
    }
}

/// Whether the archive's end says that no key comes twice, and that none went away.
pub(crate) fn has_each_key_once(end: &End) -> bool {
    !end.facts.duplicates_possible && end.per_db.iter().all(|db| db.tombstones == 0)
}

/// What is wrong with an archive that [says so](has_each_key_once), if it holds so many keys in so
/// many records.
pub(crate) fn broken_claim(keys: u64, records: u64) -> Option<String> {
    (keys != records).then(|| {
        format!(
            "the archive says that no key comes twice, but its {records} records are of {keys} keys"
        )
    })
}

/// What a reading would find in an archive whose end says so, where that is seen quickly.
fn claim(mut input: Input) -> Option<Reading> {
    if !input.is_sought_quickly() {
        return None;
    }
    let table = Table::read(&mut input).ok()?;
    let end = Some(&table.end).filter(|end| has_each_key_once(end))?;
    Some(Reading::of(table.archive_id, Some(end)))
}

/// Which records stand, what ended the reading before the archive's end, and what was read.
fn read(
    input: impl Read,
    limits: Limits,
    stop: &Stop,
) -> Result<(Standing, Option<Error>, Reading)> {
    let mut census = Census::default();
    let mut reader = Reader::new(input, limits)?.heads_only();
    let walked = walk(&mut reader, None, stop, |_, record, _| {
        census.add(record);
        Ok(())
    });
    let damage = walked.err().map(|error| error.downcast::<Error>());
    let damage = damage.transpose()?;
    let reading = Reading::of(reader.archive_id(), reader.end());
    Ok((census.finish().context(TEMPORARY)?, damage, reading))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encryption::Keys;
    use crate::place::Place;
    use crate::source::reading::tests::archive;

    /// Whether what was found out is still said to be true, when the file was written over with
    /// `later` in between.
    fn still_true(first: &[u8], later: &[u8]) -> Result<()> {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("a.rmz");
        std::fs::write(&path, first).expect("written");
        let place = Place::of(path.as_os_str());
        let kept = Kept::open(Some(&place), Keys::NONE, &Stop::new()).expect("opened");
        let stands = Stands::find(&kept, Limits::default(), &Stop::new()).expect("found");
        std::fs::write(&path, later).expect("written over");
        let mut reader =
            Reader::new(kept.reader().expect("opened"), Limits::default()).expect("begun");
        while reader.next_frame().expect("read").is_some() {}
        stands.still_true(reader.archive_id(), reader.end())
    }

    #[test]
    fn an_archive_that_is_written_over_between_two_readings_is_noticed() {
        // Once the first reading reads all, once it goes by what the end says.
        for duplicates_possible in [true, false] {
            let one = archive("one", duplicates_possible);
            still_true(&one, &one).expect("the same");
            let error = still_true(&one, &archive("two", duplicates_possible));
            let error = error.expect_err("another").to_string();
            assert!(error.contains("the archive changed"), "{error}");
        }
    }
}
