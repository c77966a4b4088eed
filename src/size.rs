//! How large a value is: one measure for `--max-value`, `--min-size` and `--max-size` on every verb.
//!
//! It is the value as an archive stores it in compact form: type byte and body, compressed strings
//! expanded, no footer. So a limit means the same at a server, in an RDB file and in an archive of
//! either form. A value that cannot be expanded (a module's, a damaged one) counts as it is, without
//! its footer.

use redis_migrate_format::Limits;

use crate::payload::{self, ErrorKind, FOOTER_LEN, compact_within};
use crate::record::{Family, Value};

/// A value never becomes more than this many times as long when its strings are expanded: three
/// bytes of LZF stand for 264 at most.
pub(crate) const MOST_EXPANDED: u64 = 88;

/// Bytes of a value.
pub(crate) fn of(value: &Value, family: Family) -> u64 {
    match value {
        Value::Verbatim(dump) => of_dump(dump, family, &mut Vec::new()),
        Value::Compact(_) | Value::Withheld(_) => value.stored_len(),
    }
}

/// The same, of a DUMP payload. `scratch` is overwritten.
pub(crate) fn of_dump(dump: &[u8], family: Family, scratch: &mut Vec<u8>) -> u64 {
    scratch.clear();
    let expanded = payload::split(dump)
        .ok()
        .and_then(|(body, _)| payload::compact(body, family, scratch).ok());
    expanded.map_or_else(|| without_footer(dump), |()| scratch.len() as u64)
}

/// Whether a value has more than `max` bytes. No more than `max` bytes are expanded for that, and
/// nothing where the value cannot become so long.
pub(crate) fn is_larger(value: &Value, family: Family, max: u64) -> bool {
    if max == u64::MAX {
        return false;
    }
    let Value::Verbatim(dump) = value else {
        return value.stored_len() > max;
    };
    let held = without_footer(dump);
    if held > max {
        return true;
    }
    if held.saturating_mul(MOST_EXPANDED) <= max {
        return false;
    }
    let Ok((body, _)) = payload::split(dump) else {
        return false;
    };
    compact_within(body, family, max, &mut Vec::new())
        .is_err_and(|error| matches!(error.kind, ErrorKind::TooLarge(_)))
}

/// Limits of a reader whose values are wanted up to `max` bytes. A footer does not count, and whether
/// a value has one is not known before it is read.
pub(crate) fn limits(max: u64) -> Limits {
    Limits::keeping(max.saturating_add(FOOTER_LEN as u64))
}

fn without_footer(dump: &[u8]) -> u64 {
    (dump.len() as u64).saturating_sub(FOOTER_LEN as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1,000 times `x`: a literal of one byte, and back references to it.
    fn compressed() -> Vec<u8> {
        let mut lzf = vec![0, b'x'];
        let mut left = 999;
        while left > 0 {
            let run: usize = match left {
                10..=264 => left,
                _ => 264.min(left - 10),
            };
            lzf.extend([0xe0, u8::try_from(run - 9).expect("short"), 0]);
            left -= run;
        }
        let mut body = vec![0, 0xc3, u8::try_from(lzf.len()).expect("short"), 0x43, 0xe8];
        body.extend(lzf);
        body
    }

    #[test]
    fn a_value_is_as_large_compressed_as_it_is_expanded() {
        let mut plain = vec![0, 0x43, 0xe8];
        plain.extend([b'x'; 1_000]);
        let due = plain.len() as u64;
        let forms = [
            Value::Compact(plain.clone()),
            Value::Verbatim(payload::sign(&plain, 9)),
            Value::Verbatim(payload::sign(&compressed(), 9)),
        ];
        for value in forms {
            assert_eq!(of(&value, Family::Redis), due);
            assert!(is_larger(&value, Family::Redis, due - 1));
            for max in [due, due + 9, 100 * due, u64::MAX] {
                assert!(!is_larger(&value, Family::Redis, max), "{max}");
            }
        }
    }

    #[test]
    fn what_cannot_be_expanded_counts_without_its_footer() {
        let module = payload::sign(b"\x07\x81\x01\x02\x03\x04\x05\x06\x07\x08\x00", 9);
        let value = Value::Verbatim(module.clone());
        assert_eq!(of(&value, Family::Redis), module.len() as u64 - 10);
        assert!(!is_larger(&value, Family::Redis, module.len() as u64 - 10));
        assert!(is_larger(&value, Family::Redis, module.len() as u64 - 11));
    }
}
