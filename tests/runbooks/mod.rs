//! `docs/runbooks.md`, run as it is written: the blocks of each section one after the other, in one
//! shell, with real servers in the variables. `ssh` is stood in for: there is no other machine here.

mod graphs;
mod modules;
mod outside;
mod series;

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::cluster::TestCluster;
use crate::support::dataset::fill_every_type;
use crate::support::equality::{Options, assert_equal_with};
use crate::support::many::fill_many;
use crate::support::servers::{TestServer, Version, require, skipped};
use crate::support::tool;

const TEXT: &str = include_str!("../../docs/runbooks.md");

/// The blocks of commands in a text.
fn blocks(text: &str) -> Vec<&str> {
    let blocks = text.split("\n```sh\n").skip(1);
    blocks
        .map(|block| block.split("\n```").next().expect("its end"))
        .collect()
}

/// The blocks of a section.
fn section(name: &str) -> Vec<&'static str> {
    let heading = format!("\n## {name}\n");
    let (_, rest) = TEXT.split_once(&heading).expect("a section of that name");
    let blocks = blocks(rest.split("\n## ").next().expect("its text"));
    assert!(!blocks.is_empty(), "{name} has no commands");
    blocks
}

/// What is to be done before any section.
fn preamble() -> String {
    let (begin, _) = TEXT.split_once("\n## ").expect("a section");
    blocks(begin).join("\n")
}

/// Programs in front of all others: the tool as it was built, the client of a version, and a
/// machine far away that is this one.
fn programs(directory: &Path, version: Version) {
    let link = |name: &str, target: &Path| {
        std::os::unix::fs::symlink(target, directory.join(name)).expect("a link");
    };
    link("redis-migrate", tool::path());
    link("redis-cli", &version.program("cli"));
    let ssh = directory.join("ssh");
    std::fs::write(&ssh, "#!/bin/sh\nshift\nexec \"$@\"\n").expect("a script");
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).expect("its mode");
}

struct Run<'a> {
    section: &'a str,
    version: Version,
    old: String,
    new: String,
    /// Of the old and of the new server; empty for none.
    passwords: (&'a str, &'a str),
    /// Commands before those of the section.
    before: &'a str,
}

impl Run<'_> {
    /// Runs the section; what it said.
    fn run(self) -> String {
        let work = tempfile::tempdir().expect("a directory");
        let bin = tempfile::tempdir().expect("a directory");
        programs(bin.path(), self.version);
        let mut commands = String::from("set -euo pipefail\n");
        let _ = writeln!(commands, "{}\n{}", preamble(), self.before);
        let _ = writeln!(commands, "{}", section(self.section).join("\n"));
        let path = format!(
            "{}:{}",
            bin.path().display(),
            std::env::var("PATH").unwrap_or_default()
        );
        let output = Command::new("bash")
            .arg("-c")
            .arg(&commands)
            .current_dir(work.path())
            .env("PATH", path)
            .env("OLD", &self.old)
            .env("NEW", &self.new)
            .env("OLD_PASSWORD", self.passwords.0)
            .env("NEW_PASSWORD", self.passwords.1)
            .env_remove("SOURCE_REDIS_PASSWORD")
            .env_remove("DESTINATION_REDIS_PASSWORD")
            .env_remove("REDISCLI_AUTH")
            .stdin(Stdio::null())
            .output()
            .expect("bash runs");
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success(), "{}: {said}", self.section);
        said
    }
}

fn lenient() -> Options {
    Options {
        ignore_zero_sign: true,
        ..Options::default()
    }
}

#[test]
fn off_elasticache_across_two_vpns() {
    let (Some(from), Some(to)) = (require(Version::Redis70), require(Version::Valkey91)) else {
        return;
    };
    let old = TestServer::builder(from)
        .known_password("old-secret")
        .user("default on >old-secret ~* &* +@all -migrate -config -sync -psync -save -bgsave -debug -replicaof -slaveof -shutdown")
        .start();
    let new = TestServer::builder(to).password("new-secret").start();
    // Filled by somebody who may do more.
    fill_many(&mut old.client(), 5_000, 3);
    let said = Run {
        section: "An application off ElastiCache, across two VPNs",
        version: from,
        old: old.url(),
        new: new.url(),
        passwords: ("old-secret", "new-secret"),
        before: "",
    }
    .run();
    assert!(said.contains("exact as of"), "{said}");
    assert_equal_with(&mut old.client(), &mut new.client(), &lenient());
}

fn has_age(test: &str) -> bool {
    let has_age = Command::new("age-keygen")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    if !has_age {
        assert!(
            !crate::support::servers::is_ci(),
            "age-keygen is not installed"
        );
        skipped(&format!("{test}: age-keygen is not installed"));
    }
    has_age
}

