//! Comparing, and looking again at what differs.

use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::collect::Side;
use super::hashing::Prints;
use super::join::{Difference, Join, SideRows, Totals};
use super::judge::{Aspect, Judge};
use super::names::Sample;
use crate::exit::Interrupted;
use crate::host;
use crate::own_writes::FingerprintSet;
use crate::stop::Stop;

/// Differences that are looked at again. When there are more, writes are not the reason.
const MAX_AGAIN: usize = 250_000;

/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_secs(1);

/// A side that was read again; `None` for one that does not change.
pub(crate) type Again = (Option<Side>, Option<Side>);

/// Two sides that were read.
pub(crate) struct Comparison<'a> {
    /// The left side.
    pub left: SideRows,
    /// The right side.
    pub right: SideRows,
    /// What counts.
    pub judge: Judge,
    /// The key of the hashes.
    pub prints: &'a Prints,
    /// Whether keys only on the right are passed over.
    pub ignore_extra: bool,
    /// The sample, if it is one.
    pub sample: Option<&'a Sample>,
    /// Whether the left and the right side hold function libraries that were not read.
    unread_libraries: [bool; 2],
    /// Databases of the left and of the right side of which not all was read.
    lost_dbs: [Vec<u32>; 2],
    /// Keys that were read again.
    asked: FingerprintSet,
    /// Keys that differed and then did not.
    settled: FingerprintSet,
    /// Keys for which one side gave other bytes when it was asked again.
    unsteady: FingerprintSet,
}

impl<'a> Comparison<'a> {
    /// Nothing is compared yet. `judge` gets the sides' own moments.
    pub(crate) fn new(left: Side, right: Side, judge: Judge, prints: &'a Prints) -> Self {
        let (left_unread, right_unread) = (left.libraries_unread, right.libraries_unread);
        let rows = |store| SideRows {
            first: store,
            again: None,
        };
        Self {
            judge: Judge {
                moments_ms: (left.moment_ms, right.moment_ms),
                ..judge
            },
            lost_dbs: [left.lost_dbs, right.lost_dbs],
            left: rows(left.store),
            right: rows(right.store),
            prints,
            ignore_extra: false,
            sample: None,
            unread_libraries: [left_unread, right_unread],
            asked: empty(),
            settled: empty(),
            unsteady: empty(),
        }
    }

    /// Tells `each` of every difference, and of what cannot be compared.
    ///
    /// # Errors
    /// The temporary files, and those of `each`.
    pub(crate) fn differences(&self, each: impl FnMut(Difference) -> Result<()>) -> Result<Totals> {
        Join {
            left: &self.left,
            right: &self.right,
            asked: &self.asked,
            settled: &self.settled,
            unsteady: &self.unsteady,
            lost_dbs: self.lost_dbs.each_ref().map(Vec::as_slice),
            unread_libraries: self.unread_libraries,
            judge: self.judge,
            ignore_extra: self.ignore_extra,
            sample: self.sample.map(|sample| (self.prints, sample.highest())),
        }
        .run(each)
    }

