//! What became of a record, once the server has answered.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::compare::{self, Standing};
use super::foresee::Way;
use super::held::{Repeats, collision};
use super::refusal::{
    Refusal, TOO_FEW_REPLICAS, is_about_database, is_bad_format, is_replaceable,
    is_too_few_replicas,
};
use super::try_out::REPLICAS_PATIENCE;
use super::{Action, Counted, Sent, ServerSink, Wrote, answer};
use crate::observer::{FailureKind, KeyFailure};
use crate::own_writes::{Fingerprint, OwnWrites};
use crate::payload::meaning::Lenience;
use crate::payload::metadata::are_kept_by;
use crate::payload::{FieldTtlForm, has_metadata};
use crate::policy::{Method, OnConflict};
use crate::record::{Family, KeyRecord, Origin, Value};
use crate::server::ServerError;
use crate::server::cluster::Redirect;
use crate::server::conn::{asks_for_patience, is_forbidden};
use crate::sink::{FieldTtls, Landed};
use crate::units::duration_text;

/// How long a primary that became a replica is waited for where nobody names another one.
const DEMOTED_PATIENCE: Duration = Duration::from_secs(10);

impl ServerSink {
    /// The destination has it; `own`: in place of what this run wrote.
    pub(super) fn stored(&mut self, at: usize, sent: Sent, own: bool, wrote: Wrote) -> Result<()> {
        self.progressed(at);
        self.census.add_print(sent.print, false);
        let counted = match sent.counted {
            Some(counted) => counted,
            None => self.count_write(&sent, own)?,
        };
        self.remember(at, sent, counted, wrote)
    }

    /// Counts a write: the first of a key that stood before this run is no second one of its own.
    pub(super) fn count_write(&mut self, sent: &Sent, own: bool) -> Result<Counted> {
        let is_first = self.stood.touch(sent.print)?;
        if let Some(changes) = &sent.changes {
            self.report.changes.add(**changes);
        }
        Ok(if own && !is_first {
            self.report.replaced_own += 1;
            Counted::ReplacedOwn
        } else {
            self.report.restored += 1;
            Counted::Restored
        })
    }

    /// The destination removed it, or had nothing to remove.
    pub(super) fn deleted(&mut self, at: usize, sent: Sent, was_there: bool) -> Result<()> {
        self.progressed(at);
        let counted = self.counted_as(&sent, was_there)?;
        self.witness_removed(&sent);
        self.census.add_print(sent.print, true);
        if let (Some(accepted), None) = (&mut self.accepted, &sent.counted) {
            accepted.deleted(sent.record.db, &sent.record.key)?;
        }
        match (sent.counted, counted) {
            (Some(_), _) => {}
            (None, Counted::Expired) => self.report.expired += 1,
            (None, Counted::AlreadyGone) => self.report.already_gone += 1,
            (None, _) => self.report.deleted += 1,
        }
        let wrote = if was_there { Wrote::Now } else { Wrote::Before };
        // What it was counted as stays the same, however often it is done again.
        let counted = sent.counted.unwrap_or(counted);
        self.keep(at, sent, counted, wrote);
        self.ask_for_replicas(at)
    }

    /// Something was got done: patience begins anew.
    fn progressed(&mut self, at: usize) {
        self.patience.progress();
        let lane = &mut self.lanes[at];
        lane.acknowledged = true;
        lane.retries.succeeded();
    }

    fn remember(
        &mut self,
        at: usize,
        mut sent: Sent,
        counted: Counted,
        wrote: Wrote,
    ) -> Result<()> {
        if sent.counted.is_none() {
            self.own_it(&sent)?;
        }
        self.witness(at, &sent);
        let landed = self.landed(at, &mut sent);
        if let (Some(accepted), Some(_), Some(original)) =
            (&mut self.accepted, &sent.origin, sent.original.take())
            && let Some(origin) = sent.origin.take()
        {
            let record = KeyRecord {
                key: sent.record.key.clone(),
                value: *original,
                ..sent.record
            };
            accepted.accepted(*origin, record, landed)?;
        }
        if let Some(sent) = self.keep(at, sent, counted, wrote)
            && let (Some(target), Value::Compact(buffer)) =
                (&mut self.lanes[at].target, sent.record.value)
        {
            target.reuse(buffer);
        }
        self.ask_for_replicas(at)
    }

