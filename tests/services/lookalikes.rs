//! Servers that call themselves Redis and are none: Dragonfly, Garnet, Kvrocks, KeyDB. What their
//! published sources say of INFO, DUMP, RESTORE and what they lack is *imitated* by a proxy in front
//! of a real server; none of them was there to ask. What is known, and from where, stands in
//! `src/dialect/lookalike.rs`.
//!
//! Each as source and as destination: what goes arrives, what does not is named, nothing is
//! misread, and `--dry-run` and `doctor` say beforehand what the run does.

use redis_migrate_payload::payload::{sign, split};

use crate::support::dataset::fill_every_type;
use crate::support::equality::assert_only_missing;
use crate::support::servers::{Builder, TestServer, Version, require};
use crate::support::tool::{Output, run};
use crate::support::toy::{Deed, Toy, Words};

/// One of them.
struct Profile {
    name: &'static str,
    /// As the tool names it.
    title: &'static str,
    /// What stands behind the proxy.
    behind: Version,
    options: &'static [(&'static str, &'static str)],
    judge: fn(&Words) -> Deed,
    /// Its INFO.
    info: fn(Vec<u8>) -> Vec<u8>,
    /// What it makes of the answers in which payloads come.
    dumps: fn(Vec<u8>) -> Vec<u8>,
}

const DRAGONFLY: Profile = Profile {
    name: "Dragonfly df-v1.30.0",
    title: "Dragonfly df-v1.30.0 (calls itself Redis 7.4.0)",
    behind: Version::Redis80,
    options: &[],
    judge: dragonfly,
    // server_family.cc, FormatInfoMetrics: no run_id.
    info: |reply| {
        edit_info(
            &reply,
            "7.4.0",
            "dragonfly_version:df-v1.30.0\r\n",
            &["run_id:"],
        )
    },
    dumps: |reply| edit_payloads(&reply, |body| Said::Payload(as_dragonfly(body), 9)),
};

const GARNET: Profile = Profile {
    name: "Garnet 1.0.84",
    title: "Garnet 1.0.84 (calls itself Redis 7.4.3)",
    behind: Version::Redis80,
    options: &[("--rdbcompression", "no")],
    judge: garnet,
    // GarnetInfoMetrics.cs: INFO without a section has no keyspace.
    info: |reply| {
        let fields = "garnet_version:1.0.84\r\nserver_name:garnet\r\n";
        edit_info(&reply, "7.4.3", fields, &["# Keyspace", "db"])
    },
    // KeyAdminCommands.cs, NetworkDUMP.
    dumps: |reply| {
        edit_payloads(&reply, |body| match body[0] {
            0 => Said::Payload(body.to_vec(), 11),
            _ => Said::Nil,
        })
    },
};

const KVROCKS: Profile = Profile {
    name: "Kvrocks 2.10.0",
    title: "Kvrocks 2.10.0 (calls itself Redis 4.0.0)",
    behind: Version::Redis60,
    // So that it writes the types that Kvrocks does: 0, 2, 4, 5, 14.
    options: &[
        ("--hash-max-ziplist-entries", "0"),
        ("--zset-max-ziplist-entries", "0"),
        ("--set-max-intset-entries", "0"),
    ],
    judge: kvrocks,
    // server.cc, GetInfo: what it counts is as old as the last DBSIZE SCAN.
    info: |reply| {
        let reply = edit_info(&reply, "4.0.0", "kvrocks_version:2.10.0\r\n", &["db"]);
        let text = String::from_utf8_lossy(bulk(&reply)).into_owned();
        let never = "# Keyspace\r\n# WARN: DBSIZE SCAN never performed yet\r\n\
                     db0:keys=0,expires=0,avg_ttl=0,expired=0\r\n";
        pack(text.replace("# Keyspace\r\n", never).as_bytes())
    },
    // rdb.cc, Dump and SaveObjectType.
    dumps: |reply| {
        edit_payloads(&reply, |body| match body[0] {
            15 | 19 | 21 => Said::Error("-ERR Invalid or Not supported object type\r\n"),
            _ => Said::Payload(body.to_vec(), 6),
        })
    },
};

