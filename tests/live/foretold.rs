//! What `doctor` and `import --dry-run` say comes true: for every state of a destination and every
//! user, the three end with one and the same code and refuse the same keys.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::servers::{Builder, TestServer, Version, require};
use crate::support::tool::{Output, Tool, run};

/// Names that the patterns below tell apart, in two databases.
const KEYS: [(u32, &str); 8] = [
    (0, "a:b"),
    (0, "k1"),
    (0, "k2"),
    (0, "plain"),
    (0, "x:1"),
    (1, "k3"),
    (1, "other"),
    (1, "x:2"),
];

/// A destination, the user who writes there, and what has to come of it.
struct State {
    name: &'static str,
    /// Whether this version has such users.
    fits: fn(Version) -> bool,
    options: &'static [(&'static str, &'static str)],
    /// What is done to it once it runs.
    setup: fn(&TestServer),
    /// The rule of the user; the default user if it is empty.
    user: &'static str,
    code: i32,
    /// How many keys are refused; nothing is said of them if the run does not begin.
    refused: usize,
}

const PLAIN: State = State {
    name: "nothing in the way",
    fits: |_| true,
    options: &[],
    setup: |_| {},
    user: "",
    code: 0,
    refused: 0,
};

fn has_selectors(version: Version) -> bool {
    version.is_at_least_7()
}

fn has_database_rules(version: Version) -> bool {
    version == Version::Valkey91
}

fn users() -> Vec<State> {
    let user = |name, rule, refused| State {
        name,
        user: rule,
        code: if refused == 0 { 0 } else { 3 },
        refused,
        ..PLAIN
    };
    let from_7 = |state| State {
        fits: has_selectors,
        ..state
    };
    let from_9_1 = |state| State {
        fits: has_database_rules,
        ..state
    };
    vec![
        user("one pattern", "~k* +@all", 5),
        user("a pattern that our own names match", "~*:* +@all", 5),
        user("a class and a backslash", r"~[a-k]* ~x\:1 +@all", 3),
        user("no rules to be read", "~k* +@all -acl", 5),
        user("all keys, no rules to be read", "~* +@all -acl", 0),
        user(
            "only what is needed",
            "~k* -@all +restore +select +exists",
            5,
        ),
        user(
            "all keys, only what is needed",
            "~* -@all +restore +select +exists",
            0,
        ),
        user("no EXISTS", "~k* -@all +restore +select", 5),
        user("no RESTORE", "~* +@all -restore", 0),
        // Lists are built under names of our own.
        user("no RESTORE, some keys", "~k* +@all -restore", 7),
        user(
            "no RESTORE, some keys and our own names",
            "~k* ~__redis-migrate* +@all -restore",
            5,
        ),
        State {
            code: 13,
            ..user("neither RESTORE nor SET", "~* +@all -restore -set", 0)
        },
        from_7(user("read all, write some", "%R~* %W~k* +@all", 5)),
        from_7(user(
            "a selector",
            "%R~* %W~k* +@all (+restore +select +exists ~x:*)",
            3,
        )),
        from_7(user(
            "a selector that is all",
            "~k* +@read +select (+restore ~x:*)",
            6,
        )),
        from_9_1(user("one database", "~* +@all resetdbs db=0", 3)),
        from_9_1(user(
            "some keys of one database",
            "~k* +@all resetdbs db=1",
            7,
        )),
        from_9_1(user(
            "a selector for the other database",
            "~k* +@all resetdbs db=0 (+@all ~x:* resetdbs db=1)",
            5,
        )),
    ]
}

/// Servers that take no key at all.
fn states() -> Vec<State> {
    let state = |name, options, setup| State {
        name,
        options,
        setup,
        code: 13,
        ..PLAIN
    };
    vec![
        PLAIN,
        state(
            "too few replicas",
            &[("--min-replicas-to-write", "1")],
            |_| {},
        ),
        state("full", &[("--maxmemory", "1")], |_| {}),
        state("a replica", &[("--replicaof", "127.0.0.1 1")], |_| {}),
        state(
            "cannot save",
            &[("--save", "3600 1000000"), ("--dbfilename", "taken.rdb")],
            |server| {
                std::fs::create_dir(server.path().join("taken.rdb")).unwrap();
                let mut client = server.client();
                redis::cmd("BGSAVE").exec(&mut client).unwrap();
                for _ in 0..200 {
                    let info: String = redis::cmd("INFO").query(&mut client).unwrap();
                    if info.contains("rdb_last_bgsave_status:err") {
                        return;
                    }
                    std::thread::sleep(std::time::Duration::from_millis(50));
                }
                panic!("it can save");
            },
        ),
    ]
}

