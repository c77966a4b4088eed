//! Values by native commands: through the library, not the command line, so that sizes can be as
//! odd as they like.

use std::collections::VecDeque;

use redis_migrate::endpoint::{ConnectOptions, ServerAddress};
use redis_migrate::payload::{self, Object, meaning};
use redis_migrate::record::Family;
use redis_migrate::select::TEMP_KEY_PREFIX;
use redis_migrate::server::facts::Facts;
use redis_migrate::server::slots::{SLOTS, slot_of, tag_for_slot};
use redis_migrate::server::{Conn, ServerError};
use redis_migrate::sink::server::commands::{
    Answer, CommandError, CommandLimits, CommandLosses, Commands, Features, Job, Queued, Replace,
    Ticket, Written,
};

use crate::support::dataset::{fill_every_type, now_ms};
use crate::support::equality::{Kind, Options, assert_equal_with, differences};
use crate::support::proxy::{Direction, Proxy, Rules};
use crate::support::random::Random;
use crate::support::servers::{TestServer, Version, available, require};

type Outcome = Result<(Written, CommandLosses), CommandError>;

/// A value on its way.
#[derive(Clone, Debug)]
struct Item {
    key: Vec<u8>,
    family: Family,
    value: Vec<u8>,
    expire_at_ms: Option<u64>,
}

impl Item {
    fn job(&self, replace: Replace) -> Job<'_> {
        Job {
            key: &self.key,
            family: self.family,
            value: &self.value,
            expire_at_ms: self.expire_at_ms,
            replace,
            now_ms: now_ms(),
        }
    }
}

fn family(version: Version) -> Family {
    if version.is_valkey() {
        Family::Valkey
    } else {
        Family::Redis
    }
}

/// Limits under which nearly everything takes several chunks and commands.
fn tiny() -> CommandLimits {
    CommandLimits {
        chunk_bytes: 64,
        command_elements: 3,
        ..CommandLimits::default()
    }
}

fn open(url: &str) -> Conn {
    let address: ServerAddress = url.parse().expect("a URL");
    Conn::open(&ConnectOptions::new(address)).expect("a connection")
}

/// What writes into a server, and how.
struct Writer {
    conn: Conn,
    commands: Commands,
}

impl Writer {
    fn new(server: &TestServer, limits: CommandLimits) -> Self {
        Self::at(&server.url(), limits)
    }

    fn at(url: &str, limits: CommandLimits) -> Self {
        let mut conn = open(url);
        let facts = Facts::ask(&mut conn).expect("INFO");
        let features = Features::ask(&mut conn, &facts).expect("a known version");
        let commands = Commands::new(features, limits);
        Self { conn, commands }
    }

    fn select(&mut self, db: u32) {
        let _: String = self
            .conn
            .query(redis::cmd("SELECT").arg(db))
            .expect("SELECT");
    }

    fn one(&mut self, item: &Item, replace: Replace) -> Outcome {
        self.commands.write(&mut self.conn, &item.job(replace))
    }

    fn all(&mut self, items: &[Item], replace: Replace) -> Vec<Outcome> {
        items.iter().map(|item| self.one(item, replace)).collect()
    }

    /// As a pipeline, with so many in flight.
    fn pipeline(&mut self, items: &[Item], replace: Replace, window: usize) -> Vec<Outcome> {
        let mut outcomes: Vec<Option<Outcome>> = items.iter().map(|_| None).collect();
        let mut due: VecDeque<(usize, Ticket)> = VecDeque::new();
        for (n, item) in items.iter().enumerate() {
            if due.len() >= window {
                self.conn.flush().expect("the server listens");
                while due.len() > window / 2 {
                    self.read(items, &mut due, &mut outcomes);
                }
            }
            match self
                .commands
                .queue_small(&mut self.conn, &item.job(replace))
            {
                Ok(Queued::Sent(ticket)) => due.push_back((n, ticket)),
                Ok(Queued::Done(written, losses)) => outcomes[n] = Some(Ok((written, losses))),
                Ok(Queued::Large) => {
                    self.drain(items, &mut due, &mut outcomes);
                    outcomes[n] = Some(self.one(item, replace));
                }
                Err(error) => outcomes[n] = Some(Err(error)),
            }
        }
        self.drain(items, &mut due, &mut outcomes);
        outcomes
            .into_iter()
            .map(|outcome| outcome.expect("an answer for each"))
            .collect()
    }

    fn drain(
        &mut self,
        items: &[Item],
        due: &mut VecDeque<(usize, Ticket)>,
        outcomes: &mut [Option<Outcome>],
    ) {
        while !due.is_empty() {
            self.conn.flush().expect("the server listens");
            self.read(items, due, outcomes);
        }
    }

