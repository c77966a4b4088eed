//! What is kept of a record: a short line of bytes in a temporary file.
//!
//! `print (16) | head (1) | depth (1) | db | expiry + 1 | length of the name | name`, and unless it
//! is a tombstone `count | body (16) | more (16)? | late (16)? | idempotency (16)? | given back (16)? |
//! number of soon | soon… | crowd? | (classes | class and print (16), each…)?` (the latter of key
//! metadata, which the depth of two bytes speaks of), and of a key that could not be read, or that stands for several, `length of the reason | reason`. Where keys of
//! the side may meet under one name, the name is followed by `db | length | name` of the key as the
//! side itself calls it. Numbers are LEB128. About forty bytes and the name.

use super::hashing::Print;
use super::meaning::{Beside, Crowd, Depth, Meaning, Soon};
use crate::payload::Kind;

/// What a row speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// A key of this type.
    Key(Kind),
    /// A function library; its name stands for the key.
    Library,
    /// A key that was deleted again: what was said of it before does not count.
    Gone,
}

impl What {
    /// The word for people and programs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            What::Key(kind) => kind.name(),
            What::Library => "library",
            What::Gone => "none",
        }
    }
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// Stands for database and key.
    pub print: Print,
    /// What it is.
    pub what: What,
    /// Whether it takes part by itself. Another value of the same key is compared all the same.
    pub selected: bool,
    /// Database; 0 for a library.
    pub db: u32,
    /// Key, or the library's name.
    pub key: Vec<u8>,
    /// Database and key as the side itself calls them, where several of its keys may come under one
    /// name.
    pub origin: Option<(u32, Vec<u8>)>,
    /// Expiry, Unix ms.
    pub expire_at_ms: Option<u64>,
    /// What it means.
    pub meaning: Meaning,
}

/// The number of a kind in a row, below [`LIBRARY`].
const fn number_of(kind: Kind) -> u8 {
    match kind {
        Kind::String => 0,
        Kind::List => 1,
        Kind::Set => 2,
        Kind::ZSet => 3,
        Kind::Hash => 4,
        Kind::Stream => 5,
        Kind::Module => 6,
        Kind::Unknown => 7,
        Kind::Array => 8,
        Kind::PathHash => 9,
    }
}

fn kind_of_number(number: u8) -> Option<Kind> {
    Kind::ALL
        .iter()
        .copied()
        .find(|&kind| number_of(kind) == number)
}

const LIBRARY: u8 = 14;
const GONE: u8 = 15;
const SELECTED: u8 = 0x10;
const HAS_MORE: u8 = 0x20;
const HAS_LATE: u8 = 0x40;
const HAS_SOON: u8 = 0x80;

/// Beside the depth.
const HAS_ORIGIN: u8 = 0x80;
const HAS_CROWD: u8 = 0x40;
const HAS_IDEMPOTENCY: u8 = 0x20;
const HAS_GIVEN_BACK: u8 = 0x10;
const DEPTH: u8 = 0x0f;
/// In place of the depth: that stands in a byte of its own, which is the next one, with what there is
/// to say of key metadata.
const HAS_METADATA: u8 = 0x0f;

/// Beside the depth there.
const KEEPS_METADATA: u8 = 0x10;
const HAS_CLASSES: u8 = 0x20;

const DEPTHS: [Depth; 11] = [
    Depth::Whole,
    Depth::EarlyStream,
    Depth::IdempotentStream,
    Depth::GivingStream,
    Depth::Opaque,
    Depth::Damaged,
    Depth::TooLarge,
    Depth::Unread,
    Depth::Collided,
    Depth::Shifting,
    Depth::TimeSeries,
];

