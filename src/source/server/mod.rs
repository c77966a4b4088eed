//! A live server as a source: SCAN, and value and expiry of every key together, on one connection on
//! which the next request is always in flight.
//!
//! Who decides what:
//!
//! - [`reader`] decides what the server is asked next and what its answers mean: a value without
//!   I/O, threads or clock, tested state by state.
//! - [`wire`] says it to the server and reads the answers off the connection; it decides nothing.
//! - [`shell`] is the loop that does what the reader decides, and connects again.
//! - [`books`] keep account of every key: counted, given, failed, remembered ([`delivered`]).
//! - [`profile`], [`databases`], [`node`] (its place in a cluster) and [`functions`] are what is known
//!   of the server; [`findings`] is what is to be said at the end beside the counts.
//! - [`converge`] listens to changes and reads on until what was given is exact.
//!
//! A cursor means something only to the process that gave it: the seed of its hash is its own
//! (measured: going on after a restart saw 14,877 of 20,000 keys). To the same process, known by
//! its run_id, any cursor may be given again, because SCAN keeps no state. Else the database is
//! scanned from its beginning, and what comes a second time supersedes the first.
//!
//! Databases may be swapped under a scan (SWAPDB): each half of a database is then read under another
//! number, and keys that stood all the time may be in neither half. Only the server's counts of
//! commands tell.

mod books;
pub(in crate::source) mod converge;
mod databases;
pub(in crate::source) mod delivered;
mod findings;
mod functions;
mod libraries;
mod link;
mod marks;
mod node;
mod owners;
mod probe;
mod profile;
mod reader;
mod shell;
mod slot_set;
mod transitions;
mod unheard;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;

use self::books::Books;
pub use self::converge::{ConvergeOptions, ConvergingSource, Follow, Together};
use self::databases::Databases;
use self::delivered::GivenLog;
use self::findings::Findings;
pub(in crate::source) use self::findings::libraries_unread;
pub use self::findings::without_hint;
use self::functions::Functions;
pub(in crate::source) use self::libraries::{Libraries, function_dump, warn_of_refusal};
use self::link::Link;
use self::node::Membership;
pub use self::node::{Disturbed, NodeScan, Unserved};
pub use self::owners::{Leftovers, Owner};
use self::probe::{Abilities, Asking};

use self::profile::Profile;
use self::reader::{Job, NEAR, Reader};
pub use self::slot_set::SlotSet;
use self::wire::Form;
use super::{Estimate, Source};
use crate::endpoint::ConnectOptions;
use crate::exit::usage;
use crate::host;
use crate::ledger::{SourceCounts, SourceReport};
use crate::observer::Observer;
use crate::pace::Pace;
use crate::policy::ReadFunctions;
use crate::record::{Batch, Checkpoint, Context, KeyRecord, Record, Value};
use crate::select::Selection;
use crate::server::Conn;
use crate::server::counts::CommandCounts;
use crate::server::facts::{Facts, Keyspace, ServerClock, info, keyspace};
use crate::server::reply::cmd;
#[cfg(doc)]
use crate::server::resp::VALUE_LIMIT;
use crate::stop::Stop;

/// What an export wants of a server.
#[derive(Debug, Clone)]
pub struct ServerSourceOptions {
    /// COUNT of SCAN.
    pub scan_count: u32,
    /// Whether to ask OBJECT for idle time or frequency.
    pub eviction: bool,
    /// Whether to ask for function libraries.
    pub functions: ReadFunctions,
    /// What to read.
    pub selection: Selection,
    /// Of the databases that were named: the URL named it, and no flag.
    pub db_of_url: Option<u32>,
    /// The largest payload that is taken; [`VALUE_LIMIT`] where nobody says.
    pub max_value_bytes: Option<u64>,
    /// Whether a tombstone takes back what was given of a key that cannot be read any more: in an
    /// archive no older value may pass for the newest. At a live destination it would delete a key
    /// that still stands at the source, and perhaps stood at the destination before.
    pub takes_back: bool,
}

/// Reads a live server.
pub struct ServerSource {
    conn: Conn,
    link: Link,
    profile: Profile,
    options: Arc<ServerSourceOptions>,
    observer: Arc<Observer>,
    /// Its place in a cluster, if it is in one.
    node: Option<Membership>,
    databases: Databases,
    reader: Reader,
    books: Books,
    findings: Findings,
    functions: Functions,
    /// What others may want of the server and of the network.
    pace: Option<Arc<Pace>>,
}

