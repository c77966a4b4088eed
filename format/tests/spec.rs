//! SPEC.md is kept true: its annotated dump is read, and compared with what the writer writes.

mod support;

use redis_migrate_format::header::{ConsistencyReached, Header, Tool};
use redis_migrate_format::record::Context;
use redis_migrate_format::{EndFacts, Writer, WriterOptions};
use support::*;

fn smallest() -> Vec<u8> {
    let tool = Tool {
        name: "t".into(),
        ..Tool::default()
    };
    let header = Header {
        tool,
        created_ms: 1_790_000_000_000,
        ..Header::default()
    };
    let options = WriterOptions {
        level: 0,
        archive_id: Some(0x1122_3344_5566_7788),
        index: false,
        ..WriterOptions::default()
    };
    let mut writer = Writer::new(Vec::new(), &header, options).unwrap();
    writer
        .set_context(Context {
            rdb_version: 10,
            ..Context::default()
        })
        .unwrap();
    writer.write(&key(0, b"k", b"\x00\x01v")).unwrap();
    writer
        .finish(EndFacts::new(ConsistencyReached::Scan {
            from_ms: 1,
            to_ms: 2,
        }))
        .unwrap()
        .inner
}

/// Lines of the block: `offset  hex bytes  ; what they are`.
fn dump_in_spec() -> Vec<u8> {
    let spec = include_str!("../SPEC.md");
    let block = spec
        .split("```hex\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let mut bytes = Vec::new();
    for line in block.lines() {
        let (offset, rest) = line.trim_start().split_once("  ").unwrap();
        assert_eq!(
            offset.parse::<usize>().unwrap(),
            bytes.len(),
            "offset in: {line}"
        );
        for byte in rest.split(';').next().unwrap().split_whitespace() {
            bytes.push(u8::from_str_radix(byte, 16).unwrap());
        }
    }
    bytes
}

#[test]
fn the_dump_in_the_specification_is_what_the_writer_writes() {
    assert_eq!(dump_in_spec(), smallest());
}

#[test]
fn the_dump_in_the_specification_is_a_complete_archive() {
    let outcome = read_all(&dump_in_spec()[..]);
    assert_eq!(outcome.verdict(), "complete");
    assert_eq!(outcome.records, [key(0, b"k", b"\x00\x01v")]);
}

/// Prints the block for SPEC.md: `cargo test -p redis-migrate-format --test spec -- --ignored --nocapture`.
#[test]
#[ignore = "prints the dump for SPEC.md"]
fn print_the_dump() {
    let bytes = smallest();
    let mut pos = 0;
    let mut row = |len: usize, what: &str| {
        for (n, line) in bytes[pos..pos + len].chunks(16).enumerate() {
            let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02X}")).collect();
            let what = if n == 0 { what } else { "" };
            println!(
                "{}",
                format!("{pos:4}  {:47}  ; {what}", hex.join(" ")).trim_end()
            );
            pos += line.len();
        }
    };
    row(8, "preamble: magic");
    row(4, "major 1, minor 0, no features");
    row(4, "CRC-32 of bytes 0-11");
    let frame = |row: &mut dyn FnMut(usize, &str), name: &str| {
        row(4, &format!("{name}: sync"));
        row(4, "type, codec 0, reserved");
        row(8, "archive_id");
        row(8, "seq");
        row(8, "stored_len, raw_len");
        row(4, "CRC-32 of the payload");
        row(4, "CRC-32 of this header");
    };
    frame(&mut row, "HEADER");
    row(2, "tool.name \"t\"");
    row(2, "tool.version, tool.git: empty");
    row(9, "created_ms 1,790,000,000,000");
    row(1, "source_time_ms 0");
    row(4, "source: family redis, standalone, no nodes, no label");
    row(1, "consistency asked: scan");
    row(1, "expected: none");
    row(5, "selection: five empty lists");
    row(2, "functions no, eviction no");
    row(1, "level 0");
    row(5, "frame_target_bytes 1,048,576");
    row(2, "origin export, no extra");
    frame(&mut row, "DATA");
    row(6, "CONTEXT, 4 bytes: time 0, redis, RDB 10, node 0");
    row(2, "KEY, 10 bytes");
    row(4, "db 0, no expiry, no idle_s, no freq");
    row(2, "key \"k\"");
    row(4, "value: type 0, string of 1 byte, \"v\"");
    frame(&mut row, "END");
    row(2, "frames 2, records 1");
    row(
        7,
        "per_db: 1 item: db 0, records 1, with_ttl 0, value 3, key 1, tombstones 0",
    );
    row(3, "functions 0, RDB versions 10 to 10");
    row(3, "reached: scan from 1 to 2");
    row(4, "no counts, duplicates possible, started 0, finished 0");
    row(32, "SHA-256 of the bytes before this frame");
    row(8, "trailer: end_offset");
    row(8, "index_offset: none");
    row(8, "archive_id");
    row(4, "reserved");
    row(4, "CRC-32 of the 28 bytes before");
    row(8, "magic");
    assert_eq!(pos, bytes.len());
}
