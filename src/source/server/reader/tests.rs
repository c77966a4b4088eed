//! Every state of the reader and every transition, as scripts of events.

use super::*;

const SERVER: Terms = Terms {
    tolerance_ms: 0,
    in_cluster: false,
};

fn names(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

fn key(name: &str) -> Vec<u8> {
    name.as_bytes().to_vec()
}

fn payload(text: &str) -> Dumped {
    Dumped::Payload(text.as_bytes().to_vec())
}

fn given(text: &str) -> Fate {
    Fate::Read(Dump {
        payload: text.as_bytes().to_vec(),
        expire_at_ms: None,
        eviction: None,
    })
}

fn value(dumped: Dumped) -> Event {
    Event::Value {
        dumped,
        after: None,
    }
}

fn group(expiries: &[Expiry]) -> Event {
    let facts = |expiry: &Expiry| KeyFacts {
        expiry: expiry.clone(),
        eviction: None,
    };
    Event::Group(expiries.iter().map(facts).collect())
}

fn page(next: &str, keys: &[&str]) -> Event {
    Event::Page {
        next: key(next),
        names: names(keys),
        at: Instant::now(),
    }
}

fn ask_page(cursor: &str) -> Action<'static> {
    Action::AskPage {
        cursor: key(cursor),
        count: 1_000,
        at_once: false,
    }
}

fn reader(dbs: &[u32]) -> Reader {
    Reader::new(SERVER, 1_000, dbs.iter().copied())
}

/// Begins the only job, a scan, and asks for its first page.
fn scanning(dbs: &[u32]) -> Reader {
    let mut reader = reader(dbs);
    assert_eq!(reader.next(), Action::Begin(Job::Scan(dbs[0])));
    assert!(!reader.on(Event::Begun(Job::Scan(dbs[0]))));
    assert_eq!(reader.next(), Action::Enter(dbs[0]));
    reader.on(Event::Entered);
    assert_eq!(reader.next(), ask_page("0"));
    reader
}

/// The last page came with these names, and their group was asked for.
fn asked(keys: &[&str]) -> Reader {
    let mut reader = scanning(&[0]);
    assert_eq!(reader.next(), Action::Flush);
    assert_eq!(reader.next(), Action::ReadPage);
    assert!(reader.on(page("0", keys)));
    assert_eq!(reader.next(), Action::Enter(0));
    reader.on(Event::Entered);
    let all = names(keys);
    let mut rest = all.as_slice();
    while !rest.is_empty() {
        let (first, others) = rest.split_at(rest.len().min(16));
        assert_eq!(reader.next(), Action::AskGroup(first));
        rest = others;
    }
    assert_eq!(reader.next(), Action::Flush);
    reader
}

fn a_database_is_read_to_its_end() {
    let mut reader = asked(&["a", "b"]);
    assert!(reader.has_asked_all() && !reader.is_idle());
    assert_eq!(reader.next(), Action::ReadGroup(2));
    assert!(!reader.on(group(&[Expiry::None, Expiry::At(7)])));
    assert_eq!(reader.next(), Action::ReadValue);
    assert!(reader.on(value(payload("1"))));
    assert_eq!(reader.next(), Action::Settle(key("a"), given("1")));
    assert_eq!(reader.next(), Action::ReadValue);
    assert!(reader.on(value(payload("2"))));
    let Action::Settle(name, Fate::Read(dump)) = reader.next() else {
        panic!("it is read");
    };
    assert_eq!((name, dump.expire_at_ms), (key("b"), Some(7)));
    assert_eq!(reader.next(), Action::Flush);
    assert_eq!(reader.next(), Action::End);
    // And again, when there is more after all.
    reader.add(Job::Names(3, names(&["c"])));
    assert_eq!(reader.next(), Action::Begin(Job::Names(3, names(&["c"]))));
    assert_eq!(reader.db(), 0);
    reader.on(Event::Begun(Job::Names(3, names(&["c"]))));
    assert_eq!(reader.next(), Action::Enter(3));
}

