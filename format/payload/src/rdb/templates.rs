//! Names of fields that hashes of a file refer to by number (Redis 8.10, opcode F2 and types 30 and
//! 32), and the hashes themselves. These are read as plain hashes at once, so that nothing else has
//! to know of references: what is lost is how the server keeps them in memory.
//!
//! ```text
//! F2: length number, length n ≥ 1, n × string name
//! 30: listpack of the number and n values        32: length number, n × string value
//! ```
//!
//! Types 29 and 31 name their fields themselves; files of Redis have the others, but its loader takes
//! these. All of this was read in librdb and SnugKV, and tried on no server.

use std::collections::HashMap;
use std::io::Read;

use super::error::{Fault, RdbErrorKind};
use super::input::Input;
use crate::payload::{Encoding, PACKED_NAMES, PLAIN_NAMES, is_in_order, listpack_texts, write};

/// Numbers of templates are below this. Real files count from 0; librdb has the same limit.
const MOST: u64 = 1 << 21;

/// Memory that all templates of a file may take, however small the largest value that is wanted.
const ROOM_BYTES: u64 = 64 * 1024 * 1024;

/// What a name costs beside its bytes: where it stands, and the least that is ever allocated.
const NAME_BYTES: u64 = 56;

/// What a template costs beside its names: its place among the others, most of which may be empty.
const ROW_BYTES: u64 = 128;

type Names = Vec<Vec<u8>>;
/// A template's number, and the values of a hash that goes by it.
type Numbered = (u64, Vec<Vec<u8>>);

/// The templates of a file, from the record on that has them to the file's end.
#[derive(Default)]
pub(super) struct Templates {
    rows: HashMap<u64, Names>,
    bytes: u64,
}

impl Templates {
    /// Takes a record, behind its opcode. `limit`: bytes of the largest value that is wanted.
    pub(super) fn take<R: Read>(&mut self, input: &mut Input<R>, limit: u64) -> Result<(), Fault> {
        let offset = input.position();
        let number = input.length()?;
        let bad = |what: String| fault(offset, what);
        if number >= MOST {
            return Err(bad(format!("its number {number} is too high")));
        }
        let count = input.length()?;
        let names = self.names_of_file(input, count, limit)?;
        match self.rows.insert(number, names) {
            None => Ok(()),
            Some(_) => Err(bad(format!("number {number} appears twice"))),
        }
    }

    fn names_of_file<R: Read>(
        &mut self,
        input: &mut Input<R>,
        count: u64,
        limit: u64,
    ) -> Result<Names, Fault> {
        self.bytes += ROW_BYTES;
        let room = limit.max(ROOM_BYTES).saturating_sub(self.bytes);
        let mut names = names(input, count, room)?;
        names.shrink_to_fit();
        self.bytes += cost(&names);
        Ok(names)
    }

    fn named(&self, number: u64, offset: u64) -> Result<&Names, Fault> {
        let names = self.rows.get(&number);
        names.ok_or_else(|| fault(offset, format!("number {number} was not defined before")))
    }

    /// Takes a hash behind its key and appends it to `out`, as a plain hash: type byte and body.
    /// `false` for one of more than `limit` bytes, which is passed over; 0 passes over each.
    pub(super) fn hash<R: Read>(
        &self,
        input: &mut Input<R>,
        encoding: Encoding,
        limit: u64,
        out: &mut Vec<u8>,
    ) -> Result<bool, Fault> {
        let offset = input.position();
        match encoding {
            Encoding::RedisTemplateTableRef => {
                let number = input.length()?;
                values(input, self.named(number, offset)?, limit, out)
            }
            Encoding::RedisTemplateListpackRef => {
                let Some((number, values)) = packed_values(input, limit)? else {
                    return Ok(false);
                };
                row(self.named(number, offset)?, &values, offset, limit, out)
            }
            Encoding::RedisTemplateListpack => {
                let names = own_names(input, limit)?;
                let Some((_, values)) = packed_values(input, limit)? else {
                    return Ok(false);
                };
                row(&names, &values, offset, limit, out)
            }
            _ => {
                let names = own_names(input, limit)?;
                values(input, &names, limit, out)
            }
        }
    }
}

fn fault(offset: u64, what: String) -> Fault {
    Fault {
        offset,
        kind: RdbErrorKind::Template(what),
    }
}

fn cost(names: &Names) -> u64 {
    let bytes = names.iter().map(|name| name.len() as u64 + NAME_BYTES);
    bytes.sum()
}

