//! What if this one answer is not the one that was hoped for?

use std::time::Duration;

use redis_migrate_format::record::Record;

use super::archives::{archive, string, string_until};
use super::between::{Act, Between};
use crate::support::dataset::now_ms;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, run};

fn is(command: &[Vec<u8>], name: &str, key: &str) -> bool {
    command[0].eq_ignore_ascii_case(name.as_bytes())
        && command.get(1).is_some_and(|arg| arg == key.as_bytes())
}

fn get(server: &TestServer, key: &str) -> Option<String> {
    redis::cmd("GET")
        .arg(key)
        .query(&mut server.client())
        .unwrap()
}

fn summary(output: &Output) -> serde_json::Value {
    output.summary()
}

fn many() -> Vec<u8> {
    let frame = |from: u32| {
        (from..from + 50)
            .map(|n| string(&format!("k{n}"), "v"))
            .collect()
    };
    let frames: Vec<Vec<Record>> = (0..4).map(|n| frame(n * 50)).collect();
    archive(&frames)
}

/// Answers `command` about `key` by `act` so many times, and the server answers from then on.
fn times(
    server: &TestServer,
    command: &'static str,
    key: &'static str,
    act: Act,
    times: u32,
) -> Between {
    let mut count = 0;
    Between::start(server.addr(), move |words| {
        if !is(words, command, key) {
            return Act::Pass;
        }
        count += 1;
        match count <= times {
            true => act.clone(),
            false => Act::Pass,
        }
    })
}

/// Only +OK to RESTORE is a restored key; what was said instead is cleared up, whether the key was
/// written or not.
#[test]
fn what_is_no_answer_to_restore_is_checked_again() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    for policy in ["fail", "skip", "replace"] {
        for said in [
            "+QUEUED\r\n",
            ":5\r\n",
            "$-1\r\n",
            "*1\r\n+OK\r\n",
            "$2\r\nOK\r\n",
        ] {
            for act in [Act::Say(said), Act::DoAndSay(said), Act::HangUp] {
                redis::cmd("FLUSHALL").exec(&mut server.client()).unwrap();
                let shown = format!("{policy} {act:?}");
                let proxy = times(&server, "RESTORE", "k70", act, 1);
                let arguments = ["import", &proxy.url(), "--on-conflict", policy, "--json"];
                let output = run(&arguments, &many()).success();
                assert_eq!(summary(&output)["sink"]["restored"], 200, "{shown}");
                assert_eq!(get(&server, "k70").as_deref(), Some("v"), "{shown}");
            }
        }
    }
}

#[test]
fn a_key_that_is_never_answered_is_named_and_the_others_arrive() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    let proxy = times(&server, "RESTORE", "k70", Act::Say("+QUEUED\r\n"), u32::MAX);
    let output = run(&["import", &proxy.url()], &many())
        .expect_code(3)
        .expect_stderr("RESTORE was answered with +QUEUED");
    assert!(output.stderr.contains("k70"), "{}", output.stderr);
    let keys: u64 = redis::cmd("DBSIZE").query(&mut server.client()).unwrap();
    assert_eq!(keys, 199);
}

/// The key stands when it is to be written, and does not when it is to be compared.
#[test]
fn a_key_that_goes_meanwhile_is_restored_or_expired() {
    let Some(version) = require(Version::Redis80) else {
        return;
    };
    let busy = Act::Say("-BUSYKEY Target key name already exists.\r\n");
    let server = TestServer::start(version);
    let proxy = times(&server, "RESTORE", "k70", busy, 1);
    let output = run(&["import", &proxy.url(), "--json"], &many()).success();
    assert_eq!(summary(&output)["sink"]["restored"], 200);
    assert_eq!(get(&server, "k70").as_deref(), Some("v"));

    let input = archive(&[vec![
        string("k", "v"),
        string_until("short", "v", Some(now_ms() + 3_000)),
    ]]);
    let proxy = Between::start(server.addr(), move |words| {
        if !is(words, "RESTORE", "short") {
            return Act::Pass;
        }
        std::thread::sleep(Duration::from_secs(4));
        Act::Say("-BUSYKEY Target key name already exists.\r\n")
    });
    let output = run(&["import", &proxy.url(), "--json"], &input).success();
    assert_eq!(summary(&output)["sink"]["expired"], 1);
    assert_eq!(summary(&output)["sink"]["restored"], 1);
}

