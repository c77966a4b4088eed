//! Tests of what the other tests stand on: the servers start, the data set holds every
//! encoding, equality sees every kind of difference, the proxy fails as told.
//!
//! Nothing of the tool itself is tested here.

#[path = "../support/mod.rs"]
mod support;

mod clusters;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use redis::{Commands as _, Connection, Value};
use support::dataset::{self, Entry};
use support::equality::{self, Kind, Options};
use support::many;
use support::proxy::{Direction, Proxy, Rules};
use support::servers::{self, TestServer, Version};
use support::tool;

/// Moves the entries with DUMP and RESTORE, and the libraries with FUNCTION DUMP.
fn transfer(entries: &[Entry], version: Version, from: &mut Connection, into: &mut Connection) {
    for entry in entries {
        for side in [&mut *from, &mut *into] {
            redis::cmd("SELECT")
                .arg(entry.db)
                .exec(side)
                .expect("SELECT");
        }
        let payload: Vec<u8> = redis::cmd("DUMP")
            .arg(&entry.key)
            .query(from)
            .expect("DUMP");
        let ttl: i64 = if version.is_at_least_7() {
            let ask = redis::cmd("PEXPIRETIME").arg(&entry.key).query::<i64>(from);
            ask.expect("PEXPIRETIME")
        } else {
            let left: i64 = redis::cmd("PTTL")
                .arg(&entry.key)
                .query(from)
                .expect("PTTL");
            left + if left > 0 {
                i64::try_from(dataset::now_ms()).expect("a date")
            } else {
                0
            }
        };
        let mut restore = redis::cmd("RESTORE");
        restore
            .arg(&entry.key)
            .arg(ttl.max(0))
            .arg(payload)
            .arg("ABSTTL");
        restore.exec(into).expect("RESTORE");
    }
    if version.is_at_least_7() {
        let libraries: Vec<u8> = redis::cmd("FUNCTION")
            .arg("DUMP")
            .query(from)
            .expect("DUMP");
        let mut restore = redis::cmd("FUNCTION");
        restore
            .arg("RESTORE")
            .arg(libraries)
            .exec(into)
            .expect("RESTORE");
    }
    for side in [from, into] {
        redis::cmd("SELECT").arg(0).exec(side).expect("SELECT");
    }
}

/// Two servers of a version with the same in them.
fn twins(version: Version) -> (TestServer, TestServer, Vec<Entry>) {
    let (left, right) = (TestServer::start(version), TestServer::start(version));
    let entries = dataset::fill_every_type(&mut left.client(), version);
    transfer(&entries, version, &mut left.client(), &mut right.client());
    (left, right, entries)
}

/// The type bytes of the DUMP payloads, with the keys of each.
fn type_bytes(entries: &[Entry], connection: &mut Connection) -> BTreeMap<u8, usize> {
    let mut found = BTreeMap::new();
    for entry in entries {
        redis::cmd("SELECT")
            .arg(entry.db)
            .exec(connection)
            .expect("SELECT");
        let payload: Vec<u8> = redis::cmd("DUMP")
            .arg(&entry.key)
            .query(connection)
            .expect("DUMP");
        *found.entry(payload[0]).or_default() += 1;
    }
    found
}

#[test]
fn every_version_starts_and_says_what_it_is() {
    for version in servers::available() {
        let server = TestServer::start(version);
        let info: String = redis::cmd("INFO")
            .query(&mut server.client())
            .expect("INFO");
        let field = if version.is_valkey() {
            "valkey_version"
        } else {
            "redis_version"
        };
        assert!(
            info.contains(&format!("{field}:{}", version.exact())),
            "{version}"
        );
        let reply = server.cli(&["PING"]);
        assert_eq!(
            String::from_utf8_lossy(&reply.stdout).trim(),
            "PONG",
            "{version}"
        );
    }
}

