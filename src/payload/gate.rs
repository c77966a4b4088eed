//! The one gate that every value passes before it leaves: `export`, `copy`, `import`, `convert` and
//! `verify` all ask here whether a value is sound, so that a backup is not called good until the day
//! it is restored.

use redis_migrate_format::record::Family;

use super::decode::{Checked, check};
use super::error::PayloadError;
use super::source::Slice;
use super::types::Encoding;
use super::walk::walk;

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

/// Looks at `value`, a type byte and its body without a footer, as completely as it can be looked
/// at. Costs no memory to speak of: eight bytes for each member or field.
pub fn examine(family: Family, value: &[u8]) -> Examined {
    match check(family, value) {
        Ok(checked) => Examined::Sound(checked),
        Err(error) if !error.is_opaque() => Examined::Damaged(error),
        Err(_) => {
            let is_module = value
                .first()
                .is_some_and(|&byte| Encoding::of(family, byte) == Some(Encoding::Module));
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
