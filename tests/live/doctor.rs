//! `doctor`: that it tells the truth, that its rules are enough, and that it leaves no trace.

use serde_json::Value;

use crate::live::archives::{archive, string};
use crate::support::dataset::fill_every_type;
use crate::support::equality::{Options, differences};
use crate::support::servers::{TestServer, Version, available, require};
use crate::support::tool::{Output, Tool, run};

/// The report about a server, as JSON.
fn report(arguments: &[&str], code: i32) -> Value {
    let mut all = vec!["doctor", "--json"];
    all.extend(arguments);
    json(&run(&all, b"").expect_code(code))
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no text at {pointer} in {value:#}"))
}

fn access<'a>(report: &'a Value, name: &str) -> &'a str {
    let commands = report["commands"].as_array().expect("commands");
    let row = commands.iter().find(|row| row["name"] == name);
    text(row.unwrap_or_else(|| panic!("no {name}")), "/access")
}

fn verdict<'a>(report: &'a Value, job: &str, about: &str) -> &'a str {
    let promises = report[job]["promises"].as_array().expect("promises");
    let row = promises.iter().find(|row| row["about"] == about);
    text(
        row.unwrap_or_else(|| panic!("nothing about {about} in {promises:#?}")),
        "/verdict",
    )
}

/// Makes a user with this rule; its URL.
pub fn user(server: &TestServer, name: &str, rule: &str) -> String {
    let mut set = redis::cmd("ACL");
    set.arg("SETUSER").arg(name).arg("on").arg(">pw");
    set.arg(rule.split(' ').collect::<Vec<_>>());
    set.exec(&mut server.client())
        .unwrap_or_else(|error| panic!("{}: {rule}: {error}", server.version()));
    format!("redis://{name}:pw@127.0.0.1:{}", server.port())
}

/// A key of several records is one key.
#[test]
fn keys_of_an_archive_are_counted_and_not_records() {
    let Some(server) = require(Version::Redis70).map(TestServer::start) else {
        return;
    };
    let (one, two) = (string("one", "v"), string("two", "v"));
    let bytes = archive(&[vec![one.clone(), two], vec![one]]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.rmz");
    std::fs::write(&file, bytes).unwrap();
    let doctor = ["doctor", &server.url(), file.to_str().unwrap()];
    let output = run(&doctor, b"").success();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("2 keys in 3 records"), "{text}");
}

#[test]
fn every_server_of_the_matrix_is_described_as_it_is() {
    for version in available() {
        let server = TestServer::start(version);
        fill_every_type(&mut server.client(), version);
        let report = report(&[&server.url()], 0);
        let family = if version.is_valkey() {
            "Valkey"
        } else {
            "Redis"
        };
        assert_eq!(text(&report, "/server/family"), family);
        assert_eq!(text(&report, "/server/version"), version.exact());
        assert_eq!(report["accepts"]["probed"], true);
        let versions = report["accepts"]["rdb_versions"].as_array().unwrap();
        let own = Value::from(version.rdb_version());
        assert_eq!(versions.last(), Some(&own), "{version}");
        let databases = report["server"]["databases"].as_array().unwrap();
        let numbers: Vec<u64> = databases
            .iter()
            .flat_map(|row| row["db"].as_u64())
            .collect();
        assert_eq!(numbers, [0, 1, 3, 9, 15], "{version}");
        assert_eq!(report["export"]["possible"], true);
        assert_eq!(report["import"]["possible"], true);
        assert_eq!(
            report["server"]["limits"]["proto_max_bulk_len"],
            536_870_912
        );
        for name in [
            "SCAN",
            "DUMP",
            "RESTORE",
            "DEL",
            "MULTI, EXEC",
            "CONFIG GET",
        ] {
            assert_eq!(access(&report, name), "yes", "{version}");
        }
        let functions = if version.is_at_least_7() {
            "yes"
        } else {
            "not there"
        };
        for name in [
            "FUNCTION DUMP",
            "FUNCTION RESTORE",
            "FUNCTION LOAD",
            "PEXPIRETIME",
        ] {
            assert_eq!(access(&report, name), functions, "{version}, {name}");
        }
        let field_expiry = if version.has_field_ttl() {
            "yes"
        } else {
            "less"
        };
        assert_eq!(verdict(&report, "import", "field expiry"), field_expiry);
        // The same for people.
        let output = run(&["doctor", &server.url()], b"").success();
        let shown = String::from_utf8(output.stdout).unwrap();
        for part in [
            family,
            &version.exact(),
            "No temporary keys",
            "export, least",
        ] {
            assert!(shown.contains(part), "{version}: no {part:?} in\n{shown}");
        }
    }
}

/// What every write would change.
fn traces(server: &TestServer) -> (u64, String) {
    let mut client = server.client();
    let size = redis::cmd("DBSIZE").query(&mut client).unwrap();
    let info: String = redis::cmd("INFO").query(&mut client).unwrap();
    let fact = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name));
        line.unwrap_or_default().to_owned()
    };
    let facts = [
        "rdb_changes_since_last_save:",
        "expired_keys:",
        "total_blocking_keys:",
    ];
    (size, facts.map(fact).join(" "))
}

