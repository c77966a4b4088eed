//! `copy --delete-source`: goes back to the source and deletes what the destination accepted in
//! this run, or was seen to hold already (an earlier run was killed before it came to delete), if it
//! is still what was read.
//!
//! In bounded groups: WATCH; expiry and DUMP; compare with what was accepted; MULTI; DEL; EXEC. A
//! key that changed in between is kept. Consumer-group commands slip through WATCH (t_stream.c
//! signals no key for XREADGROUP, XACK and their like), so streams with groups are kept too. So do
//! some commands of modules (CMS.INCRBY): their values are deleted by a script that compares DUMP
//! once more in the same instant, and kept where scripts are refused. So is every key of a version
//! whose WATCH does not see SWAPDB.
//!
//! A stream of Redis 8.6 and later forgets ids of producers by its server's clock, and DUMP leaves
//! them out then, though nobody wrote. So these ids may be fewer than were read; all else has to be
//! the same byte for byte, but for the count of duplicates. XCFGSET and XIDMPRECORD slip through
//! WATCH and send no event (8.6.3), so these streams are deleted by a script too: it compares the
//! settings and the number of ids ever added with what was read.
//!
//! Where the connection breaks, WATCH is forgotten by the server and the group is tried again. Only
//! an EXEC whose reply is lost may have been carried out: of a key that is then gone, or another one,
//! nobody knows who deleted it, and it is counted so.
//!
//! Just before EXEC the destination is looked at: it has to be the process that it was, a primary
//! that evicts nothing, and none of its databases may have been emptied or swapped. Else nothing
//! more is deleted.

mod kept;
mod remembering;
mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Result;

use self::remembering::{DELETE_IF_SET_SO, NO_SUCH_KEY, Remembering};
use self::tally::{Settled, Tally};
use crate::dialect::Feature;
use crate::endpoint::ConnectOptions;
use crate::exit::Interrupted;
use crate::ledger::Deletions;
use crate::observer::Observer;
use crate::payload::{self, Kind};
use crate::record::{Family, KeyRecord, Origin, Value};
use crate::server::conn::{asks_for_patience, is_forbidden};
use crate::server::facts::Facts;
use crate::server::reconnect::Retries;
use crate::server::reply::{Command, Reply, cmd, from_reply};
use crate::server::transaction::{self, DISCARDED};
use crate::server::{ABSENT_KEY, Conn, PTTL_CLOSE_MS, ServerError};
use crate::sink::server::refusal::is_about_key;
use crate::sink::server::watch::{Purpose, Watch};
use crate::sink::{Accepted, Landed};
use crate::stop::Stop;

/// Keys of one transaction, and the bytes of values at which it is closed earlier.
const GROUP_KEYS: usize = 16;
const GROUP_BYTES: usize = 1024 * 1024;

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
enum Deletion {
    /// By DEL: WATCH sees every change of it.
    Watched,
    /// By a script that compares once more.
    Compared(Command),
}

struct Candidate {
    origin: Origin,
    payload: Vec<u8>,
}

impl Candidate {
    fn kind(&self, family: Family) -> Kind {
        payload::kind(family, &self.payload)
    }
}

/// What a dry run asks in place of [`DeleteSource::open`].
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

/// Deletes at the source.
pub(crate) struct DeleteSource {
    conn: Conn,
    connect: ConnectOptions,
    retries: Retries,
    stop: Stop,
    /// Keys of the group, by their place, of which an EXEC may have been carried out unheard.
    in_doubt: BTreeSet<usize>,
    family: Family,
    /// Of the source.
    facts: Facts,
    /// Looks at the destination.
    watch: Watch,
    /// The destination is not what it was: nothing more is deleted.
    halted: bool,
    /// Why, until the run ends because of it.
    unfit: Option<anyhow::Error>,
    /// The destination is the same server: a key that did not move must not be deleted.
    same_server: bool,
    pexpiretime: bool,
    /// WATCH of the source does not see SWAPDB, which it has.
    is_swappable: bool,
    observer: Arc<Observer>,
    group: Vec<Candidate>,
    group_bytes: usize,
    tally: Tally,
    /// Whether each of the two scripts is taken, once that was asked.
    scripts: Option<bool>,
    stream_scripts: Option<bool>,
}

