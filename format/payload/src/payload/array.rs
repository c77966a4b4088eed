//! Sparse arrays (Redis 8.8): values at indexes, as a user sees them.
//!
//! To a client every value is text. In memory a server keeps some as numbers, and a payload says
//! which (sparsearray.h); whether it does is no part of what the array means. No server was there to
//! confirm any of this: it was read in programs that read such files.

use std::borrow::Cow;

use super::object::Bytes;

/// A sparse array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array<'a> {
    /// Where the next insertion goes; `None` where none has a place yet.
    pub cursor: Option<u64>,
    /// What stands in it, each index once, in the order of the payload.
    pub slots: Vec<Slot<'a>>,
}

/// An index that has a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot<'a> {
    /// The index, up to 2^64 − 2.
    pub index: u64,
    /// The value.
    pub value: SlotValue<'a>,
}

/// A value of an array, as it is kept.
#[derive(Debug, Clone)]
pub enum SlotValue<'a> {
    /// Text.
    Text(Bytes<'a>),
    /// An integer, which stands for its decimal text.
    Int(i64),
    /// A number, which stands for its shortest text.
    Float(f64),
}

impl SlotValue<'_> {
    /// What a client sees. Of a [`SlotValue::Float`] the shortest number that is the same.
    pub fn text(&self) -> Bytes<'_> {
        match self {
            Self::Text(bytes) => Cow::Borrowed(bytes),
            Self::Int(number) => Cow::Owned(number.to_string().into_bytes()),
            Self::Float(number) => Cow::Owned(float_text(*number).into_bytes()),
        }
    }
}

/// Whether a client sees the same. Two [`SlotValue::Float`] are compared by their bits, so nothing
/// depends on how a server writes them; one that stands as text on the other side is the same if the
/// text is what [`SlotValue::text`] gives. A text that only means the same number is another value.
impl PartialEq for SlotValue<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float(one), Self::Float(other)) => one.to_bits() == other.to_bits(),
            (one, other) => one.text() == other.text(),
        }
    }
}

impl Eq for SlotValue<'_> {}

/// The shortest text that reads back as this number, written as Redis writes a double
/// (deps/fpconv, fpconv_dtoa): plain up to 6 zeros behind the digits or 6 places behind the point,
/// with an exponent (`1e+21`, `1.5e-10`) beyond.
pub(super) fn float_text(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let text = format!("{:e}", number.abs());
    // `{:e}` has one digit before the point and always an exponent.
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let digits = mantissa.replace('.', "");
    let count = digits.len();
    let exponent: i32 = exponent.parse().unwrap_or(0);
    // The number is `digits` times ten to the power of `shift`.
    let shift = exponent - (count as i32 - 1);
    let size = exponent.unsigned_abs() as usize;
    let sign = if number.is_sign_negative() { "-" } else { "" };
    if shift >= 0 && size < count + 7 {
        return format!("{sign}{digits}{}", "0".repeat(shift as usize));
    }
    if shift < 0 && (shift > -7 || size < 4) {
        let behind = shift.unsigned_abs() as usize;
        return match count.checked_sub(behind) {
            None | Some(0) => format!("{sign}0.{}{digits}", "0".repeat(behind - count)),
            Some(before) => format!("{sign}{}.{}", &digits[..before], &digits[before..]),
        };
    }
    let point = if count > 1 { "." } else { "" };
    let exponent_sign = if exponent < 0 { '-' } else { '+' };
    format!(
        "{sign}{}{point}{}e{exponent_sign}{size}",
        &digits[..1],
        &digits[1..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_redis_writes_them() {
        for (number, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (1.5, "1.5"),
            (-12.25, "-12.25"),
            (0.1, "0.1"),
            (0.000_001, "0.000001"),
            (0.000_000_1, "1e-7"),
            (1.5e-10, "1.5e-10"),
            (123_456.789, "123456.789"),
            (1e7, "10000000"),
            (1e8, "1e+8"),
            (1.25e21, "1.25e+21"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::from_bits(1), "5e-324"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(float_text(number), text);
            let again: f64 = text.parse().unwrap();
            assert!(again.to_bits() == number.to_bits() || number.is_nan());
        }
    }

    #[test]
    fn what_a_client_sees_decides() {
        let text = |text: &'static str| SlotValue::Text(Cow::Borrowed(text.as_bytes()));
        assert_eq!(text("42"), SlotValue::Int(42));
        assert_eq!(SlotValue::Float(1.5), text("1.5"));
        assert_eq!(SlotValue::Float(2.0), SlotValue::Int(2));
        assert_eq!(SlotValue::Float(f64::NAN), SlotValue::Float(f64::NAN));
        assert_ne!(SlotValue::Float(1.5), text("1.50"));
        assert_ne!(SlotValue::Float(0.0), SlotValue::Float(-0.0));
        assert_ne!(text("042"), SlotValue::Int(42));
    }
}
