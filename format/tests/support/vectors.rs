//! The golden vectors as they are made. `tests/vectors.rs` compares the files with what is
//! expected of them; this builds them.

use redis_migrate_format::header::{ArchiveOrigin, Header, SourceCounts};
use redis_migrate_format::record::{Context, Eviction, Family, KeyRecord, Record, Value};
use redis_migrate_format::{EndFacts, Writer, WriterOptions};

pub mod damaged;

use super::forge::{Forged, ForgedFrame, mark_digest};
use super::{context, facts, header, key, options, small_archive};

/// A vector: name, what it is about, bytes.
pub struct Vector {
    pub name: &'static str,
    pub comment: &'static str,
    pub bytes: Vec<u8>,
}

/// Everything in a few lines: a writer with the test's context, fixed id, no compression.
pub fn written(options: WriterOptions, steps: impl FnOnce(&mut Writer<Vec<u8>>)) -> Vec<u8> {
    written_with(&header(), options, facts(), steps)
}

fn written_with(
    header: &Header,
    options: WriterOptions,
    facts: EndFacts,
    steps: impl FnOnce(&mut Writer<Vec<u8>>),
) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), header, options).unwrap();
    writer.set_context(context()).unwrap();
    steps(&mut writer);
    writer.finish(facts).unwrap().inner
}

pub fn plain() -> WriterOptions {
    WriterOptions {
        level: 0,
        archive_id: Some(0xA11C_E000_0000_0001),
        index: false,
        ..WriterOptions::default()
    }
}

pub fn two_keys() -> Vec<u8> {
    written(plain(), |writer| {
        writer.write(&key(0, b"a", b"\x00\x01x")).unwrap();
        writer.flush_frame().unwrap();
        writer.write(&key(0, b"b", b"\x00\x01y")).unwrap();
    })
}

fn large() -> Vec<u8> {
    written(
        WriterOptions {
            frame_target_bytes: 64,
            fragment_bytes: 64,
            ..plain()
        },
        |writer| {
            writer.write(&key(0, b"a", b"\x00\x01x")).unwrap();
            writer.write(&key(0, b"large", &[0x42; 150])).unwrap();
        },
    )
}

/// A run of one part, which is the first and the last.
fn one_part() -> Vec<u8> {
    forged(&two_keys(), |archive| {
        let body = archive.frames[1].payload.clone();
        let part = [&[3, 0, 1, body.len() as u8][..], &body].concat();
        archive.frames[1] = ForgedFrame {
            id: archive.frames[0].id,
            seq: 1,
            ..ForgedFrame::stored(3, &part)
        };
    })
}

/// Zstd with a window descriptor, where a body this short has none.
fn windowed(body: &[u8], descriptor: u8) -> Vec<u8> {
    let packed = zstd(body, true);
    // The size of a single segment takes one byte if it is small; without one it takes two at least,
    // which count from 256, or four.
    assert_eq!(packed[4], 0x24);
    let mut frame = packed[..4].to_vec();
    frame.extend([0x84, descriptor]);
    frame.extend((body.len() as u32).to_le_bytes());
    frame.extend_from_slice(&packed[6..]);
    frame
}

/// Takes an archive apart, lets the test change it, and puts it together with right checksums.
fn forged(bytes: &[u8], edit: impl FnOnce(&mut Forged)) -> Vec<u8> {
    let mut forged = Forged::parse(bytes);
    mark_digest(&mut forged);
    edit(&mut forged);
    forged.build()
}

/// As `forged`, for a change of the first DATA body of `two_keys`.
fn forged_body(edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    forged(&two_keys(), |archive| archive.set_body(2, edit))
}

/// Bytes of `two_keys` or another archive, changed without repairing anything.
fn changed(mut bytes: Vec<u8>, edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    edit(&mut bytes);
    bytes
}

/// An entry of any kind.
fn entry(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, body.len() as u8];
    bytes.extend(body);
    bytes
}

/// Length of the CONTEXT entry of the test's context: kind, length, FD + 8, 00, 0A, 00.
const CONTEXT_LEN: usize = 2 + 12;

/// Replaces the first DATA payload by its zstd form, made by `compress`.
fn zstd_payload(compress: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
    forged(&two_keys(), |archive| {
        let frame = archive.frame(2);
        frame.codec = 1;
        frame.payload = compress(&frame.payload);
    })
}

