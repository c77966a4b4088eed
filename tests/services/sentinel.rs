//! A primary that is found by its sentinels, before, during and after a failover.

use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::support::dataset::fill_every_type;
use crate::support::equality::{Options, assert_equal, differences};
use crate::support::many::fill_many;
use crate::support::proxy::{Direction, Proxy, Rules};
use crate::support::sentinel::{SentinelSetup, Watched, tls_sentinel};
use crate::support::servers::{TestServer, Version, require, require_tls};
use crate::support::tool::{Tool, run};

const VERSIONS: [Version; 2] = [Version::Redis70, Version::Valkey91];

fn flush(server: &TestServer) {
    redis::cmd("FLUSHALL").exec(&mut server.client()).unwrap();
    redis::cmd("FUNCTION")
        .arg("FLUSH")
        .exec(&mut server.client())
        .unwrap();
}

#[test]
fn runs_find_the_primary_whoever_it_is() {
    for version in VERSIONS.into_iter().filter_map(require) {
        let mut watched = Watched::start(version);
        let other = TestServer::start(version);
        fill_every_type(&mut other.client(), version);
        // A sentinel that is not there costs nothing but the try.
        let url = watched.url().replacen("://", "://127.0.0.1:1,", 1);

        let copied = run(&["copy", &other.url(), &url], b"").success();
        assert_equal(&mut other.client(), &mut watched.primary().client());
        assert!(!copied.stderr.contains("warning"), "{}", copied.stderr);

        // Another primary, between two runs.
        watched.wait_for_replicas(2);
        let first = watched.primary().port();
        watched.fail_over();
        assert_ne!(watched.primary().port(), first);
        flush(&other);
        let export = run(&["export", &url], b"").success();
        run(&["import", &other.url()], &export.stdout).success();
        assert_equal(&mut watched.primary().client(), &mut other.client());

        // The primary dies, and the run begins before anybody knows.
        watched.wait_for_replicas(2);
        let second = watched.primary().port();
        watched.primary().kill();
        let export = run(&["export", &url, "--connect-timeout", "60s"], b"").success();
        watched.wait_for_another(second);
        flush(&other);
        run(&["import", &other.url()], &export.stdout).success();
        assert_equal(&mut watched.primary().client(), &mut other.client());

        // What is written goes to the new one.
        flush(watched.primary());
        let archive = export.stdout;
        run(&["import", &url], &archive).success();
        assert_equal(&mut other.client(), &mut watched.primary().client());
        run(&["import", &format!("{url}/7"), "--db", "0"], &archive)
            .success()
            .expect_stderr("import complete");
        let keys: u64 = redis::cmd("DBSIZE")
            .query(&mut watched.primary().client_db(7))
            .unwrap();
        assert!(keys > 0);
    }
}

#[test]
fn what_cannot_be_found_is_said_in_a_sentence() {
    for version in VERSIONS.into_iter().filter_map(require) {
        let setup = SentinelSetup {
            password: Some("s3ntinel".to_owned()),
            ..SentinelSetup::default()
        };
        let mut watched = Watched::start_with(version, setup, |builder| builder);
        redis::cmd("SET")
            .arg("k")
            .arg("v")
            .exec(&mut watched.primary().client())
            .unwrap();
        let url = watched.url();
        let output = run(&["export", &url], b"")
            .expect_code(12)
            .expect_stderr("the sentinel redis://127.0.0.1:")
            .expect_stderr("--sentinel-password-file");
        assert!(output.stderr.lines().count() < 4, "{}", output.stderr);
        // The password of the URL is for the server, and is not shown to sentinels.
        let wrong = url.replacen("://", "://:s3ntinel@", 1);
        run(&["export", &wrong], b"").expect_code(12);
        let with = |url: &str| {
            Tool::new(&["export", url]).env("SOURCE_REDIS_SENTINEL_PASSWORD", "s3ntinel")
        };
        let output = with(&url).run().success();
        assert!(!output.stderr.contains("s3ntinel"));
        // Now it is the server that has no password at all, which is said.
        with(&wrong)
            .run()
            .success()
            .expect_stderr("(primary of mymaster) needs no password");
        with(&url.replace("mymaster", "other"))
            .run()
            .expect_code(12)
            .expect_stderr("know no primary of this name; they watch mymaster");
        let there = watched.primary().port();
        run(
            &[
                "export",
                &format!("redis-sentinel://127.0.0.1:{there}/mymaster"),
            ],
            b"",
        )
        .expect_code(12)
        .expect_stderr("it is not a sentinel");
        run(
            &[
                "export",
                "redis-sentinel://127.0.0.1:1,127.0.0.1:2/mymaster",
            ],
            b"",
        )
        .expect_code(12)
        .expect_stderr("no sentinel answers (127.0.0.1:1: connection refused");

        // A primary that is gone, and nobody to take its place: bounded.
        for server in &mut watched.servers {
            server.kill();
        }
        with(&url)
            .arg("--connect-timeout=1s")
            .run()
            .expect_code(12)
            .expect_stderr("(primary of mymaster): connection refused");
        for sentinel in &mut watched.sentinels {
            sentinel.kill();
        }
        with(&url)
            .run()
            .expect_code(12)
            .expect_stderr("no sentinel answers");
    }
}

