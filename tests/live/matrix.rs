//! The same version on both sides, for every version: every type and encoding, by meaning.

use crate::support::dataset::fill_every_type;
use crate::support::equality::assert_equal;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Tool, pipe, run};

fn pair(version: Version) -> Option<(TestServer, TestServer)> {
    let version = require(version)?;
    let source = TestServer::start(version);
    let mut client = source.client();
    fill_every_type(&mut client, version);
    Some((source, TestServer::start(version)))
}

fn export_and_import(version: Version) {
    let Some((source, destination)) = pair(version) else {
        return;
    };
    for flags in [
        &[][..],
        &["--verbatim"],
        &["--no-compress"],
        &["--level", "9"],
    ] {
        let export = run(&[&["export", &source.url()], flags].concat(), b"").success();
        let verify = run(&["verify"], &export.stdout).success();
        assert!(!verify.stdout.is_empty() || !verify.stderr.is_empty());
        run(&["import", &destination.url()], &export.stdout).success();
        assert_equal(&mut source.client(), &mut destination.client());
        redis::cmd("FLUSHALL")
            .exec(&mut destination.client())
            .unwrap();
        if version.is_at_least_7() {
            redis::cmd("FUNCTION")
                .arg("FLUSH")
                .exec(&mut destination.client())
                .unwrap();
        }
    }
    let (export, import) = pipe(&["export", &source.url()], &["import", &destination.url()]);
    export.success();
    import.success();
    assert_equal(&mut source.client(), &mut destination.client());
}

fn copy(version: Version) {
    let Some((source, destination)) = pair(version) else {
        return;
    };
    let copied = run(&["copy", &source.url(), &destination.url()], b"").success();
    assert!(
        copied.stdout.is_empty(),
        "stdout carries data, and copy has none"
    );
    assert_equal(&mut source.client(), &mut destination.client());
    // Again: everything is there already, and equal, which is no conflict.
    let again = run(&["copy", &source.url(), &destination.url(), "--json"], b"").success();
    let summary: serde_json::Value = again.summary();
    assert_eq!(summary["event"], "summary");
    assert_equal(&mut source.client(), &mut destination.client());
}

#[test]
fn redis_6_0_by_archive() {
    export_and_import(Version::Redis60);
}

#[test]
fn redis_7_0_by_archive() {
    export_and_import(Version::Redis70);
}

#[test]
fn redis_8_0_by_archive() {
    export_and_import(Version::Redis80);
}

#[test]
fn valkey_8_1_by_archive() {
    export_and_import(Version::Valkey81);
}

#[test]
fn valkey_9_1_by_archive() {
    export_and_import(Version::Valkey91);
}

#[test]
fn redis_6_0_by_copy() {
    copy(Version::Redis60);
}

#[test]
fn redis_7_0_by_copy() {
    copy(Version::Redis70);
}

#[test]
fn redis_8_0_by_copy() {
    copy(Version::Redis80);
}

#[test]
fn valkey_8_1_by_copy() {
    copy(Version::Valkey81);
}

#[test]
fn valkey_9_1_by_copy() {
    copy(Version::Valkey91);
}

/// An idle time or frequency that was carried over is read back as it was.
#[test]
fn eviction_facts_travel_where_asked() {
    for version in [Version::Redis60, Version::Redis70, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        for (policy, sub) in [("allkeys-lru", "IDLETIME"), ("allkeys-lfu", "FREQ")] {
            let start = || {
                TestServer::builder(version)
                    .option("--maxmemory-policy", policy)
                    .start()
            };
            let (source, destination) = (start(), start());
            let mut client = source.client();
            // As RESTORE itself sets it: exact and known.
            redis::cmd("SET")
                .arg("k")
                .arg("v")
                .exec(&mut client)
                .unwrap();
            let payload: Vec<u8> = redis::cmd("DUMP").arg("k").query(&mut client).unwrap();
            let mut restore = redis::cmd("RESTORE");
            restore
                .arg("k")
                .arg(0)
                .arg(payload)
                .arg("REPLACE")
                .arg(sub)
                .arg(200);
            restore.exec(&mut client).unwrap();
            let read = |server: &TestServer| -> i64 {
                let mut command = redis::cmd("OBJECT");
                command
                    .arg(sub)
                    .arg("k")
                    .query(&mut server.client())
                    .unwrap()
            };
            run(
                &["copy", &source.url(), &destination.url(), "--eviction"],
                b"",
            )
            .success();
            let (before, after) = (read(&source), read(&destination));
            assert!((190..=210).contains(&after), "{version} {sub}: {after}");
            if version == Version::Valkey91 {
                // NO-TOUCH keeps the export from disturbing the source.
                assert!((190..=210).contains(&before), "{version} {sub}: {before}");
            }
        }
    }
}

#[test]
fn an_empty_server_makes_a_complete_archive() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    let export = run(&["export", &source.url()], b"").success();
    run(&["verify"], &export.stdout).success();
    run(&["import", &destination.url()], &export.stdout).success();
    let keys: u64 = redis::cmd("DBSIZE")
        .query(&mut destination.client())
        .unwrap();
    assert_eq!(keys, 0);
}

#[test]
fn an_output_file_appears_only_when_it_is_complete() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = TestServer::start(version);
    fill_every_type(&mut source.client(), version);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("snap.rmz");
    let output = Tool::new(&["export", &source.url(), "-o"])
        .arg(&file)
        .run()
        .success();
    assert!(output.stdout.is_empty());
    let names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["snap.rmz"], "no temporary file is left");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).unwrap());
    assert_eq!(mode & 0o777, 0o600, "archives hold secrets");
    Tool::new(&["verify"]).arg(&file).run().success();
}

/// Every COUNT finds every key, the smallest too.
#[test]
fn every_scan_count_finds_everything() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = TestServer::start(version);
    fill_every_type(&mut source.client(), version);
    for count in ["1", "2", "3", "7", "100000"] {
        let destination = TestServer::start(version);
        run(
            &[
                "copy",
                &source.url(),
                &destination.url(),
                "--scan-count",
                count,
            ],
            b"",
        )
        .success();
        assert_equal(&mut source.client(), &mut destination.client());
    }
}