    fn read(
        &mut self,
        items: &[Item],
        due: &mut VecDeque<(usize, Ticket)>,
        outcomes: &mut [Option<Outcome>],
    ) {
        let Some((n, ticket)) = due.pop_front() else {
            return;
        };
        match self
            .commands
            .read_small(&mut self.conn, &items[n].key, ticket)
        {
            Ok(Answer::Written(written, losses)) => outcomes[n] = Some(Ok((written, losses))),
            Ok(Answer::Again(ticket)) => due.push_back((n, ticket)),
            Err(error) => outcomes[n] = Some(Err(error)),
        }
    }
}

/// Everything in one database.
fn read_db(server: &TestServer, db: u32) -> Vec<Item> {
    let mut client = server.client_db(db);
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query(&mut client).unwrap();
    let mut items = Vec::new();
    for key in keys {
        let dump: Vec<u8> = redis::cmd("DUMP").arg(&key).query(&mut client).unwrap();
        let now = now_ms();
        let left: i64 = redis::cmd("PTTL").arg(&key).query(&mut client).unwrap();
        let expire_at_ms = (left >= 0).then(|| {
            if server.version().is_at_least_7() {
                let exact = redis::cmd("PEXPIRETIME").arg(&key).query(&mut client);
                exact.unwrap()
            } else {
                now + u64::try_from(left).unwrap()
            }
        });
        let (value, _) = payload::split(&dump).expect("a sound payload");
        items.push(Item {
            key,
            family: family(server.version()),
            value: value.to_vec(),
            expire_at_ms,
        });
    }
    items
}

fn dump(client: &mut redis::Connection, key: &[u8]) -> Vec<u8> {
    let dump: Option<Vec<u8>> = redis::cmd("DUMP").arg(key).query(client).unwrap();
    let dump = dump.expect("the key stands");
    payload::split(&dump).expect("a sound payload").0.to_vec()
}

fn run(client: &mut redis::Connection, command: &str) {
    let mut parts = command.split(' ');
    let mut packed = redis::cmd(parts.next().expect("a name"));
    for part in parts {
        packed.arg(part);
    }
    packed
        .exec(client)
        .unwrap_or_else(|error| panic!("{command}: {error}"));
}

fn temporary_keys(server: &TestServer, db: u32) -> usize {
    let mut client = server.client_db(db);
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query(&mut client).unwrap();
    keys.iter()
        .filter(|key| key.starts_with(TEMP_KEY_PREFIX))
        .count()
}

const DBS: [u32; 5] = [0, 1, 3, 9, 15];

/// Everything but when consumers were seen and active, for which there is no command.
fn assert_same(source: &TestServer, destination: &TestServer, context: &str) {
    let crossed = source.version() != destination.version();
    let options = Options {
        ignore_zero_sign: true,
        ignore_field_ttl: !destination.version().has_field_ttl(),
        functions: false,
        ttl_tolerance_ms: crossed.then_some(250),
        ..Options::default()
    };
    for found in differences(&mut source.client(), &mut destination.client(), &options) {
        let times = found.detail.contains(" seen-time:") || found.detail.contains(" active-time:");
        assert!(found.kind == Kind::Value && times, "{context}: {found}");
        let left = dump(&mut source.client_db(found.db), &found.key);
        let right = dump(&mut destination.client_db(found.db), &found.key);
        let families = [source, destination].map(|server| family(server.version()));
        assert_same_stream(families, &left, &right, context);
    }
}

/// As far as both forms tell: all but the times of consumers. What they have pending, with its
/// times and counts, is compared by itself.
fn assert_same_stream(families: [Family; 2], left: &[u8], right: &[u8], context: &str) {
    let lenience = meaning::Lenience {
        ignore_delivery_times: true,
        ..meaning::Lenience::default()
    };
    let found = meaning::same_but(families[0], left, families[1], right, lenience);
    assert_eq!(found.expect("both are sound"), None, "{context}");
    let pending = |family, value: &[u8]| -> Vec<_> {
        let Ok(Object::Stream(stream)) = payload::decode(family, value) else {
            panic!("{context}: a stream")
        };
        let groups = stream.groups.iter();
        let mut groups: Vec<_> = groups
            .map(|group| {
                let mut pending = group.pending.clone();
                pending.sort_by_key(|pending| pending.id);
                (group.name.to_vec(), pending)
            })
            .collect();
        groups.sort_by(|a, b| a.0.cmp(&b.0));
        groups
    };
    assert_eq!(
        pending(families[0], left),
        pending(families[1], right),
        "{context}"
    );
}

#[derive(Clone, Copy, Debug)]
enum Mode {
    OneByOne(CommandLimits),
    Pipeline(CommandLimits),
}

