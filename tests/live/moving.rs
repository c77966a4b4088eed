//! `copy --delete-source` where a mistake would lose the only copy of a key: one server under two
//! addresses, a destination that is a replica, evicts, or comes back empty.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::live::between::{Act, Between};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Running, Tool, run};

/// A user who may write, and is told nothing but whether keys are evicted.
const LEAST: &str = "least on >p ~* -@all +restore +select +config|get";

fn size(server: &TestServer) -> u64 {
    redis::cmd("DBSIZE").query(&mut server.client()).unwrap()
}

fn fill(server: &TestServer, keys: u64) {
    let mut pipe = redis::pipe();
    for n in 0..keys {
        pipe.cmd("SET").arg(format!("k{n}")).arg("v").ignore();
    }
    pipe.exec(&mut server.client()).unwrap();
}

/// Begins to copy 100 keys a second, so that something can happen in between.
fn slow_copy(source: &TestServer, url: &str, flags: &[&str]) -> Running {
    Tool::new(&["copy", &source.url(), url, "--rate-limit", "100"])
        .args(flags)
        .spawn()
}

/// The same server by addresses that cannot be compared, and a login that is told nothing.
fn aliases(server: &TestServer) -> [String; 2] {
    [
        format!("redis://least:p@localhost:{}", server.port()),
        format!("redis+unix://least:p@{}", server.socket().display()),
    ]
}

/// Nothing that is asked tells that it is one server: a key that is written does.
#[test]
fn delete_source_within_one_server_that_hides_who_it_is() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::builder(version)
        .unix_socket()
        .user(LEAST)
        .start();
    fill(&server, 3);
    for url in aliases(&server) {
        for flags in [
            &["--replace", "--delete-source"][..],
            &["--add-prefix", "p:", "--follow", "--for", "1s"],
        ] {
            run(&[&["copy", &server.url(), &url], flags].concat(), b"")
                .expect_code(2)
                .expect_stderr("same server");
            assert_eq!(size(&server), 3, "{url} {flags:?}");
        }
        // It is left out what this run writes.
        run(&["copy", &server.url(), &url, "--add-prefix", "p:"], b"").success();
        assert_eq!(size(&server), 6);
        for n in 0..3 {
            let mut del = redis::cmd("DEL");
            del.arg(format!("p:k{n}"))
                .exec(&mut server.client())
                .unwrap();
        }
    }
    // Behind a proxy that passes on nothing that would tell.
    let proxy = Between::start(server.addr(), |words| {
        match words[0].to_ascii_uppercase().as_slice() {
            b"INFO" | b"CLIENT" | b"HELLO" | b"CLUSTER" => Act::Say("-NOPERM no\r\n"),
            _ => Act::Pass,
        }
    });
    let copy = ["copy", &server.url(), &proxy.url(), "--replace"];
    run(&[&copy[..], &["--delete-source"]].concat(), b"")
        .expect_code(2)
        .expect_stderr("same server");
    assert_eq!(size(&server), 3);
}

/// Where not even a key tells, nothing begins; a plain copy does.
#[test]
fn what_depends_on_two_servers_is_refused_where_that_is_not_known() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = TestServer::start(version);
    let destination = TestServer::builder(version)
        .user("least on >p ~k* ~p:k* -@all +restore +select")
        .start();
    fill(&source, 3);
    let url = format!("redis://least:p@localhost:{}", destination.port());
    for flags in [&["--delete-source"][..], &["--add-prefix", "p:"]] {
        run(&[&["copy", &source.url(), &url], flags].concat(), b"")
            .expect_code(13)
            .expect_stderr("+client|setname");
        assert_eq!((size(&source), size(&destination)), (3, 0), "{flags:?}");
    }
    run(&["copy", &source.url(), &url], b"").success();
    assert_eq!((size(&source), size(&destination)), (3, 3));
}

