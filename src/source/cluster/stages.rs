//! What comes after what when a cluster is read. No I/O, no threads, no clock: events and the time
//! come in, actions come out, and whoever does them says what came of it with the next event.
//!
//! The pipe reads a [`Stage`] to its end. Then a view of the cluster is taken, and slots that moved
//! are reassigned, which is something to read. If nothing moved, what comes next depends on the
//! [`Situation`]: slots that are on their way are waited for or asked for where they go, and at last
//! comes the last round, of each shard alone or of all of them in one pause.

#[cfg(test)]
mod explore;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use super::view::Unknown;
use crate::server::patience::Patience;

/// How often it is looked whether slots that were on their way have arrived.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How often a node is asked that does not answer yet.
pub(super) const ASK_EVERY: Duration = Duration::from_millis(200);

/// Rounds of busy shards before the last one.
const MAX_REFRESHES: u32 = 3;

/// How often a key is asked for that the node that its slot goes to does not answer for.
const MAX_ASKED: u32 = 3;

/// Writes go on for at least so long between two pauses, and need not for longer.
const REST_BETWEEN_PAUSES: (Duration, Duration) =
    (Duration::from_millis(20), Duration::from_secs(1));

/// What the pipe reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Parts scan, and read again what changed.
    Reading,
    /// Keys of slots that are on their way are read where they go.
    Asking,
    /// The last round.
    Last,
    /// The function libraries.
    Functions,
    /// Everything was read.
    Over,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// The pipe read the stage to its end, and nothing is under way.
    StageEnded,
    /// To [`Action::CollectAsked`].
    Collected,
    /// To [`Action::TakeView`]: which slots have to be read again.
    ViewTaken(SlotChanges),
    /// To [`Action::TakeView`] and [`Action::Reassign`]: not possible yet, and why.
    NotYet(String),
    /// To [`Action::Reassign`]: there is something to read.
    Reassigned,
    /// To [`Action::Reassign`]: there was nothing to reassign.
    Steady(Situation),
    /// To [`Action::Rest`].
    Rested,
    /// To [`Action::AskAgain`]: whether there is such a key.
    AskedAgain(bool),
    /// To [`Action::AskPauses`].
    Paused(Paused),
    /// To [`Action::Attempt`].
    Attempted {
        /// Of each shard the moment at which what it read was exact, if it was.
        exact: Vec<Option<u64>>,
        /// Every pause held until all had been read.
        in_time: bool,
    },
    /// To [`Action::Conclude`].
    Concluded(Concluded),
    /// To [`Action::End`].
    Ended(End),
}

/// What a new view says of the slots that are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SlotChanges {
    /// Some are served by another node than before.
    pub moved: bool,
    /// Those whose keys a node did not answer for though they are still its own.
    pub unanswered: Option<String>,
    /// Why not, in the node's words.
    pub reason: String,
}

/// How things are when no slot has to be reassigned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Situation {
    /// Shards follow changes.
    pub follows: bool,
    /// Some shard may still be exact.
    pub may_be_exact: bool,
    /// All shards gave everything.
    pub is_done: bool,
    /// Why it is not known which slots are on their way, if it is not.
    pub unknown: Option<Unknown>,
    /// The slots that are on their way, if any.
    pub on_the_way: Option<String>,
    /// Nothing happened in the cluster since the last round began.
    pub is_unchanged: bool,
    /// In some shard much has changed while it waited.
    pub is_busy: bool,
}

/// What came of asking all shards to pause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Paused {
    /// All are.
    Held,
    /// In a server's words; none is.
    Refused(String),
    /// A node was lost; no other is paused.
    Lost,
    /// Some shard cannot be exact any more: it was not tried.
    InVain,
}

/// What came of an attempt, once each shard knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Concluded {
    /// Every shard may try again.
    CanRepeat,
    /// Some shards have to read something outside of a pause first.
    NeedsRounds,
    /// A node was lost.
    Lost,
}

