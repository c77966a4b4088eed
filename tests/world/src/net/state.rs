//! What is in the world: servers, links, what is due, and what the script still has in store.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use redis_migrate::pipe::Stop;
use siphasher::sip::SipHasher13;
use std::hash::Hasher;

use super::command;
use super::history::{By, History};
use super::link::{End, Link};
use super::queue::{Due, Queue};
use crate::script::{At, NetSetup, Phase, Planned, Side};
use crate::server::{ClientId, Random, Server};

/// Unix time at which every world begins, in ms.
pub const BEGAN_MS: u64 = 1_764_000_000_000;

/// A run that has gone on for so long (µs of the world) does not end.
const MOST_US: u64 = 6 * 3600 * 1_000_000;

/// A run in which so much happened does not end.
const MOST_STEPS: u64 = 4_000_000;

/// How often a server's clock ticks, in µs.
const TICK_US: u64 = 100_000;

/// A server and what belongs to it.
#[derive(Debug)]
pub struct Node {
    /// The server.
    pub server: Server,
    /// Which end it belongs to.
    pub side: Side,
    /// How far its clock is ahead, in ms.
    pub skew_ms: i64,
    /// What its keys were.
    pub history: History,
    /// The connection of the clients that write.
    pub writer: Option<ClientId>,
    /// Connecting is refused until then.
    pub refuses_until: u64,
    /// It takes part: the address leads to it, and clients write there.
    pub is_primary: bool,
    /// Memory that its keys may take, when nothing is wrong with it.
    pub max_memory: u64,
    wakes: u64,
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
    net: NetSetup,
    pub(super) queue: Queue,
    pub(super) links: Vec<Link>,
    /// The servers.
    pub nodes: Vec<Node>,
    pub(super) plan: Plan,
    /// What struck.
    pub struck: Counts,
    pub(super) ending: Option<Ending>,
    pub(super) log: Log,
    words: Vec<Range<usize>>,
}

/// What the script still has in store for this run.
#[derive(Default)]
pub(super) struct Plan {
    pub events: Vec<Planned>,
    by_calls: Vec<(u32, usize)>,
    by_commands: Vec<(u32, usize)>,
    named: Vec<Named>,
    calls: u32,
    commands: u32,
    steps: u64,
    began: u64,
    pub stop: Stop,
    before_kill: Option<Box<dyn FnOnce()>>,
}

struct Named {
    side: Side,
    command: String,
    left: u32,
    is_before: bool,
    event: usize,
}

/// What was said, as a digest and, if somebody reads it, in words.
#[derive(Default)]
pub(super) struct Log {
    digest: SipHasher13,
    pub lines: Option<Vec<String>>,
}

