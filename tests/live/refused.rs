//! Servers that refuse: each in a clear sentence, with the exit code that scripts go by.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use super::archives::{archive, string};
use crate::support::dataset::fill_every_type;
use crate::support::equality::{Options, assert_equal_with, differences};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Tool, run};
use crate::support::toy::{Deed, Toy};

fn small() -> Vec<u8> {
    archive(&[vec![string("user:1", "v"), string("other:1", "v")]])
}

#[test]
fn nobody_listens() {
    run(&["export", "redis://127.0.0.1:1"], b"")
        .expect_code(12)
        .expect_stderr("connection refused");
    run(&["import", "redis://127.0.0.1:1"], &small()).expect_code(12);
    run(&["export", "redis://no-such-host.invalid"], b"")
        .expect_code(12)
        .expect_stderr("resolve");
    run(&["export", "unix:///no/such/socket"], b"").expect_code(12);
}

#[test]
fn passwords_are_asked_for_checked_and_never_shown() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::builder(version).password("s3cr#t@:/%").start();
    redis::cmd("SET")
        .arg("k")
        .arg("v")
        .exec(&mut server.client())
        .unwrap();
    let bare = format!("redis://127.0.0.1:{}", server.port());
    run(&["export", &bare, "-o", "-"], b"")
        .expect_code(12)
        .expect_stderr("NOAUTH");
    let wrong = format!("redis://:wr0ng@127.0.0.1:{}", server.port());
    let output = run(&["export", &wrong, "-v"], b"")
        .expect_code(12)
        .expect_stderr("WRONGPASS");
    assert!(!output.stderr.contains("wr0ng"));
    // In every form, none of which shows it.
    let encoded = format!("redis://:s3cr%23t%40%3A%2F%25@127.0.0.1:{}", server.port());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "s3cr#t@:/%\n").unwrap();
    let file = file.to_str().unwrap();
    let runs = [
        Tool::new(&["export", &encoded, "-v", "--json"]),
        Tool::new(&["export", &bare, "-v"]).env("SOURCE_REDIS_PASSWORD", "s3cr#t@:/%"),
        Tool::new(&["export", &bare]).env("SOURCE_REDIS_PASSWORD_FILE", file),
        Tool::new(&["export", &bare]).env("REDISCLI_AUTH", "s3cr#t@:/%"),
        Tool::new(&["export", &bare, "--password-file", file]),
    ];
    for tool in runs {
        let output = tool.run().success();
        assert!(!output.stderr.contains("s3cr"), "{}", output.stderr);
        assert!(
            !output.stdout.windows(4).any(|bytes| bytes == b"s3cr"),
            "in the archive"
        );
    }
    // One side's secret never goes to the other.
    let other = TestServer::start(version);
    Tool::new(&["copy", &bare, &other.url()])
        .env("REDISCLI_AUTH", "s3cr#t@:/%")
        .run()
        .expect_code(12);
    Tool::new(&["copy", &bare, &other.url()])
        .env("SOURCE_REDIS_PASSWORD", "s3cr#t@:/%")
        .run()
        .success();
}

#[test]
fn a_destination_that_is_full_says_so() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    redis::cmd("CONFIG")
        .arg("SET")
        .arg("maxmemory")
        .arg("1")
        .exec(&mut server.client())
        .unwrap();
    for dry in [&[][..], &["--dry-run"]] {
        run(&[&["import", &server.url()], dry].concat(), &small())
            .expect_code(13)
            .expect_stderr("OOM")
            .expect_stderr("maxmemory");
    }
}