/// The key that tells two servers apart is gone afterwards, also where nothing may be deleted and
/// where the connection ends behind it.
#[test]
fn the_key_that_tells_two_servers_apart_does_not_stay() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = TestServer::start(version);
    let destination = TestServer::builder(version).user(LEAST).start();
    fill(&source, 3);
    let url = format!("redis://least:p@localhost:{}", destination.port());
    run(&["copy", &source.url(), &url, "--add-prefix", "p:"], b"").success();
    assert_eq!((size(&source), size(&destination)), (3, 3));
    let expiring = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = std::sync::Arc::clone(&expiring);
    let proxy = Between::start(destination.addr(), move |words| {
        let word = words[0].to_ascii_uppercase();
        if word != b"RESTORE" {
            return match matches!(word.as_slice(), b"SELECT" | b"AUTH" | b"PING") {
                true => Act::Pass,
                false => Act::Say("-NOPERM no\r\n"),
            };
        }
        seen.lock().unwrap().push(words[2].clone());
        Act::HangUp
    });
    run(
        &["copy", &source.url(), &proxy.url(), "--add-prefix", "x:"],
        b"",
    )
    .expect_code(13);
    let expiring = expiring.lock().unwrap();
    assert!(!expiring.is_empty());
    assert!(expiring.iter().all(|ttl| ttl != b"0"), "{expiring:?}");
}

fn replicate(replica: &TestServer, primary: &TestServer) {
    let mut replicaof = redis::cmd("REPLICAOF");
    replicaof.arg("127.0.0.1").arg(primary.port());
    replicaof.exec(&mut replica.client()).unwrap();
    for _ in 0..600 {
        let mut info = redis::cmd("INFO");
        let text: String = info
            .arg("replication")
            .query(&mut replica.client())
            .unwrap();
        if text.contains("master_link_status:up") {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("the replica does not come up");
}

/// What is deleted at the source is deleted at its replica, too.
#[test]
fn delete_source_to_a_writable_replica_is_refused() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = TestServer::start(version);
    let replica = TestServer::builder(version)
        .option("--replica-read-only", "no")
        .user("meek on >p ~* &* +@all -info -role")
        .start();
    fill(&source, 5);
    replicate(&replica, &source);
    let meek = format!("redis://meek:p@127.0.0.1:{}", replica.port());
    for url in [replica.url(), meek] {
        for flags in [
            &[][..],
            &["--replace"],
            &["--add-prefix", "x:"],
            &["--dry-run"],
        ] {
            let copy = ["copy", &source.url(), &url, "--delete-source"];
            run(&[&copy[..], flags].concat(), b"")
                .expect_code(2)
                .expect_stderr("it is a replica");
            assert_eq!((size(&source), size(&replica)), (5, 5), "{url} {flags:?}");
        }
    }
    // Without it, what will happen is said.
    run(
        &["copy", &source.url(), &replica.url(), "--add-prefix", "x:"],
        b"",
    )
    .success()
    .expect_stderr("the destination is a replica");
}

/// The role of the destination is looked at again before each deletion, and where nothing tells it
/// nothing begins.
#[test]
fn delete_source_goes_on_only_while_the_destination_is_a_primary() {
    const REPLICA: &str = "$40\r\n# Replication\r\nrole:slave\r\nmaxmemory:0\r\n\r\n";
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    fill(&source, 300);
    let silent = Between::start(destination.addr(), |words| {
        match words[0].to_ascii_uppercase().as_slice() {
            b"INFO" | b"HELLO" | b"ROLE" => Act::Say("-NOPERM no\r\n"),
            _ => Act::Pass,
        }
    });
    let copy = ["copy", &source.url(), &silent.url(), "--delete-source"];
    run(&copy, b"").expect_code(13).expect_stderr("+role");
    assert_eq!((size(&source), size(&destination)), (300, 0));
    let mut looks = 0;
    let turning = Between::start(destination.addr(), move |words| {
        if !words[0].eq_ignore_ascii_case(b"INFO") {
            return Act::Pass;
        }
        looks += 1;
        match looks {
            ..10 => Act::Pass,
            _ => Act::Say(REPLICA),
        }
    });
    let copy = ["copy", &source.url(), &turning.url(), "--delete-source"];
    let output = run(&[&copy[..], &["--json"]].concat(), b"").expect_code(1);
    let output = output.expect_stderr("became a replica during this run");
    let left = size(&source);
    assert!((1..300).contains(&left), "{left}");
    assert_eq!(output.summary()["sink"]["source_deleted"], 300 - left);
    let said = format!("{} keys were deleted at the source already", 300 - left);
    assert!(output.stderr.contains(&said), "{}", output.stderr);
}

/// What a destination acknowledged and lost is not deleted at the source.
#[test]
fn delete_source_stops_where_the_destination_comes_back_empty() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    const KEYS: u64 = 300;
    for login in ["", "meek:p@"] {
        let source = TestServer::start(version);
        let mut destination = TestServer::builder(version)
            .user("meek on >p ~* &* +@all -info")
            .start();
        fill(&source, KEYS);
        let url = format!("redis://{login}127.0.0.1:{}", destination.port());
        let running = slow_copy(&source, &url, &["--delete-source", "--json"]);
        wait_for(&destination, 100);
        destination.restart();
        let output = running.wait().expect_code(1);
        let shown = &output.stderr;
        assert!(!shown.contains("run the same command again"), "{shown}");
        let deleted = KEYS - size(&source);
        assert!((50..250).contains(&deleted), "{deleted}: {shown}");
        let said = format!("{deleted} keys were deleted at the source already");
        assert!(shown.contains(&said), "{said}: {shown}");
        assert_eq!(output.summary()["sink"]["source_deleted"], deleted);
    }
}

