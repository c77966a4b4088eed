//! redis-migrate: records flow from a source through one pipe into a sink.
//!
//! Start reading at `commands::export`, then [`pipe`], then the two traits [`source::Source`] and
//! [`sink::Sink`]. A verb is one file in `commands`; it opens a source, opens a sink, runs the
//! pipe and prints the summary.
//!
//! Who may import whom:
//!
//! ```text
//! main → commands → compare → {source, sink, pipe} → server → {payload, rdb} → dialect → format
//! ```
//!
//! `compare` is what `diff` and `--verify` share; sources and sinks know nothing of it.
//!
//! Sources and sinks never import each other, the command line or the ui. Only `server` knows the
//! redis crate. [`payload`], [`rdb`] and [`dialect`] are the crate `redis-migrate-payload`, which
//! needs no server. The crate `redis-migrate-format` imports nothing of ours; its `SPEC.md` is the
//! authority on the bytes of an archive.

mod census;
mod channel;
pub mod cli;
pub mod commands;
mod compare;
mod delete_source;
mod describe;
mod doctor;
mod encryption;
pub mod endpoint;
mod errors_file;
pub mod escape;
pub mod exit;
mod exit_code;
pub mod glob;
pub mod host;
pub mod ledger;
pub mod limits;
pub mod observer;
mod outside;
mod own_writes;
mod pace;
mod partitions;
pub mod pipe;
pub mod place;
mod policy;
pub mod record;
mod report;
mod resume;
pub mod rewrite;
mod salvage;
pub mod select;
pub mod server;
pub mod sink;
mod size;
mod sorter;
pub mod source;
pub mod stop;
pub mod ui;
mod undecoded;
mod units;
mod unproven;
mod verb;
mod version;

pub use redis_migrate_payload::{dialect, payload, rdb};
