//! The commands of a record, as bytes on a connection.

use super::compare::{self, Question};
use super::foresee::Way;
use super::port::Port;
use super::prepare::Ready;
use super::writer::{Form, How, Item, Task};
use crate::payload::footer;
use crate::record::Eviction;
use crate::server::resp;
use crate::server::{Conn, ServerError};

/// From this size on a value is written to the socket from where it is.
const LARGE_VALUE_BYTES: usize = 128 * 1024;

/// Later moments mean trouble for the server (compare `checkInvalidExpireTime`, expire.c).
const EXPIRE_MAX_MS: u64 = 1 << 62;

/// Queues the commands of a record.
///
/// # Errors
/// The connection.
pub(super) fn pack(port: &mut Port, item: &Item, how: How) -> Result<(), ServerError> {
    let conn = port.conn()?;
    // Here the bytes go out.
    if conn.database() != Some(item.record.db) {
        return Err(conn.spoilt("it is not in the database that was selected"));
    }
    let key = &item.record.key;
    if how.asking && item.task != Task::Compare {
        conn.queue(&[b"ASKING"])?;
    }
    match item.task {
        Task::Restore { replace, .. } => match item.form {
            Form::Graph(ready) => {
                if replace {
                    conn.queue(&[b"DEL", key])?;
                    if how.asking {
                        conn.queue(&[b"ASKING"])?;
                    }
                }
                // Where DEL did nothing, the answer is BUSYKEY.
                pack_restore(conn, item, ready, false)
            }
            Form::Payload(ready) => pack_restore(conn, item, ready, replace),
            // The writer queues these in another way.
            Form::Commands => Err(conn.spoilt("a value of native commands is no payload")),
        },
        Task::Compare => compare::ask(conn, key, question(how)),
        Task::Try(Way::Rename) => {
            let (conn, commands) = port.conn_and_commands()?;
            Way::Rename.queue(conn, key, &commands.temp_key(key))
        }
        Task::Try(way) => way.queue(conn, key, b""),
        Task::Look | Task::Ask => conn.queue(&[b"EXISTS", key]),
        Task::Delete { .. } => conn.queue(&[b"DEL", key]),
        Task::CleanUp(word) => conn.queue(&[word.as_bytes(), key]),
    }
}

/// How what stands under a key is asked for.
pub(super) fn question(how: How) -> Question {
    Question {
        pexpiretime: how.pexpiretime,
        asking: how.asking,
    }
}

/// Arguments that go with every value, as [`resp::pack_arg`] writes them.
const RESTORE: &[u8] = b"$7\r\nRESTORE\r\n";
const NO_EXPIRY: &[u8] = b"$1\r\n0\r\n";
const ABSTTL: &[u8] = b"$6\r\nABSTTL\r\n";
const REPLACE: &[u8] = b"$7\r\nREPLACE\r\n";

fn pack_restore(
    conn: &mut Conn,
    item: &Item,
    ready: Ready,
    replace: bool,
) -> Result<(), ServerError> {
    let record = &item.record;
    let footer = match ready {
        Ready::AsIs => None,
        Ready::Footer(version) => Some(footer(record.value.bytes(), version)),
    };
    let body = record.value.bytes();
    let (eviction_word, eviction): (&[u8], u64) = match record.eviction {
        None => (b"", 0),
        Some(Eviction::IdleSecs(secs)) => (b"IDLETIME", secs),
        Some(Eviction::Freq(freq)) => (b"FREQ", u64::from(freq)),
    };
    let args = 5 + usize::from(replace) + 2 * usize::from(record.eviction.is_some());
    let out = conn.out();
    resp::pack_head(out, args);
    out.extend_from_slice(RESTORE);
    resp::pack_arg(out, &record.key);
    // Absolute and never 0 for a key with expiry: relative times drift and overflow.
    match record.expire_at_ms {
        None => out.extend_from_slice(NO_EXPIRY),
        Some(at_ms) => resp::pack_number(out, at_ms.clamp(1, EXPIRE_MAX_MS)),
    }
    resp::pack_len(out, body.len() + footer.map_or(0, |footer| footer.len()));
    if body.len() >= LARGE_VALUE_BYTES {
        conn.write_large(body)?;
    } else {
        out.extend_from_slice(body);
    }
    let out = conn.out();
    if let Some(footer) = footer {
        out.extend_from_slice(&footer);
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(ABSTTL);
    if replace {
        out.extend_from_slice(REPLACE);
    }
    if record.eviction.is_some() {
        resp::pack_arg(out, eviction_word);
        resp::pack_number(out, eviction);
    }
    conn.flush_if_full()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_arguments_are_as_any_other() {
        let fixed: [(&[u8], &[u8]); 4] = [
            (RESTORE, b"RESTORE"),
            (NO_EXPIRY, b"0"),
            (ABSTTL, b"ABSTTL"),
            (REPLACE, b"REPLACE"),
        ];
        for (packed, arg) in fixed {
            let mut out = Vec::new();
            resp::pack_arg(&mut out, arg);
            assert_eq!(out, packed);
        }
    }
}
