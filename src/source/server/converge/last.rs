//! The last round: everything that is not known to be current, in one MULTI/EXEC.
//!
//! Why it is exact: a batch of names is composed from what was heard. The EXEC reads all of it at
//! one instant. A key outside of the batch that was written before that instant, and after it was
//! last given, is pushed at the latest in the EXEC's own turn of the event loop, so before the
//! replies to the PINGs that follow. If what is heard by then lies within the batch, then nothing
//! outside of it had changed at the instant of the EXEC: what was given before, and the batch, are
//! the source at that instant. Else the names heard join the batch, and it is tried again.
//!
//! What is never heard is looked at: streams with groups are in every batch, other streams are
//! compared by XINFO in the same EXEC, SWAPDB is counted by the server.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use anyhow::Result;
use redis::Value as Reply;

use super::ConvergingSource;
use crate::policy::{Consistency, ReadFunctions};
use crate::record::{Batch, Eviction};
use crate::server::facts::{Facts, Keyspace, info, keyspace};
use crate::server::resp::Item;
use crate::server::{Conn, ServerError};
use crate::source::server::given::StreamFacts;
use crate::source::server::probe::EvictionCommand;

/// A name stays in the batch for so many attempts after it was last heard: hot keys come again.
const HISTORY: usize = 8;

/// What a server dumps in a millisecond, and what a command costs; to guess how long an EXEC takes.
const DUMP_BYTES_PER_MS: usize = 200_000;
const COMMANDS_PER_MS: usize = 200;

/// Bytes of values that one EXEC may hold, on both sides.
const MAX_EXEC_BYTES: usize = 32 * 1024 * 1024;

/// Writes go on for at least so long between two pauses.
const MIN_REST_BETWEEN_PAUSES: Duration = Duration::from_millis(20);

/// Attempts that take less are not held against the source.
const NOTICEABLE: Duration = Duration::from_millis(5);

/// The longest rest between attempts.
const MAX_REST: Duration = Duration::from_secs(1);

/// What came of an attempt.
pub enum Outcome {
    /// What was given is the source at this moment (server time, Unix ms).
    Exact {
        /// The moment.
        at_ms: u64,
    },
    /// Something else changed meanwhile.
    Again,
    /// Only a new scan can help.
    Rescan(String),
    /// Keys turned up in databases that had none before.
    Databases(Vec<Keyspace>),
    /// Something in the batch is refused: what it is shows when each is read alone.
    Alone(String),
    /// Over many attempts the batch has become too large for one.
    Grown,
    /// It cannot be had at all.
    Impossible(String),
}

/// What is still to be given of an attempt.
pub enum Pending {
    /// More than fitted into the batch.
    More,
    /// Nothing.
    Nothing,
    /// Nothing, and what was given is exact.
    Exact,
}

/// One key as the EXEC showed it.
struct Shown {
    db: u32,
    key: Vec<u8>,
    payload: Option<Vec<u8>>,
    expire_at_ms: Option<u64>,
    eviction: Option<Eviction>,
}

/// What the EXEC showed.
struct Shot {
    at_ms: u64,
    keys: Vec<Shown>,
    functions: Option<Vec<u8>>,
    swapdb_calls: Option<u64>,
    /// The databases that hold keys; `None` where they were not asked for.
    databases: Option<Vec<Keyspace>>,
    /// Streams that are no longer what was given, though nothing was heard.
    changed_streams: Vec<(u32, Vec<u8>)>,
}

/// The state of the attempts.
pub struct LastRound {
    history: VecDeque<HashSet<Vec<u8>>>,
    always: HashSet<Vec<u8>>,
    /// Streams that changed unheard: (database, name).
    streams: HashSet<(u32, Vec<u8>)>,
    /// To be given.
    ready: VecDeque<Shown>,
    attempts: u32,
    /// How long the last attempt kept the source busy.
    took: Duration,
    exact: bool,
}

