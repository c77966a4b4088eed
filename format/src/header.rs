//! What an archive says of itself: HEADER at its start, END at its end (SPEC.md).
//!
//! These are the domain types; their bytes are the business of the wire module.

use serde::Serialize;

use crate::record::Family;

/// The tool that wrote the archive.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Tool {
    /// Program name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its git hash, or empty.
    pub git: String,
}

/// How a source was laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// One server.
    #[default]
    Standalone,
    /// A cluster.
    Cluster,
    /// A server found through Sentinel.
    Sentinel,
    /// An RDB file.
    RdbFile,
}

/// Facts of one server of the source. No host, user or password: archives travel.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Node {
    /// Server version text, for instance `7.0.15`; empty where it is unknown.
    pub version: String,
    /// run_id of the process; empty where it is unknown.
    pub run_id: String,
    /// RDB version of its DUMP payloads.
    pub rdb_version: u16,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceFacts {
    /// Whose type bytes.
    pub family: Family,
    /// Layout.
    pub mode: Mode,
    /// One entry for each server; the index is `Context::node`.
    pub nodes: Vec<Node>,
    /// A free label of the user's.
    pub label: Option<String>,
}

/// The consistency that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConsistencyAsked {
    /// Whatever can be had without pausing writes.
    Auto,
    /// A plain SCAN.
    #[default]
    Scan,
    /// Re-read changed keys until a round is exact.
    Converge,
    /// The last round under CLIENT PAUSE.
    Pause,
    /// A snapshot: replication stream or RDB file.
    Snapshot,
}

/// The consistency that was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsistencyReached {
    /// Keys were read one after the other between two moments (Unix ms, server time); each key is
    /// right for some moment of the window.
    Scan {
        /// Start of the window.
        from_ms: u64,
        /// End of the window.
        to_ms: u64,
    },
    /// As `Scan`, and every key that changed in the window was read again at least once.
    PerKey {
        /// Start of the window.
        from_ms: u64,
        /// End of the window.
        to_ms: u64,
    },
    /// The archive equals the source at one instant of each node: (node, server time in ms).
    Exact(Vec<(u32, u64)>),
    /// Some keys were still changing at the end of the window.
    Changing {
        /// Start of the window.
        from_ms: u64,
        /// End of the window.
        to_ms: u64,
        /// How many keys.
        keys: u64,
    },
}

/// Estimate for progress only: what INFO keyspace said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Expected {
    /// Database.
    pub db: u32,
    /// Keys in it.
    pub keys: u64,
    /// Of those, keys with expiry.
    pub expires: u64,
}

/// What was left out on purpose. Empty lists mean everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SelectionFacts {
    /// Databases.
    pub dbs: Vec<u32>,
    /// `--match` globs, as bytes.
    pub matches: Vec<Vec<u8>>,
    /// `--exclude` globs, as bytes.
    pub excludes: Vec<Vec<u8>>,
    /// Type names.
    pub types: Vec<String>,
    /// Every other restriction, one readable line each (sizes, TTL).
    pub other: Vec<String>,
}

/// How the archive came to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ArchiveOrigin {
    /// By an export.
    #[default]
    Export,
    /// Rescued from a damaged one; what was lost as (first byte, byte count) ranges of it.
    Salvaged {
        /// Lost byte ranges.
        lost: Vec<(u64, u64)>,
    },
    /// One part of several.
    Split {
        /// This part, from 1.
        part: u32,
        /// All parts.
        of: u32,
    },
}

