//! One connection of the sink and all that belongs to it. A standalone destination has one lane, a
//! cluster one for each primary.

use std::collections::VecDeque;
use std::time::Instant;

use super::commands::{CommandLimits, Commands};
use super::confirm::{MAX_KEPT_BYTES, Unconfirmed};
use super::target::Target;
use super::{Action, Sent};
use crate::endpoint::{ConnectOptions, NodeAddress, Transport};
use crate::server::counts::CommandCounts;
use crate::server::facts::Facts;
use crate::server::reconnect::Retries;
use crate::server::reply::{Reply, cmd};
use crate::server::sentinel::{self, Standing};
use crate::server::{ABSENT_KEY, Conn, ServerError};

/// One connection and what is in flight on it.
pub(super) struct Lane {
    /// How to get there.
    pub to: ConnectOptions,
    /// Where its node says it is, in a cluster.
    pub announced: Option<NodeAddress>,
    /// `None` before the first use, and after it was lost.
    pub conn: Option<Conn>,
    /// Why it was lost.
    pub why: Option<ServerError>,
    pub times_lost: u64,
    pub retries: Retries,
    /// Who was there when it was last connected.
    pub facts: Facts,
    pub pexpiretime: bool,
    /// CLIENT ID of the connection: what is left of a lost one can be ended by it.
    client_id: Option<i64>,
    /// A write was in flight on the connection that was lost last.
    pub left_writes: bool,
    /// Such a connection could not be ended: what it left may be carried out late.
    pub may_run_late: bool,
    pub sent: VecDeque<Sent>,
    pub sent_bytes: usize,
    /// The change of database that is under way.
    pub next: Option<Move>,
    /// Learnt when the first key comes.
    pub target: Option<Target>,
    /// Learnt when the first value is to be written by native commands.
    pub commands: Option<Commands>,
    /// How often the try of MULTI and EXEC was answered oddly.
    pub odd_transactions: u8,
    /// What its node takes in one piece, once it was asked.
    pub limits: Option<CommandLimits>,
    /// Larger payloads are not sent by RESTORE.
    pub restore_max_bytes: u64,
    /// Whether the limits are the node's own words. If not, a connection that is lost at a large
    /// value lowers them.
    pub limits_known: bool,
    /// Whether anything was acknowledged on it.
    pub acknowledged: bool,
    /// Whether some of that is neither kept nor known to be at a replica.
    pub unkept: bool,
    /// The server that answered last: sentinels may name another one by now.
    reached: String,
    /// When they were asked last.
    pub named: Option<Instant>,
    /// A replica confirmed something since: it may have followed a primary that is none any more.
    pub confirmed_since: bool,
    /// Whether the cluster, or the node itself, knows of a replica.
    pub is_replicated: bool,
    /// How much may be kept until a replica has it.
    pub kept_max_bytes: usize,
    /// What was acknowledged and has perhaps not reached a replica.
    pub unconfirmed: Unconfirmed,
    /// `evicted_keys` at the first look.
    evicted_before: Option<u64>,
    /// How often each command had been called then.
    counts_before: Option<CommandCounts>,
}

/// SELECT is in flight, behind all that goes to the database before.
pub(super) struct Move {
    /// Where to.
    pub db: u32,
    /// What goes there, and waits for the OK. Not a byte of it is on its way.
    pub held: VecDeque<Sent>,
    /// Bytes of values.
    pub held_bytes: usize,
}

impl Move {
    /// Nothing waits yet.
    pub fn to(db: u32) -> Self {
        Self {
            db,
            held: VecDeque::new(),
            held_bytes: 0,
        }
    }

    /// Makes one wait.
    pub fn hold(&mut self, sent: Sent) {
        self.held_bytes += sent.bytes;
        self.held.push_back(sent);
    }
}

/// Who answers on a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Met {
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

