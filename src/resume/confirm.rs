//! What stands at the destination of the open window, and is ours.
//!
//! Of a key with several records in the window any of them may be what stands: each is compared.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Result, anyhow};

use crate::endpoint::ConnectOptions;
use crate::record::{Batch, Context, Family, KeyRecord, Record};
use crate::server::cluster::{Topology, options_for};
use crate::server::facts::Facts;
use crate::server::slots::slot_of;
use crate::server::{ABSENT_KEY, Conn};
use crate::sink::server::compare;

/// Keys that are asked for at once.
const AT_ONCE: usize = 64;

/// Bytes of values that are asked for at once.
const BYTES_AT_ONCE: usize = 4 << 20;

/// One key and its records.
type Candidate<'a> = ((u32, &'a [u8]), Vec<(&'a KeyRecord, Context)>);

/// The keys of these batches that stand as one of their records says, with their databases.
///
/// # Errors
/// The connection's.
pub fn ours<'a>(to: &ConnectOptions, batches: &'a [Batch]) -> Result<Vec<(u32, &'a [u8])>> {
    let mut by_key: BTreeMap<(u32, &[u8]), Vec<(&KeyRecord, Context)>> = BTreeMap::new();
    for batch in batches {
        for record in &batch.records {
            if let Record::Key(record) = record {
                let records = by_key.entry((record.db, &record.key)).or_default();
                records.push((record, batch.context));
            }
        }
    }
    let mut conn = Conn::open(to)?;
    let facts = Facts::ask(&mut conn)?;
    let mut ours = Vec::new();
    if !facts.cluster {
        let candidates = by_key.into_iter().collect();
        ask_one(&mut conn, facts.family, candidates, &mut ours)?;
        return Ok(ours);
    }
    let topology = Topology::ask(&mut conn)?;
    let mut by_shard: HashMap<usize, Vec<Candidate<'a>>> = HashMap::new();
    for candidate in by_key {
        let slot = slot_of(candidate.0.1);
        let shard = topology
            .owner(slot)
            .ok_or_else(|| anyhow!("nobody serves slot {slot} of the cluster"))?;
        by_shard.entry(shard).or_default().push(candidate);
    }
    for (shard, candidates) in by_shard {
        let mut conn = Conn::open(&options_for(to, &topology.shards[shard].primary))?;
        ask_one(&mut conn, facts.family, candidates, &mut ours)?;
    }
    Ok(ours)
}

/// Asks one server for keys that are sorted by database.
fn ask_one<'a>(
    conn: &mut Conn,
    family: Family,
    candidates: Vec<Candidate<'a>>,
    ours: &mut Vec<(u32, &'a [u8])>,
) -> Result<()> {
    let pexpiretime = conn
        .try_query(redis::cmd("PEXPIRETIME").arg(ABSENT_KEY))?
        .map_or_else(|text| text.starts_with("MOVED"), |_| true);
    let mut db = 0;
    let mut rest = candidates.as_slice();
    while let Some(((next_db, _), _)) = rest.first() {
        if *next_db != db {
            db = *next_db;
            let select = conn.try_query(redis::cmd("SELECT").arg(db))?;
            select.map_err(|text| conn.refusal("SELECT", text))?;
        }
        let mut bytes = 0;
        let count = rest
            .iter()
            .take(AT_ONCE)
            .take_while(|((key_db, _), records)| {
                let is_first = bytes == 0;
                bytes += 1 + records
                    .iter()
                    .map(|(record, _)| record.value.bytes().len())
                    .sum::<usize>();
                *key_db == db && (is_first || bytes <= BYTES_AT_ONCE)
            })
            .count();
        let (now, later) = rest.split_at(count);
        for ((_, key), _) in now {
            compare::ask(conn, key, pexpiretime)?;
        }
        conn.flush()?;
        for ((_, key), records) in now {
            let found = compare::read(conn, pexpiretime)?;
            let is_ours = records
                .iter()
                .any(|(record, context)| found.differs_from(record, context, family).is_none());
            if is_ours {
                ours.push((db, key));
            }
        }
        rest = later;
    }
    Ok(())
}
