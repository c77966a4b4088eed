//! copy: what only it can do. Deleting at the source, and not onto itself.

use crate::support::dataset::fill_every_type;
use crate::support::equality::{Options, differences};
use crate::support::many::fill_many;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Tool, run};

fn size(server: &TestServer, db: u32) -> u64 {
    redis::cmd("DBSIZE")
        .query(&mut server.client_db(db))
        .unwrap()
}

#[test]
fn delete_source_moves_everything_but_streams_with_groups() {
    for version in Version::MATRIX {
        let Some(version) = require(version) else {
            continue;
        };
        let (source, reference) = (TestServer::start(version), TestServer::start(version));
        let destination = TestServer::start(version);
        fill_every_type(&mut source.client(), version);
        run(&["copy", &source.url(), &reference.url()], b"").success();
        run(
            &["copy", &source.url(), &destination.url(), "--delete-source"],
            b"",
        )
        .success()
        .expect_stderr("streams with consumer groups");
        let moved = differences(
            &mut reference.client(),
            &mut destination.client(),
            &Options::default(),
        );
        assert!(moved.is_empty(), "{version}: {moved:?}");
        for db in 0..16 {
            let left: Vec<Vec<u8>> = redis::cmd("KEYS")
                .arg("*")
                .query(&mut source.client_db(db))
                .unwrap();
            for key in left {
                let groups: Vec<redis::Value> = redis::cmd("XINFO")
                    .arg("GROUPS")
                    .arg(&key)
                    .query(&mut source.client_db(db))
                    .unwrap_or_else(|error| panic!("{} was kept: {error}", key.escape_ascii()));
                assert!(
                    !groups.is_empty(),
                    "{version}: {} was kept",
                    key.escape_ascii()
                );
            }
        }
    }
}

/// Keys that the destination did not accept in this run stay, and so do keys that changed since
/// they were read.
#[test]
fn delete_source_keeps_what_was_not_accepted() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    for key in ["a", "b", "same"] {
        redis::cmd("SET")
            .arg(key)
            .arg("v")
            .exec(&mut source.client())
            .unwrap();
    }
    redis::cmd("SET")
        .arg("b")
        .arg("standing")
        .exec(&mut destination.client())
        .unwrap();
    redis::cmd("SET")
        .arg("same")
        .arg("v")
        .exec(&mut destination.client())
        .unwrap();
    run(
        &["copy", &source.url(), &destination.url(), "--delete-source"],
        b"",
    )
    .expect_code(3);
    let left: Vec<String> = redis::cmd("KEYS")
        .arg("*")
        .query(&mut source.client())
        .unwrap();
    assert_eq!(left, ["b"]);
}

/// Under `skip` too, what stands at the destination is compared: equal keys go, others stay and are
/// counted.
#[test]
fn delete_source_with_skip_compares_what_stands() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    let set = |server: &TestServer, key: &str, value: &str, more: &[&str]| {
        let mut command = redis::cmd("SET");
        command.arg(key).arg(value).arg(more);
        command.exec(&mut server.client()).unwrap();
    };
    let until = ["PXAT", "4000000000000"];
    for (key, more) in [
        ("a", &[][..]),
        ("same", &[]),
        ("other", &[]),
        ("lasting", &until),
    ] {
        set(&source, key, "v", more);
    }
    set(&destination, "same", "v", &[]);
    set(&destination, "other", "standing", &[]);
    // The same value with another expiry is another.
    set(&destination, "lasting", "v", &[]);
    // Of the same meaning, and stored otherwise.
    for (server, order) in [(&source, ["x", "y"]), (&destination, ["y", "x"])] {
        let mut add = redis::cmd("SADD");
        add.arg("set").arg(&order);
        add.exec(&mut server.client()).unwrap();
    }
    let copy = ["copy", &source.url(), &destination.url(), "--delete-source"];
    let skip = ["--on-conflict", "skip", "--json"];
    // A dry run deletes nothing, and says what the run would delete.
    let dry = run(&[&copy[..], &skip[..2], &["--dry-run"]].concat(), b"");
    dry.expect_code(0)
        .expect_stderr("--delete-source deletes each source key");
    assert_eq!(size(&source, 0), 5);
    for deleted in [3, 0] {
        let said = run(&[&copy[..], &skip].concat(), b"").expect_code(0);
        assert_eq!(all_keys(&source), [b"lasting".to_vec(), b"other".to_vec()]);
        let sink = &said.summary()["sink"];
        assert_eq!(sink["source_deleted"], deleted, "{sink}");
        assert_eq!(sink["source_kept"], 2, "{sink}");
        assert_eq!(sink["source_kept_for_another"], 2, "{sink}");
    }
    let said = run(&[&copy[..], &skip[..2]].concat(), b"").expect_code(0);
    let line = String::from_utf8_lossy(&said.stdout).into_owned() + &said.stderr;
    let kept = "kept 2 (2 because the destination has another value or expiry)";
    assert!(line.contains(kept), "{line}");
    assert_eq!(size(&destination, 0), 5);
}

