//! Compaction rules of time series: DUMP leaves them out, RESTORE may lose them, and TS.INFO tells them
//! key by key.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use super::{Outside, RULES_MISSING, SERIES_RULE};
use crate::endpoint::ConnectOptions;
use crate::payload::{self, SERIES_TYPE};
use crate::record::{Batch, Family, Record, Value};
use crate::server::cluster::{Topology, options_for};
use crate::server::reply::{Command, Reply, cmd};
use crate::server::slots::slot_of;
use crate::server::{Conn, ServerError};

/// So many series are asked about; of more, nobody waits for the answers.
const MOST_SERIES: usize = 10_000;

/// Questions in one round trip.
const TOGETHER: usize = 100;

/// Time series that came, to be asked about at the end.
#[derive(Debug)]
pub struct Series {
    connect: ConnectOptions,
    /// They were written there with rules that must be there afterwards. Else they were read there
    /// without their rules.
    written: bool,
    is_cluster: bool,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// With the rules that each brought.
    keys: BTreeMap<(u32, Vec<u8>), u64>,
    /// There were more.
    more: bool,
}

#[derive(Debug, Default)]
struct Found {
    named: Vec<Vec<u8>>,
    why: Option<String>,
}

impl Series {
    /// Those of a source that leaves out the rules.
    pub fn read_from(connect: ConnectOptions, is_cluster: bool) -> Self {
        Self {
            connect,
            written: false,
            is_cluster,
            seen: Mutex::default(),
        }
    }

    /// Those that bring their rules to a destination: RESTORE keeps a rule only where both series get
    /// the names that it knows.
    pub fn written_to(connect: ConnectOptions, is_cluster: bool) -> Self {
        Self {
            written: true,
            ..Self::read_from(connect, is_cluster)
        }
    }

    /// Keeps the names of the time series in a batch, as they are called there.
    pub fn saw(&self, batch: &Batch) {
        for record in &batch.records {
            let Record::Key(record) = record else {
                continue;
            };
            let family = batch.context.family;
            let value = payload::plain(family, record.value.head());
            let is_module = payload::kind(family, value) == payload::Kind::Module;
            if !is_module || crate::select::module_name(value).as_deref() != Some(SERIES_TYPE) {
                continue;
            }
            // Of those that are read without their rules only the names are of interest.
            let rules = match self.written {
                true => brought_rules(family, &record.value),
                false => 0,
            };
            if self.written && rules == 0 {
                continue;
            }
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let name = (record.db, record.key.clone());
            if seen.keys.len() < MOST_SERIES {
                seen.keys.insert(name, rules);
            } else if !seen.keys.contains_key(&name) {
                seen.more = true;
            }
        }
    }

    /// How many of them have rules, or lack some that they brought; `None` where there are none.
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
        let kind = match self.written {
            true => RULES_MISSING,
            false => SERIES_RULE,
        };
        match Outside::of(kind, &found.named) {
            Some(mut rules) => {
                rules.at_least = open;
                Some(rules)
            }
            None if open => {
                let more = format!(
                    "there are more than {MOST_SERIES} time series, and not all \
                     were asked about"
                );
                Some(Outside::unknown(kind, &found.why.unwrap_or(more)))
            }
            None => None,
        }
    }

    fn look(
        &self,
        keys: &BTreeMap<(u32, Vec<u8>), u64>,
        found: &mut Found,
    ) -> Result<(), ServerError> {
        let is_named = |rules: u64, brought: u64| match self.written {
            true => rules < brought,
            false => rules > 0,
        };
        let mut conn = Conn::open(&self.connect)?;
        conn.doing("asking for the rules of time series");
        if !self.is_cluster {
            let mut by_db: HashMap<u32, Vec<(&[u8], u64)>> = HashMap::new();
            for ((db, key), rules) in keys {
                by_db.entry(*db).or_default().push((key, *rules));
            }
            for (db, keys) in by_db {
                match conn.select(db)? {
                    Ok(()) => look_at(&mut conn, &keys, is_named, found)?,
                    Err(text) => found.why = Some(format!("SELECT {db} was refused: {text}")),
                }
            }
            return Ok(());
        }
        let topology = Topology::ask(&mut conn)?;
        let mut by_shard: HashMap<usize, Vec<(&[u8], u64)>> = HashMap::new();
        for ((_, key), rules) in keys {
            if let Some(shard) = topology.owner(slot_of(key)) {
                by_shard.entry(shard).or_default().push((key, *rules));
            }
        }
        for (shard, keys) in by_shard {
            let primary = &topology.shards[shard].primary;
            let mut conn = Conn::open(&options_for(&self.connect, primary))?;
            look_at(&mut conn, &keys, is_named, found)?;
        }
        Ok(())
    }
}

fn look_at(
    conn: &mut Conn,
    keys: &[(&[u8], u64)],
    is_named: impl Fn(u64, u64) -> bool,
    found: &mut Found,
) -> Result<(), ServerError> {
    for keys in keys.chunks(TOGETHER) {
        let ask = |(key, _): &(&[u8], u64)| cmd("TS.INFO").arg(*key).to_owned();
        let commands: Vec<Command> = keys.iter().map(ask).collect();
        let answers = conn.ask_all(&commands, |_| false)?;
        for ((key, brought), answer) in keys.iter().zip(answers) {
            match answer.map(rules_of) {
                Ok(Some(rules)) if is_named(rules, *brought) => found.named.push(key.to_vec()),
                Ok(Some(_)) => {}
                Ok(None) => found.why = Some("the answer to TS.INFO is not understood".to_owned()),
                // It went away, or became something else.
                Err(text) if text.contains("does not exist") || text.contains("WRONGTYPE") => {}
                Err(text) => found.why = Some(format!("TS.INFO was refused: {text}")),
            }
        }
    }
    Ok(())
}

/// How many the field `rules` has; `None` where there is no such field.
fn rules_of(info: Reply) -> Option<u64> {
    let is_rules = |name: &Reply| match name {
        Reply::Status(text) => text == "rules",
        Reply::Bulk(bytes) => bytes == b"rules",
        _ => false,
    };
    let rules = match info {
        Reply::Array(items) => {
            let at = items.iter().step_by(2).position(is_rules)?;
            items.into_iter().nth(2 * at + 1)?
        }
        Reply::Map(pairs) => pairs.into_iter().find(|(name, _)| is_rules(name))?.1,
        _ => return None,
    };
    match rules {
        Reply::Array(rules) => Some(rules.len() as u64),
        Reply::Map(rules) => Some(rules.len() as u64),
        _ => None,
    }
}

/// The compaction rules that a value brings.
fn brought_rules(family: Family, value: &Value) -> u64 {
    let whole = match value {
        Value::Verbatim(dump) => payload::split(dump).map_or(&dump[..], |(body, _)| body),
        value => value.head(),
    };
    payload::time_series(payload::plain(family, whole)).map_or(0, |series| series.rules())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_found_in_what_ts_info_answers() {
        let name = |name: &str| Reply::Status(name.to_owned());
        let info = |rules: Reply| {
            Reply::Array(vec![
                name("totalSamples"),
                Reply::Int(1),
                name("rules"),
                rules,
            ])
        };
        let rule = Reply::Array(vec![name("dst")]);
        assert_eq!(rules_of(info(Reply::Array(vec![rule]))), Some(1));
        assert_eq!(rules_of(info(Reply::Array(Vec::new()))), Some(0));
        assert_eq!(rules_of(info(Reply::Nil)), None);
        assert_eq!(rules_of(Reply::Array(vec![name("rules")])), None);
        assert_eq!(rules_of(Reply::Okay), None);
    }
}
