//! What a comparison takes: memory, and temporary files that nobody ever finds.

use std::path::Path;

use crate::diff::found::{expect, send, summary};
use crate::support::many::fill_many;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Tool, run};

const KEYS: u64 = 150_000;

fn twins() -> Option<(TestServer, TestServer)> {
    let version = require(Version::Redis80)?;
    let (left, right) = (TestServer::start(version), TestServer::start(version));
    fill_many(&mut left.client(), KEYS, 11);
    run(&["copy", &left.url(), &right.url()], b"").success();
    Some((left, right))
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).unwrap().next().is_none()
}

#[test]
fn memory_is_bounded_and_temporary_files_have_no_name() {
    let Some((left, right)) = twins() else {
        return;
    };
    let (left_url, url) = (left.url(), right.url());
    // With little on either side, to know what the program takes by itself.
    let none = TestServer::start(left.version());
    let base = expect(&none.url(), &none.url(), &[], &[]).peak_memory_kib;
    let output = expect(&left_url, &url, &[], &[]);
    assert_eq!(summary(&output)["equal"], KEYS);
    let peak = output.peak_memory_kib;
    assert!(peak < base + 64 * 1024, "{peak} KiB, {base} for nothing");

    let directory = tempfile::tempdir().unwrap();
    let temporary = directory.path().to_str().unwrap();
    send(&mut right.client(), &["SET", "planted", "v"]);
    let arguments = ["diff", &left_url, &url, "--recheck", "100000"];
    for (signal, code) in [("INT", Some(130)), ("TERM", Some(130)), ("KILL", None)] {
        // It differs for ever, and looks again and again.
        let mut running = Tool::new(&arguments).env("TMPDIR", temporary).spawn();
        let pid = running.pid();
        // Until it has spilled to files that have no name any more.
        while !holds_deleted_file(pid) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(is_empty(directory.path()));
        running.signal(signal);
        assert_eq!(running.wait().code(), code, "{signal}");
        assert!(is_empty(directory.path()), "{signal}");
    }
    let output = Tool::new(&["diff", &left_url, &url])
        .env("TMPDIR", "/no/such/directory")
        .run()
        .expect_code(1);
    assert!(output.stderr.contains("TMPDIR"), "{}", output.stderr);
}

/// Whether a process has a file open that was removed, or never had a name.
fn holds_deleted_file(pid: u32) -> bool {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        panic!("the tool ended before it was asked to");
    };
    entries.flatten().any(|entry| {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        target.to_string_lossy().ends_with("(deleted)")
    })
}

#[test]
fn a_verified_import_keeps_what_it_wrote_on_disk() {
    let Some((left, right)) = twins() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("a.rmz");
    let archive = archive.to_str().unwrap();
    run(&["export", &left.url(), "-o", archive], b"").success();
    let import = ["import", &right.url(), archive, "--replace"];
    let base = run(&import, b"").success().peak_memory_kib;
    let output = run(&[&import[..], &["--verify"]].concat(), b"").success();
    output_says_all(&output.stderr);
    let peak = output.peak_memory_kib;
    assert!(peak < base + 64 * 1024, "{peak} KiB, {base} without");
}

fn output_says_all(stderr: &str) {
    let wanted = "verified: 150,000 of 150,000 as written";
    assert!(stderr.contains(wanted), "{stderr}");
}
