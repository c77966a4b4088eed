//! An import that is killed again and again, and resumed until it is done.

use std::collections::BTreeMap;
use std::path::Path;

use redis::{Connection, cmd};
use redis_migrate_format::WriterOptions;
use redis_migrate_format::record::Record;

use crate::archives::{Contents, archive, contents, deleted, string};
use crate::support::cluster::TestCluster;
use crate::support::random::Random;
use crate::support::servers::{TestServer, available};
use crate::support::tool::Tool;

/// Records that may be in flight, and those of one frame.
const WINDOW: u64 = 8_000 + 1_000;

/// Many small keys; some come again, some are deleted later.
fn many(count: u64, seed: u64) -> Vec<Record> {
    let mut random = Random::new(seed);
    let mut records = Vec::new();
    for n in 0..count {
        // Often near, within the open window, and sometimes far.
        let back = match random.below(40) {
            0 => random.below(n.min(3_000) + 1),
            1 => random.below(n + 1),
            _ => 0,
        };
        let key = format!("key:{}", n - back).into_bytes();
        records.push(match random.below(60) {
            0 => deleted(0, &key),
            _ => string(
                0,
                &key,
                format!("value {n} {:x}", random.next_u64()).as_bytes(),
            ),
        });
    }
    records
}

fn small_frames() -> WriterOptions {
    WriterOptions {
        frame_target_bytes: 40_000,
        ..WriterOptions::default()
    }
}

/// How often RESTORE was called.
fn restores(client: &mut Connection) -> u64 {
    let info: String = cmd("INFO").arg("commandstats").query(client).expect("INFO");
    info.lines()
        .find_map(|line| line.strip_prefix("cmdstat_restore:calls="))
        .and_then(|rest| rest.split(',').next())
        .map_or(0, |calls| calls.parse().expect("a number"))
}

/// Every string key of database 0.
fn read_all(client: &mut Connection) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut cursor = 0_u64;
    loop {
        let (next, keys): (u64, Vec<Vec<u8>>) = cmd("SCAN")
            .arg(cursor)
            .arg("COUNT")
            .arg(5_000)
            .query(client)
            .expect("SCAN");
        if !keys.is_empty() {
            // Not MGET: a cluster's node takes that for keys of one slot only.
            let mut pipe = redis::pipe();
            for key in &keys {
                pipe.cmd("GET").arg(key);
            }
            let values: Vec<Vec<u8>> = pipe.query(client).expect("GET");
            all.extend(keys.into_iter().zip(values));
        }
        cursor = next;
        if cursor == 0 {
            return all;
        }
    }
}

fn due(contents: &Contents) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let standing = contents.iter().filter_map(|((_, key), value)| {
        // Type byte and length are not part of the text.
        Some((key.clone(), value.as_ref()?[6..].to_vec()))
    });
    standing.collect()
}

struct Killed {
    kills: u64,
    restores: u64,
    last: String,
}

#[allow(
    clippy::too_many_arguments,
    reason = "each test varies another of them"
)]
/// Imports `file`, killing it `kills` times at random moments, and then lets it end.
fn import_with_kills(
    url: &str,
    clients: &mut [Connection],
    file: &Path,
    state: &Path,
    flags: &[&str],
    kills: u64,
    by_pipe: bool,
    random: &mut Random,
) -> Killed {
    let mut restores = || clients.iter_mut().map(restores).sum::<u64>();
    let before = restores();
    let records = records_of(file);
    let mut last = None;
    let resume = format!("--resume={}", state.display());
    let mut arguments = vec!["import", url, &resume];
    arguments.extend_from_slice(flags);
    let tool = || match by_pipe {
        true => Tool::new(&arguments).stdin_file(file).arg("-"),
        false => Tool::new(&arguments).arg(file),
    };
    let mut killed = 0;
    while killed < kills {
        let start = restores();
        let left = records.saturating_sub(start - before).max(4_000);
        let until = start + random.below(2 * left / (kills - killed + 1));
        let mut running = tool().spawn();
        loop {
            let calls = restores();
            if calls >= until || running.has_ended() {
                break;
            }
        }
        if running.has_ended() {
            // Between two looks at the server it may have come to its end.
            last = Some(running.wait().success());
            break;
        }
        running.kill();
        running.wait();
        killed += 1;
        assert!(state.exists() || restores() == before);
    }
    assert!(
        2 * killed >= kills,
        "it was done before it was killed {kills} times: {killed}"
    );
    let last = last.unwrap_or_else(|| tool().run().success());
    assert!(!state.exists(), "a finished run removes its state");
    Killed {
        kills: killed,
        restores: restores() - before,
        last: last.stderr,
    }
}

