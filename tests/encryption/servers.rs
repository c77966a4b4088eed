//! From a server into an encrypted archive, and from there into another.

use std::fs;

use crate::encryption::Case;
use crate::encryption::readers::sha256;
use crate::encryption::text;
use crate::support::dataset::fill_every_type;
use crate::support::equality::assert_equal;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, Tool};

fn summary(output: &Output) -> serde_json::Value {
    output.summary()
}

#[test]
fn everything_comes_back_and_the_digest_is_that_of_the_file() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (from, to) = (TestServer::start(version), TestServer::start(version));
    fill_every_type(&mut from.client(), version);
    let case = Case::small();
    let out = text(&case.path("out.age"));
    let recipients = case.path("recipients");
    let lines = format!("# us\n\n{}\n", case.identity.to_public());
    fs::write(&recipients, lines).expect("written");
    let exported = Tool::new(&["export", &from.url(), "-o", &out, "--json"])
        .args(&["--age-recipients-file", &text(&recipients)])
        .run()
        .success();
    let archive = &summary(&exported)["archive"];
    assert_eq!(archive["encrypted"], true);
    assert_eq!(archive["sha256"], sha256(&case.path("out.age")));
    let size = fs::metadata(&out).expect("there").len();
    assert_eq!(archive["bytes"], size);
    assert!(
        fs::read(&out)
            .expect("there")
            .starts_with(b"age-encryption.org/v1\n")
    );

    Tool::new(&["import", &to.url(), &out])
        .run()
        .expect_code(11);
    let [flag, key] = case.key_flags();
    for arguments in [
        &["import", "--dry-run"][..],
        &["import", "--verify-first"],
        &["doctor"],
    ] {
        let mut arguments = arguments.to_vec();
        let url = to.url();
        arguments.extend([url.as_str(), &out, &flag, &key]);
        Tool::new(&arguments).run().success();
    }
    assert_equal(&mut from.client(), &mut to.client());
}

#[test]
fn a_passphrase_file_encrypts_and_a_pipe_carries_it() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (from, to) = (TestServer::start(version), TestServer::start(version));
    fill_every_type(&mut from.client(), version);
    let case = Case::small();
    let file = case.path("passphrase");
    fs::write(&file, "correct horse\n").expect("written");
    let flags = ["--age-passphrase-file", &text(&file)];
    let exported = Tool::new(&["export", &from.url()])
        .args(&flags)
        .run()
        .success();
    assert!(
        exported.stderr.contains(", encrypted, "),
        "{}",
        exported.stderr
    );
    Tool::new(&["import", &to.url()])
        .args(&flags)
        .stdin_bytes(exported.stdout)
        .run()
        .success();
    assert_equal(&mut from.client(), &mut to.client());
}
