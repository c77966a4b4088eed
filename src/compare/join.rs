//! Both sides together, a partition at a time.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;

use anyhow::Result;

use super::hashing::{Print, Prints};
use super::judge::{Aspect, Judge, Verdict};
use super::meaning::{Depth, Meaning};
use super::row::{Row, What};
use super::store::{PARTITIONS, Store, partition_of};
use crate::own_writes::{Already, FingerprintSet};
use crate::payload::Kind;
use crate::record::show_key;

/// One side: what was read first, and what was read again.
#[derive(Debug)]
pub(crate) struct SideRows {
    /// Everything.
    pub first: Store,
    /// The keys that were asked for again; they count instead.
    pub again: Option<Store>,
}

/// What the sides are joined by.
pub(crate) struct Join<'a> {
    /// The left side.
    pub left: &'a SideRows,
    /// The right side.
    pub right: &'a SideRows,
    /// Keys that were asked for again.
    pub asked: &'a FingerprintSet,
    /// Keys that were found equal before, when they were asked for again.
    pub settled: &'a FingerprintSet,
    /// Keys for which one side gave other bytes when it was asked again.
    pub unsteady: &'a FingerprintSet,
    /// Databases of the left and of the right side of which not all was read.
    pub lost_dbs: [&'a [u32]; 2],
    /// Whether the left and the right side hold function libraries that were not read.
    pub unread_libraries: [bool; 2],
    /// What counts as a difference.
    pub judge: Judge,
    /// Whether keys only on the right are passed over.
    pub ignore_extra: bool,
    /// Names whose hash is higher do not belong to the sample.
    pub sample: Option<(&'a Prints, Print)>,
}

/// A key that differs, or cannot be compared.
pub(crate) struct Difference {
    /// In what, the weightiest first, or why not; never empty.
    pub aspects: Vec<Aspect>,
    /// What stands on the left.
    pub left: Option<Row>,
    /// What stands on the right.
    pub right: Option<Row>,
}

impl Difference {
    /// Either of the rows, for what they share.
    pub(crate) fn either(&self) -> Option<&Row> {
        self.left.as_ref().or(self.right.as_ref())
    }

    /// Whether it was read, and nobody can tell whether it differs.
    pub(crate) fn is_incomparable(&self) -> bool {
        matches!(self.aspects.as_slice(), [aspect] if aspect.is_incomparable())
    }

    /// Whether one of the sides did not give it.
    pub(crate) fn is_unread(&self) -> bool {
        self.aspects == [Aspect::Unread]
    }

    /// Whether several keys of the left side have its name.
    pub(crate) fn is_collision(&self) -> bool {
        self.aspects == [Aspect::Collision]
    }

    /// The class that it is counted under.
    pub(crate) fn class(&self) -> &'static str {
        self.aspects
            .first()
            .map_or("value", |aspect| aspect.class())
    }
}

/// What was found, by database or in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Keys and libraries that were compared, or are on one side only.
    pub compared: u64,
    /// The same on both sides.
    pub equal: u64,
    /// Of those, the ones compared without what only one of the servers keeps.
    pub partly: u64,
    /// Expired between the readings.
    pub expired: u64,
    /// Cannot be compared; none of the compared ones.
    pub incomparable: u64,
    /// Could not be read on one side or on both; none of the compared ones.
    pub unread: u64,
    /// Names that several keys of the left side get; none of the compared ones.
    pub collided: u64,
    /// By class.
    pub missing: u64,
    /// See there.
    pub extra: u64,
    /// See there.
    pub other_type: u64,
    /// See there.
    pub value: u64,
    /// See there.
    pub field_ttl: u64,
    /// See there.
    pub ttl: u64,
}

impl Counts {
    /// Keys that differ.
    pub(crate) fn different(&self) -> u64 {
        self.missing + self.extra + self.other_type + self.value + self.field_ttl + self.ttl
    }

    /// Keys of which nobody knows whether they differ.
    pub(crate) fn unknown(&self) -> u64 {
        self.incomparable + self.unread + self.collided
    }

    /// Adds what was counted elsewhere.
    pub(crate) fn include(&mut self, other: &Counts) {
        self.compared += other.compared;
        self.equal += other.equal;
        self.partly += other.partly;
        self.expired += other.expired;
        self.incomparable += other.incomparable;
        self.unread += other.unread;
        self.collided += other.collided;
        self.missing += other.missing;
        self.extra += other.extra;
        self.other_type += other.other_type;
        self.value += other.value;
        self.field_ttl += other.field_ttl;
        self.ttl += other.ttl;
    }

