//! How a cluster lies at one moment: who serves which slots, which of them are on their way, and by
//! what numbers the nodes would tell that something happened in between.

use std::collections::BTreeMap;

use redis::Value;

use crate::endpoint::NodeAddress;
use crate::server::cluster::{ClusterNode, Topology};
use crate::server::{Conn, ServerError};
use crate::source::server::converge::same_owners;

/// What one node says.
#[derive(Debug, Clone)]
pub(super) struct Look {
    topology: Topology,
    nodes: Nodes,
}

/// What its CLUSTER NODES says.
#[derive(Debug, Clone, Default)]
struct Nodes {
    /// Of its own slots those that are on their way to another node, and that node's id.
    open: BTreeMap<u16, String>,
    /// Its id, and the number that grows whenever it takes slots over.
    epoch: Option<(String, u64)>,
    /// Where nodes are that may serve no slot yet, by id.
    addresses: BTreeMap<String, NodeAddress>,
}

/// What the nodes agree on.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub topology: Topology,
    /// Slots that are on their way: to which node.
    pub open: BTreeMap<u16, String>,
    pub epochs: BTreeMap<String, u64>,
    addresses: BTreeMap<String, NodeAddress>,
}

impl Look {
    /// Asks a node. Where CLUSTER NODES is refused, slots that are on their way are not known.
    pub fn ask(conn: &mut Conn) -> Result<Self, ServerError> {
        let topology = Topology::ask(conn)?;
        let answer = conn.try_query(redis::cmd("CLUSTER").arg("NODES"))?;
        let text = match answer {
            Ok(Value::BulkString(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
            Ok(Value::SimpleString(text)) => text,
            Ok(Value::VerbatimString { text, .. }) => text,
            _ => String::new(),
        };
        let mut nodes = Nodes::default();
        for line in text.lines() {
            nodes.read(line);
        }
        Ok(Self { topology, nodes })
    }
}

impl Nodes {
    /// `<id> <ip:port@cport[,name]> <flags> <primary> <ping> <pong> <epoch> <link> <slot> …`
    /// (cluster.c, clusterGenNodeDescription). Only of itself a node tells what is on its way.
    fn read(&mut self, line: &str) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [id, address, flags, _, _, _, epoch, _, slots @ ..] = words.as_slice() else {
            return;
        };
        let address = address
            .split(['@', ','])
            .next()
            .and_then(NodeAddress::parse);
        if let Some(address) = address.filter(|address| !address.host.is_empty()) {
            self.addresses.insert((*id).to_owned(), address);
        }
        if !flags.split(',').any(|flag| flag == "myself") {
            return;
        }
        if let Ok(epoch) = epoch.parse() {
            self.epoch = Some(((*id).to_owned(), epoch));
        }
        for slot in slots {
            let inner = slot
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'));
            if let Some((slot, to)) = inner.and_then(|inner| inner.split_once("->-"))
                && let Ok(slot) = slot.parse()
            {
                self.open.insert(slot, to.to_owned());
            }
        }
    }
}

impl View {
    /// What several nodes say, if they agree.
    pub fn of(looks: Vec<Look>) -> Option<Self> {
        let mut looks = looks.into_iter();
        let first = looks.next()?;
        let mut view = Self {
            topology: first.topology.clone(),
            open: BTreeMap::new(),
            epochs: BTreeMap::new(),
            addresses: BTreeMap::new(),
        };
        view.add(first.nodes);
        for look in looks {
            if !same_owners(&view.topology, &look.topology) {
                return None;
            }
            view.add(look.nodes);
        }
        Some(view)
    }

    fn add(&mut self, nodes: Nodes) {
        self.open.extend(nodes.open);
        self.epochs.extend(nodes.epoch);
        self.addresses.extend(nodes.addresses);
    }

    /// The id of the primary that serves a slot.
    pub fn owner(&self, slot: u16) -> Option<&str> {
        let shard = self.topology.owner(slot)?;
        Some(&self.topology.shards.get(shard)?.primary.id)
    }

    /// Whether nothing happened between two views.
    pub fn is_same(&self, other: &Self) -> bool {
        same_owners(&self.topology, &other.topology)
            && self.open == other.open
            && self.epochs == other.epochs
    }

    /// A node by its id, also one without slots.
    pub fn node(&self, id: &str) -> Option<ClusterNode> {
        let shards = self.topology.shards.iter();
        let primary = shards
            .map(|shard| &shard.primary)
            .find(|node| node.id == id);
        primary.cloned().or_else(|| {
            Some(ClusterNode {
                id: id.to_owned(),
                announced: self.addresses.get(id)?.clone(),
                hostname: None,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_its_way_is_read_of_the_node_itself() {
        let mut look = Nodes::default();
        look.read("aa 127.0.0.1:7000@17000,host myself,master - 0 0 5 connected 0-5460 [93->-bb] [77-<-cc]");
        look.read("bb [::1]:7001@17001 master - 0 0 7 connected 5461-9000 [1->-aa]");
        look.read("cc :0@0 master,noaddr - 0 0 7 disconnected");
        look.read("nonsense");
        assert_eq!(look.open, BTreeMap::from([(93, "bb".to_owned())]));
        assert_eq!(look.epoch, Some(("aa".to_owned(), 5)));
        assert_eq!(look.addresses["bb"].to_string(), "[::1]:7001");
        assert!(!look.addresses.contains_key("cc"));
    }
}
