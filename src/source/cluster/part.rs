//! One node of a cluster that is being read, or was.

use std::sync::Arc;

use anyhow::Result;
use redis_migrate_format::header::Node;

use crate::ledger::SourceReport;
use crate::pace::Pace;
use crate::record::{Batch, Family};
use crate::server::facts::Keyspace;
use crate::server::{Conn, ServerError};
use crate::source::server::delivered::GivenLog;
use crate::source::server::{ConvergingSource, Disturbed, Leftovers, ServerSource, SlotSet};
use crate::source::{Estimate, Source};

/// How a node is read.
pub(super) enum Reader {
    /// Key by key.
    Scan(Box<ServerSource>),
    /// Key by key, then again what changed, until it is exact.
    Converge(Box<ConvergingSource>),
    /// No longer: it was lost, or it was only read while it imported slots.
    Gone(Box<Gone>),
}

/// What is kept of a node that is no longer read.
pub(super) struct Gone {
    report: SourceReport,
    log: Option<GivenLog>,
    process: Option<String>,
    /// A plain scan that had read everything.
    is_through: bool,
}

/// A node.
pub(super) struct Part {
    /// Its number in the archive.
    pub number: u32,
    /// The id of the primary whose slots are read from it.
    pub primary: String,
    pub reader: Reader,
    /// The primary, where a replica is read: only the primary knows which slots are being moved.
    pub primary_conn: Option<Conn>,
    /// Why it cannot be read any more.
    pub lost: Option<String>,
    /// It imports the slots that are read from it; another node owns them.
    pub asking: bool,
    /// How many keys it had when it was opened.
    pub keys_at_first: u64,
    /// It took over slots of which other nodes had given keys.
    pub took_over: bool,
    /// How many slots are read from it, and how many it served when it was opened.
    pub share: (u64, u64),
}

/// Whether an error means that the node cannot be read right now.
pub(super) fn is_lost(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<ServerError>() {
        Some(ServerError::Reply { reason, .. }) => reason.starts_with("MASTERDOWN"),
        _ => crate::server::is_lost(error),
    }
}

impl Part {
    /// Whether it can be read.
    pub fn is_live(&self) -> bool {
        self.lost.is_none() && !matches!(self.reader, Reader::Gone(_))
    }

    /// Whether it can be read and owns slots, rather than only importing them.
    pub fn is_owner(&self) -> bool {
        self.is_live() && !self.asking
    }

    pub fn scan(&mut self) -> Option<&mut ServerSource> {
        match &mut self.reader {
            Reader::Scan(source) => Some(source),
            Reader::Converge(source) => Some(source.inner()),
            Reader::Gone(_) => None,
        }
    }

    pub fn converging(&mut self) -> Option<&mut ConvergingSource> {
        match &mut self.reader {
            Reader::Converge(source) if self.lost.is_none() => Some(source),
            _ => None,
        }
    }

    /// The connection for questions about the cluster.
    pub fn conn(&mut self) -> Option<&mut Conn> {
        if self.primary_conn.is_some() {
            return self.primary_conn.as_mut();
        }
        self.scan().map(ServerSource::conn)
    }

    /// Keys that it gave after ASKING and that may be leftovers.
    pub fn leftovers(&mut self) -> Leftovers {
        self.scan().map(|scan| scan.leftovers()).unwrap_or_default()
    }

    pub fn take_disturbed(&mut self) -> Disturbed {
        self.scan()
            .map(ServerSource::take_disturbed)
            .unwrap_or_default()
    }

    /// The names of all keys that it gave.
    pub fn log(&mut self) -> Result<Option<GivenLog>> {
        match &mut self.reader {
            Reader::Scan(source) => source.given_log(),
            Reader::Converge(source) => source.given_log(),
            Reader::Gone(gone) => gone.log.as_ref().map(GivenLog::again).transpose(),
        }
    }

    /// The run id of the process that it was read from, if it says.
    pub fn process(&self) -> Option<&str> {
        match &self.reader {
            Reader::Scan(source) => source.facts().run_id.as_deref(),
            Reader::Converge(source) => source.process(),
            Reader::Gone(gone) => gone.process.as_deref(),
        }
    }

    /// Whether keys of its slots were given, by it or by nodes before it.
    pub fn has_given(&self) -> bool {
        self.took_over || self.report().total().written > 0
    }

    /// Whether it was lost with keys that may not have been read or may have changed since.
    pub fn left_keys(&self) -> bool {
        let was_through = matches!(&self.reader, Reader::Gone(gone) if gone.is_through);
        !self.is_live() && !was_through && (self.keys_at_first > 0 || self.has_given())
    }

    /// Whether it gave keys, and nobody noted which: what is deleted of them while another node is read
    /// instead, nobody sees.
    pub fn gave_without_log(&self) -> bool {
        let is_logged = match &self.reader {
            Reader::Scan(_) => false,
            Reader::Converge(_) => true,
            Reader::Gone(gone) => gone.log.is_some(),
        };
        !is_logged && self.has_given()
    }

    /// Stops reading from it.
    pub fn retire(&mut self) -> Result<()> {
        let log = self.log()?;
        let process = self.process().map(str::to_owned);
        let is_through = matches!(&self.reader, Reader::Scan(source) if source.is_through());
        if let Some(scan) = self.scan() {
            scan.forget_flight();
        }
        self.reader = Reader::Gone(Box::new(Gone {
            report: self.report(),
            log,
            process,
            is_through,
        }));
        self.primary_conn = None;
        Ok(())
    }

