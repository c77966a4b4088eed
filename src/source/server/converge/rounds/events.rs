//! What the rounds want done, and what they are told.

use std::time::{Duration, Instant};

use super::{FinalRound, Outcome};
use crate::host::HashSet;
use crate::server::facts::Keyspace;
use crate::source::server::delivered::NotMetAgain;

/// What is to be done.
#[derive(Debug)]
pub(in super::super) enum Action<'a> {
    /// Look for trouble ([`Event::Incomplete`], [`Event::OtherProcess`], [`Event::Missed`]), else read
    /// what is in the backlog; when it is empty, [`Event::ReadOut`].
    Read,
    /// List what was given before the scan began anew, and was not met again: [`Event::Unmet`].
    ListUnmet,
    /// Put some of it into the backlog: [`Event::UnmetTaken`].
    TakeUnmet(&'a mut NotMetAgain),
    /// Wait until everything that was written before was heard of: [`Event::Heard`].
    Listen,
    /// Look whether databases were swapped: [`Event::Swaps`].
    CountSwaps,
    /// Look for databases that had no keys before, and put them into the backlog:
    /// [`Event::DatabasesLookedFor`].
    LookForDatabases,
    /// Take what was heard: [`Event::Taken`].
    Take,
    /// Put those of these names into the backlog that [`super::Rounds::choose`] says:
    /// [`Event::Reread`].
    Reread(HashSet<Vec<u8>>),
    /// Say so: [`Event::FollowingBegun`].
    BeginFollowing,
    /// Look what changed, and at what the other shards do: [`Event::Looked`].
    Look,
    /// Ask the sentinels if it is time to, `at_once` sooner: [`Event::Sentinels`].
    AskSentinels {
        /// The following would end now.
        at_once: bool,
    },
    /// Wait a moment: [`Event::Slept`].
    Sleep,
    /// Let it be known that there is no news.
    Heartbeat,
    /// Say so: [`Event::FollowingEnded`].
    EndFollowing,
    /// Nothing more, until somebody else has decided.
    Rest,
    /// Give what is ready of the final round ([`super::Rounds::take_final`]): [`Event::Gave`].
    Give,
    /// Attempt it: [`Event::Attempted`].
    Attempt,
    /// Read these databases, too: [`Event::DatabasesAdded`].
    AddDatabases(&'a [Keyspace]),
    /// Take what was heard, and what may have changed unheard: [`Event::Rest`].
    CollectRest,
    /// Tell whether changes are heard at all: [`Event::Deaf`].
    AskIfDeaf,
    /// Begin the scan anew, for this reason: [`Event::Restarted`].
    Restart(&'a str),
    /// Tell what is known at the end: [`Event::Reckoned`].
    Reckon,
    /// Give what comes last: [`Event::Ended`].
    End,
    /// Nothing more.
    Done,
    /// Nothing more, because of an error.
    Fail(&'a str),
}

/// What came of it.
#[derive(Debug)]
pub(in super::super) enum Event {
    /// Something was lost: what was read is not all there was at any one instant.
    Incomplete(String),
    /// The source is another process than it was.
    OtherProcess,
    /// Changes were missed, for this reason; these names were heard of.
    Missed {
        reason: String,
        names: HashSet<Vec<u8>>,
    },
    /// The backlog is empty.
    ReadOut(Instant),
    Unmet(NotMetAgain),
    UnmetTaken {
        any: bool,
    },
    /// So many names wait to be taken; `rescan`: only another scan can help.
    Heard {
        waiting: usize,
        rescan: bool,
        now: Instant,
    },
    /// Why only another scan can help, if that is so.
    Swaps(Option<&'static str>),
    DatabasesLookedFor,
    /// What was heard; `rescan` is why only another scan can help, if that is so.
    Taken {
        names: HashSet<Vec<u8>>,
        rescan: Option<String>,
    },
    Reread,
    FollowingBegun,
    Looked(Look),
    /// `moved`: the connection leads to another server now. `open`: they disagree, and may agree yet.
    Sentinels {
        moved: bool,
        open: bool,
    },
    Slept,
    FollowingEnded(Instant),
    Gave(FinalRound, Pending, Instant),
    Attempted(FinalRound, Outcome),
    DatabasesAdded,
    /// What was heard; `rescan`: not every change was.
    Rest {
        names: HashSet<Vec<u8>>,
        rescan: bool,
    },
    Deaf(bool),
    Restarted {
        /// Why changes of whole databases would go unnoticed.
        blind: Option<&'static str>,
        /// Why changes cannot be listened to any more.
        deaf: Option<String>,
    },
    Reckoned(Reckoning),
    Ended,
}

/// While following: how things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Look {
    pub now: Instant,
    /// Names that wait to be taken.
    pub waiting: usize,
    /// Only another scan can help.
    pub rescan: bool,
    /// Something is to be settled between the shards.
    pub restless: bool,
    /// For how long no shard has changed; `None` where this is the only server.
    pub quiet_for: Option<Duration>,
    /// The user wishes to stop.
    pub stop: bool,
    /// The following has ended for another shard.
    pub others_over: bool,
}

/// What is still to be given of a final round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Pending {
    /// More than fitted into the batch.
    More,
    /// Nothing.
    Nothing,
    /// Nothing, and what was given is exact.
    Exact,
}

/// What is known at the end of a reading that is not exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Reckoning {
    /// Names that wait to be taken.
    pub waiting: usize,
    /// Only another scan would help.
    pub rescan: bool,
    /// Some changes were not heard of.
    pub missed_some: bool,
    /// When the scan began, the server's clock, Unix ms.
    pub from_ms: u64,
    /// Now.
    pub to_ms: u64,
}
