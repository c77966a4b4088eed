//! Every transition, found by trying every event in every state that can be reached.

use std::collections::{BTreeMap, BTreeSet};

use super::explore::{MAX_WAIT, RETRY_FOR, explore, is_answered, is_awaited, name, show, unknown};
use super::*;
use crate::host;

/// `STATE, EVENT [at a late time] -> STATE: actions`, a line each.
const TRANSITIONS: &str = include_str!("transitions.txt");

fn stages(pauses: bool) -> Stages {
    Stages::new(MAX_WAIT, RETRY_FOR, pauses)
}

#[test]
fn the_transitions_are_those_that_are_written_down() {
    let mut lines: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for tried in explore(true).iter().filter(|tried| tried.is_legal()) {
        let from = format!("{}, {}", name(&tried.before), tried.label);
        let to = format!("{}: {}", name(&tried.after), show(&tried.actions));
        lines.entry(from).or_default().insert(to);
    }
    // What is the same late is not told twice.
    let late: Vec<String> = lines
        .keys()
        .filter(|from| from.ends_with(" late"))
        .cloned()
        .collect();
    for from in late {
        if lines.get(&from) == lines.get(from.trim_end_matches(" late")) {
            lines.remove(&from);
        }
    }
    let found: Vec<String> = lines
        .iter()
        .flat_map(|(from, to)| to.iter().map(move |to| format!("{from} -> {to}")))
        .collect();
    let found = found.join("\n") + "\n";
    assert!(
        found == TRANSITIONS,
        "stages/transitions.txt is to be:\n{found}"
    );
}

#[test]
fn an_event_that_was_not_asked_for_is_an_error_for_good() {
    for tried in explore(true) {
        let answers = is_awaited(&tried.before, &tried.event);
        let from = name(&tried.before);
        assert_eq!(tried.is_legal(), answers, "{from}, {}", tried.label);
        if !answers {
            assert_eq!(tried.after.state, State::Failed);
            assert_eq!(tried.after.stage(), Stage::Over, "nothing more is read");
        }
    }
}

#[test]
fn what_is_to_be_done_ends_with_what_is_answered_or_read() {
    for pauses in [true, false] {
        for tried in explore(pauses) {
            let what = format!("{}, {}", name(&tried.before), tried.label);
            let Some((last, others)) = tried.actions.split_last() else {
                assert_eq!(tried.after.state, State::In(Stage::Over), "{what}");
                continue;
            };
            assert!(!others.iter().any(is_answered), "{what}");
            match last {
                Action::Read => assert!(matches!(tried.after.state, State::In(_)), "{what}"),
                Action::Fail(_) => assert_eq!(tried.after.state, State::Failed, "{what}"),
                action => {
                    assert!(is_answered(action), "{what}: {action:?}");
                    assert!(matches!(tried.after.state, State::After(..)), "{what}");
                }
            }
        }
    }
}

/// All situations, in all states in which they are asked for: what must never be.
#[test]
fn exactness_is_not_claimed_for_what_moved() {
    let now = host::now();
    let bits = |number: u32| [0, 1, 2, 3, 4, 5].map(|bit| number & (1 << bit) != 0);
    for (number, unknown) in (0..64)
        .flat_map(|number| [None, unknown(true), unknown(false)].map(|unknown| (number, unknown)))
    {
        let [follows, may_be_exact, is_done, moves, is_unchanged, is_busy] = bits(number);
        let situation = Situation {
            follows,
            may_be_exact,
            is_done,
            unknown,
            on_the_way: moves.then(|| "7".to_owned()),
            is_unchanged,
            is_busy,
        };
        for stage in [Stage::Reading, Stage::Asking, Stage::Last] {
            for (pauses, late) in [(true, false), (true, true), (false, false), (false, true)] {
                let mut stages = stages(pauses);
                stages.state = State::After(stage, Awaited::Reassigned);
                stages.times_asked = MAX_ASKED;
                stages.resting_since = late.then_some(now);
                let at = now + 2 * MAX_WAIT;
                let actions = stages.on(Event::Steady(situation.clone()), at);
                let what = format!("{stage:?}, {situation:?}, {late}: {actions:?}");
                let does = |action: &dyn Fn(&Action) -> bool| actions.iter().any(action);
                let gives_up = does(&|action| matches!(action, Action::GiveUp(_)));
                let begins_last = does(&|action| matches!(action, Action::KeepView));
                let may_be_exact = may_be_exact && !gives_up;
                if does(&|action| *action == Action::End) {
                    // Whatever may be exact was unchanged, and nothing was on its way or untold.
                    assert!(is_done && !follows, "{what}");
                    if may_be_exact && stage == Stage::Last {
                        assert!(
                            is_unchanged && !moves && situation.unknown.is_none(),
                            "{what}"
                        );
                    }
                }
                if begins_last && may_be_exact {
                    assert!(!moves && situation.unknown.is_none(), "{what}");
                }
                if does(&|action| *action == Action::AskPauses) {
                    assert!(pauses && may_be_exact, "{what}");
                }
                if begins_last && pauses && may_be_exact {
                    assert!(does(&|action| *action == Action::AskPauses), "{what}");
                }
                if follows {
                    assert_eq!(actions, [Action::Read]);
                    assert_eq!(stages.stage(), Stage::Reading);
                }
            }
        }
    }
}

