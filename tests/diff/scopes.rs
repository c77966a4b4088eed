//! Which keys are compared: selections, other names and databases, samples; and what is printed.

use crate::diff::found::{diff, expect, found, objects, send, summary};
use crate::support::random::Random;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::run;

fn servers() -> Option<(TestServer, TestServer)> {
    let version = require(Version::Valkey81)?;
    Some((TestServer::start(version), TestServer::start(version)))
}

#[test]
fn what_was_renamed_on_its_way_is_found_under_its_new_name() {
    let Some((left, right)) = servers() else {
        return;
    };
    let mut client = left.client();
    for key in ["old:a", "old:b", "old:skip", "other"] {
        send(&mut client, &["SET", key, "v"]);
    }
    // Not to be compared: they cannot come from what is selected.
    send(&mut right.client(), &["SET", "new:skip", "mine"]);
    send(&mut right.client(), &["SET", "mine", "mine"]);
    send(&mut right.client_db(4), &["SET", "new:skip", "mine"]);
    let (left_url, url) = (left.url(), right.url());
    let flags = [
        "--strip-prefix",
        "old:",
        "--add-prefix",
        "new:",
        "--map-db",
        "0:4",
        "--exclude",
        "*skip",
    ];
    run(
        &[&["copy", &left_url, &url, "--verify"][..], &flags].concat(),
        b"",
    )
    .success();
    let said = summary(&expect(&left_url, &url, &flags, &[]));
    assert_eq!(said["equal"], 3, "{said}");
    send(&mut right.client_db(4), &["SET", "new:new", "v"]);
    send(&mut right.client_db(4), &["SET", "new:a", "w"]);
    send(&mut right.client_db(4), &["DEL", "new:other"]);
    let differences = [
        ("4", "new:new", "extra"),
        ("4", "new:a", "value"),
        ("4", "new:other", "missing"),
    ];
    let now = [&flags[..], &["--recheck", "0"]].concat();
    expect(&left_url, &url, &now, &differences);
    // A database in the right side's URL takes the one database of the left.
    let flags = [&flags[..4], &flags[6..], &["--recheck", "0"]].concat();
    expect(&left_url, &format!("{url}/4"), &flags, &differences);
    send(&mut left.client_db(2), &["SET", "two", "v"]);
    diff(&left_url, &format!("{url}/4"), &flags).expect_code(2);
}