/// What of the last round the server refuses.
enum Refused {
    /// XINFO STREAM.
    Looks,
    /// A key, or perhaps a command for keys.
    Keys(String),
    /// All of it.
    Everything(String),
}

impl LastRound {
    /// `always` are names that are in every batch.
    pub fn new(always: HashSet<Vec<u8>>) -> Self {
        Self {
            history: VecDeque::new(),
            always,
            streams: HashSet::new(),
            ready: VecDeque::new(),
            attempts: 0,
            took: Duration::ZERO,
            exact: false,
        }
    }

    /// Gives what is ready.
    ///
    /// # Errors
    /// The journal's.
    pub fn pending(&mut self, source: &mut ConvergingSource, batch: &mut Batch) -> Result<Pending> {
        while let Some(shown) = self.ready.pop_front() {
            source.inner.db = shown.db;
            source.inner.counts.of(shown.db).reread += 1;
            match shown.payload {
                Some(payload) => {
                    source.inner.give(
                        shown.key,
                        payload,
                        shown.expire_at_ms,
                        shown.eviction,
                        batch,
                    )?;
                }
                None => source.inner.gone(shown.key, batch)?,
            }
            if batch.is_full() {
                return Ok(Pending::More);
            }
        }
        Ok(if self.exact {
            Pending::Exact
        } else {
            Pending::Nothing
        })
    }

    /// The names of the next batch, given away.
    pub fn take_names(&mut self) -> HashSet<Vec<u8>> {
        let mut names: HashSet<Vec<u8>> = self.history.drain(..).flatten().collect();
        names.extend(self.always.drain());
        names.extend(self.streams.drain().map(|(_, name)| name));
        names
    }

    /// These join the batch. None leaves it: that may only happen right after it was read.
    fn remember(&mut self, names: HashSet<Vec<u8>>) {
        if !names.is_empty() {
            self.history.push_back(names);
        }
    }

    /// Lets go of the names that were not heard of for long; to be called right after an EXEC, of
    /// which everything that leaves has to be given.
    fn forget_old(&mut self) {
        while self.history.len() > HISTORY {
            self.history.pop_front();
        }
    }

    /// Leaves the source to others for at least as long as the last attempt took of it.
    fn pace(&self, pauses: bool) {
        let rest = match pauses {
            true => (self.took * 3).max(MIN_REST_BETWEEN_PAUSES),
            false if self.took >= NOTICEABLE => self.took,
            false => return,
        };
        std::thread::sleep(rest.min(MAX_REST));
    }

    fn batch_names(&self) -> HashSet<&Vec<u8>> {
        self.history.iter().flatten().chain(&self.always).collect()
    }

    /// Tries once.
    ///
    /// # Errors
    /// The connection.
    pub fn attempt(&mut self, source: &mut ConvergingSource) -> Result<Outcome> {
        self.attempts += 1;
        if source
            .inner
            .given
            .as_ref()
            .is_some_and(|given| given.too_many_streams)
        {
            return Ok(Outcome::Impossible(
                "there are more streams than can be kept in mind".to_owned(),
            ));
        }
        let pauses = source.options.consistency == Consistency::Pause;
        if self.attempts > 1 {
            self.pace(pauses);
        }
        let began = Instant::now();
        let mut paused = Pause::none();
        if pauses {
            paused = match Pause::begin(&mut source.inner.conn, source.options.max_pause)? {
                Ok(pause) => pause,
                Err(text) => {
                    if self.attempts == 1 {
                        source.observer.warn(&format!(
                            "the source refuses CLIENT PAUSE … WRITE ({text}); trying without a pause"
                        ));
                    }
                    Pause::none()
                }
            };
        }
        let tried = self.attempt_within(source, &paused);
        let lasted = paused.end(&mut source.inner.conn);
        self.took = began.elapsed();
        // Not while writes are held up.
        if matches!(tried, Ok(Outcome::Exact { .. })) {
            let facts = Facts::ask(&mut source.inner.conn)?;
            let known = &source.inner.facts;
            if (&facts.run_id, facts.replica) != (&known.run_id, known.replica) {
                self.exact = false;
                self.ready.clear();
                return Ok(Outcome::Rescan("the server changed its role".to_owned()));
            }
        }
        if let Some(lasted) = lasted {
            source.inner.paused = source.inner.paused.max(lasted);
        }
        tried
    }

