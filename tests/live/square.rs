//! The square of versions: each source into each destination, by archive, by copy, from a replica's
//! snapshot and from an RDB file. Equal by meaning, with losses by name only; a second run and
//! `--verify` find nothing to do.
//!
//! `make square` runs all of it and writes `docs/versions.md`. Otherwise a part of it is run in which
//! each version is a source and a destination, and each meets its neighbours and the newest of both
//! families.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redis_migrate_payload::dialect::{Dialect, Family, Feature, Proof, RELEASES, Release};

use crate::support::dataset::{fill_every_type, fill_vector_sets};
use crate::support::equality::{Options, compare};
use crate::support::reading::Side;
use crate::support::servers::{TestServer, Version, every_available, require};
use crate::support::tool::{Output, run};

/// How the data goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Archive,
    Copy,
    Replica,
    RdbFile,
}

impl Way {
    const ALL: [Self; 4] = [Self::Archive, Self::Copy, Self::Replica, Self::RdbFile];
}

/// A source with its data, and what was made of it beforehand.
struct Source {
    server: TestServer,
    keys: u64,
    archive: Vec<u8>,
    rdb: PathBuf,
}

impl Source {
    fn of(version: Version) -> Self {
        let mut builder = TestServer::builder(version);
        if version.is_at_least(3, 0) {
            builder = builder.option("--repl-diskless-sync-delay", "0");
        }
        let server = builder.start();
        let mut client = server.client();
        fill_every_type(&mut client, version);
        fill_idempotent(&mut client, version);
        let keys = Side::new(&mut client).keys();
        redis::cmd("SAVE").exec(&mut client).unwrap();
        let archive = run(&["export", &server.url()], b"").success().stdout;
        let rdb = server.path().join("dump.rdb");
        assert!(rdb.exists(), "{version}: no {}", rdb.display());
        Self {
            keys,
            server,
            archive,
            rdb,
        }
    }

    fn go(&self, way: Way, to: &str, flags: &[&str]) -> Output {
        let from = self.server.url();
        let file = self.rdb.to_str().unwrap();
        let (verb, input): (Vec<&str>, &[u8]) = match way {
            Way::Archive => (vec!["import", to], &self.archive),
            Way::Copy => (vec!["copy", &from, to], b""),
            Way::Replica => (vec!["copy", &from, to, "--via", "replica"], b""),
            Way::RdbFile => (vec!["copy", file, to], b""),
        };
        run(&[&verb[..], &["--json"], flags].concat(), input)
    }
}

/// Streams with everything that XADD IDMP leaves behind.
fn fill_idempotent(client: &mut redis::Connection, version: Version) {
    if !version.has(Feature::StreamIdempotency) {
        return;
    }
    for (key, settings) in [
        ("idempotent:default", None),
        ("idempotent:set", Some("7000")),
    ] {
        for n in 0..30 {
            let mut add = redis::cmd("XADD");
            add.arg(key).arg("IDMP").arg(format!("producer {}", n % 3));
            add.arg(format!("id {n}")).arg("*").arg("n").arg(n);
            add.exec(client).unwrap();
        }
        if let Some(seconds) = settings {
            let mut set = redis::cmd("XCFGSET");
            set.arg(key).arg("IDMP-DURATION").arg(seconds);
            set.arg("IDMP-MAXSIZE").arg(500).exec(client).unwrap();
        }
    }
}

/// What cannot be had at the other side, by the names that `--allow-loss` takes.
fn losses(from: Version, to: Version) -> Vec<&'static str> {
    let mut names = Vec::new();
    if from.has_field_ttl() && !to.has_field_ttl() {
        names.push("hash-field-ttl");
    }
    if from.has(Feature::Functions) && !to.has(Feature::Functions) {
        names.push("functions");
    }
    names
}

fn empty(server: &TestServer) {
    redis::cmd("FLUSHALL").exec(&mut server.client()).unwrap();
    if server.version().has(Feature::Functions) {
        let mut flush = redis::cmd("FUNCTION");
        flush.arg("FLUSH").exec(&mut server.client()).unwrap();
    }
}

/// What the first run did with the keys.
struct Cell {
    refused: u64,
    restamped: u64,
    reencoded: u64,
}

fn count(summary: &serde_json::Value, path: &str) -> u64 {
    summary
        .pointer(path)
        .and_then(serde_json::Value::as_u64)
        .unwrap_or(0)
}

