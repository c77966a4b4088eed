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
mod link;
mod remembering;
mod source;
mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Result;

use self::kept::Why;
pub(crate) use self::source::rehearse;
use self::source::{Candidate, Deletion, Judged, Source};
use self::tally::{Settled, Tally};
use crate::endpoint::ConnectOptions;
use crate::ledger::Deletions;
use crate::observer::Observer;
use crate::record::{Family, KeyRecord, Origin, Value};
use crate::server::ServerError;
use crate::server::conn::is_forbidden;
use crate::server::reply::{Command, Reply, cmd};
use crate::server::transaction::DISCARDED;
use crate::sink::server::refusal::is_about_key;
use crate::sink::server::watch::{Purpose, Watch};
use crate::sink::{Accepted, Landed};
use crate::stop::Stop;

/// Keys of one transaction, and the bytes of values at which it is closed earlier.
const GROUP_KEYS: usize = 16;
const GROUP_BYTES: usize = 1024 * 1024;

/// Deletes at the source.
pub(crate) struct DeleteSource {
    source: Source,
    /// Looks at the destination.
    watch: Watch,
    /// The destination is the same server: a key that did not move must not be deleted.
    same_server: bool,
    /// The destination is not what it was: nothing more is deleted.
    halted: bool,
    /// Why, until the run ends because of it.
    unfit: Option<anyhow::Error>,
    group: Group,
    /// Keys of the group, by their place, of which an EXEC may have been carried out unheard.
    in_doubt: BTreeSet<usize>,
    tally: Tally,
    observer: Arc<Observer>,
}

/// Keys of one database that are looked at and deleted together.
#[derive(Default)]
struct Group {
    keys: Vec<Candidate>,
    bytes: usize,
}

impl Group {
    /// Whether a key of `db` can be one of them.
    fn takes(&self, db: u32) -> bool {
        self.keys.first().is_none_or(|first| first.origin.db == db)
    }

    /// Whether they are enough for one transaction now.
    fn add(&mut self, candidate: Candidate) -> bool {
        self.bytes += candidate.payload.len();
        self.keys.push(candidate);
        self.keys.len() >= GROUP_KEYS || self.bytes >= GROUP_BYTES
    }
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
        Ok(Self {
            source: Source::open(connect, stop.clone(), family)?,
            watch: Watch::begin(to, Purpose::Deleting, &stop)?,
            same_server,
            halted: false,
            unfit: None,
            group: Group::default(),
            in_doubt: BTreeSet::new(),
            tally: Tally::default(),
            observer,
        })
    }

    fn flush(&mut self) -> Result<()> {
        let group = std::mem::take(&mut self.group).keys;
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
                Err(error @ ServerError::Protocol { .. }) => {
                    self.source.link.conn.spoilt(error.to_string())
                }
                done => {
                    self.source.link.succeeded();
                    let done = done?;
                    return self.unfit.take().map_or(Ok(done), Err);
                }
            };
            self.source.link.connect_again(lost)?;
        }
    }

    /// What was deleted; `None` if a watched key was written in between.
    fn transaction(&mut self, group: &[Candidate]) -> Result<Option<Settled>, ServerError> {
        let Some(first) = group.first() else {
            return Ok(Some(Settled::default()));
        };
        self.source.select(first.origin.db)?;
        let mut watch = cmd("WATCH");
        for candidate in group {
            watch.arg(&candidate.origin.key);
        }
        if !self.expect_for_keys("WATCH", &watch, &Reply::Okay)? {
            return Ok(self.one_by_one(group));
        }
        let unchanged = self.unchanged(group)?;
        if unchanged.is_empty() {
            self.source
                .link
                .expect("UNWATCH", &cmd("UNWATCH"), &Reply::Okay)?;
            return Ok(Some(self.settled(&BTreeSet::new(), 0)));
        }
        self.source
            .link
            .expect("MULTI", &cmd("MULTI"), &Reply::Okay)?;
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
            match self.source.judge(candidate)? {
                Judged::Delete(deletion) => drop(unchanged.insert(at, deletion)),
                // It is not kept for a reason of its own: it may be gone.
                Judged::Keep(_) if self.in_doubt.contains(&at) => {}
                Judged::Keep(why) => self.tally.kept_for.count(why, 1),
                Judged::Changed => {}
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
        let conn = &mut self.source.link.conn;
        let answer = conn.try_query(&cmd("EXEC"))?;
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
                None => Err(conn.confused(format!("EXEC: {other:?}"))),
            },
            Err(text) if is_forbidden(&text) => Err(conn.refusal("EXEC", text)),
            Err(text) if text.starts_with(DISCARDED) && text.contains("NOPERM") => {
                Err(conn.refusal("EXEC", text))
            }
            // Carried out or not: that is looked at on a new connection.
            Err(text) => Err(conn.spoilt(format!("EXEC was answered with {text}"))),
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
        self.source
            .link
            .expect("DISCARD", &cmd("DISCARD"), &Reply::Okay)?;
        Ok(self.one_by_one(group))
    }

    /// Of a group nobody says which of its keys it was.
    fn one_by_one(&mut self, group: &[Candidate]) -> Option<Settled> {
        let [_] = group else {
            return None;
        };
        let settled = self.settled(&BTreeSet::new(), 0);
        let kept = 1 - settled.unknown;
        self.tally.kept_for.count(Why::Forbidden, kept);
        Some(settled)
    }

    /// As [`Link::expect`](link::Link::expect); `false` where this user may not do it with a key.
    fn expect_for_keys(
        &mut self,
        name: &str,
        command: &Command,
        answer: &Reply,
    ) -> Result<bool, ServerError> {
        let conn = &mut self.source.link.conn;
        match conn.try_query(command)? {
            Err(text) if is_about_key(&text) => {
                self.tally.forbidden.get_or_insert(text);
                Ok(false)
            }
            Err(text) => Err(conn.refusal(name, text)),
            Ok(reply) if reply == *answer => Ok(true),
            Ok(reply) => Err(conn.confused(format!("{name}: {reply:?}"))),
        }
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
            self.tally.kept_for.count(Why::Poorer, 1);
            return Ok(());
        }
        if !self.group.takes(origin.db) {
            self.flush()?;
        }
        match self.group.add(Candidate { origin, payload }) {
            true => self.flush(),
            false => Ok(()),
        }
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
    fn only_numbers_say_how_many_keys_were_deleted() {
        let of = |replies: &[Reply]| deleted(&Reply::Array(replies.to_vec()), 2);
        assert_eq!(of(&[Reply::Int(3), Reply::Int(0)]), Some(3));
        assert_eq!(of(&[Reply::Int(3)]), None);
        assert_eq!(of(&[Reply::Int(3), Reply::Error("OOM".to_owned())]), None);
        assert_eq!(of(&[Reply::Int(3), Reply::Nil]), None);
        assert_eq!(deleted(&Reply::Okay, 0), None);
    }
}