/// The URL's database is compared, and what else the sides hold is said to be left out.
#[test]
fn what_the_database_of_the_url_leaves_out_is_said() {
    let Some((left, right)) = servers() else {
        return;
    };
    send(&mut left.client(), &["SET", "k", "v"]);
    send(&mut right.client(), &["SET", "k", "v"]);
    let whole = format!("{}/0", left.url());
    let said = summary(&expect(&whole, &right.url(), &[], &[]));
    assert_eq!(said["left_out"], serde_json::json!([]), "{said}");
    for key in ["a", "b"] {
        send(&mut right.client_db(3), &["SET", key, "v"]);
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("right.rmz");
    let file = file.to_str().expect("text");
    run(&["export", &right.url(), "-o", file], b"").success();
    for side in [file, &right.url()] {
        let said = summary(&expect(&whole, side, &[], &[]));
        let line = said["left_out"][0].as_str().unwrap_or_default();
        assert!(
            line.starts_with("database 0 only, as the URL says; 2 "),
            "{said}"
        );
        assert!(line.contains(" in 1 other database were not "), "{said}");
        let text = run(&["diff", &whole, side], b"").success();
        let text = String::from_utf8(text.stdout).expect("UTF-8");
        assert!(text.contains(&format!("not compared: {line}")), "{text}");
    }
    // What the left side leaves out is said as well.
    send(&mut left.client_db(5), &["SET", "c", "v"]);
    let said = summary(&expect(&whole, &whole, &[], &[]));
    let line = said["left_out"][0].as_str().unwrap_or_default();
    assert!(
        line.contains("1 key in 1 other database was not read"),
        "{said}"
    );
}

#[test]
fn selections_mean_the_same_on_both_sides() {
    let Some((left, right)) = servers() else {
        return;
    };
    for server in [&left, &right] {
        let mut client = server.client();
        send(&mut client, &["SET", "user:1", "v"]);
        send(&mut client, &["SADD", "user:2", "a"]);
        send(&mut client, &["SET", "cart:1", "v"]);
        send(&mut server.client_db(3), &["SET", "user:1", "v"]);
    }
    let mut client = right.client();
    send(&mut client, &["SET", "user:1", "w"]);
    send(&mut client, &["SADD", "user:3", "a"]);
    send(&mut client, &["DEL", "cart:1"]);
    send(&mut client, &["DEL", "user:2"]);
    send(&mut client, &["SET", "user:2", "another type"]);
    send(&mut right.client_db(3), &["DEL", "user:1"]);
    let (left, right) = (left.url(), right.url());
    let compare = |flags: &[&str], expected: &[(&str, &str, &str)]| {
        expect(
            &left,
            &right,
            &[flags, &["--recheck", "0"]].concat(),
            expected,
        );
    };
    let (one, two, three) = (
        ("0", "user:1", "value"),
        ("0", "user:2", "type"),
        ("0", "user:3", "extra"),
    );
    let (cart, in_three) = (("0", "cart:1", "missing"), ("3", "user:1", "missing"));
    compare(&[], &[one, two, three, cart, in_three]);
    compare(&["--db", "0", "--match", "user:*"], &[one, two, three]);
    compare(&["--db", "3"], &[in_three]);
    compare(&["--exclude", "user:*"], &[cart]);
    // A set on one side, and compared with whatever stands on the other.
    compare(&["--db", "0", "--type", "set"], &[two, three]);
    compare(&["--with-ttl"], &[]);
}

#[test]
fn a_sample_takes_the_same_keys_on_both_sides() {
    let Some((left, right)) = servers() else {
        return;
    };
    crate::support::many::fill_many(&mut left.client(), 20_000, 3);
    let (left_url, url) = (left.url(), right.url());
    run(&["copy", &left_url, &url], b"").success();
    for (sample, range) in [
        ("500", 500..=500),
        ("5%", 700..=1_300),
        ("1000000", 20_000..=20_000),
    ] {
        let output = expect(&left_url, &url, &["--sample", sample], &[]);
        let said = summary(&output);
        let compared = said["compared"].as_u64().unwrap();
        assert!(range.contains(&compared), "{sample}: {said}");
        assert_eq!(said["is_sample"], true);
    }
    run(&["diff", &left_url, &url, "--sample", "0"], b"").expect_code(2);
    let output = run(&["diff", &left_url, &url, "--sample", "100"], b"").success();
    assert!(String::from_utf8_lossy(&output.stdout).contains("sample"));
    // All of the right side is gone: every key of the sample is missing.
    send(&mut right.client(), &["FLUSHALL"]);
    let output = diff(&left_url, &url, &["--sample", "300", "--recheck", "0"]).expect_code(5);
    assert_eq!(found(&output).len(), 300);
}

#[test]
fn people_see_the_first_differences_and_programs_all() {
    let Some((left, right)) = servers() else {
        return;
    };
    let mut random = Random::new(5);
    for n in 0..50 {
        send(&mut left.client(), &["SET", &format!("k:{n}"), "v"]);
    }
    let odd = [b"odd \x1b[31m\n\xff".to_vec(), random.bytes(12)].concat();
    redis::cmd("SET")
        .arg(&odd)
        .arg("v")
        .exec(&mut left.client())
        .unwrap();
    let (left, right) = (left.url(), right.url());
    let text = |flags: &[&str]| {
        let output = run(
            &[&["diff", &left, &right, "--recheck", "0"], flags].concat(),
            b"",
        );
        String::from_utf8(output.expect_code(5).stdout).expect("printable")
    };
    let first = text(&[]);
    assert_eq!(
        first
            .lines()
            .filter(|line| line.starts_with("missing"))
            .count(),
        20
    );
    assert!(first.contains("… and 31 more differences"), "{first}");
    let last = first.lines().last().unwrap();
    assert_eq!(last, "different: 51 of 51 differ: 51 missing");
    let all = text(&["--all"]);
    assert_eq!(
        all.lines()
            .filter(|line| line.starts_with("missing"))
            .count(),
        51
    );
    assert!(!all.contains('\u{1b}'), "{all}");
    assert_eq!(text(&["--quiet"]), "");
    let output = diff(&left, &right, &["--recheck", "0"]).expect_code(5);
    let objects = objects(&output);
    assert_eq!(objects.len(), 52);
    assert!(objects.iter().all(|object| object["schema_version"] == 1));
    assert_eq!(
        objects
            .iter()
            .filter(|object| object["key_hex"].is_string())
            .count(),
        1
    );
    assert_eq!(summary(&output)["by_db"][0]["missing"], 51);
}

/// What was only on its way is read again, and found equal.
#[test]
fn what_changes_while_it_is_compared_is_read_again() {
    let Some((left, right)) = servers() else {
        return;
    };
    for n in 0..100 {
        send(&mut left.client(), &["SET", &format!("k:{n}"), "v"]);
    }
    let (left_url, url) = (left.url(), right.url());
    run(&["copy", &left_url, &url], b"").success();
    for key in ["k:1", "k:2"] {
        send(&mut right.client(), &["SET", key, "behind"]);
    }
    send(&mut right.client(), &["DEL", "k:3"]);
    send(&mut right.client(), &["SET", "k:200", "not yet deleted"]);
    let mut client = right.client();
    let late = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(600));
        for key in ["k:1", "k:3"] {
            send(&mut client, &["SET", key, "v"]);
        }
        send(&mut client, &["DEL", "k:200"]);
    });
    let flags = ["--recheck", "2"];
    let said = summary(&expect(&left_url, &url, &flags, &[("0", "k:2", "value")]));
    late.join().unwrap();
    assert_eq!(said["settled"], 3, "{said}");
}

