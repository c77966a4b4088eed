//! A node of a cluster: which slots it and others serve, which are on their way, and where it sends
//! a client that asks the wrong node.

use std::collections::BTreeMap;

use super::Server;
use super::client::WORLD;
use super::process::Cx;
use super::release::Since;
use super::slots::{SLOTS, slot_of};
use super::table::{self, Found, Keys, Row, WRITE};

/// A cluster as one node sees it. The world gives each node its own, so that they may differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The node's own id.
    pub me: String,
    /// All nodes that it knows, itself among them.
    pub nodes: Vec<Node>,
    /// Who serves which slots: the last slot of a range and the node's id, by the first slot.
    ranges: BTreeMap<u16, (u16, String)>,
    /// Slots that go to another node.
    pub migrating: BTreeMap<u16, String>,
    /// Slots that come from another node.
    pub importing: BTreeMap<u16, String>,
    /// The cluster's epoch.
    pub epoch: u64,
}

/// A node as others know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Forty hexadecimal digits.
    pub id: String,
    /// The host that it announces.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whose replica it is.
    pub replica_of: Option<String>,
    /// The epoch in which it got its slots.
    pub epoch: u64,
    /// Whether the others hold it for failed.
    pub has_failed: bool,
}

impl Cluster {
    /// A cluster of these nodes, of which nobody serves a slot yet.
    pub fn new(me: &str, nodes: Vec<Node>) -> Self {
        let epoch = nodes.iter().map(|node| node.epoch).max().unwrap_or(0);
        Self {
            me: me.to_owned(),
            nodes,
            ranges: BTreeMap::new(),
            migrating: BTreeMap::new(),
            importing: BTreeMap::new(),
            epoch,
        }
    }

    /// Gives slots to a node.
    pub fn assign(&mut self, slots: std::ops::RangeInclusive<u16>, to: &str) {
        self.take_away(slots.clone());
        self.ranges
            .insert(*slots.start(), (*slots.end(), to.to_owned()));
        self.join();
    }

    /// Nobody serves these slots any more.
    pub fn take_away(&mut self, slots: std::ops::RangeInclusive<u16>) {
        let (first, last) = (*slots.start(), *slots.end());
        let mut left = BTreeMap::new();
        for (start, (end, id)) in std::mem::take(&mut self.ranges) {
            if start < first {
                left.insert(start, (end.min(first - 1), id.clone()));
            }
            if end > last {
                left.insert(start.max(last + 1), (end, id.clone()));
            }
        }
        self.ranges = left;
    }

    /// Makes one range of neighbours of the same node.
    fn join(&mut self) {
        let mut joined: Vec<(u16, u16, String)> = Vec::new();
        for (start, (end, id)) in &self.ranges {
            match joined.last_mut() {
                Some((_, last, known)) if *last + 1 == *start && known == id => *last = *end,
                _ => joined.push((*start, *end, id.clone())),
            }
        }
        self.ranges = joined
            .into_iter()
            .map(|(start, end, id)| (start, (end, id)))
            .collect();
    }

    /// Who serves the slot.
    pub fn owner(&self, slot: u16) -> Option<&str> {
        let (_, (last, id)) = self.ranges.range(..=slot).next_back()?;
        (slot <= *last).then_some(id)
    }

    /// Ranges of slots and the ids of who serves them.
    pub fn ranges(&self) -> impl Iterator<Item = (std::ops::RangeInclusive<u16>, &str)> {
        self.ranges
            .iter()
            .map(|(first, (last, id))| (*first..=*last, id.as_str()))
    }

    /// A node by its id.
    pub fn node(&self, id: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The same, to be changed.
    pub fn node_mut(&mut self, id: &str) -> Option<&mut Node> {
        self.nodes.iter_mut().find(|node| node.id == id)
    }

    /// How many slots are served.
    pub fn assigned(&self) -> usize {
        self.ranges
            .iter()
            .map(|(first, (last, _))| usize::from(last - first) + 1)
            .sum()
    }

    /// Whether the node serves the slot, or its primary does.
    fn serves(&self, owner: &str) -> bool {
        owner == self.me
    }

    fn is_replica_of(&self, owner: &str) -> bool {
        self.node(&self.me)
            .is_some_and(|me| me.replica_of.as_deref() == Some(owner))
    }

    fn address(&self, id: &str) -> String {
        self.node(id).map_or_else(
            || "?:0".to_owned(),
            |node| format!("{}:{}", node.host, node.port),
        )
    }
}

impl Server {
    /// Puts the server into a cluster, or changes what it sees of it.
    pub fn set_cluster(&mut self, cluster: Cluster) {
        self.cluster = Some(Box::new(cluster));
    }

    /// The cluster as the node sees it.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_deref()
    }

    /// The same, to be changed.
    pub fn cluster_mut(&mut self) -> Option<&mut Cluster> {
        self.cluster.as_deref_mut()
    }

