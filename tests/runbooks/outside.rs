//! What modules keep outside keys, with a Redis Stack: named, and kept where the source gives it.

use redis::Value;
use serde_json::json;

use crate::runbooks::modules::{
    assert_arrived, builder, fill_all, found, number, send, stack, stdout, text,
};
use crate::support::cluster::TestCluster;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, Tool};

/// What a run says of what is outside keys, in JSON: kind, count, names.
fn outside(output: &Output) -> serde_json::Value {
    output.summary()["source"]["outside"].clone()
}

#[test]
fn what_is_outside_keys_is_named_in_the_archive_and_at_the_end() {
    let (Some(from), Some(to)) = (stack(), stack()) else {
        return;
    };
    let mut client = from.client();
    fill_all(&mut client);
    send(&mut client, "FT.CREATE \u{e9}\"x PREFIX 1 h: SCHEMA t TEXT");
    let work = tempfile::tempdir().expect("a directory");
    let archive = work.path().join("stack.rmz");
    let export = ["export", "--json", &from.url(), "-o", text(&archive)];
    // Nothing of it is a failure.
    let exported = Tool::new(&export).run().success();
    let wanted = json!([
        {"kind": "search index", "count": 2, "names": ["products", "\u{e9}\"x"]},
        {"kind": "series rule", "count": 1, "names": ["series"]},
    ]);
    assert_eq!(outside(&exported), wanted);
    let inspected = Tool::new(&["inspect", "--json", text(&archive)])
        .run()
        .success();
    let found: serde_json::Value =
        serde_json::from_str(&stdout(&inspected)).expect("JSON of inspect");
    assert_eq!(found["end"]["outside"], wanted);
    // What was known at the start stands there.
    let extra = found["header"]["extra"].to_string();
    assert!(
        extra.contains("outside_keys") && extra.contains("products"),
        "{extra}"
    );
    let imported = Tool::new(&["import", "--json", &to.url(), text(&archive)]).run();
    let imported = imported.success();
    assert_eq!(outside(&imported), wanted);
    assert!(
        imported
            .stderr
            .contains("not in the archive: 2 search indexes")
    );
    // A plain server is asked nothing, and nothing is said.
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let plain = TestServer::start(version);
    send(&mut plain.client(), "SET k v");
    let exported = Tool::new(&[
        "export",
        "--json",
        &plain.url(),
        "-o",
        text(&work.path().join("p")),
    ]);
    let exported = exported.run().success();
    assert_eq!(outside(&exported), json!([]));
    assert!(!exported.stderr.contains("outside"), "{}", exported.stderr);
}

#[test]
fn what_is_refused_is_not_called_nothing() {
    let Some(builder) = builder() else { return };
    let from = builder
        .user("default on nopass ~* &* +@all")
        .user("bob on >secret ~* &* +@all -ft._list -ts.info")
        .user("eve on >secret ~* &* +@all -ft._list -info -module")
        .start();
    fill_all(&mut from.client());
    let work = tempfile::tempdir().expect("a directory");
    for (user, kinds) in [
        ("bob", vec!["search index", "series rule"]),
        ("eve", vec!["search index", "series rule"]),
    ] {
        let archive = work.path().join(user);
        let url = format!("redis://{user}:secret@{}", from.addr());
        let output = Tool::new(&["export", "--json", &url, "-o", text(&archive)]).run();
        let output = output.success();
        let told = outside(&output);
        let told = told.as_array().expect("a list");
        let names: Vec<_> = told
            .iter()
            .map(|one| one["kind"].as_str().unwrap_or(""))
            .collect();
        assert_eq!(names, kinds, "{user}");
        let why = told[0]["why"].as_str().unwrap_or_default();
        assert!(
            why.starts_with("FT._LIST was refused: NOPERM"),
            "{user}: {why}"
        );
        assert!(
            output
                .stderr
                .contains("not known whether there are search indexes")
        );
        // To bob TS.INFO is refused, to eve it is not.
        assert_eq!(told[1]["count"].is_null(), user == "bob", "{told:?}");
        assert!(!stdout(&output).contains("secret") && !output.stderr.contains("secret"));
        let inspected = Tool::new(&["inspect", text(&archive)]).run().success();
        assert!(
            stdout(&inspected).contains("search indexes not known"),
            "{user}"
        );
    }
}

