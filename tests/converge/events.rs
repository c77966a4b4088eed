//! What happens in the middle: each a correct result, or an honest exit 4.

use std::time::{Duration, Instant};

use crate::converge::run::{Scene, far_away, listener, reached, said, summary, wait_for_listener};
use crate::converge::writer::{MILD, Op, Plan, Writer, apply, do_besides, preload, writes_within};
use crate::support::random::Random;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, Tool};

/// So small that the scan takes long enough for something to happen in it.
const SLOW: [&str; 2] = ["--scan-count", "2"];

fn after(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// Exports under the writer, does these things in the middle, and compares.
fn exact_in_spite_of(version: Version, arguments: &[&str], ops: &[Op], plan: Plan) -> Output {
    let scene = Scene::new(version);
    let writer = Writer::start(&scene.source, plan);
    after(200);
    let proxy = far_away(&scene.source);
    let tool = scene.export_through(&proxy, arguments).spawn();
    wait_for_listener(&scene.source);
    let mut besides = Vec::new();
    for op in ops {
        after(120);
        besides.push(do_besides(&scene.source, op.clone()));
    }
    let output = tool.wait().success();
    let mut log = writer.finish();
    log.add(besides);
    let what = format!("{version} {:?}", ops.first().map(|op| &op.parts[0]));
    assert_eq!(reached(&output), "exact", "{what}");
    assert_eq!(scene.inspected(), "exact", "{what}");
    scene.import();
    scene.assert_exact(&log, &what);
    output
}

#[test]
fn flushing_everything_begins_anew() {
    for version in [Version::Redis60, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        let ops = [Op::new(0, &["FLUSHALL"])];
        let output = exact_in_spite_of(version, &["--consistency", "converge"], &ops, MILD);
        assert!(said(&output, "starts again"), "{}", output.stderr);
    }
}

#[test]
fn flushing_a_database_begins_anew() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let ops = [Op::new(1, &["FLUSHDB"])];
    let output = exact_in_spite_of(version, &["--consistency", "pause"], &ops, MILD);
    assert!(said(&output, "starts again"), "{}", output.stderr);
}

#[test]
fn swapped_databases_begin_anew() {
    for version in [Version::Redis80, Version::Valkey81] {
        let Some(version) = require(version) else {
            continue;
        };
        let ops = [
            Op::new(0, &["SWAPDB", "1", "5"]),
            Op::new(0, &["SWAPDB", "1", "7"]),
        ];
        let output = exact_in_spite_of(version, &["--consistency", "converge"], &ops, MILD);
        assert!(said(&output, "swapped"), "{}", output.stderr);
    }
}

/// What stands guard is the count of SWAPDB, and a reset brings it back to where it was.
#[test]
fn a_reset_of_the_statistics_does_not_hide_a_swap() {
    for (version, how, reaches) in [
        (Version::Redis60, "converge", "exact"),
        (Version::Valkey91, "pause", "exact"),
        // A plain scan does not begin anew.
        (Version::Redis80, "auto", "scan"),
    ] {
        let Some(version) = require(version) else {
            continue;
        };
        let scene = Scene::new(version);
        let swap = [Op::new(0, &["SWAPDB", "1", "5"])];
        apply(&mut scene.source.client(), &swap);
        let proxy = far_away(&scene.source);
        let tool = scene
            .export_through(&proxy, &["--consistency", how])
            .spawn();
        wait_for_listener(&scene.source);
        after(200);
        let reset = [Op::new(0, &["CONFIG", "RESETSTAT"])];
        apply(&mut scene.source.client(), &reset);
        apply(&mut scene.source.client(), &swap);
        let output = tool.wait().success();
        let what = format!("{version} {how}");
        assert!(said(&output, "RESETSTAT"), "{what}: {}", output.stderr);
        assert_eq!(reached(&output), reaches, "{what}");
        assert_eq!(scene.inspected(), reaches, "{what}");
        if reaches == "exact" {
            scene.import();
            scene.assert_same(&what);
        }
    }
}

#[test]
fn a_database_that_was_empty_is_not_forgotten() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let ops = [
        Op::new(9, &["SET", "s:new", "1"]),
        Op::new(10, &["SET", "s:0", "1"]),
        Op::new(1, &["MOVE", "h:1", "11"]),
    ];
    for how in ["converge", "pause"] {
        exact_in_spite_of(version, &["--consistency", how], &ops, MILD);
    }
}

#[test]
fn streams_that_change_unheard_are_read_again() {
    for version in [Version::Redis60, Version::Redis70, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        let plan = Plan {
            unheard: true,
            ..MILD
        };
        exact_in_spite_of(version, &["--consistency", "converge"], &[], plan);
    }
}

