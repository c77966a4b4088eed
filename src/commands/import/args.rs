//! Arguments of `import`.

use std::ffi::OsString;

use anyhow::Result;
use clap::Args;

use crate::cli::resolve::{Env, Server, Side, given_key, url_and_file};
use crate::cli::{
    AgeReadArgs, ConnectArgs, PaceArgs, ReportArgs, RunArgs, SelectArgs, TimeoutArgs, WriteArgs,
};
use crate::endpoint::ConnectOptions;
use crate::exit::Usage;
use crate::place::{Location, Place};
use crate::select::Selection;

const PASSWORD_HELP_DESTINATION: &str = "\
Password: --askpass or --password-file; else DESTINATION_REDIS_PASSWORD (as it is, no
percent-encoding) or the file in DESTINATION_REDIS_PASSWORD_FILE; else the URL; else
REDISCLI_AUTH.

Examples:
  redis-migrate import redis://localhost:6379 < snap.rmz
  redis-migrate import redis://localhost:6379 snap.rmz --on-conflict skip --dry-run
  redis-migrate import redis://localhost:6379 part-1.rmz part-2.rmz part-3.rmz --resume
  redis-migrate import redis://localhost:6379 snap.rmz --map-db 0:5 --ttl rebase";

/// `import`.
#[derive(Debug, Args)]
#[command(after_help = PASSWORD_HELP_DESTINATION)]
pub struct ImportArgs {
    /// The server to write to: redis://, rediss:// (TLS), unix:// or redis-sentinel://. A database
    /// in the URL takes the one database of the archive [env: DESTINATION_REDIS_URL]
    #[arg(value_name = "DEST")]
    pub destination: Option<Place>,

    /// The archive; without it, or with `-`, standard input. Several (the parts of one export, or
    /// of a cluster) are read one after the other
    #[arg(value_name = "FILE")]
    pub files: Vec<Place>,

    /// Only this key, in quotes as `list` shows it, or as it is. Repeatable
    #[arg(long, value_name = "KEY", help_heading = "Selection")]
    pub only_key: Vec<OsString>,

    /// Import what is intact of an archive that is cut off, and exit with 3
    #[arg(long, conflicts_with = "verify_first")]
    pub allow_incomplete: bool,

    /// Check the whole archive before the first key is written (needs a regular file)
    #[arg(long)]
    pub verify_first: bool,

    /// At the end, read back what was written and compare it by meaning; exit 5 if it differs
    #[arg(long, conflicts_with = "dry_run")]
    pub verify: bool,

    /// Read and unpack a file with N threads at once, by its INDEX. The destination is usually what
    /// takes the time; more than 1 helps where it is a large cluster
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u8).range(1..=64))]
    pub jobs: u8,

    /// Remember how far the import has come, in STATE (default: a file among the user's states, made
    /// of archive and destination), and continue from there if an earlier run was stopped. A run that
    /// ends well removes it
    #[arg(long, value_name = "STATE", num_args = 0..=1, require_equals = true,
          default_missing_value = "", conflicts_with = "dry_run")]
    pub resume: Option<OsString>,

    #[command(flatten)]
    pub(crate) write: WriteArgs,
    #[command(flatten)]
    pub(crate) select: SelectArgs,
    #[command(flatten)]
    pub(crate) encryption: AgeReadArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    #[command(flatten)]
    pub(crate) timeouts: TimeoutArgs,
    #[command(flatten)]
    pub(crate) pace: PaceArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

impl ImportArgs {
    /// The destination, and where the archives are.
    ///
    /// # Errors
    /// [`Usage`].
    pub fn ends(&self, env: Env<'_>) -> Result<(ConnectOptions, Vec<Location>)> {
        let side = Side::Destination;
        let (place, first) = url_and_file(self.destination.as_ref(), side, env);
        let destination = Server::alone(side, place, &self.connect, &self.timeouts).resolve(env)?;
        let files = first.into_iter().chain(&self.files);
        let mut files: Vec<Location> = files
            .map(|place| place.stored().cloned())
            .collect::<Result<_, Usage>>()?;
        if files.is_empty() {
            files.push(Location::Stream);
        }
        Ok((destination, files))
    }

    /// Which records of the archive.
    ///
    /// # Errors
    /// [`Usage`] for a quoted key that cannot be read.
    pub fn selection(&self) -> Result<Selection> {
        let keys = self.only_key.iter().map(|key| given_key(key));
        Ok(Selection {
            only_keys: keys.collect::<Result<_>>()?,
            ..self.select.selection(None)
        })
    }
}
