//! A live server as a sink: RESTORE, pipelined, with every reply matched to its key.
//!
//! What may be in flight is bounded in bytes. A key that is in flight is never sent again before
//! its reply is there, so records of the same key take effect in their order, whatever has to be
//! repeated.

mod by_commands;
pub mod commands;
pub mod compare;
mod fate;
mod flow;
mod functions;
mod refusal;
mod settle;
mod take;
pub mod target;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;

use self::commands::{CommandLimits, Commands, Ticket};
use self::target::{Ready, Target};
use super::{Accepted, Sink};
use crate::exit::Usage;
use crate::ledger::{Changes, SinkReport, SourceReport};
use crate::memory::{Fingerprint, FingerprintSet, OwnWrites};
use crate::observer::Observer;
use crate::policy::{AllowLoss, FunctionPolicy, Method, OnConflict};
use crate::record::{Batch, Context, Family, KeyRecord, Origin, Record, Value};
use crate::server::facts::{Facts, ServerClock};
use crate::server::resp::Item;
use crate::server::{ABSENT_KEY, Conn};

/// Bytes and records that may be in flight.
const WINDOW_BYTES: usize = 4 * 1024 * 1024;
const WINDOW_RECORDS: usize = 8_000;

/// How to write.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerSinkOptions {
    /// Conflicts.
    pub on_conflict: OnConflict,
    /// Function libraries.
    pub functions: FunctionPolicy,
    /// Refuse larger values.
    pub max_value_bytes: Option<u64>,
    /// Losses that are accepted.
    pub allow_loss: AllowLoss,
    /// Write every value anew in universal forms.
    pub sanitize: bool,
    /// By RESTORE or by native commands.
    pub method: Method,
    /// Values come straight from a live server of this very version.
    pub source_is_twin: bool,
    /// Different keys of the source may come under one name: it is noticed, if origins are kept.
    pub may_collide: bool,
    /// Change nothing, say what would happen.
    pub dry_run: bool,
}

enum Action {
    Select,
    /// `own`: in place of what this run wrote earlier.
    Restore {
        replace: bool,
        own: bool,
    },
    /// Reads back a key that stood already.
    Compare,
    /// Dry run: is it there?
    Look,
    /// Removes a key because its record is past its time, or a tombstone.
    Delete {
        expired: bool,
    },
}

struct Sent {
    action: Action,
    record: KeyRecord,
    /// How its value goes out by RESTORE.
    ready: Ready,
    /// It goes out by native commands instead; what of them is unanswered.
    by_commands: Option<Option<Ticket>>,
    origin: Option<Origin>,
    /// Its value as it came, where somebody will compare it with the source.
    original: Option<Value>,
    context: Context,
    print: Fingerprint,
    bytes: usize,
    /// Number of the batch it came with, from 1; 0 for what came with none.
    batch: u64,
}

/// Writes a live server.
pub struct ServerSink {
    conn: Conn,
    facts: Facts,
    clock: ServerClock,
    options: ServerSinkOptions,
    observer: Arc<Observer>,
    accepted: Option<Box<dyn Accepted>>,
    /// Learnt when the first key comes.
    target: Option<Target>,
    /// Learnt when the first value is to be written by native commands.
    commands: Option<Commands>,
    /// What the destination takes in one piece, once it was asked.
    limits: Option<CommandLimits>,
    /// RESTORE is not to be used, or not to be had.
    all_by_commands: bool,
    pexpiretime: bool,
    own: OwnWrites,
    /// Where what this run wrote came from, if different keys may come under one name.
    own_origins: Option<OwnWrites>,
    db: Option<u32>,
    sent: VecDeque<Sent>,
    sent_bytes: usize,
    sent_prints: FingerprintSet,
    busy_since: Option<Instant>,
    /// Batches so far.
    batches: u64,
    report: SinkReport,
}

impl ServerSink {
    /// Prepares to write what `conn` leads to.
    ///
    /// # Errors
    /// [`Usage`] for what cannot be written (a cluster's node), and connection errors.
    pub fn open(
        mut conn: Conn,
        options: ServerSinkOptions,
        accepted: Option<Box<dyn Accepted>>,
        observer: Arc<Observer>,
    ) -> Result<Self> {
        conn.doing("asking the destination what it is");
        let facts = Facts::ask(&mut conn)?;
        if facts.cluster {
            return Err(Usage(
                "the destination is a node of a cluster, and clusters are not supported yet; \
                 nothing was written"
                    .to_owned(),
            )
            .into());
        }
        let clock = ServerClock::ask(&mut conn)?;
        let pexpiretime = conn
            .try_query(redis::cmd("PEXPIRETIME").arg(ABSENT_KEY))?
            .is_ok();
        if let (Some(policy), Some(1..)) = (facts.policy.as_deref(), facts.maxmemory)
            && policy != "noeviction"
        {
            observer.warn(&format!(
                "the destination evicts keys when it is full (maxmemory-policy {policy}); \
                 evictions during this run will be counted"
            ));
        }
        if options.may_collide && options.on_conflict == OnConflict::Replace {
            observer.warn(
                "with these databases or prefixes different keys may get the same name, and under \
                 --on-conflict replace the last one wins unseen",
            );
        }
        conn.doing("restoring keys");
        Ok(Self {
            conn,
            facts,
            clock,
            options,
            observer,
            accepted,
            target: None,
            commands: None,
            limits: None,
            all_by_commands: options.method == Method::Commands,
            pexpiretime,
            own: OwnWrites::default(),
            own_origins: options.may_collide.then(OwnWrites::default),
            // Where every connection begins; some services refuse even SELECT 0.
            db: Some(0),
            sent: VecDeque::new(),
            sent_bytes: 0,
            sent_prints: FingerprintSet::default(),
            busy_since: None,
            batches: 0,
            report: SinkReport::default(),
        })
    }

