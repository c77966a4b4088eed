//! Clusters that the tests form.

use crate::support::cluster;
use crate::support::servers::{Version, require};

#[test]
fn a_cluster_forms_and_its_replicas_follow() {
    for version in [Version::Redis60, Version::Redis70, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        let cluster = cluster::TestCluster::start(version, 3, 1);
        let text = cluster::info(&mut cluster.nodes[5].client());
        assert!(text.contains("cluster_slots_ok:16384"), "{text}");
        assert!(text.contains("cluster_size:3"), "{text}");
    }
}
