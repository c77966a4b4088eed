//! How records change on their way: database, name, expiry. Pure: a rewrite knows nothing of
//! either end.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::OnceLock;

use crate::exit::Usage;
use crate::glob::{Glob, literal_prefix};
use crate::payload::{self, FieldFate};
use crate::record::{Context, KeyRecord, Record, Value};
use crate::select::Selection;

/// Latest expiry that is ever sent, Unix ms: far enough for everybody, and no sum a server makes
/// of it overflows.
pub const EXPIRE_MAX_MS: u64 = 1 << 62;

/// What becomes of the expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TtlIntent {
    /// The absolute moment stays.
    #[default]
    Keep,
    /// Keys, and fields of hashes, live for ever. What was past its time when it was read stays so.
    Drop,
    /// The life that remained when the key was read counts from `base_now_ms`.
    Rebase {
        /// Where life starts to count, on the destination's clock.
        base_now_ms: u64,
    },
}

/// Which database goes where.
#[derive(Debug, Clone, Default)]
pub struct DbMap {
    /// From, to. The first that fits counts.
    pub pairs: Vec<(u32, u32)>,
    /// Where every other database goes (`*:5`); `None`: each to its own number.
    pub rest: Option<u32>,
    /// The destination's URL names a database: the one database of the stream goes there, and a
    /// stream of several is a usage error.
    pub only: Option<u32>,
    /// Nothing is written: side A is compared with side B, whose URL names [`Self::only`].
    pub is_comparison: bool,
    seen: OnceLock<u32>,
}

impl DbMap {
    /// Everything goes to `db`.
    #[cfg(test)]
    pub fn all_into(db: u32) -> Self {
        Self {
            rest: Some(db),
            ..Self::default()
        }
    }

    /// The one database that turns up goes to `db`.
    pub fn only_into(db: u32) -> Self {
        Self {
            only: Some(db),
            ..Self::default()
        }
    }

    /// Whether every database keeps its number.
    pub fn is_identity(&self) -> bool {
        self.rest.is_none() && self.only.is_none() && self.pairs.iter().all(|(a, b)| a == b)
    }

    /// Before anything is written: refuses what is known to be several databases, where only one
    /// may be. `dbs` are those that the source is expected to give.
    ///
    /// # Errors
    /// [`Usage`].
    pub fn check(&self, dbs: &[u32]) -> Result<(), Usage> {
        match (self.only, dbs) {
            (Some(into), [first, .., last]) if first != last => Err(self.several(into, dbs)),
            _ => Ok(()),
        }
    }

    /// Whether keys of two databases may come into one.
    pub fn may_meet(&self) -> bool {
        let is_taken = |db: u32| self.pairs.iter().any(|(from, _)| *from == db);
        let mut into = HashSet::new();
        // Two go to the same one, or one goes where another one stays.
        self.rest.is_some()
            || self
                .pairs
                .iter()
                .any(|&(_, to)| !into.insert(to) || !is_taken(to))
    }

    /// Where `db` goes.
    ///
    /// # Errors
    /// [`Usage`] for the second database of a stream of which the destination's URL expects one.
    pub fn map(&self, db: u32) -> Result<u32, Usage> {
        let is_named = self.pairs.iter().any(|(from, _)| *from == db);
        if let (Some(into), false) = (self.only, is_named) {
            let first = *self.seen.get_or_init(|| db);
            return if first == db {
                Ok(into)
            } else {
                Err(self.several(into, &[first, db]))
            };
        }
        Ok(self.place(db))
    }

    /// Where `db` goes by what was asked, whatever the destination's URL names.
    fn place(&self, db: u32) -> u32 {
        let named = self.pairs.iter().find(|(from, _)| *from == db);
        named.map_or(self.rest.unwrap_or(db), |(_, to)| *to)
    }

    fn several(&self, into: u32, dbs: &[u32]) -> Usage {
        let dbs = numbers_text(dbs);
        let what = match self.is_comparison {
            true => format!("B's URL names database {into}, but A has several databases ({dbs})"),
            false => format!(
                "the destination's URL names database {into}, but keys come from several databases \
                 ({dbs})"
            ),
        };
        Usage(format!(
            "{what}; choose one with --db, map them with --map-db, or leave the database out of the \
             URL"
        ))
    }
}