/// Records in an archive.
fn records_of(file: &Path) -> u64 {
    let bytes = std::fs::read(file).expect("readable");
    let pieces = crate::archives::pieces(&bytes);
    pieces.iter().map(|piece| piece.records.len() as u64).sum()
}

#[test]
fn killed_fifty_times_it_ends_as_if_it_was_never_killed() {
    let directory = tempfile::tempdir().expect("tempdir");
    let (file, state) = (
        directory.path().join("snap.rmz"),
        directory.path().join("state"),
    );
    let records = many(300_000, 11);
    std::fs::write(&file, archive(&records, small_frames())).expect("written");
    let contents = due(&contents(&records));
    let mut random = Random::new(50);
    let version = available()[0];
    let baseline = {
        let server = TestServer::start(version);
        Tool::new(&["import", &server.url()])
            .arg(&file)
            .run()
            .success();
        assert_eq!(read_all(&mut server.client()), contents);
        restores(&mut server.client())
    };
    let server = TestServer::start(version);
    let done = import_with_kills(
        &server.url(),
        &mut [server.client()],
        &file,
        &state,
        &[],
        50,
        false,
        &mut random,
    );
    assert!(read_all(&mut server.client()) == contents, "not the same");
    let again = done.restores.saturating_sub(baseline);
    println!(
        "{} kills: {} RESTOREs where {baseline} are needed",
        done.kills, done.restores
    );
    assert!(again <= done.kills * WINDOW, "{again}");
    assert!(done.last.contains("going on with frame"), "{}", done.last);
}

#[test]
fn under_skip_and_replace_and_from_a_pipe_too() {
    let directory = tempfile::tempdir().expect("tempdir");
    let (file, state) = (
        directory.path().join("snap.rmz"),
        directory.path().join("state"),
    );
    let records = many(100_000, 12);
    std::fs::write(&file, archive(&records, small_frames())).expect("written");
    let told = contents(&records);
    let whole = due(&told);
    let version = available()[0];
    let mut random = Random::new(51);
    for (policy, by_pipe) in [("skip", false), ("replace", false), ("fail", true)] {
        let server = TestServer::start(version);
        let mut contents = whole.clone();
        if policy != "fail" {
            // Strangers, which stand before.
            for n in (0..100_000).step_by(997) {
                let key = format!("key:{n}");
                let () = cmd("SET")
                    .arg(&key)
                    .arg("stranger")
                    .query(&mut server.client())
                    .expect("SET");
                if policy == "skip" || !told.contains_key(&(0, key.clone().into_bytes())) {
                    contents.insert(key.into_bytes(), b"stranger".to_vec());
                }
            }
        }
        let flags = ["--on-conflict", policy];
        import_with_kills(
            &server.url(),
            &mut [server.client()],
            &file,
            &state,
            &flags,
            10,
            by_pipe,
            &mut random,
        );
        let standing = read_all(&mut server.client());
        assert!(standing == contents, "{policy}");
    }
}