    /// In what it stands there otherwise than its record says.
    pub(super) fn landed(&self, at: usize, sent: &mut Sent) -> Landed {
        let changes = sent.changes.as_ref();
        let (lost, moved) = changes.map_or((0, 0), |changes| {
            (changes.field_ttls_lost, changes.field_ttls_clamped)
        });
        let by_commands = self.field_ttl_max_of_commands(at, sent);
        let field_ttls = match by_commands {
            Some(None) => FieldTtls::Lost,
            _ if lost > 0 => FieldTtls::Lost,
            Some(Some(max_ms)) => FieldTtls::AtMost(max_ms),
            None if moved > 0 => {
                let form = match self.lanes[at].facts.family {
                    Family::Valkey => FieldTtlForm::Valkey,
                    Family::Redis | Family::Other => FieldTtlForm::Redis,
                };
                FieldTtls::AtMost(form.max_ms())
            }
            None => FieldTtls::Kept,
        };
        Landed {
            field_ttls,
            seen: sent.seen.take().map(|seen| *seen),
            keeps_metadata: are_kept_by(sent.context.family, sent.context.rdb_version),
            is_poorer: !self.options.allow_loss.key_meta
                && (sent.has_doubtful_classes || !sent.classes_left_out.is_empty()),
            classes_left_out: sent.classes_left_out.clone(),
        }
    }

    /// If it goes by commands, the latest expiry of a field that these can set there, Unix ms; the
    /// inner `None` where they can set none.
    fn field_ttl_max_of_commands(&self, at: usize, sent: &Sent) -> Option<Option<u64>> {
        sent.by_commands.as_ref()?;
        let commands = self.lanes[at].commands.as_ref()?;
        Some(commands.features().field_ttl_max_ms)
    }

    /// From now on the key counts as this run's own.
    pub(super) fn own_it(&mut self, sent: &Sent) -> Result<()> {
        const WHAT: &str = "remember a key in a temporary file";
        // Under `replace` nobody will ever ask.
        if self.options.on_conflict == OnConflict::Replace {
            return Ok(());
        }
        self.own.insert(sent.print).context(WHAT)?;
        self.own_origin(sent)
    }

    /// Of the name together with the key of the source, where several may come under one name.
    pub(super) fn origin_of(&self, sent: &Sent) -> Option<Fingerprint> {
        let (origins, origin) = (self.own_origins.as_ref()?, sent.origin.as_ref()?);
        Some(origin_print(origins, sent.print, origin))
    }

    fn own_origin(&mut self, sent: &Sent) -> Result<()> {
        let print = self.origin_of(sent);
        if let (Some(origins), Some(print)) = (&mut self.own_origins, print) {
            let inserted = origins.insert(print);
            inserted.context("remember a key in a temporary file")?;
        }
        Ok(())
    }

    /// Whether a key that stands is read back: to name in what it differs, because the source's key
    /// is deleted where it stands equal, or because it may come again, and then it matters whether
    /// it stands as this record says.
    fn compares_standing(&self) -> bool {
        self.options.on_conflict == OnConflict::Fail
            || self.options.repeats != Repeats::No
            || self
                .accepted
                .as_ref()
                .is_some_and(|accepted| accepted.compares())
    }

    pub(super) fn looked(&mut self, sent: Sent, exists: bool) -> Result<()> {
        let own = self.own.contains(sent.print)?;
        if self.options.on_conflict != OnConflict::Replace && self.collides(&sent)? {
            return self.collided(sent);
        }
        let is_untouched = own && self.stood.is_untouched(sent.print)?;
        match self.options.on_conflict {
            _ if is_untouched && exists => {
                return self.send(Sent {
                    action: Action::Compare,
                    ..sent
                });
            }
            _ if own => {
                self.count_write(&sent, true)?;
                self.census.add_print(sent.print, false);
            }
            OnConflict::Fail | OnConflict::Skip if exists && self.compares_standing() => {
                return self.send(Sent {
                    action: Action::Compare,
                    ..sent
                });
            }
            OnConflict::Skip if exists => self.report.skipped += 1,
            _ => {
                self.count_write(&sent, false)?;
                self.census.add_print(sent.print, false);
                self.own
                    .insert(sent.print)
                    .context("remember a key in a temporary file")?;
                self.own_origin(&sent)?;
            }
        }
        Ok(())
    }

