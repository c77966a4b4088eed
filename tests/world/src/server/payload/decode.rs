//! Reads payloads as a version's RESTORE does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::release::{Release, Since};
use super::super::value::{Field, Module, Value};
use super::listpack::{self, Element};
use super::{PayloadError, lzf, module_type_name, packed, stream};

/// Bytes that are read from the front.
pub(super) struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub fn u64_le(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    pub fn f64_le(&mut self) -> Option<f64> {
        self.u64_le().map(f64::from_bits)
    }

    /// A length; of an encoded string, its encoding.
    fn head(&mut self) -> Option<Result<u64, u8>> {
        let first = self.byte()?;
        Some(match first {
            0..=63 => Ok(u64::from(first)),
            64..=127 => Ok(u64::from(first & 63) << 8 | u64::from(self.byte()?)),
            0x80 => Ok(u64::from(u32::from_be_bytes(
                self.take(4)?.try_into().ok()?,
            ))),
            0x81 => Ok(u64::from_be_bytes(self.take(8)?.try_into().ok()?)),
            192..=255 => Err(first & 63),
            _ => return None,
        })
    }

    pub fn length(&mut self) -> Option<u64> {
        self.head()?.ok()
    }

    pub fn string(&mut self) -> Option<Vec<u8>> {
        let number = |number: i64| Some(number.to_string().into_bytes());
        match self.head()? {
            Ok(length) => Some(self.take(usize::try_from(length).ok()?)?.to_vec()),
            Err(0) => number(i64::from(self.byte()? as i8)),
            Err(1) => number(i64::from(i16::from_le_bytes(
                self.take(2)?.try_into().ok()?,
            ))),
            Err(2) => number(i64::from(i32::from_le_bytes(
                self.take(4)?.try_into().ok()?,
            ))),
            Err(3) => {
                let packed = usize::try_from(self.length()?).ok()?;
                let plain = usize::try_from(self.length()?).ok()?;
                lzf::expand(self.take(packed)?, plain)
            }
            Err(_) => None,
        }
    }

    fn strings(&mut self) -> Option<Vec<Vec<u8>>> {
        (0..self.length()?).map(|_| self.string()).collect()
    }
}

/// Whether the version knows the type.
fn knows(release: &Release, kind: u8) -> bool {
    match kind {
        0..=5 | 9..=15 => true,
        16..=19 => release.has(Since::R70),
        20 | 21 => release.has(Since::R72),
        22 => release.is_valkey() && release.has(Since::FieldTtl),
        24 | 25 => !release.is_valkey() && release.has(Since::FieldTtl),
        26 => release.has(Since::R86),
        _ => false,
    }
}

pub(super) fn value(
    release: &Release,
    body: &[u8],
    modules: &[&str],
) -> Result<Value, PayloadError> {
    let mut input = Input(body);
    let kind = input.byte().ok_or(PayloadError::BadData)?;
    if kind == 7 {
        return module(release, &mut input, modules);
    }
    if !knows(release, kind) {
        return Err(PayloadError::BadData);
    }
    let value = plain(&mut input, kind).ok_or(PayloadError::BadData)?;
    let may_be_empty = !release.has(Since::R62);
    match value.is_empty() && !may_be_empty {
        true => Err(PayloadError::BadData),
        false => Ok(value),
    }
}

fn module(
    release: &Release,
    input: &mut Input<'_>,
    modules: &[&str],
) -> Result<Value, PayloadError> {
    let id = input.length().ok_or(PayloadError::BadData)?;
    let name = module_type_name(id);
    if !modules.contains(&name.as_str()) {
        return Err(match release.has(Since::R62) {
            true => PayloadError::BadData,
            false => PayloadError::KillsServer,
        });
    }
    let whole = input.0;
    loop {
        let left = input.0.len();
        let is_read = match input.length() {
            Some(0) => {
                let data = whole[..whole.len() - left].to_vec();
                return Ok(Value::Module(Module { id, data }));
            }
            Some(1 | 2) => input.length().is_some(),
            Some(3) => input.take(4).is_some(),
            Some(4) => input.take(8).is_some(),
            Some(5) => input.string().is_some(),
            _ => false,
        };
        if !is_read {
            return Err(PayloadError::BadData);
        }
    }
}

