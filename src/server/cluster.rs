//! What a cluster says of itself: which shard serves which slots, and where its nodes are.
//!
//! CLUSTER SLOTS is what every server from 3.0 on answers (cluster.c, `clusterCommand`; from 7.0 on
//! each node carries its hostname in a fourth part). The addresses are those that the nodes know of
//! themselves; behind tunnels and NAT they lead nowhere, and a [`NodeMap`](crate::endpoint::NodeMap) says where to go instead.

use std::ops::RangeInclusive;

use super::slots::SLOTS;
use super::{Conn, ServerError};
use crate::endpoint::{ConnectOptions, NodeAddress, Transport};
use crate::server::reply::{Reply, cmd, from_reply_ref};

/// One node of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClusterNode {
    /// Its id, 40 hexadecimal digits.
    pub id: String,
    /// Where it says it is.
    pub announced: NodeAddress,
    /// Its name, where it announces one: what a certificate is checked against.
    pub hostname: Option<String>,
}

/// The nodes that hold the same slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Takes writes.
    pub primary: ClusterNode,
    /// Follow it.
    pub replicas: Vec<ClusterNode>,
    /// Its slots, ascending.
    pub slots: Vec<RangeInclusive<u16>>,
}

/// Who serves what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topology {
    /// In the order of their first slots.
    pub shards: Vec<Shard>,
    /// The shard of each slot, an index into `shards`.
    owners: Vec<Option<u16>>,
}

impl Topology {
    /// Asks a node.
    ///
    /// # Errors
    /// Where CLUSTER SLOTS is refused or not understood, and the connection.
    pub fn ask(conn: &mut Conn) -> Result<Self, ServerError> {
        let value = conn
            .ask(cmd("CLUSTER").arg("SLOTS"))?
            .map_err(|text| conn.refusal("CLUSTER SLOTS", text))?;
        Self::read(&value, conn.address())
            .ok_or_else(|| conn.confused("CLUSTER SLOTS without ranges, nodes or ports"))
    }

    /// An empty host means "where you asked" (cluster.c: a node that does not know its own address
    /// yet), and so does a null one with `cluster-preferred-endpoint-type unknown-endpoint`.
    fn read(value: &Reply, asked: &str) -> Option<Self> {
        let own_host = own_host(asked);
        let Reply::Array(rows) = value else {
            return None;
        };
        let mut shards: Vec<Shard> = Vec::new();
        for row in rows {
            let Reply::Array(parts) = row else {
                return None;
            };
            let [first, last, primary, replicas @ ..] = parts.as_slice() else {
                return None;
            };
            let slots = slot(first)?..=slot(last)?;
            let primary = node(primary, &own_host)?;
            match shards.iter_mut().find(|shard| shard.primary == primary) {
                Some(shard) => shard.slots.push(slots),
                None => shards.push(Shard {
                    primary,
                    replicas: replicas
                        .iter()
                        .map(|replica| node(replica, &own_host))
                        .collect::<Option<_>>()?,
                    slots: vec![slots],
                }),
            }
        }
        Some(Self::of(shards))
    }

    /// Of these shards, in whatever order.
    pub(crate) fn of(mut shards: Vec<Shard>) -> Self {
        for shard in &mut shards {
            shard.slots.sort_by_key(|range| *range.start());
        }
        shards.sort_by_key(|shard| shard.slots.first().map(|range| *range.start()));
        let mut owners = vec![None; SLOTS.into()];
        for (number, shard) in shards.iter().enumerate() {
            for slot in shard.slots.iter().cloned().flatten() {
                owners[usize::from(slot)] = u16::try_from(number).ok();
            }
        }
        Self { shards, owners }
    }

    /// The shard that serves `slot`: an index into [`Self::shards`].
    pub fn owner(&self, slot: u16) -> Option<usize> {
        self.owners
            .get(usize::from(slot))
            .copied()
            .flatten()
            .map(usize::from)
    }

