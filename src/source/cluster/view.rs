//! A view of a cluster at one moment: who serves which slots, which slots are being moved, and the
//! epochs by which the nodes would show that something happened between two views. No I/O.
//!
//! Only the two nodes that a slot moves between say so, each for itself (CLUSTER NODES). The word of
//! one of them is enough: on some versions a replica that replaces the giving node does not know of
//! the move. So every primary is asked, also those that are not read and those without slots. What
//! was not told is unknown, which is not the same as "nothing is being moved".

use std::collections::{BTreeMap, BTreeSet};

use crate::endpoint::NodeAddress;
use crate::server::cluster::{ClusterNode, Topology};
use crate::server::slots::SLOTS;
use crate::source::server::converge::same_owners;

/// What one node says.
#[derive(Debug, Clone)]
pub(super) struct Look {
    topology: Topology,
    nodes: Result<Nodes, Unknown>,
}

/// Why it is not known which slots are being moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unknown {
    /// For messages.
    pub reason: String,
    /// Whether asking again may help.
    pub may_pass: bool,
}

/// What one node says in CLUSTER NODES.
#[derive(Debug, Clone, Default)]
pub(super) struct Nodes {
    /// Its own id.
    id: String,
    /// Its epoch, which grows whenever it takes slots over.
    epoch: u64,
    /// Slots of its own that it migrates, with the id of the node that they go to.
    leaving: BTreeMap<u16, String>,
    /// Slots of other nodes that it imports.
    coming: BTreeSet<u16>,
    /// Imported slots of which it has no key.
    without_keys: BTreeSet<u16>,
    /// All nodes that it knows, by id.
    known: BTreeMap<String, Known>,
}

/// What one node knows of another.
#[derive(Debug, Clone, Default)]
struct Known {
    address: Option<NodeAddress>,
    hostname: Option<String>,
    is_primary: bool,
    /// Most primaries consider it dead.
    has_failed: bool,
}

/// What the nodes agree on.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub topology: Topology,
    /// Slots that are being moved, with the ids of the nodes that they go to.
    pub open: BTreeMap<u16, BTreeSet<String>>,
    /// Those of them whose owner says where they go.
    sent: BTreeSet<u16>,
    pub epochs: BTreeMap<String, u64>,
    /// Why there may be others, if so.
    pub unknown: Option<Unknown>,
    /// The nodes that said which slots are being moved.
    told: BTreeSet<String>,
    known: BTreeMap<String, Known>,
}

impl Look {
    pub fn new(topology: Topology, nodes: Result<Nodes, Unknown>) -> Self {
        Self { topology, nodes }
    }
}

impl Nodes {
    /// One line for each node. The error says what is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut nodes = Self::default();
        for line in text.lines() {
            nodes.read_line(line)?;
        }
        match nodes.id.is_empty() {
            true => Err("it has no line about the node itself".to_owned()),
            false => Ok(nodes),
        }
    }

    /// Slots of other nodes that it imports.
    pub fn coming(&self) -> &BTreeSet<u16> {
        &self.coming
    }

    /// It has no key of these.
    pub fn lacks_keys_of(&mut self, slots: BTreeSet<u16>) {
        self.without_keys = slots;
    }

    /// `<id> <ip:port@cport[,name]> <flags> <primary> <ping> <pong> <epoch> <link> <slot> …`
    /// (cluster.c, clusterGenNodeDescription). A node tells of moves only on its own line.
    fn read_line(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [id, address, flags, _, _, _, epoch, _, slots @ ..] = words.as_slice() else {
            return Ok(());
        };
        let mut names = address.split(',');
        let address = names.next().and_then(|address| address.split('@').next());
        let hostname = names.next().filter(|name| !name.is_empty());
        let has = |flag: &str| flags.split(',').any(|one| one == flag);
        let address = address.and_then(NodeAddress::parse);
        let known = Known {
            address: address.filter(|address| !address.host.is_empty()),
            hostname: hostname
                .filter(|name| !name.contains('='))
                .map(str::to_owned),
            is_primary: has("master") && !has("handshake"),
            has_failed: has("fail"),
        };
        self.known.insert((*id).to_owned(), known);
        if !has("myself") {
            return Ok(());
        }
        self.id = (*id).to_owned();
        self.epoch = epoch
            .parse()
            .map_err(|_| "the node's own epoch is no number".to_owned())?;
        for slot in slots.iter().filter(|slot| slot.starts_with('[')) {
            let inner = slot.trim_matches(['[', ']']);
            let leaving = inner.split_once("->-");
            let coming = inner.split_once("-<-");
            let number = leaving.or(coming).and_then(|(slot, _)| slot.parse().ok());
            match (number, leaving) {
                (Some(slot), Some((_, to))) => {
                    self.leaving.insert(slot, to.to_owned());
                }
                (Some(slot), None) => {
                    self.coming.insert(slot);
                }
                (None, _) => return Err(format!("{slot} is not understood")),
            }
        }
        Ok(())
    }
}

