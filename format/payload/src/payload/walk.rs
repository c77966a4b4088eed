//! Finding where a value ends, without decoding it.
//!
//! Every layout is a few lengths, strings and fixed-size numbers in a row (rdb.c, rdbLoadObject).
//! What the strings contain (listpacks, ziplists, …) is not looked at.

use redis_migrate_format::record::Family;

use super::decode::{FLOAT, INT, SMALL_TEXT, TEXT};
use super::error::ErrorKind;
use super::lzf;
use super::metadata::{plain, take_type_byte};
use super::object::StreamForm;
use super::source::{Slice, Source};
use crate::dialect::{Encoding, Layout, Part};

/// Passes over one value, its type byte or [`metadata`](super::metadata) first, and says what it was. The value is well-formed down
/// to its strings when this returns, and the source stands behind it.
///
/// Values of modules (7) are walked too. Any other type that [`Encoding::of`] does not know is
/// [`ErrorKind::Opaque`], and nothing but the type byte was taken.
pub fn walk<S: Source>(source: &mut S, family: Family) -> Result<Encoding, S::Error> {
    let type_byte = take_type_byte(source, family)?;
    walk_body(source, family, type_byte)
}

/// As [`walk`], where the type byte was taken before, as in an RDB file, where a key stands
/// between the two.
pub(crate) fn walk_body<S: Source>(
    source: &mut S,
    family: Family,
    type_byte: u8,
) -> Result<Encoding, S::Error> {
    let Some(encoding) = Encoding::of(family, type_byte) else {
        return Err(source.error(ErrorKind::Opaque(type_byte)));
    };
    match encoding.layout() {
        Layout::Text | Layout::Listpack => string(source)?,
        Layout::EightListpack => {
            source.pass(8)?;
            string(source)?;
        }
        Layout::Rows(row) => rows(source, row)?,
        Layout::EightRows(row) => {
            source.pass(8)?;
            rows(source, row)?;
        }
        Layout::Nodes => rows(source, &[Part::Length, Part::Text])?,
        Layout::Stream(form) => stream(source, form)?,
        Layout::Array => array(source)?,
        Layout::Paths => {
            for _ in 0..length(source)? {
                string(source)?;
                rows(source, &[Part::Text, Part::Text])?;
            }
        }
        Layout::Template | Layout::TemplateRef => {
            return Err(source.error(ErrorKind::Opaque(type_byte)));
        }
        Layout::Module => {
            length(source)?;
            module_items(source)?;
        }
    }
    Ok(encoding)
}

/// A count, and so many rows. A count that lies ends with the bytes: every part takes at least one.
fn rows<S: Source>(source: &mut S, row: &[Part]) -> Result<(), S::Error> {
    for _ in 0..length(source)? {
        for part in row {
            match part {
                Part::Text => string(source)?,
                Part::Length => drop(length(source)?),
                Part::Eight => source.pass(8)?,
                Part::ShortText => match source.byte()? {
                    253.. => {}
                    len => source.pass(len.into())?,
                },
            }
        }
    }
    Ok(())
}

fn array<S: Source>(source: &mut S) -> Result<(), S::Error> {
    let count = length(source)?;
    // The second one is the cursor, where the first says that there is one.
    for _ in 0..length(source)?.min(1) {
        length(source)?;
    }
    for _ in 0..count {
        length(source)?;
        match length(source)? {
            TEXT | SMALL_TEXT => string(source)?,
            INT | FLOAT => source.pass(8)?,
            _ => return Err(source.error(ErrorKind::Array("unknown tag"))),
        }
    }
    Ok(())
}

fn lengths<S: Source>(source: &mut S, count: usize) -> Result<(), S::Error> {
    for _ in 0..count {
        length(source)?;
    }
    Ok(())
}

fn stream<S: Source>(source: &mut S, form: StreamForm) -> Result<(), S::Error> {
    let first = form == StreamForm::V1;
    rows(source, &[Part::Text, Part::Text])?;
    // Length and last id; from the second form on first id, highest deleted id, entries added.
    lengths(source, if first { 3 } else { 8 })?;
    for _ in 0..length(source)? {
        string(source)?;
        // Last id; from the second form on entries read.
        lengths(source, if first { 2 } else { 3 })?;
        for _ in 0..length(source)? {
            source.pass(16 + 8)?;
            length(source)?;
        }
        for _ in 0..length(source)? {
            string(source)?;
            source.pass(if form >= StreamForm::V3 { 16 } else { 8 })?;
            ids(source)?;
        }
        if form >= StreamForm::V5 {
            ids(source)?;
        }
    }
    if form >= StreamForm::V4 {
        // For how long and how many ids are remembered.
        lengths(source, 2)?;
        for _ in 0..length(source)? {
            string(source)?;
            rows(source, &[Part::Text, Part::Length, Part::Length])?;
        }
        // Ids added and duplicates.
        lengths(source, 2)?;
    }
    Ok(())
}

