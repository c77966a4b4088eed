//! One file for each verb: open a source, open a sink, run the pipe, print the summary. Its arguments are in
//! `args.rs` below it. The registry, [`verbs!`](Invocation), is here.

mod completions;
mod convert;
pub mod copy;
mod diff;
mod doctor;
pub mod export;
mod export_resume;
mod extract;
pub mod import;
mod inspect;
mod into_server;
mod list;
mod open_archives;
mod report;
mod salvage;
mod unread;
mod verify;
mod verify_values;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser, Subcommand};
use redis_migrate_format::{End, Error, Header};

use crate::cli::outline::Outline;
use crate::cli::{Files, ReportArgs, RunArgs, ScreenArgs, resolve};
use crate::describe::tally::Tally;
use crate::describe::watch::Watched;
use crate::describe::{export_failed_json, export_warnings, loss_of};
use crate::escape::clean_lines;
use crate::exit;
use crate::ledger::export_failed;
use crate::observer::Observer;
use crate::pipe::Outcome;
use crate::place::Input;
use crate::stop::Stop;
use crate::ui::{self, Ui};
use crate::undecoded::Undecoded;
use crate::units::plural;
use crate::verb::Verb;

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

impl Cli {
    /// What can be known of these arguments, program name first, even if they cannot be parsed.
    pub fn outline(args: &[OsString]) -> Outline {
        Outline::of(&Self::command(), VERBS, args)
    }
}

/// What every verb has in common: its arguments know what to do.
pub trait Run {
    /// What others have to know of the verb.
    const VERB: Verb;

    /// The files that this command line names, standard input and output among them.
    fn files(&self) -> Files;

    /// Runs the verb; the exit code.
    ///
    /// # Errors
    /// What is still to be printed, and decides the exit code.
    fn run(&self, stop: &Stop) -> Result<u8>;
}

impl<A: Run> Run for Box<A> {
    const VERB: Verb = A::VERB;

    fn files(&self) -> Files {
        (**self).files()
    }

    fn run(&self, stop: &Stop) -> Result<u8> {
        (**self).run(stop)
    }
}

