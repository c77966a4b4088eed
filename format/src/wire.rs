//! The bodies that are encoded with bincode, and the only place that knows bincode.
//!
//! The encoding is written out in SPEC.md §6, so that this module could be replaced by two hundred
//! lines of our own without a byte changing. Decoding is done only from a slice whose length is
//! known, with that length as limit: bincode reading from a stream believes claimed lengths.
//! The structs here are separate from the domain types because the order of their fields is frozen.

use bincode::Options;
use serde::{Deserialize, Deserializer, Serialize, de, de::DeserializeOwned};

use crate::entry::{Cursor, EntryError};
use crate::header::{ArchiveOrigin, ConsistencyReached, End, Header};
use crate::limits::{MAX_DATABASES, MAX_LOST_RANGES, MAX_NODES, MAX_TEXTS};
use crate::module_aux::ModuleAux;
use crate::record::Context;
use crate::version::MINOR;

mod convert;
#[cfg(test)]
mod tests;

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
        ErrorKind::Custom(text) if text.starts_with(TOO_LONG) => text.clone(),
        // Numbers that begin with FE or FF or are too large for their field, and unknown variants.
        _ => "a number in it has an impossible value".into(),
    }
}

/// How the error about a list begins.
const TOO_LONG: &str = "a list of ";

/// A list of at most so many items, refused by its count before any of them is looked at.
fn at_most<'de, const MOST: usize, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct Items<T, const MOST: usize>(std::marker::PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MOST: usize> de::Visitor<'de> for Items<T, MOST> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "at most {MOST} items")
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            // bincode says here what the list claims.
            let count = list.size_hint().unwrap_or(0);
            if count > MOST {
                let what = format!("{TOO_LONG}{count} items, allowed are {MOST}");
                return Err(de::Error::custom(what));
            }
            let mut items = Vec::new();
            while let Some(item) = list.next_element()? {
                items.push(item);
            }
            Ok(items)
        }
    }

    deserializer.deserialize_seq(Items::<T, MOST>(std::marker::PhantomData))
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
    Exact(#[serde(deserialize_with = "at_most::<MAX_NODES, _, _>")] Vec<(u32, u64)>),
    Changing { from_ms: u64, to_ms: u64, keys: u64 },
}

