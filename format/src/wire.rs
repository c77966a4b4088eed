//! The bodies that are encoded with bincode, and the only place that knows bincode.
//!
//! The encoding is written out in SPEC.md §6, so that this module could be replaced by two hundred
//! lines of our own without a byte changing. Decoding is done only from a slice whose length is
//! known, with that length as limit: bincode reading from a stream believes claimed lengths.
//! The structs here are separate from the domain types because the order of their fields is frozen.

use bincode::Options;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::header::{
    ArchiveOrigin, ConsistencyAsked, ConsistencyReached, DbTotals, End, EndFacts, Expected, Header,
    Mode, Node, SelectionFacts, SourceCounts, SourceFacts, Tool,
};
use crate::record::{Context, Family};

/// Encodes a body.
fn encode<T: Serialize>(body: &T) -> Vec<u8> {
    bincode::DefaultOptions::new()
        .serialize(body)
        .expect("the bodies of this module hold no type that bincode refuses, and memory is no sink that fails")
}

/// Decodes a body from exactly its bytes. Bytes after the last known field belong to a later minor
/// version and are ignored.
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    bincode::DefaultOptions::new()
        .with_limit(bytes.len() as u64)
        .allow_trailing_bytes()
        .deserialize(bytes)
        .map_err(|error| in_plain_words(&error))
}

fn in_plain_words(error: &bincode::ErrorKind) -> String {
    use bincode::ErrorKind;
    match error {
        ErrorKind::Io(_) | ErrorKind::SizeLimit => "it ends inside a field".into(),
        ErrorKind::InvalidUtf8Encoding(_) => "a text is not UTF-8".into(),
        ErrorKind::InvalidBoolEncoding(byte) => format!("{byte:02X} where 00 or 01 was due"),
        ErrorKind::InvalidTagEncoding(tag) => format!("{tag:02X} where 00 or 01 was due"),
        // Numbers that begin with FE or FF or are too large for their field, and unknown variants.
        _ => "a number in it is not a possible one".into(),
    }
}

#[derive(Serialize, Deserialize)]
enum WireFamily {
    Redis,
    Valkey,
    Other,
}

#[derive(Serialize, Deserialize)]
enum WireMode {
    Standalone,
    Cluster,
    Sentinel,
    RdbFile,
}

#[derive(Serialize, Deserialize)]
enum WireAsked {
    Auto,
    Scan,
    Converge,
    Pause,
    Snapshot,
}

#[derive(Serialize, Deserialize)]
enum WireReached {
    Scan { from_ms: u64, to_ms: u64 },
    PerKey { from_ms: u64, to_ms: u64 },
    Exact(Vec<(u32, u64)>),
    Changing { from_ms: u64, to_ms: u64, keys: u64 },
}

#[derive(Serialize, Deserialize)]
enum WireOrigin {
    Export,
    Salvaged { lost: Vec<(u64, u64)> },
    Split { part: u32, of: u32 },
}

#[derive(Serialize, Deserialize)]
struct WireTool {
    name: String,
    version: String,
    git: String,
}

#[derive(Serialize, Deserialize)]
struct WireNode {
    version: String,
    run_id: String,
    rdb_version: u16,
}