fn write_everything(source: &TestServer, destination: &TestServer, mode: Mode, replace: Replace) {
    let context = format!(
        "{} to {}, {mode:?}",
        source.version(),
        destination.version()
    );
    let (Mode::OneByOne(limits) | Mode::Pipeline(limits)) = mode;
    let mut writer = Writer::new(destination, limits);
    for db in DBS {
        let items = read_db(source, db);
        assert!(!items.is_empty());
        writer.select(db);
        let outcomes = match mode {
            Mode::OneByOne(_) => writer.all(&items, replace),
            Mode::Pipeline(_) => writer.pipeline(&items, replace, 20),
        };
        for (item, outcome) in items.iter().zip(outcomes) {
            let name = item.key.escape_ascii();
            let (written, losses) =
                outcome.unwrap_or_else(|error| panic!("{context}: {name}: {error}"));
            assert_eq!(written, Written::Stored, "{context}: {name}");
            let kind = payload::kind_of(item.family, item.value[0]);
            let expiring = payload::check(item.family, &item.value).unwrap();
            let want = CommandLosses {
                field_ttls: if destination.version().has_field_ttl() {
                    0
                } else {
                    expiring.expiring_fields
                },
                stream_metadata: kind == payload::Kind::Stream
                    && source.version().is_at_least_7()
                    && !destination.version().is_at_least_7(),
                // Known by the number of consumers.
                consumer_times: losses.consumer_times,
                ..CommandLosses::default()
            };
            assert_eq!(losses, want, "{context}: {name}");
        }
        assert_eq!(temporary_keys(destination, db), 0, "{context}");
    }
    assert_same(source, destination, &context);
}

/// All the odd places that a pending entry, its entry and the ends of the stream can have to each
/// other.
fn fill_odd_streams(client: &mut redis::Connection, version: Version) {
    for key in [
        "odd:middle",
        "odd:head",
        "odd:tail",
        "odd:none-left",
        "odd:trimmed",
    ] {
        for n in 1..=9 {
            run(client, &format!("XADD {key} {n}-0 f {n}"));
        }
        for group in ["a", "b"] {
            run(client, &format!("XGROUP CREATE {key} {group} 0"));
            for (consumer, count) in [("x", 3), ("y", 5)] {
                run(
                    client,
                    &format!("XREADGROUP GROUP {group} {consumer} COUNT {count} STREAMS {key} >"),
                );
            }
        }
        run(client, &format!("XACK {key} b 1-0 2-0 5-0"));
    }
    run(client, "XDEL odd:middle 2-0 4-0 5-0");
    run(client, "XDEL odd:head 1-0 2-0");
    run(client, "XDEL odd:tail 8-0 9-0");
    run(
        client,
        "XDEL odd:none-left 1-0 2-0 3-0 4-0 5-0 6-0 7-0 8-0 9-0",
    );
    run(client, "XTRIM odd:trimmed MAXLEN 3");
    run(client, "XADD odd:repeated 5-5 f 1 f 2 f 1");
    run(client, "XADD odd:deleted 5-5 f 1");
    run(client, "XDEL odd:deleted 5-5");
    run(client, "XGROUP CREATE odd:nothing g 0 MKSTREAM");
    run(client, "XGROUP DESTROY odd:nothing g");
    run(
        client,
        "XADD odd:highest 18446744073709551615-18446744073709551615 f v",
    );
    if version.is_at_least_7() {
        run(client, "XADD odd:read 1-1 f v");
        run(
            client,
            "XSETID odd:read 7-7 ENTRIESADDED 70 MAXDELETEDID 7-6",
        );
        run(client, "XGROUP CREATE odd:read known 5-5 ENTRIESREAD 55");
        run(client, "XGROUP CREATE odd:read unknown 5-5");
    }
}

fn every_type(version: Version) {
    let Some(version) = require(version) else {
        return;
    };
    let source = TestServer::start(version);
    fill_every_type(&mut source.client(), version);
    fill_odd_streams(&mut source.client(), version);
    let usual = CommandLimits::default();
    for (mode, replace) in [
        (Mode::OneByOne(tiny()), Replace::IfAbsent),
        (Mode::Pipeline(usual), Replace::Always),
        (Mode::OneByOne(usual), Replace::Always),
        (Mode::Pipeline(tiny()), Replace::Always),
        (Mode::Pipeline(usual), Replace::IfAbsent),
    ] {
        let destination = TestServer::start(version);
        write_everything(&source, &destination, mode, replace);
        // Once more over what stands.
        write_everything(&source, &destination, mode, Replace::Always);
    }
}

