//! An import that is killed again and again, and resumed until it is done.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use redis::{Connection, cmd};
use redis_migrate_format::WriterOptions;
use redis_migrate_format::record::Record;

use crate::support::cluster::TestCluster;
use crate::support::dataset::now_ms;
use crate::support::proxy::{Direction, Proxy, Rules};
use crate::support::random::Random;
use crate::support::servers::{TestServer, Version, available, require};
use crate::support::tool::Tool;
use crate::support::toy::{Deed, Toy};
use crate::tools::archives::{Contents, archive, contents, deleted, string};

/// Records that may be in flight, and those of one frame.
const WINDOW: u64 = 8_000 + 1_000;

/// Many small keys; some come again, some are deleted later.
pub fn many(count: u64, seed: u64) -> Vec<Record> {
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

pub fn small_frames() -> WriterOptions {
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
pub fn read_all(client: &mut Connection) -> BTreeMap<Vec<u8>, Vec<u8>> {
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

pub struct Killed {
    kills: u64,
    restores: u64,
    last: String,
}

#[allow(
    clippy::too_many_arguments,
    reason = "each test varies another of them"
)]
/// Imports `file`, killing it `kills` times at random moments, and then lets it end.
pub fn import_with_kills(
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
    let pieces = crate::tools::archives::pieces(&bytes);
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
    assert!(done.last.contains("continuing with frame"), "{}", done.last);
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
        .expect_stderr("archives are different");
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

/// Keys of the imports that are interrupted once, each with a value of 8 kB.
const KEYS: u64 = 1_200;

/// 1,200 keys, each in its own frame; with `again`, every fourth comes a second time at the end,
/// and every tenth is deleted there.
fn large(again: bool) -> Vec<Record> {
    let mut random = Random::new(7);
    let mut value = |n: u64, which: &str| {
        let mut text = format!("{which} {n} ").into_bytes();
        text.extend(random.bytes(8_000));
        string((n % 3) as u32, format!("key:{n}").as_bytes(), &text)
    };
    let mut records: Vec<Record> = (0..KEYS).map(|n| value(n, "first")).collect();
    if again {
        records.extend((0..KEYS).step_by(4).map(|n| value(n, "second")));
        let gone = (0..KEYS).step_by(10);
        records.extend(gone.map(|n| deleted((n % 3) as u32, format!("key:{n}").as_bytes())));
    }
    records
}

/// An import through a proxy, whose server may be changed between two runs.
struct Interrupted {
    server: TestServer,
    proxy: Proxy,
    directory: tempfile::TempDir,
    /// User and password, with `@`.
    login: String,
}

impl Interrupted {
    fn new(server: TestServer, login: &str, records: &[Record]) -> Self {
        let directory = tempfile::tempdir().expect("tempdir");
        let options = WriterOptions {
            frame_target_bytes: 1,
            ..WriterOptions::default()
        };
        let bytes = archive(records, options);
        std::fs::write(directory.path().join("snap.rmz"), bytes).expect("written");
        let proxy = Proxy::plain(server.addr());
        Self {
            server,
            proxy,
            directory,
            login: login.to_owned(),
        }
    }

    fn tool(&self, flags: &[&str]) -> Tool {
        let resume = format!("--resume={}", self.directory.path().join("state").display());
        let url = format!("redis://{}127.0.0.1:{}", self.login, self.proxy.port());
        Tool::new(&["import", &url, &resume, "--json"])
            .args(flags)
            .arg(self.directory.path().join("snap.rmz"))
    }

    /// Runs it until so many bytes went to the server, and kills it there.
    fn interrupt(&self, bytes: u64, flags: &[&str]) {
        self.proxy.set_rules(Rules {
            to_server: Direction {
                stall_after: Some(bytes),
                ..Direction::default()
            },
            ..Rules::default()
        });
        let mut running = self.tool(flags).spawn();
        let before = self.proxy.bytes_to_server();
        let (mut seen, mut since) = (0, Instant::now());
        while seen < bytes || since.elapsed() < Duration::from_millis(200) {
            assert!(!running.has_ended(), "{}", running.wait().stderr);
            let now = self.proxy.bytes_to_server() - before;
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        running.kill();
        running.wait();
        self.proxy.cut_all();
        self.proxy.set_rules(Rules::default());
        assert!(self.directory.path().join("state").exists());
    }

    /// Runs it to its end; its words, and the last object.
    fn finish(&self, flags: &[&str]) -> (String, serde_json::Value) {
        let output = self.tool(flags).run().success();
        assert!(!self.directory.path().join("state").exists());
        let all = [
            output.stderr,
            String::from_utf8_lossy(&output.stdout).into_owned(),
        ]
        .concat();
        let objects = all
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let mut summaries =
            objects.filter(|object: &serde_json::Value| object["event"] == "summary");
        let summary = summaries.next();
        (all.clone(), summary.expect("a summary"))
    }

    /// Everything stands that the records say, and nothing else.
    fn expect(&self, records: &[Record]) {
        let contents = contents(records);
        for db in 0..3 {
            let due: BTreeMap<Vec<u8>, Vec<u8>> = contents
                .iter()
                .filter(|((of, _), _)| *of == db)
                .filter_map(|((_, key), value)| Some((key.clone(), value.as_ref()?[6..].to_vec())))
                .collect();
            let standing = read_all(&mut self.server.client_db(db));
            assert_eq!(standing.len(), due.len(), "database {db}");
            assert!(standing == due, "database {db}");
        }
    }
}

/// Interrupts an import, does something to its server, and lets it end: what stands is what the
/// records say. Its words and its last object.
fn after(
    what: impl Fn(&mut Interrupted),
    flags: &[&str],
    again: bool,
) -> (String, serde_json::Value) {
    let records = large(again);
    let mut import = Interrupted::new(TestServer::start(available()[0]), "", &records);
    import.interrupt(8_000_000, flags);
    what(&mut import);
    let (text, summary) = import.finish(flags);
    import.expect(&records);
    (text, summary)
}

#[test]
fn a_destination_that_stands_is_gone_on_with_at_once() {
    for flags in [
        &[][..],
        &["--on-conflict", "skip"],
        &["--on-conflict", "replace"],
    ] {
        let (text, summary) = after(|_| (), flags, true);
        assert!(text.contains("continuing with frame"), "{text}");
        assert!(text.contains("same process"), "{text}");
        let earlier = summary["earlier"]["records"].as_u64().expect("a count");
        let now = summary["sink"]["taken"].as_u64().expect("a count");
        assert!(earlier > 100, "{summary}");
        assert_eq!(earlier + now, large(true).len() as u64, "{summary}");
        let seen = summary["earlier"]["seen"].as_str().expect("words");
        assert!(seen.contains("keys that were checked are"), "{seen}");
    }
}

#[test]
fn a_destination_that_came_back_empty_is_filled_from_the_beginning() {
    for flags in [
        &[][..],
        &["--on-conflict", "skip"],
        &["--on-conflict", "replace"],
        &["--verify"],
    ] {
        for again in [false, true] {
            let (text, summary) = after(|import| import.server.restart(), flags, again);
            assert!(text.contains("starts again from the beginning"), "{text}");
            assert!(summary["earlier"].is_null(), "{summary}");
            assert_eq!(summary["sink"]["taken"], large(again).len(), "{summary}");
            let restored = summary["sink"]["restored"].as_u64();
            assert!(restored >= Some(KEYS), "{summary}");
        }
    }
}

#[test]
fn a_destination_that_was_flushed_is_noticed_by_the_keys_that_lack() {
    let (text, _) = after(
        |import| {
            cmd("FLUSHALL")
                .exec(&mut import.server.client())
                .expect("flushed")
        },
        &[],
        true,
    );
    assert!(text.contains("no longer exists"), "{text}");
    // One database of three.
    let (text, summary) = after(
        |import| {
            cmd("FLUSHDB")
                .exec(&mut import.server.client_db(1))
                .expect("flushed")
        },
        &[],
        true,
    );
    assert!(text.contains("of database 1"), "{text}");
    assert!(
        summary["sink"]["unchanged"].as_u64() > Some(100),
        "{summary}"
    );
}

/// A small database that was complete long before the interruption, and a large one behind it.
#[test]
fn a_database_that_went_away_is_noticed_though_it_was_not_the_last() {
    let mut random = Random::new(5);
    let small = (0..3_000).map(|n| (0, format!("small:{n}").into_bytes(), b"value".to_vec()));
    // Too large to be compared later: that it stands is looked at.
    let single = (0..1).map(|_| (5, b"single".to_vec(), vec![b'x'; 100_000]));
    let large = (0..1_200).map(|n| (3, format!("large:{n}").into_bytes(), random.bytes(8_000)));
    let all: Vec<(u32, Vec<u8>, Vec<u8>)> = small.chain(single).chain(large).collect();
    let records: Vec<Record> = all
        .iter()
        .map(|(db, key, value)| string(*db, key, value))
        .collect();
    // All of the small database is in one frame, with some of the large one.
    let frames = WriterOptions {
        frame_target_bytes: 1 << 20,
        ..WriterOptions::default()
    };
    for (of, away) in [
        (0, &["FLUSHDB"][..]),
        (0, &["SWAPDB", "0", "9"]),
        (5, &["FLUSHDB"]),
        (5, &["SWAPDB", "5", "9"]),
    ] {
        let import = Interrupted::new(TestServer::start(available()[0]), "", &[]);
        let file = import.directory.path().join("snap.rmz");
        std::fs::write(file, archive(&records, frames.clone())).expect("written");
        import.interrupt(6_000_000, &[]);
        let mut client = import.server.client_db(of);
        let size: u64 = cmd("DBSIZE").query(&mut client).expect("DBSIZE");
        assert_eq!(size, if of == 0 { 3_000 } else { 1 });
        let mut command = cmd(away[0]);
        command.arg(&away[1..]);
        command.exec(&mut client).expect("carried out");
        let (text, summary) = import.finish(&[]);
        assert!(text.contains("no longer exists"), "{text}");
        assert!(summary["earlier"].is_null(), "{summary}");
        for db in [0, 3, 5] {
            let due = all.iter().filter(|(of, ..)| *of == db);
            let due: BTreeMap<_, _> = due.map(|(_, k, v)| (k.clone(), v.clone())).collect();
            let standing = read_all(&mut import.server.client_db(db));
            assert!(
                standing == due,
                "{away:?}: database {db}: {}",
                standing.len()
            );
        }
    }
}

/// All that was noted has expired meanwhile: whether the rest stands cannot be seen, and is not
/// believed.
#[test]
fn where_every_key_that_was_noted_has_expired_nothing_is_believed() {
    let mut random = Random::new(11);
    let until_ms = now_ms() + 8_000;
    let mut records: Vec<Record> = (0..50)
        .map(|n| string(0, format!("stays:{n}").as_bytes(), b"value"))
        .collect();
    records.extend((0..2_000).map(|n| {
        let mut record = string(0, format!("passes:{n}").as_bytes(), &random.bytes(8_000));
        if let Record::Key(key) = &mut record {
            key.expire_at_ms = Some(until_ms);
        }
        record
    }));
    let frames = WriterOptions {
        frame_target_bytes: 1 << 20,
        ..WriterOptions::default()
    };
    let import = Interrupted::new(TestServer::start(available()[0]), "", &[]);
    let file = import.directory.path().join("snap.rmz");
    std::fs::write(file, archive(&records, frames)).expect("written");
    import.interrupt(8_000_000, &[]);
    assert!(now_ms() < until_ms, "it was to be interrupted before that");
    while now_ms() < until_ms + 100 {
        std::thread::sleep(Duration::from_millis(100));
    }
    let flush = cmd("FLUSHALL");
    flush.exec(&mut import.server.client()).expect("FLUSHALL");
    let (text, summary) = import.finish(&[]);
    assert!(text.contains("no key is left in database 0"), "{text}");
    assert!(summary["earlier"].is_null(), "{summary}");
    assert_eq!(read_all(&mut import.server.client()).len(), 50);
}

/// A key that was noted, and whose next record was carried out unheard, says nothing of what is lost.
#[test]
fn what_was_on_its_way_at_the_end_is_not_taken_for_a_loss() {
    let server = TestServer::start(available()[0]);
    let dies = Arc::new(AtomicBool::new(true));
    let is_dying = Arc::clone(&dies);
    let toy = Toy::start(server.addr(), move |words| {
        let is_later = words
            .iter()
            .any(|word| word.windows(5).any(|part| part == b"later"));
        match is_later && is_dying.load(SeqCst) {
            true => Deed::Cut(1),
            false => Deed::Pass,
        }
    });
    // Alone in its database: it is noted, whatever else is. A second one stays as it is.
    let mut records = vec![string(1, b"key", b"earlier"), string(1, b"other", b"value")];
    records.extend((0..300).map(|n| string(0, format!("key:{n}").as_bytes(), b"value")));
    records.insert(200, string(1, b"another", b"value"));
    records.push(string(1, b"key", b"later"));
    records.push(string(1, b"other", b"later"));
    let directory = tempfile::tempdir().expect("tempdir");
    let file = directory.path().join("snap.rmz");
    let frames = WriterOptions {
        frame_target_bytes: 1,
        ..WriterOptions::default()
    };
    std::fs::write(&file, archive(&records, frames)).expect("written");
    let resume = format!("--resume={}", directory.path().join("state").display());
    let run = || {
        Tool::new(&["import", &toy.url(), &resume, "--replace", "--retries=0"])
            .arg(&file)
            .run()
    };
    run().expect_code(1);
    let key: String = cmd("GET")
        .arg("key")
        .query(&mut server.client_db(1))
        .expect("GET");
    assert_eq!(key, "later", "it was carried out");
    dies.store(false, SeqCst);
    run().success().expect_stderr("continuing with frame");
    assert_eq!(read_all(&mut server.client()).len(), 300);
    let due = [("another", "value"), ("key", "later"), ("other", "later")];
    let due = due.map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()));
    assert_eq!(read_all(&mut server.client_db(1)), BTreeMap::from(due));
}

/// A database that holds nothing but a hash whose fields expire.
#[test]
fn a_database_of_expiring_fields_that_was_flushed_is_noticed() {
    let Some(version) = require(Version::Valkey91) else {
        return;
    };
    let source = TestServer::start(version);
    let mut client = source.client_db(1);
    cmd("HSET")
        .arg("hash")
        .arg("f")
        .arg("v")
        .exec(&mut client)
        .expect("set");
    let until_ms = 4_000_000_000_000_u64;
    let mut expire = cmd("HPEXPIREAT");
    expire
        .arg("hash")
        .arg(until_ms)
        .arg("FIELDS")
        .arg(1)
        .arg("f");
    expire.exec(&mut client).expect("expires");
    let mut random = Random::new(5);
    for n in 0..1_200 {
        let mut set = cmd("SET");
        set.arg(format!("key:{n}")).arg(random.bytes(8_000));
        set.exec(&mut source.client_db(2)).expect("set");
    }
    for login in ["", "few:pw@"] {
        let server = TestServer::builder(version)
            .user("default on nopass ~* +@all")
            .user("few on >pw ~* +@all -info")
            .start();
        let import = Interrupted::new(server, login, &[]);
        let file = import.directory.path().join("snap.rmz");
        let export = Tool::new(&["export", &source.url(), "-o"]).arg(file);
        export.run().success();
        import.interrupt(6_000_000, &[]);
        let mut client = import.server.client_db(1);
        let there = |client: &mut Connection| -> u64 {
            cmd("EXISTS").arg("hash").query(client).expect("EXISTS")
        };
        assert_eq!(there(&mut client), 1);
        cmd("FLUSHDB").exec(&mut client).expect("flushed");
        let (text, summary) = import.finish(&[]);
        assert!(text.contains("no longer exists"), "{text}");
        assert!(summary["earlier"].is_null(), "{summary}");
        assert_eq!(there(&mut client), 1);
    }
}

/// Its memory is one of the middle of the first run: neither nothing nor all.
#[test]
fn a_destination_that_loaded_an_older_snapshot_is_looked_at_again() {
    let records = large(true);
    for (login, user, flags) in [
        ("", "", &[][..]),
        ("", "", &["--on-conflict", "skip"]),
        ("few:pw@", "few on >pw ~* +@all -info", &[]),
        (
            "few:pw@",
            "few on >pw ~* +@all -info",
            &["--on-conflict", "skip"],
        ),
    ] {
        let mut builder = TestServer::builder(available()[0]);
        if !user.is_empty() {
            builder = builder.user("default on nopass ~* +@all").user(user);
        }
        let mut import = Interrupted::new(builder.start(), login, &records);
        import.interrupt(6_000_000, flags);
        cmd("SAVE")
            .exec(&mut import.server.client())
            .expect("saved");
        import.interrupt(5_500_000, flags);
        import.server.restart();
        let (text, summary) = import.finish(flags);
        assert!(text.contains("starts again from the beginning"), "{text}");
        import.expect(&records);
        assert!(
            summary["sink"]["unchanged"].as_u64() > Some(100),
            "{summary}"
        );
        assert_eq!(summary["sink"]["left_standing"], 0, "{summary}");
    }
}

/// Where nobody says who he is, the keys do.
#[test]
fn without_info_the_keys_tell_whether_it_is_the_same_memory() {
    let records = large(true);
    for is_flushed in [false, true] {
        let server = TestServer::builder(available()[0])
            .user("default on nopass ~* +@all")
            .user("few on >pw ~* +@all -info")
            .start();
        let import = Interrupted::new(server, "few:pw@", &records);
        import.interrupt(8_000_000, &[]);
        if is_flushed {
            cmd("FLUSHALL")
                .exec(&mut import.server.client())
                .expect("flushed");
        }
        let (text, summary) = import.finish(&[]);
        import.expect(&records);
        assert_eq!(summary["earlier"].is_null(), is_flushed, "{text}");
        assert_eq!(
            text.contains("does not say which process"),
            !is_flushed,
            "{text}"
        );
    }
}

#[test]
fn verify_after_a_resume_proves_all_that_the_archive_holds() {
    for (flags, policy) in [("fail", "fail"), ("skip", "skip"), ("replace", "replace")]
        .map(|(policy, name)| (["--verify", "--on-conflict", policy], name))
    {
        let (_, summary) = after(|_| (), &flags, true);
        let verified = &summary["verified"];
        assert_eq!(verified["compared"], verified["equal"], "{policy}");
        // Every key, and those that were deleted are known to be gone.
        let standing = KEYS - KEYS / 10;
        assert!(
            verified["compared"].as_u64() >= Some(standing),
            "{policy} {verified}"
        );
    }
    // A key that was lost between the runs is written again, one that was changed is named.
    let records = large(false);
    let import = Interrupted::new(TestServer::start(available()[0]), "", &records);
    import.interrupt(8_000_000, &["--verify"]);
    let mut client = import.server.client();
    cmd("DEL").arg("key:3").exec(&mut client).expect("deleted");
    let () = cmd("SET")
        .arg("key:6")
        .arg("other")
        .query(&mut client)
        .expect("set");
    let output = import.tool(&["--verify"]).run().expect_code(3);
    assert!(
        [
            output.stderr,
            String::from_utf8_lossy(&output.stdout).into_owned()
        ]
        .concat()
        .contains("key:6")
    );
    let stands: bool = cmd("EXISTS")
        .arg("key:3")
        .query(&mut client)
        .expect("EXISTS");
    assert!(stands);
}

/// Conflicts that the killed run had held are named by the run that goes on.
#[test]
fn conflicts_of_the_killed_run_are_named_by_the_next() {
    let records = large(true);
    let import = Interrupted::new(TestServer::start(available()[0]), "", &records);
    for n in [1_u64, 2, 3] {
        let mut client = import.server.client_db((n % 3) as u32);
        let () = cmd("SET")
            .arg(format!("key:{n}"))
            .arg("stranger")
            .query(&mut client)
            .expect("set");
    }
    import.interrupt(8_000_000, &[]);
    let output = import.tool(&[]).run().expect_code(3);
    let all = [
        output.stderr,
        String::from_utf8_lossy(&output.stdout).into_owned(),
    ]
    .concat();
    assert!(all.contains("continuing with frame"), "{all}");
    for n in [1, 2, 3] {
        assert!(all.contains(&format!("\"key:{n}\"")), "{all}");
    }
}

/// Keys that the stopped run could not write are named in the end, all of them.
#[test]
fn what_the_stopped_run_refused_is_named_by_the_run_that_goes_on() {
    let directory = tempfile::tempdir().expect("tempdir");
    let at = |name: &str| directory.path().join(name);
    let is_large = |n: u32| n % 100 == 7;
    let records: Vec<Record> = (0..30_000)
        .map(|n| {
            let value = "v".repeat(if is_large(n) { 2_000 } else { 20 });
            string(0, format!("key:{n}").as_bytes(), value.as_bytes())
        })
        .collect();
    std::fs::write(at("a.rmz"), archive(&records, small_frames())).expect("written");
    let server = TestServer::start(available()[0]);
    let import = |flags: &[&str]| {
        Tool::new(&["import", &server.url(), "a.rmz", "--resume=state"])
            .args(&["--max-value", "1KiB", "--errors-to", "errors"])
            .args(flags)
            .current_dir(directory.path())
            .run()
    };
    import(&["--max-errors", "200"])
        .expect_code(3)
        .expect_stderr("import stopped");
    let named = || -> std::collections::BTreeSet<String> {
        let text = std::fs::read_to_string(at("errors")).expect("a file of errors");
        let lines = text.lines().map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            line["key"].as_str().expect("a key").to_owned()
        });
        lines.collect()
    };
    assert!(named().len() >= 200);
    import(&[])
        .expect_code(3)
        .expect_stderr("continuing with frame");
    let all = (0..30_000).filter(|n| is_large(*n));
    assert_eq!(named(), all.map(|n| format!("key:{n}")).collect());
}

