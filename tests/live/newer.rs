//! Servers that are newer than the tool: what becomes of values of a type that nobody knows yet.

use crate::support::newer::{MARK, Newer, NewerServer};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, run};

/// A type byte and an RDB version that no server has.
const TYPE: u8 = 99;
const RDB_VERSION: u16 = 40;
const NEW_KEYS: [&str; 3] = ["n1", "n2", "n3"];
const WARNING: &str = "3 values of type 99: this version cannot look into them; they go only to \
                       servers of the same family";

/// A server with three values of the new type and three others, as the tool sees it.
fn source(version: Version, rdb_version: u16) -> (TestServer, NewerServer) {
    let server = TestServer::start(version);
    let mut client = server.client();
    for key in NEW_KEYS {
        let value = [MARK, key.as_bytes()].concat();
        redis::cmd("SET")
            .arg(key)
            .arg(value)
            .exec(&mut client)
            .expect("SET");
    }
    for (command, key, value) in [
        ("SET", "s", "text"),
        ("RPUSH", "l", "one"),
        ("SADD", "z", "m"),
    ] {
        redis::cmd(command)
            .arg(key)
            .arg(value)
            .exec(&mut client)
            .expect(command);
    }
    redis::cmd("PEXPIREAT")
        .arg("n2")
        .arg(4_000_000_000_000_u64)
        .exec(&mut client)
        .expect("it");
    let newer = of_type(version, rdb_version, false);
    let proxy = NewerServer::start(server.addr(), newer);
    (server, proxy)
}

