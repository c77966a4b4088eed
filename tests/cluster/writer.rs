//! A writer that knows a cluster: one operation after the other, each with its number.
//!
//! Every key belongs to a group, whose keys lie in one slot, and every group has a key that holds the
//! number of its last operation, written in the same transaction. An operation is begun when the one
//! before was answered (and, if asked for, has reached a replica). So at any instant there is a
//! number N such that everything up to N has happened, and nothing after it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redis::{Connection, Value};

use crate::support::cluster::TestCluster;
use crate::support::dataset::command;
use crate::support::random::Random;

/// Groups, and keys in each of them.
pub const GROUPS: u64 = 24;
const KEYS: u64 = 40;

/// How long an operation may be refused.
const PATIENCE: Duration = Duration::from_secs(60);

/// One operation: what became of a key.
#[derive(Debug, Clone)]
pub struct Op {
    pub number: u64,
    pub group: u64,
    pub key: Vec<u8>,
    /// `None` for a deletion.
    pub value: Option<Vec<u8>>,
}

/// The key with the number of the group's last operation.
pub fn marker(group: u64) -> Vec<u8> {
    format!("{{g{group}}}w:last").into_bytes()
}

/// Everything that writers write.
pub const PATTERN: &str = "{g*}w:*";

/// Sends commands to whoever serves a key, as long as it takes.
pub struct Router {
    addresses: Vec<SocketAddr>,
    connections: HashMap<SocketAddr, Connection>,
    /// By group.
    routes: HashMap<u64, SocketAddr>,
}

impl Router {
    pub fn new(cluster: &TestCluster) -> Self {
        Self {
            addresses: cluster.nodes.iter().map(|node| node.addr()).collect(),
            connections: HashMap::new(),
            routes: HashMap::new(),
        }
    }

    fn connection(&mut self, address: SocketAddr) -> Option<&mut Connection> {
        match self.connections.entry(address) {
            Entry::Occupied(known) => Some(known.into_mut()),
            Entry::Vacant(new) => {
                let client = redis::Client::open(format!("redis://{address}")).expect("a URL");
                let connection = client
                    .get_connection_with_timeout(Duration::from_secs(1))
                    .ok()?;
                let limit = Some(Duration::from_secs(5));
                connection.set_read_timeout(limit).expect("a time limit");
                Some(new.insert(connection))
            }
        }
    }

    /// Carries out a transaction on keys of one group.
    fn transaction(
        &mut self,
        random: &mut Random,
        group: u64,
        commands: &[Vec<&[u8]>],
        wait: bool,
    ) {
        let began = Instant::now();
        loop {
            let address = match self.routes.get(&group) {
                Some(address) => *address,
                None => {
                    let at = random.below(self.addresses.len() as u64);
                    self.addresses[usize::try_from(at).unwrap_or(0)]
                }
            };
            match self.attempt(address, commands, wait) {
                Ok(()) => {
                    self.routes.insert(group, address);
                    return;
                }
                Err(text) => {
                    self.routes.remove(&group);
                    let mut words = text.split_whitespace().skip_while(|word| *word != "MOVED");
                    match words.nth(2).and_then(|word| word.parse().ok()) {
                        Some(address) => {
                            self.routes.insert(group, address);
                        }
                        None => std::thread::sleep(Duration::from_millis(20)),
                    }
                    assert!(began.elapsed() < PATIENCE, "group {group}: {text}");
                }
            }
        }
    }

    fn attempt(
        &mut self,
        address: SocketAddr,
        commands: &[Vec<&[u8]>],
        wait: bool,
    ) -> Result<(), String> {
        let connection = self.connection(address).ok_or("no connection")?;
        let mut packed = Vec::new();
        command(&mut packed, &[b"MULTI"]);
        for parts in commands {
            command(&mut packed, parts);
        }
        command(&mut packed, &[b"EXEC"]);
        command(
            &mut packed,
            &[b"WAIT", if wait { b"1" } else { b"0" }, b"1000"],
        );
        let mut done = Err("no answer".to_owned());
        let mut acknowledged = false;
        if connection.send_packed_command(&packed).is_ok() {
            let mut failure: Option<String> = None;
            for number in 0..commands.len() + 3 {
                match connection.recv_response() {
                    Ok(Value::ServerError(error)) => {
                        let text =
                            format!("{} {}", error.code(), error.details().unwrap_or_default());
                        failure.get_or_insert(text);
                    }
                    Ok(Value::Int(replicas)) if number == commands.len() + 2 => {
                        acknowledged = !wait || replicas > 0;
                    }
                    Ok(_) => {}
                    Err(error) => {
                        failure.get_or_insert(error.to_string());
                        if error.is_io_error() || error.is_connection_dropped() {
                            self.connections.remove(&address);
                            return Err(failure.unwrap_or_default());
                        }
                    }
                }
            }
            done = match failure {
                Some(text) => Err(text),
                None if acknowledged => Ok(()),
                // Whoever took the place of one that died has none.
                None if has_no_replica(connection) => Ok(()),
                None => Err("no replica has it".to_owned()),
            };
        } else {
            self.connections.remove(&address);
        }
        done
    }
}

fn has_no_replica(connection: &mut Connection) -> bool {
    let text: redis::RedisResult<String> = redis::cmd("INFO").arg("replication").query(connection);
    text.is_ok_and(|text| text.contains("connected_slaves:0"))
}

/// A writer at work.
pub struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Op>>,
}

impl Writer {
    /// `wait` for a replica after each operation, so that none is lost by a failover.
    pub fn start(cluster: &TestCluster, wait: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let router = Router::new(cluster);
        let thread = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || write(router, wait, &stop))
        };
        Self { stop, thread }
    }

    /// Ends it: what it did, in order.
    pub fn finish(self) -> Vec<Op> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the writer writes")
    }
}