#[test]
fn nothing_is_written_and_nobody_is_held_up() {
    for version in available() {
        let server = TestServer::start(version);
        fill_every_type(&mut server.client(), version);
        let archive = run(&["export", &server.url()], b"").success().stdout;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), archive).unwrap();
        let before = traces(&server);
        report(&[&server.url(), file.path().to_str().unwrap()], 0);
        assert_eq!(traces(&server), before, "{version}");
        // A pause would hold this up.
        redis::cmd("SET")
            .arg("k")
            .arg("v")
            .exec(&mut server.client())
            .unwrap();
    }
}

/// Users with exactly the rights that are printed, least and full: everything moves.
#[test]
fn the_printed_rules_are_enough() {
    for version in available() {
        let (source, destination) = (TestServer::start(version), TestServer::start(version));
        fill_every_type(&mut source.client(), version);
        let report_there = report(&[&source.url()], 0);
        for kind in ["least", "full"] {
            redis::cmd("FLUSHALL")
                .exec(&mut destination.client())
                .unwrap();
            let rule = |job: &str| text(&report_there, &format!("/{job}/acl_{kind}")).to_owned();
            let exporter = user(&source, "exporter", &rule("export"));
            let importer = user(&destination, "importer", &rule("import"));
            // With all that is made use of, it has to be exact, or the code is 4.
            let flags: &[&str] = match (kind, version.is_at_least_7()) {
                ("full", true) => &["--eviction", "--consistency=converge", "--functions"],
                ("full", false) => &["--eviction", "--consistency=converge"],
                _ => &["--no-functions"],
            };
            let export = Tool::new(&["export", &exporter]);
            let export = flags
                .iter()
                .fold(export, |tool, flag| tool.arg(flag))
                .run()
                .success();
            let import = run(&["import", &importer], &export.stdout).success();
            if kind == "full" {
                for output in [&export, &import] {
                    assert!(
                        !output.stderr.contains("refuses"),
                        "{version}: {}",
                        output.stderr
                    );
                }
            }
            let options = Options {
                functions: kind == "full",
                ttl_tolerance_ms: (kind == "least").then_some(1000),
                ..Options::default()
            };
            let found = differences(&mut source.client(), &mut destination.client(), &options);
            assert!(found.is_empty(), "{version}, {kind}: {found:?}");
            // As that user, doctor sees what it needs, and only that.
            let seen = report(&[&exporter], 0);
            assert_eq!(seen["export"]["possible"], true, "{version}, {kind}");
            assert_eq!(seen["import"]["possible"], false, "{version}, {kind}");
            assert_eq!(access(&seen, "RESTORE"), "refused", "{version}, {kind}");
            let seen = report(&[&importer], 0);
            assert_eq!(seen["import"]["possible"], true, "{version}, {kind}");
            assert_eq!(seen["export"]["possible"], false, "{version}, {kind}");
            assert_eq!(seen["accepts"]["probed"], true, "{version}, {kind}");
        }
    }
}

#[test]
fn the_printed_rule_without_restore_is_enough() {
    for version in available() {
        let (source, destination) = (TestServer::start(version), TestServer::start(version));
        fill_every_type(&mut source.client(), version);
        let rule = report(&[&source.url()], 0);
        let writer = user(&destination, "writer", text(&rule, "/acl_without_restore"));
        let seen = report(&[&writer], 0);
        assert_eq!(access(&seen, "RESTORE"), "refused", "{version}");
        assert_eq!(access(&seen, "native commands"), "yes", "{version}");
        assert_eq!(seen["import"]["possible"], true, "{version}");
        let export = run(&["export", &source.url(), "--no-functions"], b"").success();
        run(&["import", &writer], &export.stdout).success();
        let options = Options {
            functions: false,
            ignore_zero_sign: true,
            ..Options::default()
        };
        let mut found = differences(&mut source.client(), &mut destination.client(), &options);
        // No command sets when a consumer was last seen.
        found.retain(|found| !found.detail.contains("seen-time"));
        found.retain(|found| !found.detail.contains("active-time"));
        assert!(found.is_empty(), "{version}: {found:?}");
    }
}