impl DeleteSource {
    /// Opens connections of its own to the source and to the destination, `to`.
    ///
    /// # Errors
    /// The connection.
    pub(crate) fn open(
        connect: ConnectOptions,
        to: &ConnectOptions,
        stop: Stop,
        family: Family,
        same_server: bool,
        observer: Arc<Observer>,
    ) -> Result<Self, ServerError> {
        let mut conn = Conn::open(&connect)?;
        conn.heed(&connect, &stop.flag());
        let probe = cmd("PEXPIRETIME").arg(ABSENT_KEY).to_owned();
        let pexpiretime = conn.try_query(&probe)?.is_ok();
        // Before the first key is written: else it is known only after many of them.
        prove(&mut conn)?;
        let facts = Facts::ask(&mut conn)?;
        conn.doing("deleting copied keys at the source");
        let dialect = facts.dialect();
        let is_swappable =
            dialect.has(Feature::SwapDatabases) && dialect.lacks(Feature::WatchSeesSwaps);
        Ok(Self {
            facts,
            is_swappable,
            watch: Watch::begin(to, Purpose::Deleting, &stop)?,
            halted: false,
            unfit: None,
            conn,
            retries: Retries::new(&connect),
            connect,
            stop,
            in_doubt: BTreeSet::new(),
            family,
            same_server,
            pexpiretime,
            observer,
            group: Vec::new(),
            group_bytes: 0,
            tally: Tally::default(),
            scripts: None,
            stream_scripts: None,
        })
    }

    fn flush(&mut self) -> Result<()> {
        let group = std::mem::take(&mut self.group);
        self.group_bytes = 0;
        if group.is_empty() {
            return Ok(());
        }
        if self.halted {
            self.tally.kept += group.len() as u64;
            return Ok(());
        }
        if self.settle(&group, BTreeSet::new())? {
            return Ok(());
        }
        // Somebody wrote one of the keys meanwhile: each by itself, so that only that one is kept.
        let in_doubt = std::mem::take(&mut self.in_doubt);
        self.tally.unknown += in_doubt.len() as u64;
        for (at, candidate) in group.iter().enumerate() {
            let doubt: BTreeSet<_> = in_doubt.get(&at).map(|_| 0).into_iter().collect();
            self.tally.unknown -= doubt.len() as u64;
            self.settle(std::slice::from_ref(candidate), doubt)?;
        }
        Ok(())
    }

    /// Whether what the group holds still stands where it was acknowledged.
    fn look_at_destination(&mut self) -> Result<()> {
        match self.watch.look() {
            Ok(None) => Ok(()),
            Ok(Some(why)) => self.halt(&format!("the destination {why}")),
            Err(lost) => {
                self.halted = true;
                Err(lost)
            }
        }
    }

    /// Deletes what may be deleted of a group, and counts it. `false` if a watched key was written in
    /// between: then nothing was deleted, nor counted if there are other keys in the group. `in_doubt`:
    /// of which keys of the group an EXEC may have been carried out unheard.
    fn settle(&mut self, group: &[Candidate], in_doubt: BTreeSet<usize>) -> Result<bool> {
        self.in_doubt = in_doubt;
        let before = self.tally.kept_for;
        let done = self.settle_at_last(group);
        if !matches!(done, Ok(Some(_))) {
            self.tally.kept_for = before;
        }
        if matches!(done, Ok(None)) && group.len() > 1 {
            return Ok(false);
        }
        let in_doubt = std::mem::take(&mut self.in_doubt);
        let settled = done.map(|done| {
            // What an EXEC did that nobody heard of stays unknown.
            done.unwrap_or(Settled {
                deleted: 0,
                unknown: in_doubt.len() as u64,
            })
        });
        match settled {
            Ok(settled) => self.tally.count(group.len(), settled, before),
            Err(_) => self.tally.give_up(group.len(), in_doubt.len()),
        }
        settled.map(|_| true)
    }