/// A run that was killed between copying and deleting leaves keys at both sides: the next one
/// deletes them, and says what it keeps.
#[test]
fn delete_source_run_again_deletes_what_a_killed_run_left() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    fill_every_type(&mut source.client(), version);
    run(&["copy", &source.url(), &destination.url()], b"").success();
    let due = all_keys(&source);
    let changed = &due[0];
    let set = |server: &TestServer, key: &[u8], value: &str| {
        let mut command = redis::cmd("SET");
        command.arg(key).arg(value);
        command.exec(&mut server.client()).unwrap();
    };
    set(&source, changed, "written since");
    let copy = ["copy", &source.url(), &destination.url(), "--delete-source"];
    let said = run(&[&copy[..], &["--json"]].concat(), b"").expect_code(3);
    let left = all_keys(&source);
    assert!(left.contains(changed), "{left:?}");
    let groups = left.iter().filter(|key| *key != changed);
    for key in groups {
        let of: String = redis::cmd("TYPE")
            .arg(key)
            .query(&mut source.client())
            .unwrap();
        assert_eq!(of, "stream", "{} was kept", key.escape_ascii());
    }
    assert!(left.len() < due.len() / 2, "{left:?}");
    let all: String = [
        said.stderr,
        String::from_utf8_lossy(&said.stdout).into_owned(),
    ]
    .concat();
    let summary = all
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find(|object| object["event"] == "summary")
        .expect("a summary");
    assert!(
        summary["sink"]["source_kept"].as_u64() >= Some(left.len() as u64),
        "{summary}"
    );
}

fn all_keys(server: &TestServer) -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = redis::cmd("KEYS")
        .arg("*")
        .query(&mut server.client())
        .unwrap();
    keys.sort();
    keys
}

/// Two databases of one server that hold the same: neither key is the copy of the other.
#[test]
fn delete_source_within_a_server_keeps_what_is_equal_already() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    for db in [0, 1] {
        redis::cmd("SET")
            .arg("k")
            .arg("v")
            .exec(&mut server.client_db(db))
            .unwrap();
    }
    let url = server.url();
    let swap = ["--map-db", "0:1,1:0", "--delete-source"];
    run(&[&["copy", &url, &url], &swap[..]].concat(), b"");
    assert_eq!((size(&server, 0), size(&server, 1)), (1, 1));
}

#[test]
fn delete_source_under_writes_loses_nothing() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    const KEYS: u64 = 20_000;
    let mut pipe = redis::pipe();
    for n in 0..KEYS {
        pipe.cmd("SET").arg(format!("k{n}")).arg(0).ignore();
    }
    pipe.exec(&mut source.client()).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let stopped = || stop.load(std::sync::atomic::Ordering::Relaxed);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut client = source.client();
            let mut written = vec![0u64; KEYS as usize];
            while !stopped() {
                for n in (0..KEYS).step_by(7).take_while(|_| !stopped()) {
                    redis::cmd("INCR")
                        .arg(format!("k{n}"))
                        .exec(&mut client)
                        .unwrap();
                    written[n as usize] += 1;
                }
            }
            written
        });
        let output = run(
            &["copy", &source.url(), &destination.url(), "--delete-source"],
            b"",
        );
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        output.success();
        writer.join().unwrap()
    });
    let get_all = |server: &TestServer| -> Vec<Option<u64>> {
        let keys: Vec<String> = (0..KEYS).map(|n| format!("k{n}")).collect();
        redis::cmd("MGET")
            .arg(keys)
            .query(&mut server.client())
            .unwrap()
    };
    let (left, moved) = (get_all(&source), get_all(&destination));
    for (n, written) in written.into_iter().enumerate() {
        let moved = moved[n].unwrap_or_else(|| panic!("k{n} did not arrive"));
        // Kept: the source has every increment. Deleted: at the very value that arrived, and what
        // was counted after that began anew.
        let left = left[n].unwrap_or(0);
        assert!(
            left == written || left + moved == written,
            "k{n}: {left} + {moved}, {written} written"
        );
    }
    // Six of seven keys nobody wrote; those were moved, however slow the machine is.
    let untouched = (0..KEYS).filter(|n| n % 7 != 0);
    for n in untouched {
        assert_eq!(left[n as usize], None, "k{n} was kept");
    }
}

