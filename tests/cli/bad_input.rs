//! Everything that is not a complete archive gets a sentence of its own, exit 10, and where there
//! is one, the place; on every verb that reads archives, from files and from pipes.

use std::io::Write as _;

use redis_migrate_format::version::MAGIC;
use tempfile::NamedTempFile;

use crate::cli::archives::{archive, large, small, string};
use crate::support::tool::{Tool, run};

/// Name, bytes, and words that its sentence must have.
fn bad_inputs() -> Vec<(&'static str, Vec<u8>, &'static [&'static str])> {
    let good = large(20_000);
    let with_byte = |offset: usize, change: fn(u8) -> u8| {
        let mut bytes = good.clone();
        bytes[offset] = change(bytes[offset]);
        bytes
    };
    let text_mode: Vec<u8> = good
        .iter()
        .flat_map(|&byte| match byte {
            b'\n' => vec![b'\r', b'\n'],
            other => vec![other],
        })
        .collect();
    let utf16: Vec<u8> = [0xff, 0xfe]
        .into_iter()
        .chain(good.iter().flat_map(|&byte| [byte, 0]))
        .collect();
    vec![
        ("empty", Vec::new(), &["empty"]),
        ("RDB", b"REDIS0011\xfa\x09redis-ver".to_vec(), &["RDB"]),
        ("gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec(), &["gzip"]),
        ("JSON", b"[{\"key\": \"a\"}]\n".to_vec(), &["JSON"]),
        ("text", b"hello, world, this is text\n".to_vec(), &["text"]),
        ("LF to CR LF", text_mode, &["line"]),
        ("UTF-16", utf16, &["UTF-16"]),
        (
            "cut in a frame",
            good[..good.len() / 2].to_vec(),
            &["incomplete", "frame", "byte"],
        ),
        (
            "without trailer",
            good[..good.len() - 40].to_vec(),
            &["incomplete", "trailer"],
        ),
        (
            "one byte short",
            good[..good.len() - 1].to_vec(),
            &["incomplete"],
        ),
        (
            "flipped bit",
            with_byte(good.len() / 2, |byte| byte ^ 1),
            &["damaged", "frame", "byte"],
        ),
        (
            "two archives",
            [good.clone(), good.clone()].concat(),
            &["second archive"],
        ),
        (
            "zeros behind",
            [good.clone(), vec![0; 512]].concat(),
            &["zero bytes follow"],
        ),
        (
            "text behind",
            [good.clone(), b"done\n".to_vec()].concat(),
            &["other bytes follow"],
        ),
        (
            "frame lost",
            [&good[..good.len() / 3], &good[good.len() / 2..]].concat(),
            &["damaged"],
        ),
    ]
}

#[test]
fn every_bad_input_has_its_own_sentence() {
    let mut sentences = std::collections::BTreeMap::new();
    for (name, bytes, words) in bad_inputs() {
        for arguments in [
            &["verify"][..],
            &["verify", "--quick"],
            &["verify", "--json"],
            &["list"],
            &["list", "--json"],
            &["inspect"],
            &["inspect", "--json", "--frames"],
            &["import", "redis://127.0.0.1:1", "-"],
        ] {
            let output = run(arguments, &bytes);
            let stderr = &output.stderr;
            // An archive that begins well takes an import on to its server, which is not there.
            if arguments[0] == "import" && bytes.starts_with(&MAGIC) && output.code() == Some(12) {
                continue;
            }
            assert_eq!(output.code(), Some(10), "{name}, {arguments:?}: {stderr}");
            for word in words {
                let has = stderr.to_lowercase().contains(&word.to_lowercase());
                assert!(has, "{name}, {arguments:?}: no {word:?} in {stderr}");
            }
            let (error, help) = match arguments.contains(&"--json") {
                true => ("\"event\":\"error\"", "\"advice\":\""),
                false => ("error:", "help:"),
            };
            assert_eq!(stderr.matches(error).count(), 1, "{name}: {stderr}");
            assert!(stderr.contains(help), "{name}: {stderr}");
            if arguments == ["inspect"] {
                let sentence = stderr.lines().next().unwrap_or_default().to_owned();
                let other = sentences.insert(sentence, name);
                assert_eq!(other, None, "{name} has the same sentence");
            }
        }
    }
}

#[test]
fn a_file_is_named_in_its_error_and_what_was_intact_is_told() {
    let good = large(20_000);
    let mut file = NamedTempFile::new().expect("temp file");
    file.write_all(&good[..good.len() - 100_000])
        .expect("written");
    let path = file.path().to_str().expect("text");
    let output = Tool::new(&["verify", path]).run().expect_code(10);
    assert!(output.stderr.contains(path), "{}", output.stderr);
    assert!(
        output.stderr.contains("intact before that"),
        "{}",
        output.stderr
    );
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(!stdout.contains("complete and intact"), "{stdout}");
}

#[test]
fn a_newer_version_is_refused_as_such() {
    use redis_migrate_format::version::Preamble;
    let mut bytes = small();
    let newer = Preamble {
        major: 2,
        ..Preamble::CURRENT
    };
    bytes[..16].copy_from_slice(&newer.encode());
    for verb in ["verify", "list", "inspect"] {
        run(&[verb], &bytes)
            .expect_code(10)
            .expect_stderr("newer redis-migrate");
    }
}

#[test]
fn verify_json_names_class_and_place() {
    let good = large(20_000);
    let output = run(&["verify", "--json"], &good[..good.len() - 50_000]).expect_code(10);
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(object["complete"], false);
    assert_eq!(object["exit_code"], 10);
    assert_eq!(object["error"]["class"], "incomplete");
    assert!(object["error"]["offset"].is_u64());
    assert!(object["sha256"].is_null());
}

#[test]
fn a_payload_no_server_would_take_is_found() {
    use redis_migrate_format::record::{Record, Value};
    let mut record = string(0, b"k", b"v", None);
    if let Record::Key(key) = &mut record {
        key.value = Value::Verbatim(b"\0\x01v\x0a\0\0\0\0\0\0\0\0\x01".to_vec());
    }
    let bytes = archive(&[record], None);
    run(&["verify"], &bytes)
        .expect_code(3)
        .expect_stderr("damaged: db 0 key \"k\"")
        .expect_stderr("1 damaged value");
    run(&["verify", "--level", "records"], &bytes)
        .expect_code(3)
        .expect_stderr("1 payload");
}
