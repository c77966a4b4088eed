//! Nodes of a cluster: slots on their way, and where clients are sent.

use std::time::{Duration, Instant};

use redis_migrate_world::server::{
    Cluster, ClusterNode as Node, Config, Release, Server, Since, slot_of,
};

use super::play::now_ms;
use super::real::{Connection, Real};
use super::resp::{self, Value};
use super::{compare, real};

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ')
        .map(|word| word.as_bytes().to_vec())
        .collect()
}

/// Two nodes, real and modelled, of which each serves half of the slots.
struct Nodes {
    release: &'static Release,
    _real: [Real; 2],
    connections: Vec<Connection>,
    models: Vec<Server>,
    clients: Vec<u64>,
    ids: Vec<String>,
    differences: Vec<String>,
}

impl Nodes {
    fn start(release: &'static Release) -> Self {
        let options = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "60000",
            "--cluster-require-full-coverage",
            "yes",
        ];
        let nodes = [
            Real::start(release, &options),
            Real::start(release, &options),
        ];
        let mut connections: Vec<_> = nodes.iter().map(Real::connect).collect();
        let mut ids = Vec::new();
        for connection in &mut connections {
            let Some(Value::Bulk(id)) = connection.ask(&words("CLUSTER MYID")) else {
                panic!("no id")
            };
            ids.push(String::from_utf8(id).expect("an id"));
        }
        for (n, (first, last)) in [(0, 8191), (8192, 16383)].into_iter().enumerate() {
            let mut add = words("CLUSTER ADDSLOTS");
            add.extend((first..=last).map(|slot: u16| slot.to_string().into_bytes()));
            connections[n].ask(&add).expect("an answer");
            connections[n]
                .ask(&words(&format!("CLUSTER SET-CONFIG-EPOCH {}", n + 1)))
                .expect("an answer");
        }
        connections[0]
            .ask(&words(&format!("CLUSTER MEET 127.0.0.1 {}", nodes[1].port)))
            .expect("an answer");
        let start = Instant::now();
        let is_up = |connection: &mut Connection| {
            let info = connection.ask(&words("CLUSTER INFO"));
            matches!(info, Some(Value::Bulk(text)) if String::from_utf8_lossy(&text).contains("cluster_state:ok"))
        };
        while !connections.iter_mut().all(is_up) {
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "the cluster does not come up"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        let node = |n: usize| Node {
            id: ids[n].clone(),
            host: "127.0.0.1".to_owned(),
            port: nodes[n].port,
            replica_of: None,
            epoch: n as u64 + 1,
            has_failed: false,
        };
        let mut models = Vec::new();
        for me in 0..2 {
            let config = Config::cluster_node(release, "127.0.0.1", nodes[me].port);
            let mut server = Server::new(config, me as u64);
            let mut cluster = Cluster::new(&ids[me], vec![node(me), node(1 - me)]);
            cluster.assign(0..=8191, &ids[0]);
            cluster.assign(8192..=16383, &ids[1]);
            server.set_cluster(cluster);
            models.push(server);
        }
        let clients = models
            .iter_mut()
            .map(|model| model.connect().expect("a client"))
            .collect();
        Self {
            release,
            _real: nodes,
            connections,
            models,
            clients,
            ids,
            differences: Vec::new(),
        }
    }

    fn both(&mut self, node: usize, request: &[Vec<u8>]) -> (Option<Value>, Option<Value>) {
        let real = self.connections[node].ask(request);
        let now = now_ms();
        self.models[node].receive(self.clients[node], &resp::pack(request), now);
        self.models[node].end_turn(now);
        let out = self.models[node].outbox(self.clients[node]);
        let model = resp::read(&out).map(|(value, _)| value);
        let normal = |value: Option<Value>| compare::normal(self.release, request, value.as_ref());
        (normal(real), normal(model))
    }