/// INFO and ROLE are nothing that is needed, and an address may lead elsewhere.
#[test]
fn least_rights_and_mapped_addresses() {
    for version in VERSIONS.into_iter().filter_map(require) {
        let rule = "least on >pw ~* -@all +scan +dump +pttl +select";
        let setup = SentinelSetup::default();
        let mut watched = Watched::start_with(version, setup, |builder| {
            builder.user(rule).user("default on nopass ~* &* +@all")
        });
        fill_every_type(&mut watched.primary().client(), version);
        let url = watched.url().replacen("://", "://least:pw@", 1);
        let proxy = Proxy::plain(watched.primary().addr());
        let map = format!(
            "127.0.0.1:{}=127.0.0.1:{}",
            watched.primary().port(),
            proxy.port()
        );
        let export = run(&["export", &url, "--node-map", &map], b"").success();
        assert!(proxy.connections() > 0);
        let other = TestServer::start(version);
        run(&["import", &other.url()], &export.stdout).success();
        let options = Options {
            functions: false,
            ttl_tolerance_ms: Some(1000),
            ..Options::default()
        };
        let found = differences(
            &mut watched.primary().client(),
            &mut other.client(),
            &options,
        );
        assert!(found.is_empty(), "{version}: {found:?}");
    }
}

#[test]
fn tls_to_sentinels_and_to_servers() {
    for version in VERSIONS.into_iter().filter_map(require_tls) {
        let server = TestServer::builder(version).tls().start();
        fill_every_type(&mut server.client(), version);
        let sentinel = tls_sentinel(&server);
        let url = format!("rediss-sentinel://localhost:{}/mymaster", sentinel.port());
        let ca = server.ca_file();
        let ca = ca.to_str().unwrap();
        let export = run(&["export", &url, "--cacert", ca], b"").success();
        let other = TestServer::start(version);
        run(&["import", &other.url()], &export.stdout).success();
        assert_equal(&mut server.client(), &mut other.client());
        run(&["export", &url], b"")
            .expect_code(12)
            .expect_stderr("certificate");
        // --sni is for the server: the sentinel is verified by its own name, and found.
        run(&["export", &url, "--cacert", ca, "--sni", "localhost"], b"").success();
        run(
            &["export", &url, "--cacert", ca, "--sni", "elsewhere.example"],
            b"",
        )
        .expect_code(12)
        .expect_stderr("(primary of mymaster)");
        let plain = url.replacen("rediss", "redis", 1);
        run(&["export", &plain, "--connect-timeout", "2s"], b"").expect_code(12);
    }
}

/// The primary dies while it is read, or is told to give way: the run goes on at the new one.
#[test]
fn a_failover_under_way_is_followed() {
    for version in VERSIONS.into_iter().filter_map(require) {
        for (consistency, kill) in [("scan", true), ("auto", false)] {
            let mut watched = Watched::start(version);
            fill_many(&mut watched.primary().client(), 20_000, 7);
            watched.wait_for_replicas(2);
            let first = watched.primary().port();
            // Far away, so that the run takes a while; the next primary is near.
            let delay = Direction {
                delay: Duration::from_millis(if kill { 10 } else { 40 }),
                ..Direction::default()
            };
            let proxy = Proxy::start(
                watched.primary().addr(),
                Rules {
                    to_client: delay,
                    ..Rules::default()
                },
            );
            let map = format!("127.0.0.1:{first}=127.0.0.1:{}", proxy.port());
            let url = watched.url();
            let other = TestServer::start(version);
            let there = other.url();
            let running = Tool::new(&["copy", &url, &there, "--scan-count", "50"])
                .arg("--on-conflict=replace")
                .arg(format!("--consistency={consistency}"))
                .arg(format!("--source-node-map={map}"))
                .spawn();
            let deadline = Instant::now() + Duration::from_secs(60);
            while proxy.bytes_to_client() < 300_000 {
                assert!(Instant::now() < deadline, "the run does not come forward");
                std::thread::sleep(Duration::from_millis(5));
            }
            if kill {
                watched.primary().kill();
                watched.wait_for_another(first);
            } else {
                watched.fail_over();
            }
            let output = running.wait().success();
            assert!(
                output.stderr.contains("reconnected"),
                "{version}, {consistency}:\n{}",
                output.stderr
            );
            assert_equal(&mut watched.primary().client(), &mut other.client());
        }
    }
}

