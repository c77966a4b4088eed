//! All lanes, and the way to them.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use super::item::Item;
use super::lane::{Lane, Link};
use super::routes::{Before, Refresh, Routes};
use crate::endpoint::{ConnectOptions, NodeAddress};
use crate::own_writes::FingerprintSet;
use crate::server::cluster::Topology;
use crate::server::facts::Facts;
use crate::server::slots::slot_of;
use crate::sink::server::window::Window;

/// Where a key goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// To this lane.
    Lane(usize),
    /// No node serves this slot.
    Unserved(u16),
}

/// What a node says of itself when its slots have gone elsewhere.
pub(in crate::sink::server) struct NodeSaid {
    pub at: usize,
    /// `None` where it does not answer.
    pub facts: Option<Facts>,
    /// The connection to it has neither ended nor anything to be read.
    pub is_quiet: bool,
}

/// How a node came to have no slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// It gave them away, and its keys with them.
    Drained,
    /// It never had any: it is a primary that slots are on their way to.
    Importing,
    /// It lost them, or nobody can say.
    Unsure,
}

/// All lanes.
pub(in crate::sink::server) struct Fleet {
    lanes: Vec<Lane>,
    /// Of a cluster.
    routes: Option<Routes>,
    /// What may be in flight on a lane.
    window: Window,
    /// The same before several lanes shared it.
    whole_window: Window,
    /// Who serves what is to be known before anything else goes out.
    is_refreshing: bool,
    /// Slots went elsewhere, and nodes are asked how that came about.
    leaving: Option<Before>,
    /// When a replica last confirmed something, Unix ms.
    confirmed_at_ms: Option<u64>,
}

impl Fleet {
    /// Of a standalone destination.
    pub fn standalone(to: ConnectOptions, window: Window) -> Self {
        Self {
            lanes: vec![Lane::new(to, None)],
            routes: None,
            window,
            whole_window: window,
            is_refreshing: false,
            leaving: None,
            confirmed_at_ms: None,
        }
    }

    /// Of a cluster.
    pub fn cluster(base: ConnectOptions, topology: Topology, window: Window, now: Instant) -> Self {
        let mut fleet = Self {
            lanes: Vec::new(),
            routes: Some(Routes::new(base, topology, now)),
            window,
            whole_window: window,
            is_refreshing: false,
            leaving: None,
            confirmed_at_ms: None,
        };
        fleet.spread();
        fleet
    }

    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    pub(super) fn lanes_mut(&mut self) -> &mut [Lane] {
        &mut self.lanes
    }

    pub fn lane(&self, at: usize) -> &Lane {
        &self.lanes[at]
    }

    pub(super) fn lane_mut(&mut self, at: usize) -> &mut Lane {
        &mut self.lanes[at]
    }

    pub(super) fn window(&self) -> Window {
        self.window
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.routes.is_some()
    }

    /// The database that the first lane is in, or on its way to.
    pub fn selected(&self) -> Option<u32> {
        let lane = self.lanes.first()?;
        lane.flight.moving_to().or(lane.database)
    }

    /// The lane that takes no more bytes, and whose last words are read.
    pub(super) fn dying(&self) -> Option<usize> {
        let is_dying = |lane: &Lane| matches!(lane.link, Link::Dying(_));
        self.lanes.iter().position(is_dying)
    }

    /// Whether somebody else may get what a lane has now.
    pub(super) fn may_move(&self, at: usize) -> bool {
        self.routes.is_some() || self.lanes[at].is_watched()
    }

    /// The run goes by what stands at every node: an earlier run wrote it.
    pub(super) fn note_stood(&mut self) {
        self.lanes
            .iter_mut()
            .for_each(|lane| lane.kept.note_stood());
    }

    /// Whether any lane acknowledged anything.
    pub(super) fn has_acknowledged(&self) -> bool {
        self.lanes.iter().any(|lane| lane.kept.has_acknowledged())
    }

    /// The lanes that every function library goes to.
    pub(super) fn primaries(&self) -> Vec<usize> {
        match &self.routes {
            None => vec![0],
            Some(routes) => routes.primaries().to_vec(),
        }
    }