    /// Compares, and up to `rounds` times has the keys that differ read again: `again` gets the
    /// hashes of their names. Values that only their server can read are looked at once more in any
    /// case, because some differ from themselves.
    ///
    /// # Errors
    /// The temporary files, those of `again`, and [`Interrupted`].
    pub(crate) fn settle(
        &mut self,
        rounds: u32,
        stop: &Stop,
        mut again: impl FnMut(Arc<FingerprintSet>) -> Result<Again>,
    ) -> Result<Totals> {
        let mut open = self.open(rounds == 0)?;
        for _ in 0..rounds.max(1) {
            // Not all that are open are known then: the others would pass for settled.
            if open.keys.is_empty() || open.keys.len() > MAX_AGAIN {
                break;
            }
            if rounds > 0 {
                wait(stop)?;
            }
            let (left, right) = again(Arc::new(open.names))?;
            let is_whole = |side: &Option<Side>, were_unread: bool| {
                side.as_ref().is_none_or(|side| {
                    side.lost_dbs.is_empty() && (were_unread || !side.libraries_unread)
                })
            };
            let [left_unread, right_unread] = self.unread_libraries;
            if !is_whole(&left, left_unread) || !is_whole(&right, right_unread) {
                // What does not come now may stand all the same: the look before counts.
                break;
            }
            let (left_ms, right_ms) = &mut self.judge.moments_ms;
            for (side, rows, moment_ms) in [
                (left, &mut self.left, left_ms),
                (right, &mut self.right, right_ms),
            ] {
                if let Some(side) = side {
                    rows.again = Some(side.store);
                    rows.find_unsteady(&open.keys, &mut self.unsteady)?;
                    *moment_ms = side.moment_ms.max(*moment_ms);
                }
            }
            self.asked = open.keys;
            open = self.open(rounds == 0)?;
            let right_now = self.asked.difference(&open.keys);
            self.settled.extend(right_now.copied().collect::<Vec<_>>());
        }
        Ok(open.totals)
    }

    /// How many keys were found equal only when they were read again.
    pub(crate) fn settled(&self) -> u64 {
        self.settled.len() as u64
    }

    /// Compares. What is not known to be equal, and the names of it. If so asked, only what nobody
    /// but its server can read, and what was read again because of that: it may differ in another
    /// way now.
    fn open(&self, unreadable_only: bool) -> Result<Open> {
        // Lists first: most that are too many to be looked at again never become sets.
        let (mut keys, mut names) = (Vec::new(), Vec::new());
        let totals = self.differences(|difference| {
            let may_change = match unreadable_only {
                true => matches!(
                    difference.aspects.as_slice(),
                    [Aspect::Unreadable
                        | Aspect::Unsteady
                        | Aspect::Shifting
                        | Aspect::UnknownType]
                ),
                // Which of several keys is meant the servers do not know either.
                false => !difference.is_collision(),
            };
            let is_asked = may_change
                || difference
                    .either()
                    .is_some_and(|row| self.asked.contains(&row.print));
            if let Some(row) = difference.either()
                && is_asked
                && keys.len() <= MAX_AGAIN
            {
                keys.push(row.print);
                names.push(self.prints.name(&row.key));
            }
            Ok(())
        })?;
        // A key is told once.
        if keys.len() > MAX_AGAIN {
            (keys, names) = (Vec::new(), Vec::new());
        }
        Ok(Open {
            totals,
            keys: keys.into_iter().collect(),
            names: names.into_iter().collect(),
        })
    }
}

/// What was found, and what may look otherwise when it is read again.
struct Open {
    totals: Totals,
    keys: FingerprintSet,
    names: FingerprintSet,
}

fn empty() -> FingerprintSet {
    FingerprintSet::with_hasher(BuildHasherDefault::default())
}

