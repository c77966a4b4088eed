//! Progress: a bar on a terminal, else a line every ten seconds, or JSON.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle as BarStyle};
use serde_json::{Value, json};

use super::{Console, UiOptions};
use crate::cli::ProgressStyle;
use crate::host;
use crate::observer::{Lag, Observer, Progress};
use crate::units::{bytes_text, count_text, duration_text, per_second, plural};
use crate::verb::Verb;

/// Steps of the bar.
const BAR_STEPS: u64 = 1_000;

/// A thread that looks at the counters now and then.
pub(super) struct Ticker {
    thread: Option<(SyncSender<()>, JoinHandle<()>)>,
}

enum Display {
    Bar(ProgressBar),
    Log,
    Json,
}

impl Display {
    /// A bar above which the console prints.
    fn bar(console: &Console) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        bar.set_style(BarStyle::default_spinner());
        console.attach(&bar);
        Self::Bar(bar)
    }
}

impl Ticker {
    /// Starts it, if there is anything to show.
    pub fn start(
        options: &UiOptions,
        is_terminal: bool,
        console: Arc<Console>,
        observer: Arc<Observer>,
    ) -> Self {
        let style = match options.progress {
            ProgressStyle::None => None,
            _ if options.quiet => None,
            _ if options.json => Some(Display::Json),
            ProgressStyle::Auto | ProgressStyle::Bar if is_terminal => Some(Display::bar(&console)),
            _ => Some(Display::Log),
        };
        let verb = options.verb;
        let thread = style.and_then(|display| {
            let (sender, receiver) = sync_channel(1);
            let shown = Shown {
                display,
                verb,
                console,
                started: host::now(),
            };
            let thread = std::thread::Builder::new().spawn(move || {
                let every = shown.every();
                while receiver.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                    shown.tick(&observer.progress);
                }
                shown.end();
            });
            // A run goes on without its progress.
            thread.ok().map(|thread| (sender, thread))
        });
        Self { thread }
    }

    /// Ends it; a bar is gone from the screen afterwards.
    pub fn stop(&mut self) {
        if let Some((sender, thread)) = self.thread.take() {
            drop(sender);
            let _ = thread.join();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Shown {
    display: Display,
    verb: Verb,
    console: Arc<Console>,
    started: Instant,
}

impl Shown {
    fn every(&self) -> Duration {
        match self.display {
            Display::Bar(_) => Duration::from_millis(100),
            Display::Json => Duration::from_secs(1),
            Display::Log => Duration::from_secs(10),
        }
    }

    fn tick(&self, progress: &Progress) {
        let sample = Sample::take(progress, host::elapsed(self.started));
        match &self.display {
            Display::Json => self.console.json(sample.json(self.verb)),
            Display::Bar(bar) => {
                if let Some(fraction) = sample.fraction() {
                    if bar.length().is_none() {
                        bar.set_length(BAR_STEPS);
                        let style = BarStyle::with_template("[{bar:12}] {percent:>3}% {wide_msg}");
                        if let Ok(style) = style {
                            bar.set_style(style.progress_chars("=> "));
                        }
                    }
                    bar.set_position((fraction * BAR_STEPS as f64) as u64);
                }
                bar.set_message(sample.text());
                bar.tick();
            }
            Display::Log => {
                let fraction = sample.fraction();
                let percent = fraction.map(|fraction| format!(" {:.0}%,", fraction * 100.0));
                let (verb, percent) = (self.verb.name, percent.unwrap_or_default());
                self.console
                    .line(&format!("{verb}:{percent} {}", sample.text()));
            }
        }
    }

    fn end(&self) {
        if let Display::Bar(bar) = &self.display {
            bar.finish_and_clear();
        }
    }
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sample {
    elapsed: Duration,
    records: u64,
    payload_bytes: u64,
    archive_bytes: u64,
    failed: u64,
    expected_records: u64,
    expected_bytes: u64,
    lag: Option<Lag>,
}

fn lag_text(lag: Lag) -> String {
    match lag.keys {
        0 => ", following, up to date".to_owned(),
        keys => format!(
            ", following, {:.1}s behind ({} changed)",
            behind(lag).as_secs_f64(),
            plural(keys, "key")
        ),
    }
}

/// Since the first key changed that was not read again yet.
fn behind(lag: Lag) -> Duration {
    lag.since.map_or(Duration::ZERO, host::elapsed)
}

impl Sample {
    fn take(progress: &Progress, elapsed: Duration) -> Self {
        Self {
            elapsed,
            records: progress.records.load(Relaxed),
            payload_bytes: progress.payload_bytes.load(Relaxed),
            archive_bytes: progress.archive_bytes.load(Relaxed),
            failed: progress.failed.load(Relaxed),
            expected_records: progress.expected_records.load(Relaxed),
            expected_bytes: progress.expected_bytes.load(Relaxed),
            lag: progress.following.lag(),
        }
    }

    /// How much is done, by bytes where the length of the input is known, else by keys; at most 1,
    /// since expectations are estimates. `None` where there is no telling.
    fn fraction(&self) -> Option<f64> {
        if self.lag.is_some() {
            // Everything was read once; there is no end that one could be near.
            return None;
        }
        let (done, all) = if self.expected_bytes > 0 {
            (self.archive_bytes, self.expected_bytes)
        } else {
            (self.records, self.expected_records)
        };
        (all > 0).then(|| (done as f64 / all as f64).min(1.0))
    }

    fn remaining(&self) -> Option<Duration> {
        let fraction = self.fraction().filter(|&fraction| fraction > 0.01)?;
        let seconds = self.elapsed.as_secs_f64() * (1.0 - fraction) / fraction;
        (fraction < 1.0).then(|| Duration::from_secs_f64(seconds.ceil()))
    }

    fn text(&self) -> String {
        let rate = per_second(self.records, self.elapsed);
        let mut text = format!("{} keys, {}/s", count_text(self.records), count_text(rate));
        // What matters most comes first: a narrow terminal cuts the end off.
        text += &self.lag.map(lag_text).unwrap_or_default();
        if let Some(remaining) = self.remaining() {
            text += &format!(", ETA {}", duration_text(remaining));
        }
        if self.failed > 0 {
            text += &format!(", {} failed", count_text(self.failed));
        }
        text += &format!(", {}", bytes_text(self.payload_bytes));
        if self.archive_bytes > 0 {
            text += &format!(", archive {}", bytes_text(self.archive_bytes));
            if self.payload_bytes > 0 {
                let ratio = self.payload_bytes as f64 / self.archive_bytes as f64;
                text += &format!(" (ratio {ratio:.1})");
            }
        }
        text
    }

    fn json(&self, verb: Verb) -> Value {
        let known = |count: u64| (count > 0).then_some(count);
        json!({
            "event": "progress",
            "verb": verb.name,
            "elapsed_ms": self.elapsed.as_millis() as u64,
            "records": self.records,
            "payload_bytes": self.payload_bytes,
            "archive_bytes": known(self.archive_bytes),
            "failed": self.failed,
            "expected_records": known(self.expected_records),
            "expected_bytes": known(self.expected_bytes),
            "fraction": self.fraction(),
            "eta_ms": self.remaining().map(|left| left.as_millis() as u64),
            "following": self.lag.is_some(),
            "waiting_keys": self.lag.map(|lag| lag.keys),
            "lag_ms": self.lag.map(|lag| behind(lag).as_millis() as u64),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::tests::COPY;

    #[test]
    fn a_sample_says_rate_ratio_and_what_remains() {
        let progress = Progress::default();
        progress.records.store(500_000, Relaxed);
        progress.payload_bytes.store(64 << 20, Relaxed);
        progress.archive_bytes.store(32 << 20, Relaxed);
        progress.expected_records.store(1_000_000, Relaxed);
        let sample = Sample::take(&progress, Duration::from_secs(5));
        assert_eq!(
            sample.text(),
            "500,000 keys, 100,000/s, ETA 5s, 64.0 MiB, archive 32.0 MiB (ratio 2.0)"
        );
        assert_eq!(sample.json(COPY)["fraction"], json!(0.5));
        let none = Sample::take(&Progress::default(), Duration::ZERO);
        assert_eq!(none.text(), "0 keys, 0/s, 0 B");
        assert_eq!(none.fraction(), None);
        assert_eq!(none.json(COPY)["lag_ms"], json!(null));
    }

    #[test]
    fn who_follows_says_how_far_behind() {
        let progress = Progress::default();
        progress.expected_records.store(1_000_000, Relaxed);
        let sample = || Sample::take(&progress, Duration::ZERO);
        let since = Instant::now().checked_sub(Duration::from_secs(90));
        let behind = |keys| Lag { keys, since };
        let (up_to_date, one) = (
            Lag {
                keys: 0,
                since: None,
            },
            behind(1),
        );
        progress.following.is_at("one", up_to_date);
        assert_eq!(sample().text(), "0 keys, 0/s, following, up to date, 0 B");
        assert_eq!(sample().json(COPY)["lag_ms"], 0);
        progress.following.is_at("other", one);
        let json = sample().json(COPY);
        assert_eq!(json["following"], true);
        assert_eq!(json["waiting_keys"], 1);
        assert!(json["lag_ms"].as_u64() >= Some(90_000), "{json}");
        assert_eq!(json["fraction"], json!(null));
        let text = lag_text(behind(1200));
        assert!(text.starts_with(", following, 9"), "{text}");
        assert!(text.ends_with("s behind (1,200 keys changed)"), "{text}");
        progress.following.ends("one");
        progress.following.ends("other");
        assert_eq!(sample().fraction(), Some(0.0));
    }
}