fn of_type(version: Version, rdb_version: u16, takes: bool) -> Newer {
    Newer {
        type_byte: TYPE,
        rdb_version,
        takes,
        real_version: version.rdb_version(),
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn get(server: &TestServer, key: &str) -> Option<Vec<u8>> {
    redis::cmd("GET")
        .arg(key)
        .query(&mut server.client())
        .expect("GET")
}

fn size(server: &TestServer) -> u64 {
    redis::cmd("DBSIZE")
        .query(&mut server.client())
        .expect("DBSIZE")
}

fn archive_of(url: &str, dir: &std::path::Path) -> String {
    let archive = dir.join("a.rmz").to_str().expect("UTF-8").to_owned();
    let exported = run(&["export", url, "--output", &archive, "--json"], b"").success();
    let rows = &exported.summary()["sink"]["undecoded"];
    assert_eq!(rows[0]["type_byte"], TYPE, "{rows}");
    assert_eq!(rows[0]["values"], 3);
    archive
}

/// That the three are named with the destination's words, and the others restored.
fn expect_named(output: Output, words: &str) {
    let output = output.expect_code(3).expect_stderr(words);
    for key in NEW_KEYS {
        assert!(
            output.stderr.contains(&format!("\"{key}\"")),
            "{}",
            output.stderr
        );
    }
}

#[test]
fn a_newer_server_of_the_family_gets_them_back_as_they_were() {
    let Some(version) = require(Version::Redis80) else {
        return;
    };
    let (_source, from) = source(version, RDB_VERSION);
    let real = TestServer::start(version);
    let to = NewerServer::start(real.addr(), of_type(version, RDB_VERSION, true));
    let dir = tempfile::tempdir().expect("a directory");
    let exported = run(&["export", &from.url()], b"").success();
    exported.expect_stderr(WARNING);
    let archive = archive_of(&from.url(), dir.path());
    for verb in [&["verify"][..], &["inspect"]] {
        run(&[verb, &[&archive]].concat(), b"")
            .success()
            .expect_stderr(WARNING);
    }
    run(&["import", &to.url(), &archive, "--dry-run"], b"").success();
    assert_eq!(size(&real), 0);
    run(&["import", &to.url(), &archive, "--verify"], b"")
        .success()
        .expect_stderr(WARNING);
    assert_eq!(size(&real), 6);
    for key in NEW_KEYS {
        assert_eq!(get(&real, key), Some([MARK, key.as_bytes()].concat()));
    }
    let at: u64 = redis::cmd("PEXPIRETIME")
        .arg("n2")
        .query(&mut real.client())
        .expect("it");
    assert_eq!(at, 4_000_000_000_000);
    // Equal bytes are equal values, whatever they mean.
    let again = run(&["import", &to.url(), &archive, "--json"], b"").success();
    // Keys of unknown types come once more at the end of an exact export.
    let sink = &again.summary()["sink"];
    assert_eq!(sink["unchanged"], sink["taken"], "{sink}");
    run(&["diff", &from.url(), &to.url()], b"").success();
    // Other bytes may be the same value, or not.
    redis::cmd("SET")
        .arg("n1")
        .arg("new!x1")
        .exec(&mut real.client())
        .expect("SET");
    let differs = run(&["diff", &from.url(), &to.url()], b"").expect_code(3);
    let told = text(&differs);
    assert!(
        told.contains("\"n1\"") && told.contains("of a type that this version cannot read"),
        "{told}"
    );
    run(
        &["copy", &from.url(), &to.url(), "--on-conflict", "replace"],
        b"",
    )
    .success()
    .expect_stderr(WARNING);
    run(&["diff", &from.url(), &to.url()], b"").success();
}

/// What the dry run and doctor foretell is what the import is told.
#[test]
fn servers_that_do_not_have_the_type_refuse_by_name() {
    for (version, rdb_version, words) in [
        // A newer footer, and one that is taken.
        (
            Version::Redis80,
            RDB_VERSION,
            "DUMP payload version or checksum are wrong",
        ),
        (Version::Redis80, 12, "Bad data format"),
        (
            Version::Redis60,
            RDB_VERSION,
            "DUMP payload version or checksum are wrong",
        ),
        (Version::Redis60, 9, "Bad data format"),
    ] {
        let (Some(source_version), Some(version)) = (require(Version::Redis80), require(version))
        else {
            continue;
        };
        let (_source, from) = source(source_version, rdb_version);
        let mut destination = TestServer::start(version);
        let dir = tempfile::tempdir().expect("a directory");
        let archive = archive_of(&from.url(), dir.path());
        let doctor = run(&["doctor", &destination.url(), &archive], b"").expect_code(3);
        let told = text(&doctor);
        assert!(
            told.contains(words) && told.contains("of type 99"),
            "{told}"
        );
        expect_named(
            run(&["import", &destination.url(), &archive, "--dry-run"], b""),
            words,
        );
        assert_eq!(size(&destination), 0);
        expect_named(run(&["import", &destination.url(), &archive], b""), words);
        assert_eq!(size(&destination), 3, "{version} {rdb_version}");
        expect_named(run(&["copy", &from.url(), &destination.url()], b""), words);
        assert!(destination.is_running());
    }
}

/// Numbers of types mean something else there: they are not even offered.
#[test]
fn servers_of_another_family_are_not_asked() {
    let (Some(version), Some(other)) = (require(Version::Redis80), require(Version::Valkey81))
    else {
        return;
    };
    let (_source, from) = source(version, 11);
    let real = TestServer::start(other);
    // It would take them.
    let to = NewerServer::start(real.addr(), of_type(other, 11, true));
    let words = "go only to a server of the family they come from";
    expect_named(run(&["copy", &from.url(), &to.url()], b""), words);
    assert_eq!(size(&real), 3);
}

#[test]
fn files_do_not_hold_them() {
    let Some(version) = require(Version::Redis80) else {
        return;
    };
    let (_source, from) = source(version, RDB_VERSION);
    let dir = tempfile::tempdir().expect("a directory");
    let archive = archive_of(&from.url(), dir.path());
    let file = dir.path().join("dump.rdb");
    let file = file.to_str().expect("UTF-8");
    let target = ["convert", &archive, file, "--for", "redis-8.0"];
    expect_named(run(&target, b""), "refuses the whole file");
    let listed = run(&["convert", file, "--to", "jsonl"], b"").success();
    assert_eq!(text(&listed).lines().count(), 3, "{}", text(&listed));
}

/// Where such a value ends in a file nobody can say.
#[test]
fn files_that_hold_them_cannot_be_read_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("newer.rdb");
    let rdb = b"REDIS0012\xfe\x00\x00\x01a\x01b\x63\x01k\x03abc\xff\0\0\0\0\0\0\0\0";
    std::fs::write(&file, rdb).expect("written");
    let file = file.to_str().expect("UTF-8");
    for words in [&["convert", file, "--to", "jsonl"][..], &["export", file]] {
        run(words, b"")
            .expect_code(10)
            .expect_stderr("byte 99 is neither a value's type")
            .expect_stderr("at byte 16 of the RDB data; the last good key is \"a\" (db 0)")
            .expect_stderr("export or copy from that server itself");
    }
}