/// Kvrocks again, before a server that reads what it reads.
const KVROCKS_TO: Profile = Profile {
    behind: Version::Redis80,
    options: &[],
    ..KVROCKS
};

const KEYDB: Profile = Profile {
    name: "KeyDB 6.3.4",
    title: "KeyDB 6.3.4",
    behind: Version::Redis60,
    options: &[],
    judge: keydb,
    info: |reply| {
        let text = String::from_utf8_lossy(bulk(&reply)).into_owned();
        let reply = pack(format!("{text}\r\n# KeyDB\r\nmvcc_depth:0\r\n").as_bytes());
        edit_info(&reply, "6.3.4", "", &[])
    },
    // cluster.cpp, createDumpPayload.
    dumps: |reply| {
        edit_payloads(&reply, |body| {
            let field = b"\xfa\x0bmvcc-tstamp\x131871646719795724288";
            Said::Payload([body, field].concat(), 9)
        })
    },
};

/// Hashes with fields that expire are of a type of its own (rdb_save.cc, RDB_TYPE_HASH_WITH_EXPIRY).
fn as_dragonfly(body: &[u8]) -> Vec<u8> {
    match body[0] {
        24 | 25 => [&[31], &body[1..]].concat(),
        _ => body.to_vec(),
    }
}

fn is(words: &Words, command: &[&str]) -> bool {
    let same = |(word, name): (&Vec<u8>, &&str)| word.eq_ignore_ascii_case(name.as_bytes());
    words.len() >= command.len() && words.iter().zip(command).all(same)
}

fn is_absolute(words: &Words) -> bool {
    words[4..]
        .iter()
        .any(|word| word.eq_ignore_ascii_case(b"ABSTTL"))
}

/// Whether the expiry of a RESTORE with ABSTTL is past.
fn is_past(words: &Words) -> bool {
    let number = std::str::from_utf8(&words[2]).ok();
    is_absolute(words)
        && number.is_some_and(|text| text.parse().is_ok_and(|ms: u64| (1..1000).contains(&ms)))
}

fn dragonfly(words: &Words) -> Deed {
    match &words[0][..] {
        b"CLIENT" if is(words, &["CLIENT", "TRACKING"]) => Deed::answer("-ERR syntax error"),
        b"CLIENT" if is(words, &["CLIENT", "NO-TOUCH"]) => {
            Deed::answer("-ERR Unknown subcommand or wrong number of arguments for 'NO-TOUCH'")
        }
        b"FUNCTION" => Deed::answer("-ERR Unknown subcommand or wrong number of arguments"),
        b"PSYNC" | b"SYNC" => Deed::answer("-ERR unknown command `PSYNC`"),
        b"HPEXPIREAT" => Deed::answer("-ERR unknown command `HPEXPIREAT`"),
        b"RESTORE" if words.len() >= 4 => match split(&words[3]) {
            Ok((_, 0..=12)) if is_past(words) => Deed::answer("+OK"),
            Ok((body, 0..=12)) if matches!(body.first(), Some(0..=5 | 9..=21)) => Deed::Pass,
            Ok((_, 0..=12)) => Deed::answer("-ERR Bad data format"),
            _ => Deed::answer("-ERR DUMP payload version or checksum are wrong"),
        },
        _ => Deed::Pass,
    }
}

fn garnet(words: &Words) -> Deed {
    match &words[0][..] {
        b"CLIENT" if is(words, &["CLIENT", "TRACKING"]) || is(words, &["CLIENT", "NO-TOUCH"]) => {
            Deed::answer("-ERR unknown subcommand 'TRACKING'. Try CLIENT HELP")
        }
        b"FUNCTION" | b"WAIT" | b"PSYNC" | b"SYNC" => Deed::answer("-ERR unknown command"),
        name if name.starts_with(b"X") => Deed::answer("-ERR unknown command"),
        b"RESTORE" if words.len() != 4 => {
            Deed::answer("-ERR wrong number of arguments for 'RESTORE' command")
        }
        // It takes the TTL for seconds: never to be sent.
        b"RESTORE" => Deed::Close,
        _ => Deed::Pass,
    }
}

