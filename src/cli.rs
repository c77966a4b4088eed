//! The command line: what verbs share of its grammar, in clap structs, and what it means, in [`resolve`]. The
//! old two-URL form is in [`alias`]. What only one verb takes stands beside its command.
//!
//! URLs and their environment variables never pass through clap's own parsers, whose error
//! messages quote what they could not read.

pub mod alias;
mod connect;
mod encryption;
mod files;
pub mod habits;
pub mod outline;
pub mod parse;
pub mod resolve;
mod shared;
mod type_name;

pub use connect::{ConnectArgs, DestinationArgs, LeftArgs, RightArgs, SourceArgs, TimeoutArgs};
pub use encryption::{AgeReadArgs, AgeWriteArgs};
pub use files::Files;
pub use shared::{
    LimitArgs, NoLimitArgs, PaceArgs, ProgressStyle, ReadArgs, ReportArgs, RunArgs, ScreenArgs,
    SelectArgs, WriteArgs,
};
