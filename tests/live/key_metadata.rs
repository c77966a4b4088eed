//! What modules keep beside keys (key metadata, Redis 8.6): kept where a destination takes it, left
//! out and counted where the class allows that, refused by name where it does not.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::dataset::now_ms;
use crate::support::key_metadata::{MAY, MUST, Module, get, set};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, Tool, run};

/// A command for each type; `KEY` stands for the key.
fn types() -> Vec<(&'static str, Vec<String>)> {
    let far = (now_ms() + 86_400_000).to_string();
    let words = |text: &str| text.split(' ').map(str::to_owned).collect();
    vec![
        ("string", words("SET KEY text")),
        ("number", words("SET KEY 12345")),
        ("expiring", words(&format!("SET KEY text PXAT {far}"))),
        ("list", words("RPUSH KEY a b c")),
        ("set", words("SADD KEY a b c")),
        ("intset", words("SADD KEY 1 2 3")),
        ("zset", words("ZADD KEY 1 a 2.5 b")),
        ("hash", words("HSET KEY f v g w")),
        ("stream", words("XADD KEY 1-1 f v")),
        ("vectorset", words("VADD KEY VALUES 2 1 0 one")),
    ]
}

/// Those that must not be left out.
fn is_needed(key: &str) -> bool {
    key.starts_with("must:") || key.starts_with("both:")
}

/// A key of each type without metadata, with those of either class, and with both.
struct Filled {
    server: TestServer,
    keys: Vec<String>,
}

/// A text that the server stores compressed.
fn text(class: &str, key: &str) -> String {
    format!("{class} of {key} {}", "again ".repeat(40))
}

fn classes_of(key: &str) -> &'static [&'static str] {
    match key.split(':').next() {
        Some("may") => &[MAY],
        Some("must") => &[MUST],
        Some("both") => &[MAY, MUST],
        _ => &[],
    }
}

fn filled(module: &Module) -> Filled {
    let server = module.server();
    let mut client = server.client();
    let mut keys = Vec::new();
    for (name, command) in types() {
        for group in ["plain", "may", "must", "both"] {
            let key = format!("{group}:{name}");
            let mut words = redis::Cmd::new();
            for word in &command {
                words.arg(if word == "KEY" { &key } else { word });
            }
            words.exec(&mut client).expect(name);
            for class in classes_of(&key) {
                set(&mut client, class, &key, &text(class, &key));
            }
            keys.push(key);
        }
    }
    Filled { server, keys }
}

impl Filled {
    fn count(&self, wanted: impl Fn(&str) -> bool) -> u64 {
        self.keys.iter().filter(|key| wanted(key)).count() as u64
    }

    /// Every key with every text.
    #[track_caller]
    fn assert_kept(&self, there: &TestServer) {
        let mut client = there.client();
        for key in &self.keys {
            for class in [MAY, MUST] {
                let due = classes_of(key).contains(&class).then(|| text(class, key));
                assert_eq!(get(&mut client, class, key), due, "{class} of {key}");
            }
        }
        assert_eq!(names(there), self.keys.iter().cloned().collect());
    }

    /// The keys without those that no server before 8.6 is sent for other reasons.
    fn archive(&self, flags: &[&str]) -> Vec<u8> {
        let url = self.server.url();
        let arguments = [&["export", &url], flags].concat();
        run(&arguments, b"").success().stdout
    }
}

fn names(server: &TestServer) -> BTreeSet<String> {
    let mut client = server.client();
    let names: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut client).unwrap();
    names.into_iter().collect()
}

fn flush(server: &TestServer) {
    redis::cmd("FLUSHALL").exec(&mut server.client()).unwrap();
}

/// What is foretold of an archive of which something is refused.
fn doctor(url: &str, path: &str) -> Value {
    let output = run(&["doctor", url, path, "--json"], b"").expect_code(3);
    let report: Value = serde_json::from_slice(&output.stdout).expect("one object");
    report["archive"].clone()
}

fn sink(output: &Output) -> Value {
    output.summary()["sink"].clone()
}

/// An import that may lose key metadata, and verifies the rest.
fn allowing(url: &str) -> [&str; 6] {
    [
        "import",
        url,
        "--json",
        "--verify",
        "--allow-loss",
        "key-meta",
    ]
}

