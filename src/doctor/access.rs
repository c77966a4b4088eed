//! Which commands this user may use here. Each is tried so that it does nothing: on a key that does
//! not exist, with an argument that cannot be right, or queued in a MULTI that is never executed.
//! What cannot be tried without doing it (PSYNC) is asked about.

use crate::server::{Conn, ServerError};

/// A name that nobody uses.
const ABSENT: &str = crate::server::ABSENT_KEY;

/// What a try of a command showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// It may be used.
    Allowed,
    /// It may be used, but not on every key.
    SomeKeys,
    /// It may be used, but does not work at present: the server is full, a replica, loading.
    Blocked(String),
    /// It is refused, in the server's words.
    Refused(String),
    /// The server does not have it.
    Absent,
    /// It could not be tried.
    Unknown,
}

impl Access {
    /// Whether the tool can use it.
    pub fn is_usable(&self) -> bool {
        matches!(self, Self::Allowed | Self::SomeKeys)
    }

    /// One word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Allowed => "yes",
            Self::SomeKeys => "some keys",
            Self::Blocked(_) => "not now",
            Self::Refused(_) => "refused",
            Self::Absent => "not there",
            Self::Unknown => "unknown",
        }
    }

    /// The server's words, where there are any.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Blocked(text) | Self::Refused(text) => Some(text),
            _ => None,
        }
    }

    /// What an error reply says. `fine`: complaints about arguments that prove the right to it.
    fn of_error(text: String, fine: &[&str]) -> Self {
        let is_one_of = |words: &[&str]| words.iter().any(|word| text.starts_with(word));
        if fine.iter().any(|fine| text.contains(fine)) || is_one_of(&["MOVED", "ASK", "CROSSSLOT"])
        {
            Self::Allowed
        } else if text.starts_with("NOPERM") {
            // "…permissions to access a key" (7.0), "…one of the keys used as arguments" (6.0).
            if text.contains("key") && !text.contains("command") {
                Self::SomeKeys
            } else {
                Self::Refused(text)
            }
        } else if text.starts_with("ERR unknown command")
            || text.to_ascii_lowercase().contains("unknown subcommand")
        {
            Self::Absent
        } else if is_one_of(&[
            "OOM",
            "READONLY",
            "MISCONF",
            "LOADING",
            "MASTERDOWN",
            "NOREPLICAS",
            "CLUSTERDOWN",
        ]) {
            Self::Blocked(text)
        } else {
            Self::Refused(text)
        }
    }
}

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
enum Try {
    /// Sent as it is; harmless because of its arguments.
    Sent(&'static [&'static str]),
    /// Queued in a MULTI that is never executed: several, which are usable if all of them are.
    Queued(&'static [&'static [&'static str]]),
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
    how: Try,
    /// Parts of error replies that prove the right to use it.
    fine: &'static [&'static str],
}

/// The group of commands that write without RESTORE.
pub const NATIVE: &str = "native commands";

/// The one more for hash fields that expire.
pub const NATIVE_FIELDS: &str = "HPEXPIREAT";

