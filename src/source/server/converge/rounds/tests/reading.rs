//! A server that is read by itself.

use super::super::*;
use super::*;

pub(super) fn a_quiet_source_is_exact_at_the_first_attempt() {
    let mut script = Script::plain();
    script.come_to_the_final_round();
    script.attempted(exact());
    assert!(script.rounds.is_at_final() && !script.rounds.is_done());
    script.gave(Pending::More);
    script.gave(Pending::Exact);
    script.wants("End");
    assert!(!script.rounds.is_done());
    script.on(Event::Ended);
    script.wants("Done");
    let exact = ConsistencyReached::Exact(vec![(0, 7)]);
    assert_eq!(script.rounds.reached(), Some(&exact));
    assert!(!script.rounds.has_missed() && script.rounds.take_warning().is_none());
}

pub(super) fn rounds_go_on_as_long_as_they_shrink() {
    let mut script = Script::plain();
    script.read();
    script.read();
    for waiting in [900, 800, 700] {
        script.heard(waiting);
        script.gathered(&["a"]);
        script.read();
    }
    script.heard(700);
    script.wants("Give");
    // And not for ever.
    let mut script = Script::plain();
    script.read();
    script.read();
    for round in 0..MAX_ROUNDS {
        script.heard(1_000 - round as usize);
        script.gathered(&["a"]);
        script.read();
    }
    script.heard(100);
    script.wants("Give");
}

pub(super) fn attempts_are_made_until_one_is_exact() {
    let mut script = Script::plain();
    script.come_to_the_final_round();
    script.attempted(Outcome::Again);
    script.attempted(Outcome::Again);
    script.attempted(exact());
    script.gave(Pending::Exact);
    script.wants("End");
}

pub(super) fn what_has_grown_is_read_outside_of_the_final_round_first() {
    let mut script = Script::plain();
    script.come_to_the_final_round();
    script.attempted(Outcome::Grown);
    script.reread(&["of the attempt"]);
    script.read();
    script.heard(1_000);
    script.gathered(&["b"]);
    script.read();
    script.heard(500);
    script.wants("Give");
}

pub(super) fn databases_that_turn_up_are_read_too() {
    let mut script = Script::plain();
    script.come_to_the_final_round();
    let row = Keyspace {
        db: 3,
        keys: 1,
        expires: 0,
    };
    script.attempted(Outcome::Databases(vec![row]));
    // A cluster's order does not make it forget them.
    script.rounds.more_rounds();
    let Action::AddDatabases(rows) = script.next() else {
        panic!("they are added");
    };
    assert_eq!(rows, [row]);
    script.on(Event::DatabasesAdded);
    script.reread(&["of the attempt"]);
    script.read();
    script.wants("Listen");
}

pub(super) fn what_is_refused_is_read_alone_a_few_times() {
    let mut script = Script::plain();
    script.come_to_the_final_round();
    for _ in 0..MAX_REFUSALS {
        script.attempted(Outcome::Alone("NOPERM".to_owned()));
        script.reread(&["of the attempt"]);
        script.read();
        script.heard(0);
    }
    script.attempted(Outcome::Alone("NOPERM".to_owned()));
    script.warned("the final round is refused: NOPERM");
    assert_eq!(
        script.say_farewell(0),
        ConsistencyReached::PerKey {
            from_ms: 1,
            to_ms: 2
        }
    );
}

pub(super) fn what_cannot_be_exact_says_what_it_is() {
    let mut script = Script::plain();
    script.come_to_the_final_round();
    script.attempted(Outcome::Impossible("no EVAL".to_owned()));
    script.warned("not exact: no EVAL");
    assert!(script.rounds.gave_up() && !script.rounds.has_lost_track());
    let changing = ConsistencyReached::Changing {
        from_ms: 1,
        to_ms: 2,
        keys: 9,
    };
    assert_eq!(script.say_farewell(9), changing);

    let scan = ConsistencyReached::Scan {
        from_ms: 1,
        to_ms: 2,
    };
    let mut script = Script::plain();
    script.come_to_the_final_round();
    script.attempted(Outcome::Incomplete("keys were lost".to_owned()));
    script.warned("keys were lost");
    assert!(script.rounds.has_lost_track());
    assert_eq!(script.say_farewell(0), scan);
    // Or something is missed only while the last changes are read.
    for (deaf, missed_some) in [(true, false), (false, true)] {
        let mut script = Script::plain();
        script.come_to_the_final_round();
        script.attempted(Outcome::Impossible("no".to_owned()));
        script.gave(Pending::Nothing);
        assert_eq!(script.last_words(deaf, 0, missed_some), scan);
    }
}

pub(super) fn keys_that_never_rest_end_it() {
    let mut script = Script::new(Wish {
        max_wait: Some(Duration::from_secs(5)),
        ..PLAIN
    });
    script.come_to_the_final_round();
    script.attempted(Outcome::Again);
    script.passes(Duration::from_secs(5));
    script.attempted(Outcome::Again);
    script.passes(Duration::from_millis(1));
    script.gave(Pending::Nothing);
    script.warned("keys kept changing for 5s (--max-wait)");
    script.wants("CollectRest");

    // Where exactness is only welcome, as long as the scan took, within bounds.
    for (scan_secs, wait_secs) in [(1, 10), (30, 30), (1_000, 60)] {
        let mut script = Script::new(Wish {
            consistency: Consistency::Auto,
            ..PLAIN
        });
        script.passes(Duration::from_secs(scan_secs));
        script.come_to_the_final_round();
        script.passes(Duration::from_secs(wait_secs));
        script.attempted(Outcome::Again);
        script.passes(Duration::from_secs(1));
        script.gave(Pending::Nothing);
        script.wants("CollectRest");
    }
}