/// What somebody empties there in the middle of the run is not deleted at the source after that; and a
/// reset that could hide it ends the run, too.
#[test]
fn delete_source_stops_where_the_destination_is_emptied() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    const KEYS: u64 = 300;
    for (then, said) in [
        (None, "had databases emptied or swapped"),
        (Some("RESETSTAT"), "had its statistics reset"),
    ] {
        let (source, destination) = (TestServer::start(version), TestServer::start(version));
        fill(&source, KEYS);
        let flags = ["--delete-source", "--json"];
        let running = slow_copy(&source, &destination.url(), &flags);
        wait_for(&destination, 100);
        let client = &mut destination.client();
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("FLUSHALL").ignore();
        if let Some(word) = then {
            pipe.cmd("CONFIG").arg(word).ignore();
        }
        pipe.exec(client).unwrap();
        let output = running.wait().expect_code(1).expect_stderr(said);
        let shown = &output.stderr;
        assert!(!shown.contains("run the same command again"), "{shown}");
        let deleted = KEYS - size(&source);
        assert!((50..250).contains(&deleted), "{deleted}: {shown}");
        let said = format!("{deleted} keys were deleted at the source already");
        assert!(shown.contains(&said), "{said}: {shown}");
    }
}

/// Emptied behind a reset of the statistics, a copy does not call itself exact.
#[test]
fn a_destination_that_hides_what_happened_is_not_called_exact() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    fill(&source, 200);
    let running = slow_copy(&source, &destination.url(), &[]);
    wait_for(&destination, 80);
    let mut pipe = redis::pipe();
    pipe.cmd("FLUSHALL").cmd("CONFIG").arg("RESETSTAT");
    pipe.exec(&mut destination.client()).unwrap();
    let output = running
        .wait()
        .expect_stderr("no longer tells whether its databases were emptied")
        .expect_stderr("not known to be exact at the destination");
    assert!(!output.stderr.contains("exact as of"), "{}", output.stderr);
    assert!(size(&destination) < 200);
}

/// What is written to its primary comes back to the replica that is read.
#[test]
fn a_copy_from_a_replica_to_its_primary_does_not_copy_what_it_wrote() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (primary, replica) = (TestServer::start(version), TestServer::start(version));
    fill(&primary, 500);
    replicate(&replica, &primary);
    let copy = ["copy", &replica.url(), &primary.url()];
    for flags in [&[][..], &["--follow"]] {
        run(&[&copy[..], flags].concat(), b"").expect_code(2);
    }
    run(
        &[&copy[..], &["--add-prefix", "n:", "--rate-limit", "1000"]].concat(),
        b"",
    )
    .success()
    .expect_stderr("the source is a replica of the destination");
    assert_eq!(size(&primary), 1_000);
    // What arrives in database 1 is not read there and written to 2.
    let map = ["--map-db", "0:1", "--map-db", "1:2"];
    run(&[&copy[..], &map].concat(), b"").success();
    let sizes: Vec<u64> = (1..3)
        .map(|db| {
            let dbsize = redis::cmd("DBSIZE");
            dbsize.query(&mut primary.client_db(db)).unwrap()
        })
        .collect();
    assert_eq!(sizes, [1_000, 0]);
}

