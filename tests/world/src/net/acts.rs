//! What clients, operators and bad luck do.

use super::hang::HANG_OVER;
use super::link::{End, Peer};
use super::queue::Due;
use super::state::{Ending, State};
use crate::script::{Act, Condition, Cut, Odd, Restart, Side, Word};
use crate::server::{Answer, Fault, Reply, slot_of};

/// Errors that a real server gives where it should not.
const LOADING_OVER: u8 = 0;
const BUSY_OVER: u8 = 1;
const MISCONF_OVER: u8 = 2;
const MASTER_DOWN_OVER: u8 = 3;
const MEMORY_OVER: u8 = 4;
const CLUSTER_DOWN_OVER: u8 = 5;
const RESTARTED: u8 = 6;

impl State {
    /// Does it; whether it struck anything.
    pub(super) fn act(&mut self, act: &Act) -> bool {
        match act {
            Act::Do(side, db, words) => self.client_does(*side, *db, words),
            Act::Cut(side, which, cut) => self.cut(*side, *which, *cut),
            Act::Stall(side, which, ms) => self.stall(*side, *which, *ms),
            Act::Hang(side, which, command, ms) => {
                self.hang(*side, *which, command, *ms);
                // It counts when it happens.
                false
            }
            Act::Refuse(side, ms) => {
                let until = self.now + ms * 1000;
                self.nodes_of(*side)
                    .into_iter()
                    .for_each(|node| self.nodes[node].refuses_until = until);
                true
            }
            Act::Doom(side, bytes) => {
                self.doomed.push((*side, *bytes));
                true
            }
            Act::Restart(restart) => self.restart(restart),
            Act::Condition(side, condition, ms) => self.condition(*side, *condition, *ms),
            Act::Odd(side, command, odd) => {
                for node in self.nodes_of(*side) {
                    self.nodes[node].server.plan(odd_fault(command, odd));
                }
                // It counts when it is met.
                false
            }
            Act::Unpause(side) => {
                for node in self.nodes_of(*side) {
                    self.by_client(node, 0, &[b"CLIENT", b"UNPAUSE"]);
                }
                true
            }
            Act::Stop => {
                self.plan.stop.set();
                true
            }
            Act::Kill => {
                self.ending = Some(Ending::Killed);
                true
            }
            Act::Reshard(side, slot, to, step_us) => self.reshard(*side, *slot, *to, *step_us),
            Act::Failover(side, which, lose) => self.failover(*side, *which, *lose),
        }
    }

    /// The servers of a side that take part.
    pub fn nodes_of(&self, side: Side) -> Vec<usize> {
        let nodes = self.nodes.iter().enumerate();
        nodes
            .filter(|(_, node)| node.side == side && node.replica_of.is_none() && !node.is_gone)
            .map(|(at, _)| at)
            .collect()
    }

    pub(super) fn side_of(&self, peer: Peer) -> Side {
        match peer {
            Peer::Node(node) => self.nodes[node].side,
            Peer::Sentinel(at) => self.sentinels[at].0,
        }
    }

    fn open_links(&self, side: Side) -> Vec<u64> {
        let links = self.links.iter().enumerate();
        links
            .filter(|(_, link)| link.is_open() && self.side_of(link.peer) == side)
            .map(|(at, _)| at as u64)
            .collect()
    }

    fn one_link(&self, side: Side, which: u8) -> Option<u64> {
        let open = self.open_links(side);
        let at = usize::from(which).checked_rem(open.len())?;
        open.get(at).copied()
    }

    fn client_does(&mut self, side: Side, db: u32, words: &[Word]) -> bool {
        let nodes = self.nodes_of(side);
        let slot = words.get(1).map_or(0, |key| slot_of(&key.0));
        let owner = nodes.iter().find(|node| self.nodes[**node].owns(slot));
        let Some(&node) = owner.or(nodes.first()) else {
            return false;
        };
        let words: Vec<&[u8]> = words.iter().map(|word| &word.0[..]).collect();
        let said = self.by_client(node, db, &words);
        if said.starts_with(b"-ASK ") {
            let importing = |node: &&usize| {
                let cluster = self.nodes[**node].server.cluster();
                cluster.is_some_and(|cluster| cluster.importing.contains_key(&slot))
            };
            if let Some(&node) = nodes.iter().find(importing) {
                self.by_client(node, db, &[b"ASKING"]);
                self.by_client(node, db, &words);
            }
        }
        true
    }

