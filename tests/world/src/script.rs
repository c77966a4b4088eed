//! What happens in a run, as a list that was made before it begins: so that it can be printed, made
//! shorter and kept.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A run: servers, what they hold, what the tool is asked to do, and what happens meanwhile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Script {
    /// What is tried; the judge goes by it.
    pub scenario: String,
    /// For everything that is left to chance: latencies, the tool's own random numbers.
    pub seed: u64,
    /// The servers, in order; node 0 is the source's first.
    pub nodes: Vec<NodeSetup>,
    /// Sentinels that watch a side, each for one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sentinels: Vec<Side>,
    /// What they hold to begin with.
    pub fill: Vec<Fill>,
    /// How the network behaves.
    pub net: NetSetup,
    /// What the tool is asked to do, one run after the other.
    pub phases: Vec<Phase>,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeSetup {
    /// What it is to the tool.
    pub side: Side,
    /// The version, as [`crate::server::Release`] names it.
    pub release: String,
    /// How far its clock is ahead of the tool's, in ms.
    #[serde(default)]
    pub skew_ms: i64,
    /// It is a cluster's node. The primaries of a side share the slots equally.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_cluster: bool,
    /// It is a replica of this node of the script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica_of: Option<usize>,
    /// Memory that its keys may take; 0 for any.
    #[serde(default)]
    pub max_memory: u64,
    /// Evicts keys where there is no more memory, or refuses to write.
    #[serde(default)]
    pub evicts: bool,
    /// Commands that are refused to the tool, such as `config` or `client|tracking`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
    /// Databases that the tool may not go to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forbidden_dbs: Vec<u32>,
    /// How many connections it takes; 0 for as many as come.
    #[serde(default)]
    pub max_clients: usize,
}

/// Which end a server belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    /// What is read.
    Source,
    /// What is written.
    Destination,
}

/// A word of a command: any bytes, readable where they are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Word(pub Vec<u8>);

/// A command that makes a key before the run begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fill {
    /// On which side.
    pub side: Side,
    /// In which database.
    pub db: u32,
    /// The command.
    pub words: Vec<Word>,
}

/// How the network behaves when nothing is wrong with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetSetup {
    /// The least time that bytes take one way, in µs.
    pub latency_us: u64,
    /// What may come on top of it.
    pub jitter_us: u64,
    /// Of 100 writes, how many arrive in several pieces.
    pub pieces: u64,
}

/// One run of the tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Its command line, without the program's name.
    pub argv: Vec<String>,
    /// What happens meanwhile.
    pub events: Vec<Planned>,
}

/// Something that happens at some moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// When.
    pub at: At,
    /// What.
    pub act: Act,
}

/// A moment of a phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum At {
    /// Before the tool does anything.
    Start,
    /// So many µs after it began.
    Time(u64),
    /// When it has turned to the world (reads, writes, waits) so many times.
    Calls(u32),
    /// Before the servers carry out the so manieth command of the tool.
    Commands(u32),
    /// Before a server of this side carries out the so manieth of these commands, from 1.
    Before(Side, String, u32),
    /// After it did, before anything of the answer leaves.
    After(Side, String, u32),
}

/// Something that happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Act {
    /// A client's command, in a database; in a cluster it goes to the slot's owner.
    Do(Side, u32, Vec<Word>),
    /// A connection of the tool is cut.
    Cut(Side, u8, Cut),
    /// Nothing arrives on a connection for so long, in ms.
    Stall(Side, u8, u64),
    /// A server stands still for so long (ms) in the middle of its next EXEC that holds this command:
    /// just before it.
    Hang(Side, u8, String, u64),
    /// Connecting is refused for so long, in ms.
    Refuse(Side, u64),
    /// From now on every new connection is reset after so many bytes to the tool.
    Doom(Side, u32),
    /// A server is started again.
    Restart(Restart),
    /// A server answers that it cannot, for so long in ms.
    Condition(Side, Condition, u64),
    /// The next of these commands is answered otherwise.
    Odd(Side, String, Odd),
    /// A pause that the tool asked for ends.
    Unpause(Side),
    /// The user stops the tool.
    Stop,
    /// The tool's process is killed.
    Kill,
    /// A slot of a cluster goes to another of its primaries, in steps with so many µs in between.
    Reshard(Side, u16, u8, u64),
    /// The replica of one of the primaries takes its place, without the last so many changes.
    Failover(Side, u8, u32),
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cut {
    /// By a reset that both sides see.
    Reset,
    /// The server closes it when what it said has arrived.
    Close,
    /// Nothing arrives any more in either direction, and nobody is told.
    Silence,
    /// After so many more bytes to the server, by a reset.
    ToServer(u32),
    /// After so many more bytes to the tool, by a reset.
    ToTool(u32),
}

