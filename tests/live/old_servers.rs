//! Servers from before 6.0: Redis 2.8, 3.2 and 5.0 as sources, by scan, by replication, from their
//! RDB files and from clusters; and as destinations, also where RESTORE has no ABSTTL.

use redis_migrate_payload::dialect::Feature;

use crate::support::cluster::TestCluster;
use crate::support::dataset::fill_every_type;
use crate::support::equality::assert_only_missing;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, Tool, run};
use crate::support::toy::{Deed, Toy};

const OLD: [Version; 3] = [Version::Redis28, Version::Redis32, Version::Redis50];

const NEW: [Version; 3] = [Version::Redis70, Version::Redis80, Version::Valkey91];

fn old() -> impl Iterator<Item = Version> {
    OLD.into_iter().filter_map(require)
}

fn filled(version: Version) -> TestServer {
    let server = TestServer::start(version);
    fill_every_type(&mut server.client(), version);
    server
}

fn sink(output: &Output, name: &str) -> u64 {
    output.summary()["sink"][name].as_u64().unwrap()
}

#[test]
fn what_old_servers_hold_arrives_at_new_ones() {
    for version in old() {
        let source = filled(version);
        let url = source.url();
        let export = run(&["export", &url], b"").success();
        for to in NEW.into_iter().filter_map(require) {
            let destination = TestServer::start(to);
            let into = destination.url();
            let import = run(&["import", &into, "--json"], &export.stdout).success();
            assert_only_missing(&source, &destination, 0);
            assert!(sink(&import, "restored") > 50, "{}", import.stderr);
            let again = run(&["import", &into, "--json"], &export.stdout).success();
            assert_eq!(sink(&again, "restored"), 0, "{}", again.stderr);

            let destination = TestServer::start(to);
            let into = destination.url();
            run(&["copy", &url, &into, "--verify"], b"").success();
            assert_only_missing(&source, &destination, 0);
            let again = run(&["copy", &url, &into, "--json", "--verify"], b"").success();
            assert_eq!(sink(&again, "restored"), 0, "{}", again.stderr);
            run(&["diff", &url, &into], b"").success();
        }
    }
}

#[test]
fn old_servers_are_read_by_replication_and_from_their_files() {
    for version in old() {
        let source = filled(version);
        redis::cmd("SAVE").exec(&mut source.client()).unwrap();
        let file = source.path().join("dump.rdb");
        let file = file.to_str().unwrap();
        for arguments in [
            &["export", &source.url(), "--via", "replica"][..],
            &["export", file],
        ] {
            let export = run(arguments, b"").success();
            let Some(to) = require(Version::Redis80) else {
                return;
            };
            let destination = TestServer::start(to);
            run(&["import", &destination.url()], &export.stdout).success();
            assert_only_missing(&source, &destination, 0);
        }
    }
}

#[test]
fn what_old_servers_cannot_do_is_said_in_one_sentence() {
    for version in old() {
        let source = filled(version);
        let url = source.url();
        let sentence = format!(
            "Redis {} has no CLIENT TRACKING, which came with Redis 6.0",
            version.exact()
        );
        let told = |output: &Output| output.stderr.matches(&sentence).count();
        let export = run(&["export", &url], b"").success();
        assert_eq!(told(&export), 1, "{}", export.stderr);
        assert!(!export.stderr.contains("exact as of"), "{}", export.stderr);
        for how in ["converge", "pause"] {
            let export = run(&["export", &url, "--consistency", how], b"").expect_code(4);
            assert_eq!(told(&export), 1, "{}", export.stderr);
        }
        let follow = run(&["export", &url, "--follow"], b"").expect_code(13);
        assert_eq!(told(&follow), 1, "{}", follow.stderr);
        // Rights would not help.
        assert!(!follow.stderr.contains("ACL"), "{}", follow.stderr);
    }
}

#[test]
fn a_server_without_scan_is_refused_in_one_sentence() {
    let Some(version) = require(Version::Redis28) else {
        return;
    };
    // Redis 2.6 is imitated.
    let source = filled(version);
    let proxy = Toy::start(source.addr(), |words| match &words[0][..] {
        b"INFO" => Deed::Edit(|reply| {
            let text = String::from_utf8_lossy(&reply).into_owned();
            text.replace("redis_version:2.8.17", "redis_version:2.6.17")
                .into_bytes()
        }),
        b"SCAN" => Deed::answer("-ERR unknown command 'SCAN'"),
        _ => Deed::Pass,
    });
    run(&["export", &proxy.url()], b"")
        .expect_code(13)
        .expect_stderr("Redis 2.6.17 has no SCAN, which came with Redis 2.8")
        .expect_stderr("--via replica");
}

#[test]
fn clusters_of_old_servers_are_read() {
    for version in [Version::Redis32, Version::Redis50] {
        let (Some(version), Some(to)) = (require(version), require(Version::Redis70)) else {
            continue;
        };
        let all = filled(version);
        let cluster = TestCluster::start(version, 3, 1);
        cluster.client().fill_from(&mut all.client());
        for arguments in [
            &["export", &cluster.url()][..],
            &["export", &cluster.url(), "--read-from", "replica"],
        ] {
            let export = run(arguments, b"").success();
            let destination = TestServer::start(to);
            run(&["import", &destination.url()], &export.stdout).success();
            for db in 1..16 {
                redis::cmd("FLUSHDB").exec(&mut all.client_db(db)).unwrap();
            }
            assert_only_missing(&all, &destination, 0);
        }
    }
}

