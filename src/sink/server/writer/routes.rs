//! Which lane a key of a cluster goes to, and how that is learnt anew.

use std::time::{Duration, Instant};

use super::kept::{KEPT_BYTES, MAX_KEPT_BYTES};
use crate::endpoint::{ConnectOptions, NodeAddress};
use crate::server::cluster::{ClusterNode, Shard, Topology, options_at, options_for};

/// The least time between two questions.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// The way to the lanes of a cluster.
pub(super) struct Routes {
    /// How the user named the cluster.
    base: ConnectOptions,
    topology: Topology,
    /// The lane of each shard of the topology.
    lane_of_shard: Vec<usize>,
    /// Every node that was ever heard of: any of them may know who serves what now.
    known: Vec<ClusterNode>,
    /// The topology is known to be wrong, or may be.
    stale: bool,
    asked: Instant,
    /// Who is asked first; it goes round, so that no node that was cut off is believed for ever.
    turn: usize,
    /// A redirection named this one: ask it first.
    hint: Option<NodeAddress>,
}

/// Who served what before the cluster was asked anew.
pub(super) struct Before {
    topology: Topology,
    /// The lane of each shard.
    lane_of_shard: Vec<usize>,
}

impl Before {
    /// The shard whose primary the lane led to.
    pub fn shard_at(&self, at: usize) -> Option<&Shard> {
        shard_at(&self.topology, &self.lane_of_shard, at)
    }

    /// Each slot with the lane that it was at.
    pub fn slots(&self) -> impl Iterator<Item = (usize, u16)> {
        let shards = self.topology.shards.iter().zip(&self.lane_of_shard);
        shards.flat_map(|(shard, from)| {
            let slots = shard.slots.iter().cloned().flatten();
            slots.map(move |slot| (*from, slot))
        })
    }
}

/// What is to be done before the topology is known.
pub(super) enum Refresh {
    /// It is known.
    Nothing,
    /// It was asked a moment ago.
    Wait(Duration),
    /// One of these is to be asked; the first that answers is believed.
    Ask(Vec<ConnectOptions>),
}

impl Routes {
    pub fn new(base: ConnectOptions, topology: Topology, now: Instant) -> Self {
        Self {
            base,
            topology,
            lane_of_shard: Vec::new(),
            known: Vec::new(),
            stale: false,
            asked: now,
            turn: 0,
            hint: None,
        }
    }

    /// The lane of a slot.
    pub fn lane_of(&self, slot: u16) -> Option<usize> {
        self.lane_of_shard.get(self.topology.owner(slot)?).copied()
    }

    /// The lanes of all primaries.
    pub fn primaries(&self) -> &[usize] {
        &self.lane_of_shard
    }

    /// Any slot that the lane's node serves.
    pub fn slot_at(&self, at: usize) -> Option<u16> {
        let shard = self.lane_of_shard.iter().position(|lane| *lane == at)?;
        Some(*self.topology.shards[shard].slots.first()?.start())
    }

    /// The primary that a lane leads to.
    pub fn primary_at(&self, at: usize) -> Option<&ClusterNode> {
        shard_at(&self.topology, &self.lane_of_shard, at).map(|shard| &shard.primary)
    }

    /// The shards, in the order of their first slots.
    pub fn shards(&self) -> &[Shard] {
        &self.topology.shards
    }

    /// How to connect to a node.
    pub fn options_for(&self, node: &ClusterNode) -> ConnectOptions {
        options_for(&self.base, node)
    }

    /// How to connect to an address that a redirection named.
    pub fn options_at(&self, announced: &NodeAddress) -> ConnectOptions {
        options_at(&self.base, announced)
    }

    /// What a lane may keep until a replica has it.
    pub fn kept_max_bytes(&self) -> usize {
        let shards = self.topology.shards.len().max(1);
        (KEPT_BYTES / shards).clamp(256 << 10, MAX_KEPT_BYTES)
    }

    /// Has it asked anew before anything else is sent.
    pub fn doubt(&mut self, hint: Option<NodeAddress>) {
        self.stale = true;
        self.hint = hint.or(self.hint.take());
    }

    /// What is to be done before the topology is known.
    pub fn refresh(&mut self, now: Instant) -> Refresh {
        if !self.stale {
            return Refresh::Nothing;
        }
        let left = ASK_EVERY.saturating_sub(now.saturating_duration_since(self.asked));
        if !left.is_zero() {
            return Refresh::Wait(left);
        }
        Refresh::Ask(self.candidates())
    }

    /// Whom to ask, in turn.
    fn candidates(&mut self) -> Vec<ConnectOptions> {
        self.turn += 1;
        let mut candidates: Vec<ConnectOptions> = Vec::new();
        candidates.extend(self.hint.take().map(|hint| options_at(&self.base, &hint)));
        let count = self.known.len();
        let known = (0..count).map(|number| &self.known[(number + self.turn) % count]);
        candidates.extend(known.map(|node| options_for(&self.base, node)));
        candidates.push(self.base.clone());
        candidates
    }

    /// They were asked just now.
    pub fn note_asked(&mut self, now: Instant) {
        self.asked = now;
    }

    /// Goes by this topology from now on, once each of its shards has got its lane.
    pub fn renew(&mut self, topology: Topology) -> Before {
        self.stale = false;
        Before {
            topology: std::mem::replace(&mut self.topology, topology),
            lane_of_shard: std::mem::take(&mut self.lane_of_shard),
        }
    }

    /// Gives each shard its lane, in the order of [`Self::shards`].
    pub fn set_lanes(&mut self, lane_of_shard: Vec<usize>) {
        self.lane_of_shard = lane_of_shard;
        for shard in &self.topology.shards {
            for node in std::iter::once(&shard.primary).chain(&shard.replicas) {
                let is_it = |known: &ClusterNode| known.announced == node.announced;
                if !self.known.iter().any(is_it) {
                    self.known.push(node.clone());
                }
            }
        }
    }
}

/// The shard whose primary a lane leads to.
fn shard_at<'a>(topology: &'a Topology, lane_of_shard: &[usize], at: usize) -> Option<&'a Shard> {
    let number = lane_of_shard.iter().position(|lane| *lane == at)?;
    topology.shards.get(number)
}
