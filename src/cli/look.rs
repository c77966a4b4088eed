//! Arguments of the verbs that only look into an archive: `verify`, `list`, `inspect`.

use clap::{Args, ValueEnum};

use super::{AgainstArgs, AgeReadArgs, LimitArgs, NoLimitArgs, ScreenArgs, SelectArgs};
use crate::place::Place;

/// `verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Every frame is decompressed, and every value is decoded as `import` would decode it: a value that no
destination takes is named, and the exit code is 3. --level records leaves the values alone; --level
frames (--quick) checks the frames' checksums, the digest over the whole archive and the trailer. With
--against, an intact archive is then compared with a server, by meaning (see `redis-migrate diff
--help`); exit 5 if they differ.

Examples:
  redis-migrate verify snap.rmz
  redis-migrate verify --quick --json < snap.rmz
  redis-migrate verify snap.rmz --against redis://localhost:6379")]
pub struct VerifyArgs {
    /// The archive; without it, or with `-`, standard input
    #[arg(value_name = "FILE")]
    pub file: Option<Place>,

    /// How much to check
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t)]
    pub level: VerifyLevel,

    /// The same as --level frames: check without decompressing
    #[arg(long, conflicts_with = "level")]
    pub quick: bool,

    /// Print the result as one JSON object on standard output
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub(crate) screen: ScreenArgs,

    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) against: AgainstArgs,
    #[command(flatten)]
    pub(crate) encryption: AgeReadArgs,
}

/// How much `verify` checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum VerifyLevel {
    /// Checksums, digest and trailer, without decompressing.
    Frames,
    /// That, and every record.
    Records,
    /// That, and every value is decoded.
    #[default]
    Values,
}

impl VerifyArgs {
    /// How much to check.
    pub fn level(&self) -> VerifyLevel {
        match self.quick {
            true => VerifyLevel::Frames,
            false => self.level,
        }
    }
}

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

/// `inspect`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  redis-migrate inspect snap.rmz
  redis-migrate inspect --json < snap.rmz")]
pub struct InspectArgs {
    /// The archive; without it, or with `-`, standard input
    #[arg(value_name = "FILE")]
    pub file: Option<Place>,

    /// Print every frame as well, before the rest
    #[arg(long)]
    pub frames: bool,

    /// Print one JSON object; with --frames, one object a frame before it
    #[arg(long)]
    pub json: bool,

    /// Print nothing but warnings and errors; the exit code tells
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub(crate) limits: NoLimitArgs,
    #[command(flatten)]
    pub(crate) encryption: AgeReadArgs,
}
