//! What the integration tests and the benchmark share: real servers, data sets, equality by
//! meaning, the tool under test, and a network that can be made to fail.
//!
//! Servers listen on 127.0.0.1 only, on ports of their own, and end with the value that
//! stands for them.
#![allow(missing_docs, reason = "its names and the tests that use them say it")]

pub mod answers;
pub mod cluster;
pub mod dataset;
pub mod equality;
pub mod hostile_answers;
pub mod hostile_archives;
pub mod key_metadata;
pub mod many;
pub mod newer;
pub mod old_streams;
pub mod proxy;
pub mod random;
pub mod reading;
pub mod resp_proxy;
pub mod sentinel;
pub mod servers;
pub mod tool;
pub mod toy;
pub mod wire;