macro_rules! verbs {
    ($($(#[doc = $doc:literal])* $(#[command($($set:tt)*)])? $verb:ident($arguments:ty)),* $(,)?) => {
        /// A verb with its arguments.
        #[derive(Debug, Subcommand)]
        pub enum Invocation {
            $(
                $(#[doc = $doc])*
                #[command(name = <$arguments as Run>::VERB.name $(, $($set)*)?)]
                $verb($arguments)
            ),*
        }

        /// What is said of each verb.
        pub const VERBS: &[Verb] = &[$(<$arguments as Run>::VERB),*];

        impl Invocation {
            /// The files that the command line names: see [`Run::files`].
            pub fn files(&self) -> Files {
                match self {
                    $(Self::$verb(arguments) => arguments.files()),*
                }
            }

            /// Runs the verb; the exit code.
            ///
            /// # Errors
            /// See [`Run::run`].
            pub fn run(&self, stop: &Stop) -> Result<u8> {
                match self {
                    $(Self::$verb(arguments) => arguments.run(stop)),*
                }
            }
        }
    };
}

// The registry: a line for each verb, in the order of `--help`.
verbs! {
    /// Read a server and write an archive.
    Export(Box<export::ExportArgs>),
    /// Read an archive and write it to a server.
    Import(Box<import::ImportArgs>),
    /// Read a server and write to another. `redis-migrate SRC DEST` means this too.
    Copy(Box<copy::CopyArgs>),
    /// Read an archive or RDB file and write an RDB file, or JSON Lines.
    Convert(Box<convert::ConvertArgs>),
    /// Read an archive and check every byte of it; apply nothing.
    Verify(Box<verify::VerifyArgs>),
    /// Compare two of archive, RDB file and server, by the meaning of every value.
    Diff(Box<diff::DiffArgs>),
    /// List the keys of an archive.
    List(Box<list::ListArgs>),
    /// Show what an archive says of itself: header, frames, totals.
    Inspect(inspect::InspectArgs),
    /// Show what is inside an archive: a page with pictures and tables, or JSON.
    Report(report::PageArgs),
    /// Print one value of an archive, or write it to a file.
    Extract(extract::ExtractArgs),
    /// Rescue what is intact of a damaged archive into a new one.
    Salvage(salvage::SalvageArgs),
    /// Show what a server is and allows, and what an archive would need there.
    Doctor(Box<doctor::DoctorArgs>),
    /// Print what a shell needs to complete this tool's command lines.
    Completions(completions::CompletionsArgs),
    /// Write the man pages into a directory.
    #[command(hide = true)]
    ManPages(completions::ManPagesArgs),
}

/// Says of which types there are values that this version cannot look into.
fn warn_of_undecoded(undecoded: &Undecoded) {
    if let Some(text) = undecoded.warning() {
        ui::print_warning(&text);
    }
    if let Some(text) = undecoded.notice() {
        ui::print_line(&text);
    }
}

/// Says which keys the export could not read, and what else it did not have, where the end of its
/// archive was seen.
fn warn_of_unread(end: Option<&End>) {
    let warnings = end.map(|end| export_warnings(&export_failed(end), &end.lacks));
    for text in warnings.into_iter().flatten() {
        ui::print_warning(&text);
    }
}

/// Says what an archive lost when it was salvaged: a key that it does not hold may be one of those.
fn warn_of_loss(name: &str, header: &Header) {
    tell_loss(name, header, ui::print_warning);
}

/// The same, told by `warn`.
fn tell_loss(name: &str, header: &Header, warn: impl FnOnce(&str)) {
    if let Some(loss) = loss_of(header) {
        warn(&format!("{name} {loss}"));
    }
}

/// The keys that the export could not read, as JSON; null where there are none, or nothing is known of it.
fn unread_json(end: Option<&End>) -> serde_json::Value {
    export_failed_json(&end.map(export_failed).unwrap_or_default())
}

/// Runs a verb whose records flow from a source into a sink, with progress and a ledger at its end:
/// what to print, how to run, and whether an earlier run may be gone on with.
fn flow(
    verb: Verb,
    (report, run, resumes): (&ReportArgs, &RunArgs, bool),
    flow: impl FnOnce(&Arc<Observer>) -> Result<Outcome>,
) -> Result<u8> {
    let ui = Ui::start(verb, report, run, resumes)?;
    let outcome = flow(&ui.observer()).unwrap_or_else(Outcome::failed);
    Ok(ui.finish(&outcome))
}

/// Does what a verb does that prints its own result, while progress is shown.
fn watch<T>(
    verb: Verb,
    ScreenArgs { quiet, progress }: ScreenArgs,
    work: impl FnOnce(&Arc<Observer>) -> Result<T>,
) -> Result<T> {
    let report = ReportArgs {
        quiet,
        progress,
        ..ReportArgs::default()
    };
    let ui = Ui::start(verb, &report, &RunArgs::default(), false)?;
    let done = work(&ui.observer());
    ui.close();
    done
}

/// What becomes of a verb that does nothing but print to standard output. When nobody reads on
/// (`| head`), that is the reader's choice and no failure. A verb that found something before it
/// prints ends by [`ended`].
fn quiet_when_nobody_reads(done: Result<u8>) -> Result<u8> {
    match done {
        Err(error) if exit::is_broken_pipe(&error) => Ok(exit::OK),
        done => done,
    }
}

/// Prints a result to standard output, all of it.
fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.context("cannot write to standard output")
}

/// The exit code of a verb that found something and `printed` it. What was found is said and decides,
/// whether or not somebody read the result to its end; that it could not be written (a full disk) is
/// a failure besides.
fn ended(printed: Result<()>, found: Result<u8>) -> u8 {
    let unwritten = match printed {
        Err(error) if !exit::is_broken_pipe(&error) => ui::print_error(&error),
        _ => exit::OK,
    };
    let code = found.unwrap_or_else(|error| ui::print_error(&error));
    exit::strongest(&[code, unwritten])
}

/// What an archive's reading came to: its damage, or this code.
fn code_unless_damaged(damage: Option<Error>, name: String, code: u8) -> Result<u8> {
    match damage {
        Some(error) => Err(anyhow::Error::new(error).context(name)),
        None => Ok(code),
    }
}

/// Prints a result for people, unless they want none.
fn print_unless(is_silent: bool, text: impl FnOnce() -> String) -> Result<()> {
    match is_silent {
        true => Ok(()),
        false => print(&clean_lines(&text())),
    }
}

/// Length and digest of what was read to its end: of an encrypted archive those of the file, which the
/// export printed.
fn stored(watched: &Watched<Input>) -> (u64, String) {
    let of_file = watched.inner().stored();
    of_file.unwrap_or_else(|| (watched.bytes_read(), watched.sha256()))
}

/// What an archive holds beside keys, a line each.
fn beside_keys(tally: &Tally) -> String {
    let mut text = String::new();
    if tally.functions > 0 {
        text += "with function libraries\n";
    }
    if let Some(line) = tally.metadata_text() {
        text += &format!("{line}\n");
    }
    if tally.tombstones > 0 {
        text += &format!("{}\n", plural(tally.tombstones, "tombstone"));
    }
    text
}

#[cfg(test)]
mod tests;
