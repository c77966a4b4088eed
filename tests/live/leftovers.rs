//! What if a value that is built by native commands fails, and so does the removal of its temporary
//! key?

use redis_migrate::select::TEMP_KEY_PREFIX;

use super::between::{Act, Between};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, run};

/// Streams with groups, which take several commands and a transaction after them, and two lists that
/// are too large to be written in one turn: 14 RPUSH each.
fn given(source: &TestServer) -> Vec<u8> {
    let mut client = source.client();
    let mut commands = redis::pipe();
    for n in 0..6 {
        let key = format!("stream{n}");
        commands.cmd("XADD").arg(&key).arg("1-1").arg("f").arg("v");
        let group = commands.cmd("XGROUP").arg("CREATE").arg(&key);
        group.arg("group").arg("0");
    }
    for list in ["list0", "list1"] {
        for _ in 0..40 {
            commands.cmd("RPUSH").arg(list).arg("x".repeat(30_000));
        }
    }
    commands.exec(&mut client).unwrap();
    let export = ["export", "--consistency", "scan", &source.url()];
    run(&export, b"").success().stdout
}

fn is(words: &[Vec<u8>], name: &str) -> bool {
    words[0].eq_ignore_ascii_case(name.as_bytes())
}

fn is_temporary(key: &[u8]) -> bool {
    key.starts_with(TEMP_KEY_PREFIX)
}

/// Refuses `command` from this occurrence on, and what comes behind it about temporary keys, until
/// so many removals were refused.
fn refuse(
    server: &TestServer,
    (command, from): (&'static str, u32),
    said: &'static str,
    removals: u32,
) -> Between {
    let (mut count, mut left) = (0, removals);
    Between::start(server.addr(), move |words| {
        let is_ours = words[1..].iter().any(|word| is_temporary(word));
        count += u32::from(is_ours && is(words, command));
        let is_removal = is(words, "UNLINK") || is(words, "DEL");
        if count < from || left == 0 || !is_ours {
            return Act::Pass;
        }
        if is_removal {
            left -= 1;
        }
        Act::Say(said)
    })
}

fn left(server: &TestServer) -> Vec<String> {
    let mut client = server.client();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut client).unwrap();
    let keys = keys.into_iter();
    keys.filter(|key| is_temporary(key.as_bytes())).collect()
}

fn import(proxy: &Between, input: &[u8]) -> Output {
    let arguments = ["import", &proxy.url(), "--method", "commands", "--json"];
    run(
        &[&arguments[..], &["--on-conflict", "replace"]].concat(),
        input,
    )
}

/// A replica, too few replicas, a script: what refuses the write refuses the removal, and passes.
#[test]
fn what_passes_leaves_no_temporary_key() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, server) = (TestServer::start(version), TestServer::start(version));
    let input = given(&source);
    for said in [
        "-NOREPLICAS Not enough good replicas to write.\r\n",
        "-BUSY Redis is busy running a script.\r\n",
        "-READONLY You can't write against a read only replica.\r\n",
    ] {
        // A list goes alone, and its removal is tried by two commands.
        for (command, removals) in [(("XGROUP", 3), 1), (("RPUSH", 18), 2)] {
            redis::cmd("FLUSHALL").exec(&mut server.client()).unwrap();
            let proxy = refuse(&server, command, said, removals);
            let output = import(&proxy, &input);
            let shown = format!("{} {said}{}", command.0, output.stderr);
            assert_eq!(output.code(), Some(0), "{shown}");
            assert_eq!(output.summary()["sink"]["restored"], 8, "{shown}");
            assert_eq!(left(&server), [""; 0], "{shown}");
            run(&["diff", &source.url(), &server.url()], b"").success();
        }
    }
}

/// Refuses the third XGROUP for a reason of its own, and removals by `removal`.
fn lasting(
    server: &TestServer,
    said: &'static str,
    removal: impl Fn(&[Vec<u8>]) -> Act + Send + 'static,
) -> Between {
    let mut count = 0;
    Between::start(server.addr(), move |words| {
        count += u32::from(is(words, "XGROUP"));
        match is(words, "XGROUP") && count == 3 {
            true => Act::Say(said),
            false => removal(words),
        }
    })
}

const NO_UNLINK: &str = "-NOPERM this user has no permissions to run the 'unlink' command\r\n";

#[test]
fn a_temporary_key_that_cannot_be_removed_is_named() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, server) = (TestServer::start(version), TestServer::start(version));
    let input = given(&source);
    let (odd, full) = ("-ERR odd\r\n", "-OOM command not allowed\r\n");
    // The run goes on, or ends: the key is named either way.
    for (said, code) in [(odd, 3), (full, 1)] {
        redis::cmd("FLUSHALL").exec(&mut server.client()).unwrap();
        let proxy = lasting(&server, said, |words| {
            match is(words, "UNLINK") || is(words, "DEL") {
                true => Act::Say(NO_UNLINK),
                false => Act::Pass,
            }
        });
        let output = import(&proxy, &input).expect_code(code);
        let left = left(&server);
        let shown = format!("{said}{left:?} {}", output.stderr);
        assert!(!left.is_empty(), "{shown}");
        for key in &left {
            assert!(output.stderr.contains(key), "{shown}");
        }
        let problems = output.summary()["problems"].to_string();
        assert!(
            problems.contains("may be left at the destination"),
            "{shown}"
        );
    }
    // DEL does where UNLINK is not to be had; and a run that failed tries once more.
    let patient = "-BUSY Redis is busy running a script.\r\n";
    for (said, refusal, code) in [(odd, NO_UNLINK, 3), (full, patient, 1)] {
        redis::cmd("FLUSHALL").exec(&mut server.client()).unwrap();
        let is_first = std::sync::atomic::AtomicBool::new(true);
        let proxy = lasting(&server, said, move |words| {
            let is_first =
                is(words, "UNLINK") && is_first.swap(false, std::sync::atomic::Ordering::SeqCst);
            match is_first || (is(words, "UNLINK") && refusal == NO_UNLINK) {
                true => Act::Say(refusal),
                false => Act::Pass,
            }
        });
        let output = import(&proxy, &input).expect_code(code);
        assert_eq!(left(&server), [""; 0], "{said}{}", output.stderr);
        assert!(!output.stderr.contains("may be left"), "{}", output.stderr);
    }
}
