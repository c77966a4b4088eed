//! What happens to a writer, and what it wants done. A writer does nothing itself: a shell carries
//! its actions out, one at a time, and tells what came of each.

use std::time::{Duration, Instant};

use super::fleet::NodeSaid;
use super::item::{Item, Task};
use super::lane::Introduction;
use super::ledger::Say;
use super::settings::Settings;
use crate::endpoint::ConnectOptions;
use crate::ledger::Deletions;
use crate::server::ServerError;
use crate::server::cluster::Topology;
use crate::server::facts::Facts;
use crate::server::sentinel::Standing;
use crate::sink::server::commands::{
    self, CommandError, CommandLimits, CommandLosses, Features, Job, Ticket, Written,
};
use crate::sink::server::compare::Found;
use crate::sink::server::foresee::KeyRights;
use crate::sink::server::functions::{Fate, Put};
use crate::sink::server::prepare::{OpaqueKind, Ready, Target};
use crate::sink::server::writer::closing::Upheavals;

/// The time of an event.
#[derive(Debug, Clone, Copy)]
pub(in crate::sink::server) struct Now {
    pub at: Instant,
    /// On the destination's clock, Unix ms.
    pub unix_ms: u64,
}

/// What happens to a writer. One comes with each record and one with each answer, and is moved several
/// times: what is large and seldom is in a box.
pub(in crate::sink::server) enum Event {
    /// A batch comes.
    BatchBegins,
    /// A record of a key, or a tombstone. The one before is taken care of.
    Record(Box<Item>),
    /// A FUNCTION DUMP.
    Libraries(Vec<u8>),
    /// That was all of the batch.
    BatchEnds,
    /// Nothing came for a while.
    Idle,
    /// All records came.
    Finish,
    /// The run failed: what is in flight is read, only to count it.
    GiveUp,
    /// A connection takes no more bytes.
    SendFailed(usize, ServerError),
    /// The answer that was due: a number for what was done (1 for OK), or an error reply.
    Reply(usize, Result<i64, String>),
    /// What stands under a key.
    Found(usize, Found),
    /// The replies that were due for a value that native commands write.
    Value(usize, Box<(Result<commands::Answer, CommandError>, Left)>),
    /// Nothing is there to be read.
    NoReply,
    /// The answer that was due could not be read, or is none that there can be.
    ReadFailed(usize, ServerError),
    /// The commands of a small value are queued; `None` where it has to be written alone.
    Queued(usize, Result<Option<Box<Ticket>>, ServerError>),
    /// A value was written alone.
    Wrote(usize, Box<WrittenAlone>),
    /// The answer to SELECT with nothing else in flight.
    Selected(usize, u32, Result<Result<(), String>, ServerError>),
    /// A connection is there.
    Met(usize, Box<Introduction>),
    /// There is none; `was_open`: it was, and was lost at once.
    NotConnected {
        at: usize,
        error: ServerError,
        was_open: bool,
    },
    /// The answer to a question; and the database that the connection is proved to be in now.
    Answered(usize, Result<Answer, ServerError>, Option<u32>),
    /// Who serves what; `None` where no node said.
    Topology(Option<Topology>),
    /// What the nodes say of themselves.
    NodesSaid(Vec<NodeSaid>),
    /// What the sentinels say; with the end of the connection to a server that was replaced.
    SentinelsSaid(usize, Option<Standing>),
    /// The time was waited.
    Waited,
    /// Nothing more may be deleted at the source, and why.
    Halted(anyhow::Error),
    /// A key cannot be named any more.
    Untold,
    /// Something that must make the exit code 3.
    Problem(String),
    /// Whoever waits for accepted keys has done the rest, or why not.
    SourceTold {
        deletions: Deletions,
        finished: anyhow::Result<()>,
    },
    /// How many keys a node evicted.
    Evicted(usize, Result<Option<u64>, ServerError>),
    /// How often databases of a node were emptied or swapped.
    Upheaved(usize, Result<Upheavals, ServerError>),
    /// Temporary keys that are left, each with its database, and why.
    Swept(Vec<(u32, Vec<u8>, String)>),
}

/// The temporary key that a value may have left, if it was not removed.
pub(in crate::sink::server) type Left = Option<Vec<u8>>;

/// What came of a value that was written with nothing else in flight.
pub(in crate::sink::server) type WrittenAlone =
    (Result<(Written, CommandLosses), CommandError>, Left);

/// Temporary keys of one database, and the way to the node of their slots.
pub(in crate::sink::server) struct Litter {
    /// `None` where no node serves their slots.
    pub to: Option<ConnectOptions>,
    pub db: u32,
    pub temps: Vec<Vec<u8>>,
}

