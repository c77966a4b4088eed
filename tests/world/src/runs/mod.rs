//! Whole runs: a script is carried out, verb by verb, and judged.

mod phase;
mod setup;

use std::collections::BTreeMap;
use std::path::Path;

use crate::net::Counts;
use crate::script::{Act, Script};

pub use self::phase::quiet_panics;
pub(crate) use self::setup::{PRIMARY, TOOL, port_of};

/// What came of a script.
#[derive(Debug, Default)]
pub struct Report {
    /// What is wrong, a line each; nothing if all is well.
    pub wrong: Vec<String>,
    /// The digest of everything that was said: the same script gives the same.
    pub digest: u64,
    /// What struck, and how often.
    pub struck: Counts,
    /// Exit codes of the runs; 255 for one that was killed.
    pub codes: Vec<u8>,
    /// What the runs printed.
    pub lines: Vec<String>,
    /// What happened, where that was asked for.
    pub log: Vec<String>,
}

/// Carries a script out, with its files in `directory`, which is emptied.
pub fn run(script: &Script, directory: &Path, with_log: bool) -> Report {
    let mut report = Report::default();
    let world = setup::world(script);
    if with_log {
        world.state(crate::net::State::keep_log);
    }
    empty(directory);
    let mut before = None;
    for phase in &script.phases {
        let went = phase::run(&world, script, phase, directory, before.take(), &mut report);
        before = Some(went);
        if !report.wrong.is_empty() {
            break;
        }
    }
    world.state(|state| {
        report.digest = state.digest();
        report.struck = std::mem::take(&mut state.struck);
        let met: u64 = state
            .nodes
            .iter()
            .map(|node| node.server.faults_met())
            .sum();
        if met > 0 {
            report.struck.insert("odd answer", met);
        }
        report.log = state.log_lines();
    });
    report
}

/// What a script has in store, by kind.
pub fn planned(script: &Script) -> BTreeMap<&'static str, u64> {
    let mut planned = BTreeMap::new();
    for event in script.phases.iter().flat_map(|phase| &phase.events) {
        *planned.entry(event.act.kind()).or_default() += 1;
    }
    planned
}

/// Whether nothing of it should keep the tool from succeeding, up to this run.
fn is_calm(script: &Script, which: usize) -> bool {
    let nodes = script.nodes.iter().all(|node| {
        node.max_memory == 0
            && node.refused.is_empty()
            && node.forbidden_dbs.is_empty()
            && node.max_clients == 0
    });
    let follows = |at: usize| script.phases[at].argv.iter().any(|word| word == "--follow");
    let mut phases = script.phases.iter().enumerate().take(which + 1);
    nodes
        && phases.all(|(at, phase)| {
            phase.events.iter().all(|event| match event.act {
                Act::Do(..) => true,
                Act::Stop => follows(at),
                Act::Kill => at < which,
                _ => false,
            })
        })
}

fn empty(directory: &Path) {
    let _ = std::fs::create_dir_all(directory);
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let _ = std::fs::remove_file(entry.path());
    }
}
