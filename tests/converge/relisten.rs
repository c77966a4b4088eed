//! Changes can no longer be listened to, or only by a new process: the scan still reads every key,
//! and following goes on or ends with an error.

use std::time::{Duration, Instant};

use crate::converge::run::{Scene, far_away, listener, reached, said, wait_for_listener};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, Running, Tool};

fn after(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// Ends the connection that listens, and refuses another one.
fn refuse_listening(server: &TestServer) {
    let id = listener(server).expect("the tool listens");
    let mut client = server.client();
    redis::cmd("ACL")
        .arg(&["SETUSER", "default", "-client|tracking"])
        .exec(&mut client)
        .expect("ACL SETUSER");
    redis::cmd("CLIENT")
        .arg(&["KILL", "ID", &id])
        .exec(&mut client)
        .expect("CLIENT KILL");
}

/// Waits for a tool that may never end, and kills it then.
#[track_caller]
fn ends(mut tool: Running) -> Output {
    let began = Instant::now();
    while !tool.has_ended() {
        assert!(began.elapsed() < Duration::from_secs(60), "it never ends");
        after(20);
    }
    tool.wait()
}

#[track_caller]
fn wait_for(server: &TestServer, key: &str, value: &str) {
    let began = Instant::now();
    loop {
        let now: Option<String> = redis::cmd("GET")
            .arg(key)
            .query(&mut server.client())
            .expect("GET");
        if now.as_deref() == Some(value) {
            return;
        }
        let waited = began.elapsed();
        assert!(waited < Duration::from_secs(30), "{key} is {now:?}");
        after(20);
    }
}

fn set(server: &TestServer, key: &str, value: &str) {
    redis::cmd("SET")
        .arg(&[key, value])
        .exec(&mut server.client())
        .expect("SET");
}

#[test]
fn every_key_is_read_where_listening_is_refused_in_the_middle() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let scene = Scene::new(version);
    let proxy = far_away(&scene.source);
    let tool = scene
        .export_through(&proxy, &["--consistency", "converge"])
        .spawn();
    wait_for_listener(&scene.source);
    after(200);
    refuse_listening(&scene.source);
    let output = tool.wait().expect_code(4);
    let words = "changes can no longer be listened to";
    assert!(said(&output, words), "{}", output.stderr);
    assert_eq!(reached(&output), "scan");
    assert_eq!(scene.inspected(), "scan");
    scene.import();
    scene.assert_same("listening was refused in the middle");
}

#[test]
fn following_ends_with_an_error_where_listening_is_refused_in_the_middle() {
    let Some(version) = require(Version::Redis80) else {
        return;
    };
    for scanning in [true, false] {
        let scene = Scene::new(version);
        let proxy = far_away(&scene.source);
        let (near, far, to) = (scene.source.url(), proxy.url(), scene.destination.url());
        let from = if scanning { &far } else { &near };
        let tool = Tool::new(&["copy", "--json", "--follow", "--for", "5s", from, &to])
            .args(&["--scan-count", "50"])
            .spawn();
        wait_for_listener(&scene.source);
        if scanning {
            after(200);
        } else {
            set(&scene.source, "last", "1");
            wait_for(&scene.destination, "last", "1");
            after(1000);
        }
        refuse_listening(&scene.source);
        let output = ends(tool).expect_code(13);
        let words = "refuses CLIENT TRACKING";
        assert!(said(&output, words), "{scanning}: {}", output.stderr);
    }
}

/// Nothing is in flight on the connection that reads: only the one that listens hears of it.
#[test]
fn an_idle_source_that_is_restarted_is_followed_on() {
    let Some(version) = require(Version::Valkey81) else {
        return;
    };
    for wish in ["INT", "--until-idle"] {
        let mut scene = Scene::new(version);
        let (from, to) = (scene.source.url(), scene.destination.url());
        let mut tool = Tool::new(&["copy", "--json", "--follow", &from, &to]);
        if wish == "--until-idle" {
            tool = tool.args(&["--until-idle", "4s"]);
        }
        let mut tool = tool.spawn();
        wait_for_listener(&scene.source);
        set(&scene.source, "first", "1");
        wait_for(&scene.destination, "first", "1");
        after(500);
        redis::cmd("SAVE")
            .exec(&mut scene.source.client())
            .expect("SAVE");
        scene.source.restart();
        // While nobody listens nobody is told, and it arrives all the same.
        set(&scene.source, "second", "1");
        redis::cmd("DEL")
            .arg("first")
            .exec(&mut scene.source.client())
            .expect("DEL");
        wait_for(&scene.destination, "second", "1");
        set(&scene.source, "third", "1");
        wait_for(&scene.destination, "third", "1");
        if wish == "INT" {
            tool.signal("INT");
        }
        let output = ends(tool).success();
        assert!(said(&output, "starts again"), "{wish}: {}", output.stderr);
        assert_eq!(reached(&output), "exact", "{wish}");
        scene.assert_same(wish);
    }
}

/// A source that is started again without its data: what came so far is perhaps the only copy.
#[test]
fn what_a_source_lost_with_its_process_is_not_deleted() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    for wish in ["pause", "converge", "follow"] {
        let mut scene = Scene::new(version);
        for n in 0..300 {
            set(&scene.source, &format!("k{n}"), "v");
        }
        let (from, to) = (scene.source.url(), scene.destination.url());
        let tool = Tool::new(&["copy", &from, &to, "--rate-limit", "100"]);
        let tool = match wish {
            "follow" => tool.arg("--follow"),
            wish => tool.args(&["--consistency", wish]),
        };
        let tool = tool.spawn();
        let deadline = Instant::now() + Duration::from_secs(60);
        let size = |server: &TestServer| -> u64 {
            redis::cmd("DBSIZE").query(&mut server.client()).unwrap()
        };
        while size(&scene.destination) == 0 {
            assert!(Instant::now() < deadline, "nothing comes");
            after(10);
        }
        // Nothing was saved.
        scene.source.restart();
        assert_eq!(size(&scene.source), 0);
        let came = size(&scene.destination);
        let output = ends(tool);
        // Whether it was heard first by the scan or by whoever listens.
        let words = match output.code() {
            Some(1) => "nothing is deleted because of it",
            Some(3 | 4) => "was not read before is missing",
            code => panic!("{wish}: {code:?}\n{}", output.stderr),
        };
        output.expect_stderr(words);
        assert!(size(&scene.destination) >= came, "{wish}");
    }
}
