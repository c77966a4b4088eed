//! Writing a value in the forms that every server reads: strings in a row, and for streams the
//! newest form both sides know. The server that takes them packs them as it likes.

use std::borrow::Borrow;
use std::convert::Infallible;

use redis_migrate_format::record::Family;

use super::decode::listpack::rewritten;
use super::decode::{BackLengths, Reader, check_reader, read};
use super::error::PayloadError;
use super::object::{Field, Member, Object, Stream, StreamForm, StreamId};
use super::types::Encoding;
use super::write;

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
}

impl Losses {
    /// Whether there were none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Redis refuses hash fields that expire later (ebuckets.h, EB_EXPIRE_TIME_MAX).
const REDIS_FIELD_TTL_MAX: u64 = (1 << 48) - 1;
/// Far enough from overflow in any server.
const VALKEY_FIELD_TTL_MAX: u64 = 1 << 62;

/// Appends an object, type byte first, to `out`.
///
/// The object is one that was decoded. One made by hand must hold to the same rules (no NaN, nothing
/// twice, nothing empty but streams), or a server may not survive it.
pub fn encode(object: &Object<'_>, forms: Forms, out: &mut Vec<u8>) -> Losses {
    let result: Result<Losses, Infallible> = match object {
        Object::String(string) => {
            out.push(Encoding::String.type_byte());
            write::string(out, string);
            Ok(Losses::default())
        }
        Object::List(rows) => elements(out, Encoding::List, rows.len() as u64, rows.iter().map(Ok)),
        Object::Set(rows) => elements(out, Encoding::Set, rows.len() as u64, rows.iter().map(Ok)),
        Object::ZSet(rows) => members(
            out,
            rows.len() as u64,
            highest_first(rows).into_iter().map(Ok),
        ),
        Object::Hash(rows) => {
            let ttls = rows.iter().filter_map(|field| field.expire_at_ms);
            let lowest = ttls
                .clone()
                .min()
                .map(|lowest| (lowest, ttls.count() as u64));
            fields(
                out,
                rows.len() as u64,
                lowest,
                forms.field_ttl,
                rows.iter().map(Ok),
            )
        }
        Object::Stream(value) => Ok(stream(out, value, forms)),
    };
    let Ok(losses) = result;
    losses
}

/// Appends `value`, a type byte and its body, to `out` in universal forms. It is checked completely
/// before the first byte is written, and never held decoded as a whole.
pub fn recode(
    family: Family,
    value: &[u8],
    forms: Forms,
    out: &mut Vec<u8>,
) -> Result<Losses, PayloadError> {
    let reader = read(family, value)?;
    let checked = check_reader(&reader)?;
    let start = out.len();
    let result = match reader {
        Reader::String(string) => Ok(encode(&Object::String(string), forms, out)),
        Reader::List(rows) => elements(out, Encoding::List, checked.count, rows),
        Reader::Set(rows) => elements(out, Encoding::Set, checked.count, rows),
        // Those in one piece are small, and lowest first.
        Reader::ZSet(rows) if rows.is_packed() => rows
            .collect::<Result<Vec<_>, _>>()
            .map(|rows| encode(&Object::ZSet(rows), forms, out)),
        Reader::ZSet(rows) => members(out, checked.count, rows),
        Reader::Hash(rows) => {
            let lowest = checked
                .lowest_expiry_ms
                .map(|lowest| (lowest, checked.expiring_fields));
            fields(out, checked.count, lowest, forms.field_ttl, rows)
        }
        Reader::Stream(value) => Ok(stream(out, &value, forms)),
    };
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn elements<B: AsRef<[u8]>, E>(
    out: &mut Vec<u8>,
    encoding: Encoding,
    count: u64,
    rows: impl Iterator<Item = Result<B, E>>,
) -> Result<Losses, E> {
    out.push(encoding.type_byte());
    write::length(out, count);
    for row in rows {
        write::string(out, row?.as_ref());
    }
    Ok(Losses::default())
}

/// Members as the servers write them: inserting at the end of a skiplist is what is cheap.
fn highest_first<'m, 'a>(members: &'m [Member<'a>]) -> Vec<&'m Member<'a>> {
    let mut sorted: Vec<_> = members.iter().collect();
    // Scores are never NaN; minus zero and zero are one score.
    sorted.sort_by(|a, b| {
        b.score
            .partial_cmp(&a.score)
            .unwrap_or(std::cmp::Ordering::Equal)
            .then_with(|| b.member.cmp(&a.member))
    });
    sorted
}

fn members<'a, B: Borrow<Member<'a>>, E>(
    out: &mut Vec<u8>,
    count: u64,
    rows: impl Iterator<Item = Result<B, E>>,
) -> Result<Losses, E> {
    out.push(Encoding::ZSet.type_byte());
    write::length(out, count);
    for row in rows {
        let row = row?;
        let Member { member, score } = row.borrow();
        write::string(out, member);
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
        let max = if redis {
            REDIS_FIELD_TTL_MAX
        } else {
            VALKEY_FIELD_TTL_MAX
        };
        let clamped = ms.clamp(u64::from(redis), max);
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
    write::length(out, stream.groups.len() as u64);
    for group in &stream.groups {
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
            if form == StreamForm::V3 {
                out.extend_from_slice(&consumer.active_ms.to_le_bytes());
            }
            write::length(out, consumer.pending.len() as u64);
            for pending in &consumer.pending {
                out.extend_from_slice(&pending.to_bytes());
            }
        }
    }
    let consumers = stream
        .groups
        .iter()
        .any(|group| !group.consumers.is_empty());
    Losses {
        stream_metadata: stream.form >= StreamForm::V2 && form == StreamForm::V1,
        active_times: stream.form == StreamForm::V3 && form < StreamForm::V3 && consumers,
        ..Losses::default()
    }
}
