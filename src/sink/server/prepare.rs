//! What is to be done with a record: send it, and how, or not.

use anyhow::Result;

use super::foresee::{KeyRights, Way, offer};
use super::refusal::{Outlook, Refusal, has_no_absttl, is_about_key};
use super::target::{Ready, Target};
use super::try_out::ProbeKeys;
use super::{Action, Sent, ServerSink};
use crate::ledger::Changes;
use crate::payload::{self, FOOTER_LEN, metadata};
use crate::policy::OnConflict;
use crate::record::{Context, KeyRecord, Origin, Value, larger_than};
use crate::server::{ServerError, show_db_key};
use crate::sink::metadata::leave_out;
use crate::size::is_larger;

impl ServerSink {
    pub(super) fn take_key(
        &mut self,
        mut record: KeyRecord,
        origin: Option<Origin>,
        mut context: Context,
    ) -> Result<()> {
        self.report.taken += 1;
        self.strip_past_fields(&mut record, &context);
        let print = self.own.fingerprint(record.db, &record.key);
        self.settle_key(print)?;
        let at = self.lane_for(&record.key)?;
        let mut sent = Sent {
            origin: origin.map(Box::new),
            at,
            batch: self.batches,
            ..Sent::new(Action::Look, record, context, print)
        };
        if let Some(why) = self.closed_database(sent.record.db) {
            return self.refuse_database(sent, &why);
        }
        if sent
            .record
            .expire_at_ms
            .is_some_and(|at_ms| at_ms <= self.clock.now_ms())
        {
            let remove = !self.options.dry_run
                && (self.options.on_conflict == OnConflict::Replace || self.own.contains(print)?);
            if !remove {
                if self.options.dry_run {
                    self.census.add_print(print, true);
                }
                self.report.expired += 1;
                return Ok(());
            }
            sent.action = Action::Delete { expired: true };
            return self.send(sent);
        }
        self.say_if_cut_short(&sent);
        if self.accepted.is_some() && sent.origin.is_some() {
            sent.original = Some(Box::new(sent.record.value.clone()));
        }
        if let Some(max) = self.options.max_value_bytes
            && is_larger(&sent.record.value, sent.context.family, max)
        {
            self.report.above_max_value += 1;
            let reason = larger_than(max);
            return self.refuse(sent, Refusal::Key { reason, hint: None });
        }
        let undecoded = &mut self.report.undecoded;
        undecoded.note(sent.context.family, &sent.record, true);
        let replace = self.options.on_conflict == OnConflict::Replace;
        let bytes = sent.record.value.bytes().len();
        if self.all_by_commands || self.is_too_large(at, &sent.record.key, bytes)? {
            return self.take_by_commands(sent);
        }
        if self.lanes[at].target.is_none() {
            let (db, key) = (sent.record.db, &sent.record.key);
            let learnt = self.ask_in_database(db, key, |sink, at| sink.learn_target(at, key))?;
            match learnt {
                Ok((at, ())) => sent.at = at,
                Err(why) => return self.refuse_database(sent, &why),
            }
            if let Err(error) = self.look_out(sent.at) {
                self.report.refused += 1;
                return Err(error);
            }
            if self.all_by_commands {
                return self.take_by_commands(sent);
            }
        }
        self.ask_for_classes(&mut sent)?;
        match self.prepare(&mut sent, &mut context) {
            Ok(ready) => sent.ready = ready,
            Err((reason, hint)) => return self.refuse(sent, Refusal::Key { reason, hint }),
        }
        self.note_miscounted(&sent);
        sent.context = context;
        sent.bytes = match sent.ready {
            Ready::AsIs => sent.record.value.bytes().len(),
            Ready::Footer(_) => sent.record.value.bytes().len() + FOOTER_LEN,
        };
        // Written anew it may have become larger.
        if self.is_too_large(sent.at, &sent.record.key, sent.bytes)? {
            return self.take_by_commands(sent);
        }
        let target = self.lanes[sent.at].target.as_ref();
        sent.is_graph = target.is_some_and(Target::is_graph);
        if sent.is_graph
            && let Some((reason, hint)) = self.graph_in_the_way(&sent)?
        {
            return self.refuse(sent, Refusal::Key { reason, hint });
        }
        if self.options.dry_run {
            return match self.offer(&sent)? {
                Some((at, text)) => self.refused(at, sent, text),
                None => self.try_key(sent, Way::Restore),
            };
        }
        sent.action = Action::Restore {
            replace,
            own: false,
        };
        self.send(sent)
    }

