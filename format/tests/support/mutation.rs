//! Mutating archives and checking what must hold of any bytes whatever. The mutation loop
//! (`tests/mutate.rs`) and the fuzz targets (`fuzz/`) share it.

use std::io::{self, Read};

use redis_migrate_format::frame::{FRAME_HEADER_LEN, SYNC};
use redis_migrate_format::limits::MAX_RAW_LEN;
use redis_migrate_format::record::{Context, Record, Value};
use redis_migrate_format::salvage::{Content, Decoder, Found, Scanner};
use redis_migrate_format::scan::Scan;
use redis_migrate_format::trailer::TRAILER_LEN;
use redis_migrate_format::version::PREAMBLE_LEN;
use redis_migrate_format::{Class, Error, Header, Limits, Reader, Writer, WriterOptions};
use sha2::{Digest, Sha256};

/// xorshift64*: enough to choose mutations by.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`, or 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Changes bytes a little, in one of many ways.
pub fn mutate(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    let at = random.below(bytes.len());
    let len = 1 + random.below(40).min(bytes.len() - at.min(bytes.len()));
    let to = (at + len).min(bytes.len());
    match random.below(10) {
        0..3 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        3 if !bytes.is_empty() => bytes[at] = random.next() as u8,
        // Values at which numbers change their width, and tags.
        4 if !bytes.is_empty() => {
            let tempting = [0, 1, 2, 0x7F, 0x80, 250, 251, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF];
            bytes[at] = tempting[random.below(tempting.len())];
        }
        5 => drop(bytes.drain(at..to)),
        6 => bytes.insert(at, random.next() as u8),
        7 => {
            let copy = bytes[at..to].to_vec();
            let place = random.below(bytes.len() + 1);
            drop(bytes.splice(place..place, copy));
        }
        8 => {
            let other = &corpus[random.below(corpus.len())];
            let from = random.below(other.len());
            let until = (from + 1 + random.below(200)).min(other.len());
            drop(bytes.splice(at..to, other[from.min(until)..until].iter().copied()));
        }
        _ => bytes.truncate(at),
    }
}

/// What [`repair`] puts right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// CRCs only: the digest in END still knows the truth.
    Checksums,
    /// CRCs, ids, sequence numbers, END's number of frames and digest, the trailer.
    Everything,
}

/// Walks the frames as far as there are any and puts right what hides the checks behind.
pub fn repair(bytes: &mut [u8], what: Repair) {
    if bytes.len() < PREAMBLE_LEN + FRAME_HEADER_LEN {
        return;
    }
    put_crc(bytes, 0, 12, 12);
    let id = u64_at(bytes, PREAMBLE_LEN + 8);
    let (mut at, mut seq, mut index_at) = (PREAMBLE_LEN, 0_u64, 0);
    while at + FRAME_HEADER_LEN <= bytes.len() && bytes[at..at + 4] == SYNC {
        let len = u32::from_le_bytes(bytes[at + 24..at + 28].try_into().unwrap()) as usize;
        let payload = at + FRAME_HEADER_LEN;
        let end = payload.saturating_add(len).min(bytes.len());
        let frame_type = bytes[at + 4];
        if what == Repair::Everything {
            bytes[at + 8..at + 16].copy_from_slice(&id.to_le_bytes());
            bytes[at + 16..at + 24].copy_from_slice(&seq.to_le_bytes());
            if frame_type == 0x7F && end >= payload + 33 {
                bytes[payload] = seq.min(250) as u8;
                let digest = Sha256::digest(&bytes[..at]);
                bytes[end - 32..end].copy_from_slice(&digest);
            }
        }
        put_crc(bytes, payload, end, at + 32);
        put_crc(bytes, at, at + 36, at + 36);
        match frame_type {
            0x81 => index_at = at as u64,
            0x7F => {
                if what == Repair::Everything && end + TRAILER_LEN <= bytes.len() {
                    bytes[end..end + 8].copy_from_slice(&(at as u64).to_le_bytes());
                    bytes[end + 8..end + 16].copy_from_slice(&index_at.to_le_bytes());
                    bytes[end + 16..end + 24].copy_from_slice(&id.to_le_bytes());
                }
                if end + TRAILER_LEN <= bytes.len() {
                    put_crc(bytes, end, end + 28, end + 28);
                }
                return;
            }
            _ => {}
        }
        at = end;
        seq += 1;
    }
}

