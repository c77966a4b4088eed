//! A live server, exact under writes: what changes during the scan is read again, until one last
//! round is provably equal to the source at one instant.
//!
//! CLIENT TRACKING tells the names. Rounds of re-reading shrink what is left; the final round reads
//! all of it, together with what nobody is told of (streams with consumer groups, values of
//! modules), in one MULTI/EXEC. If nothing outside of that was written by then, everything given so
//! far together with this round is what the source held at that EXEC. See [`final_round`] for why.
//!
//! [`rounds`] decides what comes next and [`final_round`] what an attempt proves, both without I/O,
//! threads or clock; [`shell`] and [`attempt`] do it. A shard of a cluster comes as far as it can
//! alone, and rests; what comes then, whoever knows all of the shards decides.

mod attempt;
mod evidence;
mod final_round;
mod instant;
mod listen;
mod pause;
mod rounds;
mod shell;
mod together;
mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use self::attempt::Attempt;
use self::evidence::Evidence;
use self::final_round::{FinalRound, Outcome};
use self::listen::{blindness, listen};
pub(in crate::source) use self::pause::Pause;
use self::rounds::{Rounds, Rules};
use self::shell::Stepped;
pub use self::together::Together;
pub(in crate::source) use self::together::same_owners;
use self::watch::Watch;
use super::delivered::GivenLog;
use super::{ServerSource, SlotSet};
use crate::endpoint::ConnectOptions;
use crate::host;
use crate::ledger::SourceReport;
use crate::pace::Pace;
use crate::policy::Consistency;
use crate::record::Batch;
use crate::server::counts::CommandCounts;
use crate::server::tracking::Tracker;
use crate::server::{Conn, ServerError, transaction};
use crate::source::{Estimate, Source};
use crate::stop::Stop;

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

impl ConvergeOptions {
    fn rules(&self) -> Rules {
        Rules {
            consistency: self.consistency,
            max_wait: self.max_wait,
            in_cluster: self.together.is_some(),
            follow: self.follow.clone(),
        }
    }
}

/// Reads a live server until what was read is exact.
pub struct ConvergingSource {
    inner: ServerSource,
    connect: ConnectOptions,
    options: ConvergeOptions,
    tracker: Tracker,
    rounds: Rounds,
    /// The process that the scan began at, where it says (INFO run_id).
    process: Option<String>,
    evidence: Evidence,
    /// Function libraries are given once, at the end: later ones would collide with earlier ones.
    functions: Option<Vec<u8>>,
    /// In a cluster: what reads keys of several slots at one instant.
    script: Option<&'static str>,
    /// In a cluster: what other nodes gave of slots that are read here now.
    heritage: Vec<GivenLog>,
    /// While following in a cluster: when the slots were last looked at.
    looked: Instant,
    /// The sentinels that found the source, if any did.
    watch: Watch,
}

/// The final round of one shard, taken out of it.
pub(in crate::source) struct TogetherRound(FinalRound);

