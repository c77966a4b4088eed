//! The program as its user meets it: help, usage errors, exit codes, what goes to which stream,
//! secrets that are never shown, every kind of bad input, and globs as the servers read them.
//!
//! Left out: what export, import and copy do to data (`tests/live`) and what goes wrong on the
//! network (`tests/faults`). No server is needed here but for the globs.

pub(crate) mod archives;
mod bad_input;
mod content;
mod destroying;
mod escapes;
mod globs;
mod handling;
mod limits;
mod outcome;
mod secrets;
mod selecting;
mod streams;
mod usage;
