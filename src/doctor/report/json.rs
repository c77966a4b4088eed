//! The findings for machines: one JSON object.

use serde_json::{Value as Json, json};

use super::{ranges_text, rule, types, want_word};
use crate::describe::{error_json, export_failed_json, family_name};
use crate::doctor::Findings;
use crate::doctor::acl::AclJob;
use crate::doctor::layout::{Layout, NodeFacts};
use crate::doctor::needs::Needs;
use crate::doctor::probes::PROBES;
use crate::doctor::promise::{is_possible, promises};
use crate::doctor::server::Told;
use crate::policy::word;
use crate::server::cluster::Shard;

/// Everything.
pub fn json(found: &Findings) -> Json {
    let leftovers = &found.leftovers;
    let is_known = leftovers.later.is_none() || leftovers.found > 0;
    let keys = leftovers.shown.iter();
    let keys = keys.map(|(db, key)| json!({ "db": db, "key": key }));
    json!({
        "not_now": found.later(),
        "server": server(found),
        "accepts": accepts(found),
        "commands": commands(found),
        "export": job(AclJob::Export, found),
        "import": job(AclJob::Import, found),
        "acl_without_restore": rule(AclJob::Commands, true, found).ok(),
        "leftovers": {
            "found": is_known.then_some(leftovers.found),
            "complete": leftovers.complete,
            "keys": keys.collect::<Vec<_>>(),
        },
        "notes": found.notes,
        "archive": found.archive.as_ref().map(|(name, needs)| archive(name, needs, found)),
    })
}

fn server(found: &Findings) -> Json {
    let (facts, limits) = (&found.facts, &found.limits);
    json!({
        "address": found.address,
        "family": family_name(facts.family),
        "version": facts.version,
        "title": facts.title(),
        "info": facts.info,
        "cluster": facts.cluster,
        "replica": facts.role.replica,
        "sentinels": found.sentinels,
        "layout": layout(found),
        "databases": databases(found),
        "open_databases": found.open(),
        "closed_databases": found.closed.keys().collect::<Vec<_>>(),
        "used_memory": facts.memory.used,
        "maxmemory": facts.memory.max,
        "maxmemory_policy": facts.memory.policy,
        "evicted_keys": facts.memory.evicted_keys,
        "clock_offset_ms": found.clock_offset_ms,
        "modules": found.modules.known(),
        "limits": {
            "proto_max_bulk_len": limits.max_bulk_bytes,
            "client_query_buffer_limit": limits.query_buffer_bytes,
            "databases": limits.databases,
            "sanitize_dump_payload": limits.sanitize,
        },
    })
}

/// The databases with keys; `None` where they are not known.
fn databases(found: &Findings) -> Option<Vec<Json>> {
    let rows = found.databases.known()?.iter();
    let rows = rows.map(|row| {
        json!({
            "db": row.db,
            "keys": row.keys,
            "expires": row.expires,
            "refused": found.closed.get(&row.db),
        })
    });
    Some(rows.collect())
}

/// What the server is part of.
fn layout(found: &Findings) -> Json {
    match &found.layout {
        Layout::Single { primary, replicas } => json!({
            "kind": if found.facts.role.replica { "replica" } else { "standalone" },
            "primary": primary.as_ref().map(|(address, is_up)| {
                json!({ "address": address.to_string(), "link_up": is_up })
            }),
            "replicas": replicas.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }),
        Layout::Cluster(Told::Known(shards)) => {
            let rows = shards.topology.shards.iter().zip(&shards.primaries);
            json!({
                "kind": "cluster",
                "keys": shards.keys(),
                "slots_not_served": shards.gap().map_or(0, |(_, slots)| slots),
                "shards": rows.map(|(row, node)| shard(row, node)).collect::<Vec<_>>(),
            })
        }
        Layout::Cluster(told) => json!({ "kind": "cluster", "error": told.reason() }),
    }
}

fn shard(shard: &Shard, primary: &Told<NodeFacts>) -> Json {
    let node = primary.known();
    let facts = node.map(|node| &node.facts);
    let replicas = shard.replicas.iter();
    let replicas = replicas.map(|node| node.announced.to_string());
    json!({
        "slots": ranges_text(&shard.slots),
        "primary": shard.primary.announced.to_string(),
        "hostname": shard.primary.hostname,
        "error": primary.reason(),
        "family": facts.map(|facts| family_name(facts.family)),
        "version": facts.map(|facts| &facts.version),
        "keys": node.and_then(|node| node.keys),
        "used_memory": facts.and_then(|facts| facts.memory.used),
        "maxmemory": facts.and_then(|facts| facts.memory.max),
        "maxmemory_policy": facts.and_then(|facts| facts.memory.policy.as_ref()),
        "replicas": replicas.collect::<Vec<_>>(),
    })
}

fn accepts(found: &Findings) -> Json {
    let accepts = found.target.accepts();
    let versions = 0..=u16::from(u8::MAX);
    let types = types(found).into_iter().map(|(byte, encoding, accepted)| {
        json!({
            "byte": byte,
            "type": encoding.kind().name(),
            "layout": encoding.words(),
            "since_rdb_version": encoding.since(),
            "accepted": accepted,
        })
    });
    json!({
        "probed": found.target.probed,
        "rdb_versions": versions
            .filter(|&version| accepts.versions.contains(version))
            .collect::<Vec<_>>(),
        "types": types.collect::<Vec<_>>(),
    })
}

fn commands(found: &Findings) -> Json {
    let probes = PROBES.iter().filter(|probe| found.rights.concerns(probe));
    let rows = probes.map(|probe| {
        let access = found.rights.of(probe.name);
        json!({
            "name": probe.name,
            "usable": access.later().is_none().then(|| access.is_usable()),
            "access": access.word(),
            "reason": access.reason(),
            "export": want_word(probe.export),
            "import": want_word(probe.import),
        })
    });
    rows.collect()
}

fn job(job: AclJob, found: &Findings) -> Json {
    let promises = promises(job, found);
    json!({
        "possible": is_possible(&promises),
        "promises": promises,
        "acl_least": rule(job, true, found).ok(),
        "acl_full": rule(job, false, found).ok(),
    })
}

fn archive(name: &str, needs: &Needs, found: &Findings) -> Json {
    let reasons = needs.values.reasons.iter().map(|(text, reason)| {
        json!({
            "reason": text,
            "keys": reason.keys,
            "example": reason.example,
            "allow_loss": reason.loss.as_ref().map(word),
        })
    });
    let total = needs.values.total();
    let mut object = json!(needs);
    for (field, value) in [
        ("name", json!(name)),
        ("key_records", json!(total.keys)),
        ("refused", json!(total.refused)),
        ("reasons", reasons.collect()),
        (
            "databases",
            needs.databases.with_keys.keys().copied().collect(),
        ),
        (
            "closed_databases",
            needs.databases.closed.keys().copied().collect(),
        ),
        ("undecoded", needs.values.undecoded.json()),
        (
            "export_failed",
            export_failed_json(&needs.archive.export_failed),
        ),
        (
            "functions_refused",
            json!(needs.libraries.are_refused(&found.rights)),
        ),
        ("error", json!(needs.archive.error.as_ref().map(error_json))),
    ] {
        object[field] = value;
    }
    object
}
