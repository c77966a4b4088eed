//! The command line: clap structs only. What they mean is in [`resolve`], the old two-URL form in
//! [`alias`].
//!
//! URLs and their environment variables never pass through clap's own parsers, whose error
//! messages quote what they could not read.

pub mod alias;
mod connect;
pub mod parse;
pub mod resolve;
mod source_end;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

pub use connect::{ConnectArgs, DestinationArgs, ServerFlags, SourceArgs, TimeoutArgs};
pub use source_end::SourceEnd;

use crate::policy::{Consistency, FunctionPolicy, Loss, Method, OnConflict, TtlPolicy, Via};
use crate::rewrite::parse_map_db;
use crate::units::{parse_duration, parse_duration_ms, parse_size};

/// The commit this was built from, or empty.
pub const GIT: &str = match option_env!("REDIS_MIGRATE_GIT") {
    Some(hash) => hash,
    None => "",
};

/// Move Redis and Valkey data between places that cannot see each other.
#[derive(Debug, Parser)]
#[command(
    name = "redis-migrate",
    version = resolve::short_version(),
    long_version = resolve::long_version(),
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  redis-migrate export redis://old:6379 > snap.rmz
  redis-migrate verify snap.rmz
  redis-migrate import redis://new:6379 < snap.rmz
  redis-migrate copy redis://old:6379 redis://new:6379

Exit codes: 0 complete, 1 failed, 2 usage, 3 some keys failed, 4 consistency not reached,
5 differences found, 10 archive damaged or unreadable, 12 cannot connect or authenticate,
13 a needed command is refused, 130 interrupted."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Read a server and write an archive.
    Export(Box<ExportArgs>),
    /// Read an archive and write it to a server.
    Import(Box<ImportArgs>),
    /// Read a server and write to another. `redis-migrate SRC DEST` means this too.
    Copy(Box<CopyArgs>),
    /// Read an archive or RDB file and write an RDB file, or JSON Lines.
    Convert(Box<ConvertArgs>),
    /// Read an archive and check every byte of it; apply nothing.
    Verify(VerifyArgs),
    /// List the keys of an archive.
    List(Box<ListArgs>),
    /// Show what an archive says of itself: header, frames, totals.
    Inspect(InspectArgs),
}

/// What stands where a URL belongs. It may hold a password, and is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Named(pub OsString);

impl From<OsString> for Named {
    fn from(text: OsString) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// How passwords are found; the text of a help section.
const PASSWORD_HELP_SOURCE: &str = "\
Password: --askpass or --password-file; else SOURCE_REDIS_PASSWORD (as it is, no percent-encoding)
or the file SOURCE_REDIS_PASSWORD_FILE names; else the URL; else REDISCLI_AUTH.

Examples:
  redis-migrate export redis://localhost:6379 > snap.rmz
  redis-migrate export rediss://user@db.example.com:6380/0 --askpass -o snap.rmz
  redis-migrate export redis://localhost --match 'user:*' --type hash -o users.rmz";

const PASSWORD_HELP_DESTINATION: &str = "\
Password: --askpass or --password-file; else DESTINATION_REDIS_PASSWORD (as it is, no
percent-encoding) or the file DESTINATION_REDIS_PASSWORD_FILE names; else the URL; else
REDISCLI_AUTH.

Examples:
  redis-migrate import redis://localhost:6379 < snap.rmz
  redis-migrate import redis://localhost:6379 snap.rmz --on-conflict skip --dry-run
  redis-migrate import redis://localhost:6379 snap.rmz --map-db 0:5 --ttl rebase";

const PASSWORD_HELP_COPY: &str = "\
Passwords: --source-askpass, --source-password-file and the same with --dest-; else
SOURCE_REDIS_PASSWORD and DESTINATION_REDIS_PASSWORD (as they are, no percent-encoding) or the
files that the same names with _FILE name; else the URLs. REDISCLI_AUTH is not used here, so that
one side's secret never goes to the other.

Examples:
  redis-migrate copy redis://old:6379 redis://new:6379
  redis-migrate copy redis://old:6379/0 redis://new:6379/5 --on-conflict replace
  redis-migrate redis://old:6379 redis://new:6379        (the same as copy)";

