//! The RDB type bytes (rdb.h), and what they mean in which family.

use super::{Family, Release, oldest_with_rdb_version};

/// How a value is laid out. Up to 21 the type bytes mean the same everywhere; from there on Redis
/// and Valkey count for themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// 0: one string.
    String,
    /// 1: elements.
    List,
    /// 2: members.
    Set,
    /// 3: members with scores as text.
    ZSetText,
    /// 4: fields and values.
    Hash,
    /// 5 (4.0): members with scores as eight bytes.
    ZSet,
    /// 7 (4.0): items that only the module understands, each of a known length.
    Module,
    /// 9: a zipmap.
    HashZipmap,
    /// 10: a ziplist.
    ListZiplist,
    /// 11: an intset.
    SetIntset,
    /// 12: a ziplist of members and scores.
    ZSetZiplist,
    /// 13: a ziplist of fields and values.
    HashZiplist,
    /// 14 (3.2): ziplists.
    ListQuicklist,
    /// 15 (5.0): listpacks of entries, last id, groups.
    Stream1,
    /// 16 (7.0): a listpack of fields and values.
    HashListpack,
    /// 17 (7.0): a listpack of members and scores.
    ZSetListpack,
    /// 18 (7.0): listpacks and plain elements.
    ListQuicklist2,
    /// 19 (7.0): as 15, with first id, highest deleted id, entries added and entries read.
    Stream2,
    /// 20 (7.2): a listpack of members.
    SetListpack,
    /// 21 (7.2): as 19, with the consumers' active times.
    Stream3,
    /// 22 of Redis: absolute expiry, field, value. Only release candidates of 7.4 wrote it.
    RedisHashTtlRc,
    /// 23 of Redis: a listpack of field, value, absolute expiry. Release candidates of 7.4.
    RedisHashListpackTtlRc,
    /// 24 of Redis (7.4): lowest expiry, then expiry relative to it, field, value.
    RedisHashTtl,
    /// 25 of Redis (7.4): lowest expiry, then a listpack of field, value, absolute expiry.
    RedisHashListpackTtl,
    /// 22 of Valkey (9.0): field, value, absolute expiry.
    ValkeyHashTtl,
    /// 26 of Redis (8.6): as 21, with the idempotency state of XADD IDMP.
    Stream4,
    /// 27 of Redis (8.8): as 26, with the entries of each group that XNACK gave back.
    Stream5,
    /// 28 of Redis (8.8): indexes and values of a sparse array.
    RedisArray,
    /// 29 of Redis (8.10): names of fields, then a listpack of values.
    RedisTemplateListpack,
    /// 30 of Redis (8.10), in files only: a listpack of a template's number and values.
    RedisTemplateListpackRef,
    /// 31 of Redis (8.10): names of fields, then values.
    RedisTemplateTable,
    /// 32 of Redis (8.10), in files only: a template's number, then values.
    RedisTemplateTableRef,
    /// 23 of Valkey (9.2): paths, each with fields and values.
    ValkeyPathHash,
}

impl Encoding {
    /// All of them, by type byte.
    pub const ALL: &[Self] = &[
        Self::String,
        Self::List,
        Self::Set,
        Self::ZSetText,
        Self::Hash,
        Self::ZSet,
        Self::Module,
        Self::HashZipmap,
        Self::ListZiplist,
        Self::SetIntset,
        Self::ZSetZiplist,
        Self::HashZiplist,
        Self::ListQuicklist,
        Self::Stream1,
        Self::HashListpack,
        Self::ZSetListpack,
        Self::ListQuicklist2,
        Self::Stream2,
        Self::SetListpack,
        Self::Stream3,
        Self::RedisHashTtlRc,
        Self::RedisHashListpackTtlRc,
        Self::RedisHashTtl,
        Self::RedisHashListpackTtl,
        Self::ValkeyHashTtl,
        Self::ValkeyPathHash,
        Self::Stream4,
        Self::Stream5,
        Self::RedisArray,
        Self::RedisTemplateListpack,
        Self::RedisTemplateListpackRef,
        Self::RedisTemplateTable,
        Self::RedisTemplateTableRef,
    ];

