//! What an export from this server, or an import into it, can promise, and what it cannot: a table of
//! topics for each, and how each is answered.

use serde::Serialize;

use super::access::Access;
use super::acl::AclJob;
use super::layout::Layout;
use super::probes::NATIVE;
use super::server::Told;
use super::{Findings, not_known};
use crate::dialect::Encoding;
use crate::payload::FieldTtlForm;
use crate::policy::Method;
use crate::sink::server::gate::show_databases;
use crate::sink::server::refusal::{Outlook, has_no_absttl};
use crate::units::{bytes_text, count_text, plural};

/// How good a piece of news is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Yes,
    /// Less than elsewhere.
    Less,
    /// Not at all.
    No,
    /// Not known: the server answers "not now".
    Unknown,
}

impl Verdict {
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Promise {
    /// Whether it holds.
    pub verdict: Verdict,
    /// What it is about, one word.
    pub about: &'static str,
    pub text: String,
}

/// Sentences about one topic, or none where there is nothing to say; else the words of a server that
/// answers "not now", which makes it unknown.
type TopicAnswer<'a> = Result<Vec<(Verdict, String)>, &'a str>;

/// How a topic is answered.
enum HowTold {
    /// By whether its commands can be used; the sentences for both.
    Usable(&'static str, &'static str),
    /// Only where its commands can be used.
    Offer(&'static str),
    /// By what was found.
    By(fn(&Findings) -> TopicAnswer<'_>),
}

use HowTold::{By, Offer, Usable};

/// What it is about; the commands that it takes, of which an answer "not now" makes it unknown; and
/// how it is answered otherwise.
type Topic = (&'static str, &'static [&'static str], HowTold);

/// In the order in which they matter.
const EXPORT: &[Topic] = &[
    ("cluster", &[], By(|found| cluster(found, "read"))),
    ("commands", &[], By(reading)),
    ("keys", &[], By(readable_keys)),
    ("slots", &[], By(slots)),
    ("moment", &[], By(moment)),
    ("pause", &["CLIENT PAUSE"], By(pause)),
    (
        "replica",
        &["PSYNC, REPLCONF"],
        Offer("--via replica can read a snapshot of one point in time"),
    ),
    ("databases", &[], By(readable_databases)),
    ("expiry", &["PEXPIRETIME"], By(expiry)),
    ("pairs", &[], By(pairs)),
    ("traces", &[], By(traces)),
    ("functions", &[], By(functions_read)),
    ("eviction", &[], By(eviction)),
];

const IMPORT: &[Topic] = &[
    ("cluster", &[], By(|found| cluster(found, "written"))),
    ("role", &[], By(role)),
    ("keys", &[], By(writable_keys)),
    ("commands", &["RESTORE"], By(writing)),
    ("databases", &[], By(writable_databases)),
    ("payloads", &[], By(payloads)),
    ("field expiry", &[], By(field_expiry)),
    ("streams", &[], By(streams)),
    ("functions", &[], By(functions_written)),
    ("size", &[NATIVE], By(size)),
    ("memory", &[], By(memory)),
    (
        "conflicts",
        &["DUMP"],
        Usable(
            "an existing key with the same value and expiry counts as unchanged",
            "DUMP is refused: every existing key is a conflict, even one with the same value",
        ),
    ),
];

/// The promises of a job, in the order in which they matter.
pub fn promises(job: AclJob, found: &Findings) -> Vec<Promise> {
    let topics = match job {
        AclJob::Export => EXPORT,
        AclJob::Import | AclJob::Commands => IMPORT,
    };
    let mut promises = Vec::new();
    for (about, commands, how) in topics {
        let is_usable = commands.iter().all(|name| found.rights.can(name));
        let answer = known(found.rights.later(commands)).and_then(|()| match how {
            Usable(yes_text, less_text) => either(is_usable, yes_text, less_text),
            Offer(text) if is_usable => yes(*text),
            Offer(_) => silence(),
            By(answer) => answer(found),
        });
        let sentences = answer.unwrap_or_else(|words| vec![(Verdict::Unknown, not_known(words))]);
        promises.extend(sentences.into_iter().map(|(verdict, text)| Promise {
            verdict,
            about,
            text,
        }));
    }
    promises
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

/// Goes on where no server answers "not now".
fn known(later: Option<&str>) -> Result<(), &str> {
    later.map_or(Ok(()), Err)
}

fn say(verdict: Verdict, text: impl Into<String>) -> TopicAnswer<'static> {
    Ok(vec![(verdict, text.into())])
}

fn silence() -> TopicAnswer<'static> {
    Ok(Vec::new())
}

fn yes(text: impl Into<String>) -> TopicAnswer<'static> {
    say(Verdict::Yes, text)
}

fn less(text: impl Into<String>) -> TopicAnswer<'static> {
    say(Verdict::Less, text)
}

fn no(text: impl Into<String>) -> TopicAnswer<'static> {
    say(Verdict::No, text)
}

fn either(holds: bool, yes_text: &str, less_text: &str) -> TopicAnswer<'static> {
    match holds {
        true => yes(yes_text),
        false => less(less_text),
    }
}

