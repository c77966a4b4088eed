//! Which modules a destination has, as far as it says, and which data types are theirs.

use std::collections::{BTreeMap, HashMap};

use crate::server::reply::{Reply, cmd, from_reply};
use crate::server::{Conn, ServerError};

/// What is known of loaded modules.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Modules {
    /// MODULE LIST is refused.
    Unknown,
    /// It named these, with their versions as numbers: 20803 for 2.8.3.
    Loaded(BTreeMap<String, u64>),
}

impl Modules {
    /// Asks by MODULE LIST.
    pub fn ask(conn: &mut Conn) -> Result<Self, ServerError> {
        let Ok(value) = conn.try_query(cmd("MODULE").arg("LIST"))? else {
            return Ok(Self::Unknown);
        };
        let rows: Vec<HashMap<String, Reply>> = from_reply(value).unwrap_or_default();
        let module = |mut row: HashMap<String, Reply>| {
            let name = from_reply::<String>(row.remove("name")?).ok()?;
            let version = row.remove("ver").map(from_reply::<u64>);
            Some((name, version.and_then(Result::ok).unwrap_or(0)))
        };
        Ok(Self::Loaded(rows.into_iter().filter_map(module).collect()))
    }

    /// Whether a value of this data type, in the layout that its id names, ends the server: the
    /// highest layout then that it is known to live with.
    pub fn is_hurt_by(&self, type_name: &str, layout: u64) -> Option<u64> {
        if type_name != JSON {
            return None;
        }
        let safe = match self {
            Self::Unknown => JSON_LAYOUT,
            Self::Loaded(loaded) => {
                let ours = loaded
                    .iter()
                    .filter(|(name, _)| name.eq_ignore_ascii_case("ReJSON"));
                ours.map(|(_, version)| json_layout(*version)).min()?
            }
        };
        (layout > safe).then_some(safe)
    }

    /// Whether one of them may define this data type.
    pub fn may_define(&self, type_name: &str) -> bool {
        match self {
            Self::Unknown => true,
            Self::Loaded(loaded) => loaded.keys().any(|module| may_define(module, type_name)),
        }
    }
}

/// Data types whose values RESTORE reads without touching anything but the key: they may be tried
/// under a name that nobody has. FalkorDB does not read so: it takes the graph's name from the value,
/// and loads the value into the graph that stands under that name. Of types that are not known
/// nobody knows how they are read.
const READ_ALONE: [&str; 9] = [
    "vectorset",
    JSON,
    "MBbloom--",
    "MBbloomCF",
    "CMSk-TYPE",
    "TopK-TYPE",
    "TDIS-TYPE",
    "TSDB-TYPE",
    "trietype0",
];

/// Whether a value of this data type may be offered to a destination that is not to be changed.
pub(super) fn is_read_alone(type_name: &str) -> bool {
    READ_ALONE.contains(&type_name)
}

/// The data type of RedisJSON.
const JSON: &str = "ReJSON-RL";

/// The layout that RedisJSON has written since its second version.
const JSON_LAYOUT: u64 = 3;

/// The highest layout of values that RedisJSON of this version loads. For a higher one it panics, and
/// the server ends with it (seen with 20803; type_methods::rdb_load of all versions reads so). Of
/// later versions than that no higher layout is known.
fn json_layout(version: u64) -> u64 {
    match version {
        1..10_000 => 0,
        10_000..20_000 => 2,
        _ => JSON_LAYOUT,
    }
}

/// Whether a module of this name may define that data type. Of well-known modules the types are
/// known (the names given to RedisModule_CreateDataType); of others anything is possible.
pub(super) fn may_define(module: &str, type_name: &str) -> bool {
    let types: &[&str] = match module.to_ascii_lowercase().as_str() {
        "vectorset" => &["vectorset"],
        "rejson" => &[JSON],
        "bf" => &[
            "MBbloom--",
            "MBbloomCF",
            "CMSk-TYPE",
            "TopK-TYPE",
            "TDIS-TYPE",
        ],
        "timeseries" => &["TSDB-TYPE"],
        "graph" => &["graphdata", "graphmeta"],
        "search" | "searchlight" => &["ft_index0", "ft_invidx", "numericdx", "trietype0"],
        "json" => &[JSON],
        _ => return true,
    };
    types.contains(&type_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_values_that_are_known_to_be_read_alone_are_tried() {
        assert!(is_read_alone("vectorset") && is_read_alone("ReJSON-RL"));
        for other in ["graphdata", "graphmeta", "ft_index0", "Nobodys-1"] {
            assert!(!is_read_alone(other), "{other}");
        }
    }

    #[test]
    fn documents_in_a_layout_that_ends_the_server_are_known() {
        let loaded = |name: &str, version| Modules::Loaded([(name.to_owned(), version)].into());
        let stack = loaded("ReJSON", 20_803);
        assert_eq!(stack.is_hurt_by("ReJSON-RL", 3), None);
        assert_eq!(stack.is_hurt_by("ReJSON-RL", 4), Some(3));
        assert_eq!(loaded("ReJSON", 10_007).is_hurt_by("ReJSON-RL", 3), Some(2));
        assert_eq!(loaded("ReJSON", 80_000).is_hurt_by("ReJSON-RL", 4), Some(3));
        assert_eq!(Modules::Unknown.is_hurt_by("ReJSON-RL", 4), Some(3));
        // Others answer with an error, as far as is known.
        assert_eq!(loaded("json", 10_000).is_hurt_by("ReJSON-RL", 9), None);
        assert_eq!(stack.is_hurt_by("TSDB-TYPE", 1023), None);
    }
}
