//! A source that was found by sentinels: whether it is still the one that they name.
//!
//! A planned failover leaves the old primary running, with its connections, for about ten seconds
//! after the sentinels named the next one. Who asks them writes to that one from then on, so that
//! silence at the old one is no rest, and what it holds is not the source any more.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::ConvergingSource;
use super::final_round::{LastRound, Outcome};
use crate::exit::Interrupted;
use crate::host;
use crate::server::sentinel::{self, AGREE_WITHIN, Standing};
use crate::stop::Stop;

/// While following, how long between two looks, at least.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks that take long are rarer: so many times as long as one takes.
const REST: u32 = 5;

/// How long to wait before they are asked again.
const STEP: Duration = Duration::from_millis(250);

/// What is known of the sentinels that found the source.
#[derive(Default)]
pub(super) struct Watch {
    asked: Option<Instant>,
    /// How long after that they are asked again.
    rest: Duration,
    /// It was said that none answers.
    warned: bool,
    disputed_since: Option<Instant>,
    /// They never agreed that the server that was read is the source.
    pub is_disputed: bool,
}

impl Watch {
    fn is_due(&self, at_once: bool) -> bool {
        let rest = if at_once { STEP } else { self.rest };
        self.asked.is_none_or(|asked| host::elapsed(asked) >= rest)
    }

    /// Whether they disagree, and may agree yet.
    pub fn is_open(&self) -> bool {
        let since = self.disputed_since;
        since.is_some_and(|since| host::elapsed(since) < AGREE_WITHIN)
    }
}

impl ConvergingSource {
    /// Asks the sentinels; `None` where none named the source, or none answers, which is warned of
    /// once.
    fn standing(&mut self) -> Option<Standing> {
        let began = host::now();
        let standing = sentinel::standing(&self.inner.conn, &self.connect)?;
        let watch = &mut self.watch;
        watch.asked = Some(host::now());
        watch.rest = LOOK_EVERY.max(host::elapsed(began) * REST);
        match &standing {
            Standing::Disputed(_) => {
                watch.disputed_since.get_or_insert(began);
            }
            _ => watch.disputed_since = None,
        }
        let Standing::Unknown(reason) = standing else {
            return Some(standing);
        };
        if !std::mem::replace(&mut watch.warned, true) {
            self.observer.warn(&format!(
                "no sentinel answers: whether another server has become the primary is not known \
                 ({reason})"
            ));
        }
        None
    }

    /// While following: asks the sentinels once in a while, and `at_once` before it ends. Where they
    /// name another primary it goes on there; `true` if so. Nothing is in flight.
    pub(super) fn follow_sentinels(&mut self, at_once: bool) -> Result<bool> {
        if !self.watch.is_due(at_once) {
            return Ok(false);
        }
        let Some(Standing::Replaced(by)) = self.standing() else {
            return Ok(false);
        };
        let lost = sentinel::replaced(&self.inner.conn, &by);
        self.inner.resume(lost.into())?;
        Ok(true)
    }
}

/// What becomes of a last round that was exact at the server that it was read from. To be asked after
/// it was read: whoever was named then was named at its moment too.
///
/// # Errors
/// [`crate::server::ServerError::Lost`] where they name another one; what follows from it is what follows from any
/// lost connection.
pub(super) fn is_still_named(
    round: &mut LastRound,
    source: &mut ConvergingSource,
    tried: Outcome,
) -> Result<Outcome> {
    let mut was_disputed = false;
    loop {
        match source.standing() {
            Some(Standing::Replaced(by)) => {
                return Err(sentinel::replaced(&source.inner.conn, &by).into());
            }
            Some(Standing::Disputed(_)) if source.watch.is_open() => was_disputed = true,
            Some(Standing::Disputed(by)) => {
                round.forget_shot();
                source.watch.is_disputed = true;
                return Ok(Outcome::Impossible(format!(
                    "the sentinels do not agree which server is the primary: {} was read, and at \
                     least one of them names {by}",
                    source.inner.conn.address()
                )));
            }
            _ if was_disputed => {
                round.forget_shot();
                return Ok(Outcome::Again);
            }
            _ => return Ok(tried),
        }
        if source.inner.stop().is_some_and(Stop::is_set) {
            return Err(Interrupted.into());
        }
        host::sleep(STEP);
    }
}
