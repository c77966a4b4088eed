//! `--follow`: changes go on being sent until there are none, or until somebody says so.

use std::time::{Duration, Instant};

use crate::run::{Scene, reached, said};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Tool, pipe};
use crate::writer::{Plan, Writer};

fn after(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// Waits until a key of the server reads so; long enough for the slowest machine.
#[track_caller]
fn wait_for(server: &TestServer, db: u32, key: &str, value: Option<&str>) {
    let began = Instant::now();
    let mut client = server.client_db(db);
    loop {
        let now: Option<String> = redis::cmd("GET").arg(key).query(&mut client).unwrap();
        if now.as_deref() == value {
            return;
        }
        let waited = began.elapsed();
        assert!(waited < Duration::from_secs(15), "{key} is {now:?}");
        after(20);
    }
}

#[test]
fn a_pipe_follows_until_nothing_changes() {
    for version in [Version::Redis60, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        let scene = Scene::new(version);
        let writer = Writer::start(&scene.source, Plan::default());
        let (from, to) = (scene.source.url(), scene.destination.url());
        let piped = std::thread::spawn(move || {
            pipe(
                &["export", "--follow", "--until-idle", "1s", &from],
                &["import", "--json", &to],
            )
        });
        after(2500);
        drop(writer.finish());
        let (export, import) = piped.join().expect("both end");
        export.success();
        import.success();
        scene.assert_same(&format!("{version} followed"));
    }
}

#[test]
fn a_copy_follows_for_a_time_and_ends_exact() {
    for (version, how) in [(Version::Redis70, "pause"), (Version::Valkey81, "converge")] {
        let Some(version) = require(version) else {
            continue;
        };
        let scene = Scene::new(version);
        let writer = Writer::start(&scene.source, Plan::default());
        let (from, to) = (scene.source.url(), scene.destination.url());
        let output = Tool::new(&["copy", "--json", "--follow", "--for", "3s"])
            .arg("--consistency")
            .arg(how)
            .arg(&from)
            .arg(&to)
            .run();
        let log = writer.finish();
        let output = output.success();
        assert_eq!(reached(&output), "exact", "{how}");
        assert!(output.elapsed >= Duration::from_secs(3), "{how}");
        scene.assert_exact(&log, &format!("{version} {how} followed"));
    }
}

#[test]
fn an_interrupt_ends_the_following_and_completes_the_archive() {
    for (version, how) in [(Version::Redis80, "pause"), (Version::Redis60, "converge")] {
        let Some(version) = require(version) else {
            continue;
        };
        let scene = Scene::new(version);
        let writer = Writer::start(&scene.source, Plan::default());
        let mut tool = scene.export(&["--follow", "--consistency", how]).spawn();
        after(1500);
        tool.signal("INT");
        let output = tool.wait();
        let log = writer.finish();
        let output = output.success();
        assert_eq!(reached(&output), "exact", "{how}");
        assert_eq!(scene.inspected(), "exact", "{how}");
        scene.import();
        scene.assert_exact(&log, &format!("{version} {how} interrupted"));
    }
}

#[test]
fn changes_arrive_while_following() {
    let Some(version) = require(Version::Redis80) else {
        return;
    };
    let scene = Scene::new(version);
    let (from, to) = (scene.source.url(), scene.destination.url());
    let mut producer = Tool::new(&["export", "--follow", &from])
        .stdout_piped()
        .spawn();
    let consumer = Tool::new(&["import", "--json", &to])
        .stdin_from(producer.stdout())
        .spawn();
    let (source, destination) = (&scene.source, &scene.destination);
    let run = |db: u32, parts: &[&str]| {
        redis::cmd(parts[0])
            .arg(&parts[1..])
            .exec(&mut source.client_db(db))
            .unwrap();
    };
    run(0, &["SET", "first", "1"]);
    wait_for(destination, 0, "first", Some("1"));
    run(0, &["SET", "first", "2"]);
    wait_for(destination, 0, "first", Some("2"));
    run(0, &["DEL", "first"]);
    wait_for(destination, 0, "first", None);
    // A database that had no keys.
    run(8, &["SET", "there", "1"]);
    wait_for(destination, 8, "there", Some("1"));
    // What begins the scan anew does not end the following.
    for round in 0..5 {
        run(0, &["FLUSHALL"]);
        let value = round.to_string();
        run(0, &["SET", "again", &value]);
        wait_for(destination, 0, "again", Some(&value));
        wait_for(destination, 8, "there", None);
        run(8, &["SET", "there", "2"]);
        wait_for(destination, 8, "there", Some("2"));
    }
    producer.signal("INT");
    let output = producer.wait().success();
    assert!(said(&output, "begins anew"), "{}", output.stderr);
    consumer.wait().success();
    scene.assert_same("followed");
}