    fn add(&mut self, verdict: &Verdict) {
        self.compared += 1;
        match verdict {
            Verdict::Nothing => self.compared -= 1,
            Verdict::Equal { partly } => {
                self.equal += 1;
                self.partly += u64::from(*partly);
            }
            Verdict::Expired => self.expired += 1,
            Verdict::Incomparable(Aspect::Unread) => {
                self.compared -= 1;
                self.unread += 1;
            }
            Verdict::Incomparable(Aspect::Collision) => {
                self.compared -= 1;
                self.collided += 1;
            }
            Verdict::Incomparable(_) => {
                self.compared -= 1;
                self.incomparable += 1;
            }
            Verdict::Different(aspects) => {
                *match aspects.first() {
                    Some(Aspect::Missing) => &mut self.missing,
                    Some(Aspect::Extra) => &mut self.extra,
                    Some(Aspect::Type) => &mut self.other_type,
                    Some(Aspect::FieldTtl) => &mut self.field_ttl,
                    Some(Aspect::Ttl) => &mut self.ttl,
                    _ => &mut self.value,
                } += 1;
            }
        }
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// In all.
    pub all: Counts,
    /// Keys, by database of the right side.
    pub by_db: BTreeMap<u32, Counts>,
    /// Function libraries.
    pub libraries: Counts,
}

type Index = HashMap<Print, usize, BuildHasherDefault<Already>>;

/// A partition of one side in memory.
struct Loaded {
    bytes: [Vec<u8>; 2],
    /// Where each key's row is, in the one or, behind it, in the other.
    index: Index,
}

impl SideRows {
    /// Adds those of the `asked` keys to `into` whose values only their server can read and that came
    /// with other bytes when they were asked for again.
    ///
    /// # Errors
    /// The temporary files.
    pub(crate) fn find_unsteady(
        &self,
        asked: &FingerprintSet,
        into: &mut FingerprintSet,
    ) -> Result<()> {
        let Some(again) = &self.again else {
            return Ok(());
        };
        let opaque = |store: &Store, partition: usize| -> Result<HashMap<Print, Print>> {
            let bytes = store.partition(partition)?;
            let (mut rest, mut bodies) = (&bytes[..], HashMap::new());
            while let Some(row) = Row::read(&mut rest) {
                if asked.contains(&row.print) {
                    match row.meaning.depth {
                        Depth::Opaque | Depth::Shifting => {
                            bodies.insert(row.print, row.meaning.body)
                        }
                        _ => bodies.remove(&row.print),
                    };
                }
            }
            Ok(bodies)
        };
        for partition in 0..PARTITIONS {
            let (first, again) = (opaque(&self.first, partition)?, opaque(again, partition)?);
            into.extend(first.into_iter().filter_map(|(print, body)| {
                let other = again.get(&print)?;
                (*other != body).then_some(print)
            }));
        }
        Ok(())
    }

