//! Arguments of `list`.

use clap::Args;

use crate::cli::{AgeReadArgs, NoLimitArgs, SelectArgs};
use crate::place::Place;

/// `list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Keys are shown quoted, with bytes that are not printable ASCII escaped. Sizes are bytes of the
value as stored, before compression.

Examples:
  redis-migrate list snap.rmz --match 'user:*'
  redis-migrate list --json < snap.rmz | jq -r 'select(.event == \"key\") | .key'")]
pub struct ListArgs {
    /// The archive; without it, or with `-`, standard input
    #[arg(value_name = "FILE")]
    pub file: Option<Place>,

    /// One JSON object a key (key_hex where a key is not UTF-8), and a summary as the last
    #[arg(long)]
    pub json: bool,

    /// Print nothing but warnings and errors; the exit code tells
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub(crate) select: SelectArgs,
    #[command(flatten)]
    pub(crate) limits: NoLimitArgs,
    #[command(flatten)]
    pub(crate) encryption: AgeReadArgs,
}
