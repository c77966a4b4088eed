//! A live server as a source: SCAN, and value and expiry of every key together.
//!
//! One connection, on which the next request is always in flight. Keys are read in small MULTIs,
//! the expiry commands at the head: a TIME many large DUMPs away from its PTTL would be seconds
//! off. The window is counted in bytes, guessed from what replies taught, so that a run of large
//! values never piles up in the server's output buffer.

mod checkpoint;
pub(in crate::source) mod converge;
mod databases;
pub(in crate::source) mod delivered;
mod in_cluster;
mod marks;
mod names;
mod owners;
mod page;
mod patience;
mod probe;
mod replies;
mod requests;
mod resume;
mod slot_set;
mod squeeze;
mod swaps;
mod unheard;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};

use self::checkpoint::Checkpoints;
pub use self::converge::{ConvergeOptions, ConvergingSource, Follow, Together};
pub(in crate::source) use self::databases::libraries_unread;
pub use self::databases::without_hint;
use self::delivered::Given;
use self::in_cluster::InCluster;
pub use self::in_cluster::{Disturbed, Place, Unserved};
pub use self::owners::{Leftovers, Owner};
use self::page::Page;
use self::patience::Patience;
use self::probe::{Abilities, Asking, FunctionsBy, NotHad};
pub(in crate::source) use self::probe::{Libraries, function_dump, warn_of_refusal};
use self::replies::Awaited;
use self::resume::Link;
pub use self::slot_set::SlotSet;
use self::squeeze::Squeeze;
use super::{Estimate, Source};
use crate::exit::Usage;
use crate::host::unix_ms;
use crate::ledger::{ConsistencyReached, CountsByDb, SourceReport};
use crate::observer::Observer;
use crate::pace::Pace;
use crate::policy::ReadFunctions;
use crate::record::{Batch, Context, KeyRecord, Record, Value};
use crate::select::Selection;
use crate::server::Conn;
use crate::server::counts::CommandCounts;
use crate::server::facts::{Facts, Keyspace, ServerClock};
#[cfg(doc)]
use crate::server::resp::VALUE_LIMIT;

/// Keys in one MULTI.
const GROUP_KEYS: usize = 16;

/// Bytes of replies that may be on their way.
const WINDOW_BYTES: usize = 4 * 1024 * 1024;

/// The same where a round trip is most of the time: what is under way is not in memory, but in the
/// server's buffers and on the line.
const FAR_WINDOW_BYTES: usize = 16 * 1024 * 1024;

/// What a reply is taken to be before any was seen.
const FIRST_GUESS_BYTES: usize = 64 * 1024;

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

/// What waits for its replies, in order.
enum Sent {
    /// A page of names, from this cursor on.
    Scan(Vec<u8>),
    Group(Vec<Vec<u8>>),
}

impl Sent {
    /// The keys, if it is a group.
    fn group(&self) -> Option<&[Vec<u8>]> {
        match self {
            Self::Group(keys) => Some(keys),
            Self::Scan(_) => None,
        }
    }
}

/// What is to be read, one after the other.
enum Job {
    /// All of a database.
    Scan(u32),
    /// These keys of a database, again.
    Names(u32, Vec<Vec<u8>>),
}

