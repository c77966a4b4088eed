//! Where a cluster is exported to, and what is looked at afterwards.

use std::path::PathBuf;
use std::time::Duration;

use redis::Connection;
use tempfile::TempDir;

use crate::support::cluster::{TestCluster, slot_of};
use crate::support::dataset::fill_every_type;
use crate::support::equality::{self, Options};
use crate::support::reading::Side;
use crate::support::servers::{TestServer, Version};
use crate::support::tool::{Output, Tool};

/// Small keys in every slot.
pub fn fill(cluster: &TestCluster, count: u64) {
    let mut client = cluster.client();
    let mut pipes: Vec<redis::Pipeline> = client.nodes.iter().map(|_| redis::pipe()).collect();
    for i in 0..count {
        let key = format!("key:{i}");
        let at = client.owners[usize::from(slot_of(key.as_bytes()))];
        let value = format!("value {i}");
        if i.is_multiple_of(7) {
            pipes[at]
                .cmd("RPUSH")
                .arg(key)
                .arg(value)
                .arg("second")
                .ignore();
        } else {
            pipes[at].cmd("SET").arg(key).arg(value).ignore();
        }
    }
    for (pipe, node) in pipes.iter().zip(&mut client.nodes) {
        pipe.exec(node).expect("the keys are written");
    }
}

/// Every type in database 0 of a cluster.
pub fn with_every_type(cluster: &TestCluster, version: Version) {
    let server = TestServer::start(version);
    fill_every_type(&mut server.client(), version);
    cluster.client().fill_from(&mut server.client());
}

pub struct Place {
    directory: TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a directory"),
        }
    }

    pub fn file(&self, name: &str) -> String {
        let path: PathBuf = self.directory.path().join(name);
        path.to_str().expect("a plain name").to_owned()
    }
}

pub fn export(url: &str, file: &str, more: &[&str]) -> Output {
    Tool::new(&["export", url, "-o", file, "--json"])
        .args(more)
        .run()
}

/// Imports archives into a new server, one after the other.
pub fn imported(version: Version, files: &[String]) -> TestServer {
    let server = TestServer::start(version);
    for file in files {
        Tool::new(&["import", &server.url(), file, "--replace"])
            .run()
            .success();
    }
    server
}

#[track_caller]
pub fn assert_same(cluster: &TestCluster, server: &mut Connection, version: Version) {
    let options = Options {
        ttl_tolerance_ms: (!version.is_at_least_7()).then_some(5000),
        ..Options::default()
    };
    let mut client = cluster.client();
    equality::assert_same(Side::cluster(&mut client), Side::new(server), &options);
}

pub fn dbsize(connection: &mut Connection) -> u64 {
    redis::cmd("DBSIZE").query(connection).expect("DBSIZE")
}

/// Waits until a node has at least so many keys.
pub fn wait_until_it_has(node: &mut Connection, keys: u64) {
    for _ in 0..6_000 {
        if dbsize(node) >= keys {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no keys come");
}
