//! The servers' ends of links: what arrives is carried out, and what they say is sent.

use std::ops::Range;

use super::command;
use super::history::{By, Place};
use super::link::{End, Peer};
use super::queue::Due;
use super::state::{BEGAN_MS, Node, State, TICK_US};
use crate::server::{ClientId, Server, Touched, slot_of};

impl State {
    pub(super) fn arrive_at_server(&mut self, id: u64) {
        let now = self.now;
        let Some(link) = self.link(id) else { return };
        if now < link.stalled_until {
            let at = link.stalled_until;
            self.queue.plan(at, Due::ToServer(id));
            return;
        }
        if link.is_silent {
            link.to_server.pieces.clear();
            return;
        }
        let busy_until = link.node().map(|node| self.nodes[node].busy_until);
        if let Some(at) = busy_until.filter(|at| *at > now) {
            self.queue.plan(at, Due::ToServer(id));
            return;
        }
        let Some(link) = self.link(id) else { return };
        let mut came = false;
        while let Some(bytes) = link.to_server.due(now) {
            link.partial.extend_from_slice(&bytes);
            came = true;
        }
        if came {
            self.serve(id);
        }
        let Some(link) = self.link(id) else { return };
        let is_over = link.to_server.closes_at.is_some_and(|at| at <= now);
        if is_over && link.to_server.pieces.is_empty() {
            self.lose(id, End::Reset);
        }
    }

    /// The server carries out the commands that have arrived as a whole.
    fn serve(&mut self, id: u64) {
        let Some(link) = self.link(id) else { return };
        let (peer, Some(client)) = (link.peer, link.client) else {
            return;
        };
        let bytes = std::mem::take(&mut link.partial);
        let node = match peer {
            Peer::Node(node) => node,
            Peer::Sentinel(at) => {
                self.sentinels[at].1.receive(client, &bytes);
                let said = self.sentinels[at].1.outbox(client);
                return self.say(id, &said);
            }
        };
        let mut words = std::mem::take(&mut self.words);
        let mut at = 0;
        let mut is_cut = false;
        while let Some(end) = command::first(&bytes[at..], &mut words) {
            let whole = &bytes[at..at + end];
            self.plan.commands += 1;
            let commands = self.plan.commands;
            while let Some((_, event)) = self
                .plan
                .by_commands
                .pop_if(|(count, _)| *count <= commands)
            {
                self.strike(event);
            }
            self.around(node, whole, &words, true);
            if self.links[id as usize].client != Some(client) {
                is_cut = true;
                break;
            }
            let ms = self.node_ms(node);
            self.nodes[node].server.receive(client, whole, ms);
            // The end of a pause lets others write.
            self.drain_writer(node);
            let has_hung = self.has_hung(node);
            if !has_hung {
                self.note_command(node, &whole[words[0].clone()]);
            }
            self.around(node, whole, &words, false);
            if self.links[id as usize].client != Some(client) {
                is_cut = true;
                break;
            }
            at += end;
            if has_hung {
                self.keep(id, node, bytes[at..].to_vec());
                at = bytes.len();
            }
        }
        self.words = words;
        if !is_cut && let Some(link) = self.link(id) {
            link.partial = bytes[at..].to_vec();
        }
        self.end_turn(node);
    }

    /// A server has carried out a command of the tool.
    fn note_command(&mut self, node: usize, name: &[u8]) {
        let (now, side) = (self.now, self.nodes[node].side);
        let writes = may_write(name);
        if writes {
            self.observe(node, By::Tool);
        }
        if writes || name.eq_ignore_ascii_case(b"wait") {
            self.histories[side as usize].wrote = now;
        }
        if name.eq_ignore_ascii_case(b"info") {
            self.nodes[node].told = now;
        }
    }

    /// What the script has in store for just this command.
    fn around(&mut self, node: usize, whole: &[u8], words: &[Range<usize>], is_before: bool) {
        if self.plan.named.is_empty() {
            return;
        }
        let side = self.nodes[node].side;
        let mut due = Vec::new();
        self.plan.named.retain_mut(|named| {
            let mut parts = named.command.split('|');
            let is_meant = named.is_before == is_before
                && named.side == side
                && words
                    .iter()
                    .zip(parts.by_ref())
                    .all(|(word, part)| whole[word.clone()].eq_ignore_ascii_case(part.as_bytes()));
            if is_meant {
                named.left = named.left.saturating_sub(1);
                if named.left == 0 {
                    due.push(named.event);
                    return false;
                }
            }
            true
        });
        due.into_iter().for_each(|event| self.strike(event));
    }

