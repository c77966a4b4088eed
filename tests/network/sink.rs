//! A destination whose connections break: everything arrives, once, and the ledger says so.

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use crate::support::dataset::fill_every_type;
use crate::support::equality::{Options, assert_equal_with};
use crate::support::many::fill_many;
use crate::support::proxy::{Direction, Proxy, Rules};
use crate::support::random::Random;
use crate::support::servers::{TestServer, Version, available, require};
use crate::support::tool::{Output, Tool, run};

const POLICIES: [&str; 3] = ["fail", "skip", "replace"];

/// How often each fault is tried.
fn fault_runs() -> u64 {
    let runs = std::env::var("FAULT_RUNS").ok();
    runs.and_then(|runs| runs.parse().ok()).unwrap_or(4)
}

/// A source, its archive, and how many keys are in it.
struct Given {
    server: TestServer,
    archive: Vec<u8>,
    keys: u64,
}

impl Given {
    fn of(server: TestServer) -> Self {
        // Streams are not read again by a plain scan, so that each key comes once.
        let export = run(&["export", &server.url(), "--consistency", "scan"], b"").success();
        let archive = export.stdout;
        let list = run(&["list"], &archive).success().stdout;
        // One line is the heading.
        let keys = list.iter().filter(|&&byte| byte == b'\n').count() as u64 - 1;
        Self {
            server,
            archive,
            keys,
        }
    }

    /// Many small keys and some of every type.
    fn mixed() -> Option<Arc<Self>> {
        static GIVEN: Mutex<Weak<Given>> = Mutex::new(Weak::new());
        Self::shared(&GIVEN, |server| {
            fill_every_type(&mut server.client(), Version::Redis70);
            fill_many(&mut server.client(), 20_000, 7);
        })
    }

    /// Collections of some MiB each.
    fn large() -> Option<Arc<Self>> {
        static GIVEN: Mutex<Weak<Given>> = Mutex::new(Weak::new());
        Self::shared(&GIVEN, fill_large)
    }

    /// One for all tests that run at the same time. Its server is stopped when the last of them
    /// ends, which one in a static would not be.
    fn shared(given: &Mutex<Weak<Self>>, fill: impl FnOnce(&TestServer)) -> Option<Arc<Self>> {
        let version = require(Version::Redis70)?;
        let mut given = given.lock().unwrap_or_else(|error| error.into_inner());
        Some(given.upgrade().unwrap_or_else(|| {
            let server = TestServer::start(version);
            fill(&server);
            let made = Arc::new(Self::of(server));
            *given = Arc::downgrade(&made);
            made
        }))
    }

    #[track_caller]
    fn assert_arrived(&self, destination: &TestServer) {
        let options = Options {
            ignore_zero_sign: true,
            ignore_delivery_times: true,
            functions: destination.version().is_at_least_7(),
            ..Options::default()
        };
        let (left, right) = (&mut self.server.client(), &mut destination.client());
        assert_equal_with(left, right, &options);
        let left = temporary_keys(destination);
        assert!(left.is_empty(), "{left:?}");
    }
}

fn temporary_keys(server: &TestServer) -> Vec<String> {
    redis::cmd("KEYS")
        .arg("__redis-migrate:*")
        .query(&mut server.client())
        .expect("KEYS")
}

/// Values that are larger than 1 MiB as a whole, and small in their parts.
fn fill_large(server: &TestServer) {
    let mut client = server.client();
    let mut random = Random::new(3);
    for number in 0..3 {
        for piece in 0..20 {
            let mut text = |length: u64| -> String {
                let letters = (0..length).map(|_| char::from(b'a' + random.below(26) as u8));
                letters.collect()
            };
            let mut list = redis::cmd("RPUSH");
            list.arg(format!("list:{number}"));
            let mut hash = redis::cmd("HSET");
            hash.arg(format!("hash:{number}"));
            let mut set = redis::cmd("SADD");
            set.arg(format!("set:{number}"));
            let mut scores = redis::cmd("ZADD");
            scores.arg(format!("zset:{number}"));
            for row in 0..100 {
                list.arg(text(700));
                hash.arg(format!("f{piece}:{row}")).arg(text(700));
                set.arg(text(700));
                scores.arg(f64::from(row) / 3.0).arg(text(700));
            }
            for command in [list, hash, set, scores] {
                command.exec(&mut client).expect("a value of some MiB");
            }
        }
    }
}

#[track_caller]
fn assert_ledger(output: &Output, keys: u64, run: &str) {
    let line = output
        .stderr
        .lines()
        .rfind(|line| line.contains("restored"));
    let line = line.unwrap_or_default().replace(',', "");
    let expected = format!("read {keys} = restored {keys} +");
    assert!(
        line.contains(&expected),
        "{run}: no {expected:?} in\n{}",
        output.stderr
    );
}