    /// A transaction, again after each loss of the connection. Returns what [`Self::transaction`]
    /// does.
    fn settle_at_last(&mut self, group: &[Candidate]) -> Result<Option<Settled>> {
        let before = self.tally.kept_for;
        loop {
            // What is done again is counted again.
            self.tally.kept_for = before;
            let lost = match self.transaction(group) {
                Err(error) if error.is_passing() => error,
                // Which answer the next one belongs to is not known: only a new connection is sure
                // to be in step, and only there it can be seen what was done.
                Err(error @ ServerError::Protocol { .. }) => self.conn.spoilt(error.to_string()),
                done => {
                    self.retries.succeeded();
                    let done = done?;
                    return self.unfit.take().map_or(Ok(done), Err);
                }
            };
            let stop = || self.stop.is_set();
            self.conn = match self.retries.connect(&self.connect, lost, &stop) {
                Err(_) if stop() => return Err(Interrupted.into()),
                connected => connected?,
            };
            self.conn.heed(&self.connect, &self.stop.flag());
            self.conn.doing("deleting copied keys at the source");
        }
    }

    /// What was deleted; `None` if a watched key was written in between.
    fn transaction(&mut self, group: &[Candidate]) -> Result<Option<Settled>, ServerError> {
        let Some(first) = group.first() else {
            return Ok(Some(Settled::default()));
        };
        // Nothing is deleted before this very connection is proved to be in the keys' database.
        if let Err(text) = self.conn.select(first.origin.db)? {
            self.conn.forget_database();
            return Err(self.conn.refusal("SELECT", text));
        }
        let mut watch = cmd("WATCH");
        for candidate in group {
            watch.arg(&candidate.origin.key);
        }
        if !self.expect_for_keys("WATCH", &watch, &Reply::Okay)? {
            return Ok(self.one_by_one(group));
        }
        let unchanged = self.unchanged(group)?;
        if unchanged.is_empty() {
            self.expect("UNWATCH", &cmd("UNWATCH"), &Reply::Okay)?;
            return Ok(Some(self.settled(&BTreeSet::new(), 0)));
        }
        self.expect("MULTI", &cmd("MULTI"), &Reply::Okay)?;
        let sent: BTreeSet<usize> = unchanged.keys().copied().collect();
        let Some(commands) = self.queue_deletions(group, unchanged)? else {
            return self.leave(group);
        };
        // After all that may take its time, a connection to the source that was lost among it: as
        // little as possible is to lie between this look and the deletion.
        if let Err(unfit) = self.look_at_destination() {
            self.unfit = Some(unfit);
            return Ok(None);
        }
        self.execute(sent, commands)
    }

    /// The keys of a group, by their place, that are what was read, and how each is deleted. In the
    /// order of the group: the same run sends the same commands.
    fn unchanged(&mut self, group: &[Candidate]) -> Result<BTreeMap<usize, Deletion>, ServerError> {
        let mut unchanged = BTreeMap::new();
        for (at, candidate) in group.iter().enumerate() {
            let before = self.tally.kept_for;
            match self.deletion(candidate)? {
                Some(deletion) => drop(unchanged.insert(at, deletion)),
                // It is not kept for a reason of its own: it may be gone.
                None if self.in_doubt.contains(&at) => self.tally.kept_for = before,
                None => {}
            }
        }
        Ok(unchanged)
    }

    /// Sends the deletions, so that EXEC carries them out, and says how many commands they are;
    /// `None` where one is refused for its keys.
    fn queue_deletions(
        &mut self,
        group: &[Candidate],
        unchanged: BTreeMap<usize, Deletion>,
    ) -> Result<Option<usize>, ServerError> {
        let in_doubt = self.in_doubt.clone();
        // What is not queued is carried out at once, and would not heed what WATCH saw.
        self.in_doubt.extend(unchanged.keys());
        let mut commands = Vec::new();
        for (at, deletion) in unchanged {
            let key = &group[at].origin.key;
            match deletion {
                Deletion::Compared(delete) => commands.push(("EVAL", delete)),
                Deletion::Watched => match commands.first_mut() {
                    Some(("DEL", del)) => drop(del.arg(key)),
                    _ => commands.insert(0, ("DEL", cmd("DEL").arg(key).to_owned())),
                },
            }
        }
        let queued = Reply::Status("QUEUED".to_owned());
        for (name, command) in &commands {
            let is_queued = self.expect_for_keys(name, command, &queued);
            // Anything but a number of deleted keys says that none were, and so does no answer: the
            // server had begun the transaction.
            if !matches!(&is_queued, Err(ServerError::Protocol { .. })) {
                self.in_doubt.clone_from(&in_doubt);
            }
            if !is_queued? {
                return Ok(None);
            }
        }
        Ok(Some(commands.len()))
    }