fn put_crc(bytes: &mut [u8], from: usize, to: usize, at: usize) {
    let crc = crc32fast::hash(&bytes[from..to]);
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Gives a few bytes at a time.
struct Drip<'a>(&'a [u8]);

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(13);
        self.0.read(&mut buffer[..len])
    }
}

type Released = Vec<(Context, Record)>;

/// Enough for anything a mutation can reach, and an end to bombs.
pub const LIMITS: Limits = Limits {
    max_value_bytes: 1 << 22,
    kept_value_bytes: u64::MAX,
    max_records: 1 << 18,
    max_raw_bytes: 1 << 26,
};

fn read(reader: impl Read) -> (Released, Result<Header, Error>) {
    match Reader::new(reader, LIMITS) {
        Ok(reader) => read_on(reader),
        Err(error) => (Vec::new(), Err(error)),
    }
}

fn read_on(mut reader: Reader<impl Read>) -> (Released, Result<Header, Error>) {
    let mut released = Vec::new();
    loop {
        match reader.next_frame() {
            Ok(Some(frame)) => {
                released.extend(
                    frame
                        .records
                        .into_iter()
                        .map(|record| (frame.context, record)),
                );
            }
            Ok(None) => return (released, Ok(reader.header().clone())),
            Err(error) => return (released, Err(error)),
        }
    }
}

/// Reads bytes in every way there is and checks that the ways agree. Returns the records released
/// and whether the archive is complete.
pub fn check_any_bytes(bytes: &[u8]) -> (Released, bool) {
    let (released, result) = read(bytes);
    let (dripped, dripped_result) = read(Drip(bytes));
    assert_eq!(
        released, dripped,
        "reading in small pieces releases the same"
    );
    assert_eq!(result.is_ok(), dripped_result.is_ok());
    check_heads(bytes, &released, &result);
    check_visiting(bytes, &released, &result);
    check_withheld(bytes, &released, &result);
    match &result {
        Ok(header) => {
            check_scan(bytes);
            check_rewriting(header, &released);
        }
        Err(error) => {
            assert_eq!(error.to_string(), dripped_result.unwrap_err().to_string());
            assert!(!error.advice().is_empty());
            assert!(
                !matches!(error.class(), Class::Io | Class::Usage),
                "{error}"
            );
            assert!(
                error
                    .position()
                    .is_none_or(|at| at.offset <= bytes.len() as u64),
                "{error}"
            );
            assert!(
                !error.to_string().chars().any(char::is_control),
                "{error:?}"
            );
        }
    }
    check_salvage(bytes);
    (released, result.is_ok())
}

/// A reader of heads comes to the same verdict, by the same words, and gives the same of each record
/// but the bytes of large values.
fn check_heads(bytes: &[u8], released: &Released, result: &Result<Header, Error>) {
    let Ok(reader) = Reader::new(bytes, LIMITS) else {
        return;
    };
    let (heads, with_heads) = read_on(reader.heads_only());
    let say = |result: &Result<Header, Error>| result.as_ref().err().map(Error::to_string);
    assert_eq!(say(&with_heads), say(result));
    assert_eq!(heads.len(), released.len());
    for ((context, head), (due_context, due)) in heads.iter().zip(released) {
        assert_eq!(context, due_context);
        // No value of the tests is longer than what is kept of it.
        assert_eq!(head, due);
    }
}

/// Whoever is shown records one by one is shown the same, and comes to the same verdict.
fn check_visiting(bytes: &[u8], released: &Released, result: &Result<Header, Error>) {
    let Ok(mut reader) = Reader::new(bytes, LIMITS) else {
        return;
    };
    let mut seen = Vec::new();
    let error = loop {
        let frame = reader.visit_frame(|context, record, value_len| {
            assert!(
                value_len
                    == match record {
                        Record::Key(key) => key.value.bytes().len() as u64,
                        Record::Functions(payload) => payload.len() as u64,
                        _ => 0,
                    }
            );
            seen.push((*context, record.clone()));
        });
        match frame {
            Ok(Some(frame)) => assert!(frame.records.is_empty()),
            Ok(None) => break None,
            Err(error) => break Some(error.to_string()),
        }
    };
    assert_eq!(error, result.as_ref().err().map(Error::to_string));
    assert_eq!(&seen, released);
}

