//! Shards of a cluster; errors; names that wait.

use super::super::*;
use super::*;

pub(super) fn a_shard_waits_for_the_others() {
    let mut script = Script::in_cluster();
    script.come_to_the_final_round();
    script.wants("Rest");
    script.wants("Rest");
    assert!(!script.rounds.is_at_final());
    script.rounds.more_rounds();
    script.read();
    script.heard(0);
    script.wants("Rest");
    script.rounds.begin_final();
    assert!(script.rounds.is_at_final());
    // A key is elsewhere: where it is is settled by looking, and no name is lost.
    script.attempted(Outcome::Elsewhere);
    script.wants("Rest");
    script.rounds.begin_final();
    script.gave(Pending::Nothing);
    let round = script.rounds.take_final().expect("a final round");
    assert_eq!(round.into_names(), names(&["of the attempt"]));
    // It is not brought back: that is no success.
    script.wants("Fail");
}

pub(super) fn all_shards_attempt_together() {
    let mut script = Script::in_cluster();
    script.come_to_the_final_round();
    let mut round = script.rounds.take_together();
    round.remember(names(&["a"]));
    script.wants("Fail");
    script.rounds.put_back(round);
    script.wants("Give");
    // Exact, but not of one instant with the others.
    let round = script.rounds.take_together();
    script.rounds.settle(round, exact(), None);
    script.wants("Give");
    assert_eq!(script.rounds.reached(), None);
    let round = script.rounds.take_together();
    script.rounds.settle(round, exact(), Some(99));
    let exact = ConsistencyReached::Exact(vec![(0, 99)]);
    assert_eq!(script.rounds.reached(), Some(&exact));
    // It was not the last: slots moved.
    script.rounds.more_rounds();
    assert_eq!(script.rounds.reached(), None);
    script.read();
    script.heard(0);
    let round = script.rounds.take_together();
    assert_eq!(round.into_names(), names(&["a"]), "no name is lost");
}

/// What an attempt found out is not told again: whatever is ordered between it and the reading of it,
/// it is read.
pub(super) fn no_order_costs_a_name() {
    for order in [Rounds::more_rounds, Rounds::scan_anew] {
        let mut script = Script::in_cluster();
        script.come_to_the_final_round();
        let mut round = script.rounds.take_together();
        round.remember(names(&["a"]));
        script.rounds.settle(round, Outcome::Grown, None);
        order(&mut script.rounds);
        script.reread(&["a"]);
    }
}

/// A flush that an attempt found out is not told again either.
pub(super) fn no_order_costs_a_scan_that_is_needed() {
    let flushed = || Outcome::Rescan("a database was flushed".to_owned());
    for order in [Rounds::more_rounds, Rounds::scan_anew] {
        let mut script = Script::in_cluster();
        script.come_to_the_final_round();
        let round = script.rounds.take_together();
        script.rounds.settle(round, flushed(), None);
        order(&mut script.rounds);
        script.restarted("flushed");
    }
    // Whatever is taken out together has the names that were to be read.
    let mut script = Script::in_cluster();
    script.come_to_the_final_round();
    let mut round = script.rounds.take_together();
    round.remember(names(&["a"]));
    script.rounds.settle(round, Outcome::Grown, None);
    let round = script.rounds.take_together();
    assert_eq!(round.into_names(), names(&["a"]));
}

pub(super) fn slots_that_come_are_scanned() {
    let mut script = Script::in_cluster();
    script.come_to_the_final_round();
    script.rounds.scan_anew();
    script.rounds.more_rounds();
    script.catch_up();
    script.read();
    script.heard(0);
    script.wants("Rest");
    let mut script = Script::plain();
    script.come_to_the_final_round();
    script.attempted(exact());
    script.rounds.scan_anew();
    assert_eq!(script.rounds.reached(), None);
    script.read();
    script.on(Event::Unmet(unmet()));
    script.rounds.more_rounds();
    script.wants("TakeUnmet");
}

pub(super) fn an_error_is_never_taken_for_success() {
    let mut script = Script::plain();
    script.come_to_the_final_round();
    script.attempted(exact());
    script.rounds.poison();
    script.wants("Fail");
    assert!(!script.rounds.is_done());
    assert_eq!(script.rounds.reached(), None);
    // Neither is what was not asked for.
    let unasked = [
        Event::Slept,
        Event::Ended,
        Event::DatabasesLookedFor,
        Event::UnmetTaken { any: false },
    ];
    for event in unasked {
        let mut script = Script::plain();
        script.on(event);
        script.wants("Fail");
        assert!(!script.rounds.is_done());
    }
    let mut script = Script::plain();
    script.read();
    script.read();
    script.heard(1_000);
    script.on(Event::Ended);
    script.wants("Fail");
}

pub(super) fn detours_are_bounded() {
    let mut rounds = Script::plain().rounds;
    for _ in 0..MAX_DETOURS {
        assert!(rounds.may_detour());
        rounds.detoured();
    }
    assert!(!rounds.may_detour());
}

pub(super) fn large_values_wait_only_for_a_final_round_that_comes() {
    let large = 1 << 30;
    let mut script = Script::following(Follow::default());
    for _ in 0..10 {
        assert_eq!(script.rounds.choose(names(&["a"]), large).len(), 1);
    }
    let mut script = Script::plain();
    let chosen = |script: &mut Script| script.rounds.choose(names(&["a"]), large).len();
    let count: usize = (0..10).map(|_| chosen(&mut script)).sum();
    assert_eq!(count, 3);
    script.rounds.keep_names(|_| false);
    script.rounds.give_up("no");
    assert_eq!(chosen(&mut script), 1);
}
