//! Time series of RedisTimeSeries: a module's value whose layout is known, because DUMP leaves out
//! what an RDB file has, its compaction rules, so that the same series has two forms.
//!
//! `name, retention, chunk size, options, last timestamp, last value, samples, duplicate policy,
//! whether it is compacted from another series, that one's name`, from version 8 on `the greatest
//! differences that are ignored, of time and of value`; then `count of labels, name and value of each,
//! count of rules, each rule, count of chunks, each chunk` (RedisTimeSeries, src/rdb.c, version 8 seen
//! at a Redis Stack 7.4, versions 5 to 7 by the source only). A rule is a name, four numbers and
//! numbers of its aggregation. A chunk is numbers and at last the samples, three numbers where the
//! series is not compressed, else ten.

use super::text::text;
use crate::dialect::Encoding;
use crate::payload::object::Bytes;
use crate::payload::source::{Slice, Source};
use crate::payload::walk::{length, module_name};
use crate::payload::{ErrorKind, PayloadError};

/// The data type of time series.
pub const SERIES_TYPE: &str = "TSDB-TYPE";

/// Versions of the layout that are read.
const VERSIONS: std::ops::RangeInclusive<u64> = 5..=8;

/// From this version on a series has differences that are ignored.
const HAS_IGNORED: u64 = 8;

/// The option of series that are not compressed.
const UNCOMPRESSED: u64 = 1;

/// Bytes of a sample of such a series. What stands behind its samples is whatever was in memory.
const SAMPLE_BYTES: u64 = 16;

/// A time series, as far as two of them are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeSeries<'a> {
    /// Samples in it.
    pub samples: u64,
    /// Settings, labels and chunks. Not its name, which RESTORE sets anew.
    own: Vec<Item<'a>>,
    /// The rules, and the name of the series that it is compacted from. DUMP leaves them out.
    references: Vec<Item<'a>>,
    has_source: bool,
    rules: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Item<'a> {
    Number(u64),
    Text(Bytes<'a>),
}

impl Item<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Number(number) => {
                out.push(0);
                out.extend_from_slice(&number.to_le_bytes());
            }
            Self::Text(text) => {
                out.push(1);
                out.extend_from_slice(&(text.len() as u64).to_le_bytes());
                out.extend_from_slice(text);
            }
        }
    }
}

fn bytes_of(items: &[Item<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    items.iter().for_each(|item| item.put(&mut out));
    out
}

impl TimeSeries<'_> {
    /// Bytes that are the same for the same settings, labels and samples.
    pub fn own(&self) -> Vec<u8> {
        bytes_of(&self.own)
    }

    /// Bytes that stand for the rules and for where it is compacted from; `None` where it says nothing
    /// of either, which each series does that comes from DUMP.
    pub fn references(&self) -> Option<Vec<u8>> {
        (!self.is_silent()).then(|| bytes_of(&self.references))
    }

    /// Compaction rules that it says it has.
    pub fn rules(&self) -> u64 {
        self.rules
    }

    /// Whether it says nothing of rules, nor of where it is compacted from.
    pub fn is_silent(&self) -> bool {
        !self.has_source && self.rules == 0
    }

    /// Whether both may be the same series. What only one of them says of rules counts for nothing.
    pub fn is_like(&self, other: &Self) -> bool {
        self.own == other.own
            && (self.is_silent() || other.is_silent() || self.references == other.references)
    }
}

/// Reads a time series; `None` for everything else, and for layouts that are not known.
pub fn time_series(value: &[u8]) -> Option<TimeSeries<'_>> {
    let (&type_byte, body) = value.split_first()?;
    if type_byte != Encoding::Module.type_byte() {
        return None;
    }
    let mut source = Slice::new(body);
    let id = length(&mut source).ok()?;
    let version = id & 0x3ff;
    if module_name(id) != SERIES_TYPE || !VERSIONS.contains(&version) {
        return None;
    }
    read(source, version).ok()
}

