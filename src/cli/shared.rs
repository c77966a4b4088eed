//! Arguments that several verbs have: how to read, how to write, which keys, what to print.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};

use super::type_name::parse_type;
use crate::pace::{Pace, PaceLimits};
use crate::policy::{
    Consistency, FunctionPolicy, Loss, Method, OnConflict, ReadFrom, TtlPolicy, Via,
};
use crate::rewrite::parse_map_db;
use crate::server::slots::SLOTS;
use crate::source::open::{FollowHow, ReadHow};
use crate::units::{parse_duration, parse_duration_ms, parse_size};

/// How a server is read.
#[derive(Debug, Args)]
#[command(next_help_heading = "Reading")]
pub struct ReadArgs {
    /// Keys the server looks at in one SCAN; smaller is gentler [default: 1000, and up to 10000
    /// where the server is far away]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub scan_count: Option<u32>,

    /// How to read a live server
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    pub via: Via,

    /// SRC is a node of a cluster, even if it does not say so: read all of its shards
    #[arg(long)]
    pub cluster: bool,

    /// In a cluster: read the primaries, or a replica of each
    #[arg(long, value_name = "WHICH", value_enum, default_value_t)]
    pub read_from: ReadFrom,

    /// In a cluster: read only the I-th of N equal shares of its slots, whichever nodes serve them; N
    /// processes with 1/N to N/N read all of it
    #[arg(long, value_name = "I/N", value_parser = parse_shard)]
    pub shard: Option<(u32, u32)>,

    /// In a cluster: read only the shard of this node, named by its id or as it announces itself.
    /// Repeatable
    #[arg(long, value_name = "HOST:PORT|ID")]
    pub node: Vec<String>,

    /// Carry idle times or LFU frequencies too, where OBJECT is allowed
    #[arg(long)]
    pub eviction: bool,

    /// Read a replica even if its link to its primary is down or it was never filled; the result is
    /// then never exact
    #[arg(long)]
    pub allow_stale: bool,

    /// How exact the result is while the source is written to
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    pub consistency: Consistency,

    /// The longest that writes may be paused, and that the final round may block the source
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "500ms")]
    pub max_pause: Duration,

    /// The longest that the rounds after the scan may take [default: 60s; with auto, and a source
    /// that is not a cluster, as long as the scan, 10s to 60s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub max_wait: Option<Duration>,

    /// Keep sending changes and deletions until Ctrl-C (or --until-idle, --for), then end with a
    /// final exact round
    #[arg(long, conflicts_with = "dry_run")]
    pub follow: bool,

    /// With --follow: end when nothing changed for so long
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "follow")]
    pub until_idle: Option<Duration>,

    /// With --follow: end after so long
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration, requires = "follow")]
    pub total: Option<Duration>,
}

impl ReadArgs {
    /// The same for whoever opens the source.
    pub fn how(&self) -> ReadHow {
        let Self {
            until_idle, total, ..
        } = *self;
        ReadHow {
            scan_count: self.scan_count,
            via: self.via,
            cluster: self.cluster,
            read_from: self.read_from,
            shard: self.shard,
            nodes: self.node.clone(),
            eviction: self.eviction,
            allow_stale: self.allow_stale,
            max_pause: self.max_pause,
            max_wait: self.max_wait,
            follow: self.follow.then_some(FollowHow { until_idle, total }),
        }
    }
}

/// Reads `2/3`.
fn parse_shard(text: &str) -> Result<(u32, u32), String> {
    let pair = text
        .split_once('/')
        .and_then(|(which, of)| Some((which.parse().ok()?, of.parse().ok()?)));
    let (which, of) = pair
        .filter(|&(which, of): &(u32, u32)| which >= 1 && which <= of)
        .ok_or_else(|| "write 2/3 for the second of three".to_owned())?;
    match of <= u32::from(SLOTS) {
        true => Ok((which, of)),
        false => Err(format!("a cluster has {SLOTS} slots to share")),
    }
}

/// How a server is written.
#[derive(Debug, Args)]
#[command(next_help_heading = "Writing")]
pub struct WriteArgs {
    /// What to do with a key that already exists at the destination
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

    /// Refuse values larger than this (64MiB), measured as an archive stores them: strings that a
    /// server compressed count in full. Each is named, and the exit code is 3
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_value: Option<u64>,

    /// Accept a loss that the destination makes unavoidable; each is counted. Repeatable
    #[arg(long, value_name = "LOSS", value_enum, value_delimiter = ',')]
    pub allow_loss: Vec<Loss>,

    /// How values are written
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    pub method: Method,

    /// Re-encode every value in plain forms, for archives from strangers
    #[arg(long, conflicts_with = "no_check")]
    pub sanitize: bool,

    /// Send values without looking whether they are sound. A damaged one may end the destination
    /// when it is written, or later when it is read
    #[arg(long)]
    pub no_check: bool,
}

/// How large values may be that are read.
#[derive(Debug, Args, Default)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// Leave out values larger than this (64MiB), measured as an archive stores them: strings that a
    /// server compressed count in full. Each is named, and the exit code is 3
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_value: Option<u64>,
}

impl LimitArgs {
    /// The limit in bytes; without one, as much as there is.
    pub fn max_value_bytes(&self) -> u64 {
        self.max_value.unwrap_or(u64::MAX)
    }
}

/// The same for a verb that needs no values: it leaves nothing out.
#[derive(Debug, Args, Default)]
#[command(next_help_heading = "Limits")]
pub struct NoLimitArgs {
    /// Taken as the other verbs take it, and never exceeded: no value is held whole here, and larger
    /// ones are shown with their size like any other
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_value: Option<u64>,
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

    /// Only these types: string, list, set, zset, hash, stream, vectorset, array, pathhash, unknown
    /// (newer than this version), module (any of a module), or one, as TYPE answers it:
    /// module:ReJSON-RL. Repeatable, or a,b
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',', value_parser = parse_type)]
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

/// How much of the servers and of the network a run may take.
#[derive(Debug, Args, Default)]
#[command(next_help_heading = "Politeness")]
pub struct PaceArgs {
    /// At most so many keys a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub rate_limit: Option<u64>,

    /// At most so many bytes of keys and values a second, before compression (10MiB)
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub bwlimit: Option<u64>,

    /// Slow down as soon as a server takes longer than this to answer others (5ms)
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub latency_target: Option<Duration>,
}

impl PaceArgs {
    /// The pace, where there is any limit.
    pub fn pace(&self) -> Option<Arc<Pace>> {
        let limits = PaceLimits {
            keys: self.rate_limit,
            bytes: self.bwlimit.map(|bytes| bytes.max(1)),
            latency: self.latency_target,
        };
        limits.any().then(|| Arc::new(Pace::new(limits)))
    }
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
    /// Print JSON Lines on standard error, and at the end one summary: on standard output, or on
    /// standard error where standard output carries data
    #[arg(long)]
    pub json: bool,

    /// How to show progress
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    pub progress: ProgressStyle,

    /// Print nothing but warnings and errors; the exit code tells
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Print every failed key, not the first 20 only
    #[arg(short, long, action = ArgAction::SetTrue)]
    pub verbose: bool,

    /// What the old two-URL form has to say of itself.
    #[arg(skip)]
    pub announcements: Vec<String>,
}

/// What a verb that prints its own result prints beside it, on standard error.
#[derive(Debug, Clone, Copy, Args, Default)]
pub struct ScreenArgs {
    /// Print nothing but warnings and errors; the exit code tells
    #[arg(short, long)]
    pub quiet: bool,

    /// How to show progress, on standard error
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    pub progress: ProgressStyle,
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
