//! Places in a scan from which a later run can go on.
//!
//! Now and then no further names are asked for until every name that SCAN gave was read and given.
//! Then the next cursor, and what became of all that came before it, is the whole state. That costs
//! a few round trips, and is not done more often than they matter.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Job, ServerSource};
use crate::host;
use crate::ledger::SourceCounts;
use crate::record::Checkpoint;
use crate::server::counts::CommandCounts;

/// How often at most.
const EVERY: Duration = Duration::from_millis(250);

/// How seldom at most: so much is done again after a stop.
const SELDOM: Duration = Duration::from_secs(5);

/// Draining takes at most one part in so many of the time.
const SHARE: u32 = 20;

/// When the next is due.
pub(super) struct Checkpoints {
    last: Instant,
    every: Duration,
    /// Since when no names are asked for.
    draining: Option<Instant>,
}

impl ServerSource {
    /// From now on batches carry checkpoints.
    pub fn keep_checkpoints(&mut self) {
        self.checkpoints = Some(Checkpoints {
            last: host::now(),
            every: EVERY,
            draining: None,
        });
    }

    /// Goes on at `at` instead of at the beginning, before anything was read; or says why its cursor
    /// means nothing here, and changes nothing.
    ///
    /// # Errors
    /// The connection's.
    pub fn go_on_from(&mut self, at: &Checkpoint) -> Result<Option<&'static str>> {
        if self.facts.run_id.is_none() {
            return Ok(Some("the source does not tell its run_id"));
        }
        if self.facts.run_id.as_ref() != Some(&at.run_id) || self.facts.replica != at.replica {
            return Ok(Some("the source was restarted, or is another one (run_id)"));
        }
        if let Some(why) = self.swapped_since(at) {
            return Ok(Some(why));
        }
        self.db = at.db;
        self.cursor = at.cursor.as_ref().map(|cursor| cursor.clone().into_bytes());
        self.waiting = at.waiting.iter().map(|db| Job::Scan(*db)).collect();
        for (db, counts) in &at.counts {
            *self.counts.of(*db) = from_numbers(*db, counts);
        }
        if at.functions > 0 {
            self.functions = None;
            self.functions_given = at.functions;
        }
        self.from_ms = at.from_ms;
        self.started_ms = at.started_ms;
        Ok(None)
    }

    pub(super) fn begin_checkpoint(&mut self) {
        // Of a process that has no name nothing can be gone on with.
        if let Some(checkpoints) = &mut self.checkpoints
            && self.facts.run_id.is_some()
            && checkpoints.draining.is_none()
            && host::elapsed(checkpoints.last) >= checkpoints.every
        {
            checkpoints.draining = Some(host::now());
        }
    }

    /// Whether no further names are to be asked for.
    pub(super) fn drains(&self) -> bool {
        let checkpoints = self.checkpoints.as_ref();
        checkpoints.is_some_and(|checkpoints| checkpoints.draining.is_some())
    }

    /// Whether every name that SCAN gave was read, and nothing is in flight.
    pub(super) fn is_drained(&self) -> bool {
        self.drains()
            && self.keys.is_empty()
            && self.sent.is_empty()
            && self.awaited.is_empty()
            && !self.scan_in_flight
    }

    pub(super) fn take_checkpoint(&mut self) -> Option<Checkpoint> {
        let checkpoints = self.checkpoints.as_mut()?;
        let drained = host::elapsed(checkpoints.draining.take()?);
        checkpoints.last = host::now();
        checkpoints.every = (drained * SHARE).clamp(EVERY, SELDOM);
        let scans = self.waiting.iter().filter_map(|job| match job {
            Job::Scan(db) => Some(*db),
            Job::Names(..) => None,
        });
        let cursor = self.cursor.as_ref();
        Some(Checkpoint {
            run_id: self.facts.run_id.clone()?,
            replica: self.facts.replica,
            db: self.db,
            cursor: cursor.map(|cursor| String::from_utf8_lossy(cursor).into_owned()),
            waiting: scans.collect(),
            counts: self.counts.rows().iter().map(numbers).collect(),
            functions: self.functions_given,
            from_ms: self.from_ms,
            started_ms: self.started_ms,
            swaps: self.counts_before.as_ref().map(CommandCounts::swaps),
        })
    }
}

fn numbers(row: &SourceCounts) -> (u32, [u64; 7]) {
    (
        row.db,
        [
            row.scanned,
            row.reread,
            row.written,
            row.superseded,
            row.filtered,
            row.vanished,
            row.failed,
        ],
    )
}

fn from_numbers(db: u32, numbers: &[u64; 7]) -> SourceCounts {
    let [
        scanned,
        reread,
        written,
        superseded,
        filtered,
        vanished,
        failed,
    ] = *numbers;
    SourceCounts {
        db,
        scanned,
        reread,
        written,
        superseded,
        filtered,
        vanished,
        failed,
    }
}
