//! What became of a value that native commands wrote.

use anyhow::Result;

use super::item::{Item, Task, Wrote};
use super::outcome::{Outcome, Then};
use crate::payload;
use crate::policy::OnConflict;
use crate::server::transaction::is_not_now;
use crate::sink::server::commands::{CommandError, CommandLosses, Written};
use crate::sink::server::refusal::is_too_few_replicas;

impl Outcome<'_> {
    /// Of a value that native commands wrote. A lost connection is another matter.
    pub fn written(
        &mut self,
        mut item: Box<Item>,
        written: Result<(Written, CommandLosses), CommandError>,
    ) -> Result<Then> {
        match written {
            Ok((Written::Stored, losses)) => {
                if item.past.counted.is_none() {
                    self.count_losses(losses);
                    self.count_eviction_lost(&item);
                }
                let own = matches!(item.task, Task::Restore { own: true, .. });
                self.stored(item, own, Wrote::Now)
            }
            Ok((Written::Standing, _)) => self.standing(item, "BUSYKEY"),
            // Evicted, or deleted by somebody: only its time makes "expired" of that.
            Ok((Written::Expired, _)) if !self.is_past(&item) => {
                if item.past.note_odd_answer() {
                    let reason = "its temporary key was gone before it got its name (evicted, or \
                                  deleted by somebody)";
                    return Ok(self.refuse(item, reason.to_owned(), None));
                }
                Ok(Then::PutOff(item))
            }
            Ok((Written::Expired, _)) => self.expired(item),
            Err(CommandError::Connection(error)) => Err(error.into()),
            Err(CommandError::Refused { reason }) => Ok(self.refuse(item, reason, None)),
            Err(CommandError::Forbidden { command, text }) => {
                self.ledger.uncount(&item);
                self.ledger.records().refused += 1;
                Err(self.lane.refusal(command, text).into())
            }
            Err(CommandError::NoExpiry { why }) => self.stands_for_ever(item, *why),
            Err(CommandError::Answer { text, .. }) => {
                // Of several commands some may have been carried out.
                item.past.is_doubtful = true;
                self.refused(item, text)
            }
        }
    }

    /// It is past its time. As where it was when it came: what it supersedes does not stay.
    fn expired(&mut self, mut item: Box<Item>) -> Result<Then> {
        let replaces = self.settings.options.on_conflict == OnConflict::Replace;
        if replaces || self.memory.is_own(item.print)? {
            item.form = super::item::Form::Payload(crate::sink::server::prepare::Ready::AsIs);
            return Ok(Then::Next(item.with(Task::Delete { expired: true })));
        }
        if item.past.counted.is_none() {
            self.ledger.records().expired += 1;
        }
        Ok(Then::Nothing)
    }

    /// It stands under its name without its expiry, and `why`: that passes, and it is written again;
    /// or the key is named.
    fn stands_for_ever(&mut self, mut item: Box<Item>, why: CommandError) -> Result<Then> {
        match why {
            CommandError::Answer { text, .. }
                if is_not_now(&text) || is_too_few_replicas(&text) =>
            {
                // What it replaces then is what this run put there.
                let own = matches!(item.task, Task::Restore { own: true, .. });
                item.task = Task::Restore { replace: true, own };
                item.past.is_doubtful = true;
                self.refused(item, text)
            }
            CommandError::Forbidden { command, text } => {
                let record = &item.record;
                self.ledger.note_lasting(record.db, &record.key, &text);
                self.written(item, Err(CommandError::Forbidden { command, text }))
            }
            why => {
                let reason = format!("it exists at the destination without its expiry: {why}");
                let hint = Some("set its expiry there, or delete it and run again".to_owned());
                Ok(self.refuse(item, reason, hint))
            }
        }
    }

    /// Whether a record's time has come: its own, or that of every field of its hash.
    fn is_past(&self, item: &Item) -> bool {
        /// The destination's clock is known to within a round trip.
        const SLACK_MS: u64 = 1000;
        let now_ms = self.now_ms + SLACK_MS;
        let fields = payload::last_field_ms(item.context.family, &item.record.value).flatten();
        let at_ms = item.record.expire_at_ms.into_iter().chain(fields).min();
        at_ms.is_some_and(|at_ms| at_ms <= now_ms)
    }

    /// No command sets an idle time or a frequency.
    fn count_eviction_lost(&mut self, item: &Item) {
        if item.record.eviction.is_none() {
            return;
        }
        let lost = &mut self.ledger.changes().eviction_lost;
        *lost += 1;
        if *lost == 1 {
            self.ledger.warn(
                "native commands cannot set idle times and frequencies: the keys that they write \
                 count as just used (the summary says how many)",
            );
        }
    }

    fn count_losses(&mut self, losses: CommandLosses) {
        let changes = self.ledger.changes();
        changes.by_commands += 1;
        changes.field_ttls_lost += losses.field_ttls;
        changes.field_ttls_clamped += losses.field_ttls_clamped;
        changes.streams_filled_in += u64::from(losses.stream_metadata || losses.consumer_times > 0);
        changes.given_back_owned += losses.given_back;
        self.ledger.count_idempotency_lost(losses.idempotency);
        if losses.pending > 0 {
            self.ledger.problem(format!(
                "the destination did not accept {} pending entries of a stream's groups",
                losses.pending
            ));
        }
    }
}
