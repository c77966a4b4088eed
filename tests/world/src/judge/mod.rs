//! What the tool claims, held against what was: by the model's own knowledge, never by the tool's.

pub mod archive;
pub mod clock;
mod excuse;
pub mod truth;
pub mod wish;

use std::collections::{BTreeMap, BTreeSet};

use redis_migrate_format::header::ConsistencyReached;

use self::excuse::Excuses;
use self::truth::{Truth, lives, same};
use self::wish::{OnConflict, Verb, Wish};
use crate::net::{BEGAN_MS, By, Change, Held, Place};

/// How a run of the tool ended.
#[derive(Debug)]
pub enum Ended {
    /// By itself.
    Told(Told),
    /// Its process was killed.
    Killed,
    /// Not at all.
    Endless(String),
    /// By a panic.
    Panicked(String),
}

/// What the tool said of a run.
#[derive(Debug)]
pub struct Told {
    /// The exit code.
    pub code: u8,
    /// The error's text.
    pub error: Option<String>,
    /// What consistency it claims.
    pub reached: Option<ConsistencyReached>,
    /// Records that the source gave, and that the sink took.
    pub counts: (u64, u64),
    /// Keys that were deleted at the source, and those of which it says that it does not know.
    pub source_deleted: u64,
    /// See `source_deleted`.
    pub source_unknown: u64,
    /// It says that the destination was started anew, and lost what it had acknowledged.
    pub memory_lost: bool,
    /// What its summary names as problems.
    pub problems: Vec<String>,
}

/// A key that the tool named as failed.
#[derive(Debug, Clone, Copy)]
pub struct Named {
    /// In which way.
    pub kind: &'static str,
    /// When, by the tool's clock, Unix ms.
    pub at_ms: u64,
    /// How many it had named before.
    pub nth: usize,
}

/// A run of the tool, and what was there before and after it.
#[derive(Debug)]
pub struct Ran<'a> {
    /// What was asked for.
    pub wish: &'a Wish,
    /// How it ended.
    pub ended: &'a Ended,
    /// What it printed, a line each.
    pub lines: &'a [String],
    /// Keys that it named as failed; those too that an earlier run named, where this one says that it
    /// goes on without them.
    pub named: &'a BTreeMap<Place, Named>,
    /// What the source's keys were; for `import` the archive's.
    pub source: Truth,
    /// Of an archive that is read: what later records stand for.
    pub former: BTreeMap<Place, Vec<Held>>,
    /// What the destination's keys were.
    pub target: Truth,
    /// What the archive holds that it wrote.
    pub archive: Option<archive::Content>,
    /// The destination is written to by others, or loses keys by itself.
    pub is_disturbed: bool,
    /// The same was asked for before, and done, and nothing has changed since.
    pub is_again: bool,
    /// Nothing struck: there is no reason to fail.
    pub is_calm: bool,
}

/// What keys of the tool's own begin with.
const OWN_KEYS: &[u8] = b"__redis-migrate:";

/// What is wrong with a run; nothing if it is as it should be.
pub fn judge(ran: &Ran<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for line in ran.lines {
        if line.contains("this is a bug") {
            wrong.push(format!("it calls itself faulty: {line}"));
        }
    }
    match ran.ended {
        Ended::Killed => {}
        Ended::Endless(text) => wrong.push(format!("it does not end: {text}")),
        Ended::Panicked(text) => wrong.push(format!("it panicked: {text}")),
        Ended::Told(told) => {
            if let Some(error) = told
                .error
                .as_ref()
                .filter(|text| text.contains("this is a bug"))
            {
                wrong.push(format!("it calls itself faulty: {error}"));
            }
            if ran.is_calm && !matches!(told.code, 0 | 3 | 4) {
                let error = told.error.as_deref().unwrap_or_default();
                wrong.push(format!(
                    "exit {} although nothing is wrong: {error}",
                    told.code
                ));
            }
        }
    }
    if let Ended::Told(told) = ran.ended {
        the_ledger(ran, told, &mut wrong);
    }
    nothing_else_at_the_source(ran, &mut wrong);
    if ran.is_calm {
        named_with_reason(ran, &mut wrong);
    }
    match ran.wish.verb {
        Verb::Export => export(ran, &mut wrong),
        Verb::Import | Verb::Copy => written(ran, &mut wrong),
    }
    wrong
}

