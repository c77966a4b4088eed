//! What is known of one node of the destination, and what is in flight there. A standalone
//! destination has one lane, a cluster one for each primary.

use std::time::{Duration, Instant};

use super::flight::Flight;
use super::kept::{Kept, MAX_KEPT_BYTES};
use crate::endpoint::{ConnectOptions, NodeAddress, Transport};
use crate::server::ServerError;
use crate::server::facts::Facts;
use crate::server::reconnect::Retries;
use crate::sink::server::commands::{CommandLimits, Features};
use crate::sink::server::prepare::Target;

/// How often sentinels are asked whom they name, at most.
const SENTINELS_EVERY: Duration = Duration::from_secs(1);

/// Every server takes so much: neither limit can be set below 1 MiB (config.c).
pub(super) const SAFE_BYTES: u64 = (1 << 20) - (64 << 10);

/// The servers' words for an argument that is too long.
const TOO_LONG: &str = "Protocol error";

/// Whether there is a connection.
pub(super) enum Link {
    /// None yet, or none any more.
    Down {
        /// Why it was lost.
        why: Option<ServerError>,
        /// Why the last try to connect failed.
        last: Option<ServerError>,
        /// A write was in flight on it.
        left_writes: bool,
        /// It was up, and nobody has tried to connect since.
        was_up: bool,
    },
    Up,
    /// It takes no more bytes; what the server said before is still read.
    Dying(ServerError),
}

/// Who answers on a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sink::server) enum Met {
    /// Nobody was met before.
    First,
    /// The same process as before.
    Same,
    /// Another process, or the same one started anew.
    Other,
    /// The replica that its sentinels put in its place.
    Successor,
    /// It does not say.
    Unknown,
}

/// What a new connection begins with.
pub(in crate::sink::server) struct Introduction {
    pub met: Met,
    pub facts: Facts,
    /// Whether PEXPIRETIME is there to be asked.
    pub pexpiretime: bool,
    /// The database that the connection is proved to be in.
    pub database: Option<u32>,
    /// What a lost connection left could not be called off.
    pub may_run_late: bool,
}

/// What a node takes, as far as that was learnt.
#[derive(Default)]
pub(super) struct Takes {
    /// Learnt when the first key comes.
    pub target: Option<Target>,
    /// Learnt when the first value is to be written by native commands.
    pub features: Option<Features>,
    /// How often the try of MULTI and EXEC was answered oddly.
    pub odd_transactions: u8,
    /// What it takes in one piece, once it was asked.
    limits: Option<CommandLimits>,
    /// Larger payloads are not sent by RESTORE.
    restore_max_bytes: u64,
    /// Whether the limits are the node's own words. If not, a connection that is lost at a large
    /// value lowers them.
    limits_known: bool,
}

impl Takes {
    /// What the node takes in one piece, if it was asked.
    pub fn limits(&self) -> Option<CommandLimits> {
        self.limits
    }

    /// What it takes in one piece; `is_known`: in its own words.
    pub fn set_limits(&mut self, limits: CommandLimits, is_known: bool) {
        self.limits_known = is_known;
        self.restore_max_bytes = limits.max_argument_bytes();
        self.limits = Some(limits);
    }

    /// Whether a payload of so many bytes is too large for RESTORE; `None` where it was not asked.
    pub fn is_too_large(&self, bytes: usize) -> Option<bool> {
        self.limits.map(|_| bytes as u64 > self.restore_max_bytes)
    }

    /// The connection was lost at a payload of so many bytes: was it for its size? From which size on
    /// values go by native commands then.
    pub fn suspect_size(&mut self, bytes: u64, error: &ServerError) -> Option<u64> {
        let says = error.to_string().contains(TOO_LONG);
        let limits = self.limits.as_mut()?;
        if bytes <= SAFE_BYTES || (self.limits_known && !says) {
            return None;
        }
        if says {
            limits.max_bulk_bytes = limits.max_bulk_bytes.min(bytes - 1);
            self.features = None;
        }
        self.restore_max_bytes = self.restore_max_bytes.min((bytes / 2).max(SAFE_BYTES));
        Some(self.restore_max_bytes)
    }

    /// The connection was lost while a value with an element of `largest` bytes was written by
    /// commands, for the `strikes`th time: was it for that element?
    pub fn suspect_element(&mut self, largest: Option<u64>, strikes: u8, error: &ServerError) {
        let says = error.to_string().contains(TOO_LONG);
        // Once may be chance.
        if !says && (self.limits_known || strikes < 2) {
            return;
        }
        if let (Some(limits), Some(largest)) = (&mut self.limits, largest)
            && largest > SAFE_BYTES
        {
            limits.max_bulk_bytes = limits.max_bulk_bytes.min(largest - 1);
            self.features = None;
        }
    }

