//! Proxies that close the connection on a command that they do not know, and servers whose answer
//! to one command is not the one that was hoped for: what cannot be had is done without, or named;
//! no good word is said of what was not seen.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use crate::support::dataset::fill_every_type;
use crate::support::equality::{Options, differences};
use crate::support::many::fill_many;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, Tool, run};
use crate::support::toy::{Deed, Toy, Words};

fn summary(output: &Output) -> serde_json::Value {
    let lines = output.stderr.lines().rev();
    let mut objects = lines.filter_map(|line| serde_json::from_str(line).ok());
    objects
        .find(|object: &serde_json::Value| object["event"] == "summary")
        .unwrap_or_else(|| panic!("no summary in\n{}", output.stderr))
}

/// Nothing is missing, extra or different at the end; of database 0 only, if `only_zero`.
fn assert_moved(output: &Output, source: &TestServer, only_zero: bool) {
    let destination = TestServer::start(source.version());
    run(&["import", &destination.url()], &output.stdout).success();
    let options = Options {
        functions: false,
        only_dbs: only_zero.then(|| vec![0]),
        ttl_tolerance_ms: Some(1000),
        ..Options::default()
    };
    let found = differences(&mut source.client(), &mut destination.client(), &options);
    assert!(found.is_empty(), "{found:?}");
}

fn is(words: &Words, command: &[&str]) -> bool {
    let same = |(word, name): (&Vec<u8>, &&str)| word.eq_ignore_ascii_case(name.as_bytes());
    words.len() >= command.len() && words.iter().zip(command).all(same)
}

/// So many times the command is answered so, then as the server does.
fn at_first(
    source: &TestServer,
    command: &'static [&'static str],
    times: std::ops::Range<u32>,
    deed: Deed,
) -> Toy {
    let seen = AtomicU32::new(0);
    Toy::start(source.addr(), move |words| {
        if is(words, command) && times.contains(&seen.fetch_add(1, SeqCst)) {
            return deed.clone();
        }
        // The toy passes nothing on that is pushed.
        match is(words, &["HELLO", "3"]) {
            true => Deed::answer("-NOPROTO unsupported protocol version"),
            false => Deed::Pass,
        }
    })
}

fn filled(version: Version) -> Option<TestServer> {
    let server = TestServer::start(require(version)?);
    fill_every_type(&mut server.client(), version);
    Some(server)
}

/// A server with 300 keys in database 0 and 300 in database 3.
fn two_databases(version: Version) -> Option<TestServer> {
    let server = TestServer::start(require(version)?);
    for db in [0, 3] {
        fill_many(&mut server.client_db(db), 300, 1);
    }
    Some(server)
}

#[test]
fn a_proxy_that_closes_on_what_it_does_not_know_is_done_without() {
    // Values that only the newest know go to servers that tell their version.
    for version in [Version::Redis60, Version::Redis70, Version::Valkey81] {
        let Some(source) = filled(version) else {
            continue;
        };
        let few = Toy::knowing(source.addr(), &["SCAN", "DUMP", "PTTL"]);
        let export = run(&["export", &few.url()], b"")
            .success()
            .expect_stderr("whether there are keys in others is not known");
        assert_moved(&export, &source, true);
        // Learnt once: what ends the connection is not sent for ever.
        let infos = few.sent().iter().filter(|name| *name == "INFO").count();
        assert_eq!(infos, 2, "{:?}", few.sent());

        let destination = TestServer::start(version);
        let more = Toy::knowing(source.addr(), &["SCAN", "DUMP", "PTTL", "PING", "TIME"]);
        run(&["copy", &more.url(), &destination.url()], b"").success();

        for (commands, missing) in [
            (&["DUMP", "PTTL", "PING", "INFO"][..], "SCAN"),
            (&["SCAN", "PTTL", "PING", "INFO", "SELECT"], "DUMP"),
            (&["SCAN", "DUMP", "PING", "INFO", "SELECT"], "PTTL"),
        ] {
            let proxy = Toy::knowing(source.addr(), commands);
            run(&["export", &proxy.url()], b"")
                .expect_code(13)
                .expect_stderr(&format!("refuses {missing}, which is needed"));
        }
    }
}