fn kvrocks(words: &Words) -> Deed {
    match &words[0][..] {
        // It stays where it is.
        b"SELECT" => Deed::answer("+OK"),
        b"CLIENT" if is(words, &["CLIENT", "TRACKING"]) || is(words, &["CLIENT", "NO-TOUCH"]) => {
            Deed::answer("-ERR Syntax error, try CLIENT LIST")
        }
        b"FUNCTION" if is(words, &["FUNCTION", "DUMP"]) => Deed::answer("-ERR no such subcommand"),
        b"HPEXPIREAT" | b"WAIT" => Deed::answer("-ERR unknown command `x`, with args"),
        b"HELLO" => Deed::answer("-NOPROTO unsupported protocol version"),
        b"RESTORE" if words[4..].iter().any(|word| word.starts_with(b"NOT")) => {
            Deed::answer("-ERR syntax error")
        }
        b"RESTORE" if words.len() >= 4 && is_past(words) => Deed::answer("+OK"),
        b"RESTORE" if words.len() >= 4 => match split(&words[3]) {
            Ok((body, 0..=12)) if matches!(body.first(), Some(0..=5 | 9..=14 | 16..=18 | 20)) => {
                Deed::Edit(|reply| match reply.starts_with(b"-BUSYKEY") {
                    true => b"-ERR target key name already exists.\r\n".to_vec(),
                    false => reply,
                })
            }
            Ok((body, 0..=12)) => Deed::answer(&format!("-ERR unsupported type: {}", body[0])),
            _ => Deed::answer("-ERR invalid or unsupported rdb version"),
        },
        _ => Deed::Pass,
    }
}

fn keydb(words: &Words) -> Deed {
    match &words[0][..] {
        // It has RESP3; this proxy passes on nothing that is pushed.
        b"HELLO" => Deed::answer("-NOPROTO unsupported protocol version"),
        _ => Deed::Pass,
    }
}

/// The content of a bulk string.
fn bulk(reply: &[u8]) -> &[u8] {
    let end = reply
        .iter()
        .position(|byte| *byte == b'\n')
        .expect("a head");
    &reply[end + 1..reply.len() - 2]
}

fn pack(content: &[u8]) -> Vec<u8> {
    let head = format!("${}\r\n", content.len()).into_bytes();
    [&head, content, b"\r\n"].concat()
}

/// INFO with another version of Redis, more fields and without lines that begin so.
fn edit_info(reply: &[u8], version: &str, fields: &str, without: &[&str]) -> Vec<u8> {
    if !reply.starts_with(b"$") {
        return reply.to_vec();
    }
    let text = String::from_utf8_lossy(bulk(reply)).into_owned();
    let mut edited = String::new();
    for line in text.lines() {
        match line.split_once(':') {
            Some(("redis_version", _)) => edited += &format!("redis_version:{version}\r\n{fields}"),
            _ if without.iter().any(|start| line.starts_with(start)) => {}
            _ => edited += &format!("{line}\r\n"),
        }
    }
    pack(edited.as_bytes())
}

/// What DUMP says.
enum Said {
    /// A value, with a footer of this version.
    Payload(Vec<u8>, u16),
    Nil,
    Error(&'static str),
}

/// Says something else in the place of every payload of an answer, be it DUMP's or EXEC's.
fn edit_payloads(reply: &[u8], edit: fn(&[u8]) -> Said) -> Vec<u8> {
    let mut edited = Vec::new();
    let mut rest = reply;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').expect("a head") + 1;
        let (head, after) = rest.split_at(end);
        let len = std::str::from_utf8(&head[1..end - 2]).ok();
        let len: Option<usize> = len.and_then(|len| len.parse().ok());
        let (Some(b'$'), Some(len)) = (head.first(), len) else {
            edited.extend_from_slice(head);
            rest = after;
            continue;
        };
        let (content, after) = after.split_at(len + 2);
        match split(&content[..len]) {
            Ok((body, 9..=12)) if !body.is_empty() => match edit(body) {
                Said::Payload(body, version) => edited.extend(pack(&sign(&body, version))),
                Said::Nil => edited.extend_from_slice(b"$-1\r\n"),
                Said::Error(text) => edited.extend_from_slice(text.as_bytes()),
            },
            _ => edited.extend_from_slice(&[head, content].concat()),
        }
        rest = after;
    }
    edited
}