fn archive_of(version: Version, path: &Path) {
    let source = TestServer::start(version);
    for (n, (db, key)) in KEYS.into_iter().enumerate() {
        let mut client = source.client_db(db);
        let mut command = redis::cmd(if n % 2 == 0 { "SET" } else { "RPUSH" });
        command.arg(key).arg("v").exec(&mut client).unwrap();
    }
    let path = path.to_str().unwrap();
    run(&["export", &source.url(), "-o", path], b"").success();
}

/// The keys that a run names as refused.
fn named(output: &Output) -> BTreeSet<(u64, String)> {
    let lines = output.stderr.lines();
    lines
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|event| event["event"] == "key_failed")
        .map(|event| {
            let key = event["key"].as_str().unwrap().to_owned();
            (event["db"].as_u64().unwrap(), key)
        })
        .collect()
}

fn compare(version: Version, state: &State, archive: &str, more: &[&str]) {
    let what = format!("{version}, {}, {more:?}", state.name);
    let mut builder: Builder = TestServer::builder(version);
    for (name, value) in state.options {
        builder = builder.args(std::iter::once(*name).chain(value.split(' ')));
    }
    let server = builder.start();
    (state.setup)(&server);
    let url = match state.user {
        "" => server.url(),
        rule => crate::live::doctor::user(&server, "writer", rule),
    };
    let import = |last: &[&str]| {
        let mut arguments = vec!["import", &url, archive, "--json", "--progress", "json"];
        arguments.extend(more);
        arguments.extend(last);
        run(&arguments, b"")
    };
    let doctor = run(&["doctor", "--json", &url, archive], b"");
    let dry = import(&["--dry-run"]);
    let size: u64 = redis::cmd("DBSIZE").query(&mut server.client()).unwrap();
    assert_eq!(size, 0, "{what}: a dry run wrote");
    let real = import(&[]);
    let words = format!(
        "{what}\n--- doctor {:?}\n{}\n--- dry run {:?}\n{}\n--- run {:?}\n{}",
        doctor.code(),
        String::from_utf8_lossy(&doctor.stdout),
        dry.code(),
        dry.stderr,
        real.code(),
        real.stderr
    );
    assert_eq!(real.code(), Some(state.code), "{words}");
    assert_eq!(dry.code(), real.code(), "{words}");
    assert_eq!(doctor.code(), real.code(), "{words}");
    assert_eq!(named(&real).len(), state.refused, "{words}");
    assert_eq!(named(&dry), named(&real), "{words}");
    let report: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let archive = &report["archive"];
    let closed: Vec<u64> = archive["closed_databases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|db| db.as_u64().unwrap())
        .collect();
    let elsewhere = KEYS
        .iter()
        .filter(|(db, _)| closed.contains(&u64::from(*db)))
        .count();
    for fates in archive["by_type"].as_object().unwrap().values() {
        let count = |name: &str| fates[name].as_u64().unwrap();
        let sum: u64 = ["kept", "restamped", "reencoded", "refused"]
            .map(count)
            .iter()
            .sum();
        assert_eq!(sum, count("keys"), "{words}");
    }
    let refused = archive["refused"].as_u64().unwrap();
    if state.code != 13 {
        assert_eq!(refused + elsewhere as u64, state.refused as u64, "{words}");
    }
}

/// Each version that is here, with an archive for it.
fn archives() -> impl Iterator<Item = (Version, tempfile::NamedTempFile)> {
    let versions = [Version::Redis62, Version::Redis70, Version::Valkey91];
    versions.into_iter().filter_map(require).map(|version| {
        let file = tempfile::NamedTempFile::new().unwrap();
        archive_of(version, file.path());
        (version, file)
    })
}

#[test]
fn what_is_foretold_of_a_user_comes_true() {
    for (version, file) in archives() {
        let archive = file.path().to_str().unwrap();
        for state in users().iter().filter(|state| (state.fits)(version)) {
            compare(version, state, archive, &[]);
        }
        let some = &users()[0];
        compare(version, some, archive, &["--replace"]);
        compare(version, some, archive, &["--on-conflict", "skip"]);
    }
}

#[test]
fn what_is_foretold_of_a_server_that_takes_nothing_comes_true() {
    for (version, file) in archives() {
        let archive = file.path().to_str().unwrap();
        for state in states() {
            compare(version, &state, archive, &[]);
        }
        compare(version, &states()[1], archive, &["--method", "commands"]);
    }
}

/// The rule that is proposed for a command that is refused is one that a server takes, and enough.
#[test]
fn the_rule_that_is_proposed_is_accepted_and_helps() {
    for (version, file) in archives() {
        let archive = file.path().to_str().unwrap();
        for refused in ["set", "xgroup", "multi"] {
            let server = TestServer::start(version);
            let rule = format!("~* +@all -restore -{refused}");
            let url = crate::live::doctor::user(&server, "writer", &rule);
            let dry = ["import", &url, archive, "--dry-run"];
            let output = run(&dry, b"").expect_code(13);
            let (_, proposed) = output
                .stderr
                .split_once("ACL SETUSER … ")
                .unwrap_or_else(|| panic!("no rule in\n{}", output.stderr));
            let end = proposed.find([')', ' ']).unwrap();
            assert_eq!(&proposed[..end], format!("+{refused}"), "{version}");
            redis::cmd("ACL")
                .arg(&["SETUSER", "writer", &proposed[..end]])
                .exec(&mut server.client())
                .unwrap();
            run(&dry, b"").success();
        }
    }
}

/// A server that runs a script without end, until it is told to stop.
struct Busy<'a> {
    server: &'a TestServer,
    script: std::thread::JoinHandle<()>,
}