/// By archive and by copy, where the module is: everything arrives, and nothing is left to do.
#[test]
fn kept_where_the_module_is() {
    let Some(module) = Module::build() else {
        return;
    };
    let source = filled(&module);
    let there = module.server();
    let (from, url) = (source.server.url(), there.url());
    let archive = source.archive(&[]);
    let keys = source.keys.len() as u64;
    for ways in [
        &["import", &url, "--verify", "--json"][..],
        &["copy", &from, &url, "--verify", "--json"],
    ] {
        flush(&there);
        let first = sink(&run(ways, &archive).success());
        assert_eq!(first["restored"], keys, "{ways:?}: {first}");
        assert_eq!(first["changes"]["key_metadata_lost"], 0, "{first}");
        source.assert_kept(&there);
        let again = sink(&run(ways, &archive).success());
        assert_eq!(again["unchanged"], keys, "{ways:?}: {again}");
    }
    let diff = |code: i32| {
        let output = run(&["diff", &from, &url, "--json"], b"");
        output.expect_code(code).summary()
    };
    let same = diff(0);
    assert_eq!(
        (&same["equal"], &same["partly"]),
        (&keys.into(), &0.into()),
        "{same}"
    );
    // Another text is a difference, also to an import; a text too few is left out of it.
    let mut client = there.client();
    set(&mut client, MUST, "must:list", "another");
    let differs = diff(5);
    assert_eq!(
        (&differs["value"], &differs["different"]),
        (&1.into(), &1.into()),
        "{differs}"
    );
    let import = run(&["import", &url], &archive).expect_code(3);
    import.expect_stderr("must:list");
    redis::cmd("DEL")
        .arg("must:list")
        .exec(&mut client)
        .unwrap();
    let words: redis::RedisResult<()> = redis::cmd("RPUSH")
        .arg("must:list")
        .arg(&["a", "b", "c"])
        .exec(&mut client);
    words.unwrap();
    // A class that is not there, at a server that could have it.
    let differs = diff(5);
    assert_eq!(
        (&differs["value"], &differs["partly"]),
        (&1.into(), &0.into()),
        "{differs}"
    );
    let path = there.path().join("snap.rmz");
    std::fs::write(&path, &archive).unwrap();
    let against = [
        "verify",
        path.to_str().unwrap(),
        "--against",
        &url,
        "--json",
    ];
    let output = run(&against, b"").expect_code(5);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("key-metadata"), "{text}");
    run(&["import", &url], &archive)
        .expect_code(3)
        .expect_stderr("must:list");
    run(&["import", &url, "--replace"], &archive).success();
    source.assert_kept(&there);
}

/// Of the same version, without the module: the server leaves out what it may, and refuses the rest.
#[test]
fn without_the_module_what_must_stay_is_refused() {
    let Some(module) = Module::build() else {
        return;
    };
    let source = filled(&module);
    let there = module.without();
    let url = there.url();
    let archive = source.archive(&[]);
    let needed = source.count(is_needed);
    let lost = source.count(|key| key.starts_with("may"));
    // Both ask the server, and keep nothing there.
    let dry_run = ["import", &url, "--json", "--dry-run"];
    let counts = sink(&run(&dry_run, &archive).expect_code(3));
    assert_eq!(counts["refused"], needed, "{counts}");
    assert_eq!(counts["changes"]["key_metadata_lost"], lost, "{counts}");
    let all = [&dry_run[..], &["--allow-loss", "key-meta"]].concat();
    let counts = sink(&run(&all, &archive).success());
    assert_eq!(counts["restored"], source.keys.len(), "{counts}");
    assert_eq!(
        counts["changes"]["key_metadata_lost"],
        needed + lost,
        "{counts}"
    );
    let path = there.path().join("snap.rmz");
    std::fs::write(&path, &archive).unwrap();
    let foretold = doctor(&url, path.to_str().unwrap());
    let reason = &foretold["reasons"][0];
    assert_eq!(reason["allow_loss"], "key-meta", "{foretold:#}");
    assert_eq!(foretold["refused"], needed, "{foretold:#}");
    let classes = &foretold["key_metadata_classes_lost"];
    assert_eq!(classes, &serde_json::json!([MAY]), "{foretold:#}");
    assert_eq!(names(&there), BTreeSet::new());
    let refused = run(&["import", &url, "--json"], &archive).expect_code(3);
    let counts = sink(&refused);
    assert_eq!(counts["refused"], needed, "{counts}");
    assert_eq!(counts["changes"]["key_metadata_lost"], lost, "{counts}");
    let named = format!("the class \\\"{MAY}\\\" is left out");
    assert_eq!(
        refused.stderr.matches(&named).count(),
        1,
        "{}",
        refused.stderr
    );
    assert!(refused.stderr.contains("must:zset"), "{}", refused.stderr);
    assert!(refused.stderr.contains("mu-9"), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("--allow-loss key-meta"),
        "{}",
        refused.stderr
    );
    let rest: BTreeSet<String> = source
        .keys
        .iter()
        .filter(|key| !is_needed(key))
        .cloned()
        .collect();
    assert_eq!(names(&there), rest);
    let allowed = allowing(&url);
    let counts = sink(&run(&allowed, &archive).success());
    assert_eq!(counts["restored"], needed, "{counts}");
    assert_eq!(counts["unchanged"], rest.len(), "{counts}");
    // Of those that stand already, too.
    assert_eq!(
        counts["changes"]["key_metadata_lost"],
        needed + lost,
        "{counts}"
    );
    let again = sink(&run(&allowed, &archive).success());
    assert_eq!(again["unchanged"], source.keys.len(), "{again}");
    // A server that could have them and has not.
    let diff = run(&["diff", &source.server.url(), &url, "--json"], b"").expect_code(5);
    let counts = diff.summary();
    assert_eq!(counts["value"], needed + lost, "{counts}");
}