#[test]
fn data_moved_by_dump_and_restore_is_equal_to_itself() {
    for version in servers::available() {
        let (left, right, entries) = twins(version);
        assert!(
            entries.len() >= 45,
            "{version} has only {} keys",
            entries.len()
        );
        let distinct: BTreeSet<_> = entries.iter().map(|e| (e.db, &e.key)).collect();
        assert_eq!(distinct.len(), entries.len(), "{version} lists a key twice");
        let total: usize = [0, 1, 3, 9, 15]
            .map(|db| {
                redis::cmd("DBSIZE")
                    .query::<usize>(&mut left.client_db(db))
                    .expect("DBSIZE")
            })
            .iter()
            .sum();
        assert_eq!(
            total,
            entries.len(),
            "{version} holds keys that are not listed"
        );
        equality::assert_equal(&mut left.client(), &mut right.client());
    }
}

#[test]
fn the_data_set_has_every_encoding_that_a_version_writes() {
    for version in servers::available() {
        let expected: &[u8] = match version {
            Version::Redis60 | Version::Redis62 => &[0, 2, 4, 5, 11, 12, 13, 14, 15],
            Version::Redis70 => &[0, 2, 4, 5, 11, 16, 17, 18, 19],
            Version::Redis80 => &[0, 2, 4, 5, 11, 16, 17, 18, 20, 21, 24, 25],
            Version::Valkey81 => &[0, 2, 4, 5, 11, 16, 17, 18, 20, 21],
            Version::Valkey91 => &[0, 2, 4, 5, 11, 16, 17, 18, 20, 21, 22],
        };
        let server = TestServer::start(version);
        let mut client = server.client();
        let entries = dataset::fill_every_type(&mut client, version);
        let found: Vec<u8> = type_bytes(&entries, &mut client).into_keys().collect();
        assert_eq!(found, expected, "{version}");

        redis::cmd("SELECT")
            .arg(0)
            .exec(&mut client)
            .expect("SELECT");
        let mut dump = |key: &str| -> Vec<u8> {
            redis::cmd("DUMP")
                .arg(key)
                .query(&mut client)
                .expect("DUMP")
        };
        let widths = ["set:intset16", "set:intset32", "set:intset64"].map(|key| dump(key)[2]);
        assert_eq!(widths, [2, 4, 8], "{version}");
        assert_eq!(
            dump("string:compressible")[1],
            0xc3,
            "{version} compresses with LZF"
        );
        assert_eq!(dump("string:int8")[1], 0xc0, "{version} writes integers");
        if version.is_at_least_7() {
            // Node 1 is packed and short; node 2, the big element, is plain.
            let plain = dump("list:plain-nodes");
            assert_eq!(plain[0], 18, "{version}");
            assert_eq!(plain[2], 2, "{version}: the first node is packed");
            let packed_length = usize::from(plain[3]);
            assert_eq!(
                plain[4 + packed_length],
                1,
                "{version}: the second node is plain"
            );
        }
        let version_at = dump("string:embstr").len() - 10;
        let footer = &dump("string:embstr")[version_at..version_at + 2];
        assert_eq!(footer, version.rdb_version().to_le_bytes(), "{version}");
    }
}

