//! Which records of an archive stand in the end, for verbs that show keys and not records: that is
//! known only at its end, so such an archive is read twice.

use std::io::{Read, Seek};

use anyhow::{Context as _, Result};
use redis_migrate_format::seek::Table;
use redis_migrate_format::{Error, Limits, Reader, Record};

use crate::census::{Census, Standing};
use crate::exit::Interrupted;
use crate::input::Kept;
use crate::pipe::Stop;

const TEMPORARY: &str = "use a temporary file";

/// Tells of each record, in order, whether it stands.
pub struct Stands {
    by: By,
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
    /// Those of the input and of temporary files; [`Interrupted`].
    pub fn find(kept: &Kept<'_>, limits: Limits, stop: &Stop) -> Result<Self> {
        let input = kept.reader()?;
        let is_simple = input.is_sought_quickly() && has_each_key_once(input);
        let by = if is_simple {
            By::Claim(Box::default())
        } else {
            let (standing, damage) = read(kept.reader()?, limits, stop)?;
            By::Reading(Box::new(standing), damage)
        };
        Ok(Self { by, number: 0 })
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
        let problem = (standing.keys != standing.records).then(|| {
            format!(
                "the archive says that no key comes twice, but its {} records are of {} keys: some \
                 are shown with values that later ones replace",
                standing.records, standing.keys
            )
        });
        Ok((standing.keys, problem))
    }
}

/// Whether the archive's end says that no key comes twice, and that none went away.
pub(super) fn has_each_key_once(mut input: impl Read + Seek) -> bool {
    Table::read(&mut input).is_ok_and(|table| {
        let end = &table.end;
        !end.facts.duplicates_possible && end.per_db.iter().all(|db| db.tombstones == 0)
    })
}

/// Which records stand, and what ended the reading before the archive's end.
fn read(input: impl Read, limits: Limits, stop: &Stop) -> Result<(Standing, Option<Error>)> {
    let mut census = Census::default();
    let mut reader = Reader::new(input, limits)?.heads_only();
    let damage = loop {
        match reader.visit_frame(|_, record, _| census.add(record)) {
            Ok(None) => break None,
            Ok(Some(_)) => {}
            Err(error) => break Some(error),
        }
        if stop.is_set() {
            return Err(Interrupted.into());
        }
    };
    Ok((census.finish().context(TEMPORARY)?, damage))
}
