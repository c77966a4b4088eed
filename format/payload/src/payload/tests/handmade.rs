//! Values that no server at hand writes: the old types, the odd, and the harmful.

use redis_migrate_format::record::Family::{self, Redis, Valkey};

use super::pack::Element::{Int, Text};
use super::pack::{self, Element};
use super::vectors::hex;
use super::*;

pub(super) fn body(text: &str) -> Vec<u8> {
    hex(&text.replace([' ', '\n'], ""))
}

pub(super) fn strings(object: Object<'_>) -> Vec<String> {
    let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
    match object {
        Object::String(string) => vec![show(&string)],
        Object::List(rows) | Object::Set(rows) => rows.iter().map(|row| show(row)).collect(),
        Object::ZSet(rows) => rows
            .iter()
            .map(|row| format!("{}:{:?}", show(&row.member), row.score))
            .collect(),
        Object::Hash(rows) => rows
            .iter()
            .map(|row| {
                let ttl = row
                    .expire_at_ms
                    .map_or(String::new(), |ms| format!("@{ms}"));
                format!("{}={}{ttl}", show(&row.name), show(&row.value))
            })
            .collect(),
        Object::Stream(stream) => stream
            .entries()
            .map(|entry| entry.expect("a sound stream").id.to_string())
            .collect(),
        Object::Array(array) => {
            let slots = array.slots.iter();
            let slots = slots.map(|slot| format!("{}={}", slot.index, show(&slot.value.text())));
            slots
                .chain(array.cursor.map(|cursor| format!("cursor {cursor}")))
                .collect()
        }
        Object::PathHash(paths) => paths
            .iter()
            .flat_map(|path| {
                let fields = path.fields.iter();
                fields.map(|(name, value)| {
                    format!("{}: {}={}", show(&path.path), show(name), show(value))
                })
            })
            .collect(),
    }
}

pub(super) fn reads(family: Family, text: &str, expected: &[&str]) {
    let value = body(text);
    let object = decode(family, &value).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(strings(object), expected, "{text}");
    assert!(check(family, &value).is_ok());
}

pub(super) fn fails(family: Family, value: &[u8], expected: ErrorKind) {
    let error = decode(family, value).expect_err("an unsound value");
    assert_eq!(error.kind, expected, "{}", value.escape_ascii());
    assert!(error.offset <= value.len() as u64);
    assert_eq!(check(family, value), Err(error));
    let forms = Forms {
        stream: StreamForm::V5,
        field_ttl: FieldTtlForm::Redis,
        back_lengths: BackLengths::Early,
        packing: Packing::None,
        intsets: false,
    };
    let mut out = b"kept".to_vec();
    assert!(recode(family, value, forms, &mut out).is_err());
    assert_eq!(out, b"kept");
}

#[test]
fn old_types() {
    // Scores as text.
    reads(
        Redis,
        "03 04 0161 03312e35 0162 fe 0163 ff 0164 022d31",
        &["a:1.5", "b:inf", "c:-inf", "d:-1.0"],
    );
    // A zipmap with two unused bytes behind the first value, and a long field.
    reads(
        Redis,
        "09 0d 02 0161 01 02 62 0000 0163 00 00 ff",
        &["a=b", "c="],
    );
    let long = ["09 4114 fe 01 61 fe 0a010000 00", &"78".repeat(266), "ff"].concat();
    let value = body(&long);
    assert_eq!(value.len(), 3 + 0x114, "the length of the zipmap");
    reads(Redis, &long, &[&format!("a={}", "x".repeat(266))]);
    // Ziplists: integers of all widths.
    reads(
        Redis,
        "0a 2e 2e000000 2a000000 0800
         00 f1  02 fd  02 fe80  03 c00080  04 f0000080  05 d000000080
         06 e00000000000000080  0a 0161 ff",
        &[
            "0",
            "12",
            "-128",
            "-32768",
            "-8388608",
            "-2147483648",
            "-9223372036854775808",
            "a",
        ],
    );
    // An entry that was long once: its successor keeps the long form.
    reads(
        Redis,
        "0a 14 14000000 0d000000 0200 00 0161 fe03000000 f2 ff",
        &["a", "1"],
    );
    reads(
        Redis,
        "0c 10 10000000 0d000000 0200 00 0161 03 f2 ff",
        &["a:1.0"],
    );
    reads(
        Redis,
        "0d 11 11000000 0d000000 0200 00 0161 03 0162 ff",
        &["a=b"],
    );
    reads(
        Redis,
        "0e 02 0e 0e000000 0a000000 0100 00 0161 ff 0d 0d000000 0a000000 0100 00 f2 ff",
        &["a", "1"],
    );
}

