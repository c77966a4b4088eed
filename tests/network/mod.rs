//! Networks that break, stall and are far away; and servers that are to be spared.
//!
//! `FAULT_RUNS=20` sets how often each fault is tried.

mod polite;
mod sink;
mod source;
