//! What became of a record, once the server has answered: what is counted, remembered and told, and
//! what is to be done next. Nothing is sent from here.

use anyhow::Result;

use super::intake::{leave_metadata_out, strip_past_fields};
use super::item::{Counted, Extra, Item, Spares, Stage, Task, Wrote};
use super::judge::{Asked, Foreseen, Standing, Stands, Verdict, foresee};
use super::lane::Lane;
use super::ledger::{Ledger, Say};
use super::memory::{LeftAlone, Memory};
use super::settings::Settings;
use super::witnesses::Witnesses;
use crate::payload::meaning::Lenience;
use crate::payload::metadata::{self, are_kept_by};
use crate::payload::{FOOTER_LEN, FieldTtlForm};
use crate::policy::OnConflict;
use crate::record::{Family, KeyRecord, Value};
use crate::server::cluster::Redirect;
use crate::server::conn::{asks_for_patience, is_forbidden};
use crate::server::{FIELDS_GOING_MS, ServerError};
use crate::sink::server::compare::{self, Found};
use crate::sink::server::foresee::Way;
use crate::sink::server::held::Repeats;
use crate::sink::server::refusal::{RestoreError, is_about_database};
use crate::sink::{FieldTtls, Landed};

/// What is to be done after an answer.
#[must_use]
pub(super) enum Then {
    /// Nothing more.
    Nothing,
    /// This goes out next.
    Next(Box<Item>),
    /// This goes out again, when what is in flight is answered.
    PutOff(Box<Item>),
    /// The destination asks for patience with this command, in these words.
    Later(Box<Item>, &'static str, String),
    /// A node of a cluster answered that it is not the one, or not now.
    Redirected(Box<Item>, Redirect),
    /// The primary became a replica, and said so in these words.
    Demoted(Box<Item>, String),
    /// The connection is not what it was.
    Lose(Box<Item>, ServerError),
    /// The database is not to be had by this record: in these words. `for_all`: by no other either.
    NoDatabase {
        item: Box<Item>,
        why: String,
        for_all: bool,
    },
    /// The destination refuses RESTORE in these words: native commands write this, and all others.
    ByCommands(Box<Item>, String),
    /// Dry run: what the destination said of a write of this key stands for others like it.
    Rights(Box<Item>, Result<(), String>),
}

/// What an answer is judged by, and what it changes.
pub(super) struct Outcome<'a> {
    pub at: usize,
    pub lane: &'a mut Lane,
    pub ledger: &'a mut Ledger,
    pub memory: &'a mut Memory,
    pub witnesses: &'a mut Option<Witnesses>,
    pub spares: &'a mut Spares,
    pub settings: &'a Settings,
    pub is_cluster: bool,
    /// Something was acknowledged, there or elsewhere.
    pub has_acknowledged: bool,
    /// On the destination's clock, Unix ms.
    pub now_ms: u64,
}

