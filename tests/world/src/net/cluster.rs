//! Replicas, failovers, and slots that go from one node of a cluster to another.

use super::history::By;
use super::queue::Due;
use super::state::State;
use crate::script::Side;
use crate::server::Cluster;

/// A slot on its way.
#[derive(Debug)]
pub(super) struct Move {
    slot: u16,
    from: usize,
    to: usize,
    /// Between two steps, in µs.
    step_us: u64,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Import,
    Migrate,
    Keys,
    Assign(usize),
}

impl State {
    /// Begins to move a slot to one of the primaries.
    pub(super) fn reshard(&mut self, side: Side, slot: u16, to: u8, step_us: u64) -> bool {
        let nodes = self.nodes_of(side);
        let owner = nodes.iter().find(|node| self.nodes[**node].owns(slot));
        let (Some(&from), Some(&to)) = (owner, nodes.get(usize::from(to) % nodes.len().max(1)))
        else {
            return false;
        };
        let is_moving = self.moves.iter().any(|known| known.slot == slot);
        if from == to || is_moving || self.nodes[from].id().is_none() {
            return false;
        }
        self.moves.push(Move {
            slot,
            from,
            to,
            step_us,
            stage: Stage::Import,
        });
        self.moves_on(self.moves.len() - 1);
        true
    }

    /// The next step of a slot on its way, in the order of `redis-cli --cluster reshard`.
    pub(super) fn moves_on(&mut self, which: usize) {
        let Some(&Move {
            slot,
            from,
            to,
            step_us,
            stage,
        }) = self.moves.get(which)
        else {
            return;
        };
        let is_off =
            |node: usize| self.nodes[node].is_gone || self.nodes[node].replica_of.is_some();
        if is_off(from) || is_off(to) {
            return;
        }
        let (from_id, to_id) = (self.id_of(from), self.id_of(to));
        let next = match stage {
            Stage::Import => {
                self.view(to, |cluster| drop(cluster.importing.insert(slot, from_id)));
                Stage::Migrate
            }
            Stage::Migrate => {
                self.view(from, |cluster| drop(cluster.migrating.insert(slot, to_id)));
                Stage::Keys
            }
            Stage::Keys => match self.migrate_some(from, to, slot) {
                true => Stage::Keys,
                false => Stage::Assign(0),
            },
            // The new owner first, then the old one, then whoever else there is.
            Stage::Assign(at) => {
                let side = self.nodes[from].side;
                let others = 0..self.nodes.len();
                let others = others
                    .filter(|node| self.nodes[*node].side == side && *node != from && *node != to);
                let order: Vec<usize> = [to, from].into_iter().chain(others).collect();
                let Some(&node) = order.get(at) else { return };
                self.view(node, |cluster| {
                    cluster.epoch += 1;
                    cluster.assign(slot..=slot, &to_id);
                    cluster.importing.remove(&slot);
                    cluster.migrating.remove(&slot);
                });
                Stage::Assign(at + 1)
            }
        };
        self.moves[which].stage = next;
        let at = self.now + step_us + 1;
        self.queue.plan(at, Due::Moving(which));
    }

    fn id_of(&self, node: usize) -> String {
        self.nodes[node].id().unwrap_or_default().to_owned()
    }

    fn view(&mut self, node: usize, change: impl FnOnce(&mut Cluster)) {
        if let Some(cluster) = self.nodes[node].server.cluster_mut() {
            change(cluster);
        }
    }

    /// Carries a few keys over; whether there are more.
    fn migrate_some(&mut self, from: usize, to: usize, slot: u16) -> bool {
        let ms = self.node_ms(from);
        let most = 1 + self.chance.below(4) as usize;
        let Ok([source, target]) = self.nodes.get_disjoint_mut([from, to]) else {
            return false;
        };
        let mut left = 0;
        for db in 0..source.server.keyspace().databases() {
            let keys = source.server.keyspace().keys_of_slot(db, slot);
            for key in &keys {
                if left < most {
                    source.server.migrate(&mut target.server, db, key, ms);
                }
                left += 1;
            }
        }
        for node in [to, from] {
            self.observe(node, By::Server);
            self.end_turn(node);
        }
        left > most
    }

    /// Plans that what a primary changed reaches its replica.
    pub(super) fn plan_replication(&mut self, node: usize) {
        let is_replica = |known: &super::Node| known.replica_of == Some(node);
        if self.nodes.iter().any(is_replica) {
            let at = self.now + self.way();
            self.queue.plan(at, Due::Replicate(node));
        }
    }