#[test]
fn evictions_during_the_run_are_counted_and_are_no_success() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    let mut client = server.client();
    for (name, value) in [("maxmemory-policy", "allkeys-random"), ("maxmemory", "3mb")] {
        redis::cmd("CONFIG")
            .arg("SET")
            .arg(name)
            .arg(value)
            .exec(&mut client)
            .unwrap();
    }
    let frame = |from: u32| {
        (from..from + 10_000)
            .map(|n| string(&format!("key-number-{n}"), &"v".repeat(60)))
            .collect()
    };
    let frames: Vec<_> = (0..6).map(|n| frame(n * 10_000)).collect();
    run(&["import", &server.url()], &archive(&frames))
        .expect_code(3)
        .expect_stderr("evicts keys when it is full")
        .expect_stderr("evicted");
}

#[test]
fn a_replica_is_read_but_not_written() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (primary, replica) = (TestServer::start(version), TestServer::start(version));
    redis::cmd("SET")
        .arg("k")
        .arg("v")
        .exec(&mut primary.client())
        .unwrap();
    let mut client = replica.client();
    redis::cmd("REPLICAOF")
        .arg("127.0.0.1")
        .arg(primary.port())
        .exec(&mut client)
        .unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while redis::cmd("DBSIZE").query::<u64>(&mut client).unwrap_or(0) == 0 {
        assert!(
            std::time::Instant::now() < deadline,
            "the replica never synced"
        );
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let archive = replica.path().join("small.rmz");
    std::fs::write(&archive, small()).unwrap();
    let archive = archive.to_str().unwrap();
    for verb in [&["import"][..], &["import", "--dry-run"], &["doctor"]] {
        let output = run(&[verb, &[&replica.url(), archive]].concat(), b"").expect_code(13);
        let said = output.stderr.clone() + &String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("replica"), "{verb:?}: {said}");
    }
    let export = run(&["export", &replica.url()], b"").success();
    assert!(export.stderr.contains('1'));
}

/// A user with a key pattern: what is outside is listed by name, the rest moves.
#[test]
fn keys_outside_of_an_acl_pattern_are_journalled_and_the_others_go_on() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    fill_every_type(&mut server.client(), version);
    let mut client = server.client();
    for key in ["user:1", "user:2"] {
        redis::cmd("SET")
            .arg(key)
            .arg("v")
            .exec(&mut client)
            .unwrap();
    }
    let acl = ["SETUSER", "limited", "on", ">pw", "~user:*", "+@all"];
    redis::cmd("ACL").arg(&acl[..]).exec(&mut client).unwrap();
    let limited = format!("redis://limited:pw@127.0.0.1:{}", server.port());
    let export = run(&["export", &limited, "--db", "0"], b"")
        .expect_code(3)
        .expect_stderr("NOPERM");
    run(&["verify"], &export.stdout).success();
    let destination = TestServer::start(version);
    run(
        &["import", &destination.url(), "--match", "user:*"],
        &export.stdout,
    )
    .success();
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("*")
        .query(&mut destination.client())
        .unwrap();
    assert_eq!(keys.len(), 2, "{keys:?}");

    run(&["import", &limited, "--replace"], &small())
        .expect_code(3)
        .expect_stderr("\"other:1\"")
        .expect_stderr("NOPERM");
}

#[test]
fn a_needed_command_that_is_forbidden_is_exit_13() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    let mut client = server.client();
    let acl = [
        "SETUSER", "meek", "on", ">pw", "~*", "+@all", "-restore", "-scan",
    ];
    redis::cmd("ACL").arg(&acl[..]).exec(&mut client).unwrap();
    redis::cmd("SET")
        .arg("k")
        .arg("v")
        .exec(&mut client)
        .unwrap();
    let meek = format!("redis://meek:pw@127.0.0.1:{}", server.port());
    run(&["export", &meek], b"")
        .expect_code(13)
        .expect_stderr("SCAN");
    run(&["import", &meek, "--method", "restore"], &small())
        .expect_code(13)
        .expect_stderr("RESTORE");
}

