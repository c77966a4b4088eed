//! A cluster as a source.

use std::path::PathBuf;
use std::time::Duration;

use redis::Connection;

use super::writer::{GROUPS, PATTERN, Writer, assert_exact, marker, take};
use crate::support::cluster::{TestCluster, node_id};
use crate::support::dataset::fill_every_type;
use crate::support::equality::{self, Options};
use crate::support::proxy::Proxy;
use crate::support::random::Random;
use crate::support::reading::Side;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, Tool};

/// Slots of a cluster.
const SLOTS: u64 = 16_384;

/// How often a fault is tried.
fn fault_runs() -> u64 {
    let runs = std::env::var("FAULT_RUNS").ok();
    runs.map_or(3, |runs| runs.parse().expect("FAULT_RUNS is a number"))
}

fn versions() -> Vec<Version> {
    let names = std::env::var("CLUSTER_VERSIONS").unwrap_or_default();
    let all = [
        Version::Redis60,
        Version::Redis70,
        Version::Redis80,
        Version::Valkey81,
        Version::Valkey91,
    ];
    let chosen: Vec<Version> = match names.as_str() {
        "" => vec![Version::Redis70, Version::Valkey91],
        _ => all
            .into_iter()
            .filter(|version| names.contains(version.name()))
            .collect(),
    };
    chosen.into_iter().filter_map(require).collect()
}

/// Small keys in every slot.
fn fill(cluster: &TestCluster, count: u64) {
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

/// The slot of a key, found by asking nobody.
fn slot_of(key: &[u8]) -> u16 {
    let open = key.iter().position(|&byte| byte == b'{');
    let hashed = match open.map(|open| &key[open + 1..]) {
        Some(rest) => match rest.iter().position(|&byte| byte == b'}') {
            Some(close) if close > 0 => &rest[..close],
            _ => key,
        },
        None => key,
    };
    let mut crc = 0u16;
    for &byte in hashed {
        crc ^= u16::from(byte) << 8;
        for _ in 0..8 {
            crc = match crc & 0x8000 {
                0 => crc << 1,
                _ => (crc << 1) ^ 0x1021,
            };
        }
    }
    crc % 16_384
}

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a directory"),
        }
    }

    fn file(&self, name: &str) -> String {
        let path: PathBuf = self.directory.path().join(name);
        path.to_str().expect("a plain name").to_owned()
    }
}

fn export(url: &str, file: &str, more: &[&str]) -> Output {
    Tool::new(&["export", url, "-o", file, "--json"])
        .args(more)
        .run()
}

/// Imports archives into a new server, one after the other.
fn imported(version: Version, files: &[String]) -> TestServer {
    let server = TestServer::start(version);
    for file in files {
        Tool::new(&["import", &server.url(), file, "--replace"])
            .run()
            .success();
    }
    server
}

#[track_caller]
fn assert_same(cluster: &TestCluster, server: &mut Connection, version: Version) {
    let options = Options {
        ttl_tolerance_ms: (!version.is_at_least_7()).then_some(5000),
        ..Options::default()
    };
    let mut client = cluster.client();
    equality::assert_same(Side::cluster(&mut client), Side::new(server), &options);
}

/// Every type in database 0 of a cluster.
fn with_every_type(cluster: &TestCluster, version: Version) {
    let server = TestServer::start(version);
    fill_every_type(&mut server.client(), version);
    cluster.client().fill_from(&mut server.client());
}

#[test]
fn every_type_travels_out_of_a_cluster() {
    for version in versions() {
        let cluster = TestCluster::start(version, 3, 1);
        with_every_type(&cluster, version);
        fill(&cluster, 3000);
        let place = Place::new();
        let file = place.file("all.rmz");
        for how in ["scan", "auto", "converge", "pause"] {
            // CLIENT PAUSE … WRITE came with 6.2; without it a pause is exit 4.
            if how == "pause" && version == Version::Redis60 {
                continue;
            }
            let more = ["--consistency", how];
            let out = export(&cluster.nodes[4].url(), &file, &more).success();
            let wanted = if how == "scan" {
                "\"scan\""
            } else {
                "\"exact\""
            };
            assert!(
                out.stderr.contains(wanted),
                "{version} {how}: {}",
                out.stderr
            );
            let server = imported(version, std::slice::from_ref(&file));
            assert_same(&cluster, &mut server.client(), version);
        }
        Tool::new(&["verify", &file]).run().success();
        let out = Tool::new(&["inspect", &file]).run().success();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(text.contains("cluster of 3 nodes"), "{text}");
        let server = TestServer::start(version);
        Tool::new(&["copy", &cluster.url(), &server.url()])
            .run()
            .success();
        assert_same(&cluster, &mut server.client(), version);
        let onto_itself = Tool::new(&["copy", &cluster.url(), &cluster.nodes[1].url()]).run();
        assert_ne!(onto_itself.code(), Some(0), "{}", onto_itself.stderr);
    }
}

