//! `--via replica`.

use redis_migrate_format::Record;
use redis_migrate_format::header::{ConsistencyAsked, ConsistencyReached, Mode};

use crate::rdb::{Archive, assert_same, by_scan, filled, for_each_version, read, saved};
use crate::support::dataset::fill_vector_sets;
use crate::support::equality::assert_equal;
use crate::support::proxy::{Direction, Proxy, Rules};
use crate::support::random::Random;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Tool, run};

mod equals_scan {
    super::for_each_version!(super::as_by_scan);
}

fn as_by_scan(version: Version) {
    for diskless in ["yes", "no"] {
        let source = filled(
            TestServer::builder(version)
                .option("--repl-diskless-sync", diskless)
                .option("--repl-diskless-sync-delay", "0"),
        );
        let scan = run(&by_scan(&source.url(), &["--verbatim"]), b"").success();
        let replica = ["export", &source.url(), "--via", "replica"];
        let verbatim = run(&[&replica[..], &["--verbatim"]].concat(), b"").success();
        let (scan, verbatim) = (read(&scan.stdout), read(&verbatim.stdout));
        assert_same(
            &without_jitter(&scan, version),
            &without_jitter(&verbatim, version),
        );
        assert_eq!(scan.context.rdb_version, verbatim.context.rdb_version);
        assert_eq!(verbatim.header.source.mode, Mode::Standalone);
        assert_eq!(verbatim.header.source.nodes, scan.header.source.nodes);
        assert_eq!(verbatim.header.consistency, ConsistencyAsked::Snapshot);
        assert!(matches!(
            verbatim.end.facts.reached,
            ConsistencyReached::Exact(_)
        ));

        let destination = TestServer::start(version);
        run(
            &[
                "copy",
                "--via",
                "replica",
                &source.url(),
                &destination.url(),
            ],
            b"",
        )
        .success();
        assert_equal(&mut source.client(), &mut destination.client());

        // The server is left as it was: nobody hangs on, and it does not mind.
        let mut replicas = usize::MAX;
        for _ in 0..50 {
            let info: String = redis::cmd("INFO")
                .arg("replication")
                .query(&mut source.client())
                .unwrap();
            replicas = info.matches("slave0:").count();
            if replicas == 0 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        assert_eq!(replicas, 0);
    }
}

/// Before 7.0 a server says only how long there is left, so that its expiries jitter.
fn without_jitter(archive: &Archive, version: Version) -> Vec<Record> {
    let mut records = archive.records.clone();
    for record in &mut records {
        if let Record::Key(key) = record
            && !version.is_at_least_7()
        {
            key.expire_at_ms = key.expire_at_ms.map(|ms| (ms + 500) / 1000);
        }
    }
    records
}

#[test]
fn keepalives_before_the_snapshot_are_understood() {
    let Some(version) = require(Version::Valkey91) else {
        return;
    };
    // The server waits for more replicas, and says so every second.
    let source = filled(TestServer::builder(version).option("--repl-diskless-sync-delay", "3"));
    run(&["export", &source.url(), "--via", "replica"], b"").success();
}

#[test]
fn a_replica_can_be_asked_too() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let master = filled(TestServer::builder(version).option("--repl-diskless-sync-delay", "0"));
    let replica = TestServer::builder(version)
        .option("--replicaof", &format!("127.0.0.1 {}", master.port()))
        .option("--repl-diskless-sync-delay", "0")
        .start();
    let mut client = replica.client();
    for _ in 0..100 {
        let size: u64 = redis::cmd("DBSIZE").query(&mut client).unwrap_or(0);
        if size > 0 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let one = run(&["export", &master.url(), "--via", "replica"], b"").success();
    let other = run(&["export", &replica.url(), "--via", "replica"], b"").success();
    // Tables are laid out anew on a replica, so that bytes may stand in another order.
    let shape = |archive: &[u8]| -> Vec<_> {
        let keys = read(archive)
            .records
            .into_iter()
            .filter_map(|record| match record {
                Record::Key(key) => {
                    Some((key.db, key.key, key.expire_at_ms, key.value.bytes().len()))
                }
                _ => None,
            });
        keys.collect()
    };
    assert!(shape(&one.stdout) == shape(&other.stdout));
}

#[test]
fn a_refusal_is_13_and_says_what_else_can_be_done() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = TestServer::builder(version)
        .user("reader on >secret ~* +@read +@connection +info")
        .start();
    Tool::new(&[
        "export",
        &source.url(),
        "--via",
        "replica",
        "--user",
        "reader",
    ])
    .env("SOURCE_REDIS_PASSWORD", "secret")
    .run()
    .expect_code(13)
    .expect_stderr("PSYNC")
    .expect_stderr("without --via replica, keys are read with SCAN and DUMP");
}

#[test]
fn a_broken_connection_is_an_error_and_leaves_no_archive() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = filled(TestServer::builder(version).option("--repl-diskless-sync-delay", "0"));
    let whole = run(&["export", &source.url(), "--via", "replica"], b"").success();
    let proxy = Proxy::start(
        source.addr(),
        Rules {
            to_client: Direction {
                cut_after: Some(whole.stdout.len() as u64 / 2),
                ..Direction::default()
            },
            ..Rules::default()
        },
    );
    let output = source.path().join("out.rmz");
    let (url, name) = (proxy.url(), output.to_str().unwrap());
    run(&["export", &url, "--via", "replica", "-o", name], b"")
        .expect_code(1)
        .expect_stderr("receiving the snapshot");
    assert!(!output.exists());
}

#[test]
fn values_of_modules_travel_as_they_are() {
    let Some(version) = require(Version::Redis80) else {
        return;
    };
    let source = TestServer::builder(version)
        .option("--repl-diskless-sync-delay", "0")
        .start();
    if fill_vector_sets(&mut source.client(), version).is_empty() {
        return;
    }
    let file = saved(&source);
    let file = run(&["export", file.to_str().unwrap()], b"").success();
    let scan = run(&by_scan(&source.url(), &[]), b"").success();
    let replica = run(&["export", &source.url(), "--via", "replica"], b"").success();
    let scan = read(&scan.stdout).records;
    assert!(!scan.is_empty());
    assert_same(&scan, &read(&replica.stdout).records);
    assert_same(&scan, &read(&file.stdout).records);
}

/// The next value is not read while a large one is still being written.
#[test]
fn large_values_cost_their_size_once() {
    const MIB: usize = 1024 * 1024;
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = TestServer::builder(version)
        .option("--repl-diskless-sync-delay", "0")
        .start();
    let mut client = source.client();
    let noise = Random::new(7).bytes(MIB);
    for n in 0..4 {
        for _ in 0..100 {
            redis::cmd("APPEND")
                .arg(format!("big{n}"))
                .arg(&noise)
                .exec(&mut client)
                .unwrap();
        }
    }
    let output = source.path().join("out.rmz");
    let name = output.to_str().unwrap();
    let export = run(
        &["export", &source.url(), "--via", "replica", "-o", name],
        b"",
    )
    .success();
    let limit_kib = (64 + 100) * 1024;
    assert!(
        export.peak_memory_kib <= limit_kib,
        "{} KiB",
        export.peak_memory_kib
    );
}
