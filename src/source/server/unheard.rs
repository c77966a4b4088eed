//! Values that may change without anybody being told: no push of CLIENT TRACKING, no WATCH.
//!
//! Streams: consumer groups, XSETID and XCFGSET (t_stream.c signals no key for them). Values of modules: a
//! key is announced when a module closes it after opening it for writing (module.c, moduleCloseKey),
//! and some commands open it for reading only (CMS.INCRBY, FT.SUGDEL). What is of an unknown type
//! may be anything.

use crate::payload::{self, Kind, Reader, StreamForm, StreamId, kind_of, module_name};
use crate::record::Family;

/// How such a value is kept current.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unheard {
    /// XINFO STREAM tells whether it is still what was given.
    Looks(StreamFacts),
    /// Nothing tells: it is read again in the last round.
    Reads,
    /// All commands of its module that write were seen to be announced. It is read again in the last
    /// round only if the counts of commands show another one, or are not to be had.
    Counts(&'static Module),
}

/// What XINFO STREAM must say of a stream without groups for it to be still what was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StreamFacts {
    pub length: u64,
    pub last_id: StreamId,
    /// Entries added and highest deleted id, from Redis 7.0 on.
    pub added: Option<(u64, StreamId)>,
    /// Settings of idempotency and ids ever added: duration in seconds, most ids, count. From Redis
    /// 8.6 on. The ids themselves go with time, and nothing is changed by that.
    pub idempotency: Option<[u64; 3]>,
}

/// A module's type whose changes are announced.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::source) struct Module {
    /// Of its type, as it stands in payloads.
    type_name: &'static str,
    /// What the names of its commands begin with, in lower case.
    prefix: &'static str,
    /// The rest of the names of those that only read, or that write and are announced.
    known: &'static [&'static str],
}

/// Seen on real servers: each writing command of these changed a value, was pushed to a client that
/// tracks, and failed the transaction of one that watched (Redis Stack 7.4.1: ReJSON 2.8,
/// RedisTimeSeries 1.12, RedisBloom 2.8; vector sets of Redis 8.0). COMMAND names the others.
static MODULES: [Module; 7] = [
    Module {
        type_name: "ReJSON-RL",
        prefix: "json.",
        known: &[
            "arrappend",
            "arrindex",
            "arrinsert",
            "arrlen",
            "arrpop",
            "arrtrim",
            "clear",
            "debug",
            "del",
            "forget",
            "get",
            "merge",
            "mget",
            "mset",
            "numincrby",
            "nummultby",
            "objkeys",
            "objlen",
            "resp",
            "set",
            "strappend",
            "strlen",
            "toggle",
            "type",
        ],
    },
    Module {
        type_name: "TSDB-TYPE",
        prefix: "ts.",
        known: &[
            "add",
            "alter",
            "create",
            "createrule",
            "decrby",
            "del",
            "deleterule",
            "get",
            "incrby",
            "info",
            "madd",
            "mget",
            "mrange",
            "mrevrange",
            "queryindex",
            "range",
            "revrange",
        ],
    },
    Module {
        type_name: "MBbloom--",
        prefix: "bf.",
        known: &[
            "add",
            "card",
            "debug",
            "exists",
            "info",
            "insert",
            "loadchunk",
            "madd",
            "mexists",
            "reserve",
            "scandump",
        ],
    },
    Module {
        type_name: "MBbloomCF",
        prefix: "cf.",
        known: &[
            "add",
            "addnx",
            "compact",
            "count",
            "debug",
            "del",
            "exists",
            "info",
            "insert",
            "insertnx",
            "loadchunk",
            "mexists",
            "reserve",
            "scandump",
        ],
    },
    Module {
        type_name: "TopK-TYPE",
        prefix: "topk.",
        known: &["add", "incrby", "info", "list", "query", "reserve"],
    },
    Module {
        type_name: "TDIS-TYPE",
        prefix: "tdigest.",
        known: &[
            "add",
            "byrank",
            "byrevrank",
            "cdf",
            "create",
            "info",
            "max",
            "merge",
            "min",
            "quantile",
            "rank",
            "reset",
            "revrank",
            "trimmed_mean",
        ],
    },
    Module {
        type_name: "vectorset",
        prefix: "v",
        known: &[
            "add",
            "card",
            "dim",
            "emb",
            "getattr",
            "info",
            "ismember",
            "links",
            "randmember",
            "range",
            "rem",
            "setattr",
            "sim",
        ],
    },
];

impl Module {
    fn of_type(name: &str) -> Option<&'static Self> {
        MODULES.iter().find(|module| module.type_name == name)
    }

    /// What it is called in payloads.
    pub fn type_name(&self) -> &'static str {
        self.type_name
    }

    /// Whether a command, by its name in lower case, may change a value of this type unheard.
    pub fn may_be_silent(&self, command: &str) -> bool {
        command
            .strip_prefix(self.prefix)
            .is_some_and(|rest| !self.known.contains(&rest))
    }
}

/// All types of modules whose changes are announced, as far as is known.
pub(in crate::source) fn modules() -> impl Iterator<Item = &'static Module> {
    MODULES.iter()
}

