//! The findings in words: for people, and as one JSON object.

mod databases;
mod layout;

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use self::databases::{database_rules_text, databases_json, databases_table, keys_text};
use self::layout::{layout_json, role, shards_table};
use super::access::Access;
use super::acl::{self, Job};
use super::needs::{Needs, loss_name};
use super::probes::{PROBES, Want};
use super::promise::{Promise, is_possible, promises};
use super::{Findings, not_known, server::Leftovers};
use crate::describe::table::{Align, Table};
use crate::describe::{
    error_json, export_failed_json, export_failed_text, export_lacks_text, family_name, lines_text,
};
use crate::escape::clean;
use crate::outside::{self, Outside};
use crate::payload::{Encoding, GIVEN_BACK, kind_of};
use crate::server::conn::asks_for_patience;
use crate::units::{bytes_text, count_text, plural};
use crate::version::SCHEMA_VERSION;

/// A clock that is further off than this is worth a word.
const CLOCK_OFFSET_MS: u64 = 1_000;

/// Everything for people.
pub fn text(found: &Findings) -> String {
    let mut text = lines_text(&server_lines(found));
    if let Ok(rows) = &found.databases
        && !rows.is_empty()
    {
        text += &format!("\n{}", databases_table(rows, found));
    }
    if let Some(shards) = found.layout.shards() {
        text += &format!("\n{}", shards_table(shards));
    }
    for (job, title) in [
        (Job::Export, "An export from here, or a copy"),
        (Job::Import, "An import into here, or a copy"),
    ] {
        text += &format!("\n{title}\n{}", promise_lines(&promises(job, found)));
    }
    if !found.goes_by_commands() {
        text += &format!("\nValues that it accepts\n{}", types_table(found));
    }
    text += &format!(
        "\nCommands that this user may use\n{}",
        commands_table(found)
    );
    text += "\nRights for a user of its own (ACL SETUSER name on >password …)\n";
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

fn rule(job: Job, least: bool, found: &Findings) -> Result<String, String> {
    let database_rules = acl::has_database_rules(&found.facts);
    let rule = acl::rule(job, least, &found.rights, database_rules)?;
    if job != Job::Export || least {
        return Ok(rule);
    }
    let modules = found.modules.as_deref().unwrap_or_default();
    let more = outside::rights(modules).into_iter();
    Ok(more.fold(rule, |all, one| format!("{all} {one}")))
}

const RULES: [(Job, bool, &str); 5] = [
    (Job::Export, true, "export, least"),
    (Job::Export, false, "export, full"),
    (Job::Import, true, "import, least"),
    (Job::Import, false, "import, full"),
    (Job::Commands, true, "no RESTORE"),
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
    let whole = found.layout.shards().and_then(|shards| {
        let count = plural(shards.primaries.len() as u64, "shard");
        Some(format!("{} in {count}", plural(shards.keys()?, "key")))
    });
    let keys = found.databases.as_ref().map(|rows| keys_text(rows, found));
    let keys = match whole {
        Some(whole) => whole,
        None => match keys {
            Ok(keys) if !facts.cluster => keys,
            Ok(_) => unknown(found.layout.later()),
            Err(why) => unknown(Some(why)),
        },
    };
    lines.push(("keys", keys));
    if let Some(used) = facts.used_memory {
        let max = match facts.maxmemory {
            Some(0) => "no maxmemory".to_owned(),
            Some(max) => format!("maxmemory {}", bytes_text(max)),
            None => "maxmemory unknown".to_owned(),
        };
        let policy = facts.policy.as_deref().unwrap_or("policy unknown");
        let evicted = match facts.evicted_keys {
            Some(keys @ 1..) => format!(", {} evicted so far", plural(keys, "key")),
            _ => String::new(),
        };
        let policy = clean(policy);
        lines.push((
            "memory",
            format!("{} used, {max}, {policy}{evicted}", bytes_text(used)),
        ));
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
    let modules = match found.modules.as_deref() {
        Err(why) => unknown(Some(why)),
        Ok([]) => "none".to_owned(),
        Ok(names) => clean(&names.join(", ")).into_owned(),
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

/// What stands in the place of what was not told, for this reason.
fn unknown(why: Option<&str>) -> String {
    match why {
        Some(words) if asks_for_patience(words) => not_known(words),
        _ => "unknown".to_owned(),
    }
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
    let mut table = Table::new(&[
        ("byte", Align::Right),
        ("type", Align::Left),
        ("laid out as", Align::Left),
        ("came with", Align::Left),
        ("accepted", Align::Left),
    ]);
    for (byte, encoding, accepted) in types(found) {
        table.row(vec![
            byte.to_string(),
            kind_of(found.target.accepts().family, byte).to_string(),
            layout(encoding).to_owned(),
            format!("RDB {}", encoding.since()),
            match accepted {
                Some(true) => "yes",
                Some(false) => "no",
                None if encoding == Encoding::Module => "where its module is loaded",
                None => "not known",
            }
            .to_owned(),
        ]);
    }
    table
}

fn layout(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::String => "a string",
        Encoding::List | Encoding::Set | Encoding::Hash => "strings",
        Encoding::ZSetText => "strings, scores as text",
        Encoding::ZSet => "strings, scores as doubles",
        Encoding::Module => "the module's own",
        Encoding::HashZipmap => "a zipmap",
        Encoding::ListZiplist | Encoding::ZSetZiplist | Encoding::HashZiplist => "a ziplist",
        Encoding::SetIntset => "an intset",
        Encoding::ListQuicklist => "a quicklist of ziplists",
        Encoding::ListQuicklist2 => "a quicklist of listpacks",
        Encoding::HashListpack | Encoding::ZSetListpack | Encoding::SetListpack => "a listpack",
        Encoding::Stream1 => "listpacks and groups",
        Encoding::Stream2 => "the same, with entries added and read",
        Encoding::Stream3 => "the same, with active times",
        Encoding::RedisHashTtlRc => "field expiry, release candidates",
        Encoding::RedisHashListpackTtlRc => "a listpack, field expiry, release candidates",
        Encoding::RedisHashTtl | Encoding::ValkeyHashTtl => "strings, field expiry",
        Encoding::RedisHashListpackTtl => "a listpack, field expiry",
        Encoding::Stream4 => "the same, with idempotency",
        Encoding::Stream5 => "the same, with entries given back",
        Encoding::RedisArray => "indexes and values",
        Encoding::RedisTemplateListpack => "fields, a listpack of values",
        Encoding::RedisTemplateTable => "fields, values",
        Encoding::RedisTemplateListpackRef | Encoding::RedisTemplateTableRef => {
            "a template's number, values"
        }
        Encoding::ValkeyPathHash => "paths, each with fields and values",
    }
}

fn want_word(want: Want) -> &'static str {
    match want {
        Want::No => "",
        Want::Useful => "useful",
        Want::Needed => "needed",
    }
}

fn commands_table(found: &Findings) -> Table {
    let mut table = Table::new(&[
        ("command", Align::Left),
        ("usable", Align::Left),
        ("export", Align::Left),
        ("import", Align::Left),
        ("for", Align::Left),
    ]);
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
        " among the keys that were looked at, which were not all"
    };
    if left.found == 0 {
        return format!("No temporary keys of killed runs{looked}.");
    }
    let mut text = format!(
        "{} of killed runs{looked}, to be deleted when no run is under way:",
        plural(left.found, "temporary key")
    );
    for (db, key) in &left.shown {
        text += &format!("\n  db {db} {key}");
    }
    text
}

fn needs_text(name: &str, needs: &Needs, found: &Findings) -> String {
    let mut table = Table::new(&[
        ("type", Align::Left),
        ("records", Align::Right),
        ("kept", Align::Right),
        ("re-stamped", Align::Right),
        ("re-encoded", Align::Right),
        ("refused", Align::Right),
    ]);
    let total = needs.total();
    let rows = needs.by_type.iter().map(|(name, fates)| (*name, fates));
    for (name, fates) in rows.chain([("all", &total)]) {
        let cells = [
            fates.keys,
            fates.kept,
            fates.restamped,
            fates.reencoded,
            fates.refused,
        ];
        let mut row = vec![name.to_owned()];
        row.extend(cells.map(count_text));
        table.row(row);
    }
    let records = match needs.keys == total.keys {
        true => String::new(),
        false => format!(" in {}", plural(total.keys, "record")),
    };
    let mut text = format!(
        "{} here: {}{records}, {} of keys and values, the largest {}\n{table}",
        clean(name),
        plural(needs.keys, "key"),
        bytes_text(needs.bytes),
        bytes_text(needs.largest_bytes)
    );
    for line in needs_lines(needs, found) {
        text += &format!("{line}\n");
    }
    text
}

fn needs_lines(needs: &Needs, found: &Findings) -> Vec<String> {
    let mut lines = Vec::new();
    for one in &needs.outside {
        lines.push(format!("outside keys: {}", one.inspected()));
    }
    for (text, reason) in &needs.reasons {
        let allow = reason.loss.map_or_else(String::new, |loss| {
            format!("; --allow-loss {} lets them through", loss_name(loss))
        });
        lines.push(format!(
            "refused: {} such as {}: {}{allow}",
            needs.counted(reason.keys),
            reason.example,
            clean(text)
        ));
    }
    if needs.streams_filled_in > 0 {
        lines.push(format!(
            "{} of streams: metadata that one of the two servers does not have is filled in or left out",
            plural(needs.streams_filled_in, "record")
        ));
    }
    if needs.key_metadata_lost > 0 {
        lines.push(format!(
            "{} with key metadata of modules that this server does not keep: they are left out \
             (class {})",
            plural(needs.key_metadata_lost, "key"),
            classes_told(&needs.classes_left_out)
        ));
    }
    if needs.idempotency_lost > 0 {
        lines.push(format!(
            "{} of streams: settings of idempotency, or remembered ids of producers, are left out, \
             because this server has none or native commands may not set them (XCFGSET, \
             XIDMPRECORD): an entry that is sent again is added again",
            plural(needs.idempotency_lost, "record")
        ));
    }
    if needs.given_back_owned > 0 {
        lines.push(format!(
            "pending entries of streams that were given back (XNACK), {}: here each has a consumer, \
             so they go to one named {}, to be claimed from there",
            count_text(needs.given_back_owned),
            String::from_utf8_lossy(GIVEN_BACK)
        ));
    }
    if needs.too_large > 0 {
        lines.push(format!(
            "{} larger than one RESTORE may carry here ({}): native commands, in chunks",
            plural(needs.too_large, "payload"),
            bytes_text(found.limits.largest_payload_bytes())
        ));
    }
    if needs.functions_left_out > 0 {
        lines
            .push("refused: function libraries that are larger than --max-value allows".to_owned());
    }
    if needs.refuses_functions(&found.rights) {
        lines.push(match found.rights.of("FUNCTION RESTORE") {
            Access::Absent => "refused: function libraries, which this server does not have; \
                 --allow-loss functions or --functions skip leaves them out"
                .to_owned(),
            _ => {
                "refused: function libraries, since neither FUNCTION RESTORE nor FUNCTION LOAD can \
                 be used here; --functions skip leaves them out"
                    .to_owned()
            }
        });
    }
    for (name, why) in &needs.libraries_refused {
        lines.push(format!(
            "refused: function library {}: {}",
            clean(name),
            clean(why)
        ));
    }
    for (dbs, keys, why) in needs.closed_told() {
        lines.push(format!(
            "refused: {} that would go to {dbs}, not to be had ({}); see --map-db",
            needs.counted(keys),
            clean(why)
        ));
    }
    lines.extend(needs.undecoded.warning());
    lines.extend(needs.undecoded.notice());
    lines.extend(export_failed_text(&needs.export_failed));
    lines.extend(
        needs
            .export_lacks
            .iter()
            .map(|line| export_lacks_text(line)),
    );
    if let Some((advice, text)) = &needs.ends {
        lines.push(format!(
            "an import ends at once: {advice} ({})",
            clean(text)
        ));
    }
    if let Some(why) = &needs.unforeseen {
        lines.push(format!(
            "which keys this user may write could not be foreseen: {}",
            clean(why)
        ));
    }
    if let Some(usage) = &needs.usage {
        lines.push(clean(usage).to_string());
    }
    if let Some(error) = &needs.error {
        lines.push(format!("as far as it could be read: {error}"));
    }
    lines
}

/// Everything for machines.
pub fn json(found: &Findings, code: u8) -> Json {
    let facts = &found.facts;
    let limits = &found.limits;
    let commands: Vec<Json> = PROBES
        .iter()
        .filter(|probe| found.rights.concerns(probe))
        .map(|probe| {
            let access = found.rights.of(probe.name);
            json!({
                "name": probe.name,
                "usable": access.later().is_none().then(|| access.is_usable()),
                "access": access.word(),
                "reason": access.reason(),
                "export": want_word(probe.export),
                "import": want_word(probe.import),
            })
        })
        .collect();
    let accepts = found.target.accepts();
    let versions: Vec<u16> = (0..=u8::MAX.into())
        .filter(|&version| accepts.versions.contains(version))
        .collect();
    let types: Vec<Json> = types(found)
        .into_iter()
        .map(|(byte, encoding, accepted)| {
            json!({
                "byte": byte,
                "type": encoding.kind().name(),
                "layout": layout(encoding),
                "since_rdb_version": encoding.since(),
                "accepted": accepted,
            })
        })
        .collect();
    json!({
        "schema_version": SCHEMA_VERSION,
        "event": "doctor",
        "exit_code": code,
        "not_now": found.later(),
        "server": {
            "address": found.address,
            "family": family_name(facts.family),
            "version": facts.version,
            "title": facts.title(),
            "info": facts.info,
            "cluster": facts.cluster,
            "replica": facts.replica,
            "sentinels": found.sentinels,
            "layout": layout_json(found),
            "databases": databases_json(found),
            "open_databases": found.open(),
            "closed_databases": found.closed.keys().collect::<Vec<_>>(),
            "used_memory": facts.used_memory,
            "maxmemory": facts.maxmemory,
            "maxmemory_policy": facts.policy,
            "evicted_keys": facts.evicted_keys,
            "clock_offset_ms": found.clock_offset_ms,
            "modules": found.modules.as_ref().ok(),
            "limits": {
                "proto_max_bulk_len": limits.max_bulk_bytes,
                "client_query_buffer_limit": limits.query_buffer_bytes,
                "databases": limits.databases,
                "sanitize_dump_payload": limits.sanitize,
            },
        },
        "accepts": {
            "probed": found.target.probed,
            "rdb_versions": versions,
            "types": types,
        },
        "commands": commands,
        "export": job_json(Job::Export, found),
        "import": job_json(Job::Import, found),
        "acl_without_restore": rule(Job::Commands, true, found).ok(),
        "leftovers": {
            "found": match found.leftovers.later {
                Some(_) if found.leftovers.found == 0 => None,
                _ => Some(found.leftovers.found),
            },
            "complete": found.leftovers.complete,
            "keys": found.leftovers.shown.iter()
                .map(|(db, key)| json!({ "db": db, "key": key }))
                .collect::<Vec<_>>(),
        },
        "notes": found.notes,
        "archive": found.archive.as_ref().map(|(name, needs)| needs_json(name, needs, found)),
    })
}

fn job_json(job: Job, found: &Findings) -> Json {
    let promises = promises(job, found);
    let rule = |least| rule(job, least, found).ok();
    let list: Vec<Json> = promises
        .iter()
        .map(|promise| {
            json!({
                "verdict": promise.verdict.word(),
                "about": promise.about,
                "text": promise.text,
            })
        })
        .collect();
    json!({
        "possible": is_possible(&promises),
        "promises": list,
        "acl_least": rule(true),
        "acl_full": rule(false),
    })
}

fn needs_json(name: &str, needs: &Needs, found: &Findings) -> Json {
    let by_type: serde_json::Map<String, Json> = needs
        .by_type
        .iter()
        .map(|(name, fates)| {
            let fates = json!({
                "keys": fates.keys,
                "kept": fates.kept,
                "restamped": fates.restamped,
                "reencoded": fates.reencoded,
                "refused": fates.refused,
            });
            ((*name).to_owned(), fates)
        })
        .collect();
    let reasons: Vec<Json> = needs
        .reasons
        .iter()
        .map(|(text, reason)| {
            json!({
                "reason": text,
                "keys": reason.keys,
                "example": reason.example,
                "allow_loss": reason.loss.map(loss_name),
            })
        })
        .collect();
    let total = needs.total();
    json!({
        "name": name,
        "keys": needs.keys,
        "key_records": total.keys,
        "refused": total.refused,
        "by_type": by_type,
        "reasons": reasons,
        "streams_filled_in": needs.streams_filled_in,
        "idempotency_lost": needs.idempotency_lost,
        "given_back_owned": needs.given_back_owned,
        "key_metadata_lost": needs.key_metadata_lost,
        "key_metadata_classes_lost": needs.classes_left_out,
        "too_large": needs.too_large,
        "largest_bytes": needs.largest_bytes,
        "bytes": needs.bytes,
        "databases": needs.databases.keys().collect::<Vec<_>>(),
        "closed_databases": needs.closed.keys().collect::<Vec<_>>(),
        "functions": needs.functions,
        "undecoded": needs.undecoded.json(),
        "export_failed": export_failed_json(&needs.export_failed),
        "export_lacks": needs.export_lacks,
        "outside": needs.outside.iter().map(Outside::json).collect::<Vec<_>>(),
        "functions_refused": needs.refuses_functions(&found.rights),
        "ends": needs.ends.as_ref().map(|(advice, text)| format!("{advice} ({text})")),
        "unforeseen": needs.unforeseen,
        "functions_too_large": needs.functions_left_out,
        "libraries_refused": needs
            .libraries_refused
            .iter()
            .map(|(name, why)| json!({"name": name, "reason": why}))
            .collect::<Vec<_>>(),
        "error": needs.error.as_ref().map(error_json),
    })
}
/// Names of classes of key metadata, for people.
fn classes_told(classes: &BTreeSet<String>) -> String {
    let quoted: Vec<String> = classes.iter().map(|class| format!("{class:?}")).collect();
    quoted.join(", ")
}