/// How a server is started again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Restart {
    /// Which side.
    pub side: Side,
    /// Which of its primaries.
    #[serde(default)]
    pub which: u8,
    /// The last so many changes are lost.
    pub lose: u32,
    /// It is down for so long, in ms.
    pub down_ms: u64,
    /// Then it loads for so long, in ms.
    pub loading_ms: u64,
}

/// What a server cannot do for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// -LOADING
    Loading,
    /// -BUSY
    Busy,
    /// -MISCONF
    Misconf,
    /// -MASTERDOWN
    MasterDown,
    /// -OOM
    Oom,
    /// -READONLY
    ReadOnly,
    /// -CLUSTERDOWN
    ClusterDown,
}

/// An odd answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Odd {
    /// This error; the command is not carried out.
    Error(String),
    /// Nil; not carried out.
    Nil,
    /// A number; not carried out.
    Int(i64),
    /// +OK; not carried out.
    Okay,
    /// An empty array; not carried out.
    Empty,
    /// No answer at all; not carried out.
    Nothing,
    /// It is carried out, and nil said.
    DoneNil,
    /// It is not carried out, and the connection closed.
    CloseBefore,
    /// It is carried out, and the connection closed.
    CloseAfter,
}

impl Act {
    /// What kind of thing it is, for counts.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Do(Side::Source, ..) => "write at the source",
            Self::Do(Side::Destination, ..) => "write at the destination",
            Self::Cut(_, _, cut) => match cut {
                Cut::Reset => "cut: reset",
                Cut::Close => "cut: close",
                Cut::Silence => "cut: silence",
                Cut::ToServer(_) => "cut: within a command",
                Cut::ToTool(_) => "cut: within a reply",
            },
            Self::Stall(..) => "stall",
            Self::Hang(..) => "stall within EXEC",
            Self::Refuse(..) => "connections refused",
            Self::Doom(..) => "cut: every connection",
            Self::Restart(restart) if restart.lose > 0 => "restart with loss",
            Self::Restart(_) => "restart",
            Self::Condition(_, condition, _) => match condition {
                Condition::Loading => "LOADING",
                Condition::Busy => "BUSY",
                Condition::Misconf => "MISCONF",
                Condition::MasterDown => "MASTERDOWN",
                Condition::Oom => "OOM",
                Condition::ReadOnly => "READONLY",
                Condition::ClusterDown => "CLUSTERDOWN",
            },
            Self::Odd(..) => "odd answer",
            Self::Unpause(_) => "pause ends early",
            Self::Stop => "stop",
            Self::Kill => "kill",
            Self::Reshard(..) => "reshard",
            Self::Failover(..) => "failover",
        }
    }

    /// Whether it is no fault, but what clients do all the time.
    pub fn is_of_clients(&self) -> bool {
        matches!(self, Self::Do(..))
    }
}

impl Word {
    /// From text.
    pub fn of(text: impl AsRef<[u8]>) -> Self {
        Self(text.as_ref().to_vec())
    }
}

/// Several words.
pub fn words<T: AsRef<[u8]>>(texts: impl IntoIterator<Item = T>) -> Vec<Word> {
    texts.into_iter().map(Word::of).collect()
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in &self.0 {
            match byte {
                b'\\' => f.write_str("\\\\")?,
                b' '..=b'~' => write!(f, "{}", byte as char)?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Serialize for Word {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        read_word(&text).ok_or_else(|| serde::de::Error::custom("an escape that is none"))
    }
}

fn read_word(text: &str) -> Option<Word> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (&kind, after) = rest.split_first()?;
        rest = after;
        match kind {
            b'\\' => bytes.push(b'\\'),
            b'x' => {
                let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &rest[2..];
            }
            _ => return None,
        }
    }
    Some(Word(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_any_bytes_can_be_written_down() {
        let word = Word((0..=255).collect());
        let text = serde_json::to_string(&word).expect("written");
        assert_eq!(serde_json::from_str::<Word>(&text).expect("read"), word);
    }
}
