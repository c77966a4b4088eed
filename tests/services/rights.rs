//! Single commands that are refused: what is done without them, what it costs, and what is said.

use crate::support::dataset::fill_every_type;
use crate::support::equality::{Options, assert_equal, differences};
use crate::support::servers::{TestServer, Version, available, require};
use crate::support::tool::{Output, run};

/// A user with this rule; its URL.
fn user(server: &TestServer, rule: &str) -> String {
    let mut set = redis::cmd("ACL");
    set.arg("SETUSER").arg("some").arg("on").arg(">pw");
    set.arg(rule.split(' ').collect::<Vec<_>>());
    set.exec(&mut server.client())
        .unwrap_or_else(|error| panic!("{}: {rule}: {error}", server.version()));
    format!("redis://some:pw@127.0.0.1:{}", server.port())
}

fn filled(version: Version) -> TestServer {
    let server = TestServer::start(version);
    fill_every_type(&mut server.client(), version);
    server
}

fn import(output: &Output, version: Version) -> TestServer {
    let server = TestServer::start(version);
    run(&["import", &server.url()], &output.stdout).success();
    server
}

fn compare(source: &TestServer, destination: &TestServer, only_zero: bool) {
    let options = Options {
        functions: false,
        only_dbs: only_zero.then(|| vec![0]),
        ttl_tolerance_ms: Some(1000),
        ..Options::default()
    };
    let found = differences(&mut source.client(), &mut destination.client(), &options);
    assert!(found.is_empty(), "{}: {found:?}", source.version());
}

/// Databases that cannot be gone to are not left out in silence.
#[test]
fn without_select_database_zero_moves_and_the_others_are_named() {
    for version in available() {
        let source = filled(version);
        let url = user(&source, "~* +@all -select");
        let mut other = 0;
        for db in [1, 3, 9, 15] {
            let keys: u64 = redis::cmd("DBSIZE")
                .query(&mut source.client_db(db))
                .unwrap();
            other += keys;
        }
        let export = run(&["export", &url, "--json"], b"").expect_code(3);
        run(&["verify"], &export.stdout).success();
        compare(&source, &import(&export, version), true);
        let summary: serde_json::Value = export.summary();
        assert_eq!(summary["source"]["failed"], other, "{version}");
        let shown = run(&["export", &url], b"")
            .expect_code(3)
            .expect_stderr("the source refuses SELECT")
            .expect_stderr("finished with problems");
        for db in [1, 3, 9, 15] {
            assert!(
                shown.stderr.contains(&format!("{db} (")),
                "{}",
                shown.stderr
            );
        }
        let destination = TestServer::start(version);
        run(&["copy", &url, &destination.url()], b"").expect_code(3);
        compare(&source, &destination, true);

        // Who wants no more than database 0 misses nothing.
        for wish in [&["--db", "0"][..], &[]] {
            let url = match wish {
                [] => format!("{url}/0"),
                _ => url.clone(),
            };
            let mut arguments = vec!["export", &url];
            arguments.extend(wish);
            let export = run(&arguments, b"").success();
            assert!(!export.stderr.contains("SELECT"), "{}", export.stderr);
        }
        // Who names another one misses it.
        run(&["export", &url, "--db", "0,3"], b"")
            .expect_code(3)
            .expect_stderr("database 3 (2 keys)");
        run(&["export", &url, "--db", "3"], b"")
            .expect_code(13)
            .expect_stderr("SELECT");
    }
}

/// Exactly the three commands of an export, and the one of an import.
#[test]
fn nothing_but_scan_dump_and_pttl() {
    for version in available() {
        let source = filled(version);
        let url = user(&source, "~* -@all +scan +dump +pttl");
        let export = run(&["export", &url], b"")
            .expect_code(3)
            .expect_stderr("does not tell its databases (INFO)")
            .expect_stderr("whether there are keys in others is not known")
            .expect_stderr("--db 0");
        let destination = TestServer::start(version);
        let there = user(&destination, "~* -@all +restore");
        run(&["import", &there], &export.stdout).success();
        compare(&source, &destination, true);
        // Who wants no more than database 0 misses nothing.
        let export = run(&["export", &url, "--db", "0"], b"").success();
        let destination = TestServer::start(version);
        let there = user(&destination, "~* -@all +restore");
        run(&["import", &there], &export.stdout).success();
        compare(&source, &destination, true);
    }
}