    /// Carries out what was queued, for the keys at these places.
    fn execute(
        &mut self,
        sent: BTreeSet<usize>,
        commands: usize,
    ) -> Result<Option<Settled>, ServerError> {
        let in_doubt = self.in_doubt.clone();
        self.in_doubt.extend(&sent);
        let answer = self.conn.try_query(&cmd("EXEC"))?;
        let deleted = answer
            .as_ref()
            .ok()
            .and_then(|reply| deleted(reply, commands));
        let is_known = match &answer {
            // A watched key was written.
            Ok(Reply::Nil) => true,
            Ok(_) => deleted.is_some(),
            Err(text) => is_forbidden(text) || text.starts_with(DISCARDED),
        };
        if is_known {
            self.in_doubt = in_doubt;
        }
        match answer {
            Ok(Reply::Nil) => Ok(None),
            Ok(other) => match deleted {
                Some(count) => Ok(Some(self.settled(&sent, count.min(sent.len() as u64)))),
                None => Err(self.conn.confused(format!("EXEC: {other:?}"))),
            },
            Err(text) if is_forbidden(&text) => Err(self.conn.refusal("EXEC", text)),
            Err(text) if text.starts_with(DISCARDED) && text.contains("NOPERM") => {
                Err(self.conn.refusal("EXEC", text))
            }
            // Carried out or not: that is looked at on a new connection.
            Err(text) => Err(self.conn.spoilt(format!("EXEC was answered with {text}"))),
        }
    }

    /// What became of a group of which these keys were sent, and so many of them deleted: of the others
    /// that an earlier EXEC may have deleted it stays unknown.
    fn settled(&self, sent: &BTreeSet<usize>, deleted: u64) -> Settled {
        let in_doubt = self.in_doubt.len() as u64;
        let sent_again = self.in_doubt.intersection(sent).count() as u64;
        let missed = sent.len() as u64 - deleted;
        Settled {
            deleted,
            unknown: in_doubt - sent_again + sent_again.min(missed),
        }
    }

    /// Leaves a transaction in which a command was refused for its keys.
    fn leave(&mut self, group: &[Candidate]) -> Result<Option<Settled>, ServerError> {
        self.expect("DISCARD", &cmd("DISCARD"), &Reply::Okay)?;
        Ok(self.one_by_one(group))
    }

    /// Of a group nobody says which of its keys it was.
    fn one_by_one(&mut self, group: &[Candidate]) -> Option<Settled> {
        let [_] = group else {
            return None;
        };
        let settled = self.settled(&BTreeSet::new(), 0);
        self.tally.kept_for.forbidden += 1 - settled.unknown;
        Some(settled)
    }

    /// As [`Self::expect`]; `false` where this user may not do it with a key.
    fn expect_for_keys(
        &mut self,
        name: &str,
        command: &Command,
        answer: &Reply,
    ) -> Result<bool, ServerError> {
        match self.conn.try_query(command)? {
            Err(text) if is_about_key(&text) => {
                self.tally.forbidden.get_or_insert(text);
                Ok(false)
            }
            Err(text) => Err(self.conn.refusal(name, text)),
            Ok(reply) if reply == *answer => Ok(true),
            Ok(reply) => Err(self.conn.confused(format!("{name}: {reply:?}"))),
        }
    }

    /// Sends a command that has one good answer.
    fn expect(&mut self, name: &str, command: &Command, answer: &Reply) -> Result<(), ServerError> {
        match self.conn.try_query(command)? {
            Ok(reply) if reply == *answer => Ok(()),
            Ok(reply) => Err(self.conn.confused(format!("{name}: {reply:?}"))),
            Err(text) => Err(self.conn.refusal(name, text)),
        }
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
        let known = matches!(self.conn.try_query(&probe)?, Ok(Reply::Int(0)));
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
        let answer = self.conn.try_query(&probe)?;
        let known = answer.is_err_and(|text| text.contains(NO_SUCH_KEY));
        self.stream_scripts = Some(known);
        Ok(known)
    }

