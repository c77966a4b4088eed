//! A live server as a sink: RESTORE, pipelined, with every reply matched to its key.
//!
//! What is decided is apart from what is done. [`writer`] decides: it is a value without I/O, threads
//! or clock, takes events and gives actions. [`ServerSink`] is the shell around it: it owns the
//! connections (`port`), carries out one action after the other (`shell`, with `pack`, `answer`, `ask`
//! for the bytes) and tells the writer what came of each. Where to look:
//!
//! | question | room |
//! |---|---|
//! | what does this error reply mean, and this key that stands? | `writer/judge.rs` |
//! | what is counted, remembered and told of an answer? | `writer/outcome.rs`, `writer/written.rs` |
//! | what does a record need before it goes out? | `writer/step.rs`, `writer/intake.rs` |
//! | what becomes of what was in flight when a connection is lost? | `writer/links.rs` |
//! | which commands are sent for it, and what may they be answered with? | `pack.rs`, `answer.rs` |
//!
//! What may be in flight is bounded in bytes. A key that is in flight is never sent again before
//! its reply is there, so records of the same key take effect in their order, whatever has to be
//! repeated, and wherever it goes then.
//!
//! A standalone destination has one lane, a cluster one for each primary. All are worked by one
//! thread: it sends to all of them, and reads the replies of the one that has enough in flight, while
//! the others work.

pub mod access;
mod answer;
mod ask;
pub mod commands;
pub mod compare;
mod dangers;
pub mod foresee;
pub mod functions;
pub mod gate;
mod graphs;
pub mod held;
pub mod key_classes;
pub mod libraries;
mod modules;
mod pack;
mod port;
pub mod prepare;
pub mod refusal;
mod shell;
mod sweep;
mod try_out;
pub mod unfit;
pub mod watch;
mod window;
pub mod witness;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;

use self::held::{HeldConflict, Repeats};
use self::shell::Shell;
use self::window::Window;
use self::witness::Acknowledged;
use self::writer::{Event, Fleet, Item, Now, Settings, Writer};
use super::{Accepted, Sink};
use crate::dialect::Lookalike;
use crate::endpoint::ConnectOptions;
use crate::exit::{self, Usage};
use crate::host;
use crate::ledger::{SinkReport, SourceReport};
use crate::observer::Observer;
use crate::own_writes::{Fingerprint, FingerprintSet, OwnWrites};
use crate::policy::{AllowLoss, FunctionPolicy, Method, OnConflict};
use crate::record::{Batch, Context, Family, Origin, Record};
use crate::server::cluster::Topology;
use crate::server::facts::{Facts, ServerClock, setting};
use crate::server::reconnect::Retries;
use crate::server::{Conn, ServerError};
use crate::stop::Stop;

/// How to write.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerSinkOptions {
    /// Conflicts.
    pub on_conflict: OnConflict,
    /// Function libraries.
    pub functions: FunctionPolicy,
    /// Refuse larger values.
    pub max_value_bytes: Option<u64>,
    /// Losses that are accepted.
    pub allow_loss: AllowLoss,
    /// Write every value anew in universal forms.
    pub sanitize: bool,
    /// Send values that can stay as they are without looking at them.
    pub no_check: bool,
    /// By RESTORE or by native commands.
    pub method: Method,
    /// Different keys of the source may come under one name: it is noticed, if origins are kept.
    pub may_collide: bool,
    /// A key may come with several records.
    pub repeats: Repeats,
    /// What arrived is deleted at the source.
    pub deletes_source: bool,
    /// Change nothing, say what would happen.
    pub dry_run: bool,
}

/// Writes a live server, or a cluster.
pub struct ServerSink {
    writer: Writer,
    shell: Shell,
    /// How many databases a cluster has.
    cluster_databases: u32,
}

