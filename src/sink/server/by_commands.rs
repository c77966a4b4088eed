//! Values that go out by native commands: too large for RESTORE, or RESTORE is not to be had.

use anyhow::Result;

use super::access::{self, Access};
use super::commands::{
    Answer, CommandError, CommandLosses, Commands, Features, Job, Queued, Replace, Ticket, Written,
};
use super::foresee::Way;
use super::gate::{Gate, no_database};
use super::refusal::{Outlook, Refusal, is_too_few_replicas};
use super::target::Ready;
use super::{Action, Sent, ServerSink, Wrote};
use crate::payload;
use crate::policy::{Method, OnConflict};
use crate::record::Value;
use crate::server::conn::is_forbidden;
use crate::server::transaction::{self, is_not_now};
use crate::server::{Conn, ServerError};
use crate::sink::Miscounted;
use crate::sink::metadata::NOT_BY_COMMANDS;

/// So often a destination may answer MULTI or EXEC oddly before the run ends.
const MAX_ODD_TRANSACTIONS: u8 = 3;

impl ServerSink {
    /// Makes a value ready for native commands and sends it.
    pub(super) fn take_by_commands(&mut self, sent: Sent) -> Result<()> {
        self.with_in_hand(sent, Self::take_in_hand_by_commands)
    }

