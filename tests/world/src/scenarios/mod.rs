//! What is tried: from a seed to a script. Everything that will happen is decided here, so that a
//! script can be made shorter and kept.

mod faults;

use crate::net::FIRST_SENTINEL;
use crate::runs::{PRIMARY, TOOL, port_of};
use crate::script::{Act, At, NetSetup, NodeSetup, Phase, Planned, Restart, Script, Side};
use crate::server::{RELEASES, Random, Release, slot_of};
use crate::writers::Writers;

/// Makes the script of a scenario.
type Make = fn(&mut Making<'_>);

/// The scenarios, by name.
pub const SCENARIOS: &[(&str, Make)] = &[
    ("export-import", export_import),
    ("copy", copy),
    ("copy-conflicts", copy_conflicts),
    ("follow", follow),
    ("delete-source", delete_source),
    ("verify", verify),
    ("resume-import", resume_import),
    ("resume-export", resume_export),
    ("two-writers", two_writers),
    ("from-cluster", from_cluster),
    ("to-cluster", to_cluster),
    ("sentinels", sentinels),
    ("refusals", refusals),
    ("limits", limits),
];

/// The names of all scenarios.
pub fn names() -> impl Iterator<Item = &'static str> {
    SCENARIOS.iter().map(|(name, _)| *name)
}

/// A script of the scenario of this name, or of any.
pub fn script(seed: u64, only: Option<&str>) -> Script {
    let mut random = Random::new(seed);
    let among: Vec<_> = SCENARIOS
        .iter()
        .filter(|(name, _)| only.is_none_or(|only| *name == only))
        .collect();
    let (name, make) = match among.len() {
        0 => &SCENARIOS[0],
        count => among[random.below(count as u64) as usize],
    };
    let latency_us = [20, 60, 200, 1000][random.below(4) as usize];
    let jitter_us = random.below(2 * latency_us);
    let script = Script {
        scenario: (*name).to_owned(),
        seed,
        nodes: Vec::new(),
        sentinels: Vec::new(),
        fill: Vec::new(),
        net: NetSetup {
            latency_us,
            jitter_us,
            pieces: random.below(30),
        },
        phases: Vec::new(),
    };
    let mut making = Making {
        random: &mut random,
        script,
        dbs: vec![0],
        names: 1,
    };
    make(&mut making);
    making.script
}

/// A script that is being made.
pub struct Making<'a> {
    random: &'a mut Random,
    script: Script,
    dbs: Vec<u32>,
    names: u64,
}

/// The versions that take part; the first has no CLIENT TRACKING.
const VERSIONS: &[&str] = &[
    "redis-5.0",
    "redis-6.2",
    "redis-7.0",
    "redis-8.0",
    "redis-8.2",
    "redis-8.6",
    "valkey-8.1",
    "valkey-9.1",
];

