//! A model destination: nodes with keys and slots, connections that may be cut at any command, and
//! answers that may be errors.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::dialect::{Dialect, Version};
use crate::endpoint::{ConnectOptions, NodeAddress, Sentinels, ServerAddress, Transport};
use crate::ledger::{Deletions, SinkReport};
use crate::payload;
use crate::payload::accept::Accepts;
use crate::policy::{Method, OnConflict};
use crate::record::{Context, Family, KeyRecord, Origin, Value};
use crate::server::ServerError;
use crate::server::cluster::{ClusterNode, Shard, Topology};
use crate::server::facts::{Facts, RoleFacts};
use crate::server::slots::{SLOTS, slot_of};
use crate::sink::server::commands::{
    self, CommandLimits, CommandLosses, Features, Job, Replace, Ticket, Written,
};
use crate::sink::server::compare::Found;
use crate::sink::server::foresee::KeyRights;
use crate::sink::server::functions::Fate;
use crate::sink::server::held::Repeats;
use crate::sink::server::prepare::{Ready, Target};
use crate::sink::server::window::Window;
use crate::sink::server::writer::{
    Action, Answer, Due, Event, Fleet, Form, How, Introduction, Item, Met, NodeSaid, Now, Question,
    Say, Settings, Task, Upheavals, Writer,
};

/// The RDB version of the model's payloads.
const VERSION: u16 = 11;

/// What is written, and how.
#[derive(Debug, Clone)]
pub struct Story {
    pub on_conflict: OnConflict,
    pub repeats: Repeats,
    pub method: Method,
    pub nodes: usize,
    pub dry_run: bool,
    pub may_collide: bool,
    pub batches: usize,
    /// Records that may be in flight on a connection.
    pub window: usize,
    /// Sentinels watch it.
    pub is_watched: bool,
}

impl Default for Story {
    fn default() -> Self {
        Self {
            on_conflict: OnConflict::Fail,
            repeats: Repeats::No,
            method: Method::Auto,
            nodes: 1,
            dry_run: false,
            may_collide: false,
            batches: 6,
            window: 6,
            is_watched: false,
        }
    }
}

/// How often things go wrong, in a thousand commands.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    pub cuts: u64,
    pub errors: u64,
    pub moves: u64,
    pub restarts: u64,
}

impl Faults {
    pub fn none() -> Self {
        Self {
            cuts: 0,
            errors: 0,
            moves: 0,
            restarts: 0,
        }
    }

    pub fn some() -> Self {
        Self {
            cuts: 10,
            errors: 10,
            moves: 10,
            restarts: 2,
        }
    }

    pub fn many() -> Self {
        Self {
            cuts: 60,
            errors: 60,
            moves: 40,
            restarts: 10,
        }
    }
}

type Keys = BTreeMap<(u32, Vec<u8>), Vec<u8>>;

/// A node and its replica.
#[derive(Default)]
struct Node {
    run: u64,
    keys: Keys,
    /// What its replica has.
    replica: Keys,
}

/// A command on its way.
pub enum Command {
    Asking,
    Select(u32),
    Wait,
    Item {
        task: Task,
        key: Vec<u8>,
        payload: Vec<u8>,
        /// DEL goes before it.
        clears: bool,
    },
    Value {
        key: Vec<u8>,
        payload: Vec<u8>,
        replace: bool,
    },
}

enum Said {
    Answer(Result<i64, String>),
    Found(Result<Option<Vec<u8>>, String>),
    Written(Written),
}

/// A connection.
struct Port {
    node: usize,
    db: u32,
    asking: bool,
    out: VecDeque<Command>,
    said: VecDeque<Said>,
    is_cut: bool,
}

/// What came of a run.
pub struct Run {
    pub done: anyhow::Result<()>,
    pub report: SinkReport,
    pub said: Vec<String>,
    story: Story,
    before: Keys,
    after: Keys,
    /// The last record of each key; `None` for a tombstone.
    last: BTreeMap<(u32, Vec<u8>), Option<Vec<u8>>>,
    failed: BTreeSet<Vec<u8>>,
}

