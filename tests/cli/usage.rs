//! Help, version, and everything that exits with 2.

use crate::support::tool::{Tool, run};

/// Every verb, also the hidden one.
fn verbs() -> Vec<String> {
    use clap::CommandFactory;

    let command = redis_migrate::commands::Cli::command();
    let names = command.get_subcommands();
    names.map(|verb| verb.get_name().to_owned()).collect()
}

#[test]
fn help_goes_to_stdout_with_examples() {
    for verb in verbs() {
        for arguments in [[&verb, "--help"], [&verb, "-h"], ["help", &verb]] {
            let output = Tool::new(&arguments).run().success();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("Usage: redis-migrate"), "{verb}: {text}");
            assert!(text.contains("Examples:"), "{verb}: {text}");
            assert_eq!(output.stderr, "");
        }
    }
    let output = Tool::new(&["--help"]).run().success();
    let text = String::from_utf8_lossy(&output.stdout);
    for verb in verbs() {
        assert_eq!(
            text.contains(&format!("\n  {verb} ")),
            verb != "man-pages",
            "{verb}: {text}"
        );
    }
}

#[test]
fn version_says_what_it_is() {
    for flag in ["--version", "-V"] {
        let output = Tool::new(&[flag]).run().success();
        let text = String::from_utf8_lossy(&output.stdout);
        let expected = concat!("redis-migrate ", env!("CARGO_PKG_VERSION"));
        assert!(text.starts_with(expected), "{text}");
        if flag == "--version" {
            assert!(text.contains("RDB versions up to"), "{text}");
            assert!(text.contains("not tested with a server: Redis"), "{text}");
            assert!(text.contains("archive format: 1."), "{text}");
        }
    }
}

#[test]
fn without_arguments_help_goes_to_stderr() {
    let output = Tool::new(&[]).run().expect_code(2);
    assert!(output.stdout.is_empty());
    assert!(output.stderr.contains("Usage:"));
}