    /// Its replicas get all that a primary has.
    pub(super) fn attach_replicas(&mut self, node: usize) {
        for replica in 0..self.nodes.len() {
            if self.nodes[replica].replica_of == Some(node) && !self.nodes[replica].is_gone {
                if let Ok([primary, other]) = self.nodes.get_disjoint_mut([node, replica]) {
                    primary.server.attach(&mut other.server);
                }
                self.send(replica);
            }
        }
    }

    pub(super) fn replicate(&mut self, node: usize) {
        let still_until = self.nodes[node].busy_until;
        if still_until > self.now {
            self.queue.plan(still_until, Due::Replicate(node));
            return;
        }
        let replicas = self.nodes.iter().enumerate();
        let replica = replicas
            .filter(|(_, known)| known.replica_of == Some(node) && !known.is_gone)
            .map(|(at, _)| at)
            .next();
        if let Some(replica) = replica {
            let holds_back = self.nodes[node].holds_back;
            self.replicate_to(node, replica, holds_back);
        }
    }

    fn replicate_to(&mut self, node: usize, replica: usize, holds_back: usize) {
        let ms = self.node_ms(node);
        let Ok([primary, replica_node]) = self.nodes.get_disjoint_mut([node, replica]) else {
            return;
        };
        let lag = primary.server.lag(&replica_node.server);
        if lag <= holds_back {
            return;
        }
        primary
            .server
            .replicate(&mut replica_node.server, lag - holds_back, ms);
        replica_node.server.end_turn(ms);
        self.send(replica);
        self.send(node);
    }

    /// A replica takes the place of its primary, whose process has ended.
    pub(super) fn failover(&mut self, side: Side, which: u8, lose: u32) -> bool {
        let primaries = self.nodes_of(side);
        let Some(&old) = primaries.get(usize::from(which) % primaries.len().max(1)) else {
            return false;
        };
        let mut replicas = self.nodes.iter().enumerate();
        let Some((new, _)) =
            replicas.find(|(_, node)| node.replica_of == Some(old) && !node.is_gone)
        else {
            return false;
        };
        self.break_off_hang(old);
        self.replicate_to(old, new, lose as usize);
        self.close_links_of(old);
        self.nodes[old].server.die();
        self.nodes[old].is_gone = true;
        self.nodes[old].writer = None;
        let mut stuck = std::mem::take(&mut self.nodes[old].stuck);
        let came = self.moves.iter().filter(|known| known.to == old);
        stuck.extend(came.map(|known| known.slot));
        let mut astray = stuck.clone();
        astray.extend(self.leaving(old));
        self.nodes[new].stuck = stuck;
        self.nodes[new].server.promote();
        self.nodes[new].replica_of = None;
        let (old_id, new_id) = (self.id_of(old), self.id_of(new));
        let slots: Vec<_> = self.nodes[new]
            .server
            .cluster()
            .map_or(Vec::new(), |cluster| {
                let of_old = cluster.ranges().filter(|(_, id)| *id == old_id);
                of_old.map(|(range, _)| range).collect()
            });
        for node in 0..self.nodes.len() {
            if self.nodes[node].side == side {
                self.view(node, |cluster| {
                    takes_over(cluster, &slots, &old_id, &new_id)
                });
            }
        }
        let port = self.nodes[new].server.config().port;
        let watching = self.sentinels.iter_mut().filter(|(of, _)| *of == side);
        for watched in watching.flat_map(|(_, sentinel)| sentinel.primaries.values_mut()) {
            watched.port = port;
        }
        self.note_loss(old, new, astray);
        self.observe_all(new);
        true
    }

    /// Slots on their way from a node of which not all nodes have heard that they are another's: its
    /// replica may take them back, without the keys that had gone, and who had got these removes them.
    fn leaving(&self, node: usize) -> impl Iterator<Item = u16> {
        let side = self.nodes[node].side;
        let all = self.nodes.iter().filter(|known| known.side == side).count();
        let is_known = move |stage| matches!(stage, Stage::Assign(at) if at >= all);
        let moves = self.moves.iter();
        let leaving = moves.filter(move |known| known.from == node && !is_known(known.stage));
        leaving.map(|known| known.slot)
    }
}

fn takes_over(
    cluster: &mut Cluster,
    slots: &[std::ops::RangeInclusive<u16>],
    old: &str,
    new: &str,
) {
    cluster.epoch += 1;
    let epoch = cluster.epoch;
    if let Some(node) = cluster.node_mut(old) {
        node.has_failed = true;
        node.replica_of = Some(new.to_owned());
    }
    if let Some(node) = cluster.node_mut(new) {
        node.replica_of = None;
        node.epoch = epoch;
    }
    for range in slots {
        cluster.assign(range.clone(), new);
    }
}