#[test]
fn field_expiry_in_all_its_forms() {
    // Release candidates of 7.4: absolute.
    reads(
        Redis,
        "16 02 00 0161 0162 81 0000000000000064 0163 0164",
        &["a=b", "c=d@100"],
    );
    let pack = |elements: &[Element<'_>]| {
        let listpack = pack::listpack(elements);
        [&[listpack.len() as u8], &listpack[..]].concat()
    };
    let triples = pack(&[
        Text(b"c"),
        Text(b"d"),
        Int(100),
        Text(b"a"),
        Text(b"b"),
        Int(0),
    ]);
    let value = [&[23][..], &triples].concat();
    assert_eq!(
        strings(decode(Redis, &value).expect("sound")),
        ["c=d@100", "a=b"]
    );
    let value = [&[25, 100, 0, 0, 0, 0, 0, 0, 0][..], &triples].concat();
    assert_eq!(
        strings(decode(Redis, &value).expect("sound")),
        ["c=d@100", "a=b"]
    );
    // Relative to the lowest.
    reads(
        Redis,
        "18 6400000000000000 03 01 0161 0162 00 0163 0164 0b 0165 0166",
        &["a=b@100", "c=d", "e=f@110"],
    );
    reads(
        Valkey,
        "16 02 0161 0162 ffffffffffffffff 0163 0164 6400000000000000",
        &["a=b", "c=d@100"],
    );

    fails(
        Valkey,
        &body("16 01 0161 0162 feffffffffffffff"),
        ErrorKind::FieldTtl,
    );
    fails(
        Redis,
        &body("18 ffffffffffffff7f 01 02 0161 0162"),
        ErrorKind::FieldTtl,
    );
    fails(
        Redis,
        &body("18 00000000000000f0 01 02 0161 0162"),
        ErrorKind::FieldTtl,
    );
    fails(
        Redis,
        &body("16 01 81 8000000000000000 0161 0162"),
        ErrorKind::FieldTtl,
    );
    let negative = pack(&[Text(b"a"), Text(b"b"), Int(-1)]);
    fails(Redis, &[&[23][..], &negative].concat(), ErrorKind::FieldTtl);
    let text = pack(&[Text(b"a"), Text(b"b"), Text(b"x")]);
    fails(Redis, &[&[23][..], &text].concat(), ErrorKind::FieldTtl);
    let late = pack(&[
        Text(b"a"),
        Text(b"b"),
        Int(2),
        Text(b"c"),
        Text(b"d"),
        Int(1),
    ]);
    fails(Redis, &[&[23][..], &late].concat(), ErrorKind::FieldOrder);
    let never = pack(&[
        Text(b"a"),
        Text(b"b"),
        Int(0),
        Text(b"c"),
        Text(b"d"),
        Int(1),
    ]);
    fails(
        Redis,
        &[&[25, 0, 0, 0, 0, 0, 0, 0, 0][..], &never].concat(),
        ErrorKind::FieldOrder,
    );
    let pair = pack(&[Text(b"a"), Text(b"b")]);
    fails(Redis, &[&[23][..], &pair].concat(), ErrorKind::Odd("hash"));
}