    /// A command of a client that is not the tool, and its answer; a pause holds it up.
    fn by_client(&mut self, node: usize, db: u32, words: &[&[u8]]) -> Vec<u8> {
        let ms = self.node_ms(node);
        if self.now < self.nodes[node].refuses_until {
            return Vec::new();
        }
        let known = self.nodes[node].writer;
        let server = &mut self.nodes[node].server;
        let writer = match known.filter(|writer| server.is_open(*writer)) {
            Some(writer) => writer,
            None => match server.connect() {
                Ok(writer) => writer,
                Err(_) => return Vec::new(),
            },
        };
        let select = db.to_string();
        let mut bytes = Vec::new();
        if server.config().databases > 1 {
            pack(&mut bytes, &[b"SELECT", select.as_bytes()]);
            server.receive(writer, &bytes, ms);
            bytes.clear();
        }
        pack(&mut bytes, words);
        server.receive(writer, &bytes, ms);
        self.nodes[node].writer = Some(writer);
        let said = self.drain_writer(node);
        self.end_turn(node);
        match said.strip_prefix(b"+OK\r\n") {
            Some(rest) if !rest.is_empty() => rest.to_vec(),
            _ => said,
        }
    }

    fn cut(&mut self, side: Side, which: u8, cut: Cut) -> bool {
        let Some(id) = self.one_link(side, which) else {
            return false;
        };
        let way = self.way();
        match cut {
            Cut::Reset => self.lose(id, End::Reset),
            Cut::Close => {
                let now = self.now;
                let link = &mut self.links[id as usize];
                let at = (now + way).max(link.to_tool.last + 1);
                link.to_tool.closes_at = Some(at);
                link.to_server.pieces.clear();
                let (peer, client) = (link.peer, link.client.take());
                if let Some(client) = client {
                    self.hang_up(peer, client);
                }
                self.queue.plan(at, Due::ToTool(id));
            }
            Cut::Silence => self.links[id as usize].is_silent = true,
            // It counts when it happens.
            Cut::ToServer(bytes) => {
                self.links[id as usize].to_server.cut_after = Some(bytes as usize);
                return false;
            }
            Cut::ToTool(bytes) => {
                self.links[id as usize].to_tool.cut_after = Some(bytes as usize);
                return false;
            }
        }
        true
    }

    fn stall(&mut self, side: Side, which: u8, ms: u64) -> bool {
        let Some(id) = self.one_link(side, which) else {
            return false;
        };
        self.histories[side as usize].stalled_ms += ms;
        let until = self.now + ms * 1000;
        let link = &mut self.links[id as usize];
        link.stalled_until = link.stalled_until.max(until);
        true
    }

    fn restart(&mut self, restart: &Restart) -> bool {
        let primaries = self.nodes_of(restart.side);
        let which = usize::from(restart.which) % primaries.len().max(1);
        let Some(&node) = primaries.get(which) else {
            return false;
        };
        self.break_off_hang(node);
        self.close_links_of(node);
        let ms = self.node_ms(node);
        let place = &mut self.nodes[node];
        let history = &self.histories[place.side as usize];
        history.undo(restart.lose as usize, place.server.keyspace_mut(), ms);
        place.server.restart(None);
        place.writer = None;
        place.refuses_until = self.now + restart.down_ms * 1000;
        let up_at = place.refuses_until + restart.loading_ms * 1000;
        if restart.loading_ms > 0 {
            place.server.conditions_mut().loading = true;
            self.queue.plan(up_at, Due::Over(node, LOADING_OVER));
        }
        self.queue.plan(up_at, Due::Over(node, RESTARTED));
        let astray = place.stuck.clone();
        self.note_loss(node, node, astray);
        self.observe_all(node);
        true
    }

