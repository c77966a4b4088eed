//! For which server an RDB file is written: that decides its version and which types it may hold.

use super::magic::Magic;
use crate::dialect::{
    Dialect, Family, Feature, Proof, RELEASES, Release, Version, newest_rdb_version,
    oldest_with_rdb_version,
};
use crate::payload::accept::Accepts;

/// The reader of an RDB file that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RdbTarget {
    /// Magic and version.
    pub magic: Magic,
    /// What such a server reads.
    pub accepts: Accepts,
    /// Its version, for the file's own field.
    pub server_version: String,
    /// Whether it has vector sets (Redis from 8.0 on).
    pub has_vector_sets: bool,
}

impl RdbTarget {
    /// A server of this family and version; `None` before 4.0, and where the family is unknown.
    pub fn server(family: Family, version: Version) -> Option<Self> {
        if family == Family::Other {
            return None;
        }
        let dialect = Dialect::of(family, version);
        let accepts = Accepts::of_server(dialect)?;
        // A newer server reads what the newest version known here has.
        let highest = accepts.versions.highest()?;
        Some(Self {
            magic: Magic::of(highest),
            accepts,
            server_version: version.full(),
            has_vector_sets: dialect.has(Feature::VectorSets),
        })
    }

    /// Reads `redis-7.2`, `valkey-8.1`.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, version) = text.split_once('-')?;
        let family = match name {
            "redis" => Family::Redis,
            "valkey" => Family::Valkey,
            _ => return None,
        };
        let is_version = version
            .split('.')
            .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
        is_version.then(|| Self::server(family, Version::parse(version)))?
    }

    /// The oldest server that reads this RDB version; `None` for versions that are not written.
    pub fn rdb_version(rdb_version: u16) -> Option<Self> {
        if !Magic::of(rdb_version).is_readable() {
            return None;
        }
        let oldest = oldest_with_rdb_version(rdb_version)?;
        Self::server(oldest.family, oldest.since)
    }

    /// The RDB versions that are written, for people: `8 to 15, or 80 to 81 for Valkey`.
    pub fn versions() -> String {
        let redis = || RELEASES.iter().filter(|row| row.family == Family::Redis);
        let oldest = redis().find(|row| Self::server(row.family, row.since).is_some());
        let of_valkey = |row: &&Release| Magic::of(row.rdb_version).family == Family::Valkey;
        let first_own = RELEASES.iter().find(of_valkey);
        let number = |row: Option<&Release>| row.map_or(0, |row| row.rdb_version);
        format!(
            "{} to {}, or {} to {} for Valkey",
            number(oldest),
            newest_rdb_version(Family::Redis),
            number(first_own),
            newest_rdb_version(Family::Valkey)
        )
    }

    /// Whether the tests have a server of this kind, or a later one that reads the same, load what is
    /// written for it. The others were read about.
    pub fn is_proven(&self) -> bool {
        let Magic { family, version } = self.magic;
        RELEASES.iter().any(|row| {
            let is_tested = matches!(row.proof, Proof::Tested(_));
            row.family == family && row.rdb_version >= version && is_tested
        })
    }

    /// The name of its family, for people.
    pub fn family_name(&self) -> &'static str {
        match self.accepts.family {
            Family::Valkey => "Valkey",
            _ => "Redis",
        }
    }

    /// The name of its field for the server's version (rdb.c, rdbSaveInfoAuxFields).
    pub fn version_field(&self) -> &'static str {
        match self.accepts.family {
            Family::Valkey => "valkey-ver",
            _ => "redis-ver",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_the_versions_they_read() {
        for (text, magic) in [
            ("redis-4.0", b"REDIS0008"),
            ("redis-6.2.14", b"REDIS0009"),
            ("redis-7.0", b"REDIS0010"),
            ("redis-7.2", b"REDIS0011"),
            ("redis-8", b"REDIS0012"),
            ("redis-8.4", b"REDIS0012"),
            ("redis-8.6", b"REDIS0013"),
            ("redis-8.8", b"REDIS0014"),
            ("redis-8.10", b"REDIS0015"),
            ("redis-9.9", b"REDIS0015"),
            ("valkey-7.2", b"REDIS0011"),
            ("valkey-8.1.1", b"REDIS0011"),
            ("valkey-9.0", b"VALKEY080"),
            ("valkey-9.1", b"VALKEY080"),
            ("valkey-9.2", b"VALKEY081"),
            ("valkey-9.9", b"VALKEY081"),
        ] {
            let target = RdbTarget::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(target.magic.bytes(), magic, "{text}");
            assert!(text.contains(target.server_version.trim_end_matches(".0")));
        }
        for bad in [
            "",
            "redis",
            "redis-",
            "redis-3.2",
            "redis-7.x",
            "keydb-6.3",
            "7.2",
            "redis-7.",
        ] {
            assert_eq!(RdbTarget::parse(bad), None, "{bad}");
        }
        for version in [8, 9, 10, 11, 12, 13, 14, 15, 80, 81] {
            let target = RdbTarget::rdb_version(version).unwrap();
            assert_eq!(target.magic.version, version);
        }
        for version in [0, 6, 7, 16, 79, 82] {
            assert_eq!(RdbTarget::rdb_version(version), None);
        }
        for (version, proven) in [(8, true), (13, true), (14, false), (80, true), (81, false)] {
            let target = RdbTarget::rdb_version(version).unwrap();
            assert_eq!(target.is_proven(), proven, "{version}");
        }
        assert_eq!(RdbTarget::versions(), "8 to 15, or 80 to 81 for Valkey");
    }
}
