//! The layout that the server is part of: alone, with replicas, a replica itself, or a cluster.

use super::server::{Leftovers, Told, databases};
use crate::endpoint::{ConnectOptions, NodeAddress};
use crate::server::cluster::{Topology, options_for};
use crate::server::conn::asks_for_patience;
use crate::server::facts::{Facts, info};
use crate::server::reply::cmd;
use crate::server::slots::{SLOTS, tag_for_slot};
use crate::server::{ABSENT_KEY, Conn, ServerError};

/// What the server is part of.
#[derive(Debug)]
pub enum Layout {
    /// No cluster. What INFO tells of others.
    Single {
        /// Whom it follows, if it is a replica, and whether the link to it is up.
        primary: Option<(NodeAddress, bool)>,
        /// Who follows it.
        replicas: Vec<NodeAddress>,
    },
    Cluster(Told<Shards>),
}

#[derive(Debug)]
pub struct Shards {
    /// Who serves what.
    pub topology: Topology,
    /// What the primary of each shard says of itself, in the order of the shards.
    pub primaries: Vec<Told<NodeFacts>>,
}

/// What a node says of itself.
#[derive(Debug)]
pub struct NodeFacts {
    pub facts: Facts,
    /// Keys, of all its databases; `None` where nothing tells.
    pub keys: Option<u64>,
}

impl Layout {
    /// Asks the server that `conn` leads to, and in a cluster every primary. Temporary keys of
    /// killed runs that the other primaries hold are added to `leftovers`.
    ///
    /// # Errors
    /// The connection `conn`.
    pub fn ask(
        conn: &mut Conn,
        facts: &Facts,
        options: &ConnectOptions,
        leftovers: &mut Leftovers,
    ) -> Result<Self, ServerError> {
        if !facts.cluster {
            let text = info(conn, Some("replication"))?.unwrap_or_default();
            return Ok(Self::single(&text));
        }
        let topology = match Topology::ask(conn) {
            Ok(topology) => topology,
            Err(error @ ServerError::Lost { .. }) => return Err(error),
            Err(error) => return Ok(Self::Cluster(Told::error(reason(error)))),
        };
        let own = facts.run_id.as_deref();
        let primaries = topology
            .shards
            .iter()
            .map(|shard| {
                let at = options_for(options, &shard.primary);
                match look_at(&at, own, leftovers) {
                    Ok(facts) => Told::Known(facts),
                    Err(error) => Told::error(reason(error)),
                }
            })
            .collect();
        Ok(Self::Cluster(Told::Known(Shards {
            topology,
            primaries,
        })))
    }

    /// `slave0:ip=10.0.0.2,port=6379,state=online,…`, `master_host:…`, `master_port:…`,
    /// `master_link_status:up` (replication.c, genRedisInfoString).
    fn single(text: &str) -> Self {
        let value = |name: &str| {
            let mut rows = text.lines().filter_map(|line| line.split_once(':'));
            rows.find_map(|(known, value)| (known == name).then_some(value.trim()))
        };
        let primary = value("master_host")
            .zip(value("master_port").and_then(|port| port.parse().ok()))
            .map(|(host, port)| {
                let address = NodeAddress {
                    host: host.to_owned(),
                    port,
                };
                (address, value("master_link_status") == Some("up"))
            });
        let replicas = text.lines().filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.strip_prefix("slave")?.parse::<u32>().ok()?;
            let field = |wanted: &str| {
                let mut parts = value.trim().split(',');
                parts.find_map(|part| part.strip_prefix(wanted)?.strip_prefix('='))
            };
            Some(NodeAddress {
                host: field("ip")?.to_owned(),
                port: field("port")?.parse().ok()?,
            })
        });
        Self::Single {
            primary,
            replicas: replicas.collect(),
        }
    }

    /// The words of a node that answers "not now".
    pub fn later(&self) -> Option<&str> {
        match self {
            Self::Single { .. } => None,
            Self::Cluster(Told::Known(shards)) => {
                let unreached = shards.unreached().map(|(_, reason)| reason);
                unreached.filter(|reason| asks_for_patience(reason))
            }
            Self::Cluster(told) => told.later(),
        }
    }

    /// The shards, where it is a cluster that tells them.
    pub fn shards(&self) -> Option<&Shards> {
        match self {
            Self::Cluster(told) => told.known(),
            Self::Single { .. } => None,
        }
    }
}

