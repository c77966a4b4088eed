//! Are two connections to the same server?

use redis::Value;

use super::facts::info;
use super::{Conn, ServerError};

/// What is known of two connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// They lead to one server, or to nodes of one cluster.
    Same,
    /// They lead to different servers.
    Another,
    /// Neither was seen; why, in words.
    Unknown(String),
}

/// Compares run ids; where INFO is refused, a name is given to one connection and looked for among
/// the clients of the other. Equal addresses are one server; different ones prove nothing. Writes
/// nothing.
///
/// # Errors
/// The connections.
pub fn same_server(one: &mut Conn, other: &mut Conn) -> Result<Identity, ServerError> {
    let run_ids = (run_id(one)?, run_id(other)?);
    if let (Some(run_id), Some(other_run_id)) = &run_ids
        && run_id == other_run_id
    {
        return Ok(Identity::Same);
    }
    let clusters = same_cluster(one, other)?;
    if let (Some(_), Some(_)) = run_ids {
        return Ok(match clusters {
            Identity::Same => Identity::Same,
            _ => Identity::Another,
        });
    }
    if !matches!(clusters, Identity::Unknown(_)) {
        return Ok(clusters);
    }
    for turn in 0..2 {
        let found = match turn {
            0 => by_client_name(one, other)?,
            _ => by_client_name(other, one)?,
        };
        if !matches!(found, Identity::Unknown(_)) {
            return Ok(found);
        }
    }
    let one_peer = one.peer();
    if one.address() == other.address() || (one_peer.is_some() && one_peer == other.peer()) {
        return Ok(Identity::Same);
    }
    Ok(Identity::Unknown(
        "INFO and CLIENT LIST do not tell on both sides".to_owned(),
    ))
}

/// Nodes of one cluster are one place: what is written to one of them may be read of another.
fn same_cluster(one: &mut Conn, other: &mut Conn) -> Result<Identity, ServerError> {
    let text = |answer: Result<Value, String>| {
        let text = answer.ok().map(redis::from_redis_value::<String>);
        text.and_then(Result::ok).filter(|text| !text.is_empty())
    };
    let unknown = Ok(Identity::Unknown("they are no clusters".to_owned()));
    let Some(id) = text(one.ask(redis::cmd("CLUSTER").arg("MYID"))?) else {
        return unknown;
    };
    let Some(nodes) = text(other.ask(redis::cmd("CLUSTER").arg("NODES"))?) else {
        return unknown;
    };
    if !nodes.contains("myself") {
        return unknown;
    }
    Ok(match nodes.lines().any(|line| line.starts_with(&id)) {
        true => Identity::Same,
        false => Identity::Another,
    })
}

/// Whether a name that is given to `named` is among the clients that `looking` lists.
fn by_client_name(named: &mut Conn, looking: &mut Conn) -> Result<Identity, ServerError> {
    let name = format!("redis-migrate-{:016x}", random());
    let set = named.ask(redis::cmd("CLIENT").arg("SETNAME").arg(&name))?;
    if set != Ok(Value::Okay) {
        return Ok(Identity::Unknown("CLIENT SETNAME is refused".to_owned()));
    }
    let is_seen = lists_client(looking, &name)?;
    // A proxy may have kept the name for itself: only a name that arrived can be missed.
    let has_arrived = match is_seen {
        Some(false) => lists_client(named, &name)?,
        _ => None,
    };
    named.ask(redis::cmd("CLIENT").arg("SETNAME").arg(""))?.ok();
    Ok(match (is_seen, has_arrived) {
        (Some(true), _) => Identity::Same,
        (Some(false), Some(true)) => Identity::Another,
        _ => Identity::Unknown("CLIENT LIST is refused".to_owned()),
    })
}

/// Whether a client of this name is listed; `None` without a list.
fn lists_client(conn: &mut Conn, name: &str) -> Result<Option<bool>, ServerError> {
    let list = match conn.ask(redis::cmd("CLIENT").arg("LIST"))? {
        Ok(Value::BulkString(list)) => String::from_utf8_lossy(&list).into_owned(),
        Ok(Value::SimpleString(list)) => list,
        _ => return Ok(None),
    };
    Ok(list.contains("addr=").then(|| list.contains(name)))
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
