//! Every source version into every destination version, every type and encoding: restored and equal
//! by meaning, or refused for a loss that is named and that can then be allowed.

use crate::support::dataset::{fill_every_type, fill_vector_sets};
use crate::support::equality::{Options, differences};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, run};

/// How one pair ended, for the table in the README.
struct Cell {
    keys: u64,
    restamped: u64,
    reencoded: u64,
    refused: u64,
}

fn summary(output: &Output) -> serde_json::Value {
    output.summary()
}

fn loses_field_ttls(from: Version, to: Version) -> bool {
    from.has_field_ttl() && !to.has_field_ttl()
}

fn loses_functions(from: Version, to: Version) -> bool {
    from.is_at_least_7() && !to.is_at_least_7()
}

fn options(from: Version, to: Version) -> Options {
    Options {
        functions: !loses_functions(from, to),
        ignore_field_ttl: loses_field_ttls(from, to),
        // Which zero a small sorted set shows depends on the version.
        ignore_zero_sign: true,
        ..Options::default()
    }
}

fn flush(server: &TestServer) {
    redis::cmd("FLUSHALL").exec(&mut server.client()).unwrap();
    if server.version().is_at_least_7() {
        redis::cmd("FUNCTION")
            .arg("FLUSH")
            .exec(&mut server.client())
            .unwrap();
    }
}

/// `copy` and `import` from one source into one destination.
fn pair(source: &TestServer, archive: &[u8], destination: &TestServer) -> Cell {
    let (from, to) = (source.version(), destination.version());
    let (source_url, url) = (source.url(), destination.url());
    let lossy = loses_field_ttls(from, to) || loses_functions(from, to);
    let mut cell = None;
    for by_copy in [false, true] {
        flush(destination);
        let go = |flags: &[&str]| match by_copy {
            true => run(
                &[&["copy", &source_url, &url, "--json", "--replace"], flags].concat(),
                b"",
            ),
            false => run(
                &[&["import", &url, "--json", "--replace"], flags].concat(),
                archive,
            ),
        };
        let mut output = go(&[]);
        let first = summary(&output);
        if lossy {
            // Refused by name, everything else restored.
            output = output.expect_code(3);
            if loses_field_ttls(from, to) {
                assert!(
                    output.stderr.contains("--allow-loss hash-field-ttl"),
                    "{}",
                    output.stderr
                );
            }
            go(&["--allow-loss", "hash-field-ttl,functions"]).success();
        } else {
            output.success();
        }
        let found = differences(
            &mut source.client(),
            &mut destination.client(),
            &options(from, to),
        );
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert!(
            lines.is_empty(),
            "{from} to {to}, copy {by_copy}:\n{}",
            lines.join("\n")
        );
        let count = |name: &str| first["sink"][name].as_u64().unwrap_or(0);
        let change = |name: &str| first["sink"]["changes"][name].as_u64().unwrap_or(0);
        cell = Some(Cell {
            keys: count("taken"),
            restamped: change("restamped"),
            reencoded: change("reencoded"),
            refused: count("refused"),
        });
    }
    cell.expect("both ways were run")
}

/// The versions of the table: with MATRIX=all (`make matrix-all`) all that are there.
fn servers_of_the_table() -> Vec<TestServer> {
    let versions = match std::env::var("MATRIX").is_ok_and(|which| which == "all") {
        true => Version::SOURCES.to_vec(),
        false => [&[Version::Redis62], &Version::MATRIX[..]].concat(),
    };
    let there = versions.into_iter().filter_map(require);
    there.map(TestServer::start).collect()
}

