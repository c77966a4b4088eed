//! What is asked of the source before a key of it is deleted: whether it is still what was read, and
//! by which command it can be deleted so that no change is missed.

use super::kept::Why;
use super::link::Link;
use super::remembering::{DELETE_IF_SET_SO, NO_SUCH_KEY, Remembering};
use crate::dialect::Feature;
use crate::endpoint::ConnectOptions;
use crate::payload::{self, Kind};
use crate::record::{Family, Origin};
use crate::server::conn::{asks_for_patience, is_forbidden};
use crate::server::facts::Facts;
use crate::server::reply::{Command, Reply, cmd, from_reply};
use crate::server::transaction;
use crate::server::{ABSENT_KEY, Conn, PTTL_CLOSE_MS, ServerError};
use crate::sink::server::refusal::is_about_key;
use crate::stop::Stop;

/// How often the remaining time of a key is asked for until the server answers at once.
const TIME_TRIES: u32 = 10;

/// Deletes a key if DUMP still gives this payload, and it expires at this moment (-1: never), give or
/// take two milliseconds, since clock and key are asked one behind the other. Before 7.0 a script may
/// not write after DUMP unless it says that what it does is replicated, not what it is.
const DELETE_IF_SAME: &str = "pcall(function() redis.replicate_commands() end) \
    local at = redis.call('PTTL', KEYS[1]) \
    if at >= 0 then local now = redis.call('TIME') \
    at = at + now[1] * 1000 + math.floor(now[2] / 1000) end \
    if math.abs(at - ARGV[2]) > 2 then return 0 end \
    if redis.call('DUMP', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end \
    return 0";

/// A value of more bytes is not sent back to be compared: no server takes it in one command.
const COMPARED_BYTES: usize = 256 * 1024 * 1024;

/// How a key is deleted that is what was read.
pub(super) enum Deletion {
    /// By DEL: WATCH sees every change of it.
    Watched,
    /// By a script that compares once more.
    Compared(Command),
}

/// What may be done with a key.
pub(super) enum Judged {
    /// It is what was read.
    Delete(Deletion),
    /// It may be what was read, and is kept all the same.
    Keep(Why),
    /// It is not what was read.
    Changed,
}

/// A key that the destination has, and that is to be deleted if it is still what was read.
pub(super) struct Candidate {
    pub origin: Origin,
    /// What was read.
    pub payload: Vec<u8>,
}

impl Candidate {
    fn kind(&self, family: Family) -> Kind {
        payload::kind(family, &self.payload)
    }
}

/// What a dry run asks in place of [`Source::open`].
///
/// # Errors
/// Where the source refuses a command that deleting takes, and the connection.
pub(crate) fn rehearse(from: &ConnectOptions) -> Result<(), ServerError> {
    prove(&mut Conn::open(from)?)
}

