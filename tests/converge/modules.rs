//! Values of modules: some commands change them and tell nobody, neither who tracks nor who watches
//! (CMS.INCRBY, FT.SUGDEL). What is called exact has all that was acknowledged by then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redis::{Connection, ConnectionLike as _, Value};

use crate::converge::run::{Scene, far_away, reached, said, summary, wait_for_listener};
use crate::support::cluster::TestCluster;
use crate::support::dataset::command;
use crate::support::random::Random;
use crate::support::servers::{Builder, TestServer, Version, require};
use crate::support::tool::{Output, Tool};

/// Sketches that are counted in, each beside a plain counter.
const SKETCHES: usize = 12;

/// Suggestions that are deleted one after the other.
const SUGGESTIONS: u64 = 50_000;

const PER_SECOND: u64 = 400;

fn with_modules(builder: Builder) -> Builder {
    let modules = ["redisbloom", "redisearch", "rejson"];
    modules.into_iter().fold(builder, Builder::module)
}

fn stack() -> Option<TestServer> {
    let version = require(Version::Stack74)?;
    Some(with_modules(TestServer::builder(version)).start())
}

fn scene() -> Option<Scene> {
    Some(Scene {
        source: stack()?,
        destination: stack()?,
        directory: tempfile::tempdir().expect("a directory"),
    })
}

fn send(client: &mut Connection, words: &[&str]) -> Value {
    let (name, rest) = words.split_first().expect("a command");
    let mut command = redis::cmd(name);
    command.arg(rest);
    command
        .query(client)
        .unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

fn number(value: Value) -> u64 {
    match value {
        Value::Array(values) if values.len() == 1 => number(values[0].clone()),
        Value::Nil => 0,
        value => redis::from_redis_value(value).expect("a number"),
    }
}

/// Something of each kind that is there before the writer begins, and keys for a scan of a while.
fn preload(client: &mut Connection) {
    for at in 0..SKETCHES {
        send(client, &["CMS.INITBYDIM", &format!("cms:{at}"), "200", "5"]);
    }
    send(client, &["BF.RESERVE", "bloom", "0.01", "1000"]);
    send(client, &["JSON.SET", "json", "$", r#"{"a":1}"#]);
    many(client, SUGGESTIONS as usize, |packed, at| {
        let text = format!("{at:06}");
        command(packed, &[b"FT.SUGADD", b"sug", text.as_bytes(), b"1"]);
    });
    many(client, 20_000, |packed, at| {
        let (name, value) = (format!("s:{at}"), "v".repeat(at % 150));
        command(packed, &[b"SET", name.as_bytes(), value.as_bytes()]);
    });
}

fn many(client: &mut Connection, count: usize, pack: impl Fn(&mut Vec<u8>, usize)) {
    for first in (0..count).step_by(1000) {
        let last = count.min(first + 1000);
        let mut packed = Vec::new();
        for at in first..last {
            pack(&mut packed, at);
        }
        let replies = client.req_packed_commands(&packed, 0, last - first);
        for reply in replies.expect("the server answers") {
            assert!(!matches!(reply, Value::ServerError(_)), "{reply:?}");
        }
    }
}

/// Counts in a sketch or deletes a suggestion, and counts that beside it, in one transaction.
struct Counting {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Counting {
    fn start(server: &TestServer) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut client = server.client();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let began = Instant::now();
            for turn in 0u64.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let at = (turn % SKETCHES as u64) as usize;
                count(&mut client, turn, at);
                let due = Duration::from_secs_f64((turn + 1) as f64 / PER_SECOND as f64);
                std::thread::sleep(due.saturating_sub(began.elapsed()));
            }
        });
        Self { stop, thread }
    }

    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the writer writes");
    }
}

