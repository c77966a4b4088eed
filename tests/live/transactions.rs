//! What if MULTI or EXEC is not answered as it should be?

use super::between::{Act, Between};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, run};

/// Keys of every type that goes in a transaction, some with an expiry.
fn fill(server: &TestServer) -> u64 {
    let mut client = server.client();
    for n in 0..4 {
        let mut commands = redis::pipe();
        commands
            .cmd("SADD")
            .arg(format!("set{n}"))
            .arg("a")
            .arg("b");
        commands.cmd("ZADD").arg(format!("zset{n}")).arg(1).arg("a");
        commands.cmd("HSET").arg(format!("hash{n}")).arg("f").arg(n);
        commands
            .cmd("RPUSH")
            .arg(format!("list{n}"))
            .arg("a")
            .arg("b");
        commands
            .cmd("XADD")
            .arg(format!("stream{n}"))
            .arg("1-1")
            .arg("f")
            .arg("v");
        if n % 2 == 0 {
            for kind in ["set", "zset", "hash", "list", "stream"] {
                commands
                    .cmd("PEXPIREAT")
                    .arg(format!("{kind}{n}"))
                    .arg(EXPIRY_MS);
            }
        }
        commands.exec(&mut client).unwrap();
    }
    keys(server)
}

const EXPIRY_MS: u64 = 4_000_000_000_000;

fn keys(server: &TestServer) -> u64 {
    redis::cmd("DBSIZE").query(&mut server.client()).unwrap()
}

fn flush(server: &TestServer) {
    redis::cmd("FLUSHALL").exec(&mut server.client()).unwrap();
}

/// Answers one command by `act`, from this occurrence on, so many times.
fn proxy(server: &TestServer, name: &'static str, act: Act, from: u32, times: u32) -> Between {
    let mut count = 0;
    Between::start(server.addr(), move |words| {
        if !words[0].eq_ignore_ascii_case(name.as_bytes()) {
            return Act::Pass;
        }
        count += 1;
        match count >= from && count - from < times {
            true => act.clone(),
            false => Act::Pass,
        }
    })
}

fn restored(output: &Output) -> u64 {
    output.summary()["sink"]["restored"].as_u64().unwrap_or(0)
}

const SAID: [&str; 5] = [
    "+QUEUED\r\n",
    "$-1\r\n",
    ":5\r\n",
    "-LOADING the dataset\r\n",
    "-NOPERM User default has no permissions to run the 'multi' command\r\n",
];

/// Whatever MULTI is answered: the values arrive and are counted, with their expiries, or nothing
/// is written at all.
#[test]
fn what_follows_an_odd_multi_is_counted_or_does_not_happen() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = TestServer::start(version);
    let destination = TestServer::start(version);
    let all = fill(&source);
    for said in SAID {
        for act in [Act::Say(said), Act::DoAndSay(said)] {
            for (from, times) in [(1, 1), (1, u32::MAX), (3, 1), (3, u32::MAX)] {
                // Who says it for ever is waited for for two minutes.
                if said.starts_with("-LOADING") && times > 1 {
                    continue;
                }
                flush(&destination);
                let policy = if from == 1 { "replace" } else { "fail" };
                let shown = format!("{policy} {act:?} {from}x{times}");
                let proxy = proxy(&destination, "MULTI", act.clone(), from, times);
                let (from_url, to) = (source.url(), proxy.url());
                let arguments = ["copy", &from_url, &to, "--method", "commands", "--json"];
                let more = ["--on-conflict", policy, "--retries", "2"];
                let output = run(&[&arguments[..], &more].concat(), b"");
                let (there, shown) = (keys(&destination), format!("{shown}\n{}", output.stderr));
                assert_eq!(there, restored(&output), "{shown}");
                // The first is the trial of MULTI.
                let is_refused = from == 1 && (times > 1 || said.starts_with("-NOPERM"));
                assert_eq!(output.code() == Some(0), !is_refused, "{shown}");
                assert_eq!(there, if is_refused { 0 } else { all }, "{shown}");
                if said.starts_with("-NOPERM") && is_refused {
                    assert_eq!(output.code(), Some(13), "{shown}");
                }
                if !is_refused {
                    run(&["diff", &from_url, &destination.url()], b"").success();
                }
            }
        }
    }
}

