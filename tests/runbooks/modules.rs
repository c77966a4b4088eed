//! Values of modules, with a Redis Stack on both sides.

use std::path::Path;
use std::time::{Duration, Instant};

use redis::{Connection, Value};
use redis_migrate_format::header::ConsistencyReached;
use redis_migrate_format::{Context, EndFacts, Header, KeyRecord, Record, Writer, WriterOptions};
use redis_migrate_payload::payload;
use serde_json::json;

use crate::runbooks::Run;
use crate::support::servers::{Builder, TestServer, Version, require};
use crate::support::tool::{Output, Tool};

const MODULES: [&str; 4] = ["redisbloom", "redisearch", "rejson", "redistimeseries"];

pub fn stack() -> Option<TestServer> {
    Some(builder()?.start())
}

pub fn builder() -> Option<Builder> {
    let version = require(Version::Stack74)?;
    let builder = TestServer::builder(version);
    Some(MODULES.into_iter().fold(builder, Builder::module))
}

/// A command as people type it, without quotes.
pub fn send(client: &mut Connection, line: &str) -> Value {
    let mut words = line.split(' ');
    let mut command = redis::cmd(words.next().expect("a command"));
    for word in words {
        command.arg(word);
    }
    let answer = command.query(client);
    answer.unwrap_or_else(|error| panic!("{line}: {error}"))
}

pub fn number(value: &Value) -> i64 {
    match value {
        Value::Int(number) => *number,
        Value::Array(items) => number(items.first().expect("a number")),
        other => panic!("{other:?}"),
    }
}

