//! Databases that the destination does not give: nothing that was meant for them goes anywhere else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use redis_migrate_format::record::{Context, KeyRecord, Record, Value};

use super::archives::{self, archive, archive_of, string, string_until, tombstone};
use super::between::{Act, Between};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, run};
use crate::support::toy::{Deed, Toy};

/// Every key of every database of a server whose values are strings.
fn all(server: &TestServer) -> BTreeMap<(u32, String), String> {
    let mut all = BTreeMap::new();
    let mut client = server.client();
    let info: String = redis::cmd("INFO")
        .arg("keyspace")
        .query(&mut client)
        .unwrap();
    let dbs = info.lines().filter_map(|line| {
        line.strip_prefix("db")?
            .split_once(':')?
            .0
            .parse::<u32>()
            .ok()
    });
    for db in dbs {
        let mut client = server.client_db(db);
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut client).unwrap();
        for key in keys {
            let value = redis::cmd("GET").arg(&key).query(&mut client).unwrap();
            all.insert((db, key), value);
        }
    }
    all
}

fn rows<const N: usize>(rows: [(u32, &str, &str); N]) -> BTreeMap<(u32, String), String> {
    let owned = |(db, key, value): (u32, &str, &str)| ((db, key.to_owned()), value.to_owned());
    rows.into_iter().map(owned).collect()
}

fn set(server: &TestServer, db: u32, key: &str, value: &str) {
    redis::cmd("SET")
        .arg(key)
        .arg(value)
        .exec(&mut server.client_db(db))
        .unwrap();
}

fn in_db(db: u32, mut record: Record) -> Record {
    match &mut record {
        Record::Key(key) => key.db = db,
        Record::Deleted { db: its, .. } => *its = db,
        _ => {}
    }
    record
}

fn many(version: Version, databases: &str) -> TestServer {
    TestServer::builder(version)
        .option("--databases", databases)
        .start()
}

/// The report names this key of this database as refused.
fn names(output: &Output, db: u32, key: &str) {
    let is_named = |line: &str| line.contains(key) && line.contains(&format!("db {db}"));
    assert!(
        output.stderr.lines().any(is_named),
        "{key} of {db} is not named:\n{}",
        output.stderr
    );
}

/// The case that was found: three databases at the source, the destination has fewer, and keys of
/// its own under the same names.
#[test]
fn keys_of_a_database_that_is_not_there_go_nowhere() {
    for version in [Version::Redis70, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        let source = many(version, "64");
        for (db, value) in [(0, "zero"), (1, "one"), (30, "thirty")] {
            set(&source, db, "session:1", value);
        }
        let export = run(&["export", &source.url()], b"").success();
        let destination = many(version, "16");
        let before = [(0, "session:1", "own"), (0, "own", "own")];
        for more in [
            &[][..],
            &["--method", "commands"],
            &["--jobs", "2"],
            &["--verify"],
        ] {
            redis::cmd("FLUSHALL")
                .exec(&mut destination.client())
                .unwrap();
            for (db, key, value) in before {
                set(&destination, db, key, value);
            }
            let arguments = ["import", &destination.url(), "--on-conflict", "replace"];
            let output = match more {
                ["--jobs", _] => {
                    let file = destination.path().join("x.rmz");
                    std::fs::write(&file, &export.stdout).unwrap();
                    let file = file.to_str().unwrap();
                    run(&[&arguments[..], more, &[file]].concat(), b"")
                }
                _ => run(&[&arguments[..], more].concat(), &export.stdout),
            };
            let output = output
                .expect_code(3)
                .expect_stderr("cannot select database 30")
                .expect_stderr("DB index is out of range");
            names(&output, 30, "session:1");
            let want = [
                (0, "session:1", "zero"),
                (0, "own", "own"),
                (1, "session:1", "one"),
            ];
            assert_eq!(
                all(&destination),
                rows(want),
                "{version} {more:?}\n{}",
                output.stderr
            );
        }
        // The same from server to server; and nothing is deleted at the source that does not stand.
        redis::cmd("FLUSHALL")
            .exec(&mut destination.client())
            .unwrap();
        set(&destination, 0, "session:1", "own");
        run(
            &[
                "copy",
                &source.url(),
                &destination.url(),
                "--replace",
                "--delete-source",
            ],
            b"",
        )
        .expect_code(3);
        let want = [(0, "session:1", "zero"), (1, "session:1", "one")];
        assert_eq!(all(&destination), rows(want), "{version}");
        assert_eq!(
            all(&source),
            rows([(30, "session:1", "thirty")]),
            "{version}"
        );
    }
}