    /// Another process answers.
    fn forget(&mut self) {
        self.target = None;
        self.features = None;
        self.limits = None;
    }
}

/// One node.
pub(in crate::sink::server) struct Lane {
    /// How to get there.
    to: ConnectOptions,
    /// Where its node says it is, in a cluster.
    announced: Option<NodeAddress>,
    pub(super) link: Link,
    pub(super) retries: Retries,
    /// Who was there when it was last connected.
    pub facts: Facts,
    pub(super) pexpiretime: bool,
    /// The database that the connection is proved to be in.
    pub(super) database: Option<u32>,
    pub(super) flight: Flight,
    pub(super) takes: Takes,
    pub(super) kept: Kept,
    /// A lost connection could not be ended: what it left may be carried out late.
    pub(super) may_run_late: bool,
    /// When its sentinels were asked last.
    sentinels_asked: Option<Instant>,
}

impl Lane {
    /// Not connected yet.
    pub fn new(to: ConnectOptions, announced: Option<NodeAddress>) -> Self {
        Self {
            retries: Retries::new(&to),
            to,
            announced,
            link: Link::Down {
                why: None,
                last: None,
                left_writes: false,
                was_up: false,
            },
            facts: Facts::default(),
            pexpiretime: false,
            database: None,
            flight: Flight::default(),
            takes: Takes::default(),
            kept: Kept::default(),
            may_run_late: false,
            sentinels_asked: None,
        }
    }

    pub fn to(&self) -> &ConnectOptions {
        &self.to
    }

    /// What questions are asked with, and what their answers change.
    pub(super) fn asked_parts(&mut self) -> (&ConnectOptions, &Facts, &mut Takes) {
        (&self.to, &self.facts, &mut self.takes)
    }

    pub fn announced(&self) -> Option<&NodeAddress> {
        self.announced.as_ref()
    }

    /// Where it leads, for messages.
    pub fn address(&self) -> String {
        match &self.announced {
            Some(announced) => announced.to_string(),
            None => self.to.address.to_string(),
        }
    }

    /// Whether sentinels put a replica in the place of a primary that dies.
    pub fn is_watched(&self) -> bool {
        matches!(self.to.address, Transport::Sentinel(_))
    }

    pub fn is_up(&self) -> bool {
        matches!(self.link, Link::Up)
    }

    /// A lost connection, in the words of [`ServerError::Lost`].
    pub fn lost(&self, doing: &str, reason: impl Into<String>) -> ServerError {
        ServerError::Lost {
            address: self.to.address.to_string(),
            doing: doing.to_owned(),
            reason: reason.into(),
        }
    }

    /// What the server refuses, or answers with an error.
    pub fn refusal(&self, command: &str, text: String) -> ServerError {
        crate::server::conn::refusal(&self.to.address.to_string(), command, text)
    }

    /// What the server refuses though the run cannot do without it.
    pub fn refused(&self, command: &str, reason: String) -> ServerError {
        ServerError::Refused {
            address: self.to.address.to_string(),
            command: command.to_owned(),
            reason,
        }
    }

    /// A connection is there.
    pub fn introduce(&mut self, introduction: Introduction) {
        let Introduction {
            met,
            facts,
            pexpiretime,
            database,
            may_run_late,
        } = introduction;
        if matches!(met, Met::Other | Met::Successor) {
            self.takes.forget();
        }
        self.kept
            .note_replica(facts.role.replicas.is_some_and(|count| count > 0));
        if self.is_watched() {
            self.kept.limit(MAX_KEPT_BYTES);
        }
        self.facts = facts;
        self.pexpiretime = pexpiretime;
        self.database = database;
        self.may_run_late |= may_run_late;
        self.link = Link::Up;
        #[cfg(test)]
        super::tests::mark(&self.link);
    }

    /// Whether its sentinels are to be asked before WAIT.
    pub fn is_time_for_sentinels(&self, now: Instant) -> bool {
        let is_long_ago = |asked: Instant| now.saturating_duration_since(asked) >= SENTINELS_EVERY;
        self.is_watched()
            && (self.sentinels_asked.is_none_or(is_long_ago) || self.kept.is_filling())
    }

    pub fn note_sentinels_asked(&mut self, now: Instant) {
        self.sentinels_asked = Some(now);
    }

    /// Whether values that were made ready for one go to the other as they are.
    pub fn is_like(&self, other: &Self) -> bool {
        self.facts.family == other.facts.family && self.facts.version == other.facts.version
    }

    /// Something was got done there.
    pub fn note_progress(&mut self) {
        self.kept.note_acknowledged();
        self.retries.succeeded();
    }
}

#[cfg(test)]
super::tests::named!(Link: Down, Up, Dying);

#[cfg(test)]
super::tests::named!(Met: First, Same, Other, Successor, Unknown);
