//! Runs cases, several at a time, and tells what was found.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::case::{Case, Seen};
use super::data::Crowd;
use super::judge::{Facts, Judge, Violation};
use super::scenario::{Faults, Ran, Scenario, Verb};
use super::world::{Pair, Snapshot, World};
use crate::support::tool::Tool;

/// What runs without faults send.
pub type CleanRuns = BTreeMap<(Pair, &'static str), Seen>;

/// What came of one case.
pub struct Verdict {
    pub violations: Vec<Violation>,
    pub fired: bool,
    pub ran: Ran,
}

/// One run and all that is looked at.
pub fn look(world: &mut World, scenario: &'static Scenario, case: Option<&Case>) -> Verdict {
    world.tidy();
    let mut before = world.prepare(scenario.crowd);
    let faults = case.map_or_else(Faults::default, Case::faults);
    let limit = case.map_or(Duration::from_secs(60), Case::limit);
    let ran = scenario.run(world, faults, limit);
    let mut violations = Vec::new();
    let after = match scenario.verb {
        Verb::Export => {
            before = Snapshot::default();
            let again = scenario.resumes() && !matches!(ran.code(), Some(0 | 3));
            if again {
                // What it kept is gone on with.
                let second = scenario.run(world, Faults::default(), limit);
                let words = second.complaints();
                check_second(second.code(), 0, words, &mut violations);
            }
            read_archive(world, &ran, again, &mut violations)
        }
        _ => world.destination_now(),
    };
    let source = world.source_now();
    let facts = Facts {
        scenario,
        case,
        ran: &ran,
        given: &world.given,
        wanted: world.moved_by(scenario),
        source: &source,
        before: &before,
        after: &after,
    };
    violations.extend(Judge::default().judge(&facts));
    if scenario.writes() && ran.code() != Some(0) && violations.is_empty() && case.is_some() {
        again(world, scenario, &before, &ran, &mut violations);
    }
    if let Some(case) = case.filter(|case| case.is_lasting()) {
        foretold(world, case, &ran, &mut violations);
    }
    world.mend_source();
    Verdict {
        violations,
        fired: ran.fired > 0,
        ran,
    }
}

/// What stands in the archive that an export left, if it left one.
fn read_archive(
    world: &mut World,
    ran: &Ran,
    again: bool,
    violations: &mut Vec<Violation>,
) -> Snapshot {
    let mut add = |kind: &'static str, detail: String| {
        violations.push(Violation { kind, detail });
    };
    let file = world.file("made.rmz");
    let is_due = again || matches!(ran.code(), Some(0 | 3 | 4));
    if file.exists() != is_due {
        let code = ran.code();
        add(
            "leaves an archive, or none, against its exit code",
            format!("{code:?}"),
        );
    }
    let mut names = world.files();
    names.retain(|name| name != "made.rmz");
    // Who is killed cannot tidy up.
    if !names.is_empty() && !ran.timed_out {
        add("leaves a temporary file", names.join(", "));
    }
    if !file.exists() {
        return Snapshot::default();
    }
    world.empty_destination();
    let import = ["import", &world.destination.url()];
    let output = Tool::new(&import).arg(&file).run();
    if output.code() != Some(0) {
        add("makes an archive that cannot be imported", output.stderr);
    }
    world.destination_now()
}

/// The same once more without faults ends as if there had never been any.
fn again(
    world: &mut World,
    scenario: &'static Scenario,
    before: &Snapshot,
    first: &Ran,
    violations: &mut Vec<Violation>,
) {
    let ran = scenario.run(world, Faults::default(), Duration::from_secs(60));
    let after = world.destination_now();
    let wanted = world.moved_by(scenario);
    let replaces = scenario.policy == super::scenario::Policy::Replace;
    let mut odd: Vec<&super::data::Place> = after.odd_places(before);
    odd.retain(
        |place| match (wanted.keys.get(*place), before.keys.get(*place)) {
            (Some(wanted), was) if replaces || was.is_none() => {
                !super::world::alike(after.keys.get(*place), Some(wanted))
            }
            // A temporary key belongs to the run before, and `doctor` names it.
            _ => !super::judge::is_temporary(place),
        },
    );
    let is_missing = |place: &&super::data::Place| !after.keys.contains_key(*place);
    odd.extend(wanted.keys.keys().filter(is_missing));
    let words = ran.complaints();
    if scenario.resumes() && ran.code() == Some(3) {
        // What failed by name before is not tried again, and it says so.
        let named = first.failures();
        odd.retain(|place| !named.contains(place));
        if odd.is_empty() {
            return;
        }
    }
    if odd.is_empty() {
        return check_second(ran.code(), scenario.code(), words, violations);
    }
    let odd: Vec<String> = odd
        .into_iter()
        .map(|(db, key)| format!("db {db} {}", key.escape_ascii()))
        .collect();
    violations.push(Violation {
        kind: "a second run does not mend it",
        detail: format!("{}: {:?}, {words}", odd.join(", "), ran.code()),
    });
}

/// What `doctor` and a dry run say comes true, where the server refuses a command for good.
fn foretold(world: &mut World, case: &Case, said: &Ran, violations: &mut Vec<Violation>) {
    let really = match case.scenario.name {
        "doctor" => "import-fail",
        "import-dry" => "import-replace",
        _ => return,
    };
    let scenario = Scenario::by_name(really).expect("a scenario");
    world.tidy();
    // What stands in the way is nothing that `doctor` looks at.
    let crowd = match case.scenario.name {
        "doctor" => Crowd::Empty,
        _ => scenario.crowd,
    };
    world.prepare(crowd);
    let ran = scenario.run(world, case.faults(), case.limit());
    let (said, came) = (said.code(), ran.code());
    // A dry run may need what the run itself does without.
    let too_dark = case.scenario.name == "doctor" && said != Some(0) && came == Some(0);
    if too_dark || (said == Some(0) && came != Some(0)) {
        violations.push(Violation {
            kind: "foretells what does not come",
            detail: format!("{said:?} said, {came:?} came: {}", ran.complaints()),
        });
    }
}

