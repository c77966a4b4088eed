//! What an export does to others who use the source, with and without `--latency-target`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::{Bench, export, median, rate};

const TARGET: &str = "2ms";

/// Between two questions of the one who watches.
const EVERY: Duration = Duration::from_millis(1);

/// Answers of a server to somebody else while `work` is done, in ms, ascending.
fn answers(bench: &Bench, work: impl FnOnce()) -> Vec<f64> {
    let ended = Arc::new(AtomicBool::new(false));
    let mut client = bench.source.client();
    let watching = {
        let ended = Arc::clone(&ended);
        std::thread::spawn(move || {
            let mut taken = Vec::new();
            while !ended.load(Relaxed) {
                let began = Instant::now();
                redis::cmd("PING").exec(&mut client).expect("PING");
                taken.push(began.elapsed().as_secs_f64() * 1000.0);
                std::thread::sleep(EVERY);
            }
            taken.sort_by(f64::total_cmp);
            taken
        })
    };
    work();
    ended.store(true, Relaxed);
    watching.join().expect("the watcher ends")
}

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    match sorted.is_empty() {
        true => f64::NAN,
        false => sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)],
    }
}

/// Unbounded and bounded taking turns.
pub fn latency_of_others(bench: &Bench, archive: &Path) {
    let url = bench.source.url();
    let mut medians: [Vec<f64>; 3] = Default::default();
    let mut worst: [Vec<f64>; 3] = Default::default();
    let mut rates: [Vec<f64>; 2] = Default::default();
    for run in 1..=bench.settings.runs {
        eprintln!("run {run} of {} of politeness", bench.settings.runs);
        let mut watch = |place: usize, work: &dyn Fn() -> Duration| {
            let mut elapsed = Duration::ZERO;
            let taken = answers(bench, || elapsed = work());
            medians[place].push(percentile(&taken, 50));
            worst[place].push(percentile(&taken, 99));
            if let Some(rates) = rates.get_mut(place) {
                rates.push(bench.settings.keys as f64 / elapsed.as_secs_f64());
            }
        };
        watch(0, &|| export(&url, archive).run().success().elapsed);
        watch(1, &|| {
            let polite = export(&url, archive).args(&["--latency-target", TARGET]);
            polite.run().success().elapsed
        });
        watch(2, &|| {
            std::thread::sleep(Duration::from_secs(1));
            Duration::ZERO
        });
    }
    let [unbounded, polite, idle] = worst.map(|runs| median(&runs));
    let [unbounded_median, polite_median, idle_median] = medians.map(|runs| median(&runs));
    let [unbounded_rate, polite_rate] = rates.map(|runs| median(&runs));
    println!("\nAnswers of the source to somebody else, ms (goal: ratio of p99 at most 0.50):\n");
    println!("| | keys/s | median | p99 | ratio of p99 |");
    println!("|---|---|---|---|---|");
    println!("| idle | - | {idle_median:.2} | {idle:.2} | |");
    println!(
        "| export | {} | {unbounded_median:.2} | {unbounded:.2} | 1.00 |",
        rate(unbounded_rate)
    );
    println!(
        "| export --latency-target {TARGET} | {} | {polite_median:.2} | {polite:.2} | {:.2} |",
        rate(polite_rate),
        polite / unbounded
    );
}
