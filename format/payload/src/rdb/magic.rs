//! The nine bytes at the start.

use super::envelope::ENVELOPE;
use crate::dialect::opcode::CHECKSUM_SINCE;
use crate::dialect::{Family, VALKEY_MIN, family_of_rdb_version, newest_rdb_version};

/// Length of the magic.
pub(super) const MAGIC_LEN: usize = 9;

/// The RDB versions that are read, for people: `1 to 15 of Redis, 80 to 81 of Valkey`.
pub(super) fn readable_versions() -> String {
    let (redis, valkey) = (Family::Redis, Family::Valkey);
    format!(
        "1 to {} of Redis, {VALKEY_MIN} to {} of Valkey",
        newest_rdb_version(redis),
        newest_rdb_version(valkey)
    )
}

/// Whether this is how RDB data begin, as they are or in an envelope of compressed data. Six bytes
/// are enough.
pub fn begins_like_rdb(head: &[u8]) -> bool {
    [b"REDIS", &b"VALKEY"[..], ENVELOPE]
        .iter()
        .any(|magic| head.starts_with(magic))
}

/// Whose file of which version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Magic {
    /// `REDIS` or `VALKEY`. Valkey before 9.0 writes `REDIS`.
    pub family: Family,
    /// The version behind it.
    pub version: u16,
}

impl Magic {
    /// What the bytes say; `None` if they are the beginning of no RDB file.
    pub fn parse(bytes: &[u8; MAGIC_LEN]) -> Option<Self> {
        let (family, digits) = if let Some(digits) = bytes.strip_prefix(b"REDIS") {
            (Family::Redis, digits)
        } else {
            (Family::Valkey, bytes.strip_prefix(b"VALKEY")?)
        };
        let mut version = 0;
        for digit in digits {
            if !digit.is_ascii_digit() {
                return None;
            }
            version = version * 10 + u16::from(digit - b'0');
        }
        Some(Self { family, version })
    }

    /// What a server of this family writes at this version.
    pub fn of(version: u16) -> Self {
        Self {
            family: family_of_rdb_version(version),
            version,
        }
    }

    /// Its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        match self.family {
            Family::Valkey => format!("VALKEY{:03}", self.version),
            _ => format!("REDIS{:04}", self.version),
        }
        .into_bytes()
    }

    /// Whether this tool reads it.
    pub fn is_readable(&self) -> bool {
        let oldest = match self.family {
            Family::Valkey => VALKEY_MIN,
            _ => 1,
        };
        (oldest..=newest_rdb_version(self.family)).contains(&self.version)
    }

    /// Whether a checksum ends it.
    pub fn has_checksum(&self) -> bool {
        self.version >= CHECKSUM_SINCE
    }
}

impl std::fmt::Display for Magic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.family {
            Family::Valkey => write!(f, "Valkey RDB version {}", self.version),
            _ => write!(f, "RDB version {}", self.version),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        for (bytes, family, version, readable) in [
            (b"REDIS0006", Family::Redis, 6, true),
            (b"REDIS0012", Family::Redis, 12, true),
            (b"REDIS0015", Family::Redis, 15, true),
            (b"REDIS0016", Family::Redis, 16, false),
            (b"REDIS0080", Family::Redis, 80, false),
            (b"REDIS0000", Family::Redis, 0, false),
            (b"VALKEY080", Family::Valkey, 80, true),
            (b"VALKEY081", Family::Valkey, 81, true),
            (b"VALKEY082", Family::Valkey, 82, false),
            (b"VALKEY011", Family::Valkey, 11, false),
        ] {
            let magic = Magic::parse(bytes).unwrap();
            assert_eq!(magic, Magic { family, version });
            assert_eq!(magic.is_readable(), readable);
            assert_eq!(magic.bytes(), bytes);
        }
        for bytes in [
            b"REDIS00x1",
            b"\x89RMZ\r\n\x1a\n\0",
            b"*2\r\n$6\r\nS",
            b"VALKEY 80",
        ] {
            assert_eq!(Magic::parse(bytes), None);
        }
        assert_eq!(readable_versions(), "1 to 15 of Redis, 80 to 81 of Valkey");
        assert_eq!(Magic::of(11).bytes(), b"REDIS0011");
        assert_eq!(Magic::of(80).bytes(), b"VALKEY080");
    }
}