impl ServerSink {
    /// Prepares to write what `conn`, made by `to`, leads to.
    ///
    /// # Errors
    /// Connection errors, and a cluster that is not whole.
    pub fn open(
        to: &ConnectOptions,
        conn: Conn,
        options: ServerSinkOptions,
        accepted: Option<Box<dyn Accepted>>,
        observer: Arc<Observer>,
        stop: &Stop,
    ) -> Result<Self> {
        let mut beginning = Beginning {
            to,
            retries: Retries::new(to),
            stop,
        };
        let (mut conn, facts, clock, window) = beginning.ask(conn)?;
        let settings = Settings {
            options,
            listens: accepted.is_some(),
            compares: accepted.as_ref().is_some_and(|by| by.compares()),
            ..Settings::default()
        };
        let now = Now {
            at: host::now(),
            unix_ms: clock.now_ms(),
        };
        let mut cluster_databases = u32::MAX;
        if facts.lookalike.is_some_and(Lookalike::has_one_database) {
            cluster_databases = 1;
        }
        let fleet = match facts.cluster {
            true => {
                cluster_databases = databases_of_cluster(&mut conn)?;
                Fleet::cluster(to.clone(), whole_topology(&mut conn)?, window, now.at)
            }
            false => Fleet::standalone(to.clone(), window),
        };
        let mut sink = Self {
            writer: Writer::new(settings, fleet, to.retry_for, now),
            shell: Shell {
                ports: Vec::new(),
                observer,
                accepted,
                clock,
                stop: stop.clone(),
                now,
                untold: None,
                has_failed: false,
            },
            cluster_databases,
        };
        match facts.cluster {
            true => sink.meet_cluster()?,
            false => sink.meet(to, conn, facts, beginning)?,
        }
        sink.say_what_may_go_wrong()?;
        Ok(sink)
    }

    /// Meets a standalone destination.
    fn meet(
        &mut self,
        to: &ConnectOptions,
        conn: Conn,
        facts: Facts,
        mut beginning: Beginning<'_>,
    ) -> Result<()> {
        let mut met = self.shell.port(0).meet_as(to, conn, facts, false);
        loop {
            match met {
                Ok(introduction) => {
                    let event = Event::Met(0, Box::new(introduction));
                    return self.writer.on(event, self.shell.now);
                }
                Err(lost) => {
                    let conn = beginning.connect(lost)?;
                    met = self.shell.port(0).meet(to, conn, false);
                }
            }
        }
    }

    /// Connects to every primary of a cluster, before anything is written.
    fn meet_cluster(&mut self) -> Result<()> {
        for at in 0..self.writer.fleet().lanes().len() {
            let lane = self.writer.fleet().lane(at);
            let to = lane.to().clone();
            let mut conn = Conn::open(&to).map_err(|error| unreached(&lane.address(), error))?;
            conn.heed(&to, &self.shell.stop.flag());
            let introduction = self.shell.port(at).meet(&to, conn, false)?;
            let event = Event::Met(at, Box::new(introduction));
            self.writer.on(event, self.shell.now)?;
        }
        Ok(())
    }

    /// Something happens, and all that follows is done.
    fn take(&mut self, event: Event) -> Result<()> {
        self.writer.on(event, self.shell.now)?;
        self.run()
    }

    /// Carries out what the writer wants done, until it wants nothing.
    fn run(&mut self) -> Result<()> {
        loop {
            let Some(action) = self.writer.next()? else {
                return Ok(());
            };
            if let Some(event) = self.shell.carry_out(action)? {
                self.writer.on(event, self.shell.now)?;
            }
            // Conflicts that were held are judged to the end before the run ends.
            if self.shell.untold.is_some()
                && !self.shell.has_failed
                && !self.writer.is_judging()
                && let Some(error) = self.shell.untold.take()
            {
                return Err(error);
            }
        }
    }

    /// The run failed: counts what was applied, and says what became of the source's keys.
    fn give_up(&mut self) {
        self.shell.has_failed = true;
        self.shell.look();
        // Why the run failed is told already.
        let _ = self.take(Event::GiveUp);
    }