/// What was left at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Keys that nobody answered for: that they failed is to be given.
    FailedKeys,
    /// Function libraries.
    Functions,
    /// Nothing.
    Nothing,
}

/// Which shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shards {
    All,
    /// Those in which much has changed.
    Busy,
    /// Those whose last round was attempted in vain.
    AtLast,
}

/// What is to be done. Those that an event answers come last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Let the pipe read the stage.
    Read,
    /// Take from the nodes that slots go to what they did not answer for.
    CollectAsked,
    /// Ask the nodes how the cluster lies.
    TakeView,
    /// Give slots to the parts that have them now.
    Reassign,
    /// Wait for so long.
    Rest(Duration),
    /// Read nothing more from nodes that slots go to.
    StopAsking,
    /// Begin to read from the nodes that slots go to.
    BeginAsking,
    /// Ask again for the keys that those did not answer for.
    AskAgain,
    /// Let these shards read again what changed.
    ReadOn(Shards),
    /// Exactness is not possible, and why.
    GiveUp(String),
    /// Remember how the cluster lies: the last round begins.
    KeepView,
    /// Let each shard begin its last round.
    BeginLast,
    /// Say that pauses are refused, in the server's words.
    MissPause(String),
    /// Pause writes of all shards.
    AskPauses,
    /// Read the last round of all shards, and let writes go on.
    Attempt,
    /// Tell the shards what came of it: the moment that all have in common, if there is one.
    Conclude(Option<u64>),
    /// Count what was not read as failed, and read the function libraries.
    End,
    /// End with this error.
    Fail(String),
}

/// What is to come after a rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    TakeView,
    Reassign,
    ReadOn,
    AskOn,
    AskPauses,
}

/// The event that has to come next.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Awaited {
    Collected,
    View,
    Reassigned,
    Rested(Then),
    AskedAgain(Situation),
    /// When the pauses were asked for.
    Pauses(Instant),
    Attempt(Instant),
    Conclusion {
        began: Instant,
        is_common: bool,
    },
    Ended,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// The pipe reads.
    In(Stage),
    /// Between two stages.
    After(Stage, Awaited),
    /// An error came of what was to be done.
    Failed,
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Stages {
    /// The longest that slots on their way, and one common instant, are waited for.
    max_wait: Duration,
    /// All shards are to be read in one pause.
    pauses: bool,
    state: State,
    /// How often keys were asked for where their slots go.
    times_asked: u32,
    refreshes: u32,
    /// Since when everything is read but the last round.
    resting_since: Option<Instant>,
    /// How long slots may have no owner that can be read.
    homeless: Patience,
    /// How long keys may not be answered for though nothing moves.
    stalled: Patience,
    is_common: bool,
}

impl Stages {
    /// Begins with [`Stage::Reading`].
    pub(super) fn new(max_wait: Duration, retry_for: Duration, pauses: bool) -> Self {
        Self {
            max_wait,
            pauses,
            state: State::In(Stage::Reading),
            times_asked: 0,
            refreshes: 0,
            resting_since: None,
            homeless: Patience::new(retry_for),
            stalled: Patience::new(retry_for),
            is_common: false,
        }
    }

    /// What the pipe reads now; nothing after an error.
    pub(super) fn stage(&self) -> Stage {
        match self.state {
            State::In(stage) => stage,
            State::After(..) | State::Failed => Stage::Over,
        }
    }

    /// Whether all shards were read at one instant.
    pub(super) fn is_common(&self) -> bool {
        self.is_common
    }

