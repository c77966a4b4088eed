use super::super::instant::Had;
use super::*;
use crate::record::Family;
use crate::server::counts::CommandCounts;

const ROW: Keyspace = Keyspace {
    db: 0,
    keys: 1,
    expires: 0,
};

fn names(names: &[&str]) -> HashSet<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

fn shown(key: &str) -> Shown {
    Shown {
        db: 0,
        key: key.as_bytes().to_vec(),
        had: Had::Payload(b"value".to_vec()),
        expire_at_ms: None,
        eviction: None,
    }
}

/// What was read of these keys, with nothing heard.
fn reading<'a>(keys: &[&str], heard: &[&str]) -> Reading<'a> {
    Reading {
        snapshot: Snapshot {
            at_ms: 7,
            keys: keys.iter().map(|key| shown(key)).collect(),
            ..Snapshot::default()
        },
        how: How::Multi,
        heard: names(heard),
        doubted: false,
        given: None,
        looks_refused: false,
    }
}

fn given(round: &mut FinalRound) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| round.next_ready())
        .map(|shown| shown.key)
        .collect()
}

fn counts() -> Evidence {
    Evidence::new(CommandCounts::parse("cmdstat_get:calls=1,usec=9\r\n"))
}

fn planned(round: &FinalRound, given: &mut Given, evidence: &Evidence) -> Plan {
    round
        .plan(&[ROW], given, evidence, 100)
        .expect("nothing is written")
}

#[test]
fn a_batch_is_exact_if_nothing_outside_of_it_was_heard_of() {
    let mut round = FinalRound::new(names(&["a"]));
    round.remember(names(&["b"]));
    let exact = Outcome::Exact { at_ms: 7 };
    assert_eq!(round.judge(reading(&["a", "b"], &["b"])), exact);
    assert!(round.is_proved());
    assert_eq!(given(&mut round), [b"a", b"b"]);
    assert_eq!(round.into_heard_since(), names(&["b"]));
}

#[test]
fn what_is_heard_of_joins_the_batch_and_is_in_the_next_plan() {
    let mut round = FinalRound::new(names(&["a"]));
    assert_eq!(round.judge(reading(&["a"], &["c"])), Outcome::Again);
    assert!(!round.is_proved() && given(&mut round).is_empty());
    let mut given = Given::new(false).expect("nothing is written");
    let plan = planned(&round, &mut given, &counts());
    assert_eq!(plan.dump[&0].len(), 2);
    let asked: HashSet<Vec<u8>> = plan.dump[&0].iter().cloned().collect();
    assert_eq!(asked, names(&["a", "c"]));
    assert_eq!(plan.bytes, 200);
    assert_eq!(round.into_names(), names(&["a", "c"]));
}

/// Command by command, parts are of one instant only if nothing at all changed.
#[test]
fn under_a_pause_nothing_may_be_heard_at_all() {
    let mut round = FinalRound::new(names(&["a"]));
    let plain = |heard: &[&str]| Reading {
        how: How::Plain,
        ..reading(&["a"], heard)
    };
    assert_eq!(round.judge(plain(&["a"])), Outcome::Again);
    assert_eq!(round.judge(plain(&[])), Outcome::Exact { at_ms: 7 });
    round.forget_proof();
    assert!(!round.is_proved());
    assert_eq!(round.into_names(), names(&["a"]), "it is read again");
}

#[test]
fn values_that_may_have_changed_unheard_are_no_proof() {
    let mut round = FinalRound::new(names(&["a"]));
    let doubted = Reading {
        doubted: true,
        ..reading(&["a"], &[])
    };
    assert_eq!(round.judge(doubted), Outcome::Again);
    let mut streams = reading(&["a"], &[]);
    streams.snapshot.changed_streams = vec![(0, b"s".to_vec())];
    assert_eq!(round.judge(streams), Outcome::Again);
    assert_eq!(round.into_names(), names(&["a", "s"]));
}

