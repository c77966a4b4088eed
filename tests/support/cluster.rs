//! A cluster of real servers on loopback: primaries, and replicas of them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::{Connection, Value};

use super::servers::{Builder, TestServer, Version};

/// Slots of a cluster.
const SLOTS: u16 = 16_384;

/// How long a cluster may take to agree. Nodes gossip once a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running cluster. Its nodes are killed when it is dropped.
pub struct TestCluster {
    /// Primaries first, in the order of their slots; then replicas, each following the primary
    /// at its number modulo their count.
    pub nodes: Vec<TestServer>,
    primaries: usize,
}

impl TestCluster {
    /// As many primaries with about as many slots each, and as many replicas for each of them.
    pub fn start(version: Version, primaries: usize, replicas_each: usize) -> Self {
        Self::start_with(version, primaries, replicas_each, |_, builder| builder)
    }

    /// `change` may add to what the node of each number is started with.
    pub fn start_with(
        version: Version,
        primaries: usize,
        replicas_each: usize,
        change: impl Fn(usize, Builder) -> Builder,
    ) -> Self {
        let count = primaries * (1 + replicas_each);
        let nodes: Vec<TestServer> = (0..count)
            .map(|number| change(number, TestServer::builder(version).cluster()).start())
            .collect();
        let cluster = Self { nodes, primaries };
        cluster.form();
        cluster
    }

    /// The primaries as it was started; a failover is not known here.
    pub fn primaries(&self) -> &[TestServer] {
        &self.nodes[..self.primaries]
    }

    /// The replicas as it was started.
    pub fn replicas(&self) -> &[TestServer] {
        &self.nodes[self.primaries..]
    }

    /// The URL of its first node.
    pub fn url(&self) -> String {
        self.nodes[0].url()
    }

