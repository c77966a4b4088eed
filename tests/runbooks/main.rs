//! `docs/runbooks.md`, run as it is written: the blocks of each section one after the other, in one
//! shell, with real servers in the variables. `ssh` is stood in for: there is no other machine here.

#[path = "../support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use support::cluster::TestCluster;
use support::dataset::fill_every_type;
use support::equality::{Options, assert_equal_with};
use support::many::fill_many;
use support::servers::{TestServer, Version, require, skipped};
use support::tool;

/// The commands of a section, in order.
fn script(section: &str) -> String {
    let text = include_str!("../../docs/runbooks.md");
    let heading = format!("\n## {section}\n");
    let (_, rest) = text.split_once(&heading).expect("a section of that name");
    let body = rest.split("\n## ").next().expect("its text");
    let blocks: Vec<&str> = body
        .split("\n```sh\n")
        .skip(1)
        .map(|block| block.split("\n```").next().expect("its end"))
        .collect();
    assert!(!blocks.is_empty(), "{section} has no commands");
    blocks.join("\n")
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
        let _ = writeln!(commands, "{}\n{}", self.before, script(self.section));
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
        .user("default on nopass ~* &* +@all -migrate -config -sync -psync -save -bgsave -debug -replicaof -slaveof -shutdown")
        .start();
    let new = TestServer::start(to);
    // Filled by somebody who may do more.
    fill_many(&mut old.client(), 5_000, 3);
    let said = Run {
        section: "An application off ElastiCache, across two VPNs",
        version: from,
        old: old.url(),
        new: new.url(),
        before: "",
    }
    .run();
    assert!(said.contains("exact as of"), "{said}");
    assert_equal_with(&mut old.client(), &mut new.client(), &lenient());
}

#[test]
fn nightly_backups_and_a_drill() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let has_age = Command::new("age-keygen")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    if !has_age {
        assert!(!support::servers::is_ci(), "age-keygen is not installed");
        skipped("nightly_backups_and_a_drill: age-keygen is not installed");
        return;
    }
    let (old, new) = (TestServer::start(version), TestServer::start(version));
    fill_every_type(&mut old.client(), version);
    Run {
        section: "Nightly backups, and a drill",
        version,
        old: old.url(),
        new: new.url(),
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
    let (old, new) = (TestServer::start(from), TestServer::start(to));
    fill_many(&mut old.client(), 60_000, 5);
    let said = Run {
        section: "A damaged archive",
        version: from,
        old: old.url(),
        new: new.url(),
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
