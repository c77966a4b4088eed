//! Values far larger than the window, and the memory that they may cost.

use crate::support::equality::assert_equal;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::run;

const MIB: u64 = 1024 * 1024;

/// `APPEND`s until the value has the size; bytes that do not compress.
fn fill(server: &TestServer, key: &str, bytes: u64) {
    let mut random = crate::support::random::Random::new(7);
    let mut client = server.client();
    let mut left = bytes;
    while left > 0 {
        let chunk = random.bytes(left.min(MIB) as usize);
        redis::cmd("APPEND")
            .arg(key)
            .arg(&chunk)
            .exec(&mut client)
            .unwrap();
        left -= chunk.len() as u64;
    }
}

/// Several in a row, so that holding two more than necessary shows.
#[test]
fn values_of_100_mib_cost_three_times_their_size_at_most() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    for n in 0..6 {
        fill(&source, &format!("big{n}"), 100 * MIB);
    }
    let limit_kib = (64 + 3 * 100) * 1024;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("big.rmz");
    let name = file.to_str().unwrap();
    let within = |output: crate::support::tool::Output, verb: &str| {
        let output = output.success();
        assert!(
            output.peak_memory_kib <= limit_kib,
            "{verb}: {} KiB",
            output.peak_memory_kib
        );
    };
    within(run(&["export", &source.url(), "-o", name], b""), "export");
    within(run(&["verify", name], b""), "verify");
    within(run(&["import", &destination.url(), name], b""), "import");
    assert_equal(&mut source.client(), &mut destination.client());
    redis::cmd("FLUSHALL")
        .exec(&mut destination.client())
        .unwrap();
    within(
        run(&["copy", &source.url(), &destination.url()], b""),
        "copy",
    );
    assert_equal(&mut source.client(), &mut destination.client());
}

/// A run of 1 MiB values must not pile up in the source's output buffers.
#[test]
fn a_run_of_large_values_does_not_swell_the_source() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = TestServer::start(version);
    for n in 0..300 {
        fill(&source, &format!("v{n}"), MIB);
    }
    let before_kib = source.peak_memory_kib();
    let output = run(&["export", &source.url(), "--dry-run"], b"").success();
    let grown_mib = (source.peak_memory_kib() - before_kib) / 1024;
    // All of them at once would be 300.
    assert!(grown_mib < 120, "the source grew by {grown_mib} MiB");
    assert!(
        output.peak_memory_kib < 64 * 1024,
        "{} KiB",
        output.peak_memory_kib
    );
}
