//! Vector sets, as Redis 8.0.2, 8.2.3 and 8.6.3 dump them.

use super::vectors::hex;
use crate::payload::meaning::same;
use crate::payload::{VectorLayout, split, vector_layout, vector_set};
use redis_migrate_format::record::Family::Redis;

/// `VADD w REDUCE 2 VALUES 3 1 2 3 a NOQUANT`, `VADD w REDUCE 2 VALUES 3 2 4 6 b NOQUANT`.
pub(super) const TWO: &str = "0781bde72da2bb1eb400020202020250000201020305c30f18043acd133f3ae0050300bf200f003f\
    0501620508e8dc723f9be8a13e020602020200020102200201028040e9b1e90501610508e8dc723f9be8a13e0206020102\
    0002010220020202804069b1e9000c00bdb9171087c6f8b1";

/// `VADD one VALUES 3 1 2 3 a NOQUANT`, and the same with 2 4 6: only the length differs.
const SHORT: &str = "0781bde72da2bb1eb400020302010250000200050161050c77d6883e77d6083fb2414d3f020502010200\
    020002200280406f7751000c0081573a50401080fe";
const LONG: &str = "0781bde72da2bb1eb400020302010250000200050161050c77d6883e77d6083fb2414d3f020502010200\
    02000220028040ef7751000c000e39e99d856202e4";

/// `VADD v VALUES 3 1 2 3 a`, `VADD v VALUES 3 3 2 1 b` at 8.2.3 and at 8.6.3.
pub(super) const OF_8_2: &str = "0781bde72da2bb1eb40002030202025001020005016205037f552a0207020202800100000002010220020102\
    813e92dc020000000002813f4d41b2406f775105016105032a557f0207020102800100000002010220020202813e92dc020000\
    000002813f4d41b2406f775100\
    0c00c0ec9f5bfba1cdf4";
pub(crate) const OF_8_6: &str = "0781bde72da2bb1eb40002030202025001020005016205037f552a020a0202028001000001020102200201028\
    13e92dc020000000002000210020002813f4d41b2406f775105016105032a557f0207020102800100000002010220020202813\
    e92dc020000000002813f4d41b2406f7751000d00b791cc2b99f1082d";
/// `80`, and the level of the only node of [`OF_8_6`] that is above the ground.
const LEVEL: &[u8] = b"\x80\x01\0\0\x01";

/// What a server that knows only the first layout would do with the second was measured: Redis 8.0.2
/// stands still for more than a second.
#[test]
fn layouts_are_told_apart() {
    for text in [TWO, SHORT, LONG] {
        assert_eq!(vector_layout(&value(text)), Some(VectorLayout::First));
    }
    for text in [OF_8_2, OF_8_6] {
        assert_eq!(vector_layout(&value(text)), Some(VectorLayout::Second));
    }
    let whole = value(OF_8_6);
    let at = whole.windows(5).position(|some| some == LEVEL).expect("it");
    let with_level = |level: [u8; 4]| {
        let mut changed = whole.clone();
        changed[at + 1..at + 5].copy_from_slice(&level);
        vector_layout(&changed)
    };
    assert_eq!(with_level([1, 0, 0, 16]), Some(VectorLayout::Second));
    // A level that no server gives, in either layout, and layouts of the future.
    for level in [[1, 0, 0, 17], [0, 0, 0, 17], [0, 255, 0, 0], [2, 0, 0, 1]] {
        assert_eq!(with_level(level), None, "{level:?}");
    }
    // One node decides, not the first.
    let mut mixed = whole.clone();
    mixed[at + 1..at + 5].copy_from_slice(&[0, 0, 0, 1]);
    assert_eq!(vector_layout(&mixed), Some(VectorLayout::Second));
    assert_eq!(vector_layout(&whole[..whole.len() - 1]), None);
    assert_eq!(vector_layout(b"\x00\x01a"), None);
}

pub(crate) fn value(text: &str) -> Vec<u8> {
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
