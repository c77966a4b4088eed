//! What an export from this server, or an import into it, can promise, and what it cannot.

use super::Findings;
use super::access::Access;
use super::acl::Job;
use super::layout::Layout;
use super::probes::NATIVE;
use crate::payload::FieldTtlForm;
use crate::policy::Method;
use crate::server::conn::asks_for_patience;
use crate::sink::server::refusal::Outlook;
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
}

impl Verdict {
    /// One word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Less => "less",
            Self::No => "no",
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

/// Whether the job can be done at all.
pub fn is_possible(promises: &[Promise]) -> bool {
    promises
        .iter()
        .all(|promise| promise.verdict != Verdict::No)
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
    if !missing.is_empty() {
        let text = format!("needs {}, which cannot be used here", missing.join(", "));
        list.say(Verdict::No, "commands", text);
    } else if *rights.of("DUMP") == Access::SomeKeys {
        list.say(
            Verdict::Less,
            "keys",
            "this user may not read every key; those outside of its pattern are reported, and the \
             run exits with 3",
        );
    }
    moment(found, list);
    if rights.can("CLIENT PAUSE") {
        let text = match facts.cluster {
            true => "--consistency pause can hold the writers of all shards for one common instant",
            false => {
                "--consistency pause can hold writers for the last round, if they write too much"
            }
        };
        list.say(Verdict::Yes, "pause", text);
    }
    if rights.can("PSYNC, REPLCONF") {
        list.say(
            Verdict::Yes,
            "replica",
            "--via replica can read a snapshot of one moment",
        );
    }
    if facts.cluster {
        // One database, of which nothing has to be said.
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
    if rights.can("PEXPIRETIME") {
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
    list.say(Verdict::Yes, "pairs", pairs);
    if facts.cluster {
        let text = "reading resets the idle time of every key, which matters only to a server that \
            evicts: with CLIENT NO-TOUCH, nodes of some versions die when a slot is on its way";
        list.say(Verdict::Less, "traces", text);
    } else {
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
        (Access::Absent, Access::Absent) => {
            list.say(Verdict::Yes, "functions", "there are none before 7.0");
        }
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

/// How exact an export can be.
fn moment(found: &Findings, list: &mut List) {
    let (facts, rights) = (&found.facts, &found.rights);
    let needs: &[&str] = match facts.cluster {
        true => &["CLIENT TRACKING", "HELLO", "PING"],
        false => &["CLIENT TRACKING", "HELLO", "PING", "MULTI, EXEC"],
    };
    let missing = needs.iter().find(|name| !rights.can(name));
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
        (false, _) => {}
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
    if found.target.probed {
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
    list.either(
        accepts.forms().field_ttl != FieldTtlForm::Dropped,
        "field expiry",
        "hash fields keep their expiry",
        "this server has no expiry of hash fields: such hashes are refused unless --allow-loss \
         hash-field-ttl",
    );
    list.either(
        accepts.types.contains(19),
        "streams",
        "stream metadata is kept as far as the source has it",
        "no stream metadata of 7.0 (entries added, entries read, highest deleted id): it is left \
         out, and counted",
    );
    match (rights.of("FUNCTION RESTORE"), rights.of("FUNCTION LOAD")) {
        (Access::Allowed, _) | (_, Access::Allowed) => {
            list.say(Verdict::Yes, "functions", "function libraries are written");
        }
        (Access::Absent, Access::Absent) => list.say(
            Verdict::Less,
            "functions",
            "this server has no functions: libraries are refused unless --allow-loss functions",
        ),
        _ => list.say(
            Verdict::Less,
            "functions",
            "neither FUNCTION RESTORE nor FUNCTION LOAD can be used: function libraries are refused",
        ),
    }
    let limit = bytes_text(found.limits.largest_payload_bytes());
    if found.limits.max_bulk_bytes.is_some() {
        let text = format!("one RESTORE may carry {limit}");
        size(found, list, text);
    } else {
        let text = format!("CONFIG GET is refused; RESTORE is taken to carry {limit}, the default");
        size(found, list, text);
    }
    memory(found, list);
    list.either(
        rights.can("DUMP"),
        "conflicts",
        "a key that stands there already with the same value and expiry counts as unchanged",
        "DUMP is refused: a key that stands there already is a conflict, even if it is equal",
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
        Outlook::ByCommands if rights.can(NATIVE) => list.say(
            Verdict::Less,
            "commands",
            "RESTORE is refused: native commands write everything but modules' values, and slower",
        ),
        Outlook::ByCommands => list.say(
            Verdict::No,
            "commands",
            "needs RESTORE, or native commands, and can use neither",
        ),
        Outlook::Open if asks_for_patience(text) => list.say(
            Verdict::No,
            "commands",
            format!("RESTORE does not work at present: {text}"),
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
    if !found.rights.can("SELECT") {
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
            "INFO is refused: neither room nor evictions can be watched",
        ),
    }
}