/// A real server and the proxy that makes it look like another.
struct Imitated {
    real: TestServer,
    proxy: Toy,
}

impl Profile {
    fn builder(&self) -> Option<Builder> {
        let builder = TestServer::builder(require(self.behind)?);
        let options = self.options.iter();
        Some(options.fold(builder, |builder, (name, value)| {
            builder.option(name, value)
        }))
    }

    fn start(&self) -> Option<Imitated> {
        let real = self.builder()?.start();
        let (judge, info, dumps) = (self.judge, self.info, self.dumps);
        let proxy = Toy::start(real.addr(), move |words| {
            match (judge(words), &words[0][..]) {
                (Deed::Pass, b"INFO") => Deed::Edit(info),
                (Deed::Pass, b"DUMP" | b"EXEC") => Deed::Edit(dumps),
                (deed, _) => deed,
            }
        });
        Some(Imitated { real, proxy })
    }
}

/// A source with every type, in several databases unless it has only one.
fn source(profile: &Profile) -> Option<Imitated> {
    let imitated = profile.start()?;
    fill_every_type(&mut imitated.real.client(), profile.behind);
    if profile.name == KVROCKS.name {
        for db in 1..16 {
            redis::cmd("FLUSHDB")
                .exec(&mut imitated.real.client_db(db))
                .unwrap();
        }
    }
    Some(imitated)
}

/// How many values of a database the real server dumps as one of these types.
fn bodies_of(server: &TestServer, db: u32, types: &[u8]) -> usize {
    let mut client = server.client_db(db);
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query(&mut client).unwrap();
    let mut is_one = |key: &Vec<u8>| {
        let dump: Option<Vec<u8>> = redis::cmd("DUMP").arg(key).query(&mut client).unwrap();
        dump.is_some_and(|dump| types.contains(&dump[0]))
    };
    keys.iter().filter(|key| is_one(key)).count()
}

/// How many hashes of a database have fields that expire.
fn expiring_hashes(server: &TestServer, db: u32) -> usize {
    let mut client = server.client_db(db);
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query(&mut client).unwrap();
    let mut expires = |key: &Vec<u8>| {
        let names: redis::RedisResult<Vec<Vec<u8>>> =
            redis::cmd("HKEYS").arg(key).query(&mut client);
        let Ok(names) = names else { return false };
        let mut ask = redis::cmd("HPEXPIRETIME");
        ask.arg(key).arg("FIELDS").arg(names.len()).arg(names);
        let at: redis::RedisResult<Vec<i64>> = ask.query(&mut client);
        at.is_ok_and(|at| at.iter().any(|ms| *ms > 0))
    };
    keys.iter().filter(|key| expires(key)).count()
}

/// The keys of all databases.
fn all_keys(server: &TestServer) -> u64 {
    let count = |db| -> u64 {
        let mut client = server.client_db(db);
        redis::cmd("DBSIZE").query(&mut client).unwrap()
    };
    (0..16).map(count).sum()
}

/// So many keys are named on stderr.
const NAMED: usize = 20;

/// What does not come through: what the real server dumps as one of these types.
struct Lost {
    /// The source does not give it.
    unread: &'static [u8],
    /// The source gives what nobody else has, and no destination is offered it.
    opaque: &'static [u8],
    /// How each is named.
    why: &'static str,
}

