//! Whether a server has transactions: MULTI and EXEC with nothing between, and whether it queues.

use super::conn::asks_for_patience;
use super::{ABSENT_KEY, Conn, ServerError};
use crate::server::reply::{Reply, cmd};

/// The line that answers a command within MULTI.
pub const QUEUED: &[u8] = b"+QUEUED\r\n";

/// How EXEC begins to say that nothing was carried out (multi.c, execCommandAbort).
pub const DISCARDED: &str = "EXECABORT";

/// Why nothing was carried out, where EXEC says more than that.
pub fn cause_of_discard(text: &str) -> Option<&str> {
    let text = text.strip_prefix(DISCARDED)?;
    text.split_once("because of: ").map(|(_, cause)| cause)
}

/// Whether a command, or EXEC for one that was queued, asks for patience.
pub fn is_not_now(text: &str) -> bool {
    asks_for_patience(cause_of_discard(text).unwrap_or(text))
}

/// Tries MULTI and EXEC in one round trip. Nothing may be in flight. The inner error says which of
/// them is refused, or answered oddly.
///
/// # Errors
/// The connection's.
pub fn prove(conn: &mut Conn) -> Result<Result<(), ServerError>, ServerError> {
    let commands = [cmd("MULTI"), cmd("EXEC")];
    let mut answers = conn.ask_all(&commands, is_not_now)?.into_iter();
    match (answers.next(), answers.next()) {
        (Some(multi), Some(exec)) => judge(conn, multi, exec),
        _ => Ok(Err(conn.confused("MULTI was not answered"))),
    }
}

/// What a server answers that queues no command because it is full, be it one that only reads.
/// MULTI and EXEC alone do not tell.
///
/// # Errors
/// The connection's; also where a transaction may still be open on it.
pub fn refused_when_full(conn: &mut Conn) -> Result<Option<String>, ServerError> {
    let dump = cmd("DUMP").arg(ABSENT_KEY).to_owned();
    let commands = [cmd("MULTI"), dump, cmd("EXEC")];
    let answers = conn.ask_all(&commands, is_not_now)?;
    let [multi, dump, exec] = answers.as_slice() else {
        return Ok(None);
    };
    let is_over = match exec {
        Ok(exec) => matches!(exec, Reply::Array(_)),
        Err(text) => text.starts_with(DISCARDED),
    };
    if multi.is_ok() && !is_over {
        discard(conn)?;
    }
    Ok(match dump {
        Err(text) if text.starts_with("OOM") => Some(text.clone()),
        _ => None,
    })
}

/// Else everything from now on would be queued.
fn discard(conn: &mut Conn) -> Result<(), ServerError> {
    match conn.ask(&cmd("DISCARD"))? {
        Ok(Reply::Okay) | Err(_) => Ok(()),
        Ok(other) => Err(conn.spoilt(format!("DISCARD was answered with {other:?}"))),
    }
}

/// Whether these are the answers to MULTI and EXEC with nothing between. Sees to it that no
/// transaction stays open.
///
/// # Errors
/// The connection's; also where a transaction may still be open on it.
pub fn judge(
    conn: &mut Conn,
    multi: Result<Reply, String>,
    exec: Result<Reply, String>,
) -> Result<Result<(), ServerError>, ServerError> {
    let is_over = matches!(&exec, Ok(Reply::Array(done)) if done.is_empty());
    if multi.is_ok() && !is_over {
        discard(conn)?;
    }
    Ok(match (multi, exec) {
        (Ok(Reply::Okay), Ok(_)) if is_over => Ok(()),
        (Ok(Reply::Okay), exec) => Err(conn.needed("EXEC", exec)),
        (multi, _) => Err(conn.needed("MULTI", multi)),
    })
}
