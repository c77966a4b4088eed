//! The way to the source breaks: whatever happens, nothing is missing, extra or different at the
//! end, or the exit code says so and no archive looks complete.

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::dataset::fill_every_type;
use crate::support::equality::assert_equal;
use crate::support::many::fill_many;
use crate::support::proxy::{Direction, Proxy, Rules};
use crate::support::random::Random;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, Tool, run};

/// In turn.
const VERSIONS: [Version; 5] = [
    Version::Redis70,
    Version::Valkey91,
    Version::Redis60,
    Version::Redis80,
    Version::Valkey81,
];

const KEYS: u64 = 20_000;

/// How often each fault is tried.
fn rounds() -> u64 {
    let wanted = std::env::var("FAULT_RUNS").ok();
    wanted.and_then(|runs| runs.parse().ok()).unwrap_or(3)
}

struct Scene {
    source: TestServer,
    destination: TestServer,
    dir: TempDir,
}

impl Scene {
    fn new(version: Version) -> Option<Self> {
        let version = require(version)?;
        let source = TestServer::start(version);
        fill_every_type(&mut source.client(), version);
        fill_many(&mut source.client_db(3), KEYS, 1);
        Some(Self {
            source,
            destination: TestServer::start(version),
            dir: tempfile::tempdir().unwrap(),
        })
    }

    fn archive(&self) -> PathBuf {
        self.dir.path().join("snap.rmz")
    }

    fn export(&self, proxy: &Proxy, arguments: &[&str]) -> Tool {
        let url = proxy.url();
        Tool::new(&[&["export", "--json", &url][..], arguments].concat())
            .arg("-o")
            .arg(self.archive())
    }

    fn copy(&self, proxy: &Proxy, arguments: &[&str]) -> Tool {
        let (from, to) = (proxy.url(), self.destination.url());
        Tool::new(&[&["copy", "--json", &from, &to][..], arguments].concat())
    }

    fn import(&self) {
        Tool::new(&["import", &self.destination.url()])
            .arg(self.archive())
            .run()
            .success();
    }

    #[track_caller]
    fn assert_same(&self) {
        assert_equal(&mut self.source.client(), &mut self.destination.client());
    }

    fn empty_destination(&self) {
        redis::cmd("FLUSHALL")
            .exec(&mut self.destination.client())
            .unwrap();
    }
}

fn summary(output: &Output) -> serde_json::Value {
    output.summary()
}

fn cut_within(range: std::ops::Range<u64>, seed: u64) -> Rules {
    Rules {
        to_client: Direction {
            cut_within: Some(range),
            ..Direction::default()
        },
        seed,
        ..Rules::default()
    }
}

/// Cut after some bytes, again and again, in the middle of pages, groups and values.
#[test]
fn cuts_at_random_places_cost_nothing() {
    let mut random = Random::new(50);
    let mut resumed = 0;
    for round in 0..rounds() {
        let Some(scene) = Scene::new(VERSIONS[round as usize % VERSIONS.len()]) else {
            continue;
        };
        let seed = random.next_u64();
        let proxy = Proxy::start(scene.source.addr(), cut_within(20_000..900_000, seed));
        let plain = &["--consistency", "scan"][..];
        let output = scene.export(&proxy, plain).run().success();
        assert!(proxy.cuts() > 1, "round {round}, seed {seed}: never cut");
        resumed += output.stderr.matches("continuing").count();
        scene.import();
        scene.assert_same();

        scene.empty_destination();
        scene.copy(&proxy, plain).run().success();
        scene.assert_same();

        // With a connection that listens, which is cut as well.
        scene.empty_destination();
        let output = scene.export(&proxy, &[]).run().success();
        let total = &summary(&output)["source"];
        assert!(total["given"].as_u64() >= Some(KEYS), "{total}");
        scene.import();
        scene.assert_same();
    }
    assert!(
        resumed > 0 || rounds() == 0,
        "no scan ever went on at its cursor"
    );
}

