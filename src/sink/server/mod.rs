//! A live server as a sink: RESTORE, pipelined, with every reply matched to its key.
//!
//! What may be in flight is bounded in bytes. A key that is in flight is never sent again before
//! its reply is there, so records of the same key take effect in their order, whatever has to be
//! repeated.

pub mod commands;
mod compare;
mod functions;
mod refusal;
pub mod target;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use self::refusal::Refusal;
use self::target::{Ready, Target};
use super::{Accepted, Sink};
use crate::exit::Usage;
use crate::ledger::{SinkReport, SourceReport};
use crate::memory::{Fingerprint, OwnWrites};
use crate::observer::{FailureKind, KeyFailure, Observer};
use crate::payload::{FOOTER_LEN, footer};
use crate::policy::{AllowLoss, FunctionPolicy, OnConflict};
use crate::record::{Batch, Context, Eviction, KeyRecord, Origin, Record, Value};
use crate::server::facts::{Facts, ServerClock};
use crate::server::resp::{self, Item};
use crate::server::{Conn, ServerError};

/// Bytes and records that may be in flight.
const WINDOW_BYTES: usize = 2 * 1024 * 1024;
const WINDOW_RECORDS: usize = 4_000;

/// From this size on a value is written to the socket from where it is.
const LARGE_VALUE_BYTES: usize = 128 * 1024;

/// The default of the server's `proto-max-bulk-len` (config.c); a larger argument makes it close
/// the connection.
const MAX_BULK_BYTES: usize = 512 * 1024 * 1024;

/// Later moments mean trouble for the server (compare `checkInvalidExpireTime`, expire.c).
const EXPIRE_MAX_MS: u64 = 1 << 62;

