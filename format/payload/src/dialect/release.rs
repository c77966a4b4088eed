//! The versions that changed something that matters here.

use std::ops::RangeInclusive;

use super::Family::{self, Redis, Valkey};
use super::{Version, opcode};

/// First RDB version that Valkey counts for itself. 12 to 79 are left to Redis (rdb.h).
pub const VALKEY_MIN: u16 = 80;

/// How well a row is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Proof {
    /// The tests run this server, of this version.
    Tested(&'static str),
    /// The rules of the versions on either side hold, and those are tested.
    Between,
    /// Read in published sources of the server or of programs that read its files. No server of this
    /// version was there to ask.
    FromSources,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Whose.
    pub family: Family,
    /// The first version that it holds for. It holds up to the next row.
    pub since: Version,
    /// What it writes into files and footers (rdb.h, RDB_VERSION).
    pub rdb_version: u16,
    /// RDB versions of footers that RESTORE takes.
    pub footers: &'static [RangeInclusive<u16>],
    /// How well this is known.
    pub proof: Proof,
}

impl Release {
    /// `Redis 8.6`.
    pub fn title(&self) -> String {
        let family = match self.family {
            Family::Redis => "Redis",
            Family::Valkey => "Valkey",
            Family::Other => "other",
        };
        format!("{family} {}", self.since)
    }

    /// Of the last row of a family, the last minor version that is known.
    pub(super) fn last_minor(&self) -> Version {
        self.since.minor_only()
    }
}

const fn row(
    family: Family,
    (major, minor): (u16, u16),
    rdb_version: u16,
    footers: &'static [RangeInclusive<u16>],
    proof: Proof,
) -> Release {
    Release {
        family,
        since: Version::new(major, minor, 0),
        rdb_version,
        footers,
        proof,
    }
}

/// The table. Rows of a family lie together, lowest first.
pub static RELEASES: &[Release] = &[
    row(Redis, (2, 4), 2, &[0..=2], Proof::FromSources),
    row(Redis, (2, 6), 6, &[0..=6], Proof::FromSources),
    row(Redis, (2, 8), 6, &[0..=6], Proof::Tested("2.8.17")),
    row(Redis, (3, 0), 6, &[0..=6], Proof::Between),
    row(Redis, (3, 2), 7, &[0..=7], Proof::Tested("3.2.6")),
    row(Redis, (4, 0), 8, &[0..=8], Proof::FromSources),
    row(Redis, (5, 0), 9, &[0..=9], Proof::Tested("5.0.6")),
    row(Redis, (6, 0), 9, &[0..=9], Proof::Tested("6.0.16")),
    row(Redis, (6, 2), 9, &[0..=9], Proof::Tested("6.2.14")),
    row(Redis, (7, 0), 10, &[0..=10], Proof::Tested("7.0.15")),
    row(Redis, (7, 2), 11, &[0..=11], Proof::Between),
    row(Redis, (7, 4), 12, &[0..=12], Proof::Tested("7.4.1")),
    row(Redis, (8, 0), 12, &[0..=12], Proof::Tested("8.0.2")),
    // Vector sets are laid out in another way, under the same name.
    row(Redis, (8, 2), 12, &[0..=12], Proof::Tested("8.2.3")),
    row(Redis, (8, 6), 13, &[0..=13], Proof::Tested("8.6.3")),
    row(Redis, (8, 8), 14, &[0..=14], Proof::FromSources),
    row(Redis, (8, 10), 15, &[0..=15], Proof::FromSources),
    row(Valkey, (7, 2), 11, &[0..=11], Proof::Between),
    row(Valkey, (8, 0), 11, &[0..=11], Proof::Tested("8.1.1")),
    row(
        Valkey,
        (9, 0),
        80,
        &[1..=11, 80..=80],
        Proof::Tested("9.0.0"),
    ),
    // Listpacks say lengths backwards in another way.
    row(
        Valkey,
        (9, 1),
        80,
        &[1..=11, 80..=80],
        Proof::Tested("9.1.2"),
    ),
    row(Valkey, (9, 2), 81, &[1..=11, 80..=81], Proof::FromSources),
];

/// The highest RDB version of a family that is known.
pub fn newest_rdb_version(family: Family) -> u16 {
    let rows = RELEASES.iter().filter(|row| row.family == family);
    let count_for_themselves =
        rows.filter(|row| (family == Family::Valkey) == (row.rdb_version >= VALKEY_MIN));
    count_for_themselves
        .map(|row| row.rdb_version)
        .max()
        .unwrap_or(0)
}

/// The version that a replica may name to a server of Valkey: that server's own, but none that
/// brings snapshots with [`Opcode::Update`](super::Opcode::Update). A snapshot without those commands
/// is wrong data, and carrying them out takes a server. The server writes what the named version
/// reads, and breaks off at a key that it cannot write so (replication.c, `REPLCONF version`).
pub fn version_to_name_to_valkey(server: Version) -> Version {
    let without_updates = RELEASES
        .iter()
        .filter(|row| row.family == Family::Valkey && row.rdb_version < opcode::UPDATE_SINCE);
    let is_below = RELEASES
        .iter()
        .find(|row| row.family == Family::Valkey && row.rdb_version >= opcode::UPDATE_SINCE)
        .is_none_or(|row| server < row.since);
    match is_below {
        true => server,
        false => without_updates.map(|row| row.since).max().unwrap_or(server),
    }
}

/// The oldest release that writes this RDB version, of the family that counts it.
pub fn oldest_with_rdb_version(rdb_version: u16) -> Option<&'static Release> {
    let family = family_of_rdb_version(rdb_version);
    RELEASES
        .iter()
        .find(|row| row.family == family && row.rdb_version == rdb_version)
}

/// Which family counts this RDB version.
pub fn family_of_rdb_version(rdb_version: u16) -> Family {
    match rdb_version >= VALKEY_MIN {
        true => Family::Valkey,
        false => Family::Redis,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_replica_claims_to_read_updates() {
        let named = |text| version_to_name_to_valkey(Version::parse(text));
        for below in ["7.2.4", "8.1.1", "9.0.0", "9.1.2"] {
            assert_eq!(named(below), Version::parse(below));
        }
        for above in ["9.2.0", "9.2.3", "9.10.0", "10.0.0"] {
            assert_eq!(named(above), Version::new(9, 1, 0), "{above}");
        }
    }
}