impl ServerSource {
    /// Prepares to read what `conn` leads to; `facts` is what it said of itself, if it was asked.
    ///
    /// # Errors
    /// [`Usage`](crate::exit::Usage) for what cannot be exported (a cluster's node), and connection errors.
    pub fn open(
        mut conn: Conn,
        facts: Option<Facts>,
        options: ServerSourceOptions,
        observer: Arc<Observer>,
    ) -> Result<Self> {
        conn.doing("asking the source what it is");
        let facts = match facts {
            Some(facts) => facts,
            None => Facts::ask(&mut conn)?,
        };
        if facts.cluster {
            return Err(usage(
                "the source is a node of a cluster, and is to be read as such (--cluster); \
                 nothing was read",
            ));
        }
        Self::begin_with(conn, facts, options, observer)
    }

    /// Prepares to read these slots of the cluster's node that `conn` leads to.
    ///
    /// # Errors
    /// What the node refuses that is needed, and the connection's.
    pub fn open_node(
        mut conn: Conn,
        scan: &NodeScan,
        options: ServerSourceOptions,
        observer: Arc<Observer>,
    ) -> Result<Self> {
        conn.doing("asking a node of the cluster what it is");
        if scan.replica {
            let readonly = cmd("READONLY");
            conn.query::<()>(&readonly)?;
            conn.keep(&readonly);
        }
        let mut facts = Facts::ask(&mut conn)?;
        // Demanded by the user, or told by another node.
        facts.cluster = true;
        let mut source = Self::begin_with(conn, facts, options, observer)?;
        source.node = Some(Membership::new(&scan.slots, scan.asking));
        if source.options.selection.wants_db(0) {
            source.databases.know_database_0();
        }
        source.reader.set_terms(source.form().terms());
        source.reader.read_databases(source.databases.numbers());
        Ok(source)
    }

    fn begin_with(
        mut conn: Conn,
        facts: Facts,
        options: ServerSourceOptions,
        observer: Arc<Observer>,
    ) -> Result<Self> {
        let clock = ServerClock::ask(&mut conn)?;
        let asking = Asking {
            facts: &facts,
            clock: &clock,
            options: &options,
            observer: &observer,
        };
        let found = probe::databases(&mut conn, &asking)?;
        let abilities = found
            .abilities
            .unwrap_or_else(|| Abilities::of(&facts, &clock));
        let libraries = function_dump(&mut conn, options.functions, &facts)?;
        probe::leave_no_trace(&mut conn, &facts)?;
        // There is no SWAPDB in clusters.
        let counts_before = match facts.info && !facts.cluster {
            true => CommandCounts::ask(&mut conn)?,
            false => None,
        };
        let findings = known_before(&asking, &found, &libraries);
        let options = Arc::new(options);
        let mut books = Books::new(Arc::clone(&options), Arc::clone(&observer));
        for row in &found.not_had {
            let keys = row.keys.unwrap_or(0);
            books.not_reached(row.db, keys);
        }
        let databases = Databases::new(found.rows, found.not_had);
        let profile = Profile::new(facts, clock, abilities, counts_before);
        let terms = profile.form(false, false).terms();
        Ok(Self {
            link: Link::of(&conn),
            conn,
            profile,
            node: None,
            reader: Reader::new(terms, options.scan_count, databases.numbers()),
            databases,
            books,
            findings,
            functions: Functions::new(libraries.payload, libraries.by),
            pace: None,
            options,
            observer,
        })
    }

    /// More than a scan was asked for, and is not to be had.
    pub fn miss_consistency(&mut self) {
        self.findings.miss_consistency();
    }

    /// From now on a lost connection is made again as `connect` says, until `stop`.
    pub fn endure(&mut self, connect: ConnectOptions, stop: Stop) {
        self.conn.heed(&connect, &stop.flag());
        self.link.endure(connect, stop);
    }

    /// From now on COUNT of SCAN grows where the way to the server is what takes the time.
    ///
    /// # Errors
    /// The connection.
    pub fn adapt_scan_count(&mut self) -> Result<()> {
        let seen = self.profile.clock().round_trip;
        // Asked again only if that is worth anything.
        let round_trip = match seen < NEAR {
            true => seen,
            false => self.ask(|conn| {
                let began = host::now();
                // A refusal takes as long as an answer.
                let _ = conn.try_query(&conn.greeting())?;
                Ok(seen.min(host::elapsed(began)))
            })?,
        };
        self.reader.adapt_to(round_trip);
        Ok(())
    }

    /// From now on batches carry checkpoints.
    pub fn keep_checkpoints(&mut self) {
        self.reader.keep_positions(host::now());
    }