    /// A slot that the lane's node serves; `None` for a standalone one.
    pub(super) fn slot_at(&self, at: usize) -> Option<u16> {
        self.routes.as_ref().and_then(|routes| routes.slot_at(at))
    }

    /// Where a key goes; `ask_to`: a lane that it goes to this once.
    pub(super) fn way(&self, key: &[u8], ask_to: Option<usize>) -> Way {
        match (&self.routes, ask_to) {
            (None, _) => Way::Lane(0),
            (Some(_), Some(at)) => Way::Lane(at),
            (Some(routes), None) => {
                let slot = slot_of(key);
                routes.lane_of(slot).map_or(Way::Unserved(slot), Way::Lane)
            }
        }
    }

    /// Has the topology asked anew before anything else is sent.
    pub(super) fn doubt(&mut self, hint: Option<NodeAddress>) {
        if let Some(routes) = &mut self.routes {
            routes.doubt(hint);
        }
    }

    /// Who serves what is to be known before anything else goes out.
    pub(super) fn begin_refresh(&mut self) {
        self.is_refreshing = true;
    }

    /// It is known, as far as anybody says.
    pub(super) fn end_refresh(&mut self) {
        self.is_refreshing = false;
    }

    pub(super) fn is_refreshing(&self) -> bool {
        self.is_refreshing
    }

    /// Nodes are asked how it came that slots went elsewhere.
    pub(super) fn leave(&mut self, before: Before) {
        self.leaving = Some(before);
    }

    /// Who served what before these were asked.
    pub(super) fn left(&mut self) -> Option<Before> {
        self.leaving.take()
    }

    /// What is to be done before the topology is known.
    pub(super) fn refresh(&mut self, now: Instant) -> Refresh {
        match &mut self.routes {
            None => Refresh::Nothing,
            Some(routes) => routes.refresh(now),
        }
    }

    pub(super) fn note_asked(&mut self, now: Instant) {
        if let Some(routes) = &mut self.routes {
            routes.note_asked(now);
        }
    }

    /// Goes by this topology; who served what before.
    pub(super) fn renew(&mut self, topology: Topology) -> Option<Before> {
        let before = self.routes.as_mut()?.renew(topology);
        self.spread();
        Some(before)
    }

    /// Gives every shard of the topology its lane, a new one where its primary has none.
    fn spread(&mut self) {
        let Some(routes) = &mut self.routes else {
            return;
        };
        self.window = self.whole_window.shared(routes.shards().len().max(1));
        let kept_max_bytes = routes.kept_max_bytes();
        let mut lane_of_shard = Vec::new();
        for shard in routes.shards() {
            let announced = &shard.primary.announced;
            let known = self
                .lanes
                .iter()
                .position(|lane| lane.announced() == Some(announced));
            let at = known.unwrap_or_else(|| {
                let to = routes.options_for(&shard.primary);
                self.lanes.push(Lane::new(to, Some(announced.clone())));
                self.lanes.len() - 1
            });
            let kept = &mut self.lanes[at].kept;
            kept.limit(kept_max_bytes);
            kept.note_replica(!shard.replicas.is_empty());
            lane_of_shard.push(at);
        }
        routes.set_lanes(lane_of_shard);
    }

    /// The lane of an address that a redirection named.
    pub(super) fn lane_at(&mut self, announced: &NodeAddress) -> Option<usize> {
        let routes = self.routes.as_ref()?;
        let known = self
            .lanes
            .iter()
            .position(|lane| lane.announced() == Some(announced));
        Some(known.unwrap_or_else(|| {
            let mut lane = Lane::new(routes.options_at(announced), Some(announced.clone()));
            lane.kept.limit(routes.kept_max_bytes());
            self.lanes.push(lane);
            self.lanes.len() - 1
        }))
    }

    /// Whether a lane leads to a primary of the topology.
    pub(super) fn is_primary(&self, at: usize) -> bool {
        let routes = self.routes.as_ref();
        routes.is_none_or(|routes| routes.primaries().contains(&at))
    }

