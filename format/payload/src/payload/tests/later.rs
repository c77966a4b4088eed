//! Values of Redis 8.8 and 8.10 and of Valkey 9.2: made by hand from the layout, no server confirmed.

use redis_migrate_format::record::Family::{self, Redis, Valkey};

use super::accept::{Accepts, Plan, plan, plan_checked, plan_value};
use super::handmade::{body, fails, reads};
use super::meaning::same;
use super::*;
use crate::dialect::{Dialect, Version};

/// An array, with integers, numbers and texts, a hole, and a cursor.
const ARRAY: &str = "1c 03 01 05 00 01 2a00000000000000 01 02 000000000000f83f 05 03 03 616263";
const PATHS: &str = "17 02 022f70 01 0166 0176 022f71 02 0166 0177 0167 00";

/// The hash a=x, bb=y with its template: values in a row, and in a listpack; names in each way.
const TABLE: &str = "1f 01 02 0161 026262 0178 0179";
const TABLE_PACKED: &str = "1f 00 0e 0e0000000200 816102 82626203 ff 0178 0179";
const LISTPACK: &str =
    "1d 00 0e 0e0000000200 816102 82626203 ff 0f 0f0000000300 0001 817802 817902 ff";

/// For the loops that break things.
pub(crate) const VALUES: &[(Family, &str)] = &[
    (Redis, ARRAY),
    (Valkey, PATHS),
    (Redis, TABLE),
    (Redis, TABLE_PACKED),
    (Redis, LISTPACK),
];

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

#[test]
fn hashes_with_templates() {
    for text in [TABLE, TABLE_PACKED, LISTPACK] {
        reads(Redis, text, &["a=x", "bb=y"]);
        // The same as a plain hash.
        let plain = body("04 02 026262 0179 0161 0178");
        assert_eq!(same(Redis, &body(text), Redis, &plain), Ok(None), "{text}");
        let mut out = Vec::new();
        assert_eq!(compact(&body(text), Redis, &mut out), Ok(()));
        assert_eq!(out, body(text));
        assert!(compact_within(&body(text), Redis, out.len() as u64 - 1, &mut out).is_err());
    }
    for (text, footer) in [
        (TABLE, "0f00 b5abd0ac5dea3dad"),
        (LISTPACK, "0f00 a5cacf875157a7d8"),
    ] {
        let payload = body(&format!("{text}{footer}"));
        assert_eq!(split(&payload), Ok((&body(text)[..], 15)), "{text}");
    }
    // Numbers among the names and the values of listpacks; an empty name; a compressed value.
    reads(
        Redis,
        "1d 00 0d 0d0000000200 0701 82626203 ff 0f 0f0000000300 0501 817802 817902 ff",
        &["7=x", "bb=y"],
    );
    reads(Redis, "1f 01 02 00 026262 0178 c004", &["=x", "bb=4"]);
    let long = "1f 01 01 0161 c3 0940 6401 6161 e057 0001 6161";
    let mut out = Vec::new();
    assert_eq!(compact(&body(long), Redis, &mut out), Ok(()));
    assert_eq!(out.len(), 5 + 2 + 100);
    assert_eq!(same(Redis, &body(long), Redis, &out), Ok(None));
}

#[test]
fn hashes_with_templates_behind_metadata() {
    // One class, without a value.
    let metadata = "f3 01 00000000 00";
    let text = format!("{metadata} {TABLE_PACKED}");
    reads(Redis, &text, &["a=x", "bb=y"]);
    let mut out = Vec::new();
    assert_eq!(compact(&body(&text), Redis, &mut out), Ok(()));
    assert_eq!(out, body(&text));
}

/// What does not fit may be laid out in a way of its own: it is not called damaged, and goes only to
/// servers that accept its version.
#[test]
fn hashes_with_templates_of_another_layout() {
    for text in [
        // As development versions had it: fields and values in turn; no form before the names.
        "1f 02 0161 0178 026262 0179",
        "1f 01 0161 0178",
        "1d 0e 0e0000000200 816102 82626203 ff 0e 0e0000000200 817802 817902 ff",
        // Something else under the same number.
        "1d 05",
        // Names out of order, twice, none; an unknown form; too few values, too many.
        "1f 01 02 026262 0161 0178 0179",
        "1f 01 02 0161 0161 0178 0179",
        "1f 01 00",
        "1f 02 02 0161 026262 0178 0179",
        "1f 01 02 0161 026262 0178",
        "1f 01 02 0161 026262 0178 0179 0179",
        "1d 01 02 0161 026262 0c 0c0000000200 0001 817802 ff",
        "1d 01 01 0161 0d 0d0000000200 817a02 817802 ff",
    ] {
        let value = body(text);
        let error = decode(Redis, &value).expect_err(text);
        assert!(error.is_opaque(), "{text}: {error}");
        assert_eq!(examine(Redis, &value), Examined::Opaque);
        assert!(
            compact(&value, Redis, &mut Vec::new())
                .unwrap_err()
                .is_opaque()
        );
        let plan = |version| plan_value(&accepts(Redis, version), Redis, 15, &value);
        assert_eq!(plan("8.10.0"), Plan::Verbatim, "{text}");
        assert!(matches!(plan("8.8.0"), Plan::Refuse(_)), "{text}");
        assert!(matches!(plan("8.0.0"), Plan::Refuse(_)), "{text}");
    }
    // References say nothing outside their file.
    for text in [
        "1e 0f 0f0000000300 0001 817802 817902 ff",
        "20 00 0178 0179",
    ] {
        assert!(decode(Redis, &body(text)).unwrap_err().is_opaque());
    }
}

#[test]
fn where_hashes_with_templates_go() {
    for text in [TABLE, TABLE_PACKED, LISTPACK] {
        let value = body(text);
        let plan = |family, version| plan_value(&accepts(family, version), Redis, 15, &value);
        assert_eq!(plan(Redis, "8.10.0"), Plan::Keep);
        for (family, version) in [(Redis, "8.8.0"), (Redis, "6.0.0"), (Valkey, "9.1.0")] {
            let accepts = accepts(family, version);
            let Plan::Reencode { forms, .. } = plan(family, version) else {
                panic!("{version}");
            };
            let mut out = Vec::new();
            let losses = recode(Redis, &value, forms, &mut out).expect("a sound value");
            assert!(
                losses.is_none() && accepts.types.contains(out[0]),
                "{version}"
            );
            assert_eq!(same(Redis, &value, family, &out), Ok(None));
        }
    }
}
