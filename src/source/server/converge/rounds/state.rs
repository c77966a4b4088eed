//! The states of the rounds, and the names of their transitions.

use std::time::{Duration, Instant};

use super::{FinalRound, Look, MAX_ROUNDS};
use crate::host::HashSet;
use crate::policy::Consistency;
use crate::server::facts::Keyspace;
use crate::source::server::converge::Follow;
use crate::source::server::delivered::NotMetAgain;
use crate::source::server::transitions::transitions;

/// What was asked for.
#[derive(Debug, Clone)]
pub(in super::super) struct Rules {
    pub consistency: Consistency,
    pub max_wait: Option<Duration>,
    /// Who knows all shards of a cluster decides when the final round comes.
    pub in_cluster: bool,
    pub follow: Option<Follow>,
}

impl Rules {
    /// Whether a scan may begin anew. Only then are the names of everything given kept in a file. In
    /// a cluster any shard may have to, when another node takes its place.
    pub fn may_begin_anew(&self) -> bool {
        self.consistency != Consistency::Auto || self.follow.is_some() || self.in_cluster
    }
}

/// What can still be reached. It only ever falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Aim {
    /// Not every change was heard of.
    Scan,
    /// Not of one instant.
    PerKey,
    Exact,
}

/// One round of reading again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Round {
    /// Rounds that may follow.
    pub left: u32,
    /// Names that the round before this one read; the first round has no limit.
    pub last_names: usize,
}

impl Round {
    pub const FIRST: Self = Self {
        left: MAX_ROUNDS,
        last_names: usize::MAX,
    };

    /// After what would have been the final round.
    pub const ONE_MORE: Self = Self {
        left: 1,
        last_names: usize::MAX,
    };
}

/// Why the backlog is read, and so what comes when it has been.
#[derive(Debug)]
pub(super) enum Stage {
    /// `anew`: what was given before may be gone.
    Scan {
        anew: bool,
    },
    /// What was given before the scan began anew, and was not met again.
    CatchUp(NotMetAgain),
    Rounds(Round),
    Follow,
    /// Not exact: what is known to have changed is read a last time.
    Farewell,
}

/// Where reading goes on when what changed was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Rounds(Round),
    Follow,
}

impl From<Then> for Stage {
    fn from(then: Then) -> Self {
        match then {
            Then::Rounds(round) => Self::Rounds(round),
            Then::Follow => Self::Follow,
        }
    }
}

/// How far the taking of what changed is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gathering {
    CountSwaps,
    LookForDatabases,
    Take,
}

#[derive(Debug)]
pub(super) enum State {
    /// The backlog is read.
    Reading(Stage),
    /// The scan that began anew is through.
    ListingUnmet,
    TakingUnmet(NotMetAgain),
    Listening(Round),
    Gathering(Gathering, Then),
    /// These names go into the backlog.
    Rereading(HashSet<Vec<u8>>, Stage),
    BeginningToFollow,
    /// While following, nothing is left to be read since then.
    Waiting(Instant),
    AskingSentinels {
        since: Instant,
        look: Look,
        idle: bool,
    },
    /// Nothing changed for a moment.
    Sleeping(Instant),
    /// Nothing changed for a while.
    Beating,
    /// Something is to be settled between the shards first.
    RestingFromFollowing,
    EndingFollowing,
    /// In a cluster: the final round waits until every shard has come so far.
    Holding,
    /// What is ready of the final round is given.
    Giving(FinalRound),
    Attempting(FinalRound),
    /// The final round is being worked on: nothing can be done but to bring it back.
    TakenOut(Task),
    AddingDatabases(Vec<Keyspace>, FinalRound),
    /// Exactness was given up.
    LastWords(FinalRound),
    /// Only another scan can help, and none may come: is anything heard at all?
    AskingIfDeaf(String, Box<State>),
    Restarting(String),
    /// The last changes were read.
    Reckoning,
    Ending,
    Done,
    /// An error, in these words.
    Failed(String),
    /// An error that was told already.
    Poisoned,
}

/// Why the final round was taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    Giving,
    Attempting,
    /// To be attempted together with those of the other shards.
    Together,
}

transitions!(
    /// What the rounds may do; tests reach all of it.
    pub(super) Transition {
        ScanRead,
        ScanReadAnew,
        UnmetListed,
        UnmetTaken,
        UnmetDone,
        RoundRead,
        RoundNeedsScan,
        RoundGathers,
        FollowingBegins,
        Holds,
        FinalBegins,
        Swapped,
        SwapsCounted,
        DatabasesLookedFor,
        Taken,
        TakenTooLate,
        TakenAndScanNeeded,
        Reread,
        FollowRead,
        FollowNeedsScan,
        FollowRests,
        FollowAsksSentinels,
        SourceReplaced,
        FollowGathers,
        FollowSleeps,
        FollowSlept,
        FollowBeats,
        FollowEnds,
        FollowEnded,
        GaveMore,
        GaveExact,
        GaveUpForTime,
        GivesLastWords,
        Attempts,
        AttemptExact,
        AttemptAgain,
        AttemptNeedsScan,
        AttemptGrown,
        AttemptFoundDatabases,
        DatabasesAdded,
        AttemptElsewhere,
        AttemptRefused,
        AttemptRefusedTooOften,
        AttemptImpossible,
        AttemptIncomplete,
        RestCollected,
        RestCollectedTooLate,
        Incomplete,
        OtherProcess,
        OtherProcessTooLate,
        ChangesMissed,
        Restarts,
        RestartRefused,
        RestartAsksIfDeaf,
        DeafWhileFollowing,
        HearsWhileFollowing,
        Restarted,
        RestartedDeaf,
        FarewellRead,
        Reckoned,
        Ended,
        AdoptedSlots,
        MoreRoundsOrdered,
        MoreRoundsAfterScan,
        FinalOrdered,
        FinalTakenOut,
        FinalPutBack,
        FinalSettled,
        GivenUpByOrder,
        Poisoned,
        Unexpected,
    }
);

/// While changes are followed, or will be.
#[derive(Debug)]
pub(super) struct Following {
    pub follow: Follow,
    pub began: Option<Instant>,
    pub last_change: Instant,
}

/// What must not be done for ever.
#[derive(Debug, Default)]
pub(super) struct Spent {
    pub restarts: u32,
    pub detours: u32,
    pub refusals: u32,
}

impl Following {
    /// Whether nothing has changed for as long as was asked for.
    pub fn is_idle(&self, look: &Look) -> bool {
        let own = || look.now.saturating_duration_since(self.last_change);
        let quiet_for = look.quiet_for.unwrap_or_else(own);
        let until_idle = self.follow.until_idle;
        until_idle.is_some_and(|idle| look.waiting == 0 && quiet_for >= idle)
    }

    /// Whether it has lasted for as long as was asked for.
    pub fn is_over(&self, now: Instant) -> bool {
        let lasted = |began: Instant| now.saturating_duration_since(began);
        let total = self.follow.total;
        total.is_some_and(|total| self.began.is_some_and(|began| lasted(began) >= total))
    }
}
