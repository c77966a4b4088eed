//! Is the key that stands there already the one we bring? By value and expiry.

use anyhow::Result;

use crate::dialect::{Dialect, Feature, oldest_with_rdb_version};
use crate::payload::meaning::Lenience;
use crate::payload::{self, meaning};
use crate::record::{Context, Family, KeyRecord, Value};
use crate::server::facts::Facts;
use crate::server::reply::from_reply;
use crate::server::resp::Item;
use crate::server::{Conn, PTTL_TOLERANCE_MS, ServerError, stands_by_expiry};
use crate::sink::Seen;

/// How to ask.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// Whether PEXPIRETIME is there to be asked.
    pub pexpiretime: bool,
    /// Whether each command needs ASKING before it: the key's slot is on its way to this node.
    pub asking: bool,
}

/// What stands at the destination.
pub struct Found {
    payload: Option<Vec<u8>>,
    expiry: FoundExpiry,
    /// The server's words, where it gave nothing.
    pub refusal: Option<String>,
}

/// What there is to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// A value.
    There,
    /// Nothing: it expired, or somebody removed it.
    Gone,
    /// The server does not give it.
    Withheld,
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
pub fn ask(conn: &mut Conn, key: &[u8], question: Question) -> Result<(), ServerError> {
    if !question.pexpiretime {
        conn.queue(&[b"TIME"])?;
    }
    let mut queue = |command: &[u8]| {
        if question.asking {
            conn.queue(&[b"ASKING"])?;
        }
        conn.queue(&[command, key])
    };
    queue(if question.pexpiretime {
        b"PEXPIRETIME"
    } else {
        b"PTTL"
    })?;
    queue(b"DUMP")
}

/// Reads the answers.
///
/// # Errors
/// The connection.
pub fn read(conn: &mut Conn, question: Question) -> Result<Found, ServerError> {
    let Question {
        pexpiretime,
        asking,
    } = question;
    let now_ms = if pexpiretime {
        Some(0)
    } else {
        conn.reply()?
            .ok()
            .and_then(|value| from_reply::<(u64, u64)>(value).ok())
            .map(|(secs, micros)| secs * 1000 + micros / 1000)
    };
    let mut refusal = None;
    let mut item = |conn: &mut Conn, is_value: bool| -> Result<Answer, ServerError> {
        if asking && !matches!(conn.item()?, Item::Simple(b"OK") | Item::Error(_)) {
            return Err(conn.confused("no answer to ASKING"));
        }
        Ok(match (conn.item()?, is_value) {
            (Item::Int(number @ -2..), false) => Answer::Number(number),
            (Item::Bulk(payload), true) => Answer::Payload(payload),
            (Item::Nil, true) => Answer::Nothing,
            (Item::Error(text), _) => {
                refusal.get_or_insert_with(|| String::from_utf8_lossy(&text).into_owned());
                Answer::Nothing
            }
            (_, true) => return Err(conn.confused("no answer to DUMP")),
            (_, false) => return Err(conn.confused("no answer to PTTL or PEXPIRETIME")),
        })
    };
    let (expiry, payload) = (item(conn, false)?, item(conn, true)?);
    let expiry = match (expiry, now_ms) {
        (Answer::Number(-1), _) => FoundExpiry::Never,
        (Answer::Number(at_ms @ 0..), Some(now_ms)) => FoundExpiry::At {
            at_ms: now_ms + at_ms.unsigned_abs(),
            tolerance_ms: if pexpiretime { 0 } else { PTTL_TOLERANCE_MS },
        },
        _ => FoundExpiry::Unknown,
    };
    let payload = match payload {
        Answer::Payload(payload) => Some(payload),
        _ => None,
    };
    Ok(Found {
        payload,
        expiry,
        refusal,
    })
}

enum Answer {
    Number(i64),
    Payload(Vec<u8>),
    Nothing,
}

#[cfg(test)]
impl Found {
    /// A value without expiry, nothing, or the server's refusal.
    pub(super) fn of(said: Result<Option<Vec<u8>>, String>) -> Self {
        let (payload, refusal) = match said {
            Ok(payload) => (payload, None),
            Err(text) => (None, Some(text)),
        };
        let expiry = match payload {
            Some(_) => FoundExpiry::Never,
            None => FoundExpiry::Unknown,
        };
        Self {
            payload,
            expiry,
            refusal,
        }
    }
}

/// The expiry that a record gets of which all fields are past their time. No key goes by for that as
/// long as its server has not removed it.
pub const ALL_FIELDS_PAST_MS: u64 = 1;

impl Found {
    /// Takes off what a look-alike adds to its payloads.
    pub fn clean(&mut self, facts: &Facts) {
        self.payload = self.payload.take().map(|payload| facts.dumped(payload));
    }

    /// Takes a nil that DUMP answered for what it is, if the key's expiry says that it stands:
    /// Garnet dumps strings only, and answers for other types as if there were no key. `now_ms`: the
    /// destination's clock.
    pub fn doubt_nil(&mut self, now_ms: u64) {
        let stands = match self.expiry {
            FoundExpiry::Never => stands_by_expiry(None, now_ms),
            FoundExpiry::At { at_ms, .. } => stands_by_expiry(Some(at_ms), now_ms),
            FoundExpiry::Unknown => false,
        };
        if stands && self.payload.is_none() && self.refusal.is_none() {
            self.refusal = Some("the server answers DUMP as if it were not there".to_owned());
        }
    }

