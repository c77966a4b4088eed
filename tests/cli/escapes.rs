//! Nothing from outside (keys, labels, file names, arguments, servers' words) reaches standard output or
//! standard error with characters that steer a terminal or hide; JSON gives them back.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use redis_migrate::escape::is_unsafe;
use serde_json::Value;

use crate::cli::archives::{archive, string};
use crate::support::tool::{Output, Tool};

/// One of each kind: C0, DEL, C1, direction, line ends, no width, tags.
const EVIL: &str = "a\u{1b}[31m\u{7f}\u{9b}2J\u{202e}\u{2066}\u{2028}\u{2029}\u{200b}\u{200d}\u{feff}\u{e0041}\u{ad}z";

#[track_caller]
fn check(arguments: &[&str], output: &Output) {
    for (stream, bytes) in [
        ("stdout", &output.stdout[..]),
        ("stderr", output.stderr.as_bytes()),
    ] {
        let text = String::from_utf8_lossy(bytes);
        let found = text.chars().find(|&c| c != '\n' && is_unsafe(c));
        assert_eq!(found, None, "{arguments:?}, {stream}: {text:?}");
    }
    assert_ne!(output.code(), Some(101), "{arguments:?}");
}

#[test]
fn keys_labels_and_file_names_are_escaped_by_every_verb() {
    let directory = tempfile::tempdir().expect("a directory");
    let bytes = archive(
        &[string(0, EVIL.as_bytes(), b"\xc2\x9bvalue", None)],
        Some(EVIL),
    );
    let file = directory.path().join(format!("{EVIL}.rmz"));
    std::fs::write(&file, &bytes).expect("written");
    let cut = directory.path().join(format!("cut{EVIL}.rmz"));
    std::fs::write(&cut, &bytes[..bytes.len() - 20]).expect("written");
    let other = directory.path().join("other.rmz");
    std::fs::write(&other, archive(&[string(0, b"k", b"v", None)], None)).expect("written");
    let text = |path: &std::path::Path| path.to_str().expect("text").to_owned();
    let (file, cut, other) = (text(&file), text(&cut), text(&other));
    let rdb = directory.path().join(format!("{EVIL}.rdb"));
    let rdb = text(&rdb);
    for arguments in [
        &["verify", &file][..],
        &["list", &file],
        &["inspect", &file],
        &["inspect", "--frames", &file],
        &["report", &file, "-o", &rdb],
        &["extract", &file, "--key", "none"],
        &["extract", &file, "--key", EVIL, "--json"],
        &["diff", &file, &other, "--explain"],
        &["diff", &other, &file],
        &["convert", &file, "--to", "jsonl"],
        &["convert", &file, &rdb],
        &["salvage", &cut, "-o", &rdb],
        &["verify", &cut],
        &["list", &cut],
        &["import", "redis://127.0.0.1:1", &cut],
        &["doctor", "redis://127.0.0.1:1", EVIL],
        // Files that are not there, and usage errors that quote arguments.
        &["verify", EVIL],
        &["list", &file, "--match", EVIL],
        &["list", &file, "--type", EVIL],
        &["list", &file, EVIL, EVIL],
        &["export", EVIL],
        &["export", &format!("redis://{EVIL}:1")],
        &[
            "export",
            "redis://127.0.0.1:1",
            "--errors-to",
            &format!("/none/{EVIL}"),
        ],
        &[
            "export",
            "redis://127.0.0.1:1",
            "-o",
            &format!("/none/{EVIL}"),
        ],
        &["import", "redis://127.0.0.1:1", "--map-db", EVIL],
        &[EVIL],
    ] {
        for json in [&[][..], &["--json"]] {
            let arguments = [arguments, json].concat();
            let output = Tool::new(&arguments).current_dir(directory.path()).run();
            check(&arguments, &output);
        }
    }
}

#[test]
fn json_gives_back_what_it_escapes() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("a.rmz");
    let bytes = archive(&[string(0, EVIL.as_bytes(), b"v", None)], Some(EVIL));
    std::fs::write(&file, bytes).expect("written");
    let file = file.to_str().expect("text");
    let first = |arguments: &[&str]| -> Value {
        let output = Tool::new(arguments).run().success();
        let text = String::from_utf8(output.stdout).expect("text");
        let line = text.lines().next().expect("a line");
        serde_json::from_str(line).expect("JSON")
    };
    assert_eq!(first(&["list", file, "--json"])["key"], EVIL);
    assert_eq!(first(&["convert", file, "--to", "jsonl"])["key"], EVIL);
    assert_eq!(
        first(&["extract", file, "--key", EVIL, "--json"])["key"],
        EVIL
    );
    assert_eq!(
        first(&["report", file, "--json"])["largest"][0]["key"],
        EVIL
    );
    assert_eq!(
        first(&["inspect", file, "--json"])["header"]["source"]["label"],
        EVIL
    );
}

#[test]
fn the_page_of_a_report_is_escaped_and_its_data_give_the_key_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let page = directory.path().join("page.html");
    let bytes = archive(&[string(0, EVIL.as_bytes(), b"v", None)], Some(EVIL));
    Tool::new(&["report", "-o"])
        .arg(&page)
        .stdin_bytes(bytes)
        .run()
        .success();
    let page = std::fs::read_to_string(&page).expect("a page");
    assert_eq!(page.chars().find(|&c| c != '\n' && is_unsafe(c)), None);
    let (_, data) = page.split_once("id=\"data\">").expect("a data block");
    let (data, _) = data.split_once("</script>").expect("its end");
    let data: Value = serde_json::from_str(data).expect("JSON");
    assert_eq!(data["largest"][0]["key"], EVIL);
}

#[test]
fn the_words_of_a_server_are_escaped() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("redis://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while matches!(stream.read(&mut buffer), Ok(1..)) {
                    let answer = format!("-ERR {}\r\n", EVIL.replace('\n', ""));
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    for verb in ["export", "doctor"] {
        for json in [&[][..], &["--json"]] {
            let arguments = [&[verb, &url, "--timeout", "3s", "--retries", "1"], json].concat();
            let output = Tool::new(&arguments).run();
            assert_ne!(output.code(), Some(0));
            check(&arguments, &output);
        }
    }
}
