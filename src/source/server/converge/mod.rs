//! A live server, exact under writes: what changes during the scan is read again, until one last
//! round is provably equal to the source at one instant.
//!
//! CLIENT TRACKING tells the names. Rounds of re-reading shrink what is left; the last round reads
//! all of it, together with what nobody is told of (streams with consumer groups, values of
//! modules), in one MULTI/EXEC. If nothing outside of that was written by then, everything given so far together
//! with this round is what the source held at that EXEC. See [`final_round`] for why.

mod final_round;
mod follow;
mod instant;
mod named;
mod pause;
mod restart;
mod shard;
mod verdict;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use self::final_round::LastRound;
pub use self::follow::Follow;
use self::named::Watch;
pub(in crate::source) use self::pause::Pause;
use self::restart::{may_begin_anew, start_tracker};
pub use self::shard::Together;
pub(in crate::source) use self::shard::{Attempted, TogetherRound, same_owners};
use self::verdict::blindness;
use super::delivered::{Given, GivenLog, NotMetAgain};
use super::probe::FunctionsBy;
use super::{Job, ServerSource};
use crate::endpoint::ConnectOptions;
use crate::host;
use crate::ledger::{ConsistencyReached, SourceReport};
use crate::observer::Observer;
use crate::pace::Pace;
use crate::policy::Consistency;
use crate::record::Batch;
use crate::server::counts::{CommandCounts, Since};
use crate::server::facts::{Keyspace, info, keyspace};
use crate::server::tracking::Tracker;
use crate::server::{ServerError, transaction};
use crate::source::{Estimate, Source};

/// Rounds before the last one.
const MAX_ROUNDS: u32 = 6;

/// With so few names left, the last round may come.
const FEW_NAMES: usize = 50;

/// Names of one job, so that memory stays bounded.
const JOB_NAMES: usize = 10_000;

/// How exact, and for how long.
#[derive(Debug, Clone)]
pub struct ConvergeOptions {
    /// What was asked for.
    pub consistency: Consistency,
    /// The longest that writes may be paused, and that the last round may take the server.
    pub max_pause: Duration,
    /// The longest that the rounds after the scan may take; `None` for what is usual.
    pub max_wait: Option<Duration>,
    /// Whether to go on sending changes after the scan, and until when.
    pub follow: Option<Follow>,
    /// In a cluster: what its shards have in common.
    pub together: Option<Arc<Together>>,
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
    /// In a cluster: the last round waits until every shard has come so far.
    Hold,
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
    /// The process that the scan began at, where it says (INFO run_id).
    process: Option<String>,
    tracker: Tracker,
    phase: Phase,
    restarts: u32,
    began: Instant,
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
    /// How often each command had been called when changes began to be listened to, and when that
    /// was last looked at; `None` where the server does not say.
    counts_at_start: Option<CommandCounts>,
    counts: Option<CommandCounts>,
    /// Databases were swapped, and nothing was scanned anew for it.
    swapped: bool,
    /// Why changes of whole databases would go unnoticed.
    blind: Option<&'static str>,
    functions: Option<Vec<u8>>,
    /// What function libraries are read by, where they can be.
    functions_by: Option<FunctionsBy>,
    /// XINFO STREAM is refused: every stream is read again in the last round.
    looks_refused: bool,
    /// How often the last round was put off for keys that could not be read before and changed.
    detours: u32,
    /// How often something in the last round's batch was refused.
    refusals: u32,
    /// A scan was begun anew: what was given before may be gone.
    began_anew: bool,
    /// The following is over: what comes is the last round.
    follow_over: bool,
    /// Changes were missed for good.
    lost_track: bool,
    /// In a cluster: what reads keys of several slots at one instant.
    script: Option<&'static str>,
    /// While following in a cluster: when the slots were last looked at.
    looked: Instant,
    /// The sentinels that found the source, if any did.
    watch: Watch,
    /// In a cluster: what other nodes gave of slots that are read here now.
    heritage: Vec<GivenLog>,
    /// In a cluster: nothing more until the other shards have come so far.
    resting: bool,
}