fn check_second(code: Option<i32>, due: i32, words: String, violations: &mut Vec<Violation>) {
    if code != Some(due) {
        violations.push(Violation {
            kind: "a second run ends otherwise",
            detail: format!("{code:?}, not {due}: {words}"),
        });
    }
}

/// Runs every scenario once without faults: what it sends, and how it ends. It has to be right.
pub fn clean_runs(worlds: &mut [World], scenarios: &[&'static Scenario]) -> CleanRuns {
    let mut all = CleanRuns::new();
    for world in worlds {
        for &scenario in scenarios {
            let verdict = look(world, scenario, None);
            let name = scenario.name;
            assert!(
                verdict.violations.is_empty() && verdict.ran.code() == Some(scenario.code()),
                "{}/{name} without faults: {}, {:?}\n{}",
                world.pair.name(),
                verdict.ran.output.status,
                verdict.violations,
                verdict.ran.output.stderr
            );
            all.insert((world.pair, name), verdict.ran.seen);
        }
    }
    all
}

/// What was found over all cases.
#[derive(Default)]
pub struct Findings {
    pub runs: usize,
    pub not_fired: usize,
    pub by_code: BTreeMap<Option<i32>, usize>,
    /// Kind, verb, command and answer; how often; and the first case with what was seen.
    pub groups: BTreeMap<(&'static str, Verb, String, &'static str), (usize, String)>,
    pub seconds: f64,
}

/// Files that get a line as something is found.
#[derive(Default)]
pub struct Logs {
    /// For each violation.
    pub violations: Option<std::fs::File>,
    /// For each case without one.
    pub done: Option<std::fs::File>,
}

/// Runs all of them.
pub fn run_all(cases: Vec<Case>, workers: Vec<Vec<World>>, logs: Logs) -> Findings {
    let began = Instant::now();
    let cases = Arc::new(cases);
    let next = Arc::new(AtomicUsize::new(0));
    let shared = Arc::new(Mutex::new((Findings::default(), logs)));
    let threads: Vec<_> = workers
        .into_iter()
        .map(|mut worlds| {
            let cases = Arc::clone(&cases);
            let (next, shared) = (Arc::clone(&next), Arc::clone(&shared));
            std::thread::spawn(move || {
                while let Some(case) = cases.get(next.fetch_add(1, SeqCst)) {
                    let world = worlds.iter_mut().find(|world| world.pair == case.pair);
                    let world = world.expect("each pair");
                    let verdict = look(world, case.scenario, Some(case));
                    let mut shared = shared.lock().unwrap_or_else(|e| e.into_inner());
                    let (findings, logs) = &mut *shared;
                    findings.note(case, &verdict, logs);
                }
            })
        })
        .collect();
    let failed = threads
        .into_iter()
        .filter_map(|thread| thread.join().err())
        .count();
    assert_eq!(failed, 0, "a worker failed");
    let mut shared = shared.lock().unwrap_or_else(|e| e.into_inner());
    let mut findings = std::mem::take(&mut shared.0);
    findings.seconds = began.elapsed().as_secs_f64();
    findings
}

impl Findings {
    fn note(&mut self, case: &Case, verdict: &Verdict, logs: &mut Logs) {
        use std::io::Write as _;
        self.runs += 1;
        self.not_fired += usize::from(!verdict.fired);
        *self.by_code.entry(verdict.ran.code()).or_default() += 1;
        let mut lines = String::new();
        for violation in &verdict.violations {
            let (verb, command, answer) = case.group();
            let key = (violation.kind, verb, command, answer);
            let detail: String = violation.detail.chars().take(300).collect();
            let detail = detail.replace('\n', " / ");
            let code = verdict.ran.code().unwrap_or(-1);
            let line = format!("{case}  exit {code}: {detail}");
            lines += &format!("{}\t{line}\n", violation.kind);
            self.groups.entry(key).or_insert((0, line)).0 += 1;
        }
        if self.runs.is_multiple_of(500) {
            eprintln!("{} runs, {} violations", self.runs, self.violations());
        }
        let (log, line) = match verdict.violations.is_empty() {
            true => (&mut logs.done, format!("{case}\n")),
            false => (&mut logs.violations, lines),
        };
        if let Some(log) = log {
            // Losing a line of the log is all that can go wrong.
            let _ = log.write_all(line.as_bytes());
        }
    }

    pub fn violations(&self) -> usize {
        self.groups.values().map(|(count, _)| count).sum()
    }

    pub fn text(&self) -> String {
        let mut text = format!(
            "{} runs in {:.0} s, {} in which the fault did not come up; exit codes: {:?}\n",
            self.runs, self.seconds, self.not_fired, self.by_code
        );
        text += &format!(
            "{} violations in {} groups\n",
            self.violations(),
            self.groups.len()
        );
        let mut kind_before = "";
        for ((kind, verb, command, answer), (count, first)) in &self.groups {
            if *kind != kind_before {
                text += &format!("\n{kind}\n");
                kind_before = kind;
            }
            text += &format!("  {verb:?} {command} {answer}: {count}\n    {first}\n");
        }
        text
    }
}