#[derive(Serialize, Deserialize)]
struct WireSource {
    family: WireFamily,
    mode: WireMode,
    nodes: Vec<WireNode>,
    label: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct WireExpected {
    db: u32,
    keys: u64,
    expires: u64,
}

#[derive(Serialize, Deserialize)]
struct WireSelection {
    dbs: Vec<u32>,
    matches: Vec<Vec<u8>>,
    excludes: Vec<Vec<u8>>,
    types: Vec<String>,
    other: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct WireHeader {
    tool: WireTool,
    created_ms: u64,
    source_time_ms: u64,
    source: WireSource,
    consistency: WireAsked,
    expected: Vec<WireExpected>,
    selection: WireSelection,
    functions: bool,
    eviction: bool,
    level: i32,
    frame_target_bytes: u32,
    origin: WireOrigin,
    extra: Vec<(String, String)>,
}

#[derive(Serialize, Deserialize)]
struct WireDbTotals {
    db: u32,
    records: u64,
    with_ttl: u64,
    value_bytes: u64,
    key_bytes: u64,
    tombstones: u64,
}

#[derive(Serialize, Deserialize)]
struct WireSourceCounts {
    db: u32,
    scanned: u64,
    reread: u64,
    written: u64,
    superseded: u64,
    filtered: u64,
    vanished: u64,
    failed: u64,
}

#[derive(Serialize, Deserialize)]
struct WireEnd {
    frames: u64,
    records: u64,
    per_db: Vec<WireDbTotals>,
    functions: u64,
    rdb_version_min: u16,
    rdb_version_max: u16,
    reached: WireReached,
    counts: Vec<WireSourceCounts>,
    duplicates_possible: bool,
    started_ms: u64,
    finished_ms: u64,
    sha256: [u8; 32],
}

#[derive(Serialize, Deserialize)]
struct WireContext {
    source_time_ms: u64,
    family: WireFamily,
    rdb_version: u16,
    node: u32,
}

/// ABORT body.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Abort {
    /// The exporter's words.
    pub reason: String,
    /// Records before it.
    pub records: u64,
}

#[derive(Serialize, Deserialize)]
struct WireNote {
    text: String,
}

/// Head of a FRAGMENT body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FragmentHead {
    /// 0, 1, 2 … in its run.
    pub part: u32,
    /// Whether the run ends here.
    pub last: bool,
    /// Length of the joined body; the same in every part.
    pub total_len: u64,
}

/// One frame in an INDEX body; the frames stand in order, from HEADER.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// Frame type byte.
    pub frame_type: u8,
    /// Bytes of payload; the next frame begins 40 + `stored_len` bytes after this one.
    pub stored_len: u32,
    /// Bytes of body.
    pub raw_len: u32,
    /// Records that become complete with this frame.
    pub records: u32,
}

#[derive(Serialize, Deserialize)]
struct WireIndex {
    frames: Vec<IndexEntry>,
}

pub(crate) fn encode_header(header: &Header) -> Vec<u8> {
    encode(&WireHeader::from(header))
}

pub(crate) fn decode_header(bytes: &[u8]) -> Result<Header, String> {
    decode::<WireHeader>(bytes).map(Header::from)
}

pub(crate) fn encode_end(end: &End) -> Vec<u8> {
    encode(&WireEnd::from(end))
}

pub(crate) fn decode_end(bytes: &[u8]) -> Result<End, String> {
    decode::<WireEnd>(bytes).map(End::from)
}

pub(crate) fn encode_context(context: &Context) -> Vec<u8> {
    encode(&WireContext {
        source_time_ms: context.source_time_ms,
        family: context.family.into(),
        rdb_version: context.rdb_version,
        node: context.node,
    })
}

pub(crate) fn decode_context(bytes: &[u8]) -> Result<Context, String> {
    let wire: WireContext = decode(bytes)?;
    Ok(Context {
        source_time_ms: wire.source_time_ms,
        family: wire.family.into(),
        rdb_version: wire.rdb_version,
        node: wire.node,
    })
}

pub(crate) fn encode_abort(abort: &Abort) -> Vec<u8> {
    encode(abort)
}

pub(crate) fn decode_abort(bytes: &[u8]) -> Result<Abort, String> {
    decode(bytes)
}

pub(crate) fn encode_note(text: &str) -> Vec<u8> {
    encode(&WireNote {
        text: text.to_owned(),
    })
}

pub(crate) fn decode_note(bytes: &[u8]) -> Result<String, String> {
    decode::<WireNote>(bytes).map(|note| note.text)
}

pub(crate) fn encode_fragment_head(head: &FragmentHead) -> Vec<u8> {
    encode(head)
}

pub(crate) fn decode_fragment_head(bytes: &[u8]) -> Result<FragmentHead, String> {
    decode(bytes)
}

pub(crate) fn encode_index(frames: Vec<IndexEntry>) -> Vec<u8> {
    encode(&WireIndex { frames })
}