    fn take_in_hand_by_commands(&mut self, mut sent: Sent) -> Result<()> {
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
        if let Some(changes) = &mut sent.changes {
            // No footer goes out.
            changes.restamped = 0;
        }
        sent.bytes = sent.record.value.bytes().len();
        if self.options.dry_run {
            let commands = self.lanes[sent.at].commands.as_ref();
            let job = job(&sent, false, self.clock.now_ms());
            let way = commands.map_or(Way::Rename, |commands| commands.way(&job));
            return self.try_key(sent, way);
        }
        let replace = self.options.on_conflict == OnConflict::Replace;
        sent.action = Action::Restore {
            replace,
            own: false,
        };
        // What follows it is put off until it is done: `send` would wait for that first.
        match sent.is_recalled {
            true => self.queue(sent),
            false => self.send(sent),
        }
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
        if let Err(refused) = self.leave_metadata_out(sent, NOT_BY_COMMANDS) {
            return Ok(Err(refused));
        }
        let key = &sent.record.key;
        let learnt = self.ask_in_database(sent.record.db, key, Self::learn_commands)?;
        let (at, features) = match learnt {
            Ok(learnt) => learnt,
            Err(why) => return Ok(Err((no_database(sent.record.db, &why), None))),
        };
        sent.at = at;
        if self.options.dry_run && !std::mem::replace(&mut self.tried_native, true) {
            self.try_native(at, sent.record.db, &features)?;
        }
        let (family, allow) = (sent.context.family, self.options.allow_loss);
        let checked = match features.check(family, sent.record.value.bytes(), allow) {
            Ok(checked) => checked,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if let Some(said) = checked.miscounted {
            let miscounted = Miscounted {
                said,
                held: checked.count,
                corrected: true,
            };
            let (db, key) = (sent.record.db, &sent.record.key);
            miscounted.note(&self.observer, &mut self.report.changes, db, key);
        }
        if self.options.dry_run {
            let lost = features.loses_idempotency(family, sent.record.value.bytes());
            self.count_idempotency_lost(lost);
        }
        Ok(Ok(()))
    }

    /// A dry run sends no native command, so whether they may be used is tried as `doctor` does.
    fn try_native(&self, at: usize, db: u32, features: &Features) -> Result<()> {
        let to = &self.lanes[at].to;
        let mut conn = Conn::open(to)?;
        if conn.select(db)?.is_err() {
            return Ok(());
        }
        let (access, command) = access::native(&mut conn, self.routes.is_some(), features)?;
        if access.is_usable() || access == Access::Unknown {
            return Ok(());
        }
        let reason = access.reason().unwrap_or("the server does not have it");
        let refused = anyhow::Error::new(ServerError::Refused {
            address: to.address.to_string(),
            command: command.to_owned(),
            reason: reason.to_owned(),
        });
        Err(match Outlook::of(reason, self.options.method) {
            Outlook::Nothing(advice) if !is_forbidden(reason) => refused.context(advice),
            _ => refused,
        })
    }

    /// Learns what the commands of a lane's node can do. Nothing may be in flight there.
    pub(super) fn learn_commands(&mut self, at: usize) -> Result<Features, ServerError> {
        let limits = self.learn_limits(at)?;
        let lane = &mut self.lanes[at];
        if lane.commands.is_none() {
            let Some(conn) = &mut lane.conn else {
                return lane.conn().map(|_| Features::default());
            };
            let features = Features::ask(conn, &lane.facts)?;
            // Before the first value: where it is refused, the run ends with nothing written.
            if let Err(why) = transaction::prove(conn)? {
                lane.odd_transactions = lane.odd_transactions.saturating_add(1);
                return Err(no_transaction(conn, why, lane.odd_transactions));
            }
            lane.commands = Some(Commands::new(features, limits));
        }
        let (_, commands) = lane.conn_and_commands()?;
        Ok(*commands.features())
    }

    /// Queues a small value; `None` for one that has to be written alone, or is dealt with.
    pub(super) fn queue_commands(
        &mut self,
        at: usize,
        sent: &Sent,
        replace: bool,
    ) -> Result<Option<Ticket>, ServerError> {
        let now_ms = self.clock.now_ms();
        let (conn, commands) = self.lanes[at].conn_and_commands()?;
        match commands.queue_small(conn, &job(sent, replace, now_ms)) {
            Ok(Queued::Sent(ticket)) => Ok(Some(ticket)),
            // Found out without a word to the server; found out again below, where it is counted.
            Ok(Queued::Done(..) | Queued::Large) => Ok(None),
            Err(CommandError::Connection(error)) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Writes one value with nothing else in flight on its lane, however large it is.
    pub(super) fn write_alone(&mut self, mut sent: Sent) -> Result<()> {
        let (at, db) = (sent.at, sent.record.db);
        self.drain_lane(at)?;
        // What had to be repeated may have been of another database.
        match self.enter(at, db)? {
            Gate::Open if self.follows_recalled(&sent) => {
                self.put_again(sent);
                return Ok(());
            }
            Gate::Open if self.lanes[at].sent.is_empty() => {}
            Gate::Open | Gate::Moving | Gate::Later => {
                self.put_again(sent);
                return Ok(());
            }
            Gate::Refused(why) => return self.refuse_database(sent, &why),
        }
        let Action::Restore { replace, .. } = sent.action else {
            return Ok(());
        };
        let now_ms = self.clock.now_ms();
        let (conn, commands) = match self.lanes[at].conn_and_commands() {
            Ok(both) => both,
            // Lost while it was drained.
            Err(_) => {
                self.put_again(sent);
                return Ok(());
            }
        };
        let written = commands.write(conn, &job(&sent, replace, now_ms));
        conn.doing("restoring keys");
        if let Some(temp) = commands.take_left() {
            self.clean_up(db, temp);
        }
        let Err(CommandError::Connection(lost)) = written else {
            return self.written(at, sent, written);
        };
        self.suspect_element(at, &mut sent, &lost);
        self.lose_written(at, sent, lost)
    }

    /// Reads what became of the value that was sent first on a lane.
    pub(super) fn read_written(&mut self, at: usize) -> Result<()> {
        let Some(mut sent) = self.take_sent(at) else {
            return Ok(());
        };
        let Some(ticket) = sent.by_commands.replace(None).flatten() else {
            self.lose(sent);
            return Ok(());
        };
        let temp = ticket.temp().map(<[u8]>::to_vec);
        // Reading sends the commands of the next turn: the connection has to be where they belong.
        let lane = self.lanes[at].conn_and_commands();
        let lane = lane.and_then(|(conn, commands)| match conn.database() {
            Some(db) if db == sent.record.db => Ok((conn, commands)),
            _ => Err(conn.spoilt("it went to another database before all was written")),
        });
        let answer = lane
            .map_err(CommandError::from)
            .and_then(|(conn, commands)| commands.read_small(conn, &sent.record.key, *ticket));
        match answer {
            Ok(Answer::Again(ticket)) => {
                sent.by_commands = Some(Some(Box::new(ticket)));
                self.prints.insert(sent.print);
                self.lanes[at].push(sent);
                Ok(())
            }
            Ok(Answer::Written(written, losses)) => self.written(at, sent, Ok((written, losses))),
            Err(CommandError::Connection(lost)) => {
                if let Some(temp) = temp {
                    self.clean_up(sent.record.db, temp);
                }
                self.lose_written(at, sent, lost)
            }
            Err(error) => {
                let commands = self.lanes[at].commands.as_mut();
                if let Some(temp) = commands.and_then(Commands::take_left) {
                    self.clean_up(sent.record.db, temp);
                }
                self.written(at, sent, Err(error))
            }
        }
    }

    /// The connection was lost, or is not understood, while this was written.
    fn lose_written(&mut self, at: usize, mut sent: Sent, lost: ServerError) -> Result<()> {
        if matches!(lost, ServerError::Protocol { .. }) && sent.is_odd_again() {
            self.refuse_misunderstood(sent, &lost)?;
        } else {
            self.lose(sent);
        }
        self.lose_connection(at, lost)
    }

    fn written(
        &mut self,
        at: usize,
        mut sent: Sent,
        written: Result<(Written, CommandLosses), CommandError>,
    ) -> Result<()> {
        match written {
            Ok((Written::Stored, losses)) => {
                if sent.counted.is_none() {
                    self.count_losses(losses);
                    self.count_eviction_lost(&sent);
                }
                let own = matches!(sent.action, Action::Restore { own: true, .. });
                self.stored(at, sent, own, Wrote::Now)
            }
            Ok((Written::Standing, _)) => self.refused(at, sent, "BUSYKEY".to_owned()),
            // Evicted, or deleted by somebody: only its time makes "expired" of that.
            Ok((Written::Expired, _)) if !self.is_past(&sent) => {
                if sent.is_odd_again() {
                    let reason = "its temporary key was gone before it got its name (evicted, or \
                                  deleted by somebody)";
                    let reason = reason.to_owned();
                    return self.refuse(sent, Refusal::Key { reason, hint: None });
                }
                self.put_again(sent);
                Ok(())
            }
            Ok((Written::Expired, _)) => {
                // As where it was past its time when it came: what it supersedes does not stay.
                let replaces = self.options.on_conflict == OnConflict::Replace;
                if replaces || self.own.contains(sent.print)? {
                    sent.by_commands = None;
                    sent.action = Action::Delete { expired: true };
                    return self.queue(sent);
                }
                if sent.counted.is_none() {
                    self.report.expired += 1;
                }
                Ok(())
            }
            Err(CommandError::Connection(error)) => Err(error.into()),
            Err(CommandError::Refused { reason }) => {
                self.refuse(sent, Refusal::Key { reason, hint: None })
            }
            Err(CommandError::Forbidden { command, text }) => {
                self.uncount(&sent);
                self.report.refused += 1;
                Err(self.refusal(at, command, text).into())
            }
            Err(CommandError::NoExpiry { why }) => self.stands_for_ever(at, sent, *why),
            Err(CommandError::Answer { text, .. }) => {
                // Of several commands some may have been carried out.
                sent.is_doubtful = true;
                self.refused(at, sent, text)
            }
        }
    }

    /// It stands under its name without its expiry, and `why`: that passes, and it is written again;
    /// or the key is named.
    fn stands_for_ever(&mut self, at: usize, mut sent: Sent, why: CommandError) -> Result<()> {
        match why {
            CommandError::Answer { text, .. }
                if is_not_now(&text) || is_too_few_replicas(&text) =>
            {
                // What it replaces then is what this run put there.
                let own = matches!(sent.action, Action::Restore { own: true, .. });
                sent.action = Action::Restore { replace: true, own };
                sent.is_doubtful = true;
                self.refused(at, sent, text)
            }
            CommandError::Forbidden { command, text } => {
                self.lasting.add(sent.record.db, &sent.record.key, &text);
                self.written(at, sent, Err(CommandError::Forbidden { command, text }))
            }
            why => {
                let reason = format!("it stands at the destination without its expiry: {why}");
                let hint = Some("set its expiry there, or delete it and run again".to_owned());
                self.refuse(sent, Refusal::Key { reason, hint })
            }
        }
    }

    /// Whether a record's time has come: its own, or that of every field of its hash.
    fn is_past(&self, sent: &Sent) -> bool {
        /// The destination's clock is known to within a round trip.
        const SLACK_MS: u64 = 1000;
        let now_ms = self.clock.now_ms() + SLACK_MS;
        let fields = payload::last_field_ms(sent.context.family, &sent.record.value).flatten();
        let at_ms = sent.record.expire_at_ms.into_iter().chain(fields).min();
        at_ms.is_some_and(|at_ms| at_ms <= now_ms)
    }

    /// No command sets an idle time or a frequency.
    fn count_eviction_lost(&mut self, sent: &Sent) {
        if sent.record.eviction.is_none() {
            return;
        }
        let lost = &mut self.report.changes.eviction_lost;
        *lost += 1;
        if *lost == 1 {
            self.observer.warn(
                "native commands cannot set idle times and frequencies: the keys that they write \
                 count as just used (the summary says how many)",
            );
        }
    }

    fn count_idempotency_lost(&mut self, lost: bool) {
        let count = &mut self.report.changes.idempotency_lost;
        *count += u64::from(lost);
        if lost && *count == 1 {
            self.observer.notice(
                "native commands cannot write all that streams remember of producers (XADD … IDMP) \
                 where the destination does not have XCFGSET and XIDMPRECORD, does not let this \
                 user run them, or takes no such id (the summary says how many streams)",
            );
        }
    }

    fn count_losses(&mut self, losses: CommandLosses) {
        let changes = &mut self.report.changes;
        changes.by_commands += 1;
        changes.field_ttls_lost += losses.field_ttls;
        changes.field_ttls_clamped += losses.field_ttls_clamped;
        changes.streams_filled_in += u64::from(losses.stream_metadata || losses.consumer_times > 0);
        changes.given_back_owned += losses.given_back;
        self.count_idempotency_lost(losses.idempotency);
        if losses.pending > 0 {
            self.report.problems.push(format!(
                "{} pending entries of a stream's groups were not taken by the destination",
                losses.pending
            ));
        }
    }
}

/// What it means that MULTI and EXEC were not answered as they should be, and how often by now.
fn no_transaction(conn: &Conn, why: ServerError, times: u8) -> ServerError {
    match why {
        // Loading or busy, and waited for already.
        ServerError::Lost { reason, .. } if is_not_now(&reason) => ServerError::Reply {
            address: conn.address().to_owned(),
            command: "MULTI".to_owned(),
            reason,
        },
        ServerError::Refused { ref reason, .. } if is_forbidden(reason) || is_not_now(reason) => {
            why
        }
        why if times >= MAX_ODD_TRANSACTIONS => why,
        // The next connection may fare better.
        why => conn.spoilt(why.to_string()),
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