/// EXEC is what tells what was deleted: where it does not, it is looked at.
#[test]
fn an_odd_exec_hides_no_deletion_at_the_source() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = TestServer::start(version);
    let destination = TestServer::start(version);
    for said in ["*0\r\n", "+QUEUED\r\n", ":1\r\n", "-ERR odd\r\n", "+OK\r\n"] {
        for act in [Act::Say(said), Act::DoAndSay(said)] {
            flush(&source);
            flush(&destination);
            let strings = 40u64;
            for n in 0..strings {
                let mut set = redis::cmd("SET");
                set.arg(format!("k{n}")).arg("v");
                set.exec(&mut source.client()).unwrap();
            }
            // Not the transactions in which values are read.
            let mut is_deleting = false;
            let mut count = 0;
            let act = act.clone();
            let shown = format!("{act:?}");
            let was_done = matches!(act, Act::DoAndSay(_));
            let proxy = Between::start(source.addr(), move |words| {
                // Not the trial before anything is read either.
                is_deleting |=
                    words[0].eq_ignore_ascii_case(b"WATCH") && words[1].starts_with(b"k");
                if !is_deleting || !words[0].eq_ignore_ascii_case(b"EXEC") {
                    return Act::Pass;
                }
                count += 1;
                if count == 1 { act.clone() } else { Act::Pass }
            });
            let arguments = [
                "copy",
                &proxy.url(),
                &destination.url(),
                "--delete-source",
                "--json",
            ];
            let output = run(&arguments, b"");
            let shown = format!("{shown}\n{}", output.stderr);
            assert_eq!(output.code(), Some(0), "{shown}");
            assert_eq!(keys(&source), 0, "{shown}");
            // What went while its answer could not be read is not called this run's deletion.
            let sink = &output.summary()["sink"];
            let count = |name: &str| sink[name].as_u64().expect("a count");
            let (deleted, unknown) = (count("source_deleted"), count("source_unknown"));
            assert_eq!(deleted + unknown, strings, "{shown}");
            assert_eq!(unknown > 0, was_done, "{shown}");
        }
    }
}

/// Copies by native commands, to the destination behind a proxy.
fn copy(source: &TestServer, proxy: &Between, policy: &str) -> Output {
    let (from, to) = (source.url(), proxy.url());
    let arguments = ["copy", &from, &to, "--method", "commands", "--json"];
    run(&[&arguments[..], &["--on-conflict", policy]].concat(), b"")
}

/// EXEC says why it does nothing: what passes is waited for.
#[test]
fn a_transaction_that_is_not_carried_out_just_now_is_sent_again() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = TestServer::start(version);
    let destination = TestServer::start(version);
    let all = fill(&source);
    for (said, from, times) in [
        ("NOREPLICAS Not enough good replicas to write.", 6, 1),
        ("MASTERDOWN Link with MASTER is down", 6, 1),
        ("READONLY You can't write against a replica.", 6, 1),
        ("BUSY Redis is busy running a script.", 6, 1),
        // The trial before the first value, more often than an odd answer is taken.
        ("BUSY Redis is busy running a script.", 1, 4),
    ] {
        flush(&destination);
        let aborted = format!("-EXECABORT Transaction discarded because of: {said}\r\n");
        let aborted: &'static str = aborted.leak();
        let (mut count, mut is_open) = (0, false);
        // The server hears nothing of these transactions.
        let proxy = Between::start(destination.addr(), move |words| {
            let is = |name: &str| words[0].eq_ignore_ascii_case(name.as_bytes());
            count += u32::from(is("MULTI"));
            is_open |= is("MULTI") && count >= from && count - from < times;
            match is_open {
                true if is("MULTI") => Act::Say("+OK\r\n"),
                true if is("EXEC") => {
                    is_open = false;
                    Act::Say(aborted)
                }
                true => Act::Say("+QUEUED\r\n"),
                false => Act::Pass,
            }
        });
        let output = copy(&source, &proxy, "fail");
        let shown = format!("{said} {from}x{times}\n{}", output.stderr);
        assert_eq!(output.code(), Some(0), "{shown}");
        assert_eq!(restored(&output), all, "{shown}");
        run(&["diff", &source.url(), &destination.url()], b"").success();
    }
}