pub struct Model {
    pub writer: Writer,
    pub story: Story,
    pub faults: Faults,
    nodes: Vec<Node>,
    owners: Vec<usize>,
    ports: BTreeMap<usize, Port>,
    now: Now,
    random: u64,
    pub said: Vec<String>,
    failed: BTreeSet<Vec<u8>>,
    /// What the next commands are answered with.
    pub next_answers: VecDeque<String>,
    known: BTreeMap<usize, (usize, u64)>,
    before: Keys,
    last: BTreeMap<(u32, Vec<u8>), Option<Vec<u8>>>,
    /// A value that was said to be written in one more turn.
    has_turned: bool,
    pub target: fn() -> Target,
    pub standing: VecDeque<crate::server::sentinel::Standing>,
    pub library: VecDeque<Fate>,
    pub obstacle: bool,
}

pub fn address(node: usize) -> NodeAddress {
    NodeAddress {
        host: format!("n{node}"),
        port: 1,
    }
}

/// As named by sentinels.
fn watched() -> ConnectOptions {
    ConnectOptions {
        address: Transport::Sentinel(Sentinels {
            nodes: vec![address(200)],
            primary: "main".to_owned(),
            tls: false,
        }),
        ..options()
    }
}

/// What a destination of Redis 7.4 accepts.
pub fn target() -> Target {
    let dialect = Dialect::of(Family::Redis, Version::new(7, 4, 0));
    Target::of(Accepts::of_server(dialect).expect("a known version"))
}

pub fn options() -> ConnectOptions {
    ConnectOptions::new(ServerAddress::parse("redis://base:1").expect("a URL"))
}

pub fn string(text: &str) -> Vec<u8> {
    let mut value = vec![0, u8::try_from(text.len()).expect("a short text")];
    value.extend_from_slice(text.as_bytes());
    value
}

pub fn context() -> Context {
    Context {
        family: Family::Redis,
        rdb_version: VERSION,
        ..Context::default()
    }
}

impl Model {
    pub fn new(story: Story, faults: Faults, seed: u64) -> Self {
        let now = Now {
            at: Instant::now(),
            unix_ms: 1_000_000,
        };
        let settings = Settings {
            options: crate::sink::server::ServerSinkOptions {
                on_conflict: story.on_conflict,
                repeats: story.repeats,
                method: story.method,
                dry_run: story.dry_run,
                may_collide: story.may_collide,
                ..Default::default()
            },
            ..Settings::default()
        };
        let window = Window {
            bytes: 1 << 20,
            records: story.window,
        };
        let slots = usize::from(SLOTS);
        let owners: Vec<usize> = (0..slots).map(|slot| slot * story.nodes / slots).collect();
        let topology = topology(&owners, story.nodes);
        let fleet = match story.nodes {
            1 if story.is_watched => Fleet::standalone(watched(), window),
            1 => Fleet::standalone(options(), window),
            _ => Fleet::cluster(options(), topology, window, now.at),
        };
        let nodes = (0..story.nodes).map(|node| Node {
            run: node as u64,
            ..Node::default()
        });
        let mut model = Self {
            writer: Writer::new(settings, fleet, Duration::from_secs(20), now),
            faults,
            nodes: nodes.collect(),
            owners,
            ports: BTreeMap::new(),
            now,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bd1_e995,
            said: Vec::new(),
            failed: BTreeSet::new(),
            next_answers: VecDeque::new(),
            known: BTreeMap::new(),
            before: Keys::new(),
            last: BTreeMap::new(),
            has_turned: false,
            target,
            standing: VecDeque::new(),
            library: VecDeque::new(),
            obstacle: false,
            story,
        };
        for at in 0..model.writer.fleet().lanes().len() {
            let met = model.meet(at);
            model.on(met).expect("it is met");
        }
        model
    }

    fn chance(&mut self, below: u64) -> u64 {
        // splitmix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below.max(1)
    }

    fn happens(&mut self, in_a_thousand: u64) -> bool {
        self.chance(1000) < in_a_thousand
    }

    pub fn on(&mut self, event: Event) -> anyhow::Result<()> {
        self.now.unix_ms += 1;
        self.now.at += Duration::from_millis(1);
        self.writer.on(event, self.now)
    }

    /// Something happens, and all that follows is done.
    pub fn take(&mut self, event: Event) -> anyhow::Result<()> {
        self.on(event)?;
        self.go()
    }

