//! With `--json` every outcome of every verb ends with one summary, and stderr is JSON; progress
//! names the verb that runs.

use std::io::Write as _;
use std::time::Duration;

use redis_migrate_format::header::ConsistencyReached;
use serde_json::Value;

use crate::cli::archives::{SOURCE_TIME_MS, archive_lacking, large, small, string};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, Tool};

/// Verbs whose standard output carries data here, so that the summary is on standard error.
fn carries_data(arguments: &[&str]) -> bool {
    let has = |flag: &str| arguments.contains(&flag);
    match arguments[0] {
        "export" | "salvage" | "extract" => !has("-o"),
        "convert" => !has("out.rdb"),
        _ => false,
    }
}

/// One summary, in its place, of this verb and code; everything on stderr is JSON.
#[track_caller]
fn check(arguments: &[&str], output: &Output) -> Value {
    let summary = output.summary();
    assert_eq!(
        summary["exit_code"].as_i64(),
        output.code().map(i64::from),
        "{arguments:?}"
    );
    assert_eq!(summary["schema_version"], 1);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let (there, other) = match carries_data(arguments) {
        true => (output.stderr.as_str(), &*stdout),
        false => (&*stdout, output.stderr.as_str()),
    };
    let last = there.lines().last().unwrap_or_default();
    assert!(
        last.contains("\"event\":\"summary\""),
        "{arguments:?}: {last}"
    );
    assert!(
        !other.contains("\"event\":\"summary\""),
        "{arguments:?}: {other}"
    );
    for line in output.stderr.lines() {
        let object: Value = serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {line}"));
        assert!(object["event"].is_string(), "{line}");
    }
    // Complete, finished with losses, or different: nothing failed.
    if !matches!(output.code(), Some(0 | 3 | 5)) {
        assert!(!summary["error"].is_null(), "{arguments:?}: {summary}");
    }
    summary
}

/// The least that a verb needs to be parsed; with a file that is not there and a server that is not
/// there.
fn least(verb: &clap::Command) -> Vec<String> {
    let mut words = vec![verb.get_name().to_owned()];
    for argument in verb.get_arguments() {
        let (long, is_required) = (argument.get_long(), argument.is_required_set());
        let names = argument.get_value_names().unwrap_or_default();
        let word = match names.first().map_or("", |name| name.as_str()) {
            _ if long.is_some() && !is_required => continue,
            "SRC" | "DEST" | "URL" | "B" => "redis://127.0.0.1:1",
            "A" | "IN" | "FILE" => "none.rmz",
            "OUT" => "out.rdb",
            _ if is_required => "x",
            _ => continue,
        };
        words.extend(long.map(|long| format!("--{long}")));
        words.push(word.to_owned());
    }
    words
}

/// That of every verb with `--json`.
fn verbs() -> Vec<Vec<String>> {
    use clap::CommandFactory;

    let command = redis_migrate::commands::Cli::command();
    let has_json = |verb: &&clap::Command| {
        let mut arguments = verb.get_arguments();
        arguments.any(|argument| argument.get_long() == Some("json"))
    };
    let verbs: Vec<_> = command
        .get_subcommands()
        .filter(has_json)
        .map(least)
        .collect();
    assert!(verbs.len() >= 12, "{verbs:?}");
    verbs
}

#[test]
fn every_failing_call_of_every_verb_ends_with_one_summary() {
    for least in verbs() {
        let least: Vec<&str> = least.iter().map(String::as_str).collect();
        let ways: [&[&str]; 5] = [
            &["--json"],
            &["--json", "--frobnicate"],
            &["--frobnicate", "--json"],
            &["--json", "more", "and", "more"],
            &["-p", "6379", "--json"],
        ];
        for way in ways {
            let arguments = [&least, way].concat();
            let output = Tool::new(&arguments).run();
            assert_ne!(output.code(), Some(0), "{arguments:?}");
            let summary = check(&arguments, &output);
            assert_eq!(summary["verb"], arguments[0], "{arguments:?}");
            assert_ne!(summary["complete"], true, "{arguments:?}");
            let error = output.stderr.matches("\"event\":\"error\"").count();
            assert_eq!(error, 1, "{arguments:?}: {}", output.stderr);
        }
    }
    let output = Tool::new(&["frobnicate", "--json"]).run().expect_code(2);
    assert_eq!(check(&["frobnicate"], &output)["verb"], Value::Null);
    let output = Tool::new(&["--json"]).run().expect_code(2);
    assert_eq!(check(&["none"], &output)["verb"], Value::Null);
}

