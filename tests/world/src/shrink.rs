//! From a script that fails to a short one that fails in the same way.

use std::path::Path;

use crate::runs::run;
use crate::script::{Act, Script};

/// Runs that are spent on one script.
const MOST_RUNS: u32 = 3000;

/// A shorter script that fails as this one does, and how many runs it took.
pub fn shrink(script: &Script, directory: &Path) -> (Script, u32) {
    let mut shrinking = Shrinking {
        kind: kind(&run(script, directory, false).wrong),
        directory,
        runs: 1,
        best: script.clone(),
    };
    if shrinking.kind.is_empty() {
        return (script.clone(), 1);
    }
    loop {
        let before = size(&shrinking.best);
        shrinking.phases();
        shrinking.events();
        shrinking.fill();
        shrinking.network();
        if size(&shrinking.best) == before || shrinking.runs >= MOST_RUNS {
            break;
        }
    }
    (shrinking.best, shrinking.runs)
}

struct Shrinking<'a> {
    /// What is wrong, without names and numbers.
    kind: String,
    directory: &'a Path,
    runs: u32,
    best: Script,
}

/// What is wrong, without names and numbers: shorter scripts name other keys.
fn kind(wrong: &[String]) -> String {
    let first = wrong.first().map_or("", String::as_str);
    let text = first.split_once("): ").map_or(first, |(_, text)| text);
    let end = text.find([';', '{']).unwrap_or(text.len());
    text[..end]
        .split(' ')
        .filter(|word| !word.contains(|byte: char| byte.is_ascii_digit() || byte == '/'))
        .take(8)
        .collect::<Vec<_>>()
        .join(" ")
}

fn size(script: &Script) -> usize {
    let events: usize = script
        .phases
        .iter()
        .map(|phase| 1 + phase.events.len())
        .sum();
    let words: usize = script.fill.iter().map(|fill| fill.words.len()).sum();
    10 * events + words + script.net.pieces as usize
}

impl Shrinking<'_> {
    /// Takes the script if it fails in the same way.
    fn try_out(&mut self, script: Script) -> bool {
        if self.runs >= MOST_RUNS {
            return false;
        }
        self.runs += 1;
        let fails = kind(&run(&script, self.directory, false).wrong) == self.kind;
        if fails {
            self.best = script;
        }
        fails
    }

    /// Drops runs of the list's elements, long ones first.
    fn drop_from(&mut self, count: usize, drop: &dyn Fn(&mut Script, usize, usize)) {
        let mut left = count;
        let mut piece = count.div_ceil(2);
        while piece > 0 {
            let mut at = 0;
            while at < left {
                let end = (at + piece).min(left);
                let mut shorter = self.best.clone();
                drop(&mut shorter, at, end);
                match self.try_out(shorter) {
                    true => left -= end - at,
                    false => at = end,
                }
            }
            piece = match piece {
                1 => 0,
                more => more.div_ceil(2),
            };
        }
    }

    fn phases(&mut self) {
        let count = self.best.phases.len();
        self.drop_from(count, &|script, at, end| drop(script.phases.drain(at..end)));
    }

    fn events(&mut self) {
        for phase in 0..self.best.phases.len() {
            let count = self.best.phases[phase].events.len();
            self.drop_from(count, &|script, at, end| {
                drop(script.phases[phase].events.drain(at..end));
            });
        }
    }

    fn fill(&mut self) {
        let count = self.best.fill.len();
        self.drop_from(count, &|script, at, end| drop(script.fill.drain(at..end)));
        for at in 0..self.best.fill.len() {
            let words = self.best.fill[at].words.len();
            if words > 6 {
                let mut shorter = self.best.clone();
                shorter.fill[at].words.truncate(4);
                self.try_out(shorter);
            }
        }
    }

    fn network(&mut self) {
        let mut simple = self.best.clone();
        simple.net.pieces = 0;
        simple.net.jitter_us = 0;
        if simple != self.best {
            self.try_out(simple);
        }
    }
}

/// How many things of a script are no clients' commands.
pub fn faults(script: &Script) -> usize {
    let events = script.phases.iter().flat_map(|phase| &phase.events);
    events
        .filter(|event| !matches!(event.act, Act::Do(..)))
        .count()
}
