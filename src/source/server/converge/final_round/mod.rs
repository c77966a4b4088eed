//! The final round: everything that is not known to be current, in one MULTI/EXEC.
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
//!
//! Here is what follows from what was heard and read; [`super::attempt`] hears and reads.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::Result;

use super::evidence::Evidence;
use super::instant::{How, Plan, Shown, Snapshot};
use crate::host::HashSet;
use crate::server::facts::Keyspace;
use crate::source::server::delivered::Given;
use crate::source::server::unheard::{self, Unheard};

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

/// What came of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
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
    /// The node no longer answers for a key, which is settled by looking where it is.
    Elsewhere,
    /// Over many attempts the batch has become too large for one.
    Grown,
    /// It cannot be had at all.
    Impossible(String),
    /// The same, because something was lost that nobody heard of.
    Incomplete(String),
}

/// What is known of a batch when it was read.
pub(super) struct Reading<'a> {
    pub snapshot: Snapshot,
    pub how: How,
    /// What was heard by the time that it was read.
    pub heard: HashSet<Vec<u8>>,
    /// Values that were not read again, because nobody called a command that changes them unheard,
    /// may have been changed by one after all.
    pub doubted: bool,
    pub given: Option<&'a Given>,
    pub looks_refused: bool,
}

/// Whether what was read proves anything.
#[derive(Debug, Default)]
enum Proof {
    #[default]
    None,
    /// The whole batch was found exact.
    Exact {
        /// To be given, after what left the batch.
        batch: VecDeque<Shown>,
        /// What was heard while it was proved: some of it may have changed after it.
        heard_since: HashSet<Vec<u8>>,
    },
}

/// The attempts so far.
#[derive(Debug, Default)]
pub(super) struct FinalRound {
    history: VecDeque<HashSet<Vec<u8>>>,
    /// Names that are in every batch.
    always: HashSet<Vec<u8>>,
    /// Streams that changed unheard: (database, name).
    streams: HashSet<(u32, Vec<u8>)>,
    /// What left the batch, as it was then: to be given.
    left: VecDeque<Shown>,
    proof: Proof,
    attempts: u32,
    /// How long the last attempt kept the source busy.
    took: Duration,
}

impl FinalRound {
    /// `always` are names that are in every batch.
    pub fn new(always: HashSet<Vec<u8>>) -> Self {
        Self {
            always,
            ..Self::default()
        }
    }

    /// The next that is ready to be given.
    pub fn next_ready(&mut self) -> Option<Shown> {
        let left = self.left.pop_front();
        left.or_else(|| match &mut self.proof {
            Proof::Exact { batch, .. } => batch.pop_front(),
            Proof::None => None,
        })
    }

    /// Whether what was given, when all that is ready is given, is exact.
    pub fn is_proved(&self) -> bool {
        matches!(self.proof, Proof::Exact { .. })
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
        match self.proof {
            Proof::Exact { heard_since, .. } => heard_since,
            Proof::None => HashSet::default(),
        }
    }

    /// What was read could not be proved: it is read again. No name has left the batch, and what was
    /// heard meanwhile lies within it.
    pub fn forget_proof(&mut self) {
        self.proof = Proof::None;
    }

    /// These join the batch. None leaves it: that may only happen right after it was read.
    pub fn remember(&mut self, names: HashSet<Vec<u8>>) {
        if !names.is_empty() {
            self.history.push_back(names);
        }
    }

    /// Lets go of the names that were not heard of for long, and says which; to be called right after
    /// an EXEC, of which everything that leaves has to be given.
    fn forget_old(&mut self) -> Vec<HashSet<Vec<u8>>> {
        let old = self.history.len().saturating_sub(HISTORY);
        self.history.drain(..old).collect()
    }

    /// Another attempt begins.
    pub fn begin_attempt(&mut self) {
        self.attempts += 1;
    }

    /// Whether this is the first attempt.
    pub fn is_first_attempt(&self) -> bool {
        self.attempts <= 1
    }

    /// The attempt kept the source busy for this long.
    pub fn took(&mut self, took: Duration) {
        self.took = took;
    }

