//! What is answered: names, expiries, payloads; and what becomes of each key.

use std::collections::VecDeque;

use anyhow::{Result, anyhow};

use super::probe::EvictionCommand;
use super::{Sent, ServerSource};
use crate::observer::{FailureKind, KeyFailure};
use crate::payload;
use crate::record::{Batch, Eviction, KeyRecord, Record, Value};
use crate::server::PTTL_TOLERANCE_MS;
use crate::server::cluster::Redirect;
use crate::server::resp::Item;

/// A reply from which on the window falls at once instead of by and by.
const LARGE_REPLY_BYTES: usize = 64 * 1024;

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
    Nothing,
    Refused(String),
}

impl ServerSource {
    pub(super) fn read_scan(&mut self) -> Result<()> {
        self.conn.doing("scanning for keys");
        let known = self.keys.len();
        let (cursor, scanned) = match self.read_page() {
            Ok(page) => page,
            Err(error) => {
                // Half a page is none: it is asked for again.
                self.keys.truncate(known);
                return Err(error);
            }
        };
        self.sent.pop_front();
        self.scan_in_flight = false;
        let counts = self.counts.of(self.db);
        counts.scanned += scanned;
        counts.filtered += scanned - (self.keys.len() - known) as u64;
        self.page.came();
        self.cursor = (cursor != b"0" && !self.abandoned).then_some(cursor);
        if self.abandoned {
            self.drop_names();
        }
        self.got_on();
        Ok(())
    }