/// Also those that answer errors, as a proxy or `rename-command` do.
#[test]
fn each_optional_command_may_end_the_connection() {
    let Some(source) = filled(Version::Redis70) else {
        return;
    };
    let closing: [&[&str]; 10] = [
        &["PING"],
        &["INFO"],
        &["TIME"],
        &["CLIENT"],
        &["HELLO"],
        &["MULTI"],
        &["EXEC"],
        &["PEXPIRETIME"],
        &["FUNCTION"],
        &["ROLE"],
    ];
    for command in closing {
        let proxy = at_first(&source, command, 0..u32::MAX, Deed::Close);
        let export = run(&["export", &proxy.url()], b"").success();
        assert_moved(&export, &source, false);
    }
    let server = TestServer::builder(Version::Redis70)
        .args(["--rename-command", "PING", ""])
        .start();
    run(&["export", &server.url()], b"").success();
}

/// Before the first key, and not key by key.
#[test]
fn without_dump_or_expiries_nothing_is_called_an_archive() {
    for version in [Version::Redis60, Version::Redis70, Version::Valkey91] {
        let Some(source) = filled(version) else {
            continue;
        };
        let user = |rule: &str| {
            let mut set = redis::cmd("ACL");
            set.arg("SETUSER").arg("some").arg("on").arg(">pw");
            set.arg(rule.split(' ').collect::<Vec<_>>());
            set.exec(&mut source.client()).unwrap();
            format!("redis://some:pw@127.0.0.1:{}", source.port())
        };
        let out = tempfile::tempdir().unwrap();
        for (rule, command) in [
            ("~* +@all -dump", "dump"),
            ("~* +@all -pttl -pexpiretime", "pttl"),
        ] {
            let rule = match version.is_at_least_7() {
                true => rule.to_owned(),
                false => rule.replace(" -pexpiretime", ""),
            };
            let file = out.path().join("x.rmz");
            Tool::new(&["export", &user(&rule), "-o"])
                .arg(&file)
                .run()
                .expect_code(13)
                .expect_stderr(&format!("+{command}"));
            assert!(!file.exists());
        }
        // A right to some keys only is a matter of each key.
        let export = run(&["export", &user("resetkeys ~string:* +@all")], b"").expect_code(3);
        run(&["verify"], &export.stdout).success();
    }
}

/// Errors that ask for patience: at the first and at a late occurrence of each command.
#[test]
fn a_server_that_asks_for_patience_is_waited_for() {
    let Some(source) = two_databases(Version::Redis70) else {
        return;
    };
    let errors = [
        "BUSY a script",
        "TRYAGAIN later",
        "MASTERDOWN no link",
        "CLUSTERDOWN down",
    ];
    let commands: [&[&str]; 8] = [
        &["SCAN"],
        &["SELECT", "3"],
        &["INFO"],
        &["TIME"],
        &["MULTI"],
        &["EXEC"],
        &["DUMP"],
        &["FUNCTION", "DUMP"],
    ];
    for (number, command) in commands.into_iter().enumerate() {
        for times in [0..2, 1..3, 6..8] {
            let error = errors[number % errors.len()];
            let proxy = at_first(&source, command, times, Deed::answer(&format!("-{error}")));
            let arguments = ["export", &proxy.url(), "--scan-count", "50", "--json"];
            let export = run(&arguments, b"").success();
            let given = &summary(&export)["source"]["given"];
            assert_eq!(given, 600, "{command:?}: {}", export.stderr);
        }
    }
    // Without transactions each key is asked for by itself.
    for command in [&["PTTL"][..], &["PEXPIRETIME"], &["DUMP"]] {
        let seen = AtomicU32::new(0);
        let proxy = Toy::start(source.addr(), move |words| {
            if is(words, &["MULTI"]) || is(words, &["HELLO", "3"]) {
                return Deed::answer("-ERR unknown command");
            }
            match is(words, command) && (20..24).contains(&seen.fetch_add(1, SeqCst)) {
                true => Deed::answer("-BUSY a script"),
                false => Deed::Pass,
            }
        });
        let export = run(&["export", &proxy.url(), "--json"], b"").success();
        assert_eq!(summary(&export)["source"]["given"], 600, "{command:?}");
    }
}

