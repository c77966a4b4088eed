//! Arguments of `convert`.

use clap::{Args, ValueEnum, ValueHint};

use crate::cli::{AgeReadArgs, LimitArgs, ReportArgs, RunArgs, SelectArgs};
use crate::place::Place;
use crate::policy::Loss;
use crate::rdb::RdbTarget;

/// `convert`.
#[derive(Debug, Args)]
#[command(after_help = "\
An archive is read twice, because it may hold several records of a key and an RDB file may not;
so it must be a regular file then. Values of types that the target does not know are re-encoded in
forms that it knows.

Examples:
  redis-migrate convert snap.rmz dump.rdb --for redis-7.2
  redis-migrate convert dump.rdb old.rdb --rdb-version 9
  redis-migrate convert snap.rmz --to jsonl | jq -r .key")]
pub struct ConvertArgs {
    /// The archive or RDB file to read; `-` is standard input
    #[arg(value_name = "IN")]
    pub input: Place,

    /// The file to write: it appears, complete, only at the end; without it, or with `-`, standard
    /// output
    #[arg(value_name = "OUT", value_hint = ValueHint::AnyPath)]
    pub output: Option<Place>,

    /// Replace OUT even if it is an archive, or an RDB file that is to become JSON Lines
    #[arg(long)]
    pub overwrite: bool,

    /// What to write (default: by the name of OUT)
    #[arg(long, value_name = "WHAT", value_enum)]
    pub to: Option<ConvertTo>,

    /// RDB for this server or a later one: redis-6.0, redis-7.2, valkey-8.1, … (default: as the
    /// source)
    #[arg(long = "for", value_name = "SERVER", conflicts_with = "rdb_version")]
    pub for_server: Option<String>,

    /// RDB of this version
    #[arg(long, value_name = "N", help = rdb_version_help())]
    pub rdb_version: Option<u16>,

    /// Leave function libraries out
    #[arg(long)]
    pub no_functions: bool,

    /// Accept a loss that the target makes unavoidable; each is counted. Repeatable
    #[arg(long, value_name = "LOSS", value_enum, value_delimiter = ',')]
    pub allow_loss: Vec<Loss>,

    #[command(flatten)]
    pub(crate) select: SelectArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) encryption: AgeReadArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

fn rdb_version_help() -> String {
    format!("RDB of this version: {}", RdbTarget::versions())
}

/// What `convert` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ConvertTo {
    /// An RDB file.
    Rdb,
    /// JSON Lines, one object a key.
    Jsonl,
}
