//! A live server, exact under writes: what changes during the scan is read again, until one last
//! round is provably equal to the source at one instant.
//!
//! CLIENT TRACKING tells the names. Rounds of re-reading shrink what is left; the last round reads
//! all of it, together with what nobody is told of (streams with consumer groups), in one
//! MULTI/EXEC. If nothing outside of that was written by then, everything given so far together
//! with this round is what the source held at that EXEC. See [`last`] for why.

mod last;
mod pause;
mod shot;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use self::last::{LastRound, Outcome, Pending};
use super::given::{Given, NotMetAgain};
use super::{Job, ServerSource};
use crate::endpoint::ConnectOptions;
use crate::exit::Interrupted;
use crate::ledger::{ConsistencyReached, SourceReport};
use crate::observer::Observer;
use crate::pace::Pace;
use crate::pipe::Stop;
use crate::policy::Consistency;
use crate::record::{Batch, Record};
use crate::server::facts::{Facts, Keyspace, info, keyspace};
use crate::server::tracking::Tracker;
use crate::server::{Conn, ServerError};
use crate::source::{Estimate, Source};

/// Rounds before the last one.
const MAX_ROUNDS: u32 = 6;

/// With so few names left, the last round may come.
const FEW_NAMES: usize = 50;

/// Scans that may be begun anew before giving up.
const MAX_RESTARTS: u32 = 3;

/// How often a batch may hold something that is refused.
const MAX_REFUSALS: u32 = 3;

/// Names of one job, so that memory stays bounded.
const JOB_NAMES: usize = 10_000;

/// While following, how often a source without news is heard of.
const HEARTBEAT: Duration = Duration::from_millis(250);

/// While following, how long changes may gather before they are read.
const GATHER: Duration = Duration::from_millis(100);

/// How exact, and for how long.
#[derive(Debug, Clone)]
pub struct ConvergeOptions {
    /// What was asked for.
    pub consistency: Consistency,
    /// The longest that writes may be paused, and that the last round may take the server.
    pub max_pause: Duration,
    /// The longest that the rounds after the scan may take.
    pub max_wait: Duration,
    /// Whether to go on sending changes after the scan, and until when.
    pub follow: Option<Follow>,
}

/// Until when changes are followed.
#[derive(Debug, Clone, Default)]
pub struct Follow {
    /// Until nothing changed for so long.
    pub until_idle: Option<Duration>,
    /// For so long.
    pub total: Option<Duration>,
    /// Or until this is set.
    pub stop: Stop,
}

enum Phase {
    Scan,
    /// After a scan that began anew: what was given before it and has not come again.
    CatchUp(NotMetAgain),
    Rounds {
        left: u32,
        last_names: usize,
    },
    Follow,
    Last(LastRound),
    /// Not exact: what is known to have changed is being read a last time.
    Farewell,
    Done,
}

/// Reads a live server until what was read is exact.
pub struct ConvergingSource {
    inner: ServerSource,
    connect: ConnectOptions,
    options: ConvergeOptions,
    observer: Arc<Observer>,
    tracker: Tracker,
    phase: Phase,
    restarts: u32,
    /// When the rounds began, for `max_wait`.
    rounds_began: Option<Instant>,
    follow_began: Option<Instant>,
    last_change: Instant,
    /// Names whose turn is in the last round, because they are large and change all the time.
    postponed: HashSet<Vec<u8>>,
    /// How often a name was read again.
    rereads: HashMap<Vec<u8>, u8>,
    reached: Option<ConsistencyReached>,
    /// Why it was not what was asked for.
    missed: Option<String>,
    swapdb_calls: Option<u64>,
    functions: Option<Vec<u8>>,
    /// Whether FUNCTION DUMP is answered.
    functions_known: bool,
    /// XINFO STREAM is refused: every stream is read again in the last round.
    looks_refused: bool,
    /// How often something in the last round's batch was refused.
    refusals: u32,
    /// A scan was begun anew: what was given before may be gone.
    began_anew: bool,
    /// The following is over: what comes is the last round.
    follow_over: bool,
    /// Changes were missed for good.
    lost_track: bool,
}

