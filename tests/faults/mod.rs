//! What goes wrong in mid-run: killed, interrupted, cut off, a full disk. Never an archive that
//! looks complete, never a success that is none, and a second run that ends well.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::equality::assert_equal;
use crate::support::many::fill_many;
use crate::support::random::Random;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, Tool, run};

const KEYS: u64 = 60_000;

fn source() -> Option<TestServer> {
    let server = TestServer::start(require(Version::Redis70)?);
    fill_many(&mut server.client(), KEYS, 1);
    Some(server)
}

fn verify(archive: &[u8]) -> Output {
    run(&["verify"], archive)
}

fn keys(server: &TestServer) -> u64 {
    redis::cmd("DBSIZE").query(&mut server.client()).unwrap()
}

/// Twenty times at random moments: what is on stdout is never complete, the file of `-o` is never
/// there, and the next run is as good as any.
#[test]
fn a_killed_export_never_looks_complete() {
    let Some(source) = source() else { return };
    let whole = run(&["export", &source.url()], b"").success();
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::new(42);
    let mut killed = 0;
    for round in 0..20 {
        let file = dir.path().join(format!("snap{round}.rmz"));
        let (to_file, stdout) = (round % 2 == 0, dir.path().join("stdout"));
        let tool = match to_file {
            true => Tool::new(&["export", &source.url(), "-o"]).arg(&file),
            false => Tool::new(&["export", &source.url()]).stdout_file(&stdout),
        };
        let mut running = tool.spawn();
        let life = random.below(whole.elapsed.as_millis() as u64);
        std::thread::sleep(Duration::from_millis(life));
        running.kill();
        let output = running.wait();
        if output.code() == Some(0) {
            continue;
        }
        killed += 1;
        // Killed between its last byte and its end it is complete, and then it must be.
        let left = std::fs::read(if to_file { &file } else { &stdout }).unwrap_or_default();
        if verify(&left).code() == Some(0) {
            let listed = run(&["list"], &left).success();
            let lines = listed.stdout.iter().filter(|&&byte| byte == b'\n').count() as u64;
            assert!(
                lines >= KEYS,
                "round {round}, after {life} ms: {lines} keys"
            );
            continue;
        }
        assert!(!to_file || !file.exists(), "round {round}, after {life} ms");
        verify(&left).expect_code(10);
    }
    assert!(killed >= 10, "only {killed} of 20 runs were killed in time");
    let again = run(&["export", &source.url()], b"").success();
    verify(&again.stdout).success();
}

#[test]
fn a_killed_import_is_finished_by_the_next_one() {
    let Some(source) = source() else { return };
    let destination = TestServer::start(source.version());
    let archive = run(&["export", &source.url()], b"").success().stdout;
    let started = Instant::now();
    run(&["import", &destination.url()], &archive).success();
    let whole_ms = started.elapsed().as_millis() as u64;
    let mut random = Random::new(43);
    for round in 0..20 {
        redis::cmd("FLUSHALL")
            .exec(&mut destination.client())
            .unwrap();
        let policy = ["skip", "replace", "fail"][round % 3];
        let mut running = Tool::new(&["import", &destination.url(), "--on-conflict", policy])
            .stdin_bytes(archive.clone())
            .spawn();
        std::thread::sleep(Duration::from_millis(random.below(whole_ms)));
        running.kill();
        running.wait();
        // Under `fail` too: what stands there already is equal, which is no conflict.
        run(
            &["import", &destination.url(), "--on-conflict", policy],
            &archive,
        )
        .success();
        assert_eq!(keys(&destination), KEYS, "round {round}");
    }
    assert_equal(&mut source.client(), &mut destination.client());
}

#[test]
fn an_interrupted_export_says_so_and_leaves_no_complete_archive() {
    let Some(source) = source() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("snap.rmz");
    for signal in ["INT", "TERM"] {
        // A reader that does not read keeps the export from ending before the signal.
        let mut piped = Tool::new(&["export", &source.url()]).stdout_piped().spawn();
        let mut stdout = piped.stdout();
        let mut begin = [0u8; 16];
        stdout.read_exact(&mut begin).unwrap();
        piped.signal(signal);
        std::thread::sleep(Duration::from_millis(200));
        let mut rest = begin.to_vec();
        stdout.read_to_end(&mut rest).unwrap();
        let output = piped.wait();
        assert_eq!(output.code(), Some(130), "{}", output.stderr);
        verify(&rest).expect_code(10).expect_stderr("interrupted");
    }
    let mut to_file = Tool::new(&["export", &source.url(), "--scan-count", "1", "-o"])
        .arg(&file)
        .spawn();
    std::thread::sleep(Duration::from_millis(300));
    to_file.signal("INT");
    to_file.wait().expect_code(130);
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        0,
        "no temporary file is left"
    );
}

#[test]
fn a_second_interrupt_ends_at_once() {
    let Some(source) = source() else { return };
    let mut running = Tool::new(&["export", &source.url()]).stdout_piped().spawn();
    let mut stdout = running.stdout();
    let mut begin = [0u8; 16];
    stdout.read_exact(&mut begin).unwrap();
    // Blocked on a pipe that nobody reads: only the second signal can end it.
    std::thread::sleep(Duration::from_millis(300));
    running.signal("INT");
    std::thread::sleep(Duration::from_millis(300));
    running.signal("INT");
    running.wait().expect_code(130);
}

