//! Keys that cannot be read, or not any more, while the source is written to: none of them stands
//! with a value that is no longer its own, and each is named.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::converge::run::{reached, summary};
use crate::support::answers::Answer;
use crate::support::resp_proxy::{RespProxy, Rule};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, Running, Tool};
use crate::support::toy::{Deed, Toy};

/// More than 1 MB, also as DUMP compresses it.
fn large() -> String {
    let mut state = 88_172_645_463_325_252u64;
    let mut text = String::new();
    while text.len() < 4 * 1024 * 1024 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text += &format!("{state:016x}");
    }
    text
}

fn run(server: &TestServer, db: u32, parts: &[&str]) {
    redis::cmd(parts[0])
        .arg(&parts[1..])
        .exec(&mut server.client_db(db))
        .expect("the server takes it");
}

fn get(server: &TestServer, db: u32, key: &str) -> Option<String> {
    let mut client = server.client_db(db);
    redis::cmd("GET").arg(key).query(&mut client).expect("GET")
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// How often the server carried out DUMP.
fn dumps(server: &TestServer) -> u64 {
    let text: String = redis::cmd("INFO")
        .arg("commandstats")
        .query(&mut server.client())
        .expect("INFO");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_dump:calls="));
    let digits = line.and_then(|rest| rest.split(',').next());
    digits.map_or(0, |digits| digits.parse().expect("a number"))
}

/// An export of a source that is changed when the first values were read there and are not yet here.
struct Scene {
    source: TestServer,
    destination: TestServer,
    proxy: RespProxy,
    directory: tempfile::TempDir,
}

impl Scene {
    fn new(version: Version) -> Self {
        let source = TestServer::start(version);
        let proxy = RespProxy::start(source.addr());
        Self {
            source,
            destination: TestServer::start(version),
            proxy,
            directory: tempfile::tempdir().expect("a directory"),
        }
    }

    fn archive(&self) -> std::path::PathBuf {
        self.directory.path().join("a.rmz")
    }

    /// Exports with `--max-value 1mb`; `change` is carried out when `before` values were read there,
    /// of which the last does not come here before that.
    fn export(&self, before: u32, change: impl FnOnce()) -> Output {
        self.proxy.begin(vec![Rule {
            command: "MULTI:DUMP".to_owned(),
            from: before,
            times: 1,
            answer: Answer::Late,
            executed: true,
            in_exec: false,
            delay: Duration::from_secs(2),
        }]);
        let known = dumps(&self.source);
        let tool = Tool::new(&["export", "--json", "--consistency=converge"])
            .arg("--max-value=1mb")
            .arg(self.proxy.url())
            .arg("-o")
            .arg(self.archive())
            .spawn();
        // What is asked before the scan is no read of a value, and what was sent may not be there yet.
        wait_until("nothing is read", || {
            let seen = self.proxy.seen();
            let of = |name| seen.get(name).copied().unwrap_or(0);
            let (read, sent) = (of("MULTI:DUMP"), of("MULTI:DUMP") + of("DUMP"));
            read >= before && dumps(&self.source) >= known + u64::from(sent)
        });
        change();
        tool.wait()
    }

    fn import(&self) {
        Tool::new(&["import", "--json", &self.destination.url()])
            .stdin_file(&self.archive())
            .run()
            .success();
    }
}

/// The names of the keys that were said to have failed, with their databases.
fn failed(output: &Output) -> Vec<(u64, String)> {
    let lines = output.stderr.lines().filter_map(|line| {
        let json: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_failure = json["event"] == "key_failed";
        is_failure.then(|| {
            let key = json["key"].as_str().expect("a key").to_owned();
            (json["db"].as_u64().expect("a database"), key)
        })
    });
    lines.collect()
}

#[track_caller]
fn assert_failed(output: &Output, keys: &[(u64, &str)]) {
    let expected: Vec<(u64, String)> = keys
        .iter()
        .map(|(db, key)| (*db, (*key).to_owned()))
        .collect();
    assert_eq!(failed(output), expected, "{}", output.stderr);
    assert_eq!(
        summary(output)["source"]["failed"],
        keys.len(),
        "{}",
        output.stderr
    );
    assert_eq!(reached(output), "exact");
}

#[test]
fn a_key_that_fails_in_one_database_is_kept_current_in_the_others() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let scene = Scene::new(version);
    let large = large();
    for key in ["changed", "deleted"] {
        run(&scene.source, 0, &["SET", key, "old"]);
        run(&scene.source, 1, &["SET", key, &large]);
    }
    let output = scene.export(2, || {
        run(&scene.source, 0, &["SET", "changed", "new"]);
        run(&scene.source, 0, &["DEL", "deleted"]);
    });
    let output = output.expect_code(3);
    let mut keys = failed(&output);
    keys.sort();
    assert_eq!(keys, [(1, "changed".to_owned()), (1, "deleted".to_owned())]);
    assert_eq!(reached(&output), "exact");
    scene.import();
    assert_eq!(
        get(&scene.destination, 0, "changed").as_deref(),
        Some("new")
    );
    assert_eq!(get(&scene.destination, 0, "deleted"), None);
}

/// So many other keys change that the last round has to wait for a round before it.
fn change_many(server: &TestServer) {
    for number in 0..80 {
        run(server, 0, &["SET", &format!("other:{number}"), "new"]);
    }
}

