//! Which keys need not be there, because the tool told what may be missing, and ended accordingly.

use std::collections::BTreeSet;

use redis_migrate::record::show_key;

use super::truth::Truth;
use super::{Ended, Ran};
use crate::net::{Change, Place};

/// What the tool says where databases were swapped and are not read again.
const SWAPPED: &str = "warning: databases were swapped during this run";

/// What it says where it is not known whether they were.
const MAY_BE_SWAPPED: &str = "warning: the source no longer tells how often databases were swapped";

/// What the tool says where it has no right to look for other databases.
const UNSEEN: &str = "only database 0 is read, and whether there are keys in others is not known";

/// What the tool says where it cannot compare what it skips.
const UNREAD: &str = "warning: the destination refuses DUMP";

/// What the tool says where a destination that it connected to again may have lost what it had
/// acknowledged: it does not tell whether it is the same process. That is a warning, and no failure.
const UNKNOWN: &str = "warning: the destination does not say whether it is still the same process";

/// What the tool says of keys that stand without their expiry: it was refused once the value was there,
/// and the transaction that should have kept both or neither was none.
const LASTING: &str = "written without the expiry that they should have";

/// What a run told of; nothing where its exit code does not say so, too.
pub(super) struct Excuses<'a> {
    ran: &'a Ran<'a>,
    is_partial: bool,
    /// What stood there is skipped without a comparison, and that was said.
    is_unread: bool,
    /// Whether the destination lost anything is not known, and that was said.
    is_unknown: bool,
    /// By their names there: what the destination lost, where the tool said that it did, or may have.
    lost: BTreeSet<&'a Place>,
    /// What the destination lost when the tool had looked at it for the last time, after all was
    /// written: nobody could see that, whatever was told.
    unseen: BTreeSet<&'a Place>,
    /// Databases other than 0 were not looked at.
    reads_one: bool,
    /// What went to another database at the source, where the tool saw that something did.
    swapped: BTreeSet<&'a Place>,
}

impl<'a> Excuses<'a> {
    pub fn of(ran: &'a Ran<'a>) -> Self {
        let told = match ran.ended {
            Ended::Told(told) if told.code == 3 => Some(told),
            _ => None,
        };
        let warns = |text: &str| ran.lines.iter().any(|line| line.starts_with(text));
        Self {
            ran,
            is_partial: told.is_some(),
            lost: match told.is_some_and(|told| told.memory_lost) || warns(UNKNOWN) {
                true => ran.target.lost_at_last(|_| true),
                false => BTreeSet::new(),
            },
            is_unknown: warns(UNKNOWN),
            is_unread: warns(UNREAD),
            unseen: ran.target.lost_at_last(|is_unseen| is_unseen),
            reads_one: told.is_some() && ran.lines.iter().any(|line| line.contains(UNSEEN)),
            swapped: match (told.is_some() && warns(SWAPPED)) || warns(MAY_BE_SWAPPED) {
                true => swapped(&ran.source),
                false => BTreeSet::new(),
            },
        }
    }

    /// Whether a key of the source need not be there.
    pub fn excuse(&self, place: &Place) -> bool {
        let into = (self.ran.wish.into_db(place.0), place.1.clone());
        self.unseen.contains(&into)
            || (self.is_unknown && self.lost.contains(&into))
            || self.swapped.contains(place)
            || (self.is_unread && self.ran.target.ever_stood(u64::MAX, &into))
            || self.is_partial
                && (self.ran.named.contains_key(place)
                // The destination's refusals have its own names.
                || self.ran.named.contains_key(&into)
                || names_database(self.ran.lines, place.0)
                || (self.reads_one && place.0 != 0)
                || self.lost.contains(&into))
    }
}

/// Keys that went to another database with all of its contents, also where the same stood there.
fn swapped(source: &Truth) -> BTreeSet<&Place> {
    let together = |one: &Change, other: &Change| one.step == other.step;
    let moved = |group: &&[Change]| {
        let went = |change: &Change| {
            let (db, key) = &change.place;
            let came = |other: &Change| {
                other.place.0 != *db && other.place.1 == *key && other.after == change.before
            };
            change.before.is_some() && group.iter().any(came)
        };
        group.iter().any(went)
    };
    let groups: Vec<_> = source.changes.chunk_by(together).filter(moved).collect();
    let changed = groups
        .iter()
        .flat_map(|group| group.iter().map(|change| &change.place));
    let mut went: BTreeSet<&Place> = changed.collect();
    for group in groups {
        let dbs: BTreeSet<u32> = group.iter().map(|change| change.place.0).collect();
        let at = group[0].at;
        let stands_twice = |place: &&Place| {
            let others = dbs.iter().filter(|db| **db != place.0);
            let mut others = others.map(|db| (*db, place.1.clone()));
            dbs.contains(&place.0)
                && source
                    .at(at, place)
                    .is_some_and(|held| others.any(|other| source.at(at, &other) == Some(held)))
        };
        went.extend(source.versions().into_keys().filter(stands_twice));
    }
    went
}

/// Whether a run that did not end well names this key of the destination as one that it left without
/// its expiry, or does not name all of them.
pub(super) fn lasts(ended: &Ended, (db, key): &Place) -> bool {
    let Ended::Told(told) = ended else {
        return false;
    };
    let name = format!("{} (db {db})", show_key(key));
    let problems = told.problems.iter();
    let mut problems = problems.filter(|text| text.starts_with(LASTING));
    told.code != 0 && problems.any(|text| text.contains(&name) || text.contains(" more;"))
}

/// Whether a whole database was named as not read, or not written.
fn names_database(lines: &[String], db: u32) -> bool {
    let (name, number) = ("database", db.to_string());
    let mut warnings = lines.iter().filter(|line| line.starts_with("warning: "));
    warnings.any(|line| {
        let mut words = line.split(|byte: char| !byte.is_alphanumeric());
        words.any(|word| word.starts_with(name)) && words.any(|word| word == number)
    })
}
