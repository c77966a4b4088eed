//! The report of all shards together.

use super::libraries::ClusterLibraries;
use super::part::Part;
use super::parts::Parts;
use crate::host;
use crate::ledger::{ConsistencyReached, CountsByDb, SourceReport};
use crate::source::Source as _;

/// What is known of the cluster as a whole.
pub(super) struct Verdict {
    /// What was left out on purpose, in a line.
    pub left_out: Option<String>,
    /// The pause of all shards that the user asked for was refused.
    pub pause_missed: bool,
    /// Some keys may be leftovers of a slot move that was called off.
    pub has_leftovers: bool,
    /// What may be missing, a line each.
    pub not_had: Vec<String>,
    /// When reading began, Unix ms.
    started_ms: u64,
}

impl Verdict {
    pub fn new(left_out: Option<String>) -> Self {
        Self {
            left_out,
            pause_missed: false,
            has_leftovers: false,
            not_had: Vec::new(),
            started_ms: host::unix_ms(),
        }
    }

    /// The report; `is_common` if all shards were read at one instant.
    pub fn report(
        &self,
        parts: &Parts,
        libraries: &ClusterLibraries,
        is_common: bool,
    ) -> SourceReport {
        let mut report = SourceReport {
            duplicates_possible: true,
            started_ms: self.started_ms,
            ..SourceReport::default()
        };
        report.exactness.missed = self.pause_missed;
        let mut counts = CountsByDb::default();
        for part in parts.iter() {
            let of_part = part.report();
            for row in &of_part.counts {
                counts.add(row);
            }
            let counts = parts.counts(part) || part.gave_without_log();
            add(&mut report, of_part, part, counts);
        }
        libraries.report(&mut report);
        let not_had = &mut report.lacks.not_had;
        not_had.extend(self.not_had.clone());
        not_had.sort();
        not_had.dedup();
        report.counts = counts.rows();
        let reached = &mut report.exactness.reached;
        *reached = reached.take().map(|reached| self.since_start(reached));
        if self.has_leftovers {
            *reached = reached.take().map(as_of_scan);
        }
        // One moment means one instant for the whole cluster. Several mean that each shard has its
        // own, even if two of them fall into the same millisecond.
        if let (true, Some(ConsistencyReached::Exact(moments))) = (is_common, reached) {
            moments.truncate(1);
        }
        report
    }

    /// The window begins when the run began, also for nodes that were opened later.
    fn since_start(&self, reached: ConsistencyReached) -> ConsistencyReached {
        let first = self.started_ms;
        match reached {
            ConsistencyReached::Scan { from_ms, to_ms } => ConsistencyReached::Scan {
                from_ms: from_ms.min(first),
                to_ms,
            },
            ConsistencyReached::PerKey { from_ms, to_ms } => ConsistencyReached::PerKey {
                from_ms: from_ms.min(first),
                to_ms,
            },
            ConsistencyReached::Changing {
                from_ms,
                to_ms,
                keys,
            } => ConsistencyReached::Changing {
                from_ms: from_ms.min(first),
                to_ms,
                keys,
            },
            exact @ ConsistencyReached::Exact(_) => exact,
        }
    }
}

/// Adds the report of a part. How exact it is counts only if slots are still read from it, or if what it
/// gave stands beside what others give.
fn add(report: &mut SourceReport, of_part: SourceReport, part: &Part, counts: bool) {
    report.above_max_value += of_part.above_max_value;
    report.lacks.not_had.extend(of_part.lacks.not_had);
    report.lacks.lost_dbs.extend(of_part.lacks.lost_dbs);
    let (whole, of_part) = (&mut report.exactness, of_part.exactness);
    whole.paused = whole.paused.max(of_part.paused);
    if !counts {
        return;
    }
    whole.missed |= of_part.missed;
    if let Some(reached) = of_part.reached {
        let reached = of_node(reached, part.number);
        whole.reached = Some(match whole.reached.take() {
            Some(before) => worse(before, reached),
            None => reached,
        });
    }
}