pub(crate) fn decode_index(bytes: &[u8]) -> Result<Vec<IndexEntry>, String> {
    decode::<WireIndex>(bytes).map(|index| index.frames)
}

/// Two enums of the same variants without fields.
macro_rules! same_variants {
    ($wire:ident, $domain:ident, $($variant:ident),+) => {
        impl From<$domain> for $wire {
            fn from(value: $domain) -> Self {
                match value { $($domain::$variant => $wire::$variant),+ }
            }
        }
        impl From<$wire> for $domain {
            fn from(value: $wire) -> Self {
                match value { $($wire::$variant => $domain::$variant),+ }
            }
        }
    };
}

same_variants!(WireFamily, Family, Redis, Valkey, Other);
same_variants!(WireMode, Mode, Standalone, Cluster, Sentinel, RdbFile);
same_variants!(
    WireAsked,
    ConsistencyAsked,
    Auto,
    Scan,
    Converge,
    Pause,
    Snapshot
);

/// Two structs of the same fields, each converted by `into`.
macro_rules! same_fields {
    ($wire:ident, $domain:ident, $($field:ident),+) => {
        impl From<&$domain> for $wire {
            fn from(value: &$domain) -> Self {
                $wire { $($field: value.$field.clone().into()),+ }
            }
        }
        impl From<$wire> for $domain {
            fn from(value: $wire) -> Self {
                $domain { $($field: value.$field.into()),+ }
            }
        }
    };
}

same_fields!(WireTool, Tool, name, version, git);
same_fields!(WireNode, Node, version, run_id, rdb_version);
same_fields!(WireExpected, Expected, db, keys, expires);
same_fields!(
    WireSelection,
    SelectionFacts,
    dbs,
    matches,
    excludes,
    types,
    other
);
same_fields!(
    WireDbTotals,
    DbTotals,
    db,
    records,
    with_ttl,
    value_bytes,
    key_bytes,
    tombstones
);
same_fields!(
    WireSourceCounts,
    SourceCounts,
    db,
    scanned,
    reread,
    written,
    superseded,
    filtered,
    vanished,
    failed
);

fn all<'a, A: 'a, B: From<&'a A>>(list: &'a [A]) -> Vec<B> {
    list.iter().map(B::from).collect()
}

fn into_all<A, B: From<A>>(list: Vec<A>) -> Vec<B> {
    list.into_iter().map(B::from).collect()
}

impl From<&SourceFacts> for WireSource {
    fn from(source: &SourceFacts) -> Self {
        WireSource {
            family: source.family.into(),
            mode: source.mode.into(),
            nodes: all(&source.nodes),
            label: source.label.clone(),
        }
    }
}

impl From<WireSource> for SourceFacts {
    fn from(wire: WireSource) -> Self {
        SourceFacts {
            family: wire.family.into(),
            mode: wire.mode.into(),
            nodes: into_all(wire.nodes),
            label: wire.label,
        }
    }
}

impl From<&ArchiveOrigin> for WireOrigin {
    fn from(origin: &ArchiveOrigin) -> Self {
        match origin {
            ArchiveOrigin::Export => WireOrigin::Export,
            ArchiveOrigin::Salvaged { lost } => WireOrigin::Salvaged { lost: lost.clone() },
            ArchiveOrigin::Split { part, of } => WireOrigin::Split {
                part: *part,
                of: *of,
            },
        }
    }
}

impl From<WireOrigin> for ArchiveOrigin {
    fn from(wire: WireOrigin) -> Self {
        match wire {
            WireOrigin::Export => ArchiveOrigin::Export,
            WireOrigin::Salvaged { lost } => ArchiveOrigin::Salvaged { lost },
            WireOrigin::Split { part, of } => ArchiveOrigin::Split { part, of },
        }
    }
}

impl From<&ConsistencyReached> for WireReached {
    fn from(reached: &ConsistencyReached) -> Self {
        match *reached {
            ConsistencyReached::Scan { from_ms, to_ms } => WireReached::Scan { from_ms, to_ms },
            ConsistencyReached::PerKey { from_ms, to_ms } => WireReached::PerKey { from_ms, to_ms },
            ConsistencyReached::Exact(ref nodes) => WireReached::Exact(nodes.clone()),
            ConsistencyReached::Changing {
                from_ms,
                to_ms,
                keys,
            } => WireReached::Changing {
                from_ms,
                to_ms,
                keys,
            },
        }
    }
}

