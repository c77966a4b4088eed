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
pub mod verify;
mod verify_values;

use crate::exit;
use crate::ui;

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
