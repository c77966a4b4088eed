//! The end: attempts at the last round until one is exact, or until it is said why none is.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::final_round::{LastRound, Outcome, Pending};
use super::{ConvergingSource, Phase};
use crate::host;
use crate::ledger::ConsistencyReached;
use crate::policy::Consistency;
use crate::record::{Batch, Record};
use crate::server::ServerError;
use crate::server::counts::CommandCounts;
use crate::server::facts::Facts;
use crate::source::server::delivered::Given;
use crate::source::server::{ServerSource, probe};

/// How often a batch may hold something that is refused.
const MAX_REFUSALS: u32 = 3;

/// The longest that the rounds after the scan may take, where nobody says.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// And where exactness is only welcome: as long as the scan, but at least so long.
const MIN_WAIT: Duration = Duration::from_secs(10);

impl ConvergingSource {
    /// The longest that the rounds may take.
    fn max_wait(&self, rounds_began: Instant) -> Duration {
        let usual = || match self.options.consistency {
            Consistency::Auto if self.options.follow.is_none() => {
                (rounds_began - self.began).clamp(MIN_WAIT, MAX_WAIT)
            }
            _ => MAX_WAIT,
        };
        self.options.max_wait.unwrap_or_else(usual)
    }

    pub(super) fn last_round(&mut self, mut round: LastRound, batch: &mut Batch) -> Result<()> {
        match round.pending(self, batch)? {
            Pending::More => {
                self.phase = Phase::Last(round);
                return Ok(());
            }
            Pending::Exact => {
                // In a cluster there may be another last round, at a later instant.
                self.postponed.extend(round.into_heard_since());
                return self.end(batch);
            }
            Pending::Nothing => {}
        }
        let began = *self.rounds_began.get_or_insert_with(host::now);
        let max_wait = self.max_wait(began);
        if self.missed.is_none() && host::elapsed(began) > max_wait {
            self.miss(format!(
                "keys kept changing for {} (--max-wait)",
                humantime::format_duration(Duration::from_secs(max_wait.as_secs()))
            ));
        }
        if self.missed.is_some() {
            self.tracker.barrier();
            let mut names = round.into_names();
            names.extend(self.heard().names);
            names.extend(self.inner.given.iter().flat_map(Given::to_read_again));
            self.reread(names);
            self.phase = Phase::Farewell;
            return Ok(());
        }
        let outcome = match round.attempt(self) {
            Err(error) if self.inner.may_resume(&error) => {
                self.inner.resume(error)?;
                // As long as changes were listened to all the time, nothing else is lost.
                round.forget_shot();
                Outcome::Grown
            }
            outcome => outcome?,
        };
        self.after_attempt(round, outcome)
    }

    /// What follows from an attempt at the last round.
    pub(super) fn after_attempt(&mut self, round: LastRound, outcome: Outcome) -> Result<()> {
        match outcome {
            Outcome::Exact { at_ms } => {
                self.reached = Some(ConsistencyReached::Exact(vec![(0, at_ms)]));
                self.phase = Phase::Last(round);
            }
            Outcome::Again => self.phase = Phase::Last(round),
            Outcome::Rescan(reason) => {
                if !self.restart(&reason)? {
                    self.phase = Phase::Last(round);
                }
            }
            Outcome::Grown => self.back_to_rounds(round),
            Outcome::Databases(rows) => {
                self.add_databases(rows);
                self.back_to_rounds(round);
            }
            Outcome::Alone(reason) if self.is_elsewhere(&reason) => {
                self.phase = Phase::Last(round);
                self.postpone_last();
            }
            Outcome::Alone(reason) => {
                self.refusals += 1;
                if self.refusals > MAX_REFUSALS {
                    self.miss(format!("the last round is refused: {reason}"));
                    self.phase = Phase::Last(round);
                } else {
                    self.back_to_rounds(round);
                }
            }
            Outcome::Impossible(reason) => {
                self.miss(reason);
                self.phase = Phase::Last(round);
            }
        }
        Ok(())
    }