    /// Of a lane that serves no slot any more and may have had what nobody else has, and of one that
    /// gave slots away: the lanes whose nodes tell how that came about.
    pub(super) fn witnesses_of(&self, before: &Before) -> BTreeSet<usize> {
        let mut asked = BTreeSet::new();
        let may_lack = |at: usize| !self.is_primary(at) && self.lanes[at].kept.may_lack();
        asked.extend((0..self.lanes.len()).filter(|at| may_lack(*at)));
        for (from, to) in self.moves_since(before) {
            if may_lack(from) || self.carries_keys(from, to, before) {
                asked.insert(to);
            }
        }
        asked
    }

    /// Whether slots went from one lane to another with keys that the run goes by, and not all of them
    /// to a replica that had them already: what is kept of all is sent again then in any case.
    fn carries_keys(&self, from: usize, to: usize, before: &Before) -> bool {
        let is_whole = self.took_over(from, to, before) && !self.is_primary(from);
        self.lanes[from].kept.is_relied_on() && !is_whole
    }

    /// Whether a lane's node was another's replica, and took its place.
    fn took_over(&self, from: usize, to: usize, before: &Before) -> bool {
        let (Some(shard), Some(routes)) = (before.shard_at(from), &self.routes) else {
            return false;
        };
        let successor = self.lanes[to].announced();
        let mut replicas = shard.replicas.iter();
        let mut slots = shard.slots.iter().cloned().flatten();
        replicas.any(|replica| Some(&replica.announced) == successor)
            // Nobody named it as a replica, and it has all that the other one had.
            || (before.shard_at(to).is_none() && slots.all(|slot| routes.lane_of(slot) == Some(to)))
    }

    /// Where slots went with keys that the run goes by, and to whom, if nobody can say that the one
    /// who has them now got the keys: it may have taken over from whoever did, and lack them.
    pub(super) fn strayed(&mut self, before: &Before, said: &[NodeSaid]) -> Vec<(usize, usize)> {
        let lanes = self.lanes.iter_mut().enumerate();
        let anew = lanes.filter_map(|(at, lane)| lane.kept.take_anew().then_some(at));
        let anew: BTreeSet<usize> = anew.collect();
        let moves = self.moves_since(before).into_iter();
        let carries = moves.filter(|(from, to)| self.carries_keys(*from, *to, before));
        carries
            .filter(|(_, to)| anew.contains(to) || !self.was_there(*to, before, said))
            .collect()
    }

    /// Whether the same process took whatever came to its slots, as far as it tells.
    fn was_there(&self, at: usize, before: &Before, said: &[NodeSaid]) -> bool {
        let Some(now) = facts_of(said, at) else {
            return false;
        };
        match before.shard_at(at) {
            Some(_) => {
                let known = &self.lanes[at].facts.run_id;
                (known.is_none() || *known == now.run_id)
                    && self.was_primary_throughout(at, before, said)
            }
            None => now.was_never_promoted(),
        }
    }

    /// WAIT was answered on a lane.
    pub(super) fn note_waited(&mut self, at: usize, answer: Result<i64, String>, now_ms: u64) {
        if self.lanes[at].kept.answered(answer) {
            self.confirmed_at_ms = Some(now_ms);
        }
    }

    /// Whether the process that answers on a lane may have begun after a replica confirmed what is not
    /// kept any more. If that replica was this process, then it would be older.
    pub(super) fn may_have_begun_since(&self, at: usize, now_ms: u64) -> bool {
        self.confirmed_at_ms.is_some_and(|confirmed_at_ms| {
            let facts = &self.lanes[at].facts;
            facts.may_be_younger_than(now_ms.saturating_sub(confirmed_at_ms))
        })
    }

