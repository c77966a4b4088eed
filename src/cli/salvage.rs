//! Arguments of `salvage`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::ProgressStyle;

/// `salvage`.
#[derive(Debug, Args)]
#[command(after_help = "\
Every frame that is intact is taken, in the archive's order; a value that is stored in several
frames only if all of them are there. Nothing is guessed. What was lost is told here and in the new
archive (`inspect` shows it). Where records were lost, a key may stand with an older value, or stand
though it was deleted: the later record of it is what was lost.

Exit code: 0 if nothing was lost, 3 if something was, 10 if there is nothing to rescue.

Examples:
  redis-migrate salvage broken.rmz -o rescued.rmz
  redis-migrate salvage < broken.rmz | redis-migrate list")]
pub struct SalvageArgs {
    /// The damaged archive; without it, or with `-`, standard input, which is first saved to a
    /// temporary file
    #[arg(value_name = "FILE")]
    pub file: Option<OsString>,

    /// Write to FILE: it appears, complete, only at the end. `-` is standard output, even a terminal
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Print what was rescued and lost as one JSON object on standard error
    #[arg(long)]
    pub json: bool,

    /// Print nothing but warnings and errors
    #[arg(short, long)]
    pub quiet: bool,

    /// How to show progress, on standard error
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    pub progress: ProgressStyle,
}
