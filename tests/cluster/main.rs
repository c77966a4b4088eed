//! Clusters of real servers: written, read, moved about and broken.
//!
//! `FAULT_RUNS=20` sets how often each fault is tried.

#[path = "../support/mod.rs"]
mod support;

mod destination;
mod failover;
