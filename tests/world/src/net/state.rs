//! What is in the world: servers, links, what is due, and what the script still has in store.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;

use redis_migrate::pipe::Stop;
use siphasher::sip::SipHasher13;
use std::hash::Hasher;

use super::cluster::Move;
use super::history::{History, Loss};
use super::link::{End, Link, Peer};
use super::queue::{Due, Queue};
use crate::script::{Act, At, NetSetup, Phase, Planned, Side};
use crate::server::{ClientId, Random, Sentinel, Server};

/// Unix time at which every world begins, in ms.
pub const BEGAN_MS: u64 = 1_764_000_000_000;

/// A run that has gone on for so long (µs of the world) does not end.
const MOST_US: u64 = 4 * 3600 * 1_000_000;

/// A run in which so much happened does not end.
const MOST_STEPS: u64 = 4_000_000;

/// Nor does one that turns to the world so often: it does something again and again. Of 47,000 runs
/// of eight scenarios one in a hundred took over 2,000 calls, and none that ended took 100,000.
const MOST_CALLS: u32 = 400_000;

/// The port of the first sentinel; the others follow.
pub const FIRST_SENTINEL: u16 = 26379;

/// How often a server's clock ticks, in µs.
pub(super) const TICK_US: u64 = 100_000;

/// A server and what belongs to it.
#[derive(Debug)]
pub struct Node {
    /// The server.
    pub server: Server,
    /// Which end it belongs to.
    pub side: Side,
    /// How far its clock is ahead, in ms.
    pub skew_ms: i64,
    /// The connection of the clients that write.
    pub writer: Option<ClientId>,
    /// Connecting is refused until then.
    pub refuses_until: u64,
    /// It stands still until then.
    pub(super) busy_until: u64,
    /// Whose replica it is; `None` for a primary.
    pub replica_of: Option<usize>,
    /// Its process has ended for good.
    pub is_gone: bool,
    /// So many changes are held back from its replica.
    pub holds_back: usize,
    /// Memory that its keys may take, when nothing is wrong with it.
    pub max_memory: u64,
    pub(super) wakes: u64,
    /// Slots that were on their way to the node whose place it took: their keys are stuck here, where
    /// only whoever mends the cluster finds them (`redis-cli --cluster fix`). They are not lost.
    pub(super) stuck: BTreeSet<u16>,
    /// When the tool last turned to it: it wrote to a connection, or tried to have one.
    pub(super) turned_to: u64,
    /// When it last told the tool who it is (INFO).
    pub(super) told: u64,
}

/// How often things struck.
pub type Counts = BTreeMap<&'static str, u64>;

#[derive(Debug)]
pub(super) enum Ending {
    Killed,
    Endless(String),
}

/// What is in the world.
pub struct State {
    /// µs since it began.
    pub now: u64,
    /// The tool's random numbers.
    pub random: Random,
    /// The network's.
    pub(super) chance: Random,
    pub(super) net: NetSetup,
    pub(super) queue: Queue,
    pub(super) links: Vec<Link>,
    /// Those that a server may still have, in order.
    pub(super) served: Vec<u64>,
    /// The servers.
    pub nodes: Vec<Node>,
    /// The sentinels, and which side each watches.
    pub sentinels: Vec<(Side, Sentinel)>,
    /// What the keys of each side were.
    pub(super) histories: [History; 2],
    pub(super) moves: Vec<Move>,
    /// New connections of these sides are reset after so many bytes to the tool.
    pub(super) doomed: Vec<(Side, u32)>,
    pub(super) plan: Plan,
    /// What struck.
    pub struck: Counts,
    pub(super) ending: Option<Ending>,
    pub(super) log: Log,
    pub(super) words: Vec<Range<usize>>,
}

/// What the script still has in store for this run.
#[derive(Default)]
pub(super) struct Plan {
    pub events: Vec<Planned>,
    by_calls: Vec<(u32, usize)>,
    pub by_commands: Vec<(u32, usize)>,
    pub named: Vec<Named>,
    calls: u32,
    pub commands: u32,
    steps: u64,
    began: u64,
    pub stop: Stop,
    before_kill: Option<Box<dyn FnOnce()>>,
}

pub(super) struct Named {
    pub side: Side,
    pub command: String,
    pub left: u32,
    pub is_before: bool,
    pub event: usize,
}

/// What was said, as a digest and, if somebody reads it, in words.
#[derive(Default)]
pub(super) struct Log {
    digest: SipHasher13,
    pub lines: Option<Vec<String>>,
}

