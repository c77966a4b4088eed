//! What of two answers has to be the same.

use redis_migrate_world::server::{self, Release};

use super::resp::Value;

/// A command as a line.
pub fn shown(words: &[Vec<u8>]) -> String {
    let words = words.iter().map(|word| match word.is_empty() {
        true => "''".to_owned(),
        false => word.escape_ascii().to_string(),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The names of invalidations; `None` for everything.
pub type Names = Vec<Option<Vec<u8>>>;

/// The names of invalidations, sorted.
pub fn names(pushes: Vec<Value>) -> Names {
    let mut names = Vec::new();
    for push in pushes {
        let Value::Push(parts) = push else { continue };
        match &parts[1] {
            Value::Array(rows) => names.extend(rows.iter().map(|row| match row {
                Value::Bulk(name) => Some(name.clone()),
                other => panic!("a name that is none: {other:?}"),
            })),
            _ => names.push(None),
        }
    }
    names.sort();
    names.dedup();
    names
}

/// What a payload holds; times at which consumers were seen are left out.
pub fn value(release: &Release, payload: &[u8]) -> Result<server::Value, server::PayloadError> {
    let modules = ["vectorset"];
    let mut value = server::restore(release, payload, &modules)?;
    if let server::Value::Stream(stream) = &mut value {
        for group in stream.groups.values_mut() {
            for consumer in group.consumers.values_mut() {
                consumer.seen = 0;
                consumer.active = consumer.active.map(|_| 0);
            }
            for pending in group.pending.values_mut() {
                // Those that were delivered just now, by either clock.
                if pending.delivered_at > 1_700_000_000_000 {
                    pending.delivered_at = 0;
                }
            }
        }
        for ids in stream.memory.producers.values_mut() {
            ids.clear();
        }
    }
    Ok(value)
}

/// Whether two payloads hold the same, times of fields a little apart.
pub fn same_value(
    real: &Result<server::Value, server::PayloadError>,
    model: &Result<server::Value, server::PayloadError>,
) -> bool {
    let (Ok(server::Value::Hash(real)), Ok(server::Value::Hash(model))) = (real, model) else {
        return real == model;
    };
    real.len() == model.len()
        && real
            .iter()
            .zip(model)
            .all(|((name, field), (other_name, other))| {
                let at = |field: &server::Field| field.expire_at.map_or(-1, |at| at as i64);
                name == other_name
                    && field.value == other.value
                    && field.expire_at.is_some() == other.expire_at.is_some()
                    && (at(field) - at(other)).abs() <= APART_MS
            })
}

fn is_any(word: &str, of: &[&str]) -> bool {
    of.contains(&word)
}

/// An answer without what a server is free in.
pub fn normal(release: &Release, words: &[Vec<u8>], answer: Option<&Value>) -> Option<Value> {
    let name = |at: usize| {
        let word = words
            .get(at)
            .map(|word| String::from_utf8_lossy(word).to_lowercase());
        word.unwrap_or_default()
    };
    let (first, second) = (name(0), name(1));
    let full = format!("{first} {second}");
    let mut value = answer?.clone();
    if let Value::Error(text) = &value {
        return Some(Value::Error(error(text)));
    }
    if is_any(&first, &["smembers", "hkeys", "hvals", "keys", "spop"]) {
        value = sorted(value);
    }
    if full == "cluster slots" || full == "function list" {
        value = sorted(value);
    }
    if first == "hgetall" {
        value = sorted_pairs(value);
    }
    if is_any(&first, &["sscan", "scan"])
        && let Value::Array(parts) = value
    {
        let rows = parts.into_iter().skip(1).map(sorted);
        value = Value::Array(rows.collect());
    }
    if first == "dump"
        && let Value::Bulk(payload) = &value
    {
        let mut told = self::value(release, payload);
        // How far apart times may be is looked at when a script is over.
        if let Ok(server::Value::Hash(fields)) = &mut told {
            for field in fields.values_mut() {
                field.expire_at = field.expire_at.map(|_| 0);
            }
        }
        value = Value::Simple(format!("{told:?}"));
    }
    if is_any(
        &first,
        &[
            "zscore",
            "zincrby",
            "zrange",
            "zpopmin",
            "zadd",
            "incrbyfloat",
        ],
    ) {
        value = floats(value);
    }
    if is_any(&full, &["xinfo stream"]) {
        value = without(value, &["radix-tree-keys", "radix-tree-nodes"]);
    }
    // What counts towards the offset differs.
    if first == "role"
        && let Value::Array(parts) = &mut value
    {
        parts[1] = Value::Int(0);
    }
    if full == "xinfo consumers" {
        value = idle(value);
    }
    if first == "hello" {
        value = without(value, &["id"]);
    }
    if is_any(&first, &["exec"])
        && let Value::Array(rows) = value
    {
        value = Value::Array(rows.into_iter().map(sorted_if_set).collect());
    }
    if is_any(
        &full,
        &[
            "client id",
            "client list",
            "client info",
            "memory usage",
            "info commandstats",
        ],
    ) || is_any(&first, &["time", "randomkey", "lastsave"])
    {
        value = kind(&value);
    }
    if full == "object idletime" && matches!(value, Value::Int(..=60)) {
        value = Value::Int(0);
    }
    if full == "object encoding" && !matches!(value, Value::Nil) {
        value = kind(&value);
    }
    Some(value)
}

/// Hashes of scripts, and how far into a script something happened, are not ours.
fn error(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        let bare = word
            .trim_end_matches([',', ':', ')'])
            .trim_start_matches("f_");
        let is_hash = bare.len() == 40 && bare.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hash { "<sha>" } else { word }
    });
    words.collect::<Vec<_>>().join(" ").trim_end().to_owned()
}

fn key_of(value: &Value) -> String {
    format!("{value:?}")
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Array(mut rows) => {
            rows.sort_by_key(key_of);
            Value::Array(rows)
        }
        Value::Set(mut rows) => {
            rows.sort_by_key(key_of);
            Value::Set(rows)
        }
        other => other,
    }
}

