//! Replicas of a cluster that do not hear of their primaries.

use std::time::Duration;

use super::place::{Place, dbsize, export, fill};
use crate::support::cluster::TestCluster;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::Tool;

/// The replica gets nothing from its primary any more, and cannot come back.
fn cut_off(primary: &mut redis::Connection) {
    for words in [
        &["CONFIG", "SET", "requirepass", "secret"][..],
        &["CLIENT", "KILL", "TYPE", "replica"],
    ] {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).exec(primary).expect("cut off");
    }
}

#[test]
fn a_replica_that_is_not_known_to_be_in_step_is_not_read() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let cluster = TestCluster::start_with(version, 1, 1, |_, builder| {
        builder
            .user("default on nopass ~* &* +@all")
            .user("mute on >h3dden ~* &* +@all -info -role")
            .user("half on >h3dden ~* &* +@all -info")
    });
    fill(&cluster, 600);
    let mut primary = cluster.nodes[0].client();
    let port = cluster.nodes[0].port();
    let url = |user: &str| format!("redis://{user}:h3dden@127.0.0.1:{port}");
    let place = Place::new();
    let file = place.file("some.rmz");
    let from_replicas = ["--read-from", "replica"];

    // The link breaks while the replica is read: it no longer tells what changes.
    let running = Tool::new(&["export", &url("half"), "-o", &file, "--json"])
        .args(&from_replicas)
        .args(&["--rate-limit", "300"])
        .spawn();
    std::thread::sleep(Duration::from_millis(700));
    cut_off(&mut primary);
    let output = running.wait();
    let reached = output.summary()["source"]["consistency"].to_string();
    assert!(reached.contains("\"scan\""), "{reached}: {}", output.stderr);
    let output = output.expect_stderr("its link to its primary is down");
    assert!(!output.stderr.contains("every key"), "{}", output.stderr);

    for number in 0..50 {
        let mut set = redis::cmd("SET");
        set.arg(format!("late:{number}")).arg("value");
        set.exec(&mut primary).expect("SET");
    }
    assert_eq!(dbsize(&mut primary), 650);
    for (user, reason) in [
        ("mute", "it refuses INFO and ROLE"),
        ("half", "its link to its primary is down"),
    ] {
        for how in ["scan", "auto"] {
            let more = ["--consistency", how, from_replicas[0], from_replicas[1]];
            let output = export(&url(user), &file, &more).success();
            assert_eq!(output.summary()["source"]["given"], 650, "{user} {how}");
            output
                .expect_stderr(reason)
                .expect_stderr("has no replica that can be read");
            let server = TestServer::start(version);
            Tool::new(&["import", &server.url(), &file]).run().success();
            assert_eq!(dbsize(&mut server.client()), 650, "{user} {how}");
        }
    }
}