#[test]
fn what_cannot_be_compared_is_waited_for_or_said() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    run(&["import", &server.url()], &many()).success();
    for said in [
        "-BUSY Redis is busy running a script.\r\n",
        "-LOADING Redis is loading the dataset in memory\r\n",
        ":5\r\n",
    ] {
        let proxy = times(&server, "DUMP", "k70", Act::Say(said), 2);
        let output = run(&["import", &proxy.url(), "--json"], &many()).success();
        assert_eq!(summary(&output)["sink"]["unchanged"], 200, "{said}");
    }
    let refusal = "-NOPERM this user has no permissions to run the 'dump' command\r\n";
    let proxy = times(&server, "DUMP", "k70", Act::Say(refusal), u32::MAX);
    run(&["import", &proxy.url()], &many())
        .expect_code(3)
        .expect_stderr("cannot be read to compare: NOPERM");
}

/// Values that go by native commands: no word of a transaction but its own is taken for one.
#[test]
fn a_transaction_that_is_none_is_checked_again() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = TestServer::start(version);
    for n in 0..50 {
        let mut add = redis::cmd("RPUSH");
        add.arg(format!("list{n}")).arg("a").arg(n);
        add.exec(&mut source.client()).unwrap();
    }
    let export = run(&["export", &source.url()], b"").success();
    let server = TestServer::start(version);
    for name in ["MULTI", "RPUSH", "RENAMENX", "EXEC"] {
        for said in [
            "$-1\r\n",
            "+QUEUED\r\n",
            ":7\r\n",
            "-BUSY Redis is busy\r\n",
        ] {
            if (name, said) == ("RPUSH", "+QUEUED\r\n")
                || (name, said) == ("RENAMENX", "+QUEUED\r\n")
            {
                continue;
            }
            for executed in [false, true] {
                redis::cmd("FLUSHALL").exec(&mut server.client()).unwrap();
                let mut count = 0;
                let proxy = Between::start(server.addr(), move |words| {
                    count += u32::from(words[0].eq_ignore_ascii_case(name.as_bytes()));
                    match (
                        words[0].eq_ignore_ascii_case(name.as_bytes()) && count == 20,
                        executed,
                    ) {
                        (true, true) => Act::DoAndSay(said),
                        (true, false) => Act::Say(said),
                        _ => Act::Pass,
                    }
                });
                let arguments = ["import", &proxy.url(), "--method", "commands"];
                let shown = format!("{name} {said} {executed}");
                let output = run(&arguments, &export.stdout);
                assert_eq!(output.code(), Some(0), "{shown}: {}", output.stderr);
                for n in 0..50 {
                    let found: Vec<String> = redis::cmd("LRANGE")
                        .arg(format!("list{n}"))
                        .arg(0)
                        .arg(-1)
                        .query(&mut server.client())
                        .unwrap();
                    assert_eq!(found, ["a".to_owned(), n.to_string()], "{shown}");
                }
                let keys: u64 = redis::cmd("DBSIZE").query(&mut server.client()).unwrap();
                assert_eq!(keys, 50, "{shown}: {}", output.stderr);
            }
        }
    }
}

#[test]
fn a_library_is_restored_only_where_that_was_said() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = TestServer::start(version);
    let code = "#!lua name=one\nredis.register_function('f1', function() return 1 end)";
    let mut load = redis::cmd("FUNCTION");
    load.arg("LOAD")
        .arg(code)
        .exec(&mut source.client())
        .unwrap();
    let export = run(&["export", &source.url()], b"").success();
    for said in [
        "+QUEUED\r\n",
        "$-1\r\n",
        ":1\r\n",
        "-BUSY Redis is busy\r\n",
    ] {
        for act in [Act::Say(said), Act::DoAndSay(said)] {
            let server = TestServer::start(version);
            let shown = format!("{act:?}");
            let proxy = times(&server, "FUNCTION", "RESTORE", act, 1);
            run(&["import", &proxy.url()], &export.stdout).success();
            let answer: u64 = redis::cmd("FCALL")
                .arg("f1")
                .arg(0)
                .query(&mut server.client())
                .unwrap_or_else(|error| panic!("{shown}: {error}"));
            assert_eq!(answer, 1);
        }
    }
}

