//! The end of a run: what is open is answered, conflicts that were held are judged, replicas confirm
//! what was acknowledged, the source is told, and what may have taken keys away meanwhile is counted.

use std::time::Instant;

use super::fleet::Fleet;
use super::ledger::{Ledger, Say};
use super::memory::{Judging, Memory};
use crate::server::ServerError;
use crate::server::sentinel::{AGREE_WITHIN, Standing};
use crate::units::plural;

/// How often replicas are asked for all that was acknowledged.
const ROUNDS: usize = 5;

/// The steps, in their order; the number is the lane that is next.
pub(super) enum Step {
    /// What is in flight or put off is answered.
    Drain,
    Judge(Box<Judging>),
    /// WAIT goes to every lane.
    Confirm(usize),
    /// WAIT is answered.
    Confirmed,
    /// After WAIT: only then it is the primary's replica that has confirmed.
    Sentinels(usize),
    /// Sentinels named another server: a connection to it.
    Taken(usize),
    /// Whoever took over has got what no replica had.
    Moved,
    /// A lane that was lost after all was acknowledged is asked for by no key any more; what it kept
    /// is.
    Reconnect(usize),
    Reconnected,
    /// A cluster is asked once more who serves what: slots may have gone on with their keys, and
    /// then it is another node that must not have lost them.
    Slots,
    /// It was asked, and what follows from that is open.
    Asked,
    /// Nothing of that is open.
    Settled,
    /// Whoever waits for accepted keys does the rest.
    Source,
    Evictions(usize),
    Upheavals(usize),
    /// The connection to a lane was lost while its node was asked for the last time: somebody else
    /// may answer there now, who lacks what was acknowledged.
    Revisit(usize),
    /// Who answers there now is known, and has got what it lacks.
    Revisited,
    Done,
}

/// What the end needs next.
pub(super) enum Need {
    /// What is in flight or put off is answered.
    Drain,
    /// What is held is judged.
    Judge,
    /// WAIT on this lane.
    Confirm(usize),
    /// What the sentinels of this lane say.
    Sentinels(usize),
    /// A connection to this lane.
    Connection(usize),
    /// Who serves what.
    Slots,
    /// The source is told.
    Source,
    Evictions(usize),
    Upheavals(usize),
    /// Nothing.
    Nothing,
}

/// The end of a run.
pub(super) struct Closing {
    step: Step,
    round: usize,
    /// A lane has been given to another server in this round.
    moved: bool,
    /// Since when the sentinels of a lane do not agree.
    disputed_since: Option<Instant>,
    /// That they do not agree is told.
    has_told_dispute: bool,
    /// How often a lane was lost when all had been written.
    revisits: usize,
    /// The source was told, which is done once.
    has_told_source: bool,
    counts: Counts,
    /// The run failed before.
    is_failed: bool,
}

impl Closing {
    pub fn begin() -> Self {
        Self {
            step: Step::Drain,
            round: 0,
            moved: false,
            disputed_since: None,
            has_told_dispute: false,
            revisits: 0,
            has_told_source: false,
            counts: Counts::default(),
            is_failed: false,
        }
    }

    /// The end of a run that failed: what is held is judged, and the source told.
    pub fn after_failure(judging: Option<Judging>) -> Self {
        Self {
            step: judging.map_or(Step::Source, |judging| Step::Judge(Box::new(judging))),
            is_failed: true,
            ..Self::begin()
        }
    }

    /// The judging of what is held, while it is under way.
    pub fn judging(&mut self) -> Option<&mut Judging> {
        match &mut self.step {
            Step::Judge(judging) => Some(judging),
            _ => None,
        }
    }

    /// What was in flight or put off is answered.
    pub fn drained(
        &mut self,
        judging: impl FnOnce() -> anyhow::Result<Judging>,
    ) -> anyhow::Result<()> {
        match &self.step {
            Step::Drain => self.step = Step::Judge(Box::new(judging()?)),
            Step::Confirmed => self.step = Step::Sentinels(0),
            Step::Moved => self.step = Step::Reconnect(0),
            Step::Reconnected => self.step = self.next_round(),
            Step::Asked => self.step = Step::Settled,
            Step::Revisited => self.step = Step::Confirm(0),
            _ => {}
        }
        Ok(())
    }

