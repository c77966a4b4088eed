//! A live server as a source: SCAN, and value and expiry of every key together.
//!
//! One connection, on which the next request is always in flight. Keys are read in small MULTIs,
//! the expiry commands at the head: a TIME many large DUMPs away from its PTTL would be seconds
//! off. The window is counted in bytes, guessed from what replies taught, so that a run of large
//! values never piles up in the server's output buffer.

mod probe;

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::{Result, anyhow};

use self::probe::{Abilities, EvictionCommand};
use super::{Estimate, Source};
use crate::exit::Usage;
use crate::ledger::{ConsistencyReached, CountsByDb, SourceReport};
use crate::observer::{FailureKind, KeyFailure, Observer};
use crate::payload;
use crate::policy::ReadFunctions;
use crate::record::{Batch, Context, Eviction, KeyRecord, Record, Value};
use crate::select::Selection;
use crate::server::facts::{Facts, Keyspace, ServerClock};
use crate::server::resp::Item;
use crate::server::{Conn, ServerError};
use crate::units::now_ms;

/// Keys in one MULTI.
const GROUP_KEYS: usize = 16;

/// Bytes of replies that may be on their way.
const WINDOW_BYTES: usize = 4 * 1024 * 1024;

/// What a reply is taken to be before any was seen.
const FIRST_GUESS_BYTES: usize = 64 * 1024;

/// A reply from which on the window falls at once instead of by and by.
const LARGE_REPLY_BYTES: usize = 64 * 1024;

/// What an export wants of a server.
#[derive(Debug, Clone)]
pub struct ServerSourceOptions {
    /// COUNT of SCAN.
    pub scan_count: u32,
    /// Whether to ask OBJECT for idle time or frequency.
    pub eviction: bool,
    /// Whether to ask for function libraries.
    pub functions: ReadFunctions,
    /// What to read.
    pub selection: Selection,
}

/// What waits for its replies, in order.
enum Sent {
    Select,
    Scan,
    Group(Vec<Vec<u8>>),
}

/// A key whose payload comes next.
struct Awaited {
    key: Vec<u8>,
    expiry: Expiry,
    eviction: Option<Eviction>,
}

/// Reads a live server.
pub struct ServerSource {
    conn: Conn,
    facts: Facts,
    clock: ServerClock,
    options: ServerSourceOptions,
    observer: Arc<Observer>,
    abilities: Abilities,
    databases: Vec<Keyspace>,
    /// Databases not yet begun.
    waiting: VecDeque<u32>,
    db: u32,
    /// Where SCAN goes on; `None` when the database is scanned through or not begun.
    cursor: Option<Vec<u8>>,
    scan_in_flight: bool,
    keys: VecDeque<Vec<u8>>,
    sent: VecDeque<Sent>,
    /// Keys of the group whose payloads are being read.
    awaited: VecDeque<Awaited>,
    /// Keys asked for and not yet read.
    sent_keys: usize,
    guess_bytes: usize,
    scratch: Vec<u8>,
    functions: Option<Vec<u8>>,
    counts: CountsByDb,
    functions_given: u64,
    started_ms: u64,
    from_ms: u64,
}

