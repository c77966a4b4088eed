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

#[path = "../support/mod.rs"]
mod support;

mod case;
mod data;
mod drive;
mod judge;
mod scenario;
mod world;

use self::case::{Case, cases};
use self::drive::{clean_runs, look, run_all};
use self::scenario::{SCENARIOS, Scenario};
use self::world::{Pair, World};
use support::random::Random;
use support::servers::require;

/// Cases of the short form.
const SAMPLE: usize = 900;

/// Cases at most in which the tool waits for a minute or two, in the whole matrix.
const SLOW_CASES: usize = 40;

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn pairs() -> Vec<Pair> {
    let all = Pair::ALL.into_iter();
    all.filter(|pair| require(pair.source).is_some() && require(pair.destination).is_some())
        .collect()
}

fn scenarios() -> Vec<&'static Scenario> {
    SCENARIOS.iter().collect()
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

/// The matrix: a sample of it, or with `REPLY_FAULTS=all` (or a number) more of it.
#[test]
fn every_reply_may_be_another() {
    let pairs = pairs();
    if pairs.is_empty() {
        return;
    }
    let count = match variable("REPLY_FAULTS").as_deref() {
        None => SAMPLE,
        Some("all") => usize::MAX,
        Some(number) => number.parse().expect("REPLY_FAULTS: all, or a number"),
    };
    let seed = variable("REPLY_FAULTS_SEED").map_or_else(support::dataset::now_ms, |seed| {
        seed.parse().expect("REPLY_FAULTS_SEED: a number")
    });
    let workers: usize =
        variable("REPLY_FAULTS_WORKERS").map_or(2, |n| n.parse().expect("a number"));
    let start = || {
        pairs
            .iter()
            .map(|pair| World::start(*pair))
            .collect::<Vec<_>>()
    };
    let mut workers: Vec<Vec<World>> = (0..workers).map(|_| start()).collect();
    let only = variable("REPLY_FAULTS_ONLY").unwrap_or_default();
    let clean = clean_runs(&mut workers[0], &scenarios());
    let mut random = Random::new(seed);
    let mut all: Vec<Case> = Vec::new();
    for ((pair, name), seen) in &clean {
        let scenario = Scenario::by_name(name).expect("a scenario");
        all.extend(cases(*pair, scenario, seen));
    }
    all.retain(|case| is_wanted(&case.to_string(), &only));
    shuffle(&mut all, &mut random);
    let whole = all.len();
    let (mut slow, mut all): (Vec<Case>, Vec<Case>) = all.into_iter().partition(Case::is_slow);
    slow.truncate(if count == usize::MAX { SLOW_CASES } else { 0 });
    all.truncate(count);
    // The slow ones first, so that they run beside the others.
    slow.append(&mut all);
    eprintln!("reply faults: seed {seed}, {} of {whole} cases", slow.len());
    let log = variable("REPLY_FAULTS_LOG").map(|path| std::fs::File::create(path).expect("a log"));
    let findings = run_all(slow, workers, log);
    let text = findings.text();
    eprintln!("{text}");
    assert_eq!(
        findings.violations(),
        0,
        "seed {seed}; one case runs with REPLY_FAULTS_CASE=… cargo test --test reply_faults \
         one_case -- --nocapture\n{text}"
    );
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
