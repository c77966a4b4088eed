//! When a place to go on from is made.
//!
//! Now and then no further names are asked for until every name that SCAN gave was read and given.
//! Then the next cursor, and what became of all that came before it, is the whole state. That costs
//! a few round trips, and is not done more often than they matter.

use std::time::{Duration, Instant};

/// How often at most.
const EVERY: Duration = Duration::from_millis(250);

/// How seldom at most: so much is done again after a stop.
const SELDOM: Duration = Duration::from_secs(5);

/// Draining takes at most one part in so many of the time.
const SHARE: u32 = 20;

/// When the next is due.
#[derive(Debug)]
pub(super) enum Drain {
    /// Nobody keeps such places.
    Never,
    /// Not before this moment.
    Due(Instant),
    /// Since this moment no names are asked for.
    Draining(Instant),
}

impl Drain {
    pub fn from(now: Instant) -> Self {
        Self::Due(now + EVERY)
    }

    /// Begins to drain if that is due.
    pub fn begin(&mut self, now: Instant) {
        if let Self::Due(at) = self
            && now >= *at
        {
            *self = Self::Draining(now);
        }
    }

    pub fn is_draining(&self) -> bool {
        matches!(self, Self::Draining(_))
    }

    /// All was read; whether that makes a place to go on from.
    pub fn end(&mut self, now: Instant) -> bool {
        let Self::Draining(since) = self else {
            return false;
        };
        let took = now.saturating_duration_since(*since);
        *self = Self::Due(now + (took * SHARE).clamp(EVERY, SELDOM));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_it_takes_the_rarer_it_is_done() {
        let start = Instant::now();
        let mut never = Drain::Never;
        never.begin(start + SELDOM);
        assert!(!never.is_draining() && !never.end(start));
        let mut drain = Drain::from(start);
        drain.begin(start);
        assert!(!drain.is_draining() && !drain.end(start));
        let mut now = start;
        for (took_ms, rest_ms) in [(0, 250), (100, 2_000), (10_000, 5_000)] {
            now += SELDOM;
            drain.begin(now);
            assert!(drain.is_draining());
            now += Duration::from_millis(took_ms);
            assert!(drain.end(now));
            let rest = Duration::from_millis(rest_ms);
            drain.begin(now + rest - Duration::from_millis(1));
            assert!(!drain.is_draining(), "{took_ms}");
            drain.begin(now + rest);
            assert!(drain.is_draining(), "{took_ms}");
            assert!(drain.end(now + rest));
        }
    }
}
