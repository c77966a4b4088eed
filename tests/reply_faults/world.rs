//! Two servers, what they hold before a run, and what they are found to hold after it: read by the
//! servers' own commands, and never by the tool.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redis::Connection;

use super::data::{self, Crowd, Payloads, Place};
use super::scenario::Scenario;
use crate::support::reading::{Side, State, Times};
use crate::support::resp_proxy::RespProxy;
use crate::support::servers::{TestServer, Version};
use crate::support::tool::Tool;

/// How far apart expiries may be that were read as time left and not as a moment.
const EXPIRY_TOLERANCE_MS: u64 = 500;

/// The file name of the archive that is imported.
const ARCHIVE: &str = "given.rmz";

/// The same of the one in which keys come more than once.
const REPEATING: &str = "repeating.rmz";

/// What a server holds, over all databases.
#[derive(Default)]
pub struct Snapshot {
    pub keys: BTreeMap<Place, State>,
    pub libraries: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Whether two keys are the same: type, value, expiry, expiry of fields.
pub fn same(one: &State, other: &State) -> bool {
    let near = match (one.expire_at, other.expire_at) {
        (None, None) => true,
        (Some(one), Some(other)) => one.abs_diff(other) <= EXPIRY_TOLERANCE_MS,
        _ => false,
    };
    near && same_value(one, other)
}

/// The same without the key's own expiry.
pub fn same_value(one: &State, other: &State) -> bool {
    one.kind == other.kind
        && one.field_expiries == other.field_expiries
        && one
            .meaning
            .difference(&other.meaning, false, Times::Any)
            .is_none()
}

/// Both or neither are there, and are the same.
pub fn alike(one: Option<&State>, other: Option<&State>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => same(one, other),
        _ => false,
    }
}

impl Snapshot {
    pub fn take(connection: &mut Connection) -> Self {
        let mut side = Side::new(connection);
        let mut keys = BTreeMap::new();
        for db in side.databases() {
            side.select(db);
            let mut names = Vec::new();
            let mut cursor = b"0".to_vec();
            loop {
                names.extend(side.scan(&mut cursor));
                if cursor == b"0" {
                    break;
                }
            }
            names.sort_unstable();
            names.dedup();
            let states = side.read(&names);
            for (name, state) in names.into_iter().zip(states) {
                if state.kind != "none" {
                    keys.insert((db, name), state);
                }
            }
        }
        side.select(0);
        let libraries = side.libraries();
        Self { keys, libraries }
    }

    /// Every place of either that is not alike in both.
    pub fn odd_places<'a>(&'a self, other: &'a Self) -> Vec<&'a Place> {
        let mut places: Vec<&Place> = self.keys.keys().chain(other.keys.keys()).collect();
        places.sort_unstable();
        places.dedup();
        places.retain(|place| !alike(self.keys.get(*place), other.keys.get(*place)));
        places
    }
}

/// Which servers a run is between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    pub source: Version,
    pub destination: Version,
}

impl Pair {
    pub const ALL: [Self; 2] = [
        Self::twins(Version::Redis70),
        Self::twins(Version::Valkey91),
    ];

    const fn twins(version: Version) -> Self {
        Self {
            source: version,
            destination: version,
        }
    }

    pub fn name(self) -> &'static str {
        self.source.name()
    }

    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|pair| pair.name() == name)
    }
}

/// The servers of one worker, with what was read from them before.
pub struct World {
    pub pair: Pair,
    _source: TestServer,
    pub destination: TestServer,
    /// What stands before each of them; the addresses stay, so that a second run finds the same.
    pub proxies: [RespProxy; 2],
    to_source: Connection,
    to_destination: Connection,
    payloads: Payloads,
    /// What the source holds whenever a run begins.
    pub given: Snapshot,
    /// An archive of it.
    archive: PathBuf,
    /// Another, made while keys were changed and deleted, so that they come in it again, ...
    repeating: PathBuf,
    /// ... and what it ends with.
    at_last: Snapshot,
    directory: tempfile::TempDir,
}

impl World {
    pub fn start(pair: Pair) -> Self {
        let source = TestServer::builder(pair.source)
            // A replica's snapshot begins at once.
            .option("--repl-diskless-sync-delay", "0")
            .start();
        let destination = TestServer::start(pair.destination);
        let mut to_source = source.client();
        let to_destination = destination.client();
        data::fill_source(&mut to_source, pair.source);
        let given = Snapshot::take(&mut to_source);
        let payloads = payloads(&mut to_source, &given);
        let directory = tempfile::tempdir().expect("a temporary directory");
        let archive = directory.path().join(ARCHIVE);
        let export = ["export", &source.url(), "--consistency", "scan", "-o"];
        Tool::new(&export).arg(&archive).run().success();
        let repeating = directory.path().join(REPEATING);
        let at_last = export_changes(&source, &mut to_source, &payloads, &repeating);
        let proxies = [&source, &destination].map(|server| RespProxy::start(server.addr()));
        let mut world = Self {
            pair,
            proxies,
            _source: source,
            destination,
            to_source,
            to_destination,
            payloads,
            given,
            archive,
            repeating,
            at_last,
            directory,
        };
        world.mend_source();
        world
    }