    /// Ends a turn of a server's event loop, and sends what it has to say.
    pub(super) fn end_turn(&mut self, node: usize) {
        let ms = self.node_ms(node);
        self.nodes[node].server.end_turn(ms);
        self.send(node);
        self.plan_tick(node);
        self.plan_replication(node);
    }

    fn plan_tick(&mut self, node: usize) {
        let Some(wakes) = self.nodes[node].server.wakes_at() else {
            return;
        };
        let at = wakes.saturating_add_signed(-self.nodes[node].skew_ms);
        let at = (at.saturating_sub(BEGAN_MS) * 1000).max(self.now + 1);
        if self.nodes[node].wakes <= self.now || at < self.nodes[node].wakes {
            self.nodes[node].wakes = at;
            self.queue.plan(at, Due::Tick(node));
        }
    }

    pub(super) fn tick(&mut self, node: usize) {
        let ms = self.node_ms(node);
        if self.now.is_multiple_of(TICK_US) {
            self.queue.plan(self.now + TICK_US, Due::Tick(node));
        }
        if self.nodes[node].busy_until > self.now {
            self.queue
                .plan(self.nodes[node].busy_until, Due::Tick(node));
            return;
        }
        self.nodes[node].server.tick(ms);
        self.drain_writer(node);
        self.send(node);
        self.plan_tick(node);
    }

    /// What clients that write are told, nobody reads; but it says that they have written.
    pub(super) fn drain_writer(&mut self, node: usize) -> Vec<u8> {
        let Some(writer) = self.nodes[node].writer else {
            return Vec::new();
        };
        let said = self.nodes[node].server.outbox(writer);
        if !said.is_empty() {
            self.observe(node, By::Clients);
            self.log.note(self.now, "client", node as u64, &said);
        }
        said
    }

    /// Looks what has become of all keys: another server has taken a place.
    pub(super) fn observe_all(&mut self, node: usize) {
        self.nodes[node].server.keyspace_mut().take_touched();
        self.look_at(node, Touched::All, By::Server);
    }

    /// Looks what has become of the keys that a server has touched.
    pub(super) fn observe(&mut self, node: usize, by: By) {
        let touched = self.nodes[node].server.keyspace_mut().take_touched();
        self.look_at(node, touched, by);
    }

    fn look_at(&mut self, node: usize, touched: Touched, by: By) {
        if self.nodes[node].replica_of.is_some() {
            return;
        }
        let side = self.nodes[node].side;
        let history = &mut self.histories[side as usize];
        let nodes = self.nodes.iter();
        let there: Vec<&Node> = nodes
            .filter(|node| node.side == side && node.replica_of.is_none() && !node.is_gone)
            .collect();
        let touched = match touched {
            Touched::Keys(touched) => touched,
            Touched::All => {
                let known = history.now.keys().cloned();
                known
                    .chain(there.iter().flat_map(|node| all_keys(&node.server)))
                    .collect()
            }
        };
        // A slot on its way lies on two servers, each key on one of them. What a replica still had of
        // a slot that had left its primary is nobody's key: no client gets there.
        let look = |place: &Place| {
            let slot = slot_of(&place.1);
            let owners = there.iter().filter(|node| node.owns(slot));
            let others = there.iter().filter(|node| node.imports(slot));
            let mut there = owners.chain(others);
            there.find_map(|node| node.server.keyspace().get(place.0, &place.1))
        };
        let release = self.nodes[node].server.release();
        history.observe(touched, look, release, (self.now, by));
    }

    /// Sends what a server has to say to the tool's connections.
    pub(super) fn send(&mut self, node: usize) {
        // A tool that connects again and again leaves many behind that nobody has any more.
        let links = &self.links;
        self.served
            .retain(|id| links[*id as usize].client.is_some());
        // Saying something may end a connection, and then others are told things, too.
        for id in self.served.clone() {
            let link = &self.links[id as usize];
            let Some(client) = link.client.filter(|_| link.node() == Some(node)) else {
                continue;
            };
            let server = &mut self.nodes[node].server;
            let mut bytes = Vec::new();
            if server.outbox_len(client) > 0 {
                bytes = server.outbox(client);
            }
            let is_open = server.is_open(client);
            if !bytes.is_empty() {
                self.say(id, &bytes);
            }
            if !is_open {
                self.nodes[node].server.disconnect(client);
                let now = self.now.max(self.nodes[node].busy_until);
                let way = self.net.latency_us;
                let link = &mut self.links[id as usize];
                link.client = None;
                let at = (now + way)
                    .max(link.to_tool.last + 1)
                    .max(link.stalled_until);
                link.to_tool.closes_at.get_or_insert(at);
                self.queue.plan(at, Due::ToTool(id));
            }
        }
    }