    /// The lowest slot that nobody serves.
    pub fn first_gap(&self) -> Option<u16> {
        (0..SLOTS).find(|&slot| self.owner(slot).is_none())
    }
}

/// How to connect to `node`: as to the node that was named, but there.
pub fn options_for(base: &ConnectOptions, node: &ClusterNode) -> ConnectOptions {
    let mut options = options_at(base, &node.announced);
    if options.tls.sni.is_none() {
        options.tls.sni = node.hostname.clone();
    }
    options
}

/// How to connect to an announced address, such as that of a redirection.
pub fn options_at(base: &ConnectOptions, announced: &NodeAddress) -> ConnectOptions {
    let NodeAddress { host, port } = base.node_map.reach(announced).clone();
    let mut options = base.clone();
    options.address = match base.address.is_tls() {
        true => Transport::Tls { host, port },
        false => Transport::Tcp { host, port },
    };
    options
}

/// What a node answers that does not serve the key's slot (any more, or yet).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redirect {
    /// Another node serves the slot: `MOVED 3999 127.0.0.1:6381`.
    Moved {
        /// The slot.
        slot: u16,
        /// Who serves it; an empty host means the node that answered, at this port.
        to: NodeAddress,
    },
    /// The slot is on its way, and this key is, or would be, already there: the next command goes
    /// there, after ASKING.
    Ask {
        /// The slot.
        slot: u16,
        /// Where it goes.
        to: NodeAddress,
    },
    /// Several keys of a slot that is on its way, not all here: try again.
    TryAgain,
    /// The cluster does not serve the slot just now.
    Down,
}

impl Redirect {
    /// Reads an error reply.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let kind = words.next()?;
        match kind {
            "TRYAGAIN" => return Some(Self::TryAgain),
            "CLUSTERDOWN" => return Some(Self::Down),
            "MOVED" | "ASK" => {}
            _ => return None,
        }
        let slot: u16 = words.next()?.parse().ok().filter(|&slot| slot < SLOTS)?;
        let to = NodeAddress::parse(words.next()?)?;
        Some(if kind == "MOVED" {
            Self::Moved { slot, to }
        } else {
            Self::Ask { slot, to }
        })
    }
}

/// As the node said it.
impl std::fmt::Display for Redirect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Moved { slot, to } => write!(f, "MOVED {slot} {to}"),
            Self::Ask { slot, to } => write!(f, "ASK {slot} {to}"),
            Self::TryAgain => f.write_str("TRYAGAIN"),
            Self::Down => f.write_str("CLUSTERDOWN"),
        }
    }
}

/// Whether a command was refused for what it is. A node looks last at whose slot a key is in: an
/// answer that says where to go says that the command is known and allowed.
pub fn is_refusal(text: &str) -> bool {
    Redirect::parse(text).is_none()
}

/// The host in `scheme://host:port`.
fn own_host(address: &str) -> String {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    NodeAddress::parse(rest).map_or_else(String::new, |address| address.host)
}

fn slot(value: &Reply) -> Option<u16> {
    match value {
        Reply::Int(number) => u16::try_from(*number).ok().filter(|&slot| slot < SLOTS),
        _ => None,
    }
}

fn text(value: &Reply) -> Option<String> {
    from_reply_ref::<Option<String>>(value).ok()?
}

fn node(value: &Reply, own_host: &str) -> Option<ClusterNode> {
    let Reply::Array(parts) = value else {
        return None;
    };
    let port = match parts.get(1)? {
        Reply::Int(port) => u16::try_from(*port).ok()?,
        _ => return None,
    };
    let endpoint = text(parts.first()?).filter(|host| !host.is_empty() && host != "?");
    let announced = NodeAddress {
        host: endpoint.unwrap_or_else(|| own_host.to_owned()),
        port,
    };
    Some(ClusterNode {
        id: parts.get(2).and_then(text).unwrap_or_default(),
        hostname: parts.get(3).and_then(hostname),
        announced,
    })
}