    fn attempt_within(&mut self, source: &mut ConvergingSource, paused: &Pause) -> Result<Outcome> {
        source.tracker.barrier();
        let heard = source.tracker.take();
        if let Some(reason) = heard.means_rescan() {
            return Ok(Outcome::Rescan(reason.to_owned()));
        }
        self.remember(heard.names);
        let plan = self.plan(source);
        if let Some(reason) = plan.too_much(source.options.max_pause) {
            // Only where nothing but the last changes are in it is there nothing to be done.
            return Ok(match self.attempts {
                1 => Outcome::Impossible(reason),
                _ => Outcome::Grown,
            });
        }
        let shown = match read_instant(source, &plan)? {
            Ok(shown) => shown,
            Err(Refused::Looks) => {
                source.looks_refused = true;
                return Ok(Outcome::Again);
            }
            Err(Refused::Keys(reason)) => return Ok(Outcome::Alone(reason)),
            Err(Refused::Everything(reason)) => return Ok(Outcome::Impossible(reason)),
        };
        if paused.is_over() {
            return Ok(Outcome::Again);
        }
        source.tracker.barrier();
        let heard = source.tracker.take();
        if let Some(reason) = heard.means_rescan() {
            return Ok(Outcome::Rescan(reason.to_owned()));
        }
        if shown.swapdb_calls != source.swapdb_calls {
            source.swapdb_calls = shown.swapdb_calls;
            return Ok(Outcome::Rescan("databases were swapped".to_owned()));
        }
        let new = source.unknown_databases(shown.databases.as_deref());
        if !new.is_empty() {
            self.remember(heard.names);
            return Ok(Outcome::Databases(new));
        }
        let within = {
            let names = self.batch_names();
            heard.names.iter().all(|name| names.contains(name))
        };
        if within && shown.changed_streams.is_empty() {
            if source.inner.options.functions != ReadFunctions::No {
                source.functions = shown.functions;
            }
            self.ready = shown.keys.into();
            self.exact = true;
            return Ok(Outcome::Exact { at_ms: shown.at_ms });
        }
        self.streams.extend(shown.changed_streams);
        self.remember(heard.names);
        self.forget_old();
        // What leaves the batch was current at this EXEC, and nothing was heard of it since.
        let stays = self.batch_names();
        let streams = &self.streams;
        let given = source.inner.given.as_ref();
        let reads_always = |stream: &(u32, Vec<u8>)| {
            given
                .and_then(|given| given.streams.get(stream))
                .is_some_and(|facts| facts.has_groups || source.looks_refused)
        };
        let leaving = shown.keys.into_iter().filter(|shown| {
            let stream = (shown.db, shown.key.clone());
            !stays.contains(&shown.key) && !streams.contains(&stream) && !reads_always(&stream)
        });
        let leaving: VecDeque<Shown> = leaving.collect();
        self.ready = leaving;
        Ok(Outcome::Again)
    }