    fn say(&mut self, id: u64, bytes: &[u8]) {
        self.log.note(self.now, "server", id, bytes);
        let way = self.way();
        let cut_up = bytes.len() > 1 && self.chance.chance(self.net.pieces);
        let first = match cut_up {
            true => 1 + self.chance.below(bytes.len() as u64 - 1) as usize,
            false => bytes.len(),
        };
        let node = self.links[id as usize].node();
        let now = node.map_or(0, |node| self.nodes[node].busy_until);
        let now = now.max(self.now);
        let Some(link) = self.link(id) else { return };
        let (admitted, is_cut) = link.to_tool.admits(bytes.len());
        let earliest = (now + way).max(link.stalled_until);
        let arrivals = link.to_tool.send(&bytes[..admitted], first, earliest, way);
        let at = link.to_tool.last + 1;
        for arrival in arrivals.into_iter().flatten() {
            self.queue.plan(arrival, Due::ToTool(id));
        }
        if is_cut {
            self.count("cut: within a reply");
            self.lose_at(id, at);
        }
    }

    /// The connection is reset when what was said so far has arrived.
    fn lose_at(&mut self, id: u64, at: u64) {
        let Some(link) = self.link(id) else { return };
        let (peer, client) = (link.peer, link.client.take());
        link.to_tool.cut_after = Some(0);
        link.to_tool.closes_at = Some(at);
        self.queue.plan(at, Due::ToTool(id));
        if let Some(client) = client {
            self.hang_up(peer, client);
        }
    }

    /// The other end hears that the tool is gone.
    pub(super) fn hang_up(&mut self, peer: Peer, client: ClientId) {
        match peer {
            Peer::Node(node) => {
                self.nodes[node].server.disconnect(client);
                self.end_turn(node);
            }
            Peer::Sentinel(at) => self.sentinels[at].1.disconnect(client),
        }
    }

    pub(super) fn arrive_at_tool(&mut self, id: u64) {
        let now = self.now;
        let Some(link) = self.link(id) else { return };
        if now < link.stalled_until {
            let at = link.stalled_until;
            self.queue.plan(at, Due::ToTool(id));
            return;
        }
        if link.is_silent || !link.is_held {
            link.to_tool.pieces.clear();
            return;
        }
        while let Some(bytes) = link.to_tool.due(now) {
            link.ready.extend(bytes);
        }
        let is_over = link.to_tool.closes_at.is_some_and(|at| at <= now);
        if is_over && link.to_tool.pieces.is_empty() {
            let how = match link.to_tool.cut_after {
                Some(_) => End::Reset,
                None => End::Closed,
            };
            link.end.get_or_insert(how);
        }
    }

    /// The connection is over for both sides, now.
    pub(super) fn lose(&mut self, id: u64, how: End) {
        let Some(link) = self.link(id) else { return };
        link.end.get_or_insert(how);
        if how == End::Reset {
            link.ready.clear();
        }
        link.to_server.pieces.clear();
        link.to_tool.pieces.clear();
        link.partial.clear();
        let peer = link.peer;
        if let Some(client) = link.client.take() {
            self.hang_up(peer, client);
        }
    }
}

fn all_keys(server: &Server) -> impl Iterator<Item = Place> {
    let keyspace = server.keyspace();
    let dbs = 0..keyspace.databases();
    dbs.flat_map(move |db| keyspace.iter(db).map(move |(key, _)| (db, key.to_vec())))
}

/// Whether a command may change keys; those that are known not to need no look at all of them.
fn may_write(name: &[u8]) -> bool {
    const READS: [&str; 34] = [
        "scan",
        "dump",
        "type",
        "pttl",
        "ttl",
        "ping",
        "info",
        "client",
        "config",
        "select",
        "hello",
        "time",
        "dbsize",
        "object",
        "memory",
        "auth",
        "asking",
        "readonly",
        "cluster",
        "command",
        "acl",
        "role",
        "wait",
        "strlen",
        "llen",
        "scard",
        "zcard",
        "hlen",
        "xlen",
        "pexpiretime",
        "exists",
        "watch",
        "multi",
        "get",
    ];
    !READS
        .iter()
        .any(|read| name.eq_ignore_ascii_case(read.as_bytes()))
}
