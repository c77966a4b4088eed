//! What is done with a record before it goes out: it is looked at, made ready for its destination, or
//! refused. Nothing is asked or sent from here; what has to be known first is a [`Stage`] of the record.

use std::cell::Cell;
use std::collections::HashSet;

use anyhow::Result;

use super::databases::no_database;
use super::item::{Form, Item, Stage, Task};
use super::lane::Lane;
use super::ledger::Ledger;
use super::memory::Memory;
use super::settings::Settings;
use crate::ledger::Changes;
use crate::payload::{self, FOOTER_LEN, FieldFate, metadata};
use crate::policy::{Method, OnConflict};
use crate::record::{Value, larger_than};
use crate::server::show_db_key;
use crate::sink::Miscounted;
use crate::sink::metadata::{NOT_BY_COMMANDS, leave_out};
use crate::sink::server::commands::{Job, Replace};
use crate::sink::server::compare::ALL_FIELDS_PAST_MS;
use crate::sink::server::foresee::{KeyRights, Way};
use crate::sink::server::graphs::{Graphs, MAX_GRAPHS};
use crate::sink::server::key_classes::are_to_be_asked;
use crate::sink::server::prepare::{Ready, Target};
use crate::sink::server::refusal::{Outlook, has_no_absttl, is_about_key};
use crate::size::is_larger;

/// What a run found out about the ways to write.
#[derive(Default)]
pub(super) struct Ways {
    /// RESTORE is not to be used, or not to be had.
    all_by_commands: bool,
    /// A dry run tried whether native commands may be used.
    tried_native: bool,
    /// A dry run: which keys may be written, once that was asked.
    rights: Option<KeyRights>,
    /// Graphs that were sent, each with its database.
    graphs: Graphs,
    /// A dry run: the libraries that would have been written.
    overwritten: HashSet<String>,
}

impl Ways {
    pub fn new(method: Method) -> Self {
        Self {
            all_by_commands: method == Method::Commands,
            ..Self::default()
        }
    }

    /// Whether RESTORE writes nothing.
    pub fn all_by_commands(&self) -> bool {
        self.all_by_commands
    }

    /// RESTORE is not to be had, in these words; `title` is the destination's.
    pub fn write_by_commands(&mut self, text: &str, title: &str, ledger: &mut Ledger) {
        if !std::mem::replace(&mut self.all_by_commands, true) {
            let why = match has_no_absttl(text) {
                true => format!("{title} has no RESTORE with ABSTTL"),
                false => format!("the destination refuses RESTORE ({text})"),
            };
            ledger.notice(format!(
                "{why}; writing by native commands, which is slower"
            ));
        }
    }

    /// A dry run: takes the libraries that would have been written.
    pub fn take_overwritten(&mut self) -> HashSet<String> {
        std::mem::take(&mut self.overwritten)
    }

    /// A dry run: these libraries would have been written.
    pub fn set_overwritten(&mut self, libraries: HashSet<String>) {
        self.overwritten = libraries;
    }

    /// What the server says about its user's rights to keys.
    pub fn set_rights(&mut self, rights: KeyRights) {
        self.rights = Some(rights);
    }

    /// Whether the server was asked about its user's rights to keys.
    pub fn has_rights(&self) -> bool {
        self.rights.is_some()
    }

    /// Dry run: what the destination said of a write of this key stands for others like it.
    pub fn note_right(&mut self, item: &Item, answer: &Result<(), String>) {
        // Anything else may be another the next time.
        let is_lasting = answer.as_ref().err().is_none_or(|text| is_about_key(text));
        if is_lasting && let Some(rights) = &mut self.rights {
            rights.note(item.record.db, &item.record.key, answer.clone());
        }
    }

    /// Dry run: what is known of the right to write this key.
    pub fn right_to(&self, item: &Item) -> Option<Result<(), String>> {
        let rights = self.rights.as_ref()?;
        rights.known(item.record.db, &item.record.key).cloned()
    }

