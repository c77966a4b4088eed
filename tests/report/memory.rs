//! The estimate of memory, against what a server says of each key.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::many::fill_many;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Tool, run};

#[test]
fn the_estimate_is_near_what_the_server_says() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    let mut connection = server.client();
    fill_many(&mut connection, 20_000, 5);
    // Tables and skip lists, which are more than their bytes.
    for (command, key) in [
        ("HSET", "big:hash"),
        ("SADD", "big:set"),
        ("ZADD", "big:zset"),
    ] {
        for n in 0..5_000 {
            let mut add = redis::cmd(command);
            add.arg(key);
            if command == "ZADD" {
                add.arg(n);
            }
            add.arg(format!("member:{n}:with some text"));
            if command == "HSET" {
                add.arg(format!("value {n}"));
            }
            let _: () = add.query(&mut connection).expect("added");
        }
    }
    let exported = Tool::new(&["export", &server.url()]).run().success();
    // As they are after an import: a stream that grows has room for more in its last node.
    let server = TestServer::start(version);
    run(&["import", &server.url()], &exported.stdout).success();
    let mut connection = server.client();
    let all = ["report", "--json", "--largest", "10000"];
    let report = run(&all, &exported.stdout).success();
    let report: Value = serde_json::from_slice(&report.stdout).expect("JSON");
    let mut by_type: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for key in report["largest"].as_array().expect("rows") {
        let Some(name) = key["key"].as_str() else {
            continue;
        };
        let db = u32::try_from(key["db"].as_u64().expect("a number")).expect("small");
        if db != 0 {
            continue;
        }
        let said: u64 = redis::cmd("MEMORY")
            .arg("USAGE")
            .arg(name)
            .arg("SAMPLES")
            .arg(0)
            .query(&mut connection)
            .expect("there");
        let sums = by_type
            .entry(key["type"].as_str().expect("text").to_owned())
            .or_default();
        sums.0 += key["memory_bytes_estimated"].as_u64().expect("a number");
        sums.1 += said;
    }
    assert!(by_type.len() >= 5, "{by_type:?}");
    for (name, (estimated, said)) in by_type {
        let ratio = estimated as f64 / said as f64;
        println!("{name}: estimated {estimated}, the server says {said}, {ratio:.2}");
        assert!((0.66..1.5).contains(&ratio), "{name}: {ratio:.2}");
    }
}
