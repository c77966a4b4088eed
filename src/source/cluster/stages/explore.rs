//! For tests: every event in every state that can be reached.

use std::collections::BTreeSet;

use super::*;
use crate::host;

pub(super) const MAX_WAIT: Duration = Duration::from_secs(60);
pub(super) const RETRY_FOR: Duration = Duration::from_secs(30);

pub(super) fn unknown(may_pass: bool) -> Option<Unknown> {
    Some(Unknown {
        reason: "untold".to_owned(),
        may_pass,
    })
}

/// Situations that differ in what matters, by name.
fn situations() -> Vec<(&'static str, Situation)> {
    let base = |may_be_exact, is_done| Situation {
        may_be_exact,
        is_done,
        ..Situation::default()
    };
    let (calm, inexact) = (base(true, false), base(false, false));
    let untold = |may_pass, before: &Situation| Situation {
        unknown: unknown(may_pass),
        ..before.clone()
    };
    let on_the_way = |before: &Situation| Situation {
        on_the_way: Some("7".to_owned()),
        ..before.clone()
    };
    let follows = Situation {
        follows: true,
        ..on_the_way(&untold(true, &calm))
    };
    let busy = Situation {
        is_busy: true,
        ..calm.clone()
    };
    let unchanged = Situation {
        is_unchanged: true,
        ..base(true, true)
    };
    vec![
        ("follows", follows),
        ("not told yet", untold(true, &calm)),
        ("never told", untold(false, &calm)),
        (
            "never told, inexact, done",
            untold(false, &base(false, true)),
        ),
        ("on the way", on_the_way(&calm)),
        ("on the way, inexact", on_the_way(&inexact)),
        ("on the way, inexact, done", on_the_way(&base(false, true))),
        ("busy", busy),
        ("calm", calm),
        ("inexact", inexact),
        ("done, unchanged", unchanged),
        ("done, changed", base(true, true)),
        ("done, inexact", base(false, true)),
    ]
}

/// Every event, by name.
fn events() -> Vec<(String, Event)> {
    let steady = situations().into_iter();
    let steady = steady.map(|(name, one)| (format!("Steady({name})"), Event::Steady(one)));
    let others = other_events().into_iter();
    others
        .map(|(name, event)| (name.to_owned(), event))
        .chain(steady)
        .collect()
}

/// Every event but that the slots are steady.
fn other_events() -> Vec<(&'static str, Event)> {
    let changes = |moved, unanswered: bool| {
        Event::ViewTaken(SlotChanges {
            moved,
            unanswered: unanswered.then(|| "7".to_owned()),
            reason: "CLUSTERDOWN".to_owned(),
        })
    };
    let attempted = |exact: &[Option<u64>], in_time| Event::Attempted {
        exact: exact.to_vec(),
        in_time,
    };
    vec![
        ("StageEnded", Event::StageEnded),
        ("Collected", Event::Collected),
        ("ViewTaken(as before)", changes(false, false)),
        ("ViewTaken(moved)", changes(true, false)),
        ("ViewTaken(moved, unanswered)", changes(true, true)),
        ("ViewTaken(unanswered)", changes(false, true)),
        ("NotYet", Event::NotYet("no node serves slot 7".to_owned())),
        ("Reassigned", Event::Reassigned),
        ("Rested", Event::Rested),
        ("AskedAgain(true)", Event::AskedAgain(true)),
        ("AskedAgain(false)", Event::AskedAgain(false)),
        ("Paused(Held)", Event::Paused(Paused::Held)),
        (
            "Paused(Refused)",
            Event::Paused(Paused::Refused("NOPERM".to_owned())),
        ),
        ("Paused(Lost)", Event::Paused(Paused::Lost)),
        ("Paused(InVain)", Event::Paused(Paused::InVain)),
        ("Attempted(exact)", attempted(&[Some(5), Some(6)], true)),
        (
            "Attempted(exact, too long)",
            attempted(&[Some(5), Some(6)], false),
        ),
        ("Attempted(one not)", attempted(&[Some(5), None], true)),
        ("Attempted(first not)", attempted(&[None, Some(6)], true)),
        ("Attempted(nobody)", attempted(&[], true)),
        (
            "Concluded(CanRepeat)",
            Event::Concluded(Concluded::CanRepeat),
        ),
        (
            "Concluded(NeedsRounds)",
            Event::Concluded(Concluded::NeedsRounds),
        ),
        ("Concluded(Lost)", Event::Concluded(Concluded::Lost)),
        ("Ended(FailedKeys)", Event::Ended(End::FailedKeys)),
        ("Ended(Functions)", Event::Ended(End::Functions)),
        ("Ended(Nothing)", Event::Ended(End::Nothing)),
    ]
}

