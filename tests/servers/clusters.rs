//! Clusters that the tests form.

use crate::support::cluster;
use crate::support::dataset::fill_every_type;
use crate::support::equality::{self, Kind, Options};
use crate::support::reading::Side;
use crate::support::servers::{TestServer, Version, require};

#[test]
fn a_cluster_forms_and_its_replicas_follow() {
    let versions = [
        Version::Redis32,
        Version::Redis50,
        Version::Redis60,
        Version::Redis70,
        Version::Redis86,
        Version::Valkey91,
    ];
    let versions: Vec<Version> = versions.into_iter().filter_map(require).collect();
    // The nodes wait for each other most of the time.
    std::thread::scope(|scope| {
        for &version in &versions {
            scope.spawn(move || {
                let cluster = cluster::TestCluster::start(version, 3, 1);
                let text = cluster::info(&mut cluster.nodes[5].client());
                assert!(text.contains("cluster_slots_ok:16384"), "{version}: {text}");
                assert!(text.contains("cluster_size:3"), "{version}: {text}");
            });
        }
    });
}

#[test]
fn a_cluster_is_compared_as_one_side() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    fill_every_type(&mut server.client(), version);
    let mut plain = server.client();
    for db in Side::new(&mut plain).databases() {
        if db != 0 {
            let flush = redis::cmd("FLUSHDB");
            flush.exec(&mut server.client_db(db)).expect("FLUSHDB");
        }
    }
    let cluster = cluster::TestCluster::start(version, 3, 0);
    let mut client = cluster.client();
    client.fill_from(&mut plain);
    let options = Options {
        ttl_tolerance_ms: Some(5000),
        ..Options::default()
    };
    equality::assert_same(Side::new(&mut plain), Side::cluster(&mut client), &options);
    equality::assert_same(Side::cluster(&mut client), Side::new(&mut plain), &options);
    let mut set = redis::cmd("SET");
    set.arg("only:here").arg("v");
    set.exec(client.of(b"only:here")).expect("SET");
    let mut found = |swapped: bool| {
        let (plain, cluster) = (Side::new(&mut plain), Side::cluster(&mut client));
        let (left, right) = if swapped {
            (cluster, plain)
        } else {
            (plain, cluster)
        };
        let found = equality::compare(left, right, &options);
        found
            .iter()
            .map(|difference| difference.kind)
            .collect::<Vec<_>>()
    };
    assert_eq!(found(false), [Kind::Extra]);
    assert_eq!(found(true), [Kind::Missing]);
}
