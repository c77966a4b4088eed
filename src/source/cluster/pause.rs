//! One instant for all shards: writes are held up everywhere, and what is left is read.
//!
//! A pause ends by itself after its time, measured from before it was asked for. All of them are
//! confirmed before anything is read, and none was over when everything had been read: so there was
//! a moment at which every shard was as it was read.

use super::part::is_lost;
use super::*;
use crate::host;
use crate::source::server::ConvergingSource;
use crate::source::server::converge::{Attempted, Pause, TogetherRound};

/// Writes go on for at least so long between two pauses.
const REST: Duration = Duration::from_millis(20);

impl ClusterSource {
    /// Tries until all shards were read at one instant: `true` if so, or if something has to be read
    /// outside of a pause first; `false` if it is not to be had.
    pub(super) fn pause_together(&mut self) -> Result<bool> {
        let since = *self.resting_since.get_or_insert_with(host::now);
        loop {
            let began = host::now();
            let (at, mut sources): (Vec<usize>, Vec<&mut ConvergingSource>) = self
                .parts
                .iter_mut()
                .enumerate()
                .filter_map(|(at, part)| Some((at, part.converging()?)))
                .unzip();
            if sources.iter().any(|source| source.has_missed()) {
                return Ok(false);
            }
            let mut rounds: Vec<TogetherRound> = sources
                .iter_mut()
                .map(|source| source.take_last())
                .collect();
            let pauses = match hold_all(&mut sources) {
                Held::All(pauses) => pauses,
                Held::Refused(text) => {
                    put_back(sources, rounds);
                    self.observer.warn(&format!(
                        "the source refuses CLIENT PAUSE … WRITE ({text}): each shard is read at an \
                         instant of its own"
                    ));
                    self.pause_missed = true;
                    return Ok(false);
                }
                Held::Failed(failed, error) => {
                    put_back(sources, rounds);
                    return self.lose(at[failed], error);
                }
            };
            let attempts = attempt_all(&mut sources, &mut rounds, &pauses);
            // Anybody may end a pause (CLIENT UNPAUSE): then the shards are not of one instant.
            let unchanged = !sources.iter_mut().any(|source| source.has_heard());
            let in_time = unchanged && !pauses.iter().any(Pause::is_over);
            release_all(&mut sources, pauses);
            let attempts = look_again(&mut sources, &mut rounds, attempts);
            let exact_at = |attempt: &Result<Attempted>| attempt.as_ref().ok()?.exact_at();
            let exact = attempts.iter().all(|attempt| exact_at(attempt).is_some());
            // One clock is as good as another for a moment that all have in common.
            let moment = attempts.first().and_then(exact_at);
            let common = moment.filter(|_| exact && in_time);
            let mut failed = None;
            let rounds = sources.iter_mut().zip(rounds).zip(attempts);
            for (number, ((source, round), attempt)) in rounds.enumerate() {
                // What an attempt found out is not told again: it counts also if another failed.
                let settled = match attempt {
                    Ok(attempt) => source.settle_last(round, attempt, common),
                    Err(error) => {
                        source.put_back_last(round);
                        Err(error)
                    }
                };
                if let Err(error) = settled {
                    failed = Some((number, error));
                }
            }
            if let Some((number, error)) = failed {
                return self.lose(at[number], error);
            }
            self.common = common.is_some();
            if common.is_some() {
                return Ok(true);
            }
            if sources.iter().any(|source| !source.is_at_last()) {
                // The others wait for the next pause; alone they would try without one.
                for source in sources.into_iter().filter(|source| source.is_at_last()) {
                    source.more_rounds();
                }
                return Ok(true);
            }
            if host::elapsed(since) > self.options.max_wait {
                self.give_up(&format!(
                    "in {} no pause was long enough to read what was left of all shards \
                     (--max-wait, --max-pause)",
                    humantime::format_duration(self.options.max_wait)
                ));
                return Ok(false);
            }
            self.rest((host::elapsed(began) * 3).clamp(REST, Duration::from_secs(1)))?;
        }
    }

    /// A node was lost under way: somebody else has its slots, or will have. The others read on.
    fn lose(&mut self, at: usize, error: anyhow::Error) -> Result<bool> {
        if !is_lost(&error) {
            return Err(error);
        }
        if let Some(part) = self.parts.get_mut(at) {
            part.lost = Some(format!("{error:#}"));
        }
        for source in self.parts.iter_mut().filter_map(Part::converging) {
            source.more_rounds();
        }
        Ok(true)
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
    /// In a server's words; then none is held.
    Refused(String),
    /// By its place; then none is held.
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

/// All at the same time: what one of them takes all others are held up for. These threads live as
/// long as a pause, which no stage of the pipe must depend on: it may be full.
fn attempt_all(
    sources: &mut [&mut ConvergingSource],
    rounds: &mut [TogetherRound],
    pauses: &[Pause],
) -> Vec<Result<Attempted>> {
    let jobs = sources.iter_mut().zip(rounds).zip(pauses);
    let jobs = jobs
        .map(|((source, round), pause)| {
            let job: Box<dyn FnOnce() -> Result<Attempted> + Send + '_> =
                Box::new(move || round.attempt(source, pause));
            job
        })
        .collect();
    let panicked = || anyhow::anyhow!("a reading thread panicked; this is a bug");
    let attempts = host::all_at_once(jobs).into_iter();
    attempts
        .map(|attempt| attempt.unwrap_or_else(|| Err(panicked())))
        .collect()
}
