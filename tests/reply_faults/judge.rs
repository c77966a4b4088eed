//! Whether a run kept its promises. It knows nothing of how the tool works: only what stood where
//! before and after, and what the tool said.

use std::collections::BTreeSet;

use super::case::Case;
use super::data::{self, Place};
use super::scenario::{Policy, Ran, Scenario, Verb};
use super::world::{Snapshot, alike, same_value};
use crate::support::answers::Answer;
use crate::support::dataset::escaped;
use crate::support::reading::State;

/// A promise that was not kept: its kind, and what was seen.
#[derive(Clone, Debug)]
pub struct Violation {
    pub kind: &'static str,
    pub detail: String,
}

/// The most memory that a run on this data may take: 64 MiB, and what a program without optimisation
/// is larger.
pub const MEMORY_KIB: u64 = (64 + if cfg!(debug_assertions) { 16 } else { 0 }) * 1024;

/// How names begin that the tool uses for itself.
const TEMPORARY: &[u8] = b"__redis-migrate";

/// What is known of a run.
pub struct Facts<'a> {
    pub scenario: &'static Scenario,
    /// `None` for a run without faults.
    pub case: Option<&'a Case>,
    pub ran: &'a Ran,
    /// The source before and after.
    pub given: &'a Snapshot,
    /// What is to arrive: the same, but where keys come more than once in an archive.
    pub wanted: &'a Snapshot,
    pub source: &'a Snapshot,
    /// The destination before and after; after an export what an import of the archive makes of
    /// an empty server.
    pub before: &'a Snapshot,
    pub after: &'a Snapshot,
}

#[derive(Default)]
pub struct Judge {
    pub found: Vec<Violation>,
}

pub fn is_temporary(place: &Place) -> bool {
    place.1.starts_with(TEMPORARY)
}

fn show(place: &Place) -> String {
    format!("db {} {}", place.0, escaped(&place.1))
}

/// Some of many.
fn some<'a>(places: impl IntoIterator<Item = &'a Place>) -> String {
    let all: Vec<String> = places.into_iter().map(show).collect();
    match all.len() {
        0..=4 => all.join(", "),
        many => format!("{} and {} more", all[..4].join(", "), many - 4),
    }
}

impl Judge {
    fn add(&mut self, kind: &'static str, detail: impl Into<String>) {
        self.found.push(Violation {
            kind,
            detail: detail.into(),
        });
    }

    /// Adds one violation if there are any such places.
    fn any(&mut self, kind: &'static str, places: &[&Place]) {
        if !places.is_empty() {
            self.add(kind, some(places.iter().copied()));
        }
    }

    pub fn judge(mut self, facts: &Facts<'_>) -> Vec<Violation> {
        self.ending(facts);
        self.source(facts);
        match facts.scenario.verb {
            Verb::Import | Verb::Copy => {
                self.destination(facts);
                self.counts(facts);
            }
            Verb::Export => {
                self.archive(facts);
                self.counts(facts);
            }
            Verb::Diff | Verb::Against => self.comparison(facts),
            Verb::Doctor | Verb::DoctorSource => self.untouched(facts),
        }
        self.found
    }

    /// How it ended: by itself, in time, with one of its codes and a word.
    fn ending(&mut self, facts: &Facts<'_>) {
        let ran = facts.ran;
        // Honest answers have twice the room: one run on a busy machine took more than hostile ones
        // may, and why is not known.
        let is_hostile = facts
            .case
            .is_some_and(|case| Answer::HOSTILE.contains(&case.answer));
        // A string that is really sent is held like any other value: 64 MiB of it.
        let is_sent = facts
            .case
            .is_some_and(|case| case.answer == Answer::HugeString);
        let most = if is_hostile && !is_sent {
            MEMORY_KIB
        } else {
            2 * MEMORY_KIB
        };
        if ran.output.peak_memory_kib > most {
            let peak = ran.output.peak_memory_kib;
            self.add("takes too much memory", format!("{peak} KiB"));
        }
        if ran.timed_out {
            return self.add("takes too long", format!("{:?}", ran.output.elapsed));
        }
        let stderr = &ran.output.stderr;
        if stderr.contains("panicked") || stderr.contains("a mistake of the program") {
            self.add("panics, or blames itself", last_line(stderr));
        }
        let Some(code) = ran.code() else {
            return self.add("ends by a signal", format!("{}", ran.output.status));
        };
        match code {
            0 | 1 | 3 | 4 | 5 | 12 | 13 => {}
            // A snapshot that lies is damaged.
            10 if facts.case.is_some_and(|case| case.answer.is_poured()) => {}
            10 => self.add("calls a good archive damaged", last_line(stderr)),
            _ => self.add("ends with a code that makes no sense", format!("{code}")),
        }
        match ran.summary() {
            None => self.add("prints no summary", last_line(stderr)),
            Some(said) if said["exit_code"] != code => {
                let said = &said["exit_code"];
                self.add(
                    "its summary has another exit code",
                    format!("{said}, not {code}"),
                );
            }
            _ => {}
        }
        if code != 0 && code != facts.scenario.code() && is_silent(facts) {
            self.add("fails without a word", last_line(stderr));
        }
        if code == 0 && facts.scenario.code() != 0 {
            let clean = facts.scenario.code();
            self.add("exit 0", format!("where a run without faults has {clean}"));
        }
    }

