//! Which modules a destination has, as far as it says, and which data types are theirs.

use std::collections::{BTreeSet, HashMap};

use crate::server::{Conn, ServerError};

/// What is known of loaded modules.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Modules {
    /// MODULE LIST is refused.
    Unknown,
    /// It named these.
    Loaded(BTreeSet<String>),
}

impl Modules {
    /// Asks by MODULE LIST.
    pub fn ask(conn: &mut Conn) -> Result<Self, ServerError> {
        let Ok(value) = conn.try_query(redis::cmd("MODULE").arg("LIST"))? else {
            return Ok(Self::Unknown);
        };
        let rows: Vec<HashMap<String, redis::Value>> =
            redis::from_redis_value(value).unwrap_or_default();
        let name = |mut row: HashMap<String, redis::Value>| {
            redis::from_redis_value::<String>(row.remove("name")?).ok()
        };
        Ok(Self::Loaded(rows.into_iter().filter_map(name).collect()))
    }

    /// Whether one of them may define this data type.
    pub fn may_define(&self, type_name: &str) -> bool {
        match self {
            Self::Unknown => true,
            Self::Loaded(loaded) => loaded.iter().any(|module| may_define(module, type_name)),
        }
    }
}

/// Whether a module of this name may define that data type. Of well-known modules the types are
/// known (the names given to RedisModule_CreateDataType); of others anything is possible.
pub(super) fn may_define(module: &str, type_name: &str) -> bool {
    let types: &[&str] = match module.to_ascii_lowercase().as_str() {
        "vectorset" => &["vectorset"],
        "rejson" => &["ReJSON-RL"],
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
        "json" => &["ReJSON-RL"],
        _ => return true,
    };
    types.contains(&type_name)
}