#[test]
fn equality_finds_every_kind_of_planted_difference() {
    type Plant = (&'static [&'static str], &'static str, Kind);
    let plants: &[Plant] = &[
        (&["DEL", "hash:small"], "hash:small", Kind::Missing),
        (
            &["SET", "not on the left", "v"],
            "not on the left",
            Kind::Extra,
        ),
        (
            &["SET", "string:embstr", "hellp"],
            "string:embstr",
            Kind::Value,
        ),
        (
            &["SETRANGE", "string:100k", "99999", "\u{1}"],
            "string:100k",
            Kind::Value,
        ),
        (
            &["LSET", "list:3000", "1500", "x"],
            "list:3000",
            Kind::Value,
        ),
        (
            &["RPUSH", "list:small", "one more"],
            "list:small",
            Kind::Value,
        ),
        (&["SREM", "set:intset64", "1"], "set:intset64", Kind::Value),
        (&["SADD", "set:table", "one more"], "set:table", Kind::Value),
        (
            &["HSET", "hash:table", "field 7", "other"],
            "hash:table",
            Kind::Value,
        ),
        (
            &["HDEL", "hash:long-value", "short"],
            "hash:long-value",
            Kind::Value,
        ),
        (
            &["ZADD", "zset:denormal", "0", "least"],
            "zset:denormal",
            Kind::Value,
        ),
        (
            &["ZREM", "zset:skiplist", "member 999"],
            "zset:skiplist",
            Kind::Value,
        ),
        (
            &["XADD", "stream:plain", "1700000000001-0", "f", "v"],
            "stream:plain",
            Kind::Value,
        ),
        (
            &["XDEL", "stream:1000", "1200-600"],
            "stream:1000",
            Kind::Value,
        ),
        (
            &["XACK", "stream:groups", "workers", "1-0"],
            "stream:groups",
            Kind::Value,
        ),
        (
            &["XGROUP", "DESTROY", "stream:empty", "g"],
            "stream:empty",
            Kind::Value,
        ),
        (
            &["XGROUP", "SETID", "stream:trimmed", "late", "1-1"],
            "stream:trimmed",
            Kind::Value,
        ),
        (
            &["XSETID", "stream:xsetid", "9000-2"],
            "stream:xsetid",
            Kind::Value,
        ),
        (&["PERSIST", "ttl:days"], "ttl:days", Kind::Ttl),
        (&["PEXPIRE", "ttl:hash", "3000000"], "ttl:hash", Kind::Ttl),
        (&["EXPIRE", "set:small", "1000"], "set:small", Kind::Ttl),
    ];
    for version in servers::available() {
        let (left, right, _) = twins(version);
        let mut client = right.client();
        let mut expected = BTreeSet::new();
        let mut plant = |parts: &[&str], key: &str, kind: Kind| {
            let mut command = redis::cmd(parts[0]);
            for part in &parts[1..] {
                command.arg(part);
            }
            let reply: Value = command.query(&mut client).expect("a planted difference");
            assert_ne!(reply, Value::Nil, "{parts:?} did nothing");
            expected.insert((kind, 0, key.as_bytes().to_vec()));
        };
        for (parts, key, kind) in plants {
            plant(parts, key, *kind);
        }
        plant(&["DEL", "string:raw"], "string:raw", Kind::Type);
        plant(
            &["RPUSH", "string:raw", "now a list"],
            "string:raw",
            Kind::Type,
        );
        // To the server, 0 and -0 are the same score: an update would do nothing.
        for parts in [
            &["ZREM", "zset:skiplist-of-odd-scores", "z"][..],
            &["ZADD", "zset:skiplist-of-odd-scores", "0", "z"],
        ] {
            plant(parts, "zset:skiplist-of-odd-scores", Kind::Value);
        }
        if version.has_field_ttl() {
            let persist = ["HPERSIST", "hash:field-ttl", "FIELDS", "1", "a"];
            plant(&persist, "hash:field-ttl", Kind::FieldTtl);
        }
        if version.is_at_least_7() {
            plant(&["FUNCTION", "DELETE", "first"], "first", Kind::Functions);
        }
        redis::cmd("SELECT")
            .arg(15)
            .exec(&mut client)
            .expect("SELECT");
        let _: () = client.set("string:int16", 16).expect("SET");
        expected.insert((Kind::Value, 15, b"string:int16".to_vec()));
        let found =
            equality::differences(&mut left.client(), &mut right.client(), &Options::default());
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        let found: BTreeSet<_> = found.into_iter().map(|d| (d.kind, d.db, d.key)).collect();
        assert_eq!(found, expected, "{version}\n{}", lines.join("\n"));
    }
}

