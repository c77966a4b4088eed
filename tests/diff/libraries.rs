//! Function libraries that a server does not give: they are not equal, and not missing either.

use serde_json::Value;

use crate::diff::found::{diff, found, objects, send, summary};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, run};

const ONE: &str = "#!lua name=one\nredis.register_function('f_one', function() return 1 end)";

/// A server with one key and perhaps a library, whose user `some` is refused what `rule` says.
fn server(version: Version, library: bool, rule: &[&str]) -> TestServer {
    let server = TestServer::start(version);
    let mut client = server.client();
    send(&mut client, &["SET", "k", "v"]);
    if library {
        send(&mut client, &["FUNCTION", "LOAD", ONE]);
    }
    let user = ["ACL", "SETUSER", "some", "on", ">pw", "~*", "+@all"];
    send(&mut client, &[&user, rule].concat());
    server
}

fn limited(server: &TestServer) -> String {
    format!("redis://some:pw@{}", server.addr())
}

/// The libraries that are said to be unread.
fn unread(output: &Output) -> Vec<String> {
    let rows = objects(output).into_iter();
    rows.filter(|row| row["event"] == "unread")
        .map(|row| row["library"].as_str().expect("a library").to_owned())
        .collect()
}

#[track_caller]
fn expect_unread(left: &str, right: &str, libraries: &[&str]) {
    let output = diff(left, right, &["--recheck", "0"]).expect_code(3);
    assert!(found(&output).is_empty(), "{:?}", found(&output));
    assert_eq!(unread(&output), libraries);
    let said = summary(&output);
    assert_eq!(said["equal"], 1, "{said}");
    assert_eq!(said["libraries"]["unread"], libraries.len(), "{said}");
    let not_had = said["not_had"].to_string();
    assert!(
        not_had.contains("function libraries were not read"),
        "{said}"
    );
    diff(left, right, &["--recheck", "0", "--no-functions"]).success();
}

#[test]
fn libraries_that_a_server_refuses_are_not_equal_and_not_missing() {
    for version in [Version::Redis70, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        let a = server(version, true, &["-function"]);
        let b = server(version, true, &["-function"]);
        expect_unread(&limited(&a), &limited(&b), &[]);
        expect_unread(&a.url(), &limited(&b), &["one"]);
        expect_unread(&limited(&a), &b.url(), &["one"]);
        let text = run(&["diff", &a.url(), &limited(&b), "--recheck", "0"], b"").expect_code(3);
        let text = String::from_utf8(text.stdout).unwrap();
        let line = "function library \"one\": the function libraries in B were not all read";
        assert!(text.contains(line), "{text}");
        // Where one of the two commands is left, they are read.
        let c = server(version, true, &["-function|dump"]);
        diff(&a.url(), &limited(&c), &["--recheck", "0"]).success();
        // A real difference is still one.
        send(&mut b.client(), &["SET", "k", "other"]);
        diff(&a.url(), &limited(&b), &["--recheck", "0"]).expect_code(5);
    }
}

/// A server that was told to forget the command has libraries all the same; one that never had it
/// has none.
#[test]
fn a_command_that_was_renamed_is_not_taken_for_one_that_never_was() {
    let Some(version) = require(Version::Redis80) else {
        return;
    };
    let renamed = TestServer::builder(version)
        .args(["--rename-command", "FUNCTION", "X"])
        .start();
    send(&mut renamed.client(), &["SET", "k", "v"]);
    send(&mut renamed.client(), &["X", "LOAD", ONE]);
    let export = run(&["export", &renamed.url()], b"").success();
    export.expect_stderr("function libraries are not read");
    let bare = server(version, false, &[]);
    expect_unread(&renamed.url(), &bare.url(), &[]);
    let Some(older) = require(Version::Redis62) else {
        return;
    };
    let older = server(older, false, &[]);
    let export = run(&["export", &older.url()], b"").success();
    assert!(!export.stderr.contains("function"), "{}", export.stderr);
    diff(&older.url(), &bare.url(), &["--recheck", "0"]).success();
}

