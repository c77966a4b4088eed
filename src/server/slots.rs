//! Slots of a cluster: the slot of a key, and a name in a given slot.

use std::sync::OnceLock;

use crc::{CRC_16_XMODEM, Crc};

/// Slots of a cluster (cluster.h, CLUSTER_SLOTS).
pub const SLOTS: u16 = 16_384;

const CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);

/// The slot of a key (cluster.c, keyHashSlot): the checksum of what is between the first `{` and the
/// first `}` after it, or of the whole key if there is no such pair or nothing in it.
pub fn slot_of(key: &[u8]) -> u16 {
    CRC.checksum(hashed_part(key)) % SLOTS
}

fn hashed_part(key: &[u8]) -> &[u8] {
    let position = |bytes: &[u8], wanted| bytes.iter().position(|&byte| byte == wanted);
    let Some(open) = position(key, b'{') else {
        return key;
    };
    let rest = &key[open + 1..];
    match position(rest, b'}') {
        None | Some(0) => key,
        Some(close) => &rest[..close],
    }
}

/// A hash tag, with braces, that puts a key into `slot` (modulo [`SLOTS`]): `{1a2b}`. A key is in
/// that slot if the tag is the first thing in braces in it.
///
/// The tags are hexadecimal numbers. The first call finds all of them by trying numbers in order:
/// some 170,000 short checksums, which take a few milliseconds.
pub fn tag_for_slot(slot: u16) -> String {
    static NUMBERS: OnceLock<Vec<u32>> = OnceLock::new();
    let numbers = NUMBERS.get_or_init(find_numbers);
    format!("{{{:x}}}", numbers[usize::from(slot % SLOTS)])
}

fn find_numbers() -> Vec<u32> {
    let mut found: Vec<Option<u32>> = vec![None; SLOTS.into()];
    let mut missing = found.len();
    // Each of the 2^14 slots turns up long before 2^32, which a test checks.
    for number in 0..u32::MAX {
        let place = &mut found[usize::from(slot_of(format!("{number:x}").as_bytes()))];
        if place.is_none() {
            *place = Some(number);
            missing -= 1;
            if missing == 0 {
                break;
            }
        }
    }
    found.into_iter().map(Option::unwrap_or_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(CRC.checksum(b"123456789"), 0x31c3);
        assert_eq!(slot_of(b"foo"), 12_182);
        assert_eq!(slot_of(b""), 0);
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"user1000"));
        assert_eq!(slot_of(b"foo{}{bar}"), CRC.checksum(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
        assert_eq!(slot_of(b"foo{bar}{zap}"), slot_of(b"bar"));
        assert_eq!(slot_of(b"foo{bar"), CRC.checksum(b"foo{bar") % SLOTS);
    }

    #[test]
    fn every_slot_has_a_tag() {
        for slot in 0..SLOTS {
            let tag = tag_for_slot(slot);
            assert!(tag.len() <= 8, "{tag}");
            assert_eq!(slot_of(format!("before:{tag}:after").as_bytes()), slot);
        }
    }
}