fn show(place: &Place) -> String {
    format!("{}/{}", place.0, place.1.escape_ascii())
}

fn show_all(places: &[Place]) -> String {
    let shown: Vec<String> = places.iter().take(6).map(show).collect();
    format!("{} ({} in all)", shown.join(" "), places.len())
}

fn show_held(held: Option<&Held>) -> String {
    let text = format!("{held:?}").replace("120, ", "");
    match text.char_indices().nth(400) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

fn is_own(place: &Place) -> bool {
    place.1.starts_with(OWN_KEYS)
}

/// Where nothing is wrong, only conflicts are named, and only those that are.
fn named_with_reason(ran: &Ran<'_>, wrong: &mut Vec<String>) {
    for (place, named) in ran.named {
        if named.kind != "conflict" {
            wrong.push(format!("{} is named as {}", show(place), named.kind));
            continue;
        }
        // The name is the source's or the destination's, by where it was found. Answers are read when
        // the next keys come from the source, so it may be gone by the time that it is named.
        let stood = |place: &Place| {
            let at = (named.at_ms.saturating_sub(BEGAN_MS) + 1) * 1000;
            // A run that goes on names again what the one before it found; that may be gone since.
            let stood_then = ran.wish.resumes && ran.target.ever_stood(at, place);
            stood_then || ran.target.was_in_the_way(at, place)
        };
        let into = (ran.wish.into_db(place.0), place.1.clone());
        if !stood(&into) && !stood(place) {
            wrong.push(format!("{} is called a conflict with nothing", show(place)));
        }
    }
}

/// What is counted is what was.
fn the_ledger(ran: &Ran<'_>, told: &Told, wrong: &mut Vec<String>) {
    if told.code != 0 {
        return;
    }
    if told.counts.0 != told.counts.1 {
        wrong.push(format!(
            "the source gave {} records, and {} arrived",
            told.counts.0, told.counts.1
        ));
    }
    // A server gives a key its last millisecond, and DEL counts it in that one, too.
    let may_stand = |held: &Held, ms: u64| held.expire_at.is_none_or(|at| at >= ms);
    let stands = |held: &Held, ms: u64| lives(held, ms.saturating_sub(1));
    let gone = |lived: &dyn Fn(&Held, u64) -> bool| -> Vec<&Place> {
        let is_deletion = |change: &&Change| {
            let ms = ran.source.ms(change.at);
            let lived = change.before.as_ref().is_some_and(|held| lived(held, ms));
            change.by == By::Tool && lived && change.after.is_none() && !is_own(&change.place)
        };
        let gone = ran.source.changes.iter().filter(is_deletion);
        gone.map(|change| &change.place).collect()
    };
    // A hash whose fields have all expired goes by itself, or by the DEL that comes first. A key that
    // came back with a restart is deleted twice.
    let distinct: BTreeSet<&Place> = gone(&stands).into_iter().collect();
    let (least, most) = (distinct.len() as u64, gone(&may_stand).len() as u64);
    // Of some it may say that it does not know, where an answer was lost.
    let (sure, unsure) = (told.source_deleted, told.source_unknown);
    if ran.wish.deletes_source && (sure > most || sure + unsure < least) {
        wrong.push(format!(
            "{sure} keys are said to be deleted, {unsure} perhaps, and {least} to {most} were"
        ));
    }
    if ran.is_calm && unsure > 0 {
        wrong.push(format!(
            "of {unsure} keys it says that it does not know, and no answer was lost"
        ));
    }
    if ran.is_again {
        let (before, after) = (&ran.target.start, ran.target.end());
        let ms = ran.target.end_ms;
        let is_other = |place: &&Place| match (before.get(*place), after.get(*place)) {
            (Some(before), Some(after)) => !same(before, after, ms),
            (Some(held), None) | (None, Some(held)) => lives(held, ms),
            (None, None) => false,
        };
        let mut places = before.keys().chain(after.keys());
        if let Some(place) = places.find(is_other) {
            wrong.push(format!("a second run changed {}", show(place)));
        }
    }
}

/// Between the last look at a destination and the deletion at the source lies so much time at most.
const LOOK_AND_DELETE_US: u64 = 50_000;

fn says_gone_from_both_ends(ran: &Ran<'_>) -> bool {
    match ran.ended {
        Ended::Told(told) => {
            let error = told.error.as_ref();
            told.code == 1 && error.is_some_and(|text| text.contains("may be gone from both ends"))
        }
        _ => false,
    }
}

/// The tool changes nothing where it only reads, and deletes only what it may.
fn nothing_else_at_the_source(ran: &Ran<'_>, wrong: &mut Vec<String>) {
    if ran.wish.verb == Verb::Import {
        return;
    }
    let by_tool = ran
        .source
        .changes
        .iter()
        .filter(|change| change.by == By::Tool);
    for change in by_tool.filter(|change| !is_own(&change.place)) {
        let ms = ran.source.ms(change.at);
        let Some(before) = change.before.as_ref().filter(|held| lives(held, ms)) else {
            continue;
        };
        if change
            .after
            .as_ref()
            .is_some_and(|after| same(before, after, ms))
        {
            // Fields that had expired were found.
            continue;
        }
        if change.after.is_some() || !ran.wish.deletes_source {
            wrong.push(format!(
                "the tool changed {} at the source",
                show(&change.place)
            ));
            continue;
        }
        let into = (ran.wish.into_db(change.place.0), change.place.1.clone());
        let stood = ran.target.at(change.at, &into);
        // It may be lost between the last look at it and the deletion, if the run says so.
        let since = change.at.saturating_sub(LOOK_AND_DELETE_US);
        let lost = ran.target.lost_between(since, change.at, &into);
        let stood = lost.filter(|_| says_gone_from_both_ends(ran)).or(stood);
        if !stood.is_some_and(|stood| same(stood, before, ran.source.end_ms)) {
            wrong.push(format!(
                "{} was deleted at the source as {}, and the destination held {}",
                show(&change.place),
                show_held(Some(before)),
                show_held(stood)
            ));
        }
    }
}

/// Whether a destination may hold `after`, where the source had `version` and it held `before`.
fn fits(
    policy: OnConflict,
    version: Option<&Held>,
    before: Option<&Held>,
    after: Option<&Held>,
    ms: u64,
) -> bool {
    let equal = |one: Option<&Held>, other: Option<&Held>| match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => same(one, other, ms),
        (Some(held), None) | (None, Some(held)) => !lives(held, ms),
    };
    let stays = equal(before, after);
    match (version, before) {
        (None, None) => after.is_none() || stays,
        // What was written and went away at the source goes away again.
        (None, Some(_)) => stays || (policy == OnConflict::Replace && after.is_none()),
        (Some(_), None) => equal(version, after),
        (Some(_), Some(before)) => match policy {
            OnConflict::Replace => equal(version, after),
            // Gone meanwhile, it is in nobody's way.
            _ => stays || (!lives(before, ms) && equal(version, after)),
        },
    }
}