    fn load(&self, partition: usize, asked: &FingerprintSet) -> Result<Loaded> {
        let first = self.first.partition(partition)?;
        let mut all = Indexed::of(&first, |_| true);
        let mut behind = Vec::new();
        if let Some(again) = &self.again {
            behind = again.partition(partition)?;
            let later = Indexed::of(&behind, |print| asked.contains(&print));
            for print in asked {
                if partition_of(*print) == partition {
                    all.index.remove(print);
                }
            }
            all.collided.retain(|row| !asked.contains(&row.print));
            let later_index = later.index.into_iter();
            all.index
                .extend(later_index.map(|(print, at)| (print, first.len() + at)));
            all.collided.extend(later.collided);
        }
        for row in all.collided {
            all.index.insert(row.print, first.len() + behind.len());
            row.write(&mut behind);
        }
        Ok(Loaded {
            bytes: [first, behind],
            index: all.index,
        })
    }
}

/// The rows of one reading of a partition.
struct Indexed {
    /// Where the row of each key is: the last one that there is.
    index: Index,
    /// Rows that stand for several keys with one name. They are in no file.
    collided: Vec<Row>,
}

impl Indexed {
    /// Of the rows in `bytes`, those whose key is `wanted`.
    fn of(bytes: &[u8], wanted: impl Fn(Print) -> bool) -> Self {
        let (mut index, mut collided) = (Index::default(), Vec::new());
        // Only filled where names of the side were changed so that they can meet.
        let mut origins: HashMap<Print, BTreeMap<(u32, Vec<u8>), usize>> = HashMap::new();
        let mut rest = bytes;
        loop {
            let at = bytes.len() - rest.len();
            let Some(row) = Row::read(&mut rest) else {
                break;
            };
            if !wanted(row.print) {
                continue;
            }
            index.insert(row.print, at);
            if let Some(origin) = row.origin {
                origins.entry(row.print).or_default().insert(origin, at);
            }
        }
        origins.retain(|_, rows| rows.len() > 1);
        for (print, rows) in origins {
            match standing(bytes, rows.into_values()).as_slice() {
                [] => {}
                [(at, _)] => drop(index.insert(print, *at)),
                several => collided.extend(collision(several)),
            }
        }
        Self { index, collided }
    }
}

/// Of the rows at these places, those of keys that were not deleted again; if some of them take part
/// by themselves, only these.
fn standing(bytes: &[u8], places: impl Iterator<Item = usize>) -> Vec<(usize, Row)> {
    let mut rows: Vec<(usize, Row)> = places
        .filter_map(|at| Some((at, Row::read(&mut bytes.get(at..)?)?)))
        .filter(|(_, row)| row.what != What::Gone)
        .collect();
    if rows.iter().any(|(_, row)| row.selected) {
        rows.retain(|(_, row)| row.selected);
    }
    rows
}

/// One row for several keys of a side that have the same name.
fn collision(rows: &[(usize, Row)]) -> Option<Row> {
    /// Keys that are named; of more it is said how many there are.
    const NAMED: usize = 4;
    let (_, first) = rows.first()?;
    let mut names: Vec<String> = rows
        .iter()
        .filter_map(|(_, row)| row.origin.as_ref())
        .map(|(db, key)| format!("db {db} {}", show_key(key)))
        .collect();
    let more = names.len().saturating_sub(NAMED);
    if more > 0 {
        names.truncate(NAMED);
        names.push(format!("{more} more"));
    }
    let is_same = rows.iter().all(|(_, row)| row.what == first.what);
    Some(Row {
        what: match is_same {
            true => first.what,
            false => What::Key(Kind::Unknown),
        },
        origin: None,
        expire_at_ms: None,
        meaning: Meaning {
            depth: Depth::Collided,
            reason: names.join(", "),
            ..Meaning::default()
        },
        ..first.clone()
    })
}

impl Loaded {
    fn row(&self, at: usize) -> Option<Row> {
        let [first, again] = &self.bytes;
        let mut bytes = match at.checked_sub(first.len()) {
            None => first.get(at..)?,
            Some(at) => again.get(at..)?,
        };
        Row::read(&mut bytes)
    }
}

impl Join<'_> {
    /// Judges every key; `each` is told of every difference, and of what cannot be compared.
    ///
    /// # Errors
    /// The temporary files, and those of `each`.
    pub(crate) fn run(&self, mut each: impl FnMut(Difference) -> Result<()>) -> Result<Totals> {
        let mut totals = Totals::default();
        for partition in 0..PARTITIONS {
            let left = self.left.load(partition, self.asked)?;
            let right = self.right.load(partition, self.asked)?;
            for (print, &at) in &left.index {
                let other = right.index.get(print).and_then(|&at| right.row(at));
                self.one(left.row(at), other, &mut totals, &mut each)?;
            }
            for (print, &at) in &right.index {
                if !left.index.contains_key(print) && !self.ignore_extra {
                    self.one(None, right.row(at), &mut totals, &mut each)?;
                }
            }
        }
        Ok(totals)
    }

    fn one(
        &self,
        left: Option<Row>,
        right: Option<Row>,
        totals: &mut Totals,
        each: &mut impl FnMut(Difference) -> Result<()>,
    ) -> Result<()> {
        let Some(either) = left.as_ref().or(right.as_ref()) else {
            return Ok(());
        };
        let is_library = either.what == What::Library;
        if let Some((prints, highest)) = self.sample
            && !is_library
            && prints.name(&either.key) > highest
        {
            return Ok(());
        }
        let is_lost = |row: &Option<Row>, dbs: &[u32]| row.is_none() && dbs.contains(&either.db);
        let [left_dbs, right_dbs] = self.lost_dbs;
        if !is_library && (is_lost(&left, left_dbs) || is_lost(&right, right_dbs)) {
            // Whether it stands there nobody knows; that the database was not read is said.
            return Ok(());
        }
        let [left_unread, right_unread] = self.unread_libraries;
        let is_unread = left.is_none() && left_unread || right.is_none() && right_unread;
        let is_unsteady = self.unsteady.contains(&either.print);
        let mut verdict = match is_library && is_unread {
            // It may be the one that was not read.
            true => Verdict::Incomparable(Aspect::Unread),
            false => self.judge.judge(left.as_ref(), right.as_ref(), is_unsteady),
        };
        let is_open = matches!(verdict, Verdict::Different(_) | Verdict::Incomparable(_));
        if is_open && self.settled.contains(&either.print) {
            verdict = Verdict::Equal { partly: false };
        }
        if verdict == Verdict::Nothing {
            return Ok(());
        }
        totals.all.add(&verdict);
        if is_library {
            totals.libraries.add(&verdict);
        } else {
            totals.by_db.entry(either.db).or_default().add(&verdict);
        }
        let aspects = match verdict {
            Verdict::Different(aspects) => aspects,
            Verdict::Incomparable(aspect) => vec![aspect],
            _ => return Ok(()),
        };
        let there = |row: &Row| row.what != What::Gone;
        each(Difference {
            aspects,
            left: left.filter(there),
            right: right.filter(there),
        })
    }
}