/// What deleting takes is asked for before the first key is written, by a dry run as well.
#[test]
fn delete_source_is_refused_before_the_first_key_where_it_may_not_delete() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = TestServer::builder(version)
        .user("least on >p ~* -@all +scan +dump +pttl +select +info")
        .user("reader on >p ~* +@all -watch")
        .user("keeper on >p ~* +@all -del")
        .start();
    let destination = TestServer::start(version);
    fill(&source, 3);
    for (login, command) in [("least", "MULTI"), ("reader", "WATCH"), ("keeper", "DEL")] {
        for flags in [&[][..], &["--dry-run"]] {
            let url = format!("redis://{login}:p@127.0.0.1:{}", source.port());
            let copy = ["copy", &url, &destination.url(), "--delete-source"];
            run(&[&copy[..], flags].concat(), b"")
                .expect_code(13)
                .expect_stderr(&format!("refuses {command}"));
            assert_eq!((size(&source), size(&destination)), (3, 0), "{login}");
        }
    }
}

/// A user who may read some names only, and is told nothing: a name among them tells the servers
/// apart.
#[test]
fn the_key_that_tells_two_servers_apart_may_be_named_like_those_that_are_read() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = TestServer::builder(version)
        .user("some on >p ~k* -@all +scan +dump +pttl +select")
        .start();
    let destination = TestServer::start(version);
    fill(&source, 3);
    let url = format!("redis://some:p@127.0.0.1:{}", source.port());
    let copy = ["copy", &url, &destination.url(), "--add-prefix", "p:"];
    // The source is the one that keeps silent.
    run(&copy, b"")
        .expect_code(13)
        .expect_stderr(&format!("127.0.0.1:{} refuses INFO", source.port()));
    run(&[&copy[..], &["--match", "k*"]].concat(), b"").success();
    assert_eq!((size(&source), size(&destination)), (3, 3));
}

/// The same without `--delete-source`: nothing that was lost is called exact.
#[test]
fn a_destination_that_comes_back_empty_is_not_called_exact() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = TestServer::start(version);
    let mut destination = TestServer::start(version);
    fill(&source, 200);
    let running = slow_copy(&source, &destination.url(), &[]);
    wait_for(&destination, 80);
    destination.restart();
    let output = running
        .wait()
        .expect_code(3)
        .expect_stderr("run the same command again")
        .expect_stderr("not exact at the destination");
    assert!(!output.stderr.contains("exact as of"), "{}", output.stderr);
    assert!(size(&destination) < 200);
}

fn wait_for(destination: &TestServer, keys: u64) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while size(destination) < keys {
        assert!(std::time::Instant::now() < deadline, "nothing arrives");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Whether the destination evicts has to be known before anything is deleted; CONFIG tells as well
/// as INFO.
#[test]
fn a_destination_that_does_not_say_whether_it_evicts() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = TestServer::start(version);
    let destination = TestServer::builder(version)
        .user("meek on >p ~* &* +@all -info -config")
        .user("half on >p ~* &* +@all -info")
        .start();
    fill(&source, 5);
    let url = |login: &str| format!("redis://{login}:p@127.0.0.1:{}", destination.port());
    let word = "whether the destination evicted keys during this run is not known";
    for flags in [&[][..], &["--dry-run"]] {
        let copy = ["copy", &source.url(), &url("meek"), "--delete-source"];
        run(&[&copy[..], flags].concat(), b"")
            .expect_code(13)
            .expect_stderr("+config|get");
        assert_eq!((size(&source), size(&destination)), (5, 0));
    }
    run(&["copy", &source.url(), &url("meek")], b"")
        .success()
        .expect_stderr(word);
    let half = url("half");
    let known = run(&["copy", &source.url(), &half, "--replace"], b"").success();
    assert!(!known.stderr.contains(word), "{}", known.stderr);
    run(&["copy", &source.url(), &half, "--delete-source"], b"").success();
    assert_eq!((size(&source), size(&destination)), (0, 5));
}

