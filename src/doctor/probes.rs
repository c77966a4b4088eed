//! The commands that the tool may want: what for, how much, the ACL rule that allows each, and how
//! it is tried.

use self::Trial::{Asked, Native, Queued, Sent, Transaction};
use crate::server::ABSENT_KEY as ABSENT;

/// How much a verb wants a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Not at all.
    No,
    /// It does more or better with it.
    Useful,
    /// It cannot do without.
    Needed,
}

/// How a command is tried.
pub(super) enum Trial {
    /// Sent; the arguments make it harmless.
    Sent(&'static [&'static str]),
    /// Queued in a MULTI that is never executed.
    Queued(&'static [&'static str]),
    /// The native commands of the server's version, queued in the same way. They are usable if all
    /// of them are.
    Native,
    /// MULTI and EXEC with nothing between.
    Transaction,
    /// Asked about with ACL DRYRUN: trying it is doing it.
    Asked(&'static [&'static str]),
}

/// A command that the tool may want.
pub struct CommandProbe {
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    pub export: Want,
    pub import: Want,
    /// Whether only clusters have a use for it.
    pub only_cluster: bool,
    /// The ACL rule, where the name does not spell it.
    special_rule: Option<&'static str>,
    pub(super) how: Trial,
    /// Parts of error replies that prove the right to use it.
    pub(super) proof: &'static [&'static str],
}

impl CommandProbe {
    /// What an ACL rule says to allow it: `+client|no-touch`.
    pub fn rule(&self) -> String {
        match self.special_rule {
            Some(rule) => rule.to_owned(),
            None => format!("+{}", self.name.to_ascii_lowercase().replace(' ', "|")),
        }
    }
}

/// The group of commands that write without RESTORE.
pub const NATIVE: &str = "native commands";

/// One more, for hash fields that expire.
pub const NATIVE_FIELDS: &str = "HPEXPIREAT";

/// Two more, for streams of Redis 8.6.
pub const NATIVE_IDEMPOTENCY: &str = "XCFGSET";
/// The second of them, from 8.6.2 on.
pub const NATIVE_IDEMPOTENT_IDS: &str = "XIDMPRECORD";

macro_rules! probes {
    ($($name:tt: $export:ident, $import:ident, $how:expr => $purpose:literal
        $(in $clusters:ident)? $(allowed by $rule:literal)? $(proved by $proof:expr)?;)*) => {
        &[$(CommandProbe {
            name: $name,
            purpose: $purpose,
            export: Want::$export,
            import: Want::$import,
            only_cluster: $(!stringify!($clusters).is_empty() ||)? false,
            how: $how,
            special_rule: [$(Some($rule),)? None][0],
            proof: [$($proof,)? &[] as &[&str]][0],
        }),*]
    };
}

