//! What an export from this server, or an import into it, can promise, and what it cannot.

use super::access::Access;
use super::acl::Job;
use super::layout::Layout;
use super::probes::NATIVE;
use super::{Findings, not_known};
use crate::dialect::Encoding;
use crate::payload::FieldTtlForm;
use crate::policy::Method;
use crate::server::conn::asks_for_patience;
use crate::sink::server::gate::show_databases;
use crate::sink::server::refusal::{Outlook, has_no_absttl};
use crate::units::{bytes_text, count_text, plural};

/// How good a piece of news is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All well.
    Yes,
    /// Less than elsewhere.
    Less,
    /// Not at all.
    No,
    /// Not known: the server answers "not now".
    Unknown,
}

impl Verdict {
    /// One word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Less => "less",
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }
}

/// One promise, or one that cannot be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    /// Whether it holds.
    pub verdict: Verdict,
    /// What it is about, one word.
    pub about: &'static str,
    /// A sentence.
    pub text: String,
}

/// The promises of a job, in the order in which they matter.
pub fn promises(job: Job, found: &Findings) -> Vec<Promise> {
    let mut list = List(Vec::new());
    match job {
        Job::Export => export(found, &mut list),
        Job::Import | Job::Commands => import(found, &mut list),
    }
    list.0
}

/// Whether the job can be done at all; `None` where that is not known.
pub fn is_possible(promises: &[Promise]) -> Option<bool> {
    let has = |verdict| promises.iter().any(|promise| promise.verdict == verdict);
    match (has(Verdict::No), has(Verdict::Unknown)) {
        (true, _) => Some(false),
        (false, true) => None,
        (false, false) => Some(true),
    }
}

struct List(Vec<Promise>);

impl List {
    fn say(&mut self, verdict: Verdict, about: &'static str, text: impl Into<String>) {
        self.0.push(Promise {
            verdict,
            about,
            text: text.into(),
        });
    }

    /// Says that it is not known, where the server answers "not now" in these words; whether it was
    /// said.
    fn later(&mut self, about: &'static str, words: Option<&str>) -> bool {
        if let Some(words) = words {
            self.say(Verdict::Unknown, about, not_known(words));
        }
        words.is_some()
    }

    fn either(&mut self, holds: bool, about: &'static str, yes: &str, less: &str) {
        if holds {
            self.say(Verdict::Yes, about, yes);
        } else {
            self.say(Verdict::Less, about, less);
        }
    }
}