fn flush(server: &TestServer) {
    let mut client = server.client();
    redis::cmd("FLUSHALL").exec(&mut client).expect("FLUSHALL");
    // Not on 6.0.
    let _ = redis::cmd("FUNCTION").arg("FLUSH").exec(&mut client);
}

/// Connections are cut at random places in either direction, five times a run.
fn cut(given: &Given, destination: &TestServer, arguments: &[&str]) {
    let mut cuts = 0;
    for round in 0..fault_runs() {
        flush(destination);
        let within = Direction {
            cut_within: Some(1_000..(given.archive.len() as u64).max(1_000_000)),
            ..Direction::default()
        };
        let back = Direction {
            cut_within: Some(300..60_000),
            ..Direction::default()
        };
        let upwards = round % 2 == 0;
        let rules = Rules {
            to_server: if upwards {
                within
            } else {
                Direction::default()
            },
            to_client: if upwards { Direction::default() } else { back },
            cuts: Some(5),
            seed: round * 100,
            ..Rules::default()
        };
        let proxy = Proxy::start(destination.addr(), rules);
        let policy = POLICIES[(round / 2) as usize % POLICIES.len()];
        let output = Tool::new(&["import", &proxy.url(), "--on-conflict", policy])
            .args(arguments)
            .stdin_bytes(given.archive.clone())
            .run()
            .success();
        let name = format!("round {round}, {policy}, {} cuts", proxy.cuts());
        given.assert_arrived(destination);
        assert_ledger(&output, given.keys, &name);
        cuts += proxy.cuts();
    }
    assert!(cuts >= fault_runs(), "only {cuts} cuts");
}

#[test]
fn connections_cut_anywhere_cost_nothing() {
    let Some(given) = Given::mixed() else { return };
    for version in [Version::Redis70, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        cut(&given, &TestServer::start(version), &[]);
    }
}

#[test]
fn connections_cut_while_values_are_built_by_commands_cost_nothing() {
    let Some(given) = Given::mixed() else { return };
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    cut(
        &given,
        &TestServer::start(version),
        &["--method", "commands"],
    );
}

#[test]
fn connections_cut_in_the_middle_of_large_values_cost_nothing() {
    let Some(given) = Given::large() else { return };
    let Some(version) = require(Version::Valkey91) else {
        return;
    };
    let small = ("--proto-max-bulk-len", "1mb");
    let server = TestServer::builder(version).option(small.0, small.1);
    cut(&given, &server.start(), &[]);
}

/// What stood there before is told from what this run wrote, also behind a cut.
#[test]
fn conflicts_are_told_from_own_writes_after_a_cut() {
    let Some(given) = Given::mixed() else { return };
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let destination = TestServer::start(version);
    for (round, (policy, code)) in [("fail", 3), ("skip", 0)].into_iter().enumerate() {
        flush(&destination);
        let mut client = destination.client();
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS")
            .arg("*1234*")
            .query(&mut given.server.client())
            .unwrap();
        for key in &keys {
            redis::cmd("SET")
                .arg(key)
                .arg("other")
                .exec(&mut client)
                .unwrap();
        }
        let rules = Rules {
            to_client: Direction {
                cut_within: Some(300..40_000),
                ..Direction::default()
            },
            cuts: Some(6),
            seed: round as u64,
            ..Rules::default()
        };
        let proxy = Proxy::start(destination.addr(), rules);
        let output = Tool::new(&["import", &proxy.url(), "--on-conflict", policy])
            .stdin_bytes(given.archive.clone())
            .run()
            .expect_code(code);
        let word = if code == 3 { "conflicts" } else { "skipped" };
        let line = output
            .stderr
            .lines()
            .rfind(|line| line.contains("restored"));
        let line = line.unwrap().replace(',', "");
        let (theirs, ours) = (keys.len() as u64, given.keys - keys.len() as u64);
        assert!(line.contains(&format!("restored {ours} ")), "{line}");
        assert!(line.contains(&format!("{word} {theirs}")), "{line}");
        for key in &keys {
            let value: String = redis::cmd("GET").arg(key).query(&mut client).unwrap();
            assert_eq!(value, "other");
        }
    }
}

