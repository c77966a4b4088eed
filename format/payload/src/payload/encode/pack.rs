//! Small collections in one string, as servers keep them in memory: a server that gets them so has
//! nothing to convert. Listpacks from 7.0 on, ziplists before (listpack.c, ziplist.c), intsets
//! everywhere (intset.c).

use std::cmp::Ordering;

use crate::dialect::Encoding;
use crate::payload::decode::{BackLengths, Element};
use crate::payload::write;

/// In what a destination wants small collections packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Packing {
    /// In nothing: strings in a row.
    None,
    /// Ziplists.
    Ziplist,
    /// Listpacks; those of sets came later (7.2).
    Listpack {
        /// Whether sets are packed, too.
        sets: bool,
    },
}

/// Elements, or pairs, of a collection that is packed: the least of the servers' defaults
/// (config.c, `hash-max-listpack-entries` and the like), so that none unpacks what it just got.
pub(super) const MAX_ROWS: u64 = 128;

/// Bytes of an element that is packed (`hash-max-listpack-value` and the like).
const MAX_BYTES: usize = 64;

/// Members of an intset (`set-max-intset-entries`).
pub(super) const MAX_INTEGERS: u64 = 512;

/// Bytes of one node of a list (`list-max-listpack-size -2`).
const NODE_BYTES: usize = 8 * 1024;

/// An element longer than this is better off in a list that is not packed.
const MAX_LIST_ELEMENT_BYTES: usize = NODE_BYTES / 2;

/// Whether a row of elements could be packed; if not, nothing was written.
pub(super) type Packed<E> = Result<bool, E>;

/// A packed list that is being written: its length as a string, header, entries, end.
struct Pack<'o> {
    out: &'o mut Vec<u8>,
    /// Where its own length stands.
    start: usize,
    ziplist: bool,
    count: u16,
    /// Where the last entry stands, and how long it is; for ziplists.
    last: (usize, usize),
}

/// The string's length is written last, in two bytes where they hold it.
const LENGTH_BYTES: usize = 2;
const END: u8 = 0xff;

impl<'o> Pack<'o> {
    fn begin(out: &'o mut Vec<u8>, ziplist: bool) -> Self {
        let start = out.len();
        let header = if ziplist { 10 } else { 6 };
        out.resize(start + LENGTH_BYTES + header, 0);
        Self {
            last: (out.len(), 0),
            out,
            start,
            ziplist,
            count: 0,
        }
    }

    fn bytes(&self) -> usize {
        self.out.len() - self.start - LENGTH_BYTES
    }

    fn push(&mut self, element: &Element<'_>) {
        let at = self.out.len();
        if self.ziplist {
            match self.last.1 {
                len @ 0..254 => self.out.push(len as u8),
                len => {
                    self.out.push(254);
                    self.out.extend_from_slice(&(len as u32).to_le_bytes());
                }
            }
            match element {
                Element::Int(number) => ziplist_int(self.out, *number),
                Element::Text(text) => match canonical_int(text) {
                    Some(number) => ziplist_int(self.out, number),
                    None => ziplist_text(self.out, text),
                },
            }
            self.last = (at, self.out.len() - at);
        } else {
            match element {
                Element::Int(number) => listpack_int(self.out, *number),
                Element::Text(text) => match canonical_int(text) {
                    Some(number) => listpack_int(self.out, number),
                    None => listpack_text(self.out, text),
                },
            }
            let len = self.out.len() - at;
            if len < 0x80 {
                self.out.push(len as u8);
            } else {
                // Far below the lengths that are written in two ways.
                let (back, size) = BackLengths::Early.bytes(len);
                self.out.extend_from_slice(&back[..size]);
            }
        }
        self.count += 1;
    }

    fn finish(self) {
        self.out.push(END);
        let blob = self.start + LENGTH_BYTES;
        let len = self.out.len() - blob;
        let total = (len as u32).to_le_bytes();
        self.out[blob..blob + 4].copy_from_slice(&total);
        if self.ziplist {
            let tail = (self.last.0 - blob) as u32;
            self.out[blob + 4..blob + 8].copy_from_slice(&tail.to_le_bytes());
            self.out[blob + 8..blob + 10].copy_from_slice(&self.count.to_le_bytes());
        } else {
            self.out[blob + 4..blob + 6].copy_from_slice(&self.count.to_le_bytes());
        }
        if len < 0x4000 {
            let prefix = (0x4000 | len as u16).to_be_bytes();
            self.out[self.start..blob].copy_from_slice(&prefix);
        } else {
            let mut prefix = Vec::with_capacity(5);
            write::length(&mut prefix, len as u64);
            self.out.splice(self.start..blob, prefix);
        }
    }
}

