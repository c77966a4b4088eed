//! Every state of the rounds and every transition, as scripts of events.

mod cluster;
mod following;
mod reading;

use super::*;
use crate::server::facts::Keyspace;
use crate::source::server::delivered::{Given, NotMetAgain};

/// How a reading is wished for.
struct Wish {
    consistency: Consistency,
    in_cluster: bool,
    follow: Option<Follow>,
    max_wait: Option<Duration>,
}

const PLAIN: Wish = Wish {
    consistency: Consistency::Converge,
    in_cluster: false,
    follow: None,
    max_wait: None,
};

/// Rounds, and the clock that they are told.
struct Script {
    rounds: Rounds,
    now: Instant,
}

fn names(names: &[&str]) -> HashSet<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

fn unmet() -> NotMetAgain {
    let mut given = Given::new(false).expect("nothing is written");
    given.not_met_of(Vec::new(), None)
}

impl Script {
    fn new(wish: Wish) -> Self {
        let now = Instant::now();
        let rules = Rules {
            consistency: wish.consistency,
            max_wait: wish.max_wait,
            in_cluster: wish.in_cluster,
            follow: wish.follow,
        };
        Self {
            rounds: Rounds::new(rules, None, now),
            now,
        }
    }

    fn plain() -> Self {
        Self::new(PLAIN)
    }

    fn in_cluster() -> Self {
        Self::new(Wish {
            in_cluster: true,
            ..PLAIN
        })
    }

    fn following(follow: Follow) -> Self {
        Self::new(Wish {
            follow: Some(follow),
            ..PLAIN
        })
    }

    fn next(&mut self) -> Action<'_> {
        self.rounds.next()
    }

    #[track_caller]
    fn wants(&mut self, action: &str) {
        let next = format!("{:?}", self.rounds.next());
        assert!(next.starts_with(action), "{next}, not {action}");
    }

    fn passes(&mut self, time: Duration) {
        self.now += time;
    }

    #[track_caller]
    fn on(&mut self, event: Event) {
        self.rounds.on(event);
        assert!(!matches!(self.rounds.state, State::Poisoned));
    }

    /// The backlog is read, and nothing was in the way.
    #[track_caller]
    fn read(&mut self) {
        self.wants("Read");
        let now = self.now;
        self.on(Event::ReadOut(now));
    }

    #[track_caller]
    fn heard(&mut self, waiting: usize) {
        self.wants("Listen");
        let now = self.now;
        self.on(Event::Heard {
            waiting,
            rescan: false,
            now,
        });
    }

    /// What changed is taken, and goes into the backlog.
    #[track_caller]
    fn gathered(&mut self, heard: &[&str]) {
        if matches!(self.rounds.next(), Action::CountSwaps) {
            self.on(Event::Swaps(None));
        }
        self.wants("LookForDatabases");
        self.on(Event::DatabasesLookedFor);
        self.wants("Take");
        self.on(Event::Taken {
            names: names(heard),
            rescan: None,
        });
        self.reread(heard);
    }

    #[track_caller]
    fn reread(&mut self, expected: &[&str]) {
        let Action::Reread(again) = self.rounds.next() else {
            panic!("names are read again");
        };
        assert_eq!(again, names(expected));
        self.on(Event::Reread);
    }

    /// The scan is through, and little is left.
    #[track_caller]
    fn come_to_the_final_round(&mut self) {
        self.read();
        self.read();
        self.heard(FEW_NAMES);
    }

    #[track_caller]
    fn gave(&mut self, pending: Pending) {
        self.wants("Give");
        let round = self.rounds.take_final().expect("a final round");
        let now = self.now;
        self.on(Event::Gave(round, pending, now));
    }

    #[track_caller]
    fn attempted(&mut self, outcome: Outcome) {
        self.gave(Pending::Nothing);
        self.wants("Attempt");
        let mut round = self.rounds.take_final().expect("a final round");
        round.remember(names(&["of the attempt"]));
        self.on(Event::Attempted(round, outcome));
    }

    #[track_caller]
    fn restarted(&mut self, reason: &str) {
        let Action::Restart(told) = self.rounds.next() else {
            panic!("the scan starts again");
        };
        assert!(told.contains(reason), "{told}");
        self.on(Event::Restarted {
            blind: None,
            deaf: None,
        });
    }

    /// The scan that began anew is read, and what it did not meet.
    #[track_caller]
    fn catch_up(&mut self) {
        self.read();
        self.wants("ListUnmet");
        self.on(Event::Unmet(unmet()));
        for any in [true, false] {
            self.wants("TakeUnmet");
            self.on(Event::UnmetTaken { any });
            self.wants("Read");
            if any {
                self.read();
            }
        }
    }

    /// What changed last is read, and what is known is said.
    #[track_caller]
    fn say_farewell(&mut self, waiting: usize) -> ConsistencyReached {
        self.gave(Pending::Nothing);
        self.last_words(false, waiting, false)
    }

    #[track_caller]
    fn last_words(&mut self, deaf: bool, waiting: usize, missed_some: bool) -> ConsistencyReached {
        self.wants("CollectRest");
        self.on(Event::Rest {
            names: names(&["late"]),
            rescan: deaf,
        });
        let Action::Reread(again) = self.rounds.next() else {
            panic!("what changed is read");
        };
        assert!(again.contains(&b"late"[..]));
        self.on(Event::Reread);
        self.read();
        self.wants("Reckon");
        self.on(Event::Reckoned(Reckoning {
            waiting,
            rescan: false,
            missed_some,
            from_ms: 1,
            to_ms: 2,
        }));
        self.wants("End");
        self.on(Event::Ended);
        self.wants("Done");
        assert!(self.rounds.is_done());
        self.rounds.reached().cloned().expect("it is known")
    }

    #[track_caller]
    fn warned(&mut self, of: &str) {
        let warning = self.rounds.take_warning().expect("a warning");
        assert!(warning.contains(of), "{warning}");
        assert!(self.rounds.has_missed());
    }

    fn look(&self, waiting: usize) -> Look {
        Look {
            now: self.now,
            waiting,
            rescan: false,
            restless: false,
            quiet_for: None,
            stop: false,
            others_over: false,
        }
    }

    /// While following nothing is in the backlog any more.
    #[track_caller]
    fn looked(&mut self, look: Look) {
        self.wants("Look");
        self.on(Event::Looked(look));
    }

    #[track_caller]
    fn asked_sentinels(&mut self, at_once: bool) {
        let Action::AskSentinels { at_once: asked } = self.rounds.next() else {
            panic!("the sentinels are asked");
        };
        assert_eq!(asked, at_once);
        self.on(Event::Sentinels {
            moved: false,
            open: false,
        });
    }

    #[track_caller]
    fn begin_following(&mut self) {
        self.read();
        self.read();
        self.heard(0);
        self.wants("BeginFollowing");
        self.on(Event::FollowingBegun);
        assert!(self.rounds.is_following());
    }
}

