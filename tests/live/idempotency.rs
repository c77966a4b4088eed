//! Streams of Redis 8.6, which remember the ids that producers give to entries (`XADD … IDMP`): to
//! every other version and back.

use std::time::{Duration, Instant};

use redis::{Commands as _, Connection, Value};
use redis_migrate::record::Family;
use redis_migrate_payload::payload::accept::{Accepts, Plan, plan_value};
use redis_migrate_payload::payload::{self, StreamId};
use serde_json::Value as Json;

use crate::support::dataset::{command, now_ms};
use crate::support::equality::{Options, assert_equal, differences};
use crate::support::random::Random;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, run};

const STREAMS: u64 = 300;
const SEED: u64 = 860_003;

/// Sends commands together. Some of them make no sense to the stream as it is, and are refused.
struct Batch {
    pipe: Vec<u8>,
    count: usize,
}

impl Batch {
    fn add(&mut self, parts: &[&[u8]]) {
        command(&mut self.pipe, parts);
        self.count += 1;
    }

    fn send(&mut self, client: &mut Connection) -> Vec<Value> {
        use redis::ConnectionLike as _;
        let replies = client.req_packed_commands(&self.pipe, 0, self.count);
        (self.pipe, self.count) = (Vec::new(), 0);
        replies.expect("the server answers")
    }
}

/// A stream that is being made.
struct Making {
    key: Vec<u8>,
    /// What the ids of its entries count from. An id that is remembered ages by the time in its
    /// entry's id: those of 1970 are forgotten at once.
    base_ms: u64,
    /// How many entries were added by hand.
    count: u64,
}

impl Making {
    fn id(&self, n: u64) -> Vec<u8> {
        format!("{}-1", self.base_ms + n * 10).into_bytes()
    }

    /// The id of any entry, there or gone.
    fn any_id(&self, random: &mut Random) -> Vec<u8> {
        self.id(random.between(1, self.count.max(1)))
    }
}

/// Entries: by producers, by hand, few and many, small and large, some of them gone again.
fn entries(batch: &mut Batch, making: &mut Making, random: &mut Random) {
    making.count = match random.below(10) {
        0 => 0,
        1..=6 => random.between(1, 12),
        7 | 8 => random.between(20, 60),
        _ => random.between(150, 260),
    };
    let (making, key, count) = (&*making, &*making.key, making.count);
    let large = random.chance(15);
    for n in 1..=count {
        let value = match large && random.chance(20) {
            true => random.bytes(3_000),
            false => random.below(1_000_000).to_string().into_bytes(),
        };
        let at = making.id(n);
        let mut add = vec![&b"XADD"[..], key, &at, b"n", &value];
        if random.chance(30) {
            add.extend([&b"more"[..], b"x"]);
        }
        batch.add(&add);
    }
    if random.chance(40) {
        for _ in 0..=count / 3 {
            batch.add(&[b"XDEL", key, &making.any_id(random)]);
        }
    }
    if random.chance(20) {
        let keep = random.below(count + 1).to_string();
        batch.add(&[b"XTRIM", key, b"MAXLEN", keep.as_bytes()]);
    }
    if count == 0 {
        // One that only a group made, or that lost its one entry.
        match random.chance(50) {
            true => batch.add(&[b"XGROUP", b"CREATE", key, b"first", b"$", b"MKSTREAM"]),
            false => {
                batch.add(&[b"XADD", key, b"5-5", b"f", b"v"]);
                batch.add(&[b"XDEL", key, b"5-5"]);
            }
        }
    }
}