/// Writes elements, or fields and values in turn, as one packed list of this type.
pub(super) fn whole<'a, E>(
    out: &mut Vec<u8>,
    encoding: Encoding,
    ziplist: bool,
    cells: impl Iterator<Item = Result<Element<'a>, E>>,
) -> Packed<E> {
    let start = out.len();
    out.push(encoding.type_byte());
    let mut pack = Pack::begin(out, ziplist);
    for cell in cells {
        let cell = cell?;
        if is_long(&cell, MAX_BYTES) {
            out.truncate(start);
            return Ok(false);
        }
        pack.push(&cell);
    }
    pack.finish();
    Ok(true)
}

/// Writes a list as a quicklist: nodes of packed elements.
pub(super) fn list<'a, E>(
    out: &mut Vec<u8>,
    ziplist: bool,
    cells: impl Iterator<Item = Result<Element<'a>, E>>,
) -> Packed<E> {
    let encoding = match ziplist {
        true => Encoding::ListQuicklist,
        false => Encoding::ListQuicklist2,
    };
    let start = out.len();
    out.push(encoding.type_byte());
    // How many nodes there are is known at the end.
    let count_at = out.len();
    out.extend_from_slice(&[0x80, 0, 0, 0, 0]);
    let mut nodes = 0_u32;
    let mut cells = cells.peekable();
    while cells.peek().is_some() {
        nodes += 1;
        if !ziplist {
            const PACKED_CONTAINER: u8 = 2;
            out.push(PACKED_CONTAINER);
        }
        let mut pack = Pack::begin(out, ziplist);
        while let Some(cell) = cells.next_if(|cell| {
            let more = cell.as_ref().map_or(0, text_bytes);
            pack.count == 0 || pack.bytes() + more + 16 <= NODE_BYTES
        }) {
            let cell = cell?;
            if is_long(&cell, MAX_LIST_ELEMENT_BYTES) {
                out.truncate(start);
                return Ok(false);
            }
            pack.push(&cell);
        }
        pack.finish();
    }
    out[count_at + 1..count_at + 5].copy_from_slice(&nodes.to_be_bytes());
    Ok(true)
}

/// Writes a set of integers as an intset.
pub(super) fn integers<'a, E>(
    out: &mut Vec<u8>,
    cells: impl Iterator<Item = Result<Element<'a>, E>>,
) -> Packed<E> {
    let mut numbers = Vec::new();
    for cell in cells {
        let number = match cell? {
            Element::Int(number) => Some(number),
            Element::Text(text) => canonical_int(&text),
        };
        match number {
            Some(number) => numbers.push(number),
            None => return Ok(false),
        }
    }
    numbers.sort_unstable();
    let within = |low: i64, high: i64| {
        numbers.first().is_none_or(|&first| first >= low)
            && numbers.last().is_none_or(|&last| last <= high)
    };
    let width: usize = if within(i16::MIN.into(), i16::MAX.into()) {
        2
    } else if within(i32::MIN.into(), i32::MAX.into()) {
        4
    } else {
        8
    };
    out.push(Encoding::SetIntset.type_byte());
    write::length(out, (8 + numbers.len() * width) as u64);
    out.extend_from_slice(&(width as u32).to_le_bytes());
    out.extend_from_slice(&(numbers.len() as u32).to_le_bytes());
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes()[..width]);
    }
    Ok(true)
}

/// Members with their scores.
pub(super) type Scored<'a> = (Element<'a>, f64);

/// Writes a sorted set as one packed list, lowest score first, as its rows have to come: if they do
/// not, or are too long, nothing is written.
pub(super) fn scored<'a, E>(
    out: &mut Vec<u8>,
    ziplist: bool,
    rows: impl Iterator<Item = Result<Scored<'a>, E>>,
) -> Packed<E> {
    let encoding = match ziplist {
        true => Encoding::ZSetZiplist,
        false => Encoding::ZSetListpack,
    };
    let start = out.len();
    out.push(encoding.type_byte());
    let mut pack = Pack::begin(out, ziplist);
    let mut before: Option<Scored<'a>> = None;
    for row in rows {
        let (member, score) = row?;
        let row = (member, score);
        let in_order = before
            .as_ref()
            .is_none_or(|before| compare(before, &row) != Ordering::Greater);
        if is_long(&row.0, MAX_BYTES) || !in_order {
            out.truncate(start);
            return Ok(false);
        }
        pack.push(&row.0);
        push_score(&mut pack, score);
        before = Some(row);
    }
    pack.finish();
    Ok(true)
}