    fn plan(&self, source: &ConvergingSource) -> Plan {
        let mut plan = Plan::default();
        let names = self.batch_names();
        let Some(given) = source.inner.given.as_ref() else {
            return plan;
        };
        for row in &source.inner.databases {
            let keys = plan.dump.entry(row.db).or_default();
            keys.extend(
                names
                    .iter()
                    .filter(|name| !given.unreadable.contains(**name))
                    .map(|name| name.to_vec()),
            );
            plan.bytes += keys
                .iter()
                .map(|name| given.bytes_of(row.db, name, source.inner.guess_bytes))
                .sum::<usize>();
        }
        for ((db, name), facts) in &given.streams {
            if names.contains(name) {
                continue;
            }
            if facts.has_groups
                || source.looks_refused
                || self.streams.contains(&(*db, name.clone()))
            {
                plan.bytes += facts.bytes;
                plan.dump.entry(*db).or_default().push(name.clone());
            } else {
                plan.look
                    .entry(*db)
                    .or_default()
                    .push((name.clone(), facts.clone()));
            }
        }
        plan
    }
}

/// What one EXEC asks for.
#[derive(Default)]
struct Plan {
    dump: HashMap<u32, Vec<Vec<u8>>>,
    look: HashMap<u32, Vec<(Vec<u8>, StreamFacts)>>,
    bytes: usize,
}

impl Plan {
    /// Why it would hold up the server, or us, for too long.
    fn too_much(&self, max_pause: Duration) -> Option<String> {
        let dumps: usize = self.dump.values().map(Vec::len).sum();
        let looks: usize = self.look.values().map(Vec::len).sum();
        let ms = self.bytes / DUMP_BYTES_PER_MS + (3 * dumps + looks) / COMMANDS_PER_MS;
        if self.bytes > MAX_EXEC_BYTES || ms as u128 > max_pause.as_millis() {
            return Some(format!(
                "the last round would read {dumps} keys of about {} at once, and hold the source up \
                 for about {ms} ms (--max-pause {} ms)",
                crate::units::bytes_text(self.bytes as u64),
                max_pause.as_millis()
            ));
        }
        None
    }
}

