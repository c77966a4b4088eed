//! Every maximum of the format, each with its reason, and the limits a reader may set on top.

/// Largest raw (decompressed) body of one frame. It bounds every buffer and every hostile length.
pub const MAX_RAW_LEN: u32 = 16 * 1024 * 1024;

/// How much longer than its raw body a stored payload may claim to be. A writer stores a frame
/// that zstd does not shrink, so the room is never needed; it only keeps the rule simple.
pub const STORED_SLACK: u32 = 1024;

/// Largest HEADER body: it is read before anything else is known of the archive.
pub const MAX_HEADER_LEN: u32 = 1024 * 1024;

/// Largest NOTE body. Notes are read by people and kept in memory.
pub const MAX_NOTE_LEN: u32 = 64 * 1024;

/// Largest joined body of a FRAGMENT run.
pub const MAX_JOINED_LEN: u64 = 1 << 40;

/// Most entries in one DATA body. An entry can be nine bytes long while a record in memory takes
/// more than a hundred, so this, not the frame's length, bounds the memory a hostile frame costs.
pub const MAX_ENTRIES: usize = 131_072;

/// Most different databases in one archive: totals are kept for each.
pub const MAX_DATABASES: usize = 65_536;

/// Most servers that HEADER or END lists: a cluster has at most one for each hash slot.
pub const MAX_NODES: usize = 16_384;

/// Most items of each list of texts in HEADER: globs, type names, other restrictions, extras.
pub const MAX_TEXTS: usize = 16_384;

/// Most lost byte ranges that HEADER lists.
pub const MAX_LOST_RANGES: usize = 65_536;

/// Largest zstd window, in bytes: what stock decoders take without being told to.
pub const MAX_WINDOW: u64 = 1 << 27;

/// Raw bytes at which a writer closes a DATA frame, unless told otherwise. Measured: larger frames
/// gain 0.7 % in size, smaller ones lose 7 %.
pub const DEFAULT_FRAME_TARGET: u32 = 1024 * 1024;

/// How much later than its frame says a record may have been read, in a frame of our writer.
pub const MAX_TIME_SPREAD_MS: u64 = 1_000;

/// Raw bytes of one part of a large value, unless told otherwise. Well below [`MAX_RAW_LEN`],
/// since two such buffers stand beside the value itself.
pub const DEFAULT_FRAGMENT_LEN: u32 = 4 * 1024 * 1024;

/// Smallest part length a writer accepts: room for the part's head and some bytes of value.
pub const MIN_FRAGMENT_LEN: u32 = 64;

/// Bytes of a large value that a reader of heads keeps; see [`Reader::heads_only`](crate::Reader::heads_only).
pub const HEAD_LEN: usize = 64 * 1024;

/// Longest key. Servers may take keys of up to 512 MiB, and nobody has any that is near this; but a
/// key, unlike a value, has to be held by everybody who reads it.
pub const MAX_KEY_LEN: usize = 16 * 1024 * 1024;

/// Largest function payload that every reader of whole values keeps, however few bytes of a value it
/// keeps.
pub const MAX_KEPT_FUNCTIONS: u64 = 16 * 1024 * 1024;

/// Most records of a DATA frame that a reader by pieces makes at a time: a frame of ordinary size has
/// fewer. A record takes well over a hundred bytes, however small it is.
pub(crate) const PIECE_RECORDS: usize = 32_768;

/// Bytes of entries at which such a piece ends. Frames of ordinary size are shorter.
pub(crate) const PIECE_BYTES: usize = 2 * DEFAULT_FRAME_TARGET as usize;

/// How much of MODULE_AUX frames a reader keeps that nobody has taken yet, by what each costs
/// ([`ModuleAux::cost`](crate::ModuleAux::cost)); it counts the frames that are more. Whoever writes no more
/// than this into an archive gets all of it back.
pub const MAX_MODULE_AUX_KEPT: usize = 4 * MAX_RAW_LEN as usize;

/// How many modules a reader names of which it has not kept everything.
pub const MAX_MODULES_NAMED: usize = 64;

/// How many notes a reader keeps; it counts the others.
pub const MAX_NOTES_KEPT: usize = 16;

/// What a reader is willing to take, on top of the format's own maxima.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest value (or function payload). A larger one is refused before it is buffered.
    pub max_value_bytes: u64,
    /// Larger values that are stored in several frames are checked and not kept: the record comes
    /// with [`Value::Withheld`](crate::Value::Withheld), or is
    /// [`Record::WithheldFunctions`](crate::Record::WithheldFunctions). So memory is bounded by this, or by one
    /// frame if that is larger, and not by the largest value.
    pub kept_value_bytes: u64,
    /// Most records in the archive.
    pub max_records: u64,
    /// Most raw bytes of DATA and FRAGMENT frames in the archive: a bound on what a small hostile
    /// archive can expand to.
    pub max_raw_bytes: u64,
}

impl Limits {
    /// The defaults, but larger values are not kept.
    pub fn keeping(kept_value_bytes: u64) -> Self {
        Limits {
            kept_value_bytes,
            ..Limits::default()
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_value_bytes: MAX_JOINED_LEN,
            kept_value_bytes: u64::MAX,
            max_records: u64::MAX,
            max_raw_bytes: u64::MAX,
        }
    }
}
