//! Nodes that give all their slots away while a cluster is written, as when it is scaled in. From
//! Redis 7.0 on they become replicas then, as a primary does that lost a failover.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::Connection;

use super::between::id_at;
use super::failover::wait_for;
use super::place::{dbsize, wait_until_it_has};
use super::resharding::{MOVED, crowded, migrate_range, reshard, wait_until_agreed};
use crate::support::cluster::TestCluster;
use crate::support::equality::{Options, assert_same};
use crate::support::reading::Side;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, Tool, run};

/// Imports, with `fault` in the midst of it: once `first` has keys, and before it has all.
fn import_during(
    url: &str,
    archive: &[u8],
    first: &mut Connection,
    fault: impl FnOnce(),
) -> Output {
    const PIECES: usize = 1_000;
    const BEHIND: usize = PIECES / 4;
    let mut running = Tool::new(&["import", url]).stdin_piped().spawn();
    let mut stdin = running.stdin();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let pieces = archive.chunks(archive.len() / PIECES + 1);
            let count = pieces.len();
            for (number, piece) in pieces.enumerate() {
                // What ends early is seen by its exit code.
                if stdin.write_all(piece).is_err() {
                    return;
                }
                if !is_over.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(10));
                }
                while number + BEHIND >= count && !is_over.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            drop(stdin);
        });
        wait_until_it_has(first, 2_000);
        fault();
        is_over.store(true, Ordering::Relaxed);
    });
    running.wait()
}

/// Leaves the first node only its first slots, before there are any keys.
fn leave_little(cluster: &TestCluster) {
    let id = id_at(cluster, 1);
    // The taker first.
    for at in [1, 0, 2] {
        let mut pipe = redis::pipe();
        for slot in MOVED..=5461 {
            pipe.cmd("CLUSTER").arg("SETSLOT").arg(slot);
            pipe.arg("NODE").arg(&id).ignore();
        }
        pipe.exec(&mut cluster.nodes[at].client())
            .expect("CLUSTER SETSLOT");
    }
    wait_until_agreed(cluster);
}

fn role(client: &mut Connection) -> String {
    let text: String = redis::cmd("INFO")
        .arg("replication")
        .query(client)
        .expect("INFO replication");
    let role = text.lines().find_map(|line| line.strip_prefix("role:"));
    role.expect("a role").to_owned()
}

#[track_caller]
fn assert_all_there(server: &TestServer, cluster: &TestCluster) {
    let (mut plain, mut client) = (server.client(), cluster.client());
    let (plain, client) = (Side::new(&mut plain), Side::cluster(&mut client));
    assert_same(plain, client, &Options::default());
}

#[test]
fn a_node_that_is_drained_by_the_servers_tool_costs_nothing() {
    for version in [Version::Redis60, Version::Redis70, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        let server = crowded(version);
        let archive = run(&["export", &server.url()], b"").success().stdout;
        let cluster = TestCluster::start(version, 3, 0);
        leave_little(&cluster);
        let output = import_during(
            &cluster.url(),
            &archive,
            &mut cluster.nodes[0].client(),
            || reshard(&cluster, 0, 1),
        );
        let output = output.success();
        assert!(output.stderr.contains("restored"), "{}", output.stderr);
        // Else this would show nothing.
        let is_replica = role(&mut cluster.nodes[0].client()) == "slave";
        assert_eq!(is_replica, version != Version::Redis60, "{version}");
        assert_all_there(&server, &cluster);
    }
}

/// Where INFO is refused, the slots tell.
#[test]
fn a_node_that_is_drained_costs_nothing_where_info_is_refused() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = crowded(version);
    let archive = run(&["export", &server.url()], b"").success().stdout;
    let cluster = TestCluster::start_with(version, 3, 0, |_, builder| {
        builder.user("mover on >pass ~* &* +@all -info")
    });
    leave_little(&cluster);
    let url = format!("redis://mover:pass@127.0.0.1:{}", cluster.nodes[0].port());
    import_during(&url, &archive, &mut cluster.nodes[0].client(), || {
        reshard(&cluster, 0, 1)
    })
    .success();
    assert_eq!(role(&mut cluster.nodes[0].client()), "slave");
    assert_all_there(&server, &cluster);
}