/// Replies are matched with names by their order alone, so that the database must not change before
/// the last reply of the one before was read.
fn the_next_database_waits_for_the_answers_of_this_one() {
    let mut reader = asked(&["a"]);
    reader.add(Job::Scan(1));
    assert_eq!(reader.next(), Action::ReadGroup(1));
    reader.on(group(&[Expiry::None]));
    // Half of the window is free: it is looked for more, in vain.
    assert_eq!(reader.next(), Action::ReadValue);
    reader.on(value(payload("1")));
    assert_eq!(reader.next(), Action::Settle(key("a"), given("1")));
    assert_eq!(reader.next(), Action::Begin(Job::Scan(1)));

    let mut reader = scanning(&[0, 1]);
    reader.next();
    assert_eq!(reader.next(), Action::ReadPage);
    reader.on(page("0", &["a"]));
    assert_eq!(reader.next(), Action::Enter(0));
    reader.on(Event::Entered);
    assert_eq!(reader.next(), Action::AskGroup(&names(&["a"])));
    assert_eq!(reader.next(), Action::Flush);
    assert_eq!(reader.next(), Action::ReadGroup(1));
}

fn the_next_page_is_asked_for_before_the_values_of_this_one() {
    let mut reader = scanning(&[0]);
    assert_eq!(reader.next(), Action::Flush);
    assert_eq!(reader.next(), Action::ReadPage);
    let many: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    reader.on(page("17", &many));
    assert_eq!(reader.next(), Action::Enter(0));
    reader.on(Event::Entered);
    assert_eq!(reader.next(), ask_page("17"));
    // A window of 64 keys in groups of 16, until more is known of how large values are.
    for group in 0..4 {
        let keys = &many[group * 16..][..16];
        assert_eq!(reader.next(), Action::AskGroup(&names(keys)));
    }
    assert_eq!(reader.next(), Action::Flush);
    assert_eq!(reader.next(), Action::ReadPage);
    reader.on(page("0", &[]));
    // More than half of the window is under way.
    assert_eq!(reader.next(), Action::ReadGroup(16));
}

fn a_cursor_that_comes_back_is_not_asked_for_for_ever() {
    let mut reader = scanning(&[0]);
    reader.next();
    reader.next();
    reader.on(page("5", &[]));
    assert_eq!(reader.next(), Action::Enter(0));
    reader.on(Event::Entered);
    assert_eq!(reader.next(), ask_page("5"));
    reader.next();
    assert_eq!(reader.next(), Action::ReadPage);
    assert!(!reader.on(page("5", &["a"])));
    for _ in 0..2 {
        let Action::Fail(Fault::Server(text)) = reader.next() else {
            panic!("it is poisoned");
        };
        assert!(text.contains("gave back the cursor"));
    }
    // Also after the connection was made again.
    reader.lost(false);
    assert!(matches!(reader.next(), Action::Fail(_)));
}

/// An end is claimed only where it was reached: answers out of order are never taken for one.
fn answers_that_were_not_asked_for_are_refused() {
    let events = [
        page("0", &["a"]),
        group(&[Expiry::None]),
        Event::GroupRefused("ERR no".to_owned()),
        value(payload("1")),
    ];
    for event in events {
        let mut reader = reader(&[]);
        assert!(!reader.on(event));
        assert!(matches!(reader.next(), Action::Fail(Fault::Bug(_))));
    }
    let mut reader = asked(&["a"]);
    reader.next();
    reader.on(group(&[Expiry::None, Expiry::None]));
    assert!(matches!(reader.next(), Action::Fail(Fault::Bug(_))));
    // Nothing is under way, and the scan is not through.
    let mut reader = scanning(&[0]);
    reader.next();
    reader.flight.clear();
    assert!(matches!(reader.next(), Action::Fail(Fault::Bug(_))));
}

