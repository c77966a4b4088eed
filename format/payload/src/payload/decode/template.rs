//! Types 29 and 31 of Redis: hashes whose fields stand apart from their values (read in librdb and
//! SnugKV; tried on no server).
//!
//! ```text
//! FIELDS = length 0, listpack of n names | length 1, length n, n × string name
//! 29: FIELDS, listpack of the template's number and n values
//! 31: FIELDS, n × string value
//! ```
//!
//! Names are in ascending order, the shorter ones first. Development versions laid these types out
//! in other ways, and one had something else under 29. So what does not fit to its last byte is not
//! called damaged: it is a value that cannot be read, and travels as it is.

use super::cells::Cells;
use super::listpack::Listpack;
use super::packed::{Blob, Element, Packed};
use super::rows::Fields;
use super::text::{blob, expanded_len, text};
use crate::dialect::{Encoding, Layout};
use crate::payload::error::{ErrorKind, PayloadError};
use crate::payload::source::{Slice, Source};
use crate::payload::walk::{length, string};
use crate::payload::write;

/// In a listpack.
pub(crate) const PACKED_NAMES: u64 = 0;
/// One after the other.
pub(crate) const PLAIN_NAMES: u64 = 1;

/// Whether a name of a template may stand behind another (t_hash.c).
pub(crate) fn is_in_order(before: &[u8], after: &[u8]) -> bool {
    (before.len(), before) < (after.len(), after)
}

/// All entries of a listpack, as texts.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn listpack_texts(listpack: &[u8]) -> Result<Vec<Vec<u8>>, PayloadError> {
    let mut rest = Listpack::new(Blob::new(listpack.into(), 0))?;
    let mut texts = Vec::new();
    while let Some(element) = rest.next()? {
        texts.push(element.into_bytes().into_owned());
    }
    Ok(texts)
}

/// The fields of a value of this encoding, after its type byte. Everything was looked at when this
/// returns.
pub(super) fn fields<'a>(
    mut source: Slice<'a>,
    encoding: Encoding,
) -> Result<Fields<'a>, PayloadError> {
    let (names, count) = names(&mut source)?;
    check_order(names.clone(), count)?;
    let values = match encoding {
        Encoding::RedisTemplateListpack => {
            let packed = Packed::Listpack(Listpack::new(blob(&mut source)?)?);
            let mut values = Cells::whole(source, packed);
            // The number says nothing outside its file.
            let Some(Element::Int(_)) = values.next()? else {
                return Err(values.error(bad("no number")));
            };
            values
        }
        _ => Cells::so_many(source, count),
    };
    let mut rest = values.clone();
    for _ in 0..count {
        rest.partner("hash")?;
    }
    match rest.next()? {
        None => Ok(Fields::template(names, values)),
        Some(_) => Err(rest.error(bad("more values than names"))),
    }
}

fn bad(what: &'static str) -> ErrorKind {
    ErrorKind::Template(what)
}

/// Takes the names; how many there are.
fn names<'a>(source: &mut Slice<'a>) -> Result<(Cells<'a>, u64), PayloadError> {
    match length(source)? {
        PACKED_NAMES => {
            let packed = Packed::Listpack(Listpack::new(blob(source)?)?);
            let names = Cells::whole(Slice::new(&[]), packed);
            let (mut rest, mut count) = (names.clone(), 0);
            while rest.next()?.is_some() {
                count += 1;
            }
            Ok((names, count))
        }
        PLAIN_NAMES => {
            let count = length(source)?;
            let (all, from) = (source.rest(), source.at());
            for _ in 0..count {
                string(source)?;
            }
            let names = Slice::new(&all[..source.at() - from]);
            Ok((Cells::so_many(names, count), count))
        }
        _ => Err(source.error(bad("names of an unknown form"))),
    }
}

fn check_order(mut names: Cells<'_>, count: u64) -> Result<(), PayloadError> {
    if count == 0 {
        return Err(names.error(ErrorKind::Empty("hash template")));
    }
    let mut last: Option<Vec<u8>> = None;
    while let Some(name) = names.next()? {
        let name = name.into_bytes();
        if last.is_some_and(|last| !is_in_order(&last, &name)) {
            return Err(names.error(bad("names out of order")));
        }
        last = Some(name.into_owned());
    }
    Ok(())
}

/// Appends the compact form of a value of this encoding, type byte first.
///
/// # Errors
/// [`ErrorKind::Opaque`] where it does not fit, [`ErrorKind::TooLarge`] for more than `limit` bytes.
/// What was appended then is the caller's to take off.
pub(crate) fn compact(
    encoding: Encoding,
    value: &[u8],
    limit: u64,
    out: &mut Vec<u8>,
) -> Result<(), PayloadError> {
    let opaque = || PayloadError::new(0, ErrorKind::Opaque(encoding.type_byte()));
    let start = out.len();
    expand(encoding, value, limit, out).map_err(|error| match error.kind {
        ErrorKind::TooLarge(_) => error,
        _ => opaque(),
    })?;
    fields(Slice::new(&out[start + 1..]), encoding)
        .map(drop)
        .map_err(|_| opaque())
}

/// As it is laid out, compressed strings expanded.
fn expand(
    encoding: Encoding,
    value: &[u8],
    limit: u64,
    out: &mut Vec<u8>,
) -> Result<(), PayloadError> {
    let mut source = Slice::new(value);
    let most = (out.len() as u64).saturating_add(limit);
    let take = |source: &mut Slice<'_>, out: &mut Vec<u8>| {
        let (all, from) = (source.rest(), source.at());
        let is_compressed = all.first() == Some(&0xc3);
        if (out.len() as u64).saturating_add(expanded_len(source)?) > most {
            return Err(source.error(ErrorKind::TooLarge(limit)));
        }
        match is_compressed {
            true => write::string(out, &text(source)?),
            false => {
                string(source)?;
                out.extend_from_slice(&all[..source.at() - from]);
            }
        }
        Ok(())
    };
    out.push(source.byte()?);
    let form = length(&mut source)?;
    write::length(out, form);
    let count = match form {
        PACKED_NAMES => {
            let (_, count) = names(&mut Slice::new(&value[1..]))?;
            take(&mut source, out)?;
            count
        }
        _ => {
            let count = length(&mut source)?;
            write::length(out, count);
            for _ in 0..count {
                take(&mut source, out)?;
            }
            count
        }
    };
    let strings = match encoding {
        Encoding::RedisTemplateListpack => 1,
        _ => count,
    };
    for _ in 0..strings {
        take(&mut source, out)?;
    }
    if out.len() as u64 > most {
        return Err(source.error(ErrorKind::TooLarge(limit)));
    }
    source.end()
}

/// Whether a value, type byte first, is laid out as these types are known to be; `true` of every
/// other type.
pub(crate) fn is_readable(encoding: Encoding, value: &[u8]) -> bool {
    !is_template(encoding)
        || value
            .get(1..)
            .is_some_and(|body| fields(Slice::new(body), encoding).is_ok())
}

/// Whether it is one of the types that this is about.
pub(crate) fn is_template(encoding: Encoding) -> bool {
    encoding.layout() == Layout::Template
}
