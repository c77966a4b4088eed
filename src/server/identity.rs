//! Are two connections to the same server?

use super::facts::info;
use super::{Conn, ServerError};

/// Compares run ids; where INFO is refused, a name is given to one connection and looked for among
/// the clients of the other. Writes nothing.
///
/// # Errors
/// The connections.
pub fn same_server(one: &mut Conn, other: &mut Conn) -> Result<bool, ServerError> {
    if let (Some(run_id), Some(other_run_id)) = (run_id(one)?, run_id(other)?) {
        return Ok(run_id == other_run_id || same_cluster(one, other)?);
    }
    let name = format!("redis-migrate-{:016x}", random());
    if one
        .ask(redis::cmd("CLIENT").arg("SETNAME").arg(&name))?
        .is_err()
    {
        return Ok(one.address() == other.address());
    }
    let clients = other.ask(redis::cmd("CLIENT").arg("LIST"))?;
    one.ask(redis::cmd("CLIENT").arg("SETNAME").arg(""))?.ok();
    Ok(match clients {
        Ok(redis::Value::BulkString(list)) => String::from_utf8_lossy(&list).contains(&name),
        Ok(redis::Value::SimpleString(list)) => list.contains(&name),
        _ => one.address() == other.address(),
    })
}

/// Nodes of one cluster are one place: what is written to one of them may be read of another.
fn same_cluster(one: &mut Conn, other: &mut Conn) -> Result<bool, ServerError> {
    let Ok(id) = one.ask(redis::cmd("CLUSTER").arg("MYID"))? else {
        return Ok(false);
    };
    let Ok(nodes) = other.ask(redis::cmd("CLUSTER").arg("NODES"))? else {
        return Ok(false);
    };
    let text = |value| redis::from_redis_value::<String>(value).unwrap_or_default();
    let (id, nodes) = (text(id), text(nodes));
    Ok(!id.is_empty() && nodes.lines().any(|line| line.starts_with(&id)))
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
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}