/// One source into one destination, one way.
fn meet(source: &Source, destination: &TestServer, way: Way) -> Cell {
    let (from, to) = (source.server.version(), destination.version());
    let (pair, url) = (format!("{from} to {to}, {way:?}"), destination.url());
    empty(destination);
    let lost = losses(from, to);
    let output = source.go(way, &url, &[]);
    let first = output.summary();
    if lost.is_empty() {
        output.success();
    } else {
        let output = output.expect_code(3);
        for name in &lost {
            let option = format!("--allow-loss {name}");
            assert!(
                output.stderr.contains(&option),
                "{pair}:\n{}",
                output.stderr
            );
        }
        let all = lost.join(",");
        source.go(way, &url, &["--allow-loss", &all]).success();
    }
    let options = Options {
        functions: !lost.contains(&"functions"),
        ignore_field_ttl: lost.contains(&"hash-field-ttl"),
        // Which zero a small sorted set shows depends on the version.
        ignore_zero_sign: from != to,
        // A file says its TTLs exactly, an old server only what is left.
        ttl_tolerance_ms: (way == Way::RdbFile && !from.has(Feature::ExpireTime)).then_some(250),
        ..Options::default()
    };
    let (mut left, mut right) = (source.server.client(), destination.client());
    let found = compare(Side::new(&mut left), Side::new(&mut right), &options);
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{pair}:\n{}", lines.join("\n"));
    again(source, destination, way, &lost);
    Cell {
        refused: count(&first, "/sink/refused"),
        restamped: count(&first, "/sink/changes/restamped"),
        reencoded: count(&first, "/sink/changes/reencoded"),
    }
}

/// The second run changes nothing, and verifies all of it.
fn again(source: &Source, destination: &TestServer, way: Way, lost: &[&str]) {
    let (from, to) = (source.server.version(), destination.version());
    let pair = format!("{from} to {to}, {way:?}, again");
    let mut flags = vec!["--verify"];
    let all = lost.join(",");
    if !lost.is_empty() {
        flags.extend(["--allow-loss", &all]);
    }
    let summary = source
        .go(way, &destination.url(), &flags)
        .success()
        .summary();
    // A key may be read, and written, more than once.
    let unchanged = count(&summary, "/sink/unchanged");
    assert!(unchanged >= source.keys, "{pair}: {summary:#}");
    assert_eq!(
        unchanged,
        count(&summary, "/sink/taken"),
        "{pair}: {summary:#}"
    );
    let equal = count(&summary, "/verified/equal");
    assert_eq!(equal, source.keys, "{pair}: {summary:#}");
    assert_eq!(count(&summary, "/verified/different"), 0, "{pair}");
}

/// Those of `versions` that each one is tried with in every run of the tests.
fn is_near(versions: &[Version], from: usize, to: usize) -> bool {
    let newest = |family: Family| versions.iter().rposition(|one| one.family() == family);
    let ends = [newest(Family::Redis), newest(Family::Valkey)];
    from.abs_diff(to) <= 1 || (ends.contains(&Some(from)) && ends.contains(&Some(to)))
        // Each source into the newest of the other family, each destination from it.
        || ends.contains(&Some(to)) && versions[from].family() != versions[to].family()
        || ends.contains(&Some(from)) && versions[from].family() != versions[to].family()
}

fn ways_of(from: Version, to: Version, near: bool) -> Vec<Way> {
    match near {
        // Two of the four, by turns.
        false if (from as usize + to as usize).is_multiple_of(2) => {
            vec![Way::Archive, Way::Replica]
        }
        false => vec![Way::Copy, Way::RdbFile],
        true => Way::ALL.to_vec(),
    }
}

