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

use redis_migrate_format::End;

use crate::describe::{export_failed, export_failed_json, export_failed_text};
use crate::exit;
use crate::ui;

/// Says which keys the export could not read, where the end of its archive was seen.
fn warn_of_unread(end: Option<&End>) {
    if let Some(text) = end.and_then(|end| export_failed_text(&export_failed(end))) {
        ui::print_warning(&text);
    }
}

/// The same as JSON; null where there are none, or nothing is known of it.
fn unread_json(end: Option<&End>) -> serde_json::Value {
    export_failed_json(&end.map(export_failed).unwrap_or_default())
}

/// The exit code of a verb that prints to standard output. When nobody reads on (`| head`), that
/// is the reader's choice and no failure.
fn quiet_when_nobody_reads(done: anyhow::Result<u8>) -> u8 {
    done.unwrap_or_else(|error| {
        let is_broken_pipe = error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
            .any(|error| error.kind() == std::io::ErrorKind::BrokenPipe);
        if is_broken_pipe {
            exit::OK
        } else {
            ui::print_error(&error)
        }
    })
}
