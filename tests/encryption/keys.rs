//! Which keys open what, and what is said when none does.

use std::fs;

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;

use crate::encryption::{Case, seal, seal_with_passphrase, text, write_identity};
use crate::support::tool::{Output, Tool};

const READERS: [&[&str]; 11] = [
    &["verify"],
    &["verify", "--quick"],
    &["list"],
    &["inspect"],
    &["convert", "--to", "jsonl"],
    &["report", "--json"],
    &["extract", "--key", "plain"],
    &["salvage", "--plain"],
    &[
        "diff",
        concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/rdb/sample.rdb"),
    ],
    &["verify", "--against", "redis://127.0.0.1:1"],
    &["verify", "--quick", "--against", "redis://127.0.0.1:1"],
];

/// Nothing of what is inside: no more than the summary of `--json`.
#[track_caller]
fn told_nothing(arguments: &[&str], output: &Output) {
    if arguments.contains(&"--json") {
        assert_eq!(output.summary()["exit_code"], 11, "{arguments:?}");
        let lines = String::from_utf8_lossy(&output.stdout).lines().count();
        assert_eq!(lines, 1, "{arguments:?}");
    } else {
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn without_a_key_every_reader_exits_with_11_and_says_what_to_give() {
    let case = Case::small();
    for arguments in READERS {
        let output = Tool::new(arguments).arg(case.sealed_file()).run();
        let output = output
            .expect_code(11)
            .expect_stderr("is encrypted")
            .expect_stderr("--age-identity FILE");
        told_nothing(arguments, &output);
    }
    // A passphrase does not help either.
    let file = case.path("passphrase");
    fs::write(&file, "secret\n").expect("written");
    Tool::new(&["verify", "--age-passphrase-file", &text(&file)])
        .arg(case.sealed_file())
        .run()
        .expect_code(11)
        .expect_stderr("--age-identity FILE");
}

#[test]
fn a_wrong_identity_exits_with_11_and_the_right_one_may_stand_anywhere() {
    let case = Case::small();
    let wrong = case.path("wrong.txt");
    write_identity(&wrong, &Identity::generate());
    let wrong = text(&wrong);
    for arguments in READERS {
        let output = Tool::new(arguments)
            .arg(case.sealed_file())
            .arg("--age-identity")
            .arg(&wrong)
            .run()
            .expect_code(11)
            .expect_stderr("encrypted for others");
        told_nothing(arguments, &output);
    }
    let [flag, right] = case.key_flags();
    let sealed = text(&case.sealed_file());
    for order in [[&wrong, &right], [&right, &wrong]] {
        Tool::new(&["verify", &sealed, &flag, order[0], &flag, order[1]])
            .run()
            .success();
    }
    // Keys do no harm where nothing is encrypted.
    Tool::new(&["verify", &flag, &right])
        .stdin_bytes(case.plain.clone())
        .run()
        .success();
}

#[test]
fn a_passphrase_opens_and_a_wrong_one_exits_with_11() {
    let case = Case::small();
    let sealed = case.path("by-passphrase.age");
    fs::write(&sealed, seal_with_passphrase(&case.plain, "corréct horse")).expect("written");
    let file = case.path("passphrase");
    for (text_in_file, code) in [
        ("corréct horse\n", 0),
        ("corréct horse\r\n", 0),
        ("corréct horse", 0),
        ("corréct horse ", 11),
        ("other", 11),
    ] {
        fs::write(&file, text_in_file).expect("written");
        let output = Tool::new(&["verify", "--age-passphrase-file", &text(&file)])
            .arg(&sealed)
            .run()
            .expect_code(code);
        assert!(!output.stderr.contains("horse"), "{}", output.stderr);
    }
    Tool::new(&["verify"])
        .arg(&sealed)
        .run()
        .expect_code(11)
        .expect_stderr("--age-passphrase-file FILE");
    let [flag, key] = case.key_flags();
    Tool::new(&["verify", &flag, &key])
        .arg(&sealed)
        .run()
        .expect_code(11)
        .expect_stderr("passphrase");
}

#[test]
fn an_identity_file_may_be_encrypted_itself() {
    let case = Case::small();
    let plain = fs::read(case.identity_file()).expect("there");
    let (identity, passphrase) = (case.path("key.age"), case.path("passphrase"));
    fs::write(&identity, seal_with_passphrase(&plain, "open it")).expect("written");
    for (words, code) in [("open it", 0), ("wrong", 11)] {
        fs::write(&passphrase, words).expect("written");
        Tool::new(&["verify", "--age-identity", &text(&identity)])
            .args(&["--age-passphrase-file", &text(&passphrase)])
            .arg(case.sealed_file())
            .run()
            .expect_code(code);
    }
}

#[test]
fn files_that_hold_no_key_are_usage_errors_and_are_not_quoted() {
    let case = Case::small();
    let file = case.path("bad");
    let secret = case.identity.to_string();
    let secret = secret.expose_secret();
    for (content, word) in [
        ("# nothing\n".to_owned(), "holds no age identity"),
        (format!("x{secret}\n"), "line 1"),
        (
            "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n".to_owned(),
            "SSH keys",
        ),
    ] {
        fs::write(&file, content).expect("written");
        let output = Tool::new(&["verify", "--age-identity", &text(&file)])
            .arg(case.sealed_file())
            .run()
            .expect_code(2)
            .expect_stderr(word);
        assert!(!output.stderr.contains(&secret[20..]), "{}", output.stderr);
    }
    for flag in ["--age-identity", "--age-passphrase-file"] {
        Tool::new(&["verify", flag, "/no/such/file"])
            .arg(case.sealed_file())
            .run()
            .expect_code(2)
            .expect_stderr("/no/such/file");
    }
}

#[test]
fn recipients_that_are_none_are_usage_errors() {
    let case = Case::small();
    let secret = case.identity.to_string();
    let recipients = case.path("recipients");
    fs::write(&recipients, "# nobody\n\n").expect("written");
    let recipients = text(&recipients);
    for (flag, value, word) in [
        ("--age-recipient", "age1nonsense", "not a recipient"),
        ("--age-recipient", "ssh-ed25519 AAAA", "SSH keys"),
        ("--age-recipient", secret.expose_secret(), "private key"),
        (
            "--age-recipients-file",
            &recipients,
            "has no recipient in it",
        ),
    ] {
        let output = Tool::new(&["export", "redis://127.0.0.1:1", flag, value, "-o"])
            .arg(case.path("out"))
            .run()
            .expect_code(2)
            .expect_stderr(word);
        let leaked = output.stderr.contains(&secret.expose_secret()[20..]);
        assert!(!leaked, "{}", output.stderr);
        assert!(!case.path("out").exists());
    }
}

#[test]
fn a_file_of_two_recipients_opens_for_each() {
    let (case, other) = (Case::small(), Identity::generate());
    let recipients = [case.identity.to_public(), other.to_public()];
    let recipients = recipients.iter().map(|all| all as &dyn age::Recipient);
    let encryptor = age::Encryptor::with_recipients(recipients).expect("two recipients");
    let mut writer = encryptor.wrap_output(Vec::new()).expect("a vector");
    std::io::Write::write_all(&mut writer, &case.plain).expect("a vector");
    fs::write(case.sealed_file(), writer.finish().expect("a vector")).expect("written");
    let file = case.path("other.txt");
    write_identity(&file, &other);
    for identity in [case.identity_file(), file] {
        Tool::new(&["verify", "--age-identity", &text(&identity)])
            .arg(case.sealed_file())
            .run()
            .success();
    }
    assert_ne!(
        seal(&case.plain, &other),
        seal(&case.plain, &other),
        "a new file key each time"
    );
}
