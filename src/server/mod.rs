//! The talk with a server: the only room that knows the redis crate. Others say [`cmd`] and read
//! [`Reply`]s.
//!
//! Commands are packed by the redis crate. Replies are framed by [`resp`], so that a million small
//! replies cost no allocation each and a large one exactly one; replies that are not keys and
//! values are handed to the redis crate's parser.

pub mod cluster;
pub mod conn;
pub mod counts;
pub mod facts;
pub mod identity;
pub mod patience;
pub mod probe_key;
pub mod reconnect;
pub mod replication;
pub mod reply;
pub mod resp;
pub mod sentinel;
pub mod slots;
pub mod stream;
pub mod tracking;
pub mod transaction;

pub use conn::Conn;
pub use reply::{Command, Reply, cmd};

use crate::record::show_key;

/// What can go wrong between us and a server. The address never holds a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// No connection.
    #[error("cannot connect to {address}: {reason}")]
    Connect {
        /// Where to.
        address: String,
        /// Why not.
        reason: String,
    },
    /// Connected, but not let in.
    #[error("{address} refuses the credentials: {reason}")]
    Auth {
        /// Where.
        address: String,
        /// The server's words.
        reason: String,
    },
    /// A command that cannot be done without is refused.
    #[error("{address} refuses {command}, which is needed: {reason}")]
    Refused {
        /// Where.
        address: String,
        /// The command.
        command: String,
        /// The server's words.
        reason: String,
    },
    /// The connection broke.
    #[error("connection to {address} lost while {doing}: {reason}")]
    Lost {
        /// Where.
        address: String,
        /// What was under way.
        doing: String,
        /// Why.
        reason: String,
    },
    /// The server answered something that no server should.
    #[error("{address} gave an answer that is not understood while {doing}: {reason}")]
    Protocol {
        /// Where.
        address: String,
        /// What was under way.
        doing: String,
        /// What.
        reason: String,
    },
    /// The server answered a command with an error.
    #[error("{address} answered {command} with: {reason}")]
    Reply {
        /// Where.
        address: String,
        /// The command.
        command: String,
        /// The server's words.
        reason: String,
    },
}

impl ServerError {
    /// What happened, without where, if it is a refusal.
    pub fn words(&self) -> String {
        match self {
            Self::Refused {
                command, reason, ..
            } => format!("{command}: {reason}"),
            other => other.to_string(),
        }
    }

    /// Whether it may be gone when one connects again.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Lost { .. })
    }

    /// Whether the server was still loading its dataset when a new connection had waited for it as
    /// long as it may.
    pub fn is_loading_for_long(&self) -> bool {
        matches!(self, Self::Connect { reason, .. } if reason.starts_with("LOADING"))
    }
}

/// Whether an error is one that may be gone when one connects again.
pub fn is_lost(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<ServerError>()
        .is_some_and(ServerError::is_passing)
}

/// A name nobody uses, to try commands on.
pub const ABSENT_KEY: &str = "__redis-migrate:absent";

/// How far two expiries may lie apart where one is known only as remaining time (PTTL).
pub const PTTL_TOLERANCE_MS: u64 = 100;

/// Fields of a hash that go within this time count as gone where two values are compared: one server
/// may have dropped them, and its clock is known only as well as an answer is quick.
pub const FIELDS_GOING_MS: u64 = 1_000;

/// How far they may lie apart where a key is deleted for being the same: clock and key were asked one
/// right behind the other, and what is further apart was set to another moment.
pub const PTTL_CLOSE_MS: u64 = 2;

/// Whether a key stands by its expiry alone, which a server told in the same moment in which it gave
/// nil for the value: then it does not give the value, and Garnet is such a server. A key whose time
/// has just come may be there for the one command and gone for the next.
pub fn stands_by_expiry(expire_at_ms: Option<u64>, now_ms: u64) -> bool {
    const JUST_EXPIRED_MS: u64 = 1000;
    expire_at_ms.is_none_or(|at_ms| at_ms > now_ms.saturating_add(JUST_EXPIRED_MS))
}

/// A key and its database, for messages.
pub fn show_db_key(db: u32, key: &[u8]) -> String {
    format!("key {} (db {db})", show_key(key))
}