impl Row {
    /// Appends it.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.print.to_le_bytes());
        self.write_flags(out);
        number(out, self.db.into());
        number(out, self.expire_at_ms.map_or(0, |ms| ms.saturating_add(1)));
        number(out, self.key.len() as u64);
        out.extend_from_slice(&self.key);
        if let Some((db, key)) = &self.origin {
            number(out, (*db).into());
            number(out, key.len() as u64);
            out.extend_from_slice(key);
        }
        if self.what == What::Gone {
            return;
        }
        write_meaning(&self.meaning, out);
        if self.has_reason() {
            number(out, self.meaning.reason.len() as u64);
            out.extend_from_slice(self.meaning.reason.as_bytes());
        }
    }

    /// What it is, and what of a meaning follows.
    fn write_flags(&self, out: &mut Vec<u8>) {
        let meaning = &self.meaning;
        let what = match self.what {
            What::Key(kind) => number_of(kind),
            What::Library => LIBRARY,
            What::Gone => GONE,
        };
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let depth = DEPTHS.iter().position(|&depth| depth == meaning.depth);
        out.push(
            what | flag(self.selected, SELECTED)
                | flag(meaning.more != 0, HAS_MORE)
                | flag(meaning.late != 0, HAS_LATE)
                | flag(!meaning.soon.is_empty(), HAS_SOON),
        );
        let depth = depth.unwrap_or(0) as u8;
        let has_classes = !meaning.metadata.is_empty();
        let has_metadata = has_classes || meaning.keeps_metadata;
        out.push(
            if has_metadata { HAS_METADATA } else { depth }
                | flag(self.origin.is_some(), HAS_ORIGIN)
                | flag(meaning.crowd.is_some(), HAS_CROWD)
                | flag(meaning.idempotency != 0, HAS_IDEMPOTENCY)
                | flag(meaning.given_back != 0, HAS_GIVEN_BACK),
        );
        if has_metadata {
            out.push(
                depth
                    | flag(meaning.keeps_metadata, KEEPS_METADATA)
                    | flag(has_classes, HAS_CLASSES),
            );
        }
    }

    /// Whether words go with it.
    fn has_reason(&self) -> bool {
        self.meaning.depth.has_reason() || self.what == What::Library
    }

    /// Takes the next one off the front; `None` at the end, or where the bytes are not ours.
    pub(crate) fn read(bytes: &mut &[u8]) -> Option<Self> {
        let print = Print::from_le_bytes(take(bytes)?);
        let flags = Flags::read(bytes)?;
        let what = match flags.head & 0x0f {
            LIBRARY => What::Library,
            GONE => What::Gone,
            kind => What::Key(kind_of_number(kind)?),
        };
        let db = u32::try_from(take_number(bytes)?).ok()?;
        let expire_at_ms = take_number(bytes)?.checked_sub(1);
        let key = take_bytes(bytes)?;
        let origin = match flags.beside & HAS_ORIGIN {
            0 => None,
            _ => Some((u32::try_from(take_number(bytes)?).ok()?, take_bytes(bytes)?)),
        };
        let mut row = Self {
            print,
            what,
            selected: flags.head & SELECTED != 0,
            db,
            key,
            origin,
            expire_at_ms,
            meaning: Meaning {
                depth: *DEPTHS.get(usize::from(flags.depth & DEPTH))?,
                keeps_metadata: flags.depth & KEEPS_METADATA != 0,
                ..Meaning::default()
            },
        };
        if what == What::Gone {
            return Some(row);
        }
        flags.read_meaning(&mut row.meaning, bytes)?;
        if row.has_reason() {
            row.meaning.reason = String::from_utf8(take_bytes(bytes)?).ok()?;
        }
        Some(row)
    }
}

/// What follows the names, but for words.
fn write_meaning(meaning: &Meaning, out: &mut Vec<u8>) {
    number(out, meaning.count);
    out.extend_from_slice(&meaning.body.to_le_bytes());
    for print in [
        meaning.more,
        meaning.late,
        meaning.idempotency,
        meaning.given_back,
    ] {
        if print != 0 {
            out.extend_from_slice(&print.to_le_bytes());
        }
    }
    if !meaning.soon.is_empty() {
        number(out, meaning.soon.len() as u64);
        for soon in &meaning.soon {
            number(out, soon.at_ms);
            out.extend_from_slice(&soon.body.to_le_bytes());
            out.extend_from_slice(&soon.more.to_le_bytes());
        }
    }
    if let Some(crowd) = &meaning.crowd {
        number(out, crowd.first_ms);
        number(out, crowd.last_ms);
        number(out, crowd.count);
        out.extend_from_slice(&crowd.body.to_le_bytes());
        out.extend_from_slice(&crowd.more.to_le_bytes());
    }
    if !meaning.metadata.is_empty() {
        number(out, meaning.metadata.len() as u64);
        for beside in &meaning.metadata {
            let class = u64::from(beside.class);
            number(out, class << 1 | u64::from(beside.left_out));
            out.extend_from_slice(&beside.print.to_le_bytes());
        }
    }
}

/// The first bytes behind the print: what it is, and what follows.
struct Flags {
    head: u8,
    beside: u8,
    /// That of two bytes where there is something to say of key metadata.
    depth: u8,
}

impl Flags {
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let [head, beside] = take(bytes)?;
        let depth = match beside & DEPTH {
            HAS_METADATA => u8::from_le_bytes(take(bytes)?),
            depth => depth,
        };
        Some(Self {
            head,
            beside,
            depth,
        })
    }

    /// What follows the names, but for words.
    fn read_meaning(&self, meaning: &mut Meaning, bytes: &mut &[u8]) -> Option<()> {
        meaning.count = take_number(bytes)?;
        meaning.body = Print::from_le_bytes(take(bytes)?);
        if self.head & HAS_MORE != 0 {
            meaning.more = Print::from_le_bytes(take(bytes)?);
        }
        if self.head & HAS_LATE != 0 {
            meaning.late = Print::from_le_bytes(take(bytes)?);
        }
        if self.beside & HAS_IDEMPOTENCY != 0 {
            meaning.idempotency = Print::from_le_bytes(take(bytes)?);
        }
        if self.beside & HAS_GIVEN_BACK != 0 {
            meaning.given_back = Print::from_le_bytes(take(bytes)?);
        }
        if self.head & HAS_SOON != 0 {
            for _ in 0..take_number(bytes)? {
                meaning.soon.push(Soon {
                    at_ms: take_number(bytes)?,
                    body: Print::from_le_bytes(take(bytes)?),
                    more: Print::from_le_bytes(take(bytes)?),
                });
            }
        }
        if self.beside & HAS_CROWD != 0 {
            meaning.crowd = Some(Crowd {
                first_ms: take_number(bytes)?,
                last_ms: take_number(bytes)?,
                count: take_number(bytes)?,
                body: Print::from_le_bytes(take(bytes)?),
                more: Print::from_le_bytes(take(bytes)?),
            });
        }
        if self.depth & HAS_CLASSES != 0 {
            for _ in 0..take_number(bytes)? {
                let class = take_number(bytes)?;
                meaning.metadata.push(Beside {
                    class: u32::try_from(class >> 1).ok()?,
                    left_out: class & 1 != 0,
                    print: Print::from_le_bytes(take(bytes)?),
                });
            }
        }
        Some(())
    }
}