impl ConvergingSource {
    /// Begins to listen to the server that `inner` is about to scan. The inner `Err` gives the
    /// source back, with the server's words, where tracking is refused.
    ///
    /// # Errors
    /// The connection.
    pub fn open(
        mut inner: ServerSource,
        connect: ConnectOptions,
        options: ConvergeOptions,
    ) -> Result<Result<Self, (ServerSource, String)>> {
        if !inner.abilities.multi {
            return Ok(Err((inner, "MULTI is refused".to_owned())));
        }
        let tracker = match start_tracker(&mut inner, &connect)? {
            Ok(tracker) => tracker,
            Err(text) => return Ok(Err((inner, text))),
        };
        // A plain scan needs no log of names: it never begins anew.
        let with_log = options.consistency != Consistency::Auto || options.follow.is_some();
        inner.given = Some(Given::new(with_log)?);
        // Given once, at the end: later libraries would collide with earlier ones.
        let functions = inner.functions.take();
        let functions_known = inner.functions_known;
        let swapdb_calls = inner.ask(|conn| Ok(shot::swapdb_calls(conn)?))?;
        Ok(Ok(Self {
            observer: Arc::clone(&inner.observer),
            inner,
            connect,
            options,
            tracker,
            phase: Phase::Scan,
            restarts: 0,
            rounds_began: None,
            follow_began: None,
            last_change: Instant::now(),
            postponed: HashSet::new(),
            rereads: HashMap::new(),
            reached: None,
            missed: None,
            swapdb_calls,
            functions_known,
            functions,
            looks_refused: false,
            refusals: 0,
            began_anew: false,
            follow_over: false,
            lost_track: false,
        }))
    }

    /// The scan itself, for what it knows of the server.
    pub fn scan(&self) -> &ServerSource {
        &self.inner
    }

