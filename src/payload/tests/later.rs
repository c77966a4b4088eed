//! Values of Redis 8.8 and 8.10 and of Valkey 9.2: made by hand from the layout, no server confirmed.

use redis_migrate_format::record::Family::{self, Redis, Valkey};

use super::accept::{Accepts, Plan, plan, plan_checked};
use super::handmade::{body, fails, reads};
use super::meaning::same;
use super::*;
use crate::dialect::{Dialect, Version};

/// An array, with integers, numbers and texts, a hole, and a cursor.
const ARRAY: &str = "1c 03 01 05 00 01 2a00000000000000 01 02 000000000000f83f 05 03 03 616263";
const PATHS: &str = "17 02 022f70 01 0166 0176 022f71 02 0166 0177 0167 00";

/// For the loops that break things.
pub const VALUES: &[(Family, &str)] = &[(Redis, ARRAY), (Valkey, PATHS)];

fn accepts(family: Family, version: &str) -> Accepts {
    let dialect = Dialect::of(family, Version::parse(version));
    Accepts::of_server(dialect).expect("a known server")
}

#[test]
fn a_payload_with_its_footer() {
    let array = body(&format!("{ARRAY} 0e00 4de88e4bee549482"));
    let (value, version) = split(&array).expect("the layout's own example");
    assert_eq!((value, version), (&body(ARRAY)[..], 14));
}

#[test]
fn arrays() {
    reads(Redis, ARRAY, &["0=42", "1=1.5", "5=abc", "cursor 5"]);
    // No cursor; an index beyond 32 bits, and the highest there is; in any order.
    reads(
        Redis,
        "1c 02 00 81fffffffffffffffe 00 0161 81 0000000100000000 00 c007",
        &["18446744073709551614=a", "4294967296=7"],
    );
    let bad = |text: &str, kind| fails(Redis, &body(text), kind);
    bad("1c 00 00", ErrorKind::Empty("array"));
    bad("1c 01 02 00 00 00 0161", ErrorKind::Array("unknown flag"));
    bad("1c 01 00 00 04 0161", ErrorKind::Array("unknown tag"));
    bad(
        "1c 01 00 81ffffffffffffffff 00 0161",
        ErrorKind::Array("index too high"),
    );
    bad(
        "1c 01 01 81ffffffffffffffff 00 00 0161",
        ErrorKind::Array("index too high"),
    );
    bad("1c 01 00 c007 00 0161", ErrorKind::EncodedLength);
    bad(
        "1c 01 00 00 03 08 6162636465666768",
        ErrorKind::Array("long small text"),
    );
    bad(
        "1c 02 00 07 00 0161 07 00 0162",
        ErrorKind::Duplicate("index"),
    );
    bad("1c 01 00 00 01 2a", ErrorKind::Truncated);
    bad("1c 01 00 00 00 0161 00", ErrorKind::Trailing(1));
    // Type 28 of Valkey is nothing that is known.
    assert!(decode(Valkey, &body(ARRAY)).unwrap_err().is_opaque());
}

#[test]
fn arrays_by_what_a_client_sees() {
    let differs = |other: &str| {
        let difference = same(Redis, &body(ARRAY), Redis, &body(other)).expect("two arrays");
        difference.map(|difference| difference.to_string())
    };
    // All as text, in another order.
    let texts = "1c 03 01 05 05 00 03 616263 01 00 03 312e35 00 00 023432";
    assert_eq!(differs(texts), None);
    for (other, said) in [
        (
            "1c 02 01 05 00 00 023432 01 00 03312e35",
            "number of indexes",
        ),
        (
            "1c 03 01 06 00 00 023432 01 00 03312e35 05 00 03616263",
            "cursor",
        ),
        (
            "1c 03 00 00 00 023432 01 00 03312e35 05 00 03616263",
            "cursor: 5 here, none there",
        ),
        (
            "1c 03 01 05 00 00 023432 01 00 04312e3530 05 00 03616263",
            "index 1: \"1.5\" here",
        ),
        (
            "1c 03 01 05 00 00 023432 01 00 03312e35 06 00 03616263",
            "next index: 5 here, 6",
        ),
    ] {
        let found = differs(other).expect(said);
        assert!(found.contains(said), "{found}");
    }
}

#[test]
fn paths() {
    reads(Valkey, PATHS, &["/p: f=v", "/q: f=w", "/q: g="]);
    reads(Valkey, "17 00", &[]);
    let bad = |text: &str, kind| fails(Valkey, &body(text), kind);
    bad("17 01 022f70 00", ErrorKind::Empty("path"));
    let twice = || ErrorKind::Duplicate("path or field of a path");
    bad("17 02 022f70 01 0166 0176 022f70 01 0167 0176", twice());
    bad("17 01 022f70 02 0166 0176 0166 0177", twice());
    bad("17 01 022f70 01 0166", ErrorKind::Truncated);
    bad("17 00 00", ErrorKind::Trailing(1));
    // 23 of Redis is something else.
    assert_ne!(kind_of(Redis, 23), kind_of(Valkey, 23));
    let difference = same(
        Valkey,
        &body(PATHS),
        Valkey,
        &body("17 01 022f70 01 0166 0177"),
    );
    let difference = difference.unwrap().expect("another value").to_string();
    assert!(
        difference.contains("path \"/p\", field \"f\""),
        "{difference}"
    );
}

/// They go where they are known, as they are; everywhere else they are refused by name.
#[test]
fn where_they_go() {
    for (family, version, value, due) in [
        (Redis, "8.8.0", (Redis, 14, 28), Plan::Keep),
        (Redis, "8.10.0", (Redis, 14, 28), Plan::Keep),
        (Redis, "8.8.0", (Redis, 15, 28), Plan::Restamp(14)),
        (Valkey, "9.2.0", (Valkey, 81, 23), Plan::Keep),
    ] {
        let (from, rdb_version, type_byte) = value;
        let found = plan(&accepts(family, version), from, rdb_version, type_byte);
        assert_eq!(found, due, "{version}");
    }
    for (family, version) in [
        (Redis, "8.6.0"),
        (Redis, "6.0.0"),
        (Valkey, "9.2.0"),
        (Valkey, "8.1.0"),
    ] {
        let found = plan(&accepts(family, version), Redis, 14, 28);
        let Plan::Refuse(refusal) = found else {
            panic!("{found:?}");
        };
        assert!(
            refusal.to_string().contains("array of Redis 8.8"),
            "{refusal}"
        );
    }
    for (family, version) in [(Redis, "8.10.0"), (Valkey, "9.1.0"), (Valkey, "8.1.0")] {
        let found = plan(&accepts(family, version), Valkey, 81, 23);
        let Plan::Refuse(refusal) = found else {
            panic!("{found:?}");
        };
        assert!(
            refusal.to_string().contains("path hash of Valkey 9.2"),
            "{refusal}"
        );
    }
    // One without paths goes nowhere.
    let empty = body("17 00");
    let checked = check(Valkey, &empty).expect("it can be read");
    let found = plan_checked(&accepts(Valkey, "9.2.0"), Valkey, 81, &empty, &checked);
    assert!(matches!(found, Plan::Refuse(_)), "{found:?}");
}