/// Libraries come by FUNCTION LIST where FUNCTION DUMP is refused, also in the last, exact round,
/// and go by FUNCTION LOAD.
#[test]
fn functions_without_dump_and_restore() {
    for version in available() {
        if !version.is_at_least_7() {
            continue;
        }
        let source = filled(version);
        let rule = "~* &* +@all -function +function|list +function|load";
        let from = user(&source, rule);
        let destination = TestServer::start(version);
        let to = user(&destination, rule);
        for consistency in ["scan", "converge"] {
            let export = run(&["export", &from, "--consistency", consistency], b"").success();
            assert!(!export.stderr.contains("refuses"), "{}", export.stderr);
            for command in [&["FLUSHALL"][..], &["FUNCTION", "FLUSH"]] {
                let mut flush = redis::Cmd::new();
                flush.arg(command).exec(&mut destination.client()).unwrap();
            }
            run(&["import", &to], &export.stdout).success();
            assert_equal(&mut source.client(), &mut destination.client());
            // Again: equal code is no conflict.
            run(&["import", &to], &export.stdout).success();
            // To where FUNCTION RESTORE works, and of another version.
            for other in available() {
                if other.is_at_least_7() {
                    let third = TestServer::start(other);
                    let url = third.url();
                    let only = ["import", &url, "--match", "no such key"];
                    run(&only, &export.stdout).success();
                    let count = |server: &TestServer| {
                        let list: Vec<redis::Value> = redis::cmd("FUNCTION")
                            .arg("LIST")
                            .query(&mut server.client())
                            .unwrap();
                        list.len()
                    };
                    assert!(count(&source) > 0);
                    assert_eq!(count(&third), count(&source), "{version} to {other}");
                }
            }
        }
        // A library of the same name and other code follows the policy.
        let export = run(&["export", &from], b"").success();
        redis::cmd("FUNCTION")
            .arg("FLUSH")
            .exec(&mut destination.client())
            .unwrap();
        run(&["import", &to], &export.stdout).success();
        let code =
            "#!lua name=another\nredis.register_function('another', function() return 1 end)";
        let load = |server: &TestServer, code: &str| {
            let mut load = redis::cmd("FUNCTION");
            load.arg("LOAD").arg("REPLACE").arg(code);
            load.exec(&mut server.client()).unwrap();
        };
        load(&source, code);
        load(&destination, &code.replace("return 1", "return 2"));
        let export = run(&["export", &from], b"").success();
        run(&["import", &to], &export.stdout)
            .expect_code(3)
            .expect_stderr("another");
        run(&["import", &to, "--functions", "replace"], &export.stdout).success();
        let answer: u64 = redis::cmd("FCALL")
            .arg("another")
            .arg(0)
            .query(&mut destination.client())
            .unwrap();
        assert_eq!(answer, 1, "{version}");
    }
}

/// A destination that has functions and lets nobody near them.
#[test]
fn libraries_that_cannot_be_written_are_refused_by_name() {
    for version in [Version::Redis70, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        let source = filled(version);
        let destination = TestServer::start(version);
        let to = user(&destination, "~* &* +@all -function -fcall");
        let export = run(&["export", &source.url()], b"").success();
        run(&["import", &to], &export.stdout)
            .expect_code(3)
            .expect_stderr("function library");
        compare(&source, &destination, false);
        run(&["import", &to, "--functions", "skip"], &export.stdout).success();
    }
}

/// One by one: each is done without.
#[test]
fn every_optional_command_by_itself() {
    for version in available() {
        let source = filled(version);
        for refused in [
            "info", "multi", "exec", "time", "dbsize", "client", "hello", "object", "ping", "xinfo",
        ] {
            let url = user(&source, &format!("~* +@all -{refused}"));
            let export = run(&["export", &url], b"").success();
            compare(&source, &import(&export, version), false);
            let destination = TestServer::start(version);
            let there = user(&destination, &format!("~* +@all -{refused}"));
            run(&["import", &there], &export.stdout).success();
            compare(&source, &destination, false);
        }
    }
}
