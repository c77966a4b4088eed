//! What is answered for keys: expiries, payloads; and what becomes of each key.

use std::collections::VecDeque;

use anyhow::{Result, anyhow};

use super::{Sent, ServerSource};
use crate::observer::{FailureKind, KeyFailure};
use crate::payload;
use crate::record::{Batch, Eviction, KeyRecord, Record, Value, larger_than};
use crate::select::type_of;
use crate::server::cluster::Redirect;
use crate::server::conn::asks_for_patience;
use crate::server::facts::unix_ms;
use crate::server::resp::{Item, VALUE_LIMIT};
use crate::server::transaction::{DISCARDED, cause_of_discard};
use crate::server::{PTTL_TOLERANCE_MS, stands_by_expiry};
use crate::size;
use crate::units::bytes_text;

/// A reply from which on the window falls at once instead of by and by.
const LARGE_REPLY_BYTES: usize = 64 * 1024;

/// Why a key is not read that stands, and of which DUMP says nothing.
pub(super) const NOT_DUMPED: &str = "it is there, but the server answers DUMP as if it were not: it dumps no \
                          values of this type";

/// A key whose payload comes next.
pub(super) struct Awaited {
    pub key: Vec<u8>,
    pub expiry: Expiry,
    pub eviction: Option<Eviction>,
}

#[derive(Debug, Clone)]
pub(super) enum Expiry {
    None,
    Gone,
    Refused,
    /// Refused for now.
    Later(String),
    At(u64),
    /// Another node has to be asked.
    Elsewhere(Redirect),
}

impl Expiry {
    /// Whether it is the same moment, where one of them may be known as remaining time only.
    fn is(&self, other: &Self, tolerance_ms: u64) -> bool {
        match (self, other) {
            (Self::At(one), Self::At(other)) => one.abs_diff(*other) <= tolerance_ms,
            (Self::None, Self::None) | (Self::Gone, Self::Gone) => true,
            (Self::Refused, Self::Refused) => true,
            _ => false,
        }
    }
}

/// What DUMP answered.
enum Dumped {
    Payload(Vec<u8>),
    /// So many bytes, more than is taken.
    TooLong(u64),
    Nothing,
    Refused(String),
}

impl ServerSource {
    /// Reads the group of so many keys that is next, up to its first payload.
    pub(super) fn open_group(&mut self, keys: usize) -> Result<()> {
        self.conn.doing("reading keys");
        if let Some(text) = self.read_group_head(keys)? {
            return self.refused_as_a_whole(&text);
        }
        let now_ms = match (self.abilities.pexpiretime, self.abilities.time) {
            (true, _) => 0,
            (false, true) => self.read_time()?,
            (false, false) => self.clock.now_ms(),
        };
        let mut facts = Vec::with_capacity(keys);
        for _ in 0..keys {
            facts.push((self.read_expiry(now_ms)?, None));
        }
        if let Some(command) = self.abilities.eviction {
            for (_, eviction) in &mut facts {
                self.read_asking()?;
                *eviction = match self.conn.item()? {
                    Item::Int(number) => command.told(number),
                    // A policy changed under way or a key that went away: not worth a failure.
                    _ => None,
                };
            }
        }
        let Some(Sent::Group(keys)) = self.sent.pop_front() else {
            return Err(anyhow!(
                "a group was answered that was not asked for; this is a bug"
            ));
        };
        let group = keys.into_iter().zip(facts);
        self.awaited
            .extend(group.map(|(key, (expiry, eviction))| Awaited {
                key,
                expiry,
                eviction,
            }));
        Ok(())
    }

