//! What others ask of the rounds, and what whoever knows all shards of a cluster orders.

use super::{
    Aim, FinalRound, Follow, Outcome, Round, Rounds, Stage, State, Task, Then, Transition,
};
use super::{ConsistencyReached, MAX_DETOURS};
use crate::host::HashSet;

impl Rounds {
    /// Whether changes are being followed, or will be, until somebody says when.
    pub fn follows(&self) -> bool {
        self.following.is_some()
    }

    /// How changes are followed, as long as they are.
    pub fn follow(&self) -> Option<&Follow> {
        self.following.as_ref().map(|following| &following.follow)
    }

    /// Whether it follows changes, and only rests.
    pub fn is_following(&self) -> bool {
        match &self.state {
            State::Reading(stage) | State::Rereading(_, stage) => matches!(stage, Stage::Follow),
            State::Gathering(_, then) => *then == Then::Follow,
            State::Waiting(_)
            | State::AskingSentinels { .. }
            | State::Sleeping(_)
            | State::Beating
            | State::RestingFromFollowing => true,
            _ => false,
        }
    }

    /// Whether nothing is left to be won by another scan. Following goes on without exactness.
    pub fn gave_up(&self) -> bool {
        self.aim < Aim::Exact && !self.follows()
    }

    /// Whether exactness was given up.
    pub fn has_missed(&self) -> bool {
        self.aim < Aim::Exact
    }

    /// Whether not every change was heard of.
    pub fn has_lost_track(&self) -> bool {
        self.aim == Aim::Scan
    }

    /// Why changes of whole databases would go unnoticed.
    pub fn blind(&self) -> Option<&'static str> {
        self.blind
    }

    /// Whether all of it was given, exact or not.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Whether it is in the middle of the final round.
    pub fn is_at_final(&self) -> bool {
        matches!(
            self.state,
            State::Giving(_) | State::Attempting(_) | State::LastWords(_)
        )
    }

    /// What was reached, once that is known.
    pub fn reached(&self) -> Option<&ConsistencyReached> {
        self.reached.as_ref()
    }

    /// What is to be said, once.
    pub fn take_warning(&mut self) -> Option<String> {
        self.warning.take()
    }

    /// Whether the final round may be put off once more because a key changed that could not be read
    /// before; it is then.
    pub fn may_detour(&self) -> bool {
        self.spent.detours < MAX_DETOURS
    }

    /// It was put off.
    pub fn detoured(&mut self) {
        self.spent.detours += 1;
    }

    /// Of names to be read again, those whose turn is now, in an order that does not depend on
    /// chance. Large values that change all the time wait for the final round; whoever follows has to
    /// see them now, and once exactness is missed there is no final round.
    pub fn choose(&mut self, names: HashSet<Vec<u8>>, guess_bytes: usize) -> Vec<Vec<u8>> {
        let may_wait = self.aim == Aim::Exact && !self.follows();
        self.postponed
            .choose(names, may_wait.then_some(guess_bytes))
    }

    /// Names of slots that are read elsewhere are none of ours.
    pub fn keep_names(&mut self, is_ours: impl Fn(&[u8]) -> bool) {
        self.postponed.retain(is_ours);
    }

    /// The final round, to be given or attempted. It has to come back with the event that tells of
    /// it; until then nothing else can be done.
    pub fn take_final(&mut self) -> Option<FinalRound> {
        let (round, task) = match std::mem::replace(&mut self.state, State::Poisoned) {
            State::Giving(round) => (round, Task::Giving),
            State::Attempting(round) => (round, Task::Attempting),
            state => {
                self.state = state;
                return None;
            }
        };
        self.state = State::TakenOut(task);
        Some(round)
    }

    /// From now on slots are read here too, all of them again.
    pub fn scan_anew(&mut self) {
        Transition::AdoptedSlots.record();
        self.reached = None;
        self.rounds_began = None;
        // One that is about to begin anew is about all slots; and an error stays one.
        if !self.is_restarting_or_failed() {
            self.go_on_with(Stage::Scan { anew: true });
        }
    }

    /// More rounds, before the final one, which was not final if there was one.
    pub fn more_rounds(&mut self) {
        self.reached = None;
        // A scan has to come to its end first.
        if let State::Reading(Stage::Scan { .. } | Stage::CatchUp(_))
        | State::ListingUnmet
        | State::TakingUnmet(_)
        | State::AddingDatabases(..) = self.state
        {
            Transition::MoreRoundsAfterScan.record();
            return;
        }
        if self.is_restarting_or_failed() {
            return;
        }
        Transition::MoreRoundsOrdered.record();
        self.go_on_with(Stage::Rounds(Round::FIRST));
    }

    /// What was heard of is known to this state alone: no order makes up for it.
    fn is_restarting_or_failed(&self) -> bool {
        matches!(
            self.state,
            State::Restarting(_) | State::AskingIfDeaf(..) | State::Failed(_) | State::Poisoned
        )
    }

    /// The backlog is read, for this reason now. No name is lost: what was taken from what was heard
    /// will not be heard of again, and what a final round was to give waits for the next one.
    fn go_on_with(&mut self, stage: Stage) {
        self.state = match std::mem::replace(&mut self.state, State::Poisoned) {
            State::Rereading(names, _) => State::Rereading(names, stage),
            State::Giving(round)
            | State::Attempting(round)
            | State::AddingDatabases(_, round)
            | State::LastWords(round) => {
                self.postponed.extend(round.into_names());
                State::Reading(stage)
            }
            _ => State::Reading(stage),
        };
    }

    /// The final round may come.
    pub fn begin_final(&mut self) {
        if matches!(self.state, State::Holding) {
            Transition::FinalOrdered.record();
            self.state = State::Giving(FinalRound::new(self.postponed.take()));
        }
    }

    /// The final round, to be attempted together with those of the other shards: see
    /// [`Self::put_back`] and [`Self::settle`].
    pub fn take_together(&mut self) -> FinalRound {
        Transition::FinalTakenOut.record();
        match std::mem::replace(&mut self.state, State::TakenOut(Task::Together)) {
            State::Giving(round) => return round,
            State::Rereading(names, _) => self.postponed.extend(names),
            State::AddingDatabases(_, round) => self.postponed.extend(round.into_names()),
            _ => {}
        }
        FinalRound::new(self.postponed.take())
    }

    /// Whatever attempt was made of it, it does not count.
    pub fn put_back(&mut self, mut round: FinalRound) {
        Transition::FinalPutBack.record();
        round.forget_proof();
        self.state = State::Giving(round);
    }

    /// What came of an attempt that all shards made together. `exact_at` is the moment, if all of
    /// them found it.
    pub fn settle(&mut self, round: FinalRound, outcome: Outcome, exact_at: Option<u64>) {
        Transition::FinalSettled.record();
        self.state = match (outcome, exact_at) {
            (_, Some(at_ms)) => self.on_attempted(round, Outcome::Exact { at_ms }),
            // Exact, but not of the instant of the others.
            (Outcome::Exact { .. }, None) => {
                self.put_back(round);
                return;
            }
            (outcome, None) => self.on_attempted(round, outcome),
        };
    }

    /// Gives exactness up.
    pub fn give_up(&mut self, reason: &str) {
        Transition::GivenUpByOrder.record();
        self.miss(reason.to_owned());
    }

    /// An error was told: nothing more is read, and nothing was reached.
    pub fn poison(&mut self) {
        Transition::Poisoned.record();
        self.state = State::Poisoned;
        self.reached = None;
    }
}
