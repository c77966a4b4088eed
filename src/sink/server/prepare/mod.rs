//! What this destination accepts, and what must become of each value before it is sent.
//!
//! The rule: keep → stamp a new footer → write in older forms → refuse with a reason. Nothing is
//! sent that was not checked completely: re-signed nonsense kills old servers when it is restored,
//! or later when it is read.

mod last;
mod learn;
mod module_rules;
mod planner;
mod taken;
#[cfg(test)]
mod tests;

use self::last::Last;
use self::learn::Learnt;
use self::module_rules::ModuleRules;
use self::planner::{Planner, type_byte};
use self::taken::Taken;
use super::graphs;
use super::key_classes::Classes;
use super::modules::is_read_alone;
use super::try_out::ProbeKeys;
use crate::ledger::Changes;
use crate::observer::Observer;
use crate::payload::accept::{Accepts, Plan, Refusal};
use crate::payload::metadata::Class;
use crate::payload::{
    self, Checked, Encoding, Examined, FOOTER_LEN, Forms, Kind, PayloadError, kind_of, metadata,
};
use crate::policy::AllowLoss;
use crate::record::{Context, Family, KeyRecord, Value, not_kept};
use crate::server::facts::Facts;
use crate::server::{Conn, ServerError};
use crate::sink::Miscounted;
use crate::sink::metadata::leave_out;

/// How a value goes out once it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// The payload as it is, with the footer it has.
    AsIs,
    /// The body, with a footer of this version behind it.
    Footer(u16),
}

/// A kind of values that cannot be read here: type byte, RDB version of the footer, and a module's
/// name of its type.
pub type OpaqueKind = (u8, u16, Option<String>);

/// Why a key must be refused, and what to do about it.
type Refused = (String, Option<String>);

/// What a destination accepts.
#[derive(Debug)]
pub struct Target {
    planner: Planner,
    /// Whether what it accepts was tried out, or only looked up by version.
    pub probed: bool,
    /// The destination's words, where it refuses every RESTORE, also on names that begin like those
    /// of the keys to come.
    pub obstacle: Option<String>,
    modules: ModuleRules,
    allow: AllowLoss,
    /// See [`Self::source_is_twin`].
    twin: bool,
    /// See [`Self::pass_unchecked`].
    unchecked: bool,
    /// Kinds that cannot be read here and that the destination took.
    taken: Taken,
    /// What it does with classes of key metadata.
    classes: Classes,
    scratch: Vec<u8>,
    /// What there is to say of the value that was made ready last.
    last: Last,
    /// What was changed in all that were made ready so far, written or not.
    pub changes: Changes,
}

/// Scratch room that is kept between values; a larger one is given back.
const KEPT_SCRATCH_BYTES: usize = 1024 * 1024;

impl Target {
    /// Learns what the destination accepts, by trying it on a key that will not exist: within the
    /// user's rights if `like` is a key that the user may write.
    ///
    /// # Errors
    /// The connection.
    pub fn learn(
        conn: &mut Conn,
        facts: &Facts,
        like: &[u8],
        allow: AllowLoss,
        sanitize: bool,
        observer: &Observer,
    ) -> Result<Self, ServerError> {
        let keys = ProbeKeys::new(like, None);
        Self::learn_by(conn, facts, &keys, allow, sanitize, observer)
    }

    /// As [`Self::learn`], on these keys.
    ///
    /// # Errors
    /// The connection.
    pub fn learn_by(
        conn: &mut Conn,
        facts: &Facts,
        keys: &ProbeKeys,
        allow: AllowLoss,
        sanitize: bool,
        observer: &Observer,
    ) -> Result<Self, ServerError> {
        conn.doing("trying what the destination accepts");
        let learnt = learn::learn(conn, facts, keys, observer)?;
        let modules = ModuleRules::ask(conn, facts)?;
        let is_other = facts.family == Family::Other;
        Ok(Self::new(learnt, modules, allow, sanitize, is_other))
    }

    fn new(
        learnt: Learnt,
        modules: ModuleRules,
        allow: AllowLoss,
        sanitize: bool,
        is_other: bool,
    ) -> Self {
        Self {
            planner: Planner::new(learnt.accepts, sanitize, is_other),
            probed: learnt.probed,
            obstacle: learnt.obstacle,
            modules,
            allow,
            twin: false,
            unchecked: false,
            taken: Taken::default(),
            classes: Classes::default(),
            scratch: Vec::new(),
            last: Last::default(),
            changes: Changes::default(),
        }
    }

