//! What a destination takes, and what must become of a value so that it takes it.
//!
//! RESTORE wants three things of a payload: a footer version it accepts, a right checksum, and a
//! type byte it knows (cluster.c, verifyDumpPayload; rdb.c, rdbLoadObject). The version has no
//! influence on how the value is read.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;

use super::decode::{BackLengths, Checked, VectorLayout, back_lengths, is_readable, vector_layout};
use super::encode::{FieldTtlForm, Forms, Packing, REDIS_FIELD_TTL_MAX};
use super::metadata::{plain, type_byte};
use super::object::StreamForm;
use super::source::Slice;
use super::walk;
use crate::dialect::{Dialect, Encoding, Family, Feature, Kind, Lookalike, Opcode};

/// The oldest RDB version that destinations are counted on with.
const OLDEST_VERSION: u16 = 8;

/// The name of vector sets, which are a module's to a server.
const VECTOR_SET: &str = "vectorset";

/// A set of RDB versions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Versions(Vec<RangeInclusive<u16>>);

impl Versions {
    /// Whether a footer of this version is accepted.
    pub fn contains(&self, version: u16) -> bool {
        self.0.iter().any(|range| range.contains(&version))
    }

    /// The highest of them.
    pub fn highest(&self) -> Option<u16> {
        self.0.iter().map(|range| *range.end()).max()
    }

    /// The highest that is not above `limit`.
    fn at_most(&self, limit: u16) -> Option<u16> {
        let below = self.0.iter().filter(|range| *range.start() <= limit);
        below.map(|range| limit.min(*range.end())).max()
    }

    /// The lowest that is not below `limit`.
    fn at_least(&self, limit: u16) -> Option<u16> {
        let above = self.0.iter().filter(|range| *range.end() >= limit);
        above.map(|range| limit.max(*range.start())).min()
    }

    /// The version to stamp on a value that came with `version` in a type that came up with
    /// `since`: the nearest below, so that it says as little new as can be.
    pub fn nearest(&self, version: u16, since: u16) -> Option<u16> {
        if self.contains(version) {
            return Some(version);
        }
        self.at_most(version)
            .filter(|&below| below >= since)
            .or_else(|| self.at_least(since))
            .or_else(|| self.highest())
    }
}

impl FromIterator<RangeInclusive<u16>> for Versions {
    fn from_iter<I: IntoIterator<Item = RangeInclusive<u16>>>(ranges: I) -> Self {
        let mut sorted: Vec<_> = ranges
            .into_iter()
            .filter(|range| !range.is_empty())
            .collect();
        sorted.sort_by_key(|range| *range.start());
        let mut merged: Vec<RangeInclusive<u16>> = Vec::new();
        for range in sorted {
            match merged.last_mut() {
                Some(last) if *range.start() <= last.end().saturating_add(1) => {
                    *last = *last.start()..=*range.end().max(last.end());
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }
}

impl FromIterator<u16> for Versions {
    fn from_iter<I: IntoIterator<Item = u16>>(versions: I) -> Self {
        versions
            .into_iter()
            .map(|version| version..=version)
            .collect()
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, range) in self.0.iter().enumerate() {
            f.write_str(if n == 0 { "" } else { ", " })?;
            match (range.start(), range.end()) {
                (one, same) if one == same => write!(f, "{one}")?,
                (first, last) => write!(f, "{first}–{last}")?,
            }
        }
        Ok(())
    }
}

/// A set of type bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Types([u64; 4]);

impl Types {
    /// Whether the type byte is known.
    pub fn contains(&self, type_byte: u8) -> bool {
        self.0[usize::from(type_byte >> 6)] >> (type_byte & 63) & 1 == 1
    }

    /// Adds a type byte.
    pub fn insert(&mut self, type_byte: u8) {
        self.0[usize::from(type_byte >> 6)] |= 1 << (type_byte & 63);
    }

    /// All of them, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        (0..=u8::MAX).filter(|&type_byte| self.contains(type_byte))
    }
}

impl FromIterator<u8> for Types {
    fn from_iter<I: IntoIterator<Item = u8>>(types: I) -> Self {
        let mut set = Self::default();
        types
            .into_iter()
            .for_each(|type_byte| set.insert(type_byte));
        set
    }
}

/// What a destination takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepts {
    /// Whose type bytes it knows.
    pub family: Family,
    /// RDB versions of footers.
    pub versions: Versions,
    /// Type bytes, in the numbers of its family; the mark of key metadata, which stands in such a
    /// place, among them.
    pub types: Types,
    /// Names of the module types whose modules it has loaded. Never tried out: Redis 6.0 exits when
    /// it is given a value of a module it does not have.
    pub modules: BTreeSet<String>,
    /// How it expects listpacks to say lengths backwards.
    pub back_lengths: BackLengths,
    /// The newest layout of vector sets that it reads, where it has vector sets. Never tried out: one
    /// that is too new blocks a server for seconds.
    pub vector_layout: VectorLayout,
    /// Whether it can say itself whether it takes a value of a type that nobody here knows: a server
    /// can when it is offered one, a file cannot.
    pub answers: bool,
}