    /// Why a graph cannot be written though its value may be: this run knows of one of its name.
    pub fn graph_in_the_way(&self, item: &Item) -> Option<(String, Option<String>)> {
        let taken = self.graphs.get(&item.record.key);
        let is_taken = taken.is_some_and(|other| *other != item.record.db);
        if !is_taken && self.graphs.len() < MAX_GRAPHS {
            return None;
        }
        let reason = match is_taken {
            true => {
                "this run writes a graph of that name into another database, and the module has \
                 one graph of a name in all databases"
            }
            false => "this run wrote too many graphs to know whether its name is free",
        };
        let hint = "import it into another server";
        Some((reason.to_owned(), Some(hint.to_owned())))
    }

    /// This graph is written.
    pub fn note_graph(&mut self, item: &Item) {
        self.graphs.insert(item.record.key.clone(), item.record.db);
    }
}

/// What becomes of a record that was looked at.
pub(super) enum Judged {
    /// It is counted, and not sent.
    Over,
    /// It takes part in this stage next.
    Goes(Stage),
    /// It is refused: why, and what to do about it.
    Refused(String, Option<String>),
}

/// What a record is judged by, and what that changes.
pub(super) struct Intake<'a> {
    pub lane: &'a mut Lane,
    pub ledger: &'a mut Ledger,
    pub memory: &'a mut Memory,
    pub ways: &'a mut Ways,
    pub settings: &'a Settings,
    /// On the destination's clock, Unix ms.
    pub now_ms: u64,
}

