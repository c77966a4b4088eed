//! Exhaustive damage to a small archive that has every kind of frame: whatever is done to it, it is
//! never complete, reading never panics, and what is released is a prefix of the truth.
//!
//! Left out: several defects at once (`mutate.rs` and the fuzz targets) and hostile sizes
//! (`memory.rs`).

mod support;

use redis_migrate_format::frame::FRAME_HEADER_LEN;
use redis_migrate_format::header::{ConsistencyReached, SourceCounts};
use redis_migrate_format::salvage::{Content, Decoder, Found, Scanner};
use redis_migrate_format::scan::Scan;
use redis_migrate_format::version::PREAMBLE_LEN;
use redis_migrate_format::{Class, End, EndFacts, Limits, Record, Writer};
use support::forge::{layout, repair_checksums};
use support::*;

/// As `small_archive`, with counts in END, so that every field of it is there to be damaged.
fn archive() -> Vec<u8> {
    let records = records();
    let mut writer = Writer::new(Vec::new(), &header(), options()).unwrap();
    writer.set_context(context()).unwrap();
    writer.note("ticket 42").unwrap();
    for record in &records {
        writer.write(record).unwrap();
    }
    let count = |db, scanned, reread, written| SourceCounts {
        db,
        scanned,
        reread,
        written,
        superseded: 1,
        filtered: 2,
        vanished: 3,
        failed: 4,
    };
    let facts = EndFacts {
        counts: vec![count(0, 14, 1, 5), count(3, 11, 0, 1)],
        ..facts()
    };
    writer.finish(facts).unwrap().inner
}

fn truth() -> Vec<Record> {
    let outcome = read_all(&archive()[..]);
    assert!(outcome.is_complete());
    assert_eq!(outcome.records.len(), records().len());
    outcome.records
}

/// Reads damaged bytes and checks everything that must hold of damage.
fn check(bytes: &[u8], truth: &[Record], what: impl Fn() -> String) -> Class {
    let outcome = read_all(bytes);
    let Some(error) = &outcome.error else {
        panic!("{} is complete", what())
    };
    assert!(
        truth.starts_with(&outcome.records),
        "{} releases what was not written",
        what()
    );
    if let Some(at) = error.position() {
        assert!(
            at.offset <= bytes.len() as u64,
            "{} is found at byte {}",
            what(),
            at.offset
        );
    }
    assert!(!error.advice().is_empty());
    assert!(
        !matches!(error.class(), Class::Io | Class::Usage),
        "{}: {error}",
        what()
    );
    // A scan sees everything that is not inside bodies, and this is all of it.
    let scanned = Scan::new(bytes).and_then(|mut scan| {
        while scan.next_frame()?.is_some() {}
        Ok(())
    });
    assert!(scanned.is_err(), "{} passes a scan", what());
    error.class()
}

#[test]
fn every_single_bit_is_guarded() {
    let (archive, truth) = (archive(), truth());
    for at in 0..archive.len() {
        for bit in 0..8 {
            let mut bytes = archive.clone();
            bytes[at] ^= 1 << bit;
            check(&bytes, &truth, || format!("bit {bit} of byte {at}"));
        }
    }
}

#[test]
fn every_byte_is_guarded_against_common_wrong_values() {
    let (archive, truth) = (archive(), truth());
    for at in 0..archive.len() {
        for wrong in [0x00, 0xFF, b'\r', b'\n', b' ', archive[at].wrapping_add(1)] {
            if wrong != archive[at] {
                let mut bytes = archive.clone();
                bytes[at] = wrong;
                check(&bytes, &truth, || format!("{wrong:02x} at byte {at}"));
            }
        }
    }
}

#[test]
fn every_truncation_is_incomplete() {
    let (archive, truth) = (archive(), truth());
    for len in 1..archive.len() {
        let class = check(&archive[..len], &truth, || format!("the first {len} bytes"));
        assert_eq!(class, Class::Incomplete, "the first {len} bytes");
    }
    assert_eq!(check(&[], &truth, || "nothing".into()), Class::NotAnArchive);
}

#[test]
fn every_missing_byte_is_missed() {
    let (archive, truth) = (archive(), truth());
    for at in 0..archive.len() {
        let mut bytes = archive.clone();
        bytes.remove(at);
        check(&bytes, &truth, || format!("without byte {at}"));
    }
}

#[test]
fn every_additional_byte_is_noticed() {
    let (archive, truth) = (archive(), truth());
    for at in 0..=archive.len() {
        for extra in [
            0x00,
            0xFF,
            b'\r',
            b'\n',
            archive.get(at).copied().unwrap_or(0x89),
        ] {
            let mut bytes = archive.clone();
            bytes.insert(at, extra);
            check(&bytes, &truth, || {
                format!("{extra:02x} put in at byte {at}")
            });
        }
    }
}