#[test]
fn a_server_that_asks_for_patience_for_ever_is_left_by_ctrl_c() {
    let Some(source) = two_databases(Version::Redis70) else {
        return;
    };
    for command in [&["SCAN"][..], &["INFO"]] {
        let proxy = at_first(
            &source,
            command,
            0..u32::MAX,
            Deed::answer("-BUSY a script"),
        );
        let mut tool = Tool::new(&["export", &proxy.url()]).spawn();
        while !proxy.sent().iter().any(|name| name == command[0]) {
            std::thread::sleep(Duration::from_millis(10));
        }
        tool.signal("INT");
        tool.wait().expect_code(130);
    }
}

/// A database that cannot be gone to is not read under another's number, whatever refuses.
#[test]
fn a_refused_select_never_gives_the_keys_of_another_database() {
    let Some(source) = two_databases(Version::Redis70) else {
        return;
    };
    let dbs = |export: &Output| -> Vec<String> {
        let list = run(&["list", "--json"], &export.stdout).success();
        let text = String::from_utf8_lossy(&list.stdout).into_owned();
        let rows = text.lines().filter_map(|line| {
            let row: serde_json::Value = serde_json::from_str(line).ok()?;
            row["key"].is_string().then(|| row["db"].to_string())
        });
        let mut all: Vec<String> = rows.collect();
        all.sort();
        all.dedup();
        all
    };
    for text in [
        "-NOPERM No permissions to access database",
        "-ERR DB index is out of range",
        "-ERR unknown command 'SELECT'",
    ] {
        // Database 0 is where every connection begins.
        let no_zero = at_first(&source, &["SELECT", "0"], 0..u32::MAX, Deed::answer(text));
        let export = run(&["export", &no_zero.url()], b"").success();
        assert_eq!(dbs(&export), ["0", "3"], "{text}");
        assert_moved(&export, &source, false);

        let no_three = at_first(&source, &["SELECT", "3"], 0..u32::MAX, Deed::answer(text));
        let export = run(&["export", &no_three.url(), "--json"], b"").expect_code(3);
        assert_eq!(dbs(&export), ["0"], "{text}");
        assert_eq!(summary(&export)["source"]["failed"], 300);
        run(&["export", &no_three.url(), "--db", "0,3"], b"").expect_code(3);
        // All that was wanted.
        assert_ne!(
            run(&["export", &no_three.url(), "--db", "3"], b"").code(),
            Some(0)
        );
        run(&["diff", &no_three.url(), &source.url()], b"").expect_code(3);
        // It was to be had when it was tried.
        let late = at_first(&source, &["SELECT", "3"], 1..u32::MAX, Deed::answer(text));
        let export = run(&["export", &late.url()], b"")
            .expect_code(3)
            .expect_stderr("database 3");
        assert!(!export.stderr.contains("exact as of"), "{}", export.stderr);
        assert_eq!(dbs(&export), ["0"], "{text}");
    }
    // Any other answer is none.
    for odd in ["+QUEUED", ":1", "$-1"] {
        let proxy = at_first(&source, &["SELECT", "3"], 0..u32::MAX, Deed::answer(odd));
        run(&["export", &proxy.url()], b"").expect_code(1);
    }
}

#[test]
fn databases_that_an_acl_forbids_are_named_and_the_others_are_read() {
    let Some(version) = require(Version::Valkey91) else {
        return;
    };
    let source = TestServer::start(version);
    for db in 0..3 {
        fill_many(&mut source.client_db(db), 50, u64::from(db));
    }
    let user = |dbs: &str| {
        let mut set = redis::cmd("ACL");
        set.arg(&[
            "SETUSER", "some", "on", ">pw", "~*", "&*", "+@all", "resetdbs", dbs,
        ]);
        set.exec(&mut source.client()).unwrap();
        format!("redis://some:pw@127.0.0.1:{}", source.port())
    };
    for (dbs, readable, missing) in [
        ("db=1,2", [1, 2], 0),
        ("db=0,2", [0, 2], 1),
        ("db=0,1", [0, 1], 2),
    ] {
        let url = user(dbs);
        for flags in [&[][..], &["--consistency", "scan"], &["--db", "0,1,2"]] {
            let arguments = [&["export", &url], flags].concat();
            let export = run(&arguments, b"")
                .expect_code(3)
                .expect_stderr(&format!("database {missing} (50 keys)"));
            let destination = TestServer::start(version);
            run(&["import", &destination.url()], &export.stdout).success();
            let options = Options {
                only_dbs: Some(readable.to_vec()),
                ..Options::default()
            };
            let found = differences(&mut source.client(), &mut destination.client(), &options);
            assert!(found.is_empty(), "{dbs}: {found:?}");
            let keys: u64 = redis::cmd("DBSIZE")
                .query(&mut destination.client_db(missing))
                .unwrap();
            assert_eq!(keys, 0, "{dbs}");
        }
        let export = run(&["export", &source.url()], b"").success();
        let diff = run(&["diff", "-", &url], &export.stdout).expect_code(3);
        let text = String::from_utf8_lossy(&diff.stdout).into_owned();
        assert!(text.contains("no difference found, but"), "{text}");
        assert!(!text.contains("equal"), "{text}");
        let only = format!("{url}/{missing}");
        run(&["export", &only], b"")
            .expect_code(13)
            .expect_stderr("db=N");
    }
}

