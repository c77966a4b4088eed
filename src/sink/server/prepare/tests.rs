//! What becomes of values.

use super::*;
use crate::dialect::{Dialect, Version};
use crate::sink::server::modules::{Modules, may_define};

fn target(family: Family, major: u16, minor: u16) -> Target {
    let dialect = Dialect::of(family, Version::new(major, minor, 0));
    Target::of(Accepts::of_server(dialect).expect("a known version"))
}

fn record(value: Value) -> KeyRecord {
    KeyRecord {
        db: 0,
        key: b"k".to_vec(),
        value,
        expire_at_ms: None,
        eviction: None,
    }
}

fn context(family: Family, rdb_version: u16) -> Context {
    Context {
        family,
        rdb_version,
        ..Context::default()
    }
}

#[test]
fn what_is_accepted_stays_and_what_is_not_gets_another_footer() {
    let body = b"\x00\x01a".to_vec();
    let mut seven = target(Family::Redis, 7, 0);
    let dump = payload::sign(&body, 9);
    let mut old = record(Value::Verbatim(dump.clone()));
    assert_eq!(
        seven.prepare(&mut old, &mut context(Family::Redis, 9)),
        Ok(Ready::AsIs)
    );
    assert_eq!(old.value, Value::Verbatim(dump));
    let mut new = record(Value::Verbatim(payload::sign(&body, 80)));
    assert_eq!(
        seven.prepare(&mut new, &mut context(Family::Valkey, 80)),
        Ok(Ready::Footer(10))
    );
    assert_eq!(new.value, Value::Compact(body));
    assert_eq!(seven.changes.restamped, 1);
}

#[test]
fn damage_is_found_before_it_is_signed() {
    let mut six = target(Family::Redis, 6, 0);
    // A string that says it is longer than it is, with a footer that fits.
    let mut bad = record(Value::Verbatim(payload::sign(b"\x00\x05a", 9)));
    let (reason, _) = six
        .prepare(&mut bad, &mut context(Family::Redis, 9))
        .unwrap_err();
    assert!(reason.contains("damaged"), "{reason}");
    let mut bad = record(Value::Verbatim(b"\x00\x01a0123456789".to_vec()));
    assert!(
        six.prepare(&mut bad, &mut context(Family::Redis, 9))
            .is_err()
    );
}

#[test]
fn a_loss_must_be_allowed_by_name() {
    // Redis type 24: lowest expiry, one field: 1 + its offset, "f", "v".
    let mut body = vec![24];
    body.extend_from_slice(&5_000_000_000_000_i64.to_le_bytes());
    body.extend_from_slice(b"\x01\x01\x01f\x01v");
    let mut seven = target(Family::Redis, 7, 0);
    let from = || context(Family::Redis, 12);
    let (reason, hint) = seven
        .prepare(&mut record(Value::Compact(body.clone())), &mut from())
        .unwrap_err();
    assert!(
        reason.contains("fields expire") && hint.unwrap().contains("--allow-loss"),
        "{reason}"
    );
    seven.allow.hash_field_ttl = true;
    let mut record = record(Value::Compact(body));
    assert_eq!(
        seven.prepare(&mut record, &mut from()),
        Ok(Ready::Footer(10))
    );
    assert_eq!(record.value.type_byte(), Some(16));
    assert_eq!(seven.changes.field_ttls_lost, 1);
}

/// Whoever takes Redis' types and is no Redis may mean something else by the others.
#[test]
fn unknown_types_are_not_offered_to_servers_of_neither_family() {
    let mut target = target(Family::Redis, 8, 0);
    let mut accepts = target.accepts().clone();
    accepts.answers = true;
    target.planner = Planner::new(accepts.clone(), false, false);
    let dump = || record(Value::Verbatim(payload::sign(b"\x63abc", 40)));
    let from = || context(Family::Redis, 40);
    assert_eq!(target.prepare(&mut dump(), &mut from()), Ok(Ready::AsIs));
    assert!(target.opaque().is_some());
    target.planner = Planner::new(accepts, false, true);
    let (reason, _) = target.prepare(&mut dump(), &mut from()).unwrap_err();
    assert!(reason.contains("of the family they come from"), "{reason}");
}

#[test]
fn a_modules_value_gets_a_footer_that_is_accepted() {
    // "ReJSON-RL", version 3, nothing in it.
    let body = b"\x07\x81\x44\x97\x92\x0d\x23\x7e\x44\x0b\x00".to_vec();
    let dump = Value::Verbatim(payload::sign(&body, 12));
    let mut seven = target(Family::Redis, 7, 2);
    let from = || context(Family::Redis, 12);
    let name = payload::module_name_of(Family::Redis, &body).expect("a module's value");
    let (reason, _) = seven
        .prepare(&mut record(dump.clone()), &mut from())
        .unwrap_err();
    assert!(reason.contains(&name), "{reason}");
    seven.modules = ModuleRules::new(Modules::Unknown, true);
    let mut taken = record(dump);
    let ready = seven.prepare(&mut taken, &mut from());
    assert_eq!(ready, Ok(Ready::Footer(11)));
    assert_eq!(taken.value, Value::Compact(body.clone()));
    // What is accepted stays as it is.
    let mut old = record(Value::Verbatim(payload::sign(&body, 11)));
    let ready = seven.prepare(&mut old, &mut context(Family::Redis, 11));
    assert_eq!(ready, Ok(Ready::AsIs));
    assert_eq!(seven.changes.restamped, 1);
}

#[test]
fn modules_go_only_where_they_may_be_known() {
    assert!(may_define("vectorset", "vectorset") && !may_define("bf", "vectorset"));
    assert!(may_define("in-house", "anything-"));
}