#[test]
fn a_peer_that_stalls_is_left_and_tried_again() {
    let Some(given) = Given::mixed() else { return };
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let destination = TestServer::start(version);
    for round in 0..fault_runs().max(2) {
        flush(&destination);
        let stall = Direction {
            stall_after: Some(20_000 + round / 2 * 3_000),
            ..Direction::default()
        };
        let rules = Rules {
            to_server: if round % 2 == 0 {
                stall.clone()
            } else {
                Direction::default()
            },
            to_client: if round % 2 == 1 {
                stall
            } else {
                Direction::default()
            },
            ..Rules::default()
        };
        let proxy = Proxy::start(destination.addr(), rules);
        let running = Tool::new(&["import", &proxy.url(), "--timeout", "1s"])
            .stdin_bytes(given.archive.clone())
            .spawn();
        let deadline = Instant::now() + Duration::from_secs(30);
        while proxy.connections() == 0 {
            assert!(Instant::now() < deadline, "nobody connects");
            std::thread::sleep(Duration::from_millis(5));
        }
        proxy.set_rules(Rules::default());
        let output = running.wait().success().expect_stderr("reconnected");
        given.assert_arrived(&destination);
        assert_ledger(&output, given.keys, "stalled");
    }
}

/// What it acknowledged and did not save is gone: no success.
#[test]
fn a_destination_that_is_started_anew_is_no_success() {
    let Some(given) = Given::mixed() else { return };
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let mut destination = TestServer::start(version);
    let mut running = Tool::new(&["import", &destination.url()])
        .stdin_piped()
        .spawn();
    let mut stdin = running.stdin();
    use std::io::Write as _;
    let half = given.archive.len() / 2;
    stdin.write_all(&given.archive[..half]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while redis::cmd("DBSIZE")
        .query::<u64>(&mut destination.client())
        .unwrap()
        < 100
    {
        assert!(Instant::now() < deadline, "nothing arrives");
        std::thread::sleep(Duration::from_millis(20));
    }
    destination.restart();
    stdin.write_all(&given.archive[half..]).unwrap();
    drop(stdin);
    running
        .wait()
        .expect_code(3)
        .expect_stderr("was restarted")
        .expect_stderr("run the same command again");
    // As it is told to.
    run(
        &["import", &destination.url(), "--on-conflict", "skip"],
        &given.archive,
    )
    .success();
    given.assert_arrived(&destination);
}

#[test]
fn no_retries_means_none() {
    let Some(given) = Given::mixed() else { return };
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let destination = TestServer::start(version);
    let rules = Rules {
        to_server: Direction {
            cut_after: Some(200_000),
            ..Direction::default()
        },
        ..Rules::default()
    };
    let proxy = Proxy::start(destination.addr(), rules);
    let arguments = ["import", &proxy.url(), "--retries", "0"];
    run(&arguments, &given.archive)
        .expect_code(1)
        .expect_stderr("lost while restoring keys")
        .expect_stderr("sent without an answer");
}

/// A user who may not ask for limits finds them out, and nothing is lost over it.
#[test]
fn a_size_that_is_refused_goes_in_chunks() {
    for version in available() {
        let server = TestServer::builder(version)
            .option("--proto-max-bulk-len", "1mb")
            .user("default on nopass ~* +@all")
            .user("meek on >pw ~* +@all -config")
            .start();
        let source = TestServer::start(version);
        fill_large(&source);
        let mut client = source.client();
        let element = "e".repeat(1_500_000);
        redis::cmd("RPUSH")
            .arg("element")
            .arg(&element)
            .exec(&mut client)
            .unwrap();
        redis::cmd("SET")
            .arg("string")
            .arg(&element)
            .exec(&mut client)
            .unwrap();
        redis::cmd("SET")
            .arg("fits")
            .arg(&element[..900_000])
            .exec(&mut client)
            .unwrap();
        let archive = run(&["export", &source.url()], b"").success().stdout;
        let url = format!("redis://meek:pw@127.0.0.1:{}", server.port());
        let output = run(&["import", &url], &archive).expect_code(3);
        let stderr = &output.stderr;
        assert!(
            stderr.contains("goes by native commands")
                || stderr.contains("closed the connection at a value"),
            "{stderr}"
        );
        assert!(stderr.contains("\"element\""), "{version}: {stderr}");
        for key in ["element", "string"] {
            redis::cmd("DEL").arg(key).exec(&mut client).unwrap();
            let there = redis::cmd("EXISTS").arg(key).query(&mut server.client());
            let there: u64 = there.unwrap();
            // Before 6.2 a string may be longer than an argument.
            assert!(
                there == 0 || key == "string" && version == Version::Redis60,
                "{version} {key}"
            );
            redis::cmd("DEL")
                .arg(key)
                .exec(&mut server.client())
                .unwrap();
        }
        assert_equal_with(&mut client, &mut server.client(), &Options::default());
        assert!(temporary_keys(&server).is_empty(), "{version}");
    }
}
