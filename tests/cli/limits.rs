//! The limits of a shell (`ulimit`): an error of the tool's own, not a signal.

use std::process::{Command, Output};

use crate::archives::large;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::path;

/// Runs the tool, as `$0`, under a limit.
fn under(limit: &str, line: &str, directory: &std::path::Path) -> Output {
    Command::new("sh")
        .arg("-c")
        .arg(format!("ulimit {limit}; exec \"$0\" {line}"))
        .arg(path())
        .current_dir(directory)
        .output()
        .expect("a shell")
}

#[test]
fn a_file_that_grows_beyond_its_limit_is_an_error() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("a.rmz"), large(50_000)).expect("written");
    for (line, place) in [
        ("convert a.rmz --to jsonl > out.jsonl", "out.jsonl"),
        ("convert a.rmz out.jsonl", "out.jsonl.none"),
        ("salvage a.rmz -o out.rmz", "out.rmz"),
        ("list a.rmz > keys.txt", "keys.txt"),
    ] {
        // Blocks of 512 bytes in dash, of 1,024 in bash: less than any of these is.
        let output = under("-f 100", line, directory.path());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line}: {stderr}");
        assert!(stderr.contains("ulimit -f"), "{line}: {stderr}");
        let written = std::fs::metadata(directory.path().join(place)).map_or(0, |data| data.len());
        assert!(written <= 100 * 1024, "{line}: {written}");
    }
}

#[test]
fn little_address_space_is_enough_to_compare_or_an_error_says_so() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    redis::cmd("SET")
        .arg("k")
        .arg("v")
        .exec(&mut server.client())
        .expect("OK");
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("a.rmz"), large(20_000)).expect("written");
    let line = format!("diff a.rmz {}", server.url());
    let output = under("-v 200000", &line, directory.path());
    let stderr = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code();
    assert!(matches!(code, Some(1 | 5)), "{:?}: {stderr}", output.status);
    if code == Some(1) {
        assert!(stderr.contains("memory"), "{stderr}");
    }
}