/// A mapping, and the URL, may name one that is not there.
#[test]
fn a_database_that_the_user_names_is_tried_before_the_first_key() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let destination = many(version, "16");
    set(&destination, 0, "k", "own");
    let input = archive(&[vec![
        string("k", "0"),
        in_db(1, string("k", "1")),
        in_db(1, string("l", "1")),
    ]]);
    let output = run(
        &[
            "import",
            &destination.url(),
            "--map-db",
            "1:99",
            "--replace",
        ],
        &input,
    )
    .expect_code(3)
    .expect_stderr("cannot select database 99")
    // The advice names the source's database, not the one that was refused.
    .expect_stderr("--map-db 1:N");
    names(&output, 99, "l");
    assert_eq!(all(&destination), rows([(0, "k", "0")]));

    set(&destination, 0, "k", "own");
    let url = format!("{}/16", destination.url());
    let one = archive(&[vec![string("k", "0")]]);
    for dry in [&[][..], &["--dry-run"]] {
        let arguments = [&["import", &url, "--replace"], dry].concat();
        let output = run(&arguments, &one)
            .expect_code(3)
            .expect_stderr("cannot select database 16");
        names(&output, 16, "k");
        assert_eq!(all(&destination), rows([(0, "k", "own")]));
    }
}

/// What is past its time, and what a tombstone removes, is removed in its own database only.
#[test]
fn nothing_is_deleted_in_another_database() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let destination = many(version, "4");
    set(&destination, 0, "expired", "own");
    set(&destination, 0, "gone", "own");
    let input = archive(&[vec![
        in_db(9, string_until("expired", "v", Some(1_000))),
        in_db(9, tombstone("gone")),
        in_db(1, string("k", "1")),
    ]]);
    run(&["import", &destination.url(), "--replace"], &input).expect_code(3);
    let want = [(0, "expired", "own"), (0, "gone", "own"), (1, "k", "1")];
    assert_eq!(all(&destination), rows(want));
}

/// Users with other rights than all.
#[test]
fn users_write_only_where_they_may() {
    for (version, rule, open) in [
        (Version::Redis60, "~* +@all -select", &[0][..]),
        (Version::Redis80, "~* +@all -select", &[0]),
        (Version::Valkey91, "~* +@all resetdbs db=0,1", &[0, 1]),
        // Where every connection begins it may do nothing.
        (Version::Valkey91, "~* +@all resetdbs db=1,2", &[1, 2]),
    ] {
        let Some(version) = require(version) else {
            continue;
        };
        let destination = TestServer::start(version);
        let mut user = redis::cmd("ACL");
        user.arg("SETUSER").arg("some").arg("on").arg(">pw");
        user.arg(rule.split(' ').collect::<Vec<_>>());
        user.exec(&mut destination.client()).unwrap();
        let url = format!("redis://some:pw@127.0.0.1:{}", destination.port());
        let dbs = [0, 1, 2, 3];
        let records = dbs.map(|db| in_db(db, string(&format!("k{db}"), "v")));
        let input = archive(&[records.to_vec()]);
        for method in ["auto", "commands"] {
            redis::cmd("FLUSHALL")
                .exec(&mut destination.client())
                .unwrap();
            let arguments = ["import", &url, "--replace", "--method", method];
            let output = run(&arguments, &input).expect_code(3);
            let mut want = BTreeMap::new();
            for db in dbs {
                match open.contains(&db) {
                    true => _ = want.insert((db, format!("k{db}")), "v".to_owned()),
                    false => names(&output, db, &format!("k{db}")),
                }
            }
            assert_eq!(
                all(&destination),
                want,
                "{version} {rule} {method}\n{}",
                output.stderr
            );
        }
    }
}

