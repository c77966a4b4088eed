//! The source changes its role in the middle: what was its replica becomes the primary, and it
//! becomes the replica of that.
//!
//! Not with Redis 7.0 where writes are lost: its replicas do not learn the `entries-read` of groups,
//! which the replay of a log has.

use std::time::{Duration, Instant};

use crate::converge::run::{Scene, far_away, reached, said, wait_for_listener};
use crate::converge::writer::{Log, MILD, Writer};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::Tool;

fn after(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

fn info(server: &TestServer, name: &str) -> Option<String> {
    let text: String = redis::cmd("INFO")
        .arg("replication")
        .query(&mut server.client())
        .expect("INFO");
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.find_map(|(field, value)| (field == name).then(|| value.trim().to_owned()))
}

#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60), "never {what}");
        after(20);
    }
}

/// `replica` follows `primary` from now on, and has all of it.
fn replicate(replica: &TestServer, primary: &TestServer) {
    redis::cmd("REPLICAOF")
        .arg(&["127.0.0.1", &primary.port().to_string()])
        .exec(&mut replica.client())
        .expect("REPLICAOF");
    wait_until("in step", || {
        info(replica, "master_link_status").as_deref() == Some("up")
    });
}

fn promote(replica: &TestServer) {
    redis::cmd("REPLICAOF")
        .arg(&["NO", "ONE"])
        .exec(&mut replica.client())
        .expect("REPLICAOF NO ONE");
}

fn sequence(server: &TestServer) -> u64 {
    let sequence: Option<u64> = redis::cmd("GET")
        .arg("seq")
        .query(&mut server.client())
        .expect("GET seq");
    sequence.unwrap_or(0)
}

fn replica_of(scene: &Scene) -> TestServer {
    let replica = TestServer::builder(scene.source.version())
        .option("--repl-diskless-sync-delay", "0")
        .start();
    replicate(&replica, &scene.source);
    replica
}

/// What was written before the old primary stepped down, and what was written to the new one.
fn joined(old: Log, until: u64, new: Log) -> Log {
    let mut log = old;
    log.ops.retain(|(sequence, _)| *sequence <= until);
    log.add(new.ops);
    log
}

/// Fails over while the tool reads the old primary. `orderly`: nothing is written while the roles
/// change; else what is written to the old primary meanwhile is lost, as it is in such a case.
fn fail_over(scene: &Scene, replica: &TestServer, writer: Writer, orderly: bool) -> (Writer, Log) {
    let old = match orderly {
        true => {
            let log = writer.finish();
            let last = sequence(&scene.source);
            wait_until("in step", || sequence(replica) == last);
            promote(replica);
            log
        }
        false => {
            promote(replica);
            after(100);
            writer.finish()
        }
    };
    let until = sequence(replica);
    let new = Writer::start(replica, MILD);
    if !orderly {
        assert!(sequence(&scene.source) > until, "nothing is lost");
        after(100);
    }
    replicate(&scene.source, replica);
    (
        new,
        joined(
            old,
            until,
            Log {
                ops: Vec::new(),
                per_second: 0.0,
            },
        ),
    )
}

fn export(version: Version, how: &str, orderly: bool) {
    let scene = Scene::new(version);
    let replica = replica_of(&scene);
    let writer = Writer::start(&scene.source, MILD);
    let proxy = far_away(&scene.source);
    let how_asked = format!("--consistency={how}");
    let tool = scene.export_through(&proxy, &[&how_asked]).spawn();
    wait_for_listener(&scene.source);
    after(200);
    let (writer, old) = fail_over(&scene, &replica, writer, orderly);
    let output = tool.wait();
    let new = writer.finish();
    let log = joined(old, u64::MAX, new);
    let output = output.success();
    let what = format!("{version} {how}, orderly: {orderly}");
    assert!(said(&output, "starts again"), "{what}: {}", output.stderr);
    assert_eq!(reached(&output), "exact", "{what}");
    assert_eq!(scene.inspected(), "exact", "{what}");
    scene.import();
    scene.assert_exact(&log, &what);
}

#[test]
fn an_orderly_failover_under_an_export_begins_anew() {
    for (version, how) in [(Version::Redis60, "converge"), (Version::Valkey91, "pause")] {
        if let Some(version) = require(version) {
            export(version, how, true);
        }
    }
}

#[test]
fn a_failover_that_loses_writes_begins_anew() {
    for (version, how) in [(Version::Redis80, "pause"), (Version::Valkey81, "converge")] {
        if let Some(version) = require(version) {
            export(version, how, false);
        }
    }
}

#[test]
fn a_copy_that_follows_survives_a_failover() {
    for (version, how, orderly) in [
        (Version::Redis80, "converge", true),
        (Version::Valkey91, "pause", false),
    ] {
        let Some(version) = require(version) else {
            continue;
        };
        let scene = Scene::new(version);
        let replica = replica_of(&scene);
        let writer = Writer::start(&scene.source, MILD);
        let (from, to) = (scene.source.url(), scene.destination.url());
        let mut tool = Tool::new(&["copy", "--json", "--follow", &from, &to])
            .arg(format!("--consistency={how}"))
            .spawn();
        after(1500);
        let (writer, old) = fail_over(&scene, &replica, writer, orderly);
        after(1500);
        tool.signal("INT");
        let output = tool.wait();
        let log = joined(old, u64::MAX, writer.finish());
        let output = output.success();
        let what = format!("{version} {how} followed, orderly: {orderly}");
        assert_eq!(reached(&output), "exact", "{what}");
        scene.assert_exact(&log, &what);
    }
}
