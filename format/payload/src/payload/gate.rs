//! The one gate that every value passes before it leaves: `export`, `copy`, `import`, `convert` and
//! `verify` all ask here whether a value is sound, so that a backup is not called good until the day
//! it is restored.

use std::cell::RefCell;

use redis_migrate_format::record::Family;

use super::compact::compact;
use super::decode::{Checked, check};
use super::error::PayloadError;
use super::lzf;
use super::metadata::type_byte;
use super::source::{Slice, Source as _};
use super::walk::{Head, compressed_lengths, head, length, walk};
use crate::dialect::Encoding;

/// What was found when a value was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Examined {
    /// It was decoded to its last byte, and nothing is wrong with it.
    Sound(Checked),
    /// Only its own server can read it: a module's value, of which no more than the frame can be
    /// looked at, or a type of the future.
    Opaque,
    /// No server should be given it. Some refuse it, others take it and end when it is read.
    Damaged(PayloadError),
}

/// Values of up to so many bytes are expanded as a whole before they are looked at.
const SMALL_BYTES: usize = 32 * 1024;

/// Room that is kept for them.
const KEPT_BYTES: usize = 1024 * 1024;

thread_local! {
    static EXPANDED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// [`check`], which expands a compressed string, and copies every element of a compressed list. Here a
/// string is only followed to its end, and a small list is expanded once, so that its elements are
/// looked at where they stand.
fn check_fast(family: Family, value: &[u8]) -> Result<Checked, PayloadError> {
    if is_whole_string(value) {
        return Ok(Checked {
            count: 1,
            ..Checked::default()
        });
    }
    if value.len() <= SMALL_BYTES && is_compressed_list(value) {
        let sound = EXPANDED.with_borrow_mut(|expanded| {
            expanded.clear();
            let expands = compact(value, family, expanded).is_ok();
            let checked = expands.then(|| check(family, expanded).ok()).flatten();
            if expanded.capacity() > KEPT_BYTES {
                *expanded = Vec::new();
            }
            checked
        });
        if let Some(checked) = sound {
            return Ok(checked);
        }
        // What is wrong is told by its place in the value as it came.
    }
    check(family, value)
}

/// Whether it is a list of packed elements that is compressed, or whose first node is: archives hold
/// them expanded, and then nothing is copied anyway.
fn is_compressed_list(value: &[u8]) -> bool {
    /// The head of a compressed string.
    const COMPRESSED: Option<&u8> = Some(&0xc3);
    let Some((&type_byte, body)) = value.split_first() else {
        return false;
    };
    let mut rest = Slice::new(body);
    match type_byte {
        9..=13 | 16 | 17 | 20 => body.first() == COMPRESSED,
        // How many nodes; in 18 each says what it is.
        14 => length(&mut rest).is_ok() && rest.rest().first() == COMPRESSED,
        18 => {
            let heads = length(&mut rest).and_then(|_| length(&mut rest));
            heads.is_ok() && rest.rest().first() == COMPRESSED
        }
        _ => false,
    }
}

/// Whether it is a string with nothing wrong, and nothing behind it.
fn is_whole_string(value: &[u8]) -> bool {
    /// Of every family.
    const STRING: u8 = 0;
    let Some((&STRING, body)) = value.split_first() else {
        return false;
    };
    let mut rest = Slice::new(body);
    pass_string(&mut rest).is_ok_and(|whole| whole) && rest.end().is_ok()
}

fn pass_string(rest: &mut Slice<'_>) -> Result<bool, PayloadError> {
    match head(rest)? {
        Head::Plain(len) => rest.pass(len).map(|()| true),
        Head::Encoded(code @ 0..=2) => rest.pass(1 << code).map(|()| true),
        Head::Encoded(3) => {
            let (compressed, plain) = compressed_lengths(rest)?;
            Ok(lzf::expands_to(rest.take(compressed)?, plain))
        }
        Head::Encoded(_) => Ok(false),
    }
}

/// Looks at `value`, a type byte and its body without a footer, as completely as it can be looked
/// at. Costs no memory to speak of: eight bytes for each member or field.
pub fn examine(family: Family, value: &[u8]) -> Examined {
    match check_fast(family, value) {
        Ok(checked) => Examined::Sound(checked),
        Err(error) if !error.is_opaque() => Examined::Damaged(error),
        Err(_) => {
            let is_module = type_byte(family, value)
                .is_some_and(|byte| Encoding::of(family, byte) == Some(Encoding::Module));
            if !is_module {
                return Examined::Opaque;
            }
            // How a module's value ends does not depend on the module.
            let mut slice = Slice::new(value);
            match walk(&mut slice, family).and_then(|_| slice.end()) {
                Ok(()) => Examined::Opaque,
                Err(error) => Examined::Damaged(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::ErrorKind;

    /// However it is stored: what is found is what a complete check finds.
    #[test]
    fn compressed_lists_are_looked_at_as_others_are() {
        for vector in crate::payload::tests::vectors::vectors() {
            let (family, value) = (vector.family, vector.body());
            let expected = check(family, value);
            if let Ok(checked) = &expected {
                assert_eq!(
                    examine(family, value),
                    Examined::Sound(*checked),
                    "{vector}"
                );
            }
            for at in 0..value.len().min(400) {
                let mut bad = value.to_vec();
                bad[at] ^= 0x10;
                assert_eq!(
                    check_fast(family, &bad),
                    check(family, &bad),
                    "{vector} {at}"
                );
            }
        }
    }

    #[test]
    fn all_three() {
        let look = |value: &[u8]| examine(Family::Redis, value);
        assert!(matches!(look(b"\x00\x01a"), Examined::Sound(_)));
        let kind = |value: &[u8]| match look(value) {
            Examined::Damaged(error) => error.kind,
            other => panic!("{other:?}"),
        };
        assert_eq!(kind(b""), ErrorKind::Truncated);
        assert_eq!(kind(b"\x00\x02a"), ErrorKind::Truncated);
        // A set with a member twice, a sorted set whose score is NaN.
        assert_eq!(kind(b"\x02\x02\x01a\x01a"), ErrorKind::Duplicate("member"));
        let nan = [&b"\x05\x01\x01a"[..], &f64::NAN.to_le_bytes()].concat();
        assert_eq!(kind(&nan), ErrorKind::Score);
        // A module's value with one number in it, whole and cut; a type of the future.
        let module = b"\x07\x81\x01\x02\x03\x04\x05\x06\x07\x08\x02\x05\x00";
        assert_eq!(look(module), Examined::Opaque);
        assert_eq!(kind(&module[..12]), ErrorKind::Truncated);
        assert_eq!(kind(&[&module[..], b"x"].concat()), ErrorKind::Trailing(1));
        assert_eq!(look(b"\x63abc"), Examined::Opaque);
    }
}