fn exact() -> Outcome {
    Outcome::Exact { at_ms: 7 }
}

macro_rules! scripts {
    ($($room:ident: $($script:ident),+;)+) => {
        mod each {
            $($(#[test]
            fn $script() {
                super::$room::$script();
            })+)+
        }

        #[test]
        fn every_transition_is_reached() {
            $($($room::$script();)+)+
            assert_eq!(Transition::not_recorded(), []);
        }
    };
}

scripts!(
    reading:
        a_quiet_source_is_exact_at_the_first_attempt,
        rounds_go_on_as_long_as_they_shrink,
        attempts_are_made_until_one_is_exact,
        what_has_grown_is_read_outside_of_the_final_round_first,
        databases_that_turn_up_are_read_too,
        what_is_refused_is_read_alone_a_few_times,
        what_cannot_be_exact_says_what_it_is,
        keys_that_never_rest_end_it,
        changes_that_were_missed_mean_another_scan,
        swapped_databases_mean_another_scan,
        without_a_log_no_scan_begins_anew,
        a_server_that_cannot_be_listened_to_any_more_is_read_without,
        what_was_lost_is_said_at_once,
        what_is_missed_after_exactness_was_given_up_is_only_said;
    following:
        changes_are_followed_until_nothing_changes,
        following_ends_in_time_by_wish_and_with_the_others,
        following_goes_on_where_the_sentinels_point,
        who_follows_rests_while_something_is_settled,
        following_without_hearing_is_an_error_and_without_exactness_none;
    cluster:
        a_shard_waits_for_the_others,
        all_shards_attempt_together,
        no_order_costs_a_name,
        no_order_costs_a_scan_that_is_needed,
        slots_that_come_are_scanned,
        an_error_is_never_taken_for_success,
        detours_are_bounded,
        large_values_wait_only_for_a_final_round_that_comes;
);
