//! Servers that are far away, or are to be spared; and the user's wish to stop while nothing comes.

use std::time::{Duration, Instant};

use redis::Connection;

use crate::support::equality::assert_equal;
use crate::support::many::fill_many;
use crate::support::proxy::{Direction, Proxy, Rules};
use crate::support::random::Random;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, Tool};

fn far_away(server: &TestServer, round_trip: Duration) -> Proxy {
    let half = Direction {
        delay: round_trip / 2,
        ..Direction::default()
    };
    let rules = Rules {
        to_server: half.clone(),
        to_client: half,
        ..Rules::default()
    };
    Proxy::start(server.addr(), rules)
}

fn scans(connection: &mut Connection) -> u64 {
    let stats: String = redis::cmd("INFO")
        .arg("commandstats")
        .query(connection)
        .unwrap();
    let calls = stats
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_scan:calls="))
        .and_then(|line| line.split(',').next()?.parse().ok());
    calls.unwrap_or(0)
}

fn flush(server: &TestServer) {
    redis::cmd("FLUSHALL").exec(&mut server.client()).unwrap();
}

/// It ended well, and not before so long.
#[track_caller]
fn took_at_least(output: Output, seconds: f64) {
    let output = output.success().expect_stderr("held back");
    let elapsed = output.elapsed.as_secs_f64();
    assert!(elapsed >= 0.8 * seconds, "{elapsed} s, not {seconds} s");
}

#[test]
fn far_away_the_pages_grow_unless_they_were_named() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    const KEYS: u64 = 40_000;
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    fill_many(&mut source.client(), KEYS, 1);
    let proxy = far_away(&source, Duration::from_millis(40));
    let copy = |arguments: &[&str]| {
        flush(&destination);
        let before = scans(&mut source.client());
        Tool::new(&["copy", "--consistency", "scan"])
            .args(&[&proxy.url(), &destination.url()])
            .args(arguments)
            .run()
            .success();
        // Comparing scans as well.
        let pages = scans(&mut source.client()) - before;
        assert_equal(&mut source.client(), &mut destination.client());
        pages
    };
    let grown = copy(&[]);
    assert!(grown < KEYS / 2_000, "{grown} pages");
    let named = copy(&["--scan-count", "1000"]);
    assert!(named >= KEYS / 1_020, "{named} pages");
}

#[test]
fn a_limit_of_keys_a_second_is_kept_on_every_verb() {
    let Some(version) = require(Version::Valkey81) else {
        return;
    };
    const KEYS: u64 = 3_000;
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    fill_many(&mut source.client(), KEYS, 2);
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("snap.rmz");
    let limit = ["--rate-limit", "1500"];
    let export = Tool::new(&["export", &source.url(), "-o"]).arg(&archive);
    took_at_least(export.args(&limit).run(), 2.0);
    let import = Tool::new(&["import", &destination.url()]).arg(&archive);
    took_at_least(import.args(&limit).run(), 2.0);
    assert_equal(&mut source.client(), &mut destination.client());
    flush(&destination);
    let copy = Tool::new(&["copy", &source.url(), &destination.url()]);
    took_at_least(copy.args(&limit).run(), 2.0);
    assert_equal(&mut source.client(), &mut destination.client());
}

/// Also with values that are larger than what a second allows.
#[test]
fn a_limit_of_bytes_a_second_is_kept() {
    let Some(version) = require(Version::Redis80) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    let mut random = Random::new(3);
    for n in 0..6 {
        redis::cmd("SET")
            .arg(n)
            .arg(random.bytes(750_000))
            .exec(&mut source.client())
            .unwrap();
    }
    // The last value is not waited for.
    let copy = Tool::new(&["copy", &source.url(), &destination.url()]);
    took_at_least(copy.args(&["--bwlimit", "1.5MB"]).run(), 2.5);
    assert_equal(&mut source.client(), &mut destination.client());
}

#[test]
fn a_latency_target_costs_no_keys() {
    let Some(version) = require(Version::Redis60) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    fill_many(&mut source.client(), 1_000, 4);
    for target in ["1us", "10s"] {
        flush(&destination);
        let output = Tool::new(&["copy", &source.url(), &destination.url()])
            .args(&["--latency-target", target])
            .run()
            .success()
            .expect_stderr("slowed down");
        assert_equal(&mut source.client(), &mut destination.client());
        let out_of_reach = output.stderr.contains(", more than --latency-target");
        assert_eq!(out_of_reach, target == "1us", "{}", output.stderr);
    }
}

/// A blocked read hears it too, on either side.
#[test]
fn an_interrupt_is_heard_while_a_server_says_nothing() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    fill_many(&mut source.client(), 20_000, 5);
    let stall = Rules {
        to_client: Direction {
            stall_after: Some(60_000),
            ..Direction::default()
        },
        ..Rules::default()
    };
    for (source_stalls, consistency) in [(true, "scan"), (true, "converge"), (false, "scan")] {
        let stalled = match source_stalls {
            true => &source,
            false => &destination,
        };
        let proxy = Proxy::start(stalled.addr(), stall.clone());
        let urls = match source_stalls {
            true => [proxy.url(), destination.url()],
            false => [source.url(), proxy.url()],
        };
        let mut running = Tool::new(&["copy", "--consistency", consistency, "--timeout", "100s"])
            .args(&[&urls[0], &urls[1]])
            .spawn();
        let began = Instant::now();
        while proxy.bytes_to_client() < 60_000 && began.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(300));
        running.signal("INT");
        let output = running.wait().expect_code(130);
        // Not by --timeout.
        assert!(output.elapsed < Duration::from_secs(90));
        flush(&destination);
    }
}

/// Somebody holds the pipe open and writes nothing.
#[test]
fn an_interrupt_is_heard_while_standard_input_is_silent() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let destination = TestServer::start(version);
    let mut running = Tool::new(&["import", &destination.url()])
        .stdin_piped()
        .spawn();
    let stdin = running.stdin();
    std::thread::sleep(Duration::from_millis(500));
    running.signal("INT");
    running.wait().expect_code(130);
    drop(stdin);
}