#[test]
fn damaged_archives_and_good_ones_end_with_one_summary() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, bytes: &[u8]| {
        let place = directory.path().join(name);
        std::fs::write(&place, bytes).expect("written");
        place.to_str().expect("text").to_owned()
    };
    let bytes = large(20_000);
    let good = write("good.rmz", &small());
    let cut = write("cut.rmz", &bytes[..bytes.len() - 1_000]);
    let text = write("text.rmz", b"no archive, only text");
    let page = directory.path().join("page.html");
    let page = page.to_str().expect("text");
    for verb in ["verify", "list", "inspect", "report", "salvage"] {
        for (file, codes) in [(&good, &[0][..]), (&cut, &[10, 3]), (&text, &[10])] {
            let arguments = [verb, file, "--json"];
            let output = Tool::new(&arguments).run();
            let code = output.code().expect("it ended");
            assert!(
                codes.contains(&code),
                "{arguments:?}: {code}: {}",
                output.stderr
            );
            check(&arguments, &output);
        }
    }
    for arguments in [
        &["verify", &good, "--quick", "--json"][..],
        &["inspect", &good, "--frames", "--json"],
        &["report", &good, "--json", "-o", page],
        &["extract", &good, "--key", "plain", "--json"],
        &["extract", &good, "--key", "plain", "--json", "-o", page],
        &["extract", &good, "--key", "none", "--json"],
        &["diff", &good, &good, "--json"],
        &["diff", &good, &cut, "--json"],
        &["convert", &good, "--to", "jsonl", "--json"],
    ] {
        check(arguments, &Tool::new(arguments).run());
    }
    // Help is no outcome.
    let help = Tool::new(&["verify", "--json", "--help"]).run().success();
    assert!(!String::from_utf8_lossy(&help.stdout).contains("\"summary\""));
    // A summary that cannot be written is no success.
    Tool::new(&["verify", &good, "--json"])
        .stdout_file("/dev/full".as_ref())
        .run()
        .expect_code(1)
        .expect_stderr("No space left");
}

#[test]
fn runs_with_servers_end_with_one_summary() {
    let Some(version) = require(Version::Valkey81) else {
        return;
    };
    let server = TestServer::start(version);
    let url = server.url();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("snap.rmz");
    let file = file.to_str().expect("text");
    redis::cmd("SET")
        .arg("k")
        .arg("v")
        .exec(&mut server.client())
        .expect("OK");
    for arguments in [
        &["export", &url, "--json"][..],
        &["export", &url, "--json", "-o", file],
        &["import", &url, file, "--json", "--verify"],
        &["import", &url, file, "--json", "--dry-run"],
        &["verify", file, "--against", &url, "--json"],
        &["diff", file, &url, "--json"],
        &["doctor", &url, "--json"],
        &["doctor", &url, file, "--json"],
    ] {
        let output = Tool::new(arguments).run().success();
        let summary = check(arguments, &output);
        assert_eq!(summary["verb"], arguments[0]);
        assert!(summary["error"].is_null(), "{summary}");
    }
}

/// The check of the archive ends well, the comparison does not: one exit code, and it is the last.
#[test]
fn a_check_and_a_comparison_end_with_one_exit_code() {
    let Some(version) = require(Version::Valkey81) else {
        return;
    };
    let server = TestServer::start(version);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("small.rmz");
    std::fs::write(&file, small()).expect("written");
    let file = file.to_str().expect("text");
    let arguments = ["verify", file, "--against", &server.url(), "--json"];
    let output = Tool::new(&arguments).run().expect_code(5);
    let summary = check(&arguments, &output);
    assert_eq!(summary["exit_code"], 5);
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(lines.matches("\"exit_code\"").count(), 1, "{lines}");
    assert!(lines.contains("\"event\":\"verify\""), "{lines}");
}