pub(super) fn changes_that_were_missed_mean_another_scan() {
    let missed = |reason: &str| Event::Missed {
        reason: reason.to_owned(),
        names: names(&["a"]),
    };
    let mut script = Script::plain();
    script.wants("Read");
    script.on(missed("a database was flushed"));
    // Whatever a cluster orders, it comes first.
    script.rounds.more_rounds();
    script.restarted("flushed");
    script.catch_up();
    script.on(Event::OtherProcess);
    script.restarted("another one");
    script.catch_up();
    script.read();
    // It is found when what changed is counted.
    script.wants("Listen");
    let now = script.now;
    script.on(Event::Heard {
        waiting: 1_000,
        rescan: true,
        now,
    });
    script.wants("Read");
    script.on(missed("more keys changed than can be remembered"));
    script.restarted("more keys");
    script.catch_up();
    // And not for ever. What was heard of is read all the same.
    script.on(missed("a database was flushed"));
    script.warned("changes can no longer be followed: a database was flushed");
    script.reread(&["a"]);
    assert!(script.rounds.gave_up() && script.rounds.has_lost_track());
    script.on(Event::OtherProcess);
    script.read();
    script.heard(1_000);
    script.gave(Pending::Nothing);
    script.wants("CollectRest");
}

pub(super) fn swapped_databases_mean_another_scan() {
    let mut script = Script::plain();
    script.read();
    script.read();
    script.heard(1_000);
    script.wants("CountSwaps");
    script.on(Event::Swaps(Some("databases were swapped")));
    script.restarted("swapped");
    script.catch_up();
    script.read();
    script.heard(1_000);
    script.wants("CountSwaps");
    script.on(Event::Swaps(None));
    script.on(Event::DatabasesLookedFor);
    script.wants("Take");
    script.on(Event::Taken {
        names: names(&["a"]),
        rescan: Some("a database was flushed".to_owned()),
    });
    script.restarted("flushed");
    script.catch_up();
    script.read();
    script.heard(0);
    script.attempted(Outcome::Rescan("the server changed its role".to_owned()));
    script.restarted("role");
}

pub(super) fn without_a_log_no_scan_begins_anew() {
    let mut script = Script::new(Wish {
        consistency: Consistency::Auto,
        ..PLAIN
    });
    script.come_to_the_final_round();
    script.attempted(Outcome::Rescan("a database was flushed".to_owned()));
    script.warned("changes can no longer be followed: a database was flushed");
    assert_eq!(
        script.say_farewell(0),
        ConsistencyReached::Scan {
            from_ms: 1,
            to_ms: 2
        }
    );
}

pub(super) fn a_server_that_cannot_be_listened_to_any_more_is_read_without() {
    let mut script = Script::plain();
    script.on(Event::OtherProcess);
    script.wants("Restart");
    script.on(Event::Restarted {
        blind: Some("nobody tells of swaps"),
        deaf: Some("HELLO: unknown command".to_owned()),
    });
    script.warned("changes can no longer be listened to: HELLO");
    assert_eq!(script.rounds.blind(), Some("nobody tells of swaps"));
    script.catch_up();
    script.wants("Read");
}

pub(super) fn what_was_lost_is_said_at_once() {
    let mut script = Script::plain();
    script.wants("Read");
    script.on(Event::Incomplete("database 3 had 9 keys".to_owned()));
    script.warned("database 3 had 9 keys");
    script.on(Event::Incomplete("database 4, too".to_owned()));
    assert!(script.rounds.take_warning().is_none(), "it is said once");
    script.read();
    script.read();
    // No more rounds: nothing is to be won by them.
    script.heard(1_000);
    script.gave(Pending::Nothing);
    script.wants("CollectRest");
}

/// Exactness may be given up long before following ends, and swaps are no longer looked for then; what
/// is missed after it is no longer made good.
pub(super) fn what_is_missed_after_exactness_was_given_up_is_only_said() {
    let mut script = Script::plain();
    script.read();
    script.read();
    script.heard(1_000);
    script.wants("CountSwaps");
    script.on(Event::Swaps(None));
    script.on(Event::DatabasesLookedFor);
    script.rounds.give_up("slots kept moving");
    script.warned("slots kept moving");
    script.wants("Take");
    script.on(Event::Taken {
        names: names(&["a"]),
        rescan: Some("a database was flushed".to_owned()),
    });
    assert!(script.rounds.has_lost_track());
    script.reread(&["a"]);
    let then = Then::Rounds(Round::FIRST);
    let first = script.rounds.gather(then);
    assert!(matches!(
        first,
        State::Gathering(Gathering::LookForDatabases, _)
    ));
}