impl Shards {
    /// Keys of all shards; `None` where one does not tell.
    pub fn keys(&self) -> Option<u64> {
        let keys = self.primaries.iter().map(|node| node.known()?.keys);
        keys.sum()
    }

    /// Slots that no node serves: the first, and how many.
    pub fn gap(&self) -> Option<(u16, usize)> {
        let first = self.topology.first_gap()?;
        let open = (0..SLOTS).filter(|&slot| self.topology.owner(slot).is_none());
        Some((first, open.count()))
    }

    /// The primaries that could not be asked: the first, and why.
    pub fn unreached(&self) -> Option<(&NodeAddress, &str)> {
        let mut shards = self.topology.shards.iter().zip(&self.primaries);
        shards.find_map(|(shard, node)| Some((&shard.primary.announced, node.reason()?)))
    }
}

/// Why a node does not tell: the server's words alone, where it answers "not now".
fn reason(error: ServerError) -> String {
    match error {
        ServerError::Connect { reason, .. }
        | ServerError::Refused { reason, .. }
        | ServerError::Reply { reason, .. }
            if asks_for_patience(&reason) =>
        {
            reason
        }
        other => other.to_string(),
    }
}

fn look_at(
    at: &ConnectOptions,
    own: Option<&str>,
    leftovers: &mut Leftovers,
) -> Result<NodeFacts, ServerError> {
    let mut conn = Conn::open(at)?;
    let facts = Facts::ask(&mut conn)?;
    let rows = databases(&mut conn, &facts)?;
    if own.is_none() || facts.run_id.as_deref() != own {
        leftovers.add(Leftovers::find(&mut conn, &rows)?);
    }
    Ok(NodeFacts {
        facts,
        keys: rows
            .known()
            .map(|rows| rows.iter().map(|row| row.keys).sum()),
    })
}

/// The beginning of names that the node behind `conn` serves itself, so that writing can be tried
/// there: `like` and a hash tag. `like` alone where there is no cluster, or nothing fits.
///
/// # Errors
/// The connection.
pub fn served_here(conn: &mut Conn, layout: &Layout, like: &[u8]) -> Result<Vec<u8>, ServerError> {
    let Some(shards) = layout.shards() else {
        return Ok(like.to_vec());
    };
    for shard in &shards.topology.shards {
        let Some(slots) = shard.slots.first() else {
            continue;
        };
        let name = [like, tag_for_slot(*slots.start()).as_bytes()].concat();
        let key = [name.as_slice(), ABSENT_KEY.as_bytes()].concat();
        match conn.try_query(cmd("PTTL").arg(&key))? {
            Err(text) if text.starts_with("MOVED") => {}
            _ => return Ok(name),
        }
    }
    Ok(like.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replication_is_read_as_info_tells_it() {
        let address = |host: &str, port| NodeAddress {
            host: host.to_owned(),
            port,
        };
        let text = "# Replication\r\nrole:master\r\nconnected_slaves:2\r\n\
                    slave0:ip=10.0.0.2,port=6379,state=online,offset=14,lag=0\r\n\
                    slave1:ip=::1,port=7000,state=wait_bgsave,offset=0,lag=0\r\n\
                    slave_repl_offset:14\r\n";
        let Layout::Single { primary, replicas } = Layout::single(text) else {
            panic!("no cluster")
        };
        assert_eq!(primary, None);
        assert_eq!(replicas, [address("10.0.0.2", 6379), address("::1", 7000)]);
        let text = "role:slave\r\nmaster_host:db.example\r\nmaster_port:6380\r\n\
                    master_link_status:down\r\n";
        let Layout::Single { primary, replicas } = Layout::single(text) else {
            panic!("no cluster")
        };
        assert_eq!(primary, Some((address("db.example", 6380), false)));
        assert!(replicas.is_empty());
        assert!(matches!(
            Layout::single(""),
            Layout::Single { primary: None, replicas } if replicas.is_empty()
        ));
    }
}