impl Accepts {
    /// The newest layout of vector sets that a server reads, as far as its version is known.
    pub fn vector_layout(dialect: Dialect) -> VectorLayout {
        match dialect.has(Feature::VersionedVectorNodes) {
            true => VectorLayout::Second,
            false => VectorLayout::First,
        }
    }

    /// Why a vector set must not be given to this destination, if it must not.
    pub fn refuses_vectors(&self, value: &[u8]) -> Option<Refusal> {
        let is_old = vector_layout(value) == Some(VectorLayout::First);
        (self.vector_layout < VectorLayout::Second && !is_old).then_some(Refusal::VectorLayout)
    }

    /// What a server takes by its source, for where it cannot be tried out. A newer one than is
    /// known here takes at least what the newest known one does; of servers of neither family only
    /// the common types are counted on. None for servers before 4.0.
    pub fn of_server(dialect: Dialect) -> Option<Self> {
        // A server of neither family is measured by the Redis whose version it claims.
        let is_other = dialect.family() == Family::Other;
        let rows = match is_other {
            true => Dialect::of(Family::Redis, dialect.version()),
            false => dialect,
        };
        if rows.release()?.rdb_version < OLDEST_VERSION {
            return None;
        }
        let types = rows
            .encodings()
            .filter(|one| *one != Encoding::Module && !one.is_of_release_candidates())
            .filter(|one| !is_other || one.family().is_none());
        let metadata = dialect.has(Feature::KeyMetadata);
        let metadata = metadata.then(|| Opcode::KeyMetadata.byte());
        Some(Self {
            family: dialect.family(),
            versions: rows.footers().iter().cloned().collect(),
            types: types.map(Encoding::type_byte).chain(metadata).collect(),
            modules: BTreeSet::new(),
            back_lengths: match dialect.has(Feature::ExactBackLengths) {
                true => BackLengths::Exact,
                false => BackLengths::Early,
            },
            vector_layout: Self::vector_layout(dialect),
            answers: false,
        })
    }

    /// What a look-alike takes by its source.
    pub fn of_lookalike(lookalike: Lookalike) -> Self {
        Self {
            family: Family::Other,
            versions: [lookalike.footers()].into_iter().collect(),
            types: lookalike.types().iter().cloned().flatten().collect(),
            modules: BTreeSet::new(),
            back_lengths: BackLengths::Early,
            vector_layout: VectorLayout::First,
            answers: false,
        }
    }

    /// The forms in which this destination takes most.
    pub fn forms(&self) -> Forms {
        let stream = StreamForm::ALL
            .into_iter()
            .rfind(|form| self.takes(form.encoding()));
        let field_ttl = match self.family {
            Family::Redis if self.takes(Encoding::RedisHashTtl) => FieldTtlForm::Redis,
            Family::Valkey if self.takes(Encoding::ValkeyHashTtl) => FieldTtlForm::Valkey,
            _ => FieldTtlForm::Dropped,
        };
        Forms {
            stream: stream.unwrap_or(StreamForm::V1),
            field_ttl,
            back_lengths: self.back_lengths,
            packing: self.packing(),
            intsets: self.takes(Encoding::SetIntset),
        }
    }

