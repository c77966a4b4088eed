//! Every verb that reads an archive reads an encrypted one.

use std::fs;

use crate::encryption::{Case, archives, seal_armored, text};
use crate::support::tool::{Output, Tool};

/// What each verb prints for the plain archive and for the encrypted one. Only what is about the
/// file itself may differ.
fn outputs(case: &Case, arguments: &[&str]) -> (Output, Output) {
    let plain = case.path("snap.rmz");
    fs::write(&plain, &case.plain).expect("written");
    let plain = Tool::new(arguments).arg(plain).run().success();
    let [flag, file] = case.key_flags();
    let sealed = Tool::new(arguments)
        .arg(case.sealed_file())
        .arg(flag)
        .arg(file)
        .run()
        .success();
    (plain, sealed)
}

#[test]
fn list_and_convert_print_the_same() {
    let case = Case::small();
    for arguments in [
        &["list"][..],
        &["list", "--json"],
        &["convert", "--to", "jsonl"],
        &["convert", "--to", "rdb", "--for", "redis-7.0"],
    ] {
        let (plain, sealed) = outputs(&case, arguments);
        assert!(!plain.stdout.is_empty(), "{arguments:?}");
        assert_eq!(plain.stdout, sealed.stdout, "{arguments:?}");
    }
}

/// The name says nothing of what a file is.
#[test]
fn an_encrypted_archive_may_be_called_like_an_rdb_file() {
    let case = Case::small();
    let name = case.path("dump.rdb");
    fs::copy(case.sealed_file(), &name).expect("copied");
    let [flag, file] = case.key_flags();
    for arguments in [
        &["verify"][..],
        &["list"],
        &["inspect"],
        &["convert", "--to", "jsonl"],
        &["report", "--json"],
    ] {
        let tool = Tool::new(arguments).arg(name.clone()).arg(&flag).arg(&file);
        tool.run().success();
        Tool::new(arguments).arg(name.clone()).run().expect_code(11);
    }
}

#[test]
fn verify_and_inspect_tell_of_the_file_and_of_what_is_in_it() {
    let case = Case::new(archives::large(20_000));
    let size = fs::metadata(case.sealed_file()).expect("there").len();
    for arguments in [
        &["verify", "--json"][..],
        &["verify", "--json", "--quick"],
        &["inspect", "--json"],
    ] {
        let (plain, sealed) = outputs(&case, arguments);
        let json = |output: &Output| -> serde_json::Value {
            serde_json::from_slice(&output.stdout).expect("JSON")
        };
        let (plain, sealed) = (json(&plain), json(&sealed));
        assert_eq!(plain["encrypted"], false);
        assert_eq!(sealed["encrypted"], true);
        assert_eq!(sealed["bytes"], size);
        assert_eq!(sealed["sha256"], sha256(&case.sealed_file()));
        for same in ["header", "end", "archive_id", "keys", "frames"] {
            assert_eq!(plain[same], sealed[same], "{arguments:?} {same}");
        }
    }
}

/// As the system's own program says it.
pub fn sha256(path: &std::path::Path) -> String {
    let output = std::process::Command::new("sha256sum")
        .arg(path)
        .output()
        .expect("sha256sum runs");
    let text = String::from_utf8(output.stdout).expect("text");
    text.split(' ').next().expect("a digest").to_owned()
}

#[test]
fn a_pipe_and_armor_are_read_too() {
    let case = Case::small();
    let armored = seal_armored(&case.plain, &case.identity);
    assert!(armored.starts_with(b"-----BEGIN AGE"));
    let [flag, file] = case.key_flags();
    let expected = Tool::new(&["list"]).stdin_bytes(case.plain.clone()).run();
    for bytes in [fs::read(case.sealed_file()).expect("there"), armored] {
        let listed = Tool::new(&["list", &flag, &file])
            .stdin_bytes(bytes)
            .run()
            .success();
        assert_eq!(listed.stdout, expected.stdout);
    }
    // From a file, read twice.
    let armored = case.path("armored.age");
    fs::write(&armored, seal_armored(&case.plain, &case.identity)).expect("written");
    Tool::new(&["convert", &text(&armored), "--to", "rdb", &flag, &file])
        .arg(case.path("out.rdb"))
        .run()
        .success();
}

#[test]
fn the_first_bytes_may_come_one_by_one() {
    use std::io::Write as _;

    let case = Case::small();
    let [flag, file] = case.key_flags();
    for bytes in [
        case.plain.clone(),
        fs::read(case.sealed_file()).expect("there"),
    ] {
        let mut running = Tool::new(&["verify", &flag, &file]).stdin_piped().spawn();
        let mut stdin = running.stdin();
        let (first, rest) = bytes.split_at(60);
        for byte in first {
            stdin.write_all(&[*byte]).expect("read");
            stdin.flush().expect("read");
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        stdin.write_all(rest).expect("read");
        drop(stdin);
        running.wait().success();
    }
}