impl Intake<'_> {
    /// Looks at a record of a key.
    pub fn judge_key(&mut self, item: &mut Item) -> Result<Judged> {
        let options = &self.settings.options;
        let replaces = options.on_conflict == OnConflict::Replace;
        let at_ms = item.record.expire_at_ms;
        if at_ms.is_some_and(|at_ms| at_ms <= self.now_ms) {
            let removes = !options.dry_run && (replaces || self.memory.is_own(item.print)?);
            if !removes {
                if options.dry_run {
                    self.ledger.note_standing(item.print, true);
                }
                self.ledger.records().expired += 1;
                return Ok(Judged::Over);
            }
            item.task = Task::Delete { expired: true };
            return Ok(Judged::Goes(Stage::Place));
        }
        self.warn_if_cut_short(item);
        if self.settings.listens && item.origin().is_some() {
            item.extra_mut().original = Some(item.record.value.clone());
        }
        if let Some(max) = options.max_value_bytes
            && is_larger(&item.record.value, item.context.family, max)
        {
            self.ledger.report().values.above_max_value += 1;
            return Ok(Judged::Refused(larger_than(max), None));
        }
        let undecoded = &mut self.ledger.report().values.undecoded;
        undecoded.note(item.context.family, &item.record, true);
        Ok(Judged::Goes(match self.ways.all_by_commands() {
            true => Stage::Strip,
            false => Stage::Size,
        }))
    }

    /// Looks at a tombstone.
    pub fn judge_tombstone(&mut self, item: &mut Item) -> Result<Judged> {
        let options = &self.settings.options;
        let own = self.memory.is_own(item.print)?;
        if options.dry_run && own {
            self.ledger.note_standing(item.print, true);
            self.ledger.records().deleted += 1;
            self.memory.touch(item.print)?;
            return Ok(Judged::Over);
        }
        let may_delete = own || options.on_conflict == OnConflict::Replace;
        item.task = match may_delete && !options.dry_run {
            true => Task::Delete { expired: false },
            false => Task::Ask,
        };
        Ok(Judged::Goes(Stage::Place))
    }

    /// Warns once that the destination cuts long expiries without a word, when the first such key
    /// comes.
    fn warn_if_cut_short(&mut self, item: &Item) {
        let Some(at_ms) = item.record.expire_at_ms else {
            return;
        };
        let lookalike = self.lane.facts.lookalike;
        let Some((name, longest_ms)) =
            lookalike.and_then(|one| Some((one.name(), one.longest_ttl_ms()?)))
        else {
            return;
        };
        if at_ms > self.now_ms.saturating_add(longest_ms) {
            self.ledger.warn_cut_short(|| {
                format!(
                    "{name} lets no key live longer than {} days, and silently shortens longer \
                     expiries, such as that of {}",
                    longest_ms / (24 * 3600 * 1000),
                    show_db_key(item.record.db, &item.record.key)
                )
            });
        }
    }

    /// Whether the destination takes anything, before the first key goes there. A run that will not
    /// get anything done ends here, and so does a dry run.
    pub fn look_out(&mut self, is_cluster: bool, title: &str) -> Result<()> {
        let target = self.lane.takes.target.as_ref();
        let Some(text) = target.and_then(|target| target.obstacle.clone()) else {
            return Ok(());
        };
        match Outlook::of(&text, self.settings.options.method) {
            Outlook::Open => Ok(()),
            Outlook::ByCommands => {
                self.ways.write_by_commands(&text, title, self.ledger);
                Ok(())
            }
            // What was a primary may be one again, and what is full may have room.
            Outlook::Nothing(_) if self.lane.kept.has_acknowledged() || is_cluster => Ok(()),
            Outlook::Nothing(advice) => {
                let error = self.lane.refused("RESTORE", text);
                Err(anyhow::Error::new(error).context(advice))
            }
        }
    }

    /// Whether the destination is to be asked what it does with a value's key metadata.
    pub fn must_ask_for_classes(&self, item: &Item) -> bool {
        let target = self.lane.takes.target.as_ref();
        target.is_some_and(|target| are_to_be_asked(target, &item.record, &item.context))
    }

    /// Makes a value ready for RESTORE; `is_first`: it was not made ready for another node before.
    pub fn prepare(
        &mut self,
        item: &mut Item,
        is_first: bool,
    ) -> Result<(), (String, Option<String>)> {
        let Some(target) = &mut self.lane.takes.target else {
            return Err(("its destination was lost".to_owned(), None));
        };
        let mut context = item.context;
        let ready = target.prepare(&mut item.record, &mut context);
        let changes = target.last_changes();
        if let Ok(ready) = &ready {
            let ready = *ready;
            let is_graph = target.is_graph();
            note_left_out(
                self.ledger,
                item,
                target.left_out(),
                "the destination does not keep them",
            );
            self.note_doubtful_classes(item);
            if is_first {
                self.note_miscounted(item);
            }
            item.context = context;
            item.form = match is_graph {
                true => Form::Graph(ready),
                false => Form::Payload(ready),
            };
            item.bytes = match ready {
                Ready::AsIs => item.record.value.bytes().len(),
                Ready::Footer(_) => item.record.value.bytes().len() + FOOTER_LEN,
            };
        }
        item.note_changes(changes);
        ready.map(|_| ())
    }

    /// Looks whether the destination keeps what goes there of a value's key metadata.
    fn note_doubtful_classes(&mut self, item: &mut Item) {
        let family = item.context.family;
        let Some(target) = &self.lane.takes.target else {
            return;
        };
        let are_kept = target.keeps_classes(family, &item.record.value);
        if are_kept && !item.has_doubtful_classes() {
            return;
        }
        item.extra_mut().has_doubtful_classes = !are_kept;
        if are_kept {
            return;
        }
        for (class, name) in metadata::ids(family, &item.record.value) {
            if !target.classes().keeps(class) {
                self.ledger.warn_class(class, || {
                    format!(
                        "it is not known whether the destination keeps key metadata of the class \
                         {name:?}: that could not be tried out there"
                    )
                });
            }
        }
    }

    /// Says which streams do not hold as many entries as they say.
    fn note_miscounted(&mut self, item: &Item) {
        let target = self.lane.takes.target.as_mut();
        if let Some(miscounted) = target.and_then(Target::take_miscounted) {
            let (db, key) = (item.record.db, &item.record.key);
            self.ledger.note_miscounted(miscounted, db, key);
        }
    }

    /// The task of a value that is ready for RESTORE.
    pub fn restores(&self) -> Task {
        Task::Restore {
            replace: self.settings.options.on_conflict == OnConflict::Replace,
            own: false,
        }
    }

    /// Takes footer and key metadata off a value, so that native commands can write it. The error: why
    /// it must be refused, and what to do about it.
    pub fn strip(&mut self, item: &mut Item) -> Result<(), (String, Option<String>)> {
        let bytes = item.record.value.bytes().len();
        if self.settings.options.method == Method::Restore {
            let reason = format!(
                "its payload of {bytes} bytes is larger than the destination takes in one piece"
            );
            let hint = Some("--method auto writes it in chunks by native commands".to_owned());
            return Err((reason, hint));
        }
        if let Value::Verbatim(dump) = &mut item.record.value {
            let body_len = match payload::split(dump) {
                Ok((body, _)) => body.len(),
                Err(error) => return Err((format!("its payload is damaged: {error}"), None)),
            };
            dump.truncate(body_len);
            item.record.value = Value::Compact(std::mem::take(dump));
        }
        leave_metadata_out(self.settings, self.ledger, item, NOT_BY_COMMANDS)
    }

    /// Whether native commands can write a value. The error: why it must be refused, and what to do
    /// about it.
    pub fn check(&mut self, item: &mut Item) -> Result<(), (String, Option<String>)> {
        let Some(features) = self.lane.takes.features else {
            return Err((no_database(item.record.db, "its connection was lost"), None));
        };
        let (family, allow) = (item.context.family, self.settings.options.allow_loss);
        let checked = features.check(family, item.record.value.bytes(), allow)?;
        if let Some(said) = checked.miscounted {
            let miscounted = Miscounted {
                said,
                held: checked.count,
                corrected: true,
            };
            let (db, key) = (item.record.db, &item.record.key);
            self.ledger.note_miscounted(miscounted, db, key);
        }
        if self.settings.options.dry_run {
            let lost = features.loses_idempotency(family, item.record.value.bytes());
            self.ledger.count_idempotency_lost(lost);
        }
        item.form = Form::Commands;
        if let Some(changes) = &mut item.changes {
            // No footer goes out.
            changes.restamped = 0;
        }
        item.bytes = item.record.value.bytes().len();
        Ok(())
    }

    /// Dry run: whether native commands are to be tried now, which is done once.
    pub fn tries_native(&mut self) -> bool {
        self.settings.options.dry_run && !std::mem::replace(&mut self.ways.tried_native, true)
    }

    /// Dry run: by which command a value of native commands would get its name.
    pub fn way(&self, item: &Item) -> Way {
        let takes = &self.lane.takes;
        match (takes.features, takes.limits()) {
            (Some(features), Some(limits)) => {
                let job = job(item, false, self.now_ms);
                features.way(&limits, &job)
            }
            _ => Way::Rename,
        }
    }
}