    /// The same line to both; `{n}` is a node's id.
    fn hold(&mut self, node: usize, line: &str) {
        let line = line
            .replace("{0}", &self.ids[0])
            .replace("{1}", &self.ids[1]);
        let (real, model) = self.both(node, &words(&line));
        if !compare::same(&real, &model) {
            self.differences.push(format!(
                "{} {node} {line}\n  real:  {real:?}\n  model: {model:?}",
                self.release.name
            ));
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        let is_quiet = self.differences.is_empty() || std::thread::panicking();
        assert!(is_quiet, "{}", self.differences.join("\n"));
    }
}

/// A key whose slot the second node serves, and one of the first's.
fn keys() -> (String, String, u16) {
    let key = |low: bool| {
        (0..)
            .map(|n| format!("k{n}"))
            .find(|key| (slot_of(key.as_bytes()) < 8192) == low)
    };
    let (own, other) = (key(true).expect("a key"), key(false).expect("a key"));
    let slot = slot_of(own.as_bytes());
    (own, other, slot)
}

#[test]
fn nodes_send_clients_on_alike() {
    let (own, other, slot) = keys();
    for release in real::available() {
        let mut nodes = Nodes::start(release);
        for line in [
            format!("SET {own} 1"),
            format!("SET {other} 1"),
            format!("GET {other}"),
            format!("MGET {own} {other}"),
            format!("DEL {{{own}}}x {{{own}}}y"),
            format!("MGET {{{own}}}x {own}"),
            "SELECT 1".to_owned(),
            "SELECT 0".to_owned(),
            "SWAPDB 0 1".to_owned(),
            format!("MOVE {own} 1"),
            "CLUSTER KEYSLOT abc".to_owned(),
            "CLUSTER MYID".to_owned(),
            format!("CLUSTER COUNTKEYSINSLOT {slot}"),
            format!("CLUSTER GETKEYSINSLOT {slot} 10"),
            "CLUSTER COUNTKEYSINSLOT x".to_owned(),
            "CLUSTER COUNTKEYSINSLOT 99999".to_owned(),
            "CLUSTER SLOTS".to_owned(),
            "ASKING".to_owned(),
            "READONLY".to_owned(),
            "READWRITE".to_owned(),
            "MULTI".to_owned(),
            format!("SET {own} 2"),
            format!("GET {other}"),
            "EXEC".to_owned(),
            "MULTI".to_owned(),
            format!("GET {own}"),
            format!("GET {{{own}}}z"),
            "EXEC".to_owned(),
            format!("WATCH {other}"),
            format!("RESTORE {other} 0 x"),
            format!("DUMP {other}"),
            "SCAN 0 COUNT 100".to_owned(),
            "DBSIZE".to_owned(),
            "FLUSHALL".to_owned(),
            format!("OBJECT IDLETIME {other}"),
            format!("XINFO STREAM {other}"),
            "PING".to_owned(),
            "KEYS *".to_owned(),
            "CONFIG GET cluster-enabled".to_owned(),
        ] {
            nodes.hold(0, &line);
        }
    }
}

#[test]
fn slots_on_their_way() {
    let (own, _, slot) = keys();
    for release in real::available() {
        let mut nodes = Nodes::start(release);
        let (here, gone) = (format!("{{{own}}}here"), format!("{{{own}}}gone"));
        let stands = |nodes: &mut Nodes| {
            for line in [
                format!("GET {here}"),
                format!("GET {gone}"),
                format!("SET {gone}2 1"),
                format!("MGET {here} {gone}"),
                format!("MGET {gone} {gone}2"),
                format!("DUMP {gone}"),
                format!("RESTORE {gone} 0 x"),
                format!("EXISTS {gone}"),
                "MULTI".to_owned(),
                format!("GET {here}"),
                format!("GET {gone}"),
                "EXEC".to_owned(),
                "SCAN 0 COUNT 100".to_owned(),
                "CLUSTER SLOTS".to_owned(),
            ] {
                nodes.hold(0, &line);
            }
            for line in [
                format!("GET {here}"),
                "ASKING".to_owned(),
                format!("GET {here}"),
                format!("GET {here}"),
                "ASKING".to_owned(),
                format!("SET {gone} 1"),
                "ASKING".to_owned(),
                format!("MGET {here} {gone}"),
                "ASKING".to_owned(),
                format!("MGET {gone} {gone}"),
                "ASKING".to_owned(),
                "MULTI".to_owned(),
                format!("GET {gone}"),
                "EXEC".to_owned(),
                "ASKING".to_owned(),
                format!("DEL {gone}"),
                "ASKING".to_owned(),
                "PING".to_owned(),
                format!("GET {gone}"),
                "SCAN 0 COUNT 100".to_owned(),
            ] {
                nodes.hold(1, &line);
            }
        };
        nodes.hold(0, &format!("SET {here} 1"));
        nodes.hold(0, &format!("CLUSTER SETSLOT {slot} MIGRATING {{1}}"));
        nodes.hold(1, &format!("CLUSTER SETSLOT {slot} IMPORTING {{0}}"));
        nodes.hold(0, &format!("CLUSTER SETSLOT {slot} IMPORTING {{1}}"));
        nodes.hold(1, &format!("CLUSTER SETSLOT {slot} MIGRATING {{0}}"));
        nodes.hold(0, &format!("CLUSTER SETSLOT {slot} MIGRATING nosuch"));
        stands(&mut nodes);
        // The key goes over, and then the slot.
        let migrate = format!("MIGRATE 127.0.0.1 {} {here} 0 5000", nodes._real[1].port);
        nodes.connections[0]
            .ask(&words(&migrate))
            .expect("an answer");
        let (left, right) = nodes.models.split_at_mut(1);
        assert!(left[0].migrate(&mut right[0], 0, here.as_bytes(), now_ms()));
        stands(&mut nodes);
        let line = format!("CLUSTER SETSLOT {slot} NODE {{1}}");
        nodes.hold(1, &line);
        nodes.hold(0, &line);
        for line in [
            format!("GET {here}"),
            format!("SET {gone} 1"),
            format!("CLUSTER COUNTKEYSINSLOT {slot}"),
        ] {
            nodes.hold(0, &line);
            nodes.hold(1, &line);
        }
        if release.has(Since::R62) {
            nodes.hold(0, "CLUSTER MYID");
        }
    }
}

/// A script may touch keys that it has not named, but none of another node.
#[test]
fn scripts_in_a_cluster() {
    let (own, other, _) = keys();
    for release in real::available() {
        let mut nodes = Nodes::start(release);
        nodes.hold(0, &format!("SET {own} 1"));
        for (script, key) in [
            ("return redis.pcall('GET', ARGV[1])", &own),
            ("return redis.pcall('GET', ARGV[1])", &other),
        ] {
            let request: Vec<Vec<u8>> = [&b"EVAL"[..], script.as_bytes(), b"0", key.as_bytes()]
                .map(<[u8]>::to_vec)
                .into();
            let (real, model) = nodes.both(0, &request);
            assert!(
                compare::same(&real, &model),
                "{} {script} {key}\n  {real:?}\n  {model:?}",
                release.name
            );
        }
    }
}
