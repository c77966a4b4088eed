//! Which keys of an archive an import could write here: asked for each set of keys that the user's
//! rights treat alike, without writing anything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::endpoint::ConnectOptions;
use crate::host;
use crate::payload;
use crate::policy::AllowLoss;
use crate::record::{Context, KeyRecord, Value, not_kept};
use crate::refusal::Refusal;
use crate::server::cluster::Redirect;
use crate::server::conn::asks_for_patience;
use crate::server::facts::Facts;
use crate::server::patience::{Patience, STEP};
use crate::server::reply::{Reply, cmd};
use crate::server::{ABSENT_KEY, Conn, ServerError};
use crate::sink::server::commands::{CommandLimits, Commands, Features, Job, Replace};
use crate::sink::server::foresee::{KeyRights, Way, offer};
use crate::sink::server::functions::Library;
use crate::sink::server::key_classes::{are_to_be_asked, ask};
use crate::sink::server::libraries::in_the_way;
use crate::sink::server::prepare::{Ready, Target};
use crate::sink::server::refusal::{RestoreError, is_about_database, is_about_key};

/// Keys that are asked about in one round trip.
const ASKED_AT_ONCE: usize = 256;

/// How often the connection may be lost.
const MAX_LOSSES: u8 = 3;

/// Unusable databases that are found out one by one; beyond that the others are not tried.
const MAX_CLOSED: usize = 256;

/// How long a server that answers "not now" is asked again, where `--retry-for` is not shorter: a
/// report is waited for by somebody.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A key, and how an import would write it.
#[derive(Debug)]
pub struct AskedKey {
    /// Database of the destination.
    pub db: u32,
    pub key: Vec<u8>,
    /// How it would get its name.
    pub way: Way,
}

pub struct KeyTrial<'a> {
    to: &'a ConnectOptions,
    facts: Facts,
    conn: Option<Conn>,
    rights: KeyRights,
    commands: Commands,
    by_commands: bool,
    losses: u8,
    /// Database 0 can be used.
    knows_0: bool,
    /// Databases that cannot be selected, and why not.
    pub closed: BTreeMap<u32, String>,
    /// Databases that were not entered, because too many others are closed.
    pub passed_over: BTreeSet<u32>,
    /// Why an import would end before it has written anything.
    pub ends: Option<String>,
    /// Why it could not be found out which keys may be written.
    pub unforeseen: Option<String>,
}

/// What stops the asking.
enum StopAsking {
    Lost(ServerError),
    /// It asks for patience, in these words.
    Later(String),
    /// The run would end.
    Ends(String),
}

impl<'a> KeyTrial<'a> {
    /// `features`: what the destination's commands can do. `by_commands`: values go by native
    /// commands.
    pub fn new(
        to: &'a ConnectOptions,
        facts: &Facts,
        features: Features,
        by_commands: bool,
    ) -> Self {
        Self {
            to,
            facts: facts.clone(),
            conn: None,
            rights: KeyRights::default(),
            commands: Commands::new(features, CommandLimits::default()),
            by_commands,
            losses: 0,
            knows_0: false,
            closed: BTreeMap::new(),
            passed_over: BTreeSet::new(),
            ends: None,
            unforeseen: None,
        }
    }

    /// Whether values go by native commands.
    pub fn is_by_commands(&self) -> bool {
        self.by_commands
    }

    /// Whether a stream that is written by native commands loses its idempotency.
    ///
    /// # Errors
    /// Why they cannot write a value.
    pub fn check_for_commands(
        &self,
        record: &KeyRecord,
        context: &Context,
    ) -> Result<bool, Refusal> {
        let body = match &record.value {
            Value::Compact(body) => body.as_slice(),
            Value::Verbatim(dump) => match payload::split(dump) {
                Ok((body, _)) => body,
                Err(error) => {
                    return Err(Refusal::new(format!("its payload is damaged: {error}")));
                }
            },
            Value::Withheld(value) => return Err(Refusal::new(not_kept(value))),
        };
        let features = self.commands.features();
        features
            .check(context.family, body, AllowLoss::default())
            .map(|_| features.loses_idempotency(context.family, body))
    }