#[test]
fn an_interrupted_import_says_what_it_applied() {
    let Some(source) = source() else { return };
    let destination = TestServer::start(source.version());
    let archive = run(&["export", &source.url()], b"").success().stdout;
    let mut running = Tool::new(&["import", &destination.url()])
        .stdin_piped()
        .spawn();
    let mut stdin = running.stdin();
    stdin.write_all(&archive[..archive.len() / 2]).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    running.signal("INT");
    // The signal is seen between two frames: one more has to come.
    let _ = stdin.write_all(&archive[archive.len() / 2..]);
    drop(stdin);
    let output = running.wait().expect_code(130);
    assert!(
        keys(&destination) > 0 && keys(&destination) < KEYS,
        "{}",
        output.stderr
    );
    assert!(output.stderr.contains("restored"), "{}", output.stderr);
}

/// Cut at many places, most of them in the middle of things: exit 10, and how many keys were
/// applied, which is how many there are.
#[test]
fn an_archive_cut_anywhere_is_exit_10_and_says_how_many_keys_were_applied() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    fill_many(&mut source.client(), 20_000, 2);
    let archive = run(&["export", &source.url()], b"").success().stdout;
    let mut random = Random::new(44);
    let mut cuts: Vec<usize> = (0..40)
        .map(|_| random.below(archive.len() as u64) as usize)
        .collect();
    cuts.extend((0..60).step_by(5));
    cuts.extend((1..60).step_by(5).map(|from_end| archive.len() - from_end));
    for cut in cuts {
        redis::cmd("FLUSHALL")
            .exec(&mut destination.client())
            .unwrap();
        let output =
            run(&["import", &destination.url(), "--json"], &archive[..cut]).expect_code(10);
        let summary: serde_json::Value = output.summary();
        let applied = summary["sink"]["restored"].as_u64().unwrap_or(0);
        assert_eq!(applied, keys(&destination), "cut at {cut}: {summary}");
    }
}

#[test]
fn a_reader_that_dies_fails_the_export() {
    let Some(source) = source() else { return };
    let mut running = Tool::new(&["export", &source.url()]).stdout_piped().spawn();
    let mut stdout = running.stdout();
    let mut begin = vec![0u8; 1000];
    stdout.read_exact(&mut begin).unwrap();
    drop(stdout);
    let output = running.wait();
    assert_eq!(output.code(), Some(1), "{}", output.stderr);
    assert!(
        output.stderr.to_lowercase().contains("broken pipe"),
        "{}",
        output.stderr
    );
}

#[test]
fn a_full_disk_fails_the_export() {
    let Some(source) = source() else { return };
    if !Path::new("/dev/full").exists() {
        crate::support::servers::skipped("a_full_disk_fails_the_export: there is no /dev/full");
        return;
    }
    let output = Tool::new(&["export", &source.url()])
        .stdout_file(Path::new("/dev/full"))
        .run();
    assert_eq!(output.code(), Some(1), "{}", output.stderr);
    assert!(output.stderr.contains("No space left"), "{}", output.stderr);
    // A small archive is only written when it is flushed.
    let empty = TestServer::start(source.version());
    Tool::new(&["export", &empty.url()])
        .stdout_file(Path::new("/dev/full"))
        .run()
        .expect_code(1);
}

#[test]
fn a_source_that_dies_fails_the_export_and_the_archive_says_why() {
    let Some(mut source) = source() else { return };
    let mut running = Tool::new(&["export", &source.url()]).stdout_piped().spawn();
    let mut stdout = running.stdout();
    let mut archive = vec![0u8; 16];
    stdout.read_exact(&mut archive).unwrap();
    source.kill();
    stdout.read_to_end(&mut archive).unwrap();
    let output = running.wait();
    assert_eq!(output.code(), Some(12), "{}", output.stderr);
    assert!(output.stderr.contains("lost while"), "{}", output.stderr);
    verify(&archive).expect_code(10);
}

#[test]
fn a_destination_that_dies_fails_the_import_and_says_what_is_known() {
    let Some(source) = source() else { return };
    let mut destination = TestServer::start(source.version());
    let archive = run(&["export", &source.url()], b"").success().stdout;
    let mut running = Tool::new(&["import", &destination.url()])
        .stdin_piped()
        .spawn();
    let mut stdin = running.stdin();
    stdin.write_all(&archive[..archive.len() / 2]).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    destination.kill();
    let _ = stdin.write_all(&archive[archive.len() / 2..]);
    drop(stdin);
    let output = running.wait();
    assert_eq!(output.code(), Some(1), "{}", output.stderr);
    assert!(output.stderr.contains("restored"), "{}", output.stderr);
}

/// Damage near the end: what comes before it is applied, unless the whole archive was to be checked
/// first.
#[test]
fn verify_first_applies_nothing_of_a_damaged_archive() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    fill_many(&mut source.client(), 20_000, 3);
    let mut archive = run(&["export", &source.url()], b"").success().stdout;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("snap.rmz");
    let import = |flags: &[&str]| {
        Tool::new(&[&["import", &destination.url()], flags].concat())
            .arg(&file)
            .run()
    };
    std::fs::write(&file, &archive).unwrap();
    import(&["--verify-first"]).success();
    assert_eq!(keys(&destination), 20_000);
    redis::cmd("FLUSHALL")
        .exec(&mut destination.client())
        .unwrap();
    let near_end = archive.len() - 600;
    archive[near_end] ^= 1;
    std::fs::write(&file, &archive).unwrap();
    import(&["--verify-first"]).expect_code(10);
    assert_eq!(keys(&destination), 0);
    import(&[]).expect_code(10);
    assert!(keys(&destination) > 0);
    // Twice through a pipe is not to be had.
    run(&["import", &destination.url(), "--verify-first"], &archive).expect_code(2);
}
