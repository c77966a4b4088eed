//! `--follow`: changes go on being sent until there are none, or until somebody says so.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis_migrate_format::{Limits, Reader, Record};
use serde_json::Value as Json;

use crate::converge::run::{Scene, reached, said, summary};
use crate::converge::writer::{Plan, Writer};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, Tool, pipe};

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
    assert!(said(&output, "starts again"), "{}", output.stderr);
    consumer.wait().success();
    scene.assert_same("followed");
}

/// The progress events of a run with `--json`.
fn progress(output: &Output) -> Vec<Json> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let lines = stdout.lines().chain(output.stderr.lines());
    lines
        .filter(|line| line.contains("\"event\":\"progress\""))
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[test]
fn how_far_behind_it_is_is_said() {
    let Some(version) = require(Version::Valkey81) else {
        return;
    };
    let scene = Scene::new(version);
    let (from, to) = (scene.source.url(), scene.destination.url());
    let writer = Writer::start(&scene.source, Plan::default());
    let tool = |form: &str| {
        Tool::new(&["copy", "--follow", &from, &to])
            .arg("--on-conflict=replace")
            .arg(form)
            .spawn()
    };
    let mut json = tool("--json");
    let mut log = tool("--progress=log");
    after(3500);
    drop(writer.finish());
    // Somebody who has nothing to read any more says so, too.
    after(11_000);
    json.signal("INT");
    log.signal("INT");
    let (json, log) = (json.wait().success(), log.wait().success());
    let events = progress(&json);
    let following = |event: &&Json| event["following"] == true;
    let behind = |event: &&Json| event["waiting_keys"].as_u64() > Some(0);
    let first = events.iter().find(following).expect("it follows");
    assert!(
        first["fraction"].is_null() && first["lag_ms"].is_u64(),
        "{first}"
    );
    let busy = events.iter().filter(following).find(behind);
    let busy = busy.unwrap_or_else(|| panic!("never behind: {events:?}"));
    assert!(busy["lag_ms"].is_u64(), "{busy}");
    let last = events.iter().rfind(following).expect("it follows");
    assert_eq!(
        (&last["waiting_keys"], &last["lag_ms"]),
        (&0.into(), &0.into())
    );
    assert!(said(&log, "following, up to date"), "{}", log.stderr);
}

#[test]
fn only_what_lives_can_be_followed() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let scene = Scene::new(version);
    let url = scene.source.url();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/rdb/sample.rdb");
    for arguments in [
        &[&url, "--follow", "--via=replica"][..],
        &[file, "--follow"],
        &[&url, "--follow", "--consistency=scan"],
        &[&url, "--follow", "--dry-run"],
        &[&url, "--until-idle=1s"],
        &[&url, "--for=1s"],
    ] {
        let output = Tool::new(&[&["export"], arguments].concat()).run();
        assert_eq!(output.code(), Some(2), "{arguments:?} {}", output.stderr);
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    let copy = [
        "copy",
        &url,
        &scene.destination.url(),
        "--follow",
        "--via=replica",
    ];
    Tool::new(&copy).run().expect_code(2);
}

/// A pipe is read as it is written: what changes comes without anything behind it that would push
/// it on.
#[test]
fn a_pipe_is_flushed_while_following() {
    let Some(version) = require(Version::Redis60) else {
        return;
    };
    let scene = Scene::new(version);
    let url = scene.source.url();
    let mut tool = Tool::new(&["export", "--json", "--follow", &url])
        .stdout_piped()
        .spawn();
    let stdout = tool.stdout();
    let (sender, names) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut reader = Reader::new(stdout, Limits::default()).expect("an archive");
        while let Some(frame) = reader.next_frame().expect("whole frames") {
            for record in frame.records {
                if let Record::Key(record) = record
                    && record.key.starts_with(b"flushed:")
                {
                    sender.send(record.key).expect("the test listens");
                }
            }
        }
    });
    let mut client = scene.source.client();
    let mut longest = Duration::ZERO;
    for number in 0..5 {
        let name = format!("flushed:{number}");
        redis::cmd("SET")
            .arg(&name)
            .arg(1)
            .exec(&mut client)
            .unwrap();
        let began = Instant::now();
        let found = names.recv_timeout(Duration::from_secs(30));
        assert_eq!(found.as_deref(), Ok(name.as_bytes()));
        if number > 0 {
            longest = longest.max(began.elapsed());
        }
    }
    println!("a change was in the pipe after {longest:?} at the longest");
    tool.signal("INT");
    tool.wait().success();
    reader.join().expect("the archive ends with a trailer");
}

/// Writes some keys again and again, and makes others that go away again.
fn restless(server: &TestServer, stop: &AtomicBool) {
    let mut client = server.client();
    let mut turn = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let mut all = redis::pipe();
        all.cmd("SET").arg(format!("hot:{}", turn % 20)).arg(turn);
        all.cmd("SET").arg(format!("short:{turn}")).arg("1");
        // Some of them were read by then, and some come back.
        all.cmd("DEL")
            .arg(format!("short:{}", turn.saturating_sub(150)));
        all.cmd("SET")
            .arg(format!("short:{}", turn.saturating_sub(400) / 2))
            .arg("2");
        all.exec(&mut client).expect("the server answers");
        turn += 1;
        after(2);
    }
}

fn size(server: &TestServer) -> u64 {
    let size = redis::cmd("DBSIZE").query(&mut server.client());
    size.expect("DBSIZE")
}

/// The keys and the records of the summary.
fn keys_and_records(output: &Output) -> (u64, u64) {
    let sink = &summary(output)["sink"];
    let number = |name: &str| sink[name].as_u64().expect(name);
    (number("keys"), number("records"))
}

#[test]
fn the_headline_counts_each_key_once() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    for policy in ["fail", "replace", "skip"] {
        let scene = Scene {
            source: TestServer::start(version),
            destination: TestServer::start(version),
            directory: tempfile::tempdir().expect("a directory"),
        };
        let mut pipe = redis::pipe();
        for at in 0..3000 {
            pipe.cmd("SET").arg(format!("s:{at}")).arg("v");
        }
        pipe.exec(&mut scene.source.client()).expect("SET");
        let stop = AtomicBool::new(false);
        let (from, to) = (scene.source.url(), scene.destination.url());
        let (copied, exported) = std::thread::scope(|scope| {
            scope.spawn(|| restless(&scene.source, &stop));
            let copied = Tool::new(&["copy", "--json", "--follow", "--for", "2s"])
                .args(&["--on-conflict", policy, &from, &to])
                .run();
            let exported = scene
                .export(&["--follow", "--for", "2s", "--consistency", "converge"])
                .run();
            stop.store(true, Ordering::Relaxed);
            (copied.success(), exported.success())
        });
        let (keys, records) = keys_and_records(&copied);
        assert_eq!(keys, size(&scene.destination), "copy {policy}");
        assert!(records > keys + 20, "{records} records of {keys} keys");
        let (keys, records) = keys_and_records(&exported);
        assert!(records > keys + 20, "{records} records of {keys} keys");
        redis::cmd("FLUSHALL")
            .exec(&mut scene.destination.client())
            .expect("FLUSHALL");
        for (at, more) in [["--dry-run"].as_slice(), &[]].into_iter().enumerate() {
            let imported = Tool::new(&["import", "--json", "--on-conflict", policy, &to])
                .args(more)
                .stdin_file(&scene.archive())
                .run()
                .success();
            assert_eq!(keys_and_records(&imported).0, keys, "import {policy}");
            let there = if at == 0 { 0 } else { keys };
            assert_eq!(size(&scene.destination), there, "import {policy}");
        }
    }
}