impl From<WireReached> for ConsistencyReached {
    fn from(wire: WireReached) -> Self {
        match wire {
            WireReached::Scan { from_ms, to_ms } => ConsistencyReached::Scan { from_ms, to_ms },
            WireReached::PerKey { from_ms, to_ms } => ConsistencyReached::PerKey { from_ms, to_ms },
            WireReached::Exact(nodes) => ConsistencyReached::Exact(nodes),
            WireReached::Changing {
                from_ms,
                to_ms,
                keys,
            } => ConsistencyReached::Changing {
                from_ms,
                to_ms,
                keys,
            },
        }
    }
}

impl From<&Header> for WireHeader {
    fn from(header: &Header) -> Self {
        WireHeader {
            tool: (&header.tool).into(),
            created_ms: header.created_ms,
            source_time_ms: header.source_time_ms,
            source: (&header.source).into(),
            consistency: header.consistency.into(),
            expected: all(&header.expected),
            selection: (&header.selection).into(),
            functions: header.functions,
            eviction: header.eviction,
            level: header.level,
            frame_target_bytes: header.frame_target_bytes,
            origin: (&header.origin).into(),
            extra: header.extra.clone(),
        }
    }
}

impl From<WireHeader> for Header {
    fn from(wire: WireHeader) -> Self {
        Header {
            tool: wire.tool.into(),
            created_ms: wire.created_ms,
            source_time_ms: wire.source_time_ms,
            source: wire.source.into(),
            consistency: wire.consistency.into(),
            expected: into_all(wire.expected),
            selection: wire.selection.into(),
            functions: wire.functions,
            eviction: wire.eviction,
            level: wire.level,
            frame_target_bytes: wire.frame_target_bytes,
            origin: wire.origin.into(),
            extra: wire.extra,
        }
    }
}

impl From<&End> for WireEnd {
    fn from(end: &End) -> Self {
        WireEnd {
            frames: end.frames,
            records: end.records,
            per_db: all(&end.per_db),
            functions: end.functions,
            rdb_version_min: end.rdb_versions.0,
            rdb_version_max: end.rdb_versions.1,
            reached: (&end.facts.reached).into(),
            counts: all(&end.facts.counts),
            duplicates_possible: end.facts.duplicates_possible,
            started_ms: end.facts.started_ms,
            finished_ms: end.facts.finished_ms,
            sha256: end.sha256,
        }
    }
}