/// Whether all shards are there; `done` is what is to be done to their keys.
fn cluster<'a>(found: &'a Findings, done: &str) -> TopicAnswer<'a> {
    let shards = match &found.layout {
        Layout::Single { .. } => return silence(),
        Layout::Cluster(Told::Known(shards)) => shards,
        Layout::Cluster(Told::Later(words)) => return Err(words),
        Layout::Cluster(Told::Refused(reason)) => {
            return no(format!("cannot tell which node has which keys: {reason}"));
        }
    };
    let count = plural(shards.topology.shards.len() as u64, "shard");
    if let Some((slot, slots)) = shards.gap() {
        let more = match slots {
            1 => String::new(),
            _ => format!(" and {} more", count_text(slots as u64 - 1)),
        };
        return no(format!(
            "no node serves slot {slot}{more}: keys of unserved slots cannot be {done}"
        ));
    }
    known(found.layout.later())?;
    match shards.unreached() {
        Some((node, reason)) => no(format!(
            "cannot reach a primary of {count}: {reason} (if it has another address from here, name \
             it with --node-map {node}=HOST:PORT)"
        )),
        None => yes(format!(
            "{count}, every slot is served; all shards are {done} at the same time"
        )),
    }
}

/// Whether the commands that an export cannot do without can be used.
fn reading(found: &Findings) -> TopicAnswer<'_> {
    let rights = &found.rights;
    let any_of: [(&str, &[&str]); 3] = [
        ("SCAN", &["SCAN"]),
        ("DUMP", &["DUMP"]),
        ("PTTL", &["PTTL", "PEXPIRETIME"]),
    ];
    let missing = any_of
        .iter()
        .filter(|(_, names)| !names.iter().any(|name| rights.can(name)));
    let (later, refused): (Vec<_>, Vec<_>) =
        missing.partition(|(_, names)| rights.later(names).is_some());
    if refused.is_empty() {
        known(later.iter().find_map(|(_, names)| rights.later(names)))?;
        return silence();
    }
    let refused: Vec<&str> = refused.iter().map(|(name, _)| *name).collect();
    no(format!(
        "an export needs {}, which cannot be used here",
        refused.join(", ")
    ))
}

fn readable_keys(found: &Findings) -> TopicAnswer<'_> {
    match found.rights.of("DUMP") {
        Access::SomeKeys => less(
            "this user may not read every key: the other keys are reported as failed, and the run \
             exits with 3",
        ),
        _ => silence(),
    }
}

/// Whether keys of slots that migrate between nodes can be read.
fn slots(found: &Findings) -> TopicAnswer<'_> {
    let rights = &found.rights;
    let is_refused = |name: &str| !rights.can(name) && rights.of(name).later().is_none();
    if !found.facts.cluster {
        silence()
    } else if is_refused("CLUSTER NODES") {
        less(
            "CLUSTER NODES is refused: migrating slots cannot be seen, so nothing is exact and the \
             run exits with 3",
        )
    } else if is_refused("ASKING") {
        less(
            "ASKING is refused: keys of migrating slots are reported as failed, and the run exits with 3",
        )
    } else {
        known(rights.later(&["CLUSTER NODES", "ASKING"]))?;
        silence()
    }
}