/// Leaves the key metadata out of a value. The error: why it must be refused, and what to do about
/// it.
pub(super) fn leave_metadata_out(
    settings: &Settings,
    ledger: &mut Ledger,
    item: &mut Item,
    why: &str,
) -> Result<(), (String, Option<String>)> {
    let mut changes = Changes::default();
    let allow = settings.options.allow_loss;
    let left_out = metadata::ids(item.context.family, &item.record.value);
    leave_out(&mut item.record, &item.context, allow, why, &mut changes)?;
    note_left_out(ledger, item, &left_out, why);
    item.note_changes(changes);
    Ok(())
}

/// Classes of key metadata were left out of a value: each is named once. `why`: why they cannot
/// stand there.
pub(super) fn note_left_out(
    ledger: &mut Ledger,
    item: &mut Item,
    classes: &[(u32, String)],
    why: &str,
) {
    for (class, name) in classes {
        item.extra_mut().classes_left_out.push(*class);
        ledger.warn_class(*class, || {
            format!(
                "key metadata of the class {name:?} is left out: {why} (counted as \
                 key_metadata_lost)"
            )
        });
    }
}

/// Leaves fields of hashes out that are past their time: no server would give them, and RESTORE makes a
/// key of them that stands for some time. A hash of nothing else becomes a key past its time.
pub(super) fn strip_past_fields(item: &mut Item, changes: &mut Changes, now_ms: u64) {
    if now_ms < item.past.fields_stand_until_ms {
        return;
    }
    let family = item.context.family;
    let next_ms = Cell::new(u64::MAX);
    let fate = |at_ms: u64| match at_ms <= now_ms {
        true => FieldFate::Goes,
        false => {
            next_ms.set(next_ms.get().min(at_ms));
            FieldFate::Expires(Some(at_ms))
        }
    };
    let body = payload::body_with_field_expiry(family, &item.record.value);
    let done = body.and_then(|body| payload::refield(family, body, fate).ok()?);
    item.past.fields_stand_until_ms = next_ms.get();
    let Some(done) = done else { return };
    changes.fields_expired += done.gone;
    match done.left {
        0 => item.record.expire_at_ms = Some(ALL_FIELDS_PAST_MS),
        _ => item.record.value = with_old_footer(item, done.value),
    }
}

