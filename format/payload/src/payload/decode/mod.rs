//! Reading a value for what it says: strictly, because what this tool signs anew must not harm the
//! server that takes it. RESTORE checks little by default, and up to 6.0 nothing at all.
//!
//! Three ways, each complete and each up to the last byte:
//!
//! - [`check`] keeps nothing;
//! - [`read`] gives elements, members and fields one at a time, and does not look for duplicates;
//! - [`decode`] gives all of them at once.
//!
//! Memory is bounded by what is there: no claimed count or length is allocated for, and nothing
//! recurses.

mod array;
mod cells;
mod intset;
pub(super) mod listpack;
mod node;
mod packed;
mod paths;
mod rows;
mod series;
mod stream;
mod template;
mod text;
mod unique;
mod vectors;
mod ziplist;
mod zipmap;

use redis_migrate_format::record::Family;

pub use array::Slots;
pub(super) use array::{FLOAT, INT, SMALL_TEXT, TEXT};
pub use listpack::BackLengths;
pub(super) use packed::Element;
pub use paths::{PathRow, Paths};
pub use rows::{Elements, Fields, Members};
pub use series::{SERIES_TYPE, TimeSeries, time_series};
pub(crate) use template::{PACKED_NAMES, PLAIN_NAMES, is_in_order, listpack_texts};
pub(super) use template::{compact as compact_template, is_readable, is_template};
pub(crate) use text::text;
pub use vectors::{Vector, VectorLayout, VectorSet, vector_layout, vector_set};

use self::cells::Cells;
use self::intset::Intset;
use self::listpack::Listpack;
use self::packed::Packed;
use self::text::blob;
use self::unique::Unique;
use self::ziplist::Ziplist;
use self::zipmap::Zipmap;
use super::error::{ErrorKind, PayloadError};
use super::metadata::take_type_byte;
use super::object::{Bytes, Object, Stream, StreamForm};
use super::source::{Slice, Source};
use super::walk;
use crate::dialect::{Encoding, Layout};