    /// Reads the payload of one key of the open group. One at a time, so that a batch is handed on
    /// between two large values of the same group.
    pub(super) fn read_payload(&mut self, batch: &mut Batch) -> Result<()> {
        self.read_asking()?;
        let dumped = match self.conn.item_or_skip(self.max_value())? {
            Item::Bulk(payload) => Dumped::Payload(payload),
            Item::TooLong(bytes) => Dumped::TooLong(bytes),
            Item::Nil => Dumped::Nothing,
            Item::Error(text) => Dumped::Refused(String::from_utf8_lossy(&text).into_owned()),
            _ => {
                return Err(self
                    .conn
                    .confused("DUMP gave something else than a payload")
                    .into());
            }
        };
        let after = match self.abilities.rechecks() {
            true => Some(self.read_expiry_after()?),
            false => None,
        };
        // All of its replies were read.
        let Some(Awaited {
            key,
            mut expiry,
            eviction,
        }) = self.awaited.pop_front()
        else {
            return Ok(());
        };
        if let Some(text) = self.is_refused_for_now(&expiry, &dumped, after.as_ref()) {
            if text.starts_with("LOADING ") {
                self.sent_keys -= 1;
                self.keys.push_front(key);
                return Err(self.conn.refusal("reading keys", text).into());
            }
            self.ask_keys_later(vec![key], &text);
            return Ok(());
        }
        self.sent_keys -= 1;
        self.squeeze.came();
        self.got_on();
        if let Some(after) = after {
            if matches!(after, Expiry::Elsewhere(_)) {
                expiry = after;
            } else if !after.is(&expiry, self.expiry_tolerance_ms())
                && !matches!(dumped, Dumped::Refused(_))
            {
                // It changed in between: value and expiry are no pair.
                return self.ask_again(key);
            } else if let (Expiry::At(at_ms), Expiry::At(after_ms)) = (&mut expiry, &after) {
                // TIME is asked before what remains: of two, the later is nearer to the truth.
                *at_ms = (*at_ms).max(*after_ms);
            }
        }
        let elsewhere = match (&expiry, &dumped) {
            (Expiry::Elsewhere(redirect), _) => Some(redirect.clone()),
            (_, Dumped::Refused(text)) if self.cluster.is_some() => Redirect::parse(text),
            _ => None,
        };
        if let Some(redirect) = elsewhere {
            return self.stray(key, &redirect);
        }
        let payload = match dumped {
            Dumped::Payload(payload) => payload,
            Dumped::Nothing => {
                self.learn(0);
                return match self.is_there(&expiry) {
                    true => self.fail(key, NOT_DUMPED),
                    false => self.gone(key, batch),
                };
            }
            Dumped::Refused(text) => return self.fail(key, &text),
            Dumped::TooLong(bytes) => {
                self.learn(usize::try_from(bytes).unwrap_or(usize::MAX));
                return self.fail_as_too_long(key, bytes);
            }
        };
        self.learn(payload.len());
        match expiry {
            Expiry::Gone => self.gone(key, batch),
            Expiry::Refused | Expiry::Later(_) | Expiry::Elsewhere(_) => {
                self.fail(key, "its expiry cannot be read")
            }
            Expiry::None => self.give(key, payload, None, eviction, batch),
            Expiry::At(at_ms) => self.give(key, payload, Some(at_ms), eviction, batch),
        }
    }

    /// Whether a key is there that DUMP says nothing of. Its expiry was read in the same
    /// transaction, or is the same before and after. Garnet dumps strings only and answers for
    /// every other type as if there were no key (KeyAdminCommands.cs, NetworkDUMP).
    fn is_there(&self, expiry: &Expiry) -> bool {
        let expire_at_ms = match expiry {
            Expiry::None => None,
            Expiry::At(at_ms) => Some(*at_ms),
            Expiry::Gone | Expiry::Refused | Expiry::Later(_) | Expiry::Elsewhere(_) => {
                return false;
            }
        };
        stands_by_expiry(expire_at_ms, self.clock.now_ms())
    }

    /// The expiry that is asked for a second time, behind the payload.
    fn read_expiry_after(&mut self) -> Result<Expiry> {
        let now_ms = match self.abilities.asks_time() {
            true => self.read_time()?,
            false => self.base_ms(),
        };
        self.read_expiry(now_ms)
    }

    /// What a PTTL counts from, where TIME is not asked with it; 0 for moments.
    fn base_ms(&self) -> u64 {
        match self.abilities.pexpiretime {
            true => 0,
            false => self.clock.now_ms(),
        }
    }

    fn expiry_tolerance_ms(&self) -> u64 {
        match self.abilities.pexpiretime {
            true => 0,
            false => PTTL_TOLERANCE_MS,
        }
    }