/// A new value for a record: one that was made ready for RESTORE stays so.
fn with_old_footer(item: &Item, body: Vec<u8>) -> Value {
    match &item.record.value {
        Value::Verbatim(dump) if item.stage >= Stage::Ready => match payload::split(dump) {
            Ok((_, version)) => Value::Verbatim(payload::sign(&body, version)),
            Err(_) => Value::Compact(body),
        },
        _ => Value::Compact(body),
    }
}

/// What native commands are to do with a record.
pub(super) fn job(item: &Item, replace: bool, now_ms: u64) -> Job<'_> {
    Job {
        key: &item.record.key,
        family: item.context.family,
        value: item.record.value.bytes(),
        expire_at_ms: item.record.expire_at_ms,
        replace: match replace {
            true => Replace::Always,
            false => Replace::IfAbsent,
        },
        now_ms,
    }
}

/// Why a graph is refused of which it cannot be seen whether another one has its name.
pub(super) fn unseen_graph(why: &str) -> (String, Option<String>) {
    let hint = "let the user run GRAPH.LIST and TYPE at the destination";
    (
        format!("cannot tell whether a graph of that name exists: {why}"),
        Some(hint.to_owned()),
    )
}

#[cfg(test)]
super::tests::named!(Judged: Over, Goes, Refused);

#[cfg(test)]
mod tests {
    use super::super::item::bare_record;
    use super::*;
    use crate::record::{Context, Family, KeyRecord};

    /// A hash: a goes at 100, b at 200, c only if `c_stays` does not.
    fn item(c_stays: bool) -> Box<Item> {
        let mut body = vec![24, 100, 0, 0, 0, 0, 0, 0, 0, 2 + u8::from(c_stays)];
        body.extend(b"\x01\x01a\x01v\x40\x65\x01b\x01v");
        if c_stays {
            body.extend(b"\x00\x01c\x01v");
        }
        let record = KeyRecord {
            value: Value::Compact(body),
            ..bare_record(0, b"key".to_vec())
        };
        let context = Context {
            family: Family::Redis,
            ..Context::default()
        };
        Item::given(None, record, None, context)
    }

    /// How many fields went, and what the key's expiry is, after it was looked at at these moments.
    fn looked(item: &mut Item, moments: &[u64]) -> (u64, Option<u64>) {
        let mut changes = Changes::default();
        for now_ms in moments {
            strip_past_fields(item, &mut changes, *now_ms);
        }
        (changes.fields_expired, item.record.expire_at_ms)
    }

    #[test]
    fn each_field_that_is_past_its_time_goes_once() {
        let mut one = item(true);
        assert_eq!(looked(&mut one, &[99]), (0, None));
        assert_eq!(one.past.fields_stand_until_ms, 100);
        assert_eq!(looked(&mut one, &[100, 101, 199]), (1, None));
        assert_eq!(one.past.fields_stand_until_ms, 200);
        assert_eq!(looked(&mut one, &[200, 201, 900]), (1, None));
        assert_eq!(one.past.fields_stand_until_ms, u64::MAX);
    }

    #[test]
    fn a_hash_of_no_other_fields_is_past_its_time() {
        let over = Some(ALL_FIELDS_PAST_MS);
        assert_eq!(looked(&mut item(false), &[150, 250, 251, 900]), (2, over));
        assert_eq!(looked(&mut item(false), &[250, 251]), (2, over));
    }
}