#[test]
fn every_type_by_commands_redis_6_0() {
    every_type(Version::Redis60);
}

#[test]
fn every_type_by_commands_redis_6_2() {
    every_type(Version::Redis62);
}

#[test]
fn every_type_by_commands_redis_7_0() {
    every_type(Version::Redis70);
}

#[test]
fn every_type_by_commands_redis_8_0() {
    every_type(Version::Redis80);
}

#[test]
fn every_type_by_commands_valkey_8_1() {
    every_type(Version::Valkey81);
}

#[test]
fn every_type_by_commands_valkey_9_1() {
    every_type(Version::Valkey91);
}

#[test]
fn every_type_by_commands_between_all_versions() {
    let versions = available();
    let destinations: Vec<TestServer> = versions.iter().map(|&v| TestServer::start(v)).collect();
    for &version in &versions {
        let source = TestServer::start(version);
        fill_every_type(&mut source.client(), version);
        fill_odd_streams(&mut source.client(), version);
        for destination in &destinations {
            if destination.version() == version {
                continue;
            }
            run(&mut destination.client(), "FLUSHALL");
            let mode = Mode::Pipeline(CommandLimits::default());
            write_everything(&source, destination, mode, Replace::IfAbsent);
        }
    }
}

fn string(key: &[u8], text: &[u8], expire_at_ms: Option<u64>) -> Item {
    let mut value = vec![0];
    payload::write::string(&mut value, text);
    Item {
        key: key.to_vec(),
        family: Family::Redis,
        value,
        expire_at_ms,
    }
}

fn list(key: &[u8], elements: impl Iterator<Item = Vec<u8>>) -> Item {
    let mut value = vec![1];
    let elements: Vec<Vec<u8>> = elements.collect();
    payload::write::length(&mut value, elements.len() as u64);
    for element in elements {
        payload::write::string(&mut value, &element);
    }
    Item {
        key: key.to_vec(),
        family: Family::Redis,
        value,
        expire_at_ms: None,
    }
}

#[test]
fn what_stands_is_left_alone_or_replaced_as_asked() {
    for version in available() {
        let source = TestServer::start(version);
        fill_every_type(&mut source.client(), version);
        let items = read_db(&source, 0);
        for pipeline in [false, true] {
            let server = TestServer::start(version);
            let mut client = server.client();
            for item in &items {
                redis::cmd("SET")
                    .arg(&item.key)
                    .arg("mine")
                    .exec(&mut client)
                    .unwrap();
                redis::cmd("PEXPIREAT")
                    .arg(&item.key)
                    .arg(4_000_000_000_000_u64)
                    .exec(&mut client)
                    .unwrap();
            }
            let mut writer = Writer::new(&server, CommandLimits::default());
            let outcomes = if pipeline {
                writer.pipeline(&items, Replace::IfAbsent, 20)
            } else {
                writer.all(&items, Replace::IfAbsent)
            };
            for (item, outcome) in items.iter().zip(outcomes) {
                assert_eq!(outcome.unwrap().0, Written::Standing);
                let value: Vec<u8> = redis::cmd("GET").arg(&item.key).query(&mut client).unwrap();
                assert_eq!(value, b"mine");
                let left: i64 = redis::cmd("PTTL")
                    .arg(&item.key)
                    .query(&mut client)
                    .unwrap();
                assert!(left > 1_000_000_000);
            }
            let keys: usize = redis::cmd("DBSIZE").query(&mut client).unwrap();
            assert_eq!(keys, items.len(), "{version}: no temporary key is left");
            // A key without expiry loses the one that stood.
            let items = [string(b"string:embstr", b"new", None)];
            writer.pipeline(&items, Replace::Always, 1);
            let left: i64 = redis::cmd("PTTL")
                .arg("string:embstr")
                .query(&mut client)
                .unwrap();
            assert_eq!(left, -1);
        }
    }
}