/// What was acknowledged by one process is not deleted under another, however long the source was
/// away in between.
#[test]
fn delete_source_looks_at_the_destination_after_the_source_was_lost() {
    const OTHER: &str =
        "$65\r\n# Server\r\nrun_id:other\r\n# Replication\r\nrole:master\r\nmaxmemory:0\r\n\r\n";
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    fill(&source, 100);
    let was_lost = Arc::new(AtomicBool::new(false));
    let (loses, lost) = (Arc::clone(&was_lost), Arc::clone(&was_lost));
    let mut is_deleting = false;
    let from = Between::start(source.addr(), move |words| {
        // Not the trial before anything is read.
        is_deleting |= words[0].eq_ignore_ascii_case(b"WATCH") && words[1].starts_with(b"k");
        let is_now = is_deleting && words[0].eq_ignore_ascii_case(b"DUMP");
        match is_now && !loses.swap(true, SeqCst) {
            true => Act::HangUp,
            false => Act::Pass,
        }
    });
    let to = Between::start(destination.addr(), move |words| {
        match words[0].eq_ignore_ascii_case(b"INFO") && lost.load(SeqCst) {
            true => Act::Say(OTHER),
            false => Act::Pass,
        }
    });
    run(&["copy", &from.url(), &to.url(), "--delete-source"], b"")
        .expect_code(1)
        .expect_stderr("was restarted or replaced")
        .expect_stderr("no key was deleted at the source");
    assert!(was_lost.load(SeqCst));
    assert_eq!(size(&source), 100);
}

fn exec(server: &TestServer, words: &[&str]) {
    let (name, args) = words.split_first().expect("a command");
    let done = redis::cmd(name).arg(args).exec(&mut server.client());
    done.unwrap_or_else(|error| panic!("{words:?}: {error}"));
}

fn exists(server: &TestServer, key: &str) -> bool {
    let query = redis::cmd("EXISTS").arg(key).query(&mut server.client());
    query.expect("EXISTS")
}

/// A stream that remembers an id for some seconds.
fn remember(server: &TestServer, key: &str, seconds: &str) {
    exec(server, &["XADD", key, "1-1", "f", "v"]);
    exec(server, &["XCFGSET", key, "IDMP-DURATION", seconds]);
    exec(server, &["XADD", key, "IDMP", "p", "i", "*", "f", "v"]);
}

/// Ids that the source forgets by its clock are no change, settings are one, and the reason is given.
#[test]
fn delete_source_of_streams_that_forget_ids() {
    let Some(version) = require(Version::Redis86) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    for n in 0..30 {
        remember(&source, &format!("s{n}"), ["1", "2", "3"][n % 3]);
    }
    let copy = ["copy", &source.url(), &destination.url(), "--delete-source"];
    let slowly = Tool::new(&copy).args(&["--rate-limit", "8", "--json"]);
    let running = slowly.spawn();
    wait_for(&destination, 1);
    // It waits for others to be deleted together.
    let mut there = destination.client();
    let first: String = redis::cmd("RANDOMKEY").query(&mut there).unwrap();
    exec(&source, &["XCFGSET", &first, "IDMP-MAXSIZE", "7"]);
    let output = running.wait().success();
    let output = output.expect_stderr("kept at the source: 1 key, because the value or expiry");
    let sink = output.summary()["sink"].clone();
    assert_eq!(
        (&sink["source_deleted"], &sink["source_kept"]),
        (&29.into(), &1.into())
    );
    assert_eq!(sink["source_kept_because"]["changed"], 1, "{sink}");
    assert!(exists(&source, &first));
    assert_eq!(size(&source), 1);
}