fn count(client: &mut Connection, turn: u64, at: usize) {
    let (sketch, beside) = (format!("cms:{at}"), format!("n:{at}"));
    let text = format!("{turn:06}");
    let mut packed = Vec::new();
    command(&mut packed, &[b"MULTI"]);
    command(&mut packed, &[b"CMS.INCRBY", sketch.as_bytes(), b"x", b"1"]);
    command(&mut packed, &[b"INCR", beside.as_bytes()]);
    command(&mut packed, &[b"FT.SUGDEL", b"sug", text.as_bytes()]);
    command(&mut packed, &[b"INCR", b"n:sug"]);
    command(&mut packed, &[b"EXEC"]);
    let replies = client.req_packed_commands(&packed, 0, 6);
    let replies = replies.expect("the server answers");
    let done =
        matches!(&replies[5], Value::Array(done) if !matches!(done[0], Value::ServerError(_)));
    assert!(done, "EXEC answered {:?}", replies[5]);
}

/// What arrived is of one instant: every sketch agrees with the counter beside it.
#[track_caller]
fn assert_of_one_instant(client: &mut Connection, what: &str) {
    let mut all = 0;
    for at in 0..SKETCHES {
        let counted = number(send(client, &["CMS.QUERY", &format!("cms:{at}"), "x"]));
        let beside = number(send(client, &["GET", &format!("n:{at}")]));
        assert_eq!(counted, beside, "{what}: sketch {at}");
        all += counted;
    }
    let deleted = number(send(client, &["GET", "n:sug"]));
    let left = number(send(client, &["FT.SUGLEN", "sug"]));
    assert_eq!(left, SUGGESTIONS - deleted, "{what}: suggestions");
    assert_eq!(all, deleted, "{what}");
    assert!(all > 100, "{what}: {all} is not much of a writer");
}

#[test]
fn what_is_exact_has_what_nobody_was_told_of() {
    for how in ["auto", "converge", "pause"] {
        let Some(scene) = scene() else { return };
        let mut client = scene.source.client();
        preload(&mut client);
        // Its DUMP may be another one each time, which must not keep the rounds from ending.
        send(&mut client, &["TOPK.RESERVE", "top", "5", "50", "4", "0.9"]);
        send(&mut client, &["TOPK.ADD", "top", "a", "b", "a"]);
        let writer = Counting::start(&scene.source);
        std::thread::sleep(Duration::from_millis(500));
        let proxy = far_away(&scene.source);
        let output = scene.export_through(&proxy, &["--consistency", how]).run();
        writer.finish();
        assert_eq!(reached(&output.success()), "exact", "{how}");
        scene.import();
        assert_of_one_instant(&mut scene.destination.client(), how);
    }
}

#[test]
fn a_copy_that_follows_ends_with_what_nobody_was_told_of() {
    for how in ["converge", "pause"] {
        let Some(scene) = scene() else { return };
        preload(&mut scene.source.client());
        let writer = Counting::start(&scene.source);
        let (from, to) = (scene.source.url(), scene.destination.url());
        let output = Tool::new(&["copy", "--json", "--follow", "--for", "2s", "--verify"])
            .args(&["--consistency", how, &from, &to])
            .run();
        writer.finish();
        let output = output.success();
        assert_eq!(reached(&output), "exact", "{how}");
        assert_eq!(summary(&output)["verified"]["different"], 0, "{how}");
        assert_of_one_instant(&mut scene.destination.client(), how);
    }
}

#[test]
fn shards_look_at_what_nobody_was_told_of() {
    let Some(version) = require(Version::Stack74) else {
        return;
    };
    for how in ["converge", "pause"] {
        let cluster =
            TestCluster::start_with(version, 3, 0, |_, builder| builder.module("redisbloom"));
        let mut client = cluster.client();
        let names: Vec<(String, String)> = (0..30)
            .map(|at| (format!("{{{at}}}:cms"), format!("{{{at}}}:n")))
            .collect();
        for (sketch, _) in &names {
            let node = client.of(sketch.as_bytes());
            send(node, &["CMS.INITBYDIM", sketch, "100", "3"]);
        }
        for at in 0..3000 {
            let name = format!("s:{at}");
            send(client.of(name.as_bytes()), &["SET", &name, "v"]);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, names_there) = (Arc::clone(&stop), names.clone());
        let writer = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for (sketch, beside) in &names_there {
                    let mut both = redis::pipe();
                    both.atomic().cmd("CMS.INCRBY").arg(sketch).arg("x").arg(1);
                    both.cmd("INCR").arg(beside);
                    let done = both.exec(client.of(sketch.as_bytes()));
                    done.expect("the node answers");
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        });
        let destination = stack().expect("it was there just now");
        std::thread::sleep(Duration::from_millis(500));
        let (from, to) = (cluster.url(), destination.url());
        let tool = Tool::new(&["copy", "--json", "--scan-count", "20", "--consistency", how])
            .args(&[&from, &to])
            .spawn();
        // In clusters no databases are swapped, and nothing has to begin anew.
        for node in cluster.primaries() {
            send(&mut node.client(), &["CONFIG", "RESETSTAT"]);
        }
        let output = tool.wait();
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("the writer writes");
        assert_eq!(reached(&output.success()), "exact", "{how}");
        let mut there = destination.client();
        for (sketch, beside) in &names {
            let counted = number(send(&mut there, &["CMS.QUERY", sketch, "x"]));
            let wanted = number(send(&mut there, &["GET", beside]));
            assert_eq!(counted, wanted, "{how}: {sketch}");
            assert!(counted > 0, "{how}: {sketch}");
        }
    }
}

