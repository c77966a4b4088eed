//! One instant for all shards: writes are held up everywhere, and what is left is read.
//!
//! A pause ends by itself after its time, measured from before it was asked for. All of them are
//! confirmed before anything is read, and none was over when everything had been read: so there was
//! a moment at which every shard was as it was read.

use super::*;
use crate::source::server::ConvergingSource;
use crate::source::server::converge::{Attempted, Pause, TogetherRound};

/// Writes go on for at least so long between two pauses.
const REST: Duration = Duration::from_millis(20);

impl ClusterSource {
    /// Tries until all shards were read at one instant: `true` if so, or if something has to be read
    /// outside of a pause first; `false` if it is not to be had.
    pub(super) fn pause_together(&mut self) -> Result<bool> {
        let since = *self.resting_since.get_or_insert_with(Instant::now);
        loop {
            let began = Instant::now();
            let mut sources: Vec<&mut ConvergingSource> =
                self.parts.iter_mut().filter_map(Part::converging).collect();
            if sources.iter().any(|source| source.has_missed()) {
                return Ok(false);
            }
            let mut rounds: Vec<TogetherRound> = sources
                .iter_mut()
                .map(|source| source.take_last())
                .collect();
            let pauses = match hold_all(&mut sources)? {
                Ok(pauses) => pauses,
                Err(text) => {
                    self.observer.warn(&format!(
                        "the source refuses CLIENT PAUSE … WRITE ({text}): each shard is read at an \
                         instant of its own"
                    ));
                    self.pause_missed = true;
                    return Ok(false);
                }
            };
            let attempts = attempt_all(&mut sources, &mut rounds, &pauses);
            let in_time = !pauses.iter().any(Pause::is_over);
            release_all(&mut sources, pauses);
            let attempts = attempts?;
            let exact = attempts.iter().all(|attempt| attempt.exact_at().is_some());
            // One clock is as good as another for a moment that all have in common.
            let moment = attempts.first().and_then(Attempted::exact_at);
            let common = moment.filter(|_| exact && in_time);
            for ((source, round), attempt) in sources.iter_mut().zip(rounds).zip(attempts) {
                source.settle_last(round, attempt, common)?;
            }
            self.common = common.is_some();
            if common.is_some() || sources.iter().any(|source| !source.is_at_last()) {
                return Ok(true);
            }
            if since.elapsed() > self.options.max_wait {
                self.give_up(&format!(
                    "in {} no pause was long enough to read what was left of all shards \
                     (--max-wait, --max-pause)",
                    humantime::format_duration(self.options.max_wait)
                ));
                return Ok(false);
            }
            self.rest((began.elapsed() * 3).clamp(REST, Duration::from_secs(1)))?;
        }
    }
}

/// Asks all, then waits for all. The inner `Err` is a refusal; then none is held.
fn hold_all(sources: &mut [&mut ConvergingSource]) -> Result<Result<Vec<Pause>, String>> {
    let mut asked = Vec::new();
    let mut failure = None;
    for source in sources.iter_mut() {
        match source.ask_pause() {
            Ok(pause) => asked.push(pause),
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    let mut held = Vec::new();
    let mut refusal = None;
    for (source, pause) in sources.iter_mut().zip(asked) {
        match pause.confirmed(source.conn()) {
            Ok(Ok(pause)) => held.push(pause),
            Ok(Err(text)) => {
                held.push(Pause::none());
                refusal = Some(text);
            }
            Err(error) => {
                held.push(Pause::none());
                failure = Some(error.into());
            }
        }
    }
    if failure.is_none() && refusal.is_none() {
        return Ok(Ok(held));
    }
    release_all(sources, held);
    match (failure, refusal) {
        (Some(error), _) => Err(error),
        (None, refusal) => Ok(Err(refusal.unwrap_or_default())),
    }
}

fn release_all(sources: &mut [&mut ConvergingSource], pauses: Vec<Pause>) {
    for (source, pause) in sources.iter_mut().zip(pauses) {
        source.end_pause(pause);
    }
}

/// All at the same time: what one of them takes all others are held up for. These threads live as
/// long as a pause, which no stage of the pipe must depend on: it may be full.
fn attempt_all(
    sources: &mut [&mut ConvergingSource],
    rounds: &mut [TogetherRound],
    pauses: &[Pause],
) -> Result<Vec<Attempted>> {
    let attempts: Vec<Result<Attempted>> = std::thread::scope(|scope| {
        let threads: Vec<_> = sources
            .iter_mut()
            .zip(rounds)
            .zip(pauses)
            .map(|((source, round), pause)| scope.spawn(move || round.attempt(source, pause)))
            .collect();
        threads
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(attempt) => attempt,
                Err(_) => Err(anyhow::anyhow!("a reading thread panicked; this is a bug")),
            })
            .collect()
    });
    attempts.into_iter().collect()
}
