//! What is to be done with a record: send it, and how, or not.

use anyhow::{Result, anyhow};

use super::commands::CommandLimits;
use super::refusal::Refusal;
use super::target::{Ready, Target};
use super::{Action, Sent, ServerSink};
use crate::payload::FOOTER_LEN;
use crate::policy::OnConflict;
use crate::record::{Context, KeyRecord, Origin, Value};

impl ServerSink {
    pub(super) fn take_key(
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
            by_commands: None,
            origin,
            original: None,
            context,
            print,
            bytes: 0,
            batch: self.batches,
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
        if let Some(max) = self.options.max_value_bytes
            && sent.record.value.bytes().len() as u64 > max
        {
            let bytes = sent.record.value.bytes().len();
            let reason = format!("its payload of {bytes} bytes is larger than --max-value allows");
            return self.refuse(sent, Refusal::Key { reason, hint: None });
        }
        let replace = self.options.on_conflict == OnConflict::Replace;
        if self.all_by_commands || self.is_too_large(sent.record.value.bytes().len())? {
            return self.take_by_commands(sent);
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
        // Written anew it may have become larger.
        if self.is_too_large(sent.bytes)? {
            return self.take_by_commands(sent);
        }
        if !self.options.dry_run {
            sent.action = Action::Restore {
                replace,
                own: false,
            };
        }
        self.send(sent)
    }

    /// Tries the destination when the first key comes, whose name tells what the user may write.
    pub(super) fn learn_target(&mut self, like: &[u8]) -> Result<&mut Target> {
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
            if let (Some(target), true) = (&mut self.target, self.options.source_is_twin) {
                target.source_is_twin();
            }
        }
        self.target
            .as_mut()
            .ok_or_else(|| anyhow!("the destination was just tried out"))
    }

    /// Whether a payload is more than the destination takes in one piece.
    fn is_too_large(&mut self, bytes: usize) -> Result<bool> {
        // No server takes less than this unless it was told to, and few were.
        const SURELY_SMALL_BYTES: usize = 256 * 1024;
        if bytes <= SURELY_SMALL_BYTES {
            return Ok(false);
        }
        Ok(bytes as u64 > self.learn_limits()?.max_argument_bytes())
    }

    /// Asks for the limits when the first large value comes; the servers' defaults where CONFIG
    /// GET is refused.
    pub(super) fn learn_limits(&mut self) -> Result<CommandLimits> {
        if let Some(limits) = self.limits {
            return Ok(limits);
        }
        self.drain()?;
        let mut limits = CommandLimits::default();
        let mut ask = |name: &str| -> Result<Option<u64>> {
            let value = self
                .conn
                .try_query(redis::cmd("CONFIG").arg("GET").arg(name))?;
            let pair = value
                .ok()
                .and_then(|value| redis::from_redis_value::<Vec<String>>(value).ok());
            Ok(pair.and_then(|pair| pair.get(1)?.parse().ok()))
        };
        if let Some(bytes) = ask("proto-max-bulk-len")? {
            limits.max_bulk_bytes = bytes;
        }
        if let Some(bytes) = ask("client-query-buffer-limit")? {
            limits.max_query_bytes = bytes;
        }
        self.limits = Some(limits);
        Ok(limits)
    }

    pub(super) fn take_tombstone(&mut self, db: u32, key: Vec<u8>, context: Context) -> Result<()> {
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
            by_commands: None,
            original: None,
            origin: None,
            context,
            print,
            bytes: 0,
            batch: self.batches,
        })
    }
}
