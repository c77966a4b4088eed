//! Which keys take part, and where they go: databases, names, types, sizes, expiry.

use std::collections::BTreeSet;

use crate::support::dataset::{fill_every_type, now_ms};
use crate::support::equality::{Options, assert_equal_with};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::run;

fn keys(server: &TestServer, db: u32) -> BTreeSet<String> {
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("*")
        .query(&mut server.client_db(db))
        .unwrap();
    keys.into_iter().collect()
}

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|&name| name.to_owned()).collect()
}

/// A source with a few keys of known size, type and life.
fn source() -> Option<TestServer> {
    let server = TestServer::start(require(Version::Redis70)?);
    let mut client = server.client();
    let mut set = |key: &str, value: &str, life_ms: Option<u64>| {
        let mut command = redis::cmd("SET");
        command.arg(key).arg(value);
        if let Some(life_ms) = life_ms {
            command.arg("PXAT").arg(now_ms() + life_ms);
        }
        command.exec(&mut client).unwrap();
    };
    set("user:1", "small", None);
    set("user:2", "small", Some(3_600_000));
    set("user:3", "small", Some(10 * 86_400_000));
    let noise: String = (0..5000u32)
        .map(|n| char::from(33 + (n.wrapping_mul(2_654_435_761) >> 25) as u8 % 90))
        .collect();
    set("big", &noise, None);
    redis::cmd("HSET")
        .arg("hash:1")
        .arg("f")
        .arg("v")
        .exec(&mut client)
        .unwrap();
    redis::cmd("SADD")
        .arg("set:1")
        .arg("m")
        .exec(&mut client)
        .unwrap();
    redis::cmd("SET")
        .arg("user:1")
        .arg("in three")
        .exec(&mut server.client_db(3))
        .unwrap();
    Some(server)
}

/// The same selection means the same on export, on import and on copy.
fn check(flags: &[&str], want_0: &[&str], want_3: &[&str]) {
    let Some(source) = source() else { return };
    let destination = TestServer::start(source.version());
    let verify = |what: &str| {
        assert_eq!(keys(&destination, 0), names(want_0), "{what} {flags:?}");
        assert_eq!(keys(&destination, 3), names(want_3), "{what} {flags:?}");
        redis::cmd("FLUSHALL")
            .exec(&mut destination.client())
            .unwrap();
    };
    let (from, to) = (source.url(), destination.url());
    let selected = run(&[&["export", &from], flags].concat(), b"").success();
    run(&["import", &to], &selected.stdout).success();
    verify("export");
    let all = run(&["export", &from], b"").success();
    run(&[&["import", &to], flags].concat(), &all.stdout).success();
    verify("import");
    run(&[&["copy", &from, &to], flags].concat(), b"").success();
    verify("copy");
}

#[test]
fn by_name() {
    check(
        &["--match", "user:*"],
        &["user:1", "user:2", "user:3"],
        &["user:1"],
    );
    check(
        &["--match", "user:[12]", "--match", "b?g"],
        &["user:1", "user:2", "big"],
        &["user:1"],
    );
    check(
        &["--exclude", "user:*", "--exclude", "big"],
        &["hash:1", "set:1"],
        &[],
    );
}

#[test]
fn by_type() {
    check(&["--type", "hash"], &["hash:1"], &[]);
    check(&["--type", "hash,set"], &["hash:1", "set:1"], &[]);
}

#[test]
fn by_database() {
    check(&["--db", "3"], &[], &["user:1"]);
    check(
        &["--db", "0,3", "--match", "user:1"],
        &["user:1"],
        &["user:1"],
    );
}

#[test]
fn by_size() {
    check(&["--min-size", "4k"], &["big"], &[]);
    check(
        &["--max-size", "4k", "--type", "string"],
        &["user:1", "user:2", "user:3"],
        &["user:1"],
    );
}

#[test]
fn by_life() {
    check(&["--with-ttl"], &["user:2", "user:3"], &[]);
    check(
        &["--without-ttl", "--match", "user:*"],
        &["user:1"],
        &["user:1"],
    );
    check(&["--min-ttl", "1d", "--with-ttl"], &["user:3"], &[]);
    check(&["--max-ttl", "1d"], &["user:2"], &[]);
}