/// What is remembered of producers.
fn producers(batch: &mut Batch, making: &Making, random: &mut Random) {
    let key = &*making.key;
    if random.chance(50) {
        return;
    }
    // Nothing is forgotten while the test runs.
    let duration = random.between(3_600, 86_400).to_string();
    let most = random.between(1, 10_000).to_string();
    let mut set = vec![&b"XCFGSET"[..], key, b"IDMP-DURATION", duration.as_bytes()];
    if random.chance(80) {
        set.extend([&b"IDMP-MAXSIZE"[..], most.as_bytes()]);
    }
    batch.add(&set);
    for _ in 0..random.below(4) {
        let producer = match random.below(4) {
            0 => b"orders".to_vec(),
            1 => b"\xff\x00".to_vec(),
            2 => vec![b'p'; 80],
            _ => random.below(100).to_string().into_bytes(),
        };
        for n in 0..random.below(12) {
            let iid = match random.chance(30) {
                true => n.to_string().into_bytes(),
                false => format!("id {n}").into_bytes(),
            };
            let at = making.any_id(random);
            batch.add(&[b"XIDMPRECORD", key, &producer, &iid, &at]);
        }
    }
    if random.chance(30) {
        for _ in 0..2 {
            batch.add(&[b"XADD", key, b"IDMP", b"now", b"7", b"*", b"f", b"v"]);
            batch.add(&[b"XADD", key, b"IDMPAUTO", b"auto", b"*", b"f", b"w"]);
        }
    }
    if random.chance(10) {
        batch.add(&[b"XDEL", key, &making.any_id(random)]);
    }
}

/// Groups, consumers and what is pending for them.
fn groups(batch: &mut Batch, making: &Making, random: &mut Random) {
    let key = &*making.key;
    for group in 0..random.below(4) {
        let group = format!("g{group}").into_bytes();
        let from = match random.below(4) {
            0 => b"$".to_vec(),
            1 => making.any_id(random),
            _ => b"0".to_vec(),
        };
        let mut create = vec![&b"XGROUP"[..], b"CREATE", key, &group, &from];
        // More than were added can be set by RESTORE alone: XGROUP makes less of it.
        if from == b"0" && random.chance(30) {
            create.extend([&b"ENTRIESREAD"[..], b"0"]);
        }
        batch.add(&create);
        for consumer in 0..random.below(4) {
            let consumer = format!("c{consumer}").into_bytes();
            batch.add(&[b"XGROUP", b"CREATECONSUMER", key, &group, &consumer]);
            let some = random.between(1, 30).to_string();
            let read = [
                &b"XREADGROUP"[..],
                b"GROUP",
                &group,
                &consumer,
                b"COUNT",
                some.as_bytes(),
                b"STREAMS",
                key,
                b">",
            ];
            if random.chance(75) {
                batch.add(&read);
            }
            for _ in 0..random.below(5) {
                let at = making.any_id(random);
                match random.below(4) {
                    0 => batch.add(&[b"XACK", key, &group, &at]),
                    1 => batch.add(&[b"XDEL", key, &at]),
                    2 => batch.add(&[b"XCLAIM", key, &group, &consumer, b"0", &at]),
                    _ => batch.add(&[b"XGROUP", b"SETID", key, &group, &at]),
                }
            }
        }
    }
    if random.chance(10) {
        let last = random.between(1 << 41, 1 << 42).to_string();
        let added = (making.count + random.below(500)).to_string();
        batch.add(&[
            b"XSETID",
            key,
            last.as_bytes(),
            b"ENTRIESADDED",
            added.as_bytes(),
        ]);
    }
}

/// Varied streams, the same ones each time but for the clock.
fn fill(client: &mut Connection) {
    let mut random = Random::new(SEED);
    let mut batch = Batch {
        pipe: Vec::new(),
        count: 0,
    };
    for number in 0..STREAMS {
        let mut making = Making {
            key: format!("stream:{number}").into_bytes(),
            base_ms: match random.chance(70) {
                true => now_ms() - 60_000,
                false => 0,
            },
            count: 0,
        };
        entries(&mut batch, &mut making, &mut random);
        producers(&mut batch, &making, &mut random);
        groups(&mut batch, &making, &mut random);
        batch.send(client);
    }
    let size: u64 = redis::cmd("DBSIZE").query(client).expect("DBSIZE");
    assert_eq!(size, STREAMS);
}