/// What a writer wants done. Each is carried out before the next one. As with [`Event`], what is large
/// and seldom is in a box.
pub(in crate::sink::server) enum Action<'a> {
    /// Others are told.
    Say(Box<Say>),
    /// The commands of a record are queued.
    Send {
        at: usize,
        item: &'a Item,
        how: How,
    },
    /// SELECT is queued behind what is in flight, and all is flushed.
    SendSelect(usize, u32),
    /// WAIT for one replica is queued, for so many milliseconds at most.
    SendWait(usize, u64),
    /// The commands of a value are queued, if it is small.
    Queue(usize, Job<'a>),
    /// A value is written with nothing else in flight.
    WriteAlone(usize, Job<'a>),
    /// What is queued is written, on every connection.
    Flush,
    /// The reply that is due first is read.
    Read(usize, Due<'a>),
    /// As [`Self::Read`], if it would not wait.
    Peek(usize, Due<'a>),
    /// A connection is made, after a wait of at most so long.
    Connect {
        at: usize,
        to: &'a ConnectOptions,
        /// How long a server that loads its dataset is waited for.
        retry_for: Option<Duration>,
        after: Duration,
        /// A write was in flight on the connection before.
        left_writes: bool,
    },
    /// A connection is given up.
    Drop(usize),
    /// SELECT is asked with nothing else in flight.
    Select(usize, u32),
    /// A question is asked with nothing in flight.
    Ask {
        at: usize,
        question: Box<Question<'a>>,
        with: AskedWith<'a>,
    },
    /// The sentinels of a lane are asked.
    AskSentinels(usize),
    /// The first of these that answers says who serves what.
    AskTopology(Vec<ConnectOptions>),
    /// These nodes say what they are, on connections of their own.
    AskNodes(Vec<(usize, ConnectOptions)>),
    /// Time passes.
    Wait(Duration),
    /// Whoever waits for accepted keys does the rest; so many were neither accepted nor seen to stand.
    TellSource(u64),
    CountEvictions(usize),
    CountUpheavals(usize),
    /// Temporary keys are removed, on connections of their own.
    Sweep(Vec<Litter>),
}

/// How a record's command is sent.
#[derive(Debug, Clone, Copy)]
pub(in crate::sink::server) struct How {
    /// ASKING goes before it: the key's slot is on its way to this node.
    pub asking: bool,
    /// PEXPIRETIME is there to be asked.
    pub pexpiretime: bool,
}

/// The reply that is due.
pub(in crate::sink::server) enum Due<'a> {
    Asking,
    Cleared,
    Select(u32),
    Wait,
    Task(Task),
    Found(How),
    Value {
        db: u32,
        key: &'a [u8],
        ticket: Box<Ticket>,
    },
}

/// What questions are asked with.
#[derive(Clone, Copy)]
pub(in crate::sink::server) struct AskedWith<'a> {
    /// How to connect to the node.
    pub to: &'a ConnectOptions,
    /// What it says of itself.
    pub facts: &'a Facts,
    pub settings: &'a Settings,
}

/// What is asked with nothing in flight.
pub(in crate::sink::server) enum Question<'a> {
    /// What the node takes in one piece.
    Limits,
    /// What it accepts, tried on a name like that of this key, in a slot of the node.
    Target { like: &'a [u8], slot: Option<u16> },
    /// What it does with the key metadata of this record.
    Classes {
        target: &'a mut Target,
        item: &'a Item,
    },
    /// What its native commands can do; how often MULTI and EXEC were answered oddly before.
    Features {
        odd_transactions: u8,
        limits: Option<CommandLimits>,
    },
    /// Whether a graph of this name stands in another database.
    Graph(&'a [u8]),
    /// Whether it takes a value that cannot be read here.
    Offer {
        target: &'a mut Target,
        kind: OpaqueKind,
        item: &'a Item,
        ready: Ready,
    },
    /// What its user may write.
    Rights,
    /// Whether native commands may be used in this database.
    Native {
        db: u32,
        features: Features,
        is_cluster: bool,
    },
    /// A function library is given to it.
    Library(Put<'a>),
}

/// The answer to a [`Question`].
pub(in crate::sink::server) enum Answer {
    Limits {
        limits: CommandLimits,
        is_known: bool,
    },
    Target(Box<Target>),
    Classes,
    Features {
        features: Features,
        /// What it takes in one piece, if that was asked now, and whether these are its own words.
        limits: Option<(CommandLimits, bool)>,
    },
    /// MULTI and EXEC are not answered as they should be.
    OddTransaction(ServerError),
    /// Whether one stands; or why that cannot be seen.
    Graph(Result<bool, String>),
    /// The server's words, where it does not take it.
    Offered(Option<String>),
    Rights(KeyRights),
    /// `None` where they may be used; else the command, and why not.
    Native(Option<(String, String)>),
    Library {
        fate: Fate,
        is_unkept: bool,
    },
}