#[test]
fn a_value_that_grows_beyond_the_limit_does_not_stand_as_it_was() {
    let Some(version) = require(Version::Valkey91) else {
        return;
    };
    let large = large();
    // Read again in a round before the last one, or only in the last one.
    for in_a_round in [true, false] {
        let scene = Scene::new(version);
        run(&scene.source, 0, &["SET", "grows", "small"]);
        run(&scene.source, 0, &["SET", "stays", "small"]);
        let output = scene.export(2, || {
            run(&scene.source, 0, &["SET", "grows", &large]);
            if in_a_round {
                change_many(&scene.source);
            }
        });
        assert_failed(&output.expect_code(3), &[(0, "grows")]);
        scene.import();
        assert_eq!(get(&scene.destination, 0, "grows"), None, "{in_a_round}");
        let stays = get(&scene.destination, 0, "stays");
        assert_eq!(stays.as_deref(), Some("small"), "{in_a_round}");
    }
}

#[test]
fn a_value_that_the_archive_does_not_take_does_not_stand_as_it_was() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let scene = Scene::new(version);
    run(&scene.source, 0, &["SET", "grows", "small"]);
    // DUMP compresses it; as the archive stores it, it is too large.
    let large = "x".repeat(4_000_000);
    let output = scene.export(1, || run(&scene.source, 0, &["SET", "grows", &large]));
    let output = output.expect_code(3);
    assert_eq!(failed(&output), [(0, "grows".to_owned())]);
    let inspected = Tool::new(&["verify"]).arg(scene.archive()).run();
    inspected.success();
    scene.import();
    assert_eq!(get(&scene.destination, 0, "grows"), None);
}

#[test]
fn a_value_that_shrinks_again_is_read_after_all() {
    let Some(version) = require(Version::Redis62) else {
        return;
    };
    let scene = Scene::new(version);
    run(&scene.source, 0, &["SET", "first", "1"]);
    run(&scene.source, 1, &["SET", "shrinks", &large()]);
    run(&scene.source, 2, &["SET", "last", "1"]);
    // Heard of when the last round begins: nothing else changes.
    let output = scene.export(3, || run(&scene.source, 1, &["SET", "shrinks", "small"]));
    let output = output.success();
    assert_eq!(failed(&output), [(1, "shrinks".to_owned())]);
    assert_eq!(summary(&output)["source"]["failed"], 0);
    assert_eq!(reached(&output), "exact");
    scene.import();
    let shrinks = get(&scene.destination, 1, "shrinks");
    assert_eq!(shrinks.as_deref(), Some("small"));
}

fn follow(scene: &Scene) -> Running {
    Tool::new(&["copy", "--json", "--follow", "--consistency=converge"])
        .arg(scene.proxy.url())
        .arg(scene.destination.url())
        .spawn()
}

#[test]
fn a_key_that_fails_once_is_followed_on() {
    let Some(version) = require(Version::Valkey81) else {
        return;
    };
    let scene = Scene::new(version);
    scene.proxy.begin(Vec::new());
    run(&scene.source, 0, &["SET", "x", "1"]);
    let mut tool = follow(&scene);
    let now = || get(&scene.destination, 0, "x");
    wait_until("1 does not arrive", || now().as_deref() == Some("1"));
    run(&scene.source, 0, &["SET", "x", "2"]);
    wait_until("2 does not arrive", || now().as_deref() == Some("2"));
    scene.proxy.begin(vec![Rule {
        command: "MULTI:DUMP".to_owned(),
        from: 1,
        times: 1,
        answer: Answer::NoPerm,
        executed: true,
        in_exec: true,
        delay: Duration::ZERO,
    }]);
    run(&scene.source, 0, &["SET", "x", "3"]);
    wait_until("no error", || scene.proxy.fired() == 1);
    // It still stands at the source, and is not deleted here.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(now().as_deref(), Some("2"));
    run(&scene.source, 0, &["SET", "x", "4"]);
    wait_until("4 does not arrive", || now().as_deref() == Some("4"));
    tool.signal("INT");
    let output = tool.wait().success();
    assert_eq!(failed(&output), [(0, "x".to_owned())]);
    assert_eq!(summary(&output)["source"]["failed"], 0);
    assert!(
        output
            .stderr
            .contains("it has been read now, or no longer exists"),
        "{}",
        output.stderr
    );
}

#[test]
fn a_time_that_is_none_is_not_1970() {
    let Some(version) = require(Version::Redis62) else {
        return;
    };
    let source = TestServer::start(version);
    run(&source, 0, &["SET", "k", "v", "PX", "86400000"]);
    for answer in [
        "*2\r\n$3\r\nnow\r\n$1\r\n0",
        "*2\r\n$20\r\n18446744073709551615\r\n$1\r\n0",
    ] {
        let scanned = AtomicBool::new(false);
        // Without MULTI, TIME is answered by the toy itself. It is garbled beside the key only.
        let toy = Toy::start(source.addr(), move |words| match words[0].as_slice() {
            b"MULTI" => Deed::answer("-ERR unknown command 'MULTI'"),
            b"SCAN" => {
                scanned.store(true, Ordering::SeqCst);
                Deed::Pass
            }
            b"TIME" if scanned.load(Ordering::SeqCst) => Deed::answer(answer),
            _ => Deed::Pass,
        });
        let directory = tempfile::tempdir().expect("a directory");
        let output = Tool::new(&["export", "--json", "--consistency=scan", &toy.url()])
            .arg("-o")
            .arg(directory.path().join("a.rmz"))
            .run();
        let output = output.expect_code(1);
        assert!(output.stderr.contains("TIME gave no"), "{}", output.stderr);
    }
}
