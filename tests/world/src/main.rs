//! The campaign: runs by seed until enough were tried, or too many were wrong.
//!
//! ```text
//! redis-migrate-world [--runs N] [--seconds N] [--seed S] [--only SCENARIO] [--threads N]
//!                     [--most WRONG] [--tolerate WRONG] [--into DIRECTORY]
//! redis-migrate-world --show --seed S [--only SCENARIO] [--keep FILE]
//! redis-migrate-world --replay FILE [--keep FILE]
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use redis_migrate_world::runs::{Report, run};
use redis_migrate_world::scenarios::{names, script};
use redis_migrate_world::script::Script;
use redis_migrate_world::shrink::{faults, shrink};

struct Options {
    runs: u64,
    seed: u64,
    only: Option<String>,
    seconds: u64,
    threads: u64,
    /// One seed, in all detail.
    show: bool,
    replay: Option<PathBuf>,
    /// After so many runs that are wrong it ends.
    most: usize,
    /// So many that are wrong are printed, and are no failure.
    tolerate: usize,
    /// Where the shortest script of a run that is wrong is written to.
    keep: Option<PathBuf>,
    /// Where those of a campaign are written to.
    into: PathBuf,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        runs: u64::MAX,
        seed: 0,
        only: None,
        seconds: u64::MAX,
        threads: 2,
        show: false,
        replay: None,
        most: 20,
        tolerate: 0,
        keep: None,
        into: PathBuf::from("target/world"),
    };
    let mut seed = None;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        let number = |text: String| {
            text.parse::<u64>()
                .map_err(|_| format!("{text} is no number"))
        };
        match word.as_str() {
            "--runs" => options.runs = number(value()?)?,
            "--seed" => seed = Some(number(value()?)?),
            "--only" => options.only = Some(named(value()?)?),
            "--seconds" => options.seconds = number(value()?)?,
            "--threads" => options.threads = number(value()?)?.max(1),
            "--most" => options.most = number(value()?)? as usize,
            "--tolerate" => options.tolerate = number(value()?)? as usize,
            "--into" => options.into = value()?.into(),
            "--keep" => options.keep = Some(value()?.into()),
            "--show" => options.show = true,
            "--replay" => options.replay = Some(value()?.into()),
            _ => return Err(format!("unknown: {word}")),
        }
    }
    options.seed = seed.unwrap_or_else(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(1, |since| since.as_nanos() as u64 % 1_000_000_000_000)
    });
    if options.runs == u64::MAX && options.seconds == u64::MAX {
        options.runs = 1000;
    }
    Ok(options)
}

/// A scenario that there is.
fn named(name: String) -> Result<String, String> {
    let known: Vec<_> = names().collect();
    match known.contains(&name.as_str()) {
        true => Ok(name),
        false => Err(format!(
            "no scenario {name}; there are: {}",
            known.join(" ")
        )),
    }
}

fn directory(thread: u64) -> PathBuf {
    let root = match Path::new("/dev/shm").is_dir() {
        true => PathBuf::from("/dev/shm"),
        false => std::env::temp_dir(),
    };
    root.join(format!(
        "redis-migrate-world-{}-{thread}",
        std::process::id()
    ))
}

#[derive(Default)]
struct Tally {
    wrong: Vec<(u64, Report)>,
    scenarios: BTreeMap<String, u64>,
    struck: BTreeMap<&'static str, u64>,
    codes: BTreeMap<u8, u64>,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    if options.show || options.replay.is_some() || options.keep.is_some() {
        return show(&options);
    }
    println!("seed {}", options.seed);
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let tally = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for thread in 0..options.threads {
            let (options, next, tally) = (&options, &next, &tally);
            scope.spawn(move || work(thread, options, next, tally, began));
        }
    });
    let tally = tally
        .into_inner()
        .unwrap_or_else(|error| error.into_inner());
    tell(&options, &tally, began.elapsed())
}