impl<'a> Busy<'a> {
    fn make(server: &'a TestServer) -> Self {
        let mut client = server.client();
        let script = std::thread::spawn(move || {
            let mut eval = redis::cmd("EVAL");
            eval.arg("while true do end").arg(0);
            // Ends with an error: it is killed.
            eval.exec(&mut client).unwrap_err();
        });
        let busy = Self { server, script };
        for _ in 0..200 {
            if busy.is_busy() {
                return busy;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("it does not answer BUSY");
    }

    fn is_busy(&self) -> bool {
        let output = self.server.cli(&["GET", "k"]);
        String::from_utf8_lossy(&output.stdout).starts_with("BUSY")
    }

    fn end(self) {
        assert!(self.is_busy(), "it ended by itself");
        self.server.cli(&["SCRIPT", "KILL"]);
        self.script.join().unwrap();
    }
}

/// What a server that answers BUSY does not tell is called not known, and nothing is called refused
/// or absent; the code is the one that an import, its dry run and an export end with.
#[test]
fn what_a_busy_server_does_not_tell_is_not_known() {
    for (version, file) in archives() {
        let archive = file.path().to_str().unwrap();
        let server = TestServer::builder(version)
            .option("--lua-time-limit", "10")
            .start();
        let url = server.url();
        let busy = Busy::make(&server);
        let with = |arguments: &[&str]| {
            let mut all = arguments.to_vec();
            all.extend(["--retry-for", "0"]);
            run(&all, b"")
        };
        let nowhere = tempfile::tempdir().unwrap();
        let nowhere = nowhere.path().join("a.rmz");
        with(&["export", &url, "-o", nowhere.to_str().unwrap()]).expect_code(1);
        with(&["import", &url, archive]).expect_code(1);
        with(&["import", &url, archive, "--dry-run"]).expect_code(1);
        for files in [&[][..], &[archive]] {
            let text = with(&[&["doctor", &url], files].concat()).expect_code(1);
            assert!(text.stderr.contains("the server answers BUSY"));
            let text = String::from_utf8(text.stdout).unwrap();
            let what = format!("{version}:\n{text}");
            for line in [
                "keys     not known: the server answers BUSY",
                "modules  not known: the server answers BUSY",
                "Temporary keys of killed runs: not known: the server answers BUSY.",
            ] {
                assert!(text.lines().any(|known| known == line), "{line}: {what}");
            }
            let json = with(&[&["doctor", "--json", &url], files].concat()).expect_code(1);
            let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
            assert!(report["not_now"].as_str().unwrap().starts_with("BUSY "));
            assert!(report["leftovers"]["found"].is_null(), "{what}");
            for row in report["commands"].as_array().unwrap() {
                assert_ne!(row["access"], "refused", "{row}: {what}");
                assert_ne!(row["access"], "not now", "{row}: {what}");
            }
            for job in ["export", "import"] {
                let job = &report[job];
                assert!(job["possible"].is_null(), "{what}");
                for row in job["promises"].as_array().unwrap() {
                    // Also a busy server says which commands it does not have, and some answer
                    // CLIENT NO-TOUCH.
                    let is_answered = match row["about"].as_str() {
                        Some("functions") => !version.is_at_least_7(),
                        Some("traces") => true,
                        _ => false,
                    };
                    if is_answered {
                        continue;
                    }
                    let text = row["text"].as_str().unwrap();
                    assert!(!text.contains("refused"), "{row}: {what}");
                    assert_ne!(row["verdict"], "yes", "{row}: {what}");
                    assert_ne!(row["verdict"], "no", "{row}: {what}");
                }
            }
        }
        busy.end();
        run(&["doctor", &url, archive], b"").success();
    }
}

/// Users of Valkey 9.1 have databases of their own: those that are closed to one are named, as INFO
/// tells of them.
#[test]
fn databases_that_a_user_may_not_enter_are_named() {
    let Some(version) = require(Version::Valkey91) else {
        return;
    };
    let server = TestServer::start(version);
    for db in 0..3 {
        let mut client = server.client_db(db);
        let set = |key: &str| redis::cmd("SET").arg(key).arg("v").to_owned();
        set("k").exec(&mut client).unwrap();
        set("__redis-migrate:tmp:1:2").exec(&mut client).unwrap();
    }
    for (rule, open, has_info) in [
        ("~* +@all resetdbs db=1,2", &[1, 2][..], true),
        ("~* +@all resetdbs db=0,2", &[0, 2], true),
        ("~* +@all resetdbs db=2 -info", &[2], false),
    ] {
        let url = crate::live::doctor::user(&server, "reader", rule);
        let doctor = |more: &[&str]| {
            Tool::new(&["doctor", "--source"])
                .args(more)
                .env("SOURCE_REDIS_URL", &url)
                .run()
                .success()
        };
        let report: serde_json::Value =
            serde_json::from_slice(&doctor(&["--json"]).stdout).unwrap();
        let what = format!("{rule}: {report:#}");
        let there = &report["server"];
        assert_eq!(there["open_databases"], serde_json::json!(open), "{what}");
        let rows = there["databases"].as_array().unwrap();
        assert_eq!(rows.len(), if has_info { 3 } else { open.len() }, "{what}");
        for row in rows {
            assert_eq!(row["keys"], 2, "{what}");
            let is_open = open.iter().any(|db| row["db"] == *db);
            assert_eq!(row["refused"].is_null(), is_open, "{what}");
        }
        // What is looked for is looked for in all that are open.
        assert_eq!(report["leftovers"]["found"], open.len(), "{what}");
        for job in ["export", "import"] {
            let promises = report[job]["promises"].as_array().unwrap();
            let about = promises.iter().find(|row| row["about"] == "databases");
            let told = about.unwrap()["text"].as_str().unwrap();
            let shown: Vec<String> = open.iter().map(u32::to_string).collect();
            let list = format!(" {}, but not database", shown.join(", "));
            assert!(told.contains("may enter database"), "{what}");
            assert!(told.contains(&list), "{what}");
        }
        let text = String::from_utf8(doctor(&[]).stdout).unwrap();
        assert_eq!(text.contains("may not read it (NOPERM"), has_info, "{text}");
        // The rule that is printed opens them, too.
        let rule = report["export"]["acl_full"].as_str().unwrap();
        let url = crate::live::doctor::user(&server, "reader", &format!("reset on >pw {rule}"));
        run(&["export", &url], b"").success();
        let closed = crate::live::doctor::user(&server, "reader", "resetdbs");
        run(&["export", &closed, "--db", "0"], b"").expect_code(13);
        let url = crate::live::doctor::user(&server, "reader", rule);
        run(&["export", &url], b"").success();
    }
}
