//! No verb writes over what it reads, or over an archive with something that is none; and what a
//! symbolic link means.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::cli::archives::{archive, small, string};
use crate::support::tool::{Tool, path};

/// A directory with an archive under three names, and a damaged one.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    fs::write(at("a.rmz"), small()).expect("written");
    fs::hard_link(at("a.rmz"), at("hard.rmz")).expect("linked");
    symlink("a.rmz", at("soft.rmz")).expect("linked");
    fs::write(at("cut.rmz"), &small()[..small().len() - 30]).expect("written");
    fs::write(at("key.txt"), "a secret\n").expect("written");
    directory
}

/// Every file's bytes.
fn contents(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| {
            (
                path.display().to_string(),
                fs::read(&path).unwrap_or_default(),
            )
        })
        .collect();
    all.sort();
    all
}

#[test]
fn input_and_output_are_not_the_same_file() {
    let directory = directory();
    let before = contents(directory.path());
    let nowhere = "redis://127.0.0.1:1";
    for arguments in [
        &["report", "a.rmz", "-o", "a.rmz"][..],
        &["report", "a.rmz", "-o", "hard.rmz"],
        &["report", "soft.rmz", "-o", "a.rmz", "--overwrite"],
        &["convert", "a.rmz", "a.rmz", "--to", "jsonl", "--overwrite"],
        &["convert", "hard.rmz", "soft.rmz", "--to", "rdb"],
        &["salvage", "cut.rmz", "-o", "cut.rmz"],
        &["salvage", "a.rmz", "-o", "./soft.rmz"],
        &["extract", "a.rmz", "--key", "plain", "-o", "hard.rmz"],
        &["export", "a.rmz", "-o", "soft.rmz"],
        &[
            "export",
            nowhere,
            "--password-file",
            "key.txt",
            "-o",
            "key.txt",
        ],
        &[
            "export",
            nowhere,
            "--age-recipients-file",
            "key.txt",
            "-o",
            "key.txt",
        ],
        &["import", nowhere, "a.rmz", "--resume=hard.rmz"],
        &["import", nowhere, "a.rmz", "--errors-to", "a.rmz"],
        &[
            "import",
            nowhere,
            "cut.rmz",
            "a.rmz",
            "--errors-to",
            "soft.rmz",
        ],
        &["convert", "a.rmz", "new.rdb", "--errors-to", "new.rdb"],
        // What stands beside the output until it is complete.
        &[
            "export",
            nowhere,
            "--resume",
            "-o",
            "et.rmz",
            "--errors-to",
            "et.rmz.part",
        ],
        &[
            "export",
            nowhere,
            "--resume",
            "-o",
            "et.rmz",
            "--errors-to",
            "./et.rmz.part.state",
        ],
    ] {
        let output = Tool::new(arguments).current_dir(directory.path()).run();
        let output = output.expect_code(2);
        let stderr = &output.stderr;
        assert!(stderr.contains("same file"), "{arguments:?}: {stderr}");
        assert!(
            contents(directory.path()) == before,
            "{arguments:?} changed a file"
        );
    }
}

#[test]
fn a_redirection_is_seen_through() {
    let directory = directory();
    let before = contents(directory.path());
    for line in [
        "list a.rmz >> hard.rmz",
        "list < a.rmz >> a.rmz",
        "convert - --to jsonl < a.rmz 1<> soft.rmz",
        "salvage a.rmz >> a.rmz",
        "report - -o hard.rmz < a.rmz",
        "import redis://127.0.0.1:1 --json < a.rmz >> a.rmz",
        "copy a.rmz redis://127.0.0.1:1 --json >> a.rmz",
    ] {
        let output = Command::new("sh")
            .arg("-c")
            .arg(format!("\"$0\" {line}"))
            .arg(path())
            .current_dir(directory.path())
            .output()
            .expect("a shell");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {stderr}");
        assert!(stderr.contains("same file"), "{line}: {stderr}");
        assert!(
            contents(directory.path()) == before,
            "{line} changed a file"
        );
    }
}