/// Frames with their headers, between preamble and trailer.
fn parts(archive: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>, Vec<u8>) {
    let frames = layout(archive);
    let parts = frames
        .iter()
        .map(|(at, len)| archive[*at..at + FRAME_HEADER_LEN + len].to_vec())
        .collect();
    let (last, len) = frames[frames.len() - 1];
    (
        archive[..PREAMBLE_LEN].to_vec(),
        parts,
        archive[last + FRAME_HEADER_LEN + len..].to_vec(),
    )
}

#[test]
fn frames_cannot_be_dropped_doubled_swapped_or_spliced() {
    let (archive, truth) = (archive(), truth());
    let (preamble, frames, trailer) = parts(&archive);
    let other = {
        let mut options = options();
        options.archive_id = Some(1);
        parts(&write_all(&records(), options)).1
    };
    let join = |frames: &[Vec<u8>]| [preamble.clone(), frames.concat(), trailer.clone()].concat();
    assert_eq!(join(&frames), archive);
    for at in 0..frames.len() {
        let mut dropped = frames.clone();
        dropped.remove(at);
        check(&join(&dropped), &truth, || format!("without frame {at}"));
        for to in 0..=frames.len() {
            let mut doubled = frames.clone();
            doubled.insert(to, frames[at].clone());
            check(&join(&doubled), &truth, || {
                format!("frame {at} again at {to}")
            });
            if let Some(foreign) = other.get(at) {
                let mut spliced = frames.clone();
                spliced.insert(to, foreign.clone());
                check(&join(&spliced), &truth, || {
                    format!("foreign frame {at} at {to}")
                });
            }
        }
        for to in at + 1..frames.len() {
            let mut swapped = frames.clone();
            swapped.swap(at, to);
            check(&join(&swapped), &truth, || {
                format!("frames {at} and {to} swapped")
            });
        }
        if let Some(foreign) = other.get(at) {
            let mut replaced = frames.clone();
            replaced[at] = foreign.clone();
            check(&join(&replaced), &truth, || {
                format!("foreign frame in the place of {at}")
            });
        }
    }
}

#[test]
fn joined_padded_and_mangled_archives_are_refused() {
    let (archive, truth) = (archive(), truth());
    let of = |bytes: &[u8], what: &str| check(bytes, &truth, || what.to_owned());
    assert_eq!(
        of(&[&archive[..], &archive[..]].concat(), "twice"),
        Class::TrailingData
    );
    for extra in [
        &b"\n"[..],
        b"\0",
        b"\r\n",
        &[0; 512],
        b"garbage",
        &archive[..1],
        &archive[..39],
    ] {
        assert_eq!(
            of(&[&archive[..], extra].concat(), "more"),
            Class::TrailingData
        );
    }
    let each = |map: &dyn Fn(u8) -> Vec<u8>| {
        archive
            .iter()
            .flat_map(|byte| map(*byte))
            .collect::<Vec<u8>>()
    };
    let mangled = [
        (
            "LF to CR LF",
            each(&|byte| {
                if byte == b'\n' {
                    b"\r\n".to_vec()
                } else {
                    vec![byte]
                }
            }),
        ),
        (
            "CR dropped",
            each(&|byte| if byte == b'\r' { vec![] } else { vec![byte] }),
        ),
        ("seven bits", each(&|byte| vec![byte & 0x7F])),
        (
            "Latin-1 to UTF-8",
            each(&|byte| char::from(byte).to_string().into_bytes()),
        ),
        ("UTF-16", each(&|byte| vec![byte, 0])),
        (
            "lossy UTF-8",
            String::from_utf8_lossy(&archive).into_owned().into_bytes(),
        ),
        (
            "PowerShell",
            [vec![0xFF, 0xFE], each(&|byte| vec![byte, 0])].concat(),
        ),
        ("zeros", vec![0; archive.len()]),
        ("reversed", archive.iter().rev().copied().collect()),
    ];
    for (what, bytes) in mangled {
        assert_eq!(of(&bytes, what), Class::NotAnArchive, "{what}");
    }
}

/// SPEC.md §11: what of END no reader can recompute. A change of these, with checksums repaired, is
/// the only one that may go unnoticed.
fn without_informative_fields(end: &End) -> End {
    let facts = EndFacts {
        reached: ConsistencyReached::Scan {
            from_ms: 0,
            to_ms: 0,
        },
        counts: end
            .facts
            .counts
            .iter()
            .map(|counts| SourceCounts {
                db: counts.db,
                written: counts.written,
                ..SourceCounts::default()
            })
            .collect(),
        duplicates_possible: false,
        started_ms: 0,
        finished_ms: 0,
    };
    End {
        facts,
        ..end.clone()
    }
}