fn export(ran: &Ran<'_>, wrong: &mut Vec<String>) {
    let Ended::Told(told) = ran.ended else { return };
    let is_good = matches!(told.code, 0 | 3 | 4);
    let Some(content) = &ran.archive else {
        if is_good {
            wrong.push(format!("exit {}, and no archive", told.code));
        }
        return;
    };
    if !is_good {
        return;
    }
    let after = |place: &Place| content.keys.get(place);
    compare(
        ran,
        (told.code, Some(&content.reached)),
        &content.keys,
        &content.keys,
        &|place, version| {
            fits(
                OnConflict::Replace,
                version,
                None,
                after(place),
                ran.source.end_ms,
            )
        },
        wrong,
    );
}

fn written(ran: &Ran<'_>, wrong: &mut Vec<String>) {
    if ran.is_disturbed {
        return;
    }
    let policy = ran.wish.on_conflict;
    let end_ms = ran.target.end_ms.max(ran.source.end_ms);
    let last = ran.target.end();
    // By the source's names: where it came from is where it is looked for.
    let into = |place: &Place| (ran.wish.into_db(place.0), place.1.clone());
    let code = match ran.ended {
        Ended::Told(told) => told.code,
        _ => u8::MAX,
    };
    // What an archive claims of its source was judged when it was written.
    let reached = match ran.ended {
        Ended::Told(told) if ran.wish.verb == Verb::Copy => told.reached.as_ref(),
        _ => None,
    };
    // What others wrote there is theirs.
    let others = ran
        .target
        .changes
        .iter()
        .filter(|change| change.by == By::Clients);
    let others: BTreeSet<&Place> = others.map(|change| &change.place).collect();
    // What the destination itself lost by a restart or a failover is nobody's writing.
    let lost = ran.target.lost();
    let versions = ran.source.versions();
    let sources: BTreeMap<Place, &Vec<Option<&Held>>> = versions
        .iter()
        .filter(|(place, _)| ran.wish.wants_db(place.0))
        .map(|(place, versions)| (into(place), versions))
        .collect();
    // What stands as a source that lives had it is followed from there on, as what an earlier copy
    // has left, if that is how it was read; else it is in the way.
    let may_follow = |into: &Place| {
        let known = sources.get(into).filter(|_| ran.wish.verb == Verb::Copy);
        let mut known = known.into_iter().flat_map(|list| list.iter().flatten());
        let before = ran.target.start.get(into);
        before.is_some_and(|before| known.any(|version| same(version, before, end_ms)))
    };
    let fits = |place: &Place, version: Option<&Held>| {
        let into = into(place);
        if others.contains(&into) {
            return true;
        }
        let (before, after) = (ran.target.start.get(&into), last.get(&into));
        let is_kept_out = policy != OnConflict::Replace && ran.target.was_left_over(&into);
        (is_kept_out && after.is_none())
            || fits(policy, version, before, after, end_ms)
            || (may_follow(&into) && fits(OnConflict::Replace, version, before, after, end_ms))
            || (lost.contains(&into) && fits(policy, version, None, after, end_ms))
    };
    if matches!(code, 0 | 3 | 4) && !ran.wish.deletes_source {
        compare(ran, (code, reached), &BTreeMap::new(), &last, &fits, wrong);
    }
    // Whatever happened: what stands there is what stood there, or what the source had.
    let places: BTreeSet<&Place> = last.keys().chain(ran.target.start.keys()).collect();
    for place in places {
        let (before, after) = (ran.target.start.get(place), last.get(place));
        let is_as_before = match (before, after) {
            (Some(before), Some(after)) => same(before, after, end_ms),
            (Some(before), None) => !lives(before, end_ms),
            (None, None) => true,
            (None, Some(_)) => false,
        };
        let is_theirs = others.contains(place) || lost.contains(place);
        if is_as_before || (is_own(place) && code != 0) || is_theirs {
            continue;
        }
        let known = sources.get(place).map_or(&[][..], |versions| &versions[..]);
        let former = ran.former.iter().filter(|(from, _)| into(from) == *place);
        let former = former.flat_map(|(_, list)| list);
        let lasts = excuse::lasts(ran.ended, place);
        let may_be = known
            .iter()
            .flatten()
            .copied()
            .chain(former)
            .any(|version| match after {
                Some(after) if lasts && after.expire_at.is_none() => {
                    same(&version.lasting(), after, end_ms)
                }
                Some(after) => same(version, after, end_ms),
                None => !lives(version, end_ms),
            })
            || (after.is_none()
                && known.iter().any(Option::is_none)
                && (policy == OnConflict::Replace || may_follow(place)));
        if !may_be {
            wrong.push(format!(
                "the destination holds {} at {}, which the source never had: {}",
                show_held(after),
                show(place),
                known
                    .iter()
                    .copied()
                    .map(show_held)
                    .collect::<Vec<_>>()
                    .join(" | ")
            ));
        }
    }
    if policy != OnConflict::Replace {
        nothing_overwritten(ran, &sources, wrong);
    }
}

