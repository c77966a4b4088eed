//! A node that is started again without its data: what came of it so far is perhaps the only copy.

use std::time::{Duration, Instant};

use super::place::{Place, dbsize, fill, imported};
use crate::support::cluster::TestCluster;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::Tool;

/// So many keys of both nodes are read by the slow ones in some seconds.
const KEYS: u64 = 900;

fn wait_for_keys(server: &TestServer, at_least: u64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while dbsize(&mut server.client()) < at_least {
        assert!(Instant::now() < deadline, "the keys do not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One node is killed once, while four runs read it: one that had read everything and follows, and
/// three that are in the middle.
#[test]
fn what_a_node_lost_with_its_process_is_not_deleted() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let mut cluster = TestCluster::start(version, 2, 0);
    fill(&cluster, KEYS);
    let kept = dbsize(&mut cluster.nodes[0].client());
    let url = cluster.url();
    let place = Place::new();
    let slowly = ["--rate-limit", "300"];
    let [follows, copies] = [(); 2].map(|()| TestServer::start(version));
    let following = Tool::new(&["copy", &url, &follows.url(), "--follow"])
        .args(&["--until-idle", "30s"])
        .spawn();
    wait_for_keys(&follows, KEYS);
    let copying = Tool::new(&["copy", &url, &copies.url()])
        .args(&slowly)
        .spawn();
    let exporting = ["scan", "auto"].map(|how| {
        let file = place.file(how);
        Tool::new(&["export", &url, "-o", &file, "--consistency", how])
            .args(&slowly)
            .spawn()
    });
    wait_for_keys(&copies, KEYS / 5);
    let came = dbsize(&mut copies.client());
    cluster.nodes[1].kill();
    // Nobody goes on waiting for the same process, as at a short interruption.
    std::thread::sleep(Duration::from_millis(1_500));
    cluster.nodes[1].restart();
    assert_eq!(dbsize(&mut cluster.nodes[1].client()), 0);
    for running in [following, copying] {
        running
            .wait()
            .expect_code(1)
            .expect_stderr("and has no key")
            .expect_stderr("nothing is deleted because of it");
    }
    assert_eq!(dbsize(&mut follows.client()), KEYS);
    assert!(dbsize(&mut copies.client()) >= came);
    for (how, running) in ["scan", "auto"].into_iter().zip(exporting) {
        let output = running.wait().expect_code(3);
        let output = output.expect_stderr("what was not read before is missing");
        assert!(!output.stderr.contains("exact as of"), "{}", output.stderr);
        // What had come of the lost node is in the archive, beside all of the other one.
        let server = imported(version, &[place.file(how)]);
        assert!(dbsize(&mut server.client()) > kept, "{how}");
    }

    // The other one is away for so short a time that the connection to it is made again.
    let follows = TestServer::start(version);
    let following = Tool::new(&["copy", &url, &follows.url(), "--follow"])
        .args(&["--until-idle", "30s"])
        .spawn();
    wait_for_keys(&follows, kept);
    cluster.nodes[0].restart();
    following
        .wait()
        .expect_code(1)
        .expect_stderr("nothing is deleted because of it");
    assert_eq!(dbsize(&mut follows.client()), kept);
}
