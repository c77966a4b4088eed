//! Tests of what the other tests stand on: the servers start, the data set holds every
//! encoding, equality sees every kind of difference, the proxy fails as told.
//!
//! Nothing of the tool itself is tested here.

mod clusters;
mod differences;
mod proxies;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::dataset::{self, Entry};
use crate::support::equality::{self, Options};
use crate::support::many;
use crate::support::servers::{self, TestServer, Version};
use crate::support::tool;
use redis::{Commands as _, Connection};

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
            .unwrap_or_else(|error| panic!("DUMP of {}: {error}", entry.what));
        assert!(!payload.is_empty(), "{} is gone", entry.what);
        *found.entry(payload[0]).or_default() += 1;
    }
    found
}

#[test]
fn every_version_starts_and_says_what_it_is() {
    for version in servers::every_available() {
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
fn the_data_set_has_every_encoding_that_a_version_writes() {
    for version in servers::every_available() {
        let expected: &[u8] = match version {
            Version::Redis28 => &[0, 1, 2, 3, 4, 10, 11, 12, 13],
            Version::Redis32 => &[0, 2, 3, 4, 11, 12, 13, 14],
            Version::Redis50 | Version::Redis60 | Version::Redis62 => {
                &[0, 2, 4, 5, 11, 12, 13, 14, 15]
            }
            Version::Redis70 => &[0, 2, 4, 5, 11, 16, 17, 18, 19],
            Version::Stack74 | Version::Redis80 | Version::Redis82 => {
                &[0, 2, 4, 5, 11, 16, 17, 18, 20, 21, 24, 25]
            }
            Version::Redis86 => &[0, 2, 4, 5, 11, 16, 17, 18, 20, 24, 25, 26],
            Version::Valkey81 => &[0, 2, 4, 5, 11, 16, 17, 18, 20, 21],
            Version::Valkey90 | Version::Valkey91 => &[0, 2, 4, 5, 11, 16, 17, 18, 20, 21, 22],
            Version::RedisNew | Version::ValkeyNew => unreachable!("nothing is known of it"),
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
        for (key, width) in [
            ("set:intset16", 2),
            ("set:intset32", 4),
            ("set:intset64", 8),
        ] {
            let dump = dump(key);
            // The oldest compress even these few bytes: C3, two lengths, a count of literals.
            let at = if dump[1] == 0xc3 && !version.has_streams() {
                5
            } else {
                2
            };
            assert_eq!(dump[at], width, "{version} {key}");
        }
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
    for version in servers::every_available() {
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
    let versions = Version::EVERY.into_iter();
    for version in versions.filter_map(servers::require_tls) {
        // Rules for channels came with 6.2.
        let channels = if version.is_at_least(6, 2) { "&* " } else { "" };
        let server = TestServer::builder(version)
            .user(&format!("default on >secret ~* {channels}+@all"))
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
fn a_missing_version_is_skipped_or_fails_but_never_passes_silently() {
    let missing = Version::EVERY
        .into_iter()
        .chain(Version::NEWER)
        .filter(|version| !version.is_available());
    for version in missing {
        let outcome = std::panic::catch_unwind(|| servers::require(version));
        let must_fail = servers::is_ci() && !version.is_optional();
        assert_eq!(outcome.is_err(), must_fail, "{version}");
    }
    for version in servers::every_available() {
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
