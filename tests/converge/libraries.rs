//! Function libraries that come and go in the middle: the archive has those of the end.

use std::time::Duration;

use crate::converge::run::{Scene, far_away, reached, wait_for_listener};
use crate::converge::writer::{MILD, Writer};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::Tool;

fn after(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

fn load(server: &TestServer, name: &str, answer: u32) {
    let code = format!(
        "#!lua name={name}\nredis.register_function('{name}', function() return {answer} end)"
    );
    redis::cmd("FUNCTION")
        .arg(&["LOAD", "REPLACE", &code])
        .exec(&mut server.client())
        .expect("FUNCTION LOAD");
}

fn delete(server: &TestServer, name: &str) {
    redis::cmd("FUNCTION")
        .arg(&["DELETE", name])
        .exec(&mut server.client())
        .expect("FUNCTION DELETE");
}

fn call(server: &TestServer, name: &str) -> Option<u32> {
    redis::cmd("FCALL")
        .arg(&[name, "0"])
        .query(&mut server.client())
        .ok()
}

/// Before the tool begins; what is done in the middle; what has to arrive.
struct Case {
    before: &'static [&'static str],
    middle: fn(&TestServer),
    arrived: [Option<u32>; 2],
}

const CASES: [Case; 3] = [
    Case {
        before: &["one", "two"],
        middle: |server| {
            delete(server, "one");
            load(server, "two", 22);
        },
        arrived: [None, Some(22)],
    },
    Case {
        before: &[],
        middle: |server| load(server, "two", 2),
        arrived: [None, Some(2)],
    },
    Case {
        before: &["one"],
        middle: |server| delete(server, "one"),
        arrived: [None, None],
    },
];

#[test]
fn an_archive_has_the_libraries_of_its_end() {
    for (version, how, expected, code) in [
        (Version::Redis70, "converge", "exact", 0),
        (Version::Redis80, "pause", "exact", 0),
        (Version::Valkey91, "auto", "exact", 0),
        // Also where it is not exact.
        (Version::Valkey81, "gives up", "changing", 4),
    ] {
        let Some(version) = require(version) else {
            continue;
        };
        for (number, case) in CASES.iter().enumerate() {
            let scene = Scene::new(version);
            let what = format!("{version} {how} {number}");
            for name in case.before {
                load(&scene.source, name, 1);
            }
            let writer = Writer::start(&scene.source, MILD);
            let proxy = far_away(&scene.source);
            let asked: &[&str] = match how {
                "gives up" => &["--consistency=converge", "--max-wait=0s"],
                "pause" => &["--consistency=pause"],
                "auto" => &["--consistency=auto"],
                _ => &["--consistency=converge"],
            };
            let tool = scene.export_through(&proxy, asked).spawn();
            wait_for_listener(&scene.source);
            after(200);
            (case.middle)(&scene.source);
            let output = tool.wait();
            let log = writer.finish();
            let output = output.expect_code(code);
            scene.import();
            let arrived = ["one", "two"].map(|name| call(&scene.destination, name));
            assert_eq!(arrived, case.arrived, "{what}");
            if expected == "exact" {
                assert_eq!(reached(&output), "exact", "{what}");
                // The replay knows nothing of libraries.
                scene.assert_exact_keys(&log, &what);
            }
        }
    }
}

#[test]
fn a_copy_that_follows_brings_the_libraries_of_its_end() {
    let Some(version) = require(Version::Valkey91) else {
        return;
    };
    for (number, case) in CASES.iter().enumerate() {
        let scene = Scene::new(version);
        for name in case.before {
            load(&scene.source, name, 1);
        }
        let (from, to) = (scene.source.url(), scene.destination.url());
        let mut tool = Tool::new(&["copy", "--json", "--follow", &from, &to]).spawn();
        after(1200);
        (case.middle)(&scene.source);
        tool.signal("INT");
        tool.wait().success();
        let arrived = ["one", "two"].map(|name| call(&scene.destination, name));
        assert_eq!(arrived, case.arrived, "{number}");
        scene.assert_same("libraries followed");
    }
}