impl Lane {
    /// Not connected yet.
    pub fn new(to: ConnectOptions, announced: Option<NodeAddress>) -> Self {
        Self {
            retries: Retries::new(&to),
            to,
            announced,
            conn: None,
            why: None,
            times_lost: 0,
            facts: Facts::default(),
            pexpiretime: false,
            client_id: None,
            left_writes: false,
            may_run_late: false,
            sent: VecDeque::new(),
            sent_bytes: 0,
            next: None,
            target: None,
            commands: None,
            odd_transactions: 0,
            limits: None,
            restore_max_bytes: 0,
            limits_known: false,
            acknowledged: false,
            unkept: false,
            reached: String::new(),
            named: None,
            confirmed_since: false,
            is_replicated: false,
            kept_max_bytes: 0,
            unconfirmed: Unconfirmed::default(),
            evicted_before: None,
            counts_before: None,
        }
    }

    /// Where it leads, for messages.
    pub fn address(&self) -> String {
        match &self.announced {
            Some(announced) => announced.to_string(),
            None => self.to.address.to_string(),
        }
    }

    /// The connection.
    ///
    /// # Errors
    /// [`ServerError::Lost`] where there is none.
    pub fn conn(&mut self) -> Result<&mut Conn, ServerError> {
        match &mut self.conn {
            Some(conn) => Ok(conn),
            None => Err(no_connection(&self.to)),
        }
    }

    /// The connection, with what it takes to write by commands.
    ///
    /// # Errors
    /// As [`Self::conn`]; so too where nothing was learnt yet.
    pub fn conn_and_commands(&mut self) -> Result<(&mut Conn, &mut Commands), ServerError> {
        match (&mut self.conn, &mut self.commands) {
            (Some(conn), Some(commands)) => Ok((conn, commands)),
            _ => Err(no_connection(&self.to)),
        }
    }

    /// Takes a new connection into use: asks who is there and forgets what was learnt of somebody
    /// else.
    ///
    /// # Errors
    /// The connection.
    pub fn meet(&mut self, mut conn: Conn) -> Result<Met, ServerError> {
        conn.doing("asking the destination what it is");
        let facts = Facts::ask(&mut conn)?;
        self.meet_as(conn, facts)
    }

    /// As [`Self::meet`], with the answer that was given already.
    ///
    /// # Errors
    /// The connection.
    pub fn meet_as(&mut self, mut conn: Conn, mut facts: Facts) -> Result<Met, ServerError> {
        facts.learn_eviction(&mut conn)?;
        let moved = self.is_watched() && !self.reached.is_empty() && self.reached != conn.address();
        let met = match (&self.facts.run_id, &facts.run_id) {
            (Some(before), Some(now)) if before == now => Met::Same,
            // Also where nobody says who he is: the sentinels name another one.
            _ if moved => Met::Successor,
            _ if self.evicted_before.is_none() && self.facts.version.is_empty() => Met::First,
            (Some(_), Some(_)) => Met::Other,
            _ if self.facts.version != facts.version => Met::Other,
            _ => Met::Unknown,
        };
        // In one round trip.
        conn.queue(&[b"PEXPIRETIME", ABSENT_KEY.as_bytes()])?;
        conn.queue(&[b"CLIENT", b"ID"])?;
        let (pexpiretime, id) = (conn.reply()?, conn.reply()?);
        self.pexpiretime = pexpiretime.map_or_else(|text| text.starts_with("MOVED"), |_| true);
        let former = std::mem::replace(
            &mut self.client_id,
            match id {
                Ok(Reply::Int(id)) => Some(id),
                _ => None,
            },
        );
        // What the server has received on the lost connection and not carried out must not be
        // carried out behind what is sent now. Where that is refused, its socket buffer is short.
        if matches!(met, Met::Same | Met::Unknown) {
            let ended = match former {
                Some(former) => conn.try_query(cmd("CLIENT").arg("KILL").arg("ID").arg(former))?,
                None => Err("it was never told its id".to_owned()),
            };
            self.may_run_late |= self.left_writes && !matches!(ended, Ok(Reply::Int(_)));
        }
        self.left_writes = false;
        let is_another = matches!(met, Met::Other | Met::Successor);
        if is_another {
            self.target = None;
            self.commands = None;
            self.limits = None;
        }
        if is_another || met == Met::First {
            self.evicted_before = facts.evicted_keys;
            self.counts_before = match facts.info {
                true => CommandCounts::ask(&mut conn)?,
                false => None,
            };
        }
        conn.address().clone_into(&mut self.reached);
        self.is_replicated |= facts.replicas.is_some_and(|count| count > 0);
        if self.is_watched() {
            self.kept_max_bytes = MAX_KEPT_BYTES;
        }
        self.set_kept();
        self.facts = facts;
        conn.doing("restoring keys");
        self.conn = Some(conn);
        Ok(met)
    }

