//! One instant for all shards: writes are paused everywhere, and what is left is read.
//!
//! A pause ends by itself after its time, measured from before it was asked for. All pauses are
//! confirmed before anything is read, and none has ended when everything has been read: so there was
//! a moment at which every shard was exactly as it was read.

use anyhow::Result;

use super::part::is_lost;
use super::parts::Parts;
use super::stages::{Concluded, Event, Paused};
use crate::host;
use crate::source::server::ConvergingSource;
use crate::source::server::converge::{Attempted, Pause, TogetherRound};

/// The last rounds of all shards, taken out of them for an attempt that they make together. Only
/// [`InPause::conclude`] gives them back.
#[must_use]
pub(super) struct InPause {
    /// The places of the parts, in the order of all that follows.
    at: Vec<usize>,
    rounds: Vec<TogetherRound>,
    pauses: Vec<Pause>,
    attempts: Vec<Result<Attempted>>,
}

/// Pauses all shards. Where one of them cannot be paused, none is, and no round is taken.
///
/// # Errors
/// What a node refuses, other than to pause.
pub(super) fn pause_all(parts: &mut Parts) -> Result<(Paused, Option<InPause>)> {
    let (at, mut sources) = parts.converging_at();
    if sources.iter().any(|source| source.has_missed()) {
        return Ok((Paused::InVain, None));
    }
    let rounds: Vec<TogetherRound> = sources
        .iter_mut()
        .map(|source| source.take_last())
        .collect();
    match hold_all(&mut sources) {
        Held::All(pauses) => {
            let in_pause = InPause {
                at,
                rounds,
                pauses,
                attempts: Vec::new(),
            };
            Ok((Paused::Held, Some(in_pause)))
        }
        Held::Refused(text) => {
            put_back(sources, rounds);
            Ok((Paused::Refused(text), None))
        }
        Held::Failed(failed, error) => {
            put_back(sources, rounds);
            parts.lose(at[failed], error)?;
            Ok((Paused::Lost, None))
        }
    }
}

impl InPause {
    /// Reads the last round of all shards, and lets writes go on, whatever came of it.
    pub fn attempt(&mut self, parts: &mut Parts) -> Event {
        let (_, mut sources) = parts.converging_at();
        let attempts = attempt_all(&mut sources, &mut self.rounds, &self.pauses);
        // Anybody may end a pause (CLIENT UNPAUSE): then the shards have no instant in common.
        let unchanged = !sources.iter_mut().any(|source| source.has_heard());
        let in_time = unchanged && !self.pauses.iter().any(Pause::is_over);
        release_all(&mut sources, std::mem::take(&mut self.pauses));
        self.attempts = look_again(&mut sources, &mut self.rounds, attempts);
        let exact_at = |attempt: &Result<Attempted>| attempt.as_ref().ok()?.exact_at();
        Event::Attempted {
            exact: self.attempts.iter().map(exact_at).collect(),
            in_time,
        }
    }

    /// Gives the rounds back with their results; `common` is the moment that all have in common.
    ///
    /// # Errors
    /// Of an attempt, other than that a node was lost.
    pub fn conclude(self, parts: &mut Parts, common: Option<u64>) -> Result<Concluded> {
        let (_, sources) = parts.converging_at();
        let mut failed = None;
        let rounds = sources.into_iter().zip(self.rounds).zip(self.attempts);
        for (number, ((source, round), attempt)) in rounds.enumerate() {
            // Names that an attempt learned are not told again, so it counts even if another failed.
            let concluded = match attempt {
                Ok(attempt) => source.settle_last(round, attempt, common),
                Err(error) => {
                    source.put_back_last(round);
                    Err(error)
                }
            };
            if let Err(error) = concluded {
                // A fatal error must not be hidden by a lost node.
                let hides = failed
                    .as_ref()
                    .is_some_and(|(_, before)| !is_lost(before) && is_lost(&error));
                if !hides {
                    failed = Some((number, error));
                }
            }
        }
        if let Some((number, error)) = failed {
            parts.lose(self.at[number], error)?;
            return Ok(Concluded::Lost);
        }
        let can_repeat = parts.converging().all(|source| source.is_at_last());
        Ok(match can_repeat {
            true => Concluded::CanRepeat,
            false => Concluded::NeedsRounds,
        })
    }
}

fn put_back(sources: Vec<&mut ConvergingSource>, rounds: Vec<TogetherRound>) {
    for (source, round) in sources.into_iter().zip(rounds) {
        source.put_back_last(round);
    }
}

/// What came of asking all for a pause.
enum Held {
    All(Vec<Pause>),
    /// The server's words; then none is held.
    Refused(String),
    /// The place of the shard, and its error; then none is held.
    Failed(usize, anyhow::Error),
}

/// Asks all, then waits for all.
fn hold_all(sources: &mut [&mut ConvergingSource]) -> Held {
    let mut failed = None;
    let mut asked = Vec::new();
    for (number, source) in sources.iter_mut().enumerate() {
        match source.ask_pause() {
            Ok(pause) => asked.push(pause),
            Err(error) => {
                failed = Some(Held::Failed(number, error));
                break;
            }
        }
    }
    let mut held = Vec::new();
    for (number, (source, pause)) in sources.iter_mut().zip(asked).enumerate() {
        match pause.confirmed(source.conn()) {
            Ok(Ok(pause)) => held.push(pause),
            Ok(Err(text)) => {
                held.push(Pause::none());
                failed.get_or_insert(Held::Refused(text));
            }
            Err(error) => {
                held.push(Pause::none());
                failed = Some(Held::Failed(number, error.into()));
            }
        }
    }
    match failed {
        None => Held::All(held),
        Some(failed) => {
            release_all(sources, held);
            failed
        }
    }
}

fn release_all(sources: &mut [&mut ConvergingSource], pauses: Vec<Pause>) {
    for (source, pause) in sources.iter_mut().zip(pauses) {
        source.end_pause(pause);
    }
}

fn look_again(
    sources: &mut [&mut ConvergingSource],
    rounds: &mut [TogetherRound],
    attempts: Vec<Result<Attempted>>,
) -> Vec<Result<Attempted>> {
    let rounds = sources.iter_mut().zip(rounds).zip(attempts);
    rounds
        .map(|((source, round), attempt)| round.look_again(source, attempt?))
        .collect()
}

/// All at the same time, since writes everywhere wait for the slowest. These threads never wait for
/// the pipe, which may be full.
fn attempt_all(
    sources: &mut [&mut ConvergingSource],
    rounds: &mut [TogetherRound],
    pauses: &[Pause],
) -> Vec<Result<Attempted>> {
    let jobs = sources.iter_mut().zip(rounds).zip(pauses);
    let jobs = jobs.map(|((source, round), pause)| {
        let attempt = move || round.attempt(source, pause);
        Box::new(attempt) as Box<dyn FnOnce() -> Result<Attempted> + Send + '_>
    });
    let attempts = host::all_at_once(jobs.collect());
    let panicked = || Err(anyhow::anyhow!("a reading thread panicked; this is a bug"));
    attempts
        .into_iter()
        .map(|attempt| attempt.unwrap_or_else(panicked))
        .collect()
}