#[test]
fn a_state_is_only_for_its_own_import() {
    let directory = tempfile::tempdir().expect("tempdir");
    let (file, other, state) = (
        directory.path().join("snap.rmz"),
        directory.path().join("other.rmz"),
        directory.path().join("state"),
    );
    std::fs::write(&file, archive(&many(200_000, 1), small_frames())).expect("written");
    std::fs::write(&other, archive(&many(1_000, 2), small_frames())).expect("written");
    let version = available()[0];
    let server = TestServer::start(version);
    let resume = format!("--resume={}", state.display());
    let url = server.url();
    let mut running = Tool::new(&["import", &url, &resume]).arg(&file).spawn();
    while restores(&mut server.client()) < 20_000 && !running.has_ended() {}
    running.kill();
    running.wait();
    assert!(state.exists(), "killed on its way");
    let import = |flags: &[&str], file: &Path| {
        let mut arguments = vec!["import", &url, &resume];
        arguments.extend_from_slice(flags);
        Tool::new(&arguments).arg(file).run()
    };
    import(&[], &other)
        .expect_code(2)
        .expect_stderr("archives are others");
    import(&["--match", "a*"], &file)
        .expect_code(2)
        .expect_stderr("arguments");
    import(&["--map-db", "0:1"], &file).expect_code(2);
    std::fs::write(directory.path().join("foreign"), "notes").expect("written");
    let foreign = format!("--resume={}", directory.path().join("foreign").display());
    Tool::new(&["import", &url, &foreign])
        .arg(&file)
        .run()
        .expect_code(2)
        .expect_stderr("not the state of an import");
    import(&[], &file).success();
    assert!(!state.exists());
}

#[test]
fn without_a_name_the_state_is_among_the_users_own() {
    let directory = tempfile::tempdir().expect("tempdir");
    let file = directory.path().join("snap.rmz");
    std::fs::write(&file, archive(&many(1_000, 1), small_frames())).expect("written");
    let server = TestServer::start(available()[0]);
    let home = directory.path().join("states");
    Tool::new(&["import", &server.url(), "--resume"])
        .arg(&file)
        .env("XDG_STATE_HOME", home.to_str().expect("text"))
        .run()
        .success();
    let states = std::fs::read_dir(home.join("redis-migrate")).expect("the directory");
    assert_eq!(states.count(), 0);
}

#[test]
fn a_cluster_is_resumed_too_and_all_its_primaries_work_at_once() {
    let directory = tempfile::tempdir().expect("tempdir");
    let (file, state) = (
        directory.path().join("snap.rmz"),
        directory.path().join("state"),
    );
    let records = many(100_000, 13);
    std::fs::write(&file, archive(&records, small_frames())).expect("written");
    let contents = due(&contents(&records));
    let cluster = TestCluster::start(available()[0], 3, 0);
    let mut clients = cluster.client().nodes;
    let standing = |clients: &mut [Connection]| {
        let mut all = BTreeMap::new();
        clients
            .iter_mut()
            .for_each(|client| all.extend(read_all(client)));
        all
    };
    let mut random = Random::new(52);
    import_with_kills(
        &cluster.url(),
        &mut clients,
        &file,
        &state,
        &["--jobs", "2"],
        10,
        false,
        &mut random,
    );
    assert!(standing(&mut clients) == contents, "not the same");
    // Once more without kills: all primaries have begun before any of them is done.
    for client in &mut clients {
        let () = cmd("FLUSHALL").query(client).expect("flushed");
    }
    let before: Vec<u64> = clients.iter_mut().map(restores).collect();
    let mut running = Tool::new(&["import", &cluster.url(), "--jobs", "2"])
        .arg(&file)
        .spawn();
    let mut samples: Vec<Vec<u64>> = Vec::new();
    while !running.has_ended() {
        samples.push(clients.iter_mut().map(restores).collect());
    }
    running.wait().success();
    let after: Vec<u64> = clients.iter_mut().map(restores).collect();
    let at_once = samples.iter().any(|sample| {
        let mut nodes = sample.iter().zip(&before).zip(&after);
        nodes.all(|((now, before), after)| before < now && now < after)
    });
    assert!(at_once, "{samples:?}");
    assert!(standing(&mut clients) == contents, "not the same");
}