fn zstd(body: &[u8], checksum: bool) -> Vec<u8> {
    let mut compressor = ::zstd::bulk::Compressor::new(3).unwrap();
    compressor.include_checksum(checksum).unwrap();
    compressor.compress(body).unwrap()
}

pub fn all() -> Vec<Vector> {
    let mut vectors = Vec::new();
    let mut add = |name, comment, bytes| {
        vectors.push(Vector {
            name,
            comment,
            bytes,
        })
    };
    good(&mut add);
    future(&mut add);
    other_files(&mut add);
    cut(&mut add);
    damaged::frames(&mut add);
    damaged::bodies(&mut add);
    damaged::fragments(&mut add);
    damaged::end(&mut add);
    vectors
}

type Add<'a> = &'a mut dyn FnMut(&'static str, &'static str, Vec<u8>);

fn good(add: Add) {
    add(
        "good-every-frame",
        "NOTE, DATA, a FRAGMENT run, INDEX; zstd",
        small_archive(),
    );
    add(
        "good-no-records",
        "an empty source",
        written(options(), |_| {}),
    );
    add("good-two-frames", "stored, without INDEX", two_keys());
    add("good-fragments", "a value in four parts", large());
    add("good-one-part", "a run of one part", one_part());
    add(
        "good-zstd-window",
        "a zstd window of 2^27 bytes, the largest that is allowed",
        zstd_payload(|body| windowed(body, 17 << 3)),
    );
    add(
        "good-unknown-node",
        "a CONTEXT with a node that HEADER does not list",
        written(options(), |writer| {
            let node = 7;
            writer.set_context(Context { node, ..context() }).unwrap();
            writer.write(&key(0, b"a", b"\x00\x01x")).unwrap();
        }),
    );
    add(
        "good-counts-row",
        "a row of counts for a database without records, with all numbers 0",
        written_with(
            &header(),
            plain(),
            EndFacts {
                counts: vec![SourceCounts {
                    db: 9,
                    ..SourceCounts::default()
                }],
                ..facts()
            },
            |writer| writer.write(&key(0, b"a", b"\x00\x01x")).unwrap(),
        ),
    );
    add(
        "good-contexts",
        "two nodes, two families, two RDB versions",
        written(options(), |writer| {
            writer.write(&key(0, b"a", b"\x00\x01x")).unwrap();
            let other = Context {
                source_time_ms: 1,
                family: Family::Valkey,
                rdb_version: 80,
                node: 1,
            };
            writer.set_context(other).unwrap();
            writer.write(&key(0, b"b", b"\x16\x01y")).unwrap();
        }),
    );
    add(
        "good-last-wins",
        "a key, its going away, and the key again: three frames",
        written(options(), |writer| {
            writer.write(&key(0, b"k", b"\x00\x01x")).unwrap();
            writer
                .write(&Record::Deleted {
                    db: 0,
                    key: b"k".to_vec(),
                })
                .unwrap();
            writer.write(&key(0, b"k", b"\x00\x01y")).unwrap();
        }),
    );
    add(
        "good-any-bytes",
        "an empty key, control characters, bytes that are no UTF-8, the sync mark",
        written(options(), |writer| {
            for name in [
                &b""[..],
                b"\0",
                b"\r\n",
                b"\x1b[31m",
                b"\xff\xfe",
                b"\xf5RMF",
            ] {
                writer.write(&key(0, name, b"\x00\x00")).unwrap();
            }
        }),
    );
    add(
        "good-extremes",
        "database 4294967295, expiries 0, 1 and 2^64-1, numbers around the widths of a varint",
        written(options(), |writer| {
            let at = [
                0,
                1,
                250,
                251,
                65_535,
                65_536,
                4_294_967_295,
                4_294_967_296,
                u64::MAX,
            ];
            for (n, expire_at_ms) in at.into_iter().enumerate() {
                let Record::Key(record) = key(u32::MAX, &[n as u8], b"\x00\x00") else {
                    unreachable!()
                };
                writer
                    .write(&Record::Key(KeyRecord {
                        expire_at_ms: Some(expire_at_ms),
                        ..record
                    }))
                    .unwrap();
            }
        }),
    );
    add(
        "good-eviction-verbatim-functions",
        "idle time, frequency, a verbatim payload, a function library",
        written(options(), |writer| {
            writer
                .write(&Record::Functions(b"\xf5lib\x0a\0crc64crc".to_vec()))
                .unwrap();
            for (n, eviction) in [Eviction::IdleSecs(70_000), Eviction::Freq(255)]
                .into_iter()
                .enumerate()
            {
                let value = Value::Verbatim(b"\x00\x01x\x0a\x00crc64crc".to_vec());
                let eviction = Some(eviction);
                let record = KeyRecord {
                    db: 2,
                    key: vec![n as u8],
                    value,
                    expire_at_ms: None,
                    eviction,
                };
                writer.write(&Record::Key(record)).unwrap();
            }
        }),
    );
    let header = Header {
        origin: ArchiveOrigin::Salvaged {
            lost: vec![(91, 58), (70_000, 1)],
        },
        extra: vec![("ticket".into(), "42".into())],
        level: -1,
        ..header()
    };
    let counts = SourceCounts {
        db: 0,
        scanned: 3,
        written: 1,
        vanished: 2,
        ..SourceCounts::default()
    };
    let facts = EndFacts {
        counts: vec![counts],
        ..facts()
    };
    let steps = |writer: &mut Writer<Vec<u8>>| writer.write(&key(0, b"a", b"\x00\x01x")).unwrap();
    add(
        "good-salvaged",
        "an origin, extras and counts",
        written_with(&header, plain(), facts, steps),
    );
}

