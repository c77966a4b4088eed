//! From cluster to cluster, with passwords, users and TLS, and where commands are refused.

use redis::Connection;

use super::destination::assert_arrived;
use crate::support::cluster::{TestCluster, node_id};
use crate::support::dataset::fill_every_type;
use crate::support::equality::{Options, assert_same};
use crate::support::many::fill_many;
use crate::support::reading::Side;
use crate::support::servers::{TestServer, Version, require, require_tls};
use crate::support::tool::{Output, Tool, run};

/// The rule of README.md, section "Least rights", for what is exact.
const EXPORT: &str = "~* -@all +scan +dump +pttl +select +info +dbsize +pexpiretime +time +multi \
                      +exec +xinfo|stream +client|no-touch +object|idletime +object|freq \
                      +function|dump +hello +ping +client|tracking +cluster|slots +cluster|nodes \
                      +asking +readonly +eval";

/// The same for a whole import.
const IMPORT: &str = "~* -@all +dump +pttl +restore +select +info +pexpiretime +time \
                      +function|restore +function|list +module|list +exists +del +config|get \
                      +ping +client|id +client|kill +wait +cluster|slots +asking";

/// Database 0 of a server of this version, with every type and many small keys.
fn filled(version: Version) -> TestServer {
    let server = TestServer::builder(version)
        .option("--databases", "1")
        .start();
    fill_every_type(&mut server.client(), version);
    fill_many(&mut server.client(), 3_000, 11);
    server
}

#[track_caller]
fn assert_equal_clusters(left: &TestCluster, right: &TestCluster) {
    let options = Options {
        ignore_zero_sign: true,
        ignore_delivery_times: true,
        ..Options::default()
    };
    let (mut left, mut right) = (left.client(), right.client());
    assert_same(
        Side::cluster(&mut left),
        Side::cluster(&mut right),
        &options,
    );
}

#[test]
fn a_cluster_is_copied_into_another() {
    let (Some(old), Some(new)) = (require(Version::Redis70), require(Version::Valkey91)) else {
        return;
    };
    let server = filled(old);
    let source = TestCluster::start(old, 3, 0);
    source.client().fill_from(&mut server.client());
    let destination = TestCluster::start(new, 2, 1);
    run(&["copy", &source.url(), &destination.url()], b"").success();
    assert_equal_clusters(&source, &destination);
    run(&["diff", &source.url(), &destination.url()], b"").success();
}

#[test]
fn databases_of_a_server_are_merged_into_a_cluster_as_they_are_mapped() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    fill_many(&mut server.client(), 2_000, 1);
    for number in 0..500 {
        redis::cmd("HSET")
            .arg(format!("three:{number}"))
            .arg("field")
            .arg(number)
            .exec(&mut server.client_db(3))
            .expect("HSET");
    }
    let cluster = TestCluster::start(version, 3, 0);
    let copy = ["copy", &server.url(), &cluster.url()];
    run(&copy, b"").expect_code(2).expect_stderr("--map-db 3:0");
    // The advice names the source's database, also where it was mapped.
    run(&[&copy[..], &["--map-db", "3:7"]].concat(), b"")
        .expect_code(2)
        .expect_stderr("as database 7; --map-db 3:0");
    for node in cluster.primaries() {
        let keys = redis::cmd("DBSIZE").query::<u64>(&mut node.client());
        assert_eq!(keys.expect("DBSIZE"), 0);
    }
    run(&[&copy[..], &["--map-db", "3:0"]].concat(), b"").success();
    let options = Options {
        db_map: vec![(3, 0)],
        ..Options::default()
    };
    let (mut plain, mut client) = (server.client(), cluster.client());
    assert_same(Side::new(&mut plain), Side::cluster(&mut client), &options);
}

#[test]
fn users_of_clusters_need_the_documented_rights_and_no_more() {
    for version in [Version::Redis70, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        let server = filled(version);
        // Before 7.2 there is no such thing, and ACL refuses what is not there.
        let reader = match version {
            Version::Redis70 => EXPORT.replace("+client|no-touch ", ""),
            _ => EXPORT.to_owned(),
        };
        let with_users = || {
            TestCluster::start_with(version, 3, 1, |_, builder| {
                builder
                    .user("default on >h3dden ~* &* +@all")
                    .user(&format!("reader on >r3ader {reader}"))
                    .user(&format!("writer on >wr1ter {IMPORT}"))
                    .known_password("h3dden")
                    .option("--masterauth", "h3dden")
            })
        };
        let (source, destination) = (with_users(), with_users());
        source.client().fill_from(&mut server.client());
        let (from, to) = (source.url(), destination.url());
        run(&["copy", &from, &to], b"").expect_code(12);
        let as_user = |url: &str, who: &str| url.replacen("://", &format!("://{who}@"), 1);
        let wrong = as_user(&from, "reader:wr0ng");
        let output = run(&["export", &wrong], b"").expect_code(12);
        assert!(!output.stderr.contains("wr0ng"), "{}", output.stderr);

        let (from, to) = (
            as_user(&from, "reader:r3ader"),
            as_user(&to, "writer:wr1ter"),
        );
        let output = run(&["copy", &from, &to, "--consistency", "converge"], b"").success();
        for word in ["r3ader", "wr1ter", "h3dden", "refuses"] {
            assert!(!output.stderr.contains(word), "{}", output.stderr);
        }
        assert_equal_clusters(&source, &destination);

        // The password alone, from the environment.
        Tool::new(&[
            "copy",
            &source.url(),
            &destination.url(),
            "--on-conflict",
            "replace",
        ])
        .env("SOURCE_REDIS_PASSWORD", "h3dden")
        .env("DESTINATION_REDIS_PASSWORD", "h3dden")
        .run()
        .success();
        assert_equal_clusters(&source, &destination);
    }
}