fn read(mut source: Slice<'_>, version: u64) -> Result<TimeSeries<'_>, PayloadError> {
    let (mut own, mut references) = (Vec::new(), Vec::new());
    text_item(&mut source)?;
    let [retention, chunk_bytes, options, last_ms] = numbers(&mut source)?;
    own.extend([retention, chunk_bytes, options, last_ms].map(Item::Number));
    let [last, samples, policy, has_source] = numbers(&mut source)?;
    own.extend([last, samples, policy].map(Item::Number));
    references.push(Item::Number(has_source));
    if has_source != 0 {
        references.push(Item::Text(text_item(&mut source)?));
    }
    let ignored: [u64; 2] = match version < HAS_IGNORED {
        true => [0, 0],
        false => numbers(&mut source)?,
    };
    own.extend(ignored.map(Item::Number));
    let [labels] = numbers(&mut source)?;
    own.push(Item::Number(labels));
    for _ in 0..labels {
        own.push(Item::Text(text_item(&mut source)?));
        own.push(Item::Text(text_item(&mut source)?));
    }
    let [rules] = numbers(&mut source)?;
    let is_compressed = options & UNCOMPRESSED == 0;
    let mut left = items(&mut source)?;
    let chunks = chunks_of(&mut left, rules, is_compressed)
        .ok_or_else(|| source.error(ErrorKind::ModuleItem(rules)))?;
    references.append(&mut left);
    own.extend(chunks);
    Ok(TimeSeries {
        samples,
        own,
        references,
        has_source: has_source != 0,
        rules,
    })
}

/// Takes the chunks off the end of what rules and chunks are. Only a rule's name and a chunk's samples
/// are text, so that the number of chunks is known before they are found.
fn chunks_of<'a>(
    items: &mut Vec<Item<'a>>,
    rules: u64,
    is_compressed: bool,
) -> Option<Vec<Item<'a>>> {
    let texts = items.iter().filter(|item| matches!(item, Item::Text(_)));
    let chunks = (texts.count() as u64).checked_sub(rules)?;
    let numbers = if is_compressed { 10 } else { 3 };
    let len = usize::try_from(chunks).ok()?.checked_mul(numbers + 1)?;
    let at = items.len().checked_sub(len + 1)?;
    let mut taken = items.split_off(at);
    let is_rule = |item: &Item<'_>| matches!(item, Item::Text(_));
    let has_rules = items.iter().filter(|item| is_rule(item)).count() as u64 == rules;
    if taken[0] != Item::Number(chunks) || !has_rules || rules == 0 && !items.is_empty() {
        return None;
    }
    for chunk in taken[1..].chunks_mut(numbers + 1) {
        let (last, before) = chunk.split_last_mut()?;
        let Item::Text(samples) = last else {
            return None;
        };
        if !is_compressed {
            let Item::Number(count) = before[1] else {
                return None;
            };
            let used = usize::try_from(count.checked_mul(SAMPLE_BYTES)?).ok()?;
            *samples = samples.get(..used)?.to_vec().into();
        }
    }
    Some(taken)
}

/// All items up to the end mark, behind which nothing stands.
fn items<'a>(source: &mut Slice<'a>) -> Result<Vec<Item<'a>>, PayloadError> {
    let mut all = Vec::new();
    while let Some(item) = item(source)? {
        all.push(item);
    }
    source.end()?;
    Ok(all)
}

/// The next item; a double is the number of its bits. `None` at the end mark.
fn item<'a>(source: &mut Slice<'a>) -> Result<Option<Item<'a>>, PayloadError> {
    // Kinds of items in a module's value (module.c, RDB_MODULE_OPCODE).
    Ok(Some(match length(source)? {
        0 => return Ok(None),
        1 | 2 => Item::Number(length(source)?),
        4 => Item::Number(u64::from_le_bytes(source.array()?)),
        5 => Item::Text(text(source)?),
        other => return Err(source.error(ErrorKind::ModuleItem(other))),
    }))
}