    pub fn go(&mut self) -> anyhow::Result<()> {
        for _ in 0..200_000 {
            // The action borrows the writer, and the model needs the rest.
            let mut writer = std::mem::replace(&mut self.writer, idle());
            let event = match writer.next() {
                Ok(None) => {
                    self.writer = writer;
                    return Ok(());
                }
                Ok(Some(action)) => self.carry_out(action),
                Err(error) => {
                    self.writer = writer;
                    return Err(error);
                }
            };
            self.writer = writer;
            if let Some(event) = event {
                self.on(event)?;
            }
        }
        panic!("the writer never comes to rest");
    }

    pub fn put(&mut self, db: u32, key: &[u8], value: &str) {
        let node = self.owners[usize::from(slot_of(key))];
        let payload = payload::sign(&string(value), VERSION);
        self.nodes[node]
            .keys
            .insert((db, key.to_vec()), payload.clone());
        self.nodes[node]
            .replica
            .insert((db, key.to_vec()), payload.clone());
        self.before.insert((db, key.to_vec()), payload);
    }

    pub fn key(db: u32, key: &[u8], value: &str) -> Event {
        let record = KeyRecord {
            db,
            key: key.to_vec(),
            value: Value::Compact(string(value)),
            expire_at_ms: None,
            eviction: None,
        };
        Event::Record(Item::given(None, record, None, context()))
    }

    /// The same, of a key of the source that had this name there.
    pub fn key_from(db: u32, key: &[u8], value: &str, origin: &[u8]) -> Event {
        let Event::Record(mut item) = Self::key(db, key, value) else {
            panic!("a record of a key");
        };
        let origin = Origin {
            db: 0,
            key: origin.to_vec(),
            expire_at_ms: None,
            family: Family::Redis,
        };
        item.extra_mut().origin = Some(origin);
        Event::Record(item)
    }

    pub fn tombstone(db: u32, key: &[u8]) -> Event {
        Event::Record(Item::tombstone(db, key.to_vec(), context()))
    }

    /// Writes records by chance.
    pub fn run(mut self) -> Run {
        let dbs = if self.story.nodes == 1 { 3 } else { 1 };
        for number in 0..4 {
            let (db, key) = (self.chance(dbs) as u32, format!("k{number}"));
            self.put(db, key.as_bytes(), &format!("{db}:foreign"));
        }
        let done = self.write(dbs);
        self.end(done)
    }

    fn write(&mut self, dbs: u64) -> anyhow::Result<()> {
        let mut seen = BTreeSet::new();
        for batch in 0..self.story.batches {
            self.on(Event::BatchBegins)?;
            for number in 0..self.chance(12) {
                let (db, key) = (self.chance(dbs) as u32, format!("k{}", self.chance(10)));
                let is_new = seen.insert((db, key.clone()));
                if !is_new && self.story.repeats == Repeats::No {
                    continue;
                }
                let name = (db, key.clone().into_bytes());
                let is_gone = self.story.repeats != Repeats::No && self.chance(6) == 0;
                let event = match is_gone {
                    true => {
                        self.last.insert(name, None);
                        Self::tombstone(db, key.as_bytes())
                    }
                    false => {
                        let value = match self.chance(8) {
                            0 => format!("{db}:foreign"),
                            _ => format!("{db}:{batch}.{number}"),
                        };
                        let payload = payload::sign(&string(&value), VERSION);
                        self.last.insert(name, Some(payload));
                        Self::key(db, key.as_bytes(), &value)
                    }
                };
                self.take(event)?;
            }
            self.take(Event::BatchEnds)?;
            if self.chance(3) == 0 {
                self.take(Event::Idle)?;
            }
        }
        self.take(Event::Finish)
    }

    pub fn end(mut self, done: anyhow::Result<()>) -> Run {
        if done.is_err() {
            let _ = self.take(Event::GiveUp);
        }
        let mut after = Keys::new();
        for node in &self.nodes {
            after.extend(node.keys.clone());
        }
        Run {
            done,
            report: self.writer.into_report(),
            said: self.said,
            story: self.story,
            before: self.before,
            after,
            last: self.last,
            failed: self.failed,
        }
    }

