//! The model server is held against real ones: the same scripts of commands, the same replies.
//!
//! A difference prints the shortest script that shows it. Servers are looked for in
//! `REDIS_MIGRATE_SERVERS`, or in `target/servers`; those that are not there are passed over with a
//! line that says so, and are a failure where `CI` is set. `REDIS_MIGRATE_WORLD_SCRIPTS` says how
//! many random scripts are played against each server, `REDIS_MIGRATE_WORLD_SEED` with which seed.

#[path = "conformance/clusters.rs"]
mod clusters;
#[path = "conformance/compare.rs"]
mod compare;
#[path = "conformance/fixed.rs"]
mod fixed;
#[path = "conformance/hanging.rs"]
mod hanging;
#[path = "conformance/libraries.rs"]
mod libraries;
#[path = "conformance/past_fields.rs"]
mod past_fields;
#[path = "conformance/payloads.rs"]
mod payloads;
#[path = "conformance/play.rs"]
mod play;
#[path = "conformance/random.rs"]
mod random;
#[path = "conformance/real.rs"]
mod real;
#[path = "conformance/refusals.rs"]
mod refusals;
#[path = "conformance/replicas.rs"]
mod replicas;
#[path = "conformance/resp.rs"]
mod resp;
#[path = "conformance/scanning.rs"]
mod scanning;
#[path = "conformance/told.rs"]
mod told;
#[path = "conformance/tracking.rs"]
mod tracking;