#[test]
fn equality_follows_database_maps_and_prefixes() {
    let Some(version) = servers::require(Version::Redis70) else {
        return;
    };
    let (left, right) = (TestServer::start(version), TestServer::start(version));
    let put = |server: &TestServer, db, key: &str| {
        let _: () = server.client_db(db).set(key, key.len()).expect("SET");
    };
    put(&left, 0, "old:a");
    put(&left, 2, "plain");
    let mut wrong = left.client_db(5);
    let _: () = wrong.set("not looked at", 1).expect("SET");
    let _: () = right.client_db(7).set("new:a", 5).expect("SET");
    let _: () = right.client_db(2).set("new:plain", 5).expect("SET");
    let options = Options {
        db_map: vec![(0, 7)],
        only_dbs: Some(vec![0, 2]),
        strip_prefix: b"old:".to_vec(),
        add_prefix: b"new:".to_vec(),
        ..Options::default()
    };
    equality::assert_equal_with(&mut left.client(), &mut right.client(), &options);
    put(&right, 7, "without the prefix");
    put(&right, 3, "new:in another database");
    let (mut l, mut r) = (left.client(), right.client());
    let found = equality::differences(&mut l, &mut r, &options);
    let found: Vec<_> = found.iter().map(|d| (d.kind, d.db)).collect();
    assert_eq!(found, [(Kind::Extra, 3), (Kind::Extra, 7)]);
    let options = Options {
        allow_extra: true,
        ..options
    };
    equality::assert_equal_with(&mut l, &mut r, &options);
}

#[test]
fn the_sign_of_a_zero_score_counts_unless_it_is_ignored() {
    let Some(version) = servers::require(Version::Redis70) else {
        return;
    };
    let [left, right] = [("-0", "1"), ("0", "1")].map(|(zero, one)| {
        let server = TestServer::start(version);
        let long = "a member too long for the compact encoding ".repeat(3);
        let mut add = redis::cmd("ZADD");
        add.arg("z").arg(one).arg(&long).arg(zero).arg("zero");
        add.exec(&mut server.client()).expect("ZADD");
        server
    });
    let find = |ignore_zero_sign| {
        let options = Options {
            ignore_zero_sign,
            ..Options::default()
        };
        equality::differences(&mut left.client(), &mut right.client(), &options).len()
    };
    assert_eq!((find(false), find(true)), (1, 0));
}

#[test]
fn many_keys_are_the_same_for_the_same_seed() {
    let Some(version) = servers::require(Version::Redis70) else {
        return;
    };
    let [first, again, other] = [1, 1, 2].map(|seed| {
        let server = TestServer::start(version);
        many::fill_many(&mut server.client(), 20_000, seed);
        server
    });
    let keys: u64 = redis::cmd("DBSIZE")
        .query(&mut first.client())
        .expect("DBSIZE");
    assert_eq!(keys, 20_000);
    let options = Options {
        // They are relative, and the servers were filled one after the other.
        ttl_tolerance_ms: Some(120_000),
        ..Options::default()
    };
    equality::assert_equal_with(&mut first.client(), &mut again.client(), &options);
    let (mut l, mut r) = (first.client(), other.client());
    assert_eq!(equality::differences(&mut l, &mut r, &options).len(), 100);
    let info: String = redis::cmd("INFO")
        .arg("keyspace")
        .query(&mut l)
        .expect("INFO");
    let expires = info
        .split("expires=")
        .nth(1)
        .and_then(|rest| rest.split(',').next());
    let expires: u64 = expires.and_then(|text| text.parse().ok()).expect("a count");
    assert!(
        (5_600..6_400).contains(&expires),
        "{expires} of 20,000 keys expire"
    );
}