fn exists(server: &TestServer, key: &str) -> bool {
    number(send(&mut server.client(), &["EXISTS", key])) == 1
}

/// Counts in sketches by chance; how often each was acknowledged.
fn count_by_chance(mut client: Connection, sketches: usize, stop: &AtomicBool) -> Vec<u64> {
    let mut random = Random::new(3);
    let mut acknowledged = vec![0; sketches];
    while !stop.load(Ordering::Relaxed) {
        let at = random.below(sketches as u64) as usize;
        let mut count = redis::cmd("CMS.INCRBY");
        count.arg(format!("m:{at}")).arg("x").arg(1);
        // It may have moved.
        let done: redis::RedisResult<Value> = count.query(&mut client);
        acknowledged[at] += u64::from(done.is_ok());
        std::thread::sleep(Duration::from_millis(2));
    }
    acknowledged
}

#[test]
fn nothing_acknowledged_is_lost_when_sketches_move() {
    const SKETCHES: usize = 600;
    let Some(scene) = scene() else { return };
    let (source, destination) = (&scene.source, &scene.destination);
    let mut client = source.client();
    for at in 0..SKETCHES {
        send(
            &mut client,
            &["CMS.INITBYDIM", &format!("m:{at}"), "50", "3"],
        );
    }
    send(&mut client, &["JSON.SET", "json", "$", "1"]);
    send(&mut client, &["BF.RESERVE", "bloom", "0.01", "1000"]);
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, client) = (Arc::clone(&stop), source.client());
    let writer = std::thread::spawn(move || count_by_chance(client, SKETCHES, &stopped));
    // From far away there is time between the last look and the deletion.
    let proxy = far_away(source);
    let (from, to) = (proxy.url(), destination.url());
    Tool::new(&["copy", "--json", "--delete-source", "--replace", &from, &to])
        .run()
        .success();
    stop.store(true, Ordering::Relaxed);
    let acknowledged = writer.join().expect("the writer writes");
    let mut moved = 0;
    for (at, wanted) in acknowledged.into_iter().enumerate() {
        let name = format!("m:{at}");
        let stays = exists(source, &name);
        moved += usize::from(!stays);
        let holder = if stays { source } else { destination };
        let counted = number(send(&mut holder.client(), &["CMS.QUERY", &name, "x"]));
        assert_eq!(counted, wanted, "{name}");
    }
    println!("{moved} of {SKETCHES} moved");
    assert!((1..SKETCHES).contains(&moved), "{moved} moved");
    for quiet in ["json", "bloom"] {
        assert!(!exists(source, quiet), "{quiet} did not change");
        assert!(exists(destination, quiet), "{quiet}");
    }
}

