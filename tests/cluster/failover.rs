//! Primaries that go away while a cluster is written.

use std::io::Write as _;
use std::time::{Duration, Instant};

use super::destination::{assert_arrived, flush, given};
use super::fault_runs;
use super::place::{dbsize, wait_until_it_has};
use crate::support::cluster::{TestCluster, node_id};
use crate::support::random::Random;
use crate::support::servers::{Builder, TestServer, Version, require};
use crate::support::tool::{Output, Tool, run};

const POLICIES: [&str; 3] = ["fail", "skip", "replace"];

/// Imports within a second or so, with `fault` at some moment of it.
pub fn import(
    cluster: &TestCluster,
    archive: &[u8],
    seed: u64,
    policy: &str,
    fault: impl FnOnce(),
) -> Output {
    import_in_pieces(50, cluster, archive, seed, policy, fault)
}

/// The same within as many times 20 ms at least.
fn import_in_pieces(
    pieces: usize,
    cluster: &TestCluster,
    archive: &[u8],
    seed: u64,
    policy: &str,
    fault: impl FnOnce(),
) -> Output {
    let mut random = Random::new(seed);
    let mut running = Tool::new(&["import", &cluster.url(), "--on-conflict", policy])
        .stdin_piped()
        .spawn();
    let mut stdin = running.stdin();
    let archive = archive.to_vec();
    let writer = std::thread::spawn(move || {
        // Slowly, so that the fault falls into it.
        for piece in archive.chunks(archive.len() / pieces + 1) {
            if stdin.write_all(piece).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    // At the least so late that WAIT was asked for.
    std::thread::sleep(Duration::from_millis(500 + random.below(400)));
    fault();
    let output = running.wait();
    writer.join().expect("the archive was written");
    output
}

/// Gives the first primary back what it had.
fn settle(cluster: &TestCluster) {
    let mut client = cluster.client();
    flush(&mut client);
    for node in &mut client.nodes {
        let _: i64 = redis::cmd("WAIT")
            .arg(1)
            .arg(5000)
            .query(node)
            .expect("WAIT");
    }
}

#[test]
fn a_failover_by_hand_costs_nothing() {
    for version in [Version::Redis70, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        let (server, archive) = given(version, 40_000);
        let cluster = TestCluster::start(version, 3, 1);
        for round in 0..fault_runs() {
            settle(&cluster);
            let policy = POLICIES[round as usize % POLICIES.len()];
            let output = import(&cluster, &archive, round, policy, || {
                fail_over(&cluster, round)
            });
            output.success();
            assert_arrived(&server, &mut cluster.client());
        }
    }
}

/// One of the replicas of now takes over from its primary.
fn fail_over(cluster: &TestCluster, round: u64) {
    let replicas: Vec<&TestServer> = cluster
        .nodes
        .iter()
        .filter(|node| {
            let text: String = redis::cmd("INFO")
                .arg("replication")
                .query(&mut node.client())
                .expect("INFO");
            text.contains("role:slave")
        })
        .collect();
    let replica = replicas[round as usize % replicas.len()];
    let mut failover = redis::cmd("CLUSTER");
    failover.arg("FAILOVER");
    failover
        .exec(&mut replica.client())
        .expect("CLUSTER FAILOVER");
}

/// Both versions at once, because most of it is waiting for nodes to notice.
#[test]
fn a_primary_that_is_killed_costs_nothing() {
    std::thread::scope(|scope| {
        for version in [Version::Redis70, Version::Valkey91] {
            scope.spawn(move || primaries_that_are_killed(version));
        }
    });
}

fn primaries_that_are_killed(version: Version) {
    let Some(version) = require(version) else {
        return;
    };
    let (server, archive) = given(version, 40_000);
    for round in 0..fault_runs().div_ceil(2) {
        let mut cluster = TestCluster::start_with(version, 3, 1, |_, builder| {
            builder.option("--cluster-node-timeout", "2000")
        });
        let victim = 1 + round as usize % 2;
        assert!(!node_id(&mut cluster.nodes[victim].client()).is_empty());
        let policy = POLICIES[round as usize % POLICIES.len()];
        let mut dying = std::mem::replace(&mut cluster.nodes[victim], TestServer::start(version));
        let output = import(&cluster, &archive, round, policy, || dying.kill());
        let output = output.success();
        assert!(output.stderr.contains("restored"), "{}", output.stderr);
        assert_arrived(&server, &mut cluster.client());
    }
}

/// Where no replica can be asked for, a failover is told of, and what to do about it.
#[test]
fn where_wait_is_refused_a_failover_is_no_success() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (server, archive) = given(version, 40_000);
    let mut cluster = TestCluster::start_with(version, 3, 1, |_, builder| {
        builder
            .option("--cluster-node-timeout", "2000")
            .user("default on nopass ~* +@all -wait")
    });
    let mut dying = std::mem::replace(&mut cluster.nodes[1], TestServer::start(version));
    let output = import(&cluster, &archive, 1, "fail", || dying.kill());
    // Where it died before WAIT was first asked for, all it had acknowledged was still at hand and
    // was sent again. What it acknowledged before a replica was known of is not.
    if output.code() != Some(0) {
        let output = output.expect_code(3);
        let is_told = [
            "no replica had confirmed",
            "acknowledged before and not saved",
        ]
        .iter()
        .any(|text| output.stderr.contains(text));
        assert!(is_told, "{}", output.stderr);
        output.expect_stderr("run the same command again");
        run(
            &["import", &cluster.url(), "--on-conflict", "skip"],
            &archive,
        )
        .success();
    }
    assert_arrived(&server, &mut cluster.client());
}

/// A replica that joined when the run had begun, and takes over without what came last: there was
/// nothing to be kept for it, and that is told.
#[test]
fn a_replica_that_joined_meanwhile_and_lacks_the_last_is_no_success() {
    a_late_replica_takes_over(true);
}

/// The same where the old primary lives on, and becomes a replica as one does that was drained.
#[test]
fn a_primary_that_lives_on_behind_a_replica_that_lacks_the_last_is_no_success() {
    a_late_replica_takes_over(false);
}

fn a_late_replica_takes_over(primary_dies: bool) {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (server, archive) = given(version, 60_000);
    let quickly = |builder: Builder| {
        builder
            .option("--cluster-node-timeout", "2000")
            .option("--repl-diskless-sync-delay", "0")
    };
    let mut cluster = TestCluster::start_with(version, 3, 0, |_, builder| quickly(builder));
    let joins = quickly(TestServer::builder(version).cluster()).start();
    let mut late = joins.client();
    let mut meet = redis::cmd("CLUSTER");
    meet.arg("MEET")
        .arg("127.0.0.1")
        .arg(cluster.nodes[0].port());
    meet.exec(&mut late).expect("CLUSTER MEET");
    cluster.nodes.push(joins);
    for node in &cluster.nodes {
        wait_for(
            &mut node.client(),
            &["CLUSTER", "INFO"],
            "cluster_known_nodes:4",
        );
    }
    let mut primary = cluster.nodes[1].client();
    let id = node_id(&mut primary);
    let mut dying = std::mem::replace(&mut cluster.nodes[1], TestServer::start(version));
    let output = import_in_pieces(300, &cluster, &archive, 1, "fail", || {
        wait_until_it_has(&mut primary, 100);
        let mut join = redis::cmd("CLUSTER");
        join.arg("REPLICATE")
            .arg(&id)
            .exec(&mut late)
            .expect("a replica");
        wait_for(&mut late, &["INFO", "replication"], "master_link_status:up");
        // From here on it gets nothing any more.
        let mut lock = redis::cmd("ACL");
        lock.arg("SETUSER")
            .arg("default")
            .arg("-psync")
            .arg("-sync");
        lock.exec(&mut primary).expect("no replication");
        let mut cut = redis::cmd("CLIENT");
        cut.arg("KILL").arg("TYPE").arg("replica");
        cut.exec(&mut primary).expect("cut off");
        // What is acknowledged now, it alone has.
        let reached = dbsize(&mut primary);
        wait_until_it_has(&mut primary, reached + 100);
        if primary_dies {
            dying.kill();
        }
        let mut take_over = redis::cmd("CLUSTER");
        take_over.arg("FAILOVER").arg("TAKEOVER");
        take_over.exec(&mut late).expect("it takes over");
        if !primary_dies {
            wait_for(&mut primary, &["INFO", "replication"], "role:slave");
        }
    });
    output
        .expect_code(3)
        .expect_stderr("what it had acknowledged before and not saved is gone")
        .expect_stderr("run the same command again");
    run(
        &["import", &cluster.url(), "--on-conflict", "skip"],
        &archive,
    )
    .success()
    .expect_stderr("unchanged");
    assert_arrived(&server, &mut cluster.client());
}

pub fn wait_for(client: &mut redis::Connection, command: &[&str], word: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let text: String = redis::cmd(command[0])
            .arg(&command[1..])
            .query(client)
            .expect("an answer");
        if text.contains(word) {
            return;
        }
        assert!(Instant::now() < deadline, "{word}: {text}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
