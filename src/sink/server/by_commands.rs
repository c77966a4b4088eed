//! Values that go out by native commands: too large for RESTORE, or RESTORE is not to be had.

use anyhow::Result;

use super::commands::{
    Answer, CommandError, CommandLosses, Commands, Features, Job, Queued, Replace, Ticket, Written,
};
use super::refusal::Refusal;
use super::target::Ready;
use super::{Action, Sent, ServerSink};
use crate::payload;
use crate::policy::{Method, OnConflict};
use crate::record::Value;

impl ServerSink {
    /// Makes a value ready for native commands and sends it.
    pub(super) fn take_by_commands(&mut self, mut sent: Sent) -> Result<()> {
        let bytes = sent.record.value.bytes().len();
        if self.options.method == Method::Restore {
            let reason = format!(
                "its payload of {bytes} bytes is larger than the destination takes in one piece"
            );
            let hint = Some("--method auto writes it in chunks by native commands".to_owned());
            return self.refuse(sent, Refusal::Key { reason, hint });
        }
        if let Err((reason, hint)) = self.strip_and_check(&mut sent)? {
            return self.refuse(sent, Refusal::Key { reason, hint });
        }
        sent.by_commands = Some(None);
        sent.ready = Ready::AsIs;
        sent.bytes = sent.record.value.bytes().len();
        if !self.options.dry_run {
            let replace = self.options.on_conflict == OnConflict::Replace;
            sent.action = Action::Restore {
                replace,
                own: false,
            };
        }
        self.send(sent)
    }

    /// Takes the footer off and checks the value. The inner `Err`: why it must be refused, and what
    /// to do about it.
    fn strip_and_check(&mut self, sent: &mut Sent) -> Result<Result<(), (String, Option<String>)>> {
        if let Value::Verbatim(dump) = &mut sent.record.value {
            let body_len = match payload::split(dump) {
                Ok((body, _)) => body.len(),
                Err(error) => return Ok(Err((format!("its payload is damaged: {error}"), None))),
            };
            dump.truncate(body_len);
            let body = std::mem::take(dump);
            sent.record.value = Value::Compact(body);
        }
        let checked = match payload::check(sent.context.family, sent.record.value.bytes()) {
            Ok(checked) => checked,
            Err(error) if error.is_opaque() => {
                let reason = "a module\'s value cannot be written by native commands".to_owned();
                return Ok(Err((reason, None)));
            }
            Err(error) => {
                return Ok(Err((
                    format!("its value is damaged and is not sent: {error}"),
                    None,
                )));
            }
        };
        let has_field_ttl = self.learn_commands()?.features().field_ttl_max_ms.is_some();
        if checked.expiring_fields > 0 && !has_field_ttl && !self.options.allow_loss.hash_field_ttl
        {
            return Ok(Err((
                format!(
                    "{} of its fields expire, and the destination has no expiry of fields",
                    checked.expiring_fields
                ),
                Some(
                    "--allow-loss hash-field-ttl writes it with fields that do not expire"
                        .to_owned(),
                ),
            )));
        }
        Ok(Ok(()))
    }

    fn learn_commands(&mut self) -> Result<&mut Commands> {
        if self.commands.is_none() {
            let limits = self.learn_limits()?;
            self.drain()?;
            let features = Features::ask(&mut self.conn, &self.facts)?;
            self.commands = Some(Commands::new(features, limits));
        }
        self.commands
            .as_mut()
            .ok_or_else(|| anyhow::anyhow!("the destination was just asked"))
    }

    /// Queues a small value; `None` for one that has to be written alone, or is dealt with.
    pub(super) fn queue_commands(&mut self, sent: &Sent, replace: bool) -> Result<Option<Ticket>> {
        let now_ms = self.clock.now_ms();
        self.learn_commands()?;
        let Some(commands) = &mut self.commands else {
            return Ok(None);
        };
        match commands.queue_small(&mut self.conn, &job(sent, replace, now_ms)) {
            Ok(Queued::Sent(ticket)) => Ok(Some(ticket)),
            // Found out without a word to the server; found out again below, where it is counted.
            Ok(Queued::Done(..) | Queued::Large) => Ok(None),
            Err(CommandError::Connection(error)) => Err(error.into()),
            Err(_) => Ok(None),
        }
    }

    /// Writes one value with nothing else in flight, however large it is.
    pub(super) fn write_alone(&mut self, sent: Sent, replace: bool) -> Result<()> {
        self.drain()?;
        let now_ms = self.clock.now_ms();
        let Some(commands) = &mut self.commands else {
            return Ok(());
        };
        let written = commands.write(&mut self.conn, &job(&sent, replace, now_ms));
        self.conn.doing("restoring keys");
        self.written(sent, written)
    }

    /// Reads what became of the value that was sent first.
    pub(super) fn read_written(&mut self) -> Result<()> {
        let Some(mut sent) = self.take_sent() else {
            return Ok(());
        };
        let Some(ticket) = sent.by_commands.take().flatten() else {
            return Ok(());
        };
        // A second turn of its commands must find its own database.
        self.select(sent.record.db, sent.context)?;
        let Some(commands) = &mut self.commands else {
            return Ok(());
        };
        match commands.read_small(&mut self.conn, &sent.record.key, ticket) {
            Ok(Answer::Again(ticket)) => {
                sent.by_commands = Some(Some(ticket));
                self.sent_bytes += sent.bytes;
                self.sent_prints.insert(sent.print);
                self.sent.push_back(sent);
                Ok(())
            }
            Ok(Answer::Written(written, losses)) => {
                sent.by_commands = Some(None);
                self.written(sent, Ok((written, losses)))
            }
            Err(error) => {
                sent.by_commands = Some(None);
                self.written(sent, Err(error))
            }
        }
    }

    fn written(
        &mut self,
        sent: Sent,
        written: Result<(Written, CommandLosses), CommandError>,
    ) -> Result<()> {
        match written {
            Ok((Written::Stored, losses)) => {
                self.count_losses(losses);
                let own = matches!(sent.action, Action::Restore { own: true, .. });
                self.stored(sent, own)
            }
            Ok((Written::Standing, _)) => self.refused(sent, "BUSYKEY".to_owned()),
            Ok((Written::Expired, _)) => {
                self.report.expired += 1;
                Ok(())
            }
            Err(CommandError::Connection(error)) => Err(error.into()),
            Err(CommandError::Refused { reason }) => {
                self.refuse(sent, Refusal::Key { reason, hint: None })
            }
            Err(CommandError::Forbidden { command, text }) => {
                self.report.refused += 1;
                Err(self.conn.refusal(command, text).into())
            }
            Err(CommandError::Answer { text, .. }) => self.refused(sent, text),
        }
    }

    fn count_losses(&mut self, losses: CommandLosses) {
        let changes = &mut self.report.changes;
        changes.by_commands += 1;
        changes.field_ttls_lost += losses.field_ttls;
        changes.streams_filled_in += u64::from(losses.stream_metadata || losses.consumer_times > 0);
        if losses.pending > 0 {
            self.report.problems.push(format!(
                "{} pending entries of a stream's groups were not taken by the destination",
                losses.pending
            ));
        }
    }
}

fn job<'a>(sent: &'a Sent, replace: bool, now_ms: u64) -> Job<'a> {
    Job {
        key: &sent.record.key,
        family: sent.context.family,
        value: sent.record.value.bytes(),
        expire_at_ms: sent.record.expire_at_ms,
        replace: if replace {
            Replace::Always
        } else {
            Replace::IfAbsent
        },
        now_ms,
    }
}