/// `0, 3 and 30`; of very many the first, and how many more there are.
fn numbers_text(numbers: &[u32]) -> String {
    const SHOWN: usize = 16;
    let mut all: Vec<String> = numbers.iter().map(u32::to_string).collect();
    let more = all.len().saturating_sub(SHOWN);
    let last = match more {
        0 | 1 => all.pop(),
        more => {
            all.truncate(SHOWN);
            Some(format!("{more} more"))
        }
    };
    match (all.is_empty(), last) {
        (false, Some(last)) => format!("{} and {last}", all.join(", ")),
        (_, last) => last.unwrap_or_default(),
    }
}

/// Reads `FROM:TO` of `--map-db`; `None` stands for `*`.
///
/// # Errors
/// A sentence.
pub fn parse_map_db(text: &str) -> Result<(Option<u32>, u32), String> {
    let wrong = || format!("{text:?} is not a database map; write 0:5, or *:5 for all others");
    let (from, to) = text.split_once(':').ok_or_else(wrong)?;
    let number = |text: &str| text.trim().parse::<u32>().map_err(|_| wrong());
    match from.trim() {
        "*" => Ok((None, number(to)?)),
        from => Ok((Some(number(from)?), number(to)?)),
    }
}

/// What is changed in every record.
#[derive(Debug, Clone, Default)]
pub struct Rewrite {
    /// Databases.
    pub dbs: DbMap,
    /// Taken away from the front of a key, before the other is added. A key that does not start
    /// with it stays as it is.
    pub strip_prefix: Vec<u8>,
    /// Put in front of every key.
    pub add_prefix: Vec<u8>,
    /// Expiry.
    pub ttl: TtlIntent,
}

impl Rewrite {
    /// Whether records stay as they are.
    pub fn is_identity(&self) -> bool {
        self.dbs.is_identity()
            && self.strip_prefix.is_empty()
            && self.add_prefix.is_empty()
            && self.ttl == TtlIntent::Keep
    }

    /// Whether two different keys of the source may become one key of the destination.
    pub fn may_collide(&self) -> bool {
        !self.strip_prefix.is_empty() || self.dbs.may_meet()
    }

    /// The same of keys that all are in `selection`.
    pub fn may_collide_among(&self, selection: &Selection) -> bool {
        let begins = |glob: &Glob| literal_prefix(glob.pattern()).starts_with(&self.strip_prefix);
        let all_stripped = !selection.matches.is_empty() && selection.matches.iter().all(begins);
        let names_meet = !self.strip_prefix.is_empty() && !all_stripped;
        let dbs_meet = match selection.dbs.as_slice() {
            [] => self.dbs.may_meet(),
            dbs => {
                let different: HashSet<u32> = dbs.iter().copied().collect();
                let into = different.iter().map(|db| self.dbs.place(*db));
                into.collect::<HashSet<_>>().len() < different.len()
            }
        };
        names_meet || dbs_meet
    }

    /// Changes one record.
    ///
    /// # Errors
    /// See [`DbMap::map`].
    pub fn apply(&self, record: &mut Record, context: &Context) -> Result<(), Usage> {
        match record {
            Record::Key(record) => {
                record.db = self.dbs.map(record.db)?;
                self.rename(&mut record.key);
                record.expire_at_ms = record
                    .expire_at_ms
                    .and_then(|at_ms| self.expiry(at_ms, context));
                self.refield(record, context);
            }
            Record::Deleted { db, key } => {
                *db = self.dbs.map(*db)?;
                self.rename(key);
            }
            _ => {}
        }
        Ok(())
    }

    fn rename(&self, key: &mut Vec<u8>) {
        if self.strip_prefix.is_empty() && self.add_prefix.is_empty() {
            return;
        }
        let stripped = self.stripped(key);
        key.splice(..stripped, self.add_prefix.iter().copied());
    }

    /// Bytes that are taken off the front of a key.
    fn stripped(&self, key: &[u8]) -> usize {
        match key.starts_with(&self.strip_prefix) {
            true => self.strip_prefix.len(),
            false => 0,
        }
    }

