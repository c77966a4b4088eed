//! Reads what was answered.

use super::ask::Sent;
use super::{Had, How, MAX_EXEC_BYTES, Question, Refused, Shown, Snapshot};
use crate::host::HashMap;
use crate::record::Eviction;
use crate::server::counts::CommandCounts;
use crate::server::facts::{keyspace, unix_ms};
use crate::server::reply::{Reply, from_reply};
use crate::server::resp::Item;
use crate::server::transaction::{DISCARDED, QUEUED};
use crate::server::{Conn, PTTL_TOLERANCE_MS, ServerError, stands_by_expiry};
use crate::source::server::probe::EvictionCommand;
use crate::source::server::unheard::StreamFacts;

/// Reads what MULTI answered to each command; what of it was refused.
pub(super) fn read_queued(
    conn: &mut Conn,
    how: How,
    sent: &Sent,
) -> Result<Option<Refused>, ServerError> {
    let mut refused = None;
    let queued = match how {
        How::Multi => sent.commands + 1,
        How::Script(_) | How::Plain => 0,
    };
    for number in 0..queued {
        if conn.reads(QUEUED) {
            continue;
        }
        if let Err(text) = conn.reply()? {
            // A key's refusal says less than that of a command which is always asked.
            refused.get_or_insert(match number {
                number if sent.looks.contains(&number) => Refused::Looks,
                number if number >= sent.first_of_keys => Refused::Keys(text),
                _ => Refused::Everything(text),
            });
        }
    }
    Ok(refused)
}

/// Reads up to the first answer; or why there is none.
pub(super) fn read_head(
    conn: &mut Conn,
    how: How,
    sent: &Sent,
    refused: Option<Refused>,
) -> Result<Option<Refused>, ServerError> {
    let head = match how {
        How::Plain => Item::Array(sent.commands),
        How::Multi | How::Script(_) => conn.item()?,
    };
    match head {
        Item::Array(count) if refused.is_some() => {
            // Somebody in between refused a command, and the server never heard of it.
            for _ in 0..count {
                conn.reply()?.ok();
            }
            Ok(refused)
        }
        Item::Array(count) if count == sent.commands => Ok(None),
        Item::Array(_) => Err(conn.confused("not every command was answered")),
        Item::Error(text) => {
            let text = String::from_utf8_lossy(&text).into_owned();
            if how == How::Multi && !text.starts_with(DISCARDED) {
                // The transaction may still be open.
                return Err(conn.spoilt(format!("EXEC was answered with {text}")));
            }
            Ok(Some(refused.unwrap_or(Refused::Everything(text))))
        }
        _ => Ok(Some(Refused::Everything(
            "the transaction was discarded".to_owned(),
        ))),
    }
}

/// Reads the answers.
pub(super) fn read_answers(
    conn: &mut Conn,
    question: &Question<'_>,
    sent: &Sent,
) -> Result<Result<Snapshot, Refused>, ServerError> {
    let reader = SnapshotReader {
        conn,
        question,
        sent,
        // Values may have grown since the plan was made by what they were.
        room: 2 * MAX_EXEC_BYTES,
        spoilt: None,
        snapshot: Snapshot {
            at_ms: question.now_ms,
            ..Snapshot::default()
        },
    };
    reader.read()
}

/// Reads the answers, one at a time: what XINFO says of twenty thousand streams is much larger than
/// what is kept. Every reply is read, also after one that spoils all.
struct SnapshotReader<'a> {
    conn: &'a mut Conn,
    question: &'a Question<'a>,
    sent: &'a Sent,
    /// Bytes of values that may still be kept.
    room: usize,
    spoilt: Option<Refused>,
    snapshot: Snapshot,
}

