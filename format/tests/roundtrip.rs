//! What is written is read again: any records, any options, through streams that give and take one
//! byte at a time.

mod support;

use std::collections::HashMap;
use std::io::{self, Read, Write};

use proptest::collection::vec;
use proptest::prelude::*;
use redis_migrate_format::header::*;
use redis_migrate_format::record::{Context, Eviction, Family, KeyRecord, Record, Value};
use redis_migrate_format::scan::Scan;
use redis_migrate_format::{EndFacts, Frame, Limits, Reader, Writer, WriterOptions};
use sha2::{Digest, Sha256};
use support::*;

/// Gives and takes one byte at a time.
struct OneByte<T>(T);

impl<R: Read> Read for OneByte<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(1);
        self.0.read(&mut buffer[..len])
    }
}

impl<W: Write> Write for OneByte<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(1)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Keys come from a few as well as from many, so that some come again.
fn any_key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(0_u8..3, 0..2), vec(any::<u8>(), 0..20)]
}

fn any_db() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), 0_u32..16, Just(u32::MAX)]
}

fn any_value() -> impl Strategy<Value = Value> {
    let bytes = prop_oneof![
        8 => vec(any::<u8>(), 1..40),
        1 => vec(any::<u8>(), 1..3_000),
        1 => (any::<u8>(), 1_usize..5_000).prop_map(|(byte, len)| vec![byte; len]),
    ];
    (bytes, any::<bool>()).prop_map(|(bytes, verbatim)| {
        if verbatim {
            Value::Verbatim(bytes)
        } else {
            Value::Compact(bytes)
        }
    })
}

fn any_record() -> impl Strategy<Value = Record> {
    let eviction = prop_oneof![
        Just(None),
        any::<u64>().prop_map(|secs| Some(Eviction::IdleSecs(secs))),
        any::<u8>().prop_map(|freq| Some(Eviction::Freq(freq))),
    ];
    let expiry = prop_oneof![Just(None), Just(Some(0)), any::<u64>().prop_map(Some)];
    prop_oneof![
        10 => (any_db(), any_key(), any_value(), expiry, eviction).prop_map(
            |(db, key, value, expire_at_ms, eviction)| {
                Record::Key(KeyRecord { db, key, value, expire_at_ms, eviction })
            }
        ),
        2 => (any_db(), any_key()).prop_map(|(db, key)| Record::Deleted { db, key }),
        1 => vec(any::<u8>(), 0..100).prop_map(Record::Functions),
    ]
}

/// What happens to a writer.
#[derive(Debug, Clone)]
enum Step {
    Write(Record),
    Context(Context),
    Flush,
    Note(String),
}

fn any_context() -> impl Strategy<Value = Context> {
    let family = prop_oneof![
        Just(Family::Redis),
        Just(Family::Valkey),
        Just(Family::Other)
    ];
    (any::<u64>(), family, any::<u16>(), 0_u32..3).prop_map(
        |(source_time_ms, family, rdb_version, node)| Context {
            source_time_ms,
            family,
            rdb_version,
            node,
        },
    )
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => any_record().prop_map(Step::Write),
        1 => any_context().prop_map(Step::Context),
        1 => Just(Step::Flush),
        1 => ".{0,10}".prop_map(Step::Note),
    ]
}

fn any_options() -> impl Strategy<Value = WriterOptions> {
    (
        0..6,
        1_u32..4_000,
        1_u32..2_000,
        any::<u64>(),
        any::<bool>(),
    )
        .prop_map(
            |(level, frame_target_bytes, fragment_bytes, id, index)| WriterOptions {
                level,
                frame_target_bytes,
                fragment_bytes,
                archive_id: Some(id),
                index,
            },
        )
}

fn perform(sink: impl Write, steps: &[Step], options: WriterOptions) -> (u64, [u8; 32], End) {
    let mut writer = Writer::new(sink, &header(), options).unwrap();
    writer.set_context(context()).unwrap();
    for step in steps {
        match step {
            Step::Write(record) => writer.write(record),
            Step::Context(context) => writer.set_context(*context),
            Step::Flush => writer.flush_frame(),
            Step::Note(text) => writer.note(text),
        }
        .unwrap();
    }
    let finished = writer.finish(facts()).unwrap();
    (finished.bytes, finished.sha256, finished.end)
}

fn frames(reader: &mut Reader<impl Read>) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(frame) = reader.next_frame().unwrap() {
        frames.push(frame);
    }
    frames
}