    /// The values will come straight from a live server of this family and version.
    pub fn expect_twin(&mut self, family: Family, version: &str) {
        let twin = (!version.is_empty()).then(|| (family, version.to_owned()));
        self.writer.settings().twin_of = twin;
    }

    /// Expiries are counted from this moment (Unix ms), so those of an earlier run of the same
    /// import are earlier.
    pub fn expect_rebased(&mut self, from_ms: u64) {
        self.writer.settings().rebased_from_ms = Some(from_ms);
    }

    /// What the server said of itself, or the first primary of a cluster.
    pub fn facts(&self) -> &Facts {
        &self.writer.fleet().lane(0).facts
    }

    /// The server's clock.
    pub fn clock(&self) -> ServerClock {
        self.shell.clock
    }

    /// Refuses what would go into a database that a cluster does not have, before anything is
    /// written. `moves`: databases of the source, and where each goes.
    ///
    /// # Errors
    /// [`Usage`].
    pub fn check_databases(
        &self,
        moves: impl IntoIterator<Item = (u32, u32)>,
    ) -> Result<(), Usage> {
        let mut moves = moves.into_iter();
        match moves.find(|(_, to)| *to >= self.cluster_databases) {
            None => Ok(()),
            Some((from, to)) => {
                let mapped = match from == to {
                    true => String::new(),
                    false => format!(" as database {to}"),
                };
                let what = match self.facts().lookalike {
                    Some(lookalike) => lookalike.name(),
                    None => "a cluster",
                };
                Err(Usage(format!(
                    "the destination is {what}, which has only database 0, but keys of database \
                     {from} would go there{mapped}; --map-db {from}:0 (or *:0) puts them into \
                     database 0, --db leaves databases out"
                )))
            }
        }
    }

    /// Warns if `coming_bytes` of values are likely to exceed the destination's memory.
    pub fn check_memory(&self, coming_bytes: u64) {
        let (mut all_max, mut all_used) = (0_u64, 0_u64);
        for lane in self.writer.fleet().lanes() {
            let (Some(max @ 1..), Some(used)) = (lane.facts.memory.max, lane.facts.memory.used)
            else {
                return;
            };
            all_max = all_max.saturating_add(max);
            all_used = all_used.saturating_add(used);
        }
        if all_used.saturating_add(coming_bytes) > all_max {
            self.shell.observer.warn(&format!(
                "the destination is likely to run out of memory: maxmemory {}, used {}, at least \
                 {} to come",
                crate::units::bytes_text(all_max),
                crate::units::bytes_text(all_used),
                crate::units::bytes_text(coming_bytes),
            ));
        }
    }

    /// Tries the databases that the run is expected to write, before its first key, and says which
    /// are not to be had. `expected`: databases of the destination, and how many keys are expected
    /// to go there, where that is known.
    ///
    /// # Errors
    /// Interruption.
    pub fn try_databases(
        &mut self,
        expected: impl IntoIterator<Item = (u32, Option<u64>)>,
    ) -> Result<()> {
        let mut keys: BTreeMap<u32, Option<u64>> = BTreeMap::new();
        for (db, count) in expected {
            let sum = keys.entry(db).or_default();
            *sum = count
                .map(|count| sum.unwrap_or(0).saturating_add(count))
                .or(*sum);
        }
        let others: Vec<u32> = keys.keys().copied().filter(|db| *db > 0).collect();
        let mut refused = BTreeMap::new();
        for (at, lane) in self.writer.fleet().lanes().iter().enumerate() {
            if keys.contains_key(&0)
                && let Some(conn) = self.shell.port(at).open_conn()
                && let Some(text) = gate::refuses_database_0(conn, &lane.facts)
            {
                refused.insert(0, text);
            }
            if !others.is_empty() {
                refused.append(&mut gate::try_select(lane.to(), &others));
            }
            exit::unless_stopped(&self.shell.stop)?;
        }
        for line in gate::refused_lines(&refused, &keys) {
            self.shell.observer.warn(&line);
        }
        self.writer.note_databases(refused, keys.into_keys());
        Ok(())
    }
}