    /// What happens when an action is carried out.
    fn carry_out(&mut self, action: Action<'_>) -> Option<Event> {
        match action {
            Action::Say(say) => self.hear(*say),
            Action::Send { at, item, how } => self.send(at, item, how),
            Action::SendSelect(at, db) => self.queue(at, Command::Select(db)),
            Action::SendWait(at, _) => self.queue(at, Command::Wait),
            Action::Queue(at, job) => self.queue_value(at, &job),
            Action::WriteAlone(at, job) => Some(self.write_alone(at, &job)),
            Action::Flush => {
                let ports: Vec<usize> = self.ports.keys().copied().collect();
                for at in ports {
                    self.flush(at);
                    let is_cut = self.ports.get(&at).is_some_and(|port| port.is_cut);
                    if is_cut && self.chance(2) == 0 {
                        return Some(Event::SendFailed(at, lost()));
                    }
                }
                None
            }
            Action::Read(at, due) => Some(self.read(at, due)),
            Action::Peek(at, due) => {
                let has = self
                    .ports
                    .get(&at)
                    .is_some_and(|port| !port.said.is_empty());
                Some(match has {
                    true => self.read(at, due),
                    false => Event::NoReply,
                })
            }
            Action::Connect { at, .. } => Some(match self.happens(self.faults.cuts * 3) {
                true => Event::NotConnected {
                    at,
                    error: lost(),
                    was_open: self.chance(2) == 0,
                },
                false => self.meet(at),
            }),
            Action::Drop(at) => {
                self.ports.remove(&at);
                None
            }
            Action::Select(at, db) => Some(self.select(at, db)),
            Action::Ask { at, question, .. } => {
                if self.happens(self.faults.cuts) {
                    return Some(Event::Answered(at, Err(lost()), None));
                }
                let answer = self.answer(*question);
                let db = self.ports.get(&at).map(|port| port.db);
                Some(Event::Answered(at, Ok(answer), db))
            }
            Action::AskSentinels(at) => {
                let standing = self.standing.pop_front();
                Some(Event::SentinelsSaid(at, standing))
            }
            Action::AskTopology(_) => Some(Event::Topology(match self.happens(self.faults.cuts) {
                true => None,
                false => Some(topology(&self.owners, self.story.nodes)),
            })),
            Action::AskNodes(nodes) => Some(Event::NodesSaid(self.ask_nodes(nodes))),
            Action::Wait(time) => {
                self.now.at += time;
                self.now.unix_ms += u64::try_from(time.as_millis()).expect("a short wait");
                Some(Event::Waited)
            }
            Action::TellSource(_) => Some(Event::SourceTold {
                deletions: Deletions::default(),
                finished: Ok(()),
            }),
            Action::CountEvictions(at) => {
                let answers = self.answers_at_the_end(at);
                Some(Event::Evicted(at, answers.map(|()| Some(0))))
            }
            Action::CountUpheavals(at) => {
                let answers = self.answers_at_the_end(at);
                let count = answers.map(|()| Upheavals::NeverCounted);
                Some(Event::Upheaved(at, count))
            }
            Action::Sweep(_) => Some(Event::Swept(Vec::new())),
        }
    }

    fn hear(&mut self, say: Say) -> Option<Event> {
        match say {
            Say::Notice(text) | Say::Warn(text) => self.said.push(text),
            Say::Failed(failure) => {
                self.said.push(failure.reason);
                self.failed.insert(failure.key);
            }
            Say::Lost(why, advice) => {
                let advice = advice?;
                return Some(Event::Problem(format!("{why}: {advice}")));
            }
            Say::Accepted(..) | Say::Stands(..) | Say::Deleted(..) | Say::Library(..) => {}
        }
        None
    }

    /// The node that a lane leads to.
    fn node_of(&self, at: usize) -> usize {
        let lane = self.known.get(&at);
        lane.map_or(at.min(self.nodes.len() - 1), |(node, _)| *node)
    }

    /// All slots of a node go to another one.
    pub fn drain_node(&mut self, from: usize, to: usize) {
        for owner in &mut self.owners {
            if *owner == from {
                *owner = to;
            }
        }
        let keys = std::mem::take(&mut self.nodes[from].keys);
        self.nodes[to].keys.extend(keys);
    }

    /// Who answers on a new connection.
    pub fn meet(&mut self, at: usize) -> Event {
        let node = self.node_of(at);
        let run = self.nodes[node].run;
        let met = match self.known.insert(at, (node, run)) {
            None => Met::First,
            Some((_, before)) if before == run => Met::Same,
            Some(_) => Met::Other,
        };
        let port = Port {
            node,
            db: 0,
            asking: false,
            out: VecDeque::new(),
            said: VecDeque::new(),
            is_cut: false,
        };
        self.ports.insert(at, port);
        Event::Met(
            at,
            Box::new(Introduction {
                met,
                facts: Facts {
                    family: Family::Redis,
                    version: "7.4.0".to_owned(),
                    run_id: Some(run.to_string()),
                    role: RoleFacts {
                        replicas: Some(1),
                        ..RoleFacts::default()
                    },
                    ..Facts::default()
                },
                pexpiretime: true,
                database: Some(0),
                may_run_late: false,
            }),
        )
    }