#[test]
fn what_is_past_its_time_is_not_written() {
    for version in available() {
        let server = TestServer::start(version);
        let mut client = server.client();
        run(&mut client, "SET stands 1");
        let mut writer = Writer::new(&server, CommandLimits::default());
        for at_ms in [0, 1, now_ms() - 1] {
            for key in [&b"stands"[..], b"absent"] {
                let item = string(key, b"v", Some(at_ms));
                for replace in [Replace::Always, Replace::IfAbsent] {
                    let (written, _) = writer.one(&item, replace).unwrap();
                    assert_eq!(written, Written::Expired);
                    let written = writer.pipeline(std::slice::from_ref(&item), replace, 1);
                    assert!(matches!(written[..], [Ok((Written::Expired, _))]));
                }
            }
        }
        // The server's clock is ahead of what it was taken for: the server decides.
        let mut item = list(b"late", (0..10).map(|n| vec![n]));
        item.expire_at_ms = Some(now_ms() - 50);
        let mut job = item.job(Replace::Always);
        job.now_ms -= 60_000;
        let (written, _) = writer.commands.write(&mut writer.conn, &job).unwrap();
        assert_eq!(written, Written::Expired);
        let Queued::Sent(ticket) = writer.commands.queue_small(&mut writer.conn, &job).unwrap()
        else {
            panic!("small")
        };
        writer.conn.flush().unwrap();
        let answer = writer
            .commands
            .read_small(&mut writer.conn, b"late", ticket)
            .unwrap();
        assert!(matches!(answer, Answer::Written(Written::Expired, _)));
        let keys: usize = redis::cmd("DBSIZE").query(&mut client).unwrap();
        assert_eq!(keys, 1, "{version}");
        // As far in the future as can be said.
        let far = string(b"far", b"v", Some(u64::MAX));
        assert!(writer.one(&far, Replace::Always).is_ok());
        writer.pipeline(&[string(b"far2", b"v", Some(u64::MAX))], Replace::Always, 1);
        for key in ["far", "far2"] {
            let left: i64 = redis::cmd("PTTL").arg(key).query(&mut client).unwrap();
            assert!(left > 1 << 60, "{version}: {left}");
        }
    }
}

/// A hash as release candidates of Redis 7.4 wrote it, with absolute expiries.
fn hash(key: &[u8], fields: &[(&str, Option<u64>)]) -> Item {
    let mut value = vec![22];
    payload::write::length(&mut value, fields.len() as u64);
    for (name, expire_at_ms) in fields {
        payload::write::length(&mut value, expire_at_ms.unwrap_or(0));
        payload::write::string(&mut value, name.as_bytes());
        payload::write::string(&mut value, b"v");
    }
    Item {
        key: key.to_vec(),
        family: Family::Redis,
        value,
        expire_at_ms: None,
    }
}

#[test]
fn fields_past_their_time_are_left_out_and_far_ones_clamped() {
    for version in available() {
        let server = TestServer::start(version);
        let mut client = server.client();
        let past = now_ms() - 1000;
        let far = (1 << 48) - 1;
        let items = [
            hash(b"none", &[("a", Some(past)), ("b", Some(past - 5))]),
            hash(b"some", &[("a", Some(past)), ("b", None), ("c", Some(far))]),
        ];
        for pipeline in [false, true] {
            run(&mut client, "FLUSHALL");
            let mut writer = Writer::new(&server, tiny());
            let outcomes = if pipeline {
                writer.pipeline(&items, Replace::Always, 10)
            } else {
                writer.all(&items, Replace::Always)
            };
            let [none, some] = &outcomes[..] else {
                panic!("two")
            };
            assert_eq!(none.as_ref().unwrap().0, Written::Expired);
            let (written, losses) = some.as_ref().unwrap();
            assert_eq!(*written, Written::Stored);
            let (lost, clamped) = (losses.field_ttls, losses.field_ttls_clamped);
            let want = match version {
                Version::Redis80 => (0, 1),
                Version::Valkey91 => (0, 0),
                _ => (1, 0),
            };
            assert_eq!((lost, clamped), want, "{version}");
            let mut names: Vec<String> =
                redis::cmd("HKEYS").arg("some").query(&mut client).unwrap();
            names.sort();
            assert_eq!(names, ["b", "c"]);
            let keys: usize = redis::cmd("DBSIZE").query(&mut client).unwrap();
            assert_eq!(keys, 1);
        }
        if !version.has_field_ttl() {
            continue;
        }
        // The clock is behind: the server removes the fields, and the hash with them.
        let item = hash(b"late", &[("a", Some(past)), ("b", Some(past))]);
        let mut writer = Writer::new(&server, CommandLimits::default());
        let mut job = item.job(Replace::Always);
        job.now_ms -= 60_000;
        let (written, _) = writer.commands.write(&mut writer.conn, &job).unwrap();
        assert_eq!(written, Written::Expired, "{version}");
        assert_eq!(temporary_keys(&server, 0), 0);
    }
}