/// A proxy in front of many servers knows no databases: it says so, or hangs up, at each SELECT.
#[test]
fn proxies_that_know_database_0_only_get_its_keys() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let input = archive(&[vec![
        in_db(2, string("k", "two")),
        string("k", "zero"),
        in_db(3, string("k", "three")),
    ]]);
    for act in [
        Act::Say("-ERR unknown command 'SELECT'\r\n"),
        Act::HangUp,
        Act::Say("+QUEUED\r\n"),
        Act::Say("$-1\r\n"),
        // It goes there and says that it does not.
        Act::DoAndSay("-ERR no such database\r\n"),
    ] {
        let destination = TestServer::start(version);
        let shown = format!("{act:?}");
        let proxy = Between::start(destination.addr(), move |command| {
            match command[0].eq_ignore_ascii_case(b"SELECT") {
                true => act.clone(),
                false => Act::Pass,
            }
        });
        let output = run(&["import", &proxy.url(), "--replace"], &input).expect_code(3);
        names(&output, 2, "k");
        names(&output, 3, "k");
        assert_eq!(
            all(&destination),
            rows([(0, "k", "zero")]),
            "{shown}\n{}",
            output.stderr
        );
    }
}

/// A SELECT that is answered badly for a while: nothing is lost, and nothing goes astray.
#[test]
fn a_select_that_fails_for_a_while_is_waited_for() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let frames: Vec<Vec<Record>> = (0..40)
        .map(|frame| {
            let db = frame % 4;
            let key = |n: u32| in_db(db, string(&format!("k{frame}:{n}"), &db.to_string()));
            (0..25).map(key).collect()
        })
        .collect();
    let input = archive(&frames);
    for act in [
        Act::Say("-BUSY Redis is busy running a script.\r\n"),
        Act::Say("-LOADING Redis is loading the dataset in memory\r\n"),
        Act::Say("-NOAUTH Authentication required.\r\n"),
        Act::Say("$-1\r\n"),
        Act::HangUp,
    ] {
        let destination = TestServer::start(version);
        let mut count = 0;
        let shown = format!("{act:?}");
        let proxy = Between::start(destination.addr(), move |command| {
            count += u32::from(command[0].eq_ignore_ascii_case(b"SELECT"));
            match command[0].eq_ignore_ascii_case(b"SELECT") && count % 5 == 0 {
                true => act.clone(),
                false => Act::Pass,
            }
        });
        run(&["import", &proxy.url()], &input).success();
        let found = all(&destination);
        assert_eq!(found.len(), 1000, "{shown}");
        for ((db, key), value) in found {
            assert_eq!(db.to_string(), value, "{shown}: {key}");
        }
    }
}

/// Several databases in one batch cost one round trip for each, not for each key.
#[test]
fn records_of_a_batch_are_sorted_by_database() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let destination = TestServer::start(version);
    let proxy = Between::start(destination.addr(), |_| Act::Pass);
    let records: Vec<Record> = (0..400)
        .map(|n| in_db(n % 4, string(&format!("k{n}"), &n.to_string())))
        .collect();
    run(&["import", &proxy.url()], &archive(&[records])).success();
    let all = all(&destination);
    for n in 0..400 {
        let found = all.get(&(n % 4, format!("k{n}")));
        assert_eq!(found, Some(&n.to_string()));
    }
    let selects = proxy.seen();
    let selects = selects.iter().filter(|word| word.starts_with("SELECT"));
    // Three to try them, three to go there.
    assert!(selects.count() <= 8, "{:?}", proxy.seen());
}