/// Whether this user may watch keys, delete them, and do that in a transaction. What it says of one
/// key may be different for others.
fn prove(conn: &mut Conn) -> Result<(), ServerError> {
    transaction::prove(conn)??;
    let of_key = |name: &str| cmd(name).arg(ABSENT_KEY).to_owned();
    for (name, command) in [
        ("WATCH", of_key("WATCH")),
        ("UNWATCH", cmd("UNWATCH")),
        // There is no such key.
        ("DEL", of_key("DEL")),
    ] {
        match conn.try_query(&command)? {
            Err(text) if is_forbidden(&text) && !is_about_key(&text) => {
                return Err(conn.refusal(name, text));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The source, and what it can do.
pub(super) struct Source {
    pub link: Link,
    family: Family,
    facts: Facts,
    /// It has PEXPIRETIME.
    pexpiretime: bool,
    /// WATCH does not see SWAPDB, which it has.
    is_swappable: bool,
    /// Whether each of the two scripts is taken, once that was asked.
    scripts: Option<bool>,
    stream_scripts: Option<bool>,
}

impl Source {
    /// # Errors
    /// The connection, and what this user may not do that deleting takes.
    pub fn open(connect: ConnectOptions, stop: Stop, family: Family) -> Result<Self, ServerError> {
        let mut link = Link::open(connect, stop)?;
        let probe = cmd("PEXPIRETIME").arg(ABSENT_KEY).to_owned();
        let pexpiretime = link.conn.try_query(&probe)?.is_ok();
        // Before the first key is written: else it is known only after many of them.
        prove(&mut link.conn)?;
        let facts = Facts::ask(&mut link.conn)?;
        link.name_the_work();
        let dialect = facts.dialect();
        let is_swappable =
            dialect.has(Feature::SwapDatabases) && dialect.lacks(Feature::WatchSeesSwaps);
        Ok(Self {
            link,
            family,
            facts,
            pexpiretime,
            is_swappable,
            scripts: None,
            stream_scripts: None,
        })
    }

    /// Nothing is deleted before this very connection is proved to be in the keys' database.
    ///
    /// # Errors
    /// A refusal, and the connection.
    pub fn select(&mut self, db: u32) -> Result<(), ServerError> {
        let conn = &mut self.link.conn;
        if let Err(text) = conn.select(db)? {
            conn.forget_database();
            return Err(conn.refusal("SELECT", text));
        }
        Ok(())
    }

    /// Whether a key may be deleted, and how.
    ///
    /// # Errors
    /// The connection.
    pub fn judge(&mut self, candidate: &Candidate) -> Result<Judged, ServerError> {
        let key = &candidate.origin.key;
        let is_module = matches!(candidate.kind(self.family), Kind::Module | Kind::Unknown);
        // WATCH may miss changes of it.
        let is_unwatched = is_module || self.is_swappable;
        let is_too_large = self.is_swappable && candidate.payload.len() > COMPARED_BYTES;
        if is_unwatched && (is_too_large || !self.takes_scripts()?) {
            return Ok(Judged::Keep(match is_module {
                true => Why::Module,
                false => Why::Swappable,
            }));
        }
        let is_stream = candidate.kind(self.family) == Kind::Stream;
        if is_stream && self.may_have_groups(key)? {
            return Ok(Judged::Keep(Why::Grouped));
        }
        let expire_at_ms = match self.expiry(key)? {
            Some(expiry) => expiry,
            None => return Ok(Judged::Changed),
        };
        let tolerance_ms = if self.pexpiretime { 0 } else { PTTL_CLOSE_MS };
        let same_expiry = match (expire_at_ms, candidate.origin.expire_at_ms) {
            (None, None) => true,
            (Some(now), Some(read)) => now.abs_diff(read) <= tolerance_ms,
            _ => false,
        };
        if !same_expiry {
            return Ok(Judged::Changed);
        }
        let Ok(Reply::Bulk(dump)) = self.link.conn.try_query(cmd("DUMP").arg(key))? else {
            return Ok(Judged::Changed);
        };
        if is_stream && !is_unwatched {
            return self.stream_deletion(candidate, dump);
        }
        let mut delete = cmd("EVAL");
        if is_unwatched {
            delete.arg(DELETE_IF_SAME).arg(1).arg(key).arg(&dump);
            match expire_at_ms {
                Some(at_ms) => delete.arg(at_ms),
                None => delete.arg(-1),
            };
        }
        Ok(match self.facts.dumped(dump) == candidate.payload {
            false => Judged::Changed,
            true if is_unwatched => Judged::Delete(Deletion::Compared(delete)),
            true => Judged::Delete(Deletion::Watched),
        })
    }

    /// The same of a stream without groups, which the source dumps so.
    fn stream_deletion(
        &mut self,
        candidate: &Candidate,
        dump: Vec<u8>,
    ) -> Result<Judged, ServerError> {
        let dump = self.facts.dumped(dump);
        let Some(read) = Remembering::of(self.family, &candidate.payload) else {
            return Ok(match dump == candidate.payload {
                true => Judged::Delete(Deletion::Watched),
                false => Judged::Changed,
            });
        };
        let state = &read.stream.idempotency;
        let expected = [state.duration_secs, state.max_ids, state.ids_added];
        let now = Remembering::of(self.family, &dump);
        if !now.is_some_and(|now| read.same_as(&now)) {
            return Ok(Judged::Changed);
        }
        if !self.takes_stream_scripts()? {
            return Ok(Judged::Keep(Why::Stream));
        }
        let mut delete = cmd("EVAL");
        delete.arg(DELETE_IF_SET_SO).arg(1);
        delete.arg(&candidate.origin.key).arg(&expected);
        Ok(Judged::Delete(Deletion::Compared(delete)))
    }

    /// Whether the source carries out a script that compares and deletes, as this user.
    fn takes_scripts(&mut self) -> Result<bool, ServerError> {
        if let Some(known) = self.scripts {
            return Ok(known);
        }
        let mut probe = cmd("EVAL");
        probe.arg(DELETE_IF_SAME).arg(1).arg(ABSENT_KEY);
        probe.arg("").arg(-2);
        // Nothing was deleted, and that is what it has to say.
        let known = matches!(self.link.conn.try_query(&probe)?, Ok(Reply::Int(0)));
        self.scripts = Some(known);
        Ok(known)
    }

    /// The same of the script for streams.
    fn takes_stream_scripts(&mut self) -> Result<bool, ServerError> {
        if let Some(known) = self.stream_scripts {
            return Ok(known);
        }
        let mut probe = cmd("EVAL");
        probe.arg(DELETE_IF_SET_SO).arg(1).arg(ABSENT_KEY);
        let answer = self.link.conn.try_query(&probe)?;
        let known = answer.is_err_and(|text| text.contains(NO_SUCH_KEY));
        self.stream_scripts = Some(known);
        Ok(known)
    }

    /// Absolute expiry; the outer `None` when it cannot be read or the key is gone.
    fn expiry(&mut self, key: &[u8]) -> Result<Option<Option<u64>>, ServerError> {
        if !self.pexpiretime {
            return self.expiry_by_time(key);
        }
        let command = cmd("PEXPIRETIME").arg(key).to_owned();
        Ok(match self.link.conn.try_query(&command)? {
            Ok(Reply::Int(-1)) => Some(None),
            Ok(Reply::Int(ms @ 0..)) => Some(Some(ms.unsigned_abs())),
            _ => None,
        })
    }

    /// The same from the remaining time. TIME before and after it goes in one write: what the way to
    /// the server takes must not be taken for a change of the expiry.
    fn expiry_by_time(&mut self, key: &[u8]) -> Result<Option<Option<u64>>, ServerError> {
        for _ in 0..TIME_TRIES {
            self.link.conn.queue(&[b"TIME"])?;
            self.link.conn.queue(&[b"PTTL", key])?;
            self.link.conn.queue(&[b"TIME"])?;
            self.link.conn.flush()?;
            // All three are read in any case: the next answer must not be one of them.
            let (before, left, after) = (
                self.link.conn.reply()?,
                self.link.conn.reply()?,
                self.link.conn.reply()?,
            );
            let asks = |reply: &Result<Reply, String>| {
                reply.as_ref().is_err_and(|text| asks_for_patience(text))
            };
            if [&before, &left, &after].into_iter().any(asks) {
                // This one waits until it is answered.
                let _ = self.link.conn.try_query(&cmd("TIME"))?;
                continue;
            }
            let time_ms = |reply: Result<Reply, String>| {
                let (secs, micros): (u64, u64) = from_reply(reply.ok()?).ok()?;
                Some(secs * 1000 + micros / 1000)
            };
            let left_ms = match left {
                Ok(Reply::Int(-1)) => return Ok(Some(None)),
                Ok(Reply::Int(ms @ 0..)) => ms.unsigned_abs(),
                _ => return Ok(None),
            };
            let (Some(before), Some(after)) = (time_ms(before), time_ms(after)) else {
                return Ok(None);
            };
            // Asked again where the server did other things in between.
            if after.abs_diff(before) <= PTTL_CLOSE_MS {
                return Ok(Some(Some(before + left_ms)));
            }
        }
        Ok(None)
    }

    fn may_have_groups(&mut self, key: &[u8]) -> Result<bool, ServerError> {
        Ok(
            match self
                .link
                .conn
                .try_query(cmd("XINFO").arg("GROUPS").arg(key))?
            {
                Ok(Reply::Array(groups)) => !groups.is_empty(),
                _ => true,
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_allows_what_the_look_before_it_allows() {
        let allows = format!("if math.abs(at - ARGV[2]) > {PTTL_CLOSE_MS} then return 0 end");
        assert!(DELETE_IF_SAME.contains(&allows));
    }
}