#[test]
fn a_restarted_server_keeps_its_port_and_what_was_saved() {
    for version in servers::available() {
        let mut server = TestServer::start(version);
        let port = server.port();
        let _: () = server.client().set("kept", "yes").expect("SET");
        redis::cmd("SAVE").exec(&mut server.client()).expect("SAVE");
        let _: () = server.client().set("lost", "yes").expect("SET");
        server.restart();
        assert_eq!(server.port(), port);
        let found: (Option<String>, Option<String>) =
            server.client().mget(&["kept", "lost"]).expect("MGET");
        assert_eq!(found, (Some("yes".to_owned()), None), "{version}");
        server.kill();
        assert!(!server.is_running());
        assert!(
            TcpStream::connect(server.addr()).is_err(),
            "{version} still listens"
        );
    }
}

#[test]
fn passwords_users_unix_sockets_and_tls_can_be_had_on_every_version() {
    for version in servers::available() {
        let server = TestServer::builder(version)
            .user(
                "default on >secret ~* &* +@all"
                    .replace(
                        "&* ",
                        if version == Version::Redis60 {
                            ""
                        } else {
                            "&* "
                        },
                    )
                    .as_str(),
            )
            .user("reader on >r ~* +@read")
            .unix_socket()
            .tls()
            .option("--maxmemory", "100mb")
            .known_password("secret")
            .start();
        let _: () = server.client().set("k", "v").expect("SET");
        let open = |url: String| redis::Client::open(url).and_then(|c| c.get_connection());
        let mut reader = open(format!("redis://reader:r@127.0.0.1:{}", server.port()))
            .expect("the reader may connect");
        assert_eq!(reader.get::<_, String>("k").expect("GET"), "v");
        let refused: redis::RedisResult<()> = reader.set("k", "w");
        let refused = refused.expect_err("a reader").to_string();
        assert!(refused.contains("permission"), "{version}: {refused}");
        let url = format!("redis+unix://{}?pass=secret", server.socket().display());
        let mut local = open(url).expect("the socket");
        assert_eq!(local.get::<_, String>("k").expect("GET"), "v");
        let mut tls = tls_connection(&server);
        tls.write_all(b"AUTH secret\r\nGET k\r\n").expect("written");
        let mut reply = [0; 12];
        tls.read_exact(&mut reply).expect("a reply");
        assert_eq!(&reply, b"+OK\r\n$1\r\nv\r\n", "{version}");
    }
}

/// A TLS stream to the server, whose certificate is verified.
fn tls_connection(server: &TestServer) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    let ca = rustls::pki_types::CertificateDer::from_pem_file(server.ca_file()).expect("PEM");
    roots.add(ca).expect("a certificate");
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".try_into().expect("a name");
    let connection = rustls::ClientConnection::new(config.into(), name).expect("a client");
    let socket = TcpStream::connect(("127.0.0.1", server.tls_port())).expect("the TLS port");
    rustls::StreamOwned::new(connection, socket)
}

