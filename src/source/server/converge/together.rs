//! What the shards of a cluster have in common while each of them is read on a thread of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::host;
use crate::server::cluster::Topology;

/// What the shards of a cluster have in common.
#[derive(Debug)]
pub struct Together {
    /// Something has to be settled between the shards: who follows, rests.
    restless: AtomicBool,
    /// The following is over, for all.
    over: AtomicBool,
    common: Mutex<Common>,
}

#[derive(Debug)]
struct Common {
    last_change: Instant,
    /// Who holds which slots, as it was last settled.
    topology: Option<Topology>,
}

impl Default for Together {
    fn default() -> Self {
        Self {
            restless: AtomicBool::new(false),
            over: AtomicBool::new(false),
            common: Mutex::new(Common {
                last_change: host::now(),
                topology: None,
            }),
        }
    }
}

impl Together {
    fn lock(&self) -> MutexGuard<'_, Common> {
        self.common
            .lock()
            .unwrap_or_else(|error| error.into_inner())
    }

    /// Something has to be settled between the shards.
    pub fn disturb(&self) {
        self.restless.store(true, Ordering::Relaxed);
    }

    /// It was settled; this is how slots lie now.
    pub fn settled(&self, topology: Topology) {
        self.lock().topology = Some(topology);
        self.restless.store(false, Ordering::Relaxed);
    }

    /// Whether something has to be settled between the shards.
    pub(super) fn is_restless(&self) -> bool {
        self.restless.load(Ordering::Relaxed)
    }

    /// Whether the following has ended.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// The following is over, for all.
    pub(super) fn end_following(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// A shard changed.
    pub(super) fn changed(&self) {
        self.lock().last_change = host::now();
    }

    /// For how long no shard has changed.
    pub(super) fn quiet_for(&self) -> Duration {
        host::elapsed(self.lock().last_change)
    }

    /// Whether slots lie elsewhere than when it was last settled.
    pub(super) fn has_moved(&self, now: &Topology) -> bool {
        let common = self.lock();
        common
            .topology
            .as_ref()
            .is_some_and(|known| !same_owners(known, now))
    }
}

/// Whether the same primaries hold the same slots.
pub(in crate::source) fn same_owners(one: &Topology, other: &Topology) -> bool {
    one.shards.len() == other.shards.len()
        && one
            .shards
            .iter()
            .zip(&other.shards)
            .all(|(one, other)| one.primary.id == other.primary.id && one.slots == other.slots)
}