fn future(add: Add) {
    let mut forge =
        |name, comment, edit: &dyn Fn(&mut Forged)| add(name, comment, forged(&two_keys(), edit));
    forge("good-future-minor", "minor version 9", &|archive| {
        archive.preamble.minor = 9
    });
    forge(
        "good-future-optional",
        "an unknown optional feature",
        &|archive| archive.preamble.optional = 0x80,
    );
    forge(
        "good-future-frame",
        "an unknown ancillary frame",
        &|archive| {
            archive.insert(2, ForgedFrame::stored(0x9F, b"from the future"));
        },
    );
    forge(
        "good-future-entry",
        "an unknown ancillary entry",
        &|archive| {
            archive.set_body(2, |body| body.extend(entry(0x99, b"from the future")));
        },
    );
    forge(
        "good-future-header-field",
        "a further field at the end of HEADER",
        &|archive| {
            archive.set_body(1, |body| body.extend(b"more"));
        },
    );
    forge(
        "good-future-key-field",
        "a further field at the end of a KEY",
        &|archive| {
            archive.set_body(2, |body| {
                body[CONTEXT_LEN + 1] += 4;
                body.extend(b"more");
            });
        },
    );
    forge(
        "good-future-end-field",
        "a further field at the end of END, which only a later minor version may have",
        &|archive| {
            archive.preamble.minor = 9;
            archive.set_body(0x7F, |body| body.extend(b"more"));
        },
    );
    forge(
        "good-future-context-field",
        "a further field at the end of a CONTEXT",
        &|archive| {
            archive.set_body(2, |body| {
                body[1] += 4;
                body.splice(CONTEXT_LEN..CONTEXT_LEN, *b"more");
            });
        },
    );
    forge(
        "good-long-number",
        "a length that is written longer than it must",
        &|archive| {
            archive.set_body(2, |body| {
                let len = body[CONTEXT_LEN + 1];
                body.splice(CONTEXT_LEN + 1..CONTEXT_LEN + 2, [0xFB, len, 0]);
            });
        },
    );
    forge("unsupported-major", "major version 2", &|archive| {
        archive.preamble.major = 2
    });
    forge(
        "unsupported-feature",
        "an unknown required feature",
        &|archive| archive.preamble.required = 0x02,
    );
    forge(
        "unsupported-frame",
        "an unknown critical frame after one that may be released",
        &|archive| {
            archive.insert(2, ForgedFrame::stored(0x10, b"from the future"));
        },
    );
    forge("unsupported-codec", "an unknown codec", &|archive| {
        archive.frame(2).codec = 2
    });
    forge(
        "unsupported-entry",
        "an unknown critical entry: its whole frame is not released",
        &|archive| {
            archive.set_body(2, |body| body.extend(entry(0x06, b"from the future")));
        },
    );
}

