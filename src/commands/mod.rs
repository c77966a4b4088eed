//! One file for each verb: open a source, open a sink, run the pipe, print the summary.

pub mod copy;
pub mod export;
pub mod import;