    pub(super) fn compared(
        &mut self,
        at: usize,
        mut sent: Sent,
        mut found: compare::Found,
    ) -> Result<()> {
        found.clean(&self.lanes[at].facts);
        found.doubt_nil(self.clock.now_ms());
        if self.routes.is_some()
            && let Some(redirect) = found.refusal.as_deref().and_then(Redirect::parse)
        {
            return self.redirected(at, sent, redirect);
        }
        match (&found.refusal, found.standing()) {
            (Some(text), _) if asks_for_patience(text) => {
                return self.later(at, sent, "DUMP", text.clone());
            }
            (Some(text), _) if is_about_database(text) => {
                self.close_database(sent.record.db, text.clone());
                return self.refuse_database(sent, text);
            }
            (_, Standing::Gone) => return self.gone(sent),
            _ => {}
        }
        // What was built by commands has times of its own.
        let lenience = Lenience {
            ignore_delivery_times: sent.by_commands.is_some(),
            earlier_by_ms: self.rebased_by(&sent.context),
            ignore_field_ttls: self.field_ttl_max_of_commands(at, &sent) == Some(None),
            metadata_must_stand: self.metadata_must_stand(at, &sent),
            no_more_metadata: self.keeps_metadata(at)
                && are_kept_by(sent.context.family, sent.context.rdb_version),
        };
        let family = self.lanes[at].facts.family;
        let differs = found.differs_from(&sent.record, &sent.context, family, lenience);
        let Some(reason) = differs else {
            if lenience.earlier_by_ms > 0 && self.accepted.is_some() {
                sent.seen = found.into_seen(family).map(Box::new);
            }
            if sent.is_doubtful {
                return self.stored(at, sent, false, Wrote::Before);
            }
            if sent.counted.is_none() && self.collides(&sent)? {
                return self.collided(sent);
            }
            return self.stands_as_sent(at, sent);
        };
        if self.own.contains(sent.print)? {
            if self.options.dry_run {
                self.count_write(&sent, true)?;
                self.census.add_print(sent.print, false);
                return Ok(());
            }
            sent.action = Action::Restore {
                replace: true,
                own: true,
            };
            return self.queue(sent);
        }
        if found.refusal.is_none() && self.accepted.as_ref().is_some_and(|by| by.compares()) {
            self.report.source_kept_for_another += 1;
        }
        self.left_alone(sent, reason)
    }

    /// Whether what modules keep beside a key has to stand there with it; what cannot was left out
    /// of the record.
    fn metadata_must_stand(&self, at: usize, sent: &Sent) -> bool {
        let may_be_lost = sent.has_doubtful_classes && self.options.allow_loss.key_meta;
        sent.by_commands.is_none() && !may_be_lost && self.keeps_metadata(at)
    }

    /// Whether a destination has key metadata.
    fn keeps_metadata(&self, at: usize) -> bool {
        let target = self.lanes[at].target.as_ref();
        target.is_some_and(|target| target.accepts().takes_metadata())
    }

    /// It stood there a moment ago, and does not any more: it expired, or somebody removed it.
    fn gone(&mut self, mut sent: Sent) -> Result<()> {
        const MAX_TURNS: u8 = 8;
        let now_ms = self.clock.now_ms();
        if sent
            .record
            .expire_at_ms
            .is_some_and(|at_ms| at_ms <= now_ms)
        {
            self.uncount(&sent);
            self.report.expired += 1;
            return Ok(());
        }
        sent.turns = sent.turns.saturating_add(1);
        if sent.turns > MAX_TURNS {
            let reason = "it comes and goes at the destination: somebody else writes it".to_owned();
            return self.refuse(sent, Refusal::Key { reason, hint: None });
        }
        sent.action = match self.options.dry_run {
            true => Action::Look,
            false => Action::Restore {
                replace: false,
                own: false,
            },
        };
        self.queue(sent)
    }

    /// The destination asks for patience: the same again, in a while.
    fn later(&mut self, at: usize, sent: Sent, command: &str, text: String) -> Result<()> {
        self.put_again(sent);
        // Replicas that were never there are not waited for as long as those that went away.
        if is_too_few_replicas(&text)
            && !self.patience.lasts_for(REPLICAS_PATIENCE)
            && !self.lanes.iter().any(|lane| lane.acknowledged)
        {
            let error = ServerError::Refused {
                address: self.lanes[at].to.address.to_string(),
                command: command.to_owned(),
                reason: format!("{text} ({})", self.patience.told()),
            };
            return Err(anyhow::Error::new(error).context(TOO_FEW_REPLICAS));
        }
        if !self.patience.lasts() {
            let text = format!("{text} ({})", self.patience.told());
            return Err(self.refusal(at, command, text).into());
        }
        self.pause = true;
        Ok(())
    }