/// Cuts after every so many bytes: what stood still stands, and what is left is told by its name.
#[test]
fn a_lost_connection_leaves_nothing_half_written() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    let mut client = server.client();
    let item = list(b"{k}ey", (0..2000).map(|n: u32| n.to_string().into_bytes()));
    let limits = CommandLimits {
        chunk_bytes: 1000,
        ..tiny()
    };
    let (mut cut, mut whole) = (0, 0);
    for at in (500..46_000).step_by(3_500) {
        run(&mut client, "FLUSHALL");
        run(&mut client, "SET {k}ey mine");
        let rules = Rules {
            to_server: Direction {
                cut_after: Some(at),
                ..Direction::default()
            },
            ..Rules::default()
        };
        let proxy = Proxy::plain(server.addr());
        proxy.set_rules(rules);
        let mut writer = Writer::at(&proxy.url(), limits);
        match writer.one(&item, Replace::Always) {
            Err(CommandError::Connection(ServerError::Lost { .. })) => {
                cut += 1;
                let kept: Vec<u8> = redis::cmd("GET").arg("{k}ey").query(&mut client).unwrap();
                assert_eq!(kept, b"mine");
                let keys: usize = redis::cmd("DBSIZE").query(&mut client).unwrap();
                assert!(keys == 1 || (keys == 2 && temporary_keys(&server, 0) == 1));
            }
            Ok((Written::Stored, _)) => {
                whole += 1;
                let length: u64 = redis::cmd("LLEN").arg("{k}ey").query(&mut client).unwrap();
                assert_eq!(length, 2000);
                assert_eq!(temporary_keys(&server, 0), 0);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(cut > 3, "{cut} were cut, {whole} were not");
}

#[test]
fn odd_key_names() {
    for version in available() {
        let server = TestServer::start(version);
        let mut client = server.client();
        let keys: [&[u8]; 9] = [
            b"",
            b"{",
            b"}",
            b"{}",
            b"{a}",
            b"a{b}c",
            b"}{",
            b"{{a}}",
            b"\r\n\xff\x00",
        ];
        let items: Vec<Item> = keys
            .iter()
            .map(|key| list(key, (0..9).map(|n| vec![n])))
            .collect();
        for pipeline in [false, true] {
            run(&mut client, "FLUSHALL");
            let mut writer = Writer::new(&server, tiny());
            let outcomes = if pipeline {
                writer.pipeline(&items, Replace::IfAbsent, 100)
            } else {
                writer.all(&items, Replace::IfAbsent)
            };
            for (key, outcome) in keys.iter().zip(outcomes) {
                assert_eq!(outcome.unwrap().0, Written::Stored);
                let length: u64 = redis::cmd("LLEN").arg(key).query(&mut client).unwrap();
                assert_eq!(length, 9);
            }
            let count: usize = redis::cmd("DBSIZE").query(&mut client).unwrap();
            assert_eq!(count, keys.len());
        }
    }
}

/// The server says which slot a key lies in, and takes our transactions as of one slot.
#[test]
fn a_cluster_node_agrees_on_slots() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::builder(version).cluster().start();
    let mut client = server.client();
    let mut random = Random::new(5);
    let mut pipe = redis::pipe();
    let mut keys = Vec::new();
    for _ in 0..2000 {
        let length = random.below(20) as usize;
        let mut key = random.bytes(length);
        // Braces, far more often than chance has them.
        for byte in &mut key {
            match random.below(6) {
                0 => *byte = b'{',
                1 => *byte = b'}',
                _ => {}
            }
        }
        let tagged = format!("x:{}:y", tag_for_slot(slot_of(&key))).into_bytes();
        pipe.cmd("CLUSTER").arg("KEYSLOT").arg(&key);
        pipe.cmd("CLUSTER").arg("KEYSLOT").arg(&tagged);
        keys.push(key);
    }
    let slots: Vec<u16> = pipe.query(&mut client).unwrap();
    for (key, said) in keys.iter().zip(slots.chunks(2)) {
        assert_eq!(said, [slot_of(key); 2], "{}", key.escape_ascii());
    }
    let mut all = redis::cmd("CLUSTER");
    all.arg("ADDSLOTS");
    (0..SLOTS).for_each(|slot| {
        all.arg(slot);
    });
    all.exec(&mut client).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while redis::cmd("SET")
        .arg("k")
        .arg("v")
        .exec(&mut client)
        .is_err()
    {
        assert!(std::time::Instant::now() < deadline, "no cluster");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let items: Vec<Item> = keys
        .iter()
        .map(|key| list(key, (0..9).map(|n| vec![n])))
        .collect();
    let mut writer = Writer::new(&server, tiny());
    for outcome in writer.pipeline(&items, Replace::Always, 100) {
        assert_eq!(outcome.unwrap().0, Written::Stored);
    }
}

#[test]
fn errors_leave_no_temporary_key_and_a_usable_connection() {
    for version in available() {
        // Room for the small, not for the large.
        let server = TestServer::builder(version)
            .option("--maxmemory", "16mb")
            .start();
        let mut writer = Writer::new(&server, CommandLimits::default());
        let large = list(
            b"large",
            (0..400_000).map(|n: u32| format!("{n:64}").into_bytes()),
        );
        for replace in [Replace::Always, Replace::IfAbsent] {
            let error = writer.one(&large, replace).unwrap_err();
            assert!(
                matches!(&error, CommandError::Answer { text, .. } if text.starts_with("OOM")),
                "{version}: {error}"
            );
            assert_eq!(temporary_keys(&server, 0), 0);
        }
        // UNLINK gives the memory back when it comes to it.
        let used = || -> u64 {
            let info: String = redis::cmd("INFO")
                .arg("memory")
                .query(&mut server.client())
                .unwrap();
            let mut lines = info.lines();
            let used = lines.find_map(|line| line.strip_prefix("used_memory:"));
            used.unwrap().parse().unwrap()
        };
        while used() > 8 << 20 {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let small = list(b"small", (0..20).map(|n| vec![n]));
        let items = [small.clone(), small];
        assert!(writer.one(&items[0], Replace::Always).is_ok(), "{version}");
        for outcome in writer.pipeline(&items, Replace::Always, 10) {
            assert!(outcome.is_ok(), "{version}: {outcome:?}");
        }
        // Damage, and what has no commands.
        let mut damaged = items[0].clone();
        damaged.value.push(0);
        let error = writer.one(&damaged, Replace::Always).unwrap_err();
        assert!(matches!(error, CommandError::Refused { .. }));
        let opaque = Item {
            value: vec![7, 1, 2, 3],
            ..items[0].clone()
        };
        let error = writer.one(&opaque, Replace::Always).unwrap_err();
        assert!(error.to_string().contains("no commands"), "{error}");
        assert!(writer.one(&items[0], Replace::Always).is_ok());
    }
}

#[test]
fn commands_that_are_not_allowed_are_named() {
    for version in available() {
        let server = TestServer::builder(version)
            .user("default on nopass ~* +@all -rpush -xclaim -restore")
            .start();
        let source = TestServer::start(version);
        let mut client = source.client();
        fill_odd_streams(&mut client, version);
        let stream = Item {
            key: b"odd:middle".to_vec(),
            family: family(version),
            value: dump(&mut client, b"odd:middle"),
            expire_at_ms: None,
        };
        let items = [
            list(b"list", (0..9).map(|n| vec![n])),
            stream,
            string(b"string", b"v", None),
        ];
        for limits in [tiny(), CommandLimits::default()] {
            let mut writer = Writer::new(&server, limits);
            for pipeline in [false, true] {
                let outcomes = if pipeline {
                    writer.pipeline(&items, Replace::IfAbsent, 10)
                } else {
                    writer.all(&items, Replace::IfAbsent)
                };
                for (outcome, want) in outcomes.iter().zip(["RPUSH", "XCLAIM"]) {
                    assert!(
                        matches!(outcome, Err(CommandError::Forbidden { command, .. }) if *command == want),
                        "{version}: {outcome:?}"
                    );
                }
                assert_eq!(outcomes[2].as_ref().unwrap().0, Written::Stored);
                assert_eq!(temporary_keys(&server, 0), 0, "{version}");
                run(&mut server.client(), "DEL string");
            }
        }
    }
}

#[test]
fn a_string_beyond_the_limit_is_refused_before_anything_is_sent() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    let limits = CommandLimits {
        max_bulk_bytes: 1000,
        ..CommandLimits::default()
    };
    let mut writer = Writer::new(&server, limits);
    let items = [
        string(b"s", &[b'x'; 1001], None),
        list(b"l", [vec![1; 5], vec![2; 1001]].into_iter()),
    ];
    for item in &items {
        let error = writer.one(item, Replace::Always).unwrap_err();
        assert!(error.to_string().contains("1001 bytes"), "{error}");
        let outcomes = writer.pipeline(std::slice::from_ref(item), Replace::Always, 1);
        assert!(matches!(&outcomes[..], [Err(CommandError::Refused { .. })]));
    }
    let stats: String = redis::cmd("INFO")
        .arg("commandstats")
        .query(&mut server.client())
        .unwrap();
    assert!(!stats.contains("cmdstat_set:") && !stats.contains("cmdstat_rpush:"));
    let fits = list(b"l", (0..100).map(|n| vec![n; 1000]));
    assert!(writer.one(&fits, Replace::Always).is_ok());
}

#[test]
fn a_server_that_hides_its_version_is_tried_out() {
    for version in available() {
        let server = TestServer::start(version);
        let mut conn = open(&server.url());
        let facts = Facts::ask(&mut conn).unwrap();
        let mut known = Features::ask(&mut conn, &facts).unwrap();
        let tried = Features::ask(&mut conn, &Facts::default()).unwrap();
        if version == Version::Valkey91 {
            // Only the version tells that it takes later ones.
            known.field_ttl_max_ms = tried.field_ttl_max_ms;
            assert!(tried.field_ttl_max_ms.is_some());
        }
        assert_eq!(tried, known, "{version}");
        let keys: usize = redis::cmd("DBSIZE").query(&mut server.client()).unwrap();
        assert_eq!(keys, 0);
    }
}

/// A server whose limit is lower than it is taken for says so and hangs up.
#[test]
fn a_lower_limit_than_expected_loses_the_connection_and_says_why() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::builder(version)
        .option("--proto-max-bulk-len", "1mb")
        .start();
    let mut writer = Writer::new(&server, CommandLimits::default());
    let item = list(b"l", [vec![1; 5], vec![2; 3 << 20]].into_iter());
    let error = writer.one(&item, Replace::Always).unwrap_err();
    assert!(
        matches!(error, CommandError::Connection(_)),
        "{error}: the connection is gone"
    );
}

/// A list of 600 MB, which RESTORE would not take with the default limits.
#[test]
#[ignore = "two servers of 700 MB each"]
fn a_list_of_600_mb_goes_into_a_server_with_default_limits() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    let mut client = source.client();
    let mut random = Random::new(3);
    for _ in 0..600 {
        let mut push = redis::cmd("RPUSH");
        push.arg("big");
        (0..100).for_each(|_| {
            push.arg(random.bytes(10_000));
        });
        push.exec(&mut client).unwrap();
    }
    let item = Item {
        key: b"big".to_vec(),
        family: Family::Redis,
        value: dump(&mut client, b"big"),
        expire_at_ms: Some(now_ms() + 1_000_000),
    };
    assert!(item.value.len() > 600_000_000);
    run(
        &mut client,
        &format!("PEXPIREAT big {}", item.expire_at_ms.unwrap()),
    );
    let before = memory_kib();
    let started = std::time::Instant::now();
    let mut writer = Writer::new(&destination, CommandLimits::default());
    let (written, _) = writer.one(&item, Replace::Always).unwrap();
    assert_eq!(written, Written::Stored);
    println!(
        "{:?}, {} KiB more",
        started.elapsed(),
        memory_kib() - before
    );
    assert!(memory_kib() - before < 16 * 1024);
    assert_equal_with(&mut client, &mut destination.client(), &Options::default());
}