#[test]
fn a_refused_xinfo_costs_no_exactness() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let scene = Scene {
        source: TestServer::builder(version)
            .user("default on nopass ~* &* +@all -xinfo")
            .start(),
        ..Scene::new(version)
    };
    preload(&mut scene.source.client());
    let writer = Writer::start(&scene.source, Plan::default());
    let output = scene.export(&["--consistency", "converge"]).run();
    let log = writer.finish();
    assert_eq!(reached(&output.success()), "exact");
    scene.import();
    scene.assert_exact(&log, "without XINFO");
}

/// Ends the connection that listens; whether there was one.
fn kill_tracking(server: &TestServer) -> bool {
    let Some(id) = listener(server) else {
        return false;
    };
    redis::cmd("CLIENT")
        .arg(&["KILL", "ID", &id])
        .exec(&mut server.client())
        .is_ok()
}

#[test]
fn a_lost_tracking_connection_begins_anew() {
    let Some(version) = require(Version::Valkey81) else {
        return;
    };
    let scene = Scene::new(version);
    let writer = Writer::start(&scene.source, Plan::default());
    let proxy = far_away(&scene.source);
    let tool = scene
        .export_through(&proxy, &["--consistency", "pause"])
        .spawn();
    wait_for_listener(&scene.source);
    after(200);
    assert!(kill_tracking(&scene.source));
    let output = tool.wait().success();
    let log = writer.finish();
    assert!(said(&output, "starts again"), "{}", output.stderr);
    assert_eq!(reached(&output), "exact");
    scene.import();
    scene.assert_exact(&log, "a killed tracking connection");
}

#[test]
fn a_tracking_connection_that_is_lost_again_and_again_is_given_up() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    for (how, code) in [("converge", 4), ("auto", 0)] {
        let scene = Scene::new(version);
        let mut tool = scene
            .export(&[&["--consistency", how][..], &SLOW].concat())
            .spawn();
        let pid = tool.pid();
        let waiting = std::thread::spawn(move || tool.wait());
        let deadline = Instant::now() + Duration::from_secs(20);
        while !waiting.is_finished() && Instant::now() < deadline {
            kill_tracking(&scene.source);
            after(5);
        }
        let output = waiting.join().expect("the tool ends").expect_code(code);
        assert!(said(&output, "not exact"), "{pid}: {}", output.stderr);
        assert_eq!(reached(&output), "scan", "{how}");
        assert_eq!(scene.inspected(), "scan", "{how}");
        // Nothing was written, so what arrived is right even so.
        scene.import();
        scene.assert_same(how);
    }
}

#[test]
fn refused_tracking_falls_back() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let scene = Scene {
        source: TestServer::builder(version)
            .user("default on nopass ~* &* +@all -client|tracking")
            .start(),
        ..Scene::new(version)
    };
    preload(&mut scene.source.client());
    for (how, code) in [("auto", 0), ("converge", 4), ("pause", 4)] {
        let output = scene
            .export(&["--consistency", how])
            .run()
            .expect_code(code);
        assert!(said(&output, "does not report changes"), "{how}");
        assert_eq!(reached(&output), "scan", "{how}");
        assert_eq!(scene.inspected(), "scan", "{how}");
    }
}

/// Following has nothing to fall back on: the refused command is named, and it is no usage error.
#[test]
fn following_ends_where_a_command_it_needs_is_refused() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    for (rule, command) in [
        ("-client|tracking", "CLIENT TRACKING"),
        ("-multi", "MULTI"),
        ("-exec", "EXEC"),
    ] {
        let scene = Scene {
            source: TestServer::builder(version)
                .user(&format!("default on nopass ~* &* +@all {rule}"))
                .start(),
            ..Scene::new(version)
        };
        let output = scene.export(&["--follow"]).run().expect_code(13);
        let words = format!("refuses {command}, which is needed");
        assert!(output.stderr.contains(&words), "{rule}: {}", output.stderr);
    }
}

#[test]
fn names_out_of_reach_are_failures_and_nothing_more() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let scene = Scene {
        source: TestServer::builder(version)
            .user("default on nopass ~* &* +@all")
            .user("bob on >secret ~s:* ~h:* ~l:* ~t:* ~z:* ~x:* ~e:* ~seq +@all")
            .start(),
        ..Scene::new(version)
    };
    preload(&mut scene.source.client());
    let writer = Writer::start(&scene.source, Plan::default());
    let url = format!("redis://bob:secret@{}", scene.source.addr());
    let tool = Tool::new(&["export", "--json", "--consistency", "converge", &url])
        .arg("-o")
        .arg(scene.archive())
        .spawn();
    for i in 0..10 {
        after(20);
        // The last is written when the scan is over.
        do_besides(&scene.source, Op::new(0, &["SET", &format!("q:{i}"), "1"]));
    }
    let output = tool.wait();
    let log = writer.finish();
    let output = output.expect_code(3);
    assert_eq!(reached(&output), "exact");
    scene.import();
    scene.assert_exact(&log, "keys out of reach");
}

