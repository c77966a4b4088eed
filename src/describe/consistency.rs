//! How exactly a source was read: one description for the last line of a run, for what is said of an
//! archive, and for machines.

use std::time::Duration;

use serde_json::{Value, json};

use crate::ledger::ConsistencyReached;
use crate::units::{duration_text, plural, time_text};

/// In words, for a place in a line. `of_one_instant`: a file that is of one point in time and called
/// a scan because it lacks something. `except`: the keys that were not read ([`except`]).
pub fn consistency_text(
    reached: &ConsistencyReached,
    of_one_instant: bool,
    except: &str,
) -> String {
    let window = |from_ms: u64, to_ms: u64| {
        format!(
            "{} to {} ({})",
            time_text(from_ms),
            time_text(to_ms),
            duration_text(Duration::from_millis(to_ms.saturating_sub(from_ms)))
        )
    };
    match *reached {
        ConsistencyReached::Scan { from_ms: 0, .. } => "as of an unknown time".to_owned(),
        // What the file lacks is said elsewhere.
        ConsistencyReached::Scan { from_ms, .. } if of_one_instant => {
            format!("as of {}", time_text(from_ms))
        }
        // The base of an append-only file, which has later writes in other files.
        ConsistencyReached::Scan { from_ms, to_ms } if from_ms == to_ms => {
            format!("without what was written after {}", time_text(from_ms))
        }
        ConsistencyReached::Scan { from_ms, to_ms } => format!(
            "not one point in time: each key as it was at some time from {}",
            window(from_ms, to_ms)
        ),
        ConsistencyReached::PerKey { from_ms, to_ms } => format!(
            "every key current, but not one point in time: changed keys were read again from {}{except}",
            window(from_ms, to_ms)
        ),
        ConsistencyReached::Exact(ref moments) => {
            let times = || moments.iter().map(|(_, at_ms)| *at_ms);
            match (times().min(), times().max()) {
                (Some(only), _) if moments.len() == 1 => {
                    format!("exact as of {}{except}", time_text(only))
                }
                (Some(first), Some(last)) => format!(
                    "each of {} shards exact as of its own point in time, from {} within {}{except}",
                    moments.len(),
                    time_text(first),
                    duration_text(Duration::from_millis(last - first))
                ),
                _ => format!("exact{except}"),
            }
        }
        ConsistencyReached::Changing {
            from_ms,
            to_ms,
            keys,
        } => format!(
            "not one point in time: {} still changing at the end of {}",
            plural(keys, "key"),
            window(from_ms, to_ms)
        ),
    }
}

/// What is added to a claim about every key of a source: how many of what were left out, and why.
/// Nothing where none were.
pub fn except(left_out: &[(u64, &str, &str)]) -> String {
    let some = left_out.iter().filter(|(count, ..)| *count > 0);
    let parts: Vec<String> = some
        .map(|(count, noun, why)| format!("{} {why}", plural(*count, noun)))
        .collect();
    match parts.is_empty() {
        true => String::new(),
        false => format!(", except {}", parts.join(" and ")),
    }
}

/// For machines.
pub fn consistency_json(reached: &ConsistencyReached) -> Value {
    match reached {
        ConsistencyReached::Scan { from_ms, to_ms } => {
            json!({ "kind": "scan", "from_ms": from_ms, "to_ms": to_ms })
        }
        ConsistencyReached::PerKey { from_ms, to_ms } => {
            json!({ "kind": "per-key", "from_ms": from_ms, "to_ms": to_ms })
        }
        ConsistencyReached::Exact(moments) => {
            let moments = moments.iter();
            let moments = moments.map(|(node, at_ms)| json!({ "node": node, "at_ms": at_ms }));
            json!({ "kind": "exact", "moments": moments.collect::<Vec<_>>() })
        }
        ConsistencyReached::Changing {
            from_ms,
            to_ms,
            keys,
        } => json!({ "kind": "changing", "from_ms": from_ms, "to_ms": to_ms, "keys": keys }),
    }
}
