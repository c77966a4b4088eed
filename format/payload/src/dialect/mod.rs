//! What each server speaks: one table, by family and version, of RDB versions, type bytes, opcodes,
//! commands and options. Everything else asks here; no other file knows a version number.
//!
//! A code never means anything without its family: from 22 on Redis and Valkey number their types
//! apart, and the opcodes F2 and F3 are different things in each.
//!
//! - [`Release`]: a version that changed something that matters here. A new version whose types are
//!   known is one row.
//! - [`Encoding`]: what a type byte means, and what a value may be rewritten to.
//! - [`Opcode`]: what stands in an RDB file where a type byte could.
//! - [`Feature`]: commands and options, and since when.
//! - [`Lookalike`]: what only calls itself Redis.

mod encoding;
mod feature;
mod kind;
mod layout;
mod lookalike;
pub mod opcode;
mod release;
mod version;

pub use encoding::{Encoding, MODULE_PRE_GA, is_common, kind_of};
pub use feature::Feature;
pub use kind::Kind;
pub use layout::{Counted, Each, Memory, StreamForm};
pub(crate) use layout::{Layout, Part};
pub use lookalike::{KEYDB_MEMBER_EXPIRY, Lookalike};
pub use opcode::Opcode;
pub use redis_migrate_format::record::Family;
pub use release::{
    Proof, RELEASES, Release, VALKEY_MIN, family_of_rdb_version, newest_rdb_version,
    oldest_with_rdb_version, version_to_name_to_valkey,
};
pub use version::Version;

use std::ops::RangeInclusive;

/// What a server of one family and version speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    family: Family,
    version: Version,
    /// The newest row that is not above its version.
    release: Option<&'static Release>,
}

impl Dialect {
    /// Of a server. Where its version is not known, nothing else is.
    pub fn of(family: Family, version: Version) -> Self {
        let release = RELEASES
            .iter()
            .filter(|row| row.family == family && row.since <= version)
            .max_by_key(|row| row.since);
        Self {
            family,
            version,
            release,
        }
    }

    /// Its version; all zero where that is unknown.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whose.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Whether its version is one that the table knows, or lies between two that it knows.
    pub fn is_known(&self) -> bool {
        self.release.is_some() && !self.is_newer()
    }

    /// Whether it is newer than all that the table knows: it may write what nothing here can read.
    pub fn is_newer(&self) -> bool {
        let last = RELEASES.iter().filter(|row| row.family == self.family);
        last.map(|row| row.last_minor())
            .max()
            .is_some_and(|last| self.version.minor_only() > last)
    }

    /// The RDB version that it writes into files and DUMP footers (rdb.h, RDB_VERSION); `None` where
    /// its version is unknown or newer than the table.
    pub fn rdb_version(&self) -> Option<u16> {
        self.is_known().then_some(self.release?.rdb_version)
    }

    /// RDB versions of footers that RESTORE takes by its source (rdb.c, cluster.c).
    pub fn footers(&self) -> &'static [RangeInclusive<u16>] {
        self.release.map_or(&[], |row| row.footers)
    }

    /// The row of the table that it goes by.
    pub fn release(&self) -> Option<&'static Release> {
        self.release
    }

    /// The encodings that it reads in a DUMP payload; none where its version is unknown.
    pub fn encodings(&self) -> impl Iterator<Item = Encoding> + '_ {
        let version = self.release.map_or(0, |row| row.rdb_version);
        Encoding::ALL
            .iter()
            .copied()
            .filter(move |one| one.family().is_none_or(|family| family == self.family))
            .filter(move |one| one.in_payloads() && self.counts(one.since(), version))
    }

    /// Whether what came up with RDB version `since` is in a server that writes `version`. Valkey
    /// took over all of 11 and then counted on from 80.
    fn counts(&self, since: u16, version: u16) -> bool {
        /// What Redis counted after they parted.
        const APART: std::ops::Range<u16> = 12..VALKEY_MIN;
        since <= version && (version < VALKEY_MIN || !APART.contains(&since))
    }

    /// Whether it has a command or an option. Nothing is counted on where family or version are
    /// unknown.
    pub fn has(&self, feature: Feature) -> bool {
        feature
            .since(self.family)
            .is_some_and(|since| self.version >= since)
    }

    /// Whether its version is known to be one that lacks it.
    pub fn lacks(&self, feature: Feature) -> bool {
        self.family != Family::Other && self.version != Version::default() && !self.has(feature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(family: Family, text: &str) -> Dialect {
        Dialect::of(family, Version::parse(text))
    }

    #[test]
    fn servers_and_what_they_write() {
        use Family::{Redis, Valkey};
        for (family, version, rdb) in [
            (Redis, "2.8.17", Some(6)),
            (Redis, "3.2.6", Some(7)),
            (Redis, "4.0.14", Some(8)),
            (Redis, "5.0.6", Some(9)),
            (Redis, "6.2.14", Some(9)),
            (Redis, "7.0.15", Some(10)),
            (Redis, "7.2.4", Some(11)),
            (Redis, "7.4.1", Some(12)),
            (Redis, "8.0.2", Some(12)),
            (Redis, "8.4.0", Some(12)),
            (Redis, "8.6.3", Some(13)),
            (Redis, "8.8.0", Some(14)),
            (Redis, "8.10.7", Some(15)),
            (Redis, "8.12.0", None),
            (Redis, "9.0.0", None),
            (Redis, "", None),
            (Valkey, "7.2.5", Some(11)),
            (Valkey, "8.1.1", Some(11)),
            (Valkey, "9.0.0", Some(80)),
            (Valkey, "9.1.2", Some(80)),
            (Valkey, "9.2.0", Some(81)),
            (Valkey, "9.3.0", None),
            (Family::Other, "7.0.0", None),
        ] {
            assert_eq!(
                of(family, version).rdb_version(),
                rdb,
                "{family:?} {version}"
            );
        }
        assert!(of(Redis, "8.12.0").is_newer() && of(Valkey, "10.0.0").is_newer());
        assert!(!of(Redis, "8.10.99").is_newer());
    }

    #[test]
    fn servers_and_the_types_they_read() {
        let reads =
            |family, version, encoding| of(family, version).encodings().any(|one| one == encoding);
        use Family::{Redis, Valkey};
        assert!(reads(Redis, "8.6.0", Encoding::Stream4));
        assert!(!reads(Redis, "8.4.0", Encoding::Stream4));
        assert!(!reads(Valkey, "9.1.0", Encoding::Stream4));
        assert!(!reads(Valkey, "9.2.0", Encoding::RedisHashTtl));
        assert!(reads(Valkey, "9.0.0", Encoding::ValkeyHashTtl));
        assert!(!reads(Valkey, "8.1.0", Encoding::ValkeyHashTtl));
        assert!(reads(Valkey, "9.0.0", Encoding::Stream3));
        assert!(reads(Redis, "5.0.0", Encoding::Stream1));
        assert!(!reads(Redis, "5.0.0", Encoding::Stream2));
        // A reference stands for nothing outside its file.
        assert!(!reads(Redis, "8.10.0", Encoding::RedisTemplateTableRef));
    }

    #[test]
    fn rows_of_a_family_go_up() {
        for pair in RELEASES
            .windows(2)
            .filter(|pair| pair[0].family == pair[1].family)
        {
            assert!(pair[0].since < pair[1].since);
            assert!(pair[0].rdb_version <= pair[1].rdb_version);
        }
        for row in RELEASES {
            assert!(
                row.footers
                    .iter()
                    .any(|range| range.contains(&row.rdb_version))
            );
        }
    }
}