/// How long a destination that is loading or busy is waited for.
const BUSY_PATIENCE: Duration = Duration::from_secs(120);

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
    /// How its value goes out.
    ready: Ready,
    origin: Option<Origin>,
    /// Its value as it came, where somebody will compare it with the source.
    original: Option<Value>,
    context: Context,
    print: Fingerprint,
    bytes: usize,
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
    pexpiretime: bool,
    own: OwnWrites,
    /// Where what this run wrote came from, if different keys may come under one name.
    own_origins: Option<OwnWrites>,
    db: Option<u32>,
    sent: VecDeque<Sent>,
    sent_bytes: usize,
    sent_prints: HashSet<Fingerprint>,
    busy_since: Option<Instant>,
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
        let absent = "__redis-migrate:absent";
        let pexpiretime = conn
            .try_query(redis::cmd("PEXPIRETIME").arg(absent))?
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
            pexpiretime,
            own: OwnWrites::default(),
            own_origins: options.may_collide.then(OwnWrites::default),
            // Where every connection begins; some services refuse even SELECT 0.
            db: Some(0),
            sent: VecDeque::new(),
            sent_bytes: 0,
            sent_prints: HashSet::new(),
            busy_since: None,
            report: SinkReport::default(),
        })
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

    fn take_key(
        &mut self,
        record: KeyRecord,
        origin: Option<Origin>,
        mut context: Context,
    ) -> Result<()> {
        self.report.taken += 1;
        let print = self.own.fingerprint(record.db, &record.key);
        self.settle_key(print)?;
        let mut sent = Sent {
            action: Action::Look,
            record,
            ready: Ready::AsIs,
            origin,
            original: None,
            context,
            print,
            bytes: 0,
        };
        if sent
            .record
            .expire_at_ms
            .is_some_and(|at_ms| at_ms <= self.clock.now_ms())
        {
            let remove = !self.options.dry_run
                && (self.options.on_conflict == OnConflict::Replace || self.own.contains(print)?);
            if !remove {
                self.report.expired += 1;
                return Ok(());
            }
            sent.action = Action::Delete { expired: true };
            return self.send(sent);
        }
        if self.accepted.is_some() && sent.origin.is_some() {
            sent.original = Some(sent.record.value.clone());
        }
        let target = self.learn_target(&sent.record.key)?;
        match target.prepare(&mut sent.record, &mut context) {
            Ok(ready) => sent.ready = ready,
            Err((reason, hint)) => return self.refuse(sent, Refusal::Key { reason, hint }),
        }
        sent.context = context;
        sent.bytes = match sent.ready {
            Ready::AsIs => sent.record.value.bytes().len(),
            Ready::Footer(_) => sent.record.value.bytes().len() + FOOTER_LEN,
        };
        if let Some(reason) = self.too_large(sent.bytes) {
            return self.refuse(sent, Refusal::Key { reason, hint: None });
        }
        if !self.options.dry_run {
            let replace = self.options.on_conflict == OnConflict::Replace;
            sent.action = Action::Restore {
                replace,
                own: false,
            };
        }
        self.send(sent)
    }

    /// Tries the destination when the first key comes, whose name tells what the user may write.
    fn learn_target(&mut self, like: &[u8]) -> Result<&mut Target> {
        if self.target.is_none() {
            self.drain()?;
            let learnt = Target::learn(
                &mut self.conn,
                &self.facts,
                like,
                self.options.allow_loss,
                self.options.sanitize,
                &self.observer,
            )?;
            self.conn.doing("restoring keys");
            self.target = Some(learnt);
        }
        self.target
            .as_mut()
            .ok_or_else(|| anyhow!("the destination was just tried out"))
    }

    fn too_large(&self, bytes: usize) -> Option<String> {
        match self.options.max_value_bytes {
            Some(max) if bytes as u64 > max => Some(format!(
                "its payload of {bytes} bytes is larger than --max-value allows"
            )),
            _ if bytes > MAX_BULK_BYTES => Some(format!(
                "its payload of {bytes} bytes is larger than a server accepts by default (512 MiB)"
            )),
            _ => None,
        }
    }

    fn take_tombstone(&mut self, db: u32, key: Vec<u8>, context: Context) -> Result<()> {
        self.report.taken += 1;
        let print = self.own.fingerprint(db, &key);
        self.settle_key(print)?;
        let ours = self.options.on_conflict == OnConflict::Replace || self.own.contains(print)?;
        if self.options.dry_run || !ours {
            self.report.deleted += 1;
            return Ok(());
        }
        let record = KeyRecord {
            db,
            key,
            value: Value::Compact(Vec::new()),
            expire_at_ms: None,
            eviction: None,
        };
        let action = Action::Delete { expired: false };
        self.send(Sent {
            action,
            record,
            ready: Ready::AsIs,
            original: None,
            origin: None,
            context,
            print,
            bytes: 0,
        })
    }

    /// Waits until an earlier record of the same key has taken effect.
    fn settle_key(&mut self, print: Fingerprint) -> Result<()> {
        if self.sent_prints.contains(&print) {
            self.drain()
        } else {
            Ok(())
        }
    }

    fn send(&mut self, sent: Sent) -> Result<()> {
        if !self.sent.is_empty()
            && (self.sent_bytes + sent.bytes > WINDOW_BYTES || self.sent.len() >= WINDOW_RECORDS)
        {
            self.conn.flush()?;
            let low_bytes = (WINDOW_BYTES / 2).saturating_sub(sent.bytes);
            while !self.sent.is_empty()
                && (self.sent_bytes > low_bytes || self.sent.len() > WINDOW_RECORDS / 2)
            {
                self.read_one()?;
            }
        }
        self.queue(sent)
    }

    fn queue(&mut self, sent: Sent) -> Result<()> {
        if self.db != Some(sent.record.db) {
            let db = sent.record.db;
            self.conn.queue(&[b"SELECT", db.to_string().as_bytes()])?;
            self.db = Some(db);
            let record = KeyRecord {
                db,
                key: Vec::new(),
                value: Value::Compact(Vec::new()),
                expire_at_ms: None,
                eviction: None,
            };
            self.sent.push_back(Sent {
                action: Action::Select,
                record,
                ready: Ready::AsIs,
                original: None,
                origin: None,
                context: sent.context,
                print: 0,
                bytes: 0,
            });
        }
        match &sent.action {
            Action::Select => {}
            Action::Restore { replace, .. } => self.pack_restore(&sent, *replace)?,
            Action::Compare => compare::ask(&mut self.conn, &sent.record.key, self.pexpiretime)?,
            Action::Look => self.conn.queue(&[b"EXISTS", &sent.record.key])?,
            Action::Delete { .. } => self.conn.queue(&[b"DEL", &sent.record.key])?,
        }
        self.sent_bytes += sent.bytes;
        self.sent_prints.insert(sent.print);
        self.sent.push_back(sent);
        Ok(())
    }

    fn pack_restore(&mut self, sent: &Sent, replace: bool) -> Result<(), ServerError> {
        let record = &sent.record;
        let footer = match sent.ready {
            Ready::AsIs => None,
            Ready::Footer(version) => Some(footer(record.value.bytes(), version)),
        };
        let body = record.value.bytes();
        let (eviction_word, eviction): (&[u8], u64) = match record.eviction {
            None => (b"", 0),
            Some(Eviction::IdleSecs(secs)) => (b"IDLETIME", secs),
            Some(Eviction::Freq(freq)) => (b"FREQ", u64::from(freq)),
        };
        let args = 5 + usize::from(replace) + 2 * usize::from(record.eviction.is_some());
        let out = self.conn.out();
        resp::pack_head(out, args);
        resp::pack_arg(out, b"RESTORE");
        resp::pack_arg(out, &record.key);
        let mut digits = Vec::with_capacity(20);
        // Absolute and never 0 for a key with expiry: relative times drift and overflow.
        resp::push_number(
            &mut digits,
            record
                .expire_at_ms
                .map_or(0, |at_ms| at_ms.clamp(1, EXPIRE_MAX_MS)),
        );
        resp::pack_arg(out, &digits);
        resp::pack_len(out, body.len() + footer.map_or(0, |footer| footer.len()));
        if body.len() >= LARGE_VALUE_BYTES {
            self.conn.write_large(body)?;
        } else {
            out.extend_from_slice(body);
        }
        let out = self.conn.out();
        if let Some(footer) = footer {
            out.extend_from_slice(&footer);
        }
        out.extend_from_slice(b"\r\n");
        resp::pack_arg(out, b"ABSTTL");
        if replace {
            resp::pack_arg(out, b"REPLACE");
        }
        if record.eviction.is_some() {
            digits.clear();
            resp::push_number(&mut digits, eviction);
            resp::pack_arg(out, eviction_word);
            resp::pack_arg(out, &digits);
        }
        self.conn.flush_if_full()
    }

    /// Reads every reply that is due.
    fn drain(&mut self) -> Result<()> {
        self.conn.flush()?;
        while !self.sent.is_empty() {
            self.read_one()?;
            // Repetitions and comparisons are queued while replies are read.
            self.conn.flush()?;
        }
        Ok(())
    }

    fn read_one(&mut self) -> Result<()> {
        let Some(sent) = self.sent.front() else {
            return Ok(());
        };
        if matches!(sent.action, Action::Compare) {
            let found = compare::read(&mut self.conn, self.pexpiretime)?;
            let Some(sent) = self.take_sent() else {
                return Ok(());
            };
            return self.compared(sent, found);
        }
        let answer = match self.conn.item()? {
            Item::Simple(_) => Ok(1),
            Item::Int(number) => Ok(number),
            Item::Error(text) => Err(String::from_utf8_lossy(&text).into_owned()),
            _ => return Err(self.conn.confused("a reply of an unexpected kind").into()),
        };
        let Some(sent) = self.take_sent() else {
            return Ok(());
        };
        match (answer, &sent.action) {
            (Ok(_), Action::Select) => {}
            (Err(text), Action::Select) => return Err(self.conn.refusal("SELECT", text).into()),
            (Ok(_), Action::Restore { own, .. }) => {
                if *own {
                    self.report.replaced_own += 1;
                } else {
                    self.report.restored += 1;
                }
                self.busy_since = None;
                return self.remember(sent);
            }
            (Ok(count), Action::Look) => return self.looked(sent, count > 0),
            (Ok(_), Action::Delete { expired: true }) => self.report.expired += 1,
            (Ok(_), Action::Delete { expired: false }) => self.report.deleted += 1,
            (Err(text), _) => return self.refused(sent, text),
            (Ok(_), Action::Compare) => {}
        }
        Ok(())
    }

    fn take_sent(&mut self) -> Option<Sent> {
        let sent = self.sent.pop_front()?;
        self.sent_bytes -= sent.bytes;
        self.sent_prints.remove(&sent.print);
        Some(sent)
    }

    /// The destination accepted it.
    fn remember(&mut self, sent: Sent) -> Result<()> {
        // Under `replace` nobody will ever ask.
        if self.options.on_conflict != OnConflict::Replace {
            const WHAT: &str = "remember a key in a temporary file";
            self.own.insert(sent.print).context(WHAT)?;
            if let (Some(origins), Some(origin)) = (&mut self.own_origins, &sent.origin) {
                let print = origin_print(origins, sent.print, origin);
                origins.insert(print).context(WHAT)?;
            }
        }
        let mut record = sent.record;
        if let (Some(accepted), Some(origin), Some(original)) =
            (&mut self.accepted, sent.origin, sent.original)
        {
            record.value = original;
            accepted.accepted(origin, record)?;
        } else if let (Some(target), Value::Compact(buffer)) = (&mut self.target, record.value) {
            target.reuse(buffer);
        }
        Ok(())
    }

    fn looked(&mut self, sent: Sent, exists: bool) -> Result<()> {
        let own = self.own.contains(sent.print)?;
        match self.options.on_conflict {
            _ if own => self.report.replaced_own += 1,
            OnConflict::Fail if exists => {
                return self.send(Sent {
                    action: Action::Compare,
                    ..sent
                });
            }
            OnConflict::Skip if exists => self.report.skipped += 1,
            _ => {
                self.report.restored += 1;
                self.own
                    .insert(sent.print)
                    .context("remember a key in a temporary file")?;
            }
        }
        Ok(())
    }

    fn compared(&mut self, sent: Sent, found: compare::Found) -> Result<()> {
        let reason = match found.differs_from(&sent.record, &sent.context, self.facts.family) {
            None => {
                self.report.unchanged += 1;
                return Ok(());
            }
            Some(reason) => reason,
        };
        self.report.conflicts += 1;
        self.observer.key_failed(&KeyFailure {
            db: sent.record.db,
            key: sent.record.key,
            kind: FailureKind::Conflict,
            reason: format!("stands at the destination already ({reason}) and was left alone"),
            hint: Some(
                "--on-conflict replace overwrites it, --on-conflict skip keeps it".to_owned(),
            ),
        })
    }

    fn refused(&mut self, mut sent: Sent, text: String) -> Result<()> {
        match Refusal::of(&text, &self.facts, &sent.context) {
            Refusal::Standing if self.collides(&sent)? => {
                self.report.conflicts += 1;
                self.observer.key_failed(&KeyFailure {
                    db: sent.record.db,
                    key: sent.record.key,
                    kind: FailureKind::Conflict,
                    reason: "another key of the source was written under this name in this run"
                        .to_owned(),
                    hint: Some(
                        "choose --map-db and prefixes so that names stay different".to_owned(),
                    ),
                })
            }
            Refusal::Standing if self.own.contains(sent.print)? => {
                sent.action = Action::Restore {
                    replace: true,
                    own: true,
                };
                self.queue(sent)
            }
            Refusal::Standing if self.options.on_conflict == OnConflict::Skip => {
                self.report.skipped += 1;
                Ok(())
            }
            Refusal::Standing => {
                sent.action = Action::Compare;
                self.queue(sent)
            }
            Refusal::Later => {
                let since = *self.busy_since.get_or_insert_with(Instant::now);
                if since.elapsed() > BUSY_PATIENCE {
                    return Err(self.conn.refusal("RESTORE", text).into());
                }
                std::thread::sleep(Duration::from_millis(250));
                self.queue(sent)?;
                Ok(self.conn.flush()?)
            }
            Refusal::Run { advice } => {
                self.report.refused += 1;
                Err(anyhow::Error::new(self.conn.refusal("RESTORE", text)).context(advice))
            }
            refusal @ Refusal::Key { .. } => self.refuse(sent, refusal),
        }
    }

    /// Whether this run wrote another key of the source under the same name.
    fn collides(&self, sent: &Sent) -> Result<bool> {
        let (Some(origins), Some(origin)) = (&self.own_origins, &sent.origin) else {
            return Ok(false);
        };
        let print = origin_print(origins, sent.print, origin);
        Ok(self.own.contains(sent.print)? && !origins.contains(print)?)
    }

    fn refuse(&mut self, sent: Sent, refusal: Refusal) -> Result<()> {
        let Refusal::Key { reason, hint } = refusal else {
            return Ok(());
        };
        self.report.refused += 1;
        self.observer.key_failed(&KeyFailure {
            db: sent.record.db,
            key: sent.record.key,
            kind: FailureKind::Refused,
            reason,
            hint,
        })
    }

    /// Reads what is still due after a failure, only to count what was applied.
    fn count_rest(&mut self) {
        let rest = |sink: &mut Self| -> Result<()> {
            sink.conn.flush()?;
            while let Some(sent) = sink.sent.front() {
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
        let changes = self.target.map(|target| target.changes).unwrap_or_default();
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

/// A name at the destination together with the key of the source that was written there.
fn origin_print(origins: &OwnWrites, print: Fingerprint, origin: &Origin) -> Fingerprint {
    let name = [&print.to_be_bytes()[..], &origin.key].concat();
    origins.fingerprint(origin.db, &name)
}

impl Sink for ServerSink {
    fn write(&mut self, batch: Batch) -> Result<()> {
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
