//! What commands have in common: numbers as words, and the errors that many give.

use super::super::Server;
use super::super::release::Since;
use super::super::reply::Reply;

pub(super) const WRONG_TYPE: Reply =
    error("WRONGTYPE Operation against a key holding the wrong kind of value");
pub(super) const SYNTAX: Reply = error("ERR syntax error");
pub(super) const NOT_INTEGER: Reply = error("ERR value is not an integer or out of range");
pub(super) const NOT_FLOAT: Reply = error("ERR value is not a valid float");
pub(super) const NO_KEY: Reply = error("ERR no such key");
pub(super) const OUT_OF_RANGE: Reply = error("ERR index out of range");

/// An error.
pub(super) const fn error(text: &'static str) -> Reply {
    Reply::Error(std::borrow::Cow::Borrowed(text))
}

/// The error of a command with too few or too many words.
pub(super) fn wrong_count(name: &str) -> Reply {
    Reply::error(format!(
        "ERR wrong number of arguments for '{name}' command"
    ))
}

/// A number as servers read it: digits in their shortest form.
pub(super) fn integer(word: &[u8]) -> Option<i64> {
    if word.len() > 20 || word.first() == Some(&b'+') {
        return None;
    }
    let number: i64 = std::str::from_utf8(word).ok()?.parse().ok()?;
    let is_short = match word {
        [b'0'] => true,
        [b'0', ..] | [b'-', b'0', ..] => false,
        _ => true,
    };
    is_short.then_some(number)
}

/// A number that is not negative.
pub(super) fn natural(word: &[u8]) -> Option<u64> {
    integer(word).and_then(|number| u64::try_from(number).ok())
}

/// A floating-point number.
pub(super) fn float(word: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(word).ok()?;
    if text.is_empty()
        || text.starts_with(char::is_whitespace)
        || text.ends_with(char::is_whitespace)
    {
        return None;
    }
    let number: f64 = text.parse().ok()?;
    (!number.is_nan()).then_some(number)
}

/// Whether the word is this one, in capitals or not.
pub(super) fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

/// A database's number, or the error of one that cannot be.
pub(super) fn database(server: &Server, word: &[u8]) -> Result<u32, Reply> {
    let is_6_2 = server.release().has(Since::R62);
    let number = match integer(word) {
        None if is_6_2 => return Err(NOT_INTEGER),
        None => return Err(error("ERR invalid DB index")),
        Some(number) => number,
    };
    if is_6_2 && i32::try_from(number).is_err() {
        return Err(error(
            "ERR value is out of range, value must between -2147483648 and 2147483647",
        ));
    }
    let known = u32::try_from(number)
        .ok()
        .filter(|db| *db < server.keyspace.databases());
    known.ok_or(error("ERR DB index is out of range"))
}

/// The part of a list of `length` that two indexes name, counted from the end if negative.
pub(super) fn range(start: i64, end: i64, length: usize) -> std::ops::Range<usize> {
    let length = length as i64;
    let from_end = |index: i64| if index < 0 { index + length } else { index };
    let start = from_end(start).max(0);
    let end = from_end(end).min(length - 1);
    match start > end || start >= length {
        true => 0..0,
        false => start as usize..end as usize + 1,
    }
}

/// A word as text, for messages.
pub(super) fn text(word: &[u8]) -> String {
    String::from_utf8_lossy(word).into_owned()
}