/// What came of an attempt.
pub(in crate::source) struct Attempted(Outcome);

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
        if !inner.profile.abilities().multi && options.together.is_none() {
            // Asked again for the words of the refusal; and it may have been one of that moment.
            match inner.ask(|conn| Ok(transaction::prove(conn)?))? {
                Ok(()) => {}
                Err(refusal) => return Ok(Err((inner, refusal))),
            }
            if let Some(text) = inner.ask(|conn| Ok(transaction::refused_when_full(conn)?))? {
                let refusal = inner.conn.refusal("DUMP in a MULTI", text);
                return Ok(Err((inner, refusal)));
            }
            inner.profile.trust_multi();
        }
        let tracker = match listen(&mut inner, &connect)? {
            Ok(tracker) => tracker,
            Err(refusal) => return Ok(Err((inner, refusal))),
        };
        let rules = options.rules();
        // A plain scan needs no log of names: it never begins anew.
        inner.books.remember_given(rules.may_begin_anew())?;
        let functions = inner.functions.take();
        // From here on it is looked at here.
        inner.profile.take_counts_before();
        let counts = inner.ask(|conn| Ok(CommandCounts::ask(conn)?))?;
        let blind = blindness(&mut inner, counts.is_some())?;
        let script = match options.together {
            Some(_) => inner.ask(|conn| Ok(instant::script_for(conn)?))?,
            None => None,
        };
        Ok(Ok(Self {
            process: inner.facts().run_id.clone(),
            rounds: Rounds::new(rules, blind, host::now()),
            inner,
            connect,
            options,
            tracker,
            evidence: Evidence::new(counts),
            functions,
            script,
            heritage: Vec::new(),
            looked: host::now(),
            watch: Watch::default(),
        }))
    }

    /// The scan itself, for what it knows of the server.
    pub fn scan(&self) -> &ServerSource {
        &self.inner
    }

    /// What it scans, for who knows all of the shards.
    pub(in crate::source) fn inner(&mut self) -> &mut ServerSource {
        &mut self.inner
    }

    /// The process that the scan began at, where it says.
    pub(in crate::source) fn process(&self) -> Option<&str> {
        self.process.as_deref()
    }

    /// The names of all keys that were given.
    pub(in crate::source) fn given_log(&mut self) -> Result<Option<GivenLog>> {
        self.inner.given_log()
    }

    /// From now on these slots are read here too, all of them again: some of it other nodes may have
    /// given before, as `logs` tell.
    pub(in crate::source) fn adopt(&mut self, slots: &SlotSet, logs: Vec<GivenLog>) -> Result<()> {
        self.heritage.extend(logs);
        self.inner.adopt(slots)?;
        if let Some(given) = self.inner.books.given_mut() {
            given.begin_again();
        }
        self.rounds.scan_anew();
        Ok(())
    }

    /// These slots are read elsewhere from now on.
    pub(in crate::source) fn release(&mut self, slots: &SlotSet) {
        self.inner.release(slots);
        let inner = &mut self.inner;
        if let (Some(given), Some(node)) = (inner.books.given_mut(), &inner.node) {
            given.keep_unheard_of(&node.slots());
            self.rounds.keep_names(|name| node.owns(name));
        }
    }

    /// Whether it is in the middle of the final round.
    pub(in crate::source) fn is_at_last(&self) -> bool {
        self.rounds.is_at_final()
    }

    /// Who follows changes has to rest: something is to be settled.
    pub(in crate::source) fn disturb_others(&self) {
        if let Some(together) = &self.options.together {
            together.disturb();
        }
    }

    /// How many names wait to be read again.
    pub(in crate::source) fn names_waiting(&self) -> usize {
        let (names, rescan) = self.tracker.waiting();
        if rescan { usize::MAX } else { names }
    }

    /// Whether anything changed that was not taken notice of yet, asked at the server.
    pub(in crate::source) fn has_heard(&mut self) -> bool {
        self.tracker.barrier();
        self.tracker.waiting() != (0, false)
    }

    /// More rounds, before the final one, which was not final if there was one.
    pub(in crate::source) fn more_rounds(&mut self) {
        self.rounds.more_rounds();
    }

    /// Whether it follows changes, and only rests.
    pub(in crate::source) fn is_following(&self) -> bool {
        self.rounds.is_following()
    }

    /// Whether all of it was given, exact or not.
    pub(in crate::source) fn is_done(&self) -> bool {
        self.rounds.is_done()
    }

    /// Whether exactness was given up.
    pub(in crate::source) fn has_missed(&self) -> bool {
        self.rounds.has_missed()
    }

    /// Gives exactness up.
    pub(in crate::source) fn give_up(&mut self, reason: &str) {
        self.rounds.give_up(reason);
        self.warn();
    }

    /// The final round may come.
    pub(in crate::source) fn begin_last(&mut self) {
        self.rounds.begin_final();
    }

    /// Takes the final round out, for attempts that are made together with others. It has to come
    /// back, see [`Self::put_back_last`] and [`Self::settle_last`].
    pub(in crate::source) fn take_last(&mut self) -> TogetherRound {
        TogetherRound(self.rounds.take_together())
    }

    /// Whatever attempt was made of it, it does not count.
    pub(in crate::source) fn put_back_last(&mut self, round: TogetherRound) {
        self.rounds.put_back(round.0);
    }

    /// Asks the node to hold up writes; the answer is yet to be read.
    pub(in crate::source) fn ask_pause(&mut self) -> Result<Pause> {
        Ok(Pause::ask(&mut self.inner.conn, self.options.max_pause)?)
    }

    /// The connection, on which nothing is in flight while it rests.
    pub(in crate::source) fn conn(&mut self) -> &mut Conn {
        &mut self.inner.conn
    }

    /// Writes go on; they were held up for this long at the most.
    pub(in crate::source) fn end_pause(&mut self, pause: Pause) {
        if let Some(lasted) = pause.end(&mut self.inner.conn) {
            self.inner.findings.paused(lasted);
        }
    }

    /// What came of an attempt that all shards made together. `exact_at` is the moment, if all of
    /// them found it.
    pub(in crate::source) fn settle_last(
        &mut self,
        round: TogetherRound,
        outcome: Attempted,
        exact_at: Option<u64>,
    ) -> Result<()> {
        self.rounds.settle(round.0, outcome.0, exact_at);
        self.warn();
        Ok(())
    }
}

impl Attempted {
    /// The moment, if what was read is exact.
    pub fn exact_at(&self) -> Option<u64> {
        match self.0 {
            Outcome::Exact { at_ms } => Some(at_ms),
            _ => None,
        }
    }
}

impl TogetherRound {
    /// Reads the final round while all shards are paused.
    ///
    /// # Errors
    /// The connection.
    pub fn attempt(&mut self, source: &mut ConvergingSource, paused: &Pause) -> Result<Attempted> {
        let round = &mut self.0;
        Ok(Attempted(Attempt { source, round }.while_paused(paused)?))
    }

    /// Once no shard is paused any more: whether it was the server that was listened to.
    ///
    /// # Errors
    /// The connection.
    pub fn look_again(
        &mut self,
        source: &mut ConvergingSource,
        attempt: Attempted,
    ) -> Result<Attempted> {
        let round = &mut self.0;
        Ok(Attempted(Attempt { source, round }.look_again(attempt.0)?))
    }
}

impl Source for ConvergingSource {
    fn read(&mut self, batch: &mut Batch) -> Result<bool> {
        batch.context = self.inner.context();
        loop {
            match self.step(batch) {
                Ok(Stepped::On) => {}
                Ok(Stepped::HandOn) => break,
                Ok(Stepped::Nothing) if batch.is_empty() => return Ok(false),
                Ok(Stepped::Nothing) => break,
                Err(error) => {
                    self.rounds.poison();
                    return Err(error);
                }
            }
        }
        self.inner.stamp(batch);
        Ok(true)
    }

    fn keep_pace(&mut self, pace: &Arc<Pace>) {
        self.inner.keep_pace(pace);
    }

    fn report(&self) -> SourceReport {
        let mut report = self.inner.report();
        if let Some(reached) = self.rounds.reached() {
            report.exactness.reached = Some(reached.clone());
        }
        let asked = self.options.consistency != Consistency::Auto;
        // Of a server that may not be the source any more, nothing that was asked for is known.
        report.exactness.missed = self.watch.is_disputed() || (asked && self.rounds.has_missed());
        report
    }

    fn estimate(&self) -> Estimate {
        self.inner.estimate()
    }
}
