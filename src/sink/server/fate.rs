//! What became of a record, once the server has answered.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::compare;
use super::refusal::Refusal;
use super::{Action, Sent, ServerSink};
use crate::memory::{Fingerprint, OwnWrites};
use crate::observer::{FailureKind, KeyFailure};
use crate::policy::{Method, OnConflict};
use crate::record::{Origin, Value};
use crate::server::conn::is_forbidden;

/// How long a destination that is loading or busy is waited for.
const BUSY_PATIENCE: Duration = Duration::from_secs(120);

impl ServerSink {
    /// The destination accepted it; `own`: in place of what this run wrote.
    pub(super) fn stored(&mut self, sent: Sent, own: bool) -> Result<()> {
        if own {
            self.report.replaced_own += 1;
        } else {
            self.report.restored += 1;
        }
        self.busy_since = None;
        self.remember(sent)
    }

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

    pub(super) fn looked(&mut self, sent: Sent, exists: bool) -> Result<()> {
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

    pub(super) fn compared(&mut self, sent: Sent, found: compare::Found) -> Result<()> {
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

    pub(super) fn refused(&mut self, mut sent: Sent, text: String) -> Result<()> {
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
            // Some services and users have everything but RESTORE.
            Refusal::Run { .. }
                if is_forbidden(&text)
                    && self.options.method == Method::Auto
                    && sent.by_commands.is_none() =>
            {
                if !self.all_by_commands {
                    self.all_by_commands = true;
                    self.observer.notice(&format!(
                        "the destination refuses RESTORE ({text}); writing by native commands, \
                         which is slower"
                    ));
                }
                self.take_by_commands(sent)
            }
            Refusal::Run { advice } => {
                self.report.refused += 1;
                Err(anyhow::Error::new(self.conn.refusal("RESTORE", text)).context(advice))
            }
            refusal @ Refusal::Key { .. } => self.refuse(sent, refusal),
        }
    }

    /// Whether this run wrote another key of the source under the same name.
    pub(super) fn collides(&mut self, sent: &Sent) -> Result<bool> {
        let (Some(origins), Some(origin)) = (&mut self.own_origins, &sent.origin) else {
            return Ok(false);
        };
        let print = origin_print(origins, sent.print, origin);
        Ok(self.own.contains(sent.print)? && !origins.contains(print)?)
    }

    pub(super) fn refuse(&mut self, sent: Sent, refusal: Refusal) -> Result<()> {
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
}

/// A name at the destination together with the key of the source that was written there.
fn origin_print(origins: &OwnWrites, print: Fingerprint, origin: &Origin) -> Fingerprint {
    let name = [&print.to_be_bytes()[..], &origin.key].concat();
    origins.fingerprint(origin.db, &name)
}
