//! `--follow` over a longer time, ended by a cut-over. Some seconds by default; the real thing is
//!
//! ```sh
//! FOLLOW_SECONDS=600 cargo test --test all converge::long -- --nocapture
//! ```

use std::time::Duration;

use crate::converge::run::{Scene, reached, summary};
use crate::converge::writer::{Plan, Writer};
use crate::support::servers::{Version, require};
use crate::support::tool::{Output, Tool, pipe};

/// What the tool may take, however long it follows: 64 MiB, and what a copy has in flight.
const MAX_MEMORY_KIB: u64 = 128 * 1024;

fn seconds() -> u64 {
    let seconds = std::env::var("FOLLOW_SECONDS");
    seconds.map_or(10, |text| text.parse().expect("FOLLOW_SECONDS is a number"))
}

/// The export at this side, exact, with a pause below its limit and bounded memory.
#[track_caller]
fn assert_cut_over(what: &str, outputs: &[&Output]) {
    let source = outputs[0];
    assert_eq!(reached(source), "exact", "{what}");
    let summary = summary(source);
    let paused_ms = summary["source"]["paused_ms"].as_f64();
    assert!(
        paused_ms.is_some_and(|ms| ms < 500.0),
        "{what}: {paused_ms:?}"
    );
    for output in outputs {
        let kib = output.peak_memory_kib;
        assert!(kib < MAX_MEMORY_KIB, "{what}: {kib} KiB");
        println!(
            "{what}: peak memory {:.1} MiB, cpu {:?}",
            kib as f64 / 1024.0,
            output.cpu
        );
    }
    println!("{what}: paused {paused_ms:?} ms, {}", summary["source"]);
}

#[test]
fn a_long_copy_ends_with_a_cut_over() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let scene = Scene::new(version);
    let writer = Writer::start(&scene.source, Plan::default());
    let length = format!("{}s", seconds());
    let (from, to) = (scene.source.url(), scene.destination.url());
    let follow = ["copy", "--json", "--follow", "--for", &length];
    let output = Tool::new(&follow)
        .arg("--consistency=pause")
        .arg(&from)
        .arg(&to)
        .run();
    let log = writer.finish();
    let output = output.success();
    assert!(output.elapsed >= Duration::from_secs(seconds()));
    let what = format!("{version}, a copy for {length}");
    assert_cut_over(&what, &[&output]);
    scene.assert_exact(&log, &what);
}

#[test]
fn a_long_pipe_ends_with_a_cut_over() {
    let Some(version) = require(Version::Valkey91) else {
        return;
    };
    let scene = Scene::new(version);
    let writer = Writer::start(&scene.source, Plan::default());
    let length = format!("{}s", seconds());
    let (from, to) = (scene.source.url(), scene.destination.url());
    let (export, import) = pipe(
        &[
            &["export", "--json", "--follow", "--for", &length][..],
            &["--consistency=pause", &from],
        ]
        .concat(),
        &["import", "--json", &to],
    );
    let log = writer.finish();
    let (export, import) = (export.success(), import.success());
    let what = format!("{version}, a pipe for {length}");
    assert_cut_over(&what, &[&export, &import]);
    scene.assert_exact(&log, &what);
}
