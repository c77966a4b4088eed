//! The findings in words: for people, and as one JSON object.

mod archive;
mod databases;
mod json;
mod layout;

use self::archive::needs_text;
use self::databases::{database_rules_text, databases_table, keys_text};
pub use self::json::json;
use self::layout::{ranges_text, role, shards_table};
use super::access::Access;
use super::acl::{self, AclJob};
use super::probes::{PROBES, Want};
use super::promise::{Promise, promises};
use super::{Findings, not_known, server::Leftovers};
use crate::describe::lines_text;
use crate::describe::table::Table;
use crate::escape::clean;
use crate::outside;
use crate::payload::{Encoding, kind_of};
use crate::server::facts::Facts;
use crate::units::{bytes_text, count_text, plural};

/// A clock that is further off than this is worth a word.
const CLOCK_OFFSET_MS: u64 = 1_000;

/// Everything for people.
pub fn text(found: &Findings) -> String {
    let mut text = lines_text(&server_lines(found));
    if let Some(rows) = found.databases.known()
        && !rows.is_empty()
    {
        text += &format!("\n{}", databases_table(rows, found));
    }
    if let Some(shards) = found.layout.shards() {
        text += &format!("\n{}", shards_table(shards));
    }
    for (job, title) in [
        (AclJob::Export, "Export, or a copy from here"),
        (AclJob::Import, "Import, or a copy to here"),
    ] {
        text += &format!("\n{title}\n{}", promise_lines(&promises(job, found)));
    }
    if !found.goes_by_commands() {
        text += &format!("\nValue types that it accepts\n{}", types_table(found));
    }
    text += &format!(
        "\nCommands that this user may use\n{}",
        commands_table(found)
    );
    text += "\nACL rules for a dedicated user (ACL SETUSER name on >password …)\n";
    for (job, least, title) in RULES {
        let rule = rule(job, least, found).unwrap_or_else(|why| why);
        text += &format!("{title:<15}  {rule}\n");
    }
    if acl::has_database_rules(&found.facts) {
        text += &database_rules_text(found);
    }
    text += &format!("\n{}\n", leftovers_text(&found.leftovers));
    for note in &found.notes {
        text += &format!("{}\n", clean(note));
    }
    if let Some((name, needs)) = &found.archive {
        text += &format!("\n{}", needs_text(name, needs, found));
    }
    text
}

fn rule(job: AclJob, least: bool, found: &Findings) -> Result<String, String> {
    let database_rules = acl::has_database_rules(&found.facts);
    let rule = acl::rule(job, least, &found.rights, database_rules)?;
    if job != AclJob::Export || least {
        return Ok(rule);
    }
    let modules = found.modules.known().map_or(&[][..], Vec::as_slice);
    let more = outside::rights(modules).into_iter();
    Ok(more.fold(rule, |all, one| format!("{all} {one}")))
}

const RULES: [(AclJob, bool, &str); 5] = [
    (AclJob::Export, true, "export, least"),
    (AclJob::Export, false, "export, full"),
    (AclJob::Import, true, "import, least"),
    (AclJob::Import, false, "import, full"),
    (AclJob::Commands, true, "no RESTORE"),
];

fn server_lines(found: &Findings) -> Vec<(&'static str, String)> {
    let facts = &found.facts;
    let mut lines = vec![
        ("server", clean(&found.address).into_owned()),
        ("version", clean(&facts.title()).into_owned()),
        ("role", clean(&role(found)).into_owned()),
    ];
    if let Some(sentinels) = &found.sentinels {
        lines.insert(1, ("found by", clean(sentinels).into_owned()));
    }
    lines.push(("keys", keys_line(found)));
    if let Some(used) = facts.memory.used {
        lines.push(("memory", memory_line(used, facts)));
    }
    let limits = &found.limits;
    let unasked = || unknown(limits.later.as_deref());
    let limit = |bytes: Option<u64>| bytes.map_or_else(unasked, bytes_text);
    lines.push((
        "limits",
        format!(
            "proto-max-bulk-len {}, client-query-buffer-limit {}, databases {}",
            limit(limits.max_bulk_bytes),
            limit(limits.query_buffer_bytes),
            limits.databases.map_or_else(unasked, count_text)
        ),
    ));
    if let Some(sanitize) = &limits.sanitize {
        lines.push(("sanitize-dump-payload", clean(sanitize).into_owned()));
    }
    let modules = match found.modules.known().map(Vec::as_slice) {
        None => unknown(found.modules.later()),
        Some([]) => "none".to_owned(),
        Some(names) => clean(&names.join(", ")).into_owned(),
    };
    lines.push(("modules", modules));
    if let Some(offset) = found.clock_offset_ms
        && offset.unsigned_abs() > CLOCK_OFFSET_MS
    {
        let side = if offset > 0 { "ahead of" } else { "behind" };
        let text = format!("{} ms {side} this machine's", offset.unsigned_abs());
        lines.push(("clock", text));
    }
    lines
}

