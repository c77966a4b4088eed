//! What each version of Redis and Valkey has, as rows of data.

/// Who makes the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Redis.
    Redis,
    /// Valkey.
    Valkey,
}

/// Something that came with a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Since {
    /// Every version that is modelled has it.
    Always,
    /// Redis 6.0: HELLO, ACL, CLIENT TRACKING.
    R60,
    /// Redis 6.2: GETEX, COPY, CLIENT PAUSE WRITE, SET PXAT.
    R62,
    /// Redis 7.0: PEXPIRETIME, FUNCTION, CLUSTER SHARDS.
    R70,
    /// Redis 7.2 and all Valkey: CLIENT NO-TOUCH, WAITAOF.
    R72,
    /// Redis 7.4: HPEXPIRE. Valkey 9.0.
    FieldTtl,
    /// Redis 8.0 and Valkey 9.1: HGETEX, HSETEX.
    FieldSetTtl,
    /// Redis 8.6: streams with idempotency.
    R86,
    /// Redis 8.2 only, not Valkey: XACKDEL, XDELEX.
    R82,
    /// Valkey 9.1: ACL by database.
    V91,
}

/// A version of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// As the directory of its binaries is called, such as `redis-6.2`.
    pub name: &'static str,
    /// Who makes it.
    pub family: Family,
    /// Its version.
    pub version: (u16, u16, u16),
    /// The RDB version that it writes.
    pub rdb: u16,
    /// Its place among all.
    pub(super) index: usize,
}

const fn redis(index: usize, name: &'static str, version: (u16, u16, u16), rdb: u16) -> Release {
    Release {
        name,
        family: Family::Redis,
        version,
        rdb,
        index,
    }
}

const fn valkey(index: usize, name: &'static str, version: (u16, u16, u16), rdb: u16) -> Release {
    Release {
        name,
        family: Family::Valkey,
        version,
        rdb,
        index,
    }
}

/// The versions that are modelled.
pub static RELEASES: &[Release] = &[
    redis(0, "redis-5.0", (5, 0, 6), 9),
    redis(1, "redis-6.0", (6, 0, 16), 9),
    redis(2, "redis-6.2", (6, 2, 14), 9),
    redis(3, "redis-7.0", (7, 0, 15), 10),
    redis(4, "stack-7.4", (7, 4, 1), 12),
    redis(5, "redis-8.0", (8, 0, 2), 12),
    redis(6, "redis-8.2", (8, 2, 3), 12),
    redis(7, "redis-8.6", (8, 6, 3), 13),
    valkey(8, "valkey-8.1", (8, 1, 1), 11),
    valkey(9, "valkey-9.1", (9, 1, 2), 80),
];

impl Release {
    /// The version of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        RELEASES.iter().find(|release| release.name == name)
    }

    /// Whether it has what came with `since`.
    pub fn has(&self, since: Since) -> bool {
        match since {
            Since::Always => true,
            Since::R60 => self.at_least((6, 0), (0, 0)),
            Since::R62 => self.at_least((6, 2), (0, 0)),
            Since::R70 => self.at_least((7, 0), (0, 0)),
            Since::R72 => self.at_least((7, 2), (0, 0)),
            Since::FieldTtl => self.at_least((7, 4), (9, 0)),
            Since::FieldSetTtl => self.at_least((8, 0), (9, 0)),
            Since::R82 => self.at_least((8, 2), NEVER),
            Since::R86 => self.at_least((8, 6), NEVER),
            Since::V91 => self.at_least(NEVER, (9, 1)),
        }
    }

    /// Whether its version is at least the one given for its family.
    pub fn at_least(&self, redis: (u16, u16), valkey: (u16, u16)) -> bool {
        let (major, minor, _) = self.version;
        let least = match self.family {
            Family::Redis => redis,
            Family::Valkey => valkey,
        };
        (major, minor) >= least
    }

    /// Whether it is a Valkey.
    pub fn is_valkey(&self) -> bool {
        self.family == Family::Valkey
    }

    /// Whether RESTORE takes a footer of this RDB version.
    pub fn accepts_footer(&self, rdb: u16) -> bool {
        match self.family {
            Family::Valkey if self.rdb >= 80 => {
                (1..=11).contains(&rdb) || (80..=self.rdb).contains(&rdb)
            }
            _ => rdb <= self.rdb,
        }
    }

    /// Whether a cluster node keeps a table of keys for each slot, and cursors carry the slot.
    pub fn has_table_per_slot(&self) -> bool {
        self.at_least((7, 4), (8, 0))
    }

    /// Whether MULTI queues commands that need no memory when memory is full.
    pub fn queues_when_full(&self) -> bool {
        self.at_least((7, 4), (0, 0))
    }

    /// The version as text, such as `7.0.15`.
    pub fn version_text(&self) -> String {
        let (major, minor, patch) = self.version;
        format!("{major}.{minor}.{patch}")
    }
}

const NEVER: (u16, u16) = (u16::MAX, 0);
