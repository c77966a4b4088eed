//! How fast a run may go: so many keys or bytes a second, and no faster than lets the servers answer
//! others in time.
//!
//! The limits are kept by the pipe, which hands records on in small batches when they are due. What
//! may be asked of a source at once is kept as small, so that neither side sees bursts. A probe on
//! a connection of its own measures how long a server takes to answer; the window shrinks
//! when that is too long, or nearly, and grows by and by when it is well below.

mod probe;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

pub(crate) use self::probe::LatencyProbe;
use crate::host;
use crate::observer::Observer;
use crate::stop::Stop;
use crate::units::duration_text;

/// What may be made up for after something else was slow.
const BURST: Duration = Duration::from_millis(100);

/// Batches a second under a limit.
const BATCHES_PER_SECOND: u64 = 20;

/// Keys in flight with which a run under a latency target begins, and the most it comes to.
const FIRST_WINDOW: f64 = 64.0;
const LARGEST_WINDOW: f64 = 2_000.0;

/// Below one key in flight there is a rest between keys: this part of a key per [`KEY_TURN`] at the
/// least, which is 100 keys a second. A server that is slow because of others must not hold up a
/// run for ever.
const SMALLEST_WINDOW: f64 = 0.1;
const KEY_TURN: Duration = Duration::from_millis(1);

/// What the window grows by, in keys.
const GROWTH: f64 = 32.0;

/// Answers in a row that have to be quick before the window grows.
const QUICK_ANSWERS: u32 = 16;

/// What was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PaceLimits {
    /// Keys a second.
    pub keys: Option<u64>,
    /// Bytes of keys and values a second.
    pub bytes: Option<u64>,
    /// How long a server may take to answer somebody else.
    pub latency: Option<Duration>,
}

impl PaceLimits {
    /// Whether there is any.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// What latency demands.
#[derive(Debug)]
struct LatencyWindow {
    keys: f64,
    quick: u32,
    smallest: f64,
    slowed: u64,
}

/// The pace of one run, shared by the pipe, the source and the probes.
#[derive(Debug)]
pub struct Pace {
    limits: PaceLimits,
    /// When the next batch is due.
    due: Mutex<Option<Instant>>,
    window: Mutex<LatencyWindow>,
    held_back_us: AtomicU64,
}

impl Pace {
    /// As fast as `limits` allow.
    pub fn new(limits: PaceLimits) -> Self {
        Self {
            limits,
            due: Mutex::new(None),
            window: Mutex::new(LatencyWindow {
                keys: FIRST_WINDOW,
                quick: 0,
                smallest: FIRST_WINDOW,
                slowed: 0,
            }),
            held_back_us: AtomicU64::new(0),
        }
    }

    /// The limits.
    pub fn limits(&self) -> PaceLimits {
        self.limits
    }

    /// How many keys may be under way at once, at least one.
    pub fn window_keys(&self) -> usize {
        let by_rate = self.limits.keys.map_or(usize::MAX, per_batch);
        let by_latency = match self.limits.latency {
            None => usize::MAX,
            Some(_) => self.lock_window().keys.max(1.0) as usize,
        };
        by_rate.min(by_latency)
    }

    /// How many bytes of values may be under way at once, at least one.
    pub fn window_bytes(&self) -> usize {
        self.limits.bytes.map_or(usize::MAX, per_batch)
    }

    /// Waits until so much more is due; `false` if the user wished to stop meanwhile. What is more
    /// than due is paid for by those that come next.
    pub fn wait(&self, keys: u64, bytes: u64, stop: &Stop) -> bool {
        let now = host::now();
        let start = {
            let mut due = self.due.lock().unwrap_or_else(|error| error.into_inner());
            let earliest = now.checked_sub(BURST).unwrap_or(now);
            let start = due.unwrap_or(now).max(earliest);
            *due = Some(start + self.cost(keys, bytes));
            start
        };
        let wait = start.saturating_duration_since(now);
        let waited = host::wait(wait, &|| stop.is_set());
        let slept = u64::try_from(host::elapsed(now).min(wait).as_micros()).unwrap_or(0);
        self.held_back_us.fetch_add(slept, Relaxed);
        waited
    }

    /// The time that so much takes.
    fn cost(&self, keys: u64, bytes: u64) -> Duration {
        let seconds = |amount: u64, rate: Option<u64>| {
            rate.map_or(0.0, |rate| amount as f64 / rate.max(1) as f64)
        };
        let by_rate = seconds(keys, self.limits.keys).max(seconds(bytes, self.limits.bytes));
        let window = match self.limits.latency {
            None => 1.0,
            Some(_) => self.lock_window().keys,
        };
        let by_latency = match window < 1.0 {
            true => (1.0 / window - 1.0) * KEY_TURN.as_secs_f64() * keys as f64,
            false => 0.0,
        };
        // No rate makes a single value wait for longer than a day.
        Duration::from_secs_f64(by_rate.max(by_latency).min(86_400.0))
    }

