//! Real servers as sources that are not what they seem: replicas that lag, servers that come back
//! empty, that send only so much to one client, and URLs that name one database of several.

use std::time::Duration;

use crate::support::many::fill_many;
use crate::support::proxy::{Direction, Proxy, Rules};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, Tool, run};

fn replica_of(version: Version, port: u16) -> TestServer {
    let port = port.to_string();
    TestServer::builder(version)
        .args(["--replicaof", "127.0.0.1", &port])
        .user("default on nopass ~* &* +@all")
        .user("noinfo on nopass ~* &* +@all -info")
        .user("neither on nopass ~* &* +@all -info -role")
        .start()
}

fn wait_for(server: &TestServer, line: &str) {
    for _ in 0..600 {
        let info: String = redis::cmd("INFO")
            .arg("replication")
            .query(&mut server.client())
            .unwrap();
        if info.contains(line) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("never {line}");
}

#[test]
fn a_replica_that_lags_is_read_only_where_that_is_allowed() {
    for version in [Version::Redis70, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        let mut primary = TestServer::start(version);
        fill_many(&mut primary.client(), 200, 1);
        let replica = replica_of(version, primary.port());
        wait_for(&replica, "master_link_status:up");
        let in_step = run(&["export", &replica.url()], b"")
            .success()
            .expect_stderr("exact as of");
        run(&["diff", "-", &primary.url()], &in_step.stdout).success();
        primary.kill();
        wait_for(&replica, "master_link_status:down");
        // And one that never heard of it.
        let empty = replica_of(version, primary.port());
        for stale in [&replica, &empty] {
            let url = stale.url();
            let login = |user: &str| format!("redis://{user}:any@127.0.0.1:{}", stale.port());
            let other = TestServer::start(version);
            for arguments in [
                &["export", &url][..],
                &["export", &url, "--via", "replica"],
                &["export", &login("noinfo")],
                &["copy", &url, &other.url()],
                &["diff", &url, &other.url()],
                &["diff", &other.url(), &url],
            ] {
                run(arguments, b"")
                    .expect_code(2)
                    .expect_stderr("--allow-stale");
            }
            let allowed = run(&["export", &url, "--allow-stale"], b"")
                .success()
                .expect_stderr("its link to its primary is down");
            assert!(
                !allowed.stderr.contains("exact as of"),
                "{}",
                allowed.stderr
            );
            let exact = ["export", &url, "--allow-stale", "--consistency", "converge"];
            run(&exact, b"").expect_code(4);
            run(&["copy", &url, &other.url(), "--allow-stale"], b"").success();
            run(&["diff", &url, &other.url(), "--allow-stale"], b"").success();
            run(&["export", &login("neither")], b"")
                .success()
                .expect_stderr(
                    "it is not known whether it is a replica that lags behind its primary",
                );
        }
    }
}

#[test]
fn what_the_database_of_the_url_leaves_out_is_said() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = TestServer::start(version);
    for (db, keys) in [(0, 20), (3, 5), (7, 2)] {
        fill_many(&mut source.client_db(db), keys, 1);
    }
    let destination = TestServer::start(version);
    let url = format!("{}/0", source.url());
    for arguments in [&["export", &url][..], &["copy", &url, &destination.url()]] {
        let output = run(arguments, b"").success();
        let last = output.stderr.lines().last().unwrap();
        let words = "database 0 only, as the URL says; 7 keys in 2 other databases were not read";
        assert!(last.contains(words), "{last}");
    }
    let words = "as the URL says";
    for arguments in [
        &["export", &source.url()][..],
        &["export", &source.url(), "--db", "0"],
        &["export", &url, "--db", "0,3,7"],
    ] {
        let output = run(arguments, b"").success();
        assert!(!output.stderr.contains(words), "{}", output.stderr);
    }
}

fn summary(output: &Output) -> serde_json::Value {
    output.summary()
}

#[test]
fn a_server_that_sends_only_so_much_to_one_client_is_asked_for_less() {
    for version in [Version::Redis60, Version::Redis70, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        let source = TestServer::builder(version)
            .args(["--client-output-buffer-limit", "normal", "4mb", "0", "0"])
            .option("--rdbcompression", "no")
            .start();
        let mut client = source.client();
        let mut set = |name: String, bytes: usize| {
            let mut set = redis::cmd("SET");
            set.arg(name)
                .arg(vec![b'x'; bytes])
                .exec(&mut client)
                .unwrap();
        };
        for number in 0..600 {
            set(format!("value:{number}"), 100_000);
        }
        set("value:larger".to_owned(), 12_000_000);
        for consistency in ["scan", "auto"] {
            let arguments = [
                "export",
                &source.url(),
                "--consistency",
                consistency,
                "--json",
            ];
            let export = run(&arguments, b"")
                .expect_code(3)
                .expect_stderr("value:larger")
                .expect_stderr("client-output-buffer-limit");
            let total = &summary(&export)["source"];
            assert_eq!(
                (&total["given"], &total["failed"]),
                (&600.into(), &1.into())
            );
            run(&["verify"], &export.stdout).success();
        }
    }
}

