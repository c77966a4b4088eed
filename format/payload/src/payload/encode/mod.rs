//! Writing a value anew: small collections packed as the destination keeps them, others as strings
//! in a row, which every server reads, and streams in the newest form both sides know.

mod pack;

use std::borrow::{Borrow, Cow};
use std::convert::Infallible;

use redis_migrate_format::record::Family;

pub use self::pack::Packing;
use super::array::{Array, SlotValue};
use super::decode::listpack::rewritten;
use super::decode::{
    BackLengths, Checked, Element, FLOAT, INT, Reader, TEXT, check_reader, decode, read,
};
use super::error::PayloadError;
use super::object::{
    Bytes, Consumer, Field, Group, Idempotency, Object, Path, Stream, StreamForm, StreamId,
};
use super::write;
use crate::dialect::Encoding;

/// How hash fields with an expiry can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldTtlForm {
    /// Not at all: the fields are kept, their expiry is dropped and counted.
    Dropped,
    /// As type 24 of Redis (7.4).
    Redis,
    /// As type 22 of Valkey (9.0).
    Valkey,
}

impl FieldTtlForm {
    /// The latest expiry of a field that it can hold, Unix ms; later ones are moved there.
    pub fn max_ms(self) -> u64 {
        match self {
            Self::Redis => REDIS_FIELD_TTL_MAX,
            Self::Valkey | Self::Dropped => VALKEY_FIELD_TTL_MAX,
        }
    }
}

/// In which forms to write what the plain ones (0, 1, 2, 4, 5) cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Forms {
    /// The highest form for streams. None is written higher than it was read: what is missing is
    /// better filled in by the server.
    pub stream: StreamForm,
    /// The form for hash fields with an expiry.
    pub field_ttl: FieldTtlForm,
    /// How the listpacks of a stream say lengths backwards: the one thing about them that servers
    /// do not agree on.
    pub back_lengths: BackLengths,
    /// In what small collections are packed.
    pub packing: Packing,
    /// Whether small sets of integers are written as intsets.
    pub intsets: bool,
}

impl Forms {
    /// The lowest RDB version that has everything that may be written in these forms, streams and
    /// expiring fields aside.
    pub fn since(&self) -> u16 {
        match self.packing {
            Packing::Listpack { sets: true } => Encoding::SetListpack.since(),
            Packing::Listpack { sets: false } => Encoding::HashListpack.since(),
            Packing::Ziplist => Encoding::ListQuicklist.since(),
            Packing::None => 0,
        }
    }
}

/// What a value lost when it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use]
pub struct Losses {
    /// Hash fields whose expiry was dropped.
    pub field_ttls: u64,
    /// Hash fields whose expiry was moved into the range the server takes. No one will live to see
    /// the difference.
    pub field_ttls_clamped: u64,
    /// A stream lost its first id, highest deleted id, entries added, entries read. The server fills
    /// in what it would have after the same XADDs.
    pub stream_metadata: bool,
    /// Consumers lost the time they were last active.
    pub active_times: bool,
    /// A stream lost its settings of idempotency, or ids that it remembered of producers: an entry
    /// that is sent again will be added again.
    pub idempotency: bool,
    /// Entries of a stream that had been given back (XNACK) and belong to a consumer again,
    /// [`GIVEN_BACK`]; delivered at no time, so that whoever claims idle entries gets them.
    pub given_back: u64,
}