    /// What the destination accepts.
    pub fn accepts(&self) -> &Accepts {
        self.planner.accepts()
    }

    /// Makes a value ready to be sent, in place. `Err` is why the key must be refused, and what to
    /// do about it.
    ///
    /// # Errors
    /// See above.
    pub fn prepare(
        &mut self,
        record: &mut KeyRecord,
        context: &mut Context,
    ) -> Result<Ready, Refused> {
        self.last.begin();
        let ready = self.make_ready(record, context);
        if ready.is_ok() && payload::has_metadata(context.family, record.value.head()) {
            self.note_metadata(record, context);
        }
        match ready {
            Ok(_) => self.changes.add(self.last.changes()),
            Err(_) => self.last.forget_changes(),
        }
        ready
    }

    /// Only the destination knows whether it takes these classes.
    fn note_metadata(&mut self, record: &KeyRecord, context: &Context) {
        let Value::Verbatim(dump) = &record.value else {
            return self.last.note_classes(record, context);
        };
        let body = payload::split(dump).map_or(dump.as_slice(), |(body, _)| body);
        match payload::module_name_of(context.family, body) {
            Some(name) if !is_read_alone(&name) => {}
            _ => self.last.note_classes(record, context),
        }
    }

    /// What was changed in the value that was made ready last.
    pub fn last_changes(&self) -> Changes {
        self.last.changes()
    }

    /// Classes of key metadata, by number and name, that were left out of the value that was made
    /// ready last.
    pub fn left_out(&self) -> &[(u32, String)] {
        self.last.left_out()
    }

    /// What the destination does with classes of key metadata.
    pub fn classes(&self) -> &Classes {
        &self.classes
    }

    /// The same, to be learnt.
    pub fn classes_mut(&mut self) -> &mut Classes {
        &mut self.classes
    }

    /// Whether losses of key metadata are allowed.
    pub fn allows_key_meta(&self) -> bool {
        self.allow.key_meta
    }

    /// Whether it keeps every class of a value's key metadata that it may leave out without a word:
    /// it refuses the others.
    pub fn keeps_classes(&self, family: Family, value: &Value) -> bool {
        // Asked of every value, and few have any.
        if !payload::has_metadata(family, value.head()) {
            return true;
        }
        let classes = metadata::classes(family, value.head());
        let mut classes = classes.into_iter().flatten();
        classes.all(|class| !class.may_be_ignored() || self.classes.keeps(class.id()))
    }

