//! A hash whose fields get other expiries, or lose those that are past their time.

use redis_migrate_format::record::{Family, Value};

use super::decode::{BackLengths, Reader, check, read};
use super::encode::{FieldTtlForm, Forms, Packing, encode};
use super::error::PayloadError;
use super::metadata::{split_metadata, type_byte};
use super::object::{Object, StreamForm};
use crate::dialect::Encoding;

/// What becomes of a field that expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldFate {
    /// It expires at this moment, Unix ms; `None` for never.
    Expires(Option<u64>),
    /// It is left out.
    Goes,
}

/// A hash that was written anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refielded {
    /// Metadata, if it had some, type byte and body, of the same family.
    pub value: Vec<u8>,
    /// Fields that were left out.
    pub gone: u64,
    /// Fields in it. Without any there is no such hash, and `value` is not to be used.
    pub left: u64,
}

/// The body of a value whose fields may expire. `None` for every other value, for one that is not
/// kept, and for one that is damaged, which is named where values are made ready.
pub fn body_with_field_expiry(family: Family, value: &Value) -> Option<&[u8]> {
    if !has_field_expiry(family, type_byte(family, value.head())?) {
        return None;
    }
    match value {
        Value::Compact(body) => Some(body),
        Value::Verbatim(dump) => super::split(dump).ok().map(|(body, _)| body),
        Value::Withheld(_) => None,
    }
}

/// When the last field of a hash expires, and the hash with it, Unix ms; the inner `None` if never,
/// the outer one where the value is no hash of expiring fields that can be read.
pub fn last_field_ms(family: Family, value: &Value) -> Option<Option<u64>> {
    let body = body_with_field_expiry(family, value)?;
    let Ok(Reader::Hash(fields)) = super::read(family, body) else {
        return None;
    };
    let mut last_ms = Some(0);
    for field in fields {
        let expire_at_ms = field.ok()?.expire_at_ms;
        last_ms = last_ms.zip(expire_at_ms).map(|(one, other)| one.max(other));
    }
    Some(last_ms)
}

/// Whether values of this type are hashes whose fields may expire.
fn has_field_expiry(family: Family, type_byte: u8) -> bool {
    Encoding::of(family, type_byte).is_some_and(Encoding::has_field_ttls)
}

/// Writes a hash anew if one of its fields has another fate than to expire when it does. `None` if
/// nothing changes.
///
/// # Errors
/// What [`check`] finds.
pub fn refield(
    family: Family,
    value: &[u8],
    fate: impl Fn(u64) -> FieldFate,
) -> Result<Option<Refielded>, PayloadError> {
    let (metadata, value) = split_metadata(family, value)?;
    let type_byte = value.first().copied().unwrap_or(u8::MAX);
    if !has_field_expiry(family, type_byte) || check(family, value)?.expiring_fields == 0 {
        return Ok(None);
    }
    let Reader::Hash(fields) = read(family, value)? else {
        return Ok(None);
    };
    let (mut rows, mut gone, mut changes) = (Vec::new(), 0, false);
    for field in fields {
        let mut field = field?;
        let Some(at_ms) = field.expire_at_ms else {
            rows.push(field);
            continue;
        };
        match fate(at_ms) {
            FieldFate::Goes => gone += 1,
            FieldFate::Expires(then) => {
                changes |= then != field.expire_at_ms;
                field.expire_at_ms = then;
                rows.push(field);
            }
        }
    }
    if gone == 0 && !changes {
        return Ok(None);
    }
    let left = rows.len() as u64;
    let mut value = Vec::with_capacity(metadata.len() + value.len());
    // What modules keep beside it stays.
    value.extend_from_slice(metadata);
    let _losses = encode(&Object::Hash(rows), forms(family), &mut value);
    Ok(Some(Refielded { value, gone, left }))
}

/// Forms that every server of the family has which has fields that expire.
fn forms(family: Family) -> Forms {
    Forms {
        stream: StreamForm::V3,
        field_ttl: match family {
            Family::Valkey => FieldTtlForm::Valkey,
            _ => FieldTtlForm::Redis,
        },
        back_lengths: BackLengths::default(),
        packing: Packing::None,
        intsets: false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::object::Field;
    use super::*;

    fn hash(family: Family, fields: &[(&str, Option<u64>)]) -> Vec<u8> {
        let fields = fields.iter().map(|(name, expire_at_ms)| Field {
            name: name.as_bytes().to_vec().into(),
            value: b"v".to_vec().into(),
            expire_at_ms: *expire_at_ms,
        });
        let mut value = Vec::new();
        let _losses = encode(&Object::Hash(fields.collect()), forms(family), &mut value);
        value
    }

    fn fields(family: Family, value: &[u8]) -> Vec<(String, Option<u64>)> {
        let Reader::Hash(fields) = read(family, value).unwrap() else {
            panic!("a hash");
        };
        fields
            .map(|field| field.unwrap())
            .map(|field| {
                (
                    String::from_utf8_lossy(&field.name).into(),
                    field.expire_at_ms,
                )
            })
            .collect()
    }

    #[test]
    fn fields_move_stay_and_go_in_both_families() {
        for family in [Family::Redis, Family::Valkey] {
            let value = hash(family, &[("a", Some(100)), ("b", None), ("c", Some(300))]);
            let fate = |at_ms| match at_ms {
                100 => FieldFate::Goes,
                at_ms => FieldFate::Expires(Some(at_ms + 5)),
            };
            let done = refield(family, &value, fate).unwrap().unwrap();
            assert_eq!((done.gone, done.left), (1, 2));
            let due = [("b".to_owned(), None), ("c".to_owned(), Some(305))];
            assert_eq!(fields(family, &done.value), due);
            let dropped = refield(family, &value, |_| FieldFate::Expires(None));
            let dropped = dropped.unwrap().unwrap().value;
            assert_eq!(dropped[0], 4, "a plain hash");
            assert!(
                fields(family, &dropped)
                    .iter()
                    .all(|(_, expiry)| expiry.is_none())
            );
            let same = refield(family, &value, |at_ms| FieldFate::Expires(Some(at_ms)));
            assert_eq!(same.unwrap(), None);
            let all = hash(family, &[("a", Some(1))]);
            assert_eq!(
                refield(family, &all, |_| FieldFate::Goes)
                    .unwrap()
                    .unwrap()
                    .left,
                0
            );
        }
    }

    #[test]
    fn other_values_are_left_as_they_are_and_damage_is_an_error() {
        let goes = |_| FieldFate::Goes;
        assert_eq!(refield(Family::Redis, b"\x00\x01a", goes).unwrap(), None);
        // Type 22 of the other family, and 24 of Valkey, are nothing that is known.
        assert_eq!(refield(Family::Other, &[22, 0], goes).unwrap(), None);
        let mut cut = hash(Family::Redis, &[("a", Some(100)), ("b", None)]);
        cut.pop();
        assert!(refield(Family::Redis, &cut, goes).is_err());
    }
}
