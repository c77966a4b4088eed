//! Vectors of damage behind right checksums: each breaks one rule of SPEC.md.

use redis_migrate_format::header::SourceCounts;
use redis_migrate_format::{EndFacts, WriterOptions};

use super::*;

pub fn frames(add: Add) {
    let archive = two_keys();
    let second = crate::support::forge::layout(&archive)[2].0;
    let flip = |at: usize| changed(two_keys(), |bytes| bytes[at] ^= 0x10);
    add("bad-preamble", "a bit of the minor version", flip(9));
    add("bad-sync", "a bit of a sync mark", flip(second + 1));
    add("bad-length", "a bit of a length", flip(second + 26));
    add("bad-payload", "a bit of a payload", flip(second + 44));
    let mut forge =
        |name, comment, edit: &dyn Fn(&mut Forged)| add(name, comment, forged(&two_keys(), edit));
    forge(
        "bad-reserved",
        "reserved bytes of a frame header",
        &|archive| archive.frame(2).reserved = 1,
    );
    forge("bad-spliced", "a frame of another archive", &|archive| {
        archive.frames[2].id ^= 1
    });
    forge("bad-dropped", "a frame is missing", &|archive| {
        drop(archive.frames.remove(1))
    });
    forge("bad-doubled", "a frame stands twice", &|archive| {
        let frame = archive.frames[1].clone();
        archive.frames.insert(1, frame);
    });
    forge(
        "bad-swapped",
        "two frames have changed places",
        &|archive| archive.frames.swap(1, 2),
    );
    forge("bad-second-header", "a second HEADER", &|archive| {
        let frame = archive.frames[0].clone();
        archive.insert(1, frame);
    });
    forge(
        "bad-raw-length",
        "a body of more than 16 MiB, in a few bytes",
        &|archive| {
            let frame = archive.frame(2);
            (frame.codec, frame.raw_len) = (1, 16_777_217);
        },
    );
    forge("bad-empty-body", "a frame without a body", &|archive| {
        archive.insert(2, ForgedFrame::stored(0x9F, b""));
    });
    forge(
        "bad-stored-length",
        "a stored payload of another length than its body",
        &|archive| {
            archive.frame(2).raw_len += 1;
        },
    );
    forge(
        "bad-claimed-length",
        "sixteen MiB claimed, a few bytes there",
        &|archive| {
            let frame = archive.frame(2);
            (frame.stored_len, frame.raw_len) = (Some(16_777_216), 16_777_216);
        },
    );
    forge("bad-compressed-end", "END is compressed", &|archive| {
        let end = archive.frame(0x7F);
        end.payload = zstd(&end.payload, true);
        end.codec = 1;
    });
    let flip_last =
        |body: &[u8]| changed(zstd(body, true), |bytes| *bytes.last_mut().unwrap() ^= 1);
    add(
        "bad-zstd-checksum",
        "zstd's own checksum is wrong",
        zstd_payload(flip_last),
    );
    add(
        "bad-zstd-no-checksum",
        "zstd without a checksum",
        zstd_payload(|body| zstd(body, false)),
    );
    add(
        "bad-zstd-size",
        "zstd of another length",
        zstd_payload(|body| zstd(&body[1..], true)),
    );
    add(
        "bad-zstd-two-frames",
        "two zstd frames",
        zstd_payload(|body| [zstd(body, true), zstd(b"", true)].concat()),
    );
    let with_dictionary = |body: &[u8]| {
        changed(zstd(body, true), |bytes| {
            // One byte of dictionary id follows the descriptor; bodies this short have no window.
            bytes[4] |= 1;
            bytes.insert(5, 0x2A);
        })
    };
    add(
        "bad-zstd-dictionary",
        "zstd with a dictionary",
        zstd_payload(with_dictionary),
    );
    add(
        "bad-zstd-window",
        "a zstd window above 2^27 bytes",
        zstd_payload(|body| windowed(body, 17 << 3 | 1)),
    );
    add(
        "bad-zstd-garbage",
        "no zstd at all",
        zstd_payload(<[u8]>::to_vec),
    );
    add(
        "bad-zstd-bomb",
        "a megabyte of zeros in a hundred bytes where a few bytes are due",
        zstd_payload(|_| zstd(&vec![0; 1 << 20], true)),
    );
}

