//! FRAGMENT runs: values of every make-up come out as they went in, and a reader of heads says the
//! same of them without their bytes.

mod support;

use redis_migrate_format::limits::HEAD_LEN;
use redis_migrate_format::record::{KeyRecord, Record, Value};
use redis_migrate_format::salvage::{Content, Decoder, Found, Scanner};
use redis_migrate_format::{Class, Limits, Reader, WriterOptions};
use support::forge::Forged;
use support::mutation::Random;
use support::*;

const MIB: usize = 1 << 20;

/// Parts of a MiB.
fn parts() -> WriterOptions {
    WriterOptions {
        frame_target_bytes: MIB as u32,
        fragment_bytes: MIB as u32,
        level: 1,
        ..WriterOptions::default()
    }
}

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut random = Random::new(5);
    (0..len).map(|_| random.below(256) as u8).collect()
}

/// Values whose parts are kept as they came and joined late, in every order.
fn values() -> Vec<Vec<u8>> {
    vec![
        vec![0; 24 * MIB],
        noise(3 * MIB),
        [vec![0; 20 * MIB], noise(4 * MIB)].concat(),
        [noise(MIB), vec![0; 20 * MIB], noise(MIB), vec![7; 5]].concat(),
    ]
}

#[test]
fn a_value_comes_out_as_it_went_in() {
    for (n, value) in values().into_iter().enumerate() {
        let record = key(3, b"large", &value);
        let bytes = write_all(std::slice::from_ref(&record), parts());
        let mut reader = Reader::new(&bytes[..], Limits::default()).unwrap();
        let frame = reader.next_frame().unwrap().expect("a frame");
        assert!(frame.records == [record.clone()], "{n}");
        assert!(reader.next_frame().unwrap().is_none(), "{n}");
        // Salvage joins by itself.
        let mut scanner = Scanner::new(&bytes[..], None);
        let mut decoder = Decoder::new(Limits::default()).unwrap();
        let mut found = Vec::new();
        while let Some(next) = scanner.next_found().unwrap() {
            if let Found::Frame(frame) = next
                && let Content::Records(frame) = decoder.decode(frame).unwrap()
            {
                found.extend(frame.records);
            }
        }
        assert!(found == [record], "{n}");
    }
}

#[test]
fn heads_are_the_beginning_and_the_length() {
    let payload = vec![9; 3 * MIB];
    let records = [
        key(0, b"v", &vec![5; 5 * MIB]),
        // A key that is longer than what is kept of a value, and than a part.
        key(1, &noise(MIB + 7), &vec![6; 2 * MIB]),
        Record::Key(KeyRecord {
            db: 2,
            key: b"w".to_vec(),
            value: Value::Verbatim(payload.clone()),
            expire_at_ms: Some(9),
            eviction: None,
        }),
        Record::Functions(payload),
        Record::Deleted {
            db: 3,
            key: noise(2 * MIB),
        },
    ];
    let bytes = write_all(&records, parts());
    let mut reader = Reader::new(&bytes[..], Limits::default())
        .unwrap()
        .heads_only();
    let mut seen = 0;
    while let Some(frame) = reader.next_frame().unwrap() {
        for record in &frame.records {
            let due = &records[seen];
            seen += 1;
            let len = match due {
                Record::Key(key) => key.value.bytes().len(),
                Record::Functions(payload) => payload.len(),
                _ => 0,
            };
            assert_eq!(frame.value_len(record), len as u64);
            match (record, due) {
                (Record::Key(head), Record::Key(whole)) => {
                    assert!(head.key == whole.key && head.db == whole.db);
                    assert_eq!(head.expire_at_ms, whole.expire_at_ms);
                    let (head, whole) = (head.value.bytes(), whole.value.bytes());
                    assert!(head.len() > HEAD_LEN / 2 && head.len() < MIB);
                    assert!(whole.starts_with(head));
                }
                (Record::Functions(head), Record::Functions(whole)) => {
                    assert!(whole.starts_with(head) && head.len() < MIB);
                }
                _ => assert!(record == due),
            }
        }
    }
    assert_eq!(seen, records.len());
}