    /// It was counted as accepted, and is not any more.
    pub(super) fn uncount(&mut self, sent: &Sent) {
        if matches!(sent.counted, Some(Counted::Restored | Counted::ReplacedOwn)) {
            self.census.add_print(sent.print, true);
            if let Some(changes) = &sent.changes {
                self.report.changes.take_back(**changes);
            }
        }
        match sent.counted {
            None => {}
            Some(Counted::Restored) => self.report.restored -= 1,
            Some(Counted::ReplacedOwn) => self.report.replaced_own -= 1,
            Some(Counted::Deleted) => self.report.deleted -= 1,
            Some(Counted::AlreadyGone) => self.report.already_gone -= 1,
            Some(Counted::Expired) => self.report.expired -= 1,
        }
    }

    pub(super) fn refused(&mut self, at: usize, mut sent: Sent, text: String) -> Result<()> {
        if self.routes.is_some()
            && let Some(redirect) = Redirect::parse(&text)
        {
            return self.redirected(at, sent, redirect);
        }
        if text.starts_with("READONLY") && self.may_be_demoted(at) {
            return self.demoted(at, sent, text);
        }
        if matches!(sent.action, Action::Ask) && is_forbidden(&text) {
            return self.left_alone(sent, format!("it cannot be seen whether it stands: {text}"));
        }
        if matches!(sent.action, Action::Look) && is_forbidden(&text) && sent.by_commands.is_none()
        {
            // The run does without EXISTS.
            sent.action = Action::Try(Way::RestoreNew);
            return self.queue(sent);
        }
        let command = answer::command_of(sent.action);
        if text.starts_with("NOAUTH") && !sent.is_odd_again() {
            // The connection is not what it was; a new one authenticates.
            let lost = ServerError::Lost {
                address: self.lanes[at].to.address.to_string(),
                doing: "restoring keys".to_owned(),
                reason: text,
            };
            self.put_again(sent);
            return self.lost(at, lost);
        }
        if matches!(sent.action, Action::CleanUp(_)) {
            return self.not_removed(at, sent, &text);
        }
        if is_bad_format(&text)
            && matches!(sent.action, Action::Restore { .. } | Action::Look)
            && has_metadata(sent.context.family, sent.record.value.head())
        {
            return self.metadata_refused(sent, &text);
        }
        let refusal = Refusal::of(&text, &self.lanes[at].facts, &sent.context);
        match refusal.of_value(sent.context.family, sent.record.value.head()) {
            Refusal::Standing if sent.counted.is_none() && self.collides(&sent)? => {
                self.collided(sent)
            }
            // It was told to replace what stands: again would be for ever.
            Refusal::Standing if matches!(sent.action, Action::Restore { replace: true, .. }) => {
                let reason = format!("the destination does not replace what stands: {text}");
                self.refuse(sent, Refusal::Key { reason, hint: None })
            }
            // Nobody knows whose it is, but what it is can be seen.
            Refusal::Standing if sent.is_doubtful => {
                sent.action = Action::Compare;
                self.queue(sent)
            }
            // An earlier record of it stood there already: this one may stand there as well.
            Refusal::Standing if self.stood.is_untouched(sent.print)? => {
                sent.action = Action::Compare;
                self.queue(sent)
            }
            Refusal::Standing if self.own.contains(sent.print)? => {
                sent.action = Action::Restore {
                    replace: true,
                    own: true,
                };
                self.queue(sent)
            }
            Refusal::Standing if !self.compares_standing() => {
                self.report.skipped += 1;
                Ok(())
            }
            Refusal::Standing => {
                sent.action = Action::Compare;
                self.queue(sent)
            }
            Refusal::Later => self.later(at, sent, command, text),
            // Other keys of it may be had: a user may have selectors for some of them.
            Refusal::Database => self.refuse_database(sent, &text),
            // Without DEL the others arrive all the same.
            Refusal::Run { .. }
                if is_forbidden(&text) && matches!(sent.action, Action::Delete { .. }) =>
            {
                let reason =
                    format!("it is to be removed, and the destination refuses DEL: {text}");
                self.refuse(sent, Refusal::Key { reason, hint: None })
            }
            // Nothing can be foretold where nobody may look.
            Refusal::Run { .. } if is_forbidden(&text) && matches!(sent.action, Action::Look) => {
                self.report.refused += 1;
                Err(self.refusal(at, command, text).into())
            }
            Refusal::Run { .. }
                if is_forbidden(&text)
                    && matches!(sent.action, Action::Try(Way::Set | Way::Rename)) =>
            {
                self.report.refused += 1;
                Err(self.refusal(at, command, text).into())
            }
            // Some services and users have everything but RESTORE.
            Refusal::Run { .. }
                if is_replaceable(&text)
                    && self.options.method == Method::Auto
                    && sent.by_commands.is_none() =>
            {
                self.write_by_commands(&text);
                self.take_by_commands(sent)
            }
            Refusal::Run { advice } => {
                self.uncount(&sent);
                self.report.refused += 1;
                let error = match self.lanes.iter().any(|lane| lane.acknowledged) {
                    true => self.refusal(at, command, text),
                    // Nothing was written, and nothing can be: as a dry run foretells.
                    false => ServerError::Refused {
                        address: self.lanes[at].to.address.to_string(),
                        command: command.to_owned(),
                        reason: text,
                    },
                };
                Err(anyhow::Error::new(error).context(advice))
            }
            refusal @ Refusal::Key { .. } => self.refuse(sent, refusal),
        }
    }