#[test]
fn what_does_not_go_with_a_cluster_is_refused_before_anything_is_read() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let cluster = TestCluster::start(version, 3, 0);
    let server = TestServer::start(version);
    let (from, to) = (cluster.url(), server.url());
    for (arguments, word) in [
        (
            vec!["export", &from, "-o", "-", "--via", "replica"],
            "--via",
        ),
        (
            vec!["copy", &from, &to, "--delete-source"],
            "--delete-source",
        ),
        (
            vec!["export", &from, "-o", "-", "--node", "nobody:1"],
            "nobody:1",
        ),
        (
            vec!["export", &from, "-o", "-", "--shard", "4/4"],
            "--shard",
        ),
        (vec!["export", &to, "-o", "-", "--shard", "1/2"], "--shard"),
        (
            vec![
                "export",
                &from,
                "-o",
                "-",
                "--consistency",
                "pause",
                "--read-from",
                "replica",
            ],
            "--read-from",
        ),
    ] {
        let out = Tool::new(&arguments).run().expect_code(2);
        assert!(out.stderr.contains(word), "{arguments:?}: {}", out.stderr);
        assert!(out.stdout.is_empty(), "{arguments:?}");
    }
}

/// The groups that lie on the same shard.
fn groups_by_shard(cluster: &TestCluster) -> Vec<Vec<u64>> {
    let client = cluster.client();
    let mut shards = vec![Vec::new(); client.nodes.len()];
    for group in 0..GROUPS {
        shards[client.owners[usize::from(slot_of(&marker(group)))]].push(group);
    }
    shards
}

fn each_group() -> Vec<Vec<u64>> {
    (0..GROUPS).map(|group| vec![group]).collect()
}

#[test]
fn each_shard_is_exact_and_a_pause_makes_one_instant_of_them() {
    for version in versions() {
        let cluster = TestCluster::start(version, 3, 0);
        fill(&cluster, 20_000);
        let shards = groups_by_shard(&cluster);
        assert!(shards.iter().all(|groups| groups.len() > 1), "{shards:?}");
        let place = Place::new();
        let writer = Writer::start(&cluster, false);
        let mut files = Vec::new();
        for round in 0..3 {
            for how in ["auto", "converge", "pause"] {
                // CLIENT PAUSE … WRITE came with 6.2; without it a pause is exit 4.
                if how == "pause" && version == Version::Redis60 {
                    continue;
                }
                let file = place.file(&format!("{how}{round}.rmz"));
                let out = export(&cluster.url(), &file, &["--consistency", how]).success();
                assert!(
                    out.stderr.contains("\"exact\""),
                    "{version}: {}",
                    out.stderr
                );
                files.push((how, file));
            }
        }
        let log = writer.finish();
        for (how, file) in files {
            let server = imported(version, &[file]);
            let held = take(&mut server.client());
            let together = match how {
                "pause" => vec![(0..GROUPS).collect()],
                _ => shards.clone(),
            };
            let instants = assert_exact(&held, &log, &together);
            assert!(instants.iter().all(|number| *number > 0), "{instants:?}");
        }
    }
}

#[test]
fn following_a_cluster_ends_exact() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let cluster = TestCluster::start(version, 3, 0);
    fill(&cluster, 2000);
    let server = TestServer::start(version);
    let writer = Writer::start(&cluster, false);
    let running = Tool::new(&["copy", &cluster.url(), &server.url()])
        .args(&[
            "--follow",
            "--until-idle",
            "1s",
            "--consistency",
            "converge",
        ])
        .spawn();
    std::thread::sleep(Duration::from_millis(1500));
    let client = cluster.client();
    let slot = slot_of(b"key:1");
    let from = client.owners[usize::from(slot)];
    move_slot(&cluster, slot, from, (from + 1) % 3, || {});
    std::thread::sleep(Duration::from_millis(1500));
    writer.finish();
    running.wait().success();
    assert_same(&cluster, &mut server.client(), version);
}