#[test]
fn a_key_of_another_type_is_taken_back() {
    let Some(version) = require(Version::Redis80) else {
        return;
    };
    let scene = Scene::new(version);
    let proxy = far_away(&scene.source);
    let arguments = ["--consistency", "converge", "--type", "string"];
    let tool = scene.export_through(&proxy, &arguments).spawn();
    wait_for_listener(&scene.source);
    after(400);
    let mut client = scene.source.client();
    for i in (0..20_000).step_by(15) {
        let name = format!("s:{i}");
        redis::pipe()
            .atomic()
            .del(&name)
            .hset(&name, "f", "v")
            .exec(&mut client)
            .unwrap();
    }
    let output = tool.wait().success();
    assert_eq!(reached(&output), "exact");
    let reread = summary(&output)["source"]["reread"].as_u64();
    assert!(reread.is_some_and(|keys| keys > 0), "it was too late");
    scene.import();
    let arrived: u64 = redis::cmd("DBSIZE")
        .query(&mut scene.destination.client())
        .unwrap();
    let keys = 20_000_u64.div_ceil(15);
    // A third of the strings lies in database 0, and none of them is a string now.
    assert_eq!(arrived, 0, "of {keys}");
}

#[test]
fn what_was_not_reached_is_said() {
    let Some(version) = require(Version::Valkey91) else {
        return;
    };
    let scene = Scene::new(version);
    let writer = Writer::start(&scene.source, Plan::default());
    for (arguments, code) in [
        (&["--consistency", "converge", "--max-wait", "0s"][..], 4),
        (&["--consistency", "pause", "--max-wait", "0s"], 4),
        (&["--consistency", "auto", "--max-wait", "0s"], 0),
        (
            &[
                "--consistency",
                "pause",
                "--max-pause",
                "0ms",
                "--max-wait",
                "1s",
            ],
            4,
        ),
    ] {
        let output = scene.export(arguments).run().expect_code(code);
        assert_ne!(reached(&output), "exact", "{arguments:?}");
        assert_eq!(scene.inspected(), reached(&output), "{arguments:?}");
        assert!(said(&output, "not exact"), "{arguments:?}");
        assert_eq!(summary(&output)["source"]["consistency_missed"], code == 4);
    }
    drop(writer.finish());
}

#[test]
fn a_last_round_that_would_hold_up_the_source_is_not_begun() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let scene = Scene::new(version);
    let url = scene.source.url();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = {
        let stop = std::sync::Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut client = redis::Client::open(url).unwrap().get_connection().unwrap();
            let value = Random::new(5).bytes(2 * 1024 * 1024);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for i in 0..60 {
                    let name = format!("large:{i}");
                    redis::cmd("SETRANGE")
                        .arg(&name)
                        .arg(0)
                        .arg(&value)
                        .exec(&mut client)
                        .unwrap();
                }
            }
        })
    };
    after(200);
    let output = scene
        .export(&[
            "--consistency",
            "pause",
            "--max-pause",
            "20ms",
            "--max-wait",
            "60s",
        ])
        .run();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.join().unwrap();
    let output = output.expect_code(4);
    assert!(said(&output, "would read"), "{}", output.stderr);
    assert_ne!(scene.inspected(), "exact");
}

#[test]
fn an_interrupt_leaves_nobody_waiting() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let scene = Scene::new(version);
    let proxy = far_away(&scene.source);
    let writer = Writer::start(&scene.source, Plan::default());
    for arguments in [
        // Never reached over this network, so that it is always in the midst of an attempt.
        ["--consistency", "pause", "--max-pause", "14ms"],
        ["--consistency", "pause", "--max-pause", "20s"],
        ["--consistency", "converge", "--max-pause", "1s"],
    ] {
        for ms in [300, 3000] {
            let mut tool = scene.export_through(&proxy, &arguments).spawn();
            after(ms);
            tool.signal("INT");
            let asked = Instant::now();
            let output = tool.wait();
            assert!(asked.elapsed() < Duration::from_secs(3), "{arguments:?}");
            assert!(writes_within(&scene.source, Duration::from_millis(500)));
            // A pause that is reached at once is over before the signal.
            let code = output.code();
            let done = ms > 300 && (code == Some(0) || code == Some(4));
            assert!(done || code == Some(130), "{code:?} {}", output.stderr);
            // Interrupted after it was reached, it may be either.
            let is_exact = reached(&output) == "exact";
            assert!(is_exact || code != Some(0), "{arguments:?}");
        }
    }
    drop(writer.finish());
}
