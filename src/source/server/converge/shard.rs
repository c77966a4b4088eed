//! A shard of a cluster: it comes as far as it can alone, and rests. What comes then, whoever knows
//! all of the shards decides: slots that another node gave before, or the last round.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::final_round::{LastRound, Outcome};
use super::pause::Pause;
use super::{ConvergingSource, MAX_ROUNDS, Phase};
use crate::host;
use crate::ledger::ConsistencyReached;
use crate::server::Conn;
use crate::server::cluster::Topology;
use crate::server::tracking::Heard;
use crate::source::server::delivered::GivenLog;
use crate::source::server::{ServerSource, SlotSet};

/// While following, how often a shard looks whether slots moved.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the shards of a cluster have in common.
#[derive(Debug)]
pub struct Together {
    /// Something has to be settled between the shards: who follows, rests.
    restless: AtomicBool,
    /// The following is over, for all.
    over: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last_change: Instant,
    /// Who holds which slots, as it was last settled.
    topology: Option<Topology>,
}

impl Default for Together {
    fn default() -> Self {
        Self {
            restless: AtomicBool::new(false),
            over: AtomicBool::new(false),
            state: Mutex::new(State {
                last_change: host::now(),
                topology: None,
            }),
        }
    }
}

impl Together {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// Something has to be settled between the shards.
    pub fn disturb(&self) {
        self.restless.store(true, Ordering::Relaxed);
    }

    /// It was settled; this is how slots lie now.
    pub fn settled(&self, topology: Topology) {
        self.lock().topology = Some(topology);
        self.restless.store(false, Ordering::Relaxed);
    }

    /// Whether the following has ended.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Whether slots lie elsewhere than when it was last settled.
    fn has_changed(&self, now: &Topology) -> bool {
        let state = self.lock();
        state
            .topology
            .as_ref()
            .is_some_and(|known| !same_owners(known, now))
    }
}

/// Whether the same primaries hold the same slots.
pub(in crate::source) fn same_owners(one: &Topology, other: &Topology) -> bool {
    one.shards.len() == other.shards.len()
        && one
            .shards
            .iter()
            .zip(&other.shards)
            .all(|(one, other)| one.primary.id == other.primary.id && one.slots == other.slots)
}

impl ConvergingSource {
    /// What was heard of slots that are read here. What only another scan would tell is lost where
    /// none will come.
    pub(super) fn heard(&mut self) -> Heard {
        let mut heard = self.tracker.take();
        if self.gave_up() && heard.means_rescan().is_some() {
            self.lost_track = true;
        }
        if let Some(cluster) = &self.inner.cluster {
            heard.names.retain(|name| cluster.owned.has_key(name));
        }
        heard
    }

    pub(super) fn hold(&mut self) {
        self.phase = Phase::Hold;
        self.resting = true;
    }

    /// Whether the node no longer answers for a key, which is settled by looking where it is.
    pub(super) fn is_elsewhere(&self, reason: &str) -> bool {
        const WORDS: [&str; 5] = ["MOVED", "ASK ", "TRYAGAIN", "CLUSTERDOWN", "non local key"];
        self.inner.cluster.is_some() && WORDS.iter().any(|word| reason.contains(word))
    }

    pub(super) fn unchanged_for(&self) -> Duration {
        match &self.options.together {
            Some(together) => host::elapsed(together.lock().last_change),
            None => host::elapsed(self.last_change),
        }
    }

    pub(super) fn others_are_over(&self) -> bool {
        let together = self.options.together.as_ref();
        together.is_some_and(|together| together.is_over())
    }

    pub(super) fn end_following(&mut self) {
        self.follow_over = true;
        if let Some(together) = &self.options.together {
            together.over.store(true, Ordering::Relaxed);
        }
    }

    /// While following: whether something is to be settled first. Nothing is in flight.
    pub(super) fn rests_while_following(
        &mut self,
        together: &Arc<Together>,
        changed: bool,
    ) -> Result<bool> {
        if changed {
            together.lock().last_change = host::now();
        }
        if host::elapsed(self.looked) >= LOOK_EVERY {
            self.looked = host::now();
            let now = Topology::ask(&mut self.inner.conn)?;
            if together.has_changed(&now) {
                together.disturb();
            }
        }
        let cluster = self.inner.cluster.as_ref();
        if cluster.is_some_and(|cluster| cluster.reason.is_some()) {
            together.disturb();
        }
        self.resting = together.restless.load(Ordering::Relaxed);
        Ok(self.resting)
    }