/// What a server leaves out without a word is found out, and the source keeps the only copy of it.
#[test]
fn the_only_copy_stays_at_the_source() {
    let Some(module) = Module::build() else {
        return;
    };
    let source = module.server();
    let mut client = source.client();
    let fill = |client: &mut redis::Connection| {
        for key in ["k1", "k2", "plain"] {
            redis::cmd("SET").arg(key).arg("v").exec(client).unwrap();
        }
        set(client, MAY, "k1", "precious");
        set(client, MAY, "k2", "precious");
    };
    let from = source.url();
    let copy = |to: &str, flags: &[&str]| {
        let ways = [
            &["copy", &from, to, "--delete-source", "--verify", "--json"],
            flags,
        ];
        run(&ways.concat(), b"")
    };
    let named = format!("the class \\\"{MAY}\\\" is left out");
    let mut bare = vec![module.without()];
    bare.extend(require(Version::Redis70).map(TestServer::start));
    for there in bare {
        let url = there.url();
        for (restored, deleted) in [(3, 1), (0, 0)] {
            if restored > 0 {
                fill(&mut client);
            }
            let output = copy(&url, &[]).success();
            let counts = sink(&output);
            assert_eq!(counts["restored"], restored, "{counts}");
            assert_eq!(counts["changes"]["key_metadata_lost"], 2, "{counts}");
            assert_eq!(counts["source_deleted"], deleted, "{counts}");
            assert_eq!(counts["source_kept"], 2, "{counts}");
            let verified = &output.summary()["verified"];
            assert_eq!(verified["partly"], 2, "{verified:#}");
            assert_eq!(verified["different"], 0, "{verified:#}");
            let stderr = &output.stderr;
            assert_eq!(stderr.matches(&named).count(), 1, "{stderr}");
            output.expect_stderr("kept at the source: 2 keys");
            let left: BTreeSet<String> = ["k1", "k2"].map(str::to_owned).into();
            assert_eq!(names(&source), left);
            assert_eq!(get(&mut client, MAY, "k1").as_deref(), Some("precious"));
        }
        let counts = sink(&copy(&url, &["--allow-loss", "key-meta"]).success());
        assert_eq!(counts["source_deleted"], 2, "{counts}");
        assert_eq!(names(&source), BTreeSet::new());
    }
    // A server that keeps them.
    fill(&mut client);
    let there = module.server();
    let counts = sink(&copy(&there.url(), &[]).success());
    assert_eq!(counts["source_deleted"], 3, "{counts}");
    assert_eq!(counts["changes"]["key_metadata_lost"], 0, "{counts}");
    let arrived = get(&mut there.client(), MAY, "k1");
    assert_eq!(arrived.as_deref(), Some("precious"));
}