impl Log {
    pub fn note(&mut self, now: u64, what: &str, link: u64, bytes: &[u8]) {
        self.digest.write_u64(now);
        self.digest.write(what.as_bytes());
        self.digest.write_u64(link);
        self.digest.write(bytes);
        if let Some(lines) = &mut self.lines {
            let shown = bytes.escape_ascii().to_string();
            let shown: String = shown.chars().take(300).collect();
            lines.push(format!("{now:>9} {what} {link}: {shown}"));
        }
    }

    pub fn tell(&mut self, now: u64, text: &str) {
        self.note(now, text, 0, &[]);
    }
}

impl State {
    /// A world whose clock stands at its beginning.
    pub fn new(
        net: NetSetup,
        nodes: Vec<Node>,
        sentinels: Vec<(Side, Sentinel)>,
        seed: u64,
    ) -> Self {
        let mut state = Self {
            now: 0,
            random: Random::new(seed ^ 0x7001),
            chance: Random::new(seed ^ 0x0e70),
            net,
            queue: Queue::default(),
            links: Vec::new(),
            served: Vec::new(),
            nodes,
            sentinels,
            histories: Default::default(),
            moves: Vec::new(),
            doomed: Vec::new(),
            plan: Plan::default(),
            struck: Counts::new(),
            ending: None,
            log: Log::default(),
            words: Vec::new(),
        };
        for node in 0..state.nodes.len() {
            state.attach_replicas(node);
            state.observe_all(node);
            state.queue.plan(TICK_US, Due::Tick(node));
        }
        state
    }

    /// Keeps what happens in words, too.
    pub fn keep_log(&mut self) {
        self.log.lines = Some(Vec::new());
    }

    /// What happened, in words, if they were kept.
    pub fn log_lines(&mut self) -> Vec<String> {
        self.log.lines.take().unwrap_or_default()
    }

    /// The digest of everything that was said so far.
    pub fn digest(&self) -> u64 {
        self.log.digest.finish()
    }

    /// What the keys of a side were.
    pub fn history(&self, side: Side) -> &History {
        &self.histories[side as usize]
    }

    /// When changes of a side were lost, and whether the tool could not see that: whoever lost them
    /// had told who it is after all was written, and was not turned to again, nor was its successor.
    pub fn losses(&self, side: Side) -> Vec<(Loss, bool)> {
        let history = self.history(side);
        let is_unseen = |loss: &Loss| {
            let (node, successor) = (&self.nodes[loss.node], &self.nodes[loss.successor]);
            let has_looked = history.wrote <= node.told && node.turned_to <= node.told;
            has_looked && node.told <= loss.at && successor.turned_to <= loss.at
        };
        let losses = history.losses.iter();
        losses.map(|loss| (loss.clone(), is_unseen(loss))).collect()
    }

    /// A server loses changes now; `successor`: who has its place then.
    pub(super) fn note_loss(&mut self, node: usize, successor: usize, astray: BTreeSet<u16>) {
        let (at, side) = (self.now, self.nodes[node].side);
        self.histories[side as usize].losses.push(Loss {
            at,
            astray,
            node,
            successor,
        });
    }

    /// The tool's clock, Unix ms.
    pub fn unix_ms(&self) -> u64 {
        BEGAN_MS + self.now / 1000
    }

    /// A server's clock, Unix ms.
    pub fn node_ms(&self, node: usize) -> u64 {
        self.unix_ms()
            .saturating_add_signed(self.nodes[node].skew_ms)
    }

    /// How long bytes take one way, this time.
    pub(super) fn way(&mut self) -> u64 {
        self.net.latency_us + self.chance.below(self.net.jitter_us + 1)
    }

    pub(super) fn begin(&mut self, phase: &Phase, stop: Stop, before_kill: Box<dyn FnOnce()>) {
        self.queue.forget_planned();
        self.doomed.clear();
        self.ending = None;
        let mut plan = Plan {
            events: phase.events.clone(),
            began: self.now,
            stop,
            before_kill: Some(before_kill),
            ..Plan::default()
        };
        let mut at_once = Vec::new();
        for (at, event) in plan.events.iter().enumerate() {
            match &event.at {
                At::Start => at_once.push(at),
                At::Time(after) => self.queue.plan(self.now + after, Due::Planned(at)),
                At::Calls(count) => plan.by_calls.push((*count, at)),
                At::Commands(count) => plan.by_commands.push((*count, at)),
                At::Before(side, command, nth) | At::After(side, command, nth) => {
                    plan.named.push(Named {
                        side: *side,
                        command: command.clone(),
                        left: *nth,
                        is_before: matches!(event.at, At::Before(..)),
                        event: at,
                    });
                }
            }
        }
        // The next one is the last.
        plan.by_calls.sort_by(|one, other| other.cmp(one));
        plan.by_commands.sort_by(|one, other| other.cmp(one));
        self.plan = plan;
        at_once.into_iter().for_each(|event| self.strike(event));
    }

