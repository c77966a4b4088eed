//! What is more than can be kept in mind, or cannot be seen: a correct result or an honest exit 4.

use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use redis::ConnectionLike as _;

use crate::converge::run::{Scene, far_away, reached, said, summary, wait_for_listener};
use crate::converge::writer::{Op, Plan, Writer, apply, preload};
use crate::support::dataset::command;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, Tool};

fn after(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// Sends these commands in one go.
fn burst(server: &TestServer, count: usize, pack: impl Fn(&mut Vec<u8>, usize)) {
    let mut client = server.client();
    for first in (0..count).step_by(1000) {
        let last = count.min(first + 1000);
        let mut packed = Vec::new();
        for number in first..last {
            pack(&mut packed, number);
        }
        client
            .req_packed_commands(&packed, 0, last - first)
            .expect("the server answers");
    }
}

#[test]
fn more_names_than_can_be_remembered_begin_anew() {
    let Some(version) = require(Version::Valkey91) else {
        return;
    };
    for how in ["converge", "pause", "auto"] {
        let scene = Scene::new(version);
        let proxy = far_away(&scene.source);
        let asked = format!("--consistency={how}");
        let tool = scene.export_through(&proxy, &[&asked]).spawn();
        wait_for_listener(&scene.source);
        after(200);
        // 30 MB of names, where 16 MiB are kept.
        burst(&scene.source, 1500, |packed, number| {
            let name = format!("{number}:{}", "long".repeat(5_000));
            command(packed, &[b"SET", name.as_bytes(), b"1"]);
        });
        let output = tool.wait().success();
        assert!(said(&output, "more keys changed than can be remembered"));
        // A plain scan never begins anew.
        let expected = if how == "auto" { "scan" } else { "exact" };
        assert_eq!(reached(&output), expected, "{how}");
        assert_eq!(scene.inspected(), expected, "{how}");
        assert!(output.peak_memory_kib < 128 * 1024, "{output:?}");
        scene.import();
        if how != "auto" {
            scene.assert_same(how);
        }
    }
}

#[test]
fn more_streams_than_can_be_kept_in_mind() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let scene = Scene::new(version);
    burst(&scene.source, 80_000, |packed, number| {
        let name = format!("many:{number}");
        command(packed, &[b"XADD", name.as_bytes(), b"1-1", b"f", b"v"]);
    });
    for (how, code) in [("converge", 4), ("auto", 0)] {
        let asked = ["--consistency", how];
        let output = scene.export(&asked).run().expect_code(code);
        assert!(said(&output, "not exact: there are more streams"), "{how}");
        assert_eq!(reached(&output), "scan", "{how}");
        assert_eq!(scene.inspected(), "scan", "{how}");
    }
    // Nothing was written meanwhile.
    scene.import();
    scene.assert_same("many streams");
}

#[test]
fn a_source_that_never_rests_is_given_up_in_time() {
    let Some(version) = require(Version::Redis80) else {
        return;
    };
    let scene = Scene::new(version);
    let plan = Plan {
        hot_percent: 0,
        ..Plan::default()
    };
    let writer = Writer::start(&scene.source, plan);
    after(200);
    let proxy = far_away(&scene.source);
    let output = scene.export_through(&proxy, &[]).run();
    drop(writer.finish());
    let output = output.success();
    assert!(said(
        &output,
        "not exact: keys kept changing for 10s (--max-wait)"
    ));
    assert_eq!(reached(&output), "changing");
    assert_eq!(scene.inspected(), "changing");
    assert_eq!(summary(&output)["source"]["consistency_missed"], false);
}

fn without_info(version: Version, databases: &str) -> Scene {
    let source = TestServer::builder(version)
        .user("default on nopass ~* +@all")
        .user("bob on >secret ~* +@all -info")
        .option("--databases", databases)
        .start();
    Scene {
        source,
        ..Scene::new(version)
    }
}