const NO_MULTI: &str = "-NOPERM this user has no permissions to run the 'multi' command\r\n";
const NO_EXPIRY: &str = "-NOPERM this user has no permissions to run the 'pexpireat' command\r\n";

/// Without a transaction RENAME is carried out where PEXPIREAT is refused.
#[test]
fn a_key_that_stands_without_its_expiry_is_named_or_written_again() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = TestServer::start(version);
    let destination = TestServer::start(version);
    let all = fill(&source);
    for policy in ["fail", "replace"] {
        // The rights are taken away behind the trial.
        flush(&destination);
        let mut is_tried = false;
        let proxy = Between::start(destination.addr(), move |words| {
            let is = |name: &str| words[0].eq_ignore_ascii_case(name.as_bytes());
            let was_tried = is_tried;
            is_tried |= is("MULTI");
            match was_tried {
                true if is("MULTI") => Act::Say(NO_MULTI),
                true if is("PEXPIREAT") => Act::Say(NO_EXPIRY),
                _ => Act::Pass,
            }
        });
        let output = copy(&source, &proxy, policy).expect_code(13);
        let problems = output.summary()["problems"].to_string();
        assert!(problems.contains("without the expiry"), "{problems}");
        let mut lasting = 0;
        for n in [0, 2] {
            for kind in ["set", "zset", "hash", "list", "stream"] {
                let mut pttl = redis::cmd("PTTL");
                let left: i64 = pttl
                    .arg(format!("{kind}{n}"))
                    .query(&mut destination.client())
                    .unwrap();
                lasting += u32::from(left == -1);
            }
        }
        assert!(lasting > 0);
        let count = format!("): {lasting} key");
        assert!(problems.contains(&count), "{count}: {problems}");

        flush(&destination);
        let (mut count, mut is_open) = (0, false);
        let proxy = Between::start(destination.addr(), move |words| {
            let is = |name: &str| words[0].eq_ignore_ascii_case(name.as_bytes());
            count += u32::from(is("MULTI"));
            // A few transactions are none.
            is_open = (is_open && !is("EXEC")) || (is("MULTI") && (4..8).contains(&count));
            match is_open && (is("MULTI") || is("PEXPIREAT")) {
                true => Act::Say("-BUSY Redis is busy running a script.\r\n"),
                false => Act::Pass,
            }
        });
        let output = copy(&source, &proxy, policy);
        let shown = format!("{policy} {}", output.stderr);
        assert_eq!(output.code(), Some(0), "{shown}");
        assert_eq!(restored(&output), all, "{shown}");
        run(&["diff", &source.url(), &destination.url()], b"").success();
    }
}

/// HPEXPIREAT answers for each of its fields.
#[test]
fn fields_that_are_not_answered_for_are_written_again() {
    let Some(version) = require(Version::Redis80) else {
        return;
    };
    let source = TestServer::start(version);
    let destination = TestServer::start(version);
    let mut commands = redis::pipe();
    let set = commands.cmd("HSET").arg("hash");
    set.arg("a").arg("1").arg("b").arg("2").arg("c").arg("3");
    let expire = commands.cmd("HPEXPIREAT").arg("hash").arg(EXPIRY_MS);
    expire.arg("FIELDS").arg(2).arg("a").arg("b");
    commands.exec(&mut source.client()).unwrap();
    for said in ["*0\r\n", "*1\r\n:1\r\n", "*3\r\n:1\r\n:1\r\n:1\r\n"] {
        for act in [Act::Say(said), Act::DoAndSay(said)] {
            flush(&destination);
            let shown = format!("{act:?}");
            let proxy = proxy(&destination, "HPEXPIREAT", act, 1, 1);
            let output = copy(&source, &proxy, "fail");
            assert_eq!(output.code(), Some(0), "{shown} {}", output.stderr);
            assert_eq!(restored(&output), 1, "{shown}");
            run(&["diff", &source.url(), &destination.url()], b"").success();
        }
    }
}
