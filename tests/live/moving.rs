//! `copy --delete-source` where a mistake would lose the only copy of a key: one server under two
//! addresses.

use crate::between::{Act, Between};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::run;

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
