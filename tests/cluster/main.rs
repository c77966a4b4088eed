//! Clusters, read and written, while they are moved about, fail over and lose nodes.

#[path = "../support/mod.rs"]
mod support;

mod source;
mod writer;