    /// A server answered somebody within `took`, and should within `target`.
    fn answered(&self, took: Duration, target: Duration) {
        let mut window = self.lock_window();
        if took > target * 3 / 4 {
            // Near the target some answers are above it already, of those that are not seen.
            let part = if took > target { 0.5 } else { 0.75 };
            window.keys = (window.keys * part).max(SMALLEST_WINDOW);
            window.smallest = window.smallest.min(window.keys);
            window.quick = 0;
            window.slowed += 1;
        } else if took > target / 2 {
            window.quick = 0;
        } else {
            window.quick += 1;
            if window.quick >= QUICK_ANSWERS {
                window.quick = 0;
                // From next to nothing it grows faster than by a number of keys.
                window.keys = match window.keys < 1.0 {
                    true => window.keys * 4.0,
                    false => (window.keys + GROWTH).min(LARGEST_WINDOW),
                };
            }
        }
    }

    fn lock_window(&self) -> std::sync::MutexGuard<'_, LatencyWindow> {
        self.window
            .lock()
            .unwrap_or_else(|error| error.into_inner())
    }

    /// Says in one line what the limits did.
    pub fn tell(&self, observer: &Observer) {
        let held_back = Duration::from_micros(self.held_back_us.load(Relaxed));
        let mut text = match held_back.is_zero() {
            true => "the limits never held back this run".to_owned(),
            false => format!(
                "the limits held back this run for {}",
                duration_text(held_back)
            ),
        };
        if self.limits.latency.is_some() {
            let window = self.lock_window();
            text += &format!(
                "; slowed down {} times for --latency-target, to as few as {} keys at once ({} at the \
                 end)",
                window.slowed,
                keys_text(window.smallest),
                keys_text(window.keys)
            );
        }
        observer.notice(&text);
    }
}

fn keys_text(keys: f64) -> String {
    match keys < 1.0 {
        true => format!("{keys:.2}"),
        false => format!("{keys:.0}"),
    }
}

fn per_batch(rate: u64) -> usize {
    usize::try_from(rate / BATCHES_PER_SECOND)
        .unwrap_or(usize::MAX)
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(keys: Option<u64>, bytes: Option<u64>) -> Pace {
        Pace::new(PaceLimits {
            keys,
            bytes,
            latency: None,
        })
    }

    #[test]
    fn the_stricter_limit_decides() {
        let both = pace(Some(100), Some(1_000));
        assert_eq!(both.cost(10, 10), Duration::from_millis(100));
        assert_eq!(both.cost(10, 1_000), Duration::from_secs(1));
        assert_eq!((both.window_keys(), both.window_bytes()), (5, 50));
        assert_eq!(pace(Some(1), None).window_keys(), 1);
    }

    #[test]
    fn a_large_value_is_paid_for_by_the_next_ones() {
        let pace = pace(None, Some(1_000_000));
        let stop = Stop::new();
        let began = Instant::now();
        assert!(pace.wait(1, 300_000, &stop));
        assert!(pace.wait(1, 1, &stop));
        assert!(began.elapsed() >= Duration::from_millis(300));
    }

    #[test]
    fn a_wish_to_stop_ends_the_wait() {
        let pace = pace(Some(1), None);
        let stop = Stop::new();
        assert!(pace.wait(1_000_000, 0, &stop));
        stop.set();
        assert!(!pace.wait(1, 0, &stop));
    }

    #[test]
    fn slow_answers_halve_the_window_and_quick_ones_widen_it() {
        let target = Duration::from_millis(4);
        let pace = Pace::new(PaceLimits {
            latency: Some(target),
            ..PaceLimits::default()
        });
        assert_eq!(pace.window_keys(), 64);
        pace.answered(Duration::from_millis(5), target);
        assert_eq!(pace.window_keys(), 32);
        for _ in 0..QUICK_ANSWERS {
            pace.answered(Duration::from_millis(1), target);
        }
        assert_eq!(pace.window_keys(), 64);
        for _ in 0..10 * QUICK_ANSWERS {
            pace.answered(Duration::from_millis(3), target);
        }
        assert_eq!(pace.window_keys(), 64, "neither quick nor slow");
        pace.answered(Duration::from_micros(3_500), target);
        assert_eq!(pace.window_keys(), 48, "nearly slow");
        for _ in 0..50 {
            pace.answered(Duration::from_millis(5), target);
        }
        assert_eq!(pace.window_keys(), 1);
        assert!(pace.cost(1, 0) > Duration::from_millis(5), "and a rest");
        for _ in 0..100 * QUICK_ANSWERS {
            pace.answered(Duration::ZERO, target);
        }
        assert_eq!(pace.window_keys(), 2_000);
        assert_eq!(pace.cost(1, 0), Duration::ZERO);
    }
}