#[test]
fn what_cannot_be_meant_is_a_usage_error_and_stdout_stays_empty() {
    for (arguments, word) in [
        (&["frobnicate"][..], "unrecognized subcommand"),
        (&["exprot", "redis://a"], "'export'"),
        (
            &["export", "redis://a", "--mach", "x"],
            "similar argument exists: '--match'",
        ),
        (
            &["export", "redis://a", "--consistency", "convrge"],
            "similar value exists: 'converge'",
        ),
        (&["export"], "SOURCE_REDIS_URL"),
        (&["import"], "DESTINATION_REDIS_URL"),
        (&["copy", "redis://a"], "DESTINATION_REDIS_URL"),
        (&["redis://a"], "DESTINATION_REDIS_URL"),
        (&["export", "http://a"], "unknown scheme http://"),
        (&["export", "localhost:6379"], "redis://localhost:6379"),
        (&["export", "redis-sentinel://a,b"], "which primary"),
        (&["export", "redis://a/x"], "not a number"),
        (&["export", "redis://a:99999"], "port"),
        (&["export", "redis://a", "--insecure"], "rediss://"),
        (&["export", "redis://a", "--user", "bob"], "password"),
        (&["export", "redis://a", "--level", "20"], "1..=19"),
        (
            &["export", "redis://a", "--min-size", "1x"],
            "is not a size",
        ),
        (
            &["export", "redis://a", "--min-ttl", "soon"],
            "not a duration",
        ),
        (&["export", "redis://a", "--frobnicate"], "unexpected"),
        (&["export", "redis://a", "-o", "/"], "is a directory"),
        (
            &["copy", "redis://a", "redis://b", "--askpass"],
            "--askpass",
        ),
        (
            &["import", "redis://a", "--map-db", "1"],
            "not a database map",
        ),
        (&["import", "redis://a", "/no/such/file"], "cannot open"),
        (&["import", "redis://a", "redis://b"], "is not a file"),
        (&["verify", "/no/such/file"], "cannot open"),
        (&["list", "/"], "is a directory"),
        (&["list", "--with-ttl", "--without-ttl"], "cannot be used"),
    ] {
        let output = Tool::new(arguments).run().expect_code(2);
        let (stdout, stderr) = (&output.stdout, &output.stderr);
        assert!(stderr.contains(word), "{arguments:?}: {stderr}");
        assert!(stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn the_flags_of_redis_cli_are_explained_and_the_file_stays_empty() {
    let directory = tempfile::tempdir().expect("a directory");
    for (arguments, word) in [
        (
            &["export", "-h", "127.0.0.1", "-p", "6379"][..],
            "redis://HOST:PORT",
        ),
        (&["export", "-h127.0.0.1"], "redis://HOST:PORT"),
        (&["copy", "-h", "localhost", "redis://b"], "-h is help"),
        (&["export", "redis://h", "-a", "hunter2"], "--askpass"),
        (&["import", "redis://h", "-n", "3"], "redis://HOST:PORT/N"),
        (&["export", "-u", "redis://u:hunter2@h"], "stands alone"),
        (
            &["doctor", "-p", "6379", "-h"],
            "the port belongs to the URL",
        ),
    ] {
        let file = directory.path().join("snap.rmz");
        let output = Tool::new(arguments).stdout_file(&file).run().expect_code(2);
        let stderr = &output.stderr;
        assert!(stderr.contains(word), "{arguments:?}: {stderr}");
        assert!(!stderr.contains("hunter2"), "{arguments:?}: {stderr}");
        assert_eq!(std::fs::read(&file).expect("there"), b"", "{arguments:?}");
    }
    for arguments in [
        &["export", "-h"][..],
        &["export", "redis://h", "-h"],
        &["-h", "export"],
    ] {
        let output = Tool::new(arguments).run().success();
        assert!(String::from_utf8_lossy(&output.stdout).contains("Usage:"));
    }
}

#[test]
fn verify_first_needs_a_file_that_can_be_read_twice() {
    let arguments = ["import", "redis://127.0.0.1:1", "--verify-first"];
    run(&arguments, &crate::cli::archives::small())
        .expect_code(2)
        .expect_stderr("regular file");
}

#[test]
fn a_server_that_is_not_there_exits_with_12() {
    for arguments in [
        &["export", "redis://127.0.0.1:1"][..],
        &["export", "unix:///no/such/socket"],
        &["export", "redis://no-such-host.invalid"],
        &["copy", "redis://127.0.0.1:1", "redis://127.0.0.1:1"],
    ] {
        let output = Tool::new(arguments).run().expect_code(12);
        assert!(output.stdout.is_empty());
        let errors = output.stderr.matches("error:").count();
        assert_eq!(errors, 1, "{}", output.stderr);
        assert!(output.stderr.contains("help:"), "{}", output.stderr);
    }
}

#[test]
fn the_old_form_means_copy_and_announces_what_the_environment_asks_for() {
    let output = Tool::new(&["redis://127.0.0.1:1", "redis://127.0.0.1:1"])
        .env("DRY_RUN", "1")
        .env("CLEAN_UP", "no")
        .env("REPLACE_DST_KEYS", "true")
        .run()
        .expect_code(12);
    for text in ["mean copy", "DRY_RUN is set", "REPLACE_DST_KEYS is set"] {
        assert!(output.stderr.contains(text), "{}", output.stderr);
    }
    assert!(!output.stderr.contains("CLEAN_UP"), "{}", output.stderr);
    let output = Tool::new(&["export", "redis://127.0.0.1:1"])
        .env("DRY_RUN", "1")
        .run()
        .expect_code(12);
    assert!(!output.stderr.contains("DRY_RUN"), "{}", output.stderr);
}

#[test]
fn a_journal_that_cannot_be_written_is_found_out_first() {
    let arguments = ["export", "redis://127.0.0.1:1", "--errors-to", "/no/dir/f"];
    Tool::new(&arguments)
        .run()
        .expect_code(2)
        .expect_stderr("--errors-to");
}