/// Reads a live server.
pub struct ServerSource {
    conn: Conn,
    /// How to connect again, if that is wanted.
    link: Option<Link>,
    /// The connection was lost; what was read before is handed on first.
    lost: Option<anyhow::Error>,
    /// The server that was found when connecting again is another process.
    process_changed: bool,
    facts: Facts,
    clock: ServerClock,
    options: ServerSourceOptions,
    observer: Arc<Observer>,
    abilities: Abilities,
    /// Its place in a cluster, if it is in one.
    cluster: Option<InCluster>,
    databases: Vec<Keyspace>,
    /// Those that are wanted and were not to be had when it was opened.
    not_had: Vec<NotHad>,
    /// Those that were to be had then, and not any more.
    lost_dbs: Vec<u32>,
    /// What was not read beyond single keys, a line each.
    unread: Vec<String>,
    /// Something was lost on the way: what was read is not all there was at any one instant.
    incomplete: Option<String>,
    /// What the URL's database leaves out, in a line.
    left_out: Option<String>,
    /// Not yet begun.
    waiting: VecDeque<Job>,
    db: u32,
    /// What was given, where that is to be followed up.
    given: Option<Given>,
    /// Keys that were given and cannot be read any more: they go out at the next occasion.
    tombstones: Vec<Record>,
    page: Page,
    /// What others may want of the server and of the network.
    pace: Option<Arc<Pace>>,
    /// Where SCAN goes on; `None` when the database is scanned through or not begun.
    cursor: Option<Vec<u8>>,
    scan_in_flight: bool,
    /// The scan is being ended before its end, to begin anew.
    abandoned: bool,
    keys: VecDeque<Vec<u8>>,
    sent: VecDeque<Sent>,
    /// Keys of the group whose payloads are being read.
    awaited: VecDeque<Awaited>,
    /// Keys asked for and not yet read.
    sent_keys: usize,
    guess_bytes: usize,
    /// How much may be asked for at once where the server ends connections of which it is too much.
    squeeze: Squeeze,
    /// The server asks for patience.
    patience: Patience,
    scratch: Vec<u8>,
    functions: Option<Vec<u8>>,
    /// What function libraries are read by, where they can be.
    functions_by: Option<FunctionsBy>,
    counts: CountsByDb,
    /// How often each command had been called when the scan began, until it has ended; `None` where
    /// the server does not say, and where others look at it.
    counts_before: Option<CommandCounts>,
    /// Of the failed ones, those whose values are larger than `--max-value` allows.
    above_max_value: u64,
    functions_given: u64,
    /// Why function libraries that there are, or may be, were not read.
    libraries_unread: Option<String>,
    /// Why no function library is read where there may be some.
    no_libraries: Option<String>,
    started_ms: u64,
    from_ms: u64,
    /// The longest that writes were paused.
    paused: Duration,
    consistency_missed: bool,
    /// Places to go on from are made, where somebody keeps them.
    checkpoints: Option<Checkpoints>,
}