    /// All connections to a server end: its process is gone.
    pub(super) fn close_links_of(&mut self, node: usize) {
        for id in 0..self.links.len() {
            if self.links[id].node() == Some(node) {
                self.lose_quietly(id);
            }
        }
    }

    fn lose_quietly(&mut self, id: usize) {
        let link = &mut self.links[id];
        if link.client.take().is_none() {
            return;
        }
        link.to_server.pieces.clear();
        link.partial.clear();
        let at = (self.now + 1).max(link.to_tool.last + 1);
        link.to_tool.closes_at = Some(at);
        self.queue.plan(at, Due::ToTool(id as u64));
    }

    fn condition(&mut self, side: Side, condition: Condition, ms: u64) -> bool {
        let at = self.now + ms * 1000;
        for node in self.nodes_of(side) {
            let server = &mut self.nodes[node].server;
            let conditions = server.conditions_mut();
            let over = match condition {
                Condition::Loading => {
                    conditions.loading = true;
                    LOADING_OVER
                }
                Condition::Busy => {
                    conditions.busy = true;
                    BUSY_OVER
                }
                Condition::Misconf => {
                    conditions.misconf = true;
                    MISCONF_OVER
                }
                Condition::MasterDown => {
                    conditions.master_down = true;
                    MASTER_DOWN_OVER
                }
                Condition::ClusterDown => {
                    conditions.cluster_down = true;
                    CLUSTER_DOWN_OVER
                }
                Condition::Oom => {
                    let limits = &mut server.config_mut().limits;
                    limits.max_memory = 1;
                    limits.policy = "noeviction".to_owned();
                    MEMORY_OVER
                }
                Condition::ReadOnly => return false,
            };
            self.queue.plan(at, Due::Over(node, over));
        }
        true
    }

    /// A state that began with an event ends.
    pub(super) fn is_over(&mut self, node: usize, what: u8) {
        if what == RESTARTED {
            return self.is_up_again(node);
        }
        if what == HANG_OVER {
            if self.nodes[node].busy_until == self.now {
                self.end_hang(node);
            }
            return;
        }
        let max_memory = self.nodes[node].max_memory;
        let server = &mut self.nodes[node].server;
        let conditions = server.conditions_mut();
        match what {
            LOADING_OVER => conditions.loading = false,
            BUSY_OVER => conditions.busy = false,
            MISCONF_OVER => conditions.misconf = false,
            MASTER_DOWN_OVER => conditions.master_down = false,
            CLUSTER_DOWN_OVER => conditions.cluster_down = false,
            _ => server.config_mut().limits.max_memory = max_memory,
        }
    }

    /// Only a primary that answers again takes from its replicas what it has lost itself: one that is
    /// promoted before has kept it.
    fn is_up_again(&mut self, node: usize) {
        let place = &mut self.nodes[node];
        let is_primary = place.replica_of.is_none() && !place.is_gone;
        if is_primary && place.refuses_until <= self.now && !place.server.conditions_mut().loading {
            self.attach_replicas(node);
        }
    }
}

fn pack(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

fn odd_fault(command: &str, odd: &Odd) -> Fault {
    let answer = match odd {
        Odd::Error(text) => Answer::Refuse(text.clone()),
        Odd::Nil => Answer::Nil,
        Odd::Int(number) => Answer::Say(Reply::Int(*number)),
        Odd::Okay => Answer::Say(Reply::OK),
        Odd::Empty => Answer::Say(Reply::Array(Vec::new())),
        Odd::Nothing => Answer::Nothing,
        Odd::DoneNil => Answer::DoAndSay(Reply::Nil),
        Odd::CloseBefore => Answer::CloseBefore,
        Odd::CloseAfter => Answer::CloseAfter,
    };
    Fault {
        command: command.to_owned(),
        nth: 1,
        in_exec: false,
        answer,
    }
}