    /// Goes on at `at` instead of at the beginning, before anything was read; or says why its cursor
    /// means nothing here, and changes nothing.
    ///
    /// # Errors
    /// The connection's.
    pub fn go_on_from(&mut self, at: &Checkpoint) -> Result<Option<&'static str>> {
        let facts = self.profile.facts();
        if facts.run_id.is_none() {
            return Ok(Some("the source does not tell its run_id"));
        }
        if facts.run_id.as_ref() != Some(&at.run_id) || facts.role.replica != at.replica {
            return Ok(Some("the source was restarted, or is another one (run_id)"));
        }
        if let Some(why) = self.swapped_since(at) {
            return Ok(Some(why));
        }
        self.reader.go_on_at(reader::Position {
            db: at.db,
            cursor: at.cursor.as_ref().map(|cursor| cursor.clone().into_bytes()),
            waiting: at.waiting.clone(),
        });
        for (db, numbers) in &at.counts {
            self.books.go_on_with(counts_from_numbers(*db, numbers));
        }
        self.functions.were_given(at.functions);
        self.findings.began(at.started_ms, at.from_ms);
        Ok(None)
    }

    /// Why a cursor of `at` says nothing any more, where databases were swapped since.
    fn swapped_since(&self, at: &Checkpoint) -> Option<&'static str> {
        let before = at.swaps?;
        match self.profile.counts_before() {
            Some(now) if now.swaps() == before => None,
            Some(_) => {
                Some("databases were swapped since (SWAPDB), or the count of that was reset")
            }
            None => Some("the source no longer tells whether databases were swapped (INFO)"),
        }
    }

    /// What the server said of itself.
    pub fn facts(&self) -> &Facts {
        self.profile.facts()
    }

    /// The databases that will be read.
    pub fn databases(&self) -> &[Keyspace] {
        self.databases.rows()
    }

    /// The databases that are wanted and cannot be read.
    pub fn databases_not_had(&self) -> Vec<u32> {
        let not_had = self.databases.not_had().iter();
        not_had.map(|row| row.db).collect()
    }

    /// The server's clock.
    pub fn clock(&self) -> ServerClock {
        self.profile.clock()
    }

    /// How keys are asked for.
    fn form(&self) -> Form {
        let asking = self.node.as_ref().is_some_and(Membership::asks);
        self.profile.form(asking, self.node.is_some())
    }

    /// The payloads' own version is the one that counts.
    pub(in crate::source) fn stamp(&self, batch: &mut Batch) {
        if let Some(rdb_version) = footer_version(batch) {
            batch.context.rdb_version = rdb_version;
        }
    }

    fn context(&self) -> Context {
        let facts = self.profile.facts();
        Context {
            source_time_ms: self.profile.clock().now_ms(),
            family: facts.family,
            rdb_version: facts.rdb_version(),
            node: 0,
        }
    }

    /// The connection, on which nothing is in flight when all was read.
    pub(in crate::source) fn conn(&mut self) -> &mut Conn {
        &mut self.conn
    }

    /// Remembers the names of what it gives, so that what goes away can be told.
    pub(in crate::source) fn remember_given(&mut self) -> Result<()> {
        self.books.remember_given(true)
    }

    /// The names of all keys that were given, if they are remembered.
    pub(in crate::source) fn given_log(&mut self) -> Result<Option<GivenLog>> {
        self.books
            .given_mut()
            .map(delivered::Given::log)
            .transpose()
    }

    /// These names are read too: another node gave them, or would have.
    pub(in crate::source) fn read_names(&mut self, names: Vec<(u32, Vec<u8>)>) -> Result<()> {
        let mut by_db: BTreeMap<u32, Vec<Vec<u8>>> = BTreeMap::new();
        for (db, name) in names {
            by_db.entry(db).or_default().push(name);
        }
        for (db, names) in by_db {
            if let Some(given) = self.books.given_mut() {
                given.inherit(db, &names)?;
            }
            self.reader.add(Job::Names(db, names));
        }
        Ok(())
    }

    /// From now on these slots are read here too, all of them anew.
    pub(in crate::source) fn adopt(&mut self, slots: &SlotSet) -> Result<()> {
        let selection = &self.options.selection;
        if self.profile.facts().keyspace.is_some() && selection.dbs.is_empty() {
            let text = info(&mut self.conn, Some("keyspace"))?;
            match text.and_then(|text| keyspace(&text)) {
                Some(rows) => self.databases.learn(&rows, selection),
                // None told is not none there.
                None => self.findings.unread(
                    "INFO keyspace did not tell which databases hold keys when slots came from \
                     another node: of these slots only the databases known before were read"
                        .to_owned(),
                ),
            }
        }
        let is_read = self.reader.has_asked_all();
        if let Some(node) = &mut self.node {
            node.adopt(slots, is_read);
        }
        self.reader.read_databases(self.databases.numbers());
        Ok(())
    }

    /// These slots are read elsewhere from now on.
    pub(in crate::source) fn release(&mut self, slots: &SlotSet) {
        if let Some(node) = &mut self.node {
            node.release(slots);
        }
    }

    /// The connection is gone: what was asked and not answered is read elsewhere.
    pub(in crate::source) fn forget_flight(&mut self) {
        let keys = self.reader.give_up();
        self.books.superseded(self.reader.db(), keys);
    }

    /// Whether all that it was to read was read, and nothing has to be read elsewhere.
    pub(in crate::source) fn is_through(&self) -> bool {
        let is_disturbed = self.node.as_ref().is_some_and(Membership::is_disturbed);
        self.reader.has_asked_all() && self.reader.is_idle() && !is_disturbed
    }

    /// What could not be read since this was last asked.
    pub fn take_disturbed(&mut self) -> Disturbed {
        let node = self.node.as_mut();
        node.map(Membership::take_disturbed).unwrap_or_default()
    }

    /// Keys of these slots that the node did not answer for; others are read elsewhere by now.
    pub(in crate::source) fn take_unserved(&mut self, slots: &SlotSet) -> Vec<Unserved> {
        let node = self.node.as_mut();
        node.map(|node| node.take_unserved(slots))
            .unwrap_or_default()
    }

    /// Asks for them again.
    pub(in crate::source) fn read_unserved(&mut self, rows: Vec<Unserved>) -> Result<()> {
        self.read_names(rows.into_iter().map(|row| (row.db, row.key)).collect())
    }

    /// Of keys of slots that are on their way here, those that their owners have are left to them.
    pub(in crate::source) fn heed_owners(&mut self, list: Vec<Owner>) {
        if let Some(node) = &mut self.node {
            node.heed_owners(list);
        }
    }

    /// Keys that were given and may be leftovers of a move that was called off.
    pub(in crate::source) fn leftovers(&self) -> Leftovers {
        let node = self.node.as_ref();
        node.map(Membership::leftovers).unwrap_or_default()
    }
}