/// What `sink::server::commands` says that it uses.
const NATIVE_COMMANDS: &[&[&str]] = &[
    &["SET", ABSENT, "v"],
    &["APPEND", ABSENT, "v"],
    &["STRLEN", ABSENT],
    &["RPUSH", ABSENT, "v"],
    &["LLEN", ABSENT],
    &["SADD", ABSENT, "v"],
    &["SCARD", ABSENT],
    &["ZADD", ABSENT, "1", "v"],
    &["ZCARD", ABSENT],
    &["HSET", ABSENT, "f", "v"],
    &["HLEN", ABSENT],
    &["XADD", ABSENT, "1-1", "f", "v"],
    &["XLEN", ABSENT],
    &["XSETID", ABSENT, "1-1"],
    &["XDEL", ABSENT, "1-1"],
    &["XTRIM", ABSENT, "MAXLEN", "0"],
    &["XCLAIM", ABSENT, "g", "c", "0", "1-1"],
    &["XGROUP", "CREATE", ABSENT, "g", "$"],
    &["XREADGROUP", "GROUP", "g", "c", "STREAMS", ABSENT, "0"],
    &["EXISTS", ABSENT],
    &["PEXPIREAT", ABSENT, "1"],
    &["RENAME", ABSENT, ABSENT],
    &["RENAMENX", ABSENT, ABSENT],
    &["UNLINK", ABSENT],
];

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
        use_of: "reads the expiry, before 7.0",
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
        how: Try::Queued(NATIVE_COMMANDS),
        fine: &[],
    },
    Probe {
        name: NATIVE_FIELDS,
        rule: "+hpexpireat",
        export: Want::No,
        import: Want::No,
        use_of: "the same for hash fields that expire",
        only_cluster: false,
        how: Try::Queued(&[&["HPEXPIREAT", ABSENT, "1", "FIELDS", "1", "f"]]),
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
        how: Try::Sent(&["CLIENT", "NO-TOUCH", "ON"]),
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
        use_of: "tells which slots are on their way to another node",
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

/// What all the tries showed.
#[derive(Debug, Clone, Default)]
pub struct Rights {
    tried: Vec<(&'static str, Access)>,
    cluster: bool,
}

impl Rights {
    /// Tries every command of [`PROBES`]; those for clusters in a `cluster` only. `again` opens further connections as the same user, for
    /// tries that leave one unusable.
    ///
    /// # Errors
    /// The connections.
    pub fn learn(
        conn: &mut Conn,
        mut again: impl FnMut() -> Result<Conn, ServerError>,
        cluster: bool,
    ) -> Result<Self, ServerError> {
        conn.doing("trying which commands may be used");
        let mut rights = Self {
            tried: Vec::with_capacity(PROBES.len()),
            cluster,
        };
        for probe in PROBES {
            if !rights.concerns(probe) {
                continue;
            }
            let access = match probe.how {
                Try::Sent(args) => send(conn, args, probe.fine)?,
                Try::Queued(commands) => queue(&mut again()?, commands, probe.fine)?,
                Try::Transaction => {
                    // MULTI without the right to EXEC would leave it stuck.
                    let mut other = again()?;
                    match send(&mut other, &["MULTI"], &[])? {
                        Access::Allowed => send(&mut other, &["EXEC"], &[])?,
                        access => access,
                    }
                }
                Try::Asked(args) => ask(conn, args)?,
            };
            rights.tried.push((probe.name, access));
        }
        Ok(rights)
    }

    /// Whether the command is of any use here.
    pub fn concerns(&self, probe: &Probe) -> bool {
        self.cluster || !probe.only_cluster
    }

    /// What the try of one command showed.
    pub fn of(&self, name: &str) -> &Access {
        self.tried
            .iter()
            .find(|(known, _)| *known == name)
            .map_or(&Access::Unknown, |(_, access)| access)
    }

    /// Whether the tool can use it.
    pub fn can(&self, name: &str) -> bool {
        self.of(name).is_usable()
    }
}

fn send(conn: &mut Conn, args: &[&str], fine: &[&str]) -> Result<Access, ServerError> {
    let mut command = redis::Cmd::new();
    command.arg(args);
    Ok(match conn.try_query(&command)? {
        Ok(_) => Access::Allowed,
        Err(text) => Access::of_error(text, fine),
    })
}

/// Queued commands are checked for existence, rights, memory and role. They are never executed: the
/// connection is not used for anything else.
fn queue(conn: &mut Conn, commands: &[&[&str]], fine: &[&str]) -> Result<Access, ServerError> {
    let multi = send(conn, &["MULTI"], &[])?;
    if multi != Access::Allowed {
        return Ok(multi);
    }
    let mut worst = Access::Allowed;
    for args in commands {
        match send(conn, args, fine)? {
            Access::Allowed => {}
            Access::SomeKeys => worst = Access::SomeKeys,
            other => return Ok(other),
        }
    }
    Ok(worst)
}

/// Whether a command is there, by COMMAND INFO, and whether this user may use it, by ACL DRYRUN
/// (7.0). Where those are refused nothing is known.
fn ask(conn: &mut Conn, args: &[&str]) -> Result<Access, ServerError> {
    let mut info = redis::cmd("COMMAND");
    info.arg("INFO").arg(args.first());
    if let Ok(redis::Value::Array(rows)) = conn.try_query(&info)?
        && rows
            .iter()
            .all(|row| matches!(row, redis::Value::Nil) || *row == redis::Value::Array(Vec::new()))
    {
        return Ok(Access::Absent);
    }
    let Ok(user) = conn.try_query(redis::cmd("ACL").arg("WHOAMI"))? else {
        return Ok(Access::Unknown);
    };
    let user: String = redis::from_redis_value(user).unwrap_or_default();
    let mut dry_run = redis::cmd("ACL");
    dry_run.arg("DRYRUN").arg(user).arg(args);
    Ok(match conn.try_query(&dry_run)? {
        Ok(redis::Value::Okay) => Access::Allowed,
        Ok(other) => Access::Refused(redis::from_redis_value::<String>(other).unwrap_or_default()),
        Err(_) => Access::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_servers_are_told_apart() {
        let of = |text: &str| Access::of_error(text.to_owned(), &["no such key"]);
        assert_eq!(of("ERR no such key"), Access::Allowed);
        assert_eq!(of("MOVED 1 127.0.0.1:1"), Access::Allowed);
        for text in [
            "NOPERM No permissions to access a key",
            "NOPERM this user has no permissions to access one of the keys used as arguments",
        ] {
            assert_eq!(of(text), Access::SomeKeys, "{text}");
        }
        for text in [
            "NOPERM User least has no permissions to run the 'time' command",
            "NOPERM this user has no permissions to run the 'time' command or its subcommand",
        ] {
            assert_eq!(of(text), Access::Refused(text.to_owned()));
        }
        for text in [
            "ERR unknown command 'PEXPIRETIME'",
            "ERR unknown subcommand 'NO-TOUCH'. Try CLIENT HELP.",
            "ERR Unknown subcommand or wrong number of arguments for 'PAUSE'. Try CLIENT HELP.",
        ] {
            assert_eq!(of(text), Access::Absent, "{text}");
        }
        let full = "OOM command not allowed when used memory > 'maxmemory'.";
        assert_eq!(of(full), Access::Blocked(full.to_owned()));
    }

    #[test]
    fn every_command_is_named_once_and_in_a_rule() {
        for (n, probe) in PROBES.iter().enumerate() {
            assert!(probe.rule.starts_with('+'), "{}", probe.name);
            assert!(PROBES[..n].iter().all(|other| other.name != probe.name));
        }
    }
}
