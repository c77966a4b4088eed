//! How much may be asked for and not answered. It is counted in bytes, guessed from what replies
//! taught, so that a run of large values never piles up in the server's output buffer.

use std::time::{Duration, Instant};

use super::page_size::PageSize;
use super::squeeze::{Consequence, Load, Squeeze};

/// Keys in one MULTI.
const GROUP_KEYS: usize = 16;

/// Bytes of replies that may be on their way.
const WINDOW_BYTES: usize = 4 * 1024 * 1024;

/// The same where a round trip is most of the time: what is under way is not in memory, but in the
/// server's buffers and on the line.
const FAR_WINDOW_BYTES: usize = 16 * 1024 * 1024;

/// What a reply is taken to be before any was seen.
const FIRST_GUESS_BYTES: usize = 64 * 1024;

/// A reply from which on the window falls at once instead of by and by.
const LARGE_REPLY_BYTES: usize = 64 * 1024;

/// What others may want of the server and of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::source::server) struct Limits {
    /// Keys under way at once.
    pub keys: usize,
    /// Bytes of values under way at once.
    pub bytes: usize,
}

impl Limits {
    pub const NONE: Self = Self {
        keys: usize::MAX,
        bytes: usize::MAX,
    };
}

/// How much may be under way.
#[derive(Debug)]
pub(super) struct Window {
    guess_bytes: usize,
    /// Where the server ends connections of which too much is asked at once.
    squeeze: Squeeze,
    page: PageSize,
    limits: Limits,
}

impl Window {
    pub fn new(scan_count: u32) -> Self {
        Self {
            guess_bytes: FIRST_GUESS_BYTES,
            squeeze: Squeeze::default(),
            page: PageSize::fixed(scan_count),
            limits: Limits::NONE,
        }
    }

    pub fn limit(&mut self, limits: Limits) {
        self.limits = limits;
    }

    pub fn adapt_to(&mut self, round_trip: Duration) {
        self.page.adapt_to(round_trip);
    }

    /// What a value is likely to take.
    pub fn guess_bytes(&self) -> usize {
        self.guess_bytes
    }

    /// How many keys may be asked for and not answered.
    pub fn keys(&self) -> usize {
        let window_bytes = match self.page.is_far() {
            true => FAR_WINDOW_BYTES,
            false => WINDOW_BYTES,
        };
        let keys = window_bytes.min(self.limits.bytes) / self.guess_bytes.max(1);
        let most_keys = self.limits.keys.min(self.page.window_keys());
        keys.clamp(1, self.squeeze.most_keys(most_keys).max(1))
    }

    /// How many keys may be in one MULTI.
    pub fn group_keys(&self) -> usize {
        self.limits.keys.min(GROUP_KEYS)
    }

    /// COUNT of the next SCAN.
    pub fn scan_count(&self) -> u32 {
        self.page.count_within(self.limits.keys)
    }

    /// With fewer names than this that wait, the next page is asked for.
    pub fn names_ahead(&self) -> usize {
        self.page.names_ahead()
    }

    /// Whether a round trip is most of the time.
    pub fn is_far(&self) -> bool {
        self.page.is_far()
    }

    pub fn page_came(&mut self, now: Instant) {
        self.page.came(now);
    }

    /// A key came, and its reply took about so many bytes: up at once, down by and by.
    pub fn key_came(&mut self, reply_bytes: Option<usize>) {
        self.squeeze.came();
        let Some(bytes) = reply_bytes else { return };
        self.guess_bytes = if bytes >= LARGE_REPLY_BYTES && bytes > self.guess_bytes {
            bytes
        } else {
            (self.guess_bytes * 15 + bytes) / 16
        };
    }

    /// The connection was lost; see [`Squeeze::lost`].
    pub fn lost(&mut self, ended: Option<Load<'_>>) -> Consequence {
        match self.squeeze.lost(ended) {
            Consequence::SmallerPages if !self.page.shrink() => Consequence::Nothing,
            consequence => consequence,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_large_value_narrows_the_window_at_once_and_small_ones_widen_it_by_and_by() {
        let mut window = Window::new(1_000);
        assert_eq!(window.keys(), 64);
        window.key_came(Some(8 * 1024 * 1024));
        assert_eq!(window.keys(), 1, "never none");
        window.key_came(None);
        assert_eq!(window.guess_bytes(), 8 * 1024 * 1024);
        for _ in 0..200 {
            window.key_came(Some(100));
        }
        assert_eq!(window.keys(), 2_000, "two pages");
        window.limit(Limits {
            keys: 3,
            bytes: usize::MAX,
        });
        assert_eq!((window.keys(), window.group_keys()), (3, 3));
        assert_eq!(window.scan_count(), 10);
        window.limit(Limits {
            keys: 50,
            bytes: 300,
        });
        let few = 1..=3;
        assert!(few.contains(&window.keys()), "{}", window.keys());
    }

    #[test]
    fn pages_that_cannot_shrink_any_more_change_nothing() {
        let mut window = Window::new(20);
        assert_eq!(window.lost(Some(Load::Page)), Consequence::SmallerPages);
        assert_eq!(window.scan_count(), 10);
        assert_eq!(window.lost(Some(Load::Page)), Consequence::Nothing);
    }
}