/// An export during which two databases are swapped.
fn swapped_meanwhile(scene: &Scene, url: &str, consistency: &str) -> Output {
    let tool = Tool::new(&["export", "--json", "--consistency", consistency, url])
        .arg("--scan-count=50")
        .arg("-o")
        .arg(scene.archive())
        .spawn();
    wait_for_listener(&scene.source);
    after(200);
    let swap = [Op::new(0, &["SWAPDB", "1", "9"])];
    apply(&mut scene.source.client(), &swap);
    tool.wait()
}

#[test]
fn what_info_would_have_told_is_not_claimed() {
    for version in [Version::Redis60, Version::Valkey81] {
        let Some(version) = require(version) else {
            continue;
        };
        let scene = without_info(version, "16");
        preload(&mut scene.source.client());
        let proxy = far_away(&scene.source);
        let url = format!("redis://bob:secret@{}", proxy.addr());
        for (how, code) in [("converge", 4), ("pause", 4), ("auto", 0)] {
            let output = swapped_meanwhile(&scene, &url, how).expect_code(code);
            assert!(said(&output, "does not answer INFO, so"), "{how}");
            assert_eq!(reached(&output), "scan", "{version} {how}");
            assert_eq!(scene.inspected(), "scan", "{version} {how}");
        }
    }
}

/// Where no new scan follows, keys may be missing: that is no more than some of them.
#[test]
fn databases_that_are_swapped_are_told_of_where_nothing_is_read_anew() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let scene = Scene::new(version);
    preload(&mut scene.source.client());
    let proxy = far_away(&scene.source);
    let url = format!("redis://{}", proxy.addr());
    let output = swapped_meanwhile(&scene, &url, "auto").expect_code(3);
    assert!(said(&output, "databases were swapped during this run"));
    assert_eq!(reached(&output), "scan");
    // Who reads the archive later is told, too.
    let archive = scene.archive();
    let archive = archive.to_str().expect("a plain name");
    for more in [&[][..], &["--quick"]] {
        let output = Tool::new(&["verify", archive]).args(more).run().success();
        let output = output.expect_stderr("databases were swapped during this run");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("its export was incomplete"), "{text}");
    }
}

#[test]
fn a_single_database_cannot_be_swapped() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let scene = without_info(version, "1");
    let keys = 2_000;
    burst(&scene.source, keys, |packed, number| {
        let name = format!("s:{number}");
        command(packed, &[b"SET", name.as_bytes(), b"1"]);
    });
    let url = format!("redis://bob:secret@{}", scene.source.addr());
    let output = Tool::new(&["export", "--json", "--consistency=converge", &url])
        .arg("-o")
        .arg(scene.archive())
        .run()
        .success();
    assert_eq!(reached(&output), "exact");
    scene.import();
    scene.assert_same("a single database");
}

/// Takes connections for two servers in turn, as a load balancer may.
fn in_turn(servers: [&TestServer; 2]) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("a bound socket").port();
    let targets = servers.map(TestServer::addr);
    std::thread::spawn(move || {
        for (number, client) in listener.incoming().flatten().enumerate() {
            let Ok(server) = TcpStream::connect(targets[number % 2]) else {
                continue;
            };
            pass(&client, &server);
            pass(&server, &client);
        }
    });
    port
}

fn pass(from: &TcpStream, to: &TcpStream) {
    let both = (from.try_clone(), to.try_clone());
    let (Ok(mut from), Ok(mut to)) = both else {
        return;
    };
    std::thread::spawn(move || {
        // Either side may leave.
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
}

#[test]
fn listening_to_another_server_is_not_listening() {
    let Some(version) = require(Version::Valkey91) else {
        return;
    };
    let scene = Scene::new(version);
    let other = TestServer::start(version);
    preload(&mut other.client());
    let url = format!("redis://127.0.0.1:{}", in_turn([&scene.source, &other]));
    for (how, code) in [("converge", 4), ("auto", 0)] {
        let output = Tool::new(&["export", "--json", "--consistency", how, &url])
            .arg("-o")
            .arg(scene.archive())
            .run()
            .expect_code(code);
        assert!(said(&output, "reached another server"), "{how}");
        assert_eq!(reached(&output), "scan", "{how}");
    }
}