    /// Nothing is taken from the source but what stands at the destination.
    fn source(&mut self, facts: &Facts<'_>) {
        let (given, now) = (facts.given, facts.source);
        let odd = now.odd_places(given);
        let (gone, changed): (Vec<&Place>, Vec<&Place>) = odd
            .into_iter()
            .partition(|place| !now.keys.contains_key(*place));
        self.any("changes the source", &changed);
        if given.libraries != now.libraries {
            self.add("changes the source", "function libraries");
        }
        if !facts.scenario.deletes_source() {
            return self.any("deletes at the source unasked", &gone);
        }
        let lost: Vec<&Place> = gone
            .iter()
            .copied()
            .filter(|place| !alike(facts.after.keys.get(*place), given.keys.get(*place)))
            .collect();
        self.any("deleted at the source, and not at the destination", &lost);
        let said = facts.ran.number("/sink/source_deleted");
        // What is not known may be one or the other.
        let most = said + facts.ran.number("/sink/source_unknown");
        let really = gone.len() as u64;
        if facts.ran.summary().is_some() && (said > really || (most < really && is_complete(facts)))
        {
            let kind = "counts other deletions at the source than there were";
            self.add(kind, format!("{said} said, {really} gone"));
        }
    }

    fn untouched(&mut self, facts: &Facts<'_>) {
        let odd = facts.after.odd_places(facts.before);
        self.any("changes a server that it only looks at", &odd);
        if facts.after.libraries != facts.before.libraries {
            self.add(
                "changes a server that it only looks at",
                "function libraries",
            );
        }
    }

    fn destination(&mut self, facts: &Facts<'_>) {
        if !facts.scenario.writes() {
            return self.untouched(facts);
        }
        let Facts {
            wanted: arriving,
            before,
            after,
            ..
        } = *facts;
        let mut missing = Vec::new();
        for place in after.odd_places(before) {
            let was = before.keys.get(place);
            let is = after.keys.get(place);
            if is.is_some() && is_passing(facts, place) {
                continue;
            }
            let Some(wanted) = arriving.keys.get(place) else {
                self.strange(place, was, is, facts);
                continue;
            };
            match (was, is) {
                _ if alike(is, Some(wanted)) => {
                    let in_the_way = was.is_some_and(|was| !alike(Some(was), Some(wanted)));
                    if in_the_way && facts.scenario.policy != Policy::Replace {
                        self.add("overwrites against the policy", show(place));
                    }
                }
                // It was replaced, and then its source said that it had gone.
                (Some(_), None) if is_plausible(facts, 1) => {}
                (Some(_), _) => self.add("damages what stood there", show(place)),
                (None, Some(is)) if same_value(is, wanted) => {
                    self.add("leaves another expiry", show(place));
                }
                (None, Some(_)) => self.add("leaves a half or wrong value", show(place)),
                (None, None) => {}
            }
        }
        for (place, wanted) in &arriving.keys {
            let expected = expected(facts.scenario, before.keys.get(place), wanted);
            if !alike(after.keys.get(place), Some(expected)) {
                missing.push(place);
            }
        }
        self.missing(facts, &missing);
        self.libraries(facts);
    }

    /// A place that nothing is to arrive at.
    fn strange(
        &mut self,
        place: &Place,
        was: Option<&State>,
        is: Option<&State>,
        facts: &Facts<'_>,
    ) {
        match (was, is) {
            (None, Some(_)) if is_temporary(place) => {
                // Where the connection is gone it cannot be taken away.
                let is_excused = facts.case.is_some_and(loses_the_connection);
                if facts.ran.code() == Some(0) || !is_excused {
                    self.add("leaves a temporary key", show(place));
                }
            }
            (None, _) => self.add("writes where nothing belongs", show(place)),
            (Some(_), None) => self.add("deletes a stranger's key", show(place)),
            (Some(_), Some(_)) => self.add("changes a stranger's key", show(place)),
        }
    }