impl ServerSource {
    /// Prepares to read what `conn` leads to.
    ///
    /// # Errors
    /// [`Usage`] for what cannot be exported (a cluster's node), and connection errors.
    pub fn open(
        mut conn: Conn,
        options: ServerSourceOptions,
        observer: Arc<Observer>,
    ) -> Result<Self> {
        conn.doing("asking the source what it is");
        let facts = Facts::ask(&mut conn)?;
        if facts.cluster {
            return Err(Usage(
                "the source is a node of a cluster, and clusters are not supported yet; \
                 nothing was read"
                    .to_owned(),
            )
            .into());
        }
        let clock = ServerClock::ask(&mut conn)?;
        // Keeps our DUMPs from refreshing the LRU clock of every key; servers before 7.2 have it not.
        let _ = conn.try_query(redis::cmd("CLIENT").arg("NO-TOUCH").arg("ON"))?;
        let databases = probe::databases(&mut conn, &facts, &options, &observer)?;
        let abilities = probe::abilities(&mut conn, &facts, &clock, &options, &observer)?;
        let functions = probe::function_dump(&mut conn, options.functions, &observer)?;
        let waiting = databases.iter().map(|row| row.db).collect();
        Ok(Self {
            from_ms: clock.now_ms(),
            conn,
            facts,
            clock,
            options,
            observer,
            abilities,
            databases,
            waiting,
            db: 0,
            cursor: None,
            scan_in_flight: false,
            keys: VecDeque::new(),
            sent: VecDeque::new(),
            awaited: VecDeque::new(),
            sent_keys: 0,
            guess_bytes: FIRST_GUESS_BYTES,
            scratch: Vec::new(),
            functions,
            counts: CountsByDb::default(),
            functions_given: 0,
            started_ms: now_ms(),
        })
    }

    /// What the server said of itself.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The databases that will be read.
    pub fn databases(&self) -> &[Keyspace] {
        &self.databases
    }

    /// The server's clock.
    pub fn clock(&self) -> ServerClock {
        self.clock
    }

    /// Keeps requests in flight: the next page of names before the values of this one.
    fn send(&mut self) -> Result<()> {
        loop {
            if self.cursor.is_none() && self.keys.is_empty() && !self.scan_in_flight {
                // Groups of the last database may still be in flight: replies come in order, so
                // only the number of the database must not change before they are read.
                if self.sent_keys > 0 {
                    break;
                }
                let Some(db) = self.waiting.pop_front() else {
                    break;
                };
                self.db = db;
                self.counts.of(db);
                self.conn.queue(&[b"SELECT", db.to_string().as_bytes()])?;
                self.sent.push_back(Sent::Select);
                self.cursor = Some(b"0".to_vec());
            }
            if !self.scan_in_flight
                && self.keys.len() < (self.options.scan_count as usize).div_ceil(2)
            {
                if let Some(cursor) = self.cursor.take() {
                    self.queue_scan(&cursor)?;
                }
            }
            let room = self.room();
            if room == 0 || self.keys.is_empty() {
                break;
            }
            let count = self.keys.len().min(room).min(GROUP_KEYS);
            let group: Vec<Vec<u8>> = self.keys.drain(..count).collect();
            self.queue_group(&group)?;
            self.sent_keys += group.len();
            self.sent.push_back(Sent::Group(group));
        }
        self.conn.flush()?;
        Ok(())
    }

    /// Whether every database was scanned until its cursor came back as 0, and every key asked for.
    fn is_at_end(&self) -> bool {
        self.waiting.is_empty() && self.cursor.is_none() && self.keys.is_empty()
    }

    /// How many more keys may be asked for. Refilled only when half of the window is used up, so
    /// that requests leave in large writes.
    fn room(&self) -> usize {
        let window =
            (WINDOW_BYTES / self.guess_bytes.max(1)).clamp(1, 2 * self.options.scan_count as usize);
        window.saturating_sub(self.sent_keys)
    }

    fn queue_scan(&mut self, cursor: &[u8]) -> Result<()> {
        let count = self.options.scan_count.to_string();
        let push_down = self.options.selection.push_down();
        let mut args: Vec<&[u8]> = vec![b"SCAN", cursor, b"COUNT", count.as_bytes()];
        if let Some(pattern) = push_down.match_ {
            args.extend([&b"MATCH"[..], pattern]);
        }
        if let Some(kind) = push_down.type_ {
            args.extend([&b"TYPE"[..], kind.as_bytes()]);
        }
        self.conn.queue(&args)?;
        self.scan_in_flight = true;
        self.sent.push_back(Sent::Scan);
        Ok(())
    }

