//! Reads everything of a plan at one instant: by one EXEC; in a cluster by one script, or while writes
//! are paused.

mod ask;
mod read;

use std::time::Duration;

pub(super) use self::ask::script_for;
use crate::host::HashMap;
use crate::record::Eviction;
use crate::server::counts::CommandCounts;
use crate::server::facts::Keyspace;
use crate::server::{Conn, ServerError};
use crate::source::server::libraries::FunctionsBy;
use crate::source::server::probe::Abilities;
use crate::source::server::unheard::{Module, StreamFacts};

/// What a server dumps in a millisecond, and what a command costs; to guess how long an EXEC takes.
const DUMP_BYTES_PER_MS: usize = 200_000;
const COMMANDS_PER_MS: usize = 200;

/// Bytes of values that one EXEC may hold, on both sides.
const MAX_EXEC_BYTES: usize = 32 * 1024 * 1024;

/// One key as the EXEC showed it.
#[derive(Debug)]
pub(super) struct Shown {
    pub db: u32,
    pub key: Vec<u8>,
    pub had: Had,
    pub expire_at_ms: Option<u64>,
    pub eviction: Option<Eviction>,
}

/// What DUMP answered.
#[derive(Debug)]
pub(super) enum Had {
    Payload(Vec<u8>),
    /// So many bytes, more than is taken.
    TooLong(u64),
    Nothing,
    /// Nothing, though the key's expiry, of the same moment, says that it stands.
    Withheld,
}

impl Had {
    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Payload(payload) => payload.len(),
            Self::TooLong(_) | Self::Nothing | Self::Withheld => 0,
        }
    }
}

/// What the EXEC showed.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// The server's clock, Unix ms.
    pub at_ms: u64,
    pub keys: Vec<Shown>,
    /// The inner error: what is wrong with the answer.
    pub functions: Result<Option<Vec<u8>>, String>,
    /// How often each command was called by then.
    pub counts: Option<CommandCounts>,
    /// The databases that hold keys; `None` where they were not asked for.
    pub databases: Option<Vec<Keyspace>>,
    /// Streams that are no longer what was given, though nothing was heard.
    pub changed_streams: Vec<(u32, Vec<u8>)>,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            at_ms: 0,
            keys: Vec::new(),
            functions: Ok(None),
            counts: None,
            databases: None,
            changed_streams: Vec::new(),
        }
    }
}

/// What of the final round the server refuses.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// XINFO STREAM.
    Looks,
    /// Its answer: the values have grown, and are together more than one EXEC may hold.
    TooMuch,
    /// Its answer: a key was changed in the middle of it, so that writes were not held up.
    Torn,
    /// A key, or perhaps a command for keys.
    Keys(String),
    /// All of it.
    Everything(String),
}

/// What one EXEC asks for.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub dump: HashMap<u32, Vec<Vec<u8>>>,
    pub look: HashMap<u32, Vec<(Vec<u8>, StreamFacts)>>,
    pub bytes: usize,
    /// Types of modules whose values are not read again: the counts of commands vouch for them.
    pub counted: Vec<&'static Module>,
    /// Why they do not vouch for others.
    pub doubt: Option<String>,
}

impl Plan {
    /// The keys of a database whose values are read.
    fn keys_of(&self, db: u32) -> impl Iterator<Item = &Vec<u8>> {
        self.dump.get(&db).into_iter().flatten()
    }

    /// The streams of a database that are only looked at.
    fn looks_of(&self, db: u32) -> impl Iterator<Item = &(Vec<u8>, StreamFacts)> {
        self.look.get(&db).into_iter().flatten()
    }

    /// Why it would hold up the server, or us, for too long.
    pub fn too_much(&self, max_pause: Duration) -> Option<String> {
        let dumps: usize = self.dump.values().map(Vec::len).sum();
        let looks: usize = self.look.values().map(Vec::len).sum();
        let ms = self.bytes / DUMP_BYTES_PER_MS + (3 * dumps + looks) / COMMANDS_PER_MS;
        if self.bytes > MAX_EXEC_BYTES || ms as u128 > max_pause.as_millis() {
            return Some(format!(
                "the final round would read {dumps} keys of about {} at once, and block the source \
                 for about {ms} ms (--max-pause {} ms)",
                crate::units::bytes_text(self.bytes as u64),
                max_pause.as_millis()
            ));
        }
        None
    }
}

/// By what everything is read at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// MULTI/EXEC.
    Multi,
    /// One EVAL: in a cluster the keys of a MULTI must lie in one slot. This is its text.
    Script(&'static str),
    /// Command by command, because writes are paused.
    Plain,
}

/// What the server is asked for beside the keys, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub plan: &'a Plan,
    pub how: How,
    pub abilities: Abilities,
    pub functions_by: Option<FunctionsBy>,
    /// How often each command was called.
    pub counts: bool,
    /// Which databases hold keys.
    pub databases: bool,
    /// The largest payload that is taken.
    pub max_value: usize,
    /// The server's clock, Unix ms, where TIME is not asked.
    pub now_ms: u64,
}

/// Reads everything of the plan at one instant. The inner `Err` is why the server does not do that.
///
/// # Errors
/// The connection.
pub(super) fn read_instant(
    conn: &mut Conn,
    question: &Question<'_>,
) -> Result<Result<Snapshot, Refused>, ServerError> {
    conn.doing("reading the final round");
    let sent = ask::send(conn, question)?;
    let refused = read::read_queued(conn, question.how, &sent)?;
    if let Some(refused) = read::read_head(conn, question.how, &sent, refused)? {
        return Ok(Err(refused));
    }
    read::read_answers(conn, question, &sent)
}