#[test]
fn a_server_is_not_copied_onto_itself() {
    for version in Version::MATRIX {
        let Some(version) = require(version) else {
            continue;
        };
        let server = TestServer::start(version);
        redis::cmd("SET")
            .arg("k")
            .arg("v")
            .exec(&mut server.client())
            .unwrap();
        let other_name = format!("redis://localhost:{}", server.port());
        for flags in [&[][..], &["--replace"], &["--delete-source", "--replace"]] {
            run(
                &[&["copy", &server.url(), &other_name], flags].concat(),
                b"",
            )
            .expect_code(2)
            .expect_stderr("same server");
        }
        assert_eq!(size(&server, 0), 1);
        run(
            &["copy", &server.url(), &other_name, "--map-db", "0:1"],
            b"",
        )
        .success();
        run(
            &[
                "copy",
                &server.url(),
                &other_name,
                "--db",
                "0",
                "--add-prefix",
                "copy:",
            ],
            b"",
        )
        .success();
        assert_eq!((size(&server, 0), size(&server, 1)), (2, 1));
    }
}

/// What is written would be read again, and what was not read yet overwritten.
#[test]
fn a_server_is_not_copied_into_what_is_being_read() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    for (db, value) in [(0, "zero"), (1, "one")] {
        redis::pipe()
            .cmd("SELECT")
            .arg(db)
            .cmd("SET")
            .arg("k")
            .arg(value)
            .exec(&mut server.client())
            .unwrap();
    }
    let url = server.url();
    let swap = ["copy", &url, &url, "--map-db", "0:1", "--map-db", "1:0"];
    for flags in [&[][..], &["--replace"], &["--delete-source", "--replace"]] {
        run(&[&swap[..], flags].concat(), b"")
            .expect_code(2)
            .expect_stderr("database 1 would be written while it is read");
    }
    let strip = ["copy", &url, &url, "--db", "0", "--strip-prefix", "p:"];
    run(&[&strip[..], &["--replace"]].concat(), b"")
        .expect_code(2)
        .expect_stderr("a name without its prefix");
    assert_eq!((size(&server, 0), size(&server, 1)), (1, 1));
    // What is written is not read again, however long the scan goes on.
    let mut fill = redis::pipe();
    for number in 0..20_000 {
        fill.cmd("SET").arg(format!("k{number}")).arg("v").ignore();
    }
    fill.exec(&mut server.client()).unwrap();
    let add = ["copy", &url, &url, "--db", "0", "--add-prefix", "x:"];
    run(&add, b"").success();
    assert_eq!(size(&server, 0), 2 * 20_001);
}

/// Two keys under one name: under `replace` the second overwrites the first, and both would be
/// deleted.
#[test]
fn nothing_is_deleted_at_the_source_that_another_key_overwrote() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (from, to) = (TestServer::start(version), TestServer::start(version));
    for db in [0, 1] {
        redis::pipe()
            .cmd("SELECT")
            .arg(db)
            .cmd("MSET")
            .arg(&["p:k", "first", "k", "second"])
            .exec(&mut from.client())
            .unwrap();
    }
    let base = ["copy", &from.url(), &to.url(), "--delete-source"];
    for rewrite in [
        &["--map-db", "*:3"][..],
        &["--map-db", "1:0"],
        &["--strip-prefix", "p:"],
    ] {
        run(&[&base[..], rewrite, &["--replace"]].concat(), b"")
            .expect_code(2)
            .expect_stderr("may get the same name");
        assert_eq!((size(&from, 0), size(&from, 1)), (2, 2), "{rewrite:?}");
    }
    // The second one stays where it is.
    run(&[&base[..], &["--map-db", "*:3"]].concat(), b"").expect_code(3);
    assert_eq!(size(&from, 0) + size(&from, 1), 2);
    assert_eq!(size(&to, 3), 2);
    // One database cannot meet itself.
    let alone = ["--db", "0", "--map-db", "0:5", "--replace"];
    run(&[&base[..], &alone].concat(), b"").success();
}

/// INFO is no must: without it the two connections are told apart by a name among the clients.
#[test]
fn the_same_server_is_found_out_without_info() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    redis::cmd("SET")
        .arg("k")
        .arg("v")
        .exec(&mut server.client())
        .unwrap();
    let acl = ["SETUSER", "meek", "on", ">pw", "~*", "&*", "+@all", "-info"];
    redis::cmd("ACL")
        .arg(&acl[..])
        .exec(&mut server.client())
        .unwrap();
    let url = |host: &str| format!("redis://meek:pw@{host}:{}", server.port());
    run(&["copy", &url("127.0.0.1"), &url("localhost")], b"")
        .expect_code(2)
        .expect_stderr("same server");
}

