//! redis-migrate: records flow from a source through one pipe into a sink.
//!
//! Start reading at `commands::export`, then [`pipe`], then the two traits [`source::Source`] and
//! [`sink::Sink`]. A verb is one file in [`commands`]: it opens a source, opens a sink, runs the
//! pipe and prints the summary.
//!
//! # The rooms, and who may import whom
//!
//! The highest first. A room imports rooms of lower lines only, never one of its own line;
//! `tests/walls` holds that, and says which file and line breaks it. The map in a sentence each:
//!
//! - `main`: from arguments to an exit code.
//! - [`commands`]: one file for each verb, its arguments below it, and the registry of them all.
//! - [`ui`]: all that is printed on standard error, for people and for programs.
//! - [`cli`]: the command line: what verbs share of its grammar, and what it means.
//! - `resume`: going on with a run that was stopped; its state files.
//! - `compare`: two collections of keys, by what they mean: `diff` and `--verify`.
//!   `delete_source`: deletes at the source what the destination has.
//!   `doctor`: what a server allows and can promise. `report`: what is inside an archive, as a page.
//!   `salvage`: what is intact of a damaged archive.
//! - [`pipe`]: source, channel and sink, and what became of a run.
//!   `describe`: an archive and a ledger in words and as JSON.
//! - [`source`]: servers, clusters, replication, archives and RDB files, read.
//!   [`sink`]: servers, archives, RDB files and JSON Lines, written.
//! - [`ledger`]: every record is accounted for by what became of it.
//! - `census`: how many keys stand in the end. `outside`: what a server holds outside its keys.
//!   `pace`: how fast a run may go. `exit_code`: the exit code of an error.
//! - [`server`]: connections, commands and replies; the only room that knows the redis crate.
//!   `own_writes`: which keys this run wrote. `unproven`: values whose layout no server confirmed.
//! - [`place`]: what the user named, parsed once, and bytes in files, pipes and stores.
//! - [`host`]: the clock, sleeping, chance and the network, so that they can be simulated.
//!   [`observer`]: progress, events and failed keys, for whoever listens.
//! - [`endpoint`]: a server's URL, and what it takes to connect. `encryption`: archives encrypted
//!   by age. `errors_file`: the file of `--errors-to`. [`rewrite`]: databases, names and expiries
//!   changed on their way.
//! - [`exit`]: exit codes, and the errors that stand for them. [`select`]: which records take part.
//!   `size`: how large a value is. `undecoded`: types that cannot be looked into.
//! - [`record`]: records in batches. `channel`: bounded by bytes. [`escape`]: text from outside made
//!   safe. [`glob`]: as servers read them. [`limits`]: living with `ulimit -v`. `partitions` and
//!   `sorter`: more numbers than fit into memory. `refusal`: why something is not done. `policy`: what a run does where it has a choice.
//!   [`stop`]: the wish to stop. `units`: sizes, times and counts. `verb`: what is said of a verb. `version`.
//!
//! Below all of them are two crates that need no server: `redis-migrate-payload`, whose modules
//! `payload`, `rdb` and `dialect` are named here as if they were rooms, and `redis-migrate-format`,
//! whose `SPEC.md` is the authority on the bytes of an archive.
//!
//! This library exists for the program, its tests, its benches and the simulated world: it exports
//! what they name, and promises nothing to anybody else.

// Most rooms are private, and what is written about the others names them.
#![allow(rustdoc::private_intra_doc_links)]

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
mod refusal;
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

pub(crate) use redis_migrate_payload::{dialect, payload, rdb};