    /// What a type byte of this family means; nothing where that is unknown.
    pub fn of(family: Family, type_byte: u8) -> Option<Self> {
        Some(match (type_byte, family) {
            (0, _) => Self::String,
            (1, _) => Self::List,
            (2, _) => Self::Set,
            (3, _) => Self::ZSetText,
            (4, _) => Self::Hash,
            (5, _) => Self::ZSet,
            (7, _) => Self::Module,
            (9, _) => Self::HashZipmap,
            (10, _) => Self::ListZiplist,
            (11, _) => Self::SetIntset,
            (12, _) => Self::ZSetZiplist,
            (13, _) => Self::HashZiplist,
            (14, _) => Self::ListQuicklist,
            (15, _) => Self::Stream1,
            (16, _) => Self::HashListpack,
            (17, _) => Self::ZSetListpack,
            (18, _) => Self::ListQuicklist2,
            (19, _) => Self::Stream2,
            (20, _) => Self::SetListpack,
            (21, _) => Self::Stream3,
            (22, Family::Redis) => Self::RedisHashTtlRc,
            (23, Family::Redis) => Self::RedisHashListpackTtlRc,
            (24, Family::Redis) => Self::RedisHashTtl,
            (25, Family::Redis) => Self::RedisHashListpackTtl,
            (26, Family::Redis) => Self::Stream4,
            (27, Family::Redis) => Self::Stream5,
            (28, Family::Redis) => Self::RedisArray,
            (29, Family::Redis) => Self::RedisTemplateListpack,
            (30, Family::Redis) => Self::RedisTemplateListpackRef,
            (31, Family::Redis) => Self::RedisTemplateTable,
            (32, Family::Redis) => Self::RedisTemplateTableRef,
            (22, Family::Valkey) => Self::ValkeyHashTtl,
            (23, Family::Valkey) => Self::ValkeyPathHash,
            _ => return None,
        })
    }

    /// The type byte.
    pub fn type_byte(self) -> u8 {
        match self {
            Self::String => 0,
            Self::List => 1,
            Self::Set => 2,
            Self::ZSetText => 3,
            Self::Hash => 4,
            Self::ZSet => 5,
            Self::Module => 7,
            Self::HashZipmap => 9,
            Self::ListZiplist => 10,
            Self::SetIntset => 11,
            Self::ZSetZiplist => 12,
            Self::HashZiplist => 13,
            Self::ListQuicklist => 14,
            Self::Stream1 => 15,
            Self::HashListpack => 16,
            Self::ZSetListpack => 17,
            Self::ListQuicklist2 => 18,
            Self::Stream2 => 19,
            Self::SetListpack => 20,
            Self::Stream3 => 21,
            Self::RedisHashTtlRc | Self::ValkeyHashTtl => 22,
            Self::RedisHashListpackTtlRc | Self::ValkeyPathHash => 23,
            Self::RedisHashTtl => 24,
            Self::RedisHashListpackTtl => 25,
            Self::Stream4 => 26,
            Self::Stream5 => 27,
            Self::RedisArray => 28,
            Self::RedisTemplateListpack => 29,
            Self::RedisTemplateListpackRef => 30,
            Self::RedisTemplateTable => 31,
            Self::RedisTemplateTableRef => 32,
        }
    }

