//! A cluster as the destination.

use super::failover::import;
use super::moves::move_slot;
use crate::support::cluster::{ClusterClient, TestCluster, node_id, slot_of};
use crate::support::dataset::fill_every_type;
use crate::support::equality::{Options, assert_same};
use crate::support::many::fill_many;
use crate::support::proxy::Proxy;
use crate::support::reading::Side;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Tool, run};

/// Database 0 of a server with every type and many small keys, and its archive.
pub fn given(version: Version, many: u64) -> (TestServer, Vec<u8>) {
    let server = TestServer::start(version);
    fill_every_type(&mut server.client(), version);
    for db in Side::new(&mut server.client()).databases() {
        if db != 0 {
            let flush = redis::cmd("FLUSHDB");
            flush.exec(&mut server.client_db(db)).expect("FLUSHDB");
        }
    }
    fill_many(&mut server.client(), many, 5);
    let export = run(&["export", &server.url(), "--consistency", "scan"], b"").success();
    (server, export.stdout)
}

fn lenient() -> Options {
    Options {
        ignore_zero_sign: true,
        ignore_delivery_times: true,
        ..Options::default()
    }
}

#[track_caller]
pub fn assert_arrived(server: &TestServer, client: &mut ClusterClient) {
    let mut plain = server.client();
    assert_same(Side::new(&mut plain), Side::cluster(client), &lenient());
    for node in &mut client.nodes {
        let left: Vec<Vec<u8>> = redis::cmd("KEYS")
            .arg("__redis-migrate:*")
            .query(node)
            .expect("KEYS");
        assert!(left.is_empty(), "{left:?}");
    }
}

pub fn flush(client: &mut ClusterClient) {
    for node in &mut client.nodes {
        redis::cmd("FLUSHALL").exec(node).expect("FLUSHALL");
        redis::cmd("FUNCTION")
            .arg("FLUSH")
            .exec(node)
            .expect("FUNCTION FLUSH");
    }
}

fn libraries(client: &mut ClusterClient) -> Vec<usize> {
    let list = |node| -> Vec<redis::Value> {
        redis::cmd("FUNCTION")
            .arg("LIST")
            .query(node)
            .expect("FUNCTION LIST")
    };
    client
        .nodes
        .iter_mut()
        .map(|node| list(node).len())
        .collect()
}

#[test]
fn everything_arrives_at_its_slot_and_functions_at_every_primary() {
    for version in [Version::Redis70, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        let (server, archive) = given(version, 5_000);
        let mut tagged = server.client();
        for number in 0..50 {
            let key = format!("{{user:{}}}:{number}", number % 5);
            redis::cmd("SET")
                .arg(key)
                .arg("v")
                .exec(&mut tagged)
                .unwrap();
        }
        let cluster = TestCluster::start(version, 3, 1);
        let mut client = cluster.client();

        // A dry run says the same and writes nothing.
        let dry = run(&["import", &cluster.url(), "--dry-run"], &archive).success();
        assert!(dry.stderr.contains("would be restored"), "{}", dry.stderr);
        for node in &mut client.nodes {
            assert_eq!(redis::cmd("DBSIZE").query::<u64>(node).unwrap(), 0);
        }

        let copy = ["copy", &server.url(), &cluster.url()];
        run(&copy, b"").success();
        assert_arrived(&server, &mut client);
        let found = libraries(&mut client);
        assert!(found.len() == 3 && found.iter().all(|count| *count == found[0] && *count > 0));
        // A second time nothing is to be done, and anything else is told.
        run(&copy, b"").success().expect_stderr("unchanged");

        // From a replica just as well, and by commands.
        flush(&mut client);
        let replica = cluster.replicas()[0].url();
        run(&["import", &replica, "--method", "commands"], &archive).success();
        for number in 0..50 {
            let key = format!("{{user:{}}}:{number}", number % 5);
            redis::cmd("DEL").arg(key).exec(&mut tagged).unwrap();
        }
        assert_arrived(&server, &mut client);
    }
}

#[test]
fn values_that_are_too_large_are_built_in_their_slot() {
    let Some(version) = require(Version::Valkey91) else {
        return;
    };
    let server = TestServer::start(version);
    let mut plain = server.client();
    for number in 0..4 {
        let mut list = redis::cmd("RPUSH");
        list.arg(format!("list{{{number}"));
        for row in 0..3_000 {
            list.arg(format!("{row}:{}", "v".repeat(500 + row % 7)));
        }
        list.exec(&mut plain).unwrap();
    }
    let archive = run(&["export", &server.url()], b"").success().stdout;
    let cluster = TestCluster::start_with(version, 3, 0, |_, builder| {
        builder.option("--proto-max-bulk-len", "1mb")
    });
    run(&["import", &cluster.url()], &archive)
        .success()
        .expect_stderr("by native commands 4");
    assert_arrived(&server, &mut cluster.client());
}

