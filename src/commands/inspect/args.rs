//! Arguments of `inspect`.

use clap::Args;

use crate::cli::{AgeReadArgs, NoLimitArgs};
use crate::place::Place;

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
