//! The world around the shells: the clock, sleeping, chance, the network, and what runs beside.
//!
//! A real run asks the system. A test may put a simulated world in its place for its own thread
//! ([`enter`]): then time is virtual, connections lead to model servers, and nothing runs on
//! another thread: the pipe calls its source and its sink by turns, and listeners are stepped by
//! the world. No other file reads a clock, sleeps or draws a random number.

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::endpoint::{ConnectOptions, Transport};

/// A connection of a simulated world.
pub type LinkId = u64;

/// A task of a simulated world, see [`Host::beside`].
pub type TaskId = u64;

/// A simulated world. All calls come from the one thread that entered it; one that waits (`sleep`,
/// `read`, `drive`) lets the world go on meanwhile, and may step tasks.
pub trait Host {
    /// The virtual clock.
    fn now(&self) -> Instant;

    /// The same as wall time of the machine that the tool runs on, Unix milliseconds.
    fn unix_ms(&self) -> u64;

    /// Lets the world go on for this long.
    fn sleep(&self, time: Duration);

    /// A random number, by the seed.
    fn random(&self) -> u64;

    /// Connects, TLS included.
    ///
    /// # Errors
    /// Why not, as a socket would say it.
    fn connect(&self, to: &Transport, options: &ConnectOptions) -> io::Result<LinkId>;

    /// As a blocking socket reads: at least one byte, 0 at the end of the stream.
    ///
    /// # Errors
    /// `TimedOut` after the link's timeout, `ConnectionReset`.
    fn read(&self, link: LinkId, out: &mut [u8]) -> io::Result<usize>;

    /// As a blocking socket writes.
    ///
    /// # Errors
    /// As of [`Self::read`]; `BrokenPipe`.
    fn write(&self, link: LinkId, bytes: &[u8]) -> io::Result<usize>;

    /// Whether a read would not wait.
    fn is_readable(&self, link: LinkId) -> bool;

    /// How long a read or a write may wait; zero for ever.
    fn set_timeout(&self, link: LinkId, timeout: Duration);

    /// Ends a connection from our side.
    fn close(&self, link: LinkId);

    /// Takes a task that is stepped from now on, the first time as soon as the world goes on.
    fn beside(&self, task: Box<dyn Beside>) -> TaskId;

    /// Drops a task.
    fn end(&self, task: TaskId);

    /// Lets the world go on until `done` says so; it is asked after each step of a task, and the
    /// world ends the wait when nothing can happen any more or `limit` has passed.
    fn drive(&self, limit: Option<Duration>, done: &dyn Fn() -> bool);
}

/// What runs beside the rest in a simulated world; in a real run it has a thread.
pub trait Beside: Send {
    /// Does what can be done without waiting.
    fn step(&mut self) -> Step;
}

/// When a task is to be stepped again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// When its connection has something to read, or at this time.
    Wait {
        /// The connection.
        link: Option<LinkId>,
        /// The time.
        until: Option<Instant>,
    },
    /// Never.
    End,
}

thread_local! {
    static SIMULATED: RefCell<Option<Rc<dyn Host>>> = const { RefCell::new(None) };
}

/// From now on this thread runs in `host`, until what is returned is dropped.
#[must_use]
pub fn enter(host: Rc<dyn Host>) -> Entered {
    let before = SIMULATED.with(|cell| cell.borrow_mut().replace(host));
    Entered(before)
}

/// See [`enter`].
pub struct Entered(Option<Rc<dyn Host>>);

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.0.take();
        SIMULATED.with(|cell| *cell.borrow_mut() = before);
    }
}

/// The simulated world that this thread runs in, if it does.
pub fn simulated() -> Option<Rc<dyn Host>> {
    SIMULATED.with(|cell| cell.borrow().clone())
}

/// The time, for measuring.
pub fn now() -> Instant {
    simulated().map_or_else(Instant::now, |host| host.now())
}

/// How long ago `since` was.
pub fn elapsed(since: Instant) -> Duration {
    now().saturating_duration_since(since)
}

/// This machine's clock, Unix milliseconds.
pub fn unix_ms() -> u64 {
    if let Some(host) = simulated() {
        return host.unix_ms();
    }
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

/// Waits.
pub fn sleep(time: Duration) {
    match simulated() {
        Some(host) => host.sleep(time),
        None => std::thread::sleep(time),
    }
}

/// Waits, and looks meanwhile whether the user wishes to stop; `false` if that ended the wait.
pub fn wait(time: Duration, stops: &dyn Fn() -> bool) -> bool {
    const STEP: Duration = Duration::from_millis(50);
    let mut left = time;
    loop {
        if stops() {
            return false;
        }
        if left.is_zero() {
            return true;
        }
        let step = left.min(STEP);
        sleep(step);
        left -= step;
    }
}

/// A random number.
pub fn random() -> u64 {
    simulated().map_or_else(
        || RandomState::new().build_hasher().finish(),
        |host| host.random(),
    )
}

/// Keys of the hash tables whose order may be seen (what is iterated and then sent): chance in a
/// real run, so that nobody can choose names that collide, and the seed's in a simulated one.
#[derive(Debug, Clone)]
pub struct HashKeys(RandomState, Option<u64>);

impl Default for HashKeys {
    fn default() -> Self {
        Self(RandomState::new(), simulated().map(|host| host.random()))
    }
}

impl BuildHasher for HashKeys {
    type Hasher = KeyHasher;

    fn build_hasher(&self) -> KeyHasher {
        match self.1 {
            None => KeyHasher::Real(self.0.build_hasher()),
            Some(key) => KeyHasher::Simulated(siphasher::sip::SipHasher13::new_with_keys(key, key)),
        }
    }
}

/// A hash table whose order may be seen.
pub type HashMap<K, V> = std::collections::HashMap<K, V, HashKeys>;

/// See [`HashMap`].
pub type HashSet<T> = std::collections::HashSet<T, HashKeys>;

/// See [`HashKeys`].
#[derive(Debug, Clone)]
pub enum KeyHasher {
    /// Keys by chance.
    Real(std::hash::DefaultHasher),
    /// Keys by the seed.
    Simulated(siphasher::sip::SipHasher13),
}

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        match self {
            Self::Real(hasher) => hasher.finish(),
            Self::Simulated(hasher) => hasher.finish(),
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        match self {
            Self::Real(hasher) => hasher.write(bytes),
            Self::Simulated(hasher) => hasher.write(bytes),
        }
    }
}

/// Does all of these at the same time, each on a thread; in a simulated world one after the other,
/// in an order by chance. `None` stands for one that panicked.
pub fn all_at_once<T: Send>(jobs: Vec<Box<dyn FnOnce() -> T + Send + '_>>) -> Vec<Option<T>> {
    let Some(host) = simulated() else {
        return std::thread::scope(|scope| {
            let threads: Vec<_> = jobs.into_iter().map(|job| scope.spawn(job)).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, T>| thread.join().ok();
            threads.into_iter().map(join).collect()
        });
    };
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    for at in (1..order.len()).rev() {
        let other = host.random() % (at as u64 + 1);
        order.swap(at, usize::try_from(other).unwrap_or(0));
    }
    let mut jobs: Vec<_> = jobs.into_iter().map(Some).collect();
    let mut results: Vec<Option<T>> = jobs.iter().map(|_| None).collect();
    for at in order {
        results[at] = jobs[at].take().map(|job| job());
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_to_stop_ends_a_wait() {
        assert!(!wait(Duration::from_secs(3600), &|| true));
        assert!(wait(Duration::ZERO, &|| false));
    }
}