    /// What is not as a run without faults leaves it has to be told by name.
    fn missing(&mut self, facts: &Facts<'_>, missing: &[&Place]) {
        if missing.is_empty() || is_plausible(facts, missing.len() as u64) {
            return;
        }
        match facts.ran.code() {
            Some(0) => self.any("exit 0, and not what a run without faults leaves", missing),
            Some(3..=5) => {
                let named: BTreeSet<Place> = facts.ran.failures().into_iter().collect();
                let complaints = facts.ran.complaints();
                let unnamed: Vec<&Place> = missing
                    .iter()
                    .copied()
                    .filter(|place| !named.contains(*place) && !names_db(&complaints, place.0))
                    .collect();
                self.any("lost, and not named", &unnamed);
            }
            _ => {}
        }
    }

    fn libraries(&mut self, facts: &Facts<'_>) {
        for (name, code) in &facts.before.libraries {
            if facts.after.libraries.get(name) != Some(code) {
                self.add("loses a stranger's library", escaped(name));
            }
        }
        let complete = facts
            .given
            .libraries
            .iter()
            .all(|(name, code)| facts.after.libraries.get(name) == Some(code));
        let is_told = facts.ran.complaints().to_lowercase().contains("function");
        if !complete && facts.ran.code() == Some(0) && !is_told {
            self.add("loses function libraries without a word", "");
        }
    }

    /// What an import of the archive made, beside what the source holds.
    fn archive(&mut self, facts: &Facts<'_>) {
        let mut missing = Vec::new();
        for place in facts.after.odd_places(facts.given) {
            let wanted = facts.given.keys.get(place);
            let wanted = wanted.filter(|_| facts.scenario.wants_db(place.0));
            match (wanted, facts.after.keys.get(place)) {
                (None, None) => {}
                (None, Some(_)) => self.add("an archive with what does not belong", show(place)),
                (Some(wanted), Some(is)) if same_value(is, wanted) => {
                    self.add("an archive with another expiry", show(place));
                }
                (Some(_), Some(_)) => self.add("an archive with a wrong value", show(place)),
                (Some(_), None) => missing.push(place),
            }
        }
        match facts.ran.code() {
            Some(0 | 3 | 4) => {
                self.missing(facts, &missing);
                self.libraries(facts);
            }
            // It was run once more.
            _ if facts.scenario.resumes() => self.any("a second run does not mend it", &missing),
            _ => {}
        }
    }

    /// The ledger adds up, and its counts are what is there.
    fn counts(&mut self, facts: &Facts<'_>) {
        let ran = facts.ran;
        if ran.summary().is_none() {
            return;
        }
        let number = |name: &str| ran.number(name);
        let came = number("/source/scanned") + number("/source/reread");
        let went: u64 = ["given", "superseded", "filtered", "vanished", "failed"]
            .map(|name| number(&format!("/source/{name}")))
            .iter()
            .sum();
        let taken = number("/sink/taken");
        let settled: u64 = [
            "archived",
            "checked",
            "restored",
            "replaced_own",
            "unchanged",
            "skipped",
            "expired",
            "deleted",
            "already_gone",
            "conflicts",
            "refused",
        ]
        .map(|name| number(&format!("/sink/{name}")))
        .iter()
        .sum();
        let complete = is_complete(facts);
        if went > came || (complete && went != came) {
            self.add(
                "the source's ledger does not add up",
                format!("{came} = {went}"),
            );
        }
        if settled > taken || (complete && settled != taken) {
            self.add(
                "the sink's ledger does not add up",
                format!("{taken} = {settled}"),
            );
        }
        if facts.scenario.writes() {
            self.restored(facts);
        }
    }

    fn restored(&mut self, facts: &Facts<'_>) {
        let Facts {
            wanted: arriving,
            before,
            after,
            ran,
            ..
        } = *facts;
        let there = |side: &Snapshot, place: &Place, wanted: &State| {
            alike(side.keys.get(place), Some(wanted))
        };
        let wanted = || arriving.keys.iter();
        let equal_before = wanted().filter(|(p, w)| there(before, p, w)).count() as u64;
        let arrived = wanted()
            .filter(|(p, w)| there(after, p, w) && !there(before, p, w))
            .count() as u64;
        let restored = ran.number("/sink/restored");
        // Under `replace` what is equal already is written once more; and where a reply was lost, what
        // is found equal may be this run's work or not.
        let most = match facts.scenario.policy {
            Policy::Fail | Policy::Skip if facts.case.is_none() => arrived,
            _ => arrived + equal_before,
        };
        // It counts records, and a key may come several times; how often is known where all arrived.
        let again = ran
            .number("/source/given")
            .saturating_sub(arriving.keys.len() as u64);
        let comes_again = ran.number("/source/reread") > 0
            || ran.number("/source/scanned") > arriving.keys.len() as u64;
        let is_known = !comes_again || ran.code() == Some(0);
        if is_known && restored > most + again && !is_plausible(facts, 1) {
            let detail = format!("{restored} said, {most} arrived");
            self.add("counts as restored what is not there", detail);
        }
        let heard = restored
            + ran.number("/sink/replaced_own")
            + ran.number("/sink/unchanged")
            + ran.number("/sink/skipped")
            + ran.number("/sink/unacknowledged");
        if arrived > heard && !facts.case.is_some_and(is_unheard) {
            let detail = format!("{heard} said, {arrived} arrived");
            self.add("does not count what it restored", detail);
        }
    }