    /// Leaves the key metadata out that cannot stand there.
    fn leave_metadata_out(
        &mut self,
        record: &mut KeyRecord,
        context: &Context,
    ) -> Result<(), Refused> {
        let before = metadata::ids(context.family, &record.value);
        if self.planner.accepts().takes_metadata() {
            let (allowed, known) = (self.allow.key_meta, &self.classes);
            let unwanted = |class: &Class<'_>| {
                (allowed || class.may_be_ignored()) && known.leaves_out(class.id())
            };
            let (value, changes) = (&mut record.value, self.last.changes_mut());
            match metadata::strip_some(context.family, value, allowed, unwanted) {
                Ok(some) => changes.key_metadata_lost += u64::from(some),
                // Damage is found below, and told in its words.
                Err(_) => return Ok(()),
            }
        } else {
            let why = "the destination has no key metadata";
            leave_out(record, context, self.allow, why, self.last.changes_mut())?;
        }
        let after = metadata::ids(context.family, &record.value);
        self.last.note_left_out(before, &after);
        Ok(())
    }

    fn make_ready(
        &mut self,
        record: &mut KeyRecord,
        context: &mut Context,
    ) -> Result<Ready, Refused> {
        if payload::has_metadata(context.family, record.value.head()) {
            self.leave_metadata_out(record, context)?;
        }
        if self.goes_as_from_twin(&record.value, context.family)? {
            return Ok(Ready::AsIs);
        }
        let (body_len, footer) = frame(&record.value)?;
        let rdb_version = footer.unwrap_or(context.rdb_version);
        let body = &record.value.bytes()[..body_len];
        let checked = match payload::examine(context.family, body) {
            Examined::Sound(checked) => checked,
            Examined::Opaque => return self.prepare_opaque(record, context, rdb_version),
            // What has to be written anew is refused below.
            Examined::Damaged(_) if self.unchecked && !body.is_empty() => Checked::default(),
            Examined::Damaged(error) => return Err(damaged(&error)),
        };
        let plan = self
            .planner
            .plan(context.family, rdb_version, body, &checked);
        let first = type_byte(context.family, body);
        let is_stream = || kind_of(context.family, first) == Kind::Stream;
        if self.planner.accepts().fills_in(first) && is_stream() {
            self.last.note_filled_in();
        }
        let is_corrected = matches!(plan, Plan::Reencode { .. });
        self.last.note_count(&checked, is_corrected);
        match plan {
            Plan::Keep if footer.is_some() => Ok(Ready::AsIs),
            Plan::Keep => Ok(Ready::Footer(rdb_version)),
            Plan::Restamp(version) => {
                self.last.note_restamped();
                strip_footer(&mut record.value, body_len);
                Ok(Ready::Footer(version))
            }
            Plan::Reencode { forms, version } => {
                self.reencode(record, context, body_len, checked, forms)?;
                Ok(Ready::Footer(version))
            }
            Plan::Verbatim => self.prepare_opaque(record, context, rdb_version),
            Plan::Refuse(refusal) => Err(refused(&refusal)),
        }
    }

    /// Writes a value in other forms, without a footer.
    fn reencode(
        &mut self,
        record: &mut KeyRecord,
        context: &mut Context,
        body_len: usize,
        checked: Checked,
        forms: Forms,
    ) -> Result<(), Refused> {
        let dropped = forms.field_ttl == payload::FieldTtlForm::Dropped;
        if dropped && checked.expiring_fields > 0 && !self.allow.hash_field_ttl {
            return Err((
                format!(
                    "{} of its fields expire, and the destination has no expiry of fields",
                    checked.expiring_fields
                ),
                Some(
                    "--allow-loss hash-field-ttl writes it with fields that do not expire"
                        .to_owned(),
                ),
            ));
        }
        self.last.note_reencoded();
        let body = &record.value.bytes()[..body_len];
        if payload::is_plain_string(body) {
            // Written anew it would be the same bytes.
            strip_footer(&mut record.value, body_len);
            return Ok(());
        }
        self.scratch.clear();
        self.scratch.reserve(body_len + 64);
        let (family, scratch) = (context.family, &mut self.scratch);
        // What modules keep beside it stays where it can.
        let beside = payload::split_metadata(family, body);
        let (metadata, _) = beside.map_err(|error| damaged(&error))?;
        scratch.extend_from_slice(metadata);
        let recoded = match self.unchecked {
            true => payload::recode(family, body, forms, scratch),
            false => payload::recode_checked(family, body, checked, forms, scratch),
        };
        let losses = recoded.map_err(|error| damaged(&error))?;
        self.last.note_losses(&losses);
        record.value = Value::Compact(std::mem::take(&mut self.scratch));
        context.family = self.planner.accepts().family;
        Ok(())
    }

    /// The values come straight from a live server of the very same version: its sound payloads go
    /// as they are, with the footer that it signed and that the destination checks.
    pub fn source_is_twin(&mut self) {
        self.twin = true;
    }

    /// Damaged values go, too, as long as nothing has to be read of them (`--no-check`).
    pub fn pass_unchecked(&mut self) {
        self.unchecked = true;
    }

    /// The value that was made ready last, if it is a stream that miscounts its entries.
    pub fn take_miscounted(&mut self) -> Option<Miscounted> {
        self.last.take_miscounted()
    }

    /// Whether a value comes from a twin ([`Self::source_is_twin`]) and can go as it is, without
    /// another look at its footer.
    fn goes_as_from_twin(&mut self, value: &Value, family: Family) -> Result<bool, Refused> {
        if !self.twin || self.planner.sanitizes() || !is_known(value, family) {
            return Ok(false);
        }
        if self.unchecked {
            return Ok(true);
        }
        let Some((body, _)) = value.bytes().split_last_chunk::<FOOTER_LEN>() else {
            return Ok(false);
        };
        match payload::examine(family, body) {
            Examined::Sound(checked) => {
                self.last.note_count(&checked, false);
                let first = type_byte(family, body);
                Ok(self.planner.takes_as_is(family, first, &checked))
            }
            Examined::Opaque => Ok(false),
            Examined::Damaged(error) => Err(damaged(&error)),
        }
    }

    /// A buffer that was sent comes back, to serve the next value that is written anew.
    pub fn reuse(&mut self, buffer: Vec<u8>) {
        if self.scratch.capacity() == 0 && buffer.capacity() <= KEPT_SCRATCH_BYTES {
            self.scratch = buffer;
        }
    }

    /// Whether the value that was made ready last is a graph (see [`super::graphs`]).
    pub(super) fn is_graph(&self) -> bool {
        self.last.is_graph()
    }

    /// Of which kind the value is that was made ready last, if it cannot be read here: a destination
    /// may refuse it though everything that is known here speaks for it.
    pub fn opaque(&self) -> Option<&OpaqueKind> {
        self.last.opaque()
    }

    /// Whether the destination took a value of this kind before.
    pub fn has_taken(&self, kind: &OpaqueKind) -> bool {
        self.taken.has(kind)
    }

    /// Remembers that it did.
    pub fn note_taken(&mut self, kind: OpaqueKind) {
        self.taken.note(kind);
    }

    /// A value that cannot be read here goes as it came: of a module's value only the footer may be
    /// another one.
    fn prepare_opaque(
        &mut self,
        record: &mut KeyRecord,
        context: &Context,
        rdb_version: u16,
    ) -> Result<Ready, Refused> {
        let Value::Verbatim(dump) = &record.value else {
            return Err((
                "a value that cannot be read must come with its own footer".to_owned(),
                None,
            ));
        };
        let Ok((body, _)) = payload::split(dump) else {
            return Err(("its payload is damaged".to_owned(), None));
        };
        let value = payload::plain(context.family, body);
        let first = type_byte(context.family, value);
        let is_module = Encoding::of(context.family, first) == Some(Encoding::Module);
        if is_module {
            if let Some(module_type) = self.modules.may_try(value) {
                self.planner.let_through(module_type);
            }
            // A value that would end the destination is not sent, unless nobody is to check
            // (`--no-check`).
            match self.modules.danger(value) {
                Some(refused) if !self.unchecked => return Err(refused),
                _ => {}
            }
            if let Some(name) = payload::module_name_of(context.family, value) {
                graphs::check(context.family, &name, &record.key, value)?;
            }
        }
        let planner = &self.planner;
        let plan = planner.plan_opaque(context.family, rdb_version, first, body);
        let name = payload::module_name_of(context.family, value);
        self.last.note_graph(name.as_deref() == Some(graphs::GRAPH));
        // What a module does beside the key when it reads a value, RESTORE does not take back.
        let may_try = !is_module || name.as_deref().is_some_and(is_read_alone);
        let kind = may_try.then_some((first, rdb_version, name));
        self.last.note_opaque(kind);
        match plan {
            Plan::Refuse(refusal) => Err(refused(&refusal)),
            Plan::Restamp(version) => {
                self.last.note_restamped();
                let body_len = body.len();
                strip_footer(&mut record.value, body_len);
                Ok(Ready::Footer(version))
            }
            _ => Ok(Ready::AsIs),
        }
    }
}