    /// What it scans, for who knows all of the shards.
    pub(in crate::source) fn inner(&mut self) -> &mut ServerSource {
        &mut self.inner
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
        if let Some(given) = &mut self.inner.given {
            given.begin_again();
        }
        self.began_anew = true;
        self.reached = None;
        self.rounds_began = None;
        self.postpone_last();
        self.phase = Phase::Scan;
        Ok(())
    }

    /// These slots are read elsewhere from now on.
    pub(in crate::source) fn release(&mut self, slots: &SlotSet) {
        self.inner.release(slots);
        if let (Some(given), Some(cluster)) = (&mut self.inner.given, &self.inner.cluster) {
            given.keep_unheard_of(&cluster.owned.snapshot());
            self.postponed.retain(|name| cluster.owned.has_key(name));
        }
    }

    /// Whether it is in the middle of the last round.
    pub(in crate::source) fn is_at_last(&self) -> bool {
        matches!(self.phase, Phase::Last(_))
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

    /// More rounds, before the last one, which was not the last if there was one.
    pub(in crate::source) fn more_rounds(&mut self) {
        self.reached = None;
        // A scan that began anew has to come to its end first.
        if matches!(self.phase, Phase::Scan | Phase::CatchUp(_)) {
            return;
        }
        self.postpone_last();
        self.phase = Phase::Rounds {
            left: MAX_ROUNDS,
            last_names: usize::MAX,
        };
    }

    /// Whether it follows changes, and only rests.
    pub(in crate::source) fn is_following(&self) -> bool {
        matches!(self.phase, Phase::Follow)
    }

    /// Whether all of it was given, exact or not.
    pub(in crate::source) fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// Whether exactness was given up.
    pub(in crate::source) fn has_missed(&self) -> bool {
        self.missed.is_some()
    }

    /// Gives exactness up.
    pub(in crate::source) fn give_up(&mut self, reason: &str) {
        self.miss(reason.to_owned());
    }

    /// The last round may come.
    pub(in crate::source) fn begin_last(&mut self) {
        if matches!(self.phase, Phase::Hold) {
            self.phase = Phase::Last(LastRound::new(self.postponed.drain().collect()));
        }
    }

    /// Ends a last round that was begun: what it was to give waits for the next one.
    pub(super) fn postpone_last(&mut self) {
        match std::mem::replace(&mut self.phase, Phase::Hold) {
            Phase::Last(round) => self.postponed.extend(round.into_names()),
            other => self.phase = other,
        }
    }

    /// Takes the last round out, for attempts that are made together with others. It has to come
    /// back, see [`Self::put_back_last`] and [`Self::settle_last`].
    pub(in crate::source) fn take_last(&mut self) -> TogetherRound {
        let round = match std::mem::replace(&mut self.phase, Phase::Hold) {
            Phase::Last(round) => round,
            other => {
                self.phase = other;
                LastRound::new(self.postponed.drain().collect())
            }
        };
        TogetherRound(round)
    }

    /// Whatever attempt was made of it, it does not count.
    pub(in crate::source) fn put_back_last(&mut self, round: TogetherRound) {
        let TogetherRound(mut round) = round;
        round.forget_shot();
        self.phase = Phase::Last(round);
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
            self.inner.paused = self.inner.paused.max(lasted);
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
        let TogetherRound(mut round) = round;
        if let Some(at_ms) = exact_at {
            self.reached = Some(ConsistencyReached::Exact(vec![(0, at_ms)]));
            self.phase = Phase::Last(round);
            return Ok(());
        }
        match outcome.0 {
            // Exact, but not of the instant of the others.
            Outcome::Exact { .. } => {
                round.forget_shot();
                self.phase = Phase::Last(round);
            }
            other => self.after_attempt(round, other)?,
        }
        Ok(())
    }
}

/// The last round of one shard, taken out of it.
pub(in crate::source) struct TogetherRound(LastRound);

/// What came of an attempt.
pub(in crate::source) struct Attempted(Outcome);

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
    /// Reads the last round while all shards are paused.
    ///
    /// # Errors
    /// The connection.
    pub fn attempt(&mut self, source: &mut ConvergingSource, paused: &Pause) -> Result<Attempted> {
        Ok(Attempted(self.0.attempt_paused(source, paused)?))
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
        Ok(Attempted(self.0.look_again(source, attempt.0)?))
    }
}