/// What a later run of the same import needs.
impl ServerSink {
    /// How many batches, from the first, have every record answered.
    pub fn settled_batches(&self) -> u64 {
        self.writer.settled_batches()
    }

    /// Keys that failed so far.
    pub fn failed(&mut self) -> u64 {
        self.writer.ledger().report().failed()
    }

    /// A record that is carried out already: the key stands, or was deleted.
    pub fn take_as_done(&mut self, db: u32, key: &[u8], stands: bool) {
        let print = self.writer.memory().fingerprint(db, key);
        self.writer.ledger().count_as_done(print, stands);
    }

    /// Takes over what an earlier run has written.
    pub fn set_own(&mut self, own: OwnWrites) {
        self.writer.memory().set_own(own);
    }

    /// This key was written by this import.
    ///
    /// # Errors
    /// The temporary file's.
    pub fn remember_own(&mut self, db: u32, key: &[u8]) -> Result<()> {
        let memory = self.writer.memory();
        let print = memory.fingerprint(db, key);
        memory.remember(print)
    }

    /// Fingerprints of keys written since the last time.
    pub fn take_unsaved(&mut self) -> Vec<Fingerprint> {
        self.writer.memory().take_unsaved()
    }

    /// From now on, keeps what is held for [`Self::take_unsaved_held`].
    pub fn keep_unsaved_held(&mut self) {
        self.writer.memory().keep_unsaved_held();
    }

    /// What was held since the last time.
    pub fn take_unsaved_held(&mut self) -> Vec<HeldConflict> {
        self.writer.memory().take_unsaved_held()
    }

    /// Takes over what an earlier run held.
    ///
    /// # Errors
    /// The temporary file's.
    pub fn hold_earlier(&mut self, conflict: HeldConflict) -> Result<()> {
        self.writer.memory().hold_earlier(conflict)
    }

    /// An earlier run wrote what stands there, and this one does not write it again: a server that
    /// loses it is told of.
    pub fn rely_on_what_stands(&mut self) {
        self.writer.rely_on_what_stands();
    }

    /// From now on, notes keys for [`Self::take_acknowledged`]; `known` were noted by an earlier run.
    pub fn keep_witnesses(&mut self, known: FingerprintSet) {
        self.writer.keep_witnesses(known);
    }

    /// Keys that were acknowledged last, a sample of the others, and those noted before that have
    /// changed since.
    pub fn take_acknowledged(&mut self) -> Vec<Acknowledged> {
        self.writer.take_acknowledged()
    }

    /// Keys that were noted and that records of this batch are about to change: until they are
    /// acknowledged, nobody can say what they hold.
    pub fn about_to_change(&self, batch: &Batch) -> Vec<Acknowledged> {
        self.writer.about_to_change(batch)
    }

    /// The processes that are written to (`run_id`); `None` for one that does not say.
    pub fn processes(&self) -> impl Iterator<Item = Option<&str>> {
        let lanes = self.writer.fleet().lanes().iter();
        let met = lanes.filter(|lane| lane.is_up());
        met.map(|lane| lane.facts.run_id.as_deref())
    }

    /// A process was started anew, or replaced, after it had acknowledged something.
    pub fn has_lost_memory(&self) -> bool {
        self.writer.has_lost_memory()
    }
}

/// What a run begins with, before its destination is met.
struct Beginning<'a> {
    to: &'a ConnectOptions,
    retries: Retries,
    stop: &'a Stop,
}

impl Beginning<'_> {
    /// Asks the destination what it is and what time it has, however often the connection is lost
    /// over it, within bounds.
    fn ask(&mut self, mut conn: Conn) -> Result<(Conn, Facts, ServerClock, Window)> {
        loop {
            conn.doing("asking the destination what it is");
            let facts = Facts::ask(&mut conn);
            let asked = host::now();
            match facts.and_then(|facts| Ok((facts, ServerClock::ask(&mut conn)?))) {
                Ok((facts, clock)) => {
                    let window = Window::for_round_trip(host::elapsed(asked));
                    return Ok((conn, facts, clock, window));
                }
                Err(lost) => conn = self.connect(lost)?,
            }
        }
    }

    fn connect(&mut self, lost: ServerError) -> Result<Conn, ServerError> {
        let stops = || self.stop.is_set();
        let mut conn = self.retries.connect(self.to, lost, &stops)?;
        conn.heed(self.to, &self.stop.flag());
        Ok(conn)
    }
}

