//! No destination stands still because of a value that it refuses: vector sets between the versions
//! that lay them out in two ways, and values of modules for servers without them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, run};

/// Redis 8.0 stands still for 1.4 to 14 s when it is given a vector set of 8.2. What this finds is
/// printed; a machine that is busy is no reason to fail.
const STANDSTILL: Duration = Duration::from_millis(1_000);

const VECTOR_SETS: u64 = 30;

/// Asks a server again and again whether it is there.
struct Prober {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Duration, u64)>,
}

impl Prober {
    fn start(server: &TestServer) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&stop);
        let mut client = server.client();
        let thread = std::thread::spawn(move || {
            let (mut longest, mut asked) = (Duration::ZERO, 0);
            while !ended.load(Ordering::SeqCst) {
                let at = Instant::now();
                redis::cmd("PING").exec(&mut client).expect("PING");
                longest = longest.max(at.elapsed());
                asked += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            (longest, asked)
        });
        Self { stop, thread }
    }

    /// The longest that it waited for an answer.
    fn end(self, what: &str) -> Duration {
        self.stop.store(true, Ordering::SeqCst);
        let (longest, asked) = self.thread.join().expect("the prober");
        println!("{what}: the longest of {asked} answers took {longest:?}");
        longest
    }
}

fn send(client: &mut redis::Connection, words: &[&str]) {
    let (name, rest) = words.split_first().expect("a command");
    let sent = redis::cmd(name).arg(rest).exec(client);
    sent.unwrap_or_else(|error| panic!("{words:?}: {error}"));
}

fn fill_vector_sets(server: &TestServer) {
    let mut client = server.client();
    for set in 0..VECTOR_SETS {
        let key = format!("v{set}");
        for element in 0..=set {
            let (x, y, name) = (set.to_string(), element.to_string(), format!("e{element}"));
            let mut words = vec!["VADD", &key, "VALUES", "3", &x, &y, "1", &name];
            match set % 3 {
                0 => words.push("NOQUANT"),
                1 => words.push("BIN"),
                _ => words.extend(["SETATTR", "{\"a\":1}"]),
            }
            send(&mut client, &words);
        }
    }
    send(&mut client, &["SET", "s", "text"]);
}

fn size(server: &TestServer) -> u64 {
    redis::cmd("DBSIZE")
        .query(&mut server.client())
        .expect("DBSIZE")
}

fn refused(output: &Output) -> u64 {
    output.summary()["sink"]["refused"]
        .as_u64()
        .expect("a count")
}

#[test]
fn vector_sets_between_their_layouts() {
    let versions = [Version::Redis80, Version::Redis82, Version::Redis86];
    let versions: Vec<Version> = versions.into_iter().filter_map(require).collect();
    for &from in &versions {
        let source = TestServer::start(from);
        fill_vector_sets(&source);
        let dir = tempfile::tempdir().expect("a directory");
        let archive = dir.path().join("a.rmz").to_str().expect("UTF-8").to_owned();
        run(&["export", &source.url(), "--output", &archive], b"").success();
        for &to in &versions {
            let what = format!("{from} to {to}");
            let is_refused = to == Version::Redis80 && from != Version::Redis80;
            let mut destination = TestServer::start(to);
            let prober = Prober::start(&destination);
            let (copy, import) = (
                ["copy", &source.url(), &destination.url(), "--json"],
                ["import", &destination.url(), &archive, "--json"],
            );
            for words in [copy, import] {
                let output = run(&words, b"").expect_code(if is_refused { 3 } else { 0 });
                let expected = if is_refused { VECTOR_SETS } else { 0 };
                assert_eq!(refused(&output), expected, "{what}: {}", output.stderr);
                if is_refused {
                    assert!(output.stderr.contains("hangs for seconds"), "{what}");
                }
            }
            let longest = prober.end(&what);
            assert!(longest < STANDSTILL, "{what}: {longest:?}");
            assert!(destination.is_running());
            if is_refused {
                assert_eq!(size(&destination), 1, "{what}");
                continue;
            }
            assert_eq!(size(&destination), VECTOR_SETS + 1, "{what}");
            run(&["diff", &source.url(), &destination.url()], b"").success();
        }
    }
}

/// A file is refused as a whole, or worse, so that none is written that holds what is not read.
#[test]
fn vector_sets_in_files() {
    let (Some(newer), Some(older)) = (require(Version::Redis82), require(Version::Redis80)) else {
        return;
    };
    let source = TestServer::start(newer);
    fill_vector_sets(&source);
    let dir = tempfile::tempdir().expect("a directory");
    let archive = dir.path().join("a.rmz").to_str().expect("UTF-8").to_owned();
    run(&["export", &source.url(), "--output", &archive], b"").success();
    for (target, loader, refused) in [("redis-8.0", older, VECTOR_SETS), ("redis-8.2", newer, 0)] {
        let file = dir.path().join(format!("{target}.rdb"));
        let words = [
            "convert",
            &archive,
            file.to_str().expect("UTF-8"),
            "--for",
            target,
        ];
        let converted = run(&words, b"").expect_code(if refused > 0 { 3 } else { 0 });
        assert_eq!(
            converted.stderr.matches("hangs for seconds").count() > 0,
            refused > 0,
            "{}",
            converted.stderr
        );
        let loaded = TestServer::builder(loader).rdb(&file).start();
        assert_eq!(size(&loaded), VECTOR_SETS + 1 - refused, "{target}");
        if refused == 0 {
            run(&["diff", &source.url(), &loaded.url()], b"").success();
        }
    }
}

/// Servers without the modules refuse their values at once; Redis 6.0 would end.
#[test]
fn values_of_modules() {
    let Some(stack) = require(Version::Stack74) else {
        return;
    };
    let modules = ["redisbloom", "rejson", "redistimeseries"];
    let builder = TestServer::builder(stack);
    let source = modules
        .into_iter()
        .fold(builder, |builder, module| builder.module(module))
        .start();
    let mut client = source.client();
    for key in 0..20 {
        send(
            &mut client,
            &["JSON.SET", &format!("j{key}"), "$", "{\"a\":[1,2,3]}"],
        );
        send(&mut client, &["BF.ADD", &format!("b{key}"), "x"]);
        send(&mut client, &["TS.ADD", &format!("t{key}"), "1000", "1"]);
        send(
            &mut client,
            &["CMS.INITBYDIM", &format!("c{key}"), "100", "5"],
        );
    }
    send(&mut client, &["SET", "s", "text"]);
    for to in Version::DESTINATIONS
        .into_iter()
        .filter(|to| *to != stack)
        .filter_map(require)
    {
        let mut destination = TestServer::start(to);
        let prober = Prober::start(&destination);
        let copied =
            run(&["copy", &source.url(), &destination.url(), "--json"], b"").expect_code(3);
        let longest = prober.end(&format!("modules to {to}"));
        // Some come twice: nobody is told of all that changes them.
        assert!(refused(&copied) >= 80, "{to}: {}", copied.stderr);
        assert!(longest < STANDSTILL, "{to}: {longest:?}");
        assert!(destination.is_running(), "{to}");
        assert_eq!(size(&destination), 1, "{to}");
    }
    // One module of them.
    let destination = TestServer::builder(stack).module("redisbloom").start();
    let prober = Prober::start(&destination);
    run(&["copy", &source.url(), &destination.url()], b"").expect_code(3);
    let longest = prober.end("modules to a server with one of them");
    assert!(longest < STANDSTILL, "{longest:?}");
    assert_eq!(size(&destination), 41);
}