#[test]
fn a_name_leaves_the_batch_with_its_value_and_no_other_way() {
    let mut round = FinalRound::default();
    round.remember(names(&["first"]));
    for attempt in 0..HISTORY - 1 {
        let hot = format!("{attempt}");
        assert_eq!(round.judge(reading(&["first"], &[&hot])), Outcome::Again);
        assert!(given(&mut round).is_empty(), "it is still in the batch");
    }
    let last = round.judge(reading(&["first", "0"], &["0"]));
    assert_eq!(last, Outcome::Exact { at_ms: 7 }, "all within the batch");
    round.forget_proof();
    assert_eq!(
        round.judge(reading(&["first", "0"], &["z"])),
        Outcome::Again
    );
    assert_eq!(given(&mut round), [b"first"]);
    assert!(!round.into_names().contains(&b"first"[..]));
}

#[test]
fn what_left_and_is_too_much_to_keep_is_read_once_more() {
    let mut round = FinalRound::default();
    let large = |key: &str| Shown {
        had: Had::Payload(vec![0; MAX_LEFT_BYTES / 2]),
        ..shown(key)
    };
    round.leave(vec![large("a"), large("b"), shown("c")]);
    assert_eq!(given(&mut round), [b"b", b"c"]);
    assert_eq!(round.into_names(), names(&["a"]));
}

#[test]
fn keys_that_cannot_be_read_are_in_no_plan() {
    let mut given = Given::new(false).expect("nothing is written");
    given.fails(0, b"a", false).expect("nothing is written");
    let round = FinalRound::new(names(&["a", "b"]));
    let plan = planned(&round, &mut given, &counts());
    assert_eq!(plan.dump[&0], [b"b"]);
}

/// The payload of a module's type of which nothing is known.
const UNKNOWN: &[u8] = &[99, 0];

/// A payload of ReJSON.
const JSON: [u8; 10] = [7, 0x81, 0x45, 0xe2, 0x52, 0x38, 0xdf, 0x91, 0x2c, 0x03];

#[test]
fn what_nobody_announces_is_in_every_plan_unless_counts_vouch_for_it() {
    let mut given = Given::new(false).expect("nothing is written");
    given.note_unheard(Family::Redis, 0, b"json", &JSON);
    given.note_unheard(Family::Redis, 0, b"unknown", UNKNOWN);
    let round = FinalRound::default();
    let plan = planned(&round, &mut given, &counts());
    assert_eq!(plan.dump[&0], [b"unknown".to_vec()]);
    assert_eq!((plan.counted.len(), plan.doubt), (1, None));
    let plan = planned(&round, &mut given, &Evidence::new(None));
    assert_eq!(plan.dump[&0], [b"json".to_vec(), b"unknown".to_vec()]);
    assert!(plan.counted.is_empty() && plan.doubt.is_some());
}

#[test]
fn only_what_is_kept_current_otherwise_leaves() {
    let mut remembered = Given::new(false).expect("nothing is written");
    remembered.note_unheard(Family::Redis, 0, b"json", &JSON);
    remembered.note_unheard(Family::Redis, 0, b"unknown", UNKNOWN);
    let mut round = FinalRound::default();
    let given_reading = |heard: &[&str]| Reading {
        given: Some(&remembered),
        ..reading(&["a", "json", "unknown"], heard)
    };
    assert_eq!(round.judge(given_reading(&["x"])), Outcome::Again);
    // Values of that module are not in every batch, and this one was not heard of.
    assert_eq!(given(&mut round), [b"a"]);
}

#[test]
fn the_source_is_left_to_others_for_as_long_as_it_was_kept_busy() {
    let mut round = FinalRound::default();
    round.begin_attempt();
    assert_eq!((round.rest(true), round.rest(false)), (None, None));
    round.begin_attempt();
    assert_eq!(round.rest(true), Some(MIN_REST_BETWEEN_PAUSES));
    assert_eq!(round.rest(false), None);
    round.took(Duration::from_millis(50));
    assert_eq!(round.rest(true), Some(Duration::from_millis(150)));
    assert_eq!(round.rest(false), Some(Duration::from_millis(50)));
    round.took(Duration::from_secs(9));
    assert_eq!(round.rest(false), Some(MAX_REST));
}