#[test]
fn clusters_of_old_servers_are_written_to() {
    for version in [Version::Redis32, Version::Redis50] {
        let (Some(version), Some(from)) = (require(version), require(Version::Redis50)) else {
            continue;
        };
        let source = filled(from);
        for db in 1..16 {
            redis::cmd("FLUSHDB")
                .exec(&mut source.client_db(db))
                .unwrap();
        }
        let refused = if version.has_streams() {
            0
        } else {
            streams(&source)
        };
        let code = if refused > 0 { 3 } else { 0 };
        let cluster = TestCluster::start(version, 3, 0);
        let (url, into) = (source.url(), cluster.url());
        run(&["copy", &url, &into, "--verify"], b"").expect_code(code);
        let again = run(&["copy", &url, &into, "--json"], b"").expect_code(code);
        assert_eq!(sink(&again, "restored"), 0, "{}", again.stderr);
        let diff = run(&["diff", &url, &into], b"");
        let text = String::from_utf8_lossy(&diff.stdout).into_owned();
        assert_eq!(text.matches("missing    db").count(), refused, "{text}");
        assert!(!text.contains("value "), "{text}");
    }
}

/// How many streams a server holds in all databases.
fn streams(server: &TestServer) -> usize {
    let of = |db| {
        let mut client = server.client_db(db);
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query(&mut client).unwrap();
        let mut is_stream = |key: &Vec<u8>| {
            let kind: String = redis::cmd("TYPE").arg(key).query(&mut client).unwrap();
            kind == "stream"
        };
        keys.iter().filter(|key| is_stream(key)).count()
    };
    (0..16).map(of).sum()
}

/// From an older or a newer server, twice; dry runs and `doctor` say beforehand what comes of it.
#[test]
fn old_servers_as_destinations() {
    for to in old() {
        for from in [Version::Redis50, Version::Redis70] {
            let Some(from) = require(from) else { continue };
            let source = filled(from);
            let destination = TestServer::start(to);
            let into = destination.url();
            let by_restore = to.has(Feature::RestoreAbsoluteTtl);
            let refused = if to.has_streams() {
                0
            } else {
                streams(&source)
            };
            let code = if refused > 0 { 3 } else { 0 };
            let options = ["--no-functions", "--consistency", "scan"];
            let export = run(&[&["export", &source.url()], &options[..]].concat(), b"").success();
            let file = destination.path().join("archive.rmz");
            std::fs::write(&file, &export.stdout).unwrap();

            let doctor = run(&["doctor", "--json", &into, file.to_str().unwrap()], b"");
            let report: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
            assert_eq!(doctor.code(), Some(code), "{to}: {:#}", report["archive"]);
            assert_eq!(report["archive"]["refused"], refused, "{to}");

            let import = |more: &[&str]| {
                let arguments = [&["import", &into, "--json"], more].concat();
                let import = run(&arguments, &export.stdout).expect_code(code);
                assert_eq!(
                    sink(&import, "refused"),
                    refused as u64,
                    "{to}: {}",
                    import.stderr
                );
                let told = "has no RESTORE with ABSTTL; writing by native commands";
                assert_eq!(
                    import.stderr.contains(told),
                    !by_restore,
                    "{}",
                    import.stderr
                );
                sink(&import, "restored")
            };
            let planned = import(&["--dry-run"]);
            assert_eq!(import(&[]), planned);
            assert_only_missing(&source, &destination, refused);
            assert_eq!(import(&[]), 0);

            // What stands is replaced, with its expiry, and nothing temporary is left.
            assert!(import(&["--on-conflict", "replace"]) > 0);
            assert_only_missing(&source, &destination, refused);

            redis::cmd("FLUSHALL")
                .exec(&mut destination.client())
                .unwrap();
            let copy = [
                "copy",
                &source.url(),
                &into,
                "--functions",
                "skip",
                "--verify",
            ];
            run(&copy, b"").expect_code(code);
            assert_only_missing(&source, &destination, refused);
        }
    }
}

#[test]
fn restore_alone_is_refused_before_the_first_key() {
    for to in old().filter(|version| !version.has(Feature::RestoreAbsoluteTtl)) {
        let Some(from) = require(Version::Redis50) else {
            return;
        };
        let source = filled(from);
        let destination = TestServer::start(to);
        let (url, into) = (source.url(), destination.url());
        for more in [&[][..], &["--dry-run"]] {
            let arguments = [&["copy", &url, &into, "--method", "restore"], more].concat();
            let copy = Tool::new(&arguments).run().expect_code(13);
            assert!(
                copy.stderr.contains("leave out --method restore"),
                "{}",
                copy.stderr
            );
            assert!(!copy.stderr.contains("ACL"), "{}", copy.stderr);
        }
        let keys: u64 = redis::cmd("DBSIZE")
            .query(&mut destination.client())
            .unwrap();
        assert_eq!(keys, 0, "{to}");
    }
}