/// Reads everything of the plan at one instant. The inner `Err` is why the server does not do that.
fn read_instant(source: &mut ConvergingSource, plan: &Plan) -> Result<Result<Shot, Refused>> {
    let inner = &mut source.inner;
    let abilities = inner.abilities;
    let conn = &mut inner.conn;
    conn.doing("reading the last round");
    let mut dbs: Vec<u32> = plan.dump.keys().chain(plan.look.keys()).copied().collect();
    dbs.sort_unstable();
    dbs.dedup();
    let several = dbs.len() > 1 || dbs.first().is_some_and(|db| inner.selected != Some(*db));
    let mut commands = 0usize;
    // By their number: MULTI's answer is number 0.
    let mut looks: HashSet<usize> = HashSet::new();
    let mut first_of_keys = usize::MAX;
    let mut queue = |conn: &mut Conn, args: &[&[u8]]| -> Result<usize, ServerError> {
        commands += 1;
        conn.queue(args)?;
        Ok(commands)
    };
    conn.queue(&[b"MULTI"])?;
    if abilities.time {
        queue(conn, &[b"TIME"])?;
    }
    let asks_functions = source.functions.is_some() || source.functions_known;
    if asks_functions {
        queue(conn, &[b"FUNCTION", b"DUMP"])?;
    }
    let asks_stats = source.swapdb_calls.is_some();
    if asks_stats {
        queue(conn, &[b"INFO", b"commandstats"])?;
    }
    // Where INFO tells which databases hold keys, and all of them are wanted.
    let asks_databases = inner.facts.keyspace.is_some() && inner.options.selection.dbs.is_empty();
    if asks_databases {
        queue(conn, &[b"INFO", b"keyspace"])?;
    }
    let expiry: &[u8] = if abilities.pexpiretime {
        b"PEXPIRETIME"
    } else {
        b"PTTL"
    };
    for db in &dbs {
        if several {
            queue(conn, &[b"SELECT", db.to_string().as_bytes()])?;
        }
        for key in plan.dump.get(db).into_iter().flatten() {
            first_of_keys = first_of_keys.min(queue(conn, &[expiry, key])?);
            if let Some(command) = abilities.eviction {
                let sub: &[u8] = if command == EvictionCommand::Freq {
                    b"FREQ"
                } else {
                    b"IDLETIME"
                };
                queue(conn, &[b"OBJECT", sub, key])?;
            }
            queue(conn, &[b"DUMP", key])?;
        }
        for (key, _) in plan.look.get(db).into_iter().flatten() {
            looks.insert(queue(conn, &[b"XINFO", b"STREAM", key])?);
        }
    }
    conn.queue(&[b"EXEC"])?;
    conn.flush()?;
    if several {
        inner.selected = dbs.last().copied();
    }
    let mut refused = None;
    for number in 0..=commands {
        if let Err(text) = conn.reply()? {
            // A key's refusal says less than that of a command which is always asked.
            refused.get_or_insert(match number {
                number if looks.contains(&number) => Refused::Looks,
                number if number >= first_of_keys => Refused::Keys(text),
                _ => Refused::Everything(text),
            });
        }
    }
    match conn.item()? {
        Item::Array(_) => {}
        Item::Error(text) => {
            let text = String::from_utf8_lossy(&text).into_owned();
            return Ok(Err(refused.unwrap_or(Refused::Everything(text))));
        }
        _ => {
            return Ok(Err(Refused::Everything(
                "the transaction was discarded".to_owned(),
            )));
        }
    }
    // One at a time: what XINFO says of twenty thousand streams is much larger than what is kept.
    // An error is a text here, which nothing below takes for an answer.
    let mut next =
        || -> Result<Reply, ServerError> { Ok(conn.reply()?.unwrap_or_else(Reply::SimpleString)) };
    let at_ms = match abilities.time {
        true => redis::from_redis_value::<(u64, u64)>(next()?).map_or_else(
            |_| inner.clock.now_ms(),
            |(secs, micros)| secs * 1000 + micros / 1000,
        ),
        false => inner.clock.now_ms(),
    };
    let functions = match asks_functions.then(&mut next).transpose()? {
        Some(Reply::BulkString(dump)) if dump.len() > crate::payload::FOOTER_LEN => Some(dump),
        _ => None,
    };
    let swapdb_calls = match asks_stats.then(&mut next).transpose()? {
        Some(Reply::BulkString(text)) => Some(count_swapdb(&String::from_utf8_lossy(&text))),
        _ => None,
    };
    let databases = match asks_databases.then(&mut next).transpose()? {
        Some(Reply::BulkString(text)) => Some(keyspace(&String::from_utf8_lossy(&text))),
        _ => None,
    };
    // Every reply is read, also after one that spoils all.
    let mut spoilt = None;
    let mut keys = Vec::new();
    let mut changed_streams = Vec::new();
    for db in &dbs {
        if several {
            next()?;
        }
        for key in plan.dump.get(db).into_iter().flatten() {
            let expiry = next()?;
            let eviction = match abilities.eviction {
                Some(command) => eviction_of(command, &next()?),
                None => None,
            };
            let payload = match next()? {
                Reply::BulkString(payload) => Some(payload),
                Reply::Nil => None,
                // Not to be taken for a key that went away.
                other => {
                    spoilt = Some(format!("DUMP answered {other:?}"));
                    None
                }
            };
            let expire_at_ms = match expiry {
                Reply::Int(ms @ 0..) => {
                    let base_ms = if abilities.pexpiretime { 0 } else { at_ms };
                    Some(base_ms + ms.unsigned_abs())
                }
                Reply::Int(_) => None,
                other => {
                    spoilt = Some(format!("an expiry was answered {other:?}"));
                    None
                }
            };
            keys.push(Shown {
                db: *db,
                key: key.clone(),
                payload,
                expire_at_ms,
                eviction,
            });
        }
        for (key, facts) in plan.look.get(db).into_iter().flatten() {
            if !is_same_stream(&next()?, facts) {
                changed_streams.push((*db, key.clone()));
            }
        }
    }
    if let Some(text) = spoilt {
        return Ok(Err(Refused::Keys(text)));
    }
    Ok(Ok(Shot {
        at_ms,
        keys,
        functions,
        swapdb_calls,
        databases,
        changed_streams,
    }))
}