fn plain(input: &mut Input<'_>, kind: u8) -> Option<Value> {
    match kind {
        0 => input.string().map(Value::String),
        1 => Some(Value::List(input.strings()?.into())),
        2 => set(input.strings()?),
        3 | 5 => {
            let count = input.length()?;
            let member = |input: &mut Input<'_>| {
                let name = input.string()?;
                let score = if kind == 5 {
                    input.f64_le()?
                } else {
                    old_score(input)?
                };
                Some((name, score))
            };
            sorted_set(
                (0..count)
                    .map(|_| member(input))
                    .collect::<Option<Vec<_>>>()?,
            )
        }
        4 => {
            let rows = (0..input.length()?).map(|_| Some((input.string()?, input.string()?, None)));
            hash(rows.collect::<Option<Vec<_>>>()?)
        }
        9 => pairs(packed::zipmap(&input.string()?)?),
        10 => list(packed::ziplist(&input.string()?)?),
        11 => set(packed::intset(&input.string()?)?
            .into_iter()
            .map(|row| row.to_string().into())
            .collect()),
        12 => scores(packed::ziplist(&input.string()?)?),
        13 => pairs(packed::ziplist(&input.string()?)?),
        14 => {
            let packs = input.strings()?;
            let rows: Option<Vec<_>> = packs.iter().map(|pack| packed::ziplist(pack)).collect();
            list(rows?.into_iter().flatten().collect())
        }
        16 => pairs(listpack::read(&input.string()?)?),
        17 => scores(listpack::read(&input.string()?)?),
        18 => quicklist(input),
        20 => set(listpack::read(&input.string()?)?
            .into_iter()
            .map(Element::into_text)
            .collect()),
        22 => {
            let row = |input: &mut Input<'_>| {
                let (name, value) = (input.string()?, input.string()?);
                let at = input.u64_le()? as i64;
                Some((name, value, u64::try_from(at).ok()))
            };
            hash(
                (0..input.length()?)
                    .map(|_| row(input))
                    .collect::<Option<Vec<_>>>()?,
            )
        }
        24 => {
            let first = input.u64_le()?;
            let row = |input: &mut Input<'_>| {
                let ttl = input.length()?;
                let at = (ttl > 0).then(|| first.wrapping_add(ttl - 1));
                Some((input.string()?, input.string()?, at))
            };
            hash(
                (0..input.length()?)
                    .map(|_| row(input))
                    .collect::<Option<Vec<_>>>()?,
            )
        }
        25 => {
            input.u64_le()?;
            triples(listpack::read(&input.string()?)?)
        }
        15 | 19 | 21 | 26 => stream::read(input, kind).map(|found| Value::Stream(Box::new(found))),
        _ => None,
    }
}

fn old_score(input: &mut Input<'_>) -> Option<f64> {
    match input.byte()? {
        253 => Some(f64::NAN),
        254 => Some(f64::INFINITY),
        255 => Some(f64::NEG_INFINITY),
        length => std::str::from_utf8(input.take(usize::from(length))?)
            .ok()?
            .parse()
            .ok(),
    }
}

fn quicklist(input: &mut Input<'_>) -> Option<Value> {
    let mut rows = VecDeque::new();
    for _ in 0..input.length()? {
        let form = input.length()?;
        let node = input.string()?;
        match form {
            1 => rows.push_back(node),
            2 => rows.extend(listpack::read(&node)?.into_iter().map(Element::into_text)),
            _ => return None,
        }
    }
    Some(Value::List(rows))
}

fn list(rows: Vec<Element>) -> Option<Value> {
    Some(Value::List(
        rows.into_iter().map(Element::into_text).collect(),
    ))
}

fn set(rows: Vec<Vec<u8>>) -> Option<Value> {
    let count = rows.len();
    let rows: BTreeSet<_> = rows.into_iter().collect();
    (rows.len() == count).then_some(Value::Set(rows))
}

fn sorted_set(rows: Vec<(Vec<u8>, f64)>) -> Option<Value> {
    let count = rows.len();
    if rows.iter().any(|(_, score)| score.is_nan()) {
        return None;
    }
    let rows: BTreeMap<_, _> = rows.into_iter().collect();
    (rows.len() == count).then_some(Value::ZSet(rows))
}

fn hash(rows: Vec<(Vec<u8>, Vec<u8>, Option<u64>)>) -> Option<Value> {
    let count = rows.len();
    let field = |(name, value, expire_at)| (name, Field { value, expire_at });
    let rows: BTreeMap<_, _> = rows.into_iter().map(field).collect();
    (rows.len() == count).then_some(Value::Hash(rows))
}

fn pairs(rows: Vec<Element>) -> Option<Value> {
    let rows: Vec<Vec<u8>> = rows.into_iter().map(Element::into_text).collect();
    let (pairs, rest) = rows.as_chunks::<2>();
    let pair = |[name, value]: &[Vec<u8>; 2]| (name.clone(), value.clone(), None);
    rest.is_empty()
        .then(|| hash(pairs.iter().map(pair).collect()))?
}

fn triples(rows: Vec<Element>) -> Option<Value> {
    let (triples, rest) = rows.as_chunks::<3>();
    let mut found = Vec::new();
    for [name, value, at] in triples {
        let at = u64::try_from(at.number()?).ok()?;
        let text = |element: &Element| element.clone().into_text();
        found.push((text(name), text(value), (at > 0).then_some(at)));
    }
    rest.is_empty().then(|| hash(found))?
}

fn scores(rows: Vec<Element>) -> Option<Value> {
    let (pairs, rest) = rows.as_chunks::<2>();
    let mut found = Vec::new();
    for [name, score] in pairs {
        let score = score.clone().into_text();
        let score = std::str::from_utf8(&score).ok()?.parse().ok()?;
        found.push((name.clone().into_text(), score));
    }
    rest.is_empty().then(|| sorted_set(found))?
}