    /// What is to be asked about a record, whose key it takes. `too_large`: for RESTORE.
    pub fn asked(&self, record: &mut KeyRecord, context: &Context, too_large: bool) -> AskedKey {
        let way = match self.by_commands || too_large {
            false => Way::Restore,
            true => self.commands.way(&Job {
                key: &record.key,
                family: context.family,
                value: record.value.bytes(),
                expire_at_ms: record.expire_at_ms,
                replace: Replace::IfAbsent,
                now_ms: crate::host::unix_ms(),
            }),
        };
        AskedKey {
            db: self.to.db.unwrap_or(record.db),
            key: std::mem::take(&mut record.key),
            way,
        }
    }

    /// Asks what the destination does with the classes of a value's key metadata, before the value is
    /// made ready. Where nothing can be found out, nothing is known.
    pub fn ask_for_classes(&mut self, target: &mut Target, record: &KeyRecord, context: &Context) {
        if self.is_over() || !are_to_be_asked(target, record, context) {
            return;
        }
        let conn = connected(&mut self.conn, &mut self.rights, self.to);
        if let Err(error) = conn.and_then(|conn| ask(conn, target, record, context)) {
            self.lost(&error);
        }
    }

    /// Offers a value that cannot be read here; the server's words if it does not take it. Where
    /// nothing can be found out, nothing is known against it.
    pub fn offer(
        &mut self,
        target: &mut Target,
        record: &KeyRecord,
        ready: Ready,
    ) -> Option<String> {
        let kind = target.opaque().cloned()?;
        if self.by_commands || self.is_over() {
            return None;
        }
        let conn = connected(&mut self.conn, &mut self.rights, self.to);
        let answer = conn.and_then(|conn| offer(conn, target, kind, record, ready));
        answer.unwrap_or_else(|error| {
            self.lost(&error);
            None
        })
    }

    /// Asks about keys; why each would be refused, if it would. Once it is clear that the run would
    /// end, or that nothing can be found out, no more is asked.
    pub fn refused(&mut self, keys: &[&AskedKey]) -> Vec<Option<String>> {
        let mut answers = vec![None; keys.len()];
        let mut by_db: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (at, asked) in keys.iter().enumerate() {
            by_db.entry(asked.db).or_default().push(at);
        }
        for (db, places) in by_db {
            let is_there = self.conn.as_ref().and_then(Conn::database) == Some(db);
            if self.closed.len() >= MAX_CLOSED && !is_there {
                self.passed_over.insert(db);
                continue;
            }
            for some in places.chunks(ASKED_AT_ONCE) {
                if self.is_over() || self.closed.contains_key(&db) {
                    break;
                }
                self.ask_patiently(db, keys, some, &mut answers);
            }
        }
        answers
    }

    /// Why a function library would be refused for what exists there already, if it would. Where the
    /// server does not tell, nothing is known against it.
    pub fn in_the_way(&mut self, library: &Library) -> Option<String> {
        let mut patience = Patience::new(self.to.retry_for);
        for _ in 0..=MAX_LOSSES {
            loop {
                let code = (library.name.as_str(), library.code.as_slice());
                let asked = connected(&mut self.conn, &mut self.rights, self.to);
                match asked.and_then(|conn| in_the_way(conn, code, false, |_| false)) {
                    Ok(Ok(standing)) => return standing.refusal().map(|it| it.reason),
                    Ok(Err(text)) if asks_for_patience(&text) && patience.lasts_for(PATIENCE) => {
                        host::sleep(STEP);
                    }
                    // An import does not ask this, so that it ends nothing there.
                    Ok(Err(_)) => return None,
                    Err(_) => break,
                }
            }
            self.conn = None;
        }
        None
    }

    /// Whether it is clear that the run would end, or that nothing can be found out.
    fn is_over(&self) -> bool {
        self.ends.is_some() || self.unforeseen.is_some()
    }

    fn lost(&mut self, error: &ServerError) {
        self.conn = None;
        self.losses += 1;
        if self.losses >= MAX_LOSSES || !is_worth_another(error) {
            self.unforeseen = Some(error.to_string());
        }
    }

    fn ask_patiently(
        &mut self,
        db: u32,
        keys: &[&AskedKey],
        places: &[usize],
        answers: &mut [Option<String>],
    ) {
        let mut patience = Patience::new(self.to.retry_for);
        loop {
            match self.ask(db, keys, places, answers) {
                Ok(()) => return,
                Err(StopAsking::Ends(end)) => {
                    self.ends = Some(end);
                    return;
                }
                Err(StopAsking::Later(text)) if !patience.lasts_for(PATIENCE) => {
                    self.unforeseen = Some(text);
                    return;
                }
                Err(StopAsking::Later(_)) => host::sleep(STEP),
                Err(StopAsking::Lost(error)) => {
                    self.lost(&error);
                    if self.unforeseen.is_some() {
                        return;
                    }
                }
            }
        }
    }