    /// What it keeps small collections in.
    fn packing(&self) -> Packing {
        let takes = |encodings: [Encoding; 3]| encodings.iter().all(|one| self.takes(*one));
        if takes([
            Encoding::HashListpack,
            Encoding::ZSetListpack,
            Encoding::ListQuicklist2,
        ]) {
            Packing::Listpack {
                sets: self.takes(Encoding::SetListpack),
            }
        } else if takes([
            Encoding::HashZiplist,
            Encoding::ZSetZiplist,
            Encoding::ListQuicklist,
        ]) {
            Packing::Ziplist
        } else {
            Packing::None
        }
    }

    /// Whether it knows the type byte and, as far as the encoding is one of ours, means it by it.
    fn takes(&self, encoding: Encoding) -> bool {
        let type_byte = encoding.type_byte();
        self.types.contains(type_byte) && Encoding::of(self.family, type_byte) == Some(encoding)
    }

    /// Whether it reads key metadata of modules before a type byte.
    pub fn takes_metadata(&self) -> bool {
        self.family == Family::Redis && self.types.contains(Opcode::KeyMetadata.byte())
    }

    /// Whether this destination fills in by default what a stream of this type byte does not say:
    /// entries added, entries read, highest deleted id, active times.
    pub fn fills_in(&self, type_byte: u8) -> bool {
        const FORMS: [Encoding; 3] = [Encoding::Stream1, Encoding::Stream2, Encoding::Stream3];
        let at = FORMS.iter().position(|form| form.type_byte() == type_byte);
        at.is_some_and(|at| FORMS[at + 1..].iter().any(|form| self.takes(*form)))
    }
}

/// What must become of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Nothing: it is taken with the footer it had.
    Keep,
    /// It gets a footer of this version. To be done only to what was checked completely; of a
    /// module's value that is its frame: the rest the module judges when it is restored.
    Restamp(u16),
    /// It is written anew in other forms, and gets a footer of this version.
    Reencode {
        /// The forms.
        forms: Forms,
        /// The version.
        version: u16,
    },
    /// It cannot be read here: the payload goes as it came, with its own footer, and the destination
    /// says whether it takes it.
    Verbatim,
    /// It cannot be brought there.
    Refuse(Refusal),
}

/// Why a value cannot be brought to a destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A type byte that only servers like the source know.
    #[error("{}: they go only to a server of the family they come from", opaque_text(*.0))]
    Opaque(u8),
    /// The same for a file, which cannot say what its reader takes.
    #[error(
        "{}, and a server that does not know such a value refuses the whole file: import or copy \
         it to a server of the same family, which decides whether it accepts it",
        opaque_text(*.0)
    )]
    Unknown(u8),
    /// A module's value, and the destination is not known to have the module.
    #[error("the destination is not known to have {}", module_text(.0))]
    Module(String),
    /// A vector set that would block the destination.
    #[error(
        "it is a vector set as {} and later write them, or in a layout that is not known: an older \
         server hangs for seconds when it is given one, and then refuses it",
        vector_layout_since()
    )]
    VectorLayout,
    /// A value that cannot be read here, with a footer that is not accepted there.
    #[error(
        "the destination does not accept RDB version {version}, and values of type {type_byte} \
         cannot be re-encoded"
    )]
    OpaqueVersion {
        /// The type byte.
        type_byte: u8,
        /// The footer's version.
        version: u16,
    },
    /// No footer is accepted at all.
    #[error("the destination accepts no RDB version")]
    NoVersion,
    /// What no server takes, whatever it knows.
    #[error("it is a path hash without paths, which no server accepts")]
    NoPaths,
    /// There is no form of this value that the destination knows.
    #[error("{}", no_form_text(*.0))]
    NoForm(Kind),
}