#[test]
fn shards_and_nodes_can_be_read_one_by_one() {
    let Some(version) = require(Version::Valkey91) else {
        return;
    };
    let cluster = TestCluster::start(version, 3, 1);
    with_every_type(&cluster, version);
    fill(&cluster, 3000);
    let place = Place::new();
    let total: u64 = cluster
        .primaries()
        .iter()
        .map(|node| dbsize(&mut node.client()))
        .sum();
    let mut files = Vec::new();
    let mut keys = 0;
    for part in ["1/3", "2/3", "3/3"] {
        let file = place.file(&format!("{}.rmz", &part[..1]));
        let out = export(
            &cluster.url(),
            &file,
            &["--shard", part, "--consistency", "scan"],
        )
        .success();
        keys += written(&out);
        let out = Tool::new(&["inspect", &file]).run().success();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(
            text.contains(&format!("shard {} of 3", &part[..1])),
            "{text}"
        );
        files.push(file);
    }
    assert_eq!(keys, total, "everything once");
    let server = imported(version, &files);
    assert_same(&cluster, &mut server.client(), version);

    let mut keys = 0;
    for node in cluster.primaries() {
        let file = place.file("node.rmz");
        let name = match keys {
            0 => node_id(&mut node.client()),
            _ => format!("127.0.0.1:{}", node.port()),
        };
        let out = export(
            &cluster.url(),
            &file,
            &["--node", &name, "--consistency", "scan"],
        )
        .success();
        assert_eq!(written(&out), dbsize(&mut node.client()));
        keys += written(&out);
    }
    assert_eq!(keys, total);

    let file = place.file("replicas.rmz");
    let calls = |node: &TestServer| -> u64 {
        let text: String = redis::cmd("INFO")
            .arg("commandstats")
            .query(&mut node.client())
            .expect("INFO");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("cmdstat_dump:calls="));
        line.map_or(0, |line| {
            line.split(',')
                .next()
                .expect("a number")
                .parse()
                .expect("a number")
        })
    };
    // A replica is not listed before it is heard of that something was written to it.
    wait_until("the replicas are listed", || {
        cluster.nodes.iter().all(|node| {
            let rows: Vec<Vec<redis::Value>> = redis::cmd("CLUSTER")
                .arg("SLOTS")
                .query(&mut node.client())
                .expect("CLUSTER SLOTS");
            rows.iter().all(|row| row.len() == 4)
        })
    });
    let before: Vec<u64> = cluster.primaries().iter().map(calls).collect();
    export(&cluster.url(), &file, &["--read-from", "replica"]).success();
    assert_eq!(
        before,
        cluster.primaries().iter().map(calls).collect::<Vec<_>>()
    );
    let server = imported(version, &[file]);
    assert_same(&cluster, &mut server.client(), version);
}

fn dbsize(connection: &mut Connection) -> u64 {
    redis::cmd("DBSIZE").query(connection).expect("DBSIZE")
}

/// The keys that an export wrote, as its summary has it.
fn written(out: &Output) -> u64 {
    let line = out.stderr.lines().last().expect("a summary");
    let summary: serde_json::Value = serde_json::from_str(line).expect("JSON");
    summary["source"]["given"].as_u64().expect("a number")
}

#[test]
fn nodes_that_announce_themselves_elsewhere_are_reached() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let cluster = TestCluster::start(version, 3, 0);
    fill(&cluster, 3000);
    let total: u64 = cluster
        .nodes
        .iter()
        .map(|node| dbsize(&mut node.client()))
        .sum();
    let proxies: Vec<Proxy> = cluster
        .nodes
        .iter()
        .map(|node| Proxy::plain(node.addr()))
        .collect();
    let mut map = Vec::new();
    for (number, (node, proxy)) in cluster.nodes.iter().zip(&proxies).enumerate() {
        // Nobody listens there.
        let announced = number + 1;
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg("cluster-announce-port").arg(announced);
        set.exec(&mut node.client()).expect("CONFIG SET");
        map.push("--node-map".to_owned());
        map.push(format!("127.0.0.1:{announced}=127.0.0.1:{}", proxy.port()));
    }
    wait_until("the nodes announce other ports", || {
        cluster.nodes.iter().all(|node| {
            let text: String = redis::cmd("CLUSTER")
                .arg("NODES")
                .query(&mut node.client())
                .expect("NODES");
            (1..=3).all(|port| text.contains(&format!("127.0.0.1:{port}@")))
        })
    });
    let place = Place::new();
    let file = place.file("all.rmz");
    let arguments: Vec<&str> = map.iter().map(String::as_str).collect();
    let out = export(&proxies[0].url(), &file, &arguments).success();
    assert_eq!(written(&out), total);
    let out = export(&proxies[0].url(), &place.file("none.rmz"), &[]).expect_code(12);
    assert!(out.stderr.contains("127.0.0.1:"), "{}", out.stderr);
}

