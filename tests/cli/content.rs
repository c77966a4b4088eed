//! What a file is, its content says and never its name: an archive called like an RDB file, and an RDB
//! file called like an archive, by every verb.

use std::fs;
use std::path::Path;

use crate::cli::archives::small;
use crate::support::tool::{Output, Tool};

const NOWHERE: &str = "redis://127.0.0.1:1";

/// An archive `dump.rdb`, RDB data `snap.rmz`, and what is neither under both endings.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let rdb = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/rdb/sample.rdb");
    fs::write(at("dump.rdb"), small()).expect("written");
    fs::copy(rdb, at("snap.rmz")).expect("copied");
    fs::write(at("text.rdb"), "{\"key\": 1}\n").expect("written");
    fs::write(at("text.rmz"), b"\x1f\x8b\x08 and so on").expect("written");
    directory
}

fn run(directory: &Path, arguments: &[&str]) -> Output {
    Tool::new(arguments).current_dir(directory).run()
}

#[test]
fn an_archive_is_one_whatever_it_is_called() {
    let directory = directory();
    for arguments in [
        &["verify", "dump.rdb"][..],
        &["list", "dump.rdb"],
        &["inspect", "dump.rdb"],
        &["report", "dump.rdb", "-o", "page"],
        &["extract", "dump.rdb", "--key", "plain"],
        &["salvage", "dump.rdb", "-o", "rescued"],
        &["convert", "dump.rdb", "lines", "--to", "jsonl"],
        &["convert", "dump.rdb", "data", "--to", "rdb"],
        &["diff", "dump.rdb", "dump.rdb"],
    ] {
        run(directory.path(), arguments).success();
    }
    let head = |name: &str| fs::read(directory.path().join(name)).expect("there");
    assert!(head("data").starts_with(b"REDIS"));
    assert!(head("rescued").starts_with(b"\x89RMZ"));
    // It is opened before the server is.
    run(directory.path(), &["import", NOWHERE, "dump.rdb"]).expect_code(12);
    for output in ["new.rmz", "new"] {
        run(directory.path(), &["export", "dump.rdb", "-o", output])
            .expect_code(2)
            .expect_stderr("is an archive, and not an RDB file");
    }
}

#[test]
fn rdb_data_are_such_whatever_they_are_called() {
    let directory = directory();
    for arguments in [
        &["export", "snap.rmz", "-o", "archive"][..],
        &["convert", "snap.rmz", "lines", "--to", "jsonl"],
        &["convert", "snap.rmz", "data", "--to", "rdb"],
        &["diff", "snap.rmz", "archive"],
    ] {
        run(directory.path(), arguments).success();
    }
    for arguments in [
        &["verify", "snap.rmz"][..],
        &["list", "snap.rmz"],
        &["inspect", "snap.rmz"],
        &["report", "snap.rmz", "-o", "page"],
        &["extract", "snap.rmz", "--key", "plain"],
        &["salvage", "snap.rmz", "-o", "rescued"],
        &["import", NOWHERE, "snap.rmz"],
    ] {
        run(directory.path(), arguments)
            .expect_code(10)
            .expect_stderr("it is a Redis RDB file")
            .expect_stderr("redis-migrate export FILE");
    }
}

#[test]
fn what_is_neither_is_said_to_be_neither() {
    let directory = directory();
    for (name, what) in [("text.rdb", "JSON"), ("text.rmz", "gzip")] {
        for arguments in [
            &["export", name, "-o", "archive"][..],
            &["convert", name, "lines", "--to", "jsonl"],
            &["convert", name, "data", "--to", "rdb"],
            &["diff", name, "dump.rdb"],
            &["diff", "snap.rmz", name],
        ] {
            run(directory.path(), arguments)
                .expect_code(10)
                .expect_stderr("is neither an archive nor an RDB file")
                .expect_stderr(what);
        }
        run(directory.path(), &["verify", name])
            .expect_code(10)
            .expect_stderr(what);
    }
}