/// What follows a source meets a database that nobody knew of.
#[test]
fn a_database_that_appears_while_following_is_refused_by_name() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = many(version, "64");
    let destination = many(version, "16");
    set(&source, 1, "first", "1");
    set(&destination, 1, "late", "own");
    let mut run = crate::support::tool::Tool::new(&[
        "copy",
        &source.url(),
        &destination.url(),
        "--follow",
        "--replace",
    ])
    .spawn();
    let wait_for = |db: u32, key: &str, value: &str| {
        for _ in 0..600 {
            if all(&destination)
                .get(&(db, key.to_owned()))
                .map(String::as_str)
                == Some(value)
            {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("{key} did not arrive: {:?}", all(&destination));
    };
    wait_for(1, "first", "1");
    set(&source, 40, "late", "forty");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    set(&source, 1, "last", "1");
    wait_for(1, "last", "1");
    run.signal("INT");
    let output = run.wait().expect_code(3);
    names(&output, 40, "late");
    let want = [(1, "first", "1"), (1, "last", "1"), (1, "late", "own")];
    assert_eq!(all(&destination), rows(want), "{}", output.stderr);
}

/// A database that the source does not have is a command that it refuses, as one that is forbidden is.
#[test]
fn a_database_that_the_source_does_not_have_is_refused() {
    for version in [Version::Redis70, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        let server = TestServer::start(version);
        let there = server.url();
        let beyond = format!("{there}/99");
        for arguments in [
            &["export", &there, "--db", "99", "-o", "/dev/null"][..],
            &["export", &beyond, "-o", "/dev/null"],
            &["copy", &beyond, &there, "--map-db", "*:3"],
            &["diff", &beyond, &there],
        ] {
            run(arguments, b"")
                .expect_code(13)
                .expect_stderr("DB index is out of range")
                .expect_stderr("the server has no such database");
        }
    }
}

/// Databases that change places cannot meet.
#[test]
fn only_databases_that_may_meet_are_warned_of() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (from, to) = (TestServer::start(version), TestServer::start(version));
    for db in [0, 1] {
        set(&from, db, "k", &db.to_string());
    }
    let archive = run(&["export", &from.url()], b"").success().stdout;
    for (map, may_meet) in [
        (&["0:1", "1:0"][..], false),
        (&["0:1"], true),
        (&["*:4"], true),
    ] {
        let maps: Vec<&str> = map.iter().flat_map(|map| ["--map-db", map]).collect();
        let url = to.url();
        let import = [&["import", &url, "--replace"][..], &maps].concat();
        let output = run(&import, &archive).success();
        let warned = output.stderr.contains("may get the same name");
        assert_eq!(warned, may_meet, "{map:?}: {}", output.stderr);
    }
}

/// A value that native commands write takes several turns, and the later ones belong into its own
/// database: nothing of it is sent behind the SELECT of the next one.
#[test]
fn values_written_in_turns_stay_in_their_database() {
    if require(Version::Redis80).is_none() {
        return;
    }
    let server = TestServer::start(Version::Redis80);
    let in_a_year_ms = crate::support::dataset::now_ms() + 365 * 86_400_000;
    let mut records = Vec::new();
    let ask = |client: &mut redis::Connection, words: &[&str]| -> redis::Value {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query(client).unwrap()
    };
    let mut client = server.client();
    for db in 0..6 {
        for number in 0..4 {
            // A hash whose fields expire takes several commands.
            let (value, at_ms) = (format!("{db} {number}"), in_a_year_ms.to_string());
            ask(
                &mut client,
                &["HSET", "made", "field", &value, "other", "x"],
            );
            let expire = ["HPEXPIREAT", "made", &at_ms, "FIELDS", "1", "field"];
            ask(&mut client, &expire);
            let dump = redis::cmd("DUMP").arg("made").query(&mut client).unwrap();
            records.push(Record::Key(KeyRecord {
                db,
                key: format!("hash {number}").into_bytes(),
                value: Value::Verbatim(dump),
                expire_at_ms: Some(in_a_year_ms),
                eviction: None,
            }));
        }
    }
    ask(&mut client, &["DEL", "made"]);
    let context = Context {
        rdb_version: 12,
        ..archives::context()
    };
    // In one frame, and so in one batch.
    let archive = archive_of(&[(context, records)]);
    let import = ["import", &server.url(), "--method", "commands"];
    let output = run(&import, &archive).success();
    for db in 0..6 {
        let mut client = server.client_db(db);
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut client).unwrap();
        assert_eq!(keys.len(), 4, "db {db}: {keys:?}\n{}", output.stderr);
        for number in 0..4 {
            let key = format!("hash {number}");
            let found = ask(&mut client, &["HGET", &key, "field"]);
            let wanted = redis::Value::BulkString(format!("{db} {number}").into_bytes());
            assert_eq!(found, wanted, "db {db} {key}");
            let at_ms = ask(&mut client, &["PEXPIRETIME", &key]);
            let wanted = redis::Value::Int(in_a_year_ms as i64);
            assert_eq!(at_ms, wanted, "db {db} {key}");
        }
    }
}