    fn send(&mut self, at: usize, item: &Item, how: How) -> Option<Event> {
        let port = &self.ports[&at];
        // A connection that is in no other database than the last one that it was sent to.
        let moving = port
            .out
            .iter()
            .any(|sent| matches!(sent, Command::Select(_)));
        assert!(
            !moving && (port.is_cut || port.db == item.record.db),
            "a command for database {} goes out in another one",
            item.record.db
        );
        if how.asking && item.task != Task::Compare {
            self.queue(at, Command::Asking);
        }
        let is_graph = matches!(item.form, Form::Graph(_));
        let bytes = item.record.value.bytes();
        let payload = match (&item.record.value, item.form) {
            (Value::Verbatim(payload), Form::Payload(Ready::AsIs)) => payload.clone(),
            (_, Form::Payload(Ready::Footer(version)) | Form::Graph(Ready::Footer(version))) => {
                payload::sign(bytes, version)
            }
            _ => payload::sign(bytes, VERSION),
        };
        self.queue(
            at,
            Command::Item {
                task: item.task,
                key: item.record.key.clone(),
                payload,
                clears: is_graph && matches!(item.task, Task::Restore { replace: true, .. }),
            },
        )
    }

    pub fn queue(&mut self, at: usize, command: Command) -> Option<Event> {
        let is_cut = match self.ports.get_mut(&at) {
            Some(port) => {
                port.out.push_back(command);
                port.is_cut
            }
            None => true,
        };
        (is_cut && self.chance(2) == 0).then(|| Event::SendFailed(at, lost()))
    }

    fn queue_value(&mut self, at: usize, job: &Job<'_>) -> Option<Event> {
        if self.chance(3) == 0 {
            return Some(Event::Queued(at, Ok(None)));
        }
        let command = Command::Value {
            key: job.key.to_vec(),
            payload: payload::sign(job.value, VERSION),
            replace: job.replace == Replace::Always,
        };
        Some(match self.queue(at, command) {
            Some(Event::SendFailed(at, error)) => Event::Queued(at, Err(error)),
            _ => {
                let temp = [b"temp:".as_slice(), job.key].concat();
                Event::Queued(at, Ok(Some(Box::new(Ticket::of(temp)))))
            }
        })
    }

    fn write_alone(&mut self, at: usize, job: &Job<'_>) -> Event {
        if self.happens(self.faults.cuts) {
            return Event::Wrote(at, Box::new((Err(lost().into()), Some(b"temp".to_vec()))));
        }
        let command = Command::Value {
            key: job.key.to_vec(),
            payload: payload::sign(job.value, VERSION),
            replace: job.replace == Replace::Always,
        };
        self.queue(at, command);
        self.flush(at);
        let said = self
            .ports
            .get_mut(&at)
            .and_then(|port| port.said.pop_back());
        let written = match said {
            Some(Said::Written(written)) => Ok((written, CommandLosses::default())),
            Some(Said::Answer(Err(text))) => Err(commands::CommandError::Answer {
                command: "RENAME",
                text,
            }),
            _ => Err(lost().into()),
        };
        Event::Wrote(at, Box::new((written, None)))
    }

    /// What was queued reaches the node, as far as the connection holds.
    fn flush(&mut self, at: usize) {
        while let Some(port) = self.ports.get(&at)
            && !port.is_cut
            && !port.out.is_empty()
        {
            self.happen();
            if self.happens(self.faults.cuts) {
                self.cut(at);
                return;
            }
            let Some(port) = self.ports.get_mut(&at) else {
                return;
            };
            if port.is_cut {
                return;
            }
            let Some(command) = port.out.pop_front() else {
                return;
            };
            let said = self.execute(at, command);
            if let Some(port) = self.ports.get_mut(&at) {
                port.said.extend(said);
            }
        }
    }

    /// The connection is cut: of the answers that were not read only some arrive.
    fn cut(&mut self, at: usize) {
        let left = self.ports.get(&at).map_or(0, |port| port.said.len());
        let left = self.chance(left as u64 + 1);
        if let Some(port) = self.ports.get_mut(&at) {
            port.is_cut = true;
            port.out.clear();
            port.said.truncate(usize::try_from(left).expect("few"));
        }
    }