/// A reader that does not keep large values comes to the same verdict, by the same words, and gives
/// the same records: of some it says the length and the first bytes of the value only.
fn check_withheld(bytes: &[u8], released: &Released, result: &Result<Header, Error>) {
    let limits = Limits {
        kept_value_bytes: 16,
        ..LIMITS
    };
    let Ok(reader) = Reader::new(bytes, limits) else {
        return;
    };
    let (found, verdict) = read_on(reader);
    let say = |result: &Result<Header, Error>| result.as_ref().err().map(Error::to_string);
    assert_eq!(say(&verdict), say(result));
    assert_eq!(found.len(), released.len());
    for ((context, record), (due_context, due)) in found.into_iter().zip(released) {
        assert_eq!(&context, due_context);
        if let (Record::Key(mut key), Record::Key(due_key)) = (record.clone(), due)
            && let Value::Withheld(withheld) = &key.value
        {
            let whole = due_key.value.bytes();
            assert!(withheld.len == whole.len() as u64 && withheld.len > 16);
            assert_eq!(withheld.head, whole[..10]);
            key.value = due_key.value.clone();
            assert_eq!(&key, due_key);
        } else {
            assert_eq!(&record, due);
        }
    }
}

fn check_scan(bytes: &[u8]) {
    let mut scan = Scan::new(bytes).expect("a complete archive can be scanned");
    while scan
        .next_frame()
        .expect("a complete archive can be scanned")
        .is_some()
    {}
    assert!(scan.end().is_some());
}

/// What was read can be written, and reads the same again.
fn check_rewriting(header: &Header, released: &Released) {
    let options = WriterOptions {
        level: 1,
        frame_target_bytes: 200,
        ..WriterOptions::default()
    };
    let mut writer = Writer::new(Vec::new(), header, options).expect("HEADER");
    for (context, record) in released {
        // A frame has the earliest of its times; closing it keeps each.
        writer.flush_frame().expect("frame");
        writer.set_context(*context).expect("context");
        writer
            .write(record)
            .expect("a record that was read can be written");
    }
    let reached = redis_migrate_format::header::ConsistencyReached::Scan {
        from_ms: 0,
        to_ms: 0,
    };
    let finished = writer
        .finish(redis_migrate_format::EndFacts::new(reached))
        .expect("END");
    let (again, result) = read(&finished.inner[..]);
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(&again, released);
}

/// Salvage takes any bytes, in order, all of them.
pub fn check_salvage(bytes: &[u8]) {
    let mut scanner = Scanner::new(bytes, None);
    let mut decoder = Decoder::new(LIMITS).expect("zstd");
    let mut glancer = Decoder::new(LIMITS).expect("zstd");
    let mut from_before = 0;
    let mut lost_before = false;
    while let Some(found) = scanner.next_found().expect("memory does not fail") {
        let (from, to) = match found {
            Found::Frame(frame) => {
                let from = frame.offset;
                let to = from + (FRAME_HEADER_LEN + frame.payload.len()) as u64;
                let mut seen = 0;
                let glanced = glancer.glance(frame.clone(), &mut |_| seen += 1);
                let decoded = decoder.decode(frame);
                match (&decoded, &glanced) {
                    (Ok(Content::Records(frame)), Ok(Content::Seen { context, records })) => {
                        assert!(
                            frame.raw_len <= LIMITS.max_value_bytes + 2 * u64::from(MAX_RAW_LEN)
                        );
                        assert_eq!((frame.context, frame.records.len()), (*context, seen));
                        assert_eq!(*records, seen as u64);
                    }
                    (Ok(decoded), Ok(glanced)) => assert_eq!(decoded, glanced),
                    (Err(decoded), Err(glanced)) => {
                        assert_eq!(decoded.to_string(), glanced.to_string());
                    }
                    _ => panic!("{decoded:?} and {glanced:?}"),
                }
                lost_before = false;
                (from, to)
            }
            Found::Lost(from, to) => {
                assert!(
                    !lost_before || from > from_before,
                    "two lost ranges that touch"
                );
                lost_before = true;
                (from, to)
            }
        };
        assert!(from_before <= from && from < to && to <= bytes.len() as u64);
        from_before = to;
    }
}