impl View {
    /// The view of several nodes, if they agree.
    pub fn of(mut looks: Vec<Look>) -> Option<Self> {
        // A node that imports a slot does not learn of a new owner of it (cluster.c,
        // clusterUpdateSlotsConfigWith).
        looks.sort_by_key(|look| look.nodes.as_ref().map_or(0, |nodes| nodes.coming.len()));
        let mut view = Self {
            topology: looks.first()?.topology.clone(),
            open: BTreeMap::new(),
            sent: BTreeSet::new(),
            epochs: BTreeMap::new(),
            unknown: None,
            told: BTreeSet::new(),
            known: BTreeMap::new(),
        };
        for look in looks {
            if !same_owners(&view.topology, &look.topology) && !view.differs_in_coming(&look) {
                return None;
            }
            match look.nodes {
                Ok(nodes) => {
                    view.epochs.insert(nodes.id.clone(), nodes.epoch);
                    view.add(nodes);
                }
                Err(unknown) => view.lacks(unknown),
            }
        }
        Some(view)
    }

    /// Whether a node disagrees only about slots that it imports.
    fn differs_in_coming(&self, look: &Look) -> bool {
        let Ok(nodes) = &look.nodes else { return false };
        let mut slots = (0..SLOTS).filter(|slot| !nodes.coming.contains(slot));
        slots.all(|slot| self.owner(slot) == owner(&look.topology, slot))
    }

    /// Adds what a node says of slots that are being moved.
    pub fn add(&mut self, nodes: Nodes) {
        for (slot, to) in nodes.leaving {
            // The owner decides where clients are sent: a mark at another node was forgotten there.
            if self.owner(slot) == Some(&nodes.id) {
                self.open.insert(slot, BTreeSet::from([to]));
                self.sent.insert(slot);
            } else if !self.sent.contains(&slot) {
                self.open.entry(slot).or_default().insert(to);
            }
        }
        for slot in nodes.coming {
            // A slot that has arrived is no longer being moved, and a slot without keys can lose none:
            // if it is being moved, the owner says so or a key arrives.
            let is_elsewhere = self.sent.contains(&slot);
            if self.owner(slot) != Some(&nodes.id)
                && !is_elsewhere
                && !nodes.without_keys.contains(&slot)
            {
                self.open.entry(slot).or_default().insert(nodes.id.clone());
            }
        }
        for (id, node) in nodes.known {
            let known = self.known.entry(id).or_default();
            known.is_primary |= node.is_primary;
            known.has_failed |= node.has_failed;
            known.address = node.address.or(known.address.take());
            known.hostname = node.hostname.or(known.hostname.take());
        }
        self.told.insert(nodes.id);
    }

    /// A node does not say which slots are being moved.
    pub fn lacks(&mut self, unknown: Unknown) {
        // If one node will never tell, waiting for the others is in vain.
        match &mut self.unknown {
            Some(known) if !known.may_pass => {}
            place => *place = Some(unknown),
        }
    }

    /// The ids of primaries that have not told, and whether each is considered dead or has no known
    /// address.
    pub fn not_asked(&self) -> Vec<(String, bool)> {
        let primaries = self
            .known
            .iter()
            .filter(|(id, node)| node.is_primary && !self.told.contains(*id));
        primaries
            .map(|(id, node)| (id.clone(), node.has_failed || node.address.is_none()))
            .collect()
    }

    /// The id of the primary that serves a slot.
    pub fn owner(&self, slot: u16) -> Option<&str> {
        owner(&self.topology, slot)
    }

    /// Whether it is certain that nothing happened between two views.
    pub fn is_same(&self, other: &Self) -> bool {
        self.unknown.is_none()
            && other.unknown.is_none()
            && same_owners(&self.topology, &other.topology)
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
            let known = self.known.get(id)?;
            Some(ClusterNode {
                id: id.to_owned(),
                announced: known.address.clone()?,
                hostname: known.hostname.clone(),
            })
        })
    }
}