fn export(found: &Findings, list: &mut List) {
    let (facts, rights) = (&found.facts, &found.rights);
    cluster(found, list, "read");
    let expiry = rights.can("PTTL") || rights.can("PEXPIRETIME");
    let missing: Vec<&str> = [
        ("SCAN", rights.can("SCAN")),
        ("DUMP", rights.can("DUMP")),
        ("PTTL", expiry),
    ]
    .into_iter()
    .filter_map(|(name, can)| (!can).then_some(name))
    .collect();
    let is_refused = |name: &&str| match *name {
        "PTTL" => rights.later(&["PTTL", "PEXPIRETIME"]).is_none(),
        name => rights.of(name).later().is_none(),
    };
    let refused: Vec<&str> = missing
        .iter()
        .filter(|name| is_refused(name))
        .copied()
        .collect();
    if !missing.is_empty() && refused.is_empty() {
        list.later(
            "commands",
            rights.later(&["SCAN", "DUMP", "PTTL", "PEXPIRETIME"]),
        );
    } else if !missing.is_empty() {
        let text = format!("needs {}, which cannot be used here", refused.join(", "));
        list.say(Verdict::No, "commands", text);
    } else if *rights.of("DUMP") == Access::SomeKeys {
        list.say(
            Verdict::Less,
            "keys",
            "this user may not read every key; those outside of its pattern are reported, and the \
             run exits with 3",
        );
    }
    slots(found, list);
    moment(found, list);
    if list.later("pause", rights.later(&["CLIENT PAUSE"])) {
    } else if rights.can("CLIENT PAUSE") {
        let text = match facts.cluster {
            true => "--consistency pause can hold the writers of all shards for one common instant",
            false => {
                "--consistency pause can hold writers for the last round, if they write too much"
            }
        };
        list.say(Verdict::Yes, "pause", text);
    }
    if list.later("replica", rights.later(&["PSYNC, REPLCONF"])) {
    } else if rights.can("PSYNC, REPLCONF") {
        list.say(
            Verdict::Yes,
            "replica",
            "--via replica can read a snapshot of one moment",
        );
    }
    let words = rights.later(&["SELECT"]).or(keyspace_later(found));
    if facts.cluster || list.later("databases", words) {
        // A cluster has one database, of which nothing has to be said.
    } else if let Some(text) = entered(found) {
        let rows = found.databases.as_deref().unwrap_or_default();
        let text = match rows.iter().any(|row| found.closed.contains_key(&row.db)) {
            true => format!(
                "{text}: the keys there are counted as failed, and the run exits with 3 (--db N \
                 takes one database only)"
            ),
            false => text,
        };
        list.say(Verdict::Less, "databases", text);
    } else if !rights.can("SELECT") {
        list.say(
            Verdict::Less,
            "databases",
            "SELECT is refused: only database 0 can be read; if there are others with keys they \
             are counted as failed, and the run exits with 3 (--db 0 if they are not wanted)",
        );
    } else if facts.keyspace.is_some() {
        list.say(Verdict::Yes, "databases", "INFO names them");
    } else {
        list.say(Verdict::Yes, "databases", "found by trying them one by one");
    }
    let words = rights.later(&["PEXPIRETIME"]);
    let words = words.or(rights
        .later(&["TIME"])
        .filter(|_| !rights.can("PEXPIRETIME")));
    if list.later("expiry", words) {
    } else if rights.can("PEXPIRETIME") {
        list.say(Verdict::Yes, "expiry", "exact to the millisecond");
    } else if rights.can("TIME") {
        list.say(
            Verdict::Yes,
            "expiry",
            "from PTTL and the server's clock; a few milliseconds off at most",
        );
    } else {
        list.say(
            Verdict::Less,
            "expiry",
            "from PTTL and this machine's clock; as right as that clock is",
        );
    }
    let pairs = match rights.can("MULTI, EXEC") && !facts.cluster {
        true => "value and expiry of a key are read at the same moment",
        false => "the expiry of a key is read before its value and after it, until both are equal",
    };
    let words = rights.later(&["MULTI, EXEC"]).filter(|_| !facts.cluster);
    if !list.later("pairs", words) {
        list.say(Verdict::Yes, "pairs", pairs);
    }
    if facts.cluster {
        let text = "reading resets the idle time of every key, which matters only to a server that \
            evicts: with CLIENT NO-TOUCH, nodes of some versions die when a slot is on its way";
        list.say(Verdict::Less, "traces", text);
    } else if !list.later("traces", rights.later(&["CLIENT NO-TOUCH"])) {
        list.either(
            rights.can("CLIENT NO-TOUCH"),
            "traces",
            "reading does not disturb the LRU order (CLIENT NO-TOUCH)",
            "no CLIENT NO-TOUCH: reading resets the idle time of every key, which matters only to a \
             server that evicts",
        );
    }
    match (rights.of("FUNCTION DUMP"), rights.of("FUNCTION LIST")) {
        (Access::Allowed, _) | (_, Access::Allowed) => {
            list.say(Verdict::Yes, "functions", "function libraries are read");
        }
        (Access::Absent, Access::Absent) if facts.is_before_functions() => {
            list.say(Verdict::Yes, "functions", "this version has none");
        }
        _ if list.later(
            "functions",
            rights.later(&["FUNCTION DUMP", "FUNCTION LIST"]),
        ) => {}
        _ => list.say(
            Verdict::Less,
            "functions",
            "FUNCTION DUMP and FUNCTION LIST are refused: function libraries are not read",
        ),
    }
    let (command, what) = match facts.policy.as_deref() {
        Some(policy) if policy.contains("lfu") => ("OBJECT FREQ", "LFU frequencies"),
        _ => ("OBJECT IDLETIME", "idle times"),
    };
    if list.later("eviction", rights.later(&[command])) {
        return;
    }
    list.either(
        rights.can(command),
        "eviction",
        &format!("--eviction can carry {what}"),
        &format!("{command} is refused: --eviction carries nothing"),
    );
}