    /// The RDB version that brought it.
    pub fn since(self) -> u16 {
        match self {
            Self::String | Self::List | Self::Set | Self::ZSetText | Self::Hash => 1,
            Self::HashZipmap | Self::ListZiplist | Self::SetIntset | Self::ZSetZiplist => 2,
            Self::HashZiplist => 4,
            Self::ListQuicklist => 7,
            Self::ZSet | Self::Module => 8,
            Self::Stream1 => 9,
            Self::HashListpack | Self::ZSetListpack | Self::ListQuicklist2 | Self::Stream2 => 10,
            Self::SetListpack | Self::Stream3 => 11,
            Self::RedisHashTtlRc
            | Self::RedisHashListpackTtlRc
            | Self::RedisHashTtl
            | Self::RedisHashListpackTtl => 12,
            Self::Stream4 => 13,
            Self::Stream5 | Self::RedisArray => 14,
            Self::RedisTemplateListpack
            | Self::RedisTemplateListpackRef
            | Self::RedisTemplateTable
            | Self::RedisTemplateTableRef => 15,
            Self::ValkeyHashTtl => 80,
            Self::ValkeyPathHash => 81,
        }
    }

    /// The first server that has it, for people: `Redis 8.8`.
    pub fn brought_by(self) -> String {
        let release = oldest_with_rdb_version(self.since());
        release.map_or_else(String::new, Release::title)
    }

    /// Whose it is alone; `None` for those that mean the same everywhere.
    pub fn family(self) -> Option<Family> {
        match self {
            Self::ValkeyHashTtl | Self::ValkeyPathHash => Some(Family::Valkey),
            _ => (!is_common(self.type_byte())).then_some(Family::Redis),
        }
    }

    /// Whether fields of such a hash can expire by themselves.
    pub(crate) fn has_field_ttls(self) -> bool {
        matches!(
            self,
            Self::RedisHashTtlRc
                | Self::RedisHashListpackTtlRc
                | Self::RedisHashTtl
                | Self::RedisHashListpackTtl
                | Self::ValkeyHashTtl
        )
    }

    /// Whether only release candidates wrote it. Such values are always rewritten.
    pub(crate) fn is_of_release_candidates(self) -> bool {
        matches!(self, Self::RedisHashTtlRc | Self::RedisHashListpackTtlRc)
    }

    /// Whether it can stand in a DUMP payload. A reference needs a template of its file.
    pub(crate) fn in_payloads(self) -> bool {
        !matches!(
            self,
            Self::RedisTemplateListpackRef | Self::RedisTemplateTableRef
        )
    }

    /// Whether a real server of the tests wrote and read it. The others were read about.
    pub fn is_proven(self) -> bool {
        !matches!(
            self,
            Self::Stream5
                | Self::RedisArray
                | Self::RedisTemplateListpack
                | Self::RedisTemplateListpackRef
                | Self::RedisTemplateTable
                | Self::RedisTemplateTableRef
                | Self::ValkeyPathHash
        )
    }

    /// What a value may be rewritten to where this form is not read, best first. What each of them
    /// cannot hold is a loss that is named.
    pub(crate) fn rewritten_to(self) -> &'static [Self] {
        match self.kind() {
            Kind::String => &[Self::String],
            Kind::List => &[Self::List],
            Kind::Set => &[Self::Set],
            Kind::ZSet => &[Self::ZSet],
            Kind::Hash if self.has_field_ttls() => {
                &[Self::RedisHashTtl, Self::ValkeyHashTtl, Self::Hash]
            }
            Kind::Hash => &[Self::Hash],
            Kind::Stream => {
                const DOWN: &[Encoding] = &[
                    Encoding::Stream5,
                    Encoding::Stream4,
                    Encoding::Stream3,
                    Encoding::Stream2,
                    Encoding::Stream1,
                ];
                // None is written higher than it was read.
                let at = DOWN.iter().position(|one| *one == self).unwrap_or(0);
                &DOWN[at..]
            }
            Kind::Array | Kind::PathHash | Kind::Module | Kind::Unknown => &[],
        }
    }

    /// What it is to a user.
    pub fn kind(self) -> Kind {
        match self {
            Self::String => Kind::String,
            Self::List | Self::ListZiplist | Self::ListQuicklist | Self::ListQuicklist2 => {
                Kind::List
            }
            Self::Set | Self::SetIntset | Self::SetListpack => Kind::Set,
            Self::ZSetText | Self::ZSet | Self::ZSetZiplist | Self::ZSetListpack => Kind::ZSet,
            Self::Hash
            | Self::HashZipmap
            | Self::HashZiplist
            | Self::HashListpack
            | Self::RedisHashTtlRc
            | Self::RedisHashListpackTtlRc
            | Self::RedisHashTtl
            | Self::RedisHashListpackTtl
            | Self::RedisTemplateListpack
            | Self::RedisTemplateListpackRef
            | Self::RedisTemplateTable
            | Self::RedisTemplateTableRef
            | Self::ValkeyHashTtl => Kind::Hash,
            Self::Stream1 | Self::Stream2 | Self::Stream3 | Self::Stream4 | Self::Stream5 => {
                Kind::Stream
            }
            Self::RedisArray => Kind::Array,
            Self::ValkeyPathHash => Kind::PathHash,
            Self::Module => Kind::Module,
        }
    }
}