/// Prints the table that stands in the README.
#[test]
fn every_version_into_every_version() {
    let servers = servers_of_the_table();
    let destinations: Vec<&TestServer> = servers
        .iter()
        .filter(|server| Version::DESTINATIONS.contains(&server.version()))
        .collect();
    let mut table = String::from("| from \\ to |");
    for server in &destinations {
        table.push_str(&format!(" {} |", server.version()));
    }
    table.push_str(&format!("\n|---{}|\n", "|---".repeat(destinations.len())));
    for source in &servers {
        let version = source.version();
        flush(source);
        let entries = fill_every_type(&mut source.client(), version);
        let least = if version.has_streams() { 45 } else { 40 };
        assert!(entries.len() >= least, "{} keys", entries.len());
        let archive = run(&["export", &source.url()], b"").success().stdout;
        table.push_str(&format!("| **{version}** |"));
        for destination in &destinations {
            if destination.version() == version {
                table.push_str(" same version |");
                continue;
            }
            let cell = pair(source, &archive, destination);
            let refused = match cell.refused {
                0 => String::new(),
                count => format!(", {count} need `--allow-loss`"),
            };
            table.push_str(&format!(
                " {} of {}: {} as they are, {} re-stamped, {} re-encoded{refused} |",
                cell.keys - cell.refused,
                cell.keys,
                cell.keys - cell.restamped - cell.reencoded - cell.refused,
                cell.restamped,
                cell.reencoded,
            ));
        }
        table.push('\n');
    }
    println!("{table}");
}

/// The payloads of vector sets are a module's: they travel as they are between servers that know
/// them, and are never sent to one that does not.
#[test]
fn vector_sets_travel_only_to_servers_that_know_them() {
    let Some(version) = require(Version::Redis80) else {
        return;
    };
    let source = TestServer::start(version);
    let entries = fill_vector_sets(&mut source.client(), version);
    if entries.is_empty() {
        crate::support::servers::skipped("vector sets: this Redis 8 has none");
        return;
    }
    let archive = run(&["export", &source.url()], b"").success().stdout;
    let same = TestServer::start(version);
    run(&["import", &same.url()], &archive).success();
    let card = |server: &TestServer| -> u64 {
        redis::cmd("VCARD")
            .arg("vectorset")
            .query(&mut server.client())
            .unwrap()
    };
    assert_eq!(card(&source), card(&same));
    for version in Version::MATRIX
        .into_iter()
        .filter(|&version| version != Version::Redis80)
    {
        let Some(version) = require(version) else {
            continue;
        };
        let mut other = TestServer::start(version);
        run(&["import", &other.url()], &archive)
            .expect_code(3)
            .expect_stderr("vectorset");
        assert!(other.is_running(), "{version}");
    }
}

/// Everything in universal forms, into the same version: equal all the same.
#[test]
fn a_sanitized_import_is_equal() {
    for version in Version::MATRIX {
        let Some(version) = require(version) else {
            continue;
        };
        let (source, destination) = (TestServer::start(version), TestServer::start(version));
        fill_every_type(&mut source.client(), version);
        let archive = run(&["export", &source.url()], b"").success().stdout;
        let output = run(
            &["import", &destination.url(), "--sanitize", "--json"],
            &archive,
        )
        .success();
        assert!(
            summary(&output)["sink"]["changes"]["reencoded"]
                .as_u64()
                .unwrap_or(0)
                > 20
        );
        let found = differences(
            &mut source.client(),
            &mut destination.client(),
            &Options {
                ignore_zero_sign: true,
                ..Options::default()
            },
        );
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert!(lines.is_empty(), "{version}:\n{}", lines.join("\n"));
    }
}

/// Without the right to try, the version decides.
#[test]
fn a_destination_that_cannot_be_tried_out_goes_by_its_version() {
    let (Some(new), Some(old)) = (require(Version::Redis80), require(Version::Redis70)) else {
        return;
    };
    let (source, destination) = (TestServer::start(new), TestServer::start(old));
    for n in 0..20 {
        redis::cmd("SET")
            .arg(format!("user:{n}"))
            .arg("v")
            .exec(&mut source.client())
            .unwrap();
        redis::cmd("SADD")
            .arg(format!("user:set:{n}"))
            .arg("a")
            .arg("b")
            .exec(&mut source.client())
            .unwrap();
    }
    // Within its key pattern RESTORE can be tried, on a name that begins like the first key.
    let acl = ["SETUSER", "limited", "on", ">pw", "~user:*", "+@all"];
    redis::cmd("ACL")
        .arg(&acl[..])
        .exec(&mut destination.client())
        .unwrap();
    let limited = format!("redis://limited:pw@127.0.0.1:{}", destination.port());
    run(&["copy", &source.url(), &limited], b"").success();
    let found = differences(
        &mut source.client(),
        &mut destination.client(),
        &Options::default(),
    );
    assert!(found.is_empty(), "{found:?}");
}