impl Log {
    fn note(&mut self, now: u64, what: &str, link: u64, bytes: &[u8]) {
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
    pub fn new(net: NetSetup, nodes: Vec<Node>, seed: u64) -> Self {
        let mut state = Self {
            now: 0,
            random: Random::new(seed ^ 0x7001),
            chance: Random::new(seed ^ 0x0e70),
            net,
            queue: Queue::default(),
            links: Vec::new(),
            nodes,
            plan: Plan::default(),
            struck: Counts::new(),
            ending: None,
            log: Log::default(),
            words: Vec::new(),
        };
        for node in 0..state.nodes.len() {
            state.observe(node, By::Server);
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
            Due::Wake => {}
        }
        true
    }

    fn limit(&mut self) {
        let lasted = self.now - self.plan.began;
        if self.ending.is_none() && (lasted > MOST_US || self.plan.steps > MOST_STEPS) {
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
        let is_here = |node: &Node| node.server.config().port == port;
        let Some(at) = self.nodes.iter().position(is_here) else {
            return Some(Err(io::ErrorKind::ConnectionRefused.into()));
        };
        let id = self.links.len() as u64;
        let node = &mut self.nodes[at];
        if self.now < node.refuses_until {
            self.log.note(self.now, "refused", id, &[]);
            return Some(Err(io::ErrorKind::ConnectionRefused.into()));
        }
        let link = match node.server.connect() {
            Ok(client) => Link::new(at, Some(client)),
            Err(words) => {
                let mut link = Link::new(at, None);
                link.ready.extend(words);
                link.end = Some(End::Closed);
                link
            }
        };
        self.links.push(link);
        self.log
            .note(self.now, "connected", id, &port.to_le_bytes());
        Some(Ok(id))
    }

    fn link(&mut self, id: u64) -> Option<&mut Link> {
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

    // ----- the servers' ends -----

    fn arrive_at_server(&mut self, id: u64) {
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
        let (node, Some(client)) = (link.node, link.client) else {
            return;
        };
        let bytes = std::mem::take(&mut link.partial);
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
            if may_write(&whole[words[0].clone()]) {
                self.observe(node, By::Tool);
            }
            self.around(node, whole, &words, false);
            if self.links[id as usize].client != Some(client) {
                is_cut = true;
                break;
            }
            at += end;
        }
        self.words = words;
        if !is_cut && let Some(link) = self.link(id) {
            link.partial = bytes[at..].to_vec();
        }
        self.end_turn(node);
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

    fn tick(&mut self, node: usize) {
        let ms = self.node_ms(node);
        if self.now.is_multiple_of(TICK_US) {
            self.queue.plan(self.now + TICK_US, Due::Tick(node));
        }
        self.nodes[node].server.tick(ms);
        self.drain_writer(node);
        self.send(node);
        self.plan_tick(node);
    }

    /// What clients that write are told, nobody reads; but it says that they have written.
    pub(super) fn drain_writer(&mut self, node: usize) {
        let Some(writer) = self.nodes[node].writer else {
            return;
        };
        let said = self.nodes[node].server.outbox(writer);
        if !said.is_empty() {
            self.observe(node, By::Clients);
            self.log.note(self.now, "client", node as u64, &said);
        }
    }

    pub(super) fn observe(&mut self, node: usize, by: By) {
        let now = self.now;
        let node = &mut self.nodes[node];
        node.history.observe(&mut node.server, now, by);
    }

    /// Sends what a server has to say to the tool's connections.
    fn send(&mut self, node: usize) {
        for id in 0..self.links.len() {
            let link = &self.links[id];
            let Some(client) = link.client.filter(|_| link.node == node) else {
                continue;
            };
            let server = &mut self.nodes[node].server;
            let mut bytes = Vec::new();
            if server.outbox_len(client) > 0 {
                bytes = server.outbox(client);
            }
            let is_open = server.is_open(client);
            if !bytes.is_empty() {
                self.say(id as u64, &bytes);
            }
            if !is_open {
                self.nodes[node].server.disconnect(client);
                let (now, way) = (self.now, self.net.latency_us);
                let link = &mut self.links[id];
                link.client = None;
                let at = (now + way)
                    .max(link.to_tool.last + 1)
                    .max(link.stalled_until);
                link.to_tool.closes_at.get_or_insert(at);
                self.queue.plan(at, Due::ToTool(id as u64));
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
        let now = self.now;
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
        let (node, client) = (link.node, link.client.take());
        link.to_tool.cut_after = Some(0);
        link.to_tool.closes_at = Some(at);
        self.queue.plan(at, Due::ToTool(id));
        if let Some(client) = client {
            self.nodes[node].server.disconnect(client);
        }
    }

    fn arrive_at_tool(&mut self, id: u64) {
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
        let node = link.node;
        if let Some(client) = link.client.take() {
            self.nodes[node].server.disconnect(client);
            self.end_turn(node);
        }
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.struck.entry(what).or_default() += 1;
    }

    fn strike(&mut self, event: usize) {
        let Some(event) = self.plan.events.get(event) else {
            return;
        };
        let act = event.act.clone();
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
            history: History::default(),
            writer: None,
            refuses_until: 0,
            is_primary: true,
            max_memory,
            wakes: 0,
        }
    }

    /// Whether a slot of the cluster belongs to it.
    pub(super) fn owns(&self, _slot: u16) -> bool {
        true
    }
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
