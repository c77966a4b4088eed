//! Are two connections to the same server?

use super::facts::info;
use super::{Conn, ServerError};

/// Compares run ids; where INFO is refused, a name is given to one connection and looked for among
/// the clients of the other. Writes nothing.
///
/// # Errors
/// The connections.
pub fn same_server(one: &mut Conn, other: &mut Conn) -> Result<bool, ServerError> {
    if let (Some(one), Some(other)) = (run_id(one)?, run_id(other)?) {
        return Ok(one == other);
    }
    let name = format!("redis-migrate-{:016x}", random());
    if one
        .try_query(redis::cmd("CLIENT").arg("SETNAME").arg(&name))?
        .is_err()
    {
        return Ok(one.address() == other.address());
    }
    let clients = other.try_query(redis::cmd("CLIENT").arg("LIST"))?;
    one.try_query(redis::cmd("CLIENT").arg("SETNAME").arg(""))?
        .ok();
    Ok(match clients {
        Ok(redis::Value::BulkString(list)) => String::from_utf8_lossy(&list).contains(&name),
        Ok(redis::Value::SimpleString(list)) => list.contains(&name),
        _ => one.address() == other.address(),
    })
}

/// The process behind a connection, where INFO tells.
///
/// # Errors
/// The connection.
pub fn run_id(conn: &mut Conn) -> Result<Option<String>, ServerError> {
    let text = info(conn, Some("server"))?;
    Ok(text.and_then(|text| {
        text.lines()
            .find_map(|line| line.strip_prefix("run_id:").map(|id| id.trim().to_owned()))
    }))
}

/// From the randomness that the standard library seeds its hash maps with.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}