    fn ask(
        &mut self,
        db: u32,
        keys: &[&AskedKey],
        places: &[usize],
        answers: &mut [Option<String>],
    ) -> Result<(), StopAsking> {
        let conn =
            connected(&mut self.conn, &mut self.rights, self.to).map_err(StopAsking::Lost)?;
        if let Some(why) = enter(conn, db, &mut self.knows_0)? {
            self.closed.insert(db, why);
            return Ok(());
        }
        let mut due = Vec::new();
        for &at in places {
            let AskedKey { key, way, .. } = keys[at];
            match self.rights.known(db, key).filter(|_| *way == Way::Restore) {
                Some(known) => answers[at] = known.clone().err(),
                None => {
                    let temp = self.commands.temp_key(key);
                    way.queue(conn, key, &temp).map_err(StopAsking::Lost)?;
                    due.push(at);
                }
            }
        }
        conn.flush().map_err(StopAsking::Lost)?;
        // All are read before anything is made of one: they belong to each other.
        let mut said = Vec::with_capacity(due.len());
        for _ in &due {
            said.push(conn.reply().map_err(StopAsking::Lost)?);
        }
        for (at, answer) in due.into_iter().zip(said) {
            let AskedKey { key, way, .. } = keys[at];
            let answer = verdict(*way, answer, &self.facts)?;
            let is_lasting = answer.as_ref().err().is_none_or(|text| is_about_key(text));
            if *way == Way::Restore && is_lasting {
                self.rights.note(db, key, answer.clone());
            }
            answers[at] = answer.err();
        }
        Ok(())
    }
}

/// Goes to a database; why this user may not use it, where that is so. `knows_0`: that database 0 can
/// be used was seen.
fn enter(conn: &mut Conn, db: u32, knows_0: &mut bool) -> Result<Option<String>, StopAsking> {
    if conn.database() != Some(db)
        && let Err(text) = conn.select(db).map_err(StopAsking::Lost)?
    {
        return match asks_for_patience(&text) || text.starts_with("NOAUTH") {
            true => Err(StopAsking::Later(text)),
            false => Ok(Some(text)),
        };
    }
    // Every connection begins in database 0, which a user may all the same not use.
    if db == 0 && !*knows_0 {
        let answer = conn.try_query(cmd("EXISTS").arg(ABSENT_KEY));
        if let Err(text) = answer.map_err(StopAsking::Lost)?
            && is_about_database(&text)
        {
            return Ok(Some(text));
        }
        *knows_0 = true;
    }
    Ok(None)
}

/// What the answer about a key means: whether it can be written, or why not.
fn verdict(
    way: Way,
    answer: Result<Reply, String>,
    facts: &Facts,
) -> Result<Result<(), String>, StopAsking> {
    let text = match answer {
        Err(text) => text,
        Ok(_) => {
            let text = format!("{} with invalid arguments was not refused", way.command());
            return Err(StopAsking::Later(text));
        }
    };
    // Another node has it: this one has looked at the user's rights before.
    let is_elsewhere = facts.cluster && Redirect::parse(&text).is_some();
    if way.is_open(&text) || is_elsewhere {
        return Ok(Ok(()));
    }
    match RestoreError::of(&text, facts, &Context::default()) {
        RestoreError::Key { .. } | RestoreError::Database => Ok(Err(text)),
        RestoreError::Standing => Ok(Ok(())),
        RestoreError::Later => Err(StopAsking::Later(text)),
        RestoreError::Run { advice } => Err(StopAsking::Ends(format!("{advice} ({text})"))),
    }
}

/// The connection, opened if necessary.
fn connected<'c>(
    slot: &'c mut Option<Conn>,
    rights: &mut KeyRights,
    to: &ConnectOptions,
) -> Result<&'c mut Conn, ServerError> {
    let conn = match slot.take() {
        Some(conn) => conn,
        None => {
            let mut conn = Conn::open(to)?;
            conn.doing("asking what may be written");
            *rights = KeyRights::ask(&mut conn)?;
            conn
        }
    };
    Ok(slot.insert(conn))
}

fn is_worth_another(error: &ServerError) -> bool {
    matches!(
        error,
        ServerError::Lost { .. } | ServerError::Protocol { .. }
    )
}
