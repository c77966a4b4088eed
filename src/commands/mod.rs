//! One file for each verb: open a source, open a sink, run the pipe, print the summary.

pub mod completions;
pub mod convert;
pub mod copy;
pub mod diff;
pub mod doctor;
pub mod export;
mod export_resume;
pub mod extract;
pub mod import;
pub mod inspect;
pub mod list;
pub mod open_archives;
pub mod open_side;
pub mod open_source;
pub mod prove;
pub mod report;
pub mod salvage;
mod standing;
mod unread;
pub mod verify;
mod verify_values;

use std::io::{self, Write as _};

use anyhow::Context as _;
use redis_migrate_format::{End, Header};

use crate::describe::{export_failed_json, export_failed_text, export_lacks_text, loss_of};
use crate::exit;
use crate::ledger::export_failed;
use crate::ui;
use crate::undecoded::Undecoded;

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
    if let Some(text) = end.and_then(|end| export_failed_text(&export_failed(end))) {
        ui::print_warning(&text);
    }
    for line in end.iter().flat_map(|end| &end.lacks) {
        ui::print_warning(&export_lacks_text(line));
    }
}

/// Says what an archive lost when it was salvaged: a key that it does not hold may be one of those.
fn warn_of_loss(name: &str, header: &Header) {
    if let Some(loss) = loss_of(header) {
        ui::print_warning(&format!("{name} {loss}"));
    }
}

/// The keys that the export could not read, as JSON; null where there are none, or nothing is known of it.
fn unread_json(end: Option<&End>) -> serde_json::Value {
    export_failed_json(&end.map(export_failed).unwrap_or_default())
}

/// The exit code of a verb that does nothing but print to standard output. When nobody reads on
/// (`| head`), that is the reader's choice and no failure. A verb that found something before it
/// prints ends by [`ended`].
fn quiet_when_nobody_reads(done: anyhow::Result<u8>) -> u8 {
    done.unwrap_or_else(|error| match is_broken_pipe(&error) {
        true => exit::OK,
        false => ui::print_error(&error),
    })
}

/// Whether the reader of standard output went away.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Prints a result to standard output, all of it.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.context("write to standard output")
}

/// The exit code of a verb that found something and `printed` it. What was found is said and decides,
/// whether or not somebody read the result to its end; that it could not be written (a full disk) is
/// a failure besides.
fn ended(printed: anyhow::Result<()>, found: anyhow::Result<u8>) -> u8 {
    let unwritten = match printed {
        Err(error) if !is_broken_pipe(&error) => ui::print_error(&error),
        _ => exit::OK,
    };
    let code = found.unwrap_or_else(|error| ui::print_error(&error));
    exit::strongest(&[code, unwritten])
}