#[track_caller]
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..600 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("waited for a minute: {what}");
}

/// Moves a slot with all its keys, as redis-cli does. `between` is called in the middle.
fn move_slot(cluster: &TestCluster, slot: u16, from: usize, to: usize, between: impl FnOnce()) {
    let (source, target) = (&cluster.nodes[from], &cluster.nodes[to]);
    let (mut at_source, mut at_target) = (source.client(), target.client());
    let (source_id, target_id) = (node_id(&mut at_source), node_id(&mut at_target));
    let set = |client: &mut Connection, state: &str, id: &str| {
        let mut command = redis::cmd("CLUSTER");
        command.arg("SETSLOT").arg(slot).arg(state).arg(id);
        command.exec(client).expect("CLUSTER SETSLOT");
    };
    set(&mut at_target, "IMPORTING", &source_id);
    set(&mut at_source, "MIGRATING", &target_id);
    let mut between = Some(between);
    loop {
        let keys: Vec<Vec<u8>> = redis::cmd("CLUSTER")
            .arg("GETKEYSINSLOT")
            .arg(slot)
            .arg(2)
            .query(&mut at_source)
            .expect("CLUSTER GETKEYSINSLOT");
        if keys.is_empty() {
            break;
        }
        let mut migrate = redis::cmd("MIGRATE");
        migrate
            .arg("127.0.0.1")
            .arg(target.port())
            .arg("")
            .arg(0)
            .arg(5000);
        migrate.arg("KEYS").arg(&keys);
        migrate.exec(&mut at_source).expect("MIGRATE");
        if let Some(between) = between.take() {
            between();
        }
    }
    set(&mut at_target, "NODE", &target_id);
    set(&mut at_source, "NODE", &target_id);
    for node in cluster.primaries() {
        let mut client = node.client();
        let id = node_id(&mut client);
        if id != source_id && id != target_id {
            set(&mut client, "NODE", &target_id);
        }
    }
}

/// Exports while `fault` strikes, and compares with what the cluster holds afterwards and with what
/// the writer did. Also if exactness was missed nothing may be lost.
fn under_fault(
    cluster: &TestCluster,
    version: Version,
    seed: u64,
    wait: bool,
    more: &[&str],
    fault: impl FnOnce(&mut Random),
) {
    let mut random = Random::new(seed);
    let place = Place::new();
    let file = place.file("fault.rmz");
    let writer = Writer::start(cluster, wait);
    std::thread::sleep(Duration::from_millis(100));
    let running = Tool::new(&["export", &cluster.url(), "-o", &file, "--scan-count", "20"])
        .args(more)
        .spawn();
    std::thread::sleep(Duration::from_millis(random.below(400)));
    fault(&mut random);
    let out = running.wait();
    let log = writer.finish();
    let code = out.code();
    assert!(
        code == Some(0) || code == Some(4),
        "{code:?}: {}",
        out.stderr
    );
    let server = imported(version, &[file]);
    let held = take(&mut server.client());
    if out.stderr.contains("exact as of") {
        assert_exact(&held, &log, &each_group());
    } else {
        eprintln!("not exact: {}", out.stderr);
    }
    let mut client = cluster.client();
    for node in &mut client.nodes {
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg(PATTERN).query(node).expect("KEYS");
        for key in keys {
            redis::cmd("DEL").arg(key).exec(node).expect("DEL");
        }
    }
    assert_same(cluster, &mut server.client(), version);
}

