//! Arguments of `copy`.

use anyhow::Result;
use clap::Args;

use crate::cli::resolve::{Env, Server, Side};
use crate::cli::{
    DestinationArgs, PaceArgs, ReadArgs, ReportArgs, RunArgs, SelectArgs, SourceArgs, TimeoutArgs,
    WriteArgs,
};
use crate::endpoint::ConnectOptions;
use crate::place::{Endpoint, Place};

const PASSWORD_HELP_COPY: &str = "\
Passwords: --source-askpass, --source-password-file and the same with --dest-; else
SOURCE_REDIS_PASSWORD and DESTINATION_REDIS_PASSWORD (as they are, no percent-encoding) or the
files in SOURCE_REDIS_PASSWORD_FILE and DESTINATION_REDIS_PASSWORD_FILE; else the URLs.
REDISCLI_AUTH is not used here, so that one side's secret never goes to the other.

Examples:
  redis-migrate copy redis://old:6379 redis://new:6379
  redis-migrate copy redis://old:6379/0 redis://new:6379/5 --on-conflict replace
  redis-migrate redis://old:6379 redis://new:6379        (the same as copy)";

/// `copy`.
#[derive(Debug, Args)]
#[command(after_help = PASSWORD_HELP_COPY)]
pub struct CopyArgs {
    /// The server or RDB file to read. A database in the URL, also /0, selects that one
    /// [env: SOURCE_REDIS_URL]
    #[arg(value_name = "SRC")]
    pub source: Option<Place>,

    /// The server to write to. A database in the URL takes the one database that comes
    /// [env: DESTINATION_REDIS_URL]
    #[arg(value_name = "DEST")]
    pub destination: Option<Place>,

    /// Delete each key at the source after the destination accepted it, if it has not changed
    /// since it was read; a stream with consumer groups is kept
    #[arg(long)]
    pub delete_source: bool,

    /// At the end, read back what was written and compare it by meaning; exit 5 if it differs
    #[arg(long, conflicts_with = "dry_run")]
    pub verify: bool,

    #[command(flatten)]
    pub(crate) read: ReadArgs,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
    #[command(flatten)]
    pub(crate) select: SelectArgs,
    #[command(flatten)]
    pub(crate) source_connect: SourceArgs,
    #[command(flatten)]
    pub(crate) destination_connect: DestinationArgs,
    #[command(flatten)]
    pub(crate) timeouts: TimeoutArgs,
    #[command(flatten)]
    pub(crate) pace: PaceArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// What to print.
    #[command(flatten)]
    pub report: ReportArgs,
}

impl CopyArgs {
    /// Source and destination.
    ///
    /// # Errors
    /// [`Usage`](crate::exit::Usage).
    pub fn ends(&self, env: Env<'_>) -> Result<(Endpoint, ConnectOptions)> {
        let (mut source, mut destination) = (self.source.as_ref(), self.destination.as_ref());
        // One URL, the source being in the environment and the destination not.
        let is_set = |side: Side| env(&side.variable("URL")).is_some();
        let is_url = source.is_some_and(Place::is_server);
        if is_url && destination.is_none() && is_set(Side::Source) && !is_set(Side::Destination) {
            destination = source.take();
        }
        let server = |side: Side, place, flags| Server {
            side,
            place,
            flags,
            timeouts: &self.timeouts,
            alone: false,
        };
        let from = server(Side::Source, source, self.source_connect.flags());
        let flags = self.destination_connect.flags();
        let to = server(Side::Destination, destination, flags);
        Ok((from.endpoint(env)?, to.resolve(env)?))
    }
}