/// Brings it to the end of a stage, in this situation, and says what comes then.
fn settle(stages: &mut Stages, situation: Situation, now: Instant) -> Vec<Action> {
    assert_eq!(stages.on(Event::StageEnded, now), [Action::TakeView]);
    let view = Event::ViewTaken(SlotChanges::default());
    assert_eq!(stages.on(view, now), [Action::Reassign]);
    stages.on(Event::Steady(situation), now)
}

#[test]
fn each_shard_ends_alone_where_no_pause_was_asked_for() {
    let now = host::now();
    let mut stages = stages(false);
    let calm = Situation {
        may_be_exact: true,
        ..Situation::default()
    };
    let last = [Action::KeepView, Action::BeginLast, Action::Read];
    assert_eq!(settle(&mut stages, calm, now), last);
    let done = Situation {
        may_be_exact: true,
        is_done: true,
        is_unchanged: true,
        ..Situation::default()
    };
    assert_eq!(settle(&mut stages, done, now), [Action::End]);
    let read = stages.on(Event::Ended(End::Functions), now);
    assert_eq!(
        (read, stages.stage()),
        (vec![Action::Read], Stage::Functions)
    );
    assert!(stages.on(Event::StageEnded, now).is_empty());
    assert_eq!(stages.stage(), Stage::Over);
    assert!(!stages.is_common());
}

#[test]
fn one_instant_of_all_shards_is_tried_for_until_max_wait() {
    let now = host::now();
    let mut stages = stages(true);
    let calm = Situation {
        may_be_exact: true,
        ..Situation::default()
    };
    let first = settle(&mut stages, calm.clone(), now);
    assert_eq!(first, [Action::KeepView, Action::AskPauses]);
    let attempt = |stages: &mut Stages, began, lasted, exact: Option<u64>| {
        stages.on(Event::Paused(Paused::Held), began);
        let exact = vec![Some(4), exact];
        let event = Event::Attempted {
            exact,
            in_time: true,
        };
        let concludes = stages.on(event, began + lasted);
        let concluded = Event::Concluded(Concluded::CanRepeat);
        (concludes, stages.on(concluded, began + lasted))
    };
    // The rest grows with what an attempt took, within bounds.
    let mut at = now;
    for (lasted, rest) in [(1, 20), (100, 300), (5_000, 1_000)] {
        let lasted = Duration::from_millis(lasted);
        let (concludes, then) = attempt(&mut stages, at, lasted, None);
        assert_eq!(concludes, [Action::Conclude(None)]);
        let rest = Duration::from_millis(rest);
        assert_eq!(then, [Action::Rest(rest)]);
        at += lasted + rest;
        assert_eq!(stages.on(Event::Rested, at), [Action::AskPauses]);
    }
    let mut in_vain = stages.clone();
    let (concludes, then) = attempt(&mut stages, at, LOOK_EVERY, Some(5));
    assert_eq!(concludes, [Action::Conclude(Some(4))]);
    assert_eq!(then, [Action::Read]);
    assert!(stages.is_common());
    // Slots moved meanwhile: it was not the last round.
    let read_on = [Action::ReadOn(Shards::All), Action::Read];
    assert_eq!(settle(&mut stages, calm.clone(), at), read_on);
    settle(&mut stages, calm, at);
    assert!(!stages.is_common(), "the next one has to be found anew");

    let (_, then) = attempt(&mut in_vain, now + MAX_WAIT, LOOK_EVERY, None);
    let [Action::GiveUp(reason), Action::BeginLast, Action::Read] = then.as_slice() else {
        panic!("{then:?}");
    };
    assert!(
        reason.starts_with("in 1m no pause was long enough"),
        "{reason}"
    );
}