    /// What is kept of the slots that went from one lane to another, the newest record of each key.
    /// ASK may have led later records to any lane.
    pub(super) fn take_moved(
        &mut self,
        (from, to): (usize, usize),
        before: &Before,
    ) -> VecDeque<Box<Item>> {
        let Some(routes) = &self.routes else {
            return VecDeque::new();
        };
        let slots = before.slots();
        let went = slots.filter(|(at, slot)| *at == from && routes.lane_of(*slot) == Some(to));
        let went: BTreeSet<u16> = went.map(|(_, slot)| slot).collect();
        let others = (0..self.lanes.len()).filter(|at| *at != from);
        let (mut seen, mut moved) = (FingerprintSet::default(), VecDeque::new());
        for at in others.chain([from]) {
            let kept = &mut self.lanes[at].kept;
            let items = kept.take_of(|key| went.contains(&slot_of(key)));
            moved.extend(items.into_iter().filter(|item| seen.insert(item.print)));
        }
        moved
    }

    /// The lanes that serve no slot any more, and of which nobody can say that they gave their keys
    /// away with their slots.
    pub(super) fn unsure(&self, before: &Before, said: &[NodeSaid]) -> Vec<usize> {
        let is_unsure = |at: &usize| {
            !self.is_primary(*at)
                && self.lanes[*at].kept.may_lack()
                && self.how_it_left(*at, before, said) == Left::Unsure
        };
        (0..self.lanes.len()).filter(is_unsure).collect()
    }

    /// Who has a slot now answers for what was acknowledged there before, and for what of it none of
    /// its own replicas may have.
    pub(super) fn inherit(&mut self, before: &Before, unsure: &[usize]) {
        for (from, to) in self.moves_since(before) {
            let giver = &self.lanes[from].kept;
            let relied = giver.relied();
            let has_let_go = giver.has_let_go() && !unsure.contains(&from);
            self.lanes[to].kept.inherit(relied, has_let_go);
        }
    }

    /// The lanes that slots went from and to.
    fn moves_since(&self, before: &Before) -> BTreeSet<(usize, usize)> {
        let Some(routes) = &self.routes else {
            return BTreeSet::new();
        };
        before
            .slots()
            .filter_map(|(from, slot)| Some((from, routes.lane_of(slot)?)))
            .filter(|(from, to)| from != to)
            .collect()
    }

    fn how_it_left(&self, at: usize, before: &Before, said: &[NodeSaid]) -> Left {
        let Some(routes) = &self.routes else {
            return Left::Unsure;
        };
        let Some(now) = facts_of(said, at) else {
            return Left::Unsure;
        };
        let is_quiet = said.iter().any(|said| said.at == at && said.is_quiet);
        if !self.is_same_process(at, now, is_quiet) {
            return Left::Unsure;
        }
        let Some(shard) = before.shard_at(at) else {
            return match now.role_is_replica() {
                Some(false) => Left::Importing,
                _ => Left::Unsure,
            };
        };
        let slots = shard.slots.iter().cloned().flatten();
        let takers: Option<BTreeSet<usize>> = slots.map(|slot| routes.lane_of(slot)).collect();
        let were_primaries = takers.is_some_and(|takers| {
            let mut takers = takers.into_iter();
            takers.all(|taker| self.was_primary_throughout(taker, before, said))
        });
        match were_primaries {
            true => Left::Drained,
            false => Left::Unsure,
        }
    }

    /// Whether the lane's node had slots of its own before, and was not a replica meanwhile, as far
    /// as it tells.
    fn was_primary_throughout(&self, taker: usize, before: &Before, said: &[NodeSaid]) -> bool {
        let routes = self.routes.as_ref();
        let now = routes.and_then(|routes| routes.primary_at(taker));
        let (Some(earlier), Some(now)) = (before.shard_at(taker), now) else {
            return false;
        };
        let facts = &self.lanes[taker].facts;
        earlier.primary.id == now.id
            && facts_of(said, taker).is_some_and(|now| !now.was_promoted_since(facts))
    }

    /// Where INFO is refused, the connection that it acknowledged on tells: it ends with its process.
    fn is_same_process(&self, at: usize, now: &Facts, is_quiet: bool) -> bool {
        let lane = &self.lanes[at];
        match (&lane.facts.run_id, &now.run_id) {
            (Some(before), Some(now)) => before == now,
            (None, None) => lane.is_up() && (!lane.flight.is_empty() || is_quiet),
            _ => false,
        }
    }