#[test]
fn repaired_checksums_hide_nothing_but_the_informative_fields_of_end() {
    let archive = archive();
    let truth = read_all(&archive[..]);
    let true_end = truth.end.as_ref().unwrap();
    let layout = layout(&archive);
    let (end_at, end_len) = layout[layout.len() - 1];
    let (mut refused, mut informative) = (0, 0);
    for at in 0..archive.len() {
        let wrong = (0..8).map(|bit| archive[at] ^ (1 << bit));
        for wrong in wrong.chain([0x00, 0xFF, archive[at].wrapping_add(1)]) {
            let mut bytes = archive.clone();
            bytes[at] = wrong;
            repair_checksums(&mut bytes, &layout);
            if bytes == archive {
                continue; // The change was in a checksum.
            }
            let outcome = read_all(&bytes[..]);
            assert!(
                truth.records.starts_with(&outcome.records) || at < end_at,
                "byte {at}"
            );
            if !outcome.is_complete() {
                refused += 1;
                continue;
            }
            assert!(
                (end_at + FRAME_HEADER_LEN..end_at + FRAME_HEADER_LEN + end_len).contains(&at),
                "{wrong:02x} at byte {at}, outside END's body, goes unnoticed"
            );
            let end = outcome.end.unwrap();
            assert_ne!(&end, true_end, "byte {at} of END means nothing");
            assert_eq!(
                without_informative_fields(&end),
                without_informative_fields(true_end),
                "{wrong:02x} at byte {at} of END goes unnoticed"
            );
            informative += 1;
        }
    }
    assert!(refused > 8_000, "{refused}");
    assert!(informative > 100, "{informative}");
}

#[test]
fn salvage_finds_everything_but_the_frame_that_is_damaged() {
    let archive = archive();
    let frames = layout(&archive);
    for at in PREAMBLE_LEN..archive.len() {
        let mut bytes = archive.clone();
        bytes[at] ^= 0x20;
        let mut scanner = Scanner::new(&bytes[..], None);
        let mut decoder = Decoder::new(Limits::default()).unwrap();
        let mut found = Vec::new();
        let mut lost = 0;
        while let Some(next) = scanner.next_found().unwrap() {
            match next {
                Found::Frame(frame) => {
                    found.push(frame.offset as usize);
                    let _ = decoder.decode(frame);
                }
                Found::Lost(from, to) => {
                    assert!(from < to);
                    lost += to - from;
                    assert!(
                        (from..to).contains(&(at as u64)),
                        "{from}..{to} lost for byte {at}"
                    );
                }
            }
        }
        let expected: Vec<usize> = frames
            .iter()
            .filter(|(from, len)| !(*from..from + FRAME_HEADER_LEN + len).contains(&at))
            .map(|(from, _)| *from)
            .collect();
        assert_eq!(found, expected, "byte {at}");
        assert!(lost > 0);
    }
}

#[test]
fn salvage_of_an_intact_archive_loses_nothing_and_gives_every_record() {
    let archive = archive();
    let mut scanner = Scanner::new(&archive[..], None);
    let mut decoder = Decoder::new(Limits::default()).unwrap();
    let mut records = Vec::new();
    while let Some(found) = scanner.next_found().unwrap() {
        let Found::Frame(frame) = found else {
            panic!("{found:?}")
        };
        if let Content::Records(frame) = decoder.decode(frame).unwrap() {
            records.extend(frame.records);
        }
    }
    assert_eq!(records, truth());
}

#[test]
fn salvage_is_not_taken_in_by_an_archive_inside_a_value() {
    let inner = archive();
    let mut options = options();
    (options.archive_id, options.level, options.fragment_bytes) = (Some(99), 0, 1 << 20);
    let outer = write_all(
        &[key(0, b"an archive", &inner), key(0, b"b", b"\x00\x00")],
        options,
    );
    // Damage the frame that holds it, so that its bytes are searched.
    let place = outer
        .windows(10)
        .position(|window| window == b"an archive")
        .unwrap();
    let mut bytes = outer;
    bytes[place] ^= 1;
    let mut scanner = Scanner::new(&bytes[..], None);
    while let Some(found) = scanner.next_found().unwrap() {
        if let Found::Frame(frame) = found {
            assert_eq!(frame.header.archive_id, 99);
        }
    }
}

#[test]
fn salvage_of_a_broken_run_does_not_cost_the_next_one() {
    let large = |name: &[u8], fill| key(0, name, &[fill; 300]);
    let (first, second) = (large(b"first", 1), large(b"second", 2));
    let mut options = options();
    options.level = 0;
    let mut bytes = write_all(&[first, second.clone()], options);
    let runs: Vec<(usize, usize)> = layout(&bytes)
        .into_iter()
        .filter(|(at, _)| bytes[at + 4] == 3)
        .collect();
    // The last part of the first run: nothing else of it is damaged.
    let (at, _) = runs[runs.len() / 2 - 1];
    bytes[at + FRAME_HEADER_LEN + 10] ^= 1;
    let mut scanner = Scanner::new(&bytes[..], None);
    let mut decoder = Decoder::new(Limits::default()).unwrap();
    let mut records = Vec::new();
    while let Some(found) = scanner.next_found().unwrap() {
        if let Found::Frame(frame) = found
            && let Ok(Content::Records(frame)) = decoder.decode(frame)
        {
            records.extend(frame.records);
        }
    }
    assert_eq!(records, [second]);
}
