//! Files in a compressed envelope: made by hand from the layout, no server confirmed.

use std::io::Write as _;

use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

use super::build::{Rdb, everything};
use super::later;
use super::reading::{Drip, read_all};
use crate::rdb::{Checksum, Form, RdbErrorKind, RdbReader, Tail, begins_like_rdb};

const LZ4: u8 = 1;
const ZSTD: u8 = 2;

fn lz4(inside: &[u8], checksums: bool) -> Vec<u8> {
    let info = FrameInfo::new()
        .block_size(BlockSize::Max64KB)
        .block_mode(BlockMode::Linked)
        .block_checksums(checksums)
        .content_checksum(checksums);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(inside).unwrap();
    encoder.finish().unwrap()
}

fn zstd(inside: &[u8], checksum: bool) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(checksum).unwrap();
    encoder.write_all(inside).unwrap();
    encoder.finish().unwrap()
}

fn wrapped(codec: u8, inside: &[u8], checksum: bool) -> Vec<u8> {
    let frame = match codec {
        LZ4 => lz4(inside, checksum),
        _ => zstd(inside, checksum),
    };
    [&b"VCS\x01"[..], &[codec, 0, 1], &frame].concat()
}

/// More than one block of either codec, of which later ones refer to earlier ones.
fn large() -> Vec<u8> {
    let mut file = Rdb::new(b"VALKEY081").bytes(b"\xfe\x00");
    for n in 0..4_000u32 {
        let value = format!(
            "{n:08} {:032x}",
            u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        );
        file = file.key(
            0,
            &format!("key:{n}"),
            &[&[value.len() as u8], value.as_bytes()].concat(),
        );
    }
    file.end()
}

#[test]
fn what_is_inside_is_read() {
    for inside in [everything(), later::of_valkey(), large()] {
        let plain = read_all(inside.as_slice(), Form::Compact).unwrap();
        for codec in [LZ4, ZSTD] {
            for checksum in [true, false] {
                let file = wrapped(codec, &inside, checksum);
                assert!(begins_like_rdb(&file[..6]));
                assert_eq!(read_all(file.as_slice(), Form::Compact).unwrap(), plain);
                assert_eq!(read_all(Drip(&file), Form::Compact).unwrap(), plain);
                // What stands behind the frame means nothing.
                let longer = [&file[..], b"and more"].concat();
                assert_eq!(read_all(longer.as_slice(), Form::Compact).unwrap(), plain);
                // Nor does the file's own checksum. Without one of the frame nothing was checked.
                let mut other = inside.clone();
                *other.last_mut().unwrap() ^= 1;
                let file = wrapped(codec, &other, checksum);
                let (events, found) = read_all(file.as_slice(), Form::Compact).unwrap();
                assert_eq!(events, plain.0);
                let due = match checksum {
                    true => Checksum::Verified,
                    false => Checksum::Disabled,
                };
                assert_eq!(found, due);
            }
        }
    }
}

#[test]
fn cut_anywhere_it_is_not_whole() {
    for inside in [everything(), large()] {
        for codec in [LZ4, ZSTD] {
            for checksum in [true, false] {
                let file = wrapped(codec, &inside, checksum);
                let step = file.len() / 997 + 1;
                // The last bytes one by one: there the contents are whole, and the frame is not.
                let places = (3..file.len())
                    .step_by(step)
                    .chain(file.len() - 24..file.len());
                for len in places {
                    let error = read_all(&file[..len], Form::Compact).unwrap_err();
                    let is_cut = error.to_string().contains("cut short");
                    assert!(is_cut && error.is_damage(), "{codec} {len}: {error}");
                }
            }
        }
    }
}

#[test]
fn damage_is_seen() {
    let inside = everything();
    let plain = read_all(inside.as_slice(), Form::Compact).unwrap();
    for codec in [LZ4, ZSTD] {
        let file = wrapped(codec, &inside, true);
        for at in 0..file.len() {
            for bit in [0x01, 0x80] {
                let mut bad = file.clone();
                bad[at] ^= bit;
                if let Ok(found) = read_all(bad.as_slice(), Form::Compact) {
                    assert_eq!(found.0, plain.0, "{codec} byte {at}");
                }
            }
        }
        // More inside than a file.
        let longer = [&inside[..], b"*1\r\n"].concat();
        let error = read_all(wrapped(codec, &longer, true).as_slice(), Form::Compact).unwrap_err();
        assert!(matches!(error.kind, RdbErrorKind::Trailing), "{error}");
        let nested = wrapped(codec, &wrapped(codec, &inside, true), true);
        let error = read_all(nested.as_slice(), Form::Compact).unwrap_err();
        assert!(matches!(error.kind, RdbErrorKind::NotRdb), "{error}");
    }
}

#[test]
fn other_envelopes_are_refused_by_name() {
    let good = wrapped(LZ4, &everything(), true);
    for (at, byte, said) in [
        (3, 2, "version 2, and only 1 is known"),
        (4, 3, "codec 3, and only 1 (LZ4) or 2 (Zstandard) is known"),
        (5, 1, "a reserved byte of 1, and only 0 is known"),
        (6, 2, "a replication stream"),
        (6, 3, "kind 3"),
        (7, 0, "no LZ4 frame"),
        (4, 2, "no Zstandard frame"),
    ] {
        let mut bad = good.clone();
        bad[at] = byte;
        let error = read_all(bad.as_slice(), Form::Compact).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
        assert!(error.is_damage());
    }
    // What only begins alike is no envelope.
    for other in [&b"VC"[..], b"VCX\x01\x01\x00\x01", b"V"] {
        assert!(RdbReader::new(other, Form::Compact).is_err());
    }
}

#[test]
fn what_follows_the_frame_is_told_and_another_file_is_an_error() {
    for codec in [LZ4, ZSTD] {
        for checksum in [true, false] {
            let file = wrapped(codec, &everything(), checksum);
            let tail = |more: &[u8]| {
                let bytes = [&file[..], more].concat();
                let mut reader = RdbReader::new(bytes.as_slice(), Form::Compact).unwrap();
                while reader.next_event().unwrap().is_some() {}
                reader.expect_end_of_file()
            };
            assert_eq!(tail(b"").unwrap(), None);
            for more in [&b"\n"[..], b"VC", b"REDI", b"and much more than that"] {
                assert_eq!(tail(more).unwrap(), Some(Tail::BehindFrame));
            }
            for more in [file.as_slice(), &everything(), b"VALKEY081"] {
                let error = tail(more).unwrap_err();
                assert!(matches!(error.kind, RdbErrorKind::Glued), "{error}");
                assert!(error.is_damage());
            }
        }
    }
}

#[test]
fn a_window_that_is_too_large_is_no_damage_of_the_data() {
    // A frame of one raw block, whose window is 256 MiB (2^28: exponent 18 above 2^10).
    let frame = b"\x28\xb5\x2f\xfd\x00\x90\x09\x00\x00R";
    let file = [&b"VCS\x01\x02\x00\x01"[..], frame].concat();
    let error = read_all(file.as_slice(), Form::Compact).unwrap_err();
    assert!(error.to_string().contains("more than 128 MiB"), "{error}");
}
