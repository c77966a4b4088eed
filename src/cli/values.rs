//! Words that stand for a choice. Those of the sinks are given their spelling here, because a sink
//! knows nothing of the command line.

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::sink::server::{FunctionsPolicy, OnConflict};

impl ValueEnum for OnConflict {
    fn value_variants<'a>() -> &'a [Self] {
        &[OnConflict::Fail, OnConflict::Skip, OnConflict::Replace]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            OnConflict::Fail => PossibleValue::new("fail")
                .help("Report it and leave it alone; the others go on, and the run exits with 3"),
            OnConflict::Skip => PossibleValue::new("skip").help("Leave it alone"),
            OnConflict::Replace => PossibleValue::new("replace").help("Overwrite it"),
        })
    }
}

impl ValueEnum for FunctionsPolicy {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            FunctionsPolicy::Skip,
            FunctionsPolicy::Append,
            FunctionsPolicy::Replace,
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            FunctionsPolicy::Skip => PossibleValue::new("skip").help("Leave them out"),
            FunctionsPolicy::Append => PossibleValue::new("append")
                .help("Add them; a library of the same name follows --on-conflict"),
            FunctionsPolicy::Replace => {
                PossibleValue::new("replace").help("Add them, in place of those of the same name")
            }
        })
    }
}

/// What becomes of the expiry at the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum TtlPolicy {
    /// Keys expire at the moment they had at the source
    #[default]
    Keep,
    /// Keys never expire
    Drop,
    /// The life that remained when the key was read counts from now
    Rebase,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ProgressStyle {
    /// A bar on a terminal, else a line every 10 seconds
    #[default]
    Auto,
    /// A bar
    Bar,
    /// A line every 10 seconds
    Log,
    /// JSON Lines, and all other messages too
    Json,
    /// None
    None,
}
