//! RESTORE or native commands: for what is too large, and for who may not RESTORE.

use super::archives::{archive, string};
use crate::support::dataset::fill_every_type;
use crate::support::equality::{Options, assert_equal, differences};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, run};

fn summary(output: &Output) -> serde_json::Value {
    output.summary()
}

/// Equal but for what no command can set: when consumers were last seen.
fn check(source: &TestServer, destination: &TestServer) {
    let options = Options {
        ttl_tolerance_ms: Some(1000),
        ignore_zero_sign: true,
        ..Options::default()
    };
    let found = differences(&mut source.client(), &mut destination.client(), &options);
    let is_time = |detail: &str| detail.contains(" seen-time:") || detail.contains(" active-time:");
    let others = found.iter().filter(|found| !is_time(&found.detail));
    let lines: Vec<String> = others.map(ToString::to_string).collect();
    assert!(
        lines.is_empty(),
        "{}:\n{}",
        source.version(),
        lines.join("\n")
    );
}

#[test]
fn everything_by_commands() {
    for version in Version::MATRIX {
        let Some(version) = require(version) else {
            continue;
        };
        let (source, destination) = (TestServer::start(version), TestServer::start(version));
        fill_every_type(&mut source.client(), version);
        let export = run(&["export", &source.url()], b"").success();
        for policy in ["fail", "skip", "replace"] {
            redis::cmd("FLUSHALL")
                .exec(&mut destination.client())
                .unwrap();
            let args = [
                "import",
                &destination.url(),
                "--method",
                "commands",
                "--on-conflict",
                policy,
                "--json",
            ];
            let output = run(&args, &export.stdout).success();
            let report = summary(&output);
            let count = |name: &str| report["sink"][name].as_u64().unwrap_or(0);
            // Streams with groups come twice: they are read again in the last round.
            let all = count("restored") + count("replaced_own");
            assert_eq!(report["sink"]["changes"]["by_commands"], all, "{report}");
            check(&source, &destination);
        }
        // Again: all of it stands there already.
        let args = [
            "import",
            &destination.url(),
            "--method",
            "commands",
            "--on-conflict",
            "skip",
        ];
        run(&args, &export.stdout).success();
        check(&source, &destination);
    }
}

#[test]
fn later_records_follow_earlier_ones_by_commands_too() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    let input = archive(&[
        vec![string("k", "first"), string("l", "first")],
        vec![string("k", "second")],
    ]);
    redis::cmd("SET")
        .arg("l")
        .arg("standing")
        .exec(&mut server.client())
        .unwrap();
    run(&["import", &server.url(), "--method", "commands"], &input)
        .expect_code(3)
        .expect_stderr("\"l\"");
    let get = |key: &str| -> String {
        redis::cmd("GET")
            .arg(key)
            .query(&mut server.client())
            .unwrap()
    };
    assert_eq!(
        (get("k"), get("l")),
        ("second".to_owned(), "standing".to_owned())
    );
}

/// A user without RESTORE: `auto` finds another way, `restore` does not.
#[test]
fn who_may_not_restore_writes_by_commands() {
    for version in [Version::Redis60, Version::Redis70, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        let (source, destination) = (TestServer::start(version), TestServer::start(version));
        fill_every_type(&mut source.client(), version);
        let acl = ["SETUSER", "meek", "on", ">pw", "~*", "+@all", "-restore"];
        redis::cmd("ACL")
            .arg(&acl[..])
            .exec(&mut destination.client())
            .unwrap();
        let meek = format!("redis://meek:pw@127.0.0.1:{}", destination.port());
        let copy = ["copy", &source.url(), &meek];
        run(&[&copy[..], &["--method", "restore"]].concat(), b"")
            .expect_code(13)
            .expect_stderr("RESTORE");
        run(&copy, b"").success().expect_stderr("native commands");
        check(&source, &destination);
    }
}

/// What is larger than the destination takes in one piece goes in chunks; one element that is, is
/// refused.
#[test]
fn what_is_too_large_for_one_piece_goes_in_chunks() {
    for version in Version::MATRIX {
        let Some(version) = require(version) else {
            continue;
        };
        let source = TestServer::start(version);
        let destination = TestServer::builder(version)
            .option("--proto-max-bulk-len", "1mb")
            .start();
        let mut client = source.client();
        let mut random = crate::support::random::Random::new(5);
        let mut pipe = redis::pipe();
        for n in 0..3000 {
            pipe.cmd("RPUSH")
                .arg("list")
                .arg(random.bytes(1000))
                .ignore();
            pipe.cmd("HSET")
                .arg("hash")
                .arg(n)
                .arg(random.bytes(1000))
                .ignore();
        }
        pipe.cmd("SET").arg("small").arg("v").ignore();
        // The same limit holds for a string as a whole (t_string.c, checkStringLength).
        pipe.cmd("SET")
            .arg("string")
            .arg(random.bytes(900_000))
            .ignore();
        pipe.cmd("RPUSH")
            .arg("one")
            .arg(random.bytes(3 << 20))
            .ignore();
        pipe.exec(&mut client).unwrap();
        let url = destination.url();
        let output = run(&["copy", &source.url(), &url, "--json"], b"").expect_code(3);
        let report = summary(&output);
        assert_eq!(report["sink"]["refused"], 1, "{report}");
        assert!(output.stderr.contains("\"one\""), "{}", output.stderr);
        assert_eq!(report["sink"]["changes"]["by_commands"], 2, "{report}");
        redis::cmd("DEL").arg("one").exec(&mut client).unwrap();
        assert_equal(&mut source.client(), &mut destination.client());
        // Under `restore` they are refused, and nothing else is.
        redis::cmd("FLUSHALL")
            .exec(&mut destination.client())
            .unwrap();
        let output = run(
            &["copy", &source.url(), &url, "--method", "restore", "--json"],
            b"",
        )
        .expect_code(3);
        let report = summary(&output);
        assert_eq!(report["sink"]["refused"], 2, "{report}");
    }
}

/// 600 MB in one list, a destination with default limits. The figure is the value's and what is
/// held beside it.
#[test]
fn a_list_of_600_mb_arrives() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    let mut random = crate::support::random::Random::new(9);
    let mut client = source.client();
    for _ in 0..600 {
        let mut pipe = redis::pipe();
        for _ in 0..10 {
            pipe.cmd("RPUSH")
                .arg("list")
                .arg(random.bytes(100_000))
                .ignore();
        }
        pipe.exec(&mut client).unwrap();
    }
    let output = run(&["copy", &source.url(), &destination.url()], b"").success();
    let limit_kib = (64 + 3 * 600) * 1024;
    assert!(
        output.peak_memory_kib < limit_kib,
        "{} KiB",
        output.peak_memory_kib
    );
    let range = |server: &TestServer, from: i64| -> Vec<Vec<u8>> {
        redis::cmd("LRANGE")
            .arg("list")
            .arg(from)
            .arg(from + 99)
            .query(&mut server.client())
            .unwrap()
    };
    let len: i64 = redis::cmd("LLEN")
        .arg("list")
        .query(&mut destination.client())
        .unwrap();
    assert_eq!(len, 6000);
    for from in (0..6000).step_by(100) {
        assert!(
            range(&source, from) == range(&destination, from),
            "at {from}"
        );
    }
}