    /// How long the source is left to others before this attempt: for at least as long as the last
    /// one took of it. `pauses`: writes are held up meanwhile.
    pub fn rest(&self, pauses: bool) -> Option<Duration> {
        let rest = match pauses {
            _ if self.is_first_attempt() => return None,
            true => (self.took * 3).max(MIN_REST_BETWEEN_PAUSES),
            false if self.took >= NOTICEABLE => self.took,
            false => return None,
        };
        Some(rest.min(MAX_REST))
    }

    /// Whether a name is in the batch.
    fn has(&self, name: &[u8]) -> bool {
        let mut heard = self.history.iter();
        self.always.contains(name) || heard.any(|names| names.contains(name))
    }

    fn batch_names(&self) -> HashSet<&Vec<u8>> {
        self.history.iter().flatten().chain(&self.always).collect()
    }

    /// What is to be read of these databases. `guess_bytes` is what a value is likely to take.
    pub fn plan(
        &self,
        databases: &[Keyspace],
        given: &mut Given,
        evidence: &Evidence,
        guess_bytes: usize,
    ) -> Result<Plan> {
        let mut plan = Plan::default();
        let names = self.batch_names();
        for row in databases {
            let keys = plan.dump.entry(row.db).or_default();
            for name in &names {
                // What cannot be read would cost all the others the EXEC. It was named, and what was
                // given of it taken back.
                if !given.is_failing(row.db, name)? {
                    plan.bytes += given.bytes_of(row.db, name, guess_bytes);
                    keys.push((*name).clone());
                }
            }
        }
        for module in unheard::modules().filter(|module| given.has_values_of(module)) {
            match evidence.doubt(module) {
                None => plan.counted.push(module),
                Some(doubt) => plan.doubt = Some(doubt),
            }
        }
        for ((db, name), watched) in given.unheard() {
            if names.contains(name) {
                continue;
            }
            match &watched.how {
                Unheard::Looks(facts)
                    if !evidence.looks_refused()
                        && !self.streams.contains(&(*db, name.clone())) =>
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

    /// What the batch that was read proves.
    pub fn judge(&mut self, reading: Reading<'_>) -> Outcome {
        let Reading {
            snapshot, heard, ..
        } = reading;
        // Read command by command, its parts are of one instant only if nothing at all changed.
        let within = match reading.how {
            How::Plain => heard.is_empty(),
            How::Multi | How::Script(_) => heard.iter().all(|name| self.has(name)),
        };
        if within && snapshot.changed_streams.is_empty() && !reading.doubted {
            self.proof = Proof::Exact {
                batch: snapshot.keys.into(),
                heard_since: heard,
            };
            return Outcome::Exact {
                at_ms: snapshot.at_ms,
            };
        }
        self.streams.extend(snapshot.changed_streams);
        self.remember(heard);
        let forgotten = self.forget_old();
        // What leaves the batch was current at this EXEC, and nothing was heard of it since.
        let stays = self.batch_names();
        let leaves = |shown: &Shown| {
            if stays.contains(&shown.key) {
                return false;
            }
            let key = (shown.db, shown.key.clone());
            if self.streams.contains(&key) {
                return false;
            }
            match reading.given.and_then(|given| given.how_unheard(&key)) {
                Some(Unheard::Looks(_)) => !reading.looks_refused,
                Some(Unheard::Reads) => false,
                // It is not in every batch. What was heard of it has to be given.
                Some(Unheard::Counts(_)) => forgotten.iter().any(|names| names.contains(&key.1)),
                None => true,
            }
        };
        let leaving: Vec<Shown> = snapshot.keys.into_iter().filter(leaves).collect();
        self.leave(leaving);
        Outcome::Again
    }

    /// Between attempts under one pause after the other nothing is given: what is too much is read
    /// once more.
    fn leave(&mut self, leaving: Vec<Shown>) {
        self.left.extend(leaving);
        let bytes = |shown: &Shown| shown.had.bytes() + shown.key.len();
        let mut left_bytes: usize = self.left.iter().map(bytes).sum();
        while left_bytes > MAX_LEFT_BYTES
            && let Some(oldest) = self.left.pop_front()
        {
            left_bytes -= bytes(&oldest);
            self.always.insert(oldest.key);
        }
    }
}