/// Whether all shards are there; `done` is what is to be done to them.
fn cluster(found: &Findings, list: &mut List, done: &str) {
    let shards = match &found.layout {
        Layout::Single { .. } => return,
        Layout::Cluster(Ok(shards)) => shards,
        Layout::Cluster(Err(_)) if list.later("cluster", found.layout.later()) => return,
        Layout::Cluster(Err(reason)) => {
            let text = format!("it is not known which node has which keys: {reason}");
            return list.say(Verdict::No, "cluster", text);
        }
    };
    let count = plural(shards.topology.shards.len() as u64, "shard");
    if let Some((slot, slots)) = shards.gap() {
        let text = format!(
            "nobody serves slot {slot}{}: what belongs there cannot be {done}",
            match slots {
                1 => String::new(),
                _ => format!(" and {} more", count_text(slots as u64 - 1)),
            }
        );
        list.say(Verdict::No, "cluster", text);
    } else if list.later("cluster", found.layout.later()) {
    } else if let Some((node, reason)) = shards.unreached() {
        let text = format!(
            "a primary of {count} is not reached: {reason} (--node-map {node}=HOST:PORT if it is \
             at another address from here)"
        );
        list.say(Verdict::No, "cluster", text);
    } else {
        let text = format!("{count}, every slot is served; all are {done} at the same time");
        list.say(Verdict::Yes, "cluster", text);
    }
}

/// Whether keys of slots that are on their way between nodes can be read.
fn slots(found: &Findings, list: &mut List) {
    let rights = &found.rights;
    let refused = |name: &str| !rights.can(name) && rights.of(name).later().is_none();
    if !found.facts.cluster {
    } else if refused("CLUSTER NODES") {
        let text = "CLUSTER NODES is refused: it is not known which slots are on their way from \
                    node to node; nothing is exact, and the run exits with 3";
        list.say(Verdict::Less, "slots", text);
    } else if refused("ASKING") {
        let text = "ASKING is refused: keys that are on their way from node to node are reported, \
                    and the run exits with 3";
        list.say(Verdict::Less, "slots", text);
    } else {
        list.later("slots", rights.later(&["CLUSTER NODES", "ASKING"]));
    }
}

/// Why INFO does not tell, where the server answers "not now" to it.
fn info_later(found: &Findings) -> Option<&str> {
    match found.facts.info {
        true => None,
        false => found.rights.later(&["INFO"]),
    }
}

/// Why it is not known which databases have keys, where the server answers "not now".
fn keyspace_later(found: &Findings) -> Option<&str> {
    let why = found.databases.as_ref().err().map(String::as_str);
    why.filter(|why| asks_for_patience(why))
}

/// Which databases this user may enter and which not, where some are refused.
fn entered(found: &Findings) -> Option<String> {
    let why = found.closed.values().next()?;
    let closed: Vec<u32> = found.closed.keys().copied().collect();
    let may = match found.open().as_slice() {
        [] => "none of the databases that were tried".to_owned(),
        open => show_databases(open),
    };
    let not = show_databases(&closed);
    Some(format!(
        "this user may enter {may}, but not {not} ({})",
        why.trim()
    ))
}

/// How exact an export can be.
fn moment(found: &Findings, list: &mut List) {
    let (facts, rights) = (&found.facts, &found.rights);
    let needs: &[&str] = match facts.cluster {
        true => &["CLIENT TRACKING", "HELLO", "PING", "CLUSTER NODES"],
        false => &["CLIENT TRACKING", "HELLO", "PING", "MULTI, EXEC"],
    };
    let missing = needs.iter().find(|name| !rights.can(name));
    let is_refused = |name: &&&str| !rights.can(name) && rights.of(name).later().is_none();
    let words = match needs.iter().find(is_refused) {
        Some(_) => None,
        None => (rights.later(needs)).or(rights.later(&["EVAL"]).filter(|_| facts.cluster)),
    };
    if list.later("moment", words) {
        return;
    }
    let missing = needs.iter().find(is_refused).or(missing);
    let (verdict, text) = match (missing, facts.cluster, rights.can("EVAL")) {
        (Some(name), _, _) => (
            Verdict::Less,
            format!("no {name}: each key as it was at some moment of the run"),
        ),
        (None, false, _) => (
            Verdict::Yes,
            "what changes meanwhile is read again, until all is as of one instant".to_owned(),
        ),
        (None, true, true) => (
            Verdict::Yes,
            "what changes meanwhile is read again, until each shard is as of one instant"
                .to_owned(),
        ),
        (None, true, false) => (
            Verdict::Less,
            "what changes meanwhile is read again, but without EVAL every key is current, and not \
             all of a shard as of one instant"
                .to_owned(),
        ),
    };
    list.say(verdict, "moment", text);
}

