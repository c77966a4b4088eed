//! Of what moment the data of an RDB file are, and whether they are all of it.
//!
//! A server's own file is all that it held at the instant that `ctime` names, to the second. What
//! else a file can be is said in fields of our own. Servers pass over fields that they do not know,
//! wherever in the file these stand (rdb.c, rdbLoadRioWithLoadingCtx).

use std::io::{self, Write};

use super::{Facts, RdbWriter};

/// `1` where the data are not those of one instant.
pub(super) const NOT_OF_ONE_INSTANT: &str = "redis-migrate-not-of-one-instant";

/// `1` where something was left out of the file: by a selection, or because it could not be had or
/// written.
pub const NOT_WHOLE: &str = "redis-migrate-not-whole";

/// Unix ms: nothing in the file was read before that. Written where `ctime` does not say it all.
pub(super) const FROM_MS: &str = "redis-migrate-from-ms";

/// Unix ms: nothing in the file was read after that.
pub(super) const TO_MS: &str = "redis-migrate-to-ms";

/// When the data of a file were read from their server, and whether they are all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Unix ms: not before that; 0 where nobody knows.
    pub from_ms: u64,
    /// Unix ms: not after that. The same as `from_ms` where the moment is known.
    pub to_ms: u64,
    /// All of it is as it was at that moment.
    pub at_one_instant: bool,
    /// Nothing was left out.
    pub is_whole: bool,
}

impl Taken {
    /// What a file says of itself; `otherwise_ms` (Unix ms) is not before its data were read. A file
    /// that does not say when that was (before version 7) is of a moment that nobody knows.
    pub fn of_file(facts: &Facts, otherwise_ms: u64) -> Self {
        let window = match (facts.from_ms, facts.to_ms) {
            (Some(from_ms), Some(to_ms)) if from_ms <= to_ms => Some((from_ms, to_ms)),
            _ => None,
        };
        let (from_ms, to_ms) = match (window, facts.created_ms) {
            (Some(window), _) => window,
            // It was begun then, and who knows how long it took.
            (None, Some(at_ms)) if facts.is_not_of_one_instant => (at_ms, otherwise_ms.max(at_ms)),
            (None, Some(at_ms)) => (at_ms, at_ms),
            (None, None) => (0, otherwise_ms),
        };
        Self {
            from_ms,
            to_ms,
            // What was written since the base of an append-only file stands beside it.
            at_one_instant: from_ms == to_ms && !facts.is_not_of_one_instant && !facts.is_aof_base,
            is_whole: !facts.is_not_whole,
        }
    }

    /// The moment from which the remaining life of keys counts, Unix ms.
    pub fn reference_ms(&self) -> u64 {
        match self.from_ms {
            0 => self.to_ms,
            from_ms => from_ms,
        }
    }

    /// Writes what [`Taken::of_file`] reads.
    ///
    /// # Errors
    /// Those of the output.
    pub fn write<W: Write>(&self, writer: &mut RdbWriter<W>) -> io::Result<()> {
        let secs = self.from_ms / 1000;
        if secs > 0 {
            writer.aux("ctime", &secs.to_string())?;
        }
        if !(self.at_one_instant && self.from_ms == secs * 1000) {
            writer.aux(FROM_MS, &self.from_ms.to_string())?;
            writer.aux(TO_MS, &self.to_ms.to_string())?;
        }
        if !self.at_one_instant {
            writer.aux(NOT_OF_ONE_INSTANT, "1")?;
        }
        if !self.is_whole {
            writer.aux(NOT_WHOLE, "1")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdb::{Form, Magic, RdbReader};

    /// What is read of a file that says `taken` of itself.
    fn read_again(taken: Taken) -> Taken {
        let magic = Magic::parse(b"REDIS0011").expect("a magic");
        let mut writer = RdbWriter::new(Vec::new(), magic);
        taken.write(&mut writer).expect("written");
        let bytes = writer.finish().expect("finished");
        let mut reader = RdbReader::new(bytes.as_slice(), Form::Compact).expect("a file");
        while reader.next_event().expect("read").is_some() {}
        Taken::of_file(reader.facts(), 99_000_000)
    }

    #[test]
    fn what_is_written_is_read() {
        for (from_ms, to_ms) in [
            (1_700_000_000_000, 1_700_000_000_000),
            (1_700_000_000_170, 1_700_000_000_170),
            (1_700_000_000_170, 1_700_000_009_001),
            (0, 1_700_000_000_000),
            (1, 1),
        ] {
            for at_one_instant in [from_ms == to_ms, false] {
                for is_whole in [true, false] {
                    let taken = Taken {
                        from_ms,
                        to_ms,
                        at_one_instant,
                        is_whole,
                    };
                    assert_eq!(read_again(taken), taken);
                }
            }
        }
    }
}