    /// What a key is called afterwards.
    pub fn renamed<'a>(&self, key: &'a [u8]) -> Cow<'a, [u8]> {
        let rest = &key[self.stripped(key)..];
        match self.add_prefix.as_slice() {
            [] => Cow::Borrowed(rest),
            prefix => Cow::Owned([prefix, rest].concat()),
        }
    }

    /// Fields of hashes expire as keys do. What cannot be read is named where it is to be written.
    fn refield(&self, record: &mut KeyRecord, context: &Context) {
        if self.ttl == TtlIntent::Keep {
            return;
        }
        let Some(body) = payload::body_with_field_expiry(context.family, &record.value) else {
            return;
        };
        let fate = |at_ms| FieldFate::Expires(self.expiry(at_ms, context));
        if let Ok(Some(done)) = payload::refield(context.family, body, fate) {
            record.value = Value::Compact(done.value);
        }
    }

    fn expiry(&self, at_ms: u64, context: &Context) -> Option<u64> {
        match self.ttl {
            TtlIntent::Keep => Some(at_ms.min(EXPIRE_MAX_MS)),
            TtlIntent::Drop => (at_ms <= context.source_time_ms).then_some(at_ms),
            TtlIntent::Rebase { base_now_ms } => {
                let moved = if at_ms > context.source_time_ms {
                    base_now_ms.saturating_add(at_ms - context.source_time_ms)
                } else {
                    // Past its time when it was read: as long past it now. Never 0, which would
                    // mean "no expiry" to RESTORE.
                    base_now_ms
                        .saturating_sub(context.source_time_ms - at_ms)
                        .max(1)
                };
                Some(moved.min(EXPIRE_MAX_MS))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_meet_where_two_become_one() {
        for (pairs, meet) in [
            (&[][..], false),
            (&[(3, 3)], false),
            // Database 1 stays where it is.
            (&[(0, 1)], true),
            (&[(0, 1), (1, 0)], false),
            (&[(0, 1), (1, 2), (2, 0)], false),
            (&[(0, 2), (1, 2), (2, 0)], true),
        ] {
            let dbs = DbMap {
                pairs: pairs.to_vec(),
                ..DbMap::default()
            };
            assert_eq!(dbs.may_meet(), meet, "{pairs:?}");
        }
        assert!(DbMap::all_into(3).may_meet());
        assert!(!DbMap::only_into(3).may_meet());
    }

    #[test]
    fn all_databases_that_come_are_named() {
        let said = |dbs: &[u32]| DbMap::only_into(5).check(dbs).unwrap_err().to_string();
        assert!(
            said(&[0, 3, 30]).contains("come from several databases (0, 3 and 30)"),
            "{}",
            said(&[0, 3, 30])
        );
        let many: Vec<u32> = (0..17).collect();
        assert!(said(&many).contains("15 and 16)"), "{}", said(&many));
        let many: Vec<u32> = (0..40).collect();
        assert!(
            said(&many).contains("14, 15 and 24 more)"),
            "{}",
            said(&many)
        );
        assert!(DbMap::only_into(5).check(&[3]).is_ok());
    }
    use crate::record::{KeyRecord, Value};

    const CONTEXT: Context = Context {
        source_time_ms: 1_000_000,
        family: crate::record::Family::Redis,
        rdb_version: 10,
        node: 0,
    };

    fn record(db: u32, key: &str, expire_at_ms: Option<u64>) -> Record {
        Record::Key(KeyRecord {
            db,
            key: key.as_bytes().to_vec(),
            value: Value::Compact(vec![0, 0]),
            expire_at_ms,
            eviction: None,
        })
    }

    fn apply(rewrite: &Rewrite, mut record: Record) -> (u32, String, Option<u64>) {
        rewrite.apply(&mut record, &CONTEXT).expect("applies");
        match record {
            Record::Key(k) => (k.db, String::from_utf8_lossy(&k.key).into(), k.expire_at_ms),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_asked_changes_nothing() {
        let none = Rewrite::default();
        assert!(none.is_identity());
        assert_eq!(
            apply(&none, record(3, "k", Some(5))),
            (3, "k".into(), Some(5))
        );
    }

    #[test]
    fn prefixes_are_stripped_then_added() {
        let rewrite = Rewrite {
            strip_prefix: b"old:".to_vec(),
            add_prefix: b"new:".to_vec(),
            ..Rewrite::default()
        };
        assert_eq!(apply(&rewrite, record(0, "old:k", None)).1, "new:k");
        assert_eq!(apply(&rewrite, record(0, "other", None)).1, "new:other");
        assert_eq!(apply(&rewrite, record(0, "old:", None)).1, "new:");
        let mut gone = Record::Deleted {
            db: 0,
            key: b"old:k".to_vec(),
        };
        rewrite.apply(&mut gone, &CONTEXT).expect("applies");
        assert!(matches!(gone, Record::Deleted { key, .. } if key == b"new:k"));
    }

    #[test]
    fn databases_are_mapped() {
        let mut dbs = DbMap::all_into(9);
        dbs.pairs = vec![(0, 5), (1, 1)];
        assert_eq!(dbs.map(0).ok(), Some(5));
        assert_eq!(dbs.map(1).ok(), Some(1));
        assert_eq!(dbs.map(2).ok(), Some(9));
        assert_eq!(parse_map_db("0:5"), Ok((Some(0), 5)));
        assert_eq!(parse_map_db("*:5"), Ok((None, 5)));
        for text in ["", "0", "0:", ":1", "a:1", "0:-1", "1:2:3"] {
            assert!(parse_map_db(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_database_in_the_destination_url_takes_one_database_only() {
        let dbs = DbMap::only_into(4);
        assert_eq!(dbs.map(2).ok(), Some(4));
        assert_eq!(dbs.map(2).ok(), Some(4));
        assert!(dbs.map(3).is_err());
        assert!(DbMap::only_into(4).check(&[1, 2]).is_err());
        assert!(DbMap::only_into(4).check(&[2]).is_ok());
        assert!(DbMap::all_into(4).check(&[1, 2]).is_ok());
    }

    #[test]
    fn expiry_is_kept_dropped_or_counted_from_now() {
        let with = |ttl| Rewrite {
            ttl,
            ..Rewrite::default()
        };
        let expiry = |ttl, at| apply(&with(ttl), record(0, "k", at)).2;
        let rebase = TtlIntent::Rebase {
            base_now_ms: 5_000_000,
        };
        assert_eq!(expiry(TtlIntent::Drop, Some(1_000_500)), None);
        assert_eq!(expiry(TtlIntent::Drop, Some(999_000)), Some(999_000));
        assert_eq!(expiry(rebase, Some(1_000_500)), Some(5_000_500));
        assert_eq!(expiry(rebase, None), None);
        assert_eq!(expiry(rebase, Some(999_000)), Some(4_999_000));
        assert_eq!(expiry(rebase, Some(1_000_000)), Some(5_000_000));
        assert_eq!(expiry(rebase, Some(u64::MAX)), Some(EXPIRE_MAX_MS));
        assert_eq!(expiry(TtlIntent::Keep, Some(u64::MAX)), Some(EXPIRE_MAX_MS));
        let early = TtlIntent::Rebase { base_now_ms: 10 };
        assert_eq!(expiry(early, Some(1)), Some(1));
    }

    #[test]
    fn what_is_selected_may_keep_names_apart() {
        let selection = |dbs: &[u32], matches: &[&str]| Selection {
            dbs: dbs.to_vec(),
            matches: matches
                .iter()
                .map(|glob| Glob::new(glob.as_bytes()))
                .collect(),
            ..Selection::default()
        };
        let mapped = Rewrite {
            dbs: DbMap {
                pairs: vec![(0, 8), (3, 9)],
                ..DbMap::default()
            },
            ..Rewrite::default()
        };
        assert!(mapped.may_collide_among(&selection(&[], &[])));
        assert!(!mapped.may_collide_among(&selection(&[0, 3, 3], &[])));
        assert!(!mapped.may_collide_among(&selection(&[0, 3, 4], &[])));
        assert!(mapped.may_collide_among(&selection(&[0, 8], &[])));
        let stripped = Rewrite {
            strip_prefix: b"user:".to_vec(),
            ..Rewrite::default()
        };
        assert!(stripped.may_collide_among(&selection(&[], &[])));
        assert!(!stripped.may_collide_among(&selection(&[], &["user:*", "user:[ab]*"])));
        assert!(stripped.may_collide_among(&selection(&[], &["user:*", "use*"])));
        assert!(stripped.may_collide_among(&selection(&[], &["user[:]*"])));
    }
}