/// Exports it, imports that, copies it, and looks at it again.
fn as_source(profile: &Profile, lost: &Lost) {
    let Some(imitated) = source(profile) else {
        return;
    };
    let url = imitated.proxy.url();
    let count = |types| -> usize { (0..16).map(|db| bodies_of(&imitated.real, db, types)).sum() };
    let (unread, opaque) = (count(lost.unread), count(lost.opaque));
    let code = |is_whole: bool| if is_whole { 0 } else { 3 };
    let names = |output: &Output| {
        let lines = output.stderr.lines();
        let named = lines.filter(|line| line.contains("key_") && line.contains(lost.why));
        named.count()
    };
    let doctor = run(&["doctor", &url], b"").success();
    let report = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(report.contains(profile.title), "{report}");

    let export = run(&["export", &url, "--json"], b"").expect_code(code(unread == 0));
    assert_eq!(export.summary()["source"]["failed"], unread);
    assert_eq!(names(&export), unread.min(NAMED), "{}", export.stderr);
    let nowhere = "and they are written to none";
    assert_eq!(
        export.stderr.contains(nowhere),
        opaque > 0,
        "{}",
        export.stderr
    );
    let inspect = run(&["inspect", "-"], &export.stdout);
    let inspect = String::from_utf8_lossy(&inspect.stdout).into_owned();
    assert!(inspect.contains(profile.name), "{inspect}");
    assert!(!inspect.contains("unknown server"), "{inspect}");

    for version in [Version::Redis70, Version::Redis80, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        let destination = TestServer::start(version);
        let to = destination.url();
        let import = |more: &[&str]| {
            let arguments = [&["import", &to, "--json"], more].concat();
            let import = run(&arguments, &export.stdout).expect_code(code(opaque == 0));
            assert_eq!(
                names(&import),
                opaque.min(NAMED),
                "{version}: {}",
                import.stderr
            );
            import.summary()["sink"]["restored"].as_u64().unwrap()
        };
        let planned = import(&["--dry-run"]);
        assert_eq!(import(&[]), planned);
        assert_only_missing(&imitated.real, &destination, unread + opaque);
        assert_eq!(import(&[]), 0);

        let destination = TestServer::start(version);
        let to = destination.url();
        let lost = unread + opaque;
        for arguments in [
            &["copy", &url, &to, "--json", "--verify"][..],
            &["copy", &url, &to, "--json"],
        ] {
            let copy = run(arguments, b"").expect_code(code(lost == 0));
            assert!(
                names(&copy) >= lost.min(NAMED),
                "{version}: {}",
                copy.stderr
            );
            assert_only_missing(&imitated.real, &destination, lost);
        }
    }
}

/// What KeyDB adds to DUMP is no change of a key.
#[test]
fn keys_of_keydb_are_deleted_once_they_were_copied() {
    let (Some(imitated), Some(version)) = (KEYDB.start(), require(Version::Redis70)) else {
        return;
    };
    for key in ["a", "b", "c"] {
        let mut client = imitated.real.client();
        let set = redis::cmd("SET").arg(key).arg("v").exec(&mut client);
        set.expect("SET");
    }
    let destination = TestServer::start(version);
    let (from, to) = (imitated.proxy.url(), destination.url());
    let copy = ["copy", &from, &to, "--json", "--delete-source"];
    let sink = run(&copy, b"").success().summary()["sink"].clone();
    assert_eq!(sink["source_deleted"], 3, "{sink}");
    let mut client = imitated.real.client();
    let left: u64 = redis::cmd("DBSIZE").query(&mut client).expect("DBSIZE");
    assert_eq!(left, 0);
}

#[test]
fn from_keydb() {
    let lost = Lost {
        unread: &[],
        opaque: &[],
        why: "no such",
    };
    as_source(&KEYDB, &lost);
}

#[test]
fn from_dragonfly() {
    // Type 31 is its own, and a hash template in Redis 8.10.
    let lost = Lost {
        unread: &[],
        opaque: &[24, 25],
        why: "values of type 31",
    };
    as_source(&DRAGONFLY, &lost);
}

#[test]
fn from_garnet() {
    const OTHERS: [u8; 24] = [
        1, 2, 3, 4, 5, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26,
    ];
    let lost = Lost {
        unread: &OTHERS,
        opaque: &[],
        why: "dumps no values of this type",
    };
    as_source(&GARNET, &lost);
}