impl ConvergingSource {
    /// Begins to listen to the server that `inner` is about to scan. The inner `Err` gives the
    /// source back, and says why it cannot be listened to.
    ///
    /// # Errors
    /// The connection.
    pub fn open(
        mut inner: ServerSource,
        connect: ConnectOptions,
        options: ConvergeOptions,
    ) -> Result<Result<Self, (ServerSource, ServerError)>> {
        if !inner.abilities.multi && options.together.is_none() {
            // Asked again for the words of the refusal; and it may have been one of that moment.
            match inner.ask(|conn| Ok(transaction::prove(conn)?))? {
                Ok(()) => {}
                Err(refusal) => return Ok(Err((inner, refusal))),
            }
            if let Some(text) = inner.ask(|conn| Ok(transaction::refused_when_full(conn)?))? {
                let refusal = inner.conn.refusal("DUMP in a MULTI", text);
                return Ok(Err((inner, refusal)));
            }
            inner.abilities.multi = true;
        }
        let tracker = match start_tracker(&mut inner, &connect)? {
            Ok(tracker) => tracker,
            Err(refusal) => return Ok(Err((inner, refusal))),
        };
        // A plain scan needs no log of names: it never begins anew.
        let with_log = may_begin_anew(&options);
        inner.given = Some(Given::new(with_log)?);
        // Given once, at the end: later libraries would collide with earlier ones.
        let functions = inner.functions.take();
        let functions_by = inner.functions_by;
        // From here on it is looked at here.
        inner.counts_before = None;
        let counts = inner.ask(|conn| Ok(CommandCounts::ask(conn)?))?;
        let blind = blindness(&mut inner, counts.is_some())?;
        let script = match options.together {
            Some(_) => inner.ask(|conn| Ok(instant::script_for(conn)?))?,
            None => None,
        };
        Ok(Ok(Self {
            observer: Arc::clone(&inner.observer),
            process: inner.facts.run_id.clone(),
            inner,
            connect,
            options,
            tracker,
            phase: Phase::Scan,
            restarts: 0,
            began: host::now(),
            rounds_began: None,
            follow_began: None,
            last_change: host::now(),
            postponed: HashSet::new(),
            rereads: HashMap::new(),
            reached: None,
            missed: None,
            counts_at_start: counts.clone(),
            counts,
            swapped: false,
            functions_by,
            blind,
            functions,
            looks_refused: false,
            detours: 0,
            refusals: 0,
            began_anew: false,
            follow_over: false,
            lost_track: false,
            script,
            looked: host::now(),
            watch: Watch::default(),
            heritage: Vec::new(),
            resting: false,
        }))
    }

    /// The scan itself, for what it knows of the server.
    pub fn scan(&self) -> &ServerSource {
        &self.inner
    }

