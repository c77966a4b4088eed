//! How long the other side is waited for: nothing may come for `--timeout`, a reply that has begun
//! has to go on, and the user's wish to stop is heard meanwhile.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::host;
use crate::server::stream::Stream;

/// How long to wait for the other side while hearing the user's wish to stop.
pub(super) struct Heed {
    pub(super) stop: Arc<AtomicBool>,
    /// The socket's own timeout.
    pub(super) step: Duration,
    pub(super) limit: Duration,
}

/// How often a wish to stop is looked for while nothing moves.
pub(super) const LISTEN_EVERY: Duration = Duration::from_millis(250);

/// Who wishes to stop still waits so long for an answer that is on its way.
const GRACE: Duration = Duration::from_secs(1);

impl Heed {
    /// Nothing moved for another step.
    fn wait_on(&self, waited: &mut Duration, error: io::Error) -> io::Result<()> {
        *waited += self.step;
        if *waited >= self.limit {
            Err(error)
        } else if *waited >= GRACE && self.stop.load(Ordering::Relaxed) {
            Err(io::Error::other("interrupted"))
        } else {
            Ok(())
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// A reply that has begun has to go on: so many bytes at least in each [`PACE_TIMEOUTS`] times
/// `--timeout`. One byte now and then would hold a run for ever.
const LEAST_BYTES: usize = 4 * 1024;
const PACE_TIMEOUTS: u32 = 3;

/// How a reply goes on.
pub(super) struct LeastPace {
    timeout: Duration,
    since: Option<Instant>,
    bytes: usize,
}

impl LeastPace {
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            since: None,
            bytes: 0,
        }
    }

    fn came(&mut self, bytes: usize) -> io::Result<()> {
        let since = *self.since.get_or_insert_with(host::now);
        self.bytes += bytes;
        // Not before: one of these is made for every item, and few have to wait for bytes.
        if host::elapsed(since) < self.timeout.saturating_mul(PACE_TIMEOUTS) {
            return Ok(());
        }
        if self.bytes < LEAST_BYTES {
            return Err(io::Error::other("the answer came too slowly"));
        }
        (self.since, self.bytes) = (Some(host::now()), 0);
        Ok(())
    }
}

/// A stream whose own timeout is short, so that a wish to stop is heard meanwhile.
pub(super) struct Paced<'a> {
    pub(super) stream: &'a mut Stream,
    pub(super) heed: Option<&'a Heed>,
    pub(super) pace: LeastPace,
}

impl Paced<'_> {
    fn again<T>(&mut self, mut act: impl FnMut(&mut Stream) -> io::Result<T>) -> io::Result<T> {
        let mut waited = Duration::ZERO;
        loop {
            match (act(self.stream), self.heed) {
                (Err(error), Some(heed)) if is_timeout(&error) => {
                    heed.wait_on(&mut waited, error)?;
                }
                (done, _) => return done,
            }
        }
    }
}

impl Read for Paced<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bytes = self.again(|stream| stream.read(out))?;
        self.pace.came(bytes)?;
        Ok(bytes)
    }
}

impl Write for Paced<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.again(|stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.again(Write::flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_that_has_begun_has_to_go_on() {
        let mut pace = LeastPace::new(Duration::MAX);
        for _ in 0..100 {
            pace.came(1).unwrap();
        }
        // Each look comes after the whole limit.
        let mut pace = LeastPace::new(Duration::ZERO);
        pace.came(LEAST_BYTES).unwrap();
        pace.came(LEAST_BYTES).unwrap();
        assert!(pace.came(LEAST_BYTES - 1).is_err());
    }
}
