//! Commands and options, and the version that brought each.

use super::{Family, Version};

/// A command, an option or something that a server keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Feature {
    /// SCAN.
    Scan,
    /// UNLINK.
    Unlink,
    /// SWAPDB.
    SwapDatabases,
    /// HSET of several fields. Before, HMSET does that.
    SetManyFields,
    /// Streams.
    Streams,
    /// `RESTORE … ABSTTL`, IDLETIME and FREQ.
    RestoreAbsoluteTtl,
    /// HELLO, ACL and CLIENT TRACKING.
    Hello,
    /// RESTORE refuses a value of a module that is not loaded. Before, the server exits.
    RefusesModules,
    /// SWAPDB counts as a change of the keys that are watched (multi.c, touchAllWatchedKeysInDb).
    WatchSeesSwaps,
    /// `SET … PXAT`.
    SetAbsoluteTtl,
    /// `XGROUP CREATECONSUMER`. Without it a consumer is created by having it read what is
    /// pending for it, which is nothing; such a server tells that to its replicas only when
    /// the consumer gets an entry.
    CreateConsumer,
    /// PEXPIRETIME.
    ExpireTime,
    /// Function libraries.
    Functions,
    /// `XSETID … ENTRIESADDED … MAXDELETEDID` and `XGROUP CREATE … ENTRIESREAD`.
    StreamMetadata,
    /// HPEXPIREAT and the expiry of hash fields.
    FieldTtl,
    /// Vector sets.
    VectorSets,
    /// Vector sets whose nodes say the version of their layout. A server that has vector sets and
    /// not this one stands still for seconds when it is given such a value.
    VersionedVectorNodes,
    /// XADD IDMP, XCFGSET and the idempotency state of streams.
    StreamIdempotency,
    /// XIDMPRECORD.
    RecordIdempotency,
    /// Metadata of modules beside a value (opcode F3 before the type byte).
    KeyMetadata,
    /// ACL rules that name databases (`alldbs`, `resetdbs`, `db=0,1`; acl.c).
    DatabaseRules,
    /// Listpacks that say lengths backwards in as few bytes as it takes (listpack.c,
    /// lpEncodeBacklen).
    ExactBackLengths,
}

impl Feature {
    /// Its version in Redis and in Valkey, each if it has it. All versions of Valkey have what Redis
    /// had up to 7.2.
    const fn versions(self) -> (Option<Version>, Option<Version>) {
        const fn at(major: u16, minor: u16, patch: u16) -> Option<Version> {
            Some(Version::new(major, minor, patch))
        }
        const VALKEY: Option<Version> = at(7, 2, 0);
        match self {
            Self::Scan => (at(2, 8, 0), VALKEY),
            Self::Unlink => (at(4, 0, 0), VALKEY),
            Self::SwapDatabases => (at(4, 0, 0), VALKEY),
            Self::SetManyFields => (at(4, 0, 0), VALKEY),
            Self::Streams => (at(5, 0, 0), VALKEY),
            Self::RestoreAbsoluteTtl => (at(5, 0, 0), VALKEY),
            Self::Hello => (at(6, 0, 0), VALKEY),
            Self::WatchSeesSwaps => (at(6, 0, 10), VALKEY),
            Self::RefusesModules => (at(6, 2, 0), VALKEY),
            Self::SetAbsoluteTtl => (at(6, 2, 0), VALKEY),
            Self::CreateConsumer => (at(6, 2, 0), VALKEY),
            Self::ExpireTime => (at(7, 0, 0), VALKEY),
            Self::Functions => (at(7, 0, 0), VALKEY),
            Self::StreamMetadata => (at(7, 0, 0), VALKEY),
            Self::FieldTtl => (at(7, 4, 0), at(9, 0, 0)),
            Self::VectorSets => (at(8, 0, 0), None),
            Self::VersionedVectorNodes => (at(8, 2, 0), None),
            Self::StreamIdempotency => (at(8, 6, 0), None),
            Self::RecordIdempotency => (at(8, 6, 2), None),
            Self::KeyMetadata => (at(8, 6, 0), None),
            Self::DatabaseRules => (None, at(9, 1, 0)),
            Self::ExactBackLengths => (None, at(9, 1, 0)),
        }
    }

    /// The first version that has it; `None` where no version does, or nothing is known.
    pub const fn since(self, family: Family) -> Option<Version> {
        let (redis, valkey) = self.versions();
        match family {
            Family::Redis => redis,
            Family::Valkey => valkey,
            Family::Other => None,
        }
    }
}
