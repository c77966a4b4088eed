//! What servers refuse.

use super::*;

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
        every_type::fill_odd_streams(&mut client, version);
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
