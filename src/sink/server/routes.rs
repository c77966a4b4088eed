//! Which lane a key of a cluster goes to, and how that is learnt anew.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::ServerSink;
use super::confirm::{KEPT_BYTES, MAX_KEPT_BYTES};
use super::drained::{Before, shard_at};
use super::lane::Lane;
use crate::endpoint::{ConnectOptions, NodeAddress};
use crate::host;
use crate::server::cluster::{ClusterNode, Topology, options_at, options_for};
use crate::server::slots::{SLOTS, slot_of};
use crate::server::{Conn, ServerError};

/// How long one node may take to say who serves what.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

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

impl Routes {
    /// The lane of a slot.
    pub fn lane_of(&self, slot: u16) -> Option<usize> {
        self.lane_of_shard.get(self.topology.owner(slot)?).copied()
    }

    /// The lanes of all primaries.
    pub fn primaries(&self) -> Vec<usize> {
        self.lane_of_shard.clone()
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

    /// Goes by this topology from now on, once [`ServerSink::spread`] has given each shard its lane.
    fn renew(&mut self, topology: Topology) -> Before {
        self.stale = false;
        Before {
            topology: std::mem::replace(&mut self.topology, topology),
            lane_of_shard: std::mem::take(&mut self.lane_of_shard),
        }
    }

    /// Has it asked anew before anything else is sent.
    pub fn is_wrong(&mut self, hint: Option<NodeAddress>) {
        self.stale = true;
        self.hint = hint.or(self.hint.take());
    }

    /// Asks the nodes in turn, until one answers.
    fn ask(&mut self) -> Option<Topology> {
        self.turn += 1;
        let mut candidates: Vec<ConnectOptions> = Vec::new();
        candidates.extend(self.hint.take().map(|hint| options_at(&self.base, &hint)));
        let count = self.known.len();
        let known = (0..count).map(|number| &self.known[(number + self.turn) % count]);
        candidates.extend(known.map(|node| options_for(&self.base, node)));
        candidates.push(self.base.clone());
        for options in candidates {
            let topology =
                Conn::open(&briefly(options)).and_then(|mut conn| Topology::ask(&mut conn));
            if let Ok(topology) = topology
                && !topology.shards.is_empty()
            {
                return Some(topology);
            }
        }
        None
    }

    /// What a lane may keep until a replica has it.
    fn kept_max_bytes(&self) -> usize {
        let shards = self.topology.shards.len().max(1);
        (KEPT_BYTES / shards).clamp(256 << 10, MAX_KEPT_BYTES)
    }

    fn note_nodes(&mut self) {
        for shard in &self.topology.shards {
            for node in std::iter::once(&shard.primary).chain(&shard.replicas) {
                if !self
                    .known
                    .iter()
                    .any(|known| known.announced == node.announced)
                {
                    self.known.push(node.clone());
                }
            }
        }
    }
}

/// How to ask a node that others can stand in for.
pub(super) fn briefly(mut options: ConnectOptions) -> ConnectOptions {
    options.timeout = options.timeout.min(ASK_TIMEOUT);
    options.connect_timeout = options.connect_timeout.min(ASK_TIMEOUT);
    options.retry_for = options.retry_for.min(ASK_TIMEOUT);
    options
}

impl ServerSink {
    /// Finds out who serves what and connects to every primary, before anything is written.
    pub(super) fn open_cluster(&mut self, base: &ConnectOptions, conn: &mut Conn) -> Result<()> {
        let topology = Topology::ask(conn)?;
        if let Some(slot) = topology.first_gap() {
            anyhow::bail!(
                "the destination is a cluster in which nobody serves slot {slot}; nothing was \
                 written"
            );
        }
        let routes = Routes {
            base: base.clone(),
            topology,
            lane_of_shard: Vec::new(),
            known: Vec::new(),
            stale: false,
            asked: host::now(),
            turn: 0,
            hint: None,
        };
        self.lanes.clear();
        self.routes = Some(routes);
        self.spread();
        for at in 0..self.lanes.len() {
            let mut conn =
                Conn::open(&self.lanes[at].to).map_err(|error| self.unreached(at, error))?;
            conn.heed(&self.lanes[at].to, &self.stop.flag());
            self.lanes[at].meet(conn)?;
        }
        Ok(())
    }

