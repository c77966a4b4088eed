//! Whether a node of a cluster that has no slots any more gave them away, or lost them.
//!
//! When a node is drained (scale-in), its keys go with their slots, and nothing is lost. From
//! Redis 7.0 on the node then becomes a replica of the one that took its last slot (cluster.c,
//! `clusterUpdateSlotsConfigWith`), just as a primary does that lost a failover. What tells the two
//! apart is the node that has the slots now: in a failover it was a replica, and what it had not
//! received is gone; slots are moved to a node that is a primary all the time.

use std::collections::BTreeSet;

use super::ServerSink;
use super::lane::Lane;
use super::routes::{Routes, briefly};
use crate::server::cluster::{Shard, Topology};
use crate::server::facts::Facts;
use crate::server::{Conn, ServerError};

/// Who served what before the cluster was asked anew.
pub(super) struct Before {
    /// As it was answered.
    pub topology: Topology,
    /// The lane of each shard.
    pub lane_of_shard: Vec<usize>,
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

impl Before {
    /// The shard whose primary the lane led to.
    fn shard_at(&self, at: usize) -> Option<&Shard> {
        shard_at(&self.topology, &self.lane_of_shard, at)
    }
}

/// The shard whose primary a lane leads to.
pub(super) fn shard_at<'a>(
    topology: &'a Topology,
    lane_of_shard: &[usize],
    at: usize,
) -> Option<&'a Shard> {
    let number = lane_of_shard.iter().position(|lane| *lane == at)?;
    topology.shards.get(number)
}

impl ServerSink {
    /// What was acknowledged by nodes that serve no slot any more follows its slots: to the nodes
    /// that they were given to, or once more to the one that took over. Where some of it may be
    /// gone, that is told.
    pub(super) fn leave_lanes(&mut self, before: &Before) {
        let primaries = self.routes.as_ref().map(Routes::primaries);
        let primaries = primaries.unwrap_or_default();
        let mut unsure = Vec::new();
        for at in 0..self.lanes.len() {
            if primaries.contains(&at) {
                continue;
            }
            let left = match self.lanes[at].may_lack() {
                true => self.how_it_left(at, before),
                false => Left::Drained,
            };
            if left == Left::Unsure {
                unsure.push(at);
            }
        }
        self.inherit(before, &unsure);
        for at in 0..self.lanes.len() {
            if primaries.contains(&at) {
                continue;
            }
            let is_unsure = unsure.contains(&at);
            if !is_unsure {
                let lane = &mut self.lanes[at];
                lane.unkept = lane.may_lack();
                lane.unconfirmed.dropped = 0;
            }
            self.check_again(at);
            // Behind ASK it still has what it acknowledged.
            if is_unsure || before.shard_at(at).is_some() {
                let was_unkept = std::mem::take(&mut self.lanes[at].unkept);
                if was_unkept && is_unsure {
                    self.acknowledged_is_gone(at);
                }
            }
        }
    }

    /// Who has a slot now answers for what was acknowledged there before, and for what of it no
    /// replica has.
    fn inherit(&mut self, before: &Before, unsure: &[usize]) {
        for (from, to) in self.moves_since(before) {
            let giver = &self.lanes[from];
            let (acknowledged, may_lack) = (giver.acknowledged, giver.may_lack());
            let taker = &mut self.lanes[to];
            taker.acknowledged |= acknowledged;
            if may_lack && !unsure.contains(&from) {
                taker.unkept = true;
                // WAIT speaks of what was written before it: not yet of what has just come.
                taker.unconfirmed.is_on_new_connection();
            }
        }
    }

    /// The lanes that slots went from and to.
    fn moves_since(&self, before: &Before) -> BTreeSet<(usize, usize)> {
        let Some(routes) = &self.routes else {
            return BTreeSet::new();
        };
        let shards = before.topology.shards.iter().zip(&before.lane_of_shard);
        let slots = shards.flat_map(|(shard, from)| {
            let slots = shard.slots.iter().cloned().flatten();
            slots.map(move |slot| (*from, slot))
        });
        slots
            .filter_map(|(from, slot)| Some((from, routes.lane_of(slot)?)))
            .filter(|(from, to)| from != to)
            .collect()
    }

    fn how_it_left(&self, at: usize, before: &Before) -> Left {
        let lane = &self.lanes[at];
        let Some(routes) = &self.routes else {
            return Left::Unsure;
        };
        let Ok(now) = ask(lane) else {
            return Left::Unsure;
        };
        if !is_same_process(lane, &now) {
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
        let all_were_primaries = takers.is_some_and(|takers| {
            let mut takers = takers.into_iter();
            takers.all(|taker| self.was_primary_throughout(taker, before))
        });
        match all_were_primaries {
            true => Left::Drained,
            false => Left::Unsure,
        }
    }

    /// Whether the lane's node had slots of its own before, and was not a replica meanwhile, as far
    /// as it tells.
    fn was_primary_throughout(&self, taker: usize, before: &Before) -> bool {
        let now = self
            .routes
            .as_ref()
            .and_then(|routes| routes.primary_at(taker));
        let (Some(earlier), Some(now)) = (before.shard_at(taker), now) else {
            return false;
        };
        let lane = &self.lanes[taker];
        earlier.primary.id == now.id
            && ask(lane).is_ok_and(|now| !now.was_promoted_since(&lane.facts))
    }
}

/// What the lane's node says of itself just now, on a connection of its own.
fn ask(lane: &Lane) -> Result<Facts, ServerError> {
    let mut conn = Conn::open(&briefly(lane.to.clone()))?;
    Facts::ask(&mut conn)
}

/// Where INFO is refused, the connection that it acknowledged on tells: it ends with its process.
fn is_same_process(lane: &Lane, now: &Facts) -> bool {
    match (&lane.facts.run_id, &now.run_id) {
        (Some(before), Some(now)) => before == now,
        (None, None) => lane
            .conn
            .as_ref()
            .is_some_and(|conn| !lane.sent.is_empty() || !conn.has_answer()),
        _ => false,
    }
}