/// Downgraded to a scan: where some keys may be leftovers, not every key is known to be current.
fn as_of_scan(reached: ConsistencyReached) -> ConsistencyReached {
    let (from_ms, to_ms) = window(&reached);
    match reached {
        changing @ ConsistencyReached::Changing { .. } => changing,
        _ => ConsistencyReached::Scan { from_ms, to_ms },
    }
}

/// From when to when; for exact shards from the first instant to the last.
fn window(reached: &ConsistencyReached) -> (u64, u64) {
    use ConsistencyReached::{Changing, Exact, PerKey, Scan};
    match reached {
        Scan { from_ms, to_ms } | PerKey { from_ms, to_ms } | Changing { from_ms, to_ms, .. } => {
            (*from_ms, *to_ms)
        }
        Exact(moments) => {
            let times = || moments.iter().map(|(_, at)| *at);
            (
                times().min().unwrap_or(u64::MAX),
                times().max().unwrap_or(0),
            )
        }
    }
}

fn of_node(reached: ConsistencyReached, node: u32) -> ConsistencyReached {
    match reached {
        ConsistencyReached::Exact(moments) => {
            ConsistencyReached::Exact(moments.into_iter().map(|(_, at)| (node, at)).collect())
        }
        other => other,
    }
}

/// The whole is as good as its worst part. From bad to good: a plain scan, keys still changing, per
/// key, exact (each shard at its own instant).
fn worse(one: ConsistencyReached, other: ConsistencyReached) -> ConsistencyReached {
    use ConsistencyReached::{Changing, Exact, PerKey, Scan};
    let ((from_a, to_a), (from_b, to_b)) = (window(&one), window(&other));
    let (from_ms, to_ms) = (from_a.min(from_b), to_a.max(to_b));
    match (one, other) {
        (Exact(mut one), Exact(other)) => {
            one.extend(other);
            Exact(one)
        }
        (Scan { .. }, _) | (_, Scan { .. }) => Scan { from_ms, to_ms },
        (Changing { keys: a, .. }, Changing { keys: b, .. }) => Changing {
            from_ms,
            to_ms,
            keys: a + b,
        },
        (Changing { keys, .. }, _) | (_, Changing { keys, .. }) => Changing {
            from_ms,
            to_ms,
            keys,
        },
        (PerKey { .. }, _) | (_, PerKey { .. }) => PerKey { from_ms, to_ms },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::cluster::part::tests::{inexact, lost};
    use crate::source::server::delivered::GivenLog;

    /// However exactly its slots were read elsewhere.
    #[test]
    fn a_node_that_is_gone_counts_if_nobody_noted_what_it_gave() {
        let is_missed = |written, log| {
            let mut parts = Parts::default();
            parts.push(lost(inexact(written), log));
            let verdict = Verdict::new(None);
            let report = verdict.report(&parts, &ClusterLibraries::default(), true);
            report.exactness.missed
        };
        assert!(is_missed(3, None));
        let log = GivenLog::empty().expect("a temporary file");
        assert!(!is_missed(3, Some(log)));
        assert!(!is_missed(0, None));
    }

    #[test]
    fn the_whole_is_as_good_as_its_worst_part() {
        use ConsistencyReached::{Changing, Exact, PerKey, Scan};
        let exact = |node, at| Exact(vec![(node, at)]);
        let per_key = PerKey {
            from_ms: 5,
            to_ms: 9,
        };
        assert_eq!(worse(exact(0, 7), exact(1, 8)), Exact(vec![(0, 7), (1, 8)]));
        assert_eq!(
            worse(exact(0, 3), per_key.clone()),
            PerKey {
                from_ms: 3,
                to_ms: 9
            }
        );
        let changing = Changing {
            from_ms: 6,
            to_ms: 7,
            keys: 2,
        };
        assert_eq!(
            worse(per_key.clone(), changing),
            Changing {
                from_ms: 5,
                to_ms: 9,
                keys: 2
            }
        );
        let scan = Scan {
            from_ms: 1,
            to_ms: 2,
        };
        assert_eq!(
            worse(scan, per_key),
            Scan {
                from_ms: 1,
                to_ms: 9
            }
        );
    }
}
