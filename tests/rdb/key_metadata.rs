//! Key metadata of modules (Redis 8.6) in RDB files and snapshots: they go where their key goes, and
//! are left out of files for servers that do not know them.

use crate::rdb::writing::{check_rdb, loaded};
use crate::rdb::{by_scan, read, saved};
use crate::support::key_metadata::{MAY, MUST, Module, get, set};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::run;

const KEYS: [(&str, &[&str]); 4] = [
    ("plain", &[]),
    ("may", &[MAY]),
    ("must", &[MUST]),
    ("both", &[MAY, MUST]),
];

fn filled(module: &Module) -> TestServer {
    let server = module.server();
    let mut client = server.client();
    for (key, classes) in KEYS {
        let list = format!("list:{key}");
        let mut command = redis::cmd("SET");
        command.arg(key).arg("text").arg("PX").arg(86_400_000);
        command.exec(&mut client).unwrap();
        let mut command = redis::cmd("RPUSH");
        command
            .arg(&list)
            .arg(&["a", "b"])
            .exec(&mut client)
            .unwrap();
        for class in classes {
            set(&mut client, class, key, &format!("{class} of {key}"));
            set(&mut client, class, &list, &"text ".repeat(100));
        }
    }
    server
}

#[track_caller]
fn assert_kept(server: &TestServer) {
    let mut client = server.client();
    for (key, classes) in KEYS {
        for class in [MAY, MUST] {
            let of = |key: &str, text: String| {
                let due = classes.contains(&class).then_some(text);
                (key.to_owned(), due)
            };
            for (key, due) in [
                of(key, format!("{class} of {key}")),
                of(&format!("list:{key}"), "text ".repeat(100)),
            ] {
                assert_eq!(get(&mut client, class, &key), due, "{class} of {key}");
            }
        }
        let left: i64 = redis::cmd("PTTL").arg(key).query(&mut client).unwrap();
        assert!(left > 0, "{key} expires");
    }
}

/// A server with the module that has loaded this file at its start.
fn restarted(module: &Module, file: &std::path::Path) -> TestServer {
    module.builder().rdb(file).start()
}

#[test]
fn a_file_and_a_snapshot_keep_what_a_scan_finds() {
    let Some(module) = Module::build() else {
        return;
    };
    let source = filled(&module);
    let dump = saved(&source);
    let url = source.url();
    let path = |name: &str| source.path().join(name);
    let by_scan = run(&by_scan(&url, &[]), b"").success().stdout;
    let scanned = read(&by_scan);
    let from_file = run(&["export", dump.to_str().unwrap()], b"").success();
    let replica = run(&["export", &url, "--via", "replica"], b"").success();
    for archive in [&by_scan, &from_file.stdout, &replica.stdout] {
        assert_eq!(read(archive).records.len(), scanned.records.len());
        let (snap, out) = (path("snap.rmz"), path("out.rdb"));
        std::fs::write(&snap, archive).unwrap();
        let (snap, file) = (snap.to_str().unwrap(), out.to_str().unwrap());
        let convert = ["convert", snap, file, "--for", "redis-8.6", "--overwrite"];
        run(&convert, b"").success();
        check_rdb(Version::Redis86, &out);
        assert_kept(&restarted(&module, &out));
        let there = module.server();
        run(&["import", &there.url(), snap, "--verify"], b"").success();
        assert_kept(&there);
        run(&["diff", snap, &url], b"").success();
    }
    // From file to file, too.
    let (dump, out) = (dump.to_str().unwrap(), path("copy.rdb"));
    run(&["convert", dump, out.to_str().unwrap()], b"").success();
    assert_kept(&restarted(&module, &out));
    // A type filter of a file looks behind them.
    let strings = run(&["export", dump, "--type", "string"], b"").success();
    assert_eq!(read(&strings.stdout).records.len(), KEYS.len());
}

#[test]
fn files_for_older_servers_are_without() {
    let Some(module) = Module::build() else {
        return;
    };
    let source = filled(&module);
    let dump = saved(&source);
    for version in [Version::Redis82, Version::Redis70, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        let out = source.path().join("old.rdb");
        let (from, file) = (dump.to_str().unwrap(), out.to_str().unwrap());
        let name = version.name();
        let convert = [
            "convert",
            from,
            file,
            "--for",
            name,
            "--json",
            "--overwrite",
        ];
        let output = run(&convert, b"").expect_code(3);
        let sink = output.summary()["sink"].clone();
        assert_eq!(sink["refused"], 4, "{version}: {sink}");
        assert_eq!(sink["changes"]["key_metadata_lost"], 2, "{version}: {sink}");
        assert!(
            output.stderr.contains("--allow-loss key-meta"),
            "{}",
            output.stderr
        );
        let allowed = [&convert[..], &["--allow-loss", "key-meta"]].concat();
        let sink = run(&allowed, b"").success().summary()["sink"].clone();
        assert_eq!(sink["changes"]["key_metadata_lost"], 6, "{version}: {sink}");
        let there = loaded(version, &out);
        let keys: u64 = redis::cmd("DBSIZE").query(&mut there.client()).unwrap();
        assert_eq!(keys, 2 * KEYS.len() as u64);
        let text: String = redis::cmd("GET")
            .arg("both")
            .query(&mut there.client())
            .unwrap();
        assert_eq!(text, "text");
    }
}
