//! The answers that were not hoped for: every class of error that servers give, and every shape
//! that a reply should not have.

use super::wire;

/// What a command is answered with, in place of the server's own answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    Unknown,
    NoPerm,
    Busy,
    Loading,
    Oom,
    ReadOnly,
    MisConf,
    NoAuth,
    Moved,
    Ask,
    TryAgain,
    ClusterDown,
    MasterDown,
    NoReplicas,
    Nil,
    EmptyBulk,
    Garbled,
    OtherType,
    Queued,
    /// The server's own answer, later than the tool waits.
    Late,
    /// The connection ends in place of the answer.
    CloseBefore,
    /// It ends in the middle of it.
    CloseWithin,
    /// It ends right behind it.
    CloseAfter,
    /// A line that never ends.
    EndlessLine,
    /// A bulk of a terabyte, which comes as fast as it is read.
    EndlessBulk,
    /// An array of billions of numbers.
    EndlessArray,
    /// Arrays in arrays in arrays.
    DeepArray,
    /// A bulk of nearly 2^63 bytes, of which none come.
    HugeClaim,
    /// An array of nearly 2^63 elements, of which none come.
    HugeArray,
    /// The server's own answer, a byte at a time, and each before the tool's patience ends.
    Trickle,
    /// SCAN: always the same page with the same cursor.
    SameCursor,
    /// SCAN: a page of billions of names.
    EndlessPage,
    /// PSYNC: a snapshot with a string that claims nearly 2^62 bytes.
    HugeString,
    /// PSYNC: a snapshot with a compressed string that claims to be large, and is not.
    HugeLzf,
    /// PSYNC: a snapshot that is announced and then never ends.
    EndlessSnapshot,
}

impl Answer {
    pub const ALL: [Self; 23] = [
        Self::Unknown,
        Self::NoPerm,
        Self::Busy,
        Self::Loading,
        Self::Oom,
        Self::ReadOnly,
        Self::MisConf,
        Self::NoAuth,
        Self::Moved,
        Self::Ask,
        Self::TryAgain,
        Self::ClusterDown,
        Self::MasterDown,
        Self::NoReplicas,
        Self::Nil,
        Self::EmptyBulk,
        Self::Garbled,
        Self::OtherType,
        Self::Queued,
        Self::Late,
        Self::CloseBefore,
        Self::CloseWithin,
        Self::CloseAfter,
    ];