impl From<WireEnd> for End {
    fn from(wire: WireEnd) -> Self {
        End {
            frames: wire.frames,
            records: wire.records,
            per_db: into_all(wire.per_db),
            functions: wire.functions,
            rdb_versions: (wire.rdb_version_min, wire.rdb_version_max),
            facts: EndFacts {
                reached: wire.reached.into(),
                counts: into_all(wire.counts),
                duplicates_possible: wire.duplicates_possible,
                started_ms: wire.started_ms,
                finished_ms: wire.finished_ms,
            },
            sha256: wire.sha256,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry;
    use crate::record::{Eviction, KeyRecord, Record, Value};

    /// The encoding of SPEC.md §6, by the struct given there.
    #[test]
    fn the_test_vector_of_the_specification() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        enum Variant {
            Unit,
            Number(u16),
        }
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Sample {
            a: u32,
            b: Option<u64>,
            s: String,
            v: Vec<(u32, u64)>,
            k: Vec<u8>,
            e: Variant,
            i: i32,
        }
        let sample = Sample {
            a: 70_000,
            b: Some(1_790_000_000_000),
            s: "héllo".into(),
            v: vec![(0, 250), (15, 251)],
            k: vec![0, 0xFF, 0x0A],
            e: Variant::Number(300),
            i: -2,
        };
        let spec = include_str!("../SPEC.md");
        let hex: String = spec
            .lines()
            .find(|line| line.starts_with("fc7011"))
            .unwrap()
            .split(' ')
            .collect();
        let bytes: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect();
        assert_eq!(encode(&sample), bytes);
        assert_eq!(decode::<Sample>(&bytes), Ok(sample));
        assert_eq!(encode(&Variant::Unit), [0]);
    }

    #[derive(Serialize)]
    struct WireKey {
        db: u32,
        expire_at_ms: Option<u64>,
        idle_s: Option<u64>,
        freq: Option<u8>,
        key: Vec<u8>,
        value: Vec<u8>,
    }

    #[test]
    fn entries_made_by_hand_have_the_bytes_of_bincode() {
        let numbers = [
            0,
            1,
            250,
            251,
            252,
            65_535,
            65_536,
            u64::from(u32::MAX),
            1 << 32,
            u64::MAX,
        ];
        let lengths = [0, 1, 250, 251, 65_535, 65_536];
        let evictions = [
            None,
            Some(Eviction::Freq(0)),
            Some(Eviction::Freq(255)),
            Some(Eviction::IdleSecs(7)),
        ];
        for (n, number) in numbers.into_iter().enumerate() {
            for (m, len) in lengths.into_iter().enumerate() {
                let record = KeyRecord {
                    db: number as u32,
                    key: vec![7; lengths[(n + m) % lengths.len()]],
                    value: Value::Compact(vec![9; len + 1]),
                    expire_at_ms: (n % 3 != 0).then_some(number),
                    eviction: match m {
                        4 => Some(Eviction::IdleSecs(number)),
                        _ => evictions[m % evictions.len()],
                    },
                };
                let body = encode(&WireKey {
                    db: record.db,
                    expire_at_ms: record.expire_at_ms,
                    idle_s: match record.eviction {
                        Some(Eviction::IdleSecs(secs)) => Some(secs),
                        _ => None,
                    },
                    freq: match record.eviction {
                        Some(Eviction::Freq(freq)) => Some(freq),
                        _ => None,
                    },
                    key: record.key.clone(),
                    value: record.value.bytes().to_vec(),
                });
                check_entry(Record::Key(record), entry::KEY, body);
            }
            let key = vec![1; n];
            let tombstone = Record::Deleted {
                db: number as u32,
                key: key.clone(),
            };
            check_entry(tombstone, entry::TOMBSTONE, encode(&(number as u32, key)));
            check_entry(
                Record::Functions(vec![3; n]),
                entry::FUNCTION_LIBRARY,
                encode(&vec![3_u8; n]),
            );
        }
    }

    fn check_entry(record: Record, kind: u8, body: Vec<u8>) {
        let mut ours = Vec::new();
        let tail = entry::put_head(&mut ours, &record);
        ours.extend_from_slice(tail);
        let mut theirs = vec![kind];
        theirs.extend(encode(&(body.len() as u64)));
        theirs.extend(body);
        assert_eq!(ours, theirs, "{record:?}");
        assert_eq!(entry::entry_len(&record), ours.len() as u64);
    }

    #[test]
    fn numbers_made_by_hand_have_the_bytes_of_bincode() {
        for shift in 0..64 {
            for number in [1_u64 << shift, (1 << shift) - 1, (1 << shift) + 250] {
                let mut ours = Vec::new();
                entry::put_varint(&mut ours, number);
                assert_eq!(ours, encode(&number));
                assert_eq!(ours.len(), entry::varint_len(number));
            }
        }
    }

    #[test]
    fn a_claimed_count_costs_no_memory_and_is_refused() {
        for claim in [u64::MAX, 1 << 62, 1 << 33] {
            let mut bytes = vec![0xFD];
            bytes.extend(claim.to_le_bytes());
            assert!(decode_index(&bytes).is_err());
            assert!(decode_note(&bytes).is_err());
        }
    }

    #[test]
    fn fields_of_a_later_version_are_ignored() {
        let context = Context {
            source_time_ms: 5,
            family: Family::Valkey,
            rdb_version: 80,
            node: 3,
        };
        let mut bytes = encode_context(&context);
        bytes.extend(b"more");
        assert_eq!(decode_context(&bytes), Ok(context));
    }
}