fn owner(topology: &Topology, slot: u16) -> Option<&str> {
    let shard = topology.owner(slot)?;
    Some(&topology.shards.get(shard)?.primary.id)
}

#[cfg(test)]
pub(super) mod tests {
    use std::ops::RangeInclusive;

    use super::*;
    use crate::server::cluster::Shard;

    const TEXT: &str = "\
aa 127.0.0.1:7000@17000,host myself,master - 0 0 5 connected 0-5460 [93->-bb] [77-<-cc]
bb [::1]:7001@17001,,shard-id=1 master - 0 0 7 connected 5461-9000
cc :0@0 master,noaddr,fail - 0 0 7 disconnected
dd 127.0.0.1:7003@17003,d.example slave bb 0 0 7 connected
ee 127.0.0.1:7004@17004,e.example master,fail - 0 0 7 connected
";

    fn served(shards: &[(&str, RangeInclusive<u16>)]) -> Topology {
        let node = |id: &str| ClusterNode {
            id: id.to_owned(),
            announced: NodeAddress {
                host: id.to_owned(),
                port: 1,
            },
            hostname: None,
        };
        let shards = shards.iter().map(|(id, slots)| Shard {
            primary: node(id),
            replicas: Vec::new(),
            slots: vec![slots.clone()],
        });
        Topology::of(shards.collect())
    }

    /// A cluster in which these nodes serve these slots.
    pub fn lies(shards: &[(&str, RangeInclusive<u16>)]) -> View {
        let look = Look::new(served(shards), Ok(Nodes::default()));
        View::of(vec![look]).unwrap()
    }

    /// What a node says of itself: slots that leave it, as `7->-bb`, or come to it, as `7-<-bb`.
    fn says(id: &str, moves: &str) -> Nodes {
        let line = format!("{id} h:1@2 myself,master - 0 0 5 connected {moves}");
        Nodes::read(&line).unwrap()
    }

    /// The same, while these slots are on their way to these nodes.
    pub fn moving(mut view: View, slots: &[(u16, &str)]) -> View {
        for (slot, to) in slots {
            let to = BTreeSet::from([(*to).to_owned()]);
            view.open.insert(*slot, to);
        }
        view
    }

    #[test]
    fn what_is_on_its_way_is_read_of_the_node_itself() {
        let nodes = Nodes::read(TEXT).unwrap();
        assert_eq!(nodes.leaving, BTreeMap::from([(93, "bb".to_owned())]));
        assert_eq!(nodes.coming, BTreeSet::from([77]));
        assert_eq!((nodes.id.as_str(), nodes.epoch), ("aa", 5));
        let known = &nodes.known;
        let address = |id: &str| known[id].address.as_ref().map(ToString::to_string);
        assert_eq!(address("bb").unwrap(), "[::1]:7001");
        assert_eq!(known["bb"].hostname, None);
        assert_eq!(known["ee"].hostname.as_deref(), Some("e.example"));
        assert_eq!(address("cc"), None);
    }