/// WATCH sees neither XCFGSET nor XIDMPRECORD, and nothing that they change is deleted all the same.
#[test]
fn delete_source_sees_settings_change_at_the_last_moment() {
    let Some(version) = require(Version::Redis86) else {
        return;
    };
    let source = TestServer::builder(version)
        .user("plain on >p ~* &* +@all -eval")
        .start();
    let destination = TestServer::start(version);
    for key in ["s1", "s2", "s3"] {
        remember(&source, key, "3600");
    }
    fill(&source, 2);
    let login = format!("redis://plain:p@127.0.0.1:{}", source.port());
    let copy = [
        "copy",
        &login,
        &destination.url(),
        "--delete-source",
        "--json",
    ];
    let kept = run(&copy, b"").success();
    let why = kept.summary()["sink"]["source_kept_because"].clone();
    assert_eq!(why["scripts_refused"], 3, "{why}");
    assert_eq!(why["changed"], 0, "{why}");
    assert_eq!(size(&source), 3);

    let (mut is_deleting, mut client) = (false, source.client());
    let from = Between::start(source.addr(), move |words| {
        // Not the trial before anything is read.
        is_deleting |= words[0].eq_ignore_ascii_case(b"WATCH") && words[1].starts_with(b"s");
        if is_deleting && words[0].eq_ignore_ascii_case(b"MULTI") {
            for command in [
                &["XCFGSET", "s1", "IDMP-DURATION", "77"][..],
                &["XIDMPRECORD", "s2", "p", "late", "1-1"],
            ] {
                let (name, args) = command.split_first().expect("a command");
                redis::cmd(name).arg(args).exec(&mut client).expect(name);
            }
        }
        Act::Pass
    });
    let copy = [
        "copy",
        &from.url(),
        &destination.url(),
        "--delete-source",
        "--json",
    ];
    let done = run(&copy, b"").success();
    let sink = done.summary()["sink"].clone();
    assert_eq!(sink["source_deleted"], 1, "{sink}");
    assert_eq!(sink["source_kept_because"]["changed"], 2, "{sink}");
    let left = ["s1", "s2", "s3"].map(|key| exists(&source, key));
    assert_eq!(left, [true, true, false]);
}

/// Before 6.0.10 WATCH does not see that a key went to another database.
#[test]
fn delete_source_sees_databases_swapped_at_the_last_moment() {
    for version in [Version::Redis50, Version::Redis60] {
        let Some(version) = require(version) else {
            continue;
        };
        let (source, destination) = (TestServer::start(version), TestServer::start(version));
        let far = "32503680000000";
        let tell = |db: u32, commands: &[&[&str]]| {
            let mut client = source.client_db(db);
            for words in commands {
                let (name, args) = words.split_first().expect("a command");
                redis::cmd(name).arg(args).exec(&mut client).expect(name);
            }
        };
        let expires = ["PEXPIREAT", "expires", far];
        let (plain, stream) = (["SET", "plain", "v"], ["XADD", "stream", "1-1", "f", "v"]);
        tell(0, &[&plain, &["SET", "expires", "v"], &expires, &stream]);
        let copy = ["copy", &source.url(), &destination.url(), "--delete-source"];
        run(&copy, b"").success();
        assert_eq!(size(&source), 0, "{version:?}");

        tell(0, &[&["SET", "a", "v"], &["SET", "b", "v"]]);
        let there = ["SET", "b", "v", "PX", "100000000"];
        tell(1, &[&["SET", "a", "other"], &there]);
        let (mut is_deleting, mut is_done, mut swapping) = (false, false, source.client());
        let from = Between::start(source.addr(), move |words| {
            is_deleting |= words[0].eq_ignore_ascii_case(b"WATCH") && words.len() > 2;
            if is_deleting && !is_done && words[0].eq_ignore_ascii_case(b"EXEC") {
                is_done = true;
                let swap = redis::cmd("SWAPDB").arg(0).arg(1).to_owned();
                swap.exec(&mut swapping).expect("SWAPDB");
            }
            Act::Pass
        });
        let (from, to) = (from.url(), destination.url());
        let copy = ["copy", &from, &to, "--db", "0", "--delete-source", "--json"];
        let sink = run(&copy, b"").success().summary()["sink"].clone();
        assert_eq!(sink["source_deleted"], 0, "{version:?}: {sink}");
        assert_eq!(sink["source_kept_because"]["changed"], 2, "{sink}");
        assert_eq!(size(&source), 2, "{version:?}");
    }
}