/// How many of the streams have other settings than the default, or remember an id.
fn remembering(client: &mut Connection) -> u64 {
    let mut found = 0;
    for number in 0..STREAMS {
        let dump: Vec<u8> = redis::cmd("DUMP")
            .arg(format!("stream:{number}"))
            .query(client)
            .expect("DUMP");
        let (body, _) = payload::split(&dump).expect("a server's payload");
        assert_eq!(body[0], 26);
        let Ok(payload::Object::Stream(stream)) = payload::decode(Family::Redis, body) else {
            panic!("stream:{number}");
        };
        found += u64::from(!stream.idempotency.is_default());
    }
    found
}

fn changes(output: &Output) -> Json {
    output.summary()["sink"]["changes"].clone()
}

fn import(server: &TestServer, archive: &[u8], flags: &[&str]) -> Output {
    let url = server.url();
    run(&[&["import", &url, "--json"], flags].concat(), archive)
}

fn add(client: &mut Connection, key: &str, id: &str) {
    redis::cmd("XADD")
        .arg(&[key, id, "f", "v"])
        .exec(client)
        .expect("XADD");
}

/// The fact of XINFO STREAM.
fn fact(client: &mut Connection, key: &str, name: &str) -> Option<i64> {
    let info: Vec<Value> = redis::cmd("XINFO")
        .arg("STREAM")
        .arg(key)
        .query(client)
        .expect("XINFO STREAM");
    let is_name = |pair: &&[Value]| pair[0] == Value::BulkString(name.as_bytes().to_vec());
    let pair = info.chunks_exact(2).find(is_name)?;
    match pair[1] {
        Value::Int(number) => Some(number),
        _ => None,
    }
}

/// Ids that all streams together remember.
fn tracked(client: &mut Connection) -> u64 {
    let of = |number| fact(client, &format!("stream:{number}"), "iids-tracked");
    let all = (0..STREAMS).map(of);
    all.map(|ids| ids.expect("a number").cast_unsigned()).sum()
}