#[test]
fn a_night_that_fails_keeps_the_old_backups() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    if !has_age("a_night_that_fails_keeps_the_old_backups") {
        return;
    }
    let old = TestServer::start(version);
    fill_many(&mut old.client(), 500, 3);
    let all = section("Nightly backups, and a drill");
    let night = all.iter().find(|block| block.contains("-delete"));
    let night = night.expect("the nightly lines");
    let work = tempfile::tempdir().expect("a directory");
    let bin = tempfile::tempdir().expect("a directory");
    programs(bin.path(), version);
    let path = format!(
        "{}:{}",
        bin.path().display(),
        std::env::var("PATH").unwrap_or_default()
    );
    // As somebody pastes them into a script of their own: without `set -e`.
    let run = |commands: &str, url: &str| {
        let output = Command::new("bash")
            .args(["-c", commands])
            .current_dir(work.path())
            .env("PATH", &path)
            .env("OLD", url)
            .stdin(Stdio::null())
            .output()
            .expect("bash runs");
        output.status.code()
    };
    assert_eq!(run(all[0], ""), Some(0));
    let kept = work.path().join("backups/2026-01-01.rmz.age");
    let is_kept = || kept.exists();
    let made = format!(
        "mkdir -p backups; touch -d '40 days ago' {}",
        kept.display()
    );
    assert_eq!(run(&made, ""), Some(0));
    // The server is not there; then its archive cannot be read through, for want of the key.
    assert_eq!(run(night, "redis://127.0.0.1:1"), Some(12));
    assert!(is_kept(), "no new backup, and the old one is gone");
    assert_eq!(
        run(
            "age-keygen -o other.txt && mv backup-identity.txt kept.txt",
            ""
        ),
        Some(0)
    );
    assert_eq!(run("cp other.txt backup-identity.txt", ""), Some(0));
    assert_eq!(run(night, &old.url()), Some(11));
    assert!(
        is_kept(),
        "the new backup is not proved, and the old one is gone"
    );
    assert_eq!(run("mv kept.txt backup-identity.txt", ""), Some(0));
    assert_eq!(run(night, &old.url()), Some(0));
    assert!(!is_kept(), "after a good night the old one goes");
}

#[test]
fn nightly_backups_and_a_drill() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    if !has_age("nightly_backups_and_a_drill") {
        return;
    }
    let (old, new) = (TestServer::start(version), TestServer::start(version));
    fill_every_type(&mut old.client(), version);
    Run {
        section: "Nightly backups, and a drill",
        version,
        old: old.url(),
        new: new.url(),
        passwords: ("", ""),
        before: "",
    }
    .run();
    assert_equal_with(&mut old.client(), &mut new.client(), &lenient());
}

#[test]
fn from_redis_8_to_valkey() {
    for to in [Version::Valkey81, Version::Valkey91] {
        let (Some(from), Some(to)) = (require(Version::Redis80), require(to)) else {
            continue;
        };
        let (old, new) = (TestServer::start(from), TestServer::start(to));
        fill_every_type(&mut old.client(), from);
        Run {
            section: "From Redis 8 to Valkey",
            version: from,
            old: old.url(),
            new: new.url(),
            passwords: ("", ""),
            before: "",
        }
        .run();
        let options = Options {
            ignore_field_ttl: !to.has_field_ttl(),
            ..lenient()
        };
        assert_equal_with(&mut old.client(), &mut new.client(), &options);
    }
}

#[test]
fn switching_over_with_seconds_of_downtime() {
    let (Some(from), Some(to)) = (require(Version::Redis70), require(Version::Redis80)) else {
        return;
    };
    let (old, new) = (TestServer::start(from), TestServer::start(to));
    fill_many(&mut old.client(), 5_000, 4);
    Run {
        section: "Switching over with seconds of downtime",
        version: from,
        old: old.url(),
        new: new.url(),
        passwords: ("", ""),
        before: "",
    }
    .run();
    assert_equal_with(&mut old.client(), &mut new.client(), &lenient());
}

#[test]
fn cluster_to_cluster() {
    let (Some(from), Some(to)) = (require(Version::Redis70), require(Version::Valkey91)) else {
        return;
    };
    let (old, new) = (TestCluster::start(from, 3, 0), TestCluster::start(to, 3, 0));
    let keys = (0..2_000).map(|n| format!("set key:{n} {n}\n"));
    let input: String = keys.collect();
    let before = format!(
        "redis-cli -c -u \"$OLD\" > filled.txt <<'END'\n{input}END\n! grep -v '^OK$' filled.txt"
    );
    Run {
        section: "Cluster to cluster",
        version: from,
        old: old.url(),
        new: new.url(),
        passwords: ("", ""),
        before: &before,
    }
    .run();
    let size = |cluster: &TestCluster| -> u64 {
        let count = |node: &TestServer| -> u64 {
            redis::cmd("DBSIZE")
                .query(&mut node.client())
                .expect("DBSIZE")
        };
        cluster.primaries().iter().map(count).sum()
    };
    assert_eq!((size(&old), size(&new)), (2_000, 2_000));
}

#[test]
fn a_damaged_archive() {
    let (Some(from), Some(to)) = (require(Version::Redis70), require(Version::Valkey81)) else {
        return;
    };
    let (old, new) = (
        TestServer::builder(from).password("old-secret").start(),
        TestServer::builder(to).password("new-secret").start(),
    );
    fill_many(&mut old.client(), 60_000, 5);
    let said = Run {
        section: "A damaged archive",
        version: from,
        old: old.url(),
        new: new.url(),
        passwords: ("old-secret", "new-secret"),
        // One byte in the middle, which is in the middle of a frame.
        before: "redis-migrate export \"$OLD\" -o broken.rmz
size=$(stat -c %s broken.rmz)
printf '\\377' | dd of=broken.rmz bs=1 seek=$((size / 2)) conv=notrunc status=none",
    }
    .run();
    assert!(
        said.contains("exit 10") && said.contains("exit 3"),
        "{said}"
    );
    assert_equal_with(&mut old.client(), &mut new.client(), &lenient());
}