/// Why the value of this payload may change unheard, if it may.
pub(super) fn unheard(family: Family, dump: &[u8]) -> Option<Unheard> {
    let value = payload::plain(family, dump);
    let type_byte = *value.first()?;
    match kind_of(family, type_byte) {
        Kind::Stream => Some(stream(family, dump)),
        Kind::Module => Some(
            match module_type(value).as_deref().and_then(Module::of_type) {
                Some(module) => Unheard::Counts(module),
                None => Unheard::Reads,
            },
        ),
        Kind::Unknown => Some(Unheard::Reads),
        Kind::String
        | Kind::List
        | Kind::Set
        | Kind::ZSet
        | Kind::Hash
        | Kind::Array
        | Kind::PathHash => None,
    }
}

fn stream(family: Family, dump: &[u8]) -> Unheard {
    let body = payload::split(dump)
        .map(|(body, _)| body)
        .unwrap_or_default();
    match payload::read(family, body) {
        Ok(Reader::Stream(stream)) if stream.groups.is_empty() => Unheard::Looks(StreamFacts {
            length: stream.counter,
            last_id: stream.last_id,
            added: (stream.form != StreamForm::V1)
                .then_some((stream.entries_added, stream.max_deleted_id)),
            idempotency: (stream.form >= StreamForm::V4).then(|| {
                let state = &stream.idempotency;
                [state.duration_secs, state.max_ids, state.ids_added]
            }),
        }),
        // Groups change unheard; and what cannot be read here may have some.
        _ => Unheard::Reads,
    }
}

/// The name of a module's type: the id behind the type byte, always in the long form of a length
/// because its upper bits are in use (rdb.c, rdbSaveObject). `None` for the values of modules
/// before Redis 4.0 GA, which begin otherwise.
fn module_type(dump: &[u8]) -> Option<String> {
    const MODULE_2: u8 = 7;
    const LENGTH_64: u8 = 0x81;
    let (head, rest) = dump.split_at_checked(2)?;
    let id = rest.first_chunk()?;
    (head == [MODULE_2, LENGTH_64]).then(|| module_name(u64::from_be_bytes(*id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::counts::CommandCounts;

    /// The id of a module's type (module.c, moduleTypeEncodeId).
    fn id(name: &str, version: u64) -> [u8; 8] {
        const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let id = name.chars().fold(0u64, |id, letter| {
            id << 6 | LETTERS.find(letter).expect("one of 64") as u64
        });
        (id << 10 | version).to_be_bytes()
    }

    fn module(name: &str) -> Vec<u8> {
        let mut dump = vec![7, 0x81];
        dump.extend(id(name, 3));
        dump.push(0);
        dump
    }

    #[test]
    fn what_nobody_is_told_of() {
        let of = |dump: &[u8]| unheard(Family::Redis, dump);
        assert_eq!(of(&module("CMSk-TYPE")), Some(Unheard::Reads));
        assert_eq!(of(&module("trietype0")), Some(Unheard::Reads));
        assert_eq!(of(&module("graphdata")), Some(Unheard::Reads));
        let json = Module::of_type("ReJSON-RL").expect("it is known");
        assert_eq!(of(&module("ReJSON-RL")), Some(Unheard::Counts(json)));
        // A value that cannot be looked into: cut short, of an old module, of an unknown type.
        assert_eq!(of(&[7]), Some(Unheard::Reads));
        assert_eq!(of(&[7, 0x81, 1]), Some(Unheard::Reads));
        assert_eq!(of(&[6, 0x81, 1, 2, 3, 4, 5, 6, 7, 8]), Some(Unheard::Reads));
        assert_eq!(of(&[99, 0]), Some(Unheard::Reads));
        assert_eq!(of(&[21, 0]), Some(Unheard::Reads));
        assert_eq!(of(&[0, 0]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn only_commands_that_were_seen_to_be_announced_are_trusted() {
        let json = Module::of_type("ReJSON-RL").expect("it is known");
        assert!(!json.may_be_silent("json.set"));
        assert!(json.may_be_silent("json.new"));
        assert!(!json.may_be_silent("get"));
        let vectors = Module::of_type("vectorset").expect("it is known");
        assert!(!vectors.may_be_silent("vadd"));
        assert!(vectors.may_be_silent("vnew"));
    }

    #[test]
    fn commands_of_modules_that_nobody_has_seen_announced() {
        let json = [7, 0x81, 0x45, 0xe2, 0x52, 0x38, 0xdf, 0x91, 0x2c, 0x03];
        let found = unheard(crate::record::Family::Redis, &json);
        let name = crate::payload::module_name(u64::from_be_bytes(json[2..].try_into().unwrap()));
        let Some(Unheard::Counts(module)) = found else {
            panic!("{name}: {found:?}");
        };
        let counts = |rows: &[(&str, u64)]| {
            let line =
                |(name, count): &(&str, u64)| format!("cmdstat_{name}:calls={count},usec=9\r\n");
            CommandCounts::parse(&rows.iter().map(line).collect::<String>()).expect("counts")
        };
        let before = counts(&[("json.set", 1), ("get", 1)]);
        let heard = counts(&[("json.set", 5), ("json.get", 1), ("get", 4)]);
        let silent = |now: &CommandCounts| {
            let mut called = now.called_since(&before);
            called
                .find(|name| module.may_be_silent(name))
                .map(str::to_owned)
        };
        assert_eq!(silent(&heard), None);
        let unheard_of = counts(&[("json.set", 5), ("json.new", 1)]);
        assert_eq!(silent(&unheard_of), Some("json.new".to_owned()));
    }
}