/// What identifies the thing a record is about: records of one thing keep their order.
fn subject(record: &Record) -> Option<(u32, Vec<u8>)> {
    match record {
        Record::Key(record) => Some((record.db, record.key.clone())),
        Record::Deleted { db, key } => Some((*db, key.clone())),
        _ => None,
    }
}

type History = HashMap<Option<(u32, Vec<u8>)>, Vec<(Context, Record)>>;

/// The records of each key in order, with the context they were written in; its time is left out,
/// since a frame has only the earliest.
fn history<'a>(records: impl Iterator<Item = (Context, &'a Record)>) -> History {
    let mut history = History::new();
    for (context, record) in records {
        let context = Context {
            source_time_ms: 0,
            ..context
        };
        history
            .entry(subject(record))
            .or_default()
            .push((context, record.clone()));
    }
    history
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_records_come_back(steps in vec(any_step(), 0..60), options in any_options()) {
        let mut bytes = Vec::new();
        let (len, sha256, end) = perform(OneByte(&mut bytes), &steps, options.clone());
        prop_assert_eq!(len, bytes.len() as u64);
        prop_assert_eq!(sha256, <[u8; 32]>::from(Sha256::digest(&bytes)));
        let mut again = Vec::new();
        perform(&mut again, &steps, options.clone());
        prop_assert_eq!(&again, &bytes, "the writer is deterministic but for the id");

        let mut reader = Reader::new(OneByte(&bytes[..]), Limits::default()).unwrap();
        let read = frames(&mut reader);
        prop_assert_eq!(reader.end(), Some(&end));
        prop_assert_eq!(reader.header().level, options.level);
        prop_assert_eq!(reader.archive_id(), options.archive_id.unwrap());
        prop_assert_eq!(reader.offset(), len);
        prop_assert_eq!(reader.skipped(), (0, 0));
        let whole = frames(&mut Reader::new(&bytes[..], Limits::default()).unwrap());
        prop_assert_eq!(&whole, &read);

        let mut now = context();
        let mut written = Vec::new();
        let mut notes = 0;
        for step in &steps {
            match step {
                Step::Write(record) => written.push((now, record)),
                Step::Context(context) => now = *context,
                Step::Note(_) => notes += 1,
                Step::Flush => {}
            }
        }
        prop_assert_eq!(reader.notes_seen(), notes);
        prop_assert_eq!(reader.records_read(), written.len() as u64);
        let came_back = read.iter().flat_map(|frame| frame.records.iter().map(|record| (frame.context, record)));
        prop_assert_eq!(history(came_back), history(written.into_iter()));

        let mut scan = Scan::new(&bytes[..]).unwrap();
        let mut walked = 0;
        while scan.next_frame().unwrap().is_some() {
            walked += 1;
        }
        prop_assert_eq!(walked, end.frames + 1);
    }

    #[test]
    fn every_fact_of_header_and_end_comes_back(
        texts in vec(".{0,5}", 6),
        numbers in vec(any::<u64>(), 12),
        lists in vec(vec(any::<u8>(), 0..4), 0..3),
        variant in 0_usize..5,
    ) {
        let n = |at: usize| numbers[at];
        let header = Header {
            tool: Tool { name: texts[0].clone(), version: texts[1].clone(), git: texts[2].clone() },
            created_ms: n(0),
            source_time_ms: n(1),
            source: SourceFacts {
                family: [Family::Redis, Family::Valkey, Family::Other][variant % 3],
                mode: [Mode::Standalone, Mode::Cluster, Mode::Sentinel, Mode::RdbFile][variant % 4],
                nodes: vec![Node { version: texts[3].clone(), run_id: texts[4].clone(), rdb_version: n(2) as u16 }],
                label: (variant > 1).then(|| texts[5].clone()),
            },
            consistency: [
                ConsistencyAsked::Auto,
                ConsistencyAsked::Scan,
                ConsistencyAsked::Converge,
                ConsistencyAsked::Pause,
                ConsistencyAsked::Snapshot,
            ][variant],
            expected: vec![Expected { db: n(3) as u32, keys: n(4), expires: n(5) }],
            selection: SelectionFacts {
                dbs: vec![n(6) as u32, 0],
                matches: lists.clone(),
                excludes: lists.iter().rev().cloned().collect(),
                types: texts[..2].to_vec(),
                other: texts[2..].to_vec(),
            },
            functions: variant % 2 == 0,
            eviction: variant % 2 == 1,
            level: 3,
            frame_target_bytes: 1 << 20,
            origin: [
                ArchiveOrigin::Export,
                ArchiveOrigin::Salvaged { lost: vec![(n(7), n(8))] },
                ArchiveOrigin::Split { part: n(7) as u32, of: n(8) as u32 },
            ][variant % 3].clone(),
            extra: vec![(texts[0].clone(), texts[1].clone())],
        };
        let facts = EndFacts {
            reached: [
                ConsistencyReached::Scan { from_ms: n(0), to_ms: n(1) },
                ConsistencyReached::PerKey { from_ms: n(0), to_ms: n(1) },
                ConsistencyReached::Exact(vec![(n(2) as u32, n(3))]),
                ConsistencyReached::Changing { from_ms: n(0), to_ms: n(1), keys: n(2) },
            ][variant % 4].clone(),
            counts: vec![SourceCounts {
                db: n(4) as u32,
                scanned: n(5),
                reread: n(6),
                written: 0,
                superseded: n(7),
                filtered: n(8),
                vanished: n(9),
                failed: n(10),
            }],
            duplicates_possible: variant % 2 == 0,
            started_ms: n(10),
            finished_ms: n(11),
        };
        let writer = Writer::new(Vec::new(), &header, WriterOptions::default()).unwrap();
        let finished = writer.finish(facts.clone()).unwrap();
        let mut reader = Reader::new(&finished.inner[..], Limits::default()).unwrap();
        prop_assert!(reader.next_frame().unwrap().is_none());
        prop_assert_eq!(reader.header(), &header);
        prop_assert_eq!(&reader.end().unwrap().facts, &facts);
    }
}

