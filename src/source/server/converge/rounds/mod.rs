//! Decides how a scan becomes exact: a value without I/O, threads or clock.
//!
//! [`Rounds::next`] says what is to be done, [`Rounds::on`] is told what came of it. The way of a
//! reading that finds no trouble:
//!
//! ```text
//! Reading(Scan) ─ ReadOut ─▶ Reading(Rounds) ─ ReadOut ─▶ Listening ─ Heard ─▶ Gathering … Rereading
//!        ▲                        ▲   ▲                        │                          │
//!        │ Restarting             │   └──────────── more to read again ◀─────────────────┘
//!        │ (changes were missed)  │                            │ little is left
//!        │                        │   BeginningToFollow ◀──────┼──▶ Holding (a cluster decides)
//!        │                        │        ▼                   ▼        ▼
//!        │                        └── Waiting … (follow)     Giving ◀──┘
//!        │                                                   │  ▲ │
//!        └──────────────────────────────────── Attempting ◀──┘  │ └─ exact ─▶ Ending ─▶ Done
//!                                                    └──────────┘
//! ```
//!
//! Exactness that cannot be had lowers the [`Aim`], once and for all; then what is known to have
//! changed is read a last time (`LastWords`, `Reading(Farewell)`, `Reckoning`). A state that is taken
//! out to be worked on leaves [`State::TakenOut`] behind, an error [`State::Poisoned`]: neither can be
//! taken for success.

mod events;
mod orders;
mod postponed;
mod state;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub(super) use self::events::{Action, Event, Look, Pending, Reckoning};
use self::postponed::Postponed;
pub(super) use self::state::Rules;
use self::state::{Aim, Following, Gathering, Round, Spent, Stage, State, Task, Then, Transition};
use super::Follow;
use super::final_round::{FinalRound, Outcome};
use crate::host::HashSet;
use crate::ledger::ConsistencyReached;
use crate::policy::Consistency;

/// Rounds before the final one.
const MAX_ROUNDS: u32 = 6;

/// With so few names left, the final round may come.
const FEW_NAMES: usize = 50;

/// Scans that may be begun anew before giving up.
const MAX_RESTARTS: u32 = 3;

/// How often a batch may hold something that is refused.
const MAX_REFUSALS: u32 = 3;

/// How often the final round is put off because a key changed that could not be read before: perhaps
/// it can be read now. One that changes all the time must not hold up the others.
const MAX_DETOURS: u32 = 3;

/// The longest that the rounds after the scan may take, where nobody says.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// And where exactness is only welcome: as long as the scan, but at least so long.
const MIN_WAIT: Duration = Duration::from_secs(10);

/// While following, how often a source without news is heard of.
const HEARTBEAT: Duration = Duration::from_millis(250);

/// While following, how long changes may gather before they are read.
const GATHER: Duration = Duration::from_millis(100);

/// How far a reading is on its way to being exact.
#[derive(Debug)]
pub(super) struct Rounds {
    rules: Rules,
    state: State,
    aim: Aim,
    /// `None` once it is over, or where nothing is followed.
    following: Option<Following>,
    spent: Spent,
    /// When the scan began.
    began: Instant,
    /// When the rounds began, for `max_wait`.
    rounds_began: Option<Instant>,
    /// Why changes of whole databases would go unnoticed.
    blind: Option<&'static str>,
    postponed: Postponed,
    reached: Option<ConsistencyReached>,
    /// Why it will not be exact, until that is said.
    warning: Option<String>,
}

impl Rounds {
    pub fn new(rules: Rules, blind: Option<&'static str>, now: Instant) -> Self {
        let following = rules.follow.clone().map(|follow| Following {
            follow,
            began: None,
            last_change: now,
        });
        Self {
            rules,
            state: State::Reading(Stage::Scan { anew: false }),
            aim: Aim::Exact,
            following,
            spent: Spent::default(),
            began: now,
            rounds_began: None,
            blind,
            postponed: Postponed::default(),
            reached: None,
            warning: None,
        }
    }

