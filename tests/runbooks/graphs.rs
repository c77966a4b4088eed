//! Graphs, with a FalkorDB on both sides. The module loads a value into the graph that stands under
//! the name in the value: a careless RESTORE doubles graphs, or ends the server.

use serde_json::json;

use crate::runbooks::modules::{send, stdout, text};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::Tool;

fn falkordb() -> Option<TestServer> {
    let version = require(Version::Redis82)?;
    Some(TestServer::builder(version).module("falkordb").start())
}

fn query(server: &TestServer, db: i64, graph: &str, query: &str) -> redis::Value {
    let mut client = server.client();
    redis::cmd("SELECT")
        .arg(db)
        .exec(&mut client)
        .expect("a database");
    redis::cmd("GRAPH.QUERY")
        .arg(graph)
        .arg(query)
        .query(&mut client)
        .unwrap_or_else(|error| panic!("{graph}: {query}: {error}"))
}

/// The one number that a query asks for.
fn count(server: &TestServer, db: i64, graph: &str, pattern: &str) -> i64 {
    let answer = query(
        server,
        db,
        graph,
        &format!("MATCH {pattern} RETURN count(n)"),
    );
    let redis::Value::Array(parts) = answer else {
        panic!("{answer:?}");
    };
    let rows: Vec<Vec<i64>> = redis::from_redis_value(parts[1].clone()).expect("a row");
    rows[0][0]
}

const NODES: i64 = 3_000;

/// Two graphs: one of nodes alone, and one with relations.
fn fill(server: &TestServer) {
    let nodes = format!("UNWIND range(1,{NODES}) AS i CREATE (:N {{i:i}})");
    query(server, 0, "plain", &nodes);
    let pairs = "UNWIND range(1,20) AS i CREATE (:P {i:i})-[:R]->(:P)";
    query(server, 0, "related", pairs);
    send(&mut server.client(), "SET string text");
}

fn assert_whole(server: &mut TestServer, when: &str) {
    assert!(server.is_running(), "{when}");
    assert_eq!(count(server, 0, "plain", "(n)"), NODES, "{when}");
    assert_eq!(count(server, 0, "related", "(n)"), 40, "{when}");
    assert_eq!(count(server, 0, "related", "(n)-[:R]->()"), 20, "{when}");
    let names: Vec<String> =
        redis::from_redis_value(send(&mut server.client(), "GRAPH.LIST")).expect("names");
    let mut names = names;
    names.sort();
    assert_eq!(names, ["plain", "related"], "{when}");
}

fn exported(from: &TestServer, archive: &std::path::Path) -> String {
    let export = ["export", &from.url(), "-o", text(archive)];
    Tool::new(&export).run().success().stderr
}

#[test]
fn a_graph_that_stands_is_left_alone_by_doctor_and_dry_run() {
    let Some(mut server) = falkordb() else { return };
    fill(&server);
    let work = tempfile::tempdir().expect("a directory");
    let archive = work.path().join("graphs.rmz");
    exported(&server, &archive);
    Tool::new(&["doctor", &server.url(), text(&archive)]).run();
    assert_whole(&mut server, "doctor");
    for options in [&[][..], &["--replace"]] {
        let dry = ["import", "--dry-run", &server.url(), text(&archive)];
        Tool::new(&dry).args(options).run();
        assert_whole(&mut server, "a dry run");
    }
    Tool::new(&["copy", "--dry-run", &server.url(), &server.url()]).run();
    assert_whole(&mut server, "a dry run of copy");
}