pub fn bodies(add: Add) {
    let mut body =
        |name, comment, edit: &dyn Fn(&mut Vec<u8>)| add(name, comment, forged_body(edit));
    body("bad-no-context", "the first entry is no CONTEXT", &|body| {
        drop(body.drain(..CONTEXT_LEN))
    });
    body("bad-two-contexts", "a second CONTEXT", &|body| {
        body.extend_from_within(..CONTEXT_LEN)
    });
    body(
        "bad-double-key",
        "a key stands twice in one frame",
        &|body| body.extend_from_within(CONTEXT_LEN..),
    );
    body(
        "bad-entry-length",
        "an entry is longer than its frame",
        &|body| body[CONTEXT_LEN + 1] = 200,
    );
    body(
        "bad-entry-length-huge",
        "an entry of 2^64-1 bytes",
        &|body| {
            body.splice(
                CONTEXT_LEN + 1..CONTEXT_LEN + 2,
                [0xFD, 255, 255, 255, 255, 255, 255, 255, 255],
            );
        },
    );
    body("bad-number", "FE begins no number", &|body| {
        body[CONTEXT_LEN + 1] = 0xFE
    });
    body(
        "bad-option",
        "an Option that is neither 00 nor 01",
        &|body| body[CONTEXT_LEN + 3] = 2,
    );
    body(
        "bad-empty-value",
        "a value without its type byte",
        &|body| {
            body.truncate(CONTEXT_LEN);
            body.extend(entry(1, &[0, 0, 0, 0, 1, b'a', 0]));
        },
    );
    body(
        "bad-idle-and-freq",
        "a key with both idle time and frequency",
        &|body| {
            body.truncate(CONTEXT_LEN);
            body.extend(entry(1, &[0, 0, 1, 5, 1, 6, 1, b'a', 2, 0, 0]));
        },
    );
    body("bad-database", "a database beyond 2^32-1", &|body| {
        body.truncate(CONTEXT_LEN);
        body.extend(entry(4, &[0xFD, 0, 0, 0, 0, 1, 0, 0, 0, 0]));
    });
    let mut forge =
        |name, comment, edit: &dyn Fn(&mut Forged)| add(name, comment, forged(&two_keys(), edit));
    forge(
        "bad-header-text",
        "a text in HEADER that is not UTF-8",
        &|archive| {
            archive.set_body(1, |body| body[1] = 0xFF);
        },
    );
    forge(
        "bad-header-list",
        "HEADER claims 16,385 nodes, one more than are allowed",
        &|archive| {
            archive.set_body(1, |body| {
                let at = body
                    .windows(7)
                    .position(|window| window == b"\x067.0.15")
                    .unwrap()
                    - 1;
                body.splice(at..at + 1, [0xFB, 0x01, 0x40]);
            });
        },
    );
    forge("bad-header-count", "HEADER claims 2^63 nodes", &|archive| {
        archive.set_body(1, |body| {
            let at = body
                .windows(7)
                .position(|window| window == b"\x067.0.15")
                .unwrap()
                - 1;
            body.splice(at..at + 1, [0xFD, 0, 0, 0, 0, 0, 0, 0, 0x80]);
        });
    });
    forge(
        "bad-abort-count",
        "ABORT with a wrong number of records",
        &|archive| {
            archive.insert(2, ForgedFrame::stored(0x7E, b"\x04gone\x09"));
        },
    );
}

pub fn fragments(add: Add) {
    let mut forge =
        |name, comment, edit: &dyn Fn(&mut Forged)| add(name, comment, forged(&large(), edit));
    // Bodies begin with the head's length (3), then part, last, total_len.
    forge(
        "bad-part-missing",
        "a part of a large value is missing",
        &|archive| {
            archive.frames.remove(3);
            archive.renumber();
        },
    );
    forge(
        "bad-part-total",
        "parts do not agree on the whole length",
        &|archive| {
            archive.frames[3].payload[3] += 1;
        },
    );
    forge(
        "bad-part-last",
        "the last part comes too early",
        &|archive| archive.frames[3].payload[2] = 1,
    );
    forge(
        "bad-part-endless",
        "the last part does not say so",
        &|archive| {
            let last = archive.position(0x7F) - 1;
            archive.frames[last].payload[2] = 0;
        },
    );
    forge(
        "bad-part-interrupted",
        "another frame inside a run",
        &|archive| {
            archive.insert(3, ForgedFrame::stored(0x82, b"\x04note"));
        },
    );
    forge("bad-part-empty", "a part without a byte", &|archive| {
        let total = archive.frames[2].payload[3];
        for frame in &mut archive.frames[2..] {
            if frame.frame_type == 3 {
                frame.payload[1] += 1;
            }
        }
        archive.insert(2, ForgedFrame::stored(3, &[3, 0, 0, total]));
    });
    forge(
        "bad-part-beyond",
        "a part beyond the whole length, not marked as last",
        &|archive| {
            let last = archive.position(0x7F) - 1;
            let frame = &mut archive.frames[last];
            frame.payload[2] = 0;
            frame.payload.push(0x42);
            frame.raw_len += 1;
        },
    );
    forge(
        "bad-part-two-records",
        "a run that holds two records",
        &|archive| {
            let mut body = archive.frames[1].payload.clone();
            body.extend(entry(4, &[0, 1, b'z']));
            let part = [&[3, 0, 1, body.len() as u8][..], &body].concat();
            archive.insert(1, ForgedFrame::stored(3, &part));
        },
    );
    forge("bad-part-huge", "a whole length beyond 2^40", &|archive| {
        archive.set_body(3, |body| {
            body[0] = 11;
            body.splice(3..4, [0xFD, 1, 0, 0, 0, 0, 1, 0, 0]);
        });
    });
}