/// `export`.
#[derive(Debug, Args)]
#[command(after_help = PASSWORD_HELP_SOURCE)]
pub struct ExportArgs {
    /// What to read: a server (redis://, rediss:// for TLS, unix://) or an RDB file (`-`: standard
    /// input). A database in the URL, also /0, selects that one [env: SOURCE_REDIS_URL]
    #[arg(value_name = "SRC")]
    pub source: Option<Named>,

    /// Write to FILE: it appears, complete, only at the end. `-` is standard output, even a terminal
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

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

    /// Text for the archive's header
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,

    /// How to read.
    #[command(flatten)]
    pub read: ReadArgs,
    /// Which keys.
    #[command(flatten)]
    pub select: SelectArgs,
    /// How to connect.
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// How long to wait.
    #[command(flatten)]
    pub timeouts: TimeoutArgs,
    /// How to run.
    #[command(flatten)]
    pub run: RunArgs,
    /// What to print.
    #[command(flatten)]
    pub report: ReportArgs,

    /// Read function libraries, and fail if the server does not give them
    /// (default: where it has and gives them)
    #[arg(long, overrides_with = "no_functions", help_heading = "Reading")]
    pub functions: bool,

    /// Do not read function libraries
    #[arg(long, overrides_with = "functions", help_heading = "Reading")]
    pub no_functions: bool,
}

/// `import`.
#[derive(Debug, Args)]
#[command(after_help = PASSWORD_HELP_DESTINATION)]
pub struct ImportArgs {
    /// The server to write to: redis://, rediss:// (TLS) or unix://. A database in the URL takes
    /// the one database of the archive [env: DESTINATION_REDIS_URL]
    #[arg(value_name = "DEST")]
    pub destination: Option<Named>,

    /// The archive; without it, or with `-`, standard input
    #[arg(value_name = "FILE")]
    pub file: Option<OsString>,

    /// Check the whole archive before the first key is written (needs a regular file)
    #[arg(long)]
    pub verify_first: bool,

    /// How to write.
    #[command(flatten)]
    pub write: WriteArgs,
    /// Which keys.
    #[command(flatten)]
    pub select: SelectArgs,
    /// How to connect.
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// How long to wait.
    #[command(flatten)]
    pub timeouts: TimeoutArgs,
    /// How to run.
    #[command(flatten)]
    pub run: RunArgs,
    /// What to print.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// `copy`.
#[derive(Debug, Args)]
#[command(after_help = PASSWORD_HELP_COPY)]
pub struct CopyArgs {
    /// The server or RDB file to read. A database in the URL, also /0, selects that one
    /// [env: SOURCE_REDIS_URL]
    #[arg(value_name = "SRC")]
    pub source: Option<Named>,

    /// The server to write to. A database in the URL takes the one database that comes
    /// [env: DESTINATION_REDIS_URL]
    #[arg(value_name = "DEST")]
    pub destination: Option<Named>,

    /// Delete each key at the source after the destination accepted it, if it has not changed
    /// since it was read; a stream with consumer groups is kept
    #[arg(long)]
    pub delete_source: bool,

    /// How to read.
    #[command(flatten)]
    pub read: ReadArgs,
    /// How to write.
    #[command(flatten)]
    pub write: WriteArgs,
    /// Which keys.
    #[command(flatten)]
    pub select: SelectArgs,
    /// How to connect to the source.
    #[command(flatten)]
    pub source_connect: SourceArgs,
    /// How to connect to the destination.
    #[command(flatten)]
    pub destination_connect: DestinationArgs,
    /// How long to wait.
    #[command(flatten)]
    pub timeouts: TimeoutArgs,
    /// How to run.
    #[command(flatten)]
    pub run: RunArgs,
    /// What to print.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// `convert`.
#[derive(Debug, Args)]
#[command(after_help = "\
An archive is read twice, because a key may come several times in it and must not in an RDB file;
so it must be a regular file then. Values of types that the target does not know are written anew
in forms that it does.

Examples:
  redis-migrate convert snap.rmz dump.rdb --for redis-7.2
  redis-migrate convert dump.rdb old.rdb --rdb-version 9
  redis-migrate convert snap.rmz --to jsonl | jq -r .key")]
pub struct ConvertArgs {
    /// The archive or RDB file to read; `-` is standard input
    #[arg(value_name = "IN")]
    pub input: OsString,

