//! COUNT of SCAN: how many keys a page of names has.
//!
//! There is one SCAN per round trip, since each needs the cursor of the one before. Near by, the
//! values of a page take longer than that. Far away the round trip is all the time there is, and
//! only larger pages help.

use std::time::{Duration, Instant};

/// The largest page that is asked for of our own accord.
const LARGEST: u32 = 10_000;

/// Pages are smaller than this only where somebody asks for it.
const SMALLEST: u32 = 10;

/// A shorter round trip does not matter.
pub(in crate::source::server) const NEAR: Duration = Duration::from_millis(1);

/// How large pages are, and what is known about the time they take.
#[derive(Debug)]
pub(super) struct PageSize {
    asked: u32,
    count: u32,
    /// Of an idle connection; `None` where COUNT is not to change.
    round_trip: Option<Duration>,
    last_came: Option<Instant>,
}

impl PageSize {
    /// Always of this size.
    pub fn fixed(count: u32) -> Self {
        Self {
            asked: count,
            count,
            round_trip: None,
            last_came: None,
        }
    }

    /// Grows from now on, where this round trip is most of the time between two pages.
    pub fn adapt_to(&mut self, round_trip: Duration) {
        self.round_trip = Some(round_trip).filter(|round_trip| *round_trip >= NEAR);
        if self.round_trip.is_some() {
            // A server finds 1,000 names in less than a millisecond, so that this is not even a tenth
            // of the way.
            let keys = u32::try_from(round_trip.as_micros() / 10).unwrap_or(u32::MAX);
            self.count = self.count.max(keys.min(LARGEST));
        }
    }

    /// COUNT where so few keys may be under way.
    pub fn count_within(&self, window_keys: usize) -> u32 {
        let window = u32::try_from(window_keys).unwrap_or(u32::MAX);
        self.count.min(window.max(SMALLEST))
    }

    /// Whether it has grown, because the round trip is most of the time.
    pub fn is_far(&self) -> bool {
        self.count > self.asked
    }

    /// With fewer names than this that wait, the next page is asked for. Some three pages are all
    /// that is ever kept.
    pub fn names_ahead(&self) -> usize {
        match self.is_far() {
            // At once, as there is nothing else to wait for; a page has some names more than COUNT.
            true => 2 * self.count as usize,
            false => (self.count as usize).div_ceil(2),
        }
    }

    /// How many keys may be asked for and not answered: of large pages two, and what they have more
    /// than COUNT, so that the names of the second are asked for when they come.
    pub fn window_keys(&self) -> usize {
        match self.is_far() {
            true => 3 * self.count as usize,
            false => 2 * self.count as usize,
        }
    }

    /// Asks for fewer names from now on; whether that is possible.
    pub fn shrink(&mut self) -> bool {
        self.round_trip = None;
        let count = (self.count / 2).max(SMALLEST);
        std::mem::replace(&mut self.count, count) > count
    }

    /// A page came at this moment.
    pub fn came(&mut self, now: Instant) {
        let Some(round_trip) = self.round_trip else {
            return;
        };
        let cycle = self.last_came.replace(now).map(|last| now - last);
        if cycle.is_some_and(|cycle| cycle < 2 * round_trip) {
            self.count = self.count.saturating_mul(2).min(LARGEST.max(self.asked));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_grow_only_far_away() {
        let now = Instant::now();
        let mut near = PageSize::fixed(1_000);
        near.adapt_to(Duration::from_micros(50));
        let mut far = PageSize::fixed(1_000);
        far.adapt_to(Duration::from_secs(3_600));
        for _ in 0..10 {
            near.came(now);
            far.came(now);
        }
        assert_eq!((near.count, far.count), (1_000, 10_000));
        assert_eq!(far.count_within(64), 64);
        assert_eq!(far.count_within(1), 10);
    }
}
