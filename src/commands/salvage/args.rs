//! Arguments of `salvage`.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueHint};

use crate::cli::{AgeReadArgs, LimitArgs, ScreenArgs};
use crate::encryption::Recipients;
use crate::place::Place;

/// `salvage`.
#[derive(Debug, Args)]
#[command(after_help = "\
Every frame that is intact is taken, in the archive's order; a value that is stored in several
frames only if all of them are there. Nothing is guessed. What was lost is reported here and in the
new archive (`inspect` shows it). Where records were lost, a key may have an older value, or exist
although it was deleted: its later record is what was lost.

An encrypted archive is read up to the first place that cannot be decrypted. What is rescued is
encrypted again for --age-recipient, or written unencrypted with --plain.

Exit code: 0 if nothing was lost, 3 if something was or --max-value left something out, 10 if there is nothing to rescue.

Examples:
  redis-migrate salvage broken.rmz -o rescued.rmz
  redis-migrate salvage < broken.rmz | redis-migrate list
  redis-migrate salvage broken.rmz.age --age-identity key.txt --age-recipient age1… -o rescued.rmz.age")]
pub struct SalvageArgs {
    /// The damaged archive; without it, or with `-`, standard input, which is first saved to a
    /// temporary file
    #[arg(value_name = "FILE")]
    pub file: Option<Place>,

    /// Write to FILE: it appears, complete, only at the end. `-` is standard output, even a terminal
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub output: Option<Place>,

    /// Print what was rescued and lost as one JSON object: on standard output with -o, else on
    /// standard error
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub(crate) screen: ScreenArgs,

    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) encryption: AgeReadArgs,

    /// Encrypt what was rescued for the owner of this public key (age1…). Repeatable
    #[arg(long, value_name = "KEY", help_heading = "Encryption (age)")]
    pub age_recipient: Vec<String>,

    /// Encrypt what was rescued for the public keys in FILE, one a line. Repeatable
    #[arg(long, value_name = "FILE", help_heading = "Encryption (age)")]
    pub age_recipients_file: Vec<PathBuf>,

    /// Write what was rescued of an encrypted archive without encryption
    #[arg(long, conflicts_with_all = ["age_recipient", "age_recipients_file"],
          help_heading = "Encryption (age)")]
    pub plain: bool,
}

impl SalvageArgs {
    /// Whom to encrypt for; nobody for an archive that anybody can read.
    ///
    /// # Errors
    /// [`Usage`](crate::exit::Usage).
    pub fn recipients(&self) -> Result<Recipients> {
        Recipients::load(&self.age_recipient, &self.age_recipients_file, None, false)
    }
}
