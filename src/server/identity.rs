//! Are two connections to the same server?

use super::facts::info;
use super::{Conn, ServerError};
use crate::server::reply::{Reply, cmd, from_reply};

/// What is known of two connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// They lead to one server, or to nodes of one cluster.
    Same,
    /// The first leads to a replica of the second: what is written there comes back.
    ReplicaOf,
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
    let told = (Told::ask(one)?, Told::ask(other)?);
    let run_ids = (&told.0.run_id, &told.1.run_id);
    if let (Some(run_id), Some(other_run_id)) = run_ids
        && run_id == other_run_id
    {
        return Ok(Identity::Same);
    }
    if told.0.follows(&told.1) {
        return Ok(Identity::ReplicaOf);
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
    if let (Some(is_cluster), Some(other_is_cluster)) = (is_cluster(one)?, is_cluster(other)?)
        && is_cluster != other_is_cluster
    {
        return Ok(Identity::Another);
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

/// What INFO tells of who a server is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    run_id: Option<String>,
    /// `master_replid`: a primary and all that follow it, at any distance, have the same
    /// (replication.c, `readSyncBulkPayload`).
    replid: Option<String>,
    /// It is a replica, and its link is up.
    is_linked_replica: bool,
}

impl Told {
    fn ask(conn: &mut Conn) -> Result<Self, ServerError> {
        let text = info(conn, None)?;
        Ok(text.map(|text| Self::read(&text)).unwrap_or_default())
    }

    fn read(text: &str) -> Self {
        let value = |name: &str| {
            let mut found = text.lines().filter_map(|line| line.split_once(':'));
            let found = found.find(|(known, _)| *known == name);
            found.map(|(_, value)| value.trim().to_owned())
        };
        let is = |name: &str, what: &str| value(name).as_deref() == Some(what);
        Self {
            run_id: value("run_id"),
            replid: value("master_replid").filter(|id| id.bytes().any(|byte| byte != b'0')),
            is_linked_replica: is("role", "slave") && is("master_link_status", "up"),
        }
    }

    /// Whether what is written to `other` comes to this server by replication.
    fn follows(&self, other: &Self) -> bool {
        self.is_linked_replica && self.replid.is_some() && self.replid == other.replid
    }
}

/// Whether a server is a node of a cluster; `None` where it does not say.
fn is_cluster(conn: &mut Conn) -> Result<Option<bool>, ServerError> {
    Ok(match conn.ask(cmd("CLUSTER").arg("SLOTS"))? {
        Ok(Reply::Array(_)) => Some(true),
        // cluster.c, clusterCommand.
        Err(text) if text.contains("cluster support disabled") => Some(false),
        _ => None,
    })
}

/// Nodes of one cluster are one place: what is written to one of them may be read of another.
fn same_cluster(one: &mut Conn, other: &mut Conn) -> Result<Identity, ServerError> {
    let text = |answer: Result<Reply, String>| {
        let text = answer.ok().map(from_reply::<String>);
        text.and_then(Result::ok).filter(|text| !text.is_empty())
    };
    let unknown = Ok(Identity::Unknown("they are not clusters".to_owned()));
    let Some(id) = text(one.ask(cmd("CLUSTER").arg("MYID"))?) else {
        return unknown;
    };
    let Some(nodes) = text(other.ask(cmd("CLUSTER").arg("NODES"))?) else {
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
    let name = format!("redis-migrate-{:016x}", crate::host::random());
    let set = named.ask(cmd("CLIENT").arg("SETNAME").arg(&name))?;
    if set != Ok(Reply::Okay) {
        return Ok(Identity::Unknown("CLIENT SETNAME is refused".to_owned()));
    }
    let is_seen = lists_client(looking, &name)?;
    // A proxy may have kept the name for itself: only a name that arrived can be missed.
    let has_arrived = match is_seen {
        Some(false) => lists_client(named, &name)?,
        _ => None,
    };
    named.ask(cmd("CLIENT").arg("SETNAME").arg(""))?.ok();
    Ok(match (is_seen, has_arrived) {
        (Some(true), _) => Identity::Same,
        (Some(false), Some(true)) => Identity::Another,
        _ => Identity::Unknown("CLIENT LIST is refused".to_owned()),
    })
}

/// Whether a client of this name is listed; `None` without a list.
fn lists_client(conn: &mut Conn, name: &str) -> Result<Option<bool>, ServerError> {
    let list = match conn.ask(cmd("CLIENT").arg("LIST"))? {
        Ok(Reply::Bulk(list)) => String::from_utf8_lossy(&list).into_owned(),
        Ok(Reply::Status(list)) => list,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_follows_only_while_its_link_is_up() {
        let info = |role: &str, replid: &str, link: &str| {
            Told::read(&format!(
                "# Server\r\nrun_id:r\r\n\r\n# Replication\r\nrole:{role}\r\n\
                 master_link_status:{link}\r\nmaster_replid:{replid}\r\n"
            ))
        };
        let primary = info("master", "abc", "");
        assert_eq!(primary.run_id.as_deref(), Some("r"));
        assert!(info("slave", "abc", "up").follows(&primary));
        // A stale replica may be what is left of a primary that lost its data.
        assert!(!info("slave", "abc", "down").follows(&primary));
        assert!(!info("slave", "abd", "up").follows(&primary));
        assert!(!primary.follows(&info("slave", "abc", "up")));
        // Before the first synchronization.
        let zeros = "0".repeat(40);
        assert!(!info("slave", &zeros, "up").follows(&info("master", &zeros, "")));
        assert!(!Told::read("").follows(&Told::read("")));
    }
}