/// The primary that is written dies: everything is at the next one, or the run says that no replica
/// had confirmed the last of it, and a second run completes it.
#[test]
fn a_destination_that_fails_over_gets_everything_or_is_no_success() {
    let rounds = std::env::var("FAULT_RUNS").ok();
    let rounds: u64 = rounds.and_then(|runs| runs.parse().ok()).unwrap_or(2);
    let (mut whole, mut honest) = (0, 0);
    for round in 0..rounds {
        let Some(version) = require(VERSIONS[round as usize % VERSIONS.len()]) else {
            continue;
        };
        let other = TestServer::start(version);
        fill_every_type(&mut other.client(), version);
        fill_many(&mut other.client(), 30_000, 7);
        let archive = run(&["export", &other.url(), "--consistency", "scan"], b"");
        let archive = archive.success().stdout;
        let mut watched = Watched::start(version);
        let first = watched.primary().port();
        let mut running = Tool::new(&["import", &watched.url(), "--connect-timeout", "60s"])
            .stdin_piped()
            .spawn();
        let mut stdin = running.stdin();
        let copy = archive.clone();
        let writer = std::thread::spawn(move || {
            // Slowly, so that the failover falls into it.
            for piece in copy.chunks(copy.len() / 50 + 1) {
                if stdin.write_all(piece).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(30));
            }
        });
        std::thread::sleep(Duration::from_millis(400 + 60 * (round % 15)));
        watched.primary().kill();
        watched.wait_for_another(first);
        let output = running.wait();
        writer.join().expect("the archive was written");
        let options = Options {
            ignore_zero_sign: true,
            ignore_delivery_times: true,
            ..Options::default()
        };
        let compare = |watched: &mut Watched| {
            let mut primary = watched.primary().client();
            differences(&mut other.client(), &mut primary, &options)
        };
        if output.code() == Some(0) {
            whole += 1;
        } else {
            honest += 1;
            let output = output.expect_code(3);
            assert!(
                output.stderr.contains("no replica had confirmed"),
                "{}",
                output.stderr
            );
            let again = ["import", &watched.url(), "--on-conflict", "skip"];
            run(&again, &archive).success();
        }
        let found = compare(&mut watched);
        assert!(found.is_empty(), "{version}, round {round}: {found:?}");
    }
    eprintln!("{whole} whole, {honest} told");
}

/// Told to give way, the old primary takes writes for seconds after the sentinels name another one,
/// and loses them.
#[test]
fn a_destination_that_gives_way_alive_gets_everything_or_is_no_success() {
    let Some(version) = require(VERSIONS[0]) else {
        return;
    };
    const KEYS: u64 = 3_000;
    for deletes in [false, true] {
        let source = TestServer::start(version);
        fill_many(&mut source.client(), KEYS, 7);
        let mut watched = Watched::start(version);
        let mut copy = Tool::new(&["copy", &source.url(), &watched.url()]).args(&[
            "--rate-limit",
            "800",
            "--consistency",
            "scan",
        ]);
        if deletes {
            copy = copy.arg("--delete-source");
        }
        let running = copy.spawn();
        let deadline = Instant::now() + Duration::from_secs(30);
        let size = |server: &TestServer| -> u64 {
            redis::cmd("DBSIZE").query(&mut server.client()).unwrap()
        };
        while size(watched.primary()) < 500 {
            assert!(Instant::now() < deadline, "nothing arrives");
            std::thread::sleep(Duration::from_millis(20));
        }
        watched.fail_over();
        let output = running.wait();
        let there = size(watched.primary());
        if output.code() == Some(0) {
            assert!(there >= KEYS, "{there} of {KEYS}: {}", output.stderr);
        } else {
            assert!(
                output.stderr.contains("may be missing") || output.stderr.contains("may be gone"),
                "{}",
                output.stderr
            );
        }
    }
}