impl Losses {
    /// Whether there were none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Redis refuses hash fields that expire later (ebuckets.h, EB_EXPIRE_TIME_MAX).
pub(super) const REDIS_FIELD_TTL_MAX: u64 = (1 << 48) - 1;
/// Far enough from overflow in any server.
const VALKEY_FIELD_TTL_MAX: u64 = 1 << 62;

/// Appends an object, type byte first, to `out`.
///
/// The object is one that was decoded. One made by hand must hold to the same rules (no NaN, nothing
/// twice, nothing empty but streams), or a server may not survive it.
pub fn encode(object: &Object<'_>, forms: Forms, out: &mut Vec<u8>) -> Losses {
    fn stored<'a>(bytes: &'a Bytes<'_>) -> Result<Element<'a>, Infallible> {
        Ok(Element::Text(Cow::Borrowed(bytes)))
    }
    let result: Result<Losses, Infallible> = match object {
        Object::String(string) => {
            out.push(Encoding::String.type_byte());
            write::string(out, string);
            Ok(Losses::default())
        }
        Object::List(rows) => list(out, forms, rows.len() as u64, || rows.iter().map(stored)),
        Object::Set(rows) => set(out, forms, rows.len() as u64, || rows.iter().map(stored)),
        Object::ZSet(rows) => scored(out, forms, rows.len() as u64, || {
            rows.iter()
                .map(|row| Ok((Element::Text(Cow::Borrowed(&*row.member)), row.score)))
        }),
        Object::Hash(rows) => {
            let ttls = rows.iter().filter_map(|field| field.expire_at_ms);
            let lowest = ttls
                .clone()
                .min()
                .map(|lowest| (lowest, ttls.count() as u64));
            let cells = || {
                rows.iter()
                    .flat_map(|row| [stored(&row.name), stored(&row.value)])
            };
            match pairs(out, forms, rows.len() as u64, lowest, cells) {
                Ok(Some(losses)) => Ok(losses),
                _ => fields(
                    out,
                    rows.len() as u64,
                    lowest,
                    forms.field_ttl,
                    rows.iter().map(Ok),
                ),
            }
        }
        Object::Stream(value) => Ok(stream(out, value, forms)),
        Object::Array(value) => Ok(array(out, value)),
        Object::PathHash(value) => Ok(paths(out, value)),
    };
    let Ok(losses) = result;
    losses
}

/// Appends `value`, a type byte and its body, to `out` in these forms. It is checked completely
/// before the first byte is written, and never held decoded as a whole.
///
/// # Errors
/// What [`check`](super::check) finds.
pub fn recode(
    family: Family,
    value: &[u8],
    forms: Forms,
    out: &mut Vec<u8>,
) -> Result<Losses, PayloadError> {
    let checked = check_reader(&read(family, value)?)?;
    recode_checked(family, value, checked, forms, out)
}

/// As [`recode`], for a value that was just checked.
///
/// # Errors
/// None, if it was.
pub fn recode_checked(
    family: Family,
    value: &[u8],
    checked: Checked,
    forms: Forms,
    out: &mut Vec<u8>,
) -> Result<Losses, PayloadError> {
    let start = out.len();
    let count = checked.count;
    let result = match read(family, value)? {
        Reader::String(string) => Ok(encode(&Object::String(string), forms, out)),
        Reader::List(rows) => list(out, forms, count, || rows.clone().stored()),
        Reader::Set(rows) => set(out, forms, count, || rows.clone().stored()),
        Reader::ZSet(rows) => scored(out, forms, count, || rows.clone().stored()),
        Reader::Hash(rows) => {
            let lowest = checked
                .lowest_expiry_ms
                .map(|lowest| (lowest, checked.expiring_fields));
            match pairs(out, forms, count, lowest, || rows.clone().stored()) {
                Ok(Some(losses)) => Ok(losses),
                Ok(None) => fields(out, count, lowest, forms.field_ttl, rows),
                Err(error) => Err(error),
            }
        }
        Reader::Stream(value) => Ok(stream(out, &value, forms)),
        Reader::Array(_) | Reader::PathHash(_) => Ok(encode(&decode(family, value)?, forms, out)),
    };
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Whether a value that was checked is a string in the one form that is written here: plain, its
/// length in the shortest way.
pub fn is_plain_string(value: &[u8]) -> bool {
    let Some((&type_byte, rest)) = value.split_first() else {
        return false;
    };
    type_byte == Encoding::String.type_byte()
        && match rest {
            [0..0x40, ..] => true,
            [0x40..0x80, ..] => rest.len() >= 2 + 0x40,
            [0x80, ..] => rest.len() >= 5 + 0x4000,
            _ => false,
        }
}

fn list<'a, E, I>(
    out: &mut Vec<u8>,
    forms: Forms,
    count: u64,
    cells: impl Fn() -> I,
) -> Result<Losses, E>
where
    I: Iterator<Item = Result<Element<'a>, E>>,
{
    let ziplist = forms.packing == Packing::Ziplist;
    if forms.packing != Packing::None && pack::list(out, ziplist, cells())? {
        return Ok(Losses::default());
    }
    elements(out, Encoding::List, count, cells())
}

fn set<'a, E, I>(
    out: &mut Vec<u8>,
    forms: Forms,
    count: u64,
    cells: impl Fn() -> I,
) -> Result<Losses, E>
where
    I: Iterator<Item = Result<Element<'a>, E>>,
{
    let small = count <= pack::MAX_ROWS && forms.packing == Packing::Listpack { sets: true };
    let is_packed = (forms.intsets && count <= pack::MAX_INTEGERS && pack::integers(out, cells())?)
        || (small && pack::whole(out, Encoding::SetListpack, false, cells())?);
    match is_packed {
        true => Ok(Losses::default()),
        false => elements(out, Encoding::Set, count, cells()),
    }
}