    /// What is kept until a replica has it goes with its slots to the primaries that have them now.
    pub(super) fn follow_kept(&mut self) {
        let Some(routes) = &self.routes else { return };
        let mut moved: Vec<Box<Item>> = Vec::new();
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            let stays = |key: &[u8]| routes.lane_of(slot_of(key)).is_none_or(|to| to == at);
            moved.extend(lane.kept.part(stays));
        }
        // Behind it came nothing yet from whoever has the slot now, but what ASK sent there.
        for item in moved.into_iter().rev() {
            if let Some(to) = routes.lane_of(slot_of(&item.record.key)) {
                self.lanes[to].kept.keep_as_older(item);
            }
        }
    }
}

fn facts_of(said: &[NodeSaid], at: usize) -> Option<&Facts> {
    said.iter().find(|said| said.at == at)?.facts.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::ServerAddress;
    use crate::server::cluster::{ClusterNode, Shard};
    use std::time::Duration;

    fn node(name: &str) -> ClusterNode {
        ClusterNode {
            id: name.to_owned(),
            announced: NodeAddress {
                host: name.to_owned(),
                port: 1,
            },
            hostname: None,
        }
    }

    /// Primaries, each with its slots and its replica.
    fn cluster(shards: &[(&str, std::ops::RangeInclusive<u16>, Option<&str>)]) -> Topology {
        let shard = |(primary, slots, replica): &(&str, _, Option<&str>)| Shard {
            primary: node(primary),
            replicas: replica.iter().map(|name| node(name)).collect(),
            slots: vec![std::ops::RangeInclusive::clone(slots)],
        };
        Topology::of(shards.iter().map(shard).collect())
    }

    /// Whether slots went from lane 0 to another with keys that the run goes by; `stood`: it goes by
    /// what stands there.
    fn carries(before: &Topology, after: &Topology, stood: bool) -> bool {
        let url = ServerAddress::parse("redis://a:1").expect("a URL");
        let window = Window::for_round_trip(Duration::ZERO);
        let (base, now) = (ConnectOptions::new(url), Instant::now());
        let mut fleet = Fleet::cluster(base, before.clone(), window, now);
        if stood {
            fleet.note_stood();
        }
        let before = fleet.renew(after.clone()).expect("of a cluster");
        let moves: Vec<_> = fleet.moves_since(&before).into_iter().collect();
        let [(0, to)] = moves[..] else {
            panic!("slots went from lane 0 to one other: {moves:?}");
        };
        fleet.carries_keys(0, to, &before)
    }

    #[test]
    fn slots_that_go_to_another_primary_carry_keys() {
        let before = cluster(&[("a", 0..=9, None), ("b", 10..=19, None)]);
        let some = cluster(&[("a", 0..=4, None), ("b", 5..=19, None)]);
        let all = cluster(&[("b", 0..=19, None)]);
        assert!(carries(&before, &some, true));
        assert!(carries(&before, &all, true));
        // Of nothing that stands there the run knows anything.
        assert!(!carries(&before, &some, false));
    }

    #[test]
    fn slots_that_go_with_all_keys_to_a_replica_carry_none() {
        let before = cluster(&[("a", 0..=9, Some("c")), ("b", 10..=19, None)]);
        let failed_over = cluster(&[("c", 0..=9, Some("a")), ("b", 10..=19, None)]);
        assert!(!carries(&before, &failed_over, true));
        // Nobody had named it, and it has all that the other one had.
        let unnamed = cluster(&[("d", 0..=9, None), ("b", 10..=19, None)]);
        assert!(!carries(&before, &unnamed, true));
        // A node is no replica of who still has slots: some keys went, and it had none of them.
        let split = cluster(&[("a", 0..=4, None), ("c", 5..=9, None), ("b", 10..=19, None)]);
        assert!(carries(&before, &split, true));
    }
}