fn import(found: &Findings, list: &mut List) {
    let (facts, rights) = (&found.facts, &found.rights);
    cluster(found, list, "written");
    // In a cluster keys go to the primaries, whichever node is asked for them.
    match (facts.replica && !facts.cluster, rights.of("RESTORE")) {
        (false, _) => {
            let words = info_later(found).filter(|_| !facts.cluster);
            list.later("role", words);
        }
        (true, Access::Allowed | Access::SomeKeys) => list.say(
            Verdict::Less,
            "role",
            "this is a replica that takes writes; what is written here is lost when it syncs with \
             its primary",
        ),
        (true, _) => list.say(
            Verdict::No,
            "role",
            "this is a replica; write to its primary",
        ),
    }
    commands(found, list);
    databases(found, list);
    let accepts = found.target.accepts();
    let words = found.accepts_later();
    if found.goes_by_commands() {
        // No payload goes there.
    } else if let Some(words) = words {
        for about in ["payloads", "field expiry", "streams"] {
            list.later(about, Some(words));
        }
    } else if found.target.probed {
        let text = format!(
            "RDB versions {}; tried out, as were the types below",
            accepts.versions
        );
        list.say(Verdict::Yes, "payloads", text);
    } else {
        let text = format!(
            "RDB versions {}, going by the server's version: it could not be tried out",
            accepts.versions
        );
        list.say(Verdict::Less, "payloads", text);
    }
    if words.is_none() {
        forms(found, list);
    }
    match (rights.of("FUNCTION RESTORE"), rights.of("FUNCTION LOAD")) {
        (Access::Allowed, _) | (_, Access::Allowed) => {
            list.say(Verdict::Yes, "functions", "function libraries are written");
        }
        (Access::Absent, Access::Absent) => list.say(
            Verdict::Less,
            "functions",
            "this server has no functions: libraries are refused unless --allow-loss functions",
        ),
        _ if list.later(
            "functions",
            rights.later(&["FUNCTION RESTORE", "FUNCTION LOAD"]),
        ) => {}
        _ => list.say(
            Verdict::Less,
            "functions",
            "neither FUNCTION RESTORE nor FUNCTION LOAD can be used: function libraries are refused",
        ),
    }
    let limit = bytes_text(found.limits.largest_payload_bytes());
    let words = found.limits.later.as_deref().or(rights.later(&[NATIVE]));
    if list.later("size", words) {
    } else if found.limits.max_bulk_bytes.is_some() {
        let text = format!("one RESTORE may carry {limit}");
        size(found, list, text);
    } else {
        let text = format!("CONFIG GET is refused; RESTORE is taken to carry {limit}, the default");
        size(found, list, text);
    }
    memory(found, list);
    if list.later("conflicts", rights.later(&["DUMP"])) {
        return;
    }
    list.either(
        rights.can("DUMP"),
        "conflicts",
        "a key that stands there already with the same value and expiry counts as unchanged",
        "DUMP is refused: a key that stands there already is a conflict, even if it is equal",
    );
}

/// In which forms values are written.
fn forms(found: &Findings, list: &mut List) {
    let accepts = found.target.accepts();
    let (field_ttl, metadata) = match found.goes_by_commands() {
        true => (
            found.features.field_ttl_max_ms.is_some(),
            found.features.stream_metadata,
        ),
        false => (
            accepts.forms().field_ttl != FieldTtlForm::Dropped,
            accepts.types.contains(Encoding::Stream2.type_byte()),
        ),
    };
    list.either(
        field_ttl,
        "field expiry",
        "hash fields keep their expiry",
        "this server has no expiry of hash fields: such hashes are refused unless --allow-loss \
         hash-field-ttl",
    );
    let has_streams = match found.goes_by_commands() {
        true => found.features.streams,
        false => [15, 19, 21]
            .iter()
            .any(|byte| accepts.types.contains(*byte)),
    };
    if !has_streams {
        let text = "this server takes no streams: they are refused by name";
        return list.say(Verdict::Less, "streams", text);
    }
    list.either(
        metadata,
        "streams",
        "stream metadata is kept as far as the source has it",
        "no stream metadata (entries added, entries read, highest deleted id): it is left \
         out, and counted",
    );
}

