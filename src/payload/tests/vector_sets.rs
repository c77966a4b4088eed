//! Vector sets, as a Redis 8.0.2 dumps them.

use super::vectors::hex;
use crate::payload::meaning::same;
use crate::payload::{split, vector_set};
use crate::record::Family::Redis;

/// `VADD w REDUCE 2 VALUES 3 1 2 3 a NOQUANT`, `VADD w REDUCE 2 VALUES 3 2 4 6 b NOQUANT`.
const TWO: &str = "0781bde72da2bb1eb400020202020250000201020305c30f18043acd133f3ae0050300bf200f003f\
    0501620508e8dc723f9be8a13e020602020200020102200201028040e9b1e90501610508e8dc723f9be8a13e0206020102\
    0002010220020202804069b1e9000c00bdb9171087c6f8b1";

/// `VADD one VALUES 3 1 2 3 a NOQUANT`, and the same with 2 4 6: only the length differs.
const SHORT: &str = "0781bde72da2bb1eb400020302010250000200050161050c77d6883e77d6083fb2414d3f020502010200\
    020002200280406f7751000c0081573a50401080fe";
const LONG: &str = "0781bde72da2bb1eb400020302010250000200050161050c77d6883e77d6083fb2414d3f020502010200\
    02000220028040ef7751000c000e39e99d856202e4";

fn value(text: &str) -> Vec<u8> {
    let payload = hex(text);
    let (value, _) = split(&payload).expect("a sound payload");
    value.to_vec()
}

#[test]
fn what_a_server_dumps_is_read() {
    let value = value(TWO);
    let set = vector_set(&value).expect("a vector set");
    assert_eq!(set.dimension, 2);
    assert_eq!(
        set.matrix.as_ref().map(|(dimension, _)| *dimension),
        Some(3)
    );
    let names: Vec<&[u8]> = set.vectors.iter().map(|vector| &*vector.name).collect();
    assert_eq!(names, [b"b", b"a"]);
    // Of the same direction, and not of the same length.
    assert_eq!(set.vectors[0].bytes, set.vectors[1].bytes);
    assert_ne!(set.vectors[0].scale, set.vectors[1].scale);
}

#[test]
fn lengths_of_vectors_count() {
    let (short, long) = (value(SHORT), value(LONG));
    let difference = same(Redis, &short, Redis, &long).expect("both can be read");
    assert_eq!(
        difference.expect("they differ").place,
        "element \"a\", scale"
    );
    assert_eq!(same(Redis, &short, Redis, &short.clone()), Ok(None));
}

#[test]
fn nothing_else_is_taken_for_one() {
    let whole = value(TWO);
    for len in 0..whole.len() {
        assert_eq!(vector_set(&whole[..len]), None, "cut to {len}");
    }
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut changed = whole.clone();
            changed[at] ^= 1 << bit;
            // Whatever comes of it, without a panic.
            let _ = vector_set(&changed);
        }
    }
    let mut longer = whole;
    longer.push(0);
    assert_eq!(vector_set(&longer), None);
}
