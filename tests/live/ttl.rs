//! Expiry: absolute, exact, and what lay on the shelf too long.

use super::archives::{archive, string, string_until};
use crate::support::dataset::now_ms;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::run;

fn pttl(server: &TestServer, key: &str) -> i64 {
    redis::cmd("PTTL")
        .arg(key)
        .query(&mut server.client())
        .unwrap()
}

fn exists(server: &TestServer, key: &str) -> bool {
    redis::cmd("EXISTS")
        .arg(key)
        .query(&mut server.client())
        .unwrap()
}

#[test]
fn keys_past_their_time_are_counted_and_never_live_again() {
    for version in Version::MATRIX {
        let Some(version) = require(version) else {
            continue;
        };
        let server = TestServer::start(version);
        let past = now_ms() - 1000;
        let input = archive(&[vec![
            string_until("gone", "v", Some(past)),
            // 0 is a moment in 1970, and not "no expiry".
            string_until("long gone", "v", Some(0)),
            string("stays", "v"),
        ]]);
        run(&["import", &server.url()], &input)
            .success()
            .expect_stderr("expired 2");
        assert!(
            !exists(&server, "gone") && !exists(&server, "long gone") && exists(&server, "stays")
        );
        // With replace the old key goes: what the archive says of it is that it is no more.
        for (policy, stays) in [("skip", true), ("replace", false)] {
            redis::cmd("SET")
                .arg("gone")
                .arg("old")
                .exec(&mut server.client())
                .unwrap();
            run(&["import", &server.url(), "--on-conflict", policy], &input).success();
            assert_eq!(exists(&server, "gone"), stays, "{version} {policy}");
        }
    }
}

#[test]
fn a_record_past_its_time_undoes_the_runs_own_earlier_one() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    let input = archive(&[
        vec![string("k", "first")],
        vec![string_until("k", "second", Some(now_ms() - 1))],
    ]);
    run(&["import", &server.url()], &input).success();
    assert!(!exists(&server, "k"));
}

#[test]
fn expiry_is_kept_dropped_or_counted_from_now() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = TestServer::start(version);
    let server = TestServer::start(version);
    let mut client = source.client();
    let at_ms = now_ms() + 100_000;
    redis::cmd("SET")
        .arg("k")
        .arg("v")
        .arg("PXAT")
        .arg(at_ms)
        .exec(&mut client)
        .unwrap();
    redis::cmd("SET")
        .arg("forever")
        .arg("v")
        .exec(&mut client)
        .unwrap();
    let export = run(&["export", &source.url()], b"").success();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let import = |ttl: &str| {
        run(
            &["import", &server.url(), "--replace", "--ttl", ttl],
            &export.stdout,
        )
        .success();
        assert_eq!(pttl(&server, "forever"), -1);
        redis::cmd("PEXPIRETIME")
            .arg("k")
            .query::<i64>(&mut server.client())
            .unwrap()
    };
    assert_eq!(import("keep"), i64::try_from(at_ms).unwrap());
    assert_eq!(import("drop"), -1);
    // The second and a half on the shelf does not count.
    let rebased = import("rebase");
    assert!(
        rebased > i64::try_from(at_ms).unwrap() + 1000,
        "{rebased} {at_ms}"
    );
}

/// From absolute to absolute without a millisecond of drift where the server tells it, and within
/// the tolerance of the comparison where it only tells what is left.
#[test]
fn a_far_future_does_not_overflow() {
    for version in Version::MATRIX {
        let Some(version) = require(version) else {
            continue;
        };
        let server = TestServer::start(version);
        let input = archive(&[vec![
            string_until("k", "v", Some(u64::MAX)),
            string_until("l", "v", Some(1 << 62)),
        ]]);
        run(&["import", &server.url()], &input).success();
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(exists(&server, "k") && exists(&server, "l"), "{version}");
        assert!(pttl(&server, "k") > 1 << 50, "{version}");
    }
}