    /// The tool's process is gone: what it sent still arrives, and then its connections end.
    pub(super) fn end_run(&mut self) {
        self.queue.forget_planned();
        self.plan = Plan::default();
        self.ending = None;
        for link in 0..self.links.len() {
            self.close_by_tool(link as u64);
        }
    }

    pub(super) fn killed(&mut self) -> Option<Box<dyn FnOnce()>> {
        self.plan.before_kill.take()
    }

    /// The tool turns to the world.
    pub(super) fn called(&mut self) {
        self.plan.calls += 1;
        let calls = self.plan.calls;
        while let Some((_, event)) = self.plan.by_calls.pop_if(|(count, _)| *count <= calls) {
            self.strike(event);
        }
    }

    /// Lets the next thing happen that is due until then; `false` if there is nothing, and it is then.
    pub(super) fn advance(&mut self, until: u64) -> bool {
        let Some((at, due)) = (match self.queue.next_at() {
            Some(at) if at <= until => self.queue.pop(),
            _ => None,
        }) else {
            self.now = self.now.max(until);
            self.limit();
            return false;
        };
        self.now = self.now.max(at);
        self.plan.steps += 1;
        self.limit();
        match due {
            Due::ToServer(link) => self.arrive_at_server(link),
            Due::ToTool(link) => self.arrive_at_tool(link),
            Due::Tick(node) => self.tick(node),
            Due::Planned(event) => self.strike(event),
            Due::Over(node, what) => self.is_over(node, what),
            Due::Replicate(node) => self.replicate(node),
            Due::Moving(which) => self.moves_on(which),
            Due::Wake => {}
        }
        true
    }

    fn limit(&mut self) {
        let lasted = self.now - self.plan.began;
        let is_endless =
            lasted > MOST_US || self.plan.steps > MOST_STEPS || self.plan.calls > MOST_CALLS;
        if self.ending.is_none() && is_endless {
            let (steps, calls) = (self.plan.steps, self.plan.calls);
            let text = format!("{} s, {steps} events, {calls} calls", lasted / 1_000_000);
            self.ending = Some(Ending::Endless(text));
        }
    }

    pub(super) fn wake_at(&mut self, at: u64) {
        self.queue.plan(at, Due::Wake);
    }

    // ----- the tool's end of links -----

    /// A new connection to the server at this port; `None` while nobody answers.
    pub(super) fn connect(&mut self, port: u16) -> Option<io::Result<u64>> {
        let id = self.links.len() as u64;
        let refused = Some(Err(io::ErrorKind::ConnectionRefused.into()));
        let mut link = if let Some(at) = port.checked_sub(FIRST_SENTINEL).map(usize::from) {
            let Some((_, sentinel)) = self.sentinels.get_mut(at) else {
                return refused;
            };
            Link::new(Peer::Sentinel(at), Some(sentinel.connect()))
        } else {
            let is_here = |node: &Node| node.server.config().port == port;
            let Some(at) = self.nodes.iter().position(is_here) else {
                return refused;
            };
            let node = &mut self.nodes[at];
            node.turned_to = self.now;
            if node.is_gone || self.now < node.refuses_until {
                self.log.note(self.now, "refused", id, &[]);
                return refused;
            }
            match node.server.connect() {
                Ok(client) => Link::new(Peer::Node(at), Some(client)),
                Err(words) => {
                    let mut link = Link::new(Peer::Node(at), None);
                    link.ready.extend(words);
                    link.end = Some(End::Closed);
                    link
                }
            }
        };
        let side = self.side_of(link.peer);
        if let Some((_, bytes)) = self.doomed.iter().find(|(of, _)| *of == side) {
            link.to_tool.cut_after = Some(*bytes as usize);
        }
        self.links.push(link);
        self.served.push(id);
        self.log
            .note(self.now, "connected", id, &port.to_le_bytes());
        Some(Ok(id))
    }

    pub(super) fn link(&mut self, id: u64) -> Option<&mut Link> {
        self.links.get_mut(usize::try_from(id).ok()?)
    }

