//! The last round: everything that is not known to be current, in one MULTI/EXEC.
//!
//! Why it is exact: a batch of names is composed from what was heard. The EXEC reads all of it at
//! one instant. A key outside of the batch that was written before that instant, and after it was
//! last given, is pushed at the latest in the EXEC's own turn of the event loop, so before the
//! replies to the PINGs that follow. If what is heard by then lies within the batch, then nothing
//! outside of it had changed at the instant of the EXEC: what was given before, and the batch, are
//! the source at that instant. Else the names heard join the batch, and it is tried again.
//!
//! What is never heard is looked at: streams with groups and values of modules are in every batch,
//! other streams are compared by XINFO in the same EXEC, SWAPDB is counted by the server. Types of
//! modules whose writing commands are announced need not be read again as long as the server's
//! counts show that no other command of their module was called.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use anyhow::Result;

use super::ConvergingSource;
use super::instant::{Had, How, Plan, Refused, Shown, read_instant};
use super::named::is_still_named;
use super::pause::Pause;
use crate::host;
use crate::policy::{Consistency, ReadFunctions};
use crate::record::Batch;
use crate::server::facts::{Facts, Keyspace};
use crate::source::server::replies::NOT_DUMPED;
use crate::source::server::unheard::{self, Module, Unheard};

/// A name stays in the batch for so many attempts after it was last heard: hot keys come again.
const HISTORY: usize = 8;

/// Writes go on for at least so long between two pauses.
const MIN_REST_BETWEEN_PAUSES: Duration = Duration::from_millis(20);

/// Bytes that have left the batch and are not given yet; what is more is read once more.
const MAX_LEFT_BYTES: usize = 16 * 1024 * 1024;

/// Attempts that take less are not held against the source.
const NOTICEABLE: Duration = Duration::from_millis(5);

/// The longest rest between attempts.
const MAX_REST: Duration = Duration::from_secs(1);

/// How often a run puts off the last round, because a key changed that could not be read before:
/// perhaps it can be read now. One that changes all the time must not hold up the others.
const MAX_DETOURS: u32 = 3;

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

/// The state of the attempts.
pub struct LastRound {
    history: VecDeque<HashSet<Vec<u8>>>,
    always: HashSet<Vec<u8>>,
    /// Streams that changed unheard: (database, name).
    streams: HashSet<(u32, Vec<u8>)>,
    /// What left the batch, as it was then: to be given.
    left: VecDeque<Shown>,
    /// The whole batch, if it was found exact: to be given after that.
    shot: VecDeque<Shown>,
    attempts: u32,
    /// How long the last attempt kept the source busy.
    took: Duration,
    exact: bool,
    /// What was heard while the exact batch was proved: some of it may have changed after it.
    heard_since: HashSet<Vec<u8>>,
}

impl LastRound {
    /// `always` are names that are in every batch.
    pub fn new(always: HashSet<Vec<u8>>) -> Self {
        Self {
            history: VecDeque::new(),
            always,
            streams: HashSet::new(),
            left: VecDeque::new(),
            shot: VecDeque::new(),
            attempts: 0,
            took: Duration::ZERO,
            exact: false,
            heard_since: HashSet::new(),
        }
    }

