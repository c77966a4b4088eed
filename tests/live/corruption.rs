//! Corrupted values whose checksum is right again: what a damaged server, a faulty library or a
//! stranger may put into an archive. Sent as they are, such payloads kill half of the servers of
//! 6.0 at once, and others when they are read. Nothing of it may reach a server.
//!
//! What is accepted must be what the tool's own decoder reads, on every server.
//! `REDIS_MIGRATE_CORRUPTIONS` raises the number of payloads.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use redis::{Connection, ConnectionLike as _, Value as Reply};
use redis_migrate_format::record::{Context, Family, KeyRecord, Record, Value};
use redis_migrate_payload::payload::meaning::{self, Lenience};
use redis_migrate_payload::payload::{self, Object};

use super::archives::archive_of;
use crate::support::dataset::{command, fill_every_type, now_ms};
use crate::support::random::Random;
use crate::support::servers::{TestServer, Version, available, require};
use crate::support::tool::Tool;

/// Corruptions that are tried unless the environment asks for more.
const DEFAULT_COUNT: usize = 20_000;

/// Fixes which bytes change and how. The values of real servers differ a little from run to run:
/// times, ids, the order of tables.
const SEED: u64 = 20_261_122;

/// Larger payloads would only dilute the damage: what matters is in the first bytes of a structure.
const MAX_SOURCE_BYTES: usize = 6_000;

/// Where a payload came from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Origin {
    is_valkey: bool,
    rdb_version: u16,
}

impl Origin {
    fn family(self) -> Family {
        if self.is_valkey {
            Family::Valkey
        } else {
            Family::Redis
        }
    }

    fn context(self) -> Context {
        Context {
            source_time_ms: 1,
            family: self.family(),
            rdb_version: self.rdb_version,
            node: 0,
        }
    }
}

/// A value and the server it came from.
#[derive(Clone)]
struct Source {
    origin: Origin,
    body: Vec<u8>,
}

/// DUMPs of every type from every server, and the collected ones.
fn sources(versions: &[Version]) -> Vec<Source> {
    let mut all = fixtures();
    for &version in versions {
        let server = TestServer::start(version);
        let mut client = server.client();
        for entry in fill_every_type(&mut client, version) {
            let select = redis::cmd("SELECT").arg(entry.db).exec(&mut client);
            select.unwrap();
            let dump: Vec<u8> = redis::cmd("DUMP")
                .arg(&entry.key)
                .query(&mut client)
                .unwrap_or_default();
            // A key that expired meanwhile has none.
            let Ok((body, rdb_version)) = payload::split(&dump) else {
                continue;
            };
            all.push(Source {
                origin: Origin {
                    is_valkey: version.is_valkey(),
                    rdb_version,
                },
                body: body.to_vec(),
            });
        }
    }
    all.retain(|source| source.body.len() <= MAX_SOURCE_BYTES);
    all
}

fn fixtures() -> Vec<Source> {
    #[derive(serde::Deserialize)]
    struct Stored {
        payload_hex: String,
    }
    let text = include_str!("../../fixtures/payloads.json");
    let servers: BTreeMap<String, BTreeMap<String, Stored>> = serde_json::from_str(text).unwrap();
    let mut all = Vec::new();
    for (server, keys) in servers {
        for stored in keys.into_values() {
            let hex = stored.payload_hex.as_bytes();
            let digit = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
            let (pairs, _) = hex.as_chunks::<2>();
            let dump: Vec<u8> = pairs
                .iter()
                .map(|p| digit(p[0]) << 4 | digit(p[1]))
                .collect();
            let (body, rdb_version) = payload::split(&dump).unwrap();
            all.push(Source {
                origin: Origin {
                    is_valkey: server.starts_with("valkey"),
                    rdb_version,
                },
                body: body.to_vec(),
            });
        }
    }
    all
}

/// Changes 1 to 3 bytes, mostly of the first ones, where the structure is. The type byte is changed
/// now and then as well, but never into a module's: that a module's value goes only where its
/// module is loaded is another test's.
fn corrupt(body: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bad = body.to_vec();
    let len = bad.len() as u64;
    for _ in 0..random.between(1, 3) {
        let first = u64::from(!random.chance(3));
        let near = len.min(48);
        let at = if first >= len || random.chance(2) {
            0
        } else if random.chance(60) && near > first {
            random.between(first, near - 1)
        } else {
            random.between(first, len - 1)
        };
        let byte = &mut bad[at as usize];
        *byte = match random.below(4) {
            0 => *byte ^ (1 << random.below(8)),
            1 => byte.wrapping_add(1),
            2 => random.pick(&[&[0_u8][..], &[0xff], &[0x7f], &[0x80], &[0xfe]])[0],
            _ => random.next_u64() as u8,
        };
    }
    if random.chance(5) {
        // Bytes are lost or added at the end, the footer being put behind what is left.
        match random.below(2) {
            0 => bad.truncate((len - random.below(len.min(8))).max(1) as usize),
            _ => bad.extend(random.bytes(3)),
        }
    }
    if matches!(bad[0], 6 | 7) {
        bad[0] = body[0];
    }
    bad
}