fn wait(stop: &Stop) -> Result<()> {
    match host::wait(PAUSE, &|| stop.is_set()) {
        true => Ok(()),
        false => Err(Interrupted.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::collect::library;
    use crate::compare::judge::Aspect;
    use crate::compare::meaning::Reading;
    use crate::compare::meaning::{Depth, Meaning};
    use crate::compare::row::{Row, What};
    use crate::compare::store::Store;
    use crate::payload::Kind;

    /// A side with values that only their server can read: names, and what stands for their bytes.
    fn side(prints: &Prints, values: &[(&str, u128)]) -> Side {
        let mut store = Store::new();
        for (name, body) in values {
            let row = Row {
                print: prints.key(0, prints.name(name.as_bytes())),
                what: What::Key(Kind::Module),
                selected: true,
                db: 0,
                key: name.as_bytes().to_vec(),
                origin: None,
                expire_at_ms: None,
                meaning: Meaning {
                    depth: Depth::Opaque,
                    count: 10,
                    body: *body,
                    ..Meaning::default()
                },
            };
            store.add(&row).unwrap();
        }
        Side {
            store,
            moment_ms: 0,
            lost_dbs: Vec::new(),
            libraries_unread: false,
        }
    }

    fn judge() -> Judge {
        Judge {
            ttl_tolerance_ms: 0,
            ignore_ttl: false,
            ignore_field_ttl: false,
            moments_ms: (0, 0),
        }
    }

    fn found(comparison: &Comparison<'_>) -> Vec<(String, Vec<Aspect>)> {
        let mut found = Vec::new();
        comparison
            .differences(|difference| {
                let name = difference.either().unwrap().key.escape_ascii().to_string();
                found.push((name, difference.aspects));
                Ok(())
            })
            .unwrap();
        found.sort();
        found
    }

    /// `topk` gives other bytes each time, `bloom` really differs, `json` is the same.
    #[test]
    fn what_differs_from_itself_cannot_be_compared() {
        let prints = Prints::default();
        for rounds in [0, 1] {
            let left = side(&prints, &[("topk", 1), ("bloom", 3), ("json", 5)]);
            let right = side(&prints, &[("topk", 2), ("bloom", 4), ("json", 5)]);
            let mut comparison = Comparison::new(left, right, judge(), &prints);
            let totals = comparison
                .settle(rounds, &Stop::new(), |names| {
                    assert_eq!(names.len(), 2);
                    // The left side is a file.
                    Ok((None, Some(side(&prints, &[("topk", 7), ("bloom", 4)]))))
                })
                .unwrap();
            assert_eq!((totals.all.incomparable, totals.all.value), (1, 1));
            assert_eq!((totals.all.compared, totals.all.equal), (2, 1));
            assert_eq!(totals.all.different(), 1);
            assert_eq!(
                found(&comparison),
                [
                    ("bloom".to_owned(), vec![Aspect::Unreadable]),
                    ("topk".to_owned(), vec![Aspect::Unsteady]),
                ]
            );
            assert_eq!(comparison.settled(), 0);
        }
    }

    /// It was only being written: the second look finds the same on both sides.
    #[test]
    fn what_is_the_same_at_the_second_look_is_equal() {
        let prints = Prints::default();
        let (left, right) = (side(&prints, &[("k", 1)]), side(&prints, &[("k", 2)]));
        let mut comparison = Comparison::new(left, right, judge(), &prints);
        let totals = comparison
            .settle(1, &Stop::new(), |_| {
                let again = || side(&prints, &[("k", 3)]);
                Ok((Some(again()), Some(again())))
            })
            .unwrap();
        assert_eq!((totals.all.equal, totals.all.incomparable), (1, 0));
        assert_eq!(comparison.settled(), 1);
    }

    /// A database that was not read to its end: what did not come of it may stand all the same.
    #[test]
    fn what_a_lost_database_did_not_give_is_not_missing() {
        let prints = Prints::default();
        let all = || side(&prints, &[("k", 1), ("l", 1)]);
        let some = |lost_dbs: &[u32]| Side {
            lost_dbs: lost_dbs.to_vec(),
            ..side(&prints, &[("k", 1)])
        };
        for (left, right, different) in [
            (all(), some(&[0]), 0),
            (some(&[0]), all(), 0),
            (all(), some(&[1]), 1),
        ] {
            let mut comparison = Comparison::new(left, right, judge(), &prints);
            let stop = Stop::new();
            let totals = comparison.settle(0, &stop, |_| Ok((None, None))).unwrap();
            assert_eq!(totals.all.different(), different);
            assert_eq!((totals.all.equal, comparison.settled()), (1, 0));
        }
        // Lost when it is looked at again: the look before counts.
        let mut comparison = Comparison::new(all(), some(&[]), judge(), &prints);
        let totals = comparison
            .settle(1, &Stop::new(), |_| Ok((None, Some(some(&[0])))))
            .unwrap();
        assert_eq!((totals.all.missing, comparison.settled()), (1, 0));
    }

    /// Libraries that a side did not give: what did not come may stand all the same, and is counted
    /// as unread.
    #[test]
    fn what_unread_libraries_lack_is_not_missing() {
        let prints = Prints::default();
        let side_of = |unread: bool, names: &[&str]| {
            let mut side = side(&prints, &[("k", 1)]);
            side.libraries_unread = unread;
            for name in names {
                let reading = Reading {
                    prints: prints.clone(),
                    from_ms: 0,
                };
                let row = library(&reading, name.as_bytes(), b"code");
                side.store.add(&row).unwrap();
            }
            side
        };
        for (left, right, missing, unread) in [
            (side_of(false, &["l"]), side_of(false, &[]), 1, 0),
            (side_of(false, &["l"]), side_of(true, &[]), 0, 1),
            (side_of(true, &[]), side_of(false, &["l"]), 0, 1),
            (side_of(true, &["l"]), side_of(true, &["l"]), 0, 0),
        ] {
            let mut comparison = Comparison::new(left, right, judge(), &prints);
            let stop = Stop::new();
            let totals = comparison.settle(0, &stop, |_| Ok((None, None))).unwrap();
            let counts = totals.all;
            assert_eq!(
                (counts.missing + counts.extra, counts.unread),
                (missing, unread)
            );
        }
        // Not given when it is looked at again: the look before counts.
        let (left, right) = (side_of(false, &["l"]), side_of(false, &[]));
        let mut comparison = Comparison::new(left, right, judge(), &prints);
        let again = || Ok((None, Some(side_of(true, &[]))));
        let totals = comparison.settle(1, &Stop::new(), |_| again()).unwrap();
        assert_eq!((totals.all.missing, totals.all.unread), (1, 0));
        // Never given: the keys are looked at again all the same.
        let (left, mut right) = (side_of(false, &["l"]), side(&prints, &[]));
        right.libraries_unread = true;
        let mut comparison = Comparison::new(left, right, judge(), &prints);
        let again = || Ok((None, Some(side_of(true, &[]))));
        let totals = comparison.settle(1, &Stop::new(), |_| again()).unwrap();
        assert_eq!((totals.all.missing, totals.all.unread), (0, 1));
        assert_eq!(totals.all.equal, 1);
    }

    /// It was changed, or deleted, between the looks: that is no less a difference than before.
    #[test]
    fn what_differs_otherwise_at_the_second_look_is_named() {
        let prints = Prints::default();
        let mut string = side(&prints, &[]);
        let row = Row {
            print: prints.key(0, prints.name(b"k")),
            what: What::Key(Kind::String),
            selected: true,
            db: 0,
            key: b"k".to_vec(),
            origin: None,
            expire_at_ms: None,
            meaning: Meaning::default(),
        };
        string.store.add(&row).unwrap();
        for (now, aspect) in [
            (side(&prints, &[]), Aspect::Missing),
            (string, Aspect::Type),
        ] {
            let (left, right) = (side(&prints, &[("k", 1)]), side(&prints, &[("k", 2)]));
            let mut comparison = Comparison::new(left, right, judge(), &prints);
            let mut now = Some(now);
            let totals = comparison
                .settle(0, &Stop::new(), |_| Ok((None, now.take())))
                .unwrap();
            assert_eq!((totals.all.different(), comparison.settled()), (1, 0));
            assert_eq!(found(&comparison), [("k".to_owned(), vec![aspect])]);
        }
    }

    /// Two files: nobody can be asked again.
    #[test]
    fn without_a_server_the_bytes_decide() {
        let prints = Prints::default();
        let (left, right) = (side(&prints, &[("k", 1)]), side(&prints, &[("k", 2)]));
        let mut comparison = Comparison::new(left, right, judge(), &prints);
        let totals = comparison
            .settle(0, &Stop::new(), |_| Ok((None, None)))
            .unwrap();
        assert_eq!((totals.all.value, totals.all.incomparable), (1, 0));
    }
}