fn numbers<const N: usize>(source: &mut Slice<'_>) -> Result<[u64; N], PayloadError> {
    let mut all = [0; N];
    for number in &mut all {
        *number = match item(source)? {
            Some(Item::Number(number)) => number,
            _ => return Err(source.error(ErrorKind::ModuleItem(0))),
        };
    }
    Ok(all)
}

fn text_item<'a>(source: &mut Slice<'a>) -> Result<Bytes<'a>, PayloadError> {
    match item(source)? {
        Some(Item::Text(text)) => Ok(text),
        _ => Err(source.error(ErrorKind::ModuleItem(0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value with these items; text where it is quoted.
    fn value(version: u8, items: &str) -> Vec<u8> {
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let name = SERIES_TYPE.chars().fold(0, |id: u64, letter| {
            id << 6 | alphabet.find(letter).expect("a letter") as u64
        });
        let mut out = vec![7, 0x81];
        out.extend_from_slice(&(name << 10 | u64::from(version)).to_be_bytes());
        for item in items.split_whitespace() {
            if let Some(text) = item.strip_prefix('"') {
                out.extend([5, text.len() as u8]);
                out.extend_from_slice(text.as_bytes());
            } else if let Some(double) = item.strip_suffix('d') {
                out.push(4);
                let double: f64 = double.parse().expect("a number");
                out.extend_from_slice(&double.to_le_bytes());
            } else {
                out.extend([2, item.parse().expect("a number")]);
            }
        }
        out.push(0);
        out
    }

    fn series(rules: &str, last: u8) -> Vec<u8> {
        let head = r#""s 0 48 2 40 4.5d 4 0 0 0 0d 1 "of "t"#;
        let chunk = format!(r#"1 48 4 9 1 2 3 4 5 6 {last} "samples"#);
        value(8, &format!("{head} {rules} {chunk}"))
    }

    const RULES: &str = r#"2 "avg 60 0 4 12 8d 2d 0 "min 60 0 1 12 -1d 3d"#;

    #[test]
    fn a_series_is_the_same_with_rules_and_without() {
        let (with, without) = (series(RULES, 7), series("0", 7));
        let read = |value| time_series(value).expect("a series");
        assert_eq!(read(&with).own(), read(&without).own());
        assert_eq!((read(&with).rules(), read(&with).samples), (2, 4));
        assert_eq!(read(&without).references(), None);
        assert!(read(&with).references().is_some());
        assert!(read(&with).is_like(&read(&without)));
        // Other samples, and other rules where both say some, are another series.
        let other = series("0", 8);
        assert!(!read(&with).is_like(&read(&other)));
        let fewer = series(r#"1 "avg 60 0 4 12 8d 2d 0"#, 7);
        assert!(!read(&with).is_like(&read(&fewer)));
        assert!(read(&fewer).is_like(&read(&without)));
        // Layouts that are not known, and counts that are not right.
        assert_eq!(time_series(&value(9, "1")), None);
        assert_eq!(time_series(&series("1", 7)), None);
        assert_eq!(time_series(&series(r#"1 "a 1 "b 2"#, 7)), None);
        for len in 0..with.len() {
            assert_eq!(time_series(&with[..len]), None, "cut to {len}");
        }
    }

    #[test]
    fn what_stands_behind_samples_that_are_not_compressed_counts_for_nothing() {
        let of = |rest: &str| {
            let samples = format!("sixteen_bytes,_1{rest}");
            value(
                8,
                &format!(r#""u 0 48 1 5 6d 1 0 1 "s 0 0d 0 0 1 5 1 48 "{samples}"#),
            )
        };
        let (one, other) = (of("xxxx"), of("yyyy"));
        let (one, other) = (time_series(&one), time_series(&other));
        assert!(one.is_some());
        assert_eq!(one, other);
        let short = value(8, r#""u 0 48 1 5 6d 1 0 0 0 0d 0 0 1 5 1 48 "short"#);
        assert_eq!(time_series(&short), None);
    }
}