#[test]
fn values_around_the_length_of_a_frame_come_back() {
    // 4 MiB is the default length of a part; CONTEXT and the entry's head take some bytes of it.
    let around = |len: usize| (len - 60..len + 5).step_by(9);
    for len in around(1 << 20)
        .chain(around(1 << 22))
        .chain([(9 << 20) + 7])
    {
        let value: Vec<u8> = (0..len).map(|n| (n / 7) as u8).collect();
        let records = [
            key(0, b"a", b"\x00\x00"),
            key(0, b"large", &value),
            key(0, b"z", b"\x00\x00"),
        ];
        let bytes = write_all(
            &records,
            WriterOptions {
                level: 1,
                ..WriterOptions::default()
            },
        );
        let outcome = read_all(&bytes[..]);
        assert!(outcome.is_complete(), "{len}: {:?}", outcome.error);
        assert!(outcome.records == records, "{len}");
    }
}

#[test]
fn records_are_grouped_by_type_inside_a_frame() {
    let records: Vec<Record> = (0..30_u8)
        .map(|n| key(0, &[n], &[n % 3, 0, n]))
        .chain([Record::Functions(vec![1])])
        .collect();
    let bytes = write_all(&records, WriterOptions::default());
    let types: Vec<Option<u8>> = read_all(&bytes[..])
        .records
        .iter()
        .map(|record| match record {
            Record::Key(record) => record.value.type_byte(),
            _ => None,
        })
        .collect();
    let expected = [
        vec![Some(0); 10],
        vec![Some(1); 10],
        vec![Some(2); 10],
        vec![None],
    ]
    .concat();
    assert_eq!(types, expected);
}

#[test]
fn a_frame_carries_the_earliest_time_it_was_given() {
    let mut writer = Writer::new(Vec::new(), &header(), WriterOptions::default()).unwrap();
    for time in [5, 7, 9] {
        writer
            .set_context(Context {
                source_time_ms: time,
                ..context()
            })
            .unwrap();
        writer.write(&key(0, &[time as u8], b"\x00\x00")).unwrap();
    }
    writer.flush_frame().unwrap();
    writer.write(&key(0, b"later", b"\x00\x00")).unwrap();
    let bytes = writer.finish(facts()).unwrap().inner;
    let read = frames(&mut Reader::new(&bytes[..], Limits::default()).unwrap());
    let times: Vec<u64> = read
        .iter()
        .map(|frame| frame.context.source_time_ms)
        .collect();
    assert_eq!(times, [5, 9]);
}

#[test]
fn archive_ids_differ() {
    let ids: std::collections::HashSet<u64> = (0..100)
        .map(|_| {
            let options = WriterOptions {
                archive_id: None,
                ..options()
            };
            Writer::new(Vec::new(), &header(), options)
                .unwrap()
                .archive_id()
        })
        .collect();
    assert_eq!(ids.len(), 100);
}