/// An archive of the newest for the oldest: what doctor foretells is what an import does.
#[test]
fn what_an_archive_needs_is_foretold_as_it_comes() {
    for version in available() {
        let source = TestServer::start(version);
        fill_every_type(&mut source.client(), version);
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        run(
            &["export", &source.url(), "-o", path, "--no-functions"],
            b"",
        )
        .success();
        for there in available() {
            let destination = TestServer::start(there);
            let loses = version.has_field_ttl() && !there.has_field_ttl();
            let code = if loses { 3 } else { 0 };
            let foretold = report(&[&destination.url(), path], code);
            let size: u64 = redis::cmd("DBSIZE")
                .query(&mut destination.client())
                .unwrap();
            assert_eq!(size, 0, "nothing was written");
            let import = run(&["import", &destination.url(), path, "--json"], b"");
            let import = import.expect_code(code);
            let summary: Value = import.summary();
            let sum = |name: &str| -> u64 {
                let types = foretold["archive"]["by_type"].as_object().unwrap();
                types
                    .values()
                    .map(|fates| fates[name].as_u64().unwrap())
                    .sum()
            };
            let pair = format!("{version} to {there}: {summary:#}");
            assert_eq!(
                sum("refused"),
                summary["sink"]["refused"].as_u64().unwrap(),
                "{pair}"
            );
            let changes = &summary["sink"]["changes"];
            assert_eq!(
                sum("restamped"),
                changes["restamped"].as_u64().unwrap(),
                "{pair}"
            );
            assert_eq!(
                sum("reencoded"),
                changes["reencoded"].as_u64().unwrap(),
                "{pair}"
            );
            let reasons = foretold["archive"]["reasons"].as_array().unwrap();
            assert_eq!(reasons.len(), usize::from(loses), "{reasons:#?}");
            assert!(
                reasons
                    .iter()
                    .all(|row| row["allow_loss"] == "hash-field-ttl")
            );
        }
    }
}

#[test]
fn leftovers_of_killed_runs_are_named() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    let mut client = server.client_db(3);
    for n in 0..5000 {
        redis::cmd("SET").arg(n).arg("v").exec(&mut client).unwrap();
    }
    let name = "__redis-migrate:tmp:1:2";
    redis::cmd("SET")
        .arg(name)
        .arg("v")
        .exec(&mut client)
        .unwrap();
    let report = report(&[&server.url()], 0);
    assert_eq!(report["leftovers"]["found"], 1);
    assert_eq!(report["leftovers"]["complete"], true);
    assert_eq!(report["leftovers"]["keys"][0]["db"], 3);
    assert_eq!(text(&report, "/leftovers/keys/0/key"), format!("{name:?}"));
}

#[test]
fn replicas_full_servers_and_cluster_nodes_are_no_destinations() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let full = TestServer::builder(version)
        .option("--maxmemory", "1")
        .start();
    let seen = report(&[&full.url()], 0);
    assert_eq!(seen["import"]["possible"], false);
    assert_eq!(access(&seen, "RESTORE"), "not now");
    assert_eq!(access(&seen, "DEL"), "yes");

    let primary = TestServer::start(version);
    let replica = TestServer::builder(version)
        .args(["--replicaof", "127.0.0.1", &primary.port().to_string()])
        .start();
    let seen = report(&[&replica.url()], 0);
    assert_eq!(seen["import"]["possible"], false);
    assert_eq!(verdict(&seen, "import", "role"), "no");

    // CLUSTERDOWN: an import ends with 1, too.
    let node = TestServer::builder(version).cluster().start();
    let seen = report(&[&node.url(), "--retry-for", "1"], 1);
    assert_eq!(seen["server"]["cluster"], true);
    let file = tempfile::NamedTempFile::new().unwrap();
    let archive = file.path().to_str().unwrap();
    run(&["export", &primary.url(), "-o", archive], b"").success();
    run(&["import", &node.url(), archive], b"").expect_code(1);
    report(&[&node.url(), archive, "--retry-for", "1"], 1);
    assert_eq!(seen["export"]["possible"], false);
    assert_eq!(seen["import"]["possible"], false);
}

#[test]
fn a_user_of_some_keys_is_tried_on_names_of_its_own() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    let url = user(&server, "limited", "~user:* +@all");
    let seen = report(&[&url], 0);
    assert_eq!(access(&seen, "RESTORE"), "some keys");
    assert_eq!(seen["accepts"]["probed"], false);
    let seen = report(&[&url, "--prefix", "user:"], 0);
    assert_eq!(seen["accepts"]["probed"], true);
}

#[test]
fn errors_are_those_of_every_verb() {
    run(&["doctor", "redis://127.0.0.1:1"], b"").expect_code(12);
    run(&["doctor"], b"")
        .expect_code(2)
        .expect_stderr("no DEST");
    run(&["doctor", "snap.rmz"], b"").expect_code(2);
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::builder(version).password("s3cret").start();
    run(&["doctor", &server.url()], b"").expect_code(12);
    let url = format!("redis://:s3cret@127.0.0.1:{}", server.port());
    let output = run(&["doctor", &url], b"").success();
    assert!(!String::from_utf8_lossy(&output.stdout).contains("s3cret"));
    Tool::new(&["doctor", "--source"])
        .env("SOURCE_REDIS_URL", &server.url())
        .env("SOURCE_REDIS_PASSWORD", "s3cret")
        .run()
        .success();
    run(&["doctor", &url, "-"], b"no archive").expect_code(10);
    run(&["doctor", &url, "/no/such/file"], b"").expect_code(2);
}