impl Making<'_> {
    fn one_of<'b, T: ?Sized>(&mut self, list: &[&'b T]) -> &'b T {
        list[self.random.below(list.len() as u64) as usize]
    }

    fn node(&mut self, side: Side, release: &str) {
        self.script.nodes.push(NodeSetup {
            side,
            release: release.to_owned(),
            skew_ms: 0,
            is_cluster: false,
            replica_of: None,
            max_memory: 0,
            evicts: false,
            refused: Vec::new(),
            forbidden_dbs: Vec::new(),
            max_clients: 0,
        });
    }

    /// A source and a destination of the same version, with keys in the source.
    fn pair(&mut self) {
        self.pair_among(VERSIONS);
    }

    fn pair_among(&mut self, versions: &[&'static str]) {
        let release = self.one_of(versions);
        self.node(Side::Source, release);
        self.node(Side::Destination, release);
        let count = 1 + self.random.below(3);
        let dbs = (0..count).map(|_| self.random.below(6) as u32).collect();
        self.fill_source_in(dbs);
    }

    /// Keys in the source, in database 0.
    fn fill_source(&mut self) {
        self.fill_source_in(vec![0]);
    }

    fn fill_source_in(&mut self, dbs: Vec<u32>) {
        self.dbs = dbs;

        self.dbs.sort_unstable();
        self.dbs.dedup();
        self.names = match self.random.below(4) {
            0 => 1 + self.random.below(5),
            1 => 60,
            _ => 5 + self.random.below(30),
        };
        let count = self.names - self.random.below(self.names / 2 + 1);
        let fill = self.writers(Side::Source).fill(Side::Source, count);
        self.script.fill.extend(fill);
    }

    fn writers(&mut self, side: Side) -> Writers<'_> {
        let node = self.script.nodes.iter().find(|node| node.side == side);
        let named = node.and_then(|node| Release::named(&node.release));
        let by_key = side == Side::Destination || node.is_some_and(|node| node.is_cluster);
        let release = named.unwrap_or(&RELEASES[0]);
        Writers::new(self.random, release, self.dbs.clone(), self.names, by_key)
    }

    fn url(&self, side: Side) -> String {
        let at = self
            .script
            .nodes
            .iter()
            .position(|node| node.side == side)
            .unwrap_or(0);
        let node = &self.script.nodes[at];
        let port = port_of(at);
        if let Some(at) = self.script.sentinels.iter().position(|of| *of == side) {
            return format!(
                "redis-sentinel://127.0.0.1:{}/{PRIMARY}",
                FIRST_SENTINEL + at as u16
            );
        }
        match node.refused.is_empty() && node.forbidden_dbs.is_empty() {
            true => format!("redis://127.0.0.1:{port}"),
            false => format!("redis://{TOOL}:{TOOL}@127.0.0.1:{port}"),
        }
    }

    /// So many primaries of a cluster, and for each a replica if they are to fail over.
    fn cluster(&mut self, side: Side, release: &str, primaries: usize, with_replicas: bool) {
        let first = self.script.nodes.len();
        for _ in 0..primaries {
            self.node(side, release);
        }
        if with_replicas {
            for at in first..first + primaries {
                self.node(side, release);
                if let Some(node) = self.script.nodes.last_mut() {
                    node.replica_of = Some(at);
                }
            }
        }
        self.script.nodes[first..]
            .iter_mut()
            .for_each(|node| node.is_cluster = true);
    }

    /// What operators of a cluster do while the tool runs.
    fn operators(&mut self, side: Side, primaries: usize, with_replicas: bool) -> Vec<Planned> {
        let mut events = Vec::new();
        for _ in 0..self.random.below(5) {
            let key = format!("k{}", self.random.below(self.names));
            let to = self.random.below(primaries as u64) as u8;
            let step_us = [10, 300, 5_000, 200_000][self.random.below(4) as usize];
            let at = self.moment();
            let slot = slot_of(key.as_bytes());
            events.push(Planned {
                at,
                act: Act::Reshard(side, slot, to, step_us),
            });
        }
        if with_replicas && self.random.chance(60) {
            events.push(self.failover(side));
        }
        events
    }

    fn failover(&mut self, side: Side) -> Planned {
        let at = self.moment();
        let lose = match self.random.below(2) {
            0 => 0,
            _ => self.random.below(10) as u32,
        };
        let which = self.random.below(3) as u8;
        Planned {
            at,
            act: Act::Failover(side, which, lose),
        }
    }

    /// A moment at which a run of about a hundred commands is under way.
    fn moment(&mut self) -> At {
        match self.random.below(10) {
            0 => At::Time(self.random.below(200_000)),
            1..5 => At::Calls(1 + self.random.below(250) as u32),
            _ => At::Commands(1 + self.random.below(120) as u32),
        }
    }

    /// Clients that write at a side while the tool runs.
    fn clients(&mut self, side: Side, most: u64) -> Vec<Planned> {
        let count = self.random.below(most + 1);
        let mut events = Vec::new();
        for _ in 0..count {
            let at = self.moment();
            let (db, words) = self.writers(side).step();
            events.push(Planned {
                at,
                act: Act::Do(side, db, words),
            });
        }
        events
    }

    fn phase(&mut self, argv: &[&str], events: Vec<Planned>) {
        let argv = argv.iter().map(|word| (*word).to_owned()).collect();
        self.script.phases.push(Phase { argv, events });
    }

    /// Whether writers and faults take part, each in some of the runs.
    fn events(&mut self, sides: &[Side]) -> Vec<Planned> {
        let mut events = match self.random.below(3) {
            0 => Vec::new(),
            _ => self.clients(Side::Source, 30),
        };
        if self.random.below(3) > 0 {
            events.extend(self.faults(sides));
        }
        events
    }
}

fn export_import(making: &mut Making<'_>) {
    making.pair();
    let (from, to) = (making.url(Side::Source), making.url(Side::Destination));
    let consistency = making.one_of(&["scan", "auto", "converge", "pause"]);
    let events = making.events(&[Side::Source]);
    making.phase(
        &[
            "export",
            &from,
            "-o",
            "{dir}/a.rmz",
            "--consistency",
            consistency,
        ],
        events,
    );
    let policy = making.one_of(&["replace", "fail", "skip"]);
    let events = match making.random.below(3) {
        0 => making.faults(&[Side::Destination]),
        _ => Vec::new(),
    };
    making.phase(
        &["import", &to, "{dir}/a.rmz", "--on-conflict", policy],
        events,
    );
    making.phase(
        &["import", &to, "{dir}/a.rmz", "--on-conflict", policy],
        Vec::new(),
    );
}

