//! One file for each verb: open a source, open a sink, run the pipe, print the summary.

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

use std::io::{self, Write as _};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use redis_migrate_format::{End, Error, Header};

use crate::cli::{ReportArgs, RunArgs, ScreenArgs};
use crate::describe::tally::Tally;
use crate::describe::watch::Watched;
use crate::describe::{export_failed_json, export_warnings, loss_of};
use crate::escape::clean_lines;
use crate::exit;
use crate::ledger::export_failed;
use crate::observer::Observer;
use crate::pipe::Outcome;
use crate::place::Input;
use crate::ui::{self, Ui, Verb};
use crate::undecoded::Undecoded;
use crate::units::plural;

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