#[test]
fn a_node_that_is_away_is_waited_for_and_then_named() {
    let now = host::now();
    let mut stages = stages(false);
    stages.on(Event::StageEnded, now);
    let not_yet = || Event::NotYet("no node serves slot 7".to_owned());
    for at in [now, now + RETRY_FOR / 2] {
        assert_eq!(stages.on(not_yet(), at), [Action::Rest(ASK_EVERY)]);
        assert_eq!(stages.on(Event::Rested, at), [Action::TakeView]);
    }
    // The view is there, and the node is not: that is no progress.
    let view = Event::ViewTaken(SlotChanges::default());
    stages.on(view, now);
    let actions = stages.on(not_yet(), now + RETRY_FOR);
    let [Action::Fail(text)] = actions.as_slice() else {
        panic!("{actions:?}");
    };
    let expected = "not every slot of the cluster can be read: no node serves slot 7 (retried for \
                    30s (--retry-for)); run again when it can";
    assert_eq!(text, expected);
}

#[test]
fn keys_that_are_not_answered_for_have_an_end() {
    let now = host::now();
    let mut stages = stages(false);
    let unanswered = |moved| {
        Event::ViewTaken(SlotChanges {
            moved,
            unanswered: Some("7".to_owned()),
            reason: "CLUSTERDOWN".to_owned(),
        })
    };
    for at in [now, now + RETRY_FOR / 2] {
        stages.on(Event::StageEnded, at);
        assert_eq!(stages.on(unanswered(false), at), [Action::Rest(ASK_EVERY)]);
        assert_eq!(stages.on(Event::Rested, at), [Action::Reassign]);
        stages.on(Event::Reassigned, at);
    }
    let mut moving = stages.clone();
    stages.on(Event::StageEnded, now);
    let actions = stages.on(unanswered(false), now + RETRY_FOR);
    let [Action::Fail(text)] = actions.as_slice() else {
        panic!("{actions:?}");
    };
    assert!(text.contains("slots 7: CLUSTERDOWN (retried"), "{text}");
    // What moves is progress.
    moving.on(Event::StageEnded, now);
    let reassign = moving.on(unanswered(true), now + RETRY_FOR);
    assert_eq!(reassign, [Action::Reassign]);
    moving.on(Event::Reassigned, now);
    moving.on(Event::StageEnded, now);
    let rests = moving.on(unanswered(false), now + RETRY_FOR);
    assert_eq!(rests, [Action::Rest(ASK_EVERY)]);
}

#[test]
fn keys_of_slots_on_their_way_are_asked_for_a_few_times() {
    let now = host::now();
    let mut stages = stages(false);
    let moving = || Situation {
        on_the_way: Some("7".to_owned()),
        ..Situation::default()
    };
    let asks = [Action::BeginAsking, Action::Read];
    assert_eq!(settle(&mut stages, moving(), now), asks);
    for _ in 1..MAX_ASKED {
        assert_eq!(stages.on(Event::StageEnded, now), [Action::CollectAsked]);
        stages.on(Event::Collected, now);
        stages.on(Event::ViewTaken(SlotChanges::default()), now);
        let again = stages.on(Event::Steady(moving()), now);
        assert_eq!(again, [Action::AskAgain]);
        let rests = stages.on(Event::AskedAgain(true), now);
        assert_eq!(rests, [Action::Rest(ASK_EVERY)]);
        assert_eq!(stages.on(Event::Rested, now), [Action::Read]);
        assert_eq!(stages.stage(), Stage::Asking);
    }
    stages.on(Event::StageEnded, now);
    stages.on(Event::Collected, now);
    stages.on(Event::ViewTaken(SlotChanges::default()), now);
    let last = stages.on(Event::Steady(moving()), now);
    assert_eq!(last, [Action::KeepView, Action::BeginLast, Action::Read]);
}

#[test]
fn busy_shards_are_read_again_a_few_times_before_the_last_round() {
    let now = host::now();
    let mut stages = stages(false);
    let busy = || Situation {
        may_be_exact: true,
        is_busy: true,
        ..Situation::default()
    };
    for _ in 0..MAX_REFRESHES {
        let again = settle(&mut stages, busy(), now);
        assert_eq!(again, [Action::ReadOn(Shards::Busy), Action::Read]);
    }
    let last = settle(&mut stages, busy(), now);
    assert_eq!(last, [Action::KeepView, Action::BeginLast, Action::Read]);
}