fn opaque_text(type_byte: u8) -> String {
    match Encoding::of(Family::Redis, type_byte) == Some(Encoding::Module) {
        true => "values of modules (vector sets are such, too) cannot be read".to_owned(),
        false => format!("this version of the tool cannot read values of type {type_byte}"),
    }
}

fn no_form_text(kind: Kind) -> String {
    match kind {
        Kind::Array => format!(
            "it is an array of {}, and the destination has nothing equal to it: no list or hash keeps \
             its holes and what the AR commands do",
            Encoding::RedisArray.brought_by()
        ),
        Kind::PathHash => format!(
            "it is a path hash of {}, and the destination has nothing equal to it: the same field \
             may be under several paths",
            Encoding::ValkeyPathHash.brought_by()
        ),
        Kind::String
        | Kind::List
        | Kind::Set
        | Kind::ZSet
        | Kind::Hash
        | Kind::Stream
        | Kind::Module
        | Kind::Unknown => format!("the destination has no {kind} in any form this tool writes"),
    }
}

fn vector_layout_since() -> String {
    let since = Feature::VersionedVectorNodes.since(Family::Redis);
    since.map_or_else(String::new, |version| format!("Redis {version}"))
}

/// The servers' name of vector sets is a module's.
fn module_text(name: &str) -> String {
    match name {
        VECTOR_SET => "vector sets".to_owned(),
        name => format!("the module type {name:?}"),
    }
}

/// What must become of a value of this type byte, from a server of `family`, that came in a payload
/// of `rdb_version`.
///
/// A module's value (7) is taken to be known where the destination has any module; [`plan_value`]
/// looks at which one it is.
pub fn plan(accepts: &Accepts, family: Family, rdb_version: u16, type_byte: u8) -> Plan {
    let encoding = match Encoding::of(family, type_byte) {
        None | Some(Encoding::RedisTemplateListpackRef | Encoding::RedisTemplateTableRef) => {
            let known = accepts.types.contains(type_byte);
            return opaque(accepts, family, rdb_version, type_byte, known);
        }
        Some(Encoding::Module) => {
            let known = !accepts.modules.is_empty();
            return opaque(accepts, family, rdb_version, type_byte, known);
        }
        Some(encoding) => encoding,
    };
    if accepts.takes(encoding) {
        return match accepts.versions.nearest(rdb_version, encoding.since()) {
            Some(version) if version == rdb_version => Plan::Keep,
            Some(version) => Plan::Restamp(version),
            None => Plan::Refuse(Refusal::NoVersion),
        };
    }
    anew(accepts, encoding, rdb_version)
}

/// Writes a value of this encoding in other forms.
fn anew(accepts: &Accepts, encoding: Encoding, rdb_version: u16) -> Plan {
    let mut forms = accepts.forms();
    let mut targets = encoding.rewritten_to().iter();
    let Some(&target) = targets.find(|one| accepts.takes(**one)) else {
        return Plan::Refuse(Refusal::NoForm(encoding.kind()));
    };
    if let Some(form) = StreamForm::of(target) {
        forms.stream = form;
    }
    match accepts
        .versions
        .nearest(rdb_version, target.since().max(forms.since()))
    {
        Some(version) => Plan::Reencode { forms, version },
        None => Plan::Refuse(Refusal::NoVersion),
    }
}

/// What cannot be read here is offered to servers of the same family, and is never signed anew: a
/// server that does not know the type or the footer's version says so at once. Into a file it goes
/// only if its reader is known to have the type.
fn opaque(accepts: &Accepts, family: Family, version: u16, type_byte: u8, known: bool) -> Plan {
    if family == Family::Other || family != accepts.family {
        Plan::Refuse(Refusal::Opaque(type_byte))
    } else if accepts.answers {
        Plan::Verbatim
    } else if !known {
        Plan::Refuse(Refusal::Unknown(type_byte))
    } else if !accepts.versions.contains(version) {
        Plan::Refuse(Refusal::OpaqueVersion { type_byte, version })
    } else {
        Plan::Verbatim
    }
}