/// Whether it is a payload of a type that every server of the version has; a module's value is not.
fn is_known(value: &Value, family: Family) -> bool {
    let Value::Verbatim(dump) = value else {
        return false;
    };
    Encoding::of(family, type_byte(family, dump))
        .is_some_and(|encoding| encoding != Encoding::Module)
}

/// The length of a value without its footer, and the RDB version of the footer if it has one.
fn frame(value: &Value) -> Result<(usize, Option<u16>), Refused> {
    match value {
        Value::Compact(body) => Ok((body.len(), None)),
        Value::Verbatim(dump) => match payload::split(dump) {
            Ok((body, rdb_version)) => Ok((body.len(), Some(rdb_version))),
            Err(error) => Err((format!("its payload is damaged: {error}"), None)),
        },
        Value::Withheld(value) => Err((not_kept(value), None)),
    }
}

fn strip_footer(value: &mut Value, body_len: usize) {
    if let Value::Verbatim(dump) = value {
        dump.truncate(body_len);
        *value = Value::Compact(std::mem::take(dump));
    }
}

fn damaged(error: &PayloadError) -> Refused {
    (
        format!("its value is damaged and is not sent: {error}"),
        Some(
            "the value is damaged in the archive, or already was at the server it came from"
                .to_owned(),
        ),
    )
}

fn refused(refusal: &Refusal) -> Refused {
    (refusal.to_string(), None)
}

#[cfg(test)]
impl Target {
    /// As if the value that was made ready last could not be read here.
    pub(super) fn opaque_next(mut self) -> Self {
        self.last.note_opaque(Some((u8::MAX, 0, None)));
        self
    }

    /// Of a destination that accepts this, and has no modules.
    pub(super) fn of(accepts: Accepts) -> Self {
        let learnt = Learnt {
            accepts,
            probed: false,
            obstacle: None,
        };
        let none = super::modules::Modules::Loaded(std::collections::BTreeMap::new());
        let modules = ModuleRules::new(none, true);
        Self::new(learnt, modules, AllowLoss::default(), false, false)
    }
}