impl SnapshotReader<'_> {
    fn read(mut self) -> Result<Result<Snapshot, Refused>, ServerError> {
        self.read_server()?;
        for &db in &self.sent.dbs {
            self.read_database(db)?;
        }
        Ok(match self.spoilt {
            Some(refused) => Err(refused),
            None => Ok(self.snapshot),
        })
    }

    /// The first that spoils it is what is told.
    fn spoil(&mut self, refused: Refused) {
        self.spoilt.get_or_insert(refused);
    }

    fn read_server(&mut self) -> Result<(), ServerError> {
        if self.question.abilities.time
            && let Some(at_ms) = time_of(next(self.conn)?)
        {
            self.snapshot.at_ms = at_ms;
        }
        if let Some(by) = self.question.functions_by {
            self.snapshot.functions = by.payload(next(self.conn)?);
        }
        if self.question.counts
            && let Reply::Bulk(text) = next(self.conn)?
        {
            self.snapshot.counts = CommandCounts::parse(&String::from_utf8_lossy(&text));
        }
        if self.question.databases {
            if let Reply::Bulk(text) = next(self.conn)? {
                self.snapshot.databases = keyspace(&String::from_utf8_lossy(&text));
            }
            if self.snapshot.databases.is_none() {
                let text = "INFO keyspace did not tell the databases".to_owned();
                self.spoil(Refused::Everything(text));
            }
        }
        Ok(())
    }

    fn read_database(&mut self, db: u32) -> Result<(), ServerError> {
        let base_ms = self.read_base(db)?;
        let question = self.question;
        let mut expiries = Vec::new();
        for _ in question.plan.keys_of(db) {
            expiries.push(self.read_expiry(base_ms)?);
        }
        if question.abilities.asks_time() {
            self.look_how_long(base_ms)?;
        }
        for (key, expires) in question.plan.keys_of(db).zip(expiries) {
            let shown = self.read_key(db, key, expires)?;
            self.snapshot.keys.push(shown);
        }
        for (key, facts) in question.plan.looks_of(db) {
            if !is_same_stream(&next(self.conn)?, facts) {
                self.snapshot.changed_streams.push((db, key.clone()));
            }
        }
        Ok(())
    }

    /// What expiries count from, Unix ms.
    fn read_base(&mut self, db: u32) -> Result<u64, ServerError> {
        if self.sent.selects {
            match next(self.conn)? {
                Reply::Okay => {}
                // What follows was read from another database: nothing else matters.
                other => {
                    let text = format!("SELECT {db} answered {other:?}");
                    self.spoilt = Some(Refused::Everything(text));
                }
            }
        }
        if self.question.abilities.asks_time() {
            let base_ms = time_of(next(self.conn)?);
            if base_ms.is_none() {
                self.spoil(Refused::Keys("TIME gave no time".to_owned()));
            }
            return Ok(base_ms.unwrap_or(0));
        }
        Ok(match self.question.abilities.pexpiretime {
            true => 0,
            false => self.snapshot.at_ms,
        })
    }

    /// Remaining times count from a moment before they were asked for: a server that stood still in
    /// between makes expiries of them that are too early.
    fn look_how_long(&mut self, base_ms: u64) -> Result<(), ServerError> {
        match time_of(next(self.conn)?) {
            None => self.spoil(Refused::Keys("TIME gave no time".to_owned())),
            Some(after_ms) => {
                if let Some(reason) = too_far_off(after_ms.abs_diff(base_ms)) {
                    self.spoil(Refused::Keys(reason));
                }
            }
        }
        Ok(())
    }

    fn read_expiry(&mut self, base_ms: u64) -> Result<Expires, ServerError> {
        Ok(match next(self.conn)? {
            Reply::Int(ms @ 0..) => Expires::At(base_ms.saturating_add(ms.unsigned_abs())),
            Reply::Int(-1) => Expires::Never,
            Reply::Int(-2) => Expires::Gone,
            other => {
                let text = format!("an expiry was answered {other:?}");
                self.spoil(Refused::Keys(text));
                Expires::Gone
            }
        })
    }

    fn read_key(&mut self, db: u32, key: &[u8], expires: Expires) -> Result<Shown, ServerError> {
        let eviction = match self.question.abilities.eviction {
            Some(command) => eviction_of(command, &next(self.conn)?),
            None => None,
        };
        let max_value = self.question.max_value;
        let had = match dumped(self.conn, max_value.min(self.room))? {
            Ok(had) => had,
            // Not to be taken for a key that went away.
            Err(text) => {
                self.spoil(Refused::Keys(text));
                Had::Nothing
            }
        };
        let at_ms = self.snapshot.at_ms;
        let stands = match expires {
            Expires::Never => stands_by_expiry(None, at_ms),
            Expires::At(ms) => stands_by_expiry(Some(ms), at_ms),
            Expires::Gone => false,
        };
        let had = match had {
            Had::Nothing if stands => Had::Withheld,
            had => had,
        };
        self.room -= had.bytes().min(self.room);
        if matches!(had, Had::TooLong(bytes) if bytes <= max_value as u64) {
            self.spoil(Refused::TooMuch);
        }
        let expire_at_ms = match (expires, &had) {
            (Expires::At(ms), _) => Some(ms),
            (Expires::Gone, Had::Payload(_) | Had::TooLong(_)) => {
                self.spoil(Refused::Torn);
                None
            }
            (Expires::Never | Expires::Gone, _) => None,
        };
        Ok(Shown {
            db,
            key: key.to_vec(),
            had,
            expire_at_ms,
            eviction,
        })
    }
}