    /// It was a primary when this run began, or it is said to be one.
    fn may_be_demoted(&self, at: usize) -> bool {
        self.routes.is_some() || self.lanes[at].acknowledged
    }

    /// A primary that became a replica: behind the same address, or elsewhere in the cluster, there
    /// should be another one soon.
    fn demoted(&mut self, at: usize, mut sent: Sent, text: String) -> Result<()> {
        let lost = ServerError::Lost {
            address: self.lanes[at].to.address.to_string(),
            doing: "restoring keys".to_owned(),
            reason: text.clone(),
        };
        // It was not written.
        sent.ask_to = None;
        self.put_again(sent);
        let may_move = self.routes.is_some() || self.lanes[at].is_watched();
        let retry_for = self.patience.limit();
        let patience = match may_move {
            true => retry_for,
            false => retry_for.min(DEMOTED_PATIENCE),
        };
        if !may_move && !std::mem::replace(&mut self.told_demoted, true) {
            self.observer.warn(&format!(
                "{} became a read-only replica during this run ({text}); waiting up to {} for \
                 a primary to answer there",
                self.lanes[at].address(),
                duration_text(patience)
            ));
        }
        let patient = self.wait_at_most(&text, patience).context(
            "the destination became a read-only replica during this run: name its primary, and run \
             the same again there",
        );
        // It answers; how often is bounded by the patience.
        self.lanes[at].retries.succeeded();
        self.lost(at, lost)?;
        patient
    }

    /// Whether this run wrote another key of the source under the same name.
    pub(super) fn collides(&mut self, sent: &Sent) -> Result<bool> {
        let Some(print) = self.origin_of(sent) else {
            return Ok(false);
        };
        Ok(self.own.contains(sent.print)? && !self.is_own_origin(print)?)
    }

    /// Whether this run wrote that very key of the source under its name.
    pub(super) fn is_own_origin(&mut self, print: Fingerprint) -> Result<bool> {
        let origins = self.own_origins.as_mut();
        origins.map_or(Ok(true), |origins| Ok(origins.contains(print)?))
    }

    /// Each record is counted, and each key is named once.
    fn collided(&mut self, sent: Sent) -> Result<()> {
        const WHAT: &str = "remember a conflict in a temporary file";
        self.report.conflicts += 1;
        if let Some(print) = self.origin_of(&sent) {
            if self.held.collided.contains(print).context(WHAT)? {
                return Ok(());
            }
            self.held.collided.insert(print).context(WHAT)?;
        }
        self.observer
            .key_failed(&collision(sent.record.db, sent.record.key))
    }

    pub(super) fn refuse(&mut self, sent: Sent, refusal: Refusal) -> Result<()> {
        let Refusal::Key { mut reason, hint } = refusal else {
            return Ok(());
        };
        if sent.is_graph && matches!(sent.action, Action::Restore { replace: true, .. }) {
            reason.push_str(" (DEL of what stood there was sent before it)");
        }
        self.uncount(&sent);
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