/// Takes names, which must be in order and may take `room` bytes.
fn names<R: Read>(input: &mut Input<R>, count: u64, room: u64) -> Result<Names, Fault> {
    let mut left = room;
    let mut names = Names::new();
    for _ in 0..count {
        let offset = input.position();
        let name = left
            .checked_sub(NAME_BYTES)
            .map_or(Ok(None), |left| input.string_within(left))?;
        let Some(name) = name else {
            return Err(fault(
                offset,
                format!("the names of fields take more than {room} bytes"),
            ));
        };
        left -= NAME_BYTES + name.len() as u64;
        names.push(name);
    }
    checked(names, input.position())
}

fn checked(names: Names, offset: u64) -> Result<Names, Fault> {
    if names.is_empty() {
        return Err(fault(offset, "it has no fields".to_owned()));
    }
    let is_sorted = names.windows(2).all(|two| is_in_order(&two[0], &two[1]));
    match is_sorted {
        true => Ok(names),
        false => Err(fault(offset, "its fields are out of order".to_owned())),
    }
}

/// The names of a hash that brings its own.
fn own_names<R: Read>(input: &mut Input<R>, limit: u64) -> Result<Names, Fault> {
    let offset = input.position();
    let room = limit.max(ROOM_BYTES);
    match input.length()? {
        PACKED_NAMES => {
            let Some(packed) = input.string_within(room)? else {
                return Err(fault(
                    offset,
                    format!("its names take more than {room} bytes"),
                ));
            };
            checked(texts(&packed, offset)?, offset)
        }
        PLAIN_NAMES => {
            let count = input.length()?;
            names(input, count, room)
        }
        form => Err(fault(
            offset,
            format!("its names are in the unknown form {form}"),
        )),
    }
}

fn texts(packed: &[u8], offset: u64) -> Result<Vec<Vec<u8>>, Fault> {
    listpack_texts(packed).map_err(|error| Fault {
        offset,
        kind: RdbErrorKind::Value(error.kind),
    })
}

/// Takes a listpack of a number and values; `None` for one of more than `limit` bytes.
fn packed_values<R: Read>(input: &mut Input<R>, limit: u64) -> Result<Option<Numbered>, Fault> {
    let offset = input.position();
    let Some(packed) = input.string_within(limit)? else {
        return Ok(None);
    };
    let mut values = texts(&packed, offset)?;
    let number = match values.first() {
        Some(first) => std::str::from_utf8(first)
            .ok()
            .and_then(|text| text.parse().ok()),
        None => None,
    };
    let Some(number) = number else {
        return Err(fault(offset, "a hash names none".to_owned()));
    };
    values.remove(0);
    Ok(Some((number, values)))
}

/// Appends a hash of these fields.
fn row(
    names: &Names,
    values: &[Vec<u8>],
    offset: u64,
    limit: u64,
    out: &mut Vec<u8>,
) -> Result<bool, Fault> {
    if names.len() != values.len() {
        let (fields, values) = (names.len(), values.len());
        let what = format!("a hash has {values} values for its {fields} fields");
        return Err(fault(offset, what));
    }
    let values_len: u64 = values.iter().map(|value| least(value)).sum();
    if least_of_all(names, out).saturating_add(values_len) > limit {
        return Ok(false);
    }
    begin(names, out);
    for (name, value) in names.iter().zip(values) {
        write::string(out, name);
        write::string(out, value);
    }
    Ok(out.len() as u64 <= limit)
}

/// What a string takes in a plain hash, at least.
fn least(string: &[u8]) -> u64 {
    string.len() as u64 + 1
}

/// What a hash of these fields takes behind `out`, at least, without its values.
fn least_of_all(names: &Names, out: &[u8]) -> u64 {
    let names: u64 = names.iter().map(|name| least(name)).sum();
    out.len() as u64 + 2 + names
}

fn begin(names: &Names, out: &mut Vec<u8>) {
    out.push(Encoding::Hash.type_byte());
    write::length(out, names.len() as u64);
}

/// Takes a value for each name and appends the hash; `false` for one of more than `limit` bytes.
fn values<R: Read>(
    input: &mut Input<R>,
    names: &Names,
    limit: u64,
    out: &mut Vec<u8>,
) -> Result<bool, Fault> {
    // Each value takes a byte at least. What cannot fit is not begun: names are copied for each hash,
    // and they may be far larger than what the file spends on it.
    let mut fits = least_of_all(names, out).saturating_add(names.len() as u64) <= limit;
    if fits {
        begin(names, out);
    }
    for name in names {
        let room = match fits {
            true => limit.saturating_sub(out.len() as u64),
            false => 0,
        };
        let value = input.string_within(room)?;
        let Some(value) = value.filter(|_| fits) else {
            (fits, *out) = (false, Vec::new());
            continue;
        };
        write::string(out, name);
        write::string(out, &value);
        fits = out.len() as u64 <= limit;
    }
    Ok(fits)
}
