//! A cluster as a source.

use std::time::Duration;

use super::fault_runs;
use super::moves::{holder, move_slot};
use super::place::{Place, assert_same, dbsize, export, fill, imported, with_every_type};
use super::writer::{GROUPS, Writer, assert_exact, assert_kept, delete_written, marker, take};
use crate::support::cluster::{TestCluster, node_id, slot_of};
use crate::support::proxy::Proxy;
use crate::support::random::Random;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, Tool};

/// Slots of a cluster.
const SLOTS: u64 = 16_384;

fn versions() -> Vec<Version> {
    chosen(&[Version::Redis70, Version::Valkey91])
}

/// The versions that CLUSTER_VERSIONS names, or these.
fn chosen(usual: &[Version]) -> Vec<Version> {
    let names = std::env::var("CLUSTER_VERSIONS").unwrap_or_default();
    let chosen = |version: &Version| match names.as_str() {
        "" => usual.contains(version),
        _ => names.contains(version.name()),
    };
    let all = Version::MATRIX.into_iter().filter(chosen);
    all.filter_map(require).collect()
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
            let reached = out.summary()["source"]["consistency"].to_string();
            assert!(reached.contains(wanted), "{version} {how}: {reached}");
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
            vec!["export", &from, "-o", "-", "--shard", "1/16385"],
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
                let reached = out.summary()["source"]["consistency"].to_string();
                assert!(reached.contains("\"exact\""), "{version}: {reached}");
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

/// Processes that read a cluster in shares see it at different times.
#[test]
fn a_slot_that_moves_between_two_shares_is_read_by_one_of_them() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let cluster = TestCluster::start(version, 2, 0);
    fill(&cluster, 300);
    let place = Place::new();
    let of_second = |key: &String| slot_of(key.as_bytes()) >= 8_192;
    let moving = (0..300).map(|n| format!("key:{n}")).find(of_second);
    let slot = slot_of(moving.expect("a key of the second half").as_bytes());
    let mut files = Vec::new();
    let mut keys = 0;
    for share in ["1/2", "2/2"] {
        let file = place.file(&share.replace('/', "-"));
        let out = export(&cluster.url(), &file, &["--shard", share]).success();
        keys += written(&out);
        files.push(file);
        if share == "1/2" {
            move_slot(&cluster, slot, 1, 0, || {});
        }
    }
    assert_eq!(keys, 300, "everything once");
    let server = imported(version, &files);
    assert_same(&cluster, &mut server.client(), version);
}

/// The keys that an export wrote, as its summary has it.
fn written(out: &Output) -> u64 {
    let summary = out.summary();
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

/// Exports while `fault` strikes, and compares with what the cluster holds afterwards and with what
/// the writer did. Also if exactness was missed nothing may be lost.
pub fn under_fault(
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
    assert_kept(cluster, &log);
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
    delete_written(cluster);
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

/// A slot that stays on its way: part of its keys are here, part of them there. There are versions
/// whose nodes die if they are asked for such a key in the wrong way.
#[test]
fn a_slot_that_does_not_arrive_is_read_on_both_sides() {
    for version in chosen(&Version::MATRIX) {
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

/// The cluster has not noticed yet, and names a node that is gone.
#[test]
fn a_primary_that_died_before_the_run_is_waited_for() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let mut cluster = TestCluster::start_with(version, 3, 1, |_, builder| {
        builder.option("--cluster-node-timeout", "2000")
    });
    fill(&cluster, 3000);
    // The port stays with nobody: whoever compares finds no node there. Nor does a node of another test
    // get that of the bus: the others would take it for this one under another id, and forget the address.
    let mut dying = std::mem::replace(&mut cluster.nodes[1], TestServer::start(version));
    dying.kill();
    let _bus = std::net::TcpListener::bind(("127.0.0.1", dying.port() + 10_000));
    let place = Place::new();
    let file = place.file("all.rmz");
    let out = Tool::new(&["export", &cluster.url(), "-o", &file])
        .args(&["--consistency", "converge"])
        .run()
        .success();
    assert!(out.stderr.contains("exact as of"), "{}", out.stderr);
    let server = imported(version, &[file]);
    assert_same(&cluster, &mut server.client(), version);

    // Nobody can take the place of one without replicas, and nobody is waited for.
    let mut alone = TestCluster::start(version, 3, 0);
    let mut dying = std::mem::replace(&mut alone.nodes[1], TestServer::start(version));
    dying.kill();
    export(&alone.url(), &place.file("none.rmz"), &[]).expect_code(12);
}

/// All versions at once, because most of it is waiting for nodes to notice.
#[test]
fn a_primary_that_dies_loses_nothing() {
    std::thread::scope(|scope| {
        for version in versions() {
            scope.spawn(move || primaries_that_die(version));
        }
    });
}

fn primaries_that_die(version: Version) {
    for run in 0..fault_runs() {
        let mut cluster = TestCluster::start(version, 3, 1);
        fill(&cluster, 20_000);
        let how = ["converge", "pause", "auto"][usize::try_from(run).unwrap_or(0) % 3];
        // Which one is killed must not be borrowed by what compares.
        let pid = cluster.nodes[1 + usize::try_from(run).unwrap_or(0) % 2].pid();
        let more = ["--consistency", how];
        under_fault(&cluster, version, run, true, &more, |_| {
            let killed = std::process::Command::new("kill")
                .args(["-9", &pid.to_string()])
                .status();
            assert!(killed.expect("kill runs").success());
        });
        for node in &mut cluster.nodes {
            node.is_running();
        }
    }
}