    /// The values will come straight from a live server of this family and version.
    pub fn expect_twin(&mut self, family: Family, version: &str) {
        self.options.source_is_twin =
            family == self.facts.family && !version.is_empty() && version == self.facts.version;
    }

    /// What the server said of itself.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The server's clock.
    pub fn clock(&self) -> ServerClock {
        self.clock
    }

    /// Warns if `coming_bytes` of values are likely to exceed the destination's memory.
    pub fn check_memory(&self, coming_bytes: u64) {
        let (Some(max @ 1..), Some(used)) = (self.facts.maxmemory, self.facts.used_memory) else {
            return;
        };
        if used.saturating_add(coming_bytes) > max {
            self.observer.warn(&format!(
                "the destination is likely to run full: maxmemory {}, used {}, coming at least {}",
                crate::units::bytes_text(max),
                crate::units::bytes_text(used),
                crate::units::bytes_text(coming_bytes),
            ));
        }
    }

    /// Reads what is still due after a failure, only to count what was applied.
    fn count_rest(&mut self) {
        let rest = |sink: &mut Self| -> Result<()> {
            sink.conn.flush()?;
            while let Some(sent) = sink.sent.front() {
                if sent.by_commands.is_some() && matches!(sent.action, Action::Restore { .. }) {
                    sink.read_written()?;
                    continue;
                }
                if matches!(sent.action, Action::Compare) {
                    compare::read(&mut sink.conn, sink.pexpiretime)?;
                    sink.take_sent();
                    sink.report.conflicts += 1;
                    continue;
                }
                let accepted = matches!(sink.conn.item()?, Item::Simple(_) | Item::Int(_));
                match sink.take_sent().map(|sent| sent.action) {
                    Some(Action::Restore { own: true, .. }) if accepted => {
                        sink.report.replaced_own += 1
                    }
                    Some(Action::Restore { .. }) if accepted => sink.report.restored += 1,
                    Some(Action::Restore { .. }) => sink.report.refused += 1,
                    Some(Action::Delete { expired: true }) => sink.report.expired += 1,
                    Some(Action::Delete { expired: false }) => sink.report.deleted += 1,
                    _ => {}
                }
            }
            Ok(())
        };
        if rest(self).is_err() {
            self.report.unacknowledged = self
                .sent
                .iter()
                .filter(|sent| !matches!(sent.action, Action::Select))
                .count() as u64;
        }
    }

    /// Evictions since the start: accepted, and lost after all.
    fn count_evictions(&mut self) -> Result<()> {
        let Some(before) = self.facts.evicted_keys else {
            return Ok(());
        };
        let Some(after) = Facts::ask(&mut self.conn)?.evicted_keys else {
            return Ok(());
        };
        self.report.evicted = after.saturating_sub(before);
        if self.report.evicted > 0 {
            self.report.problems.push(format!(
                "the destination evicted {} keys during this run, perhaps some of those just written; \
                 raise maxmemory and run again",
                self.report.evicted
            ));
        }
        Ok(())
    }

    fn closing_report(self) -> SinkReport {
        let target = self.target.map(|target| target.changes).unwrap_or_default();
        let own = self.report.changes;
        let changes = Changes {
            restamped: target.restamped,
            reencoded: target.reencoded,
            field_ttls_lost: target.field_ttls_lost + own.field_ttls_lost,
            streams_filled_in: target.streams_filled_in + own.streams_filled_in,
            by_commands: own.by_commands,
            functions_lost: own.functions_lost,
        };
        SinkReport {
            changes,
            ..self.report
        }
    }

    fn complete(&mut self) -> Result<()> {
        self.drain()?;
        if let Some(mut accepted) = self.accepted.take() {
            (self.report.source_deleted, self.report.source_kept) = accepted.finish()?;
        }
        self.count_evictions()
    }
}

impl Sink for ServerSink {
    fn write(&mut self, batch: Batch) -> Result<()> {
        self.batches += 1;
        let context = batch.context;
        let mut origins = batch.origins.into_iter();
        for record in batch.records {
            let origin = origins.next();
            match record {
                Record::Key(record) => self.take_key(record, origin, context)?,
                Record::Deleted { db, key } => self.take_tombstone(db, key, context)?,
                Record::Functions(payload) => {
                    self.drain()?;
                    self.take_functions(&payload)?;
                }
                _ => {}
            }
        }
        self.conn.flush()?;
        // A value larger than the window is not kept in flight beside the next one.
        if self.sent_bytes > WINDOW_BYTES {
            self.drain()
        } else {
            Ok(())
        }
    }

    fn idle(&mut self) -> Result<()> {
        // A key that is ours but in the way is written again only when its refusal is read.
        self.drain()
    }

    fn finish(mut self: Box<Self>, _: &SourceReport) -> (SinkReport, Result<()>) {
        let done = self.complete();
        if done.is_err() {
            self.count_rest();
        }
        (self.closing_report(), done)
    }

    fn abort(mut self: Box<Self>, _: &str) -> SinkReport {
        self.count_rest();
        if let Some(mut accepted) = self.accepted.take()
            && let Ok((deleted, kept)) = accepted.finish()
        {
            (self.report.source_deleted, self.report.source_kept) = (deleted, kept);
        }
        self.closing_report()
    }
}