    /// What the sentinels say by now of the server that this leads to; `None` where none named it, or
    /// none answers.
    pub fn standing(&self) -> Option<Standing> {
        let standing = sentinel::standing(self.conn.as_ref()?, &self.to)?;
        (!matches!(standing, Standing::Unknown(_))).then_some(standing)
    }

    /// Whether sentinels put a replica in the place of a primary that dies.
    pub fn is_watched(&self) -> bool {
        matches!(self.to.address, Transport::Sentinel(_))
    }

    /// Without a replica there is nothing to wait for.
    pub fn set_kept(&mut self) {
        self.unconfirmed.max_bytes = if self.is_replicated {
            self.kept_max_bytes
        } else {
            0
        };
    }

    /// Whether something was acknowledged that its node alone may have, and that is not at hand.
    pub fn may_lack(&self) -> bool {
        self.unkept || self.unconfirmed.dropped > 0
    }

    /// Whether values that were made ready for one go to the other as they are.
    pub fn is_like(&self, other: &Self) -> bool {
        self.facts.family == other.facts.family && self.facts.version == other.facts.version
    }

    /// Puts something behind what is in flight.
    pub fn push(&mut self, sent: Sent) {
        self.sent_bytes += sent.bytes;
        self.sent.push_back(sent);
    }

    /// Whether a value that is in flight will have more commands to send.
    pub fn has_turns_left(&self) -> bool {
        self.sent.iter().any(|sent| sent.by_commands.is_some())
    }

    /// What is in flight, and what waits for a database.
    pub fn unanswered(&self) -> impl Iterator<Item = &Sent> {
        let held = self.next.iter().flat_map(|next| &next.held);
        self.sent.iter().chain(held)
    }

    /// How many these are.
    pub fn unanswered_count(&self) -> usize {
        self.sent.len() + self.next.as_ref().map_or(0, |next| next.held.len())
    }

    /// Bytes of their values.
    pub fn unanswered_bytes(&self) -> usize {
        self.sent_bytes + self.next.as_ref().map_or(0, |next| next.held_bytes)
    }

    /// Whether SELECT is in flight, and an answer has come that was not read.
    pub fn has_answer_while_moving(&self) -> bool {
        self.next.is_some()
            && !self.sent.is_empty()
            && self.conn.as_ref().is_some_and(Conn::has_answer)
    }

    /// A word before the next command, whose answer concerns no key.
    pub fn push_prelude(&mut self, word: &'static str) {
        self.push(Sent::without_key(Action::Prelude(word)));
    }

    /// Evictions since the first look; `None` where it does not say.
    ///
    /// # Errors
    /// The connection.
    pub fn evictions(&mut self) -> Result<Option<u64>, ServerError> {
        let (Some(before), Some(conn)) = (self.evicted_before, &mut self.conn) else {
            return Ok(None);
        };
        let after = Facts::ask(conn)?.evicted_keys;
        Ok(after.map(|after| after.saturating_sub(before)))
    }

    /// Whether the server told at the first look how often each command had been called.
    pub fn has_counts(&self) -> bool {
        self.counts_before.is_some()
    }

    /// How often somebody emptied or swapped whole databases since the first look; `None` where it
    /// does not say.
    ///
    /// # Errors
    /// The connection.
    pub fn upheavals(&mut self) -> Result<Option<u64>, ServerError> {
        let (Some(before), Some(conn)) = (&self.counts_before, &mut self.conn) else {
            return Ok(None);
        };
        let after = CommandCounts::ask(conn)?;
        Ok(after.and_then(|after| after.upheavals_since(before)))
    }
}

fn no_connection(to: &ConnectOptions) -> ServerError {
    ServerError::Lost {
        address: to.address.to_string(),
        doing: "restoring keys".to_owned(),
        reason: "there is no connection".to_owned(),
    }
}
