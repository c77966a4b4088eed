//! Writes and reads a million small records in one thread: `cargo bench -p redis-migrate-format`.
//! Times only; nothing is asserted of them.

use std::hint::black_box;
use std::io::Write;
use std::time::{Duration, Instant};

use redis_migrate_format::header::{ConsistencyReached, Header};
use redis_migrate_format::{
    Context, EndFacts, KeyRecord, Limits, Reader, Record, Value, Writer, WriterOptions,
};

const RECORDS: u64 = 1_000_000;

/// Counts bytes and, if told to, keeps them.
#[derive(Default)]
struct Sink {
    bytes: u64,
    kept: Option<Vec<u8>>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes += bytes.len() as u64;
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Text-like values of 20 to 280 bytes, as small keys have them.
fn records() -> Vec<Record> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words = [
        "\"name\":",
        "\"Maria\",",
        "\"age\":",
        "42,",
        "\"visits\":",
        "session",
        "cart",
        "true,",
        "null",
    ];
    (0..RECORDS)
        .map(|n| {
            let len = 20 + (next() % 260) as usize;
            let mut value = vec![(next() % 5) as u8, len as u8];
            while value.len() < len {
                if next() % 2 == 0 {
                    value.extend_from_slice(
                        words[(next() % words.len() as u64) as usize].as_bytes(),
                    );
                } else {
                    value.extend_from_slice(format!("{:08x}", next() as u32).as_bytes());
                }
            }
            value.truncate(len);
            Record::Key(KeyRecord {
                db: 0,
                key: format!("user:{:x}:{n}", next() % 65_536).into_bytes(),
                value: Value::Compact(value),
                expire_at_ms: (n % 3 == 0).then(|| 1_790_000_000_000 + next() % 1_000_000_000),
                eviction: None,
            })
        })
        .collect()
}

fn write(records: &[Record], level: i32, sink: Sink) -> (Sink, Duration) {
    let start = Instant::now();
    let options = WriterOptions {
        level,
        ..WriterOptions::default()
    };
    let mut writer = Writer::new(sink, &Header::default(), options).expect("HEADER");
    writer
        .set_context(Context {
            rdb_version: 10,
            ..Context::default()
        })
        .expect("context");
    for record in records {
        writer.write(black_box(record)).expect("record");
    }
    let finished = writer
        .finish(EndFacts::new(ConsistencyReached::Scan {
            from_ms: 0,
            to_ms: 0,
        }))
        .expect("END");
    (finished.inner, start.elapsed())
}

fn report(what: &str, took: Duration, raw: u64, bytes: u64) {
    let seconds = took.as_secs_f64();
    println!(
        "{what:28} {seconds:6.2} s  {:5.3} us/record  {:7.0} records/s  {:5.0} MB/s raw  {:5.1} MB archive",
        seconds * 1e6 / RECORDS as f64,
        RECORDS as f64 / seconds,
        raw as f64 / 1e6 / seconds,
        bytes as f64 / 1e6,
    );
}

fn main() {
    let records = records();
    let raw: u64 = records
        .iter()
        .map(|record| record.payload_bytes() as u64)
        .sum();
    println!(
        "{RECORDS} records, {:.1} bytes of key and value each",
        raw as f64 / RECORDS as f64
    );
    for level in [0, 1, 3] {
        let (sink, took) = write(&records, level, Sink::default());
        report(&format!("write, level {level}"), took, raw, sink.bytes);
    }
    for level in [0, 3] {
        let keep = Sink {
            kept: Some(Vec::new()),
            ..Sink::default()
        };
        let (sink, _) = write(&records, level, keep);
        let archive = sink.kept.unwrap_or_default();
        let start = Instant::now();
        let mut reader = Reader::new(&archive[..], Limits::default()).expect("HEADER");
        while let Some(frame) = reader.next_frame().expect("frame") {
            black_box(frame);
        }
        report(
            &format!("read, level {level}"),
            start.elapsed(),
            raw,
            sink.bytes,
        );
        let start = Instant::now();
        let mut scan = redis_migrate_format::scan::Scan::new(&archive[..]).expect("HEADER");
        while let Some(frame) = scan.next_frame().expect("frame") {
            black_box(frame);
        }
        report(
            &format!("scan, level {level}"),
            start.elapsed(),
            raw,
            sink.bytes,
        );
    }
}