#[test]
fn each_shard_of_a_cluster_is_asked() {
    let Some(version) = require(Version::Stack74) else {
        return;
    };
    let cluster = TestCluster::start_with(version, 3, 0, |_, builder| {
        builder.module("redistimeseries")
    });
    let mut client = cluster.client();
    for n in 0..30 {
        let (from, to) = (format!("{{{n}}}:from"), format!("{{{n}}}:to"));
        let node = client.of(from.as_bytes());
        send(node, &format!("TS.CREATE {from}"));
        send(node, &format!("TS.CREATE {to}"));
        if n < 25 {
            send(
                node,
                &format!("TS.CREATERULE {from} {to} AGGREGATION avg 1000"),
            );
        }
    }
    let work = tempfile::tempdir().expect("a directory");
    let archive = work.path().join("cluster.rmz");
    let output = Tool::new(&["export", "--json", &cluster.url(), "-o", text(&archive)]).run();
    let told = outside(&output.success());
    assert_eq!(
        (&told[0]["kind"], &told[0]["count"]),
        (&json!("series rule"), &json!(25))
    );
    assert_eq!(told[0]["names"].as_array().map(Vec::len), Some(20));
    let inspected = Tool::new(&["inspect", text(&archive)]).run().success();
    assert!(
        stdout(&inspected).contains("rules of 25 time series"),
        "{}",
        stdout(&inspected)
    );
    assert!(stdout(&inspected).contains("and 5 more"));
}

#[test]
fn data_of_modules_go_through_an_archive_into_an_rdb_file() {
    let Some(from) = stack() else { return };
    let mut client = from.client();
    fill_all(&mut client);
    send(&mut client, "FT.DICTADD words one two");
    send(&mut client, "SAVE");
    let rdb = from.path().join("dump.rdb");
    let work = tempfile::tempdir().expect("a directory");
    let file = |name: &str| work.path().join(name);
    let (url, whole) = (from.url(), file("whole.rmz"));
    for source in [
        [text(&rdb), "--no-functions"],
        [url.as_str(), "--via=replica"],
    ] {
        let _ = std::fs::remove_file(&whole);
        let _ = std::fs::remove_file(file("whole.rdb"));
        let export = ["export", source[0], source[1], "-o", text(&whole), "--json"];
        let exported = Tool::new(&export).run().success();
        assert_eq!(
            outside(&exported),
            json!([{"kind": "module data", "count": 2, "names": ["ft_index0", "scdtype00"], "kept": true}])
        );
        Tool::new(&["convert", text(&whole), text(&file("whole.rdb"))])
            .run()
            .success();
        let loaded = builder()
            .expect("it was there")
            .rdb(&file("whole.rdb"))
            .start();
        assert_arrived(&from, &loaded);
        assert_eq!(
            found(&loaded, "FT.SEARCH shop keyboard LIMIT 0 0", 100),
            100
        );
        let mut there = loaded.client();
        for line in ["FT.DICTDUMP words", "TS.INFO series"] {
            let (ours, theirs) = (send(&mut client, line), send(&mut there, line));
            match line {
                "FT.DICTDUMP words" => assert_eq!(theirs, ours),
                // The rule is there again.
                _ => assert!(format!("{theirs:?}").contains("compacted"), "{theirs:?}"),
            }
        }
    }
    // RESTORE brings keys only, and the import says so.
    let to = stack().expect("it was there");
    let imported = Tool::new(&["import", &to.url(), text(&whole)])
        .run()
        .success();
    let said = "in the archive and not imported: data of modules (ft_index0, scdtype00)";
    assert!(imported.stderr.contains(said), "{}", imported.stderr);
    assert_arrived(&from, &to);
    assert_eq!(send(&mut to.client(), "FT._LIST"), Value::Array(Vec::new()));
    // Salvage keeps them; lines and another family cannot have them, by name.
    let mut bytes = std::fs::read(&whole).expect("the archive");
    bytes.truncate(bytes.len() - 10);
    std::fs::write(file("broken.rmz"), bytes).expect("a file");
    let (broken, mended) = (file("broken.rmz"), file("mended.rmz"));
    Tool::new(&["salvage", text(&broken), "-o", text(&mended)]).run();
    Tool::new(&[
        "convert",
        text(&file("mended.rmz")),
        text(&file("mended.rdb")),
    ])
    .run()
    .success();
    let loaded = builder()
        .expect("it was there")
        .rdb(&file("mended.rdb"))
        .start();
    assert_eq!(
        found(&loaded, "FT.SEARCH shop keyboard LIMIT 0 0", 100),
        100
    );
    let lines = Tool::new(&["convert", text(&whole), text(&file("keys.jsonl"))]).run();
    lines
        .success()
        .expect_stderr("left out, because JSON Lines hold only keys: ft_index0, scdtype00");
    let other = file("valkey.rdb");
    let valkey = ["convert", "--for", "valkey-8.1", text(&whole), text(&other)];
    let valkey = Tool::new(&valkey).run().expect_code(3);
    valkey.expect_stderr("data of modules outside keys are left out, because Valkey 8.1.0");
}