/// What native commands cannot carry is counted.
#[test]
fn idle_times_that_native_commands_drop_are_counted() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = TestServer::builder(version)
        .option("--maxmemory-policy", "allkeys-lfu")
        .start();
    run(&["import", &source.url()], &many()).success();
    let export = run(&["export", "--eviction", &source.url()], b"").success();
    for (method, lost) in [("commands", 200), ("auto", 0)] {
        let server = TestServer::start(version);
        let arguments = ["import", &server.url(), "--method", method, "--json"];
        let output = run(&arguments, &export.stdout).success();
        assert_eq!(summary(&output)["sink"]["changes"]["eviction_lost"], lost);
    }
}

/// `--retry-for` bounds every wait for a server that answers "not now", whatever it was asked.
#[test]
fn a_server_that_is_never_ready_is_asked_for_as_long_as_was_said() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    run(&["import", &server.url()], &many()).success();
    let busy = "-BUSY Redis is busy running a script.\r\n";
    let loading = "-LOADING Redis is loading the dataset in memory\r\n";
    let replicas = "-NOREPLICAS Not enough good replicas to write.\r\n";
    let read = ["export", "--consistency", "scan", "-o", "/dev/null"];
    let write = ["import", "--on-conflict", "replace"];
    let cases: [(&[&str], &'static str, &'static str, i32); 7] = [
        (&read, "PING", loading, 12),
        (&read, "SCAN", busy, 1),
        (&read, "DUMP", busy, 1),
        (&write, "PING", loading, 12),
        (&write, "SELECT", busy, 1),
        (&write, "RESTORE", busy, 1),
        // A server of a fixed setting, as long as nothing was written.
        (&write, "RESTORE", replicas, 13),
    ];
    let mut far = string("k", "v");
    if let Record::Key(key) = &mut far {
        key.db = 1;
    }
    let input = archive(&[vec![string("k", "v"), far]]);
    for (verb, command, said, code) in cases {
        let proxy = Between::start(server.addr(), move |words| {
            match words[0].eq_ignore_ascii_case(command.as_bytes()) {
                true => Act::Say(said),
                false => Act::Pass,
            }
        });
        let url = proxy.url();
        let wish = ["--retry-for", "300ms", &url];
        let output = run(&[verb, &wish].concat(), &input);
        let shown = format!("{verb:?} {command} {said}: {}", output.stderr);
        assert_eq!(output.code(), Some(code), "{shown}");
        // What refuses everything from the start is told with what to do, and not with a time.
        let word = if code == 13 {
            "min-replicas-to-write"
        } else {
            "(--retry-for)"
        };
        assert!(output.stderr.contains(word), "{shown}");
    }
}

/// Keys that are left as they stand are progress: two short waits far apart are not one long one.
#[test]
fn a_wait_ends_when_keys_are_answered_for() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    run(&["import", &server.url()], &many()).success();
    let (mut busy_at_first, mut busy_later) = (1, 1);
    let proxy = Between::start(server.addr(), move |words| {
        let busy = Act::Say("-BUSY Redis is busy running a script.\r\n");
        if is(words, "RESTORE", "k0") && busy_at_first > 0 {
            busy_at_first -= 1;
            return busy;
        }
        if is(words, "RESTORE", "k190") && busy_later > 0 {
            busy_later -= 1;
            return busy;
        }
        if words[0].eq_ignore_ascii_case(b"RESTORE") {
            std::thread::sleep(Duration::from_millis(20));
        }
        Act::Pass
    });
    let arguments = ["import", &proxy.url(), "--on-conflict", "skip"];
    let wish = ["--retry-for", "2s", "--json"];
    let output = run(&[&arguments[..], &wish].concat(), &many()).success();
    assert_eq!(summary(&output)["sink"]["unchanged"], 200);
}