/// Libraries that were written and cannot be read back are unread; they are not missing.
#[test]
fn libraries_that_cannot_be_read_back_are_not_verified() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = server(version, true, &[]);
    let rule = ["-function|dump", "-function|list"];
    let destination = server(version, false, &rule);
    send(&mut destination.client(), &["DEL", "k"]);
    let to = limited(&destination);
    let directory = tempfile::tempdir().unwrap();
    let errors = directory.path().join("errors");
    let errors = errors.to_str().unwrap();
    let copy = [
        "copy",
        &source.url(),
        &to,
        "--verify",
        "--errors-to",
        errors,
    ];
    let output = run(&[&copy[..], &["--json"]].concat(), b"").expect_code(3);
    let said = output.summary();
    let verified = &said["verified"];
    for (name, count) in [
        ("compared", 1),
        ("equal", 1),
        ("different", 0),
        ("unread", 1),
    ] {
        assert_eq!(verified[name], count, "{said}");
    }
    let journal = std::fs::read_to_string(errors).unwrap();
    let lines: Vec<Value> = journal
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 1, "{journal}");
    assert_eq!(lines[0]["kind"], "unread", "{journal}");
    assert_eq!(lines[0]["key"], "function library one", "{journal}");
    let problems = said["problems"].to_string();
    assert!(
        problems.contains("function libraries were not read"),
        "{said}"
    );
    assert!(!problems.contains("--no-functions"), "{said}");
}

/// That an archive has no libraries says nothing of its source, where they were not read.
#[test]
fn libraries_that_were_refused_at_export_are_not_compared() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = server(version, true, &["-function"]);
    let bare = server(version, false, &[]);
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (refused, left_out, rdb) = (at("refused.rmz"), at("left_out.rmz"), at("a.rdb"));
    let output = run(&["export", &limited(&source), "-o", &refused], b"").success();
    let output = output.expect_stderr("function libraries are not read");
    output.expect_stderr("without function libraries, which could not be read");
    let export = ["export", &source.url(), "-o", &left_out, "--no-functions"];
    let output = run(&export, b"").success();
    assert!(!output.stderr.contains("libraries"), "{}", output.stderr);
    for archive in [&refused, &left_out] {
        let text = run(&["inspect", archive], b"").success().stdout;
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.contains("not read: not asked for, or refused"),
            "{text}"
        );
        expect_unread(archive, &bare.url(), &[]);
        expect_unread(&bare.url(), archive, &[]);
        expect_unread(archive, &source.url(), &["one"]);
        for url in [bare.url(), source.url()] {
            let verify = ["verify", archive, "--against", &url, "--recheck", "0"];
            let text = run(&verify, b"").expect_code(3).stdout;
            let text = String::from_utf8(text).unwrap();
            let line = "not compared: function libraries were not read";
            assert!(text.contains(line), "{text}");
            run(&[&verify[..], &["--no-functions"]].concat(), b"").success();
        }
        run(&["convert", archive, &rdb, "--overwrite"], b"").success();
        let export = run(&["export", &rdb], b"").success();
        export.expect_stderr("without what was left out when the file was made");
    }
    // Where they were read, there being none is a fact.
    let all = at("all.rmz");
    run(&["export", &bare.url(), "-o", &all], b"").success();
    diff(&all, &bare.url(), &["--recheck", "0"]).success();
    diff(&all, &source.url(), &["--recheck", "0"]).expect_code(5);
}

/// A copy that could not read the libraries does not prove them either.
#[test]
fn a_copy_without_libraries_is_not_called_verified() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = server(version, true, &["-function"]);
    let destination = TestServer::start(version);
    let copy = |more: &[&str], code| {
        send(&mut destination.client(), &["FLUSHALL"]);
        let copy = ["copy", &limited(&source), &destination.url()];
        run(&[&copy[..], more].concat(), b"").expect_code(code)
    };
    const WITHOUT: &str = "without function libraries, which could not be read";
    let output = copy(&["--verify"], 3);
    let output = output.expect_stderr("not verified: the source did not give its function libra");
    output.expect_stderr(WITHOUT);
    copy(&[], 0).expect_stderr(WITHOUT);
    let output = copy(&["--verify", "--functions", "skip"], 0);
    assert!(!output.stderr.contains("libraries"), "{}", output.stderr);
}
