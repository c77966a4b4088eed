//! A source whose sentinels name another primary while the old one goes on answering.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::equality::assert_equal;
use crate::support::many::fill_many;
use crate::support::proxy::{Direction, Proxy, Rules};
use crate::support::sentinel::{NAME, Watched, lone_sentinel};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Tool, run};

/// A writer as they should be: it asks the sentinel before each write. Ends with its last number.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Writer {
    fn start(sentinel: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut number = 0;
            while !stopped.load(Ordering::Relaxed) {
                number += u64::from(write(sentinel, number + 1).is_ok());
                std::thread::sleep(Duration::from_millis(50));
            }
            number
        });
        Self { stop, thread }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the writer")
    }
}

fn write(sentinel: u16, number: u64) -> redis::RedisResult<()> {
    let connect =
        |port: u16| redis::Client::open(format!("redis://127.0.0.1:{port}"))?.get_connection();
    let (_, port): (String, u16) = redis::cmd("SENTINEL")
        .arg("GET-MASTER-ADDR-BY-NAME")
        .arg(NAME)
        .query(&mut connect(sentinel)?)?;
    redis::cmd("SET")
        .arg("written")
        .arg(number)
        .exec(&mut connect(port)?)
}

/// The old primary takes writes for about ten seconds more and hears of none: that is no rest.
#[test]
fn a_planned_failover_is_followed_to_the_new_primary() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let mut watched = Watched::start(version);
    fill_many(&mut watched.primary().client(), 500, 7);
    watched.wait_for_replicas(2);
    let other = TestServer::start(version);
    let writer = Writer::start(watched.sentinels[0].port());
    let running = Tool::new(&["copy", &watched.url(), &other.url()])
        .args(&["--follow", "--until-idle", "4s", "--verify"])
        .spawn();
    std::thread::sleep(Duration::from_millis(1500));
    watched.fail_over();
    // Longer than the source may be idle, and shorter than the old primary is left as it was.
    std::thread::sleep(Duration::from_secs(6));
    let last = writer.end();
    let output = running
        .wait()
        .success()
        .expect_stderr("the sentinels name another primary now");
    assert!(output.stderr.contains("exact"), "{}", output.stderr);
    let get = |server: &TestServer| -> u64 {
        redis::cmd("GET")
            .arg("written")
            .query(&mut server.client())
            .unwrap()
    };
    assert_eq!(get(&other), last, "{}", output.stderr);
    assert_equal(&mut watched.primary().client(), &mut other.client());
}

/// Read to its end at the old primary, while the next one is written already.
#[test]
fn nothing_is_exact_of_a_primary_that_is_named_no_more() {
    let Some(version) = require(Version::Valkey91) else {
        return;
    };
    for consistency in ["converge", "auto"] {
        let mut watched = Watched::start(version);
        fill_many(&mut watched.primary().client(), 5_000, 7);
        watched.wait_for_replicas(2);
        let first = watched.primary().port();
        // Far away, so that the failover falls into the run; the next primary is near.
        let delay = Direction {
            delay: Duration::from_millis(50),
            ..Direction::default()
        };
        let rules = Rules {
            to_client: delay,
            ..Rules::default()
        };
        let proxy = Proxy::start(watched.primary().addr(), rules);
        let map = format!("127.0.0.1:{first}=127.0.0.1:{}", proxy.port());
        let other = TestServer::start(version);
        let running = Tool::new(&["copy", &watched.url(), &other.url()])
            .args(&["--scan-count", "50", "--on-conflict", "replace"])
            .arg(format!("--consistency={consistency}"))
            .arg(format!("--source-node-map={map}"))
            .spawn();
        let deadline = Instant::now() + Duration::from_secs(60);
        while proxy.bytes_to_client() < 50_000 {
            assert!(Instant::now() < deadline, "the run does not come forward");
            std::thread::sleep(Duration::from_millis(5));
        }
        watched.fail_over();
        write(watched.sentinels[0].port(), 1).expect("the new primary takes it");
        let output = running
            .wait()
            .success()
            .expect_stderr("the sentinels name another primary now");
        match consistency {
            // It began anew at the next one.
            "converge" => {
                output.expect_stderr("exact as of");
                assert_equal(&mut watched.primary().client(), &mut other.client());
            }
            // It does not begin anew, and says so.
            _ => assert!(!output.stderr.contains("exact as of"), "{}", output.stderr),
        }
    }
}

/// Nobody can say which of the two is the source: what was read is told, and no word of "exact".
#[test]
fn sentinels_that_disagree_or_are_silent() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (one, two) = (TestServer::start(version), TestServer::start(version));
    fill_many(&mut one.client(), 100, 7);
    let (mut sentinel, stranger) = (lone_sentinel(&one), lone_sentinel(&two));
    let url = |first: u16, second: u16| {
        format!("redis-sentinel://127.0.0.1:{first},127.0.0.1:{second}/{NAME}")
    };
    let disagreeing = url(sentinel.port(), stranger.port());
    for consistency in ["converge", "auto"] {
        let output = run(&["export", &disagreeing, "--consistency", consistency], b"")
            .expect_code(4)
            .expect_stderr("do not agree which server is the primary")
            .expect_stderr(&format!("names 127.0.0.1:{}", two.port()));
        assert!(!output.stderr.contains("exact as of"), "{}", output.stderr);
    }

    // They name it, and are gone before its end.
    let known = url(1, sentinel.port());
    let other = TestServer::start(version);
    let running = Tool::new(&["copy", &known, &other.url()])
        .args(&["--follow", "--until-idle", "3s"])
        .spawn();
    let deadline = Instant::now() + Duration::from_secs(60);
    while redis::cmd("DBSIZE").query(&mut other.client()) != Ok(100) {
        assert!(Instant::now() < deadline, "the run does not come forward");
        std::thread::sleep(Duration::from_millis(5));
    }
    sentinel.kill();
    let output = running
        .wait()
        .success()
        .expect_stderr("no sentinel answers")
        .expect_stderr("exact as of");
    let said = output.stderr.matches("no sentinel answers").count();
    assert_eq!(said, 1, "{}", output.stderr);
}
