//! Connecting again after a connection was lost: a bounded number of times, each after a longer
//! wait, with some chance in it so that many clients do not come back at the same moment.

use std::time::Duration;

use super::{Conn, ServerError};
use crate::endpoint::ConnectOptions;
use crate::host;

/// The first wait.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How often connecting may still be tried.
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

    /// Something was got done: the next loss may be tried as often again.
    pub fn succeeded(&mut self) {
        self.left = self.allowed;
    }

    /// The next try is done in another way, and does not count.
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
        while self.left > 0 && last.is_passing() {
            let wait = self.wait();
            self.left -= 1;
            if !host::wait(wait, stop) {
                return Err(last);
            }
            match Conn::open(options) {
                Ok(conn) => return Ok(conn),
                Err(error) => {
                    if error.is_loading_for_long() {
                        // The next connection would wait as long once more.
                        self.left = 0;
                    }
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// Twice as long each time, between half of that and the whole of it.
    fn wait(&self) -> Duration {
        let doublings = (self.allowed - self.left).min(16);
        let whole = FIRST_WAIT.saturating_mul(1 << doublings).min(LONGEST_WAIT);
        let half_ms = u64::try_from(whole.as_millis() / 2).unwrap_or(0);
        Duration::from_millis(half_ms + host::random() % (half_ms + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_bounded() {
        let mut retries = Retries {
            allowed: 12,
            left: 12,
        };
        let mut longest = Duration::ZERO;
        while retries.left > 0 {
            let wait = retries.wait();
            assert!(wait >= FIRST_WAIT / 2 && wait <= LONGEST_WAIT, "{wait:?}");
            longest = longest.max(wait);
            retries.left -= 1;
        }
        assert!(longest >= LONGEST_WAIT / 2);
    }
}
