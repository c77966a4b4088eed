//! What goes to which stream: data alone on stdout, no archive to or from a terminal, and a reader
//! that goes away.

use std::io::{Read as _, Write as _};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use redis_migrate_format::header::ConsistencyReached;

use crate::cli::archives::{archive_lacking, large, small, string};
use crate::support::servers::skipped;
use crate::support::tool::{Tool, path, run};

fn json_lines(stdout: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(stdout).expect("UTF-8");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[test]
fn verify_says_that_an_archive_is_complete_and_prints_the_digest_of_the_file() {
    let bytes = small();
    let output = run(&["verify"], &bytes).success();
    let text = String::from_utf8_lossy(&output.stdout);
    let digest: String = Sha256::digest(&bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert!(text.contains("complete and intact"), "{text}");
    assert!(text.contains(&digest), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
    assert_eq!(output.stderr, "");
    let quick = run(&["verify", "--quick", "--json"], &bytes).success();
    let object = json_lines(&quick.stdout).remove(0);
    assert_eq!(object["sha256"], digest.as_str());
    assert_eq!(object["schema_version"], 1);
    let quiet = run(&["verify", "-q"], &bytes).success();
    assert!(quiet.stdout.is_empty() && quiet.stderr.is_empty());
}

#[test]
fn list_escapes_keys_and_gives_bytes_as_hex() {
    let output = run(&["list"], &small()).success();
    let text = String::from_utf8_lossy(&output.stdout);
    for shown in [r#""plain""#, r#""esc\x1b[31m\n""#, r#""\xff\xfe""#, r#""""#] {
        assert!(text.contains(shown), "no {shown} in {text}");
    }
    assert!(text.contains("1m 30s"), "{text}");
    assert!(text.contains("deleted"), "{text}");
    assert!(!text.contains('\x1b'));
    assert_eq!(output.stderr, "");
    let output = run(&["list", "--json"], &small()).success();
    let mut lines = json_lines(&output.stdout);
    let summary = lines.pop().expect("a summary");
    assert_eq!(
        (&summary["event"], &summary["complete"]),
        (&"summary".into(), &true.into())
    );
    assert!(
        lines
            .iter()
            .any(|line| line["key_hex"] == "fffe" && line.get("key").is_none())
    );
    assert!(lines.iter().any(|line| line["key"] == "esc\x1b[31m\n"));
    assert!(
        lines
            .iter()
            .any(|line| line["key"] == "" && line["type"] == "string")
    );
    assert!(
        lines
            .iter()
            .any(|line| line["key"] == "idle" && line["idle_secs"] == 7)
    );
    assert!(lines.iter().all(|line| line["schema_version"] == 1));
}

#[test]
fn list_selects() {
    let keys = |flags: &[&str]| {
        let arguments = [&["list", "--json"], flags].concat();
        let output = run(&arguments, &small()).success();
        let lines = json_lines(&output.stdout);
        let keys = lines.iter().filter(|line| line["event"] == "key");
        keys.filter_map(|line| line["key"].as_str().map(str::to_owned))
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(&["--match", "pl*"]), ["plain"]);
    assert_eq!(keys(&["--db", "3"]), ["idle"]);
    assert_eq!(keys(&["--with-ttl"]), ["soon"]);
    assert_eq!(keys(&["--max-ttl", "1m"]), [""; 0]);
    assert_eq!(keys(&["--max-ttl", "2m"]), ["soon"]);
    assert_eq!(keys(&["--type", "hash"]), [""; 0]);
    assert_eq!(keys(&["--min-size", "7", "--exclude", "s*"]), ["plain"]);
}

#[test]
fn inspect_shows_header_frames_and_totals() {
    let output = run(&["inspect", "--frames"], &small()).success();
    let text = String::from_utf8_lossy(&output.stdout);
    for word in [
        "7.0.15",
        "HEADER",
        "DATA",
        "END",
        "string",
        "sha256",
        "tombstone",
    ] {
        assert!(text.contains(word), "no {word} in {text}");
    }
    assert!(!text.contains('\x1b'), "{text}");
    let output = run(&["inspect", "--json"], &small()).success();
    let lines = json_lines(&output.stdout);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["keys"], 6);
    assert_eq!(lines[0]["header"]["source"]["label"], "evil \x1b[2J label");
    assert_eq!(lines[0]["tombstones"], 1);
}

#[test]
fn files_pipes_and_the_dash_are_the_same() {
    let mut file = NamedTempFile::new().expect("temp file");
    file.write_all(&small()).expect("written");
    let name = file.path().to_str().expect("text");
    let by_pipe = run(&["list", "--json"], &small()).success().stdout;
    for output in [
        Tool::new(&["list", "--json", name]).run(),
        Tool::new(&["list", "--json"]).stdin_file(file.path()).run(),
        run(&["list", "--json", "-"], &small()),
    ] {
        assert_eq!(output.success().stdout, by_pipe);
    }
}

#[test]
fn a_reader_that_goes_away_ends_list_and_inspect_quietly() {
    let bytes = large(200_000);
    for arguments in [&["list"][..], &["list", "--json"]] {
        let mut running = Tool::new(arguments)
            .stdin_bytes(bytes.clone())
            .stdout_piped()
            .spawn();
        let mut stdout = running.stdout();
        let mut some = [0; 100];
        stdout.read_exact(&mut some).expect("some lines");
        drop(stdout);
        let output = running.wait();
        assert_eq!((output.code(), output.stderr.as_str()), (Some(0), ""));
    }
    let mut running = Tool::new(&["inspect"]).stdin_piped().stdout_piped().spawn();
    drop(running.stdout());
    running.stdin().write_all(&small()).expect("written");
    let output = running.wait();
    assert_eq!((output.code(), output.stderr.as_str()), (Some(0), ""));
}

/// What was found decides how a run ends, and is said, also where nobody reads the result.
#[test]
fn a_reader_that_goes_away_hides_no_damage() {
    let cut = {
        let bytes = small();
        bytes[..bytes.len() - 20].to_vec()
    };
    let unsure = archive_lacking(
        &[string(0, b"k", b"v", None)],
        None,
        ConsistencyReached::Exact(vec![(0, 0)]),
        &[(0, 2)],
    );
    let mut far = large(20_000);
    far.truncate(far.len() - 20);
    for (arguments, bytes, code, said) in [
        (&["inspect"][..], &cut, 10, "cut off"),
        (&["inspect", "--frames"], &cut, 10, "cut off"),
        (&["list"], &cut, 10, "cut off"),
        (&["list", "--json"], &cut, 10, "cut off"),
        (&["list"], &far, 10, "cut off"),
        (&["verify"], &cut, 10, "cut off"),
        (
            &["verify", "--max-value", "1"],
            &small(),
            3,
            "larger than --max-value",
        ),
        (&["list"], &unsure, 0, "the export left out 2 keys"),
        (&["inspect"], &unsure, 0, "the export left out 2 keys"),
        (&["verify"], &unsure, 0, "the export left out 2 keys"),
    ] {
        let running = Tool::new(arguments).stdin_piped().stdout_piped();
        let mut running = running.spawn();
        drop(running.stdout());
        running.stdin().write_all(bytes).expect("written");
        let output = running.wait().expect_code(code).expect_stderr(said);
        assert!(!output.stderr.contains("Broken pipe"), "{}", output.stderr);
        assert!(!output.stderr.contains("os error"), "{}", output.stderr);
        let output = Tool::new(arguments)
            .stdin_bytes(bytes.clone())
            .stdout_file("/dev/full".as_ref())
            .run();
        let worse = if code == 10 { 10 } else { 1 };
        output.expect_code(worse).expect_stderr("No space left");
    }
}

/// Only what was seen to be so is called so.
#[test]
fn verify_calls_nothing_intact_that_it_did_not_look_at() {
    let limited = run(&["verify", "--max-value", "2"], &small()).expect_code(3);
    let text = String::from_utf8_lossy(&limited.stdout);
    assert!(
        text.contains("complete, but not every value was looked at"),
        "{text}"
    );
    assert!(!text.contains("intact"), "{text}");
    for (level, code) in [("values", 0), ("records", 0), ("frames", 0)] {
        let whole = run(&["verify", "--level", level], &small()).expect_code(code);
        let text = String::from_utf8_lossy(&whole.stdout);
        assert!(text.contains("intact"), "{text}");
    }
}

#[test]
fn a_full_disk_is_no_success() {
    for arguments in [&["list"][..], &["inspect"], &["verify"]] {
        let output = Tool::new(arguments)
            .stdin_bytes(small())
            .stdout_file("/dev/full".as_ref())
            .run()
            .expect_code(1);
        assert!(output.stderr.contains("No space left"), "{}", output.stderr);
    }
}

/// Runs the tool with a terminal as stdin, stdout and stderr.
fn on_a_terminal(arguments: &[&str]) -> Option<(i32, String)> {
    let line = [path().to_str()?]
        .iter()
        .chain(arguments)
        .copied()
        .collect::<Vec<_>>()
        .join(" ");
    let output = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .output();
    match output {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            Some((output.status.code()?, text))
        }
        Err(error) => {
            skipped(&format!("tests on a terminal: script(1): {error}"));
            None
        }
    }
}

#[test]
fn archives_do_not_go_to_or_come_from_a_terminal() {
    for arguments in [
        &["export", "redis://127.0.0.1:1"][..],
        &["import", "redis://127.0.0.1:1"],
        &["verify"],
        &["list"],
        &["inspect", "-"],
    ] {
        let Some((code, text)) = on_a_terminal(arguments) else {
            return;
        };
        assert_eq!(code, 2, "{arguments:?}: {text}");
        assert!(
            text.contains("terminal") && text.contains("redirect"),
            "{text}"
        );
    }
    // With `-o -` it gets as far as the server that is not there.
    if let Some((code, text)) = on_a_terminal(&["export", "redis://127.0.0.1:1", "-o", "-"]) {
        assert_eq!(code, 12, "{text}");
        assert!(text.contains("\x1b[1;31merror:"), "{text:?}");
    }
}

#[test]
fn no_color_is_honoured() {
    let line = format!(
        "NO_COLOR=1 {} export redis://127.0.0.1:1 -o -",
        path().display()
    );
    match Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .output()
    {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(
                text.contains("error:") && !text.contains("\x1b[1;31m"),
                "{text:?}"
            );
        }
        Err(error) => skipped(&format!("tests on a terminal: script(1): {error}")),
    }
}