#[derive(Serialize, Deserialize)]
enum WireOrigin {
    Export,
    Salvaged {
        #[serde(deserialize_with = "at_most::<MAX_LOST_RANGES, _, _>")]
        lost: Vec<(u64, u64)>,
    },
    Split {
        part: u32,
        of: u32,
    },
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
    #[serde(deserialize_with = "at_most::<MAX_NODES, _, _>")]
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
    #[serde(deserialize_with = "at_most::<MAX_DATABASES, _, _>")]
    dbs: Vec<u32>,
    #[serde(deserialize_with = "at_most::<MAX_TEXTS, _, _>")]
    matches: Vec<Vec<u8>>,
    #[serde(deserialize_with = "at_most::<MAX_TEXTS, _, _>")]
    excludes: Vec<Vec<u8>>,
    #[serde(deserialize_with = "at_most::<MAX_TEXTS, _, _>")]
    types: Vec<String>,
    #[serde(deserialize_with = "at_most::<MAX_TEXTS, _, _>")]
    other: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct WireHeader {
    tool: WireTool,
    created_ms: u64,
    source_time_ms: u64,
    source: WireSource,
    consistency: WireAsked,
    #[serde(deserialize_with = "at_most::<MAX_DATABASES, _, _>")]
    expected: Vec<WireExpected>,
    selection: WireSelection,
    functions: bool,
    eviction: bool,
    level: i32,
    frame_target_bytes: u32,
    origin: WireOrigin,
    #[serde(deserialize_with = "at_most::<MAX_TEXTS, _, _>")]
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
    #[serde(deserialize_with = "at_most::<MAX_DATABASES, _, _>")]
    per_db: Vec<WireDbTotals>,
    functions: u64,
    rdb_version_min: u16,
    rdb_version_max: u16,
    reached: WireReached,
    #[serde(deserialize_with = "at_most::<MAX_DATABASES, _, _>")]
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

#[derive(Serialize, Deserialize)]
struct WireModuleAux {
    family: WireFamily,
    rdb_version: u16,
    after_keys: bool,
    module: String,
    data: Vec<u8>,
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

/// Decodes END of an archive of format version 1.`minor`. Nothing but the digest guards what it says
/// of the export, so its bytes are exactly those that a writer makes of its fields: numbers in their
/// shortest form, and nothing after the last field unless a later minor version may have put it there.
pub(crate) fn decode_end(bytes: &[u8], minor: u8) -> Result<End, String> {
    let end = decode::<WireEnd>(bytes).map(End::from)?;
    let mut fields = Cursor::shortest(bytes);
    // It was decoded, so nothing else can be wrong.
    walk_end(&mut fields).map_err(|_| "a number in it is longer than it must be")?;
    let more = bytes.len() - fields.pos();
    let is_of_a_later_minor = minor > MINOR;
    if more > 0 && !is_of_a_later_minor {
        return Err(format!("{more} bytes follow its last field"));
    }
    Ok(end)
}

/// Goes over the fields of an END that was decoded.
fn walk_end(end: &mut Cursor<'_>) -> Result<(), EntryError> {
    let numbers = |end: &mut Cursor<'_>, count: u64| {
        (0..count).try_for_each(|_| end.varint("END").map(|_| ()))
    };
    let rows = |end: &mut Cursor<'_>, fields: u64| {
        let count = end.varint("END")?;
        numbers(end, count * fields)
    };
    // Frames, records, per_db, functions, two RDB versions.
    numbers(end, 2)?;
    rows(end, 6)?;
    numbers(end, 3)?;
    match end.varint("reached")? {
        2 => rows(end, 2)?,
        3 => numbers(end, 3)?,
        _ => numbers(end, 2)?,
    }
    rows(end, 8)?;
    // Whether duplicates are possible, two times, the digest.
    end.byte("duplicates_possible")?;
    numbers(end, 2)?;
    (0..32).try_for_each(|_| end.byte("sha256").map(|_| ()))
}

/// What of HEADER is more than an archive may have.
pub(crate) fn check_header_lists(header: &Header) -> Result<(), String> {
    let selection = &header.selection;
    let lost = match &header.origin {
        ArchiveOrigin::Salvaged { lost } => lost.len(),
        _ => 0,
    };
    check_lists(&[
        (header.source.nodes.len(), MAX_NODES),
        (header.expected.len(), MAX_DATABASES),
        (selection.dbs.len(), MAX_DATABASES),
        (selection.matches.len(), MAX_TEXTS),
        (selection.excludes.len(), MAX_TEXTS),
        (selection.types.len(), MAX_TEXTS),
        (selection.other.len(), MAX_TEXTS),
        (lost, MAX_LOST_RANGES),
        (header.extra.len(), MAX_TEXTS),
    ])
}

/// What of END is more than an archive may have.
pub(crate) fn check_end_lists(end: &End) -> Result<(), String> {
    let moments = match &end.facts.reached {
        ConsistencyReached::Exact(moments) => moments.len(),
        _ => 0,
    };
    check_lists(&[
        (end.per_db.len(), MAX_DATABASES),
        (moments, MAX_NODES),
        (end.facts.counts.len(), MAX_DATABASES),
    ])
}

fn check_lists(lists: &[(usize, usize)]) -> Result<(), String> {
    match lists.iter().find(|(count, most)| count > most) {
        Some((count, most)) => Err(format!("{TOO_LONG}{count} items, allowed are {most}")),
        None => Ok(()),
    }
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

pub(crate) fn encode_module_aux(aux: &ModuleAux) -> Vec<u8> {
    encode(&WireModuleAux {
        family: aux.family.into(),
        rdb_version: aux.rdb_version,
        after_keys: aux.after_keys,
        module: aux.module.clone(),
        data: aux.data.clone(),
    })
}

pub(crate) fn decode_module_aux(bytes: &[u8]) -> Result<ModuleAux, String> {
    decode::<WireModuleAux>(bytes).map(|aux| ModuleAux {
        family: aux.family.into(),
        rdb_version: aux.rdb_version,
        after_keys: aux.after_keys,
        module: aux.module,
        data: aux.data,
    })
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

/// The items of an INDEX body of which so many frames stand before it, one after the other: a table of
/// them may be larger than anything else that a reader holds.
pub(crate) fn each_index_entry(
    bytes: &[u8],
    frames: u64,
    mut each: impl FnMut(IndexEntry),
) -> Result<(), String> {
    const NOT_THE_TABLE: &str = "INDEX is not the table of the frames before it";
    let mut items = Cursor::new(bytes);
    let plain = |error| format!("INDEX: {error}");
    if items.varint("count").map_err(plain)? != frames {
        return Err(NOT_THE_TABLE.into());
    }
    for _ in 0..frames {
        each(IndexEntry {
            frame_type: items.byte("frame_type").map_err(plain)?,
            stored_len: items.u32("stored_len").map_err(plain)?,
            raw_len: items.u32("raw_len").map_err(plain)?,
            records: items.u32("records").map_err(plain)?,
        });
    }
    Ok(())
}