/// HEADER body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header {
    /// Writer.
    pub tool: Tool,
    /// Clock of the exporting machine, Unix ms.
    pub created_ms: u64,
    /// Server time of the source at the start, Unix ms.
    pub source_time_ms: u64,
    /// What was read.
    pub source: SourceFacts,
    /// Consistency asked.
    pub consistency: ConsistencyAsked,
    /// Estimates.
    pub expected: Vec<Expected>,
    /// What was left out.
    pub selection: SelectionFacts,
    /// Whether function libraries were asked for.
    pub functions: bool,
    /// Whether idle times or frequencies were asked for.
    pub eviction: bool,
    /// zstd level; 0 for stored frames.
    pub level: i32,
    /// Raw bytes at which a frame is closed.
    pub frame_target_bytes: u32,
    /// Origin.
    pub origin: ArchiveOrigin,
    /// Anything else.
    pub extra: Vec<(String, String)>,
}

/// Counts of one database that the reader can check by counting records itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct DbTotals {
    /// Database.
    pub db: u32,
    /// KEY records.
    pub records: u64,
    /// Of those, with expiry.
    pub with_ttl: u64,
    /// Bytes of their values as stored in the entries.
    pub value_bytes: u64,
    /// Bytes of their keys.
    pub key_bytes: u64,
    /// TOMBSTONE records.
    pub tombstones: u64,
}

/// Counts of one database that only the exporter knows. They reconcile:
/// `scanned + reread = written + superseded + filtered + vanished + failed`,
/// `written` being the KEY and TOMBSTONE records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct SourceCounts {
    /// Database.
    pub db: u32,
    /// Names returned by SCAN (or keys of a snapshot).
    pub scanned: u64,
    /// Names read again.
    pub reread: u64,
    /// Records written.
    pub written: u64,
    /// Names dropped because a later read of the same key took their place before they were written.
    pub superseded: u64,
    /// Left out by the selection.
    pub filtered: u64,
    /// Gone between SCAN and DUMP.
    pub vanished: u64,
    /// Refused by the server, journalled by name.
    pub failed: u64,
}

/// What the exporter tells the writer at the end; the writer adds the totals and the digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndFacts {
    /// Consistency reached.
    pub reached: ConsistencyReached,
    /// The exporter's counts, by database.
    pub counts: Vec<SourceCounts>,
    /// Whether the same key may stand in the archive more than once.
    pub duplicates_possible: bool,
    /// Clock of the exporting machine at the start and the end, Unix ms.
    pub started_ms: u64,
    /// See `started_ms`.
    pub finished_ms: u64,
}

impl EndFacts {
    /// Facts that say what was reached and leave everything else open.
    pub fn new(reached: ConsistencyReached) -> Self {
        EndFacts {
            reached,
            counts: Vec::new(),
            duplicates_possible: true,
            started_ms: 0,
            finished_ms: 0,
        }
    }
}

impl SourceCounts {
    /// Whether everything that was read is accounted for.
    pub fn reconciles(&self) -> bool {
        let read = u128::from(self.scanned) + u128::from(self.reread);
        let told = [
            self.written,
            self.superseded,
            self.filtered,
            self.vanished,
            self.failed,
        ];
        read == told.iter().map(|count| u128::from(*count)).sum()
    }
}

/// END body. `frames` to `rdb_versions` and `sha256` can be recomputed by a reader, and are; of
/// `facts` only the databases and `written` of `counts` can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Frames before END, HEADER and INDEX included.
    pub frames: u64,
    /// KEY, TOMBSTONE and FUNCTION_LIBRARY entries.
    pub records: u64,
    /// By database, ascending.
    pub per_db: Vec<DbTotals>,
    /// FUNCTION_LIBRARY entries.
    pub functions: u64,
    /// Smallest and largest RDB version of any CONTEXT; (0, 0) without one.
    pub rdb_versions: (u16, u16),
    /// The exporter's facts.
    pub facts: EndFacts,
    /// SHA-256 of every byte before the END frame's header.
    pub sha256: [u8; 32],
    /// What the source may hold beyond single keys and the archive has not, a line each. These stand
    /// in NOTE frames before END, and are anybody's text: escape them before showing them.
    pub lacks: Vec<String>,
    /// What the source holds outside keys, an object of JSON each, from NOTE frames as well.
    pub outside: Vec<String>,
}