/// Each of them to a version and back: equal by the servers' own commands, with the losses told by
/// name; a second run finds nothing to do, and `--verify` nothing that differs.
#[test]
fn streams_of_8_6_go_everywhere_and_back() {
    let Some(version) = require(Version::Redis86) else {
        return;
    };
    let source = TestServer::start(version);
    fill(&mut source.client());
    let remembering = remembering(&mut source.client());
    assert!(
        (STREAMS / 3..STREAMS).contains(&remembering),
        "{remembering}"
    );
    let tracked = tracked(&mut source.client());
    assert!(tracked > STREAMS / 3, "{tracked}");
    // Each stream once: an exact export reads those with groups again.
    let export = ["export", &source.url(), "--consistency", "scan"];
    let archive = run(&export, b"").success().stdout;
    for to in Version::DESTINATIONS {
        let Some(to) = require(to) else { continue };
        let keeps = to == Version::Redis86;
        let destination = TestServer::start(to);
        let first = import(&destination, &archive, &["--verify"]).success();
        let lost = if keeps { 0 } else { remembering };
        assert_eq!(changes(&first)["idempotency_lost"], lost, "{to}");
        assert_eq!(changes(&first)["given_back_owned"], 0, "{to}");
        assert_equal(&mut source.client(), &mut destination.client());

        let second = import(&destination, &archive, &[]).success();
        let counts = &second.summary()["sink"];
        assert_eq!(counts["unchanged"], STREAMS, "{to}: {counts}");

        let back = run(&["export", &destination.url()], b"").success().stdout;
        let again = TestServer::start(version);
        import(&again, &back, &["--verify"]).success();
        assert_equal(&mut destination.client(), &mut again.client());
        if keeps {
            assert_equal(&mut source.client(), &mut again.client());
            // The server takes its time to forget those of 1970.
            let deadline = Instant::now() + Duration::from_secs(30);
            loop {
                let (first, last) = (
                    self::tracked(&mut source.client()),
                    self::tracked(&mut again.client()),
                );
                if first == last {
                    assert!(first > STREAMS / 3, "{first}");
                    break;
                }
                assert!(Instant::now() < deadline, "{first}, {last}");
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }
}

/// `diff` compares settings where both servers have them, and leaves them out, and says so, where one
/// has none. The remembered ids never count.
#[test]
fn settings_are_compared_where_both_keep_them() {
    let (Some(new), Some(old)) = (require(Version::Redis86), require(Version::Redis80)) else {
        return;
    };
    let (left, right, early) = (
        TestServer::start(new),
        TestServer::start(new),
        TestServer::start(old),
    );
    for server in [&left, &right, &early] {
        let mut client = server.client();
        for key in ["a", "b"] {
            add(&mut client, key, "1-1");
        }
    }
    let set = |key: &str, duration: u64| {
        redis::cmd("XCFGSET")
            .arg(key)
            .arg("IDMP-DURATION")
            .arg(duration)
            .exec(&mut left.client())
            .expect("XCFGSET");
    };
    let diff = |other: &TestServer| run(&["diff", &left.url(), &other.url(), "--json"], b"");
    redis::cmd("XIDMPRECORD")
        .arg(&["a", "producer", "id", "1-1"])
        .exec(&mut left.client())
        .expect("XIDMPRECORD");
    let partly = |output: &Output| output.summary()["partly"].clone();
    let same = diff(&right).success();
    assert_eq!(partly(&same), 0);
    assert_eq!(
        partly(&diff(&early).success()),
        0,
        "default settings are nothing to leave out"
    );
    set("b", 77);
    let told = diff(&right).expect_code(5);
    let text = String::from_utf8_lossy(&told.stdout);
    assert!(text.contains("stream-metadata"), "{text}");
    let told = run(&["diff", &left.url(), &right.url()], b"").expect_code(5);
    let text = String::from_utf8_lossy(&told.stdout);
    assert!(text.contains("other stream metadata"), "{text}");
    assert_eq!(partly(&diff(&early).success()), 1);
}

/// By native commands the settings and the ids arrive too, those of entries that are gone as well, and
/// the destination goes on refusing what it has heard of.
#[test]
fn native_commands_write_what_is_remembered() {
    let Some(version) = require(Version::Redis86) else {
        return;
    };
    let source = TestServer::start(version);
    let mut client = source.client();
    fill(&mut client);
    let destination = TestServer::start(version);
    // Its own defaults are other ones.
    for (name, value) in [
        ("stream-idmp-duration", "555"),
        ("stream-idmp-maxsize", "55"),
    ] {
        redis::cmd("CONFIG")
            .arg(&["SET", name, value])
            .exec(&mut destination.client())
            .expect("CONFIG SET");
    }
    let base_ms = now_ms() - 60_000;
    let entry = |n: u64| format!("{}-1", base_ms + n);
    redis::cmd("XADD")
        .arg(&["dedup", "1-1", "f", "v"])
        .exec(&mut client)
        .expect("XADD");
    redis::cmd("XCFGSET")
        .arg(&["dedup", "IDMP-DURATION", "3600"])
        .exec(&mut client)
        .expect("XCFGSET");
    for n in 1..=4 {
        add(&mut client, "dedup", &entry(n));
        redis::cmd("XIDMPRECORD")
            .arg(&["dedup", "producer", &format!("id {n}"), &entry(n)])
            .exec(&mut client)
            .expect("XIDMPRECORD");
    }
    redis::cmd("XDEL")
        .arg(&["dedup", &entry(1), &entry(3)])
        .exec(&mut client)
        .expect("XDEL");
    let export = ["export", &source.url(), "--consistency", "scan"];
    let archive = run(&export, b"").success().stdout;
    let done = import(
        &destination,
        &archive,
        &["--method", "commands", "--verify"],
    )
    .success();
    assert_eq!(changes(&done)["idempotency_lost"], 0);
    let options = Options {
        ignore_delivery_times: true,
        ..Options::default()
    };
    // Some metadata of streams cannot be set by commands: that is another test's.
    let found = differences(&mut source.client(), &mut destination.client(), &options);
    let idempotency = found.iter().find(|one| one.detail.contains("idmp"));
    assert!(idempotency.is_none(), "{idempotency:?}");
    let mut there = destination.client();
    assert_eq!(fact(&mut there, "dedup", "idmp-duration"), Some(3_600));
    assert_eq!(fact(&mut there, "dedup", "idmp-maxsize"), Some(100));
    assert_eq!(fact(&mut there, "dedup", "iids-tracked"), Some(4));
    assert_eq!(fact(&mut there, "dedup", "length"), Some(3));
    for n in 1..=4 {
        let known: String = redis::cmd("XADD")
            .arg(&[
                "dedup",
                "IDMP",
                "producer",
                &format!("id {n}"),
                "*",
                "f",
                "v",
            ])
            .query(&mut there)
            .expect("XADD");
        assert_eq!(known, entry(n));
    }

    // Where there is no idempotency, it is lost by name.
    if let Some(old) = require(Version::Redis80) {
        let remembering = remembering(&mut source.client()) + 1;
        let destination = TestServer::start(old);
        let done = import(&destination, &archive, &["--method", "commands"]).success();
        assert_eq!(changes(&done)["idempotency_lost"], remembering);
    }
}

/// Without the right to one of the two commands a stream loses what it would have set, as the dry run
/// and `doctor` foretell, and the run goes on.
#[test]
fn a_refused_command_of_idempotency_is_a_loss() {
    let Some(version) = require(Version::Redis86) else {
        return;
    };
    let source = TestServer::start(version);
    let mut client = source.client();
    let entry = format!("{}-1", now_ms());
    add(&mut client, "s", &entry);
    add(&mut client, "simple", "1-1");
    redis::cmd("XIDMPRECORD")
        .arg(&["s", "producer", "id", &entry])
        .exec(&mut client)
        .expect("XIDMPRECORD");
    let _: () = client.set("plain", "v").expect("SET");
    let archive = run(&["export", &source.url()], b"").success().stdout;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("archive");
    std::fs::write(&file, &archive).expect("the archive");
    for command in ["XCFGSET", "XIDMPRECORD"] {
        let less = command.to_lowercase();
        let destination = TestServer::builder(version)
            .user(&format!("mover on >secret ~* +@all -restore -{less}"))
            .start();
        let url = destination
            .url()
            .replace("redis://", "redis://mover:secret@");
        let method = ["import", &url, "--json", "--method", "commands"];
        let foretold = run(&[&method[..], &["--dry-run"]].concat(), &archive).success();
        assert_eq!(changes(&foretold)["idempotency_lost"], 1, "{command}");
        let doctor = ["doctor", &url, file.to_str().expect("a name")];
        let told = run(&doctor, b"").success();
        let text = String::from_utf8_lossy(&told.stdout);
        assert!(
            text.contains("1 stream record: idempotency settings"),
            "{text}"
        );

        // RESTORE is refused: it goes over to native commands.
        let done = run(&["import", &url, "--json"], &archive).success();
        assert_eq!(changes(&done)["idempotency_lost"], 1, "{command}");
        let mut there = destination.client();
        let mut keys: Vec<String> = there.keys("*").expect("KEYS");
        keys.sort();
        assert_eq!(keys, ["plain", "s", "simple"], "{command}");
        assert_eq!(fact(&mut there, "s", "iids-tracked"), Some(0));
        assert_eq!(fact(&mut there, "s", "length"), Some(1));
    }
}

/// Of a producer's ids the server keeps no more than the stream is set to, when they are recorded one
/// by one: the latest.
#[test]
fn more_ids_than_a_stream_is_set_to_remember_are_a_loss() {
    let Some(version) = require(Version::Redis86) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    let mut client = source.client();
    let entry = format!("{}-1", now_ms());
    add(&mut client, "s", &entry);
    for n in 1..=5 {
        redis::cmd("XIDMPRECORD")
            .arg(&["s", "producer", &format!("id {n}"), &entry])
            .exec(&mut client)
            .expect("XIDMPRECORD");
    }
    let dump: Vec<u8> = redis::cmd("DUMP").arg("s").query(&mut client).unwrap();
    let (body, rdb) = payload::split(&dump).expect("a server's payload");
    // The default of 100 seconds and 100 ids: 86,400 of them, and 3.
    let settings = body.windows(4).rposition(|four| four == b"@d@d");
    let at = settings.expect("the settings");
    let fewer = [&body[..at], b"\x80\x00\x01\x51\x80\x03", &body[at + 4..]].concat();
    redis::cmd("RESTORE")
        .arg(&["s", "0"])
        .arg(payload::sign(&fewer, rdb))
        .arg("REPLACE")
        .exec(&mut client)
        .expect("RESTORE");
    assert_eq!(fact(&mut client, "s", "iids-tracked"), Some(5));
    let archive = run(&["export", &source.url()], b"").success().stdout;
    let by_commands = ["--method", "commands", "--verify"];
    let dry = [&by_commands[..2], &["--dry-run"]].concat();
    for flags in [&dry[..], &by_commands] {
        let done = import(&destination, &archive, flags).success();
        assert_eq!(changes(&done)["idempotency_lost"], 1, "{flags:?}");
    }
    let mut there = destination.client();
    assert_eq!(fact(&mut there, "s", "idmp-maxsize"), Some(3));
    assert_eq!(fact(&mut there, "s", "iids-tracked"), Some(3));
    for n in 3..=5 {
        let known: String = redis::cmd("XADD")
            .arg(&["s", "IDMP", "producer", &format!("id {n}"), "*", "f", "v"])
            .query(&mut there)
            .expect("XADD");
        assert_eq!(known, entry);
    }
}

/// XGROUP CREATE of some versions takes no more entries read than were added: it arrives all the same.
#[test]
fn groups_that_read_more_than_was_added_arrive_by_native_commands() {
    for version in [
        Version::Redis70,
        Version::Redis82,
        Version::Redis86,
        Version::Valkey91,
    ] {
        let Some(version) = require(version) else {
            continue;
        };
        let (source, destination) = (TestServer::start(version), TestServer::start(version));
        let mut client = source.client();
        add(&mut client, "s", "1-1");
        for command in [
            &["XSETID", "s", "1-1", "ENTRIESADDED", "60"][..],
            &["XGROUP", "CREATE", "s", "g", "1-1", "ENTRIESREAD", "50"],
            &["XSETID", "s", "1-1", "ENTRIESADDED", "1"],
        ] {
            let (name, args) = command.split_first().expect("a command");
            let sent = redis::cmd(name).arg(args).exec(&mut client);
            sent.expect(name);
        }
        let archive = run(&["export", &source.url()], b"").success().stdout;
        let by_commands = ["--method", "commands", "--verify"];
        let done = import(&destination, &archive, &by_commands).success();
        assert_eq!(changes(&done)["streams_filled_in"], 0, "{version}");
        assert_equal(&mut client, &mut destination.client());
    }
}

/// A type 27 by its published layout (no server here writes it): three entries, and a group "g" with
/// a consumer "c" that has 1-0, and 3-0 and 2-0 that were given back.
fn with_entries_given_back() -> Vec<u8> {
    /// As Redis 8.6.3 packs `XADD s 1-0 f v` and so on.
    const NODE: &[u8] = b"\x33\x00\x00\x00\x14\x00\x03\x01\x00\x01\x01\x01\x81\x66\x02\x00\x01\x02\x01\x00\x01\x00\x01\x81\x76\x02\x04\x01\x02\x01\x01\x01\x00\x01\x81\x76\x02\x04\x01\x02\x01\x02\x01\x00\x01\x81\x76\x02\x04\x01\xff";
    let id = |ms: u64| StreamId { ms, seq: 0 }.to_bytes();
    let mut value = vec![27, 1, 16];
    value.extend_from_slice(&id(1));
    value.push(NODE.len() as u8);
    value.extend_from_slice(NODE);
    // Length, last id, first id, highest deleted id, entries added; a group and its ids.
    value.extend_from_slice(&[3, 3, 0, 1, 0, 0, 0, 3, 1, 1, b'g', 3, 0, 3, 3]);
    for ms in 1..=3 {
        value.extend_from_slice(&id(ms));
        value.extend_from_slice(&SEEN_MS.to_le_bytes());
        value.push(4);
    }
    value.extend_from_slice(&[1, 1, b'c']);
    value.extend_from_slice(&SEEN_MS.to_le_bytes());
    value.extend_from_slice(&SEEN_MS.to_le_bytes());
    value.push(1);
    value.extend_from_slice(&id(1));
    value.push(2);
    value.extend_from_slice(&id(3));
    value.extend_from_slice(&id(2));
    value.extend_from_slice(&[0x40, 100, 0x40, 100, 0, 0, 0]);
    value
}

/// When the entries were delivered.
const SEEN_MS: i64 = 1_700_000_000_000;

/// Each version takes it, deep check included, and whoever claims idle entries gets those that were
/// given back, delivered as often as before.
#[test]
fn entries_given_back_can_be_claimed_below_8_8() {
    let value = with_entries_given_back();
    assert!(payload::check(Family::Redis, &value).is_ok());
    for version in Version::DESTINATIONS {
        let Some(version) = require(version) else {
            continue;
        };
        let builder = TestServer::builder(version);
        let server = match version.is_at_least(6, 2) {
            true => builder.option("--sanitize-dump-payload", "yes").start(),
            false => builder.start(),
        };
        let accepts = Accepts::of_server(version.dialect()).expect("a known server");
        let Plan::Reencode {
            forms,
            version: rdb,
        } = plan_value(&accepts, Family::Redis, 14, &value)
        else {
            panic!("{version}");
        };
        let mut anew = Vec::new();
        let losses = payload::recode(Family::Redis, &value, forms, &mut anew).expect("sound");
        assert_eq!((losses.given_back, losses.idempotency), (2, false));
        let mut client = server.client();
        redis::cmd("RESTORE")
            .arg("s")
            .arg(0)
            .arg(payload::sign(&anew, rdb))
            .exec(&mut client)
            .unwrap_or_else(|error| panic!("{version}: {error}"));
        let pending: Vec<(String, String, u64, u64)> = redis::cmd("XPENDING")
            .arg(&["s", "g", "-", "+", "10"])
            .query(&mut client)
            .expect("XPENDING");
        let owners: Vec<(&str, &str, u64)> = pending
            .iter()
            .map(|(id, owner, _, count)| (&**id, &**owner, *count))
            .collect();
        let expected = [
            ("1-0", "c", 4),
            ("2-0", "given-back", 4),
            ("3-0", "given-back", 4),
        ];
        assert_eq!(owners, expected, "{version}");
        // Longer than since any delivery.
        let idle = "1000000000000";
        let claimed: Vec<String> = redis::cmd("XCLAIM")
            .arg(&["s", "g", "new", idle, "1-0", "2-0", "3-0", "JUSTID"])
            .query(&mut client)
            .expect("XCLAIM");
        assert_eq!(claimed, ["2-0", "3-0"], "{version}");
    }
}