fn other_files(add: Add) {
    let archive = two_keys();
    let lf_to_crlf: Vec<u8> = archive
        .iter()
        .flat_map(|byte| {
            if *byte == b'\n' {
                vec![b'\r', b'\n']
            } else {
                vec![*byte]
            }
        })
        .collect();
    let mut crlf_to_lf = archive.clone();
    while let Some(at) = crlf_to_lf.windows(2).position(|pair| pair == b"\r\n") {
        crlf_to_lf.remove(at);
    }
    let utf16: Vec<u8> = [0xFF, 0xFE]
        .into_iter()
        .chain(archive.iter().flat_map(|byte| [*byte, 0]))
        .collect();
    add("bad-empty", "no bytes at all", vec![]);
    add(
        "bad-rdb",
        "an RDB file of Redis",
        b"REDIS0010\xfa\x09redis-ver\x066.2.14\xff".to_vec(),
    );
    add(
        "bad-rdb-valkey",
        "an RDB file of Valkey",
        b"VALKEY080\xfa\x0avalkey-ver\x059.0.0\xff".to_vec(),
    );
    add(
        "bad-gzip",
        "gzip",
        b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x4b\x04\0\x43\xbe\xb7\xe8\x01\0\0\0".to_vec(),
    );
    add("bad-zstd", "zstd around an archive", zstd(&archive, true));
    add(
        "bad-age",
        "encrypted with age",
        b"age-encryption.org/v1\n-> X25519 abc\n".to_vec(),
    );
    add("bad-json", "JSON", b"{\"key\": \"value\"}\n".to_vec());
    add(
        "bad-text",
        "an error message in the place of an archive",
        b"Could not connect to Redis\n".to_vec(),
    );
    add(
        "bad-aof",
        "an append-only file",
        b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n".to_vec(),
    );
    add("bad-utf16", "made by PowerShell's redirection", utf16);
    add(
        "bad-lf-to-crlf",
        "text mode on the way to Windows",
        lf_to_crlf,
    );
    add(
        "bad-crlf-to-lf",
        "text mode on the way from Windows",
        crlf_to_lf,
    );
    add(
        "bad-seven-bit",
        "the eighth bit lost",
        archive.iter().map(|byte| byte & 0x7F).collect(),
    );
    add(
        "bad-utf8",
        "re-encoded as UTF-8",
        String::from_utf8_lossy(&archive).into_owned().into_bytes(),
    );
    add(
        "bad-magic",
        "one bit of the magic",
        changed(archive.clone(), |bytes| bytes[1] ^= 1),
    );
    add(
        "bad-joined",
        "two archives in one file",
        [archive.clone(), large()].concat(),
    );
    add(
        "bad-trailing-byte",
        "one byte after the trailer",
        [&archive[..], b"\n"].concat(),
    );
    add(
        "bad-trailing-zeros",
        "padded with zeros",
        [&archive[..], &[0; 100]].concat(),
    );
}

fn cut(add: Add) {
    let archive = two_keys();
    let layout = super::forge::layout(&archive);
    let second = layout[2].0;
    let end = layout.last().unwrap().0;
    let mut cut = |name, comment, len: usize| add(name, comment, archive[..len].to_vec());
    cut("bad-cut-preamble", "ten bytes", 10);
    cut("bad-cut-header", "the preamble only", 16);
    cut(
        "bad-cut-frame-header",
        "inside the second DATA frame's header",
        second + 17,
    );
    cut(
        "bad-cut-payload",
        "inside the second DATA frame's payload",
        second + 45,
    );
    cut("bad-cut-between", "between two frames", second);
    cut("bad-cut-end", "END is missing", end);
    cut(
        "bad-cut-trailer",
        "the trailer is missing",
        archive.len() - 40,
    );
    cut(
        "bad-cut-last-byte",
        "the last byte is missing",
        archive.len() - 1,
    );
    let mut writer = Writer::new(Vec::new(), &header(), plain()).unwrap();
    writer.set_context(context()).unwrap();
    writer.write(&key(0, b"a", b"\x00\x01x")).unwrap();
    add(
        "bad-abort",
        "the exporter gave up and said so",
        writer.abort("connection reset\n").unwrap(),
    );
}