fn copy(making: &mut Making<'_>) {
    making.pair();
    let (from, to) = (making.url(Side::Source), making.url(Side::Destination));
    let consistency = making.one_of(&["scan", "auto", "converge", "pause"]);
    let events = making.events(&[Side::Source, Side::Destination]);
    making.phase(&["copy", &from, &to, "--consistency", consistency], events);
}

fn copy_conflicts(making: &mut Making<'_>) {
    making.pair();
    let (from, to) = (making.url(Side::Source), making.url(Side::Destination));
    let count = making.random.below(making.names) + 1;
    let fill = making
        .writers(Side::Destination)
        .fill(Side::Destination, count);
    making.script.fill.extend(fill);
    let policy = making.one_of(&["replace", "fail", "skip"]);
    let consistency = making.one_of(&["scan", "auto", "converge", "pause"]);
    let mut argv = vec![
        "copy",
        &from,
        &to,
        "--consistency",
        consistency,
        "--on-conflict",
        policy,
    ];
    let map = format!("{}:{}", making.dbs[0], 7 + making.random.below(3));
    if making.random.below(3) == 0 {
        argv.extend(["--map-db", &map]);
    }
    let events = making.events(&[Side::Source, Side::Destination]);
    making.phase(&argv, events);
}

/// Changes are followed until the user cuts over, or nothing changes any more.
fn follow(making: &mut Making<'_>) {
    // The first one cannot be followed.
    making.pair_among(&VERSIONS[1..]);
    let (from, to) = (making.url(Side::Source), making.url(Side::Destination));
    let mut argv = vec!["copy", &from, &to, "--follow"];
    let policy = making.one_of(&["replace", "fail", "skip"]);
    argv.extend(["--on-conflict", policy]);
    let pauses = making.random.below(3) == 0;
    if pauses {
        argv.extend(["--consistency", "pause"]);
    }
    let mut events = match making.random.below(2) {
        0 => making.clients(Side::Source, 60),
        _ => making.events(&[Side::Source, Side::Destination]),
    };
    match making.random.below(3) {
        0 => argv.extend(["--until-idle", "300ms"]),
        1 => argv.extend(["--for", "2s"]),
        _ => {
            argv.extend(["--for", "1h"]);
            let at = At::Calls(20 + making.random.below(400) as u32);
            events.push(Planned { at, act: Act::Stop });
        }
    }
    making.phase(&argv, events);
}

fn delete_source(making: &mut Making<'_>) {
    making.pair();
    let (from, to) = (making.url(Side::Source), making.url(Side::Destination));
    if making.random.below(2) == 0 {
        let count = making.random.below(making.names) + 1;
        let fill = making
            .writers(Side::Destination)
            .fill(Side::Destination, count);
        making.script.fill.extend(fill);
    }
    let policy = making.one_of(&["replace", "fail", "skip"]);
    let argv = [
        "copy",
        &from,
        &to,
        "--delete-source",
        "--on-conflict",
        policy,
    ];
    let events = making.events(&[Side::Source, Side::Destination]);
    making.phase(&argv, events);
    if making.random.below(2) == 0 {
        making.phase(&argv, Vec::new());
    }
}

fn verify(making: &mut Making<'_>) {
    making.pair();
    let (from, to) = (making.url(Side::Source), making.url(Side::Destination));
    let policy = making.one_of(&["replace", "fail", "skip"]);
    let events = making.events(&[Side::Source, Side::Destination]);
    making.phase(
        &["copy", &from, &to, "--verify", "--on-conflict", policy],
        events,
    );
}

