//! A connection as the server sees it.

use std::collections::BTreeSet;

/// A client's number, as CLIENT ID tells it.
pub type ClientId = u64;

/// The world itself, which sends commands without a connection.
pub(super) const WORLD: ClientId = 0;

/// A connection as the server sees it.
#[derive(Debug, Default)]
pub(super) struct Client {
    pub id: ClientId,
    pub session: Session,
    pub transaction: Option<Transaction>,
    pub watched: Vec<Watched>,
    /// A watched key was written.
    pub is_dirty: bool,
    pub tracking: Option<Tracking>,
    pub input: Vec<u8>,
    pub output: Vec<u8>,
    /// Pushes for the client itself, sent after the reply of the command that caused them.
    pub late: Vec<u8>,
    /// What keeps it from being served.
    pub waits: Option<Waits>,
    pub is_closed: bool,
}

/// What keeps a client from being served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// CLIENT PAUSE.
    Pause,
    /// WAIT: for so many replicas, up to an offset, until a time (0: forever).
    Replicas {
        count: usize,
        offset: u64,
        until: u64,
    },
    /// For ever: a command of it is not carried out and not answered, and so is none that comes behind
    /// it. No server leaves out one answer and gives the next.
    Nothing,
}

/// What a client has set for its connection.
#[derive(Debug)]
pub(super) struct Session {
    pub db: u32,
    pub protocol: u8,
    pub name: Vec<u8>,
    /// `None` until it has said who it is.
    pub user: Option<String>,
    /// ASKING, for the next command.
    pub asking: bool,
    pub read_only: bool,
    pub no_touch: bool,
    pub no_evict: bool,
    pub replies: Replies,
    /// It became a replica by PSYNC.
    pub is_replica: bool,
    pub last_command: &'static str,
}

/// CLIENT REPLY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replies {
    On,
    Off,
    SkipNext,
    Skip,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            db: 0,
            protocol: 2,
            name: Vec::new(),
            user: None,
            asking: false,
            read_only: false,
            no_touch: false,
            no_evict: false,
            replies: Replies::On,
            is_replica: false,
            last_command: "NULL",
        }
    }
}

/// MULTI.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub queued: Vec<Vec<Vec<u8>>>,
    /// A command was refused when it was to be queued.
    pub has_failed: bool,
    pub writes: bool,
    /// A queued command may need memory.
    pub needs_memory: bool,
    pub asking: bool,
}

/// A key of WATCH.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Watched {
    pub db: u32,
    pub key: Vec<u8>,
    /// It was over already when WATCH came.
    pub was_expired: bool,
}

/// CLIENT TRACKING.
#[derive(Debug, Default)]
pub(super) struct Tracking {
    /// Names with these beginnings are told, whoever read them. Without BCAST: `None`.
    pub prefixes: Option<Vec<Vec<u8>>>,
    /// Not what the client itself wrote.
    pub no_loop: bool,
    /// Names to be told at the end of this turn of the event loop.
    pub names: BTreeSet<Vec<u8>>,
    /// Names that the client read, and wants to hear of once (without BCAST).
    pub read: BTreeSet<Vec<u8>>,
}

impl Client {
    pub fn new(id: ClientId, user: Option<String>) -> Self {
        Self {
            id,
            session: Session {
                user,
                ..Session::default()
            },
            ..Self::default()
        }
    }
}