    /// The world goes on: slots move, nodes die.
    fn happen(&mut self) {
        if self.story.nodes > 1 && self.happens(self.faults.moves) {
            let key = format!("k{}", self.chance(10));
            let slot = slot_of(key.as_bytes());
            let (from, to) = (
                self.owners[usize::from(slot)],
                usize::try_from(self.chance(self.story.nodes as u64)).expect("few"),
            );
            self.owners[usize::from(slot)] = to;
            let is_of_slot = |name: &(u32, Vec<u8>)| slot_of(&name.1) == slot;
            let all = std::mem::take(&mut self.nodes[from].keys);
            for (name, value) in all {
                let node = if is_of_slot(&name) { to } else { from };
                self.nodes[node].keys.insert(name, value);
            }
            // Its replica has what has come with the slot.
            self.nodes[to].replica = self.nodes[to].keys.clone();
        }
        if self.happens(self.faults.restarts) {
            let node = usize::try_from(self.chance(self.story.nodes as u64)).expect("few");
            self.restart(node);
        }
    }

    /// Whether a node answers when all was written; it may die just then.
    fn answers_at_the_end(&mut self, at: usize) -> Result<(), ServerError> {
        if self.happens(self.faults.restarts * 20) {
            self.restart(self.node_of(at));
        } else if self.happens(self.faults.cuts * 3) {
            self.cut(at);
        }
        let is_cut = self.ports.get(&at).is_some_and(|port| port.is_cut);
        if is_cut { Err(lost()) } else { Ok(()) }
    }

    /// A node comes back with what its replica has.
    fn restart(&mut self, node: usize) {
        self.nodes[node].run += 1000;
        self.nodes[node].keys = self.nodes[node].replica.clone();
        let lanes: Vec<usize> = self
            .ports
            .iter()
            .filter(|(_, port)| port.node == node)
            .map(|(at, _)| *at)
            .collect();
        lanes.into_iter().for_each(|at| self.cut(at));
    }

    fn execute(&mut self, at: usize, command: Command) -> Vec<Said> {
        let (node, db) = (self.ports[&at].node, self.ports[&at].db);
        let asked = std::mem::take(&mut self.ports.get_mut(&at).expect("a port").asking);
        let told = |answer| vec![Said::Answer(answer)];
        let (key, is_compare) = match &command {
            Command::Asking => {
                self.ports.get_mut(&at).expect("a port").asking = true;
                return told(Ok(1));
            }
            Command::Select(db) => {
                let refused = self.error();
                return told(match refused {
                    Some(text) => Err(text),
                    None => {
                        self.ports.get_mut(&at).expect("a port").db = *db;
                        Ok(1)
                    }
                });
            }
            Command::Wait => {
                let node = &mut self.nodes[node];
                node.replica = node.keys.clone();
                return told(Ok(1));
            }
            Command::Item { task, key, .. } => (key.clone(), *task == Task::Compare),
            Command::Value { key, .. } => (key.clone(), false),
        };
        let refused = self.error().or_else(|| {
            let owner = self.owners[usize::from(slot_of(&key))];
            let is_elsewhere = self.story.nodes > 1 && owner != node && !asked;
            is_elsewhere.then(|| format!("MOVED {} n{owner}:1", slot_of(&key)))
        });
        if let Some(text) = refused {
            return match is_compare {
                true => vec![Said::Found(Err(text))],
                false => told(Err(text)),
            };
        }
        let keys = &mut self.nodes[node].keys;
        let name = (db, key);
        match command {
            Command::Value {
                payload, replace, ..
            } => {
                if !replace && keys.contains_key(&name) {
                    return vec![Said::Written(Written::Standing)];
                }
                keys.insert(name, payload);
                vec![Said::Written(Written::Stored)]
            }
            Command::Item {
                task,
                payload,
                clears,
                ..
            } => {
                let mut said = Vec::new();
                if clears {
                    let was_there = keys.remove(&name).is_some();
                    said.push(Said::Answer(Ok(i64::from(was_there))));
                }
                said.push(match task {
                    Task::Restore { replace, .. } => {
                        Said::Answer(match !replace && keys.contains_key(&name) {
                            true => Err("BUSYKEY Target key name already exists.".to_owned()),
                            false => {
                                keys.insert(name, payload);
                                Ok(1)
                            }
                        })
                    }
                    Task::Compare => Said::Found(Ok(keys.get(&name).cloned())),
                    Task::Try(_) => Said::Answer(Err("ERR syntax error".to_owned())),
                    Task::Look | Task::Ask => Said::Answer(Ok(i64::from(keys.contains_key(&name)))),
                    Task::Delete { .. } | Task::CleanUp(_) => {
                        Said::Answer(Ok(i64::from(keys.remove(&name).is_some())))
                    }
                });
                said
            }
            Command::Asking | Command::Select(_) | Command::Wait => Vec::new(),
        }
    }

