//! What `doctor` and `import --dry-run` say comes true: for every state of a destination and every
//! user, the three end with one and the same code and refuse the same keys.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::servers::{Builder, TestServer, Version, require};
use crate::support::tool::{Output, run};

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
        rule => crate::doctor::user(&server, "writer", rule),
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
            let url = crate::doctor::user(&server, "writer", &rule);
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
