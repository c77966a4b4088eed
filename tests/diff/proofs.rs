//! What `--verify` expects: what the destination holds by its own clock, and not what this machine,
//! the first archive or this run alone would make of it.

use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use crate::diff::found::send;
use crate::support::dataset::now_ms;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, run};
use crate::support::toy::{Deed, Toy};

fn verified(output: &Output) -> Value {
    output.summary()["verified"].clone()
}

/// An archive of what the server holds, which is then empty.
fn take(server: &TestServer, file: &str) -> String {
    let path = server.path().join(file);
    let path = path.to_str().unwrap().to_owned();
    run(&["export", &server.url(), "-o", &path], b"").success();
    send(&mut server.client(), &["FLUSHALL"]);
    path
}

fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

/// The destination is an hour behind: by its clock the field still lives, and the hash was lost.
#[test]
fn fields_live_by_the_clock_of_the_destination() {
    let Some(version) = require(Version::Redis80) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    let mut client = source.client();
    send(&mut client, &["SET", "k", "v"]);
    send(&mut client, &["HSET", "h", "f", "v"]);
    send(&mut client, &["HPEXPIRE", "h", "1500", "FIELDS", "1", "f"]);
    let archive = take(&source, "h.rmz");
    sleep(Duration::from_millis(1_700));
    let toy = Toy::start(destination.addr(), |words| {
        if is(&words[0], "TIME") {
            let seconds = (now_ms() / 1000 - 3600).to_string();
            let text = format!("*2\r\n${}\r\n{seconds}\r\n$1\r\n0", seconds.len());
            return Deed::answer(&text);
        }
        match is(&words[0], "RESTORE") && words[1] == b"h" {
            true => Deed::answer("+OK"),
            false => Deed::Pass,
        }
    });
    let import = ["import", &toy.url(), &archive, "--verify", "--json"];
    let output = run(&import, b"").expect_code(5);
    let found = verified(&output);
    assert_eq!(
        (&found["different"], &found["equal"]),
        (&1.into(), &1.into())
    );
    assert!(output.stderr.contains("\"h\""), "{}", output.stderr);
}

/// A database in which this run only deleted is read as well.
#[test]
fn what_was_deleted_is_verified_in_every_database() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    send(&mut source.client(), &["SET", "k", "v"]);
    send(&mut source.client_db(1), &["SET", "e", "v", "PX", "1500"]);
    let archive = take(&source, "e.rmz");
    sleep(Duration::from_millis(1_700));
    for db in [0, 1] {
        send(&mut destination.client_db(db), &["SET", "e", "old"]);
    }
    // It says that it did.
    let toy = Toy::start(destination.addr(), |words| {
        match is(&words[0], "DEL") || is(&words[0], "UNLINK") {
            true => Deed::answer(":1"),
            false => Deed::Pass,
        }
    });
    let import = ["import", &toy.url(), &archive, "--verify", "--json"];
    let replace = ["--on-conflict", "replace"];
    let output = run(&[&import[..], &replace].concat(), b"").expect_code(5);
    let found = verified(&output);
    assert_eq!(
        (&found["different"], &found["equal"]),
        (&1.into(), &1.into())
    );
    assert!(output.stderr.contains("\"db\":1"), "{}", output.stderr);
}

/// What an earlier run of the same import left stands with that run's expiries.
#[test]
fn what_an_earlier_run_rebased_is_as_it_was_written() {
    let Some(version) = require(Version::Redis80) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    let mut client = source.client();
    for n in 0..20 {
        send(&mut client, &["SET", &format!("k{n}"), "v", "EX", "5000"]);
    }
    send(&mut client, &["HSET", "h", "f", "v", "g", "v"]);
    send(
        &mut client,
        &["HPEXPIRE", "h", "5000000", "FIELDS", "1", "f"],
    );
    let archive = take(&source, "ttl.rmz");
    let url = destination.url();
    let import = [
        "import", &url, &archive, "--ttl", "rebase", "--verify", "--json",
    ];
    run(&import, b"").success();
    send(&mut destination.client(), &["DEL", "k0"]);
    sleep(Duration::from_millis(1_300));
    let output = run(&import, b"").success();
    let found = verified(&output);
    assert_eq!(
        (&found["different"], &found["equal"]),
        (&0.into(), &21.into())
    );
    assert_eq!(output.summary()["sink"]["unchanged"], 20);
    // Of a key that is not there any more, that is said all the same.
    let toy = Toy::start(destination.addr(), |words| {
        match is(&words[0], "RESTORE") && words[1] == b"k0" {
            true => Deed::answer("+OK"),
            false => Deed::Pass,
        }
    });
    send(&mut destination.client(), &["DEL", "k0"]);
    let url = toy.url();
    let import = [&["import", &url][..], &import[2..]].concat();
    let found = verified(&run(&import, b"").expect_code(5));
    assert_eq!(
        (&found["different"], &found["equal"]),
        (&1.into(), &20.into())
    );
}