    /// Something happened, now. What is to be done then ends with [`Action::Read`], with
    /// [`Action::Fail`], or with an action that the next event answers; nothing when all is over.
    pub(super) fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        // An error of what was to be done must not leave a state behind from which it goes on.
        match std::mem::replace(&mut self.state, State::Failed) {
            State::In(stage) if event == Event::StageEnded => self.ended(stage),
            State::After(stage, awaited) => self.answered(stage, awaited, event, now),
            state => self.confused(&state, &event),
        }
    }

    fn confused(&mut self, state: &State, event: &Event) -> Vec<Action> {
        vec![Action::Fail(format!(
            "the cluster cannot be read on after an error ({event:?} in {state:?})"
        ))]
    }

    fn ended(&mut self, stage: Stage) -> Vec<Action> {
        match stage {
            Stage::Asking => self.await_with(stage, Awaited::Collected, Action::CollectAsked),
            Stage::Reading | Stage::Last => self.look(stage),
            Stage::Functions | Stage::Over => {
                self.state = State::In(Stage::Over);
                Vec::new()
            }
        }
    }

    fn answered(
        &mut self,
        stage: Stage,
        awaited: Awaited,
        event: Event,
        now: Instant,
    ) -> Vec<Action> {
        match (awaited, event) {
            (Awaited::Collected, Event::Collected) => self.look(stage),
            (Awaited::View, Event::ViewTaken(changes)) => self.viewed(stage, changes, now),
            (Awaited::View | Awaited::Reassigned, Event::NotYet(reason)) => {
                self.not_yet(stage, &reason, now)
            }
            (Awaited::Reassigned, Event::Reassigned) => {
                self.resting_since = None;
                // Slots that are still on their way are asked for anew later.
                self.read(Stage::Reading, vec![Action::StopAsking])
            }
            (Awaited::Reassigned, Event::Steady(situation)) => self.steady(stage, situation, now),
            (Awaited::Rested(then), Event::Rested) => self.rested(stage, then, now),
            (Awaited::AskedAgain(_), Event::AskedAgain(true)) => {
                self.rest(stage, ASK_EVERY, Then::AskOn)
            }
            (Awaited::AskedAgain(situation), Event::AskedAgain(false)) => {
                self.go_on(stage, &situation, now)
            }
            (Awaited::Pauses(began), Event::Paused(paused)) => self.paused(stage, began, paused),
            (Awaited::Attempt(began), Event::Attempted { exact, in_time }) => {
                self.attempted(stage, began, &exact, in_time)
            }
            (Awaited::Conclusion { began, is_common }, Event::Concluded(concluded)) => {
                self.is_common = is_common;
                self.concluded(stage, began, concluded, now)
            }
            (Awaited::Ended, Event::Ended(end)) => match end {
                End::FailedKeys => self.read(Stage::Asking, Vec::new()),
                End::Functions => self.read(Stage::Functions, Vec::new()),
                End::Nothing => {
                    self.state = State::In(Stage::Over);
                    Vec::new()
                }
            },
            (awaited, event) => self.confused(&State::After(stage, awaited), &event),
        }
    }

    fn await_with(&mut self, stage: Stage, awaited: Awaited, action: Action) -> Vec<Action> {
        self.state = State::After(stage, awaited);
        vec![action]
    }

    fn read(&mut self, stage: Stage, mut actions: Vec<Action>) -> Vec<Action> {
        self.state = State::In(stage);
        actions.push(Action::Read);
        actions
    }

    fn rest(&mut self, stage: Stage, time: Duration, then: Then) -> Vec<Action> {
        self.await_with(stage, Awaited::Rested(then), Action::Rest(time))
    }

    fn rested(&mut self, stage: Stage, then: Then, now: Instant) -> Vec<Action> {
        match then {
            Then::TakeView => self.await_with(stage, Awaited::View, Action::TakeView),
            Then::Reassign => self.await_with(stage, Awaited::Reassigned, Action::Reassign),
            Then::ReadOn => self.read(Stage::Reading, vec![Action::ReadOn(Shards::All)]),
            Then::AskOn => {
                self.times_asked += 1;
                self.read(Stage::Asking, Vec::new())
            }
            Then::AskPauses => self.await_with(stage, Awaited::Pauses(now), Action::AskPauses),
        }
    }

    /// A stage was read: who has which slots now?
    fn look(&mut self, stage: Stage) -> Vec<Action> {
        self.homeless.progress();
        self.await_with(stage, Awaited::View, Action::TakeView)
    }

    fn viewed(&mut self, stage: Stage, changes: SlotChanges, now: Instant) -> Vec<Action> {
        let Some(slots) = changes.unanswered.filter(|_| !changes.moved) else {
            self.stalled.progress();
            return self.await_with(stage, Awaited::Reassigned, Action::Reassign);
        };
        if self.stalled.lasts_at(now) {
            return self.rest(stage, ASK_EVERY, Then::Reassign);
        }
        vec![Action::Fail(format!(
            "the cluster does not answer for keys of slots {slots}: {} ({}); run again when it does",
            changes.reason,
            self.stalled.told_at(now)
        ))]
    }

    /// A failover needs the time after which a node counts as dead (15 s by default), an election, and
    /// some seconds.
    fn not_yet(&mut self, stage: Stage, reason: &str, now: Instant) -> Vec<Action> {
        if self.homeless.lasts_at(now) {
            return self.rest(stage, ASK_EVERY, Then::TakeView);
        }
        vec![Action::Fail(format!(
            "not every slot of the cluster can be read: {reason} ({}); run again when it can",
            self.homeless.told_at(now)
        ))]
    }

    /// Nothing moved.
    fn steady(&mut self, stage: Stage, situation: Situation, now: Instant) -> Vec<Action> {
        if situation.follows {
            return self.read(Stage::Reading, Vec::new());
        }
        if let Some(unknown) = situation
            .unknown
            .as_ref()
            .filter(|_| situation.may_be_exact)
        {
            // Nothing is exact while it is not known which slots are on their way.
            let waits = unknown.may_pass && !self.rests_too_long(now);
            if waits {
                return self.rest(stage, LOOK_EVERY, Then::ReadOn);
            }
            let give_up = Action::GiveUp(unknown.reason.clone());
            return self.read(Stage::Reading, vec![give_up, Action::ReadOn(Shards::All)]);
        }
        if stage == Stage::Asking && self.times_asked < MAX_ASKED {
            return self.await_with(stage, Awaited::AskedAgain(situation), Action::AskAgain);
        }
        self.go_on(stage, &situation, now)
    }

    /// Whether more than [`Self::max_wait`] has passed since only the last round was missing.
    fn rests_too_long(&mut self, now: Instant) -> bool {
        let since = *self.resting_since.get_or_insert(now);
        now.saturating_duration_since(since) > self.max_wait
    }

    fn go_on(&mut self, stage: Stage, situation: &Situation, now: Instant) -> Vec<Action> {
        if stage == Stage::Last {
            return self.after_last(situation, now);
        }
        let mut actions = Vec::new();
        let mut may_be_exact = situation.may_be_exact;
        if let Some(slots) = &situation.on_the_way {
            // While slots are on their way nothing is exact.
            if may_be_exact && !self.rests_too_long(now) {
                return self.rest(stage, LOOK_EVERY, Then::ReadOn);
            }
            if may_be_exact {
                may_be_exact = false;
                actions.push(Action::GiveUp(format!(
                    "slots were migrating between nodes for {} (--max-wait): {slots}",
                    humantime::format_duration(self.max_wait),
                )));
            }
            if stage != Stage::Asking {
                return self.begin_asking(actions);
            }
        }
        if may_be_exact && situation.is_busy && self.refreshes < MAX_REFRESHES {
            self.refreshes += 1;
            actions.push(Action::ReadOn(Shards::Busy));
            return self.read(Stage::Reading, actions);
        }
        if situation.is_done {
            actions.extend(self.await_with(stage, Awaited::Ended, Action::End));
            return actions;
        }
        actions.extend(self.begin_last(may_be_exact, now));
        actions
    }

    fn begin_asking(&mut self, mut actions: Vec<Action>) -> Vec<Action> {
        self.times_asked = 1;
        actions.push(Action::BeginAsking);
        self.read(Stage::Asking, actions)
    }

    fn begin_last(&mut self, may_be_exact: bool, now: Instant) -> Vec<Action> {
        self.resting_since.get_or_insert(now);
        self.is_common = false;
        let mut actions = vec![Action::KeepView];
        if self.pauses && may_be_exact {
            let awaited = Awaited::Pauses(now);
            actions.extend(self.await_with(Stage::Last, awaited, Action::AskPauses));
            return actions;
        }
        actions.push(Action::BeginLast);
        self.read(Stage::Last, actions)
    }

    /// The last round was read. Was it the last?
    fn after_last(&mut self, situation: &Situation, now: Instant) -> Vec<Action> {
        let counts = situation.is_unchanged || !situation.may_be_exact;
        if situation.is_done && counts {
            return match situation.on_the_way {
                None => self.await_with(Stage::Last, Awaited::Ended, Action::End),
                // Not exact anyway: what went with them meanwhile is read once more.
                Some(_) => self.begin_asking(Vec::new()),
            };
        }
        let mut actions = Vec::new();
        if self.rests_too_long(now) {
            actions.push(Action::GiveUp(format!(
                "slots of the cluster kept moving for {} (--max-wait)",
                humantime::format_duration(self.max_wait)
            )));
        }
        actions.push(Action::ReadOn(Shards::All));
        self.read(Stage::Reading, actions)
    }

    fn paused(&mut self, stage: Stage, began: Instant, paused: Paused) -> Vec<Action> {
        match paused {
            Paused::Held => self.await_with(stage, Awaited::Attempt(began), Action::Attempt),
            Paused::Refused(text) => {
                let actions = vec![Action::MissPause(text), Action::BeginLast];
                self.read(Stage::Last, actions)
            }
            Paused::InVain => self.read(Stage::Last, vec![Action::BeginLast]),
            Paused::Lost => self.read(Stage::Last, vec![Action::ReadOn(Shards::All)]),
        }
    }

    /// All pauses were confirmed before anything was read, and none was over when everything had been
    /// read: so there was a moment at which every shard was as it was read. One clock is as good as
    /// another for it.
    fn attempted(
        &mut self,
        stage: Stage,
        began: Instant,
        exact: &[Option<u64>],
        in_time: bool,
    ) -> Vec<Action> {
        let is_exact = !exact.is_empty() && exact.iter().all(Option::is_some);
        let moment = exact.first().copied().flatten();
        let common = moment.filter(|_| is_exact && in_time);
        let awaited = Awaited::Conclusion {
            began,
            is_common: common.is_some(),
        };
        self.await_with(stage, awaited, Action::Conclude(common))
    }

    fn concluded(
        &mut self,
        stage: Stage,
        began: Instant,
        concluded: Concluded,
        now: Instant,
    ) -> Vec<Action> {
        match concluded {
            Concluded::Lost => self.read(Stage::Last, vec![Action::ReadOn(Shards::All)]),
            _ if self.is_common => self.read(Stage::Last, Vec::new()),
            // The others wait for the next pause; alone they would try without one.
            Concluded::NeedsRounds => self.read(Stage::Last, vec![Action::ReadOn(Shards::AtLast)]),
            Concluded::CanRepeat if self.rests_too_long(now) => {
                let give_up = Action::GiveUp(format!(
                    "in {} no pause was long enough to read what was left of all shards \
                     (--max-wait, --max-pause)",
                    humantime::format_duration(self.max_wait)
                ));
                self.read(Stage::Last, vec![give_up, Action::BeginLast])
            }
            Concluded::CanRepeat => {
                let (least, most) = REST_BETWEEN_PAUSES;
                let lasted = now.saturating_duration_since(began);
                let time = (lasted * 3).clamp(least, most);
                self.rest(stage, time, Then::AskPauses)
            }
        }
    }
}
