//! Whether a server has transactions: MULTI and EXEC with nothing between.

use redis::Value;

use super::conn::asks_for_patience;
use super::{Conn, ServerError};

/// Tries MULTI and EXEC in one round trip. Nothing may be in flight. The inner error says which of
/// them is refused, or answered oddly.
///
/// # Errors
/// The connection's.
pub fn prove(conn: &mut Conn) -> Result<Result<(), ServerError>, ServerError> {
    let commands = [redis::cmd("MULTI"), redis::cmd("EXEC")];
    let mut answers = conn.ask_all(&commands, asks_for_patience)?.into_iter();
    match (answers.next(), answers.next()) {
        (Some(multi), Some(exec)) => judge(conn, multi, exec),
        _ => Ok(Err(conn.confused("MULTI was not answered"))),
    }
}

/// Whether these are the answers to MULTI and EXEC with nothing between. Sees to it that no
/// transaction stays open.
///
/// # Errors
/// The connection's; also where a transaction may still be open on it.
pub fn judge(
    conn: &mut Conn,
    multi: Result<Value, String>,
    exec: Result<Value, String>,
) -> Result<Result<(), ServerError>, ServerError> {
    let is_over = matches!(&exec, Ok(Value::Array(done)) if done.is_empty());
    if multi.is_ok() && !is_over {
        // Else everything from now on would be queued.
        match conn.ask(&redis::cmd("DISCARD"))? {
            Ok(Value::Okay) | Err(_) => {}
            Ok(other) => return Err(conn.spoilt(format!("DISCARD was answered with {other:?}"))),
        }
    }
    Ok(match (multi, exec) {
        (Ok(Value::Okay), Ok(_)) if is_over => Ok(()),
        (Ok(Value::Okay), exec) => Err(conn.needed("EXEC", exec)),
        (multi, _) => Err(conn.needed("MULTI", multi)),
    })
}
