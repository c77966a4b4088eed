//! What a writer goes by, as the user wishes it.

use super::item::Item;
use crate::record::{Context, Family};
use crate::server::{PTTL_CLOSE_MS, PTTL_TOLERANCE_MS};
use crate::sink::server::ServerSinkOptions;

/// What a writer goes by.
#[derive(Debug, Clone, Default)]
pub(in crate::sink::server) struct Settings {
    pub options: ServerSinkOptions,
    /// Somebody waits to be told of every key that is accepted.
    pub listens: bool,
    /// The same, of every key that stands already: each of them is compared.
    pub compares: bool,
    /// The values come straight from live servers of this family and version.
    pub twin_of: Option<(Family, String)>,
    /// From when `--ttl rebase` counts, Unix ms.
    pub rebased_from_ms: Option<u64>,
}

impl Settings {
    /// How far apart two expiries may lie that are told as remaining time. What stood already is
    /// deleted at the source for being the same.
    pub fn close_ms(&self, item: &Item) -> u64 {
        match self.options.deletes_source && !item.past.is_doubtful {
            true => PTTL_CLOSE_MS,
            false => PTTL_TOLERANCE_MS,
        }
    }

    /// By how much an earlier run's expiries may be earlier: it began after the values were read.
    pub fn rebased_by(&self, context: &Context) -> u64 {
        self.rebased_from_ms
            .map_or(0, |from_ms| from_ms.saturating_sub(context.source_time_ms))
    }
}