/// Where a class could stand and does not, the key that stands is another one.
#[test]
fn a_key_without_its_metadata_is_another_one() {
    let Some(module) = Module::build() else {
        return;
    };
    let (source, there) = (module.server(), module.server());
    let (mut client, mut other) = (source.client(), there.client());
    for key in ["ours", "theirs", "both"] {
        for client in [&mut client, &mut other] {
            redis::cmd("SET").arg(key).arg("v").exec(client).unwrap();
        }
    }
    for key in ["ours", "both"] {
        set(&mut client, MAY, key, "precious");
    }
    for key in ["theirs", "both"] {
        set(&mut other, MAY, key, "precious");
    }
    let (from, to) = (source.url(), there.url());
    let differs = run(&["diff", &from, &to, "--json"], b"").expect_code(5);
    let counts = differs.summary();
    assert_eq!((&counts["value"], &counts["equal"]), (&2.into(), &1.into()));
    let ways = ["copy", &from, &to, "--verify", "--json"];
    let counts = sink(&run(&ways, b"").expect_code(3));
    assert_eq!(counts["conflicts"], 2, "{counts}");
    assert_eq!(counts["unchanged"], 1, "{counts}");
    let skip = ["--on-conflict", "skip", "--delete-source"];
    let counts = sink(&run(&[&ways[..], &skip].concat(), b"").success());
    assert_eq!(counts["skipped"], 2, "{counts}");
    assert_eq!(counts["source_deleted"], 1, "{counts}");
    assert_eq!(get(&mut client, MAY, "ours").as_deref(), Some("precious"));
    let replace = ["--on-conflict", "replace", "--delete-source"];
    let counts = sink(&run(&[&ways[..], &replace].concat(), b"").success());
    assert_eq!(counts["source_deleted"], 2, "{counts}");
    assert_eq!(get(&mut other, MAY, "ours").as_deref(), Some("precious"));
    assert_eq!(get(&mut other, MAY, "theirs"), None);
}

/// A user whose rights do not let the class be tried out: nothing is said to be kept, and the source
/// keeps its keys.
#[test]
fn what_cannot_be_tried_out_is_not_known() {
    let Some(module) = Module::build() else {
        return;
    };
    let (source, there) = (module.server(), module.server());
    let mut client = source.client();
    redis::cmd("SET")
        .arg("k1")
        .arg("v")
        .exec(&mut client)
        .unwrap();
    set(&mut client, MAY, "k1", "precious");
    let mut user = redis::cmd("ACL");
    user.arg("SETUSER").arg("one").arg("on").arg(">secret");
    user.arg("+@all").arg("~k1");
    user.exec(&mut there.client()).unwrap();
    let to = there.url().replace("redis://", "redis://one:secret@");
    let ways = ["copy", &source.url(), &to, "--delete-source", "--json"];
    let output = run(&ways, b"").success();
    let counts = sink(&output);
    assert_eq!(counts["restored"], 1, "{counts}");
    assert_eq!(counts["source_deleted"], 0, "{counts}");
    output.expect_stderr("it is not known whether the destination keeps");
    let arrived = get(&mut there.client(), MAY, "k1");
    assert_eq!(arrived.as_deref(), Some("precious"));
    assert_eq!(get(&mut client, MAY, "k1").as_deref(), Some("precious"));
}

/// Where no server has heard of them: a small loss or a refusal, as the class says.
#[test]
fn older_servers_get_the_keys_without() {
    let Some(module) = Module::build() else {
        return;
    };
    let source = filled(&module);
    // What vector sets and versions are to each other is another matter.
    let archive = source.archive(&["--exclude", "*vectorset"]);
    let is_sent = |key: &str| !key.contains("vectorset");
    let needed = source.count(|key| is_needed(key) && is_sent(key));
    let lost = source.count(|key| key.starts_with("may") && is_sent(key));
    let all = source.count(is_sent);
    for version in [
        Version::Redis82,
        Version::Redis80,
        Version::Redis70,
        Version::Valkey91,
    ] {
        let Some(version) = require(version) else {
            continue;
        };
        let there = TestServer::start(version);
        let (url, path) = (there.url(), there.path().join("snap.rmz"));
        std::fs::write(&path, &archive).unwrap();
        let foretold = doctor(&url, path.to_str().unwrap());
        assert_eq!(
            foretold["key_metadata_lost"], lost,
            "{version}: {foretold:#}"
        );
        let reason = &foretold["reasons"][0];
        assert_eq!(reason["allow_loss"], "key-meta", "{version}: {reason}");
        assert_eq!(foretold["refused"], needed, "{version}: {foretold:#}");
        for dry_run in [true, false] {
            let mut import = vec!["import", &url, "--json"];
            import.extend(dry_run.then_some("--dry-run"));
            let output = run(&import, &archive).expect_code(3);
            let counts = sink(&output);
            assert_eq!(counts["refused"], needed, "{version}: {counts}");
            assert_eq!(counts["restored"], all - needed, "{version}: {counts}");
            assert_eq!(
                counts["changes"]["key_metadata_lost"], lost,
                "{version}: {counts}"
            );
            assert!(
                output.stderr.contains("--allow-loss key-meta"),
                "{}",
                output.stderr
            );
        }
        let allowed = allowing(&url);
        let counts = sink(&run(&allowed, &archive).success());
        assert_eq!(counts["restored"], needed, "{version}: {counts}");
        assert_eq!(
            counts["changes"]["key_metadata_lost"],
            needed + lost,
            "{version}: {counts}"
        );
        let again = sink(&run(&allowed, &archive).success());
        assert_eq!(again["unchanged"], all, "{version}: {again}");
        let value: String = redis::cmd("GET")
            .arg("both:string")
            .query(&mut there.client())
            .unwrap();
        assert_eq!(value, "text");
    }
}

