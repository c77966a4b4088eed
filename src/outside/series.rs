//! Compaction rules of time series: DUMP leaves them out, and TS.INFO tells them key by key.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use redis::Value;

use super::{Outside, SERIES_RULE};
use crate::endpoint::ConnectOptions;
use crate::payload;
use crate::record::{Batch, Record};
use crate::server::cluster::{Topology, options_for};
use crate::server::slots::slot_of;
use crate::server::{Conn, ServerError};

/// The data type of time series.
const TYPE_NAME: &str = "TSDB-TYPE";

/// So many series are asked about; of more, nobody waits for the answers.
const MOST_SERIES: usize = 10_000;

/// Questions in one round trip.
const TOGETHER: usize = 100;

/// Time series that came, to be asked about at the end.
#[derive(Debug)]
pub(super) struct Series {
    connect: ConnectOptions,
    is_cluster: bool,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    keys: BTreeSet<(u32, Vec<u8>)>,
    /// There were more.
    more: bool,
}

#[derive(Debug, Default)]
struct Found {
    with_rules: Vec<Vec<u8>>,
    why: Option<String>,
}

impl Series {
    pub fn new(connect: ConnectOptions, is_cluster: bool) -> Self {
        Self {
            connect,
            is_cluster,
            seen: Mutex::default(),
        }
    }

    /// Keeps the names of the time series in a batch, as they are at the source.
    pub fn saw(&self, batch: &Batch) {
        for record in &batch.records {
            let Record::Key(record) = record else {
                continue;
            };
            let value = payload::plain(batch.context.family, record.value.head());
            let name = crate::select::module_name(value);
            let is_module = payload::kind(batch.context.family, value) == payload::Kind::Module;
            if !is_module || name.as_deref() != Some(TYPE_NAME) {
                continue;
            }
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let name = (record.db, record.key.clone());
            if seen.keys.len() < MOST_SERIES {
                seen.keys.insert(name);
            } else if !seen.keys.contains(&name) {
                seen.more = true;
            }
        }
    }

    /// How many of them have rules; `None` where there are none.
    pub fn ask(&self) -> Option<Outside> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.keys.is_empty() {
            return None;
        }
        let mut found = Found::default();
        if let Err(error) = self.look(&seen.keys, &mut found) {
            found.why = Some(format!("TS.INFO was not answered: {error}"));
        }
        let open = seen.more || found.why.is_some();
        match Outside::of(SERIES_RULE, &found.with_rules) {
            Some(mut rules) => {
                rules.at_least = open;
                Some(rules)
            }
            None if open => {
                let more = format!("more than {MOST_SERIES} time series were not all asked about");
                Some(Outside::unknown(SERIES_RULE, &found.why.unwrap_or(more)))
            }
            None => None,
        }
    }

    fn look(&self, keys: &BTreeSet<(u32, Vec<u8>)>, found: &mut Found) -> Result<(), ServerError> {
        let mut conn = Conn::open(&self.connect)?;
        conn.doing("asking for the rules of time series");
        if !self.is_cluster {
            let mut by_db: HashMap<u32, Vec<&[u8]>> = HashMap::new();
            for (db, key) in keys {
                by_db.entry(*db).or_default().push(key);
            }
            for (db, keys) in by_db {
                match conn.select(db)? {
                    Ok(()) => look_at(&mut conn, &keys, found)?,
                    Err(text) => found.why = Some(format!("SELECT {db} was refused: {text}")),
                }
            }
            return Ok(());
        }
        let topology = Topology::ask(&mut conn)?;
        let mut by_shard: HashMap<usize, Vec<&[u8]>> = HashMap::new();
        for (_, key) in keys {
            if let Some(shard) = topology.owner(slot_of(key)) {
                by_shard.entry(shard).or_default().push(key);
            }
        }
        for (shard, keys) in by_shard {
            let primary = &topology.shards[shard].primary;
            let mut conn = Conn::open(&options_for(&self.connect, primary))?;
            look_at(&mut conn, &keys, found)?;
        }
        Ok(())
    }
}

fn look_at(conn: &mut Conn, keys: &[&[u8]], found: &mut Found) -> Result<(), ServerError> {
    for keys in keys.chunks(TOGETHER) {
        let ask = |key: &&[u8]| redis::cmd("TS.INFO").arg(*key).to_owned();
        let commands: Vec<redis::Cmd> = keys.iter().map(ask).collect();
        let answers = conn.ask_all(&commands, |_| false)?;
        for (key, answer) in keys.iter().zip(answers) {
            match answer.map(has_rules) {
                Ok(Some(true)) => found.with_rules.push(key.to_vec()),
                Ok(Some(false)) => {}
                Ok(None) => found.why = Some("what TS.INFO answered is not understood".to_owned()),
                // It went away, or became something else.
                Err(text) if text.contains("does not exist") || text.contains("WRONGTYPE") => {}
                Err(text) => found.why = Some(format!("TS.INFO was refused: {text}")),
            }
        }
    }
    Ok(())
}

/// Whether the field `rules` has any; `None` where there is no such field.
fn has_rules(info: Value) -> Option<bool> {
    let is_rules = |name: &Value| match name {
        Value::SimpleString(text) => text == "rules",
        Value::BulkString(bytes) => bytes == b"rules",
        _ => false,
    };
    let rules = match info {
        Value::Array(items) => {
            let at = items.iter().step_by(2).position(is_rules)?;
            items.into_iter().nth(2 * at + 1)?
        }
        Value::Map(pairs) => pairs.into_iter().find(|(name, _)| is_rules(name))?.1,
        _ => return None,
    };
    match rules {
        Value::Array(rules) => Some(!rules.is_empty()),
        Value::Map(rules) => Some(!rules.is_empty()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_found_in_what_ts_info_answers() {
        let name = |name: &str| Value::SimpleString(name.to_owned());
        let info = |rules: Value| {
            Value::Array(vec![
                name("totalSamples"),
                Value::Int(1),
                name("rules"),
                rules,
            ])
        };
        let rule = Value::Array(vec![name("dst")]);
        assert_eq!(has_rules(info(Value::Array(vec![rule]))), Some(true));
        assert_eq!(has_rules(info(Value::Array(Vec::new()))), Some(false));
        assert_eq!(has_rules(info(Value::Nil)), None);
        assert_eq!(has_rules(Value::Array(vec![name("rules")])), None);
        assert_eq!(has_rules(Value::Okay), None);
    }
}
