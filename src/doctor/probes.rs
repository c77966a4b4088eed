//! The commands that the tool may want: what for, how much, the ACL rule that allows each, and how
//! it is tried.

/// A name that nobody uses.
const ABSENT: &str = crate::server::ABSENT_KEY;

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
pub(super) enum Try {
    /// Sent as it is; harmless because of its arguments.
    Sent(&'static [&'static str]),
    /// Queued in a MULTI that is never executed.
    Queued(&'static [&'static str]),
    /// The native commands that the server's version has, queued in the same way. They are usable if
    /// all of them are.
    Native,
    /// An empty transaction.
    Transaction,
    /// Asked about: trying it is doing it.
    Asked(&'static [&'static str]),
}

/// A command that the tool may want.
pub struct Probe {
    /// Its name.
    pub name: &'static str,
    /// What an ACL rule says to allow it.
    pub rule: &'static str,
    /// Whether an export wants it.
    pub export: Want,
    /// Whether an import wants it.
    pub import: Want,
    /// What it is for.
    pub use_of: &'static str,
    /// Whether only clusters have a use for it.
    pub only_cluster: bool,
    pub(super) how: Try,
    /// Parts of error replies that prove the right to use it.
    pub(super) fine: &'static [&'static str],
}

/// The group of commands that write without RESTORE.
pub const NATIVE: &str = "native commands";

/// The one more for hash fields that expire.
pub const NATIVE_FIELDS: &str = "HPEXPIREAT";

/// The two more for streams of Redis 8.6.
pub const NATIVE_IDEMPOTENCY: &str = "XCFGSET";
/// See there. From 8.6.2 on.
pub const NATIVE_IDEMPOTENT_IDS: &str = "XIDMPRECORD";