    /// What only a hostile server says; see [`super::hostile_answers`].
    pub const HOSTILE: [Self; 12] = [
        Self::EndlessLine,
        Self::EndlessBulk,
        Self::EndlessArray,
        Self::DeepArray,
        Self::HugeClaim,
        Self::HugeArray,
        Self::Trickle,
        Self::SameCursor,
        Self::EndlessPage,
        Self::HugeString,
        Self::HugeLzf,
        Self::EndlessSnapshot,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::NoPerm => "NOPERM",
            Self::Busy => "BUSY",
            Self::Loading => "LOADING",
            Self::Oom => "OOM",
            Self::ReadOnly => "READONLY",
            Self::MisConf => "MISCONF",
            Self::NoAuth => "NOAUTH",
            Self::Moved => "MOVED",
            Self::Ask => "ASK",
            Self::TryAgain => "TRYAGAIN",
            Self::ClusterDown => "CLUSTERDOWN",
            Self::MasterDown => "MASTERDOWN",
            Self::NoReplicas => "NOREPLICAS",
            Self::Nil => "nil",
            Self::EmptyBulk => "empty",
            Self::Garbled => "garbled",
            Self::OtherType => "other-type",
            Self::Queued => "queued",
            Self::Late => "late",
            Self::CloseBefore => "close-before",
            Self::CloseWithin => "close-within",
            Self::CloseAfter => "close-after",
            Self::EndlessLine => "endless-line",
            Self::EndlessBulk => "endless-bulk",
            Self::EndlessArray => "endless-array",
            Self::DeepArray => "deep-array",
            Self::HugeClaim => "huge-claim",
            Self::HugeArray => "huge-array",
            Self::Trickle => "trickle",
            Self::SameCursor => "same-cursor",
            Self::EndlessPage => "endless-page",
            Self::HugeString => "huge-string",
            Self::HugeLzf => "huge-lzf",
            Self::EndlessSnapshot => "endless-snapshot",
        }
    }

    pub fn by_name(name: &str) -> Option<Self> {
        let all = Self::ALL.into_iter().chain(Self::HOSTILE);
        all.into_iter().find(|answer| answer.name() == name)
    }

    pub fn is_error(self) -> bool {
        self <= Self::NoReplicas
    }

    /// Whether it asks to come again: the tool may then wait for a minute or two.
    pub fn asks_for_patience(self) -> bool {
        matches!(
            self,
            Self::Busy | Self::Loading | Self::TryAgain | Self::ClusterDown | Self::MasterDown
        )
    }

    /// Whether nothing comes after it on its connection.
    pub fn closes(self) -> bool {
        self >= Self::CloseBefore && !matches!(self, Self::Trickle | Self::SameCursor)
    }

    /// Whether it is too long, or too slow, to be made in one piece.
    pub fn is_poured(self) -> bool {
        self >= Self::EndlessLine && self != Self::SameCursor
    }

    /// What goes to the client where the server said `real` to the command `name`.
    pub fn bytes(self, name: &str, real: &[u8], resp3: bool) -> Vec<u8> {
        match self {
            Self::Nil if resp3 => b"_\r\n".to_vec(),
            Self::Nil if real.first() == Some(&b'*') => b"*-1\r\n".to_vec(),
            Self::Nil => b"$-1\r\n".to_vec(),
            Self::EmptyBulk => b"$0\r\n\r\n".to_vec(),
            Self::Garbled => garbled(name, real),
            Self::OtherType => match real.first() {
                Some(b':' | b'*' | b'%' | b'~') => b"$5\r\nhello\r\n".to_vec(),
                _ => b":5\r\n".to_vec(),
            },
            Self::Queued => b"+QUEUED\r\n".to_vec(),
            Self::Late | Self::CloseAfter => real.to_vec(),
            Self::CloseBefore => Vec::new(),
            Self::SameCursor => b"*2\r\n$1\r\n7\r\n*1\r\n$3\r\nint\r\n".to_vec(),
            Self::CloseWithin => real[..real.len() / 2].to_vec(),
            error => format!("-{}\r\n", error.text(name)).into_bytes(),
        }
    }

    /// An error in the words of Redis 7.0.
    fn text(self, name: &str) -> String {
        let word = name.rsplit(':').next().unwrap_or(name);
        let word = word.split('.').next().unwrap_or(word);
        match self {
            Self::Unknown => {
                format!("ERR unknown command '{word}', with args beginning with: 'x' ")
            }
            Self::NoPerm => format!(
                "NOPERM this user has no permissions to run the '{}' command",
                word.to_lowercase()
            ),
            Self::Busy => "BUSY Redis is busy running a script. You can only call SCRIPT KILL or \
                           SHUTDOWN NOSAVE."
                .to_owned(),
            Self::Loading => "LOADING Redis is loading the dataset in memory".to_owned(),
            Self::Oom => "OOM command not allowed when used memory > 'maxmemory'.".to_owned(),
            Self::ReadOnly => "READONLY You can't write against a read only replica.".to_owned(),
            Self::MisConf => "MISCONF Redis is configured to save RDB snapshots, but it's \
                              currently unable to persist to disk. Commands that may modify the \
                              data set are disabled, because this instance is configured to \
                              report errors during writes if RDB snapshotting fails \
                              (stop-writes-on-bgsave-error option). Please check the Redis logs \
                              for details about the RDB error."
                .to_owned(),
            Self::NoAuth => "NOAUTH Authentication required.".to_owned(),
            // Port 1: nobody is there.
            Self::Moved => "MOVED 3999 127.0.0.1:1".to_owned(),
            Self::Ask => "ASK 3999 127.0.0.1:1".to_owned(),
            Self::TryAgain => "TRYAGAIN Multiple keys request during rehashing of slot".to_owned(),
            Self::ClusterDown => "CLUSTERDOWN The cluster is down".to_owned(),
            Self::MasterDown => "MASTERDOWN Link with MASTER is down and replica-serve-stale-data \
                                 is set to 'no'."
                .to_owned(),
            Self::NoReplicas => "NOREPLICAS Not enough good replicas to write.".to_owned(),
            _ => unreachable!("{self:?} is no error"),
        }
    }
}

/// A payload with a byte changed in the middle, which its checksum shows; else noise.
fn garbled(name: &str, real: &[u8]) -> Vec<u8> {
    let mut content = wire::bulk(real).unwrap_or_default().to_vec();
    if !name.ends_with("DUMP") || content.len() < 8 {
        return b"$7\r\n\xff\x00garb\n\r\n".to_vec();
    }
    let middle = content.len() / 2;
    content[middle] ^= 0x15;
    wire::to_bulk(&content)
}