    fn queue_group(&mut self, keys: &[Vec<u8>]) -> Result<(), ServerError> {
        let abilities = self.abilities;
        let conn = &mut self.conn;
        if abilities.multi {
            conn.queue(&[b"MULTI"])?;
        }
        if abilities.asks_time() {
            conn.queue(&[b"TIME"])?;
        }
        let expiry: &[u8] = if abilities.pexpiretime {
            b"PEXPIRETIME"
        } else {
            b"PTTL"
        };
        for key in keys {
            conn.queue(&[expiry, key])?;
        }
        // Before DUMP, which would reset it where NO-TOUCH is not known.
        if let Some(command) = abilities.eviction {
            let sub: &[u8] = if command == EvictionCommand::Freq {
                b"FREQ"
            } else {
                b"IDLETIME"
            };
            for key in keys {
                conn.queue(&[b"OBJECT", sub, key])?;
            }
        }
        for key in keys {
            conn.queue(&[b"DUMP", key])?;
        }
        if abilities.multi {
            conn.queue(&[b"EXEC"])?;
        }
        Ok(())
    }

    /// Commands between MULTI and EXEC for `keys` keys.
    fn group_commands(&self, keys: usize) -> usize {
        let each = 2 + usize::from(self.abilities.eviction.is_some());
        each * keys + usize::from(self.abilities.asks_time())
    }

    fn read_scan(&mut self) -> Result<()> {
        self.conn.doing("scanning for keys");
        self.scan_in_flight = false;
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
        let counts = self.counts.of(self.db);
        counts.scanned += count as u64;
        for _ in 0..count {
            let Item::Bulk(key) = self.conn.item()? else {
                return Err(self.conn.confused("SCAN gave a key that is none").into());
            };
            if self.options.selection.wants_key(&key) {
                self.keys.push_back(key);
            } else {
                counts.filtered += 1;
            }
        }
        self.cursor = (cursor != b"0").then_some(cursor);
        Ok(())
    }

