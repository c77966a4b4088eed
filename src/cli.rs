//! The command line: clap structs only, a file for each verb. What they mean is in [`resolve`], the old two-URL form in
//! [`alias`].
//!
//! URLs and their environment variables never pass through clap's own parsers, whose error
//! messages quote what they could not read.

pub mod alias;
mod completions;
mod connect;
mod convert;
mod copy;
mod diff;
mod doctor;
mod encryption;
mod export;
mod extract;
mod files;
pub mod habits;
mod import;
mod look;
pub mod outline;
pub mod parse;
mod report;
pub mod resolve;
mod salvage;
mod shared;
mod type_name;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

use crate::policy::word;
use crate::stop::Stop;
use crate::verb::Flow;

pub use completions::{CompletionsArgs, ManPagesArgs};
pub use connect::{ConnectArgs, DestinationArgs, LeftArgs, RightArgs, SourceArgs, TimeoutArgs};
pub use convert::{ConvertArgs, ConvertTo};
pub use copy::CopyArgs;
pub use diff::{AgainstArgs, CompareArgs, DiffArgs};
pub use doctor::DoctorArgs;
pub use encryption::{AgeReadArgs, AgeWriteArgs};
pub use export::ExportArgs;
pub use extract::ExtractArgs;
pub use files::Files;
pub use import::ImportArgs;
pub use look::{InspectArgs, ListArgs, VerifyArgs, VerifyLevel};
pub use report::PageArgs;
pub use salvage::SalvageArgs;
pub use shared::{
    LimitArgs, NoLimitArgs, PaceArgs, ProgressStyle, ReadArgs, ReportArgs, RunArgs, ScreenArgs,
    SelectArgs, WriteArgs,
};

/// Move Redis and Valkey data between places that cannot see each other.
#[derive(Debug, Parser)]
#[command(
    name = "redis-migrate",
    version = resolve::short_version(),
    long_version = resolve::long_version(),
    arg_required_else_help = true,
    after_help = "\
Examples:
  redis-migrate export redis://old:6379 > snap.rmz
  redis-migrate verify snap.rmz
  redis-migrate import redis://new:6379 < snap.rmz
  redis-migrate diff snap.rmz redis://new:6379
  redis-migrate copy redis://old:6379 redis://new:6379

Exit codes: 0 complete, 1 failed, 2 usage, 3 some keys failed, 4 consistency not reached,
5 differences found, 10 archive damaged or unreadable, 11 wrong key or passphrase,
12 cannot connect or authenticate, 13 a needed command is refused, 130 interrupted."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Invocation,
}

/// What every verb has in common.
pub trait Run {
    /// The files that this command line names, standard input and output among them.
    fn files(&self) -> Files;

    /// Runs the verb; the exit code.
    ///
    /// # Errors
    /// What is still to be printed, and decides the exit code.
    fn run(&self, stop: &Stop) -> Result<u8>;
}

impl<A: Run> Run for Box<A> {
    fn files(&self) -> Files {
        (**self).files()
    }

    fn run(&self, stop: &Stop) -> Result<u8> {
        (**self).run(stop)
    }
}

macro_rules! verbs {
    ($($(#[doc = $doc:literal])* $(#[command($($set:tt)*)])? $verb:ident($arguments:ty)),* $(,)?) => {
        /// A verb, by its name alone.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
        pub enum Verb {
            $($(#[doc = $doc])* $verb),*
        }

        /// A verb with its arguments.
        #[derive(Debug, Subcommand)]
        pub enum Invocation {
            $($(#[doc = $doc])* $(#[command($($set)*)])? $verb($arguments)),*
        }

        impl Invocation {
            /// Which one it is.
            pub fn which(&self) -> Verb {
                match self {
                    $(Self::$verb(_) => Verb::$verb),*
                }
            }

            /// Its arguments, which know what to do.
            pub fn arguments(&self) -> &dyn Run {
                match self {
                    $(Self::$verb(arguments) => arguments),*
                }
            }
        }
    };
}

// The registry: a line for each verb. Its arguments are in a file beside this one, and `impl Run` for them
// is in `commands`.
verbs! {
    /// Read a server and write an archive.
    Export(Box<ExportArgs>),
    /// Read an archive and write it to a server.
    Import(Box<ImportArgs>),
    /// Read a server and write to another. `redis-migrate SRC DEST` means this too.
    Copy(Box<CopyArgs>),
    /// Read an archive or RDB file and write an RDB file, or JSON Lines.
    Convert(Box<ConvertArgs>),
    /// Read an archive and check every byte of it; apply nothing.
    Verify(Box<VerifyArgs>),
    /// Compare two of archive, RDB file and server, by the meaning of every value.
    Diff(Box<DiffArgs>),
    /// List the keys of an archive.
    List(Box<ListArgs>),
    /// Show what an archive says of itself: header, frames, totals.
    Inspect(InspectArgs),
    /// Show what is inside an archive: a page with pictures and tables, or JSON.
    Report(PageArgs),
    /// Print one value of an archive, or write it to a file.
    Extract(ExtractArgs),
    /// Rescue what is intact of a damaged archive into a new one.
    Salvage(SalvageArgs),
    /// Show what a server is and allows, and what an archive would need there.
    Doctor(Box<DoctorArgs>),
    /// Print what a shell needs to complete this tool's command lines.
    Completions(CompletionsArgs),
    /// Write the man pages into a directory.
    #[command(hide = true)]
    ManPages(ManPagesArgs),
}

impl Verb {
    /// The verb of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::from_str(name, false).ok()
    }

    /// Its name on the command line.
    pub fn name(self) -> String {
        word(&self)
    }

    /// Whether it writes data to standard output unless it is told a file.
    pub fn writes_data(self) -> bool {
        matches!(
            self,
            Self::Export | Self::Convert | Self::Report | Self::Extract | Self::Salvage
        )
    }

    /// What flows from a source into a sink; `None` where the verb prints a result of its own.
    pub fn flow(self) -> Option<Flow> {
        match self {
            Self::Export => Some(Flow::Export),
            Self::Import => Some(Flow::Import),
            Self::Copy => Some(Flow::Copy),
            Self::Convert => Some(Flow::Convert),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_verb_is_known_by_its_name() {
        let command = Cli::command();
        let names: Vec<&str> = command
            .get_subcommands()
            .map(|verb| verb.get_name())
            .collect();
        let known = Verb::value_variants();
        let known: Vec<String> = known.iter().map(|verb| verb.name()).collect();
        assert_eq!(known, names);
        for line in [
            "export redis://h",
            "list x",
            "man-pages x",
            "completions bash",
        ] {
            let words = std::iter::once("redis-migrate").chain(line.split(' '));
            let cli = Cli::parse_from(words);
            let name = line.split(' ').next();
            assert_eq!(Some(cli.verb.which().name().as_str()), name);
        }
    }
}