/// How exact an export can be.
fn moment(found: &Findings) -> TopicAnswer<'_> {
    let (is_cluster, rights) = (found.facts.cluster, &found.rights);
    let needs: &[&str] = match is_cluster {
        true => &["CLIENT TRACKING", "HELLO", "PING", "CLUSTER NODES"],
        false => &["CLIENT TRACKING", "HELLO", "PING", "MULTI, EXEC"],
    };
    let mut needed = needs.iter();
    if let Some(name) = needed.find(|name| !rights.can(name) && rights.of(name).later().is_none()) {
        return less(format!(
            "{name} cannot be used: each key as it was at some time during the run"
        ));
    }
    let eval_later = rights.later(&["EVAL"]).filter(|_| is_cluster);
    known(rights.later(needs).or(eval_later))?;
    match (is_cluster, rights.can("EVAL")) {
        (false, _) => yes("keys that change are read again, until all are as of one point in time"),
        (true, true) => {
            yes("keys that change are read again, until each shard is as of one point in time")
        }
        (true, false) => less(
            "keys that change are read again, but without EVAL a shard is not as of one point in \
             time: every key is current",
        ),
    }
}

fn pause(found: &Findings) -> TopicAnswer<'_> {
    match (found.rights.can("CLIENT PAUSE"), found.facts.cluster) {
        (false, _) => silence(),
        (true, true) => yes(
            "--consistency pause can pause the writers of all shards, for one common point in time",
        ),
        (true, false) => yes(
            "--consistency pause can pause writers during the final round, if they write too much",
        ),
    }
}

/// Why INFO does not tell, where the server answers "not now" to it.
fn info_later(found: &Findings) -> Option<&str> {
    match found.facts.info {
        true => None,
        false => found.rights.later(&["INFO"]),
    }
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

fn readable_databases(found: &Findings) -> TopicAnswer<'_> {
    if found.facts.cluster {
        // It has one database, of which nothing has to be said.
        return silence();
    }
    known(found.rights.later(&["SELECT"]).or(found.databases.later()))?;
    if let Some(text) = entered(found) {
        let mut rows = found.databases.known().into_iter().flatten();
        match rows.any(|row| found.closed.contains_key(&row.db)) {
            true => less(format!(
                "{text}: keys in the others are reported as failed, and the run exits with 3 \
                 (--db N exports one database only)"
            )),
            false => less(text),
        }
    } else if !found.rights.can("SELECT") {
        less(
            "SELECT is refused: only database 0 can be read. Keys in other databases are reported as \
             failed, and the run exits with 3 (--db 0 leaves them out)",
        )
    } else if found.facts.keyspace.is_some() {
        yes("listed by INFO")
    } else {
        yes("found by trying one after the other")
    }
}

fn expiry(found: &Findings) -> TopicAnswer<'_> {
    let rights = &found.rights;
    if rights.can("PEXPIRETIME") {
        return yes("exact to the millisecond");
    }
    known(rights.later(&["TIME"]))?;
    either(
        rights.can("TIME"),
        "from PTTL and the server's clock: a few milliseconds off at most",
        "from PTTL and this machine's clock: as right as that clock is",
    )
}

fn pairs(found: &Findings) -> TopicAnswer<'_> {
    const TRANSACTION: &str = "MULTI, EXEC";
    let is_cluster = found.facts.cluster;
    known(found.rights.later(&[TRANSACTION]).filter(|_| !is_cluster))?;
    yes(match found.rights.can(TRANSACTION) && !is_cluster {
        true => "a key's value and expiry are read at the same moment",
        false => "a key's expiry is read before and after its value, until both are equal",
    })
}

fn traces(found: &Findings) -> TopicAnswer<'_> {
    const NO_TOUCH: &str = "CLIENT NO-TOUCH";
    if found.facts.cluster {
        return less(
            "reading resets every key's idle time, which matters only to a server that evicts: with \
             CLIENT NO-TOUCH, nodes of some versions crash when a slot migrates",
        );
    }
    known(found.rights.later(&[NO_TOUCH]))?;
    either(
        found.rights.can(NO_TOUCH),
        "reading does not disturb the LRU order (CLIENT NO-TOUCH)",
        "no CLIENT NO-TOUCH: reading resets every key's idle time, which matters only to a server \
         that evicts",
    )
}

