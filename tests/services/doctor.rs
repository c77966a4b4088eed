//! `doctor` at clusters, replicas and behind sentinels: that it describes what is there, that its
//! rules are enough, and that what it foretells is what happens.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::cluster::TestCluster;
use crate::support::dataset::fill_every_type;
use crate::support::equality::{Options, assert_same};
use crate::support::reading::Side;
use crate::support::sentinel::{NAME, Watched};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Tool, run};

const VERSIONS: [Version; 2] = [Version::Redis70, Version::Valkey91];

/// The report, as JSON.
fn report(arguments: &[&str]) -> Value {
    report_ending_with(0, arguments)
}

fn report_ending_with(code: i32, arguments: &[&str]) -> Value {
    let mut all = vec!["doctor", "--json"];
    all.extend(arguments);
    let output = run(&all, b"").expect_code(code);
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

/// What it says about something: the verdict and the sentence.
fn promise<'a>(report: &'a Value, job: &str, about: &str) -> (&'a str, &'a str) {
    let promises = report[job]["promises"].as_array().expect("promises");
    let row = promises.iter().find(|row| row["about"] == about);
    let row = row.unwrap_or_else(|| panic!("nothing about {about} in {promises:#?}"));
    let text = |name: &str| row[name].as_str().expect("text");
    (text("verdict"), text("text"))
}

/// Makes a user with this rule on every node; the URL of the first node with it.
fn user(cluster: &TestCluster, name: &str, rule: &str) -> String {
    for node in &cluster.nodes {
        let mut set = redis::cmd("ACL");
        set.arg("SETUSER")
            .arg(name)
            .arg("reset")
            .arg("on")
            .arg(">pw");
        set.arg(rule.split(' ').collect::<Vec<_>>());
        set.exec(&mut node.client())
            .unwrap_or_else(|error| panic!("{}: {rule}: {error}", node.version()));
    }
    cluster.url().replacen("://", &format!("://{name}:pw@"), 1)
}

/// Whether three shards with a replica each are told.
fn is_complete(report: &Value) -> bool {
    let shards = report["server"]["layout"]["shards"].as_array();
    shards.is_some_and(|shards| {
        let has_one = |shard: &Value| {
            shard["replicas"]
                .as_array()
                .is_some_and(|all| all.len() == 1)
        };
        shards.len() == 3 && shards.iter().all(has_one)
    })
}

/// A server with every type in database 0 only.
fn one_database(version: Version) -> TestServer {
    let server = TestServer::start(version);
    fill_every_type(&mut server.client(), version);
    for db in 1..16 {
        redis::cmd("FLUSHDB")
            .exec(&mut server.client_db(db))
            .unwrap();
    }
    server
}

#[test]
fn a_cluster_is_shown_shard_by_shard_and_its_rules_are_enough() {
    for version in VERSIONS.into_iter().filter_map(require) {
        let plain = one_database(version);
        let (cluster, other) = (
            TestCluster::start(version, 3, 1),
            TestCluster::start(version, 3, 0),
        );
        cluster.client().fill_from(&mut plain.client());
        let keys: u64 = redis::cmd("DBSIZE").query(&mut plain.client()).unwrap();

        // Who follows whom gets about by gossip.
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut seen = report(&[&cluster.url()]);
        while !is_complete(&seen) {
            assert!(Instant::now() < deadline, "{version}: {seen:#}");
            std::thread::sleep(Duration::from_millis(200));
            seen = report(&[&cluster.url()]);
        }
        let layout = &seen["server"]["layout"];
        assert_eq!(layout["kind"], "cluster");
        assert_eq!(layout["keys"], keys, "{version}");
        assert_eq!(layout["slots_not_served"], 0);
        let shards = layout["shards"].as_array().expect("shards");
        assert_eq!(shards.len(), 3);
        for (shard, node) in shards.iter().zip(cluster.primaries()) {
            assert_eq!(shard["primary"], node.addr().to_string());
            assert_eq!(shard["version"], version.exact());
        }
        for job in ["export", "import"] {
            assert_eq!(seen[job]["possible"], true, "{version}: {seen:#}");
            assert_eq!(promise(&seen, job, "cluster").0, "yes");
        }
        assert_eq!(promise(&seen, "export", "moment").0, "yes");
        assert_eq!(seen["accepts"]["probed"], true, "{version}");
        let text = run(&["doctor", &cluster.url()], b"").success().stdout;
        let text = String::from_utf8(text).expect("text");
        assert!(text.contains("a node of a cluster of 3 shards"), "{text}");
        assert!(text.contains("0-5461"), "{text}");
        // A replica of it is as good an entrance.
        let seen_there = report(&[&cluster.replicas()[0].url()]);
        assert_eq!(seen_there["import"]["possible"], true, "{seen_there:#}");
        assert_eq!(seen_there["server"]["layout"]["keys"], keys);

        // Users with exactly the rights that are printed.
        for kind in ["least", "full"] {
            for node in other.primaries() {
                for command in [&["FLUSHALL"][..], &["FUNCTION", "FLUSH"]] {
                    let mut flush = redis::Cmd::new();
                    flush.arg(command).exec(&mut node.client()).unwrap();
                }
            }
            let rule = |job: &str| seen[job][format!("acl_{kind}")].as_str().expect("a rule");
            let exporter = user(&cluster, "exporter", rule("export"));
            let importer = user(&other, "importer", rule("import"));
            let flags: &[&str] = match kind {
                "full" => &["--consistency=converge", "--functions"],
                _ => &["--no-functions"],
            };
            let export = Tool::new(&["export", &exporter])
                .args(flags)
                .run()
                .success();
            let import = run(&["import", &importer], &export.stdout).success();
            if kind == "full" {
                for output in [&export, &import] {
                    assert!(!output.stderr.contains("refuses"), "{}", output.stderr);
                }
            }
            let options = Options {
                functions: kind == "full",
                ttl_tolerance_ms: Some(5000),
                ..Options::default()
            };
            assert_same(
                Side::cluster(&mut cluster.client()),
                Side::cluster(&mut other.client()),
                &options,
            );
        }
        let exporter = user(&cluster, "exporter", "~* &* +@all -eval");
        let seen = report(&[&exporter]);
        assert_eq!(promise(&seen, "export", "moment").0, "less");
        // CLUSTER NODES alone cannot be refused before 7.0.
        if version.is_at_least_7() {
            let exporter = user(&cluster, "exporter", "~* &* +@all -cluster|nodes");
            let seen = report(&[&exporter]);
            assert_eq!(promise(&seen, "export", "moment").0, "less");
            assert!(
                promise(&seen, "export", "slots")
                    .1
                    .contains("CLUSTER NODES")
            );
        }
        let exporter = user(&cluster, "exporter", "~* &* +@all -asking");
        let seen = report(&[&exporter]);
        assert!(promise(&seen, "export", "slots").1.contains("ASKING"));
        let exporter = user(&cluster, "exporter", "~* &* +@all -cluster");
        let seen = report(&[&exporter]);
        assert_eq!(seen["export"]["possible"], false);
        assert!(promise(&seen, "export", "cluster").1.contains("CLUSTER"));
    }
}