    /// How a key is to be deleted; `None` if it is kept.
    fn deletion(&mut self, candidate: &Candidate) -> Result<Option<Deletion>, ServerError> {
        let key = &candidate.origin.key;
        let is_module = matches!(candidate.kind(self.family), Kind::Module | Kind::Unknown);
        // WATCH may miss changes of it.
        let is_unwatched = is_module || self.is_swappable;
        let is_too_large = self.is_swappable && candidate.payload.len() > COMPARED_BYTES;
        if is_unwatched && (is_too_large || !self.takes_scripts()?) {
            match is_module {
                true => self.tally.kept_for.modules += 1,
                false => self.tally.kept_for.swappable += 1,
            }
            return Ok(None);
        }
        let is_stream = candidate.kind(self.family) == Kind::Stream;
        if is_stream && self.may_have_groups(key)? {
            self.tally.kept_for.grouped += 1;
            return Ok(None);
        }
        let expire_at_ms = match self.expiry(key)? {
            Some(expiry) => expiry,
            None => return Ok(None),
        };
        let tolerance_ms = if self.pexpiretime { 0 } else { PTTL_CLOSE_MS };
        let same_expiry = match (expire_at_ms, candidate.origin.expire_at_ms) {
            (None, None) => true,
            (Some(now), Some(read)) => now.abs_diff(read) <= tolerance_ms,
            _ => false,
        };
        if !same_expiry {
            return Ok(None);
        }
        let Ok(Reply::Bulk(dump)) = self.conn.try_query(cmd("DUMP").arg(key))? else {
            return Ok(None);
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
            false => None,
            true if is_unwatched => Some(Deletion::Compared(delete)),
            true => Some(Deletion::Watched),
        })
    }

    /// The same of a stream without groups, which the source dumps so.
    fn stream_deletion(
        &mut self,
        candidate: &Candidate,
        dump: Vec<u8>,
    ) -> Result<Option<Deletion>, ServerError> {
        let dump = self.facts.dumped(dump);
        let Some(read) = Remembering::of(self.family, &candidate.payload) else {
            return Ok((dump == candidate.payload).then_some(Deletion::Watched));
        };
        let state = &read.stream.idempotency;
        let expected = [state.duration_secs, state.max_ids, state.ids_added];
        let now = Remembering::of(self.family, &dump);
        if !now.is_some_and(|now| read.same_as(&now)) {
            return Ok(None);
        }
        if !self.takes_stream_scripts()? {
            self.tally.kept_for.streams += 1;
            return Ok(None);
        }
        let mut delete = cmd("EVAL");
        delete.arg(DELETE_IF_SET_SO).arg(1);
        delete.arg(&candidate.origin.key).arg(&expected);
        Ok(Some(Deletion::Compared(delete)))
    }

    /// Absolute expiry; the outer `None` when it cannot be read or the key is gone.
    fn expiry(&mut self, key: &[u8]) -> Result<Option<Option<u64>>, ServerError> {
        if !self.pexpiretime {
            return self.expiry_by_time(key);
        }
        let command = cmd("PEXPIRETIME").arg(key).to_owned();
        Ok(match self.conn.try_query(&command)? {
            Ok(Reply::Int(-1)) => Some(None),
            Ok(Reply::Int(ms @ 0..)) => Some(Some(ms.unsigned_abs())),
            _ => None,
        })
    }

    /// The same from the remaining time. TIME before and after it goes in one write: what the way to
    /// the server takes must not be taken for a change of the expiry.
    fn expiry_by_time(&mut self, key: &[u8]) -> Result<Option<Option<u64>>, ServerError> {
        for _ in 0..TIME_TRIES {
            self.conn.queue(&[b"TIME"])?;
            self.conn.queue(&[b"PTTL", key])?;
            self.conn.queue(&[b"TIME"])?;
            self.conn.flush()?;
            // All three are read in any case: the next answer must not be one of them.
            let (before, left, after) =
                (self.conn.reply()?, self.conn.reply()?, self.conn.reply()?);
            let asks = |reply: &Result<Reply, String>| {
                reply.as_ref().is_err_and(|text| asks_for_patience(text))
            };
            if [&before, &left, &after].into_iter().any(asks) {
                // This one waits until it is answered.
                let _ = self.conn.try_query(&cmd("TIME"))?;
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
            match self.conn.try_query(cmd("XINFO").arg("GROUPS").arg(key))? {
                Ok(Reply::Array(groups)) => !groups.is_empty(),
                _ => true,
            },
        )
    }
}