fn number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

fn take_bytes(bytes: &mut &[u8]) -> Option<Vec<u8>> {
    let len = usize::try_from(take_number(bytes)?).ok()?;
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken.to_vec())
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = take(bytes)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_number_of_its_own() {
        for &kind in Kind::ALL {
            assert!(number_of(kind) < LIBRARY, "{kind}");
            assert_eq!(kind_of_number(number_of(kind)), Some(kind));
        }
    }

    #[test]
    fn rows_come_back_as_they_were() {
        let plain = Row {
            print: u128::MAX - 5,
            what: What::Key(Kind::String),
            selected: true,
            db: 0,
            key: b"k".to_vec(),
            origin: None,
            expire_at_ms: None,
            meaning: Meaning {
                count: 300,
                body: 7,
                ..Meaning::default()
            },
        };
        let rows = [
            plain.clone(),
            Row {
                what: What::Key(Kind::Hash),
                selected: false,
                db: u32::MAX,
                key: vec![0xff; 300],
                origin: Some((5, vec![0xfe; 200])),
                expire_at_ms: Some(1 << 62),
                meaning: Meaning {
                    more: 1,
                    soon: vec![
                        Soon {
                            at_ms: u64::MAX,
                            body: 3,
                            more: 4
                        };
                        2
                    ],
                    crowd: Some(Crowd {
                        first_ms: 1,
                        last_ms: u64::MAX,
                        count: 300,
                        body: 5,
                        more: u128::MAX,
                    }),
                    ..plain.meaning.clone()
                },
                ..plain.clone()
            },
            Row {
                what: What::Key(Kind::Stream),
                expire_at_ms: Some(0),
                meaning: Meaning {
                    depth: Depth::EarlyStream,
                    late: 9,
                    count: u64::MAX,
                    ..Meaning::default()
                },
                ..plain.clone()
            },
            Row {
                what: What::Key(Kind::Stream),
                origin: Some((3, b"o".to_vec())),
                meaning: Meaning {
                    depth: Depth::GivingStream,
                    late: 9,
                    idempotency: 10,
                    given_back: 11,
                    ..Meaning::default()
                },
                ..plain.clone()
            },
            Row {
                what: What::Key(Kind::Unknown),
                meaning: Meaning {
                    depth: Depth::Unread,
                    reason: "NOPERM – no permission".repeat(9),
                    metadata: vec![
                        Beside {
                            class: u32::MAX >> 8,
                            print: u128::MAX,
                            left_out: true,
                        };
                        3
                    ],
                    ..Meaning::default()
                },
                ..plain.clone()
            },
            Row {
                meaning: Meaning {
                    keeps_metadata: true,
                    ..plain.meaning.clone()
                },
                ..plain.clone()
            },
            Row {
                meaning: Meaning {
                    keeps_metadata: true,
                    metadata: vec![Beside {
                        class: 1,
                        print: 2,
                        left_out: false,
                    }],
                    depth: Depth::Shifting,
                    ..plain.meaning.clone()
                },
                ..plain.clone()
            },
            Row {
                meaning: Meaning {
                    depth: Depth::Collided,
                    reason: "db 0 k, db 5 k".to_owned(),
                    ..Meaning::default()
                },
                ..plain.clone()
            },
            Row {
                what: What::Gone,
                origin: Some((0, Vec::new())),
                meaning: Meaning::default(),
                ..plain.clone()
            },
            Row {
                what: What::Library,
                ..plain.clone()
            },
            Row {
                what: What::Library,
                meaning: Meaning {
                    reason: "on 1 of 2 primaries".to_owned(),
                    ..plain.meaning.clone()
                },
                ..plain
            },
        ];
        let mut bytes = Vec::new();
        for row in &rows {
            row.write(&mut bytes);
        }
        let mut rest = &bytes[..];
        for row in &rows {
            assert_eq!(Row::read(&mut rest).as_ref(), Some(row));
        }
        assert!(rest.is_empty() && Row::read(&mut rest).is_none());
        for cut in 0..bytes.len() {
            let mut rest = &bytes[..cut];
            while Row::read(&mut rest).is_some() {}
        }
    }
}