/// A destination that becomes a replica in the middle.
#[test]
fn a_destination_that_becomes_a_replica_is_said_to_be_one() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    let (primary, mut count) = (TestServer::start(version), 0);
    let mut client = server.client();
    let port = primary.port();
    let proxy = Between::start(server.addr(), move |words| {
        count += u32::from(words[0].eq_ignore_ascii_case(b"RESTORE"));
        if count == 120 {
            count += 1;
            let mut demote = redis::cmd("REPLICAOF");
            demote.arg("127.0.0.1").arg(port);
            demote.exec(&mut client).unwrap();
        }
        Act::Pass
    });
    let output = run(&["import", &proxy.url()], &many())
        .expect_code(1)
        .expect_stderr("became a read-only replica during this run");
    assert!(!output.stderr.contains("--timeout"), "{}", output.stderr);
}

/// A dry run and `doctor` foretell what the run then does.
#[test]
fn dry_run_and_doctor_foretell_the_exit_code() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::builder(version)
        .option("--databases", "4")
        .start();
    let mut far = string("k", "v");
    if let Record::Key(key) = &mut far {
        key.db = 9;
    }
    let both = archive(&[vec![string("k", "v"), far.clone()]]);
    // Before 5.0.
    let old = Between::start(server.addr(), |words| {
        match words[0].eq_ignore_ascii_case(b"RESTORE")
            && words.iter().any(|word| word == b"ABSTTL")
        {
            true => Act::Say("-ERR syntax error\r\n"),
            false => Act::Pass,
        }
    });
    let mut user = redis::cmd("ACL");
    user.arg("SETUSER")
        .arg("reader")
        .arg("on")
        .arg(">pw")
        .arg("~*");
    user.arg("+@all").arg("-@write");
    user.exec(&mut server.client()).unwrap();
    let reader = format!("redis://reader:pw@127.0.0.1:{}", server.port());
    let beyond = format!("{}/9", server.url());
    let cases = [
        (server.url(), both.clone(), 3),
        (beyond, archive(&[vec![string("k", "v")]]), 3),
        // Native commands write there.
        (old.url(), many(), 0),
        (reader, many(), 13),
        (server.url(), many(), 0),
    ];
    for (url, input, code) in cases {
        let file = server.path().join("input.rmz");
        std::fs::write(&file, &input).unwrap();
        let file = file.to_str().unwrap();
        for verb in [&["doctor"][..], &["import", "--dry-run"], &["import"]] {
            redis::cmd("FLUSHALL").exec(&mut server.client()).unwrap();
            let output = run(&[verb, &[&url, file]].concat(), b"");
            let out = String::from_utf8_lossy(&output.stdout);
            assert_eq!(
                output.code(),
                Some(code),
                "{verb:?} {url}\n{}{out}",
                output.stderr
            );
        }
    }
}

/// Nothing is deleted at a source that does not answer as it should.
#[test]
fn delete_source_deletes_only_in_a_transaction() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    for name in ["WATCH", "MULTI"] {
        let source = TestServer::start(version);
        run(&["import", &source.url()], &many()).success();
        let destination = TestServer::start(version);
        let mut is_watched = false;
        let proxy = Between::start(source.addr(), move |words| {
            let word = words[0].to_ascii_uppercase();
            // Not the trial before anything is read.
            is_watched |= word == b"WATCH" && !words[1].starts_with(b"__redis-migrate");
            match is_watched && word == name.as_bytes() {
                true => Act::Say("$-1\r\n"),
                false => Act::Pass,
            }
        });
        let arguments = ["copy", &proxy.url(), &destination.url(), "--delete-source"];
        let output = run(&arguments, b"");
        assert_ne!(output.code(), Some(0), "{}", output.stderr);
        let keys: u64 = redis::cmd("DBSIZE").query(&mut source.client()).unwrap();
        assert_eq!(keys, 200, "{name}: {}", output.stderr);
    }
}
