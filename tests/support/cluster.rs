//! A cluster of real servers on loopback: primaries, and replicas of them.

use std::time::{Duration, Instant};

use redis::Connection;

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
