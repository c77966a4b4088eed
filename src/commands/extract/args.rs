//! Arguments of `extract`.

use std::ffi::OsString;

use clap::{Args, ValueHint};

use crate::cli::{AgeReadArgs, LimitArgs};
use crate::place::Place;

/// `extract`.
#[derive(Debug, Args)]
#[command(after_help = "\
A string is written as its bytes; every other type as JSON, like the value in `convert --to jsonl`.
In a regular file the search begins at the end, because the last record of a key counts, and reads
only as many frames as it takes. An archive does not say in which frame a key is.

Exit code: 0 if the key was found, 1 if it is not there, 3 if --max-value refuses it.

Examples:
  redis-migrate extract snap.rmz --key user:17
  redis-migrate extract snap.rmz --key '\"a\\xff\\n\"' --db 3 --json
  redis-migrate extract snap.rmz --key picture -o picture.png
  redis-migrate extract snap.rmz --key q --payload | redis-cli -x RESTORE q 0")]
pub struct ExtractArgs {
    /// The archive; without it, or with `-`, standard input
    #[arg(value_name = "FILE")]
    pub file: Option<Place>,

    /// The key, in quotes as `list` shows it, or as it is
    #[arg(short, long, value_name = "KEY")]
    pub key: OsString,

    /// Its database (default: the only one of the archive, or 0)
    #[arg(long, value_name = "N")]
    pub db: Option<u32>,

    /// Write to FILE: it appears, complete, only at the end. `-` is standard output, even a terminal
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub output: Option<Place>,

    /// Replace FILE even if it is an archive or an RDB file
    #[arg(long)]
    pub overwrite: bool,

    /// The DUMP payload, for RESTORE
    #[arg(long, conflicts_with = "json")]
    pub payload: bool,

    /// One JSON object with type, expiry and value, as a line of `convert --to jsonl`
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) encryption: AgeReadArgs,
}