#[test]
fn every_version_meets_its_neighbours() {
    let versions = every_available();
    let mut failures = Vec::new();
    for (at, &from) in versions.iter().enumerate() {
        let source = Source::of(from);
        for (n, &to) in versions.iter().enumerate() {
            if Version::DESTINATIONS.contains(&to) && is_near(&versions, at, n) {
                let destination = TestServer::start(to);
                for way in ways_of(from, to, false) {
                    tried(&mut failures, || meet(&source, &destination, way));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// One failure does not hide the others.
fn tried<T>(failures: &mut Vec<String>, run: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => Some(result),
        Err(why) => {
            let text = why.downcast_ref::<String>().cloned();
            failures.push(text.unwrap_or_else(|| "a panic without words".to_owned()));
            None
        }
    }
}

/// Prints the table, and writes it where `VERSIONS_TABLE` says.
#[test]
#[ignore = "the full square takes minutes: make square"]
fn the_full_square() {
    let versions = every_available();
    let mut failures = Vec::new();
    let missing: Vec<_> = Version::EVERY
        .iter()
        .filter(|one| !versions.contains(one))
        .collect();
    assert!(
        missing.is_empty(),
        "not there: {missing:?}; make old-servers"
    );
    let destinations: Vec<TestServer> = Version::DESTINATIONS
        .into_iter()
        .map(TestServer::start)
        .collect();
    let mut table = String::from("| from \\ to |");
    for server in &destinations {
        table += &format!(" {} |", title(server.version()));
    }
    table += &format!("\n|---{}|\n", "|---".repeat(destinations.len()));
    for from in versions {
        let source = Source::of(from);
        table += &format!("| **{}**, {} keys |", title(from), source.keys);
        for destination in &destinations {
            let to = destination.version();
            let cells =
                Way::ALL.map(|way| tried(&mut failures, || meet(&source, destination, way)));
            match &cells[0] {
                Some(cell) if cells.iter().all(Option::is_some) => {
                    table += &format!(" {} |", text(cell, from, to));
                }
                _ => table += " FAILED |",
            }
        }
        table += "\n";
        println!("{table}");
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    if let Some(file) = std::env::var_os("VERSIONS_TABLE") {
        write_between(Path::new(&file), "square", &table);
    }
}

fn title(version: Version) -> String {
    let family = match (version, version.family()) {
        (Version::Stack74, _) => "Redis Stack",
        (_, Family::Valkey) => "Valkey",
        _ => "Redis",
    };
    format!("{family} {}", version.exact())
}

/// `all`, `all, 12 rewritten`, `4 need hash-field-ttl`.
fn text(cell: &Cell, from: Version, to: Version) -> String {
    let mut parts = vec!["all".to_owned()];
    if cell.restamped > 0 {
        parts.push(format!("{} re-stamped", cell.restamped));
    }
    if cell.reencoded > 0 {
        parts.push(format!("{} rewritten", cell.reencoded));
    }
    let lost = losses(from, to);
    if cell.refused > 0 {
        parts.push(format!("{} need `hash-field-ttl`", cell.refused));
    }
    if lost.contains(&"functions") {
        parts.push("libraries need `functions`".to_owned());
    }
    parts.join(", ")
}

/// Puts `text` between the marks of that name in a document.
fn write_between(file: &Path, name: &str, text: &str) {
    let page = std::fs::read_to_string(file).unwrap();
    let (before, after) = around(&page, name);
    std::fs::write(file, format!("{before}{text}{after}")).unwrap();
}

/// What stands before and behind the generated part, with its marks.
fn around<'a>(page: &'a str, name: &str) -> (&'a str, &'a str) {
    let (begin, end) = (
        format!("<!-- {name}: generated -->\n\n"),
        format!("\n<!-- {name}: end -->"),
    );
    let from = page.find(&begin).expect("the mark at the beginning") + begin.len();
    let to = page.find(&end).expect("the mark at the end");
    (&page[..from], &page[to..])
}

/// The table of what each release writes, as the documentation has it.
fn releases() -> String {
    let mut text = String::from("| release | RDB version | known from |\n|---|---|---|\n");
    for row in RELEASES.iter().filter(|row| row.rdb_version > 5) {
        text += &format!(
            "| {} | {} | {} |\n",
            row.title(),
            row.rdb_version,
            known_from(row)
        );
    }
    text
}

fn known_from(row: &Release) -> String {
    match row.proof {
        Proof::Tested(version) => format!("tests with {version}"),
        Proof::Between => "the versions on either side, which are tested".to_owned(),
        Proof::FromSources => "published sources only: tried on no server".to_owned(),
    }
}

/// The documentation says what the table says. `UPDATE_DOCS=1` writes it there.
#[test]
fn the_documentation_has_the_table_of_releases() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/versions.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        write_between(&file, "releases", &releases());
    }
    let page = std::fs::read_to_string(&file).unwrap();
    let (before, after) = around(&page, "releases");
    let written = &page[before.len()..page.len() - after.len()];
    assert_eq!(
        written,
        releases(),
        "UPDATE_DOCS=1 cargo test --test all documentation"
    );
}

/// Every server of the tests is one that the table calls tested, of that very version.
#[test]
fn the_table_calls_tested_what_is_tested() {
    for version in every_available() {
        let exact = version.exact();
        let dialect: Dialect = version.dialect();
        let proof = dialect.release().expect("a known version").proof;
        assert!(
            matches!(proof, Proof::Tested(tested) if tested == exact),
            "{version} is {exact}: {proof:?}"
        );
        assert_eq!(written_version(version), dialect.rdb_version(), "{version}");
    }
}

/// The RDB version in the footer of a real payload.
fn written_version(version: Version) -> Option<u16> {
    let server = TestServer::start(require(version)?);
    let mut client = server.client();
    redis::cmd("SET")
        .arg("k")
        .arg("v")
        .exec(&mut client)
        .unwrap();
    let payload: Vec<u8> = redis::cmd("DUMP").arg("k").query(&mut client).unwrap();
    let footer = payload[payload.len() - 10..payload.len() - 8]
        .try_into()
        .unwrap();
    Some(u16::from_le_bytes(footer))
}

/// Vector sets go to servers that read their layout; the others refuse them by name.
#[test]
fn vector_sets_meet_every_version() {
    let versions = every_available();
    for &from in versions.iter().filter(|one| one.has(Feature::VectorSets)) {
        let source = TestServer::start(from);
        assert_eq!(fill_vector_sets(&mut source.client(), from).len(), 1);
        for &to in &versions {
            if !Version::DESTINATIONS.contains(&to) {
                continue;
            }
            let mut destination = TestServer::start(to);
            let goes = to.has(Feature::VectorSets)
                && (to >= from || from.is_at_least(8, 2) == to.is_at_least(8, 2));
            let output = run(&["copy", &source.url(), &destination.url()], b"");
            if goes {
                output.success();
                let mut card = redis::cmd("VCARD");
                card.arg("vectorset");
                let cards = [&source, &destination]
                    .map(|server| card.query::<u64>(&mut server.client()).unwrap());
                assert_eq!(cards, [3, 3], "{from} to {to}");
            } else {
                output.expect_code(3).expect_stderr("vector set");
            }
            assert!(destination.is_running(), "{from} to {to}");
        }
    }
}