    /// Connections to all its primaries of now, by slot, once every slot has one that answers.
    pub fn client(&self) -> ClusterClient {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(client) = self.try_client() {
                return client;
            }
            assert!(Instant::now() < deadline, "the cluster does not get whole");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn try_client(&self) -> Option<ClusterClient> {
        let mut ids: HashMap<String, Connection> = HashMap::new();
        for node in &self.nodes {
            let Ok(mut client) = node.connect() else {
                continue;
            };
            // On the port of one that was killed there may be somebody else by now.
            if let Ok(id) = redis::cmd("CLUSTER").arg("MYID").query(&mut client) {
                ids.insert(id, client);
            }
        }
        // A node that was cut off may not know yet; the one that knows the newest epoch does.
        let mut asked: Vec<(u64, Vec<Row>)> = ids
            .values_mut()
            .filter_map(|client| {
                let epoch = info(client)
                    .lines()
                    .find_map(|line| line.strip_prefix("cluster_current_epoch:")?.parse().ok())?;
                let mut slots = redis::cmd("CLUSTER");
                Some((epoch, slots.arg("SLOTS").query(client).ok()?))
            })
            .collect();
        asked.sort_by_key(|(epoch, _)| std::cmp::Reverse(*epoch));
        let (_, rows) = asked.into_iter().next()?;
        let mut owners = vec![usize::MAX; usize::from(SLOTS)];
        let mut nodes = Vec::new();
        let mut numbers: HashMap<String, usize> = HashMap::new();
        for row in rows {
            let mut parts = row.into_iter();
            let [Value::Int(first), Value::Int(last), Value::Array(primary)] =
                [parts.next()?, parts.next()?, parts.next()?]
            else {
                return None;
            };
            let id: String = redis::from_redis_value(primary.into_iter().nth(2)?).ok()?;
            let number = match numbers.get(&id) {
                Some(number) => *number,
                None => {
                    let mut client = ids.remove(&id)?;
                    if !is_primary(&mut client) {
                        return None;
                    }
                    nodes.push(client);
                    numbers.insert(id, nodes.len() - 1);
                    nodes.len() - 1
                }
            };
            for slot in first..=last {
                *owners.get_mut(usize::try_from(slot).ok()?)? = number;
            }
        }
        let whole = !owners.contains(&usize::MAX);
        whole.then_some(ClusterClient { nodes, owners })
    }

    fn form(&self) {
        let share = usize::from(SLOTS).div_ceil(self.primaries);
        for (number, node) in self.nodes.iter().enumerate() {
            let mut client = node.client();
            if number < self.primaries {
                let slots = number * share..((number + 1) * share).min(usize::from(SLOTS));
                let mut add = redis::cmd("CLUSTER");
                add.arg("ADDSLOTS").arg(slots.collect::<Vec<_>>());
                add.exec(&mut client).expect("CLUSTER ADDSLOTS");
            }
            let mut epoch = redis::cmd("CLUSTER");
            epoch.arg("SET-CONFIG-EPOCH").arg(number + 1);
            epoch.exec(&mut client).expect("CLUSTER SET-CONFIG-EPOCH");
        }
        let mut first = self.nodes[0].client();
        for node in &self.nodes[1..] {
            let mut meet = redis::cmd("CLUSTER");
            meet.arg("MEET").arg("127.0.0.1").arg(node.port());
            meet.exec(&mut first).expect("CLUSTER MEET");
        }
        for node in &self.nodes {
            self.wait(node, "to know all nodes", |client| {
                info(client).contains(&format!("cluster_known_nodes:{}\r\n", self.nodes.len()))
            });
        }
        for (number, replica) in self.replicas().iter().enumerate() {
            let primary = &self.nodes[number % self.primaries];
            let mut replicate = redis::cmd("CLUSTER");
            replicate
                .arg("REPLICATE")
                .arg(node_id(&mut primary.client()));
            self.wait(replica, "to follow its primary", |client| {
                replicate.exec(client).is_ok()
            });
        }
        for node in &self.nodes {
            self.wait(node, "to be part of a whole cluster", |client| {
                info(client).contains("cluster_state:ok")
            });
        }
        let each = self.replicas().len() / self.primaries;
        for node in &self.nodes {
            self.wait(node, "to know who follows whom", |client| {
                let mut slots = redis::cmd("CLUSTER");
                let rows: Vec<Row> = slots.arg("SLOTS").query(client).unwrap_or_default();
                // First and last slot, the primary, its replicas.
                rows.len() == self.primaries && rows.iter().all(|row| row.len() == 3 + each)
            });
        }
        for replica in self.replicas() {
            self.wait(replica, "to be in step with its primary", |client| {
                let text: String = redis::cmd("INFO")
                    .arg("replication")
                    .query(client)
                    .unwrap_or_default();
                text.contains("master_link_status:up")
            });
        }
    }

    fn wait(&self, node: &TestServer, what: &str, mut done: impl FnMut(&mut Connection) -> bool) {
        let mut client = node.client();
        let deadline = Instant::now() + PATIENCE;
        while !done(&mut client) {
            assert!(
                Instant::now() < deadline,
                "node {} does not come {what}\n{}\n{}",
                node.port(),
                info(&mut client),
                node.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A row of CLUSTER SLOTS.
type Row = Vec<Value>;

fn is_primary(client: &mut Connection) -> bool {
    let text: redis::RedisResult<String> = redis::cmd("INFO").arg("replication").query(client);
    text.is_ok_and(|text| text.contains("role:master"))
}

/// Connections to all primaries.
pub struct ClusterClient {
    pub nodes: Vec<Connection>,
    /// The node of each slot, an index into `nodes`.
    pub owners: Vec<usize>,
}

impl ClusterClient {
    /// The primary that holds a key.
    pub fn of(&mut self, key: &[u8]) -> &mut Connection {
        &mut self.nodes[self.owners[usize::from(slot_of(key))]]
    }

    /// Copies database 0 and the functions of a server of the same version in here.
    pub fn fill_from(&mut self, server: &mut Connection) {
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query(server).expect("KEYS");
        for key in keys {
            let (payload, left_ms): (Vec<u8>, i64) = redis::pipe()
                .cmd("DUMP")
                .arg(&key)
                .cmd("PTTL")
                .arg(&key)
                .query(server)
                .expect("DUMP and PTTL");
            let mut restore = redis::cmd("RESTORE");
            restore.arg(&key).arg(left_ms.max(0)).arg(payload);
            restore.exec(self.of(&key)).expect("RESTORE");
        }
        let dump: redis::RedisResult<Vec<u8>> = redis::cmd("FUNCTION").arg("DUMP").query(server);
        let Ok(dump) = dump else { return };
        for node in &mut self.nodes {
            let mut restore = redis::cmd("FUNCTION");
            restore
                .arg("RESTORE")
                .arg(&dump)
                .exec(node)
                .expect("FUNCTION RESTORE");
        }
    }
}

/// The slot of a key, as the servers' documentation has it.
pub fn slot_of(key: &[u8]) -> u16 {
    let mut hashed = key;
    if let Some(open) = key.iter().position(|&byte| byte == b'{')
        && let Some(len @ 1..) = key[open + 1..].iter().position(|&byte| byte == b'}')
    {
        hashed = &key[open + 1..][..len];
    }
    let mut crc: u16 = 0;
    for &byte in hashed {
        crc ^= u16::from(byte) << 8;
        for _ in 0..8 {
            let carry = crc & 0x8000 != 0;
            crc = (crc << 1) ^ if carry { 0x1021 } else { 0 };
        }
    }
    crc % SLOTS
}

/// CLUSTER INFO.
pub fn info(client: &mut Connection) -> String {
    redis::cmd("CLUSTER")
        .arg("INFO")
        .query(client)
        .unwrap_or_default()
}

/// The id of a node.
pub fn node_id(client: &mut Connection) -> String {
    redis::cmd("CLUSTER")
        .arg("MYID")
        .query(client)
        .expect("CLUSTER MYID")
}