#[test]
fn nothing_is_taken_for_sound_that_is_not() {
    // Empty, in every way.
    for (type_byte, what) in [
        (1, "list"),
        (2, "set"),
        (3, "zset"),
        (4, "hash"),
        (5, "zset"),
        (14, "list"),
        (18, "list"),
        (22, "hash"),
    ] {
        fails(Redis, &[type_byte, 0], ErrorKind::Empty(what));
    }
    fails(
        Redis,
        &body("0b 08 02000000 00000000"),
        ErrorKind::Empty("set"),
    );
    fails(
        Redis,
        &body("10 07 07000000 0000 ff"),
        ErrorKind::Empty("hash"),
    );
    fails(
        Redis,
        &body("0e 01 0b 0b000000 0a000000 0000 ff"),
        ErrorKind::Empty("list node"),
    );
    fails(
        Redis,
        &body("12 01 02 07 07000000 0000 ff"),
        ErrorKind::Empty("list node"),
    );

    // Twice, also when written differently.
    fails(
        Redis,
        &body("02 02 0161 0161"),
        ErrorKind::Duplicate("member"),
    );
    fails(
        Redis,
        &body("02 02 0131 c001"),
        ErrorKind::Duplicate("member"),
    );
    fails(
        Redis,
        &body("04 02 0161 0162 0161 0163"),
        ErrorKind::Duplicate("field"),
    );
    fails(
        Redis,
        &body("03 02 0161 0131 0161 0132"),
        ErrorKind::Duplicate("member"),
    );
    fails(
        Redis,
        &body("14 0c 0c000000 0200 8131 02 01 01 ff"),
        ErrorKind::Duplicate("member"),
    );

    // Scores.
    fails(Redis, &body("03 01 0161 fd"), ErrorKind::Score);
    fails(Redis, &body("03 01 0161 03 6e616e"), ErrorKind::Score);
    fails(Redis, &body("03 01 0161 00"), ErrorKind::Score);
    fails(
        Redis,
        &body("05 01 0161 000000000000f87f"),
        ErrorKind::Score,
    );
    fails(
        Redis,
        &body("11 0d 0d000000 0200 8161 02 8162 02 ff"),
        ErrorKind::Score,
    );
    fails(
        Redis,
        &body("11 0f 0f000000 0200 8161 02 83 6e616e 04 ff"),
        ErrorKind::Score,
    );

    // Halves.
    fails(
        Redis,
        &body("10 0a 0a000000 0100 8161 02 ff"),
        ErrorKind::Odd("hash"),
    );
    fails(
        Redis,
        &body("11 0a 0a000000 0100 8161 02 ff"),
        ErrorKind::Odd("zset"),
    );

    // More or less than there is.
    fails(Redis, &body("00 0161 00"), ErrorKind::Trailing(1));
    fails(Redis, &body("01 01 0161 00"), ErrorKind::Trailing(1));
    fails(
        Redis,
        &body("14 0a 0a000000 0100 8161 02 ff 00"),
        ErrorKind::Trailing(1),
    );
    fails(Redis, &body("01 02 0161"), ErrorKind::Truncated);
    fails(
        Redis,
        &body("01 81 7fffffffffffffff 0161"),
        ErrorKind::Truncated,
    );
    fails(
        Redis,
        &body("04 81 ffffffffffffffff 0161"),
        ErrorKind::Truncated,
    );
    fails(
        Redis,
        &body("00 81 ffffffffffffffff 61"),
        ErrorKind::Truncated,
    );
    fails(Redis, b"", ErrorKind::Truncated);
    fails(Redis, &body("01 c001"), ErrorKind::EncodedLength);
    fails(Redis, &body("00 c4"), ErrorKind::BadEncoding(4));
    fails(Redis, &body("00 82"), ErrorKind::BadLength(0x82));
    fails(Redis, &body("12 01 03 0161"), ErrorKind::Container(3));
}