/// Its slots move at once, and it is shut down.
#[test]
fn a_drained_node_may_go() {
    let Some(version) = require(Version::Valkey91) else {
        return;
    };
    let server = crowded(version);
    let archive = run(&["export", &server.url()], b"").success().stdout;
    let mut cluster = TestCluster::start(version, 3, 0);
    leave_little(&cluster);
    let url = cluster.url();
    let mut first = cluster.nodes[0].client();
    import_during(&url, &archive, &mut first, || {
        migrate_range(&cluster, 0..=MOVED - 1, 0, 2);
        let mut drained = cluster.nodes[0].client();
        wait_for(&mut drained, &["INFO", "replication"], "role:slave");
        // The tool has seen where the slots are.
        let mut taker = cluster.nodes[2].client();
        let moved = dbsize(&mut taker);
        wait_until_it_has(&mut taker, moved + 1);
        cluster.nodes[0].kill();
    })
    .success();
    assert_all_there(&server, &cluster);
}

#[test]
fn a_node_that_is_drained_does_not_stop_a_copy_that_deletes_at_its_source() {
    let Some(version) = require(Version::Valkey91) else {
        return;
    };
    let (server, kept) = (crowded(version), crowded(version));
    let cluster = TestCluster::start(version, 3, 0);
    leave_little(&cluster);
    let copy = ["copy", &server.url(), &cluster.url(), "--delete-source"];
    let running = Tool::new(&copy).args(&["--rate-limit", "6000"]).spawn();
    wait_until_it_has(&mut cluster.nodes[0].client(), 2_000);
    migrate_range(&cluster, 0..=MOVED - 1, 0, 1);
    let left = dbsize(&mut server.client());
    running.wait().success();
    assert!(left > 0, "it was over already");
    assert_eq!(role(&mut cluster.nodes[0].client()), "slave");
    assert_eq!(dbsize(&mut server.client()), 0);
    assert_all_there(&kept, &cluster);
}

/// The second node is drained into the first, unseen because no key goes there, and takes over from
/// it without what came last. It had slots of its own before, and yet was a replica meanwhile.
#[test]
fn a_drained_node_that_takes_over_without_the_last_is_no_success() {
    let Some(version) = require(Version::Valkey91) else {
        return;
    };
    let server = crowded(version);
    let archive = run(&["export", &server.url()], b"").success().stdout;
    let cluster = TestCluster::start_with(version, 3, 0, |_, builder| {
        builder.option("--repl-diskless-sync-delay", "0")
    });
    let mut first = cluster.nodes[0].client();
    let mut second = cluster.nodes[1].client();
    let mut watched = cluster.nodes[0].client();
    let output = import_during(&cluster.url(), &archive, &mut watched, || {
        migrate_range(&cluster, 5462..=10_923, 1, 0);
        wait_for(
            &mut second,
            &["INFO", "replication"],
            "master_link_status:up",
        );
        // From here on it gets nothing any more.
        let mut lock = redis::cmd("ACL");
        lock.arg("SETUSER")
            .arg("default")
            .arg("-psync")
            .arg("-sync");
        lock.exec(&mut first).expect("no replication");
        let mut cut = redis::cmd("CLIENT");
        cut.arg("KILL").arg("TYPE").arg("replica");
        cut.exec(&mut first).expect("cut off");
        let reached = dbsize(&mut first);
        wait_until_it_has(&mut first, reached + 100);
        let mut take_over = redis::cmd("CLUSTER");
        take_over.arg("FAILOVER").arg("TAKEOVER");
        take_over.exec(&mut second).expect("it takes over");
        wait_for(&mut first, &["INFO", "replication"], "role:slave");
    });
    output
        .expect_code(3)
        .expect_stderr("what it had acknowledged before and not saved is gone");
    run(
        &["import", &cluster.nodes[1].url(), "--on-conflict", "skip"],
        &archive,
    )
    .success();
    assert_all_there(&server, &cluster);
}