    /// Reads a page of names: where the next one begins, and how many names there were. Those that
    /// are wanted join [`Self::keys`].
    fn read_page(&mut self) -> Result<(Vec<u8>, u64)> {
        match self.conn.item()? {
            Item::Array(2) => {}
            Item::Error(text) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                return Err(self.conn.refusal("SCAN", text).into());
            }
            _ => {
                return Err(self
                    .conn
                    .confused("SCAN did not answer with two parts")
                    .into());
            }
        }
        let Item::Bulk(cursor) = self.conn.item()? else {
            return Err(self.conn.confused("SCAN gave no cursor").into());
        };
        let Item::Array(count) = self.conn.item()? else {
            return Err(self.conn.confused("SCAN gave no keys").into());
        };
        // Names of slots that are read elsewhere are none of ours, and in no count.
        let cluster = self.cluster.as_ref();
        let mut foreign = 0;
        for _ in 0..count {
            let Item::Bulk(key) = self.conn.item()? else {
                return Err(self.conn.confused("SCAN gave a key that is none").into());
            };
            if cluster.is_some_and(|cluster| !cluster.reading.has_key(&key)) {
                foreign += 1;
            } else if self.options.selection.wants_key(&key) {
                self.keys.push_back(key);
            }
        }
        Ok((cursor, count as u64 - foreign))
    }

    /// Reads the group of so many keys that is next, up to its first payload.
    pub(super) fn open_group(&mut self, keys: usize) -> Result<()> {
        self.conn.doing("reading keys");
        if let Some(text) = self.read_group_head(keys)? {
            return self.reread_alone(&text);
        }
        let now_ms = match (self.abilities.pexpiretime, self.abilities.time) {
            (true, _) => 0,
            (false, true) => self.read_time()?,
            (false, false) => self.clock.now_ms(),
        };
        let asking = self.is_asking();
        let mut facts = Vec::with_capacity(keys);
        for _ in 0..keys {
            facts.push((self.read_expiry(now_ms)?, None));
        }
        if let Some(command) = self.abilities.eviction {
            for (_, eviction) in &mut facts {
                if asking {
                    self.conn.item()?;
                }
                *eviction = match self.conn.item()? {
                    Item::Int(number) => Some(match command {
                        EvictionCommand::IdleTime => {
                            Eviction::IdleSecs(u64::try_from(number).unwrap_or(0))
                        }
                        EvictionCommand::Freq => {
                            Eviction::Freq(u8::try_from(number).unwrap_or(u8::MAX))
                        }
                    }),
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
        self.got_on();
        Ok(())
    }

    /// Reads the payload of one key of the open group. One at a time, so that a batch is handed on
    /// between two large values of the same group.
    pub(super) fn read_payload(&mut self, batch: &mut Batch) -> Result<()> {
        if self.is_asking() {
            self.conn.item()?;
        }
        let dumped = match self.conn.item()? {
            Item::Bulk(payload) => Dumped::Payload(payload),
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
        self.sent_keys -= 1;
        if let Some(after) = after {
            if matches!(after, Expiry::Elsewhere(_)) {
                expiry = after;
            } else if !after.is(&expiry, self.expiry_tolerance_ms())
                && !matches!(dumped, Dumped::Refused(_))
            {
                // It changed in between: value and expiry are no pair.
                return self.ask_again(key);
            }
        }
        let elsewhere = match (&expiry, &dumped) {
            (Expiry::Elsewhere(redirect), _) => Some(redirect.clone()),
            (_, Dumped::Refused(text)) if self.cluster.is_some() => Redirect::parse(text),
            _ => None,
        };
        if let Some(redirect) = elsewhere {
            self.stray(key, &redirect);
            return Ok(());
        }
        let payload = match dumped {
            Dumped::Payload(payload) => payload,
            Dumped::Nothing => {
                self.learn(0);
                return self.gone(key, batch);
            }
            Dumped::Refused(text) => return self.fail(key, &text),
        };
        self.learn(payload.len());
        match expiry {
            Expiry::Gone => self.gone(key, batch),
            Expiry::Refused | Expiry::Elsewhere(_) => self.fail(key, "its expiry cannot be read"),
            Expiry::None => self.give(key, payload, None, eviction, batch),
            Expiry::At(at_ms) => self.give(key, payload, Some(at_ms), eviction, batch),
        }
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

    fn is_asking(&self) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.asking)
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
        let mut refused = None;
        for _ in 0..=commands {
            match self.conn.item()? {
                Item::Simple(_) => {}
                Item::Error(text) => {
                    refused.get_or_insert_with(|| String::from_utf8_lossy(&text).into_owned());
                }
                _ => return Err(self.conn.confused("MULTI did not queue a command").into()),
            }
        }
        match self.conn.item()? {
            Item::Array(count) if count == commands => Ok(None),
            Item::Error(text) => {
                Ok(Some(refused.unwrap_or_else(|| {
                    String::from_utf8_lossy(&text).into_owned()
                })))
            }
            Item::Nil => Ok(Some("the transaction was discarded".to_owned())),
            _ => Err(self
                .conn
                .confused("EXEC did not answer every command")
                .into()),
        }
    }

    /// A group that was refused as a whole: every key by itself, so that one forbidden key does
    /// not cost its fifteen neighbours.
    fn reread_alone(&mut self, text: &str) -> Result<()> {
        if text.starts_with("LOADING ") {
            return Err(self.conn.refusal("reading keys", text.to_owned()).into());
        }
        let Some(Sent::Group(keys)) = self.sent.pop_front() else {
            return Ok(());
        };
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
            *part = std::str::from_utf8(&text)
                .ok()
                .and_then(|text| text.parse().ok())
                .unwrap_or(0);
        }
        Ok(parts[0] * 1000 + parts[1] / 1000)
    }

    fn read_expiry(&mut self, now_ms: u64) -> Result<Expiry> {
        if self.is_asking() {
            self.conn.item()?;
        }
        Ok(match self.conn.item()? {
            Item::Int(-1) => Expiry::None,
            Item::Int(-2) => Expiry::Gone,
            Item::Int(number) => match u64::try_from(number) {
                Ok(number) => Expiry::At(now_ms.saturating_add(number)),
                Err(_) => Expiry::Refused,
            },
            Item::Error(text) => match Redirect::parse(&String::from_utf8_lossy(&text)) {
                Some(redirect) => Expiry::Elsewhere(redirect),
                None => Expiry::Refused,
            },
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
        let kind = payload::kind_of(
            self.facts.family,
            payload.first().copied().unwrap_or(u8::MAX),
        )
        .name();
        let size = match self.options.selection.needs_size() {
            true => self.stored_bytes(&payload),
            false => 0,
        };
        if !self
            .options
            .selection
            .wants_value(kind, size, expire_at_ms, self.clock.now_ms())
        {
            return self.leave_out(key, &payload, batch);
        }
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

    /// The size that the selection goes by: that of the value as archives store it, so that it
    /// means the same on every verb.
    fn stored_bytes(&mut self, dump: &[u8]) -> u64 {
        self.scratch.clear();
        let compacted = payload::split(dump).ok().and_then(|(body, _)| {
            payload::compact(body, self.facts.family, &mut self.scratch).ok()
        });
        compacted.map_or(dump.len(), |()| self.scratch.len()) as u64
    }

    fn fail(&mut self, key: Vec<u8>, reason: &str) -> Result<()> {
        self.counts.of(self.db).failed += 1;
        if let Some(given) = &mut self.given {
            given.unreadable.insert(key.clone());
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