/// Why expiries are not known that were asked for within so long. Like a refusal, it is not tried
/// again for ever: a server that is asked for many keys may always take so long.
fn too_far_off(took_ms: u64) -> Option<String> {
    (took_ms > PTTL_TOLERANCE_MS).then(|| {
        format!(
            "the source took {took_ms} ms to tell how long keys still live, and the expiry of each \
             may be off by as much"
        )
    })
}

fn eviction_of(command: EvictionCommand, reply: &Reply) -> Option<Eviction> {
    match reply {
        Reply::Int(number) => command.told(*number),
        _ => None,
    }
}

/// What is said of when a key expires.
#[derive(Clone, Copy)]
enum Expires {
    At(u64),
    Never,
    /// There is no such key.
    Gone,
}

/// The next reply; an error as a text, which nobody takes for an answer.
fn next(conn: &mut Conn) -> Result<Reply, ServerError> {
    Ok(conn.reply()?.unwrap_or_else(Reply::Status))
}

/// What TIME answered, Unix ms.
fn time_of(reply: Reply) -> Option<u64> {
    let (secs, micros) = from_reply::<(u64, u64)>(reply).ok()?;
    unix_ms(secs, micros)
}

/// The next reply, to DUMP; a value of more than `max` bytes is not kept. The inner error is an
/// answer that is none.
fn dumped(conn: &mut Conn, max: usize) -> Result<Result<Had, String>, ServerError> {
    let text = match conn.item_or_skip(max)? {
        Item::Bulk(payload) => return Ok(Ok(Had::Payload(payload))),
        Item::TooLong(bytes) => return Ok(Ok(Had::TooLong(bytes))),
        Item::Nil => return Ok(Ok(Had::Nothing)),
        Item::Error(text) => String::from_utf8_lossy(&text).into_owned(),
        Item::Simple(text) => String::from_utf8_lossy(text).into_owned(),
        Item::Int(number) => number.to_string(),
        Item::Array(_) | Item::Map(_) | Item::Push(_) => {
            return Err(conn.confused("DUMP gave something other than a payload"));
        }
    };
    Ok(Err(format!("DUMP answered {text:?}")))
}

/// Whether XINFO STREAM says of a stream what its payload said.
fn is_same_stream(reply: &Reply, facts: &StreamFacts) -> bool {
    let Reply::Array(items) = reply else {
        return false;
    };
    let mut fields = HashMap::default();
    for pair in items.chunks_exact(2) {
        if let Reply::Bulk(name) = &pair[0] {
            fields.insert(name.as_slice(), &pair[1]);
        }
    }
    let number = |name: &[u8]| match fields.get(name) {
        Some(Reply::Int(number)) => u64::try_from(*number).ok(),
        _ => None,
    };
    let id = |name: &[u8]| match fields.get(name) {
        Some(Reply::Bulk(text)) => Some(text.clone()),
        _ => None,
    };
    let text = |id: &crate::payload::StreamId| format!("{}-{}", id.ms, id.seq).into_bytes();
    let newer = match (&facts.added, number(b"entries-added")) {
        (Some((added, max_deleted)), Some(now)) => {
            *added == now && id(b"max-deleted-entry-id") == Some(text(max_deleted))
        }
        (None, None) => true,
        _ => false,
    };
    let settings = [&b"idmp-duration"[..], b"idmp-maxsize", b"iids-added"].map(number);
    let idempotency = match facts.idempotency {
        Some(before) => settings == before.map(Some),
        None => settings == [None; 3],
    };
    newer
        && idempotency
        && number(b"groups") == Some(0)
        && number(b"length") == Some(facts.length)
        && id(b"last-generated-id") == Some(text(&facts.last_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiries_are_known_where_the_clock_hardly_moved_meanwhile() {
        assert_eq!(too_far_off(PTTL_TOLERANCE_MS), None);
        let reason = too_far_off(PTTL_TOLERANCE_MS + 1).expect("a reason");
        assert!(reason.contains("101 ms"), "{reason}");
    }
}
