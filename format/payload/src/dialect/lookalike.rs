//! Servers that speak Redis' protocol and call themselves a Redis without being one.
//!
//! What stands here was read in their published sources, and no such server was there to ask. The
//! tests imitate these rules in front of real servers (`tests/services/lookalikes`).
//!
//! None of them is of Redis' family: only the type bytes that mean the same everywhere are counted
//! on. Dragonfly numbers its own types 30 to 37 (rdb_extensions.h), KeyDB one 64 (rdb.h), which are
//! other things in Redis 8.10.

use std::ops::RangeInclusive;

/// The aux field of RDB files in which KeyDB keeps the name of a member or field that expires by
/// itself, behind its key (rdb.cpp, rdbSaveKeyValuePair). Its DUMP says nothing of them.
pub const KEYDB_MEMBER_EXPIRY: &[u8] = b"keydb-subexpire-key";

/// A product that says `redis_version` and is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lookalike {
    /// Calls itself Redis 7.4.0.
    Dragonfly,
    /// Calls itself Redis 7.4.3.
    Garnet,
    /// Calls itself Redis 4.0.0.
    Kvrocks,
    /// Its own version, 6.3.4, stands where that of Redis does.
    KeyDb,
}

impl Lookalike {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Dragonfly, Self::Garnet, Self::Kvrocks, Self::KeyDb];

    /// As people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dragonfly => "Dragonfly",
            Self::Garnet => "Garnet",
            Self::Kvrocks => "Kvrocks",
            Self::KeyDb => "KeyDB",
        }
    }

    /// The field of INFO (server) and HELLO by which it is known, which tells its version:
    /// server_family.cc of Dragonfly, GarnetInfoMetrics.cs, server.cc of Kvrocks (INFO only). KeyDB
    /// has none.
    pub const fn version_field(self) -> Option<&'static str> {
        match self {
            Self::Dragonfly => Some("dragonfly_version"),
            Self::Garnet => Some("garnet_version"),
            Self::Kvrocks => Some("kvrocks_version"),
            Self::KeyDb => None,
        }
    }

    /// The section of INFO by which it is known that has no field of its own (server.cpp,
    /// genRedisInfoString).
    pub const fn section(self) -> Option<&'static str> {
        match self {
            Self::KeyDb => Some("# KeyDB"),
            _ => None,
        }
    }

    /// By the name of a field of INFO or HELLO.
    pub fn by_field(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|one| one.version_field() == Some(name))
    }

    /// By the heading of a section of INFO.
    pub fn by_section(line: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|one| one.section() == Some(line.trim_end()))
    }

    /// RDB versions of footers that RESTORE takes (generic_family.cc of Dragonfly, GetRdbVersion;
    /// KeyAdminCommands.cs of Garnet; rdb.h of Kvrocks and KeyDB).
    pub const fn footers(self) -> RangeInclusive<u16> {
        match self {
            Self::Dragonfly | Self::Kvrocks => 0..=12,
            Self::Garnet => 0..=11,
            Self::KeyDb => 0..=9,
        }
    }

    /// Type bytes that RESTORE takes, of those that mean the same everywhere (rdb.h and
    /// rdb_load.cc of Dragonfly; rdb.cc of Kvrocks, loadRdbObject; rdb.h of KeyDB).
    pub const fn types(self) -> &'static [RangeInclusive<u8>] {
        match self {
            Self::Dragonfly => &[0..=5, 9..=21],
            // No streams.
            Self::Kvrocks => &[0..=5, 9..=14, 16..=18, 20..=20],
            Self::KeyDb => &[0..=5, 9..=15],
            Self::Garnet => &[0..=0],
        }
    }

    /// What stands in the footers that DUMP writes (rdb.h of each; KeyAdminCommands.cs of Garnet).
    pub const fn rdb_version(self) -> u16 {
        match self {
            Self::Dragonfly | Self::KeyDb => 9,
            Self::Garnet => 11,
            Self::Kvrocks => 6,
        }
    }

    /// Whether SELECT says OK to every number and leads to the same keys (Kvrocks, cmd_server.cc,
    /// CommandSelect).
    pub const fn has_one_database(self) -> bool {
        matches!(self, Self::Kvrocks)
    }

    /// Whether it has function libraries: Kvrocks (cmd_function.cc), and no other.
    pub const fn has_libraries(self) -> bool {
        matches!(self, Self::Kvrocks)
    }

    /// The longest that a key can live, ms, where it is cut without a word (Dragonfly, common.h,
    /// kMaxExpireDeadlineSec: 2^28 − 1 s).
    pub const fn longest_ttl_ms(self) -> Option<u64> {
        match self {
            Self::Dragonfly => Some(((1 << 28) - 1) * 1000),
            _ => None,
        }
    }

    /// Whether DUMP puts the time of the last change between the value and the footer, as an aux
    /// field (KeyDB, cluster.cpp, createDumpPayload: `FA "mvcc-tstamp" "number"`).
    pub const fn dumps_aux(self) -> bool {
        matches!(self, Self::KeyDb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_known_by_one_thing_each() {
        for one in Lookalike::ALL {
            assert_ne!(one.version_field().is_some(), one.section().is_some());
            assert!(one.footers().contains(&one.rdb_version()), "{one:?}");
            if let Some(field) = one.version_field() {
                assert_eq!(Lookalike::by_field(field), Some(one));
            }
            if let Some(section) = one.section() {
                assert_eq!(Lookalike::by_section(&format!("{section}\r")), Some(one));
            }
        }
        assert_eq!(Lookalike::by_field("redis_version"), None);
        assert_eq!(Lookalike::by_section("# Server"), None);
    }

    #[test]
    fn only_type_bytes_that_mean_the_same_everywhere_are_counted_on() {
        for one in Lookalike::ALL {
            let mut bytes = one.types().iter().cloned().flatten();
            assert!(bytes.all(|byte| super::super::is_common(byte) && !matches!(byte, 6..=8)));
        }
    }
}