#[test]
fn the_proxy_passes_cuts_stalls_delays_and_refuses_as_told() {
    let Some(version) = servers::require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    let value = "x".repeat(50_000);
    let _: () = server.client().set("k", &value).expect("SET");
    let get_within = |proxy: &Proxy, limit: Duration| -> Vec<u8> {
        let mut socket = TcpStream::connect(proxy.addr()).expect("the proxy");
        socket.set_read_timeout(Some(limit)).expect("a time limit");
        // A refused connection may already be gone.
        let _ = socket.write_all(b"GET k\r\n");
        let mut all = vec![0; 60_000];
        let mut length = 0;
        while length < 8 + 50_000 + 2 {
            match socket.read(&mut all[length..]) {
                Ok(more @ 1..) => length += more,
                // With a time limit the system does not go on by itself.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
            }
        }
        all.truncate(length);
        all
    };
    let get = |proxy: &Proxy| get_within(proxy, Duration::from_secs(60));
    let whole = get(&Proxy::plain(server.addr()));
    assert_eq!(whole, format!("$50000\r\n{value}\r\n").as_bytes());

    let to_client = |direction| Rules {
        to_client: direction,
        ..Rules::default()
    };
    let cut = to_client(Direction {
        cut_after: Some(1234),
        piece: 100,
        ..Direction::default()
    });
    let proxy = Proxy::start(
        server.addr(),
        Rules {
            cuts: Some(1),
            ..cut
        },
    );
    assert_eq!(get(&proxy).len(), 1234);
    assert_eq!((proxy.cuts(), proxy.bytes_to_client()), (1, 1234));
    assert_eq!(get(&proxy), whole, "the second connection is not cut");

    let random = to_client(Direction {
        cut_within: Some(1000..40_000),
        ..Direction::default()
    });
    let proxy = Proxy::start(server.addr(), random);
    let lengths: BTreeSet<usize> = (0..8).map(|_| get(&proxy).len()).collect();
    assert!(
        lengths.iter().all(|length| (1000..40_000).contains(length)),
        "{lengths:?}"
    );
    assert!(lengths.len() > 4, "{lengths:?}");

    let stall = to_client(Direction {
        stall_after: Some(7),
        ..Direction::default()
    });
    let begin = Instant::now();
    let limit = Duration::from_secs(1);
    let stalled = Proxy::start(server.addr(), stall);
    assert_eq!(get_within(&stalled, limit).len(), 7);
    let waited = begin.elapsed() + Duration::from_millis(50);
    assert!(waited >= limit, "it hung until the time limit");

    let slow = Rules {
        to_server: Direction {
            delay: Duration::from_millis(200),
            ..Direction::default()
        },
        ..Rules::default()
    };
    let begin = Instant::now();
    let proxy = Proxy::start(server.addr(), slow);
    assert_eq!(get(&proxy), whole);
    assert!(begin.elapsed() >= Duration::from_millis(200));
    proxy.set_rules(Rules {
        refuse: true,
        ..Rules::default()
    });
    assert_eq!(get(&proxy), b"");
    assert_eq!(proxy.connections(), 2);
}

#[test]
fn a_missing_version_is_skipped_or_fails_but_never_passes_silently() {
    let missing = Version::ALL
        .into_iter()
        .filter(|version| !version.is_available());
    for version in missing {
        let outcome = std::panic::catch_unwind(|| servers::require(version));
        let must_fail = servers::is_ci() && version != Version::Redis62;
        assert_eq!(outcome.is_err(), must_fail, "{version}");
    }
    for version in servers::available() {
        assert_eq!(servers::require(version), Some(version));
    }
}

#[test]
fn memory_and_processor_time_of_a_process_can_be_read_even_when_it_has_ended() {
    let before = tool::peak_memory_kib(std::process::id()).expect("this process");
    let block = std::hint::black_box(vec![1_u8; 256 * 1024 * 1024]);
    let after = tool::peak_memory_kib(std::process::id()).expect("this process");
    assert!(
        after >= before.max(256 * 1024),
        "{before} KiB, then {after} KiB"
    );
    drop(block);

    let mut child = std::process::Command::new("sh")
        .args(["-c", "n=0; while [ $n -lt 300000 ]; do n=$((n+1)); done"])
        .spawn()
        .expect("a shell");
    let deadline = Instant::now() + Duration::from_secs(60);
    let used = loop {
        match tool::state_and_cpu(child.id()) {
            Some(('Z', used)) => break used,
            Some(_) => assert!(Instant::now() < deadline, "it does not end"),
            None => panic!("it is gone before it was waited for"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    child.wait().expect("a child");
    assert!(
        used >= Duration::from_millis(20),
        "{used:?} for 300,000 steps"
    );
    assert!(tool::state_and_cpu(child.id()).is_none(), "it was reaped");
}

#[test]
fn the_tool_runs_with_a_clean_environment_and_is_ended_when_dropped() {
    let mut running = tool::Tool::new(&["--version"]).spawn();
    let pid = running.pid();
    drop(running);
    assert!(tool::state_and_cpu(pid).is_none(), "it is reaped");
    tool::Tool::new(&["--version"])
        .stdin_bytes("not read")
        .run()
        .success();
}