    /// A dry run: does the destination refuse a value that cannot be read here? Where, and in which
    /// words.
    fn offer(&mut self, sent: &Sent) -> Result<Option<(usize, String)>> {
        let target = self.lanes[sent.at].target.as_ref();
        let Some(kind) = target.and_then(Target::opaque).cloned() else {
            return Ok(None);
        };
        let (at, refused) = self.ask_lane(&sent.record.key, |sink, at| {
            let lane = &mut sink.lanes[at];
            match (&mut lane.conn, &mut lane.target) {
                (Some(conn), Some(target)) => {
                    offer(conn, target, kind.clone(), &sent.record, sent.ready)
                }
                _ => lane.conn().map(|_| None),
            }
        })?;
        Ok(refused.map(|text| (at, text)))
    }

    /// Says once that the destination cuts long expiries without a word, when the first such key
    /// comes.
    fn say_if_cut_short(&mut self, sent: &Sent) {
        let lookalike = self.facts().lookalike;
        let Some((name, longest_ms)) =
            lookalike.and_then(|one| Some((one.name(), one.longest_ttl_ms()?)))
        else {
            return;
        };
        let at_ms = sent.record.expire_at_ms.unwrap_or(0);
        let is_cut = at_ms > self.clock.now_ms().saturating_add(longest_ms);
        if is_cut && !std::mem::replace(&mut self.told_cut_short, true) {
            self.observer.warn(&format!(
                "{name} lets no key live longer than {} days, and cuts longer expiries to that \
                 without a word: so it is with {}",
                longest_ms / (24 * 3600 * 1000),
                show_db_key(sent.record.db, &sent.record.key)
            ));
        }
    }

    /// A dry run: could this key be written, and then, does it stand already?
    pub(super) fn try_key(&mut self, mut sent: Sent, way: Way) -> Result<()> {
        let (db, at) = (sent.record.db, sent.at);
        // The nodes of a cluster have users of their own each.
        if self.key_rights.is_none() && self.routes.is_none() {
            let asked = self.ask_lane(&sent.record.key, |sink, at| {
                KeyRights::ask(sink.lanes[at].conn()?)
            })?;
            self.key_rights = Some(asked.1);
        }
        let rights = self.key_rights.as_ref();
        let known = rights.and_then(|rights| rights.known(db, &sent.record.key));
        match known.filter(|_| way == Way::Restore).cloned() {
            Some(Err(text)) => return self.refused(at, sent, text),
            Some(Ok(())) if self.options.on_conflict == OnConflict::Replace => {
                return self.looked(sent, false);
            }
            Some(Ok(())) => sent.action = Action::Look,
            None => sent.action = Action::Try(way),
        }
        self.send(sent)
    }

    /// What the destination says to a write that cannot be carried out.
    pub(super) fn tried(
        &mut self,
        at: usize,
        mut sent: Sent,
        way: Way,
        text: String,
    ) -> Result<()> {
        let answer = match way.is_open(&text) {
            true => Ok(()),
            false => Err(text),
        };
        // Anything else may be another the next time.
        let is_lasting = answer.as_ref().err().is_none_or(|text| is_about_key(text));
        if is_lasting
            && way == Way::Restore
            && let Some(rights) = &mut self.key_rights
        {
            rights.note(sent.record.db, &sent.record.key, answer.clone());
        }
        match answer {
            Ok(()) if way == Way::RestoreNew => self.looked(sent, false),
            Err(text) if way == Way::RestoreNew && text.starts_with("BUSYKEY") => {
                self.looked(sent, true)
            }
            // What is replaced need not be looked for.
            Ok(()) if self.options.on_conflict == OnConflict::Replace => self.looked(sent, false),
            Ok(()) => {
                sent.action = Action::Look;
                self.queue(sent)
            }
            Err(text) => self.refused(at, sent, text),
        }
    }