/// Sets fields of a hash, each with its expiry.
fn hash(server: &TestServer, key: &str, fields: &[(&str, Option<u64>)]) {
    let mut client = server.client();
    for (field, expire_at_ms) in fields {
        redis::cmd("HSET")
            .arg(key)
            .arg(field)
            .arg("v")
            .exec(&mut client)
            .unwrap();
        if let Some(at_ms) = expire_at_ms {
            let set: Vec<i64> = redis::cmd("HPEXPIREAT")
                .arg(key)
                .arg(at_ms)
                .arg("FIELDS")
                .arg(1)
                .arg(field)
                .query(&mut client)
                .unwrap();
            assert_eq!(set, [1]);
        }
    }
}

/// When a field expires: -1 for never, -2 for no such field.
fn field_expiry(server: &TestServer, key: &str, field: &str) -> i64 {
    let answer: Option<Vec<i64>> = redis::cmd("HPEXPIRETIME")
        .arg(key)
        .arg("FIELDS")
        .arg(1)
        .arg(field)
        .query(&mut server.client())
        .unwrap();
    answer.map_or(-2, |answer| answer[0])
}

/// Whatever becomes of a key's expiry becomes of its fields', too.
#[test]
fn fields_of_hashes_expire_as_keys_do() {
    for version in Version::MATRIX {
        let Some(version) = require(version).filter(|version| version.has_field_ttl()) else {
            continue;
        };
        let (from, to) = (TestServer::start(version), TestServer::start(version));
        let (soon, far) = (now_ms() + 3_000, now_ms() + 86_400_000);
        hash(
            &from,
            "small",
            &[("far", Some(far)), ("ever", None), ("soon", Some(soon))],
        );
        hash(&from, "only", &[("soon", Some(soon))]);
        let many: Vec<String> = (0..700).map(|n| format!("f{n}")).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), Some(far))).collect();
        hash(&from, "large", &many);
        redis::cmd("SET")
            .arg("key")
            .arg("v")
            .arg("PXAT")
            .arg(far)
            .exec(&mut from.client())
            .unwrap();
        let archive = run(&["export", &from.url()], b"").success().stdout;
        // Straight from the server, and with its own payloads.
        let verbatim = run(&["export", &from.url(), "--verbatim"], b"")
            .success()
            .stdout;
        while now_ms() <= soon {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let flush = || redis::cmd("FLUSHALL").exec(&mut to.client()).unwrap();
        for input in [&archive, &verbatim] {
            flush();
            run(&["import", &to.url(), "--ttl", "drop", "--verify"], input).success();
            for (key, field) in [
                ("small", "far"),
                ("small", "ever"),
                ("small", "soon"),
                ("only", "soon"),
                ("large", "f699"),
            ] {
                assert_eq!(field_expiry(&to, key, field), -1, "{version} {key} {field}");
            }
            flush();
            run(&["import", &to.url(), "--ttl", "rebase", "--verify"], input).success();
            let expiry: i64 = redis::cmd("PEXPIRETIME")
                .arg("key")
                .query(&mut to.client())
                .unwrap();
            assert!(
                expiry > far as i64 + 1_000,
                "{version}: moved by the time on the shelf"
            );
            for (key, field) in [("small", "far"), ("large", "f0"), ("large", "f699")] {
                assert_eq!(
                    field_expiry(&to, key, field),
                    expiry,
                    "{version} {key} {field}"
                );
            }
            let moved = expiry - far as i64;
            assert_eq!(
                field_expiry(&to, "only", "soon"),
                soon as i64 + moved,
                "{version}"
            );
            // Again, and what stands is known again though it is counted from now.
            run(&["import", &to.url(), "--ttl", "rebase"], input).success();
            // Kept, they are past their time, and said to be.
            flush();
            run(&["import", &to.url(), "--verify"], input)
                .success()
                .expect_stderr("hash fields expired 2")
                .expect_stderr("expired 1");
            assert_eq!(field_expiry(&to, "small", "far"), far as i64, "{version}");
            assert_eq!(field_expiry(&to, "small", "soon"), -2, "{version}");
            assert!(!exists(&to, "only"), "{version}");
            run(&["import", &to.url()], input).success();
        }
        flush();
        let copy = ["copy", &from.url(), &to.url(), "--ttl", "drop"];
        run(&copy, b"").success();
        assert_eq!(field_expiry(&to, "small", "far"), -1, "{version}");
    }
}
