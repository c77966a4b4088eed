//! Writers against model destinations, without a server: many seeds, and scripts for what chance does
//! not bring about. Every state and every transition is seen by one of them.

mod model;
mod scripts;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use self::model::{Faults, Model, Run, Story};
use super::item::InFlight;
use super::work::{Do, Drain, Phase};
use crate::policy::{Method, OnConflict};
use crate::sink::server::held::Repeats;

/// A value of one of several kinds, by name.
pub(super) trait Named {
    /// Of what.
    const KIND: &'static str;
    /// All kinds.
    const NAMES: &'static [&'static str];
    /// Which of them.
    fn name(&self) -> &'static str;
}

macro_rules! named {
    ($kind:ident: $($variant:ident),+ $(,)?) => {
        impl $crate::sink::server::writer::tests::Named for $kind {
            const KIND: &'static str = stringify!($kind);
            const NAMES: &'static [&'static str] = &[$(stringify!($variant)),+];

            fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => stringify!($variant)),+
                }
            }
        }
    };
}
pub(super) use named;

thread_local! {
    /// What was seen, by kind; and all that there is.
    static SEEN: RefCell<BTreeMap<&'static str, BTreeSet<&'static str>>> =
        RefCell::default();
}

/// Notes that this was seen.
pub(super) fn mark<T: Named>(value: &T) {
    let key = match std::any::type_name::<T>().contains("libraries") {
        true => "libraries::Need",
        false => T::KIND,
    };
    SEEN.with_borrow_mut(|seen| seen.entry(key).or_default().insert(value.name()));
}

pub(super) fn mark_all(todo: &Do, drain: &Drain, phase: &Phase) {
    mark(todo);
    mark(drain);
    mark(phase);
    if let Do::Ask(_, query) = todo {
        mark(query);
    }
}

pub(super) fn mark_sent(sent: &InFlight) {
    mark(sent);
    if let Some(item) = sent.item() {
        mark(&item.task);
    }
}

/// What of a kind was not seen.
fn unseen<T: Named>(key: &'static str) -> Vec<String> {
    SEEN.with_borrow(|seen| {
        let seen = seen.get(key);
        let is_unseen = |name: &&&str| seen.is_none_or(|seen| !seen.contains(**name));
        let names = T::NAMES.iter().filter(is_unseen);
        names.map(|name| format!("{key}::{name}")).collect()
    })
}

/// What these runs do not bring about: live tests with modules do.
const ELSEWHERE: &[&str] = &["Query::Classes"];

fn stories() -> Vec<Story> {
    let mut stories = Vec::new();
    let policies = [OnConflict::Fail, OnConflict::Skip, OnConflict::Replace];
    for on_conflict in policies {
        for repeats in [Repeats::No, Repeats::Live, Repeats::Archive] {
            for method in [Method::Auto, Method::Commands] {
                for nodes in [1, 3] {
                    stories.push(Story {
                        on_conflict,
                        repeats,
                        method,
                        nodes,
                        ..Story::default()
                    });
                }
            }
        }
    }
    stories
}

fn run(story: Story, faults: Faults, seed: u64) -> Run {
    Model::new(story, faults, seed).run()
}

#[test]
fn whatever_happens_on_the_way_keys_stand_as_they_should() {
    let seeds = std::env::var("WRITER_SEEDS").ok();
    let seeds = seeds.and_then(|seeds| seeds.parse().ok()).unwrap_or(3);
    for seed in 0..seeds {
        for story in stories() {
            for faults in [Faults::none(), Faults::some(), Faults::many()] {
                let (told, faults_told) = (format!("{story:?}"), format!("{faults:?}"));
                let run = run(story.clone(), faults, seed);
                if let Err(why) = run.check() {
                    panic!("seed {seed}, {told}, {faults_told}: {why}");
                }
            }
        }
    }
}

#[test]
fn every_state_and_every_transition_is_reached() {
    for seed in 0..2 {
        for story in stories() {
            for dry_run in [false, true] {
                let story = Story {
                    dry_run,
                    ..story.clone()
                };
                run(story.clone(), Faults::some(), seed);
                run(story, Faults::many(), seed);
            }
        }
    }
    scripts::all();
    let all = [
        unseen::<super::item::Task>("Task"),
        unseen::<super::item::Stage>("Stage"),
        unseen::<InFlight>("InFlight"),
        unseen::<super::databases::Gate>("Gate"),
        unseen::<super::outcome::Then>("Then"),
        unseen::<super::judge::Verdict>("Verdict"),
        unseen::<super::judge::Standing>("Standing"),
        unseen::<super::judge::Foreseen>("Foreseen"),
        unseen::<super::intake::Judged>("Judged"),
        unseen::<super::lane::Link>("Link"),
        unseen::<super::lane::Met>("Met"),
        unseen::<Do>("Do"),
        unseen::<super::work::Query>("Query"),
        unseen::<Drain>("Drain"),
        unseen::<Phase>("Phase"),
        unseen::<super::closing::Step>("Step"),
        unseen::<super::libraries::Need>("libraries::Need"),
        unseen::<super::memory::LeftAlone>("LeftAlone"),
        unseen::<super::memory::Judgement>("Judgement"),
    ];
    let unseen = all.concat();
    let unseen: Vec<_> = unseen
        .iter()
        .filter(|name| !ELSEWHERE.contains(&name.as_str()))
        .collect();
    assert!(unseen.is_empty(), "never reached: {unseen:#?}");
}