fn work(thread: u64, options: &Options, next: &AtomicU64, tally_of: &Mutex<Tally>, began: Instant) {
    let directory = directory(thread);
    loop {
        let at = next.fetch_add(1, Relaxed);
        if at >= options.runs || began.elapsed().as_secs() >= options.seconds {
            break;
        }
        let seed = options.seed + at;
        let script = script(seed, options.only.as_deref());
        let mut report = run(&script, &directory, false);
        if at.is_multiple_of(64) && report.wrong.is_empty() {
            let again = run(&script, &directory, false);
            if again.digest != report.digest {
                let text = "the same seed gave another run the second time";
                report.wrong.push(text.to_owned());
            }
        }
        let mut tally = tally_of.lock().unwrap_or_else(|error| error.into_inner());
        *tally.scenarios.entry(script.scenario.clone()).or_default() += 1;
        for kind in report.struck.keys() {
            *tally.struck.entry(kind).or_default() += 1;
        }
        for code in &report.codes {
            *tally.codes.entry(*code).or_default() += 1;
        }
        drop(tally);
        if !report.wrong.is_empty() {
            found(seed, &script, report, &directory, (options, next, tally_of));
        }
    }
    let _ = std::fs::remove_dir_all(&directory);
}

/// Something is wrong: it is printed, made shorter, and written to a file.
fn found(
    seed: u64,
    script: &Script,
    report: Report,
    directory: &Path,
    (options, next, tally): (&Options, &AtomicU64, &Mutex<Tally>),
) {
    let name = &script.scenario;
    println!("seed {seed} ({name}): {}", report.wrong.join("\n  "));
    {
        let mut tally = tally.lock().unwrap_or_else(|error| error.into_inner());
        tally.wrong.push((seed, report));
        if tally.wrong.len() >= options.most {
            next.store(options.runs, Relaxed);
        }
    }
    let (short, runs) = shrink(script, directory);
    let place = options.into.join(format!("{name}-{seed}.json"));
    let kept = std::fs::create_dir_all(&options.into).and_then(|()| keep(&place, &short));
    match kept {
        Ok(()) => println!(
            "seed {seed}: {} faults and {} keys are left after {runs} runs: {}",
            faults(&short),
            short.fill.len(),
            place.display()
        ),
        Err(error) => println!("{}: {error}", place.display()),
    }
}

fn tell(options: &Options, tally: &Tally, took: Duration) -> ExitCode {
    let runs: u64 = tally.scenarios.values().sum();
    let rate = runs as f64 / took.as_secs_f64().max(0.001);
    println!(
        "{runs} runs in {:.1} s, {rate:.0} a second",
        took.as_secs_f64()
    );
    table("runs of each scenario", &tally.scenarios);
    table("runs in which it struck", &tally.struck);
    table("runs of the tool that ended with", &tally.codes);
    match tally.wrong.len() {
        0 => ExitCode::SUCCESS,
        count => {
            let seeds: Vec<u64> = tally.wrong.iter().map(|(seed, _)| *seed).collect();
            println!(
                "{count} runs are wrong, from seed {}: {seeds:?}",
                options.seed
            );
            match count > options.tolerate {
                true => ExitCode::FAILURE,
                false => ExitCode::SUCCESS,
            }
        }
    }
}

fn keep(place: &Path, script: &Script) -> std::io::Result<()> {
    let text = serde_json::to_string_pretty(script)?;
    std::fs::write(place, text + "\n")
}

fn table<T: std::fmt::Display>(title: &str, rows: &BTreeMap<T, u64>) {
    println!("{title}:");
    for (name, count) in rows {
        println!("  {count:>9}  {name}");
    }
}

/// One seed, or one script, in all detail.
fn show(options: &Options) -> ExitCode {
    let script: Script = match &options.replay {
        None => script(options.seed, options.only.as_deref()),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
            match text
                .and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()))
            {
                Ok(script) => script,
                Err(error) => {
                    eprintln!("{}: {error}", path.display());
                    return ExitCode::from(2);
                }
            }
        }
    };
    let directory = directory(0);
    let script = match &options.keep {
        None => script,
        Some(place) => {
            let (short, runs) = shrink(&script, &directory);
            println!("made shorter in {runs} runs");
            if let Err(error) = keep(place, &short) {
                eprintln!("{}: {error}", place.display());
            }
            short
        }
    };
    let report = run(&script, &directory, true);
    let _ = std::fs::remove_dir_all(&directory);
    println!(
        "{}",
        serde_json::to_string_pretty(&script).unwrap_or_default()
    );
    report.log.iter().for_each(|line| println!("{line}"));
    report
        .lines
        .iter()
        .for_each(|line| println!("said: {line}"));
    println!("exit codes {:?}, struck {:?}", report.codes, report.struck);
    report
        .wrong
        .iter()
        .for_each(|line| println!("WRONG: {line}"));
    ExitCode::from(u8::from(!report.wrong.is_empty()))
}