#[test]
fn listpacks() {
    let lp = |what| ErrorKind::Listpack(what);
    for (text, what) in [
        ("14 05 05000000 ff", "no header"),
        (
            "14 0a 0b000000 0100 8161 02 ff",
            "length is not that of the string",
        ),
        ("14 0a 0a000000 0200 8161 02 ff", "wrong count"),
        ("14 0a 0a000000 0100 8161 03 ff", "wrong backward length"),
        ("14 0a 0a000000 0100 8161 02 fe", "bad entry"),
        ("14 0a 0a000000 0100 8a61 02 ff", "bad entry"),
        (
            "14 0b 0b000000 0100 8161 02 ff ff",
            "ends before its length",
        ),
        ("14 09 09000000 0100 8161 02", "no end"),
        ("14 0a 0a000000 0100 f0ffffff ff", "bad entry"),
        ("14 0a 0a000000 0100 f4ffffff ff", "bad entry"),
    ] {
        fails(Redis, &body(text), lp(what));
    }
    // Integers of all widths, and a count that is not known.
    let elements = "01 01  dfff 02  d000 02  f10080 03  f2000080 04  f300000080 05
                    f40000000000000080 09  e00161 03 ff";
    let bytes = body(elements);
    let text = format!(
        "14 {:02x} {:02x}000000 ffff {elements}",
        bytes.len() + 6,
        bytes.len() + 6
    );
    reads(
        Redis,
        &text,
        &[
            "1",
            "-1",
            "-4096",
            "-32768",
            "-8388608",
            "-2147483648",
            "-9223372036854775808",
            "a",
        ],
    );
}

#[test]
fn the_steps_of_backward_lengths() {
    // One byte more than the header of the string makes the entry.
    for len in [
        0, 1, 63, 64, 125, 126, 127, 4095, 4096, 16_377, 16_378, 16_379, 16_380, 2_097_145,
        2_097_146, 2_097_147,
    ] {
        let element = vec![b'x'; len];
        let listpack = pack::listpack(&[Text(&element)]);
        let mut value = vec![20];
        write::string(&mut value, &listpack);
        let Ok(Object::Set(rows)) = decode(Redis, &value) else {
            panic!("{len}")
        };
        assert_eq!(rows, [element]);
    }
    // 5 + 16378 makes 16383, from which on it takes three bytes, or two.
    use decode::BackLengths::{Early, Exact};
    assert_eq!(Early.bytes(16_382), ([0x7f, 0xfe, 0, 0, 0], 2));
    assert_eq!(Early.bytes(16_383), ([0, 0xff, 0xff, 0, 0], 3));
    assert_eq!(Exact.bytes(16_383), ([0x7f, 0xff, 0, 0, 0], 2));
    assert_eq!(Exact.bytes(16_384), Early.bytes(16_384));
    assert_eq!(Early.bytes(127), Exact.bytes(127));
    assert_eq!(Early.bytes(128), Exact.bytes(128));
}

#[test]
fn lengths_backwards_of_either_kind() {
    use decode::BackLengths::{Early, Exact};
    use decode::listpack::rewritten;
    for len in [16_378, 2_097_146] {
        let element = vec![b'x'; len];
        let early = pack::listpack(&[Text(b"a"), Text(&element), Int(5)]);
        let exact = rewritten(&early, Exact).expect("another way");
        assert_eq!(exact.len(), early.len() - 1);
        assert_eq!(rewritten(&exact, Early).as_ref(), Some(&early));
        assert_eq!(rewritten(&exact, Exact), None);
        assert_eq!(rewritten(&early, Early), None);
        let set = |listpack: &[u8]| {
            let mut value = vec![20];
            write::string(&mut value, listpack);
            value
        };
        let (early, exact) = (set(&early), set(&exact));
        assert_eq!(
            decode(Redis, &early).expect("sound"),
            decode(Redis, &exact).expect("sound")
        );
    }
    let element = vec![b'x'; 16_378];
    let other = pack::listpack(&[Text(&element), Text(b"a")]);
    assert_eq!(rewritten(&pack::listpack(&[Text(b"a")]), Exact), None);
    // Both kinds in one listpack.
    let exact = rewritten(&other, Exact).expect("another way");
    let mut mixed = [&other[..other.len() - 1], &exact[6..]].concat();
    let total = (mixed.len() as u32).to_le_bytes();
    mixed[..4].copy_from_slice(&total);
    mixed[4] = 4;
    let mut value = vec![20];
    write::string(&mut value, &mixed);
    fails(
        Redis,
        &value,
        ErrorKind::Listpack("backward lengths of two kinds"),
    );
}