#[test]
fn an_archive_is_not_appended_to_a_file() {
    let mut file = NamedTempFile::new().expect("temp file");
    file.write_all(b"something").expect("written");
    let line = format!(
        "{} export redis://127.0.0.1:1 >> {}",
        path().display(),
        file.path().display()
    );
    let output = Command::new("sh")
        .args(["-c", &line])
        .output()
        .expect("a shell");
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("holds 9 bytes already"), "{text}");
}

#[test]
fn events_are_json_to_the_last_line() {
    let nowhere = "redis://127.0.0.1:1";
    for (arguments, is_on_stdout) in [
        (&["export", nowhere, "--json"][..], false),
        (
            &["export", nowhere, "--progress", "json", "--dry-run"],
            false,
        ),
        (&["export", nowhere, "--json", "--dry-run"], true),
        (&[nowhere, nowhere, "--json"], true),
    ] {
        let output = Tool::new(arguments).run().expect_code(12);
        let mut lines = json_lines(output.stderr.as_bytes());
        lines.extend(json_lines(&output.stdout));
        assert_eq!(!output.stdout.is_empty(), is_on_stdout, "{arguments:?}");
        assert!(lines.iter().all(|line| line["schema_version"] == 1));
        let last = lines.last().expect("a line");
        assert_eq!(last["event"], "summary");
        assert_eq!(last["exit_code"], 12);
        let error = &lines[lines.len() - 2];
        assert_eq!(error["event"], "error");
        assert!(error["advice"].is_string());
        assert_eq!(last["error"], error["text"]);
    }
}