fn what_is_refused_for_now_is_asked_again_when_everything_else_is_answered() {
    let busy = || "BUSY Redis is busy running a script".to_owned();
    let keys: Vec<String> = (0..20).map(|number| format!("{number:02}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut reader = asked(&keys);
    assert_eq!(reader.next(), Action::ReadGroup(16));
    reader.on(Event::GroupRefused(busy()));
    assert!(reader.is_patient());
    assert_eq!(reader.next(), Action::ReadGroup(4));
    reader.on(group(&[const { Expiry::None }; 4]));
    for name in &keys[16..19] {
        assert_eq!(reader.next(), Action::ReadValue);
        reader.on(value(payload("1")));
        assert_eq!(reader.next(), Action::Settle(key(name), given("1")));
    }
    assert_eq!(reader.next(), Action::ReadValue);
    assert!(!reader.on(value(Dumped::Refused(busy()))));
    assert_eq!(reader.next(), Action::Wait(&busy()));
    assert_eq!(reader.next(), Action::Wait(&busy()), "until it was done");
    reader.on(Event::Waited);
    assert!(!reader.is_patient());
    assert_eq!(reader.next(), Action::Enter(0));
    reader.on(Event::Entered);
    let mut again = names(&keys[19..]);
    again.extend(names(&keys[..15]));
    assert_eq!(reader.next(), Action::AskGroup(&again));
    assert_eq!(reader.next(), Action::AskGroup(&names(&keys[15..16])));

    // A page is asked for again at the same place.
    let mut reader = scanning(&[0]);
    reader.next();
    assert_eq!(reader.next(), Action::ReadPage);
    reader.on(Event::PageRefused(busy()));
    assert_eq!(reader.next(), Action::Wait(&busy()));
    reader.on(Event::Waited);
    assert_eq!(reader.next(), Action::Enter(0));
    reader.on(Event::Entered);
    assert_eq!(reader.next(), ask_page("0"));
}

/// With half of the window under way nothing is asked for while the server asks for patience.
fn nothing_is_asked_while_the_server_asks_for_patience() {
    let busy = "BUSY no".to_owned();
    let mut reader = scanning(&[0]);
    reader.next();
    reader.next();
    reader.on(page("5", &["a"]));
    reader.next();
    reader.on(Event::Entered);
    assert_eq!(reader.next(), ask_page("5"));
    assert_eq!(reader.next(), Action::AskGroup(&names(&["a"])));
    assert_eq!(reader.next(), Action::Flush);
    assert_eq!(reader.next(), Action::ReadPage);
    reader.on(Event::PageRefused(busy.clone()));
    assert_eq!(reader.next(), Action::ReadGroup(1), "it is still under way");
    reader.on(group(&[Expiry::None]));
    reader.next();
    reader.on(value(payload("1")));
    assert!(matches!(reader.next(), Action::Settle(..)));
    assert_eq!(reader.next(), Action::Wait(&busy));
}

fn one_forbidden_key_does_not_cost_its_neighbours() {
    let mut reader = asked(&["a", "b"]);
    reader.next();
    reader.on(Event::GroupRefused("NOPERM no".to_owned()));
    assert_eq!(reader.next(), Action::AskGroup(&names(&["a"])));
    assert_eq!(reader.next(), Action::AskGroup(&names(&["b"])));
    assert_eq!(reader.next(), Action::Flush);
    assert_eq!(reader.next(), Action::ReadGroup(1));
    assert!(!reader.on(Event::GroupRefused("NOPERM no".to_owned())));
    let refused = Fate::Refused("NOPERM no".to_owned());
    assert_eq!(reader.next(), Action::Settle(key("a"), refused));
    assert_eq!(reader.next(), Action::Flush);
    assert_eq!(reader.next(), Action::ReadGroup(1));
    reader.on(group(&[Expiry::None]));
    reader.next();
    reader.on(value(payload("2")));
    assert_eq!(reader.next(), Action::Settle(key("b"), given("2")));
    assert_eq!(reader.next(), Action::Flush);
    assert_eq!(reader.next(), Action::End);
}

fn a_key_that_changes_between_its_questions_is_asked_for_alone() {
    let mut reader = asked(&["a", "b"]);
    reader.next();
    reader.on(group(&[Expiry::None, Expiry::None]));
    reader.next();
    assert!(reader.on(Event::Value {
        dumped: payload("1"),
        after: Some(Expiry::At(9)),
    }));
    assert_eq!(reader.next(), Action::AskGroup(&names(&["a"])));
    assert_eq!(reader.next(), Action::ReadValue);
    reader.on(Event::Value {
        dumped: payload("2"),
        after: Some(Expiry::None),
    });
    assert_eq!(reader.next(), Action::Settle(key("b"), given("2")));
    assert!(matches!(reader.next(), Action::Flush));
    assert_eq!(reader.next(), Action::ReadGroup(1));
}

fn a_value_that_is_withheld_between_two_expiries_is_asked_for_once_more() {
    let mut reader = asked(&["a"]);
    reader.next();
    reader.on(group(&[Expiry::None]));
    reader.next();
    let withheld = || Event::Value {
        dumped: Dumped::Nothing { now_ms: 1 },
        after: Some(Expiry::None),
    };
    assert!(reader.on(withheld()));
    assert_eq!(reader.next(), Action::AskGroup(&names(&["a"])));
    assert_eq!(reader.next(), Action::Flush);
    assert_eq!(reader.next(), Action::ReadGroup(1));
    reader.on(group(&[Expiry::None]));
    assert_eq!(reader.next(), Action::ReadValue);
    reader.on(withheld());
    assert_eq!(reader.next(), Action::Settle(key("a"), Fate::Withheld));
}

fn an_expiry_that_is_always_blurred_is_not_asked_for_for_ever() {
    let mut reader = asked(&["a"]);
    for _ in 0..=MOST_BLURRED {
        while reader.next() != Action::ReadGroup(1) {}
        reader.on(group(&[Expiry::Blurred]));
        assert_eq!(reader.next(), Action::ReadValue);
        reader.on(value(payload("1")));
    }
    assert_eq!(reader.next(), Action::Settle(key("a"), Fate::ExpiryUnknown));
}

fn a_server_that_loads_another_dataset_says_nothing_of_keys() {
    let loading = "LOADING Redis is loading the dataset in memory".to_owned();
    for event in [
        Event::GroupRefused(loading.clone()),
        value(Dumped::Refused(loading.clone())),
    ] {
        let mut reader = asked(&["a", "b"]);
        reader.next();
        if matches!(event, Event::Value { .. }) {
            reader.on(group(&[Expiry::None, Expiry::None]));
            reader.next();
        }
        assert!(!reader.on(event));
        assert_eq!(reader.next(), Action::Loading(loading.clone()));
        assert_eq!(reader.lost(false), (AfterLoss::Same, 0));
        assert_eq!(reader.next(), Action::Enter(0));
        reader.on(Event::Entered);
        let Action::AskGroup(again) = reader.next() else {
            panic!("both are asked for again");
        };
        assert_eq!(again.len(), 2);
    }
}

fn what_a_lost_connection_took_is_asked_again_in_the_same_order() {
    let mut reader = scanning(&[0]);
    reader.next();
    reader.next();
    reader.on(page("5", &["a", "b", "c"]));
    reader.next();
    reader.on(Event::Entered);
    assert_eq!(reader.next(), ask_page("5"));
    assert!(matches!(reader.next(), Action::AskGroup(_)));
    reader.next();
    assert_eq!(reader.next(), Action::ReadPage);
    assert_eq!(reader.lost(false), (AfterLoss::Same, 0));
    assert_eq!(reader.unfinished_dbs(), Some(vec![0]));
    assert_eq!(reader.next(), Action::Enter(0));
    reader.on(Event::Entered);
    assert_eq!(reader.next(), ask_page("5"));
    assert_eq!(reader.next(), Action::AskGroup(&names(&["a", "b", "c"])));

    // A key that waits to be asked for alone is not forgotten.
    let mut reader = asked(&["a", "b"]);
    reader.next();
    reader.on(group(&[Expiry::None, Expiry::None]));
    reader.next();
    reader.on(Event::Value {
        dumped: payload("1"),
        after: Some(Expiry::At(9)),
    });
    reader.lost(false);
    reader.next();
    reader.on(Event::Entered);
    assert_eq!(reader.next(), Action::AskGroup(&names(&["b", "a"])));
}

fn a_server_that_ends_connections_is_asked_for_less() {
    let mut reader = asked(&["a", "b", "c", "d"]);
    assert_eq!(reader.lost(true), (AfterLoss::Less, 0));
    reader.next();
    reader.on(Event::Entered);
    assert_eq!(reader.next(), Action::AskGroup(&names(&["a", "b"])));
    reader.next();
    assert_eq!(reader.lost(true), (AfterLoss::Less, 0));
    for _ in 1..ALONE {
        reader.next();
        reader.on(Event::Entered);
        assert_eq!(reader.next(), Action::AskGroup(&names(&["a"])));
        reader.next();
        assert_eq!(reader.lost(true), (AfterLoss::Same, 0));
    }
    reader.next();
    reader.on(Event::Entered);
    reader.next();
    reader.next();
    let given_up = AfterLoss::WithoutKey(key("a"));
    assert_eq!(reader.lost(true), (given_up, 0));
    reader.next();
    reader.on(Event::Entered);
    assert_eq!(reader.next(), Action::AskGroup(&names(&["b"])));
}

fn a_connection_that_ends_at_every_key_is_given_up() {
    let keys: Vec<String> = (0..200).map(|number| format!("{number:03}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut reader = scanning(&[0]);
    reader.next();
    reader.next();
    reader.on(page("0", &keys));
    for _ in 0..1_000 {
        match reader.next() {
            Action::Enter(_) => {
                reader.on(Event::Entered);
            }
            Action::AskGroup(_) | Action::AskPage { .. } => {}
            Action::Flush => {
                if reader.lost(true).0 == AfterLoss::Hopeless {
                    return;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("it goes on for ever");
}

fn another_process_means_another_scan_of_the_database() {
    let mut reader = scanning(&[0]);
    assert_eq!(reader.begin_database_again(), None, "not begun");
    reader.next();
    reader.next();
    reader.on(page("5", &["a", "b"]));
    assert!(reader.has_begun_database());
    assert_eq!(reader.begin_database_again(), Some(2));
    reader.next();
    reader.on(Event::Entered);
    assert_eq!(reader.next(), ask_page("0"));
}

fn a_database_that_cannot_be_entered_is_left() {
    let mut reader = reader(&[1, 2]);
    reader.next();
    reader.on(Event::Begun(Job::Scan(1)));
    assert_eq!(reader.next(), Action::Enter(1));
    assert!(!reader.has_begun_database());
    assert!(reader.shut().is_empty());
    assert_eq!(reader.next(), Action::Begin(Job::Scan(2)));
    let again = Job::Names(2, names(&["a", "b"]));
    reader.on(Event::Begun(again));
    reader.next();
    assert_eq!(reader.shut(), names(&["a", "b"]));
    assert_eq!(reader.next(), Action::Flush);
    assert_eq!(reader.next(), Action::End);
}

fn an_abandoned_scan_reads_what_is_under_way_and_no_more() {
    let mut reader = scanning(&[0, 1]);
    reader.next();
    reader.next();
    reader.on(page("5", &["a"]));
    reader.next();
    reader.on(Event::Entered);
    assert_eq!(reader.next(), ask_page("5"));
    assert_eq!(reader.next(), Action::AskGroup(&names(&["a"])));
    assert_eq!(reader.abandon(), 0);
    assert_eq!(reader.unfinished_dbs(), None, "all, anew");
    assert!(reader.is_abandoned());
    assert_eq!(reader.next(), Action::Flush);
    assert_eq!(reader.next(), Action::ReadPage);
    reader.on(page("7", &[]));
    assert_eq!(reader.next(), Action::Flush);
    assert_eq!(reader.next(), Action::ReadGroup(1));
    reader.on(group(&[Expiry::None]));
    reader.next();
    reader.on(value(payload("1")));
    assert!(matches!(reader.next(), Action::Settle(..)));
    assert!(reader.is_idle());
    assert_eq!(reader.next(), Action::Flush);
    assert_eq!(reader.next(), Action::End);

    // The same where the connection is lost, or the page refused, before all came.
    let mut reader = asked(&["a", "b"]);
    reader.abandon();
    assert_eq!(reader.lost(false), (AfterLoss::Same, 2));
    assert_eq!(reader.next(), Action::Flush);
    assert_eq!(reader.next(), Action::End);
    let mut reader = scanning(&[0]);
    reader.abandon();
    reader.next();
    assert_eq!(reader.next(), Action::ReadPage);
    reader.on(Event::PageRefused("BUSY no".to_owned()));
    assert!(matches!(reader.next(), Action::Wait(_)));
    reader.on(Event::Waited);
    reader.end_abandoned();
    reader.read_databases([4]);
    assert_eq!(reader.next(), Action::Begin(Job::Scan(4)));
}

fn places_to_go_on_from_are_between_pages() {
    let start = Instant::now();
    let mut reader = scanning(&[0, 3]);
    reader.keep_positions(start);
    reader.tick(start + Duration::from_secs(1));
    reader.next();
    reader.next();
    reader.on(page("5", &["a"]));
    reader.next();
    reader.on(Event::Entered);
    // No page is asked for.
    assert_eq!(reader.next(), Action::AskGroup(&names(&["a"])));
    assert_eq!(reader.next(), Action::Flush);
    reader.next();
    reader.on(group(&[Expiry::None]));
    reader.next();
    reader.on(value(payload("1")));
    assert!(matches!(reader.next(), Action::Settle(..)));
    assert_eq!(reader.next(), Action::Drained);
    let position = Position {
        db: 0,
        cursor: Some(key("5")),
        waiting: vec![3],
    };
    let now = start + Duration::from_secs(1);
    assert_eq!(reader.drained(now), Some(position.clone()));
    assert_eq!(reader.drained(now), None);
    assert_eq!(reader.next(), Action::Enter(0));
    reader.on(Event::Entered);
    assert_eq!(reader.next(), ask_page("5"));

    let mut later = self::reader(&[0, 3]);
    later.go_on_at(position);
    assert_eq!(later.next(), Action::Enter(0));
    later.on(Event::Entered);
    assert_eq!(later.next(), ask_page("5"));
}

/// Slots come from another node while names are still to be read.
fn other_databases_to_read_do_not_cost_names() {
    let mut reader = reader(&[0, 1]);
    reader.add(Job::Names(2, names(&["a"])));
    reader.read_databases([3]);
    assert_eq!(reader.next(), Action::Begin(Job::Names(2, names(&["a"]))));
    reader.on(Event::Begun(Job::Names(2, Vec::new())));
    reader.next();
    reader.on(Event::Entered);
    assert_eq!(reader.next(), Action::Begin(Job::Scan(3)));
}

fn what_is_read_elsewhere_is_counted() {
    let mut reader = asked(&["a", "b"]);
    reader.add(Job::Scan(1));
    reader.next();
    reader.on(group(&[Expiry::None, Expiry::None]));
    assert_eq!(reader.give_up(), 2);
    assert!(reader.is_idle() && reader.has_asked_all());
}

macro_rules! scripts {
    ($($script:ident),+ $(,)?) => {
        mod each {
            $(#[test]
            fn $script() {
                super::$script();
            })+
        }

        #[test]
        fn every_transition_is_reached() {
            $($script();)+
            assert_eq!(Transition::not_recorded(), []);
        }
    };
}

scripts!(
    a_database_is_read_to_its_end,
    the_next_database_waits_for_the_answers_of_this_one,
    the_next_page_is_asked_for_before_the_values_of_this_one,
    a_cursor_that_comes_back_is_not_asked_for_for_ever,
    answers_that_were_not_asked_for_are_refused,
    what_is_refused_for_now_is_asked_again_when_everything_else_is_answered,
    nothing_is_asked_while_the_server_asks_for_patience,
    one_forbidden_key_does_not_cost_its_neighbours,
    a_key_that_changes_between_its_questions_is_asked_for_alone,
    a_value_that_is_withheld_between_two_expiries_is_asked_for_once_more,
    an_expiry_that_is_always_blurred_is_not_asked_for_for_ever,
    a_server_that_loads_another_dataset_says_nothing_of_keys,
    what_a_lost_connection_took_is_asked_again_in_the_same_order,
    a_server_that_ends_connections_is_asked_for_less,
    a_connection_that_ends_at_every_key_is_given_up,
    another_process_means_another_scan_of_the_database,
    a_database_that_cannot_be_entered_is_left,
    an_abandoned_scan_reads_what_is_under_way_and_no_more,
    places_to_go_on_from_are_between_pages,
    other_databases_to_read_do_not_cost_names,
    what_is_read_elsewhere_is_counted,
);