    /// One step of the present phase; `true` if the batch has something or a heartbeat is due.
    fn step(&mut self, batch: &mut Batch) -> Result<bool> {
        let at_rest = matches!(self.phase, Phase::Done | Phase::Last(_) | Phase::Hold);
        if !at_rest && self.restart_if_needed()? {
            return Ok(false);
        }
        // Whatever was begun is read to its end first.
        if !at_rest && self.inner.read(batch)? {
            return Ok(true);
        }
        match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Scan => self.after_scan()?,
            Phase::CatchUp(log) => self.catch_up(log)?,
            Phase::Rounds { left, last_names } => self.round(left, last_names)?,
            Phase::Follow => return self.follow(),
            Phase::Hold => self.hold(),
            Phase::Last(round) => self.last_round(round, batch)?,
            Phase::Farewell => self.farewell(batch)?,
            Phase::Done => {}
        }
        Ok(!batch.is_empty())
    }

    fn after_scan(&mut self) -> Result<()> {
        let given = self
            .inner
            .given
            .as_mut()
            .ok_or_else(|| anyhow!("nothing is remembered"))?;
        self.phase = if std::mem::take(&mut self.began_anew) {
            let logs = self.heritage.iter().map(GivenLog::again);
            let mut logs = logs.collect::<Result<Vec<_>>>()?;
            logs.push(given.log()?);
            let slots = self.inner.cluster.as_ref();
            Phase::CatchUp(given.not_met_of(logs, slots.map(|cluster| cluster.reading.clone()))?)
        } else {
            Phase::Rounds {
                left: MAX_ROUNDS,
                last_names: usize::MAX,
            }
        };
        Ok(())
    }

    fn catch_up(&mut self, mut log: NotMetAgain) -> Result<()> {
        let names = log.next(JOB_NAMES)?;
        if let Some(given) = &mut self.inner.given
            && !self.heritage.is_empty()
        {
            for (db, names) in &names {
                given.inherit(*db, names)?;
            }
        }
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
        let unknown = |row: &&Keyspace| !self.inner.knows_database(row.db);
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
        let now = text.and_then(|text| keyspace(&text));
        let new = self.unknown_databases(now.as_deref());
        self.add_databases(new);
        Ok(())
    }

    /// Looks whether databases were swapped, or whether that can no longer be told: `true` if only a
    /// new scan helps, which has been begun then, if it may be.
    fn look_for_swaps(&mut self) -> Result<bool> {
        if self.gave_up() || self.counts.is_none() {
            return Ok(false);
        }
        let now = self.inner.ask(|conn| Ok(CommandCounts::ask(conn)?))?;
        match self.counted(now) {
            Some(reason) => self.restart(reason),
            None => Ok(false),
        }
    }

    /// Takes a look at the counts of commands; why only a new scan can help, if that is so.
    fn counted(&mut self, now: Option<CommandCounts>) -> Option<&'static str> {
        let before = self.counts.as_ref()?;
        let Some(now) = now else {
            return Some("the source no longer tells whether databases are swapped");
        };
        let since = now.since(before);
        self.swapped |= since == Since::Swapped;
        self.counts = Some(now);
        if since == Since::Reset && self.inner.cluster.is_some() {
            // There is no SWAPDB in clusters. Only values of modules have to be read again now.
            self.counts_at_start = None;
            return None;
        }
        since.means_rescan()
    }

    /// Takes what was heard; `None` if only a new scan can help, which has been begun then.
    fn take(&mut self) -> Result<Option<HashSet<Vec<u8>>>> {
        let heard = self.heard();
        if !self.gave_up()
            && let Some(reason) = heard.means_rescan()
            && self.restart(reason)?
        {
            return Ok(None);
        }
        Ok(Some(heard.names))
    }

    /// Takes what was heard, and reads it again.
    fn round(&mut self, left: u32, last_names: usize) -> Result<()> {
        self.rounds_began.get_or_insert_with(host::now);
        self.tracker.barrier();
        let (waiting, rescan) = self.tracker.waiting();
        if rescan && !self.gave_up() {
            self.phase = Phase::Rounds { left, last_names };
            return Ok(());
        }
        // Hot keys never end: once a round does not shrink, the last one has to do.
        if left == 0 || waiting <= FEW_NAMES || waiting >= last_names || self.missed.is_some() {
            self.phase = match &self.options.follow {
                // Also where it is not exact: until somebody says when.
                Some(_) if !self.follow_over => {
                    self.follow_began.get_or_insert_with(host::now);
                    self.last_change = host::now();
                    // Bounded while there is an end to come to; following has its own.
                    self.restarts = 0;
                    if let Some(given) = &mut self.inner.given {
                        given.following = true;
                    }
                    self.observer
                        .notice("everything was read once; following changes");
                    Phase::Follow
                }
                _ if self.options.together.is_some() => Phase::Hold,
                _ => Phase::Last(LastRound::new(self.postponed.drain().collect())),
            };
            return Ok(());
        }
        if self.look_for_swaps()? {
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
        let mut again = Vec::with_capacity(names.len());
        for name in names {
            // Who follows has to see them now; and once exactness is missed there is no last round.
            let may_wait = self.missed.is_none() && !self.follows();
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
}

impl Source for ConvergingSource {
    fn read(&mut self, batch: &mut Batch) -> Result<bool> {
        batch.context = self.inner.context();
        loop {
            if matches!(self.phase, Phase::Done) && batch.is_empty() {
                return Ok(false);
            }
            if batch.is_empty() && std::mem::take(&mut self.resting) {
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
        // Of a server that may not be the source any more, nothing that was asked for is known.
        report.consistency_missed = self.watch.is_disputed || (asked && self.missed.is_some());
        report
    }

    fn estimate(&self) -> Estimate {
        self.inner.estimate()
    }
}
