//! Arguments of `diff`, and those of every comparison.

use std::ffi::OsString;

use anyhow::Result;
use clap::Args;

use crate::cli::resolve::{Env, Server, Side, renaming};
use crate::cli::{
    AgeReadArgs, LeftArgs, LimitArgs, RightArgs, ScreenArgs, SelectArgs, TimeoutArgs,
};
use crate::compare::names::SampleSize;
use crate::exit::usage;
use crate::place::{Endpoint, Place};
use crate::rewrite::{Rewrite, parse_map_db};
use crate::units::parse_duration_ms;

const HELP: &str = "\
Values are compared by meaning: encodings, versions and the order of sets, hashes and sorted sets do
not matter, -0 is 0. Streams are compared with their groups, consumers and pending entries; when a
consumer was last seen or active is left out. What only one of two servers keeps of a stream (7.0 and
later know more of it) is left out too, and such streams are counted. Values of modules are equal if
their bytes are; where a server gives other bytes each time it is asked (TopK, graphs), they cannot be
compared, and are named and counted apart. A key or field that expired between the two readings is
not a difference; it is counted.

Live servers are scanned, and nothing stops them: what changes while it is compared may look
different. Keys that differ are read again from live servers (--recheck), and only what still differs
is reported.

It takes some 50 MiB of memory and the largest values in flight. On disk each side takes about 40
bytes and the name for each key, in temporary files without names (TMPDIR says where), which are gone
however the run ends.
Beyond some 50 million keys memory grows by 50 MiB for every further 100 million.

Passwords: --a-askpass, --a-password-file and the same with --b-; else SOURCE_REDIS_PASSWORD for A
and DESTINATION_REDIS_PASSWORD for B, or the files in the same variables with _FILE; else the URLs;
if only one side is a server, REDISCLI_AUTH.

Exit codes: 0 equal, 3 some keys could not be read or compared, 5 different, 10 a file is damaged,
11 wrong key or passphrase, 12 cannot connect or authenticate, 13 a needed command is refused.

Examples:
  redis-migrate diff snap.rmz redis://localhost:6379
  redis-migrate diff redis://old:6379 redis://new:6379 --ttl-tolerance 5s --json > differences.jsonl
  redis-migrate diff monday.rmz dump.rdb --match 'user:*' --explain
  redis-migrate diff snap.rmz redis://new:6379 --strip-prefix old: --add-prefix new: --sample 10000";

/// `diff`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct DiffArgs {
    /// The left side: an archive, an RDB file, or a server. `-` is standard input
    #[arg(value_name = "A")]
    pub left: Place,

    /// The right side: likewise. A database in the URL of a server takes the one database of A
    #[arg(value_name = "B")]
    pub right: Place,

    /// Print the result as JSON Lines on standard output: every difference, and a summary as the last
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub(crate) compare: CompareArgs,
    #[command(flatten)]
    pub(crate) select: SelectArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) left_connect: LeftArgs,
    #[command(flatten)]
    pub(crate) right_connect: RightArgs,
    #[command(flatten)]
    pub(crate) timeouts: TimeoutArgs,
    #[command(flatten)]
    pub(crate) encryption: AgeReadArgs,

    #[command(flatten)]
    pub(crate) screen: ScreenArgs,
}

/// What counts as a difference.
#[derive(Debug, Args)]
#[command(next_help_heading = "Comparing")]
pub struct CompareArgs {
    /// How far expiries may lie apart. Servers before 7.0 say only how long there is left, which
    /// makes them inexact by some milliseconds
    #[arg(long, value_name = "TIME", value_parser = parse_duration_ms,
          default_value = "1s")]
    pub ttl_tolerance: u64,

    /// Do not compare expiries, neither of keys nor of hash fields
    #[arg(long)]
    pub ignore_ttl: bool,

    /// Do not compare function libraries
    #[arg(long)]
    pub no_functions: bool,

    /// Read keys that differ so many times again from live servers, each time a second later
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub recheck: u32,

    /// Read a replica even if its link to its primary is down or it was never filled
    #[arg(long)]
    pub allow_stale: bool,

    /// Compare only so many keys (10000), or a part of them (1%), chosen at random by each run
    #[arg(long, value_name = "N|P%")]
    pub sample: Option<SampleSize>,

    /// Compare database FROM of A with database TO of B; `*` is every other. Repeatable
    #[arg(long, value_name = "FROM:TO", value_parser = parse_map_db)]
    pub map_db: Vec<(Option<u32>, u32)>,

    /// Take this off the front of A's keys, before --add-prefix, as import does
    #[arg(long, value_name = "TEXT")]
    pub strip_prefix: Option<OsString>,

    /// Put this in front of A's keys
    #[arg(long, value_name = "TEXT")]
    pub add_prefix: Option<OsString>,

    /// Say where values differ (of the first 1,000), which reads both sides once more
    #[arg(long)]
    pub explain: bool,

    /// Print every difference, not the first 20 only
    #[arg(long)]
    pub all: bool,
}

impl DiffArgs {
    /// The two sides.
    ///
    /// # Errors
    /// [`Usage`](crate::exit::Usage).
    pub fn sides(&self, env: Env<'_>) -> Result<(Endpoint, Endpoint)> {
        let (left, right) = (&self.left, &self.right);
        if left.word() == "-" && right.word() == "-" {
            return Err(usage("only one side can be standard input"));
        }
        let alone = !(left.is_server() && right.is_server());
        let end = |side, place, flags| {
            Server {
                side,
                place: Some(place),
                flags,
                timeouts: &self.timeouts,
                alone,
            }
            .endpoint(env)
        };
        Ok((
            end(Side::Left, left, self.left_connect.flags())?,
            end(Side::Right, right, self.right_connect.flags())?,
        ))
    }
}

impl CompareArgs {
    /// How the left side's records change before they are compared.
    ///
    /// # Errors
    /// [`Usage`](crate::exit::Usage) for a database in the right side's URL together with
    /// `--map-db`.
    pub fn rewrite(&self, right: &Endpoint) -> Result<Rewrite> {
        let mut rewrite = renaming(
            &self.map_db,
            &self.strip_prefix,
            &self.add_prefix,
            right.db(),
            "B",
        )?;
        rewrite.dbs.is_comparison = true;
        Ok(rewrite)
    }
}