/// What is known before anything is read: what is left out, and what cannot be read.
fn known_before(asking: &Asking<'_>, found: &probe::Databases, libraries: &Libraries) -> Findings {
    let mut findings = Findings::new(
        asking.clock.now_ms(),
        databases::left_out(asking.facts, asking.options.db_of_url),
        libraries.unknown().map(str::to_owned),
    );
    if let Some(reason) = &libraries.unread {
        findings.libraries_unread(reason);
    }
    if let Some(text) = &libraries.refused {
        warn_of_refusal(text, asking.observer);
    }
    for row in &found.not_had {
        findings.unread(row.told());
    }
    if let Some(text) = &found.unseen {
        findings.unread(text.clone());
    }
    findings
}

impl Source for ServerSource {
    fn read(&mut self, batch: &mut Batch) -> Result<bool> {
        loop {
            let error = match self.link.take_error() {
                Some(error) => error,
                None => match self.read_on(batch) {
                    Ok(()) => break,
                    Err(error) => error,
                },
            };
            if !self.link.may_resume(&error) {
                return Err(error);
            }
            if !batch.is_empty() {
                // Handed on first: what comes after may be of another server.
                self.link.keep_error(error);
                break;
            }
            self.resume(error)?;
        }
        self.stamp(batch);
        let goes_on = !batch.is_empty() || batch.checkpoint.is_some();
        if !goes_on {
            self.look_for_swaps()?;
        }
        Ok(goes_on)
    }

    fn keep_pace(&mut self, pace: &Arc<Pace>) {
        self.pace = Some(Arc::clone(pace));
    }

    fn report(&self) -> SourceReport {
        let mut report = self.findings.report(self.profile.clock().now_ms());
        report.counts = self.books.rows();
        report.above_max_value = self.books.above_max_value();
        report.libraries.given = self.functions.given();
        report.lacks.lost_dbs = self.databases.lost().to_vec();
        report
    }

    fn estimate(&self) -> Estimate {
        Estimate {
            records: Some(self.databases.all_keys()),
            bytes: None,
        }
    }
}

/// The counts of a database as a checkpoint has them.
fn counts_to_numbers(row: &SourceCounts) -> (u32, [u64; 7]) {
    (
        row.db,
        [
            row.scanned,
            row.reread,
            row.written,
            row.superseded,
            row.filtered,
            row.vanished,
            row.failed,
        ],
    )
}

fn counts_from_numbers(db: u32, numbers: &[u64; 7]) -> SourceCounts {
    let [
        scanned,
        reread,
        written,
        superseded,
        filtered,
        vanished,
        failed,
    ] = *numbers;
    SourceCounts {
        db,
        scanned,
        reread,
        written,
        superseded,
        filtered,
        vanished,
        failed,
    }
}

/// The RDB version in the first payload's footer: one server writes one version.
fn footer_version(batch: &Batch) -> Option<u16> {
    batch.records.iter().find_map(|record| {
        let Record::Key(KeyRecord {
            value: Value::Verbatim(payload),
            ..
        }) = record
        else {
            return None;
        };
        let footer = payload.last_chunk::<10>()?;
        Some(u16::from_le_bytes([footer[0], footer[1]]))
    })
}