/// Only a Valkey says both its ports to others while the nodes talk in the clear.
#[test]
fn all_nodes_are_reached_over_tls() {
    let Some(version) = require_tls(Version::Valkey91) else {
        return;
    };
    let server = filled(version);
    let cluster = TestCluster::start_with(version, 3, 0, |_, builder| builder.tls());
    // Each node has an authority of its own.
    let directory = tempfile::tempdir().expect("a directory");
    let trusted = directory.path().join("all.pem");
    let each = cluster.nodes.iter();
    let texts = each.map(|node| std::fs::read(node.ca_file()).expect("an authority"));
    std::fs::write(&trusted, texts.collect::<Vec<_>>().concat()).expect("the authorities");
    let trusted = trusted.to_str().expect("a plain name");

    let url = cluster.nodes[0].tls_url();
    let archive = run(&["export", &server.url()], b"").success().stdout;
    run(&["import", &url, "--cacert", trusted], &archive).success();
    assert_arrived(&server, &mut cluster.client());
    let export = run(&["export", &url, "--cacert", trusted], b"").success();
    let back = TestServer::start(version);
    run(&["import", &back.url()], &export.stdout).success();
    assert_arrived(&back, &mut cluster.client());

    // One that is not vouched for is not talked to.
    let first = cluster.nodes[0].ca_file();
    let first = first.to_str().expect("a plain name");
    run(&["export", &url, "--cacert", first], b"")
        .expect_code(12)
        .expect_stderr("certificate");
}

/// Exports from nodes that refuse something; the same keys come however it ends.
fn refusing(version: Version, refused: &str) -> impl Fn(&str, i32) -> Output {
    let cluster = TestCluster::start_with(version, 3, 0, |_, builder| {
        builder.user(&format!("default on nopass ~* &* +@all {refused}"))
    });
    let server = filled(version);
    cluster.client().fill_from(&mut server.client());
    move |consistency, code| {
        let output = run(
            &["export", &cluster.url(), "--consistency", consistency],
            b"",
        )
        .expect_code(code);
        let back = TestServer::start(version);
        run(&["import", &back.url()], &output.stdout).success();
        assert_arrived(&back, &mut cluster.client());
        output
    }
}

#[test]
fn a_refused_script_or_pause_costs_exactness_and_no_keys() {
    for version in [Version::Redis70, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        let export = refusing(version, "-eval");
        export("converge", 4).expect_stderr("EVAL");
        export("auto", 0).expect_stderr("EVAL");
        let output = export("pause", 0);
        assert!(!output.stderr.contains("refuses"), "{}", output.stderr);

        let export = refusing(version, "-client|pause");
        export("pause", 4).expect_stderr("the source refuses CLIENT PAUSE");
        let output = export("converge", 0);
        assert!(!output.stderr.contains("PAUSE"), "{}", output.stderr);
    }
}

/// Two of three nodes do not have the key that commands are tried on.
#[test]
fn every_node_is_asked_for_moments_and_for_idle_times() {
    for version in [Version::Redis70, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        let cluster = TestCluster::start(version, 3, 0);
        cluster.client().fill_from(&mut filled(version).client());
        let export = ["export", &cluster.url(), "--consistency"];
        for consistency in ["scan", "converge"] {
            let export = [&export[..], &[consistency, "--eviction"]].concat();
            let output = run(&export, b"").success();
            assert!(!output.stderr.contains("refuses"), "{}", output.stderr);
        }
        // Who copies the data set asks for PTTL elsewhere.
        for node in &cluster.nodes {
            let mut client = node.client();
            assert!(calls(&mut client, "pexpiretime") > 500, "{version}");
            assert!(calls(&mut client, "object|idletime") > 500, "{version}");
            // Whether it is to be had is tried on a key that is not there, and no key is asked.
            assert!(calls(&mut client, "pttl") <= 4, "{version}");
        }
    }
}

/// How often a node answered with this error, as it counts itself.
pub fn errors(node: &mut Connection, code: &str) -> u64 {
    count(node, "errorstats", &format!("errorstat_{code}:count="))
}

/// How often a command was carried out.
pub fn calls(node: &mut Connection, command: &str) -> u64 {
    count(node, "commandstats", &format!("cmdstat_{command}:calls="))
}

fn count(node: &mut Connection, section: &str, before: &str) -> u64 {
    let text: String = redis::cmd("INFO").arg(section).query(node).expect("INFO");
    let rest = text.lines().find_map(|line| line.strip_prefix(before));
    let number = rest.and_then(|rest| rest.split(',').next()?.parse().ok());
    number.unwrap_or(0)
}

/// The id of the node at a place.
pub fn id_at(cluster: &TestCluster, at: usize) -> String {
    node_id(&mut cluster.nodes[at].client())
}