/// How many keys there are: of all shards in a cluster, else of all databases.
fn keys_line(found: &Findings) -> String {
    if let Some(shards) = found.layout.shards()
        && let Some(keys) = shards.keys()
    {
        let count = plural(shards.primaries.len() as u64, "shard");
        return format!("{} in {count}", plural(keys, "key"));
    }
    match found.databases.known() {
        Some(rows) if !found.facts.cluster => keys_text(rows, found),
        Some(_) => unknown(found.layout.later()),
        None => unknown(found.databases.later()),
    }
}

fn memory_line(used: u64, facts: &Facts) -> String {
    let max = match facts.memory.max {
        Some(0) => "no maxmemory".to_owned(),
        Some(max) => format!("maxmemory {}", bytes_text(max)),
        None => "maxmemory unknown".to_owned(),
    };
    let evicted = match facts.memory.evicted_keys {
        Some(keys @ 1..) => format!(", {} evicted so far", plural(keys, "key")),
        _ => String::new(),
    };
    let policy = clean(facts.memory.policy.as_deref().unwrap_or("policy unknown"));
    format!("{} used, {max}, {policy}{evicted}", bytes_text(used))
}

/// Shown in place of what was not told; `later`: because the server answers "not now".
fn unknown(later: Option<&str>) -> String {
    later.map_or_else(|| "unknown".to_owned(), not_known)
}

fn promise_lines(promises: &[Promise]) -> String {
    let width = promises.iter().map(|promise| promise.about.len()).max();
    let width = width.unwrap_or(0);
    let words = promises.iter().map(|promise| promise.verdict.word().len());
    let word_width = words.max().unwrap_or(0).max(4);
    let mut lines = String::new();
    for Promise {
        verdict,
        about,
        text,
    } in promises
    {
        let word = verdict.word();
        lines += &format!("  {word:<word_width$}  {about:<width$}  {}\n", clean(text));
    }
    lines
}

/// Every type byte that means something in this family, and whether it is accepted.
fn types(found: &Findings) -> Vec<(u8, Encoding, Option<bool>)> {
    let accepts = found.target.accepts();
    (0..=u8::MAX)
        .filter_map(|byte| Some((byte, Encoding::of(accepts.family, byte)?)))
        .map(|(byte, encoding)| {
            // A module's value is never tried: there are servers that exit.
            let is_known = encoding != Encoding::Module && found.accepts_later().is_none();
            let accepted = is_known.then(|| accepts.types.contains(byte));
            (byte, encoding, accepted)
        })
        .collect()
}

fn types_table(found: &Findings) -> Table {
    let mut table = Table::new(">byte | type | layout | since | accepted");
    for (byte, encoding, accepted) in types(found) {
        table.row(vec![
            byte.to_string(),
            kind_of(found.target.accepts().family, byte).to_string(),
            encoding.words().to_owned(),
            format!("RDB {}", encoding.since()),
            match accepted {
                Some(true) => "yes",
                Some(false) => "no",
                None if encoding == Encoding::Module => "if its module is loaded",
                None => "not known",
            }
            .to_owned(),
        ]);
    }
    table
}

fn want_word(want: Want) -> &'static str {
    match want {
        Want::No => "",
        Want::Useful => "useful",
        Want::Needed => "needed",
    }
}

fn commands_table(found: &Findings) -> Table {
    let mut table = Table::new("command | usable | export | import | for");
    for probe in PROBES.iter().filter(|probe| found.rights.concerns(probe)) {
        table.row(vec![
            probe.name.to_owned(),
            match found.rights.of(probe.name) {
                Access::Later(words) => not_known(words),
                access => access.word().to_owned(),
            },
            want_word(probe.export).to_owned(),
            want_word(probe.import).to_owned(),
            probe.purpose.to_owned(),
        ]);
    }
    table
}

fn leftovers_text(left: &Leftovers) -> String {
    if let Some(words) = left.later.as_deref().filter(|_| left.found == 0) {
        return format!("Temporary keys of killed runs: {}.", not_known(words));
    }
    let looked = if left.complete {
        ""
    } else {
        " among the keys that were checked (not all were)"
    };
    if left.found == 0 {
        return format!("No temporary keys of killed runs{looked}.");
    }
    let mut text = format!(
        "{} of killed runs{looked}, delete them when no run is in progress:",
        plural(left.found, "temporary key")
    );
    for (db, key) in &left.shown {
        text += &format!("\n  db {db} {key}");
    }
    text
}