#[test]
fn graphs_arrive_once_however_often_they_are_sent() {
    let (Some(from), Some(mut to)) = (falkordb(), falkordb()) else {
        return;
    };
    fill(&from);
    let work = tempfile::tempdir().expect("a directory");
    let archive = work.path().join("graphs.rmz");
    let said = exported(&from, &archive);
    assert!(!said.contains("graphs (plain, related)"), "{said}");
    let inspected = stdout(&Tool::new(&["inspect", text(&archive)]).run().success());
    assert!(!inspected.contains("outside keys"), "{inspected}");
    let import = ["import", &to.url(), text(&archive), "--json"];
    // DUMP of a graph differs from call to call, so the archive has each of them twice.
    let first = Tool::new(&import).run().success().summary();
    assert_whole(&mut to, "import");
    assert!(first["sink"]["replaced_own"].as_u64() >= Some(2), "{first}");
    let again = Tool::new(&import).run().expect_code(3).summary();
    assert_whole(&mut to, "a second import");
    assert_eq!(again["sink"]["restored"], 0);
    let replaced = Tool::new(&import).arg("--replace").run().success();
    assert_whole(&mut to, "import --replace");
    assert_eq!(replaced.summary()["sink"]["refused"], 0);
    let copy = ["copy", &from.url(), &to.url(), "--replace"];
    Tool::new(&copy).run().success();
    assert_whole(&mut to, "copy --replace");
    send(&mut to.client(), "FLUSHALL");
    Tool::new(&copy[..3]).run().success();
    assert_whole(&mut to, "copy");
    // A string in the place of a graph.
    send(&mut to.client(), "DEL related");
    send(&mut to.client(), "SET related text");
    Tool::new(&copy).run().success();
    assert_whole(&mut to, "copy --replace of a string");
}

#[test]
fn graphs_that_would_be_loaded_into_another_one_are_refused_by_name() {
    let (Some(from), Some(mut to)) = (falkordb(), falkordb()) else {
        return;
    };
    fill(&from);
    let work = tempfile::tempdir().expect("a directory");
    let archive = work.path().join("graphs.rmz");
    exported(&from, &archive);
    let import = ["import", &to.url(), text(&archive), "--json"];
    Tool::new(&import).run().success();
    for (options, words) in [
        (
            &["--map-db", "0:1"][..],
            "a graph of that name exists in another database of the destination",
        ),
        (
            &["--add-prefix", "new:"],
            "the module loads it under that name whatever its key is called",
        ),
    ] {
        for more in [&[][..], &["--replace"], &["--dry-run"]] {
            let output = Tool::new(&import).args(options).args(more).run();
            let output = output.expect_code(3);
            for name in ["plain\"", "related\""] {
                let mut lines = output.stderr.lines();
                assert!(
                    lines.any(|line| line.contains(name) && line.contains(words)),
                    "{}",
                    output.stderr
                );
            }
            assert!(output.summary()["sink"]["refused"].as_u64() >= Some(2));
            assert_whole(&mut to, &options.join(" "));
        }
    }
    // Two of one name in one run: the module has one.
    send(&mut to.client(), "FLUSHALL");
    let copy = ["copy", &from.url(), &to.url(), "--map-db", "0:1", "--json"];
    Tool::new(&copy).run().success();
    assert_eq!(count(&to, 1, "plain", "(n)"), NODES);
    let output = Tool::new(&import).run().expect_code(3);
    assert!(
        output.stderr.contains("exists in another database"),
        "{}",
        output.stderr
    );
    assert!(to.is_running());
    assert_eq!(count(&to, 1, "plain", "(n)"), NODES);
}

/// In an RDB file a large graph is spread over several keys, which RESTORE does not put together.
#[test]
fn parts_of_a_large_graph_are_refused_and_its_dump_is_not() {
    let (Some(from), Some(mut to)) = (falkordb(), falkordb()) else {
        return;
    };
    const MANY: i64 = 130_000;
    let nodes = format!("UNWIND range(1,{MANY}) AS i CREATE (:N {{i:i}})");
    query(&from, 0, "large", &nodes);
    send(&mut from.client(), "SAVE");
    let rdb = from.path().join("dump.rdb");
    let parts = Tool::new(&["copy", text(&rdb), &to.url(), "--json"]).run();
    let parts = parts.expect_code(3);
    assert!(
        parts.stderr.contains("parts of a large graph"),
        "{}",
        parts.stderr
    );
    assert!(
        parts.stderr.contains("a part of a large graph"),
        "{}",
        parts.stderr
    );
    assert_eq!(parts.summary()["sink"]["restored"], json!(0));
    assert!(to.is_running());
    Tool::new(&["copy", &from.url(), &to.url()]).run().success();
    assert_eq!(count(&to, 0, "large", "(n)"), MANY);
}