#[test]
fn what_cannot_be_compared_in_one_instant_with_its_deletion_is_kept() {
    let Some(version) = require(Version::Stack74) else {
        return;
    };
    let source = with_modules(TestServer::builder(version))
        .user("default on nopass ~* &* +@all")
        .user("bob on >secret ~* &* +@all -eval")
        .start();
    let destination = stack().expect("it was there just now");
    let mut client = source.client();
    send(&mut client, &["JSON.SET", "json", "$", "1"]);
    send(&mut client, &["SET", "plain", "1"]);
    let from = format!("redis://bob:secret@{}", source.addr());
    let output = Tool::new(&[
        "copy",
        "--json",
        "--delete-source",
        &from,
        &destination.url(),
    ])
    .run()
    .success();
    let sink = &summary(&output)["sink"];
    assert_eq!(
        (&sink["source_deleted"], &sink["source_kept"]),
        (&1.into(), &1.into())
    );
    assert!(
        said(&output, "1 module value, because"),
        "{}",
        output.stderr
    );
    assert!(exists(&source, "json") && !exists(&source, "plain"));
}

/// Exports while `meanwhile` happens at the source.
fn exported_while(scene: &Scene, how: &str, meanwhile: impl FnOnce(&mut Connection)) -> Output {
    let proxy = far_away(&scene.source);
    let tool = scene
        .export_through(&proxy, &["--consistency", how])
        .spawn();
    wait_for_listener(&scene.source);
    std::thread::sleep(Duration::from_millis(200));
    meanwhile(&mut scene.source.client());
    tool.wait()
}

#[test]
fn more_than_can_be_read_at_one_instant_is_not_called_exact() {
    let Some(scene) = scene() else { return };
    let mut client = scene.source.client();
    send(&mut client, &["CONFIG", "SET", "rdbcompression", "no"]);
    // 40 MB, of which one EXEC may hold 32.
    for at in 0..100 {
        send(
            &mut client,
            &["CMS.INITBYDIM", &format!("c:{at}"), "10000", "10"],
        );
    }
    for (how, code) in [("converge", 4), ("auto", 0)] {
        let output = exported_while(&scene, how, |client| {
            send(client, &["CMS.INCRBY", "c:1", "x", "1"]);
        });
        let output = output.expect_code(code);
        assert!(said(
            &output,
            "not exact: the final round would read 100 keys"
        ));
        assert_eq!(reached(&output), "per-key", "{how}");
    }
}

/// Where the counts of commands show that only such ran as announce what they change, nothing is
/// read again for it.
#[test]
fn documents_are_exact_without_being_read_again_as_long_as_changes_are_announced() {
    let Some(scene) = scene() else { return };
    let mut client = scene.source.client();
    let text = format!("\"{}\"", "long".repeat(2500));
    many(&mut client, 4000, |packed, at| {
        let name = format!("j:{at}");
        command(
            packed,
            &[b"JSON.SET", name.as_bytes(), b"$", text.as_bytes()],
        );
    });
    send(&mut client, &["JSON.SET", "n", "$", "2"]);
    // The third for which DUMP gives 40 MB, of which one EXEC may hold 32.
    let commands = ["JSON.NUMINCRBY", "JSON.NUMPOWBY", "JSON.NUMPOWBY"];
    for (turn, command) in commands.into_iter().enumerate() {
        if turn == 2 {
            send(&mut client, &["CONFIG", "SET", "rdbcompression", "no"]);
        }
        let (code, reaches) = [(0, "exact"), (0, "exact"), (4, "per-key")][turn];
        let output = exported_while(&scene, "converge", |client| {
            for at in 0..300 {
                send(client, &["JSON.SET", &format!("j:{at}"), "$", "1"]);
            }
            send(client, &[command, "n", "$", "2"]);
        });
        let output = output.expect_code(code);
        assert_eq!(reached(&output), reaches, "{turn}");
        let reread = summary(&output)["source"]["reread"].as_u64();
        // Of NUMPOWBY nobody has seen that it is announced.
        assert_eq!(reread > Some(4000), turn > 0, "{turn}: {reread:?}");
        assert_eq!(said(&output, "JSON.NUMPOWBY was called"), turn == 2);
        scene.import_anew();
        let mut there = scene.destination.client();
        let wanted = [
            ("n", ["4", "16", "256"][turn]),
            ("j:7", "1"),
            ("j:399", &text),
        ];
        for (name, wanted) in wanted {
            let reply = send(&mut there, &["JSON.GET", name]);
            let found: String = redis::from_redis_value(reply).expect("a text");
            assert_eq!(found, wanted, "{turn}: {name}");
        }
    }
}
