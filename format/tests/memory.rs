//! Memory: hostile archives cost no more than a frame, and a large value is neither copied whole
//! when it is written nor held more than twice when it is read.
//!
//! Each case runs in a process of its own, which prints by how much it grew at most
//! (VmHWM).
//! Linux only.

#![cfg(target_os = "linux")]

mod support;

use std::fs::File;
use std::io;
use std::process::Command;

use redis_migrate_format::limits::MAX_RAW_LEN;
use redis_migrate_format::record::Record;
use redis_migrate_format::salvage::{Decoder, Scanner};
use redis_migrate_format::{Limits, Reader, Writer, WriterOptions};
use support::forge::{Forged, ForgedFrame, mark_digest, run_of_zeros};
use support::vectors::two_keys;
use support::*;

const MIB: usize = 1 << 20;
const CASE: &str = "RMZ_MEMORY_CASE";
const LARGE: usize = 48 * MIB;

/// A line of /proc/self/status, in bytes.
fn status(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<usize>()
        .unwrap()
        * 1024
}

/// Not for running by itself: the body of the processes below.
#[test]
fn in_a_process_of_its_own() {
    let Ok(case) = std::env::var(CASE) else {
        return;
    };
    let grown = match &case[..] {
        "claims" => growth(claims),
        "bombs" => growth(bombs),
        "entries" => growth(entries),
        "salvage" => growth(salvage),
        "runs" => growth(runs),
        "lists" => growth(lists),
        "skipped" => {
            let archives = [skipped(false), skipped(true)];
            growth(|| {
                for (bytes, heads) in archives
                    .iter()
                    .flat_map(|bytes| [(bytes, false), (bytes, true)])
                {
                    let mut reader = Reader::new(&bytes[..], Limits::default()).unwrap();
                    if heads {
                        reader = reader.heads_only();
                    }
                    assert_eq!(reader.next_frame().unwrap().unwrap().records.len(), 1);
                }
            })
        }
        "whole" | "pieces" => {
            let bytes = full_frame();
            growth(|| full_frame_read(&bytes, case == "pieces"))
        }
        "write" => {
            let record = large_record();
            growth(|| {
                let mut writer =
                    Writer::new(io::sink(), &header(), WriterOptions::default()).unwrap();
                writer.set_context(context()).unwrap();
                writer.write(&record).unwrap();
                writer.finish(facts()).unwrap();
            })
        }
        "read" => {
            let path = archive_path();
            growth(|| {
                let mut reader = Reader::new(File::open(path).unwrap(), Limits::default()).unwrap();
                let frame = reader.next_frame().unwrap().unwrap();
                assert_eq!(frame.records[0].payload_bytes(), LARGE + 5);
                assert!(reader.next_frame().unwrap().is_none());
            })
        }
        other => panic!("{other}"),
    };
    println!("grown by {grown}");
}

/// By how much the most memory held during a case exceeds what is held before it.
fn growth(case: impl FnOnce()) -> usize {
    let before = status("VmRSS");
    // Forgets the peak so far; where that is not allowed the result is too large, never too small.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    case();
    status("VmHWM").saturating_sub(before)
}

/// Runs a case and says by how many bytes it made the process grow.
fn run(case: &str) -> usize {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "in_a_process_of_its_own", "--nocapture"])
        .env(CASE, case)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{case}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let grown = text
        .split("grown by ")
        .nth(1)
        .and_then(|rest| rest.lines().next())
        .expect("a number");
    println!("{case}: {grown} bytes");
    grown.parse().unwrap()
}

#[test]
fn lengths_and_counts_that_are_only_claimed_cost_nothing() {
    let grown = run("claims");
    assert!(grown < 4 * MIB, "{grown}");
}

/// Claims of all kinds, a few bytes behind each.
fn claims() {
    let forge = |edit: &dyn Fn(&mut Forged)| {
        let mut forged = Forged::parse(&two_keys());
        mark_digest(&mut forged);
        edit(&mut forged);
        assert!(!read_all(&forged.build()[..]).is_complete());
    };
    let huge = [0xFD, 0, 0, 0, 0, 0, 0x10, 0, 0];
    forge(&|archive| {
        let frame = archive.frame(2);
        (frame.stored_len, frame.raw_len) = (Some(MAX_RAW_LEN), MAX_RAW_LEN);
    });
    forge(&|archive| archive.set_body(2, |body| drop(body.splice(15..16, huge))));
    forge(&|archive| archive.insert(1, ForgedFrame::stored(0x81, &huge)));
    forge(&|archive| archive.set_body(1, |body| drop(body.splice(0..1, huge))));
    forge(&|archive| archive.set_body(0x7F, |body| drop(body.splice(2..3, huge))));
    let head = [11, 0, 0, 0xFD, 0, 0, 0, 0, 0xFF, 0, 0, 0, b'x'];
    forge(&|archive| archive.insert(1, ForgedFrame::stored(3, &head)));
    let forever = io::repeat(0x89);
    assert!(!read_all(forever).is_complete());
}