impl Outcome<'_> {
    /// The answer to what was asked about a record, but for comparisons and what native commands
    /// write: a number for what was done (1 for OK), or an error reply.
    pub fn answered(&mut self, item: Box<Item>, answer: Result<i64, String>) -> Result<Then> {
        match (answer, item.task) {
            (Ok(_), Task::CleanUp(_) | Task::Compare | Task::Try(_)) => Ok(Then::Nothing),
            (Ok(_), Task::Restore { own, .. }) => self.stored(item, own, Wrote::Now),
            (Ok(count), Task::Look) => self.looked(item, count > 0),
            (Ok(count), Task::Ask) => self.asked(item, count > 0),
            (Ok(count), Task::Delete { .. }) => self.deleted(item, count > 0),
            (Err(text), Task::Try(way)) => self.tried(item, way, text),
            (Err(text), _) => self.refused(item, text),
        }
    }

    /// The destination has it; `own`: in place of what this run wrote.
    pub fn stored(&mut self, mut item: Box<Item>, own: bool, wrote: Wrote) -> Result<Then> {
        self.lane.note_progress();
        self.ledger.note_standing(item.print, false);
        let counted = match item.past.counted {
            Some(counted) => counted,
            None => {
                let counted = self.count_write(&item, own)?;
                self.memory.own(&item)?;
                counted
            }
        };
        if let Some(witnesses) = self.witnesses {
            witnesses.acknowledged(self.at, &item);
        }
        self.accept(&mut item);
        if let Some(mut item) = self.lane.kept.keep(item, counted, wrote) {
            if let (Some(target), Value::Compact(buffer)) =
                (&mut self.lane.takes.target, &mut item.record.value)
            {
                target.reuse(std::mem::take(buffer));
            }
            self.spares.put(item);
        }
        Ok(Then::Nothing)
    }

    /// Tells whoever waits for it that the destination accepted the record.
    fn accept(&mut self, item: &mut Item) {
        let extra = item.extra.as_ref();
        if extra.is_none_or(|extra| extra.original.is_none()) {
            return;
        }
        let landed = self.landed(item);
        if let Some(extra) = &mut item.extra
            && let (Some(origin), Some(value)) = (extra.origin.take(), extra.original.take())
        {
            let record = KeyRecord {
                key: item.record.key.clone(),
                value,
                ..item.record
            };
            self.ledger.say(Say::Accepted(origin, record, landed));
        }
    }

    /// Counts a write: the first of a key that stood before this run is no second one of its own.
    fn count_write(&mut self, item: &Item, own: bool) -> Result<Counted> {
        let is_first = self.memory.touch(item.print)?;
        Ok(self.ledger.count_write(item, own && !is_first))
    }

    /// The destination removed it, or had nothing to remove.
    fn deleted(&mut self, item: Box<Item>, was_there: bool) -> Result<Then> {
        self.lane.note_progress();
        let counted = match item.task {
            Task::Delete { expired: true } => Counted::Expired,
            _ if was_there => Counted::Deleted,
            // The answer to an earlier DEL was lost with its connection.
            _ if item.past.is_doubtful && self.memory.is_own(item.print)? => Counted::Deleted,
            _ => Counted::AlreadyGone,
        };
        if let Some(witnesses) = self.witnesses {
            witnesses.removed(&item);
        }
        self.ledger.note_standing(item.print, true);
        if item.past.counted.is_none() {
            if self.settings.listens {
                let (db, key) = (item.record.db, item.record.key.clone());
                self.ledger.say(Say::Deleted(db, key));
            }
            self.ledger.count_removal(counted);
        }
        let wrote = if was_there { Wrote::Now } else { Wrote::Before };
        // What it was counted as stays the same, however often it is done again.
        let counted = item.past.counted.unwrap_or(counted);
        let _kept = self.lane.kept.keep(item, counted, wrote);
        Ok(Then::Nothing)
    }

    /// In what it stands there otherwise than its record says.
    fn landed(&self, item: &mut Item) -> Landed {
        let changes = item.changes.as_ref();
        let (lost, moved) = changes.map_or((0, 0), |changes| {
            (changes.field_ttls_lost, changes.field_ttls_clamped)
        });
        let field_ttls = match self.field_ttl_max_of_commands(item) {
            Some(None) => FieldTtls::Lost,
            _ if lost > 0 => FieldTtls::Lost,
            Some(Some(max_ms)) => FieldTtls::AtMost(max_ms),
            None if moved > 0 => {
                let form = match self.lane.facts.family {
                    Family::Valkey => FieldTtlForm::Valkey,
                    Family::Redis | Family::Other => FieldTtlForm::Redis,
                };
                FieldTtls::AtMost(form.max_ms())
            }
            None => FieldTtls::Kept,
        };
        let has_less = item.has_doubtful_classes() || !item.classes_left_out().is_empty();
        let (mut seen, mut classes_left_out) = (None, Vec::new());
        if let Some(extra) = &mut item.extra {
            seen = extra.seen.take();
            classes_left_out.clone_from(&extra.classes_left_out);
        }
        Landed {
            field_ttls,
            seen,
            keeps_metadata: are_kept_by(item.context.family, item.context.rdb_version),
            is_poorer: !self.settings.options.allow_loss.key_meta && has_less,
            classes_left_out,
        }
    }

    /// If it goes by commands, the latest expiry of a field that these can set there, Unix ms; the
    /// inner `None` where they can set none.
    fn field_ttl_max_of_commands(&self, item: &Item) -> Option<Option<u64>> {
        let features = self.lane.takes.features.as_ref()?;
        item.is_by_commands().then_some(features.field_ttl_max_ms)
    }

    /// Whether a key that stands is read back: to name in what it differs, because the source's key
    /// is deleted where it stands equal, or because it may come again, and then it matters whether
    /// it stands as this record says.
    fn compares_standing(&self) -> bool {
        let options = &self.settings.options;
        options.on_conflict == OnConflict::Fail
            || options.repeats != Repeats::No
            || self.settings.compares
    }

    /// What is known of a key that stands.
    fn stands(&mut self, item: &Item) -> Result<Stands> {
        Ok(Stands {
            task: item.task,
            collides: item.past.counted.is_none() && self.memory.collides(item)?,
            is_doubtful: item.past.is_doubtful,
            stood_untouched: self.memory.stood_untouched(item.print)?,
            is_own: self.memory.is_own(item.print)?,
            compares: self.compares_standing(),
        })
    }

    /// Dry run: it stands, or does not.
    pub fn looked(&mut self, item: Box<Item>, exists: bool) -> Result<Then> {
        let stands = self.stands(&item)?;
        let foreseen = foresee(self.settings.options.on_conflict, stands, exists);
        #[cfg(test)]
        super::tests::mark(&foreseen);
        match foreseen {
            Foreseen::Collision => return self.collided(item),
            Foreseen::Compare => return Ok(Then::Next(item.with(Task::Compare))),
            Foreseen::ReplacesOwn => self.foresee_write(&item, true)?,
            Foreseen::Skipped => self.ledger.records().skipped += 1,
            Foreseen::Written => {
                self.foresee_write(&item, false)?;
                self.memory.own_anyway(&item)?;
            }
        }
        Ok(Then::Nothing)
    }

    fn foresee_write(&mut self, item: &Item, own: bool) -> Result<()> {
        self.count_write(item, own)?;
        self.ledger.note_standing(item.print, false);
        Ok(())
    }

    /// A tombstone for a key that this run does not know as its own: does it stand?
    fn asked(&mut self, item: Box<Item>, stands: bool) -> Result<Then> {
        if !stands {
            self.ledger.records().already_gone += 1;
            return Ok(Then::Nothing);
        }
        // Only in a dry run: else it would have been deleted.
        if self.settings.options.on_conflict == OnConflict::Replace {
            self.ledger.records().deleted += 1;
            return Ok(Then::Nothing);
        }
        let reason = "was deleted at the source, and its value is not one that came from there";
        self.left_alone(item, reason.to_owned())
    }

    /// What stands was read.
    pub fn compared(&mut self, mut item: Box<Item>, mut found: Found) -> Result<Then> {
        found.clean(&self.lane.facts);
        found.doubt_nil(self.now_ms);
        if self.is_cluster
            && let Some(redirect) = found.refusal.as_deref().and_then(Redirect::parse)
        {
            return Ok(Then::Redirected(item, redirect));
        }
        match (&found.refusal, found.standing()) {
            (Some(text), _) if asks_for_patience(text) => {
                return Ok(Then::Later(item, "DUMP", text.clone()));
            }
            (Some(text), _) if is_about_database(text) => {
                return Ok(Then::NoDatabase {
                    why: text.clone(),
                    item,
                    for_all: true,
                });
            }
            (_, compare::Standing::Gone) => return self.gone(item),
            _ => {}
        }
        let lenience = self.lenience(&item);
        let family = self.lane.facts.family;
        let close_ms = self.settings.close_ms(&item);
        match found.differs_from(&item.record, &item.context, family, lenience, close_ms) {
            Some(reason) => {
                if let Some(text) = &found.refusal {
                    self.warn_unread(text);
                }
                self.differs(item, found.refusal.is_none(), reason)
            }
            None => {
                if lenience.earlier_by_ms > 0
                    && self.settings.listens
                    && let Some(seen) = found.into_seen(family)
                {
                    item.extra_mut().seen = Some(seen);
                }
                if item.past.is_doubtful {
                    return self.stored(item, false, Wrote::Before);
                }
                if item.past.counted.is_none() && self.memory.collides(&item)? {
                    return self.collided(item);
                }
                self.stands_as_sent(item)
            }
        }
    }

    /// What is skipped unread may be what an interrupted run left there, by an earlier record of the key.
    fn warn_unread(&mut self, text: &str) {
        let options = &self.settings.options;
        if options.on_conflict == OnConflict::Skip && options.repeats != Repeats::No {
            self.ledger.warn_unread(|| {
                format!(
                    "the destination refuses DUMP ({text}): keys that stand there are skipped without \
                     a comparison; if an interrupted run wrote them, they may have an older value \
                     than the latest; --on-conflict replace writes the latest"
                )
            });
        }
    }

    fn lenience(&self, item: &Item) -> Lenience {
        let is_kept = are_kept_by(item.context.family, item.context.rdb_version);
        Lenience {
            // What was built by commands has times of its own.
            ignore_delivery_times: item.is_by_commands(),
            // One that goes by the time that its clock is known to may be gone there already.
            fields_gone_by_ms: self.now_ms.saturating_add(FIELDS_GOING_MS),
            earlier_by_ms: self.settings.rebased_by(&item.context),
            ignore_field_ttls: self.field_ttl_max_of_commands(item) == Some(None),
            metadata_must_stand: self.metadata_must_stand(item),
            no_more_metadata: self.keeps_metadata() && is_kept,
        }
    }

    /// Whether what modules keep beside a key has to stand there with it; what cannot was left out
    /// of the record.
    fn metadata_must_stand(&self, item: &Item) -> bool {
        let may_be_lost = item.has_doubtful_classes() && self.settings.options.allow_loss.key_meta;
        !item.is_by_commands() && !may_be_lost && self.keeps_metadata()
    }

    /// Whether a destination has key metadata.
    fn keeps_metadata(&self) -> bool {
        let target = self.lane.takes.target.as_ref();
        target.is_some_and(|target| target.accepts().takes_metadata())
    }

    /// It stands with something else. `is_known`: what with.
    fn differs(&mut self, item: Box<Item>, is_known: bool, reason: String) -> Result<Then> {
        if self.memory.is_own(item.print)? {
            if self.settings.options.dry_run {
                self.foresee_write(&item, true)?;
                return Ok(Then::Nothing);
            }
            return Ok(Then::Next(item.with(Task::Restore {
                replace: true,
                own: true,
            })));
        }
        if is_known && self.settings.compares {
            self.ledger.report().deletions.kept_for_another += 1;
        }
        self.left_alone(item, reason)
    }

    /// The key stands as this record says: nothing is to be done, and what comes for it later
    /// applies.
    fn stands_as_sent(&mut self, mut item: Box<Item>) -> Result<Then> {
        self.ledger.uncount(&item);
        if let Some(witnesses) = self.witnesses {
            witnesses.acknowledged(self.at, &item);
        }
        self.ledger.records().unchanged += 1;
        let is_poorer = !item.classes_left_out().is_empty();
        self.ledger.changes().key_metadata_lost += u64::from(is_poorer);
        self.memory.note_stood(&item)?;
        self.rely_on_it();
        let landed = self.landed(&mut item);
        if let Some(extra) = item.extra
            && let Extra {
                origin: Some(origin),
                original: Some(value),
                ..
            } = *extra
        {
            let record = KeyRecord {
                value,
                ..item.record
            };
            self.ledger.say(Say::Stands(origin, record, landed));
        }
        Ok(Then::Nothing)
    }

    /// It stood there a moment ago, and does not any more: it expired, or somebody removed it.
    fn gone(&mut self, mut item: Box<Item>) -> Result<Then> {
        const MAX_TURNS: u8 = 8;
        // Of a hash all fields may have gone by.
        strip_past_fields(&mut item, self.ledger.changes(), self.now_ms);
        let at_ms = item.record.expire_at_ms;
        if at_ms.is_some_and(|at_ms| at_ms <= self.now_ms) {
            self.ledger.uncount(&item);
            self.ledger.records().expired += 1;
            return Ok(Then::Nothing);
        }
        item.past.turns = item.past.turns.saturating_add(1);
        if item.past.turns > MAX_TURNS {
            let reason = "it comes and goes at the destination: somebody else writes it".to_owned();
            return Ok(self.refuse(item, reason, None));
        }
        Ok(Then::Next(item.with(match self.settings.options.dry_run {
            true => Task::Look,
            false => Task::Restore {
                replace: false,
                own: false,
            },
        })))
    }

    /// The key stands with something else and is left alone.
    pub fn left_alone(&mut self, item: Box<Item>, reason: String) -> Result<Then> {
        self.ledger.uncount(&item);
        let left = self.memory.leave_alone(item, reason)?;
        #[cfg(test)]
        super::tests::mark(&left);
        match left {
            LeftAlone::Conflict { failure, is_first } => {
                self.ledger.records().conflicts += 1;
                self.ledger.report().doubts.left_standing += u64::from(is_first);
                self.ledger.say(Say::Failed(failure));
            }
            LeftAlone::Again => self.ledger.records().conflicts += 1,
            LeftAlone::Skipped => self.skip(),
            // Judged at the end; that it stands is gone by until then.
            LeftAlone::Held => self.rely_on_it(),
        }
        Ok(Then::Nothing)
    }

    /// What stands is gone by; a dry run goes by nothing.
    fn rely_on_it(&mut self) {
        if !self.settings.options.dry_run {
            self.lane.kept.note_stood();
        }
    }

    /// It stands, and that is all that is asked for.
    fn skip(&mut self) {
        self.ledger.records().skipped += 1;
        self.rely_on_it();
    }

    /// Each record is counted, and each key is named once.
    fn collided(&mut self, item: Box<Item>) -> Result<Then> {
        self.ledger.records().conflicts += 1;
        if let Some(failure) = self.memory.collided(item)? {
            self.ledger.say(Say::Failed(failure));
        }
        Ok(Then::Nothing)
    }

    /// The key is refused.
    pub fn refuse(&mut self, item: Box<Item>, reason: String, hint: Option<String>) -> Then {
        self.ledger.refuse(item, reason, hint);
        Then::Nothing
    }

    /// An error reply.
    pub fn refused(&mut self, mut item: Box<Item>, text: String) -> Result<Then> {
        if text.starts_with("NOAUTH") && !item.past.note_odd_answer() {
            // The connection is not what it was; a new one authenticates.
            let lost = self.lane.lost("restoring keys", text);
            return Ok(Then::Lose(item, lost));
        }
        let asked = Asked {
            item: &item,
            facts: &self.lane.facts,
            is_cluster: self.is_cluster,
            was_primary: self.is_cluster || self.lane.kept.has_acknowledged(),
            method: self.settings.options.method,
        };
        let verdict = asked.judge(&text);
        #[cfg(test)]
        super::tests::mark(&verdict);
        match verdict {
            Verdict::Redirected(redirect) => Ok(Then::Redirected(item, redirect)),
            Verdict::Demoted => Ok(Then::Demoted(item, text)),
            Verdict::Unseen => {
                self.left_alone(item, format!("cannot tell whether it exists: {text}"))
            }
            Verdict::TryInstead => Ok(Then::Next(item.with(Task::Try(Way::RestoreNew)))),
            Verdict::NotRemoved => Ok(self.not_removed(item, text)),
            Verdict::MetadataRefused => Ok(self.metadata_refused(item, &text)),
            Verdict::Standing => self.standing(item, &text),
            Verdict::Later => {
                let command = item.task.command();
                Ok(Then::Later(item, command, text))
            }
            // Other keys of it may be had: a user may have selectors for some of them.
            Verdict::Database => Ok(Then::NoDatabase {
                item,
                why: text,
                for_all: false,
            }),
            Verdict::Refused { reason, hint } => Ok(self.refuse(item, reason, hint)),
            Verdict::ByCommands => Ok(Then::ByCommands(item, text)),
            Verdict::End(advice) => Err(self.end(&item, text, advice)),
        }
    }

    /// The run ends because of what was said to this record.
    fn end(&mut self, item: &Item, text: String, advice: Option<&'static str>) -> anyhow::Error {
        let command = item.task.command();
        let Some(advice) = advice else {
            self.ledger.records().refused += 1;
            return self.lane.refusal(command, text).into();
        };
        self.ledger.uncount(item);
        self.ledger.records().refused += 1;
        let error = match self.has_acknowledged {
            true => self.lane.refusal(command, text),
            // Nothing was written, and nothing can be: as a dry run foretells.
            false => self.lane.refused(command, text),
        };
        anyhow::Error::new(error).context(advice)
    }

    /// The key is there already.
    pub(super) fn standing(&mut self, item: Box<Item>, text: &str) -> Result<Then> {
        let standing = self.stands(&item)?.judge();
        #[cfg(test)]
        super::tests::mark(&standing);
        match standing {
            Standing::Collision => self.collided(item),
            Standing::NotReplaced => {
                let reason = format!("the destination does not replace the existing key: {text}");
                Ok(self.refuse(item, reason, None))
            }
            Standing::Compare => Ok(Then::Next(item.with(Task::Compare))),
            Standing::Replace => Ok(Then::Next(item.with(Task::Restore {
                replace: true,
                own: true,
            }))),
            Standing::Skip => {
                self.skip();
                Ok(Then::Nothing)
            }
        }
    }

    /// The removal of a temporary key was refused: it is tried again as long as there is hope.
    fn not_removed(&mut self, item: Box<Item>, text: String) -> Then {
        if is_forbidden(&text) && item.task == Task::CleanUp("UNLINK") {
            return Then::Next(item.with(Task::CleanUp("DEL")));
        }
        match RestoreError::of(&text, &self.lane.facts, &item.context) {
            RestoreError::Later => Then::Later(item, "UNLINK", text),
            _ => {
                let record = &item.record;
                self.ledger.leave_behind(record.db, &record.key, &text);
                Then::Nothing
            }
        }
    }

    /// Dry run: what the destination says to a write that cannot be carried out.
    fn tried(&mut self, item: Box<Item>, way: Way, text: String) -> Result<Then> {
        match way {
            Way::RestoreNew if way.is_open(&text) => self.looked(item, false),
            Way::RestoreNew if text.starts_with("BUSYKEY") => self.looked(item, true),
            Way::RestoreNew => self.refused(item, text),
            Way::Restore => {
                let answer = match way.is_open(&text) {
                    true => Ok(()),
                    false => Err(text),
                };
                Ok(Then::Rights(item, answer))
            }
            Way::Set | Way::Rename if way.is_open(&text) => self.may_be_written(item),
            Way::Set | Way::Rename => self.refused(item, text),
        }
    }

    /// Dry run: the key could be written.
    pub fn may_be_written(&mut self, item: Box<Item>) -> Result<Then> {
        match self.settings.options.on_conflict {
            // What is replaced need not be looked for.
            OnConflict::Replace => self.looked(item, false),
            OnConflict::Fail | OnConflict::Skip => Ok(Then::Next(item.with(Task::Look))),
        }
    }

    /// The destination reads key metadata, and yet not those of this value: none of its modules has
    /// one of the classes, or the module does not take what is there.
    fn metadata_refused(&mut self, mut item: Box<Item>, text: &str) -> Then {
        if !self.settings.options.allow_loss.key_meta {
            let value = item.record.value.head();
            let needed = metadata::needed(item.context.family, value).ok().flatten();
            let classes = needed.unwrap_or_else(|| "that may be ignored".to_owned());
            let reason = format!(
                "{text}: modules keep metadata beside it (class {classes}), and the destination \
                 does not accept it"
            );
            let hint = "load the modules that have these classes there, or write the key without \
                        its metadata by --allow-loss key-meta";
            return self.refuse(item, reason, Some(hint.to_owned()));
        }
        if let Err((reason, hint)) = leave_metadata_out(self.settings, self.ledger, &mut item, text)
        {
            return self.refuse(item, reason, hint);
        }
        item.bytes = item.record.value.bytes().len() + FOOTER_LEN;
        item.stage = match self.settings.options.dry_run {
            true => Stage::Rights(Way::Restore),
            false => Stage::Place,
        };
        Then::Next(item)
    }
}

#[cfg(test)]
super::tests::named!(Then: Nothing, Next, PutOff, Later, Redirected, Demoted, Lose, NoDatabase, ByCommands, Rights);