    /// What the last round would have read is read outside of it first.
    fn back_to_rounds(&mut self, round: LastRound) {
        let names = round.into_names();
        self.reread(names);
        self.phase = Phase::Rounds {
            left: 1,
            last_names: usize::MAX,
        };
    }

    /// Not exact, and read once more: says what is known.
    pub(super) fn farewell(&mut self, batch: &mut Batch) -> Result<()> {
        let (from_ms, to_ms) = (self.inner.from_ms, self.inner.clock.now_ms());
        self.tracker.barrier();
        // Nobody looked since exactness was given up.
        if self.counts.is_some() {
            let now = self.inner.ask(|conn| Ok(CommandCounts::ask(conn)?))?;
            self.lost_track |= self.counted(now).is_some();
        }
        if self.swapped {
            self.inner.swapped_meanwhile();
        }
        self.look_at_link()?;
        if self.functions_by.is_some() {
            // In an exact end they come with the last round.
            let wish = self.inner.options.functions;
            let conn = &mut self.inner.conn;
            let libraries = probe::function_dump(conn, wish, &self.inner.facts)?;
            // It gave them when the reading began: a refusal now leaves out what is known to be there.
            if let Some(reason) = libraries.unknown() {
                self.inner.libraries_unread(reason);
            }
            self.functions = libraries.payload;
        }
        // Not every change was heard of.
        let forgot_some = Given::forgot_unheard;
        let missed_some = self.lost_track
            || self.blind.is_some()
            || self.inner.given.as_ref().is_some_and(forgot_some);
        self.reached = Some(match self.tracker.waiting() {
            _ if missed_some => ConsistencyReached::Scan { from_ms, to_ms },
            (_, true) => ConsistencyReached::Scan { from_ms, to_ms },
            (0, false) => ConsistencyReached::PerKey { from_ms, to_ms },
            (keys, false) => ConsistencyReached::Changing {
                from_ms,
                to_ms,
                keys: keys as u64,
            },
        });
        self.end(batch)
    }

    /// A replica that no longer hears of its primary tells no changes, and lacks them.
    fn look_at_link(&mut self) -> Result<()> {
        if self.inner.facts.replica && !self.lost_track {
            let facts = self.inner.ask(|conn| Ok(Facts::ask(conn)?))?;
            self.lost_track = !facts.knows_role || facts.out_of_step.is_some();
        }
        Ok(())
    }

    /// The functions, as they are now.
    fn end(&mut self, batch: &mut Batch) -> Result<()> {
        if let Some(payload) = self.functions.take() {
            self.inner.functions_given += 1;
            batch.push(Record::Functions(payload));
        }
        self.phase = Phase::Done;
        Ok(())
    }

    pub(super) fn miss(&mut self, reason: String) {
        if self.missed.is_none() {
            self.observer.warn(&format!("not exact: {reason}"));
            self.missed = Some(reason);
        }
    }
}

/// What nobody would hear of: databases that are swapped, and keys in databases that had none. INFO
/// tells of both; a server with a single database has neither.
pub(super) fn blindness(
    inner: &mut ServerSource,
    tells_counts: bool,
) -> Result<Option<&'static str>, ServerError> {
    let knows_databases = inner.facts.keyspace.is_some() || !inner.options.selection.dbs.is_empty();
    if tells_counts && knows_databases {
        return Ok(None);
    }
    let has_another = match inner.conn.select(1)? {
        Ok(()) => true,
        // What is refused to us may be there for others: only these words prove that it is not.
        Err(text) => {
            // Back to database 0; where SELECT is not to be had, by a new connection.
            if inner.conn.select(0)?.is_err() {
                inner.conn.renew()?;
            }
            !["out of range", "invalid DB index", "cluster mode"]
                .iter()
                .any(|words| text.contains(words))
        }
    };
    Ok(has_another.then_some(
        "the source does not answer INFO, so that databases which were swapped, or had no keys \
         before, would go unnoticed",
    ))
}