#[test]
fn a_state_is_a_regular_file_or_none() {
    let directory = tempfile::tempdir().expect("tempdir");
    let file = directory.path().join("snap.rmz");
    std::fs::write(&file, archive(&many(100, 1), small_frames())).expect("written");
    let server = TestServer::start(available()[0]);
    let fifo = directory.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.expect("mkfifo runs").success());
    for place in [&*fifo, directory.path(), Path::new("/dev/null")] {
        Tool::new(&[
            "import",
            &server.url(),
            &format!("--resume={}", place.display()),
        ])
        .arg(&file)
        .run()
        .expect_code(2)
        .expect_stderr("regular file");
    }
    let keys: u64 = cmd("DBSIZE").query(&mut server.client()).expect("DBSIZE");
    assert_eq!(keys, 0);
}

/// A state that an older version left is refused before anything is written, and stays for it.
#[test]
fn a_state_of_an_older_version_is_refused_with_what_to_do() {
    let directory = tempfile::tempdir().expect("tempdir");
    let kept = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/states"));
    let state = directory.path().join("state");
    std::fs::copy(kept.join("import-v2.state"), &state).expect("copied");
    let before = std::fs::read(&state).expect("there");
    let server = TestServer::start(available()[0]);
    let resume = format!("--resume={}", state.display());
    let arguments = ["import", &server.url(), "--on-conflict", "skip", &resume];
    let import = || Tool::new(&arguments).arg(kept.join("import-v2.rmz")).run();
    import()
        .expect_code(2)
        .expect_stderr("left by an older version")
        .expect_stderr("finish the import with that version, or remove the file");
    let keys = || -> u64 { cmd("DBSIZE").query(&mut server.client()).expect("DBSIZE") };
    assert_eq!((keys(), std::fs::read(&state).expect("there")), (0, before));
    std::fs::remove_file(&state).expect("removed");
    import().success();
    assert_eq!((keys(), state.exists()), (300, false));
}