    /// Whether a cluster may have more than one database (Valkey 9).
    pub(super) fn has_databases_in_clusters(&self) -> bool {
        self.release().is_valkey() && self.release().has(Since::FieldTtl)
    }

    /// Whether the node as a whole serves: all slots have somebody, and nobody has failed.
    pub(super) fn cluster_is_up(&self) -> bool {
        let all = |cluster: &Cluster| cluster.assigned() == usize::from(SLOTS);
        !self.faults.conditions.cluster_down && self.cluster().is_some_and(all)
    }

    /// Where the cluster sends the client with these words, if not here.
    pub(super) fn redirection(&self, cx: &Cx, row: &'static Row, args: &[&[u8]]) -> Option<String> {
        if !self.config.cluster || cx.client == WORLD {
            return None;
        }
        let client = self.client(cx.client)?;
        let mut asking = client.session.asking;
        let Some(transaction) = client.transaction.as_ref().filter(|_| row.name == "exec") else {
            if row.keys == Keys::None {
                return None;
            }
            asking |= client
                .transaction
                .as_ref()
                .is_some_and(|transaction| transaction.asking);
            let keys = table::keys_of(row, args);
            // Valkey 9.1 looks at slots on their way when EXEC comes.
            let is_queued = client.transaction.is_some() && self.release().has(Since::V91);
            let redirection = self.redirect(cx, &[(row, keys)], asking);
            let is_about_way =
                |text: &String| text.starts_with("ASK") || text.starts_with("TRYAGAIN");
            return redirection.filter(|text| !(is_queued && is_about_way(text)));
        };
        let mut all = Vec::new();
        for words in &transaction.queued {
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            if let Found::Row(row) = table::find(&self.config, &words) {
                all.push((row, table::keys_of(row, &words)));
            }
        }
        self.redirect(cx, &all, asking || transaction.asking)
    }

    fn redirect(&self, cx: &Cx, commands: &[(&Row, Vec<&[u8]>)], asking: bool) -> Option<String> {
        let keys: Vec<&[u8]> = commands
            .iter()
            .flat_map(|(_, keys)| keys.iter().copied())
            .collect();
        let slot = slot_of(keys.first()?);
        let cluster = self.cluster()?;
        let Some(owner) = cluster.owner(slot) else {
            return Some("CLUSTERDOWN Hash slot not served".to_owned());
        };
        if keys.iter().any(|key| slot_of(key) != slot) {
            return Some("CROSSSLOT Keys in request don't hash to the same slot".to_owned());
        }
        if !self.cluster_is_up() {
            return Some("CLUSTERDOWN The cluster is down".to_owned());
        }
        let is_mine = cluster.serves(owner);
        let missing = keys.iter().filter(|key| {
            let entry = self.keyspace.get(cx.db, key);
            entry.is_none_or(|entry| entry.is_expired(cx.now))
        });
        let missing = missing.count();
        let distinct = {
            let mut distinct = keys.clone();
            distinct.sort_unstable();
            distinct.dedup();
            distinct.len()
        };
        let try_again =
            || Some("TRYAGAIN Multiple keys request during rehashing of slot".to_owned());
        if let Some(to) = cluster
            .migrating
            .get(&slot)
            .filter(|_| is_mine && missing > 0)
        {
            let is_7 = self.release().has(Since::R70);
            return match missing < keys.len() && is_7 {
                true => try_again(),
                false => Some(format!("ASK {slot} {}", cluster.address(to))),
            };
        }
        if cluster.importing.contains_key(&slot) && asking {
            return match distinct > 1 && missing > 0 {
                true => try_again(),
                false => None,
            };
        }
        let reads_only = commands.iter().all(|(row, _)| row.flags & WRITE == 0);
        let read_only = self
            .client(cx.client)
            .is_some_and(|client| client.session.read_only);
        if is_mine || (reads_only && read_only && cluster.is_replica_of(owner)) {
            return None;
        }
        Some(format!("MOVED {slot} {}", cluster.address(owner)))
    }

    /// Whether a script may not touch these keys, because another node has them.
    pub(super) fn script_leaves_node(&self, keys: &[&[u8]]) -> bool {
        let Some(cluster) = self.cluster().filter(|_| self.config.cluster) else {
            return false;
        };
        keys.iter()
            .any(|key| cluster.owner(slot_of(key)) != Some(cluster.me.as_str()))
    }

    /// Carries a key of a slot on its way to the node that gets it, as MIGRATE does.
    pub fn migrate(&mut self, to: &mut Server, db: u32, key: &[u8], now_ms: u64) -> bool {
        let Some(entry) = self.keyspace.get(db, key).cloned() else {
            return false;
        };
        let cx = Cx::of_world(db, now_ms);
        if entry.is_expired(now_ms) || !self.delete(&cx, key) {
            return false;
        }
        to.put(&cx, key, entry);
        true
    }
}