/// The archive is intact, and the export that wrote it could not read every key: whoever reads the
/// archive says so, and that is no failure of theirs.
#[test]
fn what_the_export_could_not_read_is_said_by_whoever_reads_the_archive() {
    let directory = tempfile::tempdir().expect("a directory");
    let exact = ConsistencyReached::Exact(vec![(0, SOURCE_TIME_MS)]);
    let records = [string(0, b"k", b"v", None)];
    let write = |name: &str, lacking: &[(u32, u64)]| {
        let bytes = archive_lacking(&records, None, exact.clone(), lacking);
        let place = directory.path().join(name);
        std::fs::write(&place, bytes).expect("written");
        place.to_str().expect("text").to_owned()
    };
    let (whole, lacking) = (write("whole.rmz", &[]), write("lacking.rmz", &[(3, 12)]));
    let said = "the export left out 12 keys (db 3: 12), which it could not read or whose values were larger than its --max-value; they are not in this archive";
    let server = require(Version::Valkey81).map(TestServer::start);
    let url = server.as_ref().map(TestServer::url);
    let mut verbs = vec![
        vec!["verify"],
        vec!["verify", "--quick"],
        vec!["inspect"],
        vec!["list"],
        vec!["report"],
        vec!["convert", "--to", "jsonl"],
    ];
    if let Some(url) = &url {
        verbs.push(vec!["import", "--replace", url]);
        verbs.push(vec!["import", "--dry-run", url]);
    }
    for verb in verbs {
        let run = |file: &str, more: &[&str]| {
            let arguments = [&verb[..], &[file], more].concat();
            Tool::new(&arguments).run().success()
        };
        let output = run(&lacking, &[]);
        assert_eq!(
            output.stderr.matches(said).count(),
            1,
            "{verb:?}: {}",
            output.stderr
        );
        let output = run(&whole, &[]);
        assert!(
            !output.stderr.contains("left out"),
            "{verb:?}: {}",
            output.stderr
        );
        let failed = |output: &Output| {
            let summary = output.summary();
            match summary["source"].is_object() && verb[0] != "inspect" {
                true => summary["source"]["export_failed"].clone(),
                false => summary["export_failed"].clone(),
            }
        };
        let told = failed(&run(&lacking, &["--json"]));
        assert_eq!(told["keys"], 12, "{verb:?}: {told}");
        assert_eq!(told["by_db"][0]["db"], 3, "{verb:?}: {told}");
        let told = failed(&run(&whole, &["--json"]));
        assert!(told.is_null(), "{verb:?}: {told}");
    }
    for verb in ["verify", "inspect"] {
        let text = |file: &str| {
            let output = Tool::new(&[verb, file]).run().success();
            String::from_utf8(output.stdout).expect("UTF-8")
        };
        let exact = "exact as of 2023-11-14T22:13:20.000Z";
        assert!(
            text(&whole).contains(&format!("{exact}\n")),
            "{}",
            text(&whole)
        );
        let less = format!("{exact}, except 12 keys that the export left out\n");
        assert!(text(&lacking).contains(&less), "{}", text(&lacking));
    }
}

#[test]
fn progress_names_the_verb_that_runs() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = |name: &str| {
        directory
            .path()
            .join(name)
            .to_str()
            .expect("text")
            .to_owned()
    };
    let (other, page, rescued, lines) = (
        place("other.rmz"),
        place("page"),
        place("rescued"),
        place("lines"),
    );
    std::fs::write(&other, small()).expect("written");
    for arguments in [
        &["verify"][..],
        &["diff", "-", &other],
        &["report", "-o", &page],
        &["salvage", "-o", &rescued],
        &["convert", "-", &lines, "--to", "jsonl"],
    ] {
        let mut running = Tool::new(arguments)
            .args(&["--progress", "json"])
            .stdin_piped()
            .spawn();
        let mut stdin = running.stdin();
        let bytes = small();
        let (begin, rest) = bytes.split_at(40);
        stdin.write_all(begin).expect("written");
        // Progress is told once a second.
        std::thread::sleep(Duration::from_millis(2_500));
        stdin.write_all(rest).expect("written");
        drop(stdin);
        let output = running.wait();
        let progress: Vec<Value> = output
            .stderr
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .filter(|line: &Value| line["event"] == "progress")
            .collect();
        assert!(!progress.is_empty(), "{arguments:?}: {}", output.stderr);
        for line in progress {
            assert_eq!(line["verb"], arguments[0], "{arguments:?}");
        }
        assert_eq!(output.summary()["verb"], arguments[0]);
    }
}