    /// One step of the present phase; `true` if the batch has something or a heartbeat is due.
    fn step(&mut self, batch: &mut Batch) -> Result<bool> {
        if !matches!(self.phase, Phase::Done | Phase::Last(_)) && self.restart_if_needed()? {
            return Ok(false);
        }
        // Whatever was begun is read to its end first.
        if !matches!(self.phase, Phase::Done | Phase::Last(_)) && self.inner.read(batch)? {
            return Ok(true);
        }
        match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Scan => self.after_scan()?,
            Phase::CatchUp(log) => self.catch_up(log)?,
            Phase::Rounds { left, last_names } => self.round(left, last_names)?,
            Phase::Follow => return self.follow(),
            Phase::Last(round) => self.last_round(round, batch)?,
            Phase::Farewell => self.farewell(batch)?,
            Phase::Done => {}
        }
        Ok(!batch.is_empty())
    }

    /// A flush, too many changes or a lost connection: everything given so far may be wrong.
    fn restart_if_needed(&mut self) -> Result<bool> {
        if std::mem::take(&mut self.inner.process_changed) && self.missed.is_none() {
            return self.restart("the source was restarted, or is another one");
        }
        if !self.tracker.waiting().1 || self.missed.is_some() {
            return Ok(false);
        }
        let heard = self.tracker.take();
        let reason = heard.means_rescan().unwrap_or("unknown").to_owned();
        let again = self.restart(&reason)?;
        if !again {
            self.reread(heard.names);
        }
        Ok(again)
    }

    /// Begins the scan anew, within bounds; `false` if that is not to be done any more.
    fn restart(&mut self, reason: &str) -> Result<bool> {
        let no_log = self.options.consistency == Consistency::Auto && self.options.follow.is_none();
        if no_log || self.restarts >= MAX_RESTARTS {
            self.lost_track = true;
            self.miss(format!("changes can no longer be followed: {reason}"));
            return Ok(false);
        }
        if self.inner.stop().is_some_and(Stop::is_set) {
            return Err(Interrupted.into());
        }
        self.restarts += 1;
        self.began_anew = true;
        self.observer
            .notice(&format!("the scan begins anew: {reason}"));
        self.inner.abandon();
        while !self.inner.sent.is_empty() || !self.inner.awaited.is_empty() {
            // What is still in flight was asked before; the new scan reads it again.
            let mut dropped = Batch::new();
            self.inner.read(&mut dropped)?;
            self.put_back(&dropped);
        }
        self.inner.abandoned = false;
        self.tracker = match start_tracker(&mut self.inner, &self.connect)? {
            Ok(tracker) => tracker,
            Err(text) => {
                self.lost_track = true;
                self.miss(format!("the source refuses CLIENT TRACKING now: {text}"));
                return Ok(false);
            }
        };
        self.swapdb_calls = self.inner.ask(|conn| Ok(shot::swapdb_calls(conn)?))?;
        let facts = self.inner.ask(|conn| Ok(Facts::ask(conn)?))?;
        self.inner.facts.run_id = facts.run_id.clone();
        self.inner.facts.replica = facts.replica;
        // Heard of while the scan was at rest: it begins anew anyway.
        self.inner.process_changed = false;
        let (options, observer) = (self.inner.options.clone(), &self.observer);
        let databases = |conn: &mut Conn| super::probe::databases(conn, &facts, &options, observer);
        // Those that held keys before stay: they may again.
        for row in self.inner.ask(databases)? {
            if !self.inner.databases.iter().any(|known| known.db == row.db) {
                self.inner.databases.push(row);
            }
        }
        self.inner.selected = None;
        self.inner.waiting = self
            .inner
            .databases
            .iter()
            .map(|row| Job::Scan(row.db))
            .collect();
        if let Some(given) = &mut self.inner.given {
            given.begin_again();
        }
        self.postponed.clear();
        self.phase = Phase::Scan;
        Ok(true)
    }

    /// Records that were read but are not given: they did not happen.
    fn put_back(&mut self, batch: &Batch) {
        for record in &batch.records {
            let db = match record {
                Record::Key(key) => key.db,
                Record::Deleted { db, .. } => *db,
                _ => continue,
            };
            let counts = self.inner.counts.of(db);
            counts.written -= 1;
            counts.superseded += 1;
        }
    }

    fn after_scan(&mut self) -> Result<()> {
        let given = self
            .inner
            .given
            .as_mut()
            .ok_or_else(|| anyhow!("nothing is remembered"))?;
        self.phase = if std::mem::take(&mut self.began_anew) {
            Phase::CatchUp(given.not_met_again()?)
        } else {
            Phase::Rounds {
                left: MAX_ROUNDS,
                last_names: usize::MAX,
            }
        };
        Ok(())
    }

    fn catch_up(&mut self, mut log: NotMetAgain) -> Result<()> {
        let given = self
            .inner
            .given
            .as_ref()
            .ok_or_else(|| anyhow!("nothing is remembered"))?;
        let names = log.next(given, JOB_NAMES)?;
        if names.is_empty() {
            self.phase = Phase::Rounds {
                left: MAX_ROUNDS,
                last_names: usize::MAX,
            };
            return Ok(());
        }
        self.inner
            .waiting
            .extend(names.into_iter().map(|(db, names)| Job::Names(db, names)));
        self.phase = Phase::CatchUp(log);
        Ok(())
    }

    /// Databases that hold keys now and are not read yet.
    fn unknown_databases(&self, now: Option<&[Keyspace]>) -> Vec<Keyspace> {
        let known = &self.inner.databases;
        let unknown = |row: &&Keyspace| !known.iter().any(|known| known.db == row.db);
        now.unwrap_or_default()
            .iter()
            .filter(unknown)
            .copied()
            .collect()
    }

    /// Scans databases that had no keys before, besides what is read anyway.
    fn add_databases(&mut self, rows: Vec<Keyspace>) {
        for row in rows {
            self.inner.waiting.push_back(Job::Scan(row.db));
            self.inner.databases.push(row);
        }
    }

    /// Asks whether there are keys in databases that had none before.
    fn look_for_databases(&mut self) -> Result<()> {
        if self.inner.facts.keyspace.is_none() || !self.inner.options.selection.dbs.is_empty() {
            return Ok(());
        }
        let text = self.inner.ask(|conn| Ok(info(conn, Some("keyspace"))?))?;
        let now = text.map(|text| keyspace(&text));
        let new = self.unknown_databases(now.as_deref());
        self.add_databases(new);
        Ok(())
    }

    /// Takes what was heard; `None` if only a new scan can help, which has been begun then.
    fn take(&mut self) -> Result<Option<HashSet<Vec<u8>>>> {
        let heard = self.tracker.take();
        if self.missed.is_none()
            && let Some(reason) = heard.means_rescan()
            && self.restart(reason)?
        {
            return Ok(None);
        }
        Ok(Some(heard.names))
    }

    /// Takes what was heard, and reads it again.
    fn round(&mut self, left: u32, last_names: usize) -> Result<()> {
        self.rounds_began.get_or_insert_with(Instant::now);
        self.tracker.barrier();
        let (waiting, rescan) = self.tracker.waiting();
        if rescan && self.missed.is_none() {
            self.phase = Phase::Rounds { left, last_names };
            return Ok(());
        }
        // Hot keys never end: once a round does not shrink, the last one has to do.
        if left == 0 || waiting <= FEW_NAMES || waiting >= last_names || self.missed.is_some() {
            self.phase = match &self.options.follow {
                Some(_) if self.missed.is_none() && !self.follow_over => {
                    self.follow_began.get_or_insert_with(Instant::now);
                    self.last_change = Instant::now();
                    // Bounded while there is an end to come to; following has its own.
                    self.restarts = 0;
                    self.observer
                        .notice("everything was read once; following changes");
                    Phase::Follow
                }
                _ => Phase::Last(LastRound::new(self.postponed.drain().collect())),
            };
            return Ok(());
        }
        self.look_for_databases()?;
        self.phase = Phase::Rounds {
            left: left - 1,
            last_names: waiting,
        };
        if let Some(names) = self.take()? {
            self.reread(names);
        }
        Ok(())
    }

    fn reread(&mut self, names: HashSet<Vec<u8>>) {
        /// From so many reads on, a large value waits for the last round.
        const READS: u8 = 3;
        const LARGE_BYTES: usize = 1024 * 1024;
        let unreadable = self.inner.given.as_ref().map(|given| &given.unreadable);
        let mut again = Vec::with_capacity(names.len());
        for name in names {
            if unreadable.is_some_and(|names| names.contains(&name)) {
                continue;
            }
            // Who follows has to see them now.
            let may_wait = self.options.follow.is_none() || self.follow_over;
            if may_wait && self.inner.guess_bytes >= LARGE_BYTES {
                let reads = self.rereads.entry(name.clone()).or_default();
                *reads = reads.saturating_add(1);
                if *reads > READS {
                    self.postponed.insert(name);
                    continue;
                }
            }
            again.push(name);
        }
        if again.is_empty() {
            return;
        }
        for row in &self.inner.databases {
            for chunk in again.chunks(JOB_NAMES) {
                self.inner
                    .waiting
                    .push_back(Job::Names(row.db, chunk.to_vec()));
            }
        }
    }

    /// While following: reads what changed, or waits for it. `true` also where nothing changed for
    /// a while, so that whoever is behind can flush.
    fn follow(&mut self) -> Result<bool> {
        let Some(follow) = self.options.follow.clone() else {
            return Ok(false);
        };
        let began = self.follow_began.unwrap_or_else(Instant::now);
        let waited_since = Instant::now();
        self.phase = Phase::Follow;
        loop {
            let (waiting, rescan) = self.tracker.waiting();
            if rescan {
                return Ok(false);
            }
            let idle = follow
                .until_idle
                .is_some_and(|idle| waiting == 0 && self.last_change.elapsed() >= idle);
            let over = follow.total.is_some_and(|total| began.elapsed() >= total);
            if follow.stop.is_set() || idle || over {
                self.follow_over = true;
                self.rounds_began = Some(Instant::now());
                self.phase = Phase::Rounds {
                    left: MAX_ROUNDS,
                    last_names: usize::MAX,
                };
                return Ok(false);
            }
            if waiting > 0 && waited_since.elapsed() >= GATHER {
                self.last_change = Instant::now();
                self.look_for_databases()?;
                if let Some(names) = self.take()? {
                    self.observer.lag(names.len() as u64);
                    self.reread(names);
                }
                return Ok(false);
            }
            if waited_since.elapsed() >= HEARTBEAT {
                self.observer.lag(0);
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn last_round(&mut self, mut round: LastRound, batch: &mut Batch) -> Result<()> {
        match round.pending(self, batch)? {
            Pending::More => {
                self.phase = Phase::Last(round);
                return Ok(());
            }
            Pending::Exact => return self.end(batch),
            Pending::Nothing => {}
        }
        let began = *self.rounds_began.get_or_insert_with(Instant::now);
        if self.missed.is_none() && began.elapsed() > self.options.max_wait {
            self.miss(format!(
                "keys kept changing for {} (--max-wait)",
                humantime::format_duration(self.options.max_wait)
            ));
        }
        if self.missed.is_some() {
            self.tracker.barrier();
            let mut names = round.take_names();
            names.extend(self.tracker.take().names);
            self.reread(names);
            self.phase = Phase::Farewell;
            return Ok(());
        }
        let outcome = match round.attempt(self) {
            Err(error) if self.inner.may_resume(&error) => {
                self.inner.resume(error)?;
                // As long as changes were listened to all the time, nothing else is lost.
                round.forget_shot();
                Outcome::Grown
            }
            outcome => outcome?,
        };
        match outcome {
            Outcome::Exact { at_ms } => {
                self.reached = Some(ConsistencyReached::Exact(vec![(0, at_ms)]));
                self.phase = Phase::Last(round);
            }
            Outcome::Again => self.phase = Phase::Last(round),
            Outcome::Rescan(reason) => {
                self.restart(&reason)?;
                if self.missed.is_some() {
                    self.phase = Phase::Last(round);
                }
            }
            Outcome::Grown => self.back_to_rounds(round),
            Outcome::Databases(rows) => {
                self.add_databases(rows);
                self.back_to_rounds(round);
            }
            Outcome::Alone(reason) => {
                self.refusals += 1;
                if self.refusals > MAX_REFUSALS {
                    self.miss(format!("the last round is refused: {reason}"));
                    self.phase = Phase::Last(round);
                } else {
                    self.back_to_rounds(round);
                }
            }
            Outcome::Impossible(reason) => {
                self.miss(reason);
                self.phase = Phase::Last(round);
            }
        }
        Ok(())
    }

    /// What the last round would have read is read outside of it first.
    fn back_to_rounds(&mut self, mut round: LastRound) {
        let names = round.take_names();
        self.reread(names);
        self.phase = Phase::Rounds {
            left: 1,
            last_names: usize::MAX,
        };
    }

    /// Not exact, and read once more: says what is known.
    fn farewell(&mut self, batch: &mut Batch) -> Result<()> {
        let (from_ms, to_ms) = (self.inner.from_ms, self.inner.clock.now_ms());
        self.tracker.barrier();
        self.reached = Some(match self.tracker.waiting() {
            _ if self.lost_track => ConsistencyReached::Scan { from_ms, to_ms },
            (_, true) => ConsistencyReached::Scan { from_ms, to_ms },
            (0, false) => ConsistencyReached::PerKey { from_ms, to_ms },
            (keys, false) => ConsistencyReached::Changing {
                from_ms,
                to_ms,
                keys: keys as u64,
            },
        });
        self.end(batch)
    }

    /// The functions, as they are now.
    fn end(&mut self, batch: &mut Batch) -> Result<()> {
        if let Some(payload) = self.functions.take() {
            self.inner.functions_given += 1;
            batch.push(Record::Functions(payload));
        }
        self.phase = Phase::Done;
        Ok(())
    }

    fn miss(&mut self, reason: String) {
        if self.missed.is_none() {
            self.observer.warn(&format!("not exact: {reason}"));
            self.missed = Some(reason);
        }
    }
}

fn start_tracker(
    inner: &mut ServerSource,
    connect: &ConnectOptions,
) -> Result<Result<Tracker, String>> {
    let started = inner.open_beside(|inner| {
        let selection = inner.options.selection.clone();
        Tracker::start(connect, move |name| selection.wants_key(name))
    });
    let started = started.map(|started| {
        started.map(|mut tracker| {
            if let Some(stop) = inner.stop() {
                tracker.heed(&stop.flag());
            }
            tracker
        })
    });
    match started {
        // Lost before it began is lost all the same, and says nothing of the other connection.
        Err(error @ ServerError::Lost { .. }) => Ok(Err(error.to_string())),
        started => Ok(started?),
    }
}

impl Source for ConvergingSource {
    fn read(&mut self, batch: &mut Batch) -> Result<bool> {
        batch.context = self.inner.context();
        loop {
            if matches!(self.phase, Phase::Done) && batch.is_empty() {
                return Ok(false);
            }
            // Also with nothing between two attempts, so that a wish to stop is heard.
            if self.step(batch)? || matches!(self.phase, Phase::Last(_)) {
                self.inner.stamp(batch);
                return Ok(true);
            }
        }
    }

    fn keep_pace(&mut self, pace: &Arc<Pace>) {
        self.inner.keep_pace(pace);
    }

    fn report(&self) -> SourceReport {
        let mut report = self.inner.report();
        if let Some(reached) = &self.reached {
            report.reached = Some(reached.clone());
        }
        let asked = self.options.consistency != Consistency::Auto;
        report.consistency_missed = asked && self.missed.is_some();
        report
    }

    fn estimate(&self) -> Estimate {
        self.inner.estimate()
    }
}