/// A corrupted value: its key is its number.
struct Bad {
    source: Source,
    key: String,
}

fn campaign(sources: &[Source], count: usize) -> Vec<Bad> {
    let mut random = Random::new(SEED);
    (0..count)
        .map(|n| {
            let mut source = sources[random.below(sources.len() as u64) as usize].clone();
            source.body = corrupt(&source.body, &mut random);
            Bad {
                source,
                key: format!("bad:{n:06}"),
            }
        })
        .collect()
}

/// Every value twice: as the payload a server would have sent, and without its footer.
fn packed(bad: &[Bad]) -> Vec<u8> {
    let mut by_origin: BTreeMap<Origin, Vec<Record>> = BTreeMap::new();
    for Bad { source, key } in bad {
        let records = by_origin.entry(source.origin).or_default();
        let mut push = |form: &str, value| {
            records.push(Record::Key(KeyRecord {
                db: 0,
                key: format!("{key}:{form}").into_bytes(),
                value,
                expire_at_ms: None,
                eviction: None,
            }));
        };
        let dump = payload::sign(&source.body, source.origin.rdb_version);
        push("verbatim", Value::Verbatim(dump));
        push("compact", Value::Compact(source.body.clone()));
    }
    let frames: Vec<(Context, Vec<Record>)> = by_origin
        .into_iter()
        .map(|(origin, records)| (origin.context(), records))
        .collect();
    archive_of(&frames)
}

#[test]
fn corrupted_values_kill_no_server_and_become_no_nonsense() {
    let count = std::env::var("REDIS_MIGRATE_CORRUPTIONS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(DEFAULT_COUNT);
    let versions = available();
    let sources = sources(&versions);
    let bad = campaign(&sources, count);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), packed(&bad)).unwrap();
    println!(
        "seed {SEED}: {count} corruptions of {} values, each verbatim and compact",
        sources.len()
    );
    let by_key: BTreeMap<&str, &Source> = bad
        .iter()
        .map(|bad| (bad.key.as_str(), &bad.source))
        .collect();
    // Servers side by side: each has a thread of its own anyhow.
    std::thread::scope(|scope| {
        for &version in &versions {
            let (by_key, file) = (&by_key, file.path());
            scope.spawn(move || {
                let mut server = TestServer::start(version);
                // 6.0 and the newest have no such option.
                let _ = redis::cmd("CONFIG")
                    .arg(&["SET", "sanitize-dump-payload", "no"])
                    .exec(&mut server.client());
                let started = Instant::now();
                let output = Tool::new(&["import", &server.url(), "--allow-loss", "hash-field-ttl"])
                    .arg(file)
                    .run();
                assert!(
                    server.is_running(),
                    "{version} died of the import:\n{}",
                    output.stderr
                );
                let output = output.expect_code(3);
                let imported = started.elapsed();
                let accepted = read_back(&mut server, by_key);
                assert!(server.is_running(), "{version} died when it was read");
                println!(
                    "{version}: {accepted} of {} accepted, imported in {imported:.1?}, read in {:.1?}",
                    2 * by_key.len(),
                    started.elapsed() - imported
                );
                assert!(accepted > 0, "{version}:\n{}", output.stderr);
            });
        }
    });
}

/// Reads every key in every way that walks all of it, and compares its value with what the tool's
/// decoder reads of the corrupted original. The number of keys.
fn read_back(server: &mut TestServer, by_key: &BTreeMap<&str, &Source>) -> usize {
    let version = server.version();
    let mut client = server.client();
    // A server that hangs is as bad as one that dies.
    let limit = Some(Duration::from_secs(20));
    client.set_read_timeout(limit).unwrap();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut client).unwrap();
    for key in &keys {
        let mut ask = |parts: &[&str]| {
            let reply = query(&mut client, parts);
            reply.unwrap_or_else(|error| {
                panic!("{version}, {key}, {}: {error}", parts[0]);
            })
        };
        ask(&["RANDOMKEY"]);
        ask(&["OBJECT", "ENCODING", key]);
        for parts in full_reads(&ask(&["TYPE", key]), key) {
            ask(&parts);
        }
        let Reply::BulkString(dump) = ask(&["DUMP", key]) else {
            // A hash whose last field expired while we read it.
            continue;
        };
        let source = by_key[&key[..key.rfind(':').unwrap()]];
        compare(version, key, source, &dump);
    }
    save_and_flush(&mut client);
    keys.len()
}