    /// Gives what is ready.
    ///
    /// # Errors
    /// The journal's.
    pub fn pending(&mut self, source: &mut ConvergingSource, batch: &mut Batch) -> Result<Pending> {
        while let Some(shown) = self.left.pop_front().or_else(|| self.shot.pop_front()) {
            source.inner.db = shown.db;
            source.inner.counts.of(shown.db).reread += 1;
            match shown.had {
                Had::Payload(payload) => {
                    source.inner.give(
                        shown.key,
                        payload,
                        shown.expire_at_ms,
                        shown.eviction,
                        batch,
                    )?;
                }
                Had::TooLong(bytes) => source.inner.fail_as_too_long(shown.key, bytes)?,
                Had::Nothing => source.inner.gone(shown.key, batch)?,
                Had::Withheld => source.inner.fail(shown.key, NOT_DUMPED)?,
            }
            source.inner.give_tombstones(batch);
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

    /// Ends it: the names of all that it did not give. They were taken from the tracker, which will
    /// not tell them again.
    pub fn into_names(self) -> HashSet<Vec<u8>> {
        let mut names: HashSet<Vec<u8>> = self.history.into_iter().flatten().collect();
        names.extend(self.always);
        names.extend(self.streams.into_iter().map(|(_, name)| name));
        names.extend(self.left.into_iter().map(|shown| shown.key));
        names
    }

    /// Ends it when all of it was given and is exact: the names that may have changed since. They
    /// were taken from the tracker, which will not tell them again, and a later instant needs them.
    pub fn into_heard_since(self) -> HashSet<Vec<u8>> {
        self.heard_since
    }

    /// What was read could not be proved: it is read again. No name has left the batch.
    pub fn forget_shot(&mut self) {
        self.exact = false;
        self.shot.clear();
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
        host::sleep(rest.min(MAX_REST));
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
        if let Some(reason) = hopeless(source) {
            return Ok(Outcome::Impossible(reason));
        }
        // The shards of a cluster are paused together, by whoever knows all of them.
        let pauses =
            source.options.consistency == Consistency::Pause && source.options.together.is_none();
        if self.attempts > 1 {
            self.pace(pauses);
        }
        let began = host::now();
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
        self.took = host::elapsed(began);
        // Not while writes are held up.
        let tried = self.look_again(source, tried?);
        if let Some(lasted) = lasted {
            source.inner.paused = source.inner.paused.max(lasted);
        }
        tried
    }

    /// Whether what was read as exact was read of the server that was listened to. To be asked when
    /// nothing is held up any more.
    ///
    /// # Errors
    /// The connection.
    pub fn look_again(&mut self, source: &mut ConvergingSource, tried: Outcome) -> Result<Outcome> {
        if !matches!(tried, Outcome::Exact { .. }) {
            return Ok(tried);
        }
        let facts = Facts::ask(&mut source.inner.conn)?;
        let known = &source.inner.facts;
        if (&facts.run_id, facts.replica) != (&known.run_id, known.replica) {
            self.forget_shot();
            return Ok(Outcome::Rescan("the server changed its role".to_owned()));
        }
        if let Some(reason) = facts.out_of_step {
            self.forget_shot();
            return Ok(Outcome::Impossible(format!(
                "the source is a replica, and {reason}"
            )));
        }
        is_still_named(self, source, tried)
    }

    /// Tries once, while all shards of a cluster are paused. What it found is exact only if no
    /// pause was over by then; else see [`Self::forget_shot`].
    ///
    /// # Errors
    /// The connection.
    pub fn attempt_paused(
        &mut self,
        source: &mut ConvergingSource,
        paused: &Pause,
    ) -> Result<Outcome> {
        self.attempts += 1;
        if let Some(reason) = hopeless(source) {
            return Ok(Outcome::Impossible(reason));
        }
        self.attempt_within(source, paused)
    }

    fn attempt_within(&mut self, source: &mut ConvergingSource, paused: &Pause) -> Result<Outcome> {
        source.tracker.barrier();
        let heard = source.heard();
        if let Some(reason) = heard.means_rescan() {
            return Ok(Outcome::Rescan(reason.to_owned()));
        }
        let detour = source.detours < MAX_DETOURS && any_failing(source, &heard.names)?;
        self.remember(heard.names);
        if detour {
            source.detours += 1;
            return Ok(Outcome::Grown);
        }
        let plan = self.plan(source)?;
        if let Some(mut reason) = plan.too_much(source.options.max_pause) {
            if let Some(doubt) = &plan.doubt {
                reason = format!("{reason}, values of modules among them, because {doubt}");
            }
            // Only where nothing but the last changes are in it is there nothing to be done.
            return Ok(match self.attempts {
                1 => Outcome::Impossible(reason),
                _ => Outcome::Grown,
            });
        }
        let how = match (&source.options.together, paused.is_held()) {
            (None, _) => How::Multi,
            // A script would wait for the end of the pause; and nothing changes meanwhile.
            (Some(_), true) => How::Plain,
            (Some(_), false) => match source.script {
                Some(script) => How::Script(script),
                None => {
                    return Ok(Outcome::Impossible(
                        "keys of several slots are read at one instant by EVAL only, which the \
                         source refuses (--consistency pause needs no EVAL)"
                            .to_owned(),
                    ));
                }
            },
        };
        let read = read_instant(source, &plan, how)?;
        if read.is_err() {
            source.tracker.barrier();
            if source.tracker.waiting().1 {
                // Refused while another dataset is loaded: that is the news, not the refusal.
                return Ok(Outcome::Again);
            }
        }
        let shown = match read {
            Ok(shown) => shown,
            Err(Refused::Looks) => {
                source.looks_refused = true;
                return Ok(Outcome::Again);
            }
            Err(Refused::TooMuch) => return Ok(Outcome::Grown),
            Err(Refused::Torn) => return Ok(Outcome::Again),
            Err(Refused::Keys(reason)) => return Ok(Outcome::Alone(reason)),
            Err(Refused::Everything(reason)) => return Ok(Outcome::Impossible(reason)),
        };
        if paused.is_over() {
            return Ok(Outcome::Again);
        }
        source.tracker.barrier();
        let heard = source.heard();
        if let Some(reason) = heard.means_rescan() {
            return Ok(Outcome::Rescan(reason.to_owned()));
        }
        if let Some(reason) = source.counted(shown.counts) {
            return Ok(Outcome::Rescan(reason.to_owned()));
        }
        let doubted = plan.counted.iter().find_map(|module| doubt(source, module));
        let new = source.unknown_databases(shown.databases.as_deref());
        if !new.is_empty() {
            self.remember(heard.names);
            return Ok(Outcome::Databases(new));
        }
        // Read command by command, its parts are of one instant only if nothing at all changed.
        let within = if how == How::Plain {
            heard.names.is_empty()
        } else {
            let names = self.batch_names();
            heard.names.iter().all(|name| names.contains(name))
        };
        if within && shown.changed_streams.is_empty() && doubted.is_none() {
            if source.inner.options.functions != ReadFunctions::No {
                match shown.functions {
                    Ok(functions) => source.functions = functions,
                    Err(reason) => source.inner.libraries_unread(&reason),
                }
            }
            self.shot = shown.keys.into();
            self.exact = true;
            self.heard_since = heard.names;
            return Ok(Outcome::Exact { at_ms: shown.at_ms });
        }
        self.streams.extend(shown.changed_streams);
        self.remember(heard.names);
        let before: HashSet<Vec<u8>> = self.batch_names().into_iter().cloned().collect();
        self.forget_old();
        // What leaves the batch was current at this EXEC, and nothing was heard of it since.
        let stays = self.batch_names();
        let streams = &self.streams;
        let given = source.inner.given.as_ref();
        let leaves = |shown: &Shown| {
            let key = (shown.db, shown.key.clone());
            if stays.contains(&key.1) || streams.contains(&key) {
                return false;
            }
            match given.and_then(|given| given.unheard.get(&key)) {
                Some(watched) => match watched.how {
                    Unheard::Looks(_) => !source.looks_refused,
                    Unheard::Reads => false,
                    // It is not in every batch. What was heard of it has to be given.
                    Unheard::Counts(_) => before.contains(&key.1),
                },
                None => true,
            }
        };
        let leaving: Vec<Shown> = shown.keys.into_iter().filter(leaves).collect();
        // Between attempts under one pause after the other nothing is given.
        self.left.extend(leaving);
        let bytes = |shown: &Shown| shown.had.bytes() + shown.key.len();
        let mut left_bytes: usize = self.left.iter().map(bytes).sum();
        while left_bytes > MAX_LEFT_BYTES
            && let Some(oldest) = self.left.pop_front()
        {
            left_bytes -= bytes(&oldest);
            self.always.insert(oldest.key);
        }
        Ok(Outcome::Again)
    }

    fn plan(&self, source: &mut ConvergingSource) -> Result<Plan> {
        let mut plan = Plan::default();
        let names = self.batch_names();
        let guess_bytes = source.inner.guess_bytes;
        if let Some(given) = source.inner.given.as_mut() {
            for row in &source.inner.databases {
                let keys = plan.dump.entry(row.db).or_default();
                for name in &names {
                    // What cannot be read would cost all the others the EXEC. It was named, and what
                    // was given of it taken back.
                    if !given.is_failing(row.db, name)? {
                        plan.bytes += given.bytes_of(row.db, name, guess_bytes);
                        keys.push(name.to_vec());
                    }
                }
            }
        }
        let source = &*source;
        let Some(given) = source.inner.given.as_ref() else {
            return Ok(plan);
        };
        for module in unheard::modules().filter(|module| given.has_values_of(module)) {
            match doubt(source, module) {
                None => plan.counted.push(module),
                Some(doubt) => plan.doubt = Some(doubt),
            }
        }
        for ((db, name), watched) in &given.unheard {
            if names.contains(name) {
                continue;
            }
            match &watched.how {
                Unheard::Looks(facts)
                    if !source.looks_refused && !self.streams.contains(&(*db, name.clone())) =>
                {
                    let look = (name.clone(), facts.clone());
                    plan.look.entry(*db).or_default().push(look);
                }
                Unheard::Counts(module) if plan.counted.contains(module) => {}
                Unheard::Looks(_) | Unheard::Reads | Unheard::Counts(_) => {
                    plan.bytes += watched.bytes;
                    plan.dump.entry(*db).or_default().push(name.clone());
                }
            }
        }
        Ok(plan)
    }
}

/// Whether one of these could not be read when it was last asked for.
fn any_failing(source: &mut ConvergingSource, names: &HashSet<Vec<u8>>) -> Result<bool> {
    let Some(given) = source.inner.given.as_mut() else {
        return Ok(false);
    };
    for row in &source.inner.databases {
        for name in names {
            if given.is_failing(row.db, name)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Why values of this type may have changed unheard since changes are listened to.
fn doubt(source: &ConvergingSource, module: &Module) -> Option<String> {
    let (Some(before), Some(now)) = (&source.counts_at_start, &source.counts) else {
        return Some(format!(
            "the source does not tell by which commands values of a module ({}) were changed (INFO \
             commandstats is refused, or was reset)",
            module.type_name()
        ));
    };
    let mut called = now.called_since(before);
    let command = called.find(|name| module.may_be_silent(name))?;
    Some(format!(
        "{} was called, and whether the source announces what it changes ({}) is not known",
        command.to_uppercase(),
        module.type_name(),
    ))
}

/// Why no attempt can be exact.
fn hopeless(source: &mut ConvergingSource) -> Option<String> {
    if let Some(reason) = too_many_unheard(source) {
        return Some(reason);
    }
    if let Some(reason) = source.blind {
        return Some(reason.to_owned());
    }
    let reason = source.inner.incomplete.take()?;
    source.lost_track = true;
    Some(reason)
}

/// Why there are values that may have changed unheard and cannot be read again.
fn too_many_unheard(source: &ConvergingSource) -> Option<String> {
    let given = source.inner.given.as_ref()?;
    let many = "than can be kept in mind";
    if given.too_many_unheard {
        return Some(format!(
            "there are more streams and values of modules, whose changes may be announced to \
             nobody, {many}"
        ));
    }
    let doubt = given
        .unlisted
        .iter()
        .find_map(|module| doubt(source, module))?;
    Some(format!(
        "there are more values of modules {many}, and {doubt}"
    ))
}