/// Every connection at once, at any moment, so in what is asked as well as in what is answered.
#[test]
fn cuts_at_random_moments_cost_nothing() {
    let mut random = Random::new(51);
    for round in 0..rounds() {
        let Some(scene) = Scene::new(VERSIONS[(round as usize + 1) % VERSIONS.len()]) else {
            continue;
        };
        let proxy = Proxy::plain(scene.source.addr());
        for arguments in [
            &["--consistency", "scan"][..],
            &["--consistency", "converge"],
        ] {
            scene.empty_destination();
            let tool = scene
                .copy(&proxy, arguments)
                .args(&["--scan-count", "100"])
                .spawn();
            let tool = std::thread::spawn(move || tool.wait());
            for _ in 0..3 {
                std::thread::sleep(Duration::from_millis(random.between(5, 150)));
                proxy.cut_all();
            }
            let output = tool.join().expect("the tool ends");
            // Listening was lost too often to be exact: complete all the same.
            assert!(
                matches!(output.code(), Some(0 | 4)),
                "round {round}: {}",
                output.stderr
            );
            scene.assert_same();
        }
    }
}

/// The cursor of a process that is gone is worth nothing.
#[test]
fn a_restarted_server_is_scanned_again() {
    for round in 0..rounds() {
        let Some(mut scene) = Scene::new(VERSIONS[(round as usize + 2) % VERSIONS.len()]) else {
            continue;
        };
        redis::cmd("SAVE").exec(&mut scene.source.client()).unwrap();
        // Held up by latency, so that the restart falls into the scan.
        let far = Direction {
            delay: Duration::from_millis(10),
            ..Direction::default()
        };
        let rules = Rules {
            to_client: far,
            ..Rules::default()
        };
        let proxy = Proxy::start(scene.source.addr(), rules);
        let slow = ["--scan-count", "100"];
        for arguments in [
            &["--consistency", "scan"][..],
            &["--consistency", "converge"],
        ] {
            scene.empty_destination();
            let before = proxy.bytes_to_client();
            let tool = scene.copy(&proxy, arguments).args(&slow).spawn();
            while proxy.bytes_to_client() < before + 400_000 {
                std::thread::sleep(Duration::from_millis(1));
            }
            scene.source.kill();
            scene.source.restart();
            let output = tool.wait().success();
            let again = ["scanned again", "starts again"];
            assert!(
                again.iter().any(|words| output.stderr.contains(words)),
                "round {round}: {}",
                output.stderr
            );
            let total = &summary(&output)["source"];
            assert!(total["superseded"].as_u64() > Some(0), "{total}");
            scene.assert_same();
        }
    }
}

/// A server that says nothing of itself may be any: from the beginning.
#[test]
fn without_a_run_id_a_scan_never_goes_on_at_its_cursor() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = TestServer::builder(version)
        .user("reader on nopass ~* &* +@all -info")
        .start();
    let destination = TestServer::start(version);
    fill_many(&mut source.client(), KEYS, 1);
    let rules = Rules {
        cuts: Some(2),
        ..cut_within(300_000..400_000, 5)
    };
    let proxy = Proxy::start(source.addr(), rules);
    let url = format!("redis://reader:any@127.0.0.1:{}", proxy.port());
    let output = Tool::new(&["copy", &url, &destination.url(), "--scan-count", "500"])
        .args(&["--consistency", "scan"])
        .run()
        .success()
        .expect_stderr("scanned again");
    assert!(!output.stderr.contains("continuing"), "{}", output.stderr);
    assert_equal(&mut source.client(), &mut destination.client());
}

/// Nothing more comes, and the connection stays open: noticed by --timeout.
#[test]
fn a_stalled_source_is_noticed_and_left() {
    let Some(scene) = Scene::new(Version::Redis70) else {
        return;
    };
    let mut proxy = Proxy::plain(scene.source.addr());
    for round in 0..rounds().max(2) {
        let to_client = round % 2 == 0;
        let stall = Direction {
            stall_after: Some(if to_client { 200_000 } else { 30_000 } + round / 2 * 500),
            ..Direction::default()
        };
        let rules = match to_client {
            true => Rules {
                to_client: stall,
                ..Rules::default()
            },
            false => Rules {
                to_server: stall,
                ..Rules::default()
            },
        };
        drop(std::mem::replace(
            &mut proxy,
            Proxy::start(scene.source.addr(), rules),
        ));
        scene.empty_destination();
        let tool = scene
            .copy(&proxy, &["--consistency", "scan", "--timeout", "1s"])
            .spawn();
        while proxy.connections() < 2 {
            std::thread::sleep(Duration::from_millis(10));
        }
        proxy.set_rules(Rules::default());
        tool.wait().success().expect_stderr("no answer in time");
        scene.assert_same();
    }
}