/// Killed at any step, and gone on with.
fn resume_import(making: &mut Making<'_>) {
    making.pair();
    let (from, to) = (making.url(Side::Source), making.url(Side::Destination));
    if making.random.below(3) == 0 {
        let count = making.random.below(making.names) + 1;
        let fill = making
            .writers(Side::Destination)
            .fill(Side::Destination, count);
        making.script.fill.extend(fill);
    }
    making.phase(&["export", &from, "-o", "{dir}/a.rmz"], Vec::new());
    let policy = making.one_of(&["replace", "fail", "skip"]);
    let argv = [
        "import",
        &to,
        "{dir}/a.rmz",
        "--resume={dir}/state",
        "--on-conflict",
        policy,
    ];
    for _ in 0..1 + making.random.below(2) {
        let mut events = match making.random.below(3) {
            0 => making.faults(&[Side::Destination]),
            _ => Vec::new(),
        };
        events.push(making.kill(Side::Destination));
        making.phase(&argv, events);
    }
    let mut events = Vec::new();
    if making.random.chance(25) {
        // The destination is started anew, and empty.
        let restart = Restart {
            side: Side::Destination,
            which: 0,
            lose: 100_000,
            down_ms: 0,
            loading_ms: 0,
        };
        events.push(Planned {
            at: At::Start,
            act: Act::Restart(restart),
        });
    }
    making.phase(&argv, events);
}

fn resume_export(making: &mut Making<'_>) {
    making.pair();
    let from = making.url(Side::Source);
    let consistency = making.one_of(&["scan", "auto", "converge", "pause"]);
    let argv = [
        "export",
        &from,
        "-o",
        "{dir}/a.rmz",
        "--resume",
        "--consistency",
        consistency,
        "--scan-count",
        "3",
    ];
    for _ in 0..1 + making.random.below(2) {
        let mut events = making.events(&[Side::Source]);
        events.push(making.kill(Side::Source));
        making.phase(&argv, events);
    }
    let events = making.clients(Side::Source, 10);
    making.phase(&argv, events);
}

/// Others write at the destination, too.
fn two_writers(making: &mut Making<'_>) {
    making.pair();
    let (from, to) = (making.url(Side::Source), making.url(Side::Destination));
    let policy = making.one_of(&["replace", "fail", "skip"]);
    let mut events = making.events(&[Side::Source, Side::Destination]);
    events.extend(making.clients(Side::Destination, 20));
    making.phase(&["copy", &from, &to, "--on-conflict", policy], events);
}

fn from_cluster(making: &mut Making<'_>) {
    let release = making.one_of(&VERSIONS[1..]);
    let (primaries, with_replicas) = (
        1 + making.random.below(3) as usize,
        making.random.chance(40),
    );
    making.cluster(Side::Source, release, primaries, with_replicas);
    let into_cluster = making.random.chance(50);
    match into_cluster {
        true => making.cluster(Side::Destination, release, 2, false),
        false => making.node(Side::Destination, release),
    }
    making.fill_source();
    let (from, to) = (making.url(Side::Source), making.url(Side::Destination));
    let consistency = making.one_of(&["scan", "auto", "converge", "pause"]);
    let mut events = making.clients(Side::Source, 30);
    if making.random.chance(70) {
        events.extend(making.operators(Side::Source, primaries, with_replicas));
    }
    if making.random.chance(40) {
        events.extend(making.faults(&[Side::Source, Side::Destination]));
    }
    match making.random.below(3) {
        0 => making.phase(
            &[
                "export",
                &from,
                "-o",
                "{dir}/a.rmz",
                "--consistency",
                consistency,
            ],
            events,
        ),
        1 => making.phase(&["copy", &from, &to, "--consistency", consistency], events),
        _ => making.phase(&["copy", &from, &to, "--follow", "--for", "2s"], events),
    }
}

fn to_cluster(making: &mut Making<'_>) {
    let release = making.one_of(VERSIONS);
    let (primaries, with_replicas) = (
        1 + making.random.below(3) as usize,
        making.random.chance(40),
    );
    making.node(Side::Source, release);
    making.cluster(Side::Destination, release, primaries, with_replicas);
    making.fill_source();
    let (from, to) = (making.url(Side::Source), making.url(Side::Destination));
    let policy = making.one_of(&["replace", "fail", "skip"]);
    let mut events = making.clients(Side::Source, 20);
    if making.random.chance(70) {
        events.extend(making.operators(Side::Destination, primaries, with_replicas));
    }
    if making.random.chance(40) {
        events.extend(making.faults(&[Side::Source, Side::Destination]));
    }
    if making.random.chance(50) {
        making.phase(&["copy", &from, &to, "--on-conflict", policy], events);
        return;
    }
    making.phase(&["export", &from, "-o", "{dir}/a.rmz"], Vec::new());
    let argv = [
        "import",
        &to,
        "{dir}/a.rmz",
        "--resume={dir}/state",
        "--on-conflict",
        policy,
    ];
    if making.random.chance(40) {
        events.push(making.kill(Side::Destination));
    }
    making.phase(&argv, events);
    making.phase(&argv, Vec::new());
}