    fn error(&mut self) -> Option<String> {
        if let Some(text) = self.next_answers.pop_front() {
            return (!text.is_empty()).then_some(text);
        }
        if !self.happens(self.faults.errors) {
            return None;
        }
        let errors = [
            "LOADING Redis is loading the dataset in memory",
            "BUSY Redis is busy running a script.",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "CLUSTERDOWN The cluster is down",
        ];
        let last = if self.story.nodes > 1 { 4 } else { 2 };
        let number = usize::try_from(self.chance(last)).expect("few");
        Some(errors[number].to_owned())
    }

    fn read(&mut self, at: usize, due: Due<'_>) -> Event {
        self.flush(at);
        let Some(said) = self
            .ports
            .get_mut(&at)
            .and_then(|port| port.said.pop_front())
        else {
            let is_cut = self.ports.get(&at).is_none_or(|port| port.is_cut);
            assert!(is_cut, "a reply is read that will never come");
            return match due {
                Due::Value { .. } => Event::Value(at, Box::new((Err(lost().into()), None))),
                _ => Event::ReadFailed(at, lost()),
            };
        };
        match (said, due) {
            (Said::Answer(answer), Due::Value { .. }) => {
                let text = answer.expect_err("an error reply");
                let error = commands::CommandError::Answer {
                    command: "RENAME",
                    text,
                };
                Event::Value(at, Box::new((Err(error), None)))
            }
            (said @ Said::Written(_), Due::Value { ticket, .. }) if !self.has_turned => {
                // Its second turn goes out behind all that was sent before.
                self.has_turned = true;
                match self.ports.get_mut(&at) {
                    Some(port) if !port.is_cut => {
                        assert!(
                            port.out.is_empty(),
                            "a turn goes out before what was queued"
                        );
                        port.said.push_back(said);
                    }
                    _ => return Event::Value(at, Box::new((Err(lost().into()), None))),
                }
                Event::Value(at, Box::new((Ok(commands::Answer::Again(*ticket)), None)))
            }
            (Said::Written(written), Due::Value { .. }) => {
                self.has_turned = false;
                let answer = commands::Answer::Written(written, CommandLosses::default());
                Event::Value(at, Box::new((Ok(answer), None)))
            }
            (Said::Found(found), Due::Found(_)) => Event::Found(at, Found::of(found)),
            (Said::Answer(answer), due) if !matches!(due, Due::Found(_)) => {
                Event::Reply(at, answer)
            }
            (Said::Answer(_), _) => panic!("a plain reply is read as another one's"),
            (Said::Found(_), _) => panic!("what was found is read as another one's"),
            (Said::Written(_), _) => panic!("a value's reply is read as another one's"),
        }
    }

    fn select(&mut self, at: usize, db: u32) -> Event {
        if self.ports.get(&at).is_none_or(|port| port.is_cut) || self.happens(self.faults.cuts) {
            return Event::Selected(at, db, Err(lost()));
        }
        if let Some(text) = self.next_answers.pop_front()
            && !text.is_empty()
        {
            return Event::Selected(at, db, Ok(Err(text)));
        }
        if let Some(port) = self.ports.get_mut(&at) {
            port.db = db;
        }
        Event::Selected(at, db, Ok(Ok(())))
    }