#[test]
fn used_up_retries_are_an_error_and_no_archive() {
    let Some(scene) = Scene::new(Version::Valkey81) else {
        return;
    };
    for (consistency, retries) in [("scan", "2"), ("auto", "2"), ("scan", "0")] {
        let proxy = Proxy::start(scene.source.addr(), cut_within(200_000..300_000, 6));
        let tool = scene
            .export(
                &proxy,
                &["--consistency", consistency, "--retries", retries],
            )
            .spawn();
        while proxy.cuts() == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        proxy.set_rules(Rules {
            refuse: true,
            ..Rules::default()
        });
        let output = tool.wait();
        assert!(
            matches!(output.code(), Some(1 | 12)),
            "{consistency}, {retries}: {}",
            output.stderr
        );
        assert!(!scene.archive().exists());
        assert_eq!(std::fs::read_dir(scene.dir.path()).unwrap().count(), 0);
    }
}

/// What was deleted unheard counts as deleted, and nothing is deleted that was not accepted.
#[test]
fn deleting_at_the_source_survives_cuts() {
    for round in 0..rounds() {
        let Some(scene) = Scene::new(VERSIONS[round as usize % VERSIONS.len()]) else {
            continue;
        };
        let whole = scene.dir.path().join("whole.rmz");
        Tool::new(&["export", &scene.source.url(), "-o"])
            .arg(&whole)
            .run()
            .success();
        let rules = cut_within(30_000..600_000, 60 + round);
        let proxy = Proxy::start(scene.source.addr(), rules);
        let output = scene.copy(&proxy, &["--delete-source"]).run().success();
        assert!(proxy.cuts() > 1, "never cut");
        let sink = &summary(&output)["sink"];
        let left = |db: u32| -> u64 {
            redis::cmd("DBSIZE")
                .query(&mut scene.source.client_db(db))
                .unwrap()
        };
        assert_eq!(left(3), 0, "{sink}");
        // Streams with groups stay, and everything came.
        let reference = TestServer::start(scene.source.version());
        Tool::new(&["import", &reference.url()])
            .arg(&whole)
            .run()
            .success();
        assert_equal(&mut reference.client(), &mut scene.destination.client());
    }
}

/// Where only the remaining time of a key is told, a long way to the source is no change of it.
#[test]
fn deleting_at_a_source_far_away_takes_keys_that_expire() {
    let Some(version) = require(Version::Redis60) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    for key in 0..6 {
        let mut set = redis::cmd("SET");
        set.arg(key).arg("value").arg("PX").arg(3_600_000);
        set.exec(&mut source.client()).unwrap();
    }
    let far = Direction {
        delay: Duration::from_millis(80),
        ..Direction::default()
    };
    let proxy = Proxy::start(
        source.addr(),
        Rules {
            to_server: far.clone(),
            to_client: far,
            ..Rules::default()
        },
    );
    let copy = [
        "copy",
        "--json",
        &proxy.url(),
        &destination.url(),
        "--delete-source",
    ];
    let sink = &summary(&run(&copy, b"").success())["sink"];
    let left: u64 = redis::cmd("DBSIZE").query(&mut source.client()).unwrap();
    assert_eq!(left, 0, "{sink}");
}

/// A snapshot cannot be gone on with: an error, and nothing that looks complete.
#[test]
fn a_replica_stream_that_is_cut_is_an_error() {
    let Some(scene) = Scene::new(Version::Redis70) else {
        return;
    };
    let proxy = Proxy::start(scene.source.addr(), cut_within(100_000..200_000, 7));
    scene
        .export(&proxy, &["--via", "replica"])
        .run()
        .expect_code(1);
    assert!(!scene.archive().exists());
    let cut = run(&["export", &proxy.url(), "--via", "replica"], b"").expect_code(1);
    run(&["verify"], &cut.stdout).expect_code(10);
}