    /// The file to write: it appears, complete, only at the end; without it, or with `-`, standard
    /// output
    #[arg(value_name = "OUT")]
    pub output: Option<PathBuf>,

    /// What to write (default: by the name of OUT)
    #[arg(long, value_name = "WHAT", value_enum)]
    pub to: Option<ConvertTo>,

    /// RDB for this server or a later one: redis-6.0, redis-7.2, valkey-8.1, … (default: as the
    /// source)
    #[arg(long = "for", value_name = "SERVER", conflicts_with = "rdb_version")]
    pub for_server: Option<String>,

    /// RDB of this version: 8 to 12, or 80 for Valkey
    #[arg(long, value_name = "N")]
    pub rdb_version: Option<u16>,

    /// Leave function libraries out
    #[arg(long)]
    pub no_functions: bool,

    /// Accept a loss that the target makes unavoidable; each is counted. Repeatable
    #[arg(long, value_name = "LOSS", value_enum, value_delimiter = ',')]
    pub allow_loss: Vec<Loss>,

    /// Which keys.
    #[command(flatten)]
    pub select: SelectArgs,
    /// How to run.
    #[command(flatten)]
    pub run: RunArgs,
    /// What to print.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// What `convert` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ConvertTo {
    /// An RDB file.
    Rdb,
    /// JSON Lines, one object a key.
    Jsonl,
}

/// `verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without --quick every frame is decompressed and every record walked. --quick checks the frames'
checksums, the digest over the whole archive and the trailer.

Examples:
  redis-migrate verify snap.rmz
  redis-migrate verify --quick --json < snap.rmz")]
pub struct VerifyArgs {
    /// The archive; without it, or with `-`, standard input
    #[arg(value_name = "FILE")]
    pub file: Option<OsString>,

    /// Check without decompressing
    #[arg(long)]
    pub quick: bool,

    /// Print the result as one JSON object on standard output
    #[arg(long)]
    pub json: bool,

    /// Print nothing but errors
    #[arg(short, long)]
    pub quiet: bool,

    /// How to show progress, on standard error
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    pub progress: ProgressStyle,
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
    pub file: Option<OsString>,

    /// One JSON object a key (key_hex stands in where a key is not UTF-8), and a summary as the last
    #[arg(long)]
    pub json: bool,

    /// Which keys.
    #[command(flatten)]
    pub select: SelectArgs,
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
    pub file: Option<OsString>,

    /// Print every frame as well, before the rest
    #[arg(long)]
    pub frames: bool,

    /// Print one JSON object; with --frames, one object a frame before it
    #[arg(long)]
    pub json: bool,
}

/// How a server is read.
#[derive(Debug, Args)]
#[command(next_help_heading = "Reading")]
pub struct ReadArgs {
    /// Keys the server looks at in one SCAN; smaller is gentler
    #[arg(long, value_name = "N", default_value_t = 1_000,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub scan_count: u32,

    /// How to read a live server
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    pub via: Via,

    /// Carry idle times or LFU frequencies too, where OBJECT is allowed
    #[arg(long)]
    pub eviction: bool,

    /// How exact the result is while the source is written to
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    pub consistency: Consistency,

    /// The longest that writes may be paused, and that the last round may hold up the source
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "500ms")]
    pub max_pause: Duration,

    /// The longest that the rounds after the scan may take
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "60s")]
    pub max_wait: Duration,

    /// Go on sending changes and deletions until Ctrl-C (or --until-idle, --for), then end with a
    /// last exact round
    #[arg(long, conflicts_with = "dry_run")]
    pub follow: bool,

    /// With --follow: end when nothing changed for so long
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "follow")]
    pub until_idle: Option<Duration>,

    /// With --follow: end after so long
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration, requires = "follow")]
    pub total: Option<Duration>,
}

/// How a server is written.
#[derive(Debug, Args)]
#[command(next_help_heading = "Writing")]
pub struct WriteArgs {
    /// What to do with a key that stands at the destination already
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pub on_conflict: OnConflict,