pub fn end(add: Add) {
    let counted = || {
        let counts = SourceCounts {
            db: 0,
            scanned: 2,
            written: 2,
            ..SourceCounts::default()
        };
        let facts = EndFacts {
            counts: vec![counts],
            ..facts()
        };
        written_with(
            &header(),
            WriterOptions {
                index: true,
                ..plain()
            },
            facts,
            |writer| {
                writer.write(&key(0, b"a", b"\x00\x01x")).unwrap();
                writer.write(&key(0, b"b", b"\x00\x01y")).unwrap();
            },
        )
    };
    let mut forge =
        |name, comment, edit: &dyn Fn(&mut Forged)| add(name, comment, forged(&counted(), edit));
    // END: frames, records, count of databases, db, records, ttl, values, keys, tombstones …
    forge("bad-end-records", "END says one record more", &|archive| {
        archive.frame(0x7F).payload[1] += 1
    });
    forge(
        "bad-end-database",
        "END says one key more of a database",
        &|archive| {
            archive.frame(0x7F).payload[4] += 1;
        },
    );
    forge(
        "bad-end-rdb-version",
        "END says another RDB version",
        &|archive| archive.frame(0x7F).payload[11] += 1,
    );
    forge(
        "bad-end-written",
        "the exporter counted one record more than there are",
        &|archive| {
            let end = archive.frame(0x7F);
            let at = end
                .payload
                .windows(8)
                .position(|window| window == [0, 2, 0, 2, 0, 0, 0, 0])
                .unwrap();
            end.payload[at + 3] += 1;
        },
    );
    forge(
        "bad-end-more",
        "bytes behind the last field of END, in an archive of minor version 0",
        &|archive| archive.set_body(0x7F, |body| body.extend(b"more")),
    );
    forge(
        "bad-end-long-number",
        "a number in END that is longer than it must be",
        &|archive| {
            // The number of records.
            archive.set_body(0x7F, |body| drop(body.splice(1..2, [0xFB, 2, 0])));
        },
    );
    forge(
        "bad-end-list",
        "END claims 65,537 databases, one more than are allowed",
        &|archive| {
            archive.set_body(0x7F, |body| drop(body.splice(2..3, [0xFC, 1, 0, 1, 0])));
        },
    );
    forge(
        "bad-index-count",
        "INDEX has an item more than there are frames",
        &|archive| {
            archive.set_body(0x81, |body| {
                body[0] += 1;
                body.extend([2, 1, 1, 0]);
            });
        },
    );
    forge(
        "bad-index",
        "INDEX is not the table of the frames",
        &|archive| {
            let index = archive.frame(0x81);
            *index.payload.last_mut().unwrap() += 1;
        },
    );
    forge(
        "bad-after-index",
        "a frame between INDEX and END",
        &|archive| {
            let at = archive.position(0x7F);
            archive.insert(at, ForgedFrame::stored(0x82, b"\x04note"));
        },
    );
    forge(
        "bad-trailer-end-offset",
        "the trailer points beside END",
        &|archive| {
            archive.trailer = |trailer| trailer.end_offset += 1;
        },
    );
    forge(
        "bad-trailer-index-offset",
        "the trailer denies the INDEX",
        &|archive| {
            archive.trailer = |trailer| trailer.index_offset = 0;
        },
    );
    forge(
        "bad-trailer-id",
        "the trailer of another archive",
        &|archive| {
            archive.trailer = |trailer| trailer.archive_id ^= 1;
        },
    );
    let archive = counted();
    let digest = archive.len() - 41;
    add("bad-end-sha256", "END's digest is of other bytes", {
        let mut bytes = archive.clone();
        bytes[digest] ^= 1;
        let layout = crate::support::forge::layout(&archive);
        crate::support::forge::repair_checksums(&mut bytes, &layout);
        bytes
    });
    add(
        "bad-trailer-crc",
        "a bit of the trailer",
        changed(counted(), |bytes| {
            let at = bytes.len() - 20;
            bytes[at] ^= 1;
        }),
    );
    add(
        "bad-trailer-magic",
        "the last byte",
        changed(counted(), |bytes| *bytes.last_mut().unwrap() = b'\r'),
    );
}