    /// Whether the destination takes anything, before the first key goes there. A run that will not
    /// get anything done ends here, and so does a dry run.
    pub(super) fn look_out(&mut self, at: usize) -> Result<()> {
        let target = self.lanes[at].target.as_ref();
        let Some(text) = target.and_then(|target| target.obstacle.clone()) else {
            return Ok(());
        };
        match Outlook::of(&text, self.options.method) {
            Outlook::Open => Ok(()),
            Outlook::ByCommands => {
                self.write_by_commands(&text);
                Ok(())
            }
            // What was a primary may be one again, and what is full may have room.
            Outlook::Nothing(_) if self.lanes[at].acknowledged || self.routes.is_some() => Ok(()),
            Outlook::Nothing(advice) => {
                let error = ServerError::Refused {
                    address: self.lanes[at].to.address.to_string(),
                    command: "RESTORE".to_owned(),
                    reason: text,
                };
                Err(anyhow::Error::new(error).context(advice))
            }
        }
    }

    /// RESTORE is not to be had.
    pub(super) fn write_by_commands(&mut self, text: &str) {
        if !std::mem::replace(&mut self.all_by_commands, true) {
            let why = match has_no_absttl(text) {
                true => format!("{} has no RESTORE with ABSTTL", self.facts().title()),
                false => format!("the destination refuses RESTORE ({text})"),
            };
            self.observer.notice(&format!(
                "{why}; writing by native commands, which is slower"
            ));
        }
    }

    fn prepare(
        &mut self,
        sent: &mut Sent,
        context: &mut Context,
    ) -> Result<Ready, (String, Option<String>)> {
        let Some(target) = &mut self.lanes[sent.at].target else {
            return Err(("its destination was lost".to_owned(), None));
        };
        let ready = target.prepare(&mut sent.record, context);
        let changes = target.last_changes();
        let left_out = target.left_out().to_vec();
        if ready.is_ok() {
            let why = "the destination does not keep them";
            self.note_left_out(sent, &left_out, why);
            self.note_doubtful(sent);
        }
        if changes != Changes::default() {
            let before = sent
                .changes
                .take()
                .map_or(Changes::default(), |before| *before);
            sent.changes = Some(Box::new(before.and_then(changes)));
        }
        ready
    }

    /// Leaves the key metadata out of a value, and counts that once it is written. The error: why it
    /// must be refused, and what to do about it.
    pub(super) fn leave_metadata_out(
        &mut self,
        sent: &mut Sent,
        why: &str,
    ) -> Result<(), (String, Option<String>)> {
        let mut changes = Changes::default();
        let allow = self.options.allow_loss;
        let left_out = metadata::ids(sent.context.family, &sent.record.value);
        leave_out(&mut sent.record, &sent.context, allow, why, &mut changes)?;
        self.note_left_out(sent, &left_out, why);
        if changes != Changes::default() {
            let before = sent.changes.take().unwrap_or_default();
            sent.changes = Some(Box::new(before.and_then(changes)));
        }
        Ok(())
    }

    /// The destination reads key metadata, and yet not those of this value: none of its modules has
    /// one of the classes, or the module does not take what is there.
    pub(super) fn metadata_refused(&mut self, mut sent: Sent, text: &str) -> Result<()> {
        let value = sent.record.value.head();
        let needed = metadata::needed(sent.context.family, value).ok().flatten();
        if !self.options.allow_loss.key_meta {
            let classes = needed.unwrap_or_else(|| "that may be ignored".to_owned());
            let reason = format!(
                "{text}: modules keep metadata beside it (class {classes}), and the destination does not \
                 take them"
            );
            let hint = "load the modules that have these classes there, or write the key without \
                        its metadata by --allow-loss key-meta";
            let hint = Some(hint.to_owned());
            return self.refuse(sent, Refusal::Key { reason, hint });
        }
        if let Err((reason, hint)) = self.leave_metadata_out(&mut sent, text) {
            return self.refuse(sent, Refusal::Key { reason, hint });
        }
        sent.bytes = sent.record.value.bytes().len() + FOOTER_LEN;
        match self.options.dry_run {
            true => self.try_key(sent, Way::Restore),
            false => self.queue(sent),
        }
    }