/// Writes a small hash without expiry of fields packed; nothing if it is not to be.
fn pairs<'a, E, I>(
    out: &mut Vec<u8>,
    forms: Forms,
    count: u64,
    expiring: Option<(u64, u64)>,
    cells: impl Fn() -> I,
) -> Result<Option<Losses>, E>
where
    I: Iterator<Item = Result<Element<'a>, E>>,
{
    let is_dropped = forms.field_ttl == FieldTtlForm::Dropped;
    let (encoding, ziplist) = match forms.packing {
        Packing::None => return Ok(None),
        Packing::Ziplist => (Encoding::HashZiplist, true),
        Packing::Listpack { .. } => (Encoding::HashListpack, false),
    };
    if count > pack::MAX_ROWS || (expiring.is_some() && !is_dropped) {
        return Ok(None);
    }
    let losses = Losses {
        field_ttls: expiring.map_or(0, |(_, fields)| fields),
        ..Losses::default()
    };
    Ok(pack::whole(out, encoding, ziplist, cells())?.then_some(losses))
}

fn scored<'a, E, I>(
    out: &mut Vec<u8>,
    forms: Forms,
    count: u64,
    rows: impl Fn() -> I,
) -> Result<Losses, E>
where
    I: Iterator<Item = Result<pack::Scored<'a>, E>>,
{
    let ziplist = forms.packing == Packing::Ziplist;
    let small = forms.packing != Packing::None && count <= pack::MAX_ROWS;
    if small && pack::scored(out, ziplist, rows())? {
        return Ok(Losses::default());
    }
    if !small && count > SORTED_AT_MOST {
        return members(out, count, rows());
    }
    let mut sorted = rows().collect::<Result<Vec<_>, E>>()?;
    sorted.sort_by(pack::compare);
    if small && pack::scored(out, ziplist, sorted.iter().cloned().map(Ok::<_, E>))? {
        return Ok(Losses::default());
    }
    // As the servers write them: inserting at the end of a skiplist is what is cheap.
    members(out, count, sorted.into_iter().rev().map(Ok))
}

fn elements<'a, E>(
    out: &mut Vec<u8>,
    encoding: Encoding,
    count: u64,
    rows: impl Iterator<Item = Result<Element<'a>, E>>,
) -> Result<Losses, E> {
    out.push(encoding.type_byte());
    write::length(out, count);
    for row in rows {
        row?.see(|bytes| write::string(out, bytes));
    }
    Ok(Losses::default())
}

/// Sorted sets of more members are written in the order they come in, which is that of a server.
const SORTED_AT_MOST: u64 = 10_000;

fn members<'a, E>(
    out: &mut Vec<u8>,
    count: u64,
    rows: impl Iterator<Item = Result<pack::Scored<'a>, E>>,
) -> Result<Losses, E> {
    out.push(Encoding::ZSet.type_byte());
    write::length(out, count);
    for row in rows {
        let (member, score) = row?;
        member.see(|bytes| write::string(out, bytes));
        out.extend_from_slice(&score.to_le_bytes());
    }
    Ok(Losses::default())
}

