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

pub mod census;
pub mod channel;
pub mod cli;
pub mod commands;
pub mod compare;
pub mod delete_source;
pub mod describe;
pub mod doctor;
pub mod encryption;
pub mod endpoint;
pub mod errors_file;
pub mod escape;
pub mod exit;
pub mod exit_code;
pub mod glob;
pub mod host;
pub mod ledger;
pub mod limits;
pub mod observer;
pub mod outside;
pub mod own_writes;
pub mod pace;
pub mod partitions;
pub mod pipe;
pub mod place;
pub mod policy;
pub mod record;
pub mod report;
pub mod resume;
pub mod rewrite;
pub mod salvage;
pub mod select;
pub mod server;
pub mod sink;
pub mod size;
pub mod sorter;
pub mod source;
pub mod stop;
pub mod ui;
pub mod undecoded;
pub mod units;
pub mod unproven;
pub mod verb;
pub mod version;

pub use redis_migrate_payload::{dialect, payload, rdb};
