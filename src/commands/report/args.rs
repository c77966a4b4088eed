//! Arguments of `report`.

use clap::{Args, ValueHint};

use crate::cli::{AgeReadArgs, NoLimitArgs, ScreenArgs};
use crate::place::Place;

/// `report`.
#[derive(Debug, Args)]
#[command(after_help = "\
The page is one file that needs no network: prefixes, types, expiry, sizes, databases and the
largest keys, in charts and in tables. It lists keys, so it is as secret as they are.

The archive is read once, and memory does not grow with it. An RDB file can be looked at too:
export it, and read the archive from the pipe.

Examples:
  redis-migrate report snap.rmz -o report.html
  redis-migrate report snap.rmz --json | jq '.prefixes[] | [.prefix, .bytes]'
  redis-migrate export dump.rdb | redis-migrate report -o report.html")]
pub struct PageArgs {
    /// The archive; without it, or with `-`, standard input
    #[arg(value_name = "FILE")]
    pub file: Option<Place>,

    /// Write the page to FILE: it appears, complete, only at the end. Without it, or with `-`, to
    /// standard output
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub output: Option<Place>,

    /// Replace FILE even if it is an archive or an RDB file
    #[arg(long)]
    pub overwrite: bool,

    /// Print the same as one JSON object on standard output; the page only with -o
    #[arg(long)]
    pub json: bool,

    /// How many of the largest keys to name
    #[arg(long, value_name = "N", default_value_t = crate::report::LARGEST,
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(0..=10_000))]
    pub largest: usize,

    #[command(flatten)]
    pub(crate) screen: ScreenArgs,

    #[command(flatten)]
    pub(crate) limits: NoLimitArgs,
    #[command(flatten)]
    pub(crate) encryption: AgeReadArgs,
}