#[test]
fn a_zstd_bomb_costs_one_frame() {
    let grown = run("bombs");
    assert!(grown < 40 * MIB, "{grown}");
}

/// A thousand frames that each expand to 16 MiB, in half a megabyte.
fn bombs() {
    let mut compressor = zstd::bulk::Compressor::new(3).unwrap();
    compressor.include_checksum(true).unwrap();
    let mut body = Forged::parse(&two_keys()).frame(2).payload[..14].to_vec();
    let zeros = MAX_RAW_LEN as usize - body.len() - 2 - 5 - 5;
    body.extend([0x99, 0xFC]);
    body.extend((zeros as u32).to_le_bytes());
    body.resize(body.len() + zeros, 0);
    let raw_len = body.len() as u32;
    let payload = compressor.compress(&body).unwrap();
    drop((body, compressor));
    let mut forged = Forged::parse(&two_keys());
    let bomb = ForgedFrame {
        codec: 1,
        raw_len,
        ..ForgedFrame::stored(2, &payload)
    };
    for _ in 0..50 {
        forged.insert(1, bomb.clone());
    }
    let outcome = read_all(&forged.build()[..]);
    assert_eq!(outcome.records.len(), 2, "{:?}", outcome.error);
}

#[test]
fn a_run_that_does_not_end_costs_what_is_there_of_it() {
    let grown = run("runs");
    assert!(grown < 40 * MIB, "{grown}");
}

/// A value of 2^40 bytes of which 300 MiB of zeros are there, in a few kilobytes.
fn runs() {
    let mut compressor = zstd::bulk::Compressor::new(3).unwrap();
    compressor.include_checksum(true).unwrap();
    let mut forged = Forged::parse(&two_keys());
    forged.frames.truncate(1);
    for part in 0..300_u32 {
        let head = [&[0xFB][..], &(part as u16).to_le_bytes()].concat();
        let head = if part < 251 { vec![part as u8] } else { head };
        let head = [&head[..], &[0, 0xFD, 0, 0, 0, 0, 0, 1, 0, 0]].concat();
        let body = [&[head.len() as u8][..], &head, &vec![0x99; MIB]].concat();
        let payload = compressor.compress(&body).unwrap();
        let frame = ForgedFrame {
            codec: 1,
            raw_len: body.len() as u32,
            ..ForgedFrame::stored(3, &payload)
        };
        forged.insert(1 + part as usize, frame);
    }
    let bytes = forged.build();
    assert!(bytes.len() < MIB, "{}", bytes.len());
    for heads_only in [false, true] {
        let mut reader = Reader::new(&bytes[..], Limits::default()).unwrap();
        if heads_only {
            reader = reader.heads_only();
        }
        assert!(reader.next_frame().is_err());
    }
}

#[test]
fn what_a_run_holds_beside_its_record_costs_nothing() {
    let grown = run("skipped");
    assert!(grown < 20 * MIB, "{grown}");
}

/// A run of 300 MiB of what readers skip, an entry or the end of CONTEXT, and one small key behind it.
fn skipped(in_context: bool) -> Vec<u8> {
    const ZEROS: usize = 300 * MIB;
    let number = |n: usize| [&[0xFC][..], &(n as u32).to_le_bytes()].concat();
    let begin = match in_context {
        true => [&[5][..], &number(ZEROS + 4), &[0, 0, 10, 0]].concat(),
        false => [&[5, 4, 0, 0, 10, 0, 0x99][..], &number(ZEROS)].concat(),
    };
    // An empty string in database 0.
    let end = [1, 8, 0, 0, 0, 0, 1, b'k', 1, 0];
    run_of_zeros(&two_keys(), &begin, ZEROS / MIB, &end)
}

#[test]
fn a_frame_of_the_largest_size_need_not_be_copied_whole() {
    let (whole, pieces) = (run("whole"), run("pieces"));
    assert!(
        pieces < 30 * MIB && whole > pieces + 10 * MIB,
        "{whole} {pieces}"
    );
}