#[test]
fn a_limit_on_values_is_heeded_by_readers_of_heads() {
    let bytes = write_all(&[key(0, b"v", &vec![5; 5 * MIB])], parts());
    for (max_value_bytes, fits) in [(5 * MIB as u64, true), (5 * MIB as u64 - 1, false)] {
        let limits = Limits {
            max_value_bytes,
            ..Limits::default()
        };
        let mut reader = Reader::new(&bytes[..], limits).unwrap().heads_only();
        let class = reader.next_frame().err().map(|error| error.class());
        assert_eq!(class, (!fits).then_some(Class::LimitExceeded));
    }
}

/// All in one frame.
fn one_frame() -> WriterOptions {
    WriterOptions {
        frame_target_bytes: 16 * MIB as u32,
        fragment_bytes: 16 * MIB as u32,
        ..parts()
    }
}

/// Small records, several times as many as a piece has.
fn many() -> Vec<Record> {
    let records = (0..100_000_u32).map(|n| match n % 50 {
        0 => Record::Deleted {
            db: n % 3,
            key: n.to_be_bytes().to_vec(),
        },
        _ => key(n % 3, &n.to_be_bytes(), &[0, 1, n as u8]),
    });
    records.collect()
}

#[test]
fn a_large_frame_comes_in_pieces_that_are_the_whole() {
    let records = many();
    let options = one_frame();
    let bytes = write_all(&records, options);
    let mut reader = Reader::new(&bytes[..], Limits::default()).unwrap();
    let (mut found, mut pieces) = (Vec::new(), 0);
    let mut whole = Reader::new(&bytes[..], Limits::default()).unwrap();
    let due = whole.next_frame().unwrap().unwrap();
    assert_eq!(due.records.len(), records.len());
    while let Some(piece) = reader.next_piece().unwrap() {
        // All of it was checked and counted before the first is given.
        assert_eq!(reader.records_read(), records.len() as u64);
        assert_eq!((piece.seq, piece.context), (due.seq, due.context));
        assert_eq!((piece.offset, piece.raw_len), (due.offset, due.raw_len));
        assert!(piece.records.len() < records.len() / 2);
        pieces += 1;
        found.extend(piece.records);
        assert_eq!(piece.goes_on, found.len() < records.len());
    }
    assert!(reader.end().is_some() && pieces > 2);
    assert!(found == due.records);
    // The rest can be had at once, or be looked at.
    for is_visit in [false, true] {
        let mut reader = Reader::new(&bytes[..], Limits::default()).unwrap();
        let mut found = reader.next_piece().unwrap().unwrap().records;
        if is_visit {
            let visited = reader.visit_frame(|_, record, _| found.push(record.clone()));
            assert!(visited.unwrap().is_some());
        } else {
            found.extend(reader.next_frame().unwrap().unwrap().records);
        }
        assert!(found == due.records);
        assert!(reader.next_piece().unwrap().is_none());
    }
}

#[test]
fn salvage_gives_the_same_pieces() {
    let options = one_frame();
    let bytes = write_all(&many(), options);
    let mut scanner = Scanner::new(&bytes[..], None);
    let mut decoder = Decoder::new(Limits::default()).unwrap();
    let (mut found, mut pieces) = (Vec::new(), 0);
    while let Some(next) = scanner.next_found().unwrap() {
        let Found::Frame(frame) = next else { continue };
        let Content::Records(first) = decoder.decode_piece(frame).unwrap() else {
            assert!(decoder.next_piece().unwrap().is_none());
            continue;
        };
        let mut piece = Some(first);
        while let Some(frame) = piece {
            pieces += 1;
            found.extend(frame.records);
            piece = decoder.next_piece().unwrap();
        }
    }
    let mut reader = Reader::new(&bytes[..], Limits::default()).unwrap();
    assert!(found == reader.next_frame().unwrap().unwrap().records);
    assert!(pieces > 2);
}

/// Damage behind the first piece is found before that is given.
#[test]
fn no_piece_is_given_of_a_frame_that_is_damaged_at_its_end() {
    let options = one_frame();
    let mut forged = Forged::parse(&write_all(&many(), options));
    let frame = forged.frame(2);
    let mut body = zstd::bulk::decompress(&frame.payload, frame.raw_len as usize).unwrap();
    // An entry of a kind that no reader knows.
    body.extend([0x10, 0]);
    (frame.codec, frame.raw_len, frame.payload) = (0, body.len() as u32, body);
    let bytes = forged.build();
    let mut reader = Reader::new(&bytes[..], Limits::default()).unwrap();
    let error = reader.next_piece().unwrap_err();
    assert_eq!(error.class(), Class::Unsupported, "{error}");
}
