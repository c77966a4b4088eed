//! The age program reads what the tool writes, and the tool what the age program writes.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::encryption::{Case, text};
use crate::support::servers::{TestServer, Version, is_ci, require, skipped};
use crate::support::tool::Tool;

fn age_is_here() -> bool {
    let here = Command::new("age").arg("--version").output().is_ok();
    assert!(here || !is_ci(), "the age program is not installed");
    if !here {
        skipped("the age program is not installed");
    }
    here
}

fn age(arguments: &[&str], input: &Path) -> Vec<u8> {
    let output = Command::new("age")
        .args(arguments)
        .arg(input)
        .output()
        .expect("age runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    output.stdout
}

#[test]
fn what_age_wrote_is_read() {
    if !age_is_here() {
        return;
    }
    let case = Case::small();
    let plain = case.path("plain");
    fs::write(&plain, &case.plain).expect("written");
    let recipient = case.identity.to_public().to_string();
    let [flag, key] = case.key_flags();
    for arguments in [&["-r", &recipient][..], &["-a", "-r", &recipient]] {
        Tool::new(&["verify", &flag, &key])
            .stdin_bytes(age(arguments, &plain))
            .run()
            .success();
    }
}

#[test]
fn age_reads_what_an_export_wrote() {
    if !age_is_here() {
        return;
    }
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    let _: () = redis::cmd("SET")
        .arg("k")
        .arg("v")
        .query(&mut server.client())
        .expect("set");
    let case = Case::small();
    let out = case.path("out.age");
    let recipient = case.identity.to_public().to_string();
    Tool::new(&["export", &server.url(), "--age-recipient", &recipient])
        .args(&["-o", &text(&out)])
        .run()
        .success();
    let plain = age(&["-d", "-i", &text(&case.identity_file())], &out);
    let listed = Tool::new(&["list"]).stdin_bytes(plain).run().success();
    assert!(String::from_utf8_lossy(&listed.stdout).contains("\"k\""));
}