/// The first write of the tool to a key finds nothing there.
fn nothing_overwritten(
    ran: &Ran<'_>,
    sources: &BTreeMap<Place, &Vec<Option<&Held>>>,
    wrong: &mut Vec<String>,
) {
    let mut written: BTreeSet<&Place> = BTreeSet::new();
    let mut followed: BTreeSet<&Place> = BTreeSet::new();
    for change in ran.target.changes.iter().filter(|one| !is_own(&one.place)) {
        let ms = ran.target.ms(change.at);
        let stood = change.before.as_ref().filter(|held| lives(held, ms));
        let is_like = |version: &Held| stood.is_some_and(|stood| same(version, stood, ms));
        // Of a source that lives, what stands as the source had it during the run is followed from
        // there on, as what the tool has written: whoever writes there later is overwritten.
        let mut lived = sources.get(&change.place).into_iter().copied().flatten();
        // A value past its time leaves nothing, and the server says OK to it all the same.
        let is_past = |version: &Held| !lives(version, ms);
        let is_followed = |version: &Held| is_like(version) || is_past(version);
        if ran.wish.verb == Verb::Copy && lived.any(|version| version.is_some_and(is_followed)) {
            followed.insert(&change.place);
        }
        if change.by != By::Tool || !written.insert(&change.place) {
            continue;
        }
        let is_same = change.after.as_ref().is_some_and(is_like);
        // What stands as an earlier record of the archive has it is taken for the work of an earlier
        // run, so that a later record of the key still counts.
        let of_this_key = ran.former.iter().filter(|(from, _)| {
            let into = (ran.wish.into_db(from.0), &from.1);
            into == (change.place.0, &change.place.1)
        });
        let mut former = of_this_key.flat_map(|(_, list)| list);
        let is_ours = followed.contains(&change.place) || former.any(is_like);
        if stood.is_some() && !is_same && !is_ours {
            let policy = ran.wish.on_conflict;
            wrong.push(format!(
                "{} was overwritten under {policy:?}: {} by {}",
                show(&change.place),
                show_held(stood),
                show_held(change.after.as_ref())
            ));
        }
    }
}