impl ServerSource {
    /// Prepares to read what `conn` leads to; `facts` is what it said of itself, if it was asked.
    ///
    /// # Errors
    /// [`Usage`] for what cannot be exported (a cluster's node), and connection errors.
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
            return Err(Usage(
                "the source is a node of a cluster, and is to be read as such (--cluster); \
                 nothing was read"
                    .to_owned(),
            )
            .into());
        }
        Self::begin_with(conn, facts, options, observer)
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
        let libraries = probe::function_dump(&mut conn, options.functions, &facts)?;
        let no_libraries = libraries.unknown().map(str::to_owned);
        probe::leave_no_trace(&mut conn, &facts)?;
        // There is no SWAPDB in clusters.
        let counts_before = match facts.info && !facts.cluster {
            true => CommandCounts::ask(&mut conn)?,
            false => None,
        };
        let waiting = found.rows.iter().map(|row| Job::Scan(row.db)).collect();
        let patience = Patience::of(&conn);
        let mut source = Self {
            from_ms: clock.now_ms(),
            conn,
            link: None,
            lost: None,
            process_changed: false,
            clock,
            page: Page::fixed(options.scan_count),
            abilities,
            cluster: None,
            left_out: databases::left_out(&facts, &options),
            databases: found.rows,
            not_had: Vec::new(),
            lost_dbs: Vec::new(),
            unread: Vec::new(),
            incomplete: None,
            waiting,
            db: 0,
            given: None,
            tombstones: Vec::new(),
            pace: None,
            cursor: None,
            scan_in_flight: false,
            abandoned: false,
            keys: VecDeque::new(),
            sent: VecDeque::new(),
            awaited: VecDeque::new(),
            sent_keys: 0,
            guess_bytes: FIRST_GUESS_BYTES,
            squeeze: Squeeze::default(),
            patience,
            scratch: Vec::new(),
            functions: libraries.payload,
            functions_by: libraries.by,
            counts: CountsByDb::default(),
            counts_before,
            above_max_value: 0,
            functions_given: 0,
            libraries_unread: None,
            no_libraries,
            started_ms: unix_ms(),
            paused: Duration::ZERO,
            consistency_missed: false,
            checkpoints: None,
            facts,
            options,
            observer,
        };
        source.count_not_had(found.not_had);
        if let Some(reason) = libraries.unread {
            source.libraries_unread(&reason);
        }
        if let Some(text) = libraries.refused {
            probe::warn_of_refusal(&text, &source.observer);
        }
        Ok(source)
    }

    /// More than a scan was asked for, and is not to be had.
    pub fn miss_consistency(&mut self) {
        self.consistency_missed = true;
    }

    /// From now on COUNT of SCAN grows where the way to the server is what takes the time.
    ///
    /// # Errors
    /// The connection.
    pub fn adapt_scan_count(&mut self) -> Result<()> {
        let seen = self.clock.round_trip;
        let round_trip = self.ask(|conn| page::round_trip(conn, seen))?;
        self.page.adapt_to(round_trip);
        Ok(())
    }

    /// What the server said of itself.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The databases that will be read.
    pub fn databases(&self) -> &[Keyspace] {
        &self.databases
    }

    /// The server's clock.
    pub fn clock(&self) -> ServerClock {
        self.clock
    }

    /// Keeps requests in flight: the next page of names before the values of this one.
    fn send(&mut self) -> Result<()> {
        if !self.may_send()? {
            return Ok(());
        }
        let drains = self.drains();
        loop {
            if self.cursor.is_none() && self.keys.is_empty() && !self.scan_in_flight && !drains {
                // Groups of the last database may still be in flight: replies come in order, so
                // only the number of the database must not change before they are read.
                if self.sent_keys > 0 {
                    break;
                }
                let Some(job) = self.waiting.pop_front() else {
                    break;
                };
                self.begin(job)?;
            }
            if !self.scan_in_flight
                && !drains
                && self.keys.len() < self.page.names_ahead()
                && let Some(cursor) = self.cursor.take()
            {
                self.queue_scan(cursor)?;
                if self.page.is_far() {
                    // Everything waits for its answer; the keys' commands may take their time.
                    self.conn.flush()?;
                }
            }
            let room = self.room();
            if room == 0 || self.keys.is_empty() {
                break;
            }
            let count = self.keys.len().min(room).min(self.group_keys());
            let group: Vec<Vec<u8>> = self.keys.drain(..count).collect();
            let queued = self.queue_group(&group);
            // Whether it went out or not: what waits for an answer is asked again.
            self.sent_keys += group.len();
            self.sent.push_back(Sent::Group(group));
            queued?;
        }
        self.conn.flush()?;
        Ok(())
    }

    /// Ends the scan as soon as what is in flight has come; it will begin anew.
    fn abandon(&mut self) {
        self.abandoned = true;
        self.waiting.clear();
        self.cursor = None;
        self.drop_names();
    }

    /// Names that were returned and will be returned again by the next scan.
    fn drop_names(&mut self) {
        self.counts.of(self.db).superseded += self.keys.len() as u64;
        self.keys.clear();
    }

    fn begin(&mut self, job: Job) -> Result<()> {
        let db = match &job {
            Job::Scan(db) | Job::Names(db, _) => *db,
        };
        self.db = db;
        let counts = self.counts.of(db);
        match job {
            Job::Scan(_) => self.cursor = Some(b"0".to_vec()),
            Job::Names(_, names) => {
                counts.reread += names.len() as u64;
                self.keys = names.into();
                self.leave_to_owners(0, true);
            }
        }
        self.enter()
    }

    /// Whether every database was scanned until its cursor came back as 0, and every key asked for.
    fn is_at_end(&self) -> bool {
        self.waiting.is_empty() && self.cursor.is_none() && self.keys.is_empty()
    }

    /// How many more keys may be asked for. Refilled only when half of the window is used up, so
    /// that requests leave in large writes.
    fn room(&self) -> usize {
        self.window().saturating_sub(self.sent_keys)
    }

    /// How many keys may be asked for and not answered.
    fn window(&self) -> usize {
        let (most_keys, most_bytes) = match &self.pace {
            Some(pace) => (pace.window_keys(), pace.window_bytes()),
            None => (usize::MAX, usize::MAX),
        };
        let window_bytes = match self.page.is_far() {
            true => FAR_WINDOW_BYTES,
            false => WINDOW_BYTES,
        };
        let keys = window_bytes.min(most_bytes) / self.guess_bytes.max(1);
        let most_keys = most_keys.min(self.page.window_keys());
        keys.clamp(1, self.squeeze.most_keys(most_keys).max(1))
    }

    /// How many keys may be in one MULTI.
    fn group_keys(&self) -> usize {
        match &self.pace {
            Some(pace) => pace.window_keys().min(GROUP_KEYS),
            None => GROUP_KEYS,
        }
    }

    /// COUNT of the next SCAN.
    fn scan_count(&self) -> u32 {
        match &self.pace {
            Some(pace) => self.page.count_within(pace.window_keys()),
            None => self.page.count(),
        }
    }

    /// Fills the batch; on an error everything that was asked and not answered is still known.
    fn read_on(&mut self, batch: &mut Batch) -> Result<()> {
        batch.context = self.context();
        if let Some(payload) = self.functions.take() {
            self.functions_given += 1;
            batch.push(Record::Functions(payload));
        }
        self.begin_checkpoint();
        while !batch.is_full() {
            self.give_tombstones(batch);
            if !self.awaited.is_empty() {
                self.read_payload(batch)?;
                continue;
            }
            if self.is_drained() {
                batch.checkpoint = self.take_checkpoint().map(Box::new);
                break;
            }
            // Asking when half of the window is used up keeps the server busy and the writes large.
            if self.sent_keys <= self.window() / 2 {
                self.send()?;
            }
            match self.sent.front() {
                None if self.is_at_end() => break,
                None => {
                    // Reaching the end is claimed only where it is proved.
                    return Err(anyhow!("the scan stopped before its end; this is a bug"));
                }
                Some(Sent::Scan(_)) => self.read_scan()?,
                Some(Sent::Group(keys)) => {
                    let keys = keys.len();
                    self.open_group(keys)?;
                }
            }
        }
        self.give_tombstones(batch);
        Ok(())
    }

    /// The payloads' own version is the one that counts.
    pub(in crate::source) fn stamp(&self, batch: &mut Batch) {
        if let Some(rdb_version) = footer_version(batch) {
            batch.context.rdb_version = rdb_version;
        }
    }

    fn context(&self) -> Context {
        Context {
            source_time_ms: self.clock.now_ms(),
            family: self.facts.family,
            rdb_version: self.facts.rdb_version(),
            node: 0,
        }
    }
}

