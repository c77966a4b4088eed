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