    /// What ASKING is answered with, where it goes before each command. Where it is refused the
    /// command itself is answered with who serves the slot; then this is why.
    fn read_asking(&mut self) -> Result<()> {
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.asking) else {
            return Ok(());
        };
        let text = match self.conn.item()? {
            Item::Simple(_) => return Ok(()),
            Item::Error(text) => String::from_utf8_lossy(&text).into_owned(),
            Item::Nil | Item::Int(_) | Item::Bulk(_) => "something else than OK".to_owned(),
            _ => {
                let what = "ASKING was answered with something else than OK";
                return Err(self.conn.confused(what).into());
            }
        };
        cluster.asking_refused = Some(text);
        Ok(())
    }

    /// Asks for one key again, by itself: then its commands are carried out in one go, or nearly.
    fn ask_again(&mut self, key: Vec<u8>) -> Result<()> {
        let queued = self.queue_group(std::slice::from_ref(&key));
        self.sent.push_back(Sent::Group(vec![key]));
        self.sent_keys += 1;
        Ok(queued?)
    }

    /// Reads up to the head of EXEC's array; `Some` is why the group was refused as a whole.
    fn read_group_head(&mut self, keys: usize) -> Result<Option<String>> {
        if !self.abilities.multi {
            return Ok(None);
        }
        let commands = self.group_commands(keys);
        if let Item::Error(text) = self.conn.item()? {
            // Then nothing was queued: every command was answered at once, and EXEC refused.
            let text = String::from_utf8_lossy(&text).into_owned();
            for _ in 0..=commands {
                self.conn.reply()?.ok();
            }
            return Ok(Some(text));
        }
        let mut refused = None;
        for _ in 0..commands {
            match self.conn.item()? {
                Item::Simple(_) => {}
                Item::Error(text) => {
                    refused.get_or_insert_with(|| String::from_utf8_lossy(&text).into_owned());
                }
                _ => return Err(self.conn.confused("MULTI did not queue a command").into()),
            }
        }
        match self.conn.item()? {
            Item::Array(count) if refused.is_some() => {
                // Somebody in between refused a command, and the server never heard of it.
                for _ in 0..count {
                    self.conn.reply()?.ok();
                }
                Ok(refused)
            }
            Item::Array(count) if count == commands => Ok(None),
            Item::Error(text) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                if !text.starts_with(DISCARDED) {
                    // Carried out or not, over or not: nobody knows.
                    let reason = format!("EXEC was answered with {text}");
                    return Err(self.conn.spoilt(reason).into());
                }
                let cause = cause_of_discard(&text).map(str::to_owned);
                Ok(Some(refused.or(cause).unwrap_or(text)))
            }
            Item::Nil => Ok(Some("the transaction was discarded".to_owned())),
            _ => Err(self
                .conn
                .confused("EXEC did not answer every command")
                .into()),
        }
    }

    /// A group that was refused as a whole: in a while where the server asks for patience, else
    /// every key by itself, so that one forbidden key does not cost its fifteen neighbours.
    fn refused_as_a_whole(&mut self, text: &str) -> Result<()> {
        if text.starts_with("LOADING ") {
            return Err(self.conn.refusal("reading keys", text.to_owned()).into());
        }
        let Some(Sent::Group(keys)) = self.sent.pop_front() else {
            return Ok(());
        };
        if self.asks_for_patience(text) {
            self.ask_keys_later(keys, text);
            return Ok(());
        }
        let mut keys = VecDeque::from(keys);
        if keys.len() == 1 {
            self.sent_keys -= 1;
            return match keys.pop_front() {
                Some(key) => self.fail(key, text),
                None => Ok(()),
            };
        }
        let mut queued = Ok(());
        for key in keys {
            if queued.is_ok() {
                queued = self.queue_group(std::slice::from_ref(&key));
            }
            self.sent.push_back(Sent::Group(vec![key]));
        }
        queued?;
        self.conn.flush()?;
        Ok(())
    }

    fn read_time(&mut self) -> Result<u64> {
        let Item::Array(2) = self.conn.item()? else {
            return Err(self
                .conn
                .confused("TIME did not answer with two parts")
                .into());
        };
        let mut parts = [0u64; 2];
        for part in &mut parts {
            let Item::Bulk(text) = self.conn.item()? else {
                return Err(self.conn.confused("TIME gave no number").into());
            };
            // No time is not 1970: keys whose TTL counts from it would expire at once.
            let number = std::str::from_utf8(&text).ok();
            let Some(number) = number.and_then(|text| text.parse().ok()) else {
                return Err(self.conn.confused("TIME gave no number").into());
            };
            *part = number;
        }
        unix_ms(parts[0], parts[1]).ok_or_else(|| self.conn.confused("TIME gave no moment").into())
    }

    fn read_expiry(&mut self, now_ms: u64) -> Result<Expiry> {
        self.read_asking()?;
        Ok(match self.conn.item()? {
            Item::Int(-1) => Expiry::None,
            Item::Int(-2) => Expiry::Gone,
            Item::Int(number) => match u64::try_from(number) {
                Ok(number) => Expiry::At(now_ms.saturating_add(number)),
                Err(_) => Expiry::Refused,
            },
            Item::Error(text) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                // Elsewhere is nowhere, unless a cluster is read.
                match Redirect::parse(&text).filter(|_| self.cluster.is_some()) {
                    Some(redirect) => Expiry::Elsewhere(redirect),
                    None if asks_for_patience(&text) => Expiry::Later(text),
                    None => Expiry::Refused,
                }
            }
            _ => return Err(self.conn.confused("an expiry that is no number").into()),
        })
    }

    /// Gives a key, or leaves it out if the selection says so.
    pub(super) fn give(
        &mut self,
        key: Vec<u8>,
        payload: Vec<u8>,
        expire_at_ms: Option<u64>,
        eviction: Option<Eviction>,
        batch: &mut Batch,
    ) -> Result<()> {
        let payload = self.facts.dumped(payload);
        let kind = type_of(self.facts.family, &payload);
        let size = match self.options.selection.needs_size() {
            true => size::of_dump(&payload, self.facts.family, &mut self.scratch),
            false => 0,
        };
        if !self
            .options
            .selection
            .wants_value(&kind, size, expire_at_ms, self.clock.now_ms())
        {
            return self.leave_out(key, &payload, batch);
        }
        self.recovers(&key)?;
        self.note_leftover(&key);
        self.counts.of(self.db).written += 1;
        if let Some(given) = &mut self.given {
            given.note(self.facts.family, self.db, &key, &payload)?;
        }
        batch.push(Record::Key(KeyRecord {
            db: self.db,
            key,
            value: Value::Verbatim(payload),
            expire_at_ms,
            eviction,
        }));
        Ok(())
    }

    /// The selection says so.
    fn leave_out(&mut self, key: Vec<u8>, payload: &[u8], batch: &mut Batch) -> Result<()> {
        // Its size may become another one unheard.
        let watched = self.options.selection.needs_size().then(|| key.clone());
        self.recovers(&key)?;
        // It may have been given when it was something else.
        if self.was_given(&key)? {
            self.gone(key, batch)?;
        } else {
            self.counts.of(self.db).filtered += 1;
        }
        if let (Some(given), Some(key)) = (&mut self.given, watched) {
            given.note_unheard(self.facts.family, self.db, &key, payload);
        }
        Ok(())
    }

    fn was_given(&mut self, key: &[u8]) -> Result<bool> {
        let db = self.db;
        self.given
            .as_mut()
            .map_or(Ok(false), |given| given.knows(db, key))
    }

    /// A key that is not there: vanished since its name was read, or gone after it was given.
    pub(super) fn gone(&mut self, key: Vec<u8>, batch: &mut Batch) -> Result<()> {
        self.recovers(&key)?;
        if let Some(given) = &mut self.given {
            given.forget_unheard(self.db, &key);
        }
        if !self.was_given(&key)? {
            self.counts.of(self.db).vanished += 1;
            return Ok(());
        }
        self.counts.of(self.db).written += 1;
        batch.push(Record::Deleted { db: self.db, key });
        Ok(())
    }

    /// The largest payload that is taken.
    pub(super) fn max_value(&self) -> usize {
        let max = self.options.max_value_bytes;
        max.map_or(VALUE_LIMIT, |max| {
            let payload = max.saturating_add(payload::FOOTER_LEN as u64);
            usize::try_from(payload).unwrap_or(usize::MAX)
        })
    }

    /// A value of so many bytes, which is more than is taken.
    pub(super) fn fail_as_too_long(&mut self, key: Vec<u8>, bytes: u64) -> Result<()> {
        if !self.count_failure(&key, true)? {
            return Ok(());
        }
        let (reason, hint) = match self.options.max_value_bytes {
            Some(max) => (larger_than(max), None),
            None => (
                format!(
                    "its value takes {}, and no more than {} is taken",
                    bytes_text(bytes),
                    bytes_text(self.max_value() as u64)
                ),
                Some("--max-value SIZE sets what is taken".to_owned()),
            ),
        };
        self.observer.key_failed(&KeyFailure {
            db: self.db,
            key,
            kind: FailureKind::Unread,
            reason,
            hint,
        })
    }

    /// Counts a key that cannot be read; `false` if that was counted, and said, before. If it was
    /// given earlier, a tombstone takes that back where that is wanted: what was given may no longer
    /// be what it holds.
    pub(super) fn count_failure(&mut self, key: &[u8], is_too_large: bool) -> Result<bool> {
        let counts = self.counts.of(self.db);
        if let Some(given) = &mut self.given {
            if self.options.takes_back && given.knows(self.db, key)? {
                // Besides the failure, so that each of both is accounted for.
                counts.reread += 1;
                counts.written += 1;
                let (db, key) = (self.db, key.to_vec());
                self.tombstones.push(Record::Deleted { db, key });
            }
            if !given.fails(self.db, key, is_too_large)? {
                counts.superseded += 1;
                return Ok(false);
            }
        }
        counts.failed += 1;
        self.above_max_value += u64::from(is_too_large && self.options.max_value_bytes.is_some());
        Ok(true)
    }

    /// A key was read or is gone: if it could not be read before, that failure counts no more.
    fn recovers(&mut self, key: &[u8]) -> Result<()> {
        let Some(given) = &mut self.given else {
            return Ok(());
        };
        let Some(was_too_large) = given.recovers(self.db, key)? else {
            return Ok(());
        };
        let counts = self.counts.of(self.db);
        counts.failed -= 1;
        counts.superseded += 1;
        self.above_max_value -= u64::from(was_too_large && self.options.max_value_bytes.is_some());
        self.observer.key_recovered(self.db, key)
    }

    /// Hands on what takes back what was given of keys that cannot be read any more.
    pub(super) fn give_tombstones(&mut self, batch: &mut Batch) {
        for tombstone in self.tombstones.drain(..) {
            batch.push(tombstone);
        }
    }

    /// The server's words, if it asks for patience before it answers for a key.
    fn is_refused_for_now(
        &self,
        expiry: &Expiry,
        dumped: &Dumped,
        after: Option<&Expiry>,
    ) -> Option<String> {
        let text = match (expiry, dumped, after) {
            (Expiry::Later(text), _, _) | (_, _, Some(Expiry::Later(text))) => text,
            (_, Dumped::Refused(text), _) => text,
            _ => return None,
        };
        let is_for_now = self.asks_for_patience(text) || text.starts_with("LOADING ");
        is_for_now.then(|| text.clone())
    }

    pub(super) fn fail(&mut self, key: Vec<u8>, reason: &str) -> Result<()> {
        if !self.count_failure(&key, false)? {
            return Ok(());
        }
        let hint = reason
            .starts_with("NOPERM")
            .then(|| "the user needs DUMP, PTTL, PEXPIRETIME and TIME on this key".to_owned());
        self.observer.key_failed(&KeyFailure {
            db: self.db,
            key,
            kind: FailureKind::Unread,
            reason: reason.to_owned(),
            hint,
        })
    }

    /// What a reply teaches about the next ones: up at once, down by and by.
    fn learn(&mut self, reply_bytes: usize) {
        self.guess_bytes = if reply_bytes >= LARGE_REPLY_BYTES && reply_bytes > self.guess_bytes {
            reply_bytes
        } else {
            (self.guess_bytes * 15 + reply_bytes) / 16
        };
    }
}