    pub(super) fn timeout(&self, id: u64) -> u64 {
        self.links.get(id as usize).map_or(0, |link| link.timeout)
    }

    pub(super) fn set_timeout(&mut self, id: u64, timeout: u64) {
        if let Some(link) = self.link(id) {
            link.timeout = timeout;
        }
    }

    pub(super) fn is_readable(&self, id: u64) -> bool {
        self.links.get(id as usize).is_none_or(Link::is_readable)
    }

    pub(super) fn read(&mut self, id: u64, out: &mut [u8]) -> Option<io::Result<usize>> {
        match self.link(id) {
            Some(link) if link.is_held => link.read(out),
            _ => Some(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    pub(super) fn write(&mut self, id: u64, bytes: &[u8]) -> io::Result<usize> {
        let way = self.way();
        let cut_up = bytes.len() > 1 && self.chance.chance(self.net.pieces);
        let first = match cut_up {
            true => 1 + self.chance.below(bytes.len() as u64 - 1) as usize,
            false => bytes.len(),
        };
        self.log.note(self.now, "tool", id, bytes);
        let now = self.now;
        if let Some(node) = self.link(id).and_then(|link| link.node()) {
            self.nodes[node].turned_to = now;
        }
        let Some(link) = self.link(id).filter(|link| link.is_held) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        match link.end {
            Some(End::Reset) => return Err(io::ErrorKind::ConnectionReset.into()),
            // The first write to a connection that is closed at the other end goes out.
            Some(End::Closed) | None => {}
        }
        let (admitted, is_cut) = link.to_server.admits(bytes.len());
        let earliest = (now + way).max(link.stalled_until);
        let arrivals = link
            .to_server
            .send(&bytes[..admitted], first, earliest, way);
        let at = link.to_server.last + 1;
        for arrival in arrivals.into_iter().flatten() {
            self.queue.plan(arrival, Due::ToServer(id));
        }
        if is_cut {
            let Some(link) = self.link(id) else {
                return Ok(bytes.len());
            };
            link.to_server.closes_at = Some(at);
            link.to_server.cut_after = Some(0);
            self.queue.plan(at, Due::ToServer(id));
            self.count("cut: within a command");
        }
        Ok(bytes.len())
    }

    pub(super) fn close_by_tool(&mut self, id: u64) {
        let (now, way) = (self.now, self.net.latency_us);
        let Some(link) = self.link(id).filter(|link| link.is_held) else {
            return;
        };
        link.is_held = false;
        link.ready.clear();
        let at = (now + way)
            .max(link.to_server.last + 1)
            .max(link.stalled_until);
        link.to_server.closes_at.get_or_insert(at);
        self.queue.plan(at, Due::ToServer(id));
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.struck.entry(what).or_default() += 1;
    }

    pub(super) fn strike(&mut self, at: usize) {
        let Some(event) = self.plan.events.get(at) else {
            return;
        };
        let act = event.act.clone();
        if let Act::Do(side, ..) = act
            && let Some(until) = self.stands_still(side)
        {
            // Clients wait, too.
            self.queue.plan(until, Due::Planned(at));
            return;
        }
        if self.act(&act) {
            self.count(act.kind());
            if self.log.lines.is_some() {
                self.log.tell(self.now, &format!("!! {act:?}"));
            }
        }
    }
}

impl Node {
    /// A server that takes part.
    pub fn new(server: Server, side: Side, skew_ms: i64, max_memory: u64) -> Self {
        Self {
            server,
            side,
            skew_ms,
            writer: None,
            refuses_until: 0,
            busy_until: 0,
            replica_of: None,
            is_gone: false,
            holds_back: 0,
            max_memory,
            wakes: 0,
            stuck: BTreeSet::new(),
            turned_to: 0,
            told: 0,
        }
    }

    /// Its id in its cluster.
    pub(super) fn id(&self) -> Option<&str> {
        self.server.cluster().map(|cluster| cluster.me.as_str())
    }

    /// Whether a slot of the cluster belongs to it; outside of a cluster all do.
    pub fn owns(&self, slot: u16) -> bool {
        let cluster = self.server.cluster();
        cluster.is_none_or(|cluster| cluster.owner(slot) == Some(cluster.me.as_str()))
    }

    /// Whether a slot of the cluster is on its way to it, or was when it took another node's place.
    pub(super) fn imports(&self, slot: u16) -> bool {
        let cluster = self.server.cluster();
        self.stuck.contains(&slot)
            || cluster.is_some_and(|cluster| cluster.importing.contains_key(&slot))
    }
}