    fn comparison(&mut self, facts: &Facts<'_>) {
        self.untouched(facts);
        let ran = facts.ran;
        let differing: BTreeSet<Place> = match facts.scenario.crowd {
            data::Crowd::Similar => data::planted_differences(),
            _ => BTreeSet::new(),
        };
        let said: BTreeSet<Place> = ran.differences().into_iter().collect();
        let unread: BTreeSet<Place> = ran.unread().into_iter().collect();
        let complaints = ran.complaints();
        let invented: Vec<&Place> = said.difference(&differing).collect();
        let unseen: Vec<&Place> = differing
            .difference(&said)
            .filter(|place| !unread.contains(*place) && !names_db(&complaints, place.0))
            .collect();
        let is_plausible = is_plausible(facts, 1);
        let both: Vec<&Place> = said.intersection(&unread).collect();
        self.any("calls different what it could not read", &both);
        if ran.summary().is_some() && ran.number("/unread") != unread.len() as u64 {
            let detail = format!("{} said, {} named", ran.number("/unread"), unread.len());
            self.add("counts other keys as unread than it names", detail);
        }
        if !said.is_empty() && matches!(ran.code(), Some(0 | 3)) {
            self.add("sees differences, and ends as if it did not", some(&said));
        }
        if matches!(ran.code(), Some(0 | 3 | 5)) && !is_plausible {
            self.any("sees differences where there are none", &invented);
            self.any("does not see differences", &unseen);
            let compared = ran.number("/compared");
            let all = facts.given.keys.len() as u64;
            if ran.code() == Some(0) && compared < all {
                self.add(
                    "calls equal what it did not compare",
                    format!("{compared} of {all}"),
                );
            }
            let libraries = ran.number("/libraries/compared");
            if ran.code() == Some(0) && libraries == 0 && !ran.complaints().contains("unction") {
                self.add("calls equal what it did not compare", "function libraries");
            }
        }
    }
}

/// What a run without faults leaves at a place that the source has something for.
fn expected<'a>(scenario: &Scenario, was: Option<&'a State>, wanted: &'a State) -> &'a State {
    match was {
        Some(was) if scenario.policy != Policy::Replace => was,
        _ => wanted,
    }
}

/// Whether a place holds an earlier record of its key. It may until all of the archive was read.
fn is_passing(facts: &Facts<'_>, place: &Place) -> bool {
    facts.scenario.repeats
        && facts.ran.code() != Some(0)
        && alike(facts.after.keys.get(place), facts.given.keys.get(place))
}

fn is_complete(facts: &Facts<'_>) -> bool {
    let summary = facts.ran.summary();
    summary.is_some_and(|summary| summary["complete"] == true)
}

/// Whether the server did something and the tool was told otherwise, so that it cannot know.
fn is_unheard(case: &Case) -> bool {
    case.how != super::case::How::NotRun
}

fn loses_the_connection(case: &Case) -> bool {
    case.answer.closes() || matches!(case.answer, Answer::Late | Answer::Loading)
}

fn is_silent(facts: &Facts<'_>) -> bool {
    // The report of `doctor` is the word.
    if matches!(facts.scenario.verb, Verb::Doctor | Verb::DoctorSource) {
        return facts.ran.events.is_empty();
    }
    facts.ran.complaints().trim().is_empty()
        && facts.ran.failures().is_empty()
        && facts.ran.unread().is_empty()
}

fn names_db(complaints: &str, db: u32) -> bool {
    let db = db.to_string();
    complaints.lines().any(|line| {
        let words = line.split(|c: char| !c.is_ascii_alphanumeric());
        line.contains("database") && words.into_iter().any(|word| word == db)
    })
}

fn last_line(text: &str) -> String {
    let line = text.lines().rev().find(|line| !line.is_empty());
    line.unwrap_or("(nothing)").chars().take(300).collect()
}

/// A lie that nobody can see through: a DUMP that says nil says that the key has gone.
fn is_plausible(facts: &Facts<'_>, missing: u64) -> bool {
    let Some(case) = facts.case else { return false };
    let says_gone = case.answer == Answer::Nil && case.command.ends_with("DUMP");
    let counted = match facts.scenario.verb {
        Verb::Diff | Verb::Against => true,
        _ => {
            // One that is read again goes as a tombstone.
            facts.ran.number("/source/vanished") + facts.ran.number("/source/reread") >= missing
        }
    };
    says_gone && !case.command.starts_with("FUNCTION") && counted
}