/// Who serves what, where somebody serves every slot.
fn whole_topology(conn: &mut Conn) -> Result<Topology> {
    let topology = Topology::ask(conn)?;
    match topology.first_gap() {
        None => Ok(topology),
        Some(slot) => anyhow::bail!(
            "the destination is a cluster in which no node serves slot {slot}; nothing was written"
        ),
    }
}

/// An announced address may be one that leads nowhere from here.
fn unreached(address: &str, error: ServerError) -> anyhow::Error {
    let is_connecting = matches!(error, ServerError::Connect { .. });
    let error = anyhow::Error::new(error);
    if !is_connecting {
        return error;
    }
    error.context(format!(
        "the cluster announces a primary at {address}; if it has another address from here, name \
         it with --node-map {address}=HOST:PORT (copy: --dest-node-map)"
    ))
}

/// Valkey has clusters of several databases from 9.0 on.
fn databases_of_cluster(conn: &mut Conn) -> Result<u32> {
    let told = setting(conn, "cluster-databases")?.ok().flatten();
    Ok(told.and_then(|text| text.parse().ok()).unwrap_or(1))
}

/// The records of a batch by database, those of the database that is `selected` first. Records of
/// one key stay in their order.
fn by_database(batch: &mut Batch, selected: Option<u32>) {
    let db_of = |record: &Record| match record {
        Record::Key(key) => Some(key.db),
        Record::Deleted { db, .. } => Some(*db),
        _ => None,
    };
    let first = batch.records.first().and_then(db_of);
    let is_plain = batch.records.iter().all(|record| db_of(record) == first);
    // What belongs to no database keeps its place among the others.
    if is_plain || batch.records.iter().any(|record| db_of(record).is_none()) {
        return;
    }
    let rank = |record: &Record| (db_of(record) != selected, db_of(record));
    let mut origins = std::mem::take(&mut batch.origins).into_iter();
    let records = std::mem::take(&mut batch.records).into_iter();
    let mut rows: Vec<(Record, Option<Origin>)> =
        records.map(|record| (record, origins.next())).collect();
    rows.sort_by_key(|(record, _)| rank(record));
    for (record, origin) in rows {
        batch.records.push(record);
        batch.origins.extend(origin);
    }
}

impl Sink for ServerSink {
    fn write(&mut self, mut batch: Batch) -> Result<()> {
        self.shell.look();
        self.writer.on(Event::BatchBegins, self.shell.now)?;
        by_database(&mut batch, self.writer.fleet().selected());
        let context: Context = batch.context;
        let mut origins = batch.origins.into_iter();
        for record in batch.records {
            let origin = origins.next();
            match record {
                Record::Key(record) => {
                    let spare = self.writer.spare();
                    self.take(Event::Record(Item::given(spare, record, origin, context)))?
                }
                Record::Deleted { db, key } => {
                    self.take(Event::Record(Item::tombstone(db, key, context)))?
                }
                Record::Functions(payload) => self.take(Event::Libraries(payload))?,
                _ => {}
            }
        }
        self.take(Event::BatchEnds)
    }

    fn idle(&mut self) -> Result<()> {
        self.shell.look();
        self.take(Event::Idle)
    }

    fn finish(mut self: Box<Self>, _: &SourceReport) -> (SinkReport, Result<()>) {
        self.shell.look();
        let done = self.take(Event::Finish);
        if done.is_err() {
            self.give_up();
        }
        (self.writer.into_report(), done)
    }

    fn abort(mut self: Box<Self>, _: &str) -> SinkReport {
        self.give_up();
        self.writer.into_report()
    }
}