impl Source for ServerSource {
    fn read(&mut self, batch: &mut Batch) -> Result<bool> {
        loop {
            let error = match self.lost.take() {
                Some(error) => error,
                None => match self.read_on(batch) {
                    Ok(()) => break,
                    Err(error) => error,
                },
            };
            if !self.may_resume(&error) {
                return Err(error);
            }
            if !batch.is_empty() {
                // Handed on first: what comes after may be of another server.
                self.lost = Some(error);
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
        SourceReport {
            counts: self.counts.rows(),
            functions: self.functions_given,
            // SCAN may return a key twice when the table is resized under it.
            duplicates_possible: true,
            reached: Some(ConsistencyReached::Scan {
                from_ms: self.from_ms,
                to_ms: self.clock.now_ms(),
            }),
            of_one_instant: false,
            consistency_missed: self.consistency_missed,
            started_ms: self.started_ms,
            cut_short: Vec::new(),
            not_had: self
                .unread
                .iter()
                .chain(&self.libraries_unread)
                .cloned()
                .collect(),
            libraries_unread: self.libraries_unread.clone(),
            no_libraries: self.no_libraries.clone(),
            libraries_apart: Vec::new(),
            lost_dbs: self.lost_dbs.clone(),
            left_out: self.left_out.clone(),
            export_failed: Vec::new(),
            export_lacks: Vec::new(),
            outside: Vec::new(),
            module_aux_left_out: Default::default(),
            above_max_value: self.above_max_value,
            paused: Some(self.paused).filter(|paused| !paused.is_zero()),
        }
    }

    fn estimate(&self) -> Estimate {
        Estimate {
            records: Some(self.databases.iter().map(|row| row.keys).sum()),
            bytes: None,
        }
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