    /// The same as --on-conflict replace
    #[arg(long, conflicts_with = "on_conflict")]
    pub replace: bool,

    /// What to do with expiry
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pub ttl: TtlPolicy,

    /// Write database FROM to database TO; `*` is every other. Repeatable
    #[arg(long, value_name = "FROM:TO", value_parser = parse_map_db)]
    pub map_db: Vec<(Option<u32>, u32)>,

    /// Take this off the front of keys, before --add-prefix; a key that does not start with it
    /// stays as it is
    #[arg(long, value_name = "TEXT")]
    pub strip_prefix: Option<OsString>,

    /// Put this in front of every key
    #[arg(long, value_name = "TEXT")]
    pub add_prefix: Option<OsString>,

    /// What to do with function libraries
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pub functions: FunctionPolicy,

    /// Refuse values larger than this; each is reported
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_value: Option<u64>,

    /// Accept a loss that the destination makes unavoidable; each is counted. Repeatable
    #[arg(long, value_name = "LOSS", value_enum, value_delimiter = ',')]
    pub allow_loss: Vec<Loss>,

    /// How values are written
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    pub method: Method,

    /// Write every value anew in plain forms, for archives from strangers
    #[arg(long)]
    pub sanitize: bool,
}

/// Which keys take part.
#[derive(Debug, Args, Default)]
#[command(next_help_heading = "Selection")]
pub struct SelectArgs {
    /// Only these databases; wins over the one in a source's URL. Repeatable, or 0,3
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub db: Vec<u32>,

    /// Only keys that match this Redis glob (* ? [a-z] [^a] \x, on bytes); several: any of them
    #[arg(long = "match", value_name = "GLOB")]
    pub matches: Vec<OsString>,

    /// No keys that match this Redis glob. Repeatable
    #[arg(long = "exclude", value_name = "GLOB")]
    pub excludes: Vec<OsString>,

    /// Only these types: string, list, set, zset, hash, stream, module. Repeatable, or a,b
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
    pub types: Vec<String>,

    /// Only values of at least SIZE (64k, 10MiB), counted as `list` shows them
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub min_size: Option<u64>,

    /// Only values of at most SIZE
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_size: Option<u64>,

    /// Only keys with expiry
    #[arg(long, conflicts_with = "without_ttl")]
    pub with_ttl: bool,

    /// Only keys without expiry
    #[arg(long)]
    pub without_ttl: bool,

    /// Only keys that live at least this long (90s, 1d); keys without expiry do
    #[arg(long, value_name = "TIME", value_parser = parse_duration_ms)]
    pub min_ttl: Option<u64>,

    /// Only keys that expire within this time; keys without expiry do not
    #[arg(long, value_name = "TIME", value_parser = parse_duration_ms,
          conflicts_with = "without_ttl")]
    pub max_ttl: Option<u64>,
}

/// How a run goes.
#[derive(Debug, Args, Default)]
#[command(next_help_heading = "Running")]
pub struct RunArgs {
    /// Say what would happen, with counts and conflicts; change nothing, write nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Stop when more than N keys failed (default: go on to the end)
    #[arg(long, value_name = "N")]
    pub max_errors: Option<u64>,

    /// Write every key that failed to FILE, as JSON Lines
    #[arg(long, value_name = "FILE")]
    pub errors_to: Option<PathBuf>,
}

/// What is printed to standard error.
#[derive(Debug, Args, Default)]
#[command(next_help_heading = "Messages (on standard error)")]
pub struct ReportArgs {
    /// Print JSON Lines: events, progress, and a summary as the last
    #[arg(long)]
    pub json: bool,

    /// How to show progress
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    pub progress: ProgressStyle,

    /// Print warnings and errors only
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Print every failed key, not the first 20 only
    #[arg(short, long, action = ArgAction::SetTrue)]
    pub verbose: bool,

    /// What the old two-URL form has to say of itself.
    #[arg(skip)]
    pub announcements: Vec<String>,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ProgressStyle {
    /// A bar on a terminal, else a line every 10 seconds.
    #[default]
    Auto,
    /// A bar.
    Bar,
    /// A line every 10 seconds.
    Log,
    /// JSON Lines; all other messages too.
    Json,
    /// None.
    None,
}
