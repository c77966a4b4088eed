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
            let strings = 40;
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
            let proxy = Between::start(source.addr(), move |words| {
                is_deleting |= words[0].eq_ignore_ascii_case(b"WATCH");
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
            assert_eq!(
                output.summary()["sink"]["source_deleted"],
                strings,
                "{shown}"
            );
        }
    }
}

/// Imports what `fill` made, by native commands, through a proxy.
fn copy(source: &TestServer, proxy: &Between, policy: &str) -> Output {
    let (from, to) = (source.url(), proxy.url());
    let arguments = ["copy", &from, &to, "--method", "commands", "--json"];
    run(&[&arguments[..], &["--on-conflict", policy]].concat(), b"")
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