/// A value that is being read.
#[derive(Debug, Clone)]
pub enum Reader<'a> {
    /// A string.
    String(Bytes<'a>),
    /// The elements of a list.
    List(Elements<'a>),
    /// The members of a set.
    Set(Elements<'a>),
    /// The members of a sorted set, in no certain order.
    ZSet(Members<'a>),
    /// The fields of a hash.
    Hash(Fields<'a>),
    /// A stream, read and checked as a whole.
    Stream(Stream<'a>),
    /// What stands in a sparse array.
    Array(Slots<'a>),
    /// Paths and their fields.
    PathHash(Paths<'a>),
}

/// Begins to read `value`, a type byte and its body. Each iterator checks what it passes and, at
/// its end, that nothing follows; only whether members or fields come twice is left to [`check`].
pub fn read<'a>(family: Family, value: &'a [u8]) -> Result<Reader<'a>, PayloadError> {
    let mut source = Slice::new(value);
    let type_byte = take_type_byte(&mut source, family)?;
    let opaque = PayloadError::new(0, ErrorKind::Opaque(type_byte));
    let Some(encoding) = Encoding::of(family, type_byte) else {
        return Err(opaque);
    };
    let listpack = |mut source: Slice<'a>| -> Result<Cells<'a>, PayloadError> {
        let packed = Packed::Listpack(Listpack::new(blob(&mut source)?)?);
        Ok(Cells::whole(source, packed))
    };
    let ziplist = |mut source: Slice<'a>| -> Result<Cells<'a>, PayloadError> {
        let packed = Packed::Ziplist(Ziplist::new(blob(&mut source)?)?);
        Ok(Cells::whole(source, packed))
    };
    let list = |cells| Reader::List(Elements::new(cells, "list"));
    let set = |cells| Reader::Set(Elements::new(cells, "set"));
    Ok(match encoding {
        Encoding::String => {
            let string = text(&mut source)?;
            source.end()?;
            Reader::String(string)
        }
        Encoding::List => list(Cells::strings(source, 1)?),
        Encoding::ListZiplist => list(ziplist(source)?),
        Encoding::ListQuicklist => list(Cells::ziplists(source)?),
        Encoding::ListQuicklist2 => list(Cells::containers(source)?),
        Encoding::Set => set(Cells::strings(source, 1)?),
        Encoding::SetListpack => set(listpack(source)?),
        Encoding::SetIntset => {
            let packed = Packed::Intset(Intset::new(blob(&mut source)?)?);
            Reader::Set(Elements::new(Cells::whole(source, packed), "set").sorted())
        }
        Encoding::ZSetText => Reader::ZSet(Members::text(source)?),
        Encoding::ZSet => Reader::ZSet(Members::binary(source)?),
        Encoding::ZSetZiplist => Reader::ZSet(Members::cells(ziplist(source)?)),
        Encoding::ZSetListpack => Reader::ZSet(Members::cells(listpack(source)?)),
        Encoding::Hash => Reader::Hash(Fields::pairs(Cells::strings(source, 2)?)),
        Encoding::HashZipmap => {
            let packed = Packed::Zipmap(Zipmap::new(blob(&mut source)?)?);
            Reader::Hash(Fields::pairs(Cells::whole(source, packed)))
        }
        Encoding::HashZiplist => Reader::Hash(Fields::pairs(ziplist(source)?)),
        Encoding::HashListpack => Reader::Hash(Fields::pairs(listpack(source)?)),
        Encoding::RedisHashTtlRc => Reader::Hash(Fields::ttl_first(source, None)?),
        Encoding::RedisHashTtl => {
            let base = i64::from_le_bytes(source.array()?);
            Reader::Hash(Fields::ttl_first(source, Some(base))?)
        }
        Encoding::RedisHashListpackTtlRc => Reader::Hash(Fields::triples(listpack(source)?)),
        Encoding::RedisHashListpackTtl => {
            // The lowest expiry, which may be that of a field that has none any more.
            source.pass(8)?;
            Reader::Hash(Fields::triples(listpack(source)?))
        }
        Encoding::ValkeyHashTtl => Reader::Hash(Fields::ttl_last(source)?),
        Encoding::Stream1 => Reader::Stream(stream::stream(source, StreamForm::V1)?),
        Encoding::Stream2 => Reader::Stream(stream::stream(source, StreamForm::V2)?),
        Encoding::Stream3 => Reader::Stream(stream::stream(source, StreamForm::V3)?),
        Encoding::Stream4 => Reader::Stream(stream::stream(source, StreamForm::V4)?),
        Encoding::Stream5 => Reader::Stream(stream::stream(source, StreamForm::V5)?),
        Encoding::RedisArray => Reader::Array(Slots::new(source)?),
        Encoding::ValkeyPathHash => Reader::PathHash(Paths::new(source)?),
        Encoding::Module | Encoding::RedisTemplateListpackRef | Encoding::RedisTemplateTableRef => {
            return Err(opaque);
        }
        Encoding::RedisTemplateListpack | Encoding::RedisTemplateTable => {
            Reader::Hash(template::fields(source, encoding).map_err(|_| opaque)?)
        }
    })
}

/// What is known of a value that was checked, beside that it is sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checked {
    /// Elements, members, fields, indexes or entries; 1 for a string.
    pub count: u64,
    /// Fields of a hash that expire.
    pub expiring_fields: u64,
    /// The lowest expiry of a field, Unix milliseconds.
    pub lowest_expiry_ms: Option<u64>,
    /// The highest expiry of a field, Unix milliseconds.
    pub highest_expiry_ms: Option<u64>,
    /// What a stream says that it holds, where that is not what it does hold.
    pub miscounted: Option<u64>,
    /// A list with a plain node that is one empty string: readable, and no server takes it so.
    pub has_empty_node: bool,
}

/// Checks a value completely.
///
/// Values of modules and of unknown types are [`ErrorKind::Opaque`]; see
/// [`PayloadError::is_opaque`].
pub fn check(family: Family, value: &[u8]) -> Result<Checked, PayloadError> {
    check_reader(&read(family, value)?)
}

/// [`check`], for a value that nothing was read of yet.
pub(super) fn check_reader(reader: &Reader<'_>) -> Result<Checked, PayloadError> {
    let mut checked = Checked::default();
    match reader {
        Reader::String(_) => checked.count = 1,
        Reader::Stream(stream) => {
            checked.count = stream.length;
            checked.miscounted = (stream.counter != stream.length).then_some(stream.counter);
        }
        Reader::Array(slots) => checked.count = slots.clone().checked()?,
        Reader::PathHash(paths) => checked.count = paths.clone().checked()?,
        Reader::List(elements) => {
            let mut elements = elements.clone();
            checked.count = count(&mut elements)?;
            checked.has_empty_node = elements.has_empty_node();
        }
        Reader::Set(elements) if elements.in_order() => {
            checked.count = count(&mut elements.clone())?;
        }
        Reader::Set(elements) => {
            let mut unique = Unique::new();
            let mut members = elements.clone();
            while let Some(member) = members.next_stored() {
                member?.see(|member| unique.see(member));
            }
            checked.count = unique.seen() as u64;
            differ(unique, "member", || elements.clone().filter_map(Result::ok))?;
        }
        Reader::ZSet(members) => {
            let mut unique = Unique::new();
            let mut rows = members.clone();
            while let Some(row) = rows.next_stored() {
                row?.0.see(|member| unique.see(member));
            }
            checked.count = unique.seen() as u64;
            differ(unique, "member", || {
                members
                    .clone()
                    .filter_map(|member| Some(member.ok()?.member))
            })?;
        }
        Reader::Hash(fields) => {
            let mut unique = Unique::new();
            let mut rows = fields.clone();
            while let Some(field) = rows.next_stored() {
                let field = field?;
                field.name.see(|name| unique.see(name));
                if let Some(ms) = field.expire_at_ms {
                    checked.expiring_fields += 1;
                    checked.lowest_expiry_ms =
                        Some(checked.lowest_expiry_ms.map_or(ms, |lowest| lowest.min(ms)));
                    checked.highest_expiry_ms = checked.highest_expiry_ms.max(Some(ms));
                }
            }
            checked.count = unique.seen() as u64;
            differ(unique, "field", || {
                fields.clone().filter_map(|field| Some(field.ok()?.name))
            })?;
        }
    }
    Ok(checked)
}

fn count(elements: &mut Elements<'_>) -> Result<u64, PayloadError> {
    let mut count = 0;
    while let Some(element) = elements.next_stored() {
        element?;
        count += 1;
    }
    Ok(count)
}

fn differ<'a, I: Iterator<Item = Bytes<'a>>>(
    unique: Unique,
    what: &'static str,
    again: impl FnOnce() -> I,
) -> Result<(), PayloadError> {
    if unique.all_differ(again) {
        Ok(())
    } else {
        Err(PayloadError::new(1, ErrorKind::Duplicate(what)))
    }
}

/// Decodes a value completely.
///
/// Values of modules and of unknown types are [`ErrorKind::Opaque`]; see
/// [`PayloadError::is_opaque`].
pub fn decode<'a>(family: Family, value: &'a [u8]) -> Result<Object<'a>, PayloadError> {
    Ok(match read(family, value)? {
        Reader::String(string) => Object::String(string),
        Reader::List(elements) => Object::List(elements.collect::<Result<_, _>>()?),
        Reader::Set(elements) => {
            let sorted = elements.in_order();
            let members = elements.collect::<Result<Vec<_>, _>>()?;
            if !sorted {
                all_differ(&members, "member", |member| member)?;
            }
            Object::Set(members)
        }
        Reader::ZSet(members) => {
            let members = members.collect::<Result<Vec<_>, _>>()?;
            all_differ(&members, "member", |member| &member.member)?;
            Object::ZSet(members)
        }
        Reader::Hash(fields) => {
            let fields = fields.collect::<Result<Vec<_>, _>>()?;
            all_differ(&fields, "field", |field| &field.name)?;
            Object::Hash(fields)
        }
        Reader::Stream(stream) => Object::Stream(stream),
        Reader::Array(slots) => Object::Array(slots.decoded()?),
        Reader::PathHash(paths) => Object::PathHash(paths.decoded()?),
    })
}

fn all_differ<T>(
    rows: &[T],
    what: &'static str,
    name: impl Fn(&T) -> &Bytes<'_>,
) -> Result<(), PayloadError> {
    let mut unique = Unique::new();
    rows.iter().for_each(|row| unique.see(name(row)));
    if unique.all_differ(|| rows.iter().map(name)) {
        Ok(())
    } else {
        Err(PayloadError::new(1, ErrorKind::Duplicate(what)))
    }
}

/// Which way the listpacks of a value say lengths backwards, if any of their entries tells. Only
/// listpacks long enough to have one are looked at, so this costs next to nothing for most values.
pub(super) fn back_lengths(
    encoding: Encoding,
    body: &[u8],
) -> Result<Option<BackLengths>, PayloadError> {
    let mut source = Slice::new(body);
    let one = |source: &mut Slice<'_>| -> Result<Option<BackLengths>, PayloadError> {
        if listpack::may_step(text::expanded_len(source)?) {
            listpack::back_lengths(blob(source)?)
        } else {
            walk::string(source)?;
            Ok(None)
        }
    };
    match encoding.layout() {
        Layout::Listpack => return one(&mut source),
        Layout::EightListpack => {
            source.pass(8)?;
            return one(&mut source);
        }
        Layout::Nodes => {
            for _ in 0..walk::length(&mut source)? {
                if walk::length(&mut source)? == cells::PACKED {
                    if let Some(found) = one(&mut source)? {
                        return Ok(Some(found));
                    }
                } else {
                    walk::string(&mut source)?;
                }
            }
        }
        Layout::Stream(_) => {
            for _ in 0..walk::length(&mut source)? {
                walk::string(&mut source)?;
                if let Some(found) = one(&mut source)? {
                    return Ok(Some(found));
                }
            }
        }
        Layout::Text
        | Layout::Rows(_)
        | Layout::EightRows(_)
        | Layout::Array
        | Layout::Paths
        | Layout::Template
        | Layout::TemplateRef
        | Layout::Module => {}
    }
    Ok(None)
}
