//! What this destination accepts, and what must become of each value before it is sent.
//!
//! The rule: keep → stamp a new footer → write in older forms → refuse with a reason. Nothing is
//! sent that was not checked completely: re-signed nonsense kills old servers when it is restored,
//! or later when it is read.

use std::collections::BTreeSet;

use super::graphs;
use super::key_classes::Classes;
use super::modules::{Modules, is_read_alone};
use super::refusal::has_no_absttl;
use super::try_out::{ProbeKeys, Tried, try_out};
use crate::dialect::{Feature, Opcode};
use crate::ledger::Changes;
use crate::observer::Observer;
use crate::payload::accept::{
    Accepts, Plan, Refusal, Types, Versions, plan, plan_checked, plan_value, refused_as_is,
};
use crate::payload::metadata::Class;
use crate::payload::{
    self, BackLengths, Checked, Encoding, Examined, FOOTER_LEN, Kind, PayloadError, VectorLayout,
    kind_of, metadata,
};
use crate::policy::AllowLoss;
use crate::record::{Context, Family, KeyRecord, Value, not_kept};
use crate::server::facts::Facts;
use crate::server::patience::Patience;
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

/// What a destination accepts.
#[derive(Debug)]
pub struct Target {
    accepts: Accepts,
    /// Whether that was tried out, or only looked up by version.
    pub probed: bool,
    /// The destination's words, where it refuses every RESTORE, also on names that begin like those
    /// of the keys to come.
    pub obstacle: Option<String>,
    /// Whether it is of neither family, whatever types it turned out to know: what a number that
    /// nobody here knows means there, nobody knows either.
    is_other: bool,
    /// Whether a module value that is not known is answered with an error instead of an exit.
    modules_are_safe: bool,
    modules: Modules,
    allow: AllowLoss,
    /// For `--sanitize`: what it accepts of the types that hold nothing packed.
    universal: Option<Accepts>,
    /// See [`Self::source_is_twin`].
    twin: bool,
    /// See [`Self::pass_unchecked`].
    unchecked: bool,
    /// The value that was made ready last is a stream that miscounts its entries.
    miscounted: Option<Miscounted>,
    /// The value that was made ready last cannot be read here, and may be tried at the destination.
    opaque: Option<OpaqueKind>,
    /// Kinds of which the destination took one.
    taken: BTreeSet<OpaqueKind>,
    /// What it does with classes of key metadata.
    classes: Classes,
    /// Classes, by number and name, that were left out of the value that was made ready last.
    left_out: Vec<(u32, String)>,
    scratch: Vec<u8>,
    /// The value that was made ready last is a graph.
    graph: bool,
    /// What was changed in the value that was made ready last.
    last: Changes,
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
        let mut table = match facts.lookalike {
            Some(lookalike) => Some(Accepts::of_lookalike(lookalike)),
            None => Accepts::of_server(facts.dialect()),
        };
        let mut patience = Patience::new(keys.patience);
        let tried = match try_out(conn, facts, &keys.plain, &mut patience)? {
            Tried::Accepts(accepts) => Tried::Accepts(accepts),
            Tried::Blind(versions) => Tried::Blind(versions),
            _ => try_out(conn, facts, &keys.alike, &mut patience)?,
        };
        let (probed, obstacle) = match tried {
            Tried::Accepts(accepts) => (Some(accepts), None),
            Tried::Refused(text) => (None, Some(text)),
            Tried::Blind(versions) => {
                if let (Some(versions), Some(table)) = (versions, &mut table) {
                    table.versions = versions;
                }
                (None, None)
            }
            Tried::Unclear => (None, None),
        };
        let was_probed = probed.is_some();
        // Nothing goes by RESTORE then.
        let is_too_old = facts.dialect().lacks(Feature::RestoreAbsoluteTtl);
        let is_of_no_use = is_too_old || obstacle.as_deref().is_some_and(has_no_absttl);
        let accepts = match (probed, table) {
            (Some(accepts), _) => accepts,
            (None, _) if is_of_no_use => nothing(facts.family),
            (None, Some(mut table)) => {
                table.answers = true;
                observer.notice(&format!(
                    "the destination cannot be tried out; going by its version, {}",
                    facts.title()
                ));
                table
            }
            (None, None) => {
                observer.warn(
                    "what the destination accepts can neither be tried out nor looked up; payloads \
                     go as they are",
                );
                everything(facts.family)
            }
        };
        Ok(Self {
            universal: sanitize.then(|| without_packed(&accepts)),
            accepts,
            probed: was_probed,
            obstacle,
            is_other: facts.family == Family::Other,
            // rdb.c of 6.0 calls exit() for a module type that is not loaded.
            modules_are_safe: facts.family == Family::Valkey
                || facts.dialect().has(Feature::RefusesModules),
            modules: Modules::ask(conn)?,
            allow,
            twin: false,
            unchecked: false,
            miscounted: None,
            opaque: None,
            taken: BTreeSet::new(),
            classes: Classes::default(),
            left_out: Vec::new(),
            scratch: Vec::new(),
            graph: false,
            last: Changes::default(),
            changes: Changes::default(),
        })
    }

    /// What the destination accepts.
    pub fn accepts(&self) -> &Accepts {
        &self.accepts
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
    ) -> Result<Ready, (String, Option<String>)> {
        self.last = Changes::default();
        self.left_out.clear();
        self.graph = false;
        let ready = self.make_ready(record, context);
        if ready.is_ok() && payload::has_metadata(context.family, record.value.head()) {
            self.note_metadata(record, context);
        }
        match ready {
            Ok(_) => self.changes.add(self.last),
            Err(_) => self.last = Changes::default(),
        }
        ready
    }

    /// Only the destination knows whether it takes these classes.
    fn note_metadata(&mut self, record: &KeyRecord, context: &Context) {
        let Value::Verbatim(dump) = &record.value else {
            return self.note_classes(record, context);
        };
        let body = payload::split(dump).map_or(dump.as_slice(), |(body, _)| body);
        match payload::module_name_of(context.family, body) {
            Some(name) if !is_read_alone(&name) => {}
            _ => self.note_classes(record, context),
        }
    }

    fn note_classes(&mut self, record: &KeyRecord, context: &Context) {
        let classes = metadata::classes(context.family, record.value.head()).unwrap_or_default();
        let classes = metadata::names(&classes);
        let before = self.opaque.take();
        let (first, rdb_version, name) =
            before.unwrap_or((Opcode::KeyMetadata.byte(), context.rdb_version, None));
        let name = name.map_or_else(|| classes.clone(), |name| format!("{name} with {classes}"));
        self.opaque = Some((first, rdb_version, Some(name)));
    }

    /// What was changed in the value that was made ready last.
    pub fn last_changes(&self) -> Changes {
        self.last
    }

    /// Classes of key metadata, by number and name, that were left out of the value that was made
    /// ready last.
    pub fn left_out(&self) -> &[(u32, String)] {
        &self.left_out
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
        let classes = metadata::classes(family, value.head());
        let mut classes = classes.into_iter().flatten();
        classes.all(|class| !class.may_be_ignored() || self.classes.keeps(class.id()))
    }

    /// Leaves the key metadata out that cannot stand there.
    fn leave_metadata_out(
        &mut self,
        record: &mut KeyRecord,
        context: &Context,
    ) -> Result<(), (String, Option<String>)> {
        let before = metadata::ids(context.family, &record.value);
        if self.accepts.takes_metadata() {
            let (allowed, known) = (self.allow.key_meta, &self.classes);
            let unwanted = |class: &Class<'_>| {
                (allowed || class.may_be_ignored()) && known.leaves_out(class.id())
            };
            let (value, changes) = (&mut record.value, &mut self.last);
            match metadata::strip_some(context.family, value, allowed, unwanted) {
                Ok(some) => changes.key_metadata_lost += u64::from(some),
                // Damage is found below, and told in its words.
                Err(_) => return Ok(()),
            }
        } else {
            let why = "the destination has no key metadata";
            leave_out(record, context, self.allow, why, &mut self.last)?;
        }
        let after = metadata::ids(context.family, &record.value);
        self.left_out = before;
        self.left_out.retain(|row| !after.contains(row));
        Ok(())
    }

    fn make_ready(
        &mut self,
        record: &mut KeyRecord,
        context: &mut Context,
    ) -> Result<Ready, (String, Option<String>)> {
        self.miscounted = None;
        self.opaque = None;
        if payload::has_metadata(context.family, record.value.head()) {
            self.leave_metadata_out(record, context)?;
        }
        if self.twin && self.universal.is_none() && is_known(&record.value, context.family) {
            match self.as_from_twin(record.value.bytes(), context.family) {
                Ok(true) => return Ok(Ready::AsIs),
                Ok(false) => {}
                Err(error) => return Err(damaged(&error)),
            }
        }
        let (verbatim, body_len, rdb_version) = match &record.value {
            Value::Compact(body) => (false, body.len(), context.rdb_version),
            Value::Verbatim(dump) => match payload::split(dump) {
                Ok((body, rdb_version)) => (true, body.len(), rdb_version),
                Err(error) => return Err((format!("its payload is damaged: {error}"), None)),
            },
            Value::Withheld(value) => return Err((not_kept(value), None)),
        };
        let body = &record.value.bytes()[..body_len];
        let checked = match payload::examine(context.family, body) {
            Examined::Sound(checked) => checked,
            Examined::Opaque => return self.prepare_opaque(record, context, rdb_version),
            // What has to be written anew is refused below.
            Examined::Damaged(_) if self.unchecked && !body.is_empty() => Checked::default(),
            Examined::Damaged(error) => return Err(damaged(&error)),
        };
        let mut plan = plan_checked(&self.accepts, context.family, rdb_version, body, &checked);
        if let Some(universal) = &self.universal
            && !matches!(plan, Plan::Refuse(_) | Plan::Reencode { .. })
        {
            plan = self.anew(universal, context.family, rdb_version, body);
        }
        let first = type_byte(context.family, body);
        if self.accepts.fills_in(first) && kind_of(context.family, first) == Kind::Stream {
            self.last.streams_filled_in = 1;
        }
        self.miscounted = checked.miscounted.map(|said| Miscounted {
            said,
            held: checked.count,
            corrected: matches!(plan, Plan::Reencode { .. }),
        });
        match plan {
            Plan::Keep if verbatim => Ok(Ready::AsIs),
            Plan::Keep => Ok(Ready::Footer(rdb_version)),
            Plan::Restamp(version) => {
                self.last.restamped += 1;
                strip_footer(&mut record.value, body_len);
                Ok(Ready::Footer(version))
            }
            Plan::Reencode { forms, version } => {
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
                self.last.reencoded += 1;
                if payload::is_plain_string(body) {
                    // Written anew it would be the same bytes.
                    strip_footer(&mut record.value, body_len);
                    return Ok(Ready::Footer(version));
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
                self.last.field_ttls_lost += losses.field_ttls;
                self.last.field_ttls_clamped += losses.field_ttls_clamped;
                if losses.stream_metadata || losses.active_times {
                    self.last.streams_filled_in = 1;
                }
                self.last.idempotency_lost += u64::from(losses.idempotency);
                self.last.given_back_owned += losses.given_back;
                record.value = Value::Compact(std::mem::take(&mut self.scratch));
                context.family = self.accepts.family;
                Ok(Ready::Footer(version))
            }
            Plan::Verbatim => self.prepare_opaque(record, context, rdb_version),
            Plan::Refuse(refusal) => Err(refused(&refusal)),
        }
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
        self.miscounted.take()
    }

    /// Whether a payload of the same version can go as it is, without another look at its footer.
    fn as_from_twin(&mut self, dump: &[u8], family: Family) -> Result<bool, PayloadError> {
        if self.unchecked {
            return Ok(true);
        }
        let Some((body, _)) = dump.split_last_chunk::<FOOTER_LEN>() else {
            return Ok(false);
        };
        match payload::examine(family, body) {
            Examined::Sound(checked) => {
                self.miscounted = checked.miscounted.map(|said| Miscounted {
                    said,
                    held: checked.count,
                    corrected: false,
                });
                let is_refused = |encoding| refused_as_is(&self.accepts, encoding, &checked);
                Ok(!Encoding::of(family, type_byte(family, body)).is_none_or(is_refused))
            }
            Examined::Opaque => Ok(false),
            Examined::Damaged(error) => Err(error),
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
        self.graph
    }

    /// Of which kind the value is that was made ready last, if it cannot be read here: a destination
    /// may refuse it though everything that is known here speaks for it.
    pub fn opaque(&self) -> Option<&OpaqueKind> {
        self.opaque.as_ref()
    }

    /// Whether the destination took a value of this kind before.
    pub fn has_taken(&self, kind: &OpaqueKind) -> bool {
        self.taken.contains(kind)
    }

    /// Remembers that it did.
    pub fn note_taken(&mut self, kind: OpaqueKind) {
        /// Names of modules' types are anything an archive says.
        const MAX_KINDS: usize = 1024;
        if self.taken.len() < MAX_KINDS {
            self.taken.insert(kind);
        }
    }

    /// A value that cannot be read here goes as it came: of a module's value only the footer may be
    /// another one.
    fn prepare_opaque(
        &mut self,
        record: &mut KeyRecord,
        context: &Context,
        rdb_version: u16,
    ) -> Result<Ready, (String, Option<String>)> {
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
            self.allow_module(value);
            self.spares_the_server(value)?;
            if let Some(name) = payload::module_name_of(context.family, value) {
                graphs::check(context.family, &name, &record.key, value)?;
            }
        }
        let plan = match self.is_other {
            true => Plan::Refuse(Refusal::Opaque(first)),
            false => plan_value(&self.accepts, context.family, rdb_version, body),
        };
        let name = payload::module_name_of(context.family, value);
        self.graph = name.as_deref() == Some(graphs::GRAPH);
        // What a module does beside the key when it reads a value, RESTORE does not take back.
        let may_try = !is_module || name.as_deref().is_some_and(is_read_alone);
        self.opaque = may_try.then_some((first, rdb_version, name));
        match plan {
            Plan::Refuse(refusal) => Err(refused(&refusal)),
            Plan::Restamp(version) => {
                self.last.restamped += 1;
                let body_len = body.len();
                strip_footer(&mut record.value, body_len);
                Ok(Ready::Footer(version))
            }
            _ => Ok(Ready::AsIs),
        }
    }

    /// A value that would end the destination is not sent, unless nobody is to check
    /// (`--no-check`).
    fn spares_the_server(&self, value: &[u8]) -> Result<(), (String, Option<String>)> {
        /// The layout is in the last ten bits of a type's id (module.c, moduleTypeEncodeId).
        const LAYOUT: u64 = 0x3ff;
        let Ok(id) = payload::walk::length(&mut payload::Slice::new(&value[1..])) else {
            return Ok(());
        };
        let name = payload::module_name(id);
        let layout = id & LAYOUT;
        match self.modules.is_hurt_by(&name, layout) {
            Some(safe) if !self.unchecked => Err((
                format!(
                    "it is of {name} in layout {layout}, and the module is known to take layouts up \
                     to {safe}: given another one, it ends the server"
                ),
                Some(
                    "a newer module at the destination may take it; --no-check sends it all the same"
                        .to_owned(),
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Lets a module's values through where its module may be loaded and trying does no harm.
    fn allow_module(&mut self, body: &[u8]) {
        let Ok(id) = payload::walk::length(&mut payload::Slice::new(&body[1..])) else {
            return;
        };
        let name = payload::module_name(id);
        if self.modules_are_safe && self.modules.may_define(&name) {
            self.accepts.modules.insert(name);
        }
    }

    /// `--sanitize`: everything is written anew, whatever the destination would take.
    fn anew(&self, universal: &Accepts, family: Family, rdb_version: u16, body: &[u8]) -> Plan {
        match plan(universal, family, rdb_version, type_byte(family, body)) {
            Plan::Refuse(refusal) => Plan::Refuse(refusal),
            Plan::Verbatim => Plan::Verbatim,
            Plan::Keep | Plan::Restamp(_) | Plan::Reencode { .. } => {
                let forms = self.accepts.forms();
                let version = self.accepts.versions.nearest(rdb_version, forms.since());
                Plan::Reencode {
                    forms,
                    version: version.unwrap_or(rdb_version),
                }
            }
        }
    }
}

/// The same destination, if it took nothing that is packed.
fn without_packed(accepts: &Accepts) -> Accepts {
    const PACKED: [u8; 11] = [9, 10, 11, 12, 13, 14, 16, 17, 18, 20, 25];
    Accepts {
        types: accepts
            .types
            .iter()
            .filter(|byte| !PACKED.contains(byte))
            .collect(),
        ..accepts.clone()
    }
}

fn type_byte(family: Family, value: &[u8]) -> u8 {
    payload::type_byte(family, value).unwrap_or(u8::MAX)
}

/// Whether it is a payload of a type that every server of the version has; a module's value is not.
fn is_known(value: &Value, family: Family) -> bool {
    let Value::Verbatim(dump) = value else {
        return false;
    };
    Encoding::of(family, type_byte(family, dump))
        .is_some_and(|encoding| encoding != Encoding::Module)
}

fn strip_footer(value: &mut Value, body_len: usize) {
    if let Value::Verbatim(dump) = value {
        dump.truncate(body_len);
        *value = Value::Compact(std::mem::take(dump));
    }
}

fn damaged(error: &PayloadError) -> (String, Option<String>) {
    (
        format!("its value is damaged and is not sent: {error}"),
        Some("the archive, or the server it came from, holds nonsense here".to_owned()),
    )
}

fn refused(refusal: &Refusal) -> (String, Option<String>) {
    (refusal.to_string(), None)
}

/// Of a server that no payload can be sent to.
fn nothing(family: Family) -> Accepts {
    Accepts {
        family,
        versions: Versions::default(),
        types: Types::default(),
        modules: BTreeSet::new(),
        back_lengths: BackLengths::Early,
        vector_layout: VectorLayout::First,
        answers: false,
    }
}

/// For a server of which nothing is known: what it gets is what there is.
fn everything(family: Family) -> Accepts {
    Accepts {
        family,
        versions: std::iter::once(0..=u16::MAX).collect(),
        types: (0..=5).chain(9..=25).collect(),
        modules: BTreeSet::new(),
        back_lengths: BackLengths::Early,
        vector_layout: VectorLayout::First,
        answers: true,
    }
}

#[cfg(test)]
impl Target {
    /// As if the value that was made ready last could not be read here.
    pub(super) fn opaque_next(mut self) -> Self {
        self.opaque = Some((u8::MAX, 0, None));
        self
    }

    /// Of a destination that accepts this, and has no modules.
    pub(super) fn of(accepts: Accepts) -> Self {
        Self {
            accepts,
            probed: false,
            obstacle: None,
            is_other: false,
            modules_are_safe: true,
            modules: Modules::Loaded(std::collections::BTreeMap::new()),
            allow: AllowLoss::default(),
            universal: None,
            twin: false,
            unchecked: false,
            miscounted: None,
            opaque: None,
            taken: BTreeSet::new(),
            classes: Classes::default(),
            left_out: Vec::new(),
            scratch: Vec::new(),
            graph: false,
            last: Changes::default(),
            changes: Changes::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::{Dialect, Version};
    use crate::sink::server::modules::may_define;

    fn target(family: Family, major: u16, minor: u16) -> Target {
        let dialect = Dialect::of(family, Version::new(major, minor, 0));
        Target::of(Accepts::of_server(dialect).expect("a known version"))
    }

    fn record(value: Value) -> KeyRecord {
        KeyRecord {
            db: 0,
            key: b"k".to_vec(),
            value,
            expire_at_ms: None,
            eviction: None,
        }
    }

    fn context(family: Family, rdb_version: u16) -> Context {
        Context {
            family,
            rdb_version,
            ..Context::default()
        }
    }

    #[test]
    fn what_is_accepted_stays_and_what_is_not_gets_another_footer() {
        let body = b"\x00\x01a".to_vec();
        let mut seven = target(Family::Redis, 7, 0);
        let dump = payload::sign(&body, 9);
        let mut old = record(Value::Verbatim(dump.clone()));
        assert_eq!(
            seven.prepare(&mut old, &mut context(Family::Redis, 9)),
            Ok(Ready::AsIs)
        );
        assert_eq!(old.value, Value::Verbatim(dump));
        let mut new = record(Value::Verbatim(payload::sign(&body, 80)));
        assert_eq!(
            seven.prepare(&mut new, &mut context(Family::Valkey, 80)),
            Ok(Ready::Footer(10))
        );
        assert_eq!(new.value, Value::Compact(body));
        assert_eq!(seven.changes.restamped, 1);
    }

    #[test]
    fn damage_is_found_before_it_is_signed() {
        let mut six = target(Family::Redis, 6, 0);
        // A string that says it is longer than it is, with a footer that fits.
        let mut bad = record(Value::Verbatim(payload::sign(b"\x00\x05a", 9)));
        let (reason, _) = six
            .prepare(&mut bad, &mut context(Family::Redis, 9))
            .unwrap_err();
        assert!(reason.contains("damaged"), "{reason}");
        let mut bad = record(Value::Verbatim(b"\x00\x01a0123456789".to_vec()));
        assert!(
            six.prepare(&mut bad, &mut context(Family::Redis, 9))
                .is_err()
        );
    }

    #[test]
    fn a_loss_must_be_allowed_by_name() {
        // Redis type 24: lowest expiry, one field: 1 + its offset, "f", "v".
        let mut body = vec![24];
        body.extend_from_slice(&5_000_000_000_000_i64.to_le_bytes());
        body.extend_from_slice(b"\x01\x01\x01f\x01v");
        let mut seven = target(Family::Redis, 7, 0);
        let from = || context(Family::Redis, 12);
        let (reason, hint) = seven
            .prepare(&mut record(Value::Compact(body.clone())), &mut from())
            .unwrap_err();
        assert!(
            reason.contains("fields expire") && hint.unwrap().contains("--allow-loss"),
            "{reason}"
        );
        seven.allow.hash_field_ttl = true;
        let mut record = record(Value::Compact(body));
        assert_eq!(
            seven.prepare(&mut record, &mut from()),
            Ok(Ready::Footer(10))
        );
        assert_eq!(record.value.type_byte(), Some(16));
        assert_eq!(seven.changes.field_ttls_lost, 1);
    }

    /// Whoever takes Redis' types and is no Redis may mean something else by the others.
    #[test]
    fn unknown_types_are_not_offered_to_servers_of_neither_family() {
        let mut target = target(Family::Redis, 8, 0);
        target.accepts.answers = true;
        let dump = || record(Value::Verbatim(payload::sign(b"\x63abc", 40)));
        let from = || context(Family::Redis, 40);
        assert_eq!(target.prepare(&mut dump(), &mut from()), Ok(Ready::AsIs));
        assert!(target.opaque().is_some());
        target.is_other = true;
        let (reason, _) = target.prepare(&mut dump(), &mut from()).unwrap_err();
        assert!(reason.contains("of the family they come from"), "{reason}");
    }

    #[test]
    fn a_modules_value_gets_a_footer_that_is_accepted() {
        // "ReJSON-RL", version 3, nothing in it.
        let body = b"\x07\x81\x44\x97\x92\x0d\x23\x7e\x44\x0b\x00".to_vec();
        let dump = Value::Verbatim(payload::sign(&body, 12));
        let mut seven = target(Family::Redis, 7, 2);
        let from = || context(Family::Redis, 12);
        let name = payload::module_name_of(Family::Redis, &body).expect("a module's value");
        let (reason, _) = seven
            .prepare(&mut record(dump.clone()), &mut from())
            .unwrap_err();
        assert!(reason.contains(&name), "{reason}");
        seven.modules = Modules::Unknown;
        let mut taken = record(dump);
        let ready = seven.prepare(&mut taken, &mut from());
        assert_eq!(ready, Ok(Ready::Footer(11)));
        assert_eq!(taken.value, Value::Compact(body.clone()));
        // What is accepted stays as it is.
        let mut old = record(Value::Verbatim(payload::sign(&body, 11)));
        let ready = seven.prepare(&mut old, &mut context(Family::Redis, 11));
        assert_eq!(ready, Ok(Ready::AsIs));
        assert_eq!(seven.changes.restamped, 1);
    }

    #[test]
    fn modules_go_only_where_they_may_be_known() {
        assert!(may_define("vectorset", "vectorset") && !may_define("bf", "vectorset"));
        assert!(may_define("in-house", "anything-"));
    }
}
