//! What if this one reply is not the one that was hoped for? Asked of every command that each verb
//! sends, by a proxy that answers otherwise, and judged by what stands on the servers afterwards.
//!
//! `cargo test --test reply_faults` runs a sample, by a seed that it prints; `make reply-faults` runs
//! all. One case runs by the line that names it:
//!
//! ```sh
//! REPLY_FAULTS_CASE=redis-7.0/import-skip/dest/SELECT/2x1/NOPERM/not-run \
//!   cargo test --test reply_faults one_case -- --nocapture
//! ```

use redis_migrate_test_support as support;

mod archives;
mod case;
mod data;
mod drive;
mod hostile;
mod judge;
mod plants;
mod scenario;
mod world;

use std::collections::HashSet;

use self::case::Case;
use self::drive::{Logs, clean_runs, look, run_all};
use self::scenario::{SCENARIOS, Scenario};
use self::world::{Pair, World};
use support::random::Random;
use support::servers::require;

/// Cases of the short form.
const SAMPLE: usize = 1_000;

/// The same of hostile servers.
const HOSTILE_SAMPLE: usize = 150;

/// Cases that run at a time. Most of the time of a case is waiting.
const WORKERS: u64 = 12;

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn pairs() -> Vec<Pair> {
    let all = Pair::ALL.into_iter();
    all.filter(|pair| require(pair.source).is_some() && require(pair.destination).is_some())
        .collect()
}

fn shuffle<T>(all: &mut [T], random: &mut Random) {
    for at in (1..all.len()).rev() {
        all.swap(at, random.below(at as u64 + 1) as usize);
    }
}

/// Whether a case has all these parts in its name: `import|SELECT|!close`.
fn is_wanted(name: &str, parts: &str) -> bool {
    parts.split('|').all(|part| match part.strip_prefix('!') {
        Some(unwanted) => !name.contains(unwanted),
        None => name.contains(part),
    })
}

/// How much is to be run, and how.
struct Wish {
    count: usize,
    seed: u64,
    workers: usize,
    /// See [`is_wanted`].
    only: String,
    /// Cases that earlier runs have done: all of them take more time than there may be at once.
    done: HashSet<String>,
}

impl Wish {
    fn new(sample: usize) -> Self {
        let number = |name: &str, text: String| -> u64 {
            text.parse()
                .unwrap_or_else(|_| panic!("{name}: a number, not {text:?}"))
        };
        let of = |name: &str| variable(name).map(|text| number(name, text));
        Self {
            count: match variable("REPLY_FAULTS") {
                None => sample,
                Some(all) if all == "all" => usize::MAX,
                Some(text) => number("REPLY_FAULTS", text) as usize,
            },
            seed: of("REPLY_FAULTS_SEED").unwrap_or_else(support::dataset::now_ms),
            workers: of("REPLY_FAULTS_WORKERS").unwrap_or(WORKERS) as usize,
            only: variable("REPLY_FAULTS_ONLY").unwrap_or_default(),
            done: variable("REPLY_FAULTS_DONE")
                .and_then(|path| std::fs::read_to_string(path).ok())
                .map_or_else(HashSet::new, |text| {
                    text.lines().map(str::to_owned).collect()
                }),
        }
    }

    /// Runs so many of the cases, and fails with what was found.
    fn run(&self, what: &str, pairs: &[Pair], scenarios: &[&'static Scenario], make: MakeCases) {
        let start = || {
            pairs
                .iter()
                .map(|pair| World::start(*pair))
                .collect::<Vec<_>>()
        };
        let mut workers: Vec<Vec<World>> = (0..self.workers).map(|_| start()).collect();
        let Some(first) = workers.first_mut().filter(|worlds| !worlds.is_empty()) else {
            return;
        };
        let clean = clean_runs(first, scenarios);
        let mut all: Vec<Case> = Vec::new();
        for ((pair, name), seen) in &clean {
            let scenario = Scenario::by_name(name).expect("a scenario");
            all.extend(make(*pair, scenario, seen));
        }
        all.retain(|case| is_wanted(&case.to_string(), &self.only));
        let before = all.len();
        all.retain(|case| !self.done.contains(&case.to_string()));
        if all.len() < before {
            eprintln!(
                "{what}: {} of {before} cases were done before",
                before - all.len()
            );
        }
        shuffle(&mut all, &mut Random::new(self.seed));
        let whole = all.len();
        all.truncate(self.count);
        let (seed, count) = (self.seed, all.len());
        eprintln!("{what}: seed {seed}, {count} of {whole} cases");
        let open = |path: String| {
            let mut options = std::fs::OpenOptions::new();
            options.create(true).append(true).open(path).expect("a log")
        };
        let logs = Logs {
            violations: variable("REPLY_FAULTS_LOG").map(open),
            done: variable("REPLY_FAULTS_DONE").map(open),
        };
        let findings = run_all(all, workers, logs);
        let text = findings.text();
        assert!(
            findings.not_fired * 10 <= findings.runs,
            "{what}: the faults do not come up\n{text}"
        );
        eprintln!("{what}: {text}");
        assert!(
            findings.violations() == 0,
            "{what}: seed {seed}; one case runs with REPLY_FAULTS_CASE=… cargo test --test \
             reply_faults one_case -- --nocapture\n{text}"
        );
    }
}

/// Makes the cases of a scenario, of which a run without faults sent so much.
type MakeCases = fn(Pair, &'static Scenario, &case::Seen) -> Vec<Case>;

/// The matrix: a sample of it, or with `REPLY_FAULTS=all` (or a number) more of it.
#[test]
fn every_reply_may_be_another() {
    let all: Vec<&Scenario> = SCENARIOS.iter().collect();
    Wish::new(SAMPLE).run("reply faults", &pairs(), &all, case::cases);
}

/// Answers without end, and claims of what does not come.
#[test]
fn no_server_takes_memory_or_time_without_bound() {
    let all: Vec<&Scenario> = hostile::SCENARIOS
        .map(|name| Scenario::by_name(name).expect("a scenario"))
        .to_vec();
    let pairs: Vec<Pair> = pairs().into_iter().take(1).collect();
    Wish::new(HOSTILE_SAMPLE).run("hostile servers", &pairs, &all, hostile::cases);
}

/// The case that `REPLY_FAULTS_CASE` names, with all that the tool said.
#[test]
fn one_case() {
    let Some(name) = variable("REPLY_FAULTS_CASE") else {
        return;
    };
    let case = Case::parse(&name).unwrap_or_else(|| panic!("no case is called {name:?}"));
    let mut worlds = vec![World::start(case.pair)];
    clean_runs(&mut worlds, &[case.scenario]);
    let verdict = look(&mut worlds[0], case.scenario, Some(&case));
    let output = &verdict.ran.output;
    eprintln!("{case}: {}, fired: {}", output.status, verdict.fired);
    eprintln!("{}", String::from_utf8_lossy(&output.stdout));
    eprintln!("{}", output.stderr);
    let mut lines = String::new();
    for violation in &verdict.violations {
        lines += &format!("{}: {}\n", violation.kind, violation.detail);
    }
    assert!(verdict.violations.is_empty(), "{lines}");
}