/// A value of the module type `name`. What is in it only the module knows, and the module says what
/// it can load by a version of its own, which is in the value: the footer's tells nothing of that.
/// So a footer that the destination does not accept is replaced, and the module decides. Only of
/// vector sets the layout is looked at: one that is too new does harm.
fn of_module(accepts: &Accepts, family: Family, version: u16, name: String, value: &[u8]) -> Plan {
    if !accepts.modules.contains(&name) {
        return Plan::Refuse(Refusal::Module(name));
    }
    // There may be a module of that name in a server of another family.
    if family == Family::Other || family != accepts.family {
        return Plan::Refuse(Refusal::Module(name));
    }
    if name == VECTOR_SET
        && let Some(refusal) = accepts.refuses_vectors(value)
    {
        return Plan::Refuse(refusal);
    }
    match accepts.versions.nearest(version, Encoding::Module.since()) {
        Some(same) if same == version => Plan::Verbatim,
        Some(version) => Plan::Restamp(version),
        None => Plan::Refuse(Refusal::NoVersion),
    }
}

/// As [`plan`], for a whole value, type byte first. A module's value goes only where its module is,
/// and listpacks only where they are read as they were written.
pub fn plan_value(accepts: &Accepts, family: Family, rdb_version: u16, value: &[u8]) -> Plan {
    let value = plain(family, value);
    let Some((&type_byte, body)) = value.split_first() else {
        return Plan::Refuse(Refusal::NoForm(Kind::Unknown));
    };
    let encoding = Encoding::of(family, type_byte);
    if encoding == Some(Encoding::Module) {
        return match walk::length(&mut Slice::new(body)) {
            Ok(id) => of_module(accepts, family, rdb_version, walk::module_name(id), value),
            Err(_) => Plan::Refuse(Refusal::Opaque(type_byte)),
        };
    }
    if let Some(encoding) = encoding
        && !is_readable(encoding, value)
    {
        let known = accepts.takes(encoding);
        return opaque(accepts, family, rdb_version, type_byte, known);
    }
    let plan = plan(accepts, family, rdb_version, type_byte);
    let (Plan::Keep | Plan::Restamp(_), Some(encoding)) = (&plan, encoding) else {
        return plan;
    };
    // What cannot be read through will not pass the check before it is sent.
    match back_lengths(encoding, body) {
        Ok(Some(written)) if written != accepts.back_lengths => {
            anew(accepts, encoding, rdb_version)
        }
        _ => plan,
    }
}

/// As [`plan_value`], for a value that was checked: what is sound and no server takes as it stands
/// is written anew as well.
pub fn plan_checked(
    accepts: &Accepts,
    family: Family,
    rdb_version: u16,
    value: &[u8],
    checked: &Checked,
) -> Plan {
    let plan = plan_value(accepts, family, rdb_version, value);
    let encoding = type_byte(family, value).and_then(|type_byte| Encoding::of(family, type_byte));
    match (&plan, encoding) {
        (Plan::Keep | Plan::Restamp(_), Some(encoding))
            if refused_as_is(accepts, encoding, checked) =>
        {
            if has_no_paths(encoding, checked) {
                return Plan::Refuse(Refusal::NoPaths);
            }
            anew(accepts, encoding, rdb_version)
        }
        _ => plan,
    }
}

/// Whether this destination refuses a sound value in the form it has (rdb.c, rdbLoadObject).
pub fn refused_as_is(accepts: &Accepts, encoding: Encoding, checked: &Checked) -> bool {
    let too_late = encoding.has_field_ttls()
        && encoding != Encoding::ValkeyHashTtl
        && checked.highest_expiry_ms > Some(REDIS_FIELD_TTL_MAX);
    // Every server refuses a stream that counts entries and has none; Valkey, from 9.1 on, each that
    // counts wrong.
    let miscounts =
        checked.miscounted.is_some() && (checked.count == 0 || accepts.family != Family::Redis);
    checked.has_empty_node || miscounts || too_late || has_no_paths(encoding, checked)
}

/// A path hash without paths. Only release candidates of 9.2 held such.
fn has_no_paths(encoding: Encoding, checked: &Checked) -> bool {
    encoding == Encoding::ValkeyPathHash && checked.count == 0
}