fn sorted_if_set(value: Value) -> Value {
    match value {
        set @ Value::Set(_) => sorted(set),
        other => other,
    }
}

fn sorted_pairs(value: Value) -> Value {
    match value {
        Value::Array(rows) => {
            let mut pairs: Vec<_> = rows.chunks(2).map(<[Value]>::to_vec).collect();
            pairs.sort_by_key(|pair| key_of(&pair[0]));
            Value::Array(pairs.concat())
        }
        Value::Map(mut pairs) => {
            pairs.sort_by_key(|(name, _)| key_of(name));
            Value::Map(pairs)
        }
        other => other,
    }
}

/// Numbers as numbers: versions write them differently.
fn floats(value: Value) -> Value {
    match value {
        Value::Bulk(text) => match String::from_utf8_lossy(&text).parse::<f64>() {
            Ok(number) => Value::Double(number),
            Err(_) => Value::Bulk(text),
        },
        Value::Array(rows) => Value::Array(rows.into_iter().map(floats).collect()),
        other => other,
    }
}

fn without(value: Value, names: &[&str]) -> Value {
    let is_out = |name: &Value| matches!(name, Value::Bulk(name) if names.iter().any(|out| out.as_bytes() == name));
    match value {
        Value::Array(rows) => {
            let pairs = rows.chunks(2).filter(|pair| !is_out(&pair[0]));
            Value::Array(pairs.flatten().cloned().collect())
        }
        Value::Map(pairs) => Value::Map(
            pairs
                .into_iter()
                .filter(|(name, _)| !is_out(name))
                .collect(),
        ),
        other => other,
    }
}

/// How long a consumer is idle goes by either clock; that it never was active does not.
fn idle(value: Value) -> Value {
    let is_time =
        |name: &Value| matches!(name, Value::Bulk(name) if name == b"idle" || name == b"inactive");
    let row = |row: Value| match row {
        Value::Array(mut parts) => {
            for pair in parts.chunks_mut(2).filter(|pair| is_time(&pair[0])) {
                if matches!(pair[1], Value::Int(0..)) {
                    pair[1] = Value::Int(0);
                }
            }
            Value::Array(parts)
        }
        other => other,
    };
    match value {
        Value::Array(rows) => Value::Array(rows.into_iter().map(row).collect()),
        other => other,
    }
}

fn kind(value: &Value) -> Value {
    Value::Simple(
        match value {
            Value::Int(_) => "a number",
            Value::Bulk(_) | Value::Text(_) => "a text",
            Value::Nil => "nil",
            Value::Array(_) => "an array",
            _ => "something else",
        }
        .to_owned(),
    )
}

/// Times are alike if they are a little apart: the clocks are read one after the other.
const APART_MS: i64 = 2500;

/// Whether two answers are the same, times apart.
pub fn same(real: &Option<Value>, model: &Option<Value>) -> bool {
    match (real, model) {
        (Some(real), Some(model)) => alike(real, model),
        (real, model) => real == model,
    }
}

fn alike(real: &Value, model: &Value) -> bool {
    let all = |real: &[Value], model: &[Value]| {
        real.len() == model.len()
            && real
                .iter()
                .zip(model)
                .all(|(real, model)| alike(real, model))
    };
    match (real, model) {
        // Small numbers are counts; a remaining time is not that small in these scripts.
        (Value::Int(real), Value::Int(model)) => {
            real == model || (*real > 50_000 && *model > 50_000 && (real - model).abs() <= APART_MS)
        }
        (Value::Double(real), Value::Double(model)) => {
            real == model || (real - model).abs() <= 1e-9 * real.abs()
        }
        (Value::Array(real), Value::Array(model)) | (Value::Set(real), Value::Set(model)) => {
            all(real, model)
        }
        (Value::Map(real), Value::Map(model)) => {
            real.len() == model.len() && real.iter().zip(model).all(|(real, model)| {
                let is_time =
                    matches!(&real.0, Value::Bulk(name) if name == b"idle" || name == b"inactive");
                alike(&real.0, &model.0) && (is_time || alike(&real.1, &model.1))
            })
        }
        (real, model) => real == model,
    }
}