#[test]
fn ziplists() {
    let zl = |what| ErrorKind::Ziplist(what);
    for (text, what) in [
        ("0a 09 09000000 0a000000 00", "no header"),
        (
            "0a 0e 0f000000 0a000000 0100 00 0161 ff",
            "length is not that of the string",
        ),
        ("0a 0e 0e000000 0a000000 0200 00 0161 ff", "wrong count"),
        (
            "0a 0e 0e000000 0b000000 0100 00 0161 ff",
            "tail is not the last entry",
        ),
        (
            "0a 0e 0e000000 0a000000 0100 01 0161 ff",
            "wrong length of the entry before",
        ),
        ("0a 0e 0e000000 0a000000 0100 00 3f61 ff", "bad entry"),
        ("0a 0e 0e000000 0a000000 0100 00 8161 ff", "bad entry"),
        ("0a 0e 0e000000 0a000000 0100 00 e061 ff", "bad entry"),
        ("0a 0e 0e000000 0a000000 0100 fe 0161 ff", "bad entry"),
        (
            "0a 0f 0f000000 0a000000 0100 00 0161 ff ff",
            "ends before its length",
        ),
        ("0a 0d 0d000000 0a000000 0100 00 0161", "no end"),
    ] {
        fails(Redis, &body(text), zl(what));
    }
}

#[test]
fn zipmaps_and_intsets() {
    for (text, what) in [
        ("09 00", "no header"),
        ("09 07 02 0161 01 00 62 ff", "wrong count"),
        ("09 07 01 0161 01 05 62 ff", "bad entry"),
        ("09 06 01 0161 01 00 62", "no end"),
        ("09 07 01 0161 09 00 62 ff", "bad entry"),
        ("09 04 01 0161 ff", "bad entry"),
        (
            "09 08 01 0161 01 00 62 ff 00",
            "ends before its string does",
        ),
        ("09 03 01 0161", "no end"),
        // A length of one, said in five bytes: of the field, and of the value.
        ("09 0b 01 fe01000000 66 01 00 76 ff", "bad entry"),
        ("09 0b 01 0166 fe01000000 00 76 ff", "bad entry"),
    ] {
        fails(Redis, &body(text), ErrorKind::Zipmap(what));
    }
    reads(Redis, "09 07 01 0166 01 00 76 ff", &["f=v"]);
    for (text, what) in [
        ("0b 07 02000000 010000", "no header"),
        ("0b 0a 03000000 01000000 0100", "no such width"),
        ("0b 0a 02000000 02000000 0100", "wrong count"),
        ("0b 0a 02000000 ffffffff 0100", "wrong count"),
        ("0b 0c 02000000 02000000 0200 0100", "not in order"),
        ("0b 0c 02000000 02000000 0100 0100", "not in order"),
    ] {
        fails(Redis, &body(text), ErrorKind::Intset(what));
    }
    reads(
        Redis,
        "0b 10 08000000 01000000 0000000000000080",
        &["-9223372036854775808"],
    );
}

#[test]
fn offsets_point_at_the_damage() {
    // Second entry of the listpack: type, length of the string, header, first entry.
    let error = decode(Redis, &body("14 0d 0d000000 0200 8161 02 8162 07 ff")).unwrap_err();
    assert_eq!(
        error,
        PayloadError::new(2 + 6 + 3, ErrorKind::Listpack("wrong backward length"))
    );
    assert_eq!(
        error.to_string(),
        "listpack: wrong backward length at byte 11"
    );
    let value = body("05 02 0161 000000000000f03f 0162 000000000000f8ff");
    let error = decode(Redis, &value);
    assert_eq!(error, Err(PayloadError::new(14, ErrorKind::Score)));
}

#[test]
fn opaque_is_not_damage() {
    for (family, type_byte) in [
        (Redis, 6),
        (Redis, 7),
        (Redis, 99),
        (Valkey, 26),
        (Valkey, 25),
        (Redis, 242),
        (Valkey, 243),
    ] {
        let error = decode(family, &[type_byte, 1, 2, 3]).unwrap_err();
        assert!(error.is_opaque());
        assert_eq!(check(family, &[type_byte, 1, 2, 3]), Err(error));
    }
}