/// What is not a payload of libraries is not called one.
#[test]
fn libraries_are_believed_only_as_far_as_they_can_be() {
    let Some(source) = filled(Version::Redis70) else {
        return;
    };
    let dump: Vec<u8> = redis::cmd("FUNCTION")
        .arg("DUMP")
        .query(&mut source.client())
        .unwrap();
    let bulk = |bytes: &[u8]| {
        let head = format!("${}\r\n", bytes.len()).into_bytes();
        Deed::Answer([&head, bytes, b"\r\n"].concat())
    };
    let mut flipped = dump.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for deed in [
        Deed::answer("$-1"),
        bulk(b""),
        bulk(b"garbage"),
        bulk(&flipped),
        Deed::answer(":5"),
        Deed::answer("+QUEUED"),
    ] {
        // FUNCTION LIST is the other way to them.
        let by_list = at_first(&source, &["FUNCTION", "DUMP"], 0..u32::MAX, deed.clone());
        run(&["export", &by_list.url()], b"")
            .success()
            .expect_stderr("with functions");
        let neither = at_first(&source, &["FUNCTION"], 0..u32::MAX, deed.clone());
        let export = run(&["export", &neither.url()], b"")
            .expect_code(3)
            .expect_stderr("function libraries were not read");
        assert!(!export.stderr.contains("with functions"), "{deed:?}");
        run(&["export", &neither.url(), "--no-functions"], b"").success();
        assert_ne!(
            run(&["export", &neither.url(), "--functions"], b"").code(),
            Some(0)
        );
    }
    let before = at_first(
        &source,
        &["FUNCTION"],
        0..u32::MAX,
        Deed::answer("-ERR unknown command 'FUNCTION'"),
    );
    run(&["export", &before.url()], b"").success();
}

/// Whatever comes, and however much: an end, and little memory.
#[test]
fn a_hostile_server_is_left() {
    let Some(source) = two_databases(Version::Redis70) else {
        return;
    };
    let claim = |head: &str| Deed::Answer(format!("{head}\r\n").into_bytes());
    let endless = |command: &'static [&'static str], head: &'static str, more: &'static [u8]| {
        Toy::start(source.addr(), move |words| match is(words, command) {
            true => Deed::Endless([head.as_bytes(), more].concat()),
            false => Deed::Pass,
        })
    };
    let big = [b'x'; 65_536];
    let big: &'static [u8] = Box::leak(Box::new(big));
    let toys = [
        endless(&["INFO"], "$4294967296\r\n", big),
        endless(&["INFO"], "+", big),
        endless(&["INFO"], "*1\r\n", b""),
        endless(&["TIME"], "*1000000000\r\n", b":1\r\n"),
        at_first(&source, &["SCAN"], 0..u32::MAX, claim("*2\r\n$4294967296")),
        at_first(
            &source,
            &["SCAN"],
            0..u32::MAX,
            claim("*2\r\n$1\r\n0\r\n*1\r\n$4294967296"),
        ),
    ];
    for toy in &toys {
        let export = run(
            &["export", &toy.url(), "--retries", "1", "--timeout", "2s"],
            b"",
        );
        assert_eq!(export.code(), Some(1), "{}", export.stderr);
        assert!(
            export.peak_memory_kib < 160 * 1024,
            "{} KiB",
            export.peak_memory_kib
        );
    }
    // A page without an end: the head once, and then names.
    let is_page = |words: &Words| is(words, &["SCAN"]) && !words.contains(&b"1".to_vec());
    let page = Toy::start(source.addr(), move |words| match is_page(words) {
        true => {
            let mut names = b"*2\r\n$1\r\n7\r\n*1000000000\r\n".to_vec();
            names.extend(b"$3\r\nkey\r\n".repeat(2_000_000));
            Deed::Answer(names)
        }
        false => Deed::Pass,
    });
    run(&["export", &page.url(), "--consistency", "scan"], b"")
        .expect_code(1)
        .expect_stderr("--scan-count");
    // A cursor that leads nowhere.
    let circle = at_first(
        &source,
        &["SCAN"],
        0..u32::MAX,
        Deed::answer("*2\r\n$1\r\n7\r\n*0"),
    );
    run(&["export", &circle.url()], b"")
        .expect_code(1)
        .expect_stderr("gave back the cursor");
}