/// A scan reads one half of a database under one number and the other under another: keys that
/// stood all the time may be in neither.
#[test]
fn databases_that_are_swapped_under_a_scan_are_told_of() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = TestServer::start(version);
    for db in [0, 1] {
        let mut pipe = redis::pipe();
        (0..500).for_each(|n| _ = pipe.cmd("SET").arg(format!("{db}:{n}")).arg("v"));
        pipe.exec(&mut source.client_db(db)).unwrap();
    }
    let destination = TestServer::start(version);
    for swaps in [true, false] {
        let (to, scans) = (source.addr(), AtomicU32::new(0));
        let toy = Toy::start(source.addr(), move |words| {
            if swaps && words[0] == b"SCAN" && scans.fetch_add(1, SeqCst) == 3 {
                let client = redis::Client::open(format!("redis://{to}")).unwrap();
                let mut client = client.get_connection().unwrap();
                redis::cmd("SWAPDB")
                    .arg(0)
                    .arg(1)
                    .exec(&mut client)
                    .unwrap();
            }
            Deed::Pass
        });
        let slowly = ["--consistency=scan", "--scan-count=50"];
        for verb in ["export", "copy"] {
            redis::cmd("FLUSHALL")
                .exec(&mut destination.client())
                .unwrap();
            let to = destination.url();
            let from = toy.url();
            let ends = match verb {
                "copy" => vec![verb, &from, &to],
                _ => vec![verb, &from],
            };
            let output = run(&[&ends[..], &slowly].concat(), b"");
            // The second run finds them at rest again.
            match swaps && verb == "export" {
                true => {
                    _ = output
                        .expect_code(3)
                        .expect_stderr("databases were swapped")
                }
                false => _ = output.success(),
            }
        }
    }
}

/// Somebody else swaps or empties databases under an import: what was acknowledged may be elsewhere
/// by then, or gone.
#[test]
fn databases_that_are_swapped_or_emptied_under_an_import_are_told_of() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let destination = TestServer::start(version);
    let records = archive(&[
        (0..50).map(|n| string(&format!("a:{n}"), "v")).collect(),
        vec![string("last", "v")],
    ]);
    for (act, code) in [
        (Some(&["SWAPDB", "0", "1"][..]), 3),
        (Some(&["FLUSHDB"]), 3),
        (None, 0),
    ] {
        redis::cmd("FLUSHALL")
            .exec(&mut destination.client())
            .unwrap();
        let address = destination.addr();
        let toy = Toy::start(address, move |words| {
            if words[0] == b"RESTORE"
                && words[1] == b"last"
                && let Some(act) = act
            {
                let client = redis::Client::open(format!("redis://{address}")).unwrap();
                let mut command = redis::cmd(act[0]);
                command.arg(&act[1..]);
                command.exec(&mut client.get_connection().unwrap()).unwrap();
            }
            Deed::Pass
        });
        let output = run(&["import", &toy.url()], &records).expect_code(code);
        let told = output
            .stderr
            .contains("somebody emptied or swapped databases");
        assert_eq!(told, code == 3, "{act:?}: {}", output.stderr);
    }
}