fn eviction_of(command: EvictionCommand, reply: &Reply) -> Option<Eviction> {
    let Reply::Int(number) = reply else {
        return None;
    };
    Some(match command {
        EvictionCommand::IdleTime => Eviction::IdleSecs(u64::try_from(*number).unwrap_or(0)),
        EvictionCommand::Freq => Eviction::Freq(u8::try_from(*number).unwrap_or(u8::MAX)),
    })
}

/// Whether XINFO STREAM says of a stream what its payload said.
fn is_same_stream(reply: &Reply, facts: &StreamFacts) -> bool {
    let Reply::Array(items) = reply else {
        return false;
    };
    let mut fields = HashMap::new();
    for pair in items.chunks_exact(2) {
        if let Reply::BulkString(name) = &pair[0] {
            fields.insert(name.as_slice(), &pair[1]);
        }
    }
    let number = |name: &[u8]| match fields.get(name) {
        Some(Reply::Int(number)) => u64::try_from(*number).ok(),
        _ => None,
    };
    let id = |name: &[u8]| match fields.get(name) {
        Some(Reply::BulkString(text)) => Some(text.clone()),
        _ => None,
    };
    let text = |id: &crate::payload::StreamId| format!("{}-{}", id.ms, id.seq).into_bytes();
    let newer = match (&facts.added, number(b"entries-added")) {
        (Some((added, max_deleted)), Some(now)) => {
            *added == now && id(b"max-deleted-entry-id") == Some(text(max_deleted))
        }
        (None, None) => true,
        _ => false,
    };
    newer
        && number(b"groups") == Some(0)
        && number(b"length") == Some(facts.length)
        && id(b"last-generated-id") == Some(text(&facts.last_id))
}

/// How often SWAPDB was called; `None` where the server does not say.
pub fn swapdb_calls(conn: &mut Conn) -> Result<Option<u64>, ServerError> {
    let text = info(conn, Some("commandstats"))?;
    Ok(text.map(|text| count_swapdb(&text)))
}

fn count_swapdb(stats: &str) -> u64 {
    let line = stats
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_swapdb:calls="));
    let digits = line.and_then(|line| line.split(',').next());
    digits
        .and_then(|digits| digits.trim().parse().ok())
        .unwrap_or(0)
}

/// CLIENT PAUSE … WRITE, for as short as can be. The server ends it by itself if we do not.
struct Pause {
    began: Option<Instant>,
    limit: Duration,
}

impl Pause {
    fn none() -> Self {
        Self {
            began: None,
            limit: Duration::ZERO,
        }
    }

    fn begin(conn: &mut Conn, limit: Duration) -> Result<Result<Self, String>, ServerError> {
        // Measured from before it is sent: the server cannot have begun earlier.
        let began = Instant::now();
        let mut pause = redis::cmd("CLIENT");
        pause
            .arg("PAUSE")
            .arg(limit.as_millis() as u64)
            .arg("WRITE");
        Ok(conn.try_query(&pause)?.map(|_| Self {
            began: Some(began),
            limit,
        }))
    }

    /// Whether the server may have ended it already.
    fn is_over(&self) -> bool {
        self.began
            .is_some_and(|began| began.elapsed() >= self.limit)
    }

    /// Lets writes go on; how long they were held, at the most.
    fn end(self, conn: &mut Conn) -> Option<Duration> {
        let began = self.began?;
        // Nothing is to be done if it fails: the pause has its own end.
        let _ = conn.try_query(redis::cmd("CLIENT").arg("UNPAUSE"));
        // The server has ended it by then, whatever became of the request.
        Some(began.elapsed().min(self.limit))
    }
}
