//! Following changes.

use super::super::*;
use super::*;

pub(super) fn changes_are_followed_until_nothing_changes() {
    let mut script = Script::following(Follow {
        until_idle: Some(Duration::from_secs(1)),
        ..Follow::default()
    });
    assert!(script.rounds.follows() && !script.rounds.is_following());
    script.begin_following();
    script.read();
    // Names gather for a moment.
    script.looked(script.look(1));
    script.asked_sentinels(false);
    script.wants("Sleep");
    script.on(Event::Slept);
    script.passes(GATHER);
    script.looked(script.look(1));
    script.asked_sentinels(false);
    script.gathered(&["a"]);
    assert!(script.rounds.is_following());
    script.read();
    script.passes(HEARTBEAT);
    script.looked(script.look(0));
    script.asked_sentinels(false);
    script.wants("Heartbeat");
    script.read();
    script.passes(Duration::from_secs(1));
    // Silence at a server that others do not name is no rest.
    script.looked(script.look(0));
    script.wants("AskSentinels { at_once: true }");
    script.on(Event::Sentinels {
        moved: false,
        open: true,
    });
    script.wants("Heartbeat");
    script.read();
    script.looked(script.look(0));
    script.asked_sentinels(true);
    script.wants("EndFollowing");
    let now = script.now;
    script.on(Event::FollowingEnded(now));
    assert!(!script.rounds.follows());
    script.read();
    script.heard(0);
    script.attempted(exact());
    script.gave(Pending::Exact);
    script.wants("End");
}

pub(super) fn following_ends_in_time_by_wish_and_with_the_others() {
    let second = Some(Duration::from_secs(1));
    let total = Follow {
        total: second,
        ..Follow::default()
    };
    let idle = Follow {
        until_idle: second,
        ..Follow::default()
    };
    type Change = fn(&mut Look);
    let ends: [(Follow, Change); 4] = [
        (total, |look| look.now += Duration::from_secs(1)),
        (Follow::default(), |look| look.stop = true),
        (Follow::default(), |look| look.others_over = true),
        (idle, |look| look.quiet_for = Some(Duration::from_secs(1))),
    ];
    for (follow, change) in ends {
        let mut script = Script::following(follow);
        script.begin_following();
        script.read();
        let mut look = script.look(0);
        script.looked(look);
        let next = script.next();
        assert!(matches!(next, Action::AskSentinels { at_once: false }));
        script.asked_sentinels(false);
        script.wants("Sleep");
        script.on(Event::Slept);
        change(&mut look);
        script.looked(look);
        script.wants("AskSentinels");
        script.on(Event::Sentinels {
            moved: false,
            open: false,
        });
        script.wants("EndFollowing");
    }
}

pub(super) fn following_goes_on_where_the_sentinels_point() {
    let mut script = Script::following(Follow::default());
    script.begin_following();
    script.read();
    script.looked(script.look(3));
    script.wants("AskSentinels");
    script.on(Event::Sentinels {
        moved: true,
        open: false,
    });
    script.wants("Read");
    script.on(Event::OtherProcess);
    script.restarted("another one");
    script.catch_up();
}

pub(super) fn who_follows_rests_while_something_is_settled() {
    let mut script = Script::following(Follow::default());
    script.begin_following();
    script.read();
    script.looked(Look {
        restless: true,
        ..script.look(3)
    });
    assert!(script.rounds.is_following());
    script.wants("Rest");
    assert!(script.rounds.is_following());
    script.read();
    script.looked(Look {
        rescan: true,
        ..script.look(3)
    });
    script.wants("Read");
}

pub(super) fn following_without_hearing_is_an_error_and_without_exactness_none() {
    for deaf in [false, true] {
        let mut script = Script::following(Follow::default());
        script.begin_following();
        for _ in 0..MAX_RESTARTS {
            script.on(Event::OtherProcess);
            script.restarted("another one");
            script.catch_up();
        }
        script.on(Event::OtherProcess);
        script.wants("AskIfDeaf");
        script.on(Event::Deaf(deaf));
        if deaf {
            let Action::Fail(reason) = script.next() else {
                panic!("it is an error");
            };
            assert!(reason.contains("changes can no longer be followed"));
            script.rounds.more_rounds();
            script.wants("Fail");
        } else {
            script.warned("changes can no longer be followed");
            assert!(!script.rounds.gave_up(), "it follows");
            script.wants("Read");
        }
    }
}
