//! How long a server is asked again that answers "not now" (BUSY, LOADING, CLUSTERDOWN …).
//!
//! Every such wait of the tool is one of these, and all of them derive from
//! [`crate::endpoint::ConnectOptions::retry_for`] (`--retry-for`). A wait begins with the first
//! answer of that kind and ends with progress, and with nothing less: another connection, or another
//! question that is answered in the same way, does not make it longer.

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

    fn lasts_within(&mut self, less: Duration, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        now.saturating_duration_since(since) < less.min(self.limit)
    }

    /// Something was got done: the next wait may take the whole time.
    pub fn progress(&mut self) {
        self.since = None;
    }

    /// Whether the server has said "not now", and nothing was got done since.
    pub fn is_tried(&self) -> bool {
        self.since.is_some()
    }

    /// How much of it is left.
    pub fn left(&self) -> Duration {
        self.limit.saturating_sub(self.waited_at(host::now()))
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
            return "not asked again (--retry-for 0)".to_owned();
        }
        format!(
            "asked again for {} (--retry-for)",
            duration_text(self.waited_at(now))
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_progress_begins_it_anew() {
        let mut patience = Patience::new(Duration::MAX);
        assert!(!patience.is_tried());
        assert!(patience.lasts() && patience.lasts());
        let began = patience.since;
        assert!(!patience.lasts_for(Duration::ZERO));
        assert_eq!(patience.since, began);
        patience.progress();
        assert!(!patience.is_tried());

        let mut none = Patience::new(Duration::ZERO);
        assert!(!none.lasts());
        assert_eq!(none.left(), Duration::ZERO);
        assert!(!none.lasts_for(Duration::MAX), "less, never more");
    }
}