/// Writes a hash; `expiring` is the lowest expiry and how many fields have one.
fn fields<'a, B: Borrow<Field<'a>>, E>(
    out: &mut Vec<u8>,
    count: u64,
    expiring: Option<(u64, u64)>,
    form: FieldTtlForm,
    rows: impl Iterator<Item = Result<B, E>>,
) -> Result<Losses, E> {
    let mut losses = Losses::default();
    let lowest = match (form, expiring) {
        (_, None) | (FieldTtlForm::Dropped, _) => {
            out.push(Encoding::Hash.type_byte());
            write::length(out, count);
            losses.field_ttls = expiring.map_or(0, |(_, fields)| fields);
            for row in rows {
                let row = row?;
                write::string(out, &row.borrow().name);
                write::string(out, &row.borrow().value);
            }
            return Ok(losses);
        }
        (_, Some((lowest, _))) => lowest,
    };
    let redis = form == FieldTtlForm::Redis;
    let mut clamp = |ms: u64| {
        // Zero would mean "none" to Redis.
        let clamped = ms.clamp(u64::from(redis), form.max_ms());
        losses.field_ttls_clamped += u64::from(clamped != ms);
        clamped
    };
    if !redis {
        out.push(Encoding::ValkeyHashTtl.type_byte());
        write::length(out, count);
        for row in rows {
            let row = row?;
            let Field {
                name,
                value,
                expire_at_ms,
            } = row.borrow();
            write::string(out, name);
            write::string(out, value);
            let ms = expire_at_ms.map_or(-1, |ms| clamp(ms) as i64);
            out.extend_from_slice(&ms.to_le_bytes());
        }
        return Ok(losses);
    }
    out.push(Encoding::RedisHashTtl.type_byte());
    let base = lowest.clamp(1, REDIS_FIELD_TTL_MAX);
    out.extend_from_slice(&base.to_le_bytes());
    write::length(out, count);
    for row in rows {
        let row = row?;
        let Field {
            name,
            value,
            expire_at_ms,
        } = row.borrow();
        write::length(out, expire_at_ms.map_or(0, |ms| clamp(ms) - base + 1));
        write::string(out, name);
        write::string(out, value);
    }
    Ok(losses)
}

fn id(out: &mut Vec<u8>, id: StreamId) {
    write::length(out, id.ms);
    write::length(out, id.seq);
}

/// The consumer that gets the entries that nobody has, in forms that know none such. Nobody reads
/// under its name, so no consumer gets entries that it does not expect.
pub const GIVEN_BACK: &[u8] = b"given-back";

fn stream(out: &mut Vec<u8>, stream: &Stream<'_>, forms: Forms) -> Losses {
    let form = stream.form.min(forms.stream);
    out.push(form.encoding().type_byte());
    write::length(out, stream.nodes.len() as u64);
    for node in &stream.nodes {
        write::string(out, &node.id.to_bytes());
        match rewritten(&node.listpack, forms.back_lengths) {
            Some(listpack) => write::string(out, &listpack),
            None => write::string(out, &node.listpack),
        }
    }
    write::length(out, stream.length);
    id(out, stream.last_id);
    if form >= StreamForm::V2 {
        id(out, stream.first_id);
        id(out, stream.max_deleted_id);
        write::length(out, stream.entries_added);
    }
    let mut given_back = 0;
    write::length(out, stream.groups.len() as u64);
    for of_stream in &stream.groups {
        let owned = match form < StreamForm::V5 {
            true => with_owners(of_stream),
            false => None,
        };
        given_back += owned
            .as_ref()
            .map_or(0, |_| of_stream.given_back.len() as u64);
        group(out, owned.as_ref().unwrap_or(of_stream), form);
    }
    if form >= StreamForm::V4 {
        idempotency(out, &stream.idempotency);
    }
    let consumers = stream
        .groups
        .iter()
        .any(|group| !group.consumers.is_empty());
    Losses {
        stream_metadata: stream.form >= StreamForm::V2 && form == StreamForm::V1,
        active_times: stream.form >= StreamForm::V3 && form < StreamForm::V3 && consumers,
        idempotency: form < StreamForm::V4 && !stream.idempotency.is_default(),
        given_back,
        ..Losses::default()
    }
}

