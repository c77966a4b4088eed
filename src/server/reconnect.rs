//! Reconnecting after a connection was lost: a bounded number of times, with exponential backoff and
//! jitter, so that many clients do not come back at the same moment.

use std::time::Duration;

use super::{Conn, ServerError};
use crate::endpoint::ConnectOptions;
use crate::host;

/// The first wait.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How often connecting may still be tried, and how long to wait before each try.
#[derive(Debug, Clone)]
pub struct Retries {
    allowed: u32,
    left: u32,
}

impl Retries {
    /// As many in a row as `options` allow.
    pub fn new(options: &ConnectOptions) -> Self {
        Self {
            allowed: options.retries,
            left: options.retries,
        }
    }

    /// There was progress: after the next loss it may be tried as often again.
    pub fn succeeded(&mut self) {
        self.left = self.allowed;
    }

    /// The next try is made in another way, and does not count.
    pub fn once_more(&mut self) {
        self.left = (self.left + 1).min(self.allowed);
    }

    /// Connects again. `lost` is why; it is returned where no more may be tried. Errors of
    /// authentication and what a server refuses are final at once.
    ///
    /// # Errors
    /// `lost`, or what the last attempt said.
    pub fn connect(
        &mut self,
        options: &ConnectOptions,
        lost: ServerError,
        stop: &dyn Fn() -> bool,
    ) -> Result<Conn, ServerError> {
        let mut last = lost;
        while let Some(wait) = self.after(&last, host::random()) {
            if !host::wait(wait, stop) {
                return Err(last);
            }
            match Conn::open(options) {
                Ok(conn) => return Ok(conn),
                Err(error) => {
                    self.failed(&error);
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// How long to wait before the next try, which this allows; `None` where there is to be none
    /// after such an error.
    pub fn after(&mut self, error: &ServerError, random: u64) -> Option<Duration> {
        match error.is_passing() {
            true => self.next(random),
            false => None,
        }
    }

    /// How long to wait before the next try, whatever the error was; `None` where there is to be none.
    pub fn next(&mut self, random: u64) -> Option<Duration> {
        if self.left == 0 {
            return None;
        }
        let wait = backoff(self.allowed - self.left, random);
        self.left -= 1;
        Some(wait)
    }

    /// Another try failed.
    pub fn failed(&mut self, error: &ServerError) {
        if error.is_loading_for_long() {
            // The next connection would wait as long once more.
            self.left = 0;
        }
    }
}

/// The wait after so many tries: twice as long each time, between half of that and the whole of it.
fn backoff(tries: u32, random: u64) -> Duration {
    let whole = FIRST_WAIT
        .saturating_mul(1 << tries.min(16))
        .min(LONGEST_WAIT);
    let half_ms = u64::try_from(whole.as_millis() / 2).unwrap_or(0);
    Duration::from_millis(half_ms + random % (half_ms + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRIES: u32 = 12;

    fn retries() -> Retries {
        Retries {
            allowed: RETRIES,
            left: RETRIES,
        }
    }

    fn unreachable(reason: &str) -> ServerError {
        ServerError::Connect {
            address: "h".to_owned(),
            reason: reason.to_owned(),
        }
    }

    #[test]
    fn waits_double_up_to_a_limit_whatever_the_chance() {
        for random in [0, 1, 49, 12_345, u64::MAX] {
            for tries in 0..40 {
                let wait = backoff(tries, random);
                let whole = Duration::from_millis(100 << tries.min(7)).min(LONGEST_WAIT);
                assert!(wait >= whole / 2 && wait <= whole, "{tries}: {wait:?}");
            }
        }
        assert_eq!(backoff(0, 0), FIRST_WAIT / 2);
        assert_eq!(backoff(0, 50), FIRST_WAIT);
        assert_eq!(backoff(7, 5_000), LONGEST_WAIT);
    }

    #[test]
    fn only_progress_allows_as_many_tries_again() {
        let lost = unreachable("refused");
        let mut retries = retries();
        let mut waits = Vec::new();
        while let Some(wait) = retries.after(&lost, 0) {
            retries.failed(&lost);
            waits.push(wait);
        }
        assert_eq!(waits.len(), RETRIES as usize);
        assert!(waits.is_sorted() && waits.last() == Some(&(LONGEST_WAIT / 2)));
        retries.once_more();
        assert!(retries.after(&lost, 0).is_some());
        assert!(retries.after(&lost, 0).is_none());
        retries.succeeded();
        assert_eq!(retries.after(&lost, 0), Some(FIRST_WAIT / 2));
        retries.succeeded();
        retries.once_more();
        assert_eq!(retries.left, RETRIES, "never more than allowed");
    }

    #[test]
    fn what_will_not_pass_is_final() {
        let auth = ServerError::Auth {
            address: "h".to_owned(),
            reason: "WRONGPASS".to_owned(),
        };
        assert_eq!(retries().after(&auth, 0), None);
        // A server that loads may be waited for once, not by each new connection.
        let mut retries = retries();
        let loading = unreachable("LOADING it");
        assert!(retries.after(&loading, 0).is_some());
        retries.failed(&loading);
        assert_eq!(retries.after(&loading, 0), None);
    }
}