/// As many keys as a frame may have, in as many bytes.
fn full_frame() -> Vec<u8> {
    let records = (0..130_000_u32).map(|n| key(0, &n.to_be_bytes(), &[7; 112]));
    let options = WriterOptions {
        frame_target_bytes: MAX_RAW_LEN,
        fragment_bytes: MAX_RAW_LEN,
        ..WriterOptions::default()
    };
    write_all(&records.collect::<Vec<_>>(), options)
}

fn full_frame_read(bytes: &[u8], by_pieces: bool) {
    let mut reader = Reader::new(bytes, Limits::default()).unwrap();
    let mut records = 0;
    loop {
        let frame = match by_pieces {
            true => reader.next_piece(),
            false => reader.next_frame(),
        };
        let Some(frame) = frame.unwrap() else { break };
        records += frame.records.len();
    }
    assert_eq!(records, 130_000);
}

#[test]
fn lists_cost_no_more_than_they_may_have() {
    let grown = run("lists");
    // The archives themselves, and their making, are most of it.
    assert!(grown < 28 * MIB, "{grown}");
}

/// HEADER with a million globs, and INDEX with a million items, all of them there.
fn lists() {
    let mut forged = Forged::parse(&two_keys());
    forged.set_body(1, |body| {
        let at = body.len() - 10;
        body.splice(at.., [0xFC, 0, 0, 0x10, 0]);
        body.resize(MIB, 0);
    });
    assert!(!read_all(&forged.build()[..]).is_complete());
    let mut forged = Forged::parse(&two_keys());
    let mut index = vec![0xFC, 0, 0, 0x10, 0];
    index.resize(4 * MIB + 5, 1);
    forged.insert(3, ForgedFrame::stored(0x81, &index));
    assert!(!read_all(&forged.build()[..]).is_complete());
}

#[test]
fn a_frame_of_the_smallest_entries_is_bounded() {
    let grown = run("entries");
    assert!(grown < 100 * MIB, "{grown}");
}

/// 16 MiB of three-byte entries.
fn entries() {
    let mut forged = Forged::parse(&two_keys());
    forged.set_body(2, |body| {
        while body.len() + 3 < MAX_RAW_LEN as usize {
            body.extend([0x03, 1, 0]);
        }
    });
    let bytes = forged.build();
    drop(forged);
    assert!(read_all(&bytes[..]).records.is_empty());
}

#[test]
fn salvage_holds_one_frame_at_most() {
    let grown = run("salvage");
    assert!(grown < 60 * MIB, "{grown}");
}

/// Many headers that each claim the largest payload, none of it there.
fn salvage() {
    let mut forged = Forged::parse(&two_keys());
    let claim = ForgedFrame {
        stored_len: Some(MAX_RAW_LEN),
        raw_len: MAX_RAW_LEN,
        ..ForgedFrame::stored(2, b"x")
    };
    for _ in 0..20 {
        forged.insert(1, claim.clone());
    }
    let bytes = forged.build();
    let endless = io::Read::chain(&bytes[..], io::Read::take(io::repeat(0), 40 * MIB as u64));
    let mut scanner = Scanner::new(endless, None);
    let mut decoder = Decoder::new(Limits::default()).unwrap();
    let mut frames = 0;
    while let Some(found) = scanner.next_found().unwrap() {
        if let redis_migrate_format::salvage::Found::Frame(frame) = found {
            let _ = decoder.decode(frame);
            frames += 1;
        }
    }
    assert_eq!(frames, 4);
}

fn large_record() -> Record {
    // Bytes that zstd cannot shrink: the stored payloads are as large as they can be.
    let mut state = 1_u64;
    let value: Vec<u8> = (0..LARGE)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    key(0, b"large", &value)
}

fn archive_path() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("memory.rmz")
}

#[test]
fn writing_a_large_value_does_not_copy_it() {
    let grown = run("write");
    assert!(grown < 20 * MIB, "{grown} for a value of {LARGE}");
}

#[test]
fn reading_a_large_value_holds_it_at_most_twice() {
    let mut writer = Writer::new(
        File::create(archive_path()).unwrap(),
        &header(),
        WriterOptions::default(),
    )
    .unwrap();
    writer.set_context(context()).unwrap();
    writer.write(&large_record()).unwrap();
    writer.finish(facts()).unwrap();
    let grown = run("read");
    assert!(
        grown < 2 * LARGE + 20 * MIB,
        "{grown} for a value of {LARGE}"
    );
}