    /// What is to be done next.
    pub fn next(&mut self) -> Action<'_> {
        // These are done by being said.
        let next = match &self.state {
            State::Beating => Some((Action::Heartbeat, Stage::Follow)),
            State::RestingFromFollowing => Some((Action::Rest, Stage::Follow)),
            _ => None,
        };
        if let Some((action, stage)) = next {
            self.state = State::Reading(stage);
            return action;
        }
        match &mut self.state {
            State::Reading(_) => Action::Read,
            State::ListingUnmet => Action::ListUnmet,
            State::TakingUnmet(log) => Action::TakeUnmet(log),
            State::Listening(_) => Action::Listen,
            State::Gathering(Gathering::CountSwaps, _) => Action::CountSwaps,
            State::Gathering(Gathering::LookForDatabases, _) => Action::LookForDatabases,
            State::Gathering(Gathering::Take, _) => Action::Take,
            State::Rereading(names, _) => Action::Reread(std::mem::take(names)),
            State::BeginningToFollow => Action::BeginFollowing,
            State::Waiting(_) => Action::Look,
            State::AskingSentinels { idle, .. } => Action::AskSentinels { at_once: *idle },
            State::Sleeping(_) => Action::Sleep,
            State::EndingFollowing => Action::EndFollowing,
            State::Holding | State::RestingFromFollowing => Action::Rest,
            State::Beating => Action::Heartbeat,
            State::Giving(_) => Action::Give,
            State::Attempting(_) => Action::Attempt,
            State::AddingDatabases(rows, _) => Action::AddDatabases(rows),
            State::LastWords(_) => Action::CollectRest,
            State::AskingIfDeaf(..) => Action::AskIfDeaf,
            State::Restarting(reason) => Action::Restart(reason),
            State::Reckoning => Action::Reckon,
            State::Ending => Action::End,
            State::Done => Action::Done,
            State::Failed(reason) => Action::Fail(reason),
            State::TakenOut(_) | State::Poisoned => {
                Action::Fail("it was read on after an error; this is a bug")
            }
        }
    }

    /// Tells what came of it.
    pub fn on(&mut self, event: Event) {
        let state = std::mem::replace(&mut self.state, State::Poisoned);
        self.state = match (state, event) {
            (State::Reading(stage), event) => self.on_reading(stage, event),
            (State::ListingUnmet, Event::Unmet(log)) => {
                Transition::UnmetListed.record();
                State::TakingUnmet(log)
            }
            (State::TakingUnmet(log), Event::UnmetTaken { any: true }) => {
                Transition::UnmetTaken.record();
                State::Reading(Stage::CatchUp(log))
            }
            (State::TakingUnmet(_), Event::UnmetTaken { any: false }) => {
                Transition::UnmetDone.record();
                State::Reading(Stage::Rounds(Round::FIRST))
            }
            (
                State::Listening(round),
                Event::Heard {
                    waiting,
                    rescan,
                    now,
                },
            ) => self.on_heard(round, waiting, rescan, now),
            (State::Gathering(step, then), event) => self.on_gathered(step, then, event),
            (State::Rereading(_, stage), Event::Reread) => {
                Transition::Reread.record();
                State::Reading(stage)
            }
            (State::TakenOut(Task::Giving), Event::Gave(round, pending, now)) => {
                self.on_gave(round, pending, now)
            }
            (State::TakenOut(Task::Attempting), Event::Attempted(round, outcome)) => {
                self.on_attempted(round, outcome)
            }
            (State::AddingDatabases(_, round), Event::DatabasesAdded) => {
                Transition::DatabasesAdded.record();
                back_to_rounds(round)
            }
            (State::LastWords(round), Event::Rest { names, rescan }) => {
                self.on_rest(round, names, rescan)
            }
            (State::AskingIfDeaf(reason, otherwise), Event::Deaf(deaf)) => {
                self.on_deaf(reason, deaf, *otherwise)
            }
            (State::Restarting(_), Event::Restarted { blind, deaf }) => {
                self.on_restarted(blind, deaf)
            }
            (State::Reckoning, Event::Reckoned(reckoning)) => self.on_reckoned(&reckoning),
            (State::Ending, Event::Ended) => {
                Transition::Ended.record();
                State::Done
            }
            (state, event) => self.on_follow(state, event),
        };
    }

    fn on_reading(&mut self, stage: Stage, event: Event) -> State {
        match (stage, event) {
            (stage, Event::Incomplete(reason)) => {
                Transition::Incomplete.record();
                self.lose_track(reason);
                State::Reading(stage)
            }
            (stage, Event::OtherProcess) if self.gave_up() => {
                Transition::OtherProcessTooLate.record();
                self.aim = Aim::Scan;
                State::Reading(stage)
            }
            (stage, Event::OtherProcess) => {
                Transition::OtherProcess.record();
                let reason = "the source was restarted, or is another one".to_owned();
                self.restart_or(reason, State::Reading(stage))
            }
            (stage, Event::Missed { reason, names }) => {
                Transition::ChangesMissed.record();
                self.restart_or(reason, State::Rereading(names, stage))
            }
            (Stage::Scan { anew: false }, Event::ReadOut(_)) => {
                Transition::ScanRead.record();
                State::Reading(Stage::Rounds(Round::FIRST))
            }
            (Stage::Scan { anew: true }, Event::ReadOut(_)) => {
                Transition::ScanReadAnew.record();
                State::ListingUnmet
            }
            (Stage::CatchUp(log), Event::ReadOut(_)) => State::TakingUnmet(log),
            (Stage::Rounds(round), Event::ReadOut(_)) => {
                Transition::RoundRead.record();
                State::Listening(round)
            }
            (Stage::Follow, Event::ReadOut(now)) => {
                Transition::FollowRead.record();
                State::Waiting(now)
            }
            (Stage::Farewell, Event::ReadOut(_)) => {
                Transition::FarewellRead.record();
                State::Reckoning
            }
            (_, _) => unexpected(),
        }
    }

    /// A round of the backlog is read, and so many names changed since.
    fn on_heard(&mut self, round: Round, waiting: usize, rescan: bool, now: Instant) -> State {
        self.rounds_began.get_or_insert(now);
        if rescan && !self.gave_up() {
            Transition::RoundNeedsScan.record();
            return State::Reading(Stage::Rounds(round));
        }
        // Hot keys never end: once a round does not shrink, the final one has to do.
        let is_enough = round.left == 0
            || waiting <= FEW_NAMES
            || waiting >= round.last_names
            || self.aim < Aim::Exact;
        if !is_enough {
            Transition::RoundGathers.record();
            let then = Then::Rounds(Round {
                left: round.left - 1,
                last_names: waiting,
            });
            return self.gather(then);
        }
        if let Some(following) = &mut self.following {
            // Also where it is not exact: until somebody says when.
            Transition::FollowingBegins.record();
            following.began.get_or_insert(now);
            following.last_change = now;
            // Bounded while there is an end to come to; following has its own.
            self.spent.restarts = 0;
            return State::BeginningToFollow;
        }
        if self.rules.in_cluster {
            Transition::Holds.record();
            return State::Holding;
        }
        Transition::FinalBegins.record();
        State::Giving(FinalRound::new(self.postponed.take()))
    }

    /// Takes what changed, after a look at what nobody tells.
    fn gather(&self, then: Then) -> State {
        let first = match self.gave_up() {
            true => Gathering::LookForDatabases,
            false => Gathering::CountSwaps,
        };
        State::Gathering(first, then)
    }

    fn on_gathered(&mut self, step: Gathering, then: Then, event: Event) -> State {
        match (step, event) {
            (Gathering::CountSwaps, Event::Swaps(Some(reason))) => {
                Transition::Swapped.record();
                let otherwise = State::Gathering(Gathering::LookForDatabases, then);
                self.restart_or(reason.to_owned(), otherwise)
            }
            (Gathering::CountSwaps, Event::Swaps(None)) => {
                Transition::SwapsCounted.record();
                State::Gathering(Gathering::LookForDatabases, then)
            }
            (Gathering::LookForDatabases, Event::DatabasesLookedFor) => {
                Transition::DatabasesLookedFor.record();
                State::Gathering(Gathering::Take, then)
            }
            (Gathering::Take, Event::Taken { names, rescan }) => {
                let reread = State::Rereading(names, then.into());
                match rescan {
                    None => {
                        Transition::Taken.record();
                        reread
                    }
                    Some(_) if self.gave_up() => {
                        Transition::TakenTooLate.record();
                        self.aim = Aim::Scan;
                        reread
                    }
                    Some(reason) => {
                        Transition::TakenAndScanNeeded.record();
                        self.restart_or(reason, reread)
                    }
                }
            }
            (_, _) => unexpected(),
        }
    }

    fn on_follow(&mut self, state: State, event: Event) -> State {
        match (state, event) {
            (State::BeginningToFollow, Event::FollowingBegun) => State::Reading(Stage::Follow),
            (State::Waiting(_), Event::Looked(look)) if look.rescan => {
                Transition::FollowNeedsScan.record();
                State::Reading(Stage::Follow)
            }
            (State::Waiting(_), Event::Looked(look)) if look.restless => {
                Transition::FollowRests.record();
                State::RestingFromFollowing
            }
            (State::Waiting(since), Event::Looked(look)) => {
                Transition::FollowAsksSentinels.record();
                let idle = self.following.as_ref().is_some_and(|it| it.is_idle(&look));
                State::AskingSentinels { since, look, idle }
            }
            (State::AskingSentinels { .. }, Event::Sentinels { moved: true, .. }) => {
                Transition::SourceReplaced.record();
                State::Reading(Stage::Follow)
            }
            (
                State::AskingSentinels { since, look, idle },
                Event::Sentinels { moved: false, open },
            ) => {
                // Silence is no rest where writers were sent elsewhere.
                self.follow_on(since, &look, idle && !open)
            }
            (State::Sleeping(since), Event::Slept) => {
                Transition::FollowSlept.record();
                State::Waiting(since)
            }
            (State::EndingFollowing, Event::FollowingEnded(now)) => {
                Transition::FollowEnded.record();
                self.following = None;
                self.rounds_began = Some(now);
                State::Reading(Stage::Rounds(Round::FIRST))
            }
            (_, _) => unexpected(),
        }
    }

    fn follow_on(&mut self, since: Instant, look: &Look, idle: bool) -> State {
        let Some(following) = &mut self.following else {
            return unexpected();
        };
        if look.stop || idle || look.others_over || following.is_over(look.now) {
            Transition::FollowEnds.record();
            return State::EndingFollowing;
        }
        let waited = look.now.saturating_duration_since(since);
        if look.waiting > 0 && waited >= GATHER {
            Transition::FollowGathers.record();
            following.last_change = look.now;
            return self.gather(Then::Follow);
        }
        if waited >= HEARTBEAT {
            Transition::FollowBeats.record();
            return State::Beating;
        }
        Transition::FollowSleeps.record();
        State::Sleeping(since)
    }

    fn on_gave(&mut self, round: FinalRound, pending: Pending, now: Instant) -> State {
        match pending {
            Pending::More => {
                Transition::GaveMore.record();
                return State::Giving(round);
            }
            Pending::Exact => {
                // In a cluster there may be another final round, at a later instant.
                Transition::GaveExact.record();
                self.postponed.extend(round.into_heard_since());
                return State::Ending;
            }
            Pending::Nothing => {}
        }
        let began = *self.rounds_began.get_or_insert(now);
        let max_wait = self.max_wait(began);
        if self.aim == Aim::Exact && now.saturating_duration_since(began) > max_wait {
            Transition::GaveUpForTime.record();
            self.miss(format!(
                "keys kept changing for {} (--max-wait)",
                humantime::format_duration(Duration::from_secs(max_wait.as_secs()))
            ));
        }
        if self.aim < Aim::Exact {
            Transition::GivesLastWords.record();
            return State::LastWords(round);
        }
        Transition::Attempts.record();
        State::Attempting(round)
    }

    /// The longest that the rounds may take.
    fn max_wait(&self, rounds_began: Instant) -> Duration {
        let usual = || match self.rules.consistency {
            Consistency::Auto if self.rules.follow.is_none() => rounds_began
                .saturating_duration_since(self.began)
                .clamp(MIN_WAIT, MAX_WAIT),
            _ => MAX_WAIT,
        };
        self.rules.max_wait.unwrap_or_else(usual)
    }

    /// What follows from an attempt at the final round.
    fn on_attempted(&mut self, round: FinalRound, outcome: Outcome) -> State {
        match outcome {
            Outcome::Exact { at_ms } => {
                Transition::AttemptExact.record();
                self.reached = Some(ConsistencyReached::Exact(vec![(0, at_ms)]));
                State::Giving(round)
            }
            Outcome::Again => {
                Transition::AttemptAgain.record();
                State::Giving(round)
            }
            Outcome::Rescan(reason) => {
                Transition::AttemptNeedsScan.record();
                self.restart_or(reason, State::Giving(round))
            }
            Outcome::Grown => {
                Transition::AttemptGrown.record();
                back_to_rounds(round)
            }
            Outcome::Databases(rows) => {
                Transition::AttemptFoundDatabases.record();
                State::AddingDatabases(rows, round)
            }
            Outcome::Elsewhere => {
                Transition::AttemptElsewhere.record();
                self.postponed.extend(round.into_names());
                State::Holding
            }
            Outcome::Alone(reason) => {
                self.spent.refusals += 1;
                if self.spent.refusals <= MAX_REFUSALS {
                    Transition::AttemptRefused.record();
                    return back_to_rounds(round);
                }
                Transition::AttemptRefusedTooOften.record();
                self.miss(format!("the final round is refused: {reason}"));
                State::Giving(round)
            }
            Outcome::Impossible(reason) => {
                Transition::AttemptImpossible.record();
                self.miss(reason);
                State::Giving(round)
            }
            Outcome::Incomplete(reason) => {
                Transition::AttemptIncomplete.record();
                self.lose_track(reason);
                State::Giving(round)
            }
        }
    }

    /// What the final round would have read, and what changed since, is read a last time.
    fn on_rest(&mut self, round: FinalRound, heard: HashSet<Vec<u8>>, rescan: bool) -> State {
        match rescan {
            true => {
                Transition::RestCollectedTooLate.record();
                self.aim = Aim::Scan;
            }
            false => Transition::RestCollected.record(),
        }
        let mut names = round.into_names();
        names.extend(heard);
        State::Rereading(names, Stage::Farewell)
    }

    /// Begins the scan anew, within bounds.
    fn restart_or(&mut self, reason: String, otherwise: State) -> State {
        if self.rules.may_begin_anew() && self.spent.restarts < MAX_RESTARTS {
            Transition::Restarts.record();
            self.spent.restarts += 1;
            return State::Restarting(reason);
        }
        let reason = format!("changes can no longer be followed: {reason}");
        if self.follows() {
            Transition::RestartAsksIfDeaf.record();
            return State::AskingIfDeaf(reason, Box::new(otherwise));
        }
        Transition::RestartRefused.record();
        self.lose_track(reason);
        otherwise
    }

    fn on_deaf(&mut self, reason: String, deaf: bool, otherwise: State) -> State {
        if deaf {
            Transition::DeafWhileFollowing.record();
            return State::Failed(reason);
        }
        Transition::HearsWhileFollowing.record();
        self.lose_track(reason);
        otherwise
    }

    /// All is to be scanned anew; `deaf` is why changes cannot be listened to any more.
    fn on_restarted(&mut self, blind: Option<&'static str>, deaf: Option<String>) -> State {
        match deaf {
            Some(words) => {
                Transition::RestartedDeaf.record();
                self.lose_track(format!("changes can no longer be listened to: {words}"));
            }
            None => Transition::Restarted.record(),
        }
        self.blind = blind;
        self.postponed.take();
        State::Reading(Stage::Scan { anew: true })
    }

    /// Not exact, and read once more: says what is known.
    fn on_reckoned(&mut self, reckoning: &Reckoning) -> State {
        Transition::Reckoned.record();
        if reckoning.missed_some || reckoning.rescan || self.blind.is_some() {
            self.aim = Aim::Scan;
        }
        let (from_ms, to_ms) = (reckoning.from_ms, reckoning.to_ms);
        self.reached = Some(match (self.aim, reckoning.waiting) {
            (Aim::Scan, _) => ConsistencyReached::Scan { from_ms, to_ms },
            (_, 0) => ConsistencyReached::PerKey { from_ms, to_ms },
            (_, keys) => ConsistencyReached::Changing {
                from_ms,
                to_ms,
                keys: keys as u64,
            },
        });
        State::Ending
    }

    /// Exactness cannot be had any more.
    fn miss(&mut self, reason: String) {
        if self.aim == Aim::Exact {
            self.aim = Aim::PerKey;
            self.warning = Some(format!("not exact: {reason}"));
        }
    }

    /// Not every change was heard of.
    fn lose_track(&mut self, reason: String) {
        self.miss(reason);
        self.aim = Aim::Scan;
    }
}

/// What the final round would have read is read outside of it first.
fn back_to_rounds(round: FinalRound) -> State {
    State::Rereading(round.into_names(), Stage::Rounds(Round::ONE_MORE))
}

fn unexpected() -> State {
    Transition::Unexpected.record();
    State::Failed("something was done that was not asked for; this is a bug".to_owned())
}