/// Killed in the middle, and back without its keys.
#[test]
fn a_source_that_comes_back_empty_is_not_called_complete() {
    for version in [Version::Redis60, Version::Redis70, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        for consistency in ["scan", "auto", "converge"] {
            for user in ["default", "noinfo"] {
                let acl = if version == Version::Redis60 {
                    "~* +@all"
                } else {
                    "~* &* +@all"
                };
                let mut source = TestServer::builder(version)
                    .user(&format!("default on nopass {acl}"))
                    .user(&format!("noinfo on nopass {acl} -info"))
                    .start();
                fill_many(&mut source.client(), 6_400, 1);
                // Held up by latency, so that the restart falls into the scan.
                let delay = Direction {
                    delay: Duration::from_millis(10),
                    ..Direction::default()
                };
                let rules = Rules {
                    to_client: delay,
                    ..Rules::default()
                };
                let proxy = Proxy::start(source.addr(), rules);
                let url = format!("redis://{user}:any@{}", proxy.addr());
                let tool = Tool::new(&["export", &url, "--scan-count", "50"])
                    .args(&["--consistency", consistency])
                    .spawn();
                while proxy.bytes_to_client() < 200_000 {
                    std::thread::sleep(Duration::from_millis(1));
                }
                source.kill();
                source.restart();
                let output = tool.wait().expect_code(3).expect_stderr("6,400 keys");
                let last = output.stderr.lines().last().unwrap();
                assert!(!last.contains("complete"), "{last}");
                assert!(!last.contains("exact as of"), "{last}");
            }
        }
    }
}

/// Before 7.0 a server tells what remains of a life, and when that is said matters.
#[test]
fn expiries_beside_large_values_are_as_exact_as_any() {
    for version in [Version::Redis60, Version::Redis62] {
        let Some(version) = require(version) else {
            continue;
        };
        let source = TestServer::builder(version)
            .option("--rdbcompression", "no")
            .start();
        let mut client = source.client();
        // Streams with groups are read in the last round, all at one instant.
        let mut stream = |name: &str, entries: usize| {
            for _ in 0..entries {
                let mut add = redis::cmd("XADD");
                add.arg(name).arg("*").arg("f").arg(vec![b'x'; 100_000]);
                add.exec(&mut client).unwrap();
            }
            let mut group = redis::cmd("XGROUP");
            group
                .arg("CREATE")
                .arg(name)
                .arg("g")
                .arg("$")
                .arg("MKSTREAM");
            group.exec(&mut client).unwrap();
            let mut expire = redis::cmd("PEXPIRE");
            expire.arg(name).arg(3_600_000).exec(&mut client).unwrap();
        };
        let names: Vec<String> = (0..8).map(|number| format!("small:{number}")).collect();
        for number in 0..3 {
            stream(&format!("large:{number}"), 80);
        }
        for name in &names {
            stream(name, 1);
        }
        let export = run(&["export", &source.url(), "--consistency", "converge"], b"")
            .success()
            .expect_stderr("exact as of");
        let list = run(&["list", "--json"], &export.stdout).success();
        let text = String::from_utf8_lossy(&list.stdout).into_owned();
        for name in &names {
            let (secs_micros, ttl): ((u64, u64), u64) = redis::pipe()
                .atomic()
                .cmd("TIME")
                .cmd("PTTL")
                .arg(name)
                .query(&mut client)
                .unwrap();
            let at_ms = secs_micros.0 * 1000 + secs_micros.1 / 1000 + ttl;
            let rows = text.lines().filter_map(|line| {
                let row: serde_json::Value = serde_json::from_str(line).ok()?;
                (row["key"] == name.as_str()).then(|| row["expire_at_ms"].as_u64())?
            });
            let told = rows.max().expect("an expiry");
            assert!(
                at_ms.abs_diff(told) <= 10,
                "{name}: {told} instead of {at_ms}"
            );
        }
    }
}