/// Every key fits one of its versions, and where an instant is claimed, all fit that one.
fn compare(
    ran: &Ran<'_>,
    (code, reached): (u8, Option<&ConsistencyReached>),
    content: &BTreeMap<Place, Held>,
    there: &BTreeMap<Place, Held>,
    fits: &dyn Fn(&Place, Option<&Held>) -> bool,
    wrong: &mut Vec<String>,
) {
    let versions = ran.source.versions();
    let excuses = Excuses::of(ran);
    let is_excused = |place: &Place| excuses.excuse(place);
    let mut misfits = Vec::new();
    for (place, versions) in &versions {
        if ran.wish.wants_db(place.0)
            && !is_own(place)
            && !is_excused(place)
            && !versions.iter().any(|version| fits(place, *version))
        {
            misfits.push((*place).clone());
        }
    }
    // What had expired before the run may still be told by the source, and is nothing anywhere.
    let is_stray = |(place, held): &(&Place, &Held)| {
        let is_leftover = || ran.source.had_expired(place, held);
        !versions.contains_key(*place) && !is_own(place) && !is_leftover()
    };
    let strays = content.iter().filter(is_stray);
    misfits.extend(strays.map(|(place, _)| place.clone()));
    if !misfits.is_empty() {
        let place = &misfits[0];
        let list = versions.get(place).cloned().unwrap_or_default();
        let list: Vec<String> = list.into_iter().map(show_held).collect();
        let there = there.get(&(ran.wish.into_db(place.0), place.1.clone()));
        wrong.push(format!(
            "exit {code}, and these are none of what the source had: {}; the first was {} and is {}",
            show_all(&misfits),
            list.join(" | "),
            show_held(there)
        ));
        return;
    }
    let Some(ConsistencyReached::Exact(instants)) = reached else {
        return;
    };
    let is_meant =
        |place: &&Place| ran.wish.wants_db(place.0) && !is_own(place) && !is_excused(place);
    let places: BTreeSet<Place> = versions.keys().copied().filter(is_meant).cloned().collect();
    let off = clock::instant_off(&ran.source, ran.lines);
    // Each node of a cluster has an instant of its own.
    if instants.len() > 1 {
        let moments: Vec<u64> = instants.iter().map(|(_, at)| *at).collect();
        let is_off = |place: &&Place| !ran.source.fits_near(place, &moments, 2 + off, fits);
        let misfits: Vec<Place> = places.iter().filter(is_off).cloned().collect();
        if !misfits.is_empty() {
            let text = show_all(&misfits);
            wrong.push(format!(
                "it is called exact at {instants:?}, and was not so: {text}"
            ));
        }
        return;
    }
    match ran.source.instants(&places, fits) {
        Err(fewest) => wrong.push(format!(
            "it is called exact at {instants:?}, and never was so: {}",
            show_all(&fewest)
        )),
        Ok(found) => {
            // One node: the claimed instant is one of those.
            if let [(_, at)] = instants[..]
                && !found
                    .iter()
                    .any(|(from, to)| from.saturating_sub(1 + off) <= at && at <= to + 1 + off)
            {
                wrong.push(format!(
                    "it is called exact at {at}, and was so only in {found:?}"
                ));
            }
        }
    }
}