/// A module that has nothing outside keys writes how little that is; a server without it loads the
/// file all the same.
#[test]
fn a_file_without_anything_of_modules_needs_no_module() {
    let (Some(from), Some(version)) = (stack(), require(Version::Redis80)) else {
        return;
    };
    let mut client = from.client();
    send(&mut client, "SET plain text");
    send(&mut client, "SAVE");
    let work = tempfile::tempdir().expect("a directory");
    let (archive, rdb) = (work.path().join("a.rmz"), work.path().join("b.rdb"));
    let dump = from.path().join("dump.rdb");
    let exported = Tool::new(&["export", text(&dump), "-o", text(&archive), "--json"]).run();
    assert_eq!(outside(&exported.success()), json!([]));
    Tool::new(&["convert", text(&archive), text(&rdb)])
        .run()
        .success();
    let loaded = TestServer::builder(version).rdb(&rdb).start();
    assert_eq!(number(&send(&mut loaded.client(), "EXISTS plain")), 1);
}

/// Of a Redis Stack with indexes, what a server without modules can load.
#[test]
fn types_without_modules_make_a_file_that_needs_none() {
    let (Some(from), Some(version)) = (stack(), require(Version::Redis80)) else {
        return;
    };
    let mut client = from.client();
    fill_all(&mut client);
    send(&mut client, "SAVE");
    let dump = from.path().join("dump.rdb");
    let work = tempfile::tempdir().expect("a directory");
    let (all, some) = (work.path().join("all.rdb"), work.path().join("some.rdb"));
    let whole = ["convert", text(&dump), text(&all)];
    let said = Tool::new(&whole).run().success().stderr;
    assert!(
        said.contains("select the types that it has with --type"),
        "{said}"
    );
    let types = "string,list,set,zset,hash,stream";
    let convert = ["convert", text(&dump), text(&some), "--type", types];
    let said = Tool::new(&convert).run().success().stderr;
    assert!(
        said.contains("because --type names no type of a module: ft_index0"),
        "{said}"
    );
    assert!(!said.contains("refuses the whole file"), "{said}");
    let loaded = TestServer::builder(version).rdb(&some).start();
    let mut client = loaded.client();
    assert_eq!(number(&send(&mut client, "EXISTS plain product:7")), 2);
    assert_eq!(number(&send(&mut client, "DBSIZE")), 301);
    // With types of modules the indexes go along.
    let kept = work.path().join("kept.rdb");
    let convert = ["convert", text(&dump), text(&kept), "--type", "hash,module"];
    Tool::new(&convert).run().success();
    let loaded = builder().expect("it was there").rdb(&kept).start();
    assert_eq!(
        found(&loaded, "FT.SEARCH shop keyboard LIMIT 0 0", 100),
        100
    );
}