fn query(client: &mut Connection, parts: &[&str]) -> redis::RedisResult<Reply> {
    let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
    let mut packed = Vec::new();
    command(&mut packed, &parts);
    client.req_packed_command(&packed)
}

/// Writing everything to disk and freeing it walk all values once more.
fn save_and_flush(client: &mut Connection) {
    for name in ["SAVE", "FLUSHALL", "PING"] {
        redis::cmd(name).exec(client).unwrap();
    }
}

/// Commands that walk the whole value, front to back and back to front.
fn full_reads<'a>(kind: &Reply, key: &'a str) -> Vec<Vec<&'a str>> {
    let kind = match kind {
        Reply::SimpleString(kind) => kind.as_str(),
        _ => "",
    };
    match kind {
        "string" => vec![vec!["GET", key], vec!["STRLEN", key]],
        "list" => vec![
            vec!["LRANGE", key, "0", "-1"],
            vec!["LINDEX", key, "-1"],
            vec!["LPOS", key, "no such element", "RANK", "-1"],
        ],
        "set" => vec![
            vec!["SMEMBERS", key],
            vec!["SRANDMEMBER", key, "-20"],
            vec!["SISMEMBER", key, "no such member"],
        ],
        "zset" => vec![
            vec!["ZRANGE", key, "0", "-1", "WITHSCORES"],
            vec!["ZREVRANGE", key, "0", "-1", "WITHSCORES"],
            vec!["ZRANGEBYSCORE", key, "-inf", "+inf"],
            vec!["ZSCORE", key, "no such member"],
        ],
        "hash" => vec![
            vec!["HGETALL", key],
            vec!["HGET", key, "no such field"],
            vec!["HSCAN", key, "0", "COUNT", "100000"],
        ],
        "stream" => vec![
            vec!["XINFO", "STREAM", key, "FULL", "COUNT", "0"],
            vec!["XRANGE", key, "-", "+"],
            vec!["XREVRANGE", key, "+", "-"],
        ],
        _ => Vec::new(),
    }
}

/// The value that stands must be the one that the decoder reads of what was sent.
fn compare(version: Version, key: &str, source: &Source, dump: &[u8]) {
    let family = if version.is_valkey() {
        Family::Valkey
    } else {
        Family::Redis
    };
    let (body, _) = payload::split(dump).unwrap();
    let mut there = payload::decode(family, body)
        .unwrap_or_else(|error| panic!("{version}, {key}: its DUMP cannot be read: {error}"));
    let mut sent = payload::decode(source.origin.family(), &source.body)
        .unwrap_or_else(|error| panic!("{version}, {key} was sent although {error}"));
    // A field past its time is left out on the way, and may stand in a DUMP until somebody looks.
    let now_ms = now_ms();
    // The latest moment that Redis takes, in the year 10889.
    let latest = |at: u64| at.min((1 << 48) - 1);
    for object in [&mut sent, &mut there] {
        if let Object::Hash(fields) = object {
            fields.retain(|field| field.expire_at_ms.is_none_or(|at| at > now_ms));
            for field in fields {
                field.expire_at_ms = field.expire_at_ms.map(latest);
            }
        }
    }
    let lenience = Lenience {
        ignore_field_ttls: !version.has_field_ttl(),
        ..Lenience::default()
    };
    let difference = meaning::difference_but(&sent, &there, lenience);
    if let Some(difference) = difference {
        let hex: String = source
            .body
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        panic!(
            "{version}, {key} of {:?}: sent against there: {difference}\n{} bytes: {hex}",
            source.origin,
            source.body.len()
        );
    }
}

/// The control group: the same payloads without the tool in between. If they did no harm here, the
/// campaign would prove nothing.
#[test]
fn sent_as_they_are_corrupted_values_kill_a_server() {
    let Some(version) = require(Version::Redis60) else {
        return;
    };
    let bad = campaign(&sources(&[version]), 400);
    let server = TestServer::start(version);
    let mut client = server.client();
    let limit = Some(Duration::from_secs(5));
    client.set_read_timeout(limit).unwrap();
    let survived = bad.iter().all(|Bad { source, key }| {
        let dump = payload::sign(&source.body, 9);
        let mut restore = redis::cmd("RESTORE");
        restore.arg(key).arg(0).arg(dump);
        match restore.exec(&mut client) {
            Ok(()) => true,
            // An answer, not a broken connection and not silence.
            Err(error) => !error.is_io_error(),
        }
    });
    assert!(!survived, "{version} survived it all");
}