/// What becomes of function libraries, for which either of two commands will do.
fn functions<'a>(
    found: &'a Findings,
    commands: [&str; 2],
    can: &str,
    absent: TopicAnswer<'a>,
    refused: &str,
) -> TopicAnswer<'a> {
    match commands.map(|name| found.rights.of(name)) {
        [Access::Allowed, _] | [_, Access::Allowed] => return yes(can),
        [Access::Absent, Access::Absent] => return absent,
        _ => {}
    }
    known(found.rights.later(&commands))?;
    less(refused)
}

fn functions_read(found: &Findings) -> TopicAnswer<'_> {
    const REFUSED: &str =
        "FUNCTION DUMP and FUNCTION LIST are refused: function libraries are not read";
    functions(
        found,
        ["FUNCTION DUMP", "FUNCTION LIST"],
        "function libraries are read",
        match found.facts.is_before_functions() {
            true => yes("this version has none"),
            false => less(REFUSED),
        },
        REFUSED,
    )
}

fn functions_written(found: &Findings) -> TopicAnswer<'_> {
    functions(
        found,
        ["FUNCTION RESTORE", "FUNCTION LOAD"],
        "function libraries are written",
        less(
            "this server has no functions: libraries are refused (--allow-loss functions leaves \
             them out)",
        ),
        "FUNCTION RESTORE and FUNCTION LOAD are refused: function libraries cannot be written",
    )
}

fn eviction(found: &Findings) -> TopicAnswer<'_> {
    let (command, what) = match found.facts.memory.policy.as_deref() {
        Some(policy) if policy.contains("lfu") => ("OBJECT FREQ", "LFU frequencies"),
        _ => ("OBJECT IDLETIME", "idle times"),
    };
    known(found.rights.later(&[command]))?;
    either(
        found.rights.can(command),
        &format!("--eviction can export {what}"),
        &format!("{command} is refused: --eviction exports nothing"),
    )
}

fn role(found: &Findings) -> TopicAnswer<'_> {
    // In a cluster keys go to the primaries, whichever node is asked for them.
    if found.facts.cluster {
        return silence();
    }
    match (found.facts.role.replica, found.rights.of("RESTORE")) {
        (false, _) => known(info_later(found)).map(|()| Vec::new()),
        (true, Access::Allowed | Access::SomeKeys) => less(
            "this is a writable replica: what is written here is lost when it syncs with its primary",
        ),
        (true, _) => no("this is a replica: write to its primary"),
    }
}

fn writable_keys(found: &Findings) -> TopicAnswer<'_> {
    match found.rights.of("RESTORE") {
        Access::SomeKeys => less(
            "this user may not write every key: the other keys are refused and reported (--prefix \
             tries names that begin like yours)",
        ),
        _ => silence(),
    }
}

/// By which commands keys would be written: the same judgement as that of an import and of its dry
/// run.
fn writing(found: &Findings) -> TopicAnswer<'_> {
    let rights = &found.rights;
    let text = match rights.of("RESTORE") {
        Access::Allowed | Access::SomeKeys | Access::Later(_) => return silence(),
        // The role has been told.
        Access::Blocked(_) if found.facts.role.replica => return silence(),
        Access::Blocked(text) | Access::Refused(text) => text.as_str(),
        Access::Absent => "ERR unknown command",
        Access::Unknown => return less("could not find out whether RESTORE can be used"),
    };
    match Outlook::of(text, Method::Auto) {
        Outlook::Nothing(advice) => return no(format!("{advice} ({text})")),
        Outlook::Open => {
            return less(format!(
                "RESTORE was refused, and may be for every key: {text}"
            ));
        }
        Outlook::ByCommands => known(rights.later(&[NATIVE]))?,
    }
    if !rights.can(NATIVE) {
        return no("an import needs RESTORE or native commands, and this user can use neither");
    }
    less(format!(
        "{}: native commands write the values, which is slower and cannot write modules' values",
        match has_no_absttl(text) {
            true => "RESTORE has no ABSTTL here",
            false => "RESTORE is refused",
        }
    ))
}