#[test]
fn a_password_that_the_server_does_not_have_is_a_warning() {
    for version in [Version::Redis60, Version::Redis70, Version::Valkey91] {
        let Some(source) = filled(version) else {
            continue;
        };
        let url = |login: &str| format!("redis://{login}@127.0.0.1:{}", source.port());
        run(&["export", &url(":secret")], b"")
            .success()
            .expect_stderr("needs no password, but one was given");
        let destination = TestServer::start(version);
        let to = format!("redis://:secret@127.0.0.1:{}", destination.port());
        run(&["copy", &url(":secret"), &to], b"").success();
        // A name is somebody.
        run(&["export", &url("nobody:secret")], b"").expect_code(12);
        let old = at_first(
            &source,
            &["AUTH"],
            0..u32::MAX,
            Deed::answer("-ERR Client sent AUTH, but no password is set"),
        );
        run(&["export", &old.url_of(":secret")], b"").success();
        for odd in ["$-1", "+QUEUED", ":1"] {
            let odd = at_first(&source, &["AUTH"], 0..u32::MAX, Deed::answer(odd));
            run(&["export", &odd.url_of(":secret")], b"").expect_code(12);
        }
    }
}

/// An error to PING proves that somebody answers.
#[test]
fn a_server_that_cannot_save_can_be_read() {
    let Some(source) = filled(Version::Redis70) else {
        return;
    };
    let failed = "-MISCONF Redis is configured to save RDB snapshots, but it's currently unable to";
    let proxy = at_first(&source, &["PING"], 0..u32::MAX, Deed::answer(failed));
    let export = run(&["export", &proxy.url()], b"").success();
    assert_moved(&export, &source, false);
    run(&["diff", "-", &proxy.url()], &export.stdout).success();
    // Not if it sends us away.
    let full = at_first(
        &source,
        &["PING"],
        0..u32::MAX,
        Deed::answer("-ERR max number of clients reached"),
    );
    run(&["export", &full.url(), "--retries", "0"], b"").expect_code(12);
}

/// The same answer is cut in its middle each time.
#[test]
fn a_connection_that_breaks_at_the_same_place_each_time_comes_to_an_end() {
    let Some(source) = two_databases(Version::Redis70) else {
        return;
    };
    let page = at_first(&source, &["SCAN"], 3..u32::MAX, Deed::Cut(40));
    run(
        &[
            "export",
            &page.url(),
            "--scan-count",
            "50",
            "--retries",
            "3",
        ],
        b"",
    )
    .expect_code(1);
    // One key's value: it is named, and all others come.
    let name = "one:large";
    redis::cmd("SET")
        .arg(name)
        .arg("x".repeat(200_000))
        .exec(&mut source.client())
        .unwrap();
    for transactions in [true, false] {
        let inside = std::sync::Mutex::new(false);
        let proxy = Toy::start(source.addr(), move |words| {
            if is(words, &["HELLO", "3"]) || !transactions && is(words, &["MULTI"]) {
                return Deed::answer("-ERR unknown command");
            }
            let mut inside = inside.lock().unwrap();
            if is(words, &["MULTI"]) {
                *inside = false;
            }
            *inside |= is(words, &["DUMP", name]);
            match *inside && (!transactions || is(words, &["EXEC"])) {
                true => {
                    *inside = false;
                    Deed::Cut(2_000)
                }
                false => Deed::Pass,
            }
        });
        let export = run(&["export", &proxy.url(), "--json"], b"").expect_code(3);
        let summary = summary(&export);
        assert_eq!(summary["source"]["given"], 600, "{}", export.stderr);
        assert_eq!(summary["source"]["failed"], 1);
        assert!(export.stderr.contains(name), "{}", export.stderr);
    }
}
