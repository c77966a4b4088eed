//! Clusters of real servers: read and written, while they are moved about, fail over and lose nodes.
//!
//! `FAULT_RUNS=20` sets how often each fault is tried.

#[path = "../support/mod.rs"]
mod support;

mod between;
mod destination;
mod failover;
mod resharding;
mod source;
mod writer;
