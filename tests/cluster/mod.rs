//! Clusters of real servers: read and written, while they are moved about, fail over and lose nodes.
//!
//! `FAULT_RUNS=20` sets how often each fault is tried.

mod between;
mod dead_shard;
mod destination;
mod drained;
mod emptied;
mod failover;
mod half_moved;
mod last_round;
mod leftovers;
mod moves;
mod place;
mod replicas;
mod resharding;
mod source;
mod unheard;
mod writer;

/// How often each fault is tried.
fn fault_runs() -> u64 {
    let runs = std::env::var("FAULT_RUNS").ok();
    runs.map_or(3, |runs| runs.parse().expect("FAULT_RUNS is a number"))
}
