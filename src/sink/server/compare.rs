//! Is the key that stands there already the one we bring? By value and expiry.

use anyhow::Result;

use crate::payload::{self, meaning};
use crate::record::{Context, Family, KeyRecord, Value};
use crate::server::resp::Item;
use crate::server::{Conn, PTTL_TOLERANCE_MS, ServerError};

/// What stands at the destination.
pub struct Found {
    payload: Option<Vec<u8>>,
    expiry: FoundExpiry,
}

enum FoundExpiry {
    Never,
    At { at_ms: u64, tolerance_ms: u64 },
    Unknown,
}

/// Queues the questions.
///
/// # Errors
/// The connection.
pub fn ask(conn: &mut Conn, key: &[u8], pexpiretime: bool) -> Result<(), ServerError> {
    if pexpiretime {
        conn.queue(&[b"PEXPIRETIME", key])?;
    } else {
        conn.queue(&[b"TIME"])?;
        conn.queue(&[b"PTTL", key])?;
    }
    conn.queue(&[b"DUMP", key])
}

/// Reads the answers.
///
/// # Errors
/// The connection.
pub fn read(conn: &mut Conn, pexpiretime: bool) -> Result<Found, ServerError> {
    let now_ms = if pexpiretime {
        Some(0)
    } else {
        conn.reply()?
            .ok()
            .and_then(|value| redis::from_redis_value::<(u64, u64)>(value).ok())
            .map(|(secs, micros)| secs * 1000 + micros / 1000)
    };
    let expiry = match (conn.item()?, now_ms) {
        (Item::Int(-1), _) => FoundExpiry::Never,
        (Item::Int(at_ms @ 0..), Some(now_ms)) => FoundExpiry::At {
            at_ms: now_ms + at_ms.unsigned_abs(),
            tolerance_ms: if pexpiretime { 0 } else { PTTL_TOLERANCE_MS },
        },
        _ => FoundExpiry::Unknown,
    };
    let payload = match conn.item()? {
        Item::Bulk(payload) => Some(payload),
        _ => None,
    };
    Ok(Found { payload, expiry })
}

impl Found {
    /// Says how what was found differs from `record`, `None` if it is the same.
    pub fn differs_from(
        &self,
        record: &KeyRecord,
        context: &Context,
        family: Family,
    ) -> Option<String> {
        let Some(payload) = &self.payload else {
            return Some("it cannot be read to compare".to_owned());
        };
        if let Some(difference) = value_difference(record, context, payload, family) {
            return Some(difference);
        }
        match (&self.expiry, record.expire_at_ms) {
            (FoundExpiry::Never, None) => None,
            (
                FoundExpiry::At {
                    at_ms,
                    tolerance_ms,
                },
                Some(ours),
            ) if at_ms.abs_diff(ours) <= *tolerance_ms => None,
            (FoundExpiry::Unknown, _) => Some("its expiry cannot be read to compare".to_owned()),
            _ => Some("with the same value and another expiry".to_owned()),
        }
    }
}

fn body_of(value: &Value) -> Option<&[u8]> {
    match value {
        Value::Compact(body) => Some(body),
        Value::Verbatim(payload) => payload::split(payload).ok().map(|(body, _)| body),
    }
}

fn value_difference(
    record: &KeyRecord,
    context: &Context,
    payload: &[u8],
    family: Family,
) -> Option<String> {
    if matches!(&record.value, Value::Verbatim(ours) if ours == payload) {
        return None;
    }
    let (Some(ours), Ok((theirs, _))) = (body_of(&record.value), payload::split(payload)) else {
        return Some("with a value that cannot be compared".to_owned());
    };
    match meaning::same(context.family, ours, family, theirs) {
        Ok(None) => None,
        Ok(Some(_)) => Some("with another value".to_owned()),
        Err(_) => Some("with a value that cannot be compared".to_owned()),
    }
}