    /// The archive that a scenario reads.
    pub fn archive_of(&self, scenario: &Scenario) -> &Path {
        match scenario.repeats {
            true => &self.repeating,
            false => &self.archive,
        }
    }

    /// What a scenario moves.
    pub fn moved_by(&self, scenario: &Scenario) -> &Snapshot {
        match scenario.repeats {
            true => &self.at_last,
            false => &self.given,
        }
    }

    /// A file of this world.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The files that runs have left.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path()).expect("a directory");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let names = names.map(|name| name.to_string_lossy().into_owned());
        names
            .filter(|name| name != ARCHIVE && name != REPEATING)
            .collect()
    }

    /// Removes what an earlier run has left.
    pub fn tidy(&self) {
        for name in self.files() {
            std::fs::remove_file(self.file(&name)).expect("a file that can be removed");
        }
    }

    /// Makes the destination what it is to be before a run, and looks at it.
    pub fn prepare(&mut self, crowd: Crowd) -> Snapshot {
        self.empty_destination();
        data::fill_destination(&mut self.to_destination, crowd, &self.payloads);
        self.destination_now()
    }

    pub fn empty_destination(&mut self) {
        for command in [&["FLUSHALL"][..], &["FUNCTION", "FLUSH"]] {
            let mut cmd = redis::Cmd::new();
            cmd.arg(command);
            cmd.exec(&mut self.to_destination).expect("an empty server");
        }
    }

    pub fn destination_now(&mut self) -> Snapshot {
        Snapshot::take(&mut self.to_destination)
    }

    pub fn source_now(&mut self) -> Snapshot {
        Snapshot::take(&mut self.to_source)
    }

    /// Puts the source's keys back, if a run has taken or changed any.
    pub fn mend_source(&mut self) {
        let found = self.source_now();
        if found.odd_places(&self.given).is_empty() && found.libraries == self.given.libraries {
            return;
        }
        redis::cmd("FLUSHALL")
            .exec(&mut self.to_source)
            .expect("an empty server");
        data::restore_source(&mut self.to_source, &self.payloads);
        let again = self.source_now();
        let odd = again.odd_places(&self.given);
        assert!(odd.is_empty(), "the source cannot be restored: {odd:?}");
    }
}

/// Exports while keys are changed, and returns what the source holds at the end.
fn export_changes(
    source: &TestServer,
    connection: &mut Connection,
    payloads: &Payloads,
    file: &Path,
) -> Snapshot {
    for tries in 1..=5 {
        let (before, total) = (300 * tries, format!("{}ms", 600 * tries));
        let url = source.url();
        let export = ["export", &url, "--follow", "--for", &total, "--json", "-o"];
        let running = Tool::new(&export).arg(file).spawn();
        std::thread::sleep(Duration::from_millis(before));
        data::change_source(connection, payloads);
        let output = running.wait().success();
        let summary = output
            .stderr
            .lines()
            .chain(std::str::from_utf8(&output.stdout));
        let summary: Option<serde_json::Value> = summary
            .rev()
            .find_map(|line| serde_json::from_str(line).ok());
        let archived = summary.and_then(|summary| summary["sink"]["archived"].as_u64());
        if archived.is_some_and(|archived| archived > payloads.0.len() as u64) {
            return Snapshot::take(connection);
        }
        data::restore_source(connection, payloads);
    }
    panic!("no export had seen the keys before they were changed");
}

fn payloads(connection: &mut Connection, given: &Snapshot) -> Payloads {
    let mut all = Vec::new();
    for (db, key) in given.keys.keys() {
        let mut pipe = redis::pipe();
        pipe.cmd("SELECT").arg(*db).ignore();
        pipe.cmd("DUMP").arg(key);
        pipe.cmd("PEXPIRETIME").arg(key);
        let (payload, at): (Vec<u8>, i64) = pipe.query(connection).expect("a payload");
        all.push(((*db, key.clone()), payload, at));
    }
    redis::cmd("SELECT")
        .arg(0)
        .exec(connection)
        .expect("SELECT 0");
    Payloads(all)
}