/// The order of a sorted set: by score, then by member.
pub(super) fn compare(a: &Scored<'_>, b: &Scored<'_>) -> Ordering {
    // Scores are never NaN; minus zero and zero are one score.
    let by_score = a.1.partial_cmp(&b.1).unwrap_or(Ordering::Equal);
    by_score.then_with(|| a.0.see(|a| b.0.see(|b| a.cmp(b))))
}

/// A score as text that every server reads back bit by bit, or as an integer.
fn push_score(pack: &mut Pack<'_>, score: f64) {
    /// Up to here every whole number is a score of its own.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let is_negative_zero = score == 0.0 && score.is_sign_negative();
    if score.fract() == 0.0 && score.abs() < EXACT && !is_negative_zero {
        return pack.push(&Element::Int(score as i64));
    }
    let magnitude = score.abs();
    let text = if score.is_infinite() || is_negative_zero || (1e-5..1e17).contains(&magnitude) {
        score.to_string()
    } else {
        format!("{score:e}")
    };
    pack.push(&Element::Text(text.into_bytes().into()));
}

fn text_bytes(element: &Element<'_>) -> usize {
    match element {
        Element::Int(_) => 0,
        Element::Text(text) => text.len(),
    }
}

fn is_long(element: &Element<'_>, max: usize) -> bool {
    text_bytes(element) > max
}

/// The integer that a text is the decimal text of, and no other way to write it (util.c,
/// string2ll).
fn canonical_int(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_negative = digits.len() < text.len();
    match digits {
        [b'0'] if !is_negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut number = 0_i64;
    for byte in digits {
        let digit = i64::from(byte.checked_sub(b'0').filter(|digit| *digit < 10)?);
        // Downwards, because the lowest integer has no positive counterpart.
        number = number.checked_mul(10)?.checked_sub(digit)?;
    }
    match is_negative {
        true => Some(number),
        false => number.checked_neg(),
    }
}

fn listpack_int(out: &mut Vec<u8>, number: i64) {
    let bytes = number.to_le_bytes();
    match number {
        0..128 => out.push(number as u8),
        -4096..4096 => {
            let bits = (number & 0x1fff) as u16 | 0xc000;
            out.extend_from_slice(&bits.to_be_bytes());
        }
        -0x8000..0x8000 => tagged(out, 0xf1, &bytes[..2]),
        -0x80_0000..0x80_0000 => tagged(out, 0xf2, &bytes[..3]),
        -0x8000_0000..0x8000_0000 => tagged(out, 0xf3, &bytes[..4]),
        _ => tagged(out, 0xf4, &bytes),
    }
}

fn listpack_text(out: &mut Vec<u8>, text: &[u8]) {
    match text.len() {
        len @ 0..64 => out.push(0x80 | len as u8),
        len @ 64..4096 => out.extend_from_slice(&(0xe000 | len as u16).to_be_bytes()),
        len => tagged(out, 0xf0, &(len as u32).to_le_bytes()),
    }
    out.extend_from_slice(text);
}

fn ziplist_int(out: &mut Vec<u8>, number: i64) {
    let bytes = number.to_le_bytes();
    match number {
        0..13 => out.push(0xf1 + number as u8),
        -0x80..0x80 => tagged(out, 0xfe, &bytes[..1]),
        -0x8000..0x8000 => tagged(out, 0xc0, &bytes[..2]),
        -0x80_0000..0x80_0000 => tagged(out, 0xf0, &bytes[..3]),
        -0x8000_0000..0x8000_0000 => tagged(out, 0xd0, &bytes[..4]),
        _ => tagged(out, 0xe0, &bytes),
    }
}

fn ziplist_text(out: &mut Vec<u8>, text: &[u8]) {
    match text.len() {
        len @ 0..64 => out.push(len as u8),
        len @ 64..0x4000 => out.extend_from_slice(&(0x4000 | len as u16).to_be_bytes()),
        len => tagged(out, 0x80, &(len as u32).to_be_bytes()),
    }
    out.extend_from_slice(text);
}

fn tagged(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_written_back_the_same_is_an_integer() {
        for number in [0, 1, -1, 12, i64::MAX, i64::MIN, 1 << 40] {
            let text = number.to_string();
            assert_eq!(canonical_int(text.as_bytes()), Some(number), "{text}");
        }
        for text in [
            "",
            "-",
            "-0",
            "01",
            "+1",
            " 1",
            "1 ",
            "1a",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999",
        ] {
            assert_eq!(canonical_int(text.as_bytes()), None, "{text}");
        }
    }
}