    pub fn adopt(&mut self, slots: &SlotSet, logs: Vec<GivenLog>) -> Result<()> {
        match &mut self.reader {
            Reader::Scan(source) => source.adopt(slots),
            Reader::Converge(source) => source.adopt(slots, logs),
            Reader::Gone(_) => Ok(()),
        }
    }

    pub fn release(&mut self, slots: &SlotSet) {
        match &mut self.reader {
            Reader::Scan(source) => source.release(slots),
            Reader::Converge(source) => source.release(slots),
            Reader::Gone(_) => {}
        }
    }

    /// For the header of an archive.
    pub fn node(&mut self) -> Node {
        let facts = self
            .scan()
            .map(|scan| scan.facts().clone())
            .unwrap_or_default();
        Node {
            rdb_version: facts.rdb_version(),
            version: facts.version,
            run_id: facts.run_id.unwrap_or_default(),
        }
    }

    pub fn family(&mut self) -> Family {
        self.scan()
            .map_or(Family::Other, |scan| scan.facts().family)
    }

    /// Databases with keys; estimates where only part of the slots is read.
    pub fn databases(&mut self) -> Vec<Keyspace> {
        let share = self.share;
        let rows = self.scan().map(|scan| scan.databases().to_vec());
        let mut rows = rows.unwrap_or_default();
        for row in &mut rows {
            row.keys = of_share(row.keys, share);
            row.expires = of_share(row.expires, share);
        }
        rows
    }
}

impl Source for Part {
    fn read(&mut self, batch: &mut Batch) -> Result<bool> {
        if self.lost.is_some() {
            return Ok(false);
        }
        let read = match &mut self.reader {
            Reader::Scan(source) => source.read(batch),
            Reader::Converge(source) => source.read(batch),
            Reader::Gone(_) => return Ok(false),
        };
        let more = match read {
            // What was read before stays valid; another node has the rest.
            Err(error) if is_lost(&error) => {
                self.lost = Some(format!("{error:#}"));
                match &mut self.reader {
                    Reader::Scan(source) => source.stamp(batch),
                    Reader::Converge(source) => {
                        source.disturb_others();
                        source.inner().stamp(batch);
                    }
                    Reader::Gone(_) => {}
                }
                !batch.is_empty()
            }
            read => read?,
        };
        batch.context.node = self.number;
        Ok(more)
    }

    fn keep_pace(&mut self, pace: &Arc<Pace>) {
        if let Some(scan) = self.scan() {
            scan.keep_pace(pace);
        }
    }

    fn report(&self) -> SourceReport {
        match &self.reader {
            Reader::Scan(source) => source.report(),
            Reader::Converge(source) => source.report(),
            Reader::Gone(gone) => gone.report.clone(),
        }
    }

    fn estimate(&self) -> Estimate {
        let mut estimate = match &self.reader {
            Reader::Scan(source) => source.estimate(),
            Reader::Converge(source) => source.estimate(),
            Reader::Gone(_) => Estimate::default(),
        };
        estimate.records = estimate.records.map(|keys| of_share(keys, self.share));
        estimate
    }
}

/// How many keys of a node are likely to be in the slots that are read.
fn of_share(keys: u64, (read, served): (u64, u64)) -> u64 {
    match served {
        0 => keys,
        _ => (u128::from(keys) * u128::from(read)).div_ceil(u128::from(served)) as u64,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ledger::SourceCounts;

    /// The report of who gave so many keys, and not as exactly as was asked for.
    pub fn inexact(written: u64) -> SourceReport {
        let row = SourceCounts {
            scanned: written,
            written,
            ..SourceCounts::default()
        };
        let mut report = SourceReport {
            counts: vec![row],
            ..SourceReport::default()
        };
        report.exactness.missed = true;
        report
    }

    /// A node that was lost, with or without a list of the keys that it gave.
    pub fn lost(report: SourceReport, log: Option<GivenLog>) -> Part {
        Part {
            number: 0,
            primary: "a".to_owned(),
            reader: Reader::Gone(Box::new(Gone {
                report,
                log,
                process: None,
                is_through: false,
            })),
            primary_conn: None,
            lost: Some("it hung up".to_owned()),
            asking: false,
            keys_at_first: 9,
            took_over: false,
            share: (1, 1),
        }
    }

    #[test]
    fn what_a_node_gave_is_seen_to_go_only_by_a_list_of_it() {
        let empty = || Some(GivenLog::empty().expect("a temporary file"));
        assert!(lost(inexact(3), None).gave_without_log());
        assert!(!lost(inexact(3), empty()).gave_without_log());
        assert!(!lost(inexact(0), None).gave_without_log());
        // Its slots came from a node that had given keys.
        let mut heir = lost(inexact(0), None);
        heir.took_over = true;
        assert!(heir.gave_without_log());
    }

    #[test]
    fn keys_are_guessed_by_the_slots_that_are_read() {
        assert_eq!(of_share(1_000, (5_461, 5_461)), 1_000);
        assert_eq!(of_share(1_000, (2_000, 8_000)), 250);
        assert_eq!(of_share(1, (1, 8_000)), 1);
        // A node that gets slots later: all that it has.
        assert_eq!(of_share(7, (0, 0)), 7);
    }
}
