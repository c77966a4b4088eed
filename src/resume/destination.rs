//! Does the destination still hold what it acknowledged to an earlier run?
//!
//! Another process has another memory, even if it loaded some of it from disk; and the same process
//! may have been flushed. So two things are looked at: who answers (`run_id`), and whether keys that
//! were acknowledged, the last ones among them, stand as they were written.

use std::collections::BTreeSet;

use anyhow::Result;

use super::state::State;
use super::witness::{Meaning, Witness, meaning_of, reading};
use crate::compare::meaning::Reading;
use crate::endpoint::ConnectOptions;
use crate::record::{Family, Value, show_key};
use crate::server::Conn;
use crate::server::cluster::{Topology, options_for};
use crate::server::facts::{Facts, ServerClock};
use crate::server::identity::run_id;
use crate::server::reply::Reply;
use crate::server::slots::slot_of;

/// Keys that are asked for at once.
const AT_ONCE: usize = 32;

/// Keys that were about to expire when they were asked for may be gone.
const EXPIRY_SLACK_MS: u64 = 2_000;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// What was acknowledged stands, and what was seen of that.
    Stands(String),
    /// It may not, and why: everything is to be looked at again.
    Doubtful(String),
}

/// What came of looking at keys.
#[derive(Debug, Default)]
struct Looked {
    stand: u64,
    /// Databases of which a key stands, and those in which nobody may look.
    dbs: BTreeSet<u32>,
    /// The first that does not, and how.
    lacks: Option<String>,
    /// Why one could not be looked at.
    unseen: Option<String>,
}

/// Looks whether what an earlier run has settled stands.
///
/// # Errors
/// The connections', and a cluster that is not whole.
pub fn look(to: &ConnectOptions, state: &State) -> Result<Standing> {
    let doubtful = |why: &str| Ok(Standing::Doubtful(why.to_owned()));
    if state.is_forgotten {
        return doubtful("the destination was restarted or replaced during the earlier run");
    }
    let Some(then) = &state.processes else {
        return doubtful("the state does not say which process was written to");
    };
    let mut conn = Conn::open(to)?;
    let facts = Facts::ask(&mut conn)?;
    let witnesses = state.witnesses.chosen();
    let reading = reading(state.begin.hash_keys);
    let mut looked = Looked::default();
    let mut now = BTreeSet::new();
    if facts.cluster {
        let topology = Topology::ask(&mut conn)?;
        for (shard, node) in topology.shards.iter().enumerate() {
            let mut conn = Conn::open(&options_for(to, &node.primary))?;
            now.insert(run_id(&mut conn)?);
            let own = |one: &&&Witness| topology.owner(slot_of(&one.key)) == Some(shard);
            let mine: Vec<&Witness> = witnesses.iter().filter(own).copied().collect();
            look_at(&mut conn, &reading, facts.family, &mine, &mut looked)?;
        }
    } else {
        now.insert(facts.run_id.clone());
        look_at(&mut conn, &reading, facts.family, &witnesses, &mut looked)?;
    }
    let is_known = !then.contains(&None) && !now.contains(&None);
    if is_known && !now.is_subset(then) {
        return doubtful("the destination is no longer the same process (INFO run_id)");
    }
    if let Some(lacks) = looked.lacks {
        return Ok(Standing::Doubtful(lacks));
    }
    // A database may have been flushed, or another swapped into its place.
    if let Some(db) = state.witnesses.databases().difference(&looked.dbs).next() {
        return Ok(Standing::Doubtful(format!(
            "no key is left in database {db} that could be checked"
        )));
    }
    let keys = match looked.stand {
        0 => match looked.unseen {
            Some(why) => format!("no key could be checked ({why})"),
            None => "there was no key to check".to_owned(),
        },
        count => format!("{count} of {count} keys that were checked are as they were written"),
    };
    match (is_known, looked.stand) {
        (true, _) => Ok(Standing::Stands(format!(
            "the destination is the same process (INFO run_id), and {keys}"
        ))),
        (false, 1..) => Ok(Standing::Stands(format!(
            "the destination does not say which process it is, but {keys}"
        ))),
        (false, 0) => doubtful(&format!(
            "the destination does not say which process it is, and {keys}"
        )),
    }
}

/// Looks at keys of one server, sorted by database.
fn look_at(
    conn: &mut Conn,
    reading: &Reading,
    family: Family,
    witnesses: &[&Witness],
    looked: &mut Looked,
) -> Result<()> {
    if witnesses.is_empty() {
        return Ok(());
    }
    let clock = ServerClock::ask(conn)?;
    for same_db in witnesses.chunk_by(|one, other| one.db == other.db) {
        if let Err(text) = conn.select(same_db[0].db)? {
            looked.unseen.get_or_insert(text);
            looked.dbs.insert(same_db[0].db);
            continue;
        }
        for some in same_db.chunks(AT_ONCE) {
            for one in some {
                let command: &[u8] = match one.meaning {
                    Meaning::Value(_) => b"DUMP",
                    _ => b"EXISTS",
                };
                conn.queue(&[command, &one.key])?;
            }
            conn.flush()?;
            for one in some {
                let reply = conn.reply()?;
                let may_be_gone = one
                    .expire_at_ms
                    .is_some_and(|at_ms| at_ms <= clock.now_ms() + EXPIRY_SLACK_MS);
                match reply {
                    Ok(Reply::Bulk(payload)) => {
                        let now = meaning_of(reading, family, &Value::Verbatim(payload));
                        match one.meaning == Meaning::Value(now) || may_be_gone {
                            true => looked.stands(one),
                            false => lacks(looked, one, "has another value now"),
                        }
                    }
                    Ok(Reply::Int(1)) if one.meaning == Meaning::Something => looked.stands(one),
                    Ok(_) if may_be_gone => {}
                    Ok(_) => lacks(looked, one, "no longer exists"),
                    Err(text) => {
                        looked.unseen.get_or_insert(text);
                        looked.dbs.insert(one.db);
                    }
                }
            }
        }
    }
    Ok(())
}

impl Looked {
    fn stands(&mut self, one: &Witness) {
        self.stand += 1;
        self.dbs.insert(one.db);
    }
}

fn lacks(looked: &mut Looked, one: &Witness, how: &str) {
    looked.lacks.get_or_insert_with(|| {
        format!(
            "key {} of database {}, which the earlier run wrote, {how}",
            show_key(&one.key),
            one.db
        )
    });
}