/// Nothing but SCAN, DUMP and PTTL: everything else is optional.
#[test]
fn an_export_needs_no_more_than_scan_dump_and_pttl() {
    for version in Version::MATRIX {
        let Some(version) = require(version) else {
            continue;
        };
        let (server, destination) = (TestServer::start(version), TestServer::start(version));
        let mut client = server.client();
        fill_every_type(&mut client, version);
        let acl = [
            "SETUSER", "least", "on", ">pw", "~*", "-@all", "+scan", "+dump", "+pttl", "+select",
        ];
        redis::cmd("ACL").arg(&acl[..]).exec(&mut client).unwrap();
        let least = format!("redis://least:pw@127.0.0.1:{}", server.port());
        let export = run(&["export", &least], b"").success();
        run(&["import", &destination.url()], &export.stdout).success();
        let options = Options {
            functions: false,
            ttl_tolerance_ms: Some(1000),
            ..Options::default()
        };
        let found = differences(&mut server.client(), &mut destination.client(), &options);
        assert!(found.is_empty(), "{version}: {found:?}");
    }
}

#[test]
fn a_node_of_a_cluster_is_refused_and_not_half_exported() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let node = TestServer::builder(version).cluster().start();
    run(&["export", &node.url()], b"")
        .expect_code(2)
        .expect_stderr("cluster");
    // It has no slots.
    run(&["import", &node.url()], &small())
        .expect_code(1)
        .expect_stderr("no node serves slot 0");
}

/// A server that is full refuses to queue even what only reads, and people leave full servers.
#[test]
fn a_source_that_is_full_is_read_without_multi() {
    for version in [Version::Redis60, Version::Redis70, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        let source = TestServer::start(version);
        fill_every_type(&mut source.client(), version);
        let (whole, other) = (TestServer::start(version), TestServer::start(version));
        run(&["copy", &source.url(), &whole.url()], b"").success();
        redis::cmd("CONFIG")
            .arg("SET")
            .arg(&["maxmemory", "1"])
            .exec(&mut source.client())
            .unwrap();
        for consistency in ["scan", "auto"] {
            let copy = [
                "copy",
                &source.url(),
                &other.url(),
                "--replace",
                "--consistency",
            ];
            let said = run(&[&copy[..], &[consistency]].concat(), b"").success();
            // Valkey queues what only reads.
            if version != Version::Valkey91 {
                said.expect_stderr("the source is out of memory");
            }
        }
        let options = Options {
            ttl_tolerance_ms: Some(1_000),
            ..Options::default()
        };
        assert_equal_with(&mut whole.client(), &mut other.client(), &options);
    }
}

/// Commands of a lost connection that cannot be called off may be carried out behind newer ones.
/// That matters where a key has several records, and is said then.
#[test]
fn what_is_left_of_a_lost_connection_and_cannot_be_called_off_is_said() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    let twice = archive(&[vec![string("key", "one")], vec![string("key", "two")]]);
    // A RESTORE of no key that is wanted only tries what the destination accepts.
    for (lost_at, answer, is_said) in [
        ("key", Some("-NOPERM this user has no permissions"), true),
        ("key", Some("-ERR unknown command"), true),
        ("key", Some("$-1"), true),
        ("key", None, false),
        ("", Some("-NOPERM this user has no permissions"), false),
    ] {
        redis::cmd("FLUSHALL").exec(&mut server.client()).unwrap();
        let is_first = AtomicBool::new(true);
        let toy = Toy::start(server.addr(), move |words| {
            let is_kill = words[0] == b"CLIENT" && words[1].eq_ignore_ascii_case(b"KILL");
            let is_it = words[0] == b"RESTORE" && words[1].starts_with(lost_at.as_bytes());
            if is_it && is_first.swap(false, SeqCst) {
                return Deed::Close;
            }
            match answer.filter(|_| is_kill) {
                Some(answer) => Deed::answer(answer),
                None => Deed::Pass,
            }
        });
        let said = run(&["import", &toy.url()], &twice).success();
        let told = said
            .stderr
            .contains("does not let this run cancel the commands");
        assert_eq!(told, is_said, "{lost_at} {answer:?}: {}", said.stderr);
    }
}