/// What a value is to a user, as TYPE names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A string: also a bitmap, a HyperLogLog.
    String,
    /// A list.
    List,
    /// A set.
    Set,
    /// A sorted set: also geo positions.
    ZSet,
    /// A hash.
    Hash,
    /// A stream.
    Stream,
    /// A sparse array (Redis 8.8).
    Array,
    /// Fields under paths (Valkey 9.2).
    PathHash,
    /// A module's own type; TYPE says its name ([`module_name`](crate::payload::module_name)).
    Module,
    /// A type byte this version knows nothing of.
    Unknown,
}

impl Kind {
    /// The word that TYPE answers; for a module's and an unknown type, one of ours.
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::List => "list",
            Self::Set => "set",
            Self::ZSet => "zset",
            Self::Hash => "hash",
            Self::Stream => "stream",
            Self::Array => "array",
            Self::PathHash => "pathhash",
            Self::Module => "module",
            Self::Unknown => "unknown",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Type byte of a module's value as release candidates of 4.0 wrote it; how it ends only the module
/// knows.
pub const MODULE_PRE_GA: u8 = 6;

/// Whether a type byte means the same in every family, as far as it means anything.
pub const fn is_common(type_byte: u8) -> bool {
    type_byte < 22
}

/// What a value of this type byte is to a user.
pub fn kind_of(family: Family, type_byte: u8) -> Kind {
    match type_byte {
        MODULE_PRE_GA => Kind::Module,
        _ => Encoding::of(family, type_byte).map_or(Kind::Unknown, Encoding::kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_bytes_go_both_ways() {
        for family in [Family::Redis, Family::Valkey, Family::Other] {
            for byte in 0..=255 {
                if let Some(encoding) = Encoding::of(family, byte) {
                    assert_eq!(encoding.type_byte(), byte);
                    assert_eq!(kind_of(family, byte), encoding.kind());
                }
            }
        }
    }

    #[test]
    fn from_22_on_the_family_decides() {
        assert_eq!(
            Encoding::of(Family::Redis, 22),
            Some(Encoding::RedisHashTtlRc)
        );
        assert_eq!(
            Encoding::of(Family::Valkey, 22),
            Some(Encoding::ValkeyHashTtl)
        );
        assert_eq!(Encoding::of(Family::Other, 22), None);
        assert_eq!(Encoding::of(Family::Valkey, 25), None);
        assert_eq!(kind_of(Family::Valkey, 26), Kind::Unknown);
        assert_eq!(kind_of(Family::Redis, 26).name(), "stream");
        assert_eq!(Encoding::RedisArray.brought_by(), "Redis 8.8");
        assert_eq!(Encoding::ValkeyPathHash.brought_by(), "Valkey 9.2");
        for &encoding in Encoding::ALL {
            let family = encoding.family().unwrap_or(Family::Other);
            assert_eq!(Encoding::of(family, encoding.type_byte()), Some(encoding));
        }
    }
}
