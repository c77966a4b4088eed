//! Arguments of `doctor`.

use std::ffi::OsString;

use anyhow::Result;
use clap::Args;

use crate::cli::resolve::{Env, Server, Side, url_and_file};
use crate::cli::{AgeReadArgs, ConnectArgs, LimitArgs, TimeoutArgs};
use crate::endpoint::ConnectOptions;
use crate::place::Place;

/// `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is written to the server. Commands are tried on keys that do not exist, or with arguments
that cannot be right.

Without an archive the exit code is 0 for every report that could be made. With one it is 3 if
some of its keys or functions would be refused, 13 if the user may not write at all, 10 if it is damaged.

Password: --askpass or --password-file; else DESTINATION_REDIS_PASSWORD (with --source,
SOURCE_REDIS_PASSWORD) or the file in the same variable with _FILE; else the URL; else REDISCLI_AUTH.

Examples:
  redis-migrate doctor redis://localhost:6379
  redis-migrate doctor redis://new:6379 snap.rmz
  redis-migrate doctor --json redis://new:6379 | jq -r .import.acl_least")]
pub struct DoctorArgs {
    /// The server: redis://, rediss:// (TLS), unix:// or redis-sentinel://; of a cluster any node
    /// [env: DESTINATION_REDIS_URL, with --source SOURCE_REDIS_URL]
    #[arg(value_name = "URL")]
    pub server: Option<Place>,

    /// Say also what this archive would need there; `-` is standard input
    #[arg(value_name = "ARCHIVE")]
    pub file: Option<Place>,

    /// Take URL and password from the source's environment variables, not the destination's
    #[arg(long)]
    pub source: bool,

    /// Try writing on names that begin with TEXT, for a user who may write only such (default:
    /// the first key of the archive)
    #[arg(long, value_name = "TEXT")]
    pub prefix: Option<OsString>,

    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,

    /// Print nothing but warnings and errors; the exit code tells
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) encryption: AgeReadArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    #[command(flatten)]
    pub(crate) timeouts: TimeoutArgs,
}

impl DoctorArgs {
    /// The server, and the archive if there is one.
    ///
    /// # Errors
    /// [`Usage`](crate::exit::Usage).
    pub fn ends(&self, env: Env<'_>) -> Result<(ConnectOptions, Option<&Place>)> {
        let side = match self.source {
            true => Side::Source,
            false => Side::Destination,
        };
        let (place, file) = match (self.server.as_ref(), self.file.as_ref()) {
            (only, None) => url_and_file(only, side, env),
            both => both,
        };
        let server = Server::alone(side, place, &self.connect, &self.timeouts);
        Ok((server.resolve(env)?, file))
    }
}