/// By which commands keys would be written: the same judgement as that of an import and of its dry
/// run.
fn commands(found: &Findings, list: &mut List) {
    let (facts, rights) = (&found.facts, &found.rights);
    let text = match rights.of("RESTORE") {
        Access::Allowed => return,
        Access::SomeKeys => {
            return list.say(
                Verdict::Less,
                "keys",
                "this user may not write every key; those outside of its pattern are refused and \
                 reported (--prefix tries with names that begin as yours)",
            );
        }
        Access::Later(text) => {
            list.later("commands", Some(text));
            return;
        }
        // Said already.
        Access::Blocked(_) if facts.replica => return,
        Access::Blocked(text) | Access::Refused(text) => text.as_str(),
        Access::Absent => "ERR unknown command",
        Access::Unknown => {
            let text = "whether RESTORE can be used could not be found out";
            return list.say(Verdict::Less, "commands", text);
        }
    };
    match Outlook::of(text, Method::Auto) {
        Outlook::Nothing(advice) => {
            list.say(Verdict::No, "commands", format!("{advice} ({text})"));
        }
        Outlook::ByCommands if list.later("commands", rights.later(&[NATIVE])) => {}
        Outlook::ByCommands if rights.can(NATIVE) => list.say(
            Verdict::Less,
            "commands",
            match has_no_absttl(text) {
                true => {
                    "RESTORE has no ABSTTL here: native commands write everything but modules' \
                     values, and slower"
                }
                false => {
                    "RESTORE is refused: native commands write everything but modules' values, and \
                     slower"
                }
            },
        ),
        Outlook::ByCommands => list.say(
            Verdict::No,
            "commands",
            "needs RESTORE, or native commands, and can use neither",
        ),
        Outlook::Open => list.say(
            Verdict::Less,
            "commands",
            format!("RESTORE was refused, and so may every key be: {text}"),
        ),
    }
}

/// Which databases can be written.
fn databases(found: &Findings, list: &mut List) {
    if found.facts.cluster {
        return;
    }
    if list.later("databases", found.rights.later(&["SELECT"])) {
    } else if let Some(text) = entered(found) {
        list.say(Verdict::Less, "databases", text);
    } else if !found.rights.can("SELECT") {
        list.say(
            Verdict::Less,
            "databases",
            "SELECT is refused: only database 0 can be written",
        );
    }
    if let Some((_, needs)) = &found.archive {
        for (dbs, keys, why) in needs.closed_told() {
            list.say(
                Verdict::Less,
                "databases",
                format!(
                    "{dbs}: not to be had ({why}): {} that would go there will be refused; \
                     --map-db puts them into another database",
                    plural(keys, "key")
                ),
            );
        }
    }
}

fn size(found: &Findings, list: &mut List, limit: String) {
    if found.rights.can(NATIVE) {
        let text = format!("{limit}; larger values go by native commands, in chunks");
        list.say(Verdict::Yes, "size", text);
    } else {
        let text =
            format!("{limit}; larger values are refused: not all native commands are usable");
        list.say(Verdict::Less, "size", text);
    }
}

fn memory(found: &Findings, list: &mut List) {
    let facts = &found.facts;
    if list.later("memory", info_later(found)) {
        return;
    }
    match (facts.maxmemory, facts.used_memory, facts.policy.as_deref()) {
        (Some(max @ 1..), used, policy) => {
            let room = bytes_text(max.saturating_sub(used.unwrap_or(0)));
            match policy {
                Some("noeviction") | None => list.say(
                    Verdict::Yes,
                    "memory",
                    format!("room for {room}; what does not fit is refused"),
                ),
                Some(policy) => list.say(
                    Verdict::Less,
                    "memory",
                    format!(
                        "room for {room}; then keys are evicted ({policy}), which is counted and \
                         exits with 3"
                    ),
                ),
            }
        }
        (Some(0), _, _) => list.say(Verdict::Yes, "memory", "no maxmemory is set"),
        (None, _, _) => list.say(
            Verdict::Less,
            "memory",
            "the server does not tell its maxmemory: neither room nor evictions can be watched",
        ),
    }
}