#[test]
fn databases_and_names_are_mapped() {
    let Some(version) = require(Version::Valkey91) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    fill_every_type(&mut source.client(), version);
    redis::cmd("FLUSHALL")
        .exec(&mut destination.client())
        .unwrap();
    let flags = ["--map-db", "0:7", "--add-prefix", "moved:"];
    let export = run(&["export", &source.url()], b"").success();
    run(
        &[&["import", &destination.url()], &flags[..]].concat(),
        &export.stdout,
    )
    .success();
    let options = Options {
        db_map: vec![(0, 7)],
        add_prefix: b"moved:".to_vec(),
        ..Options::default()
    };
    assert_equal_with(&mut source.client(), &mut destination.client(), &options);
}

#[test]
fn a_database_in_the_destinations_url_takes_one_database_only() {
    let Some(source) = source() else { return };
    let destination = TestServer::start(source.version());
    let to = format!("{}/5", destination.url().trim_end_matches('/'));
    run(&["copy", &source.url(), &to], b"").expect_code(2);
    assert!(keys(&destination, 5).is_empty());
    run(&["copy", &source.url(), &to, "--db", "3"], b"").success();
    assert_eq!(keys(&destination, 5), names(&["user:1"]));
    let export = run(&["export", &source.url()], b"").success();
    run(&["import", &to], &export.stdout).expect_code(2);
}

#[test]
fn the_tools_own_temporary_keys_are_never_exported() {
    let Some(source) = source() else { return };
    let mut client = source.client();
    let name = [redis_migrate::select::TEMP_KEY_PREFIX, b"x"].concat();
    redis::cmd("SET")
        .arg(&name)
        .arg("half")
        .exec(&mut client)
        .unwrap();
    let destination = TestServer::start(source.version());
    run(&["copy", &source.url(), &destination.url()], b"").success();
    assert!(
        !keys(&destination, 0)
            .iter()
            .any(|key| key.as_bytes() == name)
    );
}

/// Two databases into one: what stands in both is one name for two keys, and that is said.
#[test]
fn keys_that_fall_together_are_conflicts() {
    let Some(source) = source() else { return };
    let destination = TestServer::start(source.version());
    for from_archive in [false, true] {
        redis::cmd("FLUSHALL")
            .exec(&mut destination.client())
            .unwrap();
        let output = match from_archive {
            true => {
                let export = run(&["export", &source.url()], b"").success();
                run(
                    &["import", &destination.url(), "--map-db", "*:0"],
                    &export.stdout,
                )
            }
            false => run(
                &["copy", &source.url(), &destination.url(), "--map-db", "*:0"],
                b"",
            ),
        };
        output
            .expect_code(3)
            .expect_stderr("another key of the source");
        let value: String = redis::cmd("GET")
            .arg("user:1")
            .query(&mut destination.client())
            .unwrap();
        assert_eq!(value, "small", "the first one stays");
    }
}

/// A key that was asked for by its name and is not in the archive is named, beside one that is.
#[test]
fn a_key_that_is_not_there_is_named() {
    let Some(from) = source() else {
        return;
    };
    let to = TestServer::start(from.version());
    let archive = run(&["export", &from.url()], b"").success().stdout;
    let import = ["import", &to.url(), "--replace", "--only-key", "user:2"];
    let output = run(&import, &archive).success();
    assert!(!output.stderr.contains("no such key"), "{}", output.stderr);
    let more = ["--only-key", "nobody", "--only-key", "us er\n"];
    run(&[&import[..], &more].concat(), &archive)
        .success()
        .expect_stderr("--only-key \"nobody\": no such key")
        .expect_stderr("us er\\n\": no such key");
    assert_eq!(keys(&to, 0), names(&["user:2"]));
    // Another database is not looked into.
    let elsewhere = ["--db", "3", "--only-key", "big"];
    let output = run(&[&["import", &to.url()][..], &elsewhere].concat(), &archive).success();
    output.expect_stderr("--only-key \"big\": no such key");
}