    /// Judges the next conflict that was held.
    ///
    /// # Errors
    /// The temporary file's; where the run failed before, the rest is left.
    pub fn judge(&mut self, memory: &mut Memory, ledger: &mut Ledger) -> anyhow::Result<()> {
        let Some(judging) = self.judging() else {
            return Ok(());
        };
        let judgement = match memory.judge(judging) {
            Ok(Some(judgement)) => judgement,
            Ok(None) => {
                judging.tell(ledger);
                self.judged();
                return Ok(());
            }
            Err(_) if self.is_failed => {
                self.judged();
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        #[cfg(test)]
        super::tests::mark(&judgement);
        if let Some(failure) = judging.count(judgement, ledger.report()) {
            ledger.say(Say::Failed(failure));
        }
        Ok(())
    }

    /// What was held is judged.
    fn judged(&mut self) {
        self.step = match self.is_failed {
            true => Step::Source,
            false => Step::Confirm(0),
        };
    }

    /// The source was told.
    pub fn told(&mut self) {
        self.has_told_source = true;
        self.step = match self.is_failed {
            true => Step::Done,
            false => Step::Evictions(0),
        };
    }

    fn next_round(&mut self) -> Step {
        self.round += 1;
        self.moved = false;
        match self.round < ROUNDS {
            true => Step::Confirm(0),
            false => Step::Slots,
        }
    }

    /// What is needed next.
    pub fn need(&mut self, fleet: &mut Fleet, ledger: &mut Ledger) -> Need {
        loop {
            #[cfg(test)]
            super::tests::mark(&self.step);
            if let Some(need) = self.go_on(fleet, ledger) {
                return need;
            }
        }
    }

    /// What the present step needs; `None` where it needs nothing, and another step follows.
    fn go_on(&mut self, fleet: &mut Fleet, ledger: &mut Ledger) -> Option<Need> {
        let lanes = fleet.lanes().len();
        self.step = match &self.step {
            Step::Drain
            | Step::Confirmed
            | Step::Moved
            | Step::Reconnected
            | Step::Asked
            | Step::Revisited => return Some(Need::Drain),
            Step::Judge(_) => return Some(Need::Judge),
            Step::Confirm(at) if *at == lanes => Step::Confirmed,
            Step::Confirm(at) => return self.confirm(*at, fleet),
            Step::Sentinels(at) if *at == lanes => self.after_sentinels(fleet),
            Step::Sentinels(at) if !fleet.lane(*at).is_watched() => Step::Sentinels(at + 1),
            Step::Sentinels(at) if !fleet.lane(*at).is_up() => Step::Sentinels(at + 1),
            Step::Sentinels(at) => return Some(Need::Sentinels(*at)),
            Step::Taken(at) if fleet.lane(*at).is_up() => Step::Sentinels(at + 1),
            Step::Taken(at) => return Some(Need::Connection(*at)),
            Step::Reconnect(at) if *at == lanes => Step::Reconnected,
            Step::Reconnect(at) => {
                let lane = fleet.lane(*at);
                if !lane.is_up() && !lane.kept.is_empty() {
                    return Some(Need::Connection(*at));
                }
                Step::Reconnect(at + 1)
            }
            Step::Slots if !fleet.is_cluster() => Step::Source,
            Step::Slots => {
                self.step = Step::Asked;
                return Some(Need::Slots);
            }
            Step::Settled => self.after_slots(fleet),
            Step::Source if self.has_told_source => Step::Evictions(0),
            Step::Source => {
                self.tell_unconfirmed(fleet, ledger);
                return Some(Need::Source);
            }
            Step::Evictions(at) if *at == lanes => Step::Upheavals(0),
            Step::Evictions(at) if self.is_unseen(*at, fleet) => self.revisit(*at),
            Step::Evictions(at) => return Some(Need::Evictions(*at)),
            Step::Upheavals(at) if *at == lanes => Step::Done,
            Step::Upheavals(at) if !fleet.lane(*at).kept.is_relied_on() => Step::Upheavals(at + 1),
            Step::Upheavals(at) => return Some(Need::Upheavals(*at)),
            // A node of a cluster that serves nothing any more has left its keys to others.
            Step::Revisit(at) if fleet.lane(*at).is_up() || !fleet.is_primary(*at) => {
                Step::Revisited
            }
            Step::Revisit(at) => return Some(Need::Connection(*at)),
            Step::Done => return Some(Need::Nothing),
        };
        None
    }

    /// A lane confirms what it keeps, if it can, and the next one follows.
    fn confirm(&mut self, at: usize, fleet: &mut Fleet) -> Option<Need> {
        self.step = Step::Confirm(at + 1);
        if !fleet.lane(at).kept.is_open() {
            return None;
        }
        if fleet.lane(at).is_up() {
            return Some(Need::Confirm(at));
        }
        // Nothing else asks for this lane any more.
        fleet.doubt(None);
        None
    }

    fn after_sentinels(&self, fleet: &Fleet) -> Step {
        let are_empty = fleet.lanes().iter().all(|lane| lane.kept.is_empty());
        match (self.moved, are_empty) {
            (true, _) => Step::Moved,
            (false, true) => Step::Slots,
            (false, false) => Step::Reconnect(0),
        }
    }

    /// What was sent once more because of where the slots are now may be asked for, too.
    fn after_slots(&mut self, fleet: &Fleet) -> Step {
        let is_open = fleet.lanes().iter().any(|lane| lane.kept.is_open());
        match is_open && self.round < ROUNDS {
            true => self.next_round(),
            false => Step::Source,
        }
    }

    /// Whether nobody would see that a node lost what the run goes by: there is no connection to it.
    fn is_unseen(&self, at: usize, fleet: &Fleet) -> bool {
        let lane = fleet.lane(at);
        let is_missing = !lane.is_up() && fleet.is_primary(at);
        is_missing && lane.kept.is_relied_on() && self.revisits < ROUNDS
    }

    /// The lane is connected to again, and all is counted anew.
    fn revisit(&mut self, at: usize) -> Step {
        self.revisits += 1;
        self.counts = Counts::default();
        Step::Revisit(at)
    }

    /// What the sentinels of a lane said; whether they are asked again in a moment.
    pub fn sentinels_said(
        &mut self,
        at: usize,
        standing: Option<&Standing>,
        now: Instant,
        ledger: &mut Ledger,
    ) -> bool {
        let is_disputed = matches!(standing, Some(Standing::Disputed(_)));
        let since = *self.disputed_since.get_or_insert(now);
        if is_disputed && now.saturating_duration_since(since) < AGREE_WITHIN {
            return true;
        }
        self.disputed_since = None;
        if is_disputed && !std::mem::replace(&mut self.has_told_dispute, true) {
            ledger.problem(
                "the sentinels of the destination do not agree on its primary: what was written \
                 may be at a server that is replaced; run the same command again when they do"
                    .to_owned(),
            );
        }
        self.step = match standing {
            Some(Standing::Replaced(_)) => {
                self.moved = true;
                Step::Taken(at)
            }
            _ => Step::Sentinels(at + 1),
        };
        false
    }

    fn tell_unconfirmed(&self, fleet: &Fleet, ledger: &mut Ledger) {
        let lanes = fleet.lanes().iter();
        let left: u64 = lanes.map(|lane| lane.kept.unconfirmed()).sum();
        if self.round == ROUNDS && left > 0 {
            ledger.notice(format!(
                "{} written to a primary, but not yet at a replica",
                plural(left, "key")
            ));
        }
    }

    /// How many keys a lane's node evicted since the start: accepted, and lost after all. A lost
    /// connection is given back if somebody else may answer there now: the lane has to be lost too.
    ///
    /// # Errors
    /// What is no loss of a connection.
    pub fn evicted(
        &mut self,
        at: usize,
        count: Result<Option<u64>, ServerError>,
        fleet: &Fleet,
    ) -> Result<Option<ServerError>, ServerError> {
        let count = match count {
            Ok(count) => count,
            Err(error) if self.revisits(at, &error, fleet) => return Ok(Some(error)),
            Err(error) if error.is_passing() => None,
            Err(error) => return Err(error),
        };
        let lane = fleet.lane(at);
        self.counts.evictions_unknown |=
            count.is_none() && lane.kept.is_relied_on() && lane.facts.evicts() != Some(false);
        self.counts.evicted += count.unwrap_or(0);
        self.step = Step::Evictions(at + 1);
        Ok(None)
    }

    /// How often somebody emptied or swapped whole databases of a lane's node. A lost connection is
    /// given back as by [`Self::evicted`].
    ///
    /// # Errors
    /// What is no loss of a connection.
    pub fn upheaved(
        &mut self,
        at: usize,
        count: Result<Upheavals, ServerError>,
        fleet: &Fleet,
    ) -> Result<Option<ServerError>, ServerError> {
        match count {
            Ok(Upheavals::Counted(count)) => self.counts.upheavals += count,
            // Where nothing was counted before, nobody expects to hear of it.
            Ok(Upheavals::NeverCounted) => {}
            Ok(Upheavals::NotCounted) => self.counts.upheavals_unknown = true,
            Err(error) if self.revisits(at, &error, fleet) => return Ok(Some(error)),
            Err(error) if error.is_passing() => self.counts.upheavals_unknown = true,
            Err(error) => return Err(error),
        }
        self.step = Step::Upheavals(at + 1);
        Ok(None)
    }

    /// Whether a lane that was lost is connected to again, to see who answers there. All is counted
    /// anew then.
    fn revisits(&mut self, at: usize, error: &ServerError, fleet: &Fleet) -> bool {
        let is_relied_on = fleet.lane(at).kept.is_relied_on();
        if !error.is_passing() || !is_relied_on || self.revisits == ROUNDS {
            return false;
        }
        self.step = self.revisit(at);
        true
    }

    /// What may have taken keys away while they were written.
    pub fn tell_counts(&self, ledger: &mut Ledger, dry_run: bool) {
        self.tell_evictions(ledger, dry_run);
        self.tell_upheavals(ledger, dry_run);
    }

    fn tell_evictions(&self, ledger: &mut Ledger, dry_run: bool) {
        if self.counts.evictions_unknown && !dry_run {
            ledger.warn(
                "whether the destination evicted keys during this run is not known: its user may \
                 not see it (+info); --verify tells which keys are there",
            );
        }
        let evicted = self.counts.evicted;
        ledger.report().doubts.evicted = evicted;
        if evicted > 0 {
            ledger.problem(format!(
                "the destination evicted keys during this run ({evicted}), perhaps some of those \
                 just written; raise maxmemory and run again"
            ));
        }
    }

    /// Somebody emptied or swapped whole databases while they were written: what was acknowledged may
    /// be gone, or stand in another one.
    fn tell_upheavals(&self, ledger: &mut Ledger, dry_run: bool) {
        let (times, is_unknown) = (self.counts.upheavals, self.counts.upheavals_unknown);
        ledger.report().doubts.may_be_emptied = times > 0 || is_unknown;
        if is_unknown && times == 0 && !dry_run {
            ledger.warn(
                "the destination no longer tells whether its databases were emptied or swapped \
                 during this run (CONFIG RESETSTAT, or INFO is refused): if they were, keys are \
                 missing; diff tells",
            );
        }
        if times > 0 {
            let report = ledger.report();
            let advice = match report.deletions.may_be_deleted() {
                0 => "find out which, and run the same command again, which writes what is missing",
                _ => {
                    "it may be gone from both ends, because it was deleted at the source: before \
                     you do anything else, find out which, and look in the destination's own files \
                     and backups"
                }
            };
            ledger.problem(format!(
                "somebody emptied or swapped databases at the destination during this run \
                 (FLUSHALL, FLUSHDB, SWAPDB: {}; the server does not say which): what was written \
                 may be gone, or be in another database; {advice}",
                plural(times, "time")
            ));
        }
    }
}

/// What was counted at the end.
#[derive(Default)]
struct Counts {
    evicted: u64,
    /// Not to be had on some lane that may evict.
    evictions_unknown: bool,
    upheavals: u64,
    /// Not to be had any more on some lane.
    upheavals_unknown: bool,
}

/// How often somebody emptied or swapped whole databases since the first look.
pub(in crate::sink::server) enum Upheavals {
    Counted(u64),
    /// The server does not tell any more.
    NotCounted,
    /// The server never told.
    NeverCounted,
}

#[cfg(test)]
super::tests::named!(Step: Drain, Judge, Confirm, Confirmed, Sentinels, Taken, Moved, Reconnect, Reconnected, Slots, Asked, Settled, Source, Evictions, Upheavals, Revisit, Revisited, Done);
