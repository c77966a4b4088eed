//! What stands at the destination of the open window, and is ours.
//!
//! Of a key with several records in the window any of them may be what stands: each is compared.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};

use crate::endpoint::ConnectOptions;
use crate::payload::meaning::Lenience;
use crate::record::{Batch, Context, Family, KeyRecord, Record};
use crate::server::cluster::{Topology, options_for};
use crate::server::facts::{Facts, ServerClock};
use crate::server::reply::cmd;
use crate::server::slots::slot_of;
use crate::server::{ABSENT_KEY, Conn, FIELDS_GOING_MS, PTTL_TOLERANCE_MS};
use crate::sink::server::compare::{self, Question};

/// Keys that are asked for at once.
const AT_ONCE: usize = 64;

/// Bytes of values that are asked for at once.
const BYTES_AT_ONCE: usize = 4 << 20;

/// The records of a key; `None` for a tombstone.
type Records<'a> = Vec<Option<(&'a KeyRecord, Context)>>;

/// One key and its records.
type Candidate<'a> = ((u32, &'a [u8]), Records<'a>);

/// A key that stands as one of its records says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ours {
    /// Its database.
    pub db: u32,
    /// Its name.
    pub key: Vec<u8>,
    /// It is the last of the records: nothing is left to be done.
    pub is_last: bool,
}

/// The keys of these batches that stand as one of their records says.
///
/// # Errors
/// The connection's.
pub fn ours(to: &ConnectOptions, batches: &[Batch]) -> Result<Vec<Ours>> {
    let mut by_key: BTreeMap<(u32, &[u8]), Records<'_>> = BTreeMap::new();
    for batch in batches {
        for record in &batch.records {
            let (name, record) = match record {
                Record::Key(record) => {
                    let name = (record.db, record.key.as_slice());
                    (name, Some((record, batch.context)))
                }
                Record::Deleted { db, key } => ((*db, key.as_slice()), None),
                _ => continue,
            };
            by_key.entry(name).or_default().push(record);
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
    let mut by_shard: BTreeMap<usize, Vec<Candidate<'_>>> = BTreeMap::new();
    for candidate in by_key {
        let slot = slot_of(candidate.0.1);
        let shard = topology
            .owner(slot)
            .ok_or_else(|| anyhow!("no node of the cluster serves slot {slot}"))?;
        by_shard.entry(shard).or_default().push(candidate);
    }
    for (shard, candidates) in by_shard {
        let mut conn = Conn::open(&options_for(to, &topology.shards[shard].primary))?;
        ask_one(&mut conn, facts.family, candidates, &mut ours)?;
    }
    Ok(ours)
}

/// Asks one server for keys that are sorted by database.
fn ask_one(
    conn: &mut Conn,
    family: Family,
    candidates: Vec<Candidate<'_>>,
    ours: &mut Vec<Ours>,
) -> Result<()> {
    let pexpiretime = conn
        .try_query(cmd("PEXPIRETIME").arg(ABSENT_KEY))?
        .map_or_else(|text| text.starts_with("MOVED"), |_| true);
    let question = Question {
        pexpiretime,
        asking: false,
    };
    let clock = ServerClock::ask(conn)?;
    let lenience = || Lenience {
        // What was built by commands has times of its own.
        ignore_delivery_times: true,
        // Between two runs fields go by.
        fields_gone_by_ms: clock.now_ms().saturating_add(FIELDS_GOING_MS),
        ..Lenience::default()
    };
    let mut rest = candidates.as_slice();
    while let Some(((db, _), _)) = rest.first() {
        let db = *db;
        if conn.select(db)?.is_err() {
            conn.forget_database();
            // Nothing of this database was written, and nothing of it will be: the sink says so.
            rest = &rest[rest.partition_point(|((key_db, _), _)| *key_db <= db)..];
            continue;
        }
        let mut bytes = 0;
        let count = rest
            .iter()
            .take(AT_ONCE)
            .take_while(|((key_db, _), records)| {
                let is_first = bytes == 0;
                let values = records.iter().flatten();
                let lens = values.map(|(record, _)| record.value.bytes().len());
                bytes += 1 + lens.sum::<usize>();
                *key_db == db && (is_first || bytes <= BYTES_AT_ONCE)
            })
            .count();
        let (now, later) = rest.split_at(count);
        for ((_, key), _) in now {
            compare::ask(conn, key, question)?;
        }
        conn.flush()?;
        for ((_, key), records) in now {
            let found = compare::read(conn, question)?;
            let stands = records.iter().rposition(|record| {
                record.is_some_and(|(record, context)| {
                    found
                        .differs_from(record, &context, family, lenience(), PTTL_TOLERANCE_MS)
                        .is_none()
                })
            });
            if let Some(at) = stands {
                ours.push(Ours {
                    db,
                    key: key.to_vec(),
                    is_last: at + 1 == records.len(),
                });
            }
        }
        rest = later;
    }
    Ok(())
}