/// What this process holds.
fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .expect("a number of kB")
}

#[test]
#[ignore = "a measurement"]
fn speed_of_small_values() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    const COUNT: usize = 200_000;
    let strings: Vec<Item> = (0..COUNT)
        .map(|n| string(format!("string:{n}").as_bytes(), &[b'v'; 60], None))
        .collect();
    let fields = ["name", "mail", "seen", "plan"];
    let mut value = vec![4, fields.len() as u8];
    for field in fields {
        payload::write::string(&mut value, field.as_bytes());
        payload::write::string(&mut value, b"v");
    }
    let hashes: Vec<Item> = (0..COUNT)
        .map(|n| Item {
            key: format!("hash:{n}").into_bytes(),
            family: Family::Redis,
            value: value.clone(),
            expire_at_ms: None,
        })
        .collect();
    let expiring: Vec<Item> = hashes
        .iter()
        .map(|item| Item {
            expire_at_ms: Some(now_ms() + 1_000_000),
            ..item.clone()
        })
        .collect();
    for (what, items) in [
        ("strings", &strings),
        ("hashes", &hashes),
        ("hashes with expiry", &expiring),
    ] {
        let server = TestServer::start(version);
        let mut writer = Writer::new(&server, CommandLimits::default());
        let started = std::time::Instant::now();
        for outcome in writer.pipeline(items, Replace::IfAbsent, 1000) {
            assert_eq!(outcome.unwrap().0, Written::Stored);
        }
        let commands = COUNT as f64 / started.elapsed().as_secs_f64();
        run(&mut server.client(), "FLUSHALL");
        let started = std::time::Instant::now();
        for items in items.chunks(1000) {
            let ttl = |item: &Item| item.expire_at_ms.unwrap_or(0).to_string();
            for item in items {
                let payload = payload::sign(&item.value, 10);
                writer
                    .conn
                    .queue(&[
                        b"RESTORE",
                        &item.key,
                        ttl(item).as_bytes(),
                        &payload,
                        b"ABSTTL",
                    ])
                    .unwrap();
            }
            writer.conn.flush().unwrap();
            for _ in items {
                writer.conn.item().unwrap();
            }
        }
        let restore = COUNT as f64 / started.elapsed().as_secs_f64();
        println!("{what}: {commands:.0}/s by commands, {restore:.0}/s by RESTORE");
    }
}
