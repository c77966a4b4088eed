//! How long a server is asked again that answers "not now" (BUSY, LOADING, CLUSTERDOWN …).
//!
//! Every such wait of the tool is one of these, and all of them derive from
//! [`crate::endpoint::ConnectOptions::retry_for`] (`--retry-for`). A wait begins with the first
//! answer of that kind and ends with progress, and with nothing less: another connection, or another
//! question that is answered in the same way, does not make it longer.
//!
//! What ends with `_at` is told the time, for values that read no clock.

use std::time::{Duration, Instant};

use crate::host;
use crate::units::duration_text;

/// How often a server is asked meanwhile.
pub const STEP: Duration = Duration::from_millis(100);

/// One wait.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    limit: Duration,
    since: Option<Instant>,
}

impl Patience {
    /// Nothing is waited for yet; at most `limit` will be.
    pub fn new(limit: Duration) -> Self {
        Self { limit, since: None }
    }

    /// The longest that it may take.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// The server answered that it cannot just now: whether it may be asked again.
    pub fn lasts(&mut self) -> bool {
        self.lasts_at(host::now())
    }

    /// The same, at this time.
    pub fn lasts_at(&mut self, now: Instant) -> bool {
        self.lasts_within(self.limit, now)
    }

    /// The same, where there is a reason to wait for less.
    pub fn lasts_for(&mut self, less: Duration) -> bool {
        self.lasts_within(less, host::now())
    }

    /// The same, where there is a reason to wait for less, at this time.
    pub fn lasts_within(&mut self, less: Duration, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        now.saturating_duration_since(since) < less.min(self.limit)
    }

    /// There was progress: the next wait may take the whole time.
    pub fn progress(&mut self) {
        self.since = None;
    }

    /// Whether the server has said "not now", and there was no progress since.
    pub fn is_tried(&self) -> bool {
        self.since.is_some()
    }

    /// How much of it is left.
    pub fn left(&self) -> Duration {
        self.left_at(host::now())
    }

    /// The same, at this time.
    pub fn left_at(&self, now: Instant) -> Duration {
        self.limit.saturating_sub(self.waited_at(now))
    }

    fn waited_at(&self, now: Instant) -> Duration {
        self.since
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// How long was waited, for messages: `asked again for 2m (--retry-for)`.
    pub fn told(&self) -> String {
        self.told_at(host::now())
    }

    /// The same, at this time.
    pub fn told_at(&self, now: Instant) -> String {
        if self.limit.is_zero() {
            return "not retried (--retry-for 0)".to_owned();
        }
        format!(
            "retried for {} (--retry-for)",
            duration_text(self.waited_at(now))
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn only_progress_begins_it_anew() {
        let began = host::now();
        let at = |secs| began + Duration::from_secs(secs);
        let mut patience = Patience::new(LIMIT);
        assert!(!patience.is_tried());
        assert!(patience.lasts_at(began) && patience.lasts_at(at(9)));
        assert!(patience.is_tried());
        assert!(!patience.lasts_at(at(10)));
        assert_eq!(patience.told_at(at(10)), "retried for 10s (--retry-for)");
        assert!(
            !patience.lasts_at(at(11)),
            "it does not begin again by itself"
        );

        patience.progress();
        assert!(!patience.is_tried());
        assert!(patience.lasts_at(at(20)) && patience.lasts_at(at(29)));
        assert!(!patience.lasts_at(at(30)));
    }

    #[test]
    fn it_may_last_less_and_never_more() {
        let mut patience = Patience::new(LIMIT);
        assert_eq!(patience.left(), LIMIT);
        assert!(!patience.lasts_for(Duration::ZERO));
        assert!(patience.lasts_for(Duration::MAX));

        let mut none = Patience::new(Duration::ZERO);
        assert!(!none.lasts());
        assert_eq!(none.left(), Duration::ZERO);
        assert!(!none.lasts_for(Duration::MAX));
        assert_eq!(none.told(), "not retried (--retry-for 0)");
    }
}