/// Each archive has values of its own kind of server.
#[test]
fn archives_of_several_kinds_of_servers_are_verified_together() {
    let (Some(redis), Some(valkey)) = (require(Version::Redis80), require(Version::Valkey91))
    else {
        return;
    };
    let (one, other) = (TestServer::start(redis), TestServer::start(valkey));
    let mut archives = Vec::new();
    for (server, name) in [(&one, "redis"), (&other, "valkey")] {
        let mut client = server.client();
        send(&mut client, &["HSET", name, "f", "v", "g", "v"]);
        let expire = ["HPEXPIRE", name, "5000000", "FIELDS", "1", "f"];
        send(&mut client, &expire);
        archives.push(take(server, &format!("{name}.rmz")));
    }
    for to in [&one, &other] {
        let url = to.url();
        let files = [archives[0].as_str(), &archives[1]];
        let import = [&["import", &url, "--verify", "--json"][..], &files].concat();
        let found = verified(&run(&import, b"").success());
        assert_eq!(
            (&found["different"], &found["equal"]),
            (&0.into(), &2.into())
        );
    }
}

/// Where fields do not expire, a field whose moment comes meanwhile is still there.
#[test]
fn fields_whose_expiry_was_lost_are_expected_to_last() {
    let (Some(from), Some(to)) = (require(Version::Redis80), require(Version::Redis70)) else {
        return;
    };
    let (source, destination) = (TestServer::start(from), TestServer::start(to));
    let mut client = source.client();
    for n in 0..60 {
        send(&mut client, &["SET", &format!("k{n}"), "v"]);
    }
    let rest = take(&source, "rest.rmz");
    let url = destination.url();
    for method in ["auto", "commands"] {
        send(&mut destination.client(), &["FLUSHALL"]);
        send(&mut client, &["HSET", "h", "f", "v", "g", "v"]);
        let expire = ["HPEXPIRE", "h", "1500", "FIELDS", "1", "f"];
        send(&mut client, &expire);
        let first = take(&source, &format!("{method}.rmz"));
        let import = ["import", &url, &first, &rest, "--verify", "--json"];
        let flags = ["--rate-limit", "30", "--method", method];
        let allowed = ["--allow-loss", "hash-field-ttl"];
        let output = run(&[&import[..], &flags, &allowed].concat(), b"").success();
        let found = verified(&output);
        assert_eq!(
            (&found["different"], &found["equal"]),
            (&0.into(), &61.into())
        );
    }
}

/// An expiry of a field that is later than the destination takes is moved to the latest there is.
#[test]
fn field_expiries_that_were_moved_are_expected_where_they_are() {
    let (Some(from), Some(to)) = (require(Version::Valkey91), require(Version::Redis80)) else {
        return;
    };
    let (source, destination) = (TestServer::start(from), TestServer::start(to));
    let mut client = source.client();
    send(&mut client, &["HSET", "h", "f", "v", "g", "v"]);
    let far = (1u64 << 50).to_string();
    let expire = ["HPEXPIREAT", "h", &far, "FIELDS", "1", "f"];
    send(&mut client, &expire);
    let archive = take(&source, "far.rmz");
    let url = destination.url();
    for method in ["auto", "commands"] {
        send(&mut destination.client(), &["FLUSHALL"]);
        let import = ["import", &url, &archive, "--verify", "--json"];
        let output = run(&[&import[..], &["--method", method]].concat(), b"").success();
        let moved = &output.summary()["sink"]["changes"]["field_ttls_clamped"];
        assert_eq!(moved, &1, "{method}");
        assert_eq!(verified(&output)["equal"], 1, "{method}");
    }
}