#[test]
fn an_archive_is_replaced_only_by_an_archive_unless_it_is_said() {
    let directory = directory();
    let other = archive(&[string(0, b"other", b"v", None)], None);
    let place = directory.path().join("other.rmz");
    let cases: [&[&str]; 4] = [
        &["report", "a.rmz", "-o", "other.rmz"],
        &["convert", "a.rmz", "other.rmz", "--to", "jsonl"],
        &["convert", "a.rmz", "other.rmz", "--to", "rdb"],
        &["extract", "a.rmz", "--key", "plain", "-o", "other.rmz"],
    ];
    for arguments in cases {
        let run = |arguments: &[&str]| Tool::new(arguments).current_dir(directory.path()).run();
        fs::write(&place, &other).expect("written");
        run(arguments).expect_code(2).expect_stderr("--overwrite");
        assert!(fs::read(&place).expect("there") == other, "{arguments:?}");
        run(&[arguments, &["--overwrite"]].concat()).success();
        assert!(fs::read(&place).expect("there") != other, "{arguments:?}");
    }
    // A journal has no such flag.
    fs::write(&place, &other).expect("written");
    Tool::new(&["export", "redis://127.0.0.1:1", "--errors-to", "other.rmz"])
        .current_dir(directory.path())
        .run()
        .expect_code(2)
        .expect_stderr("is an archive");
    assert!(fs::read(&place).expect("there") == other);
    // An archive takes an archive's place.
    Tool::new(&["salvage", "a.rmz", "-o", "other.rmz"])
        .current_dir(directory.path())
        .run()
        .success();
    assert!(fs::read(&place).expect("there") != other);
}

/// The first bytes tell what it is, whatever it is called.
#[test]
fn an_rdb_file_is_replaced_only_by_an_rdb_file_unless_it_is_said() {
    let directory = directory();
    let place = directory.path().join("backup");
    let run = |arguments: &[&str]| Tool::new(arguments).current_dir(directory.path()).run();
    for other in ["REDIS0011 and so on", "VALKEY080 and so on"] {
        fs::write(&place, other).expect("written");
        for arguments in [
            &["export", "redis://127.0.0.1:1", "--errors-to", "backup"][..],
            &[
                "import",
                "redis://127.0.0.1:1",
                "a.rmz",
                "--errors-to",
                "backup",
            ],
            &["import", "redis://127.0.0.1:1", "a.rmz", "--resume=backup"],
            &["report", "a.rmz", "-o", "backup"],
            &["extract", "a.rmz", "--key", "plain", "-o", "backup"],
            &["convert", "a.rmz", "backup", "--to", "jsonl"],
        ] {
            let output = run(arguments).expect_code(2);
            output.expect_stderr("is an RDB file");
            let there = fs::read(&place).expect("there");
            assert!(there == other.as_bytes(), "{arguments:?}");
        }
        run(&["report", "a.rmz", "-o", "backup", "--overwrite"]).success();
        fs::write(&place, other).expect("written");
        run(&["convert", "a.rmz", "backup", "--to", "rdb"]).success();
        assert!(fs::read(&place).expect("there") != other.as_bytes());
        // A text that only begins with the same word.
        fs::write(&place, "REDIS is no RDB file").expect("written");
        run(&["report", "a.rmz", "-o", "backup"]).success();
    }
}

#[test]
fn a_link_means_what_it_points_to_also_when_nothing_is_there() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("far")).expect("a directory");
    symlink("far/new.rmz", at("dangling")).expect("linked");
    symlink("dangling", at("twice")).expect("linked");
    symlink("circle", at("circle")).expect("linked");
    symlink("nowhere/new.rmz", at("lost")).expect("linked");
    let salvage = |output: &str| {
        Tool::new(&["salvage", "a.rmz", "-o", output])
            .current_dir(directory.path())
            .run()
    };
    salvage("twice").success();
    assert!(at("twice").is_symlink() && at("dangling").is_symlink());
    assert!(fs::metadata(at("far/new.rmz")).expect("there").is_file());
    // Now it is a live one, and means the same.
    fs::write(at("far/new.rmz"), "old").expect("written");
    salvage("dangling").success();
    assert!(at("dangling").is_symlink());
    Tool::new(&["verify"])
        .arg(at("far/new.rmz"))
        .run()
        .success();
    salvage("circle")
        .expect_code(1)
        .expect_stderr("symbolic links");
    salvage("lost").expect_code(2).expect_stderr("no directory");
    salvage("none/x.rmz")
        .expect_code(2)
        .expect_stderr("no directory none");
    assert!(at("circle").is_symlink() && at("lost").is_symlink());
}