#[test]
fn what_is_missing_of_a_cluster_is_named() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let cluster = TestCluster::start(version, 3, 0);
    let far = cluster.primaries()[2].addr();
    let map = format!("{far}=127.0.0.1:1");
    let seen = report(&[&cluster.url(), "--node-map", &map]);
    for job in ["export", "import"] {
        assert_eq!(seen[job]["possible"], false);
        let (verdict, text) = promise(&seen, job, "cluster");
        assert_eq!(verdict, "no");
        assert!(text.contains(&format!("--node-map {far}=")), "{text}");
    }
    for node in &cluster.nodes {
        let mut delete = redis::cmd("CLUSTER");
        delete.arg("DELSLOTS").arg(16_382).arg(16_383);
        delete.exec(&mut node.client()).unwrap();
    }
    // CLUSTERDOWN: what is said of it is not complete.
    let seen = report_ending_with(1, &[&cluster.url(), "--retry-for", "1"]);
    let (verdict, text) = promise(&seen, "export", "cluster");
    assert_eq!(verdict, "no");
    assert!(text.contains("slot 16382 and 1 more"), "{text}");
    assert_eq!(seen["server"]["layout"]["slots_not_served"], 2);
    // What is foretold is what happens.
    run(&["export", &cluster.url()], b"")
        .expect_code(2)
        .expect_stderr("slot 16382");
}

#[test]
fn replicas_and_sentinels_are_shown() {
    for version in VERSIONS.into_iter().filter_map(require) {
        let mut watched = Watched::start(version);
        let seen = report(&[&watched.url()]);
        assert_eq!(seen["server"]["sentinels"], watched.url());
        let address = seen["server"]["address"].as_str().expect("text");
        assert!(
            address.ends_with(&format!("(primary of {NAME})")),
            "{address}"
        );
        let layout = &seen["server"]["layout"];
        assert_eq!(layout["kind"], "standalone");
        let replicas = layout["replicas"].as_array().expect("replicas");
        assert_eq!(replicas.len(), 2, "{version}");
        let primary = watched.primary().addr().to_string();
        for replica in &watched.servers[1..] {
            assert!(replicas.contains(&Value::from(replica.addr().to_string())));
            let seen = report(&[&replica.url()]);
            let layout = &seen["server"]["layout"];
            assert_eq!(layout["kind"], "replica");
            assert_eq!(layout["primary"]["address"], primary);
            assert_eq!(layout["primary"]["link_up"], true);
        }
        let text = run(&["doctor", &watched.url()], b"").success().stdout;
        let text = String::from_utf8(text).expect("text");
        assert!(text.contains(&watched.url()), "{text}");
        assert!(text.contains("standalone, primary of 127.0.0.1:"), "{text}");
    }
}
