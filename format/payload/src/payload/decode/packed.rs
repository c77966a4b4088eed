//! Lists packed into one string: what listpacks, ziplists, zipmaps and intsets have in common.

use std::borrow::Cow;
use std::ops::Range;

use super::intset::Intset;
use super::listpack::Listpack;
use super::ziplist::Ziplist;
use super::zipmap::Zipmap;
use crate::payload::error::{ErrorKind, PayloadError};
use crate::payload::object::Bytes;

/// A string whose contents are read on.
#[derive(Debug, Clone)]
pub(crate) struct Blob<'a> {
    bytes: Bytes<'a>,
    /// Where it stands in the value.
    offset: u64,
    /// It stands there as it is, not compressed.
    plain: bool,
}

impl<'a> Blob<'a> {
    /// The string `bytes` that stands at `offset`.
    pub(crate) fn new(bytes: Bytes<'a>, offset: u64) -> Self {
        let plain = matches!(bytes, Cow::Borrowed(_));
        Self {
            bytes,
            offset,
            plain,
        }
    }

    /// The same string, not owned.
    pub(crate) fn borrowed(&self) -> Blob<'_> {
        Blob {
            bytes: Cow::Borrowed(&self.bytes),
            ..*self
        }
    }

    /// Its bytes, as they came.
    pub(crate) fn into_bytes(self) -> Bytes<'a> {
        self.bytes
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Some of its bytes, borrowed from the value if they stand there.
    pub(crate) fn cut(&self, range: Range<usize>) -> Option<Bytes<'a>> {
        Some(match &self.bytes {
            Cow::Borrowed(bytes) => Cow::Borrowed(bytes.get(range)?),
            Cow::Owned(bytes) => Cow::Owned(bytes.get(range)?.to_vec()),
        })
    }

    /// The `N` bytes at `at`.
    pub(crate) fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.bytes.get(at..)?.first_chunk().copied()
    }

    /// An error at `at` within the string; of an expanded string only its start is known.
    pub(crate) fn error(&self, at: usize, kind: ErrorKind) -> PayloadError {
        let within = if self.plain { at as u64 } else { 0 };
        PayloadError::new(self.offset + within, kind)
    }
}

/// One element of a list. Integers are kept apart: most become text, scores become numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Element<'a> {
    /// Bytes.
    Text(Bytes<'a>),
    /// An integer, which stands for its decimal text.
    Int(i64),
}

impl<'a> Element<'a> {
    /// The element as a user sees it.
    pub(crate) fn into_bytes(self) -> Bytes<'a> {
        match self {
            Self::Text(bytes) => bytes,
            Self::Int(number) => Cow::Owned(decimal(number)),
        }
    }

    /// Looks at the element as a user sees it.
    pub(crate) fn see<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        match self {
            Self::Text(bytes) => look(bytes),
            Self::Int(number) => with_decimal(*number, look),
        }
    }

    /// The element as a score.
    pub(crate) fn score(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Text(text) => parse_score(text),
        }
    }
}

/// The decimal text of an integer, without the detour over a formatter: whole lists and sets are
/// made of these.
pub(super) fn decimal(number: i64) -> Vec<u8> {
    with_decimal(number, <[u8]>::to_vec)
}

fn with_decimal<T>(number: i64, use_text: impl FnOnce(&[u8]) -> T) -> T {
    const LONGEST: usize = "-9223372036854775808".len();
    let mut digits = [0; LONGEST];
    let mut start = LONGEST;
    let mut left = number.unsigned_abs();
    loop {
        start -= 1;
        digits[start] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if number < 0 {
        start -= 1;
        digits[start] = b'-';
    }
    use_text(&digits[start..])
}

/// A score written as text by any server ("%.17g", shortest form, "inf", "-inf").
pub(super) fn parse_score(text: &[u8]) -> Option<f64> {
    let score: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (!score.is_nan()).then_some(score)
}

/// A packed list that is being read.
#[derive(Debug, Clone)]
pub(super) enum Packed<'a> {
    Listpack(Listpack<'a>),
    Ziplist(Ziplist<'a>),
    Zipmap(Zipmap<'a>),
    Intset(Intset<'a>),
}

impl<'a> Packed<'a> {
    /// The next element; none when the list ended as it should.
    pub(super) fn next(&mut self) -> Result<Option<Element<'a>>, PayloadError> {
        match self {
            Self::Listpack(list) => list.next(),
            Self::Ziplist(list) => list.next(),
            Self::Zipmap(map) => map.next(),
            Self::Intset(set) => set.next(),
        }
    }

    /// An error of `kind` where the list was read to.
    pub(super) fn error(&self, kind: ErrorKind) -> PayloadError {
        match self {
            Self::Listpack(list) => list.error(kind),
            Self::Ziplist(list) => list.error(kind),
            Self::Zipmap(map) => map.error(kind),
            Self::Intset(set) => set.error(kind),
        }
    }
}

/// A signed integer of three bytes, little end first.
pub(super) fn i24(bytes: [u8; 3]) -> i64 {
    let [a, b, c] = bytes;
    i64::from(i32::from_le_bytes([0, a, b, c]) >> 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_texts() {
        for number in [0, 1, 9, 10, -1, -10, 12345, i64::MIN, i64::MAX, 1 << 40] {
            assert_eq!(decimal(number), number.to_string().into_bytes());
        }
    }

    #[test]
    fn three_bytes() {
        assert_eq!(i24([0xff, 0xff, 0x7f]), 8_388_607);
        assert_eq!(i24([0, 0, 0x80]), -8_388_608);
        assert_eq!(i24([0xff; 3]), -1);
    }

    #[test]
    fn scores_as_servers_write_them() {
        for (text, score) in [
            ("0.10000000000000001", 0.1),
            ("0.1", 0.1),
            ("1e+300", 1e300),
            ("-1e300", -1e300),
            ("4.9406564584124654e-324", f64::from_bits(1)),
            ("inf", f64::INFINITY),
            ("-inf", f64::NEG_INFINITY),
            ("-0", -0.0),
        ] {
            let parsed = parse_score(text.as_bytes()).expect("a score");
            assert_eq!(parsed.to_bits(), score.to_bits(), "{text}");
        }
        for text in ["", " 1", "1 ", "nan", "-nan", "0x10", "1,5", "\0"] {
            assert_eq!(parse_score(text.as_bytes()), None, "{text:?}");
        }
    }
}
