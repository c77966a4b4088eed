//! Arguments of `export`.

use anyhow::Result;
use clap::{Args, ValueHint};

use crate::cli::resolve::{Env, Server, Side};
use crate::cli::{
    AgeWriteArgs, ConnectArgs, LimitArgs, PaceArgs, ReadArgs, ReportArgs, RunArgs, SelectArgs,
    TimeoutArgs,
};
use crate::place::{Endpoint, Place};
use crate::policy::ReadFunctions;

/// How passwords are found; the text of a help section.
const PASSWORD_HELP_SOURCE: &str = "\
Password: --askpass or --password-file; else SOURCE_REDIS_PASSWORD (as it is, no percent-encoding)
or the file in SOURCE_REDIS_PASSWORD_FILE; else the URL; else REDISCLI_AUTH.

Examples:
  redis-migrate export redis://localhost:6379 > snap.rmz
  redis-migrate export rediss://user@db.example.com:6380/0 --askpass -o snap.rmz
  redis-migrate export redis://localhost --match 'user:*' --type hash -o users.rmz
  redis-migrate export redis://localhost --consistency scan --resume -o snap.rmz
  redis-migrate export redis://localhost --age-recipient age1… -o snap.rmz.age";

/// `export`.
#[derive(Debug, Args)]
#[command(after_help = PASSWORD_HELP_SOURCE)]
pub struct ExportArgs {
    /// What to read: a server (redis://, rediss:// for TLS, unix://, redis-sentinel://) or an RDB
    /// file (`-`: standard input). A database in the URL, also /0, selects that one [env: SOURCE_REDIS_URL]
    #[arg(value_name = "SRC")]
    pub source: Option<Place>,

    /// Write to FILE: it appears, complete, only at the end. A symbolic link means the file it points
    /// to. `-` is standard output, even a terminal
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub output: Option<Place>,

    /// Keep what was written in FILE.part, and continue there if an earlier run was stopped. SCAN
    /// continues where it was with --consistency scan, while the source was not restarted; else it
    /// starts over
    #[arg(long, requires = "output", conflicts_with = "dry_run")]
    pub resume: bool,

    /// zstd level, 1 to 19
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(i32).range(1..=19))]
    pub level: i32,

    /// Store without compression
    #[arg(long, conflicts_with = "level")]
    pub no_compress: bool,

    /// Keep every payload exactly as the server sent it, footer included (larger)
    #[arg(long)]
    pub verbatim: bool,

    /// Do not look whether values are sound. Otherwise a damaged value is archived as it is, named,
    /// and the exit code is 3
    #[arg(long)]
    pub no_check: bool,

    /// Text for the archive's header
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,

    #[command(flatten)]
    pub(crate) read: ReadArgs,
    #[command(flatten)]
    pub(crate) select: SelectArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) encryption: AgeWriteArgs,
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

    /// Read function libraries, and fail if the server does not give them
    /// (default: where it has and gives them)
    #[arg(long, overrides_with = "no_functions", help_heading = "Reading")]
    pub functions: bool,

    /// Do not read function libraries
    #[arg(long, overrides_with = "functions", help_heading = "Reading")]
    pub no_functions: bool,
}

impl ExportArgs {
    /// The source.
    ///
    /// # Errors
    /// [`Usage`](crate::exit::Usage).
    pub fn source(&self, env: Env<'_>) -> Result<Endpoint> {
        let place = self.source.as_ref();
        Server::alone(Side::Source, place, &self.connect, &self.timeouts).endpoint(env)
    }

    /// Whether to read function libraries.
    pub fn read_functions(&self) -> ReadFunctions {
        match (self.functions, self.no_functions) {
            (_, true) => ReadFunctions::No,
            (true, false) => ReadFunctions::Required,
            (false, false) => ReadFunctions::IfPossible,
        }
    }

    /// zstd level; 0 for stored frames.
    pub fn zstd_level(&self) -> i32 {
        if self.no_compress { 0 } else { self.level }
    }
}