/// How many documents a search finds; an index may have to catch up.
pub fn found(server: &TestServer, search: &str, wanted: i64) -> i64 {
    let mut client = server.client();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let found = number(&send(&mut client, search));
        if found == wanted || Instant::now() > deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Products of a shop with their index.
fn fill_shop(client: &mut Connection) {
    send(
        client,
        "FT.CREATE products ON HASH PREFIX 1 product: SCHEMA name TEXT price NUMERIC SORTABLE",
    );
    send(client, "FT.ALIASADD shop products");
    for n in 0..300 {
        let name = ["keyboard", "mouse", "screen"][n % 3];
        send(client, &format!("HSET product:{n} name {name} price {n}"));
    }
}

#[test]
fn a_search_application_moves() {
    let (Some(old), Some(new)) = (stack(), stack()) else {
        return;
    };
    fill_shop(&mut old.client());
    let said = Run {
        section: "Moving a RediSearch application",
        version: old.version(),
        old: old.url(),
        new: new.url(),
        passwords: ("", ""),
        before: "",
    }
    .run();
    assert!(
        said.contains("outside keys, not in this archive: 1 search index (products): create it"),
        "{said}"
    );
    assert!(
        said.contains("1 search index (products), not in the archive"),
        "{said}"
    );
    // What the file holds that convert made: the index is in it.
    assert!(
        said.contains("the file holds what modules wrote (ft_index0"),
        "{said}"
    );
    for search in [
        "FT.SEARCH shop keyboard LIMIT 0 0",
        "FT.SEARCH products @price:[0,99] LIMIT 0 0",
    ] {
        assert_eq!(found(&new, search, 100), 100, "{search}");
        assert_eq!(found(&old, search, 100), 100, "{search}");
    }
}

/// One key of each type of each module, and what they keep outside keys.
pub fn fill_all(client: &mut Connection) {
    fill_shop(client);
    for line in [
        r#"JSON.SET json $ {"a":[1,2,{"b":null}],"c":"text"}"#,
        "BF.RESERVE bloom 0.01 1000",
        "BF.ADD bloom one",
        "CF.RESERVE cuckoo 1000",
        "CF.ADD cuckoo one",
        "CMS.INITBYDIM cms 100 5",
        "CMS.INCRBY cms one 3",
        "TDIGEST.CREATE digest",
        "TDIGEST.ADD digest 1 2 3",
        "FT.SUGADD suggestions one 1",
        "TS.CREATE series LABELS of test",
        "TS.CREATE compacted",
        "TS.CREATERULE series compacted AGGREGATION avg 60000",
        "TS.ADD series 1000 5",
        "TS.ADD series 2000 7",
        "SET plain text",
    ] {
        send(client, line);
    }
}

/// The types of the modules, by their keys.
const TYPES: [(&str, &str); 7] = [
    ("json", "ReJSON-RL"),
    ("bloom", "MBbloom--"),
    ("cuckoo", "MBbloomCF"),
    ("cms", "CMSk-TYPE"),
    ("digest", "TDIS-TYPE"),
    ("suggestions", "trietype0"),
    ("series", "TSDB-TYPE"),
];

/// What each module says of its key.
fn asked_of_modules(server: &TestServer) -> Vec<String> {
    let mut client = server.client();
    [
        "JSON.GET json",
        "BF.EXISTS bloom one",
        "CF.COUNT cuckoo one",
        "CMS.QUERY cms one",
        "TDIGEST.QUANTILE digest 0.5",
        "FT.SUGGET suggestions o",
        "TS.RANGE series - +",
        "GET plain",
    ]
    .into_iter()
    .map(|line| format!("{line}: {:?}", send(&mut client, line)))
    .collect()
}

pub fn assert_arrived(from: &TestServer, to: &TestServer) {
    assert_eq!(asked_of_modules(to), asked_of_modules(from));
    let size = |server: &TestServer| number(&send(&mut server.client(), "DBSIZE"));
    assert_eq!(size(to), size(from));
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

#[test]
fn values_of_modules_move_between_servers_that_have_them() {
    let (Some(from), Some(to)) = (stack(), stack()) else {
        return;
    };
    fill_all(&mut from.client());
    let work = tempfile::tempdir().expect("a directory");
    let archive = work.path().join("stack.rmz");
    Tool::new(&["export", &from.url(), "-o", text(&archive)])
        .run()
        .success();
    let import = ["import", &to.url(), text(&archive), "--verify", "--json"];
    let first = Tool::new(&import).run().success();
    assert_arrived(&from, &to);
    let sink = &first.summary()["sink"];
    // What was looked at again at the end came twice.
    let records = sink["records"].clone();
    assert_eq!(first.summary()["verified"]["equal"], sink["keys"]);
    // The second run finds each of them as it is.
    let again = Tool::new(&import).run().success().summary();
    assert_eq!(again["sink"]["unchanged"], records);
    send(&mut to.client(), "FLUSHALL");
    let copy = ["copy", &from.url(), &to.url(), "--verify", "--json"];
    let copied = Tool::new(&copy).run().success();
    assert_arrived(&from, &to);
    assert!(
        copied
            .stderr
            .contains("outside keys, not copied: 1 search index (products)")
    );
    let again = Tool::new(&copy).run().success().summary();
    assert_eq!(again["sink"]["unchanged"], again["sink"]["taken"]);
    assert_eq!(again["sink"]["restored"], 0);
    Tool::new(&["diff", &from.url(), &to.url()]).run().success();
    // An RDB file and a replica's snapshot bring the same keys.
    send(&mut to.client(), "FLUSHALL");
    Tool::new(&["copy", "--via", "replica", &from.url(), &to.url()])
        .run()
        .success();
    assert_arrived(&from, &to);
}

#[test]
fn dumps_that_differ_from_call_to_call_cannot_be_compared() {
    let (Some(from), Some(to)) = (stack(), stack()) else {
        return;
    };
    let mut client = from.client();
    send(&mut client, "TOPK.RESERVE top 5 50 4 0.9");
    send(&mut client, "TOPK.ADD top a b a c");
    send(&mut client, "SET plain text");
    let work = tempfile::tempdir().expect("a directory");
    let archive = work.path().join("top.rmz");
    Tool::new(&["export", &from.url(), "-o", text(&archive)])
        .run()
        .success();
    let import = ["import", &to.url(), text(&archive), "--verify", "--json"];
    let verified = Tool::new(&import).run().expect_code(3).summary()["verified"].clone();
    assert_eq!(
        (
            &verified["different"],
            &verified["incomparable"],
            &verified["equal"]
        ),
        (&json!(0), &json!(1), &json!(1))
    );
    assert_eq!(
        format!("{:?}", send(&mut to.client(), "TOPK.LIST top")),
        format!("{:?}", send(&mut client, "TOPK.LIST top"))
    );
    let diff = Tool::new(&["diff", &from.url(), &to.url()]).run();
    let said = stdout(&diff.expect_code(3));
    assert!(said.contains("1 cannot be compared"), "{said}");
    assert!(
        said.contains("its bytes are not the same for the same value"),
        "{said}"
    );
    // What cannot be seen to stand there as it is, is neither unchanged nor deleted at the source.
    let again = Tool::new(&["import", &to.url(), text(&archive), "--json"]).run();
    let sink = again.expect_code(3).summary()["sink"].clone();
    assert_eq!(
        (&sink["unchanged"], &sink["conflicts"]),
        (&json!(1), &json!(1))
    );
    let moved = Tool::new(&["copy", "--delete-source", "--json", &from.url(), &to.url()]).run();
    let sink = moved.expect_code(3).summary()["sink"].clone();
    assert_eq!(
        (&sink["source_deleted"], &sink["source_kept"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(number(&send(&mut client, "EXISTS top")), 1);
}

#[test]
fn a_server_without_the_modules_refuses_by_name_and_lives() {
    let (Some(from), Some(version)) = (stack(), require(Version::Redis80)) else {
        return;
    };
    fill_all(&mut from.client());
    let mut to = TestServer::start(version);
    let work = tempfile::tempdir().expect("a directory");
    let archive = work.path().join("stack.rmz");
    Tool::new(&["export", &from.url(), "-o", text(&archive)])
        .run()
        .success();
    let import = Tool::new(&["import", &to.url(), text(&archive)]).run();
    let copy = Tool::new(&["copy", &from.url(), &to.url()]).run();
    for output in [import, copy] {
        let output = output.expect_code(3);
        for (key, name) in TYPES {
            let refused = output
                .stderr
                .lines()
                .find(|line| line.contains(&format!("\"{key}\"")) && line.contains(name));
            assert!(refused.is_some(), "{key}: {}", output.stderr);
        }
    }
    assert!(to.is_running());
    let mut client = to.client();
    assert_eq!(number(&send(&mut client, "EXISTS product:7 plain")), 2);
    let doctor = Tool::new(&["doctor", &to.url(), text(&archive)]).run();
    let doctor = doctor.expect_code(3);
    assert!(
        stdout(&doctor).contains("module:ReJSON-RL"),
        "{}",
        stdout(&doctor)
    );
}

fn keys_of(output: &Output) -> Vec<String> {
    let events = stdout(output)
        .lines()
        .map(str::to_owned)
        .collect::<Vec<_>>()
        .into_iter()
        .filter_map(|line| {
            let line: serde_json::Value = serde_json::from_str(&line).ok()?;
            (line["event"] == "key").then(|| line["key"].as_str().map(str::to_owned))?
        });
    let mut keys: Vec<String> = events.collect();
    keys.sort();
    keys
}

#[test]
fn a_type_of_a_module_is_chosen_by_its_name_whatever_is_read() {
    let Some(from) = stack() else { return };
    let mut client = from.client();
    fill_all(&mut client);
    send(&mut client, "SAVE");
    let rdb = from.path().join("dump.rdb");
    let work = tempfile::tempdir().expect("a directory");
    let all = work.path().join("all.rmz");
    Tool::new(&["export", &from.url(), "-o", text(&all)])
        .run()
        .success();
    let url = from.url();
    for (source, options) in [
        (url.as_str(), [].as_slice()),
        (&url, &["--via", "replica"]),
        (text(&rdb), &[]),
    ] {
        let some = work.path().join("some.rmz");
        for (types, wanted) in [
            ("module:ReJSON-RL", vec!["json"]),
            (
                "module:TSDB-TYPE,module:CMSk-TYPE",
                vec!["cms", "compacted", "series"],
            ),
            ("module:Nobodys-1", vec![]),
        ] {
            let export = [
                "export",
                source,
                "--type",
                types,
                "-o",
                text(&some),
                "--force",
            ];
            let output = Tool::new(&export).args(options).run();
            let output = match output.code() {
                Some(2) => Tool::new(&export[..6]).args(options).run(),
                _ => output,
            };
            output.success();
            let listed = Tool::new(&["list", "--json", text(&some)]).run().success();
            assert_eq!(keys_of(&listed), wanted, "{source} {types}");
            let listed = ["list", "--json", "--type", types, text(&all)];
            let listed = Tool::new(&listed).run().success();
            assert_eq!(keys_of(&listed), wanted, "list {types}");
        }
    }
    let listed = Tool::new(&["list", text(&all)]).run().success();
    let inspected = Tool::new(&["inspect", text(&all)]).run().success();
    for (_, name) in TYPES {
        let name = format!("module:{name}");
        assert!(stdout(&listed).contains(&name), "{}", stdout(&listed));
        assert!(stdout(&inspected).contains(&name), "{}", stdout(&inspected));
    }
    // A name that none can be is one for the command line.
    Tool::new(&["list", "--type", "module:short", text(&all)])
        .run()
        .expect_code(2);
}

/// The footer says nothing of what a module wrote: the module decides, also where the destination
/// accepts no such version.
#[test]
fn footers_that_are_not_accepted_are_replaced_and_the_module_decides() {
    let (Some(from), Some(mut to)) = (stack(), stack()) else {
        return;
    };
    let mut client = from.client();
    fill_all(&mut client);
    let dump_of = |client: &mut Connection, key: &str| -> Vec<u8> {
        redis::cmd("DUMP")
            .arg(key)
            .query(client)
            .expect("a payload")
    };
    /// Of a server that is not written yet.
    const VERSION: u16 = 99;
    let context = Context {
        rdb_version: VERSION,
        ..Context::default()
    };
    let mut writer =
        Writer::new(Vec::new(), &Header::default(), WriterOptions::default()).expect("it begins");
    writer.set_context(context).expect("a context");
    let mut put = |key: &str, body: &[u8]| {
        let record = Record::Key(KeyRecord {
            db: 0,
            key: key.as_bytes().to_vec(),
            value: redis_migrate_format::Value::Verbatim(payload::sign(body, VERSION)),
            expire_at_ms: None,
            eviction: None,
        });
        writer.write(&record).expect("it is written");
    };
    for (key, _) in TYPES {
        let dump = dump_of(&mut client, key);
        put(key, &dump[..dump.len() - payload::FOOTER_LEN]);
    }
    // As a later version of the module might write it: its own number is in the id's last ten bits.
    // RedisBloom answers with an error, RedisJSON ends the server.
    for (key, of) in [("later", "bloom"), ("deadly", "json")] {
        let mut dump = dump_of(&mut client, of);
        dump.truncate(dump.len() - payload::FOOTER_LEN);
        dump[8] |= 3;
        dump[9] = 0xff;
        put(key, &dump);
    }
    let facts = EndFacts::new(ConsistencyReached::Scan {
        from_ms: 1,
        to_ms: 1,
    });
    let bytes = writer.finish(facts).expect("it ends").inner;
    let work = tempfile::tempdir().expect("a directory");
    let archive = work.path().join("later.rmz");
    std::fs::write(&archive, bytes).expect("a file");

    let dry = Tool::new(&["import", "--dry-run", &to.url(), text(&archive)]).run();
    let imported = Tool::new(&["import", "--json", &to.url(), text(&archive)]).run();
    let imported = imported.expect_code(3);
    for (key, words) in [
        ("later", "Bad data format"),
        (
            "deadly",
            "in layout 1023, and the module is known to take layouts up to 3",
        ),
    ] {
        let mut lines = imported.stderr.lines();
        let refused = lines.find(|line| line.contains(&format!("\"{key}\"")));
        let refused = refused.unwrap_or_else(|| panic!("{}", imported.stderr));
        assert!(refused.contains(words), "{refused}");
    }
    let sink = &imported.summary()["sink"];
    assert_eq!(
        (
            &sink["restored"],
            &sink["refused"],
            &sink["changes"]["restamped"]
        ),
        (&json!(TYPES.len()), &json!(2), &json!(TYPES.len()))
    );
    assert!(
        dry.stderr.contains("payload version changed"),
        "{}",
        dry.stderr
    );
    assert!(to.is_running());
    send(&mut to.client(), "SET plain text");
    assert_eq!(asked_of_modules(&to), asked_of_modules(&from));
}