/// Where values differ is looked up on demand, whatever the sides are.
#[test]
fn explain_says_where_values_differ() {
    let Some((left, right)) = servers() else {
        return;
    };
    let mut client = left.client();
    send(&mut client, &["HSET", "old:hash", "a", "1", "b", "2"]);
    send(&mut client, &["RPUSH", "old:list", "x", "y"]);
    send(&mut client, &["XADD", "old:stream", "1-1", "f", "v"]);
    send(&mut client, &["SET", "old:gone", "v"]);
    let (left_url, url) = (left.url(), right.url());
    let rename = ["--strip-prefix", "old:", "--add-prefix", "new:"];
    run(&[&["copy", &left_url, &url][..], &rename].concat(), b"").success();
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("a.rmz");
    let archive = archive.to_str().unwrap();
    run(&["export", &left_url, "-o", archive], b"").success();
    let mut client = right.client();
    send(&mut client, &["HSET", "new:hash", "a", "10"]);
    send(&mut client, &["LSET", "new:list", "1", "z"]);
    send(
        &mut client,
        &["XGROUP", "CREATE", "new:stream", "late", "0"],
    );
    send(&mut client, &["DEL", "new:gone"]);
    for left in [left_url.as_str(), archive] {
        let flags = [&rename[..], &["--explain", "--recheck", "0"]].concat();
        let output = diff(left, &url, &flags).expect_code(5);
        let objects = objects(&output);
        let place = |key: &str| {
            let object = objects.iter().find(|object| object["key"] == key).unwrap();
            let text = |name: &str| object["where"][name].as_str().unwrap_or("-").to_owned();
            [text("place"), text("left"), text("right")].join(" ")
        };
        assert_eq!(place("new:hash"), r#"field "a" "1" "10""#);
        assert_eq!(place("new:list"), r#"element 1 "y" "z""#);
        assert_eq!(place("new:stream"), r#"group "late" missing present"#);
        assert_eq!(place("new:gone"), "- - -");
        let arguments = [&["diff", left, &url][..], &flags].concat();
        let text = String::from_utf8(run(&arguments, b"").stdout).unwrap();
        assert!(text.contains(r#"field "a": "1" in A, "10" in B"#), "{text}");
    }
    run(&["diff", "-", &url, "--explain"], b"").expect_code(2);
}

/// Nothing is written, so there is no destination: the sides are A and B.
#[test]
fn several_databases_do_not_fit_the_one_of_the_url() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    for db in [0, 3] {
        send(&mut server.client_db(db), &["SET", "k", "v"]);
    }
    let right = format!("{}/5", server.url());
    let output = run(&["diff", &server.url(), &right], b"").expect_code(2);
    let said = "B's URL names database 5, but A has several databases (0 and 3)";
    assert!(output.stderr.contains(said), "{}", output.stderr);
    assert!(!output.stderr.contains("destination"), "{}", output.stderr);
}

/// A killed run may leave temporary keys. They are no data, and it is said that they are there.
#[test]
fn temporary_keys_of_the_tool_are_counted_and_never_made_of_others() {
    let Some((left, right)) = servers() else {
        return;
    };
    let (mut a, mut b) = (left.client(), right.client());
    send(&mut a, &["SET", "k", "v"]);
    send(&mut b, &["SET", "k", "v"]);
    for key in ["{a}1", "{a}2", "{b}3"] {
        let key = format!("__redis-migrate:tmp:{key}");
        send(&mut b, &["SET", &key, "v"]);
    }
    let line = |output: &crate::support::tool::Output| {
        let left_out = summary(output)["left_out"].clone();
        assert!(left_out.as_array().unwrap().len() <= 1, "{left_out}");
        left_out[0].as_str().unwrap_or_default().to_owned()
    };
    let (left_url, url) = (left.url(), right.url());
    let said = line(&expect(&left_url, &url, &[], &[]));
    let start = "3 temporary keys of this tool (__redis-migrate:tmp:*) were not compared (";
    assert!(said.starts_with(start), "{said}");
    let said = line(&expect(&url, &left_url, &["--exclude", "*:{a}*"], &[]));
    assert!(said.starts_with("1 temporary key of this"), "{said}");
    assert_eq!(line(&expect(&left_url, &url, &["--match", "k"], &[])), "");
    let flags = ["--add-prefix", "__redis-migrate:tmp:x:"];
    for verb in ["copy", "diff"] {
        let output = run(&[&[verb, &left_url, &url][..], &flags].concat(), b"").expect_code(2);
        assert!(output.stderr.contains("--add-prefix"), "{}", output.stderr);
    }
}