#[test]
fn the_old_form_with_two_urls_still_works() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    redis::cmd("SET")
        .arg("k")
        .arg("v")
        .exec(&mut source.client())
        .unwrap();
    redis::cmd("SET")
        .arg("k")
        .arg("old")
        .exec(&mut destination.client())
        .unwrap();
    Tool::new(&[&source.url(), &destination.url()])
        .env("DRY_RUN", "1")
        .env("REPLACE_DST_KEYS", "1")
        .run()
        .success();
    let get = || -> String {
        redis::cmd("GET")
            .arg("k")
            .query(&mut destination.client())
            .unwrap()
    };
    assert_eq!(get(), "old");
    Tool::new(&[&source.url(), &destination.url()])
        .env("REPLACE_DST_KEYS", "1")
        .env("CLEAN_UP", "yes")
        .env("DRY_RUN", "0")
        .run()
        .success()
        .expect_stderr("CLEAN_UP");
    assert_eq!(get(), "v");
    assert_eq!(size(&source, 0), 0);
}

/// The run must not follow its own writes: the deletions at the source would reach the destination.
#[test]
fn delete_source_goes_with_a_plain_scan_only() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    for n in 0..500 {
        redis::cmd("SET")
            .arg(format!("k{n}"))
            .arg("v")
            .exec(&mut source.client())
            .unwrap();
    }
    let copy = ["copy", &source.url(), &destination.url(), "--delete-source"];
    for flags in [
        &["--consistency", "converge"][..],
        &["--consistency", "pause"],
        &["--follow"],
    ] {
        run(&[&copy[..], flags].concat(), b"")
            .expect_code(2)
            .expect_stderr("--delete-source");
    }
    assert_eq!((size(&source, 0), size(&destination, 0)), (500, 0));
    run(&copy, b"").success();
    assert_eq!((size(&source, 0), size(&destination, 0)), (0, 500));
}

/// What a destination evicts is gone from both ends once the source has deleted it.
#[test]
fn delete_source_does_not_go_to_a_destination_that_evicts() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    fill_many(&mut source.client(), 50, 5);
    let set = |name: &str, value: &str| {
        let mut command = redis::cmd("CONFIG");
        command.arg("SET").arg(name).arg(value);
        command.exec(&mut destination.client()).unwrap();
    };
    set("maxmemory", "100mb");
    set("maxmemory-policy", "allkeys-lru");
    let copy = ["copy", &source.url(), &destination.url(), "--delete-source"];
    for flags in [&[][..], &["--dry-run"]] {
        run(&[&copy[..], flags].concat(), b"")
            .expect_code(2)
            .expect_stderr("maxmemory-policy to noeviction");
        assert_eq!((size(&source, 0), size(&destination, 0)), (50, 0));
    }
    set("maxmemory-policy", "noeviction");
    run(&copy, b"").success();
    assert_eq!((size(&source, 0), size(&destination, 0)), (0, 50));
}

/// Keys that the source's user may not delete stay, and the others go; what it may not do at all, and
/// a replica, are known before the first key.
#[test]
fn delete_source_by_a_user_with_few_rights() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    fill_many(&mut source.client(), 40, 5);
    for n in 0..3 {
        let mut set = redis::cmd("SET");
        set.arg(format!("locked:{n}")).arg("v");
        set.exec(&mut source.client()).unwrap();
    }
    let user = |name: &str, rules: &[&str]| {
        let mut command = redis::cmd("ACL");
        command
            .arg("SETUSER")
            .arg(name)
            .arg("on")
            .arg(">pw")
            .arg(rules);
        command.exec(&mut source.client()).unwrap();
        source
            .url()
            .replace("redis://", &format!("redis://{name}:pw@"))
    };
    let keys = size(&source, 0);
    let no_exec = user("noexec", &["~*", "+@all", "-exec"]);
    run(
        &["copy", &no_exec, &destination.url(), "--delete-source"],
        b"",
    )
    .expect_code(13)
    .expect_stderr("EXEC");
    assert_eq!(size(&destination, 0), 0);
    let few = user("few", &["%R~*", "~user:*", "~cache:*", "+@all"]);
    run(&["copy", &few, &destination.url(), "--delete-source"], b"")
        .success()
        .expect_stderr("this user may not delete there");
    assert_eq!(size(&destination, 0), keys);
    let is_ours = |key: &Vec<u8>| key.starts_with(b"user:") || key.starts_with(b"cache:");
    let (all, left) = (all_keys(&destination), all_keys(&source));
    let due: Vec<Vec<u8>> = all.into_iter().filter(|key| !is_ours(key)).collect();
    assert!(due.len() > 3 && (due.len() as u64) < keys);
    assert_eq!(left, due);

    let replica = TestServer::start(version);
    let mut replicaof = redis::cmd("REPLICAOF");
    replicaof.arg("127.0.0.1").arg(source.port());
    replicaof.exec(&mut replica.client()).unwrap();
    for flags in [&[][..], &["--dry-run"]] {
        let copy = [
            "copy",
            &replica.url(),
            &destination.url(),
            "--delete-source",
        ];
        run(&[&copy[..], flags].concat(), b"").expect_code(2);
    }
}