/// No native command sets what a module keeps beside a key.
#[test]
fn by_commands_they_are_left_out() {
    let Some(module) = Module::build() else {
        return;
    };
    let source = filled(&module);
    let there = module.server();
    let url = there.url();
    let archive = source.archive(&["--type", "string,list,set,zset,hash,stream"]);
    let is_sent = |key: &str| !key.contains("vectorset");
    let needed = source.count(|key| is_needed(key) && is_sent(key));
    let import = ["import", &url, "--json", "--method", "commands"];
    let output = run(&import, &archive).expect_code(3);
    let counts = sink(&output);
    assert_eq!(counts["refused"], needed, "{counts}");
    assert!(
        output.stderr.contains("--allow-loss key-meta"),
        "{}",
        output.stderr
    );
    let lost = source.count(|key| key.starts_with("may") && is_sent(key));
    assert_eq!(counts["changes"]["key_metadata_lost"], lost, "{counts}");
    let allowed = [&import[..], &["--allow-loss", "key-meta", "--verify"]].concat();
    let counts = sink(&run(&allowed, &archive).success());
    assert_eq!(counts["restored"], needed, "{counts}");
    assert_eq!(get(&mut there.client(), MUST, "must:list"), None);
}

/// What a type filter, a list and JSON Lines see is the value behind them.
#[test]
fn filters_and_lists_see_through_them() {
    let Some(module) = Module::build() else {
        return;
    };
    let source = filled(&module);
    let archive = source.archive(&["--type", "zset"]);
    let path = source.server.path().join("zsets.rmz");
    std::fs::write(&path, &archive).unwrap();
    let path = path.to_str().unwrap();
    let listed = run(&["list", path, "--json"], b"").success();
    let lines = |output: &Output| -> Vec<Value> {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines
            .filter(|line: &Value| line.get("key").is_some())
            .collect()
    };
    let listed = lines(&listed);
    assert_eq!(listed.len(), 4);
    for line in &listed {
        assert_eq!(line["type"], "zset", "{line}");
        assert_ne!(line["type_byte"], 243, "{line}");
        let named = line["key_metadata"].as_array().map_or(0, Vec::len);
        let key = line["key"].as_str().unwrap();
        assert_eq!(named, classes_of(key).len(), "{line}");
    }
    let json = Tool::new(&["convert", path, "-", "--to", "jsonl"])
        .run()
        .success();
    for line in lines(&json) {
        assert_eq!(
            line["value"],
            serde_json::json!([["a", 1.0], ["b", 2.5]]),
            "{line}"
        );
        let key = line["key"].as_str().unwrap();
        let due: BTreeSet<&str> = classes_of(key).iter().copied().collect();
        let rows = line["key_metadata"].as_array().cloned().unwrap_or_default();
        let named: BTreeSet<&str> = rows
            .iter()
            .map(|row| row["class"].as_str().unwrap())
            .collect();
        assert_eq!(named, due, "{line}");
        for row in &rows {
            assert_eq!(row["may_be_ignored"], row["class"] == MAY, "{line}");
            assert!(row["hex"].as_str().unwrap().starts_with("05"), "{line}");
        }
    }
    run(&["inspect", path], b"").success();
    run(&["verify", path], b"").success();
}