#[test]
fn from_kvrocks() {
    let lost = Lost {
        unread: &[15],
        opaque: &[],
        why: "Invalid or Not supported object type",
    };
    as_source(&KVROCKS, &lost);
    // It says OK to every SELECT, and answers with the keys of database 0.
    let Some(imitated) = source(&KVROCKS) else {
        return;
    };
    let third = format!("{}/3", imitated.proxy.url());
    let export = run(&["export", &third], b"");
    assert_ne!(export.code(), Some(0), "{}", export.stderr);
    assert!(
        export.stderr.contains("Kvrocks has database 0 only"),
        "{}",
        export.stderr
    );
}

/// What a look-alike does not take of an archive.
struct Taken {
    /// Streams are refused by name, in these words.
    streams: Option<&'static str>,
    /// Hashes with fields that expire are refused by name.
    has_no_field_ttl: bool,
    /// What is said of a key that lives for longer than it lets any.
    cuts: Option<&'static str>,
    /// What the run says about RESTORE, if it does without.
    without_restore: Option<&'static str>,
}

/// A source of this version; with one database only, if need be.
fn real_source(version: Version, one_database: bool) -> TestServer {
    let source = TestServer::start(version);
    fill_every_type(&mut source.client(), version);
    redis::cmd("FUNCTION")
        .arg("FLUSH")
        .exec(&mut source.client())
        .unwrap();
    for db in 1..16 {
        if one_database {
            let mut client = source.client_db(db);
            redis::cmd("FLUSHDB").exec(&mut client).unwrap();
        }
    }
    source
}

/// Imports and copies into it, twice; dry runs and `doctor` say beforehand what comes of it.
fn as_destination(profile: &Profile, taken: &Taken) {
    for version in [Version::Redis70, Version::Redis80] {
        let Some(version) = require(version) else {
            continue;
        };
        let Some(imitated) = profile.start() else {
            return;
        };
        let to = imitated.proxy.url();
        let source = real_source(version, profile.name == KVROCKS.name);
        let count = |of: fn(&TestServer, u32) -> usize| (0..16).map(|db| of(&source, db)).sum();
        let streams: usize = match taken.streams {
            Some(_) => count(|server, db| bodies_of(server, db, &[15, 19, 21])),
            None => 0,
        };
        let hashes: usize = match taken.has_no_field_ttl {
            true => count(expiring_hashes),
            false => 0,
        };
        let refused = streams + hashes;
        let code = if refused > 0 { 3 } else { 0 };
        let export = run(
            &[
                "export",
                &source.url(),
                "--no-functions",
                "--consistency",
                "scan",
            ],
            b"",
        )
        .success();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &export.stdout).unwrap();

        let name = file.path().to_str().unwrap();
        let doctor = run(&["doctor", "--json", &to, name], b"");
        let report: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
        assert_eq!(doctor.code(), Some(code), "{:#}", report["archive"]);
        assert_eq!(report["server"]["title"], profile.title, "{report:#}");
        assert_eq!(
            report["archive"]["refused"], refused,
            "{:#}",
            report["archive"]
        );

        let import = |more: &[&str]| {
            let arguments = [&["import", &to, "--json"], more].concat();
            let import = run(&arguments, &export.stdout).expect_code(code);
            let sink = &import.summary()["sink"];
            assert_eq!(sink["refused"], refused, "{version}: {}", import.stderr);
            let named = |why| {
                import
                    .stderr
                    .lines()
                    .filter(|line| line.contains(why))
                    .count()
            };
            if let Some(why) = taken.streams {
                assert_eq!(named(why), streams, "{version}: {}", import.stderr);
            }
            assert_eq!(
                named("has no expiry of fields"),
                hashes,
                "{version}: {}",
                import.stderr
            );
            for text in taken.without_restore.into_iter().chain(taken.cuts) {
                assert_eq!(import.stderr.matches(text).count(), 1, "{}", import.stderr);
            }
            (sink["restored"].clone(), sink["left_standing"].clone())
        };
        let planned = import(&["--dry-run"]);
        assert_eq!(import(&[]), planned, "{version}");
        assert_only_missing(&source, &imitated.real, refused);

        // The same by copy, and once more.
        let imitated = profile.start().unwrap();
        let (from, to) = (source.url(), imitated.proxy.url());
        for verify in [&[][..], &["--verify"]] {
            let arguments = [&["copy", &from, &to, "--json"], verify].concat();
            run(&arguments, b"").expect_code(code);
            assert_only_missing(&source, &imitated.real, refused);
        }
    }
}