    /// What there is to compare with.
    pub fn standing(&self) -> Standing {
        match (&self.payload, &self.refusal) {
            (Some(_), _) => Standing::There,
            (None, None) => Standing::Gone,
            (None, Some(_)) => Standing::Withheld,
        }
    }

    /// What stands there, as a server of this family gave it; `None` if it gave nothing.
    pub fn into_seen(self, family: Family) -> Option<Seen> {
        Some(Seen {
            family,
            value: Value::Verbatim(self.payload?),
            expire_at_ms: match self.expiry {
                FoundExpiry::At { at_ms, .. } => Some(at_ms),
                FoundExpiry::Never | FoundExpiry::Unknown => None,
            },
        })
    }

    /// Says how what was found differs from `record`, `None` if it is the same. `close_ms`: how far
    /// apart two expiries may lie, where one of them is not known to the millisecond.
    pub fn differs_from(
        &self,
        record: &KeyRecord,
        context: &Context,
        family: Family,
        lenience: Lenience,
        close_ms: u64,
    ) -> Option<String> {
        let Some(payload) = &self.payload else {
            return Some(match &self.refusal {
                Some(text) => format!("it cannot be read to compare: {text}"),
                None => "it is gone".to_owned(),
            });
        };
        if let Some(difference) = value_difference(record, context, payload, family, lenience) {
            return Some(difference);
        }
        match (&self.expiry, record.expire_at_ms) {
            (FoundExpiry::Never, None) | (_, Some(ALL_FIELDS_PAST_MS)) => None,
            (
                FoundExpiry::At {
                    at_ms,
                    tolerance_ms,
                },
                Some(ours),
            ) if at_ms.abs_diff(ours)
                <= (*tolerance_ms).max(inexact_by_ms(context)).min(close_ms)
                || lenience.same_expiry(Some(ours), Some(*at_ms)) =>
            {
                None
            }
            (FoundExpiry::Unknown, _) => Some("its expiry cannot be read to compare".to_owned()),
            _ => Some("with the same value and another expiry".to_owned()),
        }
    }
}

/// How far off the expiry of a record may be: that of a server without PEXPIRETIME was computed from
/// what was left, and comes out a little different each time.
fn inexact_by_ms(context: &Context) -> u64 {
    match oldest_with_rdb_version(context.rdb_version) {
        Some(oldest) if !Dialect::of(oldest.family, oldest.since).has(Feature::ExpireTime) => {
            PTTL_TOLERANCE_MS
        }
        _ => 0,
    }
}

fn body_of(value: &Value) -> Option<&[u8]> {
    match value {
        Value::Compact(body) => Some(body),
        Value::Verbatim(payload) => payload::split(payload).ok().map(|(body, _)| body),
        Value::Withheld(_) => None,
    }
}

fn value_difference(
    record: &KeyRecord,
    context: &Context,
    payload: &[u8],
    family: Family,
    lenience: Lenience,
) -> Option<String> {
    if matches!(&record.value, Value::Verbatim(ours) if ours == payload) {
        return None;
    }
    let (Some(ours), Ok((theirs, _))) = (body_of(&record.value), payload::split(payload)) else {
        return Some("with a value that cannot be compared".to_owned());
    };
    match meaning::same_but(context.family, ours, family, theirs, lenience) {
        Ok(None) => None,
        Ok(Some(_)) => Some("with another value".to_owned()),
        Err(_) => Some("with a value that cannot be compared".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_of_an_old_server_is_a_little_off() {
        let off_by = |rdb_version| {
            inexact_by_ms(&Context {
                rdb_version,
                ..Context::default()
            })
        };
        assert_eq!([6, 7, 9].map(off_by), [PTTL_TOLERANCE_MS; 3]);
        assert_eq!([0, 10, 13, 80].map(off_by), [0; 4]);
    }

    /// A hash of one field that goes at 100, without an expiry of its own.
    const GOES_AT_100: [u8; 15] = [24, 100, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, b'a', 1, b'b'];

    #[test]
    fn a_hash_that_is_over_is_its_own_as_long_as_it_stands() {
        let differs = |expire_at_ms, fields_gone_by_ms| {
            let found = Found {
                payload: Some(payload::sign(&GOES_AT_100, 12)),
                expiry: FoundExpiry::Never,
                refusal: None,
            };
            let record = KeyRecord {
                db: 0,
                key: b"key".to_vec(),
                value: Value::Compact(GOES_AT_100.to_vec()),
                expire_at_ms,
                eviction: None,
            };
            let lenience = Lenience {
                fields_gone_by_ms,
                ..Lenience::default()
            };
            let context = Context::default();
            found.differs_from(&record, &context, Family::Redis, lenience, u64::MAX)
        };
        assert_eq!(differs(Some(ALL_FIELDS_PAST_MS), 200), None);
        assert_eq!(differs(None, 50), None);
        assert!(differs(Some(300), 200).is_some());
    }
}