/// Runs a line of the shell, with the tool as `$0`.
fn shell(line: &str, directory: &std::path::Path) -> std::process::Output {
    Command::new("sh")
        .arg("-c")
        .arg(line)
        .arg(path())
        .current_dir(directory)
        .output()
        .expect("a shell")
}

#[test]
fn a_closed_stream_is_noticed_where_it_matters() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("a.rmz"), small()).expect("written");
    for (line, code, word) in [
        (
            "\"$0\" export redis://127.0.0.1:1 >&-",
            2,
            "standard output is closed",
        ),
        (
            "\"$0\" export redis://127.0.0.1:1 -o - >&-",
            2,
            "standard output is closed",
        ),
        ("\"$0\" salvage a.rmz >&-", 2, "standard output is closed"),
        ("\"$0\" report a.rmz >&-", 2, "standard output is closed"),
        (
            "\"$0\" convert a.rmz --to jsonl >&-",
            2,
            "standard output is closed",
        ),
        (
            "\"$0\" extract a.rmz --key plain >&-",
            2,
            "standard output is closed",
        ),
        // What is only printed goes nowhere, and nothing else changes.
        ("\"$0\" list a.rmz >&-", 0, ""),
        ("\"$0\" list --json a.rmz >&-", 0, ""),
        ("\"$0\" inspect a.rmz >&-", 0, ""),
        ("\"$0\" report a.rmz --json -o page.html >&-", 0, ""),
        ("\"$0\" salvage a.rmz --json -o saved.rmz >&-", 0, ""),
        ("\"$0\" verify a.rmz --json >&-", 0, ""),
        ("\"$0\" verify none.rmz --json >&-", 2, ""),
        ("\"$0\" completions bash >&-", 0, ""),
        // Programs throw output away so (subprocess.DEVNULL, stdio: 'ignore').
        ("\"$0\" list --json a.rmz 1<>/dev/null", 0, ""),
        (
            "\"$0\" diff a.rmz a.rmz --no-functions --json 1<>/dev/null",
            0,
            "",
        ),
        ("\"$0\" inspect a.rmz 1<>/dev/null", 0, ""),
        ("\"$0\" completions bash 1<>/dev/null", 0, ""),
        (
            "\"$0\" export redis://127.0.0.1:1 -o b.rmz --json 1<>/dev/null",
            12,
            "",
        ),
        (
            "\"$0\" salvage a.rmz 1<>/dev/null",
            2,
            "standard output is closed",
        ),
        ("\"$0\" list -q a.rmz >&-", 0, ""),
        ("\"$0\" verify a.rmz >&-", 0, ""),
        ("\"$0\" list a.rmz >/dev/null", 0, ""),
        ("\"$0\" verify <&-", 2, "standard input"),
        ("\"$0\" list - <&-", 2, "standard input"),
        ("\"$0\" import redis://127.0.0.1:1 <&-", 2, "standard input"),
        ("\"$0\" convert - out.rdb <&-", 2, "standard input"),
        // Nobody is told, but nothing else changes.
        ("\"$0\" verify a.rmz 2>&-", 0, ""),
        ("\"$0\" verify none.rmz 2>&-", 2, ""),
        ("\"$0\" --frobnicate 2>&-", 2, ""),
        ("\"$0\" --frobnicate 2>/dev/full", 2, ""),
        ("\"$0\" verify none.rmz --json 2>/dev/full", 2, ""),
        ("\"$0\" convert a.rmz --to jsonl >/dev/null", 0, ""),
        ("\"$0\" salvage a.rmz -q -o out.rmz >&-", 0, ""),
    ] {
        let output = shell(line, directory.path());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line}: {stderr}");
        assert!(stderr.contains(word), "{line}: {stderr}");
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut running = Tool::new(&["verify"]).stdin_piped().spawn();
    let stdin = running.stdin();
    // It must have set up its handlers.
    std::thread::sleep(Duration::from_millis(300));
    running.signal("INT");
    std::thread::sleep(Duration::from_millis(100));
    let second = Instant::now();
    running.signal("INT");
    let output = running.wait();
    drop(stdin);
    assert_eq!(output.code(), Some(130));
    assert!(second.elapsed() < Duration::from_secs(5));
}
