//! Exact at one instant, on every version.

use std::time::Duration;

use crate::converge::run::{Scene, reached, said, summary};
use crate::converge::writer::{Plan, Writer};
use crate::support::servers::{Version, available};
use crate::support::tool::Tool;

/// Time for the writer to be at work before the tool begins.
const HEAD_START: Duration = Duration::from_millis(500);

fn export(version: Version, consistency: &str) {
    let scene = Scene::new(version);
    let writer = Writer::start(&scene.source, Plan::default());
    std::thread::sleep(HEAD_START);
    let output = scene
        // Small steps, so that much is written meanwhile.
        .export(&["--consistency", consistency, "--scan-count", "20"])
        .run();
    std::thread::sleep(HEAD_START);
    let log = writer.finish();
    let output = output.success();
    let what = format!("{version} {consistency}");
    assert_eq!(reached(&output), "exact", "{what}");
    assert_eq!(scene.inspected(), "exact", "{what}");
    let paused = summary(&output)["source"]["paused_ms"].as_f64();
    match (consistency, version) {
        ("pause", Version::Redis60) => assert!(said(&output, "refuses CLIENT PAUSE"), "{what}"),
        ("pause", _) => assert!(paused.is_some_and(|ms| ms < 500.0), "{what}: {paused:?}"),
        _ => assert_eq!(paused, None, "{what}"),
    }
    println!("{what}: paused {paused:?} ms, {:?}", output.elapsed);
    scene.import();
    scene.assert_exact(&log, &what);
}

#[test]
fn converging_is_exact() {
    for version in available() {
        export(version, "converge");
    }
}

#[test]
fn pausing_is_exact() {
    for version in available() {
        export(version, "pause");
    }
}

#[test]
fn copying_is_exact() {
    for version in available() {
        let scene = Scene::new(version);
        let writer = Writer::start(&scene.source, Plan::default());
        std::thread::sleep(HEAD_START);
        let (from, to) = (scene.source.url(), scene.destination.url());
        let output = Tool::new(&["copy", "--json", "--consistency", "converge", &from, &to]).run();
        let log = writer.finish();
        let output = output.success();
        let what = format!("{version} copy");
        assert_eq!(reached(&output), "exact", "{what}");
        scene.assert_exact(&log, &what);
    }
}
