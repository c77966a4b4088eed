//! A value taken from a stream is the value in memory.

use std::io::{self, Read};

use redis_migrate_format::record::{Family, Value};

use crate::payload::tests::vectors::vectors;
use crate::payload::{Source as _, compact, walk};
use crate::rdb::error::Fault;
use crate::rdb::input::{Input, Take};
use crate::rdb::{Event, Form, Magic, RdbReader, RdbWriter};

/// Gives one byte a call.
struct Drip<'a>(&'a [u8]);

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(1);
        self.0.read(&mut buffer[..len])
    }
}

/// What is kept of a value that was walked, and how many bytes it took.
fn taken(body: &[u8], family: Family, expand: bool) -> Result<(Vec<u8>, usize), Fault> {
    let mut out = Vec::new();
    let mut input = Input::new(Drip(body));
    let mut take = match expand {
        true => Take::compact(&mut input, &mut out, u64::MAX),
        false => Take::verbatim(&mut input, &mut out, u64::MAX),
    };
    walk::walk(&mut take, family)?;
    let position = take.position() as usize;
    Ok((out, position))
}

fn compacted(body: &[u8], family: Family) -> Vec<u8> {
    let mut out = Vec::new();
    compact(body, family, &mut out).expect("a sound value");
    out
}

/// What follows the value is none of its business.
#[test]
fn real_payloads() {
    for vector in vectors() {
        let body = vector.body();
        let stream = [body, b"\xfe\x00next"].concat();
        let verbatim = taken(&stream, vector.family, false).expect("a sound value");
        assert_eq!(verbatim, (body.to_vec(), body.len()), "{vector}");
        let expanded = taken(&stream, vector.family, true).expect("a sound value");
        let compact = compacted(body, vector.family);
        assert_eq!(expanded, (compact, body.len()), "{vector}");
    }
}

#[test]
fn cut_anywhere() {
    for vector in vectors() {
        let body = vector.body();
        for len in 0..body.len() {
            let cut = taken(&body[..len], vector.family, true);
            assert!(cut.is_err(), "{vector} cut to {len}");
        }
    }
}

#[test]
fn any_byte_changed() {
    let mut agreed = 0;
    for vector in vectors() {
        let mut body = vector.body().to_vec();
        for at in 0..body.len() {
            body[at] ^= 1;
            if let Ok((bytes, position)) = taken(&body, vector.family, true)
                && position == body.len()
            {
                let mut out = Vec::new();
                assert_eq!(compact(&body, vector.family, &mut out), Ok(()), "{vector}");
                assert_eq!(out, bytes, "{vector}");
                agreed += 1;
            }
            body[at] ^= 1;
        }
    }
    assert!(agreed > 1000, "{agreed}");
}

/// What the fuzz target `value_walker` asks of any bytes.
#[test]
fn what_can_be_compacted_is_the_same_in_a_file() {
    let mut agreed = 0;
    for vector in vectors() {
        let newest = match vector.family {
            Family::Redis => 15,
            Family::Valkey => 81,
            _ => continue,
        };
        let mut body = vector.body().to_vec();
        for at in 0..=body.len() {
            let flip = |body: &mut Vec<u8>| {
                if let Some(byte) = body.get_mut(at) {
                    *byte ^= 1;
                }
            };
            flip(&mut body);
            let mut out = Vec::new();
            if compact(&body, vector.family, &mut out).is_ok() {
                let mut writer = RdbWriter::new(Vec::new(), Magic::of(newest));
                writer.key(0, b"key", None, None, &body).expect("memory");
                let file = writer.finish().expect("memory");
                let mut reader = RdbReader::new(&file[..], Form::Compact).expect("a magic");
                let mut keys = 0;
                while let Some(event) = reader.next_event().expect("a whole file") {
                    if let Event::Key(record) = event {
                        assert_eq!(record.value, Value::Compact(out.clone()), "{vector}, {at}");
                        keys += 1;
                    }
                }
                agreed += keys;
            }
            flip(&mut body);
        }
    }
    assert!(agreed > 1000, "{agreed}");
}

/// What would be more is not kept, and passed over all the same.
#[test]
fn within_a_limit() {
    // Fields "a" and "b": 20 times "x" compressed, and the integer 5.
    let body = b"\x04\x02\x01a\xc3\x05\x14\x00x\xe0\x0a\x00\x01b\xc0\x05";
    let plain = compacted(body, Family::Redis);
    for (limit, is_over) in [(plain.len() as u64, false), (plain.len() as u64 - 1, true)] {
        let mut input = Input::new(&body[..]);
        let mut out = Vec::new();
        let mut take = Take::compact(&mut input, &mut out, limit);
        assert!(walk::walk(&mut take, Family::Redis).is_ok());
        assert_eq!(take.is_over(), is_over);
        assert_eq!(take.position(), body.len() as u64);
        assert_eq!(out, if is_over { Vec::new() } else { plain.clone() });
    }
}