    /// An announced address may be one that leads nowhere from here.
    fn unreached(&self, at: usize, error: ServerError) -> anyhow::Error {
        let lane = &self.lanes[at];
        let is_connecting = matches!(error, ServerError::Connect { .. });
        let error = anyhow::Error::new(error);
        if !is_connecting {
            return error;
        }
        error.context(format!(
            "the cluster announces a primary at {}; where that address is reached elsewhere, \
             --node-map {0}=HOST:PORT (copy: --dest-node-map) says where",
            lane.address()
        ))
    }

    /// Gives every shard of the topology its lane, a new one where its primary has none.
    fn spread(&mut self) {
        let Some(routes) = &mut self.routes else {
            return;
        };
        routes.note_nodes();
        routes.lane_of_shard.clear();
        self.window = self
            .whole_window
            .shared(routes.topology.shards.len().max(1));
        let kept_max_bytes = routes.kept_max_bytes();
        for shard in &routes.topology.shards {
            let announced = &shard.primary.announced;
            let known = self
                .lanes
                .iter()
                .position(|lane| lane.announced.as_ref() == Some(announced));
            let at = known.unwrap_or_else(|| {
                let to = options_for(&routes.base, &shard.primary);
                self.lanes.push(Lane::new(to, Some(announced.clone())));
                self.lanes.len() - 1
            });
            let lane = &mut self.lanes[at];
            lane.kept_max_bytes = kept_max_bytes;
            lane.is_replicated |= !shard.replicas.is_empty();
            lane.set_kept();
            routes.lane_of_shard.push(at);
        }
    }

    /// The lane of an address that a redirection named.
    pub(super) fn lane_at(&mut self, announced: &NodeAddress) -> Option<usize> {
        let routes = self.routes.as_ref()?;
        let known = self
            .lanes
            .iter()
            .position(|lane| lane.announced.as_ref() == Some(announced));
        Some(known.unwrap_or_else(|| {
            let to = options_at(&routes.base, announced);
            let mut lane = Lane::new(to, Some(announced.clone()));
            lane.kept_max_bytes = routes.kept_max_bytes();
            self.lanes.push(lane);
            self.lanes.len() - 1
        }))
    }

    /// Has the topology asked anew.
    pub(super) fn is_stale(&mut self) {
        if let Some(routes) = &mut self.routes {
            routes.is_wrong(None);
        }
    }

    /// Asks for the topology if it is known to be wrong.
    pub(super) fn refresh_routes(&mut self) -> Result<()> {
        let Some(routes) = &mut self.routes else {
            return Ok(());
        };
        if !routes.stale {
            return Ok(());
        }
        let left = ASK_EVERY.saturating_sub(host::elapsed(routes.asked));
        if !left.is_zero() {
            host::sleep(left);
        }
        let asked = routes.ask();
        routes.asked = host::now();
        let Some(topology) = asked else {
            return self
                .wait_for("no node of the cluster says who serves what")
                .context("asking the cluster for its slots");
        };
        let before = routes.renew(topology);
        self.spread();
        self.leave_lanes(&before);
        self.follow_kept();
        Ok(())
    }

    /// What is kept until a replica has it goes with its slots to the primaries that have them now.
    fn follow_kept(&mut self) {
        let Some(routes) = &self.routes else { return };
        let mut moved = Vec::new();
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            let stays = |key: &[u8]| routes.lane_of(slot_of(key)).is_none_or(|to| to == at);
            moved.extend(lane.unconfirmed.part(stays));
        }
        // Behind it came nothing yet from whoever has the slot now, but what ASK sent there.
        for sent in moved.into_iter().rev() {
            if let Some(to) = routes.lane_of(slot_of(&sent.record.key)) {
                self.lanes[to].unconfirmed.keep_as_older(sent);
            }
        }
    }

    /// Why nothing goes to this slot, for messages.
    pub(super) fn unserved(slot: u16) -> String {
        debug_assert!(slot < SLOTS);
        format!("no node of the cluster serves slot {slot}")
    }
}