#[test]
fn slots_that_move_lose_nothing() {
    for version in versions() {
        let cluster = TestCluster::start(version, 3, 0);
        fill(&cluster, 20_000);
        for run in 0..fault_runs() {
            let how = ["auto", "converge", "pause", "scan"][usize::try_from(run).unwrap_or(0) % 4];
            under_fault(
                &cluster,
                version,
                run,
                false,
                &["--consistency", how],
                |random| {
                    for at in 0..6 {
                        // Half of them have keys that are written all the time.
                        let slot = match at % 2 {
                            0 => slot_of(&marker(random.below(GROUPS))),
                            _ => u16::try_from(random.below(SLOTS)).expect("a slot"),
                        };
                        let from = holder(&cluster, slot);
                        let to = (from + 1 + usize::from(random.chance(50))) % 3;
                        let pause = Duration::from_millis(random.below(50));
                        move_slot(&cluster, slot, from, to, || std::thread::sleep(pause));
                    }
                },
            );
        }
    }
}

/// The primary that holds a slot, as it says itself.
fn holder(cluster: &TestCluster, slot: u16) -> usize {
    let holds = |node: &TestServer| -> bool {
        let client = &mut node.client();
        let found: redis::RedisResult<i64> = redis::cmd("EXISTS")
            .arg(format!("{{{}}}", tag_for(slot)))
            .query(client);
        found.is_ok()
    };
    let nodes = cluster.primaries();
    nodes
        .iter()
        .position(holds)
        .expect("somebody holds the slot")
}

fn tag_for(slot: u16) -> u64 {
    (0..)
        .find(|number: &u64| slot_of(number.to_string().as_bytes()) == slot)
        .expect("a tag")
}

/// A slot that stays on its way: part of its keys are here, part of them there.
#[test]
fn a_slot_that_does_not_arrive_is_read_on_both_sides() {
    for version in versions() {
        let cluster = TestCluster::start(version, 3, 0);
        fill(&cluster, 3000);
        let slot = slot_of(b"{here}");
        let from = holder(&cluster, slot);
        let to = (from + 1) % 3;
        let mut at_source = cluster.nodes[from].client();
        for i in 0..40 {
            redis::cmd("SET")
                .arg(format!("{{here}}{i}"))
                .arg(i)
                .exec(&mut at_source)
                .expect("SET");
        }
        let place = Place::new();
        let total: u64 = cluster
            .nodes
            .iter()
            .map(|node| dbsize(&mut node.client()))
            .sum();
        move_slot(&cluster, slot, from, to, || {
            for (how, code) in [("scan", 0), ("auto", 0), ("converge", 4)] {
                let file = place.file(how);
                export(
                    &cluster.url(),
                    &file,
                    &["--consistency", how, "--max-wait", "1s"],
                )
                .expect_code(code);
                let server = imported(version, &[file]);
                assert_eq!(dbsize(&mut server.client()), total, "{version} {how}");
            }
        });
    }
}

#[test]
fn a_failover_loses_nothing() {
    for version in versions() {
        let cluster = TestCluster::start(version, 3, 1);
        fill(&cluster, 20_000);
        for run in 0..fault_runs() {
            let how = ["converge", "pause", "auto"][usize::try_from(run).unwrap_or(0) % 3];
            under_fault(
                &cluster,
                version,
                run,
                true,
                &["--consistency", how],
                |_| {
                    let replica = cluster.nodes.iter().find(|node| {
                        let text: String = redis::cmd("INFO")
                            .arg("replication")
                            .query(&mut node.client())
                            .expect("INFO");
                        text.contains("role:slave") && text.contains("master_link_status:up")
                    });
                    let replica = replica.expect("a replica");
                    redis::cmd("CLUSTER")
                        .arg("FAILOVER")
                        .exec(&mut replica.client())
                        .expect("CLUSTER FAILOVER");
                },
            );
        }
    }
}

#[test]
fn a_primary_that_dies_loses_nothing() {
    for version in versions() {
        for run in 0..fault_runs() {
            let mut cluster = TestCluster::start(version, 3, 1);
            fill(&cluster, 20_000);
            let how = ["converge", "pause", "auto"][usize::try_from(run).unwrap_or(0) % 3];
            // Which one is killed must not be borrowed by what compares.
            let pid = cluster.nodes[1 + usize::try_from(run).unwrap_or(0) % 2].pid();
            under_fault(
                &cluster,
                version,
                run,
                true,
                &["--consistency", how],
                |_| {
                    let killed = std::process::Command::new("kill")
                        .args(["-9", &pid.to_string()])
                        .status();
                    assert!(killed.expect("kill runs").success());
                },
            );
            for node in &mut cluster.nodes {
                node.is_running();
            }
        }
    }
}