/// The same group, with a consumer for every entry; nothing if that is so already.
pub fn with_owners<'a>(group: &Group<'a>) -> Option<Group<'a>> {
    if group.given_back.is_empty() {
        return None;
    }
    let mut group = group.clone();
    let mut ids = std::mem::take(&mut group.given_back);
    ids.sort_unstable();
    for pending in &mut group.pending {
        if ids.binary_search(&pending.id).is_ok() {
            pending.delivered_ms = 0;
        }
    }
    match group
        .consumers
        .iter_mut()
        .find(|one| *one.name == *GIVEN_BACK)
    {
        Some(consumer) => {
            consumer.pending.extend(ids);
            consumer.pending.sort_unstable();
        }
        None => group.consumers.push(Consumer {
            name: GIVEN_BACK.into(),
            seen_ms: 0,
            active_ms: -1,
            pending: ids,
        }),
    }
    Some(group)
}

fn group(out: &mut Vec<u8>, group: &Group<'_>, form: StreamForm) {
    write::string(out, &group.name);
    id(out, group.last_id);
    if form >= StreamForm::V2 {
        write::length(out, group.entries_read);
    }
    write::length(out, group.pending.len() as u64);
    for pending in &group.pending {
        out.extend_from_slice(&pending.id.to_bytes());
        out.extend_from_slice(&pending.delivered_ms.to_le_bytes());
        write::length(out, pending.deliveries);
    }
    write::length(out, group.consumers.len() as u64);
    for consumer in &group.consumers {
        write::string(out, &consumer.name);
        out.extend_from_slice(&consumer.seen_ms.to_le_bytes());
        if form >= StreamForm::V3 {
            out.extend_from_slice(&consumer.active_ms.to_le_bytes());
        }
        ids(out, &consumer.pending);
    }
    if form >= StreamForm::V5 {
        ids(out, &group.given_back);
    }
}

fn ids(out: &mut Vec<u8>, ids: &[StreamId]) {
    write::length(out, ids.len() as u64);
    for id in ids {
        out.extend_from_slice(&id.to_bytes());
    }
}

fn idempotency(out: &mut Vec<u8>, state: &Idempotency<'_>) {
    write::length(out, state.duration_secs);
    write::length(out, state.max_ids);
    write::length(out, state.producers.len() as u64);
    for producer in &state.producers {
        write::string(out, &producer.name);
        write::length(out, producer.ids.len() as u64);
        for known in &producer.ids {
            write::string(out, &known.name);
            id(out, known.entry);
        }
    }
    write::length(out, state.ids_added);
    write::length(out, state.duplicates);
}

/// In the only form there is. No destination is sent what is written here ([`plan`] keeps such values
/// as they came, or refuses them): no server was there to read it.
///
/// [`plan`]: super::accept::plan
fn array(out: &mut Vec<u8>, array: &Array<'_>) -> Losses {
    out.push(Encoding::RedisArray.type_byte());
    write::length(out, array.slots.len() as u64);
    write::length(out, array.cursor.is_some().into());
    if let Some(cursor) = array.cursor {
        write::length(out, cursor);
    }
    for slot in &array.slots {
        write::length(out, slot.index);
        match &slot.value {
            SlotValue::Text(bytes) => {
                write::length(out, TEXT);
                write::string(out, bytes);
            }
            SlotValue::Int(number) => {
                write::length(out, INT);
                out.extend_from_slice(&number.to_le_bytes());
            }
            SlotValue::Float(number) => {
                write::length(out, FLOAT);
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
    }
    Losses::default()
}

/// As [`array`].
fn paths(out: &mut Vec<u8>, paths: &[Path<'_>]) -> Losses {
    out.push(Encoding::ValkeyPathHash.type_byte());
    write::length(out, paths.len() as u64);
    for Path { path, fields } in paths {
        write::string(out, path);
        write::length(out, fields.len() as u64);
        for (name, value) in fields {
            write::string(out, name);
            write::string(out, value);
        }
    }
    Losses::default()
}