fn writable_databases(found: &Findings) -> TopicAnswer<'_> {
    if found.facts.cluster {
        return silence();
    }
    known(found.rights.later(&["SELECT"]))?;
    let mut answers = match entered(found) {
        Some(text) => less(text),
        None if found.rights.can("SELECT") => silence(),
        None => less("SELECT is refused: only database 0 can be written"),
    }?;
    let needs = found.archive.iter().map(|(_, needs)| needs);
    for (dbs, keys, why) in needs.flat_map(|needs| needs.databases.closed_told()) {
        let keys = plural(keys, "key");
        let text = format!(
            "{dbs}: cannot be used ({why}), so {keys} will be refused; --map-db puts them into \
             another database"
        );
        answers.push((Verdict::Less, text));
    }
    Ok(answers)
}

fn payloads(found: &Findings) -> TopicAnswer<'_> {
    if found.goes_by_commands() {
        // No payload goes there.
        return silence();
    }
    known(found.accepts_later())?;
    let versions = &found.target.accepts().versions;
    match found.target.probed {
        true => yes(format!(
            "RDB versions {versions}, tried out like the types below"
        )),
        false => less(format!(
            "RDB versions {versions}, judged by the server's version: they could not be tried out"
        )),
    }
}

fn field_expiry(found: &Findings) -> TopicAnswer<'_> {
    known(found.accepts_later())?;
    let is_kept = match found.goes_by_commands() {
        true => found.features.field_ttl_max_ms.is_some(),
        false => found.target.accepts().forms().field_ttl != FieldTtlForm::Dropped,
    };
    either(
        is_kept,
        "hash fields keep their expiry",
        "this server cannot expire hash fields: hashes with such fields are refused (--allow-loss \
         hash-field-ttl writes them without)",
    )
}

fn streams(found: &Findings) -> TopicAnswer<'_> {
    known(found.accepts_later())?;
    let types = found.target.accepts().types;
    let takes = |encoding: Encoding| types.contains(encoding.type_byte());
    let (has_streams, has_metadata) = match found.goes_by_commands() {
        true => (found.features.streams, found.features.stream_metadata),
        false => (
            [Encoding::Stream1, Encoding::Stream2, Encoding::Stream3]
                .into_iter()
                .any(takes),
            takes(Encoding::Stream2),
        ),
    };
    if !has_streams {
        return less("this server has no streams: they are refused and reported");
    }
    either(
        has_metadata,
        "stream metadata is kept as far as the source has it",
        "this server has no stream metadata (entries added, entries read, highest deleted id): it is \
         left out, and counted",
    )
}

fn size(found: &Findings) -> TopicAnswer<'_> {
    known(found.limits.later.as_deref())?;
    let limit = bytes_text(found.limits.largest_payload_bytes());
    let limit = match found.limits.max_bulk_bytes {
        Some(_) => format!("one RESTORE can carry {limit}"),
        None => format!("CONFIG GET is refused, so RESTORE is taken to carry the default, {limit}"),
    };
    match found.rights.can(NATIVE) {
        true => yes(format!(
            "{limit}; native commands write larger values in chunks"
        )),
        false => less(format!(
            "{limit}; larger values are refused, because not all native commands can be used"
        )),
    }
}

fn memory(found: &Findings) -> TopicAnswer<'_> {
    let facts = &found.facts;
    known(info_later(found))?;
    let Some(max) = facts.memory.max else {
        return less(
            "the server does not tell its maxmemory: neither free memory nor evictions can be watched",
        );
    };
    if max == 0 {
        return yes("no maxmemory is set");
    }
    let room = bytes_text(max.saturating_sub(facts.memory.used.unwrap_or(0)));
    match facts.memory.policy.as_deref() {
        Some("noeviction") | None => yes(format!("room for {room}; what does not fit is refused")),
        Some(policy) => less(format!(
            "room for {room}; after that the server evicts keys ({policy}): evictions are counted, \
             and the run exits with 3"
        )),
    }
}