    fn answer(&mut self, question: Question<'_>) -> Answer {
        match question {
            Question::Limits => Answer::Limits {
                limits: CommandLimits::default(),
                is_known: true,
            },
            Question::Target { .. } => {
                let mut target = (self.target)();
                if self.obstacle {
                    target.obstacle = Some("ERR unknown command 'RESTORE'".to_owned());
                }
                Answer::Target(Box::new(target))
            }
            Question::Classes { .. } => Answer::Classes,
            Question::Features { .. } => Answer::Features {
                features: Features::default(),
                limits: Some((CommandLimits::default(), true)),
            },
            Question::Graph(_) => Answer::Graph(Ok(false)),
            Question::Offer { .. } => Answer::Offered(None),
            Question::Rights => Answer::Rights(KeyRights::alike()),
            Question::Native { .. } => Answer::Native(None),
            Question::Library(_) => Answer::Library {
                fate: self.library.pop_front().unwrap_or(Fate::Restored),
                is_unkept: false,
            },
        }
    }

    fn ask_nodes(&self, nodes: Vec<(usize, ConnectOptions)>) -> Vec<NodeSaid> {
        let said = |(at, _): (usize, ConnectOptions)| NodeSaid {
            at,
            facts: Some(Facts {
                run_id: Some(self.nodes[self.node_of(at)].run.to_string()),
                role: RoleFacts {
                    is_told: true,
                    ..RoleFacts::default()
                },
                ..Facts::default()
            }),
            is_quiet: true,
        };
        nodes.into_iter().map(said).collect()
    }
}

/// A writer of which nothing is asked.
fn idle() -> Writer {
    let now = Now {
        at: Instant::now(),
        unix_ms: 0,
    };
    let fleet = Fleet::standalone(options(), Window::NEAR);
    Writer::new(Settings::default(), fleet, Duration::ZERO, now)
}

pub fn lost() -> ServerError {
    ServerError::Lost {
        address: "n".to_owned(),
        doing: "restoring keys".to_owned(),
        reason: "cut".to_owned(),
    }
}

fn topology(owners: &[usize], nodes: usize) -> Topology {
    let shard = |node: usize| {
        let mut slots = Vec::new();
        let mut slot = 0;
        while slot < owners.len() {
            let end = (slot..owners.len())
                .find(|next| owners[*next] != owners[slot])
                .unwrap_or(owners.len());
            if owners[slot] == node {
                let number = |slot: usize| u16::try_from(slot).expect("a slot");
                slots.push(number(slot)..=number(end - 1));
            }
            slot = end;
        }
        let member = |name: String, address: NodeAddress| ClusterNode {
            id: name,
            announced: address,
            hostname: None,
        };
        Shard {
            primary: member(format!("id{node}"), address(node)),
            replicas: vec![member(format!("replica{node}"), address(node + 100))],
            slots,
        }
    };
    let shards = (0..nodes).map(shard);
    Topology::of(shards.filter(|shard| !shard.slots.is_empty()).collect())
}

impl Run {
    /// Whether keys stand as they should.
    pub fn check(&self) -> Result<(), String> {
        for ((db, key), payload) in &self.after {
            let text = String::from_utf8_lossy(payload);
            let own = format!("{db}:");
            if key.starts_with(b"k") && !text[2..].starts_with(&own) {
                let key = String::from_utf8_lossy(key);
                return Err(format!("{key} of another database stands in {db}: {text}"));
            }
        }
        if self.done.is_ok() {
            self.report.records.reconcile()?;
        }
        if self.story.dry_run && self.after != self.before {
            return Err("a dry run wrote something".to_owned());
        }
        let replaces = self.story.on_conflict == OnConflict::Replace;
        for (name, payload) in &self.before {
            let was_equal = self.may_be_own(name);
            if !replaces && !was_equal && self.after.get(name) != Some(payload) {
                if self.report.doubts.memory_lost {
                    continue;
                }
                return Err(format!("a foreign key was touched: {name:?}"));
            }
        }
        if self.done.is_err() || self.story.dry_run || self.report.doubts.memory_lost {
            return Ok(());
        }
        for (name, payload) in &self.last {
            let is_foreign = self.before.contains_key(name) && !replaces;
            if is_foreign || self.failed.contains(&name.1) {
                continue;
            }
            if self.after.get(name) != payload.as_ref() {
                return Err(format!(
                    "{name:?} stands with {:?} and not with {payload:?}; {:?}",
                    self.after.get(name),
                    self.said
                ));
            }
        }
        Ok(())
    }

    /// Some record of the key may have been what stood there.
    fn may_be_own(&self, name: &(u32, Vec<u8>)) -> bool {
        self.last.contains_key(name) && self.story.repeats != Repeats::No
            || self
                .last
                .get(name)
                .is_some_and(|last| last.as_ref() == self.before.get(name))
    }
}