    /// Reads a group up to its first payload.
    fn open_group(&mut self, keys: Vec<Vec<u8>>) -> Result<()> {
        self.conn.doing("reading keys");
        if let Some(text) = self.read_group_head(keys.len())? {
            return self.reread_alone(keys, &text);
        }
        let now_ms = match (self.abilities.pexpiretime, self.abilities.time) {
            (true, _) => 0,
            (false, true) => self.read_time()?,
            (false, false) => self.clock.now_ms(),
        };
        let mut group = Vec::with_capacity(keys.len());
        for key in keys {
            group.push(Awaited {
                key,
                expiry: self.read_expiry(now_ms)?,
                eviction: None,
            });
        }
        if let Some(command) = self.abilities.eviction {
            for awaited in &mut group {
                awaited.eviction = match self.conn.item()? {
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
        self.awaited.extend(group);
        Ok(())
    }

    /// Reads the payload of one key of the open group. One at a time, so that a batch is handed on
    /// between two large values of the same group.
    fn read_payload(&mut self, awaited: Awaited, batch: &mut Batch) -> Result<()> {
        let Awaited {
            key,
            expiry,
            eviction,
        } = awaited;
        let payload = match self.conn.item()? {
            Item::Bulk(payload) => payload,
            Item::Nil => {
                self.learn(0);
                self.counts.of(self.db).vanished += 1;
                return Ok(());
            }
            Item::Error(text) => return self.fail(key, &String::from_utf8_lossy(&text)),
            _ => {
                return Err(self
                    .conn
                    .confused("DUMP gave something else than a payload")
                    .into());
            }
        };
        self.learn(payload.len());
        match expiry {
            Expiry::Gone => self.counts.of(self.db).vanished += 1,
            Expiry::Refused => return self.fail(key, "its expiry cannot be read"),
            Expiry::None => self.give(key, payload, None, eviction, batch),
            Expiry::At(at_ms) => self.give(key, payload, Some(at_ms), eviction, batch),
        }
        Ok(())
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
    fn reread_alone(&mut self, keys: Vec<Vec<u8>>, text: &str) -> Result<()> {
        self.sent_keys -= keys.len();
        let alone = keys.len() == 1;
        for key in keys {
            if alone {
                self.fail(key, text)?;
            } else {
                self.queue_group(std::slice::from_ref(&key))?;
                self.sent.push_back(Sent::Group(vec![key]));
                self.sent_keys += 1;
            }
        }
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
        Ok(match self.conn.item()? {
            Item::Int(-1) => Expiry::None,
            Item::Int(-2) => Expiry::Gone,
            Item::Int(number) => match u64::try_from(number) {
                Ok(number) => Expiry::At(now_ms.saturating_add(number)),
                Err(_) => Expiry::Refused,
            },
            Item::Error(_) => Expiry::Refused,
            _ => return Err(self.conn.confused("an expiry that is no number").into()),
        })
    }

    fn give(
        &mut self,
        key: Vec<u8>,
        payload: Vec<u8>,
        expire_at_ms: Option<u64>,
        eviction: Option<Eviction>,
        batch: &mut Batch,
    ) {
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
            self.counts.of(self.db).filtered += 1;
            return;
        }
        self.counts.of(self.db).written += 1;
        batch.push(Record::Key(KeyRecord {
            db: self.db,
            key,
            value: Value::Verbatim(payload),
            expire_at_ms,
            eviction,
        }));
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

    fn context(&self) -> Context {
        Context {
            source_time_ms: self.clock.now_ms(),
            family: self.facts.family,
            rdb_version: self.facts.rdb_version(),
            node: 0,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Expiry {
    None,
    Gone,
    Refused,
    At(u64),
}

impl Source for ServerSource {
    fn read(&mut self, batch: &mut Batch) -> Result<bool> {
        batch.context = self.context();
        if let Some(payload) = self.functions.take() {
            self.functions_given += 1;
            batch.push(Record::Functions(payload));
        }
        while !batch.is_full() {
            if let Some(awaited) = self.awaited.pop_front() {
                self.sent_keys -= 1;
                self.read_payload(awaited, batch)?;
                continue;
            }
            // Asking when half of the window is used up keeps the server busy and the writes large.
            if self.sent_keys <= self.options.scan_count as usize {
                self.send()?;
            }
            match self.sent.pop_front() {
                None if self.is_at_end() => break,
                None => {
                    // Reaching the end is claimed only where it is proved.
                    return Err(anyhow!("the scan stopped before its end; this is a bug"));
                }
                Some(Sent::Select) => {
                    if let Err(text) = self.conn.reply()? {
                        return Err(self.conn.refusal("SELECT", text).into());
                    }
                }
                Some(Sent::Scan) => self.read_scan()?,
                Some(Sent::Group(keys)) => self.open_group(keys)?,
            }
        }
        if let Some(rdb_version) = footer_version(batch) {
            batch.context.rdb_version = rdb_version;
        }
        Ok(!batch.is_empty())
    }

    fn report(&self) -> SourceReport {
        SourceReport {
            counts: self.counts.rows(),
            functions: self.functions_given,
            // SCAN may return a key twice when the table is resized under it.
            duplicates_possible: true,
            reached: Some(ConsistencyReached::Scan {
                from_ms: self.from_ms,
                to_ms: self.clock.now_ms(),
            }),
            consistency_missed: false,
            started_ms: self.started_ms,
        }
    }

    fn estimate(&self) -> Estimate {
        Estimate {
            records: Some(self.databases.iter().map(|row| row.keys).sum()),
            bytes: None,
        }
    }
}

/// The RDB version in the first payload's footer: one server writes one version.
fn footer_version(batch: &Batch) -> Option<u16> {
    batch.records.iter().find_map(|record| {
        let Record::Key(KeyRecord {
            value: Value::Verbatim(payload),
            ..
        }) = record
        else {
            return None;
        };
        let footer = payload.last_chunk::<10>()?;
        Some(u16::from_le_bytes([footer[0], footer[1]]))
    })
}