    /// Says which streams do not hold as many entries as they say.
    fn note_miscounted(&mut self, sent: &Sent) {
        let target = self.lanes[sent.at].target.as_mut();
        let Some(miscounted) = target.and_then(Target::take_miscounted) else {
            return;
        };
        let (db, key) = (sent.record.db, &sent.record.key);
        miscounted.note(&self.observer, &mut self.report.changes, db, key);
    }

    /// Makes a record ready for another lane than the one it was made ready for. `None`: not now.
    /// The inner error is why it cannot be.
    pub(super) fn fit(
        &mut self,
        at: usize,
        sent: &mut Sent,
    ) -> Result<Option<Result<(), Refusal>>> {
        let former = std::mem::replace(&mut sent.at, at);
        if !matches!(
            sent.action,
            Action::Restore { .. } | Action::Look | Action::Try(_)
        ) {
            return Ok(Some(Ok(())));
        }
        if sent.by_commands.is_some() {
            if self.lanes[at].commands.is_none() {
                self.drain_lane(at)?;
                if let Err(lost) = self.learn_commands(at) {
                    self.lost(at, lost)?;
                    return Ok(None);
                }
            }
            return Ok(Some(Ok(())));
        }
        // Which modules a node has is another matter than its version.
        let has_metadata = payload::has_metadata(sent.context.family, sent.record.value.head());
        let is_alike = self.lanes[at].is_like(&self.lanes[former]) && !has_metadata;
        if former == at || is_alike {
            return Ok(Some(Ok(())));
        }
        self.drain_lane(at)?;
        let learnt = self.learn_target(at, &sent.record.key);
        let learnt = learnt.and_then(|()| self.ask_for_classes_at(at, &sent.record, &sent.context));
        if let Err(lost) = learnt {
            self.lost(at, lost)?;
            return Ok(None);
        }
        let mut context = sent.context;
        Ok(Some(match self.prepare(sent, &mut context) {
            Ok(ready) => {
                (sent.ready, sent.context) = (ready, context);
                Ok(())
            }
            Err((reason, hint)) => Err(Refusal::Key { reason, hint }),
        }))
    }

    /// Tries a node when the first key comes for it, whose name tells what the user may write.
    /// Nothing may be in flight there.
    pub(super) fn learn_target(&mut self, at: usize, like: &[u8]) -> Result<(), ServerError> {
        let slot = self.routes.as_ref().and_then(|routes| routes.slot_at(at));
        let lane = &mut self.lanes[at];
        if lane.target.is_some() {
            return Ok(());
        }
        let Some(conn) = &mut lane.conn else {
            return lane.conn().map(|_| ());
        };
        let (allow, sanitize) = (self.options.allow_loss, self.options.sanitize);
        let mut keys = ProbeKeys::new(like, slot);
        keys.patience = lane.to.retry_for;
        let learnt = Target::learn_by(conn, &lane.facts, &keys, allow, sanitize, &self.observer)?;
        conn.doing("restoring keys");
        let target = lane.target.insert(learnt);
        if self.options.no_check {
            target.pass_unchecked();
        }
        if let Some((family, version)) = &self.twin_of
            && *family == lane.facts.family
            && *version == lane.facts.version
        {
            target.source_is_twin();
        }
        Ok(())
    }

    pub(super) fn take_tombstone(&mut self, db: u32, key: Vec<u8>, context: Context) -> Result<()> {
        self.report.taken += 1;
        let print = self.own.fingerprint(db, &key);
        self.settle_key(print)?;
        let at = self.lane_for(&key)?;
        let own = self.own.contains(print)?;
        if self.options.dry_run && own {
            self.census.add_print(print, true);
            self.report.deleted += 1;
            self.stood.touch(print)?;
            return Ok(());
        }
        let may_delete = own || self.options.on_conflict == OnConflict::Replace;
        let record = KeyRecord {
            db,
            key,
            value: Value::Compact(Vec::new()),
            expire_at_ms: None,
            eviction: None,
        };
        let action = match may_delete && !self.options.dry_run {
            true => Action::Delete { expired: false },
            false => Action::Ask,
        };
        let sent = Sent {
            at,
            batch: self.batches,
            ..Sent::new(action, record, context, print)
        };
        match self.closed_database(db) {
            Some(why) => self.refuse_database(sent, &why),
            None => self.send(sent),
        }
    }
}