    #[test]
    fn what_does_not_tell_is_not_none() {
        for text in [
            "",
            "nonsense",
            "bb [::1]:7001@17001 master - 0 0 7 connected 5461-9000",
            "aa h:1@2 myself,master - 0 0 many connected 0-5460",
            "aa h:1@2 myself,master - 0 0 5 connected 0-5460 [93-?-bb]",
        ] {
            assert!(Nodes::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn either_node_tells_and_every_primary_is_to_be_asked() {
        let look = |nodes: Result<Nodes, Unknown>| Look {
            topology: Topology::default(),
            nodes,
        };
        let of = |nodes| View::of(vec![look(nodes)]).unwrap();
        let view = of(Nodes::read(TEXT).map_err(|_| unreachable!()));
        let to = |id: &str| BTreeSet::from([id.to_owned()]);
        assert_eq!(view.open, BTreeMap::from([(77, to("aa")), (93, to("bb"))]));
        let not_asked = [("bb", false), ("cc", true), ("ee", true)];
        let not_asked = not_asked.map(|(id, failed)| (id.to_owned(), failed));
        assert_eq!(view.not_asked(), not_asked);
        assert!(view.is_same(&view));

        let unknown = |may_pass| Unknown {
            reason: "no".to_owned(),
            may_pass,
        };
        let mut view = of(Err(unknown(false)));
        assert!(!view.is_same(&view));
        view.lacks(unknown(true));
        assert_eq!(view.unknown, Some(unknown(false)));
    }

    #[test]
    fn nodes_may_differ_in_slots_that_come_to_one_of_them_and_in_no_other() {
        let look = |shards: &[(&str, RangeInclusive<u16>)], id, moves| {
            Look::new(served(shards), Ok(says(id, moves)))
        };
        let one = || look(&[("a", 0..=8), ("b", 9..=16_383)], "a", "[8->-b]");
        // b imports slot 8 and has not heard that c owned it before.
        let other = |moves| look(&[("a", 0..=7), ("b", 8..=16_383)], "b", moves);
        for looks in [[one(), other("[8-<-a]")], [other("[8-<-a]"), one()]] {
            let view = View::of(looks.to_vec()).unwrap();
            assert_eq!(
                view.owner(8),
                Some("a"),
                "the node that does not import it knows"
            );
            assert_eq!(view.open[&8], BTreeSet::from(["b".to_owned()]));
        }
        assert!(View::of(vec![one(), other("")]).is_none());
        let untold = Look::new(
            served(&[("a", 0..=7), ("b", 8..=16_383)]),
            Err(Unknown {
                reason: "no".to_owned(),
                may_pass: true,
            }),
        );
        assert!(View::of(vec![one(), untold.clone()]).is_none());
        assert!(View::of(Vec::new()).is_none());
        let view = View::of(vec![untold]).unwrap();
        assert!(view.unknown.is_some() && !view.is_same(&view));
    }

    /// Who says that slot 7 of a is being moved, in every combination, and what is known then.
    #[test]
    fn the_owner_decides_where_a_slot_goes() {
        let to = |ids: &[&str]| Some(ids.iter().map(ToString::to_string).collect::<BTreeSet<_>>());
        let not_empty = |moves| (says("b", moves), false);
        let empty = |moves| (says("b", moves), true);
        for (owner, (mut b, is_empty), c, expected) in [
            ("", not_empty(""), "", None),
            ("[7->-b]", not_empty(""), "", to(&["b"])),
            ("[7->-b]", not_empty("[7-<-a]"), "", to(&["b"])),
            // A mark that was forgotten at b.
            ("[7->-c]", not_empty("[7-<-a]"), "", to(&["c"])),
            // The owner may have forgotten, in a failover: whoever says so is believed.
            ("", not_empty("[7-<-a]"), "", to(&["b"])),
            ("", not_empty("[7-<-a]"), "[7-<-a]", to(&["b", "c"])),
            // Where no key came yet, there is none to be missed.
            ("", empty("[7-<-a]"), "", None),
            ("", empty("[7-<-a]"), "[7-<-a]", to(&["c"])),
            // A former owner says where it went.
            ("", not_empty("[7->-c]"), "", to(&["c"])),
            ("[7->-b]", not_empty("[7->-c]"), "", to(&["b"])),
        ] {
            if is_empty {
                b.lacks_keys_of(BTreeSet::from([7]));
            }
            let (a, c) = (says("a", owner), says("c", c));
            let orders = [[&a, &b, &c], [&c, &b, &a], [&b, &a, &c]];
            for nodes in orders {
                let mut view = lies(&[("a", 0..=16_383)]);
                for told in nodes {
                    view.add(told.clone());
                }
                assert_eq!(view.open.get(&7).cloned(), expected, "{owner}, {b:?}");
            }
        }
        // A slot that has arrived is no longer on its way, whatever mark is left.
        let mut view = lies(&[("b", 0..=16_383)]);
        view.add(says("b", "[7-<-a]"));
        assert!(view.open.is_empty());
    }

    #[test]
    fn a_view_differs_by_owners_moves_and_epochs() {
        let view = || {
            let mut view = lies(&[("a", 0..=1), ("b", 2..=3)]);
            view.epochs = BTreeMap::from([("a".to_owned(), 1)]);
            view
        };
        assert!(view().is_same(&view()));
        let mut epoch = view();
        epoch.epochs.insert("a".to_owned(), 2);
        let moves = moving(view(), &[(1, "b")]);
        let mut owners = lies(&[("a", 0..=2), ("b", 3..=3)]);
        owners.epochs = view().epochs;
        for other in [epoch, moves, owners] {
            assert!(!view().is_same(&other) && !other.is_same(&view()));
        }
    }
}