/// The commands, the needed ones first. A row: how much an export and an import want it, how it is
/// tried, what it is for; then the ACL rule that allows it, where its name does not spell that, and
/// parts of error replies that prove the right to use it.
pub const PROBES: &[CommandProbe] = probes! {
    "SCAN": Needed, No, Sent(&["SCAN", "0", "COUNT", "1"]) => "finds the keys";
    "DUMP": Needed, Useful, Sent(&["DUMP", ABSENT])
        => "reads a value; at a destination, compares it with a key that already exists";
    "PTTL": Needed, Useful, Sent(&["PTTL", ABSENT])
        => "reads the expiry where there is no PEXPIRETIME";
    "RESTORE": No, Needed, Sent(&["RESTORE", ABSENT, "1", "", "ABSTTL"]) => "writes a key"
        proved by &["DUMP payload version or checksum", "Bad data format"];
    NATIVE: No, No, Native
        => "write values that are too large for RESTORE, or every value where RESTORE is refused"
        allowed by "+set +append +strlen +rpush +llen +sadd +scard +zadd +zcard +hset +hlen +xadd \
            +xlen +xsetid +xdel +xtrim +xclaim +xgroup +xreadgroup +exists +multi +exec \
            +pexpireat +rename +renamenx +unlink";
    NATIVE_FIELDS: No, No, Queued(&["HPEXPIREAT", ABSENT, "1", "FIELDS", "1", "f"])
        => "the same for hash fields that expire";
    NATIVE_IDEMPOTENCY: No, No, Queued(&["XCFGSET", ABSENT, "IDMP-DURATION", "1"])
        => "the same for idempotency settings of streams";
    NATIVE_IDEMPOTENT_IDS: No, No, Queued(&["XIDMPRECORD", ABSENT, "p", "i", "1-1"])
        => "the same for producer ids that a stream remembers";
    "SELECT": Useful, Useful, Sent(&["SELECT", "0"]) => "reaches databases other than 0";
    "INFO": Useful, Useful, Sent(&["INFO", "server"]) => "shows databases, memory and evictions";
    "DBSIZE": Useful, No, Sent(&["DBSIZE"]) => "counts the keys where INFO is refused";
    "PEXPIRETIME": Useful, Useful, Sent(&["PEXPIRETIME", ABSENT])
        => "reads the expiry as an absolute time";
    "TIME": Useful, Useful, Sent(&["TIME"]) => "reads the server's clock";
    "MULTI, EXEC": Useful, No, Transaction => "reads a value and its expiry at the same moment"
        allowed by "+multi +exec";
    "XINFO STREAM": Useful, No, Sent(&["XINFO", "STREAM", ABSENT])
        => "shows changes of streams that CLIENT TRACKING does not report"
        proved by &["no such key"];
    // Not ON: see source::server::probe.
    "CLIENT NO-TOUCH": Useful, No, Sent(&["CLIENT", "NO-TOUCH", "OFF"])
        => "keeps an export from disturbing the LRU order";
    "OBJECT IDLETIME": Useful, No, Sent(&["OBJECT", "IDLETIME", ABSENT])
        => "idle times, with --eviction"
        proved by &["no such key", "maxmemory policy"];
    "OBJECT FREQ": Useful, No, Sent(&["OBJECT", "FREQ", ABSENT])
        => "LFU frequencies, with --eviction"
        proved by &["no such key", "maxmemory policy"];
    "FUNCTION DUMP": Useful, No, Sent(&["FUNCTION", "DUMP"]) => "reads function libraries";
    "FUNCTION RESTORE": No, Useful, Sent(&["FUNCTION", "RESTORE", ""])
        => "writes function libraries"
        proved by &["DUMP payload version or checksum"];
    "FUNCTION LIST": No, Useful, Sent(&["FUNCTION", "LIST", "LIBRARYNAME", ABSENT])
        => "compares a library that already exists; reads libraries where FUNCTION DUMP is refused";
    "FUNCTION LOAD": No, No, Sent(&["FUNCTION", "LOAD", "no library"])
        => "writes function libraries where FUNCTION RESTORE is refused"
        proved by &["Missing library metadata", "library"];
    "MODULE LIST": No, Useful, Sent(&["MODULE", "LIST"])
        => "shows which modules' values can be restored";
    "EXISTS": No, Useful, Sent(&["EXISTS", ABSENT]) => "finds conflicts in a --dry-run";
    "DEL": No, Useful, Sent(&["DEL", ABSENT])
        => "with --on-conflict replace, deletes a key whose new value has already expired";
    "CONFIG GET": No, Useful, Sent(&["CONFIG", "GET", "proto-max-bulk-len"])
        => "reads the server's limits";
    "HELLO": Useful, No, Sent(&["HELLO", "2"]) => "for CLIENT TRACKING";
    "PING": Useful, Useful, Sent(&["PING"])
        => "for CLIENT TRACKING; measures how long the server takes to answer";
    "CLIENT TRACKING": Useful, No, Sent(&["CLIENT", "TRACKING", "OFF"])
        => "reports keys that change while they are read";
    // An invalid time pauses nobody.
    "CLIENT PAUSE": No, No, Sent(&["CLIENT", "PAUSE", "never", "WRITE"])
        => "with --consistency pause, pauses writers during the final round"
        allowed by "+client|pause +client|unpause"
        proved by &["not an integer", "timeout"];
    // No client has this number.
    "CLIENT ID, KILL": No, Useful, Sent(&["CLIENT", "KILL", "ID", "9223372036854775807"])
        => "makes sure that a lost connection does not deliver a late write"
        allowed by "+client|id +client|kill"
        proved by &["No such client"];
    "WAIT": No, Useful, Sent(&["WAIT", "0", "1"])
        => "waits until replicas have what was written, so that a failover does not lose it"
        proved by &["replica instances"];
    "CLUSTER SLOTS": Needed, Needed, Sent(&["CLUSTER", "SLOTS"])
        => "shows which node has which keys" in clusters;
    "CLUSTER NODES": Useful, No, Sent(&["CLUSTER", "NODES"])
        => "shows which slots are migrating; without it nothing is exact" in clusters;
    "ASKING": Useful, Useful, Sent(&["ASKING"])
        => "reads and writes keys of migrating slots" in clusters;
    "READONLY": Useful, No, Sent(&["READONLY"])
        => "with --read-from replica, reads from replicas" in clusters;
    "EVAL": Useful, No, Sent(&["EVAL", "return 1", "0"])
        => "reads all changed keys of a shard at one point in time; MULTI works in one slot only"
        in clusters;
    "PSYNC, REPLCONF": No, No, Asked(&["PSYNC", "?", "-1"])
        => "with --via replica, reads a snapshot"
        allowed by "+psync +replconf";
};