/// The fourth part is a flat list of names and values, or a map in RESP3.
fn hostname(value: &Reply) -> Option<String> {
    let pairs: Vec<(&Reply, &Reply)> = match value {
        Reply::Array(items) => items
            .chunks_exact(2)
            .map(|pair| (&pair[0], &pair[1]))
            .collect(),
        Reply::Map(pairs) => pairs.iter().map(|(name, value)| (name, value)).collect(),
        _ => return None,
    };
    let (_, value) = pairs
        .into_iter()
        .find(|(name, _)| text(name).as_deref() == Some("hostname"))?;
    text(value).filter(|name| !name.is_empty() && name != "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.as_bytes().to_vec())
    }

    fn announced(host: Reply, port: i64, id: &str, extra: Vec<Reply>) -> Reply {
        let mut parts = vec![host, Reply::Int(port), bulk(id)];
        if !extra.is_empty() {
            parts.push(Reply::Array(extra));
        }
        Reply::Array(parts)
    }

    #[test]
    fn slots_are_read_with_and_without_names() {
        let reply = Reply::Array(vec![
            Reply::Array(vec![
                Reply::Int(8192),
                Reply::Int(16383),
                announced(
                    Reply::Nil,
                    7001,
                    "b",
                    vec![bulk("hostname"), bulk("b.example")],
                ),
            ]),
            Reply::Array(vec![
                Reply::Int(0),
                Reply::Int(8190),
                announced(bulk("10.0.0.1"), 7000, "a", Vec::new()),
                announced(bulk("10.0.0.3"), 7002, "c", Vec::new()),
            ]),
        ]);
        let topology = Topology::read(&reply, "redis://[::1]:7001").unwrap();
        assert_eq!(topology.shards.len(), 2);
        assert_eq!(topology.owner(0), Some(0));
        assert_eq!(topology.owner(16_383), Some(1));
        assert_eq!(topology.first_gap(), Some(8191));
        let [first, second] = topology.shards.as_slice() else {
            panic!("two shards");
        };
        assert_eq!(first.replicas[0].announced.to_string(), "10.0.0.3:7002");
        assert_eq!(second.primary.announced.to_string(), "[::1]:7001");
        assert_eq!(second.primary.hostname.as_deref(), Some("b.example"));
    }

    #[test]
    fn what_is_no_topology_is_none() {
        for value in [
            Reply::Nil,
            Reply::Array(vec![Reply::Int(1)]),
            Reply::Array(vec![Reply::Array(vec![Reply::Int(0), Reply::Int(16_384)])]),
            Reply::Array(vec![Reply::Array(vec![
                Reply::Int(0),
                Reply::Int(1),
                Reply::Int(2),
            ])]),
        ] {
            assert!(Topology::read(&value, "redis://h:1").is_none(), "{value:?}");
        }
    }

    #[test]
    fn redirections_are_read() {
        let to = |host: &str, port| NodeAddress {
            host: host.to_owned(),
            port,
        };
        assert_eq!(
            Redirect::parse("MOVED 3999 127.0.0.1:6381"),
            Some(Redirect::Moved {
                slot: 3999,
                to: to("127.0.0.1", 6381)
            })
        );
        assert_eq!(
            Redirect::parse("ASK 1 fe80::1:6381"),
            Some(Redirect::Ask {
                slot: 1,
                to: to("fe80::1", 6381)
            })
        );
        assert_eq!(
            Redirect::parse("MOVED 1 :7001"),
            Some(Redirect::Moved {
                slot: 1,
                to: to("", 7001)
            })
        );
        assert_eq!(
            Redirect::parse("TRYAGAIN Multiple keys request during rehashing of slot"),
            Some(Redirect::TryAgain)
        );
        assert_eq!(
            Redirect::parse("CLUSTERDOWN The cluster is down"),
            Some(Redirect::Down)
        );
        for text in ["ERR no", "MOVED", "MOVED 16384 h:1", "ASK 1 h", ""] {
            assert_eq!(Redirect::parse(text), None, "{text}");
        }
    }
}