#[test]
fn other_databases_are_refused_before_anything_is_written_unless_they_are_mapped() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    for (db, key) in [(0, "a"), (3, "b")] {
        redis::cmd("SET")
            .arg(key)
            .arg("v")
            .exec(&mut server.client_db(db))
            .unwrap();
    }
    let archive = run(&["export", &server.url()], b"").success().stdout;
    let cluster = TestCluster::start(version, 3, 0);
    let mut client = cluster.client();
    run(&["import", &cluster.url()], &archive)
        .expect_code(2)
        .expect_stderr("--map-db 3:0");
    run(&["copy", &server.url(), &cluster.url()], b"").expect_code(2);
    for node in &mut client.nodes {
        assert_eq!(redis::cmd("DBSIZE").query::<u64>(node).unwrap(), 0);
    }
    run(&["import", &cluster.url(), "--db", "0"], &archive).success();
    run(
        &[
            "import",
            &cluster.url(),
            "--map-db",
            "3:0",
            "--on-conflict",
            "skip",
        ],
        &archive,
    )
    .success();
    for key in ["a", "b"] {
        let value: String = redis::cmd("GET")
            .arg(key)
            .query(client.of(key.as_bytes()))
            .unwrap();
        assert_eq!(value, "v");
    }
    // Another key of that name, told as it comes.
    redis::cmd("SET")
        .arg("b")
        .arg("other")
        .exec(&mut server.client())
        .unwrap();
    flush(&mut client);
    run(
        &["copy", &server.url(), &cluster.url(), "--map-db", "3:0"],
        b"",
    )
    .expect_code(3)
    .expect_stderr("another key of the source");
}

/// The addresses that the nodes announce lead nowhere; the proxies lead to them.
#[test]
fn announced_addresses_are_mapped() {
    for version in [Version::Redis60, Version::Redis70, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        let (server, archive) = given(version, 1_000);
        let cluster = TestCluster::start_with(version, 3, 0, |number, builder| {
            builder.option("--cluster-announce-port", &(number + 1).to_string())
        });
        let nodes = cluster.nodes.iter();
        let proxies: Vec<Proxy> = nodes.map(|node| Proxy::plain(node.addr())).collect();
        let announced = [1, 2, 3].map(|port| format!("127.0.0.1:{port}"));
        let url = proxies[0].url();
        run(&["import", &url, "--connect-timeout", "2s"], &archive)
            .expect_code(12)
            .expect_stderr("announces a primary at 127.0.0.1:1")
            .expect_stderr("--node-map");
        let mut import = Tool::new(&["import", &url]);
        for (announced, proxy) in announced.iter().zip(&proxies) {
            import = import
                .arg("--node-map")
                .arg(format!("{announced}=127.0.0.1:{}", proxy.port()));
        }
        import.stdin_bytes(archive).run().success();
        for proxy in &proxies {
            assert!(proxy.bytes_to_server() > 10_000);
        }
        assert_arrived(&server, &mut cluster.client());
    }
}

/// Slots move from the first primary to the second, by hand and back, while keys are imported.
#[test]
fn slots_that_move_meanwhile_cost_nothing() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (server, archive) = given(version, 60_000);
    let cluster = TestCluster::start(version, 3, 0);
    for policy in ["fail", "replace"] {
        let mut client = cluster.client();
        flush(&mut client);
        let first_id = node_id(&mut cluster.nodes[0].client());
        let output = import(&cluster, &archive, 1, policy, || {
            for slot in (0..60).map(|number| number * 40) {
                let owner = &mut client.nodes[client.owners[slot]];
                let (from, to) = if node_id(owner) == first_id {
                    (0, 1)
                } else {
                    (1, 0)
                };
                move_slot(&cluster, slot as u16, from, to, || {});
            }
        });
        let moved = output.success();
        assert!(moved.stderr.contains("restored"), "{}", moved.stderr);
        // MIGRATE sends what is left of a life, and takes its time.
        let options = Options {
            ttl_tolerance_ms: Some(5000),
            ..lenient()
        };
        let (mut plain, mut client) = (server.client(), cluster.client());
        assert_same(Side::new(&mut plain), Side::cluster(&mut client), &options);
    }
}

#[test]
fn the_tests_count_slots_as_the_servers_do() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let node = TestServer::builder(version).cluster().start();
    for key in ["", "foo", "{a}b", "a{}b", "x{y}z{w}"] {
        let slot: u16 = redis::cmd("CLUSTER")
            .arg("KEYSLOT")
            .arg(key)
            .query(&mut node.client())
            .unwrap();
        assert_eq!(slot, slot_of(key.as_bytes()), "{key}");
    }
}

/// A single server and a cluster are two places, whatever the user of the cluster is told.
#[test]
fn a_user_with_the_least_rights_may_rename_into_a_cluster() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let cluster = TestCluster::start_with(version, 3, 0, |_, builder| {
        builder.user("least on >p ~* -@all +restore +select +cluster|slots +asking")
    });
    let source = TestServer::start(version);
    fill_many(&mut source.client(), 30, 5);
    let url = cluster.url().replace("redis://", "redis://least:p@");
    for number in 0..6 {
        let prefix = format!("p{number}:");
        run(&["copy", &source.url(), &url, "--add-prefix", &prefix], b"").success();
    }
}

/// One of its nodes is emptied while keys are moved there.
#[test]
fn delete_source_stops_where_a_node_is_emptied() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    const KEYS: u64 = 300;
    let cluster = TestCluster::start(version, 3, 0);
    let source = TestServer::start(version);
    let mut pipe = redis::pipe();
    for n in 0..KEYS {
        pipe.cmd("SET").arg(format!("k{n}")).arg("v").ignore();
    }
    pipe.exec(&mut source.client()).unwrap();
    let size =
        |server: &TestServer| -> u64 { redis::cmd("DBSIZE").query(&mut server.client()).unwrap() };
    let running = Tool::new(&["copy", &source.url(), &cluster.url()])
        .args(&["--delete-source", "--rate-limit", "100"])
        .spawn();
    while size(&source) > KEYS - 100 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    redis::cmd("FLUSHALL")
        .exec(&mut cluster.primaries()[1].client())
        .unwrap();
    let output = running
        .wait()
        .expect_code(1)
        .expect_stderr("had databases emptied or swapped")
        .expect_stderr("may be gone from both ends");
    let left = size(&source);
    assert!((50..250).contains(&left), "{left}: {}", output.stderr);
}
