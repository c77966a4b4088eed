//! Writes values as a version's DUMP does.

use std::collections::BTreeMap;

use super::super::release::{Release, Since};
use super::super::reply::number_text;
use super::super::value::{Field, Value};
use super::{listpack, packed, put_length, put_string, stream};

/// Sizes up to which values are kept in packed forms.
const MAX_ROWS: usize = 128;
const MAX_BYTES: usize = 64;

pub(super) fn value(release: &Release, value: &Value, compact: bool, out: &mut Vec<u8>) {
    let is_7 = compact && release.has(Since::R70);
    match value {
        Value::String(string) => {
            out.push(0);
            put_string(out, string);
        }
        Value::List(rows) if is_7 => {
            out.push(18);
            let mut packs = vec![listpack::Writer::new()];
            for row in rows {
                if packs.last().is_some_and(|pack| pack.len() > 4096) {
                    packs.push(listpack::Writer::new());
                }
                if let Some(pack) = packs.last_mut() {
                    pack.text(row);
                }
            }
            put_length(out, packs.len() as u64);
            for pack in packs {
                put_length(out, 2);
                put_string(out, &pack.finish());
            }
        }
        Value::List(rows) => strings(1, rows.len(), rows.iter(), out),
        Value::Set(rows) => {
            let numbers: Option<Vec<i64>> = rows.iter().map(|row| listpack::integer(row)).collect();
            let is_small =
                compact && rows.len() <= MAX_ROWS && rows.iter().all(|row| row.len() <= MAX_BYTES);
            match numbers {
                Some(mut numbers) if compact && rows.len() <= 512 => {
                    numbers.sort_unstable();
                    out.push(11);
                    put_string(out, &packed::put_intset(&numbers));
                }
                _ if is_small && release.has(Since::R72) => {
                    pack(20, rows.iter().map(Vec::as_slice), out)
                }
                _ => strings(2, rows.len(), rows.iter(), out),
            }
        }
        Value::ZSet(members) => sorted_set(members, is_7, out),
        Value::Hash(fields) => hash(release, fields, is_7, out),
        Value::Stream(found) => stream::put(release, found, out),
        Value::Module(module) => {
            out.push(7);
            put_length(out, module.id);
            out.extend_from_slice(&module.data);
            out.push(0);
        }
    }
}

fn strings<'a>(kind: u8, count: usize, rows: impl Iterator<Item = &'a Vec<u8>>, out: &mut Vec<u8>) {
    out.push(kind);
    put_length(out, count as u64);
    for row in rows {
        put_string(out, row);
    }
}

fn pack<'a>(kind: u8, rows: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    let mut pack = listpack::Writer::new();
    for row in rows {
        pack.text(row);
    }
    out.push(kind);
    put_string(out, &pack.finish());
}

fn sorted_set(members: &BTreeMap<Vec<u8>, f64>, compact: bool, out: &mut Vec<u8>) {
    let mut sorted: Vec<(&Vec<u8>, f64)> =
        members.iter().map(|(name, score)| (name, *score)).collect();
    sorted.sort_by(|one, next| one.1.total_cmp(&next.1).then(one.0.cmp(next.0)));
    let is_small =
        sorted.len() <= MAX_ROWS && sorted.iter().all(|(name, _)| name.len() <= MAX_BYTES);
    if compact && is_small {
        let mut pack = listpack::Writer::new();
        for (name, score) in sorted {
            pack.text(name);
            pack.text(number_text(score).as_bytes());
        }
        out.push(17);
        return put_string(out, &pack.finish());
    }
    out.push(5);
    put_length(out, sorted.len() as u64);
    for (name, score) in sorted.iter().rev() {
        put_string(out, name);
        out.extend_from_slice(&score.to_le_bytes());
    }
}

fn hash(release: &Release, fields: &BTreeMap<Vec<u8>, Field>, compact: bool, out: &mut Vec<u8>) {
    let expires = fields.values().filter_map(|field| field.expire_at).min();
    match expires {
        Some(_) if release.is_valkey() => {
            out.push(22);
            put_length(out, fields.len() as u64);
            for (name, field) in fields {
                put_string(out, name);
                put_string(out, &field.value);
                let at = field.expire_at.map_or(-1, |at| at as i64);
                out.extend_from_slice(&at.to_le_bytes());
            }
        }
        Some(first) => {
            out.push(24);
            out.extend_from_slice(&first.to_le_bytes());
            put_length(out, fields.len() as u64);
            for (name, field) in fields {
                put_length(out, field.expire_at.map_or(0, |at| at - first + 1));
                put_string(out, name);
                put_string(out, &field.value);
            }
        }
        None => {
            let is_short = |row: &[u8]| row.len() <= MAX_BYTES;
            let is_small = fields.len() <= MAX_ROWS
                && fields
                    .iter()
                    .all(|(name, field)| is_short(name) && is_short(&field.value));
            if compact && is_small {
                let rows = fields
                    .iter()
                    .flat_map(|(name, field)| [&name[..], &field.value[..]]);
                return pack(16, rows, out);
            }
            out.push(4);
            put_length(out, fields.len() as u64);
            for (name, field) in fields {
                put_string(out, name);
                put_string(out, &field.value);
            }
        }
    }
}
