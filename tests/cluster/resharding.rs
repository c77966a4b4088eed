//! Slots that the servers' own tools move while keys are written into them or read from them: key by
//! key, as `--cluster reshard` does, and all at once, as Valkey does from 9.0 on.

use std::ops::RangeInclusive;

use redis::Value;

use super::between::{calls, errors, id_at};
use super::destination::flush;
use super::failover::import;
use super::fault_runs;
use super::place::fill;
use super::source::under_fault;
use crate::support::cluster::{TestCluster, slot_of};
use crate::support::equality::{Options, assert_same};
use crate::support::random::Random;
use crate::support::reading::Side;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::run;

/// That many slots, the first ones, hold all keys and are moved.
pub const MOVED: u16 = 60;

/// Keys in each of them.
const KEYS: u64 = 500;

/// Moves the first slots from one node to another.
type Shift = fn(&TestCluster, usize, usize);

/// A server whose keys lie in the first slots.
pub fn crowded(version: Version) -> TestServer {
    let server = TestServer::start(version);
    let mut tags = vec![None; usize::from(MOVED)];
    let mut number = 0u64;
    while tags.contains(&None) {
        let tag = number.to_string();
        if let Some(place) = tags.get_mut(usize::from(slot_of(tag.as_bytes()))) {
            place.get_or_insert(tag);
        }
        number += 1;
    }
    let mut client = server.client();
    // Nothing that would shrink to one block of an archive, and go in one piece.
    let mut random = Random::new(9);
    for key in 0..KEYS {
        let mut pipe = redis::pipe();
        for tag in tags.iter().flatten() {
            let name = format!("{{{tag}}}:{key}");
            if key % 5 == 0 {
                pipe.cmd("RPUSH")
                    .arg(name)
                    .arg(random.bytes(300))
                    .arg("second")
                    .ignore();
            } else {
                pipe.cmd("SET").arg(name).arg(random.bytes(300)).ignore();
            }
        }
        pipe.exec(&mut client).expect("the keys are written");
    }
    server
}

pub fn wait_until_agreed(cluster: &TestCluster) {
    let address = cluster.nodes[0].addr().to_string();
    for _ in 0..300 {
        let checked = cluster.nodes[0].cli(&["--cluster", "check", &address]);
        if checked.status.success() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("the nodes do not agree");
}

/// Moves them slot by slot and key by key.
pub fn reshard(cluster: &TestCluster, from: usize, to: usize) {
    let address = cluster.nodes[0].addr().to_string();
    let (from, to, count) = (id_at(cluster, from), id_at(cluster, to), MOVED.to_string());
    let output = cluster.nodes[0].cli(&[
        "--cluster",
        "reshard",
        &address,
        "--cluster-from",
        &from,
        "--cluster-to",
        &to,
        "--cluster-slots",
        &count,
        "--cluster-yes",
        "--cluster-pipeline",
        "5",
    ]);
    let text = String::from_utf8_lossy(&output.stdout);
    let end = text.get(text.len().saturating_sub(1000)..).unwrap_or(&text);
    assert!(
        output.status.success(),
        "{end}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Moves more of them as one, by CLUSTER MIGRATESLOTS: the keys follow as to a replica, stay unseen
/// there, and change hands together.
fn migrate_slots(cluster: &TestCluster, from: usize, to: usize) {
    migrate_range(cluster, 0..=2999, from, to);
}

/// The same for these slots.
pub fn migrate_range(cluster: &TestCluster, slots: RangeInclusive<u16>, from: usize, to: usize) {
    let mut source = cluster.nodes[from].client();
    redis::cmd("CLUSTER")
        .arg("MIGRATESLOTS")
        .arg("SLOTSRANGE")
        .arg(*slots.start())
        .arg(*slots.end())
        .arg("NODE")
        .arg(id_at(cluster, to))
        .exec(&mut source)
        .expect("CLUSTER MIGRATESLOTS");
    for _ in 0..3000 {
        // The latest one comes first.
        let all: Vec<Value> = redis::cmd("CLUSTER")
            .arg("GETSLOTMIGRATIONS")
            .query(&mut source)
            .expect("CLUSTER GETSLOTMIGRATIONS");
        let latest = format!("{:?}", all.first());
        assert!(!latest.contains("failed"), "{latest}");
        if latest.contains("success") {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("the slots did not move");
}

#[test]
fn a_reshard_by_the_servers_tool_costs_nothing() {
    for version in [Version::Redis70, Version::Valkey91] {
        let [moved, asked, asking] = costs_nothing(version, reshard);
        assert!(moved > 0, "{version}: no slot was elsewhere");
        assert!(asked > 0 && asking > 0, "{version}: no slot was on its way");
    }
}

#[test]
fn slots_that_valkey_moves_at_once_cost_nothing() {
    let [moved, ..] = costs_nothing(Version::Valkey91, migrate_slots);
    assert!(moved > 0, "no slot was elsewhere");
}

/// Imports while `shift` moves the slots that all keys belong to. Returns how many answers were
/// MOVED, how many were ASK, and how many ASKING there were.
fn costs_nothing(version: Version, shift: Shift) -> [u64; 3] {
    let Some(version) = require(version) else {
        return [1; 3];
    };
    let server = crowded(version);
    let archive = run(&["export", &server.url()], b"").success().stdout;
    let cluster = TestCluster::start(version, 3, 0);
    let [mut moved, mut asked, mut asking] = [0; 3];
    for round in 0..fault_runs() {
        flush(&mut cluster.client());
        wait_until_agreed(&cluster);
        for node in &cluster.nodes {
            let reset = redis::cmd("CONFIG")
                .arg("RESETSTAT")
                .exec(&mut node.client());
            reset.expect("CONFIG RESETSTAT");
        }
        let (from, to) = if round % 2 == 0 { (0, 1) } else { (1, 0) };
        let policy = ["fail", "skip", "replace"][round as usize % 3];
        let output = import(&cluster, &archive, round, policy, || {
            shift(&cluster, from, to);
        });
        output.success();
        for node in &cluster.nodes {
            let mut client = node.client();
            moved += errors(&mut client, "MOVED");
            asked += errors(&mut client, "ASK");
            asking += calls(&mut client, "asking");
        }
        let (mut plain, mut client) = (server.client(), cluster.client());
        let (plain, client) = (Side::new(&mut plain), Side::cluster(&mut client));
        assert_same(plain, client, &Options::default());
    }
    eprintln!("{version}: {moved} MOVED, {asked} ASK, {asking} ASKING");
    [moved, asked, asking]
}

/// The same while the cluster is read, and written to.
#[test]
fn a_reshard_by_the_servers_tool_loses_nothing() {
    for version in [Version::Redis70, Version::Valkey91] {
        loses_nothing(version, reshard);
    }
}

#[test]
fn slots_that_valkey_moves_at_once_lose_nothing() {
    loses_nothing(Version::Valkey91, migrate_slots);
}

fn loses_nothing(version: Version, shift: Shift) {
    let Some(version) = require(version) else {
        return;
    };
    let cluster = TestCluster::start(version, 3, 0);
    fill(&cluster, 20_000);
    for round in 0..fault_runs() {
        wait_until_agreed(&cluster);
        let how = ["auto", "converge", "pause", "scan"][round as usize % 4];
        let from = round as usize % 3;
        let more = ["--consistency", how];
        under_fault(&cluster, version, round, false, &more, |_| {
            shift(&cluster, from, (from + 1) % 3);
        });
    }
}