/// A count, and so many ids of sixteen bytes.
fn ids<S: Source>(source: &mut S) -> Result<(), S::Error> {
    for _ in 0..length(source)? {
        source.pass(16)?;
    }
    Ok(())
}

/// Passes over the items of a module's value up to and including the end mark; in an RDB file
/// module auxiliary data is made of the same items (rdb.c, rdbLoadCheckModuleValue).
pub fn module_items<S: Source>(source: &mut S) -> Result<(), S::Error> {
    loop {
        match length(source)? {
            0 => return Ok(()),
            1 | 2 => drop(length(source)?),
            3 => source.pass(4)?,
            4 => source.pass(8)?,
            5 => string(source)?,
            other => return Err(source.error(ErrorKind::ModuleItem(other))),
        }
    }
}

/// What stands where a string begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// So many bytes follow.
    Plain(u64),
    /// The string is encoded in this way.
    Encoded(u8),
}

/// Takes the beginning of a string, or a length.
#[inline]
pub(super) fn head<S: Source>(source: &mut S) -> Result<Head, S::Error> {
    let byte = source.byte()?;
    Ok(match byte {
        0..0x40 => Head::Plain(byte.into()),
        0x40..0x80 => Head::Plain(u64::from(byte & 0x3f) << 8 | u64::from(source.byte()?)),
        0x80 => Head::Plain(u32::from_be_bytes(source.array()?).into()),
        0x81 => Head::Plain(u64::from_be_bytes(source.array()?)),
        0x82..0xc0 => return Err(source.error(ErrorKind::BadLength(byte))),
        0xc0.. => Head::Encoded(byte & 0x3f),
    })
}

/// Takes a length. Those longer than need be are understood too, as by every server.
#[inline]
pub fn length<S: Source>(source: &mut S) -> Result<u64, S::Error> {
    match head(source)? {
        Head::Plain(len) => Ok(len),
        Head::Encoded(_) => Err(source.error(ErrorKind::EncodedLength)),
    }
}

/// Passes over a string.
#[inline]
pub fn string<S: Source>(source: &mut S) -> Result<(), S::Error> {
    let start = source.position();
    match head(source)? {
        Head::Plain(len) => source.pass(len),
        Head::Encoded(code @ 0..3) => source.pass(1 << code),
        Head::Encoded(3) => {
            let (compressed, plain) = compressed_lengths(source)?;
            let header = (source.position() - start) as usize;
            source.pass_compressed(header, compressed, plain)
        }
        Head::Encoded(code) => Err(source.error(ErrorKind::BadEncoding(code))),
    }
}

/// Takes the two lengths of a compressed string and checks that they can be true.
pub(super) fn compressed_lengths<S: Source>(source: &mut S) -> Result<(u64, u64), S::Error> {
    let compressed = length(source)?;
    let plain = length(source)?;
    lzf::plausible(compressed, plain).map_err(|error| source.error(error.into()))?;
    Ok((compressed, plain))
}

/// The name of the type of a module's value, type byte first; nothing if it is no such value, or
/// not laid out as rdb.c has it.
pub fn module_name_of(family: Family, value: &[u8]) -> Option<String> {
    let value = plain(family, value);
    let mut slice = Slice::new(value);
    if walk(&mut slice, family).ok()? != Encoding::Module {
        return None;
    }
    slice.end().ok()?;
    let id = length(&mut Slice::new(value.get(1..)?)).ok()?;
    Some(module_name(id))
}

/// The first thing that a module wrote into a value, if that is a string; expanded where it is
/// compressed. `value` begins with its type byte.
pub fn first_module_string(family: Family, value: &[u8]) -> Option<Vec<u8>> {
    /// The opcode of a string (rdb.h, RDB_MODULE_OPCODE_STRING).
    const STRING: u64 = 5;
    let mut slice = Slice::new(plain(family, value).get(1..)?);
    length(&mut slice).ok()?;
    if length(&mut slice).ok()? != STRING {
        return None;
    }
    match head(&mut slice).ok()? {
        Head::Plain(len) => Some(slice.take(len).ok()?.to_vec()),
        Head::Encoded(3) => {
            let (compressed, plain) = compressed_lengths(&mut slice).ok()?;
            let mut text = Vec::new();
            let packed = slice.take(compressed).ok()?;
            lzf::decompress(packed, usize::try_from(plain).ok()?, &mut text).ok()?;
            Some(text)
        }
        Head::Encoded(_) => None,
    }
}

/// The name of a module's type in its 64-bit id: nine characters of six bits, above ten bits of
/// version (module.c, moduleTypeEncodeId).
pub fn module_name(id: u64) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    (0..9)
        .rev()
        .map(|n| char::from(LETTERS[(id >> (10 + 6 * n)) as usize & 63]))
        .collect()
}