/// The commands, the needed ones first.
pub const PROBES: &[Probe] = &[
    Probe {
        name: "SCAN",
        rule: "+scan",
        export: Want::Needed,
        import: Want::No,
        use_of: "finds the keys",
        only_cluster: false,
        how: Try::Sent(&["SCAN", "0", "COUNT", "1"]),
        fine: &[],
    },
    Probe {
        name: "DUMP",
        rule: "+dump",
        export: Want::Needed,
        import: Want::Useful,
        use_of: "reads a value; at a destination, compares a key that stands there already",
        only_cluster: false,
        how: Try::Sent(&["DUMP", ABSENT]),
        fine: &[],
    },
    Probe {
        name: "PTTL",
        rule: "+pttl",
        export: Want::Needed,
        import: Want::Useful,
        use_of: "reads the expiry, where there is no PEXPIRETIME",
        only_cluster: false,
        how: Try::Sent(&["PTTL", ABSENT]),
        fine: &[],
    },
    Probe {
        name: "RESTORE",
        rule: "+restore",
        export: Want::No,
        import: Want::Needed,
        use_of: "writes a key",
        only_cluster: false,
        how: Try::Sent(&["RESTORE", ABSENT, "1", "", "ABSTTL"]),
        fine: &["DUMP payload version or checksum", "Bad data format"],
    },
    Probe {
        name: NATIVE,
        rule: "+set +append +strlen +rpush +llen +sadd +scard +zadd +zcard +hset +hlen +xadd +xlen \
               +xsetid +xdel +xtrim +xclaim +xgroup +xreadgroup +exists +multi +exec +pexpireat \
               +rename +renamenx +unlink",
        export: Want::No,
        import: Want::No,
        use_of: "write values that are too large for RESTORE, or all where it is refused",
        only_cluster: false,
        how: Try::Native,
        fine: &[],
    },
    Probe {
        name: NATIVE_FIELDS,
        rule: "+hpexpireat",
        export: Want::No,
        import: Want::No,
        use_of: "the same for hash fields that expire",
        only_cluster: false,
        how: Try::Queued(&["HPEXPIREAT", ABSENT, "1", "FIELDS", "1", "f"]),
        fine: &[],
    },
    Probe {
        name: NATIVE_IDEMPOTENCY,
        rule: "+xcfgset",
        export: Want::No,
        import: Want::No,
        use_of: "the same for settings of idempotency of streams",
        only_cluster: false,
        how: Try::Queued(&["XCFGSET", ABSENT, "IDMP-DURATION", "1"]),
        fine: &[],
    },
    Probe {
        name: NATIVE_IDEMPOTENT_IDS,
        rule: "+xidmprecord",
        export: Want::No,
        import: Want::No,
        use_of: "the same for ids that streams remember of producers",
        only_cluster: false,
        how: Try::Queued(&["XIDMPRECORD", ABSENT, "p", "i", "1-1"]),
        fine: &[],
    },
    Probe {
        name: "SELECT",
        rule: "+select",
        export: Want::Useful,
        import: Want::Useful,
        use_of: "goes to other databases than 0",
        only_cluster: false,
        how: Try::Sent(&["SELECT", "0"]),
        fine: &[],
    },
    Probe {
        name: "INFO",
        rule: "+info",
        export: Want::Useful,
        import: Want::Useful,
        use_of: "tells databases, memory and evictions",
        only_cluster: false,
        how: Try::Sent(&["INFO", "server"]),
        fine: &[],
    },
    Probe {
        name: "DBSIZE",
        rule: "+dbsize",
        export: Want::Useful,
        import: Want::No,
        use_of: "counts the keys where INFO is refused",
        only_cluster: false,
        how: Try::Sent(&["DBSIZE"]),
        fine: &[],
    },
    Probe {
        name: "PEXPIRETIME",
        rule: "+pexpiretime",
        export: Want::Useful,
        import: Want::Useful,
        use_of: "reads the expiry as the moment it is",
        only_cluster: false,
        how: Try::Sent(&["PEXPIRETIME", ABSENT]),
        fine: &[],
    },
    Probe {
        name: "TIME",
        rule: "+time",
        export: Want::Useful,
        import: Want::Useful,
        use_of: "tells the server's clock",
        only_cluster: false,
        how: Try::Sent(&["TIME"]),
        fine: &[],
    },
    Probe {
        name: "MULTI, EXEC",
        rule: "+multi +exec",
        export: Want::Useful,
        import: Want::No,
        use_of: "reads value and expiry at the same moment",
        only_cluster: false,
        how: Try::Transaction,
        fine: &[],
    },
    Probe {
        name: "XINFO STREAM",
        rule: "+xinfo|stream",
        export: Want::Useful,
        import: Want::No,
        use_of: "shows changes of streams that nobody is told of",
        only_cluster: false,
        how: Try::Sent(&["XINFO", "STREAM", ABSENT]),
        fine: &["no such key"],
    },
    Probe {
        name: "CLIENT NO-TOUCH",
        rule: "+client|no-touch",
        export: Want::Useful,
        import: Want::No,
        use_of: "keeps an export from disturbing the LRU order",
        only_cluster: false,
        // Not ON: see source::server::probe.
        how: Try::Sent(&["CLIENT", "NO-TOUCH", "OFF"]),
        fine: &[],
    },
    Probe {
        name: "OBJECT IDLETIME",
        rule: "+object|idletime",
        export: Want::Useful,
        import: Want::No,
        use_of: "idle times, with --eviction",
        only_cluster: false,
        how: Try::Sent(&["OBJECT", "IDLETIME", ABSENT]),
        fine: &["no such key", "maxmemory policy"],
    },
    Probe {
        name: "OBJECT FREQ",
        rule: "+object|freq",
        export: Want::Useful,
        import: Want::No,
        use_of: "LFU frequencies, with --eviction",
        only_cluster: false,
        how: Try::Sent(&["OBJECT", "FREQ", ABSENT]),
        fine: &["no such key", "maxmemory policy"],
    },
    Probe {
        name: "FUNCTION DUMP",
        rule: "+function|dump",
        export: Want::Useful,
        import: Want::No,
        use_of: "reads function libraries",
        only_cluster: false,
        how: Try::Sent(&["FUNCTION", "DUMP"]),
        fine: &[],
    },
    Probe {
        name: "FUNCTION RESTORE",
        rule: "+function|restore",
        export: Want::No,
        import: Want::Useful,
        use_of: "writes function libraries",
        only_cluster: false,
        how: Try::Sent(&["FUNCTION", "RESTORE", ""]),
        fine: &["DUMP payload version or checksum"],
    },
    Probe {
        name: "FUNCTION LIST",
        rule: "+function|list",
        export: Want::No,
        import: Want::Useful,
        use_of: "compares a library that stands there already; reads them where DUMP is refused",
        only_cluster: false,
        how: Try::Sent(&["FUNCTION", "LIST", "LIBRARYNAME", ABSENT]),
        fine: &[],
    },
    Probe {
        name: "FUNCTION LOAD",
        rule: "+function|load",
        export: Want::No,
        import: Want::No,
        use_of: "writes function libraries where FUNCTION RESTORE is refused",
        only_cluster: false,
        how: Try::Sent(&["FUNCTION", "LOAD", "no library"]),
        fine: &["Missing library metadata", "library"],
    },
    Probe {
        name: "MODULE LIST",
        rule: "+module|list",
        export: Want::No,
        import: Want::Useful,
        use_of: "tells which modules' values can be restored",
        only_cluster: false,
        how: Try::Sent(&["MODULE", "LIST"]),
        fine: &[],
    },
    Probe {
        name: "EXISTS",
        rule: "+exists",
        export: Want::No,
        import: Want::Useful,
        use_of: "finds conflicts in a --dry-run",
        only_cluster: false,
        how: Try::Sent(&["EXISTS", ABSENT]),
        fine: &[],
    },
    Probe {
        name: "DEL",
        rule: "+del",
        export: Want::No,
        import: Want::Useful,
        use_of: "with --on-conflict replace, removes a key whose new value is past its time",
        only_cluster: false,
        how: Try::Sent(&["DEL", ABSENT]),
        fine: &[],
    },
    Probe {
        name: "CONFIG GET",
        rule: "+config|get",
        export: Want::No,
        import: Want::Useful,
        use_of: "tells limits",
        only_cluster: false,
        how: Try::Sent(&["CONFIG", "GET", "proto-max-bulk-len"]),
        fine: &[],
    },
    Probe {
        name: "HELLO",
        rule: "+hello",
        export: Want::Useful,
        import: Want::No,
        use_of: "for CLIENT TRACKING",
        only_cluster: false,
        how: Try::Sent(&["HELLO", "2"]),
        fine: &[],
    },
    Probe {
        name: "PING",
        rule: "+ping",
        export: Want::Useful,
        import: Want::Useful,
        use_of: "for CLIENT TRACKING; tells how long an answer takes",
        only_cluster: false,
        how: Try::Sent(&["PING"]),
        fine: &[],
    },
    Probe {
        name: "CLIENT TRACKING",
        rule: "+client|tracking",
        export: Want::Useful,
        import: Want::No,
        use_of: "tells which keys change while they are read",
        only_cluster: false,
        how: Try::Sent(&["CLIENT", "TRACKING", "OFF"]),
        fine: &[],
    },
    Probe {
        name: "CLIENT PAUSE",
        rule: "+client|pause +client|unpause",
        export: Want::No,
        import: Want::No,
        use_of: "with --consistency pause, holds writers for the last round",
        // With a time that is none, nobody is paused.
        only_cluster: false,
        how: Try::Sent(&["CLIENT", "PAUSE", "never", "WRITE"]),
        fine: &["not an integer", "timeout"],
    },
    Probe {
        name: "CLIENT ID, KILL",
        rule: "+client|id +client|kill",
        export: Want::No,
        import: Want::Useful,
        use_of: "after a connection was lost, makes sure that nothing of it comes late",
        only_cluster: false,
        // No client has this number.
        how: Try::Sent(&["CLIENT", "KILL", "ID", "9223372036854775807"]),
        fine: &["No such client"],
    },
    Probe {
        name: "WAIT",
        rule: "+wait",
        export: Want::No,
        import: Want::Useful,
        use_of: "makes sure that replicas have what was written, before a failover loses it",
        only_cluster: false,
        how: Try::Sent(&["WAIT", "0", "1"]),
        fine: &["replica instances"],
    },
    Probe {
        name: "CLUSTER SLOTS",
        rule: "+cluster|slots",
        export: Want::Needed,
        import: Want::Needed,
        use_of: "tells which node has which keys",
        only_cluster: true,
        how: Try::Sent(&["CLUSTER", "SLOTS"]),
        fine: &[],
    },
    Probe {
        name: "CLUSTER NODES",
        rule: "+cluster|nodes",
        export: Want::Useful,
        import: Want::No,
        use_of: "tells which slots are on their way to another node; without it nothing is exact",
        only_cluster: true,
        how: Try::Sent(&["CLUSTER", "NODES"]),
        fine: &[],
    },
    Probe {
        name: "ASKING",
        rule: "+asking",
        export: Want::Useful,
        import: Want::Useful,
        use_of: "reads and writes keys of slots that are on their way",
        only_cluster: true,
        how: Try::Sent(&["ASKING"]),
        fine: &[],
    },
    Probe {
        name: "READONLY",
        rule: "+readonly",
        export: Want::Useful,
        import: Want::No,
        use_of: "with --read-from replica",
        only_cluster: true,
        how: Try::Sent(&["READONLY"]),
        fine: &[],
    },
    Probe {
        name: "EVAL",
        rule: "+eval",
        export: Want::Useful,
        import: Want::No,
        use_of: "reads what changed in a shard at one instant; MULTI is for one slot only",
        only_cluster: true,
        how: Try::Sent(&["EVAL", "return 1", "0"]),
        fine: &[],
    },
    Probe {
        name: "PSYNC, REPLCONF",
        rule: "+psync +replconf",
        export: Want::No,
        import: Want::No,
        use_of: "with --via replica, reads a snapshot",
        only_cluster: false,
        how: Try::Asked(&["PSYNC", "?", "-1"]),
        fine: &[],
    },
];