impl Accepted for DeleteSource {
    fn accepted(&mut self, origin: Origin, record: KeyRecord, landed: Landed) -> Result<()> {
        let stays = self.same_server && origin.db == record.db && origin.key == record.key;
        let Value::Verbatim(payload) = record.value else {
            self.tally.kept += 1;
            return Ok(());
        };
        if stays {
            self.tally.kept += 1;
            return Ok(());
        }
        if landed.is_poorer {
            self.tally.kept += 1;
            self.tally.kept_for.poorer += 1;
            return Ok(());
        }
        if self
            .group
            .first()
            .is_some_and(|first| first.origin.db != origin.db)
        {
            self.flush()?;
        }
        self.group_bytes += payload.len();
        self.group.push(Candidate { origin, payload });
        if self.group.len() >= GROUP_KEYS || self.group_bytes >= GROUP_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn stands(&mut self, origin: Origin, record: KeyRecord, landed: Landed) -> Result<()> {
        // What stands may be a key of the source itself. Of two such keys, each equal to the other,
        // both would be deleted.
        if self.same_server {
            self.tally.kept += 1;
            return Ok(());
        }
        self.accepted(origin, record, landed)
    }

    fn compares(&self) -> bool {
        true
    }

    fn left(&mut self, keys: u64) {
        self.tally.kept += keys;
    }

    fn counts(&self) -> Deletions {
        self.tally.deletions()
    }

    fn halt(&mut self, why: &str) -> Result<()> {
        self.halted = true;
        let in_doubt = self.in_doubt.len() as u64;
        Err(anyhow::anyhow!(
            "{why}: what it had acknowledged before may be gone, and nothing more is deleted at the \
             source; {}; every other key is still at the source",
            self.tally.already(in_doubt)
        ))
    }

    fn finish(&mut self) -> Result<()> {
        self.flush()?;
        self.tally.tell(&self.observer);
        // What the last group was deleted for has to stand there still.
        match self.halted || self.tally.may_have_deleted() == 0 {
            true => Ok(()),
            false => self.look_at_destination(),
        }
    }
}

/// How many keys so many commands deleted, by the answer to EXEC; `None` where one gave no number.
fn deleted(answer: &Reply, commands: usize) -> Option<u64> {
    let Reply::Array(replies) = answer else {
        return None;
    };
    let counts = replies.iter().map(|reply| match reply {
        Reply::Int(count) => Some(u64::try_from(*count).unwrap_or(0)),
        _ => None,
    });
    counts
        .sum::<Option<u64>>()
        .filter(|_| replies.len() == commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_allows_what_the_look_before_it_allows() {
        let allows = format!("if math.abs(at - ARGV[2]) > {PTTL_CLOSE_MS} then return 0 end");
        assert!(DELETE_IF_SAME.contains(&allows));
    }

    #[test]
    fn only_numbers_say_how_many_keys_were_deleted() {
        let of = |replies: &[Reply]| deleted(&Reply::Array(replies.to_vec()), 2);
        assert_eq!(of(&[Reply::Int(3), Reply::Int(0)]), Some(3));
        assert_eq!(of(&[Reply::Int(3)]), None);
        assert_eq!(of(&[Reply::Int(3), Reply::Error("OOM".to_owned())]), None);
        assert_eq!(of(&[Reply::Int(3), Reply::Nil]), None);
        assert_eq!(deleted(&Reply::Okay, 0), None);
    }
}
