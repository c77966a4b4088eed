//! Arguments of `verify`.

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::cli::resolve::{Env, Server, Side};
use crate::cli::{AgeReadArgs, ConnectArgs, LimitArgs, ScreenArgs, SelectArgs, TimeoutArgs};
use crate::commands::diff::CompareArgs;
use crate::exit::usage;
use crate::place::{Endpoint, Place};

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

    /// The server to compare with, if there is one.
    ///
    /// # Errors
    /// [`Usage`](crate::exit::Usage).
    pub fn other_side(&self, env: Env<'_>) -> Result<Option<Endpoint>> {
        let AgainstArgs {
            against,
            connect,
            timeouts,
            ..
        } = &self.against;
        let Some(named) = against else {
            return match self.against.is_idle() {
                true => Ok(None),
                false => Err(usage(
                    "options of the comparison are given, but no server to compare with; add \
                     --against URL",
                )),
            };
        };
        if !named.is_server() {
            return Err(usage(
                "--against takes a server (redis://host:port); to compare files, use `diff`",
            ));
        }
        let server = Server::alone(Side::Destination, Some(named), connect, timeouts);
        server.endpoint(env).map(Some)
    }
}

/// What `verify --against` takes besides.
#[derive(Debug, Args)]
pub struct AgainstArgs {
    /// When the archive is intact, compare it with this server, as `diff FILE URL` does
    #[arg(long, value_name = "URL")]
    pub against: Option<Place>,

    #[command(flatten)]
    pub(crate) compare: CompareArgs,
    #[command(flatten)]
    pub(crate) select: SelectArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    #[command(flatten)]
    pub(crate) timeouts: TimeoutArgs,
}

impl AgainstArgs {
    /// Whether nothing was said of how to compare.
    fn is_idle(&self) -> bool {
        let compare = &self.compare;
        self.select.selection(None).is_everything()
            && compare.map_db.is_empty()
            && compare.strip_prefix.is_none()
            && compare.add_prefix.is_none()
            && compare.sample.is_none()
            && !(compare.all || compare.explain || compare.ignore_ttl || compare.no_functions)
    }
}
