//! Replies, and how they look in RESP2 and RESP3.

use std::borrow::Cow;

/// What a command is answered with.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// `+OK`
    Simple(&'static str),
    /// The same, of a word that is not known beforehand.
    Status(String),
    /// `-ERR …`, without the dash.
    Error(Cow<'static, str>),
    /// `:1`
    Int(i64),
    /// `$1`
    Bulk(Vec<u8>),
    /// A text: a verbatim string in RESP3.
    Text(String),
    /// A nil: `$-1` in RESP2.
    Nil,
    /// A nil that is `*-1` in RESP2.
    NilArray,
    /// `*1`
    Array(Vec<Reply>),
    /// Pairs: an array of twice the length in RESP2.
    Map(Vec<(Reply, Reply)>),
    /// Members: an array in RESP2.
    Set(Vec<Reply>),
    /// A floating-point number: a bulk string in RESP2.
    Double(f64),
    /// A push of RESP3; an array in RESP2.
    Push(Vec<Reply>),
    /// Nothing is sent.
    Nothing,
}

impl Reply {
    /// `+OK`
    pub const OK: Self = Self::Simple("OK");

    /// A bulk string.
    pub fn bulk(bytes: impl AsRef<[u8]>) -> Self {
        Self::Bulk(bytes.as_ref().to_vec())
    }

    /// An error whose text is put together.
    pub fn error(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Error(text.into())
    }

    /// A count.
    pub fn count(count: usize) -> Self {
        Self::Int(i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// A number that is unsigned.
    pub fn unsigned(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }

    /// 1 or 0.
    pub fn flag(is: bool) -> Self {
        Self::Int(i64::from(is))
    }

    /// A bulk string, or nil.
    pub fn or_nil(bytes: Option<Vec<u8>>) -> Self {
        bytes.map_or(Self::Nil, Self::Bulk)
    }

    /// Bulk strings in an array.
    pub fn bulks<T: AsRef<[u8]>>(rows: impl IntoIterator<Item = T>) -> Self {
        Self::Array(rows.into_iter().map(Self::bulk).collect())
    }

    /// The error's text, if it is one.
    pub fn as_error(&self) -> Option<&str> {
        match self {
            Self::Error(text) => Some(text),
            _ => None,
        }
    }

    /// Appends the reply as RESP2 (`protocol` 2) or RESP3.
    pub fn write(&self, out: &mut Vec<u8>, protocol: u8) {
        let is_3 = protocol >= 3;
        match self {
            Self::Simple(text) => line(out, b'+', text.as_bytes()),
            Self::Status(text) => line(out, b'+', text.as_bytes()),
            Self::Error(text) => {
                let text = text.replace(['\r', '\n'], " ");
                line(out, b'-', text.as_bytes());
            }
            Self::Int(number) => head(out, b':', *number),
            Self::Bulk(bytes) => bulk(out, bytes),
            Self::Text(text) if is_3 => {
                head(out, b'=', text.len() as i64 + 4);
                out.extend_from_slice(b"txt:");
                out.extend_from_slice(text.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            Self::Text(text) => bulk(out, text.as_bytes()),
            Self::Nil | Self::NilArray if is_3 => out.extend_from_slice(b"_\r\n"),
            Self::Nil => out.extend_from_slice(b"$-1\r\n"),
            Self::NilArray => out.extend_from_slice(b"*-1\r\n"),
            Self::Array(rows) => all(out, b'*', rows, protocol),
            Self::Set(rows) => all(out, if is_3 { b'~' } else { b'*' }, rows, protocol),
            Self::Push(rows) => all(out, if is_3 { b'>' } else { b'*' }, rows, protocol),
            Self::Map(pairs) => {
                let count = pairs.len() as i64;
                match is_3 {
                    true => head(out, b'%', count),
                    false => head(out, b'*', 2 * count),
                }
                for (name, value) in pairs {
                    name.write(out, protocol);
                    value.write(out, protocol);
                }
            }
            Self::Double(number) if is_3 => line(out, b',', number_text(*number).as_bytes()),
            Self::Double(number) => bulk(out, number_text(*number).as_bytes()),
            Self::Nothing => {}
        }
    }
}

fn line(out: &mut Vec<u8>, kind: u8, text: &[u8]) {
    out.push(kind);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

fn head(out: &mut Vec<u8>, kind: u8, number: i64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.push(kind);
    if number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    head(out, b'$', bytes.len() as i64);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn all(out: &mut Vec<u8>, kind: u8, rows: &[Reply], protocol: u8) {
    head(out, kind, rows.len() as i64);
    for row in rows {
        row.write(out, protocol);
    }
}

/// The text of a score: the shortest that reads back to the same number.
pub(super) fn number_text(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    if number == number.trunc() && number.abs() < 1e17 {
        return format!("{}", number as i64);
    }
    let exponent = number.abs().log10().floor();
    if (-5.0..17.0).contains(&exponent) {
        return format!("{number}");
    }
    let text = format!("{number:e}");
    match text.split_once('e') {
        Some((digits, power)) if !power.starts_with('-') => format!("{digits}e+{power}"),
        _ => text,
    }
}