/// Users who may not do everything, or go everywhere.
fn refusals(making: &mut Making<'_>) {
    making.pair();
    for at in 0..2 {
        let side = [Side::Source, Side::Destination][at];
        let count = making.random.below(3);
        let refused: Vec<String> = (0..count).map(|_| making.command_of(side)).collect();
        let node = &mut making.script.nodes[at];
        // There are no users before 6.0.
        if node.release != VERSIONS[0] {
            node.refused = refused;
        }
        if node.release == "valkey-9.1" && making.random.chance(60) {
            let forbidden = making.dbs[making.random.below(making.dbs.len() as u64) as usize];
            making.script.nodes[at].forbidden_dbs = vec![forbidden];
        }
    }
    any_verb(making);
    // A clock that may not be asked is seldom ours.
    let source = &mut making.script.nodes[0];
    if source.refused.iter().any(|name| name == "time") {
        source.skew_ms = [0, -3, -800][making.random.below(3) as usize];
    }
}

/// Little memory, few connections, clocks that differ.
fn limits(making: &mut Making<'_>) {
    making.pair();
    for at in 0..2 {
        // XCLAIM cannot set times that are still to come: the destination is not behind.
        let skews: [[i64; 4]; 2] = [[0, 0, -800, -3], [0, 0, 3, 4000]];
        let skew_ms = skews[at][making.random.below(4) as usize];
        let max_clients = match making.random.below(3) {
            0 => 1 + making.random.below(6) as usize,
            _ => 0,
        };
        let node = &mut making.script.nodes[at];
        node.skew_ms = skew_ms;
        node.max_clients = max_clients;
    }
    if making.random.chance(40) {
        let max_memory = 500 + making.random.below(20_000);
        let evicts = making.random.chance(40);
        let node = &mut making.script.nodes[1];
        node.max_memory = max_memory;
        node.evicts = evicts;
    }
    any_verb(making);
}

/// One of the verbs, in any of its ways.
fn any_verb(making: &mut Making<'_>) {
    let (from, to) = (making.url(Side::Source), making.url(Side::Destination));
    let policy = making.one_of(&["replace", "fail", "skip"]);
    let method = making.one_of(&["auto", "auto", "commands", "restore"]);
    let consistency = making.one_of(&["scan", "auto", "converge", "pause"]);
    let events = making.events(&[Side::Source, Side::Destination]);
    let write = ["--on-conflict", policy, "--method", method];
    if making.random.chance(50) {
        let db = making.dbs[0].to_string();
        let map = format!("{db}:{}", 7 + making.random.below(3));
        let mut argv = vec!["copy", &from, &to, "--consistency", consistency];
        argv.extend(write);
        if making.random.chance(25) {
            argv.extend(["--db", &db]);
        }
        if making.random.chance(25) {
            argv.extend(["--map-db", &map]);
        }
        making.phase(&argv, events);
        return;
    }
    making.phase(
        &[
            "export",
            &from,
            "-o",
            "{dir}/a.rmz",
            "--consistency",
            consistency,
        ],
        events,
    );
    let mut argv = vec!["import", &to, "{dir}/a.rmz"];
    argv.extend(write);
    making.phase(&argv, Vec::new());
    making.phase(&argv, Vec::new());
}

/// Servers that sentinels name, and failovers.
fn sentinels(making: &mut Making<'_>) {
    let release = making.one_of(VERSIONS);
    for side in [Side::Source, Side::Destination] {
        let at = making.script.nodes.len();
        making.node(side, release);
        making.node(side, release);
        making.script.nodes[at + 1].replica_of = Some(at);
        making.script.sentinels.push(side);
    }
    making.fill_source();
    let (from, to) = (making.url(Side::Source), making.url(Side::Destination));
    let policy = making.one_of(&["replace", "fail", "skip"]);
    let mut events = making.events(&[Side::Source, Side::Destination]);
    for side in [Side::Source, Side::Destination] {
        if making.random.chance(50) {
            events.push(making.failover(side));
        }
    }
    making.phase(&["copy", &from, &to, "--on-conflict", policy], events);
}

impl Making<'_> {
    fn kill(&mut self, side: Side) -> Planned {
        let command = match side {
            Side::Source => self.one_of(&["dump", "scan", "multi", "exec", "info"]),
            Side::Destination => self.one_of(&["restore", "select", "info", "ping", "del"]),
        };
        let nth = 1 + self.random.below(25) as u32;
        let at = match self.random.below(4) {
            0 => At::Before(side, command.to_owned(), nth),
            1 => At::After(side, command.to_owned(), nth),
            _ => At::Calls(1 + self.random.below(80) as u32),
        };
        Planned { at, act: Act::Kill }
    }
}