#[test]
fn to_keydb() {
    let taken = Taken {
        streams: None,
        has_no_field_ttl: true,
        cuts: None,
        without_restore: None,
    };
    as_destination(&KEYDB, &taken);
}

#[test]
fn to_dragonfly() {
    let taken = Taken {
        streams: None,
        has_no_field_ttl: true,
        cuts: Some("Dragonfly lets no key live longer than 3106 days"),
        without_restore: None,
    };
    as_destination(&DRAGONFLY, &taken);
}

#[test]
fn to_kvrocks() {
    let taken = Taken {
        streams: Some("has no stream in any form"),
        has_no_field_ttl: true,
        cuts: None,
        without_restore: None,
    };
    as_destination(&KVROCKS_TO, &taken);
    let Some(imitated) = KVROCKS_TO.start() else {
        return;
    };
    let source = real_source(KVROCKS_TO.behind, false);
    let (from, to) = (source.url(), imitated.proxy.url());
    for more in [&[][..], &["--dry-run"]] {
        let copy = run(&[&["copy", &from, &to], more].concat(), b"").expect_code(2);
        assert!(copy.stderr.contains("Kvrocks, which has only database 0"));
    }
    assert_eq!(all_keys(&imitated.real), 0);
    let export = run(&["export", &from, "--db", "1"], b"").success();
    run(&["import", &to], &export.stdout).expect_code(2);
    assert_eq!(all_keys(&imitated.real), 0);
}

/// By native commands, which keep what RESTORE of Garnet does not.
#[test]
fn to_garnet() {
    let taken = Taken {
        streams: Some("the destination has no streams"),
        has_no_field_ttl: false,
        cuts: None,
        without_restore: Some("has no RESTORE with ABSTTL; writing by native commands"),
    };
    as_destination(&GARNET, &taken);
}

/// KeyDB's file says of each key when it changed, and behind it which of its members expire
/// (rdb.cpp, rdbSaveKeyValuePair): fields that a file of Redis does not have, put into one here.
#[test]
fn from_a_file_of_keydb() {
    let Some(version) = require(Version::Redis60) else {
        return;
    };
    let source = TestServer::start(version);
    fill_every_type(&mut source.client(), version);
    redis::cmd("SAVE").exec(&mut source.client()).unwrap();
    let file = source.path().join("dump.rdb");
    let whole = std::fs::read(&file).unwrap();
    let body = &whole[..whole.len() - 9];
    let changed = b"\xfa\x0bmvcc-tstamp\x131871646719795724288";
    let expiry = b"\xfa\x13keydb-subexpire-key\x01m\xfa\x14keydb-subexpire-when\x0d1871646719795";
    for (fields, code) in [(changed.to_vec(), 0), ([&changed[..], expiry].concat(), 3)] {
        let mut edited = [body, &fields[..], b"\xff"].concat();
        let crc = redis_migrate_payload::payload::crc64::crc64(&edited);
        edited.extend_from_slice(&crc.to_le_bytes());
        std::fs::write(&file, &edited).unwrap();
        let export = run(&["export", file.to_str().unwrap()], b"").expect_code(code);
        let said = "1 of them live as long as their keys";
        assert_eq!(export.stderr.contains(said), code == 3, "{}", export.stderr);
        let destination = TestServer::start(version);
        run(&["import", &destination.url()], &export.stdout);
        assert_only_missing(&source, &destination, 0);
    }
}