fn write(mut router: Router, wait: bool, stop: &AtomicBool) -> Vec<Op> {
    let mut random = Random::new(4711);
    let mut log = Vec::new();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let group = random.below(GROUPS);
        let key = format!("{{g{group}}}w:{}", random.below(KEYS)).into_bytes();
        let value = (!random.chance(20)).then(|| format!("value {number}").into_bytes());
        let change: Vec<&[u8]> = match &value {
            Some(value) => vec![b"SET", &key, value],
            None => vec![b"DEL", &key],
        };
        let (name, text) = (marker(group), number.to_string());
        let commands = [change, vec![b"SET", &name, text.as_bytes()]];
        router.transaction(&mut random, group, &commands, wait);
        log.push(Op {
            number,
            group,
            key,
            value,
        });
        std::thread::sleep(Duration::from_micros(300));
    }
    log
}

/// Panics unless the cluster itself holds what the writer did: what servers lose is not the fault of
/// who reads. A failover may still be under way.
#[track_caller]
pub fn assert_kept(cluster: &TestCluster, log: &[Op]) {
    let mut expected: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for op in log {
        expected.insert(marker(op.group), op.number.to_string().into_bytes());
        match &op.value {
            Some(value) => expected.insert(op.key.clone(), value.clone()),
            None => expected.remove(&op.key),
        };
    }
    let began = Instant::now();
    loop {
        let held = held_by(cluster);
        if held.as_ref() == Ok(&expected) {
            return;
        }
        if began.elapsed() < PATIENCE / 3 {
            std::thread::sleep(Duration::from_millis(200));
            continue;
        }
        let held = held.expect("the cluster answers");
        for key in held.keys().chain(expected.keys()) {
            let text =
                |value: Option<&Vec<u8>>| value.map(|value| value.escape_ascii().to_string());
            assert_eq!(
                text(held.get(key)),
                text(expected.get(key)),
                "the cluster itself did not keep {}",
                key.escape_ascii()
            );
        }
    }
}

fn held_by(cluster: &TestCluster) -> redis::RedisResult<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut held = BTreeMap::new();
    for node in &mut cluster.client().nodes {
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg(PATTERN).query(node)?;
        for key in keys {
            let value: redis::RedisResult<Option<Vec<u8>>> =
                redis::cmd("GET").arg(&key).query(node);
            match value {
                Ok(Some(value)) => drop(held.insert(key, value)),
                Ok(None) => {}
                // What lies about in slots of others counts for nothing.
                Err(error) if error.kind() == redis::ServerErrorKind::Moved.into() => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(held)
}

/// Deletes everything that writers wrote.
pub fn delete_written(cluster: &TestCluster) {
    let began = Instant::now();
    while let Err(error) = try_to_delete(cluster) {
        assert!(began.elapsed() < PATIENCE / 3, "{error}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn try_to_delete(cluster: &TestCluster) -> redis::RedisResult<()> {
    for node in &mut cluster.client().nodes {
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg(PATTERN).query(node)?;
        for key in keys {
            redis::cmd("DEL").arg(key).exec(node)?;
        }
    }
    Ok(())
}

/// What a server holds of the writer's keys, by group: the marker's number, and the other keys.
type Held = BTreeMap<u64, (u64, BTreeMap<Vec<u8>, Vec<u8>>)>;

/// Reads and deletes what a standalone server holds of the writer's keys.
pub fn take(connection: &mut Connection) -> Held {
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS")
        .arg(PATTERN)
        .query(connection)
        .expect("KEYS");
    let mut held = Held::new();
    for key in keys {
        let (value, _): (Vec<u8>, i64) = redis::pipe()
            .cmd("GET")
            .arg(&key)
            .cmd("DEL")
            .arg(&key)
            .query(connection)
            .expect("GET and DEL");
        let text = String::from_utf8(key.clone()).expect("text");
        let group = text[2..text.find('}').expect("a tag")]
            .parse()
            .expect("a number");
        let row = held.entry(group).or_default();
        if key == marker(group) {
            row.0 = String::from_utf8(value)
                .expect("text")
                .parse()
                .expect("a number");
        } else {
            row.1.insert(key, value);
        }
    }
    held
}

/// Panics unless each of these sets of groups is as it was at one instant. The numbers of the
/// instants.
#[track_caller]
pub fn assert_exact(held: &Held, log: &[Op], together: &[Vec<u64>]) -> Vec<u64> {
    let mut instants = Vec::new();
    for groups in together {
        let number = groups
            .iter()
            .filter_map(|group| held.get(group))
            .map(|(number, _)| *number)
            .max()
            .unwrap_or(0);
        for group in groups {
            let mut expected = (0, BTreeMap::new());
            let ops = log.iter().filter(|op| op.group == *group);
            for op in ops.take_while(|op| op.number <= number) {
                expected.0 = op.number;
                match &op.value {
                    Some(value) => expected.1.insert(op.key.clone(), value.clone()),
                    None => expected.1.remove(&op.key),
                };
            }
            let none = (0, BTreeMap::new());
            let found = held.get(group).unwrap_or(&none);
            assert_eq!(
                found.0, expected.0,
                "group {group} at {number}: the last operation"
            );
            for key in found.1.keys().chain(expected.1.keys()) {
                assert_eq!(
                    found
                        .1
                        .get(key)
                        .map(|value| value.escape_ascii().to_string()),
                    expected
                        .1
                        .get(key)
                        .map(|value| value.escape_ascii().to_string()),
                    "group {group} at {number}: {}",
                    key.escape_ascii()
                );
            }
        }
        instants.push(number);
    }
    instants
}