pub(super) fn name(stages: &Stages) -> String {
    let (stage, awaited) = match &stages.state {
        State::In(stage) => return format!("{stage:?}"),
        State::Failed => return "Failed".to_owned(),
        State::After(stage, awaited) => (stage, awaited),
    };
    let awaited = match awaited {
        Awaited::Collected => "Collected".to_owned(),
        Awaited::View => "View".to_owned(),
        Awaited::Reassigned => "Reassigned".to_owned(),
        Awaited::Rested(then) => format!("Rested({then:?})"),
        Awaited::AskedAgain(_) => "AskedAgain".to_owned(),
        Awaited::Pauses(_) => "Pauses".to_owned(),
        Awaited::Attempt(_) => "Attempt".to_owned(),
        Awaited::Conclusion { is_common, .. } => match is_common {
            true => "Conclusion(common)".to_owned(),
            false => "Conclusion".to_owned(),
        },
        Awaited::Ended => "Ended".to_owned(),
    };
    format!("{stage:?}/{awaited}")
}

/// What a state is, but for times and words.
fn key(stages: &Stages) -> String {
    let situation = match &stages.state {
        State::After(_, Awaited::AskedAgain(situation)) => format!("{situation:?}"),
        _ => String::new(),
    };
    format!(
        "{} {situation} {} {} {} {} {} {}",
        name(stages),
        stages.times_asked,
        stages.refreshes,
        stages.resting_since.is_some(),
        stages.homeless.is_tried(),
        stages.stalled.is_tried(),
        stages.is_common,
    )
}

/// Whether an event says what came of the action.
pub(super) fn is_answered(action: &Action) -> bool {
    use Action as A;
    match action {
        A::CollectAsked
        | A::TakeView
        | A::Reassign
        | A::Rest(_)
        | A::AskAgain
        | A::AskPauses
        | A::Attempt
        | A::Conclude(_)
        | A::End => true,
        A::Read
        | A::StopAsking
        | A::BeginAsking
        | A::ReadOn(_)
        | A::GiveUp(_)
        | A::KeepView
        | A::BeginLast
        | A::MissPause(_)
        | A::Fail(_) => false,
    }
}

pub(super) fn show(actions: &[Action]) -> String {
    let shown: Vec<String> = actions
        .iter()
        .map(|action| match action {
            Action::GiveUp(_) => "GiveUp".to_owned(),
            Action::Fail(_) => "Fail".to_owned(),
            Action::MissPause(_) => "MissPause".to_owned(),
            other => format!("{other:?}"),
        })
        .collect();
    match shown.is_empty() {
        true => "nothing".to_owned(),
        false => shown.join(", "),
    }
}

/// A transition.
pub(super) struct Tried {
    pub before: Stages,
    pub event: Event,
    pub label: String,
    pub after: Stages,
    pub actions: Vec<Action>,
}

impl Tried {
    pub fn is_legal(&self) -> bool {
        let illegal = |action: &Action| matches!(action, Action::Fail(text) if text.contains("after an error"));
        !self.actions.iter().any(illegal)
    }
}

/// Whether an event may come in a state.
pub(super) fn is_awaited(stages: &Stages, event: &Event) -> bool {
    match &stages.state {
        State::In(_) => matches!(event, Event::StageEnded),
        State::Failed => false,
        State::After(_, awaited) => matches!(
            (awaited, event),
            (Awaited::Collected, Event::Collected)
                | (Awaited::View, Event::ViewTaken(_) | Event::NotYet(_))
                | (
                    Awaited::Reassigned,
                    Event::Reassigned | Event::Steady(_) | Event::NotYet(_)
                )
                | (Awaited::Rested(_), Event::Rested)
                | (Awaited::AskedAgain(_), Event::AskedAgain(_))
                | (Awaited::Pauses(_), Event::Paused(_))
                | (Awaited::Attempt(_), Event::Attempted { .. })
                | (Awaited::Conclusion { .. }, Event::Concluded(_))
                | (Awaited::Ended, Event::Ended(_))
        ),
    }
}

/// Tries every event, early and late, in every state that can be reached; those that are not awaited
/// once a kind of state.
pub(super) fn explore(pauses: bool) -> Vec<Tried> {
    let now = host::now();
    let mut tried = Vec::new();
    let (mut seen, mut names) = (BTreeSet::new(), BTreeSet::new());
    let events = events();
    // What is reached early comes first: what began late is not late yet.
    let (mut open, mut reached_late) = (vec![Stages::new(MAX_WAIT, RETRY_FOR, pauses)], Vec::new());
    while let Some(before) = open.pop().or_else(|| reached_late.pop()) {
        if !seen.insert(key(&before)) {
            continue;
        }
        let is_first = names.insert(name(&before));
        let tries = |event: &Event| is_first || is_awaited(&before, event);
        for (name, event) in events.iter().filter(|(_, event)| tries(event)) {
            for (at, late) in [(now, ""), (now + 2 * MAX_WAIT, " late")] {
                let mut after = before.clone();
                let actions = after.on(event.clone(), at);
                match late.is_empty() {
                    true => open.push(after.clone()),
                    false => reached_late.push(after.clone()),
                }
                tried.push(Tried {
                    before: before.clone(),
                    event: event.clone(),
                    label: format!("{name}{late}"),
                    after,
                    actions,
                });
            }
        }
    }
    tried
}
